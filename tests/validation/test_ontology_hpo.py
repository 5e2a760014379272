"""Worked answers on a release of HPO."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elute.base.statistics.corrections import benjamini_hochberg
from elute.validation.ontology import ROOTS, Branch, branch, check, tops
from elute.validation.ontology_enrichment import parent_child, term_for_term
from elute.validation.ontology_redundancy import elim, fold, weight
from elute.validation.ontology_similarity import common_ancestor, match, profiles, similarity
from elute.validation.reading import hpo
from elute.validation.reading.obo import read_obo

pytestmark = pytest.mark.real_data
REFERENCE = "databases/hpo/reference_enrichment_hpo2025-01-16.json"


@cache
def phenotypes(folder: Path) -> Branch:
    ontology = read_obo(folder / "hpo" / "hp.obo.gz")
    check(ontology, roots=ROOTS["hpo"], parts=True)
    assert tops(ontology) == ("HP:0000001",)
    rows = hpo.read_genes(folder / "hpo" / "genes_to_phenotype.txt.gz").table
    return branch(ontology, rows.select("term", gene="symbol"), root="HP:0000118")


@pytest.fixture
def given(real_data: Path) -> Branch:
    return phenotypes(real_data)


@pytest.fixture
def answers(real_data: Path) -> Any:
    return json.loads((real_data / REFERENCE).read_text())


def test_the_population(given: Branch, answers: Any) -> None:
    assert len(given.genes) == answers["N"] == 5124
    assert (given.sizes > 0).sum() == 11_474  # as many as the official phenotype_to_genes has below this root
    assert given.lost["term unknown"] == given.lost["gene not in the background"] == 0


def test_enrichment_is_as_worked_out(given: Branch, answers: Any) -> None:
    lists = given.lists([answers["query"]])
    at = np.zeros(len(answers["terms"]), dtype=np.int64), given.find(answers["terms"])
    plain = term_for_term(given, lists, pairs=at)
    union = parent_child(given, lists, pairs=at)
    both = parent_child(given, lists, pairs=at, of="intersection")
    thinned = elim(given, lists, threshold=0.01)
    assert (plain.list_size == answers["n"]).all()
    for i, told in enumerate(answers["terms"].values()):
        assert (plain.overlap[i], plain.term_size[i]) == (told["k"], told["K"])
        assert plain.p[i] == pytest.approx(told["p_term_for_term"], rel=1e-10)
        for test, name in ((union, "parent_child_union"), (both, "parent_child_intersection")):
            assert (test.list_size[i], test.population[i]) == (told[name]["n_pa"], told[name]["N_pa"])
            assert test.p[i] == pytest.approx(told[name]["p"], rel=1e-10)
        where = np.flatnonzero(thinned.terms == at[1][i])
        if not told["k"]:
            assert len(where) == 0
            continue
        left = told["elim_p0.01"]
        assert (thinned.overlap[where[0]], thinned.term_size[where[0]]) == (left["k"], left["K"])
        assert thinned.p[where[0]] == pytest.approx(left["p"], rel=1e-10)
    counted = answers["counts_p_lt_0.01"]
    all_pairs = term_for_term(given, lists)
    assert len(all_pairs.p) == counted["tested_k_ge_1"]
    assert (all_pairs.p < 0.01).sum() == counted["tft"]
    assert (parent_child(given, lists).p < 0.01).sum() == counted["pcu"]
    assert (thinned.p < 0.01).sum() == counted["elim"]


def test_likeness_is_as_worked_out(given: Branch, answers: Any) -> None:
    for names, told in answers["similarity_gene_IC_natural_log_N_PA"].items():
        a, b = names.split("|")
        at = given.find([a, b])
        assert given.information[at].tolist() == pytest.approx([told["IC_a"], told["IC_b"]], rel=1e-12)
        assert common_ancestor(given, a, b) == told["mica"]
        assert similarity(given, [a], [b])[0, 0] == pytest.approx(told["resnik"], rel=1e-12)
        assert similarity(given, [a], [b], measure="lin")[0, 0] == pytest.approx(told["lin"], rel=1e-12)
    assert similarity(given, ["HP:0001644"], ["HP:0001639"])[0, 0] == pytest.approx(2.17866, abs=5e-6)
    assert similarity(given, ["HP:0001644"], ["HP:0001639"], measure="lin")[0, 0] == pytest.approx(0.70335, abs=5e-6)


def test_genes_of_the_heart_muscle_lead_to_its_diseases(given: Branch, answers: Any, real_data: Path) -> None:
    lists = given.lists([answers["query"]])
    test = term_for_term(given, lists)
    passed = test.part(benjamini_hochberg(test.p, n_tests=int((given.sizes > 0).sum())) < 0.05)
    folded = fold(given, lists, passed)
    told = {row["term"]: row for row in folded.table(given).iter_rows(named=True)}
    assert told["HP:0001638"]["folded_under"] == "HP:0001644"  # cardiomyopathy, under its dilated kind
    assert told["HP:0001644"]["folded_under"] is None
    assert told["HP:0001639"]["folded_under"] is None
    assert 0 < len(folded.kept.p) < 0.7 * len(passed.p)
    weighed = weight(given, lists)
    assert weighed.terms.tolist() == test.terms.tolist()
    above, below = (np.flatnonzero(test.terms == i)[0] for i in given.find(["HP:0001638", "HP:0001644"]))
    assert weighed.p[below] == pytest.approx(test.p[below])  # the better one keeps its genes
    assert weighed.p[above] > 10_000 * test.p[above]
    kept = folded.kept
    best = kept.terms[np.lexsort((kept.terms, kept.log_p))[:15]]
    table = hpo.read_diseases(real_data / "hpo" / "phenotype.hpoa.gz").table
    table = table.filter(table["aspect"] == "P").unique(["disease", "term"], maintain_order=True)
    names = dict(table.select("disease", "name").iter_rows())
    by_disease = {key[0]: part["term"].to_list() for key, part in table.partition_by("disease", as_dict=True).items()}
    diseases = profiles(given, by_disease)
    ours = profiles(given, {"feature": [given.terms[i] for i in best.tolist()]})
    found = match(given, ours, diseases).table(best=10)
    assert sum("cardiomyopathy" in names[disease].lower() for disease in found["disease"]) >= 5
