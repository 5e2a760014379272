"""Particles of two sources that are the same by where they lie: each the other's nearest, run by run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import KDTree

from elute.particles.table import PLACE

if TYPE_CHECKING:
    from elute.particles.table import ParticleTable

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

_TIE = 1e-6  # Å: nearer than that to each other, two distances are the same


@dataclass(frozen=True, eq=False)
class Matched:
    """Which row of the other source each row of the first is."""

    partner: Ints  # [rows of the first], −1 for none
    ambiguous: int  # rows that have another within the tolerance, and cannot be told which it is
    several: int  # matched rows that have a second one within the tolerance
    nearest: float  # Å between the nearest two; infinite where no run is common


def match_places(first: ParticleTable, other: ParticleTable, *, tolerance: float) -> Matched:
    """Match the particles of two sources that have runs and coordinates."""
    partner = np.full(len(first), -1)
    ambiguous, several, nearest = 0, 0, np.inf
    theirs = _by_run(other)
    for run, rows in _by_run(first).items():
        if run not in theirs:
            continue
        columns = theirs[run]
        a = first.particles.select(PLACE).to_numpy()[rows]
        b = other.particles.select(PLACE).to_numpy()[columns]
        found = mutual(a, b, tolerance=tolerance)
        taken = found.partner >= 0
        partner[rows[taken]] = columns[found.partner[taken]]
        ambiguous, several = ambiguous + found.ambiguous, several + found.several
        nearest = min(nearest, found.nearest)
    return Matched(partner, ambiguous, several, nearest)


def mutual(a: Floats, b: Floats, *, tolerance: float) -> Matched:
    """Match points [n, 3] and [m, 3]: each the other's nearest within the tolerance, and no second one as near."""
    there, back = _two_nearest(a, b), _two_nearest(b, a)
    choice = there[1][:, 0]
    near = there[0][:, 0] <= tolerance
    sole = (there[0][:, 1] - there[0][:, 0] > _TIE) & (back[0][choice, 1] - back[0][choice, 0] > _TIE)
    agreed = back[1][choice, 0] == np.arange(len(a))
    matched = near & sole & agreed
    partner = np.where(matched, choice, -1)
    several = matched & ((there[0][:, 1] <= tolerance) | (back[0][choice, 1] <= tolerance))
    return Matched(partner, int((near & ~matched).sum()), int(several.sum()), float(there[0][:, 0].min()))


def _two_nearest(a: Floats, b: Floats) -> tuple[Floats, Ints]:
    """Distances to, and places of, the two nearest points of b; an infinite distance where b has one only."""
    distance, place = KDTree(b).query(a, k=2)
    return np.asarray(distance), np.asarray(place)


def _by_run(table: ParticleTable) -> dict[str, Ints]:
    """Rows of each run."""
    runs = np.array(table.particles["run"].to_list(), dtype=object)
    order = np.argsort(runs.astype(str), kind="stable")
    names, starts = np.unique(runs[order].astype(str), return_index=True)
    return dict(zip(names.tolist(), np.split(order.astype(np.int64), starts[1:]), strict=True))
