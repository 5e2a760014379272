"""Elastic nets of counts, compiled: proximal Newton steps, solved by coordinate descent on the columns of sparse codes.

1. At the current weights each row has a slope and a curvature ω of its loss. The working set are the codes that have a
   weight and those whose slope exceeds λ₁.
2. The quadratic problem over the working set is settled by sweeps. The bias is taken out of it exactly: with
   h₁ = Σ ω x and R = Σ r, r being what is left of the rows' slopes, the slope of a code is Σ x r − h₁ R / Σ ω and its
   curvature Σ ω x² − h₁² / Σ ω. So no dense column is ever made by centring. What is not settled soon goes on with
   the Gram matrix of the working set.
3. The step is halved until the objective does not rise, and all slopes are looked at again (descent.py says what the
   violation is that ends it).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from elute.base.compiled import compiled, over
from elute.heads.descent import ROUNDS, SWEEPS, off, settle, shrunk

_CAP = 60.0  # as links.HIGHEST
_FEW = 10  # sweeps on columns before a Gram matrix is made
_MOST = 2500  # codes that it may have


@compiled
def _parts(kind: int, y: float, eta: float, alpha: float) -> Any:
    """The loss of a row with its two derivatives by η; kind 0 is mse, 1 Poisson, 2 negative binomial."""
    if kind == 0:
        return 0.5 * (eta - y) * (eta - y), eta - y, 1.0
    mu = np.exp(min(eta, _CAP))
    if kind == 1 or alpha == 0.0:
        return mu - y * eta, mu - y, mu
    grown = 1.0 + alpha * mu
    loss = (y + 1.0 / alpha) * np.log1p(alpha * mu) - y * eta
    return loss, (mu - y) / grown, mu * (1.0 + alpha * y) / (grown * grown)


@compiled
def _objective(y: Any, eta: Any, w: Any, options: Any) -> Any:
    kind, alpha, l1, l2 = options
    total = 0.0
    for i in range(y.shape[0]):
        total += _parts(kind, y[i], eta[i], alpha)[0]
    total /= y.shape[0]
    for j in range(w.shape[0]):
        total += l1 * abs(w[j]) + 0.5 * l2 * w[j] * w[j]
    return total


def by_columns(system: tuple[Any, Any], penalties: Any, into: Any) -> None:
    """Solve all genes of a system: the columns of a csc matrix, scaled and not centred, and what is known of rows."""
    over(len(into[0]), _by_columns, *system, penalties, into)


@compiled
def _by_columns(columns: Any, data: Any, penalties: Any, into: Any, lo: int, hi: int) -> None:
    """Solve genes lo to hi."""
    kind, ys, offset, alphas = data
    l1s, l2s, tolerance = penalties
    w, b, left, sizes = into
    n, width = ys.shape[1], columns[0].shape[0] - 1
    rows = (np.empty(n), np.empty(n), np.empty(n), np.empty(n), np.empty(n))
    codes = (np.empty(width), np.empty(width), np.empty(width, np.int64), np.empty((2, width)))
    for g in range(lo, hi):
        options = (kind, alphas[g], l1s[g], l2s[g])
        enough = tolerance * sizes[g]
        eta = rows[0]
        for i in range(n):
            eta[i] = offset[i] + b[g]
        _add(columns, w[g], eta)
        worst = np.inf
        for _ in range(ROUNDS):
            total, surplus = _derive(ys[g], eta, options, (rows[1], rows[2]))
            n_active, worst = _look(columns, rows[1], w[g], (codes[0], codes[2]), (l1s[g], l2s[g], enough))
            worst = max(worst, abs(surplus))
            if worst <= enough or total <= 0.0:
                break
            state, working = (rows[1], rows[2], total, surplus), (codes[2], n_active, codes[3])
            inner = (l1s[g], l2s[g], max(0.1 * worst, 0.3 * enough))
            shift = _quadratic(columns, state, (w[g], codes[1]), working, inner)
            t = _advance(columns, (ys[g], options), (w[g], codes[1], codes[0]), (eta, rows[3], rows[4], shift))
            if t == 0.0:
                break
            b[g] += t * shift
        left[g] = worst / sizes[g]


@compiled
def _add(columns: Any, w: Any, eta: Any) -> None:
    indptr, rows, values = columns
    for j in range(w.shape[0]):
        if w[j] != 0.0:
            for p in range(indptr[j], indptr[j + 1]):
                eta[rows[p]] += values[p] * w[j]


@compiled
def _advance(columns: Any, problem: Any, weights: Any, state: Any) -> Any:
    """Go from w to fresh, or half as far until the objective does not rise; returns how far, 0 if not at all."""
    y, options = problem
    w, fresh, trial = weights
    eta, step, tried, shift = state
    for j in range(w.shape[0]):
        trial[j] = fresh[j] - w[j]
    for i in range(y.shape[0]):
        step[i] = shift
    _add(columns, trial, step)
    before = _objective(y, eta, w, options)
    t = 1.0
    for _ in range(40):
        for i in range(y.shape[0]):
            tried[i] = eta[i] + t * step[i]
        for j in range(w.shape[0]):
            trial[j] = w[j] if fresh[j] == w[j] else (fresh[j] if t == 1.0 else w[j] + t * (fresh[j] - w[j]))
        if _objective(y, tried, trial, options) <= before + 1e-13 * abs(before):
            for i in range(y.shape[0]):
                eta[i] = tried[i]
            for j in range(w.shape[0]):
                w[j] = trial[j]
            return t
        t *= 0.5
    return 0.0


@compiled
def _derive(y: Any, eta: Any, options: Any, into: Any) -> Any:
    """Fill −slopes and curvatures of the rows, each divided by n; return Σ of the curvatures and of the slopes."""
    r, omega = into
    n = y.shape[0]
    total = surplus = 0.0
    for i in range(n):
        _, first, second = _parts(options[0], y[i], eta[i], options[1])
        r[i], omega[i] = -first / n, second / n
        total += omega[i]
        surplus += r[i]
    return total, surplus


@compiled
def _look(columns: Any, r: Any, w: Any, into: Any, penalty: Any) -> Any:
    """Take the slopes of all codes, choose the working set; return its size and the largest violation."""
    indptr, rows, values = columns
    slope, active = into
    l1, l2, enough = penalty
    n_active, worst = 0, 0.0
    for j in range(w.shape[0]):
        found = 0.0
        for p in range(indptr[j], indptr[j + 1]):
            found += values[p] * r[rows[p]]
        slope[j] = found
        far = off(found, w[j], (l1, l2))
        worst = max(worst, far)
        if w[j] != 0.0 or far > 0.3 * enough:
            active[n_active] = j
            n_active += 1
    return n_active, worst


@compiled
def _quadratic(columns: Any, state: Any, weights: Any, working: Any, penalty: Any) -> Any:
    """Settle the quadratic problem over the working set, with the bias taken out; return the bias's step."""
    indptr, rows, values = columns
    r, omega, total, surplus = state
    w, fresh = weights
    active, n_active, bend = working
    l1, l2, enough = penalty
    for j in range(w.shape[0]):
        fresh[j] = w[j]
    for a in range(n_active):
        j = active[a]
        once = twice = 0.0
        for p in range(indptr[j], indptr[j + 1]):
            once += omega[rows[p]] * values[p]
            twice += omega[rows[p]] * values[p] * values[p]
        bend[0, j], bend[1, j] = once, max(twice - once * once / total, 1e-14 * twice)
    for _ in range(_FEW if n_active <= _MOST else SWEEPS):
        worst = 0.0
        for a in range(n_active):
            j = active[a]
            found = -bend[0, j] * surplus / total
            for p in range(indptr[j], indptr[j + 1]):
                found += values[p] * r[rows[p]]
            worst = max(worst, off(found, fresh[j], (l1, l2)))
            own = bend[1, j]
            if own + l2 <= 0.0:
                continue
            new = shrunk(found + own * fresh[j], l1) / (own + l2)
            change = new - fresh[j]
            if change != 0.0:
                fresh[j] = new
                surplus -= bend[0, j] * change
                for p in range(indptr[j], indptr[j + 1]):
                    r[rows[p]] -= omega[rows[p]] * values[p] * change
        if worst <= enough:
            return surplus / total
    if n_active <= _MOST:
        surplus = _long(columns, (r, omega, total, surplus), fresh, (active[:n_active], bend), penalty)
    return surplus / total


@compiled
def _long(columns: Any, state: Any, fresh: Any, working: Any, penalty: Any) -> Any:
    """Settle what a few sweeps have not, on the weighted Gram matrix of the working set; return what is left of R."""
    indptr, rows, values = columns
    r, omega, total, surplus = state
    active, bend = working
    n = active.shape[0]
    starts = np.zeros(r.shape[0] + 1, np.int64)
    for a in range(n):
        for p in range(indptr[active[a]], indptr[active[a] + 1]):
            starts[rows[p] + 1] += 1
    for i in range(r.shape[0]):
        starts[i + 1] += starts[i]
    place, which, what = starts[:-1].copy(), np.empty(starts[-1], np.int64), np.empty(starts[-1])
    slope, now = np.empty(n), np.empty(n)
    for a in range(n):  # the working set by row
        j = active[a]
        now[a] = fresh[j]
        slope[a] = -bend[0, j] * surplus / total
        for p in range(indptr[j], indptr[j + 1]):
            i = rows[p]
            slope[a] += values[p] * r[i]
            which[place[i]], what[place[i]] = a, values[p]
            place[i] += 1
    gram = np.zeros((n, n))
    for i in range(r.shape[0]):
        for p in range(starts[i], starts[i + 1]):
            scaled = omega[i] * what[p]
            for q in range(starts[i], p + 1):
                gram[which[p], which[q]] += scaled * what[q]
    for a in range(n):
        for b in range(a + 1):
            gram[a, b] -= bend[0, active[a]] * bend[0, active[b]] / total
            gram[b, a] = gram[a, b]
        gram[a, a] = bend[1, active[a]]
    settle(gram, (slope, now), penalty)
    for a in range(n):
        surplus -= bend[0, active[a]] * (now[a] - fresh[active[a]])
        fresh[active[a]] = now[a]
    return surplus
