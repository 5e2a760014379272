"""Tours made shorter until no single change helps: 2-opt and or-opt, an upper reference for a policy's tours.

1. 2-opt (G. Croes, 1958): a stretch is turned round wherever that makes the tour shorter.
2. Or-opt (I. Or, 1976): a chain of one to three nodes goes elsewhere, either way round.

`reference` begins with the nearest neighbour from every node, or from some, and keeps the best. Sums are in float64; a
change counts if it gains more than rounding could.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from elute.base.compiled import compiled, over

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

_GAIN = 1e-10  # of the longest edge


def between(coords: Tensor) -> Floats:
    """Return Euclidean distances between all nodes of each instance, [instances, nodes, nodes]."""
    x = coords.detach().cpu().double().numpy()
    found: Floats = np.sqrt(np.square(x[:, :, None] - x[:, None]).sum(-1))
    return found


def two_opt(coords: Tensor, tours: Tensor) -> Tensor:
    """Return tours [instances, nodes] from which no turning of a stretch gains."""
    return _improved(coords, tours, _two_opt)


def or_opt(coords: Tensor, tours: Tensor) -> Tensor:
    """Return tours [instances, nodes] from which no move of a short chain gains."""
    return _improved(coords, tours, _or_opt)


def reference(coords: Tensor, starts: int | None = None) -> tuple[Tensor, Tensor]:
    """Return the best tours [instances, nodes] that both find from nearest neighbours, and their lengths."""
    import torch

    lengths, tours = search(between(coords), starts)
    return torch.from_numpy(tours), torch.from_numpy(lengths)


def search(distances: Floats, starts: int | None = None) -> tuple[Floats, Ints]:
    """Return lengths and tours for distances [instances, nodes, nodes]."""
    d = np.ascontiguousarray(distances, np.float64)
    count, n = d.shape[:2]
    tours, lengths = np.zeros((count, n), np.int64), np.zeros(count)
    over(count, _reference, d, tours, lengths, min(n, starts or n))
    return lengths, tours


def _improved(coords: Tensor, tours: Tensor, kernel: Any) -> Tensor:
    import torch

    found = tours.detach().cpu().to(torch.int64).clone().contiguous()
    over(len(found), _each, between(coords), found.numpy(), kernel)
    return found


def _each(d: Any, tours: Any, kernel: Any, lo: int, hi: int) -> None:
    """Improve tours one by one. Not compiled: a kernel that is handed over is compiled anew by every process."""
    for b in range(lo, hi):
        kernel(d[b], tours[b])


@compiled
def _reference(d: Any, tours: Any, lengths: Any, starts: int, lo: int, hi: int) -> None:
    n = d.shape[1]
    tour = np.empty(n, np.int64)
    for b in range(lo, hi):
        best = np.inf
        for s in range(starts):
            _nearest(d[b], tour, (s * n) // starts)
            going = True
            while going:
                going = _two_opt(d[b], tour)
                going = _or_opt(d[b], tour) or going
            length = tour_length(d[b], tour)
            if length < best:
                best = length
                tours[b, :] = tour
        lengths[b] = best


@compiled
def tour_length(d: Any, tour: Any) -> float:
    """Return the length of one closed tour."""
    total = 0.0
    n = len(tour)
    for i in range(n):
        total += d[tour[i], tour[(i + 1) % n]]
    return total


@compiled
def _nearest(d: Any, tour: Any, start: int) -> None:
    n = len(tour)
    seen = np.zeros(n, np.bool_)
    tour[0] = start
    seen[start] = True
    for i in range(1, n):
        best = -1
        for j in range(n):
            if not seen[j] and (best < 0 or d[tour[i - 1], j] < d[tour[i - 1], best]):
                best = j
        tour[i] = best
        seen[best] = True


@compiled
def _two_opt(d: Any, tour: Any) -> bool:
    """Turn stretches round until none gains; tell whether any did."""
    n = len(tour)
    least = d.max() * _GAIN
    ever = False
    going = True
    while going:
        going = False
        for i in range(n - 2):
            for j in range(i + 2, n):
                a, b, c, e = tour[i], tour[i + 1], tour[j], tour[(j + 1) % n]
                if a != e and d[a, b] + d[c, e] - d[a, c] - d[b, e] > least:
                    tour[i + 1 : j + 1] = tour[i + 1 : j + 1][::-1].copy()
                    going = ever = True
    return ever


@compiled
def _or_opt(d: Any, tour: Any) -> bool:
    """Move chains of one to three nodes until no move gains; tell whether any did."""
    n = len(tour)
    least = d.max() * _GAIN
    ever = False
    going = n > 4
    while going:
        going = False
        for size in range(1, min(3, n - 3) + 1):
            for i in range(n):
                if _moved(d, tour, i, size, least):
                    going = ever = True
    return ever


@compiled
def _moved(d: Any, tour: Any, i: int, size: int, least: float) -> bool:
    """Move the chain that begins at place i where it gains most, if it gains."""
    n = len(tour)
    rolled = np.empty(n, np.int64)
    for p in range(n):  # the chain first, so that it does not run over the end
        rolled[p] = tour[(i + p) % n]
    first, last, before, after = rolled[0], rolled[size - 1], rolled[n - 1], rolled[size]
    saved = d[before, first] + d[last, after] - d[before, after]
    best, at, turned = least, -1, False
    for p in range(size, n - 1):
        a, b = rolled[p], rolled[p + 1]
        plain = saved + d[a, b] - d[a, first] - d[last, b]
        back = saved + d[a, b] - d[a, last] - d[first, b]
        if plain > best:
            best, at, turned = plain, p, False
        if back > best:
            best, at, turned = back, p, True
    if at < 0:
        return False
    place = 0
    for p in range(size, at + 1):
        tour[place] = rolled[p]
        place += 1
    for p in range(size):
        tour[place] = rolled[size - 1 - p] if turned else rolled[p]
        place += 1
    for p in range(at + 1, n):
        tour[place] = rolled[p]
        place += 1
    return True
