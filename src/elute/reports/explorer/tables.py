"""Tables of which a feature has several rows: its genes, cells, levels, numbers, donors, terms and neighbours.

Each is read once, its rows put in the order in which a page shows them, and its texts replaced by places. How far down
in its feature a row stands is its depth, so that any number of rows a feature can be taken without sorting again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from elute.analysis import run_tables
from elute.reports.explorer import pack
from elute.reports.explorer.feature_table import Shown, number_column
from elute.reports.explorer.reading import levels, read
from elute.reports.explorer.words import GENES, Vocabulary, texts_of, unlisted

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

DONORS = "feature_donors.parquet"
# Rows of a feature that a page has at most, where there is room.
MOST = {"genes": 50, "cells": 20, "groups": 40, "numbers": 20, "donors": 80, "terms": 12, "near": 10, "together": 10}
_TURNS = 3  # levels of a cell type that come before one of any other column
_FEW = 6  # genes of a term where there is little room
# What is told of a row where there is room for it.
_SPARE = {"cells.name", "genes.token_z", "groups.fold_shown", "groups.effect_low", "groups.effect_high"}
_PARTS = {
    "groups": (
        *("auroc", "auroc_shown", "fold", "fold_shown", "q", "q_shown", "q_donors"),
        *("effect", "effect_low", "effect_high", "donors"),
    ),
    "numbers": ("rho", "rho_shown", "q"),
    "donors": ("mean_inside", "mean_outside", "cells_inside", "cells_outside"),
}


@dataclass(frozen=True)
class Plan:
    """How much of the tables a page has room for."""

    most: Mapping[str, int]
    """Rows of a feature."""
    steps: int
    """Of a number from the smallest to the largest: 1000 are three digits, 250 a byte."""
    whole: bool
    """Whether columns that can be spared are there."""


@dataclass(frozen=True)
class Coded:
    """Texts as places among the words of a block; with offsets a list of them a row."""

    words: Vocabulary
    codes: NDArray[np.int64]
    offsets: NDArray[np.int64] | None = None
    needed: NDArray[np.bool_] | None = None
    """Rows whose texts stand also where there is little room."""

    filled: Mapping[str, Any] | None = None
    """Where texts stand that are not needed."""

    def taken(self, rows: NDArray[np.int64], first: int, *, whole: bool) -> pack.Column:
        """Return some rows, which are of features from `first` on."""
        needed = None if whole or self.needed is None else self.needed[rows]
        if self.offsets is None:
            if needed is None:
                return self.words.words(self.codes[rows])
            codes = np.where(needed, self.codes[rows], -1)
            return pack.Words(codes, dictionary=self.words.block, filled={**(self.filled or {}), "first": first})
        lengths = np.diff(self.offsets)[rows]
        if needed is not None:
            lengths = np.where(needed, np.minimum(lengths, _FEW), 0)
        starts = np.concatenate([[0], np.cumsum(lengths)])
        inner = np.arange(starts[-1]) + np.repeat(self.offsets[rows] - starts[:-1], lengths)
        return pack.Lists(starts, self.words.words(self.codes[inner]))


@dataclass(frozen=True)
class Table:
    """Rows of features, in the order of these; `places` and `depth` have one number a row."""

    name: str
    places: NDArray[np.int64]
    depth: NDArray[np.int64]
    columns: Mapping[str, pl.Series]
    coded: Mapping[str, Coded] = field(default_factory=dict)
    fdr: float = 0.05

    def part(self, first: int, last: int, plan: Plan) -> dict[str, pack.Column]:
        """Return the rows of some features, as many as planned, and where those of each begin."""
        a, b = np.searchsorted(self.places, (first, last))
        rows = a + np.flatnonzero(self.depth[a:b] < plan.most[self.name])
        counts = np.bincount(self.places[rows] - first, minlength=last - first)
        starts = np.concatenate([[0], np.cumsum(counts)])
        found: dict[str, pack.Column] = {f"{self.name}_from": pack.growing(starts)}
        for name, coded in self.coded.items():
            found[f"{self.name}.{name}"] = coded.taken(rows, first, whole=plan.whole)
        for name, column in self.columns.items():
            called = f"{self.name}.{name}"
            if plan.whole or called not in _SPARE:
                found[called] = self._taken(name, column[rows], plan.steps)
        return found

    def _taken(self, name: str, column: pl.Series, steps: int) -> pack.Column:
        import polars as pl

        if column.dtype == pl.String:
            return texts_of(column)
        if column.dtype == pl.Boolean:
            return pack.flags(column.to_list())
        keep = self.fdr if name == "q" or name.startswith("q_") else None
        return number_column(column, keep=keep, steps=steps)

    def coding(self, words: Vocabulary, *names: str) -> Table:
        """Return the same table with some of its texts as places among words."""
        there = [name for name in names if name in self.columns]
        coded = {name: Coded(words, words.codes(self.columns[name])) for name in there}
        kept = {name: column for name, column in self.columns.items() if name not in there}
        return replace(self, columns=kept, coded={**self.coded, **coded})


def placed(
    name: str, frame: pl.DataFrame, shown: Shown, *, order: Sequence[Any], fdr: float, depth: Any = None
) -> Table:
    """Keep the rows of shown features, in the order of these and within each by `order`; `depth` is an expression."""
    import polars as pl

    rows = frame.with_columns(pl.Series("_place", shown.places(frame["feature"]), dtype=pl.Int64))
    rows = rows.filter(pl.col("_place") >= 0).sort("_place", *order, nulls_last=True, maintain_order=True)
    deep = pl.int_range(pl.len()).over("_place") if depth is None else depth
    rows = rows.with_columns(deep.cast(pl.Int64).alias("_depth"))
    kept = [column for column in rows.columns if not column.startswith("_") and column != "feature"]
    numbers = rows["_place"].to_numpy(), rows["_depth"].to_numpy()
    return Table(name, *numbers, columns={column: rows[column] for column in kept}, fdr=fdr)


def genes_of(folder: Path, shown: Shown, genes: Vocabulary, *, fdr: float) -> tuple[Table, pl.DataFrame] | None:
    """Return the genes of features by either ranking, and what is told of each gene by itself."""
    import polars as pl

    most = MOST["genes"]
    there = ("feature", "gene", "symbol", "rank", "rank_raw", "score", "expression", "z", "z_shown", "token_z")
    either = (pl.col("rank") <= most) | (pl.col("rank_raw") <= most // 2)
    frame = read(folder / run_tables.GENES, there, needs=("feature", "symbol", "rank", "rank_raw"), keep=either)
    if frame is None:
        return None
    told = [name for name in ("gene", "expression") if name in frame.columns]
    each = frame.select(pl.col("symbol").cast(pl.String), *told).unique("symbol", keep="first", maintain_order=True)
    # Those that are listed most often first: their numbers are small.
    often = (
        frame["symbol"].cast(pl.String).drop_nulls().value_counts().sort(["count", "symbol"], descending=[True, False])
    )
    genes.codes(often["symbol"])
    frame = frame.drop(told).rename({"symbol": "gene"})
    deep = pl.min_horizontal(pl.col("rank") - 1, 2 * (pl.col("rank_raw") - 1))
    table = placed("genes", frame, shown, order=("rank", "rank_raw", "gene"), fdr=fdr, depth=deep)
    return _implied(table.coding(genes, "gene"), shown), each


def _implied(table: Table, shown: Shown) -> Table:
    """Mark the genes that the features' own rows name at the same rank: where there is little room they stand there."""
    import polars as pl

    if shown.frame.schema.get("top_genes") != pl.List(pl.String):
        return table
    offsets, listed = unlisted(shown.frame["top_genes"])
    named = table.coded["gene"].words.codes(listed)
    rank = table.columns["rank"].fill_null(0).cast(pl.Int64).to_numpy() - 1
    at = offsets[table.places] + rank
    inside = (rank >= 0) & (at < offsets[table.places + 1])
    same = np.zeros(len(at), bool)
    same[inside] = named[at[inside]] == table.coded["gene"].codes[inside]
    block = table.coded["gene"].words.block.removesuffix(GENES) + "features"
    filled = {"block": block, "list": "top_genes", "from": "genes_from", "rank": "genes.rank"}
    return replace(table, coded={"gene": replace(table.coded["gene"], needed=~same, filled=filled)})


def cells_of(folder: Path, shown: Shown, labels: Vocabulary, *, at: Mapping[str, int], fdr: float) -> Table | None:
    """Return the cells in which features are highest; `at` is the place of each cell of the page."""
    import polars as pl

    there = ("feature", "rank", "cell", "row", "max", "mean", "label", "donor")
    few = pl.col("rank") <= MOST["cells"]
    frame = read(folder / run_tables.CELLS, there, needs=("feature", "rank", "cell"), keep=few)
    if frame is None:
        return None
    table = placed("cells", frame, shown, order=("rank",), fdr=fdr, depth=pl.col("rank") - 1)
    names = table.columns["cell"].cast(pl.String)
    known = pl.DataFrame({"cell": list(at), "place": list(at.values())}, {"cell": pl.String, "place": pl.Int64})
    place = pl.DataFrame({"cell": names}).join(known, on="cell", how="left", maintain_order="left")["place"]
    own = pl.select(pl.when(place.is_null()).then(names)).to_series()  # those of the page have names there
    columns = {name: held for name, held in table.columns.items() if name not in ("rank", "cell", "row")}
    told: dict[str, pl.Series] = {"place": place, "name": own, **columns}
    if "row" in table.columns:  # of those of the page, the place says it
        told["row"] = pl.select(pl.when(place.is_null()).then(table.columns["row"].cast(pl.Int64))).to_series()
    return replace(table, columns=told).coding(labels, "label", "donor")


def parts_of(name: str, folder: Path, shown: Shown, *, labels: Vocabulary, fdr: float) -> Table | None:
    """Return the levels, the numbers or the donors of features, what speaks most for or against one first.

    A run may be held against very many columns, so one column is read at a time, and cut before the next. Three levels
    of a cell type stand before the first of any other column, and so on.
    """
    import polars as pl

    path = folder / {"groups": run_tables.GROUPS, "numbers": run_tables.NUMBERS, "donors": DONORS}[name]
    texts = {"groups": ("column", "level"), "numbers": ("column",), "donors": ("column", "level", "donor")}[name]
    names = levels(path, "column", needs=("feature", *texts))
    if names is None:
        return None
    columns = sorted(names, key=lambda column: column != "label")
    kept = read(path, ("feature", *texts, *_PARTS[name]), keep=pl.lit(value=False))
    kept = kept if kept is None else kept.with_columns(_turn=pl.lit(0, pl.Int64))
    for column in columns:
        part = read(path, ("feature", *texts, *_PARTS[name]), keep=pl.col("column") == column)
        if part is None or kept is None:
            break
        part = part.filter(pl.Series(shown.places(part["feature"])) >= 0).sort("feature", *_far(name, part), *texts)
        turn = pl.int_range(pl.len()).over("feature").cast(pl.Int64) // (_TURNS if column == "label" else 1)
        both = pl.concat([kept, part.with_columns(_turn=turn)]).sort("feature", "_turn", maintain_order=True)
        kept = both.group_by("feature", maintain_order=True).head(MOST[name]).select(kept.columns)
    if kept is None:
        return None
    return placed(name, kept, shown, order=("_turn",), fdr=fdr).coding(labels, *texts)


def _far(name: str, part: pl.DataFrame) -> list[pl.Expr]:
    """What speaks most for or against a feature first; donors stand in their order."""
    import polars as pl

    by = {"groups": ("auroc", 0.5), "numbers": ("rho", 0.0)}.get(name)
    return [-(pl.col(by[0]) - by[1]).abs().fill_nan(None).fill_null(-1)] if by and by[0] in part.columns else []


def neighbours(shown: Shown) -> list[Table]:
    """Return the features with the nearest directions, and those that fire in the same rows."""
    import polars as pl

    frame, found = shown.frame, []
    for name, score, called in (("near", "near_cosine", "cosine"), ("together", "together_score", "score")):
        if not all(isinstance(frame.schema.get(each), pl.List) for each in (name, score)):
            continue
        same = frame[name].list.len().fill_null(0) == frame[score].list.len().fill_null(0)
        part = frame.filter(same)
        offsets, others = unlisted(part[name])
        lengths = np.diff(offsets)
        places = np.repeat(np.flatnonzero(same.to_numpy()), lengths)
        depth = np.arange(len(places)) - np.repeat(offsets[:-1], lengths)
        columns = {"feature": others.cast(pl.Int64), called: unlisted(part[score])[1].cast(pl.Float64)}
        found.append(Table(name, places, depth, columns))
    return found


def together_of(tables: Sequence[Table], first: int, last: int, *, plan: Plan) -> dict[str, pack.Column]:
    """Return all tables' rows of some features."""
    found: dict[str, pack.Column] = {}
    for table in tables:
        found |= table.part(first, last, plan)
    return found
