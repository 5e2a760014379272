"""Rows that were tallied, kept on the disk in the order in which they came: cell, gene and expression of each."""

from __future__ import annotations

import os
import tempfile
import weakref
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from elute.analysis.pair_runs import unnamed, write_whole
from elute.base.errors import DataError
from elute.base.files import disk_errors
from elute.base.mergeable import as_numpy, real, whole

ROW = np.dtype([("cell", np.int32), ("gene", np.int32), ("e", np.float32)])

Table = npt.NDArray[np.void]  # of ROW
Piece = tuple[npt.NDArray[np.int32], npt.NDArray[np.int32], npt.NDArray[np.float32]]


def rows_of(cells: object, genes: object, weights: object, *, n_cells: int, n_genes: int) -> Table:
    """Check columns of one length and put them side by side."""
    e = real(as_numpy(weights))
    if len(e) and np.abs(e).max() > np.finfo(np.float32).max:
        raise DataError("weights in a batch are larger than float32 holds")
    rows = np.empty(len(e), ROW)
    rows["cell"] = whole(as_numpy(cells), n_cells, "cell")
    rows["gene"] = whole(as_numpy(genes), n_genes, "gene")
    rows["e"] = e
    return rows


class RowFile:
    """A file without a name to which rows are appended; none is made before there is a row."""

    def __init__(self, folder: Path | None = None) -> None:
        self.folder, self.n = folder, 0
        self._number: int | None = None  # of the open file

    def append(self, rows: Table) -> None:
        """Write rows behind the others."""
        if self._number is None:
            with unnamed(self.folder) as handle:
                self._number = os.dup(handle.fileno())
            weakref.finalize(self, os.close, self._number)
        with disk_errors(self.folder or Path(tempfile.gettempdir())):
            write_whole(self._number, self.n * ROW.itemsize, rows)
        self.n += len(rows)

    def rows(self) -> Rows:
        """Return the rows so far, which stay when more are appended."""
        return Rows(self, self.n)

    def read(self, start: int, stop: int) -> Table:
        """Return rows."""
        if self._number is None or stop <= start:
            return np.empty(0, ROW)
        return np.frombuffer(os.pread(self._number, (stop - start) * ROW.itemsize, start * ROW.itemsize), ROW)

    def mapped(self) -> Table:
        """Return all rows as an array that lies in the file, to be read only."""
        if self._number is None or not self.n:
            return np.empty(0, ROW)
        with os.fdopen(os.dup(self._number), "rb") as handle:
            return np.memmap(handle, ROW, "r", shape=(self.n,)).view(np.ndarray)


@dataclass(frozen=True, eq=False)
class Rows:
    """The rows that were tallied, in the order in which they came."""

    file: RowFile
    n: int

    def __len__(self) -> int:
        return self.n

    def pieces(self, most: int = 2**20) -> Iterator[Piece]:
        """Yield cells, genes and expressions of so many rows at a time."""
        for start in range(0, self.n, most):
            rows = self.file.read(start, min(start + most, self.n))
            yield rows["cell"].copy(), rows["gene"].copy(), rows["e"].copy()
