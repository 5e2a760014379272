"""What a page says of the run as a whole: what was read, by what, and what the counts are held against."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base import run
from elute.base.errors import EluteError
from elute.reports.explorer.pack import plain
from elute.reports.explorer.reading import part, plain_tree, record

if TYPE_CHECKING:
    import polars as pl

    from elute.reports.explorer.cell_sample import ShownCells

CONTROLS = "validation/summary.json"
_PIPELINE = "run-pipeline"
_DATABASE = ("title", "snapshot", "taken", "licence", "status", "why", "background", "terms", "features", "significant",
             "plain", "null", "excess", "excess_low", "excess_high", "again", "controls", "notes")  # fmt: skip


def about(home: Path, cells: pl.DataFrame | None, licences: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """Return what is known of the run; what is not recorded is left out."""
    found: dict[str, Any] = {}
    manifest = record(home / "activations" / "manifest.json")
    try:
        stages = plain_tree(run.read(home))
    except EluteError:
        stages = {}
    done = part(stages, "stages", _PIPELINE) or {}
    rows = [each.get("rows") for each in manifest.get("shards", []) if isinstance(each, dict)]
    if rows and all(isinstance(n, int) for n in rows):
        found["rows"] = sum(rows)
    model = part(done, "model", "name") or part(manifest, "model", "name")
    inputs = part(done, "inputs") or part(manifest, "source") or {}
    found |= {"model": model, "data": next(iter(inputs), None), "made_of": [[k, v] for k, v in inputs.items()]}
    digests = part(done, "model") or part(manifest, "model") or {}
    found["made_of"] += [[f"model: {k}", v] for k, v in digests.items() if k != "name" and v is not None]
    if cells is not None:
        found["cells"] = len(cells)
        donors = cells["donor"].drop_nulls().n_unique() if "donor" in cells.columns else 0
        found["donors"] = donors
        if "split" in cells.columns:
            found["splits"] = [list(row) for row in cells["split"].drop_nulls().value_counts(sort=True).rows()]
    found["elute"] = part(stages, "versions", "elute")
    found["programs"] = part(stages, "versions")
    found["licences"] = [{"title": title, "licence": licence} for title, licence in dict.fromkeys(licences)]
    return plain_tree({key: value for key, value in found.items() if value is not None})  # type: ignore[no-any-return]


def site_facts(place: Path, told: dict[str, Any], cells: ShownCells | None) -> dict[str, Any]:
    """Return what is known of a site: its controls, its databases, what its dictionary explains."""
    controls = {key: value for key, value in told.items() if key not in ("databases", "narrator", "kin")}
    shown: dict[str, Any] | None = None
    if cells is not None:
        donors = cells.frame["donor"].drop_nulls().n_unique() if "donor" in cells.frame.columns else 0
        shown = {"of": cells.of, "shown": len(cells.rows), "sampled": cells.sampled, "donors": donors, "map": None}
    return {
        "fdr": rate(told),
        "controls": controls or None,
        "databases": databases(told),
        "narrator": told.get("narrator"),
        "kin": told.get("kin") or [],
        "cells": shown,
        "edges": _edges(),
        "explained": _explained(place, told),
        "extraction": {
            key: value for key, value in record(place / "extraction_summary.json").items() if key != "kinds"
        },
    }


def rate(told: dict[str, Any]) -> float:
    """Return the false-discovery rate at which terms count."""
    fdr = told.get("fdr")
    return float(fdr) if isinstance(fdr, float) and 0 < fdr < 1 else 0.05


def databases(told: dict[str, Any]) -> list[dict[str, Any]]:
    """Return what is told of each database, in their order."""
    found = told.get("databases")
    if not isinstance(found, dict):
        return []
    rows = [(name, each if isinstance(each, dict) else {}) for name, each in found.items()]
    return [
        {"name": name, **{key: each[key] for key in _DATABASE if key in each}, "title": each.get("title") or name}
        for name, each in rows
    ]


def licences(told: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the databases that were asked, with the terms under which they may be used."""
    ran = [each for each in databases(told) if each.get("status") == "run" and each.get("licence")]
    return [(plain(each.get("snapshot") or each["title"]), plain(each["licence"])) for each in ran]


def _edges() -> list[float]:
    """Where the bins of the histograms begin."""
    from elute.analysis import tally

    return [float(f"{edge:.6g}") for edge in tally.EDGES]


def _explained(place: Path, told: dict[str, Any]) -> dict[str, Any]:
    """What the dictionary explains beside as many principal directions, where that was measured."""
    manifest = record(place / "codes" / "manifest.json")
    found = {key: manifest[key] for key in ("n_features", "k") if isinstance(manifest.get(key), int)}
    judged, on = told.get("reconstruction"), "test"
    if not isinstance(judged, dict):
        judged = record(place / "evaluation.json")
        on = judged.get("split", on)
        judged["principal"] = part(judged, "control", "explained_variance_pca")
    if judged.get("principal") is not None:
        both = {"explained": judged.get("explained_variance"), "explained_pca": judged["principal"]}
        found |= {**both, "explained_on": on}
    return found


def summary(place: Path) -> dict[str, Any]:
    """Return what controls and databases wrote of a site."""
    return record(place / CONTROLS)
