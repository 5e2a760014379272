"""A run that is there already: its settings as its record has them, and its tiles where it says they lie."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base import run
from elute.base.errors import DataError, GuardError
from elute.base.recipe import Section, build
from elute.tissue.pipeline import STAGES
from elute.tissue.plan import SECTIONS, Plan

if TYPE_CHECKING:
    from elute.tissue.tiles import Tiles

_ALIGNED = "align_targets"  # a part of train_heads with a record of its own


def recorded_plan(folder: Path) -> Plan:
    """Return the settings with which the stages of a run were done; what is not recorded is as usual."""
    stages = run.read(folder)["stages"]
    found: dict[str, Section] = {}
    for stage in (*STAGES[:3], _ALIGNED, *STAGES[3:]):
        for name, values in stages.get(stage, {}).get("config", {}).items():
            if name in SECTIONS and isinstance(values, dict):
                found[name] = build(SECTIONS[name], values, where=f"{folder / 'run.json'}: {name}")
    return Plan.of(folder, found)


def reopened_tiles(plan: Plan) -> Tiles:
    """Open the tiles of a run where its record says they lie; refuse others than it was made of."""
    from elute.tissue.tile_table import names_digest
    from elute.tissue.tiles import open_tiles

    places = [place for place in (plan.tiles.images, plan.tiles.table, plan.tiles.slides) if place is not None]
    if not places:
        what = "the run does not say where its tiles lie"
        raise DataError(what, where=plan.output, remedy="Type: elute tissue embed_export, with the same --config.")
    for place in places:
        if not place.exists():
            from_there = "It is named from the folder in which the run was made: start there."
            remedy = "Put them back." if place.is_absolute() else from_there
            raise DataError("the tiles of this run are not there", where=place, remedy=remedy)
    tiles = open_tiles(plan.tiles)
    known: dict[str, Any] = run.read(plan.output)["stages"].get("embed_export", {}).get("inputs", {})
    if known.get("tiles") != names_digest(tiles.table):
        what = "the tiles are not those that the run was made of: others, or of other samples or groups"
        raise GuardError(what, where=places[0], remedy="Put them back, or export the embeddings anew with --recapture.")
    return tiles
