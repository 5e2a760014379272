from __future__ import annotations

import copy
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elute.base import errors
from elute.base.errors import DamagedError, DataError, EluteError, MissingError, near


@pytest.mark.parametrize(
    ("what", "where", "remedy", "line"),
    [
        ("is empty", None, "", "is empty"),
        ("is empty", Path("a/b.npy"), "", "a/b.npy: is empty"),
        ("is empty", None, "Fill it.", "is empty. Fill it."),
        ("is empty.", "b.npy", "Fill it.", "b.npy: is empty. Fill it."),
        ("is empty.", "b.npy", "", "b.npy: is empty."),
        ("is\n  empty\t", "b.npy", " Fill\nit. ", "b.npy: is empty . Fill it."),
        ("is empty", 0, "", "0: is empty"),
    ],
)
def test_every_error_is_one_line(what: str, where: object, remedy: str, line: str) -> None:
    error = DamagedError(what, where=where, remedy=remedy)
    assert error.line() == str(error) == line
    assert (error.what, error.remedy) == (what, remedy)
    assert error.where == (None if where is None else str(where))


def test_an_error_crosses_processes_whole() -> None:
    """Workers send what they raise by the protocol that copy uses too."""
    error = MissingError("needs ray", where="pages", remedy="Install it.")
    again = copy.copy(error)
    assert type(again) is MissingError
    assert again is not error
    assert (again.what, again.where, again.remedy, str(again)) == ("needs ray", "pages", "Install it.", str(error))


def test_the_tree_is_the_one_that_is_drawn() -> None:
    drawn: dict[str, str] = {}
    trail: list[str] = []
    for indent, name in re.findall(r"^([ │├└─]*)(\w+Error)\b", errors.__doc__ or "", re.MULTILINE):
        depth = len(indent) // 4 - 1
        trail[depth:] = [name]
        drawn[name] = trail[depth - 1] if depth else "Exception"
    classes = {c.__name__: c for c in vars(errors).values() if isinstance(c, type) and issubclass(c, Exception)}
    assert drawn == {name: c.__bases__[0].__name__ for name, c in classes.items()}
    assert len(drawn) == 11
    with pytest.raises(DataError, match="cut short"):
        raise DamagedError("cut short")
    assert issubclass(MissingError, EluteError)
    assert not issubclass(MissingError, DataError)


@pytest.mark.parametrize(
    ("name", "known", "said"),
    [
        ("sede", ["seed", "rows"], "Did you mean 'seed'?"),
        ("TOPK", ["jumprelu", "topk"], "Did you mean 'topk'?"),
        ("topk", ["TOPK", "JUMP"], "Did you mean 'TOPK'?"),
        ("Seed", ["seed"], "Did you mean 'seed'?"),
        ("SEED", ["SEEDS", "seed"], "Did you mean 'seed' or 'SEEDS'?"),
        ("rate", ["rates", "crate"], "Did you mean 'rates' or 'crate'?"),
        ("zzz", ["b", "a"], "There are: a, b."),
        ("", ["b", "a"], "There are: a, b."),
        ("x", [], "There are none."),
        ("", {}, "There are none."),
        ("zzz", [f"k{i:02d}" for i in range(12)], "There are: " + ", ".join(f"k{i:02d}" for i in range(12)) + "."),
        (
            "zzz",
            [f"k{i:02d}" for i in range(13)],
            "There are: " + ", ".join(f"k{i:02d}" for i in range(12)) + ", … (13 in all).",
        ),
    ],
)
def test_the_nearest_names_are_named(name: str, known: list[str], said: str) -> None:
    assert near(name, known) == said


def test_no_more_names_than_asked_for() -> None:
    known = ["seed1", "seed2", "seed3", "seed4"]
    assert near("seed", known).count("seed") == 3
    assert near("seed", known, most=1).count("seed") == 1
    assert near("seed", iter(known), most=2).count("seed") == 2


@settings(deadline=None)
@given(name=st.text(max_size=8), known=st.lists(st.from_regex(r"[a-z]{1,6}", fullmatch=True), max_size=6, unique=True))
def test_only_names_that_exist_are_suggested(name: str, known: list[str]) -> None:
    said = near(name, known)
    if said.startswith("Did you mean "):
        suggested = re.findall(r"'([a-z]+)'", said)
        assert said == "Did you mean " + " or ".join(map(repr, suggested)) + "?"
        assert len(set(suggested)) == len(suggested)
        assert set(suggested) <= set(known)
    else:
        assert said == (f"There are: {', '.join(sorted(known))}." if known else "There are none.")
        assert name not in known
