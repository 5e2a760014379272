"""Monarch's three files and its service: of human genes, and nothing that is negated."""

from __future__ import annotations

import gzip
import importlib.util
import json
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pytest

from elute.base.errors import DataError, ServiceError
from elute.validation.database import Gene
from elute.validation.reading.associations import check
from elute.validation.sources.monarch import SOURCE, read

NAMES = (
    *("subject", "subject_label", "subject_category", "subject_taxon", "subject_taxon_label", "negated", "predicate"),
    *("object", "object_label", "object_category", "qualifiers", "publications", "has_evidence"),
    *("primary_knowledge_source", "aggregator_knowledge_source"),
)


def row(subject: str, term: str, *, negated: str = "", taxon: str = "NCBITaxon:9606", **more: str) -> dict[str, str]:
    return {
        "subject": subject,
        "subject_label": f"label of {subject}",
        "subject_category": "biolink:Gene",
        "subject_taxon": taxon,
        "negated": negated,
        "predicate": "biolink:causes",
        "object": term,
        "object_label": f"label of {term}",
        "primary_knowledge_source": "infores:omim",
    } | more


ROWS = {
    "causal": [
        row("HGNC:3603", "MONDO:0007947"),
        row("HGNC:3603", "MONDO:0007947"),
        row("HGNC:3604", "MONDO:0007948", negated="True"),
        row("HGNC:3604", "MONDO:0007949", negated="False", object_label=""),
    ],
    "noncausal": [
        row("HGNC:1", "MONDO:0000001", predicate="biolink:contributes_to", primary_knowledge_source="infores:orphanet"),
        row("NCBIGene:22", "MONDO:0000001"),
        row("NCBIGene:14118", "MONDO:0000001", taxon="NCBITaxon:10090"),
        row("MGI:95489", "MONDO:0000001", taxon="NCBITaxon:10090"),
        row("MONDO:0000002", "HGNC:1"),
        row("HGNC:2", "HP:0000003"),
        row("HGNC:3", "MONDO:0000001", taxon=""),
        row("NCBIGene:23", "MONDO:0000001", taxon=""),
    ],
    "phenotype": [row("HGNC:3603", "HP:0001083", predicate="biolink:has_phenotype"), row("HGNC:3603", "MONDO:0000001")],
}
CALLED = {
    "causal": "gene_disease.9606.tsv.gz",
    "noncausal": "gene_disease.noncausal.tsv.gz",
    "phenotype": "gene_phenotype.9606.tsv.gz",
}


def text_of(rows: list[dict[str, str]], names: tuple[str, ...] = NAMES) -> str:
    return "".join("\t".join(cells) + "\n" for cells in (names, *([r.get(n, "") for n in names] for r in rows)))


@pytest.fixture
def folder(tmp_path: Path) -> dict[str, Path]:
    """The three files."""
    for role, rows in ROWS.items():
        (tmp_path / CALLED[role]).write_bytes(gzip.compress(text_of(rows).encode()))
    return {role: tmp_path / name for role, name in CALLED.items()}


def beside(name: str) -> ModuleType:
    """A module that lies beside this test."""
    spec = importlib.util.spec_from_file_location(f"beside_monarch_{Path(name).stem}", Path(__file__).parent / name)
    assert spec
    assert spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


serving = beside("serving.py")
recorded = beside("recorded/monarch.py")


def test_what_is_kept_and_what_is_left_out(folder: dict[str, Path]) -> None:
    found = read(folder)
    assert found.table.select("gene", "gene_kind", "term", "evidence", "group").rows() == [
        ("HGNC:3603", "hgnc", "MONDO:0007947", "causes; omim", "causal"),
        ("HGNC:3604", "hgnc", "MONDO:0007949", "causes; omim", "causal"),
        ("HGNC:1", "hgnc", "MONDO:0000001", "contributes_to; orphanet", "noncausal"),
        ("22", "entrez", "MONDO:0000001", "causes; omim", "noncausal"),
        ("HGNC:3", "hgnc", "MONDO:0000001", "causes; omim", "noncausal"),
        ("HGNC:3603", "hgnc", "HP:0001083", "has_phenotype; omim", "phenotype"),
    ]
    assert found.table["label"][1] == "MONDO:0007949", "a term without a name is called by its number"
    assert found.table["called"][0] == "label of HGNC:3603"
    assert found.notes == (
        "Left out of causal: 1 row with a negation.",
        "Left out of noncausal: 2 rows with a subject that is no gene of a known kind.",
        "Left out of noncausal: 2 rows of other species.",
        "Left out of noncausal: 1 row with an object that is no MONDO: term.",
        "Left out of phenotype: 1 row with an object that is no HP: term.",
    )


def test_one_file_is_read_by_itself_and_says_so(folder: dict[str, Path]) -> None:
    found = read({"phenotype": folder["phenotype"]})
    assert len(found.table) == 1
    assert found.notes[:2] == (
        "The file of causal associations is not there.",
        "The file of noncausal associations is not there.",
    )
    with pytest.raises(DataError, match="none of Monarch's files is there"):
        read({})


def test_the_release_is_named_beside_the_tables(folder: dict[str, Path], tmp_path: Path) -> None:
    assert read(folder).version == ""
    metadata = tmp_path / "metadata.yaml"
    metadata.write_text("name: monarch-kg\npackages:\n  version: '1'\nversion: '2031-04-01'\n")
    assert SOURCE.role_of(metadata) == "metadata"
    assert read(folder | {"metadata": metadata}).version == "2031-04-01"


def test_files_are_known_by_their_names() -> None:
    for role, name in CALLED.items():
        assert SOURCE.role_of(Path(name)) == SOURCE.role_of(Path(name.removesuffix(".gz"))) == role


def all_but(name: str) -> Callable[[str], bytes]:
    return lambda _: text_of(ROWS["causal"], tuple(each for each in NAMES if each != name)).encode()


BAD: dict[str, tuple[Callable[[str], bytes], str]] = {
    "empty": (lambda _: b"", "is empty"),
    "a header alone": (lambda text: text.split("\n")[0].encode() + b"\n", "has a header and no rows"),
    "cut short": (lambda text: gzip.compress(text.encode() * 20)[:-20], "cut short or damaged"),
    "cut within a line": (lambda text: text[:-150].encode(), "fields"),
    "a web page": (lambda _: b"<html><body>not found</body></html>", "is a web page"),
    "an error in XML": (lambda _: b"<Error><Code>NoSuchKey</Code></Error>", "is no table"),
    "no column of subjects": (all_but("subject"), "lacks the column subject"),
    "no column of objects": (all_but("object"), "lacks the column object"),
    "no word of negation": (all_but("negated"), "lacks the column negated"),
    "another word of negation": (
        lambda text: text.replace("\tTrue\t", "\tyes\t").encode(),
        "'yes' in the column negated",
    ),
    "commas": (lambda text: text.replace("\t", ",").encode(), "has commas between its columns"),
    "no UTF-8": (lambda text: text.replace("label", "läbel", 9).encode("latin-1"), "is no UTF-8"),
    "UTF-16": (lambda text: text.encode("utf-16"), "is UTF-16"),
    "other species": (lambda text: text.replace(":9606", ":10090").encode(), "no causal association of a human gene"),
    "all negated": (
        lambda text: (
            text.replace("\tFalse\t", "\tTrue\t").replace("\t\tbiolink:causes", "\tTrue\tbiolink:causes").encode()
        ),
        "no causal association",
    ),
    "zero bytes": (lambda text: text.replace("MONDO", "M\0NDO").encode(), "zero bytes"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_in_a_line(name: str, tmp_path: Path) -> None:
    make, message = BAD[name]
    path = tmp_path / CALLED["causal"]
    path.write_bytes(make(text_of(ROWS["causal"])))
    with pytest.raises(DataError, match=message) as caught:
        read({"causal": path})
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_service_is_walked_to_the_end(tmp_path: Path) -> None:
    assert SOURCE.ask
    with serving.serve(recorded.routes()) as server, serving.patient(tmp_path, server) as client:
        table = check(SOURCE.ask(client, recorded.GENES), where="test")
        assert len(server.asked) == 3, "two pages of one gene, one of the other"
    assert len(table) == recorded.EXPECTED
    assert dict(table["group"].value_counts().rows()) == {"causal": 1, "noncausal": 1, "phenotype": 600}
    assert "MONDO:0005148" not in set(table["term"]), "a negated one"
    assert set(table["gene"]) == {"HGNC:3603"}
    assert table.filter(pl.col("group") == "noncausal")["evidence"].to_list() == [
        "gene_associated_with_condition; orphanet"
    ]


ITEM = recorded._item(0, "biolink:CausalGeneToDiseaseAssociation", "MONDO:0007947", "x")
UNUSABLE: dict[str, Any] = {
    "no total": {"items": [ITEM]},
    "no items": {"total": 1},
    "more promised than given": {"items": [ITEM], "total": 3},
    "another gene": {"items": [ITEM | {"subject": "HGNC:9"}], "total": 1},
    "another matter": {"items": [ITEM | {"category": "biolink:PairwiseGeneToGeneInteraction"}], "total": 1},
    "another kind of term": {"items": [ITEM | {"object": "HP:0000001"}], "total": 1},
    "no predicate": {"items": [{k: v for k, v in ITEM.items() if k != "predicate"}], "total": 1},
    "no word of negation": {"items": [{k: v for k, v in ITEM.items() if k != "negated"}], "total": 1},
    "negated in words": {"items": [ITEM | {"negated": "no"}], "total": 1},
    "the same twice": {"items": [ITEM, ITEM], "total": 2},
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_answer_that_is_not_the_whole_of_the_matter_is_of_no_use(name: str, tmp_path: Path) -> None:
    routes = {("GET", "api-v3.monarchinitiative.org/*"): lambda _: serving.answer(UNUSABLE[name])}
    assert SOURCE.ask
    with serving.serve(routes) as server, serving.patient(tmp_path, server) as client, pytest.raises(ServiceError):
        SOURCE.ask(client, [Gene("FBN1", "HGNC:3603")])


@pytest.mark.real_data
def test_the_real_answer_has_the_keys_that_are_read(real_data: Path) -> None:
    """Its items are of a patient: of the form that is read, and refused because no gene was asked for."""
    path = real_data / "databases" / "monarch" / "monarch_py_associations_3items.json"
    item = json.loads(path.read_bytes())["items"][0]
    assert {key for key in ITEM if key != "original_predicate"} <= set(item)
