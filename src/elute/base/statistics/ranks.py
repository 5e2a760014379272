"""Rank sums of many features at once: do the rows inside a mask have larger values than those outside?

1. Each column is sorted once; runs of equal values share their mean rank, and Σ t³ − t over the runs is kept.
2. U of a mask is its rank sum minus n1 (n1 + 1) / 2, and AUROC = U / (n1 n2): the chance that a row inside beats
   one outside, ties counting one half.
3. The p-value, by what the column is like:
   no ties, at most 8 rows on one side   the exact law of U, from the Gaussian binomial coefficients
   no negative values, two zeros or more the count of non-zero rows inside exactly, see clump.py
   else                                  normal, with the variance corrected for ties, and continuity
   A two-sided p is twice the smaller tail. A constant column gives AUROC 0.5 and p 1.
4. A sparse column only sorts what it stores: its zeros are one run that lies between the negatives and the rest.

H. B. Mann and D. R. Whitney, "On a test of whether one of two random variables is stochastically larger than the
other", Ann. Math. Stat. 18, 1947.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import comb
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from elute.base.errors import ConfigError, DataError
from elute.base.statistics import clump
from elute.base.statistics.checks import (
    ALTERNATIVES,
    Alternative,
    Bools,
    Floats,
    Ints,
    choice,
    masks,
    matrix,
    numbers,
)

Method = Literal["auto", "exact", "normal"]
METHODS = ("auto", "exact", "normal")
BLOCK = 1 << 22  # values sorted at a time


@dataclass(frozen=True)
class RankSum:
    """One entry a feature, or [masks, features] when several masks were given."""

    u: Floats
    auroc: Floats
    p: Floats
    log_p: Floats


class Columns(Protocol):
    """A matrix stored by column, such as scipy.sparse.csc_array."""

    data: Any
    indices: Any
    indptr: Any

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows and columns."""


@dataclass(frozen=True)
class _Summary:
    rank_sums: Floats  # [masks, features]
    ties: Floats  # Σ t³ − t over all runs
    nonzero_ties: Floats  # the same without the zeros
    zeros: Ints
    nonnegative: Bools


def rank_columns(values: Floats) -> tuple[Floats, Floats]:
    """Return the mean ranks from 1 down each column, and the length of the run each value lies in."""
    n = values.shape[0]
    order = np.argsort(values, axis=0, kind="stable")
    ordered = np.take_along_axis(values, order, axis=0)
    place = np.broadcast_to(np.arange(n)[:, None], values.shape)
    new = np.ones(values.shape, dtype=bool)
    new[1:] = ordered[1:] != ordered[:-1]
    first = np.maximum.accumulate(np.where(new, place, 0), axis=0)
    last = np.full(values.shape, n - 1)
    last[:-1] = np.where(new[1:], place[:-1], n - 1)
    last = np.minimum.accumulate(last[::-1], axis=0)[::-1]
    ranks, runs = np.empty(values.shape), np.empty(values.shape)
    np.put_along_axis(ranks, order, (first + last) / 2.0 + 1.0, axis=0)
    np.put_along_axis(runs, order, last - first + 1.0, axis=0)
    return ranks, runs


def _summarise(values: Floats, mask: Bools) -> _Summary:
    ranks, runs = rank_columns(values)
    surplus = runs * runs - 1.0  # summed over a run of t: t³ − t
    zero = values == 0
    return _Summary(
        rank_sums=mask.T.astype(np.float64) @ ranks,
        ties=surplus.sum(axis=0),
        nonzero_ties=np.where(zero, 0.0, surplus).sum(axis=0),
        zeros=zero.sum(axis=0),
        nonnegative=np.all(values >= 0, axis=0),
    )


@lru_cache(maxsize=64)
def _exact_upper(n1: int, n2: int) -> Floats:
    """Return P(U ≥ u) for u = 0 … n1 n2, by multiplying out Π (1 − q^(n2+i)) / (1 − q^i)."""
    few, many = min(n1, n2), max(n1, n2)
    counts = np.zeros(n1 * n2 + 1)
    counts[0] = 1.0
    for i in range(1, few + 1):
        shift = many + i
        counts[shift:] = counts[shift:] - counts[:-shift]
        for offset in range(i):
            counts[offset::i] = np.cumsum(counts[offset::i])
    upper: Floats = np.cumsum(counts[::-1])[::-1] / comb(n1 + n2, few)
    return upper


def _small(n1: int, n2: int) -> bool:
    # Below 2^53 the counts are whole numbers that a float holds exactly; the other bound is on the table's size.
    return min(n1, n2) <= 8 and n1 * n2 < 100_000 and comb(n1 + n2, min(n1, n2)) < 1 << 53


def _join(greater: Floats, less: Floats, alternative: Alternative) -> Floats:
    if alternative == "two-sided":
        doubled: Floats = np.minimum(np.minimum(greater, less) + np.log(2.0), 0.0)
        return doubled
    return greater if alternative == "greater" else less


def _log_p(u: Floats, summary: _Summary, mask: Bools, *, alternative: Alternative, method: Method) -> Floats:
    n, inside = len(mask), mask.sum(axis=0)
    product = (inside * (n - inside)).astype(np.float64)[:, None]
    variance = product / 12.0 * ((n + 1.0) - summary.ties / max(n * (n - 1.0), 1.0))
    flat = np.broadcast_to(summary.ties >= n * (n * n - 1.0) * (1.0 - 1e-13), u.shape)
    sd = np.sqrt(np.where(flat, 1.0, variance))
    above = special.log_ndtr((product / 2.0 + 0.5 - u) / sd)
    below = special.log_ndtr((u + 0.5 - product / 2.0) / sd)
    if method == "normal":
        return np.where(flat, 0.0, _join(above, below, alternative))
    # No tail is smaller than that of one way to choose the rows inside, whatever an approximation says.
    least = np.log1p(float(n)) + special.betaln(inside + 1.0, n - inside + 1.0)[:, None]
    log_p = np.where(flat, 0.0, _join(np.maximum(above, least), np.maximum(below, least), alternative))
    free = summary.ties == 0
    for i, n1 in enumerate(inside.tolist()):
        if method == "exact" and not (_small(n1, n - n1) and free.all()):
            raise ConfigError(
                f"'exact' cannot count {n1} against {n - n1} rows, or columns with ties",
                where="rank_sum(method)",
                remedy="Use 'auto', which is exact where it can be.",
            )
        if _small(n1, n - n1) and free.any():
            table, at = np.log(_exact_upper(n1, n - n1)), np.rint(u[i, free]).astype(np.int64)
            log_p[i, free] = _join(table[at], table[n1 * (n - n1) - at], alternative)
    mixed = summary.nonnegative & (summary.zeros >= 2) & (summary.zeros < n)
    if mixed.any():
        shape = (len(inside), int(mixed.sum()))
        tests = clump.Clump(
            u=u[:, mixed].ravel(),
            inside=np.repeat(inside, shape[1]),
            outside=np.repeat(n - inside, shape[1]),
            nonzero=np.tile(n - summary.zeros[mixed], shape[0]),
            ties=np.tile(summary.nonzero_ties[mixed], shape[0]),
        )
        more = np.maximum(clump.log_upper_tail(tests).reshape(shape), least)
        fewer = np.maximum(clump.log_lower_tail(tests).reshape(shape), least)
        log_p[:, mixed] = _join(more, fewer, alternative)
    return log_p


def _finish(parts: list[_Summary], mask: Bools, *, alternative: Alternative, method: Method, flat: bool) -> RankSum:
    names = ("ties", "nonzero_ties", "zeros", "nonnegative")
    joined = {name: np.concatenate([getattr(part, name) for part in parts]) for name in names}
    summary = _Summary(rank_sums=np.concatenate([part.rank_sums for part in parts], axis=1), **joined)
    n, inside = len(mask), mask.sum(axis=0)
    u = summary.rank_sums - (inside * (inside + 1) / 2.0)[:, None]
    auroc = u / (inside * (n - inside)).astype(np.float64)[:, None]
    log_p = _log_p(u, summary, mask, alternative=alternative, method=method)
    if flat:
        u, auroc, log_p = u[0], auroc[0], log_p[0]
    return RankSum(u=u, auroc=auroc, p=np.exp(log_p), log_p=log_p)


def rank_sum(
    values: ArrayLike, mask: ArrayLike, *, alternative: Alternative = "two-sided", method: Method = "auto"
) -> RankSum:
    """Compare the rows inside each mask with those outside, feature by feature, for values [rows, features]."""
    choice(alternative, ALTERNATIVES, "rank_sum(alternative)")
    choice(method, METHODS, "rank_sum(method)")
    dense = matrix(values, "rank_sum(values)")
    inside = masks(mask, dense.shape[0], "rank_sum(mask)")
    step = max(1, BLOCK // dense.shape[0])
    parts = [_summarise(dense[:, i : i + step], inside) for i in range(0, dense.shape[1], step)]
    return _finish(parts, inside, alternative=alternative, method=method, flat=np.ndim(mask) == 1)


def _stored(columns: Columns) -> tuple[Floats, Ints, Ints, int]:
    """Return the values that are not zero with their rows and columns, sorted by column and value."""
    where = "rank_sum_sparse(columns)"
    n_rows, n_columns = columns.shape
    rows, ends = np.asarray(columns.indices, dtype=np.int64), np.asarray(columns.indptr, dtype=np.int64)
    if getattr(columns, "format", "csc") != "csc" or len(ends) != n_columns + 1:
        raise DataError("is not stored by column", where=where, remedy="Convert it with .tocsc().")
    if n_rows == 0 or n_columns == 0:
        raise DataError("is empty", where=where, remedy="Give at least one row and one column.")
    if len(rows) != len(columns.data) or ends[0] != 0 or ends[-1] != len(rows) or np.any(np.diff(ends) < 0):
        raise DataError("its indptr does not fit its indices", where=where, remedy="Rebuild the matrix.")
    if len(rows) == 0:
        return np.empty(0), rows, rows, n_columns
    if rows.min() < 0 or rows.max() >= n_rows:
        raise DataError(f"names a row outside 0 … {n_rows - 1}", where=where, remedy="Rebuild the matrix.")
    values, owners = numbers(columns.data, where), np.repeat(np.arange(n_columns), np.diff(ends))
    keys = np.sort(owners * n_rows + rows)
    if np.any(keys[1:] == keys[:-1]):
        raise DataError("stores a cell twice", where=where, remedy="Call .sum_duplicates() first.")
    kept = values != 0
    values, rows, owners = values[kept], rows[kept], owners[kept]
    order = np.lexsort((values, owners))
    return values[order], rows[order], owners[order], n_columns


def _summarise_sparse(columns: Columns, mask: Bools) -> _Summary:
    values, rows, owners, width = _stored(columns)
    n = mask.shape[0]
    stored = np.bincount(owners, minlength=width)
    zeros = n - stored
    negative = np.bincount(owners[values < 0], minlength=width)
    place = np.arange(len(values)) - np.repeat(np.cumsum(stored) - stored, stored)
    new = np.ones(len(values), dtype=bool)
    new[1:] = (values[1:] != values[:-1]) | (owners[1:] != owners[:-1])
    starts = np.flatnonzero(new)
    lengths = np.diff(np.append(starts, len(values)))
    run = np.repeat(lengths, lengths)
    ranks = np.repeat(place[starts], lengths) + (run + 1) / 2.0 + np.where(values > 0, zeros[owners], 0)
    zero_rank = negative + (zeros + 1) / 2.0
    ties: Floats = np.bincount(owners, weights=run * run - 1.0, minlength=width).astype(np.float64)
    sums = np.empty((mask.shape[1], width))
    for i in range(mask.shape[1]):
        inside = mask[rows, i]
        present = np.bincount(owners[inside], minlength=width)
        held = np.bincount(owners[inside], weights=ranks[inside], minlength=width)
        sums[i] = held + zero_rank * (mask[:, i].sum() - present)
    return _Summary(sums, ties + (zeros.astype(np.float64) ** 3 - zeros), ties, zeros, negative == 0)


def rank_sum_sparse(
    columns: Columns, mask: ArrayLike, *, alternative: Alternative = "two-sided", method: Method = "auto"
) -> RankSum:
    """Do what `rank_sum` does on a matrix stored by column, sorting only what it stores."""
    choice(alternative, ALTERNATIVES, "rank_sum_sparse(alternative)")
    choice(method, METHODS, "rank_sum_sparse(method)")
    inside = masks(mask, columns.shape[0], "rank_sum_sparse(mask)")
    return _finish(
        [_summarise_sparse(columns, inside)], inside, alternative=alternative, method=method, flat=np.ndim(mask) == 1
    )
