"""The Explorer at full size: how large its file is, what writing it takes, and how long one waits in a browser.

A made-up run of 16,384 features and 100,000 cells, with every table that a run has, is written twice: with a sample of
20,000 cells, and with all. Maps are computed in the first writing and kept; CPU seconds of both are told. Each page
is opened in headless Chromium, several times over, and the page's own marks are read: from the start of loading to the
list painted, from a keystroke to its answer painted, from a click to a feature painted, from the choice of a colour to
all cells painted (by software: without a GPU). Medians, and the slowest.

    python benchmarks/explorer.py [--features 16384] [--cells 100000] [--folder DIR] [--rounds 5] [--no-browser]
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
RESULT = Path(__file__).parent / "results" / "explorer.json"
FULL = (16_384, 100_000)
BUDGETS = {
    "file_MB": {"sample": 12.0, "all cells": 40.0},
    "first list": 500.0, "search": 50.0, "open": 100.0, "recolour": 100.0,
}  # fmt: skip
WORDS = ("CD79A", "monocyte", "process of lyz", "417")
PATIENCE = 180.0  # seconds
FLAGS = ["--no-sandbox", "--disable-background-networking", "--no-first-run", "--force-color-profile=srgb"]
WRITE = """
import json, resource, sys, time
from pathlib import Path
from elute.reports.explorer.write import write_explorer
wall, cpu = time.perf_counter(), time.process_time()
made = write_explorer(Path(sys.argv[1]), all_cells=sys.argv[2] == "all cells")
peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6
print(json.dumps({"bytes": made.summary["bytes"], "cells": made.summary["cells"], "cpu_s": time.process_time() - cpu,
                  "wall_s": time.perf_counter() - wall, "peak_GB": peak}))
"""


def make(folder: Path, features: int, cells: int) -> None:
    """The run, unless it lies there."""
    if (folder / "run.json").exists():
        return
    sys.path.insert(0, str(ROOT))
    from tests.reports.explorer_made import make_run

    make_run(folder, features=features, cells=cells, genes=8000, donors=12, types=24, tokens=64, slots=1)


def write(folder: Path, what: str, *, maps: bool) -> dict[str, Any]:
    """Write the page in a process of its own; with `maps` those that were kept go first."""
    if maps:
        for kept in folder.glob("map_*.parquet"):
            kept.unlink()
    command = [sys.executable, "-c", WRITE, str(folder), what]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=7200, cwd=ROOT)
    told: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return told


@contextmanager
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS)
        yield browser
        browser.close()


class Opened:
    """The page in a tab, and the marks that it sets."""

    def __init__(self, browser: Any, path: Path, fragment: str = "") -> None:
        self.tab = browser.new_page(viewport={"width": 1280, "height": 800})
        self.tab.set_default_timeout(120_000)
        self.faults: list[str] = []
        self.tab.on("pageerror", lambda error: self.faults.append(str(error)))
        self.tab.goto(path.as_uri() + fragment)

    def count(self, mark: str) -> int:
        found: int = self.tab.evaluate("(name) => performance.getEntriesByName(name).length", mark)
        return found

    def until(self, mark: str, before: int = 0) -> None:
        """Wait for one more mark; the page's policy allows no waiting inside it."""
        end = time.monotonic() + PATIENCE
        while self.count(mark) <= before:
            if time.monotonic() > end or self.faults:
                raise RuntimeError(f"{mark} did not come: {self.faults or 'nothing is said'}")
            self.tab.wait_for_timeout(20)

    def after(self, mark: str, act: Callable[[], object]) -> float:
        """Do something, and return how long the page says that it took, in ms."""
        before = self.count(mark)
        act()
        self.until(mark, before)
        took: float = self.tab.evaluate("(name) => performance.getEntriesByName(name).at(-1).duration", mark)
        return took

    def close(self) -> None:
        self.tab.close()
        if self.faults:
            raise RuntimeError(f"the page failed: {self.faults[0]}")


def first_lists(browser: Any, path: Path, rounds: int) -> list[float]:
    """From the start of loading to the list painted, each time in a new tab."""
    found = []
    for _ in range(rounds):
        page = Opened(browser, path)
        page.until("elute:first-list")
        found.append(page.tab.evaluate("performance.getEntriesByName('elute:first-list')[0].duration"))
        page.close()
    return found


def searches(page: Opened) -> list[float]:
    """Each keystroke of a few searches."""
    found = []
    for word in WORDS:
        page.tab.fill("#search", "")
        found += [page.after("elute:search", lambda letter=letter: page.tab.type("#search", letter)) for letter in word]
    page.tab.fill("#search", "")
    return found


def opened(page: Opened, features: int, rounds: int) -> list[float]:
    """Features far from one another, so that each is in a block that was not read yet."""
    found = []
    for i in range(2 * rounds):
        number = (i * 2 + 1) * features // (4 * rounds)
        page.tab.fill("#search", "")
        page.after("elute:search", lambda number=number: page.tab.fill("#search", f"#{number}"))
        page.tab.wait_for_timeout(50)
        found.append(page.after("elute:open", lambda: page.tab.press("#search", "Enter")))
    return found


def recoloured(browser: Any, path: Path, features: int, rounds: int) -> list[float]:
    """All cells by one feature after another, each in a block that was not read yet; then by a label."""
    page = Opened(browser, path, "#view=map&side=cells")
    page.until("elute:recolour")
    found = []
    for i in range(2 * rounds):
        number = (i * 2 + 1) * features // (4 * rounds)
        found.append(page.after("elute:recolour", lambda number=number: colour(page, f"feature:{number}")))
    found.append(page.after("elute:recolour", lambda: colour(page, "label:donor")))
    page.close()
    return found


def colour(page: Opened, what: str) -> None:
    page.tab.evaluate("(what) => { location.hash = `view=map&side=cells&color=${what}`; }", what)


def in_browser(path: Path, features: int, rounds: int) -> dict[str, dict[str, float]]:
    with chromium() as browser:
        times = {"first list": first_lists(browser, path, rounds)}
        page = Opened(browser, path)
        page.tab.wait_for_selector("body[data-read]")
        times["search"] = searches(page)
        times["open"] = opened(page, features, rounds)
        page.close()
        times["recolour"] = recoloured(browser, path, features, rounds)
    return {name: {"median_ms": statistics.median(t), "worst_ms": max(t), "times": len(t)} for name, t in times.items()}


def show(result: dict[str, Any]) -> None:
    for what, told in result["pages"].items():
        size, most = told["bytes"] / 1e6, BUDGETS["file_MB"][what]  # type: ignore[index]
        took = f"{told['cpu_s']:.0f} CPU s ({told['again_cpu_s']:.0f} with maps kept), {told['peak_GB']:.1f} GB"
        print(f"{what}: {told['cells']:,} cells, {size:.1f} MB (at most {most:.0f}), written in {took}")
        for name, times in told.get("browser", {}).items():
            print(f"  {name:<11} {times['median_ms']:7.1f} ms, worst {times['worst_ms']:7.1f} of {times['times']}"
                  f" (at most {BUDGETS[name]:.0f})")  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--features", type=int, default=FULL[0])
    parser.add_argument("--cells", type=int, default=FULL[1])
    parser.add_argument("--folder", type=Path, default=None, help="where the run lies, or is made and left")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--no-browser", action="store_true")
    parser.add_argument("--keep-maps", action="store_true", help="do not lay out again what lies there")
    given = parser.parse_args()
    root = Path(tempfile.mkdtemp(prefix="explorer-")) if given.folder is None else given.folder
    try:
        make(root / "run", given.features, given.cells)
        result: dict[str, Any] = {"features": given.features, "cells": given.cells, "pages": {}}
        for what in ("sample", "all cells"):
            told = write(root / "run", what, maps=not given.keep_maps)
            told["again_cpu_s"] = write(root / "run", what, maps=False)["cpu_s"]
            if not given.no_browser:
                told["browser"] = in_browser(root / "run" / "dashboard.html", given.features, given.rounds)
            result["pages"][what] = told
    finally:
        if given.folder is None:
            shutil.rmtree(root, ignore_errors=True)
    show(result)
    if (given.features, given.cells) == FULL:
        RESULT.parent.mkdir(exist_ok=True)
        RESULT.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()
