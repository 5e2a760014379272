"""A small run of tissue without an encoder: embeddings with planted directions, tiles, and counts that follow them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import torch

from elute.base.statistics.splits import draw_splits
from elute.heads.settings import HeadConfig
from elute.store.writer import StoreWriter
from elute.tissue.plan import Plan
from elute.tissue.settings import CodesConfig, CrpConfig, SaeConfig, TargetsConfig

WIDTH, PLANTED, SIDE, PER_SECTION = 12, 4, 3, 12
GENES = ["A1", "A2", "B1", "B2", "FLAT"]  # A follow direction 0, B direction 1


def table(patients: int = 6, sections: int = 2) -> pl.DataFrame:
    """A row a tile, one tile a sample, on a grid a section."""
    rows = [
        {
            "sample_id": f"p{p}s{s}_{i}", "tile_id": f"t{i}", "group": f"p{p}", "section": f"p{p}s{s}",
            "x": float(100 * (i % 4)), "y": float(100 * (i // 4)), "size_px": 24, "microns_per_pixel": 0.5, "label": None,
        }
        for p in range(patients) for s in range(sections) for i in range(PER_SECTION)
    ]  # fmt: skip
    return pl.DataFrame(rows, schema_overrides={"label": pl.String})


def strengths(tiles: pl.DataFrame, seed: int = 0) -> np.ndarray[Any, Any]:
    """How strongly each planted direction stands in each patch of each tile, [tiles, patches, PLANTED]."""
    rng = np.random.default_rng(seed)
    share = rng.random((len(tiles), 1, PLANTED)) ** 2
    return (rng.random((len(tiles), SIDE * SIDE, PLANTED)) < share) * rng.uniform(
        1, 2, (len(tiles), SIDE * SIDE, PLANTED)
    )


def write_embeddings(
    folder: Path, tiles: pl.DataFrame, *, per_token: bool = True, seed: int = 0
) -> np.ndarray[Any, Any]:
    """Write the store as `embed_export` does; returns the planted strengths."""
    rng = np.random.default_rng(seed + 1)
    planted = strengths(tiles, seed)
    directions = np.linalg.qr(rng.normal(size=(WIDTH, PLANTED)))[0].T
    x = planted @ directions * 3 + rng.normal(size=(len(tiles), SIDE * SIDE, WIDTH)) * 0.1
    split = draw_splits(tiles["group"], fractions={"train": 0.6, "validation": 0.2, "test": 0.2}, seed=0)
    n, patches = len(tiles), SIDE * SIDE if per_token else 1
    x = x if per_token else x.mean(1, keepdims=True)
    meta = tiles.select("sample_id", "tile_id", "group")[np.repeat(np.arange(n), patches)]
    meta = meta.with_columns(
        pl.col("group").replace_strict(split).alias("split"),
        pl.lit(0, pl.Int64).alias("augment_seed"),
        pl.lit(0, pl.Int32).alias("epoch"),
    )
    if per_token:
        where = [[i // SIDE, i % SIDE] for i in range(patches)] * n
        meta = meta.with_columns(pl.Series("token_rc", where, pl.Array(pl.Int32, 2)))
    with StoreWriter(
        folder / "embeddings", sites={"embedding": WIDTH}, rows_per_shard=500, source={"made": f"{seed}"}
    ) as w:
        w.append({"embedding": torch.tensor(x.reshape(-1, WIDTH), dtype=torch.float32)}, meta)
    tiles.write_parquet(folder / "tiles.parquet")
    return planted


def counts(planted: np.ndarray[Any, Any], seed: int = 0) -> np.ndarray[Any, Any]:
    """Counts of GENES: two follow the first direction, two the second, one nothing."""
    rng = np.random.default_rng(seed + 2)
    mean = planted.mean(1)
    rate = np.stack([mean[:, 0], mean[:, 0], mean[:, 1], mean[:, 1], np.full(len(mean), 0.5)], 1)
    return rng.poisson(60 * (0.2 + rate) * rng.uniform(0.7, 1.4, (len(mean), 1))).astype(np.float64)


def write_targets(path: Path, tiles: pl.DataFrame, values: np.ndarray[Any, Any]) -> Path:
    pl.DataFrame({"sample_id": tiles["sample_id"], **{g: values[:, i] for i, g in enumerate(GENES)}}).write_parquet(
        path
    )
    return path


def made(folder: Path, *, per_token: bool = True, **sections: Any) -> Plan:
    """A run whose embeddings are there already."""
    folder.mkdir(parents=True, exist_ok=True)
    tiles = table()
    planted = (
        write_embeddings(folder / "run", tiles, per_token=per_token)
        if not (folder / "run" / "embeddings").exists()
        else strengths(tiles)
    )
    path = write_targets(folder / "counts.parquet", tiles, counts(planted))
    return planned(folder, path, **sections)


def small_sae(**changes: Any) -> SaeConfig:
    return SaeConfig(**{"dict_size": 16, "top_k": 3, "steps": 60, "train_batch_size": 128, "device": "cpu", **changes})


def planned(folder: Path, path: Path, **sections: Any) -> Plan:
    given = {
        "sae": small_sae(),
        "codes": CodesConfig(),
        "targets": TargetsConfig(counts=path, genes="all"),
        "heads": HeadConfig(folds=3, inner_folds=2, penalties=(0.1, 1.0, 10.0)),
        "crp": CrpConfig(codes="top3", k=4, most_genes=3),
    }  # fmt: skip
    return Plan.of(folder / "run", {**given, **sections})
