"""Means over instances with intervals, and differences of two arms on the same instances.

Instances are drawn with replacement, 2,000 times, and all columns with them: what two arms have in common (an easy or a
hard instance) leaves their difference. Intervals are percentiles of 95%.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from elute.base.statistics.nulls import bootstrap_groups

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]

DIGITS = 6


@dataclass(frozen=True)
class Mean:
    """A mean with its interval."""

    mean: float
    low: float
    high: float

    def as_json(self) -> dict[str, float]:
        """Return it as plain numbers."""
        return {"mean": plain(self.mean), "low": plain(self.low), "high": plain(self.high)}


def means(columns: Floats, *, resamples: int, seed: int) -> list[Mean]:
    """Return the mean of each column [instances, columns], resampling instances."""
    found = bootstrap_groups(
        lambda rows: columns[rows].mean(0), np.arange(len(columns)), n_resamples=resamples, seed=seed
    )
    parts = zip(found.estimate, found.low, found.high, strict=True)
    return [Mean(float(mean), float(low), float(high)) for mean, low, high in parts]


def differences(columns: Floats, pairs: Sequence[tuple[int, int]], *, resamples: int, seed: int) -> list[Mean]:
    """Return the mean of one column less that of another, for pairs of columns on the same instances."""
    if not pairs:
        return []
    one, other = (np.array(side) for side in zip(*pairs, strict=True))
    return means(columns[:, one] - columns[:, other], resamples=resamples, seed=seed)


def verdict(apart: Mean, *, less_is_better: bool = True) -> str:
    """Say whether the first arm is better than the second, as far as the interval tells."""
    if apart.low <= 0 <= apart.high:
        return "not told apart"
    return "better" if (apart.high < 0) == less_is_better else "worse"


def plain(value: float, digits: int = DIGITS) -> float:
    """Round to some significant digits, which is what a file keeps."""
    return float(f"{float(value):.{digits}g}") + 0.0
