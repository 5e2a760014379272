"""The loops that count what lists and terms share, compiled.

The product of lists × genes and genes × terms, a list at a time: its row lives in `shared` [terms], which is left as
zeros, and never as a matrix. A 2×2 table over one population is a list's size, a term's size and what they share. So
lists are taken by size, and for each there is a counter for each kind (size) of term and each number that may be
shared: of 82 million pairs a few thousand tables are different, and only those are ever tested.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from elute.base.compiled import compiled


@compiled
def _row(lists: Any, i: int, terms: Any, room: Any) -> int:
    """Add up what one list shares with each term; returns how many terms it touches, whose places are listed."""
    _, starts, genes = lists
    firsts, holders = terms[:2]
    shared, touched = room
    n = 0
    for p in range(starts[i], starts[i + 1]):
        g = genes[p]
        for q in range(firsts[g], firsts[g + 1]):
            t = holders[q]
            touched[n] = t
            n += shared[t] == 0
            shared[t] += 1
    return n


@compiled
def count(lists: Any, terms: Any, into: Any) -> int:
    """Write the tables of lists of one size, (kind, shared, how many pairs); returns how many there are.

    `lists`: which ones, starts, genes. `terms`: where each gene's terms begin, those terms, the kind of each term,
    where the counters of each kind begin, whether pairs that share nothing are counted, too. `into`: room for a row,
    the counters, left as zeros, and the most shared by kind, left as −1; and the three that are written.
    """
    kind, begins, every = terms[2:]
    room, counters, most, kinds, overlaps, pairs = into
    shared, touched = room
    for i in lists[0]:
        n = _row(lists, i, terms, room)
        for j in range(shared.shape[0] if every else n):
            t = j if every else touched[j]
            g, k = kind[t], shared[t]
            shared[t] = 0
            counters[begins[g] + k] += 1
            most[g] = max(most[g], k)
    m = 0
    for g in range(most.shape[0]):
        for k in range(most[g] + 1):
            n = counters[begins[g] + k]
            if n > 0:
                counters[begins[g] + k] = 0
                kinds[m], overlaps[m], pairs[m] = g, k, n
                m += 1
        most[g] = -1
    return m


@compiled
def write(lists: Any, terms: Any, into: Any) -> int:
    """Write (list, term, table) of pairs of lists of one size; returns how many.

    `into`: room for a row; for each counter the place of its table among those that are kept, or −1; what is written.
    """
    kind, begins, every = terms[2:]
    room, chosen, listed, index, table = into
    shared, touched = room
    m = 0
    for i in lists[0]:
        n = _row(lists, i, terms, room)
        for j in range(shared.shape[0] if every else n):
            t = j if every else touched[j]
            place = chosen[begins[kind[t]] + shared[t]]
            shared[t] = 0
            if place >= 0:
                listed[m], index[m], table[m] = i, t, place
                m += 1
    return m


@compiled
def upper_tails(cells: Any, groups: Any, out: Any) -> None:
    """Write log P(X ≥ a) of tables in groups of the same margins, a ascending within each.

    `groups`: where each ends, and the log probability of its last table. From it the tail is a series upwards and,
    divided by the probability of its first table, follows downwards: one step a value of a, and no factorial.
    """
    a, b, c, d = cells
    ends, log_top = groups
    at = 0
    for g in range(ends.shape[0]):
        first, at = at, ends[g] - 1
        x, y, z, w = float(a[at]), float(b[at]), float(c[at]), float(d[at])
        term, total = 1.0, 1.0
        while y > 0.0 and z > 0.0 and total < np.inf:
            x, w = x + 1.0, w + 1.0
            ratio = y * z / (x * w)
            y, z = y - 1.0, z - 1.0
            term *= ratio
            total += term
            if ratio < 1.0 and term * ratio <= 1e-17 * total * (1.0 - ratio):
                break
        x, y, z, w = float(a[at]), float(b[at]), float(c[at]), float(d[at])
        log_p = log_top[g]
        out[at] = min(log_p + np.log(total), 0.0)
        while at > first:
            at -= 1
            while x > a[at]:
                y, z = y + 1.0, z + 1.0
                ratio = y * z / (x * w)
                x, w = x - 1.0, w - 1.0
                total = 1.0 + total * ratio  # infinite where P(X < a) is below the last digit of 1
                log_p -= np.log(ratio)
            out[at] = min(log_p + np.log(total), 0.0)
        at = ends[g]
