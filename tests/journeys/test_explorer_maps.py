"""The Explorer's maps in a real browser: colour, lasso, keys, fingers, with a graphics card's program and without one."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Locator, Page, expect
from tests.journeys.explorer_maps_made import TYPES, make
from tests.journeys.waiting import until
from tests.reports.explorer_made import make_run

from elute.reports.explorer.write import write_explorer

pytestmark = pytest.mark.browser
DESK, TELEPHONE = (1280, 800), (390, 844)
HOSTILE = "<img src=x onerror=document.title='owned'>"
MARGIN = 18  # pixels around the points of a map that shows all
# A program that draws in the card's stead counts as a card: else the page would not use it.
WEBGL = """const asked = WebGL2RenderingContext.prototype.getParameter;
WebGL2RenderingContext.prototype.getParameter = function (name) {
  const told = asked.call(this, name);
  return typeof told === 'string' && /swiftshader/i.test(told) ? 'a card' : told;
};"""
NO_WEBGL = """const kinds = HTMLCanvasElement.prototype.getContext;
HTMLCanvasElement.prototype.getContext = function (kind, ...more) {
  return kind === 'webgl2' ? null : kinds.call(this, kind, ...more);
};"""
Open = Callable[..., Page]
expect.set_options(timeout=15_000)  # a busy machine is slow, and no fault


@pytest.fixture
def show(browser: Browser) -> Iterator[Open]:
    """Open maps; anything that the page complains of, or fetches, is a fault."""
    faults: list[str] = []
    pages: list[Page] = []

    def show(path: Path, fragment: str = "", *, size: tuple[int, int] = DESK, script: str = "", **more: Any) -> Page:
        page = browser.new_page(viewport={"width": size[0], "height": size[1]}, **more)
        page.set_default_timeout(30_000)
        if script:
            page.add_init_script(script)
        page.on("console", lambda m: None if "GPU stall" in m.text else faults.append(m.text))
        page.on("pageerror", lambda e: faults.append(str(e)))
        page.on("request", lambda r: None if re.match("file:|data:|blob:", r.url) else faults.append(r.url))
        page.goto(f"{path.as_uri()}#view=map{fragment}")
        page.wait_for_selector("body[data-ready]")
        page.wait_for_selector(".map-legend > *", state="attached")
        pages.append(page)
        return page

    yield show
    for page in pages:
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        assert page.title() != "owned"
        page.close()
    assert faults == []


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    path = tmp_path_factory.mktemp("maps") / "dashboard.html"
    return path, make(path)


def pane(page: Page, side: str) -> Locator:
    return page.locator(f".map-pane[data-side={side}]")


def on_screen(page: Page, side: str, points: Any) -> Any:
    """Where points of a map that shows all lie on the screen."""
    box = pane(page, side).locator(".map-points").bounding_box()
    assert box is not None
    low, high = np.nanmin(points, axis=0), np.nanmax(points, axis=0)
    long = (high - low).max()
    wide, tall = (high - low) / long
    scale = min((box["width"] - 2 * MARGIN) / wide, (box["height"] - 2 * MARGIN) / tall)
    left, top = (box["width"] - scale * wide) / 2, (box["height"] - scale * tall) / 2
    units = np.stack([points[:, 0] - low[0], high[1] - points[:, 1]], axis=1) / long
    return np.array([box["x"] + left, box["y"] + top]) + scale * units


def lasso(page: Page, middle: Any, radius: float) -> None:
    """Draw around a place, with Shift held."""
    turn = np.linspace(0, 2 * np.pi, 25)
    path = middle + radius * np.stack([np.cos(turn), np.sin(turn)], axis=1)
    page.keyboard.down("Shift")
    page.mouse.move(*path[0])
    page.mouse.down()
    for place in path[1:]:
        page.mouse.move(*place)
    page.mouse.up()
    page.keyboard.up("Shift")


def state(page: Page) -> dict[str, str]:
    return dict(page.evaluate("Object.fromEntries(new URLSearchParams(location.hash.slice(1)))"))


def choose(page: Page, text: str) -> None:
    """Colour the cells by what is typed, and taken by Enter."""
    page.locator("#map-color").focus()
    page.keyboard.type(text)
    expect(page.locator("#map-color-list [aria-selected=true]")).to_be_visible()
    page.keyboard.press("Enter")


def recoloured(page: Page, what: str) -> None:
    until(page, "what => performance.getEntriesByName('elute:recolour').at(-1)?.detail.what === what", arg=what)


def test_cells_are_coloured_by_a_feature_a_gene_and_a_label(show: Open, made: tuple[Path, dict[str, Any]]) -> None:
    path, told = made
    page = show(path)
    cells, legend = pane(page, "cells"), pane(page, "cells").locator(".map-legend")
    expect(cells.locator("h2")).to_have_text("Cells 600 of 1,800")
    assert [re.sub(r"\s+", " ", text) for text in legend.locator(".map-group").all_inner_texts()] == [f"{name} 75" for name in TYPES]  # fmt: skip
    expect(pane(page, "features").locator(".map-group").first).to_contain_text("cell state")
    choose(page, "feature 20")
    assert state(page)["color"] == "feature:20"
    codes = told["codes"][:, 10]
    fires = int((codes > 0).sum())
    expect(legend).to_contain_text(
        f"Above 0 in {fires} of 600 ({100 * fires / 600:.0f} %) cells shown; highest {codes.max() * 12 / 255:.3g}."
    )
    expect(legend).to_contain_text("AUROC 0.61 on cells that did not choose it (0.66 on those that did); by chance 0.5")
    mean = codes[told["label"] == 2].mean() * 12 / 255
    expect(legend.locator("summary")).to_contain_text(f"Highest in T cell CD8: mean {mean:.3g}")
    legend.locator("summary").click()
    first = legend.locator("tbody tr").first
    expect(first).to_contain_text(f"{100 * (codes[told['label'] == 2] > 0).mean():.0f} %")
    assert (
        page.get_by_role("application").nth(1).get_attribute("aria-label") == "Map of 600 cells, coloured by Feature 20"
    )
    expect(page.locator(".map-aside[role=status]")).to_contain_text(
        "coloured by Feature 20. marks T cell CD8. Above 0 in"
    )
    choose(page, "g3")
    assert state(page)["color"] == "gene:G3"
    expect(legend).to_contain_text("Shown is: The value is log(1 + counts per 10,000).")
    choose(page, "donor")
    assert state(page)["color"] == "label:donor"
    counts = np.bincount(told["donor"])
    expect(legend.locator(".map-group").first).to_contain_text(str(counts.max()))
    choose(page, "sum of")
    expect(legend.locator(".map-ends")).to_contain_text("≤")
    page.reload()
    expect(page.locator("#map-color")).to_have_value("Sum of counts")
    names = page.evaluate("performance.getEntriesByName('elute:recolour').map((one) => one.detail.what)")
    assert "label:total" in names


def test_features_are_coloured_by_any_column(show: Open, made: tuple[Path, dict[str, Any]]) -> None:
    path, told = made
    page = show(path, "&tint=module")
    legend = pane(page, "features").locator(".map-legend")
    expect(legend).to_contain_text("none")
    page.locator("#map-tint").select_option("stability")
    assert state(page)["tint"] == "stability"
    expect(legend.locator("summary")).to_have_text("Highest: feature 118, 0.99")
    offered = page.locator("#map-tint option").evaluate_all("all => all.map((one) => one.value)")
    assert {"kind", "module", "name_confidence", "frequency", "cell_type", "auroc", "alive"} <= set(offered)
    assert not {"feature", "top_genes"} & set(offered)
    places = on_screen(page, "features", np.where(told["share"][:, None] > 0, told["spots"], np.nan))
    page.mouse.move(*places[10])
    tip = pane(page, "features").locator(".map-tip")
    expect(tip).to_contain_text("Feature 20")
    expect(tip).to_contain_text("marks T cell CD8")
    page.mouse.click(*places[10])
    expect(page.locator("#panel h2").first).to_contain_text("Feature 20")
    assert {"feature": "20", "color": "feature:20", "view": "map"}.items() <= state(page).items()
    expect(page.locator("#map-color")).to_have_value("Feature 20")
    expect(pane(page, "cells").locator(".map-points")).to_be_visible()


def test_a_lasso_of_cells_lists_their_features(show: Open, made: tuple[Path, dict[str, Any]]) -> None:
    path, told = made
    page = show(path)
    places = on_screen(page, "cells", told["places"])
    middle = np.median(places[told["label"] == 1], axis=0)
    lasso(page, middle, 40)
    held = np.linalg.norm(places - middle, axis=1) < 40
    results = page.locator(".map-chosen")
    expect(results.locator("h2")).to_contain_text("cells chosen")
    count = int(results.locator("h2").inner_text().split()[0])
    assert abs(count - held.sum()) <= 3, "a circle of 24 corners"
    expect(results).to_contain_text("T cell CD4")
    expect(results).to_contain_text("From 4 of 4 donors")
    numbers = [int(text) for text in results.locator("tbody th").all_inner_texts()]
    assert 6 <= len(numbers) <= 30
    assert {told["sort"][number // 2] for number in numbers[:6]} == {1}, "those that were made for these cells"
    inside, rest = told["codes"][held, numbers[0] // 2], told["codes"][~held, numbers[0] // 2]
    row = results.locator("tbody tr").first.locator("td").all_inner_texts()
    assert float(row[2]) == pytest.approx(inside.mean() * 12 / 255, rel=0.06)
    assert float(row[3]) == pytest.approx(rest.mean() * 12 / 255, rel=0.06)
    by_chance = re.search(r"reach at most ([\d.]+)", results.inner_text())
    assert by_chance is not None
    assert float(by_chance[1]) < float(row[1])
    address = page.url
    results.locator("tbody a").nth(1).click()
    expect(page.locator("#panel h2").first).to_contain_text(f"Feature {numbers[1]}")
    assert state(page)["color"] == f"feature:{numbers[1]}"
    expect(results).to_be_visible()
    with page.expect_download() as download:
        results.locator("[data-save=tsv]").click()
    saved = Path(download.value.path()).read_text().splitlines()
    assert [int(line.split("\t")[0]) for line in saved[1:]] == numbers
    again = show(path, "&" + address.partition("#")[2])
    expect(again.locator(".map-chosen h2")).to_contain_text(f"{count} cells chosen")
    again.locator(".map-chosen .map-head button").click()
    expect(again.locator(".map-chosen")).to_be_hidden()
    assert "lasso" not in state(again)


def test_a_lasso_of_features_colours_the_cells_they_fire_in(show: Open, made: tuple[Path, dict[str, Any]]) -> None:
    path, told = made
    page = show(path, "&color=label:donor")
    spots = np.where(told["share"][:, None] > 0, told["spots"], np.nan)
    places = on_screen(page, "features", spots)
    middle = np.nanmedian(places[told["sort"] == 4], axis=0)
    pane(page, "features").get_by_role("button", name="Lasso").click()
    page.mouse.move(*(middle - 60))
    page.mouse.down()
    for dx, dy in ((60, -60), (60, 60), (-60, 60), (-60, -60)):
        page.mouse.move(*(middle + np.array([dx, dy])), steps=4)
    page.mouse.up()
    results = page.locator(".map-chosen")
    held = (np.abs(places - middle) < 60).all(axis=1)
    expect(results.locator("h2")).to_contain_text(f"{held.sum()} features chosen")
    expect(page.locator("#map-color")).to_have_value("The chosen features")
    first = results.locator("tbody tr").first
    expect(first.locator("th")).to_have_text(TYPES[4])
    here = told["label"] == 4
    mine = told["codes"][here][:, held].mean() / 255
    others = told["codes"][here][:, told["share"] > 0].mean() / 255
    row = [float(text) for text in first.locator("td").all_inner_texts()]
    assert row == [pytest.approx(mine, rel=0.01), pytest.approx(others, rel=0.01), here.sum()]
    expect(pane(page, "cells").locator(".map-words")).to_contain_text("as a share of each one's largest")
    pane(page, "features").locator(".map-points").focus()
    page.keyboard.press("Escape")
    expect(results).to_be_hidden()
    expect(page.locator("#map-color")).to_have_value("Donor")


def test_keys_alone_move_choose_and_open(show: Open, made: tuple[Path, dict[str, Any]]) -> None:
    path, told = made
    page = show(path, "&tint=kind")
    field = pane(page, "features").locator(".map-points")
    field.focus()
    spots = np.where(told["share"][:, None] > 0, told["spots"], np.nan)
    box = field.bounding_box()
    assert box is not None
    aim = on_screen(page, "features", spots)[2] - (box["x"] + box["width"] / 2, box["y"] + box["height"] / 2)
    for step, keys in zip(aim, (("ArrowRight", "ArrowLeft"), ("ArrowDown", "ArrowUp")), strict=True):
        for _ in range(round(abs(step) / 48)):
            page.keyboard.press(keys[0] if step > 0 else keys[1])
    expect(pane(page, "features").locator(".map-tip")).to_contain_text("Feature")
    said = page.locator(".map-aside[role=status]")
    expect(said).to_contain_text("Feature")
    number = re.search(r"Feature (\d+)", said.inner_text())
    assert number is not None
    page.keyboard.press("Enter")
    expect(page.locator("#panel h2").first).to_contain_text(f"Feature {number[1]}")
    field.focus()
    for _ in range(3):
        page.keyboard.press("+")
    page.keyboard.press("s")
    expect(page.locator(".map-chosen h2")).to_contain_text("features chosen")
    few = int(page.locator(".map-chosen h2").inner_text().split()[0])
    assert 0 < few < 30
    field.focus()
    page.keyboard.press("0")
    page.keyboard.press("s")
    expect(page.locator(".map-chosen h2")).to_contain_text("59 features chosen")
    page.keyboard.press("Escape")
    expect(page.locator(".map-chosen")).to_be_hidden()
    expect(page.locator("#panel")).to_be_visible()


def test_fingers_on_a_telephone(show: Open, made: tuple[Path, dict[str, Any]]) -> None:
    path, told = made
    page = show(path, size=TELEPHONE, has_touch=True)
    expect(pane(page, "cells")).to_be_hidden()
    page.locator(".map-tabs [data-side=cells]").tap()
    expect(pane(page, "features")).to_be_hidden()
    assert state(page)["side"] == "cells"
    places = on_screen(page, "cells", told["places"])
    page.touchscreen.tap(*places[0])
    expect(pane(page, "cells").locator(".map-tip")).to_contain_text("cell-")
    box = pane(page, "cells").locator(".map-points").bounding_box()
    assert box is not None
    middle = np.array([box["x"] + box["width"] / 2, box["y"] + box["height"] / 2])
    touch = page.context.new_cdp_session(page)
    for name, apart in (("touchStart", 30), ("touchMove", 60), ("touchMove", 120), ("touchEnd", 0)):
        fingers = [{"x": float(middle[0] + way * apart), "y": float(middle[1])} for way in (-1, 1)] if apart else []
        touch.send("Input.dispatchTouchEvent", {"type": name, "touchPoints": fingers})
    chosen = page.locator(".map-chosen h2")
    for _ in range(3):  # a tap that comes while the fingers leave is taken as a part of what they did
        pane(page, "cells").get_by_role("button", name="Choose the cells that are in view").tap()
        with suppress(AssertionError):
            expect(chosen).to_contain_text("cells chosen", timeout=5_000)
            break
    expect(chosen).to_contain_text("cells chosen")
    assert 0 <= int(page.locator(".map-chosen h2").inner_text().split()[0]) < 300, "the pinch zoomed in"


def ink(page: Page, side: str) -> dict[str, float]:
    """How much of a map's picture is covered, and how red, green and blue that is."""
    page.evaluate("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
    import base64

    shot = base64.b64encode(pane(page, side).locator(".map-field").screenshot()).decode()
    return dict(
        page.evaluate(
            """async (shot) => {
          const image = new Image(); image.src = `data:image/png;base64,${shot}`; await image.decode();
          const canvas = document.createElement('canvas'); [canvas.width, canvas.height] = [image.width, image.height];
          const context = canvas.getContext('2d'); context.drawImage(image, 0, 0);
          const {data} = context.getImageData(0, 50, image.width, image.height - 50);
          let [covered, red, green, blue] = [0, 0, 0, 0];
          for (let k = 0; k < data.length; k += 4) {
            if (Math.max(data[k], data[k + 1], data[k + 2]) < 60) continue;
            covered += 1; red += data[k]; green += data[k + 1]; blue += data[k + 2];
          }
          return {covered: covered / (data.length / 4), red: red / covered, green: green / covered, blue: blue / covered};
        }""",
            shot,
        )
    )


def drawn_by(page: Page) -> str:
    until(page, "() => performance.getEntriesByName('elute:recolour').length > 0")
    return str(page.evaluate("performance.getEntriesByName('elute:recolour').at(-1).detail.drawn_by"))


def test_with_a_card_and_without_one_the_picture_is_the_same(show: Open, made: tuple[Path, dict[str, Any]]) -> None:
    path, _ = made
    pictures = {}
    for kind, script in (("webgl", WEBGL), ("canvas", NO_WEBGL)):
        page = show(path, "&color=feature:20", script=script, color_scheme="dark")
        assert drawn_by(page) == kind
        pictures[kind] = ink(page, "cells")
    card, flat = pictures["webgl"], pictures["canvas"]
    assert card["covered"] > 0.01
    for part, near in (("covered", 0.12), ("red", 0.08), ("green", 0.08), ("blue", 0.08)):
        assert card[part] == pytest.approx(flat[part], rel=near), part
    imitated = show(path, "&color=feature:20")
    assert drawn_by(imitated) == "canvas", "a card that the processor plays is slower than the page's own drawing"


def test_a_lost_card_is_got_over(show: Open, made: tuple[Path, dict[str, Any]]) -> None:
    page = show(made[0], script=WEBGL + "const made = HTMLCanvasElement.prototype.getContext; window.cards = [];"
        "HTMLCanvasElement.prototype.getContext = function (...all) { const one = made.apply(this, all); if (all[0] === 'webgl2') cards.push(one); return one; };", color_scheme="dark")  # fmt: skip
    assert drawn_by(page) == "webgl"
    before = ink(page, "cells")
    page.evaluate(
        "window.lost = cards.map((one) => one.getExtension('WEBGL_lose_context')); lost.forEach((one) => one.loseContext())"
    )
    page.wait_for_timeout(200)
    page.evaluate("lost[0].restoreContext()")
    page.wait_for_timeout(2500)  # the other card does not come back: its map is drawn without
    after = ink(page, "cells")
    assert after["covered"] == pytest.approx(before["covered"], rel=0.15)
    assert ink(page, "features")["covered"] > 0.01
    choose(page, "feature 20")
    recoloured(page, "feature:20")
    assert drawn_by(page) == "canvas"


def test_a_hundred_thousand_cells_are_all_recoloured(show: Open, tmp_path: Path) -> None:
    path = tmp_path / "many.html"
    make(path, cells=100_000, features=40)
    page = show(path, "&color=feature:8")
    for number in (10, 12, 14):
        choose(page, f"feature {number}")
        recoloured(page, f"feature:{number}")
        detail = page.evaluate("performance.getEntriesByName('elute:recolour').at(-1).detail")
        assert detail["points"] == 100_000


def test_the_maps_of_a_run(show: Open, tmp_path: Path) -> None:
    make_run(tmp_path / "run", features=40, cells=200)
    path = write_explorer(tmp_path / "run").path
    page = show(path)
    choose(page, "feature 3")
    recoloured(page, "feature:3")
    expect(pane(page, "cells").locator(".map-words")).to_contain_text("of 200")
    pane(page, "cells").get_by_role("button", name="Choose the cells that are in view").click()
    expect(page.locator(".map-chosen h2")).to_contain_text("200 cells chosen")
    expect(page.locator(".map-chosen")).to_contain_text("3 cells or more are inside, and as many outside")
    page.goto(f"{path.as_uri()}#view=map&tint=frequency")
    expect(pane(page, "features").locator(".map-ramp")).to_be_visible()


@pytest.mark.parametrize("size", [DESK, TELEPHONE])
def test_hostile_names_are_text(show: Open, tmp_path: Path, size: tuple[int, int]) -> None:
    path = tmp_path / "hostile.html"
    names = {TYPES[0]: HOSTILE, TYPES[1]: "x" * 10_000, TYPES[2]: "🧬" * 50, TYPES[3]: "שלום \u202eabc", "D0": HOSTILE}
    names |= {
        "cell": HOSTILE,
        "G0": HOSTILE,
        "G1": "W" * 10_000,
        "name 1": HOSTILE,
        "name 2": "V" * 10_000,
        "tissue": HOSTILE,
    }
    told = make(path, names=names)
    page = show(path, f"&color=gene:{HOSTILE.replace('=', '%3D')}&side=cells&tint=name", size=size)
    expect(page.locator("#map-color")).to_have_value(HOSTILE)
    pane(page, "cells").locator("summary").click()
    expect(pane(page, "cells").locator(".map-legend")).to_contain_text(HOSTILE[:20])
    page.mouse.move(*on_screen(page, "cells", told["places"])[0])
    expect(pane(page, "cells").locator(".map-tip")).to_contain_text("<img")
    pane(page, "cells").get_by_role("button", name="Choose the cells that are in view").click()
    expect(page.locator(".map-chosen")).to_contain_text("<img")
    page.locator("#map-color").click()
    expect(page.locator("#map-color-list [role=option]").first).to_be_visible()
    assert page.locator("img").count() == 0
    for hostile in (
        "color=feature:99999999",
        "color=gene:__proto__",
        "color=constructor",
        "tint=%3Cimg%3E",
        "lasso=cells:zz",
        "side=%22%3E",
    ):
        page.goto(page.url.partition("#")[0] + f"#view=map&{hostile}")
        page.wait_for_timeout(50)
    page.goto(page.url.partition("#")[0] + "#view=map&side=cells&color=feature:99999999")
    expect(pane(page, "cells").locator(".alarm")).to_have_text("There is no feature 99999999 on this page.")


def test_themes_and_what_a_screen_reader_is_told(show: Open, made: tuple[Path, dict[str, Any]]) -> None:
    page = show(made[0], color_scheme="dark")
    swatch = pane(page, "cells").locator(".map-swatch").first
    dark = swatch.evaluate("node => getComputedStyle(node).backgroundColor")
    page.emulate_media(color_scheme="light")
    expect(swatch).not_to_have_css("background-color", str(dark))
    expect(swatch).to_have_css("background-color", "rgb(43, 100, 195)")
    told: Any = page.evaluate(
        """() => { const map = document.getElementById('map'); return {
          nameless: [...map.querySelectorAll('button, a, canvas:not([aria-hidden])')].filter((e) => !(e.ariaLabel || e.textContent.trim())).length,
          unlabelled: [...map.querySelectorAll('input, select')].filter((e) => !e.labels.length).length,
          described: [...map.querySelectorAll('[aria-describedby]')].filter((e) => !document.getElementById(e.getAttribute('aria-describedby'))?.textContent).length,
          twice: [...document.querySelectorAll('[id]')].length - new Set([...document.querySelectorAll('[id]')].map((e) => e.id)).size,
        }; }"""
    )
    assert told == {"nameless": 0, "unlabelled": 0, "described": 0, "twice": 0}
    group = pane(page, "cells").locator("button.map-group").nth(2)
    group.click()
    expect(group).to_have_attribute("aria-pressed", "true")
    group.click()
    expect(group).to_have_attribute("aria-pressed", "false")
