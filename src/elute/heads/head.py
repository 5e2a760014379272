"""A fitted head: weights and biases of genes on raw codes, and how the fit went."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike
from scipy import sparse

from elute.base.errors import DataError
from elute.heads.design import Floats
from elute.heads.links import mean_of
from elute.heads.settings import Loss, Model

State = Literal["fitted", "constant", "separated", "unsettled"]
FINE = 1e-8  # what is left of the slopes: of a head that is kept,
FOLD = 1e-6  # of those of cross-validation,
COARSE = 1e-3  # and of one that only says how good a penalty is


@dataclass(frozen=True, eq=False)
class Head:
    """Weights of G genes on K raw codes: η = offset + bias + weights · code."""

    weights: Floats  # [G, K]
    bias: Floats  # [G]
    loss: Loss
    model: Model
    penalty: Floats  # [G]
    l1_ratio: float
    dispersion: Floats | None  # [G], of negative binomial counts
    states: tuple[State, ...]  # [G]
    residual: Floats  # [G]

    @property
    def n_genes(self) -> int:
        """The genes."""
        return len(self.bias)

    @property
    def n_codes(self) -> int:
        """The codes that a row has."""
        return int(self.weights.shape[1])

    def eta(self, x: Any, offset: ArrayLike | None = None) -> Floats:
        """Return the linear predictor [n, G] of codes [n, K], with the offset [n] where one is given."""
        rows: Any = x if sparse.issparse(x) else np.asarray(x)
        if rows.ndim != 2 or rows.shape[1] != self.n_codes:
            what = f"codes of shape {[*rows.shape]} for a head of {self.n_codes} codes"
            raise DataError(what, remedy="Use the codes of the dictionary that it was fitted with.")
        eta = np.asarray(rows @ self.weights.T, dtype=np.float64) + self.bias
        return eta if offset is None else eta + np.asarray(offset, dtype=np.float64)[:, None]

    def mean(self, x: Any, offset: ArrayLike | None = None) -> Floats:
        """Return the expected target [n, G]: η for squared error, exp(η) for counts."""
        return mean_of(self.eta(x, offset), self.loss)

    def genes(self, which: ArrayLike) -> Head:
        """Return the head of some genes, by number."""
        at = np.asarray(which, dtype=np.int64).reshape(-1)
        alpha = None if self.dispersion is None else self.dispersion[at]
        return replace(
            self,
            weights=self.weights[at],
            bias=self.bias[at],
            penalty=self.penalty[at],
            dispersion=alpha,
            states=tuple(self.states[i] for i in at),
            residual=self.residual[at],
        )


def joined(heads: Sequence[Head]) -> Head:
    """Put heads of different genes into one, in the order given."""
    if len(heads) == 1:
        return heads[0]
    alphas = [head.dispersion for head in heads if head.dispersion is not None]
    return replace(
        heads[0],
        weights=np.concatenate([head.weights for head in heads]),
        bias=np.concatenate([head.bias for head in heads]),
        penalty=np.concatenate([head.penalty for head in heads]),
        dispersion=np.concatenate(alphas) if alphas else None,
        states=tuple(state for head in heads for state in head.states),
        residual=np.concatenate([head.residual for head in heads]),
    )
