"""Tiles that lie on a disk as pictures: a folder of them, a table of files, or one file of JPEGs laid end to end.

What a folder or a table says is checked at once; a picture is checked when it is read.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, NamedTuple

import polars as pl

from elute.base import console, files
from elute.base.errors import DataError, near
from elute.tissue.slide_tiling import spread
from elute.tissue.tile_images import SUFFIXES, read_image
from elute.tissue.tile_table import identified, read_table

if TYPE_CHECKING:
    from elute.tissue.tile_images import Image
    from elute.tissue.tile_settings import TilesConfig

_MOST_BYTES = 256 << 20  # of one packed picture
_WHOLE = 64 << 20  # bytes up to which a file's digest is of all of it
_SAMPLES, _SAMPLE = 64, 1 << 20


class Found(NamedTuple):
    """What tiles are made of."""

    table: pl.DataFrame
    image: Callable[[int], Image]
    source: Callable[[], Mapping[str, str]]
    where: Path
    size: int | None


def from_folder(config: TilesConfig, folder: Path) -> Found:
    """Every image of a folder is a tile; the sub-folder that it lies in is its group."""
    names = listed(folder, SUFFIXES)
    if not names:
        remedy = f"Give a folder with files of {', '.join(SUFFIXES)}."
        raise DataError("holds no images", where=folder, remedy=remedy)
    names = [names[i] for i in spread(len(names), config.max_tiles)]
    stems = [PurePosixPath(name).with_suffix("").as_posix() for name in names]
    table = pl.DataFrame({"sample_id": stems, "tile_id": stems, "group": [group_of(name) for name in names]})
    return _of_files(config, folder, table, paths=[folder / name for name in names], source={})


def from_table(config: TilesConfig, path: Path) -> Found:
    """Every row of a table is a tile, in a file of its own."""
    table = read_table(path, config.roles)
    if "path" not in table.columns:
        what = "has no column that names each tile's file"
        remedy = "Name it: columns path=COLUMN; for one packed file give --images FILE."
        raise DataError(what, where=path, remedy=remedy)
    table = table[spread(table.height, config.max_tiles)]
    home = config.images if config.images is not None else path.parent
    paths = [below(home, name, path, free=config.images is None) for name in table["path"]]
    return _of_files(config, path, with_names(table, path), paths=paths, source={"table": files.digest_file(path)})


def from_packed(config: TilesConfig, packed: Path) -> Found:
    """Every row of a table is a tile, whose bytes lie in one file from an offset on."""
    if config.table is None:
        remedy = "Give --table with the columns offset and nbytes."
        raise DataError("is one file, and no table says where each tile lies in it", where=packed, remedy=remedy)
    table = read_table(config.table, config.roles)
    for role in ("offset", "nbytes"):
        if role not in table.columns:
            what = f"has no column {role} to find the tiles of {packed.name} by"
            raise DataError(what, where=config.table, remedy=f"Name it: columns {role}=COLUMN.")
    table = table[spread(table.height, config.max_tiles)]
    end = packed.stat().st_size
    beyond = pl.any_horizontal(
        pl.col("offset").is_null() | (pl.col("offset") < 0),
        pl.col("nbytes").is_null() | (pl.col("nbytes") < 1) | (pl.col("nbytes") > _MOST_BYTES),
        pl.col("offset") + pl.col("nbytes") > end,
    )
    wrong = table.select(beyond.fill_null(value=True)).to_series()
    if wrong.any():
        row = int(wrong.arg_true()[0])
        span = f"bytes {table['offset'][row]} and {table['nbytes'][row]} more"
        what = f"row {row + 1} says {span}, and {packed.name} ends at {end:,}"
        raise DataError(what, where=config.table, remedy="The table and the file do not belong together.")
    starts, lengths = table["offset"].to_list(), table["nbytes"].to_list()
    named = with_names(table, config.table)
    names = named["tile_id"].to_list()

    def image(number: int) -> Image:
        with packed.open("rb") as handle:
            handle.seek(starts[number])
            data = handle.read(lengths[number])
        return read_image(data, f"{packed}, tile {names[number]!r}")

    def source() -> dict[str, str]:
        return {"table": files.digest_file(config.table or packed), "images": files.digest_file(packed)}

    return _sized(config, named, image, source=source, where=packed)


def listed(folder: Path, suffixes: Iterable[str]) -> list[str]:
    """Files of some kinds in a folder and those below it, hidden ones left out, in the order of their names."""
    if not folder.is_dir():
        state = "is not a folder" if folder.exists() else "is not there"
        raise DataError(state, where=folder, remedy="Check --images or --slides.")
    kinds = tuple(suffixes)
    found = (path.relative_to(folder) for path in folder.rglob("*") if path.suffix.lower() in kinds and path.is_file())
    return sorted(name.as_posix() for name in found if not any(part.startswith(".") for part in name.parts))


def group_of(name: str) -> str | None:
    """The sub-folder that a file lies in, as its patient or site."""
    parts = PurePosixPath(name).parts
    return parts[0] if len(parts) > 1 else None


def below(home: Path, name: str | None, where: Path, *, free: bool) -> Path:
    """Where a table's file lies: inside a folder, unless the table may name any place."""
    if not name:
        raise DataError("a row names no file", where=where, remedy="Fill the column in, or leave the row out.")
    path = home / name
    if not free and (Path(name).is_absolute() or ".." in Path(name).parts):
        raise DataError(f"names {name!r}, which lies outside of {home}", where=where, remedy="Name files below it.")
    if not path.is_file():
        there = [p.name for p in path.parent.iterdir()][:1000] if path.parent.is_dir() else []
        raise DataError(f"names {name!r}, which is not in {home}", where=where, remedy=near(path.name, there))
    return path


def with_names(table: pl.DataFrame, where: Path) -> pl.DataFrame:
    """Give a table its samples' and tiles' names, from the columns that it has."""
    if "sample" in table.columns:
        samples = table["sample"]
    elif "path" in table.columns:
        stems = [None if name is None else PurePosixPath(name).with_suffix("").as_posix() for name in table["path"]]
        samples = pl.Series(stems, dtype=pl.String)
    else:
        remedy = "Name it: columns sample=COLUMN, or sample=COLUMN+COLUMN to join two."
        raise DataError("has no column that names each sample", where=where, remedy=remedy)
    if "tile" in table.columns:
        tiles = table["tile"]
    else:
        tiles = samples if samples.n_unique() == len(samples) or "path" not in table.columns else table["path"]
    return table.with_columns(samples.alias("sample_id"), tiles.alias("tile_id"))


def digest_files(paths: Iterable[Path], title: str) -> str:
    """One digest of some files and their order; of very large ones their size and pieces spread over them."""
    sha = hashlib.sha256()
    distinct = list(dict.fromkeys(paths))
    with console.progress(title, len(distinct), unit="files") as bar:
        for path in distinct:
            sha.update(path.name.encode(errors="surrogateescape") + b"\0" + _digest(path).encode())
            bar.advance()
    return sha.hexdigest()


def _digest(path: Path) -> str:
    size = path.stat().st_size
    if size <= _WHOLE:
        return files.digest_file(path)
    sha = hashlib.sha256(str(size).encode())
    with path.open("rb") as handle:
        for i in range(_SAMPLES):
            handle.seek(i * (size - _SAMPLE) // (_SAMPLES - 1))
            sha.update(handle.read(_SAMPLE))
    return sha.hexdigest()


def _of_files(
    config: TilesConfig, where: Path, table: pl.DataFrame, *, paths: list[Path], source: dict[str, str]
) -> Found:
    def image(number: int) -> Image:
        return read_image(paths[number], paths[number])

    def digests() -> dict[str, str]:
        return {**source, "images": digest_files(paths, "digest")}

    return _sized(config, table, image, source=digests, where=where)


def _sized(
    config: TilesConfig,
    table: pl.DataFrame,
    image: Callable[[int], Image],
    *,
    source: Callable[[], Mapping[str, str]],
    where: Path,
) -> Found:
    """Add what is the same for every tile: the size, that of the first picture if none is given, and the scale."""
    table = identified(table, where)  # before a picture is read
    size = config.tile_size or int(image(0).shape[1])
    same = (
        pl.lit(float(size)).alias("size_px"),
        pl.lit(config.microns_per_pixel, pl.Float64).alias("microns_per_pixel"),
    )
    return Found(table.with_columns(*same), image, source, where, size)
