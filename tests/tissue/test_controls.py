"""Controls stand on the run's own samples, folds and splits, whichever part of the tiles they take."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from tests.tissue.test_pipeline import planned
from tests.tissue.tiles_made import write_files

from elute.base.errors import GuardError
from elute.heads.settings import HeadConfig
from elute.store.reader import Store
from elute.tissue import controls
from elute.tissue.embed_splits import drawn_split, given_split
from elute.tissue.fitting import setting_of
from elute.tissue.learning import opened
from elute.tissue.pipeline import STAGES, run_stage
from elute.tissue.plan import Plan
from elute.tissue.preparing import read_targets
from elute.tissue.splitting import folds_of, samples_of
from elute.tissue.tiles import open_tiles

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    """A run as far as its heads, without controls."""
    config = write_files(tmp_path_factory.mktemp("tissue"))
    made = planned(config, config.parent / "run", controls={"controls": "none"}, sae={"steps": 20})
    for stage in STAGES[:4]:
        run_stage(made, stage)
    return replace(made, controls=made.controls.model_copy(update={"controls": "standard"}))


def own_setting(plan: Plan) -> controls.Setting:
    samples = samples_of(opened(plan))
    drawn = folds_of(plan.output, samples, folds=plan.heads.folds, seed=plan.heads.seed)
    return setting_of(plan, read_targets(plan), drawn)


def splits_in(folder: Path) -> dict[str, str]:
    return dict(samples_of(Store(folder / "embeddings")).select("group", "split").unique().iter_rows())


def test_a_part_of_the_tiles_lies_in_the_splits_of_the_run(plan: Plan) -> None:
    setting = own_setting(plan)
    groups = setting.samples["group"].to_list()
    first = {group: groups.index(group) for group in groups}
    # A control that takes much of one patient and little of the others: drawn over these alone, splits are others.
    rows = np.array([i for i, group in enumerate(groups) if group == "p0" or i == first[group]])
    part, tiles = setting.part(rows), open_tiles(plan.tiles)
    kept = tiles.table.filter(pl.col("sample_id").is_in(part.samples["sample_id"].to_list()))
    own = splits_in(plan.output)
    assert drawn_split(kept, plan.split) != own
    made = controls.random_features(plan, part, tiles)
    assert made.x.shape[0] == len(rows)
    home = plan.output / "controls" / "random_encoder"
    assert splits_in(home) == own
    theirs = samples_of(Store(home / "embeddings"))
    assert theirs["sample_id"].to_list() == part.samples["sample_id"].to_list()
    run = dict(setting.samples.select("sample_id", "fold").iter_rows())
    assert [run[name] for name in part.samples["sample_id"]] == part.folds.tolist()
    # Asked for all of them afterwards, it is made anew, and again in the run's splits.
    controls.random_features(plan, setting, tiles)
    assert splits_in(home) == own
    assert len(samples_of(Store(home / "embeddings"))) == len(setting.samples)


def test_a_group_that_the_run_does_not_know_is_refused() -> None:
    table = pl.DataFrame({"group": ["p0", "p1", "p9"]})
    assert given_split(table.head(2), {"p0": "train", "p1": "test", "p2": "test"}) == {"p0": "train", "p1": "test"}
    with pytest.raises(GuardError, match=r"group 'p9' lies in no split of the run"):
        given_split(table, {"p0": "train", "p1": "test"})


@pytest.mark.parametrize(("n", "every", "share"), [(30, False, 1.0), (400, False, 0.25), (400, True, 1.0)])
def test_the_dear_control_takes_a_part_of_each_patient(
    monkeypatch: pytest.MonkeyPatch, n: int, every: bool, share: float
) -> None:
    monkeypatch.setattr(controls, "LEAST", 100)
    samples = pl.DataFrame({"group": [f"p{i % 7}" for i in range(n)]})
    rows = controls.chosen_samples(samples, every=every, seed=0)
    assert (np.diff(rows) > 0).all()
    assert len(rows) == pytest.approx(share * n, abs=4)
    taken = samples[rows.tolist()]["group"].value_counts()["count"]
    assert taken.min() >= int(share * n / 7)  # type: ignore[operator]


@pytest.mark.parametrize(
    ("model", "patients", "run"),
    [("ridge", 2, True), ("elastic_net", 2, False), ("linear", 2, False), ("linear", 3, True)],
)
def test_dense_embeddings_where_each_fold_learns_from_one_patient(model: Any, patients: int, run: bool) -> None:
    """Of one patient no penalty can be chosen: ridge takes the one it was given, other heads have none to lend."""
    rng = np.random.default_rng(0)
    samples = pl.DataFrame(
        {
            "sample_id": [f"s{i}" for i in range(24)],
            "group": [f"p{i % patients}" for i in range(24)],
            "section": None, "x": None, "y": None, "split": "train",
            "fold": [i % patients for i in range(24)],
        },
        schema_overrides={"section": pl.String, "x": pl.Float64, "y": pl.Float64},
    )  # fmt: skip
    dense = rng.normal(size=(24, 5))
    config = HeadConfig(folds=patients, model=model, penalties=None if model == "linear" else (1.0,))
    setting = controls.Setting(samples, dense[:, :2] + rng.normal(size=(24, 2)) * 0.1, None, config)
    plan = Plan.of("nowhere")
    own = setting.fit(dense, title="own")
    found = controls.hold_beside(plan, setting, own, x=dense, dense=lambda: dense, tiles=None)
    assert ("dense_pca_ridge" in found.found) is run
    if run:
        predictions = found.found["dense_pca_ridge"][0]
        assert np.corrcoef(predictions.measured[:, 0], predictions.predicted[:, 0])[0, 1] > 0.8
    else:
        assert "one patient to learn from" in found.not_run["dense_pca_ridge"]
    assert set(found.not_run) >= {"neighbours", "random_encoder"}
