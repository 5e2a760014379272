"""Features of embeddings: planted classes come back beside controls that find less, and what was found is kept."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tests.particles.views import joined

from elute.analysis.findings import open_run
from elute.base.errors import ConfigError, DataError
from elute.cli.commands import Face
from elute.cli.main import main
from elute.particles.feature_best import Best
from elute.particles.feature_settings import ParticleFeaturesConfig
from elute.particles.features import find_features
from elute.particles.generator_files import write_made
from elute.particles.generator_settings import MadeConfig
from elute.particles.table import NOT_EVIDENCE
from elute.particles.writing_fused import write_fused
from elute.store.reader import Store

MADE = MadeConfig(classes=8, runs=10, per_run=48, widths=(5, 5), common=6, own=6, noise=0.2, lost=0.0)
LEARNT = ParticleFeaturesConfig(steps=600, batch_size=128, n_features=16, k=1, least=5, permutations=8, device="cpu")
FEW = LEARNT.model_copy(update={"steps": 20, "permutations": 2})


@pytest.fixture(autouse=True)
def _usual_voice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Face, "debug", False)
    monkeypatch.setattr("elute.base.console._level", 0)
    logging.captureWarnings(capture=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("made") / "data"
    write_made(folder, MADE)
    return folder


@pytest.fixture(scope="module")
def run(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("features") / "run"
    find_features(data / "cryolens.h5", folder, LEARNT)
    return folder


def told(folder: Path) -> dict[str, Any]:
    content: dict[str, Any] = json.loads((folder / "validation" / "summary.json").read_text())
    return content


def test_planted_classes_come_back_and_controls_find_less(run: Path) -> None:
    follow = told(run)["follow"]
    kinds = ("features", "permuted labels", "neurons", "principal components", "random weights", "another seed")
    assert set(follow) == set(kinds)
    found, permuted, random = follow["features"], follow["permuted labels"], follow["random weights"]
    assert len(found["by type"]) == MADE.classes
    assert classes(found) >= 5 > classes(random), "more classes than an embedding has numbers, on runs held out"
    assert permuted["most"] == 0
    assert found["auroc"] > 0.9 > random["auroc"] > 0.6 > permuted["auroc"]
    again = follow["another seed"]
    assert again["found again"] > again["found again by chance"]


def classes(of: dict[str, Any]) -> int:
    """How many classes some column follows."""
    return sum(n > 0 for n in of["by type"].values())


def test_a_named_feature_is_of_the_class_whose_prototypes_it_has(run: Path) -> None:
    frame = pl.read_parquet(run / "features.parquet").filter(
        pl.col("name").is_in(list(told(run)["follow"]["features"]["by type"]))
    )
    labels = dict(pl.read_parquet(run / "cells.parquet").select("cell", "label").iter_rows())
    assert frame["name"].n_unique() >= 5
    for feature, name in frame.select("feature", "name").iter_rows():
        prototypes = [labels[cell] for cell in open_run(run).feature(feature).cells["cell"].to_list()[:12]]
        assert prototypes.count(name) >= 10, (feature, name, prototypes)


def test_runs_that_choose_show_nothing(run: Path) -> None:
    cells = pl.read_parquet(run / "cells.parquet")
    assert set(cells["split"]) == {"train", "test"}
    assert "umap_x" not in cells.columns, "so few the Explorer lays out by itself"
    assert cells.group_by("donor").agg(pl.col("split").n_unique())["split"].max() == 1
    share = (cells["split"] == "test").mean()
    assert share == pytest.approx(LEARNT.hold_out, abs=0.05)


def test_what_is_recorded_names_no_place_and_is_the_same_twice(tmp_path: Path) -> None:
    given = fused(tmp_path / "fused.h5", oof=True)
    one, two = (find_features(given, tmp_path / name, FEW).path for name in ("one", "two"))
    for path in sorted(p.relative_to(one) for p in one.rglob("*") if p.is_file() and not p.name.endswith("lock")):
        if path.suffix == ".jsonl" or path.name in ("training_metrics.json", "dashboard.html"):
            continue  # rates of work, and the folder's name
        assert (one / path).read_bytes() == (two / path).read_bytes(), path
    assert str(tmp_path) not in (one / "run.json").read_text()


def fused(path: Path, *, oof: bool, seen: bool = True, **more: Any) -> Path:
    rng = np.random.default_rng(3)
    codes = np.tile(np.arange(3), 60)
    centre = rng.normal(0, 3, (3, 6))
    mu, own = ((centre[codes] + rng.normal(size=(180, 6))).astype(np.float32) for _ in range(2))
    made = joined([mu], codes, np.arange(180) // 15)
    write_fused(
        path, made.particles, [(mu, own if oof else None)], told={"made_of": f"test {oof} {seen}", **more},
        classes=made.classes, width=6, fold=codes.astype(np.int64) if oof else None, in_sample=np.full(180, seen),
    )  # fmt: skip
    return path


def test_vectors_in_sample_are_marked_and_not_mixed_up_with_those_out_of_fold(tmp_path: Path) -> None:
    path = fused(tmp_path / "f.h5", oof=True)
    out = find_features(path, tmp_path / "run", FEW)
    assert out.summary["mark"] is None
    before = next(Store(tmp_path / "run" / "activations").batches(1000))[0]["fused"].numpy()
    made = find_features(path, tmp_path / "run", FEW.model_copy(update={"vector": "mu"}))
    after = next(Store(tmp_path / "run" / "activations").batches(1000))[0]["fused"].numpy()
    assert not np.array_equal(before, after)
    mark = "in-sample: the network had learnt the classes of 180 of these"
    assert made.summary["mark"] == mark
    assert json.loads((tmp_path / "run" / "extraction_summary.json").read_text())["mark"] == mark
    assert all(
        mark in reason for reason in pl.read_parquet(tmp_path / "run" / "features.parquet")["name_reason"].drop_nulls()
    )
    assert Store(tmp_path / "run" / "activations").manifest.source["mark"] == mark


def test_a_file_without_out_of_fold_vectors(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"holds no out-of-fold vectors .*--vector mu"):
        find_features(fused(tmp_path / "seen.h5", oof=False), tmp_path / "run", FEW)
    new = find_features(fused(tmp_path / "new.h5", oof=False, seen=False), tmp_path / "new", FEW)
    assert new.summary["mark"] is None, "a network that had not seen these particles is no fault"
    old = find_features(fused(tmp_path / "old.h5", oof=True, mark=NOT_EVIDENCE), tmp_path / "old", FEW)
    assert old.summary["mark"] == NOT_EVIDENCE


def test_two_sources_in_one_page_and_particles_that_have_no_class(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for name in "ab":
        frame = pl.DataFrame({"id": [f"p{i}" for i in range(80)], **{f"v{j}": rng.normal(size=80) for j in range(4)}})
        frame.write_csv(tmp_path / f"{name}.csv")
    (tmp_path / "two.yaml").write_text("sources:\n- {name: a b, path: a.csv}\n- {name: c, path: b.csv}\n")
    made = find_features(tmp_path / "two.yaml", tmp_path / "run", FEW.model_copy(update={"n_features": 8}))
    assert made.summary["particles"] == 80
    assert open_run(tmp_path / "run").sites == ["a_b", "c"]
    assert set(made.summary["sites"]["a_b"]["follow"]) == {"another seed"}
    (tmp_path / "alike.yaml").write_text("sources:\n- {name: a b, path: a.csv}\n- {name: a/b, path: b.csv}\n")
    with pytest.raises(DataError, match="two sources would both be called 'a_b'"):
        find_features(tmp_path / "alike.yaml", tmp_path / "other", FEW)


def test_what_was_begun_goes_on_without_training_again(tmp_path: Path) -> None:
    path, run = fused(tmp_path / "f.h5", oof=True), tmp_path / "run"
    find_features(path, run, FEW)
    whole = {name: (run / name).read_bytes() for name in ("features.parquet", "run.json", "dashboard.html")}
    trained = [run / "sae_final.pt", *sorted(run.glob("controls/*/sae_final.pt"))]
    before = [file.stat().st_mtime_ns for file in trained]
    record = json.loads((run / "run.json").read_text())
    del record["stages"]["particle-features"]  # as a run has it that was killed before its end
    (run / "run.json").write_text(json.dumps(record))
    for name in ("features.parquet", "dashboard.html"):
        (run / name).unlink()
    assert not find_features(path, run, FEW).summary["reused"]
    assert {name: (run / name).read_bytes() for name in whole} == whole
    assert len(trained) == 3
    assert [file.stat().st_mtime_ns for file in trained] == before


def test_the_best_column_is_chosen_on_some_and_scored_on_others() -> None:
    labels = ["a", "b"] * 4
    choosing = np.arange(8) < 4
    good, lucky = np.array([1.0, 0, 1, 0, 1, 0, 1, 0]), np.array([2.0, 0, 2, 0, 0, 1, 0, 1])
    best = Best(labels, choosing, ~choosing, levels=["a", "b"])

    def score(columns: list[Any], *, both_signs: bool) -> float | None:
        blocks = lambda: [np.stack([column], 1) for column in columns]  # noqa: E731
        return best.scores(blocks, both_signs=both_signs, permutations=0, runs=None, seed=0)[0]

    assert score([good], both_signs=True) == 1.0
    assert score([good], both_signs=False) == 0.5  # of "b" it is the mark from below alone
    assert score([lucky], both_signs=True) == 0.0  # as sure as can be on those that chose, and wrong
    assert score([good, lucky], both_signs=True) == 1.0  # of equals the first


def test_of_a_folder_that_another_command_wrote_nothing_is_touched(data: Path, run: Path, tmp_path: Path) -> None:
    before = {p: p.read_bytes() for p in data.iterdir() if p.is_file() and p.name != ".run.lock"}
    with pytest.raises(ConfigError, match="holds what this command did not write"):
        find_features(data / "cryolens.h5", data, FEW)
    assert {p: p.read_bytes() for p in before} == before
    made = find_features(data / "cryolens.h5", run, LEARNT)
    assert made.summary["reused"]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--inputs", "none.h5"], "there is no such file"),
        (["--inputs", "none.yaml"], "none.yaml"),
        (["--inputs", "{data}/truth.json"], "unknown suffix"),
        (["--inputs", "cut.h5"], "is not a whole HDF5 file"),
        (["--inputs", "nan.csv"], "missing or NaN"),
        (["--inputs", "few.csv"], "5 particles are too few for features"),
        (["--inputs", "{data}/cryolens.h5", "--k", "100"], "k = 100 is more than the 10 features"),
    ],
)
def test_bad_input_is_one_line(data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    (tmp_path / "cut.h5").write_bytes((data / "cryolens.h5").read_bytes()[:50_000])
    pl.DataFrame({"a": [1.0, None] * 20, "b": [0.5] * 40}).write_csv(tmp_path / "nan.csv")
    pl.DataFrame({"a": [1.0] * 5}).write_csv(tmp_path / "few.csv")
    words = [word.replace("{data}", str(data)) for word in words]
    assert main(["particles", "features", *words, "--output", "run"]) == 1
    found = capsys.readouterr()
    assert found.out == ""
    assert [said in line for line in found.err.splitlines() if line.startswith("error: ")] == [True]
    assert "Traceback" not in found.err
