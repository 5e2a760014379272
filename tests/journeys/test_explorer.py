"""The Explorer in a real browser: search, sort, filter, read, compare; by mouse, by keys, on a desk, a telephone, paper."""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from playwright.sync_api import Browser, Page, expect
from tests.journeys.waiting import until

from elute.reports.explorer.write import write_explorer

_SPEC = importlib.util.spec_from_file_location("explorer_made", Path(__file__).parents[1] / "reports/explorer_made.py")
assert _SPEC is not None
assert _SPEC.loader is not None
made_up = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = made_up
_SPEC.loader.exec_module(made_up)

DESK, TELEPHONE = (1280, 800), (390, 844)
FDR = 0.05
SOURCES = ("go", "hpo", "reactome")
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
        page.wait_for_selector("body[data-read]")
        pages.append(page)
        return page

    yield show
    for page in pages:
        assert page.evaluate("document.documentElement.scrollWidth") <= page.evaluate("innerWidth")
        page.close()
    assert faults == []


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of 300 features: more than fit into sight, and into one block of details."""
    folder = made_up.make_run(tmp_path_factory.mktemp("made") / "pbmc", features=300, cells=240)
    table = pl.read_parquet(folder / "features.parquet")
    later = (pl.col("feature") * 7 % 13).cast(pl.Float64).alias("a_later_stage")
    table.with_columns(later).write_parquet(folder / "features.parquet")
    return write_explorer(folder).path


@pytest.fixture(scope="module")
def features(run: Path) -> pl.DataFrame:
    """The table that the page was made of."""
    return pl.read_parquet(run.parent / "features.parquet")


@pytest.fixture(scope="module")
def significant(run: Path) -> pl.DataFrame:
    """Features and terms at the rate, of all databases."""
    parts = [pl.read_parquet(run.parent / "validation" / f"{name}.parquet") for name in SOURCES]
    named = [
        part.select("feature", "term", "label", "q", source=pl.lit(name))
        for part, name in zip(parts, SOURCES, strict=True)
    ]
    return pl.concat(named).filter(pl.col("q") <= FDR)


def shown(page: Page) -> list[int]:
    """The numbers of all features of the list, in its order: it is scrolled from first to last."""
    script = """async () => {
      const rows = document.getElementById("rows");
      const found = [];
      for (rows.scrollTop = 0; ; rows.scrollTop += rows.clientHeight - 60) {
        await new Promise((done) => requestAnimationFrame(() => setTimeout(done)));
        for (const row of document.querySelectorAll("#body .row")) found[Number(row.dataset.at)] = Number(row.querySelector("a").textContent);
        if (rows.scrollTop + rows.clientHeight >= rows.scrollHeight - 1) return found;
      }
    }"""
    return page.evaluate(script)


def count(page: Page) -> int:
    """How many features the page says it shows."""
    said = page.locator("#count").inner_text()
    return int(re.search(r"[\d,]+", said)[0].replace(",", ""))


def test_all_features_are_in_the_list_and_few_in_the_page(show: Open, run: Path, features: pl.DataFrame) -> None:
    page = show(run)
    alive = int(features["alive"].sum())
    expect(page.locator("#count")).to_have_text(f"All 300 features, of which {alive} fire.")
    assert 10 < page.locator("#body .row").count() < 40
    assert page.get_attribute("#rows", "aria-rowcount") == "301"
    found = shown(page)
    assert sorted(found) == list(range(300))
    assert len(found) == 300
    sure = features["name_confidence"].to_list()
    order = [sure[number] for number in found if sure[number] is not None]
    assert order == pytest.approx(sorted(order, reverse=True), abs=5e-4), "the surest names come first"
    assert all(sure[number] is None for number in found[len(order) :])
    expect(page).to_have_title("pbmc: features")
    for name in ("elute:first-list",):
        assert page.evaluate("name => performance.getEntriesByName(name).length", name) == 1


@pytest.mark.parametrize(
    ("key", "column"),
    [("feature", "feature"), ("frequency", "frequency"), ("auroc", "auroc_shown"), ("stability", "stability")],
)
def test_every_column_sorts_both_ways_and_nothing_comes_last(
    show: Open, run: Path, features: pl.DataFrame, key: str, column: str
) -> None:
    page = show(run)
    values = features[column].to_list()
    for _ in range(2):
        page.locator(f"[data-sort={key}]").click()
        way = page.locator(f".is-{key}[role=columnheader]").get_attribute("aria-sort")
        found = shown(page)
        here = [values[number] for number in found]
        known = [value for value in here if value is not None]
        assert here[: len(known)] == known, "what has no value comes last"
        rising = known if way == "ascending" else known[::-1]
        assert all(a <= b * 1.01 + 1e-3 for a, b in pairwise(rising)), "but for what the page rounds"
        assert len(found) == 300
    assert "sort=" in page.url


def test_a_column_of_a_later_stage_can_be_shown_and_sorted(show: Open, run: Path, features: pl.DataFrame) -> None:
    page = show(run)
    page.locator("#columns summary").click()
    page.get_by_role("checkbox", name="a later stage").check()
    expect(page.locator(".is-a_later_stage[role=columnheader]")).to_be_visible()
    assert "a_later_stage" in page.url
    page.keyboard.press("Escape")
    page.locator("[data-sort=a_later_stage]").click()
    values = features["a_later_stage"].to_list()
    found = [values[number] for number in shown(page)]
    assert found == sorted(found, reverse=True)


def test_a_search_finds_genes_types_terms_names_and_numbers(
    show: Open, run: Path, features: pl.DataFrame, significant: pl.DataFrame
) -> None:
    page = show(run)
    genes = pl.read_parquet(run.parent / "feature_genes.parquet")
    genes = genes.filter((pl.col("rank") <= 50) | (pl.col("rank_raw") <= 25))  # those that the page holds
    holds = set(genes.filter(pl.col("symbol").str.to_lowercase().str.contains("cd79a"))["feature"])
    page.keyboard.press("/")
    page.keyboard.type("Cd79A")
    expect(page.locator("#body .row").first).to_contain_text("gene CD79A, no. 1")
    by_genes = set(shown(page))
    named = features.filter(pl.col("name").fill_null("").str.to_lowercase().str.contains("cd79a"))["feature"]
    of_terms = significant.filter(pl.col("label").str.to_lowercase().str.contains("cd79a"))["feature"]
    assert by_genes == holds | set(named) | set(of_terms)
    assert page.locator("#body .row mark").count() == page.locator("#body .row").count(), "the reason is shown for each"
    page.fill("#search", "plasma cell")
    told = features.filter(pl.col("cell_type").fill_null("") == "plasma cell")["feature"].to_list()
    assert set(told) <= set(shown(page))
    label = significant.filter(~pl.col("label").is_in(features["name"].drop_nulls().implode()))["label"][0]
    page.fill("#search", label)
    assert set(significant.filter(pl.col("label").str.contains(label, literal=True))["feature"]) <= set(shown(page))
    expect(page.locator("#body .row").first).to_contain_text("term")
    page.fill("#search", "#217")
    assert shown(page)[0] == 217
    expect(page.locator("#body .row").first).to_contain_text("its number")
    known = genes.filter(pl.col("symbol") == "MS4A1")
    page.fill("#search", known["gene"][0])
    expect(page.locator("#body .row").first).to_contain_text(f"gene MS4A1 ({known['gene'][0]})")
    assert set(shown(page)) == set(known["feature"])
    page.fill("#search", "cd79a ms4a1")
    both = holds & set(genes.filter(pl.col("symbol") == "MS4A1")["feature"])
    assert both <= set(shown(page))
    assert count(page) < 300
    page.fill("#search", "nothing at all has this")
    expect(page.locator("#count")).to_contain_text("0 of 300 features: none has that")
    assert page.evaluate("performance.getEntriesByName('elute:search').length") > 4


def test_filters_agree_with_the_tables(
    show: Open, run: Path, features: pl.DataFrame, significant: pl.DataFrame
) -> None:
    page = show(run)
    alive = set(features.filter("alive")["feature"])
    page.check("#filter-alive")
    assert set(shown(page)) == alive
    page.check("#filter-named")
    sure = set(features.filter(pl.col("name_confidence") > 0.5)["feature"])
    assert set(shown(page)) == alive & sure
    page.uncheck("#filter-named")
    page.check("#filter-sig")
    assert set(shown(page)) == set(significant["feature"])
    page.select_option("#filter-lib", "hpo")
    of_hpo = set(significant.filter(pl.col("source") == "hpo")["feature"])
    assert set(shown(page)) == of_hpo
    assert len(of_hpo) > 3
    page.select_option("#filter-kind", "cell state")
    told = set(features.filter(pl.col("kind") == "cell state")["feature"])
    assert set(shown(page)) == of_hpo & told
    again = show(run, fragment=page.url.partition("#")[1] + page.url.partition("#")[2])
    assert shown(again) == shown(page), "the address is the view"
    page.click("#clear")
    assert count(page) == 300
    level = features["cell_type"].drop_nulls()[0]
    page.select_option("#filter-type", level)
    assert set(shown(page)) == set(features.filter(pl.col("cell_type") == level)["feature"])


def test_a_feature_stands_beside_its_controls(show: Open, run: Path, features: pl.DataFrame) -> None:
    page = show(run)
    number = features.filter("alive").sort("auroc_shown", descending=True)["feature"][0]
    page.fill("#search", str(number))
    page.locator("#body .row").first.click()
    panel = page.locator("#panel")
    expect(panel.locator("h2")).to_have_text(f"Feature {number}")
    expect(panel.locator("h2")).to_be_focused()
    row = features.row(int(number), named=True)
    for words in ("fires in rows", "By specificity", "By plain sum", "AUROC by cell type", "mean activation by donor",
                  "What databases say", "Top cells", "Nearest by direction", "Fires together", "random weights"):  # fmt: skip
        expect(panel).to_contain_text(words)
    expect(panel.locator(".badges")).to_contain_text(f"{row['auroc_shown']:.2f}")
    expect(panel.locator(".badges")).to_contain_text(f"cosine {row['stability']:.2f}")
    genes = pl.read_parquet(run.parent / "feature_genes.parquet").filter(pl.col("feature") == number)
    first = genes.filter(pl.col("rank") == 1)["symbol"][0]
    expect(panel.locator("figure[data-name^='genes-'] svg").first).to_contain_text(first)
    near = panel.locator("h3", has_text="Nearest by direction").locator("xpath=following::ul[1]//a").first
    expect(near).to_contain_text(str(row["near"][0]))
    near.click()
    expect(panel.locator("h2")).to_have_text(f"Feature {row['near'][0]}")
    page.go_back()
    expect(panel.locator("h2")).to_have_text(f"Feature {number}")
    assert page.evaluate("performance.getEntriesByName('elute:open').length") == 1


def test_figures_and_lists_leave_the_page(show: Open, run: Path, features: pl.DataFrame) -> None:
    number = features.filter(pl.col("alive"))["feature"][0]
    page = show(run, fragment=f"#feature={number}")
    genes = pl.read_parquet(run.parent / "feature_genes.parquet").filter(pl.col("feature") == number)
    listed = genes.filter(pl.col("rank").is_not_null()).sort("rank")["symbol"].to_list()
    page.evaluate("navigator.clipboard.writeText = (text) => { window.copied = text; return Promise.resolve(); }")
    page.get_by_role("button", name=re.compile("Copy .* specific")).click()
    expect(page.locator("#copied")).to_have_text("Copied.")
    copied = page.evaluate("window.copied").split("\n")
    assert copied == listed[: len(copied)]
    assert len(copied) >= 20
    figure = page.locator("figure[data-name^='genes-']").first
    with page.expect_download() as got:
        figure.get_by_role("button", name=re.compile("TSV")).click()
    lines = Path(got.value.path()).read_text().splitlines()
    assert lines[0].split("\t")[:2] == ["gene", "rank"]
    assert [line.split("\t")[0] for line in lines[1:6]] == listed[:5]
    with page.expect_download() as got:
        figure.get_by_role("button", name=re.compile("SVG")).click()
    drawn = Path(got.value.path()).read_text()
    assert drawn.startswith("<svg")
    assert 'fill="#1f6fb2"' in drawn, "its marks carry their colours"
    assert got.value.suggested_filename == f"elute-genes-{number}.svg"


def test_the_address_leads_anywhere_and_nowhere_harmful(show: Open, run: Path) -> None:
    page = show(run, fragment="#feature=4&view=about")
    expect(page.locator("#about h2")).to_contain_text("About pbmc")
    page.locator("#views a", has_text="Features").click()
    expect(page.locator("#panel h2")).to_have_text("Feature 4")
    page.go_back()
    expect(page.locator("#about")).to_be_visible()
    for hostile in (
        "#feature=1e3&site=__proto__&view=constructor&sort=__proto__&f=alive,constructor&q=%E0%A4%A&cols=__proto__",
        "#feature=999999999999999999&with=:::&type=<img src=x onerror=alert(1)>&kind=%00&lib=toString&sort=-toString",
        "#" + "q=" + "x" * 50_000,
        "#&&&===%%%#?#=",
    ):
        again = show(run, fragment=hostile)
        assert again.locator("#list").is_visible()
        expect(again.locator("#fault")).to_be_hidden()
    lost = show(run, fragment="#feature=88888")
    expect(lost.locator("#panel")).to_contain_text("There is no such feature.")


def test_keys_alone_lead_to_a_feature_and_back(show: Open, run: Path) -> None:
    page = show(run)
    page.keyboard.press("/")
    expect(page.locator("#search")).to_be_focused()
    page.keyboard.type("cd79a")
    for key in ("ArrowDown", "ArrowDown", "ArrowDown", "ArrowUp"):
        page.keyboard.press(key)
    active = page.get_attribute("#rows", "aria-activedescendant")
    assert active == "row-1"
    number = page.locator(f"#{active} a").inner_text()
    page.keyboard.press("Enter")
    expect(page.locator("#panel h2")).to_have_text(f"Feature {number}")
    expect(page.locator("#panel h2")).to_be_focused()
    page.keyboard.press("ArrowRight")
    expect(page.locator("#panel h2")).not_to_have_text(f"Feature {number}")
    page.keyboard.press("ArrowLeft")
    expect(page.locator("#panel h2")).to_have_text(f"Feature {number}")
    page.keyboard.press("Escape")
    expect(page.locator("#panel")).to_be_hidden()
    expect(page.locator("#rows")).to_be_focused()
    page.keyboard.press("End")
    last = page.locator(f"#{page.get_attribute('#rows', 'aria-activedescendant')}")
    expect(last).to_be_in_viewport()
    page.keyboard.press("Home")
    for _ in range(2):
        page.keyboard.press("ArrowUp")
    expect(page.locator("#search")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator("#search")).to_have_value("")
    page.keyboard.press("Escape")
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    page.keyboard.press("Escape")
    expect(page.locator("#help")).to_be_hidden()


def test_what_a_screen_reader_is_told(show: Open, run: Path) -> None:
    page = show(run)
    grid = page.get_by_role("grid", name="Features")
    expect(grid).to_be_visible()
    assert grid.get_by_role("columnheader").count() == int(grid.get_attribute("aria-colcount"))
    assert page.locator("#count").get_attribute("aria-live") == "polite"
    for control in ("#search", "#filter-type", "#filter-kind", "#filter-lib", "#sort", "#filter-alive"):
        assert page.evaluate("s => document.querySelector(s).labels.length", control) == 1
    unnamed = page.evaluate(
        "[...document.querySelectorAll('button')].filter((b) => !b.innerText.trim() && !b.ariaLabel).length"
    )
    assert unnamed == 0
    page.locator("#body .row").nth(1).click()
    expect(page.locator("#body .row[aria-selected=true]")).to_have_count(1)
    for picture in page.locator("#panel svg[role=img]").all():
        assert len(picture.get_attribute("aria-label")) > 10


def test_on_a_telephone_the_list_gives_way_to_the_feature(show: Open, run: Path) -> None:
    page = show(run, TELEPHONE)
    assert page.locator("#body .row").count() < 30
    page.mouse.wheel(0, 9000)
    until(page, "[...document.querySelectorAll('#body .row')].some((row) => Number(row.dataset.at) > 60)")
    row = page.locator("#body .row").nth(5)
    number = row.locator("a").inner_text()
    row.click()
    expect(page.locator("#panel h2")).to_have_text(f"Feature {number}")
    expect(page.locator("#list")).to_be_hidden()
    page.get_by_role("button", name="Close").click()
    expect(page.locator("#list")).to_be_visible()
    expect(page.locator("#body .row[data-active]")).to_be_in_viewport()
    assert page.locator("#body .row[data-active] a").inner_text() == number
    page.select_option("#sort", "frequency")
    expect(page.locator("#direction")).to_contain_text("largest first")


@pytest.mark.parametrize("size", [DESK, TELEPHONE])
def test_hostile_text_is_text_everywhere(show: Open, tmp_path: Path, size: tuple[int, int]) -> None:
    folder = made_up.make_run(
        tmp_path / made_up.HOSTILE.replace("/", ""), hostile=True, sites=2, features=60, cells=120
    )
    page = show(write_explorer(folder).path, size)
    page.fill("#search", made_up.HOSTILE)
    page.locator("#body .row").first.click()
    expect(page.locator("#panel h2")).to_contain_text("Feature")
    expect(page.locator("body")).to_contain_text(made_up.HOSTILE)
    for fragment in (
        "#view=about",
        "#view=compare&feature=3&with=4",
        "#view=compare&feature=3&with=s1:4",
        "#site=s1&feature=5",
    ):
        page.goto(page.url.partition("#")[0] + fragment)
        page.wait_for_timeout(300)
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert page.locator("main img, main script, header img").count() == 0


def test_paper_has_rows_one_after_another_in_ink_on_white(show: Open, run: Path) -> None:
    page = show(run, fragment="#theme=dark")
    assert page.evaluate("document.documentElement.dataset.theme") == "dark"
    page.emulate_media(media="print")
    expect(page.locator("html")).to_have_attribute("data-theme", "light")
    expect(page.locator("#controls")).to_be_hidden()
    until(page, "document.querySelectorAll('#body .row').length === 200")
    tops = page.evaluate("[...document.querySelectorAll('#body .row')].map((row) => row.getBoundingClientRect().top)")
    assert all(a < b for a, b in pairwise(tops))
    page.emulate_media(media="screen")
    expect(page.locator("html")).to_have_attribute("data-theme", "dark")
    page.goto(page.url.partition("#")[0] + "#feature=3")
    expect(page.locator("#panel h2")).to_have_text("Feature 3")
    assert len(page.pdf()) > 20_000


@pytest.mark.parametrize("theme", ["dark", "light"])
def test_both_themes_can_be_read(show: Open, run: Path, theme: str) -> None:
    page = show(run, color_scheme="light" if theme == "dark" else "dark")
    page.locator("#theme").click()
    assert f"theme={theme}" in page.url
    page.locator("#body .row").nth(2).click()
    expect(page.locator("#panel h2")).to_be_visible()
    script = """() => {
      const light = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map(Number).map((v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
      const ground = (node) => { for (; node; node = node.parentElement) { const c = getComputedStyle(node).backgroundColor; if (!c.endsWith(", 0)")) return c; } };
      const poor = [];
      for (const node of document.querySelectorAll("main *, header *")) {
        if (!node.checkVisibility() || ![...node.childNodes].some((c) => c.nodeType === 3 && c.data.trim())) continue;
        const style = getComputedStyle(node);
        const [a, b] = [light(node.namespaceURI.endsWith("svg") ? style.fill : style.color), light(ground(node))].sort((x, y) => y - x);
        if ((a + 0.05) / (b + 0.05) < 4.5) poor.push(`${node.className.baseVal ?? node.className} ${node.textContent.slice(0, 30)}`);
      }
      return poor;
    }"""
    assert page.evaluate(script) == []


def test_two_features_side_by_side(show: Open, run: Path) -> None:
    page = show(run, fragment="#feature=3&view=compare")
    compare = page.locator("#compare")
    expect(compare).to_contain_text("Most alike by their first genes")
    other = compare.locator(".links a").first
    number = other.inner_text().split()[0]
    other.click()
    genes = pl.read_parquet(run.parent / "feature_genes.parquet").filter(pl.col("rank").is_not_null())
    lists = [set(genes.filter(pl.col("feature") == n)["symbol"]) for n in (3, int(number))]
    expect(compare.locator("h4", has_text="Both").first).to_have_text(f"Both ({len(lists[0] & lists[1])})")
    expect(compare).to_contain_text("by chance")
    assert f"with={number}" in page.url
    picker = compare.locator(".picker").nth(1)
    picker.locator("input").fill("cd79a")
    picker.locator(".answers button").first.click()
    expect(compare.locator("h3 a").nth(1)).not_to_have_text(number)


def test_about_tells_what_was_held_against_what(show: Open, run: Path) -> None:
    about = show(run, fragment="#view=about").locator("#about")
    for words in (
        "random weights",
        "By chance",
        "Gene Ontology",
        "Licences of the sources",
        "How to read this",
        "cells",
        "donors",
    ):
        expect(about).to_contain_text(words)


def test_a_damaged_page_says_so(show: Open, run: Path, tmp_path: Path, browser: Browser) -> None:
    text = run.read_text()
    at = text.index('id="block-s0-features">') + 200
    (tmp_path / "broken.html").write_text(text[:at] + "AAAA" + text[at + 4 :])
    page = browser.new_page()
    page.goto((tmp_path / "broken.html").as_uri())
    expect(page.locator("#fault")).to_contain_text("damaged: write the page again")
    page.close()


@pytest.mark.parametrize("size", [DESK, TELEPHONE])
def test_pictures(show: Open, run: Path, size: tuple[int, int], tmp_path: Path) -> None:
    """Words do not run over one another: no cell's text is wider than its cell."""
    folder = Path(os.environ.get("ELUTE_PICTURES", tmp_path))
    for name, fragment in {
        "list": "",
        "feature": "#feature=4",
        "compare": "#view=compare&feature=4&with=9",
        "about": "#view=about",
    }.items():
        page = show(run, size, fragment)
        page.screenshot(path=folder / f"explorer-{name}-{size[0]}.png", full_page=size == TELEPHONE)
        wide: Any = page.evaluate(
            "[...document.querySelectorAll('td, th, dd, h2, h3, .chip, .badge, button, #views a')]"
            ".filter((e) => e.checkVisibility() && e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0)"
            ".map((e) => e.textContent)"
        )
        assert wide == []
