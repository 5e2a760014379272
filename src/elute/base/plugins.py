"""Open folders: name = file name, listed without importing anything, loaded on demand.

A file belongs to a folder's door when it binds the door's name at top level (see contracts.py); files that do not are
the folder's own machinery. Installed packages add to a door by an entry point of its group.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any

from elute.base.contracts import DOORS
from elute.base.errors import ConfigError, MissingError, near


def names(door: str) -> list[str]:
    """Every name behind a door, sorted; nothing is imported."""
    return sorted({*_files(door), *_entries(door)})


def load(door: str, name: str) -> Any:
    """Return the object behind a door's name."""
    key = name.replace("_", "-")
    files = _files(door, key)
    entries = {} if files else _entries(door)
    if key not in files and key not in entries:
        raise ConfigError(f"there is no {name!r} among {door}", remedy=near(key, names(door)))
    try:
        if key in files:
            return getattr(importlib.import_module(files[key]), DOORS[door].binds)
        return entries[key].load()
    except ModuleNotFoundError as error:
        package = (error.name or "").split(".")[0]
        if not package or importlib.util.find_spec(package) is not None:
            raise  # the package is there, so what asks for a part of it that is not has a fault
        raise MissingError(
            f"{name!r} needs the package {package!r}, which is not installed",
            where=door,
            remedy="`elute doctor` says what to type.",
        ) from error


def _files(door: str, only: str | None = None) -> dict[str, str]:
    """Names of our own files behind a door, with their modules: all of them, or one, for which no other is read."""
    package, binds, _ = DOORS[door]
    try:
        spec = importlib.util.find_spec(package)
    except ModuleNotFoundError:
        spec = None
    if spec is None or not spec.submodule_search_locations:
        return {}
    bound = re.compile(rf"^(?:(?:def|class) +{binds}\b|{binds} *(?::|=(?!=)))", re.MULTILINE)
    found = {}
    for folder in map(Path, spec.submodule_search_locations):
        for file in [*folder.glob("*.py"), *folder.glob("*/__init__.py")]:
            stem = file.parent.name if file.name == "__init__.py" and file.parent != folder else file.stem
            name = stem.replace("_", "-")
            if file.name.startswith(".") or only not in (None, name):  # editors and network disks leave .files
                continue
            if bound.search(file.read_text(encoding="utf-8", errors="replace")):
                found[name] = f"{package}.{stem}"
    return found


def _entries(door: str) -> dict[str, EntryPoint]:
    """Names that installed packages add to a door."""
    return {e.name.replace("_", "-"): e for e in entry_points(group=DOORS[door].group)}
