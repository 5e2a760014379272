"""Waiting in a page whose policy allows no `eval`, which Playwright's own wait_for_function needs from the second look on."""

from __future__ import annotations

import time
from typing import Any

from playwright.sync_api import Page


def until(page: Page, script: str, *, arg: Any = None, seconds: float = 15.0) -> None:
    """Look every tenth of a second whether a script gives something true."""
    end = time.monotonic() + seconds
    while not page.evaluate(script, arg):
        assert time.monotonic() < end, f"not within {seconds:g} seconds: {script}"
        page.wait_for_timeout(100)
