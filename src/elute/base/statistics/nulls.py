"""Nulls by resampling: what the same procedure gives when there is nothing to find.

1. Bootstrap: whole groups are drawn with replacement, because rows of one donor are no independent observations.
   Intervals: percentile; basic (the percentile one reflected at the estimate); BCa, which corrects the percentiles
   for the median bias of the replicates and, by leaving out a group at a time, for skew.
2. Permutation: labels are shuffled inside each group alone, so a difference between groups cannot look like an
   effect. Where no group has two labels there is nothing to shuffle, and it is refused.
3. The p-value counts the data as one of its own permutations: (1 + #{null ≥ observed}) / (1 + n).

B. Efron, J. Am. Stat. Assoc. 82, 1987, for BCa; B. Phipson, G. K. Smyth, Stat. Appl. Genet. Mol. Biol. 9, 2010, for
the 1 +.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from elute.base.errors import DataError
from elute.base.statistics.checks import (
    ALTERNATIVES,
    Alternative,
    Floats,
    Ints,
    at_least,
    choice,
    generator,
    group_codes,
    numbers,
    proportion,
)

Labels = np.ndarray[Any, np.dtype[Any]]
INTERVALS = ("percentile", "basic", "bca")


@dataclass(frozen=True)
class Bootstrap:
    """One entry a statistic; `replicates` has one row a resample."""

    estimate: Floats
    low: Floats
    high: Floats
    replicates: Floats
    n_groups: int


@dataclass(frozen=True)
class PermutationTest:
    """One entry a statistic: what was seen, its p-value, and what the shuffled labels gave."""

    observed: Floats
    p: Floats
    null_mean: Floats
    null_sd: Floats
    n_permutations: int


def _statistic(value: ArrayLike, where: str, width: int | None = None) -> Floats:
    array = np.atleast_1d(numbers(value, where))
    after = "" if width is None else f" after ({width},)"
    if array.ndim != 1 or (width is not None and array.size != width):
        raise DataError(f"gave shape {array.shape}{after}", where=where, remedy="Return the same numbers each time.")
    return array


def _quantiles(ordered: Floats, shares: Floats) -> Floats:
    """Return a quantile of its own for each column of sorted replicates."""
    place = np.clip(shares, 0.0, 1.0) * (len(ordered) - 1)
    below = np.floor(place).astype(np.int64)
    above = np.minimum(below + 1, len(ordered) - 1)
    columns = np.arange(ordered.shape[1])
    return ordered[below, columns] + (place - below) * (ordered[above, columns] - ordered[below, columns])


def _bca_shares(replicates: Floats, estimate: Floats, *, left_out: Floats, tail: float) -> tuple[Floats, Floats]:
    """Return the shares of the replicates between which the BCa interval lies."""
    n = len(replicates)
    below = (replicates < estimate).sum(axis=0) + 0.5 * (replicates == estimate).sum(axis=0)
    bias = special.ndtri(np.clip(below / n, 0.5 / n, 1.0 - 0.5 / n))
    pull = left_out.mean(axis=0) - left_out
    spread = (pull * pull).sum(axis=0)
    skew = (pull**3).sum(axis=0) / (6.0 * np.where(spread > 0, spread, 1.0) ** 1.5)
    shares = []
    for z in (special.ndtri(tail), special.ndtri(1.0 - tail)):
        moved = bias + z
        shares.append(special.ndtr(bias + moved / np.maximum(1.0 - skew * moved, 1e-6)))
    return shares[0], shares[1]


def bootstrap_groups(
    statistic: Callable[[Ints], ArrayLike],
    groups: Iterable[Any],
    *,
    n_resamples: int = 2000,
    level: float = 0.95,
    interval: Literal["percentile", "basic", "bca"] = "percentile",
    seed: int,
) -> Bootstrap:
    """Give an interval to `statistic(rows)`, a number or an array, by drawing whole groups with replacement."""
    where = "bootstrap_groups"
    choice(interval, INTERVALS, f"{where}(interval)")
    tail = (1.0 - proportion(level, f"{where}(level)")) / 2.0
    at_least(n_resamples, 2, f"{where}(n_resamples)")
    names, codes = group_codes(groups, f"{where}(groups)")
    n = len(names)
    if n < 2:
        raise DataError("one group only", where=f"{where}(groups)", remedy="Give at least 2 groups.")
    rng = generator(seed, where)
    members = np.split(np.argsort(codes, kind="stable"), np.cumsum(np.bincount(codes))[:-1])
    estimate = _statistic(statistic(np.concatenate(members)), f"{where}(statistic)")
    replicates = np.empty((n_resamples, estimate.size))
    for i, drawn in enumerate(rng.integers(0, n, (n_resamples, n))):
        rows = np.concatenate([members[g] for g in drawn])
        replicates[i] = _statistic(statistic(rows), f"{where}(statistic)", estimate.size)
    ordered = np.sort(replicates, axis=0)
    if interval == "bca":
        every = range(n)
        kept = [statistic(np.concatenate([members[g] for g in every if g != out])) for out in every]
        left_out = np.stack([_statistic(x, f"{where}(statistic)", estimate.size) for x in kept])
        shares = _bca_shares(replicates, estimate, left_out=left_out, tail=tail)
    else:
        shares = (np.full(estimate.size, tail), np.full(estimate.size, 1.0 - tail))
    low, high = _quantiles(ordered, shares[0]), _quantiles(ordered, shares[1])
    if interval == "basic":
        low, high = 2.0 * estimate - high, 2.0 * estimate - low
    return Bootstrap(estimate, low, high, replicates, n)


def permuted_labels(
    labels: Iterable[Any], groups: Iterable[Any], *, n_permutations: int, seed: int
) -> Iterator[Labels]:
    """Yield the labels shuffled inside each group, one permutation at a time."""
    where = "permuted_labels"
    at_least(n_permutations, 1, f"{where}(n_permutations)")
    rng = generator(seed, where)
    held = _as_array(labels)
    names, codes = group_codes(groups, f"{where}(groups)")
    kinds, label_codes = group_codes(held, f"{where}(labels)", n_rows=len(codes))
    pairs = np.unique(codes * len(kinds) + label_codes)
    if len(pairs) == len(names):
        raise DataError(
            f"none of {len(names)} groups has two labels, so nothing can be shuffled",
            where=f"{where}(labels)",
            remedy="Compare between groups with between_groups instead.",
        )
    return _shuffled(held, codes, times=n_permutations, rng=rng)


def _as_array(labels: Iterable[Any]) -> Labels:
    """Return labels as an array of what they are: numpy would turn mixed ones into text, and pairs into a matrix."""
    if isinstance(labels, np.ndarray):
        return labels
    items = list(labels)
    array = np.empty(len(items), dtype=object)
    array[:] = items
    return array


def _shuffled(labels: Labels, codes: Ints, *, times: int, rng: np.random.Generator) -> Iterator[Labels]:
    home = np.argsort(codes, kind="stable")
    for _ in range(times):
        shuffled = labels.copy()
        shuffled[home] = labels[np.lexsort((rng.random(len(codes)), codes))]
        yield shuffled


def empirical_p(observed: ArrayLike, null: ArrayLike, *, alternative: Alternative = "greater") -> Floats:
    """Return the p-value of each observed number among its column of null draws [draws, statistics]."""
    where = "empirical_p"
    choice(alternative, ALTERNATIVES, f"{where}(alternative)")
    seen = np.atleast_1d(numbers(observed, f"{where}(observed)"))
    draws = numbers(null, f"{where}(null)")
    draws = draws[:, None] if draws.ndim < 2 else draws
    if draws.ndim != 2 or draws.shape[1] != seen.size:
        raise DataError(
            f"has {draws.shape[-1]} columns for {seen.size} observed numbers",
            where=f"{where}(null)",
            remedy="Give one column for each.",
        )
    above = (draws >= seen).sum(axis=0).astype(np.float64)
    below = (draws <= seen).sum(axis=0).astype(np.float64)
    return _plus_one(above, below, n=len(draws), alternative=alternative)


def _plus_one(above: Floats, below: Floats, *, n: int, alternative: Alternative) -> Floats:
    count = {"greater": above, "less": below}.get(alternative, np.minimum(above, below))
    sides = 2.0 if alternative == "two-sided" else 1.0
    return np.minimum(sides * (1.0 + count) / (1.0 + n), 1.0)


def permutation_test(
    statistic: Callable[[Labels], ArrayLike],
    labels: Iterable[Any],
    groups: Iterable[Any],
    *,
    n_permutations: int = 999,
    alternative: Alternative = "two-sided",
    seed: int,
) -> PermutationTest:
    """Test `statistic(labels)`, a number or an array, against labels shuffled inside each group."""
    where = "permutation_test"
    choice(alternative, ALTERNATIVES, f"{where}(alternative)")
    held = _as_array(labels)
    shuffles = permuted_labels(held, groups, n_permutations=n_permutations, seed=seed)
    seen = _statistic(statistic(held), f"{where}(statistic)")
    above, below = np.zeros(seen.size), np.zeros(seen.size)
    mean, squares = np.zeros(seen.size), np.zeros(seen.size)
    for i, shuffled in enumerate(shuffles, start=1):
        null = _statistic(statistic(shuffled), f"{where}(statistic)", seen.size)
        # Sums of the same numbers in another order differ in their last digits, and still are ties.
        slack = 1e-12 * np.abs(seen)
        above += null >= seen - slack
        below += null <= seen + slack
        step = null - mean
        mean = mean + step / i
        squares = squares + step * (null - mean)
    sd = np.sqrt(squares / max(n_permutations - 1, 1))
    p = _plus_one(above, below, n=n_permutations, alternative=alternative)
    return PermutationTest(seen, p, mean, sd, n_permutations)
