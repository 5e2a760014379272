"""Exact tests of 2×2 tables: does a list hold more of a set than chance would put there?

1. A table is [[a, b], [c, d]]: rows in and out of the list, columns in and out of the set. Two sizes, an overlap
   and a population say the same; either is refused when its margins cannot add up.
2. Given its margins the cell a is hypergeometric. The one-sided p is a tail; the two-sided p is the probability of
   all tables no likelier than the one seen, ties within a relative 1e-14 counting as equal.
3. Everything is summed in log space, so that p = 1e-400 still comes before 1e-390 in `log_p`.
4. The odds ratio is the sample one, ad/bc. Its interval is Woolf's on the log scale with one half added to every
   cell of every table, so that it exists and covers when a cell is 0; `adjusted` is its centre.

R. A. Fisher, "The logic of inductive inference", J. R. Stat. Soc. 98, 1935.
B. Woolf, Ann. Hum. Genet. 19, 1955; J. J. Gart, J. R. Stat. Soc. B 28, 1966, for the one half everywhere.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from elute.base.errors import DataError
from elute.base.statistics.checks import ALTERNATIVES, Alternative, Floats, Ints, choice, numbers, proportion
from elute.base.statistics.hypergeometric import Cells, in_chunks, log_lower_tail, log_two_sided, log_upper_tail

LARGEST = 1 << 31  # products of two counts have to fit in 64 bits

_TAILS = {"two-sided": log_two_sided, "greater": log_upper_tail, "less": log_lower_tail}


@dataclass(frozen=True)
class ExactTest:
    """The p-value of each table, and its natural logarithm, which does not underflow."""

    p: Floats
    log_p: Floats


@dataclass(frozen=True)
class OddsRatio:
    """The sample odds ratio of each table, and a centre and interval that exist for empty cells too."""

    sample: Floats  # ad/bc; infinite where bc is 0, NaN where a margin is
    adjusted: Floats
    low: Floats
    high: Floats


def _counts(values: ArrayLike, where: str) -> Ints:
    array = numbers(values, where)
    if array.min() < 0:
        raise DataError(f"holds the negative count {array.min():g}", where=where, remedy="Counts start at 0.")
    if np.any(array != np.floor(array)):
        raise DataError("holds a count that is not whole", where=where, remedy="Give counts, not shares.")
    if array.max() >= LARGEST:
        raise DataError(f"holds the count {array.max():g}", where=where, remedy=f"Counts go up to {LARGEST - 1}.")
    return array.astype(np.int64)


def _tables(tables: ArrayLike, where: str) -> Ints:
    counts = _counts(tables, where)
    if counts.ndim < 2 or counts.shape[-2:] != (2, 2):
        raise DataError(f"has shape {counts.shape}", where=where, remedy="Give [..., 2, 2].")
    totals = counts.sum(axis=(-2, -1))
    if totals.max() >= LARGEST:
        raise DataError(f"holds a table of {totals.max()} items", where=where, remedy=f"Totals go up to {LARGEST - 1}.")
    return counts


def tables_from_overlap(
    overlap: ArrayLike, list_size: ArrayLike, set_size: ArrayLike, *, population: ArrayLike
) -> Ints:
    """Return the tables [..., 2, 2] of lists and sets within a population; the four broadcast."""
    where = "tables_from_overlap"
    names = ("overlap", "list_size", "set_size", "population")
    given = [
        _counts(x, f"{where}({n})") for x, n in zip((overlap, list_size, set_size, population), names, strict=True)
    ]
    try:
        both, listed, inside, total = np.broadcast_arrays(*given)
    except ValueError as error:
        raise DataError("the four shapes do not broadcast", where=where, remedy="Give one shape.") from error
    table = np.stack([both, listed - both, inside - both, total - listed - inside + both], axis=-1)
    bad = np.argwhere((table < 0).any(axis=-1))
    if len(bad):
        at = tuple(bad[0])
        raise DataError(
            f"{both[at]} shared by a list of {listed[at]} and a set of {inside[at]} out of {total[at]} do not add up"
            f" ({len(bad)} such)",
            where=where,
            remedy="Count all three within the same population.",
        )
    return table.reshape(*both.shape, 2, 2)


def fisher_exact(tables: ArrayLike, *, alternative: Alternative = "two-sided") -> ExactTest:
    """Test each table [..., 2, 2]; "greater" asks whether a is larger than chance."""
    choice(alternative, ALTERNATIVES, "fisher_exact(alternative)")
    counts = _tables(tables, "fisher_exact(tables)")
    flat = counts.reshape(-1, 4)
    log_p = in_chunks(_TAILS[alternative], Cells(*flat.T))
    log_p = log_p.reshape(counts.shape[:-2])
    return ExactTest(p=np.exp(log_p), log_p=log_p)


def odds_ratio(tables: ArrayLike, *, level: float = 0.95) -> OddsRatio:
    """Return the odds ratio of each table [..., 2, 2] with its interval."""
    half = special.ndtri(0.5 + proportion(level, "odds_ratio(level)") / 2.0)
    cells = _tables(tables, "odds_ratio(tables)").astype(np.float64)
    a, b, c, d = (cells[..., i, j] for i in (0, 1) for j in (0, 1))
    defined = (cells.sum(axis=-1) > 0).all(axis=-1) & (cells.sum(axis=-2) > 0).all(axis=-1)
    finite = b * c > 0
    ratio = np.where(finite, a * d / np.where(finite, b * c, 1.0), np.inf)
    filled = cells + 0.5
    middle = np.log(filled[..., 0, 0] * filled[..., 1, 1] / (filled[..., 0, 1] * filled[..., 1, 0]))
    spread = half * np.sqrt((1.0 / filled).sum(axis=(-2, -1)))
    return OddsRatio(
        sample=np.where(defined, ratio, np.nan),
        adjusted=np.exp(middle),
        low=np.exp(middle - spread),
        high=np.exp(middle + spread),
    )
