"""`elute cells export --h5ad`: a file that anndata reads back, and nothing written where it should not be."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import polars as pl
import pytest
import torch

from elute.base.codes import Codes
from elute.base.errors import ConfigError, DataError, GuardError
from elute.cells.anndata_export import export_h5ad
from elute.store.codes_writer import CodesWriter
from elute.store.reader import Store
from elute.store.writer import StoreWriter


@pytest.fixture
def run(tmp_path: Path) -> Path:
    """Two cells of two genes: feature 1 fires in the first, feature 3 in both."""
    folder = tmp_path / "run"
    with StoreWriter(folder / "activations", sites={"mlp": 2}) as writer:
        writer.append({"mlp": torch.zeros(4, 2)}, {"sample_id": ["a", "a", "b", "b"], "token": ["g", "h", "g", "h"]})
    dense = torch.tensor([[0, 2, 0, 4], [0, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 1]], dtype=torch.float32)
    store = Store(folder / "activations")
    with CodesWriter(folder / "codes", store=store, dictionary="d", n_features=4, sites=["mlp"], dtype="fp32") as codes:
        codes.append_shard(Codes.from_dense(dense, 2), None)
    pl.DataFrame({"cell": ["a", "b"], "row": [2, 0], "label": ["B", None]}).write_parquet(folder / "cells.parquet")
    told = {"feature": [0, 1, 2, 3], "kind": [None, "cell state", None, None], "frequency": [0.0, 0.25, 0.0, 0.75]}
    genes = {"top_genes": [[], ["CD79A", "MS4A1"], [], ["LYZ"]], "auroc": [None, 0.9, None, None]}
    pl.DataFrame(told | genes).write_parquet(folder / "features.parquet")
    return folder


def test_a_written_file_reads_back(run: Path, tmp_path: Path) -> None:
    artifact = export_h5ad(run, tmp_path / "out" / "cells.h5ad")
    assert artifact.summary == {"cells": 2, "read": 2, "features": 2, "site": "mlp", "pooling": "mean", "genes": 0}
    found = anndata.read_h5ad(artifact.path)
    assert found.obsm["X_elute"].toarray().tolist() == [[1, 2], [0, 1]]
    table = found.uns["elute"]["features"]
    assert table.index.tolist() == ["feature 1", "feature 3"]
    assert table["top_genes"].tolist() == ["CD79A, MS4A1", "LYZ"]
    assert table["kind"].tolist() == ["cell state", ""]
    assert np.isnan(table["auroc"].tolist()[1])
    assert found.obs_names.tolist() == ["a", "b"]
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["cells.h5ad"]


def test_with_the_cells_file_its_other_cells_have_no_features(run: Path, tmp_path: Path) -> None:
    whole = anndata.AnnData(np.arange(9, dtype=np.float32).reshape(3, 3))
    whole.obs_names = ["b", "never read", "a"]
    whole.write_h5ad(tmp_path / "whole.h5ad")
    artifact = export_h5ad(run, tmp_path / "cells.h5ad", data=tmp_path / "whole.h5ad", pooling="max")
    assert (artifact.summary["cells"], artifact.summary["read"], artifact.summary["genes"]) == (3, 2, 3)
    found = anndata.read_h5ad(artifact.path)
    assert found.obsm["X_elute"].toarray().tolist() == [[0, 1], [0, 0], [2, 4]]
    assert found.obs["elute_read"].tolist() == [True, False, True]
    assert found.X.tolist() == whole.X.tolist()


def test_faults_write_nothing(run: Path, tmp_path: Path) -> None:
    target = tmp_path / "cells.h5ad"
    with pytest.raises(ConfigError, match="the output is an .h5ad file"):
        export_h5ad(run, tmp_path / "cells.csv")
    with pytest.raises(DataError, match="there is no site 'attn'"):
        export_h5ad(run, target, site="attn")
    with pytest.raises(ConfigError, match="Check the path given to --data"):
        export_h5ad(run, target, data=tmp_path / "none.h5ad")
    assert not target.exists()
    export_h5ad(run, target)
    before = target.read_bytes()
    with pytest.raises(GuardError, match="give --overwrite"):
        export_h5ad(run, target)
    with pytest.raises(ConfigError, match="the output is the input"):
        export_h5ad(run, target, data=target, overwrite=True)
    assert target.read_bytes() == before
    export_h5ad(run, target, overwrite=True, pooling="sum")
    assert anndata.read_h5ad(target).obsm["X_elute"].toarray().tolist() == [[2, 4], [0, 2]]
