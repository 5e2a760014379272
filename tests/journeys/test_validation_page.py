"""The report of a validated run in a real browser: read, search, sort, open, save; by keys, on a telephone, in the dark."""

from __future__ import annotations

import importlib.util
import os
import re
import xml.etree.ElementTree as ET
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from playwright.sync_api import Browser, Page, expect
from playwright.sync_api import TimeoutError as Late

from elute.reports import validation_networks, validation_tree
from elute.reports.validation import write_report

_SPEC = importlib.util.spec_from_file_location(
    "made_up_validation", Path(__file__).parents[1] / "reports" / "test_validation.py"
)
assert _SPEC is not None
assert _SPEC.loader is not None
made_up = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(made_up)

DESK, TELEPHONE = (1280, 800), (390, 844)
HOSTILE = made_up.HOSTILE
# A picture of another's making, with a program in it, which must not run.
PICTURE = (
    '<svg xmlns="http://www.w3.org/2000/svg" width="720" height="90" viewBox="0 0 720 90"><style>text{fill:red}</style>'
    "<script>parent.document.title='owned'</script><text x='9' y='40'>TTN — MYH7</text></svg>"
)
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
        page.on("request", lambda r: None if re.match("file:|data:|blob:", r.url) else faults.append(r.url))
        page.goto(path.as_uri() + fragment)
        if context.get("java_script_enabled", True):
            page.wait_for_selector("body[data-ready]")
        pages.append(page)
        return page

    yield show
    for page in pages:
        if page.locator("body[data-ready]").count():
            assert page.evaluate("document.documentElement.scrollWidth") <= page.evaluate("innerWidth")
        assert page.title() != "owned"
        page.close()
    assert faults == []


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A page with trees and a picture of a network."""
    folder = tmp_path_factory.mktemp("made")
    known = made_up.ontology(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ELUTE_DATA", str(folder / "data"))
        patch.setattr(validation_tree, "ontology_of", lambda _: known)
        patch.setattr(validation_networks, "pictures", lambda _site, _features: {45: PICTURE})
        yield write_report(made_up.make_validated(folder / "pbmc", features=360))


def column(page: Page, n: int) -> list[str]:
    return [text.strip() for text in page.locator(f"#rows tbody td:nth-child({n})").all_inner_texts()]


def test_the_summary_comes_first_and_leads_on(show: Open, run: Path) -> None:
    page = show(run)
    summary = page.locator("#summary")
    expect(page.locator("#features")).to_be_hidden()
    for words in (
        "Reactome 2021-12",
        "By a plain test",
        "Matched lists",
        "Again on other donors",
        "no more than chance gives",
        "not run",
    ):
        expect(summary).to_contain_text(words)
    assert summary.locator("svg").count() == 7, "counts, and two of each of three databases"
    first = summary.locator("[data-name=volcano-reactome] a").first
    number = (first.get_attribute("href") or "").removeprefix("#feature-")
    first.locator("circle").dispatch_event("click")
    expect(page.locator("#panel h2")).to_have_text(f"Feature {number}")
    page.locator("#to-summary").click()
    expect(summary).to_be_visible()
    page.locator("#summary a[href='#source-hpo']").first.click()
    expect(page.locator("#source-hpo h2")).to_be_in_viewport()
    page.go_back()
    page.go_back()
    expect(page.locator("#panel h2")).to_have_text(f"Feature {number}")


def test_search_sort_filter_and_pages(show: Open, run: Path) -> None:
    page = show(run, fragment="#features")
    count = page.locator("#count")
    expect(count).to_have_text("All 339 features that fire; 21 do not.")
    assert len(column(page, 1)) == 50
    expect(page.locator("#at")).to_have_text("1–50 of 339")
    page.locator("[data-sort=feature]").click()
    assert [int(text) for text in column(page, 1)][:3] == [0, 1, 2]
    expect(page.locator("[data-sort=null_p]")).to_have_text("Like genes")
    page.locator("#after").click()
    expect(page.locator("#at")).to_have_text("51–100 of 339")
    assert int(column(page, 1)[0]) == 53
    page.locator("[data-sort=confidence]").click()
    sure = [float(text) for text in column(page, 3)]
    assert sure == sorted(sure, reverse=True)
    expect(page.locator("th[aria-sort=descending]")).to_have_text("Conf.")
    page.fill("#search", "myh7")
    found = column(page, 2)
    assert found
    assert all("MYH7" in text for text in found)
    page.fill("#search", "the inflammasome")
    assert all("the inflammasome" in text for text in column(page, 2))
    page.fill("#search", "158")
    assert column(page, 1)[0] == "158"
    page.fill("#search", "no such thing")
    expect(count).to_contain_text("none has that in its name, genes or significant terms")
    page.fill("#search", "")
    page.select_option("#source", index=1)
    frame = pl.read_parquet(run.parent / "reactome.parquet").filter(pl.col("q") <= 0.05)
    expect(count).to_have_text(f"{frame['feature'].n_unique()} of 339 features.")
    page.select_option("#show", "again")
    held = frame.filter(pl.col("q_shown") <= 0.05)["feature"].n_unique()
    assert int((count.inner_text()).split()[0]) >= held > 0


def test_a_feature_shows_each_number_beside_its_control(show: Open, run: Path) -> None:
    page = show(run, fragment="#feature-45")
    panel = page.locator("#panel")
    expect(panel.locator("h2")).to_have_text("Feature 45")
    frame = pl.read_parquet(run.parent / "reactome.parquet").filter(pl.col("feature") == 45)
    best = frame.sort(pl.max_horizontal("p", "null_p")).row(0, named=True)
    table = panel.locator(".terms", has_text="R-HSA").first
    body = table.locator("tbody").first
    for words in (best["label"], best["term"], f"{best['overlap']} of 50", *best["genes"][:12]):
        expect(body).to_contain_text(words)
    expect(body.locator("td[data-label=q]")).to_contain_text("like genes p ")
    expect(body).to_have_class("passes")
    doubt = frame.filter(pl.col("q") > 0.05, pl.col("q_plain") <= 0.05)["label"].sort().to_list()
    assert doubt
    assert sorted(table.locator("tbody.doubt .term").all_inner_texts()) == doubt
    expect(table.locator("tbody.doubt td[data-label=q]").first).to_contain_text("only by a plain test")
    assert table.locator(".flag").count() == len(doubt)
    expect(panel.locator("figure[data-name=odds-45]")).to_contain_text("only by a plain test")
    assert "p " in body.locator("td[data-label='other donors']").inner_text()
    for words in ("confidence", "cell type", "AUROC 0.87, held out", "interactions", "lists of the same degrees"):
        expect(panel).to_contain_text(words)
    expect(panel).to_contain_text("Not run, so nothing is known: DISGENET, OMIM")
    image = panel.locator("figure[data-name=network-45] img")
    assert image.evaluate("image => image.naturalWidth") == 720
    assert "interactions among its genes" in (image.get_attribute("alt") or "")
    tree = panel.locator("figure[data-name=tree-hpo-45]")
    expect(tree).to_contain_text("Phenotypic abnormality")
    expect(tree).to_contain_text("where the terms above them part")
    page.goto(run.as_uri() + "#feature-16")
    expect(panel).to_contain_text("There is no such feature here that fires.")
    page.goto(run.as_uri() + "#feature-99999")
    expect(panel.locator("h2")).to_have_text("Feature 99999")


def test_every_chart_can_be_saved(show: Open, run: Path, tmp_path: Path) -> None:
    page = show(run, color_scheme="dark", accept_downloads=True)

    def saved(name: str, kind: str) -> Path:
        for last in (False, False, True):
            # On a busy machine drawing takes longer than a browser lets a click count for a download.
            try:
                with page.expect_download(timeout=15_000) as download:
                    page.locator(f"figure[data-name={name}] [data-save={kind}]").click()
                break
            except Late:
                if last:
                    raise
        path = tmp_path / download.value.suggested_filename
        download.value.save_as(path)
        return path

    def picture(path: Path) -> tuple[int, int]:
        data = path.read_bytes()
        assert data[:8] == b"\x89PNG\r\n\x1a\n"
        return int.from_bytes(data[16:20], "big"), int.from_bytes(data[20:24], "big")

    for name in ("counts", "volcano-reactome", "dots-reactome"):
        path = saved(name, "svg")
        assert path.name == f"elute-{name}.svg"
        root = ET.fromstring(path.read_text())  # noqa: S314 our own page's
        assert not root.findall(".//{*}a")
        ground = root.find("{*}rect")
        assert ground is not None
        assert ground.get("fill") == "#ffffff", "dark ink on white, though the page is dark"
        assert picture(saved(name, "png"))[0] == 3 * round(float(root.get("width") or 0))
    page.goto(run.as_uri() + "#feature-45")
    for name in ("odds-45", "tree-hpo-45", "network-45"):
        assert ET.fromstring(saved(name, "svg").read_text()).tag.endswith("svg")  # noqa: S314 our own page's
        assert picture(saved(name, "png"))[1] > 100


def test_keys_alone_lead_to_a_feature_and_back(show: Open, run: Path) -> None:
    page = show(run)
    page.keyboard.press("/")
    expect(page.locator("#search")).to_be_focused()
    page.keyboard.type("ttn")
    for key in ("ArrowDown", "ArrowDown", "ArrowUp", "ArrowDown"):
        page.keyboard.press(key)
    wanted = page.evaluate("document.activeElement.textContent")
    assert wanted == column(page, 1)[1]
    page.keyboard.press("Enter")
    expect(page.locator("#panel h2")).to_have_text(f"Feature {wanted}")
    expect(page.locator("#panel h2")).to_be_focused()
    page.keyboard.press("Escape")
    expect(page.locator(f"tr[data-feature='{wanted}'] a")).to_be_focused()
    page.keyboard.press("/")
    page.keyboard.press("Escape")
    expect(page.locator("#search")).to_have_value("")
    following = page.locator("#panel [rel=next]").inner_text()
    assert following.startswith("Next")


def test_what_a_screen_reader_is_told(show: Open, run: Path) -> None:
    page = show(run, fragment="#feature-45")
    for control in ("#search", "#source", "#show"):
        assert page.evaluate("s => document.querySelector(s).labels.length", control) == 1
    told: Any = page.evaluate(
        """() => ({
          nameless: [...document.querySelectorAll('button, a')].filter((e) => !(e.ariaLabel || e.textContent.trim())).length,
          pictures: [...document.querySelectorAll('figure svg, figure img')].filter((e) => !(e.ariaLabel || e.alt)).length,
          tables: [...document.querySelectorAll('table')].filter((e) => !e.caption).length,
          heads: [...document.querySelectorAll('thead th')].filter((e) => e.scope !== 'col').length,
          language: document.documentElement.lang,
          twice: [...document.querySelectorAll('[id]')].length - new Set([...document.querySelectorAll('[id]')].map((e) => e.id)).size,
        })"""
    )
    assert told == {"nameless": 0, "pictures": 0, "tables": 0, "heads": 0, "language": "en", "twice": 0}
    assert page.locator("[aria-current=page]").all_inner_texts() == ["Features"]
    assert page.locator("#count").get_attribute("aria-live") == "polite"


def test_on_a_telephone_the_list_gives_way_to_the_feature(show: Open, run: Path) -> None:
    page = show(run, TELEPHONE, "#features")
    row = page.locator("#rows tbody tr").nth(2)
    number = row.get_attribute("data-feature")
    row.click()
    expect(page.locator("#panel h2")).to_have_text(f"Feature {number}")
    expect(page.locator("#list")).to_be_hidden()
    page.locator("#back").click()
    expect(page.locator("#list")).to_be_visible()
    expect(row.locator("a")).to_be_focused()


def test_without_scripts_the_summary_is_read(show: Open, run: Path) -> None:
    page = show(run, java_script_enabled=False)
    expect(page.locator("#summary")).to_contain_text("matched lists 2.1 (0.1–5.1)")
    expect(page.locator("noscript .alarm")).to_be_visible()
    expect(page.locator("#features")).to_be_hidden()


@pytest.mark.parametrize("size", [DESK, TELEPHONE])
def test_hostile_names_are_text(
    show: Open, tmp_path: Path, size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ELUTE_DATA", str(tmp_path / "data"))
    names = {
        "MYH7": HOSTILE,
        "TNNT2": "x" * 3000,
        "TTN": "\u202eabc🧬",
        "LMNA": "שלום " * 20,
        made_up.TERMS[0]: HOSTILE,
        made_up.TERMS[1]: "W" * 3000,
        "title": f"{HOSTILE} {'V' * 400}",
        "why": HOSTILE,
    }
    folder = made_up.make_validated(tmp_path / f"run {HOSTILE.replace('/', '')}", features=60, terms=12, names=names)
    page = show(write_report(folder), size)
    expect(page.locator("#summary")).to_contain_text(HOSTILE)
    assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    page.locator("#to-features").click()
    page.fill("#search", HOSTILE.lower())
    assert page.locator("#rows tbody tr").count() > 1
    page.locator("#rows tbody tr").first.click()
    expect(page.locator("#panel")).to_contain_text(HOSTILE)
    page.fill("#search", "") if size == DESK else page.locator("#back").click()
    for number in (0, 27):
        page.goto(page.url.partition("#")[0] + f"#feature-{number}")
        expect(page.locator("#panel h2")).to_have_text(f"Feature {number}")
        assert page.evaluate("document.documentElement.scrollWidth") <= size[0]
    assert page.locator("img").count() == 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("size", [DESK, TELEPHONE])
@pytest.mark.parametrize("view", ["summary", "features", "feature-45"])
def test_pictures(show: Open, run: Path, size: tuple[int, int], tmp_path: Path, scheme: str, view: str) -> None:
    """Words do not run over one another, and can be read: no text is wider than its box, none is faint."""
    page = show(run, size, f"#{view}", color_scheme=scheme)
    folder = Path(os.environ.get("ELUTE_PICTURES", tmp_path))
    page.screenshot(path=folder / f"validation-{view}-{size[0]}-{scheme}.png", full_page=True)
    wide: Any = page.evaluate(
        "[...document.querySelectorAll('td, th, dd, h1, h2, h3, .chip, figcaption, .note, p')]"
        ".filter((e) => e.checkVisibility() && !e.closest('caption') && !e.classList.contains('what') && e.scrollWidth > e.clientWidth + 1)"
        ".map((e) => e.textContent)"
    )
    assert wide == []
    over: Any = page.evaluate(
        """() => [...document.querySelectorAll('figure svg')].filter((e) => e.checkVisibility()).flatMap((svg) => {
          const { x, width } = svg.viewBox.baseVal;
          return [...svg.querySelectorAll('text')].filter((t) => !t.hasAttribute('transform')).filter((t) => {
            const box = t.getBBox();
            return box.x < x - 1 || box.x + box.width > x + width + 1;
          }).map((t) => t.textContent);
        })"""
    )
    assert over == []
    faint: Any = page.evaluate(
        """() => {
          const light = (text) => {
            const [r, g, b] = text.match(/[\\d.]+/g).slice(0, 3).map((v) => (v / 255 <= 0.03928 ? v / 255 / 12.92 : ((v / 255 + 0.055) / 1.055) ** 2.4));
            return 0.2126 * r + 0.7152 * g + 0.0722 * b;
          };
          const ground = (e) => {
            for (let at = e; at; at = at.parentElement) {
              const colour = getComputedStyle(at).backgroundColor;
              if (!/, 0\\)$/.test(colour)) return colour;
            }
            return getComputedStyle(document.documentElement).backgroundColor;
          };
          const words = [...document.querySelectorAll('td, th, dd, dt, h1, h2, h3, a:not(svg a), .note, .below, .dim, .flag, p, summary, figcaption, svg text')];
          return words.filter((e) => e.checkVisibility() && e.textContent.trim() && !e.matches(':disabled')).filter((e) => {
            const style = getComputedStyle(e);
            const [a, b] = [light(e.namespaceURI.endsWith('svg') ? style.fill : style.color), light(ground(e))];
            return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < 4.5;
          }).map((e) => e.textContent.slice(0, 40));
        }"""
    )
    assert faint == []
