"""Whether one method is better than another on the same particles, folds and runs.

1. The difference over all held-out particles, with an interval by bootstrap over runs: both methods on the same draws.
2. The corrected resampled t-test over folds. Training parts overlap, so folds are not independent, and the plain test
   is too bold; here the variance of the mean of J differences d is s² (1 / J + n_test / n_train), and the statistic is
   compared with Student's t of J − 1 degrees of freedom. C. Nadeau, Y. Bengio, Machine Learning 52, 2003.
3. A permutation test: under the null the two methods may be exchanged run by run. It counts the data as one draw,
   (1 + #{|null| ≥ |observed|}) / (1 + n); with R runs no p-value lies below about 2 / 2^R.
4. Holm's correction over all comparisons of one metric.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy import special

from elute.base.statistics.checks import generator
from elute.base.statistics.corrections import holm
from elute.particles.ranking import exchanged_precision
from elute.particles.results import METRICS, Comparison, Interval
from elute.particles.scores import interval

if TYPE_CHECKING:
    from elute.particles.judging import Judge, Judged

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

COMPARED = ("map", "accuracy")


@dataclass(frozen=True)
class TTest:
    """The corrected resampled t-test; no p-value where it cannot be told."""

    mean: float | None
    t: float | None
    p: float | None


def corrected_t_test(differences: Sequence[float | None], share: float) -> TTest:
    """Test differences fold by fold against 0; `share` is n_test / n_train."""
    d = np.array([x for x in differences if x is not None], dtype=np.float64)
    if len(d) < 2:
        return TTest(float(d[0]) if len(d) else None, None, None)
    mean, variance = float(d.mean()), float(d.var(ddof=1))
    if variance <= 1e-24 * max(1.0, mean * mean):
        # Every fold says the same: two methods that are one, or a difference whose error cannot be told.
        return TTest(mean, None, 1.0 if abs(mean) < 1e-12 else None)
    t = mean / math.sqrt(variance * (1 / len(d) + share))
    return TTest(mean, t, float(2 * special.stdtr(len(d) - 1, -abs(t))))


def exchange_test(first: Floats, second: Floats, codes: Ints, *, groups: Ints, metric: str, n: int, seed: int) -> float:
    """Return the two-sided p-value of a difference in `map` or `accuracy`, methods exchanged group by group."""
    n_groups = int(groups.max()) + 1
    rng = generator(seed, f"particles.exchange.{metric}")
    seen = _differences(first, second, codes, groups=groups, metric=metric,
                        exchanged=np.zeros((1, n_groups), bool))[0]  # fmt: skip
    above, left = 0, n
    while left:
        now = min(left, max(1, _CELLS // n_groups))
        null = _differences(first, second, codes, groups=groups, metric=metric,
                            exchanged=rng.random((now, n_groups)) < 0.5)  # fmt: skip
        above += int((np.abs(null) >= abs(seen) - 1e-12).sum())
        left -= now
    return (1 + above) / (1 + n)


_CELLS = 1 << 24


def _differences(
    first: Floats, second: Floats, codes: Ints, *, groups: Ints, metric: str, exchanged: NDArray[np.bool_]
) -> Floats:
    if metric == "accuracy":
        away = (first.argmax(axis=1) == codes).astype(np.float64) - (second.argmax(axis=1) == codes)
        sums = np.bincount(groups, weights=away, minlength=exchanged.shape[1])
        return np.asarray((1.0 - 2.0 * exchanged) @ sums / len(codes))
    per_class = [
        exchanged_precision((first[:, c], second[:, c]), codes == c, groups, exchanged=exchanged)
        for c in np.unique(codes).tolist()
    ]
    return np.asarray(np.mean(per_class, axis=0))


def compare(judge: Judge, first: Judged, second: Judged, *, question: str) -> list[Comparison]:
    """Hold the first method against the second, in every metric that is compared."""
    a, b = first.result, second.result
    n_test = np.bincount(judge.folds.of)
    share = float((n_test / (len(judge.codes) - n_test)).mean())
    made = []
    for metric in COMPARED:
        place = METRICS.index(metric)
        per_fold = [_less(x, y) for x, y in zip(a.folds[metric], b.folds[metric], strict=True)]
        test = corrected_t_test(per_fold, share)
        draws = None
        if first.draws is not None and second.draws is not None:
            draws = first.draws[:, place] - second.draws[:, place]
        whole = _less(a.overall[metric].estimate, b.overall[metric].estimate)
        made.append(
            Comparison(
                first=a.name,
                second=b.name,
                metric=metric,
                question=question,
                difference=Interval(None) if whole is None else interval(whole, draws),
                per_fold=per_fold,
                mean_per_fold=test.mean,
                t=test.t,
                p_t=test.p,
                p_permutation=exchange_test(
                    a.probabilities, b.probabilities, judge.codes, groups=judge.folds.groups, metric=metric,
                    n=max(99, judge.n_draws - 1), seed=judge.seed,
                ),
            )
        )  # fmt: skip
    return made


def _less(x: float | None, y: float | None) -> float | None:
    return None if x is None or y is None else x - y


def corrected(found: list[Comparison]) -> list[Comparison]:
    """Add p-values corrected for all comparisons of the same metric."""
    out = list(found)
    for metric in COMPARED:
        places = [i for i, one in enumerate(found) if one.metric == metric]
        if not places:
            continue
        exchanged = holm([found[i].p_permutation for i in places])
        told = {i: p for i in places if (p := found[i].p_t) is not None}
        over_folds = holm(list(told.values()), n_tests=len(places)).tolist() if told else []
        for i, p in zip(places, exchanged.tolist(), strict=True):
            out[i] = replace(out[i], p_permutation_holm=p)
        for i, p in zip(told, over_folds, strict=True):
            out[i] = replace(out[i], p_t_holm=p)
    return out
