"""Any table of vectors with what is known about each row: CSV, TSV, Parquet, NPZ, h5ad, HDF5 arrays.

Columns are those that the settings name, else those whose names say what they are:

    id              id, sample_id, particle_id
    label           label, class, protein, object_name, structure_name, cell_type
    run             run, run_name, tomogram
    coordinates     x, y, z
    voxel_spacing   voxel_spacing, pixel_size

In a table of text every other column of numbers is part of the vector; in other files the vectors are one array.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from elute.base.errors import ConfigError, DataError, near
from elute.particles.table import PLACE, ParticleTable, source_table

if TYPE_CHECKING:
    import polars as pl

    from elute.particles.settings import SourceConfig

_WORDS = {
    "id": ("id", "sample_id", "particle_id", "particle"),
    "label": ("label", "class", "protein", "object_name", "structure_name", "cell_type"),
    "run": ("run", "run_name", "tomogram"),
    "spacing": ("voxel_spacing", "pixel_size"),
}
_TEXT = (".csv", ".tsv")
_PIECE = 1 << 14


@dataclass(frozen=True)
class Named:
    """Which column is what; nothing where none is."""

    id: str | None
    label: str | None
    run: str | None
    place: tuple[str, ...]
    spacing: str | None

    def every(self) -> list[str]:
        """All columns that are known by name."""
        return [c for c in (self.id, self.label, self.run, self.spacing, *self.place) if c is not None]


def named_columns(columns: Collection[str], source: SourceConfig, *, where: object, but: Collection[str] = ()) -> Named:
    """Say which column is what: as the settings say, else as names say."""
    known = list(columns)
    asked = {"id": source.id_column, "label": source.label_column, "run": source.run_column}
    for name in (*(n for n in asked.values() if n is not None), *source.coordinate_columns):
        if name not in known:
            raise ConfigError(f"has no column {name!r}", where=where, remedy=near(name, known))
    lower = {name.lower(): name for name in reversed(known) if name not in but}
    found = {
        what: asked.get(what) or next((lower[word] for word in words if word in lower), None)
        for what, words in _WORDS.items()
    }
    guessed = tuple(lower[axis] for axis in PLACE) if all(axis in lower for axis in PLACE) else ()
    return Named(found["id"], found["label"], found["run"], source.coordinate_columns or guessed, found["spacing"])


def read_table(source: SourceConfig, *, digest: str = "") -> ParticleTable:
    """Read any table of vectors."""
    if source.path.suffix.lower() in _TEXT:
        vectors, frame, found = _text(source)
    else:
        vectors, frame, found = _array(source)
    columns = _known(frame, found, source)
    return source_table(source.name, vectors, columns, digest=digest, where=source.path)


def _text(source: SourceConfig) -> tuple[Any, pl.DataFrame, Named]:
    """Read a table of text: every column of numbers that is nothing else is part of the vector."""
    from elute.store.imports.samples import read_metadata

    frame = read_metadata(source.path)
    found = named_columns(frame.columns, source, where=source.path)
    numbers = [c for c, kind in frame.schema.items() if kind.is_numeric() and c not in found.every()]
    if not numbers:
        raise DataError("has no columns of numbers for the vectors", where=source.path, remedy="Check what wrote it.")
    wide = frame.select(numbers)
    if (empty := sum(wide.null_count().row(0))) > 0:
        raise DataError(f"{empty:,} numbers of the vectors are missing or NaN", where=source.path,
                        remedy="Drop those particles, or compute their vectors anew.")  # fmt: skip
    return wide.to_numpy(), frame, found


def _array(source: SourceConfig) -> tuple[Any, pl.DataFrame, Named]:
    """Read an array, and the columns beside it."""
    import polars as pl

    from elute.store.imports.kinds import read_contents
    from elute.store.imports.source import open_source

    contents = read_contents(source.path)
    arrays = {key.rpartition("/")[2] for key in contents.arrays if key}
    wanted = source.key.strip("/").rpartition("/")[2] if source.key else None
    names = {n: n for n in contents.columns if n not in arrays or n != wanted}
    found = named_columns(list(names), source, where=source.path)
    opened = open_source(
        source.path, keys=[source.key] if source.key else [], sample_id=found.id,
        columns=list(dict.fromkeys(c for c in found.every() if c != found.id)),
    )  # fmt: skip
    site, width = next(iter(opened.sites.items()))
    vectors = np.empty((opened.n_rows, width), np.float32)
    frames, at = [], 0
    for rows, frame in opened.pieces(_PIECE):
        part = rows[site]
        vectors[at : at + len(frame)] = np.asarray(part.float() if hasattr(part, "float") else part, np.float32)
        frames.append(frame)
        at += len(frame)
    whole = pl.concat(frames)
    if found.id is None and contents.index is not None:
        return vectors, whole, Named("sample_id", found.label, found.run, found.place, found.spacing)
    given = None if found.id is None else "sample_id"
    return vectors, whole, Named(given, found.label, found.run, found.place, found.spacing)


def _known(frame: pl.DataFrame, found: Named, source: SourceConfig) -> dict[str, Any]:
    """What the columns tell of each particle."""
    import polars as pl

    out: dict[str, Any] = {
        what: frame[column].cast(pl.String)
        for what, column in (("id", found.id), ("label", found.label), ("run", found.run))
        if column is not None
    }
    return out | placed(frame, found, source)


def placed(frame: pl.DataFrame, found: Named, source: SourceConfig) -> dict[str, object]:
    """Coordinates in ångström, and the voxel spacing, as far as a table and the settings tell them."""
    import polars as pl

    spacing = None if found.spacing is None else frame[found.spacing].cast(pl.Float64).to_numpy()
    if source.voxel_spacing is not None:
        spacing = np.full(len(frame), source.voxel_spacing)
    out: dict[str, object] = {} if spacing is None else {"voxel_spacing": spacing}
    if not found.place:
        return out
    held = frame.select(found.place).cast(pl.Float64).to_numpy()
    if source.unit == "voxel":
        if spacing is None:
            raise DataError("coordinates are in voxels, and no voxel spacing is known", where=source.path,
                            remedy="Give voxel_spacing beside unit: voxel.")  # fmt: skip
        held = held * spacing[:, None]
    return out | dict(zip(PLACE, held.T, strict=True))
