"""Leave a service alone that failed several times in a row, then try it once."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from elute.base.console import count, duration
from elute.validation.online.answers import Absent, Resting
from elute.validation.online.patience import Patience
from elute.validation.online.service import Service


@dataclass
class _State:
    failed: int = 0
    since: float = 0.0  # when it was last left alone
    rest: float = 0.0  # for how long; 0: it is not
    trying: bool = False
    last: str = ""


class Breaker:
    """What is known of each service's failures in this process."""

    def __init__(self, patience: Patience, clock: Callable[[], float]) -> None:
        self._patience, self._clock = patience, clock
        self._states: dict[str, _State] = {}
        self._lock = threading.Lock()

    @contextmanager
    def watching(self, service: Service) -> Iterator[None]:
        """Count what the block raises as a failure; refuse at once to begin while the service is left alone."""
        state = self._admit(service)
        try:
            yield
        except Absent:
            self._settle(state, worked=True)
            raise
        except Exception as error:
            self._settle(state, worked=False, why=str(getattr(error, "what", type(error).__name__)))
            raise
        except BaseException:  # stopped by a person: that says nothing of the service
            state.trying = False
            raise
        self._settle(state, worked=True)

    def leave(self, service: Service, seconds: float, why: str) -> None:
        """Leave a service alone because it asks for that."""
        with self._lock:
            state = self._states.setdefault(service.name, _State())
            state.since, state.rest, state.last = self._clock(), seconds, why
            state.trying = False  # the failure that is about to be counted shortens this rest no more
            state.failed = max(state.failed, self._patience.failures)

    def _admit(self, service: Service) -> _State:
        with self._lock:
            state = self._states.setdefault(service.name, _State())
            if not state.rest:
                return state
            passed = self._clock() - state.since
            # A clock that went back says nothing about how long it has been: then it is tried.
            over = passed < 0 or passed >= state.rest
            if not over or state.trying:
                times = f"after {count(state.failed, 'failure')} in a row; the last: {state.last}"
                left = "" if over else f" for {duration(state.rest - passed)}"
                raise Resting(f"is left alone{left} {times}", where=service.name)
            state.trying = True
            return state

    def _settle(self, state: _State, *, worked: bool, why: str = "") -> None:
        with self._lock:
            again, state.trying = state.trying, False
            if worked:
                state.failed, state.rest = 0, 0.0
                return
            state.failed, state.last = state.failed + 1, why
            if again or (state.failed >= self._patience.failures and not state.rest):
                state.since, state.rest = self._clock(), self._patience.rest
