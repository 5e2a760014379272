"""A folder's files go up to a hub by name, as one commit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from elute.base import console
from elute.base.errors import ConfigError, DataError, GuardError, MissingError
from elute.base.hub.address import Address, checked, parse
from elute.base.hub.connection import SECONDS, Kind, connect, tree
from elute.base.hub.errors import one_line, public

if TYPE_CHECKING:
    from huggingface_hub import HfApi, ModelInfo


def push(
    folder: Path,
    repo: str,
    kind: Kind,
    *,
    message: str,
    private: bool = False,
    endpoint: str | None = None,
    token: str | None = None,
) -> Address:
    """Upload a folder's files as one commit, and return its address; the repository is made if there is none.

    What an earlier push left under the kind's names, and is no longer in the folder, goes with the same commit; a
    README.md that others wrote stays.
    """
    address = checked(parse(repo) or Address(repo), repo)
    if address.revision or address.path:
        raise ConfigError("is more than a repository's name", where=repo, remedy="Push to owner/name.")
    chosen = _local(folder, kind)
    api, token = connect(endpoint, token)
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
        sha = _commit(api, address, chosen, kind=kind, parent=info.sha, message=message)
    console.say(f"push: {public(api.endpoint)}/{address.repo}/tree/{sha}")
    return replace(address, revision=sha)


def _local(folder: Path, kind: Kind) -> dict[str, Path]:
    """Files of a folder that may go up, by their names there."""
    if not folder.is_dir():
        raise DataError("there is no such folder", where=folder)
    found: dict[str, Path] = {}
    for pattern in kind.names:
        within = (folder / pattern[:-3]).rglob("*") if pattern.endswith("/**") else folder.glob(pattern)
        found.update({p.relative_to(folder).as_posix(): p for p in within if p.is_file()})
    found = {name: path for name, path in sorted(found.items()) if kind.allows(name)}
    for path in found.values():
        if not path.resolve().is_relative_to(folder.resolve()):
            raise GuardError("is a link to a file outside the folder", where=path, remedy="Put the file itself there.")
    if missing := [name for name in kind.needed if name not in found]:
        raise DataError(f"holds no {', '.join(missing)}", where=folder, remedy=kind.finish)
    return found


def _made(api: HfApi, address: Address, *, private: bool) -> ModelInfo:
    """The repository, made if there is none; a token that may write to one alone need not be allowed to make any."""
    from huggingface_hub.errors import RepositoryNotFoundError

    try:
        return api.model_info(address.repo, timeout=SECONDS)
    except RepositoryNotFoundError:
        # Where privacy is not asked for, the owner's own rule for new repositories holds.
        api.create_repo(address.repo, private=private or None, exist_ok=True, repo_type="model")
        return api.model_info(address.repo, timeout=SECONDS)


def _commit(
    api: HfApi, address: Address, chosen: Mapping[str, Path], *, kind: Kind, parent: str | None, message: str
) -> str:
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete

    there = set() if parent is None else set(tree(api, replace(address, revision=parent)))
    stale = [n for n in sorted(there) if kind.allows(n) and n not in chosen and n != "README.md"]
    done = api.create_commit(
        address.repo,
        [
            *(CommitOperationDelete(path_in_repo=name) for name in stale),
            *(CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in chosen.items()),
        ],
        commit_message=message,
        parent_commit=parent,  # what others pushed meanwhile is refused, not mixed in
    )
    return str(done.oid)
