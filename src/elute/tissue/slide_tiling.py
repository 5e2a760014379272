"""From slides to the places of tiles: a grid over the tissue, or the spots of a table.

Sizes are those of the tile that the encoder gets: a slide of 0.25 µm a pixel that is cut at 0.5 µm gives a tile of 224
pixels from 448 of its own. `x`, `y` and `size_px` are in pixels of the slide, `microns_per_pixel` is of those pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from elute.base import console
from elute.base.errors import DataError
from elute.tissue.masks import shares, tissue_mask
from elute.tissue.slides import thumbnail

if TYPE_CHECKING:
    from pathlib import Path

    from elute.tissue.slides import SlideReader
    from elute.tissue.tile_settings import TilesConfig

TILE_SIZE = 224


@dataclass(frozen=True)
class Scale:
    """How a slide is cut: the tile's side, in pixels of the tile and of the slide."""

    size: int
    side: float
    step: float
    microns_per_pixel: float | None


def scale_of(slide: SlideReader, config: TilesConfig) -> Scale:
    """Work out how many pixels of a slide a tile takes."""
    size, own, asked = config.tile_size or TILE_SIZE, slide.microns_per_pixel, config.microns_per_pixel
    shrink = asked / own if asked is not None and own is not None else 1.0
    # What a slide does not say of itself is what the person says of it.
    return Scale(size, size * shrink, (config.stride or size) * shrink, own if own is not None else asked)


def grid(slide: SlideReader, config: TilesConfig, where: Path) -> pl.DataFrame:
    """The tiles of a slide that hold tissue, row by row."""
    scale = scale_of(slide, config)
    width, height = slide.size
    across, down = (max(0, int((length - scale.side) // scale.step) + 1) for length in (width, height))
    if not across or not down:
        what = f"is {width:,} × {height:,} pixels, and a tile takes {scale.side:,.0f}"
        raise DataError(what, where=where, remedy="Give a smaller --tile-size, or leave the slide out.")
    rows, columns = (at.reshape(-1) for at in np.mgrid[0:down, 0:across])
    corners = np.stack([columns, rows], 1) * scale.step
    if config.tissue_share > 0:
        small, factor = thumbnail(slide)
        kept = shares(tissue_mask(small), corners / factor, scale.side / factor) >= config.tissue_share
        if not kept.any():
            what = f"no tile of {len(kept):,} is tissue to {config.tissue_share:.0%}"
            raise DataError(what, where=where, remedy="Leave the slide out, or lower --tissue-share; 0 takes all.")
        rows, columns, corners = rows[kept], columns[kept], corners[kept]
    chosen = spread(len(rows), config.max_tiles)
    console.detail(f"{where}: {len(chosen):,} of {across * down:,} tiles, {scale.side:,.0f} pixels each")
    centres = corners[chosen] + scale.side / 2
    return pl.DataFrame(
        {
            "tile_id": [f"{r}x{c}" for r, c in zip(rows[chosen], columns[chosen], strict=True)],
            "x": centres[:, 0],
            "y": centres[:, 1],
        }
    ).with_columns(*_sizes(scale))


def spots(slide: SlideReader, table: pl.DataFrame, config: TilesConfig, *, where: Path) -> pl.DataFrame:
    """The tiles around a table's spots; one whose centre lies outside of the slide is an error."""
    scale = scale_of(slide, config)
    for axis, length in zip("xy", slide.size, strict=True):
        bad = table[axis].is_null() | (table[axis] < 0) | (table[axis] >= length)
        if bad.any():
            row = table.row(int(bad.arg_true()[0]), named=True)
            what = f"spot {row['sample_id']!r} has {axis} {row[axis]}, and the slide ends at {length - 1:,}"
            remedy = "Give the coordinates in pixels of this very image: were they of one of another size?"
            raise DataError(what, where=where, remedy=remedy)
    return table.with_columns(*_sizes(scale))


def spread(n: int, most: int | None) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    """Choose at most so many of n places, evenly."""
    if most is None or most >= n:
        return np.arange(n)
    return (np.arange(most) * n) // most


def _sizes(scale: Scale) -> tuple[pl.Expr, pl.Expr]:
    own = pl.lit(scale.microns_per_pixel, pl.Float64)
    return pl.lit(scale.side, pl.Float64).alias("size_px"), own.alias("microns_per_pixel")
