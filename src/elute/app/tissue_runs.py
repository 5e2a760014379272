"""Runs of tissue that the Lab shows: which there are, and what each found, read once while it stays the same."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import streamlit as st

from elute.app.session import Lab, lab
from elute.app.tables import Stamp, stamp
from elute.base.errors import EluteError

if TYPE_CHECKING:
    from elute.reports.tissue.reading import Findings
    from elute.reports.tissue.section_maps import Sections
    from elute.reports.tissue.verdicts import Score, Verdict
    from elute.tissue.tiles import Tiles

_MARK = Path("heads") / "metrics.parquet"
_MOST = 200  # runs beside this one
# What is read of a run: none of it, and nothing in it, may be a link that leads out of the run's folder.
_READ = ("run.json", "encoder.json", "tiles.parquet", "sae_usage.parquet", "heads", "relevance", "refs", "faithfulness",
         "token_maps", "pixel_maps")  # fmt: skip


@dataclass(frozen=True, eq=False)
class Held:
    """What a run found."""

    findings: Findings
    scores: dict[str, dict[str, Score]]  # by gene and model
    verdicts: dict[str, Verdict]
    sections: Sections


def is_run(one: Lab) -> bool:
    """Whether a folder holds a run of tissue with heads."""
    return one.path(_MARK).is_file()


def runs() -> dict[str, Lab]:
    """The runs of tissue by name: the one that is open first, then those beside it."""
    mine = lab()
    found = {mine.folder.name: mine} if is_run(mine) else {}
    for path in _beside(mine.folder):
        if path.name.startswith(".") or path.is_symlink() or path == mine.folder or not path.is_dir():
            continue
        try:
            if is_run(Lab(path)):
                found[path.name] = Lab(path)
        except (EluteError, OSError):
            continue  # what cannot be read is no run to look at
        if len(found) >= _MOST:
            break
    return found


def _beside(folder: Path) -> list[Path]:
    try:
        return sorted(folder.parent.iterdir())
    except OSError:
        return []  # what may not be looked at holds no run for us


def held(one: Lab) -> Held:
    """Return what a run found; it is read anew when a stage has been done since."""
    for path in _inside(one):
        one.path(path.relative_to(one.folder))
    found: Held = _held(str(one.folder), _written(one))
    return found


def tiles_of(one: Lab) -> Tiles:
    """Return the run's tiles, opened where its record says they lie."""
    found: Tiles = _tiles(str(one.folder), _written(one))
    return found


def _written(one: Lab) -> tuple[Stamp, ...]:
    """What changes when a stage has been done: its record goes last."""
    paths = [one.path("run.json"), one.path(_MARK)]
    return tuple(stamp(path) for path in paths if path.exists())


def _inside(one: Lab) -> Iterator[Path]:
    """What is read by its name, and links among what lies in its folders."""
    for name in _READ:
        yield one.folder / name
        if one.path(name).is_dir():
            yield from _links(one.folder / name)


def _links(folder: Path) -> Iterator[Path]:
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                yield Path(entry.path)
            elif entry.is_dir():
                yield from _links(Path(entry.path))


@st.cache_resource(max_entries=3, show_spinner="Reading the run")
def _held(folder: str, written: tuple[Stamp, ...]) -> Any:  # noqa: ARG001  # a part of the key
    import polars as pl

    from elute.reports.tissue.reading import read_findings
    from elute.reports.tissue.section_maps import Sections
    from elute.reports.tissue.verdicts import scores_of, verdict

    found = read_findings(Path(folder))
    by_gene = found.scores.partition_by("gene", as_dict=True, maintain_order=True)
    empty = pl.DataFrame(schema=found.scores.schema)
    scores = {gene: scores_of(by_gene.get((gene,), empty)) for gene in found.genes}
    verdicts = {gene: verdict(mine) for gene, mine in scores.items()}
    return Held(found, scores, verdicts, Sections.of(found.samples))


@st.cache_resource(max_entries=3, show_spinner="Opening the tiles")
def _tiles(folder: str, written: tuple[Stamp, ...]) -> Any:  # noqa: ARG001  # a part of the key
    from elute.tissue.reopening import recorded_plan, reopened_tiles

    return reopened_tiles(recorded_plan(Path(folder)))
