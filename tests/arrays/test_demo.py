"""The demonstration: what it prints was computed, and a second run has little to do."""

from __future__ import annotations

from pathlib import Path

import polars as pl

from elute.arrays.demo import DemoConfig, demonstrate
from elute.store.reader import Store


def test_the_network_learns_what_random_weights_do_not(tmp_path: Path) -> None:
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
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "d").rglob("*.safetensors")}
    again = demonstrate(tmp_path / "d", DemoConfig(steps=200)).summary
    assert again["accuracy"] == accuracy
    assert {p: p.stat().st_mtime_ns for p in before} == before
