"""Folders of a Hugging Face hub come down whole, checked, at one commit.

1. Only the files that a kind of content names travel; nothing that comes down is executed or unpickled.
2. A revision becomes a commit before anything is fetched, and `hub.json` in the folder records it.
3. Each file is held against the digest that the hub lists before it gets its name (see `folder`), so a pull that was
   cut off goes on with the file, and from the byte, at which it stopped.
4. A commit that was pulled before is used without asking the network.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

from elute.base.errors import DamagedError, DataError
from elute.base.hub import folder as folders
from elute.base.hub.address import Address, checked, parse
from elute.base.hub.connection import SECONDS, Kind, connect, tree
from elute.base.hub.errors import one_line
from elute.base.hub.folder import Entry

_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Pulled:
    """A folder that came from the hub; its address names the commit."""

    folder: Path
    address: Address
    files: tuple[str, ...]


@dataclass(frozen=True)
class Listing:
    """What a hub lists below an address, which names the commit."""

    address: Address
    entries: Mapping[str, Entry]

    def below(self, path: str) -> Listing:
        """What it lists in one of its folders; nothing if there is no such folder."""
        inner = {name.removeprefix(f"{path}/"): e for name, e in self.entries.items() if name.startswith(f"{path}/")}
        return Listing(replace(self.address, path="/".join(filter(None, (self.address.path, path)))), inner)


def pull(
    repo: str | Address,
    kind: Kind,
    *,
    revision: str | None = None,
    folder: Path | None = None,
    cache: Path | None = None,
    endpoint: str | None = None,
    token: str | None = None,
) -> Pulled:
    """Fetch what lies at an address into a folder, or into the cache, where each commit has a folder of its own."""
    address = repo if isinstance(repo, Address) else parse(repo) or Address(repo)
    address = checked(replace(address, revision=revision or address.revision), str(repo))
    if found := at_commit(address, kind, folder=folder, cache=cache):
        return found
    listing = look(address, endpoint=endpoint, token=token)
    return bring(listing, kind, folder=folder, cache=cache, endpoint=endpoint, token=token)


def look(address: Address, *, endpoint: str | None = None, token: str | None = None) -> Listing:
    """Settle on a commit, and list what lies there."""
    api, token = connect(endpoint, token)
    with one_line(str(address), api.endpoint, token):
        info = api.model_info(address.repo, revision=address.revision, timeout=SECONDS)
        if not _COMMIT.fullmatch(info.sha or ""):
            raise DamagedError("the hub names no commit for this revision", where=address)
        address = replace(address, revision=info.sha)
        return Listing(address, tree(api, address))


def bring(
    listing: Listing,
    kind: Kind,
    *,
    folder: Path | None = None,
    cache: Path | None = None,
    endpoint: str | None = None,
    token: str | None = None,
) -> Pulled:
    """Fetch what was listed, as far as it is of that kind."""
    address, entries = listing.address, {n: e for n, e in listing.entries.items() if kind.allows(n)}
    if missing := [name for name in kind.needed if name not in entries]:
        remedy = f"A {kind.word} that was pushed holds {', '.join(kind.needed)}."
        raise DataError(f"holds no {' and no '.join(missing)}", where=address, remedy=remedy)
    if found := at_commit(address, kind, folder=folder, cache=cache):
        return found
    target = _place(address, folder, cache)
    api, token = connect(endpoint, token)

    def download(name: str, part: Path, told: Callable[[int], None]) -> None:
        with one_line(str(address), api.endpoint, token):
            path = f"{address.path}/{name}" if address.path else name
            _download(replace(address, path=path), part, size=entries[name].size, told=told, api=api)

    folders.fill(target, _stamp(address, kind), wanted=entries, what=kind.word, download=download)
    return Pulled(target, address, tuple(entries))


def at_commit(address: Address, kind: Kind, *, folder: Path | None = None, cache: Path | None = None) -> Pulled | None:
    """Return what was pulled before from this address, if that names a commit and all of it is there."""
    if not _COMMIT.fullmatch(address.revision or ""):
        return None
    target = _place(address, folder, cache)
    known = folders.known(target, _stamp(address, kind), what=kind.word)
    return None if known is None else Pulled(target, address, known)


def in_cache(address: Address, kind: Kind, *, cache: Path | None = None) -> list[Pulled]:
    """Return all commits of an address that lie whole in the cache, the one that was whole first in front."""
    home = _place(replace(address, revision="x"), None, cache).parent
    commits = {path.name.partition("=")[0] for path in home.iterdir()} if home.is_dir() else set()
    found = [at_commit(replace(address, revision=commit), kind, cache=cache) for commit in sorted(commits)]
    return sorted(filter(None, found), key=lambda pulled: (pulled.folder / folders.RECORD).stat().st_mtime_ns)


def _download(address: Address, part: Path, *, size: int, told: Callable[[int], None], api: Any) -> None:
    """Go on with a file at its end; the library's own way to a file would begin it anew in another process."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get

    url = hf_hub_url(address.repo, address.path, revision=address.revision, endpoint=api.endpoint)
    with part.open("ab") as handle:
        had = handle.tell()
        bar = cast("Any", type("Told", (_Bar,), {"told": staticmethod(told), "had": had}))
        # Where a hub sends the request on to a store of large files, the client leaves the token behind.
        headers = {"authorization": f"Bearer {api.token}"} if api.token else {}
        http_get(url, handle, resume_size=had, headers=headers, expected_size=size, tqdm_class=bar)


class _Bar:
    """What the library takes for its bar of progress: bytes are told, nothing is drawn."""

    told: Callable[[int], None]
    had: int

    def __init__(self, *_: object, initial: int = 0, **__: object) -> None:
        self.told(initial - self.had)  # a server that cannot go on in the middle sends all of it once more

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *_: object) -> None: ...
    def update(self, amount: float | None = 1) -> None:
        """Count bytes that came; the library takes back those of a part that it fetches once more."""
        self.told(int(amount or 0))

    def close(self) -> None:
        """Nothing is open."""


def _stamp(address: Address, kind: Kind) -> dict[str, Any]:
    return {"repo": address.repo, "path": address.path, "commit": address.revision, "names": list(kind.names)}


def _place(address: Address, folder: Path | None, cache: Path | None) -> Path:
    if folder is not None:
        return folder
    if cache is None:
        from huggingface_hub import constants

        cache = Path(constants.HF_HOME) / "elute"
    inner = "" if not address.path else "=" + quote(address.path, safe="")
    return cache / address.repo.replace("/", "--") / f"{address.revision}{inner}"
