"""Dictionaries of other libraries, read: which one lies at a path, and those of dictionary_learning and sparsify.

Both are read into the codes and reconstructions that the library's own loader gives (docs/formats/interchange.md).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from elute.base.errors import ConfigError, DamagedError, DataError
from elute.base.tensors import load_tensors
from elute.dictionaries import saelens_read
from elute.dictionaries.foreign_weights import (
    REMEDY,
    Weights,
    agreed,
    described,
    matched,
    read_config,
    read_safetensors,
    setting,
)

if TYPE_CHECKING:
    from torch import Tensor

    from elute.dictionaries.dictionary import Dictionary

Library = Literal["elute", "saelens", "dictionary_learning", "sparsify"]

_LINEAR = {"encoder.weight": "features read", "encoder.bias": "features", "decoder.weight": "read features"}
_MATRIX = {"W_enc": "read features", "b_enc": "features", "W_dec": "features read", "b_dec": "read"}
_GATE = {"r_mag": "features", "gate_bias": "features", "mag_bias": "features"}
_CLASSES: dict[str, tuple[str, dict[str, str]]] = {
    "AutoEncoder": ("relu", {**_LINEAR, "bias": "read"}),
    "AutoEncoderNew": ("relu", {**_LINEAR, "decoder.bias": "read"}),
    "GatedAutoEncoder": (
        "gated",
        {"encoder.weight": "features read", "decoder.weight": "read features", "decoder_bias": "read", **_GATE},
    ),
    "JumpReluAutoEncoder": ("jumprelu", {**_MATRIX, "threshold": "features"}),
    "AutoEncoderTopK": ("topk", {**_LINEAR, "b_dec": "read"}),
    "BatchTopKSAE": ("batchtopk", {**_LINEAR, "b_dec": "read", "threshold": ""}),
    "MatryoshkaBatchTopKSAE": ("batchtopk", {**_MATRIX, "threshold": ""}),
}
_PLACES = {
    "b_enc": ("encoder.bias", "gate_bias", "b_enc"),
    "b_dec": ("b_dec", "bias", "decoder_bias", "decoder.bias"),
}


def sniff(path: Path | str) -> Library | None:
    """Say whose dictionary lies at a path, by the names of files and the keys of their configuration alone."""
    path = Path(path)
    folder = path if path.is_dir() else path.parent
    if path.is_file() and path.suffix == ".pt" and path.name != "ae.pt":
        return "elute"
    has = {name: (folder / name).is_file() for name in ("sae_final.pt", "ae.pt", "cfg.json", "config.json")}
    if path.is_dir() and has["sae_final.pt"]:
        return "elute"
    if has["cfg.json"]:
        keys = _keys(folder / "cfg.json")
        if (folder / saelens_read.WEIGHTS).is_file() or "d_sae" in keys or "architecture" in keys:
            return "saelens"
        return "sparsify" if (folder / "sae.safetensors").is_file() or "expansion_factor" in keys else None
    if any((folder / part / "cfg.json").is_file() for part in ("training", "inference")):
        return "saelens"
    if has["ae.pt"] or (has["config.json"] and "trainer" in _keys(folder / "config.json")):
        return "dictionary_learning"
    return None


def read_any(path: Path | str) -> Dictionary:
    """Read a dictionary of any library whose files are known."""
    path = Path(path)
    library = sniff(path)
    folder = path.parent if path.is_file() else path
    if library == "elute":
        from elute.dictionaries.files import load_dictionary

        return load_dictionary(path)
    if library == "saelens":
        return saelens_read.read(path)
    if library == "dictionary_learning":
        return read_dictionary_learning(folder)
    if library == "sparsify":
        return read_sparsify(folder)
    raise DataError(
        "there is no dictionary here that elute reads" if path.exists() else "there is no such file or folder",
        where=path,
        remedy="It reads sae_final.pt (elute), cfg.json with sae_weights.safetensors (SAELens) or sae.safetensors"
        " (sparsify), and ae.pt with config.json (dictionary_learning).",
    )


def read_dictionary_learning(folder: Path | str) -> Dictionary:
    """Read `ae.pt` and `config.json` as dictionary_learning's `load_dictionary` does."""
    folder = Path(folder)
    path, file = folder / "config.json", folder / "ae.pt"
    trainer = read_config(path, what="dictionary_learning's configuration").get("trainer")
    trainer = trainer if isinstance(trainer, dict) else {}
    name = setting(trainer, "dict_class", "", where=path)
    if name not in _CLASSES:
        what = f"dict_class {name!r}" if name else "names no dict_class under trainer"
        raise ConfigError(what, where=path, remedy=f"elute reads {', '.join(_CLASSES)}.")
    activation, shapes = _CLASSES[name]
    tensors = load_tensors(file)
    if not _named(tensors):
        raise DamagedError("holds something else than tensors by name", where=file, remedy=REMEDY)
    tensors = dict(tensors)
    whole = {key: _whole(tensors.pop(key), key, file) for key in ("k", "group_sizes") if key in tensors}
    if name == "AutoEncoderTopK":
        tensors.pop("threshold", None)  # for another way to encode, which is not the class's own
    sizes = matched(tensors, shapes, where=file)
    agreed(trainer, "activation_dim", sizes["read"], where=path)
    agreed(trainer, "dict_size", sizes["features"], where=path)
    k = whole["k"][0] if whole.get("k") else setting(trainer, "k", min(32, sizes["features"]), where=path)
    if activation in ("topk", "batchtopk"):
        agreed(trainer, "k", k, where=path)
    site = {_site(trainer, path): sizes["read"]}
    spec = described(
        path,
        kind="sae",
        reads=site,
        writes=site,
        n_features=sizes["features"],
        activation=activation,
        k=k,
        nested=[*accumulate(whole.get("group_sizes", []))],
        source=_source("dictionary_learning", trainer, ("dict_class", "trainer_class", "lm_name")),
    )
    return _unfolded(name, tensors).dictionary(spec)


def read_sparsify(folder: Path | str) -> Dictionary:
    """Read `cfg.json` and `sae.safetensors` as sparsify's `SparseCoder.load_from_disk` does."""
    folder = Path(folder)
    path, file = folder / "cfg.json", folder / "sae.safetensors"
    config = read_config(path, what="sparsify's configuration")
    activation = setting(config, "activation", "topk", where=path)
    transcode, skip = (setting(config, key, default=False, where=path) for key in ("transcode", "skip_connection"))
    if activation != "topk":
        remedy = "elute reads topk alone: the strongest of each of k groups is no activation it has."
        raise ConfigError(f"activation = {activation!r}", where=path, remedy=remedy if activation == "groupmax" else "")
    if setting(config, "signed", default=False, where=path):
        raise ConfigError("signed = true, of an early version", where=path, remedy="elute reads those without sign.")
    if skip and not transcode:
        what = "skip_connection without transcode: a linear skip lets an autoencoder pass its input through"
        raise ConfigError(what, where=path, remedy="elute reads a skip in transcoders alone.")
    tensors = read_safetensors(file)
    write = "write" if transcode else "read"
    shapes = {"encoder.weight": "features read", "encoder.bias": "features", "W_dec": f"features {write}"}
    shapes |= {"b_dec": write} | ({"W_skip": "write read"} if skip else {})
    sizes = matched(tensors, shapes, where=file)
    agreed(config, "d_in", sizes["read"], where=path)
    if setting(config, "num_latents", 0, where=path):
        agreed(config, "num_latents", sizes["features"], where=path)
    weights = Weights(
        W_enc=tensors["encoder.weight"],
        W_dec=tensors["W_dec"],
        b_enc=tensors["encoder.bias"],
        b_dec=tensors["b_dec"],
        W_skip=tensors.get("W_skip"),
    )
    if not transcode:
        weights.fold_centre(weights.b_dec)
    spec = described(
        path,
        kind="transcoder" if transcode else "sae",
        reads={"x": sizes["read"]},
        writes={"y": sizes["write"]} if transcode else {"x": sizes["read"]},
        n_features=sizes["features"],
        activation="topk",
        k=setting(config, "k", 32, where=path),
        skip=skip,
        source={"library": "sparsify"},
    )
    return weights.dictionary(spec)


def _unfolded(name: str, tensors: Mapping[str, Tensor]) -> Weights:
    """Fold what dictionary_learning's classes do around their encoder and decoder."""
    import torch

    found = {
        ours: next(tensors[n] for n in names if n in tensors) for ours, names in _PLACES.items() if ours != "W_enc"
    }
    linear = "encoder.weight" in tensors
    weights = Weights(
        W_enc=tensors["encoder.weight"] if linear else tensors["W_enc"].T,
        W_dec=tensors["decoder.weight"].T if linear else tensors["W_dec"],
        threshold=tensors.get("threshold"),
        r_mag=tensors.get("r_mag"),
        b_mag=tensors.get("mag_bias"),
        **found,
    )
    norms = weights.W_dec.norm(dim=1)
    if name == "AutoEncoder" and not torch.allclose(norms, torch.ones_like(norms)):
        weights.fold_norms()  # as its loader does, so that values compare between features
    if name not in ("AutoEncoderNew", "JumpReluAutoEncoder"):  # these subtract nothing from rows
        weights.fold_centre(weights.b_dec)
    return weights


def _named(content: object) -> bool:
    import torch

    if not isinstance(content, dict):
        return False
    return all(isinstance(key, str) and isinstance(value, torch.Tensor) for key, value in content.items())


def _whole(tensor: Tensor, name: str, file: Path) -> list[int]:
    if tensor.dtype.is_floating_point or tensor.dtype.is_complex or tensor.ndim > 1:
        raise DamagedError(f"{name} is not made of whole numbers", where=file, remedy=REMEDY)
    return [int(number) for number in tensor.reshape(-1)]


def _site(trainer: Mapping[str, Any], path: Path) -> str:
    """The name of the place in the model: what the trainer was told, or the layer."""
    named = setting(trainer, "submodule_name", "", where=path)
    layer = trainer.get("layer")
    return named or (f"layer_{layer}" if isinstance(layer, int | str) and layer != "" else "x")


def _source(library: str, config: Mapping[str, Any], keys: tuple[str, ...]) -> dict[str, str]:
    return {"library": library} | {key: config[key] for key in keys if isinstance(config.get(key), str)}


def _keys(path: Path) -> set[str]:
    """The keys of a configuration; none where it is not one, which its reader will say."""
    try:
        config = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError):
        return set()
    return set(config) if isinstance(config, dict) else set()
