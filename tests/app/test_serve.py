"""Where the Lab answers, and to whom."""

from __future__ import annotations

import importlib.util
import socket
from pathlib import Path
from typing import Any

import pytest

from elute.app import serve, session
from elute.base.errors import BusyError, ConfigError, MissingError
from elute.cli.main import main

EVERY = "0.0.0.0"  # noqa: S104  # never bound here


def test_the_next_free_port_is_taken_unless_one_was_asked_for() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(BusyError, match=f"port {port} is taken"):
            serve.free_port("127.0.0.1", port)
    assert serve.free_port("127.0.0.1", port) == port
    with socket.socket() as taken:
        try:
            taken.bind(("127.0.0.1", serve.PORT))
            taken.listen()
        except OSError:
            pass  # taken by another program: all the better
        assert serve.free_port("127.0.0.1", None) > serve.PORT


def test_a_host_that_is_none() -> None:
    with pytest.raises(ConfigError, match="--host"):
        serve.free_port("not.a.host.invalid", 8765)
    with pytest.raises(ConfigError, match="cannot be used"):
        serve.free_port("192.0.2.1", 8765)


@pytest.mark.parametrize(
    ("host", "local"),
    [("127.0.0.1", True), ("localhost", True), ("::1", True), (EVERY, False), ("10.0.0.3", False)],
)
def test_what_is_local(host: str, local: bool) -> None:
    assert serve.is_local(host) is local
    assert ("127.0.0.1" in serve.settings(host, 1)["server_allowedHosts"]) is local


def test_the_settings_are_streamlits_own_names() -> None:
    from streamlit import config

    known = config.get_config_options()
    told = serve.settings("127.0.0.1", 8501)
    assert not [name for name in told if name.replace("_", ".") not in known]
    assert told["browser_gatherUsageStats"] is False
    assert told["server_enableStaticServing"] is False


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", 0), (EVERY, 1)])
def test_another_address_is_warned_of(
    made: Path, host: str, warned: int, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ran: list[Any] = []
    monkeypatch.setattr(serve, "_run", lambda *asked: ran.append(asked))
    monkeypatch.setattr(serve, "_announce", lambda *_: None)
    told = serve.serve(made, host=host, port=None)
    assert ran == [(host, int(told.summary["address"].rpartition(":")[2]))]
    said = capsys.readouterr().err
    assert said.count("warning:") == warned
    assert ("no password" in said) == bool(warned)
    session._open.clear()


def test_without_streamlit_it_says_what_to_type(
    made: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *more: None if name == "streamlit" else real(name, *more)
    )
    with pytest.raises(MissingError, match=r"pip install .*\[app\]"):
        serve.serve(made, host="127.0.0.1", port=None)
    assert main(["app", "--results", str(made)]) == 1
    said = capsys.readouterr().err
    assert said.startswith("error: the Lab needs Streamlit, which is not installed. Type: pip install")
    assert said.count("\n") == 1


def test_a_folder_that_is_no_run_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["app", "--results", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert "is not the folder of a run" in said
    assert said.count("\n") == 1
