"""Whether predictions are too bold or too timid: the line of what was measured against what was predicted.

A slope below 1 says that predictions spread too much, above 1 too little; the intercept is what is off on average.

    mse             measured = intercept + slope · predicted, by least squares
    poisson, nb     log mean = offset + intercept + slope · (η − offset), by Poisson regression on the counts
"""

from __future__ import annotations

import numpy as np

from elute.heads.links import HIGHEST, Floats
from elute.heads.predicted import Predictions

_STEPS = 50


def calibration(found: Predictions) -> tuple[Floats, Floats]:
    """Return slope and intercept of each gene [G]; NaN where all its predictions are the same."""
    if found.loss == "mse":
        return _line(found.mean, found.y)
    log_mean = np.log(np.maximum(found.mean, 1e-12))
    offset = np.zeros((len(log_mean), 1)) if found.offset is None else found.offset[:, None]
    return _poisson_line(log_mean - offset, found.y, offset)


def _line(x: Floats, y: Floats) -> tuple[Floats, Floats]:
    away = x - x.mean(axis=0)
    square = np.square(away).sum(axis=0)
    varies = square > 1e-20 * np.square(x).sum(axis=0)
    slope = np.where(varies, (away * y).sum(axis=0) / np.where(varies, square, 1), np.nan)
    return slope, y.mean(axis=0) - slope * x.mean(axis=0)


def _poisson_line(x: Floats, y: Floats, offset: Floats) -> tuple[Floats, Floats]:
    """Newton's method for two coefficients a gene, from slope 0 on; steps are halved while they do not help."""
    middle = x.mean(axis=0)
    away = x - middle
    spread = np.sqrt(np.square(away).mean(axis=0))
    usable = (spread > 1e-10 * (1 + np.abs(middle))) & (y.sum(axis=0) > 0)
    z = away / np.where(usable, spread, 1)
    level = np.log(np.maximum(y.sum(axis=0), 0.5) / np.exp(offset).sum())
    slope = np.zeros_like(level)

    def loss(a: Floats, b: Floats) -> Floats:
        eta = np.minimum(offset + a + b * z, HIGHEST)
        return np.asarray((np.exp(eta) - y * eta).sum(axis=0))

    now = loss(level, slope)
    for _ in range(_STEPS):
        mu = np.exp(np.minimum(offset + level + slope * z, HIGHEST))
        first, second = (y - mu).sum(axis=0), ((y - mu) * z).sum(axis=0)
        aa, ab, bb = mu.sum(axis=0), (mu * z).sum(axis=0), (mu * z * z).sum(axis=0)
        det = np.maximum(aa * bb - ab * ab, 1e-300)
        step_a, step_b = (bb * first - ab * second) / det, (aa * second - ab * first) / det
        t = np.ones_like(level)
        for _ in range(30):
            then = loss(level + t * step_a, slope + t * step_b)
            worse = then > now + 1e-12 * np.abs(now)
            if not worse.any():
                break
            t = np.where(worse, t / 2, t)
        level, slope, gained = level + t * step_a, slope + t * step_b, now - then
        now = then
        if (gained <= 1e-12 * (1 + np.abs(now))).all():
            break
    true = np.where(usable, slope / np.where(usable, spread, 1), np.nan)
    return true, level - true * middle
