"""Answers that come in pages are walked to their end, or there is no answer.

    walk(lambda n: client.get(service, "associations", params={"page": n}, read=page_of))

A total that changes under way, a page that comes twice, one that is empty too early, more or fewer items than promised:
each means that the whole is not to be had. Pages that were kept on different days may be of two releases, so that the
list is then asked for once more from its beginning, passing over what was kept.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from elute.base import files
from elute.validation.online import cache
from elute.validation.online.answers import Unusable

_DAY = 24 * 3600.0


@dataclass(frozen=True)
class Page:
    """One page: its items as the service gave them, of how many in all, on how many pages; None: it does not say."""

    items: Sequence[Any]
    total: int | None
    of_pages: int | None = None


@dataclass(frozen=True)
class _Limits:
    identity: Callable[[Any], object] | None
    items: int
    pages: int


def walk(
    fetch: Callable[[int], Page],
    *,
    identity: Callable[[Any], object] | None = None,
    most_items: int = 1_000_000,
    most_pages: int = 10_000,
) -> list[Any]:
    """Fetch pages 0, 1, … to the end; `identity` tells items apart, so that one that comes twice is noticed."""
    limits = _Limits(identity, most_items, most_pages)
    with cache.together() as kept:
        try:
            found = _walk(fetch, limits)
        except Unusable:
            found = None
    if found is not None and kept.apart <= _DAY:
        return found
    with cache.together(fresh=True) as anew:
        try:
            return _walk(fetch, limits)
        except Unusable:
            cache.forget(kept)
            cache.forget(anew)
            raise


def _walk(fetch: Callable[[int], Page], limits: _Limits) -> list[Any]:
    found: list[Any] = []
    seen: dict[str, int] = {}
    known: set[object] = set()
    first, number = None, 0
    while first is None or not _ended(first, found, number):
        page = fetch(number)
        number += 1
        first = first or page
        _check(page, first, number)
        if not page.items and _open(first):
            return found
        digest = _digest(page.items)
        if (before := seen.setdefault(digest, number)) != number:
            raise Unusable(f"gives page {before} again as page {number}")
        found += page.items
        if limits.identity is not None:
            fresh = {limits.identity(item) for item in page.items}
            if len(fresh) < len(page.items) or fresh & known:
                raise Unusable(f"gives an item twice, the second time on page {number}")
            known |= fresh
        if len(found) > limits.items or number > limits.pages:
            raise Unusable(f"gives more than {limits.items:,} items or {limits.pages:,} pages")
    if first.total is not None and len(found) != first.total:
        raise Unusable(f"promises {first.total:,} items and gives {len(found):,}")
    return found


def _open(first: Page) -> bool:
    """Whether the service says nothing of where its list ends: then an empty page is its end."""
    return first.total is None and first.of_pages is None


def _ended(first: Page, found: list[Any], number: int) -> bool:
    if first.of_pages is not None:
        return number >= max(first.of_pages, 1)
    return first.total is not None and len(found) >= first.total


def _check(page: Page, first: Page, number: int) -> None:
    for name, now, before in (("items", page.total, first.total), ("pages", page.of_pages, first.of_pages)):
        if now != before:
            raise Unusable(f"changes its number of {name} from {before} to {now} on page {number}")
        if now is not None and now < 0:
            raise Unusable(f"promises {now} {name}")
    last = first.of_pages is not None and number >= first.of_pages
    if not page.items and not _open(first) and (first.total or (first.of_pages or 0) > 1):
        raise Unusable(f"gives an empty page {number} before its end")
    if first.of_pages is not None and first.total is None and not last and len(page.items) < len(first.items):
        raise Unusable(f"gives {len(page.items)} items on page {number} and {len(first.items)} on the first")


def _digest(items: Sequence[Any]) -> str:
    return files.digest_bytes(json.dumps(items, sort_keys=True, default=str).encode())
