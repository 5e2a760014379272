"""How few features fire: what a file behind the door `dictionaries` binds.

An activation is a value of `Sparsity`, not a class of dictionaries. There are two ways to a gradient, and a kind brings
the second and, where it can, the first:

    choose    by hand: which features fire, at most so many a row, each with its own pre-activation as value
    dense     by autograd: the values of all features of a batch, and a penalty a row

At inference `fire` gives the codes; where a kind does not bring its own, they are chosen as in training or, for kinds
without `choose`, taken from `dense` a piece of rows at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import torch

from elute.dictionaries import ops

if TYPE_CHECKING:
    from torch import Tensor

    from elute.dictionaries.bank import Bank

Slots = tuple["Tensor", "Tensor"]  # idx int32[n, k], val [n, k]; 0 marks an empty slot
Dense = tuple["Tensor", "Tensor | None"]  # values [n, features], and what a row is charged for them


@dataclass(frozen=True)
class Sparsity:
    """How few features fire."""

    line: str
    dense: Callable[[Bank, Tensor, int], Dense]
    choose: Callable[[Bank, Tensor, int], Slots] | None = None
    fire: Callable[[Bank, Tensor, int], Slots] | None = None
    tensors: Callable[[int], dict[str, Tensor]] = field(default=lambda _: {})  # learnt besides weights and biases
    settings: Mapping[str, float] = field(default_factory=dict)  # its own numbers, with their defaults
    signed: bool = False
    exact: bool = False  # k features a row: a penalty's weight has not to be found
    counts: bool = False  # k features a row at inference too, so that another k can be asked for
    tied: bool = False  # in training W_enc is W_dec
    second: Callable[[Bank, Tensor], Tensor] | None = None  # values that must reconstruct too, the decoder held still
    shift: Callable[[Bank, Tensor], None] | None = None  # takes a constant off x W_enc in biases of its own


def fire(sparsity: Sparsity, bank: Bank, x: Tensor, *, k: int) -> Slots:
    """Return the codes of rows, at inference."""
    chosen = sparsity.fire or sparsity.choose
    if chosen is not None:
        return chosen(bank, x, k)
    rows = max(1, (1 << 25) // len(bank.W_enc))
    with torch.no_grad():
        parts = [pack(sparsity.dense(bank, x[a : a + rows], k)[0]) for a in range(0, max(1, len(x)), rows)]
    return stack(parts)


def above(bank: Bank, x: Tensor, threshold: Tensor) -> Slots:
    """Return what is above a threshold (and above zero), any number a row."""
    parts = [
        pack(torch.where((pre > threshold) & (pre > 0), pre, 0)) for pre in ops.products(x, bank.W_enc, bank.b_enc)
    ]
    return stack(parts)


def pack(values: Tensor) -> Slots:
    """Turn dense values into slots, as many as the fullest row needs, in order of index."""
    rows, features = values.nonzero(as_tuple=True)
    counts = torch.bincount(rows, minlength=len(values))
    k = int(counts.max()) if len(values) else 0
    slot = torch.arange(len(rows), device=rows.device) - (counts.cumsum(0) - counts)[rows]
    idx = torch.zeros(len(values), k, dtype=torch.int32, device=values.device)
    val = values.new_zeros(len(values), k)
    idx[rows, slot] = features.to(torch.int32)
    val[rows, slot] = values[rows, features]
    return idx, val


def stack(parts: list[Slots]) -> Slots:
    """Put slots under one another, filled up with empty ones."""
    k = max(idx.shape[1] for idx, _ in parts)
    wide: list[Any] = [[torch.nn.functional.pad(part[i], (0, k - part[i].shape[1])) for part in parts] for i in (0, 1)]
    return torch.cat(wide[0]), torch.cat(wide[1])


def scattered(idx: Tensor, pre: Tensor) -> Tensor:
    """Keep the chosen pre-activations and set all others to zero, with a gradient to what was kept."""
    return torch.zeros_like(pre).scatter(1, idx, pre.gather(1, idx))
