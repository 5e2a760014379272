"""What journeys share: the program as people start it, and a real browser."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, sync_playwright

Elute = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def elute(tmp_path: Path) -> Elute:
    """Run the program in an empty folder, as a newcomer would."""

    def run(*words: object, code: int = 0, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "elute", *map(str, words)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=timeout)
        assert done.returncode == code, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
        return done

    return run


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Chromium, headless; absent, the test is skipped, unless ELUTE_REQUIRE_BROWSER is set."""
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        message = "no Chromium here: install the package chromium"
        if os.environ.get("ELUTE_REQUIRE_BROWSER"):
            pytest.fail(message)
        pytest.skip(message)
    flags = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=flags)
        yield chromium
        chromium.close()
