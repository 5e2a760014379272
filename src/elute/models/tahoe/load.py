"""A model's folder: `model.safetensors`, its two configurations and `vocab.json`, read and written.

Weights go into the network under their published names, less the `model.` in front; a name that is missing, too many
or of another shape is an error that lists it. The number of genes is that of the tensors, whatever the configuration.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from elute.base import files
from elute.base.errors import DamagedError, DataError
from elute.base.tensors import safetensors_header, write_safetensors
from elute.models.tahoe.config import (
    COLLATOR_FILE,
    MODEL_FILE,
    VOCABULARY_FILE,
    WEIGHTS_FILE,
    CollatorConfig,
    TahoeConfig,
    read_config,
    write_config,
)
from elute.models.tahoe.model import TahoeX1

if TYPE_CHECKING:
    from torch import Tensor

PREFIX = "model."
_INDEX = f"{WEIGHTS_FILE}.index.json"
_EMBEDDING = "gene_encoder.embedding.weight"
_SHOWN = 8


@dataclass(frozen=True, eq=False)
class Folder:
    """What a model's folder holds."""

    network: TahoeX1
    collator: CollatorConfig
    vocabulary: dict[str, int]


def read_folder(folder: Path) -> Folder:
    """Read a model; nothing in it is executed."""
    if not folder.is_dir():
        remedy = f"A model's folder holds {WEIGHTS_FILE}, {MODEL_FILE}, {COLLATOR_FILE} and {VOCABULARY_FILE}."
        raise DataError("is not a folder" if folder.exists() else "is not there", where=folder, remedy=remedy)
    config: TahoeConfig = read_config(folder / MODEL_FILE, TahoeConfig)
    collator: CollatorConfig = read_config(folder / COLLATOR_FILE, CollatorConfig)
    weights = read_weights(folder)
    if _EMBEDDING in weights and weights[_EMBEDDING].ndim:
        config = config.model_copy(update={"vocab_size": len(weights[_EMBEDDING])})
    vocabulary = read_vocabulary(folder / VOCABULARY_FILE, config.vocab_size)
    network = build(config, weights, where=folder / WEIGHTS_FILE, padding=collator.pad_token_id)
    return Folder(network, collator, vocabulary)


def write_folder(folder: Path, network: TahoeX1, collator: CollatorConfig, *, vocabulary: Mapping[str, int]) -> Path:
    """Write a model in the form that is published; the weights go last, so that a folder with them is whole."""
    files.make_folder(folder)
    write_config(folder / MODEL_FILE, network.config)
    write_config(folder / COLLATOR_FILE, collator)
    files.write_json(folder / VOCABULARY_FILE, dict(vocabulary))
    tensors = {f"{PREFIX}{name}": t.detach().cpu().contiguous().numpy() for name, t in network.state_dict().items()}
    write_safetensors(folder / WEIGHTS_FILE, tensors, dtype="F32", metadata={"format": "pt"})
    return folder


def build(config: TahoeConfig, weights: Mapping[str, Tensor], *, where: Path, padding: int = 0) -> TahoeX1:
    """Make a network around weights, without a second copy of them."""
    with torch.device("meta"):
        network = TahoeX1(config, padding=padding)
    wanted = {name: list(t.shape) for name, t in network.state_dict().items()}
    missing, surplus = sorted(wanted.keys() - weights.keys()), sorted(weights.keys() - wanted.keys())
    other = [
        f"{n} is {list(weights[n].shape)}, not {shape}"
        for n, shape in wanted.items()
        if n in weights and list(weights[n].shape) != shape
    ]
    faults = [
        f"{_listed(names)} {what}"
        for names, what in ((missing, "missing"), (surplus, "not of this model"), (other, ""))
        if names
    ]
    if faults:
        remedy = f"Check that {MODEL_FILE} and the weights are of one model."
        raise DataError("; ".join(fault.strip() for fault in faults), where=where, remedy=remedy)
    network.load_state_dict({name: weights[name].float() for name in wanted}, assign=True)
    return network.requires_grad_(False).eval()


def read_weights(folder: Path) -> dict[str, Tensor]:
    """Read the tensors of one file, or of several with an index, by their names less the prefix."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    weights: dict[str, Tensor] = {}
    for path in _parts(folder):
        safetensors_header(path)
        try:
            found = load_file(path)
        except (SafetensorError, ValueError) as error:
            raise DamagedError(f"cannot be read ({error})", where=path, remedy="Fetch it anew.") from None
        if bad := [name for name, t in found.items() if not t.is_floating_point()]:
            raise DamagedError(f"{_listed(bad)} hold no real numbers", where=path, remedy="Fetch it anew.")
        weights.update({name.removeprefix(PREFIX): t for name, t in found.items()})
    return weights


def _parts(folder: Path) -> list[Path]:
    if (folder / WEIGHTS_FILE).exists():
        return [folder / WEIGHTS_FILE]
    if (folder / _INDEX).exists():
        index = files.read_json(folder / _INDEX, what="an index of weights", remedy="Fetch it anew.")
        named = index.get("weight_map") if isinstance(index, dict) else None
        if not isinstance(named, dict) or not all(isinstance(name, str) for name in named.values()):
            raise DamagedError("is not an index of weights", where=folder / _INDEX, remedy="Fetch it anew.")
        parts = sorted(set(named.values()))
        if any(Path(name).name != name for name in parts):
            raise DamagedError("names files outside of its folder", where=folder / _INDEX, remedy="Fetch it anew.")
        return [folder / name for name in parts]
    remedy = f"Put {WEIGHTS_FILE} there, or use --model-size to fetch a published model."
    raise DataError(f"holds no {WEIGHTS_FILE}", where=folder, remedy=remedy)


def read_vocabulary(path: Path, rows: int) -> dict[str, int]:
    """Read which gene is which token; each token is a row of the embedding, and no two genes share one."""
    held: Any = files.read_json(path, what="a vocabulary", remedy="Fetch it anew.")
    if not isinstance(held, dict) or not held or not all(type(token) is int for token in held.values()):
        raise DamagedError("is no table from genes to tokens", where=path, remedy="Fetch it anew.")
    if outside := [gene for gene, token in held.items() if not 0 <= token < rows]:
        what = f"{_listed(outside)}: tokens outside of the {rows:,} rows of the weights"
        raise DataError(what, where=path, remedy="The vocabulary and the weights are of two models: fetch both anew.")
    if len(set(held.values())) != len(held):
        raise DamagedError("gives several genes one token", where=path, remedy="Fetch it anew.")
    return held


def _listed(names: list[str]) -> str:
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more
