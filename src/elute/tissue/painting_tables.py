"""The tables of a painted cohort: its tiles, the truth of every patch, and the counts of genes."""

from __future__ import annotations

import numpy as np
import polars as pl
from numpy.typing import NDArray

from elute.tissue.painting_genes import GENES, draw_counts
from elute.tissue.painting_layout import STRUCTURES
from elute.tissue.painting_settings import PaintConfig

MICRONS = 1.0  # of a pixel's side


def tile_table(config: PaintConfig, shares: NDArray[np.float64]) -> pl.DataFrame:
    """Name the tiles of a cohort; `shares` [tiles, structures] say which structure covers most of each."""

    n, size = config.side, config.tile_size
    number = np.arange(config.patients * n * n)
    patient, row, column = number // (n * n), number // n % n, number % n
    names = [f"p{p:02d}_r{r:02d}c{c:02d}" for p, r, c in zip(patient, row, column, strict=True)]
    groups = [f"patient{p:02d}" for p in patient]
    return pl.DataFrame(
        {
            "sample_id": names,
            "tile_id": names,
            "group": groups,
            "section": [f"section{p:02d}" for p in patient],
            "x": (column + 0.5) * size,
            "y": (row + 0.5) * size,
            "size_px": np.full(len(number), float(size)),
            "microns_per_pixel": np.full(len(number), MICRONS),
            "label": [STRUCTURES[i] for i in shares.argmax(1)],
            "path": [f"{group}/{name}.png" for group, name in zip(groups, names, strict=True)],
        }
    )


def truth_table(table: pl.DataFrame, shares: NDArray[np.float64]) -> pl.DataFrame:
    """Tell the truth of each patch: sample_id, tile_id, row, col, and the share of each structure."""

    n, patches, _ = shares.shape
    grid = round(patches**0.5)
    where = table.select("sample_id", "tile_id")[np.repeat(np.arange(n), patches)]
    at = np.tile(np.arange(patches, dtype=np.int32), n)
    columns = {name: shares[:, :, i].ravel().astype(np.float32) for i, name in enumerate(STRUCTURES)}
    return where.with_columns(
        row=pl.Series(at // grid), col=pl.Series(at % grid), **{k: pl.Series(v) for k, v in columns.items()}
    )


def target_table(table: pl.DataFrame, shares: NDArray[np.float64], config: PaintConfig) -> pl.DataFrame:
    """Draw the counts: sample_id, library, and a column a gene."""

    patient = np.repeat(np.arange(config.patients), config.side**2)
    drawn = draw_counts(shares, patient, config)
    counts = {gene: drawn.counts[:, g].astype(np.int32) for g, gene in enumerate(GENES)}
    counts = {"library": drawn.library.astype(np.int32), **counts}
    return table.select("sample_id").with_columns(**{name: pl.Series(values) for name, values in counts.items()})
