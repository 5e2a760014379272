"""What is kept of answers: whole entries of their request, or none, whoever else writes and whatever the disk does."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from elute.base import files
from elute.validation.online.cache import Asked, Cache, forget, together

ASKED = Asked("example", "GET", "https://api.example.org/v1/genes?q=1")
OTHERS = [
    Asked("another", "GET", "https://api.example.org/v1/genes?q=1"),
    Asked("example", "POST", "https://api.example.org/v1/genes?q=1"),
    Asked("example", "GET", "https://api.example.org/v1/genes?q=2"),
    Asked("example", "GET", "https://api.example.org/v1/genes?q=1", b"{}"),
]
TEXT = '{"genes": ["ü", "\u2028", "\\ud800"]}'
NOW = 1_760_000_000.0


def cache(folder: Path, now: float = NOW, max_age: float = 100.0) -> Cache:
    return Cache(folder, max_age=max_age, clock=lambda: now)


def entries(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if path.is_file()]


def test_an_entry_is_found_by_all_of_its_request(tmp_path: Path) -> None:
    cache(tmp_path).keep(ASKED, TEXT)
    assert cache(tmp_path).find(ASKED) == TEXT
    assert [cache(tmp_path).find(other) for other in OTHERS] == [None] * 4
    assert len({asked.digest for asked in (ASKED, *OTHERS)}) == 5


def test_an_entry_says_what_it_is(tmp_path: Path) -> None:
    cache(tmp_path).keep(ASKED, TEXT)
    [path] = entries(tmp_path)
    assert path.relative_to(tmp_path).parts[0] == "example"
    assert json.loads(path.read_bytes()) == {
        "schema": 1,
        "service": "example",
        "method": "GET",
        "url": "https://api.example.org/v1/genes?q=1",
        "body": "",
        "status": 200,
        "sha256": files.digest_bytes(TEXT.encode()),
        "date": "2025-10-09T08:53:20+00:00",
        "text": TEXT,
    }


@pytest.mark.parametrize(
    ("age", "found"), [(0, True), (100, True), (101, False), (-3600, True), (-90_000, False), (1e9, False)]
)
def test_entries_age(tmp_path: Path, age: float, found: bool) -> None:
    cache(tmp_path, NOW - age).keep(ASKED, TEXT)
    assert (cache(tmp_path).find(ASKED) == TEXT) == found
    assert cache(tmp_path).find(ASKED, any_age=True) == TEXT


def spoil(path: Path, **changed: Any) -> None:
    entry = json.loads(path.read_bytes())
    path.write_text(json.dumps({**entry, **changed}))


DAMAGE = {
    "cut": lambda path: path.write_bytes(path.read_bytes()[:-9]),
    "empty": lambda path: path.write_bytes(b""),
    "zeros": lambda path: path.write_bytes(bytes(path.stat().st_size)),
    "a list": lambda path: path.write_text("[]"),
    "a number": lambda path: path.write_text("1"),
    "deep": lambda path: path.write_text("[" * 100_000),
    "a page": lambda path: path.write_text("<html>"),
    "no UTF-8": lambda path: path.write_bytes(path.read_bytes().replace("ü".encode(), b"\xff")),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
    "other text": lambda path: spoil(path, text=TEXT.replace("ü", "u")),
    "other address": lambda path: spoil(path, url="https://api.example.org/v1/other"),
    "other status": lambda path: spoil(path, status=206),
    "other form": lambda path: spoil(path, schema=2),
    "no date": lambda path: spoil(path, date="yesterday"),
    "a date far off": lambda path: spoil(path, date="9999-12-31T23:59:59+00:00"),
    "no text": lambda path: spoil(path, text=None),
    "a number for text": lambda path: spoil(path, text=5),
}


@pytest.mark.parametrize("name", DAMAGE)
def test_a_damaged_entry_is_none_and_is_replaced(tmp_path: Path, name: str) -> None:
    cache(tmp_path).keep(ASKED, TEXT)
    [path] = entries(tmp_path)
    DAMAGE[name](path)
    assert cache(tmp_path).find(ASKED) is None
    if name != "a folder":
        cache(tmp_path).keep(ASKED, TEXT)
        assert cache(tmp_path).find(ASKED) == TEXT


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(place=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_no_byte_can_change_unnoticed(tmp_path: Path, place: int, byte: int) -> None:
    """A changed byte leaves the same answer (white space, the date), or none."""
    cache(tmp_path).keep(ASKED, TEXT)
    [path] = entries(tmp_path)
    content = bytearray(path.read_bytes())
    content[place % len(content)] = byte
    path.write_bytes(content)
    assert cache(tmp_path).find(ASKED) in (TEXT, None)


def test_what_cannot_be_written_is_used_and_not_kept(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "file").write_text("x")
    here = cache(tmp_path / "file")
    here.keep(ASKED, TEXT)
    here.keep(OTHERS[0], TEXT)
    assert here.find(ASKED) is None
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert told == f"warning: {tmp_path / 'file'}: answers of services are not kept here: not a directory\n"


@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EROFS, errno.EDQUOT])
def test_a_full_disk_leaves_nothing_half_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], code: int
) -> None:
    def write(path: Path, data: bytes) -> None:
        with path.open("wb") as handle:
            handle.write(data[:20])
        raise OSError(code, os.strerror(code))

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", write)
        cache(tmp_path).keep(ASKED, TEXT)
    assert not entries(tmp_path)
    assert os.strerror(code).lower() in capsys.readouterr().err


@pytest.mark.parametrize("method", ["write_bytes", "replace"])
def test_who_stops_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(Path, method, stop)
        with pytest.raises(KeyboardInterrupt):
            cache(tmp_path).keep(ASKED, TEXT)
    assert not entries(tmp_path)


WRITER = """
import sys
from pathlib import Path
from elute.validation.online.cache import Asked, Cache

asked = Asked("example", "GET", "https://api.example.org/v1/genes?q=1")
cache = Cache(Path(sys.argv[1]), max_age=100, clock=lambda: 1_760_000_000.0)
for _ in range(100):
    cache.keep(asked, sys.argv[2] * 100_000)
"""


def test_two_processes_at_once(tmp_path: Path) -> None:
    """Whoever reads while two write finds one whole answer of the two."""
    words = [sys.executable, "-c", WRITER, str(tmp_path)]
    writers = [subprocess.Popen([*words, mark], stderr=subprocess.PIPE, text=True) for mark in "ab"]
    found = set()
    while any(writer.poll() is None for writer in writers):
        found.add(cache(tmp_path).find(ASKED))
        time.sleep(0.002)
    # A warning would say that one had taken away what the other one was about to rename.
    assert [(writer.communicate(timeout=20)[1], writer.returncode) for writer in writers] == [("", 0)] * 2
    assert found - {None} <= {"a" * 100_000, "b" * 100_000}
    assert cache(tmp_path).find(ASKED) in {"a" * 100_000, "b" * 100_000}
    assert len(entries(tmp_path)) == 1


def test_answers_that_belong_together(tmp_path: Path) -> None:
    cache(tmp_path, NOW - 50).keep(ASKED, "1")
    with together() as walk:
        assert cache(tmp_path).find(ASKED) == "1"
        cache(tmp_path).keep(OTHERS[0], "2")
    assert len(walk.used) == 2
    assert walk.apart == pytest.approx(50, abs=1)
    with together(fresh=True) as walk:
        assert cache(tmp_path).find(ASKED) is None
        assert cache(tmp_path).find(ASKED, any_age=True) == "1"  # offline there is nothing fresher
        cache(tmp_path).keep(ASKED, "3")
    assert cache(tmp_path).find(ASKED) == "3"
    forget(walk)
    assert cache(tmp_path).find(ASKED) is None
    assert cache(tmp_path).find(OTHERS[0]) == "2"
