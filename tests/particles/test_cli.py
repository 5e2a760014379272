"""`elute particles` as people type it, a command line written for the original, and refusals in one line."""

from __future__ import annotations

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import polars as pl
import pytest
import yaml
from click.testing import CliRunner, Result

from elute.base.run import Artifact
from elute.cli.commands import Face
from elute.cli.main import elute, main
from elute.particles import evaluate_classification as module
from elute.particles.generator import make
from elute.particles.generator_files import write_made
from elute.particles.generator_settings import MadeConfig
from elute.particles.reading_fused import FusedFile

MADE = MadeConfig(runs=6, per_run=26, classes=3, widths=(6, 6), own=2.5, noise=0.2, lost=0.02)
SHORT = ("--n-folds", 3, "--embedding-dim", 6, "--n-resamples", 100, "--inner-folds", 2)
FILES = (
    "classification_results.json",
    "classification_performance.png",
    "report.html",
    "predictions.parquet",
    "folds.parquet",
)


@pytest.fixture(autouse=True)
def _usual_voice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Face, "debug", False)
    monkeypatch.setattr("elute.base.console._level", 0)
    logging.captureWarnings(capture=False)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write_made(folder, MADE)
    return folder


def run(*words: object) -> Result:
    return CliRunner().invoke(elute, ["particles", *map(str, words)], prog_name="elute")


def refusal(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    capsys.readouterr()
    assert main(["particles", *map(str, words)]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    found = [line for line in told.err.splitlines() if line.startswith("error: ")]
    assert len(found) == 1
    assert told.err.splitlines()[-1] == found[0]
    return found[0]


@pytest.fixture(scope="module")
def original(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a command line written for the original gives, with the module's name changed."""
    folder = tmp_path_factory.mktemp("original")
    line = f"--config {data}/classification.yaml --output-dir {folder}/out/ --n-folds 3 --fusion-method attention"
    line += " --attention-epochs 2 --random-seed 5 --embedding-dim 6 --balance-classes"
    assert module.main([*line.split(), "--save-fused-embeddings", f"{folder}/out/fused_embeddings.h5"]) == 0
    return folder / "out"


def test_a_command_line_of_the_original_runs_with_the_modules_name_changed(original: Path, data: Path) -> None:
    for name in (*FILES, "fused_embeddings.h5", "fusion.pt"):
        assert (original / name).is_file(), name
    results = json.loads((original / FILES[0]).read_text())
    assert (results["random_seed"], results["embedding_dim"], results["fusion_method"]) == (5, 6, "attention")
    assert results["config"] == yaml.safe_load((data / "classification.yaml").read_text())
    sizes = results["evaluation"]["class_sizes"]
    assert len(set(sizes)) == 1, "classes were balanced"
    told = pl.read_parquet(original / "predictions.parquet")
    right = (told["predicted:fusion"] == told["label"]).mean()
    assert right == pytest.approx(results["evaluation"]["methods"]["fusion"]["overall"]["accuracy"]["estimate"])
    p = told.select("^p:.*$").to_numpy()
    assert p.sum(axis=1) == pytest.approx(np.ones(len(told)))
    assert FusedFile(original / "fused_embeddings.h5").told["random_seed"] == 5


@pytest.fixture(scope="module")
def evaluated(data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "one"
    done = run(
        "evaluate_classification", "--config", data / "classification.yaml", "--output-dir", out, *SHORT, "--json"
    )
    assert done.exit_code == 0, done.output
    return out


def test_two_runs_give_the_same_files_and_a_third_has_nothing_to_do(
    evaluated: Path, data: Path, tmp_path: Path
) -> None:
    words = ("evaluate-classification", "--config", data / "classification.yaml", *SHORT)
    assert run(*words, "--output-dir", tmp_path / "one").exit_code == 0
    for path in sorted(p for p in evaluated.rglob("*") if p.is_file() and p.name != ".lock"):
        other = tmp_path / "one" / path.relative_to(evaluated)
        assert other.read_bytes() == path.read_bytes(), path.name
    before = {p: p.stat().st_mtime_ns for p in evaluated.rglob("*") if p.name != ".lock"}
    done = run(*words, "--output-dir", evaluated, "--json")
    assert json.loads(done.stdout)["reused"]
    assert {p: p.stat().st_mtime_ns for p in before} == before


def test_a_lost_file_is_written_again(evaluated: Path, data: Path, tmp_path: Path) -> None:
    shutil.copytree(evaluated, tmp_path / "out")
    (tmp_path / "out" / "report.html").unlink()
    done = run(
        "evaluate-classification", "--config", data / "classification.yaml", *SHORT, "--output-dir", tmp_path / "out"
    )
    assert done.exit_code == 0
    assert (tmp_path / "out" / "report.html").read_bytes() == (evaluated / "report.html").read_bytes()


def test_the_seed_of_the_file_counts_where_no_other_is_given(data: Path, tmp_path: Path) -> None:
    path = data / "seeded.yaml"
    path.write_text((data / "classification.yaml").read_text() + "random_seed: 9\n")
    assert run("evaluate_classification", "--config", path, "--output-dir", tmp_path, *SHORT).exit_code == 0
    assert json.loads((tmp_path / FILES[0]).read_text())["random_seed"] == 9
    done = run("evaluate_classification", "--config", path, "--output-dir", tmp_path, *SHORT, "--random-seed", 9)
    assert done.exit_code == 0
    for other in (["--random-seed", "4"], ["--set", "evaluation.random_seed=4"]):
        words = ["evaluate_classification", "--config", str(path), "--output-dir", str(tmp_path), *map(str, SHORT)]
        assert main(["particles", *words, *other]) == 1


def test_pairing_by_label_marks_every_output(data: Path, tmp_path: Path) -> None:
    out, fused = tmp_path / "out", tmp_path / "f.h5"
    done = run("evaluate_classification", "--config", data / "classification.yaml", "--output-dir", out, *SHORT, "--pair-by", "label",
               "--fusion-method", "attention", "--attention-epochs", 1, "--save-fused-embeddings", fused)  # fmt: skip
    assert done.exit_code == 0, done.output
    mark = "label-paired: not evidence"
    assert f"*** {mark} ***" in done.stdout
    assert "no evidence, since rows were paired by label" in done.stdout
    assert json.loads((out / FILES[0]).read_text())["mark"] == mark
    assert mark in (out / "report.html").read_text()
    assert pl.read_parquet_metadata(out / "predictions.parquet")["mark"] == mark
    assert FusedFile(fused).told["mark"] == mark
    assert mark in json.dumps(json.loads((out / "run.json").read_text()))


def test_other_methods_say_that_nothing_is_saved_and_go_on(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--config", str(data / "classification.yaml"), "--output-dir", str(tmp_path / "o"), *map(str, SHORT)]
    assert module.main([*words, "--save-fused-embeddings", str(tmp_path / "f.h5")]) == 0
    assert "with --fusion-method attention alone: average learns nothing" in capsys.readouterr().err
    assert not (tmp_path / "f.h5").exists()


def test_tables_without_ids_are_numbered_as_the_original_did(data: Path, tmp_path: Path) -> None:
    """Two CSV files that share runs and coordinates alone; then the lines of the original's README."""
    made = make(MADE)
    for s, name in enumerate("ab"):
        rows = np.flatnonzero(made.seen[s])
        place = {axis: made.coordinates[s][rows, j] for j, axis in enumerate("xyz")}
        vectors = {f"v{j}": made.vectors[s][rows, j] for j in range(6)}
        known = {"class": [made.labels[i] for i in rows], "tomogram": [made.runs[i] for i in rows]}
        pl.DataFrame({**known, **place, **vectors}).write_csv(tmp_path / f"{name}.csv")
    config = tmp_path / "two.yaml"
    config.write_text("sources:\n  - {name: a, path: a.csv}\n  - {name: b, path: b.csv}\n")
    out, fused = tmp_path / "out", tmp_path / "fused_embeddings.h5"
    done = run("evaluate_classification", "--config", config, "--output-dir", out, *SHORT, "--group-by", "run_name",
               "--fusion-method", "attention", "--attention-epochs", 1, "--save-fused-embeddings", fused)  # fmt: skip
    assert done.exit_code == 0, done.output
    n = int(made.both.sum())
    without = ", ".join(f"{int(seen.sum()) - n} of {name}" for seen, name in zip(made.seen, "ab", strict=True))
    assert f"Matched {n}; without a partner {without}; ambiguous none." in done.stdout
    assert "3 folds of whole runs." in done.stdout
    with h5py.File(fused, "r") as f:
        assert f["embeddings"]["sample_0"]["mu"][:].shape == (6,)
        assert f["metadata"].attrs["n_samples"] == n
        assert [name.decode() for name in f["metadata"]["class_names"][:]] == made.classes
    assert FusedFile(fused).read().particles["id"].to_list() == [f"sample_{i}" for i in range(n)]


def test_fuse_says_what_was_fused(original: Path, data: Path, tmp_path: Path) -> None:
    words = ("fuse", "--model", original, "--inputs", data / "classification.yaml", "--output", tmp_path / "g.h5")
    done = run(*words)
    n = len(FusedFile(original / "fused_embeddings.h5"))
    assert f"particles, 6 numbers each; {n} of them the network had learnt from" in done.stdout
    assert "already there, unchanged" in run(*words).stdout


def test_what_cannot_be_fused_is_one_line(
    original: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    both = [word for name in ("cryolens.h5", "tomotwin.parquet") for word in ("--inputs", f"{name.partition('.')[0]}={data / name}")]  # fmt: skip
    told = refusal(capsys, "fuse", "--model", original, *both, "--output", tmp_path / "g.h5")
    assert "the sources share no key" in told
    assert "--pair-by" not in told, "there is no such option here"
    assert "(coords, id_column, run_column, coordinate_columns in the configuration file)" in told
    assert not (tmp_path / "g.h5").exists()
    mine = tmp_path / "mine.h5"
    mine.write_text("mine")
    words = ("fuse", "--model", original, "--inputs", data / "classification.yaml", "--output", mine)
    assert "there is a file already" in refusal(capsys, *words)
    assert mine.read_text() == "mine"


def _config(folder: Path, **changed: Any) -> Path:
    path = folder / "changed.yaml"
    known = yaml.safe_load((folder / "classification.yaml").read_text())
    path.write_text(yaml.safe_dump({key: value for key, value in {**known, **changed}.items() if value is not None}))
    return path


def _cut(folder: Path) -> Path:
    whole = (folder / "cryolens.h5").read_bytes()
    (folder / "cryolens.h5").write_bytes(whole[: len(whole) // 2])
    return folder / "classification.yaml"


def _nan(folder: Path) -> Path:
    frame = pl.read_parquet(folder / "tomotwin.parquet").with_columns(pl.lit(float("nan"), pl.Float32).alias("3"))
    frame.write_parquet(folder / "tomotwin.parquet")
    return folder / "classification.yaml"


def _one_class(folder: Path) -> Path:
    frame = pl.read_csv(folder / "tomotwin.csv")
    frame.filter(pl.col("protein") == "apoferritin").write_csv(folder / "tomotwin.csv")
    return folder / "classification.yaml"


def _elsewhere(folder: Path) -> Path:
    frame = pl.read_csv(folder / "tomotwin.csv").with_columns(pl.col("x") + 90_000)
    frame.write_csv(folder / "tomotwin.csv")
    return folder / "classification.yaml"


def _mixed(folder: Path) -> Path:
    with h5py.File(folder / "cryolens.h5", "r+") as f:
        name = list(f["embeddings"])[5]
        del f[f"embeddings/{name}/mu"]
        f[f"embeddings/{name}/mu"] = np.zeros(9, np.float32)
    return folder / "classification.yaml"


def _keyless(folder: Path) -> Path:
    pl.read_csv(folder / "tomotwin.csv").drop("x", "y", "z").write_csv(folder / "tomotwin.csv")
    return folder / "classification.yaml"


def _twice(folder: Path) -> Path:
    frame = pl.read_csv(folder / "tomotwin.csv")
    rows = pl.Series("id", [f"p{i // 2}" for i in range(len(frame))])
    vectors = pl.read_parquet(folder / "tomotwin.parquet").drop("filepath")
    pl.concat([frame.select("protein").with_columns(rows), vectors], how="horizontal").write_csv(folder / "two.csv")
    path = folder / "two.yaml"
    path.write_text("sources:\n  - {name: a, path: two.csv}\n  - {name: b, path: cryolens.h5}\n")
    return path


def _text(folder: Path, text: str) -> Path:
    path = folder / "text.yaml"
    path.write_text(text)
    return path


def _rare(folder: Path) -> Path:
    frame = pl.read_csv(folder / "tomotwin.csv")
    rare = pl.col("protein") == "beta_galactosidase"
    pl.concat([frame.filter(~rare), frame.filter(rare)[:2]]).write_csv(folder / "tomotwin.csv")
    return folder / "classification.yaml"


@pytest.mark.parametrize(
    ("spoil", "words", "text"),
    [
        (lambda f: f / "gone.yaml", (), "there is no such configuration file"),
        (lambda f: _config(f, tomotwin_coords=None), (), "tomotwin_coords is missing"),
        (lambda f: _config(f, tomotwin_embedings="x"), (), "unknown key 'tomotwin_embedings'"),
        (lambda f: _config(f, cryolens_embeddings="gone.h5"), (), "there is no such file"),
        (_cut, (), "is not a whole HDF5 file"),
        (_nan, (), "hold NaN or infinity"),
        (_one_class, (), "there is one class only"),
        (_elsewhere, (), "no particle is in all sources: the nearest two lie"),
        (_keyless, (), "--pair-by label does so to reproduce old numbers"),
        (_mixed, (), "has 9 numbers, those before it 6"),
        (lambda f: f / "classification.yaml", ("--n-folds", 90, "--group-by", "none"), "particles for 90 folds"),
        (lambda f: f / "classification.yaml", ("--embedding-dim", 64), "and the first 64 are asked for"),
        (_rare, (), "class 'beta_galactosidase' has 2 particles for 3 folds. Give --n-folds 2"),
        (_twice, (), "id 'p0' is given twice"),
        (lambda f: _text(f, "sources: [a, {"), (), "is not valid YAML"),
        (lambda f: _text(f, "just words"), (), "must hold sections"),
        (lambda f: _text(f, ""), (), "cryolens_embeddings is missing"),
        (lambda f: f / "cryolens.h5", (), "cannot be read as YAML"),
        (lambda f: _text(f, "sources:\n  - {name: a, path: tomotwin.csv}\n"), (), "one source only"),
        (lambda f: f / "classification.yaml", ("--tolerance", 0), "tolerance"),
        (lambda f: f / "classification.yaml", ("--attention-epochs", 0), "attention_epochs"),
    ],
)  # fmt: skip
def test_bad_input_is_one_line(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], spoil: Any, words: tuple[object, ...], text: str
) -> None:
    folder = tmp_path / "data"
    shutil.copytree(data, folder)
    given = ("--config", spoil(folder), "--output-dir", tmp_path / "out", *SHORT, *words)
    assert text in refusal(capsys, "evaluate_classification", *given)
    assert not (tmp_path / "out" / FILES[0]).exists()


def test_an_unknown_method_is_refused_before_anything_is_written(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["--config", data / "classification.yaml", "--output-dir", tmp_path / "o", "--fusion-method", "mean"]
    assert module.main([*map(str, words), "--save-fused-embeddings", str(tmp_path / "f.h5")]) == 2
    told = capsys.readouterr().err.splitlines()
    assert told[-1].endswith("'mean' is not one of 'average', 'concat', 'weighted', 'attention'.")
    assert not list(tmp_path.iterdir())


def test_an_output_that_exists_is_one_line(
    evaluated: Path, data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ("evaluate_classification", "--config", data / "classification.yaml", *SHORT)
    told = refusal(capsys, *words, "--output-dir", evaluated, "--random-seed", 1)
    assert "holds results of other inputs or settings. Name another --output-dir" in told
    file = tmp_path / "file"
    file.write_text("mine")
    assert main(["particles", *map(str, words), "--output-dir", str(file)]) == 2
    capsys.readouterr()
    told = refusal(
        capsys, *words, "--output-dir", tmp_path / "o", "--fusion-method", "attention", "--save-fused-embeddings", file
    )
    assert "there is a file already" in told
    assert file.read_text() == "mine"
    told = refusal(
        capsys,
        *words,
        "--output-dir",
        tmp_path / "o",
        "--fusion-method",
        "attention",
        "--save-fused-embeddings",
        file,
        "--anew",
    )
    assert "there is a file already" in told, "a file that is no fused one is never written over"
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / FILES[0]).write_text("{}")
    assert "that this command did not write" in refusal(capsys, *words, "--output-dir", tmp_path / "old")
    assert run(*words, "--output-dir", tmp_path / "old", "--anew").exit_code == 0
    assert "overall" in json.loads((tmp_path / "old" / FILES[0]).read_text())


def test_help_loads_nothing_heavy_and_names_what_the_original_had() -> None:
    done = run("evaluate_classification", "--help")
    for flag in ("--config", "--output-dir", "--n-folds", "--fusion-method", "--attention-epochs", "--embedding-dim", "--balance-classes",
                 "--random-seed", "--device", "--save-fused-embeddings", "--group-by", "--pair-by"):  # fmt: skip
        assert flag in done.output
    assert "171717" in done.output


def test_demo_and_features_are_commands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def kept(name: str, shown: str) -> Any:
        def call(*given: Any, **more: Any) -> Artifact:
            asked[name] = given, more
            return Artifact(name, tmp_path, {"told": shown})

        return call

    for name, function in (("demo", "run_demo"), ("features", "find_features")):
        monkeypatch.setattr(f"elute.particles.{name}.{function}", kept(name, name))
        monkeypatch.setattr(f"elute.particles.{name}.show", lambda answer: f"shown: {answer['told']}")
    done = run("demo", "--output", tmp_path, "--runs", 6, "--attention-epochs", 1, "--no-features")
    assert done.stdout == "shown: demo\n"
    (folder, made, config), more = asked["demo"]
    assert (folder, made.runs, config.attention_epochs, config.features) == (tmp_path, 6, 1, False)
    assert more == {"anew": False}
    done = run("features", "--inputs", tmp_path / "f.h5", "--output", tmp_path, "--k", 2, "--vector", "mu")
    assert done.stdout == "shown: features\n"
    (given, _, config), _ = asked["features"]
    assert (given, config.k, config.vector) == (tmp_path / "f.h5", 2, "mu")
