"""The published Tahoe-x1 models: one size's folder from the Hugging Face hub, at one commit.

The commit that was downloaded first is used from then on, without the network, until a revision is named.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from elute.base import console, files
from elute.base.errors import ConfigError, DataError, EluteError, MissingError, near
from elute.base.hub.address import Address, checked
from elute.base.hub.connection import Kind
from elute.base.hub.folder import Entry
from elute.base.hub.pull import Listing, Pulled, at_commit, bring, in_cache, look
from elute.models.tahoe.config import COLLATOR_FILE, MODEL_FILE, VOCABULARY_FILE, WEIGHTS_FILE

REPO = "tahoebio/Tahoe-x1"
FOLDERS = {"70m": ("70m-model",), "1.3b": ("1b-model", "1.3b-model"), "3b": ("3b-model",)}

_INDEX = f"{WEIGHTS_FILE}.index.json"
_SHARDS = "model-*.safetensors"
_SHARD = re.compile(r"model-(\d+)-of-(\d+)\.safetensors")
_NEEDED = (MODEL_FILE, COLLATOR_FILE, VOCABULARY_FILE)
KIND = Kind("model", (*_NEEDED, WEIGHTS_FILE, _INDEX, _SHARDS, "drug_to_id*.json"), _NEEDED)


@dataclass(frozen=True)
class Fetched:
    """A model's folder on this machine, and whence it came."""

    folder: Path
    repo: str
    path: str
    commit: str


def fetch(
    size: str,
    *,
    revision: str | None = None,
    cache: Path | None = None,
    endpoint: str | None = None,
    token: str | None = None,
) -> Fetched:
    """Return the folder of a published model, downloaded if it is not in the cache."""
    if size.lower() not in FOLDERS:
        raise ConfigError(f"there is no Tahoe-x1 of size {size!r}", remedy=near(size, FOLDERS))
    size = size.lower()
    address = checked(Address(REPO, revision), f"{REPO}@{revision}")
    places = [replace(address, path=path) for path in FOLDERS[size]]
    if revision is None:
        whole = [pulled for place in places for pulled in in_cache(place, KIND, cache=cache)]
        if whole:
            return _told(size, whole, "pinned when it was first downloaded; --revision names another")
    elif found := next(filter(None, (at_commit(place, KIND, cache=cache) for place in places)), None):
        return _told(size, [found], "from the cache")
    listing = _folder(size, _listing(address, places, cache, endpoint=endpoint, token=token))
    wanted = {name: entry for name, entry in listing.entries.items() if KIND.allows(name)}
    total, free = sum(entry.size for entry in wanted.values()), files.free_bytes(_root(cache))
    console.say(f"Tahoe-x1 {size}: {console.size(total)} from {listing.address}, {console.size(free)} are free")
    pulled = bring(replace(listing, entries=wanted), KIND, cache=cache, endpoint=endpoint, token=token)
    return _told(size, [pulled], "used from now on" if revision is None else f"as revision {revision}")


def _told(size: str, found: list[Pulled], why: str) -> Fetched:
    """Say which commit is used."""
    pulled = found[0]
    commit = pulled.address.revision or ""
    others = f"; the cache holds {len(found) - 1} more" if len(found) > 1 else ""
    console.say(f"Tahoe-x1 {size}: commit {commit}, {why}{others}")
    return Fetched(pulled.folder, pulled.address.repo, pulled.address.path, commit)


def _listing(
    address: Address, places: list[Address], cache: Path | None, *, endpoint: str | None, token: str | None
) -> Listing:
    """What the hub lists; where it cannot be asked, the line says how to go on without it."""
    try:
        return look(address, endpoint=endpoint, token=token)
    except EluteError as error:
        if not isinstance(error, MissingError) and type(error) is not EluteError:
            raise
        ways = [error.remedy, "Or give the folder of a model that you have: --model FOLDER."]
        if kept := [pulled.address.revision for place in places for pulled in in_cache(place, KIND, cache=cache)]:
            ways.append(f"Or leave --revision out: commit {kept[0]} is in the cache.")
        raise type(error)(error.what, where=error.where, remedy=" ".join(ways)) from None


def _folder(size: str, listing: Listing) -> Listing:
    """The folder of a size, with one form of its weights."""
    inner = next((inner for path in FOLDERS[size] if (inner := listing.below(path)).entries), None)
    if inner is None:
        there = sorted({name.partition("/")[0] for name in listing.entries if "/" in name})
        what = f"holds no folder {' and no folder '.join(FOLDERS[size])}, where the {size} model was looked for"
        remedy = f"Its folders are {', '.join(there)}." if there else "It has no folders."
        raise DataError(what, where=listing.address, remedy=f"{remedy} Fetch the right one, and give --model FOLDER.")
    if WEIGHTS_FILE in inner.entries:
        one = {n: e for n, e in inner.entries.items() if n != _INDEX and not n.startswith("model-")}
        return replace(inner, entries=one)
    _check_shards(inner.entries, inner.address)
    return inner


def _check_shards(entries: Mapping[str, Entry], address: Address) -> None:
    shards = [found for name in entries if (found := _SHARD.fullmatch(name))]
    if _INDEX not in entries or not shards:
        what = f"holds no {WEIGHTS_FILE}, and no {_SHARDS} with {_INDEX}"
        raise DataError(what, where=address, remedy="Name another --revision.")
    there, total = {int(found[1]) for found in shards}, max(int(found[2]) for found in shards)
    if missing := sorted(set(range(1, total + 1)) - there):
        what = f"of {total} parts of the weights, {', '.join(map(str, missing))} are missing"
        raise DataError(what, where=address, remedy="Name another --revision.")


def _root(cache: Path | None) -> Path:
    if cache is not None:
        return cache
    from huggingface_hub import constants

    return Path(constants.HF_HOME)
