"""Every stage of a run on made-up cells and a model with random weights: whether an installation works, in seconds.

Nothing that comes out means anything: the model has learnt nothing. That its features follow the made-up types at all
is what random weights do, and why a run stands beside that control.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from elute.base import files
from elute.base.recipe import Section
from elute.cells.feature_settings import ExtractConfig, FeatureConfig, ValidationConfig
from elute.cells.pipeline import run_pipeline
from elute.cells.plan import Plan
from elute.cells.settings import ModelConfig
from elute.models.cells.cellfile import CellsConfig
from elute.validation.settings import DatabaseConfig

if TYPE_CHECKING:
    from elute.base.run import Artifact

CELLS, GENES, TYPES, DONORS = 320, 120, 4, 4


def test_pipeline(output: Path | None) -> Artifact:
    """Run all stages; what is written stays only where a folder is given."""
    if output is not None:
        return _run(output)
    with tempfile.TemporaryDirectory(prefix="elute-") as folder:
        return _run(Path(folder))


test_pipeline.__test__ = False  # type: ignore[attr-defined]  # what a test runner collects by its name


def _run(folder: Path) -> Artifact:
    files.make_folder(folder)
    data = folder / "cells.h5ad"
    write_cells(data)
    model = write_model(folder / "model")
    sections: dict[str, Section] = {
        "cells": CellsConfig(donor_key="donor"),
        "model": ModelConfig(model=model, device="cpu"),
        "training": FeatureConfig(steps=60, d_sae="128", k="8", train_batch_size=512, device="cpu"),
        "extract": ExtractConfig(columns=("phase",), top_k_genes=20, top_k_cells=20),
        "validation": ValidationConfig(controls="standard"),
        "databases": DatabaseConfig(sources="hpo,markers", null="20"),
    }
    return run_pipeline(Plan.of(data, folder / "run", sections))


def write_cells(path: Path, seed: int = 0) -> None:
    """Write cells of some types, each with genes of its own, of some donors."""
    import numpy as np
    import pandas as pd
    from anndata import AnnData
    from scipy.sparse import csr_array

    rng = np.random.default_rng(seed)
    kind, donor = np.arange(CELLS) % TYPES, np.arange(CELLS) // TYPES % DONORS
    rates = rng.gamma(0.5, 1.0, GENES)[None].repeat(CELLS, 0)
    for i in range(TYPES):
        rates[np.ix_(kind == i, np.arange(6 * i, 6 * i + 6))] += 3
    counts = rng.poisson(rates).astype(np.float32)
    counts[:, -1] += 1  # no cell is empty
    obs = pd.DataFrame(
        {
            "cell_type": [f"type {i}" for i in kind],
            "donor": [f"donor {i}" for i in donor],
            "phase": [("G1", "S")[i] for i in rng.integers(0, 2, CELLS)],
        },
        index=[f"cell {i}" for i in range(CELLS)],
    )
    names = [f"ENSG{i:011d}" for i in range(1, GENES + 1)]
    var = pd.DataFrame({"gene_name": symbols()}, index=names)
    AnnData(csr_array(counts), obs, var).write_h5ad(path)


def symbols() -> list[str]:
    """Genes that databases know: those of our own marker sets, from the first on."""
    from elute.validation.sources.markers import marker_sets

    return list(dict.fromkeys(gene for each in marker_sets() for gene in each.genes))[:GENES]


def write_model(folder: Path, seed: int = 0) -> Path:
    """Write a small model with random weights that knows these genes."""
    import torch

    from elute.models.tahoe.config import CollatorConfig, TahoeConfig
    from elute.models.tahoe.load import write_folder
    from elute.models.tahoe.model import TahoeX1

    names = ["<pad>", "<cls>", "<eoc>", *(f"ENSG{i:011d}" for i in range(1, GENES + 1))]
    vocabulary = {name: i for i, name in enumerate(names)}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = TahoeX1(TahoeConfig(d_model=32, n_layers=2, n_heads=2, vocab_size=len(vocabulary)))
    return write_folder(folder, network, CollatorConfig(), vocabulary=vocabulary)
