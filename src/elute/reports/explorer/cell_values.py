"""Blocks that colour cells: for each feature, or gene, the cells in which it is more than nothing, and how much.

Cells are written as the first and then differences, values in steps that are finer near zero, as shares of the largest:
both take little room, and a colour shows no more.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from elute.base import console
from elute.reports.explorer import pack
from elute.reports.explorer.cell_sample import ShownCells
from elute.reports.explorer.reading import record

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from elute.reports.explorer.pooled_codes import Pooled
    from elute.reports.explorer.words import Vocabulary
    from elute.store.reader import Store

MOST_GENES, GENES_A_BLOCK = 512, 64
GENE_BUDGET = 30  # values a shown cell, over all genes
_LEAST = 1 << 19
_SHADES = 28  # different values of a feature or gene
_TOPS = 4000  # steps of the largest value
_ROWS = 1 << 18


class Rows(NamedTuple):
    """Values by row (a feature or a gene) and cell, both ascending."""

    offsets: NDArray[np.int64]
    cells: NDArray[np.int64]
    values: NDArray[np.float32]


def value_columns(rows: Rows) -> dict[str, pack.Column]:
    """Return what a block needs to colour cells."""
    lengths = np.diff(rows.offsets)
    owner = np.repeat(np.arange(len(lengths)), lengths)
    tops = np.zeros(len(lengths), np.float32)
    np.maximum.at(tops, owner, rows.values)
    shades = np.ceil(np.sqrt(rows.values / np.where(tops > 0, tops, 1.0)[owner]) * _SHADES)  # at least 1
    shares = np.clip(np.rint((shades / _SHADES) ** 2 * 255), 1, 255).astype(np.uint8)
    first = np.zeros(len(rows.cells), bool)
    first[rows.offsets[:-1][lengths > 0]] = True
    steps = np.where(first, rows.cells, np.diff(rows.cells, prepend=0))
    return {
        "cells": pack.Lists(rows.offsets, pack.whole(steps)),
        "values": pack.Lists(rows.offsets, pack.Numbers(shares)),
        "top": pack.logs(tops, steps=_TOPS),
    }


def code_block(pooled: Pooled, features: NDArray[np.int64]) -> dict[str, pack.Column]:
    """Return the block of some features."""
    known = features[(features >= 0) & (features < len(pooled.fires))]
    if len(known) < len(features):
        return {}  # the codes are of another dictionary than the table
    lengths = np.diff(pooled.offsets)[features]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    inner = np.arange(starts[-1]) + np.repeat(pooled.offsets[features] - starts[:-1], lengths)
    rows = Rows(starts, pooled.cells[inner].astype(np.int64), pooled.values[inner])
    told = {"fires": pack.whole(pooled.fires[features]), "floor": pack.logs(pooled.floor[features], steps=_TOPS)}
    return value_columns(rows) | told


class Expression(NamedTuple):
    """What some genes are in the shown cells."""

    genes: list[str]
    rows: Rows
    words: str


def expression(home: Path, place: Path, cells: ShownCells, *, genes: dict[str, str]) -> Expression | None:
    """Read what the shown cells express of some genes (symbol by id), the first of them first, as far as there is room.

    None where the run's rows are not genes of cells.
    """
    from elute.store.reader import Store

    if not (home / "activations" / "manifest.json").is_file() or not genes:
        return None
    store = Store(home / "activations")
    if not {"sample_id", "token", "value"} <= set(store.manifest.columns):
        return None
    told = record(place / "extraction_summary.json")
    entries = [_values(part, told) for part in _parts(store, cells, list(genes))]
    gene, cell, value = (np.concatenate([part[i] for part in entries] or [np.zeros(0)]) for i in range(3))
    gene, cell, value = _largest(gene.astype(np.int64), cell.astype(np.int64), value, len(cells.rows))
    symbols = list(genes.values())
    counts = np.bincount(gene, minlength=len(symbols))
    room = max(_LEAST, GENE_BUDGET * len(cells.rows))
    kept = np.flatnonzero((np.cumsum(counts) <= room) & (counts > 0))
    if not len(kept):
        return None
    chosen = np.isin(gene, kept)
    offsets = np.concatenate([[0], np.cumsum(counts[kept])])
    rows = Rows(offsets, cell[chosen], value[chosen].astype(np.float32))
    return Expression([symbols[i] for i in kept], rows, str(told.get("expression") or "value of the gene in the cell"))


def expression_blocks(found: Expression, genes: Vocabulary) -> Iterator[dict[str, pack.Column]]:
    """Return the blocks, so many genes each."""
    import polars as pl

    for first in range(0, len(found.genes), GENES_A_BLOCK):
        last = min(first + GENES_A_BLOCK, len(found.genes))
        a, b = found.rows.offsets[[first, last]]
        part = Rows(found.rows.offsets[first : last + 1] - a, found.rows.cells[a:b], found.rows.values[a:b])
        named = {"gene": genes.column(pl.Series(found.genes[first:last], dtype=pl.String))}
        yield named | value_columns(part)


def _parts(store: Store, cells: ShownCells, genes: list[str]) -> Iterator[Any]:
    """The rows of shown cells that are of these genes, with the places of both."""
    import polars as pl

    columns = [name for name in ("sample_id", "token", "value", "total", "read") if name in store.manifest.columns]
    shown = pl.DataFrame({"sample_id": cells.frame["cell"], "_cell": np.arange(len(cells.frame))})
    wanted = pl.DataFrame({"token": genes, "_gene": np.arange(len(genes))}, {"token": pl.String, "_gene": pl.Int64})
    shown = shown.unique("sample_id", keep="first", maintain_order=True)
    with console.progress("genes of cells", len(store)) as bar:
        for start in range(0, len(store), _ROWS):
            frame = store.metadata(start, start + _ROWS, columns=columns)
            yield frame.join(wanted, on="token", how="inner").join(shown, on="sample_id", how="inner")
            bar.advance(len(frame))


def _values(frame: Any, told: dict[str, Any]) -> tuple[Any, Any, Any]:
    """Gene, cell and what the first is in the second, as the run's own tables count it; only what is above 0."""
    import polars as pl

    from elute.analysis.genes import expression_of
    from elute.base.errors import EluteError

    how, kind = told.get("how", "lognorm"), told.get("values", "counts")
    try:
        values = expression_of(frame, how, kind)
    except EluteError:  # columns that this needs are not there
        values = frame["value"].cast(pl.Float64).fill_null(0.0).to_numpy()
    some = np.isfinite(values) & (values > 0)
    return frame["_gene"].to_numpy()[some], frame["_cell"].to_numpy()[some], values[some]


def _largest(gene: Any, cell: Any, value: Any, n_cells: int) -> tuple[Any, Any, Any]:
    """One value for each gene and cell, in order: the largest."""
    if not len(gene):
        return gene, cell, value
    order = np.lexsort((-value, gene * n_cells + cell))
    key = (gene * n_cells + cell)[order]
    first = np.flatnonzero(np.diff(key, prepend=-1))
    taken = order[first]
    return gene[taken], cell[taken], value[taken]
