from __future__ import annotations

from itertools import permutations
from math import factorial

import numpy as np
import pytest
from scipy import stats

from elute.base.errors import ConfigError, DataError
from elute.base.statistics.correlation import spearman

RNG = np.random.default_rng(4)


@pytest.mark.parametrize("side", ["two-sided", "greater", "less"])
def test_equals_scipy(side):
    values, target = RNG.integers(0, 9, (40, 25)), RNG.normal(size=40)
    ours = spearman(values, target, alternative=side)
    theirs = [stats.spearmanr(column, target, alternative=side) for column in values.T]
    np.testing.assert_allclose(ours.rho, [found.statistic for found in theirs], atol=1e-14)
    np.testing.assert_allclose(ours.p, [found.pvalue for found in theirs], rtol=1e-10)


@pytest.mark.parametrize("n", [3, 4, 5])
def test_few_rows_are_counted(n):
    values, target = RNG.integers(0, 4, (n, 6)), np.arange(n) + 0.0
    values[0], values[1] = 9, 1
    ours = spearman(values, target, alternative="greater")
    for i, column in enumerate(values.T):
        null = [stats.spearmanr(column, order).statistic for order in permutations(target)]
        assert ours.p[i] == pytest.approx(np.mean(np.array(null) >= ours.rho[i] - 1e-9))


def test_a_perfect_order_is_no_proof():
    assert spearman([1, 2, 3, 4], [2, 4, 6, 8]).p[0] == pytest.approx(2 / 24)
    found = spearman(np.arange(9), -np.arange(9))
    assert found.rho[0] == pytest.approx(-1.0)
    assert found.p[0] == pytest.approx(2 / factorial(9))


def test_constant_columns_say_nothing():
    for n in (5, 30):
        silent = spearman(np.ones((n, 2)), np.arange(n))
        assert silent.rho.tolist() == [0.0, 0.0]
        assert silent.p.tolist() == [1.0, 1.0]
        assert spearman(np.arange(n), np.ones(n)).p.tolist() == [1.0]


def test_a_trend_is_found():
    target = RNG.normal(size=100)
    values = target[:, None] + RNG.normal(size=(100, 30))
    assert np.all(spearman(values, target).p < 1e-5)
    assert np.all(spearman(values, target, alternative="less").p > 0.9)


@pytest.mark.parametrize(
    ("kind", "call", "line"),
    [
        (DataError, lambda: spearman([], []), "spearman(values): is empty. Give at least one value."),
        (DataError, lambda: spearman([1, 2], [1, 2]), "spearman(values): has 2 rows. Give at least 3."),
        (
            DataError,
            lambda: spearman([1, 2, 3], [1, 2]),
            "spearman(target): has 2 entries for 3 rows. Give one entry a row.",
        ),
        (
            DataError,
            lambda: spearman([1, 2, 3], np.ones((3, 2))),
            "spearman(target): has 2 columns. Give one at a time.",
        ),
        (
            DataError,
            lambda: spearman([1, 2, 3], [1, 2, np.nan]),
            "spearman(target): 1 of 3 values are NaN or infinite, the first at [2]. Drop or fill those first.",
        ),
        (
            ConfigError,
            lambda: spearman([1, 2, 3], [1, 2, 3], alternative="up"),
            "spearman(alternative): 'up' is not a choice. There are: greater, less, two-sided.",
        ),
    ],
)
def test_refusals(kind, call, line):
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value) == line
