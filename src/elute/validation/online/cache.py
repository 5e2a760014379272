"""Answers kept on disk, one file a request, so that nothing is asked for twice and work that stopped goes on.

1. A file's name is the digest of service, method, address, parameters and body: never of a key, and no key is in it.
2. It holds when the answer came, its status and the digest of its content. One that is damaged is as none.
3. It is written beside its place and renamed, under a name of this process alone: two may write at once.
4. Where nothing can be written, answers are used and not kept; that is told once.
"""

from __future__ import annotations

import json
import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from contextvars import ContextVar
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from elute.base import console, files

_SCHEMA = 1
_DAY = 24 * 3600.0


@dataclass(frozen=True)
class Asked:
    """A request, without its key."""

    service: str
    method: str
    url: str
    body: bytes = b""

    @property
    def digest(self) -> str:
        """What tells it from every other request."""
        parts = (self.service, self.method, self.url, files.digest_bytes(self.body))
        return files.digest_json([_SCHEMA, *parts])


@dataclass
class Walk:
    """Answers that belong together, as the pages of one list do."""

    fresh: bool = False
    """Whether what was kept is passed over."""
    used: list[tuple[Path, float]] = field(default_factory=list)
    """Where answers are kept, and when they came."""

    @property
    def apart(self) -> float:
        """Seconds between the oldest and the newest of them."""
        times = [when for _, when in self.used]
        return max(times) - min(times) if times else 0.0


_walk: ContextVar[Walk | None] = ContextVar("walk", default=None)


@contextmanager
def together(*, fresh: bool = False) -> Iterator[Walk]:
    """Take note of the answers that the block uses; `fresh` asks for all of them anew."""
    walk = Walk(fresh)
    token = _walk.set(walk)
    try:
        yield walk
    finally:
        _walk.reset(token)


def forget(walk: Walk) -> None:
    """Remove what was kept of answers that do not fit together."""
    for path, _ in walk.used:
        with suppress(OSError):
            path.unlink(missing_ok=True)


class Cache:
    """A folder of answers."""

    def __init__(self, folder: Path, *, max_age: float, clock: Callable[[], float]) -> None:
        self._folder, self._max_age, self._clock = Path(folder), max_age, clock
        self._told = False

    def find(self, asked: Asked, *, any_age: bool = False) -> str | None:
        """Return the answer that is kept, if it is whole and not too old; of `any_age` where no other can be had."""
        walk, path = _walk.get(), self._path(asked)
        if walk is not None and walk.fresh and not any_age:
            return None
        try:
            kept = json.loads(path.read_bytes())
            when = datetime.fromisoformat(kept["date"]).timestamp()
            text = kept["text"]
            whole = _stamp(asked, text) == {name: kept[name] for name in _stamp(asked, text)}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError):
            return None
        age = self._clock() - when
        # An answer of tomorrow was dated by a clock that was wrong: nobody knows its age.
        if not whole or not (any_age or -_DAY <= age <= self._max_age):
            return None
        if walk is not None and not any_age:
            walk.used.append((path, when))
        return str(text)

    def keep(self, asked: Asked, text: str) -> None:
        """Keep an answer that was checked."""
        path, now = self._path(asked), self._clock()
        date = datetime.fromtimestamp(now, UTC).isoformat(timespec="seconds")
        hidden = path.with_name(f".{asked.digest[:16]}.{os.getpid()}-{secrets.token_hex(4)}.tmp")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            try:
                hidden.write_bytes(files.as_json({**_stamp(asked, text), "date": date, "text": text}))
                hidden.replace(path)
            finally:
                with suppress(OSError):
                    hidden.unlink(missing_ok=True)
        except OSError as error:
            self._cannot(error)
            return
        if (walk := _walk.get()) is not None:
            walk.used.append((path, now))

    def _path(self, asked: Asked) -> Path:
        digest = asked.digest
        return self._folder / asked.service / digest[:2] / f"{digest}.json"

    def _cannot(self, error: OSError) -> None:
        if not self._told:
            self._told = True
            why = (error.strerror or type(error).__name__).lower()
            console.warn(f"{self._folder}: answers of services are not kept here: {why}")


def _stamp(asked: Asked, text: str) -> dict[str, Any]:
    """What an entry says of itself, and must say to be believed."""
    return {
        "schema": _SCHEMA,
        "service": asked.service,
        "method": asked.method,
        "url": asked.url,
        "body": files.digest_bytes(asked.body) if asked.body else "",
        "status": 200,
        "sha256": files.digest_bytes(text.encode(errors="surrogatepass")),
    }
