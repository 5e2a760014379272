"""Entries of a summary of validation, read one by one: what is no number, or is not there, is nothing.

The summary is a file that anybody may have edited: whatever lies in it, a page comes of it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from elute.reports.validation_svg import plain

NOT_RUN = "not run"


@dataclass(frozen=True)
class Null:
    """How many features matched lists gave: what a count is held against."""

    kind: str
    draws: float | None
    mean: float | None
    low: float | None
    high: float | None


def notes(told: dict[str, Any]) -> tuple[str, ...]:
    """What else has to be known of it."""
    given = told.get("notes")
    return tuple(plain(note) for note in given) if isinstance(given, list) else ()


def further(told: dict[str, Any]) -> tuple[tuple[str, str], ...]:
    """Say what whole rankings, and profiles of phenotypes, give beside their controls."""
    controls, likest = told.get("controls"), told.get("diseases")
    parts = controls.items() if isinstance(controls, dict) else ()
    ranked = [(plain(name), each) for name, each in parts if isinstance(each, dict) and "by_rank" in each]
    said = []
    if number(told.get("by_rank")) is not None:
        beside = "".join(f"; {name} {_count(each['by_rank'])} of {_count(each.get('ranked'))}" for name, each in ranked)
        text = f"{_count(told['by_rank'])} features have a term{beside} (genes as independent)"
        said.append(("By whole rankings", text))
    if isinstance(likest, dict) and isinstance(likest.get("controls"), dict):
        each = {plain(name): control(part)[0] for name, part in likest["controls"].items()}
        beside = "".join(f"; {name} {_count(found)}" for name, found in each.items())
        shown = f"{_count(likest.get('significant'))} of {_count(likest.get('asked'))} features with phenotypes{beside}"
        said.append(("Phenotypes like a disease’s", shown))
    return tuple(said)


def evidence(told: Any) -> str:
    """What of a database was taken."""
    return plain(told.get("keeps") or "") if isinstance(told, dict) else ""


def null(told: dict[str, Any]) -> Null:
    """How many features matched lists gave."""
    numbers = {key: number(told.get(key)) for key in ("draws", "mean", "low", "high")}
    return Null(kind=plain(told.get("kind") or "matched lists"), **numbers)


def control(told: Any) -> tuple[float | None, float | None, str]:
    """How many lists of a control passed, of how many; or why it was not run."""
    if isinstance(told, dict) and number(told.get("significant")) is not None:
        return number(told["significant"]), number(told.get("of")), ""
    why = told.get(NOT_RUN, "") if isinstance(told, dict) else "" if told in (None, NOT_RUN) else told
    return None, None, plain(f"{NOT_RUN}: {why}" if why else NOT_RUN)


def number(value: Any) -> float | None:
    """Return a finite number, or nothing."""
    right = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return value if right else None


def _count(value: Any) -> str:
    found = number(value)
    return NOT_RUN if found is None else f"{found:,.0f}"
