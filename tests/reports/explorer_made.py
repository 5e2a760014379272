"""A run that never was, of any size and complete: every table, codes, a store and a dictionary, for the Explorer.

    make_run(tmp_path / "run")                                     40 features × 200 cells
    make_run(folder, features=16_384, cells=100_000, genes=8_000)  what the benchmark opens
    make_run(tmp_path / "run", hostile=True)                       names and numbers that would break a page

    python tests/reports/explorer_made.py FOLDER [features] [cells]

Features belong to programs: those of a program like the same genes and cell types, as in real dictionaries, but for
noise. Numbers are drawn from ranges that runs have, and do not follow from one another.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl

KINDS = ("gene identity", "gene program", "cell state", "depth")
SITE = "blocks.3.hook_mlp_out"
MARKERS = (  # noqa: SIM905 a list of words is read more easily
    "CD79A MS4A1 CD79B CD19 BANK1 LST1 AIF1 TYROBP LYZ S100A9 CST3 CD14 CD3D CD3E IL7R LTB CD2 CCR7 NKG7 GNLY GZMB PRF1 "
    "KLRD1 FTL CD74 RPS24 RPL13 MALAT1 TMSB4X B2M EEF1A1 ACTB FTH1 HBB HBA1 COL1A1 VWF PECAM1 MKI67 TOP2A STMN1"
).split()
TYPES = ("B cell", "CD14+ monocyte", "CD4 T cell", "NK cell", "CD8 T cell", "dendritic cell", "plasma cell", "platelet")
SOURCES = {
    "go": ("Gene Ontology", "CC BY 4.0", "GO:{:07d}", "process"),
    "hpo": ("Human Phenotype Ontology", "HPO licence", "HP:{:07d}", "phenotype"),
    "reactome": ("Reactome", "CC0", "R-HSA-{}", ""),
}
HOSTILE = "<img src=x onerror=alert(1)>"
CLOSING = "</script><script>alert(2)</script>"
LONG = "Ω" * 10_000
EMOJI = "👩‍👩‍👧‍👦🧬e\u0301"
RIGHT = "\u202eגנים ARABIC العربية"
NUL = "a\0b\x1b[31m\u2028\u2029"
NASTY = (HOSTILE, CLOSING, LONG, EMOJI, RIGHT, NUL, "<!--<script>", "]]>", "&lt;b&gt;", "__proto__", "", " ", "null")


@dataclass(frozen=True)
class Size:
    """How large the run is."""

    features: int = 40
    cells: int = 200
    genes: int = 120
    donors: int = 6
    types: int = 6
    tokens: int = 8  # rows of a cell
    slots: int = 8  # features of a row
    seed: int = 7

    @property
    def programs(self) -> int:
        return max(4, self.features // 128)


def make_run(folder: Path, *, hostile: bool = False, sites: int = 1, codes: bool = True, **size: int) -> Path:
    """Write a complete run; `codes` with the store, the codes and the dictionary."""
    made = Size(**size)
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(made.seed)
    genes, cells = _genes(rng, made, hostile), _cells(rng, made, hostile)
    genes.write_parquet(folder / "genes.parquet")
    cells.write_parquet(folder / "cells.parquet")
    names = [SITE] if sites == 1 else [f"blocks.{i}.hook_mlp_out" for i in range(sites - 1)]
    names += [HOSTILE.replace("/", "")] if sites > 1 else []
    store = _store(folder, rng, made, (genes, cells), names) if codes else None
    for name in names:
        place = folder if sites == 1 else folder / name
        place.mkdir(exist_ok=True)
        _site(place, np.random.default_rng([made.seed, len(name)]), made, (genes, cells), hostile=hostile)
        if store is not None:
            _codes(place, store, rng, made, name)
    _records(folder, names, made, hostile)
    return folder


def _genes(rng: np.random.Generator, made: Size, hostile: bool) -> pl.DataFrame:
    letters, numbers = rng.integers(65, 91, (made.genes, 4)), rng.integers(1, 40, made.genes)
    symbols = [
        "".join(map(chr, row[: 2 + i % 3])) + str(n) for i, (row, n) in enumerate(zip(letters, numbers, strict=True))
    ]
    symbols[: len(MARKERS)] = MARKERS[: made.genes]
    if hostile:
        symbols[: len(NASTY)] = NASTY
    ids = [f"ENSG{i * 7919 % 10**11:011d}" for i in range(made.genes)]
    if hostile:
        ids[1] = LONG
    return pl.DataFrame({"gene": ids, "symbol": symbols})


def _cells(rng: np.random.Generator, made: Size, hostile: bool) -> pl.DataFrame:
    n = made.cells
    types = [TYPES[i % len(TYPES)] + (f" {i // len(TYPES)}" if i >= len(TYPES) else "") for i in range(made.types)]
    donors = [f"donor {i + 1}" for i in range(made.donors)]
    if hostile:
        types[:4], donors[:3] = [HOSTILE, CLOSING, RIGHT, LONG], [HOSTILE, NUL, EMOJI]
    share = 1 / np.arange(1, made.types + 1)
    label = rng.choice(made.types, n, p=share / share.sum())
    donor = rng.integers(0, made.donors, n)
    letters = np.array(list("ACGT"))[rng.integers(0, 4, (n, 16))]
    names = ["".join(row) + f"-{d + 1}" for row, d in zip(letters, donor, strict=True)]
    names = [f"{name}_{i}" if hostile or n < 1000 else name for i, name in enumerate(names)]
    names = [f"{name}.{i}" for i, name in enumerate(names)] if len(set(names)) < n else names
    if hostile:
        names[: len(NASTY)] = [f"{text}#{i}" for i, text in enumerate(NASTY)]
    frame = pl.DataFrame(
        {
            "cell": names, "row": np.arange(n), "split": np.where(donor % 2 == 0, "train", "test"),
            "label": [types[i] if i < made.types - 1 or n < 50 or j % 9 else None for j, i in enumerate(label)],
            "donor": [donors[i] for i in donor], "batch": [f"batch {i % 3}" for i in donor],
            "genes": rng.integers(300, 4000, n), "total": rng.gamma(4, 1500, n).round(),
            "obs:tissue": [("blood", "marrow", "spleen")[i % 3] for i in label],
            "obs:percent_mito": rng.beta(2, 30, n).round(4),
        }
    )  # fmt: skip
    if hostile:
        odd = [float("nan"), float("inf"), -float("inf"), 1e308, -1e308, 5e-324]
        numbers = [odd[i] if i < len(odd) else float(i) for i in range(n)]
        frame = frame.with_columns(pl.Series(f"obs:{HOSTILE}", numbers), pl.Series("obs:__proto__", [NUL] * n))
    return frame


def _site(
    place: Path, rng: np.random.Generator, made: Size, tables: tuple[pl.DataFrame, pl.DataFrame], *, hostile: bool
) -> None:
    genes, cells = tables
    n = made.features
    program = rng.integers(0, made.programs, n)
    alive = rng.random(n) < 0.9
    alive[: min(8, n)] = True
    top = _top_genes(rng, made, program)
    levels = [level for level in cells["label"].unique(maintain_order=True).to_list() if level is not None]
    best = (program * 5 + (rng.random(n) < 0.2) * rng.integers(0, 9, n)) % len(levels)
    frame = _features(rng, made, alive=alive, program=program, best=[levels[i] for i in best])
    symbols = genes["symbol"].to_list()
    listed = [[symbols[g] for g in row[:20]] if a else None for row, a in zip(top, alive, strict=True)]
    z = np.sort(rng.gamma(3, 5, (n, top.shape[1])), axis=1)[:, ::-1]
    frame = frame.with_columns(
        pl.Series("top_genes", listed, dtype=pl.List(pl.String)),
        pl.Series("top_genes_z", [row.tolist() for row in z[:, :20]]),
        pl.Series("top_genes_raw", [row[::-1] if row else None for row in listed], dtype=pl.List(pl.String)),
    )
    numbers = frame.filter(pl.col("alive"))["feature"].to_numpy()
    _gene_table(rng, (numbers, top[alive], z[alive]), genes).write_parquet(place / "feature_genes.parquet")
    _cell_table(rng, numbers, cells, made).write_parquet(place / "feature_cells.parquet")
    _group_table(rng, numbers, levels, cells).write_parquet(place / "feature_groups.parquet")
    _donor_table(rng, numbers, cells, [levels[i] for i in best[alive]]).write_parquet(place / "feature_donors.parquet")
    rows = {"feature": np.repeat(numbers, 3), "column": ["total", "genes", "obs:percent_mito"] * len(numbers)}
    rho = rng.normal(0, 0.2, 3 * len(numbers)).clip(-1, 1)
    rows |= {"rho": rho, "p": 10.0 ** -(abs(rho) * 30), "q": 10.0 ** -(abs(rho) * 28), "rho_shown": rho * 0.9}
    pl.DataFrame(rows).write_parquet(place / "feature_numbers.parquet")
    (place / "validation").mkdir(exist_ok=True)
    significant = _terms(place / "validation", rng, (numbers, top[alive], program[alive]), symbols, hostile=hostile)
    frame = _named(frame, significant, hostile=hostile)
    frame.write_parquet(place / "features.parquet")
    _summary(place, made, significant, hostile=hostile)


def _top_genes(rng: np.random.Generator, made: Size, program: np.ndarray) -> np.ndarray:
    """Genes of each feature, the best first: two thirds of them its program's."""
    most = min(60, made.genes // 2)
    own = np.stack([rng.permutation(made.genes)[:most] for _ in range(made.programs)])
    common = (made.genes * rng.random((made.features, most)) ** 2).astype(int)
    order = np.argsort(np.arange(most) + rng.normal(0, most / 4, (made.features, most)), axis=1)
    genes = np.where(rng.random((made.features, most)) < 0.66, np.take_along_axis(own[program], order, 1), common)
    for i, row in enumerate(genes):  # no gene twice
        _, first = np.unique(row, return_index=True)
        left = np.setdiff1d(np.arange(made.genes), row)[: most - len(first)] if len(first) < most else row[:0]
        genes[i] = np.concatenate([row[np.sort(first)], left])
    return genes


def _features(
    rng: np.random.Generator, made: Size, *, alive: np.ndarray, program: np.ndarray, best: list[str]
) -> pl.DataFrame:
    n = made.features
    frequency = np.where(alive, 10 ** rng.uniform(-5, -0.7, n), 0.0)
    mean = rng.gamma(3, 0.4, n) * alive
    peak = rng.integers(12, 28, n)
    bins = np.exp(-(((np.arange(42) - peak[:, None]) / 3.0) ** 2)) * frequency[:, None] * 2e6
    shares = rng.dirichlet([3, 4, 4], n)
    auroc = 0.5 + 0.5 * rng.beta(2, 3, n)
    q = np.minimum(1.0, 10 ** -((auroc - 0.5) * rng.uniform(5, 300, n)))
    others = (np.arange(n)[:, None] + rng.integers(1, max(2, n), (n, 10))) % n
    cosine = np.sort(rng.uniform(0.05, 0.95, (n, 10)).astype(np.float32), 1)[:, ::-1]
    whole = (frequency * 2e6).astype(np.int64)

    def known(values: np.ndarray, which: np.ndarray = alive) -> pl.Series:
        return pl.Series(np.where(which, values, np.nan), nan_to_null=True)

    return pl.DataFrame(
        {
            "feature": pl.Series(np.arange(n), dtype=pl.Int32), "alive": alive, "rows": whole, "frequency": frequency,
            "cells": (np.minimum(1, frequency * 8) * made.cells).astype(np.int64),
            "cell_frequency": np.minimum(1, frequency * 8), "mean": mean, "max": mean * rng.uniform(2, 9, n),
            "histogram": np.floor(bins).astype(np.int64).tolist(),
            "by_gene": known(shares[:, 0]), "by_cell": known(shares[:, 1]), "neither": known(shares[:, 2]),
            "kind": [KINDS[p % 4] if a else "silent" for p, a in zip(program, alive, strict=True)],
            "module": [int(p) if a and p % 5 else None for p, a in zip(program, alive, strict=True)],
            "near": pl.Series(others.tolist(), dtype=pl.List(pl.Int32)), "near_cosine": cosine.tolist(),
            "together": pl.Series(others[:, ::-1].tolist(), dtype=pl.List(pl.Int32)), "together_score": cosine.tolist(),
            "cell_type": [name if a else None for name, a in zip(best, alive, strict=True)],
            "auroc": known(auroc), "auroc_shown": known(auroc - rng.uniform(0, 0.1, n)), "fold": known(2 ** (auroc * 6)),
            "fold_shown": known(2 ** (auroc * 5)), "q": known(q), "q_shown": known(q**0.7),
            "cell_type_donors": pl.Series([made.donors if a else None for a in alive], dtype=pl.Int32),
            "q_donors": known(q**0.1), "stability": known(rng.beta(4, 2, n)),
        }
    )  # fmt: skip


def _gene_table(
    rng: np.random.Generator, of: tuple[np.ndarray, np.ndarray, np.ndarray], genes: pl.DataFrame
) -> pl.DataFrame:
    numbers, top, z = of
    n, most = top.shape
    half = most // 2
    raw = np.argsort(rng.random((n, most)), axis=1).astype(float) + 1
    raw[raw > half] = np.nan
    specific = np.broadcast_to(np.arange(1.0, most + 1), (n, most)).copy()
    specific[:, half + half // 2 :] = np.nan  # these stand in the raw ranking alone, or in none
    kept = ~(np.isnan(raw) & np.isnan(specific)).ravel()
    gene = top.ravel()[kept]
    size = int(kept.sum())
    expression = rng.gamma(2, 0.5, len(genes))
    frame = pl.DataFrame(
        {
            "feature": np.repeat(numbers, most).astype(np.int32)[kept], "gene": genes["gene"][gene], "symbol": genes["symbol"][gene],
            "rank": specific.ravel()[kept], "rank_raw": raw.ravel()[kept], "score": rng.gamma(2, 300, size),
            "mean": rng.gamma(2, 1, size), "rate": rng.random(size), "expression": expression[gene], "z": z.ravel()[kept],
            "z_shown": z.ravel()[kept] * rng.uniform(0.2, 1.1, size), "token_z": rng.normal(8, 6, size),
        }
    )  # fmt: skip
    return frame.with_columns(pl.col("rank", "rank_raw").fill_nan(None).cast(pl.Int32))


def _cell_table(rng: np.random.Generator, numbers: np.ndarray, cells: pl.DataFrame, made: Size) -> pl.DataFrame:
    most = min(25, made.cells)
    chosen = (
        rng.random((len(numbers), 1)) * made.cells + rng.integers(1, 97, (len(numbers), most)).cumsum(1)
    ) % made.cells
    place = chosen.astype(int).ravel()
    high = np.sort(rng.gamma(4, 2, (len(numbers), most)), 1)[:, ::-1].ravel()
    known = cells[place].select("cell", "row", "label", "donor", "split")
    told = {"feature": np.repeat(numbers, most).astype(np.int32), "rank": np.tile(np.arange(1, most + 1), len(numbers))}
    return pl.DataFrame({**told, **known.to_dict(), "max": high, "mean": high * 0.3, "sum": high * 40})


def _group_table(rng: np.random.Generator, numbers: np.ndarray, levels: list[str], cells: pl.DataFrame) -> pl.DataFrame:
    pairs = [("label", level) for level in levels]
    pairs += [("obs:tissue", level) for level in cells["obs:tissue"].unique(maintain_order=True)]
    n, each = len(numbers) * len(pairs), len(pairs)
    auroc = (0.5 + rng.normal(0, 0.13, n)).clip(0.02, 0.99)
    p = np.minimum(1, 10 ** -(abs(auroc - 0.5) * rng.uniform(10, 200, n)))
    effect = rng.normal(0, 0.4, n)
    return pl.DataFrame(
        {
            "feature": np.repeat(numbers, each).astype(np.int32), "column": [c for c, _ in pairs] * len(numbers),
            "level": [v for _, v in pairs] * len(numbers), "inside": rng.integers(20, 900, n), "auroc": auroc,
            "fold": 2 ** (auroc * 4 - 2), "p": p, "q": np.minimum(1, p * 40), "top_in": rng.integers(0, 30, n), "p_fisher": p, "q_fisher": p,
            "auroc_shown": auroc - 0.02, "fold_shown": auroc, "p_shown": p**0.8, "q_shown": np.minimum(1, p**0.8 * 30),
            "donors": rng.integers(4, 9, n), "effect": effect, "effect_low": effect - 0.2, "effect_high": effect + 0.2,
            "p_donors": p**0.1, "q_donors": p**0.09,
        }
    )  # fmt: skip


def _donor_table(rng: np.random.Generator, numbers: np.ndarray, cells: pl.DataFrame, best: list[str]) -> pl.DataFrame:
    donors = cells["donor"].unique(maintain_order=True).to_list()
    n = len(numbers) * len(donors)
    inside = rng.gamma(2, 0.4, n)
    known = {name: rng.integers(3, 900, (2, len(donors))) for name in dict.fromkeys(best)}  # cells of a type and donor
    counts = np.concatenate([known[name] for name in best] or [np.zeros((2, 0))], axis=1).astype(np.int32)
    return pl.DataFrame(
        {
            "feature": np.repeat(numbers, len(donors)).astype(np.int32), "column": ["label"] * n,
            "level": [name for name in best for _ in donors], "donor": donors * len(numbers),
            "mean_inside": inside, "mean_outside": inside * rng.uniform(0.1, 1, n),
            "cells_inside": counts[0], "cells_outside": counts[1],
        }
    )  # fmt: skip


def _terms(
    folder: Path,
    rng: np.random.Generator,
    of: tuple[np.ndarray, np.ndarray, np.ndarray],
    symbols: list[str],
    *,
    hostile: bool,
) -> dict[str, pl.DataFrame]:
    """A table a database; a third of the features have a few terms, and fewer still a significant one."""
    numbers, top, program = of
    found = {}
    for at, (source, (_, _, called, group)) in enumerate(SOURCES.items()):
        each = rng.integers(1, 13, len(numbers)) * (rng.random(len(numbers)) < 0.45)
        if not each.sum():
            each[0] = 1
        owner = np.repeat(np.arange(len(numbers)), each)
        n = len(owner)
        term = (program[owner] * 17 + rng.integers(0, 40, n)) % 4000 + at
        overlap = rng.integers(2, 9, n)
        p = 10 ** -rng.gamma(2, 2.5, n)
        genes = [
            [symbols[g] for g in top[f][rng.permutation(min(30, top.shape[1]))[:k]]]
            for f, k in zip(owner, overlap, strict=True)
        ]
        label = [f"{group or 'pathway'} of {MARKERS[t % len(MARKERS)].lower()} type {t}" for t in term]
        if hostile:
            label[:3] = [HOSTILE, LONG, RIGHT][:n]
        q = np.minimum(1, p * 200)
        frame = pl.DataFrame(
            {
                "feature": numbers[owner].astype(np.int32), "term": [called.format(t) for t in term], "label": label,
                "group": [group or None] * n, "overlap": overlap, "list_size": np.full(n, 48), "term_size": rng.integers(5, 400, n),
                "background": np.full(n, 15_000), "expected": rng.gamma(1, 0.3, n), "p": p, "null_p": np.minimum(1, p * 3),
                "q": q, "q_by": q, "q_storey": q, "q_plain": q * 0.3, "odds": rng.gamma(3, 4, n), "odds_low": 1.0, "odds_high": 40.0,
                "p_shown": p, "q_shown": [v if v <= 0.05 else None for v in q.tolist()], "p_parent": p,
                "folded_under": [called.format(7) if t % 6 == 0 else None for t in term], "genes": genes,
            }
        ).unique(["feature", "term"], keep="first", maintain_order=True)  # fmt: skip
        frame.write_parquet(folder / f"{source}.parquet")
        found[source] = frame
    network = {
        "feature": numbers.astype(np.int32),
        "genes": 20,
        "edges": 14,
        "expected": 9.0,
        "p": 0.01,
        "q": 0.03,
        "null_p": 0.2,
        "q_null": 0.4,
    }
    pl.DataFrame(network).with_columns(hubs=pl.lit([symbols[0]])).write_parquet(folder / "string-db.parquet")
    return found


def _named(frame: pl.DataFrame, significant: dict[str, pl.DataFrame], *, hostile: bool) -> pl.DataFrame:
    best = pl.concat(
        [part.select("feature", "term", "label", "q", source=pl.lit(s)) for s, part in significant.items()]
    )
    best = best.filter(pl.col("q") <= 0.05).sort("q", "term").unique("feature", keep="first")
    frame = frame.join(best.rename({"q": "_q", "label": "name", "term": "name_term", "source": "name_source"}),
                       on="feature", how="left", maintain_order="left")  # fmt: skip
    why = pl.lit("its genes share this term more than genes alike in expression do, and other cells choose it again")
    frame = frame.with_columns(
        name_confidence=(1 - pl.col("_q") * 10).clip(0, 1),
        name_reason=pl.when(pl.col("name").is_not_null()).then(why),
        explanation=pl.when(pl.col("feature") % 50 == 0).then(pl.lit("fires in cells that are about to divide")),
        explanation_score=pl.when(pl.col("feature") % 50 == 0).then(pl.lit(0.71)),
    ).drop("_q")
    if not hostile:
        return frame
    n = len(frame)
    odd = [float("nan"), float("inf"), -float("inf"), 1e308, 5e-324, -0.0]
    texts = [NASTY[i % len(NASTY)] for i in range(n)]
    return frame.with_columns(
        pl.Series("name", texts), pl.Series("name_reason", texts),
        pl.Series("auroc", [odd[i % 6] if i < 12 else 0.7 for i in range(n)]),
        pl.Series("fold", [odd[(i + 1) % 6] if i < 12 else 2.0 for i in range(n)]),
        pl.Series(HOSTILE, np.arange(n) / 7), pl.Series("__proto__", texts), pl.Series("constructor", [None, *texts[1:]]),
        pl.Series("a struct", [{"x": i} for i in range(n)]), pl.Series("nothing", [None] * n),
    )  # fmt: skip


def _summary(place: Path, made: Size, significant: dict[str, pl.DataFrame], *, hostile: bool) -> None:
    databases: dict[str, Any] = {}
    for source, (title, licence, _, _) in SOURCES.items():
        count = significant[source].filter(pl.col("q") <= 0.05)["feature"].n_unique()
        databases[source] = {
            "title": title, "snapshot": f"{title} 2025-03", "taken": "2025-03-01", "licence": licence, "status": "run",
            "background": "genes in the model's vocabulary", "genes": 15_000, "terms": 4000, "tests": 400_000, "correction": "BH",
            "features": made.features, "with_genes": made.features, "significant": count, "plain": count * 3,
            "null": {"kind": "matched lists", "draws": 20, "mean": count / 4, "low": count / 8, "high": count / 2},
            "excess": count * 0.75, "excess_low": count * 0.5, "excess_high": count * 0.9, "again": count // 2,
            "controls": {"permuted cells": {"significant": 1, "of": made.features}, "random weights": {"not run": "no codes"}},
        }  # fmt: skip
    databases["omim"] = {
        "title": "OMIM",
        "snapshot": "",
        "taken": "",
        "licence": "by agreement",
        "status": "not run",
        "why": "not installed",
    }
    follow = {
        "features": {"columns": made.features, "follow": 9, "no claim": [], "both signs": False},
        "permuted labels": {"columns": made.features, "follow": 0.4, "most": 2},
        "random weights": {"columns": made.features, "follow": 3, "cells": 100},
        "another seed": {"columns": made.features, "follow": 8, "found again": 0.61, "found again by chance": 0.01},
        "embedding layer": {"not run": "the model has no such site"},
    }
    told: dict[str, Any] = {
        "reconstruction": {"rows": 900, "explained_variance": 0.81, "l0": 64.0, "principal": 0.72},
        "across donors": {"label": {"donors": made.donors, "features": 5, "permuted": [0, 1]}},
        "fdr": 0.05, "label": "cell_type", "at": 0.9, "controls": "standard", "follow": follow,
        "kinds": {"features": {"silent": 3, "cell state": 10}}, "databases": databases, "top_n_genes": 50, "kin": [["go", "reactome"]],
        "notes": ["3 genes of the model that HGNC does not know: left out"],
    }  # fmt: skip
    if hostile:
        databases["go"] |= {"title": HOSTILE, "licence": CLOSING, "excess": float("nan"), "excess_high": float("inf")}
        databases["reactome"]["title"] = "half \ud800 a character"
        told["notes"] = [CLOSING, LONG, "\udfff"]
        follow[HOSTILE] = {"columns": float("nan"), "follow": "</script>"}
    (place / "validation" / "summary.json").write_text(json.dumps(told))


def _records(folder: Path, names: list[str], made: Size, hostile: bool) -> None:
    summary = {"cells": made.cells, "genes": made.genes, "rows": made.cells * made.tokens, "sites": names}
    data = HOSTILE + CLOSING if hostile else "made.h5ad"
    stage = {"config": {"cells": {"cell_type_key": "cell_type"}}, "inputs": {data: "ab" * 32, "cells": "all"},
             "model": {"name": HOSTILE if hostile else "a-model", "weights": "1" * 64, "config": "2" * 64, "sites": "3" * 64},
             "summary": summary}  # fmt: skip
    record = {"schema": 1, "stages": {"run-pipeline": stage}, "versions": {"python": "3.11", "elute": "0.1.0"}}
    (folder / "run.json").write_text(json.dumps(record))


def _store(
    folder: Path, rng: np.random.Generator, made: Size, tables: tuple[pl.DataFrame, pl.DataFrame], names: list[str]
) -> Path:
    """The rows of the cells, a gene each, with a number a row that stands for the activation."""
    from elute.store.writer import StoreWriter

    genes, cells = tables
    path = folder / "activations"
    each = made.tokens
    with StoreWriter(path, sites=dict.fromkeys(names, 1), rows_per_shard=max(256, 1 << 18)) as writer:
        for start in range(0, made.cells, 4096):
            part = cells[start : start + 4096]
            n = len(part)
            begin = (made.genes * rng.random((n, 1)) ** 2).astype(int)
            gene = (begin + rng.integers(1, max(2, made.genes // each), (n, each)).cumsum(1)) % made.genes
            gene[np.diff(np.sort(gene, 1), axis=1).min(1) == 0] = np.arange(each)
            rows = pl.DataFrame(
                {
                    "sample_id": part["cell"].to_numpy().repeat(each),
                    "token": genes["gene"][gene.ravel()],
                    "split": part["split"].to_numpy().repeat(each),
                    "group": part["donor"].to_numpy().repeat(each),
                    "value": (1 + rng.poisson(2, n * each)).astype(np.float32),
                    "total": part["total"].to_numpy().repeat(each) + 1,
                }
            )
            writer.append({name: rng.random((n * each, 1), dtype=np.float32) for name in names}, rows)
    return path


def _codes(place: Path, store: Path, rng: np.random.Generator, made: Size, name: str) -> None:
    """Codes of every row, `slots` features each, and a dictionary whose directions go by program."""
    import torch

    from elute.base.codes import Codes
    from elute.dictionaries.dictionary import Dictionary
    from elute.dictionaries.files import digest, save_dictionary
    from elute.dictionaries.spec import DictionarySpec
    from elute.store.codes_writer import CodesWriter
    from elute.store.reader import Store

    width = 16
    torch.manual_seed(made.seed)
    spec = DictionarySpec(
        n_features=made.features, reads={name: width}, writes={name: width}, k=min(made.slots, made.features)
    )
    dictionary = Dictionary(spec)
    towards = torch.randn(made.programs, width)[torch.arange(made.features) % made.programs]
    for bank in dictionary:
        bank.W_dec.data.copy_(towards + 0.4 * torch.randn(made.features, width))
    save_dictionary(dictionary, place / "sae_final.pt")
    rows = Store(store)
    with CodesWriter(
        place / "codes", store=rows, dictionary=digest(dictionary), n_features=made.features, sites=[name]
    ) as writer:
        for shard in rows.manifest.shards[writer.done :]:
            first = (made.features * rng.random((shard.rows, 1))).astype(int)
            gaps = rng.integers(1, max(2, made.features // made.slots), (shard.rows, made.slots)).cumsum(1)
            indices = torch.from_numpy(((first + gaps) % made.features).astype(np.int32))
            values = torch.from_numpy(rng.gamma(2, 0.5, indices.shape).astype(np.float32) + 1e-3)
            again = torch.from_numpy(np.diff(np.sort(indices.numpy(), 1), axis=1).min(1, initial=1) == 0)
            values[again, 1:] = 0  # a feature stands once in a row
            writer.append_shard(Codes(indices, values, made.features))


if __name__ == "__main__":
    told = [int(text) for text in sys.argv[2:]]
    make_run(Path(sys.argv[1]), **dict(zip(("features", "cells"), told, strict=False)))
