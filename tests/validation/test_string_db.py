"""STRING: pairs of proteins from its files or a list of edges, and its service."""

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
from hypothesis import given, settings
from hypothesis import strategies as st

from elute.base.errors import DamagedError, DataError, MissingError, ServiceError
from elute.validation.reading import columns
from elute.validation.reading.associations import Read
from elute.validation.sources.string_db import SOURCE


def beside(name: str) -> ModuleType:
    """A module that lies beside this test."""
    spec = importlib.util.spec_from_file_location(f"beside_string_{Path(name).stem}", Path(__file__).parent / name)
    assert spec
    assert spec.loader
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


serving = beside("serving.py")
recorded = beside("recorded/string_db.py")

A, B, C, D = (f"9606.ENSP{n:011d}" for n in (233, 412, 5500, 9012))
LINKS = f"""protein1 protein2 combined_score
{A} {B} 992
{A} {C} 399
{A} {D} 400
{B} {A} 992
{C} {A} 399
{D} {A} 400
"""
INFO = f"""#string_protein_id\tpreferred_name\tprotein_size\tannotation
{A}\tARF5\t180\tADP-ribosylation factor 5; a "GTP-binding protein" of traffic...
{B}\tM6PR\t277\tCation-dependent mannose-6-phosphate receptor
{C}\tGGA1\t639\tannotation not available
{D}\tENSP00000009012\t101\tannotation not available
"""
ALIASES = f"""#string_protein_id\talias\tsource
{A}\tARF5\tEnsembl_HGNC_symbol
{A}\t381\tEnsembl_HGNC_entrez_id
{D}\tIGF2\tEnsembl_HGNC_symbol
{D}\tP01344\tUniProt_AC
"""


def read(tmp_path: Path, links: str | bytes = LINKS, info: str | bytes = INFO, **others: str) -> Read:
    texts = {"links": links, "info": info, **others}
    files = {}
    for role, text in texts.items():
        files[role] = tmp_path / f"9606.protein.{role}.v12.0.txt"
        files[role].write_bytes(text.encode() if isinstance(text, str) else text)
    return SOURCE.read(files)


@pytest.mark.parametrize("pack", [str.encode, lambda text: gzip.compress(text.encode())], ids=["plain", "gzip"])
def test_a_pair_is_said_from_both_sides_once(tmp_path: Path, pack: Callable[[str], bytes]) -> None:
    found = read(tmp_path, pack(LINKS), pack(INFO))
    assert found.table.select("gene", "gene_kind", "term", "label", "score").rows() == [
        ("ARF5", "symbol", f"STRING:{B}", "M6PR", 0.992),
        ("ARF5", "symbol", f"STRING:{D}", "ENSP00000009012", 0.4),
        ("M6PR", "symbol", f"STRING:{A}", "ARF5", 0.992),
        ("ENSP00000009012", "symbol", f"STRING:{A}", "ARF5", 0.4),
    ]
    assert found.version == "12.0"
    assert found.notes == ("Pairs below 0.4 left out: 2 of 6 lines.",)


def test_aliases_name_what_info_leaves_without_a_symbol(tmp_path: Path) -> None:
    found = read(tmp_path, aliases=ALIASES)
    assert found.table["gene"].to_list() == ["ARF5", "ARF5", "M6PR", "IGF2"]
    assert "1 protein named by its HGNC symbol among the aliases." in found.notes


def test_what_is_left_out_is_counted(tmp_path: Path) -> None:
    links = LINKS + f"{A} {A} 900\n{B} {C} 500\n{C} {B} 510\n{A} 9606.ENSP00000099999 700\n"
    found = read(tmp_path, links)
    assert found.table.filter(pl.col("gene") == "GGA1")["score"].to_list() == [0.51]
    assert found.notes == (
        "Pairs below 0.4 left out: 2 of 10 lines.",
        "1 line left out: a protein with itself.",
        "1 pair with two scores: the higher one counts.",
        "1 pair left out: info does not name one of the proteins.",
    )


pairs = st.tuples(st.integers(0, 7), st.integers(0, 7), st.integers(150, 999))


@settings(max_examples=15, deadline=None)
@given(st.lists(pairs, min_size=1, max_size=40), st.booleans())
def test_as_a_plain_loop_finds_it(tmp_path_factory: pytest.TempPathFactory, lines: list[Any], small: bool) -> None:
    names = [f"9606.ENSP{i:011d}" for i in range(8)]
    best: dict[frozenset[int], int] = {}
    for a, b, score in lines:
        if a != b and score >= 400:
            best[frozenset((a, b))] = max(score, best.get(frozenset((a, b)), 0))
    expected = set()
    for pair, score in best.items():
        a, b = pair
        expected |= {(f"G{a}", f"STRING:{names[b]}", score / 1000), (f"G{b}", f"STRING:{names[a]}", score / 1000)}
    links = "protein1 protein2 combined_score\n" + "".join(f"{names[a]} {names[b]} {s}\n" for a, b, s in lines)
    info = "#string_protein_id\tpreferred_name\n" + "".join(f"{name}\tG{i}\n" for i, name in enumerate(names))
    whole, columns.LONGEST = columns.LONGEST, 100 if small else columns.LONGEST
    try:
        if best:
            table = read(tmp_path_factory.mktemp("pairs"), links, info).table
            assert set(table.select("gene", "term", "score").rows()) == expected
            assert len(table) == len(expected)
        else:
            with pytest.raises(DataError, match="has no pair with a combined_score of 400"):
                read(tmp_path_factory.mktemp("pairs"), links, info)
    finally:
        columns.LONGEST = whole


def test_links_in_detail_and_names_of_an_older_release(tmp_path: Path) -> None:
    detail = "\n".join(
        f"{a} {b} 0 {c}"
        for a, b, c in (each.split() for each in LINKS.strip().replace("protein2", "protein2").split("\n"))
    ).replace("protein2 0", "protein2 textmining")
    older = INFO.replace("#string_protein_id", "protein_external_id")
    assert read(tmp_path, detail, older).table.equals(read(tmp_path).table)


EDGES = (
    "gene1\tgene2\tentrez1\tentrez2\tcombined_score\nCYP2E1\tCES1\t1571\t1066\t905.0\nMPO\tCES1\t4353\t1066\t901.0\n"
)


@pytest.mark.parametrize("separator", ["\t", ","])
def test_a_list_of_edges_between_symbols(tmp_path: Path, separator: str) -> None:
    path = tmp_path / "string_v12_mine.tsv"
    path.write_text(EDGES.replace("\t", separator))
    found = SOURCE.read({"edges": path})
    assert found.table.select("gene", "term", "label", "score").rows() == [
        ("CES1", "STRING:CYP2E1", "CYP2E1", 0.905),
        ("CES1", "STRING:MPO", "MPO", 0.901),
        ("CYP2E1", "STRING:CES1", "CES1", 0.905),
        ("MPO", "STRING:CES1", "CES1", 0.901),
    ]
    assert found.version == "12"
    assert found.notes == ("No pair is below 0.901: the file leaves the others out.",)


BAD: dict[str, tuple[str, str | bytes, type[DataError], str]] = {
    "empty": ("links", "", DamagedError, "is empty"),
    "a web page": ("links", "<!DOCTYPE html><html></html>", DamagedError, "is a web page, not data"),
    "JSON": ("links", '[{"Error": "no"}]', DamagedError, "is no table"),
    "a cut gzip": ("links", gzip.compress(LINKS.encode())[:-9], DamagedError, "is cut short or damaged"),
    "no rows": ("links", LINKS.split("\n")[0] + "\n", DataError, "has a header and no rows"),
    "no score": ("links", LINKS.replace("combined_score", "textmining"), DataError, "lacks the column combined_score"),
    "no header": ("links", LINKS.partition("\n")[2], DataError, "lacks the columns protein1, protein2, combined_score"),
    "a mouse": ("links", LINKS.replace("9606.", "10090."), DataError, "not of human proteins"),
    "a score in words": ("links", LINKS.replace("399", "low", 1), DataError, f"no pair with a score .*{A} {C} low"),
    "a score beyond": ("links", LINKS.replace("992", "1992"), DataError, "score from 0 to 999: .*1992"),
    "fractions": (
        "links",
        LINKS.replace("992", "0.99").replace("400", "0.4"),
        DataError,
        "has no pair with a combined",
    ),
    "a cut line": ("links", LINKS[:-8], DamagedError, "line 7 has 2 fields"),
    "a blank protein": ("links", LINKS.replace(f"{A} {C}", f" {C}"), DataError, "no pair with a score"),
    "Latin-1": ("links", LINKS.replace("399", "é").encode("latin-1"), DataError, "line 3 is no UTF-8 text"),
    "info of another kind": ("info", "gene\tname\nA\tB\n", DataError, "lacks the columns string_protein_id, preferred"),
    "info that is empty": ("info", "", DamagedError, "is empty"),
    "info that names one twice": ("info", INFO + f"{A}\tARF5\t1\tx\n", DataError, f"names {A} more than once"),
    "info that is cut": ("info", gzip.compress(INFO.encode())[:-9], DamagedError, "is cut short or damaged"),
    "aliases without sources": (
        "aliases",
        ALIASES.replace("source", "from"),
        DataError,
        "lacks the column source; there are 'string_protein_id', 'alias'",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_none_is_one_line(tmp_path: Path, name: str) -> None:
    role, content, kind, says = BAD[name]
    with pytest.raises(kind, match=says) as error:
        read(tmp_path, **{role: content})  # type: ignore[arg-type]
    assert str(error.value).startswith(f"{tmp_path / f'9606.protein.{role}.v12.0.txt'}: ")
    assert "\n" not in str(error.value)


def test_files_that_do_not_go_together(tmp_path: Path) -> None:
    links, info = tmp_path / "9606.protein.links.v12.0.txt.gz", tmp_path / "9606.protein.info.v11.5.txt.gz"
    links.write_text(LINKS)
    info.write_text(INFO)
    with pytest.raises(DataError, match=r"of several versions \(links of 12\.0, info of 11\.5\)"):
        SOURCE.read({"links": links, "info": info})
    with pytest.raises(MissingError, match="need its file info"):
        SOURCE.read({"links": links})
    with pytest.raises(MissingError, match="is read from its links and info, or from a list of edges"):
        SOURCE.read({"info": info})


def test_copies_are_told_by_their_names() -> None:
    for name, role in (
        ("9606.protein.links.v12.0.txt.gz", "links"),
        ("9606.protein.links.detailed.v12.0.txt.gz", "links"),
        ("9606.protein.info.v12.0.txt.gz", "info"),
        ("9606.protein.aliases.v12.0.txt.gz", "aliases"),
        ("string_v12_highconf_no_textmining.tsv.gz", "edges"),
        ("10090.protein.links.v12.0.txt.gz", None),
    ):
        assert SOURCE.role_of(Path(name)) == role


@pytest.mark.real_data
def test_real_heads_and_edges(real_data: Path) -> None:
    folder = real_data / "databases" / "string"
    info = "9606.protein.info.v12.0_3rows.txt"
    files = {"links": folder / "9606.protein.links.v12.0_5rows.txt", "info": folder / info}
    found = SOURCE.read({**files, "aliases": folder / "9606.protein.aliases.v12.0_7rows.txt"})
    assert found.version == "12.0"
    assert found.notes == (
        "Pairs below 0.4 left out: 4 of 5 lines.",
        "1 pair left out: info does not name one of the proteins.",
    )
    edges = SOURCE.read({"edges": real_data / "genesets" / "string_v12_highconf_no_textmining.tsv.gz"}).table
    assert len(edges) == 2 * 174_962
    assert edges["score"].min() == 0.4
    partners = edges.filter(pl.col("gene") == "CES1")
    assert partners.filter(pl.col("label") == "CYP2E1")["score"].to_list() == [0.905]
    turned = edges.select(gene="label", label="gene", score="score")
    assert turned.join(edges, on=("gene", "label", "score"), how="anti").is_empty()


def ask(tmp_path: Path, routes: Any, genes: Any = recorded.GENES) -> tuple[pl.DataFrame, list[Any]]:
    with serving.serve(routes) as server, serving.patient(tmp_path, server) as client:
        return SOURCE.ask(client, genes), list(server.asked)  # type: ignore[misc]


def test_genes_are_named_by_their_proteins_then_their_partners_asked(tmp_path: Path) -> None:
    found, asked = ask(tmp_path, recorded.routes())
    assert sorted(found.select("gene", "term", "label", "score").rows()) == sorted(
        (recorded.PROTEINS[symbol][1], f"STRING:{other}", name, score) for symbol, other, name, score in recorded.PAIRS
    )
    assert [request.path for request in asked] == ["api/json/get_string_ids", "api/json/interaction_partners"]
    assert asked[0].form["identifiers"] == "ARF5\rMARCHF1\rM6PR\rNOSUCHGENE"
    assert asked[1].form["required_score"] == "400"


def test_genes_that_are_not_known_there_have_no_rows(tmp_path: Path) -> None:
    found, asked = ask(tmp_path, recorded.routes(), recorded.GENES[-1:])
    assert not len(found)
    assert len(asked) == 1


def changed(what: str, change: Callable[[Any], object]) -> Any:
    """Routes of which one answer is changed."""
    routes = recorded.routes()
    key = ("POST", recorded.HOST + what)
    real = routes[key]

    def spoilt(request: Any) -> Any:
        status, headers, body = real(request)
        value = json.loads(body)
        return status, headers, json.dumps(change(value) or value).encode()

    return {**routes, key: spoilt}


IDS, PARTNERS = "get_string_ids", "interaction_partners"
WRONG: dict[str, tuple[str, Callable[[Any], object], str]] = {
    "an error in place of a list": (IDS, lambda _: {"Error": "input not found"}, "has no list at its top"),
    "two proteins of a symbol": (IDS, lambda a: a.append(a[0]), "has no one protein for the symbol 1 of 4"),
    "a symbol beyond": (IDS, lambda a: a[0].update(queryIndex=9), "has no one protein for the symbol 10 of 4"),
    "a mouse": (IDS, lambda a: a[0].update(stringId="10090.ENSMUSP00000000001"), "which is not human"),
    "no name": (IDS, lambda a: a[0].__delitem__("preferredName"), "lacks preferredName"),
    "text in a list": (IDS, lambda a: a.append("none"), r"has no object at \[3\]"),
    "another protein": (PARTNERS, lambda a: a[0].update(stringId_A="9606.ENSP9"), "tells of 9606.ENSP9, which was not"),
    "scores of 0 to 999": (PARTNERS, lambda a: a[0].update(score=471), "has a score of 471"),
    "a pair below": (PARTNERS, lambda a: a[0].update(score=0.15), "has a score of 0.15, where 0.4 to 1"),
    "no score": (PARTNERS, lambda a: a[0].__delitem__("score"), "lacks score"),
    "a partner of another species": (PARTNERS, lambda a: a[0].update(stringId_B="4932.YAL001C"), "is not human"),
}


@pytest.mark.parametrize("name", WRONG)
def test_an_answer_that_cannot_be_is_refused(tmp_path: Path, name: str) -> None:
    what, change, says = WRONG[name]
    with pytest.raises(ServiceError, match=says) as error:
        ask(tmp_path, changed(what, change))
    assert str(error.value).startswith("string: ")
    assert "\n" not in str(error.value)


def test_as_many_partners_as_may_come_are_too_many(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("elute.validation.sources.string_db._MOST_PARTNERS", 2)
    with pytest.raises(ServiceError, match="is cut: 9606.ENSP00000000233 has 2 partners"):
        ask(tmp_path, recorded.routes())
