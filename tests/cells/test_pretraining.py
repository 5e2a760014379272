"""A small model learns what was planted, is made again to the byte, and its folder is one that can be read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import anndata
import numpy as np
import pandas as pd
import pytest
from scipy.sparse import csr_matrix

from elute.base.errors import ConfigError, DataError
from elute.cells import baselines
from elute.cells.masked import MaskedObjective
from elute.cells.pretraining import PretrainConfig, pretrain, show
from elute.cells.vocabulary import choose_genes, identifiers
from elute.models.cells.cellfile import Cells, CellsConfig, open_cells
from elute.models.tahoe.load import read_folder

GENES = [f"ENSG{i:011d}" for i in range(1, 13)]
SMALL = PretrainConfig(d_model=16, layers=1, heads=2, max_length=16, steps=90, batch_size=16, lr=1e-2)
FILES = ("model.safetensors", "run.json", "training_metrics.json", "model_config.yml", "vocab.json")


def planted(n: int = 150, seed: int = 0) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Each cell has one half of the genes high and the other low; which half is drawn."""
    rng = np.random.default_rng(seed)
    first = rng.integers(0, 2, n).astype(bool)[:, None]
    high = first == (np.arange(12) < 6)
    return (1 + rng.poisson(np.where(high, 60, 6))).astype(np.float32)


def opened(x: np.ndarray[Any, Any], var: pd.DataFrame | None = None, **settings: Any) -> Cells:
    obs = pd.DataFrame({"donor": [f"d{i % 10}" for i in range(len(x))]}, index=[f"cell{i}" for i in range(len(x))])
    adata = anndata.AnnData(csr_matrix(x), obs, pd.DataFrame(index=GENES) if var is None else var)
    return open_cells(adata, CellsConfig(**settings))


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("model")
    return folder, pretrain(opened(planted()), folder, SMALL).summary


def test_it_learns_what_the_genes_means_do_not_tell(done: tuple[Path, dict[str, Any]]) -> None:
    rows = {row["name"]: row for row in done[1]["held_out"]}
    assert rows[baselines.MODEL]["mse"] < 0.5 * rows[baselines.GENE]["mse"]
    for name in (baselines.MEAN, baselines.GENE, baselines.RANDOM):
        assert rows[name]["verdict"] == "beaten"
    assert baselines.GENE in done[1]["verdict"]
    assert done[1]["cells"] == {"train": 120, "validation": 15, "test": 15}


def test_what_is_written_can_be_read_and_is_what_was_judged(done: tuple[Path, dict[str, Any]]) -> None:
    folder, summary = done
    found = read_folder(folder)
    assert found.vocabulary == {n: i for i, n in enumerate(["<pad>", "<cls>", "<eoc>", *GENES])}
    assert found.collator.max_length == 16
    assert sum(p.numel() for p in found.network.parameters()) == summary["parameters"]
    assert not (folder / "checkpoint.pt").exists()
    told = show({**summary, "path": str(folder)})
    assert summary["verdict"] in told
    assert "random cells" in told


def test_killed_and_resumed_is_undisturbed(
    tmp_path: Path, done: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    gradient = MaskedObjective.gradient

    def stopped(self: MaskedObjective, rows: Any, *, step: int, total_rows: int) -> Any:
        if step == 23:
            raise KeyboardInterrupt
        return gradient(self, rows, step=step, total_rows=total_rows)

    often = SMALL.model_copy(update={"checkpoint_seconds": 0.0})
    with monkeypatch.context() as patch:
        patch.setattr(MaskedObjective, "gradient", stopped)
        with pytest.raises(KeyboardInterrupt):
            pretrain(opened(planted()), tmp_path, often)
    assert (tmp_path / "checkpoint.pt").exists()
    assert not (tmp_path / "model.safetensors").exists()
    other = SMALL.model_copy(update={"lr": 0.1})
    with pytest.raises(ConfigError, match=r"pretrain.lr was 0.01 and is now 0.1"):
        pretrain(opened(planted()), tmp_path, other)
    pretrain(opened(planted()), tmp_path, often)
    for name in FILES:
        assert (tmp_path / name).read_bytes() == (done[0] / name).read_bytes(), name


def test_what_is_there_is_used_and_other_settings_are_refused(
    done: tuple[Path, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MaskedObjective, "gradient", None)
    again = pretrain(opened(planted()), done[0], SMALL.model_copy(update={"device": "cpu"}))
    assert again.summary == {**done[1], "reused": True}
    with pytest.raises(ConfigError, match="steps was 90 and is now 70"):
        pretrain(opened(planted()), done[0], SMALL.model_copy(update={"steps": 70}))
    with pytest.raises(ConfigError, match="AnnData in memory was"):
        pretrain(opened(planted(seed=1)), done[0], SMALL)


def test_whole_donors_are_held_out(tmp_path: Path) -> None:
    config = SMALL.model_copy(update={"steps": 2})
    summary = pretrain(opened(planted(), donor_key="donor"), tmp_path, config).summary
    assert len(summary["held_out_donors"]) == 1
    assert summary["cells"] == {"train": 120, "validation": 15, "test": 15}
    assert "whole donors" in show({**summary, "path": ""})


def test_the_most_variable_genes_of_training_cells_are_taken() -> None:
    from elute.cells.corpus import look_through, split_cells

    x = np.full((100, 12), 5.0, np.float32)
    splits = split_cells(opened(x), seed=0)
    rng = np.random.default_rng(0)
    x[:, 2:5] = rng.poisson(5, (100, 3)) * 9
    x[splits == 2, 7] = 500 * rng.poisson(1, (splits == 2).sum())
    x[splits == 0, 9] = 0
    cells = opened(x)
    seen = look_through(cells, splits)
    vocabulary, kept = choose_genes(cells, seen, column="index", most=3)
    assert kept.tolist() == [2, 3, 4]
    assert [*vocabulary][3:] == [GENES[i] for i in kept]
    assert 9 not in choose_genes(cells, seen, column="index", most=12)[1]


def test_identifiers_are_ensembls_where_there_are_any(tmp_path: Path) -> None:
    var = pd.DataFrame({"gene_ids": GENES}, index=[f"GENE{i}" for i in range(12)])
    cells = opened(planted(), var)
    assert identifiers(cells) == "gene_ids"
    assert identifiers(opened(planted(), var, gene_id_key="index")) == "index"
    assert identifiers(opened(planted(), var[[]])) == "index"
    del tmp_path


def test_too_few_genes_are_told() -> None:
    from elute.cells.corpus import Seen

    nothing = Seen(np.zeros(12, np.int64), np.zeros(12, np.int64), np.zeros(12))
    with pytest.raises(DataError, match="fewer than two genes"):
        choose_genes(opened(planted()), nothing, column="index", most=9)
    with pytest.raises(ConfigError, match="no column 'indx'.*Did you mean 'index'"):
        choose_genes(opened(planted()), nothing, column="indx", most=9)
