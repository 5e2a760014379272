"""A page of the Lab as Streamlit runs it, without a browser."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import streamlit as st
from streamlit.testing.v1 import AppTest
from tests.reports import made_up_run

from elute.app import jobs, session

Open = Callable[..., AppTest]


def script(name: str) -> None:
    import importlib

    from elute.app.session import guarded

    guarded(importlib.import_module(f"elute.app.{name}").show)()


@pytest.fixture(autouse=True)
def _own_main() -> Iterator[None]:
    """Streamlit takes the place of the main module: a process that a later test starts would run the page."""
    main = sys.modules["__main__"]
    yield
    sys.modules["__main__"] = main


@pytest.fixture
def show() -> Iterator[Open]:
    """Open a page on a run's folder; nothing of it may have failed."""

    def open_page(folder: Path, name: str, **state: object) -> AppTest:
        session.begin(folder)
        page = AppTest.from_function(script, args=(name,), default_timeout=120)
        for key, value in state.items():
            page.session_state[key] = value
        return well(page.run())

    yield open_page
    jobs.stop_all()
    session._open.clear()
    st.cache_data.clear()


def well(page: AppTest) -> AppTest:
    assert not page.exception, [each.message for each in page.exception]
    return page


def wait(page: AppTest, key: str, seconds: float = 240) -> AppTest:
    """Run a page until the work under a key has ended."""
    end = time.monotonic() + seconds
    assert key in page.session_state, "nothing was begun"
    job = page.session_state[key]
    assert job.wait(end - time.monotonic()), job.words
    return well(page.run())


def words(page: AppTest) -> str:
    """All that is set as text."""
    return "\n".join(each.value for each in page.text)


def markdown(page: AppTest) -> list[str]:
    """All that a browser would read as Markdown."""
    said = [each.value for kind in (page.markdown, page.caption, page.header, page.subheader) for each in kind]
    said += [each.value for kind in (page.error, page.warning, page.info) for each in kind]
    said += (
        [each.label for each in page.metric]
        + [each.label for each in page.tabs]
        + [each.label for each in page.expander]
    )
    for kind in ("selectbox", "multiselect", "number_input", "text_input", "button", "toggle"):
        said += [each.label for each in getattr(page, kind)]
    return said


@pytest.fixture
def made(tmp_path: Path) -> Path:
    """A run that never was, quickly made: tables of 160 features in 400 cells."""
    return made_up_run.make_run(tmp_path / "runs" / "mine")
