"""SIGKILL at random moments of writing and of capture: what remains is whole, and the end is always the same."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.journeys.same import differing

from elute.store.reader import Store
from elute.store.verify import verify

WRITE = """
import sys, torch
from elute.store.writer import StoreWriter
writer = StoreWriter(sys.argv[1], sites={"a": 96, "b": 32}, dtype="bf16", rows_per_shard=700)
print("ready", flush=True)
for start in range(writer.offered, 60_000, 250):
    n = min(250, 60_000 - start)
    index = torch.arange(start, start + n, dtype=torch.float32)[:, None]
    # Whole numbers and one division: the same bits however the rows are cut into batches, on every processor.
    rows = {"a": (31 * index + 17 * torch.arange(96)) % 1009 / 1009, "b": (7 * index + torch.arange(32)) % 499 / 499}
    ids = range(start, start + n)
    writer.append(rows, {"sample_id": [f"c{i // 50}" for i in ids], "position": [i % 50 for i in ids],
                         "group": [f"d{i // 5000}" for i in ids]})
writer.close()
"""

CAPTURE = """
import sys, torch
from torch import nn
import elute
torch.manual_seed(0)
net = nn.Sequential(nn.Linear(32, 256), nn.ReLU(), nn.Linear(256, 128), nn.Tanh())
data = torch.randn(40_000, 32, generator=torch.Generator().manual_seed(1))
def batches(data):
    for start in range(0, len(data), 320):
        piece = data[start:start + 320]
        yield piece, {"sample_id": [f"s{start + i}" for i in range(len(piece))], "group": [f"g{start // 4000}"] * len(piece)}
model = elute.load_model(net, sites={"hidden": "1", "out": "3"}, batches=batches)
print("ready", flush=True)
elute.capture_to_store(model, data, sys.argv[1], config=elute.CaptureConfig(rows_per_shard=900))
"""


def run(code: str, folder: Path, kill_after: float | None = None) -> tuple[int, float]:
    """Run a program until its end or its killing; return how it ended, and its time after the imports."""
    with subprocess.Popen([sys.executable, "-c", code, str(folder)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        process.stdout.readline()
        began = time.monotonic()
        if kill_after is not None:
            time.sleep(kill_after)
            process.send_signal(signal.SIGKILL)
        return process.wait(timeout=300), time.monotonic() - began


@pytest.mark.parametrize(("what", "code"), [("writing", WRITE), ("capture", CAPTURE)])
def test_ten_kills_and_the_same_bytes(tmp_path: Path, what: str, code: str) -> None:
    ended, took = run(code, tmp_path / "whole")
    assert ended == 0
    rng = random.Random(what)
    folder = tmp_path / "killed"
    kills = most = 0
    while kills < 10 or (most == 0 and kills < 40):  # a machine that has become busy meanwhile needs longer
        run(code, folder, kill_after=rng.uniform(0, took / 5 * max(1, kills / 5)))
        there = (folder / "manifest.json").exists()
        if there and Store(folder).complete:
            # It had come to its end before the signal: begin anew, so that ten kills hit work in progress.
            shutil.rmtree(folder)
            continue
        kills += 1
        if there:
            assert verify(folder) == [], "what the manifest names is whole after every kill"
            most = max(most, len(Store(folder)))
    assert most > 0, "some kill came late enough to leave rows"
    assert run(code, folder)[0] == 0
    assert differing(folder, tmp_path / "whole") == []
