"""The settings of a dictionary and of how it is learnt: light to import, for command lines."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field

from elute.base.recipe import Section
from elute.dictionaries.spec import Encoder, Kind

Control = Literal["none", "random-decoder", "frozen-decoder", "shuffled-rows"]
OptimizerKind = Literal["adam", "sparse-adam"]


class DictionaryConfig(Section):
    """What a dictionary reads and writes, and how sparse it is."""

    kind: Kind = "sae"
    """Sparse autoencoder, transcoder, cross-layer transcoder or crosscoder."""
    reads: tuple[str, ...] = ()
    """Sites that are read; may be given several times."""
    writes: tuple[str, ...] = ()
    """Sites that are written; those that are read if not given."""
    center_by: str | None = None
    """Column, say token: from each row the mean of all training rows with the same value is subtracted first."""
    n_features: int | None = Field(None, ge=1)
    """Features of one bank; eight times the width that is read if not given."""
    activation: str = "topk"
    """How few features fire: topk, batchtopk, jumprelu, relu, gated, signed-topk or matching-pursuit."""
    k: int = Field(32, ge=1)
    """Features that fire in a row: exactly, or on average where the activation leaves it open."""
    nested: int = Field(0, ge=0, le=16)
    """Prefixes that reconstruct by themselves, each half of the next (Matryoshka); 0 for none."""
    skip: bool = False
    """Learn a linear map beside the features (transcoders)."""
    numbers: dict[str, float] | None = None
    """The activation's own numbers, for example bandwidth=0.1."""


class LearnConfig(Section):
    """How a dictionary is learnt."""

    normalise: Literal["scale", "center", "standard", "pca", "none"] = "scale"
    """Rows centred and divided by one number, centred, each dimension to spread 1, whitened, or as they are."""
    start: Literal["mean", "median", "zero"] = "mean"
    """What the decoder's bias begins as: the mean of the rows, their geometric median, or nothing."""
    encoder_scale: float = Field(0.3, gt=0)
    """Length of an encoder row at the start."""
    tied: bool = True
    """Begin with the encoder as the decoder's transpose; else each is drawn by itself."""
    k_start: int | None = Field(None, ge=1)
    """Features that fire at first; they become k over the share --k-until of the run."""
    k_until: float = Field(0.5, ge=0, le=1)
    """Share of the run in which --k-start becomes k."""
    penalty: float | None = Field(None, ge=0)
    """Price of firing where the activation leaves open how many fire; found so that k do if not given."""
    re_norm_interval: int = Field(1, ge=0)
    """Steps between two returns of the decoder's rows to length 1; 0 leaves their length free."""
    project: bool = True
    """Take from the decoder's gradient what would only change the rows' length."""
    control: Control = "none"
    """Train the null of this very run instead."""
    shard_features: bool = False
    """Spread the features over the processes of torchrun, instead of the rows."""
    device: str = "auto"
    """Device: auto, cuda, cuda:N, mps or cpu."""


class DeadConfig(Section):
    """What is done about features that do not fire."""

    dead: Literal["resample", "auxk", "both", "none"] = "resample"
    """Begin dead features anew at badly reconstructed rows, let them reconstruct the error, both, or nothing."""
    dead_after_rows: int = Field(20_000, ge=1)
    """Rows of silence after which a feature counts as dead."""
    resample_every: int = Field(50, ge=1)
    """Steps between two resamplings."""
    resample_until: float = Field(0.6, ge=0, le=1)
    """Share of the run after which nothing is resampled."""
    aux_k: int | None = Field(None, ge=1)
    """Dead features that reconstruct the error of a row; half the width if not given."""

    def resamples(self, step: int, steps: int) -> bool:
        """Whether dead features are begun anew after this step."""
        due = step > 0 and step % self.resample_every == 0 and step < self.resample_until * steps
        return due and self.dead in ("resample", "both")

    @property
    def teaches(self) -> bool:
        """Whether dead features reconstruct the error."""
        return self.dead in ("auxk", "both")


class EvalConfig(Section):
    """How a dictionary is judged."""

    split: str | None = None
    """Rows of one split; those of test where there is one, else every row."""
    encoder: Encoder = "own"
    """The dictionary's own encoder, or matching pursuit with its directions."""
    k: int | None = Field(None, ge=1)
    """Features that fire in a row; the dictionary's own number if not given."""
    truth: Path | None = None
    """Planted directions, a .npy file [features, width]; counts are read from a file beside it, NAME_counts.npy."""
    at: float = Field(0.9, gt=0, le=1)
    """Cosine at which a planted direction counts as recovered."""
    least: int = Field(100, ge=0)
    """Rows in which a planted feature must have fired to be counted."""
    rows: int | None = Field(None, ge=1)
    """Most rows that are read; all if not given."""
