"""Requests over the network: one place that opens connections, follows redirects, and bounds what comes.

1. `https://HOST/PATH` is asked of a mirror as MIRROR/HOST/PATH. A key travels encrypted, or to this machine, or not.
2. What asks a service is redirected within its host alone; what fetches a file, and so has no key, over https to any.
3. Bodies are unpacked here, in bounded steps: what the library would unpack has no bound, and it takes a gzip stream
   that was cut for a whole one.
4. Whatever goes wrong is a `Failed`, scrubbed, which says whether it is worth to ask again.
"""

from __future__ import annotations

import ssl
import threading
import time
import weakref
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from http.cookiejar import CookieJar, DefaultCookiePolicy
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING
from urllib.parse import urljoin, urlsplit

from elute.base.console import size
from elute.base.errors import ConfigError, MissingError
from elute.validation.online import explained
from elute.validation.online.explained import Failed
from elute.validation.online.keys import Key, quiet_logs
from elute.validation.online.patience import Patience

if TYPE_CHECKING:
    import httpx

MOVED = (301, 302, 303, 307, 308)
_MOST_MOVES = 5
_STEP = 1 << 20  # bytes that are unpacked at a time
_MOST_SAID = 1 << 16  # bytes of an answer with an error that are looked at
_LOCAL = ("127.0.0.1", "::1", "localhost")


@dataclass(frozen=True)
class Question:
    """What is asked: the address at the real host, and what goes with it."""

    url: str
    method: str = "GET"
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    key: Key | None = None
    roams: bool = False
    """Whether it may be redirected to another host."""


class Wire:
    """Connections, kept open for what is asked next."""

    def __init__(self, *, mirror: str = "", patience: Patience) -> None:
        self.mirror, self.patience = _checked(mirror), patience
        self._client: httpx.Client | None = None
        self._lock = threading.Lock()

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    @contextmanager
    def opened(self, question: Question) -> Iterator[httpx.Response]:
        """Open the answer to a question, redirects followed; its body is read with `pieces` while the block runs."""
        client = self._connected()
        with explained.failures(urlsplit(question.url).netloc):
            for _ in range(_MOST_MOVES):
                response = client.send(self._request(client, question), stream=True)
                try:
                    if response.status_code not in MOVED:
                        yield response
                        return
                    question = self._moved(question, response.status_code, response.headers.get("location", ""))
                finally:
                    response.close()
        raise Failed(f"redirects more than {_MOST_MOVES} times")

    def whole(self, response: httpx.Response) -> bytes:
        """Read a whole answer, unpacked, within the bounds of size and time."""
        data = bytearray()
        until = time.monotonic() + self.patience.whole
        for piece in _plain(response):
            data += piece
            if len(data) > self.patience.most:
                raise Failed(f"answers with more than {size(self.patience.most)}")
            if time.monotonic() > until:
                raise Failed(f"did not end its answer within {self.patience.whole:,g} s", again="yes")
        return bytes(data)

    def beginning(self, response: httpx.Response) -> bytes:
        """Read what comes at once of an answer that is no good, for what it may say."""
        import httpx

        data = bytearray()
        until = time.monotonic() + min(5.0, self.patience.whole)
        with suppress(Failed, httpx.HTTPError):
            for piece in _plain(response):
                data += piece
                if len(data) > _MOST_SAID or time.monotonic() > until:
                    break
        return bytes(data[:_MOST_SAID])

    def _request(self, client: httpx.Client, question: Question) -> httpx.Request:
        url, headers = self._asked(question.url), dict(question.headers)
        if question.key is not None:
            parts = urlsplit(url)
            if parts.scheme != "https" and parts.hostname not in _LOCAL:
                what = f"{question.key.name} would travel without encryption to {parts.hostname}"
                raise ConfigError(what, remedy="Use a mirror whose address begins with https://")
            url, headers = question.key.put(url, headers)
        return client.build_request(question.method, url, headers=headers, content=question.body or None)

    def _asked(self, url: str) -> str:
        """Where a real address is asked for."""
        return f"{self.mirror}/{url.removeprefix('https://')}" if self.mirror else url

    def _moved(self, question: Question, status: int, location: str) -> Question:
        """Return the question at the place to which it was redirected, if it may go there."""
        host = urlsplit(question.url).netloc
        if not location:
            raise Failed("redirects to nowhere", again="once")
        try:
            away = bool(urlsplit(location).scheme or urlsplit(location).netloc)
            new = self._real(urljoin(self._asked(question.url), location), host, moved=away)
            parts = urlsplit(new)
        except ValueError:
            raise Failed("redirects to what is no address", again="once") from None
        if parts.scheme != "https" or not parts.hostname or "@" in parts.netloc:
            raise Failed(f"redirects to {parts.hostname or 'nowhere'}, without encryption: not followed")
        if parts.netloc.lower() != host.lower() and not question.roams:
            raise Failed(f"redirects to {parts.netloc}, another host: not followed", remedy=explained.SIGN_IN)
        if question.method != "GET" and status < 307:
            raise Failed("redirects what was sent to it: not followed")
        return replace(question, url=new)

    def _real(self, url: str, host: str, *, moved: bool) -> str:
        """Return the real address of a place at the mirror; one that knows nothing of mirroring names its own paths."""
        if not self.mirror:
            return url
        if url.startswith(f"{self.mirror}/") and (moved or url.startswith(f"{self.mirror}/{host}/")):
            return "https://" + url.removeprefix(f"{self.mirror}/")
        if moved:
            return url
        parts = urlsplit(url)
        return f"https://{host}{parts.path}" + (f"?{parts.query}" if parts.query else "")

    def _connected(self) -> httpx.Client:
        with self._lock:
            if self._client is None:
                self._client = _client(self.patience, trusted=urlsplit(self.mirror).hostname not in _LOCAL)
                # A client that nobody closes must not leave its connections to the collector of rubbish.
                weakref.finalize(self, self._client.close)
            return self._client


def framed(headers: Mapping[str, str]) -> bool:
    """Whether an answer tells its own end, so that one that was cut is seen to be."""
    chunked = "chunked" in headers.get("transfer-encoding", "").lower()
    return chunked or "content-length" in headers or "gzip" in headers.get("content-encoding", "").lower()


def _client(patience: Patience, *, trusted: bool) -> httpx.Client:
    try:
        import httpx
    except ImportError:
        raise MissingError("httpx is not installed", remedy="Type: pip install httpx") from None

    quiet_logs()
    wait = httpx.Timeout(patience.silence, connect=min(patience.connect, patience.silence))
    try:
        mine = version("elute")
    except PackageNotFoundError:
        mine = "0"
    problem = ""
    try:
        return httpx.Client(
            timeout=wait,
            # A mirror on this machine needs no list of authorities, which takes a while to read: then none is trusted.
            verify=True if trusted else ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
            headers={"User-Agent": f"elute/{mine}", "Accept-Encoding": "gzip"},
            # Many services may hide behind one mirror: what one wants remembered is no other's.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            mounts={f"all://{'[::1]' if host == '::1' else host}": None for host in _LOCAL},
        )
    except ImportError:
        problem = "the proxy that the environment sets needs another package (pip install httpx[socks])"
    except (ValueError, httpx.InvalidURL):
        problem = "the proxy that the environment sets is no address"
    except OSError:
        problem = "the certificates that SSL_CERT_FILE or SSL_CERT_DIR names cannot be read"
    raise ConfigError(problem, remedy="Correct it in the environment.")


def _plain(response: httpx.Response) -> Iterator[bytes]:
    """Give a body as it is unpacked."""
    packed = response.headers.get("content-encoding", "identity").strip().lower()
    if packed in ("gzip", "x-gzip"):
        return _unpacked(response.iter_raw())
    if packed not in ("identity", ""):
        raise Failed(f"answers packed as {packed[:20]!r}, which was not asked for", again="once")
    return response.iter_raw()


def _unpacked(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Unpack a gzip stream in steps, so that a few bytes that stand for very many are noticed in time."""
    unpack = zlib.decompressobj(31)
    try:
        for packed in pieces:
            left = packed
            while left and not unpack.eof:
                yield unpack.decompress(left, _STEP)
                left = unpack.unconsumed_tail
    except zlib.error:
        raise Failed("answers with damaged gzip data", again="yes") from None
    if not unpack.eof:
        raise Failed("cut its answer short", again="yes")


def _checked(mirror: str) -> str:
    mirror = mirror.strip().rstrip("/")
    try:
        parts = urlsplit(mirror)
        right = parts.scheme in ("http", "https") and parts.hostname and not parts.query and not parts.fragment
        right = right and "@" not in parts.netloc and parts.port != 0
    except ValueError:
        right = False
    if mirror and not right:
        raise ConfigError(
            "is no address of a mirror", where="--mirror", remedy="Write https://host or https://host/path"
        )
    return mirror
