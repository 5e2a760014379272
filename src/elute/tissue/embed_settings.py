"""Which encoder reads the tiles, and what of it is kept: light to import, for command lines.

    encoder: {encoder: phikon/}
    embedding:
      output_embeddings: true
      embedding_source: {layer_name: blocks.11.hook_resid_post, per_token: true, pooled: false}
      epochs: [0, 1]
      augment: stain

The keys of `embedding_source` may also stand beside it, which is how they are kept.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from pydantic import Field, field_validator, model_validator

from elute.base.errors import near
from elute.base.recipe import Section

Pooling = Literal["mean", "cls"]
Augment = Literal["none", "flips", "stain"]
_SOURCE = ("layer_name", "per_token", "pooled", "pooling")


class Source(NamedTuple):
    """What is read of the encoder."""

    layer_name: str | None
    per_token: bool
    pooled: bool
    pooling: Pooling


class EncoderConfig(Section):
    """Which encoder reads the tiles, and how it is run."""

    encoder: str | None = None
    """Folder of a vision model, hf://owner/name, timm:NAME, or package.module:function that gives a torch module."""
    image_size: int | None = Field(None, ge=8, le=4096)
    """Pixels of the side to which tiles are resized; the encoder's own if not given."""
    crop: bool | None = None
    """Cut the middle out of a tile before it is read, or read all of it; as the encoder's settings say if not given."""
    batch_size: int = Field(32, ge=1)
    """Tiles of one forward."""
    device: str = "auto"
    """auto, cuda, cuda:N, mps or cpu."""
    precision: Literal["fp32", "bf16", "fp16"] = "fp32"
    """Number type to compute in."""
    blocks: str | None = None
    """List of blocks, as a module path, for a module that has several."""
    prefix: int | None = Field(None, ge=0)
    """Tokens before the patches (class token, registers); found by itself if not given."""
    random_weights: bool = False
    """The same encoder before its training: a control."""
    seed: int = Field(0, ge=0)
    """Seed of the random weights."""


class EmbeddingConfig(Section):
    """What is kept of the encoder."""

    output_embeddings: bool = True
    """Write embeddings; with false nothing is written."""
    layer_name: str | None = None
    """Site of the encoder, or a module's path; what the last block gives if not given."""
    per_token: bool = True
    """A row a patch; else a row a tile."""
    pooled: bool = False
    """With rows a patch: a row a tile as well, in a store of its own."""
    pooling: Pooling = "mean"
    """What a tile's row is: the mean over its patches, or the class token."""
    epochs: tuple[int, ...] = (0,)
    """Epochs of augmentation to export: 0 is the tile as it is, every other one a view of it."""
    augment: Augment = "none"
    """Views of the later epochs: turned and mirrored, or also with other strengths of the stains."""
    seed: int = Field(0, ge=0)
    """Seed of the views."""
    dtype: Literal["fp32", "fp16", "bf16"] = "fp32"
    """Number type on disk."""
    normalise: Literal["standard", "pca"] = "standard"
    """Scaling measured on the training rows: mean and standard deviation, or PCA whitening."""
    embed_norm_path: Path | None = None
    """A scaling's file: one that is there is used, else the one that is measured is copied there."""
    recapture: bool = False
    """Write the embeddings anew, whatever lies there."""

    @model_validator(mode="before")
    @classmethod
    def _unfold(cls, given: Any) -> Any:
        """Take `embedding_source: {…}` apart; what stands beside it wins."""
        if not isinstance(given, Mapping) or "embedding_source" not in given:
            return given
        held = dict(given)
        inner = held.pop("embedding_source") or {}
        if isinstance(inner, Source):
            inner = inner._asdict()
        if not isinstance(inner, Mapping):
            raise ValueError("embedding_source is a mapping: {layer_name, per_token, pooled}")  # noqa: TRY004  # pydantic's
        for key in inner:
            if key not in _SOURCE:
                raise ValueError(f"embedding_source has no {key!r}. {near(str(key), _SOURCE)}")
        return {**inner, **held}

    @field_validator("epochs")
    @classmethod
    def _once(cls, epochs: tuple[int, ...]) -> tuple[int, ...]:
        if not epochs or min(epochs) < 0 or len(set(epochs)) < len(epochs):
            raise ValueError("give each epoch once, counted from 0")
        return tuple(sorted(epochs))

    @property
    def embedding_source(self) -> Source:
        """What is read of the encoder, in one place."""
        return Source(self.layer_name, self.per_token, self.pooled, self.pooling)
