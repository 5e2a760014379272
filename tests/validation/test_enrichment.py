"""Over-representation against SciPy, published answers and chance; and that the whole family is counted."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.sparse import csr_array

from elute.base.errors import ConfigError, DataError
from elute.base.statistics.corrections import benjamini_hochberg, benjamini_yekutieli, storey
from elute.base.statistics.hypergeometric import Cells, in_chunks, log_upper_tail
from elute.validation import enrichment
from elute.validation.background import Background
from elute.validation.enrichment import more_than_chance, over_representation
from elute.validation.families import corrected
from elute.validation.terms import Terms

Rng = np.random.Generator


def sets(rng: Rng, sizes: Any, n_genes: int) -> csr_array[Any]:
    """Random sets of such sizes."""
    rows = [np.sort(rng.choice(n_genes, size, replace=False)) for size in sizes]
    places = np.concatenate([np.empty(0, np.int64), *rows]).astype(np.int32)
    ends = np.concatenate([[0], np.cumsum([len(row) for row in rows])])
    return csr_array((np.ones(len(places), np.int8), places, ends), shape=(len(rows), n_genes))


def terms_of(members: csr_array[Any]) -> Terms:
    n, width = members.shape
    names = tuple(f"T{i}" for i in range(n))
    background = Background(tuple(f"g{i}" for i in range(width)), f"{width} genes")
    return Terms(names, names, (None,) * n, members, background, "made up", {}, np.full(n, -1))


def expected(lists: csr_array[Any], terms: Terms) -> list[tuple[int, int, int, int, int]]:
    """List, term, overlap, size and size of all pairs, the plain way."""
    one, other = lists.toarray().astype(int), terms.members.toarray().astype(int)
    return [
        (i, t, int((a & b).sum()), int(a.sum()), int(b.sum())) for i, a in enumerate(one) for t, b in enumerate(other)
    ]


def small(seed: int = 0) -> tuple[csr_array[Any], Terms]:
    rng = np.random.default_rng(seed)
    return sets(rng, [0, 4, 10, 10, 40], 60), terms_of(sets(rng, [1, 5, 5, 30, 60], 60))


@pytest.mark.parametrize("alternative", ["greater", "less", "two-sided"])
def test_every_pair_is_what_scipy_says(alternative: Any) -> None:
    lists, terms = small()
    found = over_representation(lists, terms, alternative=alternative)
    pairs = expected(lists, terms)
    rows = {(row["list"], row["index"]): row for row in found.table.iter_rows(named=True)}
    assert set(rows) == {(i, t) for i, t, shared, _, _ in pairs if shared or alternative != "greater"}
    for i, t, shared, size, term in pairs:
        if (row := rows.get((i, t))) is None:
            continue
        cells = [[shared, size - shared], [term - shared, 60 - size - term + shared]]
        odds, p = stats.fisher_exact(cells, alternative=alternative)
        assert row["p"] == pytest.approx(p, rel=1e-10)
        assert row["log_p"] == pytest.approx(np.log(p), rel=1e-10, abs=1e-12)
        assert row["odds"] == pytest.approx(odds, nan_ok=True)
        assert (row["overlap"], row["list_size"], row["term_size"], row["background"]) == (shared, size, term, 60)
        assert row["expected"] == pytest.approx(size * term / 60)
        assert row["odds_low"] < row["odds_high"]
        assert row["term"] == f"T{t}"


def test_ten_thousand_tables_agree_with_fisher_exact() -> None:
    """Margins and overlaps from the least to the most that is possible, in a population of a few thousand."""
    rng, worst, n = np.random.default_rng(5), 0.0, 0
    for population in (30, 300, 1500, 3000, 5000):
        listed, term = rng.integers(1, population, (2, 2500))
        low, high = np.maximum(0, listed + term - population), np.minimum(listed, term)
        near = rng.hypergeometric(term, population - term, listed)
        shared = np.where(rng.random(2500) < 0.7, near, rng.integers(low, high + 1))
        listed, term, shared = np.unique(np.stack([listed, term, shared]), axis=1)
        cells = Cells(shared, listed - shared, term - shared, population - listed - term + shared)
        theirs = [
            stats.fisher_exact([[a, b], [c, d]], alternative="greater")[1] for a, b, c, d in zip(*cells, strict=True)
        ]
        some = np.array(theirs) > 1e-300
        worst = max(worst, np.abs(np.exp(enrichment._log_p(cells, "greater"))[some] / np.array(theirs)[some] - 1).max())
        n += some.sum()
    assert n > 10_000
    assert worst < 1e-10


def test_tails_followed_downwards_are_those_of_base_statistics() -> None:
    rng = np.random.default_rng(1)
    for population in (12, 300, 12_000, 1_000_000):
        n = 3000
        listed, term = (np.exp(rng.uniform(0, np.log(population), (2, n)))).astype(np.int64)
        low = np.maximum(0, listed + term - population)
        shared = np.where(
            rng.random(n) < 0.5,
            rng.integers(low, np.minimum(listed, term) + 1),
            rng.hypergeometric(term, population - term, listed),
        )
        # All values of some tables, too, so that there is much to follow.
        listed, term, shared = np.unique(np.stack([listed, term, shared]), axis=1)
        cells = Cells(shared, listed - shared, term - shared, population - listed - term + shared)
        theirs = in_chunks(log_upper_tail, cells)
        ours = enrichment._log_p(cells, "greater")
        assert np.abs(ours - theirs).max(initial=0, where=theirs > -600) < 1e-9  # as a relative error of p
        np.testing.assert_allclose(ours, theirs, rtol=1e-9, atol=1e-11)
    every = np.arange(401)
    cells = Cells(every, 400 - every, 400 - every, 1200 + every)
    np.testing.assert_allclose(enrichment._log_p(cells, "greater"), in_chunks(log_upper_tail, cells), atol=1e-11)


def test_the_answers_of_hpo_for_eight_genes_of_the_heart() -> None:
    """HPO 2025-01-16, MYH7 TNNT2 TTN LMNA MYBPC3 TPM1 ACTC1 TNNI3: 8 of 8 among 184, 291 and 580 of 5,124 genes."""
    members = csr_array(
        (np.ones(184 + 291 + 580, np.int8), np.r_[:184, :291, :580], [0, 184, 475, 1055]), shape=(3, 5124)
    )
    lists = csr_array((np.ones(8, np.int8), np.arange(8), [0, 8]), shape=(1, 5124))
    table = over_representation(lists, terms_of(members)).table
    assert table["p"].to_list() == pytest.approx([2.3825e-12, 9.874e-11, 2.581e-8], rel=5e-4)


def test_chosen_pairs_are_those_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pair by itself is what the whole family says of it; one that shares nothing, or has no gene, has p = 1."""
    monkeypatch.setattr(enrichment, "PAIRS", 7)
    lists, terms = small(1)
    pairs = expected(lists, terms)
    order = np.random.default_rng(0).permutation(np.repeat(np.arange(len(pairs)), 2))
    chosen = [pairs[i] for i in order]
    listed, index = (np.array([pair[at] for pair in chosen]) for at in (0, 1))
    shared, p = more_than_chance(lists, terms, listed=listed, index=index)
    assert shared.tolist() == [k for _, _, k, _, _ in chosen]
    np.testing.assert_allclose(
        p, [stats.hypergeom.sf(k - 1, 60, term, size) for _, _, k, size, term in chosen], rtol=1e-10
    )
    rows = {
        (i, t): (k, p)
        for i, t, k, p in over_representation(lists, terms).table.select("list", "index", "overlap", "p").iter_rows()
    }
    assert 0 < len(rows) < len(pairs)
    for i, t, k, value in zip(listed.tolist(), index.tolist(), shared.tolist(), p.tolist(), strict=True):
        assert (k, value) == (rows[i, t][0], pytest.approx(rows[i, t][1], rel=1e-10)) if (i, t) in rows else (0, 1.0)
    none = more_than_chance(lists, terms, listed=listed[:0], index=index[:0])
    assert [len(each) for each in none] == [0, 0]


def test_the_family_is_all_lists_times_all_terms() -> None:
    lists, terms = small()
    found = over_representation(lists, terms)
    p = np.array([stats.hypergeom.sf(k - 1, 60, term, size) for _, _, k, size, term in expected(lists, terms)])
    keys = found.table["list"].to_numpy() * 5 + found.table["index"].to_numpy()
    for column, wanted in (
        ("q", benjamini_hochberg(p)),
        ("q_by", benjamini_yekutieli(p)),
    ):
        np.testing.assert_allclose(found.table[column].to_numpy(), wanted[keys], rtol=1e-9)
    family = found.family
    assert (family.lists, family.terms, family.tests) == (5, 5, 25)
    assert family.kept + family.left_out + family.without == 25
    assert family.without == sum(k == 0 for _, _, k, _, _ in expected(lists, terms))
    assert family.correction == "Benjamini–Hochberg over all 5 lists × 5 terms = 25 tests"
    assert (family.background, family.source) == ("60 genes", "made up")


def test_a_family_without_any_overlap() -> None:
    lists = csr_array(np.array([[1, 1, 0, 0], [0, 0, 0, 0]], np.int8))
    terms = terms_of(csr_array(np.array([[0, 0, 1, 1], [0, 0, 1, 0]], np.int8)))
    found = over_representation(lists, terms)
    assert len(found.table) == 0
    assert (found.family.tests, found.family.without) == (4, 4)
    assert found.table.schema == over_representation(*small()).table.schema


@given(
    st.lists(st.tuples(st.just(0.0) | st.floats(1e-290, 1), st.integers(1, 5)), min_size=1, max_size=40),
    st.integers(0, 300),
    st.integers(1, 150),
)
@settings(max_examples=60, deadline=None)
def test_what_is_not_handed_over_whole_is_corrected_as_if_it_were(
    pairs: list[tuple[float, int]], more: int, most: int
) -> None:
    pairs.sort()
    p, times = np.array([p for p, _ in pairs]), np.array([n for _, n in pairs])
    tests = int(times.sum()) + more
    every = np.repeat(p, times)
    last = np.cumsum(times) - 1
    found = corrected(p, times, tests=tests, most=most)
    known = ~np.isnan(found.q)
    assert known.sum() >= (np.cumsum(times) <= most).sum()
    np.testing.assert_allclose(found.q[known], benjamini_hochberg(every, n_tests=tests)[last][known], rtol=1e-12)
    np.testing.assert_allclose(found.q_by[known], benjamini_yekutieli(every, n_tests=tests)[last][known], rtol=1e-9)
    whole = storey(every, n_tests=tests)
    assert np.all(found.q_storey[known] >= whole.q[last][known] * (1 - 1e-9))
    if known.all():
        np.testing.assert_allclose(found.q_storey, whole.q[last])
        assert found.pi0 == whole.pi0


def test_p_values_that_are_left_out_still_lower_the_q_values_before_them() -> None:
    """One test at 0.02 and nine at 0.03, of ten: each q is 0.03, though the nine are too many to hand over."""
    found = corrected(np.array([0.02, 0.03]), np.array([1, 9]), tests=10, most=1)
    assert found.q[0] == found.q_storey[0] == pytest.approx(0.03)
    assert np.isnan(found.q[1])
    assert found.q_by[0] == pytest.approx(0.03 * (1 / np.arange(1, 11)).sum())


def test_bounds_choose_rows_and_change_nothing_in_them(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    lists, terms = sets(rng, rng.integers(5, 40, 60), 300), terms_of(sets(rng, rng.integers(5, 40, 50), 300))
    full = over_representation(lists, terms)
    assert full.family.left_out == 0
    for bounds, wanted in (
        ({"most_p": 0.05}, full.table.filter(pl.col("p") <= 0.05)),
        ({"most_q": 0.9}, full.table.filter(pl.col("q") <= 0.9)),
    ):
        found = over_representation(lists, terms, **bounds)
        assert found.table.equals(wanted)
        assert found.family.left_out == len(full.table) - len(wanted) > 0
    assert 50 < over_representation(lists, terms, most_rows=100).family.kept <= 100
    monkeypatch.setattr(enrichment, "GIVEN", 100)  # of a family this small a large one's way is seen
    few = over_representation(lists, terms, most_rows=100)
    assert 50 < len(few.table) <= 100
    same = full.table.join(few.table.select("list", "index"), on=["list", "index"], how="semi")
    for column in full.table.columns:
        if column != "q_storey":
            assert few.table[column].equals(same[column]) or np.allclose(few.table[column], same[column], rtol=1e-12)
    assert few.table["p"].max() <= full.table.join(few.table, on=["list", "index"], how="anti")["p"].min()


def test_rows_stand_by_list_and_within_one_by_p() -> None:
    rng = np.random.default_rng(4)
    lists, terms = sets(rng, rng.integers(5, 40, 20), 200), terms_of(sets(rng, rng.integers(5, 40, 30), 200))
    table = over_representation(lists, terms).table
    assert table.equals(table.sort("list", "log_p", "index"))


def test_no_pair_of_any_sizes_is_lost() -> None:
    rng = np.random.default_rng(6)
    lists, terms = sets(rng, np.arange(1, 200), 250), terms_of(sets(rng, np.arange(1, 120), 250))
    whole = over_representation(lists, terms, alternative="two-sided")
    overlaps = (lists.astype(np.int64) @ terms.members.astype(np.int64).T).toarray()
    found = np.zeros_like(overlaps)
    found[whole.table["list"].to_numpy(), whole.table["index"].to_numpy()] = whole.table["overlap"].to_numpy()
    np.testing.assert_array_equal(found, overlaps)
    assert len(whole.table) == 199 * 119


def test_a_p_value_too_small_for_a_float_still_has_a_logarithm() -> None:
    n = 3000
    members = csr_array((np.ones(n, np.int8), np.arange(n), [0, n]), shape=(1, 12_000))
    table = over_representation(members, terms_of(members)).table
    assert table["p"][0] == 0.0
    assert table["q"][0] == 0.0
    wanted = in_chunks(log_upper_tail, Cells(*(np.array([x]) for x in (n, 0, 0, 12_000 - n))))[0]
    assert table["log_p"][0] == pytest.approx(wanted, rel=1e-12)
    assert wanted < -6000


@pytest.mark.parametrize(
    ("lists", "asked", "words"),
    [
        (np.ones((1, 59)), {}, "has shape (1, 59) over a background of 60 genes"),
        (np.ones((0, 60)), {}, "has shape (0, 60)"),
        (np.full((1, 60), 2), {}, "holds other numbers than 0 and 1"),
        (np.ones((1, 60)), {"alternative": "more"}, "'more' is not a choice"),
        (np.ones((1, 60)), {"most_rows": 0}, "most_rows"),
        (np.ones((1, 60)), {"most_p": 0.0}, "most_p"),
        (np.ones((1, 60)), {"most_q": 1.5}, "most_q"),
    ],
)
def test_what_cannot_be_tested_is_refused_in_one_line(lists: Any, asked: dict[str, Any], words: str) -> None:
    with pytest.raises((DataError, ConfigError)) as caught:
        over_representation(csr_array(lists), small()[1], **asked)
    assert words in caught.value.line()


def test_stored_zeros_and_unsorted_genes_are_put_right() -> None:
    _, terms = small()
    tidy = csr_array(np.eye(2, 60, dtype=np.int8))
    untidy = csr_array((np.array([0, 1, 1]), np.array([5, 0, 1]), [0, 2, 3]), shape=(2, 60))
    assert over_representation(untidy, terms).table.equals(over_representation(tidy, terms).table)


def shares(alternative: Any, *, popular: bool, full: bool) -> float:
    """The share of 100 runs on random lists in which any pair has q < 0.05."""
    rng = np.random.default_rng([1, popular])
    terms = terms_of(sets(rng, rng.integers(5, 60, 40), 400))
    weight = (np.arange(400) + 20.0) ** -0.5 if popular else np.ones(400)
    hits = 0
    for _ in range(100):
        keys = rng.exponential(size=(8, 400)) / weight
        members = csr_array((keys <= np.sort(keys, axis=1)[:, 29:30]).astype(np.int8))
        found = over_representation(members, terms, alternative=alternative, most_q=0.05 if full else 1.0).table
        if full:
            hits += len(found) > 0
        else:  # the flaw of public code: only pairs that share two genes or more, list by list
            rows = found.filter(pl.col("overlap") >= 2).partition_by("list")
            hits += any((benjamini_hochberg(part["p"].to_numpy()) < 0.05).any() for part in rows)
    return hits / 100


@pytest.mark.parametrize("alternative", ["greater", "two-sided"])
def test_random_lists_are_found_no_more_often_than_promised(alternative: Any) -> None:
    assert shares(alternative, popular=False, full=True) * 100 <= stats.binom.ppf(0.999, 100, 0.05)


def test_popular_genes_alone_find_nothing_in_random_terms() -> None:
    assert shares("greater", popular=True, full=True) * 100 <= stats.binom.ppf(0.999, 100, 0.05)


def test_correcting_after_a_filter_on_overlap_would_be_seen_here() -> None:
    assert shares("greater", popular=False, full=False) > 0.15


def test_a_planted_term_is_found_first() -> None:
    rng = np.random.default_rng(8)
    terms = terms_of(sets(rng, rng.integers(10, 80, 200), 2000))
    planted = terms.members[[17]].indices[:20]
    noise = np.setdiff1d(rng.choice(2000, 30, replace=False), planted)
    row = np.zeros((1, 2000), np.int8)
    row[0, np.concatenate([planted[:8], noise])] = 1
    table = over_representation(csr_array(row), terms).table
    assert table["term"][0] == "T17"
    assert table["q"][0] < 1e-4
    assert table["odds_low"][0] > 1


@pytest.mark.real_data
def test_known_lists_come_out_at_the_top_of_real_libraries(real_data: Path) -> None:
    from elute.validation.background import Part, of_parts
    from elute.validation.reading import gmt
    from elute.validation.terms import lists_of, term_sets

    interferon = [
        "ISG15",
        "IFI6",
        "IFIT1",
        "IFIT2",
        "IFIT3",
        "MX1",
        "OAS1",
        "OASL",
        "RSAD2",
        "CXCL10",
        "IRF7",
        "USP18",
        "BST2",
    ]
    ribosome = ["RPL3", "RPL5", "RPL7", "RPL11", "RPL13", "RPL23", "RPS3", "RPS6", "RPS8", "RPS14", "RPS27A", "RPLP0"]
    for name, wanted in (
        ("human_hallmark_v2025", ["HALLMARK_INTERFERON_ALPHA_RESPONSE", "HALLMARK_MYC_TARGETS_V1"]),
        ("human_go_cc_v2025", [None, "GOCC_CYTOSOLIC_RIBOSOME"]),
        (
            "human_reactome_v2025",
            ["REACTOME_INTERFERON_ALPHA_BETA_SIGNALING", "REACTOME_EUKARYOTIC_TRANSLATION_ELONGATION"],
        ),
    ):
        table = gmt.read(real_data / "genesets" / f"{name}.gmt").table
        background = of_parts([Part(table["gene"].unique().to_list(), f"annotated in {name}")])
        terms = term_sets(table, background, source=name)
        found = over_representation(lists_of([interferon, ribosome], background).members, terms, most_q=0.05)
        top = dict(found.table.group_by("list", maintain_order=True).first().select("list", "term").iter_rows())
        assert [top.get(0), top.get(1)] == wanted
        assert found.family.tests == 2 * len(terms)


def test_memory_does_not_grow_with_pairs(monkeypatch: pytest.MonkeyPatch) -> None:
    """Eight million pairs in less than a third of what one number for each would take."""
    import tracemalloc

    rng = np.random.default_rng(9)
    lists, terms = sets(rng, [20] * 4000, 500), terms_of(sets(rng, rng.integers(5, 30, 2000), 500))
    over_representation(lists[:5], terms, most_q=0.05)
    monkeypatch.setattr(enrichment, "GIVEN", 1 << 16)
    tracemalloc.start()
    found = over_representation(lists, terms, most_rows=10_000)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert found.family.tests == 8_000_000
    assert 1000 < found.family.kept <= 10_000
    assert peak < 20e6
