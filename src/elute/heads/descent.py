"""Coordinate descent for elastic nets of squared error on a Gram matrix, compiled.

Every gene has a penalty λ₁ ‖w‖₁ + λ₂ ‖w‖² / 2 on weights of scaled codes. Only a working set is visited: the codes that
have a weight and those whose slope is larger than λ₁; when it has settled all slopes are looked at again. What comes
back is the largest violation of the optimality conditions,

    |slope + λ₂ w + λ₁ sign(w)| where w ≠ 0,   |slope| − λ₁ where w = 0,

as a share of the largest slope that the gene has without codes.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from elute.base.compiled import compiled, over

SWEEPS = 20_000
ROUNDS = 200


@compiled
def shrunk(value: float, by: float) -> float:
    """Bring a number nearer to 0, at most to it."""
    if value > by:
        return value - by
    return value + by if value < -by else 0.0


@compiled
def off(slope: float, w: float, price: tuple[float, float]) -> float:
    """How far a code is from optimal; `slope` is that of −loss."""
    l1, l2 = price
    if w > 0.0:
        return abs(slope - l2 * w - l1)
    if w < 0.0:
        return abs(slope - l2 * w + l1)
    return max(abs(slope) - l1, 0.0)


def by_gram(system: tuple[Any, Any], penalties: Any, into: Any) -> None:
    """Solve all genes of a system: gram = zᵀz / n, right [G, width] = yᵀz / n; w [G, width] holds the start."""
    over(len(system[1]), _by_gram, *system, penalties, into)


@compiled
def _by_gram(gram: Any, right: Any, penalties: Any, into: Any, lo: int, hi: int) -> None:
    """Solve genes lo to hi."""
    l1s, l2s, tolerance = penalties
    w, left, sizes = into
    width = gram.shape[0]
    slope, inside = np.empty(width), np.zeros(width, np.bool_)
    active = np.empty(width, np.int64)
    for g in range(lo, hi):
        enough = tolerance * sizes[g]
        for j in range(width):
            slope[j] = right[g, j]
        for j in range(width):
            inside[j] = w[g, j] != 0.0
            if inside[j]:
                for i in range(width):
                    slope[i] -= gram[j, i] * w[g, j]
        worst = 0.0
        for _ in range(ROUNDS):
            worst = 0.0
            n_active = 0
            for j in range(width):
                far = off(slope[j], w[g, j], (l1s[g], l2s[g]))
                worst = max(worst, far)
                inside[j] = inside[j] or far > enough
                active[n_active] = j
                n_active += inside[j]
            if worst <= enough:
                break
            _round(gram, slope, w[g], active[:n_active], (l1s[g], l2s[g], 0.3 * enough))
        left[g] = worst / sizes[g]


@compiled
def _round(gram: Any, slope: Any, w: Any, active: Any, penalty: Any) -> None:
    """Settle the working set on a Gram matrix of its own, which lies together; then all slopes follow."""
    n = active.shape[0]
    own, at, now = np.empty((n, n)), np.empty(n), np.empty(n)
    for a in range(n):
        at[a], now[a] = slope[active[a]], w[active[a]]
        for b in range(n):
            own[a, b] = gram[active[a], active[b]]
    settle(own, (at, now), penalty)
    for a in range(n):
        j = active[a]
        change = now[a] - w[j]
        if change != 0.0:
            w[j] = now[a]
            for i in range(slope.shape[0]):
                slope[i] -= gram[j, i] * change


@compiled
def settle(gram: Any, state: Any, penalty: Any) -> None:
    """Sweep slopes and weights until no code is further from optimal than allowed."""
    slope, w = state
    l1, l2, enough = penalty
    n = w.shape[0]
    for _ in range(SWEEPS):
        worst = 0.0
        for a in range(n):
            worst = max(worst, off(slope[a], w[a], (l1, l2)))
            curvature = gram[a, a] + l2
            if curvature <= 0.0:
                continue
            change = shrunk(slope[a] + gram[a, a] * w[a], l1) / curvature - w[a]
            if change != 0.0:
                w[a] += change
                for b in range(n):
                    slope[b] -= gram[a, b] * change
        if worst <= enough:
            break
