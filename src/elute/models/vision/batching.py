"""From pictures to batches with one row of metadata a patch or a picture, at any epoch, in bounded memory.

A chunk names some pictures of one epoch; its pixels are read when they are asked for, so that rows which are stored
already cost nothing.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import polars as pl

from elute.base.errors import ConfigError, near
from elute.models.vision import augmenting
from elute.models.vision.preprocessing import Preprocessing, checked_pictures

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

CARRIED = ("group", "split")  # columns of a table that go with every row


class Pictures(Protocol):
    """A table with a row a picture, and the pictures."""

    @property
    def table(self) -> pl.DataFrame: ...  # noqa: D102  # sample_id, tile_id, and any of CARRIED
    def images(self, numbers: Iterable[int], /) -> list[NDArray[np.uint8]]: ...  # noqa: D102


@dataclass(frozen=True)
class Views:
    """Which views of each picture are read."""

    epochs: tuple[int, ...] = (0,)
    augment: str = "none"
    seed: int = 0

    def __post_init__(self) -> None:
        """Refuse views that cannot be made."""
        if self.augment not in augmenting.KINDS:
            raise ConfigError(f"augment is {self.augment!r}", remedy=near(str(self.augment), augmenting.KINDS))
        if not self.epochs or min(self.epochs) < 0:
            raise ConfigError(f"epochs are {self.epochs!r}", remedy="Give at least one, counted from 0.")


@dataclass(frozen=True)
class Chunk:
    """Some pictures, one after another, in one epoch."""

    epoch: int
    start: int
    stop: int


@dataclass(frozen=True, eq=False)
class Given:
    """Pictures that are in memory, or come one by one."""

    pictures: Sequence[NDArray[np.uint8]]

    @property
    def table(self) -> pl.DataFrame:
        """Names them by their number."""
        names = [str(i) for i in range(len(self.pictures))]
        return pl.DataFrame(
            {"sample_id": names, "tile_id": names}, schema={"sample_id": pl.String, "tile_id": pl.String}
        )

    def images(self, numbers: Iterable[int], /) -> list[NDArray[np.uint8]]:
        """Return some of them."""
        return checked_pictures([self.pictures[i] for i in numbers])


def pictures_of(data: Any) -> Pictures:
    """Take tiles, an array of pictures, or anything that gives pictures."""
    if hasattr(data, "table") and hasattr(data, "images"):
        return data  # type: ignore[no-any-return]
    return Given(data if hasattr(data, "__getitem__") and hasattr(data, "__len__") else list(data))


def chunks(n: int, views: Views, size: int) -> Iterator[Chunk]:
    """Cut all views into chunks of at most so many pictures: epoch after epoch."""
    if size < 1:
        raise ConfigError(f"batch_size={size}", remedy="A batch holds at least one picture.")
    for epoch in views.epochs:
        for start in range(0, n, size):
            yield Chunk(epoch, start, min(start + size, n))


class Batcher:
    """Reads chunks of some pictures for one model."""

    def __init__(
        self, data: Any, views: Views, *, preprocessing: Preprocessing, grid: tuple[int, int] | None, per_token: bool
    ) -> None:
        if per_token and grid is None:
            what = "this network gives no tokens of patches"
            raise ConfigError(what, remedy="Read a row a tile: per_token=false, pooled=true.")
        self.pictures = pictures_of(data)
        self.views, self.preprocessing, self.per_token = views, preprocessing, per_token
        self.grid = grid or (1, 1)
        table = self.pictures.table
        carried = [name for name in CARRIED if name in table.columns and table[name].null_count() < table.height]
        self._table = table.select("sample_id", "tile_id", *carried)

    def __len__(self) -> int:
        return self._table.height

    def pixels(self, chunk: Chunk) -> Tensor:
        """Read a chunk's pictures: float32 [n, 3, size, size]."""
        seeds = self._seeds(chunk)
        read = self.pictures.images(range(chunk.start, chunk.stop))
        squares = [self.preprocessing.square(picture) for picture in read]
        made = [augmenting.view(s, self.views.augment, seed) for s, seed in zip(squares, seeds, strict=True)]
        return self.preprocessing.numbers(made)

    def metadata(self, chunk: Chunk) -> pl.DataFrame:
        """One row a patch, by its place in the picture itself, however the view is turned; or one a picture."""
        seeds = self._seeds(chunk)
        frame = self._table[chunk.start : chunk.stop].with_columns(
            pl.Series("augment_seed", seeds, dtype=pl.Int64), pl.lit(chunk.epoch, pl.Int32).alias("epoch")
        )
        if not self.per_token:
            return frame
        turns = [augmenting.turn_of(self.views.augment, seed) if chunk.epoch else 0 for seed in seeds]
        places = np.concatenate([augmenting.places(*self.grid, turn) for turn in turns])
        rows = np.repeat(np.arange(frame.height), self.grid[0] * self.grid[1])
        return frame[rows].with_columns(pl.Series("token_rc", places, dtype=pl.Array(pl.Int32, 2)))

    def _seeds(self, chunk: Chunk) -> list[int]:
        names = self._table[chunk.start : chunk.stop].select("sample_id", "tile_id").rows()
        return [augmenting.view_seed(self.views.seed, chunk.epoch, *name) for name in names]
