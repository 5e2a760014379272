"""The notebooks, cell by cell, in an empty folder: what they show is what is stored, and what they say holds."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted((ROOT / "examples").glob("*.ipynb"))
EXECUTE = ROOT / "scripts" / "execute_notebook.py"


def execute(*words: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(EXECUTE), *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, capture_output=True, text=True, timeout=600, env=environment)


def tiny(*sources: str) -> dict[str, Any]:
    cells = [
        {"cell_type": "code", "execution_count": None, "id": f"c{i}", "metadata": {}, "outputs": [], "source": [source]}
        for i, source in enumerate(sources)
    ]
    return {"cells": cells, "metadata": {}, "nbformat": 4, "nbformat_minor": 5}


def test_there_are_notebooks() -> None:
    assert [path.name for path in NOTEBOOKS] == ["cells_graph.ipynb", "routing_feature.ipynb", "routing_graph.ipynb"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_it_runs_from_top_to_bottom_and_shows_what_is_stored(path: Path) -> None:
    before = path.read_bytes()
    done = execute("--check", path)
    assert done.returncode == 0, done.stderr
    assert path.read_bytes() == before


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_it_is_a_notebook_with_its_outputs(path: Path) -> None:
    held = json.loads(path.read_text())
    assert (held["nbformat"], held["nbformat_minor"]) == (4, 5)
    assert len({cell["id"] for cell in held["cells"]}) == len(held["cells"])
    code = [cell for cell in held["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell["outputs"]]
    assert not re.search(r"/(home|tmp|work|var|Users)/", json.dumps(outputs)), "a machine's own path"
    assert {output["output_type"] for output in outputs} <= {"execute_result", "stream"}
    assert any("image/svg+xml" in output.get("data", {}) for output in outputs)
    for cell in held["cells"]:
        for target in "".join(cell["source"]).split("](")[1:]:
            assert (path.parent / target.split(")")[0]).exists() or cell["cell_type"] == "code", target


def test_outputs_are_stored_and_stale_ones_are_found(tmp_path: Path) -> None:
    path = tmp_path / "tiny.ipynb"
    path.write_text(json.dumps(tiny("x = 20\nprint(x)", "x + 1")))
    assert execute(path).returncode == 0
    held = json.loads(path.read_text())
    assert held["cells"][0]["outputs"] == [{"name": "stdout", "output_type": "stream", "text": ["20\n"]}]
    assert held["cells"][1]["outputs"][0]["data"] == {"text/plain": ["21"]}
    assert execute("--check", path).returncode == 0
    held["cells"][0]["source"] = ["x = 30\nprint(x)"]
    path.write_text(json.dumps(held))
    done = execute("--check", path)
    assert done.returncode == 1
    assert "the outputs are of other cells" in done.stderr


def test_a_cell_that_fails_leaves_the_notebook_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "tiny.ipynb"
    path.write_text(json.dumps(tiny("1 / 0")))
    before = path.read_bytes()
    done = execute(path)
    assert done.returncode == 1
    assert "ZeroDivisionError" in done.stderr
    assert path.read_bytes() == before
