"""The dispersion of negative binomial counts: maximum likelihood at given means, for many genes.

With variance μ + α μ², log L(α) = Σ log(1 + α k) over k < y, minus Σ (y + 1/α) log(1 + α μ), plus what α does not
change. Written so, nothing cancels where α is small; its slope at 0 is Σ ((y − μ)² − y) / 2.

1. A gene whose slope at 0 is not positive varies no more than Poisson counts do: α = 0.
2. Else the slope by log α is bracketed from where α may be near, and its root found by false position (the Illinois
   way, with a bisection now and then). Above 10⁴ α is 10⁴.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from elute.base.compiled import compiled, over
from elute.heads.links import Floats

LOWEST, HIGHEST = 1e-8, 1e4
_FEW = 256  # counts up to which terms are added one by one


@compiled
def _sum_to(x: float, alpha: float) -> float:
    """Σ k / (1 + α k) over k < x, but for a constant: Euler and Maclaurin's formula."""
    t = alpha * x
    whole = 1.0 + t
    if t < 1e-2:
        area = x * x * (0.5 - t * (1.0 / 3.0 - t * (0.25 - t * (0.2 - t / 6.0))))
    else:
        area = (t - np.log1p(t)) / (alpha * alpha)
    return area - 0.5 * x / whole + 1.0 / (12.0 * whole * whole)


@compiled
def _slope(above: Any, y: Any, mu: Any, alpha: float) -> float:
    """The derivative of the log likelihood by α; `above[k]` is how many counts are above k."""
    total = 0.0
    for k in range(1, above.shape[0]):
        total += above[k] * k / (1.0 + alpha * k)
    start = _sum_to(float(_FEW), alpha) if above.shape[0] == _FEW else 0.0
    for i in range(y.shape[0]):
        grown = alpha * mu[i]
        # (log(1 + αμ) − αμ / (1 + αμ)) / α², by its series where it would cancel
        if grown < 1e-3:
            bent = mu[i] * mu[i] * (0.5 - grown * (2.0 / 3.0 - grown * (0.75 - 0.8 * grown)))
        else:
            bent = (np.log1p(grown) - grown / (1.0 + grown)) / (alpha * alpha)
        total += bent - y[i] * mu[i] / (1.0 + grown)
        if y[i] > _FEW:
            total += _sum_to(y[i], alpha) - start
    return total


@compiled
def _above(y: Any) -> Any:
    """How many counts are above k, for every k up to the largest, or below 256."""
    most = 0
    for i in range(y.shape[0]):
        most = max(most, int(min(y[i], float(_FEW))))
    above = np.zeros(most + 1)
    for i in range(y.shape[0]):
        above[int(min(y[i], float(_FEW)))] += 1.0
    running = 0.0
    for k in range(most, -1, -1):
        here = above[k]
        above[k] = running
        running += here
    return above[:_FEW]


@compiled
def _estimate(y: Any, mu: Any, start: Any, into: Any, lo: int, hi: int) -> None:
    """Find α of the genes lo to hi; y and mu are [G, n]; a start of 0 says nothing."""
    for g in range(lo, hi):
        above = _above(y[g])
        if _slope(above, y[g], mu[g], 0.0) <= 0.0 or _slope(above, y[g], mu[g], LOWEST) <= 0.0:
            into[g] = 0.0
            continue
        middle = np.log(start[g]) if LOWEST < start[g] < HIGHEST else np.log(0.1)
        low, high = middle, middle
        f_low = f_high = _slope(above, y[g], mu[g], np.exp(middle)) * np.exp(middle)
        width = 0.25
        while f_low < 0.0:
            high, f_high = low, f_low
            low = max(low - width, np.log(LOWEST))
            f_low = _slope(above, y[g], mu[g], np.exp(low)) * np.exp(low)
            width *= 2.0
        while f_high > 0.0 and high < np.log(HIGHEST):
            low, f_low = high, f_high
            high = min(high + width, np.log(HIGHEST))
            f_high = _slope(above, y[g], mu[g], np.exp(high)) * np.exp(high)
            width *= 2.0
        if f_high > 0.0:
            into[g] = HIGHEST
            continue
        side = 0
        middle = low if f_low == 0.0 else high
        for turn in range(200):
            if f_low == 0.0 or f_high == 0.0 or high - low < 1e-10:
                break
            middle = 0.5 * (low + high) if turn % 8 == 7 else (low * f_high - high * f_low) / (f_high - f_low)
            f = _slope(above, y[g], mu[g], np.exp(middle)) * np.exp(middle)
            if abs(f) < 1e-10 * y.shape[1]:
                break
            if f > 0.0:
                low, f_low = middle, f
                f_high = f_high * 0.5 if side == 1 else f_high
                side = 1
            else:
                high, f_high = middle, f
                f_low = f_low * 0.5 if side == -1 else f_low
                side = -1
        into[g] = np.exp(middle)


def dispersions(y: Floats, mean: Floats, start: Floats | None = None) -> Floats:
    """Return α [G] of whole-number counts y [n, G] with the given means; `start` [G] is where it may be near."""
    out = np.zeros(y.shape[1])
    near = np.zeros(y.shape[1]) if start is None else np.ascontiguousarray(start)
    over(y.shape[1], _estimate, np.ascontiguousarray(y.T), np.ascontiguousarray(mean.T), near, out)
    return out
