"""From structures to colours: what each part takes of the two dyes, and how a patient's slide shows it.

A pixel's colour follows the law of Beer and Lambert: light · exp(−(haematoxylin · its colour + eosin · its colour)).
Patients differ in both colours, in both amounts, in the light and in how sharp the picture is.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import ndimage

from elute.tissue.painting_cells import place, stamp
from elute.tissue.painting_layout import ADIPOSE, EPITHELIUM, LUMEN, LYMPHOCYTES, NECROSIS, STROMA, Layout, smooth_noise

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float32]

HAEMATOXYLIN, EOSIN = (0.65, 0.70, 0.29), (0.10, 0.95, 0.18)  # optical densities of red, green and blue


@dataclass(frozen=True, eq=False)
class Stain:
    """How one patient's slides are stained and photographed."""

    dyes: NDArray[np.float64]  # [2, 3], haematoxylin and eosin
    amounts: NDArray[np.float64]  # [2]
    light: NDArray[np.float64]  # [3]
    blur: float
    noise: float


def draw_stain(spread: float, rng: np.random.Generator) -> Stain:
    """Draw a patient's stain; with spread 0 all are alike."""
    dyes = np.array([HAEMATOXYLIN, EOSIN]) + spread * rng.normal(0, 0.07, (2, 3))
    dyes = np.clip(dyes, 0.02, None)
    dyes /= np.linalg.norm(dyes, axis=1, keepdims=True)
    amounts = np.array([1.0, 0.9]) * np.exp(spread * rng.normal(0, 0.17, 2))
    light = np.clip(243 + spread * rng.normal(0, 3, 3), 225, 255)
    return Stain(dyes, amounts, light, blur=0.55 + 0.2 * spread * rng.random(), noise=2.5)


def paint_section(layout: Layout, stain: Stain, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Paint a section [side, side, 3]."""
    blue, pink = _dyes(layout, rng)
    blue = blue + stamp(place(layout, rng), len(layout.structure), rng)
    blue, pink = (ndimage.gaussian_filter(dye, stain.blur) for dye in (blue, pink))
    density = np.stack([blue, pink], -1) * stain.amounts.astype(np.float32)
    colour = stain.light.astype(np.float32) * np.exp(-density @ stain.dyes.astype(np.float32))
    colour += stain.noise * rng.standard_normal(colour.shape, dtype=np.float32)
    return np.clip(colour, 0, 255).round().astype(np.uint8)


def _dyes(layout: Layout, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """What lies between the nuclei: amounts of haematoxylin and eosin, both [side, side]."""
    side = len(layout.structure)
    fine, middle, broad = (smooth_noise(side, width, rng) for width in (0.9, 2.2, 14.0))
    blue, pink = np.full((2, side, side), 0.02, dtype=np.float32)
    where = layout.structure
    cell = where == EPITHELIUM
    edge = np.exp(-np.abs(layout.depth - layout.height) / 1.5)  # where cells end towards the lumen
    pink += cell * (0.42 + 0.06 * middle + 0.06 * broad + 0.35 * edge)
    blue += cell * (0.16 + 0.03 * fine)
    pink += (where == LUMEN) * np.maximum(0.03 + 0.06 * (broad > 1.2), 0)
    fibres = _fibres(layout, rng)
    stroma = where == STROMA
    pink += stroma * np.clip(0.45 + 0.30 * fibres + 0.05 * fine + 0.08 * broad, 0.03, None)
    blue += stroma * 0.04
    crowd = where == LYMPHOCYTES
    pink += crowd * (0.22 + 0.05 * middle)
    blue += crowd * (0.12 + 0.04 * middle)
    fat = where == ADIPOSE
    pink += fat * 0.75 * np.exp(-((layout.wall / 1.4) ** 2))
    dead = where == NECROSIS
    pink += dead * np.clip(0.45 + 0.16 * fine + 0.13 * middle + 0.10 * broad, 0.05, None)
    blue += dead * np.clip(0.10 + 0.06 * middle, 0, None)
    return blue.astype(np.float32), pink.astype(np.float32)


def _fibres(layout: Layout, rng: np.random.Generator) -> Floats:
    """Bundles of fibres along the layout's lines, of spread about 1: noise of one dimension."""
    side = len(layout.structure)
    table = ndimage.gaussian_filter1d(rng.standard_normal(8192), 1.6)
    broad = ndimage.gaussian_filter1d(rng.standard_normal(8192), 4.0)
    table = table / table.std() + 0.8 * broad / broad.std()
    at = (layout.lines + 2048).clip(0, 8190)
    whole = at.astype(np.int64)
    part = at - whole
    fibres = table[whole] * (1 - part) + table[whole + 1] * part
    return np.asarray(fibres / 1.3 * (0.75 + 0.25 * smooth_noise(side, 10.0, rng)), dtype=np.float32)
