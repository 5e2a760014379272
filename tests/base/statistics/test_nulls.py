from __future__ import annotations

from itertools import permutations, product

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from elute.base.errors import ConfigError, DataError
from elute.base.statistics.nulls import bootstrap_groups, empirical_p, permutation_test, permuted_labels

RNG = np.random.default_rng(10)


@pytest.mark.parametrize("interval", ["percentile", "basic", "bca"])
def test_one_row_a_group_is_the_bootstrap_of_scipy(interval):
    values = np.random.default_rng(5).exponential(size=25)
    ours = bootstrap_groups(
        lambda rows: values[rows].mean(), np.arange(25), n_resamples=6000, interval=interval, seed=1
    )
    method = "BCa" if interval == "bca" else interval
    theirs = stats.bootstrap((values,), np.mean, n_resamples=6000, method=method, rng=np.random.default_rng(0))
    spread = values.std() / 5
    assert ours.estimate[0] == pytest.approx(values.mean())
    # Both draw 6,000 resamples; their ends differ by what that leaves open.
    assert ours.low[0] == pytest.approx(theirs.confidence_interval.low, abs=0.25 * spread)
    assert ours.high[0] == pytest.approx(theirs.confidence_interval.high, abs=0.25 * spread)
    assert ours.replicates.std(ddof=1) == pytest.approx(theirs.standard_error, rel=0.05)


def test_intervals_are_their_formulas():
    values = np.random.default_rng(6).exponential(size=(12, 3))
    found = {
        interval: bootstrap_groups(
            lambda rows: values[rows].mean(axis=0), np.arange(12), n_resamples=500, interval=interval, level=0.9, seed=2
        )
        for interval in ("percentile", "basic", "bca")
    }
    drawn, seen = found["bca"].replicates, values.mean(axis=0)
    low, high = np.quantile(drawn, 0.05, axis=0), np.quantile(drawn, 0.95, axis=0)
    np.testing.assert_allclose([found["percentile"].low, found["percentile"].high], [low, high])
    np.testing.assert_allclose([found["basic"].low, found["basic"].high], [2 * seen - high, 2 * seen - low])
    left_out = np.array([np.delete(values, i, axis=0).mean(axis=0) for i in range(12)])
    for i in range(3):
        bias = stats.norm.ppf((drawn[:, i] < seen[i]).mean())
        away = left_out[:, i].mean() - left_out[:, i]
        skew = (away**3).sum() / (6 * (away**2).sum() ** 1.5)
        ends = [stats.norm.cdf(bias + (bias + z) / (1 - skew * (bias + z))) for z in stats.norm.ppf([0.05, 0.95])]
        np.testing.assert_allclose([found["bca"].low[i], found["bca"].high[i]], np.quantile(drawn[:, i], ends))


def test_whole_groups_are_drawn():
    groups = ["b", "a", "c", "a", "b", "b"]
    rows_of = {"a": [1, 3], "b": [0, 4, 5], "c": [2]}
    seen = []

    def statistic(rows):
        counts = np.bincount(rows, minlength=6)
        for members in rows_of.values():
            assert len(set(counts[members])) == 1
        seen.append(sum(counts[members[0]] for members in rows_of.values()))
        return float(len(rows))

    found = bootstrap_groups(statistic, groups, n_resamples=50, seed=0)
    assert set(seen) == {3}
    assert found.n_groups == 3
    assert found.estimate.tolist() == [6.0]


def test_ignoring_the_groups_gives_too_narrow_an_interval():
    rng = np.random.default_rng(0)
    covered = {"groups": 0, "rows": 0}
    donors = np.repeat(np.arange(15), 20)
    for seed in range(60):
        values = rng.normal(size=15)[donors] + 0.5 * rng.normal(size=300)
        for name, units in (("groups", donors), ("rows", np.arange(300))):
            found = bootstrap_groups(lambda rows, x=values: x[rows].mean(), units, n_resamples=100, seed=seed)
            covered[name] += bool(found.low[0] <= 0.0 <= found.high[0])
    assert covered["groups"] >= 51  # 15 groups: percentile intervals cover a little less than 95
    assert covered["rows"] <= 30


def test_bca_covers_a_skewed_mean_better():
    rng = np.random.default_rng(1)
    missed_above = {"percentile": 0, "bca": 0}
    for seed in range(70):
        values = rng.lognormal(0.0, 1.0, 20)
        for interval in missed_above:
            found = bootstrap_groups(
                lambda rows, x=values: x[rows].mean(), np.arange(20), n_resamples=150, interval=interval, seed=seed
            )
            missed_above[interval] += bool(found.high[0] < np.exp(0.5))
    assert missed_above["bca"] < missed_above["percentile"]


def test_many_statistics_at_once_and_a_constant_one():
    values = np.column_stack([RNG.normal(size=30), np.full(30, 2.0)])
    for interval in ("percentile", "basic", "bca"):
        found = bootstrap_groups(
            lambda rows: values[rows].mean(axis=0), np.arange(30) // 3, n_resamples=99, interval=interval, seed=3
        )
        assert found.replicates.shape == (99, 2)
        assert found.low[0] < found.estimate[0] < found.high[0]
        np.testing.assert_allclose([found.low[1], found.high[1]], 2.0)


def test_the_bootstrap_is_the_same_for_any_order_of_rows():
    values, groups = RNG.normal(size=40), RNG.integers(0, 8, 40)
    order = RNG.permutation(40)

    def low(x, g, seed):
        return bootstrap_groups(lambda rows: x[rows].mean(), g, n_resamples=50, seed=seed).low[0]

    assert low(values, groups, 1) == pytest.approx(low(values[order], groups[order], 1), rel=1e-12)
    assert low(values, groups, 1) != low(values, groups, 2)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("xyz")), min_size=2, max_size=30))
def test_labels_stay_in_their_group(rows):
    groups, labels = [row[0] for row in rows], [row[1] for row in rows]
    if len(set(rows)) == len(set(groups)):
        with pytest.raises(DataError, match="nothing can be shuffled"):
            permuted_labels(labels, groups, n_permutations=1, seed=0)
        return
    for shuffled in permuted_labels(labels, groups, n_permutations=5, seed=0):
        assert sorted(zip(groups, shuffled, strict=True)) == sorted(rows)


def test_every_order_within_groups_is_as_likely():
    labels, groups = np.array([0, 1, 2, 3, 4]), ["a", "b", "a", "a", "b"]
    drawn = [tuple(x) for x in permuted_labels(labels, groups, n_permutations=3000, seed=0)]
    possible = [(a[0], b[0], a[1], a[2], b[1]) for a, b in product(permutations([0, 2, 3]), permutations([1, 4]))]
    counts = np.array([drawn.count(order) for order in possible])
    assert counts.sum() == 3000
    assert stats.chisquare(counts).pvalue > 1e-3


def test_empirical_p_adds_one():
    null = np.array([1.0, 2.0, 3.0, 4.0])
    assert empirical_p(3.0, null).tolist() == [3 / 5]
    assert empirical_p(9.0, null).tolist() == [1 / 5]
    assert empirical_p(1.0, null, alternative="less").tolist() == [2 / 5]
    assert empirical_p(9.0, null, alternative="two-sided").tolist() == [2 / 5]
    assert empirical_p(2.5, null, alternative="two-sided").tolist() == [1.0]
    assert empirical_p([9.0, 0.0], np.column_stack([null, null])).tolist() == [1 / 5, 1.0]


def test_permutation_p_comes_near_all_permutations():
    values, groups = np.array([1.2, 0.3, 2.2, 4.1, 3.0, 2.9, 1.1, 0.2]), np.repeat([0, 1], 4)
    labels = np.array([True, True, False, False, True, False, True, False])

    def statistic(inside):
        return values[inside].sum()

    seen = statistic(labels)
    every = [
        statistic(np.array(first + second))
        for first, second in product(set(permutations(labels[:4].tolist())), set(permutations(labels[4:].tolist())))
    ]
    found = permutation_test(statistic, labels, groups, n_permutations=4000, alternative="less", seed=0)
    assert found.p[0] == pytest.approx(np.mean(np.array(every) <= seen + 1e-9), abs=0.03)
    assert found.null_mean[0] == pytest.approx(np.mean(every), abs=0.05)
    assert found.null_sd[0] == pytest.approx(np.std(every), rel=0.05)
    assert found.observed.tolist() == [seen]


def test_a_shuffle_within_donors_is_not_fooled_by_donors_and_finds_effects():
    donors = np.repeat(np.arange(6), 20)
    level = np.arange(6)[donors] * 3.0
    labels = RNG.random(120) < 0.1 + 0.15 * donors  # more frequent in the donors with high levels
    noise = RNG.normal(size=(120, 2))
    values = np.column_stack([level, level + 2.0 * labels]) + noise

    def difference(inside):
        return values[inside].mean(axis=0) - values[~inside].mean(axis=0)

    within = permutation_test(difference, labels, donors, n_permutations=199, seed=0)
    across = permutation_test(difference, labels, np.zeros(120, dtype=int), n_permutations=199, seed=0)
    assert within.p[0] > 0.05
    assert within.p[1] == pytest.approx(2 / 200)
    assert across.p.tolist() == [2 / 200, 2 / 200]


def test_labels_may_be_text():
    found = permutation_test(
        lambda kinds: float(np.flatnonzero(kinds == "x").sum()), ["x", "y"] * 10, ["d"] * 20, n_permutations=99, seed=0
    )
    assert 0.0 < found.p[0] <= 1.0


@pytest.mark.parametrize(
    ("kind", "call", "line"),
    [
        (
            DataError,
            lambda: bootstrap_groups(len, ["a", "a"], seed=0),
            "bootstrap_groups(groups): one group only. Give at least 2 groups.",
        ),
        (
            DataError,
            lambda: bootstrap_groups(len, [], seed=0),
            "bootstrap_groups(groups): is empty. Give one name a row.",
        ),
        (
            DataError,
            lambda: bootstrap_groups(lambda _: np.nan, [0, 1], seed=0),
            "bootstrap_groups(statistic): 1 of 1 values are NaN or infinite, the first at [0]. Drop or fill those first.",
        ),
        (
            DataError,
            lambda: bootstrap_groups(lambda _: np.ones((2, 2)), [0, 1], seed=0),
            "bootstrap_groups(statistic): gave shape (2, 2). Return the same numbers each time.",
        ),
        (
            DataError,
            lambda: bootstrap_groups(np.unique, [0, 1], seed=0),
            "bootstrap_groups(statistic): gave shape (1,) after (2,). Return the same numbers each time.",
        ),
        (
            ConfigError,
            lambda: bootstrap_groups(len, [0, 1], interval="bc", seed=0),
            "bootstrap_groups(interval): 'bc' is not a choice. Did you mean 'bca' or 'basic'?",
        ),
        (
            ConfigError,
            lambda: bootstrap_groups(len, [0, 1], n_resamples=1, seed=0),
            "bootstrap_groups(n_resamples): 1 is not a whole number of at least 2. Give 2 or more.",
        ),
        (
            DataError,
            lambda: permutation_test(np.sum, ["x", "y"], ["a", "b"], seed=0),
            "permuted_labels(labels): none of 2 groups has two labels, so nothing can be shuffled. Compare between groups with between_groups instead.",
        ),
        (
            DataError,
            lambda: permuted_labels(["x"], ["a", "b"], n_permutations=1, seed=0),
            "permuted_labels(labels): has 1 entries for 2 rows. Give one entry a row.",
        ),
        (
            DataError,
            lambda: empirical_p([1.0, 2.0], [1.0, 2.0]),
            "empirical_p(null): has 1 columns for 2 observed numbers. Give one column for each.",
        ),
        (DataError, lambda: empirical_p(1.0, []), "empirical_p(null): is empty. Give at least one value."),
        (
            DataError,
            lambda: empirical_p(1.0, [np.nan]),
            "empirical_p(null): 1 of 1 values are NaN or infinite, the first at [0]. Drop or fill those first.",
        ),
    ],
)
def test_refusals(kind, call, line):
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value) == line
