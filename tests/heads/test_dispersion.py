"""The dispersion, against a general optimiser on the likelihood as SciPy has it."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import optimize, stats

from elute.heads.dispersion import dispersions


@pytest.mark.parametrize(
    ("alpha", "mean"), [(0.05, 3.0), (0.5, 0.3), (2.0, 40.0), (0.3, 900.0), (0.01, 5000.0), (5, 1.0)]
)
def test_it_is_the_most_likely_one(alpha: float, mean: float) -> None:
    rng = np.random.default_rng(0)
    mu = mean * np.exp(rng.normal(0, 0.3, 500))
    y = rng.negative_binomial(1 / alpha, 1 / (1 + alpha * mu)).astype(float)

    def loss(t: float) -> float:
        a = np.exp(t)
        return -float(stats.nbinom.logpmf(y, 1 / a, 1 / (1 + a * mu)).sum())

    best = optimize.minimize_scalar(loss, bounds=(np.log(alpha) - 3, np.log(alpha) + 3), options={"xatol": 1e-8})
    for start in (None, np.array([1e3]), np.array([1e-7])):
        found = dispersions(y[:, None], mu[:, None], start)
        assert found[0] == pytest.approx(np.exp(best.x), rel=1e-4)


def test_ends() -> None:
    mu = np.full((100, 3), 4.0)
    y = np.stack([np.full(100, 4.0), np.zeros(100), np.r_[np.zeros(99), 1e9]], axis=1)
    found = dispersions(y, mu)
    assert found[0] == 0
    assert found[2] == pytest.approx(1e4)
