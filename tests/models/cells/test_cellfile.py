"""Cells that are opened are those of the file, entry for entry, and what cannot be right is refused in one line."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from elute.base.errors import ConfigError, EluteError
from elute.models.cells.cellfile import Cells, CellsConfig, open_cells

N, GENES = 40, 15


def counts(seed: int = 0) -> np.ndarray:
    dense = np.random.default_rng(seed).poisson(0.8, (N, GENES)).astype(np.float32)
    dense[:, 0] += 1
    return dense


def made(x: Any = None, **more: Any) -> anndata.AnnData:
    obs = pd.DataFrame(
        {
            "cell_type": pd.Categorical([None if i == 5 else "TBN"[i % 3] for i in range(N)]),
            "donor": np.arange(N) % 4,
            "batch": [f"b{i % 2}" for i in range(N)],
        },
        index=[f"c{i}" for i in range(N)],
    )
    var = pd.DataFrame({"gene_ids": [f"ENSG{i:011d}" for i in range(GENES)], "length": np.arange(GENES),
                        "kind": pd.Categorical(["a", "b", "c"] * 5)}, index=[f"g{i}" for i in range(GENES)])  # fmt: skip
    return anndata.AnnData(sp.csr_matrix(counts()) if x is None else x, obs=obs, var=var, **more)


def put(folder: Path, adata: anndata.AnnData, **how: Any) -> Path:
    path = folder / "cells.h5ad"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata.write_h5ad(path, **how)
    return path


def dense(cells: Cells, size: int = 7) -> np.ndarray:
    rows, at = [], 0
    for piece in cells.pieces(size):
        n = len(piece.indptr) - 1
        assert piece.first == at
        assert 0 < n <= size
        assert piece.indptr.dtype == np.int64
        assert piece.indices.dtype == np.int32
        assert piece.data.dtype == np.float32
        shape = (n, len(cells.var))
        rows.append(sp.csr_matrix((piece.data, piece.indices, piece.indptr), shape=shape).toarray())
        at += n
    assert at == len(cells)
    return np.concatenate(rows)


def line(data: Any, **config: Any) -> str:
    with pytest.raises(EluteError) as error:
        list(open_cells(data, CellsConfig(**config)).pieces())
    text = str(error.value)
    assert "\n" not in text
    return text.removeprefix(str(data)) if isinstance(data, Path) else text


FORMS: dict[str, Callable[[np.ndarray], Any]] = {
    "csr": sp.csr_matrix, "csc": sp.csc_matrix, "dense": np.array, "csr array": sp.csr_array,
    "double": lambda x: sp.csr_matrix(x.astype(np.float64)), "int64": lambda x: sp.csr_matrix(x.astype(np.int64)),
    "uint16": lambda x: x.astype(np.uint16), "int8 csc": lambda x: sp.csc_matrix(x.astype(np.int8)),
}  # fmt: skip


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(("stream", "gzip"), [(False, False), (True, True)])
def test_every_form_gives_the_same_cells(tmp_path: Path, form: str, stream: bool, gzip: bool) -> None:
    adata = made(FORMS[form](counts()))
    path = put(tmp_path, adata, compression="gzip" if gzip else None)
    config = CellsConfig(donor_key="donor", batch_key="batch", stream=stream)
    for data in (path, str(path), adata):
        cells = open_cells(data, config)
        assert (cells.kind, cells.matrix) == ("counts", "X")
        assert cells.chosen.tolist() == list(range(N))
        for size in (1, 7, 1000):
            assert np.array_equal(dense(cells, size), counts())
        assert cells.metadata["sample_id"].to_list() == cells.names == list(adata.obs_names)
        assert cells.metadata["group"].to_list() == [str(i % 4) for i in range(N)]
        assert cells.metadata["batch"].to_list() == list(adata.obs["batch"])
        assert cells.metadata["label"].to_list() == [None if i == 5 else "TBN"[i % 3] for i in range(N)]
        assert cells.var.columns == ["index", "gene_ids", "kind"]
        assert cells.var["index"].to_list() == list(adata.var_names)
        assert cells.var["kind"].to_list() == list(adata.var["kind"])
        assert cells.obs("donor").to_list() == [i % 4 for i in range(N)]


def test_a_sample_reads_the_rows_it_names(tmp_path: Path) -> None:
    for form in FORMS:
        adata = made(FORMS[form](counts()))
        for data in (put(tmp_path, adata), adata):
            for stream in (False, True):
                cells = open_cells(data, CellsConfig(max_cells=11, seed=3, stream=stream))
                assert len(cells) == 11
                assert (np.diff(cells.chosen) > 0).all()
                assert np.array_equal(dense(cells), counts()[cells.chosen]), form
                assert cells.names == [f"c{i}" for i in cells.chosen]
                assert cells.metadata["label"].to_list() == cells.obs("cell_type").to_list()
    again = open_cells(adata, CellsConfig(max_cells=11, seed=3))
    assert np.array_equal(again.chosen, cells.chosen)
    assert not np.array_equal(open_cells(adata, CellsConfig(max_cells=11, seed=4)).chosen, cells.chosen)


def test_stored_order_and_stored_zeros_are_kept(tmp_path: Path) -> None:
    x = sp.csr_matrix(counts())
    x.indices[: x.indptr[1]] = x.indices[: x.indptr[1]][::-1].copy()
    x.data[x.indptr[1]] = 0
    x.has_sorted_indices = False
    adata = made(x)
    for data in (put(tmp_path, adata), adata):
        pieces = list(open_cells(data, CellsConfig()).pieces(N))
        assert len(pieces) == 1
        assert np.array_equal(pieces[0].indices, x.indices)
        assert np.array_equal(pieces[0].data, x.data)


def test_near_rows_are_read_together_and_far_ones_apart(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from elute.store.imports import nonzeros

    path, asked = put(tmp_path, made()), []
    with h5py.File(path, "r+") as file:  # anew without chunks, which are read whole in any case
        for key in ("X/data", "X/indices"):
            numbers = file[key][:]
            del file[key]
            file[key] = numbers
    values = nonzeros.values
    monkeypatch.setattr(nonzeros, "values", lambda node, a, b: (asked.append((a, b)), values(node, a, b))[1])
    matrix = nonzeros.in_file(path, "X")
    ends = np.cumsum(matrix.lengths)
    for near, spans in ((1 << 14, [(0, 30)]), (1, [(0, 2), (9, 10), (29, 30)])):
        asked.clear()
        monkeypatch.setattr(nonzeros, "_NEAR", near)
        with nonzeros.in_file(path, "X").opened() as read:
            got = read(np.array([0, 1, 9, 29]))
        expected = [(int(ends[a] - matrix.lengths[a]), int(ends[b - 1])) for a, b in spans]
        assert asked[::2] == asked[1::2] == expected
        assert np.array_equal(got.data, sp.csr_matrix(counts())[[0, 1, 9, 29]].data)


def test_pieces_and_spans_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from elute.models.cells import counts as judged
    from elute.store.imports import nonzeros, transpose

    for module, name, value in ((nonzeros, "_SPAN", 20), (transpose, "_PIECE", 13), (judged, "_AT_ONCE", 5)):
        monkeypatch.setattr(module, name, value)
    monkeypatch.setattr(judged, "PIECE", 30)
    monkeypatch.setattr(judged.edges, "__defaults__", (30,))
    for form in ("csr", "csc", "dense"):
        path = put(tmp_path, made(FORMS[form](counts())))
        cells = open_cells(path, CellsConfig(stream=True))
        assert np.array_equal(dense(cells, 1000), counts())
        assert max(len(piece.data) for piece in cells.pieces(1000)) <= 30


def logs() -> np.ndarray:
    return np.log1p(counts() / counts().sum(1, keepdims=True) * 1e4)


def scaled() -> np.ndarray:
    return (logs() - logs().mean(0)).astype(np.float32)


def with_raw(x: Any, raw: Any, layers: dict[str, Any] | None = None) -> anndata.AnnData:
    adata = made(raw)
    adata.raw = adata.copy()
    adata = adata[:, :9].copy()
    adata.X = x[:, :9] if x is not None else None
    for name, layer in (layers or {}).items():
        adata.layers[name] = layer[:, :9]
    return adata


def test_counts_are_found_where_they_are(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = counts(7)
    cases = [
        (with_raw(counts(), other), "auto", "X", counts()[:, :9], "X holds counts and is taken"),
        (with_raw(logs(), other, {"Raw_Counts": other + 1}), "auto", "layers/Raw_Counts", (other + 1)[:, :9],
         "layers/Raw_Counts holds counts and is taken; X looks log-normalised (from 0 to below 20, not whole)"),
        (with_raw(scaled(), other, {"spliced": counts()}), "auto", "raw", other,
         "raw holds counts and is taken; X looks scaled (it has negative values)"),
        (with_raw(scaled(), other, {"spliced": counts()}), "layers/spliced", "layers/spliced", counts()[:, :9], "layers/spliced holds counts and is taken"),
        (with_raw(counts(), other), "raw", "raw", other, "raw holds counts and is taken"),
        (with_raw(None, other), "auto", "raw", other, "raw holds counts and is taken"),
        (with_raw(np.zeros_like(other), other), "auto", "raw", other, "X holds nothing but 0"),
    ]  # fmt: skip
    for adata, asked, name, expected, said in cases:
        for data in (put(tmp_path, adata), adata):
            cells = open_cells(data, CellsConfig(matrix=asked))
            assert (cells.matrix, cells.kind) == (name, "counts")
            assert np.array_equal(dense(cells), expected)
            assert len(cells.var) == expected.shape[1]
            assert said in capsys.readouterr().err


def test_no_counts_is_said_and_refused() -> None:
    text = line(with_raw(scaled(), logs(), {"counts": logs()}))
    assert text.startswith(
        "AnnData in memory: holds no raw counts: X looks scaled (it has negative values), layers/counts looks "
        "log-normalised (from 0 to below 20, not whole), raw looks log-normalised (from 0 to below 20, not whole). Put"
    )
    assert "--accept-normalised" in text
    assert "X holds numbers that are not whole, and too large for logarithms." in line(made(logs() * 9))
    for accept in (False, True):
        refused = line(made(scaled()), accept_normalised=accept)
        assert "X looks scaled (it has negative values). " in refused
        assert "Values below 0 have no place among quantiles" in refused
        assert "--accept" not in refused


@pytest.mark.parametrize(
    ("adata", "name", "kind", "expected"),
    [
        (made(logs()), "X", "log-normalised", logs()),
        (made(logs() * 9), "X", "numbers", logs() * 9),
        (with_raw(scaled(), logs()), "raw", "log-normalised", logs()),
        (with_raw(logs(), counts()), "raw", "counts", counts()),
    ],
)
def test_normalised_values_are_taken_if_accepted(
    adata: anndata.AnnData, name: str, kind: str, expected: np.ndarray, capsys: pytest.CaptureFixture[str]
) -> None:
    cells = open_cells(adata, CellsConfig(accept_normalised=True))
    assert (cells.matrix, cells.kind) == (name, kind)
    assert np.array_equal(dense(cells), expected.astype(np.float32))
    assert ("is taken as it is" in capsys.readouterr().err) == (kind != "counts")


def spoilt(row: int, gene: int, value: float, base: np.ndarray | None = None) -> np.ndarray:
    x = counts() if base is None else base
    x[row, gene] = value
    return x


@pytest.mark.parametrize("form", ["csr", "csc", "dense"])
def test_what_no_count_can_be_is_named(tmp_path: Path, form: str) -> None:
    make = FORMS[form]
    for value, what in ((np.nan, "nan"), (np.inf, "inf"), (-3.0, "the negative number -3")):
        for data in (put(tmp_path, made(make(spoilt(17, 6, value)))), made(make(spoilt(17, 6, value)))):
            assert f"X: {what} in cell 'c17', gene 'g6'. Counts are whole numbers from 0 on" in line(data)
            assert "g6" in line(data, max_cells=39, seed=1)
    huge = make(spoilt(3, 4, 1e300, counts().astype(np.float64)))
    assert "X: inf in cell 'c3', gene 'g4'" in line(made(huge))
    odd = made(make(spoilt(17, 6, np.nan, logs())))
    assert "X: nan in cell 'c17', gene 'g6'" in line(odd, accept_normalised=True)


def test_a_fault_in_x_does_not_matter_where_a_layer_holds_counts() -> None:
    adata = made(spoilt(2, 2, np.nan, scaled()), layers={"counts": counts()})
    assert open_cells(adata, CellsConfig()).matrix == "layers/counts"


def test_empty_cells_are_left_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    x = counts()
    x[[2, 8, 9, 30]] = 0
    stored = sp.csr_matrix(counts())
    for row in (2, 8, 9, 30):
        stored.data[stored.indptr[row] : stored.indptr[row + 1]] = 0
    kept = [i for i in range(N) if i not in (2, 8, 9, 30)]
    for matrix in (sp.csr_matrix(x), sp.csc_matrix(x), x, stored):
        for data in (put(tmp_path, made(matrix)), made(matrix)):
            for stream in (False, True):
                cells = open_cells(data, CellsConfig(stream=stream))
                assert cells.chosen.tolist() == kept
                assert np.array_equal(dense(cells), x[kept])
                assert cells.metadata["label"].to_list() == [None if i == 5 else "TBN"[i % 3] for i in kept]
                said = capsys.readouterr().err
                assert "X: 4 of 40 cells are empty and are left out: no gene has a number but 0 (c2, c8, c9, …)" in said
    few = open_cells(made(sp.csr_matrix(x)), CellsConfig(max_cells=36))
    assert few.chosen.tolist() == kept


def test_nothing_to_read() -> None:
    assert line(made()[[]]) == "AnnData in memory: has no cells. Check what wrote it."
    assert line(made()[:, []].copy()) == "AnnData in memory, var: has no genes. Check what wrote it."
    for x in (np.zeros((N, GENES)), sp.csr_matrix((N, GENES)), sp.csc_matrix((N, GENES))):
        assert line(made(x)).startswith("AnnData in memory: all of 40 cells are empty: X holds nothing but 0. ")
    assert "holds no matrix (X, layers or raw)" in line(
        with_raw(None, counts())[:, :0].copy().__class__(obs=made().obs)
    )
    alone = anndata.AnnData(obs=made().obs, var=made().var, layers={"spliced": counts()})
    assert "has no X and no raw, and no layer that is called counts. Choose a matrix: --matrix layers/spl" in line(
        alone
    )


@pytest.mark.parametrize(
    ("config", "text"),
    [
        ({"donor_key": "doner"}, ": has no obs column 'doner'. Did you mean 'donor'?"),
        ({"batch_key": "Batch"}, ": has no obs column 'Batch'. Did you mean 'batch'?"),
        ({"stratify": "batch, celltype"}, ": has no obs column 'celltype'. Did you mean 'cell_type'?"),
        ({"cell_type_key": "celltype"}, ": has no obs column 'celltype'. Did you mean 'cell_type'?"),
        ({"matrix": "layers/cuonts"}, ": has no matrix 'layers/cuonts'. Did you mean 'layers/counts'?"),
        ({"matrix": "raw"}, ": has no matrix 'raw'. There are: X, layers/counts."),
        ({"donor_key": "cell_type"}, ": obs column 'cell_type' has no donor for 1 of 40 cells. Fill it in, or leave"),
    ],
)
def test_settings_that_do_not_fit(tmp_path: Path, config: dict[str, Any], text: str) -> None:
    adata = made(layers={"counts": counts()})
    assert line(put(tmp_path, adata), **config).startswith(text)
    assert line(adata, **config).startswith("AnnData in memory" + text)
    with pytest.raises(ConfigError, match="has no obs column 'dnor'. Did you mean 'donor'"):
        open_cells(adata, CellsConfig()).obs("dnor")


def test_files_without_cell_types_have_no_labels(capsys: pytest.CaptureFixture[str]) -> None:
    adata = made()
    adata.obs = adata.obs.rename(columns={"cell_type": "celltype"})
    assert open_cells(adata, CellsConfig()).metadata.columns == ["sample_id"]
    assert "Did you mean 'celltype'? (--cell-type-key)" in capsys.readouterr().err
    del adata.obs["celltype"]
    assert open_cells(adata, CellsConfig()).metadata.columns == ["sample_id"]
    assert "cell-type" not in capsys.readouterr().err


def test_donors_of_any_kind_become_text() -> None:
    adata = made()
    adata.obs["age"] = np.where(np.arange(N) == 3, np.nan, 40.0)
    adata.obs["empty"] = [" " if i < 2 else "d" for i in range(N)]
    adata.obs["number"] = pd.Categorical(np.arange(N) % 3)
    assert "obs column 'age' has no donor for 1 of 40 cells" in line(adata, donor_key="age")
    assert "obs column 'empty' has no donor for 2 of 40 cells" in line(adata, donor_key="empty")
    cells = open_cells(adata, CellsConfig(donor_key="number", cell_type_key="donor"))
    assert cells.metadata["group"].to_list() == [str(i % 3) for i in range(N)]
    assert cells.metadata["label"].to_list() == [str(i % 4) for i in range(N)]


def test_names_that_are_not_unique() -> None:
    adata = made()
    adata.obs_names = ["same" if i in (3, 9) else f"c{i}" for i in range(N)]
    text = "2 cells share their names with others, say 'same'. Make them unique: adata.obs_names_make_unique()."
    assert line(adata) == f"AnnData in memory: {text}"


def test_where_cells_are_from(tmp_path: Path) -> None:
    adata = made(layers={"other": counts()})
    path = put(tmp_path, adata)

    def source(data: Any = path, **config: Any) -> dict[str, str]:
        found = open_cells(data, CellsConfig(**config)).source
        assert all(isinstance(v, str) for v in found.values())
        return found

    assert len(source()["cells.h5ad"]) == 64
    assert source() == source(stream=True) == source(seed=5)
    assert source(adata) == source(adata, stream=True)
    ways = [source(), source(max_cells=9), source(max_cells=9, seed=1), source(max_cells=9, stratify="donor"), source(matrix="layers/other"), source(adata)]  # fmt: skip
    changed = adata.copy()
    changed.X[4, 0] += 1
    renamed = adata.copy()
    renamed.var_names = [f"h{i}" for i in range(GENES)]
    ways += [source(changed), source(renamed)]
    assert len({str(way) for way in ways}) == len(ways)


def test_other_objects() -> None:
    with pytest.raises(ConfigError, match="cells are a path to an .h5ad file, or an AnnData object, not list"):
        open_cells([1], CellsConfig())  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="a piece needs at least 1 cell, not 0"):
        list(open_cells(made(), CellsConfig()).pieces(0))


def test_views_and_backed_objects(tmp_path: Path) -> None:
    view = made()[5:20, ::2]
    assert np.array_equal(dense(open_cells(view, CellsConfig())), counts()[5:20, ::2])
    backed = anndata.read_h5ad(put(tmp_path, made()), backed="r")
    assert "is backed by a file. Give the file's path in its place" in line(backed)
    backed.file.close()


def test_a_matrix_by_columns_that_does_not_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from elute.store.imports import transpose

    monkeypatch.setattr(transpose, "free_memory", lambda: 4000)
    text = line(put(tmp_path, made(sp.csc_matrix(counts()))))
    assert text.startswith(", X: is sparse by columns (CSC), and ")
    assert text.endswith(" of 4.0 kB free. Save it by rows: adata.X = adata.X.tocsr().")
    monkeypatch.undo()
    assert transpose.free_memory() > 1 << 20


@pytest.mark.real_data
def test_real_cells_are_what_anndata_reads(real_data: Path) -> None:
    for path in sorted((real_data / "cells").glob("*.h5ad")) or pytest.fail("no cells"):
        adata = anndata.read_h5ad(path)
        for config in (CellsConfig(stream=True), CellsConfig(max_cells=300)):
            cells = open_cells(path, config)
            assert (cells.kind, cells.matrix) == ("counts", "X")
            assert len(cells) == (config.max_cells or adata.n_obs)
            assert cells.names == list(adata.obs_names[cells.chosen])
            expected, at = adata.X[cells.chosen], 0
            for piece in cells.pieces(501):
                part = expected[at : at + len(piece.indptr) - 1]
                at += part.shape[0]
                for got, want in zip(piece[1:], (part.indptr, part.indices, part.data), strict=True):
                    assert np.array_equal(got, want)
            assert at == len(cells)


def test_a_file_of_anndata_0_6() -> None:
    found = importlib.util.find_spec("scanpy")
    path = Path(found.origin or "").parent / "datasets" / "10x_pbmc68k_reduced.h5ad" if found else Path("none")
    if not path.is_file():
        pytest.skip("scanpy is not installed")
    text = line(path)
    assert "X looks scaled (it has negative values), raw looks log-normalised" in text
    assert "X looks scaled" in line(path, matrix="X", accept_normalised=True)
    cells = open_cells(path, CellsConfig(accept_normalised=True, cell_type_key="bulk_labels", donor_key="louvain"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata = anndata.read_h5ad(path)
    assert (cells.matrix, cells.kind) == ("raw", "log-normalised")
    assert np.array_equal(dense(cells), adata.raw.X.toarray())
    assert cells.var["index"].to_list() == list(adata.raw.var_names)
    assert cells.names == list(adata.obs_names)
    assert cells.metadata["label"].to_list() == adata.obs["bulk_labels"].tolist()
    assert cells.metadata["group"].to_list() == adata.obs["louvain"].tolist()
    assert cells.obs("n_genes").to_list() == adata.obs["n_genes"].tolist()


MEMORY = """
import resource, sys
from elute.models.cells.cellfile import CellsConfig, open_cells
import numpy, polars, h5py, scipy.sparse
def peak(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
small = open_cells(sys.argv[1], CellsConfig(stream=True)); sum(len(p.data) for p in small.pieces())
before = peak()
cells = open_cells(sys.argv[2], CellsConfig(stream=True))
total = sum(len(p.data) for p in cells.pieces(int(sys.argv[3])))
print((peak() - before) // 1024, len(cells), total)
"""


def test_a_large_file_is_read_in_little_memory(tmp_path: Path) -> None:
    small, path, n, each = put(tmp_path, made()), tmp_path / "large.h5ad", 60_000, 300
    with h5py.File(path, "w") as file:
        x = file.create_group("X")
        x.attrs["encoding-type"], x.attrs["shape"] = "csr_matrix", [n, 2000]
        x["indptr"] = np.arange(n + 1, dtype=np.int64) * each
        for name, dtype, row in (
            ("data", np.float32, np.arange(each) % 7 + 1),
            ("indices", np.int32, np.arange(each) * 3),
        ):
            held = x.create_dataset(name, (n * each,), dtype, chunks=(1 << 17,))
            for at in range(0, n, 6000):
                held[at * each : (at + 6000) * each] = np.tile(row.astype(dtype), 6000)
        for name, size in (("obs", n), ("var", 2000)):
            file[f"{name}/_index"] = np.array([f"{name}{i}" for i in range(size)], "S")
            file[name].attrs["_index"], file[name].attrs["column-order"] = "_index", []
    words = [sys.executable, "-c", MEMORY, str(small), str(path), "100000"]
    done = subprocess.run(words, capture_output=True, text=True, timeout=60, check=True)
    grown, cells, total = map(int, done.stdout.split())
    assert (cells, total) == (n, n * each)
    assert grown < 80, f"{grown} MB for a matrix of {n * each * 8 >> 20} MB"
