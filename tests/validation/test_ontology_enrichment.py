"""Term for term and parent–child: as scipy, plain sets and goatools have them, and quiet where there is nothing."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from elute.base.errors import ConfigError, DataError
from elute.base.statistics.exact import fisher_exact, tables_from_overlap
from elute.validation.ontology import ROOTS, branch
from elute.validation.ontology_enrichment import Enriched, parent_child, term_for_term
from elute.validation.reading.obo import read_obo


def load(name: str) -> ModuleType:
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


made_up = load("made_up_ontology")
random_branch, Plain = made_up.random_branch, made_up.Plain


def some_lists(found: Any, seed: int, sizes: tuple[int, ...] = (3, 12, 0, 30)) -> list[list[str]]:
    rng = np.random.default_rng(seed + 1)
    return [rng.choice(found.genes, size, replace=False).tolist() for size in sizes]


def every(found: Any, lists: Any) -> tuple[Any, Any]:
    n, m = len(lists), len(found.terms)
    return np.repeat(np.arange(n), m), np.tile(np.arange(m), n)


@given(st.integers(0, 10_000))
@settings(max_examples=12, deadline=None)
def test_both_are_as_plain_sets_have_them(seed: int) -> None:
    found = random_branch(seed)
    plain, lists = Plain(found), some_lists(found, seed)
    matrix, at = found.lists(lists), every(found, lists)
    for how in ("term", "union", "intersection"):
        test = (
            term_for_term(found, matrix, pairs=at) if how == "term" else parent_child(found, matrix, pairs=at, of=how)  # type: ignore[arg-type]
        )
        for i, (which, t) in enumerate(zip(*at, strict=True)):
            term, listed = found.terms[t], set(lists[which])
            parents = [plain.genes[parent] for parent in plain.parents[term]]
            among = plain.population
            if how != "term" and parents:
                among = set.union(*parents) if how == "union" else set.intersection(*parents)
            counts = (len(listed & plain.genes[term]), len(listed & among), len(plain.genes[term]), len(among))
            assert (test.overlap[i], test.list_size[i], test.term_size[i], test.population[i]) == counts
            expected = stats.hypergeom.sf(counts[0] - 1, counts[3], counts[2], counts[1])
            assert test.p[i] == pytest.approx(expected, rel=1e-10)


def test_what_shares_no_gene_is_left_out() -> None:
    found = random_branch(3)
    lists = found.lists(some_lists(found, 3))
    all_pairs = term_for_term(found, lists, pairs=every(found, lists.toarray()))
    shared = term_for_term(found, lists)
    assert (shared.overlap > 0).all()
    rest = all_pairs.part(all_pairs.overlap == 0)
    assert (rest.p == 1).all()
    assert len(shared.p) + len(rest.p) == len(all_pairs.p)
    kept = all_pairs.part(all_pairs.overlap > 0)
    for one, other in ((shared, kept), (parent_child(found, lists), parent_child(found, lists, pairs=kept.pairs))):
        for name in ("lists", "terms", "overlap", "list_size", "term_size", "population", "log_p"):
            np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_the_root_says_nothing_given_its_parents() -> None:
    found = random_branch(5)
    lists = found.lists(some_lists(found, 5, (10,)))
    for of in ("union", "intersection"):
        top = parent_child(found, lists, pairs=(np.array([0]), np.array([0])), of=of)  # type: ignore[arg-type]
        assert top.p.tolist() == [1.0]
        assert (top.list_size[0], top.population[0]) == (10, len(found.genes))


def test_a_table_says_it_in_words() -> None:
    found = random_branch(5)
    lists = found.lists(some_lists(found, 5, (10, 4)))
    table = parent_child(found, lists).table(found, ["one", "two"])
    assert table.columns[:3] == ["list", "term", "label"]
    assert set(table["list"]) == {"one", "two"}
    assert table["label"][0] == f"term {table['term'][0]}"
    assert term_for_term(found, lists).table(found)["list"].to_list()[0] == 0
    none = term_for_term(found, found.lists([[]]))
    assert isinstance(none, Enriched)
    assert len(none.table(found)) == len(parent_child(found, found.lists([[]])).p) == 0


def test_what_cannot_be_tested_is_refused() -> None:
    found = random_branch(5)
    lists = found.lists(some_lists(found, 5, (10,)))
    with pytest.raises(DataError, match="lists: has 9 columns, and the branch 60 genes. Bring them over"):
        term_for_term(found, lists[:, :9])
    with pytest.raises(DataError, match="lists: holds other numbers than 0 and 1"):
        parent_child(found, lists * 2)
    with pytest.raises(DataError, match="pairs: names 25 where there are 25"):
        term_for_term(found, lists, pairs=(np.array([0]), np.array([25])))
    with pytest.raises(DataError, match="pairs: is not one list and one term a pair"):
        term_for_term(found, lists, pairs=(np.array([0, 0]), np.array([1])))
    with pytest.raises(ConfigError, match="Did you mean 'union'"):
        parent_child(found, lists, of="unoin")  # type: ignore[arg-type]


# Against goatools 1.6.7, GOEnrichmentStudy(propagate_counts=True, relationships={"part_of"}), run on this made-up
# ontology in an environment of its own; its p-values are two-sided.
TERMS: dict[str, tuple[str, list[str], list[str]]] = {
    "GO:0008150": ("biological_process", [], []),
    "GO:0003674": ("molecular_function", [], []),
    "GO:0005575": ("cellular_component", [], []),
    "GO:1000001": ("biological_process", ["GO:0008150"], []),
    "GO:1000002": ("biological_process", ["GO:0008150"], []),
    "GO:1000003": ("biological_process", ["GO:1000001"], []),
    "GO:1000004": ("biological_process", ["GO:1000001", "GO:1000002"], []),
    "GO:1000005": ("biological_process", ["GO:1000003"], ["GO:1000002"]),
    "GO:1000006": ("biological_process", ["GO:1000004"], []),
    "GO:2000001": ("molecular_function", ["GO:0003674"], []),
    "GO:2000002": ("molecular_function", ["GO:0003674"], ["GO:1000003"]),
    "GO:2000003": ("molecular_function", ["GO:2000001"], []),
    "GO:2000004": ("molecular_function", ["GO:2000002"], []),
    "GO:3000001": ("cellular_component", ["GO:0005575"], []),
    "GO:3000002": ("cellular_component", ["GO:0005575"], []),
    "GO:3000003": ("cellular_component", ["GO:3000001"], ["GO:3000002"]),
}
STUDY = [f"g{i:03d}" for i in (0, 4, 5, 11, 12, 18, 25, 32, 39, 46, 53, 60, 67, 75, 88, 101, 119)]
GOATOOLS = {  # by whether parts count: term, of 17 genes, of 120 genes, p
    False: [
        ("GO:1000001", 11, 90, 0.36411126195864485),
        ("GO:1000002", 8, 44, 0.4171304491897365),
        ("GO:1000003", 5, 30, 0.7628591722773953),
        ("GO:1000004", 4, 29, 1.0),
        ("GO:1000005", 3, 15, 0.44497901869198064),
        ("GO:1000006", 1, 14, 0.6893347906605937),
        ("GO:2000001", 10, 70, 1.0),
        ("GO:2000002", 5, 23, 0.31574606373000996),
        ("GO:2000003", 4, 28, 1.0),
        ("GO:2000004", 4, 16, 0.24050311355568332),
        ("GO:3000001", 15, 68, 0.00677096267033254),
        ("GO:3000002", 0, 25, 0.021715238326295544),
        ("GO:3000003", 5, 34, 1.0),
    ],
    True: [
        ("GO:1000001", 11, 94, 0.19983285059362454),
        ("GO:1000002", 11, 59, 0.19716895116170002),
        ("GO:1000003", 8, 45, 0.42379943718527713),
        ("GO:1000004", 4, 29, 1.0),
        ("GO:1000005", 3, 15, 0.44497901869198064),
        ("GO:1000006", 1, 14, 0.6893347906605937),
        ("GO:2000002", 5, 23, 0.31574606373000996),
        ("GO:3000001", 15, 68, 0.00677096267033254),
        ("GO:3000002", 5, 59, 0.11534364054352997),
        ("GO:3000003", 5, 34, 1.0),
    ],
}


@pytest.mark.parametrize("parts", [False, True])
def test_go_is_as_goatools_has_it(parts: bool, tmp_path: Path) -> None:
    text = "format-version: 1.2\n"
    for term, (space, kinds, wholes) in TERMS.items():
        text += f"\n[Term]\nid: {term}\nname: term {term[3:]}\nnamespace: {space}\n"
        text += "".join(f"is_a: {x}\n" for x in kinds) + "".join(f"relationship: part_of {x}\n" for x in wholes)
    (tmp_path / "go.obo").write_text(text)
    spaces = [sorted(t for t in TERMS if TERMS[t][0] == TERMS[root][0]) for root in ROOTS["go"][::2] + ROOTS["go"][1:2]]
    rows = [
        (f"g{i:03d}", terms[(i * i + (3 + j) * i) // 7 % len(terms)])
        for i in range(120)
        for j, terms in enumerate(spaces)
    ]
    go, annotations = read_obo(tmp_path / "go.obo"), pl.DataFrame(rows, schema=["gene", "term"], orient="row")
    branches = {TERMS[root][0]: branch(go, annotations, root=root, parts=parts) for root in ROOTS["go"]}
    for term, overlap, size, p in GOATOOLS[parts]:
        found = branches[TERMS[term][0]]
        test = term_for_term(found, found.lists([STUDY]), pairs=(np.array([0]), found.find([term])))
        assert (test.overlap[0], test.term_size[0], test.list_size[0], test.population[0]) == (overlap, size, 17, 120)
        table = tables_from_overlap(test.overlap, test.list_size, test.term_size, population=test.population)
        assert fisher_exact(table).p[0] == pytest.approx(p, rel=1e-10)


@pytest.mark.parametrize("how", ["term", "union", "intersection"])
def test_random_lists_come_out_as_seldom_as_they_say(how: str) -> None:
    found = random_branch(11, terms=30, genes=400, density=0.15)
    rng = np.random.default_rng(2)
    seeds = 600
    lists = found.lists([rng.choice(found.genes, 60, replace=False).tolist() for _ in range(seeds)])
    at = every(found, range(seeds))
    test = (
        term_for_term(found, lists, pairs=at) if how == "term" else parent_child(found, lists, pairs=at, of=how)  # type: ignore[arg-type]
    )
    p = test.p.reshape(seeds, len(found.terms))
    for level in (0.01, 0.05, 0.2):
        share = (p <= level).mean(axis=0)
        # For each term on its own: never more often than it says, but for what 600 seeds leave open.
        assert (share <= level + 4.0 * np.sqrt(level * (1 - level) / seeds)).all()
    # And not by saying nothing: counts are whole numbers, so a little below 5% is what an exact test gives.
    free = test.term_size.reshape(p.shape)[0] < test.population.reshape(p.shape)[0] - 40
    assert free.sum() >= 10
    assert 0.015 <= (p[:, free] <= 0.05).mean() <= 0.055
