"""Effects measured between groups, not between rows: a thousand cells of one donor are one observation.

1. Rows are averaged (or summed) by group: a pseudobulk profile a donor.
2. Where a donor has rows on both sides of a mask, its difference inside − outside is one observation; donors with
   one side only are named and left out.
3. Across donors: the mean difference with its t interval, Cohen's d, Hedges' g (d without its small-sample bias),
   and a test: t, sign flip or signed rank.
4. Where each donor lies on one side, donors of one side are compared with those of the other by Welch's t.
5. Without any spread t is infinite or undefined. Equal zero differences give p 1; equal non-zero ones give the
   least p that so many donors can give when nothing is assumed but exchangeability, 2^(1−n) or 2/C(n, n1).

Student, Biometrika 6, 1908; B. L. Welch, Biometrika 34, 1947; L. V. Hedges, J. Educ. Stat. 6, 1981.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from math import comb
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse, special

from elute.base.errors import DataError
from elute.base.statistics.checks import (
    Bools,
    Floats,
    Ints,
    at_least,
    choice,
    group_codes,
    masks,
    matrix,
    numbers,
    proportion,
)
from elute.base.statistics.signed import sign_flip, signed_rank

NO_SPREAD = 1e-12  # of the largest size: below it a spread is rounding


@dataclass(frozen=True)
class Pseudobulk:
    """One row a group, in sorted order."""

    groups: tuple[Hashable, ...]
    values: Floats  # [groups, features]
    n_rows: Ints


@dataclass(frozen=True)
class GroupDifferences:
    """Mean inside minus mean outside, one row a group that has both."""

    groups: tuple[Hashable, ...]
    values: Floats  # [groups, features]
    n_inside: Ints
    n_outside: Ints
    left_out: tuple[Hashable, ...]  # groups with too few rows on a side


@dataclass(frozen=True)
class Effects:
    """One entry a feature; `n` counts groups, of both sides together."""

    mean: Floats  # the mean difference
    low: Floats
    high: Floats
    d: Floats
    g: Floats
    p: Floats
    n: int


def _is_sparse(values: Any) -> bool:
    return bool(sparse.issparse(values))


def _averages(values: Any, codes: Ints, n_groups: int, *, how: str) -> tuple[Floats, Ints]:
    sizes = np.bincount(codes, minlength=n_groups)
    entries = (np.ones(len(codes)), (codes, np.arange(len(codes))))
    member = sparse.csr_array(entries, shape=(n_groups, len(codes)))
    sums = member @ values
    dense: Floats = np.asarray(sums.toarray() if _is_sparse(sums) else sums, dtype=np.float64)
    return (dense / np.maximum(sizes, 1)[:, None] if how == "mean" else dense), sizes


def _rows(values: Any, where: str) -> Any:
    """Return [rows, features], dense or as the sparse matrix it was."""
    if not _is_sparse(values):
        return matrix(values, where)
    if 0 in values.shape:
        raise DataError("is empty", where=where, remedy="Give at least one row and one feature.")
    if values.nnz:
        numbers(values.data, where)
    return values.astype(np.float64)


def pseudobulk(values: Any, groups: Iterable[Any], *, how: Literal["mean", "sum"] = "mean") -> Pseudobulk:
    """Average or sum values [rows, features], dense or scipy sparse, by group."""
    choice(how, ("mean", "sum"), "pseudobulk(how)")
    rows = _rows(values, "pseudobulk(values)")
    names, codes = group_codes(groups, "pseudobulk(groups)", n_rows=rows.shape[0])
    profiles, sizes = _averages(rows, codes, len(names), how=how)
    return Pseudobulk(tuple(names), profiles, sizes)


def _one_mask(mask: ArrayLike, n_rows: int, where: str) -> Bools:
    columns = masks(mask, n_rows, where)
    if columns.shape[1] != 1:
        raise DataError(f"holds {columns.shape[1]} masks", where=where, remedy="Give one at a time.")
    return columns[:, 0]


def group_differences(values: Any, mask: ArrayLike, groups: Iterable[Any], *, min_rows: int = 1) -> GroupDifferences:
    """Return, for each group with `min_rows` on both sides of the mask, its mean inside minus its mean outside."""
    rows = _rows(values, "group_differences(values)")
    inside = _one_mask(mask, rows.shape[0], "group_differences(mask)")
    names, codes = group_codes(groups, "group_differences(groups)", n_rows=rows.shape[0])
    at_least(min_rows, 1, "group_differences(min_rows)")
    means, sizes = _averages(rows, 2 * codes + inside, 2 * len(names), how="mean")
    n_outside, n_inside = sizes[0::2], sizes[1::2]
    kept = (n_outside >= min_rows) & (n_inside >= min_rows)
    if not kept.any():
        raise DataError(
            f"none of {len(names)} groups has {min_rows} rows on both sides of the mask",
            where="group_differences(groups)",
            remedy="Compare between groups with between_groups instead.",
        )
    chosen = np.flatnonzero(kept)
    return GroupDifferences(
        groups=tuple(names[i] for i in chosen),
        values=(means[1::2] - means[0::2])[chosen],
        n_inside=n_inside[chosen],
        n_outside=n_outside[chosen],
        left_out=tuple(names[i] for i in np.flatnonzero(~kept)),
    )


def hedges_factor(df: ArrayLike) -> Floats:
    """Return what Cohen's d is multiplied by to lose its bias on `df` degrees of freedom."""
    freedom = np.asarray(df, dtype=np.float64)
    if not np.all(freedom > 0):
        raise DataError("is not above 0", where="hedges_factor(df)", remedy="Give degrees of freedom.")
    low = np.where(freedom > 1, freedom, 2.0)
    log = special.gammaln(low / 2.0) - special.gammaln((low - 1.0) / 2.0) - 0.5 * np.log(low / 2.0)
    # On one degree of freedom d has no mean, so there is no factor; 0 says that nothing is known.
    return np.where(freedom > 1, np.exp(log), 0.0)


def _effects(
    mean: Floats, error: Floats, scale: Floats, *, flat: Bools, df: Floats, n: int, level: float, least: float
) -> Effects:
    """Return the t test of a mean with its standard error; `flat` marks features without spread."""
    safe = np.where(flat, 1.0, error)
    t = mean / safe
    reach = special.stdtrit(df, 0.5 + level / 2.0) * np.where(flat, 0.0, error)
    p = np.where(flat, np.where(mean == 0, 1.0, least), np.minimum(2.0 * special.stdtr(df, -np.abs(t)), 1.0))
    without = np.where(mean == 0, 0.0, np.copysign(np.inf, mean))
    d = mean / np.where(flat, 1.0, scale)
    g = d * hedges_factor(np.maximum(df, 1.0))
    d, g = np.where(flat, without, d), np.where(flat, without, g)
    return Effects(mean=mean, low=mean - reach, high=mean + reach, d=d, g=g, p=p, n=n)


def paired_effects(
    differences: ArrayLike,
    *,
    test: Literal["t", "sign-flip", "signed-rank"] = "t",
    level: float = 0.95,
    seed: int = 0,
) -> Effects:
    """Test differences [groups, features] across groups; d and g are in units of the differences' own spread."""
    choice(test, ("t", "sign-flip", "signed-rank"), "paired_effects(test)")
    proportion(level, "paired_effects(level)")
    values = matrix(differences, "paired_effects(differences)")
    n = values.shape[0]
    if n < 2:
        raise DataError("one group only", where="paired_effects(differences)", remedy="Give at least 2 groups.")
    mean, sd = values.mean(axis=0), values.std(axis=0, ddof=1)
    flat = sd <= NO_SPREAD * np.abs(values).max(axis=0)
    mean = np.where(flat, values[0], mean)
    df = np.full(mean.shape, n - 1.0)
    found = _effects(mean, sd / np.sqrt(n), sd, flat=flat, df=df, n=n, level=level, least=2.0 ** (1 - n))
    if test == "t":
        return found
    p = sign_flip(values, seed=seed).p if test == "sign-flip" else signed_rank(values).p
    return Effects(found.mean, found.low, found.high, found.d, found.g, p, n)


def between_groups(values: ArrayLike, mask: ArrayLike, *, level: float = 0.95) -> Effects:
    """Compare profiles [groups, features] inside the mask with those outside; d and g use the pooled spread."""
    proportion(level, "between_groups(level)")
    profiles = matrix(values, "between_groups(values)")
    inside = _one_mask(mask, profiles.shape[0], "between_groups(mask)")
    n1, n2 = int(inside.sum()), int((~inside).sum())
    if min(n1, n2) < 2:
        raise DataError(
            f"{n1} groups inside and {n2} outside", where="between_groups(mask)", remedy="Give 2 or more a side."
        )
    first, second = profiles[inside], profiles[~inside]
    v1, v2 = first.var(axis=0, ddof=1), second.var(axis=0, ddof=1)
    mean = first.mean(axis=0) - second.mean(axis=0)
    pooled = np.sqrt(((n1 - 1) * v1 + (n2 - 1) * v2) / (n1 + n2 - 2))
    flat = pooled <= NO_SPREAD * np.abs(profiles).max(axis=0)
    mean = np.where(flat, first[0] - second[0], mean)
    e1, e2 = np.where(flat, 1.0, v1 / n1), np.where(flat, 1.0, v2 / n2)
    df = (e1 + e2) ** 2 / (e1**2 / (n1 - 1) + e2**2 / (n2 - 1))
    found = _effects(
        mean,
        np.sqrt(e1 + e2),
        pooled,
        flat=flat,
        df=df,
        n=n1 + n2,
        level=level,
        least=min(1.0, 2.0 / comb(n1 + n2, n1)),
    )
    # Hedges' factor belongs to the pooled spread, whose freedom is n − 2 and not Welch's.
    g = np.where(flat, found.d, found.d * hedges_factor(n1 + n2 - 2.0))
    return Effects(found.mean, found.low, found.high, found.d, g, found.p, found.n)
