"""A capture of cells through the command line, killed again and again, ends with the bytes of one left alone."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import torch
from scipy.sparse import csr_matrix
from tests.journeys.same import differing

from elute.models.tahoe.config import CollatorConfig, TahoeConfig
from elute.models.tahoe.load import write_folder
from elute.models.tahoe.model import TahoeX1
from elute.store.reader import Store
from elute.store.verify import verify

GENES = [f"ENSG{i:011d}" for i in range(1, 301)]


def prepare(folder: Path) -> list[str]:
    rng = np.random.default_rng(0)
    counts = csr_matrix(rng.poisson(0.4, (6000, 300)).astype(np.float32))
    obs = pd.DataFrame({"donor": [f"donor{i % 5}" for i in range(6000)]}, index=[f"cell{i}" for i in range(6000)])
    anndata.AnnData(counts, obs, pd.DataFrame(index=GENES)).write_h5ad(folder / "cells.h5ad")
    vocabulary = {name: i for i, name in enumerate(["<pad>", "<cls>", "<eoc>", *GENES])}
    torch.manual_seed(0)
    network = TahoeX1(TahoeConfig(d_model=32, n_layers=3, n_heads=2, vocab_size=len(vocabulary)))
    write_folder(folder / "model", network, CollatorConfig(), vocabulary=vocabulary)
    words = ["--data", folder / "cells.h5ad", "--model", folder / "model", "--donor-key", "donor", "--layers", "all"]
    more = ["--rows-per-shard", "20000", "--max-length", "100", "--device", "cpu", "--stream", "--output"]
    return [sys.executable, "-m", "elute", "cells", "capture", *map(str, words), *more]


def run(command: list[str], output: Path, kill_after: float | None = None) -> tuple[int, float]:
    """Run until the end, or until so long after the first words of progress; return how it ended, and how long."""
    with subprocess.Popen(
        [*command, str(output)], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("sites:"):
                break
        began = time.monotonic()
        if kill_after is not None:
            time.sleep(kill_after)
            process.send_signal(signal.SIGKILL)
        process.stderr.read()
        return process.wait(timeout=300), time.monotonic() - began


def test_a_killed_capture_of_cells_goes_on(tmp_path: Path) -> None:
    command = prepare(tmp_path)
    ended, took = run(command, tmp_path / "whole")
    assert ended == 0
    rng, offered = random.Random("cells"), []
    for _ in range(4):
        run(command, tmp_path / "killed", kill_after=rng.uniform(0.1, took / 3))
        offered.append(len(Store(tmp_path / "killed")) if (tmp_path / "killed" / "manifest.json").exists() else 0)
    assert offered == sorted(offered)
    assert offered[-1] > 0, "something was kept"
    ended, _ = run(command, tmp_path / "killed")
    assert ended == 0
    assert not verify(tmp_path / "killed")
    assert differing(tmp_path / "killed", tmp_path / "whole") == []
