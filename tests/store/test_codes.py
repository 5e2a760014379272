"""Codes on disk: what goes in comes out, whole shards whatever happens, and nothing that belongs to something else."""

from __future__ import annotations

import errno
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from elute.base import files
from elute.base.codes import Codes
from elute.base.errors import (
    BusyError,
    ConfigError,
    DamagedError,
    DataError,
    EluteError,
    GuardError,
    SpaceError,
    VersionError,
)
from elute.base.tensors import write_safetensors
from elute.store import codes_layout
from elute.store.codes import StoredCodes, open_codes, verify
from elute.store.codes_layout import CodesManifest
from elute.store.codes_writer import CodesWriter
from elute.store.reader import Store
from elute.store.splitting import SplitConfig, split_store
from elute.store.writer import StoreWriter

ROOT = Path(__file__).parents[2]
F = 13
MakeStore = Callable[..., Path]


def codes_of(n: int, k: int, seed: int) -> Codes:
    """Codes of either sign in which about a third of the slots are empty."""
    x = torch.randn(n, F, generator=torch.Generator().manual_seed(seed))
    codes = Codes.from_dense(x, k, by="magnitude")
    empty = codes.values.abs() < codes.values.abs().quantile(1 / 3) if codes.values.numel() else codes.values != 0
    return Codes(codes.indices, codes.values.masked_fill(empty, 0), F)


def writer_of(folder: Path, store: Store, **other: Any) -> CodesWriter:
    told = {"dictionary": "d1c7", "n_features": F, "sites": ["a", "b"]} | other
    return CodesWriter(folder, store=store, **told)


def shard_codes(store: Store, shard: int) -> Codes:
    """Shards differ in their slots: 3, 4, 5, 3, …"""
    return codes_of(store.manifest.shards[shard].rows, 3 + shard % 3, seed=shard)


def write(folder: Path, store: Store, *, stop_after: int | None = None, **other: Any) -> Codes:
    """Write the codes of a store, or some more shards of them; return all of them."""
    n = len(store.manifest.shards)
    writer = writer_of(folder, store, **other)
    for shard in range(writer.done, n if stop_after is None else stop_after):
        writer.append_shard(shard_codes(store, shard))
    writer.close() if stop_after is None else writer.stop()
    return Codes.concatenate([shard_codes(store, shard) for shard in range(n)])


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if p.name != ".lock"}


def same(one: Codes, other: Codes) -> bool:
    """Equal numbers; the one with fewer slots counts as filled up with empty ones."""
    one, other = (Codes.concatenate([c, codes_of(0, 5, 0).to(dtype=c.values.dtype)]) for c in (one, other))
    return torch.equal(one.indices, other.indices) and torch.equal(one.values, other.values)


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store of 1000 rows in four shards, and their codes: made once, since each file is flushed to the disk."""
    folder = tmp_path_factory.mktemp("template")
    x = torch.arange(1000.0)[:, None] + 0.25 * torch.arange(6)
    with StoreWriter(folder / "store", sites={"a": 6, "b": 3}, rows_per_shard=300) as writer:
        rows = range(1000)
        names = {"sample_id": [f"s{i}" for i in rows], "group": [f"g{i // 100}" for i in rows]}
        writer.append({"a": x, "b": x[:, :3]}, names)
    write(folder / "codes", Store(folder / "store"))
    return folder


@pytest.fixture
def store(template: Path, tmp_path: Path) -> Store:
    return Store(shutil.copytree(template / "store", tmp_path / "store"))


@pytest.fixture
def folder(template: Path, tmp_path: Path) -> Path:
    """The codes of the store."""
    return shutil.copytree(template / "codes", tmp_path / "codes")


# What goes in comes out.


@pytest.mark.parametrize(("dtype", "kind"), [("fp32", torch.float32), ("fp16", torch.float16)])
def test_what_goes_in_comes_out(tmp_path: Path, store: Store, dtype: str, kind: torch.dtype) -> None:
    want = write(tmp_path / "codes", store, dtype=dtype).to(dtype=kind)
    codes = open_codes(tmp_path / "codes")
    assert (len(codes), codes.k, codes.n_features, codes.dtype, codes.complete) == (1000, 5, F, kind, True)
    assert (codes.sites, codes.dictionary, codes.selection) == (("a", "b"), "d1c7", None)
    got = codes.read()
    assert got.values.dtype == kind
    assert same(got, want)
    for start, stop in (
        (0, 1),
        (299, 301),
        (300, 600),
        (250, 950),
        (900, None),
        (-5, None),
        (7, 7),
        (9, 3),
        (0, 10**9),
    ):
        assert same(codes.read(start, stop), want[start:stop]), (start, stop)
    assert [codes.shard(i).k for i in range(4)] == [3, 4, 5, 3]
    assert same(codes.shard(3), want[900:])
    with pytest.raises(DataError, match="there is no shard 4 in 4"):
        codes.shard(4)
    with pytest.raises(DataError, match="there is no shard -1"):
        codes.shard(-1)
    assert verify(tmp_path / "codes") == []
    assert repr(codes) == f"StoredCodes({str(tmp_path / 'codes')!r}: 1,000 rows, k=5, 13 features, {dtype})"


def test_the_safetensors_library_reads_our_shards(tmp_path: Path, store: Store) -> None:
    write(tmp_path / "codes", store, dtype="fp16")
    got = load_file(tmp_path / "codes" / "00001.safetensors")
    want = shard_codes(store, 1)
    assert sorted(got) == ["indices", "values"]
    assert torch.equal(got["indices"], want.indices)
    assert torch.equal(got["values"], want.values.half())
    with safetensors.safe_open(tmp_path / "codes" / "00001.safetensors", "numpy") as file:
        assert file.metadata() == {"codes": StoredCodes(tmp_path / "codes").manifest.codes, "shard": "00001"}


def test_batches_are_mapped_in_order_and_cross_no_shard(tmp_path: Path, store: Store) -> None:
    want = write(tmp_path / "codes", store)
    codes = StoredCodes(tmp_path / "codes")
    parts = list(codes.batches(128))
    assert [len(part) for part in parts] == [128, 128, 44] * 3 + [100]
    assert same(Codes.concatenate(parts), want)
    whole = codes.shard(1)
    begin, end = whole.values.data_ptr(), whole.values.data_ptr() + whole.values.nbytes
    assert begin < codes.read(310, 320).values.data_ptr() < end, "a range of one shard is a view of its file"
    with pytest.raises(ConfigError, match="at least one row, not 0"):
        codes.batches(0)


def test_one_pass_gives_what_dense_codes_give(tmp_path: Path, store: Store) -> None:
    dense = write(tmp_path / "codes", store).dense()
    codes = StoredCodes(tmp_path / "codes")
    assert torch.equal(codes.counts(), (dense != 0).sum(0))
    assert torch.allclose(codes.frequency(), (dense != 0).double().mean(0))
    for feature in (0, 5, F - 1):
        parts = list(codes.rows_of(feature))
        rows, values = (torch.cat(column) for column in zip(*parts, strict=True))
        assert torch.equal(rows, dense[:, feature].nonzero()[:, 0])
        assert torch.equal(values, dense[rows, feature])
    for feature in (-1, F):
        with pytest.raises(DataError, match=f"no feature {feature} in 13"):
            codes.rows_of(feature)


def test_an_edit_of_what_was_read_does_not_reach_the_file(tmp_path: Path, store: Store) -> None:
    write(tmp_path / "codes", store)
    StoredCodes(tmp_path / "codes").read(0, 10).values.fill_(7)
    assert verify(tmp_path / "codes") == []


@pytest.mark.parametrize("kind", [torch.float64, torch.bfloat16, torch.float16])
def test_values_of_other_types_and_with_gradients_are_cast(tmp_path: Path, store: Store, kind: torch.dtype) -> None:
    with writer_of(tmp_path / "codes", store) as writer:
        for shard in range(4):
            codes = shard_codes(store, shard).to(dtype=kind)
            codes.values.requires_grad_()
            writer.append_shard(codes)
    assert same(StoredCodes(tmp_path / "codes").shard(2), shard_codes(store, 2).to(dtype=kind).to(dtype=torch.float32))


def test_codes_without_slots(tmp_path: Path, store: Store) -> None:
    with writer_of(tmp_path / "codes", store) as writer:
        for shard in range(4):
            writer.append_shard(codes_of(store.manifest.shards[shard].rows, 0, 0))
    codes = StoredCodes(tmp_path / "codes")
    assert (len(codes), codes.k, codes.read().k) == (1000, 0, 0)
    assert codes.counts().sum() == 0
    assert list(codes.rows_of(0)) == []
    assert verify(tmp_path / "codes") == []


# Some rows alone.


def write_chosen(folder: Path, store: Store, split: str) -> torch.Tensor:
    """Encode the rows of a split; the first value of a row is its number in the store, one higher."""
    chosen = store.select(split=split)
    numbers = []
    with writer_of(folder, store, selection=chosen.words) as writer:
        for shard in range(writer.done, writer.shards):
            mask = chosen.mask(shard, store.manifest.shards[shard].rows)
            rows = np.arange(store.manifest.shards[shard].rows) if mask is None else np.flatnonzero(mask)
            numbers.append(torch.from_numpy(rows) + store.starts[shard])
            values = (numbers[-1] + 1.0).float()[:, None]
            writer.append_shard(Codes((numbers[-1] % F).int()[:, None], values, F), rows)
    return torch.cat(numbers)


def test_chosen_rows_keep_their_numbers(tmp_path: Path, store: Store) -> None:
    split_store(store.folder, SplitConfig(fractions={"train": 0.5, "test": 0.5}))
    store = Store(store.folder)
    want = write_chosen(tmp_path / "codes", store, "test")
    codes = StoredCodes(tmp_path / "codes").expect(store=store, dictionary="d1c7")
    assert (len(codes), codes.selection) == (len(want), "split test")
    assert 0 < len(want) < 1000
    assert torch.equal(codes.store_rows(), want)
    assert torch.equal(codes.store_rows(3, 450), want[3:450])
    assert torch.equal(codes.read().values[:, 0], want + 1.0)
    found = list(codes.rows_of(4))
    assert torch.equal(torch.cat([rows for rows, _ in found]), want[want % F == 4])
    assert torch.equal(torch.cat([values for _, values in found]), want[want % F == 4] + 1.0)
    steps = zip(codes.batches(64), store.batches(64, where=store.select(split="test")), strict=True)
    for mine, (theirs, _) in steps:
        assert torch.equal(mine.values[:, 0], theirs["a"][:, 0] + 1)


def test_rows_of_all_codes_are_their_own_numbers(tmp_path: Path, store: Store) -> None:
    write(tmp_path / "codes", store)
    codes = StoredCodes(tmp_path / "codes")
    assert codes.store_rows().tolist() == list(range(1000))
    assert codes.store_rows(290, 310).tolist() == list(range(290, 310))
    assert codes.store_rows(5, 5).tolist() == []


def test_a_shard_of_which_no_row_is_chosen(tmp_path: Path, store: Store) -> None:
    with writer_of(tmp_path / "codes", store, selection="a few") as writer:
        for rows in ([], [7, 299], torch.tensor([0], dtype=torch.int32), ()):
            writer.append_shard(codes_of(len(rows), 2, 1), rows)
    codes = StoredCodes(tmp_path / "codes")
    assert (len(codes), codes.store_rows().tolist()) == (3, [307, 599, 600])
    assert len(codes.shard(0)) == 0
    assert len(list(codes.batches(10))) == 2
    assert same(codes.read(), Codes.concatenate([codes_of(2, 2, 1), codes_of(1, 2, 1)]))


def test_another_split_makes_chosen_codes_those_of_another_store(tmp_path: Path, store: Store) -> None:
    split_store(store.folder, SplitConfig(fractions={"train": 0.5, "test": 0.5}))
    store = Store(store.folder)
    write_chosen(tmp_path / "chosen", store, "test")
    write(tmp_path / "all", store)
    split_store(store.folder, SplitConfig(fractions={"train": 0.5, "test": 0.5}, seed=1))
    store = Store(store.folder)
    StoredCodes(tmp_path / "all").expect(store=store)
    words = r"the metadata of their store, by which rows were chosen, have changed \(another split\?\)"
    with pytest.raises(GuardError, match=words):
        StoredCodes(tmp_path / "chosen").expect(store=store)
    with pytest.raises(GuardError, match=words):
        writer_of(tmp_path / "chosen", store, selection="split test")


# Stopped, killed, taken up again.


def test_stopped_writers_leave_the_bytes_of_one(tmp_path: Path, store: Store) -> None:
    write(tmp_path / "one", store)
    for stop in (0, 1, 1, 3, 4, None):
        write(tmp_path / "many", store, stop_after=stop)
        if stop:
            codes = StoredCodes(tmp_path / "many")
            assert (len(codes), codes.complete) == (sum(r.rows for r in store.manifest.shards[:stop]), False)
            with pytest.raises(GuardError, match=f"only {stop} of 4 shards are written"):
                codes.expect(dictionary="d1c7")
            assert codes.expect(complete=False) is codes
    assert content(tmp_path / "one") == content(tmp_path / "many")


def test_an_error_keeps_the_whole_shards(tmp_path: Path, store: Store) -> None:
    with pytest.raises(ZeroDivisionError), writer_of(tmp_path / "codes", store) as writer:
        writer.append_shard(shard_codes(store, 0))
        _ = 1 / 0
    assert not StoredCodes(tmp_path / "codes").complete
    with writer_of(tmp_path / "codes", store) as writer:
        assert (writer.done, writer.shards) == (1, 4)
        writer.stop()
    assert not StoredCodes(tmp_path / "codes").complete


COUNTED = """
import torch
from elute.base.codes import Codes
def counted(store, shard):
    numbers = torch.arange(store.manifest.shards[shard].rows * 2).reshape(-1, 2)
    return Codes((numbers % 13).int(), numbers + 1.0, 13)
"""
KILLED = (
    COUNTED
    + """
import os, sys
from pathlib import Path
from elute.store.codes_writer import CodesWriter
from elute.store.reader import Store

left = [0]
def dying(real):
    def act(*arguments):
        if left[0] == 0:
            os.kill(os.getpid(), 9)
        left[0] -= 1
        return real(*arguments)
    return act

folder, store = Path(sys.argv[1]), Store(sys.argv[2])
os.fsync, Path.replace = dying(os.fsync), dying(Path.replace)
for moment in range(100):
    if (child := os.fork()) == 0:
        left[0] = moment
        try:
            writer = CodesWriter(folder / str(moment), store=store, dictionary="d1c7", n_features=13, sites=["a", "b"])
            for shard in range(3):
                writer.append_shard(counted(store, shard))
            writer.close()
            os._exit(0)
        finally:
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if code == 0:
        break
    assert code == -9, code
"""
)


def test_a_kill_at_any_moment_leaves_whole_shards(tmp_path: Path, make_store: MakeStore) -> None:
    """The child dies before each flush and each rename in turn, until one lives to the end."""
    store = Store(make_store(rows=25, rows_per_shard=10))
    done = subprocess.run(
        [sys.executable, "-c", KILLED, str(tmp_path / "killed"), str(store.folder)],
        timeout=120, capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    space: dict[str, Any] = {}
    exec(COUNTED, space)  # noqa: S102
    folders = sorted((tmp_path / "killed").iterdir(), key=lambda p: int(p.name))
    # Three shards and four manifests: each is flushed and renamed, and after each manifest the folder is flushed.
    assert len(folders) == 3 * 2 + 4 * 3 + 1
    whole = content(folders.pop())
    seen = []
    for folder in folders:
        if "manifest.json" in content(folder):
            codes = StoredCodes(folder)
            assert verify(folder) == []
            for shard in range(len(codes.manifest.shards)):
                assert same(codes.shard(shard), space["counted"](store, shard))
        with writer_of(folder, store) as writer:
            seen.append(writer.done)
            for shard in range(writer.done, 3):
                writer.append_shard(space["counted"](store, shard))
        assert content(folder) == whole
    assert seen == [0] * 4 + [1] * 5 + [2] * 5 + [3] * 4


def test_a_full_disk_keeps_the_whole_shards(tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = writer_of(tmp_path / "codes", store)
    writer.append_shard(shard_codes(store, 0))
    with monkeypatch.context() as patch:

        def full(_: int) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        patch.setattr(os, "fsync", full)
        with pytest.raises(SpaceError, match="the disk is full"):
            writer.append_shard(shard_codes(store, 1))
    assert writer.done == len(StoredCodes(tmp_path / "codes").manifest.shards) == 1
    for shard in (1, 2, 3):
        writer.append_shard(shard_codes(store, shard))
    writer.close()
    write(tmp_path / "one", store)
    assert content(tmp_path / "one") == content(tmp_path / "codes")


def test_complete_codes_are_left_as_they_are(tmp_path: Path, store: Store) -> None:
    write(tmp_path / "codes", store)
    before, place = content(tmp_path / "codes"), (tmp_path / "codes" / "manifest.json").stat().st_ino
    with writer_of(tmp_path / "codes", store) as writer:
        assert writer.done == writer.shards == 4
        with pytest.raises(DataError, match="all 4 shards of the store are written"):
            writer.append_shard(shard_codes(store, 3))
    assert content(tmp_path / "codes") == before
    assert (tmp_path / "codes" / "manifest.json").stat().st_ino == place, "nothing is written again"


def test_what_a_killed_writer_left_is_swept_up(tmp_path: Path, store: Store) -> None:
    write(tmp_path / "codes", store, stop_after=1)
    (tmp_path / "codes" / ".00001.safetensors.tmp").write_text("half")
    writer_of(tmp_path / "codes", store).stop()
    assert set(content(tmp_path / "codes")) == {"manifest.json", "00000.safetensors"}


def test_only_one_process_writes(tmp_path: Path, store: Store) -> None:
    with writer_of(tmp_path / "codes", store) as writer:
        with pytest.raises(BusyError, match=rf"process {os.getpid()} \(writing codes\) is writing here"):
            writer_of(tmp_path / "codes", store, anew=True)
        writer.stop()
    write(tmp_path / "codes", store)


def test_ending_early_is_said(tmp_path: Path, store: Store) -> None:
    writer = writer_of(tmp_path / "codes", store)
    writer.append_shard(shard_codes(store, 0))
    with pytest.raises(DataError, match=r"only 1 of 4 shards were written. Append the others, or end with stop\(\)"):
        writer.close()
    for use in (writer.close, lambda: writer.append_shard(shard_codes(store, 1))):
        with pytest.raises(DataError, match=r"this writer was closed. Open another one"):
            use()
    assert not StoredCodes(tmp_path / "codes").complete


# Something else is refused.


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"dictionary": "e2"}, "dictionary d1c7, not e2"),
        ({"dictionary": "d1c7" + "0" * 99}, "dictionary d1c7, not d1c70000"),
        ({"sites": ["b", "a"]}, "sites a, b, not b, a"),
        ({"n_features": 14}, "features 13, not 14"),
        ({"dtype": "fp16"}, "number type fp32, not fp16"),
        ({"selection": "split train"}, "rows all, not split train"),
        ({"n_features": 14, "dtype": "fp16"}, "features 13, not 14; number type fp32, not fp16"),
    ],
)
@pytest.mark.parametrize("stop", [1, None])
def test_codes_of_something_else_are_not_continued(
    tmp_path: Path, store: Store, other: dict[str, Any], words: str, stop: int | None
) -> None:
    write(tmp_path / "codes", store, stop_after=stop)
    before = content(tmp_path / "codes")
    with pytest.raises(GuardError) as caught:
        writer_of(tmp_path / "codes", store, **other)
    assert str(caught.value).startswith(f"{tmp_path / 'codes'}: the codes here are of something else: {words}")
    assert str(caught.value).endswith(". Choose another folder, or write the codes anew.")
    assert content(tmp_path / "codes") == before
    writer_of(tmp_path / "codes", store, anew=True, **other).stop()
    assert content(tmp_path / "codes") == {}


def test_codes_of_another_store(tmp_path: Path, store: Store, make_store: MakeStore) -> None:
    write(tmp_path / "codes", store)
    codes = StoredCodes(tmp_path / "codes")
    assert codes.expect(store=store, dictionary="d1c7") is codes
    other = Store(make_store("other", rows=1000, rows_per_shard=250))
    grown = Store(make_store("grown", rows=1100, rows_per_shard=300))
    with StoreWriter(tmp_path / "again", sites={"a": 6, "b": 3}, rows_per_shard=300) as writer:
        writer.append(
            {"a": torch.ones(1000, 6), "b": torch.ones(1000, 3)}, {"sample_id": [f"s{i}" for i in range(1000)]}
        )
    again = Store(tmp_path / "again")
    assert again.manifest.store == grown.manifest.store == store.manifest.store, "by its identity alone it is the same"
    for found, words in (
        (other, f"they are of store {store.manifest.store}, not {other.manifest.store}"),
        (grown, "their store had 1,000 rows in 4 shards and has 1,100 rows in 4 shards"),
        (again, "the rows of their store were written anew"),
    ):
        with pytest.raises(GuardError, match=f"not what was expected: {words}"):
            codes.expect(store=found)
        with pytest.raises(GuardError, match=f"of something else: {words}"):
            writer_of(tmp_path / "codes", found)
    with pytest.raises(GuardError) as caught:
        codes.expect(dictionary="e" * 64, store=again)
    assert str(caught.value) == (
        f"{tmp_path / 'codes'}: the codes here are not what was expected: they are of dictionary d1c7, not "
        f"{'e' * 12}; the rows of their store were written anew. Encode the rows anew, or use what they were made with."
    )


def test_a_store_is_never_mistaken_for_codes(tmp_path: Path, store: Store) -> None:
    before = content(store.folder)
    with pytest.raises(DamagedError, match=r"manifest.json: is not a manifest of codes. Give a folder of codes."):
        StoredCodes(store.folder)
    with pytest.raises(DamagedError, match="is not a manifest of codes"):
        writer_of(store.folder, store)
    with pytest.raises(DataError, match=r"holds other files \(manifest.json\) and no codes"):
        writer_of(store.folder, store, anew=True)
    (store.folder / "manifest.json").write_text("{")
    with pytest.raises(DataError, match=r"holds other files \(00000.parquet, 00001.parquet, 00002.parquet\)"):
        writer_of(store.folder, store, anew=True)
    assert content(store.folder) | {"manifest.json": b""} == before | {"manifest.json": b""}


def test_anew_removes_what_is_ours_alone(tmp_path: Path, store: Store) -> None:
    write(tmp_path / "codes", store)
    one = content(tmp_path / "codes")
    for name in ("features.parquet", "0001.safetensors", "model-00001.safetensors", "kept.tmp"):
        (tmp_path / "codes" / name).write_text("mine")
    for name in (".00009.safetensors.tmp", "00009.safetensors", "run.json"):
        (tmp_path / "codes" / name).write_text("left over")
    writer_of(tmp_path / "codes", store, anew=True).stop()
    kept = {"features.parquet", "0001.safetensors", "model-00001.safetensors", "kept.tmp"}
    assert set(content(tmp_path / "codes")) == kept
    with pytest.raises(
        DataError, match=r"holds other files \(0001.safetensors, features.parquet, kept.tmp\) and no codes"
    ):
        write(tmp_path / "codes", store)
    for name in kept:
        (tmp_path / "codes" / name).unlink()
    (tmp_path / "codes" / "manifest.json").write_text("{")
    write(tmp_path / "codes", store, anew=True)
    assert content(tmp_path / "codes") == one


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"sites": []}, "codes are read from one or several sites"),
        ({"sites": ["a", "a"]}, r"each once, not from \['a', 'a'\]"),
        ({"sites": ["c"]}, "there is no site 'c'"),
        ({"n_features": 0}, "n_features=0. Choose 1 to 2,147,483,647"),
        ({"n_features": 2**31}, "n_features=2147483648"),
        ({"dtype": "bf16"}, "written as fp32 or fp16, not 'bf16'"),
        ({"dictionary": ""}, "codes name the dictionary that made them"),
        ({"selection": ""}, "a selection is named in words"),
    ],
)
def test_settings_that_cannot_be(tmp_path: Path, store: Store, other: dict[str, Any], words: str) -> None:
    with pytest.raises(EluteError, match=words):
        writer_of(tmp_path / "codes", store, **other)
    assert not (tmp_path / "codes").exists()


def edited(codes: Codes, **cells: Any) -> Codes:
    """Put numbers into row 17: `indices` and `values` of its first slots."""
    indices, values = codes.indices.clone(), codes.values.clone()
    for tensor, numbers in ((indices, cells.get("indices", [])), (values, cells.get("values", []))):
        tensor[17, : len(numbers)] = torch.tensor(numbers, dtype=tensor.dtype)
    return Codes(indices, values, F)


BAD_NUMBERS = [
    ({"indices": [F]}, "row 17 names a feature outside of 13"),
    ({"indices": [-1], "values": [0.0]}, "row 17 names a feature outside of 13"),
    ({"indices": [-(2**31)]}, "row 17 names a feature outside of 13"),
    ({"values": [float("nan")]}, "row 17 holds NaN or infinity"),
    ({"values": [1.0, float("-inf")]}, "row 17 holds NaN or infinity"),
    ({"indices": [4, 5, 4], "values": [1.0, 1.0, -1.0]}, "row 17 names a feature twice"),
]


@pytest.mark.parametrize(("cells", "words"), BAD_NUMBERS)
@pytest.mark.parametrize("rows_at_once", [1, 5, 10**6])
def test_numbers_that_no_encoder_writes_are_not_written(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch, cells: dict[str, Any], words: str, rows_at_once: int
) -> None:
    monkeypatch.setattr(codes_layout, "_SLOTS", 3 * rows_at_once)
    writer = writer_of(tmp_path / "codes", store)
    bad = edited(shard_codes(store, 0), **cells)
    with pytest.raises(DataError):
        bad.check()
    with pytest.raises(DataError, match=f"codes of shard 0: {words}"):
        writer.append_shard(bad)
    assert content(tmp_path / "codes") == {}
    allowed = edited(shard_codes(store, 0), indices=[4, 4, 4], values=[0.0, 1.0, -0.0]).check()
    writer.append_shard(allowed)
    writer.stop()
    assert same(StoredCodes(tmp_path / "codes").shard(0), allowed)


def test_a_value_that_does_not_fit(tmp_path: Path, store: Store) -> None:
    writer = writer_of(tmp_path / "codes", store, dtype="fp16")
    with pytest.raises(DataError, match="the value 65520 does not fit fp16. Write the codes as fp32."):
        writer.append_shard(edited(shard_codes(store, 0), values=[-65520.0]))
    writer.append_shard(edited(shard_codes(store, 0), indices=[1, 2], values=[-65519.0, 1e-9]))
    writer.stop()
    row = StoredCodes(tmp_path / "codes").read(17, 18)
    assert row.values[0, :2].tolist() == [-65504.0, 0.0]
    with (
        writer_of(tmp_path / "32", store) as writer,
        pytest.raises(DataError, match=r"the value 1e\+300 does not fit fp32. Scale the dictionary down."),
    ):
        codes = shard_codes(store, 0).to(dtype=torch.float64)
        codes.values[0, 0] = 1e300
        try:
            writer.append_shard(codes)
        finally:
            writer.stop()


@pytest.mark.parametrize(
    ("n", "rows", "words"),
    [
        (299, None, "299 codes came for the 300 rows of shard 0"),
        (300, list(range(300)), "rows came with codes of every row. Pass rows if, and only if"),
    ],
)
def test_rows_of_all_codes_that_do_not_fit(tmp_path: Path, store: Store, n: int, rows: Any, words: str) -> None:
    writer = writer_of(tmp_path / "codes", store)
    with pytest.raises(DataError, match=words):
        writer.append_shard(codes_of(n, 2, 0), rows)
    with pytest.raises(DataError, match="codes of 20 features came, where 13 were declared"):
        writer.append_shard(Codes.from_dense(torch.rand(300, 20), 2))
    writer.stop()
    assert content(tmp_path / "codes") == {}


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        (None, "codes of chosen rows come with the rows' numbers"),
        ([1, 2], r"3 codes came with rows torch.int64\[2\]"),
        ([[1], [2], [3]], r"torch.int64\[3, 1\]"),
        ([1.0, 2.0, 3.0], "torch.float32"),
        ([True, False, True], "torch.bool"),
        ("abc", "rows are whole numbers, not str"),
        ([1, 3, 2], "row 2 is repeated or out of order"),
        ([1, 2, 2], "row 2 is repeated or out of order"),
        ([1, 2, 300], "there is no row 300 in the 300 rows of the store's shard"),
        ([-1, 2, 3], "there is no row -1 in"),
    ],
)
def test_chosen_rows_that_do_not_fit(tmp_path: Path, store: Store, rows: Any, words: str) -> None:
    writer = writer_of(tmp_path / "codes", store, selection="some")
    with pytest.raises(DataError, match=words):
        writer.append_shard(codes_of(3, 2, 0), rows)
    writer.stop()
    assert content(tmp_path / "codes") == {}


# Damaged, foreign and hostile folders.


def rewritten(folder: Path, **changes: Any) -> None:
    """Put numbers into a manifest, with an identity that fits them, as a forger would."""
    value = json.loads((folder / "manifest.json").read_text()) | changes
    if "codes" not in changes:
        with suppress(ValueError):
            value["codes"] = CodesManifest.model_validate(value).identity()
    files.write_json(folder / "manifest.json", value)


def reforged(folder: Path, shard: int = 0, *, codes: Codes | None = None, header: Any = None, tag: Any = None) -> None:
    """Replace a shard by one of which the manifest knows size and digest."""
    path = folder / f"{shard:05d}.safetensors"
    found = load_file(path)
    if codes is not None:
        found |= {"indices": codes.indices, "values": codes.values}
    arrays = {name: found[name].numpy() for name in ("rows", "indices", "values") if name in found}
    if header:
        arrays = header(arrays)
    kinds = {
        name: {"int32": "I32", "int64": "I64", "float16": "F16"}.get(str(x.dtype), "F32") for name, x in arrays.items()
    }
    told = {"codes": StoredCodes(folder).manifest.codes, "shard": f"{shard:05d}"} | (tag or {})
    size, digest = write_safetensors(path, arrays, dtype=kinds, metadata=told)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["shards"][shard] |= {"bytes": size, "sha256": digest}
    files.write_json(folder / "manifest.json", manifest)


def line_of(folder: Path, kind: type[EluteError] = DamagedError) -> str:
    with pytest.raises(EluteError) as caught:
        StoredCodes(folder).read()
    assert type(caught.value) is kind
    text = str(caught.value)
    assert text.startswith(str(folder))
    assert "\n" not in text
    assert text.count(". ") == 1, "one sentence and its remedy"
    return text.removeprefix(str(folder)).lstrip("/").removeprefix(": ")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "manifest.json: is not a manifest of codes: Expecting"),
        ("[" * 100_000, "manifest.json: is not a manifest of codes: maximum recursion"),
        ("\xff", "manifest.json: is not a manifest of codes: "),
        ("[]", "manifest.json: is not a manifest of codes. Give a folder of codes."),
        ('{"schema_version": 1}', "manifest.json: is not a manifest of codes. Give a folder of codes."),
        ('{"schema_version": 1, "codes": ""}', "manifest.json: the manifest is damaged at dictionary: Field required"),
    ],
)
def test_a_manifest_that_is_none(folder: Path, text: str, words: str) -> None:
    (folder / "manifest.json").write_bytes(text.encode("latin-1"))
    assert line_of(folder).startswith(words)


def test_a_manifest_of_a_newer_elute(folder: Path) -> None:
    rewritten(folder, schema_version=2, codes="x", surprise=1)
    words = "manifest.json: was written by a newer elute (schema 2, this one reads up to 1). Update elute."
    assert line_of(folder, VersionError) == words


def test_no_codes(tmp_path: Path) -> None:
    remedy = "Give a folder of codes, or encode the rows of a store first."
    assert line_of(tmp_path / "none", DataError) == f"there are no codes here. {remedy}"
    assert line_of(tmp_path, DataError) == f"there are no codes here (no manifest.json). {remedy}"
    with pytest.raises(DataError, match="there are no codes here"):
        verify(tmp_path)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"schema_version": "1"}, "damaged at schema_version"),
        ({"schema_version": 0}, "damaged at schema_version"),
        ({"n_features": "13"}, "damaged at n_features"),
        ({"n_features": True}, "damaged at n_features"),
        ({"n_features": 2**31}, "damaged at n_features"),
        ({"dtype": "bf16"}, "damaged at dtype"),
        ({"surprise": 1}, "damaged at surprise"),
        ({"complete": 1}, "damaged at complete"),
        ({"k": -1}, "damaged at k"),
        ({"shards": [{"rows": 2**63, "slots": 3, "bytes": 1, "sha256": ""}]}, "damaged at shards.0.rows"),
        ({"reads": "a"}, "damaged at reads"),
        ({"k": 6}, "contradicts itself: k=6 is not what its shards hold"),
        ({"n_features": 4}, "contradicts itself: k=5 is not what its shards hold"),
        ({"shards": [], "k": 0}, "contradicts itself: complete with 0 of 4 shards"),
        ({"store": {"store": "s", "rows": [300], "tensors": "t", "metadata": None}}, "4 shards of a store of 1"),
        ({"store": {"store": "s", "rows": [300] * 4, "tensors": "t", "metadata": None}}, "shard 3 has 100 rows where the store's has 300"),
        ({"store": {"store": "s", "rows": [300, 200, 300, 100], "tensors": "t", "metadata": None}}, "shard 1 has 300 rows where"),
        ({"dictionary": "mine", "codes": "0123456789abcdef"}, "its identity is of something else (edited?)"),
    ],
)  # fmt: skip
def test_a_manifest_that_cannot_be(folder: Path, changes: dict[str, Any], words: str) -> None:
    rewritten(folder, **changes)
    line = line_of(folder)
    assert words in line
    assert line.startswith("manifest.json: the manifest ")
    assert line.endswith(". Restore it from a copy, or encode the rows anew.")


def test_an_edited_dictionary_is_noticed(folder: Path) -> None:
    manifest = json.loads((folder / "manifest.json").read_text())
    files.write_json(folder / "manifest.json", manifest | {"dictionary": "mine"})
    assert "its identity is of something else (edited?)" in line_of(folder)
    rewritten(folder, dictionary="mine")
    assert line_of(folder).startswith("00000.safetensors: is a shard of other codes")


def test_all_shards_that_are_missing_or_cut_short_are_listed(folder: Path, store: Store) -> None:
    size = (folder / "00002.safetensors").stat().st_size
    (folder / "00001.safetensors").unlink()
    os.truncate(folder / "00002.safetensors", 100)
    words = f"00001.safetensors is missing; 00002.safetensors has 100 bytes instead of {size:,}"
    assert line_of(folder) == f"{words}. Restore it from a copy, or encode the rows anew."
    with pytest.raises(DamagedError, match=words):
        writer_of(folder, store)
    assert verify(folder) == [
        {"shard": 1, "file": "00001.safetensors", "fault": "is missing"},
        {"shard": 2, "file": "00002.safetensors", "fault": f"has 100 bytes instead of {size:,}"},
    ]
    with (folder / "00003.safetensors").open("ab") as handle:
        handle.write(b"x")
    assert len(verify(folder)) == 3


def test_shards_that_were_swapped_or_are_of_other_codes(folder: Path, make_store: MakeStore) -> None:
    store = Store(make_store("even", rows=600, rows_per_shard=300))
    even = folder.parent / "swapped"
    with writer_of(even, store) as writer:
        for seed in (1, 2):
            writer.append_shard(codes_of(300, 3, seed))
    (even / "00000.safetensors").rename(even / "x")
    (even / "00001.safetensors").rename(even / "00000.safetensors")
    (even / "x").rename(even / "00001.safetensors")
    assert line_of(even).startswith("00000.safetensors: is shard 00001 under a wrong name (swapped?)")
    assert [bad["fault"] for bad in verify(even)] == ["holds shard 00001 (swapped)", "holds shard 00000 (swapped)"]
    (folder / "00000.safetensors").write_bytes((even / "00001.safetensors").read_bytes())
    assert line_of(folder).startswith("00000.safetensors: is a shard of other codes")
    assert verify(folder) == [
        {"shard": 0, "file": "00000.safetensors", "fault": "was altered: its digest does not match"}
    ]


@pytest.mark.parametrize(
    ("header", "words"),
    [
        (lambda a: a | {"values": a["values"].astype("f2")}, "tensor 'values' is not F32 [300, 3] at its place"),
        (lambda a: a | {"indices": a["indices"].astype("i8")}, "tensor 'indices' is not I32 [300, 3] at its place"),
        (lambda a: a | {"indices": a["indices"].view("f4")}, "tensor 'indices' is not I32"),
        (lambda a: {n: x[:299] for n, x in a.items()}, "tensor 'indices' is not I32"),
        (lambda a: {n: x[:, :2] for n, x in a.items()}, "tensor 'indices' is not I32"),
        (lambda a: {n: x.reshape(3, 300) for n, x in a.items()}, "tensor 'indices' is not I32"),
        (lambda a: {n: a[n] for n in ("values", "indices")}, "tensor 'indices' is not I32"),
        (lambda a: {"indices": a["indices"]}, "tensor 'values' is not F32"),
        (lambda a: a | {"rows": np.arange(300)}, "tensor 'rows' is not what the manifest names"),
    ],
)
def test_a_shard_of_other_tensors(folder: Path, header: Callable[[Any], Any], words: str) -> None:
    reforged(folder, header=header)
    assert verify(folder) == [], "the forger knows how to digest"
    line = line_of(folder)
    assert line.startswith("00000.safetensors: its ")
    assert words in line


def test_a_shard_that_is_no_safetensors_file(folder: Path) -> None:
    path = folder / "00000.safetensors"
    path.write_bytes(os.urandom(8) + b"\xff" * (path.stat().st_size - 8))
    assert line_of(folder).startswith("00000.safetensors: is not a whole safetensors file")


def test_numbers_that_are_not_aligned(folder: Path) -> None:
    path = folder / "00000.safetensors"
    raw = path.read_bytes()
    length = int.from_bytes(raw[:8], "little")
    path.write_bytes((length + 1).to_bytes(8, "little") + raw[8 : 8 + length] + b" " + raw[8 + length :])
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["shards"][0]["bytes"] += 1
    files.write_json(folder / "manifest.json", manifest)
    assert line_of(folder).startswith("00000.safetensors: its numbers do not begin at a multiple of 8 bytes")


@pytest.mark.parametrize(("cells", "words"), BAD_NUMBERS)
def test_numbers_that_no_encoder_writes_are_not_read(
    folder: Path, store: Store, cells: dict[str, Any], words: str
) -> None:
    reforged(folder, codes=edited(shard_codes(store, 0), **cells))
    assert line_of(folder) == f"00000.safetensors: {words}. Restore it from a copy, or encode the rows anew."
    codes = StoredCodes(folder)
    for use in (codes.counts, lambda: codes.read(5, 6), lambda: list(codes.batches()), lambda: list(codes.rows_of(1))):
        with pytest.raises(DamagedError, match=words):
            use()
    assert same(codes.read(300, 600), shard_codes(store, 1)), "the other shards stay readable"
    reforged(folder, codes=shard_codes(store, 0))
    reforged(folder, 3, codes=edited(shard_codes(store, 3), **cells))
    codes = StoredCodes(folder)
    assert same(codes.read(0, 900), Codes.concatenate([shard_codes(store, shard) for shard in range(3)]))
    with pytest.raises(DamagedError, match=words):
        codes.read(999)


@pytest.mark.parametrize(
    ("rows", "words"),
    [
        ([4, 3, 5], "row 3 is repeated or out of order"),
        ([3, 3, 5], "row 3 is repeated or out of order"),
        ([-1, 3, 5], "there is no row -1 in the 300 rows"),
        ([3, 5, 2**62], "there is no row 4611686018427387904 in the 300 rows"),
    ],
)
def test_chosen_rows_that_cannot_be(tmp_path: Path, store: Store, rows: list[int], words: str) -> None:
    writer = writer_of(tmp_path / "codes", store, selection="some")
    writer.append_shard(codes_of(3, 2, 0), [1, 2, 3])
    writer.stop()
    reforged(tmp_path / "codes", header=lambda a: a | {"rows": np.array(rows)})
    assert line_of(tmp_path / "codes").startswith(f"00000.safetensors: {words}")


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(at=st.integers(0, 10**6), byte=st.integers(0, 255), name=st.sampled_from(["manifest.json", "00003.safetensors"]))
def test_any_altered_byte_is_refused_in_one_line_or_found(folder: Path, at: int, byte: int, name: str) -> None:
    """What opens and reads in spite of it has other values or another order of JSON's blanks at most."""
    path = folder / name
    raw = path.read_bytes()
    changed = bytearray(raw)
    changed[at % len(raw)] = byte
    path.write_bytes(changed)
    try:
        codes = StoredCodes(folder)
        codes.read().check()
        assert len(codes) == 1000
    except EluteError as error:
        if "\n" in str(error) or bytes(changed) == raw:
            raise AssertionError from error
    finally:
        try:
            found = verify(folder)
        except EluteError:
            found = [{}]
        assert bool(found) or name == "manifest.json" or bytes(changed) == raw
        path.write_bytes(raw)


def test_the_page_names_every_key() -> None:
    page = (ROOT / "docs" / "formats" / "codes.md").read_text()
    named = [
        key for row in re.findall(r"^\| ((?:`\w+`(?:, )?)+) \|", page, re.MULTILINE) for key in re.findall(r"\w+", row)
    ]
    records = [*CodesManifest.model_fields, *codes_layout.StoreRecord.model_fields, "rows", "indices", "values"]
    assert named == records
    assert "`{" + ", ".join(codes_layout.CodesShard.model_fields) + "}`" in page
