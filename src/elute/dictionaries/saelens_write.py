"""Dictionaries in SAELens' format, written: what its own classes load and train on (docs/formats/interchange.md).

`inference/` is for `SAE.load_from_disk`, `training/` for `TrainingSAE.load_from_disk`; SAELens has no class that trains
a transcoder. Nothing has to be folded: its subtraction of the decoder's bias, its normalisation and its competition by
decoder norm are all switched off in the configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base import files
from elute.base.errors import ConfigError
from elute.base.tensors import write_safetensors
from elute.dictionaries.foreign_weights import product
from elute.dictionaries.saelens_read import CONFIG, WEIGHTS

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from elute.dictionaries.bank import Bank
    from elute.dictionaries.dictionary import Dictionary

VERSION = "6.54.0"  # of SAELens, whose format this is
_SAE = {
    "relu": "standard",
    "topk": "topk",
    "signed-topk": "abstopk",
    "batchtopk": "batchtopk",
    "jumprelu": "jumprelu",
    "gated": "gated",
    "matching-pursuit": "matching_pursuit",
}
_TYPES = {"float32": "F32", "float64": "F64", "float16": "F16", "bfloat16": "BF16"}
_TIED = 1e-5  # how far, relatively, a pursuit's encoder may be from its decoder


def write(
    dictionary: Dictionary, folder: Path | str, *, site: str | None = None, metadata: Mapping[str, Any] | None = None
) -> tuple[Path, ...]:
    """Write what SAELens loads; return the folders. `site` is the hook's name there, if another than here.

    `metadata` goes into the configuration's own: `model_name` and whatever else SAELens' users look for there.
    """
    folder, spec = Path(folder), dictionary.spec
    architecture = _architecture(dictionary)
    note = {"activation": spec.activation, "k": spec.k, "nested": [*spec.nested], "settings": spec.settings}
    noted: dict[str, Any] = dict(metadata or {})
    noted |= {"sae_lens_version": VERSION, "sae_lens_training_version": None, "elute": note}
    noted["hook_name"] = site or next(iter(spec.reads))
    if spec.kind == "transcoder":
        noted["hook_name_out"] = next(iter(spec.writes))
    config = {
        "d_in": spec.width_in,
        "d_sae": spec.n_features,
        "dtype": str(dictionary.b_dec.dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": False,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "metadata": noted,
    }
    tensors = _tensors(dictionary, next(iter(dictionary)))
    if architecture == "matching_pursuit":
        tensors, more, note["unit"] = _pursuit(dictionary, next(iter(dictionary)))
        config |= more
    if spec.kind == "transcoder":
        config["d_out"] = spec.width_out
        for name in (CONFIG, WEIGHTS):  # of another dictionary that was written here before
            (folder / "training" / name).unlink(missing_ok=True)
        return (_save(folder / "inference", architecture, config, tensors),)
    trained = {**config, **_training(dictionary)}
    if spec.activation == "batchtopk":
        trained_as, architecture = ("matryoshka_batchtopk" if spec.nested else architecture), "jumprelu"
        noted = {**noted, "training_architecture": trained_as}
        inference = _save(folder / "inference", architecture, {**config, "metadata": noted}, _per_feature(tensors))
        return inference, _save(folder / "training", trained_as, trained, tensors)
    ranked = {"k": spec.k, "rescale_acts_by_decoder_norm": False} if architecture in ("topk", "abstopk") else {}
    inference = _save(folder / "inference", architecture, config | ranked, tensors)
    return inference, _save(folder / "training", architecture, trained, tensors)


def _architecture(dictionary: Dictionary) -> str:
    """SAELens' name for what it is, as it is trained."""
    spec = dictionary.spec
    keep = "Keep it in elute's own file."
    if spec.kind not in ("sae", "transcoder"):
        raise ConfigError(
            f"SAELens has no class for a {spec.kind}: it knows one read and one written site", remedy=keep
        )
    if str(dictionary.b_dec.dtype).removeprefix("torch.") not in _TYPES:
        raise ConfigError(f"SAELens knows no weights of type {dictionary.b_dec.dtype}", remedy="Use float32.")
    activation = _dashed(dictionary)
    if spec.kind == "sae":
        if activation not in _SAE:
            raise ConfigError(f"SAELens has no class for the activation {activation!r}", remedy=keep)
        return _SAE[activation]
    if activation not in ("relu", "jumprelu", "batchtopk"):
        what = f"SAELens has no transcoder with the activation {activation!r}"
        raise ConfigError(what, remedy=f"It has those with relu and jumprelu, which also serves batchtopk. {keep}")
    threshold = "" if activation == "relu" else "jumprelu_"
    return threshold + ("skip_transcoder" if spec.skip else "transcoder")


def _tensors(dictionary: Dictionary, bank: Bank) -> dict[str, Tensor]:
    """The weights under SAELens' names and in its shapes."""
    activation = dictionary.spec.activation
    tensors = {"W_enc": bank.W_enc.T, "W_dec": bank.W_dec, "b_enc": bank.b_enc, "b_dec": dictionary.b_dec}
    if activation == "gated":
        tensors |= {"b_gate": tensors.pop("b_enc"), "r_mag": bank.r_mag, "b_mag": bank.b_mag}
    if activation == "jumprelu":
        tensors["threshold"] = bank.log_threshold.exp()
    if activation == "batchtopk":
        # Before the first step of training it is negative: what is positive fires, as with zero.
        threshold = bank.threshold[0].double().clamp(min=0)
        one = dictionary.spec.kind == "sae"
        # It comes first, because numbers of eight bytes must lie at multiples of eight.
        tensors = {"topk_threshold": threshold, **tensors}
        tensors = tensors if one else _per_feature(tensors)
    if dictionary.W_skip is not None:
        tensors["W_skip"] = dictionary.W_skip
    return tensors


def _per_feature(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """One threshold for all becomes one for each."""
    import torch

    rest = {name: tensor for name, tensor in tensors.items() if name != "topk_threshold"}
    return {**rest, "threshold": torch.full_like(rest["b_enc"], float(tensors["topk_threshold"]))}


def _training(dictionary: Dictionary) -> dict[str, Any]:
    """What its training class must be told besides; what is not said is SAELens' default."""
    spec, activation = dictionary.spec, _dashed(dictionary)
    if activation == "jumprelu":
        settings = next(iter(dictionary)).settings
        tanh = {"jumprelu_sparsity_loss_mode": "tanh", "jumprelu_tanh_scale": settings["tanh"]}
        return {"jumprelu_bandwidth": settings["bandwidth"], **(tanh if settings["tanh"] > 0 else {})}
    if activation in ("topk", "signed-topk", "batchtopk"):
        widths = {"matryoshka_widths": [*spec.nested]} if spec.nested and activation == "batchtopk" else {}
        return {"k": spec.k, "rescale_acts_by_decoder_norm": False, **widths}
    return {"decoder_init_norm": 1.0} if activation == "matching-pursuit" else {}


def _dashed(dictionary: Dictionary) -> str:
    return dictionary.spec.activation.replace("_", "-")


def _pursuit(dictionary: Dictionary, bank: Bank) -> tuple[dict[str, Tensor], dict[str, Any], float]:
    """One set of directions for both ways: possible where the encoder is the decoder times a number."""
    W, V = bank.W_enc.detach().double(), bank.W_dec.detach().double()
    ratio = float((W * V).sum() / V.square().sum().clamp(min=1e-300))
    unit = max(ratio, 0.0) ** 0.5
    shift = product(bank.W_enc.detach(), dictionary.b_dec.detach()[:, None])[:, 0]
    far = float((W - ratio * V).norm()) > _TIED * float(W.norm())
    size = max(float(shift.norm()), float(bank.b_enc.detach().norm()))
    if unit == 0 or far or float((bank.b_enc.detach() + shift).norm()) > _TIED * max(size, 1.0):
        what = "SAELens' pursuit has one set of directions and one centre for both ways, this one has two"
        raise ConfigError(what, remedy="Train with one factor for all columns (or none), or keep elute's own file.")
    # With directions unit · V both ways each step takes the same out of a row, in values that are 1/unit of ours.
    tensors = {"W_dec": (V * unit).to(bank.W_dec.dtype), "b_dec": dictionary.b_dec}
    stops = {"residual_threshold": 0.0, "stop_on_duplicate_support": False}
    return tensors, {"apply_b_dec_to_input": True, "max_iterations": dictionary.spec.k, **stops}, unit


def _save(folder: Path, architecture: str, config: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> Path:
    files.make_folder(folder)
    kinds = {name: _TYPES[str(tensor.dtype).removeprefix("torch.")] for name, tensor in tensors.items()}
    arrays = {name: _array(tensor) for name, tensor in tensors.items()}
    write_safetensors(folder / WEIGHTS, arrays, dtype=kinds, metadata={"format": "pt"})
    files.write_json(folder / CONFIG, {**config, "architecture": architecture})
    return folder


def _array(tensor: Tensor) -> np.ndarray[Any, Any]:
    import torch

    tensor = tensor.detach().cpu()
    if tensor.dtype == torch.bfloat16:  # numpy has none: its bits travel
        return tensor.contiguous().view(torch.int16).numpy()
    return tensor.numpy()
