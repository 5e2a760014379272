"""A small file of cells, and a small model with random weights that knows most of its genes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from elute.models.tahoe.config import CollatorConfig, TahoeConfig
from elute.models.tahoe.load import write_folder
from elute.models.tahoe.model import TahoeX1

GENES = [f"ENSG{i:011d}" for i in range(1, 41)]


@pytest.fixture(scope="module")
def cells_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 cells of 3 donors, 40 genes of which the model knows 36; cell5 is empty."""
    import anndata
    import pandas as pd
    from scipy.sparse import csr_matrix

    rng = np.random.default_rng(0)
    counts = rng.poisson(0.8, (60, 40)).astype(np.float32)
    counts[:, 0] += 1
    counts[5] = 0
    obs = pd.DataFrame(
        {"cell_type": [f"type{i % 4}" for i in range(60)], "donor": [f"donor{i % 3}" for i in range(60)]},
        index=[f"cell{i}" for i in range(60)],
    )
    path = tmp_path_factory.mktemp("cells") / "cells.h5ad"
    anndata.AnnData(csr_matrix(counts), obs, pd.DataFrame({"gene_name": GENES}, index=GENES)).write_h5ad(path)
    return path


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model."""
    vocabulary = {name: i for i, name in enumerate(["<pad>", "<cls>", "<eoc>", *GENES[:36]])}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)  # not the seed of the random control
        network = TahoeX1(TahoeConfig(d_model=16, n_layers=2, n_heads=2, vocab_size=len(vocabulary)))
    return write_folder(tmp_path_factory.mktemp("model"), network, CollatorConfig(), vocabulary=vocabulary)
