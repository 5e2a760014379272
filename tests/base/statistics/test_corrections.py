from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from elute.base.errors import ConfigError, DataError
from elute.base.statistics.corrections import (
    CORRECTIONS,
    benjamini_hochberg,
    benjamini_yekutieli,
    bonferroni,
    correct,
    holm,
    storey,
)

p_values = hnp.arrays(np.float64, st.integers(1, 60), elements=st.floats(0, 1, allow_subnormal=False))


@settings(max_examples=40, deadline=None)
@given(p_values)
def test_equals_scipy(p):
    np.testing.assert_allclose(benjamini_hochberg(p), stats.false_discovery_control(p), rtol=1e-12)
    np.testing.assert_allclose(benjamini_yekutieli(p), stats.false_discovery_control(p, method="by"), rtol=1e-12)


@settings(max_examples=40, deadline=None)
@given(p_values, st.integers(0, 50))
def test_tests_not_shown_count_with_p_1(p, hidden):
    padded = np.append(p, np.ones(hidden))
    for name in CORRECTIONS:
        if name == "storey":
            continue
        shown = correct(p, name, n_tests=len(padded))
        np.testing.assert_allclose(shown, correct(padded, name)[: len(p)], rtol=1e-12, err_msg=name)


def test_storey_counts_tests_not_shown():
    p = np.random.default_rng(0).random(300) ** 3
    shown, padded = storey(p, n_tests=900), storey(np.append(p, np.ones(600)))
    assert shown.pi0 == padded.pi0
    assert shown.pi0 > storey(p).pi0 + 0.2
    np.testing.assert_allclose(shown.q, padded.q[:300])


@settings(max_examples=40, deadline=None)
@given(p_values, st.randoms(use_true_random=False))
def test_order_is_kept_and_does_not_matter(p, random):
    order = list(range(len(p)))
    random.shuffle(order)
    for name in CORRECTIONS:
        q = correct(p, name)
        assert np.all((q >= p - 1e-15) & (q <= 1.0)), name
        assert np.all(np.diff(q[np.argsort(p)]) >= 0), name
        np.testing.assert_array_equal(correct(p[order], name), q[order])


def test_by_hand():
    p = [0.01, 0.04, 0.03, 0.5]
    np.testing.assert_allclose(benjamini_hochberg(p), [0.04, 0.16 / 3, 0.16 / 3, 0.5])
    np.testing.assert_allclose(holm(p), [0.04, 0.09, 0.09, 0.5])
    np.testing.assert_allclose(bonferroni(p), [0.04, 0.16, 0.12, 1.0])
    np.testing.assert_allclose(benjamini_yekutieli(p, n_tests=8)[0], 0.01 * 8 * sum(1 / i for i in range(1, 9)))


def test_holm_by_its_definition():
    p = np.random.default_rng(1).random(40) ** 3
    for i in range(40):
        steps = [(np.sum(p >= smaller)) * smaller for smaller in p if smaller <= p[i]]
        assert holm(p)[i] == pytest.approx(min(1.0, max(steps)))


def test_storey_estimates_the_share_of_true_nulls():
    rng = np.random.default_rng(2)
    for share in (0.3, 0.6, 0.9):
        p = np.where(rng.random(5000) < share, rng.random(5000), rng.random(5000) * 1e-4)
        found = storey(p)
        assert found.pi0 == pytest.approx(share, abs=0.05)
        assert 0.05 <= found.lam <= 0.95
        np.testing.assert_allclose(found.q, np.minimum(benjamini_hochberg(p) * found.pi0, 1.0), rtol=1e-9)


def test_storey_has_the_least_error_of_a_real_bootstrap():
    rng = np.random.default_rng(3)
    p = np.append(rng.random(300), rng.random(100) * 0.01)
    lam = np.arange(0.05, 0.96, 0.05)

    def estimate(sample):
        return (np.array([(sample > x).sum() for x in lam]) + 1) / (len(sample) * (1 - lam))

    goal = np.quantile(estimate(p), 0.1)
    errors = np.mean([(estimate(rng.choice(p, len(p))) - goal) ** 2 for _ in range(300)], axis=0)
    found = storey(p)
    # The closed form has the variance about the estimate, the drawn errors the noise of 300 resamples.
    assert errors[np.argmin(np.abs(lam - found.lam))] <= 1.15 * errors.min()


def test_few_p_values_are_not_estimated_from():
    p = np.full(99, 0.001)
    found = storey(p)
    assert found.pi0 == 1.0
    assert np.isnan(found.lam)
    np.testing.assert_array_equal(found.q, benjamini_hochberg(p))
    assert storey(np.full(100, 0.001)).pi0 < 0.5


def test_missing_p_values_leave_the_family_when_told_to():
    p = np.array([[0.01, np.nan], [0.04, 0.5]])
    for name in CORRECTIONS:
        q = correct(p, name, missing="carry")
        assert np.isnan(q).tolist() == [[False, True], [False, False]]
        np.testing.assert_array_equal(q[~np.isnan(q)], correct([0.01, 0.04, 0.5], name))
    assert np.isnan(benjamini_hochberg([np.nan], missing="carry")).all()


@pytest.mark.parametrize("dependent", [False, True])
def test_the_false_discovery_rate_is_held_and_effects_are_found(dependent):
    rng = np.random.default_rng(7)
    rates: dict[str, list[float]] = {name: [] for name in CORRECTIONS}
    power: dict[str, list[float]] = {name: [] for name in CORRECTIONS}
    for _ in range(200):
        shared = rng.normal() if dependent else 0.0
        z = (rng.normal(size=200) + shared) / (2.0**0.5 if dependent else 1.0)
        z[:40] += 4.5
        p = stats.norm.sf(z)
        for name in CORRECTIONS:
            found = correct(p, name) < 0.05
            rates[name].append(found[40:].sum() / max(found.sum(), 1))
            power[name].append(found[:40].mean())
    for name in CORRECTIONS:
        if dependent and name == "storey":
            continue  # its guarantee is for independent tests
        # 3.5 standard errors of the mean over 200 draws.
        assert np.mean(rates[name]) <= 0.05 + 3.5 * np.std(rates[name]) / 200**0.5, name
        assert np.mean(power[name]) > 0.7, name
    assert np.mean(power["storey"]) >= np.mean(power["benjamini-hochberg"]) >= np.mean(power["holm"])


def test_uncorrected_p_values_would_break_it():
    rng = np.random.default_rng(8)
    any_found = dict.fromkeys((*CORRECTIONS, "none"), 0)
    for _ in range(200):
        p = rng.random(150)
        any_found["none"] += p.min() < 0.05
        for name in CORRECTIONS:
            any_found[name] += correct(p, name).min() < 0.05
    assert any_found.pop("none") == 200
    assert max(any_found.values()) <= 16
    assert min(any_found[name] for name in ("benjamini-hochberg", "holm", "storey")) >= 3


@pytest.mark.parametrize(
    ("kind", "call", "line"),
    [
        (DataError, lambda: benjamini_hochberg([]), "benjamini_hochberg(p): is empty. Give at least one p-value."),
        (
            DataError,
            lambda: benjamini_hochberg(["a"]),
            "benjamini_hochberg(p): is not an array of numbers. Give p-values.",
        ),
        (DataError, lambda: holm([0.5, 1.5]), "holm(p): holds 1.5. A p-value lies between 0 and 1."),
        (DataError, lambda: storey([-0.1, 0.5]), "storey(p): holds -0.1. A p-value lies between 0 and 1."),
        (DataError, lambda: bonferroni([0.1, np.inf]), "bonferroni(p): holds inf. A p-value lies between 0 and 1."),
        (
            DataError,
            lambda: benjamini_yekutieli([0.1, np.nan]),
            "benjamini_yekutieli(p): 1 of 2 p-values are NaN. Drop them, or pass missing='carry' to leave them out of the family.",
        ),
        (
            ConfigError,
            lambda: benjamini_hochberg([0.1, 0.2], n_tests=1),
            "benjamini_hochberg(n_tests): 1 tests are fewer than the 2 p-values. Count every test made.",
        ),
        (
            ConfigError,
            lambda: holm([0.1], n_tests=0),
            "holm(n_tests): 0 is not a whole number of at least 1. Give 1 or more.",
        ),
        (
            ConfigError,
            lambda: holm([0.1], missing="drop"),
            "holm(missing): 'drop' is not a choice. There are: carry, refuse.",
        ),
        (
            ConfigError,
            lambda: correct([0.1], "bonferoni"),
            "correct(method): 'bonferoni' is not a choice. Did you mean 'bonferroni'?",
        ),
    ],
)
def test_refusals(kind, call, line):
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value) == line
