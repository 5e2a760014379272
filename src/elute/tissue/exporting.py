"""From tiles to embeddings: an encoder is run over every tile, and its rows are stored with where they come from.

    tiles.parquet           a row a tile: what it is called, whose it is, where it lies
    embeddings/             a store, site `embedding`: a row a patch, or a row a tile
    embeddings_pooled/      with rows a patch and `pooled`: a row a tile as well
    encoder.json            how the encoder saw the tiles: grid of patches, size, what it cuts off
    run.json, config.yaml   the settings, and the encoder's fingerprint

1. Splits are drawn over patients or sites before anything is read; every row says which it is in.
2. The store is named by the encoder, the layer, the tiles, their views and their splits: one that differs in any of
   them is refused, until `recapture` is asked for.
3. The scaling is measured on training rows alone.
"""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base import console, files, run
from elute.base.errors import ConfigError
from elute.base.run import Artifact
from elute.engine.capture import CaptureConfig, capture_to_store
from elute.models.vision.batching import Views
from elute.models.vit import Vit, load
from elute.store.rows import StoredRows
from elute.tissue.embed_rows import SITE, Divided, EmbeddingRows, PooledRows
from elute.tissue.embed_scaling import scale_embeddings
from elute.tissue.embed_splits import drawn_split
from elute.tissue.tile_table import names_digest

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

    from elute.base.recipe import Section
    from elute.store.splitting import SplitConfig
    from elute.tissue.embed_settings import EmbeddingConfig, EncoderConfig
    from elute.tissue.tile_settings import TilesConfig
    from elute.tissue.tiles import Tiles

EMBEDDINGS, POOLED, TILES, ENCODER = "embeddings", "embeddings_pooled", "tiles.parquet", "encoder.json"
STAGE = "embed_export"


def embed_export(
    tiles: Tiles,
    folder: Path,
    *,
    encoder: EncoderConfig,
    embedding: EmbeddingConfig,
    split: SplitConfig,
    model: Vit | None = None,
    splits: Mapping[str, str] | None = None,
    described: TilesConfig | None = None,
) -> Artifact:
    """Write the embeddings of tiles into a run's folder; what was written by an interrupted run is kept.

    `splits` gives the split of each group where another run has drawn it: then none is drawn here. `described` are the
    settings that the tiles were opened by, for the record.
    """
    folder = Path(folder)
    if not embedding.output_embeddings:
        console.say("embeddings: none are written, as output_embeddings says")
        return Artifact("store", folder / EMBEDDINGS, {"output_embeddings": False})
    views = _views(embedding)
    splits = drawn_split(tiles.table, split, where=tiles.where, given=splits)
    data = Divided(tiles, splits)
    files.make_folder(folder)
    model = model or open_encoder(encoder)
    kind = "patches" if embedding.per_token else embedding.pooling
    rows = EmbeddingRows(model, embedding.layer_name, kind=kind, views=views, batch_size=encoder.batch_size)
    source = {
        **tiles.source,
        "tiles": names_digest(tiles.table),
        "views": files.digest_json(asdict(views)),
        "split": files.digest_json(splits),
    }
    capture = CaptureConfig(dtype=embedding.dtype, recapture=embedding.recapture)
    console.say(f"encoder: {_told(rows)}")
    total = len(tiles) * len(views.epochs)
    stored = capture_to_store(
        rows, data, folder / EMBEDDINGS, config=capture, source=source, total_rows=total * rows.rows_of_a_tile
    )
    fingerprint = rows.fingerprint()
    summary: dict[str, Any] = {
        "tiles": len(tiles),
        "rows": stored.summary["rows"],
        "width": stored.summary["sites"][SITE],
        "rows_of_a_tile": rows.rows_of_a_tile,
        "layer": rows.layer,
        "splits": _counted(tiles.table, splits, split),
        "scaling": scale_embeddings(
            folder / EMBEDDINGS, embedding.normalise, model=fingerprint, norm_path=embedding.embed_norm_path
        )[:16],
    }
    if embedding.per_token and embedding.pooled:
        summary["pooled_rows"] = pool_patches(rows, folder, embedding=embedding, source=source, data=data)
    table = tiles.table
    files.write_atomically(folder / TILES, lambda handle: table.write_parquet(handle, compression="zstd"))
    files.write_json(folder / ENCODER, encoder_record(rows))
    sections: dict[str, Section] = {"encoder": encoder, "embedding": embedding, "split": split}
    sections |= {} if described is None else {"tiles": described}
    run.record(folder, STAGE, sections, inputs=source, summary=summary, model=fingerprint)
    return Artifact("store", folder / EMBEDDINGS, {**summary, "reused": stored.summary["reused"]})


def open_encoder(config: EncoderConfig) -> Vit:
    """Open the encoder that the settings name."""
    if config.encoder is None:
        raise ConfigError("no encoder is named", where="encoder", remedy="Give --encoder, a vision model's folder.")
    return load(
        config.encoder,
        image_size=config.image_size,
        crop=config.crop,
        blocks=config.blocks,
        prefix=config.prefix,
        batch_size=config.batch_size,
        device=config.device,
        precision=config.precision,
        random_weights=config.random_weights,
        seed=config.seed,
    )


def encoder_record(rows: EmbeddingRows) -> dict[str, Any]:
    """What later stages need to know of how the encoder saw the tiles."""
    model, seen = rows.model, rows.model.preprocessing
    return {
        "schema_version": 1,
        "name": model.name,
        "layer": rows.layer,
        "rows": rows.kind,
        "grid": None if model.grid is None else list(model.grid),
        "prefix": model.prefix,
        "image_size": model.image_size,
        "edge": seen.edge,
        "mean": list(seen.mean),
        "std": list(seen.std),
        "seen": list(seen.seen(1.0, 1.0)),  # left, top, right, bottom, in shares of a tile's side
    }


def pool_patches(
    rows: EmbeddingRows, folder: Path, *, embedding: EmbeddingConfig, source: Mapping[str, str], data: Any = None
) -> int:
    """Write a row a tile beside rows a patch: of stored patches where it is their mean, else by the encoder."""
    pooled = EmbeddingRows(rows.model, rows.layer, kind=embedding.pooling, views=rows.views, batch_size=rows.batch_size)
    config = CaptureConfig(dtype=embedding.dtype, recapture=embedding.recapture)
    target = folder / POOLED
    if embedding.pooling == "mean":
        view = PooledRows(pooled, rows.rows_of_a_tile)
        stored = capture_to_store(view, StoredRows(folder / EMBEDDINGS), target, config=config, source=source)
    else:
        stored = capture_to_store(pooled, data, target, config=config, source=source)
    scale_embeddings(target, embedding.normalise, model=pooled.fingerprint())
    return int(stored.summary["rows"])


def _views(embedding: EmbeddingConfig) -> Views:
    if embedding.augment == "none" and embedding.epochs != (0,):
        what = f"epochs {', '.join(map(str, embedding.epochs))} are the same rows again without views"
        raise ConfigError(what, where="embedding", remedy="Give --augment flips or stain, or epoch 0 alone.")
    return Views(embedding.epochs, embedding.augment, embedding.seed)


def _counted(table: pl.DataFrame, splits: Mapping[str, str], split: SplitConfig) -> dict[str, dict[str, int]]:
    """Groups and tiles of each split."""
    tiles = dict(table.group_by("group").len().iter_rows())
    return {
        name: {
            "groups": sum(1 for given in splits.values() if given == name),
            "tiles": sum(tiles[group] for group, given in splits.items() if given == name),
        }
        for name in split.fractions
    }


def _told(rows: EmbeddingRows) -> str:
    model = rows.model
    parameters = sum(weight.numel() for weight in model.module.parameters())
    grid = "no patches" if model.grid is None else f"{model.grid[0]} × {model.grid[1]} patches"
    return f"{model.name}, {parameters:,} parameters, {grid} of {model.image_size} pixels; {rows.layer}"
