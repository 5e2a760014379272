"""Average precision, once for the data and again and again for resampled and exchanged runs.

1. Rows are sorted by score once; a resample gives each row the number of times that its run was drawn.
2. Going down the ranking, AP = Σ (R_i − R_{i−1}) · P_i over distinct scores: rows of one score enter together.
3. For a permutation test the scores of two methods are merged into one ranking; in each draw every run either keeps
   its two methods or exchanges them, and both APs come from one pass.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from elute.base.compiled import compiled, over

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]


def average_precision(scores: Floats, positive: NDArray[np.bool_]) -> float:
    """Return the average precision of one ranking; NaN where nothing is positive."""
    ones = np.ones((1, 1))
    return float(resampled_precision(scores, positive, np.zeros(len(scores), np.int64), draws=ones)[0])


def resampled_precision(scores: Floats, positive: NDArray[np.bool_], groups: Ints, *, draws: Floats) -> Floats:
    """Return the average precision in each draw [draws, groups] of how often a group counts."""
    order = np.argsort(-scores, kind="stable")
    ranked = scores[order]
    last = np.append(ranked[1:] != ranked[:-1], True)
    out = np.empty(len(draws))
    over(len(draws), _precision, groups[order], positive[order], last, np.ascontiguousarray(draws), out)
    return out


@compiled
def _precision(groups: Any, positive: Any, last: Any, draws: Any, out: Any, lo: int, hi: int) -> None:
    for r in range(lo, hi):
        weight = draws[r]
        true = total = area = before = 0.0
        for i in range(groups.shape[0]):
            w = weight[groups[i]]
            total += w
            if positive[i]:
                true += w
            if last[i] and true > before:
                area += (true - before) * true / total
                before = true
        out[r] = area / true if true > 0 else np.nan


def exchanged_precision(
    scores: tuple[Floats, Floats], positive: NDArray[np.bool_], groups: Ints, *, exchanged: NDArray[np.bool_]
) -> Floats:
    """Return AP of the first method less that of the second in each draw [draws, groups] of which groups exchange."""
    both = np.concatenate(scores)
    order = np.argsort(-both, kind="stable")
    ranked = both[order]
    last = np.append(ranked[1:] != ranked[:-1], True)
    n = len(positive)
    out = np.empty(len(exchanged))
    rows = order % n
    over(len(exchanged), _exchanged, groups[rows], positive[rows], (order >= n), last, exchanged, out)
    return out


@compiled
def _exchanged(
    groups: Any, positive: Any, second: Any, last: Any, exchanged: Any, out: Any, lo: int, hi: int
) -> None:  # fmt: skip
    for r in range(lo, hi):
        swap = exchanged[r]
        true0 = total0 = area0 = before0 = 0.0
        true1 = total1 = area1 = before1 = 0.0
        for i in range(groups.shape[0]):
            if second[i] != swap[groups[i]]:
                total1 += 1
                if positive[i]:
                    true1 += 1
            else:
                total0 += 1
                if positive[i]:
                    true0 += 1
            if last[i]:
                if true0 > before0:
                    area0 += (true0 - before0) * true0 / total0
                    before0 = true0
                if true1 > before1:
                    area1 += (true1 - before1) * true1 / total1
                    before1 = true1
        out[r] = (area0 - area1) / true0 if true0 > 0 else np.nan
