"""Real single-cell files, from the download to rows that can be trusted."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import polars as pl
import pytest

from elute.store.reader import Store
from elute.store.shuffle import ShuffleConfig

Elute = Callable[..., subprocess.CompletedProcess[str]]

pytestmark = pytest.mark.real_data

FILES = {
    "pbmc3k_labelled_500x12627": ("cell_type", "sample_id"),
    "pbmc1k_10xv2_996x33538": (None, None),
    "pbmc_multidataset_2100x21802": (None, "dataset_id"),
    "kang_ifnb_muscat_1556x1267": ("condition", None),
    "glioblastoma_panobinostat_5000x300": (None, "donor_id"),
    "eccite_papalexi_perturbseq_20729x299": ("perturbation", None),
}


@pytest.mark.parametrize("name", FILES)
def test_counts_of_a_real_file(elute: Elute, real_data: Path, tmp_path: Path, name: str) -> None:
    label, group = FILES[name]
    path = real_data / "cells" / f"{name}.h5ad"
    words = ["arrays", "import", path, "--output", "s", "--key", "X", "--json"]
    words += ["--label", label] if label else []
    words += ["--group", group] if group else []
    got = json.loads(elute(*words).stdout)
    cells = anndata.read_h5ad(path)
    assert (got["rows"], got["sites"]) == (cells.n_obs, {"X": cells.n_vars})
    store = Store(tmp_path / "s")
    assert store.metadata()["sample_id"].to_list() == cells.obs_names.to_list()
    total = 0.0
    for batch in store.shuffled(ShuffleConfig(batch_size=512, seed=1)):
        expected = cells.X[batch.places.numpy()]
        np.testing.assert_array_equal(
            batch.rows["X"].numpy(), expected.toarray() if hasattr(expected, "toarray") else expected
        )
        total += float(batch.rows["X"].sum())
    assert total == pytest.approx(float(cells.X.sum()), rel=1e-6)
    elute("arrays", "verify", "s")


def test_patients_never_lie_in_two_splits(elute: Elute, real_data: Path, tmp_path: Path) -> None:
    path = real_data / "cells" / "glioblastoma_panobinostat_5000x300.h5ad"
    elute("arrays", "import", path, "--output", "s", "--key", "X", "--group", "donor_id", "--dtype", "bf16")
    got = json.loads(elute("arrays", "split", "s", "--fractions", "train=0.6,validation=0.2,test=0.2", "--json").stdout)
    donors = anndata.read_h5ad(path).obs["donor_id"].astype(str)
    assert sum(got["groups"].values()) == donors.nunique() == 5
    frame = Store(tmp_path / "s").metadata()
    assert frame["group"].to_list() == donors.to_list()
    assert frame.group_by("group").agg(pl.col("split").n_unique())["split"].max() == 1
    stats = json.loads(elute("arrays", "stats", "s", "--method", "pca", "--rank", "20", "--json").stdout)
    assert stats["split"] == "train"
    assert stats["sites"]["X"]["rows"] == got["rows"]["train"]


def test_a_misspelt_column_names_the_near_one(elute: Elute, real_data: Path) -> None:
    path = real_data / "cells" / "glioblastoma_panobinostat_5000x300.h5ad"
    err = elute("arrays", "import", path, "--output", "s", "--key", "X", "--group", "donorid", code=1).stderr
    assert "has no column 'donorid'. Did you mean 'donor_id'" in err
    err = elute("arrays", "import", path, "--output", "s", "--key", "obsm/X_pca", code=1).stderr
    assert "has no array 'obsm/X_pca'" in err
