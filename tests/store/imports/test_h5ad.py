"""AnnData files, read without anndata, say what anndata itself reads in them."""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import polars as pl
import pytest
import scipy.sparse
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from elute.base.errors import ConfigError, DamagedError, DataError
from elute.store.imports.source import ArraySource, open_source

CELLS, GENES = 31, 12
FORMS = ("h5ad", "zarr 2", "zarr 3")


def read_all(source: ArraySource, rows: int = 7, start: int = 0) -> tuple[dict[str, np.ndarray], pl.DataFrame]:
    pieces = list(source.pieces(rows, start))
    arrays = {name: np.concatenate([arrays[name] for arrays, _ in pieces]) for name in source.sites}
    return arrays, pl.concat([frame for _, frame in pieces])


def counts(seed: int = 0) -> scipy.sparse.csr_matrix:
    rng = np.random.default_rng(seed)
    dense = rng.poisson(0.7, (CELLS, GENES)).astype(np.float32)
    dense[[3, 4, 30]] = 0
    return scipy.sparse.csr_matrix(dense)


def cells() -> anndata.AnnData:
    rng = np.random.default_rng(1)
    numbers = pd.array([None if i == 2 else i for i in range(CELLS)], dtype="Int32")
    flags = pd.array([None if i == 3 else i % 2 == 0 for i in range(CELLS)], dtype="boolean")
    obs = pd.DataFrame(
        {
            "donor": pd.Categorical([f"d{i % 3}" for i in range(CELLS)]),
            "type": pd.Categorical([None if i == 5 else "TB"[i % 2] for i in range(CELLS)]),
            "batch": pd.Categorical([i % 4 for i in range(CELLS)]),
            "barcode": [f"ACGT-{i}" for i in range(CELLS)],
            "note": pd.array([None if i == 1 else f"ü{i}" for i in range(CELLS)], dtype="string"),
            "score": rng.normal(size=CELLS),
            "n": np.arange(CELLS, dtype=np.int16),
            "good": np.arange(CELLS) % 2 == 0,
            "perhaps": numbers,
            "maybe": flags,
        },
        index=[f"cell {i}" for i in range(CELLS)],
    )
    made = anndata.AnnData(counts(), obs=obs)
    made.raw = made.copy()
    made.layers["log"] = counts().toarray() / 2
    made.layers["spliced"] = counts(2)
    made.obsm["X_pca"] = rng.normal(size=(CELLS, 5)).astype(np.float32)
    made.obsm["guides"] = scipy.sparse.csr_matrix(rng.poisson(0.5, (CELLS, 3)).astype(np.int64))
    made.obsm["table"] = pd.DataFrame({"a": np.arange(CELLS)}, index=obs.index)
    made.uns["X"] = np.ones((CELLS, 2))
    return made


def write(folder: Path, form: str, made: anndata.AnnData | None = None) -> Path:
    made = cells() if made is None else made
    path = folder / f"x.{form.split()[0]}"
    with warnings.catch_warnings(), anndata.settings.override(allow_write_nullable_strings=True):
        warnings.simplefilter("ignore")
        if form == "h5ad":
            made.write_h5ad(path, compression="gzip")
        else:
            with anndata.settings.override(zarr_write_format=int(form[-1])):
                made.write_zarr(path, chunks=(9, GENES))
    return path


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {form: write(tmp_path_factory.mktemp("cells"), form) for form in FORMS}


@pytest.fixture(scope="module")
def opened() -> dict[str, ArraySource]:
    return {}


@pytest.mark.parametrize("form", FORMS)
def test_every_array_is_what_anndata_reads(written: dict[str, Path], form: str) -> None:
    made = cells()
    expected = {
        "X": made.X.toarray(), "raw/X": made.raw.X.toarray(), "layers/log": made.layers["log"],
        "layers/spliced": made.layers["spliced"].toarray(), "obsm/X_pca": made.obsm["X_pca"],
        "obsm/guides": made.obsm["guides"].toarray(),
    }  # fmt: skip
    for key, array in expected.items():
        source = open_source(written[form], keys=[key])
        arrays, frame = read_all(source)
        name = key.rpartition("/")[2]
        assert source.sites == {name: array.shape[1]}
        assert arrays[name].dtype == array.dtype
        assert np.array_equal(arrays[name], array), key
        assert frame["sample_id"].to_list() == list(made.obs_names)
    both, _ = read_all(open_source(written[form], keys=["X", "obsm/X_pca"]), 10, 4)
    assert np.array_equal(both["X"], expected["X"][4:])
    assert np.array_equal(both["X_pca"], expected["obsm/X_pca"][4:])


@pytest.mark.parametrize("form", FORMS)
def test_every_column_is_what_anndata_reads(written: dict[str, Path], form: str) -> None:
    obs = cells().obs
    source = open_source(
        written[form], keys=["X"], sample_id="barcode", group="donor", columns=[*obs.columns, "_index"]
    )
    assert set(source.columns) == {*obs.columns, "_index"}
    _, frame = read_all(source, 4)
    assert frame["sample_id"].to_list() == list(obs["barcode"])
    assert frame["group"].to_list() == list(obs["donor"])
    assert frame["_index"].to_list() == list(obs.index)
    for name in obs.columns:
        expected = [None if pd.isna(v) else v for v in obs[name].tolist()]
        assert frame[name].to_list() == expected, name
    assert frame.schema["n"] == pl.Int16
    assert frame.schema["batch"] == pl.Int64


@pytest.mark.parametrize("form", FORMS)
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(rows=st.integers(1, CELLS + 9), start=st.integers(0, CELLS - 1))
@example(rows=7, start=5)
def test_sparse_pieces_of_any_size_from_any_row_are_the_whole(
    written: dict[str, Path], opened: dict[str, ArraySource], form: str, rows: int, start: int
) -> None:
    if form not in opened:
        opened[form] = open_source(written[form], keys=["X"], columns=["type"])
    arrays, frame = read_all(opened[form], rows, start)
    assert np.array_equal(arrays["X"], counts().toarray()[start:])
    assert frame["type"].to_list() == [None if i == 5 else "TB"[i % 2] for i in range(start, CELLS)]


def test_several_arrays_are_listed(written: dict[str, Path]) -> None:
    with pytest.raises(ConfigError) as error:
        open_source(written["h5ad"])
    assert error.value.what == (
        "holds 6 arrays (X float32 [31, 12], layers/log float32 [31, 12], layers/spliced float32 [31, 12], "
        "obsm/X_pca float32 [31, 5], obsm/guides int64 [31, 3], raw/X float32 [31, 12])"
    )
    assert error.value.remedy == "Choose: --key X (repeat it for more)."


def test_the_form_of_anndata_0_7(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5ad", "w") as file:
        file["X"] = np.ones((3, 2), np.float32)
        obs = file.create_group("obs")
        obs.attrs["_index"], obs.attrs["column-order"] = "index", ["type"]
        obs["index"] = np.array(["a", "b", "c"], object)
        obs["type"] = np.array([1, -1, 0], np.int8)
        obs["__categories/type"] = np.array(["T", "B"], object)
    _, frame = read_all(open_source(tmp_path / "x.h5ad", columns=["type"]))
    assert frame.to_dict(as_series=False) == {"sample_id": ["a", "b", "c"], "type": ["B", None, "T"]}


def test_half_precision_and_doubled_entries(tmp_path: Path) -> None:
    path = write(tmp_path, "h5ad")
    with h5py.File(path, "r+") as file:
        last = int(file["X/indptr"][-1])
        first = int(file["X/indptr"][1])
        file["X/indices"][:first] = file["X/indices"][0]
        del file["X/data"]
        file["X/data"] = np.full(last, 0.5, np.float16)
        column = int(file["X/indices"][0])
    arrays, _ = read_all(open_source(path, keys=["X"]))
    assert arrays["X"].dtype == np.float16
    assert arrays["X"][0, column] == 0.5 * first
    assert arrays["X"][0].sum() == 0.5 * first
    assert np.array_equal(arrays["X"][1:] > 0, counts().toarray()[1:] > 0)


Spoil = Callable[[Any], None]


def _put(key: str, place: Any, value: Any) -> Spoil:
    return lambda file: file[key].__setitem__(place, value)


def _swap(key: str, value: Any = None) -> Spoil:
    def swap(file: Any) -> None:
        del file[key]
        if value is not None:
            file[key] = value

    return swap


def _external(file: Any) -> None:
    del file["obsm/X_pca"]
    file["obsm"].create_dataset("X_pca", (CELLS, 5), "u1", external=[("/etc/passwd", 0, CELLS * 5)])


def _odd(file: Any) -> None:
    file["obs/donor"].attrs["encoding-type"] = "awkward-array"


@pytest.mark.parametrize(
    ("spoil", "asked", "line"),
    [
        (_put("X/indices", 4, 99), {"keys": ["X"]}, ", X: row 0 has a number in column 99, of 12 columns. Write"),
        (_put("X/indices", -1, -1), {"keys": ["X"]}, ", X: row 29 has a number in column -1, of 12 columns. Write"),
        (_put("X/indptr", 2, 9999), {"keys": ["X"]}, ", X: the row pointers of rows 0 to 30 are damaged. Write it"),
        (_put("X/indptr", 0, -5), {"keys": ["X"]}, ", X: the row pointers of rows 0 to 30 are damaged. Write it"),
        (_put("X/indptr", -1, 10**6), {"keys": ["X"]}, ", X: the row pointers of rows 0 to 30 are damaged. Write it"),
        (_swap("X/indices", np.zeros(3, np.int32)), {"keys": ["X"]}, ", X: is sparse, and its parts do not fit together. Write it anew, or restore it"),
        (_put("obs/donor/codes", 3, 9), {"keys": ["X"], "group": "donor"},
         ", obs/donor/codes: a category's number is out of range. Write it anew, or restore it"),
        (_swap("obs", np.zeros(3, [("index", "S3")])), {}, ": has the cells' table in the form that anndata wrote before 0.7. Write it anew: anndata"),
        (_swap("X", h5py.ExternalLink("other.h5", "/X")), {"keys": ["X"]}, ": has no array 'X'. There are: "),
        (_external, {"keys": ["obsm/X_pca"]},
         ", obsm/X_pca: points into another file, which elute does not follow. Copy the numbers into this file."),
        (_swap("obs/_index"), {}, ": its table of cells lacks the index '_index'. Write it anew, or restore it from a copy."),
        (_odd, {"keys": ["X"], "group": "donor"},
         ": column 'donor' has the encoding 'awkward-array', which elute does not read. Save it as text, numbers or"),
        (None, {"keys": ["X_pcaa"]}, ": has no array 'X_pcaa'. Did you mean 'obsm/X_pca'?"),
        (None, {"keys": ["obsm/table"]}, ", obsm/table: is a table, not an array. Save its numbers: adata.obsm[name]"),
        (None, {"keys": ["X"], "group": "doner"}, ": has no column 'doner'. Did you mean 'donor'?"),
        (None, {"keys": ["X"], "group": "type"}, ": column 'type' has no value in 1 row, say 5: each "),
        (None, {"keys": ["X"], "sample_id": "maybe"},
         ": column 'maybe' has no value in 1 row, say 3: each needs a sample_id. Fill it in, or choose another column."),
        (None, {"keys": ["X"], "sample_id": "donor"},
         ": column 'donor' is no id: 'd0' stands in rows 0 and 3, and 27 more such rows. Choose a unique column"),
        (None, {"keys": ["X"], "site": "a", "columns": ["brcode"]}, ": has no column 'brcode'. Did you mean 'barcode'"),
    ],
)  # fmt: skip
def test_bad_files_in_one_line(
    tmp_path: Path, written: dict[str, Path], spoil: Spoil | None, asked: dict[str, Any], line: str
) -> None:
    path = shutil.copy(written["h5ad"], tmp_path / "x.h5ad")
    if spoil is not None:
        with h5py.File(path, "r+") as file:
            spoil(file)
    with pytest.raises((DataError, ConfigError)) as error:
        read_all(open_source(path, **asked), CELLS)
    assert str(error.value).startswith(f"{path}{line}")
    assert "\n" not in str(error.value)


def test_what_is_by_columns_is_refused(tmp_path: Path) -> None:
    made = cells()
    made.layers["spliced"] = scipy.sparse.csc_matrix(made.layers["spliced"])
    path = write(tmp_path, "h5ad", made)
    with pytest.raises(DataError, match=r"layers/spliced: is sparse by columns \(CSC\).*Save it as CSR: adata.X.tocsr"):
        open_source(path, keys=["layers/spliced"])


def test_names_that_are_not_unique(tmp_path: Path) -> None:
    made = cells()
    made.obs_names = ["same" if i in (7, 20) else f"c{i}" for i in range(CELLS)]
    path = write(tmp_path, "h5ad", made)
    with pytest.raises(DataError, match=r"column '_index' is no id: 'same' stands in rows 7 and 20\. Choose a unique"):
        open_source(path, keys=["X"])


def test_a_plain_hdf5_file_is_no_anndata(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "x.h5ad", "w") as file:
        file["X"] = np.ones((3, 2))
    with pytest.raises(DataError, match=r"x.h5ad: has no table of cells \(obs\), so it is not .* Rename it to \.h5\.$"):
        open_source(tmp_path / "x.h5ad")


def test_a_packed_chunk_that_is_damaged(tmp_path: Path) -> None:
    path = write(tmp_path, "h5ad")
    with h5py.File(path) as file:
        chunk = file["X/data"].id.get_chunk_info(0)
    with path.open("r+b") as handle:
        handle.seek(chunk.byte_offset)
        handle.write(b"\xff" * chunk.size)
    with pytest.raises(DamagedError, match=r"x.h5ad, X: cannot be read as HDF5 \(.*\). Write it anew, or restore it"):
        read_all(open_source(path, keys=["X"]))


@pytest.mark.real_data
def test_real_cells_are_what_anndata_reads(real_data: Path) -> None:
    for path in [*(real_data / "cells").glob("*.h5ad")] or pytest.fail("no cells"):
        made = anndata.read_h5ad(path)
        source = open_source(path, keys=["X"], columns=list(made.obs.columns[:3].difference(["sample_id"])))
        assert source.sites == {"X": made.n_vars}
        at = 0
        for arrays, frame in source.pieces(997):
            part = slice(at, at + len(frame))
            assert np.array_equal(arrays["X"], made.X[part].toarray())
            assert frame["sample_id"].to_list() == list(made.obs_names[part])
            for name in frame.columns[1:]:
                assert frame[name].to_list() == made.obs[name].iloc[part].tolist(), (path, name)
            at += len(frame)
        assert at == made.n_obs > 0
