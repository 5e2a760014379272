"""Every page behind the `pages` door: it names what it needs, and shows it without harm."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from elute.arrays.look import HeadConfig
from elute.base import plugins, run
from elute.store.scaling import StatsConfig, measure
from elute.store.splitting import SplitConfig, split_store

HOSTILE = "<script>alert(1)</script>"


@pytest.fixture
def folder(make_store: Callable[..., Path]) -> Path:
    """A folder with everything that a page may need, and hostile text wherever a user could put it."""
    path = make_store(sites={HOSTILE: 3})
    split_store(path, SplitConfig())
    measure(path, StatsConfig())
    run.record(path, HOSTILE, HeadConfig(group=HOSTILE), inputs={HOSTILE: HOSTILE}, summary={})
    return path


@pytest.fixture(params=plugins.names("pages"))
def page(request: pytest.FixtureRequest) -> Any:
    return plugins.load("pages", request.param)


def test_a_page_shows_its_folder_and_runs_nothing(page: Any, folder: Path) -> None:
    assert page.title
    assert all((folder / need).exists() for need in page.needs), (
        "extend the folder of this test by what a new page needs"
    )
    before = sorted(p.name for p in folder.iterdir())
    text = page.render(folder)
    assert "<script" not in text
    assert "alert(1)" in text, "the hostile text is there to be seen"
    assert text == page.render(folder)
    assert sorted(p.name for p in folder.iterdir()) == before, "a page writes nothing"
