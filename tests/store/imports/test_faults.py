"""Every file that cannot be read is refused in one line: what is wrong, where, and what to do. Nothing in it is run."""

from __future__ import annotations

import io
import json
import os
import pickle  # noqa: TID251  # the attack that the readers must withstand
import sys
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
from safetensors.torch import save_file

from elute.base.errors import ConfigError, DamagedError, DataError, EluteError, MissingError
from elute.store.imports.source import open_source

X = np.arange(4000, dtype=np.float32).reshape(1000, 4)
AGAIN = "Write it anew, or restore it from a copy."


class Attack:
    """Creates a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.target}",)


def line_of(path: Path, **asked: Any) -> str:
    with pytest.raises(EluteError) as error:
        for _ in open_source(path, **asked).pieces(64):
            pass
    text = str(error.value)
    assert "\n" not in text
    assert text.startswith(str(path))
    return text.removeprefix(str(path))


def write_all(folder: Path) -> dict[str, Path]:
    paths = {suffix: folder / f"x{suffix}" for suffix in (".npy", ".npz", ".pt", ".safetensors", ".parquet", ".h5")}
    np.save(paths[".npy"], X)
    np.savez(paths[".npz"], x=X)
    torch.save(torch.tensor(X), paths[".pt"])
    save_file({"x": torch.tensor(X)}, paths[".safetensors"])
    pl.DataFrame(X).write_parquet(paths[".parquet"])
    with h5py.File(paths[".h5"], "w") as file:
        file["x"] = X
        file["obs/names"] = np.array(["a"] * 10, object)
    paths[".h5ad"] = folder / "x.h5ad"
    with h5py.File(paths[".h5ad"], "w") as file:
        file["X"] = X
        file["obs/i"] = np.arange(1000)
        file["obs"].attrs["_index"] = "i"
    with zarr.storage.ZipStore(folder / "x.zarr.zip", mode="w") as store:
        zarr.open_group(store, mode="w").create_array("x", data=X)
    return paths | {".zip": folder / "x.zarr.zip"}


@pytest.mark.parametrize("kept", [0.1, 0.5, 0.99])
def test_files_that_were_cut_short(tmp_path: Path, kept: float) -> None:
    for suffix, path in write_all(tmp_path).items():
        size = path.stat().st_size
        os.truncate(path, int(kept * size))
        with pytest.raises(DamagedError) as error:
            list(open_source(path).pieces(64))
        assert str(path) in str(error.value), suffix
        assert error.value.remedy, suffix
        assert "\n" not in str(error.value), suffix


def test_a_zarr_chunk_that_was_cut_short(tmp_path: Path) -> None:
    zarr.open_group(tmp_path / "x.zarr", mode="w").create_array("x", data=X, chunks=(500, 4))
    chunk = tmp_path / "x.zarr" / "x" / "c" / "1" / "0"
    os.truncate(chunk, chunk.stat().st_size // 2)
    assert line_of(tmp_path / "x.zarr").startswith(", x: cannot be read as Zarr (")
    (tmp_path / "x.zarr" / "zarr.json").write_text("{")
    assert line_of(tmp_path / "x.zarr").startswith(": cannot be read as Zarr (")


def test_files_of_noise(tmp_path: Path) -> None:
    for suffix, path in write_all(tmp_path).items():
        path.write_bytes(bytes(range(1, 200)))
        with pytest.raises(DamagedError) as error:
            open_source(path)
        assert error.value.remedy, suffix


def test_empty_missing_folder_unknown(tmp_path: Path) -> None:
    for suffix, path in write_all(tmp_path).items():
        path.write_bytes(b"")
        assert line_of(path) == f": is empty (0 bytes). {AGAIN}", suffix
    assert line_of(tmp_path / "no.npy") == ": there is no such file. Check the path."
    assert line_of(tmp_path) == ": is a folder, not a file. Give a file in it."
    (tmp_path / "x.zarr").mkdir()
    assert line_of(tmp_path / "x.zarr") == f": has no zarr.json, .zgroup or .zarray, so it is no Zarr. {AGAIN}"
    (tmp_path / "x.mat").write_bytes(b"MATLAB 5.0")
    assert line_of(tmp_path / "x.mat") == (
        ": has the unknown suffix '.mat'. "
        "Known are .npy, .npz, .pt, .pth, .safetensors, .parquet, .h5ad, .h5, .hdf5, .zarr, .zip."
    )


def test_suffixes_that_lie(tmp_path: Path) -> None:
    paths = write_all(tmp_path)
    lies = {
        (".h5", "a.npy"): ": holds HDF5, not a NumPy array as its suffix says. Rename it to a.h5ad.",
        (".npz", "b.npy"): ": holds a NumPy archive, not a NumPy array as its suffix says. Rename it to b.npz.",
        (".npy", "c.h5ad"): ": holds a NumPy array, not HDF5 as its suffix says. Rename it to c.npy.",
        (".pt", "d.npz"): ": holds a PyTorch file, not a NumPy archive as its suffix says. Rename it to d.pt.",
        (".zip", "e.npz"): ": holds Zarr, not a NumPy archive as its suffix says. Rename it to e.zarr.",
        (".parquet", "f.csv"): ": has the unknown suffix '.csv', but holds Parquet. Rename it to f.parquet.",
        (".safetensors", "g.pt"): ": holds safetensors, not a PyTorch file as its suffix says. Rename it to g.saf",
    }
    for (kind, name), line in lies.items():
        (tmp_path / name).write_bytes(paths[kind].read_bytes())
        assert line_of(tmp_path / name).startswith(line)


def plant(folder: Path) -> dict[str, Path]:
    attack, paths = Attack(folder / "harm"), {}
    objects = np.array([[attack, 1], [2, 3]], dtype=object)
    paths["npy"] = folder / "x.npy"
    np.save(paths["npy"], objects, allow_pickle=True)
    paths["npz"] = folder / "x.npz"
    np.savez(paths["npz"], x=objects, allow_pickle=True)
    for name, how in {"pt": True, "old pt": False}.items():
        paths[name] = folder / f"{name}.pt"
        torch.save({"x": attack}, paths[name], _use_new_zipfile_serialization=how)
    for name in ("raw.pt", "raw.npy", "raw.npz"):
        paths[name] = folder / name
        paths[name].write_bytes(pickle.dumps(attack))
    for name, filters in {"zarr": ["vlen-utf8", "pickle"], "zarr of objects": ["pickle"]}.items():
        paths[name] = folder / f"{name}.zarr"
        group = zarr.open_group(paths[name], mode="w", zarr_format=2)
        group.create_array("x", data=X[:2])
        described = {"zarr_format": 2, "shape": [2], "chunks": [2], "dtype": "|O", "order": "C", "fill_value": ""}
        (paths[name] / "ids").mkdir()
        (paths[name] / "ids" / ".zarray").write_text(
            json.dumps(described | {"compressor": None, "filters": [{"id": codec} for codec in filters]})
        )
        (paths[name] / "ids" / "0").write_bytes(pickle.dumps(attack))
    return paths


def test_pickles_are_never_run(tmp_path: Path) -> None:
    paths = plant(tmp_path)
    for kind, path in paths.items():
        with pytest.raises(DataError) as error:
            asked = {"keys": ["x"], "sample_id": "ids"} if kind.startswith("zarr") else {}
            list(open_source(path, **asked).pieces(1))
        assert not (tmp_path / "harm").exists(), kind
        assert error.value.remedy, kind
    assert line_of(paths["npz"], keys=["x"]) == (
        ", x: holds Python objects, which would run code when read. Save it again as numbers."
    )
    assert line_of(paths["zarr"], sample_id="ids") == (
        ", ids: is packed with 'pickle', which is not known to hold numbers and text alone. "
        "Save it again with zarr's default compressor."
    )
    pickle.loads((tmp_path / "raw.pt").read_bytes())  # noqa: S301  # the attack does work on one who unpickles
    assert (tmp_path / "harm").exists()


Build = Callable[[Path], object]
SHAPES: dict[str, tuple[Build, str]] = {
    "1-D": (lambda p: np.save(p, X[:, 0]), ": has the shape [1000], not [rows, width]. Give it a width: array.resh"),
    "no rows": (lambda p: np.save(p, X[:0]), ": has no rows [0, 4]. Check what wrote it."),
    "no width": (lambda p: np.save(p, X[:, :0]), ": has no numbers in its rows [1000, 0]. Check what wrote it."),
    "4-D": (lambda p: np.save(p, X.reshape(10, 10, 10, 4)),
            ": has 4 dimensions [10, 10, 10, 4]. Make it [rows, width] or [samples, tokens, width]."),
    "bool": (lambda p: np.save(p, X > 1), ": holds bool, not numbers that a store keeps. Save it as numbers: array."),
    "complex": (lambda p: np.save(p, X + 1j), ": holds complex64, not numbers that a store keeps. Save real and im"),
    "text": (lambda p: np.save(p, X[:9].astype("U3")), ": holds str96, not numbers that a store keeps. Save it as float"),
}  # fmt: skip


@pytest.mark.parametrize("kind", SHAPES)
def test_arrays_that_are_no_rows(tmp_path: Path, kind: str) -> None:
    build, line = SHAPES[kind]
    build(tmp_path / "x.npy")
    assert line_of(tmp_path / "x.npy").startswith(line)


def test_sparse_tensors_and_files_without_any(tmp_path: Path) -> None:
    torch.save(torch.tensor(X).to_sparse(), tmp_path / "x.pt")
    assert line_of(tmp_path / "x.pt").endswith("or one without data. Save it dense: tensor.to_dense().")
    torch.save({"step": 3}, tmp_path / "y.pt")
    assert line_of(tmp_path / "y.pt") == (
        ": holds no tensor. Save one: torch.save({'activations': x}, path)."
    )  # fmt: skip
    np.savez(tmp_path / "x.npz", a=X[:, 0], b=X > 1)
    assert line_of(tmp_path / "x.npz") == (
        ": holds no array of numbers [rows, width] (a float32 [1000], b bool [1000, 4]). "
        "Save one with a row a sample: array.reshape(len(array), -1)."
    )


def test_keys_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, acts=X, short=X[:10], zeta=2 * X)
    assert line_of(path) == (
        ": holds 3 arrays (acts float32 [1000, 4], short float32 [10, 4], zeta float32 [1000, 4]). "
        "Choose: --key acts (repeat it for more)."
    )
    assert line_of(path, keys=["act"]) == ": has no array 'act'. Did you mean 'acts'?"
    assert line_of(path, keys=["acts", "short"]) == (
        ": the arrays have different numbers of rows (acts float32 [1000, 4], short float32 [10, 4]). "
        "Import them to separate stores."
    )
    with pytest.raises(ConfigError, match=r"one site name 'a' for 2 arrays\. Leave --site out\.$"):
        open_source(path, keys=["acts", "zeta"], site="a")
    np.save(tmp_path / "x.npy", X)
    assert line_of(tmp_path / "x.npy", keys=["x"]) == ": has no array 'x'. It is one array: leave --key out."
    source = open_source(tmp_path / "x.npy")
    with pytest.raises(ConfigError, match="has 1000 rows, so reading cannot start at row 1001"):
        next(source.pieces(5, 1001))
    with pytest.raises(ConfigError, match="a piece needs at least 1 row, not 0"):
        next(source.pieces(0))


def test_lists_that_are_no_rectangle(tmp_path: Path) -> None:
    path = tmp_path / "x.parquet"
    faults = {
        "row 80 holds 1 numbers where row 0 holds 2": [[1.0, 2.0]] * 80 + [[1.0]],
        "row 1 holds no list": [[1.0, 2.0], None],
        "has no numbers in row 0": [[], [1.0]],
    }
    for line, lists in faults.items():
        pl.DataFrame({"x": pl.Series(lists, dtype=pl.List(pl.Float32))}).write_parquet(path)
        assert line_of(path).startswith(f", x: {line}. ")
    pl.DataFrame({"x": [[[1, 2], [3, 4]], [[1, 2], [3, None]]]}).write_parquet(path)
    assert line_of(path) == ", x: a number is missing in row 1. Fill it in, or save it as floats."
    pl.DataFrame({"x": [[[1.0, 2.0], [3.0]]]}).write_parquet(path)
    assert line_of(path).startswith(", x: row 0 holds 1 numbers where row 0 holds 2.")
    pl.DataFrame({"x": [["a"]], "n": [1]}).write_parquet(path)
    assert line_of(path) == ", x: holds string, not numbers that a store keeps. Save it as float32."
    pl.DataFrame({"n": [1]}).write_parquet(path)
    assert line_of(path).startswith(": holds no array of numbers [rows, width] (none at all).")


def test_headers_that_promise_too_much(tmp_path: Path) -> None:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": (10**12, 10**6)})
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as archive:
        archive.writestr("x.npy", head.getvalue() + b"\0" * 64)
    assert line_of(tmp_path / "x.npz") == f", x: has another size than its header says. {AGAIN}"
    (tmp_path / "x.npy").write_bytes(head.getvalue() + b"\0" * 64)
    assert "is not a whole .npy file" in line_of(tmp_path / "x.npy")
    text = b'{"x":{"dtype":"F32","shape":[4,4],"data_offsets":[0,60]}}'
    (tmp_path / "x.safetensors").write_bytes(len(text).to_bytes(8, "little") + text + b"\0" * 60)
    with pytest.raises(DamagedError, match=r"x\.safetensors"):
        open_source(tmp_path / "x.safetensors")


def test_hdf5_that_shows_another_file(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "other.h5", "w") as file:
        file["x"] = X
    layout = h5py.VirtualLayout((1000, 4), "f4")
    layout[:] = h5py.VirtualSource(tmp_path / "other.h5", "x", (1000, 4))
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file.create_virtual_dataset("x", layout)
    assert line_of(tmp_path / "x.h5") == (
        ", x: points into another file, which elute does not follow. Copy the numbers into this file."
    )


def test_zarr_that_is_not_installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    zarr.open_group(tmp_path / "x.zarr", mode="w").create_array("x", data=X)
    monkeypatch.setitem(sys.modules, "zarr", None)
    with pytest.raises(MissingError, match=r'^zarr is not installed. Type: pip install (-e )?".*\[arrays\]"$'):
        open_source(tmp_path / "x.zarr")
