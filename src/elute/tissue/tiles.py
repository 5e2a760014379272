"""Tiles of tissue: a table with a row a tile, and the picture of each when it is asked for.

    tiles = open_tiles(TilesConfig(images="tiles/", table="tiles.csv", columns={"group": "patient"}))
    tiles.table                       # sample_id, tile_id, group, section, x, y, size_px, microns_per_pixel, label
    tiles.image(0)                    # uint8 [height, width, 3]

Pictures are read one by one and not kept, so memory does not grow with their number.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from elute.base.errors import ConfigError, DataError
from elute.base.files import digest_json
from elute.tissue import tile_files, tile_slides
from elute.tissue.slides import open_slide
from elute.tissue.tile_table import identified

if TYPE_CHECKING:
    from pathlib import Path

    from elute.tissue.slides import SlideReader
    from elute.tissue.tile_images import Image
    from elute.tissue.tile_settings import TilesConfig


class Tiles:
    """A table of tiles and a function that gives the picture of one."""

    def __init__(
        self,
        table: pl.DataFrame,
        images: Callable[[int], Image],
        source: Mapping[str, str] | Callable[[], Mapping[str, str]],
        *,
        where: object = "tiles",
        size: int | None = None,
    ) -> None:
        """Hold tiles; `source` names where they come from by digests, `size` is the side that each picture has."""
        if not table.height:
            raise DataError("there are no tiles", where=where, remedy="Check the folder, or the table's rows.")
        self.table = identified(table, where)
        self.where, self.size = where, size
        self._image, self._source = images, source

    @classmethod
    def of(
        cls,
        table: pl.DataFrame | Mapping[str, Sequence[Any]],
        images: Callable[[int], Image],
        source: Mapping[str, str],
    ) -> Tiles:
        """Hold tiles made elsewhere: columns as in `tile_table.SCHEMA`; sample_id and tile_id must be there."""
        return cls(table if isinstance(table, pl.DataFrame) else pl.DataFrame(dict(table)), images, source)

    @cached_property
    def source(self) -> dict[str, str]:
        """Digests of what the tiles are read from; computed when it is first asked for."""
        return dict(self._source() if callable(self._source) else self._source)

    def __len__(self) -> int:
        return self.table.height

    def __repr__(self) -> str:
        return f"Tiles({str(self.where)!r}: {len(self):,} of {self.table['group'].n_unique():,} groups)"

    def name(self, number: int) -> str:
        """What a tile is called in a message."""
        sample, tile = self.table.row(number)[:2]
        return f"{self.where}, tile {tile!r}" + ("" if tile == sample else f" of sample {sample!r}")

    def image(self, number: int) -> Image:
        """Read one picture, [height, width, 3] of 8 bits."""
        found: Any = self._image(number)
        if not isinstance(found, np.ndarray) or found.dtype != np.uint8 or found.ndim != 3 or found.shape[2] != 3:
            told = f"{found.dtype} {list(found.shape)}" if isinstance(found, np.ndarray) else type(found).__name__
            raise DataError(f"is {told}, not uint8 [height, width, 3]", where=self.name(number))
        height, width = found.shape[:2]
        if self.size is None and height == width:
            self.size = width
        if (height, width) != (self.size, self.size):
            wanted = "square" if self.size is None else f"{self.size} × {self.size} as the others"
            raise DataError(
                f"is {width} × {height} pixels, not {wanted}",
                where=self.name(number),
                remedy="Give tiles of one size, or whole images as --slides to be cut.",
            )
        picture: Image = found
        return picture

    def images(self, numbers: Iterable[int]) -> list[Image]:
        """Read some pictures."""
        return [self.image(int(number)) for number in numbers]

    @cached_property
    def places(self) -> dict[tuple[str, str], int]:
        """Where each tile stands, by its sample and its name."""
        return {(sample, tile): i for i, (sample, tile) in enumerate(self.table.select("sample_id", "tile_id").rows())}

    def named(self, names: Sequence[tuple[str, str]]) -> list[Image]:
        """Read the pictures of tiles by sample and name."""
        for sample, tile in names:
            if (sample, tile) not in self.places:
                raise DataError(f"there is no tile {tile!r} of sample {sample!r}", where=self.where)
        return self.images(self.places[name] for name in names)

    def subset(self, numbers: Sequence[int]) -> Tiles:
        """Return some of the tiles, in the order asked for."""
        chosen = [int(number) for number in numbers]
        return Tiles(
            self.table[chosen],
            lambda i: self._image(chosen[i]),
            lambda: {**self.source, "subset": digest_json(self.table[chosen].select("sample_id", "tile_id").rows())},
            where=self.where,
            size=self.size,
        )


def open_tiles(config: TilesConfig, *, reader: Callable[[Path], SlideReader] | None = None) -> Tiles:
    """Open the tiles that the settings name; `reader` opens a slide in the place of what is installed."""
    if config.slides is not None and config.images is not None:
        raise ConfigError("images and slides are both given", where="tiles", remedy="Give one of them.")
    if config.slides is not None:
        found = tile_slides.from_slides(config, config.slides, reader=reader or open_slide)
    elif config.images is not None and config.images.is_file():
        found = tile_files.from_packed(config, config.images)
    elif config.table is not None:
        found = tile_files.from_table(config, config.table)
    elif config.images is not None:
        found = tile_files.from_folder(config, config.images)
    else:
        raise ConfigError("no tiles are named", where="tiles", remedy="Give --images, --table or --slides.")
    return Tiles(found.table, found.image, found.source, where=found.where, size=found.size)
