"""elim, weight and folding: as a plain account of each has them, and quiet where there is nothing."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elute.base.errors import ConfigError
from elute.validation.ontology import branch
from elute.validation.ontology_enrichment import term_for_term
from elute.validation.ontology_redundancy import elim, fold, weight


def load(name: str) -> ModuleType:
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


made_up = load("made_up_ontology")
random_branch, Plain, ontology, pairs = made_up.random_branch, made_up.Plain, made_up.ontology, made_up.pairs
upper = made_up.upper


def plain_elim(plain: Any, listed: set[str], threshold: float) -> dict[str, tuple[int, int, float]]:
    left = {term: set(genes) for term, genes in plain.genes.items()}
    result = {}
    for term in plain.deepest_first():
        k = len(left[term] & listed)
        p = upper(k, len(listed), len(left[term]), len(plain.population))
        result[term] = (k, len(left[term]), p)
        if p < threshold:
            for up in plain.above(term):
                left[up] -= plain.genes[term]
    return result


def plain_weight(plain: Any, listed: set[str], kind: str) -> dict[str, tuple[int, int, int, int, float]]:
    """The published recursion, a gene at a time; terms that share no gene with the list stand aside."""
    alive = {term for term, genes in plain.genes.items() if genes & listed}
    up = {term: dict.fromkeys(plain.genes[term], 1.0) for term in alive}
    down = dict.fromkeys(alive, 1.0)
    p: dict[str, float] = {}

    def test(term: str, factor: float = 1.0) -> tuple[int, int, int, int, float]:
        weights = {gene: w * factor for gene, w in up[term].items()}
        K = math.ceil(sum(weights.values()) - 1e-9)
        k = math.floor(sum(w for gene, w in weights.items() if gene in listed) + 1e-9)
        N = len(plain.population) - len(weights) + K
        n = len(listed) - len(listed & set(weights)) + k
        return k, n, K, N, upper(k, n, K, N)

    def ratio(child: float, mine: float) -> float:
        if math.isclose(child, mine, rel_tol=1e-9):
            return 2.0
        if kind == "p":
            return mine / child
        return math.log(child) / math.log(mine) if mine < 1 else math.inf

    def compute(term: str, children: set[str], passed: dict[str, float]) -> None:
        p[term] = test(term)[-1]
        if not children:
            return
        compared = {child: ratio(p[child], p[term]) for child in children}
        better = {child for child in children if compared[child] > 1}
        if not better:
            for child in children:
                down[child] = min(down[child], compared[child])
            return
        for child in better:
            for gene in plain.genes[child]:
                up[term][gene] /= compared[child]
                passed[gene] = passed.get(gene, 1.0) / compared[child]
        compute(term, children - better, passed)

    for term in (each for each in plain.deepest_first() if each in alive):
        passed: dict[str, float] = {}
        compute(term, plain.children[term] & alive, passed)
        for other in plain.above(term):
            for gene, factor in passed.items():
                up[other][gene] *= factor
    return {term: test(term, down[term]) for term in alive}


def plain_fold(plain: Any, listed: set[str], significant: list[str], threshold: float) -> dict[str, str | None]:
    def p(term: str) -> float:
        return upper(len(plain.genes[term] & listed), len(listed), len(plain.genes[term]), len(plain.population))

    under: dict[str, str | None] = {}
    for term in (each for each in plain.deepest_first() if each in significant):
        under[term] = None
        below = [other for other, where in under.items() if where is None and term in plain.above(other)]
        if not below:
            continue
        gone = set.union(*(plain.genes[other] for other in below))
        mine, left, rest = plain.genes[term] - gone, listed - gone, plain.population - gone
        if upper(len(mine & left), len(left), len(mine), len(rest)) >= threshold and min(map(p, below)) <= p(term):
            under[term] = max(below, key=lambda other: (len(plain.genes[other] & listed), -p(other)))
    return under


def enriched_lists(found: Any, plain: Any, seed: int) -> list[list[str]]:
    """Lists that hold much of two terms, and some genes from anywhere."""
    rng = np.random.default_rng(seed)
    terms = sorted(term for term, genes in plain.genes.items() if 3 <= len(genes) <= 30)
    lists = []
    for _ in range(3):
        genes = set(rng.choice(found.genes, 5).tolist())
        for term in rng.choice(terms, 2).tolist():
            genes |= set(rng.permutation(sorted(plain.genes[term]))[:8].tolist())
        lists.append(sorted(genes))
    return lists


@given(st.integers(0, 10_000))
@settings(max_examples=12, deadline=None)
def test_elim_is_the_plain_one(seed: int) -> None:
    found = random_branch(seed, genes=150)
    plain = Plain(found)
    lists = enriched_lists(found, plain, seed)
    for threshold in (0.01, 0.2):
        test = elim(found, found.lists(lists), threshold=threshold)
        known = [plain_elim(plain, set(listed), threshold) for listed in lists]
        for i, (which, term) in enumerate(zip(test.lists, test.terms, strict=True)):
            k, K, p = known[which][found.terms[term]]
            assert (test.overlap[i], test.term_size[i]) == (k, K)
            assert test.p[i] == pytest.approx(p, rel=1e-9)


@given(st.integers(0, 10_000))
@settings(max_examples=12, deadline=None)
def test_weight_is_the_plain_one(seed: int) -> None:
    found = random_branch(seed, genes=150)
    plain = Plain(found)
    lists = enriched_lists(found, plain, seed)
    for kind in ("log", "p"):
        test = weight(found, found.lists(lists), ratio=kind)  # type: ignore[arg-type]
        assert (test.pairs[1] == term_for_term(found, found.lists(lists)).pairs[1]).all()
        known = [plain_weight(plain, set(listed), kind) for listed in lists]
        for i, (which, term) in enumerate(zip(test.lists, test.terms, strict=True)):
            k, n, K, N, p = known[which][found.terms[term]]
            counts = (test.overlap[i], test.list_size[i], test.term_size[i], test.population[i])
            assert counts == (k, n, K, N)
            assert test.p[i] == pytest.approx(p, rel=1e-9)


@given(st.integers(0, 10_000))
@settings(max_examples=12, deadline=None)
def test_folding_is_the_plain_one(seed: int) -> None:
    found = random_branch(seed, genes=150)
    plain = Plain(found)
    lists = enriched_lists(found, plain, seed)
    matrix = found.lists(lists)
    test = term_for_term(found, matrix)
    passed = test.part(test.p < 0.05)
    folded = fold(found, matrix, passed, threshold=0.01)
    for which, listed in enumerate(lists):
        mine = passed.lists == which
        terms = [found.terms[t] for t in passed.terms[mine]]
        expected = plain_fold(plain, set(listed), terms, 0.01)
        told = {
            term: found.terms[above] if above >= 0 else None
            for term, above in zip(terms, folded.under[mine], strict=True)
        }
        kept = {term for term, above in told.items() if above is None}
        assert kept == {term for term, above in expected.items() if above is None}
        for term, above in told.items():
            if above is not None:
                # Of several that hold as many with the same p, the deeper, then the first by id; the plain one takes any.
                assert above in kept
                assert term in plain.above(above)
                other = expected[term]
                assert len(plain.genes[above] & set(listed)) == len(plain.genes[other] & set(listed))
    # In whichever order the pairs come.
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(passed.terms))
    again = fold(found, matrix, passed.part(order), threshold=0.01)
    np.testing.assert_array_equal(again.under, folded.under[order])
    np.testing.assert_array_equal(again.rest_log_p, folded.rest_log_p[order])


# R — T — {U, V}: what a term below says, and what it does not
FAMILY = {"XX:R": [], "XX:T": ["XX:R"], "XX:U": ["XX:T"], "XX:V": ["XX:T"], "XX:W": ["XX:R"]}


def family(u: str, v: str, t: str, others: int = 200) -> Any:
    genes = {"XX:U": u.split(), "XX:V": v.split(), "XX:T": t.split(), "XX:W": [f"w{i}" for i in range(others)]}
    return branch(ontology(FAMILY), pairs(genes), root="XX:R")


def folds(found: Any, listed: str) -> dict[str, tuple[str | None, float, float]]:
    lists = found.lists([listed.split()])
    test = term_for_term(found, lists)
    table = fold(found, lists, test.part(test.p < 0.05)).table(found)
    return {row["term"]: (row["folded_under"], row["explained"], row["rest_p"]) for row in table.iter_rows(named=True)}


def test_a_term_that_repeats_another_is_folded() -> None:
    told = folds(family("u1 u2 u3 u4 u5", "v1 v2 v3", "t1 t2 t3"), "u1 u2 u3 u4 w1")
    assert told["XX:U"] == (None, 0.0, told["XX:U"][2])
    assert told["XX:T"] == ("XX:U", 1.0, 1.0)


def test_a_term_with_more_to_say_is_kept() -> None:
    told = folds(family("u1 u2 u3 u4 u5", "v1 v2 v3", "t1 t2 t3"), "u1 u2 u3 u4 t1 t2 t3")
    assert told["XX:U"][0] is None
    assert told["XX:T"][0] is None
    assert told["XX:T"][1] == pytest.approx(4 / 7)
    # Without U's genes: all 3 of the list's 3 are among T's 6 of 206.
    assert told["XX:T"][2] == pytest.approx(upper(3, 3, 6, 206))


def test_a_term_that_is_better_than_each_below_is_kept() -> None:
    told = folds(family("u1 u2 u3", "v1 v2 v3", ""), "u1 u2 u3 v1 v2 v3")
    assert {term: above for term, (above, _, _) in told.items()} == {"XX:T": None, "XX:U": None, "XX:V": None}
    assert told["XX:T"][1:] == (1.0, 1.0)


def test_two_terms_explain_one_together() -> None:
    told = folds(family("u1 u2 u3 u4", "v1 v2 v3", " ".join(f"t{i}" for i in range(40))), "u1 u2 u3 u4 v1 v2")
    assert told["XX:T"] == ("XX:U", 1.0, 1.0)  # U holds more of them than V
    assert told["XX:V"][0] is None


def test_elim_takes_genes_from_all_above() -> None:
    found = family("u1 u2 u3 u4 u5", "v1 v2 v3", "t1 t2 t3")
    test = elim(found, found.lists([["u1", "u2", "u3", "u4", "t1", "w1"]]))
    told = {found.terms[t]: (k, K) for t, k, K in zip(test.terms, test.overlap, test.term_size, strict=True)}
    assert told == {"XX:U": (4, 5), "XX:T": (1, 6), "XX:R": (2, 206), "XX:W": (1, 200)}
    assert (test.list_size == 6).all()
    assert (test.population == 211).all()


def test_weight_by_hand() -> None:
    found = family("u1 u2 u3 u4 u5", "v1 v2 v3", "t1 t2 t3")
    lists = found.lists([["u1", "u2", "u3", "u4", "t1", "w1"]])
    test = weight(found, lists)
    told = {found.terms[t]: i for i, t in enumerate(test.terms)}
    u, t = upper(4, 6, 5, 211), upper(5, 6, 11, 211)
    r = math.log(u) / math.log(t)
    assert r < 1  # T is the better one, so U's genes weigh r there
    i = told["XX:U"]
    assert (test.overlap[i], test.term_size[i]) == (math.floor(4 * r), math.ceil(5 * r))
    assert test.p[told["XX:T"]] == pytest.approx(t)


def test_one_list_does_not_touch_another() -> None:
    found = random_branch(7, genes=150)
    lists = enriched_lists(found, Plain(found), 7)
    for how in (elim, weight):
        together = how(found, found.lists(lists))
        for which, listed in enumerate(lists):
            alone = how(found, found.lists([listed]))
            np.testing.assert_array_equal(together.part(together.lists == which).log_p, alone.log_p)


def test_empty_lists_and_bad_settings() -> None:
    found = random_branch(7)
    empty = found.lists([[], []])
    assert len(elim(found, empty).p) == len(weight(found, empty).p) == 0
    nothing = fold(found, empty, term_for_term(found, empty))
    assert len(nothing.kept.p) == 0
    assert nothing.table(found).columns[-3:] == ["folded_under", "explained", "rest_p"]
    with pytest.raises(ConfigError, match=r"elim\(threshold\): 1 is not between 0 and 1"):
        elim(found, empty, threshold=1)
    with pytest.raises(ConfigError, match="Did you mean 'log'"):
        weight(found, empty, ratio="lgo")  # type: ignore[arg-type]


@pytest.mark.parametrize(("how", "seeds"), [(elim, 200), (weight, 60)])
def test_random_lists_come_out_as_seldom_as_they_say(how: Any, seeds: int) -> None:
    found = random_branch(11, terms=30, genes=400, density=0.15)
    rng = np.random.default_rng(3)
    test = how(found, found.lists([rng.choice(found.genes, 60, replace=False).tolist() for _ in range(seeds)]))
    for level in (0.01, 0.05):
        # The 30 tests of a list depend on one another: they are counted as 7.
        share, slack = (test.p <= level).sum() / (seeds * 30), 4.0 * np.sqrt(level * (1 - level) / (seeds * 7))
        assert share <= level + slack
    assert (test.p <= 0.05).any()
