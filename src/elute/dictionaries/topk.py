"""TopK: the k strongest features of a row fire, those above zero.

A. Makhzani, B. Frey, "k-Sparse Autoencoders", 2013; L. Gao et al., "Scaling and evaluating sparse autoencoders", 2024.
The rectifier comes before the choice: a negative pre-activation never fires, also where fewer than k are positive.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from elute.dictionaries.ops import strongest
from elute.dictionaries.sparsity import Dense, Slots, Sparsity, scattered

if TYPE_CHECKING:
    from torch import Tensor

    from elute.dictionaries.bank import Bank


def _choose(bank: Bank, x: Tensor, k: int) -> Slots:
    return strongest(x, bank.W_enc, bank.b_enc, k=k)


def _dense(bank: Bank, x: Tensor, k: int) -> Dense:
    pre = (x @ bank.W_enc.T + bank.b_enc).relu()
    return scattered(pre.topk(k, dim=1).indices, pre), None


DICTIONARY = Sparsity("the k strongest of each row", dense=_dense, choose=_choose, exact=True, counts=True)
