"""Particles end to end: an evaluation killed in its seventh fold of ten, and two real views of the same cells."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import anndata
import h5py
import numpy as np
import polars as pl
import pytest
import scipy.sparse
from tests.journeys.same import differing

from elute.base import run as records
from elute.particles.generator_files import write_made
from elute.particles.generator_settings import MadeConfig
from elute.particles.reading_fused import FusedFile

Elute = Callable[..., subprocess.CompletedProcess[str]]

# The file that is about to appear when the run is killed.
MOMENTS = {
    "the seventh fold": r"out/folds/fold_06\.safetensors$",
    "the last fold": r"out/folds/fold_09\.safetensors$",
    "the results": r"out/classification_results\.json$",
    "the network": r"fused/fusion\.pt$",
    "the fused embeddings": r"fused/fused_embeddings\.h5$",
}
# The program as it is, but that it kills itself, with a signal that nothing can catch, when a file is put in its place.
PROGRAM = """
import os, re, signal, sys
from pathlib import Path
from elute.particles.evaluate_classification import main

pattern, put = sys.argv[1], Path.replace

def replace(self, target):
    if pattern and re.search(pattern, str(target)):
        os.kill(os.getpid(), signal.SIGKILL)
    return put(self, target)

Path.replace = replace
sys.exit(main(sys.argv[2:]))
"""
WORDS = "--config data/classification.yaml --output-dir out --n-folds 10 --fusion-method attention --attention-epochs 2"
WORDS += " --embedding-dim 6 --inner-folds 2 --save-fused-embeddings fused/fused_embeddings.h5"


def run(home: Path, pattern: str = "") -> tuple[int, str]:
    words = [sys.executable, "-c", PROGRAM, pattern, *WORDS.split(), "--set", "evaluation.n_resamples=100"]
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(words, cwd=home, capture_output=True, text=True, timeout=240, env=env)
    return done.returncode, done.stderr


def test_a_kill_in_the_seventh_fold_of_ten(tmp_path: Path) -> None:
    made = MadeConfig(runs=12, per_run=15, classes=2, widths=(6, 6), own=2.0, lost=0.02)
    for name in ("alone", "killed"):
        write_made(tmp_path / name / "data", made)
    code, told = run(tmp_path / "alone")
    assert code == 0, told
    home = tmp_path / "killed"
    for moment, pattern in MOMENTS.items():
        code, told = run(home, pattern)
        assert code == -signal.SIGKILL, f"{moment}: {code}\n{told}"
        assert len(list((home / "out" / "folds").glob("*.safetensors"))) == (
            6 if "seventh" in moment else 9 if "last" in moment else 10
        )
        finished = "evaluate_classification" in records.read(home / "out")["stages"]
        assert finished == pattern.startswith("fused"), moment
    code, told = run(home)
    assert code == 0, told
    assert "evaluated already" in told
    assert differing(home, tmp_path / "alone") == []


HALVES = ("even", "odd")


def components(x: np.ndarray[Any, Any], width: int) -> np.ndarray[Any, Any]:
    """Principal components, each with the sign that makes its largest entry positive."""
    away = x - x.mean(axis=0)
    values, directions = np.linalg.eigh(away @ away.T)
    kept = directions[:, np.argsort(-values)[:width]] * np.sqrt(np.sort(values)[::-1][:width])
    return kept * np.sign(kept[np.abs(kept).argmax(axis=0), np.arange(width)])


@pytest.fixture
def two_views(real_data: Path, tmp_path: Path) -> Path:
    """The same labelled cells by every other of their genes, and by the rest: two tables with the cells' own names."""
    cells = anndata.read_h5ad(real_data / "cells" / "pbmc3k_labelled_500x12627.h5ad")
    counts = scipy.sparse.csr_matrix(cells.X).toarray().astype(np.float64)
    logs = np.log1p(counts / counts.sum(axis=1, keepdims=True) * 1e4)
    for number, half in enumerate(HALVES):
        own = components(logs[:, number::2], 10)
        vectors = {f"pc{i:02d}": own[:, i] for i in range(own.shape[1])}
        known = {"cell": cells.obs_names.to_list(), "cell_type": cells.obs["cell_type"].astype(str).to_list()}
        order = np.random.default_rng(number).permutation(len(own)).tolist()
        runs = {"sample": cells.obs["sample_id"].astype(str).to_list()}
        pl.DataFrame({**known, **runs, **vectors})[order].write_csv(tmp_path / f"{half}.csv")
    lines = "".join(f"  - {{name: {half}, path: {half}.csv, id_column: cell, run_column: sample}}\n" for half in HALVES)
    (tmp_path / "views.yaml").write_text(f"sources:\n{lines}")
    return tmp_path


@pytest.mark.real_data
def test_two_views_of_the_same_cells(elute: Elute, two_views: Path) -> None:
    words = ["particles", "evaluate_classification", "--config", "views.yaml", "--output-dir", "out", "--n-folds", 4]
    words += ["--fusion-method", "attention", "--attention-epochs", 12, "--embedding-dim", 16, "--n-resamples", 100]
    words += ["--inner-folds", 2, "--save-fused-embeddings", "fused.h5"]
    told = elute(*words).stdout
    assert "500 particles of 9 classes, paired by id; 4 folds of whole runs." in told
    assert "Matched 500; without a partner 0 of even, 0 of odd; ambiguous none." in told
    found = json.loads((two_views / "out" / "classification_results.json").read_text())["evaluation"]
    scores = {name: one["overall"]["map"]["estimate"] for name, one in found["methods"].items()}
    gains = {(one["first"], one["second"]): one["difference"] for one in found["comparisons"] if one["metric"] == "map"}
    assert min(scores["even"], scores["odd"]) > 0.85, "either half of the genes tells the cells apart"
    assert scores["fusion"] > max(scores["even"], scores["odd"]) - 0.02, "little is left to gain, and nothing is lost"
    none = gains["permuted_across", "network_even"]
    assert none["low"] <= 0, "a view of other cells gains nothing"
    assert none["estimate"] < 0.02
    invented = gains["permuted_within", "network_even"]
    assert invented["low"] > 0, "a view of other cells of the same class would have passed for a gain"
    assert scores["permuted_within"] > scores["fusion"] + 0.01, "and for a larger one than there is"
    assert "Rows paired by label would have shown +" in told
    file = FusedFile(two_views / "fused.h5")
    cells = set(pl.read_csv(two_views / "even.csv")["cell"])
    assert set(file.read().particles["id"]) == cells
    with h5py.File(two_views / "fused.h5", "r") as f:  # as the original's README has it
        one = f["embeddings"][min(cells)]
        assert one["mu"][:].shape == (16,)
        assert one["mu_oof"].attrs["fold"] in range(4)
        assert f["metadata"].attrs["n_samples"] == 500
