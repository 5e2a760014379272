"""The page about a dictionary's features: how well it reconstructs, which features matter, and what they follow."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import polars as pl

from elute.base import files
from elute.reports.html import Markup, put
from elute.reports.leaf import facts
from elute.reports.routing.charts import heat, sorted_bars
from elute.reports.routing.document import page
from elute.reports.routing.instances import drawing
from elute.reports.tissue.markup import el, named, note, table
from elute.reports.validation_svg import chance, number

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

FIGURES = "figures"
_LISTED, _FOLLOWED = 40, 4


def write_eval_page(
    folder: Path, pair: str, summary: Mapping[str, Any], *, features: pl.DataFrame, meant: pl.DataFrame,
    r2: Mapping[str, Mapping[str, Floats]], drawn: Mapping[int, Sequence[Mapping[str, Any]]],
    weights: Mapping[str, tuple[list[str], Floats]],
) -> None:  # fmt: skip
    """Write the page, and each drawing as a file of its own."""
    files.make_folder(folder / FIGURES)
    for old in (folder / FIGURES).glob("*.svg"):
        old.unlink()
    rows = {row["feature"]: row for row in features.iter_rows(named=True)}
    cards = [_card(folder, rows[feature], shown, meant) for feature, shown in drawn.items()]
    content = [_head(summary), _dimensions(r2), _list(features), _means(summary), *cards, *_heat(weights), _reading()]
    put(folder / "index.html", page(f"Features of {pair}", pair, content))


def _head(summary: Mapping[str, Any]) -> Markup:
    ours, bar, told = summary["transcoder"], summary["linear_map"], summary["attribution"]
    lead = (
        f"Reads {', '.join(summary['reads'])}; writes {', '.join(summary['writes'])}. Seen on {summary['instances']:,} "
        f"held-out instances of {summary['nodes']} nodes."
    )
    shown: list[tuple[str, object]] = [
        ("explained variance", f"{ours['explained_variance']:.4f}"),
        ("of the linear map", f"{bar['explained_variance']:.4f}"),
        ("features that fire in a row", number(summary["l0"])),
        ("features that never fire", f"{summary['dead']} of {summary['dictionary']['features']}"),
    ]
    if told["spearman"] is not None:
        shown.append(("attribution against taking away, Spearman", f"{told['spearman']:.2f} (p {chance(told['p'])})"))
    extra = None
    if "linear_in_nodes" in summary:
        shares = summary["linear_in_nodes"]
        extra = note(
            f"The target is affine in two nodes. A linear map of the current node explains {shares['current']:.3f} of "
            f"it, of both {shares['both']:.3f}: what the first node says no dictionary of the current one can know."
        )
    return el("section", el("p", lead, class_="lead"), facts(shown), extra)


def _dimensions(r2: Mapping[str, Mapping[str, Floats]]) -> Markup:
    drawings = [
        sorted_bars(
            "r2", f"R² of each dimension of {site}", {"observed": ours, "doubt": r2["linear map"][site]}, up="R²"
        )
        for site, ours in r2["transcoder"].items()
    ]
    told = note("Each dimension of the target, on held-out instances: the dictionary (blue), the linear map (orange).")
    return el("section", el("h2", "How well each dimension is reconstructed"), told, *drawings)


def _list(features: pl.DataFrame) -> Markup:
    heads = [
        ("feature", False), ("fires in", True), ("attribution", True), ("margin without it", True),
        ("KL without it", True), ("follows, of nodes", False), ("ρ", True), ("beyond their place", False), ("ρ", True),
        ("of instances", False), ("ρ", True),
    ]  # fmt: skip
    rows = [
        [
            row["feature"], f"{row['frequency']:.1%}",
            f"{number(row['attribution'])} [{number(row['attribution_low'])}, {number(row['attribution_high'])}]",
            number(row["away_margin"]) if row["away_margin"] is not None else "–",
            number(row["away_kl"]) if row["away_kl"] is not None else "–",
            *_follows(row, "node"), *_follows(row, "beyond"), *_follows(row, "instance"),
        ]
        for row in features.head(_LISTED).iter_rows(named=True)
    ]  # fmt: skip
    more = note(f"The {min(_LISTED, len(features))} of {len(features)} features of the largest attribution.")
    return el("section", el("h2", "Features that matter"), more, table(heads, rows, label="Features", cards=False))


def _follows(row: Mapping[str, Any], scope: str) -> list[object]:
    if row[f"{scope}_quantity"] is None or row[f"{scope}_p_family"] >= 0.05:
        return [el("span", "nothing found", class_="dim"), "–"]
    return [row[f"{scope}_quantity"].replace("_", " "), number(row[f"{scope}_rho"], 2)]


def _means(summary: Mapping[str, Any]) -> Markup:
    meant = summary["meaning"]
    moved = {
        "node": ("a quantity of nodes", "nodes within instances"),
        "beyond place": ("a quantity of nodes beyond their place", "residuals within instances"),
        "instance": ("a quantity of instances", "instances"),
    }
    told = [
        f"{meant[scope]['follow']} of {meant[scope]['tested']} features follow {what} "
        f"(p of the whole table < 0.05, {meant['permutations']} permutations of {exchanged})."
        for scope, (what, exchanged) in moved.items()
    ]
    return el("section", el("h2", "What they follow"), *(note(text) for text in told))


def _card(folder: Path, row: Mapping[str, Any], shown: Sequence[Mapping[str, Any]], meant: pl.DataFrame) -> Markup:
    feature = row["feature"]
    pictures = []
    for i, told in enumerate(shown):
        picture = drawing(f"feature_{feature}_{i}", told, most=row["max_strength"], what=f"feature {feature}")
        body = picture.svg(alone=True).encode()
        files.write_atomically(folder / FIGURES / f"{picture.name}.svg", partial(_put, body))
        pictures.append(el("figure", picture.svg()))
    mine = (
        meant.filter((pl.col("feature") == feature) & (pl.col("p_family") < 0.05))
        .sort(pl.col("rho").abs(), "quantity", descending=[True, False])
        .head(_FOLLOWED)
    )
    words = "; ".join(
        f"{r['quantity'].replace('_', ' ')} ({r['scope']}) ρ {number(r['rho'], 2)}, p {chance(r['p_family'])}"
        for r in mine.iter_rows(named=True)
    )
    told_away = (
        ""
        if row["away_kl"] is None
        else f" Without it: KL {number(row['away_kl'])}, margin {number(row['away_margin'])}."
    )
    return el(
        "section",
        el("h3", f"Feature {feature}"),
        note(
            f"Fires in {row['frequency']:.1%} of the rows.{told_away} Follows: {words or 'nothing that was asked for'}."
        ),
        el("div", *pictures, class_="figures"),
        class_="feature",
    )


def _put(body: bytes, handle: BinaryIO) -> None:
    handle.write(body)


def _heat(rows: Mapping[str, tuple[list[str], Floats]]) -> list[Markup]:
    title = el("h2", "Where features write")
    told = note("Decoder weights of the features that matter most; a column is a dimension of the target.")
    parts = [title, told]
    for site, (names, weights) in rows.items():
        parts += [el("h3", named(site)), heat("weights", f"Decoder weights into {site}", weights, down=names,
                                              across=f"dimension of {site}")]  # fmt: skip
    return parts


def _reading() -> Markup:
    said = [
        "Margin: how far the logit of the node that the policy takes lies above the runner-up's, where there is one.",
        (
            "Attribution: by how much the margin would fall if the feature were taken away and all else were linear. "
            "Taking features away one by one says how far that holds."
        ),
        (
            "ρ of nodes: correlation of ranks within each instance, pooled; its null exchanges nodes within instances. "
            "ρ of instances: of an instance's mean activation; its null exchanges instances. p is of the whole table."
        ),
        (
            "A policy is given places, and all else follows from them: that a feature follows x or y says little. "
            "Beyond their place: what is left of both when a smooth surface over the square is taken off."
        ),
        (
            "Quantities hang together: a node in the middle is near to all others, the first node too. A feature that "
            "follows one follows its kin. The largest is named, which says nothing of cause."
        ),
        "Circles grow with activation; the square is where the tour begins.",
    ]
    return el("section", el("h2", "How to read this"), el("ul", *(el("li", text) for text in said), class_="note"))
