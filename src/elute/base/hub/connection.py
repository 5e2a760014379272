"""The way to a hub: its library, the token, and the lists of files that it gives."""

from __future__ import annotations

import re
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from elute.base.errors import ConfigError, DamagedError, MissingError
from elute.base.hub.address import Address, inside
from elute.base.hub.errors import public
from elute.base.hub.folder import Entry

if TYPE_CHECKING:
    from huggingface_hub import HfApi

SECONDS = 30.0  # how long a hub may take to answer the first question


@dataclass(frozen=True)
class Kind:
    """What travels: its word in messages, and the only files that do, named, as `name-*`, or as `folder/**`."""

    word: str
    names: tuple[str, ...]
    needed: tuple[str, ...] = ()
    """Files without which it is none."""
    finish: str = ""
    """What to do about a folder that lacks one of them, before it is pushed."""

    def allows(self, name: str) -> bool:
        """Whether a file of that name may travel; hidden ones never do."""
        if any(part.startswith(".") for part in name.split("/")):
            return False
        return any(_fits(name, pattern) for pattern in self.names)


def _fits(name: str, pattern: str) -> bool:
    if pattern.endswith("/**"):
        return name.startswith(pattern[:-2])
    return name.count("/") == pattern.count("/") and fnmatchcase(name, pattern)


def connect(endpoint: str | None, token: str | None) -> tuple[HfApi, str | None]:
    """Return the library's client and the token that it uses: the one given, else that of the environment."""
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


def tree(api: HfApi, address: Address) -> dict[str, Entry]:
    """All files below an address, by their names there; one name that leads elsewhere condemns the list."""
    from huggingface_hub.hf_api import RepoFile

    prefix = f"{address.path}/" if address.path else ""
    entries = api.list_repo_tree(address.repo, address.path or None, recursive=True, revision=address.revision)
    listed = {entry.path: entry for entry in entries if isinstance(entry, RepoFile)}
    for name in listed:
        if not inside(name) or not name.startswith(prefix):
            raise DamagedError(f"lists a file named {name!r}, which leads elsewhere: refused", where=address)
    return {
        name.removeprefix(prefix): Entry(
            int(file.size), f"git:{file.blob_id}" if file.lfs is None else f"sha256:{file.lfs.sha256}"
        )
        for name, file in sorted(listed.items())
    }
