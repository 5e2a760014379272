"""SIGKILL at ten random moments of a training: what remains can be gone on with, and the end is always the same."""

from __future__ import annotations

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import torch

from elute.arrays.planted import PlantedConfig, write_store
from elute.dictionaries.files import NAME, load_dictionary
from elute.engine import resume

KILLS = 10
OPTIONS = [
    "--activation",
    "jumprelu",
    "--dead",
    "both",
    "--dead-after-rows",
    "500",
    "--resample-every",
    "20",
    "--ema",
    "0.9",
]


def start(store: Path, output: Path) -> subprocess.Popen[bytes]:
    """Start a training as people do."""
    words = ["arrays", "train", "--store", store, "--output", output, "--n-features", 64, "--k", 3, "--steps", 200,
             "--batch-size", 128, "--lr", 0.005, "--log-every", 7, "--checkpoint-seconds", 0, "--quiet", *OPTIONS]  # fmt: skip
    return subprocess.Popen([sys.executable, "-m", "elute", *map(str, words)], stdout=subprocess.DEVNULL)


def begun(process: subprocess.Popen[bytes], output: Path) -> float:
    """Wait until a process holds the folder; the imports are over then."""
    mark = f"process {process.pid} "
    while process.poll() is None:
        if (output / ".lock").exists() and (output / ".lock").read_text().startswith(mark):
            break
        time.sleep(0.01)
    return time.monotonic()


def content(folder: Path) -> dict[str, bytes]:
    """Every file to the byte, and of the dictionary what it holds."""
    found = {p.name: p.read_bytes() for p in folder.iterdir() if p.name != ".lock"}
    dictionary = load_dictionary(folder)
    state = dictionary.state_dict().values()
    found[NAME] = repr(dictionary.spec).encode() + b"".join(t.numpy().tobytes() for t in state)
    return found


def test_ten_kills_and_the_same_end(tmp_path: Path) -> None:
    torch.set_num_threads(1)
    store, folder = tmp_path / "store", tmp_path / "killed"
    write_store(store, PlantedConfig(n_features=48, width=16, active=3, zipf=0.3, rows=3000, truth_rows=0))
    process = start(store, tmp_path / "whole")
    at = begun(process, tmp_path / "whole")
    assert process.wait(timeout=200) == 0
    took = time.monotonic() - at
    wanted = content(tmp_path / "whole")
    assert resume.NAME not in wanted
    rng = random.Random(0)
    kills, steps = 0, [0]
    while kills < KILLS:
        process = start(store, folder)
        begun(process, folder)
        time.sleep(rng.uniform(0, took / 4))
        process.send_signal(signal.SIGKILL)
        if process.wait(timeout=200) != -signal.SIGKILL:
            # It had come to its end before the signal: begin anew, so that all kills hit work in progress.
            assert content(folder) == wanted
            shutil.rmtree(folder)
            continue
        kills += 1
        found = resume.load(folder)  # whole, or none yet
        steps.append(0 if found is None else found[1]["step"])
        assert all(torch.isfinite(t).all() for t in (found[0]["value"].values() if found else ()))
    assert max(steps) > 10, f"some kill came late enough to leave work behind: {steps}"
    process = start(store, folder)
    assert process.wait(timeout=200) == 0
    assert content(folder) == wanted
    assert not [p for p in folder.iterdir() if p.name.startswith(".") and p.name != ".lock"], "nothing half written"
