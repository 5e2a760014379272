"""What a Tahoe-x1 model is and how cells become its tokens: `model_config.yml` and `collator_config.yml`.

The keys are those of the published files. One that would change the computation and is not built is refused by name;
those that concern training alone, or how a GPU kernel is chosen, are passed over.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from elute.base.errors import DamagedError, DataError

Activation = Literal["relu", "gelu", "leaky_relu", "sigmoid", "tanh"]

MODEL_FILE, COLLATOR_FILE, VOCABULARY_FILE, WEIGHTS_FILE = (
    "model_config.yml",
    "collator_config.yml",
    "vocab.json",
    "model.safetensors",
)


class _Part(BaseModel):
    """A part of a configuration; a number that is no number, or a value out of range, is an error."""

    model_config = ConfigDict(frozen=True, extra="ignore", allow_inf_nan=False)


class ExpressionEncoderConfig(_Part):
    """How a value becomes a vector."""

    input_emb_style: Literal["continuous"] = "continuous"
    max_value: float = 512
    activation: Activation = "relu"
    use_norm: bool = True


class GeneEncoderConfig(_Part):
    """How a gene becomes a vector."""

    use_norm: bool = False


class ChemicalEncoderConfig(_Part):
    """How a drug's fingerprint becomes a vector."""

    num_drugs: int = Field(ge=1)
    fp_dim: int = Field(2048, ge=1)
    activation: Activation = "relu"
    padding_idx: int = Field(0, ge=0)


class ExpressionDecoderConfig(_Part):
    """How a token's last vector becomes a value again."""

    n_outputs: int = Field(1, ge=1)
    n_layers: int = Field(2, ge=0)
    activation: Activation = "leaky_relu"


class MvcConfig(_Part):
    """How the cell's vector and a gene become a value."""

    arch_style: Literal["inner product"] = "inner product"
    query_activation: Activation = "sigmoid"
    scaled_dot_product: bool = False


class NormConfig(_Part):
    """The norms of the blocks."""

    norm_type: Literal["layernorm"] = "layernorm"
    eps: float = Field(1e-5, gt=0)


class TahoeConfig(_Part):
    """The network."""

    d_model: int = Field(ge=1)
    n_layers: int = Field(ge=1)
    n_heads: int = Field(ge=1)
    vocab_size: int = Field(ge=4)
    expansion_ratio: int = Field(4, ge=1)
    transformer_activation: Activation = "gelu"
    norm_scheme: Literal["pre", "post"] = "pre"
    use_glu: bool = False
    cell_emb_style: Literal["cls", "avg-pool"] = "cls"
    use_generative_training: bool = True
    standard_scale_outputs: Literal[False] = False
    norm_config: NormConfig = NormConfig()
    expression_encoder: ExpressionEncoderConfig = ExpressionEncoderConfig()
    gene_encoder: GeneEncoderConfig = GeneEncoderConfig()
    chemical_encoder: ChemicalEncoderConfig | None = None
    expression_decoder: ExpressionDecoderConfig = ExpressionDecoderConfig()
    mvc: MvcConfig | None = None

    def model_post_init(self, _: Any) -> None:
        """Refuse a width that the heads do not divide."""
        if self.d_model % self.n_heads:
            raise ValueError(f"d_model {self.d_model} is no multiple of n_heads {self.n_heads}")


class CollatorConfig(_Part):
    """How counts become tokens."""

    max_length: int = Field(1024, ge=3)
    num_bins: int = Field(51, ge=2)
    do_binning: Literal[True] = True
    right_binning: bool = False
    pad_token_id: int = Field(0, ge=0)
    pad_value: float = -2
    mask_value: float = -1
    mlm_probability: float = Field(0.5, gt=0, lt=1)
    use_chem_token: bool = False
    keep_first_n_tokens: int = Field(1, ge=1)


def read_config(path: Path, kind: type[TahoeConfig] | type[CollatorConfig]) -> Any:
    """Read one of the two files; a fault is one line that names the key."""
    try:
        held = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        remedy = "The folder of a model holds it beside model.safetensors."
        raise DataError("is not there", where=path, remedy=remedy) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise DamagedError(f"cannot be read ({type(error).__name__})", where=path, remedy="Fetch it anew.") from None
    if not isinstance(held, Mapping):
        raise DamagedError("holds no settings", where=path, remedy="Fetch it anew.")
    try:
        return kind.model_validate(dict(held))
    except ValidationError as error:
        fault = error.errors()[0]
        key = ".".join(str(part) for part in fault["loc"]) or "settings"
        what = str(fault["msg"]).removeprefix("Value error, ")
        raise DataError(f"{key}: {what}", where=path, remedy="Only what the published models use is built.") from None


def write_config(path: Path, config: TahoeConfig | CollatorConfig) -> None:
    """Write one of the two files in the form in which they are published."""
    from elute.base import files

    text = yaml.safe_dump(config.model_dump(mode="json", exclude_none=True), sort_keys=False)
    files.write_atomically(path, lambda handle: handle.write(text.encode()))
