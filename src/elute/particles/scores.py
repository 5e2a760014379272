"""How good probabilities are, with intervals by bootstrap over runs.

    map                 mean over classes of one-against-rest average precision
    accuracy            share of particles whose most probable class is the right one
    balanced_accuracy   mean over classes of recall
    log_loss            mean of −log p of the right class, p held above 1e-15
    brier               mean of Σ over classes (p − 1[right])²
    ece                 expected calibration error: Σ over 15 bins of the top probability, share · |accuracy − mean|

A class that no particle of a part has is left out of the means over classes.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from elute.particles.ranking import resampled_precision
from elute.particles.results import Bin, Interval

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

BINS = 15
_SMALLEST = 1e-15
_LEVEL = 0.95


@dataclass(frozen=True, eq=False)
class Scored:
    """Scores in each draw: `overall` [draws, METRICS], `per_class` [draws, classes, CLASS_METRICS]."""

    overall: Floats
    per_class: Floats


def score(p: Floats, codes: Ints) -> Scored:
    """Score probabilities once."""
    return resampled_scores(p, codes, np.zeros(len(codes), np.int64), draws=np.ones((1, 1)))


def resampled_scores(p: Floats, codes: Ints, groups: Ints, *, draws: Floats) -> Scored:
    """Score probabilities [n, classes] in each draw [draws, groups] of how often a group of rows counts."""
    n, k = p.shape
    top = p.argmax(axis=1)
    right = (top == codes).astype(np.float64)
    truth = np.eye(k)[codes]
    called = np.eye(k)[top]
    losses = np.column_stack([
        np.ones(n), right, -np.log(np.maximum(p[np.arange(n), codes], _SMALLEST)), np.square(p - truth).sum(axis=1),
    ])  # fmt: skip
    sums = draws @ _by_group(losses, groups, draws.shape[1])
    total = sums[:, 0]
    confidence = p.max(axis=1)
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    off = draws @ _by_group(np.eye(BINS)[bins] * (right - confidence)[:, None], groups, draws.shape[1])
    has = draws @ _by_group(truth, groups, draws.shape[1])
    calls = draws @ _by_group(called, groups, draws.shape[1])
    hits = draws @ _by_group(truth * called, groups, draws.shape[1])
    ap = np.column_stack([resampled_precision(p[:, c], codes == c, groups, draws=draws) for c in range(k)])
    with np.errstate(divide="ignore", invalid="ignore"):
        recall = hits / has
        precision = np.where(calls > 0, hits / np.maximum(calls, 1e-300), np.where(has > 0, 0.0, np.nan))
        overall = np.column_stack([
            _mean(ap), sums[:, 1] / total, _mean(recall), sums[:, 2] / total, sums[:, 3] / total,
            np.abs(off).sum(axis=1) / total,
        ])  # fmt: skip
    return Scored(overall, np.stack([ap, precision, recall], axis=2))


def _by_group(values: Floats, groups: Ints, n: int) -> Floats:
    """Sums of rows over groups [groups, columns]."""
    if n == 1:
        return np.asarray(values.sum(axis=0, keepdims=True))
    out = np.empty((n, values.shape[1]))
    for column in range(values.shape[1]):
        out[:, column] = np.bincount(groups, weights=values[:, column], minlength=n)
    return out


def _mean(per_class: Floats) -> Floats:
    """The mean over classes that are there."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a draw without any particle
        return np.asarray(np.nanmean(per_class, axis=1))


def interval(estimate: float, draws: Floats | None) -> Interval:
    """Return an estimate with the percentiles of its draws."""
    value = None if np.isnan(estimate) else float(estimate)
    if draws is None or value is None or np.isnan(draws).all():
        return Interval(value)
    low, high = np.nanquantile(draws, [(1 - _LEVEL) / 2, (1 + _LEVEL) / 2])
    return Interval(value, float(low), float(high))


def calibration_bins(p: Floats, codes: Ints) -> list[Bin]:
    """Return the bins of the top probability that hold particles, from the least to the most confident."""
    confidence, right = p.max(axis=1), p.argmax(axis=1) == codes
    bins = np.minimum((confidence * BINS).astype(np.int64), BINS - 1)
    made = []
    for b in range(BINS):
        here = bins == b
        if here.any():
            made.append(Bin(int(here.sum()), float(confidence[here].mean()), float(right[here].mean())))
    return made


def confusion(predicted: Ints, codes: Ints, k: int) -> Ints:
    """Return counts [true class, predicted class]."""
    return np.bincount(codes * k + predicted, minlength=k * k).reshape(k, k).astype(np.int64)
