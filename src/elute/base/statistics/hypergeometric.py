"""Hypergeometric probabilities of whole arrays of 2×2 tables, in log space and to the last digits.

1. A table is its cells a, b / c, d; the probability of a given its margins is
   r1! r2! c1! c2! / (N! a! b! c! d!).
2. Each factorial is n log n − n + t(n), t(n) = log √(2πn) + Stirling's remainder. The large parts then meet in
   Σ cells x log(x/E) + E − x, E the cell expected under independence, and all four cells lie the same
   δ = (ad − bc)/N from it. So the rounding error grows with δ, and not with N as a sum of log-gammas would.
3. A tail is the probability of its inmost table times 1 + r1 + r1 r2 + …, r = bc / ((a+1)(d+1)), summed until the
   geometric bound on what is left is below the last digit. On the far side of the mode the complement is taken.

C. Loader, "Fast and accurate computation of binomial probabilities", 2000, for the idea of step 2.
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, localcontext
from math import factorial
from typing import NamedTuple

import numpy as np

from elute.base.statistics.checks import Bools, Floats, Ints

EPSILON = float(np.finfo(np.float64).eps)
CHUNK = 1 << 17  # tests at a time: what a level of cache holds, and a bound on memory


class Cells(NamedTuple):
    """The cells a, b / c, d of many tables, as arrays of one shape."""

    a: Ints
    b: Ints
    c: Ints
    d: Ints

    def part(self, which: Bools | slice) -> Cells:
        """Return some of the tables."""
        return Cells(*(cell[which] for cell in self))

    def moved(self, steps: Ints) -> Cells:
        """Return the tables of the same margins with a larger by so many."""
        return Cells(self.a + steps, self.b - steps, self.c - steps, self.d + steps)

    def swapped(self) -> Cells:
        """Return the tables with their columns swapped: the lower tail is then the upper one."""
        return Cells(self.b, self.a, self.d, self.c)


def _small_remainders() -> Floats:
    with localcontext() as context:
        context.prec = 40
        values = [0.0] + [float(Decimal(factorial(n)).ln() - n * Decimal(n).ln() + n) for n in range(1, 16)]
    return np.array(values)


_SMALL = _small_remainders()


def _remainder(n: Floats) -> Floats:
    """Return log n! − n log n + n."""
    big = np.maximum(n, 16.0)
    square = 1.0 / (big * big)
    series = (1 / 12 - square * (1 / 360 - square * (1 / 1260 - square * (1 / 1680 - square / 1188)))) / big
    large = 0.5 * np.log(2.0 * np.pi * big) + series
    return np.where(n < 16.0, _SMALL[np.minimum(n, 15.0).astype(np.int64)], large)


def _deviance(cell: Floats, expected: Floats, delta: Floats) -> Floats:
    """Return x log(x/E) + E − x, given x − E, which is known better than E."""
    safe = np.where(cell > 0, cell, 1.0)
    ratio = np.where(cell > 0, delta / safe, 0.0)
    close = np.abs(ratio) < 0.5
    far = np.where(close | (cell <= 0), 1.0, expected / safe)
    log_ratio = np.where(close, np.log1p(-np.where(close, ratio, 0.0)), np.log(far))
    return -delta - cell * log_ratio


def log_probability(cells: Cells) -> Floats:
    """Return the log probability of each table given its margins."""
    a, b, c, d = cells
    total = (a + b + c + d).astype(np.float64)
    safe = np.maximum(total, 1.0)
    delta = (a * d - b * c) / safe
    numbers = [cell.astype(np.float64) for cell in cells]
    rows = (numbers[0] + numbers[1], numbers[2] + numbers[3])
    columns = (numbers[0] + numbers[2], numbers[1] + numbers[3])
    result = -_remainder(total)
    for margin in (*rows, *columns):
        result += _remainder(margin)
    for i, cell in enumerate(numbers):
        sign = 1.0 if i in (0, 3) else -1.0
        result -= _remainder(cell) + _deviance(cell, rows[i // 2] * columns[i % 2] / safe, sign * delta)
    return np.minimum(result, 0.0)


def mode(cells: Cells) -> Ints:
    """Return the likeliest a under the table's margins."""
    a, b, c, d = cells
    likeliest: Ints = (a + b + 1) * (a + c + 1) // (a + b + c + d + 2)
    return likeliest


def _tail_factor(cells: Cells) -> Floats:
    """Return P(X ≥ a) / P(X = a) for tables at or beyond the mode."""
    size = cells.a.size
    result, place = np.ones(size), np.arange(size)
    up, left, right, down = (cell.astype(np.float64) for cell in cells)
    term, total = np.ones(size), np.ones(size)
    while place.size:
        up, down = up + 1.0, down + 1.0
        ratio = left * right / (up * down)
        term = term * ratio
        total = total + term
        left, right = left - 1.0, right - 1.0
        # The ratios fall, so what is left is below a geometric series of the present one.
        going = term * ratio > 0.1 * EPSILON * total * np.maximum(1.0 - ratio, EPSILON)
        if not going.all():
            result[place[~going]] = total[~going]
            place, up, down, left, right = place[going], up[going], down[going], left[going], right[going]
            term, total = term[going], total[going]
    return result


def _outer_tail(cells: Cells) -> Floats:
    """Return log P(X ≥ a) for tables at or beyond the mode, −∞ for those that no margins allow."""
    result = np.full(cells.a.shape, -np.inf)
    possible = np.min(cells, axis=0) >= 0
    some = cells.part(possible)
    result[possible] = log_probability(some) + np.log(_tail_factor(some))
    return result


def log_upper_tail(cells: Cells) -> Floats:
    """Return log P(X ≥ a)."""
    result = np.empty(cells.a.shape)
    outer = cells.a > mode(cells)
    result[outer] = _outer_tail(cells.part(outer))
    # On this side of the mode, P(X ≥ a) = 1 − P(X ≤ a − 1).
    inner = cells.part(~outer)
    below = _outer_tail(inner.moved(np.array(-1)).swapped())
    result[~outer] = np.log1p(-np.exp(np.minimum(below, 0.0)))
    return np.minimum(result, 0.0)


def log_lower_tail(cells: Cells) -> Floats:
    """Return log P(X ≤ a)."""
    return log_upper_tail(cells.swapped())


def log_two_sided(cells: Cells) -> Floats:
    """Return the log of the probability of all tables that are no likelier than the one seen."""
    flip = cells.a > mode(cells)
    low = Cells(*(np.where(flip, there, here) for here, there in zip(cells, cells.swapped(), strict=True)))
    seen = log_probability(low)
    # Tables are tied within 1e-14 as in scipy, and within what the two logarithms can be off by.
    delta = np.abs(low.a * low.d - low.b * low.c) / np.maximum(sum(low), 1)
    limit = seen + 1e-14 + 8.0 * EPSILON * (4.0 + delta)
    to_mode = np.maximum(mode(low) - low.a, 0)
    tied = log_probability(low.moved(to_mode)) <= limit
    # In steps from a: at `near` a table is likelier than the one seen, at `far` it is not.
    far = np.minimum(low.b, low.c) + 1
    near = np.where(tied, far - 1, to_mode)
    while np.any(far - near > 1):
        middle = (near + far) // 2
        likelier = log_probability(low.moved(middle)) > limit
        near, far = np.where(likelier, middle, near), np.where(likelier, far, middle)
    total = np.logaddexp(log_lower_tail(low), _outer_tail(low.moved(far)))
    return np.where(tied, 0.0, np.minimum(total, 0.0))


def in_chunks(tail: Callable[[Cells], Floats], cells: Cells) -> Floats:
    """Apply a tail to flat arrays of cells, a bounded number at a time."""
    starts = range(0, cells.a.size, CHUNK)
    return np.concatenate([tail(cells.part(slice(start, start + CHUNK))) for start in starts])
