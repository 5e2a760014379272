"""The shuffled stream: every row once an epoch, one order a seed, from anywhere on, well mixed."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from elute.base.errors import ConfigError, DamagedError, DataError
from elute.store.reader import Store
from elute.store.shuffle import ShuffleConfig
from elute.store.splitting import SplitConfig, split_store
from elute.store.writer import StoreWriter

MakeStore = Callable[..., Path]
# Small enough that a window is about 300 rows and a block about 10: many of each in a store of a thousand.
TINY = {"buffer_mb": 1, "block_kb": 32, "batch_size": 32}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Store:
    """A store of 2,000 rows of 3 kB, so that the smallest buffer holds a sixth of it."""
    folder = tmp_path_factory.mktemp("shuffle") / "s"
    with StoreWriter(folder, sites={"a": 700, "b": 68}, rows_per_shard=333) as writer:
        index = torch.arange(2000.0)
        rows = {"a": index[:, None].expand(-1, 700), "b": -index[:, None].expand(-1, 68)}
        writer.append(
            rows, {"sample_id": [f"s{i}" for i in range(2000)], "group": [f"g{i // 100}" for i in range(2000)]}
        )
    split_store(folder, SplitConfig(seed=1))
    return Store(folder)


def order(store: Store, config: ShuffleConfig, **chosen: object) -> list[int]:
    met: list[int] = []
    for batch in store.shuffled(config, **chosen):  # type: ignore[arg-type]
        places = batch.places.tolist()
        for name, x in batch.rows.items():
            assert x[:, -1].tolist() == [(-p if name == "b" else p) for p in places], "rows and places belong together"
        met += places
    return met


def test_every_row_once_an_epoch_in_a_new_order(store: Store) -> None:
    met = order(store, ShuffleConfig(**TINY, epochs=3))
    epochs = [met[i : i + 2000] for i in range(0, 6000, 2000)]
    assert all(sorted(epoch) == list(range(2000)) for epoch in epochs)
    assert epochs[0] != epochs[1] != epochs[2] != list(range(2000))


@pytest.mark.parametrize("workers", [1, 2, 7])
def test_the_order_is_that_of_the_seed_alone(store: Store, workers: int) -> None:
    assert order(store, ShuffleConfig(**TINY, seed=5, workers=workers)) == order(store, ShuffleConfig(**TINY, seed=5))
    assert order(store, ShuffleConfig(**TINY, seed=5, workers=workers)) != order(store, ShuffleConfig(**TINY, seed=6))


def test_rows_of_a_split_alone(store: Store) -> None:
    where = store.select(split="train")
    met = order(store, ShuffleConfig(**TINY), where=where)
    frame = store.metadata(columns=["split"])["split"]
    assert sorted(met) == (frame == "train").arg_true().to_list()


@settings(max_examples=20, deadline=None)
@given(batches=st.integers(0, 130), size=st.integers(1, 70), drop=st.booleans())
def test_it_goes_on_in_the_middle_of_an_epoch(store: Store, batches: int, size: int, drop: bool) -> None:
    config = ShuffleConfig(batch_size=size, buffer_mb=1, block_kb=32, epochs=2, drop_last=drop)
    whole = order(store, config)
    stream = store.shuffled(config)
    met: list[int] = []
    for number, batch in enumerate(stream):
        if number == batches:
            break
        met += batch.places.tolist()
        state = stream.state()
    if batches == 0:
        state = store.shuffled(config).state()
    resumed = store.shuffled(config)
    resumed.load_state(state)
    for batch in resumed:
        met += batch.places.tolist()
    assert met == whole


def test_a_state_of_another_order_is_refused(store: Store) -> None:
    state = store.shuffled(ShuffleConfig(**TINY)).state()
    for other in (ShuffleConfig(**TINY, seed=1), ShuffleConfig(batch_size=31, buffer_mb=1, block_kb=32)):
        with pytest.raises(ConfigError, match="order differs from the one that was interrupted"):
            store.shuffled(other).load_state(state)
    with pytest.raises(ConfigError):
        store.shuffled(ShuffleConfig(**TINY), where=store.select(split="train")).load_state(state)
    store.shuffled(ShuffleConfig(**TINY, workers=5)).load_state(state)


def test_batches_are_full_until_the_end_of_an_epoch(store: Store) -> None:
    sizes = [len(b.places) for b in store.shuffled(ShuffleConfig(batch_size=300, buffer_mb=1, block_kb=32, epochs=2))]
    assert sizes == [300] * 6 + [200] + [300] * 6 + [200]
    config = ShuffleConfig(batch_size=300, buffer_mb=1, block_kb=32, epochs=2, drop_last=True)
    assert [len(b.places) for b in store.shuffled(config)] == [300] * 12


def test_places_are_uniform_over_seeds(store: Store) -> None:
    """The first row handed out falls anywhere in the store alike, and neighbours in it do not follow each other."""
    firsts, after = [], 0
    for seed in range(200):
        places = next(iter(store.shuffled(ShuffleConfig(**TINY, seed=seed)))).places
        firsts.append(int(places[0]))
        after += int((places[1:] - places[:-1] == 1).sum())
    counts = np.histogram(firsts, bins=8, range=(0, 2000))[0]
    assert stats.chisquare(counts).pvalue > 0.001
    # Uniform in the whole store one pair in 2,000 would be neighbours; in a window of 300 rows about one in 300.
    assert after / (200 * 31) < 0.01


def test_one_batch_mixes_many_places(store: Store) -> None:
    """A batch of 32 rows from a sixth of the store touches most of 20 groups of neighbours over a few batches."""
    stream = iter(store.shuffled(ShuffleConfig(**TINY)))
    groups = {int(p) // 100 for _ in range(4) for p in next(stream).places}
    assert len(groups) >= 15


def test_what_breaks_while_reading_reaches_the_consumer(make_store: MakeStore) -> None:
    folder = make_store(rows=900)
    store = Store(folder)
    (folder / "00001.safetensors").unlink()
    with pytest.raises(DamagedError, match="00001.safetensors: is missing"):
        list(store.shuffled(ShuffleConfig()))


def test_leaving_early_ends_its_threads(store: Store) -> None:
    before = threading.active_count()
    stream = iter(store.shuffled(ShuffleConfig(**TINY, epochs=None)))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before


def test_stalls_are_measured(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What a slow disk costs is counted as waiting; what a slow consumer takes is not."""
    config = ShuffleConfig(batch_size=200, buffer_mb=1, block_kb=1024, workers=1)
    slow = store.shuffled(config)
    for _ in slow:
        time.sleep(0.01)
    assert slow.report.elapsed_s - slow.report.stall_s >= 0.01 * 9

    real = os.preadv

    def late(*arguments: Any) -> int:
        time.sleep(0.05)
        return real(*arguments)

    monkeypatch.setattr(os, "preadv", late)
    starved = store.shuffled(config)
    assert sum(len(batch.places) for batch in starved) == 2000
    reads = 2 * len({(i // 333, i % 333 * 3072 // 1_024_000) for i in range(2000)})
    assert starved.report.first_wait_s + starved.report.stall_s >= 0.05 * reads * 0.8
    assert 0 < starved.report.stall_share <= 1


def test_no_rows_and_too_few(make_store: MakeStore) -> None:
    store = Store(make_store(rows=20))
    with pytest.raises(ConfigError, match="20 rows do not fill one batch of 64"):
        store.shuffled(ShuffleConfig(batch_size=64, drop_last=True))
    with pytest.raises(DataError, match="there are no rows \\(group g1, sample_id s0\\)"):
        store.shuffled(where=store.select(group="g1", sample="s0"))


def test_one_row(make_store: MakeStore) -> None:
    assert [b.places.tolist() for b in Store(make_store(rows=1, groups=1)).shuffled()] == [[0]]


def test_bf16_rows_are_the_same_bits(tmp_path: Path) -> None:
    x = torch.randn(100, 5, generator=torch.Generator().manual_seed(0)).bfloat16()
    with StoreWriter(tmp_path / "s", sites={"a": 5}, dtype="bf16", rows_per_shard=30) as writer:
        writer.append({"a": x}, {"sample_id": [f"s{i}" for i in range(100)]})
    for batch in Store(tmp_path / "s").shuffled(ShuffleConfig(batch_size=7)):
        assert torch.equal(batch.rows["a"], x[batch.places])
