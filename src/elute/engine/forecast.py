"""How long a training will take, told once, from its first steps."""

from __future__ import annotations

import time
from typing import Any

from elute.base import console

_STEPS, _SECONDS = 5, 2.0  # measured at least
_WORTH = 20.0  # seconds below which nobody asks
_LONG = 3600.0


class Forecast:
    """Looks at the clock after each step; the first one is not counted, since it compiles and warms up.

    A stream that makes its rows at times (`making`: seconds so far, rows so far) is asked what a row costs, whether or
    not that fell among the steps that were measured.
    """

    def __init__(self, left: int, rows: int, stream: Any, *, active: bool) -> None:
        self.left, self.rows, self.stream = left, rows, stream
        self._began: tuple[float, float] | None = None
        self._done, self._told = 0, not active

    def step(self) -> None:
        """Count a step; tell when enough have been measured."""
        if self._told:
            return
        self._done += 1
        now = time.perf_counter()
        making, made = getattr(self.stream, "making", (0.0, 0))
        if self._began is None:
            self._began = now, making
            return
        seconds, measured = now - self._began[0], self._done - 1
        if measured < _STEPS or seconds < _SECONDS:
            return
        self._told = True
        each = (seconds - (making - self._began[1])) / measured + (making / made * self.rows if made else 0.0)
        if (whole := each * self.left) < _WORTH:
            return
        text = f"{self.left:,} steps will take about {console.duration(whole)} (measured on the first {self._done})"
        shorter = "; fewer steps, smaller batches, fewer features or a faster device take less" if whole > _LONG else ""
        console.say(text + shorter)
