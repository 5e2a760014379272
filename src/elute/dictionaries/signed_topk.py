"""Signed TopK: the k features of a row that are strongest by magnitude fire, with their sign.

One direction and its opposite are one feature. `Codes` carry the sign; whatever ranks strength must take magnitudes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from elute.dictionaries.ops import strongest
from elute.dictionaries.sparsity import Dense, Slots, Sparsity, scattered

if TYPE_CHECKING:
    from torch import Tensor

    from elute.dictionaries.bank import Bank


def _choose(bank: Bank, x: Tensor, k: int) -> Slots:
    return strongest(x, bank.W_enc, bank.b_enc, k=k, signed=True)


def _dense(bank: Bank, x: Tensor, k: int) -> Dense:
    pre = x @ bank.W_enc.T + bank.b_enc
    return scattered(pre.abs().topk(k, dim=1).indices, pre), None


DICTIONARY = Sparsity(
    "the k strongest by magnitude, with sign", dense=_dense, choose=_choose, signed=True, exact=True, counts=True
)
