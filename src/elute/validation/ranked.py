"""Enrichment over whole rankings: do the genes of a term stand higher than the rest, without a cut at the top 50?

Rank sum (Mann and Whitney)
1. Each list's genes are ranked once, ties sharing their mean rank; genes without a score (NaN) are not ranked, and not
   part of any term for that list. The ranks' sums of all terms are one sparse product.
2. AUC = U / (n1 n2); z = (U − mean) / sd, the variance corrected for ties. p is normal, with continuity, and never
   below that of one way to choose the genes. For terms of a few genes it is too large far out.
3. Where a list has zeros and nothing below, normal p-values under 0.05 are replaced by those that take the count of
   non-zero genes and their order apart (base/statistics/clump.py): the normal ones can be far too small there.

Running sum (gene-set enrichment analysis)
1. From the top down the sum rises at a gene of the term by its |score| ^ weight, as a share of the term's, and falls at
   any other by 1 / (n − s). Its score is the largest deviation from 0. Equal scores are one step, in no order.
2. The null is as many genes drawn at random; terms of one size share their draws, and so do lists that rank as many
   genes. p = (1 + #as extreme) / (1 + #of that sign), among draws of its own sign; NES is the score over their mean.
3. Where fewer than 10 draws are as extreme, ten times as many are drawn anew, up to `most_permutations`. No p is below
   1 / (1 + draws of that sign).

Both correct over every list with every term. What is too much to keep is left out by its p: every q up to the largest
p that is kept is then exact, and larger ones can only be too large.

H. B. Mann, D. R. Whitney, Ann. Math. Stat. 18, 1947; A. Subramanian et al., PNAS 102, 2005; G. Korotkevich et al.,
"Fast gene set enrichment analysis", bioRxiv 060012, for draws that terms of one size share; J. Besag, P. Clifford,
Biometrika 78, 1991, for drawing on where few draws are as extreme.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special

from elute.base.compiled import over
from elute.base.errors import ConfigError, DataError
from elute.base.statistics import clump
from elute.base.statistics.checks import ALTERNATIVES, Alternative, Bools, Floats, Ints, at_least, choice, generator
from elute.validation import ranked_kernels as kernels
from elute.validation.families import MOST_ROWS, Bounds, Enriched, Smallest

if TYPE_CHECKING:
    from typing import Any

    from elute.validation.terms import Terms

BLOCK = 1 << 21  # numbers of one kind held at a time
ENOUGH = 10  # draws as extreme, beyond which a p-value is known well enough
_SUSPECT = 0.05  # normal p-values below which a clump of zeros is taken apart


def rank_sums(
    scores: ArrayLike,
    terms: Terms,
    *,
    alternative: Alternative = "two-sided",
    most_rows: int = MOST_ROWS,
    most_p: float = 1.0,
    most_q: float = 1.0,
) -> Enriched:
    """Ask for scores [lists, genes] over the terms' background whether a term's genes score higher than the rest."""
    table = _checked(scores, terms, "rank_sums(scores)")
    best = Smallest(Bounds(most_rows, most_p, most_q).checked(), terms)
    for first, tested, columns in rank_tests(table, terms, alternative=alternative):
        best.add(first, tested, **columns)
    return best.result("rank sum", alternative, lists=table.shape[0])


def rank_tests(
    scores: ArrayLike, terms: Terms, *, alternative: Alternative = "two-sided"
) -> Iterator[tuple[int, Bools, dict[str, Floats]]]:
    """Yield the tests of all lists with all terms in blocks, uncorrected, for whoever looks at all of them.

    Of each block its first list, and [lists, terms] what could be tested, log_p, size, auc and z; `ranked` is by list.
    """
    choice(alternative, ALTERNATIVES, "rank_sums(alternative)")
    table = _checked(scores, terms, "rank_sums(scores)")
    members = terms.members.astype(np.float64)
    for first, block in _blocks(table, terms):
        ranks = _rank(block)
        whole = bool((ranks.n == block.shape[1]).all())
        inside = _sizes(terms, len(block)) if whole else members @ (ranks.ranks > 0).astype(np.float64)
        u = members @ ranks.ranks - inside * (inside + 1.0) / 2.0
        log_p, z = _normal(u, inside, ranks, alternative)
        _part_clump(log_p, u, inside=inside, ranks=ranks, alternative=alternative)
        tested = (inside > 0) & (inside < ranks.n)
        auc = u / np.where(tested, inside * (ranks.n - inside), 1.0)
        # The block's arrays are [terms, lists]; rows go by list.
        yield first, tested.T, {"log_p": log_p.T, "size": inside.T, "ranked": ranks.n, "auc": auc.T, "z": z.T}


def running_sums(
    scores: ArrayLike,
    terms: Terms,
    *,
    seed: int,
    weight: float = 1.0,
    permutations: int = 1000,
    most_permutations: int = 100_000,
    most_rows: int = MOST_ROWS,
    most_p: float = 1.0,
    most_q: float = 1.0,
) -> Enriched:
    """Ask for scores [lists, genes] over the terms' background whether a term's genes gather at the top or bottom."""
    where = "running_sums"
    if not 0.0 <= weight <= 10.0:
        raise ConfigError(f"{weight:g} is not from 0 to 10", where=f"{where}(weight)", remedy="Usual are 1 and 0.")
    at_least(permutations, 1, f"{where}(permutations)")
    at_least(most_permutations, permutations, f"{where}(most_permutations)")
    generator(seed, where)  # refuses what is no seed
    table = _checked(scores, terms, f"{where}(scores)")
    best = Smallest(Bounds(most_rows, most_p, most_q).checked(), terms)
    sets = (terms.members.indptr.astype(np.int64), terms.members.indices.astype(np.int32))
    for start, block in _blocks(table, terms):
        place, rankings = _ranking(block, weight)
        shape = (block.shape[0], len(terms))
        sizes, es, leading = np.zeros(shape, np.int64), np.zeros(shape), np.zeros(shape, np.int64)
        over(shape[0], kernels.score, (place, sets, rankings, (sizes, es, leading)))
        tested = (sizes > 0) & (sizes < rankings[0][:, None])
        null = _Null(seed, rankings, sizes=sizes, es=es)
        p, nes = null.compared(tested, permutations, most_permutations)
        ranked = rankings[0].astype(np.float64)
        best.add(start, tested, log_p=np.log(p), size=sizes, ranked=ranked, es=es, nes=nes, leading=leading)
    note = f"{permutations:,} to {most_permutations:,} permutations of genes, weight {weight:g}, seed {seed}"
    return best.result("running sum", "two-sided", lists=table.shape[0], note=note)


class _Ranks(NamedTuple):
    """The ranks of a block of lists, and how each list ties; one entry a list."""

    ranks: Floats  # [genes, lists], 0 where a gene is not ranked
    n: Floats
    ties: Floats  # Σ t³ − t over the runs of equal scores
    nonzero_ties: Floats
    zeros: Ints
    mixed: Bools  # no negative scores, two zeros or more, and others


def _sizes(terms: Terms, times: int) -> Floats:
    return np.broadcast_to(terms.sizes[:, None].astype(np.float64), (len(terms), times))


def _checked(scores: ArrayLike, terms: Terms, where: str) -> Any:
    table = np.asarray(scores)
    if table.ndim != 2 or table.shape[1] != len(terms.background) or not table.shape[0]:
        what = f"has shape {table.shape} over a background of {len(terms.background):,} genes"
        raise DataError(what, where=where, remedy="Give one column for each gene of the terms' background.")
    if table.dtype.kind not in "fiu":
        raise DataError(f"holds {table.dtype}, not numbers", where=where)
    return table


def _blocks(table: Any, terms: Terms) -> Iterator[tuple[int, Floats]]:
    step = max(1, BLOCK // max(table.shape[1], len(terms)))
    for start in range(0, table.shape[0], step):
        block = table[start : start + step].astype(np.float64)
        if np.isinf(block).any():
            at = int(np.isinf(block).any(axis=1).argmax()) + start
            raise DataError("holds an infinite score", where=f"list {at}", remedy="NaN is for genes without a score.")
        yield start, block


def _descending(block: Floats) -> tuple[Ints, Floats]:
    """Return the order of each list's genes from the top, in which equal ones may stand anyhow, and what was sorted."""
    down = np.where(np.isnan(block), np.inf, -block)
    return np.argsort(down, axis=1), down


def _rank(block: Floats) -> _Ranks:
    order, down = _descending(block)
    ranks, ties = np.zeros(block.shape), np.zeros((len(block), 3))
    over(len(block), kernels.rank, (order, down, ranks, ties))
    n, zeros = (down < np.inf).sum(axis=1), ties[:, 2].astype(np.int64)
    nonnegative = ~(block < 0).any(axis=1)
    return _Ranks(
        ranks=np.ascontiguousarray(ranks.T),
        n=n.astype(np.float64),
        ties=ties[:, 0],
        nonzero_ties=ties[:, 1],
        zeros=zeros,
        mixed=nonnegative & (zeros >= 2) & (zeros < n),
    )


def _normal(u: Floats, inside: Floats, ranks: _Ranks, alternative: Alternative) -> tuple[Floats, Floats]:
    """Return log p and z; a constant list has p 1 and z 0."""
    n = ranks.n
    product = inside * (n - inside)
    variance = product / 12.0 * ((n + 1.0) - ranks.ties / np.maximum(n * (n - 1.0), 1.0))
    flat = (ranks.ties >= n * (n * n - 1.0) * (1.0 - 1e-13)) | (product == 0)
    sd = np.sqrt(np.where(flat, 1.0, variance))
    off = u - product / 2.0
    beyond = {"two-sided": np.abs, "less": np.negative}.get(alternative, np.positive)(off)
    log_p: Floats = special.log_ndtr((0.5 - beyond) / sd)
    # No tail is smaller than that of one way to choose the genes, of which there are n or more.
    far = np.nonzero(log_p < -np.log(np.maximum(n, 1.0)))
    n1, ranked = inside[far], n[far[1]]
    log_p[far] = np.maximum(log_p[far], np.log1p(ranked) + special.betaln(n1 + 1.0, ranked - n1 + 1.0))
    if alternative == "two-sided":
        log_p = np.minimum(log_p + np.log(2.0), 0.0)
    return np.where(flat, 0.0, log_p), np.where(flat, 0.0, off / sd)


def _part_clump(log_p: Floats, u: Floats, *, inside: Floats, ranks: _Ranks, alternative: Alternative) -> None:
    """Put right the p-values that look small where a list is mostly zeros."""
    term, listed = np.nonzero((log_p < np.log(_SUSPECT)) & ranks.mixed)
    if not len(term):
        return
    n1 = inside[term, listed].astype(np.int64)
    n = ranks.n[listed].astype(np.int64)
    tests = clump.Clump(
        u=u[term, listed],
        inside=n1,
        outside=n - n1,
        nonzero=n - ranks.zeros[listed],
        ties=ranks.nonzero_ties[listed],
    )
    above, below = clump.log_upper_tail(tests), clump.log_lower_tail(tests)
    both = np.minimum(np.minimum(above, below) + np.log(2.0), 0.0)
    log_p[term, listed] = {"greater": above, "less": below}.get(alternative, both)


def _ranking(block: Floats, weight: float) -> tuple[Any, tuple[Any, ...]]:
    """Return where each gene stands from the top, and each list's genes ranked, runs of equals and weights."""
    order, down = _descending(block)
    place = np.full(block.shape, -1, np.int32)
    first, last, strength = np.empty(block.shape, np.int32), np.empty(block.shape, np.int32), np.zeros(block.shape)
    rankings = (np.zeros(len(block), np.int64), first, last, strength, np.zeros(len(block), np.bool_))
    over(len(block), kernels.lay, (order, down, place, rankings))
    if weight != 1.0:
        np.power(strength, weight, out=strength)
    return place, rankings


class _Null:
    """Scores of genes drawn at random, for one block of lists."""

    def __init__(self, seed: int, rankings: tuple[Any, ...], *, sizes: Ints, es: Floats) -> None:
        self.seed, self.rankings, self.sizes, self.es = seed, rankings, sizes, es
        self.extreme = np.zeros(es.shape, np.int64)
        self.alike = np.zeros(es.shape, np.int64)  # drawn scores of the same sign
        self.mean = np.zeros(es.shape)

    def compared(self, tested: Bools, first: int, most: int) -> tuple[Floats, Floats]:
        """Return p and the score over the mean drawn one of its sign."""
        left, times = tested.copy(), first
        while left.any():
            listed, term = np.nonzero(left)
            group = self.rankings[0][listed] * (self.sizes.max() + 1) + self.sizes[left]
            order = np.lexsort((term, listed, group))
            ends = np.flatnonzero(np.diff(group[order])) + 1
            for part in np.split(order, ends):
                self._compare(listed[part], term[part], times)
            if times == most:
                break
            left &= self.extreme < ENOUGH
            times = min(10 * times, most)
        p = np.where(tested, (1.0 + self.extreme) / (1.0 + self.alike), 1.0)
        none = np.where(self.alike > 0, 0.0, np.nan)
        return p, np.divide(self.es, np.abs(self.mean), out=none, where=np.abs(self.mean) > 1e-12)

    def _compare(self, listed: Ints, term: Ints, times: int) -> None:
        """Draw for terms of one size in lists that rank as many genes."""
        n, size = int(self.rankings[0][listed[0]]), int(self.sizes[listed[0], term[0]])
        which, starts = np.unique(listed, return_index=True)
        seen = self.es[listed, term]
        extreme = np.zeros(len(term), np.int64)
        number, total = np.zeros((len(which), 2), np.int64), np.zeros((len(which), 2))
        rng = generator(self.seed, f"running sums: {size} of {n}, {times} times")
        pool, step = np.arange(n, dtype=np.int32), max(1, BLOCK // size)
        for start in range(0, times, step):
            uniform = rng.random((min(step, times - start), size))
            draws = np.empty(uniform.shape, np.int32)
            kernels.draw(uniform, pool, draws)
            draws.sort(axis=1)
            tasks = (which, np.append(starts, len(term)))
            over(len(which), kernels.compare, (draws, self.rankings, tasks, seen, (extreme, number, total)))
        side = (seen < 0).astype(np.int64)
        task = np.searchsorted(which, listed)
        self.extreme[listed, term] = extreme
        self.alike[listed, term] = number[task, side]
        self.mean[listed, term] = total[task, side] / np.maximum(number[task, side], 1)
