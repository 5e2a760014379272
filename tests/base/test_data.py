from __future__ import annotations

from pathlib import Path

import pytest

from elute.base.data import data_folder, hgnc_table


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ELUTE_DATA", raising=False)
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))


def test_which_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert data_folder() == tmp_path / "home" / ".cache" / "elute"
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert data_folder() == tmp_path / "home" / ".cache" / "elute"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert data_folder() == tmp_path / "cache" / "elute"
    monkeypatch.setenv("ELUTE_DATA", "~/tables")
    assert data_folder() == tmp_path / "home" / "tables"


def test_where_the_table_may_lie(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("ELUTE_DATA", str(tmp_path))
    assert hgnc_table() is None
    (tmp_path / "hgnc_complete_set.txt").mkdir()
    assert hgnc_table() is None
    (tmp_path / "hgnc_complete_set.txt").rmdir()
    (tmp_path / "genes").mkdir()
    for name in ("hgnc_complete_set.txt.gz", "genes/hgnc_complete_set.txt.gz", "genes/hgnc_complete_set.txt"):
        (tmp_path / name).write_text("")
        assert hgnc_table() == tmp_path / name
