"""Writing: what goes in comes out, in whole shards, whatever happens in between."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load_file

from elute.base.errors import BusyError, DataError, GuardError, SpaceError
from elute.store.reader import Store
from elute.store.verify import verify
from elute.store.writer import StoreWriter


def ids(start: int, n: int) -> dict[str, list[str]]:
    return {"sample_id": [f"s{i}" for i in range(start, start + n)]}


def content(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in sorted(folder.iterdir()) if not p.name.startswith(".")}


@pytest.mark.parametrize(
    ("dtype", "torch_dtype"), [("fp32", torch.float32), ("fp16", torch.float16), ("bf16", torch.bfloat16)]
)
def test_what_goes_in_comes_out(tmp_path: Path, dtype: str, torch_dtype: torch.dtype) -> None:
    x = torch.randn(50, 4, generator=torch.Generator().manual_seed(0))
    with StoreWriter(tmp_path / "s", sites={"a": 4}, dtype=dtype, rows_per_shard=20) as writer:
        writer.append({"a": x}, ids(0, 50))
    got = Store(tmp_path / "s").read()["a"]
    assert got.dtype == torch_dtype
    assert torch.equal(got, x.to(torch_dtype))


def test_the_safetensors_library_reads_our_shards(tmp_path: Path) -> None:
    x = torch.randn(7, 3, generator=torch.Generator().manual_seed(0))
    with StoreWriter(tmp_path / "s", sites={"b": 3, "a": 3}, dtype="bf16") as writer:
        writer.append({"a": x, "b": -x}, ids(0, 7))
    got = load_file(tmp_path / "s" / "00000.safetensors")
    assert torch.equal(got["a"], x.bfloat16())
    assert torch.equal(got["b"], -x.bfloat16())


@settings(max_examples=15, deadline=None)
@given(cuts=st.lists(st.integers(1, 25), min_size=1, max_size=8), shard=st.integers(7, 37))
def test_bytes_do_not_depend_on_how_rows_arrive(
    tmp_path_factory: pytest.TempPathFactory, cuts: list[int], shard: int
) -> None:
    folder, n = tmp_path_factory.mktemp("w"), sum(cuts)
    x = torch.arange(n * 2, dtype=torch.float32).reshape(n, 2)
    with StoreWriter(folder / "one", sites={"a": 2}, rows_per_shard=shard) as writer:
        writer.append({"a": x}, ids(0, n))
    with StoreWriter(folder / "many", sites={"a": 2}, rows_per_shard=shard) as writer:
        start = 0
        for cut in cuts:
            writer.append({"a": x[start : start + cut]}, ids(start, cut))
            start += cut
    assert content(folder / "one") == content(folder / "many")


@settings(max_examples=10, deadline=None)
@given(stops=st.lists(st.integers(0, 99), min_size=1, max_size=4), shard=st.integers(7, 40))
def test_stopped_writers_leave_the_bytes_of_one(
    tmp_path_factory: pytest.TempPathFactory, stops: list[int], shard: int
) -> None:
    folder = tmp_path_factory.mktemp("w")
    x = torch.arange(200, dtype=torch.float32).reshape(100, 2)
    with StoreWriter(folder / "one", sites={"a": 2}, rows_per_shard=shard) as writer:
        writer.append({"a": x}, ids(0, 100))
    for stop in [*sorted(stops), None]:
        writer = StoreWriter(folder / "many", sites={"a": 2}, rows_per_shard=shard)
        start, end = writer.offered, 100 if stop is None else max(writer.offered, stop)
        for row in range(start, end):
            writer.append({"a": x[row : row + 1]}, ids(row, 1))
        if stop is None:
            writer.close()
        else:
            writer.stop()
            assert len(Store(folder / "many")) == end if end else True
    assert content(folder / "one") == content(folder / "many")


def test_an_error_keeps_what_was_written_and_goes_on(tmp_path: Path) -> None:
    x = torch.zeros(10, 2)
    with pytest.raises(ZeroDivisionError), StoreWriter(tmp_path / "s", sites={"a": 2}, rows_per_shard=100) as writer:
        writer.append({"a": x}, ids(0, 10))
        _ = 1 / 0
    store = Store(tmp_path / "s")
    assert (len(store), store.complete) == (10, False)
    with StoreWriter(tmp_path / "s", sites={"a": 2}, rows_per_shard=100) as writer:
        assert writer.offered == 10
        writer.append({"a": x}, ids(10, 10))
    store = Store(tmp_path / "s")
    assert (len(store), store.complete) == (20, True)


def test_a_killed_overwrite_of_an_unfinished_shard_loses_no_whole_shard(tmp_path: Path) -> None:
    x = torch.zeros(15, 2)
    writer = StoreWriter(tmp_path / "s", sites={"a": 2}, rows_per_shard=10)
    writer.append({"a": x}, ids(0, 15))
    writer.stop()
    code = f"""
import os, torch
from elute.store import writer as w
from elute.store import layout
real = layout.write_manifest
def dies(folder, manifest):
    real(folder, manifest)
    if len(manifest.shards) == 1:
        os.kill(os.getpid(), 9)
layout.write_manifest = dies
writer = w.StoreWriter({str(tmp_path / "s")!r}, sites={{"a": 2}}, rows_per_shard=10)
assert writer.offered == 15
writer.append({{"a": torch.zeros(5, 2)}}, {{"sample_id": [f"s{{i}}" for i in range(15, 20)]}})
writer.close()
"""
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == -9
    assert verify(tmp_path / "s") == []
    with StoreWriter(tmp_path / "s", sites={"a": 2}, rows_per_shard=10) as writer:
        assert writer.offered == 10
        writer.append({"a": torch.zeros(10, 2)}, ids(10, 10))
    assert len(Store(tmp_path / "s")) == 20


def refused(tmp_path: Path, rows: dict[str, object], metadata: object, **settings: object) -> str:
    with pytest.raises(DataError) as caught, StoreWriter(tmp_path / "s", sites={"a": 2}, **settings) as writer:
        writer.append({"a": torch.zeros(3, 2)}, ids(100, 3))
        writer.append(rows, metadata)
    assert len(Store(tmp_path / "s")) == 3, "what was stored before stays readable"
    return str(caught.value)


def test_a_width_that_changes(tmp_path: Path) -> None:
    text = refused(tmp_path, {"a": torch.zeros(2, 5)}, ids(0, 2))
    assert "site 'a' has width 2, but these rows have 5" in text


def test_a_missing_and_a_strange_site(tmp_path: Path) -> None:
    assert "site 'a' is missing" in refused(tmp_path, {"aa": torch.zeros(2, 2)}, ids(0, 2))
    text = refused(tmp_path / "x", {"a": torch.zeros(2, 2), "b": torch.zeros(2, 2)}, ids(0, 2))
    assert "site 'b' is not in this store" in text


def test_a_one_dimensional_array(tmp_path: Path) -> None:
    text = refused(tmp_path, {"a": np.zeros(2)}, ids(0, 2))
    assert "shape (2,)" in text
    assert "reshape(-1, 1)" in text


def test_metadata_of_another_length_or_without_sample(tmp_path: Path) -> None:
    assert "2 rows came with 3 rows of metadata" in refused(tmp_path, {"a": torch.zeros(2, 2)}, ids(0, 3))
    assert "no sample_id" in refused(tmp_path / "x", {"a": torch.zeros(1, 2)}, {"cell": ["c"]})
    text = refused(tmp_path / "y", {"a": torch.zeros(1, 2)}, {"sample_id": ["c"], "extra": [1]})
    assert "differ from earlier ones in the columns extra" in text


def test_a_repeated_row_within_and_across_batches(tmp_path: Path) -> None:
    text = refused(tmp_path, {"a": torch.zeros(2, 2)}, {"sample_id": ["new", "s101"]})
    assert "a row comes twice: sample_id='s101'" in text
    text = refused(tmp_path / "x", {"a": torch.zeros(3, 2)}, {"sample_id": ["p", "q", "p"]})
    assert "a row comes twice: sample_id='p'" in text


def test_a_repeated_row_is_found_across_shards_and_writers(tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt), StoreWriter(tmp_path / "s", sites={"a": 2}, rows_per_shard=4) as writer:
        writer.append({"a": torch.zeros(10, 2)}, ids(0, 10))
        raise KeyboardInterrupt
    for row in (1, 9):
        with (
            pytest.raises(DataError, match=f"sample_id='s{row}'"),
            StoreWriter(tmp_path / "s", sites={"a": 2}, rows_per_shard=4) as writer,
        ):
            writer.append({"a": torch.zeros(1, 2)}, ids(row, 1))


def test_positions_tell_rows_of_one_sample_apart(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "s", sites={"a": 2}) as writer:
        writer.append({"a": torch.zeros(3, 2)}, {"sample_id": ["c"] * 3, "position": [0, 1, 2]})
    assert Store(tmp_path / "s").manifest.key == ("sample_id", "position")


def test_nan_rows_are_refused_dropped_or_kept(tmp_path: Path) -> None:
    x = torch.arange(12, dtype=torch.float32).reshape(6, 2)
    x[1, 0], x[4, 1] = torch.nan, -torch.inf
    with (
        pytest.raises(DataError, match="2 of 6 rows hold NaN or Inf, the first is row 1 at site 'a'"),
        StoreWriter(tmp_path / "refuse", sites={"a": 2}) as writer,
    ):
        writer.append({"a": x}, ids(0, 6))
    with StoreWriter(tmp_path / "drop", sites={"a": 2}, bad_rows="drop", rows_per_shard=3) as writer:
        writer.append({"a": x}, ids(0, 6))
    store = Store(tmp_path / "drop")
    assert store.metadata()["sample_id"].to_list() == ["s0", "s2", "s3", "s5"]
    assert store.manifest.bad_counted == 2
    assert torch.equal(store.read()["a"], x[[0, 2, 3, 5]])
    with StoreWriter(tmp_path / "keep", sites={"a": 2}, bad_rows="keep") as writer:
        writer.append({"a": x}, ids(0, 6))
    store = Store(tmp_path / "keep")
    assert (len(store), store.manifest.bad_counted) == (6, 2)


def test_dropping_resumes_at_the_offered_row(tmp_path: Path) -> None:
    x = torch.arange(40, dtype=torch.float32).reshape(20, 2)
    x[::3] = torch.nan
    with StoreWriter(tmp_path / "one", sites={"a": 2}, bad_rows="drop", rows_per_shard=4) as writer:
        writer.append({"a": x}, ids(0, 20))
    for stop in (5, 11, 20):
        writer = StoreWriter(tmp_path / "many", sites={"a": 2}, bad_rows="drop", rows_per_shard=4)
        writer.append({"a": x[writer.offered : stop]}, ids(writer.offered, stop - writer.offered))
        (writer.close if stop == 20 else writer.stop)()
    assert content(tmp_path / "one") == content(tmp_path / "many")


def test_what_fp16_cannot_hold_is_an_error_not_an_inf(tmp_path: Path) -> None:
    with (
        pytest.raises(DataError, match="1 rows of site 'a' do not fit fp16, the first with 1e\\+05"),
        StoreWriter(tmp_path / "s", sites={"a": 2}, dtype="fp16") as writer,
    ):
        writer.append({"a": torch.tensor([[1.0, 2.0], [1e5, 0.0]])}, ids(0, 2))


def test_a_group_in_two_splits(tmp_path: Path) -> None:
    with (
        pytest.raises(DataError, match="group 'd1' falls in two splits, '(train|test)' and '(train|test)'"),
        StoreWriter(tmp_path / "s", sites={"a": 2}) as writer,
    ):
        rows = {"sample_id": ["a", "b"], "group": ["d1", "d1"], "split": ["train", "test"]}
        writer.append({"a": torch.zeros(2, 2)}, rows)


def test_two_writers_on_one_store(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "s", sites={"a": 2}) as writer:
        writer.append({"a": torch.zeros(1, 2)}, ids(0, 1))
        with pytest.raises(BusyError, match=f"process {os.getpid()} \\(writing a store\\) is writing here"):
            StoreWriter(tmp_path / "s", sites={"a": 2})


def test_another_store_in_the_folder(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "s", sites={"a": 2}, source={"x.npy": "1"}) as writer:
        writer.append({"a": torch.zeros(1, 2)}, ids(0, 1))
    with pytest.raises(GuardError, match="the store here is complete"):
        StoreWriter(tmp_path / "s", sites={"a": 2}, source={"x.npy": "1"})
    with pytest.raises(GuardError, match="the input x.npy changed"):
        StoreWriter(tmp_path / "s", sites={"a": 2}, source={"x.npy": "2"})
    with pytest.raises(GuardError, match="sites"):
        StoreWriter(tmp_path / "s", sites={"b": 2}, source={"x.npy": "1"})
    with StoreWriter(tmp_path / "s", sites={"b": 2}, recapture=True) as writer:
        writer.append({"b": torch.ones(1, 2)}, ids(5, 1))
    assert Store(tmp_path / "s").metadata()["sample_id"].to_list() == ["s5"]


def test_a_folder_with_somebody_elses_files_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("precious")
    with pytest.raises(DataError, match="holds other files \\(thesis.txt\\) and no store"):
        StoreWriter(tmp_path, sites={"a": 2})
    with pytest.raises(DataError, match="holds other files"):
        StoreWriter(tmp_path, sites={"a": 2}, recapture=True)
    assert (tmp_path / "thesis.txt").read_text() == "precious"


def test_no_rows_at_all(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no rows were written"), StoreWriter(tmp_path / "s", sites={"a": 2}):
        pass


def test_a_full_disk_says_so_and_keeps_what_was_stored(tmp_path: Path) -> None:
    """A limit on file size stands in for a full disk: the kernel refuses the write in the same way."""
    code = f"""
import resource, signal, torch
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
from elute.store.writer import StoreWriter
writer = StoreWriter({str(tmp_path / "s")!r}, sites={{"a": 256}}, rows_per_shard=64)
def put(i):
    writer.append({{"a": torch.full((64, 256), float(i))}}, {{"sample_id": [f"s{{i}}-{{j}}" for j in range(64)]}})
put(0); put(1); writer._wait()
resource.setrlimit(resource.RLIMIT_FSIZE, (30_000, 30_000))
try:
    put(2); put(3); put(4)
except Exception as error:
    print(type(error).__name__, error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("SpaceError"), done.stdout + done.stderr
    assert "make room and run the same command again" in done.stdout
    assert len(Store(tmp_path / "s")) == 128
    assert verify(tmp_path / "s") == []
    assert not [p for p in (tmp_path / "s").iterdir() if p.name.endswith(".tmp")]


def test_errors_of_the_disk_are_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    writer = StoreWriter(tmp_path / "s", sites={"a": 2}, rows_per_shard=2)

    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    writer.append({"a": torch.zeros(2, 2)}, ids(0, 2))
    with pytest.raises(SpaceError, match="the disk is full"):
        writer.append({"a": torch.zeros(2, 2)}, ids(2, 2))
    with pytest.raises(SpaceError):
        writer.close()


def test_an_unwritable_target(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SpaceError, match="cannot be written"):
        StoreWriter(tmp_path / "file" / "s", sites={"a": 2})


def test_the_manifest_says_nothing_of_time_or_place(tmp_path: Path) -> None:
    with StoreWriter(tmp_path / "s", sites={"a": 2}) as writer:
        writer.append({"a": torch.zeros(1, 2)}, ids(0, 1))
    text = (tmp_path / "s" / "manifest.json").read_text()
    assert str(tmp_path) not in text
    assert set(json.loads(text)) == {
        "schema_version", "store", "sites", "dtype", "rows_per_shard", "key", "columns", "model", "source",
        "bad_rows", "bad_counted", "split", "complete", "shards",
    }  # fmt: skip


@pytest.mark.parametrize(
    "kind", ["uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64", "float16", "float64"]
)
def test_every_kind_of_number_is_taken(tmp_path: Path, kind: str) -> None:
    x = np.arange(12).reshape(6, 2).astype(kind)
    with StoreWriter(tmp_path / "s", sites={"a": 2}) as writer:
        writer.append({"a": x}, ids(0, 6))
    np.testing.assert_array_equal(Store(tmp_path / "s").read()["a"].numpy(), x.astype(np.float32))


@pytest.mark.parametrize("x", [np.ones((2, 2), bool), np.ones((2, 2), complex)])
def test_what_is_no_real_number_is_refused(tmp_path: Path, x: np.ndarray) -> None:
    assert "not numbers that a store keeps" in refused(tmp_path, {"a": x}, ids(0, 2))


def test_domain_columns_keep_their_types(tmp_path: Path) -> None:
    frame = pl.DataFrame({
        "sample_id": ["a", "b"], "token_rc": pl.Series([[0, 1], [2, 3]], dtype=pl.Array(pl.Int64, 2)),
        "depth": pl.Series([1, 2], dtype=pl.UInt16), "kind": pl.Series(["x", "y"], dtype=pl.Categorical),
    })  # fmt: skip
    with StoreWriter(tmp_path / "s", sites={"a": 1}) as writer:
        writer.append({"a": torch.zeros(2, 1)}, frame)
    got = Store(tmp_path / "s").metadata()
    assert got.schema == {
        "sample_id": pl.String, "token_rc": pl.Array(pl.Int32, 2), "depth": pl.UInt16, "kind": pl.String,
    }  # fmt: skip
    with (
        pytest.raises(DataError, match="cannot be of type Date"),
        StoreWriter(tmp_path / "t", sites={"a": 1}) as writer,
    ):
        writer.append(
            {"a": torch.zeros(1, 1)},
            pl.DataFrame({"sample_id": ["a"], "day": ["2020-01-01"]}).with_columns(pl.col("day").str.to_date()),
        )
