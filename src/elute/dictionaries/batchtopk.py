"""BatchTopK: the k · n strongest pairs of row and feature of a batch of n rows fire, so that a row takes what it needs.

B. Bussmann et al., "BatchTopK sparse autoencoders", 2024.

1. Each row offers its 4k strongest; where a row would have had more than it offered, all offer twice as many.
2. The (k · n)-th strongest offer of the batch is the threshold (over all ranks, where the batch is spread).
3. The mean of the thresholds, an exponential one, is what fires above at inference, where a row stands alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from elute.dictionaries.ops import strongest
from elute.dictionaries.sparsity import Dense, Slots, Sparsity, above

if TYPE_CHECKING:
    from torch import Tensor

    from elute.dictionaries.bank import Bank

_OLD = 0.99  # of the running threshold, a step


def _choose(bank: Bank, x: Tensor, k: int) -> Slots:
    offered = min(4 * k, len(bank.W_enc))
    while True:
        idx, val = strongest(x, bank.W_enc, bank.b_enc, k=offered)
        least = _cut(bank, val, k)
        kept = val >= least
        full = bool((kept & (val > 0)).all(1).any()) and offered < len(bank.W_enc)
        if not bank.agree(full):
            break
        offered = min(2 * offered, len(bank.W_enc))
    kept &= val > 0
    _remember(bank, least)
    slots = int(kept.sum(1).max()) if len(kept) else 0
    order = kept.to(torch.int8).argsort(dim=1, descending=True, stable=True)[:, :slots]
    kept = kept.gather(1, order)
    return torch.where(kept, idx.gather(1, order), 0), torch.where(kept, val.gather(1, order), 0)


def _cut(bank: Bank, val: Tensor, k: int) -> Tensor:
    """The threshold: the strength of the last one that fires."""
    offers = bank.gathered(val.reshape(-1))
    rows = len(offers) // val.shape[1]
    return offers.kthvalue(max(1, len(offers) - k * rows + 1)).values


def _remember(bank: Bank, least: Tensor) -> None:
    if bank.training:
        with torch.no_grad():
            first = bank.threshold < 0
            bank.threshold.copy_(torch.where(first, least, bank.threshold * _OLD + (1 - _OLD) * least))


def _dense(bank: Bank, x: Tensor, k: int) -> Dense:
    pre = (x @ bank.W_enc.T + bank.b_enc).relu()
    least = pre.detach().reshape(-1).topk(k * len(x)).values[-1]
    _remember(bank, least)
    return pre * (pre >= least), None


def _fire(bank: Bank, x: Tensor, _k: int) -> Slots:
    return above(bank, x, bank.threshold)


DICTIONARY = Sparsity(
    "k a row on average, the strongest of each batch",
    dense=_dense,
    choose=_choose,
    fire=_fire,
    tensors=lambda _: {"threshold": torch.full((1,), -1.0)},
    exact=True,
)
