"""The pages about particles in a real browser: on a desk, a telephone, paper; light and dark; with names that would harm."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from playwright.sync_api import Browser, Page, expect
from tests.journeys.waiting import until
from tests.particles.views import joined, views

from elute.particles.evaluating import evaluate
from elute.particles.feature_settings import ParticleFeaturesConfig
from elute.particles.features import find_features
from elute.particles.results import Evaluation
from elute.particles.settings import EvaluationConfig
from elute.particles.table import Joined
from elute.particles.writing_fused import write_fused
from elute.reports.particles import fused_map, wording
from elute.reports.particles.page import NAME, write_page

DESK, TELEPHONE = (1280, 800), (390, 844)
HOSTILE = (
    "<script>document.title='owned'</script>",
    "<img src=x onerror=document.title='owned'>",
    "תאים\u202e",
    "x" * 300,
)
CONFIG = EvaluationConfig(n_folds=3, n_resamples=100, device="cpu", inner_folds=2, attention_epochs=2, embedding_dim=4,
                          fusion_method="attention")  # fmt: skip
FEW = ParticleFeaturesConfig(steps=60, batch_size=64, n_features=12, k=2, permutations=3, least=5, device="cpu")
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
        pages.append(page)
        return page

    yield show
    for page in pages:
        assert page.evaluate("document.documentElement.scrollWidth") <= page.evaluate("innerWidth")
        assert page.title() != "owned"
        page.close()
    assert faults == []


def called(made: Joined, names: tuple[str, ...], sources: tuple[str, str], **more: Any) -> Joined:
    """The same particles, of classes and sources with these names."""
    frame = made.particles.with_columns(label=pl.Series([names[c % len(names)] for c in made.codes.tolist()]))
    return replace(made, names=sources, particles=frame, **more)


def written(found: Evaluation, folder: Path) -> Path:
    places = fused_map.lay_out(found.fused, found.joined.codes, seed=0)
    write_page(folder / NAME, found.plain(), places=places, codes=found.joined.codes, inputs={})
    return folder / NAME


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Evaluation:
    return evaluate(views(150, 3, runs=6, seed=1), CONFIG, tmp_path_factory.mktemp("e"))


@pytest.fixture(scope="module")
def report(found: Evaluation, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return written(found, tmp_path_factory.mktemp("report"))


@pytest.fixture(scope="module")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Names that would do harm if they were HTML; rows paired by label."""
    made = called(views(160, 4, runs=6, seed=2), HOSTILE, (HOSTILE[0], HOSTILE[1]), pairing="label")
    return written(evaluate(made, CONFIG, tmp_path_factory.mktemp("h")), tmp_path_factory.mktemp("hostile"))


@pytest.fixture(scope="module")
def features(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Explorer of features of fused embeddings, in-sample, of classes with such names."""
    folder = tmp_path_factory.mktemp("features")
    rng = np.random.default_rng(3)
    codes = np.tile(np.arange(4), 60)
    mu = (rng.normal(0, 4, (4, 6))[codes] + rng.normal(size=(240, 6))).astype(np.float32)
    made = called(joined([mu], codes, np.arange(240) // 20), HOSTILE, ("a", "b"))
    write_fused(
        folder / "f.h5", made.particles, [(mu, None)], told={"made_of": "a test"}, classes=made.classes, width=6
    )
    find_features(folder / "f.h5", folder / "run", FEW.model_copy(update={"vector": "mu"}))
    return folder / "run"


CONTRAST = """() => {
  const light = (colour) => colour.match(/[\\d.]+/g).slice(0, 3).map((v) => v / 255).map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
    .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
  const ground = (node) => { for (; node; node = node.parentElement) { const c = getComputedStyle(node).backgroundColor; if (!c.endsWith(", 0)")) return c; } };
  const poor = [];
  for (const node of document.querySelectorAll("main *, footer")) {
    if (!node.checkVisibility() || ![...node.childNodes].some((c) => c.nodeType === 3 && c.data.trim())) continue;
    const style = getComputedStyle(node);
    const [a, b] = [light(node.namespaceURI.endsWith("svg") ? style.fill : style.color), light(ground(node))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 4.5) poor.push(`${node.className.baseVal ?? node.className} ${node.textContent.slice(0, 30)}`);
  }
  return poor;
}"""
WIDE = """[...document.querySelectorAll('td, th, dd, h1, h2, .verdict, .lead')]
  .filter((e) => e.checkVisibility() && e.scrollWidth > e.clientWidth + 1 && e.clientWidth > 0).map((e) => e.textContent)"""


@pytest.mark.parametrize("size", [DESK, TELEPHONE])
@pytest.mark.parametrize("which", ["report", "hostile"])
def test_all_of_the_report_can_be_seen_and_read(
    show: Open, which: str, size: tuple[int, int], request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    path: Path = request.getfixturevalue(which)
    grounds = set()
    for scheme in ("light", "dark"):
        page = show(path, size, color_scheme=scheme)
        grounds.add(page.evaluate("getComputedStyle(document.documentElement).backgroundColor"))
        assert page.evaluate(CONTRAST) == []
        assert page.evaluate(WIDE) == []
        folder = Path(os.environ.get("ELUTE_PICTURES", tmp_path))
        page.screenshot(path=folder / f"particles-{which}-{size[0]}-{scheme}.png", full_page=True)
    assert len(grounds) == 2
    heads = page.locator("h2").all_inner_texts()
    assert heads == [
        "All methods, in the same folds", "What is better than what", "Class by class", "Which class is taken for which",
        "Whether its probabilities are right", "The fused space", "How much each source counts", "What this was made of", "How to read this",
    ]  # fmt: skip
    # A mark that lies outside its picture, or a picture outside the page, is not seen: the fusion's above all.
    outside = """() => [...document.querySelectorAll('figure circle')].filter((c) => c.checkVisibility()).filter((c) => {
      const a = c.getBoundingClientRect(); return a.left < 0 || a.right > innerWidth; }).length"""
    assert page.evaluate(outside) == 0
    drawn = page.locator("figure svg").filter(visible=True)
    assert drawn.count() == 6  # methods, questions, classes; confusion, calibration, the map


def test_numbers_in_pictures_and_tables_are_those_found(show: Open, report: Path, found: Evaluation) -> None:
    page = show(report)
    methods = found.plain()["methods"]
    rows = page.get_by_role("group", name="Scores of every method").locator("tbody tr")
    assert rows.count() == len(methods), "controls stand in the table of the fusion"
    for i, one in enumerate(methods.values()):
        told = one["overall"]["map"]
        expect(rows.nth(i)).to_contain_text(f"{wording.three(told['estimate'])} {wording.ranged(told)}")
    chart = page.locator("figure.desk").first
    assert chart.locator("circle").count() == len(methods)
    spots = [circle.bounding_box() for circle in chart.locator("circle").all()]
    places = [spot["x"] for spot in spots if spot is not None]
    values = [one["overall"]["map"]["estimate"] for one in methods.values()]
    assert np.argsort(places).tolist() == np.argsort(values).tolist()
    shares = page.locator("svg[aria-label^='Which class'] rect.cell")
    assert shares.count() == len(found.classes) ** 2
    gates = page.get_by_role("group", name="Mean gates").locator("tbody tr")
    assert gates.count() == len(found.classes) + 1
    expect(page.locator("main")).not_to_contain_text("not evidence")


def test_what_was_paired_by_label_says_so_first(show: Open, hostile: Path) -> None:
    page = show(hostile, TELEPHONE)
    alarm = page.get_by_role("alert")
    expect(alarm).to_contain_text("label-paired: not evidence")
    box = alarm.bounding_box()
    assert box is not None
    assert box["y"] < 844, "on the first screen of a telephone"
    assert page.locator(".verdict.gains").count() == 0
    assert page.evaluate("document.querySelectorAll('main img, main script, svg script').length") == 0
    expect(page.locator("main")).to_contain_text(HOSTILE[0])


def test_on_paper_everything_is_light(show: Open, report: Path) -> None:
    page = show(report, color_scheme="dark")
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == "rgb(255, 255, 255)"


@pytest.mark.parametrize("size", [DESK, TELEPHONE])
def test_features_open_in_the_explorer_with_their_controls(show: Open, features: Path, size: tuple[int, int]) -> None:
    frame = pl.read_parquet(features / "features.parquet")
    best = frame.filter(pl.col("auroc_shown").is_not_null()).sort("auroc_shown", descending=True).row(0, named=True)
    page = show(features / "dashboard.html", size, f"#feature={best['feature']}")
    page.wait_for_selector("body[data-read]")
    expect(page.locator("#mark")).to_contain_text("in-sample: the network had learnt the classes of 240 of these")
    expect(page.locator("#reading")).to_contain_text("Here a cell is a particle")
    panel = page.locator("#panel")
    expect(panel.locator("h2")).to_have_text(f"Feature {best['feature']}")
    expect(panel).to_contain_text("in-sample: the network had learnt the classes of 240 of these")
    expect(panel).to_contain_text("by another seed")
    expect(panel).to_contain_text("A model of random weights")
    expect(panel.get_by_role("group", name="Top cells").locator("tbody tr").first).to_be_attached()
    assert page.evaluate("document.querySelectorAll('main img, main script').length") == 0
    page = show(features / "dashboard.html", size, "#view=about")
    page.wait_for_selector("body[data-read]")
    until(page, "document.querySelector('#about table') !== null")
    told = page.locator("#about table").first
    for control in (
        "features, labels permuted",
        "neurons",
        "principal components",
        "features on random weights",
        "another seed",
    ):
        expect(told).to_contain_text(control)
