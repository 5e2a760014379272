"""The nuclei of a painted section: where they lie, and how each type looks.

| type | size, in pixels of a micrometre | looks |
|---|---|---|
| epithelial | 4.5 × 3.4, along the gland's radius | pale, with a rim and a nucleolus; in a row at the gland's base |
| fibroblast | 6 × 1.6, along the fibres | thin and dark |
| lymphocyte | 3.1, round | dark, in clumps, packed |
| of fat | 4.5 × 1.3, along the wall | flat, few |
| debris | 0.8 to 2.2, ragged | fragments of nuclei and their shadows |
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from elute.tissue.painting_layout import ADIPOSE, EPITHELIUM, LYMPHOCYTES, NECROSIS, STROMA, Layout, scattered

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

_REACH = 7  # pixels around its centre that a nucleus may cover
_AT_ONCE = 256  # nuclei that are drawn together: their arrays stay in the processor's cache
EPITHELIAL, FIBROBLAST, LYMPHOCYTE, FAT, DEBRIS = range(5)
#                          long  short dark  rim   clumps  ragged
_LOOKS = np.array([[4.5, 3.4, 0.62, 0.30, 0.15, 0.06], [6.0, 1.6, 0.95, 0.0, 0.10, 0.10],
                   [3.1, 3.0, 1.30, 0.0, 0.30, 0.05], [4.5, 1.3, 0.90, 0.0, 0.10, 0.10],
                   [1.6, 1.1, 1.00, 0.0, 0.20, 0.35]], dtype=np.float32)  # fmt: skip
_SPREAD = np.array([0.12, 0.18, 0.07, 0.15, 0.40], dtype=np.float32)  # of sizes, from nucleus to nucleus


@dataclass(frozen=True, eq=False)
class Nuclei:
    """Nuclei of one section, one entry each."""

    at: Floats  # [n, 2], row and column
    kind: NDArray[np.int64]
    angle: Floats


def place(layout: Layout, rng: np.random.Generator) -> Nuclei:
    """Lay nuclei where their structures are."""
    side = len(layout.structure)
    down, across = np.gradient(ndimage.gaussian_filter(layout.depth + layout.wall, 2.0))
    radius = np.arctan2(down, across)
    down, across = np.gradient(ndimage.gaussian_filter(layout.lines, 2.0))
    along = np.arctan2(down, across) + np.pi / 2
    found: list[tuple[Floats, int, Floats]] = []

    def _add(spacing: float, kind: int, share: float, chosen: NDArray[np.bool_], angle: NDArray[np.floating]) -> None:
        points = scattered(side, spacing, rng)
        row, column = points.astype(np.int64).T
        kept = chosen[row, column] & (rng.random(len(points)) < share)
        tilt = rng.normal(0, 0.2, int(kept.sum()))
        found.append((points[kept], kind, angle[row, column][kept].astype(np.float64) + tilt))

    base = (layout.depth > 4) & (layout.depth < 10.5)
    second = (layout.depth > 12.5) & (layout.depth < layout.height - 4)
    _add(6.6, EPITHELIAL, 0.95, base, radius)
    _add(8.5, EPITHELIAL, 0.35, second, radius)
    stroma = layout.structure == STROMA
    _add(13.0, FIBROBLAST, 0.6, stroma, along)
    _add(16.0, LYMPHOCYTE, 0.08, stroma, along)
    _add(6.4, LYMPHOCYTE, 0.93, layout.structure == LYMPHOCYTES, along)
    fat = layout.structure == ADIPOSE
    _add(9.0, FAT, 0.25, fat & (layout.wall < 2.5), radius + np.pi / 2)
    necrosis = layout.structure == NECROSIS
    _add(5.0, DEBRIS, 0.55, necrosis, rng.uniform(0, np.pi, (side, side)))
    _add(30.0, LYMPHOCYTE, 0.15, necrosis | (layout.structure == EPITHELIUM), along)
    return Nuclei(
        np.concatenate([at for at, _, _ in found]),
        np.concatenate([np.full(len(at), kind) for at, kind, _ in found]),
        np.concatenate([angle for _, _, angle in found]),
    )


def stamp(nuclei: Nuclei, side: int, rng: np.random.Generator) -> NDArray[np.float32]:
    """Return how much haematoxylin the nuclei hold, [side, side]; where two overlap, the darker one's."""
    ink = np.zeros(side * side, dtype=np.float32)
    for start in range(0, len(nuclei.at), _AT_ONCE):
        rows = slice(start, start + _AT_ONCE)
        place, value = _drawn(nuclei.at[rows], nuclei.kind[rows], nuclei.angle[rows], side=side, rng=rng)
        np.maximum.at(ink, place, value)
    return ink.reshape(side, side)


def _drawn(
    at: Floats, kind: NDArray[np.int64], angle: Floats, *, side: int, rng: np.random.Generator
) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """Draw some nuclei: flat places of their pixels, and what each pixel holds."""
    n = len(at)
    at, angle = at.astype(np.float32), angle.astype(np.float32)
    long, short, dark, rim, clumps, ragged = (column[:, None, None] for column in _LOOKS[kind].T)
    size = np.exp(rng.standard_normal(n, dtype=np.float32) * _SPREAD[kind])[:, None, None]
    step = np.arange(-_REACH, _REACH + 1)
    corner = np.floor(at).astype(np.int64)
    row, column = corner[:, :1] + step, corner[:, 1:] + step
    y = (row + np.float32(0.5) - at[:, :1]).astype(np.float32)[:, :, None]
    x = (column + np.float32(0.5) - at[:, 1:]).astype(np.float32)[:, None, :]
    c, s = np.cos(angle)[:, None, None], np.sin(angle)[:, None, None]
    noise = ndimage.gaussian_filter(rng.standard_normal((n, len(step), len(step)), dtype=np.float32), (0, 0.8, 0.8))
    noise /= 0.35  # to about spread 1
    distance = np.hypot((x * c + y * s) / (long * size), (y * c - x * s) / (short * size)) + ragged * noise
    edge = np.clip((1 - distance) * short * size + 0.5, 0, 1)
    nucleolus = np.exp(-(((x * c + y * s) - 1) ** 2 + (y * c - x * s) ** 2) / 1.2)
    inner = dark + rim * (np.clip((distance - 0.55) * 3, 0, 1) + 1.2 * nucleolus) + clumps * noise
    ink = edge * np.clip(inner, 0.05, None) * np.exp(0.12 * rng.standard_normal(n, dtype=np.float32))[:, None, None]
    inside = ((row >= 0) & (row < side))[:, :, None] & ((column >= 0) & (column < side))[:, None, :] & (ink > 0.01)
    place = row[:, :, None] * side + column[:, None, :]
    return place[inside], ink[inside]
