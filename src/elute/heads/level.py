"""What is predicted without codes: each gene's bias, and the dispersion of negative binomial counts about it."""

from __future__ import annotations

import numpy as np

from elute.heads.dispersion import dispersions
from elute.heads.links import Floats, mean_of, slopes
from elute.heads.settings import Loss

_TURNS = 30


def levels(y: Floats, offset: Floats, *, loss: Loss) -> tuple[Floats, Floats]:
    """Return the bias [G] and the dispersion [G], 0 but for nb; a gene without counts has the bias of half a count."""
    alpha = np.zeros(y.shape[1])
    if loss == "mse":
        return np.asarray(y.mean(axis=0)), alpha
    b: Floats = np.log(np.maximum(y.sum(axis=0), 0.5) / np.exp(offset).sum())
    if loss == "poisson":
        return b, alpha
    some = y.any(axis=0)
    for _ in range(_TURNS):  # with a dispersion rows have other weights, if their offsets differ
        before, alpha = alpha, dispersions(y, mean_of(offset[:, None] + b, loss), alpha)
        b = np.where(some, _bias(y, offset[:, None], b, alpha=alpha), b)
        if np.abs(alpha - before).max() < 1e-9:
            break
    return b, alpha


def _bias(y: Floats, offset: Floats, b: Floats, *, alpha: Floats) -> Floats:
    for _ in range(_TURNS):
        at = slopes(y, offset + b, loss="nb", dispersion=alpha)
        step = at.first.sum(axis=0) / np.maximum(at.second.sum(axis=0), 1e-300)
        b = b - np.clip(step, -2, 2)
        if np.abs(step).max() < 1e-10:
            break
    return b
