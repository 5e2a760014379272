"""Orphanet's XML, old and new, its service, and XML that is an attack or an accident."""

from __future__ import annotations

import gzip
import importlib.util
import re
import sys
import zipfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from elute.base.errors import DataError, ServiceError
from elute.validation.reading import hpo
from elute.validation.reading.associations import check
from elute.validation.sources import orphanet
from elute.validation.sources.orphanet import PRODUCT, SOURCE, read


def link(symbol: str, hgnc: str, kind: str, status: str = "Assessed") -> str:
    number = (
        f"<ExternalReference><Source>HGNC</Source><Reference>{hgnc}</Reference></ExternalReference>" if hgnc else ""
    )
    other = "<ExternalReference><Source>OMIM</Source><Reference>611254</Reference></ExternalReference>"
    return f"""<DisorderGeneAssociation><SourceOfValidation>1[PMID]</SourceOfValidation>
    <Gene id="1"><OrphaNumber>268061</OrphaNumber><Name lang="en">a gene</Name>{symbol and f"<Symbol>{symbol}</Symbol>"}
      <SynonymList><Synonym lang="en">OLD1</Synonym></SynonymList>
      <ExternalReferenceList>{other}{number}{other}</ExternalReferenceList></Gene>
    <DisorderGeneAssociationType id="2"><Name lang="en">{kind}</Name></DisorderGeneAssociationType>
    <DisorderGeneAssociationStatus id="3"><Name lang="en">{status}</Name></DisorderGeneAssociationStatus>
    </DisorderGeneAssociation>"""


def product(*links: str, code: str = "OrphaCode", name: str = "Joubert\n  syndrome &amp; more", head: str = "") -> str:
    number = f"<{code}>475</{code}>"
    return f"""{head or '<?xml version="1.0" encoding="UTF-8"?>'}
<JDBOR date="2031-04-01 07:53:50" version="1.3"><DisorderList count="2">
<Disorder id="9"><{code}>9</{code}><Name lang="en">Without genes</Name></Disorder>
<Disorder id="17601">{number}<Name lang="en">{name}</Name>
<DisorderType><Name lang="en">Disease</Name></DisorderType>
<DisorderGeneAssociationList count="{len(links)}">{"".join(links)}</DisorderGeneAssociationList></Disorder>
</DisorderList></JDBOR>"""


CAUSAL = "Disease-causing germline mutation(s) (loss of function) in"
LINKS = (
    link("KIF7", "30497", CAUSAL),
    link("KIF7", "30497", "Modifying germline mutation in"),
    link("NEWGENE", "", "Candidate gene tested in", "Not yet assessed"),
    link("", "", CAUSAL),
    link("", "15", "A kind that is new"),
)


def write(tmp_path: Path, text: str | bytes) -> dict[str, Path]:
    path = tmp_path / "en_product6.xml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return {PRODUCT: path}


def beside(name: str) -> ModuleType:
    """A module that lies beside this test."""
    spec = importlib.util.spec_from_file_location(f"beside_orphanet_{Path(name).stem}", Path(__file__).parent / name)
    assert spec
    assert spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


serving = beside("serving.py")
recorded = beside("recorded/orphanet.py")


def test_associations_are_read_with_their_kinds(tmp_path: Path) -> None:
    found = read(write(tmp_path, product(*LINKS)))
    name = "Joubert syndrome & more"
    assert found.table.select("gene", "gene_kind", "called", "term", "label", "evidence", "group").rows() == [
        ("HGNC:30497", "hgnc", "KIF7", "ORPHA:475", name, CAUSAL, "causal"),
        ("HGNC:30497", "hgnc", "KIF7", "ORPHA:475", name, "Modifying germline mutation in", "modifier"),
        ("NEWGENE", "symbol", "NEWGENE", "ORPHA:475", name, "Candidate gene tested in; Not yet assessed", "candidate"),
        ("HGNC:15", "hgnc", None, "ORPHA:475", name, "A kind that is new", "other"),
    ]
    assert found.version == "2031-04-01"
    assert found.notes == (
        "Left out: 1 association of genes without symbol and number.",
        "1 association of 4 not assessed by Orphanet's experts yet.",
    )


def test_the_old_form_reads_the_same(tmp_path: Path) -> None:
    """OrphaNumber for OrphaCode, also within a gene; ISO-8859-1."""
    new = read(write(tmp_path, product(*LINKS, name="Sjögren")))
    head = '<?xml version="1.0" encoding="ISO-8859-1"?>'
    old = read(write(tmp_path, product(*LINKS, name="Sjögren", code="OrphaNumber", head=head).encode("latin-1")))
    assert old == (old.table, new.version, new.notes)
    assert old.table.equals(new.table)
    assert set(old.table["label"]) == {"Sjögren"}


def test_packed_files_read_the_same(tmp_path: Path) -> None:
    plain = read(write(tmp_path, product(*LINKS))).table
    assert read(write(tmp_path, gzip.compress(product(*LINKS).encode()))).table.equals(plain)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        archive.writestr("en_product6.xml", product(*LINKS))
    assert read({PRODUCT: tmp_path / "x.zip"}).table.equals(plain)


def test_names_are_not_mixed_up_between_disorders_and_genes(tmp_path: Path) -> None:
    """A gene without a number is not given the number of the one before it, nor a disorder another's name."""
    text = product(link("AAA", "1", CAUSAL), link("BBB", "", CAUSAL))
    second = "<Disorder><OrphaCode>8</OrphaCode><DisorderGeneAssociationList>"
    second += link("CCC", "3", CAUSAL) + "</DisorderGeneAssociationList></Disorder></DisorderList>"
    found = read(write(tmp_path, text.replace("</DisorderList>", second))).table
    assert found.select("gene", "term", "label").rows() == [
        ("HGNC:1", "ORPHA:475", "Joubert syndrome & more"),
        ("BBB", "ORPHA:475", "Joubert syndrome & more"),
        ("HGNC:3", "ORPHA:8", "ORPHA:8"),
    ]


GOOD = product(*LINKS)
BOMB = (
    "<!DOCTYPE lolz [" + "".join(f'<!ENTITY lol{n} "{f"&lol{n - 1};" * 10 if n else "lol"}">' for n in range(10)) + "]>"
)
DECLARED = '<?xml version="1.0" encoding="UTF-8"?>'
BAD: dict[str, tuple[str | bytes, str]] = {
    "a bomb of entities": (
        GOOD.replace(DECLARED, DECLARED + BOMB).replace("Joubert", "&lol9;"),
        "declares a document type",
    ),
    "a file from outside": (
        GOOD.replace(DECLARED, f'{DECLARED}<!DOCTYPE x [<!ENTITY e SYSTEM "file:///etc/passwd">]>').replace(
            "Joubert", "&e;"
        ),
        "declares a document type",
    ),
    "a document type alone": (
        GOOD.replace(DECLARED, DECLARED + '<!DOCTYPE JDBOR SYSTEM "a.dtd">'),
        "declares a document",
    ),
    "a document type in UTF-16": (GOOD.replace(DECLARED, BOMB).encode("utf-16"), "is UTF-16"),
    "a bomb in UTF-16 without its mark": (
        GOOD.replace(DECLARED, BOMB).strip().encode("utf-16-le"),
        "declares a document",
    ),
    "another encoding": (GOOD.replace("UTF-8", "cp037"), "encoding"),
    "an entity that nobody declared": (GOOD.replace("Joubert", "&nobody;"), "undefined entity"),
    "cut short": (GOOD[:-300], "is cut short or no XML: .* at line"),
    "cut short and packed": (gzip.compress(GOOD.encode() * 9)[:-20], "cut short or damaged"),
    "two documents": (GOOD + GOOD.replace(DECLARED, ""), "junk after document element"),
    "no UTF-8": (GOOD.replace("Joubert", "Sjögren").encode("latin-1"), "not well-formed"),
    "something else": (f"{DECLARED}<ClinVarSet/>", "begins <ClinVarSet>"),
    "another product": (GOOD.replace("DisorderGeneAssociation", "HPODisorderAssociation"), "no disorder with a gene"),
    "no genes": (product(), "no disorder with a gene"),
    "no number": (GOOD.replace("<OrphaCode>475", "<OrphaCode>none"), "whose number is 'none'"),
    "nested without end": (
        GOOD.replace("<DisorderType>", "<a>" * 99 + "</a>" * 99 + "<DisorderType>"),
        "nested deeper",
    ),
    "an endless tag": (GOOD.replace('id="9"', f'id="{"9" * 6_000_000}"'), "a tag or comment of many megabytes"),
    "an endless comment": (GOOD.replace(DECLARED, f"{DECLARED}<!--{'x' * 6_000_000}-->"), "a tag or comment of many"),
    "an endless text": (GOOD.replace("Joubert", "J" * 70_000), "a text of more than 65,536"),
    "a web page": ("<!DOCTYPE html><html><body>404</body></html>", "is a web page"),
    "a table": ("OrphaCode\tSymbol\n1\tA\n", "no XML: syntax error at line 1"),
    "empty": ("", "is empty"),
    "blank": (" \n ", "is empty"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_in_a_line(name: str, tmp_path: Path) -> None:
    text, message = BAD[name]
    files = write(tmp_path, text)
    with pytest.raises(DataError, match=message) as caught:
        read(files)
    assert str(files[PRODUCT]) in str(caught.value)
    assert "\n" not in str(caught.value)
    assert "root:" not in str(caught.value)


def test_a_file_that_unpacks_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(orphanet, "_MOST", 1 << 20)
    endless = GOOD.replace("<DisorderType>", "<a/>" * (1 << 19) + "<DisorderType>")
    with pytest.raises(DataError, match="unpacks to more than a file of this kind can hold"):
        read(write(tmp_path, gzip.compress(endless.encode())))


def test_without_a_file_of_its_own_the_pairs_of_hpo_are_read(tmp_path: Path) -> None:
    path = tmp_path / "genes_to_phenotype.txt"
    path.write_text(
        "ncbi_gene_id\tgene_symbol\thpo_id\thpo_name\tfrequency\tdisease_id\n"
        "10\tONE\tHP:0000003\tpain\t-\tORPHA:7\n10\tONE\tHP:0000003\tpain\t-\tOMIM:900001\n"
    )
    found = read({hpo.GENES: path})
    assert found.table.select("gene", "gene_kind", "term").rows() == [("10", "entrez", "ORPHA:7")]
    with pytest.raises(DataError, match=r"en_product6\.xml of Orphanet is not there"):
        read({})


def test_what_the_service_gives_is_the_same_table(tmp_path: Path) -> None:
    assert SOURCE.ask
    with serving.serve(recorded.routes()) as server, serving.patient(tmp_path, server) as client:
        table = check(SOURCE.ask(client, recorded.GENES), where="test")
    assert len(table) == recorded.EXPECTED
    assert set(table["called"]) == {"KIF7", "C9orf72"}, "AHI1 has the disorder too, and was not asked for"
    assert [request.path.rsplit("/")[-1] for request in server.asked] == ["kif7", "c9orf72", "gapdh"]
    assert not server.lost


def test_a_service_that_has_moved_is_not_taken_for_one_that_knows_nothing(tmp_path: Path) -> None:
    assert SOURCE.ask
    with (
        serving.serve({}) as server,
        serving.patient(tmp_path, server) as client,
        pytest.raises(ServiceError, match="does not even know KIF7"),
    ):
        SOURCE.ask(client, recorded.GENES[1:2])


def changed(change: Any) -> dict[str, Any]:
    disorder = {
        "ORPHAcode": 1,
        "Preferred term": "x",
        "DisorderGeneAssociation": [{"Gene": {"Symbol": "KIF7"}, "DisorderGeneAssociationType": "Role in"}],
    }
    return {"data": {"__count": 1, "results": [disorder]} | change(disorder)}


UNUSABLE = {
    "nothing": lambda _: {"results": None},
    "fewer than counted": lambda _: {"__count": 3},
    "another gene": lambda d: {
        "results": [d | {"DisorderGeneAssociation": [{"Gene": {"Symbol": "A"}, "DisorderGeneAssociationType": "x"}]}]
    },
    "no association": lambda d: {"results": [d | {"DisorderGeneAssociation": []}]},
    "no number": lambda d: {"results": [{k: v for k, v in d.items() if k != "ORPHAcode"}]},
    "no name": lambda d: {"results": [d | {"Preferred term": None}]},
    "no symbol": lambda d: {"results": [d | {"DisorderGeneAssociation": [{"Gene": {}}]}]},
}


@pytest.mark.parametrize("name", UNUSABLE)
def test_an_answer_of_another_form_is_of_no_use(name: str, tmp_path: Path) -> None:
    routes = {("GET", "api.orphadata.com/*"): lambda _: serving.answer(changed(UNUSABLE[name]))}
    assert SOURCE.ask
    with (
        serving.serve(routes) as server,
        serving.patient(tmp_path, server) as client,
        pytest.raises(ServiceError, match="its answer"),
    ):
        SOURCE.ask(client, recorded.GENES[:1])


@pytest.mark.real_data
@pytest.mark.parametrize("name", ["en_product6_current_format_1disorder", "dipper_orph-germline"])
def test_the_real_files_of_today_and_of_2018(name: str, real_data: Path) -> None:
    found = read({PRODUCT: real_data / "databases" / "orphanet" / f"{name}.xml"})
    assert found.table["gene"].to_list() == ["HGNC:30497"]
    assert found.table["group"].to_list() == ["causal"]
    assert re.fullmatch(r"20\d\d-\d\d-\d\d", found.version)


@pytest.mark.real_data
def test_the_real_pairs_of_hpo(real_data: Path) -> None:
    names = {hpo.GENES: "genes_to_phenotype.txt.gz", hpo.DISEASES: "phenotype.hpoa.gz"}
    found = read({role: real_data / "hpo" / name for role, name in names.items()})
    assert len(found.table) == 5_209
    assert found.version == "2025-01-16"
    assert (found.table["label"] == found.table["term"]).sum() == 0
