"""The sparse work on a CPU, compiled: choose the strongest, decode, and gradients for what fired alone.

Codes are `idx` int32[n, k] and `val` float[n, k]; a value of 0 marks an empty slot. `W` holds a row a feature.

Choosing the k largest of a row exactly, without sorting it. Numbers are compared by their bits, as integers: floats
above zero have the order of their bits, those below are below zero, and a NaN is the largest, so that it comes out
(also one with the sign of a negative number, as inf − inf is on x86: it loses that sign first).
1. The row is cut into groups, at least k of them, and each gives its maximum (vectorised).
2. The k-th largest maximum is a lower bound of the k-th largest number: k groups hold one that is no smaller.
3. Groups below the bound are passed over; of the rest, numbers that reach it are candidates, hardly more than k.
4. A quick selection among the candidates finds the k-th largest; of equal numbers the first is kept.

Gradients by feature: the slots are sorted by feature (a counting sort), and each feature sums its rows in cache.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from elute.base.compiled import compiled, over

if TYPE_CHECKING:
    from torch import Tensor

_WIDE, _NARROW = 64, 16  # columns of one group


def top(pre: Tensor, k: int, *, signed: bool = False) -> tuple[Tensor, Tensor]:
    """Return index and value of the k largest of each row, in order of index: above zero, or by magnitude."""
    n, width = pre.shape
    idx = torch.zeros(n, k, dtype=torch.int32)
    val = pre.new_zeros(n, k)
    size = next((size for size in (_WIDE, _NARROW) if width // size >= 2 * k), 0)
    bits = torch.int32 if pre.dtype == torch.float32 else torch.int64
    kind = np.int32 if bits == torch.int32 else np.int64
    plus = kind(np.iinfo(kind).max)  # every bit but the sign
    lowest = np.array(-np.inf, pre.numpy().dtype).view(kind)[()]
    mask = plus if signed else kind(-1)
    over(n, _top, pre.view(bits).numpy(), k, size, mask, plus, lowest, idx.numpy(), val.view(bits).numpy())
    return idx, val


def decode(idx: Tensor, val: Tensor, W: Tensor, *, into: Tensor) -> None:
    """Add the weighted rows of W to each row of `into`."""
    over(len(idx), _decode, idx.numpy(), val.numpy(), W.numpy(), into.numpy())


def slopes(idx: Tensor, val: Tensor, W: Tensor, *, g: Tensor) -> Tensor:
    """Return the product of g's row with each row of W that fired: the gradient of the values."""
    out = torch.zeros_like(val)
    over(len(idx), _slopes, idx.numpy(), val.numpy(), W.numpy(), g.numpy(), out.numpy())
    return out


def residual(idx: Tensor, val: Tensor, W: Tensor, *, base: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return base + decoded − y, and its slopes, in one pass over the codes."""
    r, out = torch.empty_like(y), torch.zeros_like(val)
    over(len(idx), _residual, idx.numpy(), val.numpy(), W.numpy(), base.numpy(), y.numpy(), r.numpy(), out.numpy())
    return r, out


def gather(
    idx: Tensor, val: Tensor, slope: Tensor, *, g: Tensor, x: Tensor, scale: float, into: tuple[Tensor, Tensor, Tensor]
) -> None:
    """Add to (dW_dec, dW_enc, db_enc) what each feature's rows give: value × g, slope × x, slope; all × scale."""
    scaled = val.numpy().dtype.type(scale)
    starts, *sorted_ = _by_feature(idx.numpy(), val.numpy(), slope.numpy(), scaled, len(into[0]))
    over(starts, _gather, starts, *sorted_, g.numpy(), x.numpy(), *(tensor.numpy() for tensor in into))


@compiled
def _maxima(row: Any, mask: Any, size: int, out: Any) -> None:
    """The largest of each group; what is left over at the end belongs to the last. Constant lengths are vectorised."""
    for b in range(out.shape[0]):
        most = mask & 0
        if size == _WIDE:
            group = row[b * _WIDE : b * _WIDE + _WIDE]
            for j in range(_WIDE):
                most = max(most, group[j] & mask)
        else:
            group = row[b * _NARROW : b * _NARROW + _NARROW]
            for j in range(_NARROW):
                most = max(most, group[j] & mask)
        out[b] = most
    for j in range(out.shape[0] * size, row.shape[0]):
        out[-1] = max(out[-1], row[j] & mask)


@compiled
def _unsign(row: Any, plus: Any, lowest: Any) -> None:
    """Take the sign from NaNs that have one: as integers, they alone lie between −inf and 0."""
    most = lowest
    for j in range(row.shape[0]):
        most = max(most, row[j] if row[j] < 0 else lowest)
    if most > lowest:
        for j in range(row.shape[0]):
            if lowest < row[j] < 0:
                row[j] &= plus


@compiled
def _top(pre: Any, k: int, size: int, mask: Any, plus: Any, lowest: Any, idx: Any, val: Any, lo: int, hi: int) -> None:
    width = pre.shape[1]
    groups = width // size if size else 1
    maxima = np.empty(groups, pre.dtype)
    work = np.empty(width, pre.dtype)
    places = np.empty(width, np.int32)
    for r in range(lo, hi):
        row = pre[r]
        if mask < 0:
            _unsign(row, plus, lowest)
        bound = mask & 0
        if size:
            _maxima(row, mask, size, maxima)
            work[:groups] = maxima
            bound = _kth(work, groups, k)
        bound = max(bound, (mask & 0) + 1)
        m = 0
        for b in range(groups):
            if size == 0 or maxima[b] >= bound:
                for j in range(b * size, width if b == groups - 1 else b * size + size):
                    if row[j] & mask >= bound:
                        work[m] = row[j] & mask
                        places[m] = j
                        m += 1
        least, equal = bound, m
        if m > k:
            least = _kth(work, m, k)
            equal = k
            for c in range(k):  # the selection has moved the k largest to the front
                equal -= work[c] > least
        slot = 0
        for c in range(m):
            strength = row[places[c]] & mask
            if strength < least or (strength == least and equal == 0):
                continue
            equal -= strength == least
            idx[r, slot] = places[c]
            val[r, slot] = row[places[c]]
            slot += 1


@compiled
def _kth(a: Any, n: int, k: int) -> Any:
    """The k-th largest of the first n numbers, which are reordered (Hoare's selection, the middle as pivot)."""
    lo, hi, want = 0, n - 1, k - 1
    while lo < hi:
        pivot = a[(lo + hi) // 2]
        i, j = lo, hi
        while i <= j:
            while a[i] > pivot:
                i += 1
            while a[j] < pivot:
                j -= 1
            if i <= j:
                a[i], a[j] = a[j], a[i]
                i += 1
                j -= 1
        if want <= j:
            hi = j
        elif want >= i:
            lo = i
        else:
            break
    return a[want]


@compiled
def _fired(idx: Any, val: Any, slots: Any, features: Any, values: Any) -> int:
    """Gather what fired in a row at the front of three arrays, and return how much."""
    m = 0
    for s in range(val.shape[0]):
        if val[s] != 0:
            slots[m], features[m], values[m] = s, idx[s], val[s]
            m += 1
    return m


@compiled
def _add(rows: Any, weights: Any, W: Any, out: Any) -> None:
    """Add weighted rows of W, four at a time: `out` is passed over less often, and rows are fetched side by side."""
    m = rows.shape[0]
    whole = m - m % 4
    for q in range(0, whole, 4):
        a, b, c, d = W[rows[q]], W[rows[q + 1]], W[rows[q + 2]], W[rows[q + 3]]
        va, vb, vc, vd = weights[q], weights[q + 1], weights[q + 2], weights[q + 3]
        for j in range(out.shape[0]):
            out[j] += va * a[j] + vb * b[j] + vc * c[j] + vd * d[j]
    for q in range(whole, m):
        a, va = W[rows[q]], weights[q]
        for j in range(out.shape[0]):
            out[j] += va * a[j]


@compiled
def _dots(rows: Any, W: Any, g: Any, slots: Any, out: Any) -> None:
    """Products of g with rows of W, two at a time, each into its slot."""
    m = rows.shape[0]
    zero = g.dtype.type(0)
    whole = m - m % 2
    for q in range(0, whole, 2):
        a, b = W[rows[q]], W[rows[q + 1]]
        ta = tb = zero
        for j in range(g.shape[0]):
            ta += a[j] * g[j]
            tb += b[j] * g[j]
        out[slots[q]], out[slots[q + 1]] = ta, tb
    for q in range(whole, m):
        a, ta = W[rows[q]], zero
        for j in range(g.shape[0]):
            ta += a[j] * g[j]
        out[slots[q]] = ta


@compiled
def _decode(idx: Any, val: Any, W: Any, out: Any, lo: int, hi: int) -> None:
    slots, features, values = np.empty(idx.shape[1], np.int64), np.empty_like(idx[0]), np.empty_like(val[0])
    for r in range(lo, hi):
        m = _fired(idx[r], val[r], slots, features, values)
        _add(features[:m], values[:m], W, out[r])


@compiled
def _slopes(idx: Any, val: Any, W: Any, g: Any, out: Any, lo: int, hi: int) -> None:
    slots, features, values = np.empty(idx.shape[1], np.int64), np.empty_like(idx[0]), np.empty_like(val[0])
    for r in range(lo, hi):
        m = _fired(idx[r], val[r], slots, features, values)
        _dots(features[:m], W, g[r], slots, out[r])


@compiled
def _residual(idx: Any, val: Any, W: Any, base: Any, y: Any, res: Any, out: Any, lo: int, hi: int) -> None:
    slots, features, values = np.empty(idx.shape[1], np.int64), np.empty_like(idx[0]), np.empty_like(val[0])
    for r in range(lo, hi):
        row = res[r]
        first = base[r if base.shape[0] > 1 else 0]
        for j in range(row.shape[0]):
            row[j] = first[j] - y[r, j]
        m = _fired(idx[r], val[r], slots, features, values)
        _add(features[:m], values[:m], W, row)
        _dots(features[:m], W, row, slots, out[r])


@compiled
def _by_feature(idx: Any, val: Any, slope: Any, scale: Any, features: int) -> Any:
    """Sort what fired by feature, in the order of rows within one: where each begins, rows, values, slopes."""
    starts = np.zeros(features + 1, np.int64)
    for r in range(idx.shape[0]):
        for s in range(idx.shape[1]):
            if val[r, s] != 0:
                starts[idx[r, s] + 1] += 1
    for f in range(features):
        starts[f + 1] += starts[f]
    rows, values, slopes = (
        np.empty(starts[-1], np.int32),
        np.empty(starts[-1], val.dtype),
        np.empty(starts[-1], val.dtype),
    )
    at = starts[:-1].copy()
    for r in range(idx.shape[0]):
        for s in range(idx.shape[1]):
            if val[r, s] != 0:
                p = at[idx[r, s]]
                rows[p], values[p], slopes[p] = r, val[r, s] * scale, slope[r, s] * scale
                at[idx[r, s]] += 1
    return starts, rows, values, slopes


@compiled
def _gather(
    starts: Any, rows: Any, values: Any, slopes: Any, g: Any, x: Any, dec: Any, enc: Any, bias: Any, lo: int, hi: int
) -> None:
    for f in range(lo, hi):
        part = slice(starts[f], starts[f + 1])
        _add(rows[part], values[part], g, dec[f])
        _add(rows[part], slopes[part], x, enc[f])
        bias[f] += slopes[part].sum()
