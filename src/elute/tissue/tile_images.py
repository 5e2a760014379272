"""Image files read as RGB of 8 bits, or refused in one line: what is cut short, too large, or of another kind.

Grey, palette and CMYK images become RGB; what is transparent is laid on white, as glass is. Numbers of 16 bits or more
a channel are refused where the file's reader does not scale them itself: how they become 8 is a choice.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base.doctor import how_to_install
from elute.base.errors import DamagedError, DataError, EluteError, MissingError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    Image = NDArray[np.uint8]  # [height, width, 3]

SUFFIXES = (".png", ".jpg", ".jpeg", ".tif", ".tiff", ".webp", ".bmp", ".jp2")
FORMATS = ("PNG", "JPEG", "TIFF", "WEBP", "BMP", "JPEG2000")  # no format that runs another program, as EPS does
TILE_PIXELS = 1 << 26  # of one tile: 8,192 × 8,192
_OPAQUE = ("1", "L", "RGB", "RGBX", "CMYK", "YCbCr")
_CLEAR = ("RGBA", "LA", "PA", "P", "La", "RGBa")


def pillow() -> Any:
    """Return Pillow's module of images."""
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        if error.name != "PIL":
            raise
        what = "Pillow, which reads images, is not installed"
        raise MissingError(what, remedy=f"Type: {how_to_install('tissue')}") from None
    return Image


def read_image(source: Path | bytes, where: object, *, most: int = TILE_PIXELS) -> Image:
    """Read one image of at most so many pixels; `where` names it in an error."""
    kind = pillow()
    try:
        with kind.open(io.BytesIO(source) if isinstance(source, bytes) else source, formats=FORMATS) as held:
            _check_size(held.size, most, where)
            return as_rgb(held, where)
    except EluteError:
        raise
    except FileNotFoundError:
        raise DataError("there is no such image", where=where, remedy="Check the table's paths and --images.") from None
    except (PermissionError, IsADirectoryError) as error:
        raise DataError(f"cannot be read: {error.strerror}", where=where) from None
    except (kind.DecompressionBombError, kind.DecompressionBombWarning):
        what = "claims to hold more pixels than any tile has (a decompression bomb?)"
        raise DataError(what, where=where, remedy="Leave it out; a whole slide belongs to --slides.") from None
    except Exception as error:  # noqa: BLE001  # damaged files make the reader raise of every kind
        raise DamagedError(f"is no whole image: {first_line(error)}", where=where, remedy="Fetch it anew.") from None


def as_rgb(held: Any, where: object) -> Image:
    """Turn an opened image into RGB."""
    import numpy as np

    if held.mode in _CLEAR:
        clear = held.convert("RGBA")
        if clear.getextrema()[3][0] < 255:
            clear = pillow().alpha_composite(pillow().new("RGBA", clear.size, "white"), clear)
        held = clear.convert("RGB")
    elif held.mode in _OPAQUE:
        held = held.convert("RGB")
    else:
        what = f"holds numbers that are no 8-bit colours (mode {held.mode})"
        raise DataError(what, where=where, remedy="Scale it to 8 bits a channel and save it as RGB.")
    return np.array(held)  # a copy: what Pillow shares cannot be written to


def first_line(error: BaseException) -> str:
    """Say what a library said, in a few words."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines[0] if lines else type(error).__name__)[:120]


def _check_size(size: tuple[int, int], most: int, where: object) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise DamagedError(f"is {width} × {height} pixels", where=where, remedy="Fetch it anew.")
    if width * height > most:
        what = f"is {width:,} × {height:,} pixels, more than the {most:,} that are read at once"
        raise DataError(what, where=where, remedy="Give smaller tiles; a whole slide belongs to --slides.")
