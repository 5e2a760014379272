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

import numpy as np

from elute.base.statistics.checks import Floats, Ints

Cells = tuple[Ints, Ints, Ints, Ints]
EPSILON = float(np.finfo(np.float64).eps)
CHUNK = 1 << 17  # tests at a time: what a level of cache holds, and a bound on memory


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


def log_probability(a: Ints, b: Ints, c: Ints, d: Ints) -> Floats:
    """Return the log probability of each table given its margins."""
    total = (a + b + c + d).astype(np.float64)
    safe = np.maximum(total, 1.0)
    delta = (a * d - b * c) / safe
    cells = [x.astype(np.float64) for x in (a, b, c, d)]
    rows, columns = (cells[0] + cells[1], cells[2] + cells[3]), (cells[0] + cells[2], cells[1] + cells[3])
    result = -_remainder(total)
    for margin in (*rows, *columns):
        result += _remainder(margin)
    for i, cell in enumerate(cells):
        sign = 1.0 if i in (0, 3) else -1.0
        result -= _remainder(cell) + _deviance(cell, rows[i // 2] * columns[i % 2] / safe, sign * delta)
    return np.minimum(result, 0.0)


def mode(a: Ints, b: Ints, c: Ints, d: Ints) -> Ints:
    """Return the likeliest a under the table's margins."""
    likeliest: Ints = (a + b + 1) * (a + c + 1) // (a + b + c + d + 2)
    return likeliest


def _tail_factor(a: Ints, b: Ints, c: Ints, d: Ints) -> Floats:
    """Return P(X ≥ a) / P(X = a) for tables at or beyond the mode."""
    result = np.ones(a.shape)
    place = np.arange(a.size)
    up, left, right, down = (x.astype(np.float64) for x in (a, b, c, d))
    term, total = np.ones(a.size), np.ones(a.size)
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


def _outer_tail(a: Ints, b: Ints, c: Ints, d: Ints) -> Floats:
    """Return log P(X ≥ a) for tables at or beyond the mode, −∞ for those that no margins allow."""
    result = np.full(a.shape, -np.inf)
    possible = (a >= 0) & (b >= 0) & (c >= 0) & (d >= 0)
    some = (a[possible], b[possible], c[possible], d[possible])
    result[possible] = log_probability(*some) + np.log(_tail_factor(*some))
    return result


def log_upper_tail(a: Ints, b: Ints, c: Ints, d: Ints) -> Floats:
    """Return log P(X ≥ a)."""
    result = np.empty(a.shape)
    outer = a > mode(a, b, c, d)
    inner = ~outer
    result[outer] = _outer_tail(a[outer], b[outer], c[outer], d[outer])
    # P(X ≥ a) = 1 − P(X ≤ a − 1); the lower tail is the upper one of the table with its columns swapped.
    below = _outer_tail(b[inner] + 1, a[inner] - 1, d[inner] - 1, c[inner] + 1)
    result[inner] = np.log1p(-np.exp(np.minimum(below, 0.0)))
    return np.minimum(result, 0.0)


def log_lower_tail(a: Ints, b: Ints, c: Ints, d: Ints) -> Floats:
    """Return log P(X ≤ a)."""
    return log_upper_tail(b, a, d, c)


def log_two_sided(a: Ints, b: Ints, c: Ints, d: Ints) -> Floats:
    """Return the log of the probability of all tables that are no likelier than the one seen."""
    flip = a > mode(a, b, c, d)
    a, b, c, d = np.where(flip, b, a), np.where(flip, a, b), np.where(flip, d, c), np.where(flip, c, d)
    top = mode(a, b, c, d)
    seen = log_probability(a, b, c, d)
    # Tables are tied within 1e-14 as in scipy, and within what the two logarithms can be off by.
    reach = np.minimum(b, c)
    delta = np.abs(a * d - b * c) / np.maximum(a + b + c + d, 1)
    limit = seen + 1e-14 + 8.0 * EPSILON * (4.0 + delta)
    shift = np.maximum(top - a, 0)
    tied = log_probability(a + shift, b - shift, c - shift, d + shift) <= limit
    near, far = shift.copy(), reach + 1  # the first is likelier than the table seen, the second is not
    near[tied] = far[tied] - 1
    while np.any(far - near > 1):
        middle = (near + far) // 2
        likelier = log_probability(a + middle, b - middle, c - middle, d + middle) > limit
        near, far = np.where(likelier, middle, near), np.where(likelier, far, middle)
    other = _outer_tail(a + far, b - far, c - far, d + far)
    total = np.logaddexp(log_lower_tail(a, b, c, d), other)
    return np.where(tied, 0.0, np.minimum(total, 0.0))


def in_chunks(tail: Callable[[Ints, Ints, Ints, Ints], Floats], cells: Cells) -> Floats:
    """Apply a tail to flat arrays of cells, a bounded number at a time."""
    size = cells[0].size
    parts = [tail(*(x[start : start + CHUNK] for x in cells)) for start in range(0, size, CHUNK)]
    return np.concatenate(parts)
