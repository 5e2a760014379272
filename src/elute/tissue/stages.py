"""What a stage of a run left, so that it is not done twice, and never taken for done when it is not.

A stage is done when its record in `run.json` names the same settings and inputs, and every file that it wrote is still
what it was. A stage that was killed has no record yet, and is done anew.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base import console, files, run
from elute.base.errors import DataError
from elute.base.recipe import plain

if TYPE_CHECKING:
    from elute.base.recipe import Section

_PLACE_ONLY = ("device",)  # where something is computed, which its result does not depend on


def done(
    folder: Path, stage: str, sections: Mapping[str, Section], *, inputs: Mapping[str, str]
) -> dict[str, Any] | None:
    """Return what a stage found, if it was done with these settings and inputs and its files are as it left them."""
    known = run.read(folder)["stages"].get(stage)
    if known is None or known["inputs"] != dict(inputs):
        return None
    if _bare(known["config"]) != _bare(plain(sections)):
        return None
    summary: dict[str, Any] = known["summary"]
    if not intact(folder, summary):
        return None
    console.say(f"{folder}: {stage} was done already, with these settings and inputs")
    return {key: value for key, value in summary.items() if key != "files"}


def intact(folder: Path, summary: Mapping[str, Any]) -> bool:
    """Whether every file that a stage wrote is still what it was."""
    written = summary.get("files", {})
    return isinstance(written, dict) and all(_digest(folder / name) == digest for name, digest in written.items())


def record(
    folder: Path,
    stage: str,
    sections: Mapping[str, Section],
    *,
    inputs: Mapping[str, str],
    summary: Mapping[str, Any],
    written: Iterable[Path],
) -> dict[str, Any]:
    """Note what a stage did, last of all, with the digests of the files that it wrote; returns the summary."""
    told = {path.relative_to(folder).as_posix(): _digest(path) for path in sorted(set(written))}
    run.record(folder, stage, sections, inputs=inputs, summary={**summary, "files": told})
    return dict(summary)


def told(folder: Path, stage: str, *, needs: str) -> dict[str, Any]:
    """Return the record of a stage that must have been done before."""
    known: dict[str, Any] | None = run.read(folder)["stages"].get(stage)
    if known is None:
        raise DataError(f"{stage} has not been done here", where=folder, remedy=f"Type: elute tissue {needs}.")
    return known


def forget(folder: Path, stage: str) -> None:
    """Take a stage's record away before its files are written anew."""
    known = run.read(folder)
    if known["stages"].pop(stage, None) is not None:
        files.write_json(folder / "run.json", known)


def _bare(config: Any) -> Any:
    if isinstance(config, dict):
        return {key: _bare(value) for key, value in config.items() if key not in _PLACE_ONLY}
    return config


def _digest(path: Path) -> str | None:
    return files.digest_file(path)[:16] if path.is_file() else None
