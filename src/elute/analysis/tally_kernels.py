"""The loops of a tally and of its pairs, compiled.

Group by group, a gene or a cell: its pairs are added up where they are written, one behind another, and a table says
at which place each feature stands. A place before the group's first means that the feature is new to it, so that
nothing is ever cleared, and what is added to stays in the cache. The cost is that of the codes, never of features ×
groups. Runs of pairs are merged in the same way.

A pair is 32 bytes, seen as four whole numbers: other · 2³² + feature, Σ a, Σ a·e, and the count beside the largest a.
Pairs ascend by the other; the features of one are in the order in which they came. A code is 8 bytes: feature, value.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from llvmlite import ir  # type: ignore[import-untyped]
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from elute.base.compiled import compiled

BINS = 40  # two an octave, as the usage of a dictionary in training: [2^e, 1.5·2^e) and [1.5·2^e, 2^(e+1))
LOWEST = -10  # the exponent of the first edge
_FIRST = (127 + LOWEST) * 2  # half-octaves below it in a float32's bits
_NOT_FINITE = 0x7F800000
_FEATURE = 0xFFFFFFFF
_NONE = 2**31  # above every group
FAN = 8  # runs that are merged at once
_AHEAD = 2  # rows
_LINE = 8  # codes of a line of the cache


@compiled
def read(slots: Any, seen: Any, into: Any) -> Any:
    """Append the slots that are not empty to (codes, ends of rows); returns the end, and the first bad row or −1.

    Slots are features and the bits of their values; `row` rows and `at` codes are there already. `seen` [features]
    comes as zeros and holds the last row of each, by a short number.
    """
    idx, bits = slots
    codes, ends, row, at = into
    n_features = np.uint32(seen.shape[0])
    mark = np.uint16(0)
    for r in range(idx.shape[0]):
        mark = np.uint16(mark + 1)
        if mark == 0:
            seen[:] = 0
            mark = np.uint16(1)
        bad = False
        for j in range(idx.shape[1]):  # without a branch: what is wrong is looked for afterwards
            f, b = np.uint32(idx[r, j]), bits[r, j]
            outside = f >= n_features
            f = np.uint32(0) if outside else f
            fires = b & 0x7FFFFFFF != 0
            before = seen[f]
            bad |= outside | (b & _NOT_FINITE == _NOT_FINITE) | (fires & (before == mark))
            seen[f] = mark if fires else before
            codes[at] = (np.int64(b) << 32) | np.int64(f)
            at += fires
        if bad:
            return at, r
        ends[row + r + 1] = at
    return at, -1


@compiled
def totals(words: Any, values: Any, into: Any) -> None:
    """Add squares and strengths of codes, by feature; both are seen as pairs of 32 bits."""
    squares, histogram = into
    for p in range(words.shape[0]):
        f, a = words[p, 0], np.float64(values[p, 1])
        squares[f] += a * a
        place = ((words[p, 1] & 0x7FFFFFFF) >> 22) - _FIRST + 1
        histogram[f, min(max(place, 0), BINS + 1)] += 1


@compiled
def order(groups: Any, lowest: int, into: Any) -> None:
    """Sort rows by group, counting; rows of a group stay in order. `starts` comes as zeros, one more than groups."""
    starts, rows = into
    n = groups.shape[0]
    for i in range(n):
        starts[groups[i] - lowest + 1] += 1
    for g in range(1, starts.shape[0]):
        starts[g] += starts[g - 1]
    for i in range(n):
        g = groups[i] - lowest
        rows[starts[g]] = i
        starts[g] += 1
    for g in range(starts.shape[0] - 1, 0, -1):
        starts[g] = starts[g - 1]
    starts[0] = 0


def _prefetch(_context: Any, array: Any, _place: Any) -> Any:
    """What numba does not offer: have the processor bring a line into its cache meanwhile."""

    def _build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        data = context.make_array(signature.args[0])(context, builder, args[0]).data
        byte, number = ir.IntType(8).as_pointer(), ir.IntType(32)
        kind = ir.FunctionType(ir.VoidType(), [byte, number, number, number])
        make: Any = cgutils.get_or_insert_function
        fetch = make(builder.module, kind, "llvm.prefetch.p0i8")
        at = builder.bitcast(builder.gep(data, [args[1]]), byte)
        builder.call(fetch, [at, number(0), number(3), number(1)])  # to read, to stay, of data
        return context.get_dummy_value()

    return types.void(array, types.int64), _build


_fetch: Any = intrinsic(_prefetch)


@compiled
def add(grouped: Any, taken: Any, into: Any) -> int:
    """Add up each group's codes; returns how many pairs are written. The `places` of features come as -1."""
    rows, starts, names = grouped
    codes, values, ends, weights = taken
    places, keys, reals, counts, highs = into
    n, last = 0, rows.shape[0] - 1
    for g in range(starts.shape[0] - 1):
        base, group = n, np.int64(names[g]) << 32
        for p in range(starts[g], starts[g + 1]):
            far = rows[min(p + _AHEAD, last)]
            for j in range(ends[far], ends[far + 1], _LINE):
                _fetch(codes, j)  # rows of a group lie apart
            r = rows[p]
            e = np.float64(weights[r])  # float() would leave it in single precision
            for j in range(ends[r], ends[r + 1]):
                f, v = np.uint32(codes[j]), values[j, 1]  # unsigned: no index counts from the end
                place = places[f]
                new = place < base
                at = np.uint64(n if new else place)
                places[f] = at
                n += new
                a = np.float64(v)
                keys[at, 0] = group | np.int64(f)
                reals[at, 1] = (0.0 if new else reals[at, 1]) + a
                reals[at, 2] = (0.0 if new else reals[at, 2]) + a * e
                counts[at, 6] = np.uint32((0 if new else counts[at, 6]) + 1)
                highs[at, 7] = v if new else max(highs[at, 7], v)
    return n


@compiled
def _add_pairs(run: Any, p: int, group: int, places: Any, base: int, n: int, out: Any) -> Any:
    """Add a run's pairs of one group, from place p on; returns where they end, and where the merged ones do."""
    keys, reals, counts, highs = out
    while p < run[0].shape[0] and run[0][p, 0] >> 32 == group:
        key = run[0][p, 0]
        f = np.uint32(key & _FEATURE)
        place = places[f]
        new = place < base
        at = np.uint64(n if new else place)
        places[f] = at
        n += new
        keys[at, 0] = key
        reals[at, 1] = (0.0 if new else reals[at, 1]) + run[1][p, 1]
        reals[at, 2] = (0.0 if new else reals[at, 2]) + run[1][p, 2]
        counts[at, 6] = (np.uint32(0) if new else counts[at, 6]) + run[2][p, 6]
        highs[at, 7] = run[3][p, 7] if new else max(highs[at, 7], run[3][p, 7])
        p += 1
    return p, n


@compiled
def merge(runs: Any, places: Any, out: Any) -> int:
    """Merge FAN runs; returns how many pairs there are. `places` [features] comes as -1."""
    at, n = np.zeros(FAN, np.int64), 0
    while True:
        group, alike, only = _NONE, 0, 0
        for i in range(FAN):
            keys = runs[i][0]
            if at[i] < keys.shape[0] and keys[at[i], 0] >> 32 <= group:
                alike = alike + 1 if keys[at[i], 0] >> 32 == group else 1
                group, only = keys[at[i], 0] >> 32, i
        if alike == 0:
            return n
        if alike == 1:
            keys, p = runs[only][0], at[only]
            while p < keys.shape[0] and keys[p, 0] >> 32 == group:
                for t in range(4):
                    out[0][n, t] = keys[p, t]
                p += 1
                n += 1
            at[only] = p
        else:
            base = n
            for i in range(FAN):
                at[i], n = _add_pairs(runs[i], at[i], group, places, base, n, out)


@compiled
def by_feature(run: Any, into: Any) -> None:
    """Add pairs to (fired, sums, highs) of their features."""
    keys, reals, counts, highs = run
    fired, total, highest = into
    for p in range(keys.shape[0]):
        f = keys[p, 0] & _FEATURE
        fired[f] += counts[p, 6]
        total[f] += reals[p, 1]
        highest[f] = max(highest[f], highs[p, 7])


@compiled
def fault(run: Any, last: Any, n_others: int) -> int:
    """Look for a pair that is out of order (1), out of range (2), not finite or never seen (3).

    `last` is the other of the last pair, and that of each feature.
    """
    keys, reals, counts, _ = run
    group, seen = last
    for p in range(keys.shape[0]):
        other, f = keys[p, 0] >> 32, keys[p, 0] & _FEATURE
        if other < 0 or other >= n_others or f >= seen.shape[0]:
            return 2
        if other < group or seen[f] == other:
            return 1
        group = other
        seen[f] = other
        finite = abs(reals[p, 1]) < np.inf and abs(reals[p, 2]) < np.inf
        if not finite or counts[p, 6] == 0 or counts[p, 7] & _NOT_FINITE == _NOT_FINITE:
            return 3
    return 0


@compiled
def count(keys: Any, sizes: Any) -> None:
    """Count the pairs of each feature, one place on."""
    for p in range(keys.shape[0]):
        sizes[(keys[p, 0] & _FEATURE) + 1] += 1


@compiled
def share_out(keys: Any, where: Any, out: Any) -> None:
    """Copy pairs to the next place of the bucket of their feature."""
    bucket, place = where
    for p in range(keys.shape[0]):
        b = bucket[keys[p, 0] & _FEATURE]
        at = place[b]
        place[b] += 1
        for t in range(4):
            out[at, t] = keys[p, t]


@compiled
def turn(run: Any, where: Any, out: Any) -> None:
    """Sort pairs by feature, counting; those of one stay in order. `where`: the first one, where each begins."""
    first, place = where
    keys, reals, counts, highs = run
    others, ns, sums, weighted, highest = out
    for p in range(keys.shape[0]):
        f = (keys[p, 0] & _FEATURE) - first
        at = place[f]
        place[f] += 1
        others[at] = keys[p, 0] >> 32
        ns[at] = counts[p, 6]
        sums[at] = reals[p, 1]
        weighted[at] = reals[p, 2]
        highest[at] = highs[p, 7]
