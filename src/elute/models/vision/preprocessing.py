"""From a picture to what a vision model reads: resized, perhaps cut, brought to its scale of colours.

    Preprocessing(size=224, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))        # the whole picture as 224 × 224
    Preprocessing(size=224, edge=256, …)                                        # the middle 224 of 256

`preprocessor_config.json` beside a model says which. Pillow resizes, as the libraries that the models were trained with
do where torchvision is not there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base import files
from elute.base.doctor import how_to_install
from elute.base.errors import ConfigError, DamagedError, DataError, MissingError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    Image = NDArray[np.uint8]  # [height, width, 3]

FILE = "preprocessor_config.json"
_WHOLE = 256 / 224  # how much larger than what is cut out a picture is made, where nothing says it
Colour = tuple[float, float, float]


@dataclass(frozen=True)
class Preprocessing:
    """How a picture becomes numbers."""

    size: int
    """Side of what the model reads."""
    edge: int | None = None
    """Length of the shorter side before the middle is cut out; without, the whole picture becomes a square."""
    mean: Colour = (0.5, 0.5, 0.5)
    std: Colour = (0.5, 0.5, 0.5)
    factor: float = 1 / 255
    resample: int = 3
    """Pillow's number of the filter: 2 bilinear, 3 bicubic."""

    def __post_init__(self) -> None:
        """Refuse what no picture can be brought to."""
        for name in ("mean", "std"):
            value: Any = getattr(self, name)
            if len(value) != 3 or not all(isinstance(x, int | float) and abs(x) < 1e6 for x in value):
                raise ConfigError(f"{name} is {value!r}, not three numbers", remedy="Give one each for R, G and B.")
        if min(self.std) <= 0 or self.size < 1 or (self.edge is not None and self.edge < self.size):
            what = f"size {self.size}, edge {self.edge} and std {self.std} cannot be"
            raise ConfigError(what, remedy="The edge is at least the size, and each std above 0.")
        if self.resample not in range(6):
            raise ConfigError(f"resample is {self.resample!r}", remedy="Pillow's filters have numbers from 0 to 5.")

    def changed(self, *, size: int | None, crop: bool | None, mean: Any = None, std: Any = None) -> Preprocessing:
        """Return what a person wants otherwise."""
        size = size or self.size
        cut = self.edge is not None if crop is None else crop
        larger = _WHOLE if self.edge is None else self.edge / self.size
        made = replace(self, size=size, edge=max(size, round(size * larger)) if cut else None)
        return replace(
            made, mean=self.mean if mean is None else _colour(mean), std=self.std if std is None else _colour(std)
        )

    def square(self, picture: Image) -> Image:
        """Resize a picture, and cut its middle out where that is meant; still 8 bits."""
        import numpy as np

        height, width = picture.shape[:2]
        if self.edge is None:
            wanted = (self.size, self.size)
        else:
            shorter = min(height, width)
            wanted = (int(width * self.edge / shorter), int(height * self.edge / shorter))
        if wanted != (width, height):
            image = pillow()
            picture = np.asarray(image.fromarray(picture).resize(wanted, image.Resampling(self.resample)))
        top, left = (picture.shape[0] - self.size) // 2, (picture.shape[1] - self.size) // 2
        return picture[top : top + self.size, left : left + self.size]

    def seen(self, width: float, height: float) -> tuple[float, float, float, float]:
        """The part of a picture that the model sees: left, top, right, bottom in pixels of the picture."""
        if self.edge is None:
            return 0.0, 0.0, float(width), float(height)
        side = self.size * min(width, height) / self.edge
        return (width - side) / 2, (height - side) / 2, (width + side) / 2, (height + side) / 2

    def numbers(self, squares: Sequence[Image]) -> Tensor:
        """Bring squares to the model's scale: float32 [n, 3, size, size]."""
        import numpy as np
        import torch

        x = np.stack(squares).astype(np.float32)
        x *= (self.factor / np.asarray(self.std)).astype(np.float32)
        x -= (np.asarray(self.mean) / np.asarray(self.std)).astype(np.float32)
        return torch.from_numpy(np.ascontiguousarray(x.transpose(0, 3, 1, 2)))


def pillow() -> Any:
    """Return Pillow's module of images."""
    try:
        from PIL import Image
    except ModuleNotFoundError as error:
        if error.name != "PIL":
            raise
        what = "Pillow, which resizes images, is not installed"
        raise MissingError(what, remedy=f"Type: {how_to_install('tissue')}") from None
    return Image


def read_preprocessing(folder: Path, image_size: int) -> Preprocessing | None:
    """Read what a model's folder says of its pictures; nothing where it says nothing."""
    path = folder / FILE
    if not path.exists():
        return None
    held = files.read_json(path, what="a model's preprocessing", remedy="Fetch it anew.")
    if not isinstance(held, dict):
        raise DamagedError("is no model's preprocessing", where=path, remedy="Fetch it anew.")
    try:
        return _of(held, image_size)
    except (ConfigError, KeyError, TypeError, ValueError) as error:
        said = error.what if isinstance(error, ConfigError) else f"{type(error).__name__}: {error}"
        raise DamagedError(f"cannot be followed ({said})", where=path, remedy="Fetch it anew.") from None


def _of(held: Mapping[str, Any], image_size: int) -> Preprocessing:
    mean, std = (0.5, 0.5, 0.5), (0.5, 0.5, 0.5)
    if not held.get("do_normalize", True):
        mean, std = (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)
    elif "image_mean" in held and "image_std" in held:
        mean, std = _colour(held["image_mean"]), _colour(held["image_std"])
    factor = float(held.get("rescale_factor") or 1 / 255) if held.get("do_rescale", True) else 1.0
    side = _side(held.get("size")) if held.get("do_resize", True) else None
    resample, edge = int(held.get("resample", 2)), None
    size = side or image_size
    if held.get("do_center_crop"):
        size = _side(held.get("crop_size")) or size
        edge = max(size, side or size)
    return Preprocessing(size, edge, mean=mean, std=std, factor=factor, resample=resample)


def _side(held: Any) -> int | None:
    """The side of a square, or the length of the shorter edge, in the ways in which a size is written."""
    if held is None or isinstance(held, int):
        return held
    if "shortest_edge" in held:
        return int(held["shortest_edge"])
    if held["height"] != held["width"]:
        raise ConfigError(f"its pictures are {held['width']} × {held['height']}, and tiles are square")
    return int(held["height"])


def _colour(value: Any) -> Colour:
    """Three numbers, or one for all three."""
    given = [value] * 3 if isinstance(value, int | float) else list(value)
    if len(given) != 3:
        raise ConfigError(f"{value!r} is not three numbers", remedy="Give one each for R, G and B.")
    return float(given[0]), float(given[1]), float(given[2])


def checked_pictures(pictures: Sequence[Any]) -> list[Image]:
    """Refuse what is no picture of 8 bits and three colours."""
    import numpy as np

    for number, picture in enumerate(pictures):
        kind = getattr(picture, "dtype", None)
        if kind != np.uint8 or picture.ndim != 3 or picture.shape[2] != 3 or 0 in picture.shape:
            told = type(picture).__name__ if kind is None else f"{kind} {list(picture.shape)}"
            raise DataError(f"picture {number} is {told}", remedy="Give uint8 [height, width, 3].")
    return list(pictures)
