"""The rank sum of values with a clump of zeros: tails that hold where the normal approximation does not.

A feature that fires in 5 of 1,000 cells, 2 of them in a type of 50, has a rank-sum z of 3.6 and a normal p of 3e-4;
shuffling the labels gives 2e-2. What varies is the number of firing cells in the type, a small skewed count, so:

1. Given the h non-zero values inside, U has mean (n1 (n0 − n1) + h N) / 2, whatever their order, and the spread of
   a rank sum of h among the m non-zero ones, with their ties.
2. h is hypergeometric. P(U ≥ u) = Σ_h P(h) Φ((mean_h + ½ − u) / sd_h): the exact law of the count, the normal one
   for the order within it.
3. The summands are log-concave in h to a good approximation: their peak is found by bisection, and the sum runs
   eight local standard deviations to either side of it. All in log space.

The law of total probability, applied to the permutation distribution of H. B. Mann and D. R. Whitney, Ann. Math.
Stat. 18, 1947. A. P. Hallstrom, Stat. Med. 29, 2010, for why a clump of zeros has to be taken apart.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from scipy import special

from elute.base.statistics.checks import Floats, Ints
from elute.base.statistics.hypergeometric import Cells, log_probability

CELLS = 1 << 18  # summands held at a time
REACH = 8.0  # local standard deviations summed to either side of the peak: what is left out is below 1e-14


@dataclass(frozen=True)
class Clump:
    """One entry a test: the statistic, the rows inside and outside, and how the values tie."""

    u: Floats
    inside: Ints
    outside: Ints
    nonzero: Ints
    ties: Floats  # Σ t³ − t over the runs of equal non-zero values

    def swapped(self) -> Clump:
        """Return the same tests seen from the rows outside."""
        u = self.inside * self.outside.astype(np.float64) - self.u
        return Clump(u, self.outside, self.inside, self.nonzero, self.ties)

    def part(self, which: Ints) -> Clump:
        """Return some of the tests, as columns that broadcast against counts."""
        fields = (self.u, self.inside, self.outside, self.nonzero, self.ties)
        return Clump(*(x[which, None] for x in fields))  # type: ignore[arg-type]


def _least(tests: Clump) -> Ints:
    least: Ints = np.maximum(0, tests.nonzero - tests.outside)
    return least


def _log_count(tests: Clump, h: Ints) -> Floats:
    m, n1 = tests.nonzero, tests.inside
    return log_probability(Cells(h, m - h, n1 - h, tests.outside - m + h))


def _log_order(tests: Clump, h: Ints) -> Floats:
    """Return log P(U ≥ u | h)."""
    m, n1, n2 = tests.nonzero, tests.inside, tests.outside
    mean = 0.5 * (n1 * (n2 - m).astype(np.float64) + h * (n1 + n2).astype(np.float64))
    spread = (m + 1.0) - tests.ties / np.maximum(m * (m - 1.0), 1.0)
    sd = np.sqrt(np.maximum(h * (m - h).astype(np.float64) * spread, 0.0) / 12.0)
    fixed = sd <= 1e-9 * (m + 1.0)
    reached = np.where(mean >= tests.u - 0.25, 0.0, -np.inf)
    return np.where(fixed, reached, special.log_ndtr((mean + 0.5 - tests.u) / np.where(fixed, 1.0, sd)))


def _growth(tests: Clump, h: Ints) -> Floats:
    """Return P(h + 1) / P(h)."""
    m, n1 = tests.nonzero, tests.inside
    ratio: Floats = (m - h) * (n1 - h).astype(np.float64) / ((h + 1.0) * (tests.outside - m + h + 1.0))
    return ratio


def _peak(tests: Clump) -> Ints:
    """Return the h with the largest summand."""
    low, high = _least(tests), np.minimum(tests.inside, tests.nonzero)
    while np.any(low < high):
        middle = (low + high) // 2
        here, after = _log_order(tests, middle), _log_order(tests, middle + 1)
        step = np.log(np.maximum(_growth(tests, middle), np.finfo(np.float64).tiny))
        # Where u cannot be reached with h, both are −∞, and the peak lies above.
        rising = (low < high) & ((here == -np.inf) | (after + step >= here))
        low, high = np.where(rising, middle + 1, low), np.where(rising, high, middle)
    return low


def _log_sum(tests: Clump, first: Ints, steps: int) -> Floats:
    """Return the log of the sum over `steps` values of h from `first` on, for tests given as columns."""
    h = first + np.arange(steps)
    m, n1 = tests.nonzero, tests.inside
    inner = np.minimum(h, np.minimum(n1, m))  # beyond the largest h the last summand is repeated, and dropped below
    with np.errstate(divide="ignore"):
        growth = np.cumsum(np.log(_growth(tests, inner[:, :-1])), axis=1)
    log_count = np.concatenate([np.zeros(first.shape), growth], axis=1) + _log_count(tests, first)
    terms = np.where(h == inner, log_count + _log_order(tests, inner), -np.inf)
    top = terms.max(axis=1)
    top = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        total: Floats = top + np.log(np.exp(terms - top[:, None]).sum(axis=1))
    return total


def log_upper_tail(tests: Clump) -> Floats:
    """Return log P(U ≥ u) of each test."""
    size = tests.u.size
    peak = _peak(tests)
    cells = (peak, tests.nonzero - peak, tests.inside - peak, tests.outside - tests.nonzero + peak)
    curvature = np.sum([1.0 / (cell + 1.0) for cell in cells], axis=0)
    width = np.ceil(REACH / np.sqrt(curvature)).astype(np.int64) + 3
    result = np.empty(size)
    order = np.argsort(width, kind="stable")
    start = 0
    while start < size:
        # Sorted by width, a block is as wide as its last test; a block is closed before it outgrows its room.
        room = np.arange(1, size - start + 1) * (2 * width[order[start:]] + 1)
        stop = start + max(1, int(np.searchsorted(room, CELLS, side="right")))
        which = order[start:stop]
        part, widest = tests.part(which), int(width[which[-1]])
        result[which] = _log_sum(part, np.maximum(peak[which, None] - widest, _least(part)), 2 * widest + 1)
        start = stop
    return np.minimum(result, 0.0)


def log_lower_tail(tests: Clump) -> Floats:
    """Return log P(U ≤ u) of each test."""
    return log_upper_tail(tests.swapped())
