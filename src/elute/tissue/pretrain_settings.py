"""The settings of a small network that learns tissue by itself: light to import, for command lines."""

from __future__ import annotations

from pydantic import Field

from elute.base.recipe import Section


class PretrainConfig(Section):
    """A small vision transformer, and how it learns."""

    patch: int = Field(8, ge=2)
    """Pixels of a patch's side."""
    width: int = Field(64, ge=8)
    """Width of the network."""
    layers: int = Field(3, ge=1)
    """Blocks."""
    heads: int = Field(4, ge=1)
    """Attention heads of a block; they divide the width."""
    mask_share: float = Field(0.3, ge=0, le=0.9)
    """Share of the patches that is hidden."""
    steps: int = Field(900, ge=1)
    """Updates."""
    batch_size: int = Field(16, ge=1)
    """Tiles of one update."""
    lr: float = Field(2e-3, gt=0)
    """Highest learning rate."""
    seed: int = Field(0, ge=0)
    """Seed of the first weights, the order of tiles, the masks and the stains."""
