"""Fitting one set of rows at one penalty after another: what cross-validation and `fit_head` have in common.

What depends on the codes alone (means, spreads, Gram matrix, eigenvectors) is made once, and each fit of a gene starts
where its last one ended. Negative binomial counts alternate between coefficients and dispersion, which raise one
penalised likelihood both, until neither moves.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any, get_args

import numpy as np
from numpy.typing import ArrayLike

from elute.base.errors import ConfigError, near
from elute.base.statistics.checks import Bools
from elute.heads.design import Floats, Ints, design
from elute.heads.dispersion import dispersions
from elute.heads.elastic import Elastic
from elute.heads.head import COARSE, FINE, Head, State
from elute.heads.level import levels
from elute.heads.links import Slopes, mean_of, slopes
from elute.heads.ridge import Ridge
from elute.heads.settings import Loss, Model
from elute.heads.smooth import BARELY, Smooth, Spectrum, spectrum
from elute.heads.targets import as_offset, as_targets

_APART = 10.0  # where codes lower η by this, counts are 20,000 times rarer than without them
_TURNS = 30
_LOSSES, _MODELS = get_args(Loss), get_args(Model)
_Solver = Callable[[Ints, Floats, tuple[Floats, Floats], "Floats | None"], tuple[Floats, Floats, Floats]]


class Fitter:
    """Codes, targets and offset of some rows, ready to be fitted at any penalty."""

    def __init__(
        self,
        x: Any,
        y: ArrayLike,
        *,
        loss: Loss,
        model: Model,
        l1_ratio: float = 0.5,
        offset: ArrayLike | None = None,
        standardise: bool = True,
        tolerance: float = FINE,
    ) -> None:
        """Take checked codes (`design.as_matrix`); targets and offset are checked here."""
        for name, value, known in (("loss", loss, _LOSSES), ("model", model, _MODELS)):
            if value not in known:
                raise ConfigError(f"{name} {value!r} is not known", remedy=near(str(value), known))
        if not 0 < l1_ratio <= 1:
            raise ConfigError(f"l1_ratio is {l1_ratio:g}", remedy="Give more than 0 and at most 1; 0 is model ridge.")
        self.loss, self.model, self.l1_ratio, self.tolerance = loss, model, l1_ratio, tolerance
        self.y = as_targets(y, x.shape[0], loss=loss)
        self.offset = as_offset(offset, x.shape[0], loss=loss)
        self.x = design(
            x,
            standardise=standardise,
            sparsely=model == "elastic_net" and loss != "mse",
            rough=tolerance >= COARSE and model != "linear",
        )
        self.flat: Bools = np.asarray(np.ptp(self.y, axis=0) == 0 if loss == "mse" else ~self.y.any(axis=0))
        self.level, self.null_alpha = levels(self.y, self.offset, loss=loss)
        self._w, self._b = np.zeros((self.y.shape[1], self.x.width)), self.level.copy()
        self._alpha = self.null_alpha.copy()

    @property
    def n_genes(self) -> int:
        """The genes."""
        return int(self.y.shape[1])

    @cached_property
    def sizes(self) -> Floats:
        """The largest slope that a gene can have: its spread times that of a code."""
        return np.asarray(np.maximum(self.y.std(axis=0), 1e-12) * max(self.x.reach, 1e-300))

    @cached_property
    def _centred(self) -> Floats:
        return np.asarray(self.y - self.level)

    @cached_property
    def _ridge(self) -> Ridge:
        return Ridge(self.x, self._centred)

    @cached_property
    def _spectrum(self) -> Spectrum:
        return spectrum(self.x)

    @cached_property
    def _elastic(self) -> Elastic:
        y = self._centred if self.loss == "mse" else self.y
        return Elastic(self.x, y, offset=self.offset, loss=self.loss, sizes=self.sizes)

    @cached_property
    def _at_level(self) -> Slopes:
        alpha = self.null_alpha if self.loss == "nb" else None
        return slopes(self.y, self.offset[:, None] + self.level, loss=self.loss, dispersion=alpha)

    def null_slopes(self) -> Floats:
        """The largest slope of each gene without codes [G]: from this λ ρ on an elastic net has no weights."""
        return np.asarray(np.abs(self.x.back(self._at_level.first)).max(axis=0, initial=0) / self.x.n)

    def curvature(self) -> Floats:
        """The mean second derivative of each gene's loss without codes [G]."""
        return np.asarray(np.maximum(self._at_level.second.mean(axis=0), 1e-300))

    def null(self) -> Head:
        """The head without codes, which predicts every sample alike but for its offset."""
        return self.fit(np.full(self.n_genes, np.inf))

    def fit(self, penalty: float | ArrayLike, genes: Ints | None = None) -> Head:
        """Fit all genes, or those that are named, at one penalty or one a gene; ∞ gives the bias alone."""
        at = np.arange(self.n_genes) if genes is None else np.asarray(genes, dtype=np.int64)
        lam = self._penalty(penalty, len(at))
        todo = ~self.flat[at] & ~np.isinf(lam) & (self.x.width > 0)
        w, b = np.zeros((len(at), self.x.width)), self.level[at].copy()
        alpha, left = self.null_alpha[at].copy(), np.zeros(len(at))
        if todo.any():
            w[todo], b[todo], alpha[todo], left[todo] = self._solve(at[todo], lam[todo])
            self._w[at[todo]], self._b[at[todo]], self._alpha[at[todo]] = w[todo], b[todo], alpha[todo]
        weights, shift = self.x.unfold(w.T)
        return Head(
            weights=weights,
            bias=b + shift,
            loss=self.loss,
            model=self.model,
            penalty=lam,
            l1_ratio=self.l1_ratio,
            dispersion=alpha if self.loss == "nb" else None,
            states=self._states(at, lam=lam, w=w, b=b, left=left),
            residual=left,
        )

    def _penalty(self, penalty: float | ArrayLike, n: int) -> Floats:
        lam = np.asarray(penalty, dtype=np.float64)
        if lam.ndim > 1 or (lam.ndim == 1 and len(lam) != n):
            raise ConfigError(f"penalties of shape {[*lam.shape]} for {n} genes", remedy="Give one, or one a gene.")
        if np.isnan(lam).any() or (lam < 0).any():
            raise ConfigError("a penalty is negative or NaN", remedy="Give 0 or more.")
        lam = np.broadcast_to(lam, (n,)).copy()
        if self.model == "linear" and (np.isfinite(lam) & (lam > 0)).any():
            raise ConfigError("the linear model has no penalty", remedy="Choose ridge or elastic_net.")
        return lam

    def _solve(self, genes: Ints, lam: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Fit genes that have something to fit: weights [g, width] on z; bias, dispersion and rest, [g] each."""
        w, b = np.zeros((len(genes), self.x.width)), np.zeros(len(genes))
        alpha, left = np.zeros(len(genes)), np.zeros(len(genes))
        rough = (lam > 0) & (self.model == "elastic_net")
        for solver, of in ((self._sparse, rough), (self._smooth, ~rough)):
            if of.any():
                w[of], b[of], alpha[of], left[of] = self._in_turns(solver, genes[of], lam[of])
        return w, b, alpha, left

    def _in_turns(self, solver: _Solver, genes: Ints, lam: Floats) -> tuple[Floats, Floats, Floats, Floats]:
        """Find coefficients, and for negative binomial counts the dispersion in turns with them."""
        w, b, alpha = self._w[genes], self._b[genes], self._alpha[genes]
        if self.loss != "nb":
            w, b, left = solver(genes, lam, (w, b), None)
            return w, b, alpha, left
        left, todo = np.zeros(len(genes)), np.arange(len(genes))
        still = max(self.tolerance * 100, 1e-6)
        for _ in range(_TURNS):
            w[todo], b[todo], left[todo] = solver(genes[todo], lam[todo], (w[todo], b[todo]), alpha[todo])
            mean = mean_of(self.offset[:, None] + b[todo] + self.x.times(w[todo].T), self.loss)
            fresh = dispersions(self.y[:, genes[todo]], mean, alpha[todo])
            moved = np.abs(fresh - alpha[todo]) > still * (fresh + 1e-3)
            alpha[todo] = fresh
            todo = todo[moved]
            if not len(todo):
                break
        return w, b, alpha, left

    def _sparse(
        self, genes: Ints, lam: Floats, start: tuple[Floats, Floats], alpha: Floats | None
    ) -> tuple[Floats, Floats, Floats]:
        penalty = (lam * self.l1_ratio, lam * (1 - self.l1_ratio))
        return self._elastic.minimise(start, genes=genes, penalty=penalty, dispersion=alpha, tolerance=self.tolerance)

    def _smooth(
        self, genes: Ints, lam: Floats, start: tuple[Floats, Floats], alpha: Floats | None
    ) -> tuple[Floats, Floats, Floats]:
        if self.loss == "mse":
            return self._ridge.solve(lam, genes).T, self.level[genes], np.zeros(len(genes))
        bound = BARELY * self.curvature()[genes] * self.x.reach**2
        problem = Smooth(
            self.x, self.y[:, genes], self.offset[:, None], self.loss, self._spectrum, tolerance=self.tolerance
        )
        w, b, left = problem.minimise(start[0].T, start[1], penalty=np.maximum(lam, bound), dispersion=alpha)
        return w.T, b, left

    def _states(self, genes: Ints, *, lam: Floats, w: Floats, b: Floats, left: Floats) -> tuple[State, ...]:
        """Say of each gene how it went."""
        apart = np.zeros(len(genes), dtype=bool)
        if self.loss != "mse" and (free := np.flatnonzero(lam == 0)).size:
            lower = self.x.times(w[free].T) + b[free] - self.level[genes[free]] < -_APART
            apart[free] = (lower & (self.y[:, genes[free]] == 0)).any(axis=0)
        unsettled = left > 100 * self.tolerance
        return tuple(
            "constant" if flat else "separated" if wide else "unsettled" if far else "fitted"
            for flat, wide, far in zip(self.flat[genes], apart, unsettled, strict=True)
        )
