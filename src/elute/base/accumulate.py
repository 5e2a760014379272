"""Statistics in one pass, the same on one core, on several ranks or over a cluster.

    statistic     a batch                              what is kept
    Moments       [n, width]                           count, mean, squares about it, smallest, largest
    Covariance    [n, width]                           count, mean, scatter about it [width, width]
    Histogram     [n, width], or (columns, values)     counts [width, bins + 2]
    Counts        integers of any shape                how often each of 0 … width - 1 came
    TopK          (columns, scores, keys)              the k largest scores of each column, with their keys
    SparseSums    (rows, columns, values)              sum and count of every pair that came

A batch is numpy or torch, of any real type, on any device. An empty one changes nothing. NaN, infinity and a
wrong width are refused with a DataError that leaves the statistic as it was. Sums run in float64. However the
rows are cut into batches and parts, integer results are the same to the bit and the others to rounding.

Means and squares are merged after Chan, Golub & LeVeque, "Algorithms for computing the sample variance",
The American Statistician 37 (1983): each block is centred on its own mean first, so that a mean of 1e6 does
not drown a deviation of 1e-3.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, cast

import numpy as np

from elute.base.errors import ConfigError, DataError
from elute.base.keyed import SparseSums, SparseSumsResult, TopK, TopKResult
from elute.base.mergeable import (
    Floats,
    Integers,
    Statistic,
    aligned,
    as_numpy,
    blocks,
    positive,
    real,
    rows_of,
    whole,
)

if TYPE_CHECKING:
    from elute.base.contracts import Accumulator
    from elute.base.mergeable import Batch

__all__ = [
    "Counts",
    "CountsResult",
    "Covariance",
    "CovarianceResult",
    "Histogram",
    "HistogramResult",
    "Moments",
    "MomentsResult",
    "SparseSums",
    "SparseSumsResult",
    "TopK",
    "TopKResult",
]


@dataclass(frozen=True, eq=False)
class MomentsResult:
    """Per column; NaN where there were no rows."""

    count: int
    mean: Floats
    variance: Floats  # over count, not count - 1
    min: Floats
    max: Floats

    @property
    def std(self) -> Floats:
        """Standard deviation, over count."""
        return cast("Floats", np.sqrt(self.variance))


@dataclass(frozen=True, eq=False)
class CovarianceResult:
    """The covariance of the columns; NaN where there were no rows."""

    count: int
    mean: Floats
    covariance: Floats  # over count, not count - 1

    def eigen(self) -> tuple[Floats, Floats]:
        """Return variances, largest first, and directions as columns, signed by their largest entry."""
        if not self.count:
            raise DataError("there are no rows to find principal directions of")
        values, vectors = np.linalg.eigh(self.covariance)
        vectors = vectors[:, ::-1]
        largest = np.abs(vectors).argmax(0)
        signs = np.where(vectors[largest, np.arange(len(values))] < 0, -1.0, 1.0)
        return np.maximum(values[::-1], 0), vectors * signs


@dataclass(frozen=True, eq=False)
class HistogramResult:
    """Counts per column: the first bin lies below the edges, the last one above them."""

    edges: Floats
    counts: Integers  # [width, len(edges) + 1]


@dataclass(frozen=True, eq=False)
class CountsResult:
    """How often each integer came."""

    counts: Integers
    total: int


class Moments(Statistic):
    """Count, mean, variance and extremes of each column."""

    _kept = ("count", "mean", "squares", "low", "high")

    def __init__(self, width: int) -> None:
        self.width = positive("width", width)
        self.count = 0
        self.mean, self.squares = np.zeros(width), np.zeros(width)
        self.low, self.high = np.full(width, np.inf), np.full(width, -np.inf)

    def update(self, batch: Batch, /) -> None:
        """Take in rows [n, width]."""
        for x in blocks(rows_of(batch, self.width)):
            mean, off = _centred(x)
            self._take(len(x), mean, np.einsum("ij,ij->j", off, off))
            self.low, self.high = np.minimum(self.low, x.min(0)), np.maximum(self.high, x.max(0))

    def merge(self, other: Moments, /) -> None:
        """Take in what another one has seen."""
        self.check_kin(other)
        self._take(other.count, other.mean, other.squares)
        self.low, self.high = np.minimum(self.low, other.low), np.maximum(self.high, other.high)

    def _take(self, count: int, mean: Floats, squares: Floats) -> None:
        self.count, self.mean, apart, weight = _joined(self.count, self.mean, count, mean)
        self.squares = self.squares + squares + weight * apart * apart

    def result(self) -> MomentsResult:
        """Return the statistics so far."""
        if not self.count:
            return MomentsResult(0, *(np.full(self.width, np.nan) for _ in range(4)))
        return MomentsResult(self.count, self.mean, self.squares / self.count, self.low, self.high)


class Covariance(Statistic):
    """Mean and covariance of the columns."""

    _kept = ("count", "mean", "scatter")

    def __init__(self, width: int) -> None:
        self.width = positive("width", width)
        self.count, self.mean, self.scatter = 0, np.zeros(width), np.zeros((width, width))

    def update(self, batch: Batch, /) -> None:
        """Take in rows [n, width]."""
        for x in blocks(rows_of(batch, self.width)):
            mean, off = _centred(x)
            self._take(len(x), mean, off.T @ off)

    def merge(self, other: Covariance, /) -> None:
        """Take in what another one has seen."""
        self.check_kin(other)
        self._take(other.count, other.mean, other.scatter)

    def _take(self, count: int, mean: Floats, scatter: Floats) -> None:
        self.count, self.mean, apart, weight = _joined(self.count, self.mean, count, mean)
        self.scatter = self.scatter + scatter + weight * np.outer(apart, apart)

    def result(self) -> CovarianceResult:
        """Return the statistics so far."""
        if not self.count:
            return CovarianceResult(0, np.full(self.width, np.nan), np.full_like(self.scatter, np.nan))
        return CovarianceResult(self.count, self.mean, self.scatter / self.count)


class Histogram(Statistic):
    """Counts between shared edges, per column: a bin holds its lower edge, the last one both, as in numpy."""

    _settings = ("edges", "width")
    _kept = ("counts",)

    def __init__(self, edges: Sequence[float] | Floats, width: int = 1) -> None:
        self.edges, self.width = np.array(edges, dtype=np.float64), positive("width", width)
        whole = self.edges.ndim == 1 and len(self.edges) > 1 and np.isfinite(self.edges).all()
        if not whole or (np.diff(self.edges) <= 0).any():
            raise ConfigError("the edges of a histogram must be two or more finite numbers that rise")
        self.counts = np.zeros((width, len(self.edges) + 1), dtype=np.int64)

    def update(self, batch: Batch | tuple[Batch, Batch], /) -> None:
        """Take in rows [n, width], or the pair (columns, values) of what is not zero."""
        if isinstance(batch, tuple):
            columns, values = aligned(batch, "columns", "values")
            self._take(whole(columns, self.width, "column"), real(values))
            return
        for x in blocks(rows_of(batch, self.width)):
            self._take(np.broadcast_to(np.arange(self.width), x.shape).reshape(-1), x.reshape(-1))

    def _take(self, columns: Integers, values: Floats) -> None:
        bins = np.searchsorted(self.edges, values, side="right")
        bins[values == self.edges[-1]] -= 1
        flat = columns * self.counts.shape[1] + bins
        self.counts += np.bincount(flat, minlength=self.counts.size).reshape(self.counts.shape)

    def merge(self, other: Histogram, /) -> None:
        """Take in what another one has seen."""
        self.check_kin(other)
        self.counts = self.counts + other.counts

    def result(self) -> HistogramResult:
        """Return the counts so far."""
        return HistogramResult(self.edges, self.counts.copy())


class Counts(Statistic):
    """How often each of the integers 0 … width - 1 came, say which features fired."""

    _kept = ("counts",)

    def __init__(self, width: int) -> None:
        self.width = positive("width", width)
        self.counts = np.zeros(width, dtype=np.int64)

    def update(self, batch: Batch, /) -> None:
        """Take in integers of any shape."""
        found = whole(as_numpy(batch).reshape(-1), self.width, "number")
        self.counts += np.bincount(found, minlength=self.width)

    def merge(self, other: Counts, /) -> None:
        """Take in what another one has seen."""
        self.check_kin(other)
        self.counts = self.counts + other.counts

    def result(self) -> CountsResult:
        """Return the counts so far."""
        return CountsResult(self.counts.copy(), int(self.counts.sum()))


def _joined(n: int, mean: Floats, m: int, other: Floats) -> tuple[int, Floats, Floats, float]:
    """Join two means: count, mean, how far they lay apart, and the weight of that in the squares."""
    if not n + m:
        return 0, mean, mean, 0.0
    apart = other - mean
    return n + m, mean + apart * (m / (n + m)), apart, n * m / (n + m)


def _centred(x: Floats) -> tuple[Floats, Floats]:
    """Subtract the mean twice: the first mean of large numbers is off by the rounding of its sum."""
    rough = x.mean(0)
    off = x - rough
    rest = off.mean(0)
    return rough + rest, off - rest


if TYPE_CHECKING:
    # The type checker holds each of them to the contract here.
    _Triple = tuple[Batch, Batch, Batch]
    _MOMENTS: Accumulator[Batch, MomentsResult] = Moments(1)
    _COVARIANCE: Accumulator[Batch, CovarianceResult] = Covariance(1)
    _HISTOGRAM: Accumulator[Batch | tuple[Batch, Batch], HistogramResult] = Histogram([0, 1])
    _COUNTS: Accumulator[Batch, CountsResult] = Counts(1)
    _TOPK: Accumulator[_Triple, TopKResult] = TopK(1)
    _SUMS: Accumulator[_Triple, SparseSumsResult] = SparseSums((1, 1))
