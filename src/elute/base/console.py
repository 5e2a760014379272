"""What a person sees while a program works: messages and progress, all on stderr.

Standard output belongs to results, so that `--json` can be piped. On a terminal progress is one moving line; in a log
it is a line now and then. `-q` leaves warnings and errors alone, `-v` adds detail.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_level = 0
_WIPE = "\r\x1b[K"  # back to the beginning of the terminal's line, and empty it
_hushed = 0  # messages of a part of the work that is told in one line are details
_moving = False  # a line of progress stands open on the terminal
_heard: list[Callable[[str, int, int | None], None]] = []  # who hears of every bar, besides the terminal


def set_level(level: int) -> None:
    """Set how much is said: -1 quiet, 0 usual, 1 and more in detail."""
    global _level
    _level = level


def say(text: str, *, level: int = 0) -> None:
    """Print one line to stderr if the level allows it, in place of an open line of progress."""
    global _moving
    if _level >= level + (_hushed if level >= 0 else 0):
        text, _moving = (_WIPE if _moving else "") + text, False
        print(text, file=sys.stderr, flush=True)  # noqa: T201


@contextmanager
def hushed() -> Iterator[None]:
    """Turn messages into details while something is done that one line has told; progress and warnings stay."""
    global _hushed
    _hushed += 1
    try:
        yield
    finally:
        _hushed -= 1


def detail(text: str) -> None:
    """Print a line that only `-v` shows."""
    say(text, level=1)


def warn(text: str) -> None:
    """Print a warning; `-q` does not hide it."""
    say(f"warning: {text}", level=-1)


class Progress:
    """Counts finished units of work and tells the rate and the time left, measured from this run alone."""

    def __init__(self, title: str, total: int | None, unit: str, done: int = 0) -> None:
        self.title, self.total, self.unit = title, total, unit
        self.done = self._first = done
        self.note = ""  # figures that the work wants shown behind the rate
        self._began = self._told = time.monotonic()
        self._live = sys.stderr.isatty()
        self._every = 0.2 if self._live else 10.0

    def advance(self, amount: int = 1) -> None:
        """Count some more units as finished."""
        self.done += amount
        for hear in _heard:
            hear(self.title, self.done, self.total)
        now = time.monotonic()
        if now - self._told >= self._every:
            self._told = now
            self._show(self.line(now), end="" if self._live else "\n")

    def line(self, now: float) -> str:
        """The state in one line."""
        rate = (self.done - self._first) / max(now - self._began, 1e-9)
        text = f"{self.title}: {self.done:,}"
        if self.total is not None:
            text += f" of {self.total:,}"
        text += f" {self.unit}, {rate:,.0f}/s" if rate >= 10 else f" {self.unit}, {rate:.2g}/s"
        if self.total is not None and rate > 0:
            text += f", {duration((self.total - self.done) / rate)} left"
        return f"{text}; {self.note}" if self.note else text

    def close(self) -> None:
        """End the moving line."""
        if _moving:
            self._show("", end="")

    def _show(self, text: str, end: str) -> None:
        global _moving
        if _level >= 0:
            _moving = self._live and bool(text)
            print((_WIPE if self._live else "") + text, end=end, file=sys.stderr, flush=True)  # noqa: T201


@contextmanager
def progress(title: str, total: int | None = None, *, unit: str = "rows", done: int = 0) -> Iterator[Progress]:
    """Show progress while the block runs; `done` is what an earlier run had finished."""
    bar = Progress(title, total, unit, done)
    try:
        yield bar
    finally:
        bar.close()


@contextmanager
def heard(hear: Callable[[str, int, int | None], None]) -> Iterator[None]:
    """Tell someone else, too, how far every bar is that moves meanwhile: its title, what is done, and of how much."""
    _heard.append(hear)
    try:
        yield
    finally:
        _heard.remove(hear)


def duration(seconds: float) -> str:
    """Write a length of time as people say it: 42 s, 3 min 10 s, 2 h 5 min."""
    whole = max(0, round(seconds))
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def count(n: int, one: str) -> str:
    """Write a number of things: 1 shard, 2 shards."""
    return f"{n:,} {one}" + ("" if n == 1 else "s")


def size(n_bytes: float) -> str:
    """Write a number of bytes as people say it: 950 B, 12.3 MB, 4.0 GB."""
    for unit in ("B", "kB", "MB", "GB"):
        if round(n_bytes, 0 if unit == "B" else 1) < 1000:
            return f"{n_bytes:.0f} {unit}" if unit == "B" else f"{n_bytes:.1f} {unit}"
        n_bytes /= 1000
    return f"{n_bytes:.1f} TB"
