"""Reading: by rows, split, group and sample; and a store that is damaged, swapped, newer or leaking is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elute.base.contracts import Fingerprint
from elute.base.errors import DamagedError, DataError, GuardError, VersionError
from elute.base.files import digest_file
from elute.store.reader import Store
from elute.store.splitting import SplitConfig, split_store
from elute.store.verify import verify
from elute.store.writer import StoreWriter

MakeStore = Callable[..., Path]


def numbers(rows: dict[str, torch.Tensor], site: str = "a") -> list[int]:
    return [int(x) for x in rows[site][:, 0]]


@settings(max_examples=20, deadline=None)
@given(start=st.integers(0, 60), stop=st.integers(0, 60), shard=st.integers(1, 60))
def test_any_range_across_any_shards(
    tmp_path_factory: pytest.TempPathFactory, start: int, stop: int, shard: int
) -> None:
    folder = tmp_path_factory.mktemp("r") / "s"
    with StoreWriter(folder, sites={"a": 1}, rows_per_shard=shard) as writer:
        writer.append({"a": torch.arange(60.0)[:, None]}, {"sample_id": [f"s{i}" for i in range(60)]})
    store = Store(folder)
    assert numbers(store.read(start, stop)) == list(range(60))[start:stop]
    assert store.metadata(start, stop)["sample_id"].to_list() == [f"s{i}" for i in range(60)][start:stop]


def test_negative_and_open_ranges_are_those_of_python(make_store: MakeStore) -> None:
    store = Store(make_store(rows=700))
    assert numbers(store.read(-3)) == [697, 698, 699]
    assert len(store.read()["a"]) == 700
    assert numbers(store.read(5, 5)) == []


def test_editing_what_was_read_leaves_the_file_alone(make_store: MakeStore) -> None:
    folder = make_store()
    Store(folder).read(0, 10)["a"].zero_()
    assert numbers(Store(folder).read(0, 3)) == [0, 1, 2]
    assert verify(folder) == []


@pytest.mark.parametrize("size", [1, 7, 300, 10_000])
def test_batches_in_order(make_store: MakeStore, size: int) -> None:
    store = Store(make_store(rows=650))
    met = []
    for rows, frame in store.batches(size):
        assert len(frame) <= size
        assert frame["sample_id"].to_list() == [f"s{i}" for i in numbers(rows)] == [f"s{i}" for i in numbers(rows, "b")]
        met += numbers(rows)
    assert met == list(range(650))


def test_by_split_group_and_sample(make_store: MakeStore) -> None:
    folder = make_store(rows=1000, groups=10)
    split_store(folder, SplitConfig(seed=3))
    store = Store(folder)
    for chosen, expected in (
        ({"group": "g4"}, set(range(400, 500))),
        ({"group": ["g0", "g9"]}, {*range(100), *range(900, 1000)}),
        ({"sample": ["s3", "s777"]}, {3, 777}),
        ({"group": "g4", "sample": ["s3", "s450"]}, {450}),
    ):
        where = store.select(**chosen)
        met = [i for rows, _ in store.batches(64, where=where) for i in numbers(rows)]
        assert (set(met), len(met)) == (expected, len(expected)), "every chosen row once"
        assert where.rows == len(expected)
    parts = {
        s: {i for r, _ in store.batches(where=store.select(split=s)) for i in numbers(r)}
        for s in ("train", "validation", "test")
    }
    assert {s: len(p) for s, p in parts.items()} == {"train": 800, "validation": 100, "test": 100}
    assert set.union(*parts.values()) == set(range(1000))


def test_names_that_no_row_has(make_store: MakeStore) -> None:
    store = Store(make_store())
    with pytest.raises(DataError, match="no row has group 'g44'. Did you mean 'g4'"):
        store.select(group="g44")
    with pytest.raises(DataError, match="the rows have no column 'split'"):
        store.select(split="train")
    with pytest.raises(DataError, match="there is no site 'A'. Did you mean 'a'"):
        store.read(sites=["A"])


def test_every_bad_shard_is_listed_when_opened(make_store: MakeStore) -> None:
    folder = make_store()
    (folder / "00001.safetensors").unlink()
    with (folder / "00002.parquet").open("r+b") as handle:
        handle.truncate(100)
    with pytest.raises(DamagedError, match="00001.safetensors is missing; 00002.parquet has 100 bytes instead of"):
        Store(folder)


def test_a_flipped_bit_is_found_and_named(make_store: MakeStore) -> None:
    folder = make_store()
    for name in ("00002.safetensors", "00003.parquet"):
        data = bytearray((folder / name).read_bytes())
        data[len(data) // 2] ^= 1
        (folder / name).write_bytes(data)
    assert [(bad["file"], bad["fault"]) for bad in verify(folder)] == [
        ("00002.safetensors", "was altered: its digest does not match"),
        ("00003.parquet", "was altered: its digest does not match"),
    ]


def test_a_shard_swapped_with_another(make_store: MakeStore) -> None:
    folder = make_store(rows=900)
    for kind in ("safetensors", "parquet"):
        one, two, spare = folder / f"00000.{kind}", folder / f"00001.{kind}", folder / "spare"
        one.rename(spare)
        two.rename(one)
        spare.rename(two)
    assert "holds shard 00001 (swapped)" in [bad["fault"] for bad in verify(folder)]
    with pytest.raises(DamagedError):
        Store(folder).read(0, 10)


def test_a_shard_of_another_store(make_store: MakeStore) -> None:
    folder = make_store("one", source={"x": "1"})
    shutil.copy(make_store("two", source={"x": "2"}) / "00001.safetensors", folder / "00001.safetensors")
    with pytest.raises(DamagedError, match="00001.safetensors: is a shard of another store"):
        Store(folder).read(300, 310)
    assert [bad["file"] for bad in verify(folder)] == ["00001.safetensors"]


def test_a_shard_with_a_lying_header(make_store: MakeStore) -> None:
    folder = make_store()
    path = folder / "00000.safetensors"
    path.write_bytes(path.read_bytes().replace(b'"shape":[300,6]', b'"shape":[600,3]'))
    with pytest.raises(DamagedError, match="site 'a' is not the 300 × 6 fp32 that the manifest names"):
        Store(folder).read(0, 10)


def test_a_newer_a_damaged_and_a_missing_manifest(make_store: MakeStore, tmp_path: Path) -> None:
    folder = make_store()
    good = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps({**good, "schema_version": 2, "colour": "blue"}))
    with pytest.raises(VersionError, match="newer elute \\(schema 2, this one reads up to 1\\). Update elute"):
        Store(folder)
    (folder / "manifest.json").write_text(json.dumps({**good, "sites": "a"}))
    with pytest.raises(DamagedError, match="the manifest is damaged at sites"):
        Store(folder)
    (folder / "manifest.json").write_text(json.dumps(good)[:-20])
    with pytest.raises(DamagedError, match="is not a store's manifest"):
        Store(folder)
    (folder / "manifest.json").unlink()
    with pytest.raises(DataError, match="holds no store \\(no manifest.json\\)"):
        Store(folder)
    with pytest.raises(DataError, match="there is no store here"):
        Store(tmp_path / "nowhere")


def test_a_store_whose_groups_leak_is_refused(make_store: MakeStore) -> None:
    folder = make_store()
    split_store(folder, SplitConfig())
    path = folder / "00002.parquet"
    frame = pl.read_parquet(path)
    other = "test" if frame["split"][0] != "test" else "train"
    frame.with_columns(
        pl.when(pl.int_range(pl.len()) == 0).then(pl.lit(other)).otherwise("split").alias("split")
    ).write_parquet(path)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["shards"][2]["metadata"] = {"bytes": path.stat().st_size, "sha256": digest_file(path)}
    (folder / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(DataError, match="group 'g6' falls in two splits"):
        Store(folder)


def test_the_guard_says_what_changed(make_store: MakeStore) -> None:
    was = Fingerprint("net", "w1", "c1", "s1")
    store = Store(make_store(model=was))
    store.expect(model=was, sites=["a"])
    for now, words in (
        (Fingerprint("net", "w2", "c1", "s1"), "the model's weights \\(fine-tuned\\?\\) have changed"),
        (Fingerprint("net", "w1", "c2", "s1"), "its configuration have changed"),
        (Fingerprint("net", "w1", "c1", "s2"), "its sites have changed"),
    ):
        with pytest.raises(GuardError, match=f"was captured from net, but {words}. Capture it anew with --recapture"):
            store.expect(model=now)
    with pytest.raises(GuardError, match="has no site 'c'"):
        store.expect(sites=["c"])


def test_a_store_without_a_model_is_not_taken_for_one(make_store: MakeStore) -> None:
    with pytest.raises(GuardError, match="no model"):
        Store(make_store()).expect(model=Fingerprint("net", "w", "c", "s"))
