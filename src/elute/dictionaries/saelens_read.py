"""Dictionaries in SAELens' format, read: `cfg.json` and `sae_weights.safetensors` (docs/formats/interchange.md).

1. The configuration is brought up to date, as SAELens does with those from before its version 6.
2. A setting that changes the numbers is folded into the weights, or refused in one line: competition by decoder norm,
   then the decoder's bias that is subtracted from rows, then how rows were normalised.
3. What is left is a plain encoder and decoder, and an activation that elute has.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base.errors import ConfigError, DataError
from elute.dictionaries.foreign_weights import (
    REMEDY,
    Weights,
    agreed,
    described,
    matched,
    product,
    read_config,
    read_safetensors,
    setting,
)

if TYPE_CHECKING:
    from torch import Tensor

    from elute.dictionaries.dictionary import Dictionary
    from elute.dictionaries.spec import Kind

CONFIG, WEIGHTS = "cfg.json", "sae_weights.safetensors"
_BATCH = ("batchtopk", "matryoshka_batchtopk")
_RENAMED = {"hook_point": "hook_name", "hook_point_out": "hook_name_out", "activation_fn_str": "activation_fn"}
_SITES = ("hook_name", "hook_name_out", "model_name")


@dataclass(frozen=True)
class Form:
    """One of SAELens' architectures: what elute calls it, and its tensors besides W_dec and b_dec."""

    activation: str
    tensors: Mapping[str, str]
    kind: Kind = "sae"
    skip: bool = False

    @property
    def shapes(self) -> dict[str, str]:
        """The shape of every tensor, in words."""
        write = "read" if self.kind == "sae" else "write"
        shapes = {**self.tensors, "W_dec": f"features {write}", "b_dec": write}
        return {**shapes, "W_skip": "write read"} if self.skip else shapes


_PLAIN = {"W_enc": "read features", "b_enc": "features"}
_JUMP = {**_PLAIN, "threshold": "features"}
_GATED = {"W_enc": "read features", "b_gate": "features", "r_mag": "features", "b_mag": "features"}
FORMS = {
    "standard": Form("relu", _PLAIN),
    "topk": Form("topk", _PLAIN),
    "abstopk": Form("signed-topk", _PLAIN),
    "batchtopk": Form("batchtopk", {**_PLAIN, "topk_threshold": ""}),
    "matryoshka_batchtopk": Form("batchtopk", {**_PLAIN, "topk_threshold": ""}),
    "jumprelu": Form("jumprelu", _JUMP),
    "gated": Form("gated", _GATED),
    "matching_pursuit": Form("matching-pursuit", {}),
    "transcoder": Form("relu", _PLAIN, "transcoder"),
    "skip_transcoder": Form("relu", _PLAIN, "transcoder", skip=True),
    "jumprelu_transcoder": Form("jumprelu", _JUMP, "transcoder"),
    "jumprelu_skip_transcoder": Form("jumprelu", _JUMP, "transcoder", skip=True),
}


def read(folder: Path | str) -> Dictionary:
    """Read a dictionary that SAELens saved, or that elute wrote for it."""
    place = _place(Path(folder))
    path = place / CONFIG
    config = _modern(read_config(path, what="SAELens' configuration"), path)
    name = setting(config, "architecture", "standard", where=path)
    if name not in FORMS:
        raise ConfigError(f"architecture {name!r}", where=path, remedy=f"elute reads {', '.join(FORMS)}.")
    form = FORMS[name]
    tensors = read_safetensors(place / WEIGHTS)
    _legacy(tensors, place / WEIGHTS)
    sizes = matched(tensors, form.shapes, where=place / WEIGHTS)
    for key, dim in (("d_in", "read"), ("d_sae", "features"), ("d_out", "write")):
        if dim in sizes:
            agreed(config, key, sizes[dim], where=path)
    pursuit = form.activation == "matching-pursuit"
    weights = _pursuit(tensors, config, path) if pursuit else _weights(tensors, config, path)
    return weights.dictionary(described(path, **_fields(form, config, sizes, weights=weights)))


def _place(folder: Path) -> Path:
    """The folder that holds the files: itself, or of what elute writes the part that says most."""
    if folder.name in (CONFIG, WEIGHTS):
        return folder.parent
    for part in (folder, folder / "training", folder / "inference"):
        if (part / CONFIG).exists():
            return part
    raise DataError(
        f"there is no {CONFIG} here", where=folder, remedy=f"SAELens saves {CONFIG} and {WEIGHTS} side by side."
    )


def _modern(config: dict[str, Any], path: Path) -> dict[str, Any]:
    """Bring a configuration to version 6; refuse what changes the numbers in a way that weights cannot say."""
    config = {_RENAMED.get(key, key): value for key, value in config.items()}
    given = config.get("metadata")
    metadata = given if isinstance(given, dict) else {}
    config["metadata"] = {key: config[key] for key in _SITES if key in config} | metadata
    version = str(config.get("sae_lens_version") or metadata.get("sae_lens_version") or "0")
    activation = setting(config, "activation_fn", "relu", where=path)
    if version.split(".")[0] in ("0", "1", "2", "3", "4", "5"):
        if activation == "topk":
            arguments = config.get("activation_fn_kwargs")
            k = arguments.get("k") if isinstance(arguments, dict) else None
            config |= {"architecture": "topk"} | ({} if k is None else {"k": k})
        config.setdefault("reshape_activations", "hook_z" if "hook_z" in _hook(config, "hook_name", "") else "none")
        config.setdefault("rescale_acts_by_decoder_norm", False)
    if activation not in ("relu", "topk"):
        raise ConfigError(
            f"activation_fn = {activation!r}", where=path, remedy="elute reads those that end in a ReLU or TopK."
        )
    if setting(config, "reshape_activations", "none", where=path) != "none":
        what = f"reshape_activations = {config['reshape_activations']!r}: it reads heads, elute reads flat rows"
        remedy = 'Put "none" there and give it rows in which the heads stand side by side.'
        raise ConfigError(what, where=path, remedy=remedy)
    return config


def _legacy(tensors: dict[str, Tensor], path: Path) -> None:
    """Old names of tensors."""
    scale = tensors.pop("scaling_factor", None)
    if scale is not None and not bool((scale == 1).all()):
        what = "was finetuned with a factor a feature (scaling_factor), which SAELens no longer applies either"
        raise ConfigError(what, where=path, remedy="Multiply W_dec's rows by it and leave it out.")
    if "log_threshold" in tensors and "threshold" not in tensors:
        tensors["threshold"] = tensors.pop("log_threshold").double().exp()


def _weights(tensors: dict[str, Tensor], config: Mapping[str, Any], path: Path) -> Weights:
    """Fold everything that SAELens does around its encoder and decoder."""
    name = setting(config, "architecture", "standard", where=path)
    form = FORMS[name]
    weights = Weights(
        W_enc=tensors["W_enc"].T,
        W_dec=tensors["W_dec"],
        b_enc=tensors["b_gate" if form.activation == "gated" else "b_enc"],
        b_dec=tensors["b_dec"],
        W_skip=tensors.get("W_skip"),
        threshold=tensors.get("topk_threshold", tensors.get("threshold")),
        r_mag=tensors.get("r_mag"),
        b_mag=tensors.get("b_mag"),
    )
    ranked = form.activation in ("topk", "signed-topk", "batchtopk")
    if ranked and setting(config, "rescale_acts_by_decoder_norm", name in _BATCH, where=path):
        weights.fold_norms()
    centred = setting(config, "apply_b_dec_to_input", form.kind == "sae", where=path)
    if centred and form.kind != "sae":
        what = "apply_b_dec_to_input = true: a transcoder's bias belongs to what it writes, not to what it reads"
        raise ConfigError(what, where=path, remedy="SAELens refuses this file too; say false.")
    if centred:
        weights.fold_centre(weights.b_dec)
    _normalised(weights, _normalisation(config, path), path)
    return weights


def _normalisation(config: Mapping[str, Any], path: Path) -> str:
    """How rows were normalised: by fixed numbers, or not at all."""
    given = config.get("normalize_activations")
    how = {"None": "none", "False": "none", "True": "expected_average_only_in"}.get(str(given), given)
    architecture = config.get("architecture", "standard")
    fixed = how in ("expected_average_only_in", "covariance_whitening")
    if how == "none" or (fixed and FORMS[architecture].kind == "sae" and architecture != "matching_pursuit"):
        return str(how)
    what = f"normalize_activations = {how!r} in a {architecture}"
    raise ConfigError(what, where=path, remedy="No fixed weights do the same: elute cannot read it.")


def _normalised(weights: Weights, how: str, path: Path) -> None:
    """Fold how rows were normalised; SAELens keeps the numbers beside the weights of a training that still goes on."""
    folder = path.parent
    if how == "covariance_whitening":
        file = folder / "activation_whitening.safetensors"
        found = read_safetensors(file)
        matched(found, {"mean": "read", "matrix": "read read", "inverse_matrix": "read read"}, where=file)
        agreed({"d_in": len(found["mean"])}, "d_in", weights.W_enc.shape[1], where=file)
        weights.fold_whitening(found["mean"], matrix=found["matrix"], inverse=found["inverse_matrix"])
    if how == "expected_average_only_in":
        file = folder / "activation_scaler.json"
        known = read_config(file, what="the factor that rows were scaled with")
        scale = setting(known, "scaling_factor", 0.0, where=file)
        if not 0 < scale < float("inf"):
            what = f"rows were scaled in training, but with scaling_factor = {scale}"
            raise ConfigError(what, where=file, remedy="Let SAELens finish the training: it folds the factor then.")
        weights.fold_scale(scale)


def _pursuit(tensors: dict[str, Tensor], config: Mapping[str, Any], path: Path) -> Weights:
    """One set of directions serves both ways, and the centre is subtracted, then added again."""
    stops = setting(config, "residual_threshold", 1e-2, where=path) > 0
    if stops or setting(config, "stop_on_duplicate_support", True, where=path):
        what = "a pursuit that stops by residual_threshold or stop_on_duplicate_support"
        raise ConfigError(what, where=path, remedy="elute's takes k steps: set them to 0 and false to read it so.")
    _normalisation(config, path)
    centre = tensors["b_dec"] * setting(config, "apply_b_dec_to_input", True, where=path)
    unit = setting(_own(config), "unit", 1.0, where=path)  # elute's values are the file's times this
    if not 0 < unit < float("inf"):
        raise ConfigError(f"unit = {unit} in what elute noted", where=path, remedy=REMEDY)
    W = tensors["W_dec"]
    shift = product(W, centre[:, None])[:, 0]
    return Weights(W_enc=W * unit, W_dec=W / unit, b_enc=-shift * unit, b_dec=centre)


def _fields(form: Form, config: dict[str, Any], sizes: Mapping[str, int], *, weights: Weights) -> dict[str, Any]:
    """What is to be said of it besides its weights."""
    features, activation = sizes["features"], form.activation
    metadata, own = config["metadata"], _own(config)
    trained = metadata.get("training_architecture_details")
    trained = trained if isinstance(trained, dict) else {}
    threshold = weights.threshold
    batch = metadata.get("training_architecture") in _BATCH or own.get("activation") == "batchtopk"
    if batch and activation == "jumprelu" and threshold is not None and bool((threshold == threshold[0]).all()):
        # For inference such a one is kept with its one threshold repeated for each feature.
        activation, weights.threshold = "batchtopk", threshold[:1]
    k: Any = own.get("k", trained.get("k", 100 if "topk" in form.activation else min(32, features)))
    if "topk" in form.activation:
        k = config.get("k", k)
    elif activation == "matching-pursuit":
        k = config.get("max_iterations") or sizes["read"]
    if activation == "batchtopk" and isinstance(k, float) and 0 < k < float("inf"):
        k = max(1, round(k))  # at inference its threshold decides
    widths = config.get("matryoshka_widths", trained.get("matryoshka_widths")) or ()
    widths = own.get("nested", widths)
    if isinstance(widths, list) and widths and widths[-1] != features:
        widths = [*widths, features]  # as SAELens does
    reads = {_hook(config, "hook_name", "x"): sizes["read"]}
    writes = reads if form.kind == "sae" else {_hook(config, "hook_name_out", "y"): sizes["write"]}
    source = {"library": "saelens", "architecture": config.get("architecture", "standard")}
    source |= {key: metadata[key] for key in ("model_name", "sae_lens_version") if isinstance(metadata.get(key), str)}
    return {
        "kind": form.kind,
        "reads": reads,
        "writes": writes,
        "n_features": features,
        "activation": activation,
        "k": k,
        "nested": widths,
        "skip": form.skip,
        "settings": _settings(activation, {**trained, **config}, own),
        "source": source,
    }


def _settings(activation: str, config: Mapping[str, Any], own: Mapping[str, Any]) -> Any:
    """The activation's own numbers, for those who train on."""
    if "settings" in own:
        return own["settings"]
    found = {}
    if activation == "jumprelu" and "jumprelu_bandwidth" in config:
        found["bandwidth"] = config["jumprelu_bandwidth"]
        if config.get("jumprelu_sparsity_loss_mode") == "tanh":
            found["tanh"] = config.get("jumprelu_tanh_scale", 4.0)
    return found


def _own(config: Mapping[str, Any]) -> dict[str, Any]:
    """What elute itself noted when it wrote the file."""
    noted = config["metadata"].get("elute")
    return noted if isinstance(noted, dict) else {}


def _hook(config: Mapping[str, Any], name: str, otherwise: str) -> str:
    hook = config["metadata"].get(name)
    return hook if isinstance(hook, str) and hook else otherwise
