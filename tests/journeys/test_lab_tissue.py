"""The Lab on a run of tissue: from a gene to its codes, tiles and sections, and other codes explained, in a browser."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from playwright.sync_api import Browser, Page, expect
from tests.journeys.lab_served import DESK, LONG, TELEPHONE, Served, go, opened, outside, serving, settled
from tests.tissue.test_pipeline import planned
from tests.tissue.tiles_made import write_files

from elute.base import run as records
from elute.tissue.pipeline import run_tissue

TABS = ("Scores", "Codes", "Tiles", "Sections")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    place = tmp_path_factory.mktemp("lab")
    (place / "runs").mkdir()
    config = write_files(place)
    crp = {"gene": ("RED1", "BLUE1"), "curve_samples": 0}
    run_tissue(planned(config, place / "runs" / "mine", crp=crp, controls={"controls": "standard"}))
    with serving(place / "runs" / "mine", place) as lab:
        yield lab


def choose(page: Page, label: str, option: str) -> None:
    page.get_by_role("combobox", name=label, exact=False).first.click()
    page.get_by_role("option", name=option, exact=True).click()
    settled(page)


def tab(page: Page, name: str) -> None:
    page.get_by_role("tab", name=name, exact=True).click()
    page.wait_for_timeout(700)


@pytest.mark.parametrize("size", [DESK, TELEPHONE])
def test_a_gene_from_its_scores_to_its_sections(
    served: Served, browser: Browser, size: tuple[int, int], tmp_path: Path
) -> None:
    pictures = Path(os.environ.get("ELUTE_PICTURES", tmp_path))
    wrong: list[str] = []
    page = opened(browser, served, size, wrong, first="Tissue")
    choose(page, "Gene", "RED1")
    for name in TABS:
        tab(page, name)
        expect(page.get_by_test_id("stException")).to_have_count(0)
        expect(page.get_by_test_id("stAlert")).to_have_count(0)
        assert outside(page) <= 0, name
        panel = page.get_by_role("tabpanel").filter(visible=True)
        if name == "Tiles":
            images = panel.locator("img")
            refs = pl.read_parquet(served.folder / "refs" / "RED1.parquet").filter(
                kind="relmax", target="sum", sign="+"
            )
            expect(images.first).to_be_visible(timeout=LONG)
            assert images.count() in set(refs["code"].value_counts()["count"])
            assert all(width >= 160 for width in images.evaluate_all("(all) => all.map((each) => each.naturalWidth)"))
        else:
            expect(panel.locator(".vega-embed canvas, .vega-embed svg").first).to_be_visible(timeout=LONG)
        page.screenshot(path=pictures / f"lab-tissue-{name.lower()}-{size[0]}.png", full_page=True)
    assert wrong == []
    page.close()


def test_pages_of_cells_are_not_offered(served: Served, browser: Browser) -> None:
    page = opened(browser, served, DESK, [], first="Tissue")
    names = page.get_by_test_id("stSidebarNav").get_by_role("link").all_inner_texts()
    assert names == ["Tissue", "Enrich my genes", "Train monitor"]
    go(page, "Train monitor")
    expect(page.get_by_text("training has ended", exact=False).first).to_be_visible(timeout=LONG)
    page.close()


def test_other_codes_are_explained_and_cancelled(served: Served, browser: Browser) -> None:
    wrong: list[str] = []
    page = opened(browser, served, DESK, wrong, first="Tissue")
    choose(page, "Gene", "FLAT")
    expect(page.get_by_text("Not explained yet.", exact=True)).to_be_visible(timeout=LONG)
    page.get_by_role("button", name="Explain", exact=True).click()
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect(page.get_by_text("Cancelled.")).to_be_visible(timeout=LONG)
    asked = page.get_by_role("textbox", name="Codes: topN", exact=False)
    asked.fill("top4")
    asked.press("Enter")
    settled(page)
    page.get_by_role("button", name="Explain", exact=True).click()
    expect(page.get_by_text("Explained already", exact=False)).to_be_visible(timeout=LONG)
    assert "FLAT" in records.read(served.folder)["stages"]["crp_relmax"]["summary"]["genes"]
    tab(page, "Tiles")
    expect(page.get_by_role("tabpanel").filter(visible=True).locator("img").first).to_be_visible(timeout=LONG)
    assert wrong == []
    page.close()
