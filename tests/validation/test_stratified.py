"""Among like genes: the exact law of null lists, the limit of their draws, and a family by the larger of two p-values."""

from __future__ import annotations

from dataclasses import asdict, replace
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.sparse import csr_array

from elute.base.errors import DataError
from elute.base.statistics.corrections import storey
from elute.validation.background import Background
from elute.validation.enrichment import over_representation
from elute.validation.excess import by_over_representation, excess
from elute.validation.families import Enriched
from elute.validation.null_lists import Matched, popularity_lists, uniform_lists
from elute.validation.stratified import Strata, among_like
from elute.validation.terms import Terms


def world(seed: int, *, genes: int, lists: int, terms: int, least: int = 5) -> tuple[Any, Any, Matched]:
    rng = np.random.default_rng(seed)
    chances = rng.lognormal(0.0, 1.0, genes)
    members = popularity_lists(rng.integers(1, genes // 2, terms), annotations=chances, seed=seed)
    listed = popularity_lists(rng.integers(0, genes // 2, lists), annotations=chances, seed=seed + 1)
    covariates = np.stack([rng.random(genes), chances], axis=1)
    return listed, members, Matched(covariates, seed=seed, least=least)


def terms_of(members: csr_array[Any]) -> Terms:
    n, width = members.shape
    names = tuple(f"T{i}" for i in range(n))
    background = Background(tuple(f"g{i}" for i in range(width)), f"{width} genes")
    return Terms(names, names, (None,) * n, members, background, "made up", {}, np.full(n, -1))


def overlaps(lists: csr_array[Any], members: csr_array[Any]) -> Any:
    return (lists.astype(int) @ members.astype(int).T).toarray()


def every_pair(lists: csr_array[Any], members: csr_array[Any]) -> dict[str, Any]:
    shared = overlaps(lists, members)
    listed, index = np.indices(shared.shape)
    return {"listed": listed.ravel(), "index": index.ravel(), "overlap": shared.ravel()}


def genes_of(rows: csr_array[Any]) -> list[Any]:
    return np.split(rows.indices, rows.indptr[1:-1])


def by_convolution(matched: Matched, listed: Any, term: Any) -> Any:
    """Return P(overlap = 0, 1, …) by numpy's convolution of scipy's laws."""
    law = np.ones(1)
    for stratum, size in enumerate(matched.sizes.tolist()):
        c, m = (int((matched.strata[list(rows)] == stratum).sum()) for rows in (listed, term))
        law = np.convolve(law, stats.hypergeom.pmf(np.arange(min(c, m) + 1), size, m, c))
    return law


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 10**6), genes=st.integers(8, 60), least=st.integers(2, 20))
def test_it_is_a_convolution_of_hypergeometric_laws(seed: int, genes: int, least: int) -> None:
    lists, members, matched = world(seed, genes=genes, lists=4, terms=5, least=least)
    pairs = every_pair(lists, members)
    of = genes_of(lists), genes_of(members)
    expected = [
        min(by_convolution(matched, of[0][i], of[1][t])[k:].sum(), 1.0)
        for i, t, k in zip(pairs["listed"], pairs["index"], pairs["overlap"], strict=True)
    ]
    np.testing.assert_allclose(Strata(members, matched).p(lists, **pairs), expected, rtol=1e-9)


def test_with_one_stratum_it_is_fishers_test() -> None:
    lists, members, _ = world(0, genes=400, lists=6, terms=30)
    pairs = every_pair(lists, members)
    found = Strata(members, Matched(np.arange(400.0), seed=0, least=400)).p(lists, **pairs)
    sizes, terms = np.diff(lists.indptr)[pairs["listed"]], np.diff(members.indptr)[pairs["index"]]
    np.testing.assert_allclose(found, stats.hypergeom.sf(pairs["overlap"] - 1, 400, terms, sizes), rtol=1e-9)


def test_a_case_by_hand() -> None:
    """Strata {0 1 2 3} and {4 5 6 7 8}; the list has one gene of the first and two of the second."""
    matched = Matched(np.repeat([0.0, 1.0], [4, 5]), seed=0, least=4)
    lists = csr_array(np.array([[1, 0, 0, 0, 1, 1, 0, 0, 0], [1, 1, 1, 1, 0, 0, 0, 0, 0]], dtype=np.int8))
    members = csr_array(np.array([[1, 0, 0, 0, 1, 1, 1, 0, 0], [0] * 9, [1, 1, 1, 1, 0, 0, 0, 0, 0]], dtype=np.int8))
    strata = Strata(members, matched)
    # The first stratum hits with 1/4; the second one 0, 1, 2 times with 1/10, 6/10, 3/10.
    found = strata.p(lists, listed=[0] * 4, index=[0] * 4, overlap=[0, 1, 2, 3])
    np.testing.assert_allclose(found, [1.0, 37 / 40, 18 / 40, 3 / 40], rtol=1e-12)
    # A term without genes, or with all of a stratum's; a list that fills its stratum, and gets itself again.
    assert strata.p(lists, listed=[0, 0, 1, 1], index=[1, 2, 0, 2], overlap=[0, 1, 1, 4]).tolist() == [1.0] * 4


def test_it_is_what_draws_come_to() -> None:
    lists, members, matched = world(3, genes=120, lists=5, terms=6, least=12)
    pairs = every_pair(lists, members)
    n = 1500
    above = np.zeros(len(pairs["listed"]))
    for i in range(n):
        above += overlaps(matched.draw(lists, i), members).ravel() >= pairs["overlap"]
    p = Strata(members, matched).p(lists, **pairs)
    assert ((p > 0.01) & (p < 0.99)).sum() > 15
    assert np.abs((above / n - p) / np.sqrt(p * (1 - p) / n)).max() < 4


def test_the_smallest_are_not_lost() -> None:
    """Eighty strata of 100 genes with one hit each: 100⁻⁸⁰, far below what 1 − F could give."""
    matched = Matched(np.arange(8000.0), seed=0, least=100)
    first = np.unique(matched.strata, return_index=True)[1]
    rows = csr_array((np.ones(len(first), np.int8), np.sort(first).astype(np.int32), [0, len(first)]), shape=(1, 8000))
    found = Strata(rows, matched).p(rows, listed=[0], index=[0], overlap=[len(first)])
    assert np.log(found[0]) == pytest.approx(-np.log(matched.sizes).sum(), rel=1e-9)
    assert found[0] < 1e-100


def by_brute_force(lists: csr_array[Any], members: csr_array[Any], matched: Matched) -> tuple[Any, Any]:
    """The two p-values of all pairs [lists, terms], from scipy alone."""
    of, shared = (genes_of(lists), genes_of(members)), overlaps(lists, members)
    sizes, terms = np.diff(lists.indptr)[:, None], np.diff(members.indptr)[None, :]
    plain = stats.hypergeom.sf(shared - 1, lists.shape[1], terms, sizes)
    like = [
        [by_convolution(matched, listed, term)[shared[i, t] :].sum() for t, term in enumerate(of[1])]
        for i, listed in enumerate(of[0])
    ]
    return plain, np.minimum(like, 1.0)


def planted(n: int) -> tuple[Any, Any, Matched]:
    """Twenty lists over 200 genes, of which so many hold eight genes of one of 15 terms; one of the others is empty."""
    rng = np.random.default_rng(n)
    members = uniform_lists(rng.integers(8, 20, 15), n_genes=200, seed=0)
    lists = uniform_lists(np.full(20, 12), n_genes=200, seed=1).toarray()
    lists[19] = 0
    for i in range(n):
        lists[i] = 0
        lists[i, genes_of(members)[i % 15][:8]] = 1
    return csr_array(lists), members, Matched(rng.random((200, 3)), seed=0, least=20)


@pytest.mark.parametrize("n", [0, 6, 19])
def test_the_larger_p_value_counts_in_the_whole_family(n: int) -> None:
    lists, members, matched = planted(n)
    plain, like = by_brute_force(lists, members, matched)
    both = np.maximum(plain, like)
    assert (plain < like * (1 - 1e-9)).any()
    assert (plain > like * (1 + 1e-9)).any()
    given = over_representation(lists, terms_of(members))
    given = Enriched(given.table, replace(given.family, pi0=0.5))
    found = among_like(given, lists, Strata(members, matched))
    at = found.table["list"].to_numpy(), found.table["index"].to_numpy()
    wanted = {
        "p": plain,
        "null_p": like,
        "q": stats.false_discovery_control(both.ravel()),
        "q_by": stats.false_discovery_control(both.ravel(), method="by"),
        "q_storey": storey(both.ravel()).q,
        "q_plain": stats.false_discovery_control(plain.ravel()),
    }
    for name, values in wanted.items():
        np.testing.assert_allclose(found.table[name], values.reshape(both.shape)[at], rtol=1e-9, err_msg=name)
    assert (found.table["q"] >= found.table["q_plain"] * (1 - 1e-12)).all()
    assert found.table.filter(pl.col("q") <= 0.05)["list"].n_unique() >= n
    # What was tested and the order of rows are as they were.
    untouched = [name for name in given.table.columns if name not in wanted or name == "p"]
    assert found.table.select(untouched).equals(given.table.select(untouched))
    assert asdict(found.family) == {**asdict(given.family), "pi0": storey(both.ravel()).pi0}


def test_pairs_beyond_the_reach_count_as_1() -> None:
    lists, members, matched = planted(6)
    plain, like = by_brute_force(lists, members, matched)
    both = np.maximum(plain, like)
    strata = Strata(members, matched)
    found = among_like(over_representation(lists, terms_of(members), most_p=0.05), lists, strata).table
    at = found["list"].to_numpy(), found["index"].to_numpy()
    assert len(found) == (plain <= 0.05).sum() < 0.3 * plain.size
    cut = stats.false_discovery_control(np.where(plain <= 0.05, both, 1.0).ravel()).reshape(both.shape)
    np.testing.assert_allclose(found["q"], cut[at], rtol=1e-9)
    full = stats.false_discovery_control(both.ravel()).reshape(both.shape)
    assert (cut >= full * (1 - 1e-12)).all()
    small = full <= 0.05  # up to the bound nothing changes
    assert small.sum() >= 6
    np.testing.assert_allclose(cut[small], full[small], rtol=1e-9)
    none = among_like(over_representation(lists, terms_of(members), most_p=1e-30), lists, strata).table
    assert not len(none)
    assert none.schema == found.schema


def test_it_is_a_test_that_finds_nothing_in_popular_genes() -> None:
    """Lists and terms that both prefer some genes share more than chance gives; like genes share as much."""
    rng = np.random.default_rng(0)
    chances = rng.lognormal(0.0, 1.2, 1500)
    members = popularity_lists(rng.integers(10, 80, 60), annotations=chances, seed=0)
    annotations = np.asarray(members.sum(axis=0, dtype=np.int64)).ravel()
    covariates = np.stack([rng.random(1500), rng.random(1500), annotations], axis=1)
    lists, terms = popularity_lists(np.full(150, 40), annotations=annotations + 1e-9, seed=2), terms_of(members)
    fine, wide = Matched(covariates, seed=0), Matched(covariates, seed=0, least=25)
    tests = by_over_representation(terms), by_over_representation(terms, strata=Strata(members, wide))
    plain, joint = (excess(test, lists, fine, first=20, most=20) for test in tests)
    assert plain.observed > 20
    assert not plain.clear  # null lists do as well
    assert joint.observed <= 1
    assert joint.excess_low <= 0 <= joint.excess_high


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"listed": [2]}, "outside 0 … 1"),
        ({"index": [-1]}, "outside 0 … 2"),
        ({"overlap": [1, 2]}, "differ in length"),
        ({"members": uniform_lists([3], n_genes=9, seed=0)}, "over 50 genes"),
    ],
)
def test_what_is_refused(change: dict[str, Any], says: str) -> None:
    lists, members = uniform_lists([4, 4], n_genes=50, seed=0), uniform_lists([9, 9, 9], n_genes=50, seed=0)
    asked = {"members": members, "listed": [0], "index": [0], "overlap": [1], **change}
    matched = Matched(np.arange(50.0), seed=0)
    with pytest.raises(DataError, match=says):
        Strata(asked.pop("members"), matched).p(lists, **asked)


def test_nothing_to_ask() -> None:
    lists, members = uniform_lists([4, 0], n_genes=50, seed=0), uniform_lists([9], n_genes=50, seed=0)
    matched = Matched(np.arange(50.0), seed=0)
    strata = Strata(members, matched)
    assert strata.p(lists, listed=[], index=[], overlap=[]).shape == (0,)
    assert strata.p(lists, listed=[1], index=[0], overlap=[0]).tolist() == [1.0]
    empty = by_over_representation(terms_of(members), strata=strata)(uniform_lists([0], n_genes=50, seed=0))
    assert (empty.q.tolist(), empty.p.tolist()) == ([1.0], [1.0])
