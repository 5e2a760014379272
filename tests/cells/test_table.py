"""The tables of cells and genes, and who chooses and who shows."""

from __future__ import annotations

from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import polars as pl
import pytest
from scipy.sparse import csr_matrix

from elute.base.errors import ConfigError, DamagedError, DataError
from elute.cells import table
from elute.models.cells.cellfile import Cells, CellsConfig, open_cells

GENES = [f"ENSG{i:011d}" for i in range(1, 11)]


def cells(**config: object) -> Cells:
    rng = np.random.default_rng(0)
    counts = rng.poisson(1.0, (100, 10)).astype(np.float32)
    counts[:, 0] += 1
    obs = pd.DataFrame(
        {
            "cell_type": ["rare" if i < 10 else "common" for i in range(100)],
            "donor": [f"d{i % 5}" for i in range(100)],
            "phase": ["G1" if i % 2 else "S" for i in range(100)],
            "age": rng.normal(50, 10, 100),
            "barcode": [f"b{i}" for i in range(100)],
            "one": "same",
        },
        index=[f"cell{i}" for i in range(100)],
    )
    return open_cells(anndata.AnnData(csr_matrix(counts), obs, pd.DataFrame(index=GENES)), CellsConfig(**config))  # type: ignore[arg-type]


def test_half_of_the_donors_show_what_others_chose() -> None:
    opened = cells(donor_key="donor")
    first = table.draw_halves(opened, hold_out=None, seed=0)
    by = opened.metadata.group_by("group").agg(pl.col("split").unique())
    assert by["split"].list.len().max() == 1
    counts = dict(opened.metadata["split"].value_counts().iter_rows())
    assert counts in ({"train": 60, "test": 40}, {"train": 40, "test": 60})
    again, other = cells(donor_key="donor"), cells(donor_key="donor")
    assert table.draw_halves(again, hold_out=None, seed=0) == first
    assert table.draw_halves(other, hold_out=0.2, seed=0) != first
    assert dict(other.metadata["split"].value_counts().iter_rows()) == {"train": 80, "test": 20}


def test_without_donors_a_fifth_of_the_cells_of_each_type_shows() -> None:
    opened = cells()
    table.draw_halves(opened, hold_out=None, seed=1)
    held = opened.metadata.filter(split="test")
    assert dict(held["label"].value_counts().iter_rows()) == {"rare": 2, "common": 18}


def test_one_donor_cannot_choose_and_show() -> None:
    with pytest.raises(DataError, match=r"1 groups cannot fill 2 splits.*Leave --donor-key out"):
        table.draw_halves(cells(donor_key="one"), hold_out=None, seed=0)


def test_the_table_of_cells_says_what_the_file_says() -> None:
    opened = cells(donor_key="donor", max_cells=30)
    table.draw_halves(opened, hold_out=None, seed=0)
    frame = table.cell_table(opened, ("phase", "age"))
    assert frame["cell"].to_list() == opened.names
    assert frame["row"].to_list() == opened.chosen.tolist()
    piece = next(opened.pieces(1000))
    for i in (0, 7, 29):
        part = piece.data[piece.indptr[i] : piece.indptr[i + 1]]
        assert frame["total"][i] == part.sum()
        assert frame["genes"][i] == (part > 0).sum()
    assert frame["obs:phase"].dtype == pl.String
    assert frame["obs:age"].dtype == pl.Float64
    with pytest.raises(ConfigError, match="no obs column 'fase'"):
        table.cell_table(opened, ("fase",))


def test_all_columns_are_those_that_can_be_compared() -> None:
    opened = cells(donor_key="donor")
    names = [column.name for column in table.further_columns(opened, ("all",))]
    assert names == ["obs:phase", "obs:age"]


def test_a_table_that_is_none(tmp_path: Path) -> None:
    (tmp_path / "cells.parquet").write_text("not a table")
    with pytest.raises(DamagedError, match="cannot be read as a table"):
        table.read(tmp_path / "cells.parquet")
