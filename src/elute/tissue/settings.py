"""Settings of the way from embeddings to genes: the dictionary, its codes, the targets, controls and explanations."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, StringConstraints

from elute.base.recipe import Section


def _as_text(value: Any) -> Any:
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else value


Size = Annotated[str, BeforeValidator(_as_text), StringConstraints(pattern=r"^[1-9][0-9]{0,6}x?$")]
Chosen = Annotated[
    str, BeforeValidator(_as_text), StringConstraints(pattern=r"^(top[1-9][0-9]{0,4}|[0-9]+( *, *[0-9]+)*)$")
]


class SaeConfig(Section):
    """The sparse autoencoder of the embeddings."""

    dict_size: Size = "8x"
    """Codes: a number, or 4x to 8x for so many times the width of the embeddings."""
    top_k: int = Field(32, ge=1)
    """Codes that fire in a row; with --l1, on average at the start of the search for its weight."""
    l1: float | None = Field(None, gt=0)
    """Let any number of codes fire, each at this price a unit of strength (ReLU), in place of the top k."""
    signed_codes: bool = False
    """Choose the top k by magnitude, and keep their signs."""
    re_norm_interval: int = Field(1, ge=0)
    """Steps between two returns of the decoder's rows to length 1; 0 leaves their length free."""
    steps: int = Field(5_000, ge=1)
    """Updates."""
    train_batch_size: int = Field(2048, ge=1)
    """Rows of one update."""
    lr: float | None = Field(None, gt=0)
    """Learning rate; 0.032 / √width if not given."""
    seed: int = Field(0, ge=0)
    """Seed of the first weights and the order of rows."""
    device: str = "auto"
    """Device: auto, cuda, cuda:N, mps or cpu."""

    def features(self, width: int) -> int:
        """Return the number of codes for embeddings of a width."""
        return int(self.dict_size[:-1]) * width if self.dict_size.endswith("x") else int(self.dict_size)


class CodesConfig(Section):
    """Whether codes are kept."""

    cache: bool = True
    """Keep the codes of every row on disk; without, they are made anew whenever they are read."""
    dtype: Literal["fp32", "fp16"] = "fp32"
    """Number type of the codes on disk."""


class TargetsConfig(Section):
    """What is predicted: counts of genes, a row a sample."""

    counts: Path | None = None
    """File of targets: .h5ad, or a table (.parquet, .csv, .tsv) with a row a sample and a column a gene."""
    sample_column: str | None = None
    """Column with the sample ids; sample_id of a table, and the names of obs of an .h5ad, if not given."""
    genes: str = "hvg:50"
    """Genes to predict: all, hvg:N (most variable), predictable:N, names with commas, or a file with one a line."""
    layer: str = "auto"
    """Matrix of an .h5ad: X, layers/NAME or raw; the first of them that holds counts if auto."""
    library: str = "total"
    """Library size of a sample: total over all genes of the file, a column that holds it, or none."""
    transform: Literal["auto", "log1p", "none"] = "auto"
    """What a loss of mse is fitted on: log1p of counts per million, or the values as they are; auto asks if counts."""
    least_detected: float = Field(0.1, ge=0, le=1)
    """Share of the training samples in which a gene must have been counted to be chosen by hvg or predictable."""


class ControlsConfig(Section):
    """What stands beside each score."""

    controls: Literal["none", "standard", "full"] = "standard"
    """Mean, dense embeddings, shuffled patients and neighbours; and an encoder with random weights, on a fifth of the
    samples (2,000 at least), or on all of them (full); or nothing at all."""
    components: int = Field(256, ge=1)
    """Principal components of the dense embeddings, before ridge."""
    neighbours: int = Field(6, ge=1)
    """Nearest samples of the same section whose mean is the neighbours' guess."""


class CrpConfig(Section):
    """What is explained, and by which rule."""

    gene: tuple[str, ...] = ()
    """Genes to explain; may be given several times; the best predicted ones if not given."""
    most_genes: int = Field(20, ge=1)
    """How many genes, where none are named."""
    codes: Chosen = "top20"
    """Codes of each gene: topN, the N of most relevance over all samples, or their numbers with commas."""
    k: int = Field(12, ge=1)
    """Reference samples of a code."""
    curve_samples: int = Field(100, ge=0)
    """Samples from which codes and patches are removed by relevance and at random, as a check; 0 for none."""
    per_token: bool = True
    """Draw where in a tile each code is relevant, where there is a row a patch."""
    rule: Literal["epsilon", "gamma", "zplus"] = "epsilon"
    """How relevance passes the head; of a linear one, epsilon is the exact share of each code."""
    through_encoder: bool = False
    """Follow relevance down through the encoder to pixels, too, for the strongest references."""
    through_method: Literal["lrp", "integrated_gradients"] = "lrp"
    """Attention-aware LRP, which is patented and free for personal and scientific use alone, or another method."""
    through_samples: int = Field(2, ge=1)
    """References of a code that are followed down to pixels."""


class RunConfig(Section):
    """Where a run lies."""

    output: Path = Path("results/tissue")
    """Folder of the run: every stage reads and writes there."""
