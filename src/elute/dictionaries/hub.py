"""Dictionaries on the Hugging Face hub: a folder's files go up by name, and come down whole, checked, at one commit.

1. Only files on a list of names travel, in either direction; nothing that comes down is executed or unpickled.
2. A revision becomes a commit before anything is fetched, and `hub.json` in the folder records it.
3. Each file is held against the digest that the hub lists before it gets its name (see `hub_folder`), so a pull that
   was cut off goes on with the file it stopped at.
4. A commit that was pulled before is used without asking the network.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast
from urllib.parse import quote, unquote, urlsplit

from elute.base import console
from elute.base.errors import ConfigError, DamagedError, DataError, GuardError, MissingError
from elute.dictionaries import hub_folder
from elute.dictionaries.hub_errors import one_line, public
from elute.dictionaries.hub_folder import Entry

if TYPE_CHECKING:
    from huggingface_hub import HfApi, ModelInfo

SCHEME = "hf://"
NEEDED = ("sae_final.pt",)
FILES = (*NEEDED, "config.yaml", "run.json", "training_metrics.json", "README.md", "saelens/**")

_PART = r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9_])?"
_REPO = re.compile(rf"{_PART}/{_PART}", re.ASCII)
_COMMIT = re.compile(r"[0-9a-f]{40}")
_SECONDS = 30.0  # how long a hub may take to answer the first question


@dataclass(frozen=True)
class Address:
    """A place on the hub: a model repository, perhaps at a revision, perhaps a folder inside it."""

    repo: str
    revision: str | None = None
    path: str = ""

    def __str__(self) -> str:
        revision = "" if self.revision is None else "@" + quote(self.revision, safe="")
        return SCHEME + self.repo + revision + (f"/{self.path}" if self.path else "")


@dataclass(frozen=True)
class Pulled:
    """A folder that came from the hub; its address names the commit."""

    folder: Path
    address: Address
    files: tuple[str, ...]


def parse(text: str) -> Address | None:
    """Read `hf://owner/name@revision/path`; nothing if the text is no address of the hub."""
    if not text.startswith(SCHEME):
        return None
    owner, _, rest = text.removeprefix(SCHEME).removeprefix("models/").strip("/").partition("/")
    named, _, path = rest.partition("/")
    name, at, revision = named.partition("@")
    if revision == "refs":  # the one kind of revision that is written with slashes: refs/pr/3
        kind, _, path = path.partition("/")
        number, _, path = path.partition("/")
        revision = f"refs/{kind}/{number}"
    if owner in ("datasets", "spaces", "buckets", "kernels"):
        raise ConfigError("is no model repository", where=repr(text), remedy="Dictionaries lie in those alone.")
    address = Address(f"{owner}/{name}", unquote(revision) if at else None, path.rstrip("/"))
    return _checked(address, text)


def push(
    folder: Path,
    repo: str,
    *,
    private: bool = False,
    message: str | None = None,
    names: Sequence[str] = FILES,
    endpoint: str | None = None,
    token: str | None = None,
) -> Address:
    """Upload a dictionary's files as one commit, and return its address; the repository is made if there is none.

    `names` are files, or folders as `name/**`. What an earlier push left under them, and is no longer in the folder,
    goes with the same commit; a README.md that others wrote stays.
    """
    address = _checked(parse(repo) or Address(repo), repo)
    if address.revision or address.path:
        raise ConfigError("is more than a repository's name", where=repo, remedy="Push to owner/name.")
    chosen = _local(folder, names)
    api, token = _api(endpoint, token)
    if token is None:
        remedy = "Set HF_TOKEN to a token with permission to write."
        raise MissingError("pushing needs a token, and there is none", where=address, remedy=remedy)
    total = console.size(sum(path.stat().st_size for path in chosen.values()))
    console.say(f"push: {console.count(len(chosen), 'file')}, {total}, to {address}")
    with one_line(str(address), api.endpoint, token):
        info = _made(api, address, private=private)
        if private and not info.private:
            remedy = "Make it private on the hub, or push to another name."
            raise GuardError("is public already, and --private was asked for", where=address, remedy=remedy)
        sha = _commit(api, address, chosen, names=names, parent=info.sha, message=message)
    console.say(f"push: {public(api.endpoint)}/{address.repo}/tree/{sha}")
    return replace(address, revision=sha)


def pull(
    repo: str | Address,
    *,
    revision: str | None = None,
    folder: Path | None = None,
    cache: Path | None = None,
    names: Sequence[str] = FILES,
    needed: Sequence[str] = NEEDED,
    endpoint: str | None = None,
    token: str | None = None,
) -> Pulled:
    """Fetch a dictionary into a folder, or into the cache, where each commit has a folder of its own.

    `names` are the files that may come, `needed` those without which there is no dictionary.
    """
    address = repo if isinstance(repo, Address) else parse(repo) or Address(repo)
    address = _checked(replace(address, revision=revision or address.revision), str(repo))
    if _COMMIT.fullmatch(address.revision or "") and (found := _found(address, folder, cache, names=names)):
        return found
    api, token = _api(endpoint, token)
    with one_line(str(address), api.endpoint, token):
        info = api.model_info(address.repo, revision=address.revision, timeout=_SECONDS)
        if not _COMMIT.fullmatch(info.sha or ""):
            raise DamagedError("the hub names no commit for this revision", where=address)
        address = replace(address, revision=info.sha)
        wanted = {name: entry for name, entry in _tree(api, address).items() if _allowed(name, names)}
    if missing := [name for name in needed if name not in wanted]:
        remedy = f"A dictionary that was pushed holds {', '.join(needed)}."
        raise DataError(f"holds no {' and no '.join(missing)}", where=address, remedy=remedy)
    if found := _found(address, folder, cache, names=names):
        return found
    target = _place(address, folder, cache)

    def download(name: str, into: Path, told: Callable[[int], None]) -> Path:
        with one_line(str(address), api.endpoint, token):
            path = f"{address.path}/{name}" if address.path else name
            bar = cast("Any", type("Told", (_Bar,), {"told": staticmethod(told)}))
            return Path(api.hf_hub_download(address.repo, path, revision=info.sha, local_dir=into, tqdm_class=bar))

    hub_folder.fill(target, _stamp(address, names), wanted=wanted, download=download)
    return Pulled(target, address, tuple(wanted))


class _Bar:
    """What the library takes for its bar of progress: bytes are told, nothing is drawn."""

    told: Callable[[int], None]

    def __init__(self, *_: object, **__: object) -> None: ...
    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None: ...
    def update(self, amount: float | None = 1) -> None:
        """Count bytes that came; the library takes back those of a part that it fetches once more."""
        self.told(int(amount or 0))

    def close(self) -> None:
        """Nothing is open."""


def _stamp(address: Address, names: Sequence[str]) -> dict[str, Any]:
    return {"repo": address.repo, "path": address.path, "commit": address.revision, "names": list(names)}


def _found(address: Address, folder: Path | None, cache: Path | None, *, names: Sequence[str]) -> Pulled | None:
    target = _place(address, folder, cache)
    known = hub_folder.known(target, _stamp(address, names))
    return None if known is None else Pulled(target, address, known)


def _api(endpoint: str | None, token: str | None) -> tuple[HfApi, str | None]:
    try:
        from huggingface_hub import HfApi, constants, get_token
    except ImportError:
        raise MissingError("huggingface_hub is not installed", remedy="Type: pip install huggingface_hub") from None
    endpoint = (endpoint or constants.ENDPOINT).rstrip("/")
    if urlsplit(endpoint).scheme not in ("http", "https"):
        raise ConfigError("is no address of a hub", where=public(endpoint), remedy="It begins with https://")
    token = (token or "").strip() or get_token()
    if token is not None and not re.fullmatch(r"[!-~]+", token):
        raise ConfigError("the token has characters that no token has", remedy="Copy HF_TOKEN once more.")
    return HfApi(endpoint=endpoint, token=token or False), token


def _checked(address: Address, text: str) -> Address:
    """Refuse what a hub would not have, before it gets into a request or a path."""
    if not _REPO.fullmatch(address.repo) or "--" in address.repo or ".." in address.repo or len(address.repo) > 96:
        what, remedy = "is not a repository's name", "Write owner/name or hf://owner/name@revision/path."
        raise ConfigError(what, where=repr(text), remedy=remedy)
    revision = address.revision
    if revision is not None and not (re.fullmatch(r"[\w.+/-]+", revision) and _inside(revision)):
        raise ConfigError("is not a revision", where=repr(text), remedy="Name a branch, a tag or a whole commit.")
    if address.path and not _inside(address.path):
        raise ConfigError("is not a folder of a repository", where=repr(text), remedy="Leave out the dots.")
    return address


def _inside(name: str) -> bool:
    """Whether a name with slashes stays below the folder that it is joined to."""
    return name.isprintable() and not any(part in ("", ".", "..") for part in name.split("/"))


def _allowed(name: str, patterns: Sequence[str]) -> bool:
    if any(part.startswith(".") for part in name.split("/")):
        return False
    return any(name.startswith(p[:-2]) if p.endswith("/**") else name == p for p in patterns)


def _local(folder: Path, patterns: Sequence[str]) -> dict[str, Path]:
    """Files of a folder that may go up, by their names there."""
    if not folder.is_dir():
        raise DataError("there is no such folder", where=folder)
    found: dict[str, Path] = {}
    for pattern in patterns:
        within = sorted((folder / pattern[:-3]).rglob("*")) if pattern.endswith("/**") else [folder / pattern]
        found.update({p.relative_to(folder).as_posix(): p for p in within if p.is_file()})
    found = {name: path for name, path in sorted(found.items()) if _allowed(name, patterns)}
    for path in found.values():
        if not path.resolve().is_relative_to(folder.resolve()):
            raise GuardError("is a link to a file outside the folder", where=path, remedy="Put the file itself there.")
    if missing := [name for name in NEEDED if name in patterns and name not in found]:
        raise DataError(f"holds no {', '.join(missing)}", where=folder, remedy="Train the dictionary to its end first.")
    return found


def _made(api: HfApi, address: Address, *, private: bool) -> ModelInfo:
    """The repository, made if there is none; a token that may write to one alone need not be allowed to make any."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return api.model_info(address.repo, timeout=_SECONDS)
    except RepositoryNotFoundError:
        # Where privacy is not asked for, the owner's own rule for new repositories holds.
        api.create_repo(address.repo, private=private or None, exist_ok=True, repo_type="model")
        return api.model_info(address.repo, timeout=_SECONDS)


def _commit(
    api: HfApi, address: Address, chosen: Mapping[str, Path], *, names: Sequence[str], parent: str | None, message: Any
) -> str:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    there = set() if parent is None else set(_tree(api, replace(address, revision=parent)))
    stale = [n for n in sorted(there) if _allowed(n, names) and n not in chosen and n != "README.md"]
    done = api.create_commit(
        address.repo,
        [
            *(CommitOperationDelete(path_in_repo=name) for name in stale),
            *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in chosen.items()),
        ],
        commit_message=message or "Dictionary trained with elute",
        parent_commit=parent,  # what others pushed meanwhile is refused, not mixed in
    )
    return str(done.oid)


def _tree(api: HfApi, address: Address) -> dict[str, Entry]:
    """All files below an address, by their names there; one name that leads elsewhere condemns the list."""
    from huggingface_hub.hf_api import RepoFile

    prefix = f"{address.path}/" if address.path else ""
    entries = api.list_repo_tree(address.repo, address.path or None, recursive=True, revision=address.revision)
    listed = {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}
    for name in listed:
        if not _inside(name) or not name.startswith(prefix):
            raise DamagedError(f"lists a file named {name!r}, which leads elsewhere: refused", where=address)
    return {
        name.removeprefix(prefix): Entry(
            int(file.size), f"git:{file.blob_id}" if file.lfs is None else f"sha256:{file.lfs.sha256}"
        )
        for name, file in sorted(listed.items())
    }


def _place(address: Address, folder: Path | None, cache: Path | None) -> Path:
    if folder is not None:
        return folder
    if cache is None:
        from huggingface_hub import constants

        cache = Path(constants.HF_HOME) / "elute"
    inner = "" if not address.path else "=" + quote(address.path, safe="")
    return cache / address.repo.replace("/", "--") / f"{address.revision}{inner}"
