"""Random profiles of terms: what a profile's likeness to diseases is held against.

1. Profiles of as many terms are drawn without replacement from a pool, and scored against every disease.
2. p = (1 + #{null ≥ seen}) / (1 + draws), a disease at a time.
3. p_any corrects over all diseases at once, however they resemble one another: a score stands out by (score − mean) /
   sd of its disease, and p_any is the share of draws in which any disease stands out as much, counted in the same way.
   Mean and sd are of draws of their own, so that what was seen and the draws it is held against are treated alike, and
   sd is at least a tenth of the median: a disease that random profiles hardly ever resemble is not to outdo all others.

P. H. Westfall, S. S. Young, "Resampling-Based Multiple Testing", 1993, for 3 (single step).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from elute.base.compiled import compiled, over
from elute.base.statistics.checks import Floats, Ints, generator

Scores = NDArray[np.float32]
Score = Callable[[Any, Any], Scores]
"""Scores profiles, given as the ends of their rows and their terms, against all diseases [profiles, diseases]."""
_BATCH = 256  # null profiles at a time
_MOMENTS = 200  # draws for mean and sd
_SLACK = np.float32(1e-5)  # sums of the same numbers in another order differ in their last digits, and still are ties


class Null(NamedTuple):
    """How profiles of one size stand among random ones [profiles, diseases]."""

    p: Floats
    p_any: Floats
    mean: Scores
    """Of the draws, by disease: the same for each profile."""


def against_random(score: Score, seen: Scores, pool: Ints, *, size: int, draws: int, seed: int) -> Null:
    """Hold scores of profiles with so many terms against those of random ones."""
    mean, sd = _moments(score, pool, size=size, seed=seed)
    least = seen * (np.float32(1) - _SLACK)
    reached, total = np.zeros(seen.shape, dtype=np.int32), np.zeros(seen.shape[1])
    top: list[Scores] = []
    for scores in _drawn(score, pool, f"random profiles of {size} terms", size=size, draws=draws, seed=seed):
        total += scores.sum(axis=0, dtype=np.float64)
        over(len(seen), _count, least, scores, reached)
        highest = np.empty(len(scores), dtype=np.float32)
        over(len(scores), _highest, scores, mean, sd, highest)
        top.append(highest)
    ordered = np.sort(np.concatenate(top))
    out = (least - mean) / sd
    as_much = draws - np.searchsorted(ordered, out, side="left")
    p_any: Floats = (1.0 + as_much) / np.float64(1.0 + draws)
    whole = np.broadcast_to((total / draws).astype(np.float32), seen.shape)
    p: Floats = (1.0 + reached) / np.float64(1.0 + draws)
    return Null(p, p_any, whole)


def _moments(score: Score, pool: Ints, *, size: int, seed: int) -> tuple[Scores, Scores]:
    parts = _drawn(score, pool, f"moments of profiles of {size} terms", size=size, draws=_MOMENTS, seed=seed)
    total, squares = 0.0, 0.0
    for scores in parts:
        total = total + scores.sum(axis=0, dtype=np.float64)
        squares = squares + np.square(scores, dtype=np.float64).sum(axis=0)
    mean = np.asarray(total) / _MOMENTS
    sd = np.sqrt(np.maximum(np.asarray(squares) / _MOMENTS - mean * mean, 0.0))
    sd = np.maximum(sd, max(float(np.median(sd)) / 10.0, 1e-6))
    return mean.astype(np.float32), sd.astype(np.float32)


def _drawn(score: Score, pool: Ints, name: str, *, size: int, draws: int, seed: int) -> Iterator[Scores]:
    rng = generator(seed, name)
    for start in range(0, draws, _BATCH):
        n = min(_BATCH, draws - start)
        terms = np.concatenate([np.sort(rng.choice(pool, size, replace=False)) for _ in range(n)])
        yield score(np.arange(n + 1) * size, terms)


@compiled
def _count(least: Any, scores: Any, reached: Any, low: int, high: int) -> None:
    """Count by disease how many random profiles reach what a profile has."""
    for profile in range(low, high):
        counts, needed = reached[profile], least[profile]
        for draw in range(scores.shape[0]):
            seen = scores[draw]
            for disease in range(seen.shape[0]):
                counts[disease] += np.int32(seen[disease] >= needed[disease])


@compiled
def _highest(scores: Any, mean: Any, sd: Any, highest: Any, low: int, high: int) -> None:
    """Find by how much each random profile's most outstanding disease stands out."""
    for draw in range(low, high):
        most = (scores[draw, 0] - mean[0]) / sd[0]
        for disease in range(1, scores.shape[1]):
            most = max(most, (scores[draw, disease] - mean[disease]) / sd[disease])
        highest[draw] = most
