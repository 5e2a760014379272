"""The file of a fusion network, `fusion.pt`: tensors and one string of JSON; nothing else.

config       JSON: schema_version, sources (name and width of each, in their order), classes, fusion (dropout, epochs,
             …), told (what the fused file says of itself)
network.*    float32, one network's tensors: gates, layers, batch normalisation, mean and spread of all sources' numbers
seen         int64, sorted: a number for each particle that the network has learnt from, by which it is known again
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from elute.base import files
from elute.base.described import load_described
from elute.base.errors import DamagedError, DataError

if TYPE_CHECKING:
    from torch import Tensor

    from elute.heads.fusion import FusionNetworks

SCHEMA = 1
NAME = "fusion.pt"
_REMEDY = "Train the fusion anew, or restore the file from a copy."
_AT_ONCE = 1 << 14


@dataclass(frozen=True, eq=False)
class FusionModel:
    """A trained fusion: its network, what it reads, and what it has seen."""

    network: FusionNetworks
    names: tuple[str, ...]
    classes: tuple[str, ...]
    seen: NDArray[np.int64]
    told: dict[str, Any] = field(default_factory=dict)

    @property
    def widths(self) -> tuple[int, ...]:
        """The width of each source's vectors."""
        return tuple(self.network.widths)

    @property
    def width(self) -> int:
        """The width of a fused vector."""
        return int(self.network.config.width)

    def fuse(self, vectors: Sequence[NDArray[Any]]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return fused vectors and gates of particles, whose vectors are in the order of the sources."""
        from elute.heads.fusion import fuse_rows

        return fuse_rows(self.network, vectors)

    def has_seen(self, vectors: Sequence[NDArray[Any]]) -> NDArray[np.bool_]:
        """Which of these particles the network has learnt from."""
        return np.isin(fingerprints(vectors), self.seen)


def fingerprints(vectors: Sequence[NDArray[Any]]) -> NDArray[np.int64]:
    """A number for each particle: the same for the same vectors, and for others different but once in 10¹⁹ times."""
    width = sum(x.shape[1] for x in vectors)
    factors = np.random.default_rng(20_190).integers(0, 1 << 63, size=width, dtype=np.uint64) * np.uint64(
        2
    ) + np.uint64(1)
    out = np.empty(len(vectors[0]), np.int64)
    for start in range(0, len(out), _AT_ONCE):
        parts = [np.asarray(x[start : start + _AT_ONCE], np.float32) + np.float32(0) for x in vectors]  # no −0
        words = np.concatenate(parts, axis=1).view(np.uint32).astype(np.uint64)
        out[start : start + _AT_ONCE] = (words * factors).sum(axis=1, dtype=np.uint64).view(np.int64)
    return out


def save_fusion(path: Path | str, model: FusionModel) -> Path:
    """Write a fusion."""
    import torch

    path = Path(path)
    config = model.network.config
    told = {
        "schema_version": SCHEMA,
        "sources": [{"name": n, "width": w} for n, w in zip(model.names, model.widths, strict=True)],
        "classes": list(model.classes),
        "fusion": config.model_dump(mode="json", exclude={"device", "checkpoint_seconds", "width", "hidden"}),
        "told": dict(model.told),
    }
    content: dict[str, Any] = {"config": json.dumps(told, sort_keys=True, allow_nan=False)}
    content |= {f"network.{name}": value.cpu().clone() for name, value in model.network.state_dict().items()}
    content["seen"] = torch.from_numpy(np.unique(model.seen))

    def fill(handle: BinaryIO) -> None:
        torch.save(content, handle)

    files.make_folder(path.parent)
    files.write_atomically(path, fill)
    return path


def load_fusion(path: Path | str) -> FusionModel:
    """Read a fusion from its file, or from the folder that it lies in."""
    path = Path(path)
    path = path / NAME if path.is_dir() else path
    if not path.exists():
        raise DataError("there is no fusion", where=path,
                        remedy="evaluate_classification --save-fused-embeddings writes one.")  # fmt: skip
    told, content = load_described(path, "a fusion", schema=SCHEMA, remedy=_REMEDY)
    try:
        return _read(told, content)
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError, IndexError) as error:
        first = (str(error).splitlines() or [""])[0][:120]
        raise DamagedError(f"does not hold what it describes ({first})", where=path, remedy=_REMEDY) from None


def _read(told: Mapping[str, Any], content: Mapping[str, Any]) -> FusionModel:
    from elute.heads.fusion import FusionNetworks
    from elute.heads.fusion_settings import FusionConfig

    state = {name.removeprefix("network."): t for name, t in content.items() if name.startswith("network.")}
    for name, tensor in state.items():
        _checked(name, tensor)
    names = tuple(str(one["name"]) for one in told["sources"])
    widths = [int(state[f"gate{s}_weight"].shape[1]) for s in range(len(names))]
    if widths != [int(one["width"]) for one in told["sources"]] or len(names) < 2:
        raise ValueError("widths of the sources")
    config = FusionConfig(
        **{**told["fusion"], "width": int(state["out_weight"].shape[2]),
           "hidden": (int(state["layer1_weight"].shape[2]), int(state["layer2_weight"].shape[2]))}
    )  # fmt: skip
    classes = tuple(map(str, told["classes"]))
    network = FusionNetworks(widths, len(classes), config=config)
    network.load_state_dict(state)
    seen = content["seen"].numpy()
    if seen.dtype != np.int64 or seen.ndim != 1:
        raise ValueError("seen")
    return FusionModel(network.eval().requires_grad_(requires_grad=False), names, classes, seen, dict(told["told"]))


def _checked(name: str, tensor: Tensor) -> None:
    """Refuse what is no tensor of finite numbers that really lie in the file."""
    import torch

    if tensor.dtype != torch.float32 or not tensor.is_contiguous() or not bool(torch.isfinite(tensor).all()):
        raise ValueError(f"{name} is not a tensor of finite numbers")
