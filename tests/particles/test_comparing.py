"""Scores against scikit-learn, draws against plain repetition, tests against enumeration and under the null."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from sklearn import metrics

from elute.particles.comparing import compare, corrected, corrected_t_test, exchange_test
from elute.particles.folding import Folds
from elute.particles.judging import Judge
from elute.particles.ranking import average_precision, exchanged_precision, resampled_precision
from elute.particles.results import CLASS_METRICS, METRICS
from elute.particles.scores import calibration_bins, confusion, resampled_scores, score


def guesses(n: int = 120, k: int = 4, *, good: float = 1.0, seed: int = 0, coarse: bool = False) -> tuple[Any, Any]:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, k, n)
    raw = rng.normal(0, 1, (n, k)) + good * np.eye(k)[codes]
    p = np.exp(raw.round(0) if coarse else raw)
    return p / p.sum(1, keepdims=True), codes


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 40), st.integers(1, 6))
def test_average_precision_is_scikit_learns_also_with_ties(seed: int, n: int, levels: int) -> None:
    rng = np.random.default_rng(seed)
    scores, positive = rng.integers(0, levels, n) / 4.0, rng.random(n) < 0.4
    positive[0] = True
    assert average_precision(scores, positive) == pytest.approx(
        metrics.average_precision_score(positive, scores), abs=1e-12
    )


def test_average_precision_by_hand_and_of_nothing() -> None:
    # ranks of the positives: 1 and 3 → (1/1 + 2/3) / 2
    assert average_precision(np.array([0.9, 0.8, 0.7, 0.1]), np.array([True, False, True, False])) == pytest.approx(
        5 / 6
    )
    assert math.isnan(average_precision(np.ones(3), np.zeros(3, bool)))


@pytest.mark.parametrize("coarse", [False, True])
def test_scores_are_scikit_learns(coarse: bool) -> None:
    p, codes = guesses(coarse=coarse)
    found = score(p, codes)
    top = p.argmax(1)
    truth = np.eye(4)[codes]
    want = {
        "map": metrics.average_precision_score(truth, p, average="macro"),
        "accuracy": metrics.accuracy_score(codes, top),
        "balanced_accuracy": metrics.balanced_accuracy_score(codes, top),
        "log_loss": metrics.log_loss(codes, p),
        "brier": ((p - truth) ** 2).sum(1).mean(),
    }
    for name, value in want.items():
        assert found.overall[0, METRICS.index(name)] == pytest.approx(value, abs=1e-12), name
    precision, recall, _, _ = metrics.precision_recall_fscore_support(codes, top, zero_division=0)
    np.testing.assert_allclose(found.per_class[0, :, CLASS_METRICS.index("precision")], precision)
    np.testing.assert_allclose(found.per_class[0, :, CLASS_METRICS.index("recall")], recall)
    np.testing.assert_array_equal(confusion(top, codes, 4), metrics.confusion_matrix(codes, top))


def test_calibration_error_by_a_plain_loop() -> None:
    p, codes = guesses(300, 3, good=2.0)
    top, right = p.max(1), p.argmax(1) == codes
    want = 0.0
    for b in range(15):
        here = (top >= b / 15) & ((top < (b + 1) / 15) | (b == 14))
        if here.any():
            want += here.mean() * abs(right[here].mean() - top[here].mean())
    assert score(p, codes).overall[0, METRICS.index("ece")] == pytest.approx(want)
    bins = calibration_bins(p, codes)
    assert sum(part.n for part in bins) == 300
    assert sum(part.n / 300 * abs(part.accuracy - part.confidence) for part in bins) == pytest.approx(want)


def test_a_class_that_is_not_there_is_left_out_of_means() -> None:
    p, codes = guesses(60, 4)
    few = codes != 2
    found = score(p[few], codes[few])
    kept = [metrics.average_precision_score(codes[few] == c, p[few][:, c]) for c in (0, 1, 3)]
    assert found.overall[0, 0] == pytest.approx(np.mean(kept))
    assert math.isnan(found.per_class[0, 2, 0])
    assert math.isnan(found.per_class[0, 2, 2])


@pytest.mark.parametrize("coarse", [False, True])
def test_a_draw_of_runs_scores_as_if_its_rows_were_repeated(coarse: bool) -> None:
    p, codes = guesses(80, 3, coarse=coarse)
    groups = np.random.default_rng(1).integers(0, 6, 80)
    draws = np.random.default_rng(2).multinomial(6, np.full(6, 1 / 6), size=5).astype(float)
    found = resampled_scores(p, codes, groups, draws=draws)
    for r, draw in enumerate(draws):
        rows = np.concatenate([np.repeat(np.flatnonzero(groups == g), int(draw[g])) for g in range(6)])
        plain = score(p[rows], codes[rows])
        np.testing.assert_allclose(found.overall[r], plain.overall[0], atol=1e-12)
        np.testing.assert_allclose(found.per_class[r], plain.per_class[0], atol=1e-12)


def test_exchanged_rankings_are_those_of_exchanged_rows() -> None:
    (a, codes), (b, _) = guesses(70, 3, coarse=True), guesses(70, 3, good=0.3, seed=5, coarse=True)
    groups = np.random.default_rng(0).integers(0, 5, 70)
    exchanged = np.array(list(itertools.product([False, True], repeat=5)))
    positive = codes == 1
    found = exchanged_precision((a[:, 1], b[:, 1]), positive, groups, exchanged=exchanged)
    for r, swap in enumerate(exchanged):
        rows = swap[groups]
        first, second = np.where(rows, b[:, 1], a[:, 1]), np.where(rows, a[:, 1], b[:, 1])
        assert found[r] == pytest.approx(average_precision(first, positive) - average_precision(second, positive))


@pytest.mark.parametrize("metric", ["map", "accuracy"])
def test_the_permutation_p_value_is_that_of_all_exchanges(metric: str) -> None:
    (a, _), (b, codes) = guesses(90, 3, good=0.8), guesses(90, 3, good=0.8)
    a = np.random.default_rng(3).permutation(a) * 0.3 + 0.7 * guesses(90, 3, good=0.9, seed=0)[0]
    groups = np.arange(90) % 7

    def difference(rows: Any) -> float:
        first, second = np.where(rows[:, None], b, a), np.where(rows[:, None], a, b)
        place = METRICS.index(metric)
        return float(score(first, codes).overall[0, place] - score(second, codes).overall[0, place])

    seen = difference(np.zeros(90, bool))
    every = [difference(np.array(s)[groups]) for s in itertools.product([False, True], repeat=7)]
    exact = np.mean(np.abs(every) >= abs(seen) - 1e-12)
    drawn = exchange_test(a, b, codes, groups=groups, metric=metric, n=1999, seed=0)
    assert drawn == pytest.approx(exact, abs=0.04)
    assert exchange_test(a, a, codes, groups=groups, metric=metric, n=99, seed=0) == 1.0


def test_corrected_t_test_by_hand() -> None:
    d = [0.02, 0.05, 0.01, 0.04, 0.03]
    found = corrected_t_test(d, 0.25)
    variance = np.var(d, ddof=1)
    t = 0.03 / math.sqrt(variance * (1 / 5 + 0.25))
    assert found.mean == pytest.approx(0.03)
    assert found.t == pytest.approx(t)
    assert found.p == pytest.approx(2 * stats.t.sf(abs(t), 4))
    plain = stats.ttest_1samp(d, 0)
    assert corrected_t_test(d, 0.0).p == pytest.approx(plain.pvalue)  # without the correction it is the usual one
    assert found.p > plain.pvalue
    assert corrected_t_test([0.1, None, 0.2], 0.5).mean == pytest.approx(0.15)
    assert corrected_t_test([0.0, 0.0], 0.5).p == 1.0
    assert corrected_t_test([0.1, 0.1], 0.5).p is None
    assert corrected_t_test([0.1], 0.5).p is None


def test_corrected_t_test_holds_its_level_where_the_plain_one_does_not() -> None:
    """Nadeau and Bengio's case: repeated random splits of one sample, so that training parts overlap."""
    rng = np.random.default_rng(0)
    plain, ours = [], []
    for _ in range(300):
        x = rng.normal(0, 1, 60)  # the difference of two methods on each particle; its mean is 0 over all samples
        d = [x[rng.permutation(60)[:12]].mean() for _ in range(10)]
        plain.append(corrected_t_test(d, 0.0).p or 1.0)
        ours.append(corrected_t_test(d, 12 / 48).p or 1.0)
    assert np.mean(np.array(plain) < 0.05) > 0.12
    assert np.mean(np.array(ours) < 0.05) < 0.08


def test_exchanging_runs_holds_its_level_where_exchanging_particles_does_not() -> None:
    """Methods that are equally good, but whose errors go by run."""
    rng = np.random.default_rng(0)
    by_run, by_row = [], []
    groups = np.repeat(np.arange(12), 15)
    codes = np.zeros(180, int)
    for seed in range(200):
        share = rng.beta(1.5, 1.5, (2, 12))
        right = [rng.random(180) < s[groups] for s in share]
        a, b = (np.where(r[:, None], [0.9, 0.1], [0.1, 0.9]) for r in right)
        by_run.append(exchange_test(a, b, codes, groups=groups, metric="accuracy", n=199, seed=seed))
        by_row.append(exchange_test(a, b, codes, groups=np.arange(180), metric="accuracy", n=199, seed=seed))
    assert 0.01 <= np.mean(np.array(by_run) <= 0.05) <= 0.09
    assert np.mean(np.array(by_row) <= 0.05) > 0.2


def judge(codes: Any, *, groups: int = 10, folds: int = 5, n: int = 400) -> Judge:
    rows = np.arange(len(codes))
    of = rows % groups % folds
    return Judge(codes, tuple("abcdefgh"[: max(2, codes.max() + 1)]), Folds(of, rows % groups, "run"), n, 0)


def test_intervals_of_a_run_draw_cover_what_they_should() -> None:
    """Accuracies that go by run: the interval has to hold the truth nearly as often as it says."""
    rng = np.random.default_rng(0)
    held, narrow = [], []
    groups = np.arange(300) % 30
    for _ in range(120):
        right = rng.random(300) < rng.beta(3, 2, 30)[groups]
        p = np.where(right[:, None], [0.8, 0.2], [0.2, 0.8])
        found = judge(np.zeros(300, int), groups=30, n=200).judge("m", p, title="m", kind="source").result
        low, high = found.overall["accuracy"].low, found.overall["accuracy"].high
        assert low is not None
        assert high is not None
        held.append(low <= 0.6 <= high)
        narrow.append(high - low)
    assert 0.86 <= np.mean(held) <= 1.0
    assert np.mean(narrow) > 1.2 * 2 * 1.96 * math.sqrt(0.24 / 300)  # wider than if particles were independent


def test_a_methods_result_is_whole() -> None:
    p, codes = guesses(100, 3)
    found = judge(codes).judge("m", p, title="M", kind="baseline").result
    for metric in METRICS:
        one = found.overall[metric]
        assert one.estimate is not None
        assert one.low is not None
        assert one.high is not None
        assert one.low <= one.high
        assert len(found.folds[metric]) == 5
    want = [metrics.accuracy_score(codes[f::5], p.argmax(1)[f::5]) for f in range(5)]
    assert found.folds["accuracy"] == pytest.approx(want)
    assert set(found.per_class) == {"a", "b", "c"}
    assert found.confusion.sum() == 100
    alone = Judge(codes, ("a", "b", "c"), Folds(np.arange(100) % 5, np.zeros(100, int), "run"), 100, 0)
    assert alone.judge("m", p, title="M", kind="source").result.overall["map"].low is None


def test_comparisons_use_the_same_draws_and_are_corrected_together() -> None:
    good, codes = guesses(200, 3, good=2.0)
    bad, _ = guesses(200, 3, good=1.0)
    held = judge(codes)
    a, b = (held.judge(n, p, title=n, kind="fusion") for n, p in (("a", good), ("b", bad)))
    found = compare(held, a, b, question="?") + compare(held, b, a, question="?") + compare(held, a, a, question="?")
    first, back, same = (found[i] for i in (0, 2, 4))
    assert first.metric == "map"
    assert first.difference.estimate == pytest.approx(-back.difference.estimate)
    assert first.difference.low is not None
    assert first.difference.low > 0
    assert first.p_permutation < 0.05
    assert same.difference.estimate == same.difference.low == same.difference.high == 0
    assert same.p_permutation == 1
    assert first.per_fold == pytest.approx(
        [x - y for x, y in zip(a.result.folds["map"], b.result.folds["map"], strict=True)]
    )
    done = corrected(found)
    assert done[0].p_permutation_holm == pytest.approx(min(1, 3 * first.p_permutation))
    assert all(one.p_t_holm is not None and one.p_t is not None and one.p_t_holm >= one.p_t for one in done)


def test_draws_are_fewer_where_particles_are_many() -> None:
    codes = np.zeros(1000, int)
    assert judge(codes, n=1000).n_draws == 1000
    many = Judge(np.zeros(1_000_000, int), ("a",), Folds(np.arange(2), np.arange(2), "run"), 1000, 0)
    assert many.n_draws == 200


def test_resampled_precision_of_no_positive_draw_is_not_a_number() -> None:
    found = resampled_precision(
        np.array([0.3, 0.1]), np.array([True, False]), np.array([0, 1]), draws=np.array([[0.0, 2.0]])
    )
    assert math.isnan(found[0])
