from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import pytest

from elute.base import files, recipe, run
from elute.base.contracts import Fingerprint
from elute.base.errors import DamagedError, EluteError, VersionError

ANEW = "Delete it: the stages will be done anew."
PAGE = Path(__file__).parents[2] / "docs" / "formats" / "run.md"


class Capture(recipe.Section):
    """What to capture."""

    rows: int = 3
    """How many rows."""
    pair: tuple[int, int] = (1, 2)
    """Two numbers, which JSON keeps as a list."""
    folder: Path | None = None
    """Where it goes."""


def put(folder: Path, stage: str = "capture", config: Capture | None = None, **inputs: str) -> None:
    run.record(folder, stage, config or Capture(), inputs=inputs, summary={"rows": 10, "note": "β"})


def test_a_record_says_where_its_content_came_from(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "versions", lambda: {"python": "3.11.0", "elute": "0.1.0"})
    model = Fingerprint(name="m", weights="w", config="c", sites="s")
    config = Capture(folder=tmp_path / "ä")
    run.record(tmp_path, "capture", config, inputs={"x.npy": "ab12"}, summary={"rows": 10}, model=model)
    put(tmp_path, "split")
    assert json.loads((tmp_path / "run.json").read_bytes()) == {
        "schema": 1,
        "stages": {
            "capture": {
                "config": {"rows": 3, "pair": [1, 2], "folder": str(tmp_path / "ä")},
                "inputs": {"x.npy": "ab12"},
                "model": {"name": "m", "weights": "w", "config": "c", "sites": "s"},
                "summary": {"rows": 10},
            },
            "split": {
                "config": {"rows": 3, "pair": [1, 2], "folder": None},
                "inputs": {},
                "model": None,
                "summary": {"rows": 10, "note": "β"},
            },
        },
        "versions": {"python": "3.11.0", "elute": "0.1.0"},
    }
    sections = recipe.resolve({"capture": Capture, "split": Capture}, tmp_path / "config.yaml")
    assert sections == {"capture": config, "split": Capture()}
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.yaml", "run.json"]


def test_the_format_page_names_every_key(tmp_path: Path) -> None:
    put(tmp_path)
    record = run.read(tmp_path)
    tables = re.split(r"^A record:$", PAGE.read_text(encoding="utf-8"), flags=re.MULTILINE)
    told = [re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE) for table in tables]
    assert told == [list(record), list(record["stages"]["capture"])]
    assert f"schema version {run.SCHEMA}" in tables[0]


def test_the_same_work_gives_the_same_bytes_at_any_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, now in (("a", 1_000_000_000.0), ("b", 1_900_000_000.0)):
        monkeypatch.setattr(time, "time", lambda now=now: now)
        (tmp_path / name).mkdir()
        put(tmp_path / name, x="ab12")
        put(tmp_path / name, "split")
    put(tmp_path / "b", x="ab12")  # done again, as after an interruption
    for name in ("run.json", "config.yaml"):
        content = (tmp_path / "a" / name).read_bytes()
        assert content == (tmp_path / "b" / name).read_bytes()
        assert not re.search(rb"\d{4}-\d\d-\d\d|\d\d:\d\d", content)


def test_a_stage_is_finished_for_its_very_settings_and_inputs(tmp_path: Path) -> None:
    config = Capture(rows=4, folder=Path("a"))
    assert run.finished(tmp_path, "capture", config, inputs={"x": "1"}) is None
    put(tmp_path, config=config, x="1")
    same = Capture(rows=4, folder=Path("a"))
    assert run.finished(tmp_path, "capture", same, inputs={"x": "1"}) == {"rows": 10, "note": "β"}
    for stage, changed, inputs in (
        ("split", config, {"x": "1"}),
        ("capture", Capture(rows=5, folder=Path("a")), {"x": "1"}),
        ("capture", Capture(rows=4), {"x": "1"}),
        ("capture", config, {"x": "2"}),
        ("capture", config, {}),
        ("capture", config, {"x": "1", "y": "1"}),
    ):
        assert run.finished(tmp_path, stage, changed, inputs=inputs) is None
    assert sorted(p.name for p in tmp_path.iterdir()) == ["config.yaml", "run.json"]


@pytest.mark.parametrize("lost", ["config.yaml", "run.json"])
def test_a_record_that_was_interrupted_is_made_anew(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, lost: str) -> None:
    """Whichever of the two files a kill takes away, the stage is done again and both are as if it had not been."""
    (tmp_path / "whole").mkdir()
    (tmp_path / "cut").mkdir()
    put(tmp_path / "whole")
    real = files.write_atomically

    def killed(path: Path, fill: Any) -> None:
        if path.name == lost:
            raise KeyboardInterrupt
        real(path, fill)

    with monkeypatch.context() as patched:
        patched.setattr(files, "write_atomically", killed)
        patched.setattr(recipe, "write_atomically", killed)
        with pytest.raises(KeyboardInterrupt):
            put(tmp_path / "cut")
    assert run.finished(tmp_path / "cut", "capture", Capture(), inputs={}) is None
    put(tmp_path / "cut")
    for name in ("run.json", "config.yaml"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_an_empty_folder_has_an_empty_record(tmp_path: Path) -> None:
    assert run.read(tmp_path) == {"schema": 1, "stages": {}}
    assert list(tmp_path.iterdir()) == []


STAGE = '{"schema": 1, "stages": {"capture": %s}}'
NO_RECORD = f"is not a run's record. {ANEW}"
DAMAGED = {
    "cut short": ('{"schema": 1, "sta', f"is not a run's record: Unterminated string starting at: line 1 column 15 (char 14). {ANEW}"),
    "a list": ("[]", NO_RECORD),
    "no schema": ('{"stages": {}}', NO_RECORD),
    "no stages": ('{"schema": 1}', NO_RECORD),
    "stages in a list": ('{"schema": 1, "stages": []}', NO_RECORD),
    "a schema in text": ('{"schema": "2", "stages": {}}', NO_RECORD),
    "a stage that is a number": (STAGE % "3", NO_RECORD),
    "a stage of nothing": (STAGE % "{}", NO_RECORD),
    "no summary": (STAGE % '{"config": {}, "inputs": {}}', NO_RECORD),
    "inputs in a list": (STAGE % '{"config": {}, "inputs": [], "summary": {}}', NO_RECORD),
}  # fmt: skip


@pytest.mark.parametrize("kind", DAMAGED)
def test_damaged_records_are_refused(tmp_path: Path, kind: str) -> None:
    content, line = DAMAGED[kind]
    (tmp_path / "run.json").write_text(content)
    for ask in (
        lambda: run.read(tmp_path),
        lambda: put(tmp_path),
        lambda: run.finished(tmp_path, "capture", Capture(), inputs={}),
    ):
        with pytest.raises(EluteError) as error:
            ask()
        assert type(error.value) is DamagedError
        assert str(error.value) == f"{tmp_path / 'run.json'}: {line}"
    assert (tmp_path / "run.json").read_text() == content


@pytest.mark.parametrize("content", ['{"schema": 2, "stages": {}}', '{"schema": 2, "steps": []}'])
def test_a_record_of_a_newer_elute_is_left_alone(tmp_path: Path, content: str) -> None:
    (tmp_path / "run.json").write_text(content)
    with pytest.raises(VersionError) as error:
        put(tmp_path)
    assert str(error.value) == (
        f"{tmp_path / 'run.json'}: was written by a newer elute (schema 2, this one reads 1). Update elute."
    )
    assert [p.name for p in tmp_path.iterdir()] == ["run.json"]
    assert (tmp_path / "run.json").read_text() == content


def test_versions_are_those_that_are_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    import platform

    import numpy as np

    found = run.versions()
    assert found["python"] == platform.python_version()
    assert found["numpy"] == np.__version__

    def version(name: str) -> str:
        if name == "scipy":
            raise run.PackageNotFoundError(name)
        return f"{name} 1"

    monkeypatch.setattr(run, "version", version)
    assert run.versions()["torch"] == "torch 1"
    assert "scipy" not in run.versions()
