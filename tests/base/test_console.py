from __future__ import annotations

import io
from collections.abc import Iterator
from types import SimpleNamespace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elute.base import console
from elute.base.console import Progress, count, detail, duration, progress, say, set_level, size, warn

WIPE = "\r\x1b[K"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Clock:
    """A clock that a test winds forward."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now


@pytest.fixture(autouse=True)
def usual_level() -> Iterator[None]:
    set_level(0)
    yield
    set_level(0)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(console, "time", clock)
    return clock


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    terminal = Terminal()
    monkeypatch.setattr(console, "sys", SimpleNamespace(stderr=terminal))
    return terminal


# Messages


@pytest.mark.parametrize(
    ("level", "shown"),
    [
        (-2, ""),
        (-1, "warning: careful\n"),
        (0, "usual\nwarning: careful\n"),
        (1, "usual\nin detail\nwarning: careful\n"),
        (2, "usual\nin detail\nwarning: careful\neverything\n"),
    ],
)
def test_what_each_level_shows(capsys: pytest.CaptureFixture[str], level: int, shown: str) -> None:
    set_level(level)
    say("usual")
    detail("in detail")
    warn("careful")
    say("everything", level=2)
    out, err = capsys.readouterr()
    assert err == shown
    assert out == ""


# Progress


@pytest.mark.parametrize(
    ("done", "total", "advance", "seconds", "line"),
    [
        (0, 1000, 250, 10, "capture: 250 of 1,000 rows, 25/s, 30 s left"),
        (0, 1000, 1000, 10, "capture: 1,000 of 1,000 rows, 100/s, 0 s left"),
        (0, 20_000_000, 1_000_000, 60, "capture: 1,000,000 of 20,000,000 rows, 16,667/s, 19 min 0 s left"),
        (0, None, 5000, 10, "capture: 5,000 rows, 500/s"),
        (0, 1000, 0, 10, "capture: 0 of 1,000 rows, 0/s"),
        (900, 1000, 50, 10, "capture: 950 of 1,000 rows, 5/s, 10 s left"),  # what an earlier run did is no speed
        (900, 1000, 0, 10, "capture: 900 of 1,000 rows, 0/s"),
        (0, 10, 3, 90, "capture: 3 of 10 rows, 0.033/s, 3 min 30 s left"),
        (0, 10, 12, 4, "capture: 12 of 10 rows, 3/s, 0 s left"),
        (0, 100, 50, 0, "capture: 50 of 100 rows, 50,000,000,000/s, 0 s left"),
    ],
)
def test_a_line_of_progress(
    clock: Clock, done: int, total: int | None, advance: int, seconds: float, line: str
) -> None:
    bar = Progress("capture", total, "rows", done)
    bar.advance(advance)
    assert bar.line(clock.now + seconds) == line


def test_a_log_gets_a_line_now_and_then(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    with progress("fit", 100, unit="steps", done=20) as bar:
        for _ in range(40):
            clock.now += 0.5
            bar.advance()
    out, err = capsys.readouterr()
    assert err == "fit: 40 of 100 steps, 2/s, 30 s left\nfit: 60 of 100 steps, 2/s, 20 s left\n"
    assert out == ""


def test_a_short_piece_of_work_says_nothing(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    with progress("fit", 100) as bar:
        clock.now += 9.9
        bar.advance(100)
    assert capsys.readouterr() == ("", "")


def test_a_terminal_gets_one_line_that_moves(
    capsys: pytest.CaptureFixture[str], clock: Clock, terminal: Terminal
) -> None:
    with progress("fit", 100, unit="steps") as bar:
        for _ in range(4):
            clock.now += 0.125
            bar.advance(10)
    assert terminal.getvalue() == (
        f"{WIPE}fit: 20 of 100 steps, 80/s, 1 s left{WIPE}fit: 40 of 100 steps, 80/s, 1 s left{WIPE}"
    )
    assert capsys.readouterr().out == ""


def test_a_message_takes_the_place_of_a_moving_line(clock: Clock, terminal: Terminal) -> None:
    with progress("fit", 100) as bar:
        warn("before")
        clock.now += 1
        bar.advance(50)
        warn("within")
        detail("not shown")
        say("again")
        clock.now += 1
        bar.advance(25)
    say("after")
    assert terminal.getvalue() == (
        "warning: before\n"
        f"{WIPE}fit: 50 of 100 rows, 50/s, 1 s left{WIPE}warning: within\nagain\n"
        f"{WIPE}fit: 75 of 100 rows, 38/s, 1 s left{WIPE}after\n"
    )


def test_work_that_fails_ends_the_moving_line(clock: Clock, terminal: Terminal) -> None:
    with pytest.raises(ZeroDivisionError), progress("fit", 100) as bar:
        clock.now += 1
        bar.advance(50)
        raise ZeroDivisionError
    assert terminal.getvalue() == f"{WIPE}fit: 50 of 100 rows, 50/s, 1 s left{WIPE}"


def work_quietly(clock: Clock) -> None:
    set_level(-1)
    with progress("fit", 100) as bar:
        clock.now += 60
        bar.advance(50)
        warn("careful")
    assert bar.done == 50


def test_quiet_work_shows_no_progress_in_a_log(capsys: pytest.CaptureFixture[str], clock: Clock) -> None:
    work_quietly(clock)
    assert capsys.readouterr().err == "warning: careful\n"


def test_quiet_work_shows_no_progress_on_a_terminal(clock: Clock, terminal: Terminal) -> None:
    work_quietly(clock)
    assert terminal.getvalue() == "warning: careful\n"


# Numbers


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (-5, "0 s"), (0, "0 s"), (0.4, "0 s"), (0.6, "1 s"), (59.4, "59 s"), (59.6, "1 min 0 s"), (60, "1 min 0 s"),
        (190, "3 min 10 s"), (3599.4, "59 min 59 s"), (3599.6, "1 h 0 min"), (3600, "1 h 0 min"), (7500, "2 h 5 min"),
        (7559, "2 h 5 min"), (360_000, "100 h 0 min"),
    ],
)  # fmt: skip
def test_durations(seconds: float, said: str) -> None:
    assert duration(seconds) == said


@pytest.mark.parametrize(
    ("n_bytes", "said"),
    [
        (0, "0 B"), (950, "950 B"), (999, "999 B"), (1000, "1.0 kB"), (999_949, "999.9 kB"), (999_951, "1.0 MB"),
        (12_345_678, "12.3 MB"), (999_951_000, "1.0 GB"), (4_000_000_000, "4.0 GB"), (999_951_000_000, "1.0 TB"),
        (2.5e12, "2.5 TB"), (3e15, "3000.0 TB"),
    ],
)  # fmt: skip
def test_sizes(n_bytes: float, said: str) -> None:
    assert size(n_bytes) == said


@settings(deadline=None)
@given(st.integers(0, 10**15 - 10**11))
def test_a_size_is_near_what_it_says(n_bytes: int) -> None:
    number, unit = size(n_bytes).split()
    assert len(number) <= 5
    scale = {"B": 1, "kB": 1e3, "MB": 1e6, "GB": 1e9, "TB": 1e12}[unit]
    assert float(number) * scale == pytest.approx(n_bytes, rel=0.051)


def test_one_and_many() -> None:
    assert [count(n, "shard") for n in (0, 1, 2, 1000)] == ["0 shards", "1 shard", "2 shards", "1,000 shards"]


def test_bars_are_heard_of_elsewhere(capsys: pytest.CaptureFixture[str]) -> None:
    told: list[tuple[str, int, int | None]] = []
    set_level(-1)
    with console.heard(lambda *each: told.append(each)):
        with progress("one", 3) as bar:
            bar.advance()
            bar.advance(2)
        with progress("other") as bar:
            bar.advance(5)
    with progress("unheard", 1) as bar:
        bar.advance()
    assert told == [("one", 1, 3), ("one", 3, 3), ("other", 5, None)]
    assert capsys.readouterr().err == ""
