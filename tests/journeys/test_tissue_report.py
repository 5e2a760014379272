"""The report of a tissue run in a real browser: search, sort, tiles, maps; by mouse, keys, on a desk, a telephone, paper."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import polars as pl
import pytest
from playwright.sync_api import Browser, Page, expect
from tests.journeys.waiting import until
from tests.reports.test_tissue_pixels import follow

from elute.analysis.token_maps import safe_name
from elute.reports.tissue.settings import TissueReportConfig
from elute.reports.tissue.write import write_reports

_SPEC = importlib.util.spec_from_file_location("tissue_made", Path(__file__).parents[1] / "reports/tissue_made.py")
assert _SPEC is not None
assert _SPEC.loader is not None
made_up = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = made_up
_SPEC.loader.exec_module(made_up)

DESK, TELEPHONE = (1280, 800), (390, 844)
Open = Callable[..., Page]
expect.set_options(timeout=15_000)  # a busy machine is slow, and no fault


@pytest.fixture
def show(browser: Browser) -> Iterator[Open]:
    """Open a page; anything that it complains of, or fetches, is a fault."""
    faults: list[str] = []
    pages: list[Page] = []

    def show(path: Path, size: tuple[int, int] = DESK, fragment: str = "", **context: Any) -> Page:
        page = browser.new_page(viewport={"width": size[0], "height": size[1]}, **context)
        page.set_default_timeout(30_000)
        page.on("console", lambda m: faults.append(m.text))
        page.on("pageerror", lambda e: faults.append(str(e)))
        page.on("dialog", lambda d: faults.append(d.message) or d.dismiss())
        page.on("request", lambda r: None if re.match("file:|data:|blob:", r.url) else faults.append(r.url))
        page.goto(path.as_uri() + fragment)
        if context.get("java_script_enabled", True):
            page.wait_for_selector("body[data-read]")
        pages.append(page)
        return page

    yield show
    for page in pages:
        assert page.evaluate("document.documentElement.scrollWidth") <= page.evaluate("innerWidth")
        page.close()
    assert faults == []


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report of made-up sections."""
    made = made_up.make_run(tmp_path_factory.mktemp("made") / "breast", side=10)
    write_reports(made.folder, config=TissueReportConfig(), images=made.images)
    return made.folder / "report"


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same with names that would do harm, if they were HTML."""
    made = made_up.make_run(tmp_path_factory.mktemp("made") / "hostile", side=5, hostile=True)
    write_reports(made.folder, config=TissueReportConfig(), images=made.images)
    return made.folder / "report"


def shown(page: Page, name: str) -> list[str]:
    """The first cell of each row that is not hidden."""
    script = "(id) => [...document.getElementById(id).tBodies[0].rows].filter((r) => !r.hidden).map((r) => r.cells[0].textContent)"
    found: list[str] = page.evaluate(script, name)
    return found


def test_a_search_finds_genes_codes_tissue_and_the_address_keeps_it(show: Open, report: Path) -> None:
    page = show(report / "index.html")
    expect(page.locator("#count")).to_have_text("all 6 genes, all 7 codes.")
    page.keyboard.press("/")
    page.keyboard.type("krt19")
    assert shown(page, "genes") == ["KRT19"]
    assert set(shown(page, "codes")) == {"17", "41", "402"}
    expect(page.locator("#count")).to_have_text("1 of 6 genes, 3 of 7 codes.")
    page.reload()
    page.wait_for_selector("body[data-read]")
    assert page.locator("#search").input_value() == "krt19"
    assert shown(page, "genes") == ["KRT19"]
    page.fill("#search", "lymphocytes")
    assert "128" in shown(page, "codes")
    assert shown(page, "genes") == []
    page.fill("#search", "")
    page.select_option("#verdict", "not predicted")
    assert shown(page, "genes") == ["ACTB"]
    page.get_by_role("link", name="ACTB").first.click()
    page.wait_for_selector("body[data-page=gene]")
    page.go_back()
    page.wait_for_selector("body[data-read]")
    assert shown(page, "genes") == ["ACTB"]


@pytest.mark.parametrize(("key", "column"), [("r2", "r2"), ("pearson", "pearson"), ("gene", "gene")])
def test_columns_sort_both_ways(show: Open, report: Path, key: str, column: str) -> None:
    page = show(report / "index.html")
    table = pl.read_parquet(report.parent / "heads/metrics.parquet").sort(column)
    for _ in range(2):
        page.locator(f"#genes [data-sort={key}]").click()
        way = page.locator("#genes th[aria-sort]").get_attribute("aria-sort")
        rising = table["gene"].to_list()
        assert shown(page, "genes") == (rising if way == "ascending" else rising[::-1])
        assert page.locator("#genes th[aria-sort]").count() == 1
    assert f"sort=genes.{key}" in page.url


def test_what_has_no_number_comes_last_either_way(show: Open, hostile: Path) -> None:
    page = show(hostile / "index.html")
    for _ in range(2):
        page.locator("#genes [data-sort=dense_pca_ridge]").click()
        last = page.locator("#genes tbody tr").nth(9).locator(".is-dense_pca_ridge")
        expect(last).to_have_text("not run")


def test_the_way_through_the_report_is_by_links(show: Open, report: Path) -> None:
    page = show(report / "index.html")
    page.get_by_role("link", name="KRT19").first.click()
    expect(page.locator("h1")).to_have_text("KRT19")
    page.get_by_role("link", name="Code 17").click()
    expect(page.locator("h1")).to_have_text("Code 17")
    expect(page.locator("main")).to_contain_text("Where it fires most")
    page.locator("a[rel=next]").click()
    expect(page.locator("h1")).to_have_text("Code 41")
    page.get_by_role("link", name="breast").click()
    expect(page.locator("#count")).to_be_visible()


def test_maps_over_tiles_follow_the_slider_and_go_where_one_points(show: Open, report: Path) -> None:
    page = show(report / "genes/KRT19.html")
    over = page.locator(".shot .over").first
    opacity = "(node) => Number(getComputedStyle(node).opacity)"
    assert over.evaluate(opacity) == pytest.approx(0.45)
    page.locator("#opacity").focus()
    page.keyboard.press("End")
    expect(page.locator("#opacity-told")).to_have_text("100 %")
    assert over.evaluate(opacity) == 1
    page.locator("#grey").check()
    assert "grayscale" in page.locator(".shot .tile").first.evaluate("(node) => getComputedStyle(node).filter")
    page.locator(".shot .frame").first.hover()
    assert over.evaluate(opacity) == 0
    page.mouse.move(2, 2)
    box = over.bounding_box()
    tile = page.locator(".shot .tile").first.bounding_box()
    assert box is not None
    assert box == tile, "a map lies on its tile"


def test_a_tile_opens_large_by_mouse_and_by_keys(show: Open, report: Path) -> None:
    page = show(report / "genes/KRT19.html")
    frame = page.locator(".shot .frame").first
    frame.focus()
    page.keyboard.press("Enter")
    dialog = page.locator("#tile")
    expect(dialog).to_be_visible()
    expect(dialog).to_contain_text("Tiles in which code 17 raises the prediction most: 1 of 8")
    for word in ("sample", "patient or site", "side of the tile", "56 µm", "of 49 patches"):
        expect(dialog).to_contain_text(word)
    page.keyboard.press("ArrowRight")
    expect(dialog).to_contain_text("2 of 8")
    page.keyboard.press("Escape")
    expect(dialog).to_be_hidden()
    page.locator(".shot .frame").nth(3).click()
    expect(dialog).to_contain_text("4 of 8")
    dialog.get_by_role("button", name="Close").click()
    expect(dialog).to_be_hidden()


@pytest.mark.parametrize("size", [DESK, TELEPHONE])
def test_a_tile_stands_once_more_for_its_pixels(
    show: Open, size: tuple[int, int], tmp_path_factory: pytest.TempPathFactory
) -> None:
    made = made_up.make_run(tmp_path_factory.mktemp("made") / "followed", side=4)
    follow(made.folder, "KRT19", (17,))
    write_reports(made.folder, config=TissueReportConfig(), images=made.images)
    page = show(made.folder / "report/genes/KRT19.html", size)
    expect(page.locator(".shot.pixels")).to_have_count(2)
    expect(page.locator(".pixel-key")).to_be_visible()
    shot = page.locator(".shot.pixels").first
    shot.scroll_into_view_if_needed()
    assert shot.locator(".over").bounding_box() == shot.locator(".tile").bounding_box()
    assert "grayscale" in shot.locator(".tile").evaluate("(node) => getComputedStyle(node).filter")
    assert "dashed" in shot.locator(".frame").evaluate("(node) => getComputedStyle(node, '::after').border")
    before = page.locator(".strip").first.locator(".shot")
    assert before.nth(0).locator(".tile").get_attribute("src") == before.nth(1).locator(".tile").get_attribute("src")
    shot.locator(".frame").click()
    dialog = page.locator("#tile")
    for told in ("of it in the pixels", "40 %", "attention-aware LRP"):
        expect(dialog).to_contain_text(told)
    page.keyboard.press("ArrowLeft")
    expect(dialog).to_contain_text("half of the strongest or more")  # the tile with its patches


_INK = """(canvas) => {
  const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
  let n = 0;
  for (let i = 3; i < data.length; i += 4) n += data[i] > 0;
  return n / (canvas.width * canvas.height);
}"""


def test_maps_are_drawn_and_tell_a_samples_numbers(show: Open, report: Path) -> None:
    page = show(report / "genes/COL1A1.html")
    section = page.locator(".section-maps").first
    section.scroll_into_view_if_needed()
    assert section.locator("canvas").count() == 3
    until(page, "document.querySelector('.section-maps canvas').height > 200")
    for canvas in section.locator("canvas").all():
        assert canvas.evaluate(_INK) > 0.3
        assert re.search(r"100 samples, from \S+ to \S+", canvas.get_attribute("aria-label") or "")
    expect(section.locator(".bar")).to_contain_text("µm")
    section.locator(".panels").focus()
    page.keyboard.press("ArrowRight")
    readout = section.locator(".readout")
    frame = pl.read_parquet(report.parent / "heads/predictions.parquet").filter(pl.col("gene") == "COL1A1")
    for key in ("ArrowRight", "ArrowDown", "ArrowLeft", "ArrowUp"):
        before = readout.inner_text()
        page.keyboard.press(key)
        expect(readout).not_to_have_text(before)
        text = readout.inner_text()
        row = frame.filter(pl.col("sample_id") == text.split(" · ")[0]).row(0, named=True)
        numbers = [float(part.split(" ")[1].replace("−", "-")) for part in text.split(" · ")[1:]]
        true = [row["measured"], row["predicted"], row["measured"] - row["predicted"]]
        assert numbers == pytest.approx(true, abs=0.006)
    box = section.locator("canvas").nth(1).bounding_box()
    assert box is not None
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    expect(readout).not_to_have_text(text)


def test_light_and_dark_have_ink_that_can_be_read(show: Open, report: Path) -> None:
    script = """() => {
      const light = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
      const ground = (node) => { for (; node; node = node.parentElement) { const c = getComputedStyle(node).backgroundColor; if (!c.endsWith(", 0)")) return c; } };
      const poor = [];
      for (const node of document.querySelectorAll("main *, header *")) {
        if (node.closest(".frame") || !node.checkVisibility() || ![...node.childNodes].some((c) => c.nodeType === 3 && c.data.trim())) continue;
        const style = getComputedStyle(node);
        const [a, b] = [light(node.namespaceURI.endsWith("svg") ? style.fill : style.color), light(ground(node))].sort((x, y) => y - x);
        if ((a + 0.05) / (b + 0.05) < 4.5) poor.push(`${node.className.baseVal ?? node.className} ${node.textContent.slice(0, 30)}`);
      }
      return poor;
    }"""
    for name in ("index", "genes/KRT19", "codes/17"):
        page = show(report / f"{name}.html", color_scheme="dark")
        grounds = []
        for _ in range(2):
            grounds.append(page.evaluate("getComputedStyle(document.documentElement).backgroundColor"))
            assert page.evaluate(script) == []
            page.locator("#theme").click()
        assert len(set(grounds)) == 2


def test_the_theme_stays_from_page_to_page(show: Open, report: Path) -> None:
    page = show(report / "index.html", color_scheme="light")
    page.locator("#theme").click()
    page.get_by_role("link", name="KRT19").first.click()
    page.wait_for_selector("body[data-page=gene]")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"


def test_paper_is_light_and_has_no_tools(show: Open, report: Path) -> None:
    page = show(report / "genes/KRT19.html", color_scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"
    expect(page.locator("#theme")).to_be_hidden()
    expect(page.locator("#opacity")).to_be_hidden()
    expect(page.locator(".shot .tile").first).to_be_visible()
    page.emulate_media(media="screen")


def test_without_scripts_scores_tiles_and_tables_are_there(show: Open, report: Path) -> None:
    page = show(report / "genes/KRT19.html", java_script_enabled=False)
    expect(page.locator("main")).to_contain_text("The interval lies above every control")
    expect(page.locator(".shot .tile").first).to_be_visible()
    assert "the table has their numbers" in page.content()
    page = show(report / "index.html", java_script_enabled=False)
    expect(page.locator("#controls")).to_be_hidden()
    assert page.locator("#genes tbody tr").count() == 6


@pytest.mark.parametrize("size", [DESK, TELEPHONE])
def test_hostile_names_do_nothing_and_fit(show: Open, hostile: Path, size: tuple[int, int]) -> None:
    names = ["index", "codes/17", *(f"genes/{safe_name(name)}" for name in made_up.HOSTILE)]
    for name in names:
        page = show(hostile / f"{name}.html", size)
        page.wait_for_timeout(100)
        assert "HIT" not in page.title().replace("title='HIT'", "")
        assert page.evaluate("document.querySelectorAll('main img[src=x], main script:not([type])').length") == 0
    page = show(hostile / "index.html", size)
    page.locator(f'a[href="{quote("genes/" + safe_name(made_up.HOSTILE[2]) + ".html")}"]').first.click()
    expect(page.locator("h1")).to_contain_text("תאים")


@pytest.mark.parametrize("size", [DESK, TELEPHONE])
def test_pictures(show: Open, report: Path, size: tuple[int, int], tmp_path: Path) -> None:
    """Words do not run over one another: no cell's text is wider than its cell."""
    folder = Path(os.environ.get("ELUTE_PICTURES", tmp_path))
    for name in ("index", "genes/KRT19", "genes/PGR", "codes/17"):
        page = show(report / f"{name}.html", size)
        page.evaluate(
            "async () => { for (let y = 0; y < document.body.scrollHeight; y += 600) { scrollTo(0, y);"
            " await new Promise((done) => setTimeout(done, 50)); } scrollTo(0, 0); }"
        )
        page.screenshot(path=folder / f"tissue-{name.replace('/', '-')}-{size[0]}.png", full_page=True)
        wide: Any = page.evaluate(
            "[...document.querySelectorAll('td, th, dd, h1, h2, h3, .chip, .verdict, button, #top a, .readout')]"
            ".filter((e) => e.checkVisibility() && e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0)"
            ".map((e) => e.textContent)"
        )
        assert wide == []
