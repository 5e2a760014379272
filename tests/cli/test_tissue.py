"""`elute tissue` as people type it: stage by stage with one file, in both spellings, as JSON, and refusals in one line."""

from __future__ import annotations

import json
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from click.testing import CliRunner, Result
from tests.tissue.tiles_made import write_encoder, write_files

from elute.base import files
from elute.cli.commands import Face
from elute.cli.main import elute, main

STAGES = ["embed_export", "train-sae", "extract_codes", "train_heads", "crp-relmax", "make_reports"]
pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(autouse=True)
def _usual_voice(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Face, "debug", False)
    monkeypatch.setattr("elute.base.console._level", 0)
    logging.captureWarnings(capture=False)


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_files(tmp_path_factory.mktemp("tissue"))


def run(*words: object) -> Result:
    return CliRunner().invoke(elute, ["tissue", *map(str, words)], prog_name="elute")


def answer(*words: object) -> dict[str, Any]:
    done = run(*words, "--json")
    assert done.exit_code == 0, done.output + str(done.exception)
    value: dict[str, Any] = json.loads(done.stdout)
    return value


def refusal(capsys: pytest.CaptureFixture[str], *words: object) -> str:
    assert main(["tissue", *map(str, words)]) == 1
    told = capsys.readouterr()
    assert told.out == ""
    found = [line for line in told.err.splitlines() if line.startswith("error: ")]
    assert len(found) == 1
    return found[0]


@pytest.fixture(scope="module")
def done(config: Path) -> dict[str, dict[str, Any]]:
    """Each stage by its own command, with nothing but the file."""
    return {name.replace("-", "_"): answer(name, "--config", config, "--controls", "none") if name == "train_heads"
            else answer(name, "--config", config) for name in STAGES}  # fmt: skip


def test_stage_by_stage(config: Path, done: dict[str, dict[str, Any]]) -> None:
    home = config.parent / "run"
    assert done["embed_export"]["rows"] == 48 * 16
    assert done["train_sae"]["features"] == 64
    assert done["train_sae"]["path"] == str(home / "sae.pt")
    assert done["train_heads"]["genes"] == 4
    assert done["crp_relmax"]["genes"] == ["BLUE1", "FLAT", "RED1", "RED2"]
    assert done["make_reports"]["path"] == str(home / "report" / "index.html")


def test_what_a_person_reads(config: Path, done: dict[str, dict[str, Any]]) -> None:
    told = run("train-heads", "--config", config, "--controls", "none")
    assert told.exit_code == 0
    assert "heads.pt: 4 genes on 48 samples of 6 patients, 3 folds (already there)" in told.stdout
    assert "sparse" in told.stdout
    assert "neighbours: not run (controls: none)" in told.stdout
    whole = run("run", "--config", config, "--controls", "none", "-q")
    assert whole.exit_code == 0, whole.output
    assert whole.stdout.rstrip().endswith("report/index.html in a browser.")


def test_a_gene_and_its_codes(config: Path, done: dict[str, dict[str, Any]]) -> None:
    words = ["crp_relmax", "--config", config, "--gene", "RED1", "--codes", "top2"]
    found = answer(*words)
    assert len(found["explained"]["RED1"]["codes"]) == 2
    assert found["reused"] is False
    assert answer(*words)["reused"] is True


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["crp-relmax", "--gene", "RED9"], r"the heads have no gene 'RED9'. Did you mean 'RED"),
        (["crp-relmax", "--codes", "9999", "--gene", "RED1"], r"there is no code 9999 in 64 codes"),
        (["crp-relmax", "--codes", "best"], r"codes = 'best'"),
        (["train_heads", "--sample-column", "spt"], r"has no column 'spt'. Did you mean 'spot'?"),
        (["train_heads", "--folds", "2"], r"the stored folds were drawn for folds 3, not 2. Delete folds.parquet"),
        (["train-sae", "--set", "saes.top_k=3"], r"unknown section 'saes'. Did you mean 'sae'"),
    ],
)
def test_refusals(
    capsys: pytest.CaptureFixture[str], config: Path, done: dict[str, dict[str, Any]], words: list[str], message: str
) -> None:
    assert message in refusal(capsys, *words, "--config", config)


def test_the_demonstration_has_settings_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    assert "unknown section 'sae'. There are: paint, pretrain" in refusal(capsys, "demo", "--set", "sae.top_k=3")


def test_a_fine_tuned_encoder(
    capsys: pytest.CaptureFixture[str], config: Path, done: dict[str, dict[str, Any]]
) -> None:
    """The folder has the same name; its weights have been trained on since the embeddings were made."""
    weights = config.parent / "encoder" / "model.safetensors"
    kept = weights.read_bytes()
    try:
        write_encoder(config.parent / "encoder", seed=8)
        for words in (["embed-export"], ["run"]):
            told = refusal(capsys, *words, "--config", config)
            assert "the model's weights" in told
            assert "--recapture" in told
        told = refusal(
            capsys, "crp-relmax", "--gene", "RED1", "--codes", "top1", "--through-encoder", "--config", config
        )
        assert "the embeddings are of encoder with other weights than those of encoder" in told
    finally:
        weights.write_bytes(kept)
    assert answer("embed-export", "--config", config)["reused"] is True


@pytest.mark.parametrize("command", ["train-sae", "extract_codes", "train-heads", "crp_relmax"])
def test_a_leaking_split(
    capsys: pytest.CaptureFixture[str], config: Path, done: dict[str, dict[str, Any]], tmp_path: Path, command: str
) -> None:
    """A store in which one patient's rows lie in two splits, as someone else's program may have left it."""
    run = tmp_path / "run"
    shutil.copytree(config.parent / "run", run, ignore=shutil.ignore_patterns("controls", "report", "token_maps"))
    table, manifest = run / "embeddings" / "00000.parquet", run / "embeddings" / "manifest.json"
    frame = pl.read_parquet(table)
    tags = {key: value for key, value in pl.read_parquet_metadata(table).items() if key in ("shard", "store")}
    other = "test" if frame["split"][0] == "train" else "train"
    first = pl.int_range(pl.len()) < 16  # its first tile
    frame.with_columns(split=pl.when(first).then(pl.lit(other)).otherwise("split")).write_parquet(table, metadata=tags)
    held = json.loads(manifest.read_text())
    held["shards"][0]["metadata"] = {"bytes": table.stat().st_size, "sha256": files.digest_file(table)}
    manifest.write_text(json.dumps(held))
    told = refusal(capsys, command, "--config", config, "--output", run)
    assert "group 'p0' falls in two splits, '" in told
    assert "Draw the splits by group" in told


def test_a_sample_of_two_patients(capsys: pytest.CaptureFixture[str], config: Path, tmp_path: Path) -> None:
    tiles = pl.read_csv(config.parent / "tiles.csv").with_columns(tile=pl.col("file"))
    twice = tiles.head(1).with_columns(patient=pl.lit("p3"), tile=pl.lit("again"))
    pl.concat([tiles, twice]).write_csv(tmp_path / "tiles.csv")
    words = [
        "--table",
        tmp_path / "tiles.csv",
        "--set",
        "tiles.columns=[path=file, sample=spot, group=patient, tile=tile]",
    ]
    for command in ("embed_export", "run"):
        told = refusal(capsys, command, "--config", config, "--output", tmp_path / "run", *words)
        assert "a leak: sample 's000' is of 'p0' and of 'p3' (1 such samples)" in told
    assert not (tmp_path / "run" / "embeddings").exists()


def test_leaking_folds(
    capsys: pytest.CaptureFixture[str], config: Path, done: dict[str, dict[str, Any]], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(config.parent / "run", run, ignore=shutil.ignore_patterns("controls", "report", "token_maps"))
    folds = pl.read_parquet(run / "folds.parquet")
    moved = pl.when(pl.int_range(pl.len()) == 0).then((pl.col("fold") + 1) % 3).otherwise("fold")
    folds.with_columns(fold=moved.cast(pl.Int32)).write_parquet(run / "folds.parquet")
    told = refusal(capsys, "train_heads", "--config", config, "--output", run)
    assert "a leak: group 'p0' lies in two folds. Delete folds.parquet to draw folds anew" in told
    told = refusal(capsys, "crp-relmax", "--config", config, "--output", run)
    assert "the folds are not those that the heads were judged on" in told


@pytest.mark.parametrize(
    ("spelt", "message"),
    [
        ("x{}", "no sample of the tiles has targets: the tiles have 's000', 's001', 's002', …; the targets 'xs000'"),
        ("{}.png", "(48 are alike but for what stands before the last / and after the last dot)"),
    ],
)
def test_misaligned_sample_ids(
    capsys: pytest.CaptureFixture[str],
    config: Path,
    done: dict[str, dict[str, Any]],
    tmp_path: Path,
    spelt: str,
    message: str,
) -> None:
    counts = pl.read_parquet(config.parent / "counts.parquet")
    names = pl.Series("spot", [spelt.format(name) for name in counts["spot"]])
    counts.with_columns(names).write_parquet(tmp_path / "other.parquet")
    for command in ("train-heads", "run"):
        told = refusal(capsys, command, "--config", config, "--counts", tmp_path / "other.parquet")
        assert message in told
        assert told.endswith("Name the column that both share: --sample-column.")


def test_a_slide_without_tissue(capsys: pytest.CaptureFixture[str], config: Path, tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    Image.fromarray(np.full((256, 256, 3), 244, np.uint8)).save(tmp_path / "blank.png")
    settings = tmp_path / "slides.yaml"
    settings.write_text(
        f"run: {{output: '{tmp_path / 'run'}'}}\ntiles: {{slides: '{tmp_path / 'blank.png'}', tile_size: 32}}\n"
        f"encoder: {{encoder: '{config.parent / 'encoder'}', device: cpu}}\n"
    )
    told = refusal(capsys, "embed_export", "--config", settings)
    assert "blank.png" in told
    assert "tissue" in told


def test_help_tells_a_stages_own_settings() -> None:
    told = run("train-sae", "--help").stdout
    assert "--dict-size" in told
    assert "--folds" not in told
    assert "Settings of the other stages come from the same --config." in told
    every = run("run", "--help").stdout
    assert all(option in every for option in ("--dict-size", "--folds", "--gene", "--tiles-per-code"))


@pytest.mark.parametrize("words", [["tissue", "--help"], ["tissue", "crp_relmax", "--help"]])
def test_help_loads_nothing_heavy(words: list[str]) -> None:
    heavy = ("torch", "polars", "numba", "transformers", "h5py", "PIL")
    code = (
        "import sys; from elute.cli.main import main; main(sys.argv[1:]); "
        f"print([m for m in {heavy!r} if m in sys.modules], file=sys.stderr)"
    )
    told = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, timeout=60)
    assert told.stderr.splitlines()[-1] == "[]", told.stderr
