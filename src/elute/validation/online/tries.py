"""Counting attempts at one thing: whether there is another one, after how long, and what is said when there is none."""

from __future__ import annotations

from elute.base.console import count, duration
from elute.base.errors import ServiceError
from elute.validation.online.explained import Failed
from elute.validation.online.patience import Patience

_MOST = 200  # attempts at one thing, however much each of them brings
LATER = "Try again later: what was answered before is kept."


class Tries:
    """The attempts at one thing so far."""

    def __init__(self, limits: Patience, *, later: str = LATER) -> None:
        self._limits, self._later = limits, later
        self._tried = self._spent = self._all = 0
        self.asked_to_wait = 0.0
        """Seconds that the service asks to wait, if that is longer than it is waited for."""

    def wait(self, failed: Failed, *, progress: bool = False) -> float | None:
        """Count a failure; return the seconds until the next attempt, None if there is none.

        An attempt that made progress begins the count anew, as with a large file over a poor line.
        """
        limits = self._limits
        self._all += 1
        self._tried = 1 if progress else self._tried + 1
        self._spent = 0 if progress else self._spent + (failed.again == "once")
        if failed.wait is not None and failed.wait > limits.told:
            self.asked_to_wait = failed.wait
            return None
        if failed.again == "no" or self._tried >= limits.tries or self._spent >= limits.unusable or self._all >= _MOST:
            return None
        return limits.delay(self._tried) if failed.wait is None else failed.wait

    def error(self, failed: Failed, where: str) -> ServiceError:
        """What is said in the end."""
        what, remedy = failed.what, failed.remedy
        if self.asked_to_wait:
            what += f" and asks to wait {duration(self.asked_to_wait)}"
        elif self._tried > 1:
            what += f", {count(self._tried, 'time')} in a row"
        if failed.again == "yes" and not remedy:
            remedy = self._later
        return ServiceError(what, where=where, remedy=remedy)
