"""What to type for an extra depends on where elute came from: no stranger's package is ever suggested for a checkout."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from elute.base import doctor


class Installed:
    """A distribution with a given direct_url.json."""

    def __init__(self, origin: object) -> None:
        self.origin = origin

    def read_text(self, name: str) -> str | None:
        assert name == "direct_url.json"
        return None if self.origin is None else json.dumps(self.origin)


def hint(monkeypatch: pytest.MonkeyPatch, origin: object) -> str:
    monkeypatch.setattr(doctor, "distribution", lambda _: Installed(origin))
    return doctor.how_to_install("cells")


def test_from_a_checkout(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    folder = tmp_path / "my code"
    folder.mkdir()
    origin = {"url": folder.as_uri(), "dir_info": {"editable": True}}
    assert hint(monkeypatch, origin) == f'pip install -e "{folder}[cells]"'
    monkeypatch.chdir(folder)
    assert hint(monkeypatch, origin) == 'pip install -e ".[cells]"'


def test_from_an_index_or_an_archive(monkeypatch: pytest.MonkeyPatch) -> None:
    assert hint(monkeypatch, None) == 'pip install "elute[cells]"'
    origin = {"url": "https://example.org/elute.whl", "archive_info": {}}
    assert hint(monkeypatch, origin) == 'pip install "elute[cells]"'
