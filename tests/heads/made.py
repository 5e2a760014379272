"""Codes and genes that tests are made of."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Made:
    x: Floats  # [n, K], two of the codes never vary
    offset: Floats  # [n]
    log: Floats  # [n, G]
    poisson: Floats  # [n, G]
    nb: Floats  # [n, G]
    groups: NDArray[np.int64]
    rate: Floats  # [n, G], η without the offset

    def y(self, loss: str) -> Floats:
        return {"mse": self.log, "poisson": self.poisson, "nb": self.nb}[loss]

    def off(self, loss: str) -> Floats | None:
        return None if loss == "mse" else self.offset


def made(n: int = 200, k: int = 10, genes: int = 2, *, effect: float = 0.3, seed: int = 0, patients: int = 8) -> Made:
    rng = np.random.default_rng(seed)
    x = rng.gamma(1.0, 1.0, (n, k)) * (rng.random((n, k)) < 0.4)
    x[:, 3], x[:, 5] = 0.0, 2.0
    rate = x @ rng.normal(0, effect, (k, genes))
    rate += 0.5 - rate.mean(axis=0)
    offset = rng.normal(0, 0.4, n)
    mean = np.exp(rate + offset[:, None])
    groups = np.sort(rng.integers(0, patients, n))
    groups[:patients] = np.arange(patients)
    return Made(
        x=x,
        offset=offset,
        log=rate + rng.normal(0, 0.5, (n, genes)),
        poisson=rng.poisson(mean).astype(float),
        nb=rng.negative_binomial(2, 2 / (2 + mean)).astype(float),
        groups=np.sort(groups),
        rate=rate,
    )


def standard(x: Floats) -> tuple[Floats, Any]:
    """Standardised codes without those that do not vary, and which these are."""
    kept = np.flatnonzero(x.std(0) > 0)
    z = x[:, kept]
    return (z - z.mean(0)) / z.std(0), kept


def raw(coefficients: Floats, intercept: float, x: Floats) -> tuple[Floats, float]:
    """Coefficients of standardised codes as those of raw codes, and the bias."""
    _, kept = standard(x)
    weights = np.zeros(x.shape[1])
    weights[kept] = coefficients / x[:, kept].std(0)
    return weights, intercept - float(weights @ x.mean(0))
