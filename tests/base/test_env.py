"""`.env`: the keys that elute uses, from this folder alone, never evaluated, never told."""

from __future__ import annotations

import logging
import os
import re
from pathlib import Path

import pytest

from elute.base import console
from elute.base.doctor import KEYS as DOCTOR_KEYS
from elute.base.env import KEYS, load_env, read_env

ROOT = Path(__file__).parents[2]
SECRET = "s3cr3t"  # noqa: S105


@pytest.fixture(autouse=True)
def bare(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in KEYS:
        monkeypatch.setenv(name, "")  # so that what a test sets is undone
        monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


def write(text: str, mode: int = 0o600) -> Path:
    path = Path(".env")
    path.write_text(text)
    path.chmod(mode)
    return path


@pytest.mark.parametrize(
    ("line", "value"),
    [
        ("HF_TOKEN=abc", "abc"),
        ("export HF_TOKEN=abc", "abc"),
        ("  HF_TOKEN = abc  ", "abc"),
        ('HF_TOKEN="a b#c"', "a b#c"),
        ("HF_TOKEN='a \"b'", 'a "b'),
        ("HF_TOKEN=abc # mine", "abc"),
        ("HF_TOKEN='abc' # mine", "abc"),
        ("HF_TOKEN=a#b", "a#b"),
        ("HF_TOKEN=a=b==", "a=b=="),
        ("HF_TOKEN=$(touch owned)$HOME`id`", None),
        ("HF_TOKEN='$(touch owned) $HOME'", "$(touch owned) $HOME"),
        ("HF_TOKEN=${HOME}", "${HOME}"),
        ("HF_TOKEN=abc\r", "abc"),
        ("\ufeffHF_TOKEN=abc", "abc"),
        ("HF_TOKEN=x\nHF_TOKEN=y", "y"),
        ("HF_TOKEN=", None),
        ("HF_TOKEN=''", None),
        ("HF_TOKEN= # none", None),
        ("# HF_TOKEN=abc", None),
        ("HF_TOKEN=a b", None),
        ('HF_TOKEN="a', None),
        ('HF_TOKEN="a"b', None),
        ("HF_TOKEN=a\0b", None),
        ("HF_TOKEN", None),
        ("=abc", None),
    ],
)
def test_lines(line: str, value: str | None) -> None:
    write(line)
    assert read_env(Path(".env")).get("HF_TOKEN") == value
    assert not Path("owned").exists()


def test_the_environment_comes_first(monkeypatch: pytest.MonkeyPatch) -> None:
    write("HF_TOKEN=file\nWANDB_API_KEY=file\nNCBI_API_KEY=file\nPATH=nowhere\nAWS_SECRET=x\n")
    monkeypatch.setenv("HF_TOKEN", "mine")
    path = os.environ["PATH"]
    assert load_env() == ["WANDB_API_KEY", "NCBI_API_KEY"]
    assert os.environ["HF_TOKEN"] == "mine"  # noqa: S105
    assert os.environ["WANDB_API_KEY"] == "file"
    assert os.environ["PATH"] == path
    assert "AWS_SECRET" not in os.environ
    assert load_env() == []


def test_this_folder_and_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write("HF_TOKEN=above")
    (tmp_path / "inner").mkdir()
    monkeypatch.chdir(tmp_path / "inner")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_env() == []
    assert "HF_TOKEN" not in os.environ
    assert load_env(tmp_path) == ["HF_TOKEN"]


def test_no_value_is_told(capsys: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    lines = [
        f"HF_TOKEN={SECRET}1",
        f"NCBI_API_KEY {SECRET}2",
        f'OMIM_API_KEY="{SECRET}3',
        f"UNKNOWN={SECRET}4",
        f"{SECRET}5",
    ]
    write("\n".join(lines), 0o644)
    console.set_level(3)
    try:
        assert load_env() == ["HF_TOKEN"]
        Path(".env").write_bytes(b"HF_TOKEN=" + SECRET.encode() + b"\0\xff")
        assert load_env() == []
    finally:
        console.set_level(0)
    told = capsys.readouterr()
    assert SECRET not in told.err + told.out + caplog.text
    assert "warning: .env, line 2: not of the form NAME=value, left out (and 2 more)" in told.err
    assert ".env can be read by others than you: chmod 600 .env" in told.err
    assert ".env: HF_TOKEN set" in told.err
    assert "UNKNOWN" not in told.err
    assert "warning: .env is not read: it is no text" in told.err


def test_hints_are_for_those_who_ask(capsys: pytest.CaptureFixture[str]) -> None:
    write("HF_TOKEN=x", 0o644)
    load_env()
    write("OMIM_API_KEY=x", 0o600)
    load_env()
    assert capsys.readouterr().err == ""


def test_what_is_no_such_file_is_passed_over(capsys: pytest.CaptureFixture[str]) -> None:
    assert load_env() == []
    assert capsys.readouterr().err == ""
    Path(".env").mkdir()
    assert load_env() == []
    Path(".env").rmdir()
    Path(".env").symlink_to("/dev/zero")
    assert load_env() == []
    Path(".env").unlink()
    os.mkfifo(".env")
    assert load_env() == []
    Path(".env").unlink()
    write("#" * (1 << 17) + "\nHF_TOKEN=x")
    assert load_env() == []
    told = capsys.readouterr().err.splitlines()
    assert told == [
        "warning: .env is not read: it is no file",
        "warning: .env is not read: it is no file",
        "warning: .env is not read: it is no file",
        "warning: .env is not read: it is too large",
    ]


def test_the_example_names_every_key_with_what_it_is_for() -> None:
    text = (ROOT / ".env.example").read_text()
    assert set(re.findall(r"^# .*https://\S+.*\n(\w+)=$", text, re.MULTILINE)) == set(KEYS) == set(DOCTOR_KEYS)
    write(text)
    assert read_env(Path(".env")) == {}
