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
    schema = record.get("schema") if isinstance(record, dict) else None
    if isinstance(schema, int) and schema > SCHEMA:
        raise VersionError(
            f"was written by a newer elute (schema {schema}, this one reads {SCHEMA})",
            where=path,
            remedy="Update elute.",
        )
    if not isinstance(schema, int) or not _whole(record.get("stages")):
        raise DamagedError("is not a run's record", where=path, remedy="Delete it: the stages will be done anew.")
    return dict(record)


def _whole(stages: object) -> bool:
    """Whether each stage holds what `finished` compares and returns."""
    return isinstance(stages, dict) and all(
        isinstance(stage, dict) and all(isinstance(stage.get(key), dict) for key in ("config", "inputs", "summary"))
        for stage in stages.values()
    )


def record(
    folder: Path,
    stage: str,
    config: recipe.Section | Mapping[str, recipe.Section],
    *,
    inputs: Mapping[str, str],
    summary: Mapping[str, Any],
    model: Fingerprint | None = None,
) -> None:
    """Write what a finished stage did; `inputs` map a name to a digest, settings are one section or several by name."""
    known = read(folder)
    known["versions"] = versions()
    known["stages"][stage] = {
        "config": _plain(config),
        "inputs": dict(inputs),
        "model": None if model is None else model.as_json(),
        "summary": dict(summary),
    }
    # The record goes last: it is what `finished` reads, so a process killed between the two does the stage anew.
    recipe.save(folder / "config.yaml", {stage: config} if isinstance(config, recipe.Section) else config)
    files.write_json(folder / "run.json", known)


def finished(
    folder: Path, stage: str, config: recipe.Section | Mapping[str, recipe.Section], *, inputs: Mapping[str, str]
) -> dict[str, Any] | None:
    """Return the summary of a stage that was done with these very settings and inputs, else nothing."""
    known = read(folder)["stages"].get(stage)
    if known is None or known["inputs"] != dict(inputs) or known["config"] != _plain(config):
        return None
    summary: dict[str, Any] = known["summary"]
    return summary


def _plain(config: recipe.Section | Mapping[str, recipe.Section]) -> dict[str, Any]:
    """Settings as the record keeps them: those of one section, or of several by name."""
    if isinstance(config, recipe.Section):
        return config.model_dump(mode="json")
    return recipe.plain(config)
