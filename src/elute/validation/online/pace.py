"""Keep a service's pause between requests, of this process and of all others that use the same folder.

A file a service holds the time of its next turn. It is locked only while a turn is taken, not while it is waited for,
so that a process that is stopped holds up nobody.
"""

from __future__ import annotations

import fcntl
import math
import os
import threading
from collections.abc import Callable
from pathlib import Path

from elute.validation.online.service import Service

_QUEUE = 120.0  # seconds: a turn further away than this, and all pauses asked for, is of a clock that was wrong


class Pace:
    """Turns at services."""

    def __init__(self, folder: Path, clock: Callable[[], float], sleep: Callable[[float], None]) -> None:
        self._folder, self._clock, self._sleep = folder, clock, sleep
        self._next: dict[str, float] = {}
        self._lock = threading.Lock()

    def turn(self, service: Service) -> None:
        """Wait for this process's turn."""
        wait = self._take(service, service.pause)
        if wait > 0:
            self._sleep(wait)

    def hold(self, service: Service, seconds: float) -> None:
        """Let nobody have a turn for some seconds, as the service asked."""
        with self._lock:
            self._exchange(service, lambda until, now: max(until, now + seconds))

    def _take(self, service: Service, pause: float) -> float:
        with self._lock:
            begin = 0.0

            def later(until: float, now: float) -> float:
                nonlocal begin
                far = max(_QUEUE, 100 * pause)
                begin = max(until, now) if until - now <= far else now
                return begin + pause

            now = self._exchange(service, later)
            return begin - now

    def _exchange(self, service: Service, change: Callable[[float, float], float]) -> float:
        """Put a new time in place of the one that is kept; in memory alone where nothing can be written."""
        now = self._clock()
        here = self._next.get(service.name, 0.0)
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            handle = os.open(self._folder / f"{service.name}.turn", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o644)
        except OSError:
            self._next[service.name] = change(here, now)
            return now
        try:
            fcntl.flock(handle, fcntl.LOCK_EX)
            new = change(max(_number(os.pread(handle, 40, 0)), 0.0), now)
            self._next[service.name] = new
            os.pwrite(handle, f"{new:.6f}".ljust(30).encode(), 0)
        except OSError:  # a full disk, or a file system without locks
            self._next[service.name] = change(here, now)
        finally:
            os.close(handle)
        return now


def _number(text: bytes) -> float:
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if math.isfinite(value) else 0.0
