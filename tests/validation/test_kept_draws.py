"""Draws of null lists that were killed go on, and end as those left alone."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.sparse import csr_array

from elute.validation import kept_draws
from elute.validation.excess import Excess, excess
from elute.validation.excess import Tested as Told
from elute.validation.kept_draws import Draws
from elute.validation.null_lists import Matched, uniform_lists

LISTS = uniform_lists(np.full(30, 10), n_genes=200, seed=0)
MATCHED = Matched(np.arange(200.0), seed=0)


class KilledError(Exception):
    """Stands for a signal."""


def drawn(draws: Draws, *, most: int = 99) -> Excess:
    """Twelve draws, of which each list's least p depends on its genes; at most so many before the end."""
    seen = 0

    def test(lists: csr_array[Any]) -> Told:
        nonlocal seen
        seen += 1
        if seen > most:
            raise KilledError
        p = np.add.reduceat(lists.indices, lists.indptr[:-1]) / 3000.0
        if not (seen == 1 and draws.counts is None):
            draws.add(p)
        return Told((p < 0.2).astype(float) * 0.01 + (p >= 0.2), p)

    return excess(test, LISTS, MATCHED, first=12, most=12, coarse=3, counts=draws.counts, keep=draws.keep)


@pytest.fixture(autouse=True)
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_draws, "EVERY", 0.0)


@pytest.mark.parametrize("most", [2, 7, 14])
def test_what_was_killed_goes_on(tmp_path: Path, most: int) -> None:
    whole = Draws(tmp_path / ".whole", "key")
    expected = drawn(whole)
    with pytest.raises(KilledError):
        drawn(Draws(tmp_path / ".go", "key"), most=most)
    again = Draws(tmp_path / ".go", "key")
    assert again.counts is not None
    assert len(again.least) == most - 1
    assert drawn(again) == expected
    np.testing.assert_array_equal(np.array(again.least), np.array(whole.least))
    again.done()
    assert sorted(path.name for path in tmp_path.iterdir()) == [".whole.draws.json", ".whole.draws.npy"]


@pytest.mark.parametrize("harm", ["key", "json", "npy", "gone", "counts"])
def test_what_is_of_something_else_or_damaged_is_made_anew(tmp_path: Path, harm: str) -> None:
    drawn(Draws(tmp_path / ".it", "key"))
    told, least = tmp_path / ".it.draws.json", tmp_path / ".it.draws.npy"
    if harm == "json":
        told.write_text("{")
    elif harm == "npy":
        least.write_bytes(b"\x93NUMPY no")
    elif harm == "gone":
        least.unlink()
    elif harm == "counts":
        told.write_text(told.read_text().replace('"alone": [', '"alone": [-1, '))
    found = Draws(tmp_path / ".it", "other" if harm == "key" else "key")
    assert found.counts is None
    assert found.least == []


def test_without_a_folder_nothing_is_written(tmp_path: Path) -> None:
    draws = Draws()
    drawn(draws)
    draws.done()
    assert len(draws.least) == 15
    assert list(tmp_path.iterdir()) == []
