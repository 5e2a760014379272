"""Which files of a run travel; how they do is tested with elute.base.hub."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from elute.base.errors import DataError, GuardError
from elute.dictionaries import hub

REPO = "lab/cells-sae"
MADE = {
    name: name.encode()
    for name in (
        "sae_final.pt",
        "config.yaml",
        "run.json",
        "README.md",
        "training_metrics.json",
        "saelens/cfg.json",
        "saelens/sae_weights.safetensors",
    )
}
KEPT_HERE = (
    "checkpoint.pt",
    "training_metrics.jsonl",
    "notes/saelens.txt",
    "saelens/.cfg.json.tmp",
    "rows.safetensors",
)


def load_fake() -> ModuleType:
    path = Path(__file__).parents[1] / "base" / "hub" / "fake_hub.py"
    spec = importlib.util.spec_from_file_location("fake_hub", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["fake_hub"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fake_hub = load_fake()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Any]:
    fake_hub.leave_this_machine_out(monkeypatch, tmp_path)
    monkeypatch.setenv("HF_TOKEN", fake_hub.TOKEN)
    with fake_hub.serve() as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (*MADE, *KEPT_HERE):
        path = tmp_path / "made" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(name.encode())
    return tmp_path / "made"


def test_a_run_goes_there_and_comes_back(server: Any, folder: Path) -> None:
    address = hub.push(folder, REPO, endpoint=server.url)
    assert set(server.repos[REPO].commits[address.revision]) == {*MADE, ".gitattributes"}
    pulled = hub.pull(REPO, endpoint=server.url)
    assert sorted(pulled.files) == sorted(MADE)
    assert {name: (pulled.folder / name).read_bytes() for name in pulled.files} == MADE
    assert hub.pull(str(address), endpoint="http://127.0.0.1:1").folder == pulled.folder


def test_names_may_be_fewer(server: Any, folder: Path) -> None:
    hub.push(folder, REPO, endpoint=server.url)
    assert hub.pull(REPO, endpoint=server.url, names=("run.json",), needed=()).files == ("run.json",)
    with pytest.raises(DataError, match=r"holds no sae_final\.pt. A dictionary that was pushed holds sae_final\.pt"):
        hub.pull(REPO, endpoint=server.url, names=("run.json",))


def test_what_is_no_dictionary(server: Any, folder: Path, tmp_path: Path) -> None:
    (folder / "sae_final.pt").unlink()
    with pytest.raises(DataError, match=r"holds no sae_final\.pt. Train the dictionary to its end first"):
        hub.push(folder, REPO, endpoint=server.url)
    hub.push(folder, REPO, endpoint=server.url, names=("run.json",))
    server.repos["lab/second"] = server.repos[REPO]
    hub.pull(REPO, endpoint=server.url, folder=tmp_path / "there", needed=())
    with pytest.raises(GuardError, match="holds another dictionary"):
        hub.pull("lab/second", endpoint=server.url, folder=tmp_path / "there", needed=())
