"""torchrun as people type it: two processes train one dictionary, one of them is killed, the same command goes on."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import pytest

from elute.arrays.planted import PlantedConfig, write_store
from elute.dictionaries.files import digest, load_dictionary

LIMIT = 60  # seconds, of each start


class Started:
    """torchrun and its two processes, each of whose words go into a file of its own."""

    def __init__(self, folder: Path, *words: object) -> None:
        self.logs = folder / f"logs{len(list(folder.glob('logs*')))}"
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.command = [
            *(sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"),
            *("--master-port", str(port), "--redirects", "3", "--log-dir", str(self.logs)),
            *("-m", "elute", "arrays", "train", "--json", "--output", *map(str, words)),
        ]
        env = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            self.command, cwd=folder, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        self.began = time.monotonic()

    def __enter__(self) -> Started:
        return self

    def __exit__(self, *_: object) -> None:
        for pid in (*self.ranks().values(), self.process.pid):
            with suppress(ProcessLookupError):
                os.killpg(pid, signal.SIGKILL)  # torchrun gives each of its processes a session
        self.process.wait()

    def ranks(self) -> dict[int, int]:
        """The processes that it has started, by rank."""
        found = {}
        for pid in children(self.process.pid):
            with suppress(OSError, KeyError):
                pairs = (pair.partition("=") for pair in Path(f"/proc/{pid}/environ").read_text().split("\0"))
                found[int({name: value for name, _, value in pairs}["RANK"])] = pid
        return found

    def wait(self) -> int:
        return self.process.wait(timeout=max(0.0, LIMIT - (time.monotonic() - self.began)))

    def words(self, stream: str) -> list[str]:
        """What each rank wrote."""
        return [next(self.logs.glob(f"*/attempt_0/{rank}/{stream}.log")).read_text() for rank in range(2)]

    def until(self, path: Path) -> None:
        """Wait for a file."""
        while not path.exists():
            assert self.process.poll() is None, self.words("stderr")
            assert time.monotonic() - self.began < LIMIT
            time.sleep(0.005)


def children(pid: int) -> list[int]:
    tasks = Path(f"/proc/{pid}/task")
    with suppress(OSError):
        return [int(word) for task in tasks.iterdir() for word in (task / "children").read_text().split()]
    return []


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("rows") / "store"
    write_store(folder, PlantedConfig(n_features=64, width=16, active=4, rows=4000, truth_rows=0))
    return folder


def options(store: Path, steps: int) -> list[object]:
    return ["--store", store, "--n-features", 64, "--k", 4, "--steps", steps, "--batch-size", 64, "--lr", 0.005,
            "--log-every", 10, "--dead-after-rows", 500]  # fmt: skip


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads the ranks' numbers from /proc, as on Linux")
def test_a_killed_rank_ends_the_other_and_the_same_command_goes_on(tmp_path: Path, store: Path) -> None:
    words = options(store, 300)
    often = [*words, "--checkpoint-seconds", 0]
    with Started(tmp_path, "whole", *words) as whole:
        assert whole.wait() == 0, whole.words("stderr")
        assert json.loads(whole.words("stdout")[0])["path"] == "whole/sae_final.pt", "one answer"
        assert (whole.words("stdout")[1], whole.words("stderr")[1]) == ("", ""), "only the first talks"

    with Started(tmp_path, "killed", *often) as one:
        one.until(tmp_path / "killed" / "checkpoint.pt")
        os.kill(one.ranks()[1], signal.SIGKILL)
        killed = time.monotonic()
        assert one.wait() != 0
        assert time.monotonic() - killed < 20
        first = [line for line in one.words("stderr")[0].splitlines() if not line.startswith("train: ")]
        assert len(first) == 1, first
        assert first[0].startswith("error: another process of this training ended or did not answer")
        assert first[0].endswith("the last checkpoint is kept: run the same command again.")

    with Started(tmp_path, "killed", *often) as both:
        log = tmp_path / "killed" / "training_metrics.jsonl"
        lines = len(log.read_text().splitlines())
        while len(log.read_text().splitlines()) <= lines:
            assert both.process.poll() is None, both.words("stderr")
            time.sleep(0.005)
        for pid in both.ranks().values():
            os.kill(pid, signal.SIGKILL)
        assert both.wait() != 0

    assert (tmp_path / "killed" / "checkpoint.pt").exists()
    with Started(tmp_path, "killed", *words, "--resume") as last:
        assert last.wait() == 0, last.words("stderr")
        assert "going on after step" in last.words("stderr")[0]
    assert digest(load_dictionary(tmp_path / "killed")) == digest(load_dictionary(tmp_path / "whole"))
    for name in ("training_metrics.jsonl", "training_metrics.json", "usage.parquet", "run.json"):
        assert (tmp_path / "killed" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), name


def test_a_mistake_is_told_once(tmp_path: Path, store: Path) -> None:
    with Started(tmp_path, "never", *options(store, 10), "--shard-features", "--n-features", 65) as started:
        assert started.wait() == 1
        told = [line for text in started.words("stderr") for line in text.splitlines()]
        remedy = "Change --n-features, or the number of processes."
        assert told == [f"error: 65 features do not fall into 2 equal parts of 4 or more. {remedy}"]
        assert not (tmp_path / "never" / "sae_final.pt").exists()
