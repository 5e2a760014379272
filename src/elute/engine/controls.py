"""What the same training gives where there is nothing to find, or nothing is learnt.

    frozen-decoder    directions stay as they were drawn; only encoder and biases learn
    random-decoder    directions and encoder stay as they were drawn; only biases learn
    shuffled-rows     each column of a batch is put in another random order: columns keep their distribution and lose
                      what they have to do with one another; where other sites are written, the rows that are read
                      are shuffled as a whole: they keep what they are and lose what they have to do with those written

Dead features are left alone in the first two: beginning one anew at a badly reconstructed row would teach it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

    from elute.dictionaries.dictionary import Dictionary
    from elute.engine.settings import Control


def hold_still(dictionary: Dictionary, control: Control) -> bool:
    """Keep what a control does not learn from learning; returns whether directions are held."""
    held = control in ("random-decoder", "frozen-decoder")
    for bank in dictionary:
        bank.W_dec.requires_grad_(not held)
        bank.W_enc.requires_grad_(control != "random-decoder" and not dictionary.sparsity.tied)
        bank.b_enc.requires_grad_(not dictionary.sparsity.tied)
    if dictionary.sparsity.tied:
        # Whatever is left over starts as the row itself: a bias that decoding adds would have to be taken off first.
        dictionary.b_dec.requires_grad_(False)
    return held


def shuffled_columns(x: Tensor, *, seed: tuple[int, ...]) -> Tensor:
    """Put each column in an order of its own."""
    import numpy as np

    keys = torch.from_numpy(np.random.default_rng(seed).random(x.shape, np.float32)).to(x.device)
    return x.gather(0, keys.argsort(dim=0))


def shuffled_rows(x: Tensor, *, seed: tuple[int, ...]) -> Tensor:
    """Put the rows in another order."""
    import numpy as np

    return x[torch.from_numpy(np.random.default_rng(seed).permutation(len(x))).to(x.device)]
