"""Choosing a gene's penalty by cross-validation within training patients.

1. Candidates run from strong to weak. Those given are used as they are; else ten are laid where they matter for these
   codes and this gene: for ridge from 100 times the largest curvature of the loss down by 10^(2/3) each, for the
   elastic net from the penalty that leaves no code down by 10^(1/3). They lie on a grid of powers that is the same for
   all genes and folds, so that squared error shares factorisations and folds can be compared.
2. The training patients are parted into inner folds; what is standardised is so in inner training rows alone. Each
   candidate is judged by the likelihood of the rows left out (squared error for mse), summed over all inner folds.
   A gene whose loss has risen twice in a row is not tried further.

Nothing is asked of the best candidate but that it is the best. Keeping the strongest unless another one is better by a
standard error (or two) was tried: under permuted targets held-out R² is below 0 as often as it says either way, and
where codes do predict a gene it costs a tenth to a half of R².
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from elute.base.errors import DataError
from elute.heads.design import Floats, Ints
from elute.heads.fitting import Fitter
from elute.heads.folds import group_folds
from elute.heads.head import COARSE
from elute.heads.links import surprise
from elute.heads.settings import HeadConfig

CANDIDATES = 10
_RISES = 2
Features = Callable[[Ints], Any]


def candidates(fitter: Fitter, config: HeadConfig) -> Floats:
    """Return penalties [P, G] to choose from, strongest first; a linear model has the one that is 0."""
    if config.model == "linear":
        return np.zeros((1, fitter.n_genes))
    if config.penalties is not None:
        strong_first = np.array(sorted(config.penalties, reverse=True))
        return np.repeat(strong_first[:, None], fitter.n_genes, axis=1)
    if config.model == "ridge":
        ratio, top = 10 ** (2 / 3), 100 * fitter.curvature() * fitter.x.top
    else:
        ratio, top = 10 ** (1 / 3), fitter.null_slopes() / config.l1_ratio
    first = np.ceil(np.log(np.maximum(top, 1e-12)) / np.log(ratio) - 1e-9)
    return np.asarray(ratio ** (first[None, :] - np.arange(CANDIDATES)[:, None]))


def choose(
    features: Features,
    y: Floats,
    rows: Ints,
    *,
    groups: Ints,
    config: HeadConfig,
    offset: Floats | None,
    path: Floats,
) -> Floats:
    """Return the penalty of each gene [G], of the candidates [P, G]; groups are those of the rows."""
    if len(path) == 1:
        return np.asarray(path[0])
    inner = _inner(groups, config)
    parts = [_Part(features, y, rows, inner=inner == i, config=config, offset=offset) for i in np.unique(inner)]
    losses = np.full((len(path), y.shape[1]), np.inf)
    rises, active = np.zeros(y.shape[1], dtype=np.int64), np.arange(y.shape[1])
    for p, penalty in enumerate(path):
        total = np.sum([part.loss(penalty[active], active) for part in parts], axis=0)
        rises[active] = np.where(total < losses[:, active].min(axis=0), 0, rises[active] + 1)
        losses[p, active] = total
        active = active[rises[active] < _RISES]
        if not len(active):
            break
    return np.asarray(path[losses.argmin(axis=0), np.arange(path.shape[1])])


def _inner(groups: Ints, config: HeadConfig) -> Ints:
    n = len(np.unique(groups))
    if n < 2:
        raise DataError(
            "the training samples of a fold are all of one patient or site, so no penalty can be chosen among them",
            remedy="Give one penalty (penalties: [0.1]), or samples of at least 3 patients or sites.",
        )
    return group_folds(groups, folds=min(config.inner_folds, n), seed=config.seed)


class _Part:
    """One inner fold: what is fitted on its training rows, judged on the rows left out."""

    def __init__(
        self, features: Features, y: Floats, rows: Ints, *, inner: np.ndarray, config: HeadConfig, offset: Floats | None
    ) -> None:
        train, held = rows[~inner], rows[inner]
        x = features(train)
        self.x, self.y, self.offset = x[held], y[held], None if offset is None else offset[held]
        self.loss_of = config.loss
        self.fitter = Fitter(
            x[train],
            y[train],
            loss=config.loss,
            model=config.model,
            l1_ratio=config.l1_ratio,
            offset=None if offset is None else offset[train],
            standardise=config.standardise,
            tolerance=COARSE,
        )

    def loss(self, penalty: Floats, genes: Ints) -> Floats:
        """The loss [genes] at a penalty, summed over the rows left out."""
        head = self.fitter.fit(penalty, genes)
        mean = head.mean(self.x, self.offset)
        return np.asarray(surprise(self.y[:, genes], mean, loss=self.loss_of, dispersion=head.dispersion).sum(axis=0))
