"""Spearman's rank correlation of many features with one target.

1. Ranks with ties sharing their mean, then Pearson's correlation of the ranks.
2. Up to 7 rows all orders of the target are tried, ties and all. Above, t = ρ √((n−2)/(1−ρ²)) on n − 2 degrees of
   freedom; where ρ is ±1 that p would be 0, and the least p that n rows can give, 1/n!, stands in.
3. A constant feature or target says nothing: ρ 0 and p 1.

C. Spearman, "The proof and measurement of association between two things", Am. J. Psychol. 15, 1904.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from itertools import permutations
from math import lgamma

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from elute.base.errors import DataError
from elute.base.statistics.checks import ALTERNATIVES, Alternative, Floats, Ints, choice, matrix, same_length
from elute.base.statistics.ranks import rank_columns

EXACT_ROWS = 7
SAME = 1e-12  # correlations closer than this are tied


@dataclass(frozen=True)
class Correlation:
    """One entry a feature."""

    rho: Floats
    p: Floats


def _scaled_ranks(values: Floats) -> Floats:
    """Return centred ranks of length 1, or zeros where the column is constant."""
    ranks, _ = rank_columns(values)
    centred = ranks - (values.shape[0] + 1) / 2.0
    length = np.sqrt((centred * centred).sum(axis=0))
    scaled: Floats = centred / np.where(length > 0, length, 1.0)
    return scaled


@lru_cache(maxsize=EXACT_ROWS)
def _orders(n: int) -> Ints:
    return np.array(list(permutations(range(n))), dtype=np.int64)


def _tails(x: Floats, y: Floats, rho: Floats) -> tuple[Floats, Floats]:
    n = len(y)
    if n <= EXACT_ROWS:
        null = y[_orders(n)] @ x
        return (null >= rho - SAME).mean(axis=0), (null <= rho + SAME).mean(axis=0)
    t = rho * np.sqrt((n - 2) / np.maximum(1.0 - rho * rho, SAME))
    least = np.exp(-lgamma(n + 1))
    return np.maximum(special.stdtr(n - 2, -t), least), np.maximum(special.stdtr(n - 2, t), least)


def spearman(values: ArrayLike, target: ArrayLike, *, alternative: Alternative = "two-sided") -> Correlation:
    """Correlate each feature of values [rows, features] with a target [rows]."""
    choice(alternative, ALTERNATIVES, "spearman(alternative)")
    dense, other = matrix(values, "spearman(values)"), matrix(target, "spearman(target)")
    same_length(other.shape[0], dense.shape[0], "spearman(target)")
    if other.shape[1] != 1:
        raise DataError(f"has {other.shape[1]} columns", where="spearman(target)", remedy="Give one at a time.")
    if dense.shape[0] < 3:
        raise DataError(f"has {dense.shape[0]} rows", where="spearman(values)", remedy="Give at least 3.")
    x, y = _scaled_ranks(dense), _scaled_ranks(other)[:, 0]
    rho = np.clip(y @ x, -1.0, 1.0)
    above, below = _tails(x, y, rho)
    p = {"greater": above, "less": below}.get(alternative, 2.0 * np.minimum(above, below))
    silent = ~x.any(axis=0) | (not y.any())
    return Correlation(rho=np.where(silent, 0.0, rho), p=np.where(silent, 1.0, np.minimum(p, 1.0)))
