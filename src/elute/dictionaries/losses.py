"""The loss of one batch and its gradient, left in the parameters' `.grad`.

    loss = weight · ( Σ ‖ŷ − y‖²  +  price · Σ penalty  +  1/32 · Σ ‖ê − (y − ŷ)‖² )

summed over rows, so that parts of a batch, and ranks, add up. ê is what dead features make of the error (AuxK, L. Gao
et al., 2024). With nested prefixes the first term is its mean over the prefixes, each reconstructing by itself. An
activation with second values (gated) adds what they leave over, the decoder held still, at no price.

`by_hand` never holds rows × features: choose, decode, then gradients for what fired. Where rows take part in several
reconstructions (nested prefixes), the features of one part see the sum of the errors that they had a share in.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from elute.dictionaries import ops
from elute.dictionaries.sparsity import Slots, pack

if TYPE_CHECKING:
    from torch import Tensor

    from elute.dictionaries.bank import Bank, Ranks
    from elute.dictionaries.dictionary import Dictionary

AUX_SHARE = 1 / 32


@dataclass
class Told:
    """What a batch gave: sums over its rows, its codes, and its error ŷ − y."""

    squared: Tensor
    slots: list[Slots]
    error: Tensor
    penalty: float = 0.0  # what was charged, and what an activation's second values leave over
    loss: float = 0.0  # the first term with its nested parts
    terms: float = 0.0  # what terms beside these charged (terms.py)


@torch.no_grad()
def by_hand(dictionary: Dictionary, x: Tensor, y: Tensor, *, k: int, weight: float) -> Told:
    """Leave the gradients of activations that are linear on the features they choose."""
    xs = [x[:, bank.span.read].contiguous() for bank in dictionary]
    slots = [_chosen(dictionary, bank, part, k) for bank, part in zip(dictionary, xs, strict=True)]
    base = dictionary.b_dec.detach()[None]
    if dictionary.W_skip is not None:
        base = base + x @ dictionary.W_skip.detach().T
    errors = _nested(dictionary, slots, base, y) if dictionary.spec.nested else _plain(dictionary, slots, base, y)
    squared = torch.stack([_squared(error) for error, _ in errors])
    scale = 2 * weight / len(errors)
    seen = torch.zeros_like(y)  # from the last prefix on, the sum of the errors that a part's features share in
    for part in range(len(errors) - 1, -1, -1):
        error, dots = errors[part]
        seen = error if len(errors) == 1 else seen.add_(error)
        for number, bank in enumerate(dictionary):
            idx, val = _part(dictionary, slots[number], part)
            g = _columns(seen, bank)
            slope = dots[number] if dots else ops.of(x).slopes(idx, val, bank.W_dec.detach(), g=g)
            ops.of(x).gather(idx, val, slope, g=g, x=xs[number], scale=scale, into=_buffers(bank))
    _shared(dictionary, x, seen, scale)
    return Told(squared[-1], slots, errors[-1][0], loss=weight * float(squared.mean()))


def by_autograd(
    dictionary: Dictionary, x: Tensor, y: Tensor, *, k: int, weight: float, price: float = 0.0,
    terms: Callable[[list[Tensor], Tensor], Tensor] | None = None,
) -> Told:  # fmt: skip
    """Leave the gradients of any activation; holds the values of all features for the batch.

    `terms` say what codes and reconstruction cost besides.
    """
    with torch.enable_grad():
        base = dictionary.b_dec if dictionary.W_skip is None else dictionary.b_dec + x @ dictionary.W_skip.T
        dense = [dictionary.sparsity.dense(bank, x[:, bank.span.read], k) for bank in dictionary]
        values = [value for value, _ in dense]
        ends = dictionary.spec.nested or (dictionary.spec.n_features,)
        errors = [_decoded(dictionary, values, base, end) - y for end in ends]
        loss = torch.stack([error.square().sum() for error in errors]).mean()
        penalty = price * sum((p.sum() for _, p in dense if p is not None), x.new_zeros(()))
        if dictionary.sparsity.second is not None:
            penalty = penalty + _second(dictionary, x, y)
        total = weight * (loss + penalty)
        more = total.new_zeros(()) if terms is None else terms(values, errors[-1] + y)
        total = total + more
        if total.requires_grad:  # a control may hold all still that there is to learn
            total.backward()  # type: ignore[no-untyped-call]
    error = errors[-1].detach()
    slots = [pack(value.detach()) for value in values]
    squared = _squared(error)
    charged = weight * float(penalty.detach())
    told = Told(squared, slots, error, penalty=charged, loss=weight * float(loss.detach()))
    told.terms = float(more.detach())
    return told


@torch.no_grad()
def auxiliary(
    bank: Bank, x: Tensor, error: Tensor, *, dead: Tensor, k: int, weight: float, shards: Ranks | None = None
) -> float:
    """Let dead features (of all shards) reconstruct the error; leaves their gradients and returns the loss."""
    none, dead = len(dead) == 0, dead if len(dead) else dead.new_zeros(1)  # a stand-in that never fires
    W_enc, W_dec, b_enc = bank.W_enc.detach()[dead], bank.W_dec.detach()[dead], bank.b_enc.detach()[dead]
    idx, val = ops.strongest(x, W_enc, b_enc, k=min(k, len(dead)))
    # Error is ŷ − y, so what is left over by the dead features' own reconstruction is error + decoded.
    if shards is None:
        left, slope = ops.of(x).residual(idx, val, W_dec, base=error, y=torch.zeros_like(error))
    else:
        slots = min(k, int(shards.most(torch.tensor([len(dead)]))[0]))
        idx, val = (torch.nn.functional.pad(part, (0, slots - part.shape[1])) for part in (idx, val))
        val = _of_all(shards, torch.zeros_like(val) if none else val, k)
        decoded = torch.zeros_like(error)
        ops.of(x).decode(idx, val, W_dec, into=decoded)
        left = error + shards.total(decoded)
        slope = ops.of(x).slopes(idx, val, W_dec, g=left)
    into = torch.zeros_like(W_dec), torch.zeros_like(W_enc), torch.zeros_like(b_enc)
    ops.of(x).gather(idx, val, slope, g=left, x=x, scale=2 * weight * AUX_SHARE, into=into)
    for target, grad in zip(_buffers(bank), into, strict=True):
        target.index_add_(0, dead, grad)
    return weight * AUX_SHARE * float(_squared(left))


def _chosen(dictionary: Dictionary, bank: Bank, x: Tensor, k: int) -> Slots:
    """Choose features; with features spread over ranks, keep what is among the k strongest of all ranks."""
    if dictionary.sparsity.choose is None:
        raise TypeError("this activation has no gradient by hand")
    idx, val = dictionary.sparsity.choose(bank, x, k)
    if dictionary.shards is None:
        return idx, val
    return idx, _of_all(dictionary.shards, val, k)


def _of_all(shards: Ranks, val: Tensor, k: int) -> Tensor:
    """Keep the values that are among the k strongest of all ranks; each brings as many."""
    strength = shards.beside(val.abs())
    chosen = strength.topk(min(k, strength.shape[1]), dim=1).indices
    best = torch.zeros_like(strength, dtype=torch.bool).scatter_(1, chosen, value=True)
    first = shards.rank * val.shape[1]
    return val * best[:, first : first + val.shape[1]]


def _plain(dictionary: Dictionary, slots: list[Slots], base: Tensor, y: Tensor) -> list[Any]:
    """One reconstruction from all features: its error, and slopes where one pass over the codes gave both."""
    if len(dictionary.banks) == 1 and dictionary.shards is None:
        bank = next(iter(dictionary))
        error, dots = ops.of(y).residual(*slots[0], bank.W_dec.detach(), base=base, y=y)
        return [(error, [dots])]
    return [(_sum_of(dictionary, slots, torch.zeros_like(y)) + base - y, None)]


def _nested(dictionary: Dictionary, slots: list[Slots], base: Tensor, y: Tensor) -> list[Any]:
    """One reconstruction a prefix, each going on from the one before."""
    so_far = base - y
    errors: list[Any] = []
    for part in range(len(dictionary.spec.nested)):
        so_far = so_far + _sum_of(dictionary, [_part(dictionary, s, part) for s in slots], torch.zeros_like(y))
        errors.append((so_far, None))
    return errors


def _sum_of(dictionary: Dictionary, slots: list[Slots], into: Tensor) -> Tensor:
    """Add what all banks decode, over all ranks where features are spread."""
    for bank, (idx, val) in zip(dictionary, slots, strict=True):
        part = _columns(into, bank)
        ops.of(into).decode(idx, val, bank.W_dec.detach(), into=part)
        if part.shape != into.shape:
            into[:, bank.span.write] = part
    return into if dictionary.shards is None else dictionary.shards.total(into)


def _part(dictionary: Dictionary, slots: Slots, part: int) -> Slots:
    """Keep the slots of features between two prefixes."""
    if not dictionary.spec.nested:
        return slots
    idx, val = slots
    first, last = list(itertools.pairwise((0, *dictionary.spec.nested)))[part]
    return idx, val * ((idx >= first) & (idx < last))


def _columns(y: Tensor, bank: Bank) -> Tensor:
    """The columns that a bank writes."""
    return y if bank.W_dec.shape[1] == y.shape[1] else y[:, bank.span.write].contiguous()


def _buffers(bank: Bank) -> tuple[Tensor, Tensor, Tensor]:
    """Where the gradients go; nowhere for what a control holds still."""
    made = [p.grad if p.grad is not None else torch.zeros_like(p) for p in (bank.W_dec, bank.W_enc, bank.b_enc)]
    return made[0], made[1], made[2]


def _shared(dictionary: Dictionary, x: Tensor, seen: Tensor, scale: float) -> None:
    if dictionary.b_dec.grad is not None:
        dictionary.b_dec.grad.add_(seen.sum(0), alpha=scale)
    if dictionary.W_skip is not None and dictionary.W_skip.grad is not None:
        dictionary.W_skip.grad.addmm_(seen.T, x, alpha=scale)


def _decoded(dictionary: Dictionary, values: list[Tensor], base: Tensor, end: int) -> Tensor:
    width = dictionary.spec.width_out
    y = base
    for bank, value in zip(dictionary, values, strict=True):
        part = value[:, :end] @ bank.W_dec[:end]
        y = y + torch.nn.functional.pad(part, (width - part.shape[1], 0))
    return y


def _squared(x: Tensor) -> Tensor:
    length: Tensor = torch.linalg.vector_norm(x)
    return length.double().square()


def _second(dictionary: Dictionary, x: Tensor, y: Tensor) -> Tensor:
    """What the activation's second values leave over, the decoder held still."""
    second: Any = dictionary.sparsity.second
    left = dictionary.b_dec.detach() - y
    if dictionary.W_skip is not None:
        left = left + x @ dictionary.W_skip.detach().T
    for bank in dictionary:
        part = second(bank, x[:, bank.span.read]) @ bank.W_dec.detach()
        left = left + torch.nn.functional.pad(part, (left.shape[1] - part.shape[1], 0))
    return left.square().sum()
