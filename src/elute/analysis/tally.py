"""What the codes of cells say, in one pass: of each feature, on each gene, in each cell.

1. Codes are copied together without their empty slots until there are enough of them, checked on the way.
2. Then they are added up by cell and by gene (`tally_kernels.add`), each sum a pair that `Pairs` keeps.
3. What each row's gene was expressed, (cell, gene, e), is appended to a file without a name: what comes later, the
   correlation over cells, needs it in pieces.

Memory: the codes that wait, two `Pairs` with their limits, and tables of features, genes and cells. Activations and
expressions are read as float32 and added up in float64. A feature fired where its value is not 0; negative values count
with their sign, so that the highest value of a feature that is only ever negative is below 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt

from elute.analysis import tally_kernels as kernels
from elute.analysis.pair_runs import PAIR, Run, seen, shortened
from elute.analysis.pairs import IN_MEMORY, Pairs
from elute.analysis.row_file import ROW, RowFile, Rows, Table, rows_of
from elute.base.codes import Codes
from elute.base.errors import DataError
from elute.base.mergeable import Floats, Integers, Statistic, as_numpy, positive

if TYPE_CHECKING:
    from elute.base.contracts import Accumulator
    from elute.base.mergeable import Batch

    Read = tuple[Codes, Batch, Batch, Batch]  # codes, cell of each row, gene, expression

BINS = kernels.BINS + 2
EDGES: tuple[float, ...] = tuple(
    2.0 ** (kernels.LOWEST + i // 2) * (1.5 if i % 2 else 1.0) for i in range(kernels.BINS + 1)
)
"""Between the bins of strength: the first bin lies below the first edge, the last one from the last edge on."""

_WAITING = 2**23  # codes that wait
_WAITING_ROWS = 2**18
_COPIED = 2**20  # rows at a time

Taken = tuple[Integers, Integers]  # the codes, each its feature and the bits of its value; where each row ends


@dataclass(frozen=True, eq=False)
class Tallied:
    """What was counted; F features, G genes, C cells. Where a feature never fired its numbers are 0."""

    n_rows: int
    fired: Integers  # [F] rows in which it fired
    sums: Floats  # [F] Σ a
    squares: Floats  # [F] Σ a²
    highs: Floats  # [F] the largest a
    histogram: Integers  # [F, 42] of |a| where it fired, between EDGES
    gene_rows: Integers  # [G]
    gene_weights: Floats  # [G] Σ e
    gene_squares: Floats  # [G] Σ e²
    cell_rows: Integers  # [C]
    genes: Pairs  # features × genes
    cells: Pairs  # features × cells
    expression: Rows


class Tally(Statistic):
    """The pass over the codes: update with (codes, cell, gene and expression e of each row)."""

    _settings = ("n_features", "n_cells", "n_genes")
    _kept = (
        "n_rows",
        "fired",
        "sums",
        "squares",
        "highs",
        "histogram",
        "gene_rows",
        "gene_weights",
        "gene_squares",
        "cell_rows",
    )

    def __init__(
        self,
        n_features: int,
        n_cells: int,
        n_genes: int,
        *,
        most_pairs: int = IN_MEMORY,
        waiting: int = _WAITING,
        folder: Path | None = None,
    ) -> None:
        F, C, G = (positive(*each) for each in (("n_features", n_features), ("n_cells", n_cells), ("n_genes", n_genes)))
        self.n_features, self.n_cells, self.n_genes = F, C, G
        self._limit = positive("waiting", waiting)
        self.n_rows = 0
        self.fired, self.sums, self.squares = np.zeros(F, np.int64), np.zeros(F), np.zeros(F)
        self.highs, self.histogram = np.full(F, -np.inf), np.zeros((F, BINS), np.int64)
        self.gene_rows, self.gene_weights, self.gene_squares = np.zeros(G, np.int64), np.zeros(G), np.zeros(G)
        self.cell_rows = np.zeros(C, np.int64)
        self.genes = Pairs(F, G, most_pairs=most_pairs, folder=folder)
        self.cells = Pairs(F, C, most_pairs=most_pairs, folder=folder)
        self._file = RowFile(folder)
        self._n, self._n_codes = 0, 0  # rows and codes that wait
        self._make_room(0, 0)

    def _make_room(self, codes: int, rows: int) -> None:
        """Lay out where codes wait; what is never written takes no memory."""
        codes, rows = max(codes, self._limit), max(rows, min(_WAITING_ROWS, self._limit))
        self._codes: Taken = (np.empty(codes, np.int64), np.zeros(rows + 1, np.int64))
        self._rows = np.empty(rows, ROW)

    def update(self, batch: Read, /) -> None:
        """Take in rows: their codes, and the cell, the gene and the expression of each."""
        codes, rows = self._checked(batch)
        n, k = codes.indices.shape
        if self._n_codes + n * k > len(self._codes[0]) or self._n + n > len(self._rows):
            self._settle()
            if n * k > len(self._codes[0]) or n > len(self._rows):
                self._make_room(n * k, n)
        end = _copied(codes, self._codes, self._n, self._n_codes)
        self._rows[self._n : self._n + n] = rows
        self._n, self._n_codes = self._n + n, end

    def _checked(self, batch: object) -> tuple[Codes, Table]:
        if not isinstance(batch, tuple) or len(batch) != 4 or not isinstance(batch[0], Codes):
            raise DataError("a batch must be (codes, cells, genes, weights)")
        codes = batch[0]
        if self.n_rows + self._n + len(codes) >= 2**32:
            raise DataError("more rows than a tally can count", remedy="Take fewer cells.")
        if codes.n_features != self.n_features:
            raise DataError(f"codes of {codes.n_features} features where {self.n_features} are expected")
        cells, genes, weights = (as_numpy(part) for part in batch[1:])
        for what, part in (("cells", cells), ("genes", genes), ("weights", weights)):
            if part.shape != (len(codes),):
                raise DataError(f"{what} of shape {part.shape} for {len(codes)} rows of codes")
        rows = rows_of(cells, genes, weights, n_cells=self.n_cells, n_genes=self.n_genes)
        return codes, rows

    def _settle(self) -> None:
        """Add up what waits."""
        if not self._n:
            return
        codes, rows = (self._codes[0][: self._n_codes], self._codes[1][: self._n + 1]), self._rows[: self._n]
        e = np.ascontiguousarray(rows["e"])
        by_cell = grouped(codes, np.ascontiguousarray(rows["cell"]), e, n_features=self.n_features)
        by_gene = grouped(codes, np.ascontiguousarray(rows["gene"]), e, n_features=self.n_features)
        self._file.append(rows)
        kernels.totals(*_halves(codes[0]), (self.squares, self.histogram))
        kept = (self.fired, self.sums, self.highs)
        kernels.by_feature(seen(by_cell), kept)
        self._count(rows["cell"], rows["gene"], e.astype(np.float64))
        self.cells.take(by_cell)
        self.genes.take(by_gene)
        self.n_rows += self._n
        self._n = self._n_codes = 0

    def _count(self, cells: npt.NDArray[np.int32], genes: npt.NDArray[np.int32], e: Floats) -> None:
        G, first = self.n_genes, int(cells.min())
        counts = np.bincount(cells - first)
        self.cell_rows[first : first + len(counts)] += counts
        self.gene_rows += np.bincount(genes, minlength=G)
        self.gene_weights += np.bincount(genes, e, minlength=G)
        self.gene_squares += np.bincount(genes, e * e, minlength=G)

    def merge(self, other: Tally, /) -> None:
        """Take in what another one has seen."""
        self.check_kin(other)
        self._settle()
        seen = other.result()
        for start in range(0, seen.expression.n, _COPIED):
            self._file.append(seen.expression.file.read(start, min(start + _COPIED, seen.expression.n)))
        self.n_rows += seen.n_rows
        self.highs = np.maximum(self.highs, other.highs)
        for name in ("fired", "sums", "squares", "histogram", "gene_rows", "gene_weights", "gene_squares", "cell_rows"):
            setattr(self, name, getattr(self, name) + getattr(seen, name))
        self.genes.merge(seen.genes)
        self.cells.merge(seen.cells)

    def result(self) -> Tallied:
        """Return what was counted so far; pairs and rows are shared, not copied."""
        self._settle()
        kept = {name: np.copy(getattr(self, name)) for name in self._kept if name != "n_rows"}
        kept["highs"] = np.where(self.fired > 0, self.highs, 0.0)
        genes, cells = self.genes.snapshot(), self.cells.snapshot()
        return Tallied(self.n_rows, **kept, genes=genes, cells=cells, expression=self._file.rows())

    def state(self) -> dict[str, Any]:
        """Return arrays and numbers from which the tally can go on; what is large is mapped from files."""
        self._settle()
        held = super().state()
        for name in ("genes", "cells"):
            held |= {f"{name}.{key}": value for key, value in getattr(self, name).state().items()}
        rows = self._file.mapped()
        return held | {f"expression.{name}": rows[name] for name in ROW.names or ()}

    @classmethod
    def from_state(
        cls, state: Mapping[str, Any], /, *, most_pairs: int = IN_MEMORY, folder: Path | None = None
    ) -> Self:
        """Go on from a state; lists stand for arrays, so it may have passed through JSON."""
        made = super().from_state(state)
        made._file = RowFile(folder)
        for name in ("genes", "cells"):
            part = {key.removeprefix(f"{name}."): value for key, value in state.items() if key.startswith(f"{name}.")}
            pairs = Pairs.from_state(part, most_pairs=most_pairs, folder=folder)
            pairs.check_kin(getattr(made, name))
            setattr(made, name, pairs)
        if lacks := [name for name in ROW.names or () if f"expression.{name}" not in state]:
            raise DataError(f"the state of {cls.__name__} lacks expression.{lacks[0]}")
        columns = [np.asarray(state[f"expression.{name}"]) for name in ROW.names or ()]
        if any(column.shape != (made.n_rows,) for column in columns):
            raise DataError(f"the rows in the state of {cls.__name__} are not as many as it says")
        for start in range(0, made.n_rows, _COPIED):
            piece = [column[start : start + _COPIED] for column in columns]
            made._file.append(rows_of(*piece, n_cells=made.n_cells, n_genes=made.n_genes))
        return made


def _copied(codes: Codes, into: Taken, n: int, at: int) -> int:
    """Check codes and copy them without empty slots behind the n rows and `at` codes that are there."""
    idx = np.ascontiguousarray(codes.indices.cpu().numpy())
    val = np.ascontiguousarray(codes.values.detach().cpu().float().numpy())
    end, bad = kernels.read((idx, val.view(np.int32)), np.zeros(codes.n_features, np.uint16), (*into, n, at))
    if bad >= 0:
        codes.check()
        raise DataError(f"row {bad} of codes holds a value that float32 does not")
    return int(end)


def _halves(codes: Integers) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.float32]]:
    """See codes as pairs of 32 bits: the feature first, the value second."""
    return codes.view(np.int32).reshape(-1, 2), codes.view(np.float32).reshape(-1, 2)


def pair_sums(codes: Codes, groups: npt.NDArray[np.int32], weights: npt.NDArray[np.float32]) -> Run:
    """Add up codes that are in memory by group of their row and feature: a run for `Pairs`."""
    taken = np.empty(codes.indices.numel(), np.int64), np.zeros(len(codes) + 1, np.int64)
    n = _copied(codes, taken, 0, 0)
    return grouped((taken[0][:n], taken[1]), groups, weights, n_features=codes.n_features)


def grouped(codes: Taken, groups: npt.NDArray[np.int32], weights: npt.NDArray[np.float32], *, n_features: int) -> Run:
    """Add up codes by the group of their row and by feature."""
    lowest, span = int(groups.min()), int(groups.max() - groups.min()) + 1
    if span > 4 * len(groups) + 2**16:  # few of very many
        found, places = np.unique(groups, return_inverse=True)
        names, groups, lowest = found.astype(np.int32), places.astype(np.int32), 0
    else:
        names = np.arange(lowest, lowest + span, dtype=np.int32)
    starts, rows = np.zeros(len(names) + 1, np.int64), np.empty(len(groups), np.int64)
    kernels.order(groups, lowest, (starts, rows))
    run = np.empty(len(codes[0]), PAIR)  # at most
    out = (np.full(n_features, -1, np.int64), *seen(run))
    taken = (codes[0], _halves(codes[0])[1], codes[1], weights)
    n = kernels.add((rows, starts, names), taken, out)
    return shortened(run, n)


if TYPE_CHECKING:
    # The type checker holds it to the contract here.
    _TALLY: Accumulator[Read, Tallied] = Tally(1, 1, 1)
