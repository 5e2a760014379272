"""Dictionaries on the Hugging Face hub: which of a run's files go up, and come down."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from elute.base.hub import pull as pulling
from elute.base.hub import push as pushing
from elute.base.hub.address import Address
from elute.base.hub.connection import Kind
from elute.base.hub.pull import Pulled

NEEDED = ("sae_final.pt",)
FILES = (*NEEDED, "centre.safetensors", "config.yaml", "run.json", "training_metrics.json", "README.md", "saelens/**")
KIND = Kind("dictionary", FILES, NEEDED, finish="Train the dictionary to its end first.")


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

    `names` are files, or folders as `name/**`.
    """
    kind = replace(KIND, names=tuple(names), needed=tuple(name for name in NEEDED if name in names))
    message = message or "Dictionary trained with elute"
    return pushing.push(folder, repo, kind, private=private, message=message, endpoint=endpoint, token=token)


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
    kind = replace(KIND, names=tuple(names), needed=tuple(needed))
    return pulling.pull(repo, kind, revision=revision, folder=folder, cache=cache, endpoint=endpoint, token=token)
