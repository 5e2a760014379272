"""Every fit inside its fold, the same folds for all, the same bytes again, and what a kill leaves."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from tests.particles.views import joined, views

from elute.base import files
from elute.base.errors import DataError
from elute.heads import fusion
from elute.heads.fusion_fit import Part, fit_networks
from elute.particles import baselines, evaluating, fold_work
from elute.particles.classifier import fit_classifier
from elute.particles.evaluating import evaluate
from elute.particles.fold_work import Fold, work
from elute.particles.folding import draw_folds
from elute.particles.methods import methods_of
from elute.particles.results import METRICS
from elute.particles.scores import score
from elute.particles.settings import EvaluationConfig
from elute.particles.table import Joined

pytestmark = pytest.mark.usefixtures("one_thread")


def config(method: str = "attention", **more: Any) -> EvaluationConfig:
    known = {
        "n_folds": 3,
        "attention_epochs": 2,
        "embedding_dim": 5,
        "inner_folds": 2,
        "n_resamples": 100,
        "device": "cpu",
    }
    return EvaluationConfig.model_validate({**known, "fusion_method": method, **more})


def test_the_classifier_is_scikit_learns() -> None:
    data = views(200, 4, apart=1.0)
    x, codes = data.vectors[0] * np.array([1, 10, 100, 1e-3, 1, 1], "f4") + 5, data.codes
    ours = fit_classifier(x[:150], codes[:150], n_classes=4).probabilities(x[150:])
    theirs = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000, tol=1e-8)).fit(
        x[:150].astype(float), codes[:150]
    )
    np.testing.assert_allclose(ours, theirs.predict_proba(x[150:].astype(float)), atol=1e-4)


def test_a_class_that_is_not_learnt_from_gets_no_probability() -> None:
    data = views(100, 3)
    seen = data.codes != 1
    p = fit_classifier(data.vectors[0][seen], data.codes[seen], n_classes=3).probabilities(data.vectors[0])
    assert (p[:, 1] == 0).all()
    np.testing.assert_allclose(p.sum(1), 1)
    with pytest.raises(DataError, match="one class only"):
        fit_classifier(data.vectors[0][data.codes == 1], data.codes[data.codes == 1], n_classes=3)


def test_principal_components_and_neighbours_are_scikit_learns() -> None:
    data = views(150, 3)
    train, test = np.arange(100), np.arange(100, 150)
    x = [fusion.concat(baselines.standardised(data.vectors, train, rows)) for rows in (train, test)]
    ours = baselines.principal(*x, width=4)
    theirs = PCA(4, svd_solver="full").fit(x[0])
    for mine, part in zip(ours, x, strict=True):
        np.testing.assert_allclose(np.abs(mine), np.abs(theirs.transform(part)), atol=1e-8)
    near = KNeighborsClassifier(15).fit(x[0], data.codes[train]).predict_proba(x[1])
    prior = np.bincount(data.codes[train]) / 100
    got = baselines.nearest(x[0], data.codes[train], x[1], n_classes=3)
    np.testing.assert_allclose(got, (15 * near + prior) / 16)


def test_every_method_is_there_in_the_same_folds(tmp_path: Path) -> None:
    data = views(160, 3)
    found = evaluate(data, config(), tmp_path)
    assert list(found.methods) == [
        "a", "b", "fusion", "concat", "pca", "knn", "average", "network_a", "network_b", "permuted_across",
        "permuted_within",
    ]  # fmt: skip
    assert found.grouped_by == "run"
    for one in found.methods.values():
        np.testing.assert_allclose(one.probabilities.sum(1), 1, atol=1e-6)
        assert len(one.folds["map"]) == 3
    assert found.fused.shape == (160, 5)
    assert found.gates is not None
    assert found.gates.shape == (160, 2)
    asked = {(c.first, c.second) for c in found.comparisons}
    assert {("fusion", "a"), ("fusion", "b"), ("fusion", "concat"), ("permuted_across", "network_a")} <= asked
    plain = found.plain()
    files.as_json(plain)  # no NaN, nothing that JSON has not
    assert plain["n_folds"] == 3
    assert plain["mark"] is None
    assert sum(plain["class_sizes"]) == 160
    assert set(plain["gates"]["per_class"]) == set(found.classes)


@pytest.mark.parametrize("method", ["average", "concat", "weighted"])
def test_rules_of_fusion_leave_out_what_would_be_twice(tmp_path: Path, method: str) -> None:
    data = views(120, 3)
    found = evaluate(data, config(method), tmp_path)
    assert (method in found.not_run) == (method != "weighted")
    assert found.gates is None
    assert found.fused.shape == (120, 12 if method == "concat" else 6)
    fold = Fold(data, draw_folds(data, config(method)), config(method), 1)
    train, test = (baselines.standardised(data.vectors, fold.train, rows) for rows in (fold.train, fold.test))
    w = (0.7, 0.3) if method == "weighted" else (0.5, 0.5)
    by_hand = [np.hstack(x) if method == "concat" else w[0] * x[0] + w[1] * x[1] for x in (train, test)]
    np.testing.assert_allclose(found.fused[fold.test], by_hand[1], atol=1e-5)
    p = fit_classifier(by_hand[0], data.codes[fold.train], n_classes=3).probabilities(by_hand[1])
    np.testing.assert_allclose(found.methods["fusion"].probabilities[fold.test], p, atol=1e-6)


def test_widths_that_differ_have_no_average_but_a_fusion(tmp_path: Path) -> None:
    data = views(120, 3, widths=(6, 9, 4))
    found = evaluate(data, config(), tmp_path)
    assert "widths 6, 9, 4" in found.not_run["average"]
    assert "without_last" in found.methods
    assert ("permuted_across", "without_last") in {(c.first, c.second) for c in found.comparisons}


@pytest.fixture(scope="module")
def before() -> dict[str, Any]:
    data = views(120, 3, runs=8)
    return {"data": data, "folds": draw_folds(data, config())}


def worked(data: Joined, folds: Any, settings: EvaluationConfig) -> Any:
    return work(Fold(data, folds, settings, 1), methods_of(data, settings))


def test_nothing_that_is_held_out_is_learnt_from(before: dict[str, Any]) -> None:
    """Other classes for the particles that are held out change nothing of what is predicted for them."""
    data, folds = before["data"], before["folds"]
    out = np.flatnonzero(folds.of == 1)
    labels = np.array(data.particles["label"].to_list(), dtype=object)
    labels[out] = [data.classes[(c + 1) % 3] for c in data.codes[out]]
    lied = joined(
        list(data.vectors), [int(label[-1]) for label in labels], np.array([int(r[-2:]) for r in data.runs or []])
    )
    a, b = worked(data, folds, config()), worked(lied, folds, config())
    for name, p in a.probabilities.items():
        if name != "permuted_within":  # which is told the classes: that is what is wrong with it
            np.testing.assert_allclose(p, b.probabilities[name], atol=1e-9, err_msg=name)
    np.testing.assert_array_equal(a.fused, b.fused)
    assert np.abs(a.probabilities["permuted_within"] - b.probabilities["permuted_within"]).max() > 0.01


def test_no_vector_that_is_held_out_is_learnt_from(before: dict[str, Any]) -> None:
    """Other vectors for some that are held out change nothing of what is predicted for the rest of them."""
    data, folds = before["data"], before["folds"]
    out = np.flatnonzero(folds.of == 1)
    far = tuple(x.copy() for x in data.vectors)
    for x in far:
        x[out[::2]] *= 50
    other = replace(data, vectors=far)
    a, b = worked(data, folds, config()), worked(other, folds, config())
    for name, p in a.probabilities.items():
        if not name.startswith("permuted"):
            np.testing.assert_allclose(p[1::2], b.probabilities[name][1::2], atol=1e-9, err_msg=name)


def test_the_classifier_is_fitted_to_vectors_that_their_network_had_not_seen(
    before: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    data, folds = before["data"], before["folds"]
    calls: list[tuple[Any, Any]] = []
    seen: list[Any] = []
    real_fuse, real_fit = fold_work.fusion.fuse_rows, fit_networks

    def fit(vectors: Any, codes: Any, parts: Any, **more: Any) -> Any:
        seen.extend(parts)
        return real_fit(vectors, codes, parts, **more)

    def fuse(networks: Any, vectors: Any, rows: Any, *, which: int = 0, partners: Any = None) -> Any:
        calls.append((rows, which))
        return real_fuse(networks, vectors, rows, which=which, partners=partners)

    monkeypatch.setattr("elute.heads.fusion_fit.fit_networks", fit)
    monkeypatch.setattr(fold_work.fusion, "fuse_rows", fuse)
    worked(data, folds, config())
    train, test = np.flatnonzero(folds.of != 1), np.flatnonzero(folds.of == 1)
    assert all(not set(part.rows.tolist()) & set(test.tolist()) for part in seen)
    given = dict(enumerate(seen))
    fitted = [set(rows.tolist()) for rows, which in calls if not set(rows.tolist()) & set(given[which].rows.tolist())]
    inside = [rows for rows in fitted if rows <= set(train.tolist())]
    assert set().union(*inside) == set(train.tolist())  # each training row is fused by a network that has not seen it
    assert len(seen) == 5 * 3  # five variants: two inner networks and one of the whole training part each
    assert {which for _, which in calls} == set(range(15))  # none is trained for nothing


def test_of_nothing_the_fusion_says_nothing_and_is_not_sure_of_it(tmp_path: Path) -> None:
    """With classes that have nothing to do with the vectors a classifier of in-sample vectors is sure, and wrong."""
    data, settings = views(240, 2, apart=0.0, shift=0.0, seed=3), config(attention_epochs=25)
    found = evaluate(data, settings, tmp_path)
    one = found.methods["fusion"].overall
    assert one["accuracy"].estimate == pytest.approx(0.5, abs=0.1)
    assert one["log_loss"].estimate is not None
    folds = draw_folds(data, settings)
    wrong = np.empty((240, 2))
    for number in range(folds.n):
        fold = Fold(data, folds, settings, number)
        networks = fit_networks(data.vectors, data.codes, [Part(fold.train)], config=fold.fusion_config())
        train, test = (fusion.fuse_rows(networks, data.vectors, rows)[0] for rows in (fold.train, fold.test))
        wrong[fold.test] = baselines.logistic(train, data.codes[fold.train], test, n_classes=2)
    in_sample = float(score(wrong, data.codes).overall[0, METRICS.index("log_loss")])
    assert one["log_loss"].estimate - np.log(2) < 0.5 * (in_sample - np.log(2))
    half = np.arange(240) % 2 == 0
    p = fit_classifier(found.fused[half], data.codes[half], n_classes=2).probabilities(found.fused[~half])
    assert (p.argmax(1) == data.codes[~half]).mean() == pytest.approx(0.5, abs=0.13)


def test_out_of_fold_vectors_of_all_folds_lie_in_one_space(tmp_path: Path) -> None:
    data = views(240, 3, apart=2.5)
    found = evaluate(data, config(attention_epochs=15, embedding_dim=8), tmp_path)
    even = found.folds % 2 == 0
    p = fit_classifier(found.fused[even], data.codes[even], n_classes=3).probabilities(found.fused[~even])
    assert (p.argmax(1) == data.codes[~even]).mean() > 0.9
    assert (found.methods["fusion"].predicted == data.codes).mean() > 0.9


def digests(folder: Path) -> dict[str, str]:
    return {str(p.relative_to(folder)): files.digest_file(p) for p in sorted(folder.rglob("*")) if p.is_file()}


def test_two_runs_give_the_same_files_and_another_seed_others(tmp_path: Path) -> None:
    data = views(120, 3)
    for name, settings in (("a", config()), ("b", config()), ("c", config(random_seed=1))):
        evaluate(data, settings, tmp_path / name)
    assert digests(tmp_path / "a") == digests(tmp_path / "b")
    assert digests(tmp_path / "a")["folds/fold_00.safetensors"] != digests(tmp_path / "c")["folds/fold_00.safetensors"]
    assert set(digests(tmp_path / "a")) == {"folds.parquet", *(f"folds/fold_0{i}.safetensors" for i in range(3))}


@pytest.mark.parametrize("where", ["between folds", "while a network learns"])
def test_what_was_killed_goes_on_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, where: str) -> None:
    data = views(120, 3)
    whole = evaluate(data, config(), tmp_path / "whole")
    done: list[int] = []
    real = evaluating.work

    def stop(fold: Fold, methods: Any) -> Any:
        if fold.number == 1 and 1 not in done:
            done.append(1)
            if where != "between folds":
                real(fold, methods)  # its checkpoint folder is left behind, and no file
            raise KeyboardInterrupt
        done.append(fold.number)
        return real(fold, methods)

    monkeypatch.setattr(evaluating, "work", stop)
    with pytest.raises(KeyboardInterrupt):
        evaluate(data, config(), tmp_path / "killed")
    again = evaluate(data, config(), tmp_path / "killed")
    assert done == [0, 1, 1, 2]
    assert digests(tmp_path / "killed") == digests(tmp_path / "whole")
    assert again.plain() == whole.plain()
    np.testing.assert_array_equal(again.fused, whole.fused)


def test_files_of_other_inputs_settings_or_cut_short_are_done_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = views(120, 3)
    evaluate(data, config("concat"), tmp_path)
    first = digests(tmp_path)
    done: list[int] = []
    real = evaluating.work
    monkeypatch.setattr(evaluating, "work", lambda fold, methods: done.append(fold.number) or real(fold, methods))
    evaluate(data, config("concat", n_resamples=150), tmp_path)  # draws are no part of what a fold gives
    assert done == []
    path = tmp_path / "folds" / "fold_01.safetensors"
    path.write_bytes(path.read_bytes()[:-7])
    evaluate(data, config("concat"), tmp_path)
    assert done == [1]
    assert digests(tmp_path) == first
    evaluate(views(120, 3, seed=4), config("concat"), tmp_path)
    evaluate(data, config("weighted"), tmp_path)
    assert done == [1, *range(3), *range(3)]
    evaluate(data, config("weighted", n_folds=2), tmp_path)
    assert len(list((tmp_path / "folds").iterdir())) == 2


def test_runs_that_are_held_together_lower_what_neighbours_would_have_told(tmp_path: Path) -> None:
    """Classes go by run and each run has a shift of its own: dealt one by one, particles are told by their neighbours."""
    rng = np.random.default_rng(0)
    run = np.repeat(np.arange(16), 15)
    codes = np.where(rng.random(240) < 0.9, run % 2, 1 - run % 2)
    x = [(rng.normal(0, 8, (16, 6))[run] + rng.normal(0, 1, (240, 6))).astype("f4") for _ in range(2)]
    apart, together = (
        evaluate(joined(x, codes, run), config("concat", group_by=by, n_folds=4), tmp_path / by)
        .methods["knn"]
        .overall["accuracy"]
        for by in ("none", "run_name")
    )
    assert apart.estimate is not None
    assert together.estimate is not None
    assert apart.estimate > 0.8
    assert together.estimate < 0.65


def test_a_label_paired_evaluation_says_so(tmp_path: Path) -> None:
    data = replace(views(120, 3), pairing="label")
    found = evaluate(data, config("concat"), tmp_path).plain()
    assert found["mark"] == "label-paired: not evidence"
    assert found["evidence"] is False


def test_left_over_checkpoints_of_a_killed_run_are_removed(tmp_path: Path) -> None:
    data = views(120, 3)
    evaluate(data, config(), tmp_path)
    (tmp_path / "folds" / "fold_09").mkdir()
    evaluate(data, config(), tmp_path)
    assert not (tmp_path / "folds" / "fold_09").exists()
    shutil.rmtree(tmp_path / "folds")
