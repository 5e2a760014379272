"""Features against numeric columns of cells: does this feature rise with age, depth, a score?

1. Spearman's ρ of pooled activation with the column, on the cells that choose and again on those that show; its
   two-sided p as in base/statistics/correlation.py: t on n − 2 degrees of freedom, and all orders where n is up to 7.
2. q: Benjamini and Hochberg over all features and columns; a feature that never fired counts with ρ 0 and p 1.
3. A cell without a number takes no part. Columns in which the same cells do take part share one sorting.

The zeros of a feature are one run of equal ranks. Σ (rx − rank of a zero)(ry − mean) over what is stored is the
covariance of the ranks, since Σ (ry − mean) is 0; so that nothing is spread out to all cells.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from math import lgamma
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import special

from elute.analysis.donors import column_names
from elute.analysis.pooled import Ranked, rank_stored, sides
from elute.base.errors import ConfigError, DataError, near
from elute.base.statistics.checks import Bools, Floats, Ints, at_least
from elute.base.statistics.corrections import benjamini_hochberg
from elute.base.statistics.correlation import EXACT_ROWS, SAME, spearman
from elute.base.statistics.ranks import rank_columns

if TYPE_CHECKING:
    import polars as pl

    from elute.analysis.pooled import Pooled

ALWAYS = ("total", "genes")  # how deeply a cell was read: asked of every feature


@dataclass(frozen=True, eq=False)
class Numbers:
    """What was found."""

    table: pl.DataFrame  # a row for each feature and column
    columns: tuple[str, ...]
    notes: tuple[str, ...]

    def rho(self, column: str) -> Floats:
        """Return the correlation of each feature with a column on the cells that choose, NaN where there is none."""
        if column not in self.columns:
            raise ConfigError(f"no feature was held against {column!r}", remedy=near(column, self.columns))
        found = self.table.filter(self.table["column"] == column)["rho"]
        return np.asarray(found.fill_null(float("nan")).to_numpy(), dtype=np.float64)


@dataclass(frozen=True, eq=False)
class _Batch:
    """Columns that the same cells have a number in."""

    which: list[int]
    rows: Ints
    targets: Floats  # ranks, centred and of length 1: [rows, columns]


def number_columns(cells: pl.DataFrame) -> list[str]:
    """Return the columns that hold numbers: how deeply cells were read, then those of obs."""
    known = column_names(cells)
    own = [name for name, column in known.items() if column.startswith("obs:") and cells[column].dtype.is_numeric()]
    return [name for name in ALWAYS if known.get(name) == name and name not in own] + own


def feature_numbers(
    blocks: Iterable[Pooled], cells: pl.DataFrame, columns: Sequence[str] | None = None, *, least: int = 10
) -> Numbers:
    """Correlate all features, given in blocks, with columns of numbers; with all of them if none is named."""
    tests = NumberTests(cells, columns, least=least)
    for block in blocks:
        tests.take(block)
    return tests.result()


class NumberTests:
    """Takes pooled activations block by block, in order, and gives the table at the end."""

    def __init__(self, cells: pl.DataFrame, columns: Sequence[str] | None = None, *, least: int = 10) -> None:
        at_least(least, 3, "NumberTests(least)")
        names = tuple(dict.fromkeys(number_columns(cells) if columns is None else columns))
        values = np.stack([_read(cells, name) for name in names]) if names else np.zeros((0, cells.height))
        self.choosing, self.shown = sides(cells)
        self.notes: list[str] = []
        self.names = names
        self._mine = self._batches(values, self.choosing, least, "to choose on")
        self._again = [] if self.shown is None else self._batches(values, self.shown, least, "held out")
        self._parts: list[dict[str, Floats]] = []
        self._next = 0

    def _batches(self, values: Floats, side: Bools, least: int, doing: str) -> list[_Batch]:
        groups: dict[bytes, list[int]] = {}
        for i, column in enumerate(values):
            taking = side & np.isfinite(column)
            there = column[taking]
            if len(there) < least:
                self.notes.append(f"{self.names[i]}: {len(there)} cells with a number {doing} are too few: no claim")
            elif (there == there[0]).all():
                self.notes.append(f"{self.names[i]}: all cells {doing} have the number {there[0]:g}: no claim")
            else:
                groups.setdefault(taking.tobytes(), []).append(i)
        found = []
        for which in groups.values():
            rows = np.flatnonzero(side & np.isfinite(values[which[0]]))
            ranks = rank_columns(values[which][:, rows].T)[0] - (len(rows) + 1) / 2.0
            found.append(_Batch(which, rows, ranks / np.sqrt((ranks * ranks).sum(axis=0))))
        return found

    def take(self, block: Pooled) -> None:
        """Take in the next block of features."""
        if block.first != self._next:
            raise DataError(f"features from {block.first} on where {self._next} comes next", where="NumberTests")
        self._next = block.stop
        shape = (len(self.names), block.stop - block.first)
        part = {name: np.full(shape, np.nan) for name in ("rho", "p", "rho_shown")}
        for batch in self._mine:
            part["rho"][batch.which], part["p"][batch.which] = _correlate(block.mean[batch.rows], batch.targets)
        for batch in self._again:
            part["rho_shown"][batch.which] = _correlate(block.mean[batch.rows], batch.targets)[0]
        # What nothing was claimed of on choosing cells is not shown on others.
        part["rho_shown"][np.isnan(part["rho"])] = np.nan
        self._parts.append(part)

    def result(self) -> Numbers:
        """Correct for the tests that were made, and return the table."""
        import polars as pl

        keys = ("rho", "p", "rho_shown")
        joined = {
            key: np.concatenate([part[key] for part in self._parts] or [np.zeros((0, 0))], axis=1) for key in keys
        }
        q = benjamini_hochberg(joined["p"], missing="carry") if joined["p"].size else joined["p"]
        n, width = joined["p"].shape
        data = [
            pl.Series("feature", np.repeat(np.arange(width), n), dtype=pl.Int32),
            pl.Series("column", list(self.names) * width, dtype=pl.String),
        ]
        for name, scores in (("rho", joined["rho"]), ("p", joined["p"]), ("q", q), ("rho_shown", joined["rho_shown"])):
            data.append(pl.Series(name, scores.T.ravel(), dtype=pl.Float64).fill_nan(None))
        return Numbers(pl.DataFrame(data), self.names, tuple(self.notes))


def _read(cells: pl.DataFrame, name: str) -> Floats:
    """Read a column of numbers; NaN where a cell has none."""
    import polars as pl

    known = column_names(cells)
    if name not in known:
        raise ConfigError(f"there is no column {name!r} of the cells", remedy=near(name, known))
    series = cells[known[name]]
    if not series.dtype.is_numeric():
        what = f"holds {series.dtype} and no numbers"
        raise DataError(what, where=f"column {name!r} of the cells", remedy="Compare its levels instead.")
    numbers = series.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _correlate(columns: Any, targets: Floats) -> tuple[Floats, Floats]:
    """Return ρ and p [targets, columns] of a csc_array [cells, columns] with ranked targets."""
    if columns.shape[0] <= EXACT_ROWS:
        found = [spearman(columns.toarray(), target) for target in targets.T]
        return np.stack([each.rho for each in found]), np.stack([each.p for each in found])
    ranked = rank_stored(columns)
    spread, n = _spread(ranked), ranked.n
    rho = np.zeros((targets.shape[1], ranked.width))
    fires = spread > 0
    for i, target in enumerate(targets.T):
        sums = np.bincount(ranked.columns, weights=ranked.offsets * target[ranked.rows], minlength=ranked.width)
        rho[i, fires] = np.clip(sums[fires] / spread[fires], -1.0, 1.0)
    t = np.abs(rho) * np.sqrt((n - 2) / np.maximum(1.0 - rho * rho, SAME))
    p = np.minimum(2.0 * np.maximum(special.stdtr(n - 2, -t), np.exp(-lgamma(n + 1))), 1.0)
    return rho, np.where(fires, p, 1.0)


def _spread(ranked: Ranked) -> Floats:
    """Return the length of each column's centred ranks; 0 where all cells are equal."""
    n = float(ranked.n)
    squares = (n**3 - n - ranked.ties) / 12.0
    return np.sqrt(np.where(squares > 1e-9 * n**3, squares, 0.0))
