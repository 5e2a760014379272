from __future__ import annotations

import importlib.util
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from elute.base import console
from elute.base.errors import ConfigError, DamagedError, DataError, EluteError, MissingError, SpaceError
from elute.base.hub import folder as hub_folder
from elute.models.tahoe import hub
from elute.models.tahoe.hub import Fetched

NOBODY = "http://127.0.0.1:1"
CONFIGURATION = {
    "model_config.yml": b"d_model: 8\n",
    "collator_config.yml": b"num_bins: 51\n",
    "vocab.json": b'{"<pad>": 0}\n',
}
MODEL = {**CONFIGURATION, "model.safetensors": bytes(range(256)) * 800}
OTHER = {
    "modeling.py": b"exit()",
    "pytorch_model.bin": b"x",
    "README.md": b"x",
    ".hidden": b"x",
    "old/vocab.json": b"x",
}
PARTS = [f"model-0000{n}-of-00003.safetensors" for n in (1, 2, 3)]
SHARDED = {**CONFIGURATION, "model.safetensors.index.json": b"{}", **{name: name.encode() * 99 for name in PARTS}}


def load_fake() -> ModuleType:
    path = Path(__file__).parents[2] / "base" / "hub" / "fake_hub.py"
    spec = importlib.util.spec_from_file_location("fake_hub", path)
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["fake_hub"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fake_hub = load_fake()


@pytest.fixture(autouse=True)
def nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_hub.leave_this_machine_out(monkeypatch, tmp_path)
    monkeypatch.setenv("HF_TOKEN", fake_hub.TOKEN)


@pytest.fixture
def server() -> Iterator[Any]:
    with fake_hub.serve() as running:
        yield running


def publish(server: Any, **folders: dict[str, bytes]) -> str:
    """Make a commit of folders; their names are given with an underscore for what no keyword may hold."""
    tree = {
        f"{name.lstrip('_').replace('_', '-')}/{file}": d for name, made in folders.items() for file, d in made.items()
    }
    repo = server.repos.setdefault(hub.REPO, fake_hub.Repo())
    return str(repo.commit({"README.md": b"cells", **tree}))


def fetch(server: Any, size: str = "70m", **more: Any) -> Fetched:
    return hub.fetch(size, **{"endpoint": server.url, **more})


def read(folder: Path) -> dict[str, bytes]:
    found = [path for path in folder.rglob("*") if path.is_file() and path.name not in (".lock", "hub.json")]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


# There


def test_one_folder_comes_whole_and_nothing_else(server: Any, tmp_path: Path, capsys: Any) -> None:
    extra = {"drug_to_id_pyr.json": b"{}"}
    commit = publish(server, _70m_model={**MODEL, **extra, **OTHER}, _3b_model=MODEL)
    found = fetch(server, cache=tmp_path / "cache")
    assert read(found.folder) == {**MODEL, **extra}
    assert found == Fetched(found.folder, "tahoebio/Tahoe-x1", "70m-model", commit)
    assert found.folder.is_relative_to(tmp_path / "cache")
    record = json.loads((found.folder / "hub.json").read_text())
    assert (record["repo"], record["path"], record["commit"]) == (found.repo, found.path, commit)
    told = capsys.readouterr().err
    assert f"Tahoe-x1 70m: 204.8 kB from hf://tahoebio/Tahoe-x1@{commit}/70m-model, " in told
    assert f"Tahoe-x1 70m: commit {commit}, used from now on" in told
    assert fake_hub.TOKEN not in told


def test_it_goes_on_where_it_was_cut_off(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    commit = publish(server, _70m_model=MODEL)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10_000)
    shown = []

    class Interrupted(console.Progress):
        def advance(self, amount: int = 1) -> None:
            super().advance(amount)
            shown.append(self)
            if amount == 10_000 and self.done > 100_000:
                raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(console, "Progress", Interrupted)
        fetch(server)
    total = sum(map(len, MODEL.values()))
    assert (shown[-1].title, shown[-1].unit, shown[-1].total) == ("pull", "bytes", total)
    assert 100_000 < shown[-1].done < total
    server.headers.clear()
    assert read(fetch(server).folder) == MODEL
    ranges = [headers.get("Range", "") for headers in server.headers]
    assert [bool(asked) for asked in ranges] == [True, False, False]  # collator_config.yml was there already
    assert 90_000 <= int(ranges[0].removeprefix("bytes=").removesuffix("-")) <= 110_000
    assert fetch(server).commit == commit


def test_an_unsteady_line_is_taken_up_again(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    publish(server, _70m_model=MODEL)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10_000)
    server.cut_after = 90_000
    assert read(fetch(server).folder) == MODEL
    assert server.count("GET /tahoebio/Tahoe-x1/resolve") == len(MODEL) + 2


def test_parts_of_the_weights(server: Any) -> None:
    publish(server, _3b_model=SHARDED, _70m_model={**MODEL, **SHARDED})
    assert read(fetch(server, "3b").folder) == SHARDED
    assert read(fetch(server, "70m").folder) == MODEL  # the whole file is enough


@pytest.mark.parametrize(
    ("made", "line"),
    [
        (CONFIGURATION, r"holds no model\.safetensors, and no model-\*\.safetensors with model\.safetensors\.index"),
        ({k: d for k, d in SHARDED.items() if "index" not in k}, r"holds no model\.safetensors, and no model-\*"),
        ({k: d for k, d in SHARDED.items() if k != PARTS[1]}, "of 3 parts of the weights, 2 are missing"),
        ({k: d for k, d in SHARDED.items() if k != PARTS[2]}, "of 3 parts of the weights, 3 are missing"),
        ({k: d for k, d in MODEL.items() if k != "vocab.json"}, r"holds no vocab\.json"),
    ],
)
def test_a_folder_that_lacks_something(server: Any, made: dict[str, bytes], line: str) -> None:
    publish(server, _3b_model=made)
    with pytest.raises(DataError, match=f"/3b-model: .*{line}"):
        fetch(server, "3b")
    assert server.count("/resolve/") == 0


# Folders' names


@pytest.mark.parametrize("name", ["1b-model", "1.3b-model"])
def test_both_names_of_the_middle_size(server: Any, name: str) -> None:
    repo = server.repos[hub.REPO] = fake_hub.Repo()
    repo.commit({f"{name}/{file}": data for file, data in MODEL.items()})
    found = fetch(server, "1.3b")
    assert (found.path, read(found.folder)) == (name, MODEL)
    assert fetch(server, "1.3B", endpoint=NOBODY) == found
    assert fetch(server, "1.3b", endpoint=NOBODY, revision=found.commit) == found


def test_neither_name(server: Any) -> None:
    publish(server, _13b_model=MODEL, _3b_model=MODEL)
    with pytest.raises(DataError) as caught:
        fetch(server, "1.3b")
    line = str(caught.value)
    assert "holds no folder 1b-model and no folder 1.3b-model, where the 1.3b model was looked for" in line
    assert "Its folders are 13b-model, 3b-model." in line
    assert "--model FOLDER" in line
    assert server.count("/resolve/") == 0


def test_a_size_that_there_is_not() -> None:
    with pytest.raises(ConfigError, match=r"no Tahoe-x1 of size '13b'. Did you mean .*'1\.3b'"):
        hub.fetch("13b")


# Revisions


def test_the_first_commit_is_kept_until_another_is_named(server: Any, capsys: Any) -> None:
    first = publish(server, _70m_model=MODEL)
    old = fetch(server)
    second = publish(server, _70m_model={**MODEL, "vocab.json": b"{}\n"}, _3b_model=MODEL)
    capsys.readouterr()
    asked = len(server.requests)
    assert fetch(server) == fetch(server, endpoint=NOBODY) == old
    assert len(server.requests) == asked
    assert (
        capsys.readouterr().err.splitlines()
        == [f"Tahoe-x1 70m: commit {first}, pinned when it was first downloaded; --revision names another"] * 2
    )
    new = fetch(server, revision="main")
    assert (new.commit, read(new.folder)["vocab.json"]) == (second, b"{}\n")
    assert f"commit {second}, as revision main" in capsys.readouterr().err
    assert fetch(server, endpoint=NOBODY) == old
    assert "; the cache holds 1 more" in capsys.readouterr().err
    assert fetch(server, endpoint=NOBODY, revision=second) == new
    assert f"commit {second}, from the cache" in capsys.readouterr().err
    assert fetch(server, "3b").commit == second  # of that size nothing was there


def test_an_unfinished_download_pins_nothing(server: Any) -> None:
    first = publish(server, _70m_model=MODEL)
    server.status["/vocab.json"] = (404, {"X-Error-Code": "EntryNotFound"})
    with pytest.raises(DataError, match="no such file"):
        fetch(server)
    server.status.clear()
    second = publish(server, _70m_model=MODEL, _3b_model=MODEL)
    assert first != second
    assert fetch(server).commit == second


def test_a_revision_that_does_not_exist(server: Any) -> None:
    publish(server, _70m_model=MODEL)
    for revision in ("v9", "0" * 40):
        with pytest.raises(DataError, match=f"hf://tahoebio/Tahoe-x1@{revision}: there is no such revision. Name a br"):
            fetch(server, revision=revision)
    with pytest.raises(ConfigError, match="is not a revision"):
        fetch(server, revision="../x")
    assert server.count("/resolve/") == 0


# Without the network


def test_nobody_answers_and_nothing_is_there(server: Any) -> None:
    with pytest.raises(EluteError, match=r"cannot be reached.*Check the network.*Or give the folder.*--model FOLDER"):
        fetch(server, endpoint=NOBODY)


def test_the_network_is_switched_off(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    commit = publish(server, _70m_model=MODEL)
    found = fetch(server)
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert fetch(server) == found
    with pytest.raises(MissingError, match=r"switched off. Unset HF_HUB_OFFLINE. Or .*--model FOLDER") as caught:
        fetch(server, "3b")
    assert "--revision" not in str(caught.value)
    with pytest.raises(MissingError, match=f"--model FOLDER. Or leave --revision out: commit {commit} is in the cache"):
        fetch(server, revision="main")


# Damage, room, tokens


def test_a_damaged_file_does_not_get_its_name(server: Any) -> None:
    commit = publish(server, _70m_model=MODEL)
    server.altered["70m-model/model.safetensors"] = MODEL["model.safetensors"][::-1]
    with pytest.raises(
        DamagedError, match=r"model\.safetensors: is not what the hub lists. Run the same command again"
    ):
        fetch(server)
    with pytest.raises(EluteError, match="cannot be reached"):
        fetch(server, endpoint=NOBODY)
    server.altered.clear()
    assert read(fetch(server).folder) == MODEL
    assert fetch(server, endpoint=NOBODY).commit == commit


def test_a_cached_file_that_was_cut_is_fetched_anew(server: Any) -> None:
    publish(server, _70m_model=MODEL)
    folder = fetch(server).folder
    (folder / "model.safetensors").write_bytes(b"cut")
    with pytest.raises(EluteError, match="cannot be reached"):
        fetch(server, endpoint=NOBODY)
    assert read(fetch(server).folder) == MODEL


def test_no_room_is_told_before(server: Any, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    publish(server, _70m_model=MODEL)
    monkeypatch.setattr(hub_folder.files, "free_bytes", lambda _: 5000)
    with pytest.raises(SpaceError, match=r"204\.8 kB are to come, and there is room for 5\.0 kB"):
        fetch(server)
    assert "5.0 kB are free" in capsys.readouterr().err
    assert server.count("/resolve/") == 0


@pytest.mark.parametrize("token", [fake_hub.TOKEN, "hf_wrong" * 4])
def test_the_token_is_never_shown(server: Any, monkeypatch: pytest.MonkeyPatch, token: str, capsys: Any) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    server.repos[hub.REPO] = fake_hub.Repo(private=True)
    for status in (401, 403, 500):
        server.status["GET /api/models/"] = (status, {"X-Error-Message": f"Bearer {token} is weak"})
        with pytest.raises(EluteError) as caught:
            fetch(server)
        assert token not in str(caught.value)
        assert caught.value.__cause__ is None
    assert token not in "".join(capsys.readouterr())
