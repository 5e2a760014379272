"""Gated: one affine map decides which features fire, another, sharing its weights, how strongly.

S. Rajamanoharan et al., "Improving dictionary learning with gated sparse autoencoders", 2024.

    gate = x W_enc + b_enc;  value = H(gate) · ReLU(exp(r_mag) · x W_enc + b_mag)

The penalty pays for ReLU(gate), and for how badly ReLU(gate) alone reconstructs with the decoder held still: without
that term nothing would teach the gate which features are worth their price.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from elute.dictionaries.sparsity import Dense, Sparsity

if TYPE_CHECKING:
    from torch import Tensor

    from elute.dictionaries.bank import Bank


def _dense(bank: Bank, x: Tensor, _k: int) -> Dense:
    product = x @ bank.W_enc.T
    gate = product + bank.b_enc
    values = (gate > 0) * (product * bank.r_mag.exp() + bank.b_mag).relu()
    return values, gate.relu() @ bank.W_dec.norm(dim=1)


def _gate(bank: Bank, x: Tensor) -> Tensor:
    return (x @ bank.W_enc.T + bank.b_enc).relu()


def _shift(bank: Bank, constant: Tensor) -> None:
    """The second map sees x W_enc without b_enc, so its bias takes a constant off by itself."""
    bank.b_mag.copy_(bank.b_mag.double() - bank.r_mag.double().exp() * constant)


DICTIONARY = Sparsity(
    "a gate decides what fires, a second bias how strongly",
    dense=_dense,
    second=_gate,
    shift=_shift,
    tensors=lambda n: {"r_mag": torch.zeros(n), "b_mag": torch.zeros(n)},
)
