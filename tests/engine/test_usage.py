"""How features were used, against dense arrays and numpy's own histogram."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
import torch

from elute.engine.parallel import Ranks
from elute.engine.usage import BINS, Usage

EDGES = np.array([2.0**e * half for e in range(-10, 10) for half in (1.0, 1.5)])  # lower edges of all bins


def slots(seed: int, rows: int = 60, k: int = 5, n: int = 9) -> tuple[torch.Tensor, torch.Tensor]:
    """Codes of rows: features differ within a row, some slots are empty, some strengths negative."""
    random = np.random.default_rng(seed)
    idx = np.stack([random.permutation(n)[:k] for _ in range(rows)]).astype(np.int32)
    val = (random.standard_normal((rows, k)) * 10.0 ** random.uniform(-5, 5, (rows, k))).astype(np.float32)
    val[random.random((rows, k)) < 0.3] = 0
    return torch.from_numpy(np.where(val != 0, idx, 0)), torch.from_numpy(val)


def dense(part: tuple[torch.Tensor, torch.Tensor], n: int = 9) -> np.ndarray:
    out = np.zeros((len(part[0]), n))
    for row, (idx, val) in enumerate(zip(*(t.numpy() for t in part), strict=True)):
        out[row, idx[val != 0]] = np.abs(val[val != 0])
    return out


def test_counts_are_those_of_dense_arrays() -> None:
    usage = Usage(18)
    steps = [[slots(10 * step + bank, n=9 if step else 4, k=4) for bank in range(2)] for step in range(4)]
    for step, banks in enumerate(steps):
        usage.update(banks, 100 + step)
    tables = [np.concatenate([dense(part) for part in banks], axis=1) for banks in steps]
    whole = np.concatenate(tables)
    assert usage.rows == len(whole) == 240
    np.testing.assert_array_equal(usage.counts, (whole > 0).sum(0))
    np.testing.assert_allclose(usage.sums, whole.sum(0), rtol=1e-6)
    np.testing.assert_array_equal(usage.largest, whole.max(0).astype(np.float32))
    fired = np.stack([table.any(0) for table in tables])
    np.testing.assert_array_equal(usage.first, np.where(fired.any(0), 100 + fired.argmax(0), -1))
    np.testing.assert_array_equal(usage.last, np.where(fired.any(0), 103 - fired[::-1].argmax(0), -1))
    for feature in range(18):
        strengths = whole[:, feature][whole[:, feature] > 0]
        inner = np.clip(np.searchsorted(EDGES, strengths, side="right") - 1, 0, BINS - 1)
        np.testing.assert_array_equal(usage.bins[feature], np.bincount(inner, minlength=BINS))


def test_the_edges_of_the_bins() -> None:
    below = np.nextafter(EDGES.astype(np.float32), np.float32(0))
    tiny = np.array([1e-30, 1e-45, 3e38], np.float32)
    values = np.concatenate([EDGES.astype(np.float32), -below, tiny])
    usage = Usage(len(values))
    idx = torch.arange(len(values), dtype=torch.int32)[:, None]
    usage.update([(idx, torch.from_numpy(values)[:, None])], 0)
    places = usage.bins.argmax(1)
    assert places[:BINS].tolist() == list(range(BINS))
    assert places[BINS : 2 * BINS].tolist() == [max(0, i - 1) for i in range(BINS)]
    assert places[2 * BINS :].tolist() == [0, 0, BINS - 1]
    assert (usage.bins.sum(1) == 1).all()


def test_a_state_goes_on() -> None:
    whole, first, second = Usage(9), Usage(9), Usage(9)
    for step in range(3):
        whole.update([slots(step)], step)
        first.update([slots(step)], step)
    second.load_state(first.state())
    for step in range(3, 6):
        whole.update([slots(step)], step)
        second.update([slots(step)], step)
    for name, value in whole.state().items():
        assert np.array_equal(second.state()[name], value), name
    assert first.rows == 180, "the one that was asked has not moved on"


def test_merging_alone_copies() -> None:
    usage = Usage(9)
    usage.update([slots(0)], 4)
    merged = usage.merge(Ranks())
    for name, value in usage.state().items():
        assert np.array_equal(merged.state()[name], value), name
    merged.counts[:] = -5
    assert (usage.counts >= 0).all()


def test_the_table() -> None:
    usage = Usage(3)
    usage.update([(torch.tensor([[0, 1], [0, 0]], dtype=torch.int32), torch.tensor([[1.0, -3.0], [2.0, 0.0]]))], 0)
    usage.update([(torch.tensor([[0, 0], [0, 0]], dtype=torch.int32), torch.tensor([[1.0, 0.0], [0.0, 0.0]]))], 1)
    table = usage.table(steps=10, rows_per_step=2)
    assert table.schema["histogram"] == pl.Array(pl.Int64, BINS)
    assert table.drop("histogram").to_dicts() == [
        {"feature": 0, "frequency": 0.75, "mean_strength": pytest.approx(4 / 3), "max_strength": 2.0,
         "first_step": 0, "last_step": 1, "silent_rows": 16},
        {"feature": 1, "frequency": 0.25, "mean_strength": 3.0, "max_strength": 3.0,
         "first_step": 0, "last_step": 0, "silent_rows": 18},
        {"feature": 2, "frequency": 0.0, "mean_strength": 0.0, "max_strength": 0.0,
         "first_step": -1, "last_step": -1, "silent_rows": 20},
    ]  # fmt: skip
