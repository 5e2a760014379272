"""Embeddings out of a training loop of your own: one call a batch, and nothing where they are switched off.

    with EmbeddingExporter({"output_embeddings": True, "output": "results/mine"}, encoder=net) as exporter:
        for images, meta in loader:                   # meta: sample_id, group, and tile_id, epoch, split_tag, x, y …
            exporter(images, meta)
            …

Images are floats [n, 3, height, width] as the encoder reads them, or pictures of 8 bits, which are brought to its
scale. The encoder is frozen: one whose weights change between the first call and `close()` is an error. A loop that
was killed is run again: what is stored is passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import polars as pl
from torch import Tensor, nn

from elute.base import console, files, recipe, run
from elute.base.contracts import Fingerprint
from elute.base.errors import ConfigError, DataError, EluteError, GuardError
from elute.base.run import Artifact
from elute.models.vision.batching import Views
from elute.models.vit import Vit, load
from elute.store import layout, settle
from elute.store.keys import hash_keys
from elute.store.splitting import SplitConfig, split_store
from elute.store.writer import StoreWriter
from elute.tissue.embed_rows import SITE, EmbeddingRows
from elute.tissue.embed_scaling import scale_embeddings
from elute.tissue.embed_settings import EmbeddingConfig, EncoderConfig
from elute.tissue.exporter_meta import KEY, are_floats, pixels_of, read_meta
from elute.tissue.exporting import EMBEDDINGS, ENCODER, STAGE, TILES, encoder_record, open_encoder, pool_patches
from elute.tissue.tile_table import SCHEMA

if TYPE_CHECKING:
    Network = nn.Module | Vit | EncoderConfig | str | Path

_SECTIONS = ("embedding", "encoder", "split", "output")


class EmbeddingExporter:
    """Writes what an encoder gives for the pictures of a loop; called as `exporter(images, meta)`."""

    def __init__(
        self,
        config: EmbeddingConfig | Mapping[str, Any] | Path | str,
        *,
        folder: Path | str | None = None,
        encoder: Network | None = None,
        split: SplitConfig | None = None,
    ) -> None:
        """Take the settings of `embedding`, or a settings file; `folder` or its key `output` says where rows go.

        The encoder is a torch module, a model of `elute.load_model`, or what the settings' `encoder` may name; it can
        also be given later, with `attach`. `split` draws splits at the end, where no `split_tag` comes with pictures.
        """
        given = _sections(config)
        self.embedding: EmbeddingConfig = given["embedding"]
        self.split = split or given["split"]
        self._given: Network | None = encoder if encoder is not None else given["encoder"]
        self._settings: dict[str, Any] = {}
        place = folder if folder is not None else given["output"]
        self.folder = Path() if place is None else Path(place)
        self._rows: EmbeddingRows | None = None
        self._writer: StoreWriter | None = None
        self._told: Fingerprint | None = None
        self._state = "open" if self.embedding.output_embeddings else "off"
        self._before: set[int] = set()
        self._now: set[int] = set()
        self._known: set[int] = set()
        self._tiles: list[pl.DataFrame] = []
        if self._state == "open" and place is None:
            raise ConfigError(
                "no folder is named", where="EmbeddingExporter", remedy="Give folder=, or the key output."
            )
        if self.embedding.per_token and self.embedding.pooled and self.embedding.pooling == "cls":
            what = "a class token beside rows a patch needs an exporter of its own"
            raise ConfigError(what, where="EmbeddingExporter", remedy="Give it per_token: false and pooling: cls.")

    @property
    def active(self) -> bool:
        """Whether calls write anything."""
        return self._state == "open"

    def attach(self, encoder: Network, **settings: Any) -> Self:
        """Name the encoder; settings are those of `elute.load_model("vit", …)`."""
        if self._rows is not None:
            raise ConfigError(
                "rows of another encoder are written already", where=self.folder, remedy="Attach it first."
            )
        self._given, self._settings = encoder, settings
        return self

    def __call__(self, images: Any, meta: Any) -> int:
        """Write the rows of some pictures, and return how many; those of other epochs and those stored are none."""
        if self._state == "closed":
            raise ConfigError("the exporter is closed", where=self.folder, remedy="Open another one.")
        if self._state != "open":
            return 0
        frame = read_meta(meta, len(images))
        chosen = frame["epoch"].is_in(self.embedding.epochs).arg_true()
        if not len(chosen):
            return 0
        rows = self._rows or self._open(images)
        if self._writer is None and not self._begin(rows, images):
            return 0
        keys = hash_keys(frame, tuple(KEY)).tolist()
        written = 0
        if new := self._new(frame, chosen.to_list(), keys):
            x = rows.of_pixels(pixels_of(images, new, rows.model))
            self._append(x, frame[new], rows)
            written = len(x)
        self._now.update(keys[i] for i in chosen)
        self._note(frame[chosen])
        return written

    def close(self) -> Artifact:
        """Complete the store, draw splits where none came with the rows, and measure the scaling."""
        state, self._state = self._state, "off" if self._state == "off" else "closed"
        if state == "off" or state == "closed":
            return Artifact("store", self.folder / EMBEDDINGS, {"output_embeddings": state != "off"})
        if self._writer is None or self._rows is None or self._told is None:
            if state == "open":
                console.warn(f"{self.folder}: no picture came, so no embeddings are written")
                return Artifact("store", self.folder / EMBEDDINGS, {"rows": 0})
            return Artifact("store", self.folder / EMBEDDINGS, {"reused": True})
        writer, rows = self._writer, self._rows
        if rows.fingerprint() != self._told:
            writer.stop()
            remedy = "Freeze it (no optimiser steps, no running statistics), then export with recapture: true."
            raise GuardError("the encoder's weights changed while it was exported", where=self.folder, remedy=remedy)
        store = writer.close()
        if "split" not in writer.manifest.columns:
            split_store(store, self.split)
        return self._finish(rows, self._told)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
            return
        self._state = "closed"
        if self._writer is not None:
            try:
                self._writer.stop()
            except EluteError as second:  # the first error is the one to read
                error.add_note(f"(and the unfinished shard could not be kept: {second})")

    def _open(self, images: Any) -> EmbeddingRows:
        """Open the encoder; pictures that are floats say how large it reads them."""
        given = self._given
        if given is None:
            raise ConfigError("no encoder is named", where="EmbeddingExporter", remedy="Give encoder=, or attach one.")
        if isinstance(given, Vit):
            model = given
        elif isinstance(given, EncoderConfig):
            model = open_encoder(given)
        else:
            size = {"image_size": int(images.shape[-1])} if are_floats(images) and isinstance(given, nn.Module) else {}
            with console.hushed():  # pictures that are floats are on the encoder's scale already
                model = load(given, **{**size, **self._settings})
        config = self.embedding
        kind = "patches" if config.per_token else config.pooling
        self._rows = EmbeddingRows(model, config.layer_name, kind=kind, views=Views(), batch_size=model.batch_size)
        return self._rows

    def _begin(self, rows: EmbeddingRows, images: Any) -> bool:
        """Open the store; one that is complete is used as it is."""
        width = rows.sites[SITE].width or int(rows.of_pixels(pixels_of(images, [0], rows.model)).shape[1])
        config, store, told = self.embedding, self.folder / EMBEDDINGS, rows.fingerprint()
        tokens = rows.rows_of_a_tile
        # A shard holds whole pictures, so that a kill leaves none in part.
        per_shard = max(1, layout.DEFAULT_SHARD_BYTES // (width * layout.ITEM_BYTES[config.dtype] * tokens)) * tokens
        source = self._source()
        if not config.recapture and (store / layout.MANIFEST).exists():
            found = settle.for_reading(store)
            record = layout.ModelRecord(**told.as_json())
            wanted = found.model_copy(update={"sites": {SITE: width}, "model": record, "dtype": config.dtype,
                                              "source": source})  # fmt: skip
            if found.complete and not settle.differences(found, wanted):
                console.say(f"{store}: already exported, {found.rows:,} rows are used as they are")
                self._state = "done"
                return False
        self._writer = StoreWriter(
            store,
            sites={SITE: width},
            dtype=config.dtype,
            rows_per_shard=per_shard,
            model=told,
            source=source,
            recapture=config.recapture,
        )
        self._told = told
        manifest = self._writer.manifest
        for shard in range(len(manifest.shards)):
            frame = settle.read_metadata(store, manifest, shard, columns=KEY)
            self._before.update(hash_keys(frame.unique(), tuple(KEY)).tolist())
        if self._before:
            console.say(f"{store}: going on after {self._writer.rows:,} rows")
        return True

    def _source(self) -> dict[str, str]:
        return {"loop": files.digest_json(list(self.embedding.epochs))}

    def _new(self, frame: pl.DataFrame, chosen: list[int], keys: list[int]) -> list[int]:
        """Which pictures are not stored yet; one that comes twice in this loop is an error."""
        here: set[int] = set()
        for i in chosen:
            if keys[i] in self._now or keys[i] in here:
                row = frame.row(i, named=True)
                what = f"sample {row['sample_id']!r}, tile {row['tile_id']!r} comes twice in epoch {row['epoch']}"
                remedy = "Give each picture a tile_id, or each of its views an augment_seed."
                raise DataError(what, where=self.folder, remedy=remedy)
            here.add(keys[i])
        return [i for i in chosen if keys[i] not in self._before]

    def _note(self, frame: pl.DataFrame) -> None:
        """Remember tiles that have not been met before, for their table."""
        tiles = hash_keys(frame, ("sample_id", "tile_id")).tolist()
        first = {key: i for i, key in reversed([*enumerate(tiles)]) if key not in self._known}
        if first:
            self._known.update(first)
            self._tiles.append(frame.select(name for name in SCHEMA if name in frame.columns)[sorted(first.values())])

    def _append(self, x: Tensor, frame: pl.DataFrame, rows: EmbeddingRows) -> None:
        assert self._writer is not None  # noqa: S101  # opened by the caller
        columns = [*KEY, "group", *(["split"] if "split" in frame.columns else [])]
        metadata = frame.select(columns)
        if rows.kind == "patches" and rows.model.grid is not None:
            places = np.indices(rows.model.grid, dtype=np.int32).reshape(2, -1).T
            repeated = np.repeat(np.arange(frame.height), len(places))
            told = np.tile(places, (frame.height, 1))
            metadata = metadata[repeated].with_columns(pl.Series("token_rc", told, dtype=pl.Array(pl.Int32, 2)))
        self._writer.append({SITE: x}, metadata)

    def _finish(self, rows: EmbeddingRows, told: Fingerprint) -> Artifact:
        config, store, source = self.embedding, self.folder / EMBEDDINGS, self._source()
        digest = scale_embeddings(store, config.normalise, model=told, norm_path=config.embed_norm_path)
        summary: dict[str, Any] = {"rows": settle.for_reading(store).rows, "layer": rows.layer, "scaling": digest[:16]}
        if config.per_token and config.pooled:
            summary["pooled_rows"] = pool_patches(rows, self.folder, embedding=config, source=source)
        table = pl.concat(self._tiles, how="diagonal")
        missing = [pl.lit(None, kind).alias(name) for name, kind in SCHEMA.items() if name not in table.columns]
        table = table.with_columns(missing).select(list(SCHEMA))
        files.write_atomically(self.folder / TILES, lambda handle: table.write_parquet(handle, compression="zstd"))
        files.write_json(self.folder / ENCODER, encoder_record(rows))
        sections = {"embedding": config, "split": self.split}
        run.record(self.folder, STAGE, sections, inputs=source, summary=summary, model=told)
        return Artifact("store", store, summary)


def _sections(config: Any) -> dict[str, Any]:
    """Settings as sections of a file, or the keys of `embedding` alone."""
    if isinstance(config, EmbeddingConfig):
        return {"embedding": config, "encoder": None, "split": SplitConfig(), "output": None}
    where = str(config) if isinstance(config, str | Path) else "EmbeddingExporter"
    held = recipe.read_yaml(Path(config)) if isinstance(config, str | Path) else config
    if not isinstance(held, Mapping):
        what = f"the settings are a {type(held).__name__}"
        raise ConfigError(what, where=where, remedy="Give a mapping, the path of a file, or an EmbeddingConfig.")
    apart = {name: held.get(name) for name in _SECTIONS}
    plain = apart["embedding"] if "embedding" in held else {k: v for k, v in held.items() if k not in _SECTIONS}
    encoder = apart["encoder"]
    if isinstance(encoder, Mapping):
        encoder = recipe.build(EncoderConfig, encoder, where=f"{where}, encoder")
    return {
        "embedding": recipe.build(EmbeddingConfig, plain or {}, where=f"{where}, embedding"),
        "encoder": encoder,
        "split": recipe.build(SplitConfig, apart["split"] or {}, where=f"{where}, split"),
        "output": apart["output"],
    }
