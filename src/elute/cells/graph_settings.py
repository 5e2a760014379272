"""Settings of the graph of a cell, and of the transcoders that it goes through; light to import."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from elute.base.recipe import Section


class CellGraphConfig(Section):
    """Which cell's prediction is explained, and through what."""

    cell: str | None = None
    """The cell, by its name; else one of --cell-type."""
    cell_type: str | None = None
    """Of this type's held-out cells the one with the median value of the gene."""
    dictionaries: Literal["transcoder", "clt", "both"] = "both"
    """Transcoders of single layers, one cross-layer transcoder, or both side by side."""
    others: int = Field(2, ge=0, le=100)
    """Further held-out cells of that type with the gene, on which influence is held against ablations."""
    looked: int = Field(100, ge=10)
    """Held-out cells in which it is looked up which genes features fire at."""

    @model_validator(mode="after")
    def _one_of_both(self) -> CellGraphConfig:
        if self.cell is None and self.cell_type is None:
            raise ValueError("no cell is named: give --cell or --cell-type")
        if self.cell is not None and self.cell_type is not None:
            raise ValueError("a cell and a cell type are both given: give one of them")
        return self


class TranscodersConfig(Section):
    """How transcoders of all MLPs of a model are trained, where they are not there yet."""

    expansion: int = Field(8, ge=1)
    """Features of a layer, as a multiple of its width."""
    k: int | None = Field(None, ge=1)
    """Features of a layer that fire in a row; an eighth of its width if not given."""
    steps: int = Field(1000, ge=1)
    """Updates."""
    batch_rows: int = Field(512, ge=1)
    """Rows of one update."""
    hidden: float = Field(0.2, gt=0, lt=1)
    """Share of a cell's values that are hidden while rows are read, as in the question that a graph explains."""
    store_mb: int = Field(2048, ge=0)
    """Most of the disk that rows may take while they are trained on; of a larger model they are read in the loop."""
    retrain: bool = False
    """Train them anew, whatever lies there."""
    seed: int = Field(0, ge=0)
    """Seed of the first weights, the order of rows and which values are hidden."""

    def identity(self) -> TranscodersConfig:
        """What the result depends on."""
        return self.model_copy(update={"store_mb": 2048, "retrain": False})
