"""Tissue that is painted, with counts of genes: a cohort whose truth is known, pixel by pixel and gene by gene.

    painted = paint(PaintConfig(seed=0))
    painted.tiles       # as a run reads them; a tile's label is the structure that covers the most of it
    painted.truth       # a row a patch: the share of each structure
    painted.targets     # a row a tile: its library, and the counts of each gene
    painted.genes       # a row a gene: which structure it was planted to

Everything follows from the settings, a section from them and its own number alone. `painting_files.py` writes a cohort
as a user's own would lie on a disk.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
import polars as pl
from numpy.typing import NDArray

from elute.base.files import digest_json
from elute.tissue.painting_genes import gene_table
from elute.tissue.painting_layout import STRUCTURES, lay_out
from elute.tissue.painting_settings import PaintConfig
from elute.tissue.painting_stain import draw_stain, paint_section
from elute.tissue.painting_tables import target_table, tile_table, truth_table
from elute.tissue.tiles import Tiles

# Of epithelium a part becomes the stroma between its glands, and their lumens.
_MORE = np.array([0.40, 0.0, -0.05, -0.10, 0.05])
_COMPOSITION = 0.3  # spread of what patients have more or less of


@dataclass(frozen=True, eq=False)
class PaintedSection:
    """One section: its picture and its structures, both by pixel."""

    patient: int
    image: NDArray[np.uint8]  # [side, side, 3]
    structure: NDArray[np.uint8]  # [side, side]
    config: PaintConfig

    def tiles(self) -> NDArray[np.uint8]:
        """Cut the picture into tiles [tiles, size, size, 3], row by row."""
        n, size = self.config.side, self.config.tile_size
        cut = self.image.reshape(n, size, n, size, 3).transpose(0, 2, 1, 3, 4)
        return cut.reshape(n * n, size, size, 3)

    def shares(self) -> NDArray[np.float64]:
        """Share of each structure in each patch, [tiles, patches, structures]; what is a lumen's is nobody's."""
        n, patch = self.config.side, self.config.patch
        g = self.config.tile_size // patch
        held = [(self.structure == i).reshape(n, g, patch, n, g, patch).mean((2, 5)) for i in range(len(STRUCTURES))]
        return np.stack(held, -1).transpose(0, 2, 1, 3, 4).reshape(n * n, g * g, len(STRUCTURES))


def paint_one(config: PaintConfig, patient: int) -> PaintedSection:
    """Paint the section of one patient."""
    rng = np.random.default_rng([config.seed, 1 + patient])
    composition = np.array(_MORE) + _COMPOSITION * rng.standard_normal(len(_MORE))
    layout = lay_out(config.side * config.tile_size, composition, rng)
    image = paint_section(layout, draw_stain(config.stain, rng), rng)
    return PaintedSection(patient, image, layout.structure, config)


@dataclass(frozen=True, eq=False)
class Painted:
    """A painted cohort in memory."""

    config: PaintConfig
    pictures: NDArray[np.uint8]  # [tiles, size, size, 3]
    shares: NDArray[np.float64]  # [tiles, patches, structures]

    @cached_property
    def table(self) -> pl.DataFrame:
        """A row a tile, as `tiles.csv` has it."""
        return tile_table(self.config, self.shares.mean(1))

    @property
    def tiles(self) -> Tiles:
        """The tiles, as a run reads them."""
        source = {"painted": digest_json(self.config.model_dump(mode="json"))}
        return Tiles.of(self.table.drop("path"), lambda i: self.pictures[i], source)

    @property
    def truth(self) -> pl.DataFrame:
        """A row a patch: sample_id, tile_id, row, col, and the share of each structure."""
        return truth_table(self.table, self.shares)

    @property
    def targets(self) -> pl.DataFrame:
        """A row a tile: sample_id, library, and the counts of each gene."""
        return target_table(self.table, self.shares.mean(1), self.config)

    @property
    def genes(self) -> pl.DataFrame:
        """A row a gene: gene, kind, structure, effect."""
        return gene_table(self.config.effect)


def paint(config: PaintConfig | None = None) -> Painted:
    """Paint a cohort into memory."""
    config = config or PaintConfig()
    sections = [paint_one(config, patient) for patient in range(config.patients)]
    pictures = np.concatenate([section.tiles() for section in sections])
    return Painted(config, pictures, np.concatenate([section.shares() for section in sections]))
