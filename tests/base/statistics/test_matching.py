from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from elute.base.errors import ConfigError, DataError
from elute.base.statistics.matching import ShortStratum, matched_controls
from elute.base.statistics.nulls import empirical_p


def bins_of(covariates, n_bins):
    """Which quantile bin of which covariate each row lies in, by scipy's ranks."""
    return np.floor((stats.rankdata(covariates, axis=0) - 0.5) / len(covariates) * n_bins).astype(int)


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.tuples(st.integers(1, 5), st.integers(1, 2)), st.sampled_from(["all", "others"]))
def test_each_control_lies_in_its_item_s_stratum(seed, grid_shape, pool):
    n_bins, n_covariates = grid_shape
    rng = np.random.default_rng(seed)
    covariates = rng.integers(0, 30, (300, n_covariates)) * 1.0
    items = rng.choice(300, 12, replace=False)
    found = matched_controls(items, covariates, n_draws=20, n_bins=n_bins, pool=pool, too_few="fill", seed=seed)
    grid = bins_of(covariates, n_bins)
    for draw in found.draws:
        assert len(set(draw)) == len(items)
        if not found.short:
            np.testing.assert_array_equal(grid[draw], grid[items])
    if pool == "others":
        assert not np.isin(found.draws, items).any()


def test_every_candidate_is_drawn_as_often():
    covariates = np.arange(40.0)
    items = [0, 3, 35]
    found = matched_controls(items, covariates, n_draws=6000, n_bins=2, seed=1)
    low = np.bincount(found.draws[:, :2].ravel(), minlength=40)[:20]
    assert stats.chisquare(low).pvalue > 1e-3
    first = np.bincount(found.draws[:, 0], minlength=40)[:20]
    assert stats.chisquare(first).pvalue > 1e-3
    others = matched_controls(items, covariates, n_draws=6000, n_bins=2, pool="others", seed=1)
    counts = np.bincount(others.draws[:, :2].ravel(), minlength=40)[:20]
    assert counts[[0, 3]].tolist() == [0, 0]
    assert stats.chisquare(np.delete(counts, [0, 3])).pvalue > 1e-3


def test_excluded_rows_are_never_drawn():
    rng = np.random.default_rng(0)
    covariates = rng.normal(size=(200, 2))
    for method in ("bins", "nearest"):
        found = matched_controls(
            [1, 2, 3], covariates, method=method, n_bins=2, n_draws=200, excluded=[5, 6, 7], seed=0
        )
        assert not np.isin(found.draws, [5, 6, 7]).any()
    assert len(np.unique(found.draws)) > 50


def test_a_short_stratum_is_refused_named_or_filled_from_the_nearest():
    covariates = np.arange(100.0)
    items = np.arange(92, 100)  # eight of the ten rows of the last bin
    with pytest.raises(DataError) as caught:
        matched_controls(items, covariates, seed=0)
    assert str(caught.value) == (
        "matched_controls: 1 strata have too few candidates, the first being bins (9,) with 2 for 8 items."
        " Use fewer n_bins, or too_few='fill'."
    )
    filled = matched_controls(items, covariates, too_few="fill", pool="others", neighbours=8, n_draws=50, seed=0)
    assert filled.short == (ShortStratum(bins=(9,), n_items=8, n_candidates=2),)
    assert set(filled.draws.ravel().tolist()) == set(range(84, 92))
    assert filled.imbalance[0] == pytest.approx((95.5 - 87.5) / 100)
    exchanged = matched_controls(items, covariates, too_few="fill", n_draws=50, seed=0)
    assert set(exchanged.draws.ravel().tolist()) == set(range(90, 100))


def test_nearest_controls_are_near_in_every_covariate():
    rng = np.random.default_rng(2)
    covariates = rng.lognormal(size=(1000, 2)) * [1.0, 1e6]
    items = np.argsort(covariates[:, 0])[600:640]
    near = matched_controls(items, covariates, method="nearest", neighbours=15, n_draws=100, seed=0)
    scores = stats.rankdata(covariates, axis=0) / 1000
    assert np.abs(scores[near.draws] - scores[items]).max() < 0.12
    assert np.abs(near.imbalance).max() < 0.01
    assert near.short == ()
    assert len({tuple(draw) for draw in near.draws.tolist()}) == 100


def test_a_covariate_that_explains_all_is_matched_away_and_a_real_effect_stays():
    rng = np.random.default_rng(3)
    expression = rng.normal(size=2000)
    items = np.flatnonzero(expression + rng.normal(size=2000) > 2.0)[:40]
    score = expression[:, None] + rng.normal(size=(2000, 2))
    score[items, 1] += 1.0
    drawn = matched_controls(items, expression, n_draws=499, n_bins=50, too_few="fill", seed=0)
    p = empirical_p(score[items].mean(axis=0), score[drawn.draws].mean(axis=1))
    assert p[0] > 0.05
    assert p[1] == pytest.approx(1 / 500)
    unmatched = score[rng.integers(0, 2000, (499, 40))].mean(axis=1)
    assert empirical_p(score[items].mean(axis=0), unmatched).tolist() == [1 / 500, 1 / 500]


def test_a_seed_decides():
    covariates = np.random.default_rng(0).normal(size=(100, 1))
    for method in ("bins", "nearest"):
        draws = [
            matched_controls([1, 2], covariates, n_draws=5, method=method, n_bins=4, seed=seed).draws.tolist()
            for seed in (1, 1, 2)
        ]
        assert draws[0] == draws[1] != draws[2]


TEN = np.arange(10.0)


@pytest.mark.parametrize(
    ("kind", "call", "line"),
    [
        (
            DataError,
            lambda: matched_controls([], TEN, seed=0),
            "matched_controls(items): is empty. Give at least one row.",
        ),
        (
            DataError,
            lambda: matched_controls([0.5], TEN, seed=0),
            "matched_controls(items): holds float64 of shape (1,). Give row numbers.",
        ),
        (
            DataError,
            lambda: matched_controls([10], TEN, seed=0),
            "matched_controls(items): names row 10. Rows go from 0 to 9.",
        ),
        (
            DataError,
            lambda: matched_controls([-1], TEN, seed=0),
            "matched_controls(items): names row -1. Rows go from 0 to 9.",
        ),
        (
            DataError,
            lambda: matched_controls([1, 1], TEN, seed=0),
            "matched_controls(items): names a row twice. Give each once.",
        ),
        (
            DataError,
            lambda: matched_controls([1], TEN, excluded=[11], seed=0),
            "matched_controls(excluded): names row 11. Rows go from 0 to 9.",
        ),
        (
            DataError,
            lambda: matched_controls(np.arange(6), TEN, seed=0),
            "matched_controls: 6 items and 4 other rows. Give more rows to draw from.",
        ),
        (
            DataError,
            lambda: matched_controls([0], [np.nan, 1.0], seed=0),
            "matched_controls(covariates): 1 of 2 values are NaN or infinite, the first at [0]. Drop or fill those first.",
        ),
        (
            DataError,
            lambda: matched_controls([0, 1], TEN, method="nearest", neighbours=1, pool="others", n_draws=3, seed=0),
            "matched_controls: item 0 has none of its 1 nearest candidates left in 3 draws. Raise neighbours, or give more rows to draw from.",
        ),
        (
            ConfigError,
            lambda: matched_controls([0], TEN, n_bins=0, seed=0),
            "matched_controls(n_bins): 0 is not a whole number of at least 1. Give 1 or more.",
        ),
        (
            ConfigError,
            lambda: matched_controls([0], TEN, method="bin", seed=0),
            "matched_controls(method): 'bin' is not a choice. Did you mean 'bins'?",
        ),
        (
            ConfigError,
            lambda: matched_controls([0], TEN, pool="other", seed=0),
            "matched_controls(pool): 'other' is not a choice. Did you mean 'others'?",
        ),
        (
            ConfigError,
            lambda: matched_controls([0], TEN, too_few="fil", seed=0),
            "matched_controls(too_few): 'fil' is not a choice. Did you mean 'fill'?",
        ),
    ],
)
def test_refusals(kind, call, line):
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value) == line
