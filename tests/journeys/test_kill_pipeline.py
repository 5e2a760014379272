"""A run from cells to features, killed in each of its stages and given again, ends as one left alone."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.journeys.same import differing

from elute.cells import mock

STAGES = {  # words that one stage begins with, and seconds until it is killed
    "capture": (r"^sites: ", 0.1),
    "training": (r"features, 8 at a time", 0.6),
    "extraction": (r"telling what its features follow", 0.4),
    "controls": (r"counting beside controls", 1.0),
    "a control's rows": (r"^control: random weights", 0.3),
    "databases": (r"asking databases", 0.1),
    "after a database": (r"^(elute's own markers 1|HPO \S+): \d+ of", 0.0),
}


def command(folder: Path, output: str) -> list[str]:
    words = ["--data", folder / "cells.h5ad", "--model", folder / "model", "--output", folder / output]
    more = ["--donor-key", "donor", "--layers", "last", "--steps", 400, "--d-sae", 128, "--k", 8, "--device", "cpu"]
    rest = ["--train-batch-size", 256, "--set", "capture.rows_per_shard=2000",
            "--sources", "markers,hpo", "--null", 20]  # fmt: skip
    return [sys.executable, "-m", "elute", "cells", "run-pipeline", *map(str, [*words, *more, *rest])]


def run(asked: list[str], *, words: str | None = None, after: float = 0) -> int:
    """Run to the end, or until so long after some words."""
    with subprocess.Popen(asked, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True) as process:
        assert process.stderr is not None
        told = []
        for line in process.stderr:
            told.append(line)
            if words is not None and re.search(words, line):
                time.sleep(after)
                process.send_signal(signal.SIGKILL)
                words = None
        code = process.wait(timeout=300)
        assert words is None, "".join(told)
        return code


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cells")
    mock.write_cells(folder / "cells.h5ad")
    mock.write_model(folder / "model")
    return folder


def test_a_kill_in_each_stage(place: Path) -> None:
    assert run(command(place, "run")) == 0
    (place / "run").rename(place / "alone")  # the page names the folder
    killed = {stage: run(command(place, "run"), words=words, after=after) for stage, (words, after) in STAGES.items()}
    assert set(killed.values()) == {-signal.SIGKILL}, killed
    assert run(command(place, "run")) == 0
    assert differing(place / "run", place / "alone") == []
