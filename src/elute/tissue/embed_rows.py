"""Rows that are stored of an encoder: one a patch, or one a tile; from the encoder itself, or from stored patches.

Both kinds are models in the sense of base/contracts.py, so that `capture_to_store` writes them, takes an interrupted
store up, and refuses one of another encoder.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import chain, pairwise
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from elute.base.contracts import Edit, Fingerprint, Rows, Site
from elute.base.errors import ConfigError
from elute.base.files import digest_json
from elute.models.vision.batching import Chunk, Views, chunks

if TYPE_CHECKING:
    from torch import Tensor

    from elute.models.vision.batching import Batcher
    from elute.models.vit import Vit
    from elute.store.rows import StoredRows
    from elute.tissue.tile_images import Image
    from elute.tissue.tiles import Tiles

SITE = "embedding"
Kind = Literal["patches", "mean", "cls"]


@dataclass(frozen=True, eq=False)
class Divided:
    """Tiles whose rows say in which split they are."""

    tiles: Tiles
    splits: Mapping[str, str]

    @property
    def table(self) -> pl.DataFrame:
        """The tiles' names, groups and splits."""
        split = pl.col("group").replace_strict(self.splits, return_dtype=pl.String).alias("split")
        return self.tiles.table.select("sample_id", "tile_id", "group").with_columns(split)

    def images(self, numbers: Iterable[int], /) -> list[Image]:
        """Read some pictures."""
        return self.tiles.images(numbers)


@dataclass(frozen=True)
class Work:
    """A chunk to be read and run, and the one after it, whose pictures are read meanwhile."""

    chunk: Chunk
    following: Chunk | None


class EmbeddingRows:
    """An encoder that gives one site, `embedding`, of the layer that is asked for."""

    def __init__(self, model: Vit, layer_name: str | None, *, kind: Kind, views: Views, batch_size: int) -> None:
        if kind == "patches" and model.grid is None:
            what = "this encoder gives no tokens of patches"
            raise ConfigError(what, where=model.name, remedy="Read a row a tile: per_token: false.")
        if kind == "cls" and model.grid is not None and model.prefix == 0:
            what = "this encoder has no class token"
            raise ConfigError(what, where=model.name, remedy="Take the mean over its patches: pooling: mean.")
        self.model, self.kind, self.views, self.batch_size = model, kind, views, batch_size
        self.layer = model.site_of(layer_name)
        self.name = model.name
        self.sites: Mapping[str, Site] = {SITE: Site("", width=model.sites[self.layer].width)}
        self._batcher: Batcher | None = None
        self._ahead: tuple[Chunk, Future[Tensor]] | None = None
        self._pool: ThreadPoolExecutor | None = None

    @property
    def rows_of_a_tile(self) -> int:
        """How many rows each tile has in an epoch."""
        rows, columns = self.model.grid or (1, 1)
        return rows * columns if self.kind == "patches" else 1

    def fingerprint(self) -> Fingerprint:
        """Say what gives the rows: the encoder, the layer, and what becomes of its tokens."""
        found, site = self.model.fingerprint(), self.model.sites[self.layer]
        told = digest_json([SITE, self.kind, site.path, site.at, site.select, site.call])
        return Fingerprint(found.name, found.weights, found.config, told)

    def batches(self, data: Any, **_settings: Any) -> Iterator[tuple[Work, pl.DataFrame]]:
        """Yield what is to be read, with its metadata; a picture is read when its rows are captured."""
        epochs, augment, seed = self.views.epochs, self.views.augment, self.views.seed
        # The mean over patches is taken of all of them, and told in one row.
        batcher = self.model.batcher(data, per_token=self.kind == "patches", epochs=epochs, augment=augment, seed=seed)
        self._batcher = batcher
        with ThreadPoolExecutor(1) as self._pool:
            for chunk, following in pairwise(chain(chunks(len(batcher), self.views, self.batch_size), [None])):
                if chunk is not None:
                    yield Work(chunk, following), batcher.metadata(chunk)
        self._pool = self._ahead = None

    def keep(self, _batch: Any) -> None:
        """Every row is kept."""

    def capture(self, batch: Work, sites: Sequence[str] | None = None) -> Rows:
        """Run the encoder on a chunk's pictures."""
        return dict.fromkeys(sites or self.sites, self.of_pixels(self._pixels(batch)))

    def of_pixels(self, pixels: Tensor) -> Tensor:
        """The rows of pictures that are on the encoder's scale."""
        batch = self.model.batch(pixels, per_token=self.kind != "cls")
        rows = self.model.capture(batch, [self.layer])[self.layer]
        if self.kind != "mean" or self.model.grid is None:
            return rows
        return rows.float().reshape(len(pixels), -1, rows.shape[-1]).mean(1)

    def __call__(self, batch: Work) -> Any:
        """Run the encoder for its own output."""
        return self.model(self.model.batch(self._pixels(batch)))

    def patch(self, edits: Mapping[str, Edit], *, metadata: pl.DataFrame | None = None) -> AbstractContextManager[None]:
        """Replace what the encoder's own sites give, and see what becomes of the rows."""
        return self.model.patch(edits, metadata=metadata)

    def _pixels(self, work: Work) -> Tensor:
        if self._batcher is None:
            raise ConfigError("its pictures are not open", where=self.name, remedy="Take batches from it first.")
        ready, self._ahead = self._ahead, None
        pixels = ready[1].result() if ready and ready[0] == work.chunk else self._batcher.pixels(work.chunk)
        if work.following is not None and self._pool is not None:
            self._ahead = work.following, self._pool.submit(self._batcher.pixels, work.following)
        return pixels


class PooledRows:
    """The mean over each tile's patches, of patches that are stored: the encoder is not run again."""

    def __init__(self, rows: EmbeddingRows, patches: int) -> None:
        """Pool what is stored of an encoder; `rows` is the same encoder with one row a tile."""
        self.name, self.sites, self.patches = rows.name, rows.sites, patches
        self._told = rows.fingerprint()
        self._model, self._batch_size = rows.model, rows.batch_size
        self._store: StoredRows | None = None

    def fingerprint(self) -> Fingerprint:
        """What the encoder's own rows, one a tile, would say."""
        return self._told

    def batches(self, data: StoredRows, **_settings: Any) -> Iterator[tuple[range, pl.DataFrame]]:
        """Yield places in the store, with one row of metadata a tile."""
        self._store = data
        step = self.patches * self._batch_size
        for start in range(0, len(data), step):
            place = range(start, min(start + step, len(data)))
            yield place, data.metadata(place.start, place.stop).gather_every(self.patches).drop("token_rc")

    def keep(self, _batch: Any) -> None:
        """Every row is kept."""

    def capture(self, batch: range, sites: Sequence[str] | None = None) -> Rows:
        """Read patches, and take the mean of each tile's."""
        if self._store is None:
            raise ConfigError("its patches are not open", where=self.name, remedy="Take batches from it first.")
        rows = self._store.read(batch.start, batch.stop)[SITE].float()
        return dict.fromkeys(sites or self.sites, rows.reshape(-1, self.patches, rows.shape[-1]).mean(1))

    def __call__(self, batch: range) -> Any:
        """Return the rows themselves."""
        return self.capture(batch)

    def patch(self, edits: Mapping[str, Edit], *, metadata: pl.DataFrame | None = None) -> AbstractContextManager[None]:
        """Replace what the encoder's own sites give; stored patches do not change by it."""
        return self._model.patch(edits, metadata=metadata)
