"""Settings of transcoders and cross-layer transcoders of a policy, and of grids of them; light to import."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Self

from pydantic import Field, model_validator

from elute.base.errors import ConfigError
from elute.base.recipe import Section, plain
from elute.dictionaries.terms import TermsConfig
from elute.engine.settings import Control
from elute.engine.tracking import TrackConfig

if TYPE_CHECKING:
    from collections.abc import Mapping

Normalise = Literal["scale", "none", "center", "standard"]
EXPANSION, K_RATIO = 4.0, 0.0625


class TranscoderConfig(Section):
    """What a transcoder is: how many features, how few of them fire, and on which rows."""

    expansion_factor: float | None = Field(None, gt=0)
    """Features as a multiple of the width that is read; what the pair's plan says, or 4, if not given."""
    k_ratio: float | None = Field(None, gt=0, le=1)
    """Features that fire in a row, as a share of all; what the pair's plan says, or 0.0625, if not given."""
    k: int | None = Field(None, ge=1)
    """The same as a number."""
    activation: str = "topk"
    """How few features fire: topk, batchtopk, jumprelu, relu or gated."""
    numbers: dict[str, float] | None = None
    """The activation's own numbers, for example bandwidth=0.1."""
    penalty: float | None = Field(None, ge=0)
    """Price of firing where the activation leaves open how many fire; found so that k do if not given."""
    skip: bool = False
    """Learn a linear map beside the features."""
    normalize_source: Normalise = "scale"
    """Rows that are read: centred and divided by one number, as they are, centred, or each dimension to spread 1."""
    normalize_target: Normalise = "scale"
    """Rows that are written, likewise. Every number is measured on the training rows alone."""
    control: Control = "none"
    """Train the null of this very run instead."""

    @model_validator(mode="after")
    def _one_of_both(self) -> Self:
        if self.k is not None and self.k_ratio is not None:
            raise ValueError("k and k_ratio are both given: give one of them")
        return self

    def sized(self, width: int, plan: Mapping[str, float]) -> tuple[int, int]:
        """Return features and k for the width that is read; `plan` is what the pair's plan says."""
        factor = self.expansion_factor or plan.get("expansion_factor") or EXPANSION
        n = max(1, round(factor * width))
        asked = self.k is None and self.k_ratio is None
        k = plan.get("k") if asked else self.k
        ratio = (plan.get("k_ratio") if asked else self.k_ratio) or K_RATIO
        k = max(1, round(ratio * n)) if k is None else int(k)
        if k > n:
            raise ConfigError(f"k = {k} is more than the {n} features", remedy="Take more features, or a lower k.")
        return n, k


class EpochsConfig(Section):
    """How a transcoder is trained, and when it is looked at."""

    num_epochs: int = Field(30, ge=1)
    """How often each training row is seen."""
    batch_size: int = Field(512, ge=1)
    """Rows of one update."""
    lr: float | None = Field(None, gt=0)
    """Learning rate; 0.032 / √width if not given."""
    clip_grad_norm: float = Field(1.0, ge=0)
    """Longest gradient; 0 leaves it as it is."""
    save_freq: int = Field(10, ge=1)
    """Epochs between two checkpoints that are kept."""
    val_ratio: float | None = Field(None, gt=0, lt=1)
    """Share of the instances for validation, drawn anew; the pair's own split if not given."""
    max_samples: int | None = Field(None, ge=2)
    """Most training rows; instances are taken whole, in their order. All if not given."""
    reinit_dead: bool = True
    """Begin features that do not fire anew, at rows that are reconstructed badly."""
    reinit_freq: int = Field(1, ge=1)
    """Epochs between two such beginnings."""
    seed: int = Field(0, ge=0)
    """Seed of the first weights, the order of rows and all draws."""
    device: str = "auto"
    """Device: auto, cuda, cuda:N, mps or cpu."""
    checkpoint_seconds: float = Field(60.0, ge=0)
    """Seconds between two checkpoints to go on from; 0 writes one a step."""

    def identity(self) -> EpochsConfig:
        """What the result depends on; not where it is computed, and how often it is kept."""
        return self.model_copy(update={"device": "auto", "checkpoint_seconds": 60.0})


class WandbConfig(Section):
    """Where the figures of a training go, besides its own files."""

    wandb_project: str | None = Field(None, min_length=1)
    """Project at Weights & Biases; a run is kept there as soon as one of these is given."""
    wandb_run_name: str | None = Field(None, min_length=1)
    """Name of the run."""
    wandb_mode: Literal["auto", "online", "offline", "disabled"] | None = None
    """Whether figures leave the machine; if not given, or auto, only if WANDB_API_KEY is set."""
    tensorboard: bool = False
    """Write event files for TensorBoard."""
    log_every: int = Field(50, ge=1)
    """Steps between two records."""

    def track(self) -> TrackConfig:
        """The same for the trainer."""
        asked = (self.wandb_project, self.wandb_run_name, self.wandb_mode)
        return TrackConfig(
            wandb=any(value is not None for value in asked) and self.wandb_mode != "disabled",
            wandb_project=self.wandb_project or "elute-routing",
            wandb_name=self.wandb_run_name,
            wandb_mode=self.wandb_mode or "auto",
            tensorboard=self.tensorboard,
            log_every=self.log_every,
        )


class CltConfig(Section):
    """What a cross-layer transcoder is: features of each layer, which write into that layer and all later ones."""

    layers: str = "0,1,2"
    """Layers, with commas between."""
    part: Literal["mlp", "attention", "layer"] = "mlp"
    """What of a layer is read and written: the input and output of its feed-forward part, its attention, or its own."""
    expansion_factor: float = Field(EXPANSION, gt=0)
    """Features of a layer, as a multiple of its width."""
    k_ratio: float | None = Field(None, gt=0, le=1)
    """Features of a layer that fire in a row, as a share of them; 0.0625 if not given."""
    k: int | None = Field(None, ge=1)
    """The same as a number."""
    activation: str = "jumprelu"
    """How few features fire."""
    numbers: dict[str, float] = Field(default_factory=lambda: {"tanh": 4.0, "pull": 3e-6})
    """The activation's own numbers; with tanh the penalty is tanh(tanh · value · ‖decoder‖), with pull the silent are
    drawn towards firing."""
    penalty: float | None = Field(None, ge=0)
    """Price of firing; found so that k fire if not given."""
    skip: bool = False
    """Learn a linear map beside the features."""
    normalize: Normalise = "scale"
    """Rows centred and divided by one number, as they are, centred, or each dimension to spread 1."""
    beside: bool = True
    """Train a transcoder of each layer alone, too, of as many features, and report it beside."""
    num_instances: int = Field(2000, ge=10)
    """Instances that are collected where these layers' rows are not there yet."""


class GridConfig(Section):
    """Which transcoders a grid holds: every combination."""

    pairs: str = "all"
    """Pairs, with commas between; all that were collected, or mlp, or layers."""
    expansion_factor: str = "4"
    """Features as multiples of the width, with commas between."""
    k_ratio: str = "0.0625"
    """Shares of the features that fire, with commas between."""
    lrs: str = ""
    """Learning rates, with commas between; --lr alone, or the trainer's own, if not given."""
    seeds: str = "0"
    """Seeds, with commas between."""
    name: str = Field("grid", pattern=r"^[\w][\w.-]*$")
    """Name of the grid's folder."""


@dataclass(frozen=True)
class Settings:
    """All settings of one transcoder's training."""

    transcoder: TranscoderConfig = field(default_factory=TranscoderConfig)
    epochs: EpochsConfig = field(default_factory=EpochsConfig)
    terms: TermsConfig = field(default_factory=TermsConfig)
    wandb: WandbConfig = field(default_factory=WandbConfig)

    def identity(self) -> dict[str, Section]:
        """What the result depends on."""
        return {"transcoder": self.transcoder, "epochs": self.epochs.identity(), "terms": self.terms}

    def plain(self) -> dict[str, Any]:
        """The same as JSON."""
        return plain(self.identity())


def pair_named(pair: str | None, source: str | None, target: str | None) -> str:
    """Return a pair as it was named: by itself, or by its two layers."""
    if pair and (source or target):
        raise ConfigError("--pair and its layers are both given", where="pair", remedy="Give one of them.")
    if pair:
        return pair
    if source and target:
        return f"{source}:{target}"
    remedy = "Give --pair clt_L0_to_L2, or --source_key and --target_key."
    raise ConfigError("no pair is named", where="pair", remedy=remedy)


def numbers(text: str, *, where: str) -> list[float]:
    """Read numbers with commas between."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    try:
        found = [float(part) for part in parts]
    except ValueError:
        raise ConfigError(f"{text!r} are no numbers", where=where, remedy="Write them as 4,8.") from None
    if not found or not all(0 <= number < float("inf") for number in found):
        raise ConfigError(f"{text!r} are no numbers from 0 on", where=where, remedy="Write them as 4,8.")
    return list(dict.fromkeys(found))
