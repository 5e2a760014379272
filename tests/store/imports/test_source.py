"""Every format gives the rows that an independent reader finds, in pieces of any size, from any row on."""

from __future__ import annotations

import tracemalloc
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import polars as pl
import pytest
import torch
import zarr
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file

from elute.store.imports.source import ArraySource, open_source


def as_float(array: Any) -> np.ndarray:
    return array.float().numpy() if isinstance(array, torch.Tensor) else np.asarray(array, np.float32)


def read_all(source: ArraySource, rows: int = 7, start: int = 0) -> tuple[dict[str, np.ndarray], pl.DataFrame]:
    arrays: dict[str, list[np.ndarray]] = {name: [] for name in source.sites}
    frames = []
    for piece, frame in source.pieces(rows, start):
        assert {len(a) for a in piece.values()} == {len(frame)}
        assert len(frame) == rows or start + sum(map(len, frames)) + len(frame) == source.n_rows
        for name, array in piece.items():
            if isinstance(array, np.ndarray):
                assert array.flags.c_contiguous
                assert array.dtype.isnative
            arrays[name].append(as_float(array))
        frames.append(frame)
    return {name: np.concatenate(parts) for name, parts in arrays.items()}, pl.concat(frames)


def save_zarr(path: Path, x: np.ndarray, **how: Any) -> None:
    group = zarr.open_group(path, mode="w", zarr_format=how.pop("zarr_format", 3))
    group.create_array("x", data=x, chunks=(5, *x.shape[1:]), **how)


def save_zipped_zarr(path: Path, x: np.ndarray) -> None:
    with zarr.storage.ZipStore(path, mode="w") as store:
        zarr.open_group(store, mode="w").create_array("x", data=x)


def save_h5(path: Path, x: np.ndarray, **how: Any) -> None:
    with h5py.File(path, "w") as file:
        file.create_dataset("x", data=x, **how)


def save_parquet(path: Path, x: np.ndarray) -> None:
    pl.DataFrame(x, schema=[f"f{i}" for i in range(x.shape[1])]).write_parquet(path, row_group_size=6)


def save_lists(path: Path, x: np.ndarray) -> None:
    lists = pl.Series("x", x.tolist(), dtype=pl.List(pl.Float32))
    pl.DataFrame([lists, pl.Series("score", np.arange(len(x)) / 2)]).write_parquet(path, row_group_size=6)


WRITERS: dict[str, tuple[str, Callable[[Path, np.ndarray], object]]] = {
    "npy": ("x.npy", np.save),
    "npy by columns": ("x.npy", lambda p, x: np.save(p, np.asfortranarray(x))),
    "npy big-endian": ("x.npy", lambda p, x: np.save(p, x.astype(">f4"))),
    "npz": ("x.npz", lambda p, x: np.savez(p, x=x)),
    "npz packed": ("x.npz", lambda p, x: np.savez_compressed(p, x=x)),
    "npz by columns": ("x.npz", lambda p, x: np.savez_compressed(p, x=np.asfortranarray(x))),
    "pt tensor": ("x.pt", lambda p, x: torch.save(torch.from_numpy(x), p)),
    "pt nested": ("x.pth", lambda p, x: torch.save({"a": [{"x": torch.from_numpy(x)}], "step": 3}, p)),
    "safetensors": ("x.safetensors", lambda p, x: save_file({"x": torch.from_numpy(x)}, p)),
    "h5": ("x.h5", save_h5),
    "h5 packed": ("x.hdf5", lambda p, x: save_h5(p, x, chunks=(5, *x.shape[1:]), compression="gzip")),
    "zarr 2": ("x.zarr", lambda p, x: save_zarr(p, x, zarr_format=2)),
    "zarr 3": ("x.zarr", save_zarr),
    "zarr sharded": ("x.zarr", lambda p, x: save_zarr(p, x, shards=(10, *x.shape[1:]))),
    "zarr zip": ("x.zarr.zip", save_zipped_zarr),
    "parquet": ("x.parquet", save_parquet),
    "parquet lists": ("x.parquet", save_lists),
    "parquet array": ("x.parquet", lambda p, x: pl.DataFrame({"x": pl.Series(x)}).write_parquet(p)),
}
FLAT = ("parquet", "parquet lists")
ROWS = 23


def numbers(*shape: int) -> np.ndarray:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[tuple[str, int], Path]:
    found = {}
    for kind, (name, write) in WRITERS.items():
        for ndim in (2,) if kind in FLAT else (2, 3):
            path = tmp_path_factory.mktemp("file") / name
            write(path, numbers(ROWS, 4) if ndim == 2 else numbers(ROWS, 3, 4))
            found[kind, ndim] = path
    return found


@pytest.mark.parametrize("kind", WRITERS)
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.integers(1, 2 * ROWS), start=st.integers(0, ROWS - 1), first=st.integers(0, 10**9))
@example(rows=4, start=7, first=5)
def test_pieces_of_any_size_from_any_row_are_the_whole(
    written: dict[tuple[str, int], Path], kind: str, rows: int, start: int, first: int
) -> None:
    source = open_source(written[kind, 2], first=first)
    arrays, frame = read_all(source, rows, start)
    name = "activations" if kind in ("npy", "npy by columns", "npy big-endian", "pt tensor", "parquet") else "x"
    assert source.sites == {name: 4}
    assert (source.n_rows, source.row_bytes) == (ROWS, 16)
    assert np.array_equal(arrays[name], numbers(ROWS, 4)[start:])
    assert frame.to_dict(as_series=False) == {"sample_id": [str(first + i) for i in range(start, ROWS)]}


@pytest.mark.parametrize("kind", [kind for kind in WRITERS if kind not in FLAT])
@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.integers(1, 4 * ROWS), start=st.integers(0, 3 * ROWS - 1))
@example(rows=4, start=7)
@example(rows=50, start=2)
def test_tokens_become_rows(written: dict[tuple[str, int], Path], kind: str, rows: int, start: int) -> None:
    source = open_source(written[kind, 3], site="block")
    arrays, frame = read_all(source, rows, start)
    assert np.array_equal(arrays["block"], numbers(ROWS, 3, 4).reshape(-1, 4)[start:])
    assert frame.schema == {"sample_id": pl.String, "position": pl.Int32}
    assert frame["sample_id"].to_list() == [str(i // 3) for i in range(start, 3 * ROWS)]
    assert frame["position"].to_list() == [i % 3 for i in range(start, 3 * ROWS)]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "int8", "int64", "uint8", "uint16"])
def test_number_types_pass_through(tmp_path: Path, dtype: str) -> None:
    x = torch.arange(12).reshape(4, 3).to(getattr(torch, dtype))
    save_file({"x": x}, tmp_path / "x.safetensors")
    torch.save(x, tmp_path / "x.pt")
    for path in (tmp_path / "x.safetensors", tmp_path / "x.pt"):
        [(arrays, _)] = open_source(path, site="x").pieces(4)
        assert str(arrays["x"].dtype).removeprefix("torch.") == dtype
        assert torch.equal(torch.as_tensor(np.array(arrays["x"]) if dtype != "bfloat16" else arrays["x"]), x)


def test_keys_choose_arrays_and_name_sites(tmp_path: Path) -> None:
    x, path = numbers(5, 2), tmp_path / "x.pt"
    torch.save({"a": {"out": torch.tensor(x)}, "b": {"out": torch.tensor(-x), "in": torch.tensor(2 * x)}}, path)
    assert open_source(path, keys=["/b/in"]).sites == {"in": 2}
    assert open_source(path, keys=["a/out"], site="block.3").sites == {"block.3": 2}
    source = open_source(path, keys=["a/out", "b/out", "b/in"])
    assert (source.sites, source.row_bytes) == ({"a.out": 2, "b.out": 2, "in": 2}, 24)
    arrays, _ = read_all(source, 2)
    assert all(np.array_equal(arrays[name], y) for name, y in {"a.out": x, "b.out": -x, "in": 2 * x}.items())


def test_columns_of_every_kind_of_file(tmp_path: Path) -> None:
    x, ids, donor, age = numbers(4, 2), ["a", "b", "c", "ü"], ["p", "p", "q", "q"], np.arange(4.0)
    np.savez(tmp_path / "x.npz", x=x, id=ids, donor=np.array(donor, "S"), age=age, alive=age > 1)
    torch.save({"x": torch.tensor(x), "id": ids, "donor": donor, "age": torch.tensor(age)}, tmp_path / "x.pt")
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.update({"x": x, "id": np.array(ids, object), "donor": np.array(donor, "S"), "age": age})
    group = zarr.open_group(tmp_path / "x.zarr", mode="w")
    group.create_array("x", data=x)
    group.create_array("age", data=age)
    for name, text in {"id": ids, "donor": donor}.items():
        group.create_array(name, data=np.array(text, np.dtypes.StringDType()))
    pl.DataFrame({"f0": x[:, 0], "f1": x[:, 1], "age": age, "id": ids, "donor": donor}).write_parquet(
        tmp_path / "x.parquet"
    )
    for suffix in ("npz", "pt", "h5", "zarr", "parquet"):
        source = open_source(tmp_path / f"x.{suffix}", sample_id="id", group="donor", columns=["age"])
        assert {"id", "donor", "age"} <= set(source.columns)
        arrays, frame = read_all(source, 3)
        assert np.array_equal(*arrays.values(), x)
        assert frame.to_dict(as_series=False) == {"sample_id": ids, "group": donor, "age": list(age)}


def anonymous_megabytes() -> float:
    with Path("/proc/self/status").open() as lines:
        return next(int(line.split()[1]) / 1e3 for line in lines if line.startswith("RssAnon"))


@pytest.mark.parametrize("kind", ["npz packed", "safetensors", "h5", "zarr 3"])
def test_memory_is_that_of_a_piece(tmp_path: Path, kind: str) -> None:
    name, write = WRITERS[kind]
    path, rows = tmp_path / name, 80_000
    if kind == "zarr 3":
        zarr.open_group(path, mode="w").create_array("x", data=np.ones((rows, 256), np.float32), chunks=(4096, 256))
    else:
        write(path, np.ones((rows, 256), np.float32))
    source = open_source(path)
    total = 0.0
    for arrays, _ in source.pieces(1000):
        [first] = arrays.values()
        total += float(first[0, 0])
        break
    before, peak = anonymous_megabytes(), 0.0
    tracemalloc.start()
    for arrays, _ in source.pieces(1000):
        [array] = arrays.values()
        total += float(array.sum())
        peak = max(peak, anonymous_megabytes())
    traced = tracemalloc.get_traced_memory()[1] / 1e6
    tracemalloc.stop()
    assert total == 1 + rows * 256
    assert traced < (25 if kind == "zarr 3" else 12)  # zarr unpacks chunks side by side
    assert peak - before < 40


def test_a_member_is_read_without_unpacking_the_rest(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=numbers(50, 4), y=numbers(50_000, 4))
    with zipfile.ZipFile(tmp_path / "x.npz") as archive:
        place = archive.getinfo("y.npy").header_offset + 500_000
    with (tmp_path / "x.npz").open("r+b") as handle:
        handle.seek(place)
        handle.write(b"\0" * 100)
    arrays, _ = read_all(open_source(tmp_path / "x.npz", keys=["x"]))
    assert np.array_equal(arrays["x"], numbers(50, 4))


def test_reading_stops_where_the_reader_stops(tmp_path: Path) -> None:
    save_h5(tmp_path / "x.h5", numbers(50, 4))
    open_files = len(list(Path("/proc/self/fd").iterdir()))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pieces = open_source(tmp_path / "x.h5").pieces(5)
        next(pieces)
        pieces.close()  # type: ignore[attr-defined]
    assert len(list(Path("/proc/self/fd").iterdir())) == open_files
