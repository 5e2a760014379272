"""Differences across donors, and the same with the levels dealt out anew inside each."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import torch

from elute.analysis.tally import Tally
from elute.base.codes import Codes
from elute.cells.control_donors import PERMUTATIONS, across_donors, lines

CELLS, DONORS, FEATURES, ROWS = 400, 8, 24, 6


def made(effect: float, seed: int = 0) -> tuple[Any, pl.DataFrame]:
    """Cells of donors, half of each treated; features 0 to 3 answer to the treatment, in all donors alike."""
    rng = np.random.default_rng(seed)
    donor, treated = np.arange(CELLS) % DONORS, np.arange(CELLS) // DONORS % 2
    strength = rng.gamma(2.0, 1.0, (CELLS, FEATURES)) + rng.gamma(2.0, 1.0, (DONORS, FEATURES))[donor]
    strength[:, :4] += effect * treated[:, None]
    tally = Tally(FEATURES, CELLS, ROWS)
    values = np.repeat(strength, ROWS, axis=0).astype(np.float32)
    indices = np.tile(np.arange(FEATURES, dtype=np.int32), (CELLS * ROWS, 1))
    codes = Codes(torch.from_numpy(indices), torch.from_numpy(values), FEATURES)
    cell, gene = np.repeat(np.arange(CELLS), ROWS), np.tile(np.arange(ROWS), CELLS)
    tally.update((codes, cell, gene, np.ones(CELLS * ROWS)))
    frame = pl.DataFrame(
        {
            "cell": [f"c{i}" for i in range(CELLS)],
            "donor": [f"d{i}" for i in donor],
            "label": [("control", "drug")[i] for i in treated],
            "obs:site": [("a", "b")[i % 2] for i in donor],
            "obs:one": ["x"] * CELLS,
        }
    )
    return tally.result(), frame


def count(effect: float, *columns: str) -> dict[str, Any]:
    tallied, cells = made(effect)
    return across_donors(tallied, cells, list(columns), fdr=0.05, most=CELLS, seed=0)


def test_what_answers_in_all_donors_is_counted_and_its_null_is_not() -> None:
    found = count(1.5, "label")["label"]
    assert (found["how"], found["donors"], found["features"]) == ("within", DONORS, 4)
    assert len(found["permuted"]) == PERMUTATIONS
    assert np.mean(found["permuted"]) < 0.5
    assert count(0.0, "label")["label"]["features"] == 0


def test_donors_that_have_one_level_each_have_no_null() -> None:
    found = count(1.5, "site")["site"]
    assert (found["how"], found["permuted"]) == ("between", [])
    told = lines({"site": found}, fdr=0.05, label="type")
    assert "no null: each donor has one level alone" in told[0]


def test_what_cannot_be_asked_says_why() -> None:
    found = count(0.0, "one", "nowhere")
    assert "one level only" in found["one"]["not run"]
    assert "no column" in found["nowhere"]["not run"]
    tallied, cells = made(0.0)
    without = cells.with_columns(donor=pl.lit(None, dtype=pl.String))
    assert across_donors(tallied, without, ["label"], fdr=0.05, most=CELLS, seed=0) == {}
