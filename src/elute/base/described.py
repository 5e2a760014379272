"""Files of tensors that one string of JSON, `config`, describes: heads, fusions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from elute.base.errors import DamagedError, VersionError
from elute.base.tensors import load_tensors


def load_described(path: Path, kind: str, *, schema: int, remedy: str) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return what a file says of itself, and the rest of its content; `schema` is the newest that is understood."""
    content = load_tensors(path)
    if not isinstance(content, dict) or not isinstance(content.get("config"), str):
        raise DamagedError(f"is no file of {kind}", where=path, remedy=remedy)
    try:
        told = json.loads(content.pop("config"))
    except (ValueError, RecursionError):
        told = None
    written = told.get("schema_version") if isinstance(told, dict) else None
    if type(written) is not int or written < 1 or not isinstance(told, dict):
        raise DamagedError("its description is damaged", where=path, remedy=remedy)
    if written > schema:
        raise VersionError("was written by a newer elute", where=path, remedy="Update elute.")
    return told, content
