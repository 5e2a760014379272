"""How long a training will take is told once, when enough is measured, and only where it matters."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from elute.engine import forecast as module
from elute.engine.fit import FitConfig
from elute.engine.forecast import Forecast
from elute.engine.settings import DictionaryConfig
from elute.engine.train import Training, train


class Clock:
    """Time that passes as it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 100.0
        monkeypatch.setattr(module, "time", SimpleNamespace(perf_counter=lambda: self.now))


def lines(
    capsys: pytest.CaptureFixture[str], clock: Clock, steps: list[float], *, left: int, **given: Any
) -> list[str]:
    forecast = Forecast(left, 64, given.pop("stream", object()), active=given.pop("active", True))
    for seconds in steps:
        clock.now += seconds
        forecast.step()
    return capsys.readouterr().err.splitlines()


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def test_the_first_step_does_not_count(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    told = lines(capsys, clock, [60.0] + 40 * [0.25], left=10_000)
    assert told == ["10,000 steps will take about 41 min 40 s (measured on the first 9)"]


def test_a_few_steps_and_seconds_are_needed(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    assert lines(capsys, clock, 5 * [10.0], left=100) == []
    assert lines(capsys, clock, 6 * [10.0], left=100) == [
        "100 steps will take about 16 min 40 s (measured on the first 6)"
    ]
    assert lines(capsys, clock, 190 * [0.0105], left=10_000) == []
    assert len(lines(capsys, clock, 200 * [0.0105], left=10_000)) == 1


def test_what_is_short_is_not_told(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    assert lines(capsys, clock, 19 * [1.0], left=19) == []
    assert len(lines(capsys, clock, 22 * [1.0], left=22)) == 1
    assert lines(capsys, clock, 22 * [1.0], left=22, active=False) == []


def test_what_is_long_comes_with_a_way_out(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    told = lines(capsys, clock, 20 * [0.78], left=10_000)
    way_out = "fewer steps, smaller batches, fewer features or a faster device take less"
    assert told == [f"10,000 steps will take about 2 h 10 min (measured on the first 6); {way_out}"]


def test_rows_that_are_made_now_and_then_are_counted(clock: Clock, capsys: pytest.CaptureFixture[str]) -> None:
    """640 rows were made in 20 s before the first step, and no more among those that were measured."""
    told = lines(capsys, clock, 8 * [1.0], left=1000, stream=SimpleNamespace(making=(20.0, 640)))
    assert told == ["1,000 steps will take about 50 min 0 s (measured on the first 6)"]


def test_a_training_tells_it_and_writes_it_nowhere(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    training = Training(DictionaryConfig(n_features=24, k=2), fit=FitConfig(steps=20, batch_size=64))
    train(planted, tmp_path / "short", training)
    assert "will take about" not in capsys.readouterr().err
    monkeypatch.setattr(module, "_SECONDS", 0.0)
    monkeypatch.setattr(module, "_WORTH", 0.0)
    train(planted, tmp_path / "told", training)
    assert capsys.readouterr().err.count("20 steps will take about 0 s (measured on the first 6)") == 1
    for path in (tmp_path / "short").iterdir():
        assert path.read_bytes() == (tmp_path / "told" / path.name).read_bytes(), path.name
