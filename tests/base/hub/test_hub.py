from __future__ import annotations

import hashlib
import importlib.util
import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from elute.base import console
from elute.base.errors import (
    BusyError,
    ConfigError,
    DamagedError,
    DataError,
    EluteError,
    GuardError,
    MissingError,
    SpaceError,
)
from elute.base.hub import errors as hub_errors
from elute.base.hub import folder as hub_folder
from elute.base.hub import pull as pulling
from elute.base.hub import push as pushing
from elute.base.hub.address import Address, parse
from elute.base.hub.connection import Kind
from elute.base.hub.pull import Pulled

REPO = "lab/cells-sae"
MADE = {
    "sae_final.pt": bytes(range(256)) * 700,
    "config.yaml": b"train:\n  seed: 7\n",
    "run.json": b"{}\n",
    "README.md": b"---\nlicense: mit\n---\n# A dictionary\n",
    "training_metrics.json": b'{"final": {}}\n',
    "saelens/cfg.json": b'{"d_in": 6}\n',
    "saelens/sae_weights.safetensors": b"\x08" * 5000,
}
KIND = Kind(
    "dictionary",
    ("sae_final.pt", "config.yaml", "run.json", "training_metrics*.json", "README.md", "saelens/**"),
    ("sae_final.pt",),
    finish="Train the dictionary to its end first.",
)
KEPT_HERE = ("checkpoint.pt", "training_metrics.jsonl", "notes/saelens.txt", "saelens/.cfg.json.tmp", ".netrc")


def load_fake() -> ModuleType:
    spec = importlib.util.spec_from_file_location("fake_hub", Path(__file__).with_name("fake_hub.py"))
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules["fake_hub"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


fake_hub = load_fake()
TOKEN: str = fake_hub.TOKEN


@pytest.fixture(autouse=True)
def nothing_of_this_machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fake_hub.leave_this_machine_out(monkeypatch, tmp_path)


@pytest.fixture
def server() -> Iterator[Any]:
    with fake_hub.serve() as running:
        yield running


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return write(tmp_path / "made", {**MADE, **dict.fromkeys(KEPT_HERE, b"mine")})


def write(folder: Path, made: dict[str, bytes]) -> Path:
    for name, data in made.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def read(folder: Path) -> dict[str, bytes]:
    """All of a pulled folder but for what says where it came from."""
    own = (".lock", "hub.json")
    found = [path for path in folder.rglob("*") if path.is_file() and path.name not in own]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in found}


def push(server: Any, folder: Path, *, repo: str = REPO, names: tuple[str, ...] = KIND.names, **more: Any) -> Address:
    kind = replace(KIND, names=names)
    return pushing.push(folder, repo, kind, endpoint=server.url, **{"token": TOKEN, "message": "Made", **more})


def pull(server: Any, repo: str = REPO, *, names: tuple[str, ...] = KIND.names, **more: Any) -> Pulled:
    return pulling.pull(repo, replace(KIND, names=names), **{"endpoint": server.url, "token": TOKEN, **more})


# Addresses


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("hf://a/b", Address("a/b")),
        ("hf://a/b/", Address("a/b")),
        ("hf://models/a/b", Address("a/b")),
        ("hf://a/b@v1.0", Address("a/b", "v1.0")),
        ("hf://a/b@v1/c/d", Address("a/b", "v1", "c/d")),
        ("hf://a/b/c", Address("a/b", None, "c")),
        ("hf://a/b@refs/pr/3/c", Address("a/b", "refs/pr/3", "c")),
        ("hf://a/b@refs%2Fpr%2F3", Address("a/b", "refs/pr/3")),
        ("hf://A-1/b_2.c@feature%2Fx", Address("A-1/b_2.c", "feature/x")),
    ],
)
def test_addresses(text: str, address: Address) -> None:
    assert parse(text) == address
    assert parse(str(address)) == address


@pytest.mark.parametrize("text", ["runs/sae", "/a/b", "sae_final.pt", "https://huggingface.co/a/b", "hf:/a/b", ""])
def test_what_is_no_address(text: str) -> None:
    assert parse(text) is None


@pytest.mark.parametrize(
    "text",
    [
        *("hf://", "hf://a", "hf://a/", "hf:///b", "hf://a/../b", "hf://../b", "hf://a/b@", "hf://a/b@x/../../y"),
        *("hf://a/b/../c", "hf://a/b//c", "hf://a/b/.", "hf://a/b@a b", "hf://a/b@%2e%2e", "hf://a--b/c", "hf://a/b?x"),
        *("hf://datasets/a/b", "hf://a/b@..%2fc", "hf://a/b@x%00", "hf://é/b", "hf://a/b/\x1b[2J", "hf://a/b@refs"),
    ],
)
def test_addresses_that_a_hub_would_not_have(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse(text)
    assert str(caught.value).isprintable()


# There and back


def test_what_was_pushed_comes_back(server: Any, folder: Path, tmp_path: Path, capsys: Any) -> None:
    address = push(server, folder)
    assert address == Address(REPO, server.repos[REPO].head)
    assert set(server.repos[REPO].commits[address.revision]) == {*MADE, ".gitattributes"}
    there = pull(server, folder=tmp_path / "there")
    assert there.address == address
    assert there.folder == tmp_path / "there"
    assert sorted(there.files) == sorted(MADE)
    assert read(there.folder) == MADE
    record = json.loads((there.folder / "hub.json").read_text())
    assert (record["repo"], record["commit"], record["complete"]) == (REPO, address.revision, True)
    assert TOKEN not in capsys.readouterr().err


def test_the_cache_has_a_folder_for_each_commit(server: Any, folder: Path, tmp_path: Path) -> None:
    first = push(server, folder)
    write(folder, {"sae_final.pt": b"better", "config.yaml": b"train:\n  seed: 8\n"})
    (folder / "saelens" / "cfg.json").unlink()
    second = push(server, folder)
    assert first.revision != second.revision
    new, old = pull(server), pull(server, str(first))
    assert new.folder.name == second.revision
    assert new.folder.is_relative_to(tmp_path / "home" / "elute")
    assert old.folder.name == first.revision
    assert read(old.folder) == MADE
    assert read(new.folder) == read(pull(server, revision="main", cache=tmp_path / "other").folder)
    assert read(new.folder)["sae_final.pt"] == b"better"
    assert "saelens/cfg.json" not in read(new.folder)  # what was gone from the folder went from the hub too


def test_a_commit_that_was_pulled_needs_no_network(server: Any, folder: Path) -> None:
    address = push(server, folder)
    pulled = pull(server)
    asked = len(server.requests)
    again = pulling.pull(str(address), KIND, endpoint="http://127.0.0.1:1")
    assert (again.folder, set(again.files)) == (pulled.folder, set(pulled.files))
    assert len(server.requests) == asked
    before = server.count("/resolve/")
    assert pull(server).folder == pulled.folder
    assert server.count("/resolve/") == before
    (pulled.folder / "run.json").write_bytes(b"cut off")
    assert read(pull(server, str(address)).folder) == MADE
    assert server.count("GET /lab/cells-sae/resolve") == len(MADE) + 1


def test_a_folder_follows_its_branch(server: Any, folder: Path, tmp_path: Path) -> None:
    push(server, folder)
    pull(server, folder=tmp_path / "there")
    (folder / "saelens" / "cfg.json").unlink()
    write(folder, {"run.json": b"{ }\n"})
    push(server, folder)
    before = server.count("GET /lab/cells-sae/resolve")
    there = pull(server, folder=tmp_path / "there")
    left = {name: data for name, data in MADE.items() if name != "saelens/cfg.json"}
    assert read(there.folder) == {**left, "run.json": b"{ }\n"}
    assert server.count("GET /lab/cells-sae/resolve") == before + 1


def test_one_folder_of_a_repository(server: Any, folder: Path, tmp_path: Path) -> None:
    push(server, folder)
    tree = server.repos[REPO].commits[server.repos[REPO].head]
    tree["layer_3/sae_final.pt"], tree["layer_3/saelens/x.json"], tree["layer_3/evil.py"] = b"three", b"{}", b"exit()"
    there = pull(server, f"hf://{REPO}/layer_3")
    assert read(there.folder) == {"sae_final.pt": b"three", "saelens/x.json": b"{}"}
    assert there.address.path == "layer_3"
    assert pull(server).folder != there.folder
    with pytest.raises(DataError, match="no such file or folder"):
        pull(server, f"hf://{REPO}/layer_4")


def test_only_named_files_travel(server: Any, folder: Path) -> None:
    push(server, folder, names=("sae_final.pt", "run.json"))
    assert set(server.repos[REPO].commits[server.repos[REPO].head]) == {"sae_final.pt", "run.json", ".gitattributes"}
    tree = server.repos[REPO].commits[server.repos[REPO].head]
    tree.update({"modeling.py": b"exit()", "saelens/.hidden": b"x", "sae_final.pt.exe": b"x", "xsaelens/y": b"x"})
    assert set(read(pull(server).folder)) == {"sae_final.pt", "run.json"}
    assert set(read(pull(server, names=("sae_final.pt",)).folder)) == {"sae_final.pt"}


def test_pushing_the_same_again_makes_no_commit(server: Any, folder: Path, capsys: Any) -> None:
    assert push(server, folder) == push(server, folder)
    assert len(server.repos[REPO].commits) == 2
    assert "empty commit" not in capsys.readouterr().err


def test_a_page_that_others_wrote_stays(server: Any, folder: Path) -> None:
    push(server, folder)
    server.repos[REPO].commits[server.repos[REPO].head]["PLOTS.md"] = b"theirs"
    (folder / "README.md").unlink()
    (folder / "run.json").unlink()
    tree = server.repos[REPO].commits[push(server, folder).revision or ""]
    assert tree["README.md"] == MADE["README.md"]
    assert tree["PLOTS.md"] == b"theirs"
    assert "run.json" not in tree


def test_a_warning_of_the_library_is_one_line(server: Any, folder: Path, capsys: Any) -> None:
    write(folder, {"README.md": b"no metadata"})
    push(server, folder)
    assert [line for line in capsys.readouterr().err.splitlines() if line.startswith("warning")] == [
        f"warning: hf://{REPO}: Warnings while validating metadata in README.md: - empty or missing yaml metadata"
    ]


# Private repositories and tokens


def test_private_is_private(server: Any, folder: Path, tmp_path: Path) -> None:
    push(server, folder, private=True)
    assert server.repos[REPO].private
    assert read(pull(server).folder) == MADE
    with pytest.raises(MissingError, match=r"is not there, or http://127.* wants a token.*set HF_TOKEN"):
        pull(server, token=None, cache=tmp_path / "c")
    push(server, folder, private=True)


def test_private_files_do_not_go_into_a_public_repository(server: Any, folder: Path) -> None:
    push(server, folder, names=("sae_final.pt",))
    with pytest.raises(GuardError, match="is public already, and --private was asked for"):
        push(server, folder, private=True)
    assert len(server.repos[REPO].commits) == 2


def test_the_token_comes_from_the_environment(server: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(MissingError, match="pushing needs a token.*Set HF_TOKEN"):
        push(server, folder, token=None)
    assert not server.requests
    monkeypatch.setenv("HF_TOKEN", TOKEN + "\n")
    push(server, folder, token=None)
    assert server.repos[REPO].head


@pytest.mark.parametrize("token", ["hf_wrong" * 4, f"{TOKEN}\nx", "hf_ünïcode", "a b"])
def test_a_bad_token_is_not_repeated(server: Any, folder: Path, token: str, capsys: Any) -> None:
    for attempt in (push, lambda *a, **k: pull(a[0], **k)):
        with pytest.raises((MissingError, ConfigError)) as caught:
            attempt(server, folder, token=token)
        assert "token" in str(caught.value)
        assert token not in str(caught.value)
        assert caught.value.__cause__ is None
    assert token not in capsys.readouterr().err


def test_a_token_that_may_only_read(server: Any, folder: Path) -> None:
    with pytest.raises(
        MissingError, match=r"does not allow this \(You lack the rights.*Set HF_TOKEN to a token that may"
    ):
        push(server, folder, token=fake_hub.READER)
    push(server, folder)
    with pytest.raises(MissingError, match="does not allow this"):
        push(server, folder, token=fake_hub.READER)


# What a hub can answer


@pytest.mark.parametrize(
    ("status", "headers", "kind", "line"),
    [
        (401, {}, MissingError, "does not accept the token"),
        (401, {"X-Error-Code": "RepoNotFound"}, DataError, "has no such model repository"),
        (403, {"X-Error-Message": f"Bearer {TOKEN} is weak"}, MissingError, r"does not allow this \(Bearer \*\*\*"),
        (403, {"X-Error-Code": "GatedRepo"}, MissingError, f"accepted its conditions.*Accept them at .*/{REPO}, then"),
        (404, {}, DataError, "has no such model repository.*for a private one, set HF_TOKEN"),
        (404, {"X-Error-Code": "RevisionNotFound"}, DataError, "there is no such revision"),
        (412, {}, BusyError, "was changed by somebody else meanwhile"),
        (418, {}, EluteError, "answered 418"),
        (429, {}, EluteError, "had too many requests"),
        (503, {}, EluteError, r"has a fault \(503\)"),
        (400, {}, EluteError, "answered 400"),
    ],
)
def test_answers_are_one_line(
    server: Any, status: int, headers: dict[str, str], kind: type[EluteError], line: str
) -> None:
    server.repos[REPO] = fake_hub.Repo()
    server.status["GET /api/models/"] = (status, headers)
    with pytest.raises(kind, match=f"^hf://{REPO}@v1: .*{line}") as caught:
        pull(server, revision="v1")
    assert "\n" not in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_what_is_not_there(server: Any, folder: Path) -> None:
    with pytest.raises(DataError, match=r"hf://lab/other: .*no such model repository"):
        pull(server, "lab/other")
    push(server, folder)
    with pytest.raises(DataError, match=f"hf://{REPO}@v9: there is no such revision"):
        pull(server, revision="v9")
    del server.repos[REPO].commits[server.repos[REPO].head]["sae_final.pt"]
    with pytest.raises(DataError, match=r"holds no sae_final\.pt"):
        pull(server)


def test_a_commit_by_somebody_else_meanwhile(server: Any, folder: Path) -> None:
    push(server, folder)
    repo, listing = server.repos[REPO], fake_hub.Handler.listing
    write(folder, {"run.json": b"{ }\n"})

    def overtaken(self: Any, *words: str) -> None:
        listing(self, *words)
        repo.commit({**repo.commits[repo.head], "theirs": b"x"})

    with pytest.MonkeyPatch.context() as patch, pytest.raises(BusyError, match="changed by somebody else"):
        patch.setattr(fake_hub.Handler, "listing", overtaken)
        push(server, folder)
    assert read(pull(server).folder) == MADE


@pytest.mark.parametrize("attempt", ["push", "pull"])
def test_nobody_listens(folder: Path, attempt: str) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: refused
        endpoint = f"http://user:secret@127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(EluteError, match=r"http://127\.0\.0\.1:\d+ cannot be reached.*Check the network") as caught:
            if attempt == "push":
                pushing.push(folder, REPO, KIND, message="Made", endpoint=endpoint, token=TOKEN)
            else:
                pulling.pull(REPO, KIND, endpoint=endpoint, token=TOKEN)
    assert "secret" not in str(caught.value)
    assert TOKEN not in str(caught.value)


def test_the_network_is_switched_off(server: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(MissingError, match="the network is switched off. Unset HF_HUB_OFFLINE"):
        pull(server)


def test_something_else_answers(server: Any) -> None:
    server.status["/api/"] = (200, {})
    with pytest.raises(DataError, match="the answer of .* is not understood.*HF_ENDPOINT is a hub"):
        pull(server)
    with pytest.raises(ConfigError, match="is no address of a hub"):
        pulling.pull(REPO, KIND, endpoint="localhost:80")


# Hostile and damaged content


@pytest.mark.parametrize("name", ["../x", "saelens/../../x", "/etc/x", "saelens//x", "saelens/./x", "saelens/a\x1b[2J"])
def test_a_name_that_leads_elsewhere_condemns_the_list(server: Any, folder: Path, tmp_path: Path, name: str) -> None:
    push(server, folder)
    server.extra.append({"type": "file", "path": name, "size": 1, "oid": fake_hub.git(b"x")})
    before = server.count("/resolve/")
    with pytest.raises(DamagedError, match="leads elsewhere: refused"):
        pull(server, folder=tmp_path / "deep" / "er" / "there")
    assert server.count("/resolve/") == before
    assert not (tmp_path / "deep").exists()


@pytest.mark.parametrize("name", ["sae_final.pt", "run.json"])
def test_other_bytes_than_were_listed(server: Any, folder: Path, tmp_path: Path, name: str) -> None:
    push(server, folder)
    server.altered[name] = MADE[name][::-1]
    with pytest.raises(DamagedError, match=f"{name}: is not what the hub lists"):
        pull(server, folder=tmp_path / "there")
    assert not (tmp_path / "there" / name).exists()
    server.altered.clear()
    assert read(pull(server, folder=tmp_path / "there").folder) == MADE


def test_a_commit_that_is_none(server: Any, folder: Path) -> None:
    push(server, folder)
    repo = server.repos[REPO]
    repo.commits["../../x"] = repo.commits[repo.head]
    repo.head = "../../x"
    with pytest.raises(DamagedError, match="the hub names no commit"):
        pull(server)


def test_a_pull_that_was_cut_off_goes_on(
    server: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(server, folder)
    server.status["/resolve/" + server.repos[REPO].head + "/saelens/"] = (404, {"X-Error-Code": "EntryNotFound"})
    with pytest.raises(DataError, match="no such file"):
        pull(server, folder=tmp_path / "there")
    there = set(read(tmp_path / "there")) & set(MADE)
    assert there == {name for name in MADE if name < "saelens/"}  # they come in the order of their names
    assert not json.loads((tmp_path / "there" / "hub.json").read_text())["complete"]
    server.status.clear()
    before = server.count("GET /lab/cells-sae/resolve")
    assert read(pull(server, folder=tmp_path / "there").folder) == MADE
    assert server.count("GET /lab/cells-sae/resolve") == before + len(MADE) - len(there)


def test_a_line_that_breaks_is_taken_up(server: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    push(server, folder)
    monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda _: None)
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10_000)  # what it goes on from
    server.cut_after = 100_000  # of 179,200: the rest comes with a second request
    assert read(pull(server).folder) == MADE
    assert server.count("GET /lab/cells-sae/resolve") == len(MADE) + 1


@pytest.fixture
def bars(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The lines of progress that were shown."""
    shown: list[Any] = []

    class Kept(console.Progress):
        def __init__(self, *words: Any) -> None:
            super().__init__(*words)
            shown.append(self)

    monkeypatch.setattr(console, "Progress", Kept)
    return shown


@pytest.mark.parametrize("whole_only", [False, True])
def test_a_process_that_was_ended_inside_a_file_goes_on_there(
    server: Any, folder: Path, monkeypatch: pytest.MonkeyPatch, bars: list[Any], whole_only: bool
) -> None:
    push(server, folder, names=("sae_final.pt",))
    monkeypatch.setattr("huggingface_hub.constants.DOWNLOAD_CHUNK_SIZE", 10_000)

    def interrupted(bar: Any, amount: int = 1) -> None:
        bar.done += amount
        if bar.done == 150_000:
            raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("elute.base.console.Progress.advance", interrupted)
        pull(server)
    server.whole_only = whole_only
    assert read(pull(server).folder) == {"sae_final.pt": MADE["sae_final.pt"]}
    assert [headers.get("Range") for headers in server.headers] == [None, "bytes=140000-"]
    assert (bars[-1]._first, bars[-1].done, bars[-1].total) == (140_000, 179_200, 179_200)


def test_what_came_of_other_files_is_removed_and_makes_no_room(
    server: Any, folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    push(server, folder, names=("sae_final.pt",))
    staging = tmp_path / "there" / ".pull"
    entry = hub_folder.Entry(179_200, "sha256:" + hashlib.sha256(MADE["sae_final.pt"]).hexdigest())
    write(staging, {"sha256-other": b"x" * 9000, ".cache/x": b"x", entry.part: MADE["sae_final.pt"][:179_000]})
    monkeypatch.setattr(hub_folder.files, "free_bytes", lambda _: 199)
    with pytest.raises(SpaceError, match="200 B are to come, and there is room for 199 B"):
        pull(server, folder=tmp_path / "there")
    assert [path.name for path in staging.iterdir()] == [entry.part]
    monkeypatch.setattr(hub_folder.files, "free_bytes", lambda _: 200)
    pull(server, folder=tmp_path / "there")
    assert not staging.exists()


def test_bytes_that_were_spoilt_on_the_disk_are_fetched_anew(server: Any, folder: Path, tmp_path: Path) -> None:
    push(server, folder, names=("sae_final.pt",))
    part = "sha256-" + hashlib.sha256(MADE["sae_final.pt"]).hexdigest()
    write(tmp_path / "there" / ".pull", {part: b"spoilt"})
    with pytest.raises(DamagedError, match="is not what the hub lists. Run the same command again"):
        pull(server, folder=tmp_path / "there")
    assert read(pull(server, folder=tmp_path / "there").folder) == {"sae_final.pt": MADE["sae_final.pt"]}


def test_a_store_of_large_files_does_not_get_the_token(server: Any, folder: Path) -> None:
    push(server, folder, private=True)
    with fake_hub.serve() as store:
        store.repos[REPO] = fake_hub.Repo(commits=server.repos[REPO].commits)
        server.store = store.url
        assert read(pull(server).folder) == MADE
        assert {headers.get("authorization") for headers in server.headers} == {f"Bearer {TOKEN}"}
        assert not [headers for headers in store.headers if "authorization" in {name.lower() for name in headers}]
        assert len(store.headers) == len(MADE)


def test_commits_in_the_cache(server: Any, folder: Path, tmp_path: Path) -> None:
    assert pulling.in_cache(Address(REPO), KIND) == []
    push(server, folder)
    first = pull(server)
    write(folder, {"run.json": b"{ }\n"})
    push(server, folder)
    second = pull(server)
    (tmp_path / "home" / "elute" / "lab--cells-sae" / ("0" * 40)).mkdir()
    for early, late in ((first, second), (second, first)):
        os.utime(early.folder / "hub.json", (1, 1))
        os.utime(late.folder / "hub.json", (2, 2))
        assert [pulled.folder for pulled in pulling.in_cache(Address(REPO), KIND)] == [early.folder, late.folder]
    (first.folder / "run.json").unlink()
    assert [pulled.folder for pulled in pulling.in_cache(Address(REPO), KIND)] == [second.folder]
    assert pulling.in_cache(Address(REPO, path="layer_3"), KIND) == []
    assert pulling.in_cache(Address(REPO), replace(KIND, names=("run.json",))) == []


def test_one_list_shows_all_folders(server: Any, folder: Path) -> None:
    push(server, folder)
    listing = pulling.look(Address(REPO), endpoint=server.url, token=TOKEN)
    assert listing.address.revision == server.repos[REPO].head
    inner = listing.below("saelens")
    assert (inner.address.path, set(inner.entries)) == ("saelens", {"cfg.json", "sae_weights.safetensors"})
    assert not listing.below("saelen").entries
    assert not listing.below("run.json").entries
    weights = Kind("set of weights", ("*.safetensors",))
    pulled = pulling.bring(inner, weights, endpoint=server.url, token=TOKEN)
    assert read(pulled.folder) == {"sae_weights.safetensors": MADE["saelens/sae_weights.safetensors"]}
    assert pulling.in_cache(Address(REPO, path="saelens"), weights)[0].address == pulled.address


@pytest.mark.parametrize(
    ("name", "travels"),
    [
        ("a.json", True), ("b-1.bin", True), ("c/d/e", True), ("b-/1.bin", False), ("x/a.json", False), ("c", False),
        ("b-1.bin.exe", False), ("A.json", False), ("c/.d", False), (".c/d", False), ("xc/d", False),
    ],
)  # fmt: skip
def test_which_names_travel(name: str, travels: bool) -> None:
    assert Kind("thing", ("a.json", "b-*.bin", "c/**")).allows(name) is travels


def test_a_folder_of_something_else_is_left_alone(server: Any, folder: Path, tmp_path: Path) -> None:
    push(server, folder)
    with pytest.raises(GuardError, match="holds other files already"):
        pull(server, folder=folder)
    assert read(folder) == {**MADE, **dict.fromkeys(KEPT_HERE, b"mine")}
    pull(server, folder=tmp_path / "there")
    server.repos["lab/second"] = server.repos[REPO]
    with pytest.raises(GuardError, match="holds another dictionary"):
        pull(server, "lab/second", folder=tmp_path / "there")
    for broken in (b"{", b"[]", b'{"files": {"a": 3}}'):
        (tmp_path / "there" / "hub.json").write_bytes(broken)
        with pytest.raises(DamagedError, match="is not the record of a pull"):
            pull(server, folder=tmp_path / "there")


def test_a_record_of_somebody_else_removes_nothing_outside(server: Any, folder: Path, tmp_path: Path) -> None:
    push(server, folder)
    there = pull(server, folder=tmp_path / "there").folder
    record = json.loads((there / "hub.json").read_text())
    record["files"]["../made/run.json"] = record["files"]["run.json"]
    (there / "hub.json").write_text(json.dumps({**record, "complete": False}))
    pull(server, folder=there)
    assert (folder / "run.json").exists()


def test_no_room(server: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    push(server, folder)
    monkeypatch.setattr(hub_folder.files, "free_bytes", lambda _: 1000)
    with pytest.raises(SpaceError, match=r"184\.\d kB are to come, and there is room for 1\.0 kB"):
        pull(server)
    assert server.count("/resolve/") == 0


# What goes up


def test_folders_that_hold_no_dictionary(server: Any, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such folder"):
        push(server, tmp_path / "none")
    write(tmp_path / "half", {"config.yaml": b"", "checkpoint.pt": b"x"})
    with pytest.raises(DataError, match=r"holds no sae_final\.pt.*Train the dictionary to its end"):
        push(server, tmp_path / "half")
    assert not server.requests


def test_a_link_out_of_the_folder_does_not_go_up(server: Any, folder: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("x")
    (folder / "saelens" / "key.json").symlink_to(tmp_path / "secret")
    with pytest.raises(GuardError, match="is a link to a file outside the folder"):
        push(server, folder)
    assert not server.requests


@pytest.mark.parametrize("repo", ["sae", "a/b/c", "../a/b", "a/b.git/..", "hf://a/b@main", "a b/c", "a/b\n"])
def test_bad_names_are_refused_before_anything_is_sent(server: Any, folder: Path, repo: str) -> None:
    with pytest.raises(ConfigError):
        push(server, folder, repo=repo)
    assert not server.requests


def test_words_of_the_library_are_cleaned() -> None:
    text = f"Illegal header b'Bearer {TOKEN}' for https://me:pw@host/x hf_{'z' * 20}\n" + "x" * 500
    cleaned = hub_errors._clean(text, None)
    assert TOKEN not in cleaned
    assert "zzz" not in cleaned
    assert hub_errors._clean("no rights for odd-token here", "odd-token") == "no rights for *** here"
    assert "me:pw" not in cleaned
    assert len(cleaned) <= 300
    assert "\n" not in cleaned


def test_reading_an_address_loads_nothing_heavy() -> None:
    code = (
        "import sys; from elute.base.hub.address import parse; parse('hf://a/b'); "
        "print([m for m in ('torch', 'numpy', 'huggingface_hub') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60)
    assert done.stdout == "[]\n"
