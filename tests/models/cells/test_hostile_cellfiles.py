"""Files that are not what they say, damaged or wicked: one line each, and nothing outside them is opened."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from elute.base.errors import EluteError
from elute.models.cells.cellfile import CellsConfig, open_cells

AGAIN = "Write it anew, or restore it from a copy."
INDPTR, INDICES, DATA = [0, 2, 3, 5], [0, 2, 1, 0, 3], [1.0, 2, 3, 4, 5]


def write(path: Path) -> Path:
    with h5py.File(path, "w") as file:
        x = file.create_group("X")
        x.attrs["encoding-type"], x.attrs["shape"] = "csr_matrix", [3, 4]
        x["indptr"], x["indices"] = np.array(INDPTR), np.array(INDICES, np.int32)
        x["data"] = np.array(DATA, np.float32)
        for name, size in (("obs", 3), ("var", 4)):
            file[f"{name}/_index"] = np.array([f"{name}{i}" for i in range(size)], object)
            file[name].attrs["_index"], file[name].attrs["column-order"] = "_index", []
    return path


def line(path: Path, **config: Any) -> str:
    with pytest.raises(EluteError) as error:
        list(open_cells(path, CellsConfig(**config)).pieces())
    text = str(error.value)
    assert "\n" not in text
    assert text.startswith(str(path))
    return text.removeprefix(str(path))


def set_to(key: str, value: Any) -> Callable[[Any], None]:
    def change(file: Any) -> None:
        del file[key]
        if value is not None:
            file[key] = value

    return change


def attribute(key: str, name: str, value: Any) -> Callable[[Any], None]:
    return lambda file: file[key].attrs.__setitem__(name, value)


def test_the_file_itself_is_fine(tmp_path: Path) -> None:
    (piece,) = open_cells(write(tmp_path / "x.h5ad"), CellsConfig()).pieces()
    assert [array.tolist() for array in piece[1:]] == [INDPTR, INDICES, DATA]


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (set_to("X/indices", [0, 2, 1, 0, 4]), f", X: row 2 has a number in column 4, of 4 columns. {AGAIN}"),
        (set_to("X/indices", [0, 2, -1, 0, 3]), f", X: row 1 has a number in column -1, of 4 columns. {AGAIN}"),
        (set_to("X/indices", [0.0, 2, 1, 0, 3]), f", X: is sparse, and its parts do not fit together. {AGAIN}"),
        (set_to("X/indptr", [0, 3, 2, 5]), f", X: the row pointers of rows 0 to 2 are damaged. {AGAIN}"),
        (set_to("X/indptr", [0, 2, 3, 9]), f", X: the row pointers of rows 0 to 2 are damaged. {AGAIN}"),
        (set_to("X/indptr", [-1, 2, 3, 5]), f", X: the row pointers of rows 0 to 2 are damaged. {AGAIN}"),
        (set_to("X/indptr", [0, 2, 5]), f", X: is sparse, and its parts do not fit together. {AGAIN}"),
        (set_to("X/indptr", [0, 0, 0, 5]), ", X: row 2 has 5 numbers in 4 columns. Add up what stands twice: adata.X.sum_duplicates()."),
        (set_to("X/indices", [0, 2, 1, 3, 3]), ", X: two numbers in cell 'obs2', gene 'var3'. Add them up: adata.X.sum_duplicates()."),
        (set_to("X/data", np.ones(5, complex)), ", X: holds complex128, not numbers. Save it as float32."),
        (set_to("X/data", np.array([b"a"] * 5)), ", X: holds |S1, not numbers. Save it as float32."),
        (set_to("X/data", None), f", X: cannot be read as HDF5 (\"there is no 'X/data' in it\"). {AGAIN}"),
        (attribute("X", "shape", [3, 5]), f", X: is 3 × 5, beside 3 cells and 4 genes. {AGAIN}"),
        (attribute("X", "shape", [-3, 4]), f", X: is sparse, and its parts do not fit together. {AGAIN}"),
        (attribute("X", "shape", [3, 3]), f", X: is 3 × 3, beside 3 cells and 4 genes. {AGAIN}"),
        (set_to("X", np.ones((2, 4))), f", X: is 2 × 4, beside 3 cells and 4 genes. {AGAIN}"),
        (set_to("X", np.ones(12)), ", X: has the shape [12], not [cells, genes]. Check what wrote it."),
        (set_to("X", None), ": holds no matrix (X, layers or raw). Check what wrote it."),
        (set_to("X", h5py.ExternalLink("other.h5ad", "/X")), ", X: points into another file, which elute does not follow. Copy the numbers into this file."),
        (set_to("X/data", h5py.ExternalLink("other.h5ad", "/X/data")), ", X/data: points into another file, which elute does not follow. Copy the numbers into this file."),
        (set_to("obs", h5py.ExternalLink("other.h5ad", "/obs")), ", obs: points into another file, which elute does not follow. Copy the numbers into this file."),
        (set_to("var", None), f": has no table of genes (var). {AGAIN}"),
        (set_to("obs", None), ": has no table of cells (obs), so it is not an AnnData file. Write it with anndata: adata.write_h5ad(path)."),
        (set_to("var/_index", None), f": its table of genes lacks the index '_index'. {AGAIN}"),
        (set_to("obs/_index", np.array([b"\xff", b"b", b"c"])), ", obs/_index: cannot be read as HDF5 ('ascii' codec can't decode byte 0xff"),
        (set_to("obs", np.zeros(3, np.float32)), f": its table of cells has no columns. {AGAIN}"),
    ],
)  # fmt: skip
def test_damaged_files(tmp_path: Path, change: Callable[[Any], None], text: str) -> None:
    write(tmp_path / "other.h5ad")
    path = write(tmp_path / "x.h5ad")
    with h5py.File(path, "r+") as file:
        change(file)
    for stream in (True, False):
        assert line(path, stream=stream).startswith(text)


@pytest.mark.parametrize(
    ("indices", "text"),
    [
        ([0, 2, 1, 0, 3], f", X: has a number in row 3, of 3 rows. {AGAIN}"),
        ([0, 0, 1, 0, 2], ", X: two numbers in cell 'obs0', gene 'var0'. Add them up"),
    ],
)
def test_damaged_columns(tmp_path: Path, indices: list[int], text: str) -> None:
    path = write(tmp_path / "x.h5ad")
    with h5py.File(path, "r+") as file:
        attribute("X", "encoding-type", "csc_matrix")(file)
        set_to("X/indptr", [0, 2, 3, 5, 5])(file)
        set_to("X/indices", indices)(file)
    assert line(path).startswith(text)


def test_a_link_is_not_followed(tmp_path: Path) -> None:
    write(tmp_path / "other.h5ad")
    path = write(tmp_path / "x.h5ad")
    with h5py.File(path, "r+") as file:
        set_to("X", None)(file)
        file["layers/counts"] = h5py.ExternalLink("other.h5ad", "/X")
    assert line(path).startswith(", layers/counts: points into another file")
    with h5py.File(path, "r+") as file:
        set_to("layers", h5py.SoftLink("/far"))(file)
        file["far"] = h5py.ExternalLink("other.h5ad", "/")
    assert "points into another file" in line(path)


def test_what_is_no_anndata_file(tmp_path: Path) -> None:
    whole = write(tmp_path / "pbmc.h5ad").read_bytes()
    (tmp_path / "short.h5ad").write_bytes(whole[: len(whole) // 2])
    assert line(tmp_path / "short.h5ad").startswith(": cannot be read as HDF5 (")
    (tmp_path / "text.h5ad").write_text("gene,cell\n")
    assert line(tmp_path / "text.h5ad").startswith(": cannot be read as HDF5 (")
    (tmp_path / "table.h5ad").write_bytes(b"PAR1" + bytes(20))
    assert line(tmp_path / "table.h5ad").startswith(": holds Parquet, not HDF5 as its suffix says.")
    (tmp_path / "none.h5ad").write_bytes(b"")
    assert line(tmp_path / "none.h5ad").startswith(": is empty (0 bytes).")
    (tmp_path / "folder.h5ad").mkdir()
    assert line(tmp_path / "folder.h5ad") == ": is a folder, not a file. Give a file in it."
    (tmp_path / "cells.zarr").mkdir()
    assert line(tmp_path / "cells.zarr").startswith(
        ": is a Zarr folder; cells are read from .h5ad. Write it as one file"
    )
    assert line(tmp_path / "pbcm.h5ad").startswith(": there is no such file. Did you mean 'pbmc.h5ad'")
    assert "there is no such folder" in line(tmp_path / "far" / "pbmc.h5ad")
    (tmp_path / "bare").mkdir()
    assert (
        line(tmp_path / "bare" / "x.h5ad") == f": there is no such file. There is no .h5ad file in {tmp_path / 'bare'}."
    )


@pytest.mark.parametrize(
    ("keys", "text"),
    [
        (["matrix/barcodes", "matrix/indptr"], ': is a 10x matrix, not an AnnData file. Convert it: scanpy.read_10x_h5("x.h5").write_h5ad("x.h5ad").'),
        (["GRCh38/barcodes", "GRCh38/indptr"], ": is a 10x matrix, not an AnnData file. Convert it: scanpy"),
        (["col_attrs/CellID", "row_attrs/Gene"], ": is a loom file, not an AnnData file. Convert it: "),
        (["mod/rna/X"], ": holds several AnnData (MuData), not one. Take one part: "),
        (["weights"], ": has no table of cells (obs), so it is not an AnnData file."),
    ],
)  # fmt: skip
def test_other_hdf5_files(tmp_path: Path, keys: list[str], text: str) -> None:
    with h5py.File(tmp_path / "x.h5", "w") as file:
        for key in keys:
            file[key] = np.zeros(3)
    assert line(tmp_path / "x.h5").startswith(text)
