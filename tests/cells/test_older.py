"""An `activations.pt` of the project before this one, as it wrote it: [cells, tokens, width] and the tokens."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from elute.base.errors import DamagedError, DataError
from elute.cells import mock
from elute.cells.feature_settings import FeatureConfig
from elute.cells.older import SITE
from elute.cells.pipeline import Stages, run_pipeline
from elute.cells.plan import Plan
from elute.cells.settings import ModelConfig
from elute.models.cells.cellfile import open_cells
from elute.store.reader import Store


@pytest.fixture
def plan(tmp_path: Path) -> Plan:
    mock.write_cells(tmp_path / "cells.h5ad")
    model = mock.write_model(tmp_path / "model")
    sections: dict[str, Any] = {
        "model": ModelConfig(model=model, device="cpu"),
        "training": FeatureConfig(steps=10, d_sae="32", k="4", train_batch_size=128, device="cpu"),
    }
    return Plan.of(tmp_path / "cells.h5ad", tmp_path / "run", sections)


def older(cells: int = 40, tokens: int = 12) -> dict[str, torch.Tensor]:
    random = torch.Generator().manual_seed(0)
    genes = torch.stack([3 + torch.randperm(120, generator=random)[:tokens] for _ in range(cells)])
    genes[:, 0] = 1
    genes[::3, -2:] = 0
    return {"activations": torch.randn(cells, tokens, 16, generator=random), "gene_ids": genes}


def save(plan: Plan, content: Any) -> None:
    plan.output.mkdir(exist_ok=True)
    torch.save(content, plan.output / "activations.pt")


def test_its_genes_become_rows_with_their_counts(plan: Plan) -> None:
    content = older()
    save(plan, content)
    skip = Stages(saved_activations=True, validation=True, dashboard=True)
    found = run_pipeline(plan, skip).summary["sites"][0]
    genes = content["gene_ids"] >= 3
    store = Store(plan.activations)
    rows, frame = next(store.batches(10_000))
    torch.testing.assert_close(rows[SITE], content["activations"][genes])
    assert found["rows"] == len(frame) == int(genes.sum())
    cells = open_cells(plan.data)
    piece = next(cells.pieces(1000))
    for i in (0, 1, 100, 300):
        row = frame.row(i, named=True)
        cell = cells.names.index(row["sample_id"])
        part = slice(int(piece.indptr[cell]), int(piece.indptr[cell + 1]))
        column = cells.var["index"].to_list().index(row["token"])
        counts = dict(zip(piece.indices[part].tolist(), piece.data[part].tolist(), strict=True))
        assert row["value"] == counts.get(column, 0)
        assert row["total"] == piece.data[part].sum()
        assert int(content["gene_ids"][genes][i]) == 3 + column
    assert np.array_equal(frame["sample_id"].unique(maintain_order=True).to_numpy(), cells.names[:40])


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"weights": torch.zeros(2)}, "holds no activations and gene_ids"),
        ({"activations": torch.zeros(2, 3), "gene_ids": torch.zeros(2, 3).long()}, r"shapes \(2, 3\) and \(2, 3\)"),
        (
            {"activations": torch.zeros(2, 3, 4), "gene_ids": torch.zeros(2, 4).long()},
            r"shapes \(2, 3, 4\) and \(2, 4\)",
        ),
        ({"activations": torch.zeros(2, 3, 4), "gene_ids": torch.zeros(2, 3)}, "shapes"),
        ({"activations": torch.zeros(2, 3, 4).long(), "gene_ids": torch.zeros(2, 3).long()}, "not floating point"),
    ],
)
def test_a_file_of_another_kind(plan: Plan, content: Any, message: str) -> None:
    save(plan, content)
    with pytest.raises(DamagedError, match=message):
        run_pipeline(plan, Stages(saved_activations=True))


def test_other_cells_or_genes(plan: Plan) -> None:
    save(plan, older(cells=400))
    with pytest.raises(DataError, match=r"holds 400 cells, .* 320 others"):
        run_pipeline(plan, Stages(saved_activations=True))
    content = older()
    content["gene_ids"][2, 3] = 9999
    save(plan, content)
    with pytest.raises(DataError, match=r"cell 2 has a gene \(token 9999\) that the file has not"):
        run_pipeline(plan, Stages(saved_activations=True))
