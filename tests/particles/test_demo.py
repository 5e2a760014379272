"""The demonstration and features of particles: what is said was measured, and a second run has nothing to do."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from elute.analysis.findings import open_run
from elute.particles.demo import held_against, run_demo, show
from elute.particles.demo_settings import DemoConfig
from elute.particles.feature_settings import ParticleFeaturesConfig
from elute.particles.features import find_features
from elute.particles.features import show as show_features
from elute.particles.generator_settings import MadeConfig
from elute.particles.reading_fused import FusedFile
from elute.reports.particles import wording
from elute.store.codes import StoredCodes
from elute.store.reader import Store

MADE = MadeConfig(runs=7, per_run=26, classes=3, widths=(6, 6), own=2.5, noise=0.2)
FEW = ParticleFeaturesConfig(steps=40, batch_size=64, n_features=12, k=2, permutations=5, least=5, at=0.8)


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo") / "d"
    run_demo(folder, MADE, DemoConfig(n_folds=3, attention_epochs=4, n_resamples=100, features=False))
    return folder


def test_what_is_there_is_used_as_it_is(demo: Path) -> None:
    before = {
        p: p.stat().st_mtime_ns for p in demo.rglob("*") if p.is_file() and p.name not in (".lock", "recovery.json")
    }
    made = run_demo(demo, MADE, DemoConfig(n_folds=3, attention_epochs=4, n_resamples=100, features=False))
    assert {p: p.stat().st_mtime_ns for p in before} == before
    text = show({"path": str(made.path), **made.summary})
    assert "182 particles in 7 tomograms" in text
    assert f"{made.path}/evaluation/report.html" in text
    found = json.loads((demo / "recovery.json").read_text())
    results = json.loads((demo / "evaluation" / "classification_results.json").read_text())
    measured = results["evaluation"]["methods"]["fusion"]["overall"]["map"]
    assert found["measured"]["fusion"] == measured
    assert f"{measured['estimate']:.3f}" in text
    assert found["possible"]["fusion"] > found["possible"][found["best_source"]]
    assert len(FusedFile(demo / "fused" / "fused_embeddings.h5")) == results["n_samples"] == made.summary["both"]


def test_measured_beside_possible_by_hand() -> None:
    def score(value: float) -> dict[str, Any]:
        return {
            "overall": {"map": {"estimate": value, "low": value - 0.1, "high": value + 0.1}},
            "title": "t",
            "kind": "source",
        }

    def difference(first: str, second: str, value: float) -> dict[str, Any]:
        told = {"estimate": value, "low": value - 0.05, "high": value + 0.05}
        return {"first": first, "second": second, "metric": "map", "difference": told}

    truth = {
        "alone": {"cryolens": {"macro_ap": 0.7}, "tomotwin": {"macro_ap": 0.6}}, "both": {"macro_ap": 0.85},
        "gain": {"macro_ap": 0.15}, "invented": {"macro_ap": 0.04},
    }  # fmt: skip
    methods = {"cryolens": 0.65, "tomotwin": 0.5, "fusion": 0.78, "permuted_across": 0.5, "permuted_within": 0.81}
    plain = {
        "methods": {name: score(value) for name, value in methods.items()},
        "comparisons": [
            difference("fusion", "tomotwin", 0.28), difference("fusion", "cryolens", 0.13), difference("permuted_across", "tomotwin", 0.01),
        ],
        "sources": {"tomotwin": {}, "cryolens": {}},
    }  # fmt: skip
    found = held_against(truth, plain)
    assert found["best_source"] == "cryolens"
    assert (found["gain"]["possible"], found["gain"]["measured"]["estimate"]) == (0.15, 0.13)
    assert not found["control_gains"]
    assert found["invented"]["measured"] == pytest.approx(0.03)
    plain["comparisons"][2] = difference("permuted_across", "tomotwin", 0.2)
    assert held_against(truth, plain)["control_gains"]


@pytest.mark.parametrize(
    ("low", "high", "said"),
    [(-0.02, 0.01, "nothing, as it must be"), (-0.04, -0.01, "none, as it must be, and"), (0.01, 0.04, "a leak"), (None, None, "nothing")],
)  # fmt: skip
def test_a_control_is_called_what_its_interval_says(low: float | None, high: float | None, said: str) -> None:
    assert said in wording.permuted({"difference": {"estimate": 0.0, "low": low, "high": high}})


@pytest.mark.parametrize(
    ("low", "p", "said"),
    [(0.02, 0.01, "a gain"), (-0.01, 0.01, "not told apart from nothing"), (0.02, 0.3, "p 0.3 over 3 folds and 0.01 by")],
)  # fmt: skip
def test_a_gain_is_sure_where_interval_and_tests_agree(low: float, p: float, said: str) -> None:
    one = {"estimate": 0.05, "low": low, "high": 0.08}
    plain = {
        "evidence": True, "sources": {"a": {}, "b": {}},
        "methods": {name: {"title": name, "overall": {"map": {**one, "estimate": e}}} for name, e in (("a", 0.7), ("b", 0.6), ("fusion", 0.8))},
        "comparisons": [{"first": "fusion", "second": "a", "metric": "map", "difference": one, "p_t_holm": p,
                         "p_permutation_holm": 0.01, "per_fold": [0.1, 0.0, 0.05]}],
    }  # fmt: skip
    told = " ".join(wording.lead(plain))
    assert said in told
    assert "Over a alone" in told


@pytest.fixture(scope="module")
def run(demo: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features") / "run"
    find_features(demo / "fused" / "fused_embeddings.h5", folder, FEW)
    return folder


def test_features_go_through_store_dictionary_and_explorer(demo: Path, run: Path) -> None:
    fused = FusedFile(demo / "fused" / "fused_embeddings.h5").read()
    store = Store(run / "activations")
    rows, frame = next(store.batches(1000))
    assert fused.mu_oof is not None
    assert rows["fused"].numpy().tolist() == fused.mu_oof.tolist(), "vectors out of fold, unless others are asked for"
    assert frame["sample_id"].to_list() == fused.particles["id"].to_list()
    assert frame["label"].to_list() == fused.particles["label"].to_list()
    assert frame.group_by("group").agg(pl.col("split").n_unique())["split"].max() == 1, "whole runs are held out"
    found = open_run(run)
    codes = StoredCodes(run / "codes").read(0, len(store))
    fired = (codes.dense() != 0).sum(0)
    assert found.features.frame["rows"].to_list() == fired.tolist()
    strongest = int(fired.argmax())
    top = found.feature(strongest).cells
    chose = [i for i, split in enumerate(frame["split"].to_list()) if split == "train"]
    best = max(chose, key=lambda i: float(codes.dense()[i, strongest]))
    assert top["cell"][0] == frame["sample_id"][best], "its prototype is the particle in which it is strongest"
    assert {"name", "stability", "auroc_shown"} <= set(found.features.frame.columns)
    assert not {"by_gene", "top_genes", "kind"} & set(found.features.frame.columns)
    page = (run / "dashboard.html").read_text()
    assert "block-s0-features" in page
    assert "block-s0-cells" in page


def test_features_stand_beside_their_controls(run: Path) -> None:
    told = json.loads((run / "validation" / "summary.json").read_text())
    controls = {"permuted labels", "neurons", "principal components", "another seed"}
    assert controls | {"features"} <= set(told["follow"])
    assert told["follow"]["principal components"]["columns"] == told["follow"]["neurons"]["columns"] == 6
    assert 0 <= told["follow"]["another seed"]["found again"] <= 1
    again = find_features_of(run)
    text = show_features(again)
    assert "permuted labels" in text
    assert "variance explained on particles held out" in text


def find_features_of(run: Path) -> dict[str, Any]:
    record = json.loads((run / "run.json").read_text())["stages"]["particle-features"]["summary"]
    return {"path": str(run), **record}


def test_found_features_are_used_as_they_are_and_other_particles_are_found_anew(
    demo: Path, run: Path, tmp_path: Path
) -> None:
    again = find_features(demo / "fused" / "fused_embeddings.h5", run, FEW)
    assert again.summary["reused"]
    find_features(demo / "data" / "classification.yaml", tmp_path / "two", FEW)
    both = open_run(tmp_path / "two")
    assert both.sites == ["cryolens", "tomotwin"]
    before = Store(tmp_path / "two" / "activations").manifest.source
    find_features(demo / "data" / "cryolens.h5", tmp_path / "two", FEW)
    assert Store(tmp_path / "two" / "activations").manifest.source != before


def test_a_table_without_classes_or_runs_has_features_too(tmp_path: Path) -> None:
    import numpy as np

    from elute.base.errors import DataError

    rng = np.random.default_rng(0)
    frame = pl.DataFrame({f"v{i}": rng.normal(size=120) for i in range(5)})
    frame.write_csv(tmp_path / "shape.csv")
    made = find_features(tmp_path / "shape.csv", tmp_path / "run", FEW)
    told = made.summary["sites"]["shape"]
    assert set(told["follow"]) == {"another seed"}
    assert "no classes are known" in " ".join(told["notes"])
    assert "another seed" in show_features({"path": "p", **made.summary})
    frame.head(10).write_csv(tmp_path / "few.csv")
    with pytest.raises(DataError, match="10 particles are too few"):
        find_features(tmp_path / "few.csv", tmp_path / "other", FEW)
