"""Activations pooled over the tokens of each cell, a block of features at a time, and how the cells rank by them.

1. A cell's activation of a feature is the mean over all its tokens, those in which the feature was silent included;
   the highest one and the sum stand beside.
2. Cells of split "train" choose (the best cell type, the top cells) and those of "test" show; where a store has no
   split all cells choose and none show.
3. Ranks are made from what is stored alone: the zeros of a column are one run of equal values. Each rank is kept
   relative to that of a zero, so that rank sums of any grouping of the cells are sums over what is stored.
4. All levels of a column are tested from one sorting. `level_p` gives what `rank_sum` of base/statistics gives for one
   mask a level, which would go through all that is stored once a level (17 minutes against 3 for 16,384 features in
   100,000 cells of 30 levels, 3 in 10 pairs stored).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse, special

from elute.base.errors import DamagedError, DataError
from elute.base.statistics import clump
from elute.base.statistics.checks import Bools, Floats, Ints, at_least, same_length
from elute.base.statistics.ranks import rank_sum

if TYPE_CHECKING:
    import polars as pl

    from elute.analysis.tally import Tallied

PAIRS = 1 << 21  # pairs of a feature and a cell at a time
FEATURES = 1024  # features at a time, where few of them fire


@dataclass(frozen=True, eq=False)
class Pooled:
    """Features `first` … `stop` − 1 in all cells, as scipy csc_array [cells, features]."""

    first: int
    stop: int
    mean: Any
    highs: Any
    sums: Any


@dataclass(frozen=True, eq=False)
class TopCells:
    """The cells in which each feature fired most strongly: by feature, strongest first."""

    features: Ints
    cells: Ints
    highs: Floats


@dataclass(frozen=True, eq=False)
class Ranked:
    """Mean ranks of the cells in each column; all but the first two have one entry a column."""

    offsets: Floats  # of each stored value: its rank minus the rank of a zero
    columns: Ints  # of each stored value
    rows: Ints  # of each stored value
    zero: Floats  # the rank of a zero
    ties: Floats  # Σ t³ − t over all runs of equal values
    nonzero_ties: Floats  # the same without the zeros
    zeros: Ints
    negative: Ints
    n: int

    @property
    def width(self) -> int:
        """Columns."""
        return len(self.zero)


def pooled(tallied: Tallied, *, most: int = PAIRS) -> Iterator[Pooled]:
    """Yield all features block by block: at most so many pairs of a feature and a cell, or one feature."""
    at_least(most, 1, "pooled(most)")
    tokens = np.asarray(tallied.cell_rows, dtype=np.float64)
    for block in tallied.cells.blocks(most_pairs=most):
        cells = np.asarray(block.others, dtype=np.int64)
        if len(cells) and (cells.min() < 0 or cells.max() >= len(tokens) or tokens[cells].min() <= 0):
            raise DamagedError("a feature fired in a cell that has no tokens", where="pooled(tallied)")
        sums = np.asarray(block.sums, dtype=np.float64)
        indptr, shape = np.asarray(block.indptr, dtype=np.int64), (len(tokens), block.stop - block.first)
        kinds = (sums / tokens[cells], np.asarray(block.highs, dtype=np.float64), sums)
        matrices = [csc(sparse.csc_array((x, cells, indptr), shape=shape), "pooled(tallied)") for x in kinds]
        yield from _narrow(Pooled(block.first, block.stop, *matrices), FEATURES)


def in_blocks(matrix: Any, *, width: int = FEATURES) -> Iterator[Pooled]:
    """Yield any matrix [cells, columns], dense or scipy sparse, as pooled activations that are their own highs."""
    at_least(width, 1, "in_blocks(width)")
    columns = csc(matrix, "in_blocks(matrix)")
    yield from _narrow(Pooled(0, columns.shape[1], columns, columns, columns), width)


def _narrow(block: Pooled, width: int) -> Iterator[Pooled]:
    for start in range(block.first, block.stop, width):
        stop = min(start + width, block.stop)
        if stop - start == block.stop - block.first:
            yield block
            return
        a, b = start - block.first, stop - block.first
        yield Pooled(start, stop, block.mean[:, a:b], block.highs[:, a:b], block.sums[:, a:b])


def csc(matrix: Any, where: str) -> Any:
    """Return finite numbers [rows, columns] by column, in order of the rows and without stored zeros."""
    if not sparse.issparse(matrix):
        matrix = np.asarray(matrix, dtype=np.float64)
        if matrix.ndim != 2:
            raise DataError(f"has {matrix.ndim} dimensions", where=where, remedy="Give [cells, columns].")
    columns = sparse.csc_array(matrix)
    if columns.dtype != np.float64:
        columns = columns.astype(np.float64)
    if not np.isfinite(columns.data).all():
        raise DataError("holds NaN or infinity", where=where, remedy="Drop or fill those first.")
    if not columns.has_canonical_format or not columns.data.all():
        columns = columns.copy()
        columns.sum_duplicates()
        columns.eliminate_zeros()
    return columns


def sides(cells: pl.DataFrame) -> tuple[Bools, Bools | None]:
    """Return which cells choose and which show; all choose and none show where there is no split."""
    split = cells["split"].cast(str).to_list() if "split" in cells.columns else []
    if all(name is None for name in split):
        return np.ones(cells.height, dtype=bool), None
    names = np.array(split, dtype=object)
    choosing, shown = names == "train", names == "test"
    if not choosing.any():
        found = ", ".join(sorted({str(name) for name in split}))
        raise DataError(
            f"no cell is of split 'train', only of: {found}",
            where="cells",
            remedy="Split the store, or drop the column.",
        )
    return choosing, (shown if shown.any() else None)


def top_cells(block: Pooled, choosing: Bools, *, most: int) -> TopCells:
    """Return the choosing cells in which each feature's highest activation is largest; of equals the earlier cell.

    Only a cell in which the feature rose above 0 can be one of them, so there may be fewer than `most`.
    """
    same_length(len(choosing), block.highs.shape[0], "top_cells(choosing)")
    at_least(most, 1, "top_cells(most)")
    indptr, cells, highs = block.highs.indptr, block.highs.indices, block.highs.data
    able = choosing[cells] & (highs > 0)
    found: list[tuple[Ints, Floats]] = []
    for start, stop in pairwise(indptr):
        which = start + np.flatnonzero(able[start:stop])
        if len(which) > most:
            strengths = highs[which]
            least = np.partition(strengths, len(which) - most)[len(which) - most]
            above = strengths > least
            level = np.flatnonzero(strengths == least)[: most - int(above.sum())]
            above[level] = True
            which = which[above]
        which = which[np.argsort(-highs[which], kind="stable")]
        found.append((cells[which].astype(np.int64), highs[which]))
    return TopCells(
        features=np.repeat(np.arange(block.first, block.stop), [len(c) for c, _ in found]),
        cells=np.concatenate([c for c, _ in found]),
        highs=np.concatenate([h for _, h in found]),
    )


def rank_stored(columns: Any) -> Ranked:
    """Rank the rows down each column of a csc_array without stored zeros."""
    n, width = columns.shape
    indptr, values = columns.indptr, columns.data
    stored = np.diff(indptr).astype(np.int64)
    owners = np.repeat(np.arange(width), stored)
    zeros = n - stored
    negative = np.bincount(owners[values < 0], minlength=width)
    ranks, ties = np.empty(len(values)), np.zeros(width)
    for j, (start, stop) in enumerate(pairwise(indptr)):
        if stop > start:
            ranks[start:stop], ties[j] = _ranks(values[start:stop])
    zero = negative + (zeros + 1) / 2.0
    offsets = ranks + np.where(values > 0, zeros[owners], 0) - zero[owners]
    return Ranked(
        offsets=offsets,
        columns=owners,
        rows=columns.indices.astype(np.int64),
        zero=zero,
        ties=ties + (zeros.astype(np.float64) ** 3 - zeros),
        nonzero_ties=ties,
        zeros=zeros,
        negative=negative,
        n=n,
    )


def _ranks(values: Floats) -> tuple[Floats, float]:
    """Return mean ranks from 1, and Σ t³ − t over the runs of equal values."""
    order = np.argsort(values)
    ordered = values[order]
    new = np.empty(len(values), dtype=bool)
    new[0] = True
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    starts = np.flatnonzero(new)
    lengths = np.diff(starts, append=len(values))
    ranks = np.empty(len(values))
    ranks[order] = np.repeat(starts + (lengths + 1) / 2.0, lengths)
    sizes = lengths.astype(np.float64)
    return ranks, float((sizes**3 - sizes).sum())


def by_level(columns: Ints, levels: Ints, *, weights: Floats, shape: tuple[int, int]) -> Floats:
    """Sum weights of stored values by the level of their row and by column: [levels, columns]."""
    flat = np.bincount(levels * shape[1] + columns, weights=weights, minlength=shape[0] * shape[1])
    return np.asarray(flat, dtype=np.float64).reshape(shape)


def level_u(ranked: Ranked, codes: Ints, n_levels: int) -> Floats:
    """Return Mann and Whitney's U of the rows of each level against all others, [levels, columns]."""
    same_length(len(codes), ranked.n, "level_u(codes)")
    shape = (n_levels, ranked.width)
    over_zero = by_level(ranked.columns, codes[ranked.rows], weights=ranked.offsets, shape=shape)
    inside = np.bincount(codes, minlength=n_levels).astype(np.float64)[:, None]
    u: Floats = over_zero + inside * ranked.zero - inside * (inside + 1.0) / 2.0
    return u


def level_auroc(ranked: Ranked, codes: Ints, n_levels: int) -> Floats:
    """Return the AUROC of the rows of each level against all others, [levels, columns]; NaN without rows on a side."""
    inside = np.bincount(codes, minlength=n_levels).astype(np.float64)[:, None]
    pairs = inside * (ranked.n - inside)
    auroc: Floats = np.where(pairs > 0, level_u(ranked, codes, n_levels) / np.where(pairs > 0, pairs, 1.0), np.nan)
    return auroc


def level_p(columns: Any, ranked: Ranked, codes: Ints, *, tested: Bools) -> Floats:
    """Return the two-sided rank-sum p of each tested level against all other rows, [levels, columns]; NaN of others."""
    u = level_u(ranked, codes, len(tested))[tested]
    inside = np.bincount(codes, minlength=len(tested))[tested]
    p = np.ones(u.shape)
    stored = ranked.n - ranked.zeros
    clumped = (stored > 0) & (ranked.negative == 0) & (ranked.zeros >= 2)
    if clumped.any() and len(inside):
        p[:, clumped] = _clumped_p(u[:, clumped], ranked, inside=inside, which=clumped)
    other = (stored > 0) & ~clumped
    if other.any() and len(inside):
        masks = codes[:, None] == np.flatnonzero(tested)
        p[:, other] = rank_sum(columns[:, np.flatnonzero(other)].toarray(), masks).p
    result = np.full((len(tested), ranked.width), np.nan)
    result[tested] = p
    return result


def _clumped_p(u: Floats, ranked: Ranked, *, inside: Ints, which: Bools) -> Floats:
    """Return the p of columns with zeros and no negative value, from the exact law of how many are not 0."""
    n = ranked.n
    n1, n0 = np.repeat(inside, u.shape[1]), np.repeat(n - inside, u.shape[1])
    m = np.tile((n - ranked.zeros)[which], len(inside))
    tests = clump.Clump(u.ravel(), n1, n0, m, np.tile(ranked.nonzero_ties[which], len(inside)))
    ties = np.tile(ranked.ties[which], len(inside)) / max(n * (n - 1.0), 1.0)
    away = (tests.u - n1 * n0 / 2.0) / np.sqrt(n1 * n0.astype(np.float64) / 12.0 * (n + 1.0 - ties))
    # A standard deviation away the far tail holds half or more (Cantelli), so that only the near one matters.
    upper, lower = np.flatnonzero(away > -1.0), np.flatnonzero(away < 1.0)
    greater, less = np.zeros(tests.u.shape), np.zeros(tests.u.shape)
    greater[upper] = clump.log_upper_tail(_part(tests, upper))
    less[lower] = clump.log_lower_tail(_part(tests, lower))
    # No tail is smaller than that of one way to choose the rows inside, whatever an approximation says.
    least = np.log1p(float(n)) + special.betaln(n1 + 1.0, n0 + 1.0)
    log_p = np.minimum(np.minimum(np.maximum(greater, least), np.maximum(less, least)) + np.log(2.0), 0.0)
    p: Floats = np.exp(log_p).reshape(u.shape)
    return p


def _part(tests: clump.Clump, which: Ints) -> clump.Clump:
    return clump.Clump(
        tests.u[which], tests.inside[which], tests.outside[which], tests.nonzero[which], tests.ties[which]
    )
