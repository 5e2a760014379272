"""Views of a square picture: turned, mirrored, stained a little more or less; each fixed by one number, its seed.

1. Epoch 0 is the picture as it is, and its seed is 0. The seed of a later one follows from the seed of all views, the
   epoch and the tile's name, and from nothing else: batches and their order do not matter.
2. `seed % 8` says which of the eight turns and mirrorings of a square it is.
3. A stain is unmixed by optical density (A. C. Ruifrok, D. A. Johnston, Anal. Quant. Cytol. Histol. 23, 2001):
   -log(light) is a sum of what haematoxylin and eosin take away, each with its own colour. Each is made stronger or
   weaker by up to `STRENGTH`, as D. Tellez et al., IEEE TMI 37, 2018, do to train against laboratories' differences.
"""

from __future__ import annotations

import hashlib
from functools import cache
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Array = TypeVar("Array", bound=NDArray[Any])

KINDS = ("none", "flips", "stain")
STRENGTH = 0.25
_DYES = ((0.65, 0.70, 0.29), (0.07, 0.99, 0.11))  # haematoxylin, eosin: what each takes of red, green and blue


def view_seed(seed: int, epoch: int, *names: str) -> int:
    """The number that fixes a view of a tile; 0 for the tile as it is."""
    if epoch == 0:
        return 0
    told = "\0".join((str(seed), str(epoch), *names))
    return 1 + int.from_bytes(hashlib.sha256(told.encode(errors="surrogateescape")).digest()[:8]) % (2**62)


def view(picture: NDArray[np.uint8], kind: str, seed: int) -> NDArray[np.uint8]:
    """Return a view of a square picture."""
    if kind == "none" or seed == 0:
        return picture
    return np.ascontiguousarray(turned(stained(picture, seed) if kind == "stain" else picture, turn_of(kind, seed)))


def turn_of(kind: str, seed: int) -> int:
    """Which of the eight turns a view is."""
    return 0 if kind == "none" else seed % 8


def turned(square: Array, turn: int) -> Array:
    """Turn the first two axes by quarters; from 4 on they are mirrored after it."""
    quarter: Any = np.rot90(square, turn % 4)
    return quarter[:, ::-1] if turn >= 4 else quarter  # type: ignore[no-any-return]


def places(rows: int, columns: int, turn: int) -> NDArray[np.int32]:
    """For each patch of a view, row by row, where it lies in the picture itself: [rows · columns, 2]."""
    own = np.moveaxis(np.indices((rows, columns), dtype=np.int32), 0, -1)
    return np.ascontiguousarray(turned(own, turn)).reshape(-1, 2)


def stained(picture: NDArray[np.uint8], seed: int) -> NDArray[np.uint8]:
    """Change how strong each of the two stains is."""
    factors = np.random.default_rng(seed).uniform(1 - STRENGTH, 1 + STRENGTH, 2)
    unmix, mix = _dyes()
    dense = -np.log((picture.astype(np.float32) + 1) / 256)
    amounts = dense @ unmix
    amounts[..., :2] *= factors.astype(np.float32)
    light: NDArray[np.float32] = np.exp(-(amounts @ mix)) * 256 - 1
    return light.round().clip(0, 255).astype(np.uint8)


@cache
def _dyes() -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """From densities to amounts of the two dyes and a rest that neither explains, and back."""
    dyes = np.array([*_DYES, np.cross(*_DYES)])
    dyes /= np.linalg.norm(dyes, axis=1, keepdims=True)
    return np.linalg.inv(dyes).astype(np.float32), dyes.astype(np.float32)
