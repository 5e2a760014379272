"""What a person is told at the end of the demonstration."""

from __future__ import annotations

from typing import Any


def lines(answer: dict[str, Any], *, codes: int, fire: int) -> list[str]:
    """Say what was planted, what came back, what the controls gave, and where to look."""
    found, encoder, folder = answer["recovery"], answer["encoder"], answer["path"]
    labels = ", ".join(f"{name} {n / answer['tiles']:.0%}" for name, n in answer["labels"].items())
    return [
        "",
        f"{answer['tiles']:,} painted tiles of {answer['patients']} patients, each stained in its own way.",
        f"What covers the most of a tile: {labels}.",
        f"A vision transformer of {encoder['parameters']:,} parameters learnt {encoder['tiles']:,} tiles of others by",
        f"itself, in {encoder['steps']:,} steps. What it makes of a patch became {codes} codes; {fire} fire at a time.",
        "Genes are predicted from a tile's mean codes, on patients that the heads have not seen.",
        "",
        *table_lines(found),
        "",
        *verdicts(found),
        "",
        "Where to look:",
        f"  {folder}/report/index.html    in a browser: genes, their codes, and the tiles that these stand for",
        f"  {folder}/cohort/    the tiles, the counts and the truth, as files",
        "  elute tissue run --images TILES --table TILES.csv --encoder FOLDER --counts COUNTS.h5ad    for your own",
    ]


def table_lines(found: dict[str, Any]) -> list[str]:
    """The planted genes: what came of each, and of the same procedure without a trained encoder or without truth."""
    told = [
        f"{'':<59}{'random weights':>14}   {'permuted':>13}",
        f"{'gene':<8}{'planted to':<13}{'R² held out (95%)':<23}{'code':>5} {'tiles':>6}"
        + f"   {'R²':>6} {'tiles':>6}" * 2
        + f" {'chance':>8}",
    ]
    for row in found["table"]:
        r2 = f"{row['r2']:.2f} ({row['r2_low']:.2f} to {row['r2_high']:.2f})"
        code = "–" if row["code"] is None else str(row["code"])
        told.append(
            f"{row['gene']:<8}{row['structure']:<13}{r2:<23}{code:>5} {row['precision']:>6.0%}"
            f"   {_plain(row['random_r2']):>6} {row['random_precision']:>6.0%}"
            f"   {_plain(row['permuted_r2']):>6} {row['permuted_precision']:>6.0%} {row['chance']:>8.0%}"
        )
    return told


def verdicts(found: dict[str, Any]) -> list[str]:
    """What the table comes to."""
    n, times, k, hits = found["genes"], found["permutations"], found["references"], found["hits"]
    least, right, chance = (f"{found[key]:.0%}" for key in ("least", "permuted_precision", "chance_precision"))
    null, drawn = found["permuted_hits"], found["chance_hits"]
    above, together = found["permuted_above_0"], found["permuted_above_0_together"]
    return [
        f"tiles: of the top code's {k} RelMax tiles, those in which no structure covers more than the planted one;",
        f"{least} and more are a hit. Hits: {hits} of {n} genes; with random weights {found['random_hits']} of {n}.",
        "chance: of all tiles, those in which it covers the most.",
        f"Targets permuted across tiles, {times} times: {null:.1f} hits of {n}; codes drawn at random, {drawn:.1f}.",
        f"{right} of their tiles are right; of tiles drawn at random, {chance}. R² above 0, by intervals of 95%:",
        f"{above} of {n * times} (2.5% by chance); for all {n} genes together, any in {together} of {times} times.",
    ]


def _plain(value: float) -> str:
    """Two digits, and no sign before nothing."""
    text = f"{value:.2f}"
    return text.removeprefix("-") if float(text) == 0 else text
