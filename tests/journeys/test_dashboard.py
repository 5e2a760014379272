"""The dashboard in a real browser: search, sort, read, go back; by mouse, by keys, on a desk and on a telephone."""

from __future__ import annotations

import importlib.util
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from elute.reports.dashboard import write_dashboard

_SPEC = importlib.util.spec_from_file_location("made_up_run", Path(__file__).parents[1] / "reports" / "made_up_run.py")
assert _SPEC is not None
assert _SPEC.loader is not None
made_up = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(made_up)

DESK, TELEPHONE = (1280, 800), (390, 844)
HOSTILE = made_up.HOSTILE
Open = Callable[..., Page]


@pytest.fixture
def show(browser: Browser) -> Iterator[Open]:
    """Open a page; anything that it complains of, or fetches, is a fault."""
    faults: list[str] = []
    pages: list[Page] = []

    def show(path: Path, size: tuple[int, int] = DESK, fragment: str = "") -> Page:
        page = browser.new_page(viewport={"width": size[0], "height": size[1]})
        page.set_default_timeout(5000)
        page.on("console", lambda m: faults.append(m.text))
        page.on("pageerror", lambda e: faults.append(str(e)))
        page.on("request", lambda r: faults.append(r.url) if not r.url.startswith("file:") else None)
        page.goto(path.as_uri() + fragment)
        pages.append(page)
        return page

    yield show
    for page in pages:
        assert page.evaluate("document.documentElement.scrollWidth") <= page.evaluate("innerWidth")
        assert "owned" not in page.title()
        page.close()
    assert faults == []


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dashboard(made_up.make_run(tmp_path_factory.mktemp("made") / "pbmc")).path


def column(page: Page, n: int) -> list[str]:
    return [text.strip() for text in page.locator(f"#rows tbody td:nth-child({n})").all_inner_texts()]


def test_search_sort_and_filter(show: Open, run: Path) -> None:
    page = show(run)
    expect(page.locator("#count")).to_have_text("Shown: the 100 most frequent of 155 features that fire.")
    expect(page.locator("#top")).to_contain_text("81 % of test rows; as many principal directions: 63 %")
    for words in ("All features, beside controls", "permuted labels", "0.5", "embedding layer", "not run"):
        expect(page.locator("#panel")).to_contain_text(words)
    shares = [float(text.split()[0]) for text in column(page, 2)]
    assert shares == sorted(shares, reverse=True)
    assert len(shares) == 100
    page.keyboard.press("/")
    page.keyboard.type("cd79a")
    found = column(page, 3)
    assert 0 < len(found) < 100
    assert all("CD79A" in text for text in found)
    assert found[0].startswith("CD79A"), "those that it matters most to come first"
    page.locator("[data-sort=auroc]").click()
    expect(page.locator("th[aria-sort=descending]")).to_have_text("AUROC")
    held = [float(text.split()[0]) for text in column(page, 6)]
    assert held == sorted(held, reverse=True)
    page.fill("#search", "")
    page.select_option("#kind", "cell state")
    assert set(column(page, 4)) == {"cell state"}
    page.locator("[data-sort=feature]").click()
    numbers = [int(text) for text in column(page, 1)]
    assert numbers == sorted(numbers)
    page.fill("#search", "no such gene")
    expect(page.locator("#count")).to_contain_text("nothing here has that")


def test_a_feature_shows_what_chose_it_beside_what_did_not(show: Open, run: Path) -> None:
    page = show(run)
    page.locator("#rows tbody tr[data-feature='9']").click()
    panel = page.locator("#panel")
    expect(panel.locator("h2")).to_have_text("Feature 9")
    assert page.url.endswith("#pbmc/9")
    for words in ("z, held out", "z, chosen", "By plain sum", "AUROC", "over donors", "by gene", "total counts"):
        expect(panel).to_contain_text(words)
    assert panel.locator("svg rect").count() > 5
    panel.locator(".links a", has_text="10").first.click()
    expect(panel.locator("h2")).to_have_text("Feature 10")
    page.go_back()
    expect(panel.locator("h2")).to_have_text("Feature 9")
    again = show(run, fragment="#pbmc/16")
    expect(again.locator("#panel h2")).to_have_text("Feature 16")
    lost = show(run, fragment="#pbmc/99999")
    expect(lost.locator("#panel h2")).to_have_text("How to read this")


def test_keys_alone_lead_to_a_feature_and_back(show: Open, run: Path) -> None:
    page = show(run)
    page.keyboard.press("/")
    page.keyboard.type("lst1")
    for key in ("ArrowDown", "ArrowDown", "ArrowUp", "ArrowDown"):
        page.keyboard.press(key)
    wanted = page.locator("#rows tbody tr").nth(1).get_attribute("data-feature")
    assert page.evaluate("document.activeElement.dataset.feature") == wanted
    page.keyboard.press("Enter")
    expect(page.locator("#panel h2")).to_have_text(f"Feature {wanted}")
    expect(page.locator("#panel h2")).to_be_focused()
    page.keyboard.press("Escape")
    assert page.evaluate("document.activeElement.dataset.feature") == wanted
    page.keyboard.press("/")
    page.keyboard.press("Escape")
    expect(page.locator("#search")).to_have_value("")
    assert page.locator("#rows tbody tr").count() == 100
    for control in ("#search", "#kind"):
        assert page.evaluate("s => document.querySelector(s).labels.length", control) == 1


def test_on_a_telephone_the_list_gives_way_to_the_feature(show: Open, run: Path) -> None:
    page = show(run, TELEPHONE)
    row = page.locator("#rows tbody tr").nth(2)
    number = row.get_attribute("data-feature")
    row.click()
    expect(page.locator("#panel h2")).to_have_text(f"Feature {number}")
    expect(page.locator("#list")).to_be_hidden()
    assert page.evaluate("document.documentElement.scrollWidth") <= TELEPHONE[0]
    page.locator("#back").click()
    expect(page.locator("#list")).to_be_visible()
    expect(row).to_be_focused()


@pytest.mark.parametrize("size", [DESK, TELEPHONE])
def test_hostile_names_are_text(show: Open, tmp_path: Path, size: tuple[int, int]) -> None:
    names = {
        "CD79A": HOSTILE,
        "MS4A1": "x" * 10_000,
        "LYZ": "\u202eabc🧬",
        "B cell": HOSTILE,
        "NK cell": "W" * 500,
        "cell": HOSTILE,
    }
    for site in ("blocks.2.hook_mlp_out", f"b#%/{'3'}".replace("/", " ")):
        made_up.make_run(tmp_path / "run" / site, features=30, names=names)
    shutil.copy(tmp_path / "run" / site / "cells.parquet", tmp_path / "run" / "cells.parquet")
    page = show(write_dashboard(tmp_path / "run").path, size)
    page.fill("#search", HOSTILE.lower())
    assert page.locator("#rows tbody tr").count() > 1
    assert page.locator("img").count() == 0
    page.locator("#rows tbody tr").first.click()
    expect(page.locator("#panel")).to_contain_text(HOSTILE)
    assert page.locator("img").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    page.goto(page.url.partition("#")[0])
    before = page.locator("#top").inner_text()
    page.select_option("#site", index=1)
    expect(page.locator("#top")).not_to_have_text(before)
    page.locator("#rows tbody tr").first.click()
    expect(page.locator("#panel h2")).to_contain_text("Feature")


def test_what_was_not_run_says_so(show: Open, tmp_path: Path) -> None:
    folder = made_up.make_run(tmp_path / "run", features=20, donors=False, held_out=False)
    for lost in ("feature_numbers.parquet", "feature_cells.parquet", "evaluation.json", "validation/summary.json"):
        (folder / lost).unlink()
    page = show(write_dashboard(folder).path)
    expect(page.locator("#top")).to_contain_text("variance explainednot run")
    expect(page.locator("#top")).to_contain_text("no donors given")
    expect(page.locator("#panel")).to_contain_text("No cells were held out")
    page.locator("#rows tbody tr").first.click()
    panel = page.locator("#panel")
    expect(panel).to_contain_text("No donors were given: no claim about donors.")
    for heading in ("Numbers of the cells", "Top cells"):
        expect(
            panel.locator("h3", has_text=heading).locator("xpath=following-sibling::*[not(@class='note')][1]")
        ).to_have_text("not run")


@pytest.mark.parametrize("size", [DESK, TELEPHONE])
def test_pictures(show: Open, run: Path, size: tuple[int, int], tmp_path: Path) -> None:
    """Words do not run over one another: no cell's text is wider than its cell."""
    page = show(run, size, "#pbmc/9")
    folder = Path(os.environ.get("ELUTE_PICTURES", tmp_path))
    page.screenshot(path=folder / f"dashboard-{size[0]}.png", full_page=size == TELEPHONE)
    wide: Any = page.evaluate(
        "[...document.querySelectorAll('td, th, dd, h2, h3, .chip')]"
        ".filter((e) => e.offsetParent && e.scrollWidth > e.clientWidth + 1).map((e) => e.textContent)"
    )
    assert wide == []
