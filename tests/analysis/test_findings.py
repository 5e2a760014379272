"""The Python face of a run, and its cells as AnnData: what the tables and the codes say, and nothing else."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import anndata
import numpy as np
import polars as pl
import pytest
import torch

from elute.analysis.findings import Run, open_run
from elute.base.codes import Codes
from elute.base.errors import ConfigError, DamagedError, DataError, GuardError
from elute.store.codes_writer import CodesWriter
from elute.store.reader import Store
from elute.store.writer import StoreWriter

_SPEC = importlib.util.spec_from_file_location("made_up_run", Path(__file__).parents[1] / "reports" / "made_up_run.py")
assert _SPEC is not None
assert _SPEC.loader is not None
made_up = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(made_up)

N, F = 24, 12  # cells, features


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return made_up.make_run(tmp_path / "pbmc", features=40)


def test_the_first_features_by_any_column(run: Path) -> None:
    found = open_run(run)
    frame = pl.read_parquet(run / "features.parquet")
    assert found.sites == ["pbmc"]
    assert found.features.frame.equals(frame)
    assert found.features.top(5)["frequency"].to_list() == sorted(frame["frequency"], reverse=True)[:5]
    by_q = found.features.top(40, by="cell_type", descending=False)["cell_type"].to_list()
    assert by_q[-5:] == [None] * 5
    assert by_q[:35] == sorted(by_q[:35])
    with pytest.raises(DataError, match=r"features have no column 'frequenzy'. Did you mean 'frequency'"):
        found.features.top(by="frequenzy")
    assert "40, of which 35 fire" in repr(found.features)


def test_one_feature_and_its_tables(run: Path) -> None:
    feature = open_run(run).feature(9)
    assert feature.row["kind"] == "gene program"
    genes = pl.read_parquet(run / "feature_genes.parquet").filter(pl.col("feature") == 9)
    assert feature.genes["symbol"].head(10).to_list() == feature.row["top_genes"]
    assert feature.genes_raw["symbol"].head(10).to_list() == feature.row["top_genes_raw"]
    assert len(feature.genes) + genes["rank"].null_count() == len(genes)
    assert feature.cells["rank"].to_list() == list(range(1, 11))
    assert set(feature.tests["level"]) == set(made_up.MARKERS)
    assert set(feature.numbers["column"]) == {"total counts", "percent mitochondrial"}
    assert feature.near.rows() == [(10, 0.81), (11, 0.42)]
    assert feature.together.rows() == [(16, 0.63), (39, 0.2)]
    assert repr(feature) == f"Feature(9: gene program; {', '.join(feature.row['top_genes'][:5])})"
    with pytest.raises(DataError, match="there is no feature 40 in 40 features. They are numbered from 0 to 39"):
        open_run(run).feature(40)


def test_a_run_of_several_sites_is_asked_for_one(tmp_path: Path) -> None:
    for site in ("blocks.10.hook_mlp_out", "blocks.2.hook_mlp_out"):
        made_up.make_run(tmp_path / "run" / site, features=8)
    (tmp_path / "run" / "activations").mkdir()
    found = open_run(tmp_path / "run")
    assert found.sites == ["blocks.2.hook_mlp_out", "blocks.10.hook_mlp_out"]
    assert len(found.site("blocks.10.hook_mlp_out").features) == 8
    assert found.site("blocks.2.hook_mlp_out").feature(2).genes.height > 0
    for ask in (lambda: found.features, lambda: found.feature(1), lambda: found.codes, found.to_anndata):
        with pytest.raises(
            DataError, match=r"several sites: blocks.2.hook_mlp_out, blocks.10.hook_mlp_out. Say which: .site\("
        ):
            ask()
    with pytest.raises(DataError, match="there is no site 'blocks.3.hook_mlp_out'. Did you mean"):
        found.site("blocks.3.hook_mlp_out")


def test_what_is_missing_is_told(run: Path, tmp_path: Path) -> None:
    (run / "feature_genes.parquet").unlink()
    (run / "feature_cells.parquet").write_bytes(b"PAR1")
    feature = open_run(run).feature(1)
    with pytest.raises(DataError, match="holds no feature_genes.parquet. Type: elute cells extract --sae"):
        _ = feature.genes
    with pytest.raises(DamagedError, match="feature_cells.parquet: cannot be read"):
        _ = feature.cells
    with pytest.raises(DataError, match="is not the folder of a run"):
        open_run(tmp_path)  # it holds a run, and is none
    with pytest.raises(DataError, match="there is no such folder"):
        open_run(tmp_path / "nowhere")
    (run / "cells.parquet").unlink()
    with pytest.raises(DataError, match="holds no cells.parquet"):
        _ = open_run(run).cells
    with pytest.raises(DataError, match="there is no dictionary"):
        _ = open_run(run).dictionary


def test_opening_loads_nothing_heavy() -> None:
    code = "import sys, elute.analysis.findings; print([m for m in ('torch', 'polars', 'anndata') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout.strip() == "[]", done.stderr


@pytest.fixture
def coded(tmp_path: Path) -> tuple[Path, np.ndarray, np.ndarray]:
    """A run with codes; the dense codes of its rows, and the cell of each row."""
    rng = np.random.default_rng(3)
    run = tmp_path / "coded"
    cell = np.repeat(np.arange(N), rng.integers(1, 9, N))
    names = [f"cell{N - i}" for i in range(N)]  # not in the order of the alphabet
    with StoreWriter(run / "activations", sites={"mlp": 3}, rows_per_shard=17) as writer:
        writer.append(
            {"mlp": torch.zeros(len(cell), 3)},
            {"sample_id": [names[c] for c in cell], "token": [f"g{i}" for i in range(len(cell))]},
        )
    dense = rng.exponential(1, (len(cell), F)) * (rng.random((len(cell), F)) < 0.2)
    dense[:, [2, 7]] = 0
    dense = np.where(np.argsort(np.argsort(-dense, 1), 1) < 4, dense, 0).astype(np.float32)
    codes = Codes.from_dense(torch.from_numpy(dense), 4)
    store = Store(run / "activations")
    with CodesWriter(
        run / "codes", store=store, dictionary="d" * 64, n_features=F, sites=["mlp"], dtype="fp32"
    ) as writer:
        for a, b in zip(store.starts[:-1], store.starts[1:], strict=True):
            writer.append_shard(codes[a:b], None)
    rows = rng.permutation(N + 5)[:N]
    pl.DataFrame(
        {
            "cell": names,
            "row": rows,
            "label": ["B", "T"] * (N // 2),
            "obs:age": [i * 1.5 for i in range(N)],
            "batch": [None] * N,
        }
    ).write_parquet(run / "cells.parquet")
    return run, dense, cell


def expected(dense: np.ndarray, cell: np.ndarray, pooling: str) -> np.ndarray:
    pool = {"mean": np.mean, "sum": np.sum, "max": np.max}[pooling]
    return np.stack([pool(dense[cell == c].astype(np.float64), axis=0) for c in range(N)])


@pytest.mark.parametrize("pooling", ["mean", "sum", "max"])
def test_cells_and_their_features(coded: tuple[Path, np.ndarray, np.ndarray], pooling: str) -> None:
    run, dense, cell = coded
    made = Run(run).to_anndata(pooling=pooling)
    alive = np.flatnonzero(dense.any(0))
    assert 2 not in alive
    found = made.obsm["X_elute"]
    assert found.format == "csr"
    np.testing.assert_allclose(found.toarray(), expected(dense, cell, pooling)[:, alive], rtol=1e-6)
    assert made.uns["elute"]["features"]["feature"].tolist() == alive.tolist()
    assert made.uns["elute"]["site"] == "mlp"
    assert made.uns["elute"]["dictionary"] == "d" * 64
    assert made.obs["label"].tolist()[:2] == ["B", "T"]
    assert made.obs["age"].tolist()[:3] == [0, 1.5, 3]
    assert "batch" not in made.obs
    assert made.obs["elute_read"].all()
    assert made.n_vars == 0


def test_the_file_that_the_cells_came_from_is_kept_whole(
    coded: tuple[Path, np.ndarray, np.ndarray], tmp_path: Path
) -> None:
    run, dense, cell = coded
    rows = pl.read_parquet(run / "cells.parquet")["row"].to_numpy()
    names = np.array([f"other{i}" for i in range(N + 5)], dtype=object)
    names[rows] = pl.read_parquet(run / "cells.parquet")["cell"].to_list()
    whole = anndata.AnnData(np.eye(N + 5, 4, dtype=np.float32))
    whole.obs_names = names
    whole.write_h5ad(tmp_path / "whole.h5ad")
    made = Run(run).to_anndata(tmp_path / "whole.h5ad")
    wanted = np.zeros((N + 5, F))
    wanted[rows] = expected(dense, cell, "mean")
    np.testing.assert_allclose(made.obsm["X_elute"].toarray(), wanted[:, dense.any(0)], rtol=1e-6)
    assert made.n_vars == 4
    assert sorted(np.flatnonzero(made.obs["elute_read"])) == sorted(rows)
    whole.obs_names = names[::-1]
    whole.write_h5ad(tmp_path / "other.h5ad")
    with pytest.raises(GuardError, match=r"other.h5ad: its cell number .* Give the file that the run read"):
        Run(run).to_anndata(tmp_path / "other.h5ad")
    whole[:6].write_h5ad(tmp_path / "short.h5ad")
    with pytest.raises(GuardError, match="has 6 cells, and the run read number"):
        Run(run).to_anndata(tmp_path / "short.h5ad")


def test_codes_of_other_cells_are_refused(coded: tuple[Path, np.ndarray, np.ndarray]) -> None:
    run, _, _ = coded
    cells = pl.read_parquet(run / "cells.parquet")
    cells.head(N - 1).write_parquet(run / "cells.parquet")
    with pytest.raises(GuardError, match="cell 'cell1' has codes, and is not in cells.parquet"):
        Run(run).to_anndata()
    pl.concat([cells, cells.head(1)]).write_parquet(run / "cells.parquet")
    with pytest.raises(DataError, match="two cells have one name"):
        Run(run).to_anndata()
    cells.write_parquet(run / "cells.parquet")
    with pytest.raises(ConfigError, match="Choose mean, max or sum"):
        Run(run).to_anndata(pooling="median")  # type: ignore[arg-type]


def test_only_some_rows_were_encoded(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with StoreWriter(run / "activations", sites={"mlp": 2}, rows_per_shard=4) as writer:
        writer.append(
            {"mlp": torch.zeros(8, 2)},
            {"sample_id": list("aabbccdd"), "token": list("01234567")},
        )
    store = Store(run / "activations")
    with CodesWriter(
        run / "codes", store=store, dictionary="d", n_features=3, sites=["mlp"], dtype="fp32", selection="split train"
    ) as codes:
        for shard in range(2):
            dense = torch.tensor([[0.0, 1 + shard, 0], [0, 0, 3]])
            codes.append_shard(Codes.from_dense(dense, 1), np.array([0, 2]))
    pl.DataFrame({"cell": list("dcba")}).write_parquet(run / "cells.parquet")
    made = Run(run).to_anndata()
    assert made.obsm["X_elute"].toarray().tolist() == [[0, 3], [2, 0], [0, 3], [1, 0]]
    assert json.loads(made.uns["elute"]["record"]) == {"schema": 1, "stages": {}}
