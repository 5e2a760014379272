"""One attempt after another to bring a file, each going on where the last one ended."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import urlsplit

from elute.base import console
from elute.validation.online.content import looks_like_page, media_type
from elute.validation.online.explained import SIGN_IN, Failed
from elute.validation.online.keys import scrub
from elute.validation.online.part import Part, Told
from elute.validation.online.patience import Patience
from elute.validation.online.refused import refusal
from elute.validation.online.tries import Tries
from elute.validation.online.wire import Question, Wire

if TYPE_CHECKING:
    import httpx

T = TypeVar("T")
_AGAIN = "Run the same command again: what came is kept."
_HEAD = 512  # bytes that are looked at before any is kept
_LEAST = 1 << 16  # bytes that come in the time in which an answer must be whole, or the line is dead
_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+)")


@dataclass(frozen=True)
class Wanted:
    """A file as it is published."""

    url: str
    size: int | None
    web_page: bool


def persist(
    act: Callable[[], T], wire: Wire, *, url: str, sleep: Callable[[float], None], brought: Callable[[], bool]
) -> T:
    """Do it until it succeeds or patience ends; `brought` says whether an attempt that failed brought something."""
    tries = Tries(wire.patience, later=_AGAIN)
    while True:
        got = _tried(act)
        if not isinstance(got, Failed):
            return got
        wait = tries.wait(got, progress=brought())
        if wait is None:
            break
        console.detail(f"{scrub(url)}: {got.what}; asked again in {wait:.1f} s")
        sleep(wait)
    # Outside of any handler: the library's errors quote addresses, and an address may hold a key.
    raise tries.error(got, scrub(url))


def _tried(act: Callable[[], T]) -> T | Failed:
    try:
        return act()
    except Failed as failed:
        return failed


def refused(wire: Wire, response: httpx.Response, url: str) -> Exception:
    """Say what a status means that a server gives for a file."""
    body = wire.beginning(response)
    return refusal(response.status_code, response.headers, body, where=scrub(url), now=time.time())


def attempt(wire: Wire, wanted: Wanted, part: Part, *, heard: Callable[[], object]) -> None:
    """Bring the rest of a file, or all of it; `heard` is called whenever there is more or less of it."""
    headers = {"Accept-Encoding": "identity"}
    resumes = part.had > 0 and bool(part.told.mark) and part.told.total is not None
    if resumes:
        headers |= {"Range": f"bytes={part.had}-", "If-Range": part.told.mark}
    with wire.opened(Question(wanted.url, headers=headers, roams=True)) as response:
        if resumes and response.status_code in (206, 416):
            if not _goes_on(response, part):
                part.clear()
                raise Failed("gives another part of the file than was asked for", again="yes")
        elif response.status_code == 200:
            part.begin(_described(response, wanted))
        else:
            raise refused(wire, response, wanted.url)
        for piece in _steady(_looked_at(response, wanted, begins=part.had == 0), wire.patience):
            if part.told.total is not None and part.had + len(piece) > part.told.total:
                raise Failed(f"sends more than the {part.told.total:,} bytes that it told of", again="once")
            part.write(piece)
            heard()
    if part.told.total is not None and not part.whole:
        raise Failed(f"cut the file short at {part.had:,} of {part.told.total:,} bytes", again="yes")


def _goes_on(response: httpx.Response, part: Part) -> bool:
    """Whether an answer with a part of a file is the part that was asked for, of the same file."""
    found = _RANGE.fullmatch(response.headers.get("content-range", "").strip())
    etag = response.headers.get("etag", "").strip()[:200]
    same = not etag or not part.told.etag or etag == part.told.etag
    return found is not None and same and (int(found[1]), int(found[3])) == (part.had, part.told.total)


def _described(response: httpx.Response, wanted: Wanted) -> Told:
    """What a server says of a file of which it gives all; what cannot be the file is refused."""
    headers = response.headers
    packed = headers.get("content-encoding", "identity").strip().lower()
    # Servers call a .gz file gzip-encoded, and mean the file as it is.
    if packed not in ("identity", "") and not urlsplit(wanted.url).path.endswith((".gz", ".tgz")):
        raise Failed(f"sends the file packed as {packed[:20]!r}, which was not asked for", again="once")
    told = Told.by(headers, wanted.url)
    if told.total is None and "chunked" not in headers.get("transfer-encoding", "").lower():
        raise Failed("does not say how long the file is, so that a cut is not seen", again="once")
    if wanted.size is not None and told.total is not None and told.total != wanted.size:
        raise Failed(f"has a file of {told.total:,} bytes there, and not the {wanted.size:,} that were published")
    return told


def _looked_at(response: httpx.Response, wanted: Wanted, *, begins: bool) -> Iterator[bytes]:
    """Give the pieces of a body; its beginning is held back until it is seen to be no web page."""
    head, looking = b"", begins and not wanted.web_page
    called = media_type(response.headers.get("content-type", ""))[0]
    for piece in response.iter_raw():
        head += piece
        if looking and (len(head) < _HEAD or _is_page(head, called)):
            if len(head) < _HEAD:
                continue
            break
        looking = False
        yield head
        head = b""
    if looking and _is_page(head, called):
        raise Failed("gives a web page in place of the file", again="once", remedy=SIGN_IN)
    if head:
        yield head


def _is_page(head: bytes, called: str) -> bool:
    """Whether a body is a web page: by its beginning, for some servers call every file one."""
    marked = head.lstrip()[:1] == b"<" and not head.lstrip().startswith(b"<?xml")
    return looks_like_page(head) or (marked and called in ("text/html", "application/xhtml+xml"))


def _steady(pieces: Iterator[bytes], patience: Patience) -> Iterator[bytes]:
    """Give up on a line that is open and brings next to nothing."""
    since, came = time.monotonic(), 0
    for piece in pieces:
        yield piece
        came += len(piece)
        if (now := time.monotonic()) - since > patience.whole:
            if came < _LEAST:
                raise Failed("sends next to nothing", again="yes")
            since, came = now, 0
