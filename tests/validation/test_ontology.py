"""What is broken is refused; a gene has all terms above its own; levels, information and lists are as by hand."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from elute.base.errors import DamagedError, DataError, EluteError
from elute.validation.ontology import ROOTS, branch, check, row, tops
from elute.validation.reading.obo import read_obo


def load(name: str) -> ModuleType:
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


made_up = load("made_up_ontology")
ontology, pairs, random_branch = made_up.ontology, made_up.pairs, made_up.random_branch

#      R
#     / \
#    A   B      C is a kind of A and B; D of A; E of C; F of D and E; Z stands elsewhere
PARENTS = {
    "XX:R": [],
    "XX:A": ["XX:R"],
    "XX:B": ["XX:R"],
    "XX:C": ["XX:A", "XX:B"],
    "XX:D": ["XX:A"],
    "XX:E": ["XX:C"],
    "XX:F": ["XX:D", "XX:E"],
    "XX:Z": [],
    "XX:Y": ["XX:Z"],
}
GENES = {
    "XX:A": ["a1"],
    "XX:B": ["b1", "b2", "b3"],
    "XX:C": ["c1", "c2"],
    "XX:D": ["c1", "d1"],
    "XX:E": ["e1"],
    "XX:R": ["r1", "c2"],
}

BROKEN = {
    "a parent that is not there": (PARENTS | {"XX:D": ["XX:Q"]}, [], "ontology: XX:D lies below XX:Q, which is not"),
    "a parent given up": (PARENTS | {"XX:D": ["XX:O"]}, ["XX:O"], "XX:D lies below XX:O, which is obsolete"),
    "a cycle": (PARENTS | {"XX:A": ["XX:R", "XX:F"]}, [], "a term lies below itself: XX:A → XX:F → XX:D → XX:A."),
    "itself": (PARENTS | {"XX:D": ["XX:D"]}, [], "a term lies below itself: XX:D → XX:D."),
    "no beginning": ({"XX:R": ["XX:A"], "XX:A": ["XX:R"]}, [], "a term lies below itself: XX:A → XX:R → XX:A."),
    "nothing": ({}, ["XX:R"], "ontology: holds no terms."),
    "no such root": ({"XX:S": [], "XX:A": ["XX:S"]}, [], "has no term XX:R, which was to be the root. Did you mean"),
    "a root given up": ({"XX:S": [], "XX:A": ["XX:S"]}, ["XX:R"], "has no term XX:R, which was to be the root"),
    "a bare root": ({"XX:R": [], "XX:S": [], "XX:A": ["XX:S"]}, [], "nothing lies below XX:R, which was to be"),
}


@pytest.mark.parametrize("what", BROKEN)
def test_what_is_broken_is_refused_in_one_line(what: str) -> None:
    parents, obsolete, told = BROKEN[what]
    broken = ontology(parents, obsolete=obsolete)
    with pytest.raises(DataError) as caught:
        check(broken, roots=["XX:R"])
    assert told in str(caught.value)
    assert "\n" not in str(caught.value)
    assert str(caught.value).endswith((".", "?"))
    with pytest.raises(EluteError):
        branch(broken, pairs({"XX:A": ["a1"]}), root="XX:R")


def test_a_long_cycle_is_cut_short() -> None:
    ring = {f"XX:{i:02d}": [f"XX:{(i + 1) % 30:02d}"] for i in range(30)}
    with pytest.raises(DamagedError, match="itself: XX:00 → XX:01 → XX:02 → XX:03 → XX:04 → XX:05 → … → XX:00"):
        check(ontology(ring))


def test_a_cycle_through_parts_counts_only_where_parts_do() -> None:
    twisted = ontology(PARENTS, part_of={"XX:A": ["XX:E"]})
    check(twisted, roots=["XX:R"])
    with pytest.raises(DamagedError, match="below itself: XX:A → XX:E → XX:C → XX:A"):
        check(twisted, roots=["XX:R"], parts=True)


def test_a_parent_of_another_ontology_is_passed_over() -> None:
    mixed = ontology(PARENTS | {"XX:D": ["XX:A", "YY:9"]})
    check(mixed, roots=["XX:R"])
    assert branch(mixed, pairs(GENES), root="XX:R").terms == branch(ontology(PARENTS), pairs(GENES), root="XX:R").terms


def test_a_cyclic_file_is_refused(tmp_path: Path) -> None:
    stanzas = [("R", ""), ("A", "is_a: XX:B"), ("B", "is_a: XX:A ! A"), ("C", "is_a: XX:R")]
    text = "format-version: 1.2\n" + "".join(f"\n[Term]\nid: XX:{a}\nname: {a}\n{b}\n" for a, b in stanzas)
    (tmp_path / "xx.obo").write_text(text)
    with pytest.raises(DamagedError, match="xx.obo: a term lies below itself: XX:A → XX:B → XX:A"):
        check(read_obo(tmp_path / "xx.obo"), where=tmp_path / "xx.obo")


def test_a_branch_by_hand() -> None:
    found = branch(ontology(PARENTS), pairs(GENES), root="XX:R")
    assert found.terms == ("XX:R", "XX:A", "XX:B", "XX:C", "XX:D", "XX:E", "XX:F")
    assert found.level.tolist() == [0, 1, 1, 2, 2, 3, 4]
    assert found.genes == ("a1", "b1", "b2", "b3", "c1", "c2", "d1", "e1", "r1")
    held = {term: {found.genes[i] for i in row(found.members, t)} for t, term in enumerate(found.terms)}
    assert held["XX:R"] == set(found.genes)
    assert held["XX:A"] == {"a1", "c1", "c2", "d1", "e1"}
    assert held["XX:B"] == {"b1", "b2", "b3", "c1", "c2", "e1"}
    assert held["XX:C"] == {"c1", "c2", "e1"}
    assert held["XX:F"] == set()
    assert found.sizes.tolist() == [9, 5, 6, 3, 2, 1, 0]
    assert [found.terms[i] for i in row(found.above, 6)] == ["XX:R", "XX:A", "XX:B", "XX:C", "XX:D", "XX:E", "XX:F"]
    assert [found.terms[i] for i in row(found.parents, 6)] == ["XX:D", "XX:E"]
    assert found.names([3]) == ["term XX:C"]
    # F has no gene: it says as much as E, the most informative above it.
    by_hand = [0.0, math.log(9 / 5), math.log(9 / 6), math.log(3), math.log(9 / 2), math.log(9), math.log(9)]
    np.testing.assert_allclose(found.information, by_hand, rtol=1e-14)


def test_what_counts_nowhere_is_counted() -> None:
    given_up = ontology(PARENTS, obsolete=["XX:O", "XX:P"], replaced={"XX:O": "XX:C"})
    annotations = pairs(GENES | {"XX:O": ["o1"], "XX:P": ["p1"], "XX:Q": ["q1", "q2"], "XX:Y": ["y1", "a1", "y1"]})
    found = branch(given_up, annotations, root="XX:R", background=["a1", "c1", "c2", "o1", "q1", "q2", "p1", "y1"])
    assert found.genes == ("a1", "c1", "c2", "o1")  # a gene known elsewhere alone is not of this population
    assert found.lost == {"gene not in the background": 6, "term unknown": 3, "term elsewhere": 2}
    assert found.sizes[found.place["XX:C"]] == 3  # c1, c2, and o1 by the id of old
    with pytest.raises(DataError, match="annotations: no gene has a term of the branch"):
        branch(given_up, annotations, root="XX:R", background=["nobody"])


def test_lists_are_brought_over() -> None:
    found = branch(ontology(PARENTS), pairs(GENES), root="XX:R")
    lists = found.lists([["c1", "nobody", "a1", "c1"], [], ["r1"]])
    assert lists.toarray().tolist() == [[1, 0, 0, 0, 1, 0, 0, 0, 0], [0] * 9, [0, 0, 0, 0, 0, 0, 0, 0, 1]]
    background = ["a1", "c1", "other", "r1"]
    wide = sparse.csr_array(np.array([[1, 1, 1, 0], [0, 0, 0, 0], [0, 0, 1, 1]], dtype=np.int8))
    assert (found.cut(wide, background).toarray() == lists.toarray()).all()
    with pytest.raises(DataError, match="lists: has 4 columns for 3 genes. Give one a gene."):
        found.cut(wide, background[:3])
    assert found.find(["XX:C", "XX:R"]).tolist() == [3, 0]
    with pytest.raises(DataError, match="XX:Z is no term below XX:R"):
        found.find(["XX:Z"])


def test_the_longest_way_is_the_level() -> None:
    far = {"XX:R": [], "XX:A": ["XX:R"], "XX:B": ["XX:A"], "XX:C": ["XX:B", "XX:R"], "XX:D": ["XX:R"]}
    found = branch(ontology(far), pairs({"XX:C": ["c"]}), root="XX:R")
    assert dict(zip(found.terms, found.level.tolist(), strict=True)) == {
        "XX:R": 0,
        "XX:A": 1,
        "XX:D": 1,
        "XX:B": 2,
        "XX:C": 3,
    }


@given(st.integers(0, 10_000))
@settings(max_examples=15, deadline=None)
def test_propagation_is_that_of_the_ontology(seed: int) -> None:
    rng = np.random.default_rng(seed)
    found = random_branch(seed)
    some = [(f"h{i}", f"XX:{t}") for i in range(20) for t in rng.integers(0, 25, 2)]
    table = pl.DataFrame(some, schema=["gene", "term"], orient="row")
    again = branch(found.ontology, table, root="XX:0")
    told = set(found.ontology.propagate(table).select("gene", "term").iter_rows())
    dense = again.members.toarray()
    assert told == {(again.genes[g], again.terms[t]) for t, g in np.argwhere(dense)}
    assert (found.information >= 0).all()
    for i in range(len(found.terms)):
        up = row(found.parents, i)
        assert (up < i).all()
        assert (found.information[up] <= found.information[i]).all()
        assert found.level[i] == 1 + max(found.level[up], default=-1)
    # What was passed on already gives the same branch.
    twice = branch(found.ontology, found.ontology.propagate(table), root="XX:0")
    assert (twice.members != again.members).nnz == 0


# The Gene Ontology has three roots, and functions that are parts of processes
GO = {
    **{root: [] for root in ROOTS["go"]},
    "GO:1": ["GO:0008150"],
    "GO:2": ["GO:1"],
    "GO:3": ["GO:0003674"],
    "GO:4": ["GO:3"],
    "GO:5": ["GO:0005575"],
    "GO:6": ["GO:0005575"],
}
SPACES = {"GO:0008150": "P", "GO:1": "P", "GO:2": "P", "GO:0003674": "F", "GO:3": "F", "GO:4": "F"}
PART_OF = {"GO:3": ["GO:2"], "GO:6": ["GO:5"]}


def test_the_three_name_spaces_of_go() -> None:
    go = ontology(GO, part_of=PART_OF, namespace={term: SPACES.get(term, "C") for term in GO})
    genes = pairs({"GO:1": ["p1"], "GO:4": ["f1", "f2"], "GO:3": ["p1"], "GO:6": ["c1", "p1"]})
    assert tops(go) == tuple(sorted(ROOTS["go"]))
    process, place, function = (branch(go, genes, root=root, parts=True) for root in ROOTS["go"])
    assert process.terms == ("GO:0008150", "GO:1", "GO:2")  # no function is a term of it
    assert process.genes == ("f1", "f2", "p1")  # but its genes count: they are part of a process
    assert process.sizes.tolist() == [3, 3, 3]
    assert function.terms == ("GO:0003674", "GO:3", "GO:4")
    assert function.sizes.tolist() == [3, 3, 2]
    assert place.terms == ("GO:0005575", "GO:5", "GO:6")
    assert [place.terms[i] for i in row(place.parents, 2)] == ["GO:0005575", "GO:5"]
    assert place.sizes.tolist() == [2, 2, 2]
    kinds = branch(go, genes, root="GO:0008150")
    assert kinds.genes == ("p1",)
    assert kinds.lost["term elsewhere"] == 5
    assert branch(go, genes, root="GO:0005575").sizes.tolist() == [2, 0, 2]


def test_a_root_of_old_is_found() -> None:
    old = ontology(PARENTS, obsolete=["XX:W"], replaced={"XX:W": "XX:R"})
    assert branch(old, pairs(GENES), root="XX:W").root == "XX:R"


@pytest.mark.parametrize("name", ROOTS)
def test_the_same_for_every_ontology(name: str) -> None:
    root = ROOTS[name][0]
    kind = root.partition(":")[0]
    named = {f"{kind}:{a}": [root if b == "R" else f"{kind}:{b}" for b in bs] for a, bs in (("A", "R"), ("B", "RA"))}
    found = branch(ontology({root: []} | named), pairs({f"{kind}:B": ["b"], root: ["r"]}), root=root)
    assert found.sizes.tolist() == [2, 1, 1]
