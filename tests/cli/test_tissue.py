"""`elute tissue` as people type it: stage by stage with one file, in both spellings, as JSON, and refusals in one line."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from tests.tissue.tiles_made import write_files

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
