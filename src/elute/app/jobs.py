"""Long work beside the Lab: a process of its own that tells how far it is, and that a person can stop.

What is asked goes to it as one line of JSON, and lines of JSON come back (work.py says which). It ends with whoever
asked: when the page is left for good, when the server ends, and when either dies.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
import weakref
from dataclasses import dataclass, field
from typing import IO, Any

import streamlit as st

from elute.app.session import quoted
from elute.base.errors import BusyError

MOST = 4  # at one time, of all who look
EVERY = 0.5  # seconds between two looks at how far it is
_GRACE = 2.0
_running: weakref.WeakSet[Job] = weakref.WeakSet()
_lock = threading.Lock()


@dataclass
class _Told:
    """What a process has said so far."""

    done: int = 0
    of: int = 0
    words: str = "starting"
    answer: dict[str, Any] | None = None
    error: str = ""
    ended: threading.Event = field(default_factory=threading.Event)


class Job:
    """One piece of work in a process of its own."""

    def __init__(self, what: str, given: dict[str, Any]) -> None:
        with _lock:
            if sum(not job.ended for job in _running) >= MOST:
                raise BusyError(f"{MOST} pieces of work are under way", remedy="Wait until one ends, or cancel one.")
            _running.add(self)
            self.cancelled = False
            self._told = _Told()
            # -P: what lies in the folder that the server was started in is not imported.
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-m", "elute.app.work"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
                start_new_session=True,
                env={**os.environ, "HF_HUB_OFFLINE": "1"},  # the Lab fetches nothing
            )
        weakref.finalize(self, _stop, self._process)
        assert self._process.stdin is not None  # noqa: S101  # it was asked for
        assert self._process.stdout is not None  # noqa: S101
        with contextlib.suppress(OSError):
            self._process.stdin.write(json.dumps({"what": what, "given": given}) + "\n")
            self._process.stdin.flush()  # it stays open: its end tells the process that nobody waits any more
        threading.Thread(target=_listen, args=(self._process, self._process.stdout, self._told), daemon=True).start()

    @property
    def ended(self) -> bool:
        """Whether nothing more will come."""
        return self._told.ended.is_set()

    @property
    def answer(self) -> dict[str, Any] | None:
        """What it came to, in the end."""
        return self._told.answer if self.ended and not self.cancelled else None

    @property
    def error(self) -> str:
        """What went wrong, in one line."""
        return self._told.error if self.ended and not self.cancelled else ""

    @property
    def share(self) -> float:
        """How much is done, from 0 to 1."""
        return min(1.0, self._told.done / self._told.of) if self._told.of else 0.0

    @property
    def words(self) -> str:
        """What it is doing."""
        told = self._told
        return f"{told.words} ({told.done:,} of {told.of:,})" if told.of else told.words

    def cancel(self) -> None:
        """End it now."""
        self.cancelled = True
        _stop(self._process)

    def wait(self, seconds: float) -> bool:
        """Wait for its end; returns whether it came."""
        return self._told.ended.wait(seconds)


def stop_all() -> None:
    """End all work, when the server ends."""
    for job in list(_running):
        job.cancel()


def under_way(key: str) -> Job | None:
    """Show how far the work of this name is; returns it when it has ended."""
    job: Job | None = st.session_state.get(key)
    if job is None:
        return None
    if not job.ended:
        _watch(key)
        return None
    if job.cancelled:
        st.info("Cancelled.")
    elif job.error:
        st.error(quoted(job.error))
    return job


@st.fragment(run_every=EVERY)
def _watch(key: str) -> None:
    job: Job | None = st.session_state.get(key)
    if job is None or job.ended:
        st.rerun()
    assert job is not None  # noqa: S101  # rerun does not return
    st.text(job.words)
    st.progress(job.share)
    if st.button("Cancel", key=f"cancel {key}"):
        job.cancel()
        st.rerun()


def _listen(process: subprocess.Popen[str], lines: IO[str], told: _Told) -> None:
    """Take what a process says until it ends."""
    with lines:
        for line in lines:
            said = json.loads(line)
            if "words" in said:
                told.done, told.of, told.words = said["done"], said["of"], said["words"]
            told.answer = said.get("answer", told.answer)
            told.error = said.get("error", told.error)
    code = process.wait()
    _hang_up(process)
    if told.answer is None and not told.error:
        told.error = f"the work ended without an answer (exit code {code}); the terminal of the Lab may say more"
    told.ended.set()


def _stop(process: subprocess.Popen[str]) -> None:
    """End a process and all that it started."""
    _hang_up(process)
    end = time.monotonic() + _GRACE
    for sign in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, sign)
        while process.poll() is None and time.monotonic() < end:
            time.sleep(0.02)


def _hang_up(process: subprocess.Popen[str]) -> None:
    if process.stdin is not None:
        with contextlib.suppress(OSError):
            process.stdin.close()
