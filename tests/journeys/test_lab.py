"""The Lab as a person opens it: a server that only this machine reaches, pages that open, and an end by Ctrl-C."""

from __future__ import annotations

import http.client
import json
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest
from playwright.sync_api import Browser, Error, expect
from tests.journeys.lab_served import DESK, LONG, TELEPHONE, Served, go, opened, outside, serving, settled
from tests.reports import made_up_run

from elute.dictionaries.dictionary import Dictionary
from elute.dictionaries.files import save_dictionary
from elute.dictionaries.spec import DictionarySpec
from elute.reports.explorer.write import write_explorer

PAGES = ("Explore", "Steer", "Perturb", "Enrich my genes", "Compare runs", "Train monitor")
HOSTILE = ["<img src=x onerror=document.title='owned'>", "[x](javascript:alert(1))", ":red[x] :smile: $x^2$ -> `y`"]


def make(folder: Path) -> Path:
    names = {"CD79A": HOSTILE[0], "CD3D": HOSTILE[1], "B cell": HOSTILE[2], "NKG7": "W" * 3000}
    made_up_run.make_run(folder, features=160, names=names)
    path = folder / "features.parquet"
    pl.read_parquet(path).with_columns(name=pl.lit(" ".join(HOSTILE))).write_parquet(path)
    spec = DictionarySpec(reads={"a": 8}, writes={"a": 8}, n_features=160, k=4)
    save_dictionary(Dictionary(spec), folder / "sae_final.pt")
    lines = [{"step": 50 * i, "loss": 1 / (i + 1), "l0": 8, HOSTILE[1]: i} for i in range(40)]
    (folder / "training_metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_explorer(folder)
    return folder


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    place = tmp_path_factory.mktemp("lab")
    folder = make(place / "runs" / "mine")
    make(place / "runs" / "other")
    with serving(folder, place) as lab:
        yield lab


@pytest.mark.parametrize("size", [DESK, TELEPHONE])
def test_each_page_opens(served: Served, browser: Browser, size: tuple[int, int], tmp_path: Path) -> None:
    pictures = Path(os.environ.get("ELUTE_PICTURES", tmp_path))
    wrong: list[str] = []
    page = opened(browser, served, size, wrong)
    for name in PAGES:
        if name != PAGES[0]:
            go(page, name)
        expect(page.get_by_test_id("stException")).to_have_count(0)
        expect(page.get_by_test_id("stAlert")).to_have_count(0)
        page.screenshot(path=pictures / f"lab-{name.split()[0].lower()}-{size[0]}.png")
        assert outside(page) <= 0, name
    for said in (HOSTILE[1], "Features that fired in a row"):
        expect(page.get_by_text(said, exact=True)).to_be_visible(timeout=LONG)  # in the monitor, which is the last page
    assert page.title() != "owned"
    assert page.locator("img[src=x]").count() == 0
    assert page.locator("a[href^='javascript']").count() == 0
    assert wrong == []
    page.close()


@pytest.mark.parametrize("size", [DESK, TELEPHONE])
def test_a_feature_and_the_explorer(served: Served, browser: Browser, size: tuple[int, int], tmp_path: Path) -> None:
    pictures = Path(os.environ.get("ELUTE_PICTURES", tmp_path))
    wrong: list[str] = []
    page = opened(browser, served, size, wrong)
    page.get_by_role("radio", name="One feature").click()
    settled(page)
    expect(page.get_by_test_id("stText").filter(has_text=" ".join(HOSTILE))).to_be_visible(timeout=LONG)
    for tab in ("Cells", "Groups and donors", "Genes"):
        page.get_by_role("tab", name=tab, exact=True).click()
        page.wait_for_timeout(500)
        page.screenshot(path=pictures / f"lab-feature-{tab.split()[0].lower()}-{size[0]}.png", full_page=True)
    assert outside(page) <= 0
    page.get_by_role("radio", name="Explorer").click()
    settled(page)
    frame = page.frame_locator("iframe").frame_locator("iframe")
    expect(frame.locator("h1").first).to_be_visible(timeout=LONG)
    expect(frame.get_by_text(HOSTILE[1]).first).to_be_attached(timeout=LONG)
    page.screenshot(path=pictures / f"lab-explorer-{size[0]}.png")
    frame.locator("#filter-alive").click()
    frame.locator("#search").fill("CD3E")
    frame.locator("#body [role=row]").first.click()
    expect(frame.locator("#panel h2")).to_contain_text("Feature ", timeout=LONG)
    assert wrong == []
    inner = page.frames[-1]
    with pytest.raises(Error, match="Blocked a frame"):
        inner.evaluate("window.parent.document.title")  # what came with a run's folder does not reach the Lab
    asked: list[str] = []
    page.on("requestfinished", lambda request: asked.append(request.url) if request.url.endswith("?sly") else None)
    inner.evaluate(f"fetch('{served.address}/_stcore/health?sly').catch(() => null)")
    inner.evaluate(f"void (location.href = '{served.address}/_stcore/health?sly')")
    page.wait_for_timeout(1500)
    assert asked == []
    page.close()


def test_work_is_shown_and_cancelled(served: Served, browser: Browser) -> None:
    page = opened(browser, served, DESK, [])
    go(page, "Enrich my genes")
    page.get_by_label("Genes, by any name").fill("CD3D CD3E TRAC :red[x]")
    page.get_by_role("button", name="Enrich", exact=True).click()
    page.get_by_role("button", name="Cancel", exact=True).click()
    expect(page.get_by_text("Cancelled.")).to_be_visible(timeout=LONG)
    go(page, "Compare runs")
    page.get_by_role("button", name="Match features").click()
    expect(page.get_by_text("Found again: cosine of 0.7 or more.")).to_be_visible(timeout=LONG)
    page.close()


def answer(served: Served, path: str, **headers: str) -> tuple[int, bytes]:
    connection = http.client.HTTPConnection("127.0.0.1", served.port, timeout=30)
    connection.putrequest("GET", path, skip_host="Host" in headers)
    for name, value in headers.items():
        connection.putheader(name.replace("_", "-"), value)
    connection.endheaders()
    response = connection.getresponse()
    told = response.status, b"" if response.status == 101 else response.read(100_000)
    connection.close()
    return told


def test_no_file_is_served(served: Served) -> None:
    secret = served.folder.parent / "secret.txt"
    secret.write_text("what nobody may read")
    assert answer(served, "/_stcore/health") == (200, b"ok")
    up = "/..%2f" * 12
    for path in (
        *(f"/{root}/../../../../../../..{secret}" for root in ("static", "media", "app/static", "component")),
        *(f"/{root}{up}{str(secret)[1:]}" for root in ("static", "media", "app/static")),
        f"/app/static/{served.folder.name}/features.parquet",
        f"/media/{served.folder}/run.json",
        str(secret),
        f"//{secret}",
    ):
        status, body = answer(served, path)
        assert b"nobody" not in body, path
        assert status >= 400 or body.lstrip().startswith(b"<!--"), path  # Streamlit's own page, for any name


def test_only_pages_from_here_are_answered(served: Served) -> None:
    ask = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec_WebSocket_Version": "13",
        "Sec_WebSocket_Key": "a" * 22 + "==",
    }
    here = f"127.0.0.1:{served.port}"
    assert answer(served, "/_stcore/stream", **ask, Host=here, Origin=f"http://{here}")[0] == 101
    assert answer(served, "/_stcore/stream", **ask, Host=here, Origin="http://example.invalid")[0] == 403
    assert answer(served, "/_stcore/stream", **ask, Host="example.invalid", Origin="http://example.invalid")[0] == 403


def test_it_answers_at_this_machines_own_address_alone(served: Served) -> None:
    with pytest.raises(ConnectionRefusedError), socket.create_connection(("127.0.0.2", served.port), timeout=2):
        pass
