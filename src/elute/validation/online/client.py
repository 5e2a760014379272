"""Ask services politely: one cache, one pace, one way to be patient, and no answer but a whole and checked one.

1. What was asked for before is taken from the cache, and looked at again by whoever asks.
2. Else the service is asked, in its pace; what may pass is asked again after a while, or after the time that it says.
3. An answer counts if its status is 200, it came whole, is of a content type that the service gives, is JSON where
   JSON is due, and `read` can use it. Then, and only then, it is kept.
4. A service that fails several times in a row is left alone for a while.
5. No error hangs on to one of the library's, which would quote the request and so the key.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from urllib.parse import quote, unquote, urlencode

from elute.base import console, files
from elute.base.errors import ConfigError, EluteError, ServiceError
from elute.validation.online.answers import Later, Unusable
from elute.validation.online.breaker import Breaker
from elute.validation.online.cache import Asked, Cache
from elute.validation.online.content import accepted, decoded, looks_like_page, media_type, understood
from elute.validation.online.explained import SIGN_IN, Failed
from elute.validation.online.keys import Key, key_of, scrub
from elute.validation.online.pace import Pace
from elute.validation.online.patience import Patience
from elute.validation.online.refused import of_service
from elute.validation.online.service import Service
from elute.validation.online.tries import Tries
from elute.validation.online.wire import Question, Wire, framed

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
Params = Mapping[str, str | int | Sequence[str]]

MONTH = 30 * 24 * 3600.0
_FAULTS = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RecursionError)
_PLAIN = "/:@!$&'()*+,;=~-._%"  # in a path as they are; a percent sign because the caller may have quoted a part


@dataclass(frozen=True)
class _Wanted(Generic[T]):
    """What is to be had of an answer."""

    service: Service
    asked: Asked
    headers: Mapping[str, str]
    read: Callable[[Any], T]
    text: bool

    def of(self, text: str) -> T:
        """Read a whole answer; whatever about it is not as expected makes it unusable."""
        try:
            return self.read(text if self.text else understood(text))
        except (Unusable, Later):
            raise
        except EluteError as error:
            what = error.line()
        except _FAULTS as error:
            what = f"has another form than is known of it ({type(error).__name__}: {scrub(str(error))[:100]})"
        raise Unusable(what)


class Client:
    """Asks services; use it as a context, or close it."""

    def __init__(
        self,
        folder: Path,
        *,
        mirror: str = "",
        offline: bool = False,
        max_age: float = MONTH,
        patience: Patience = Patience(),  # noqa: B008  # frozen
        clock: Callable[[], float] = time.time,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self.offline, self.patience = offline, patience
        self._clock, self._sleep = clock, sleep
        self._wire = Wire(mirror=mirror, patience=patience)
        self._cache = Cache(folder, max_age=max_age, clock=clock)
        self._pace = Pace(folder, clock, sleep)
        self._breaker = Breaker(patience, clock)

    def __enter__(self) -> Client:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close the connections."""
        self._wire.close()

    def get(
        self, service: Service, path: str, *, params: Params | None = None, read: Callable[[Any], T], text: bool = False
    ) -> T:
        """Ask for what lies at a path below the service's address; `read` gets the JSON, or the text."""
        asked = Asked(service.name, "GET", _address(service, path, params))
        return self._have(_Wanted(service, asked, {}, read, text))

    def post(
        self,
        service: Service,
        path: str,
        *,
        json: Any = None,
        form: Mapping[str, str] | None = None,
        params: Params | None = None,
        read: Callable[[Any], T],
        text: bool = False,
    ) -> T:
        """Ask by sending JSON or a form; it must be a question, for it may be sent more than once."""
        if (json is None) == (form is None):
            raise ValueError("give either json or form")
        if form is None:
            body, kind = files.as_json(json), "application/json"
        else:
            body, kind = urlencode(form).encode(), "application/x-www-form-urlencoded"
        asked = Asked(service.name, "POST", _address(service, path, params), body)
        return self._have(_Wanted(service, asked, {"Content-Type": kind}, read, text))

    def _have(self, wanted: _Wanted[T]) -> T:
        service = wanted.service
        kept = self._cache.find(wanted.asked, any_age=self.offline)
        if kept is not None:
            try:
                return wanted.of(kept)
            except (Unusable, Later):
                console.detail(f"{service.name}: an answer that was kept cannot be used: asked again")
        if self.offline:
            what = "what is asked is not in the cache, and the network is not to be used"
            raise ServiceError(what, where=service.name, remedy="Ask once while online.")
        key = key_of(service)
        sent = f"{wanted.asked.url} {wanted.asked.body.decode(errors='replace')}"
        if key is not None and scrub(sent) != sent:
            raise ConfigError(
                "the key stands in what is asked", where=service.name, remedy=f"It belongs in {key.name}."
            )
        with self._breaker.watching(service):
            text, value = self._persist(wanted, key)
        self._cache.keep(wanted.asked, text)
        return value

    def _persist(self, wanted: _Wanted[T], key: Key | None) -> tuple[str, T]:
        """Ask until there is an answer or patience ends."""
        service, tries = wanted.service, Tries(self.patience)
        while True:
            self._pace.turn(service)
            got = self._once(wanted, key)
            if not isinstance(got, Failed):
                return got
            wait = tries.wait(got)
            if wait is None:
                break
            console.detail(f"{service.name}: {got.what}; asked again in {wait:.1f} s")
            if got.wait:
                self._pace.hold(service, wait)
            self._sleep(wait)
        if tries.asked_to_wait:
            self._breaker.leave(service, tries.asked_to_wait, got.what)
        # Outside of any handler, so that nothing hangs on to this error.
        raise tries.error(got, service.name)

    def _once(self, wanted: _Wanted[T], key: Key | None) -> tuple[str, T] | Failed:
        """Ask once; what may be asked again is returned, not raised."""
        accept = ", ".join(wanted.service.accepts)
        headers = {"Accept": accept, **wanted.headers}
        question = Question(wanted.asked.url, wanted.asked.method, headers, wanted.asked.body, key)
        try:
            with self._wire.opened(question) as response:
                text = self._judged(response, wanted, key)
        except Failed as failed:
            return failed
        try:
            return text, wanted.of(text)
        except Later as later:
            return Failed(later.what, again="yes", wait=later.seconds)
        except Unusable as error:
            return Failed(f"its answer {error.what}", again="once", remedy=error.remedy)

    def _judged(self, response: httpx.Response, wanted: _Wanted[T], key: Key | None) -> str:
        """Return the text of an answer that came whole and is of the right kind."""
        if response.status_code != 200:
            status, headers = response.status_code, response.headers
            # What says that there is no such thing is an answer, and must have come whole.
            body = self._wire.whole(response) if status == 404 else self._wire.beginning(response)
            raise of_service(status, headers, body, service=wanted.service, key=key, now=self._clock())
        kind, charset = media_type(response.headers.get("content-type", ""))
        page = Failed("answers with a web page in place of data", again="once", remedy=SIGN_IN)
        if not accepted(kind, wanted.service.accepts):
            raise (
                page
                if kind == "text/html"
                else Failed(f"answers with {scrub(kind)[:60]!r} in place of data", again="once")
            )
        body = self._wire.whole(response)
        if looks_like_page(body) and "text/html" not in wanted.service.accepts:
            raise page
        if wanted.text and not framed(response.headers):
            raise Failed("does not say how long its answer is, so that one that is cut is not seen", again="once")
        text = decoded(body, charset)
        if text is None:
            raise Failed(f"answers with what is no {charset[:20] or 'utf-8'} text", again="once")
        # What a service echoes of the key must get neither into the cache nor into a message made of the answer.
        return text if key is None else scrub(text)


def _address(service: Service, path: str, params: Params | None) -> str:
    """Return a request's address; a path never leads out of the service's own."""
    if path.startswith("/") or any(part in (".", "..") for part in unquote(path).split("/")):
        raise ConfigError(f"{path!r} leads out of its address", where=service.name)
    pairs: list[tuple[str, str]] = []
    for name, value in (params or {}).items():
        values = [value] if isinstance(value, str | int) else list(value)
        pairs += [(name, str(v).lower() if isinstance(v, bool) else str(v)) for v in values]
    return service.base + quote(path, safe=_PLAIN) + (f"?{urlencode(pairs)}" if pairs else "")
