"""The last fusion: vectors in and out of sample, the network for new particles, and files that are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import polars as pl
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from tests.particles.views import views

from elute.base.errors import ConfigError, DataError, EluteError
from elute.particles import fusion_file
from elute.particles.evaluating import evaluate
from elute.particles.final import train_final_fusion_and_save
from elute.particles.fusing import FuseConfig, fuse, join_unlabelled
from elute.particles.fusion_file import FusionModel, fingerprints, load_fusion, save_fusion
from elute.particles.reading_fused import FusedFile
from elute.particles.settings import EvaluationConfig
from elute.particles.table import Joined, source_table

CONFIG = EvaluationConfig(
    n_folds=3, fusion_method="attention", attention_epochs=6, embedding_dim=5, n_resamples=100, device="cpu", inner_folds=2
)  # fmt: skip


@pytest.fixture(scope="module")
def whole() -> Joined:
    return views(260, 3, runs=9, seed=2)


@pytest.fixture(scope="module")
def known(whole: Joined) -> Joined:
    """Particles of the first runs: those of the others are new."""
    return whole.only(np.flatnonzero(np.array([r < "run_06" for r in whole.runs or []])))


@pytest.fixture(scope="module")
def saved(known: Joined, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("final")
    evaluate(known, CONFIG, folder / "evaluation")
    train_final_fusion_and_save(known, folder / "fused.h5", CONFIG, evaluated=folder / "evaluation")
    return folder


def write_views(folder: Path, joined: Joined, *, labels: bool = True) -> list[str]:
    """Write each source as a table of text, and say so as --inputs has it."""
    out = []
    for name, x in zip(joined.names, joined.vectors, strict=True):
        frame = joined.particles.select("id", "run", *(["label"] if labels else []))
        frame = frame.with_columns(pl.Series(f"v{j}", x[:, j].astype(float)) for j in range(x.shape[1]))
        frame.write_csv(folder / f"{name}.csv")
        out.append(f"{name}={folder / f'{name}.csv'}")
    return out


def test_array_and_metadata_come_back_and_lie_in_the_file(known: Joined, saved: Path) -> None:
    mu, told = train_final_fusion_and_save(known, saved / "fused.h5", CONFIG, evaluated=saved / "evaluation")
    assert mu.shape == (len(known), 5)
    want = {"n_samples": len(known), "embedding_dim": 5, "n_classes": 3, "class_names": list(known.classes)}
    assert {key: told[key] for key in want} == want
    with h5py.File(told["output_path"]) as f:
        attrs = dict(f["metadata"].attrs)
        assert np.array_equal(
            f["embeddings"]["p0" if "p0" in f["embeddings"] else known.particles["id"][0]]["mu"][:], mu[0]
        )
    for name, value in {"fusion_method": "attention", "n_epochs": 6, "random_seed": 171717, "n_classes": 3}.items():
        assert attrs[name] == value
    assert {"version_elute", "version_torch", "input_a", "input_b"} <= set(attrs) | {f"input_{n}" for n in known.names}
    found = FusedFile(saved / "fused.h5").read()
    assert np.array_equal(found.mu, mu)
    assert found.particles.equals(known.particles)
    folds = pl.read_parquet(saved / "evaluation" / "folds.parquet")
    assert found.fold is not None
    assert found.fold.tolist() == folds["fold"].to_list()


def test_in_sample_vectors_look_better_than_those_out_of_fold(saved: Path, known: Joined) -> None:
    found = FusedFile(saved / "fused.h5").read()
    assert found.mu_oof is not None
    assert found.fold is not None
    right = {}
    for name, x in (("mu", found.mu), ("mu_oof", found.mu_oof)):
        hits = []
        for fold in range(3):
            held = found.fold == fold
            model = LogisticRegression(max_iter=1000).fit(x[~held], known.codes[~held])
            hits.append(model.predict(x[held]) == known.codes[held])
        right[name] = np.concatenate(hits).mean()
    assert right["mu"] > right["mu_oof"] + 0.02
    assert right["mu_oof"] > 0.5


def test_new_particles_are_fused_into_the_space_of_the_old(
    saved: Path, whole: Joined, known: Joined, tmp_path: Path
) -> None:
    new = whole.only(np.flatnonzero(np.array([r >= "run_06" for r in whole.runs or []])))
    made = fuse(saved, write_views(tmp_path, new), tmp_path / "new.h5")
    assert made.summary["in_sample"] == 0
    found, old = FusedFile(tmp_path / "new.h5").read(), FusedFile(saved / "fused.h5").read()
    assert found.particles["id"].to_list() == new.particles["id"].to_list()
    assert not found.in_sample.any()
    assert old.mu_oof is not None
    taught = LogisticRegression(max_iter=1000).fit(old.mu_oof, known.codes)
    right = (taught.predict(found.mu) == new.codes).mean()
    others = []
    for seed in range(8):
        turn = np.linalg.qr(np.random.default_rng(seed).normal(size=(5, 5)))[0]
        elsewhere = LogisticRegression(max_iter=1000).fit(old.mu_oof @ turn, known.codes)
        others.append((elsewhere.predict(found.mu) == new.codes).mean())
    assert right > 0.55
    assert right > np.mean(others) + 0.15, "vectors of another space would not do"


def test_particles_that_were_learnt_from_are_known_again(saved: Path, known: Joined, tmp_path: Path) -> None:
    made = fuse(
        saved / "fusion.pt", write_views(tmp_path, known), tmp_path / "again.h5", config=FuseConfig(layout="both")
    )
    found, old = FusedFile(tmp_path / "again.h5").read(), FusedFile(saved / "fused.h5").read()
    assert made.summary["in_sample"] == len(known)
    assert found.in_sample.all()
    assert np.allclose(found.mu, old.mu, atol=1e-5)
    assert fuse(saved, write_views(tmp_path, known), tmp_path / "again.h5", config=FuseConfig(layout="both")).summary[
        "reused"
    ]


def test_fingerprints_tell_particles_apart() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(3000, 4)).astype(np.float32), rng.normal(size=(3000, 3)).astype(np.float32)
    found = fingerprints([a, b])
    assert len(np.unique(found)) == 3000
    assert not np.isin(fingerprints([a, b[::-1].copy()]), found).any()
    assert np.array_equal(fingerprints([a[5:9], b[5:9]]), found[5:9])


def test_new_particles_need_no_class(saved: Path, known: Joined, tmp_path: Path) -> None:
    few = known.only(np.arange(20))
    fuse(saved, write_views(tmp_path, few, labels=False), tmp_path / "new.h5")
    found = FusedFile(tmp_path / "new.h5").read()
    assert found.particles["label"].null_count() == 20
    assert found.particles["id"].to_list() == few.particles["id"].to_list()


def test_pairing_without_classes_is_the_same_as_with_them() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(6, 2)).astype(np.float32), rng.normal(size=(6, 3)).astype(np.float32)
    ids = [f"p{i}" for i in range(6)]
    one = source_table(
        "a", x, {"id": ids, "label": [None, "k", None, "l", None, "m"], "point_index": [7, 8, 9, 10, 11, 12]}
    )
    two = source_table("b", y, {"id": ids[::-1]})
    joined = join_unlabelled([one, two], EvaluationConfig())
    assert np.array_equal(joined.vectors[1], y[::-1])
    assert joined.particles["label"].to_list() == [None, "k", None, "l", None, "m"]
    assert joined.particles["point_index"].to_list() == [7, 8, 9, 10, 11, 12]


def test_other_methods_learn_nothing_to_save(known: Joined, tmp_path: Path) -> None:
    config = CONFIG.model_copy(update={"fusion_method": "average"})
    with pytest.raises(ConfigError, match="--fusion-method attention alone; average learns nothing"):
        train_final_fusion_and_save(known, tmp_path / "f.h5", config)
    assert list(tmp_path.iterdir()) == []


def test_what_is_there_is_refused_unless_it_is_the_same(saved: Path, known: Joined, tmp_path: Path) -> None:
    other = CONFIG.model_copy(update={"attention_epochs": 2})
    with pytest.raises(ConfigError, match="there is a file already"):
        train_final_fusion_and_save(known, saved / "fused.h5", other)
    with pytest.raises(ConfigError, match="a fusion of other particles or settings already"):
        train_final_fusion_and_save(known, saved / "other.h5", other)
    with pytest.raises(ConfigError, match="is a folder"):
        train_final_fusion_and_save(known, saved, other)
    with pytest.raises(DataError, match="holds no fold 0 of these particles and settings"):
        train_final_fusion_and_save(known, tmp_path / "f.h5", other, evaluated=saved / "evaluation")


def test_two_runs_give_the_same_files_and_a_kill_in_between_too(
    saved: Path, known: Joined, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from elute.particles import final

    def killed(*_args: Any, **_more: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as m:
        m.setattr(final, "write_fused", killed)
        with pytest.raises(KeyboardInterrupt):
            train_final_fusion_and_save(known, tmp_path / "fused.h5", CONFIG, evaluated=saved / "evaluation")
    assert (tmp_path / "fusion.pt").exists()
    train_final_fusion_and_save(known, tmp_path / "fused.h5", CONFIG, evaluated=saved / "evaluation")
    for name in ("fused.h5", "fusion.pt"):
        assert (tmp_path / name).read_bytes() == (saved / name).read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["fused.h5", "fusion.pt"]


def test_without_an_evaluation_there_are_no_vectors_out_of_fold(known: Joined, tmp_path: Path) -> None:
    train_final_fusion_and_save(known, tmp_path / "f.h5", CONFIG, layout="bulk")
    found = FusedFile(tmp_path / "f.h5").read()
    assert found.mu_oof is None
    assert found.in_sample.all()


def test_label_paired_files_say_so(known: Joined, tmp_path: Path) -> None:
    from dataclasses import replace

    train_final_fusion_and_save(replace(known, pairing="label"), tmp_path / "f.h5", CONFIG)
    assert FusedFile(tmp_path / "f.h5").told["mark"] == "label-paired: not evidence"
    made = fuse(tmp_path, write_views(tmp_path, known), tmp_path / "g.h5")
    assert made.summary["mark"] == FusedFile(tmp_path / "g.h5").told["mark"] == "label-paired: not evidence"


def _spoilt(content: dict[str, Any], how: str) -> Any:
    told = json.loads(content["config"])
    if how == "nan":
        content["network.out_weight"] = content["network.out_weight"] * float("nan")
    elif how == "expanded":
        content["network.out_weight"] = torch.zeros(1).expand(1, 1 << 40, 5)
    elif how == "lost":
        del content["network.gate0_weight"]
    elif how == "newer":
        content["config"] = json.dumps({**told, "schema_version": 9})
    elif how == "words":
        content["config"] = "no JSON"
    elif how == "widths":
        told["sources"][0]["width"] = 3
        content["config"] = json.dumps(told)
    elif how == "seen":
        content["seen"] = torch.zeros(3)
    elif how == "list":
        return [1, 2]
    return content


@pytest.mark.parametrize("how", ["nan", "expanded", "lost", "newer", "words", "widths", "seen", "list", "cut", "text"])
def test_a_spoilt_network_is_one_line(saved: Path, tmp_path: Path, how: str) -> None:
    path = tmp_path / "fusion.pt"
    if how in ("cut", "text"):
        whole = (saved / "fusion.pt").read_bytes()
        path.write_bytes(whole[: len(whole) // 2] if how == "cut" else b"hello")
    else:
        torch.save(_spoilt(dict(torch.load(saved / "fusion.pt", weights_only=True)), how), path)  # noqa: TID251
    with pytest.raises(EluteError) as told:
        load_fusion(path)
    assert "\n" not in str(told.value)
    assert isinstance(told.value, DataError)


def test_the_file_of_a_network_comes_back(saved: Path, known: Joined, tmp_path: Path) -> None:
    model = load_fusion(saved)
    save_fusion(tmp_path / "copy.pt", model)
    again = load_fusion(tmp_path / "copy.pt")
    assert (again.names, again.classes, again.widths, again.width) == (model.names, model.classes, model.widths, 5)
    assert again.told == model.told
    assert np.array_equal(again.fuse(known.vectors)[0], model.fuse(known.vectors)[0])
    assert again.fuse(known.vectors)[1].shape == (len(known), 2)
    assert isinstance(again, FusionModel)
    assert fusion_file.NAME == "fusion.pt"


@pytest.mark.parametrize(
    ("inputs", "text"),
    [
        ([], "no inputs are given"),
        (["a.csv"], "is not of the form NAME=FILE"),
        (["a=a.csv"], "source 'b' of the model is missing"),
        (["a=a.csv", "c=b.csv"], "no source 'c'. There are: a, b"),
        (["a=a.csv", "b=gone.csv"], "there is no such file"),
        (["a=narrow.csv", "b=b.csv"], "has vectors of 3 numbers, and the first 6 are asked for"),
    ],
)
def test_inputs_that_do_not_fit_are_one_line(saved: Path, known: Joined, tmp_path: Path, inputs: list[str], text: str, monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    write_views(tmp_path, known)
    frame = pl.read_csv(tmp_path / "a.csv")
    frame.drop("v3", "v4", "v5").write_csv(tmp_path / "narrow.csv")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EluteError, match=text):
        fuse(saved, inputs, tmp_path / "out.h5")
    assert not (tmp_path / "out.h5").exists()
    with pytest.raises(DataError, match="there is no fusion"):
        fuse(tmp_path / "nowhere", ["a=a.csv"], tmp_path / "out.h5")
