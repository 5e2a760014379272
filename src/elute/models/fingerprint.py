"""What a model is, in three digests: its weights, its configuration, its sites.

Nothing is remembered between two calls: an edit through `.data` leaves no trace but the changed bytes, so the bytes
are read each time. Covered are all parameters and buffers by name, dtype, shape and content, also buffers that are not
saved; not covered are tensors that a module keeps as plain attributes, and the code of its `forward`.
"""

from __future__ import annotations

import dataclasses
import enum
import hashlib
import json
import math
from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from elute.base.contracts import Fingerprint, Site
from elute.base.errors import ConfigError, GuardError
from elute.base.files import digest_json

_LOADED_BY = ("transformers_version",)  # like the private keys of such configurations, no property of the network


def fingerprint(module: nn.Module, sites: Mapping[str, Site], *, name: str = "", config: object = None) -> Fingerprint:
    """Read what a model is now.

    The configuration is each submodule's class and what `config` holds; without a `config`, each submodule's plain
    settings (numbers, texts, functions by name) stand in, because two networks may share weights and differ in them.
    """
    settings = config if config is not None else [_settings(part) for part in module.modules()]
    classes = {path: type(part).__name__ for path, part in module.named_modules(remove_duplicate=False)}
    return Fingerprint(
        name=name or type(module).__name__,
        weights=weights_digest(module),
        config=config_digest({"classes": classes, "settings": settings}),
        sites=sites_digest(sites),
    )


def weights_digest(module: nn.Module) -> str:
    """Digest every parameter and buffer, in the order of their names; one tensor at a time leaves its device."""
    named: dict[str, Tensor] = dict(module.named_parameters(remove_duplicate=False))
    named.update(module.named_buffers(remove_duplicate=False))
    sha = hashlib.sha256()
    for name in sorted(named):
        tensor = named[name]
        if is_lazy(tensor) or tensor.is_meta:
            raise GuardError(
                f"weight {name!r} has no values yet",
                where=type(module).__name__,
                remedy="Load the weights, or run one forward, before the model is used.",
            )
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_nested:
            raise GuardError(
                f"weight {name!r} is not a dense tensor and cannot be fingerprinted",
                where=type(module).__name__,
                remedy="Convert it to a dense one.",
            )
        sha.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode() + b"\n")
        flat = tensor.detach().cpu().resolve_conj().resolve_neg().contiguous().reshape(-1)
        # Viewed as bytes, because numpy has no bfloat16.
        sha.update(flat.view(torch.uint8).numpy().data)
    return sha.hexdigest()


def config_digest(config: object) -> str:
    """Digest a configuration: plain values, mappings in any order, dataclasses, pydantic and Hugging Face ones."""
    return digest_json(_plain(config, "config"))


def sites_digest(sites: Mapping[str, Site]) -> str:
    """Digest what sites are called and where they are.

    Widths are left out: they follow from the weights, and one that is learnt must not change the fingerprint.
    """
    return digest_json({name: [site.path, site.at, site.select, site.call] for name, site in sites.items()})


def _settings(part: nn.Module) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in vars(part).items():
        if key.startswith("_") or key == "training":
            continue
        try:
            found[key] = value.__qualname__ if hasattr(value, "__qualname__") else _plain(value, key)
        except ConfigError:
            continue  # an object of another kind, of which nothing stable can be said
    return found


def _plain(value: Any, where: str) -> Any:
    if isinstance(value, enum.Enum):
        return _plain(value.value, where)
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, float):
        return value if math.isfinite(value) else {"float": repr(value)}
    if isinstance(value, Mapping):
        return {str(key): _plain(item, f"{where}.{key}") for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(item, f"{where}[{i}]") for i, item in enumerate(value)]
    if isinstance(value, (set, frozenset)):
        return sorted((_plain(item, where) for item in value), key=json.dumps)
    if isinstance(value, (torch.dtype, PurePath)):
        return str(value)
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {field.name: _plain(getattr(value, field.name), where) for field in dataclasses.fields(value)}
    for method in ("model_dump", "to_dict"):
        if not isinstance(value, type) and callable(getattr(value, method, None)):
            found = getattr(value, method)().items()
            return _plain({key: item for key, item in found if key[:1] != "_" and key not in _LOADED_BY}, where)
    raise ConfigError(
        f"a {type(value).__name__} cannot be part of a model's configuration",
        where=where,
        remedy="Give plain values: numbers, texts, lists, mappings.",
    )
