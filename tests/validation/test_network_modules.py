"""Coherence and modules: exact by enumeration, alike to matched draws, and at their level where STRING's test is not."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import polars as pl
import pytest
import torch
from scipy import sparse

from elute.base.errors import ConfigError, DataError
from elute.base.statistics.corrections import benjamini_hochberg
from elute.base.statistics.matching import matched_controls
from elute.base.statistics.ranks import rank_columns
from elute.validation.background import Background
from elute.validation.network import Network, interactions, network_of, sub_network
from elute.validation.network_modules import coherence, degree_strata, hubs, module_tests, modules_of


def network(edges: Iterable[tuple[int, int]], n: int) -> Network:
    names = [f"G{i:04d}" for i in range(n)]
    table = pl.DataFrame([(names[a], names[b], 0.9) for a, b in edges], schema=["gene", "label", "score"], orient="row")
    return network_of(table, Background(tuple(names), f"{n} genes: made up"))


def lists(places: Sequence[Iterable[int]], n: int) -> Any:
    rows = [(i, int(p)) for i, each in enumerate(places) for p in each]
    data = (np.ones(len(rows), np.int8), tuple(np.array(rows, dtype=np.int64).reshape(-1, 2).T))
    return sparse.csr_array(data, shape=(len(places), n))


@cache
def modular() -> Network:
    """1,500 genes: modules of 10 to 40 that are denser the larger they are, as complexes are; and a few links beside."""
    rng, edges, start = np.random.default_rng(7), set(), 0
    for size in (40, 40, 30, 30, 20, 20, 20, *[10] * 30):
        members = range(start, start + size)
        edges |= {pair for pair in itertools.combinations(members, 2) if rng.random() < 0.02 * size}
        start += size
    others = np.sort(rng.integers(0, 1200, (1500, 2)), axis=1)
    return network(edges | {(a, b) for a, b in others.tolist() if a < b}, 1500)


def by_degree(n: int, size: int, *, seed: int, power: float = 1.0) -> list[Any]:
    """Lists that favour genes of many interactions, and know nothing else of them."""
    rng, weight = np.random.default_rng(seed), modular().degrees.astype(float) ** power
    return [rng.choice(1500, size, replace=False, p=weight / weight.sum()) for _ in range(n)]


def test_p_is_that_of_all_exchanges_within_strata() -> None:
    edges = [(0, 1), (0, 2), (1, 2), (2, 3), (0, 6), (1, 6), (4, 7), (5, 8), (6, 7), (3, 9)]
    known, strata = network(edges, 10), np.array([0] * 6 + [1] * 4)
    graph = nx.Graph(edges)
    counts = [
        graph.subgraph([*pair, one]).number_of_edges()
        for pair in itertools.combinations(range(6), 2)
        for one in range(6, 10)
    ]
    given = [[0, 1, 6], [2, 3, 9], [4, 5, 7], [3, 4, 8]]
    found = coherence(lists(given, 10), known, seed=3, n_draws=20_000, most_draws=20_000, strata=strata)
    assert found.observed.tolist() == [3, 2, 1, 0]
    for i in range(4):
        exact = np.mean([k >= found.observed[i] for k in counts])
        assert found.p[i] == pytest.approx(exact, abs=4 * math.sqrt(exact * (1 - exact) / 20_000) + 1e-4)
        assert found.mean[i] == pytest.approx(np.mean(counts), abs=4 * np.std(counts) / math.sqrt(20_000))
        assert found.sd[i] == pytest.approx(np.std(counts), rel=0.03)


def test_draws_are_like_those_of_matched_controls() -> None:
    known, given = modular(), by_degree(3, 30, seed=1)
    strata = degree_strata(known)
    found = coherence(lists(given, 1500), known, seed=0, n_draws=2000, most_draws=2000)
    for i, places in enumerate(given):
        # Bins as fine as strata are strata.
        drawn = matched_controls(places, strata.astype(float), seed=1, n_draws=2000, n_bins=3000, too_few="fill")
        counts = interactions(lists(drawn.draws, 1500), known).observed
        assert found.mean[i] == pytest.approx(counts.mean(), abs=5 * counts.std() * math.sqrt(2 / 2000))
        assert found.sd[i] == pytest.approx(counts.std(), rel=0.1)
        assert found.p[i] == pytest.approx((counts >= found.observed[i]).mean(), abs=0.06)


def test_lists_that_favour_well_studied_genes_are_found_by_string_s_test_and_not_by_this() -> None:
    given = lists(by_degree(400, 30, seed=2), 1500)
    theirs = interactions(given, modular())
    ours = coherence(given, modular(), seed=2, n_draws=199, most_draws=199)
    assert (theirs.p <= 0.05).mean() > 0.3
    assert 0.01 < (ours.p <= 0.05).mean() < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 400)
    assert (theirs.q <= 0.05).sum() > 50
    assert (ours.q <= 0.05).sum() == 0


def test_no_list_is_found_under_the_null_and_the_excess_holds_nothing() -> None:
    wrong = held = 0
    for seed in range(40):
        given = lists(by_degree(60, 20, seed=100 + seed), 1500)
        found = coherence(given, modular(), seed=seed, n_draws=99, level=0.05)
        wrong += bool((found.q <= 0.05).any())
        held += found.excess[1] <= 0 <= found.excess[2]
    assert wrong <= 6  # 5% of 40 are 2; more than 6 come in one run of 500
    assert held >= 34


def test_planted_lists_are_found_among_many_others() -> None:
    planted = [{*range(140, 155), *places} for places in by_degree(3, 15, seed=5)]
    given = lists([*planted, *by_degree(400, 30, seed=6), [1499]], 1500)
    found = coherence(given, modular(), seed=1, n_draws=199)
    assert (found.q[:3] < 0.05).all()
    assert (found.q[3:] < 0.05).sum() <= 1
    assert found.p[-1] == found.q[-1] == 1.0
    np.testing.assert_allclose(found.q, benjamini_hochberg(found.p))
    # With 199 draws no list of 404 could have been found: those that were reached seldom went on.
    assert found.draws.min() == 199
    assert found.draws[:3].tolist() == [19_999] * 3  # where 4 lists at most go on, 404 / 20,000 / 4 is below 0.01
    assert set(found.draws.tolist()) <= {199, 1_999, 19_999}
    assert 1 / (1 + found.draws.min()) * 404 > 0.05
    assert found.found >= 3
    assert found.summary().startswith(f"{found.found} of 404 lists interact more than lists of the same degrees")


def test_the_null_of_their_number_is_what_each_draw_would_have_found() -> None:
    given = lists(by_degree(80, 30, seed=11), 1500)
    for level in (0.01, 0.05, 0.2):
        found = coherence(given, modular(), seed=4, n_draws=199, most_draws=199, level=level)
        assert found.found == (found.p <= level).sum()
        # Counted, the p-values of draws are those of ranks: short of the level by no more than ties make them.
        assert 0.5 * level * 80 < found.null_found.mean() <= level * 80
        low, high = np.quantile(found.null_found, [0.025, 0.975])
        assert found.excess == (found.found - found.null_found.mean(), found.found - high, found.found - low)


def test_of_several_nulls_the_strictest_counts() -> None:
    """Genes of a module are alike in what is not their degree, too: lists that follow that are no finding."""
    other = np.zeros(1500, np.int64)
    other[200:240] = 1  # four modules whose genes are also, say, well annotated
    lists_of_other = [200 + np.random.default_rng(i).choice(40, 15, replace=False) for i in range(60)]
    given = lists([*lists_of_other, *by_degree(60, 30, seed=13)], 1500)
    settings = {"seed": 0, "n_draws": 199, "most_draws": 199, "level": 0.05}
    degrees = degree_strata(modular())
    one = coherence(given, modular(), strata=degrees, **settings)
    two = coherence(given, modular(), strata=other, **settings)
    both = coherence(given, modular(), strata=[degrees, other], **settings)
    assert (one.p <= 0.05)[:60].mean() > 0.5
    assert (two.p <= 0.05)[60:].mean() > 0.5
    assert (both.p <= 0.05).mean() < 0.12
    np.testing.assert_allclose(both.p, np.maximum(one.p, two.p), atol=0.15)
    assert both.found == (both.p <= 0.05).sum() < one.found
    assert both.null_found.mean() <= 6.0


def test_the_family_may_be_larger_than_what_is_given() -> None:
    given = lists([range(40), *by_degree(3, 20, seed=5)], 1500)
    one = coherence(given, modular(), seed=1, most_draws=999)
    more = coherence(given, modular(), seed=1, most_draws=999, n_tests=40)
    assert one.q[0] == pytest.approx(4 * 0.001)
    assert more.q[0] == pytest.approx(40 * 0.001)


def test_lists_share_their_draws() -> None:
    """Copies of one list are found together or not at all, so the null of their number is wide."""
    places = by_degree(1, 30, seed=9)
    found = coherence(lists(places * 50, 1500), modular(), seed=0, n_draws=199, most_draws=199, level=0.05)
    assert set(found.null_found.tolist()) == {0, 50}
    assert len(set(found.mean)) == len(set(found.p)) == 1
    assert found.excess[1] <= 0 <= found.excess[2]


def test_a_seed_gives_one_answer_whatever_the_threads_and_the_others() -> None:
    given = lists(by_degree(20, 30, seed=3), 1500)
    first = coherence(given, modular(), seed=1, n_draws=199)
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3 - min(threads, 2))
        again = coherence(given, modular(), seed=1, n_draws=199)
    finally:
        torch.set_num_threads(threads)
    np.testing.assert_array_equal(first.p, again.p)
    np.testing.assert_array_equal(first.null_found, again.null_found)
    assert (first.p != coherence(given, modular(), seed=2, n_draws=199).p).any()


def test_strata_are_neighbouring_degrees_of_enough_genes() -> None:
    known = modular()
    codes, degrees = degree_strata(known), known.degrees
    assert (degrees == 0).any()
    ends = [(degrees[codes == code].min(), degrees[codes == code].max()) for code in range(codes.max() + 1)]
    assert all(before[1] < after[0] for before, after in itertools.pairwise(ends))
    assert ends[0] == (0, 0)
    assert np.bincount(codes)[1:].min() >= 50
    # As fine as that allows: no stratum but the last could be cut in two.
    for code in range(1, codes.max()):
        inside = np.sort(degrees[codes == code])
        cuts = np.flatnonzero(np.diff(inside)) + 1
        assert not ((cuts >= 50) & (len(inside) - cuts >= 50)).any()
    within = np.arange(1500) % 2
    halves = degree_strata(known, within=within, least=20)
    assert all(len(set(within[halves == code])) == 1 for code in np.unique(halves))
    assert np.bincount(halves)[np.unique(halves[degrees > 0])].min() >= 20


def test_settings_that_cannot_be_are_refused() -> None:
    given = lists([range(5)], 1500)
    with pytest.raises(ConfigError, match="50 is not a whole number of at least 99"):
        coherence(given, modular(), seed=0, n_draws=50)
    with pytest.raises(DataError, match="is not one whole number a gene"):
        coherence(given, modular(), seed=0, strata=np.zeros(3, np.int64))
    with pytest.raises(DataError, match=r"has shape \(2,\) for 1500 genes"):
        degree_strata(modular(), within=np.zeros(2))
    with pytest.raises(ConfigError, match="0 is not above 0"):
        modules_of(sub_network(modular(), range(5)), resolution=0.0)


TRIANGLES = [(0, 1), (0, 2), (1, 2), (2, 3), (3, 4), (3, 5), (4, 5), (6, 7)]


def test_modules_are_communities_largest_first() -> None:
    sub = sub_network(network([*TRIANGLES, (5, 8), (4, 8)], 10), range(10))
    found = modules_of(sub)
    assert found.module.tolist() == [1, 1, 1, 0, 0, 0, 2, 2, 0, -1]
    assert found.sizes == (4, 3, 2)
    # Σ of the share of links inside less the share expected, of 10 links: by hand.
    assert found.modularity == pytest.approx(5 / 10 - (11 / 20) ** 2 + 3 / 10 - (7 / 20) ** 2 + 1 / 10 - (2 / 20) ** 2)
    assert modules_of(sub, resolution=0.01).sizes == (7, 2)
    empty = modules_of(sub_network(sub.network, [0, 4, 9]))
    assert (empty.module.tolist(), empty.sizes, empty.modularity) == ([-1, -1, -1], (), None)
    tested = module_tests(sub_network(sub.network, [0, 4, 9]), empty, seed=0)
    assert len(tested.p) == len(tested.log_p) == 0


def test_modules_of_a_seed_are_the_same() -> None:
    sub = sub_network(modular(), by_degree(1, 60, seed=4)[0])
    found = [modules_of(sub, seed=seed).module.tolist() for seed in (0, 0, 1, 2, 3)]
    assert found[0] == found[1]
    finer = modules_of(sub, resolution=4.0)
    assert len(finer.sizes) >= len(modules_of(sub).sizes)
    assert sum(finer.sizes) == (sub.inside > 0).sum()


def test_a_module_is_tested_against_the_best_of_the_same_search() -> None:
    found = theirs = 0
    for i, places in enumerate(by_degree(40, 25, seed=8)):
        sub = sub_network(modular(), places)
        tested = module_tests(sub, modules_of(sub), seed=i, n_draws=19)
        found += (tested.p <= 0.05).any()
        theirs += (np.exp(tested.log_p) <= 0.05).any()
    assert found <= 7  # 5% of 40 are 2; more than 7 come in one run of 1,000
    assert theirs >= 32  # by STRING's formula nearly every list holds a module


def test_a_planted_module_is_found_and_the_rest_is_not() -> None:
    sub = sub_network(modular(), [*range(140, 155), *by_degree(1, 20, seed=12, power=0.5)[0]])
    found = modules_of(sub)
    tested = module_tests(sub, found, seed=0, n_draws=99)
    inside = found.module[np.isin(sub.genes, range(140, 155))]
    planted = np.bincount(inside + 1).argmax() - 1
    without = np.setdiff1d(found.module, [*inside, -1])
    assert tested.p[planted] == 0.01
    assert len(without) > 1
    assert (tested.p[without] > 0.05).all()
    assert tested.observed[planted] > 10
    np.testing.assert_array_equal(tested.p, module_tests(sub, found, seed=0, n_draws=99).p)


def test_hubs_exceed_what_their_degree_gives() -> None:
    star = [(0, i) for i in range(1, 60)]
    known = network([*star, (1, 2), (1, 3), (1, 4), (2, 3)], 60)
    found = hubs(sub_network(known, [0, 1, 2, 3, 4]), most=3)
    degree, m = known.degrees, known.n_links
    for hub in found:
        i = int(hub.gene[1:])
        expected = sum(1 - math.exp(-degree[i] * degree[j] / (2 * m)) for j in range(5) if j != i)
        assert (hub.expected, hub.degree) == (pytest.approx(expected), degree[i])
    # Gene 0 has as many inside as gene 1, and would have in any list.
    assert [(hub.name, hub.inside) for hub in found] == [("G0001", 4), ("G0002", 3), ("G0003", 3)]
    assert hubs(sub_network(known, [10, 20])) == []


@cache
def human(folder: Path) -> Network:
    path = folder / "genesets" / "string_v12_highconf_no_textmining.tsv.gz"
    pairs = pl.read_csv(path, separator="\t", columns=["gene1", "gene2", "combined_score"])
    pairs = pairs.rename({"gene1": "gene", "gene2": "label"}).with_columns(score=pl.col("combined_score") / 1000)
    genes = {*pairs["gene"], *pairs["label"], *(f"ABSENT{i}" for i in range(2000))}
    return network_of(pairs, Background(tuple(sorted(genes)), "real"))


def drawn(weight: Any, n: int) -> Any:
    rng, share = np.random.default_rng(0), weight / weight.sum()
    return lists([rng.choice(len(weight), 50, replace=False, p=share) for _ in range(n)], len(weight))


@pytest.mark.real_data
def test_string_itself_finds_lists_of_hubs_and_this_does_not(real_data: Path) -> None:
    known = human(real_data)
    for power, found_by_string in ((0.0, (0.0, 0.04)), (1.0, (0.45, 0.65)), (1.5, (0.9, 1.0))):
        given = drawn(known.degrees.astype(float) ** power, 300)
        low, high = found_by_string
        assert low <= (interactions(given, known).p <= 0.05).mean() <= high
        ours = coherence(given, known, seed=1, n_draws=199, most_draws=199)
        assert (ours.p <= 0.05).mean() < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)


@pytest.mark.real_data
def test_lists_of_well_annotated_genes_take_a_second_null(real_data: Path) -> None:
    known = human(real_data)
    terms = (real_data / "genesets" / "enrichr.GO_Biological_Process_2021.gmt").read_text().splitlines()
    many = Counter(gene for term in terms for gene in term.split("\t")[2:])
    annotated = np.array([many[name] for name in known.names], dtype=float)
    # Strata of 30 genes and more, cut between numbers of annotations.
    strata = [degree_strata(known), np.floor(rank_columns(annotated[:, None])[0][:, 0] / 30).astype(np.int64)]
    for power, by_degree_alone in ((1.0, 0.08), (2.0, 0.5)):
        given = drawn(annotated**power, 300)
        one, both = (coherence(given, known, seed=1, n_draws=199, most_draws=199, strata=s) for s in (None, strata))
        assert (one.p <= 0.05).mean() > by_degree_alone
        assert (both.p <= 0.05).mean() < 0.05 + 3 * math.sqrt(0.05 * 0.95 / 300)
    complexes = [[i for i, g in enumerate(known.names) if g.startswith(n)] for n in ("PSMB", "RPL", "NDUFA", "MRPS")]
    assert (coherence(lists(complexes, len(known.names)), known, seed=0, strata=strata).p == 0.001).all()
