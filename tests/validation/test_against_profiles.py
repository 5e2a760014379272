"""Profiles against diseases: plain loops give the same scores in any ontology, planted diseases are found, controls are
scored in the same way, and random profiles find nothing."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import polars as pl
import pytest

from elute.base.statistics.corrections import benjamini_hochberg
from elute.validation import against_profiles, fetching, hgnc
from elute.validation.against_profiles import best_matches, diseases_of, likest
from elute.validation.asked import Asked, keys_of
from elute.validation.ontology import ROOTS, branch
from elute.validation.settings import DatabaseConfig
from elute.validation.suite import ask_databases


def load(name: str) -> ModuleType:
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


made_up = load("made_up_ontology")
ontology, pairs, random_branch, Plain = made_up.ontology, made_up.pairs, made_up.random_branch, made_up.Plain


@pytest.mark.parametrize("measure", ["resnik", "lin"])
def test_the_best_are_those_of_plain_loops(measure: Any) -> None:
    found = random_branch(5, terms=40, density=0.05)
    plain, rng = Plain(found), np.random.default_rng(0)
    content = dict(zip(found.terms, found.information.tolist(), strict=True))

    def alike(a: str, b: str) -> float:
        shared = max(content[term] for term in (plain.above(a) | {a}) & (plain.above(b) | {b}))
        both = content[a] + content[b]
        return shared if measure == "resnik" else (2 * shared / both if both else 0.0)

    def score(one: list[str], other: list[str]) -> float:
        forth = np.mean([max(alike(a, b) for b in other) for a in one])
        return float(forth + np.mean([max(alike(a, b) for a in one) for b in other])) / 2

    ours = {f"x{i}": rng.choice(found.terms, 1 + i, replace=False).tolist() for i in range(6)}
    theirs = {f"d{i}": rng.choice(found.terms, 2 + i, replace=False).tolist() for i in range(9)}
    table = best_matches(found, ours | {"none": ["XX:99"]}, theirs, best=3, measure=measure, draws=0)
    assert table.columns == ["profile", "disease", "terms", "score"]
    for name, terms in ours.items():
        told = table.filter(pl.col("profile") == name)
        known = sorted((-score(terms, other), disease) for disease, other in theirs.items())
        assert told["terms"].to_list() == [len(terms)] * 3
        np.testing.assert_allclose(told["score"].to_numpy(), [-each for each, _ in known[:3]], rtol=1e-5)
        assert told["disease"][0] == known[0][1]
    assert "none" not in table["profile"]
    assert len(best_matches(found, {}, theirs)) == 0


def test_processes_of_go_and_diseases_of_mondo_have_profiles_too() -> None:
    root = ROOTS["go"][0]
    space = {root: "process", "GO:1": "process", "GO:2": "process", "GO:3": "process", "GO:9": "function"}
    # The second is a kind of nothing below the root: it is a part of the first. A function is no process.
    go = ontology(
        {root: [], "GO:1": [root], "GO:2": [], "GO:3": [root], "GO:9": []},
        part_of={"GO:2": ["GO:1"], "GO:9": ["GO:1"]},
        namespace=space,
    )
    genes = pairs({"GO:1": "1", "GO:2": "23", "GO:3": "456", "GO:9": "7"})
    found = branch(go, genes, root=root, parts=True)
    table = best_matches(found, {"x": ["GO:2"]}, {"a": ["GO:1", "GO:9"], "b": ["GO:3"]}, draws=0)
    # 1, 2 and 3 stand with the first, with the function's 7 that is a part of it: 4 of 7 genes.
    assert table.select("disease", "score").rows() == [("a", pytest.approx(np.log(7 / 4))), ("b", 0.0)]
    (root,) = ROOTS["mondo"]
    mondo = ontology({root: [], "MONDO:1": [root], "MONDO:2": ["MONDO:1"], "MONDO:3": ["MONDO:1"], "MONDO:4": [root]})
    found = branch(mondo, pairs({"MONDO:2": "1", "MONDO:3": "2", "MONDO:4": "3456"}), root=root)
    table = best_matches(found, {"x": ["MONDO:2"]}, {"near": ["MONDO:3"], "far": ["MONDO:4"]}, measure="lin", draws=0)
    assert table["disease"].to_list() == ["near", "far"]
    assert table["score"].to_list() == pytest.approx([np.log(3) / np.log(6), 0.0])


def hpo(rng: np.random.Generator, found: Any, sizes: list[int]) -> tuple[pl.DataFrame, dict[str, list[str]]]:
    """HPO's table, in which disease i is caused by gene i, and the diseases' phenotypes."""
    known = {f"OMIM:{i}": rng.choice(found.terms[1:], n, replace=False).tolist() for i, n in enumerate(sizes)}
    rows = [(t, f"term {t}", "phenotype", f"{d} frequent") for d, terms in known.items() for t in terms]
    rows += [(rows[0][0], "again", "phenotype", "OMIM:0 3/7"), ("XX:1", "of nobody", "phenotype", "by hand")]
    rows += [(d, f"illness {d}", "disease", "MENDELIAN") for d in known]
    kinds = dict.fromkeys(("term", "label", "group", "evidence"), pl.String)
    return pl.DataFrame(rows, schema=kinds, orient="row"), known


def test_diseases_are_read_off_the_evidence() -> None:
    table, known = hpo(np.random.default_rng(1), random_branch(1), [5, 4, 9])
    held, labels = diseases_of(table)
    assert {disease: sorted(terms) for disease, terms in held.items()} == {
        disease: sorted(terms) for disease, terms in known.items() if len(terms) >= 5
    }
    assert labels == {disease: f"illness {disease}" for disease in known}


def rows(profiles: dict[int, list[str]]) -> pl.DataFrame:
    told = [(i, t, 0.001, True, None) for i, terms in profiles.items() for t in terms]
    told += [(i, "XX:2", 0.3, False, None) for i in profiles] + [(i, "XX:1", 0.001, True, "XX:3") for i in profiles]
    kinds = {"list": pl.Int32, "term": pl.String, "p": pl.Float64, "significant": pl.Boolean, "folded_under": pl.String}
    return pl.DataFrame(told, schema=kinds, orient="row")


def test_planted_diseases_are_found_and_random_profiles_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(against_profiles, "_PHENOTYPES", made_up.ROOT)
    monkeypatch.setattr(against_profiles, "DRAWS", 199)
    found = random_branch(21, terms=150, genes=200, density=0.02)
    rng = np.random.default_rng(2)
    table, known = hpo(rng, found, [8] * 40)
    dense = found.members.toarray()
    genes = pairs({t: [found.genes[g] for g in np.flatnonzero(dense[i])] for i, t in enumerate(found.terms)})
    at = SimpleNamespace(ontology=found.ontology, rows=genes, mapped=SimpleNamespace(table=table))
    pool = sorted({term for terms in known.values() for term in terms} - {"XX:1", "XX:2"})

    def by_chance() -> pl.DataFrame:
        return rows({i: rng.choice(pool, 7, replace=False).tolist() for i in range(20)})

    ours = {i: [term for term in known[f"OMIM:{i}"] if term not in ("XX:1", "XX:2")] for i in range(5)}
    ours |= {i: rng.choice(pool, 7, replace=False).tolist() for i in range(5, 20)}
    told, record = likest({"the run": rows(ours), "dealt": by_chance(), "empty": rows({}).clear()}, at, fdr=0.05)
    assert (record["asked"], record["of"], record["draws"]) == (20, 40, 199)
    assert 5 <= record["significant"] <= 7
    assert record["controls"]["dealt"]["asked"] == 20
    assert record["controls"]["dealt"]["significant"] <= 1
    assert record["controls"]["empty"] == {"asked": 0, "significant": 0}
    best = told.unique("list", keep="first", maintain_order=True)
    assert best["list"].to_list() == list(range(20))
    assert best["disease"].to_list()[:5] == [f"OMIM:{i}" for i in range(5)]
    assert best["label"][0] == "illness OMIM:0"
    assert best["phenotypes"].to_list() == [len(ours[i]) for i in range(20)]
    assert (best["q"].to_numpy()[:5] <= 0.05).all()
    assert told.columns == ["list", "disease", "label", "phenotypes", "score", "p", "q"]
    nothing, record = likest({"the run": rows({}).clear()}, at, fdr=0.05)
    assert (len(nothing), record["asked"], record["significant"]) == (0, 0, 0)
    assert nothing.columns == told.columns
    found_by_chance = [likest({"x": by_chance()}, at, fdr=0.05, seed=seed)[1]["significant"] > 0 for seed in range(12)]
    assert sum(found_by_chance) <= 3


def test_q_is_by_the_best_of_each_list() -> None:
    rng = np.random.default_rng(3)
    p = np.sort(np.round(rng.random((30, 4)) ** 3, 2) + 0.01, axis=1)
    told = pl.DataFrame({"list": np.repeat(np.arange(30), 4), "p_any": p.ravel()})
    q = against_profiles._corrected(told)["q"].to_numpy().reshape(30, 4)
    np.testing.assert_allclose(q[:, 0], benjamini_hochberg(p[:, 0]))
    for i, j in ((0, 1), (7, 2), (29, 3)):  # what it would have as the best of its list, the others as they are
        # Its list counts as one of those that are as good, since its best is.
        other = np.where(np.arange(30) == i, p[i, j], p[:, 0])
        assert q[i, j] == pytest.approx(benjamini_hochberg(other)[i])


HGNC = "hgnc_id\tsymbol\tensembl_gene_id\tentrez_id\tuniprot_ids\tprev_symbol\talias_symbol\tlocus_group\n"
SYMBOLS = [f"GEN{chr(65 + i // 100)}{i % 100}" for i in range(240)]
ORGANS, LEAVES = 10, 8


def made_up_hpo(folder: Path) -> None:
    """Genes cause a disease each, of one of ten organs: five or six of its eight phenotypes."""
    rows = [f"HGNC:{i + 1}\t{s}\tENSG{i:011d}\t{i + 1}\t\t\t\tprotein-coding gene\n" for i, s in enumerate(SYMBOLS)]
    (folder / "hgnc.txt").write_text(HGNC + "".join(rows))
    hgnc.keep(folder / "hgnc.txt")
    terms = [("HP:0000118", "Phenotypic abnormality", "")]
    for organ in range(ORGANS):
        above = f"HP:{1000 + 100 * organ:07d}"
        terms.append((above, f"Organ {organ}", "HP:0000118"))
        terms += [(f"HP:{1001 + 100 * organ + leaf:07d}", f"Sign {organ} {leaf}", above) for leaf in range(LEAVES)]
    stanzas = [f"[Term]\nid: {t}\nname: {name}\n" + (f"is_a: {up}\n" if up else "") for t, name, up in terms]
    (folder / "hp.obo").write_text("format-version: 1.2\ndata-version: 2031-04-02\n\n" + "\n".join(stanzas))
    rng, lines = np.random.default_rng(0), ["ncbi_gene_id\tgene_symbol\thpo_id\thpo_name\tfrequency\tdisease_id"]
    for i, symbol in enumerate(SYMBOLS[: ORGANS * 20]):
        for leaf in rng.choice(LEAVES, 5 + i % 2, replace=False).tolist():
            organ = i % ORGANS
            lines.append(f"{i + 1}\t{symbol}\tHP:{1001 + 100 * organ + leaf:07d}\tSign\t3/4\tOMIM:{900000 + i}")
    (folder / "genes_to_phenotype.txt").write_text("\n".join(lines) + "\n")
    fetching.import_named("hpo", [str(folder / "genes_to_phenotype.txt"), str(folder / "hp.obo")], version="1")


def test_features_lists_lead_to_diseases_of_their_organ(tmp_path: Path) -> None:
    made_up_hpo(tmp_path)
    table = keys_of(SYMBOLS).with_columns(measured=pl.lit(value=True))
    keys, rng = table["key"].to_list(), np.random.default_rng(5)
    organ = [[keys[i] for i in range(o, ORGANS * 20, ORGANS)][:15] for o in range(ORGANS)]

    def chance() -> list[list[str]]:
        return [rng.choice(keys, 15, replace=False).tolist() for _ in range(12)]

    lists = [*organ[:3], *chance()[3:]]
    controls = {"dealt": chance(), "others": [*organ[5:], *chance()[5:]], "nothing": [[]] * 12}
    given = Asked(lists, table, ("in the vocabulary", ""), list(range(100, 112)), controls=controls)
    config = DatabaseConfig(sources="hpo", null="none")
    record = ask_databases(given, config, tmp_path)["databases"]["hpo"]
    assert record["status"] == "run", record["why"]
    told = record["diseases"]
    assert (told["asked"], told["of"]) == (record["significant"], 200)
    assert told["asked"] >= 3
    assert told["controls"]["others"]["asked"] == record["controls"]["others"]["significant"] >= 5
    assert told["controls"]["nothing"] == {"asked": 0, "significant": 0}
    assert told["controls"]["dealt"]["asked"] == record["controls"]["dealt"]["significant"]
    path = tmp_path / "hpo_diseases.parquet"
    likest_ones = pl.read_parquet(path)
    assert likest_ones.schema == {
        "feature": pl.Int32,
        "disease": pl.String,
        "label": pl.String,
        "phenotypes": pl.Int32,
        "score": pl.Float64,
        "p": pl.Float64,
        "q": pl.Float64,
    }
    for number in range(3):
        diseases = likest_ones.filter(pl.col("feature") == 100 + number)["disease"].to_list()
        assert len(diseases) == 5
        assert {int(each[5:]) % ORGANS for each in diseases} == {number}
    before = path.read_bytes()
    path.unlink()
    assert ask_databases(given, config, tmp_path)["databases"]["hpo"] == record
    assert path.read_bytes() == before
