"""What a pair's rows are like, in numbers that follow from means and covariances.

1. Spectrum: with the variances λ along principal directions, shares p = λ / Σλ; the effective rank is exp(−Σ p log p)
   (O. Roy, M. Vetterli, 2007), the participation ratio (Σλ)² / Σλ².
2. Canonical correlations (H. Hotelling, 1936): both sides are whitened on the directions that vary, the singular values
   of what is left between them are the correlations. Directions that were found on training rows are judged on others.
3. The linear map W = (Cxx + λ I)⁻¹ Cxy, with λ a small share of the source's mean variance.
4. R² is about the mean of the training rows: 1 − Σ(y − ŷ)² / Σ(y − ȳ)², over all rows and dimensions, or a dimension.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from elute.base.statistics.nulls import bootstrap_groups

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

RESAMPLES = 2000
_ALIVE = 1e-9  # of the largest variance: below it a direction is rounding


@dataclass(frozen=True, eq=False)
class Joint:
    """Mean and covariance of a source and a target side by side; the source has the first columns."""

    count: int
    mean: Floats
    covariance: Floats
    width: int  # of the source

    @property
    def parts(self) -> tuple[Floats, Floats, Floats]:
        """Covariance within the source, between both, and within the target."""
        c, n = self.covariance, self.width
        return c[:n, :n], c[:n, n:], c[n:, n:]


@dataclass(frozen=True)
class Spectrum:
    """How many directions the rows use."""

    effective: float
    participation: float
    alive: int  # directions that vary at all
    most: int  # directions that hold 90% of the variance
    nearly_all: int  # 99%
    shares: tuple[float, ...]  # of each direction, largest first


@dataclass(frozen=True, eq=False)
class Canonical:
    """Directions of either side that go together most, as columns, and their correlations."""

    correlations: Floats
    source: Floats
    target: Floats

    def on(self, joint: Joint) -> Floats:
        """Correlation of each pair of directions on other rows."""
        within, between, other = joint.parts
        spread = _diagonal(self.source, within, self.source) * _diagonal(self.target, other, self.target)
        met = _diagonal(self.source, between, self.target)
        return np.divide(met, np.sqrt(np.maximum(spread, 0)), out=np.zeros_like(met), where=spread > 0)


@dataclass(frozen=True, eq=False)
class Map:
    """ŷ = x W + b."""

    weight: Floats
    bias: Floats

    def __call__(self, x: Floats) -> Floats:
        """Predict the target's rows."""
        return x @ self.weight + self.bias


def spectrum(covariance: Floats) -> Spectrum:
    """Measure how many directions rows of this covariance use."""
    values = np.maximum(np.linalg.eigvalsh(covariance)[::-1], 0)
    total = float(values.sum())
    if total <= 0:
        return Spectrum(0.0, 0.0, 0, 0, 0, tuple(0.0 for _ in values))
    shares = values / total
    held = np.cumsum(shares)
    some = shares[shares > 0]
    return Spectrum(
        effective=float(np.exp(-(some * np.log(some)).sum())),
        participation=float(1 / (shares**2).sum()),
        alive=int((values > _ALIVE * values[0]).sum()),
        most=int(np.searchsorted(held, 0.9 - 1e-12) + 1),
        nearly_all=int(np.searchsorted(held, 0.99 - 1e-12) + 1),
        shares=tuple(shares.tolist()),
    )


def canonical(joint: Joint) -> Canonical:
    """Find canonical directions, most correlated first."""
    within, between, other = joint.parts
    one, two = _whitening(within), _whitening(other)
    left, found, right = np.linalg.svd(one.T @ between @ two, full_matrices=False)
    return Canonical(np.clip(found, 0, 1), one @ left, two @ right.T)


def linear_map(joint: Joint, ridge: float) -> Map:
    """Fit the linear map of the target from the source."""
    within, between, _ = joint.parts
    n = joint.width
    size = max(float(np.trace(within)) / n, 1e-30)
    solved = np.linalg.solve(within + (ridge + 1e-12) * size * np.eye(n), between)
    weight = np.asarray(solved, np.float64)
    return Map(weight, joint.mean[n:] - joint.mean[:n] @ weight)


def correlations(joint: Joint) -> dict[str, float | None]:
    """Say how single dimensions go together: mean and largest |r|, and that of a dimension with its namesake."""
    within, between, other = joint.parts
    spread = np.sqrt(np.outer(within.diagonal(), other.diagonal()))
    r = np.abs(np.divide(between, spread, out=np.zeros_like(between), where=spread > 0))
    same = float(r.diagonal().mean()) if r.shape[0] == r.shape[1] else None
    return {"mean": float(r.mean()), "best_mean": float(r.max(0).mean()), "largest": float(r.max()), "same": same}


@dataclass(eq=False)
class Explained:
    """Squared errors of a prediction and squares about the training mean, by instance and by dimension."""

    mean: Floats
    errors: dict[str, float] = field(default_factory=dict)
    squares: dict[str, float] = field(default_factory=dict)
    by_dimension: Floats | None = None
    about: Floats | None = None

    def update(self, y: Floats, guess: Floats, instances: Sequence[str]) -> None:
        """Take in rows, each with the name of its instance."""
        wrong, off = (y - guess) ** 2, (y - self.mean) ** 2
        names, place = np.unique(np.asarray(instances), return_inverse=True)
        for found, part in ((self.errors, wrong), (self.squares, off)):
            sums = np.bincount(place, part.sum(1), len(names))
            for name, value in zip(names.tolist(), sums.tolist(), strict=True):
                found[name] = found.get(name, 0.0) + value
        zero = np.zeros(y.shape[1])
        self.by_dimension = (zero if self.by_dimension is None else self.by_dimension) + wrong.sum(0)
        self.about = (zero if self.about is None else self.about) + off.sum(0)

    @property
    def r2(self) -> float:
        """R² over all rows and dimensions."""
        total = sum(self.squares.values())
        return 1 - sum(self.errors.values()) / total if total > 0 else 0.0

    @property
    def dimensions(self) -> Floats:
        """R² of each dimension; 0 where it does not vary."""
        if self.by_dimension is None or self.about is None:
            return np.zeros(0)
        share = np.divide(self.by_dimension, self.about, out=np.ones_like(self.about), where=self.about > 0)
        return 1 - share

    def interval(self, seed: int) -> tuple[float, float]:
        """95% interval of R², resampling instances."""
        names = list(self.errors)
        wrong = np.array([self.errors[name] for name in names])
        off = np.array([self.squares[name] for name in names])
        if len(names) < 2 or off.sum() <= 0:
            return self.r2, self.r2
        found = bootstrap_groups(
            lambda rows: np.array([1 - wrong[rows].sum() / max(off[rows].sum(), 1e-300)]),
            np.arange(len(names)), n_resamples=RESAMPLES, seed=seed,
        )  # fmt: skip
        return float(found.low[0]), float(found.high[0])


def _whitening(covariance: Floats) -> Floats:
    values, vectors = np.linalg.eigh(covariance)
    alive = values > _ALIVE * max(float(values[-1]), 1e-300)
    whitened: Floats = vectors[:, alive] / np.sqrt(values[alive])
    return whitened


def _diagonal(one: Floats, middle: Floats, other: Floats) -> Floats:
    found: Floats = np.einsum("ij,ij->j", one, middle @ other)
    return found
