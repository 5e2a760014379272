"""Reference tiles as the Lab shows them: the tile, and over it the relevance of its patches or of its pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from elute.reports.tissue.token_maps import LOWERS, RAISES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]
Part = tuple[float, float, float, float]  # left, top, right, bottom in shares of a side
_LEAST = 160  # pixels of a picture's side: a smaller tile is enlarged
_BLANK = 236


class Patch(NamedTuple):
    """The strongest patch: its row and column, and the grid that it lies in."""

    row: int
    col: int
    grid: tuple[int, int]


def blank(side: int = _LEAST) -> Pixels:
    """What stands for a tile whose picture is not there."""
    return np.full((side, side, 3), _BLANK, np.uint8)


def laid_over(
    tile: Pixels, values: Any, *, most: float, seen: Part, opacity: float, strongest: Patch | None = None
) -> Pixels:
    """Lay a map over the part of a tile that the encoder saw: yellow raises, light blue lowers, clear is none."""
    by = max(1, -(-_LEAST // max(tile.shape[:2])))
    picture = tile.repeat(by, 0).repeat(by, 1).astype(np.float64)
    top, bottom, left, right = _box(picture.shape[:2], seen)
    if values is not None and most > 0 and opacity > 0:
        rows = (np.arange(bottom - top) * values.shape[0]) // (bottom - top)
        cols = (np.arange(right - left) * values.shape[1]) // (right - left)
        wide = np.asarray(values)[rows[:, None], cols[None, :]]
        share = opacity * np.clip(np.abs(wide) / most, 0, 1)[..., None]
        colour = np.where(wide[..., None] >= 0, np.array(RAISES), np.array(LOWERS)) / 255
        part = picture[top:bottom, left:right]
        picture[top:bottom, left:right] = part * (1 - share) + part * colour * share
    if strongest is not None:
        _outline(picture[top:bottom, left:right], strongest)
    shown: Pixels = np.clip(np.round(picture), 0, 255).astype(np.uint8)
    return shown


def _box(shape: tuple[int, ...], seen: Part) -> tuple[int, int, int, int]:
    height, width = shape[:2]
    left, top, right, bottom = seen
    rows = round(top * height), round(bottom * height)
    cols = round(left * width), round(right * width)
    return rows[0], max(rows[1], rows[0] + 1), cols[0], max(cols[1], cols[0] + 1)


def _outline(part: NDArray[np.float64], patch: Patch) -> None:
    """Draw a light frame in a dark one, which is seen on any ground."""
    (rows, cols), (height, width) = patch.grid, part.shape[:2]
    if not (0 <= patch.row < rows and 0 <= patch.col < cols):
        return
    top, bottom = height * patch.row // rows, height * (patch.row + 1) // rows
    left, right = width * patch.col // cols, width * (patch.col + 1) // cols
    for inset, light in ((0, 0.0), (1, 255.0)):
        a, b, c, d = top + inset, bottom - inset, left + inset, right - inset
        if b - a < 2 or d - c < 2:
            continue
        part[a, c:d] = part[b - 1, c:d] = part[a:b, c] = part[a:b, d - 1] = light
