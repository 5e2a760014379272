"""GWAS Catalog: the table annotated with ontology terms, and its service, which passes over what it does not know."""

from __future__ import annotations

import gzip
import importlib.util
import io
import json
import sys
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import polars as pl
import pytest

from elute.base.errors import DamagedError, DataError, ServiceError
from elute.validation.reading import columns
from elute.validation.reading.associations import Read
from elute.validation.sources.gwas_catalog import SOURCE


def beside(name: str) -> ModuleType:
    """A module that lies beside this test."""
    spec = importlib.util.spec_from_file_location(f"beside_gwas_{Path(name).stem}", Path(__file__).parent / name)
    assert spec
    assert spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


serving = beside("serving.py")
recorded = beside("recorded/gwas_catalog.py")

HEADER = """DATE ADDED TO CATALOG
PUBMEDID
FIRST AUTHOR
DATE
JOURNAL
LINK
STUDY
DISEASE/TRAIT
INITIAL SAMPLE SIZE
REPLICATION SAMPLE SIZE
REGION
CHR_ID
CHR_POS
REPORTED GENE(S)
MAPPED_GENE
UPSTREAM_GENE_ID
DOWNSTREAM_GENE_ID
SNP_GENE_IDS
UPSTREAM_GENE_DISTANCE
DOWNSTREAM_GENE_DISTANCE
STRONGEST SNP-RISK ALLELE
SNPS
MERGED
SNP_ID_CURRENT
CONTEXT
INTERGENIC
RISK ALLELE FREQUENCY
P-VALUE
PVALUE_MLOG
P-VALUE (TEXT)
OR or BETA
95% CI (TEXT)
PLATFORM [SNPS PASSING QC]
CNV
MAPPED_TRAIT
MAPPED_TRAIT_URI
STUDY ACCESSION
GENOTYPING TECHNOLOGY""".splitlines()
EFO, MONDO, ORDO = "http://www.ebi.ac.uk/efo/", "http://purl.obolibrary.org/obo/", "http://www.orpha.net/ORDO/"
ASTHMA = {"MAPPED_TRAIT": "asthma", "MAPPED_TRAIT_URI": f"{MONDO}MONDO_0004979"}


def line(**fields: str) -> str:
    told = {
        "DATE ADDED TO CATALOG": "2024-05-01",
        "STUDY": 'A study of "asthma, and more',
        "MAPPED_GENE": "IL33",
        "P-VALUE": "4E-8",
        "PVALUE_MLOG": "7.4",
        "STUDY ACCESSION": "GCST000001",
        **ASTHMA,
        **{name.replace("_ADDED", " ADDED TO CATALOG"): value for name, value in fields.items()},
    }
    assert set(told) <= set(HEADER)
    return "\t".join(told.get(name, "") for name in HEADER)


def table(*lines: str) -> str:
    return "\n".join(["\t".join(HEADER), *lines]) + "\n"


def read(tmp_path: Path, text: str | bytes, name: str = "gwas.tsv") -> Read:
    path = tmp_path / name
    path.write_bytes(text.encode() if isinstance(text, str) else text)
    return SOURCE.read({"associations": path})


def zipped(text: str, name: str = "gwas-catalog-download-associations-alt-full.tsv") -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, text)
    return out.getvalue()


@pytest.mark.parametrize(
    ("written", "genes"),
    [
        ("IL33", [("IL33", None)]),
        ("HLA-DRB1", [("HLA-DRB1", None)]),
        ("AC140172.1 - IL33", [("AC140172.1", "intergenic"), ("IL33", "intergenic")]),
        ("IL33, RANBP6", [("IL33", None), ("RANBP6", None)]),
        ("PAX5; PAX5; PAX5", [("PAX5", None)]),
        ("IL33;RANBP6", [("IL33", None), ("RANBP6", None)]),
        ("IL33 x HLA-A - HLA-B", [("IL33", None), ("HLA-A", "intergenic"), ("HLA-B", "intergenic")]),
        ("IL33; NR", [("IL33", None)]),
    ],
)
def test_every_way_of_writing_genes(tmp_path: Path, written: str, genes: list[tuple[str, str | None]]) -> None:
    found = read(tmp_path, table(line(MAPPED_GENE=written))).table
    assert found.select("gene", "group").rows() == genes
    assert set(found["gene_kind"]) == {"symbol"}


@pytest.mark.parametrize(
    "pack", [str.encode, lambda t: gzip.compress(t.encode()), zipped], ids=["plain", "gzip", "zip"]
)
def test_a_row_is_a_gene_trait_and_study_with_its_strongest_association(
    tmp_path: Path, pack: Callable[[str], bytes]
) -> None:
    text = table(
        line(PVALUE_MLOG="7.4"),
        line(PVALUE_MLOG="423.5", **{"P-VALUE": "0.0"}, DATE_ADDED="2025-01-31"),
        line(PVALUE_MLOG="9", **{"STUDY ACCESSION": "GCST000002"}),
        line(PVALUE_MLOG="8", MAPPED_GENE="X - IL33"),
    )
    found = read(tmp_path, pack(text))
    kept = found.table.filter(pl.col("gene") == "IL33").select("term", "label", "score", "evidence", "group").rows()
    assert kept == [
        ("MONDO:0004979", "asthma", 423.5, "GCST000001", None),
        ("MONDO:0004979", "asthma", 9.0, "GCST000002", None),
        ("MONDO:0004979", "asthma", 8.0, "GCST000001", "intergenic"),
    ]
    assert found.version == "2025-01-31"
    assert found.notes == (
        "4 associations in all; of one gene, trait and study the strongest is a row.",
        "2 rows of a variant between two genes, of the group intergenic.",
    )


def test_names_with_commas_are_learnt_from_lines_with_one_trait(tmp_path: Path) -> None:
    sure = {"MAPPED_TRAIT": "chronic bronchitis, in adults", "MAPPED_TRAIT_URI": f"{EFO}EFO_0006505"}
    both = {
        "MAPPED_TRAIT": "chronic bronchitis, in adults, asthma",
        "MAPPED_TRAIT_URI": f"{EFO}EFO_0006505, {MONDO}MONDO_0004979",
    }
    pair = {
        "MAPPED_TRAIT": "Ehlers-Danlos, height",
        "MAPPED_TRAIT_URI": f"{ORDO}Orphanet_98249, {EFO}EFO_0004339",
    }
    odd = {"MAPPED_TRAIT": "one, two, three", "MAPPED_TRAIT_URI": f"{EFO}EFO_1, {EFO}EFO_2"}
    found = read(tmp_path, table(line(**both), line(**pair), line(**odd), line(**sure), line()))
    assert dict(found.table.select("term", "label").rows()) == {
        "EFO:0006505": "chronic bronchitis, in adults",
        "MONDO:0004979": "asthma",
        "ORPHA:98249": "Ehlers-Danlos",
        "EFO:0004339": "height",
        "EFO:1": "EFO:1",
        "EFO:2": "EFO:2",
    }


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    text = table(
        line(),
        line(MAPPED_TRAIT="", MAPPED_TRAIT_URI=""),
        line(MAPPED_GENE=""),
        line(MAPPED_GENE="No mapped genes"),
        line(MAPPED_TRAIT_URI="http://www.ebi.ac.uk/efo/asthma"),
        line(PVALUE_MLOG="", **{"P-VALUE": "", "STUDY ACCESSION": "GCST000009"}),
        line(PVALUE_MLOG="", **{"P-VALUE": "2E-400", "STUDY ACCESSION": "GCST000010"}),
    )
    found = read(tmp_path, text)
    assert dict(found.table.select("evidence", "score").rows()) == {
        "GCST000001": 7.4,
        "GCST000009": None,
        "GCST000010": pytest.approx(399.69897),
    }
    assert found.notes[:4] == (
        "1 association left out: no ontology term.",
        "2 associations left out: no gene.",
        "1 row left out: the trait's address names no term.",
        "1 association without a p-value.",
    )


def test_a_part_without_dates_takes_none_away(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    dated, bare = line(DATE_ADDED="2025-01-31"), line(DATE_ADDED="")
    monkeypatch.setattr(columns, "LONGEST", 1000)
    assert read(tmp_path, table(bare)).version == ""
    assert read(tmp_path, table(bare, dated, *[bare] * 40)).version == "2025-01-31"


def test_a_table_that_comes_in_many_parts_is_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = table(*(line(MAPPED_GENE=f"G{i % 7} - H{i % 3}", PVALUE_MLOG=str(i % 11)) for i in range(300)))
    whole = read(tmp_path, text)
    monkeypatch.setattr(columns, "LONGEST", 4096)
    parts = read(tmp_path, text)
    assert parts.table.sort(pl.all()).equals(whole.table.sort(pl.all()))
    assert parts.notes == whole.notes


GOOD = table(line(), line(MAPPED_GENE="X - Y"))
BAD: dict[str, tuple[str | bytes, type[DataError], str]] = {
    "empty": ("", DamagedError, "is empty"),
    "a web page": ("<html><body>502</body></html>", DamagedError, "is a web page, not data"),
    "JSON": ('{"error": "gone"}', DamagedError, "is no table"),
    "no ontology": (
        GOOD.replace("MAPPED_TRAIT_URI", "TRAIT").replace("MAPPED_TRAIT", "OTHER"),
        DataError,
        "lacks the columns MAPPED_TRAIT, MAPPED_TRAIT_URI",
    ),
    "no p": (GOOD.replace("PVALUE_MLOG", "P"), DataError, "lacks the column PVALUE_MLOG"),
    "no rows": (table(), DataError, "has a header and no rows"),
    "no numbers": (
        table(line(PVALUE_MLOG="high", **{"P-VALUE": "low"})),
        DataError,
        "has no number in the column PVALUE",
    ),
    "a cut line": (GOOD.rstrip("\n")[:-30].rpartition("\t")[0], DamagedError, "line 3 has"),
    "a cut gzip": (gzip.compress(GOOD.encode())[:-12], DamagedError, "is cut short or damaged"),
    "a cut zip": (zipped(GOOD)[:-40], DamagedError, "is a zip that is cut short or damaged"),
    "another zip": (zipped(GOOD, "readme.txt"), DataError, r"is a zip with 0 files whose name ends in .tsv, not one"),
    "UTF-16": (GOOD.encode("utf-16"), DataError, "is UTF-16 text"),
    "Latin-1": (GOOD.replace("IL33", "é").encode("latin-1"), DataError, "line 2 is no UTF-8 text"),
    "zero bytes": (GOOD.replace("IL33", "\0"), DamagedError, "line 2 holds zero bytes"),
    "commas": (GOOD.replace('"', "").replace("\t", ","), DataError, "has commas between its columns"),
    "a column twice": (GOOD.replace("MAPPED_TRAIT_URI", "MAPPED_TRAIT", 1), DataError, "MAPPED_TRAIT"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_none_is_one_line(tmp_path: Path, name: str) -> None:
    content, kind, says = BAD[name]
    with pytest.raises(kind, match=says) as error:
        read(tmp_path, content)
    assert str(error.value).startswith(f"{tmp_path / 'gwas.tsv'}: ")
    assert "\n" not in str(error.value)


@pytest.mark.real_data
def test_real_heads(real_data: Path) -> None:
    folder = real_data / "databases" / "gwas_catalog"
    between = SOURCE.read({"associations": folder / "dipper_rs1491921_associations_ontology-annotated.tsv"})
    assert between.table.select("gene", "term", "label", "group").rows() == [
        ("AC140172.1", "EFO:0006995", "response to diisocyanate", "intergenic"),
        ("AC140172.1", "EFO:0000270", "asthma", "intergenic"),
        ("AC093274.1", "EFO:0006995", "response to diisocyanate", "intergenic"),
        ("AC093274.1", "EFO:0000270", "asthma", "intergenic"),
    ]
    assert between.table["score"].to_list() == pytest.approx([6.154901959985743] * 4)
    haplotype = SOURCE.read({"associations": folder / "dipper_rs1329573_associations_ontology-annotated.tsv"})
    assert haplotype.table.select("gene", "term", "evidence").rows() == [("PAX5", "EFO:0004337", "GCST001428")]
    bare = SOURCE.read({"associations": folder / "dipper_kgp8851185_associations_ontology-annotated.tsv"})
    assert not len(bare.table)
    assert bare.notes[0] == "1 association left out: no gene."


def test_copies_are_told_by_their_names() -> None:
    for name in ("gwas-catalog-associations_ontology-annotated-full.zip", "gwas_catalog_v1.0.2-associations_e113.tsv"):
        assert SOURCE.role_of(Path(name)) == "associations"


def ask(tmp_path: Path, routes: Any, genes: Any = recorded.GENES) -> tuple[pl.DataFrame, list[Any]]:
    with serving.serve(routes) as server, serving.patient(tmp_path, server) as client:
        return SOURCE.ask(client, genes), list(server.asked)  # type: ignore[misc]


def test_all_pages_of_each_gene(tmp_path: Path) -> None:
    found, asked = ask(tmp_path, recorded.routes())
    assert len(found) == recorded.EXPECTED
    assert len(asked) == 3 + 1 + 1
    assert found.group_by("gene").len().sort("gene").rows() == [("LRRK2", 6), ("TCL1A", 450)]
    # Of association 400, p is 3e-408: too small for a number, and its two parts still say it.
    assert found.filter(pl.col("evidence") == "GCST90840400")["score"].item() == pytest.approx(408 - 0.4771212547)
    assert set(found.filter(pl.col("gene") == "LRRK2")["term"]) == {"MONDO:0005180", "HP:0001300"}


def test_another_spelling_where_the_parameter_is_passed_over(tmp_path: Path) -> None:
    found, asked = ask(tmp_path, recorded.routes(by="mappedGene"))
    assert len(found) == recorded.EXPECTED
    assert "mapped_gene" in asked[0].query
    assert "mappedGene" in asked[1].query


def test_the_whole_catalogue_is_never_taken_for_an_answer(tmp_path: Path) -> None:
    with pytest.raises(ServiceError, match="^gwas-catalog: answers about other genes than TCL1A"):
        ask(tmp_path, recorded.routes(by="gene_name"))

    def own_first(request: Any) -> Any:
        """The catalogue, of which the first page happens to be about the gene."""
        status, headers, body = recorded.page(recorded.CATALOGUE["TCL1A"], request)
        value = json.loads(body)
        value["page"].update(totalElements=1_190_000, totalPages=5950)
        return status, headers, json.dumps(value).encode()

    with pytest.raises(ServiceError, match="answers about other genes than TCL1A"):
        ask(tmp_path / "2", {recorded.PLACE: own_first})


def changed(change: Callable[[dict[str, Any]], object], number: int) -> Any:
    """Routes of which one page is changed."""
    real = recorded.routes()[recorded.PLACE]

    def associations(request: Any) -> Any:
        status, headers, body = real(request)
        value = json.loads(body)
        if value["page"]["number"] == number and "_embedded" in value:
            change(value)
        return status, headers, json.dumps(value).encode()

    return {recorded.PLACE: associations}


def first(answer: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = answer["_embedded"]["associations"][0]
    return found


WRONG: dict[str, tuple[Callable[[dict[str, Any]], object], int, str]] = {
    "another gene later": (lambda a: first(a).update(mapped_genes=["IL33"]), 2, "answers about other genes than TCL1A"),
    "an association missing": (lambda a: a["_embedded"]["associations"].pop(), 1, "promises 450 items and gives 449"),
    "one twice": (lambda a: a["_embedded"]["associations"].append(first(a)), 1, "gives an item twice"),
    "the same page again": (lambda a: a["page"].update(number=0), 1, "is page 0, not 1"),
    "another total": (lambda a: a["page"].update(totalElements=451), 1, "changes its number of items from 450 to 451"),
    "no list": (lambda a: a.pop("_embedded"), 1, "lacks _embedded"),
    "no page": (lambda a: a.pop("page"), 1, "lacks page"),
    "no genes": (lambda a: first(a).pop("mapped_genes"), 0, "lacks mapped_genes"),
    "genes of numbers": (lambda a: first(a).update(mapped_genes=[7]), 0, "has a gene that is no text"),
    "a trait without a name": (lambda a: first(a)["efo_traits"][0].update(efo_trait=" "), 0, "a trait without a name"),
    "no term": (
        lambda a: [one.update(efo_traits=[]) for one in a["_embedded"]["associations"]],
        0,
        "names no trait by",
    ),
    "a p-value of 0 alone": (
        lambda a: first(a).update(p_value=0.0, pvalue_exponent=None),
        0,
        "a p-value of 0 and not its",
    ),
    "no p-value": (lambda a: first(a).pop("p_value"), 0, "lacks p_value"),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_answer_that_cannot_be_is_refused(tmp_path: Path, name: str) -> None:
    change, number, says = WRONG[name]
    with pytest.raises(ServiceError, match=says) as error:
        ask(tmp_path, changed(change, number), recorded.GENES[:1])
    assert "\n" not in str(error.value)


@pytest.mark.real_data
def test_a_real_record(real_data: Path, tmp_path: Path) -> None:
    record = json.loads((real_data / "databases" / "gwas_catalog" / "v2_associations_LRRK2_record.json").read_bytes())
    record["page"].update(totalElements=1, totalPages=1)
    found, _ = ask(tmp_path, {recorded.PLACE: lambda _: serving.answer(record)}, recorded.GENES[:1])
    assert found.select("gene", "term", "evidence").rows() == [("TCL1A", "EFO:0010819", "GCST90841394")]
    assert found["score"].item() == pytest.approx(7.5228787453)
