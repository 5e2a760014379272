from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest

from elute.base.errors import MissingError, SpaceError
from elute.engine import tracking
from elute.engine.tracking import EVENTS, LINES, RUN_ID, TABLE, Metrics, TrackConfig

KEY = "0123456789abcdef" * 2 + "01234567"


@pytest.fixture(autouse=True)
def no_wandb_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("NETRC", "/nonexistent/netrc")


def metrics(folder: Path, resume_at: int | None = None, **config: Any) -> Metrics:
    return Metrics(folder, TrackConfig(**config), settings={"seed": 7}, resume_at=resume_at)


def values(step: int) -> dict[str, float]:
    return {"mse": 1 / (step + 3), "l0": 32, "dead": 0.1 * step}


def run(folder: Path, first: int, last: int, *, resume_at: int | None = None) -> Metrics:
    it = metrics(folder, resume_at)
    for step in range(first, last + 1, 10):
        it.log(step, values(step), extra={"rows_per_second": 1e6 / (step + 1)})
    return it


def test_records_are_lines_and_columns(tmp_path: Path) -> None:
    it = metrics(tmp_path)
    it.log(0, {"mse": 0.1, "l0": 32})
    it.log(50, {"l0": 31, "mse": 1 / 3, "valid_mse": 0.5})
    it.close({"mse": 1 / 3, "steps": 50, "note": None})
    assert (tmp_path / LINES).read_text() == (
        '{"step": 0, "l0": 32, "mse": 0.1}\n{"step": 50, "l0": 31, "mse": 0.3333333333333333, "valid_mse": 0.5}\n'
    )
    assert json.loads((tmp_path / TABLE).read_text()) == {
        "final": {"mse": 1 / 3, "steps": 50, "note": None},
        "history": {"step": [0, 50], "l0": [32, 31], "mse": [0.1, 1 / 3], "valid_mse": [None, 0.5]},
    }


def test_a_record_is_on_the_disk_at_once(tmp_path: Path) -> None:
    it = metrics(tmp_path)
    it.log(0, {"mse": 1.0})
    assert (tmp_path / LINES).read_text() == '{"step": 0, "mse": 1.0}\n'
    it.sync()


def test_a_rate_is_in_no_file(tmp_path: Path) -> None:
    run(tmp_path, 0, 30).close({})
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and b"rows_per_second" in p.read_bytes()]


def test_what_json_lacks_is_null(tmp_path: Path) -> None:
    it = metrics(tmp_path)
    it.log(0, {"a": math.nan, "b": math.inf, "c": -0.0})
    it.close({"mse": math.nan, "sites": {"x": [math.inf, 1]}})
    assert (tmp_path / LINES).read_text() == '{"step": 0, "a": null, "b": null, "c": -0.0}\n'
    assert json.loads((tmp_path / TABLE).read_text())["final"] == {"mse": None, "sites": {"x": [None, 1]}}


@pytest.mark.parametrize("tail", ["", '{"step": 70, "de', '{"step": 70}', "\0\0\0\0", "{"])
def test_a_resumed_run_ends_with_the_bytes_of_an_undisturbed_one(
    tmp_path: Path, tail: str, capsys: pytest.CaptureFixture[str]
) -> None:
    run(tmp_path / "whole", 0, 100).close(values(100))
    run(tmp_path / "cut", 0, 60)  # killed here: nothing is closed, and the last line may be a part of one
    with (tmp_path / "cut" / LINES).open("a") as handle:
        handle.write(tail)
    run(tmp_path / "cut", 40, 100, resume_at=30).close(values(100))
    for name in (LINES, TABLE):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    assert capsys.readouterr().err == ""


def test_a_run_that_begins_anew_leaves_nothing_of_the_old_one(tmp_path: Path) -> None:
    run(tmp_path, 0, 100).close({})
    (tmp_path / RUN_ID).write_text("old")
    it = metrics(tmp_path)
    assert not [p for p in (LINES, TABLE, RUN_ID) if (tmp_path / p).exists()]
    it.log(0, {"mse": 1.0})
    it.close({})
    assert json.loads((tmp_path / TABLE).read_text())["history"] == {"step": [0], "mse": [1.0]}


def test_a_table_of_a_finished_run_does_not_outlive_its_resumption(tmp_path: Path) -> None:
    run(tmp_path, 0, 50).close({})
    metrics(tmp_path, resume_at=50)
    assert not (tmp_path / TABLE).exists()


def test_damage_before_the_checkpoint_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run(tmp_path, 0, 50)
    path = tmp_path / LINES
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join([*lines[:2], "#" * 20 + "\n", '{"step": "3"}\n', *lines[3:]]))
    metrics(tmp_path, resume_at=40).close({})
    assert f"{path}: 2 lines could not be read and will be left out" in capsys.readouterr().err
    assert json.loads((tmp_path / TABLE).read_text())["history"]["step"] == [0, 10, 30, 40]


def test_steps_grow(tmp_path: Path) -> None:
    it = run(tmp_path, 0, 50)
    with pytest.raises(ValueError, match="step 50 after step 50"):
        it.log(50, {"mse": 1.0})
    with pytest.raises(ValueError, match="step 30 after step 40"):
        metrics(tmp_path, resume_at=40).log(30, {})
    with pytest.raises(ValueError, match="none is named 'step'"):
        it.log(60, {"step": 1.0})


def test_only_the_first_rank_writes(tmp_path: Path) -> None:
    it = Metrics(tmp_path / "no", TrackConfig(wandb=True, log_every=4), settings={}, resume_at=3, active=False)
    it.log(0, {"mse": 1.0})
    it.sync()
    it.truncate(0)
    it.close({})
    assert not (tmp_path / "no").exists()
    assert [step for step in range(10) if it.due(step)] == [0, 4, 8]


def test_a_full_disk_is_one_line(tmp_path: Path) -> None:
    it = metrics(tmp_path)
    (tmp_path / LINES).symlink_to("/dev/full")
    with pytest.raises(SpaceError, match="the disk is full"):
        it.log(0, {"mse": 1.0})


# TensorBoard


def events(folder: Path) -> list[tuple[int, float]]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder / EVENTS))
    found.Reload()
    return [(event.step, event.value) for event in found.Scalars("mse")]


def test_event_files_read_back_and_redone_steps_count_once(tmp_path: Path) -> None:
    first = metrics(tmp_path, tensorboard=True)
    for step in (0, 10, 20, 30):
        first.log(step, {"mse": step / 4}, extra={"rate": 5.0})
    first.sync()  # and the process is killed; the file stays without an end
    first._end(None)
    with metrics(tmp_path, resume_at=10, tensorboard=True) as second:
        for step in (20, 30, 40):
            second.log(step, {"mse": step / 4 + 1})
        second.close({})
    assert events(tmp_path) == [(0, 0.0), (10, 2.5), (20, 6.0), (30, 8.5), (40, 11.0)]


def test_a_run_that_begins_anew_hides_older_events(tmp_path: Path) -> None:
    for value in (1.0, 2.0):
        with metrics(tmp_path, tensorboard=True) as it:
            it.log(0, {"mse": value})
            if value == 1.0:
                it.log(10, {"mse": value})
    assert events(tmp_path) == [(0, 2.0)]


# Trackers that fail


class Broken:
    def __init__(self, at: str) -> None:
        self.at, self.calls = at, 0

    def log(self, step: int, values: dict[str, float]) -> None:
        self.calls += 1
        if self.at == "log":
            raise RuntimeError(f"the service\nis gone, key {KEY}")

    def sync(self) -> None:
        if self.at == "sync":
            raise BrokenPipeError("no service")

    def close(self, summary: object) -> None:
        raise OSError("no service at the end")


@pytest.mark.parametrize("at", ["log", "sync", "close", "start"])
def test_a_tracker_cannot_stop_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], at: str
) -> None:
    broken = Broken(at)

    def make(*_: object) -> Broken:
        if at == "start":
            raise ValueError("no quota")
        return broken

    monkeypatch.setattr(tracking, "_Tensorboard", make)
    monkeypatch.setenv("WANDB_API_KEY", KEY)
    with metrics(tmp_path, tensorboard=True) as it:
        for step in range(3):
            it.log(step, {"mse": 1.0})
            it.sync()
        it.close({"mse": 1.0})
    assert json.loads((tmp_path / TABLE).read_text())["history"]["step"] == [0, 1, 2]
    told = capsys.readouterr().err
    assert told.startswith("warning: TensorBoard failed and is left out from here on; training goes on (")
    assert told.count("\n") == 1
    assert KEY not in told
    assert broken.calls == {"log": 1, "sync": 1, "close": 3, "start": 0}[at]


def test_a_package_that_is_not_there_is_told_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tracking, "find_spec", lambda _: None)
    for package in ("wandb", "tensorboard"):
        with pytest.raises(MissingError, match=f"{package} is not installed.*pip install.*or leave --{package} out"):
            metrics(tmp_path / "run", **{package: True})
    assert not (tmp_path / "run").exists()
    metrics(tmp_path, wandb=True, wandb_mode="disabled").close({})


def test_a_folder_of_the_packages_name_is_not_the_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "wandbx").mkdir()
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(tracking, "find_spec", lambda name, real=tracking.find_spec: real(name + "x"))
    with pytest.raises(MissingError, match="wandb is not installed"):
        metrics(tmp_path, wandb=True)


# Weights & Biases


def test_online_needs_a_key_before_training(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingError, match="online, but there is no key.*Set WANDB_API_KEY"):
        metrics(tmp_path, wandb=True, wandb_mode="online")
    (tmp_path / "netrc").write_text(f"machine api.wandb.ai\n login user\n password {KEY}\n")
    (tmp_path / "netrc").chmod(0o600)
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    assert tracking._logged_in()


@pytest.mark.parametrize(
    ("asked", "environment", "mode"),
    [
        ("auto", {}, "offline"),
        ("auto", {"WANDB_API_KEY": KEY}, "online"),
        ("auto", {"WANDB_API_KEY": KEY, "WANDB_MODE": "offline"}, "offline"),
        ("auto", {"WANDB_MODE": "online"}, "offline"),
        ("auto", {"WANDB_API_KEY": KEY, "WANDB_MODE": "disabled"}, "disabled"),
        ("offline", {"WANDB_API_KEY": KEY}, "offline"),
        ("online", {"WANDB_MODE": "offline"}, "online"),
    ],
)
def test_offline_unless_there_is_a_key(
    monkeypatch: pytest.MonkeyPatch, asked: Any, environment: dict[str, str], mode: str
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert tracking._mode(TrackConfig(wandb_mode=asked)) == mode


def test_a_resumed_run_keeps_its_id_and_no_file_has_the_key(tmp_path: Path) -> None:
    """The real package, offline, in a process of its own: it starts a service and waits for it at the end."""
    program = textwrap.dedent("""
        import sys
        from pathlib import Path
        from elute.engine.tracking import Metrics, TrackConfig

        folder, config = Path(sys.argv[1]), TrackConfig(wandb=True, wandb_mode="offline")
        for resume_at, steps in ((None, (0, 10, 20)), (10, (20, 30))):
            with Metrics(folder, config, settings={"train": {"seed": 7}}, resume_at=resume_at) as metrics:
                for step in steps:
                    metrics.log(step, {"mse": 1 / (step + 1)}, extra={"rows_per_second": 4321.5})
                if resume_at is not None:
                    metrics.close({"mse": 1 / 31})
            print((folder / "wandb_run_id").read_text().strip())
    """)
    environment = {**os.environ, "WANDB_API_KEY": KEY, "HOME": str(tmp_path / "home"), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", program, str(tmp_path / "run")],
        capture_output=True,
        text=True,
        timeout=60,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    first, second = done.stdout.split()
    assert first == second
    found = sorted((tmp_path / "run" / "wandb").glob("offline-run-*/*.wandb"))
    assert [path.name for path in found] == [f"run-{first}.wandb"] * 2
    assert b"rows_per_second" in found[0].read_bytes()
    assert not [p for p in tmp_path.rglob("*") if p.is_file() and KEY.encode() in p.read_bytes()]
    assert [json.loads(line)["step"] for line in (tmp_path / "run" / LINES).read_text().splitlines()] == [0, 10, 20, 30]
