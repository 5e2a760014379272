"""What kind of numbers a matrix of cells holds: counts, or what has been made of them.

    counts            whole numbers from 0 on, in whatever type they are stored
    log-normalised    numbers from 0 to 20, not whole
    scaled            numbers below 0, not whole
    numbers           anything else from 0 on: rates, counts corrected for ambient RNA
    empty             no number but 0

NaN, infinity and negative whole numbers are kept as a fault, with the cell and the gene where the first one stands.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeAlias

from elute.base import console
from elute.base.errors import DataError
from elute.store.imports.nonzeros import Csr, Nonzeros, in_csr, joined

if TYPE_CHECKING:
    import numpy as np

    Integers: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

PIECE = 1 << 21  # stored numbers in a piece at most: two pieces, one read while one is used, are far below 64 MB
KEPT = 256 << 20  # bytes of a matrix that is kept once it has been read
_AT_ONCE = 1 << 18  # numbers judged in one go: small enough for the processor's cache
_LOG_BELOW = 20.0  # ln(1 + a million) is 13.8
IN_WORDS = {
    "log-normalised": "looks log-normalised (from 0 to below 20, not whole)",
    "scaled": "looks scaled (it has negative values)",
    "numbers": "holds numbers that are not whole, and too large for logarithms",
    "empty": "holds nothing but 0",
    "counts": "holds counts",
}

Name: TypeAlias = Callable[[int], str]


@dataclass(frozen=True, eq=False)
class Fault:
    """The first number that no count can be, and where it stands."""

    what: str
    row: int
    column: int

    def error(self, where: str, cell: Name, gene: Name) -> DataError:
        """Say which cell and gene it is."""
        return DataError(
            f"{self.what} in cell {cell(self.row)!r}, gene {gene(self.column)!r}",
            where=where,
            remedy="Counts are whole numbers from 0 on: look at what wrote the matrix, or choose another (--matrix).",
        )


@dataclass(frozen=True, eq=False)
class Look:
    """What a pass over some rows of a matrix found; of a pass that was broken off, `lengths` and `filled` are short."""

    kind: str
    fault: Fault | None
    whole: bool  # whether all numbers are whole, but for what the fault is
    lengths: Integers  # stored numbers of each row
    filled: np.ndarray[Any, np.dtype[np.bool_]]  # whether any of them is not 0
    kept: Nonzeros | None  # the rows themselves, if they were to be kept and are small


class _Judge:
    """Smallest and largest number, whether all are whole, and the first that is none."""

    def __init__(self, where: str, width: int) -> None:
        self.where, self.width = where, width
        self.low, self.high, self.whole = 0.0, 0.0, True
        self.odd: Fault | None = None
        self.negative: Fault | None = None

    def add(self, rows: Integers, csr: Csr) -> None:
        import numpy as np

        for at in range(0, len(csr.data), _AT_ONCE):
            part = csr.data[at : at + _AT_ONCE]
            low, high = float(part.min()), float(part.max())  # NaN if there is one
            if not np.isfinite([low, high]).all():
                known = np.isfinite(part)
                if self.odd is None:
                    first = int(np.flatnonzero(~known)[0])
                    self.odd = self._fault(f"{part[first]}", at + first, (rows, csr))
                part = part[known]
                low, high = (float(part.min()), float(part.max())) if len(part) else (0.0, 0.0)
            if low < 0 and self.negative is None:
                first = int(np.flatnonzero(csr.data[at : at + _AT_ONCE] < 0)[0])
                what = f"the negative number {csr.data[at + first]:g}"
                self.negative = self._fault(what, at + first, (rows, csr))
            self.low, self.high = min(self.low, low), max(self.high, high)
            self.whole = self.whole and bool((part == np.rint(part)).all())

    def _fault(self, what: str, at: int, held: tuple[Integers, Csr]) -> Fault:
        import numpy as np

        rows, csr = held
        row = int(np.searchsorted(csr.indptr, at, side="right")) - 1
        return Fault(what, int(rows[row]), int(csr.indices[at]))

    def twice(self, rows: Integers, csr: Csr) -> Fault | None:
        """Find a gene that stands twice in one cell; rows whose columns ascend have none."""
        import numpy as np

        falls = np.flatnonzero(csr.indices[1:] <= csr.indices[:-1]) + 1
        if not len(falls) or np.isin(falls, csr.indptr, assume_unique=False).all():
            return None
        row = np.repeat(np.arange(len(rows)), np.diff(csr.indptr))
        key = np.sort(row * self.width + csr.indices)
        again = np.flatnonzero(key[1:] == key[:-1])
        if not len(again):
            return None
        found = int(key[again[0]])
        return Fault("two numbers", int(rows[found // self.width]), found % self.width)

    def verdict(self) -> tuple[str, Fault | None, bool]:
        """Name the kind, the fault, and whether all is whole."""
        if self.odd is None and self.low == self.high == 0:
            return "empty", None, True
        if self.low < 0:
            return "scaled", self.odd or (self.negative if self.whole else None), self.whole
        kind = "counts" if self.whole else "log-normalised" if self.high < _LOG_BELOW else "numbers"
        return kind, self.odd, self.whole


def look(
    matrix: Nonzeros, rows: Integers, names: tuple[str, Name, Name], *, keep: bool = False, hasty: bool = False
) -> Look:
    """Read some rows through once and judge what they hold; `hasty` stops as soon as it is known to be no counts.

    `names` are the matrix's place, and what names a cell and a gene in messages. `keep` keeps the rows in memory.
    """
    import numpy as np

    judge, (where, cell, gene) = _Judge(where=names[0], width=max(1, matrix.shape[1])), names
    source, numbers = matrix.by_rows(rows)
    lengths, filled, size = [], [], 0
    kept: list[Csr] = []
    title = f"checking {where.rpartition('/')[2]}"
    with source.opened() as read, console.progress(title, len(rows), unit="cells") as bar:
        for start, stop in _groups(source, numbers):
            csr = read(numbers[start:stop])
            if (twice := judge.twice(rows[start:stop], csr)) is not None:
                error = twice.error(where, cell, gene)
                raise DataError(error.what, where=where, remedy="Add them up: adata.X.sum_duplicates().")
            judge.add(rows[start:stop], csr)
            lengths.append(np.diff(csr.indptr))
            filled.append(_filled(csr))
            size += csr.data.nbytes + csr.indices.nbytes + csr.indptr.nbytes
            keep = keep and size <= KEPT and not source.in_memory
            kept = [*kept, csr] if keep else []
            del csr
            bar.advance(stop - start)
            kind, fault, _ = judge.verdict()
            if hasty and (kind not in ("counts", "empty") or fault is not None):
                keep = False
                break
    held = in_csr(joined(kept, matrix.shape[1]), matrix.shape[1]) if keep else None
    if source is not matrix and held is None:
        held = source  # it was turned into rows in memory, and need not be turned again
    none = np.empty(0, np.int64)
    return Look(*judge.verdict(), np.concatenate([none, *lengths]), np.concatenate([none > 0, *filled]), held)


def _filled(csr: Csr) -> np.ndarray[Any, np.dtype[np.bool_]]:
    """Tell which rows have a number that is not 0."""
    import numpy as np

    if csr.data.all():
        return csr.indptr[1:] > csr.indptr[:-1]
    before = np.concatenate([np.zeros(1, np.int64), np.cumsum(csr.data != 0)])
    return before[csr.indptr[1:]] > before[csr.indptr[:-1]]


def edges(lengths: Integers, cells: int, most: int = PIECE) -> list[int]:
    """Cut rows into pieces of so many, or of fewer where they hold more than `most` numbers."""
    import numpy as np

    ends = np.cumsum(lengths)
    found = [0]
    while found[-1] < len(lengths):
        at = found[-1]
        before = int(ends[at - 1]) if at else 0
        fits = int(np.searchsorted(ends[at : at + cells], before + most, side="right"))
        found.append(at + max(1, fits))
    return found


def _groups(matrix: Nonzeros, rows: Integers) -> list[tuple[int, int]]:
    """Cut rows into what is read at once; rows of a dense matrix are taken to be full."""
    import numpy as np

    lengths = np.full(len(rows), matrix.shape[1]) if matrix.lengths is None else matrix.lengths[rows]
    cuts = edges(lengths, max(1, len(rows)), PIECE // 2)
    return list(pairwise(cuts))
