"""Tests of paired differences, such as one per donor: signed rank, and flipping signs.

1. Were the two members of a pair alike, each difference would be as likely with its sign turned round.
2. Sign flip: the sum of the differences, against the sums under all 2^n signs up to 12 pairs, and above under
   `n_flips` random ones, with the +1 rule.
3. Signed rank: zeros are dropped, the sizes are ranked, the ranks carry the signs. Up to 12 pairs all 2^n signs are
   tried, ties and zeros included; up to 50 pairs without ties the law of W is counted; above, normal with the
   variance corrected for ties, and continuity.
4. A two-sided p is twice the smaller tail. Differences that are all 0 give p 1.

R. A. Fisher, "The Design of Experiments", 1935, for the flips; F. Wilcoxon, Biometrics Bull. 1, 1945, for the ranks.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from elute.base.errors import DataError
from elute.base.statistics.checks import (
    ALTERNATIVES,
    Alternative,
    Bools,
    Floats,
    at_least,
    choice,
    generator,
    matrix,
)
from elute.base.statistics.ranks import rank_columns

EXACT_PAIRS = 12
COUNTED_PAIRS = 50
CELLS = 1 << 21  # sums held at a time


@dataclass(frozen=True)
class SignedTest:
    """One entry a feature: the statistic (W of the positive ranks, or the mean difference) and its p-value."""

    statistic: Floats
    p: Floats
    n_pairs: int


def _checked(differences: ArrayLike, where: str) -> Floats:
    values = matrix(differences, where)
    if values.shape[0] < 2:
        raise DataError("has one pair", where=where, remedy="Give at least 2: one pair has no spread.")
    return values


def _all_signs(n: int) -> Floats:
    bits = np.arange(1 << n)[:, None] >> np.arange(n)
    signs: Floats = 1.0 - (bits & 1).astype(np.float64) * 2.0
    return signs


def _flipped_tails(scores: Floats, signs: Floats) -> tuple[Floats, Floats]:
    """Return how many rows of signs give a sum as large, and as small, as all plus."""
    width = scores.shape[1]
    above, below = np.empty(width), np.empty(width)
    step = max(1, CELLS // len(signs))
    for start in range(0, width, step):
        part = scores[:, start : start + step]
        # Sums of the same numbers in another order differ in their last digits, and still are ties.
        slack = 1e-12 * np.abs(part).sum(axis=0)
        seen, null = part.sum(axis=0), signs @ part
        above[start : start + step] = (null >= seen - slack).sum(axis=0)
        below[start : start + step] = (null <= seen + slack).sum(axis=0)
    return above, below


def _join(above: Floats, below: Floats, alternative: Alternative) -> Floats:
    p = {"greater": above, "less": below}.get(alternative, 2.0 * np.minimum(above, below))
    return np.minimum(p, 1.0)


def sign_flip(
    differences: ArrayLike, *, alternative: Alternative = "two-sided", n_flips: int = 9999, seed: int = 0
) -> SignedTest:
    """Test whether differences [pairs, features] have mean 0; `n_flips` and `seed` count above 12 pairs."""
    choice(alternative, ALTERNATIVES, "sign_flip(alternative)")
    values = _checked(differences, "sign_flip(differences)")
    at_least(n_flips, 1, "sign_flip(n_flips)")
    rng = generator(seed, "sign_flip")
    n = values.shape[0]
    if n <= EXACT_PAIRS:
        above, below = (count / 2.0**n for count in _flipped_tails(values, _all_signs(n)))
    else:
        signs = 1.0 - rng.integers(0, 2, (n_flips, n)).astype(np.float64) * 2.0
        above, below = ((count + 1.0) / (n_flips + 1.0) for count in _flipped_tails(values, signs))
    return SignedTest(values.mean(axis=0), _join(above, below, alternative), n)


@lru_cache(maxsize=64)
def _law(n: int) -> Floats:
    """Return P(W ≥ w) for w = 0 … n (n + 1) / 2 when there are no ties."""
    size = n * (n + 1) // 2 + 1
    counts = np.zeros(size)
    counts[0] = 1.0
    for rank in range(1, n + 1):
        counts[rank:] = counts[rank:] + counts[: size - rank]
    return np.cumsum(counts[::-1])[::-1] / 2.0**n


def _counted_tails(w: Floats, pairs: Floats, free: Bools) -> tuple[Floats, Floats]:
    above, below = np.ones(w.shape), np.ones(w.shape)
    for n in np.unique(pairs[free]).astype(int).tolist():
        table, which = _law(n), free & (pairs == n)
        at = np.rint(w[which]).astype(np.int64)
        above[which], below[which] = table[at], table[len(table) - 1 - at]
    return above, below


def signed_rank(
    differences: ArrayLike,
    *,
    alternative: Alternative = "two-sided",
    method: Literal["auto", "normal"] = "auto",
) -> SignedTest:
    """Test whether differences [pairs, features] lie evenly about 0."""
    choice(alternative, ALTERNATIVES, "signed_rank(alternative)")
    choice(method, ("auto", "normal"), "signed_rank(method)")
    values = _checked(differences, "signed_rank(differences)")
    zero = values == 0
    # Ranked with the rest, zeros take the lowest ranks; those are then taken off.
    ranks, runs = rank_columns(np.abs(values))
    ranks = np.where(zero, 0.0, ranks - zero.sum(axis=0))
    pairs = (~zero).sum(axis=0).astype(np.float64)
    ties = np.where(zero, 0.0, runs * runs - 1.0).sum(axis=0)
    w = np.where(values > 0, ranks, 0.0).sum(axis=0)
    if method == "auto" and len(values) <= EXACT_PAIRS:
        signed = np.sign(values) * ranks
        above, below = (x / 2.0 ** len(values) for x in _flipped_tails(signed, _all_signs(len(values))))
    else:
        middle = pairs * (pairs + 1.0) / 4.0
        sd = np.sqrt(pairs * (pairs + 1.0) * (2.0 * pairs + 1.0) / 24.0 - ties / 48.0)
        sd = np.where(pairs > 0, sd, 1.0)
        above, below = special.ndtr((middle + 0.5 - w) / sd), special.ndtr((w + 0.5 - middle) / sd)
        if method == "auto":
            free = (ties == 0) & (pairs <= COUNTED_PAIRS)
            counted = _counted_tails(w, pairs, free)
            above, below = (np.where(free, a, b) for a, b in zip(counted, (above, below), strict=True))
    p = np.where(pairs > 0, _join(above, below, alternative), 1.0)
    return SignedTest(w, p, len(values))
