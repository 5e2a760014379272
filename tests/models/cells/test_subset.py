"""Some of the cells of a file: entry for entry those of the whole, named, and told apart from others."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
import scipy.sparse as sp

from elute.base.errors import ConfigError
from elute.models.cells.cellfile import Cells, CellsConfig, open_cells

N, GENES = 30, 12
PLACES = [0, 3, 4, 11, 26]
CONFIG = CellsConfig(donor_key="donor", max_cells=27)


def adata() -> anndata.AnnData:
    counts = np.random.default_rng(0).poisson(0.7, (N, GENES)).astype(np.float32)
    counts[:, 0] += np.arange(1, N + 1)  # every cell has a gene, and says which it is
    obs = pd.DataFrame(
        {"cell_type": [f"t{i % 3}" for i in range(N)], "donor": [f"d{i % 4}" for i in range(N)], "age": np.arange(N)},
        index=[f"c{i}" for i in range(N)],
    )
    var = pd.DataFrame({"gene_ids": [f"ENSG{i:011d}" for i in range(GENES)]}, index=[f"g{i}" for i in range(GENES)])
    return anndata.AnnData(sp.csr_matrix(counts), obs=obs, var=var)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("cells") / "cells.h5ad"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        adata().write_h5ad(file)
    return file


def dense(cells: Cells, size: int = 3) -> np.ndarray[Any, Any]:
    parts = []
    for piece in cells.pieces(size):
        shape = (len(piece.indptr) - 1, GENES)
        parts.append(sp.csr_matrix((piece.data, piece.indices, piece.indptr), shape=shape).toarray())
    return np.concatenate(parts)


@pytest.fixture(params=["file", "stream", "memory"])
def cells(request: pytest.FixtureRequest, path: Path) -> Cells:
    data = adata() if request.param == "memory" else path
    return open_cells(data, CONFIG.model_copy(update={"stream": request.param == "stream"}))


def test_a_subset_is_the_whole_at_its_places(cells: Cells) -> None:
    whole = dense(cells)
    part = cells.subset(PLACES)
    assert len(part) == len(PLACES)
    assert part.total == cells.total == N
    assert part.names == [cells.names[i] for i in PLACES]
    assert part.metadata.equals(cells.metadata[PLACES])
    assert part.chosen.tolist() == cells.chosen[PLACES].tolist()
    for size in (1, 2, 100):
        np.testing.assert_array_equal(dense(part, size), whole[PLACES])
    assert part.obs("age").to_list() == cells.obs("age")[PLACES].to_list()
    assert part.obs("age").to_list() == part.chosen.tolist(), "which the file says of each cell"
    assert part.var is cells.var
    assert part.matrix == cells.matrix
    assert len(cells) == 27, "the whole is as it was"
    np.testing.assert_array_equal(dense(cells), whole)


def test_a_subset_of_a_subset(cells: Cells) -> None:
    part = cells.subset(np.array(PLACES)).subset([1, 4])
    assert part.names == [cells.names[3], cells.names[26]]
    np.testing.assert_array_equal(dense(part), dense(cells)[[3, 26]])
    assert part.source["subset"] == "2 of 27 chosen cells"


def test_its_source_says_so(cells: Cells) -> None:
    whole = cells.source
    part, other = cells.subset(PLACES).source, cells.subset([0, 3, 4, 11, 25]).source
    assert "subset" not in whole
    assert part["subset"] == "5 of 27 chosen cells"
    assert part["cells"].startswith("5 of 30, ")
    assert len({told["cells"] for told in (whole, part, other)}) == 3
    assert (part["matrix"], part["sample"]) == (whole["matrix"], whole["sample"])
    assert cells.subset(range(5)).source == cells.subset([0, 1, 2, 3, 4]).source
    everything = cells.subset(range(27)).source
    assert everything["cells"] == whole["cells"]


@pytest.mark.parametrize("places", [[], [3, 3], [4, 3], [-1, 2], [0, 27], [[0, 1]], [0.0, 1.0], [True, False]])
def test_places_that_are_none(cells: Cells, places: list[Any]) -> None:
    with pytest.raises(ConfigError) as told:
        cells.subset(places)
    assert "\n" not in str(told.value)
    assert str(told.value).startswith(f"{cells.where}: ")
