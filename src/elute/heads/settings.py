"""The settings of gene heads: light to import, for command lines."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, field_validator

from elute.base.recipe import Section

Pool = Literal["mean", "max", "attention"]
Loss = Literal["mse", "poisson", "nb"]
Model = Literal["linear", "elastic_net", "ridge"]


class HeadConfig(Section):
    """How genes are predicted from pooled codes, and how the prediction is judged."""

    pool: Pool = "mean"
    """How the codes of a sample's tokens become one row: mean, max or attention."""
    attention_heads: int = Field(4, ge=1, le=64)
    """Heads of the attention pooling; each keeps a map of its own."""
    loss: Loss = "mse"
    """Squared error of log1p of counts per million, or the likelihood of counts: Poisson or negative binomial."""
    model: Model = "ridge"
    """No penalty (linear), squares of coefficients (ridge), or squares and absolute values (elastic_net)."""
    multi_output: bool = True
    """Fit all genes together, sharing what is computed of the codes; else one after another in less memory."""
    folds: int = Field(5, ge=2)
    """Parts of the patients; each is held out once."""
    inner_folds: int = Field(3, ge=2)
    """Parts of the training patients by which a penalty is chosen."""
    penalties: tuple[float, ...] | None = None
    """Penalties to choose from, each gene and fold its own; ten that fit the codes and the gene if not given."""
    l1_ratio: float = Field(0.5, gt=0, le=1)
    """Share of the absolute values in the elastic net's penalty."""
    standardise: bool = True
    """Penalise the effect of a code in its own standard deviations, as measured in training rows."""
    seed: int = Field(0, ge=0)
    """Seed of the folds and of the attention's training."""

    @field_validator("penalties")
    @classmethod
    def _usable(cls, value: tuple[float, ...] | None) -> tuple[float, ...] | None:
        if value is not None and (not value or min(value) < 0 or len(set(value)) < len(value)):
            raise ValueError("give one or more different penalties of 0 or above")
        return value


class AttentionConfig(Section):
    """How the attention that weighs a sample's tokens is learnt."""

    width: int = Field(32, ge=1)
    """Hidden units of each head's gate."""
    epochs: int = Field(100, ge=1)
    """Most passes over the training samples; it ends sooner when held-out training patients gain no more."""
    patience: int = Field(10, ge=1)
    """Passes without a gain after which it ends."""
    batch_size: int = Field(64, ge=1)
    """Samples of a step."""
    lr: float = Field(0.01, gt=0)
    """Adam's step size."""
    weight_decay: float = Field(1e-4, ge=0)
    """Pull of the gate's weights towards zero."""
