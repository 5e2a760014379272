"""Predicted counts on the scale that genes are shown on: the mean of log(1 + counts per million), no log of a mean.

log1p bends: where a gene has few counts, log1p of its expected count per million lies far above the mean of log1p of
the counts, and R² on that scale would punish a perfect model. So the mean is taken over the predicted distribution,

    E log(1 + 10⁶ Y / library),   Y Poisson or negative binomial,

term by term up to 200 counts, and beyond that by the trapezoid rule in steps of a sixth of a standard deviation.
"""

from __future__ import annotations

from math import lgamma
from typing import Any

import numpy as np

from elute.base.compiled import compiled, over
from elute.heads.links import Floats

_ONE_BY_ONE = 200


@compiled
def _log_chance(y: float, mu: float, alpha: float) -> Any:
    """The log of the chance of y counts."""
    if alpha < 1e-6:
        return y * np.log(mu) - mu - lgamma(y + 1.0)
    r = 1.0 / alpha
    return (
        lgamma(y + r)
        - lgamma(r)
        - lgamma(y + 1.0)
        - r * np.log1p(alpha * mu)
        + y * np.log(alpha * mu / (1.0 + alpha * mu))
    )


@compiled
def _expect(mu: float, alpha: float, per_million: float) -> Any:
    if mu <= 0.0:
        return 0.0
    sd = np.sqrt(mu + alpha * mu * mu)
    total = mass = 0.0
    first = mu - 9.0 * sd
    y = 0.0
    if first < _ONE_BY_ONE:
        chance = np.exp(_log_chance(0.0, mu, alpha))
        share = mu / (1.0 + alpha * mu)
        while y <= _ONE_BY_ONE:
            total += chance * np.log1p(per_million * y)
            mass += chance
            if y > mu and chance < 1e-13:
                return total / mass
            chance *= share * (1.0 + alpha * y) / (y + 1.0)
            y += 1.0
        y -= 0.5  # what was counted ends half a step above the last count
    else:
        y = np.floor(first)
    last = mu + 40.0 * sd
    before = np.exp(_log_chance(y, mu, alpha))
    value = np.log1p(per_million * y)
    while y < last:
        step = max(min(sd / 6.0, 0.05 * y), 1.0)
        chance = np.exp(_log_chance(y + step, mu, alpha))
        after = np.log1p(per_million * (y + step))
        total += 0.5 * step * (before * value + chance * after)
        mass += 0.5 * step * (before + chance)
        if y > mu and chance < 1e-13:
            break
        y, before, value = y + step, chance, after
    return total / mass


@compiled
def _fill(mean: Any, per_million: Any, alpha: Any, into: Any, lo: int, hi: int) -> None:
    for i in range(lo, hi):
        for g in range(mean.shape[1]):
            into[i, g] = _expect(mean[i, g], alpha[i, g], per_million[i])


def expected_log1p_cpm(mean: Floats, library: Floats, dispersion: Floats | None = None) -> Floats:
    """Return E log(1 + 10⁶ Y / library) [n, G] of counts with these means [n, G]; α is [G] or [n, G]."""
    alpha = np.broadcast_to(np.zeros(1) if dispersion is None else dispersion, mean.shape)
    out = np.empty(mean.shape)
    per_million = 1e6 / np.asarray(library, dtype=np.float64)
    over(len(mean), _fill, np.ascontiguousarray(mean), per_million, np.ascontiguousarray(alpha), out)
    return out
