"""Two gloo ranks on this machine against one process: one launch runs all trainings, one after another.

Each training is also done by this process alone. What both write must agree: two ranks add the same numbers in another
order, so records differ by rounding, and by nothing that a real mistake would bring. How large such a mistake's
difference is, trainings with a part of the exchange left out show.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from elute.arrays.planted import Planted, PlantedConfig
from elute.base.errors import ConfigError
from elute.dictionaries.files import load_dictionary
from elute.engine import parallel
from elute.engine.fit import FitConfig
from elute.engine.settings import DeadConfig, DictionaryConfig, LearnConfig
from elute.engine.tracking import TrackConfig
from elute.engine.train import Training, train
from elute.store.writer import StoreWriter

LIMIT = 400  # seconds for the one launch; it takes 15 on two idle cores

DRIVER = """
import json, os, signal, sys, time
from pathlib import Path
import torch
torch.set_num_threads(1)
from elute.base.errors import DataError
from elute.engine import parallel
from elute.engine.fit import Fit, FitConfig
from elute.engine.objective import DictionaryObjective as Objective
from elute.engine.settings import DeadConfig, DictionaryConfig, LearnConfig
from elute.engine.tracking import TrackConfig
from elute.engine.train import Training, train

rank = int(os.environ["RANK"])
gradient, init, dead, together = Objective.gradient, Objective.__init__, Objective._dead, Fit._together
models = dict(dictionary=DictionaryConfig, learn=LearnConfig, fit=FitConfig, dead=DeadConfig, track=TrackConfig)

def boom():
    raise DataError("this rank has had enough")

def at(step, do):
    def patched(self, rows, **given):
        if given["step"] == step and rank == 1:
            do()
        return gradient(self, rows, **given)
    Objective.gradient = patched

def own_threshold(self, *given, **named):
    init(self, *given, **named)
    for bank in self.dictionary:
        bank.ranks = None

def own_dead(self, step):
    ranks, self.ranks = self.ranks, parallel.Ranks()
    found = dead(self, step)
    self.ranks = ranks
    return found

def own_fired(self, *given, **named):
    kept = [p.fired for p in self.objective.learnt]
    for p in self.objective.learnt:
        p.fired = None
    told = together(self, *given, **named)
    for p, fired in zip(self.objective.learnt, kept):
        p.fired = fired
    return told

def patch(how):
    Objective.gradient, Objective.__init__, Objective._dead, Fit._together = gradient, init, dead, together
    os.environ["ELUTE_RANK_TIMEOUT"] = "2" if how == "hangs" else "30"
    if how == "own threshold":
        Objective.__init__ = own_threshold
    elif how == "own dead":
        Objective._dead = own_dead
    elif how == "own fired":
        Fit._together = own_fired
    elif how == "raises":
        at(20, boom)
    elif how == "hangs":
        at(20, lambda: time.sleep(4))
    elif how == "stopped":
        at(70, lambda: os.kill(os.getpid(), signal.SIGTERM))

ends = {}
for name, case in json.loads(Path(sys.argv[1]).read_text()).items():
    patch(case["patch"])
    began = time.monotonic()
    settings = {part: models[part](**values) for part, values in case["settings"].items()}
    if case["of"] == rank:
        settings["fit"] = FitConfig(**{**case["settings"]["fit"], "lr": 1e-3})
    try:
        ends[name] = ["done", train(case["store"], case["output"], Training(**settings)).summary]
    except BaseException as error:
        ends[name] = [type(error).__name__, str(error)]
    ends[name].append(time.monotonic() - began)
    Path(sys.argv[2] + str(rank)).write_text(json.dumps(ends))
"""

DEAD = {"dead": "both", "dead_after_rows": 1500, "resample_every": 20, "aux_k": 6}
BASE: dict[str, dict[str, Any]] = {
    "dictionary": {"n_features": 96, "k": 4, "reads": ["a"]},
    "learn": {},
    "fit": {"batch_size": 63, "steps": 120},  # an odd number of rows: the ranks' parts differ
    "dead": {"dead": "none"},
    "track": {"log_every": 4},
}
SAME: dict[str, dict[str, Any]] = {  # must be as one process
    "topk": {"dead": DEAD, "learn": {"k_start": 8}, "fit": {"ema": 0.9, "accumulate": 2}},
    "auxk": {"dead": {**DEAD, "dead": "auxk"}},
    "sparse-adam": {"fit": {"optimizer": "sparse-adam"}},
    "batchtopk": {"dictionary": {"activation": "batchtopk", "nested": 3}, "learn": {"normalise": "standard"}},
    "relu": {"dictionary": {"activation": "relu"}, "dead": {**DEAD, "dead": "resample"}},
    "jumprelu": {"dictionary": {"activation": "jumprelu"}},
    "clt": {"dictionary": {"kind": "clt", "reads": ["a", "b"], "writes": ["a", "b"]}, "dead": DEAD},
    "sharded": {"dead": DEAD, "learn": {"k_start": 8, "shard_features": True}, "fit": {"ema": 0.9, "accumulate": 2}},
    "sharded signed": {
        "dictionary": {"kind": "transcoder", "activation": "signed-topk", "writes": ["b"], "skip": True},
        "learn": {"shard_features": True},
        "dead": DEAD,
    },
}
BROKEN = {"own threshold": "batchtopk", "own dead": "auxk", "own fired": "sparse-adam"}  # must not be
RESUMED = ("topk", "batchtopk", "sharded")
REFUSED: dict[str, dict[str, Any]] = {
    "few rows": {"fit": {"batch_size": 1}},
    "odd features": {"dictionary": {"n_features": 97}, "learn": {"shard_features": True}},
    "too many": {"dictionary": {"n_features": 12}, "learn": {"k_start": 8, "shard_features": True}},
    "nested shards": {"dictionary": {"nested": 2}, "learn": {"shard_features": True}},
    "not a number": {"fit": {"lr": 1e30, "warmup": 0.0}},
    "other settings": {},
    "raises": {},
    "hangs": {},
}
LINES = {  # what is told, and by which rank
    "few rows": (0, "ConfigError", "a batch of 1 rows cannot be spread over 2 processes"),
    "odd features": (0, "ConfigError", "97 features do not fall into 2 equal parts of 4 or more"),
    "too many": (0, "ConfigError", "12 features do not fall into 2 equal parts of 8 or more"),
    "nested shards": (0, "ConfigError", "topk and signed-topk with one bank, not nested"),
    "not a number": (0, "DataError", "the loss is no longer a number at step"),
    "other settings": (0, "ConfigError", "the processes of this training differ in settings, rows or checkpoint"),
    "raises": (1, "DataError", "this rank has had enough"),
    "hangs": (0, "RankError", "another process of this training ended or did not answer"),
}


def merged(settings: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {part: {**values, **settings.get(part, {})} for part, values in BASE.items()}


def training(settings: dict[str, dict[str, Any]]) -> Training:
    s = merged(settings)
    return Training(
        DictionaryConfig(**s["dictionary"]), LearnConfig(**s["learn"]), FitConfig(**s["fit"]), DeadConfig(**s["dead"]),
        TrackConfig(**s["track"]),
    )  # fmt: skip


def write(folder: Path) -> Path:
    """Two sites, the second a map of the first."""
    x, _ = Planted(PlantedConfig(n_features=64, width=16, active=4)).rows(0, 3000)
    turned = x @ torch.randn(16, 12, generator=torch.Generator().manual_seed(0)) / 4
    with StoreWriter(folder, sites={"a": 16, "b": 12}) as writer:
        writer.append({"a": x, "b": turned}, {"sample_id": [f"s{i}" for i in range(len(x))]})
    return folder


class Launched:
    """What came of every training in two processes, and where the same one is done in this process."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.store = folder, write(folder / "store")
        cases = {name: self.case(name, settings) for name, settings in SAME.items()}
        cases |= {how: self.case(how, SAME[name], how) for how, name in BROKEN.items()}
        cases["again"] = self.case("topk", SAME["topk"])
        for name in RESUMED:
            cases[f"{name} stopped"] = self.case(f"{name} resumed", SAME[name], "stopped")
            cases[f"{name} resumed"] = self.case(f"{name} resumed", SAME[name])
            cases[f"{name} left"] = self.case(f"{name} left", SAME[name], "stopped")
        cases |= {name: self.case(name, settings, name) for name, settings in REFUSED.items()}
        cases["after all"] = self.case("after all", {})
        (folder / "cases.json").write_text(json.dumps(cases))
        self.ends, self.words = launch(folder)

    def case(self, output: str, settings: dict[str, dict[str, Any]], patch: str = "") -> dict[str, Any]:
        of = 1 if patch == "other settings" else -1
        settings = merged(settings)
        return {"store": str(self.store), "output": str(self.folder / output), "settings": settings, "patch": patch, "of": of}  # fmt: skip

    def alone(self, name: str, folder: str = "") -> Path:
        """Do it in this process."""
        output = self.folder / (folder or f"{name} alone")
        if not (output / "run.json").exists():
            train(self.store, output, training(SAME[name]))
        return output


def launch(folder: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """Start two processes as torchrun would; none outlives the test."""
    meeting = torch.distributed.TCPStore("127.0.0.1", 0, is_master=True, wait_for_workers=False)
    (folder / "driver.py").write_text(DRIVER)
    ranks = []
    for rank in range(2):
        told = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": 2, "LOCAL_WORLD_SIZE": 2, "MASTER_PORT": meeting.port}
        told["TORCHELASTIC_USE_AGENT_STORE"] = True
        env = {**os.environ, "OMP_NUM_THREADS": "1", "MASTER_ADDR": "127.0.0.1", **{k: str(v) for k, v in told.items()}}
        command = [sys.executable, "-W", "error", "driver.py", "cases.json", "ends"]
        out = (folder / f"words{rank}").open("w")
        ranks.append(subprocess.Popen(command, cwd=folder, env=env, stdout=out, stderr=out, start_new_session=True))
        out.close()
    try:
        for process in ranks:
            process.wait(timeout=LIMIT)
    finally:
        for process in ranks:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
    words = [(folder / f"words{rank}").read_text() for rank in range(2)]
    assert [process.returncode for process in ranks] == [0, 0], words
    return [json.loads((folder / f"ends{rank}").read_text()) for rank in range(2)], words


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> Launched:
    return Launched(tmp_path_factory.mktemp("ranks"))


def curves(folder: Path) -> tuple[list[str], np.ndarray]:
    records = [json.loads(line) for line in (folder / "training_metrics.jsonl").read_text().splitlines()]
    return sorted(records[0]), np.array([[record[key] for key in sorted(record)] for record in records])


def farthest(one: Path, other: Path) -> float:
    """Largest difference of any figure of any record, by its size (or by 1, where that is larger)."""
    (names, a), (others, b) = curves(one), curves(other)
    assert names == others
    assert a.shape == b.shape
    return float((np.abs(a - b) / np.maximum(1, np.abs(b))).max())


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_dictionary(folder).state_dict()


@pytest.mark.parametrize("name", SAME)
def test_two_ranks_are_one_process(launched: Launched, name: str) -> None:
    alone, two = launched.alone(name), launched.folder / name
    ends = [end[name][:2] for end in launched.ends]
    assert ends[0][0] == "done", ends
    assert ends[0] == ends[1], "all processes return the same summary"
    assert farthest(two, alone) < 1e-5
    for key, value in weights(alone).items():
        torch.testing.assert_close(weights(two)[key], value, rtol=0, atol=2e-4 * float(value.abs().max() + 1e-3))
    used, expected = (pl.read_parquet(folder / "usage.parquet") for folder in (two, alone))
    for column in ("frequency", "first_step", "last_step", "silent_rows", "histogram"):
        assert used[column].to_list() == expected[column].to_list(), column
    np.testing.assert_allclose(used["mean_strength"], expected["mean_strength"], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("how", BROKEN)
def test_what_is_not_exchanged_shows(launched: Launched, how: str) -> None:
    assert farthest(launched.folder / how, launched.alone(BROKEN[how])) > 1e-3


@pytest.mark.parametrize("name", RESUMED)
def test_stopped_and_resumed_is_the_same_to_the_bit(launched: Launched, name: str) -> None:
    """The signal came to the second rank alone."""
    assert [end[f"{name} stopped"][0] for end in launched.ends] == ["KeyboardInterrupt", "SystemExit"]
    assert launched.ends[1][f"{name} stopped"][1] == "130"
    whole, resumed = launched.folder / name, launched.folder / f"{name} resumed"
    files = sorted(path.name for path in whole.iterdir() if path.name != ".lock")
    assert files == sorted(path.name for path in resumed.iterdir() if path.name != ".lock")
    assert "checkpoint.pt" not in files
    for file in files:
        assert (whole / file).read_bytes() == (resumed / file).read_bytes(), file


@pytest.mark.parametrize("name", RESUMED)
def test_one_process_goes_on_where_two_stopped(launched: Launched, name: str) -> None:
    assert (launched.folder / f"{name} left" / "checkpoint.pt").exists()
    steps = len(curves(launched.folder / f"{name} left")[1])
    gone_on = launched.alone(name, f"{name} left")
    assert len(curves(gone_on)[1]) > steps, "it began before it was stopped"
    assert farthest(gone_on, launched.folder / name) < 1e-5
    used, expected = (pl.read_parquet(folder / "usage.parquet") for folder in (gone_on, launched.alone(name)))
    assert used["frequency"].to_list() == expected["frequency"].to_list()


@pytest.mark.parametrize("name", REFUSED)
def test_one_rank_tells_and_all_end(launched: Launched, name: str) -> None:
    who, kind, line = LINES[name]
    ends = [end[name] for end in launched.ends]
    assert ends[who][0] == kind
    assert line in ends[who][1]
    assert "\n" not in ends[who][1]
    assert ends[1 - who][:2] == ["SystemExit", "1"], "the other ends without a word, and not with 0"
    assert max(end[2] for end in ends) < 30, "nobody waits for one that has gone"
    assert not (launched.folder / name / "run.json").exists()


def test_what_is_there_is_used_and_the_group_forms_again(launched: Launched) -> None:
    for end in launched.ends:
        assert end["again"][0] == "done"
        assert end["again"][1] == {**end["topk"][1], "reused": True}
        assert end["after all"][0] == "done", "a failed training does not spoil the next one of the same processes"


def test_only_the_first_talks(launched: Launched) -> None:
    first, second = launched.words
    assert "going on after step 71 of 120" in first
    assert first.count("measuring the scaling") == 1
    assert second == ""


def test_rows_fall_to_ranks_in_order_and_without_gaps() -> None:
    for world in (1, 2, 3, 7):
        for rows in (world, world + 1, 63, 64):
            parts = [list(range(rows))[parallel.Ranks(rank, world).share(rows)] for rank in range(world)]
            assert [row for part in parts for row in part] == list(range(rows))
            assert all(parts)


def test_half_of_an_environment_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.delenv("RANK", raising=False)
    with pytest.raises(ConfigError, match="WORLD_SIZE is 2, but RANK is not set"), parallel.ranks("cpu"):
        pass
