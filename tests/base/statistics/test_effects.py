from __future__ import annotations

import numpy as np
import pytest
from scipy import sparse, stats

from elute.base.errors import ConfigError, DataError
from elute.base.statistics.effects import (
    between_groups,
    group_differences,
    hedges_factor,
    paired_effects,
    pseudobulk,
)

RNG = np.random.default_rng(9)


def test_pseudobulk_by_hand():
    values = [[1.0, 10.0], [3.0, 30.0], [5.0, 50.0]]
    found = pseudobulk(values, ["b", "a", "b"])
    assert found.groups == ("a", "b")
    assert found.values.tolist() == [[3.0, 30.0], [3.0, 30.0]]
    assert found.n_rows.tolist() == [1, 2]
    assert pseudobulk(values, ["b", "a", "b"], how="sum").values.tolist() == [[3.0, 30.0], [6.0, 60.0]]


def test_sparse_profiles_are_the_dense_ones():
    values = RNG.integers(0, 2, (50, 7)) * RNG.normal(size=(50, 7))
    groups, mask = RNG.integers(0, 5, 50), RNG.random(50) < 0.5
    for thin in (sparse.csr_array(values), sparse.csc_array(values)):
        np.testing.assert_allclose(pseudobulk(thin, groups).values, pseudobulk(values, groups).values)
        ours, dense = group_differences(thin, mask, groups), group_differences(values, mask, groups)
        np.testing.assert_allclose(ours.values, dense.values)
    assert pseudobulk(sparse.csr_array((3, 2)), [0, 1, 1]).values.tolist() == [[0.0, 0.0], [0.0, 0.0]]


def test_group_differences_by_hand():
    values = [1.0, 3.0, 10.0, 20.0, 7.0, 8.0]
    mask = [True, False, True, False, True, True]
    found = group_differences(values, mask, ["x", "x", "y", "y", "z", "z"])
    assert found.groups == ("x", "y")
    assert found.values.tolist() == [[-2.0], [-10.0]]
    assert found.n_inside.tolist() == [1, 1]
    assert found.n_outside.tolist() == [1, 1]
    assert found.left_out == ("z",)


def test_rows_come_in_any_order():
    values, mask, groups = RNG.normal(size=(40, 3)), np.arange(40) % 3 == 0, RNG.integers(0, 5, 40)
    order = RNG.permutation(40)
    first = group_differences(values, mask, groups)
    second = group_differences(values[order], mask[order], groups[order])
    np.testing.assert_allclose(first.values, second.values)
    assert first.groups == second.groups


def test_paired_t_equals_scipy():
    first, second = RNG.normal(size=(9, 30)), RNG.normal(0.3, size=(9, 30))
    found, theirs = paired_effects(first - second), stats.ttest_rel(first, second)
    np.testing.assert_allclose(found.p, theirs.pvalue, rtol=1e-11)
    interval = theirs.confidence_interval(0.95)
    np.testing.assert_allclose(found.low, interval.low, rtol=1e-11)
    np.testing.assert_allclose(found.high, interval.high, rtol=1e-11)
    np.testing.assert_allclose(found.d, found.mean / (first - second).std(axis=0, ddof=1))
    assert found.n == 9


def test_welch_equals_scipy():
    profiles, mask = RNG.normal(size=(14, 30)), np.arange(14) < 5
    profiles[mask] *= 3
    found, theirs = between_groups(profiles, mask), stats.ttest_ind(profiles[mask], profiles[~mask], equal_var=False)
    np.testing.assert_allclose(found.p, theirs.pvalue, rtol=1e-11)
    interval = theirs.confidence_interval(0.95)
    np.testing.assert_allclose(found.low, interval.low, rtol=1e-10)
    np.testing.assert_allclose(found.high, interval.high, rtol=1e-10)
    pooled = np.sqrt((4 * profiles[mask].var(axis=0, ddof=1) + 8 * profiles[~mask].var(axis=0, ddof=1)) / 12)
    np.testing.assert_allclose(found.d, found.mean / pooled)
    np.testing.assert_allclose(found.g, found.d * hedges_factor(12))


def test_hedges_factor_follows_its_approximation_and_removes_the_bias():
    df = np.array([5, 10, 40, 1e5])
    np.testing.assert_allclose(hedges_factor(df), 1 - 3 / (4 * df - 1), atol=2e-3)
    assert hedges_factor(1) == 0.0
    profiles = RNG.normal(size=(8, 40_000))
    mask = np.arange(8) < 4
    profiles[mask] += 1.0
    found = between_groups(profiles, mask)
    assert found.g.mean() == pytest.approx(1.0, abs=0.03)
    assert found.d.mean() > 1.1


def test_the_other_paired_tests_are_those_of_signed():
    differences = RNG.normal(0.4, size=(7, 5))
    rank = paired_effects(differences, test="signed-rank")
    np.testing.assert_allclose(rank.p, stats.wilcoxon(differences, method="exact").pvalue)
    flip = paired_effects(differences, test="sign-flip")
    for i, column in enumerate(differences.T):
        theirs = stats.permutation_test((column,), np.mean, permutation_type="samples", n_resamples=np.inf)
        assert flip.p[i] == pytest.approx(theirs.pvalue)
    np.testing.assert_array_equal(rank.low, paired_effects(differences).low)


def test_without_spread_no_p_is_zero():
    found = paired_effects(np.array([[0.0, 0.1, 1.0]] * 5))
    assert found.p.tolist() == [1.0, 2 / 32, 2 / 32]
    assert found.d.tolist() == found.g.tolist() == [0.0, np.inf, np.inf]
    assert found.low.tolist() == found.high.tolist() == [0.0, 0.1, 1.0]
    profiles = np.array([[0.1, 3.0]] * 3 + [[0.1, 4.0]] * 4)
    apart = between_groups(profiles, np.arange(7) < 3)
    np.testing.assert_allclose(apart.p, [1.0, 2 / 35])
    assert apart.mean.tolist() == [0.0, -1.0]
    assert apart.d.tolist() == apart.g.tolist() == [0.0, -np.inf]


def test_one_flat_side_still_has_a_test():
    profiles = np.array([2.0, 2.0, 2.0, 3.0, 4.0, 5.0])
    mask = np.arange(6) < 3
    expected = stats.ttest_1samp(profiles[3:], 2.0).pvalue
    assert between_groups(profiles, mask).p[0] == pytest.approx(expected)


def test_intervals_cover_and_would_not_if_narrowed():
    differences = RNG.normal(0.7, size=(6, 4000))

    def coverage(level):
        found = paired_effects(differences, level=level)
        return np.mean((found.low <= 0.7) & (found.high >= 0.7))

    assert coverage(0.95) == pytest.approx(0.95, abs=0.012)  # 3.5 standard errors of 4,000 draws
    assert coverage(0.8) == pytest.approx(0.8, abs=0.023)


def test_an_effect_is_found_across_donors():
    donors = np.repeat(np.arange(8), 30)
    values = RNG.normal(size=(8, 20))[donors] * 2 + RNG.normal(size=(240, 20))
    mask = np.arange(240) % 2 == 0
    values[mask] += 1.0
    for test in ("t", "sign-flip", "signed-rank"):
        found = paired_effects(group_differences(values, mask, donors).values, test=test)
        assert np.all(found.p < 0.01)
        assert np.all((found.low < 1.0) | (found.high > 1.0))
        assert found.mean.mean() == pytest.approx(1.0, abs=0.1)
    profiles = pseudobulk(RNG.normal(size=(400, 20)), np.arange(400) // 20).values
    profiles[:10] += 1.0
    assert np.all(between_groups(profiles, np.arange(20) < 10).p < 1e-4)


@pytest.mark.parametrize(
    ("kind", "call", "line"),
    [
        (DataError, lambda: pseudobulk([], []), "pseudobulk(values): is empty. Give at least one value."),
        (
            DataError,
            lambda: pseudobulk(sparse.csr_array((0, 3)), []),
            "pseudobulk(values): is empty. Give at least one row and one feature.",
        ),
        (
            DataError,
            lambda: pseudobulk(sparse.csr_array([[np.nan, 1.0]]), ["a"]),
            "pseudobulk(values): 1 of 2 values are NaN or infinite, the first at [0]. Drop or fill those first.",
        ),
        (
            DataError,
            lambda: pseudobulk([1.0, 2.0], ["a"]),
            "pseudobulk(groups): has 1 entries for 2 rows. Give one entry a row.",
        ),
        (
            ConfigError,
            lambda: pseudobulk([1.0], ["a"], how="median"),
            "pseudobulk(how): 'median' is not a choice. Did you mean 'mean'?",
        ),
        (
            DataError,
            lambda: group_differences([1.0, 2.0], [True, False], ["a", "b"]),
            "group_differences(groups): none of 2 groups has 1 rows on both sides of the mask. Compare between groups with between_groups instead.",
        ),
        (
            DataError,
            lambda: group_differences([1.0, 2.0], [[True, False], [False, True]], ["a", "a"]),
            "group_differences(mask): holds 2 masks. Give one at a time.",
        ),
        (
            ConfigError,
            lambda: group_differences([1.0, 2.0], [True, False], ["a", "a"], min_rows=0),
            "group_differences(min_rows): 0 is not a whole number of at least 1. Give 1 or more.",
        ),
        (
            DataError,
            lambda: paired_effects([[1.0, 2.0]]),
            "paired_effects(differences): one group only. Give at least 2 groups.",
        ),
        (
            ConfigError,
            lambda: paired_effects([1.0, 2.0], test="z"),
            "paired_effects(test): 'z' is not a choice. There are: sign-flip, signed-rank, t.",
        ),
        (
            ConfigError,
            lambda: paired_effects([1.0, 2.0], level=0),
            "paired_effects(level): 0 is not between 0 and 1. Give, say, 0.95.",
        ),
        (
            DataError,
            lambda: between_groups([1.0, 2.0, 3.0], [True, False, False]),
            "between_groups(mask): 1 groups inside and 2 outside. Give 2 or more a side.",
        ),
        (DataError, lambda: hedges_factor(0), "hedges_factor(df): is not above 0. Give degrees of freedom."),
    ],
)
def test_refusals(kind, call, line):
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value) == line
