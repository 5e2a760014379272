"""Nested cross-validation by patient: every prediction is of a patient that nothing was fitted on.

1. `group_folds` deals patients (or sites) into folds, rows of each label evenly.
2. Fold by fold the penalty of each gene is chosen within the training patients (penalties.py), the head is fitted to
   all of them and predicts the patients left out. Means and spreads of codes are those of training rows.
3. The final head is fitted to all rows with the median of the folds' penalties (of an even number the upper one).
4. How stable a coefficient is: the share of folds in which it has the final head's sign, its mean over the folds, and
   the delete-a-fold jackknife's standard error, √((F − 1) / F · Σ (w_f − w̄)²).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from elute.base.errors import ConfigError
from elute.base.statistics.checks import group_codes
from elute.heads.design import Floats, Ints, as_matrix
from elute.heads.fitting import Fitter
from elute.heads.folds import check_folds, group_folds
from elute.heads.head import FOLD, Head, joined
from elute.heads.links import mean_of
from elute.heads.penalties import candidates, choose
from elute.heads.predicted import Predictions, predictions
from elute.heads.settings import HeadConfig
from elute.heads.targets import as_offset, as_targets

if TYPE_CHECKING:
    import polars as pl

__all__ = ["Nested", "Prepare", "Stability", "coefficient_table", "group_folds", "nested"]

Prepare = Callable[[Ints], Any]
"""Training rows in, features [n, K] of all rows out: fitted on the training rows alone."""


@dataclass(frozen=True, eq=False)
class Stability:
    """How each coefficient [G, K] fares over the folds."""

    share: Floats  # of the folds, those in which it has the final head's sign
    mean: Floats
    error: Floats  # the jackknife's standard error


@dataclass(frozen=True, eq=False)
class Nested:
    """What nested cross-validation gave."""

    predictions: Predictions
    folds: Ints  # [n]
    heads: tuple[Head, ...]  # one a fold
    penalties: Floats  # [F, G], chosen within each fold's training patients
    final: Head
    spread: Floats  # [K], the standard deviation of each code over all rows
    stability: Stability


def nested(
    x: Any,
    y: ArrayLike,
    folds: ArrayLike,
    *,
    groups: Iterable[Any],
    config: HeadConfig,
    offset: ArrayLike | None = None,
    prepare: Prepare | None = None,
    progress: Callable[[int, int], object] | None = None,
) -> Nested:
    """Predict each fold from the others, choosing penalties within them, and fit a final head to all rows.

    x are codes [n, K], csr_array or ndarray; or None with `prepare`, which gives features of all rows that were fitted
    on the rows it is told (an attention pooling, principal components). y are targets [n, G]: for mse on the scale that
    is shown (log1p of counts per million), else counts, with `offset` [n] the log of the library size. `folds` [n] are
    those of `group_folds`. `progress` is called with the folds done and their number, the final fit counting as one.
    """
    features = _features(x, prepare)
    of = np.asarray(folds)
    targets = as_targets(y, len(of), loss=config.loss)
    off = None if offset is None else as_offset(offset, len(of), loss=config.loss)
    parts = check_folds(of, groups)
    problem = _Problem(features, targets, off, group_codes(groups, "nested(groups)")[1], config)
    out, heads, chosen = _Out.like(targets), [], []
    for done, fold in enumerate(parts):
        made = [_Fit(problem, np.flatnonzero(of != fold), genes) for genes in problem.blocks]
        heads.append(joined([fit.head for fit in made]))
        chosen.append(np.concatenate([fit.penalty for fit in made]))
        out.put(np.flatnonzero(of == fold), heads[-1], made, problem=problem)
        if progress is not None:
            progress(done + 1, len(parts) + 1)
    penalties = np.array(chosen)
    middle = np.sort(penalties, axis=0)[len(parts) // 2]
    every = np.arange(len(of))
    final = joined([problem.fitter(every, genes).fit(middle[genes]) for genes in problem.blocks])
    if progress is not None:
        progress(len(parts) + 1, len(parts) + 1)
    found = out.done(problem, of.astype(np.int64))
    spread = _spread(features(every))
    return Nested(found, found.folds, tuple(heads), penalties, final, spread, _stability(heads, final))


@dataclass(frozen=True, eq=False)
class _Problem:
    """What is predicted from what."""

    features: Prepare
    y: Floats
    offset: Floats | None
    groups: Ints
    config: HeadConfig

    @property
    def blocks(self) -> list[Ints]:
        """The genes that are fitted together."""
        every = np.arange(self.y.shape[1])
        return [every] if self.config.multi_output else list(every[:, None])

    def fitter(self, rows: Ints, genes: Ints) -> Fitter:
        return Fitter(
            self.features(rows)[rows],
            self.y[rows][:, genes],
            loss=self.config.loss,
            model=self.config.model,
            l1_ratio=self.config.l1_ratio,
            offset=None if self.offset is None else self.offset[rows],
            standardise=self.config.standardise,
            tolerance=FOLD,
        )


class _Fit:
    """A fold's head of some genes, with the penalty that was chosen for each."""

    def __init__(self, problem: _Problem, train: Ints, genes: Ints) -> None:
        fitter = problem.fitter(train, genes)
        self.x = problem.features(train)
        path = candidates(fitter, problem.config)
        self.penalty = choose(
            problem.features,
            problem.y[:, genes],
            train,
            groups=problem.groups[train],
            config=problem.config,
            offset=problem.offset,
            path=path,
        )
        self.head = fitter.fit(self.penalty)
        self.level, self.null_alpha = fitter.level, fitter.null_alpha


@dataclass(frozen=True, eq=False)
class _Out:
    """Predictions as they come in, fold by fold, [n, G] each."""

    mean: Floats
    null: Floats
    alpha: Floats
    null_alpha: Floats

    @staticmethod
    def like(y: Floats) -> _Out:
        return _Out(*(np.zeros_like(y) for _ in range(4)))

    def put(self, test: Ints, head: Head, made: list[_Fit], *, problem: _Problem) -> None:
        offset = None if problem.offset is None else problem.offset[test]
        self.mean[test] = head.mean(made[0].x[test], offset)
        level = np.concatenate([fit.level for fit in made])
        self.null[test] = mean_of(level + (0.0 if offset is None else offset[:, None]), head.loss)
        self.alpha[test] = 0.0 if head.dispersion is None else head.dispersion
        self.null_alpha[test] = np.concatenate([fit.null_alpha for fit in made])

    def done(self, problem: _Problem, folds: Ints) -> Predictions:
        nb = problem.config.loss == "nb"
        return predictions(
            problem.config.loss,
            problem.y,
            folds,
            mean=self.mean,
            null_mean=self.null,
            offset=problem.offset,
            dispersion=self.alpha if nb else None,
            null_dispersion=self.null_alpha if nb else None,
        )


def _features(x: Any, prepare: Prepare | None) -> Prepare:
    """Return what gives checked features for some training rows; the last answer is kept."""
    if (x is None) == (prepare is None):
        raise ConfigError("nested takes codes x, or x=None and what prepares them", remedy="Give one of both.")
    if prepare is None:
        matrix = as_matrix(x)
        return lambda _: matrix
    held: list[tuple[Ints, Any]] = []

    def made(rows: Ints) -> Any:
        if not held or not np.array_equal(held[0][0], rows):
            held[:] = [(rows, as_matrix(prepare(rows), "prepared features"))]
        return held[0][1]

    return made


def _spread(x: Any) -> Floats:
    if isinstance(x, np.ndarray):
        return np.asarray(x.std(axis=0))
    mean = np.asarray(x.mean(axis=0)).ravel()
    square = np.asarray(x.multiply(x).mean(axis=0)).ravel()
    return np.asarray(np.sqrt(np.maximum(square - mean * mean, 0)))


def _stability(heads: list[Head], final: Head) -> Stability:
    n = len(heads)
    mean, same = np.zeros_like(final.weights), np.zeros_like(final.weights)
    sign = np.sign(final.weights)
    for head in heads:
        mean += head.weights / n
        same += (np.sign(head.weights) == sign) & (sign != 0)
    away = np.zeros_like(mean)
    for head in heads:
        away += np.square(head.weights - mean)
    return Stability(same / n, mean, np.sqrt((n - 1) / n * away))


def coefficient_table(found: Nested, genes: Iterable[str], *, top: int = 50) -> pl.DataFrame:
    """Return each gene's strongest positive and negative codes, by |coefficient| × spread of the code.

    Columns: gene, code, coefficient, low, high (95%, by the jackknife), stability, rank (from 1 within a sign), sign.
    Codes without a weight are not listed.
    """
    import polars as pl

    n = len(found.heads)
    t = float(special.stdtrit(n - 1, 0.975))
    rows: list[tuple[object, ...]] = []
    for g, gene in enumerate(genes):
        weights = found.final.weights[g]
        effect = weights * found.spread
        for sign, name in ((1, "+"), (-1, "-")):
            order = np.argsort(-sign * effect, kind="stable")[:top]
            for rank, code in enumerate(order[sign * effect[order] > 0].tolist(), start=1):
                half = t * found.stability.error[g, code]
                told = (weights[code], weights[code] - half, weights[code] + half, found.stability.share[g, code])
                rows.append((gene, code, *map(float, told), rank, name))
    kinds = {"gene": pl.String, "code": pl.Int64, "coefficient": pl.Float64, "low": pl.Float64, "high": pl.Float64}
    return pl.DataFrame(
        rows, schema={**kinds, "stability": pl.Float64, "rank": pl.Int64, "sign": pl.String}, orient="row"
    )
