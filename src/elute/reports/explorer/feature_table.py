"""The block of features: a row a feature, and every column of `features.parquet` that a list can show or sort by.

It is what the page reads first, so what is long or is looked at in one feature alone stands in its details: long texts,
histograms, lists of neighbours. A column that a later stage adds appears by itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from elute.analysis import run_tables
from elute.base.errors import ConfigError, DataError
from elute.reports.explorer import pack
from elute.reports.explorer.words import Vocabulary, texts_of, unlisted

if TYPE_CHECKING:
    import polars as pl

# Shown in a feature's details: of tables that are packed there anyway, or too long for a row.
DETAILS = ("histogram", "near", "near_cosine", "together", "together_score", "top_genes_z", "top_genes_raw")
TEXTS = ("name_reason", "explanation")
_FEW = 0.5  # different texts a row, up to which they stand among the labels
_LONG = 120  # characters of half of all texts from which on a text is read in a feature, not in a row
_STEPS, _LOG_STEPS = 1000, 4000  # of a number that lies between two ends; of the logarithm of one
_SHARE, _FINER = (
    0.1,
    4,
)  # that a step of a logarithm makes at most, as long as it takes no more than so many times as many
# Title, what it says, digits after the point.
COLUMNS: dict[str, tuple[str, str, int | None]] = {
    "feature": ("Number", "number in the dictionary", 0),
    "name": ("Name", "from its best-supported term, its cells or its genes", None),
    "name_confidence": ("Sure", "0: nothing speaks for the name; 1: nothing is left to speak against it", 2),
    "kind": ("Kind", "what it follows: genes, cells, depth, or both genes and cells", None),
    "frequency": ("Frequency", "share of rows in which it fires", 5),
    "cell_type": ("Cell type", "the type that it follows best, on the cells that chose", None),
    "auroc": ("AUROC", "how well it tells cells of its type from others, on the cells that chose the type", 3),
    "auroc_shown": ("AUROC, held out", "the same on cells that chose nothing", 3),
    "top_genes": ("Genes", "by how far they exceed what their frequency and expression give", None),
    "stability": ("Stability", "largest cosine with a feature of a dictionary that began elsewhere", 2),
    "alive": ("Fires", "whether it fired in any row", None),
    "rows": ("Rows", "rows in which it fires", 0),
    "cells": ("Cells", "cells in which it fires", 0),
    "cell_frequency": ("Share of cells", "share of cells in which it fires", 4),
    "mean": ("Mean", "mean activation where it fires", 3),
    "max": ("Maximum", "largest activation", 3),
    "by_gene": ("By gene", "share of its variance that lies between genes, corrected for chance", 2),
    "by_cell": ("By cell", "share of its variance that lies between cells, corrected for chance", 2),
    "neither": ("Neither", "share of its variance that neither gene nor cell explains", 2),
    "fold": ("Fold", "mean over its type / mean over all cells", 2),
    "fold_shown": ("Fold, held out", "the same on cells that chose nothing", 2),
    "q": ("q of type", "rank sum of its type, corrected over all features and types", 3),
    "q_shown": ("q, held out", "the same on cells that chose nothing", 3),
    "cell_type_donors": ("Donors", "donors in the test across donors", 0),
    "q_donors": ("q, donors", "of its type with the donor as the unit", 3),
    "module": ("Module", "features that fire together; the largest module is 0", 0),
    "name_source": ("Named by", "the database that its name is of; kind, cells or genes", None),
    "name_term": ("Term", "the term that its name is of", None),
    "explanation_score": ("Explained", "share of held-out cells that a language model told rightly by its words", 2),
    "explanation_shuffled": ("By another's", "the same cells by another feature's explanation", 2),
}


@dataclass(frozen=True, eq=False)
class Shown:
    """The features of a page, in the order of their numbers."""

    frame: pl.DataFrame
    of: int
    alive: int
    """How many of all fire."""

    @property
    def numbers(self) -> Any:
        """Their numbers in the dictionary, ascending."""
        return self.frame["feature"].to_numpy()

    def places(self, features: pl.Series) -> Any:
        """The place of each number among those that are shown; −1 for any other."""
        given, numbers = features.cast(int, strict=False).fill_null(-1).to_numpy(), self.numbers
        at = np.minimum(np.searchsorted(numbers, given), max(0, len(numbers) - 1))
        return np.where(numbers[at] == given, at, -1)


def choose(folder: Path, top: int | None) -> Shown:
    """Read the table of features: all, or those that fire most often."""
    import polars as pl

    if top is not None and top < 1:
        raise ConfigError(f"a page of {top} features", remedy="Give --top-n-features 1 or more.")
    path = folder / run_tables.FEATURES
    frame = run_tables.read_table(folder, run_tables.FEATURES)
    if frame.is_empty():
        raise DataError("has no rows", where=path, remedy="Extract anew.")
    frame = frame.with_columns(pl.col("feature").cast(pl.Int64, strict=False))
    if frame["feature"].null_count() or frame["feature"].n_unique() < len(frame):
        raise DataError("does not number its features one by one", where=path, remedy="Extract anew.")
    fires = frame["frequency"] > 0 if "frequency" in frame.columns else pl.repeat(value=True, n=len(frame), eager=True)
    alive = int(frame["alive"].sum()) if "alive" in frame.columns else int(fires.sum())
    chosen = frame
    if top is not None and "frequency" in frame.columns:
        chosen = frame.sort(["frequency", "feature"], descending=[True, False], nulls_last=True).head(top)
    return Shown(chosen.head(top).sort("feature") if top else chosen.sort("feature"), len(frame), alive)


def feature_columns(
    shown: Shown, genes: Vocabulary, labels: Vocabulary, *, fdr: float
) -> tuple[dict[str, pack.Column], dict[str, Any]]:
    """Return the columns of the block, and what a reader is told of each."""
    frame = shown.frame
    order = [name for name in COLUMNS if name in frame.columns]
    order += [name for name in frame.columns if name not in COLUMNS and name not in (*DETAILS, *TEXTS)]
    columns, told = {}, {}
    for name in order:
        column = _column(frame[name], genes, labels, fdr=fdr)
        if column is None:
            continue
        called = pack.plain(name)
        title, what, digits = COLUMNS.get(name, (called.replace("_", " "), "", 3))
        columns[called], told[called] = column, {"title": title, "what": what, "digits": digits}
    return columns, told


def long_texts(shown: Shown) -> dict[str, pl.Series]:
    """Return the texts that are read in a feature."""
    import polars as pl

    frame = shown.frame
    strings = [name for name in frame.columns if frame[name].dtype == pl.String]
    chosen = [name for name in strings if name in TEXTS or (name not in COLUMNS and _is_long(frame[name]))]
    return {pack.plain(name): frame[name] for name in chosen if frame[name].null_count() < len(frame)}


def _is_long(column: pl.Series) -> bool:
    usual = column.str.len_chars().median()
    return isinstance(usual, float) and usual > _LONG


def _column(column: pl.Series, genes: Vocabulary, labels: Vocabulary, *, fdr: float) -> pack.Column | None:
    """A column as it is packed; None for a kind that a list cannot show."""
    import polars as pl

    kind = column.dtype
    if kind == pl.Null or (column.null_count() == len(column) and column.name not in COLUMNS):
        return None
    if kind == pl.Boolean:
        return pack.flags(column.to_list())
    if kind == pl.List(pl.String):
        return genes.column(column)
    if isinstance(kind, pl.List) and kind.inner.is_numeric():
        offsets, inner = unlisted(column)
        return pack.Lists(offsets, number_column(inner.cast(pl.Float64), steps=1000))
    if kind.is_numeric():
        keep = fdr if column.name == "q" or column.name.startswith("q_") else None
        return number_column(column, keep=keep)
    if kind.is_nested() or kind in (pl.Binary, pl.Object):
        return None
    text = column.cast(pl.String, strict=False)
    if _is_long(text) and column.name not in COLUMNS:
        return None
    known = text.drop_nulls()
    return labels.column(text) if known.n_unique() <= _FEW * len(known) else texts_of(text)


def number_column(column: pl.Series, *, keep: float | None = None, steps: int = _LOG_STEPS) -> pack.Numbers:
    """Numbers as a reader sees them, in so many steps; those that span many powers of ten have more."""
    import polars as pl

    if column.dtype.is_integer() and not column.null_count():
        return pack.whole(column.to_numpy())
    values = column.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    positive = values[np.isfinite(values) & (values > 0)]
    span = math.log(positive.max()) - math.log(positive.min()) if positive.size else 0.0
    needed = min(math.ceil(span / _SHARE), _FINER * steps, pack.STEPS)
    return pack.numbers(values, keep=keep, steps=min(steps, _STEPS), log_steps=max(steps, needed))
