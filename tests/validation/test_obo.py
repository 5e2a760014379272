"""An ontology is read whole and right, or not at all."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path

import networkx as nx
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elute.base.errors import DamagedError, DataError
from elute.validation.reading import obo
from elute.validation.reading.obo import Ontology, read_obo

HEAD = """format-version: 1.2
data-version: hp/releases/2031-04-01
default-namespace: kitchen
remark: made for this test
"""
TERMS = r"""
[Term]
id: XX:0000001
name: All

[Term]
id: XX:0000002
name: Pot \{large\} ! not its name
alt_id: XX:0000012
alt_id: XX:0000013
def: "A \"pot\" with a lid, \n and handles! {really}" [ISBN:1, XX:here] {comment="c"}
synonym: "Cauldron" EXACT layperson []
synonym: "Vessel" BROAD []
synonym: "Cauldron" RELATED []
is_a: XX:0000001 {source="a \"b\""} ! All

[Term]
id: XX:0000003
name: Lid
namespace: parts
alt_id: XX:0000013
is_a: XX:0000001 ! All
is_a: YY:0000009 ! of another ontology
is_a: XX:0000001
relationship: part_of XX:0000002 ! Pot
relationship: has_part XX:0000004

[Term]
id: XX:0000004
name: Knob
is_a: XX:0000003
relationship: BFO:0000050 XX:0000003

[Term]
id: XX:0000005
name: obsolete Saucepan
is_obsolete: true
is_a: XX:0000001
replaced_by: XX:0000012

[Term]
id: XX:0000006
name: obsolete Wok
is_obsolete: true
replaced_by: XX:0000002
replaced_by: XX:0000003
consider: XX:0000002

[Typedef]
id: part_of
name: part of
is_transitive: true
"""


def write(tmp_path: Path, text: str, name: str = "x.obo") -> Path:
    path = tmp_path / name
    path.write_text(text, encoding="utf-8")
    return path


@pytest.fixture
def kitchen(tmp_path: Path) -> Ontology:
    return read_obo(write(tmp_path, HEAD + TERMS))


def test_terms_are_read_with_what_follows_a_value_taken_off(kitchen: Ontology) -> None:
    assert kitchen.version == "2031-04-01"
    assert kitchen.names["XX:0000002"] == "Pot {large}"
    assert kitchen.definitions == {"XX:0000002": 'A "pot" with a lid,   and handles! {really}'}
    assert kitchen.synonyms == {"XX:0000002": ("Cauldron", "Vessel")}
    assert kitchen.parents["XX:0000003"] == ("XX:0000001", "YY:0000009")
    assert kitchen.part_of == {"XX:0000003": ("XX:0000002",), "XX:0000004": ("XX:0000003",)}
    assert kitchen.namespace["XX:0000003"] == "parts"
    assert kitchen.namespace["XX:0000004"] == "kitchen"
    assert "part_of" not in kitchen.names


def test_what_was_given_up_leads_to_what_there_is_now(kitchen: Ontology) -> None:
    assert kitchen.obsolete == {"XX:0000005", "XX:0000006"}
    assert kitchen.parents["XX:0000005"] == ()
    assert kitchen.replaced == {"XX:0000005": "XX:0000012"}
    assert kitchen.alternative == {"XX:0000012": "XX:0000002"}, "XX:0000013 is claimed by two terms"
    assert kitchen.current("XX:0000005") == "XX:0000002", "through an id that was merged away"
    assert kitchen.current("XX:0000006") is None, "two replacements are no answer"
    assert kitchen.unknown(["XX:0000013", "XX:0000002", "ZZ:1", "ZZ:1"]) == ("XX:0000013", "ZZ:1")


def test_replacements_that_lead_round_in_a_circle_end(tmp_path: Path) -> None:
    text = "\n".join(
        f"[Term]\nid: X:{here}\nname: n\nis_obsolete: true\nreplaced_by: X:{there}\n"
        for here, there in ((1, 2), (2, 1))
    )
    assert read_obo(write(tmp_path, text)).current("X:1") is None


def test_ancestors_go_up_one_relation_or_both(kitchen: Ontology) -> None:
    assert kitchen.ancestors("XX:0000004") == {"XX:0000003", "XX:0000001", "YY:0000009"}
    assert kitchen.ancestors("XX:0000004", parts=True) == {"XX:0000003", "XX:0000001", "YY:0000009", "XX:0000002"}
    assert kitchen.ancestors("nowhere") == frozenset()


def test_a_cycle_ends_and_no_term_is_above_itself(tmp_path: Path) -> None:
    links = {1: (2,), 2: (3,), 3: (1, 4), 4: ()}
    text = "".join(
        f"[Term]\nid: X:{term}\nname: t{term}\n" + "".join(f"is_a: X:{up}\n" for up in above)
        for term, above in links.items()
    )
    ontology = read_obo(write(tmp_path, text))
    for term in (1, 2, 3, 2, 1):
        assert ontology.ancestors(f"X:{term}") == {f"X:{other}" for other in (1, 2, 3, 4)} - {f"X:{term}"}


def of_links(links: dict[int, set[int]]) -> Ontology:
    names = {str(node): f"n{node}" for node in links}
    parents = {str(node): tuple(sorted(map(str, above))) for node, above in links.items()}
    return Ontology("", names, parents, {}, {}, {}, {}, frozenset(), {}, {})


@settings(max_examples=60, deadline=None)
@given(
    st.dictionaries(st.integers(0, 9), st.sets(st.integers(0, 9), max_size=4), min_size=10, max_size=10),
    st.permutations(range(10)),
)
def test_ancestors_are_those_of_an_independent_graph(links: dict[int, set[int]], order: list[int]) -> None:
    graph = nx.DiGraph([(str(node), str(above)) for node, others in links.items() for above in others])
    graph.add_nodes_from(map(str, range(10)))
    ontology = of_links(links)
    for node in order:
        assert ontology.ancestors(str(node)) == nx.descendants(graph, str(node)) - {str(node)}


def test_propagation_gives_every_row_the_terms_above_its_own(kitchen: Ontology) -> None:
    pairs = pl.DataFrame(
        {
            "gene": ["A", "A", "B", "C", "D", "A"],
            "from": ["one", "two", "one", "one", "one", "one"],
            "term": ["XX:0000002", "XX:0000001", "XX:0000005", "unheard", None, "XX:0000012"],
        }
    )
    found = kitchen.propagate(pairs)
    assert found.columns == pairs.columns
    assert found.rows() == [
        ("A", "one", "XX:0000002"),
        ("A", "one", "XX:0000001"),
        ("A", "two", "XX:0000001"),
        ("B", "one", "XX:0000002"),
        ("B", "one", "XX:0000001"),
        ("C", "one", "unheard"),
    ]
    assert kitchen.propagate(found).sort("gene", "from", "term").equals(found.sort("gene", "from", "term"))
    assert len(kitchen.propagate(pairs.clear())) == 0


def test_a_compressed_file_and_one_with_old_line_ends_read_the_same(tmp_path: Path, kitchen: Ontology) -> None:
    packed = tmp_path / "x.obo.gz"
    packed.write_bytes(gzip.compress((HEAD + TERMS).replace("\n", "\r\n").encode("utf-8-sig")))
    read = read_obo(packed)
    assert (read.names, read.parents, read.synonyms) == (kitchen.names, kitchen.parents, kitchen.synonyms)


def text_of(text: str) -> Callable[[], bytes]:
    return text.encode


BAD = {
    "empty": (text_of(""), "is empty"),
    "blank": (text_of(" \n \n"), "is empty"),
    "only a head": (text_of(HEAD), "holds no terms: is it an OBO file"),
    "a table": (text_of("gene\tterm\nA\tXX:1\n"), "holds no terms"),
    "JSON": (text_of('{"graphs": []}'), "another format of an ontology"),
    "OWL": (text_of('<?xml version="1.0"?><rdf:RDF/>'), "another format of an ontology"),
    "a web page": (text_of("<!DOCTYPE html><html></html>"), "is a web page"),
    "UTF-16": (lambda: (HEAD + TERMS).encode("utf-16"), "is UTF-16 text"),
    "Latin-1": (lambda: (HEAD + TERMS.replace("Wok", "Wök")).encode("latin-1"), "is no UTF-8 text"),
    "zero bytes": (text_of((HEAD + TERMS).replace("Wok", "W\0k")), "holds zero bytes"),
    "gzip cut short": (lambda: gzip.compress((HEAD + TERMS).encode())[:-40], "cut short or damaged"),
    "parents lost": (
        text_of(HEAD + TERMS[: TERMS.index("[Term]\nid: XX:0000004")].replace("id: XX:0000001", "id: XX:7")),
        "XX:0000001",
    ),
    "wholes lost": (text_of("[Term]\nid: X:1\nname: a\nrelationship: part_of X:2\n"), r"lacks \(X:2"),
    "cut within a line": (text_of("[Term]\nid: X:1\nname: a\nis_"), "line 4 is no `tag: value`"),
    "no id": (text_of("[Term]\nname: a\n"), "no id of its own"),
    "two ids": (text_of("[Term]\nid: X:1\nid: X:2\nname: a\n"), "no id of its own"),
    "two names": (text_of("[Term]\nid: X:1\nname: a\nname: b\n"), "or two names"),
    "a term twice": (text_of("[Term]\nid: X:1\nname: a\n\n[Term]\nid: X:1\nname: b\n"), "begins the term X:1 again"),
    "a huge line": (lambda: b"[Term]\nid: X:1\nname: " + b"a" * (2**24 + 9), "line 3 is longer"),
}


@pytest.mark.parametrize("name", BAD)
def test_what_is_no_whole_ontology_is_refused_in_a_line(name: str, tmp_path: Path) -> None:
    make, message = BAD[name]
    path = tmp_path / "x.obo"
    path.write_bytes(make())
    with pytest.raises(DataError, match=message) as caught:
        read_obo(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_unpacks_without_end_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(obo, "_MOST", 1 << 20)
    path = tmp_path / "x.obo.gz"
    path.write_bytes(gzip.compress(HEAD.encode() + b"\n" * (2 << 20)))
    with pytest.raises(DataError, match="unpacks to more than a file of this kind can hold"):
        read_obo(path)


def test_a_file_that_is_not_there_and_a_folder_are_told(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.obo", tmp_path):
        with pytest.raises(DataError, match=str(path)):
            read_obo(path)


@pytest.mark.real_data
def test_the_real_ontologies(real_data: Path) -> None:
    hp = read_obo(real_data / "hpo" / "hp.obo.gz")
    assert hp.version == "2025-01-16"
    assert (len(hp.names), len(hp.obsolete), sum(map(len, hp.parents.values()))) == (19_484, 450, 23_392)
    assert hp.names["HP:0000118"] == "Phenotypic abnormality"
    assert hp.ancestors("HP:0000118") == {"HP:0000001"}
    assert "HP:0001637" in hp.ancestors("HP:0001644"), "a dilated cardiomyopathy is an abnormality of the myocardium"
    small = read_obo(real_data / "databases" / "go" / "goatools_mini_obo.obo")
    assert small.ancestors("GO:0000010") == {f"GO:000000{n}" for n in (1, 2, 3, 5, 6, 8)}


@pytest.mark.real_data
def test_the_head_of_a_real_ontology_is_noticed(real_data: Path) -> None:
    with pytest.raises(DamagedError, match="is cut short or a part: terms lie below 24 that it lacks"):
        read_obo(real_data / "databases" / "hpo" / "pyhpo4_hp.obo.head400")
