"""Tiles as WebP within a budget: as large and as good as all of them together may be, and told when they were reduced.

1. A few tiles spread over all of them are encoded at each step of size and quality, the best first; the first step at
   which all places would fit is taken.
2. All tiles are encoded at that step. If they took more room than the few had promised, the next step is tried.
3. At the last step there are fewer tiles a code, down to none.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from elute.base.errors import DataError, MissingError
from elute.reports.tissue.markup import picture

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Pixels = NDArray[np.uint8]
Key = tuple[str, str]  # sample, tile
Images = Callable[[Sequence[Key]], "list[Pixels]"]
Places = Callable[[int], Mapping[Key, int]]  # how often each tile stands on a page, at so many tiles a code
STEPS = ((256, 82), (224, 78), (192, 75), (160, 72), (128, 68), (112, 64), (96, 58), (80, 52), (64, 45), (48, 40))
MAP_BYTES = 900  # of a map over a tile and of what is written below it
_TRIED, _AT_ONCE = 24, 64


@dataclass(frozen=True, eq=False)
class Album:
    """Every tile that pages show, encoded once."""

    tiles: Mapping[Key, str] = field(default_factory=dict)
    per_code: int = 0
    side: int = 0
    told: str = ""
    taken: float = 0.0  # bytes on all pages together

    def address(self, key: Key) -> str | None:
        """The tile as an address that holds it; nothing where there was no room."""
        return self.tiles.get(key)


def make_album(images: Images, places: Places, *, most: int, room: float) -> Album:
    """Encode the tiles for which there is room, `most` a code if possible."""
    _needs_pillow()
    per_code, step = most, 0
    while per_code:
        wanted = places(per_code)
        if not wanted:
            return Album(per_code=per_code)
        keys, count = list(wanted), sum(wanted.values())
        left = room - count * MAP_BYTES
        tried = images(keys[:: max(1, len(keys) // _TRIED)][:_TRIED])
        while step < len(STEPS) and _bytes([_webp(one, STEPS[step]) for one in tried]) / len(tried) * count > left:
            step += 1
        while step < len(STEPS):
            found = _encode(images, keys, STEPS[step])
            taken = sum(len(address) * wanted[key] for key, address in found.items())
            if taken <= left:
                told = _told(step, per_code, most)
                return Album(found, per_code, STEPS[step][0], told, taken + count * MAP_BYTES)
            step += 1
        per_code, step = per_code // 2, len(STEPS) - 1
    return Album(told="Tiles are left out: not even small ones fit into the size that was asked for (size_budget_mb).")


def _told(step: int, per_code: int, most: int) -> str:
    """What was reduced."""
    side, quality = STEPS[step]
    parts = [f"to at most {side} pixels and WebP quality {quality}"] if step else []
    parts += [f"to {per_code} of {most} a code"] if per_code < most else []
    return f"To keep to the size that was asked for, tiles are reduced {' and '.join(parts)}." if parts else ""


def _encode(images: Images, keys: Sequence[Key], step: tuple[int, int]) -> dict[Key, str]:
    found: dict[Key, str] = {}
    for start in range(0, len(keys), _AT_ONCE):
        some = keys[start : start + _AT_ONCE]
        for key, pixels in zip(some, images(some), strict=True):
            found[key] = picture("webp", _webp(pixels, step))
    return found


def _bytes(encoded: Sequence[bytes]) -> float:
    return sum(len(one) for one in encoded) * 4 / 3 + 30 * len(encoded)


def _webp(pixels: Pixels, step: tuple[int, int]) -> bytes:
    from PIL import Image

    side, quality = step
    given: Any = np.asarray(pixels)
    if given.ndim != 3 or given.shape[2] != 3 or given.dtype != np.uint8 or not given.size:
        raise DataError(f"a tile is {given.dtype} of shape {given.shape}, not uint8 [height, width, 3]", where="images")
    image = Image.fromarray(np.ascontiguousarray(given))
    if max(image.size) > side:
        share = side / max(image.size)
        size = (max(1, round(image.width * share)), max(1, round(image.height * share)))
        image = image.resize(size, Image.Resampling.LANCZOS)
    out = io.BytesIO()
    image.save(out, "WEBP", quality=quality, method=4)
    return out.getvalue()


def _needs_pillow() -> None:
    try:
        from PIL import features
    except ImportError:
        raise MissingError("Pillow is not installed", remedy="Type: pip install 'elute[tissue]'") from None
    if not features.check("webp"):
        raise MissingError("this Pillow cannot write WebP", remedy="Type: pip install --upgrade pillow")
