"""Null lists: alike in what they are matched for, exchangeable with the lists, and the same whatever is drawn first."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.sparse import csr_array

from elute.base.errors import ConfigError, DataError
from elute.base.statistics.matching import matched_controls
from elute.validation.null_lists import Matched, popularity_lists, uniform_lists


def covariates(n: int, seed: int = 0) -> np.ndarray[Any, Any]:
    """Expression, detection that follows it, and skewed whole numbers of annotations."""
    rng = np.random.default_rng(seed)
    expression = rng.lognormal(size=n)
    detection = expression / (1.0 + expression) + 0.05 * rng.random(n)
    return np.stack([expression, detection, np.floor(rng.lognormal(2.0, 1.0, n) * expression**0.3)], axis=1)


def rows(lists: csr_array[Any]) -> list[set[int]]:
    return [set(lists.indices[a:b].tolist()) for a, b in itertools.pairwise(lists.indptr.tolist())]


@settings(max_examples=15, deadline=None)
@given(n=st.integers(2, 300), least=st.integers(2, 30), ties=st.booleans(), seed=st.integers(0, 99))
def test_strata_are_large_enough_and_hold_what_is_the_same(n: int, least: int, ties: bool, seed: int) -> None:
    rng = np.random.default_rng(seed)
    table = rng.integers(0, 3, (n, 3)).astype(float) if ties else rng.normal(size=(n, 3))
    matched = Matched(table, seed=seed, least=least)
    assert matched.sizes.sum() == n
    assert set(matched.strata.tolist()) == set(range(len(matched.sizes)))
    assert matched.sizes.min() >= min(max(2, least // 3), n)
    if not ties:  # nothing stands in the way of a cut
        assert np.median(matched.sizes) >= least or n < 10 * least
        assert matched.sizes.max() < 2 * least or n < 2 * least
    strata: dict[tuple[float, ...], set[int]] = {}
    for row, stratum in zip(table.tolist(), matched.strata.tolist(), strict=True):
        strata.setdefault(tuple(row), set()).add(stratum)
    assert all(len(found) == 1 for found in strata.values())


@settings(max_examples=15, deadline=None)
@given(n=st.integers(20, 200), draw=st.integers(0, 10**6), seed=st.integers(0, 10**6))
def test_a_draw_keeps_sizes_strata_and_what_lists_share(n: int, draw: int, seed: int) -> None:
    matched = Matched(covariates(n), seed=seed, least=5)
    lists = popularity_lists([0, 1, n // 2, n, 7], annotations=1.0 + np.arange(n), seed=seed)
    drawn = matched.draw(lists, draw)
    assert drawn.has_canonical_format
    assert drawn.dtype == lists.dtype
    assert (drawn.data == 1).all()
    np.testing.assert_array_equal(np.diff(drawn.indptr), np.diff(lists.indptr))
    for before, after in zip(rows(lists), rows(drawn), strict=True):
        np.testing.assert_array_equal(
            np.bincount(matched.strata[list(before)], minlength=n),
            np.bincount(matched.strata[list(after)], minlength=n),
        )
    shared = (lists.astype(int) @ lists.astype(int).T).toarray()
    np.testing.assert_array_equal((drawn.astype(int) @ drawn.astype(int).T).toarray(), shared)


def test_a_draw_is_known_by_its_number() -> None:
    lists = uniform_lists([10] * 4, n_genes=200, seed=3)
    one, other = Matched(covariates(200), seed=5), Matched(covariates(200), seed=5)
    forward = [rows(one.draw(lists, i)) for i in range(4)]
    backward = [rows(other.draw(lists, i)) for i in (3, 2, 1, 0)][::-1]
    assert forward == backward
    assert len({str(each) for each in forward}) == 4
    assert rows(Matched(covariates(200), seed=6).draw(lists, 0)) != forward[0]
    again = uniform_lists([10] * 4, n_genes=200, seed=3)
    assert rows(again) == rows(lists)


def test_every_gene_of_a_stratum_comes_equally_often() -> None:
    matched = Matched(np.repeat([[0.0], [1.0]], [4, 6], axis=0), seed=1, least=4)
    assert matched.sizes.tolist() == [4, 6]
    lists = csr_array(np.array([[1, 0, 0, 0, 1, 1, 0, 0, 0, 0]], dtype=np.int8))
    found = np.sum([matched.draw(lists, i).toarray()[0] for i in range(1000)], axis=0)
    expected = np.array([1 / 4] * 4 + [2 / 6] * 6) * 1000
    # Of each stratum the counts add up to a constant, hence 3 + 5 degrees of freedom.
    variance = expected * (1 - expected / 1000)
    assert ((found - expected) ** 2 / variance).sum() < stats.chi2.ppf(0.9999, 10)


def test_it_draws_as_matched_controls_does() -> None:
    scale = np.random.default_rng(0).permutation(240) * 1.0
    matched = Matched(scale, seed=0, least=24)
    assert matched.sizes.tolist() == [30] * 8
    items = np.array([0, 5, 9, 77, 130, 200, 239])
    controls = matched_controls(items, scale, seed=0, n_draws=1000, n_bins=8)
    lists = csr_array((np.ones(7, np.int8), items.astype(np.int32), [0, 7]), shape=(1, 240))
    ours = np.mean([matched.draw(lists, i).toarray()[0] for i in range(1000)], axis=0)
    theirs = np.bincount(controls.draws.ravel(), minlength=240) / 1000
    assert np.abs(ours - theirs).max() < 5 * np.sqrt(2 * 0.25 / 1000)
    assert set(np.flatnonzero(ours)) == set(np.flatnonzero(theirs))


def test_quality_is_that_of_many_draws() -> None:
    table = covariates(400)
    matched = Matched(table, seed=2)
    lists = popularity_lists(np.full(30, 20), annotations=table[:, 2], seed=4)
    quality = matched.quality(lists)
    draws = [matched.draw(lists, i) for i in range(100)]
    own, kept = [], []
    for each in draws:
        own.append(
            [
                table[list(b)].mean(axis=0) - table[list(a)].mean(axis=0)
                for a, b in zip(rows(each), rows(lists), strict=True)
            ]
        )
        kept.append(np.mean([len(a & b) for a, b in zip(rows(each), rows(lists), strict=True)]) / 20)
    expected = np.mean(own, axis=0) / table.std(axis=0)
    np.testing.assert_allclose(quality.difference, expected.mean(axis=0), atol=0.015)
    np.testing.assert_allclose(quality.typical, np.median(np.abs(expected), axis=0), atol=0.04)
    assert quality.kept == pytest.approx(np.mean(kept), abs=0.01)
    assert quality.strata == len(matched.sizes)
    assert "annotations +" in quality.told()


def test_matching_matches() -> None:
    table = covariates(4000)
    lists = popularity_lists(np.full(200, 50), annotations=table[:, 2], seed=4)
    fine = Matched(table, seed=0)
    none, coarse, close = (each.quality(lists) for each in (Matched(table, seed=0, least=4000), fine.coarser, fine))
    assert none.difference[2] > 1  # without strata the lists are far from the rest
    assert np.abs(close.difference).max() < 0.08
    assert abs(close.difference[2]) < abs(coarse.difference[2])
    assert close.kept > coarse.kept
    assert coarse.strata < 0.6 * close.strata


@pytest.mark.parametrize("weights", [[5.0, 3.0, 1.0, 1.0, 0.0], [1.0] * 5, [1e-12, 1.0, 1.0, 1.0, 1.0]])
def test_lists_are_drawn_one_gene_after_another(weights: list[float]) -> None:
    lists = popularity_lists(np.full(40_000, 3), annotations=weights, seed=1)
    expected = np.zeros(5)
    for order in itertools.permutations(np.flatnonzero(weights).tolist(), 3):
        chance, left = 1.0, sum(weights)
        for gene in order:
            chance, left = chance * weights[gene] / left, left - weights[gene]
        expected[list(order)] += chance
    found = np.asarray(lists.sum(axis=0)).ravel() / 40_000
    np.testing.assert_allclose(found, expected, atol=5 * 0.5 / 200)
    assert np.diff(lists.indptr).tolist() == [3] * 40_000
    assert lists.has_canonical_format


def test_lists_of_many_sizes() -> None:
    sizes = [0, 5, 100, 1, 99, 0]
    lists = popularity_lists(sizes, annotations=10.0 ** np.arange(-50, 50), seed=0)  # repeats are all there is
    assert np.diff(lists.indptr).tolist() == sizes
    assert [len(row) for row in rows(lists)] == sizes
    assert uniform_lists([0, 0], n_genes=3, seed=0).shape == (2, 3)
    popular = popularity_lists(np.full(400, 5), annotations=np.arange(100), seed=0)
    uniform = uniform_lists(np.full(400, 5), n_genes=100, seed=0)
    assert popular.indices.mean() > 60 > 53 > uniform.indices.mean() > 46


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: Matched([[1.0, np.nan, 2.0]] * 9, seed=0), DataError, "NaN"),
        (lambda: Matched([[1.0]], seed=0), DataError, "one gene only"),
        (lambda: Matched([[1.0]] * 5, seed=0, least=1), ConfigError, "at least 2"),
        (lambda: Matched([[1.0]] * 5, seed=-1), ConfigError, "at least 0"),
        (lambda: Matched([[1.0, 2.0]] * 5, seed=0, weights=[1.0]), ConfigError, "1 for 2 covariates"),
        (lambda: Matched([[1.0, 2.0]] * 5, seed=0, weights=[1.0, 0.0]), ConfigError, "not above 0"),
        (lambda: Matched([[1.0, 2.0]] * 5, seed=0, names=["a"]), ConfigError, "1 for 2 covariates"),
        (
            lambda: Matched([[1.0]] * 5, seed=0).draw(uniform_lists([2], n_genes=4, seed=0), 0),
            DataError,
            "over 5 genes",
        ),
        (
            lambda: Matched([[1.0]] * 5, seed=0).draw(csr_array(np.full((1, 5), 2)), 0),
            DataError,
            "other entries than 1",
        ),
        (
            lambda: Matched([[1.0]] * 5, seed=0).draw(uniform_lists([2], n_genes=5, seed=0), -1),
            ConfigError,
            "at least 0",
        ),
        (lambda: Matched([[1.0]] * 5, seed=0).quality(uniform_lists([0], n_genes=5, seed=0)), DataError, "empty"),
        (lambda: popularity_lists([3], annotations=[1, 1, 0], seed=0), DataError, "3 genes cannot be drawn from 2"),
        (lambda: popularity_lists([3], annotations=[1, -1, 9], seed=0), DataError, "no list of counts"),
        (lambda: uniform_lists([-1], n_genes=4, seed=0), DataError, "no list of sizes"),
        (lambda: uniform_lists([1.5], n_genes=4, seed=0), DataError, "no list of sizes"),
        (lambda: uniform_lists([], n_genes=4, seed=0), DataError, "no list of sizes"),
    ],
)
def test_what_is_refused(call: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        call()
