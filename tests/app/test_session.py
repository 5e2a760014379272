"""The only door to a run's files, and what a text becomes where Markdown is read."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from elute.app import session, tables
from elute.app.session import Lab, quoted
from elute.base.errors import DataError, GuardError


def test_a_link_that_leads_out_is_refused(made: Path, tmp_path: Path) -> None:
    secret = tmp_path / "secret.json"
    secret.write_text(json.dumps({"key": 1}))
    lab = session.begin(made)
    (made / "dashboard.html").symlink_to(secret)
    (made / "validation" / "sly.parquet").symlink_to(secret)
    with pytest.raises(GuardError, match="leads out of the run's folder"):
        lab.path("dashboard.html")
    with pytest.raises(GuardError):
        lab.path("..", "mine", "..", "..", "secret.json")
    with pytest.raises(GuardError):
        lab.path(secret)
    assert not [title for title in tables.listed(lab, made) if "sly" in title]
    (made / "inside.json").symlink_to(made / "evaluation.json")
    assert tables.read(lab.path("inside.json"))["split"] == "test"


def test_a_folder_that_is_a_link_is_refused(made: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (made / "features.parquet").rename(tmp_path / "elsewhere" / "features.parquet")
    (made / "site").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(GuardError):
        Lab(made.resolve()).sites()


def test_the_folder_that_was_given_may_be_a_link(made: Path, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(made)
    assert session.begin(tmp_path / "link").folder == made.resolve()


def test_runs_beside_this_one(made: Path, tmp_path: Path) -> None:
    from tests.reports import made_up_run

    other = made_up_run.make_run(made.parent / "other", features=20)
    made_up_run.make_run(tmp_path / "far", features=20)
    (made.parent / "sly").symlink_to(tmp_path / "far")
    (made.parent / "empty").mkdir()
    assert {name: lab.folder for name, lab in session.begin(made).beside().items()} == {"other": other.resolve()}


def test_folders_that_are_no_run(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such folder"):
        session.begin(tmp_path / "absent")
    with pytest.raises(DataError, match="is not the folder of a run"):
        session.begin(tmp_path)
    (tmp_path / "training_metrics.jsonl").write_text("")
    assert session.begin(tmp_path).sites() == {}


@given(st.text(max_size=60))
def test_what_is_quoted_is_read_as_it_is(text: str) -> None:
    """By CommonMark's rule for code spans: the same run of backticks closes it, and one space is taken from each side."""
    line = " ".join(text.split())
    said = quoted(text)
    if not line:
        assert said == ""
        return
    fence = said[: len(said) - len(said.lstrip("`"))]
    inner = said[len(fence) : -len(fence)]
    assert said.endswith(fence)
    assert inner == f" {line} "
    runs, run = [], 0
    for c in inner:
        run = run + 1 if c == "`" else 0
        runs.append(run)
    assert all(n != len(fence) for n in runs)
