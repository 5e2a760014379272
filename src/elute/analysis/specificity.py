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

from elute.analysis.tally_kernels import order
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
class Moments:
    """Of each gene over the cells of one side."""

    n: int  # cells
    cells: Integers  # cells in which the gene is a row
    mean: Floats
    scale: Floats  # 1 / √Σ(E − Ē)², NaN where there is no variance


@dataclass(frozen=True, eq=False)
class Correlations:
    """Of the features of a range with all genes, over the cells of one side; each is made when it is asked for."""

    products: Floats  # [genes, features]
    genes: Moments
    sums: Floats  # ΣA of each feature
    scale: Floats

    def z(self, g: Integers, f: Integers) -> Floats:
        """Return √(n − 1) times the correlation of genes and features, NaN where there is none."""
        found = np.empty(len(g))
        _z(self.products, *self._terms(), g, f, np.sqrt(max(self.genes.n - 1.0, 0.0)), found)
        return found

    def best(self, allowed: NDArray[np.bool_], k: int) -> Best:
        """Return the k genes whose correlation with each feature is largest, above 0."""
        width = self.products.shape[1]
        best, values = np.full((width, k), -1, np.int64), np.zeros((width, k))
        floor, found = np.zeros(width), np.zeros(width, np.int64)
        over(width, _columns, self.products, *self._terms(), allowed, best, values, floor, found)
        return Best(best)

    def _terms(self) -> tuple[Floats, Floats, Floats, Floats]:
        return self.genes.mean, self.genes.scale, self.sums, self.scale


@dataclass(frozen=True, eq=False)
class Ranked:
    """A range of features, from `first` on; what it holds is there until the next one."""

    first: int
    chosen: Correlations
    shown: Correlations | None
    specific: Best  # by z
    raw: Best  # by score
    genes: Block  # the pairs of these features with genes
    cells_fired: Integers


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


def ranked(
    tallied: Tallied, sides: NDArray[np.int8], *, k: int, least: int, limit: int, dealt: Integers | None = None
) -> Iterator[Ranked]:
    """Yield all features in ranges, whose tables take about `limit` bytes.

    `dealt` says for each cell as which cell its activations count, for a null: a permutation that keeps the sides.
    """
    G, C = len(tallied.gene_rows), len(tallied.cell_rows)
    choose, show = (_moments(tallied, sides, side) for side in (CHOOSE, SHOW))
    shown = G if show.n >= _LEAST_CELLS else 0
    width = max(1, limit // (8 * (C + G + shown)))
    room = [np.empty(min(width, len(tallied.fired)) * n) for n in (C, G, shown)]
    for cells, genes in _together(tallied.cells, tallied.genes, width):
        n = cells.stop - cells.first
        A, S, S_shown = (part[: size * n].reshape(size, n) for part, size in zip(room, (C, G, shown), strict=True))
        A.fill(0)
        features, pooled = cells.features() - cells.first, cells.sums / tallied.cell_rows[cells.others]
        at = cells.others if dealt is None else dealt[cells.others]
        A[at, features] = pooled
        begun = np.zeros(G, np.bool_)
        for rows in tallied.expression.pieces():
            _add_products(*rows, sides, A=A, into=(S, S_shown, begun))
        both = [
            _correlations(table, of, features, np.where(sides[at] == side, pooled, 0.0))
            for side, table, of in ((CHOOSE, S, choose), (SHOW, S_shown, show))
        ]
        yield Ranked(
            cells.first,
            chosen=both[0],
            shown=both[1] if shown else None,
            specific=both[0].best(choose.cells >= least, k),
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
    G, n = len(tallied.gene_rows), int((sides == side).sum())
    counts, sums, squares = np.zeros(G, np.int64), np.zeros(G), np.zeros(G)
    last, held = np.full(G, -1, np.int64), np.zeros(G)
    for rows in tallied.expression.pieces():
        _gene_moments(*rows, sides, side, last, held, (counts, sums, squares))
    return Moments(n, counts, sums / max(n, 1), _scale(squares, sums, n))


def _correlations(products: Floats, of: Moments, features: NDArray[np.int32], pooled: Floats) -> Correlations:
    width = products.shape[1]
    sums, squares = (cast("Floats", np.bincount(features, x, minlength=width)) for x in (pooled, pooled * pooled))
    return Correlations(products, of, sums, _scale(squares, sums, of.n))


def _scale(squares: Floats, sums: Floats, n: int) -> Floats:
    """Return 1 / √Σ(x − mean)², NaN where that is no more than rounding, or there are too few cells."""
    around = squares - sums * sums / max(n, 1)
    varies = (around > 1e-12 * squares) & (n >= _LEAST_CELLS)
    return np.where(varies, 1 / np.sqrt(np.where(varies, around, 1.0)), np.nan)


def _add_products(
    cells: NDArray[np.int32],
    genes: NDArray[np.int32],
    e: NDArray[np.float32],
    sides: NDArray[np.int8],
    *,
    A: Floats,
    into: tuple[Floats, Floats, NDArray[np.bool_]],
) -> None:
    """Add a piece of the rows gene by gene, so that what is added to stays in the cache."""
    starts, rows = np.zeros(len(into[0]) + 1, np.int64), np.empty(len(genes), np.int64)
    order(genes, 0, (starts, rows))
    over(starts, _products, starts, cells[rows], e[rows], sides, A, *into)


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
def _add_scaled(x: float, a: Any, into: Any) -> None:
    for f in range(into.shape[0]):
        into[f] += x * a[f]


@compiled
def _products(
    starts: Any, cells: Any, e: Any, sides: Any, A: Any, S: Any, S_shown: Any, begun: Any, lo: int, hi: int
) -> None:
    """Lines of genes that are no row are left as they lie: their scale is NaN."""
    for g in range(lo, hi):
        if not begun[g] and starts[g] < starts[g + 1]:
            begun[g] = True
            S[g] = 0
            if S_shown.shape[0] > 0:
                S_shown[g] = 0
        for p in range(starts[g], starts[g + 1]):
            c, x = cells[p], np.float64(e[p])
            if sides[c] == CHOOSE:
                _add_scaled(x, A[c], S[g])
            elif sides[c] == SHOW and S_shown.shape[0] > 0:
                _add_scaled(x, A[c], S_shown[g])


@compiled
def _z(S: Any, mean: Any, scale: Any, sums: Any, slope: Any, g: Any, f: Any, root: float, found: Any) -> None:
    for i in range(g.shape[0]):
        r = (S[g[i], f[i]] - mean[g[i]] * sums[f[i]]) * (scale[g[i]] * slope[f[i]])
        r = 1.0 if r > 1 else r  # written so that NaN stays NaN
        found[i] = root * (-1.0 if r < -1 else r)


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
def _columns(
    S: Any, mean: Any, scale: Any, sums: Any, slope: Any, allowed: Any, best: Any, values: Any, floor: Any, found: Any,
    lo: int, hi: int,
) -> None:  # fmt: skip
    k = values.shape[1]
    for g in range(S.shape[0]):
        if allowed[g]:
            m, s = mean[g], scale[g]
            for f in range(lo, hi):
                r = (S[g, f] - m * sums[f]) * (s * slope[f])
                if r > floor[f]:
                    r = min(r, 1.0)  # of several that rounding has lifted above 1 the first stays first
                    if r > floor[f]:
                        found[f] = _insert(r, g, values[f], best[f], found[f])
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
