"""ReLU with a penalty on strength: whatever is above zero fires, and each pays for value × decoder norm.

T. Bricken et al., "Towards monosemanticity", 2023; the norm in the penalty is from Anthropic's update of April 2024.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from elute.dictionaries.sparsity import Dense, Sparsity

if TYPE_CHECKING:
    from torch import Tensor

    from elute.dictionaries.bank import Bank


def _dense(bank: Bank, x: Tensor, _k: int) -> Dense:
    values = (x @ bank.W_enc.T + bank.b_enc).relu()
    return values, values @ bank.W_dec.norm(dim=1)


DICTIONARY = Sparsity("whatever is above zero, each paying for its strength", dense=_dense)
