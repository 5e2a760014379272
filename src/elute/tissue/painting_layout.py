"""Where the structures of a painted section lie: a map of one structure a pixel, and what cells are laid along.

1. Each structure has a smooth random field; the patient's composition is added, and the largest field owns the pixel.
2. Epithelium is cut into glands: cells around random centres, rounded, with a lumen in the middle of the wide ones.
   What lies between two glands is stroma. A lumen is nobody's.
3. Fat is cut into vacuoles in the same way; the walls between them belong to the fat.
4. Fibres follow lines of one direction that are bent by noise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

STRUCTURES = ("epithelium", "stroma", "lymphocytes", "adipose", "necrosis")
EPITHELIUM, STROMA, LYMPHOCYTES, ADIPOSE, NECROSIS = range(5)
LUMEN = 5  # of no structure
_COARSE = 8  # pixels of a side that share one value of a smooth field
_REGION = 60.0  # width of the kernel that the fields are smoothed with, in pixels
_SEPTUM = 4.0  # half of what is left between two glands
_GLAND, _VACUOLE = 92.0, 50.0  # distance between neighbouring centres


@dataclass(frozen=True, eq=False)
class Layout:
    """One section's structures, and distances that the painter needs; all arrays are [side, side]."""

    structure: NDArray[np.uint8]  # index into STRUCTURES, or LUMEN
    depth: Floats  # in a gland: pixels from its outer edge; 0 elsewhere
    height: Floats  # in a gland: the depth at which its lumen begins
    wall: Floats  # in fat: pixels from the nearest wall between vacuoles; 0 elsewhere
    lines: Floats  # pixels across the fibres: each fibre is a line of one value


def lay_out(side: int, composition: NDArray[np.float64], rng: np.random.Generator) -> Layout:
    """Draw the structures of a section; `composition` [5] is what the patient has more or less of."""
    fields = np.stack([smooth_noise(side, _REGION, rng) for _ in STRUCTURES])
    region = (fields + composition[:, None, None].astype(np.float32)).argmax(0).astype(np.uint8)
    glands, centres = _cells(side, _GLAND, region == EPITHELIUM, rng)
    depth = ndimage.gaussian_filter(_inside(glands), 3.0)
    depth += 1.5 * smooth_noise(side, 6.0, rng) - _SEPTUM
    depth = np.where(region == EPITHELIUM, np.maximum(depth, 0), 0).astype(np.float32)
    vacuoles, _ = _cells(side, _VACUOLE, region == ADIPOSE, rng)
    wall = np.where(region == ADIPOSE, ndimage.gaussian_filter(_inside(vacuoles), 1.0), 0).astype(np.float32)
    tall = rng.uniform(18, 28, centres).astype(np.float32)
    height = tall[np.maximum(glands, 0)] + smooth_noise(side, 8.0, rng)
    structure = region.copy()
    structure[(region == EPITHELIUM) & (depth == 0)] = STROMA
    structure[(region == EPITHELIUM) & (depth > height)] = LUMEN
    return Layout(structure, depth, height, wall, _lines(side, rng))


def _lines(side: int, rng: np.random.Generator) -> Floats:
    row, column = np.mgrid[:side, :side].astype(np.float32)
    angle = rng.uniform(0, np.pi)
    c, s = np.float32(np.cos(angle)), np.float32(np.sin(angle))
    across, along = row * c - column * s, row * s + column * c
    waves = 1.6 * np.sin(along / 7 + 3 * smooth_noise(side, 30.0, rng))
    return np.asarray(across + 14 * smooth_noise(side, 40.0, rng) + waves, dtype=np.float32)


def smooth_noise(side: int, width: float, rng: np.random.Generator) -> Floats:
    """Draw noise of mean 0 and spread 1 that varies over about `width` pixels."""
    coarse = max(1, min(_COARSE, int(width / 2)))
    small = -(-side // coarse) + 1
    noise = ndimage.gaussian_filter(rng.standard_normal((small, small), dtype=np.float32), width / coarse, mode="wrap")
    noise = (noise - noise.mean()) / noise.std()
    if coarse == 1:
        return np.ascontiguousarray(noise[:side, :side])
    whole, part = np.divmod(np.arange(side), coarse)
    part = (part / coarse).astype(np.float32)
    noise = noise[:, whole] * (1 - part) + noise[:, whole + 1] * part
    return np.asarray(noise[whole] * (1 - part[:, None]) + noise[whole + 1] * part[:, None])


def scattered(side: int, spacing: float, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw points [n, 2] (row, column), about `spacing` apart and nowhere far from a neighbour."""
    rows = np.arange(spacing / 2, side, spacing * 0.866)
    columns = np.arange(spacing / 2, side, spacing)
    grid = np.stack(np.meshgrid(rows, columns, indexing="ij"), -1)
    grid[1::2, :, 1] += spacing / 2  # of a honeycomb
    points = grid.reshape(-1, 2) + rng.uniform(-0.28, 0.28, (grid.shape[0] * grid.shape[1], 2)) * spacing
    return points[(points >= 0).all(1) & (points < side).all(1)]


def _cells(
    side: int, spacing: float, within: NDArray[np.bool_], rng: np.random.Generator
) -> tuple[NDArray[np.int32], int]:
    """Number each pixel of a region by its nearest centre, -1 outside; also how many centres there are."""
    points = scattered(side, spacing, rng).astype(np.int64)
    away = np.ones((side, side), dtype=bool)
    away[points[:, 0], points[:, 1]] = False
    number = np.zeros((side, side), dtype=np.int32)
    number[points[:, 0], points[:, 1]] = np.arange(len(points))
    nearest: Any = ndimage.distance_transform_edt(away, return_distances=False, return_indices=True)
    return np.where(within, number[nearest[0], nearest[1]], -1).astype(np.int32), len(points)


def _inside(cells: NDArray[np.int32]) -> Floats:
    """Distance of each pixel from the edge of its cell."""
    edge = np.zeros(cells.shape, dtype=bool)
    edge[1:] |= cells[1:] != cells[:-1]
    edge[:, 1:] |= cells[:, 1:] != cells[:, :-1]
    if not edge.any():  # one cell fills the section
        return np.full(cells.shape, 30, dtype=np.float32)
    distance: Any = ndimage.distance_transform_edt(~edge)
    return np.asarray(distance, dtype=np.float32)
