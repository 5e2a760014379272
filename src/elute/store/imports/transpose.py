"""Turning a sparse matrix by columns (CSC) into one by rows, in memory, where a quarter of what is free holds it.

1. Count the wanted entries of each row, a piece of the file at a time.
2. Refuse what would not fit.
3. Read again and put each entry at its row's next free place: columns then ascend in every row.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from elute.base.console import size
from elute.base.errors import DamagedError, DataError
from elute.store.imports.parts import AGAIN

if TYPE_CHECKING:
    import numpy as np

    Integers: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

Entries: TypeAlias = Callable[[int, int], tuple[Any, Any]]
_PIECE = 1 << 20


def turned(indptr: Integers, entries: Entries, kind: tuple[Integers, tuple[int, int], str]) -> tuple[Any, Any, Any]:
    """Return some rows of a matrix by columns as indptr, indices and data."""
    import numpy as np

    rows, shape, where = kind
    place = np.full(shape[0], -1, np.int64)
    place[rows] = np.arange(len(rows))
    counts = np.zeros(len(rows) + 1, np.int64)
    ends = range(int(indptr[0]), int(indptr[-1]), _PIECE)
    for at in ends:
        found = _checked(entries(at, min(at + _PIECE, int(indptr[-1])))[0], shape[0], where)
        wanted = place[found]
        counts[1:] += np.bincount(wanted[wanted >= 0], minlength=len(rows))
    needed, free = int(counts.sum()) * 8 + 16 * shape[0], free_memory()
    if needed > free // 4:
        raise DataError(
            f"is sparse by columns (CSC), and {size(needed)} are needed to turn it, of {size(free)} free",
            where=where,
            remedy="Save it by rows: adata.X = adata.X.tocsr().",
        )
    edge = np.cumsum(counts)
    indices, data = np.empty(edge[-1], np.int32 if shape[1] < 2**31 else np.int64), np.empty(edge[-1], np.float32)
    free_place = edge[:-1].copy()
    for at in ends:
        stop = min(at + _PIECE, int(indptr[-1]))
        found, numbers = entries(at, stop)
        edges = np.clip(indptr, at, stop)
        columns = np.repeat(np.arange(shape[1]), edges[1:] - edges[:-1])
        wanted = place[_checked(found, shape[0], where)]
        # A stable sort by row keeps the columns' order within each row.
        order = np.argsort(wanted, kind="stable")[int((wanted < 0).sum()) :]
        row = wanted[order]
        times = np.bincount(row, minlength=len(rows))
        within = np.arange(len(row)) - np.repeat(np.cumsum(times) - times, times)
        target = free_place[row] + within
        with np.errstate(over="ignore"):
            indices[target], data[target] = columns[order], numbers[order]
        free_place += times
    return edge, indices, data


def _checked(found: Any, rows: int, where: str) -> Any:
    if len(found) and not 0 <= int(found.min()) <= int(found.max()) < rows:
        raise DamagedError(f"has a number in row {int(found.max())}, of {rows} rows", where=where, remedy=AGAIN)
    return found


def free_memory() -> int:
    """Bytes that a program may still take: what the machine has free, or less if it runs under a limit."""
    page = os.sysconf("SC_PAGE_SIZE")
    free = os.sysconf("SC_PHYS_PAGES") * page // 2
    try:
        lines = dict(line.split(":", 1) for line in Path("/proc/meminfo").read_text().splitlines())
        free = int(lines["MemAvailable"].split()[0]) * 1024
        group = Path("/sys/fs/cgroup")
        most = (group / "memory.max").read_text().strip()
        if most != "max":
            used = dict(line.split() for line in (group / "memory.stat").read_text().splitlines())
            cached = int(used["inactive_file"])  # files that the kernel drops as soon as room is needed
            free = min(free, max(0, int(most) - int((group / "memory.current").read_text()) + cached))
    except (OSError, KeyError, ValueError):
        pass  # no Linux, or no limit
    return free
