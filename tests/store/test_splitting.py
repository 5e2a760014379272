"""Splits: by group, once, stored with the rows, and never half changed."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from elute.base.errors import ConfigError, DataError
from elute.store.reader import Store
from elute.store.splitting import SplitConfig, split_store
from elute.store.verify import verify
from elute.store.writer import StoreWriter

MakeStore = Callable[..., Path]


def assigned(folder: Path) -> dict[str, set[str]]:
    frame = Store(folder).metadata(columns=["group", "split"])
    return {g: set(f["split"]) for (g,), f in frame.group_by("group")}


def test_whole_groups_by_share_of_rows(make_store: MakeStore) -> None:
    folder = make_store(rows=2000, groups=20)
    artifact = split_store(folder, SplitConfig(seed=1))
    assert all(len(splits) == 1 for splits in assigned(folder).values())
    assert artifact.summary["rows"] == {"train": 1600, "validation": 200, "test": 200}
    assert artifact.summary["groups"] == {"train": 16, "validation": 2, "test": 2}
    assert verify(folder) == []


def test_the_seed_decides_and_nothing_else_changes(make_store: MakeStore) -> None:
    folder = make_store(rows=2000, groups=20)
    tensors = {p.name: p.read_bytes() for p in folder.glob("*.safetensors")}
    first = split_store(folder, SplitConfig(seed=1))
    one = assigned(folder)
    again = split_store(folder, SplitConfig(seed=1))
    assert (first.summary["changed"], again.summary["changed"]) == (True, False)
    assert assigned(folder) == one
    split_store(folder, SplitConfig(seed=2))
    assert assigned(folder) != one
    assert tensors == {p.name: p.read_bytes() for p in folder.glob("*.safetensors")}


def test_labels_are_spread_evenly(tmp_path: Path) -> None:
    """Groups of one label each: without stratifying, a split of two groups often misses one label."""
    n, groups = 400, 20
    metadata = {
        "sample_id": [f"s{i}" for i in range(n)],
        "group": [f"g{i // 20}" for i in range(n)],
        "label": [f"l{i // 20 % 2}" for i in range(n)],
    }
    for seed in range(5):
        with StoreWriter(tmp_path / str(seed), sites={"a": 1}) as writer:
            writer.append({"a": torch.zeros(n, 1)}, metadata)
        split_store(tmp_path / str(seed), SplitConfig(stratify="label", seed=seed))
        frame = Store(tmp_path / str(seed)).metadata()
        assert frame.group_by("split", "label").len()["len"].to_list().count(20) == 4, "two splits with a group of each"
    assert groups == frame["group"].n_unique()


@pytest.mark.parametrize("when", ["before", "after"])
def test_killed_around_the_manifest_it_holds_the_old_or_the_new(make_store: MakeStore, when: str) -> None:
    folder = make_store(rows=900)
    split_store(folder, SplitConfig(seed=1))
    old = assigned(folder)
    code = f"""
import os
from pathlib import Path
from elute.store import layout, splitting
real = layout.write_manifest
def dies(folder, manifest):
    if {when == "after"}:
        real(folder, manifest)
    os.kill(os.getpid(), 9)
layout.write_manifest = dies
splitting.split_store(Path({str(folder)!r}), splitting.SplitConfig(seed=5))
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == -9
    assert list(folder.glob("*.next"))
    now = assigned(folder)
    assert (now == old) == (when == "before")
    assert verify(folder) == []
    assert not list(folder.glob("*.next"))


def test_stores_that_cannot_be_split(make_store: MakeStore, tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "bare", sites={"a": 1}) as writer:
        writer.append({"a": torch.zeros(2, 1)}, {"sample_id": ["a", "b"]})
    with pytest.raises(DataError, match="no column 'group'. Import it with --group COLUMN"):
        split_store(tmp_path / "bare", SplitConfig())
    folder = make_store(rows=100, groups=2)
    with pytest.raises(DataError, match="2 groups cannot fill 3 splits"):
        split_store(folder, SplitConfig())
    with pytest.raises(DataError, match="no column 'lable'. Did you mean 'label'"):
        split_store(folder, SplitConfig(stratify="lable"))
    with StoreWriter(tmp_path / "gaps", sites={"a": 1}) as writer:
        writer.append({"a": torch.zeros(2, 1)}, {"sample_id": ["a", "b"], "group": ["d", None]})
    with pytest.raises(DataError, match="1 rows of shard 00000 have no group"):
        split_store(tmp_path / "gaps", SplitConfig())
    writer = StoreWriter(tmp_path / "half", sites={"a": 1})
    writer.append({"a": torch.zeros(2, 1)}, {"sample_id": ["a", "b"], "group": ["d", "e"]})
    writer.stop()
    with pytest.raises(DataError, match="not complete yet"):
        split_store(tmp_path / "half", SplitConfig())


def test_shares_that_do_not_add_up() -> None:
    with pytest.raises(ValueError, match="add up to 1"):
        SplitConfig(fractions={"train": 0.8, "test": 0.1})
    with pytest.raises((ValueError, ConfigError)):
        SplitConfig(fractions={"train": 1.2, "test": -0.2})
