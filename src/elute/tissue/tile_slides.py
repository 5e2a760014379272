"""Tiles that are cut out of slides: on a grid over the tissue, or around a table's spots.

A table with x and y has a row a spot; one without has a row a slide. A spot's slide is the file that its row names,
or the one whose name is the row's section, or the only one there is.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable
from contextlib import closing
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import polars as pl

from elute.base import console, files
from elute.base.errors import DataError, near
from elute.tissue import slide_tiling
from elute.tissue.slides import SLIDES, cut
from elute.tissue.tile_files import Found, below, digest_files, group_of, listed, with_names
from elute.tissue.tile_images import SUFFIXES
from elute.tissue.tile_table import SCHEMA, read_table

if TYPE_CHECKING:
    from elute.tissue.slides import SlideReader
    from elute.tissue.tile_images import Image
    from elute.tissue.tile_settings import TilesConfig

    Opener = Callable[[Path], SlideReader]

_OPEN = 2  # slides at once


def from_slides(config: TilesConfig, place: Path, *, reader: Opener) -> Found:
    """Find the tiles of some slides."""
    table = None if config.table is None else read_table(config.table, config.roles)
    if table is not None and ("x" in table.columns) != ("y" in table.columns):
        there, lost = ("x", "y") if "x" in table.columns else ("y", "x")
        what = f"has a column for {there} and none for {lost}"
        raise DataError(what, where=config.table, remedy=f"Name it: columns {lost}=COLUMN.")
    parts = []
    with console.progress("slides", None, unit="slides") as bar:
        for path, rows in _slides(config, place, table):
            name = _stem(path.relative_to(place if place.is_dir() else place.parent).as_posix())
            with closing(reader(path)) as slide:
                parts.append((path, _tiles(slide, config, path, rows=_named(rows, name))))
            bar.advance()
    paths = [path for path, part in parts for _ in range(part.height)]
    whole = pl.concat([part for _, part in parts])
    size = config.tile_size or slide_tiling.TILE_SIZE

    def source() -> dict[str, str]:
        settings = config.model_dump(mode="json", include={"tile_size", "microns_per_pixel", "stride", "tissue_share"})
        found = {"slides": digest_files(paths, "digest"), "tiling": files.digest_json([settings, config.max_tiles])}
        return found if config.table is None else {**found, "table": files.digest_file(config.table)}

    return Found(whole, _Cutter(whole, paths, reader=reader, size=size), source, place, size)


class _Cutter:
    """Cuts the picture of a tile; the slides that were used last stay open."""

    def __init__(self, table: pl.DataFrame, paths: list[Path], *, reader: Opener, size: int) -> None:
        self._places = table.select("x", "y", "size_px").rows()
        self._paths, self._reader, self._size = paths, reader, size
        self._open: OrderedDict[Path, SlideReader] = OrderedDict()
        self._lock = threading.Lock()

    def __call__(self, number: int) -> Image:
        path, (x, y, side) = self._paths[number], self._places[number]
        with self._lock:
            slide = self._open.pop(path, None) or self._reader(path)
            self._open[path] = slide
            while len(self._open) > _OPEN:
                self._open.popitem(last=False)[1].close()
            return cut(slide, (x, y), side=side, size=self._size)


def _slides(config: TilesConfig, place: Path, table: pl.DataFrame | None) -> list[tuple[Path, pl.DataFrame]]:
    """Each slide with the rows of the table that are about it; without a table one row is made up."""
    if place.is_dir():
        names = listed(place, (*SLIDES, *SUFFIXES))
        home = place
    elif place.is_file():
        names, home = [place.name], place.parent
    else:
        raise DataError("is not there", where=place, remedy="Check --slides.")
    if not names:
        raise DataError("holds no slides", where=place, remedy=f"Give a folder with files of {', '.join(SLIDES)}.")
    if table is None:
        return [(home / name, pl.DataFrame({"sample": [_stem(name)], "group": [group_of(name)]})) for name in names]
    where = config.table or place
    chosen = [_file(row, names, home, where=where) for row in table.iter_rows(named=True)]
    held = table.with_columns(pl.Series("file", [path.as_posix() for path in chosen]))
    return [(Path(str(name)), part.drop("file")) for (name,), part in held.group_by("file", maintain_order=True)]


def _file(row: dict[str, str | None], names: list[str], home: Path, *, where: Path) -> Path:
    """The slide that a row is about."""
    if "path" in row:
        return below(home, row["path"], where, free=False)
    if "x" in row and len(names) == 1:
        return home / names[0]
    key = row.get("section") if "x" in row else row.get("sample")
    stems = {_stem(name): name for name in names}
    if key is None:
        remedy = "Name the column of its file: columns path=COLUMN."
        raise DataError("does not say which slide a row is of", where=where, remedy=remedy)
    if key not in stems:
        raise DataError(f"there is no slide named {key!r} in {home}", where=where, remedy=near(key, stems))
    return home / stems[key]


def _tiles(slide: SlideReader, config: TilesConfig, path: Path, *, rows: pl.DataFrame) -> pl.DataFrame:
    """The tiles of one slide in the columns of tiles."""
    if "x" in rows.columns and "y" in rows.columns:
        rows = with_names(rows, config.table or path)[slide_tiling.spread(rows.height, config.max_tiles)]
        found = slide_tiling.spots(slide, rows, config, where=path)
    else:
        if rows.height > 1:
            what = f"{rows.height} rows are about {path.name}, and there are no x and y"
            remedy = "Give one row a slide, or name the spots' columns: columns x=COLUMN y=COLUMN."
            raise DataError(what, where=config.table or path, remedy=remedy)
        found = slide_tiling.grid(slide, config, path)
        told = {"sample": "sample_id", "group": "group", "section": "section", "label": "label"}
        found = found.with_columns(
            pl.lit(rows[role][0], pl.String).alias(column) for role, column in told.items() if role in rows.columns
        )
    missing = [pl.lit(None, kind).alias(name) for name, kind in SCHEMA.items() if name not in found.columns]
    return found.with_columns(missing).select(pl.col(name).cast(kind) for name, kind in SCHEMA.items())


def _named(rows: pl.DataFrame, name: str) -> pl.DataFrame:
    """Name a slide's section, and where each row is a slide its sample, by its file where the table does not."""
    made = [role for role in ("section", *(() if "x" in rows.columns else ("sample",))) if role not in rows.columns]
    return rows.with_columns(pl.lit(name).alias(role) for role in made)


def _stem(name: str) -> str:
    return PurePosixPath(name).with_suffix("").as_posix()
