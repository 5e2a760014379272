"""TomoTwin's two tables: embeddings (Parquet, a row a volume), and what each volume holds (CSV: protein, filepath).

`"output/" + filepath` of the CSV is `filepath` of the Parquet; where the Parquet has no such prefix, the two are equal.
A volume's run is the first part of its path. The CSV may hold more: coordinates (x, y, z), an id, a voxel spacing.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from elute.base.errors import DataError, near
from elute.particles.labels import one_form
from elute.particles.table import ParticleTable, source_table
from elute.particles.vector_tables import named_columns, placed
from elute.store.imports.parts import polars_reading
from elute.store.imports.samples import read_metadata

if TYPE_CHECKING:
    import polars as pl

    from elute.particles.settings import SourceConfig

_PREFIX = "output/"
_LEFT_OUT = ("x", "y", "z", "__index_level_0__")


def read_tomotwin(source: SourceConfig, *, digest: str = "") -> ParticleTable:
    """Read both tables; volumes that one of them lacks are counted and left out."""
    import polars as pl

    if source.coords is None:
        raise DataError("its table of proteins and file paths is missing", where=source.path,
                        remedy="Give coords (tomotwin_coords) beside it.")  # fmt: skip
    embeddings, coords = _embeddings(source.path), read_metadata(source.coords)
    for column in ("protein", "filepath"):
        if column not in coords.columns:
            raise DataError(f"has no column {column!r}", where=source.coords, remedy=near(column, coords.columns))
    coords = coords.with_columns(pl.col("filepath").cast(pl.String), pl.col("protein").cast(pl.String))
    known = set(embeddings["filepath"].to_list())
    prefix = _PREFIX if any(f"{_PREFIX}{p}" in known for p in coords["filepath"].head(1000)) else ""
    keyed = coords.with_columns((pl.lit(prefix) + pl.col("filepath")).alias("_at"))
    for frame, column, path in ((embeddings, "filepath", source.path), (keyed, "_at", source.coords)):
        if frame[column].n_unique() < len(frame):
            twice = frame[column].filter(frame[column].is_duplicated())[0]
            raise DataError(f"file path {twice!r} is given twice", where=path, remedy="Keep one row a volume.")
    both = keyed.with_columns(pl.col("_at").is_in(known).alias("_both")).filter("_both")
    if not len(both):
        one, other = coords["filepath"][0], embeddings["filepath"][0]
        raise DataError(f"no file path is in both tables: {one!r} there, {other!r} here", where=source.path,
                        remedy=f"The Parquet's should be {_PREFIX!r} and the CSV's.")  # fmt: skip
    place = dict(zip(embeddings["filepath"].to_list(), range(len(embeddings)), strict=True))
    rows = np.fromiter((place[at] for at in both["_at"]), dtype=np.int64, count=len(both))
    numbers = [c for c, kind in embeddings.schema.items() if kind.is_numeric() and c.lower() not in _LEFT_OUT]
    if not numbers:
        raise DataError("has no columns of numbers", where=source.path, remedy="Check what wrote it.")
    vectors = embeddings.select(numbers).to_numpy().astype(np.float32)[rows]
    notes = _lost(len(embeddings), len(coords), len(both), source=source)
    return source_table(
        source.name, vectors, _columns(both, source), digest=digest, notes=notes, where=source.path
    )  # fmt: skip


def _embeddings(path: Path) -> pl.DataFrame:
    import polars as pl

    if not path.is_file():
        raise DataError("there is no such file", where=path, remedy="Check the path.")
    with polars_reading(path, "Parquet"):
        frame = pl.read_parquet(path, glob=False, hive_partitioning=False)
    if "filepath" not in frame.columns:
        raise DataError("has no column 'filepath'", where=path, remedy=near("filepath", frame.columns))
    if not len(frame):
        raise DataError("has no rows", where=path, remedy="Check what wrote it.")
    return frame.with_columns(pl.col("filepath").cast(pl.String))


def _columns(both: pl.DataFrame, source: SourceConfig) -> dict[str, object]:
    """What the CSV tells of each volume."""
    import polars as pl

    found = named_columns(both.columns, source, where=source.coords, but=("protein", "filepath"))
    paths, proteins = both["filepath"].to_list(), both["protein"].to_list()
    columns: dict[str, object] = {
        "id": paths if found.id is None else both[found.id].cast(pl.String).to_list(),
        "label": [None if p is None else one_form(p) for p in proteins],
        "object_name": proteins,
        "run": [path.split("/")[0] for path in paths]
        if found.run is None
        else both[found.run].cast(pl.String).to_list(),
    }
    return columns | placed(both, found, source)


def _lost(embedded: int, named: int, both: int, *, source: SourceConfig) -> tuple[str, ...]:
    """Say what one table has and the other lacks."""
    out = []
    if embedded > both:
        out.append(f"{source.name}: {embedded - both:,} embeddings have no row in {Path(str(source.coords)).name}")
    if named > both:
        out.append(f"{source.name}: {named - both:,} rows of {Path(str(source.coords)).name} have no embedding")
    return tuple(out)
