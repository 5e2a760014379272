"""Terms over a background: cut first, measured afterwards, alike ones marked, and what was dropped."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elute.base.errors import ConfigError, DataError
from elute.validation.background import Background
from elute.validation.terms import EMPTY, LARGE, SMALL, WEAK, lists_of, merge, term_sets

BACKGROUND = Background(tuple("ABCDEFGH"), "8 genes: made up")
NAMES = {"term": pl.String, "label": pl.String, "group": pl.String, "gene": pl.String, "score": pl.Float64}


def table(**terms: str | tuple[str, Any]) -> pl.DataFrame:
    """Rows of terms given as the letters of their genes, with scores if there are some."""
    rows = []
    for term, told in terms.items():
        letters, scores = (told, [None] * len(told)) if isinstance(told, str) else told
        rows += [(term, f"the {term}", None, gene, score) for gene, score in zip(letters, scores, strict=True)]
    return pl.DataFrame(rows, schema=NAMES, orient="row")


def test_terms_are_cut_to_the_background_before_their_sizes_are_looked_at() -> None:
    found = term_sets(
        table(inside="ABC", cut="ABxyz", outside="xyz", large="ABCDEF", again="DEFF", null="AB"),
        BACKGROUND,
        source="made up 1",
        smallest=3,
        largest=5,
    )
    assert found.ids == ("again", "inside")
    assert found.labels == ("the again", "the inside")
    assert found.members.toarray().tolist() == [[0, 0, 0, 1, 1, 1, 0, 0], [1, 1, 1, 0, 0, 0, 0, 0]]
    assert found.sizes.tolist() == [3, 3]
    assert found.dropped == {WEAK: 0, EMPTY: 1, SMALL: 2, LARGE: 1}
    assert found.told() == "2 terms of made up 1; 1 no gene in the background, 2 too small, 1 too large"


def test_terms_that_are_the_same_after_the_cut_are_kept_and_marked() -> None:
    found = term_sets(table(a="ABx", b="CD", c="BAy", d="AB", e="CDE"), BACKGROUND, source="made up", smallest=1)
    assert found.ids == ("a", "b", "c", "d", "e")
    assert found.same_as.tolist() == [-1, -1, 0, 0, -1]
    assert "2 the same as another" in found.told()


def test_too_little_evidence_is_no_evidence() -> None:
    rows = table(strong=("ABC", [0.9, 0.5, None]), weak=("ABC", [0.1, 0.2, None]), gone=("xy", [0.9, 0.9]))
    found = term_sets(rows, BACKGROUND, source="made up", smallest=1, least_score=0.5)
    assert found.ids == ("strong",)
    assert found.members.indices.tolist() == [0, 1]
    assert found.dropped == {WEAK: 1, EMPTY: 1, SMALL: 0, LARGE: 0}


def test_the_order_of_rows_does_not_matter() -> None:
    rows = table(a="ABC", b="CDEx", c="FGH")
    one = term_sets(rows, BACKGROUND, source="x", smallest=1)
    other = term_sets(rows.reverse(), BACKGROUND, source="x", smallest=1)
    assert one.ids == other.ids
    assert (one.members != other.members).nnz == 0


def test_a_term_of_two_groups_is_one_term_of_none() -> None:
    rows = pl.DataFrame(
        [("t", None, "normal", "A", None), ("t", "T cell", "cancer", "B", None), ("u", None, "normal", "C", None)],
        schema=NAMES,
        orient="row",
    )
    found = term_sets(rows, BACKGROUND, source="x", smallest=1)
    assert found.ids == ("t", "u")
    assert found.groups == (None, "normal")
    assert found.labels == ("T cell", "u")
    assert found.sizes.tolist() == [2, 1]


def test_databases_are_put_side_by_side() -> None:
    one = term_sets(table(a="AB", b="CD"), BACKGROUND, source="One 1", smallest=1)
    other = term_sets(table(a="CDx", z="ABC"), BACKGROUND, source="Two 2", smallest=1, largest=2)
    both = merge([one, other])
    assert both.ids == ("a", "b", "a")
    assert both.groups == ("One 1", "One 1", "Two 2")
    assert both.source == "One 1 + Two 2"
    assert both.same_as.tolist() == [-1, -1, 1]
    assert both.dropped[LARGE] == 1
    assert both.members.toarray().tolist() == np.vstack([one.members.toarray(), other.members.toarray()]).tolist()
    elsewhere = term_sets(table(a="AB"), Background(("A", "B"), "2 genes"), source="Two", smallest=1)
    with pytest.raises(DataError, match="Two and One 1 were cut to different backgrounds"):
        merge([one, elsewhere])


@pytest.mark.parametrize(
    ("rows", "asked", "words"),
    [
        (table(a="xyz"), {}, "no term has 5 to 2,000 genes of the background (1 no gene in the background)"),
        (table(a="AB"), {}, "(1 too small)"),
        (table(), {}, "it has no terms"),
        (table(a="ABCDE").drop("score"), {}, "has no column 'score'"),
        (table(a="ABCDE"), {"least_score": 0.5}, "made up has no scores to choose by"),
        (table(a="ABCDE"), {"smallest": 9, "largest": 5}, "no term has at least 9 and at most 5 genes"),
        (table(a="ABCDE"), {"smallest": 0}, "not a whole number of at least 1"),
    ],
)
def test_what_cannot_be_terms_is_refused_in_one_line(rows: pl.DataFrame, asked: dict[str, Any], words: str) -> None:
    with pytest.raises((DataError, ConfigError)) as caught:
        term_sets(rows, BACKGROUND, source="made up", **asked)
    assert words in caught.value.line()


def test_a_database_of_another_species_is_named_as_that() -> None:
    human = Background(("ACTB", "GATA1", "TP53"), "3 genes")
    rows = pl.DataFrame([("t", "t", None, g, None) for g in ("Actb", "Gata1")], schema=NAMES, orient="row")
    with pytest.raises(DataError, match="They look like genes of mouse"):
        term_sets(rows, human, source="Mouse library")


def test_lists_hold_each_gene_once_and_say_what_they_lost() -> None:
    found = lists_of([["B", "A", "A", "x"], [], ("H", "y", "z", "y")], BACKGROUND)
    assert found.members.toarray().tolist() == [[1, 1, 0, 0, 0, 0, 0, 0], [0] * 8, [0, 0, 0, 0, 0, 0, 0, 1]]
    assert found.lost == (("x",), (), ("y", "z"))
    assert found.members.has_sorted_indices


@pytest.mark.parametrize(
    ("lists", "words"),
    [
        ([], "there are no lists of genes"),
        (["AB", "C"], "list 0 is the text 'AB'"),
        ("AB", "there are no lists of genes"),
        ([["A"], list("ABCDEFGHI")], "list 1 has 9 genes, and the background 8"),
        ([["x"], ["y", "z"]], "none of the 3 genes given is in the background (8 genes: made up)"),
    ],
)
def test_what_cannot_be_lists_is_refused_in_one_line(lists: Any, words: str) -> None:
    with pytest.raises(DataError) as caught:
        lists_of(lists, BACKGROUND)
    assert words in caught.value.line()


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("pqrs"), st.sampled_from("ABCDxyz")), min_size=1, max_size=30))
def test_members_are_those_that_sets_of_python_give(pairs: list[tuple[str, str]]) -> None:
    rows = pl.DataFrame([(t, t, None, g, None) for t, g in pairs], schema=NAMES, orient="row")
    wanted: dict[str, set[str]] = {}
    for term, gene in pairs:
        wanted.setdefault(term, set())
        if gene in BACKGROUND.place:
            wanted[term].add(gene)
    kept = {term: genes for term, genes in wanted.items() if 2 <= len(genes) <= 3}
    if not kept:
        with pytest.raises(DataError):
            term_sets(rows, BACKGROUND, source="x", smallest=2, largest=3)
        return
    found = term_sets(rows, BACKGROUND, source="x", smallest=2, largest=3)
    assert list(found.ids) == sorted(kept)
    for term, row in zip(found.ids, found.members.toarray(), strict=True):
        assert {BACKGROUND.genes[i] for i in np.flatnonzero(row)} == kept[term]
    assert len(found) + sum(found.dropped.values()) == len(wanted)
