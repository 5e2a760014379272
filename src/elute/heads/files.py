"""The file of gene heads, `heads.pt`: tensors and one string of JSON; nothing else.

config                          JSON: schema_version, loss, model, l1_ratio, genes, states, attention, meta
weights [G, K], bias [G]        float64, of the final head on raw codes
penalty [G], residual [G]       float64; dispersion [G] of negative binomial counts
fold_weights [F, G, K]          float32, of the folds' heads; fold_bias, fold_penalty, fold_dispersion [F, G] float64
attention.*                     the gates, where codes are pooled by attention
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO, get_args

import numpy as np

from elute.base import files
from elute.base.described import load_described
from elute.base.errors import DamagedError, DataError
from elute.heads.head import Head, State
from elute.heads.settings import Loss, Model

if TYPE_CHECKING:
    from torch import Tensor

    from elute.heads.attention import AttentionPool

SCHEMA = 1
NAME = "heads.pt"
_REMEDY = "Train the heads anew, or restore the file from a copy."
_EACH = ("bias", "penalty", "dispersion")


@dataclass(frozen=True, eq=False)
class HeadFile:
    """What a file of heads holds."""

    final: Head
    genes: tuple[str, ...]
    folds: tuple[Head, ...] = ()
    meta: dict[str, Any] = field(default_factory=dict)
    attention: AttentionPool | None = None


def save_heads(
    path: Path | str,
    final: Head,
    *,
    genes: Sequence[str],
    folds: Sequence[Head] = (),
    meta: Mapping[str, Any] | None = None,
    attention: AttentionPool | None = None,
) -> Path:
    """Write heads to a file; `meta` is whatever else JSON can hold: pooling, settings, the dictionary's digest."""
    import torch

    path = Path(path)
    if len(genes) != final.n_genes:
        raise DataError(f"{len(genes)} names for {final.n_genes} genes", where=path, remedy="Give one name a gene.")
    gates = None
    if attention is not None:
        gates = {name: getattr(attention, name) for name in ("n_features", "heads", "width")}
    told = {
        "schema_version": SCHEMA,
        "loss": final.loss,
        "model": final.model,
        "l1_ratio": final.l1_ratio,
        "genes": list(genes),
        "states": [list(head.states) for head in (final, *folds)],
        "attention": gates,
        "meta": dict(meta or {}),
    }
    content: dict[str, Any] = {"config": json.dumps(told, sort_keys=True, allow_nan=False)}
    arrays: dict[str, Any] = {"weights": final.weights, "residual": final.residual}
    arrays |= {name: value for name in _EACH if (value := getattr(final, name)) is not None}
    if folds:
        arrays["fold_weights"] = np.stack([head.weights.astype(np.float32) for head in folds])
        arrays |= {
            f"fold_{name}": np.stack([getattr(head, name) for head in folds]) for name in _EACH if name in arrays
        }
    content |= {name: torch.from_numpy(np.ascontiguousarray(value)) for name, value in arrays.items()}
    if attention is not None:
        content |= {f"attention.{name}": value.cpu().clone() for name, value in attention.state_dict().items()}

    def fill(handle: BinaryIO) -> None:
        torch.save(content, handle)

    files.write_atomically(path, fill)
    return path


def load_heads(path: Path | str) -> HeadFile:
    """Read heads from their file, or from the folder that it lies in."""
    path = Path(path)
    path = path / NAME if path.is_dir() else path
    if not path.exists():
        raise DataError("there are no heads", where=path, remedy="Train them first: elute tissue train-heads.")
    told, content = load_described(path, "gene heads", schema=SCHEMA, remedy=_REMEDY)
    try:
        return _read(told, {name: _array(value, name) for name, value in content.items()}, content)
    except (KeyError, ValueError, TypeError, AttributeError, RuntimeError, IndexError) as error:
        raise DamagedError(f"does not hold what it describes ({error})", where=path, remedy=_REMEDY) from None


def _array(value: Any, name: str) -> np.ndarray[Any, Any]:
    array: np.ndarray[Any, Any] = value.numpy()
    allowed = np.isfinite(array) | (np.isposinf(array) if name.endswith("penalty") else False)
    if not allowed.all():
        raise ValueError(f"{name} holds NaN or infinity")
    return array


def _read(told: dict[str, Any], arrays: dict[str, np.ndarray[Any, Any]], tensors: Mapping[str, Tensor]) -> HeadFile:
    genes = tuple(map(str, told["genes"]))
    if told["loss"] not in get_args(Loss) or told["model"] not in get_args(Model):
        raise ValueError(f"loss {told['loss']!r}, model {told['model']!r}")
    kept = {name: value.astype(np.float64) for name, value in arrays.items() if not name.startswith("attention.")}
    final = _head(told, {name: kept.get(name) for name in ("weights", "residual", *_EACH)}, 0, len(genes))
    folds = []
    for i in range(len(kept["fold_weights"]) if "fold_weights" in kept else 0):
        parts = {name: kept[f"fold_{name}"][i] if f"fold_{name}" in kept else None for name in ("weights", *_EACH)}
        folds.append(_head(told, {**parts, "residual": np.zeros(len(genes))}, i + 1, len(genes)))
    return HeadFile(final, genes, tuple(folds), dict(told["meta"]), _gates(told["attention"], tensors))


def _head(told: dict[str, Any], parts: dict[str, Any], place: int, n: int) -> Head:
    states = tuple(told["states"][place])
    weights = parts["weights"]
    if weights.ndim != 2 or len(weights) != n or len(states) != n or not set(states) <= set(get_args(State)):
        raise ValueError("shapes")
    for name in ("bias", "penalty", "residual", *(("dispersion",) if told["loss"] == "nb" else ())):
        if parts[name].shape != (n,):
            raise ValueError(f"shape of {name}")
    return Head(**parts, loss=told["loss"], model=told["model"], l1_ratio=float(told["l1_ratio"]), states=states)


def _gates(told: dict[str, int] | None, tensors: Mapping[str, Tensor]) -> AttentionPool | None:
    if told is None:
        return None
    from elute.heads.attention import AttentionPool

    pool = AttentionPool(told["n_features"], told["heads"], told["width"])
    state = {name.removeprefix("attention."): t for name, t in tensors.items() if name.startswith("attention.")}
    pool.load_state_dict(state)
    return pool.eval().requires_grad_(requires_grad=False)
