"""A few made-up cells in memory, to try a model with."""

from __future__ import annotations

import numpy as np
import polars as pl

from elute.models.cells.cellfile import Cells, CellsConfig
from elute.models.cells.matrices import Wanted, find_matrix
from elute.models.cells.sheet import Sheet
from elute.store.imports.nonzeros import in_numpy
from elute.store.imports.parts import as_column, in_memory


def example_cells(cells: int = 12, genes: int = 40, *, seed: int = 0) -> tuple[Cells, list[str]]:
    """Return cells with counts, each with at least one, and the genes' ids."""
    where = "example cells"
    counts = np.random.default_rng(seed).poisson(0.7, (cells, genes)).astype(np.float32)
    counts[np.arange(cells), np.arange(cells) % genes] += 1
    names = [f"ENSG{i:011d}" for i in range(1, genes + 1)]
    column = as_column(in_memory(np.array(names, object)), where)
    sheet = Sheet(
        where,
        pl.Series([f"cell{i}" for i in range(cells)]),
        {},
        {"X": lambda: in_numpy(counts, where)},
        lambda _: ("_index", {"_index": column}),
        None,
    )
    stratum = np.zeros(cells, np.int64)
    wanted = Wanted(matrix="X", accept_normalised=False, stratum=stratum, max_cells=None, seed=0, keep=True)
    return Cells(sheet, find_matrix(sheet, wanted), CellsConfig(), {}), names
