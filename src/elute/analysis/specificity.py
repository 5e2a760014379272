"""How closely a feature's activation follows a gene's expression over cells, for a range of features at a time.

1. A [cells, features]: mean activation over a cell's rows. E [cells, genes]: expression, 0 where a gene is no row.
2. S = Eᵀ A, added up over pieces of the rows: each row adds e times its cell's line of A to its gene's line of S.
3. z = √(n − 1) · (S − n Ā Ē) / √(ΣA² − nĀ²) √(ΣE² − nĒ²), √(n − 1) times Pearson's correlation, over choosing cells and
   over showing ones apart.
4. The k largest of a feature by insertion, genes in order, so that of equals the first stays.

A range holds as many features as the memory allows, so that no matrix of all features and genes is ever made. Rows of a
cell must stand together for a gene that stands twice in a cell to count as one with the sum of both.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
from numpy.typing import NDArray

from elute.base.compiled import compiled, over
from elute.base.mergeable import Floats, Integers

if TYPE_CHECKING:
    import polars as pl

    from elute.analysis.pair_runs import Block
    from elute.analysis.pairs import Pairs
    from elute.analysis.tally import Tallied

CHOOSE, SHOW = 1, 2
_LEAST_CELLS = 3  # for a correlation to say anything


@dataclass(frozen=True, eq=False)
class Best:
    """The k best genes of each feature of a range, best first; −1 past the last one."""

    genes: Integers  # [features, k]

    def keys(self, n_genes: int) -> Integers:
        """Return feature · n_genes + gene of each, features from 0."""
        f, places = np.nonzero(self.genes >= 0)
        return f * n_genes + self.genes[f, places]

    def ranks(self) -> Integers:
        """Return the rank of each, from 1, in the same order."""
        return np.nonzero(self.genes >= 0)[1] + 1


@dataclass(frozen=True, eq=False)
class Ranked:
    """A range of features, from `first` on."""

    first: int
    z: Floats  # [genes, features]
    z_shown: Floats | None
    specific: Best  # by z
    raw: Best  # by score
    genes: Block  # the pairs of these features with genes
    cells_fired: Integers


@dataclass(frozen=True, eq=False)
class Moments:
    """Of each gene over the cells of one side."""

    n: int  # cells
    cells: Integers  # cells in which the gene is a row
    sums: Floats
    squares: Floats


def sides(cells: pl.DataFrame, cell_rows: Integers) -> NDArray[np.int8]:
    """Return for each cell whether it chooses (train), shows (test) or does neither; without a split all choose."""
    split = cells["split"] if "split" in cells.columns else None
    if split is None or split.null_count() == len(split):
        found = np.full(len(cells), CHOOSE, np.int8)
    else:
        named = [(split == name).fill_null(value=False).to_numpy() for name in ("train", "test")]
        found = np.select(named, [CHOOSE, SHOW], 0).astype(np.int8)
    found[cell_rows == 0] = 0
    return found


def ranked(tallied: Tallied, sides: NDArray[np.int8], *, k: int, least: int, limit: int) -> Iterator[Ranked]:
    """Yield all features in ranges, whose tables take about `limit` bytes."""
    G, C = len(tallied.gene_rows), len(tallied.cell_rows)
    moments = {side: _moments(tallied, sides, side) for side in (CHOOSE, SHOW)}
    shown = moments[SHOW].n >= _LEAST_CELLS
    width = max(1, limit // (8 * (C + (2 if shown else 1) * G)))
    enough = moments[CHOOSE].cells >= least
    for cells, genes in _together(tallied.cells, tallied.genes, width):
        n = cells.stop - cells.first
        A = np.zeros((C, n))
        features, pooled = cells.features() - cells.first, cells.sums / tallied.cell_rows[cells.others]
        A[cells.others, features] = pooled
        S, S_shown = np.zeros((G, n)), np.zeros((G if shown else 0, n))
        for rows in tallied.expression.pieces():
            over(n, _products, *rows, sides, A, S, S_shown)
        for side, table in ((CHOOSE, S), (SHOW, S_shown)):
            _standardise(table, moments[side], features, pooled * (sides[cells.others] == side))
        yield Ranked(
            cells.first,
            S,
            S_shown if shown else None,
            specific=_best_columns(S, enough, k),
            raw=_best_pairs(genes, k),
            genes=genes,
            cells_fired=np.diff(cells.indptr),
        )


def _together(cells: Pairs, genes: Pairs, width: int) -> Iterator[tuple[Block, Block]]:
    """Walk over both by the same ranges of features."""
    left, right = cells.blocks(), genes.blocks()
    a, b = next(left), next(right)
    first, n = 0, cells.n_features
    while first < n:
        stop = min(a.stop, b.stop, first + width)
        yield a.part(first, stop), b.part(first, stop)
        first = stop
        a = next(left) if first == a.stop < n else a
        b = next(right) if first == b.stop < n else b


def _moments(tallied: Tallied, sides: NDArray[np.int8], side: int) -> Moments:
    G = len(tallied.gene_rows)
    kept = np.zeros(G, np.int64), np.zeros(G), np.zeros(G)
    last, held = np.full(G, -1, np.int64), np.zeros(G)
    for rows in tallied.expression.pieces():
        _gene_moments(*rows, sides, side, last, held, kept)
    return Moments(int((sides == side).sum()), *kept)


def _standardise(S: Floats, of: Moments, features: NDArray[np.int32], pooled: Floats) -> None:
    """Turn sums of products into z, in place; NaN where there is no variance, or too few cells."""
    n, width = of.n, S.shape[1]
    sums, squares = (cast("Floats", np.bincount(features, x, minlength=width)) for x in (pooled, pooled * pooled))
    if n < _LEAST_CELLS:
        S.fill(np.nan)
        return
    slopes = [_inverse(squares - sums * sums / n, squares), _inverse(of.squares - of.sums * of.sums / n, of.squares)]
    over(len(S), _z, S, of.sums / n, slopes[1], sums, slopes[0], np.sqrt(n - 1.0))


def _inverse(around: Floats, squares: Floats) -> Floats:
    """Return 1 / √Σ(x − mean)², NaN where that is no more than rounding."""
    varies = around > 1e-12 * squares
    return np.where(varies, 1 / np.sqrt(np.where(varies, around, 1.0)), np.nan)


def _best_columns(z: Floats, allowed: NDArray[np.bool_], k: int) -> Best:
    width = z.shape[1]
    best, values = np.full((width, k), -1, np.int64), np.zeros((width, k))
    over(width, _columns, z, allowed, best, values, np.zeros(width), np.zeros(width, np.int64))
    return Best(best)


def _best_pairs(block: Block, k: int) -> Best:
    n = block.stop - block.first
    best, values = np.full((n, k), -1, np.int64), np.zeros((n, k))
    over(block.indptr, _pairs, block.indptr, block.others, block.weighted, best, values)
    return Best(best)


@compiled
def _gene_moments(cells: Any, genes: Any, e: Any, sides: Any, side: int, last: Any, held: Any, into: Any) -> None:
    counts, sums, squares = into
    for p in range(cells.shape[0]):
        c, g, x = cells[p], genes[p], np.float64(e[p])
        if sides[c] == side:
            if last[g] != c:
                counts[g] += 1
                last[g] = c
                held[g] = 0.0
            before = held[g]
            held[g] = before + x
            sums[g] += x
            squares[g] += held[g] * held[g] - before * before


@compiled
def _products(
    cells: Any, genes: Any, e: Any, sides: Any, A: Any, S: Any, S_shown: Any, lo: int, hi: int
) -> None:  # fmt: skip
    for p in range(cells.shape[0]):
        c, g, x = cells[p], genes[p], np.float64(e[p])
        if sides[c] == CHOOSE:
            for f in range(lo, hi):
                S[g, f] += x * A[c, f]
        elif sides[c] == SHOW and S_shown.shape[0] > 0:
            for f in range(lo, hi):
                S_shown[g, f] += x * A[c, f]


@compiled
def _z(S: Any, mean: Any, gene_scale: Any, sums: Any, scale: Any, root: float, lo: int, hi: int) -> None:
    for g in range(lo, hi):
        m, s = mean[g], gene_scale[g]
        for f in range(S.shape[1]):
            r = (S[g, f] - m * sums[f]) * (s * scale[f])
            r = 1.0 if r > 1 else r  # written so that NaN stays NaN
            S[g, f] = root * (-1.0 if r < -1 else r)


@compiled
def _insert(value: float, gene: int, values: Any, genes: Any, n: int) -> Any:
    """Put a gene behind those that are as good or better; returns how many there are."""
    at = min(n, values.shape[0] - 1)
    while at > 0 and values[at - 1] < value:
        values[at] = values[at - 1]
        genes[at] = genes[at - 1]
        at -= 1
    values[at] = value
    genes[at] = gene
    return min(n + 1, values.shape[0])


@compiled
def _columns(z: Any, allowed: Any, best: Any, values: Any, floor: Any, found: Any, lo: int, hi: int) -> None:
    k = values.shape[1]
    for g in range(z.shape[0]):
        if allowed[g]:
            for f in range(lo, hi):
                if z[g, f] > floor[f]:
                    found[f] = _insert(z[g, f], g, values[f], best[f], found[f])
                    floor[f] = values[f, k - 1] if found[f] == k else 0.0


@compiled
def _pairs(indptr: Any, others: Any, weighted: Any, best: Any, values: Any, lo: int, hi: int) -> None:
    k = values.shape[1]
    for f in range(lo, hi):
        n, floor = 0, 0.0
        for p in range(indptr[f], indptr[f + 1]):
            if weighted[p] > floor:
                n = _insert(weighted[p], others[p], values[f], best[f], n)
                floor = values[f, k - 1] if n == k else 0.0
