"""Matching pursuit: features are taken one at a time, each from what the ones before left over.

S. Mallat, Z. Zhang, "Matching pursuits with time-frequency dictionaries", 1993; V. Costa et al., "From flat to
hierarchical: extracting sparse representations with matching pursuit", 2025.

    scores = (x − Σ value · W_dec) W_enc + b_enc;  the strongest above zero fires with its score; k times

A feature that is taken again adds to its value. In training W_enc is W_dec (`tied`); files keep both, because a
normalisation that is folded into the weights scales them in opposite ways.

As `encode(…, encoder="pursuit")` the same procedure reads codes out of any dictionary that writes what it reads: where
features are correlated one shot at their strengths cannot tell them apart, and the leftovers can.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from elute.dictionaries.ops import products
from elute.dictionaries.sparsity import Dense, Slots, Sparsity

if TYPE_CHECKING:
    from torch import Tensor

    from elute.dictionaries.bank import Bank


def pursue(bank: Bank, x: Tensor, k: int) -> Slots:
    """Return the codes of rows by matching pursuit."""
    rest = x.clone()
    idx = torch.zeros(len(x), k, dtype=torch.int32, device=x.device)
    val = x.new_zeros(len(x), k)
    for step in range(k):
        best = [pre.max(dim=1) for pre in products(rest, bank.W_enc, bank.b_enc)]
        value = torch.cat([b.values for b in best]).clamp(min=0)
        feature = torch.cat([b.indices for b in best])
        rest -= value[:, None] * bank.W_dec[feature]
        again = (idx[:, :step] == feature[:, None]) & (val[:, :step] > 0)
        val[:, :step] += again * value[:, None]
        fresh = (value > 0) & ~again.any(1)
        idx[:, step], val[:, step] = torch.where(fresh, feature, 0).to(torch.int32), value * fresh
        if not bool((value > 0).any()):
            break
    return idx, val


def _dense(bank: Bank, x: Tensor, k: int) -> Dense:
    """Take the same features, with a gradient through every value and what it left over."""
    W = bank.W_dec
    values = x.new_zeros(len(x), len(W))
    rest = x
    for _ in range(k):
        with torch.no_grad():
            feature = torch.cat([pre.argmax(dim=1) for pre in products(rest, W, W.new_zeros(len(W)))])
        atom = W[feature]
        value = (rest * atom).sum(1).relu()
        rest = rest - value[:, None] * atom
        values = values.scatter_add(1, feature[:, None], value[:, None])
    return values, None


DICTIONARY = Sparsity(
    "one at a time, each from what the ones before left over",
    dense=_dense,
    fire=pursue,
    exact=True,
    counts=True,
    tied=True,
)
