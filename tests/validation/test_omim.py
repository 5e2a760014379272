"""OMIM's files and service; every disease here is made up, for OMIM's rows may not be given out."""

from __future__ import annotations

import gzip
import importlib.util
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from elute.base.errors import DataError, ServiceError
from elute.validation.database import Gene
from elute.validation.reading import hpo
from elute.validation.reading.associations import check
from elute.validation.sources.omim import GENEMAP, MORBIDMAP, SOURCE, Phenotype, phenotypes_of, read

COLUMNS = (
    *("Chromosome", "Genomic Position Start", "Genomic Position End", "Cyto Location", "Computed Cyto Location"),
    *("MIM Number", "Gene/Locus And Other Related Symbols", "Gene Name", "Approved Gene Symbol", "Entrez Gene ID"),
    *("Ensembl Gene ID", "Comments", "Phenotypes", "Mouse Gene Symbol/ID"),
)
TITLE = """# Copyright (c) 1966-2031 A University. Use of this file adheres to the terms of its licence.
# Generated: 2031-04-01
# See end of file for additional documentation on specific fields
"""
END = """# Phenotypes - The phenotypes of a gene; each is followed by its MIM number, if different from that of the locus/gene,
# then by the phenotype mapping key in parentheses,\tand tabs.
#
"""


def line(mim: str, symbols: str, approved: str, entrez: str, phenotypes: str) -> str:
    cells = ["chr1", "0", "27600000", "1p36", "", mim, symbols, "a gene", approved, entrez, "", "", phenotypes, ""]
    return "\t".join(cells) + "\n"


LINES = (
    line("911254", "KIF7, JBTS12", "KIF7", "374654", "Made-up syndrome 1, 900001 (3), Autosomal recessive"),
    line("911255", "AAA", "AAA", "", "{?Pain, left, 2}, 900002 (2); [Tallness] (1); ?Made-up; a, 900003 (4), X-linked"),
    line("911256", "PAIN3", "", "", "{Pain, left, 3}, 911256 (2)"),
    line("911257", "BBB", "BBB", "77", ""),
    line("911258", "CCC", "CCC", "78", "Something (3); unreadable"),
)
GENEMAP2 = TITLE + "# " + "\t".join(COLUMNS) + "\n" + "".join(LINES) + END
MORBID = (
    TITLE
    + "# Phenotype\tGene/Locus And Other Related Symbols\tMIM Number\tCyto Location\n"
    + "Made-up syndrome 1, 900001 (3)\tKIF7, JBTS12, HLS2\t911254\t15q26.1\n"
    + "{Pain, left, 2}, 900002 (2)\tAAA\t911255\t1p36\n"
    + END
)


def beside(name: str) -> ModuleType:
    """A module that lies beside this test."""
    spec = importlib.util.spec_from_file_location(f"beside_omim_{Path(name).stem}", Path(__file__).parent / name)
    assert spec
    assert spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


serving = beside("serving.py")
recorded = beside("recorded/omim.py")


def write(tmp_path: Path, text: str | bytes, role: str = GENEMAP) -> dict[str, Path]:
    path = tmp_path / f"{role}.txt"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return {role: path}


FIELDS = {
    "Pain, 900001 (3)": [Phenotype("Pain", "900001", "3", "", "disease", provisional=False)],
    "Pain, left, type 2, 900001 (3), Autosomal dominant, Somatic mutation": [
        Phenotype(
            "Pain, left, type 2", "900001", "3", "Autosomal dominant, Somatic mutation", "disease", provisional=False
        )
    ],
    "?Pain, 900001 (4), ?Autosomal dominant": [
        Phenotype("Pain", "900001", "4", "?Autosomal dominant", "disease", provisional=True)
    ],
    "{Pain, susceptibility to}, 900001 (1)": [
        Phenotype("Pain, susceptibility to", "900001", "1", "", "susceptibility", provisional=False)
    ],
    "{?Pain}, 900001 (2)": [Phenotype("Pain", "900001", "2", "", "susceptibility", provisional=True)],
    "?{Pain}, 900001 (2)": [Phenotype("Pain", "900001", "2", "", "susceptibility", provisional=True)],
    "[Blood group, {new} kind], 900001 (3)": [
        Phenotype("Blood group, {new} kind", "900001", "3", "", "trait", provisional=False)
    ],
    "{Pain, protection against}, in twins, 900001 (3)": [
        Phenotype("Pain, protection against, in twins", "900001", "3", "", "susceptibility", provisional=False)
    ],
    "Pain (3)": [Phenotype("Pain", "", "3", "", "disease", provisional=False)],
    "Pain (of type 3) (2), Isolated cases": [
        Phenotype("Pain (of type 3)", "", "2", "Isolated cases", "disease", provisional=False)
    ],
    "Pain 17,20-lyase, 900001 (3)": [Phenotype("Pain 17,20-lyase", "900001", "3", "", "disease", provisional=False)],
    "Pain; of old, 900001 (3); Ache (1); ": [
        Phenotype("Pain; of old", "900001", "3", "", "disease", provisional=False),
        Phenotype("Ache", "", "1", "", "disease", provisional=False),
    ],
}


@pytest.mark.parametrize("text", FIELDS)
def test_a_field_of_phenotypes_is_taken_apart(text: str) -> None:
    assert phenotypes_of(text) == (FIELDS[text], [])


def test_what_is_no_phenotype_is_told() -> None:
    found, odd = phenotypes_of("Pain (3); something else; and more (9)")
    assert [each.name for each in found] == ["Pain"]
    assert odd == ["something else; and more (9)"]
    assert phenotypes_of(" ") == ([], [])
    found, odd = phenotypes_of("a;b;c;d;e;f;Pain (3)")
    assert [each.name for each in found] == ["f;Pain"]
    assert odd == ["a;b;c;d;e"]


@pytest.mark.parametrize("piece", [";", " ", ", ", "(3", "{", ", 900001 ", "a;", ") ("])
def test_a_huge_field_is_read_in_no_time(piece: str) -> None:
    began = time.process_time()
    phenotypes_of(piece * (100_000 // len(piece)))
    assert time.process_time() - began < 2


def test_a_gene_map_is_read_to_its_comments_at_the_end(tmp_path: Path) -> None:
    found = read(write(tmp_path, GENEMAP2))
    assert found.table.drop("score").rows() == [
        (
            *("374654", "entrez", "OMIM:900001", "Made-up syndrome 1"),
            *("molecular basis known (3); Autosomal recessive", "disease", "KIF7"),
        ),
        (
            "AAA",
            "symbol",
            "OMIM:900002",
            "Pain, left, 2",
            "provisional; linked to the locus (2)",
            "susceptibility",
            "AAA",
        ),
        ("AAA", "symbol", "OMIM:911255", "Tallness", "associated with the gene (1)", "trait", "AAA"),
        (
            *("AAA", "symbol", "OMIM:900003", "Made-up; a"),
            *("provisional; deletion or duplication of several genes (4); X-linked", "disease", "AAA"),
        ),
        ("78", "entrez", "OMIM:911258", "Something", "molecular basis known (3)", "disease", "CCC"),
    ]
    assert found.version == "2031-04-01"
    assert found.notes == (
        "Left out: 1 phenotype of regions where no gene is known yet.",
        "2 phenotypes without a number of its own under the gene's number.",
        "Left out: 1 phenotype written in no known way, 'unreadable' for one.",
    )


def test_the_headers_of_other_years_read_the_same(tmp_path: Path) -> None:
    old = GENEMAP2.replace("Gene/Locus And Other Related Symbols", "Gene Symbols").replace(
        "Approved Gene Symbol", "Approved Symbol"
    )
    assert read(write(tmp_path, old)).table.equals(read(write(tmp_path, GENEMAP2)).table)


def test_a_morbid_map_is_read_by_the_first_symbol(tmp_path: Path) -> None:
    found = read(write(tmp_path, MORBID, MORBIDMAP))
    assert found.table.select("gene", "gene_kind", "term", "group").rows() == [
        ("KIF7", "symbol", "OMIM:900001", "disease"),
        ("AAA", "symbol", "OMIM:900002", "susceptibility"),
    ]
    assert found.version == "2031-04-01"
    both = write(tmp_path, MORBID, MORBIDMAP) | write(tmp_path, GENEMAP2)
    assert len(read(both).table) == 5, "the gene map says more"


def test_without_a_file_of_its_own_the_pairs_of_hpo_are_read(tmp_path: Path) -> None:
    path = tmp_path / "genes_to_phenotype.txt"
    path.write_text(
        "ncbi_gene_id\tgene_symbol\thpo_id\thpo_name\tfrequency\tdisease_id\n"
        "10\tONE\tHP:0000003\tpain\t-\tORPHA:7\n10\tONE\tHP:0000003\tpain\t-\tOMIM:900001\n"
    )
    found = read({hpo.GENES: path})
    assert found.table.select("gene", "gene_kind", "term").rows() == [("10", "entrez", "OMIM:900001")]
    assert len(read({hpo.GENES: path} | write(tmp_path, GENEMAP2)).table) == 5
    with pytest.raises(DataError, match=r"no file of OMIM is there\. Ask for access"):
        read({})


def test_it_is_said_who_may_have_it() -> None:
    assert not SOURCE.redistributable
    assert SOURCE.by_hand
    assert not any(file.url for file in SOURCE.files)
    assert SOURCE.role_of(Path("genemap2.txt")) == SOURCE.role_of(Path("OMIM_genemap2 (1).txt")) == GENEMAP
    assert SOURCE.role_of(Path("morbidmap.20310401.txt")) == MORBIDMAP


def without(name: str) -> Callable[[str], bytes]:
    return lambda text: text.replace(name, "Another Name").encode()


BAD: dict[str, tuple[Callable[[str], bytes], str]] = {
    "empty": (lambda _: b"", "is empty"),
    "comments alone": (lambda _: (TITLE + END).encode(), "lacks the column"),
    "a header alone": (lambda text: text[: text.index("chr1")].encode(), "has a header and no rows"),
    "cut short and packed": (lambda text: gzip.compress(text.encode())[:-20], "cut short or damaged"),
    "a web page": (lambda _: b"<!DOCTYPE html><html>Sign in to OMIM</html>", "is a web page"),
    "a refusal": (lambda _: b"Access denied: the key has expired\n", "lacks the column"),
    "no phenotypes": (without("Phenotypes\t"), "lacks the columns? .*Phenotypes"),
    "no numbers": (without("MIM Number"), "lacks the columns? .*MIM Number"),
    "no approved symbols": (without("Approved Gene Symbol"), "lacks the columns? .*Approved Gene Symbol"),
    "no symbols": (without("Gene/Locus And Other Related Symbols"), "lacks the columns? .*Gene/Locus"),
    "another number": (lambda text: text.replace("911254", "KIF7").encode(), "'KIF7' as a MIM number"),
    "commas": (lambda text: text.replace("\t", ",").encode(), "has commas between its columns|lacks the column"),
    "another file of OMIM": (
        lambda _: b"# MIM Number\tMIM Entry Type\tEntrez Gene ID (NCBI)\n1\tgene\t1\n",
        "lacks the column",
    ),
    "nothing of use": (lambda text: text.replace("(", "<").encode(), "names no phenotype of any gene"),
    "no UTF-8": (lambda text: text.replace("Pain", "Päin").encode("latin-1"), "is no UTF-8"),
    "UTF-16": (lambda text: text.encode("utf-16"), "is UTF-16"),
    "a field too many": (lambda text: text.replace("\tKIF7\t", "\tKIF7\t\t").encode(), "fields"),
    "zero bytes": (lambda text: text.replace("Pain", "P\0in").encode(), "zero bytes"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_in_a_line(name: str, tmp_path: Path) -> None:
    make, message = BAD[name]
    files = write(tmp_path, make(GENEMAP2))
    with pytest.raises(DataError, match=message) as caught:
        read(files)
    assert str(files[GENEMAP]) in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.fixture
def key(monkeypatch: pytest.MonkeyPatch) -> str:
    """A key that the test's server takes."""
    monkeypatch.setenv("OMIM_API_KEY", recorded.KEY)
    return str(recorded.KEY)


def test_the_service_is_walked_to_the_gene_itself(tmp_path: Path, key: str) -> None:
    assert SOURCE.ask
    with serving.serve(recorded.routes()) as server, serving.patient(tmp_path, server) as client:
        table = check(SOURCE.ask(client, recorded.GENES), where="test")
        assert len(server.asked) == 3, "two pages of one gene, one of the other, which has none"
    assert table.select("gene", "term", "label", "evidence", "group").rows() == [
        ("KIF7", "OMIM:900001", "Made-up syndrome 1", "molecular basis known (3); Autosomal recessive", "disease"),
        (
            *("KIF7", "OMIM:900002", "Made-up disease, susceptibility to"),
            *("provisional; linked to the locus (2)", "susceptibility"),
        ),
        ("KIF7", "OMIM:911254", "Made-up trait", "associated with the gene (1)", "trait"),
        (
            *("KIF7", "OMIM:900003", "Made-up syndrome 2"),
            *("provisional; molecular basis known (3); Autosomal dominant; Somatic mutation", "disease"),
        ),
    ]
    assert all(key.encode() not in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


def test_no_key_and_a_wrong_one_are_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert SOURCE.ask
    with serving.serve(recorded.routes()) as server, serving.patient(tmp_path, server) as client:
        monkeypatch.delenv("OMIM_API_KEY", raising=False)
        with pytest.raises(Exception, match="OMIM_API_KEY"):
            SOURCE.ask(client, recorded.GENES[:1])
        assert not server.asked
        monkeypatch.setenv("OMIM_API_KEY", "wrong-and-secret")
        with pytest.raises(ServiceError, match="OMIM_API_KEY") as caught:
            SOURCE.ask(client, recorded.GENES[:1])
        assert "wrong-and-secret" not in str(caught.value)


MAP: dict[str, Any] = {"mimNumber": "911254", "geneSymbols": "KIF7", "phenotypeMapList": None}
ONE: dict[str, Any] = {"mimNumber": "911254", "geneMap": MAP}


def said(*entries: Any, total: object = None) -> dict[str, Any]:
    found = [{"entry": entry} for entry in entries]
    return {"omim": {"searchResponse": {"entryList": found, "totalResults": len(found) if total is None else total}}}


def mapped(**more: Any) -> dict[str, Any]:
    phenotype = {"phenotype": "x", "phenotypeMappingKey": "3", "phenotypeMimNumber": "900001"} | more
    return said(ONE | {"geneMap": MAP | {"phenotypeMapList": [{"phenotypeMap": phenotype}]}})


UNUSABLE: dict[str, Any] = {
    "no list": {"omim": {"searchResponse": {"totalResults": 0}}},
    "no total": {"omim": {"searchResponse": {"entryList": []}}},
    "a total in words": said(ONE, total="many"),
    "a total that is true": said(ONE, total=True),
    "fewer than promised": said(ONE, total=2),
    "no entry": {"omim": {"searchResponse": {"entryList": [{"item": {}}], "totalResults": 1}}},
    "a list of gene maps": said(ONE | {"geneMap": [MAP]}),
    "no gene map of a gene": said({"mimNumber": "911254", "prefix": "*", "geneMap_v2": MAP}),
    "no symbols": said(ONE | {"geneMap": {"mimNumber": "911254"}}),
    "another key of mapping": mapped(phenotypeMappingKey="7"),
    "no key of mapping": mapped(phenotypeMappingKey=None),
    "another number": mapped(phenotypeMimNumber="PS900001"),
    "no name": mapped(phenotype=None),
}


@pytest.mark.parametrize("name", UNUSABLE)
@pytest.mark.usefixtures("key")
def test_an_answer_of_another_form_is_of_no_use(name: str, tmp_path: Path) -> None:
    routes = {("GET", "api.omim.org/*"): lambda _: serving.answer(UNUSABLE[name])}
    assert SOURCE.ask
    with serving.serve(routes) as server, serving.patient(tmp_path, server) as client, pytest.raises(ServiceError):
        SOURCE.ask(client, recorded.GENES[:1])


@pytest.mark.usefixtures("key")
def test_a_symbol_with_a_sign_is_asked_in_quotes(tmp_path: Path) -> None:
    asked: list[str] = []

    def search(request: Any) -> Any:
        asked.append(request.one("search"))
        return serving.answer(said())

    assert SOURCE.ask
    with serving.serve({("GET", "api.omim.org/*"): search}) as server, serving.patient(tmp_path, server) as client:
        assert len(SOURCE.ask(client, [Gene("HLA-A"), Gene("TTN")])) == 0
    assert asked == ['approved_gene_symbol:"HLA-A"', "approved_gene_symbol:TTN"]


@pytest.mark.usefixtures("key")
def test_symbols_of_the_gene_map_serve_where_no_approved_one_is_named(tmp_path: Path) -> None:
    routes = {("GET", "api.omim.org/*"): lambda _: serving.answer(mapped())}
    assert SOURCE.ask
    with serving.serve(routes) as server, serving.patient(tmp_path, server) as client:
        assert SOURCE.ask(client, recorded.GENES[:1])["term"].to_list() == ["OMIM:900001"]


@pytest.mark.real_data
def test_the_real_pairs_of_hpo(real_data: Path) -> None:
    names = {hpo.GENES: "genes_to_phenotype.txt.gz", hpo.DISEASES: "phenotype.hpoa.gz"}
    found = read({role: real_data / "hpo" / name for role, name in names.items()})
    assert len(found.table) == 7_083
    assert found.version == "2025-01-16"
    assert (found.table["label"] == found.table["term"]).sum() == 0
