"""Places on a Hugging Face hub: `hf://owner/name@revision/path`, checked before they get into a request or a path."""

from __future__ import annotations

import re
from dataclasses import dataclass
from urllib.parse import quote, unquote

from elute.base.errors import ConfigError

SCHEME = "hf://"

_PART = r"[A-Za-z0-9](?:[\w.-]*[A-Za-z0-9_])?"
_REPO = re.compile(rf"{_PART}/{_PART}", re.ASCII)


@dataclass(frozen=True)
class Address:
    """A place on the hub: a model repository, perhaps at a revision, perhaps a folder inside it."""

    repo: str
    revision: str | None = None
    path: str = ""

    def __str__(self) -> str:
        revision = "" if self.revision is None else "@" + quote(self.revision, safe="")
        return SCHEME + self.repo + revision + (f"/{self.path}" if self.path else "")


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
        raise ConfigError("is no model repository", where=repr(text), remedy="Only those hold models and dictionaries.")
    address = Address(f"{owner}/{name}", unquote(revision) if at else None, path.rstrip("/"))
    return checked(address, text)


def checked(address: Address, text: str) -> Address:
    """Refuse what a hub would not have, before it gets into a request or a path."""
    if not _REPO.fullmatch(address.repo) or "--" in address.repo or ".." in address.repo or len(address.repo) > 96:
        what, remedy = "is not a repository's name", "Write owner/name or hf://owner/name@revision/path."
        raise ConfigError(what, where=repr(text), remedy=remedy)
    revision = address.revision
    if revision is not None and not (re.fullmatch(r"[\w.+/-]+", revision) and inside(revision)):
        raise ConfigError("is not a revision", where=repr(text), remedy="Name a branch, a tag or a whole commit.")
    if address.path and not inside(address.path):
        raise ConfigError("is not a folder of a repository", where=repr(text), remedy="Leave out the dots.")
    return address


def inside(name: str) -> bool:
    """Whether a name with slashes stays below the folder that it is joined to."""
    return name.isprintable() and not any(part in ("", ".", "..") for part in name.split("/"))
