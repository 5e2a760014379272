"""Features that have stopped firing: begun anew at the rows that are reconstructed worst, or taught by the error.

Resampling (T. Bricken et al., 2023, in the form that recovers most here): every `every` steps, until the share `until`
of the run, each feature that has been silent for `after_rows` rows gets a row's error as its decoder direction. Rows
are drawn without replacement with a chance that grows with their squared error; the encoder row points the same way (at
the input, where what is written is not what was read) with the mean length of the rows of living features; bias and
Adam's moments are cleared.

AuxK is in losses.py: dead features reconstruct the error of each batch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor


def draw_rows(squared: Tensor, n: int, *, seed: tuple[int, ...]) -> Tensor:
    """Draw n rows without replacement, each with a chance that grows with its squared error (Gumbel's trick)."""
    import numpy as np

    noise = torch.from_numpy(np.random.default_rng(seed).gumbel(size=len(squared)))
    keys = squared.double().cpu().clamp(min=1e-300).log() + noise
    return keys.topk(min(n, len(keys))).indices
