"""How cells are grouped, by levels of a column and by donors, and effects by donor.

A thousand cells of one donor are one observation:

1. Where donors have cells of a level and others besides, the difference of the two means is one observation a donor,
   and the differences are tested across donors by t (paired).
2. Where each donor has one level alone (a disease), donors of the level are compared with the others by Welch's t.
3. Every level of a column is treated in the same way, 1 or 2; where neither can be done nothing is claimed.
4. The mean of a donor's cells on either side is kept beside, as the dots of a plot.

All cells with a donor and a level take part, those that choose and those that show: no level is chosen by these tests.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from elute.base.errors import ConfigError, DataError, near
from elute.base.statistics.checks import Bools, Floats, Ints, at_least, group_codes, proportion, same_length
from elute.base.statistics.effects import between_groups, paired_effects, pseudobulk

if TYPE_CHECKING:
    import polars as pl

How = Literal["within", "between"]


@dataclass(frozen=True, eq=False)
class Levels:
    """One column of cells: each cell's level as a number among the names, −1 where it has none."""

    column: str
    names: tuple[str, ...]
    codes: Ints

    @property
    def missing(self) -> int:
        """Cells without a value."""
        return int((self.codes < 0).sum())


@dataclass(frozen=True, eq=False)
class Donors:
    """The donor of each cell, as a number among the names; −1 where it is not known."""

    names: tuple[str, ...]
    codes: Ints


@dataclass(frozen=True, eq=False)
class Design:
    """Which cells of which donors are compared, for one column of levels."""

    how: How | None  # None where nothing can be compared
    why_not: str  # in words, where `how` is None
    names: tuple[str, ...]
    rows: Ints  # cells that have a donor and a level
    cells: Ints  # [donors, levels]: how many
    codes: Ints  # donor · levels + level of those cells
    counts: Bools  # [donors, levels]: this donor takes part in the test of this level

    @property
    def n_levels(self) -> int:
        """Levels of the column."""
        return int(self.cells.shape[1])


@dataclass(frozen=True, eq=False)
class DonorEffects:
    """Differences of a level from the rest across donors; NaN where a level could not be tested."""

    donors: Ints  # [levels]: donors that took part, of both sides together
    effect: Floats  # [levels, features]
    low: Floats
    high: Floats
    p: Floats
    inside: NDArray[np.float64]  # [donors, levels, features]: means of a donor's cells, NaN without cells
    outside: NDArray[np.float64]


def column_names(cells: pl.DataFrame) -> dict[str, str]:
    """Return how people call the columns that may hold levels or numbers, and how the frame does."""
    known = {name: name for name in ("label", "donor", "batch", "genes", "total") if name in cells.columns}
    return known | {name.removeprefix("obs:"): name for name in cells.columns if name.startswith("obs:")}


def read_levels(
    cells: pl.DataFrame, column: str, *, most: int = 50, one_cell: Literal["refuse", "note"] = "refuse"
) -> Levels:
    """Read one column of cells as levels; what cannot be compared is told in one line."""
    import polars as pl

    known, where = column_names(cells), f"column {column!r} of the cells"
    if column not in known:
        raise ConfigError(f"there is no column {column!r} of the cells", remedy=near(column, known))
    series = cells[known[column]]
    numeric = series.dtype.is_numeric()
    if series.dtype.is_float():
        series = series.fill_nan(None)
        if not (series.drop_nulls() % 1 == 0).all():
            raise DataError("holds numbers and no levels", where=where, remedy="Correlate with it instead.")
        series = series.cast(pl.Int64)
    found = [None if name == "" else name for name in series.cast(pl.String).to_list()]
    distinct = {str(name) for name in found if name is not None}
    names = sorted(distinct, key=int) if numeric else sorted(distinct)
    elsewhere = "Leave it out, or name another column."
    if not names:
        raise DataError("has a value for no cell", where=where, remedy=elsewhere)
    if len(names) == 1:
        what = f"has one level only, {names[0]!r}, so there is nothing to compare"
        raise DataError(what, where=where, remedy=elsewhere)
    if len(names) > most:
        remedy = f"Numbers or names of cells are no levels; else allow more than {most}."
        raise DataError(f"has {len(names):,} levels", where=where, remedy=remedy)
    number = {name: i for i, name in enumerate(names)}
    codes = np.array([-1 if name is None else number[name] for name in found], dtype=np.int64)
    single = [names[i] for i in np.flatnonzero(np.bincount(codes[codes >= 0]) == 1)]
    if single and one_cell == "refuse":
        what = f"has one cell of level {single[0]!r}" + (f" and of {len(single) - 1} more" if single[1:] else "")
        raise DataError(what, where=where, remedy="Merge the level with another, or blank the cell.")
    return Levels(column, tuple(names), codes)


def level_rows(
    column: str,
    features: Any,
    levels: Any,
    *,
    numbers: dict[str, Any],
    whole: tuple[str, ...] = (),
    texts: dict[str, list[str]] | None = None,
) -> pl.DataFrame:
    """Lay out rows of a feature and a level; NaN becomes null, and the columns named `whole` become integers."""
    import polars as pl

    words = {"column": [column] * len(features), "level": levels, **(texts or {})}
    data = [pl.Series("feature", features, dtype=pl.Int32)]
    data += [pl.Series(name, values, dtype=pl.String) for name, values in words.items()]
    for name, values in numbers.items():
        found = pl.Series(name, values, dtype=pl.Float64).fill_nan(None)
        data.append(found.cast(pl.Int32) if name in whole else found)
    return pl.DataFrame(data)


def too_few(names: tuple[str, ...], sizes: Ints, *, which: Bools, doing: str) -> list[str]:
    """Say of some levels, if any, that few cells of theirs, or few others, are there to be compared."""
    few: list[str] = []
    others: list[str] = []
    for i in np.flatnonzero(which):
        size, rest = int(sizes[i]), int(sizes.sum() - sizes[i])
        (few if size <= rest else others).append(f"{size} {names[i]}" if size <= rest else f"{rest} not {names[i]}")
    said = few + others
    if not said:
        return []
    listed = said[0] if len(said) == 1 else ", ".join(said[:-1]) + " and " + said[-1]
    return [f"only {listed} cells {doing}: no claim about {'that' if len(said) == 1 else 'those'}"]


def donors_of(cells: pl.DataFrame) -> Donors | None:
    """Return the donors of the cells, or None where none is known."""
    column = cells["donor"].cast(str).to_list() if "donor" in cells.columns else []
    known = [i for i, name in enumerate(column) if name is not None]
    if not known:
        return None
    names, found = group_codes([column[i] for i in known], "donors_of(cells)")
    codes = np.full(len(column), -1, dtype=np.int64)
    codes[known] = found
    return Donors(tuple(str(name) for name in names), codes)


def donor_design(codes: Ints, n_levels: int, donors: Donors, *, least: int = 3) -> Design:
    """Say how levels (a number a cell, −1 for none) are compared across donors with `least` cells on a side."""
    same_length(len(codes), len(donors.codes), "donor_design(codes)")
    at_least(least, 1, "donor_design(least)")
    rows = np.flatnonzero((codes >= 0) & (donors.codes >= 0))
    pairs = donors.codes[rows] * n_levels + codes[rows]
    n = len(donors.names)
    cells = np.bincount(pairs, minlength=n * n_levels).reshape(n, n_levels)
    outside = cells.sum(axis=1, keepdims=True) - cells
    mixed = ((cells > 0).sum(axis=1) > 1).any()
    if mixed:
        counts = (cells >= least) & (outside >= least)
        counts &= counts.sum(axis=0) >= 2
        how: How = "within"
        why_not = f"fewer than 2 donors have {least} cells on both sides of any level"
    else:
        enough = cells.sum(axis=1, keepdims=True) >= least
        sides = np.minimum(((cells > 0) & enough).sum(axis=0), ((cells == 0) & enough).sum(axis=0))
        counts = enough & (sides >= 2)
        how, why_not = "between", f"each donor has one level, and no level has 2 donors of {least} cells on both sides"
    return Design(how if counts.any() else None, why_not, donors.names, rows, cells, pairs, counts)


def donor_effects(values: Any, design: Design, *, level: float = 0.95) -> DonorEffects:
    """Compare each level with the rest across donors, for values [cells, features] as a csc_array."""
    proportion(level, "donor_effects(level)")
    if len(design.rows) and values.shape[0] <= design.rows[-1]:
        what = f"has {values.shape[0]} cells, and the donors of more are known"
        raise DataError(what, where="donor_effects(values)", remedy="Give the same cells to both.")
    (n, n_levels), width = design.cells.shape, values.shape[1]
    sums = np.zeros((n * n_levels, width))
    if len(design.rows):
        bulk = pseudobulk(values[design.rows], design.codes, how="sum")
        sums[np.array(bulk.groups, dtype=np.int64)] = bulk.values
    within = sums.reshape(n, n_levels, width)
    cells = design.cells[:, :, None].astype(np.float64)
    total, size = within.sum(axis=1, keepdims=True), cells.sum(axis=1, keepdims=True)
    inside, outside = _ratio(within, cells), _ratio(total - within, size - cells)
    profiles = _ratio(total, size)[:, 0]
    blank = np.full((n_levels, width), np.nan)
    found = DonorEffects(np.zeros(n_levels, np.int64), blank, blank.copy(), blank.copy(), blank.copy(), inside, outside)
    for i in range(n_levels):
        who = np.flatnonzero(design.counts[:, i])
        if design.how is None or not len(who):
            continue
        if design.how == "within":
            test = paired_effects(inside[who, i] - outside[who, i], level=level)
        else:
            test = between_groups(profiles[who], design.cells[who, i] > 0, level=level)
        found.donors[i] = test.n
        found.effect[i], found.low[i], found.high[i], found.p[i] = test.mean, test.low, test.high, test.p
    return found


def _ratio(sums: Floats, cells: Floats) -> Floats:
    ratio: Floats = np.where(cells > 0, sums / np.where(cells > 0, cells, 1.0), np.nan)
    return ratio
