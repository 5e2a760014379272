"""Replace, add and scale: in all rows, and in chosen ones."""

from __future__ import annotations

import polars as pl
import pytest
import torch

from elute.base.errors import SiteError
from elute.models.edits import add, replace, scale

CHOOSE = "Choose by a bool mask [2] or by row numbers from 0 to 1."

ROWS = [
    torch.tensor([True, False, True, False]),
    torch.tensor([0, 2]),
    torch.tensor([2, 0], dtype=torch.int32),
    lambda m: m["n"] % 2 == 0,
    lambda _: [0, 2],
    lambda _: torch.tensor([True, False, True, False]),
]


@pytest.mark.parametrize("rows", ROWS)
def test_chosen_rows_alone_are_edited(rows):
    x, metadata = torch.randn(4, 3), pl.DataFrame({"n": [0, 1, 2, 3]})
    vector = torch.tensor([1.0, 2.0, 3.0], dtype=torch.float64)
    for edit, change in (
        (replace(vector, rows), lambda _: vector.float()),
        (add(vector, rows), lambda row: row + vector.float()),
        (scale(vector, rows), lambda row: row * vector.float()),
    ):
        before = x.clone()
        got = edit(x, metadata)
        assert got.dtype == x.dtype
        assert torch.equal(x, before)
        for i in range(4):
            assert torch.equal(got[i], change(x[i]) if i in (0, 2) else x[i])


def test_replace_takes_a_value_a_row():
    x, value = torch.zeros(3, 2), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    assert replace(value, torch.tensor([2, 0]))(x, None).tolist() == [[3.0, 4.0], [0.0, 0.0], [1.0, 2.0]]
    assert replace(5.0)(x, None).tolist() == [[5.0, 5.0]] * 3


def test_no_row_chosen_changes_nothing():
    x, metadata = torch.randn(2, 3), pl.DataFrame({"n": [0, 1]})
    for rows in (torch.tensor([False, False]), torch.tensor([], dtype=torch.long), lambda _: []):
        assert torch.equal(scale(0.0, rows)(x, metadata), x)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (torch.tensor([True]), "the choice of rows is bool [1]. " + CHOOSE),
        (torch.tensor([2]), "the choice of rows is int64 [1]. " + CHOOSE),
        (torch.tensor([-1]), "the choice of rows is int64 [1]. " + CHOOSE),
        (torch.tensor([0.0, 1.0]), "the choice of rows is float32 [2]. " + CHOOSE),
        (lambda m: m["n"] > 0, "the choice of rows has missing values. Say what they mean, as with fill_null."),
    ],
)  # fmt: skip
def test_a_wrong_choice_of_rows_is_refused(rows, message):
    with pytest.raises(SiteError) as error:
        scale(0.0, rows)(torch.randn(2, 3), pl.DataFrame({"n": [None, 1]}))
    assert str(error.value) == message


def test_a_choice_by_metadata_needs_metadata_and_a_value_must_fit():
    with pytest.raises(SiteError, match=r"rows are chosen by metadata, but none was given\. Pass metadata"):
        scale(0.0, lambda m: m["n"] == 1)(torch.randn(2, 3), None)
    for edit in (add(torch.ones(4)), replace(torch.ones(3, 3)), scale(torch.ones(1, 2, 3))):
        with pytest.raises(SiteError, match=r"a value of float32 .* does not fit the chosen rows, float32 \[2, 3\]"):
            edit(torch.randn(2, 3), None)
