"""The Lab as a person starts it, on a free port of this machine, with a browser that opens it."""

from __future__ import annotations

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from playwright.sync_api import Browser, Page, expect

DESK, TELEPHONE = (1280, 800), (390, 844)
LONG = 120_000  # milliseconds: the machine may be busy


class Served(NamedTuple):
    address: str
    port: int
    folder: Path
    told: Path
    asked: list[str]
    """What the server asked of the network, through the proxy that it was given."""


@contextmanager
def serving(folder: Path, place: Path) -> Iterator[Served]:
    """Start the Lab on a run, and end it as Ctrl-C does; it must have asked nothing of the network."""
    told, asked = place / "told.txt", []
    with socket.socket() as proxy:
        proxy.bind(("127.0.0.1", 0))
        proxy.listen()
        proxy.settimeout(0.01)
        there = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        told_proxy = {
            name: there for kind in ("http_proxy", "https_proxy", "all_proxy") for name in (kind, kind.upper())
        }
        with told.open("wb") as handle:
            process = subprocess.Popen(
                [sys.executable, "-m", "elute", "app", "--results", str(folder)],
                cwd=place,
                stdout=handle,
                stderr=subprocess.STDOUT,
                env={**os.environ, **told_proxy, "no_proxy": "", "OMP_NUM_THREADS": "1"},
            )
        try:
            end = time.monotonic() + 120
            while (found := re.search(r"The Lab is at (http://127\.0\.0\.1:(\d+)) ", told.read_text())) is None:
                assert process.poll() is None, told.read_text()
                assert time.monotonic() < end, told.read_text()
                time.sleep(0.1)
            yield Served(found[1], int(found[2]), folder, told, asked)
            try:
                connection, _ = proxy.accept()
                asked.append(connection.recv(200).decode(errors="replace"))
                connection.close()
            except TimeoutError:
                pass
            process.send_signal(signal.SIGINT)
            assert process.wait(30) == 0, told.read_text()
            said = told.read_text().splitlines()
            assert said[0].startswith("The Lab is at ")
            assert said[-1] == f"The Lab at {found[1]} has ended."
            assert "Traceback" not in told.read_text()
            assert asked == []
        finally:
            process.kill()
            process.wait(10)


def settled(page: Page) -> None:
    """Wait until Streamlit has run the page, and has drawn what came."""
    page.wait_for_function(
        "document.querySelector('[data-testid=stApp]')?.dataset.testScriptState === 'notRunning'"
        " && !document.querySelector('[data-testid=stSkeleton]')",
        timeout=LONG,
    )
    page.wait_for_timeout(700)


def opened(
    browser: Browser, served: Served, size: tuple[int, int], wrong: list[str], *, first: str = "Explore"
) -> Page:
    """Open the Lab at its first page; what the page finds wrong, or asks of other hosts, is written down."""
    page = browser.new_page(viewport={"width": size[0], "height": size[1]})
    page.set_default_timeout(LONG)
    page.on("console", lambda message: wrong.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    own = (served.address, served.address.replace("http", "ws"), "data:", "blob:")
    page.on("request", lambda request: None if request.url.startswith(own) else wrong.append(request.url))
    page.goto(served.address)
    expect(page.get_by_role("heading", name=first, exact=True)).to_be_visible(timeout=LONG)
    settled(page)
    return page


def go(page: Page, name: str) -> None:
    """Choose a page, on a telephone through the list that slides in."""
    small = (page.viewport_size or {"width": 0})["width"] < 500
    if small:
        page.get_by_test_id("stExpandSidebarButton").click()
        page.wait_for_timeout(700)
    page.get_by_role("link", name=name, exact=True).click()
    expect(page.get_by_role("heading", name=name, exact=True)).to_be_visible(timeout=LONG)
    settled(page)
    if small:
        page.mouse.click(375, 10)
        page.wait_for_timeout(700)


def outside(frames: Page) -> int:
    """How far the page is wider than its window."""
    wide: Any = frames.evaluate("document.scrollingElement.scrollWidth - window.innerWidth")
    return int(wide)
