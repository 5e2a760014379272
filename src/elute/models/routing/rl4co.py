"""Policies that rl4co trained: attention models and POMO for the travelling-salesman problem, read without rl4co.

    RUN/checkpoints/checkpoint_epoch_N.ckpt     Lightning's checkpoint: of it the tensors of `state_dict` alone are read
    RUN/config.json                             settings, at any depth; env.pkl is never opened

Sizes are told by the tensors, and by config.json what they cannot tell: `num_heads` (8 if it says nothing),
`tanh_clipping` (10), `use_graph_context`. A policy of POMO, where the settings name it, has no graph context and is
given its first node (`free_start` says otherwise). Names and layout are those of rl4co 0.4 to 0.7.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from elute.base.errors import ConfigError, DataError
from elute.models.routing import checkpoint
from elute.models.routing.pickled import Archive, Described
from elute.models.routing.policy import AttentionPolicy

_PREFIX = "policy."
_REMEDY = "Attention models and POMO for the TSP can be read."
_LAYER = "encoder.layers.{}."
# Theirs to ours, {} being the layer.
_NAMES = {
    "encoder.init_embedding.init_embed.": "init_embed.",
    "encoder.net.layers.{}.0.module.Wqkv.": _LAYER + "attention.into.",
    "encoder.net.layers.{}.0.module.out_proj.": _LAYER + "attention.out.",
    "encoder.net.layers.{}.1.normalizer.": _LAYER + "norm1.",
    "encoder.net.layers.{}.2.module.0.": _LAYER + "mlp.0.",
    "encoder.net.layers.{}.2.module.2.": _LAYER + "mlp.2.",
    "encoder.net.layers.{}.2.module.lins.0.": _LAYER + "mlp.0.",
    "encoder.net.layers.{}.2.module.lins.1.": _LAYER + "mlp.2.",
    "encoder.net.layers.{}.3.normalizer.": _LAYER + "norm2.",
    "decoder.project_node_embeddings.": "decoder.project.",
    "decoder.project_fixed_context.": "decoder.mean.",
    "decoder.pointer.project_out.": "decoder.pointer.out.",
    "decoder.context_embedding.project_context.": "decoder.context.both.",
    "decoder.context_embedding.": "decoder.context.",
}
_INDEX = re.compile(r"(encoder\.net\.layers\.)([0-9]{1,3})(\..*)")
_DEPTH = 6


def read(path: Path, config: Mapping[str, Any]) -> AttentionPolicy:
    """Read a checkpoint with the settings of its run, in evaluation mode and frozen."""
    with Archive(path) as archive:
        held = archive.content
        state = held.get("state_dict") if isinstance(held, dict) else None
        if not isinstance(state, dict):
            raise DataError("holds no state_dict", where=path, remedy=_REMEDY)
        found: dict[str, Tensor] = {}
        for name, value in state.items():
            if str(name).startswith(_PREFIX) and not str(name).endswith("num_batches_tracked"):
                if not isinstance(value, Described):
                    raise DataError(f"{name!r} is not a tensor, and is not read", where=path, remedy=_REMEDY)
                found[_ours(str(name).removeprefix(_PREFIX), path)] = archive.tensor(value).float()
    return _assembled(found, config, path)


def _assembled(found: dict[str, Tensor], config: Mapping[str, Any], path: Path) -> AttentionPolicy:
    settings = _settings(found, config, path)
    both = found.pop("decoder.context.both.weight", None)
    nowhere = found.pop("decoder.context.W_placeholder", None)
    if both is None or nowhere is None or both.shape[-1] % 2 or nowhere.numel() % 2:
        raise DataError("its decoder is not that of a TSP", where=path, remedy=_REMEDY)
    found["decoder.context.first.weight"], found["decoder.context.current.weight"] = both.chunk(2, -1)
    found["decoder.context.nowhere"] = nowhere.view(2, -1)
    if not settings["use_graph_context"]:
        found.pop("decoder.mean.weight", None)  # it is there, and POMO does not use it
    return checkpoint.assembled(checkpoint.policy_config(settings, path), found, path)


def _ours(name: str, path: Path) -> str:
    """Our name of one of their tensors."""
    match = _INDEX.fullmatch(name)
    plain = name if match is None else f"{match[1]}{{}}{match[3]}"
    for theirs, ours in _NAMES.items():
        if plain.startswith(theirs):
            return (ours + plain.removeprefix(theirs)).format("" if match is None else match[2])
    raise DataError(f"is a policy of another kind: it holds {name!r}", where=path, remedy=_REMEDY)


def _settings(found: Mapping[str, Tensor], config: Mapping[str, Any], path: Path) -> dict[str, Any]:
    try:
        width = len(found["init_embed.bias"])
        hidden = len(found["encoder.layers.0.mlp.0.bias"])
    except (KeyError, TypeError) as error:
        raise DataError(f"is not a whole policy: it lacks {error}", where=path, remedy=_REMEDY) from None
    layers = 1 + max(int(name.split(".")[2]) for name in found if name.startswith("encoder.layers."))
    norm = "batch" if "encoder.layers.0.norm1.running_mean" in found else "instance"
    told = _told(config, "normalization")
    if told not in (None, norm):
        raise ConfigError(f"its normalization is {told!r}", where=path, remedy="batch and instance can be read.")
    if _told(config, "temperature") not in (None, 1, 1.0):
        raise ConfigError("its temperature is not 1", where=path, remedy=_REMEDY)
    pomo = any("pomo" in text.lower() for text in _texts(config))
    mean, free = _told(config, "use_graph_context"), _told(config, "free_start")
    return {
        "embed_dim": width,
        "num_encoder_layers": layers,
        "num_heads": _told(config, "num_heads") or 8,
        "feedforward_hidden": hidden,
        "normalization": norm,
        "tanh_clipping": _told(config, "tanh_clipping") or 10.0,
        "use_graph_context": not pomo if mean is None else mean,
        "free_start": not pomo if free is None else free,
    }


def _told(config: Mapping[str, Any], name: str) -> Any:
    """A setting by its name, the one nearest to the top."""
    level: list[Mapping[str, Any]] = [config]
    for _ in range(_DEPTH):
        for values in level:
            if values.get(name) is not None:
                return values[name]
        level = [inner for values in level for inner in values.values() if isinstance(inner, Mapping)]
    return None


def _texts(config: Mapping[str, Any], depth: int = 0) -> Iterator[str]:
    """The values that may name an algorithm; a path or a run's name would say little."""
    for key, value in config.items():
        if isinstance(value, Mapping) and depth < _DEPTH:
            yield from _texts(value, depth + 1)
        elif isinstance(value, str) and key in ("model", "algorithm", "algo", "method", "policy", "_target_", "name"):
            yield value
