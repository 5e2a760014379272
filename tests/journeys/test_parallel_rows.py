"""Rows that are centred, and rows straight from a model, with two processes: as with one, but for rounding."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch

from elute.dictionaries.files import load_dictionary
from elute.engine import centring
from elute.store.writer import StoreWriter

LIMIT = 120  # seconds

DRIVER = """
import json, os, sys
from pathlib import Path
import polars as pl
import torch
torch.set_num_threads(1)
from elute.base.contracts import Fingerprint, Site
from elute.engine import centring
from elute.engine.fit import FitConfig
from elute.engine.live import LiveRows
from elute.engine.settings import DeadConfig, DictionaryConfig
from elute.engine.train import Training, train
from elute.store.reader import Store

class Model:
    name, sites = "small", {"a": Site("a", width=8)}
    x = Store("store").read()["a"].clone()
    def fingerprint(self):
        return Fingerprint("small", "w", "c", "s")
    def batches(self, units):
        index = torch.tensor([20 * unit + i for unit in units for i in range(20)])
        yield index, pl.DataFrame({"sample_id": index.tolist()})
    def capture(self, index, sites):
        return {"a": self.x[index]}

measured = []
measure = centring.measure
def counted(*given, **named):
    measured.append(1)
    return measure(*given, **named)
centring.measure = counted

def settings(by):
    return Training(DictionaryConfig(n_features=32, k=2, center_by=by), fit=FitConfig(steps=40, batch_size=63),
                    dead=DeadConfig(dead_after_rows=500, resample_every=10))

to = sys.argv[1]
live = LiveRows(Model(), list, n_units=50, sites=["a"], rows=1000, source={"data": "d"}, buffer_rows=300, block_units=3)
ends = [train("store", f"{to}/centred", settings("token")).summary, train("store", f"{to}/centred", settings("token")).summary,
        train(live, f"{to}/live", settings(None)).summary, len(measured)]
Path(to, "ends" + os.environ.get("RANK", "")).write_text(json.dumps(ends))
"""


def start(folder: Path, to: str, **env: object) -> subprocess.Popen[bytes]:
    (folder / to).mkdir(exist_ok=True)
    told = {**os.environ, "OMP_NUM_THREADS": "1", **{k: str(v) for k, v in env.items()}}
    command = [sys.executable, "-W", "error", "driver.py", to]
    return subprocess.Popen(command, cwd=folder, env=told, start_new_session=True)


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Train in one process, and in two as torchrun would start them; none outlives the test."""
    folder = tmp_path_factory.mktemp("ranks")
    random = torch.Generator().manual_seed(0)
    genes = torch.randint(0, 9, (1000,), generator=random)
    x = 5 * torch.randn(9, 8, generator=random)[genes] + torch.randn(1000, 8, generator=random)
    with StoreWriter(folder / "store", sites={"a": 8}) as writer:
        names = {"sample_id": [f"c{i}" for i in range(1000)], "token": [f"g{g}" for g in genes.tolist()]}
        writer.append({"a": x}, names)
    (folder / "driver.py").write_text(DRIVER)
    meeting = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    shared = {"WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": meeting.port}
    shared["TORCHELASTIC_USE_AGENT_STORE"] = True
    running = [start(folder, "two", RANK=rank, LOCAL_RANK=rank, **shared) for rank in range(2)]
    try:
        running.append(start(folder, "one"))
        for process in running:
            process.wait(timeout=LIMIT)
    finally:
        for process in running:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    assert [process.returncode for process in running] == [0, 0, 0]
    return folder


def ends(path: Path) -> list[Any]:
    found: list[Any] = json.loads(path.read_text())
    return found


def test_all_processes_end_alike(done: Path) -> None:
    first, second, alone = ends(done / "two/ends0"), ends(done / "two/ends1"), ends(done / "one/ends")
    assert first[:3] == second[:3]
    assert [part["reused"] for part in first[:3]] == [False, True, False]
    assert [part["centred_by"] for part in first[:2]] == ["token", "token"]
    assert (first[3], second[3], alone[3]) == (1, 0, 1), "the first measures, once; the others read what it wrote"
    for mine, theirs in zip(first[:3], alone[:3], strict=True):
        assert mine["explained_variance"] == pytest.approx(theirs["explained_variance"], abs=1e-4)


@pytest.mark.parametrize("name", ["centred", "live"])
def test_two_processes_learn_what_one_does(done: Path, name: str) -> None:
    one, two = (load_dictionary(done / to / name) for to in ("one", "two"))
    assert one.spec == two.spec
    for key, value in one.state_dict().items():
        torch.testing.assert_close(two.state_dict()[key], value, atol=1e-3, rtol=1e-3)
    assert (done / "one" / name / centring.NAME).exists() == (name == "centred")
    if name == "centred":
        assert (done / "one" / name / centring.NAME).read_bytes() == (done / "two" / name / centring.NAME).read_bytes()
