"""Which cells a page shows, and what it says of each: a sample in which every type and donor has its share.

1. Cells of one type and donor are a stratum. Each has as many cells in the sample as its share asks for, and one at
   least as long as there is room; what is left over by rounding goes to the largest remainders.
2. Within a stratum cells are drawn by the seed. The sample stands in the order of `cells.parquet`.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from elute.analysis import run_tables
from elute.reports.explorer import pack
from elute.reports.explorer.feature_table import number_column
from elute.reports.explorer.words import Vocabulary, texts_of

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

SAMPLE, MOST = 20_000, 100_000
_FURTHER = 12  # obs columns beside those that every run has
_LEVELS = 1000  # different texts of a column up to which they stand among the labels
_USUAL = ("label", "donor", "batch", "split", "genes", "total")
_LEFT = ("cell", "row", "umap_x", "umap_y")


@dataclass(frozen=True, eq=False)
class ShownCells:
    """The cells of a page."""

    frame: pl.DataFrame
    rows: NDArray[np.int64]
    """Their rows among all cells of the run, ascending."""
    of: int
    """How many cells the run has."""
    names: pl.Series
    """The names of all cells of the run."""

    @property
    def at(self) -> dict[str, int]:
        """The place of each cell of the page."""
        return {name: i for i, name in enumerate(self.frame["cell"].to_list())}

    @property
    def sampled(self) -> bool:
        """Whether some are not shown."""
        return len(self.rows) < self.of


def choose_cells(folder: Path, *, most: int = SAMPLE, seed: int = 0) -> ShownCells | None:
    """Read a run's cells, and draw as many as a page shows; None where the run tells of none."""
    import polars as pl

    if not (folder / run_tables.SHEET).is_file():
        return None
    cells = run_tables.read_cells(folder)
    cells = cells.with_columns(pl.col("cell").cast(pl.String))
    by = [cells[name].cast(pl.String, strict=False).to_list() for name in ("label", "donor") if name in cells.columns]
    rows = draw(list(zip(*by, strict=True)) if by else [()] * len(cells), most, seed=seed)
    return ShownCells(cells[rows], rows, len(cells), cells["cell"])


def draw(strata: list[Any], most: int, *, seed: int) -> NDArray[np.int64]:
    """Return the places of a stratified sample, ascending; all of them where they are no more than `most`."""
    n = len(strata)
    if n <= most:
        return np.arange(n)
    known: dict[Any, int] = {}
    codes = np.array([known.setdefault(stratum, len(known)) for stratum in strata])
    sizes = np.bincount(codes)
    quotas = sizes * (most / n)
    taken = np.floor(quotas).astype(np.int64)
    if len(sizes) <= most:
        taken = np.maximum(taken, 1)
    # One cell at a time from or to the strata whose numbers are furthest from their shares.
    away = taken.sum() - most
    order = np.lexsort((np.arange(len(sizes)), (taken - quotas) * (-1 if away > 0 else 1)))
    if away > 0:
        order = order[taken[order] > 1]
    while away != 0 and len(order):
        step = order[: abs(away)]
        taken[step] -= np.sign(away)
        away = taken.sum() - most
        order = order[taken[order] > 1] if away > 0 else order
    rng = np.random.default_rng([seed, n, most])
    shuffled = rng.permutation(n)
    ordered = shuffled[np.argsort(codes[shuffled], kind="stable")]
    first = np.cumsum(sizes) - sizes
    nth = np.arange(n) - np.repeat(first, sizes)
    return np.sort(ordered[nth < np.repeat(taken, sizes)])


def cell_columns(cells: ShownCells, labels: Vocabulary) -> dict[str, pack.Column]:
    """Return the block of cells, without their places on a map."""
    frame = cells.frame
    found: dict[str, pack.Column] = {"cell": texts_of(frame["cell"])}
    further = [name for name in frame.columns if name not in (*_USUAL, *_LEFT)]
    for name in (*_USUAL, *further):
        if name not in frame.columns or len(found) > len(_USUAL) + _FURTHER:
            continue
        column = _column(frame[name], labels)
        if column is not None:
            found[pack.plain(name)] = column
    return found


def _column(column: pl.Series, labels: Vocabulary) -> pack.Column | None:
    import polars as pl

    kind = column.dtype
    if column.null_count() == len(column) or kind.is_nested() or kind in (pl.Binary, pl.Object):
        return None
    if kind.is_numeric():
        return number_column(column)
    text = column.cast(pl.String, strict=False)
    return labels.column(text) if text.n_unique() <= _LEVELS else texts_of(text)
