"""The network and STRING's test: its published answers, brute force, exact tails, and what it does on random lists."""

from __future__ import annotations

import itertools
import json
import math
import re
from collections.abc import Iterable, Sequence
from decimal import Decimal, localcontext
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import polars as pl
import pytest
from scipy import sparse

from elute.base.errors import ConfigError, DataError
from elute.base.statistics.corrections import benjamini_hochberg
from elute.validation import library
from elute.validation.background import Background
from elute.validation.mapping import identify
from elute.validation.network import Network, expected_links, interactions, log_tail, network_of, sub_network
from elute.validation.terms import lists_of

KARATE = ([0, 1, 2, 3, 7, 13], [4, 9, 11, 14, 20, 26], [32, 33, 8, 30, 29, 23])


def gene(i: int) -> str:
    return f"G{i:04d}"


def table(edges: Iterable[tuple[int, int, float]]) -> pl.DataFrame:
    """Pairs from both sides, as STRING's reader and the mapping without HGNC's table leave them."""
    edges = list(edges)
    rows = [(gene(a), f"STRING:{b}", gene(b), s, None, gene(a)) for a, b, s in edges]
    rows += [(gene(b), f"STRING:{a}", gene(a), s, None, gene(b)) for a, b, s in edges]
    schema = {"gene": str, "term": str, "label": str, "score": float, "hgnc": str, "symbol": str}
    return pl.DataFrame(rows, schema=schema, orient="row")


def network(edges: Iterable[tuple[int, int]], n: int, **settings: Any) -> Network:
    background = Background(tuple(gene(i) for i in range(n)), f"{n} genes: made up")
    return network_of(table((a, b, 0.9) for a, b in edges), background, **settings)


def lists(places: Sequence[Iterable[int]], n: int) -> Any:
    rows = [(i, p) for i, each in enumerate(places) for p in each]
    data = (np.ones(len(rows), np.int8), tuple(np.array(rows, dtype=np.int64).reshape(-1, 2).T))
    return sparse.csr_array(data, shape=(len(places), n))


def karate() -> Network:
    return network(nx.karate_club_graph().edges(), 34)


def exact_tail(k: int, rate: float, most: int) -> float:
    """log of P(k ≤ X ≤ most) / P(X ≤ most) in 60 digits."""
    with localcontext() as context:
        context.prec = 60
        lam = Decimal(rate)
        terms = [lam**j / Decimal(math.factorial(j)) for j in range(most + 1)]
        return float((sum(terms[k:]) / sum(terms)).ln())


def test_string_gives_its_published_answers() -> None:
    club = karate()
    assert (club.n_links, club.degrees[KARATE[0]].tolist()) == (78, [16, 9, 10, 6, 4, 5])
    found = interactions(lists(KARATE, 34), club)
    assert found.observed.tolist() == [14, 0, 11]
    assert found.expected[0] == pytest.approx(7.022733, abs=1e-6)
    assert found.p[0] == pytest.approx(0.0106808, abs=1e-7)
    assert interactions(lists(KARATE, 34), club, self_pairs=False).p[0] == pytest.approx(5.08e-4, rel=1e-3)


@pytest.mark.real_data
def test_string_gives_every_reference_answer(real_data: Path) -> None:
    path = real_data / "databases" / "string" / "reference_ppi_enrichment_karate.json"
    told = [each for each in json.loads(path.read_text()).values() if isinstance(each, dict)]
    club, given = karate(), lists([each["nodes"] for each in told], 34)
    assert len(told) == 3
    for name, self_pairs in (("STRINGdb_R_formula", True), ("without_self_pairs", False)):
        found = interactions(given, club, self_pairs=self_pairs)
        assert found.observed.tolist() == [each[name]["edges"] for each in told]
        assert (found.linked * (found.linked - 1) // 2).tolist() == [each[name]["kmax"] for each in told]
        np.testing.assert_allclose(found.expected, [each[name]["lam"] for each in told], rtol=1e-12)
        np.testing.assert_allclose(found.p, [each[name]["p"] for each in told], rtol=1e-11)


@pytest.mark.parametrize("seed", range(4))
def test_observed_and_expected_are_those_of_counting_every_pair(seed: int) -> None:
    rng = np.random.default_rng(seed)
    n = 40
    edges = [pair for pair in itertools.combinations(range(30), 2) if rng.random() < 0.1 + 0.4 * (pair[0] < 4)]
    known = network(edges, n)
    chosen = [rng.choice(n, size, replace=False).tolist() for size in (0, 1, 2, 12, 40)]
    found, m = interactions(lists(chosen, n), known), len(edges)
    degree = [sum(i in pair for pair in edges) for i in range(n)]
    for i, places in enumerate(chosen):
        pairs = list(itertools.combinations(sorted(places), 2))
        both = sum(pair in set(edges) for pair in pairs)
        lam = sum(1 - math.exp(-degree[a] * degree[b] / (2 * m)) for a, b in [*pairs, *((p, p) for p in places)])
        assert found.observed[i] == both
        assert found.linked[i] == sum(degree[p] > 0 for p in places)
        assert found.expected[i] == pytest.approx(lam, rel=1e-12, abs=1e-14)
        most = int(found.linked[i] * (found.linked[i] - 1) // 2)
        assert found.log_p[i] == pytest.approx(exact_tail(both, lam, most) if both else 0.0, rel=1e-9, abs=1e-12)


def test_expected_alone_is_the_same_in_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    given = lists([*KARATE, [], range(34)], 34)
    whole = expected_links(given, karate())
    monkeypatch.setattr("elute.validation.network.BLOCK", 2)
    np.testing.assert_array_equal(expected_links(given, karate()), whole)


def test_tails_are_exact_where_no_number_holds_them() -> None:
    k = np.array([1, 5, 3, 10, 50, 400, 800, 15, 3, 3, 30, 1])
    rate = np.array([0.5, 5.0, 8.0, 4.0, 60.0, 300.0, 10.0, 7.0, 3.0, 2.9, 0.01, 3.0])
    most = np.array([1, 10, 10, 10, 1225, 500, 1225, 15, 3, 3, 1225, 1])
    found = log_tail(k, rate, most)
    expected = [exact_tail(*each) for each in zip(k.tolist(), rate.tolist(), most.tolist(), strict=True)]
    np.testing.assert_allclose(found, expected, rtol=1e-10)
    assert expected[6] < -2500  # 1e-1100, whose p is 0
    assert log_tail(np.array([0, 2]), np.array([3.0, 0.0]), np.array([3, 3])).tolist() == [0.0, -np.inf]


def test_the_family_is_every_list_given() -> None:
    given = lists([*KARATE, [], [5]], 34)
    found = interactions(given, karate())
    assert found.p[3:].tolist() == [1.0, 1.0]
    np.testing.assert_allclose(found.q, benjamini_hochberg(found.p))
    np.testing.assert_allclose(interactions(given, karate(), n_tests=50).q[0], min(1.0, 50 * found.p[0]))


ROWS = (
    # what the source calls the gene and its partner, the score, and what HGNC knows of the gene
    ("OLD", "B", 0.9, "HGNC:1", "NEW"),
    ("B", "OLD", 0.8, "HGNC:2", "B"),  # the two sides differ: the higher score counts
    ("NEW", "B", 0.7, "HGNC:1", "NEW"),  # two names of one gene
    ("B", "NEW", 0.7, "HGNC:2", "B"),
    ("OLD", "NEW", 0.9, "HGNC:1", "NEW"),  # which interacts with itself, then
    ("C", "B", 0.69, "HGNC:3", "C"),  # too low
    ("B", "C", 0.69, "HGNC:2", "B"),
    ("C", "NEW", 0.99, "HGNC:3", "C"),
    ("NEW", "C", 0.99, "HGNC:1", "NEW"),
    ("X", "B", 0.99, "HGNC:9", "X"),  # not in the background
    ("B", "X", 0.99, "HGNC:2", "B"),
    ("B", "LOST", 0.99, "HGNC:2", "B"),  # a partner that was lost in the mapping
)


def mapped() -> pl.DataFrame:
    return pl.DataFrame(ROWS, schema=["gene", "label", "score", "hgnc", "symbol"], orient="row")


def test_both_genes_of_a_pair_are_mapped_to_the_background() -> None:
    background = Background(("HGNC:1", "HGNC:2", "HGNC:3", "HGNC:4"), "4 genes: made up")
    known = network_of(mapped(), background, source="STRING 12.0")
    assert known.names == ("NEW", "B", "C", "HGNC:4")
    expected = np.zeros((4, 4))
    expected[0, 1] = expected[1, 0] = 0.9
    expected[0, 2] = expected[2, 0] = 0.99
    np.testing.assert_array_equal(known.scores.toarray(), expected)
    assert known.stated == "2 interactions of score 0.7 or more (STRING 12.0) between 3 of 4 genes"
    assert network_of(mapped(), background, 0.69).n_links == 3
    # Genes named by their keys already, in another order, and without what the source called them.
    again = mapped().with_columns(gene="hgnc", label=pl.col("label").replace("OLD", "NEW")).reverse()
    np.testing.assert_array_equal(network_of(again, background).scores.toarray(), expected)


def test_a_list_of_edges_between_symbols_will_do() -> None:
    pairs = pl.DataFrame({"gene": ["A", "A"], "label": ["B", "C"], "score": [0.9, 0.8]})
    known = network_of(pairs, Background(("A", "B", "C"), "3 genes: made up"))
    assert known.degrees.tolist() == [2, 1, 1]
    assert (known.scores != known.scores.T).nnz == 0
    assert known.arcs.sum(axis=1).tolist() == [0, 1, 1]  # each once, at the gene that has fewer


def test_what_can_be_no_network_is_refused() -> None:
    background = Background(("A", "B"), "2 genes: made up")
    with pytest.raises(DataError, match=r"no interaction of score 0\.7 or more between the background's 2 genes"):
        network_of(mapped(), background)
    with pytest.raises(DataError, match="has no column 'score'"):
        network_of(mapped().drop("score"), background)
    with pytest.raises(ConfigError, match="700 is no score from 0 to 1"):
        network_of(mapped(), background, 700)


def test_lists_of_another_background_are_refused() -> None:
    with pytest.raises(DataError, match=r"has shape \(1, 33\) for 34 genes"):
        interactions(lists([[1, 2]], 33), karate())
    with pytest.raises(DataError, match="holds other numbers than 0 and 1"):
        interactions(lists([[1, 2]], 34) * 2, karate())
    for places in ([], [34], [-1], [0.5]):
        with pytest.raises(DataError, match="are not places from 0 to 33"):
            sub_network(karate(), places)


def test_lists_may_be_in_any_order_and_are_left_as_they_are() -> None:
    given = sparse.csr_array((np.array([1, 1, 1, 0]), np.array([13, 0, 1, 5]), np.array([0, 4])), shape=(1, 34))
    before = given.copy()
    assert interactions(given, karate()).observed.tolist() == [3]  # 0, 1 and 13 all know each other
    for name in ("data", "indices", "indptr"):
        np.testing.assert_array_equal(getattr(given, name), getattr(before, name))


def test_a_sub_network_is_the_list_s_own() -> None:
    sub = sub_network(karate(), [13, 0, 1, 2, 3, 7, 0])
    assert sub.genes.tolist() == [0, 1, 2, 3, 7, 13]
    assert sub.names[-1] == gene(13)
    assert sub.inside.tolist() == [5, 5, 5, 5, 4, 4]
    np.testing.assert_array_equal(sub.scores.toarray(), karate().scores.toarray()[np.ix_(sub.genes, sub.genes)])


@pytest.mark.real_data
def test_known_complexes_come_out_and_random_genes_do_not(real_data: Path) -> None:
    path = real_data / "genesets" / "string_v12_highconf_no_textmining.tsv.gz"
    read = library.database("string-db").read({"edges": path})
    rows = identify(read.table, None).table
    genes = sorted(set(rows["symbol"]) | {f"ABSENT{i}" for i in range(2000)})
    background = Background(tuple(genes), f"{len(genes)} genes: made up")
    known = network_of(rows, background, source=f"STRING {read.version}")
    assert known.stated == "131,520 interactions of score 0.7 or more (STRING 12) between 12,393 of 19,288 genes"
    patterns = (r"PSM[ABCD]\d+", r"RP[LS]\d+[AXY]?", r"NDUF[ABSVC]\d+")
    complexes = [[g for g in genes if re.fullmatch(pattern, g)] for pattern in patterns]
    heart = ["MYH7", "TNNT2", "TTN", "LMNA", "MYBPC3", "TPM1", "ACTC1", "TNNI3"]
    found = interactions(lists_of([*complexes, heart], background).members, known)
    assert min(map(len, complexes)) > 30
    assert (found.log_p < np.log([1e-300, 1e-300, 1e-300, 1e-15])).all()
    rng = np.random.default_rng(0)
    for weight, low, high in ((np.ones(len(genes)), 0.0, 0.05), (known.degrees, 0.4, 0.7)):
        share = weight / weight.sum()
        drawn = [rng.choice(len(genes), 50, replace=False, p=share) for _ in range(500)]
        # Cautious on random lists; of lists that favour genes of many interactions it finds half.
        assert low <= (interactions(lists(drawn, len(genes)), known).p < 0.05).mean() < high
