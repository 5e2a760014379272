"""A run's feature set on its held-out cells: opened again, computed once, and every way in which that can be refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from elute.analysis.changes import CancelledError
from elute.analysis.findings import open_run
from elute.base import files
from elute.base.errors import ConfigError, DataError, EluteError, GuardError, MissingError
from elute.cells import mock, reopening
from elute.cells.effect_files import saved
from elute.cells.feature_settings import FeatureConfig
from elute.cells.pipeline import Stages, run_pipeline
from elute.cells.plan import Plan
from elute.cells.settings import ModelConfig, SitesConfig
from elute.cells.steering import SteerConfig, steer
from elute.cli.main import main
from elute.models.cells.cellfile import CellsConfig

FIRST, LAST = "blocks.0.hook_mlp_out", "blocks.1.hook_mlp_out"
FEW: dict[str, Any] = {"cells": 12, "controls": 2}


def whole_run(place: Path, **training: Any) -> Path:
    """Make a run of two layers on made cells."""
    sections: dict[str, Any] = {
        "cells": CellsConfig(donor_key="donor"),
        "model": ModelConfig(model=place / "model", device="cpu"),
        "sites": SitesConfig(layers="all"),
        "training": FeatureConfig(
            **{"steps": 20, "d_sae": "32", "k": "4", "train_batch_size": 256, "device": "cpu", **training}
        ),
    }
    plan = Plan.of(place / "cells.h5ad", place / "run", sections)
    run_pipeline(plan, Stages(validation=True, dashboard=True))
    return place / "run"


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("cells")
    mock.write_cells(place / "cells.h5ad")
    mock.write_model(place / "model")
    whole_run(place, center="gene")
    return place


@pytest.fixture
def place(made: Path, tmp_path: Path) -> Path:
    """A copy of the run, its cells and its model, all of which may be changed."""
    shutil.copytree(made, tmp_path / "here", ignore=shutil.ignore_patterns("effects"))
    record = tmp_path / "here" / "run" / "model_config.json"
    record.write_text(record.read_text().replace(str(made), str(tmp_path / "here")))
    return tmp_path / "here"


@pytest.fixture(scope="module")
def opened(made: Path) -> reopening.Reopened:
    return reopening.reopen(made / "run", site=FIRST)


def alive(run: Path, site: str = FIRST) -> int:
    return int(open_run(run).site(site).features.top(1)["feature"][0])


def test_the_codes_of_a_reopened_run_are_those_that_it_stored(opened: reopening.Reopened) -> None:
    from elute.analysis.rerunning import forward

    site = opened.recorded.site
    places = reopening.showing(opened.recorded, most=10, seed=0)
    batch, frame, cell, _ = next(reopening.located(opened, places))
    codes = opened.watched.encode(forward(opened.model, batch, {}, sites=[FIRST]).rows, frame)
    store = site.store
    stored = site.codes.read()
    rows = store.metadata(0, len(store), columns=["sample_id", "token"]).with_row_index("row")
    at = frame.select("sample_id", "token").join(rows, on=["sample_id", "token"], how="left", maintain_order="left")
    assert torch.allclose(
        codes.dense(), stored[torch.from_numpy(at["row"].to_numpy().astype(np.int64))].dense(), atol=1e-5
    )
    assert opened.recorded.run.cells[places[cell]]["cell"].to_list() == frame["sample_id"].to_list()


def test_the_sample_is_of_showing_cells_and_stratified(opened: reopening.Reopened) -> None:
    table = opened.recorded.run.cells
    drawn = table[reopening.showing(opened.recorded, most=16, seed=0)]
    assert set(drawn["split"]) == {"test"}
    assert drawn["label"].value_counts()["count"].to_list() == [4] * 4
    one = table[reopening.showing(opened.recorded, most=16, seed=0, cell_type="type 2")]
    assert set(one["label"]) == {"type 2"}
    assert (
        reopening.showing(opened.recorded, most=16, seed=1).tolist()
        != reopening.showing(opened.recorded, most=16, seed=0).tolist()
    )


def test_it_writes_what_changes_beside_controls_and_reads_it_the_next_time(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, feature = place / "run", alive(place / "run")
    heard: list[tuple[int, int]] = []
    made = steer(run, feature=feature, site=FIRST, to=2.0, doses=(0.5, 2.0, 4.0), **FEW,
                 told=lambda done, of: heard.append((done, of)))  # fmt: skip
    assert made.path.parent == run / FIRST / "effects"
    assert made.path.name.startswith(f"steer_{feature}_")
    assert heard[-1] == (12 * 2 * (2 + 3 + 4), 12 * 2 * (2 + 3 + 4))
    found = made.summary["summary"]
    assert found["units"] == "donors"
    assert (found["identity"], found["n_cells"], found["n_units"]) == (0.0, 12, 2)
    assert found["moved"] == found["rows"]
    frame = pl.read_parquet(made.path)
    genes, features = frame.filter(pl.col("kind") == "gene"), frame.filter(pl.col("kind") == "feature")
    assert features["site"].unique().to_list() == [LAST]
    assert features["feature"].to_list() == list(range(32))
    assert genes["symbol"].null_count() == 0
    assert {"features_sd", "features_most", "p_features", "random_sd", "random_most", "p_random"} <= set(frame.columns)
    assert frame["doses"].list.len().unique().to_list() == [3]
    assert len(found["like"]) == found["genes"]["beside random"]["controls"] == 2
    assert feature not in found["like"]
    assert (genes["change"].abs() > 0).sum() > 50
    assert features["change"].abs().max() > 0
    capsys.readouterr()
    before = {path: path.read_bytes() for path in made.path.parent.iterdir()}
    shutil.rmtree(place / "model")  # not needed to read what is known
    again = steer(run, feature=feature, site=FIRST, config=SteerConfig(to=2.0, doses=(0.5, 2.0, 4.0), **FEW))
    assert again.summary == {**made.summary, "reused": True}
    assert "computed already" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in made.path.parent.iterdir()} == before
    assert [path for path, _ in saved(run)] == [path for path, _ in saved(run, FIRST)] == [made.path]
    with pytest.raises(MissingError, match="is not there any more"):
        steer(run, feature=feature, site=FIRST, to=2.5, **FEW)


def test_the_same_question_gives_the_same_bytes(opened: reopening.Reopened, tmp_path: Path) -> None:
    feature = alive(opened.recorded.run.folder)
    first = steer("", feature=feature, opened=opened, off=True, **FEW)
    kept = first.path.read_bytes()
    first.path.unlink()
    second = steer("", feature=feature, opened=opened, off=True, **FEW)
    assert (second.path.read_bytes(), second.summary["reused"]) == (kept, False)
    assert second.summary["summary"]["moved"] < second.summary["summary"]["rows"]
    other = steer("", feature=feature, opened=opened, off=True, seed=1, **FEW)
    assert other.path != first.path
    text = other.path.with_suffix(".json").read_text()
    assert str(tmp_path.parent) not in text


def test_at_the_last_site_genes_alone_are_read(made: Path) -> None:
    run = made / "run"
    found = steer(run, feature=alive(run, LAST), site=LAST, to=1.0, hide=0.0, cell_type="type 1", **FEW)
    assert found.summary["summary"]["features"] == {}
    assert pl.read_parquet(found.path)["kind"].unique().to_list() == ["gene"]


def test_what_was_damaged_is_computed_anew(place: Path) -> None:
    run = place / "run"
    one = steer(run, feature=alive(run), site=FIRST, to=1.0, **FEW)
    kept = one.path.read_bytes()
    one.path.write_bytes(kept[:-1])
    assert steer(run, feature=alive(run), site=FIRST, to=1.0, **FEW).summary["reused"] is False
    assert one.path.read_bytes() == kept


def test_cancelling_leaves_nothing(place: Path) -> None:
    count = iter(range(100))
    with pytest.raises(CancelledError, match="nothing was written"):
        steer(place / "run", feature=alive(place / "run"), site=FIRST, to=1.0, cancel=lambda: next(count) > 5, **FEW)
    assert not (place / "run" / FIRST / "effects").exists()


def silence(run: Path) -> None:
    path = run / FIRST / "features.parquet"
    frame = pl.read_parquet(path)
    frame.with_columns(alive=pl.col("feature") != 3).write_parquet(path)


def no_test_cells(run: Path) -> None:
    path = run / "cells.parquet"
    pl.read_parquet(path).with_columns(split=pl.lit("train")).write_parquet(path)


def other_weights(run: Path) -> None:
    shutil.rmtree(run.parent / "model")
    mock.write_model(run.parent / "model", seed=1)


def other_cells(run: Path) -> None:
    (run.parent / "cells.h5ad").unlink()
    mock.write_cells(run.parent / "cells.h5ad", seed=1)


def unrecorded(run: Path) -> None:
    record = json.loads((run / "run.json").read_text())
    del record["stages"]["run-pipeline"]
    files.write_json(run / "run.json", record)


@pytest.mark.parametrize(
    ("spoil", "asked", "error", "says"),
    [
        (None, {"feature": 99}, DataError, "there is no feature 99"),
        (None, {"site": None}, DataError, "there are several sites"),
        (None, {"site": "blocks.0.hook_mlp"}, DataError, "Did you mean"),
        (None, {"cell_type": "typ 1"}, ConfigError, "Did you mean"),
        (None, {"to": 1.0, "off": True}, ConfigError, "one of to, times and off"),
        (None, {"times": 1.0}, ConfigError, "leaves a feature as it is"),
        (None, {"sizes": 1.0}, ConfigError, "sizes"),
        (silence, {}, DataError, "never fired in this run"),
        (no_test_cells, {}, DataError, "no cell was held out"),
        (other_weights, {}, GuardError, "no longer what the run read: other are its weights"),
        (lambda run: shutil.rmtree(run.parent / "model"), {}, MissingError, "Say where it lies now: --model"),
        (other_cells, {}, GuardError, "is not what the run read, which was cells.h5ad"),
        (lambda run: (run.parent / "cells.h5ad").unlink(), {}, DataError, "Say where they lie: --data FILE"),
        (lambda run: (run / "model_config.json").unlink(), {}, DataError, "was made from saved activations"),
        (unrecorded, {}, DataError, "no run-pipeline has ended here"),
    ],
)
def test_what_cannot_be_done_is_told_in_one_line(
    place: Path, spoil: Any, asked: dict[str, Any], error: type[EluteError], says: str
) -> None:
    run = place / "run"
    if spoil is not None:
        spoil(run)
    with pytest.raises(error) as told:
        steer(run, **{"feature": 3 if spoil is silence else 0, "site": FIRST, **FEW, **asked})
    assert says in str(told.value)
    assert "\n" not in str(told.value)
    assert not (run / FIRST / "effects").exists()


def test_a_dictionary_of_several_sites_is_refused(made: Path, tmp_path: Path) -> None:
    for name in ("cells.h5ad", "model"):
        (tmp_path / name).symlink_to(made / name)
    run = whole_run(tmp_path, kind="clt")
    with pytest.raises(EluteError, match="a clt reads and writes several sites"):
        steer(run, feature=alive(run, open_run(run).sites[0]), to=1.0, **FEW)


def test_a_transcoder_is_steered_where_it_writes(made: Path, tmp_path: Path) -> None:
    for name in ("cells.h5ad", "model"):
        (tmp_path / name).symlink_to(made / name)
    run = whole_run(tmp_path, kind="transcoder")
    found = steer(run, feature=alive(run, FIRST), site=FIRST, to=1.0, **FEW).summary["summary"]
    assert found["identity"] == 0
    assert list(found["features"]) == [LAST]


def test_the_command_says_it_in_words_and_in_json(made: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = made / "run"
    words = ["cells", "steer", "--results", str(run), "--site", FIRST, "--feature", str(alive(run)), "--times", "3",
             "--cells", "12", "--controls", "2"]  # fmt: skip
    main(words)
    said = capsys.readouterr()
    assert f"feature {alive(run)} of {FIRST}, times 3:" in said.out
    assert "beside random: size" in said.out
    assert f"features of {LAST}" in said.out
    assert "changes in them may mean little" in said.err  # the model has random weights
    main([*words, "--json"])
    answer = json.loads(capsys.readouterr().out)
    assert (answer["kind"], answer["reused"]) == ("steer", True)
    assert answer["settings"]["times"] == 3.0
