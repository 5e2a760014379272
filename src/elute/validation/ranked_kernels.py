"""The loops of a running sum over rankings, compiled.

A ranking is `first` and `last` [places], where the run of equal scores begins that stands at a place and where it ends,
and `weight` [places]. A set is the places of its genes, ascending. Everything is known from those: between two genes of
the set the sum only falls, so it is looked at where a run with genes of the set begins and where it ends.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from elute.base.compiled import compiled

_SLACK = 1e-12  # sums of the same numbers in another order differ in their last digits, and still are ties


@compiled
def rank(told: Any, lo: int, hi: int) -> None:
    """Write mean ranks from 1 at the lowest score, for lists lo … hi, from their genes in descending order.

    `told`: order, down, ranks, ties. `down` holds scores with the sign turned, infinite where a gene is not ranked: its
    rank stays 0. `ties`: of all runs of equal scores Σ t³ − t, the same without the zeros, and the zeros.
    """
    order, down, ranks, ties = told
    for i in range(lo, hi):
        n, a = 0, 0
        for g in range(order.shape[1]):
            n += down[i, g] < np.inf
        while a < n:
            value, b = down[i, order[i, a]], a + 1
            while b < n and down[i, order[i, b]] == value:
                b += 1
            for p in range(a, b):
                ranks[i, order[i, p]] = n - 0.5 * (a + b - 1)
            t = float(b - a)
            ties[i, 0] += t * t * t - t
            if value == 0.0:
                ties[i, 2] = t
            else:
                ties[i, 1] += t * t * t - t
            a = b


@compiled
def lay(told: Any, lo: int, hi: int) -> None:
    """Write rankings as `score` takes them, of lists lo … hi; `told`: order, down as in `rank`, place, rankings."""
    order, down, place, rankings = told
    n_ranked, first, last, weight, tied = rankings
    for i in range(lo, hi):
        n, a = 0, 0
        for g in range(order.shape[1]):
            n += down[i, g] < np.inf
        n_ranked[i] = n
        while a < n:
            value, b = down[i, order[i, a]], a + 1
            while b < n and down[i, order[i, b]] == value:
                b += 1
            tied[i] |= b > a + 1
            for p in range(a, b):
                place[i, order[i, p]] = p
                first[i, p], last[i, p], weight[i, p] = a, b, abs(value)
            a = b


@compiled
def _score(places: Any, n: int, ranking: Any, room: Any) -> Any:
    """Return the running sum's largest deviation from 0, and how many genes of the set lead up to it."""
    first, last, weight, tied = ranking
    s = places.shape[0]
    total = 0.0
    for i in range(s):
        room[i] = weight[places[i]]
        total += room[i]
    if not total > 0.0:  # genes without any weight count alike
        room[:s] = 1.0
        total = float(s)
    up, down = 1.0 / total, 1.0 / max(n - s, 1)
    high, low, leading, trailing = 0.0, 0.0, 0, 0
    i, held = 0, 0.0
    while i < s:
        at = np.int64(places[i])
        before = held - (np.int64(first[at] if tied else at) - i) * down
        if before < low - _SLACK:
            low, trailing = before, s - i
        stop = np.int64(last[at]) if tied else at + 1
        while i < s and places[i] < stop:
            held += room[i] * up
            i += 1
        after = held - (stop - i) * down
        if after > high + _SLACK:
            high, leading = after, i
        if after < low - _SLACK:
            low, trailing = after, s - i
    if high >= -low - _SLACK:
        return high, leading
    return low, trailing


@compiled
def score(told: Any, lo: int, hi: int) -> None:
    """Score every set in rankings lo … hi: size among the ranked genes, score, leading genes.

    `told`: place, starts and genes of the sets, rankings, what is written. `place` [lists, genes] is −1 where a gene is
    not ranked; `rankings`: genes ranked, first, last, weight, tied.
    """
    place, (starts, genes), rankings, out = told
    n_ranked, first, last, weight, tied = rankings
    sizes, scores, leading = out
    found, room = np.empty(place.shape[1], np.int32), np.empty(place.shape[1])
    for i in range(lo, hi):
        ranking = (first[i], last[i], weight[i], tied[i])
        for t in range(starts.shape[0] - 1):
            s = 0
            for p in range(starts[t], starts[t + 1]):
                at = place[i, genes[p]]
                if at >= 0:
                    found[s] = at
                    s += 1
            sizes[i, t] = s
            if s > 0:
                places = found[:s]
                places.sort()
                scores[i, t], leading[i, t] = _score(places, n_ranked[i], ranking, room)


@compiled
def draw(uniform: Any, pool: Any, out: Any) -> None:
    """Draw sets of places without replacement from numbers in [0, 1) [draws, size]; `pool` holds all places."""
    n = pool.shape[0]
    for r in range(uniform.shape[0]):
        for i in range(uniform.shape[1]):
            j = i + int(uniform[r, i] * (n - i))
            pool[i], pool[j] = pool[j], pool[i]
            out[r, i] = pool[i]


@compiled
def compare(told: Any, lo: int, hi: int) -> None:
    """Hold drawn sets against what was seen, a ranking a task.

    `told`: the draws, rankings, tasks, scores seen, what is written. `tasks`: the ranking of each, and where its scores
    begin in `seen`. Written are how often a drawn score is as extreme as each one seen; and by task, of drawn scores at
    or above 0 and below, their number and sum.
    """
    draws, rankings, (which, starts), seen, out = told
    n_ranked, first, last, weight, tied = rankings
    extreme, number, total = out
    room = np.empty(draws.shape[1])
    for task in range(lo, hi):
        i = which[task]
        ranking = (first[i], last[i], weight[i], tied[i])
        for r in range(draws.shape[0]):
            drawn = _score(draws[r], n_ranked[i], ranking, room)[0]
            side = 0 if drawn >= 0.0 else 1
            number[task, side] += 1
            total[task, side] += drawn
            for p in range(starts[task], starts[task + 1]):
                if seen[p] >= 0.0:
                    extreme[p] += drawn >= seen[p] - _SLACK
                else:
                    extreme[p] += drawn <= seen[p] + _SLACK
