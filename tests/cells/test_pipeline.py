"""From cells to features in one go: what is written, what is reused, and what is refused in one line."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

import elute
from elute.analysis.pooled import pooled
from elute.base import files
from elute.base.errors import BusyError, ConfigError, DataError, EluteError, GuardError
from elute.base.recipe import Section
from elute.cells import mock
from elute.cells.activations import prepare, saved
from elute.cells.associations import TABLES, tally
from elute.cells.feature_settings import ExtractConfig, FeatureConfig, ValidationConfig
from elute.cells.pipeline import Stages, extract_features, run_pipeline, show
from elute.cells.plan import Plan
from elute.cells.settings import ModelConfig, SitesConfig
from elute.dictionaries.files import load_dictionary
from elute.models.cells.cellfile import CellsConfig
from elute.validation.settings import DatabaseConfig

SIZES: dict[str, Any] = {"steps": 20, "d_sae": "48", "k": "4", "train_batch_size": 256, "device": "cpu"}
NO_PAGE = Stages(validation=True, dashboard=True)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with cells and a model."""
    folder = tmp_path_factory.mktemp("cells")
    mock.write_cells(folder / "cells.h5ad")
    mock.write_model(folder / "model")
    return folder


def planned(place: Path, output: Path, **changes: Any) -> Plan:
    sections: dict[str, Section] = {
        "cells": CellsConfig(donor_key="donor"),
        "model": ModelConfig(model=place / "model", device="cpu"),
        "sites": SitesConfig(layers="last"),
        "training": FeatureConfig(**SIZES),
        "extract": ExtractConfig(columns=("phase",), top_k_genes=10, top_k_cells=10),
        "databases": DatabaseConfig(sources="markers", null="20"),
    }
    return Plan.of(place / "cells.h5ad", output, {**sections, **changes})


@pytest.fixture(scope="module")
def done(place: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, dict[str, Any]]:
    """A whole run, with its controls and its page."""
    plan = planned(place, tmp_path_factory.mktemp("run"), validation=ValidationConfig(controls="full"))
    return plan, run_pipeline(plan).summary


def test_it_writes_what_the_design_names(done: tuple[Plan, dict[str, Any]]) -> None:
    plan, summary = done
    names = {
        "sae_final.pt",
        "training_metrics.json",
        "model_config.json",
        "train_config.json",
        "run.json",
        "config.yaml",
    }
    names |= {
        "codes",
        "activations",
        "saelens",
        "dashboard.html",
        "cells.parquet",
        "genes.parquet",
        "validation",
        *TABLES,
    }
    assert names <= {path.name for path in plan.output.iterdir()}
    features = pl.read_parquet(plan.output / "features.parquet")
    assert features.height == 48
    assert features["rows"].sum() == 4 * summary["rows"]
    assert summary["sites"][0]["alive"] == features["alive"].sum()
    told = show({**summary, "path": str(plan.output)})
    assert "permuted labels" in told
    assert "random weights" in told
    assert str(plan.output / "dashboard.html") in told


def test_older_programs_read_the_associations(done: tuple[Plan, dict[str, Any]]) -> None:
    plan, _ = done
    genes = json.loads((plan.output / "feature_gene_associations.json").read_text())
    cells = json.loads((plan.output / "feature_cell_associations.json").read_text())
    table = pl.read_parquet(plan.output / "features.parquet")
    alive = table.filter("alive")
    assert set(genes) == set(cells) == set(alive["feature"].cast(pl.String))
    for row in alive.head(5).iter_rows(named=True):
        name = str(row["feature"])
        assert genes[name]["n_activations"] == row["cells"]
        assert [gene for gene, _ in genes[name]["top_genes"]] == row["top_genes"][:10]
        assert {gene for gene, _ in genes[name]["top_genes"]} <= set(genes[name]["gene_scores"])
        strengths = [strength for _, strength in cells[name]["top_cells"]]
        assert strengths == sorted(strengths, reverse=True)
        assert sum(cells[name]["cell_types"].values()) == len(strengths)


def test_scores_are_sums_of_activation_times_expression(done: tuple[Plan, dict[str, Any]]) -> None:
    plan, _ = done
    source = saved(plan)
    assert source.store is not None
    rows, frame = next(source.store.batches(len(source.store)))
    codes = load_dictionary(plan.output).encode(next(iter(rows.values())).float()).dense().numpy()
    e = np.log1p(frame["value"].to_numpy() / frame["total"].to_numpy() * 1e4)
    table = pl.read_parquet(plan.output / "feature_genes.parquet")
    for row in table.sample(20, seed=0).iter_rows(named=True):
        mine = (frame["token"] == row["gene"]).to_numpy()
        assert row["score"] == pytest.approx((codes[mine, row["feature"]] * e[mine]).sum(), rel=1e-4, abs=1e-4)


def test_only_donors_that_did_not_choose_show(done: tuple[Plan, dict[str, Any]]) -> None:
    plan, _ = done
    cells = pl.read_parquet(plan.output / "cells.parquet")
    assert cells.group_by("donor").agg(pl.col("split").n_unique())["split"].max() == 1
    assert dict(cells["split"].value_counts().iter_rows()) == {"train": 160, "test": 160}
    top = pl.read_parquet(plan.output / "feature_cells.parquet")
    assert top["split"].unique().to_list() == ["train"]
    groups = pl.read_parquet(plan.output / "feature_groups.parquet")
    assert set(groups["column"].unique()) == {"label", "phase"}
    assert groups["donors"].max() == 4


def test_controls_stand_beside(done: tuple[Plan, dict[str, Any]]) -> None:
    plan, summary = done
    answer = next(iter(summary["controls"].values()))
    names = {"features", "permuted labels", "neurons", "principal components", "genes"}
    names |= {"another seed", "random weights", "embedding layer"}
    assert set(answer["follow"]) == names
    assert answer["follow"]["genes"]["follow"] >= 12  # of 24 markers, each of one type
    assert answer["follow"]["permuted labels"]["follow"] == 0
    assert answer["follow"]["another seed"]["found again by chance"] < 0.1
    assert pl.read_parquet(plan.output / "features.parquet")["stability"].is_between(-1, 1.0001).all()
    told = files.read_json(plan.output / "validation/summary.json", what="", remedy="")
    assert told.items() >= answer.items()
    asked = next(iter(summary["databases"].values()))
    assert told["databases"] == asked["databases"]
    assert asked["databases"]["markers"]["status"] == "run"
    assert (plan.output / asked["report"]).exists()
    assert {"name", "name_confidence"} <= set(pl.read_parquet(plan.output / "features.parquet").columns)


def test_nothing_is_done_twice(done: tuple[Plan, dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    plan, summary = done
    before = {path: path.stat().st_mtime_ns for path in plan.output.rglob("*.pt")}
    kept = (plan.output / "feature_genes.parquet").stat().st_mtime_ns
    again = run_pipeline(plan).summary
    assert again["sites"] == summary["sites"]
    assert again["controls"] == summary["controls"]
    assert {path: path.stat().st_mtime_ns for path in plan.output.rglob("*.pt")} == before
    assert (plan.output / "feature_genes.parquet").stat().st_mtime_ns == kept
    told = capsys.readouterr().err
    for word in ("already captured", "already trained", "told already", "run already"):
        assert word in told


def test_saved_activations_need_no_model(done: tuple[Plan, dict[str, Any]]) -> None:
    plan, summary = done
    without = replace(plan, model=ModelConfig(model=Path("nowhere")), validation=ValidationConfig())
    again = run_pipeline(without, Stages(saved_activations=True, validation=True)).summary
    assert again["sites"] == summary["sites"]


def test_what_changed_is_done_anew_and_what_was_is_kept(place: Path, tmp_path: Path) -> None:
    plan = planned(place, tmp_path)
    run_pipeline(plan, NO_PAGE)
    first = (tmp_path / "sae_final.pt").read_bytes()
    other = replace(plan, training=FeatureConfig(**{**SIZES, "steps": 25}))
    run_pipeline(other, NO_PAGE)
    assert (tmp_path / "earlier-1" / "sae_final.pt").read_bytes() == first
    assert (tmp_path / "earlier-1" / "features.parquet").exists()
    assert (tmp_path / "sae_final.pt").read_bytes() != first
    more = replace(other, extract=ExtractConfig(top_k_genes=3))
    trained = (tmp_path / "sae_final.pt").stat().st_mtime_ns
    run_pipeline(more, NO_PAGE)
    assert (tmp_path / "sae_final.pt").stat().st_mtime_ns == trained
    assert pl.read_parquet(tmp_path / "feature_genes.parquet")["rank"].max() == 3


@pytest.mark.parametrize("change", [{"center": "gene"}, {"stream": True}, {"kind": "transcoder"}, {"kind": "clt"}])
def test_other_ways_of_training(place: Path, tmp_path: Path, change: dict[str, Any]) -> None:
    layers = SitesConfig(layers="all" if change.get("kind") == "clt" else "last")
    plan = planned(place, tmp_path, training=FeatureConfig(**SIZES, **change), sites=layers)
    found = run_pipeline(plan, NO_PAGE).summary["sites"][0]
    assert found["features"] == (96 if change.get("kind") == "clt" else 48)
    assert found["alive"] > 10
    assert (tmp_path / "codes").exists() == (tmp_path / "activations").exists() == ("stream" not in change)
    assert (tmp_path / "centre.safetensors").exists() == ("center" in change)


def test_streamed_rows_are_those_of_a_store(place: Path, tmp_path: Path) -> None:
    stored = planned(place, tmp_path / "a")
    run_pipeline(stored, NO_PAGE)
    live = replace(stored, output=tmp_path / "b", training=FeatureConfig(**SIZES, stream=True))
    dictionary = load_dictionary(tmp_path / "a")
    source = prepare(stored)
    one = tally(source, source.units[0], stored, dictionary=dictionary)
    source = prepare(live)
    two = tally(source, source.units[0], live, dictionary=dictionary)
    assert one.n_rows == two.n_rows
    np.testing.assert_allclose(one.sums, two.sums, rtol=1e-4)
    for a, b in zip(pooled(one), pooled(two), strict=True):
        assert abs(a.mean - b.mean).max() < 1e-3


def test_a_saved_dictionary_on_other_cells(done: tuple[Plan, dict[str, Any]], place: Path, tmp_path: Path) -> None:
    plan, _ = done
    mock.write_cells(tmp_path / "others.h5ad", seed=1)
    other = replace(planned(tmp_path, tmp_path / "out"), data=tmp_path / "others.h5ad", model=ModelConfig(device="cpu"))
    found = extract_features(plan.output, other)
    assert found.path == tmp_path / "out"
    assert found.summary["sites"][0]["features"] == 48
    again = extract_features(plan.output / "sae_final.pt", replace(other, output=plan.output, data=plan.data))
    assert again.summary["sites"][0]["cells"] == 320


def test_the_python_face(done: tuple[Plan, dict[str, Any]]) -> None:
    plan, summary = done
    opened = elute.open(plan.output)
    assert opened.features.top(3).height == 3
    number = int(opened.features.top(1)["feature"][0])
    assert opened.feature(number).genes.height <= 10
    adata = opened.to_anndata()
    assert adata.obsm["X_elute"].shape == (320, summary["sites"][0]["alive"])


@pytest.mark.parametrize(
    ("skip", "lost", "message"),
    [
        (Stages(saved_activations=True), "activations", r"neither activations/manifest.json nor activations.pt"),
        (Stages(training=True), "sae_final.pt", r"sae_final.pt: is missing.*--skip-training"),
        (Stages(extraction=True), "features.parquet", r"features.parquet: is missing.*--skip-extraction"),
    ],
)
def test_a_skipped_stage_with_nothing_to_use(
    place: Path, tmp_path: Path, skip: Stages, lost: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        run_pipeline(planned(place, tmp_path), skip)
    assert not (tmp_path / lost).exists()


def test_a_dictionary_of_another_model_or_width(done: tuple[Plan, dict[str, Any]], place: Path, tmp_path: Path) -> None:
    plan, _ = done
    mock.write_model(tmp_path / "other", seed=7)
    other = planned(place, tmp_path / "out", model=ModelConfig(model=tmp_path / "other", device="cpu"))
    with pytest.raises(GuardError, match="with other weights"):
        extract_features(plan.output, other)
    with pytest.raises(EluteError, match=r"blocks.0.hook_mlp_out"):
        extract_features(plan.output, replace(other, output=tmp_path / "wide", model=_wide(tmp_path)))


def _wide(folder: Path) -> ModelConfig:
    """A model of one block, which has no site of the dictionary."""
    import torch

    from elute.models.tahoe.config import CollatorConfig, TahoeConfig
    from elute.models.tahoe.load import write_folder
    from elute.models.tahoe.model import TahoeX1

    names = ["<pad>", "<cls>", "<eoc>", *(f"ENSG{i:011d}" for i in range(1, 121))]
    with torch.random.fork_rng(devices=[]):
        network = TahoeX1(TahoeConfig(d_model=16, n_layers=1, n_heads=2, vocab_size=len(names)))
    made = write_folder(folder / "narrow", network, CollatorConfig(), vocabulary={n: i for i, n in enumerate(names)})
    return ModelConfig(model=made, device="cpu")


def test_a_column_that_is_not_there(place: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"no obs column 'phas'.*phase"):
        run_pipeline(planned(place, tmp_path, extract=ExtractConfig(columns=("phas",))), NO_PAGE)
    with pytest.raises(ConfigError, match=r"no obs column 'celltype'.*cell_type"):
        run_pipeline(planned(place, tmp_path, cells=CellsConfig(cell_type_key="celltype")), NO_PAGE)


def test_cell_types_that_show_nothing(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import anndata

    adata = anndata.read_h5ad(place / "cells.h5ad")
    adata.obs["one"] = "all"
    adata.obs["few"] = ["lone" if i == 0 else None if i < 20 else f"type {i % 2}" for i in range(adata.n_obs)]
    adata.write_h5ad(tmp_path / "cells.h5ad")
    with pytest.raises(DataError, match=r"obs column 'one': has one type alone \(all\)"):
        run_pipeline(
            replace(
                planned(place, tmp_path / "a", cells=CellsConfig(cell_type_key="one")), data=tmp_path / "cells.h5ad"
            ),
            NO_PAGE,
        )
    plan = replace(planned(place, tmp_path / "b", cells=CellsConfig(cell_type_key="few")), data=tmp_path / "cells.h5ad")
    found = run_pipeline(plan, NO_PAGE).summary["sites"][0]
    told = capsys.readouterr().err
    assert "19 of 320 cells have no value" in told
    assert "1 types have one cell (lone): nothing is claimed" in told
    groups = pl.read_parquet(tmp_path / "b" / "feature_groups.parquet")
    assert groups.filter(level="lone")["auroc"].null_count() == 48
    assert any("lone" in note for note in found["notes"])


def test_two_runs_into_one_folder(place: Path, tmp_path: Path) -> None:
    files.make_folder(tmp_path / "run")
    with (
        files.locked(tmp_path / "run", "run-pipeline", name=".run.lock"),
        pytest.raises(BusyError, match=r"run-pipeline.*is writing here"),
    ):
        run_pipeline(planned(place, tmp_path / "run"), NO_PAGE)


def test_sizes_that_are_chosen_by_width() -> None:
    from elute.cells.units import auto_sizes

    assert auto_sizes(FeatureConfig(), 512) == (16_384, 64)
    assert auto_sizes(FeatureConfig(d_sae=100, k="7"), 512) == (100, 7)
    with pytest.raises(ConfigError, match="k = 64 is more than the 10 features"):
        auto_sizes(FeatureConfig(d_sae=10), 512)
    with pytest.raises(ValueError, match="pattern"):
        FeatureConfig(d_sae="many")
