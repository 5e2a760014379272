"""Made-up particles: what is known of them is true, and the files are as CryoLens and TomoTwin write them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import multivariate_normal
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import average_precision_score
from tests.particles.views import joined

from elute.particles.demo import held_against
from elute.particles.evaluating import evaluate
from elute.particles.generator import SOURCES, make, make_world
from elute.particles.generator_files import CONFIG, PARTICLES, TRUTH, write_made
from elute.particles.generator_settings import MadeConfig
from elute.particles.generator_truth import average_precision, covariance, known_truth
from elute.particles.settings import EvaluationConfig

SMALL = MadeConfig(runs=6, per_run=30, classes=4, widths=(8, 7))


def test_posteriors_are_those_of_the_density_in_all_dimensions() -> None:
    config = MadeConfig(classes=3, widths=(7, 9), shift=0.5)
    world = make_world(config)
    centre = np.concatenate([world.centre(0), world.centre(1)], axis=1)
    spread = covariance(config, world)
    rng = np.random.default_rng(5)
    label = rng.integers(3, size=20_000)
    x = np.array(centre[label] + rng.multivariate_normal(np.zeros(16), spread, size=len(label)))
    density = np.stack([multivariate_normal(centre[k], spread).logpdf(x) for k in range(3)], axis=1)
    right = float((density.argmax(axis=1) == label).mean())
    told = known_truth(config, drawn=20_000)
    assert told["both"]["accuracy"] == pytest.approx(right, abs=0.012)


def test_the_covariance_is_that_of_what_is_drawn() -> None:
    config = MadeConfig(classes=2, runs=900, per_run=6, widths=(7, 6), lost=0)
    made, world = make(config), make_world(config)
    both = np.concatenate(made.vectors, axis=1).astype(float)
    centre = np.concatenate([world.centre(0), world.centre(1)], axis=1)
    away = both - centre[made.label]
    assert np.abs(np.cov(away.T) - covariance(config, world)).max() < 0.09
    apart = covariance(config, world, apart=True)
    assert not apart[:7, 7:].any()


def test_no_classifier_is_better_than_the_truth_and_a_taught_one_comes_near() -> None:
    config = MadeConfig(runs=250, per_run=40, lost=0)
    made, truth = make(config), known_truth(config)
    held = made.run >= 170
    found = {}
    for name, x in (*zip(SOURCES, made.vectors, strict=True), ("both", np.concatenate(made.vectors, axis=1))):
        model = LogisticRegression(max_iter=200).fit(x[~held], made.label[~held])
        found[name] = model.score(x[held], made.label[held])
    best = {**{name: truth["alone"][name]["accuracy"] for name in SOURCES}, "both": truth["both"]["accuracy"]}
    for name, value in found.items():
        assert best[name] - 0.06 < value < best[name] + 0.02, name
    gain = found["both"] - max(found[name] for name in SOURCES)
    assert gain == pytest.approx(truth["gain"]["accuracy"], abs=0.04)


def test_without_parts_of_their_own_sources_gain_next_to_nothing_and_labels_invent_much() -> None:
    truth = known_truth(MadeConfig(own=0), drawn=20_000)
    assert truth["gain"]["macro_ap"] < 0.03
    assert truth["invented"]["macro_ap"] > 0.06
    assert known_truth(MadeConfig(common=0), drawn=20_000)["invented"]["macro_ap"] < 0.01


def test_fusion_gains_what_the_truth_allows_and_a_permuted_source_nothing(tmp_path: Path) -> None:
    measured, possible, none, invented = [], [], [], []
    for seed in range(3):
        config = MadeConfig(seed=seed, classes=4, runs=16, per_run=70, widths=(8, 8), lost=0)
        made, truth = make(config), known_truth(config, drawn=20_000)
        data = replace(joined(list(made.vectors), made.label, made.run), names=SOURCES)
        settings = EvaluationConfig(n_folds=3, fusion_method="concat", n_resamples=100, random_seed=seed, device="cpu")
        found = held_against(truth, evaluate(data, settings, tmp_path / str(seed)).plain())
        for name, best in found["possible"].items():
            one = found["measured"][name]
            assert best - 0.1 < one["estimate"] < best + 0.04, name
        assert found["gain"]["measured"]["low"] > 0
        assert not found["control_gains"]
        measured.append(found["gain"]["measured"]["estimate"])
        possible.append(found["gain"]["possible"])
        none.append(found["control"]["estimate"])
        invented.append(found["invented"]["measured"])
    assert np.mean(measured) == pytest.approx(np.mean(possible), abs=0.05)
    assert -0.04 < np.mean(none) < 0.01
    assert np.mean(invented) > 0


def test_average_precision_is_scikit_learns() -> None:
    rng = np.random.default_rng(0)
    score, right = rng.random(300), rng.random(300) < 0.3
    assert average_precision(score, right) == pytest.approx(average_precision_score(right, score))


def test_a_tomogram_depends_on_its_own_number_alone() -> None:
    few, many = make(SMALL), make(SMALL.model_copy(update={"runs": 9}))
    n = len(few)
    for one, other in zip(few.vectors, many.vectors, strict=True):
        assert np.array_equal(one, other[:n])
    assert few.ids == many.ids[:n]


def test_particles_keep_apart_and_sources_agree_on_where_they_are() -> None:
    made = make(SMALL)
    for run in range(SMALL.runs):
        at = made.coordinates[0][made.run == run]
        away = np.linalg.norm(at[:, None] - at[None], axis=2) + 1e9 * np.eye(len(at))
        assert away.min() > 8 * SMALL.jitter
    assert np.linalg.norm(made.coordinates[0] - made.coordinates[1], axis=1).max() <= SMALL.jitter


def test_files_are_read_and_joined_to_the_true_pairs(tmp_path: Path) -> None:
    import polars as pl

    from elute.particles.reading import read_joined
    from elute.particles.settings import EvaluationConfig, read_inputs

    write_made(tmp_path, SMALL)
    joined = read_joined(read_inputs(tmp_path / CONFIG), EvaluationConfig(embedding_dim=7))
    made = make(SMALL)
    assert len(joined) == int(made.both.sum())
    assert joined.pairing == "run and coordinates"
    truth = pl.read_parquet(tmp_path / PARTICLES)
    row = {name: i for i, name in enumerate(truth["tomotwin"].to_list()) if name is not None}
    first = next(iter(row))
    assert truth["label"][row[first]] in first
    place = dict(zip(map(bytes, made.vectors[1]), range(len(made)), strict=True))
    rows = [place[bytes(x)] for x in joined.vectors[joined.names.index("tomotwin")]]
    assert np.array_equal(joined.vectors[joined.names.index("cryolens")], made.vectors[0][rows, :7])
    assert joined.particles["label"].to_list() == [made.labels[i] for i in rows]
    assert joined.runs == [made.runs[i] for i in rows]


def test_the_same_settings_give_the_same_files_and_are_used_as_they_are(tmp_path: Path) -> None:
    one, two = (write_made(tmp_path / name, SMALL).summary for name in ("a", "b"))
    assert one["files"] == two["files"]
    again = write_made(tmp_path / "a", SMALL)
    assert again.summary["reused"]
    (tmp_path / "a" / TRUTH).write_text("{}")
    mended = write_made(tmp_path / "a", SMALL)
    assert not mended.summary["reused"]
    assert json.loads((tmp_path / "a" / TRUTH).read_text())["gain"] == one["truth"]["gain"]
