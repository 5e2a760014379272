"""Maps of relevance by patch, read from a run's archives and painted to lie over a tile.

An archive (`token_maps/<gene>/<code>.npz`) is a zip of `.npy` arrays. It is opened member by member: arrays of Python
objects are refused, and nothing is unpickled.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from elute.base.errors import DamagedError

if TYPE_CHECKING:
    from collections.abc import Mapping

    from numpy.typing import NDArray

_AGAIN = "Type: elute tissue crp_relmax, with the run's --config."
_LARGEST = 1 << 30  # bytes of an archive's array
# Laid over pink and violet tissue: what raises is yellow, what lowers is light blue. Readers with any kind of colour
# blindness tell them apart from the stains and from each other.
RAISES, LOWERS = (255, 226, 0), (0, 214, 255)
Key = tuple[str, int, str, str]  # gene, code, sample, tile


@dataclass(frozen=True, eq=False)
class TokenMaps:
    """Where the map of each gene, code and tile lies."""

    folder: Path
    places: Mapping[Key, tuple[str, int]] = field(default_factory=dict)

    @staticmethod
    def open(folder: Path) -> TokenMaps:
        """Read the index; a run without maps has none."""
        path = folder / "token_maps" / "index.parquet"
        if not path.is_file():
            return TokenMaps(folder)
        names = ("gene", "code", "sample_id", "tile_id", "file", "at")
        try:
            frame = pl.read_parquet(path, glob=False)
            if lost := [name for name in names if name not in frame.columns]:
                raise DamagedError(f"has no column {lost[0]!r}", where=path, remedy=_AGAIN)
            texts = pl.col("gene", "sample_id", "tile_id", "file").cast(pl.String).fill_null("")
            frame = frame.with_columns(texts, pl.col("code", "at").cast(pl.Int64)).drop_nulls(["code", "at"])
        except (pl.exceptions.PolarsError, OSError) as error:
            first = (str(error).splitlines() or [""])[0]
            raise DamagedError(f"cannot be read: {first}", where=path, remedy=_AGAIN) from None
        rows = frame.select(names).iter_rows()
        return TokenMaps(
            folder, {(gene, code, sample, tile): (name, at) for gene, code, sample, tile, name, at in rows}
        )

    def map(self, gene: str, code: int, tile: tuple[str, str]) -> NDArray[np.float32] | None:
        """Return relevance by patch [rows, cols]; nothing where none was written."""
        place = self.places.get((gene, code, *tile))
        if place is None:
            return None
        name, at = place
        path = self.folder / name
        if not path.is_file():
            path = self.folder / "token_maps" / name
        if not path.resolve().is_relative_to((self.folder / "token_maps").resolve()):
            raise DamagedError(f"leads out of the run: {name[:80]}", where=self.folder / "token_maps/index.parquet")
        maps = read_archive(path)
        if at >= len(maps):
            raise DamagedError(f"holds {len(maps)} maps, and its index asks for number {at}", where=path, remedy=_AGAIN)
        found: NDArray[np.float32] = maps[at]
        return found


def read_archive(path: Path) -> NDArray[np.float32]:
    """Read the maps [n, rows, cols] of an archive; the last ones are kept until they are written anew."""
    try:
        told = path.stat()
    except OSError as error:
        raise DamagedError(f"cannot be read: {error.strerror}", where=path, remedy=_AGAIN) from None
    return _archive(path, (told.st_mtime_ns, told.st_size, told.st_ino))


@lru_cache(maxsize=32)
def _archive(path: Path, written: tuple[int, int, int]) -> NDArray[np.float32]:  # noqa: ARG001  # a part of the key
    try:
        with zipfile.ZipFile(path) as archive:
            member = archive.getinfo("maps.npy")
            with archive.open(member) as handle:
                whole = handle.read(_LARGEST)  # an archive may claim to be of any size
            array: Any = np.lib.format.read_array(io.BytesIO(whole), allow_pickle=False)
    except (zipfile.BadZipFile, OSError, KeyError, ValueError, EOFError, struct.error, zlib.error) as error:
        first = (str(error).splitlines() or [""])[0]
        raise DamagedError(f"is not an archive of maps: {first[:120]}", where=path, remedy=_AGAIN) from None
    if array.ndim != 3 or array.dtype.kind not in "fiu":
        raise DamagedError(f"holds {array.dtype} of shape {array.shape}, not maps", where=path, remedy=_AGAIN)
    maps: NDArray[np.float32] = np.nan_to_num(array.astype(np.float32), posinf=0.0, neginf=0.0)
    return maps


def paint(values: NDArray[np.float32], most: float) -> bytes:
    """Paint a map as a small PNG, a pixel a patch: the colour tells the sign, the opacity how much of `most` it is."""
    from PIL import Image

    share = np.clip(np.abs(values) / most, 0, 1) if most > 0 else np.zeros_like(values)
    rgba = np.empty((*values.shape, 4), np.uint8)
    rgba[..., :3] = np.where(values[..., None] >= 0, np.array(RAISES, np.uint8), np.array(LOWERS, np.uint8))
    rgba[..., 3] = np.round(255 * share)
    rgba[rgba[..., 3] == 0] = 0
    out = io.BytesIO()
    Image.fromarray(rgba).save(out, "PNG", optimize=True)
    return out.getvalue()


def half_of_strongest(values: NDArray[np.float32]) -> int:
    """Count the patches that have at least half of the strongest one's relevance, of its sign."""
    if not values.size or not np.any(values):
        return 0
    peak = values.flat[int(np.argmax(np.abs(values)))]
    return int(np.count_nonzero(values * np.sign(peak) >= abs(peak) / 2))
