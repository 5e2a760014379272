"""Elastic nets of many genes, warm-started from one penalty to the next.

    min over w, b   mean over rows of loss(y, offset + b + z w)  +  λ (ρ ‖w‖₁ + (1 − ρ) ‖w‖² / 2)          (ρ: l1_ratio)

That is scikit-learn's ElasticNet for squared error, and statsmodels' fit_regularized for counts.

Squared error: coordinate descent on zᵀz / n, made once for all genes, up to 12,288 codes. Counts, and more codes:
proximal Newton steps, whose quadratic problems are solved by coordinate descent on the columns of sparse codes.
"""

from __future__ import annotations

from functools import cached_property

import numpy as np

from elute.heads import descent, newton_descent
from elute.heads.design import Design, Floats
from elute.heads.settings import Loss

MOST_BY_GRAM = 12_288
_KINDS = {"mse": 0, "poisson": 1, "nb": 2}


class Elastic:
    """A problem of several genes: targets [n, G], centred for squared error; offset [n]."""

    def __init__(self, x: Design, y: Floats, *, offset: Floats, loss: Loss, sizes: Floats) -> None:
        """Take what scale the slopes of each gene have: `sizes` [G]."""
        self.x, self.loss, self.sizes = x, loss, sizes
        self.offset = offset
        self.y = np.ascontiguousarray(y.T)

    @cached_property
    def _gram(self) -> tuple[Floats, Floats]:
        return self.x.gram().astype(np.float64) / self.x.n, np.ascontiguousarray(self.x.back(self.y.T).T) / self.x.n

    def minimise(
        self,
        start: tuple[Floats, Floats],
        *,
        genes: np.ndarray,
        penalty: tuple[Floats, Floats],
        dispersion: Floats | None,
        tolerance: float,
    ) -> tuple[Floats, Floats, Floats]:
        """Solve for some genes from weights [g, width] on z and biases [g]: both at the minimum, and what is left.

        The penalty is that of absolute values and that of squares, [g] each.
        """
        w, level = np.ascontiguousarray(start[0]), start[1]
        w = w.copy() if w is start[0] else w
        left, sizes = np.zeros(len(genes)), self.sizes[genes]
        l1, l2 = np.ascontiguousarray(penalty[0]), np.ascontiguousarray(penalty[1])
        if self.loss == "mse" and self.x.width <= MOST_BY_GRAM:
            gram, right = self._gram
            descent.by_gram((gram, right[genes]), (l1, l2, tolerance), (w, left, sizes))
            return w, level.copy(), left
        alpha = np.zeros(len(genes)) if dispersion is None else np.ascontiguousarray(dispersion)
        middle = self.x.mean / self.x.scale  # sparse columns are not centred there
        b = (0 if self.loss == "mse" else level) - w @ middle
        columns = self.x.columns
        parts = (columns.indptr, columns.indices, columns.data)
        data = (_KINDS[self.loss], self.y[genes], self.offset, alpha)
        newton_descent.by_columns((parts, data), (l1, l2, tolerance), (w, b, left, sizes))
        b += w @ middle
        return w, b + level if self.loss == "mse" else b, left
