"""Files and folder pages that a database publishes, brought whole.

1. A file comes into a hidden neighbour of its target and gets its name when it is whole: as long as the server says,
   not a web page, and of the digest that is expected, if one is.
2. What was cut off goes on where it ended, if the server says that the file is the same (If-Range); else anew. As long
   as attempts bring something, there is another one.
3. A server that does not say how long a file is is refused: a file that was cut could not be told from a whole one.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urljoin, urlsplit

from elute.base import console, files
from elute.base.errors import ConfigError, DamagedError
from elute.validation.online.content import decoded, media_type
from elute.validation.online.explained import Failed
from elute.validation.online.keys import scrub
from elute.validation.online.part import held
from elute.validation.online.patience import Patience, moment
from elute.validation.online.transfer import Wanted, attempt, persist, refused
from elute.validation.online.wire import Question, Wire, framed


@dataclass(frozen=True)
class Fetched:
    """A file that came whole, and what its server says of it."""

    path: Path
    sha256: str
    size: int
    modified: str = ""
    """When it was last changed there, as 2025-01-16T09:30:00Z; empty if the server does not say."""
    etag: str = ""


def fetch_file(
    url: str,
    target: Path,
    *,
    mirror: str = "",
    told: Callable[[int], object] | None = None,
    web_page: bool = False,
    sha256: str = "",
    size: int | None = None,
    patience: Patience = Patience(),  # noqa: B008  # frozen
    sleep: Callable[[float], None] = time.sleep,
) -> Fetched:
    """Bring a file to `target`; an earlier attempt goes on where it ended.

    `told` hears of bytes as they come (negative if they have to come again); without it progress is shown.
    """
    target = Path(target)
    files.make_folder(target.parent)
    wanted = Wanted(_https(url), size, web_page)
    with _wire(mirror, patience) as wire, held(target) as part, console.progress(target.name, unit="bytes") as bar:
        counted, most = 0, part.recall(url)

        def heard() -> None:
            nonlocal counted
            bar.total = part.told.total
            (told or bar.advance)(part.had - counted)
            counted = part.had

        def brought() -> bool:
            nonlocal most
            more, most = part.had > most, max(most, part.had)
            return more

        heard()
        if not part.whole:
            persist(lambda: attempt(wire, wanted, part, heard=heard), wire, url=url, sleep=sleep, brought=brought)
        heard()
        if sha256 and part.sha256 != sha256.lower():
            what = f"is not what was published: its SHA-256 begins {part.sha256[:12]} and not {sha256[:12]}"
            part.clear()
            raise DamagedError(what, where=scrub(url), remedy="Run the same command again.")
        part.finish()
        seconds = moment(part.told.modified)
        when = "" if seconds is None else datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        return Fetched(target, part.sha256, part.had, when, part.told.etag)


def page(
    url: str,
    *,
    mirror: str = "",
    patience: Patience = Patience(),  # noqa: B008  # frozen
    sleep: Callable[[float], None] = time.sleep,
) -> str:
    """Return the text of a page."""
    with _wire(mirror, patience) as wire:

        def ask() -> str:
            with wire.opened(Question(_https(url), roams=True)) as response:
                if response.status_code != 200:
                    raise refused(wire, response, url)
                body = wire.whole(response)
                if not framed(response.headers):
                    raise Failed("does not say how long it is, so that a cut is not seen", again="once")
                return decoded(body, media_type(response.headers.get("content-type", ""))[1]) or body.decode("latin-1")

        return persist(ask, wire, url=url, sleep=sleep, brought=lambda: False)


def listing(
    url: str,
    pattern: str,
    *,
    mirror: str = "",
    patience: Patience = Patience(),  # noqa: B008  # frozen
    sleep: Callable[[float], None] = time.sleep,
) -> list[str]:
    """Names in a folder's page that a regular expression fits whole, sorted; only what lies directly below counts."""
    url = url if url.endswith("/") else f"{url}/"
    links = _Links()
    links.feed(page(url, mirror=mirror, patience=patience, sleep=sleep))
    names = set()
    for link in links.found:
        try:
            full = urljoin(url, link)
        except ValueError:
            continue
        name = unquote(full.removeprefix(url))
        right = (
            full.startswith(url) and name.isprintable() and not set(name) & set("/\\?#") and name not in ("", ".", "..")
        )
        if right and re.fullmatch(pattern, name):
            names.add(name)
    return sorted(names)


class _Links(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        """Note where a link leads."""
        if tag == "a":
            self.found += [value for name, value in attrs if name == "href" and value]


def _https(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme != "https" or not parts.hostname or "@" in parts.netloc:
        raise ConfigError("is no address to fetch from", where=scrub(url), remedy="It begins with https://")
    return url


@contextmanager
def _wire(mirror: str, patience: Patience) -> Iterator[Wire]:
    wire = Wire(mirror=mirror, patience=patience)
    try:
        yield wire
    finally:
        wire.close()
