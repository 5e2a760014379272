"""A folder that says where its content came from.

`run.json` holds, a stage each: its settings, the digests of its inputs, the model's fingerprint, what it gave; and the
versions of the programs that matter to a result. It holds no time of day: an interrupted and resumed run ends with the
same bytes as one left alone. `config.yaml` is the same settings in the form that `--config` reads.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from elute.base import files, recipe
from elute.base.contracts import Fingerprint
from elute.base.errors import DamagedError, VersionError

SCHEMA = 1
_TOLD = ("elute", "torch", "numpy", "scipy", "polars", "safetensors")


@dataclass(frozen=True)
class Artifact:
    """What a stage left on disk, and what it found, ready for JSON."""

    kind: str
    path: Path
    summary: dict[str, Any] = field(default_factory=dict)


def versions() -> dict[str, str]:
    """Versions of the programs that matter to a result; nothing is imported."""
    found = {"python": platform.python_version()}
    for name in _TOLD:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found


def read(folder: Path) -> dict[str, Any]:
    """Read `run.json`; an empty record where there is none yet."""
    path = folder / "run.json"
    if not path.exists():
        return {"schema": SCHEMA, "stages": {}}
    record = files.read_json(path, what="a run's record", remedy="Delete it: the stages will be done anew.")
    if not isinstance(record, dict) or not isinstance(record.get("stages"), dict):
        raise DamagedError("is not a run's record", where=path, remedy="Delete it: the stages will be done anew.")
    if record.get("schema", 0) > SCHEMA:
        raise VersionError(
            f"was written by a newer elute (schema {record['schema']}, this one reads {SCHEMA})",
            where=path,
            remedy="Update elute.",
        )
    return record


def record(
    folder: Path,
    stage: str,
    config: recipe.Section,
    *,
    inputs: Mapping[str, str],
    summary: Mapping[str, Any],
    model: Fingerprint | None = None,
) -> None:
    """Write what a finished stage did; `inputs` map a name to a digest."""
    known = read(folder)
    known["versions"] = versions()
    known["stages"][stage] = {
        "config": config.model_dump(mode="json"),
        "inputs": dict(inputs),
        "model": None if model is None else model.as_json(),
        "summary": dict(summary),
    }
    files.write_json(folder / "run.json", known)
    recipe.save(folder / "config.yaml", {stage: config})


def finished(folder: Path, stage: str, config: recipe.Section, *, inputs: Mapping[str, str]) -> dict[str, Any] | None:
    """Return the summary of a stage that was done with these very settings and inputs, else nothing."""
    known = read(folder)["stages"].get(stage)
    if known is None or known["inputs"] != dict(inputs) or known["config"] != config.model_dump(mode="json"):
        return None
    summary: dict[str, Any] = known["summary"]
    return summary
