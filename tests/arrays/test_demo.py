"""The demonstration: what it prints was computed, and a second run has little to do."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest

from elute.arrays import demo_planted
from elute.arrays.demo import DemoConfig, demonstrate
from elute.store.reader import Store


def test_the_network_learns_what_random_weights_do_not(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, number in {"PLANTED": 128, "WIDTH": 64, "FEATURES": 256, "STORED": 20_000, "ROWS": 80_000}.items():
        monkeypatch.setattr(demo_planted, name, number)
    summary = demonstrate(tmp_path / "d", DemoConfig(steps=200)).summary
    accuracy = summary["accuracy"]
    assert accuracy["trained"] > 0.6 > 0.4 > accuracy["commonest state"]
    assert accuracy["random weights"] < 0.4
    assert summary["sites"]["trained"]["late"] < summary["sites"]["random weights"]["late"]
    store = Store(summary["store"])
    assert (len(store), store.complete) == (12_000, True)
    assert summary["split"] == {"train": 10_000, "validation": 1_000, "test": 1_000}
    assert store.metadata().group_by("group").agg(pl.col("split").n_unique())["split"].max() == 1
    assert Path(summary["report"]).exists()
    found = summary["dictionary"]
    assert found["recovered"].pop("trained") > 0.2
    assert set(found["recovered"].values()) == {0.0}
    assert found["explained_variance"]["trained"] > 0.7 > found["explained_variance"]["rows shuffled"]
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "d").rglob("*.safetensors")}
    again = demonstrate(tmp_path / "d", DemoConfig(steps=200)).summary
    assert again["accuracy"] == accuracy
    assert {p: p.stat().st_mtime_ns for p in before} == before
