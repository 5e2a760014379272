"""The demonstration's parts: its cells are found without scanpy being imported, and what it says is what was found.

The whole, with the steps that it needs to learn anything, is a journey.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import polars as pl
import pytest
import torch
from scipy.sparse import csr_matrix

from elute.base.errors import MissingError
from elute.cells import demo
from elute.cells.demo import LINEAGES, DemoConfig, demo_file, demo_plan, demonstrate, show
from elute.models.cells.cellfile import open_cells


def few(path: Path) -> Path:
    """60 cells of four lineages, each with genes of its own."""
    rng = np.random.default_rng(0)
    kinds = ["CD19+ B", "CD14+ Monocyte", "CD56+ NK", "CD8+ Cytotoxic T"]
    x = 1 + rng.poisson(2, (60, 12))
    for i in range(60):
        x[i, 3 * (i % 4) : 3 * (i % 4) + 3] += rng.poisson(20, 3)
    genes = pd.DataFrame(index=[f"ENSG{i:011d}" for i in range(1, 13)])
    obs = pd.DataFrame({"bulk_labels": [kinds[i % 4] for i in range(60)]}, index=[f"cell{i}" for i in range(60)])
    adata = anndata.AnnData(csr_matrix(x.astype(np.float32)), obs, genes)
    adata.raw = adata
    adata.write_h5ad(path)
    return path


def test_the_cells_come_with_scanpy_which_is_not_imported() -> None:
    plan = demo_plan(Path("nowhere"), DemoConfig())
    cells = open_cells(plan.data, plan.cells)
    assert (len(cells), len(cells.var), cells.kind) == (700, 765, "log-normalised")
    assert set(cells.metadata["label"]) == set(LINEAGES)
    code = "import sys; from elute.cells.demo import demo_file; demo_file(); print('scanpy' in sys.modules, 'torch' in sys.modules)"
    told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=True)
    assert told.stdout.split() == ["False", "False"]


def test_without_them_it_says_what_to_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(demo, "find_spec", lambda _: None)
    with pytest.raises(MissingError, match=r"scanpy, which is not installed. Type: .*\[cells\]"):
        demo_file()
    spec = ModuleSpec("scanpy", None, origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(demo, "find_spec", lambda _: spec)
    with pytest.raises(MissingError, match="brings no 10x_pbmc68k_reduced.h5ad"):
        demo_file()


def test_all_of_it_on_few_cells_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"FEATURES": 24, "K": 4, "STEPS": 20, "MOST": 64}.items():
        monkeypatch.setattr(demo, name, value)
    file = few(tmp_path / "cells.h5ad")
    monkeypatch.setattr(demo, "demo_file", lambda: file)
    threads = torch.get_num_threads()
    first = demonstrate(tmp_path / "demo", DemoConfig(steps=2))
    assert "fewer than 800 steps" in capsys.readouterr().err
    assert torch.get_num_threads() == threads
    controls = next(iter(first.summary["features"]["controls"].values()))
    assert controls["follow"]["features"]["columns"] == controls["follow"]["random weights"]["columns"] == 24
    cells = pl.read_parquet(tmp_path / "demo" / "cells.parquet")
    assert set(cells["label"]) == {"B", "monocyte", "NK", "T"}
    assert dict(cells["split"].value_counts().iter_rows()) == {"train": 48, "test": 12}
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    again = demonstrate(tmp_path / "demo", DemoConfig(steps=2))
    assert again.summary["features"]["controls"] == first.summary["features"]["controls"]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == before
    text = show({**first.summary, "path": str(tmp_path / "demo")})
    assert first.summary["verdict"] in text
    assert "random weights" in text
    assert f"{tmp_path}/demo/dashboard.html" in text
