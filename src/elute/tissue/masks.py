"""Where on a slide there is tissue: coloured, against glass that is white or grey.

1. Colour is how far a pixel's channels lie apart, smoothed by a median over its neighbours.
2. Otsu's threshold on it, held between two bounds: a slide of glass alone has noise that would else be halved, and
   tissue that is partly very dark would lose what is pale. (N. Otsu, "A threshold selection method from gray-level
   histograms", IEEE Trans. SMC 9, 1979.)
3. What is black is a pen or an edge. Specks go; small holes, such as fat cells, count as tissue.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import ndimage

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from elute.tissue.tile_images import Image

_LEAST, _MOST = 12, 30  # of 255: how coloured a pixel of tissue is at least
_BLACK = 40
_SPECK = 64  # pixels of a thumbnail: less is dust
_HOLE = 256


def tissue_mask(thumbnail: Image) -> NDArray[np.bool_]:
    """Say for each pixel of a small picture of a slide whether it is tissue."""
    brightest, darkest = thumbnail.max(2), thumbnail.min(2)
    colour = ndimage.median_filter(brightest - darkest, size=3)
    found = (colour > min(max(otsu(colour), _LEAST), _MOST)) & (brightest > _BLACK)
    found = ndimage.binary_opening(found) if min(found.shape) > 2 else found
    least = min(_SPECK, max(1, found.size // 256))
    found = _large(found, least)
    return ~_large(~found, min(_HOLE, found.size // 16))


def otsu(values: NDArray[np.uint8]) -> int:
    """The value at which two classes lie farthest apart; those above it are the higher class."""
    counts = np.bincount(values.reshape(-1), minlength=256).astype(np.float64)
    below = np.cumsum(counts)
    sums = np.cumsum(counts * np.arange(256))
    above = below[-1] - below
    with np.errstate(divide="ignore", invalid="ignore"):
        apart = sums / below - (sums[-1] - sums) / above
        spread = np.where((below > 0) & (above > 0), below * above * apart * apart, 0.0)
    return int(spread.argmax())


def shares(mask: NDArray[np.bool_], corners: NDArray[np.float64], side: float) -> NDArray[np.float64]:
    """The share of tissue in squares of a side, from their left and upper corners [n, 2], in pixels of the mask."""
    sums = np.zeros((mask.shape[0] + 1, mask.shape[1] + 1), np.int64)
    sums[1:, 1:] = mask.cumsum(0).cumsum(1)
    limits = np.array([mask.shape[1], mask.shape[0]])
    first = np.clip(np.rint(corners).astype(np.int64), 0, limits - 1)
    last = np.clip(np.rint(corners + side).astype(np.int64), first + 1, limits)
    (x0, y0), (x1, y1) = first.T, last.T
    inside = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]
    share: NDArray[np.float64] = inside / ((x1 - x0) * (y1 - y0))
    return share


def _large(mask: NDArray[np.bool_], least: int) -> NDArray[np.bool_]:
    """Keep the connected parts of at least so many pixels."""
    labels: Any
    labels, n = ndimage.label(mask)
    if not n:
        return mask
    sizes = np.bincount(labels.reshape(-1), minlength=n + 1)
    sizes[0] = 0
    kept: NDArray[np.bool_] = (sizes >= least)[labels]
    return kept
