from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from elute.base.errors import ConfigError, DataError
from elute.base.statistics.checks import (
    at_least,
    choice,
    generator,
    group_codes,
    masks,
    matrix,
    numbers,
    proportion,
)


def refusal(kind, call, *args, **kwargs):
    with pytest.raises(kind) as caught:
        call(*args, **kwargs)
    return str(caught.value)


@pytest.mark.parametrize(
    ("kind", "call", "line"),
    [
        (DataError, lambda: numbers([], "x"), "x: is empty. Give at least one value."),
        (
            DataError,
            lambda: numbers([[1.0, 2.0], [np.inf, np.nan]], "x"),
            "x: 2 of 4 values are NaN or infinite, the first at [1, 0]. Drop or fill those first.",
        ),
        (
            DataError,
            lambda: numbers(np.nan, "x"),
            "x: 1 of 1 values are NaN or infinite, the first at [0]. Drop or fill those first.",
        ),
        (DataError, lambda: numbers(["a"], "x"), "x: is not an array of numbers. Give numbers of one shape."),
        (DataError, lambda: numbers([[1], [1, 2]], "x"), "x: is not an array of numbers. Give numbers of one shape."),
        (DataError, lambda: matrix(np.ones((2, 2, 2)), "x"), "x: has 3 dimensions. Give [rows, features]."),
        (DataError, lambda: masks([0, 1], 2, "m"), "m: holds int64, not True and False. Compare first: labels == 'x'."),
        (DataError, lambda: masks([True], 2, "m"), "m: has 1 entries for 2 rows. Give one entry a row."),
        (
            DataError,
            lambda: masks(np.ones((2, 1, 1), bool), 2, "m"),
            "m: has 3 dimensions. Give [rows] or [rows, masks].",
        ),
        (DataError, lambda: masks(np.ones((2, 0), bool), 2, "m"), "m: is empty. Give at least one mask."),
        (
            DataError,
            lambda: masks([[True, False], [False, False]], 2, "m"),
            "m: mask 1 puts all 2 rows outside. A comparison needs rows on both sides.",
        ),
        (
            DataError,
            lambda: masks([True, True], 2, "m"),
            "m: mask 0 puts all 2 rows inside. A comparison needs rows on both sides.",
        ),
        (DataError, lambda: group_codes([], "g"), "g: is empty. Give one name a row."),
        (DataError, lambda: group_codes("donor", "g"), "g: is one string. Give one name a row."),
        (DataError, lambda: group_codes(["a", None], "g"), "g: row 1 has no name. Name it or drop the row."),
        (DataError, lambda: group_codes([1.0, float("nan")], "g"), "g: row 1 has no name. Name it or drop the row."),
        (DataError, lambda: group_codes([["a"]], "g"), "g: holds names that cannot be compared. Give text."),
        (DataError, lambda: group_codes(["a"], "g", n_rows=3), "g: has 1 entries for 3 rows. Give one entry a row."),
        (
            ConfigError,
            lambda: choice("grater", ["greater", "less"], "a"),
            "a: 'grater' is not a choice. Did you mean 'greater'?",
        ),
        (ConfigError, lambda: proportion(1.0, "l"), "l: 1 is not between 0 and 1. Give, say, 0.95."),
        (ConfigError, lambda: at_least(0, 1, "n"), "n: 0 is not a whole number of at least 1. Give 1 or more."),
        (ConfigError, lambda: at_least(2.0, 1, "n"), "n: 2.0 is not a whole number of at least 1. Give 1 or more."),
        (ConfigError, lambda: at_least(True, 0, "n"), "n: True is not a whole number of at least 0. Give 0 or more."),
        (
            ConfigError,
            lambda: generator(-1, "draw"),
            "draw(seed): -1 is not a whole number of at least 0. Give 0 or more.",
        ),
    ],
)
def test_refusals_say_what_where_and_what_to_do(kind, call, line):
    assert refusal(kind, call) == line


@pytest.mark.parametrize(
    "groups",
    [
        ["b", "a", "b"],
        np.array(["b", "a", "b"]),
        np.array(["b", "a", "b"], dtype=object),
        pl.Series(["b", "a", "b"]),
        [np.str_("b"), np.str_("a"), np.str_("b")],
    ],
)
def test_names_are_the_same_from_any_container(groups):
    names, codes = group_codes(groups, "g")
    assert names == ["a", "b"]
    assert [type(name) for name in names] == [str, str]
    assert codes.tolist() == [1, 0, 1]


def test_numbers_sort_as_numbers_and_mixtures_do_not_merge():
    assert group_codes(np.array([10, 9]), "g")[0] == [9, 10]
    assert group_codes([10, 9], "g")[0] == [9, 10]
    assert group_codes(["1", 1], "g")[0] == [1, "1"]


def test_a_draw_depends_on_its_seed_and_on_its_name():
    def draw(seed, name):
        return generator(seed, name).random()

    assert draw(1, "a") == draw(1, "a")
    assert len({draw(1, "a"), draw(2, "a"), draw(1, "b")}) == 3
