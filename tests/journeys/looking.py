"""A report of tissue in a browser, as a person opens it: whole, silent, and without a network."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, Page

DESK, TELEPHONE = (1280, 800), (390, 844)


@contextmanager
def looked(browser: Browser, path: Path, size: tuple[int, int] = DESK) -> Iterator[Page]:
    """Open a page; anything that it complains of, or fetches, or lets run off the side, is a fault."""
    faults: list[str] = []
    page = browser.new_page(viewport={"width": size[0], "height": size[1]})
    page.set_default_timeout(30_000)
    page.on("console", lambda m: faults.append(m.text))
    page.on("pageerror", lambda e: faults.append(str(e)))
    page.on("request", lambda r: None if re.match("file:|data:|blob:", r.url) else faults.append(r.url))
    page.goto(path.as_uri())
    page.wait_for_selector("body[data-read]")
    try:
        yield page
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0], path
        assert faults == [], path
    finally:
        page.close()
