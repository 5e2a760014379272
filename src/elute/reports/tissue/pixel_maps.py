"""Maps of relevance by pixel, where a run has followed codes down through its encoder: read, reduced, and painted.

They are shown beside the maps by patch. A map of pixels is fine grain that no page needs at its full size: it is
averaged down to what a page shows, in as many steps of strength as the eye tells apart. Together they take at most a
part of the size that was asked for: they are made smaller first, then left out, and the pages say so.
"""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from elute.base.errors import DamagedError
from elute.reports.tissue.markup import picture
from elute.reports.tissue.token_maps import LOWERS, RAISES, Key, read_archive

if TYPE_CHECKING:
    from numpy.typing import NDArray

FOLDER = "pixel_maps"
SIDES = (112, 84, 56, 28)  # pixels of a map's side on a page, the best first
PART = 0.2  # of the size that was asked for, at most
_LEVELS, _CUT = 12, 0.995  # strengths of either sign; the strongest pixels alone would hide all others
_NAMES = ("gene", "code", "sample_id", "tile_id", "file", "at")
_AGAIN = "Type: elute tissue crp_relmax --through-encoder, with the run's --config."


@dataclass(frozen=True)
class Drawn:
    """One map as a page shows it, and what is told below it."""

    address: str
    pixels: float | None  # share of what is explained that lies in the pixels
    gap: float | None  # what does not add up, relative to what is explained
    method: str


@dataclass(frozen=True, eq=False)
class PixelMaps:
    """Every map of pixels that pages show, painted once."""

    drawn: Mapping[Key, Drawn] = field(default_factory=dict)
    told: str = ""
    taken: float = 0.0  # bytes on all pages together

    def of(self, gene: str, code: int, tile: tuple[str, str]) -> Drawn | None:
        """Return the map of a code in a tile; nothing where none was drawn."""
        return self.drawn.get((gene, code, *tile))


def make_pixel_maps(folder: Path, placed: Mapping[Key, int], *, room: float) -> PixelMaps:
    """Read and paint the maps that stand on a page, `placed` so many times each, within their part of the room."""
    rows = {key: row for key, row in _rows(folder).items() if key in placed}
    if not rows:
        return PixelMaps()
    for side in SIDES:
        drawn = {key: _drawn(folder, row, side) for key, row in rows.items()}
        taken = sum((len(each.address) + 900) * placed[key] for key, each in drawn.items())
        if taken <= PART * room:
            told = f"Maps of pixels are reduced to {side} pixels a side, to keep to the size that was asked for."
            return PixelMaps(drawn, told if side < SIDES[0] else "", taken)
    told = "Maps of pixels are left out, to keep to the size that was asked for; pixel_maps/ holds them."
    return PixelMaps(told=told)


def _rows(folder: Path) -> dict[Key, dict[str, Any]]:
    """Read the index of every gene; a run that was not followed through its encoder has none."""
    found: dict[Key, dict[str, Any]] = {}
    for path in sorted((folder / FOLDER).glob("*/index.parquet")):
        try:
            frame = pl.read_parquet(path, glob=False)
        except (pl.exceptions.PolarsError, OSError) as error:
            first = (str(error).splitlines() or [""])[0]
            raise DamagedError(f"cannot be read: {first}", where=path, remedy=_AGAIN) from None
        if lost := [name for name in _NAMES if name not in frame.columns]:
            raise DamagedError(f"has no column {lost[0]!r}", where=path, remedy=_AGAIN)
        for row in frame.drop_nulls(["gene", "code", "sample_id", "file", "at"]).iter_rows(named=True):
            place = path.parent.relative_to(folder / FOLDER) / str(row["file"])
            key = (str(row["gene"]), int(row["code"]), str(row["sample_id"]), str(row["tile_id"] or ""))
            found[key] = {**row, "file": place}
    return found


def pixel_values(folder: Path, keys: Sequence[Key]) -> dict[Key, NDArray[np.float32]]:
    """Return the maps of some tiles as they were written; those that were not followed down are left out."""
    rows = _rows(folder)
    return {key: _values(folder, rows[key]) for key in keys if key in rows}


def _drawn(folder: Path, row: dict[str, Any], side: int) -> Drawn:
    values, output = _values(folder, row), _number(row.get("output"))
    share = float(values.sum(dtype=np.float64)) / output if output else None
    return Drawn(
        picture("webp", paint(values, side)), share, _number(row.get("gap")), str(row.get("method") or "not recorded")
    )


def _values(folder: Path, row: dict[str, Any]) -> NDArray[np.float32]:
    home = (folder / FOLDER).resolve()
    path = folder / FOLDER / row["file"]
    if not path.resolve().is_relative_to(home):
        raise DamagedError(f"leads out of the run: {str(row['file'])[:80]}", where=folder / FOLDER, remedy=_AGAIN)
    maps = read_archive(path)
    if not 0 <= int(row["at"]) < len(maps):
        what = f"holds {len(maps)} maps, and its index asks for number {row['at']}"
        raise DamagedError(what, where=path, remedy=_AGAIN)
    found: NDArray[np.float32] = maps[int(row["at"])]
    return found


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and np.isfinite(value) else None


def paint(values: NDArray[np.float32], side: int) -> bytes:
    """Paint a map no larger than `side`: the colour tells the sign, the opacity how strong it is in this map."""
    from PIL import Image

    small = shrunk(values, side)
    size = np.abs(small)
    most = float(np.quantile(size, _CUT)) or float(size.max())
    share = np.clip(size / most, 0, 1) if most > 0 else np.zeros_like(size)
    rgba = np.empty((*small.shape, 4), np.uint8)
    rgba[..., :3] = np.where(small[..., None] >= 0, np.array(RAISES, np.uint8), np.array(LOWERS, np.uint8))
    rgba[..., 3] = np.round(255 / _LEVELS * np.round(share * _LEVELS))
    rgba[rgba[..., 3] == 0] = 0
    out = io.BytesIO()
    Image.fromarray(rgba).save(out, "WEBP", lossless=True, method=4, exact=True)
    return out.getvalue()


def shrunk(values: NDArray[np.float32], side: int) -> NDArray[np.float32]:
    """Average blocks of pixels, so that no side is longer than `side`; what is left over at an end is a block too."""
    by = -(-max(values.shape) // side)
    if by <= 1:
        return values
    starts = [np.arange(0, n, by) for n in values.shape]
    sums = np.add.reduceat(np.add.reduceat(values.astype(np.float64), starts[0], 0), starts[1], 1)
    sizes = np.outer(*(np.diff(np.append(each, n)) for each, n in zip(starts, values.shape, strict=True)))
    small: NDArray[np.float32] = (sums / sizes).astype(np.float32)
    return small
