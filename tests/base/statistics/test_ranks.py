from __future__ import annotations

from itertools import combinations
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import sparse, stats

from elute.base.errors import ConfigError, DataError
from elute.base.statistics import clump
from elute.base.statistics.ranks import rank_columns, rank_sum, rank_sum_sparse

SIDES = ("two-sided", "greater", "less")
RNG = np.random.default_rng(3)
TIED = RNG.integers(0, 6, (60, 40)) * (RNG.random((60, 40)) < 0.5) * 1.0
MASK = RNG.random(60) < 0.4


@pytest.mark.parametrize("side", SIDES)
def test_equals_scipy_with_ties(side):
    ours = rank_sum(TIED, MASK, alternative=side, method="normal")
    theirs = stats.mannwhitneyu(TIED[MASK], TIED[~MASK], alternative=side, method="asymptotic", axis=0)
    np.testing.assert_allclose(ours.p, theirs.pvalue, rtol=1e-12)
    np.testing.assert_array_equal(ours.u, theirs.statistic)


@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("inside", [1, 3, 8, 13])
def test_equals_scipy_exactly_in_small_samples(side, inside):
    values, mask = RNG.normal(size=(20, 30)), np.arange(20) < inside
    ours = rank_sum(values, mask, alternative=side)
    theirs = stats.mannwhitneyu(values[mask], values[~mask], alternative=side, method="exact", axis=0)
    np.testing.assert_allclose(ours.p, theirs.pvalue, rtol=1e-12)
    np.testing.assert_allclose(ours.log_p, np.log(ours.p), rtol=1e-9, atol=1e-12)


def test_auroc_is_the_share_of_pairs_won():
    values, mask = TIED[:, :5], MASK
    inside, outside = values[mask][:, None, :], values[~mask][None, :, :]
    pairs = (inside > outside) + 0.5 * (inside == outside)
    np.testing.assert_allclose(rank_sum(values, mask).auroc, pairs.mean(axis=(0, 1)), rtol=1e-13)


def test_constant_columns_say_nothing():
    for value in (0.0, 7.0, -2.0):
        for method in ("auto", "normal"):
            found = rank_sum(np.full((30, 2), value), np.arange(30) < 9, method=method)
            assert found.auroc.tolist() == [0.5, 0.5]
            assert found.p.tolist() == [1.0, 1.0]
    silent = rank_sum_sparse(sparse.csc_array((30, 2)), np.arange(30) < 9)
    assert silent.auroc.tolist() == [0.5, 0.5]
    assert silent.p.tolist() == [1.0, 1.0]


@settings(max_examples=30, deadline=None)
@given(
    hnp.arrays(
        np.float64,
        st.tuples(st.integers(2, 25), st.integers(1, 4)),
        elements=st.sampled_from([0.0, 0.0, 0.0, 1.0, 2.5, -1.0]),
    ),
    st.data(),
)
def test_sparse_equals_dense(values, data):
    n = len(values)
    bits = data.draw(hnp.arrays(np.bool_, (n, 3)))
    bits[0], bits[-1] = True, False
    for side in SIDES:
        dense, thin = (
            rank_sum(values, bits, alternative=side),
            rank_sum_sparse(sparse.csc_array(values), bits, alternative=side),
        )
        assert dense.p.shape == (3, values.shape[1])
        np.testing.assert_allclose(thin.u, dense.u, atol=1e-9)
        np.testing.assert_allclose(thin.log_p, dense.log_p, rtol=1e-9, atol=1e-12)


def test_stored_zeros_are_zeros():
    stored = sparse.csc_array(
        (np.array([0.0, 3.0, 0.0, 1.0]), np.array([0, 2, 3, 4]), np.array([0, 3, 4])), shape=(6, 2)
    )
    mask = np.arange(6) < 3
    np.testing.assert_array_equal(rank_sum_sparse(stored, mask).p, rank_sum(stored.toarray(), mask).p)


@settings(max_examples=20, deadline=None)
@given(hnp.arrays(np.float64, (12, 2), elements=st.integers(-3, 3)), st.integers(1, 11))
def test_the_sides_mirror_each_other(values, inside):
    mask = np.arange(12) < inside
    ours, turned = rank_sum(values, mask, alternative="greater"), rank_sum(values, ~mask, alternative="less")
    np.testing.assert_allclose(ours.log_p, turned.log_p, rtol=1e-9, atol=1e-12)
    np.testing.assert_allclose(ours.auroc, 1.0 - turned.auroc, atol=1e-12)
    np.testing.assert_allclose(rank_sum(values * 7.0, mask).p, rank_sum(values, mask).p, rtol=1e-12)


def test_many_masks_are_one_mask_each():
    bits = RNG.random((60, 3)) < 0.5
    together = rank_sum(TIED, bits)
    for i in range(3):
        np.testing.assert_allclose(together.log_p[i], rank_sum(TIED, bits[:, i]).log_p, rtol=1e-10)


def test_blocks_of_columns_do_not_show(monkeypatch):
    whole = rank_sum(TIED, MASK).log_p
    monkeypatch.setattr("elute.base.statistics.ranks.BLOCK", 60 * 7)
    monkeypatch.setattr(clump, "CELLS", 50)
    np.testing.assert_allclose(rank_sum(TIED, MASK).log_p, whole, rtol=1e-12)


def enumerated(column, inside):
    """Return P(U ≥ u) for every way to choose the rows inside."""
    ranks = stats.rankdata(column)
    sums = np.array([ranks[list(rows)].sum() for rows in combinations(range(len(column)), inside)])
    return sums, np.array([(sums >= seen - 1e-9).mean() for seen in sums])


@pytest.mark.parametrize("nonzero", [[1.0, 2.0, 3.0, 4.0, 5.0], [1.0, 1.0, 1.0, 1.0], [2.0, 2.0, 3.0, 3.0, 3.0, 9.0]])
def test_clumped_tails_follow_the_permutation_law(nonzero):
    column = np.zeros(14)
    column[: len(nonzero)] = nonzero
    rows = list(combinations(range(14), 4))
    _, expected = enumerated(column, 4)
    values = np.zeros((14, len(rows)))
    for i, inside in enumerate(rows):  # one mask, and every arrangement of the column around it
        values[:4, i], values[4:, i] = column[list(inside)], np.delete(column, inside)
    ours = rank_sum(values, np.arange(14) < 4, alternative="greater").p
    normal = rank_sum(values, np.arange(14) < 4, alternative="greater", method="normal").p
    away, normal_away = np.abs(np.log(ours / expected)), np.abs(np.log(normal / expected))
    assert away.max() < 0.5
    assert away.mean() < 0.12
    assert away.mean() < normal_away.mean()
    assert ours.min() >= 1 / len(rows) * (1 - 1e-12)
    if len(set(nonzero)) == 1:  # nothing varies but the count, so nothing is approximated
        np.testing.assert_allclose(ours, expected, rtol=1e-12)


def test_a_rare_feature_is_not_oversold():
    # 5 of 1,000 rows fire, 2 of them among 50: shuffled labels reach that in about 2 % of draws.
    column = np.zeros(1000)
    column[[0, 1, 500, 600, 700]] = [5.0, 2.0, 1.0, 3.0, 4.0]
    mask = np.arange(1000) < 50
    rng = np.random.default_rng(0)
    ranks = stats.rankdata(column)
    drawn = ranks[rng.random((8000, 1000)).argpartition(50, axis=1)[:, :50]].sum(axis=1)
    shuffled = (drawn >= ranks[mask].sum()).mean()
    assert rank_sum(column, mask, alternative="greater").p[0] == pytest.approx(shuffled, rel=0.2)
    assert rank_sum(column, mask, alternative="greater", method="normal").p[0] < shuffled / 20


def test_log_p_orders_what_p_cannot():
    values = np.zeros((4000, 2))
    values[:2000, 0] = np.arange(1, 2001)
    values[:1900, 1] = np.arange(1, 1901)
    for method in ("auto", "normal"):
        found = rank_sum(values, np.arange(4000) < 2000, method=method)
        assert found.p.tolist() == [0.0, 0.0]
        assert -np.inf < found.log_p[0] < found.log_p[1] < -700


def test_a_shifted_feature_is_found():
    values = RNG.normal(size=(100, 50))
    mask = np.arange(100) < 50
    values[mask] += 1.2
    found = rank_sum(values, mask)
    assert np.all(found.auroc > 0.6)
    assert np.all(found.p < 0.01)
    assert np.all(rank_sum(values, mask, alternative="less").p > 0.9)
    firing = np.where(RNG.random((1000, 50)) < np.where(np.arange(1000) < 50, 0.3, 0.01)[:, None], 1.0, 0.0)
    assert np.all(rank_sum_sparse(sparse.csc_array(firing), np.arange(1000) < 50).p < 1e-3)


def test_ranks_are_those_of_scipy():
    ranks, runs = rank_columns(TIED)
    np.testing.assert_array_equal(ranks, stats.rankdata(TIED, axis=0))
    assert runs[TIED[:, 0] == 0, 0].tolist() == [(TIED[:, 0] == 0).sum()] * int((TIED[:, 0] == 0).sum())


GOOD = sparse.csc_array(np.eye(4))
HALF = np.arange(4) < 2


def broken(**parts):
    fields = {"data": GOOD.data, "indices": GOOD.indices, "indptr": GOOD.indptr, "shape": (4, 4)}
    return SimpleNamespace(**{**fields, **parts})


@pytest.mark.parametrize(
    ("kind", "call", "line"),
    [
        (DataError, lambda: rank_sum([], []), "rank_sum(values): is empty. Give at least one value."),
        (
            DataError,
            lambda: rank_sum([1.0, 2.0], [True]),
            "rank_sum(mask): has 1 entries for 2 rows. Give one entry a row.",
        ),
        (
            DataError,
            lambda: rank_sum([1.0, 2.0], [True, True]),
            "rank_sum(mask): mask 0 puts all 2 rows inside. A comparison needs rows on both sides.",
        ),
        (
            DataError,
            lambda: rank_sum([1.0, np.nan], [True, False]),
            "rank_sum(values): 1 of 2 values are NaN or infinite, the first at [1]. Drop or fill those first.",
        ),
        (
            ConfigError,
            lambda: rank_sum([1.0, 2.0], [True, False], alternative="more"),
            "rank_sum(alternative): 'more' is not a choice. There are: greater, less, two-sided.",
        ),
        (
            ConfigError,
            lambda: rank_sum([1.0, 1.0], [True, False], method="exact"),
            "rank_sum(method): 'exact' cannot count 1 against 1 rows, or columns with ties. Use 'auto', which is exact where it can be.",
        ),
        (
            ConfigError,
            lambda: rank_sum(np.arange(40.0), np.arange(40) < 20, method="exact"),
            "rank_sum(method): 'exact' cannot count 20 against 20 rows, or columns with ties. Use 'auto', which is exact where it can be.",
        ),
        (
            DataError,
            lambda: rank_sum_sparse(GOOD.tocsr(), HALF),
            "rank_sum_sparse(columns): is not stored by column. Convert it with .tocsc().",
        ),
        (
            DataError,
            lambda: rank_sum_sparse(sparse.csc_array((4, 0)), HALF),
            "rank_sum_sparse(columns): is empty. Give at least one row and one column.",
        ),
        (
            DataError,
            lambda: rank_sum_sparse(broken(indptr=np.array([0, 3, 2, 3, 4])), HALF),
            "rank_sum_sparse(columns): its indptr does not fit its indices. Rebuild the matrix.",
        ),
        (
            DataError,
            lambda: rank_sum_sparse(broken(indices=np.array([0, 1, 2, 9])), HALF),
            "rank_sum_sparse(columns): names a row outside 0 … 3. Rebuild the matrix.",
        ),
        (
            DataError,
            lambda: rank_sum_sparse(broken(indices=np.array([0, 0, 2, 3]), indptr=np.array([0, 2, 2, 3, 4])), HALF),
            "rank_sum_sparse(columns): stores a cell twice. Call .sum_duplicates() first.",
        ),
        (
            DataError,
            lambda: rank_sum_sparse(broken(data=np.array([1.0, np.nan, 1.0, 1.0])), HALF),
            "rank_sum_sparse(columns): 1 of 4 values are NaN or infinite, the first at [1]. Drop or fill those first.",
        ),
    ],
)
def test_refusals(kind, call, line):
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value) == line
