"""What is minimised, for many genes at once: losses of a linear predictor, and the scale that results are shown on.

    loss      mean of y          −log likelihood a row, without what no coefficient changes
    mse       η                  (y − η)² / 2
    poisson   μ = exp(η)         μ − y η
    nb        μ = exp(η)         (y + 1/α) log(1 + α μ) − y η           variance μ + α μ²; α = 0 is Poisson

η includes the offset, the log of the library size. All arrays are [rows, genes], α is [genes].
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy import special

from elute.base.errors import DataError
from elute.heads.settings import Loss

Floats = NDArray[np.float64]
HIGHEST = 60.0  # an η above it is a mean that no count has: e⁶⁰ is 10²⁶


class Slopes(NamedTuple):
    """A loss with its first and second derivative by η, a row and gene each."""

    loss: Floats
    first: Floats
    second: Floats


def mean_of(eta: Floats, loss: Loss) -> Floats:
    """Return the mean that a linear predictor stands for."""
    return eta if loss == "mse" else np.exp(np.minimum(eta, HIGHEST))


def slopes(y: Floats, eta: Floats, *, loss: Loss, dispersion: Floats | None = None) -> Slopes:
    """Return the loss and its derivatives; it is convex in η, and so is every head's problem."""
    if loss == "mse":
        away = eta - y
        return Slopes(away * away / 2, away, np.ones_like(away))
    mu = mean_of(eta, loss)
    if loss == "poisson" or dispersion is None:
        return Slopes(mu - y * eta, mu - y, mu)
    grown = dispersion * mu
    wide = 1 + grown
    second = mu * (1 + dispersion * y) / (wide * wide)
    return Slopes(_excess(mu, dispersion) + y * np.log1p(grown) - y * eta, (mu - y) / wide, second)


def _excess(mu: Floats, dispersion: Floats) -> Floats:
    """Return log(1 + α μ) / α, which is μ where α is 0."""
    safe = np.where(dispersion > 0, dispersion, 1.0)
    return np.where(dispersion > 0, np.log1p(safe * mu) / safe, mu)


def surprise(y: Floats, mean: Floats, *, loss: Loss, dispersion: Floats | None = None) -> Floats:
    """Return −log likelihood a row and gene, up to what depends on y alone: what penalties are chosen by.

    That of a negative binomial holds the terms of y and α, so that fits of different α can be compared.
    """
    if loss == "mse":
        return (y - mean) ** 2
    mu = np.maximum(mean, 1e-12)
    if loss == "poisson" or dispersion is None:
        return mu - y * np.log(mu)
    alpha = np.broadcast_to(dispersion, y.shape)
    rising = np.zeros_like(mu)
    some = (alpha > 1e-9) & (y > 1)
    r = 1 / alpha[some]
    # Γ(y + r) / (Γ(r) r^y), the product of 1 + α k below y
    rising[some] = special.gammaln(y[some] + r) - special.gammaln(r) - y[some] * np.log(r)
    return _excess(mu, alpha) + y * np.log1p(alpha * mu) - y * np.log(mu) - rising


def deviance(y: Floats, mean: Floats, *, loss: Loss, dispersion: Floats | None = None) -> Floats:
    """Return the deviance a row and gene: twice the log likelihood lost against a mean that equals y."""
    if loss == "mse":
        return (y - mean) ** 2
    mu = np.maximum(mean, 1e-12)
    ratio = special.xlogy(y, np.where(y > 0, y, 1.0) / mu)
    if loss == "poisson" or dispersion is None:
        return 2 * (ratio - y + mu)
    alpha = np.broadcast_to(dispersion, y.shape)
    gap = _excess(mu, alpha) - _excess(y, alpha) + y * (np.log1p(alpha * mu) - np.log1p(alpha * y))
    twice: Floats = 2 * np.maximum(ratio + gap, 0)
    return twice


def log1p_cpm(counts: NDArray[np.floating], library: NDArray[np.floating]) -> Floats:
    """Return log(1 + counts per million) of counts [n, G] and library sizes [n]."""
    total = np.asarray(library, dtype=np.float64)
    if total.shape != (len(counts),):
        raise DataError(f"library sizes {total.shape} for {len(counts)} samples", remedy="Give one a sample.")
    if len(empty := np.flatnonzero(~(total > 0))):
        what = f"{len(empty)} samples have no counts at all, the first in row {int(empty[0])}"
        raise DataError(what, remedy="Leave them out: there is no share of nothing.")
    shown: Floats = np.log1p(np.asarray(counts, dtype=np.float64) * (1e6 / total)[:, None])
    return shown
