"""Whole slides: one small interface, and what reads it.

A reader gives pixels of a level, at a place in pixels of the slide itself (level 0). tiffslide and openslide read
pyramids where one of them is installed; a plain image that Pillow reads is a slide of one level, held in memory.

    with closing(open_slide("scan.tif")) as slide:
        tile = cut(slide, (5000, 7000), side=448, size=224)       # 448 pixels of the slide as 224
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from elute.base.doctor import how_to_install
from elute.base.errors import DamagedError, DataError, EluteError, MissingError
from elute.tissue.tile_images import FORMATS, SUFFIXES, as_rgb, first_line, pillow

if TYPE_CHECKING:
    from elute.tissue.tile_images import Image

SLIDES = (".svs", ".tif", ".tiff", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".dcm")
_PLAIN = tuple(suffix for suffix in SUFFIXES if suffix not in SLIDES)
_LIBRARIES = ("tiffslide", "openslide")
_MOST_READ = 1 << 25  # pixels that are read of a slide at once
_CREDIBLE = (0.05, 20.0)  # microns of a pixel: 72 dots an inch are no scale of a scan


class SlideReader(Protocol):
    """What a slide must offer to be cut into tiles."""

    @property
    def size(self) -> tuple[int, int]: ...  # noqa: D102  # width and height of level 0
    @property
    def downsamples(self) -> Sequence[float]: ...  # noqa: D102  # of each level: 1.0, 4.0, 16.0
    @property
    def microns_per_pixel(self) -> float | None: ...  # noqa: D102  # of level 0
    def read(self, x: int, y: int, *, size: tuple[int, int], level: int) -> Image: ...  # noqa: D102
    def close(self) -> None: ...  # noqa: D102


class PlainSlide:
    """An image that Pillow reads, as a slide of one level; it is held in memory whole."""

    downsamples: Sequence[float] = (1.0,)

    def __init__(self, path: Path) -> None:
        kind = pillow()
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore", kind.DecompressionBombWarning)  # from twice as many on it is an error
                with kind.open(path, formats=FORMATS) as held:
                    self.microns_per_pixel = _scale(held)
                    self._pixels = as_rgb(held, path)
        except EluteError:
            raise
        except kind.DecompressionBombError:
            what = f"holds more than {2 * kind.MAX_IMAGE_PIXELS:,} pixels, too many to be held in memory"
            raise DataError(what, where=path, remedy=f"For a pyramid, type: {how_to_install('slides')}") from None
        except Exception as error:  # noqa: BLE001  # damaged files make the reader raise of every kind
            raise DamagedError(f"is no whole image: {first_line(error)}", where=path, remedy="Fetch it anew.") from None

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self._pixels.shape[1], self._pixels.shape[0]

    def read(self, x: int, y: int, *, size: tuple[int, int], level: int) -> Image:
        """Return the pixels [height, width, 3] from a place on."""
        del level  # there is one
        return self._pixels[y : y + size[1], x : x + size[0]]

    def close(self) -> None:
        """Let the pixels go."""
        self._pixels = np.zeros((0, 0, 3), np.uint8)


class PyramidSlide:
    """A slide that tiffslide or openslide has opened: both offer the same names."""

    def __init__(self, slide: Any, path: Path) -> None:
        self._slide, self._path = slide, path
        self.size: tuple[int, int] = (int(slide.dimensions[0]), int(slide.dimensions[1]))
        self.downsamples: Sequence[float] = tuple(float(x) for x in slide.level_downsamples)
        self.microns_per_pixel = self._measured(slide.properties)

    def read(self, x: int, y: int, *, size: tuple[int, int], level: int) -> Image:
        """Return the pixels [height, width, 3] of a level, from a place in pixels of level 0 on."""
        try:
            return as_rgb(self._slide.read_region((x, y), level, size), self._path)
        except Exception as error:  # noqa: BLE001  # of every kind, where a part of a slide is damaged
            what = f"level {level} cannot be read at {x:,}, {y:,}: {first_line(error)}"
            raise DamagedError(what, where=self._path, remedy="Fetch it anew, or leave it out.") from None

    def close(self) -> None:
        """Close the file."""
        self._slide.close()

    @staticmethod
    def _measured(properties: Any) -> float | None:
        """Microns of a pixel, where both sides say about the same."""
        for library in _LIBRARIES:
            found = [_number(properties.get(f"{library}.mpp-{axis}")) for axis in "xy"]
            if found[0] and found[1] and abs(found[0] - found[1]) < 0.02 * found[0]:
                return _credible((found[0] + found[1]) / 2)
        return None


def open_slide(path: Path) -> SlideReader:
    """Open a slide with what is installed."""
    if not path.is_file():
        raise DataError("there is no such slide", where=path, remedy="Check --slides and the table's paths.")
    suffix = path.suffix.lower()
    if suffix in _PLAIN:
        return PlainSlide(path)
    for library in _LIBRARIES:
        if importlib.util.find_spec(library) is None:
            continue
        module = importlib.import_module(library)
        opened = module.TiffSlide if library == "tiffslide" else module.OpenSlide
        try:
            return PyramidSlide(opened(str(path)), path)
        except Exception as error:  # noqa: BLE001  # libraries raise of every kind for a file that they cannot read
            if suffix in SUFFIXES:
                break  # a plain TIFF, which is no pyramid
            what = f"is no slide that {library} reads: {first_line(error)}"
            remedy = "Fetch it anew, or save it as a tiled pyramidal TIFF."
            raise DamagedError(what, where=path, remedy=remedy) from None
    if suffix in SUFFIXES:
        return PlainSlide(path)
    if suffix not in SLIDES:
        raise DataError(f"is no slide: files of {suffix or 'no'} kind are not read", where=path,
                        remedy=f"Give one of {', '.join((*SLIDES, *_PLAIN))}.")  # fmt: skip
    what = f"slides of kind {suffix} need tiffslide or openslide, and neither is installed"
    raise MissingError(what, where=path, remedy=f"Type: {how_to_install('slides')}")


def cut(slide: SlideReader, centre: tuple[float, float], *, side: float, size: int) -> Image:
    """Return a square of a slide, `side` pixels wide there, as `size` pixels; what lies outside is white."""
    level = _level(slide, side / size)
    factor = slide.downsamples[level]
    across = max(1, round(side / factor))
    x0, y0 = round(centre[0] - side / 2), round(centre[1] - side / 2)
    width, height = slide.size
    # In pixels of the level: where the slide begins and ends within the square.
    left, top = (max(0, math.ceil(-at / factor)) for at in (x0, y0))
    right = min(across, math.floor((width - x0) / factor))
    bottom = min(across, math.floor((height - y0) / factor))
    if (left, top, right, bottom) == (0, 0, across, across):
        region = slide.read(x0, y0, size=(across, across), level=level)
    else:
        region = np.full((across, across, 3), 255, np.uint8)
        if right > left and bottom > top:
            at = (round(x0 + left * factor), round(y0 + top * factor))
            region[top:bottom, left:right] = slide.read(*at, size=(right - left, bottom - top), level=level)
    if across == size:
        return np.ascontiguousarray(region)
    image = pillow()
    shrunk = image.fromarray(np.ascontiguousarray(region)).resize((size, size), image.Resampling.LANCZOS)
    return np.array(shrunk)


def thumbnail(slide: SlideReader, longest: int = 1024) -> tuple[Image, float]:
    """Return a slide at most `longest` pixels long, and how many pixels of level 0 one of its pixels stands for."""
    image = pillow()
    longer = max(slide.size)
    level = _level(slide, max(1.0, longer / longest))
    factor = slide.downsamples[level]
    shape = [max(1, int(side / factor)) for side in slide.size]
    by = max(1, math.ceil(max(shape) / longest))
    rows = max(by, _MOST_READ // shape[0] // by * by)
    strips = []
    for top in range(0, shape[1], rows):
        part = slide.read(0, round(top * factor), size=(shape[0], min(rows, shape[1] - top)), level=level)
        strips.append(np.array(image.fromarray(np.ascontiguousarray(part)).reduce(by)))
    return np.concatenate(strips), factor * by


def _level(slide: SlideReader, shrink: float) -> int:
    """The smallest level that is still at least as fine as asked."""
    fine = [i for i, factor in enumerate(slide.downsamples) if factor <= shrink * 1.001]
    return max(fine, key=lambda i: slide.downsamples[i]) if fine else 0


def _scale(held: Any) -> float | None:
    """Microns of a pixel, where a TIFF says how many there are to a centimetre or an inch."""
    if held.format != "TIFF":
        return None
    unit = {2: 25_400.0, 3: 10_000.0}.get(held.tag_v2.get(296, 2))
    across = _number(held.tag_v2.get(282))
    return None if unit is None or not across else _credible(unit / across)


def _number(value: Any) -> float | None:
    try:
        found = float(value)
    except (TypeError, ValueError, ZeroDivisionError):
        return None
    return found if math.isfinite(found) and found > 0 else None


def _credible(microns: float) -> float | None:
    return microns if _CREDIBLE[0] <= microns <= _CREDIBLE[1] else None
