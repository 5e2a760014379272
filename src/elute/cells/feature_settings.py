"""Settings of the way from cells to features: how they are trained, told, judged and shown."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from elute.base.recipe import Section


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Size = Annotated[str, BeforeValidator(_as_text), StringConstraints(pattern=r"^(auto|[1-9][0-9]{0,7})$")]


class FeatureConfig(Section):
    """How features are trained."""

    steps: int = Field(10_000, ge=1)
    """Updates."""
    d_sae: Size = "auto"
    """Features; 32 times the model's width if auto."""
    k: Size = "auto"
    """Features that fire in a row; an eighth of the model's width if auto."""
    kind: Literal["sae", "transcoder", "clt"] = "sae"
    """A sparse autoencoder a site, a transcoder a block, or one cross-layer transcoder."""
    activation: str = "topk"
    """How few features fire: topk, batchtopk, jumprelu, relu, gated, signed-topk."""
    center: Literal["none", "gene"] = "none"
    """Subtract each gene's mean activation over training cells: turns features from genes towards cell state."""
    train_batch_size: int = Field(4096, ge=1)
    """Rows of one update."""
    lr: float | None = Field(None, gt=0)
    """Learning rate; 0.032 / √width if not given."""
    seed: int = Field(0, ge=0)
    """Seed of the split, the first weights and the order of rows."""
    device: str = "auto"
    """auto, cuda, cuda:N, mps or cpu."""
    stream: bool = False
    """Train on rows as the model gives them, with a bounded buffer, and store none."""
    hold_out: float | None = Field(None, gt=0, lt=1)
    """Share of donors that only show what others chose; a half of them, or a fifth of the cells without donors."""


class ExtractConfig(Section):
    """What is told of each feature."""

    top_k_genes: int = Field(100, ge=1)
    """Genes of each ranking that are kept of a feature."""
    top_k_cells: int = Field(100, ge=1)
    """Cells that are kept of a feature."""
    expression: Literal["lognorm", "raw", "bin"] = "lognorm"
    """What activations are multiplied by: log of counts per 10,000, the count, or the model's bin."""
    columns: tuple[str, ...] = ()
    """Further obs columns to hold features against; may be given several times; `all` takes every one that can be."""
    least_cells: int = Field(10, ge=2)
    """Cells of a type, on either side, below which nothing is claimed of it."""
    fdr: float = Field(0.05, gt=0, lt=1)
    """False-discovery rate at which associations count."""


class ValidationConfig(Section):
    """What features are held against."""

    controls: Literal["none", "standard", "full"] = "standard"
    """Permuted labels, neurons, genes and principal components always; random weights, the embedding layer and a
    second seed on a fifth of the rows, on all of them, or (none) nothing at all."""
    at: float = Field(0.9, gt=0.5, le=1)
    """AUROC at which a feature follows a cell type, on choosing and on showing cells."""
    most_cells: int = Field(20_000, ge=100)
    """Most cells on which the counts are made."""


class DashboardConfig(Section):
    """What the page shows."""

    top_n_features: int | None = Field(None, ge=1)
    """Features on the page, the most frequent ones; all if not given."""
    all_cells: bool = False
    """Put up to 100,000 cells into the page, not a sample of 20,000."""
