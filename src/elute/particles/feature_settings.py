"""The settings of sparse features of embeddings: light to import, for command lines."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from elute.base.recipe import Section


class ParticleFeaturesConfig(Section):
    """How features of embeddings are trained, told and judged."""

    n_features: int | None = Field(None, ge=1)
    """Features of each dictionary; twice the embedding's width if not given."""
    k: int | None = Field(None, ge=1)
    """Features that fire in a particle; an eighth of the embedding's width if not given."""
    steps: int = Field(3000, ge=1)
    """Updates."""
    batch_size: int = Field(256, ge=1)
    """Particles of one update."""
    vector: Literal["mu_oof", "mu"] = "mu_oof"
    """Which vectors of a file of fused embeddings: out-of-fold, or in-sample ones that knew the classes."""
    hold_out: float = Field(0.4, gt=0, lt=1)
    """Share of the runs that only show what others chose; of the particles, where no runs are known."""
    top: int = Field(50, ge=1)
    """Particles that are kept of a feature as its prototypes."""
    least: int = Field(10, ge=2)
    """Particles of a class, on either side, below which nothing is claimed of it."""
    at: float = Field(0.9, gt=0.5, le=1)
    """AUROC at which a feature follows a class, on choosing and on showing particles."""
    permutations: int = Field(20, ge=0)
    """Times that classes are permuted within runs."""
    seed: int = Field(0, ge=0)
    """Seed of the split, the first weights and all draws."""
    device: str = "auto"
    """Device: auto, cuda, cuda:N, mps or cpu."""
