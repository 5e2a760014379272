"""A training checkpoint: everything that a later step depends on, in one file that replaces the one before.

    checkpoint.pt    tensors under `part.name`, and one string of JSON: step, settings, place in the data, numbers

It is written to a hidden neighbour and renamed, so that a kill leaves the old one or the new one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from elute.base import files
from elute.base.errors import ConfigError, DamagedError, VersionError
from elute.base.tensors import load_tensors

if TYPE_CHECKING:
    from torch import Tensor

NAME = "checkpoint.pt"
SCHEMA = 1


def save(folder: Path, parts: Mapping[str, Mapping[str, Any]], told: Mapping[str, Any]) -> None:
    """Write a checkpoint: `parts` hold tensors and numbers, `told` is JSON."""
    import torch

    tensors: dict[str, Tensor] = {}
    numbers: dict[str, Any] = {}
    for part, values in parts.items():
        for name, value in values.items():
            (tensors if isinstance(value, torch.Tensor) else numbers)[f"{part}.{name}"] = value
    text = json.dumps({"schema": SCHEMA, "numbers": numbers, **told})

    def fill(handle: BinaryIO) -> None:
        torch.save({"told": text, **tensors}, handle)

    files.write_atomically(folder / NAME, fill)


def load(folder: Path) -> tuple[dict[str, dict[str, Any]], dict[str, Any]] | None:
    """Read the checkpoint of a folder, nothing where there is none."""
    path = folder / NAME
    if not path.exists():
        return None
    try:
        content = load_tensors(path)
        told = json.loads(content.pop("told"))
        numbers = dict(told.pop("numbers"))
        schema = int(told.pop("schema"))
        missing = {"step", "settings", "stream", "sums", "figures"} - told.keys()
        named = all(isinstance(name, str) for name in content)
    except (DamagedError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise damaged(folder) from error
    if schema <= SCHEMA and (missing or not named):
        raise damaged(folder)
    if schema > SCHEMA:
        raise VersionError("was written by a newer elute", where=path, remedy="Update elute.")
    parts: dict[str, dict[str, Any]] = {}
    for name, value in {**content, **numbers}.items():
        part, _, rest = name.partition(".")
        parts.setdefault(part, {})[rest] = value
    return parts, told


class OtherSettingsError(ConfigError):
    """What lies there was trained with other settings."""


def damaged(folder: Path) -> DamagedError:
    """What is said of a checkpoint that cannot be gone on from."""
    return DamagedError("is not a whole training checkpoint", where=folder / NAME, remedy="Start over with --anew.")


def belongs(folder: Path, settings: Mapping[str, Any]) -> bool:
    """Whether a folder's checkpoint was written under these settings; one that cannot be read belongs to nobody."""
    try:
        found = load(folder)
    except DamagedError:
        return False
    return found is not None and found[1]["settings"] == dict(settings)


def same_settings(folder: Path, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with other settings than those that a checkpoint was written under; say which differ."""
    changes = []
    for section in sorted(before.keys() | now.keys()):
        old, new = before.get(section), now.get(section)
        if isinstance(old, dict) and isinstance(new, dict):
            keys = sorted(k for k in old.keys() | new.keys() if old.get(k) != new.get(k))
            changes += [f"{section}.{k} was {old.get(k)!r} and is now {new.get(k)!r}" for k in keys]
        elif old != new:
            changes.append(f"{section} was {old!r} and is now {new!r}")
    if changes:
        more = f" (and {len(changes) - 2} more)" if len(changes) > 2 else ""
        remedy = "Give the same settings to go on, --anew to start over, or another --output."
        raise OtherSettingsError("; ".join(changes[:2]) + more, where=folder, remedy=remedy)
