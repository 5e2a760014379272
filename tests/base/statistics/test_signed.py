from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from elute.base.errors import ConfigError, DataError
from elute.base.statistics.signed import sign_flip, signed_rank

SIDES = ("two-sided", "greater", "less")
RNG = np.random.default_rng(6)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("n", [4, 9, 13, 50])
def test_signed_rank_equals_scipy_exactly(side, n):
    values = RNG.normal(0.2, size=(n, 20))
    theirs = stats.wilcoxon(values, alternative=side, method="exact", axis=0)
    np.testing.assert_allclose(signed_rank(values, alternative=side).p, theirs.pvalue, rtol=1e-12)


@pytest.mark.parametrize("side", SIDES)
def test_signed_rank_equals_scipy_with_ties_and_zeros(side):
    values = RNG.integers(-3, 5, (60, 20)) * 1.0
    theirs = [
        stats.wilcoxon(column, alternative=side, method="asymptotic", correction=True, zero_method="wilcox")
        for column in values.T
    ]
    ours = signed_rank(values, alternative=side)
    np.testing.assert_allclose(ours.p, [found.pvalue for found in theirs], rtol=1e-12)
    assert ours.n_pairs == 60


def enumerated(scores, side):
    sums = np.array([np.dot(signs, scores) for signs in product([1, -1], repeat=len(scores))])
    above, below = (sums >= scores.sum() - 1e-9).mean(), (sums <= scores.sum() + 1e-9).mean()
    return min(1.0, {"greater": above, "less": below, "two-sided": 2 * min(above, below)}[side])


@settings(max_examples=40, deadline=None)
@given(
    hnp.arrays(np.float64, st.integers(2, 8), elements=st.sampled_from([-2.0, -1.0, -0.3, 0.0, 0.1, 1.0, 3.0])),
    st.sampled_from(SIDES),
)
def test_few_pairs_are_counted(values, side):
    assert sign_flip(values, alternative=side).p[0] == pytest.approx(enumerated(values, side))
    present = values[values != 0]
    scores = np.sign(present) * stats.rankdata(np.abs(present))
    assert signed_rank(values, alternative=side).p[0] == pytest.approx(enumerated(scores, side))


def test_sign_flip_equals_scipy():
    values = RNG.normal(0.5, size=10)
    theirs = stats.permutation_test((values,), np.mean, permutation_type="samples", n_resamples=np.inf)
    assert sign_flip(values).p[0] == pytest.approx(theirs.pvalue)
    assert sign_flip(values).statistic[0] == pytest.approx(values.mean())


def test_drawn_flips_come_near_the_counted_ones_and_never_reach_zero():
    values = RNG.normal(0.5, size=(13, 20))
    drawn = sign_flip(values, n_flips=20_000, seed=1).p
    np.testing.assert_allclose(drawn, [enumerated(column, "two-sided") for column in values.T], atol=0.012)
    sure = np.full((30, 1), 2.0) + RNG.normal(size=(30, 1)) * 0.1
    assert sign_flip(sure, n_flips=99).p[0] == pytest.approx(2 / 100)
    assert sign_flip(sure, n_flips=99, alternative="less").p[0] == 1.0


def test_a_seed_decides_the_drawn_flips():
    values = RNG.normal(size=(20, 5))
    assert sign_flip(values, n_flips=99, seed=1).p.tolist() == sign_flip(values, n_flips=99, seed=1).p.tolist()
    assert sign_flip(values, n_flips=99, seed=1).p.tolist() != sign_flip(values, n_flips=99, seed=2).p.tolist()


def test_zeros_say_nothing():
    for n in (5, 20, 70):
        assert sign_flip(np.zeros((n, 2)), n_flips=50).p.tolist() == [1.0, 1.0]
        assert signed_rank(np.zeros((n, 2))).p.tolist() == [1.0, 1.0]


def test_features_in_blocks_are_the_same(monkeypatch):
    values = RNG.normal(size=(9, 11))
    whole = sign_flip(values).p
    monkeypatch.setattr("elute.base.statistics.signed.CELLS", 1 << 10)
    np.testing.assert_array_equal(sign_flip(values).p, whole)


def test_a_shift_is_found():
    values = RNG.normal(1.5, size=(20, 40))
    for test in (sign_flip, signed_rank):
        assert np.mean(test(values).p < 0.01) == 1.0
        assert np.all(test(values, alternative="less").p > 0.9)


@pytest.mark.parametrize(
    ("kind", "call", "line"),
    [
        (DataError, lambda: sign_flip([]), "sign_flip(differences): is empty. Give at least one value."),
        (
            DataError,
            lambda: sign_flip([1.0]),
            "sign_flip(differences): has one pair. Give at least 2: one pair has no spread.",
        ),
        (
            DataError,
            lambda: signed_rank([1.0]),
            "signed_rank(differences): has one pair. Give at least 2: one pair has no spread.",
        ),
        (
            DataError,
            lambda: signed_rank([1.0, np.nan]),
            "signed_rank(differences): 1 of 2 values are NaN or infinite, the first at [1]. Drop or fill those first.",
        ),
        (
            ConfigError,
            lambda: sign_flip([1.0, 2.0], n_flips=0),
            "sign_flip(n_flips): 0 is not a whole number of at least 1. Give 1 or more.",
        ),
        (
            ConfigError,
            lambda: sign_flip([1.0, 2.0], seed=-3),
            "sign_flip(seed): -3 is not a whole number of at least 0. Give 0 or more.",
        ),
        (
            ConfigError,
            lambda: signed_rank([1.0, 2.0], method="norm"),
            "signed_rank(method): 'norm' is not a choice. Did you mean 'normal'?",
        ),
        (
            ConfigError,
            lambda: signed_rank([1.0, 2.0], alternative="x"),
            "signed_rank(alternative): 'x' is not a choice. There are: greater, less, two-sided.",
        ),
    ],
)
def test_refusals(kind, call, line):
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value) == line
