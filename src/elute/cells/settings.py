"""Settings that the commands for cells share: which model, and what is read of it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from elute.base.recipe import Section


class ModelConfig(Section):
    """Which model, and how it is run."""

    model: Path | None = None
    """Folder of a model; a published one is fetched if not given."""
    model_size: Literal["70m", "1.3b", "3b"] = "70m"
    """Size of the published Tahoe-x1 to fetch."""
    revision: str | None = None
    """Commit, tag or branch to fetch; what was fetched first if not given."""
    random_weights: bool = False
    """The same model before its training: a control."""
    device: str = "auto"
    """auto, cuda, cuda:N, mps or cpu."""
    precision: Literal["auto", "fp32", "bf16", "fp16"] = "auto"
    """Number type to compute in; bf16 where the device has it, else fp32."""
    batch_size: int = Field(16, ge=1)
    """Cells of one forward; halved by itself where the device's memory is too small."""
    max_length: int | None = Field(None, ge=3)
    """Tokens to read of a cell; the model's own number if not given."""
    with_drug: Literal["auto", "on", "off"] = "auto"
    """Whether a token without a drug stands before the genes; as the model was trained if auto."""
    upstream_exact: bool = False
    """Make tokens as the published code does, quirks included."""


class SitesConfig(Section):
    """What is read of a model."""

    layers: str | None = None
    """Blocks as 0,3,last or all, or names of sites; five depths from first to last if not given."""
    site: Literal["mlp_out", "mlp_in", "attn_out", "resid_pre", "resid_post"] = "mlp_out"
    """What is read of each block."""
    rows: Literal["genes", "all"] = "genes"
    """Which tokens are rows: those of genes, or also those in front of them."""


class EmbedConfig(Section):
    """What becomes of the embeddings."""

    pooling: Literal["cls", "mean"] = "cls"
    """The vector of the cell's own token, or the mean over its genes."""
    normalise: bool = True
    """Bring each vector to length 1."""
    key: str = "X_elute"
    """Name in .obsm."""
    overwrite: bool = False
    """Replace a file, or a name in .obsm, that is there already."""
