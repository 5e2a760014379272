"""The demonstration's parts: its cells are found without scanpy being imported, and what it says is what was found.

The whole, with the steps that it needs to learn anything, is a journey.
"""

from __future__ import annotations

import subprocess
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import torch
from scipy.sparse import csr_matrix

from elute.base.errors import MissingError
from elute.cells import demo
from elute.cells.demo import DemoConfig, demo_cells, demo_file, demonstrate, show
from elute.models.cells.cellfile import Cells, CellsConfig, open_cells


def few(seed: int) -> Cells:
    x = (1 + np.random.default_rng(0).poisson(5, (60, 12))).astype(np.float32)
    genes = pd.DataFrame(index=[f"ENSG{i:011d}" for i in range(1, 13)])
    adata = anndata.AnnData(csr_matrix(x), pd.DataFrame(index=[f"cell{i}" for i in range(60)]), genes)
    return open_cells(adata, CellsConfig(seed=seed))


def test_the_cells_come_with_scanpy_which_is_not_imported() -> None:
    cells = demo_cells(0)
    assert (len(cells), len(cells.var), cells.kind) == (700, 765, "log-normalised")
    assert cells.metadata["label"].n_unique() == 10
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
    for name, value in {"demo_cells": few, "FEATURES": 24, "K": 4, "ROWS": 2000}.items():
        monkeypatch.setattr(demo, name, value)
    threads = torch.get_num_threads()
    first = demonstrate(tmp_path, DemoConfig(steps=2))
    assert "fewer than 800 steps" in capsys.readouterr().err
    assert torch.get_num_threads() == threads
    found: dict[str, Any] = first.summary["dictionary"]
    assert found["trained"]["rows"] == found["random weights"]["rows"] == 60 * 12
    assert found["trained"]["explained_variance"] != found["random weights"]["explained_variance"]
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")}
    assert len(before) == 3
    again = demonstrate(tmp_path, DemoConfig(steps=2))
    assert again.summary == first.summary
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*.safetensors")} == before
    text = show({**first.summary, "path": str(tmp_path)})
    assert first.summary["verdict"] in text
    assert f"{found['random weights']['explained_variance']:.1%}" in text
    assert f"--model {tmp_path}/model" in text
