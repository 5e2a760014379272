"""From a method's predictions to its scores: over all particles with intervals, fold by fold, class by class."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from elute.base.statistics.checks import generator
from elute.particles.results import CLASS_METRICS, METRICS, MethodKind, MethodResult
from elute.particles.scores import Scored, calibration_bins, confusion, interval, resampled_scores, score

if TYPE_CHECKING:
    from elute.particles.folding import Folds

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_ROW_VISITS = 2e8  # of one method, over all draws
_CELLS = 1 << 23  # draws × groups held at once
_FEWEST = 100


@dataclass(frozen=True, eq=False)
class Judged:
    """A method's scores, and those of each draw of runs, to compare it with others on the same draws."""

    result: MethodResult
    draws: Floats | None  # [draws, METRICS]


@dataclass(frozen=True, eq=False)
class Judge:
    """What all methods are held against: the classes, the folds, the draws of runs."""

    codes: Ints
    classes: tuple[str, ...]
    folds: Folds
    n_resamples: int
    seed: int

    @property
    def n_draws(self) -> int:
        """Draws of runs: as many as were asked for, fewer where there are a great many particles; 0 for one run."""
        if self.folds.n_groups < 2:
            return 0
        return int(min(self.n_resamples, max(_FEWEST, _ROW_VISITS // len(self.codes))))

    def judge(self, name: str, p: Floats, *, title: str, kind: MethodKind) -> Judged:
        """Score one method."""
        whole = score(p, self.codes)
        drawn = self._resampled(p)
        parts = [score(p[here], self.codes[here]) for here in (self.folds.of == f for f in range(self.folds.n))]
        k = len(self.classes)
        result = MethodResult(
            name=name,
            title=title,
            kind=kind,
            probabilities=p,
            overall={
                metric: interval(whole.overall[0, i], None if drawn is None else drawn.overall[:, i])
                for i, metric in enumerate(METRICS)
            },
            folds={metric: [_number(part.overall[0, i]) for part in parts] for i, metric in enumerate(METRICS)},
            per_class={
                label: {
                    metric: interval(whole.per_class[0, c, i], None if drawn is None else drawn.per_class[:, c, i])
                    for i, metric in enumerate(CLASS_METRICS)
                }
                for c, label in enumerate(self.classes)
            },
            class_folds={
                label: {
                    metric: [_number(part.per_class[0, c, i]) for part in parts]
                    for i, metric in enumerate(CLASS_METRICS)
                }
                for c, label in enumerate(self.classes)
            },
            confusion=confusion(p.argmax(axis=1), self.codes, k),
            calibration=calibration_bins(p, self.codes),
        )
        return Judged(result, None if drawn is None else drawn.overall)

    def _resampled(self, p: Floats) -> Scored | None:
        """Score in each draw, some draws at a time; the draws are the same for every method."""
        if not self.n_draws:
            return None
        rng = generator(self.seed, "particles.bootstrap")
        n = self.folds.n_groups
        found, left = [], self.n_draws
        while left:
            now = min(left, max(1, _CELLS // n))
            draws = rng.multinomial(n, np.full(n, 1 / n), size=now).astype(np.float64)
            found.append(resampled_scores(p, self.codes, self.folds.groups, draws=draws))
            left -= now
        return Scored(*(np.concatenate([getattr(one, part) for one in found]) for part in ("overall", "per_class")))


def _number(value: float) -> float | None:
    return None if np.isnan(value) else float(value)
