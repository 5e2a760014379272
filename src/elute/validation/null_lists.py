"""Null lists: genes like those of each list in expression, detection and number of annotations, and otherwise any.

1. The genes are cut into strata in which they are alike. Covariates become normal scores, so that no unit or outlier
   counts; the number of annotations weighs most, because a gene in many terms makes any list look enriched. A stratum
   is cut at the median of the covariate in which it is widest, never between genes that are the same there, and not
   where a part would have fewer than `least` genes. So each stratum has enough genes, and none has to be merged. Only
   the few genes at the end of a scale, that are still far apart in its own unit, are parted further, down to a third of
   that: the ten genes with the most annotations may differ threefold, and lists prefer the first of them.
2. A draw is one permutation of the genes inside their strata, and it is applied to all lists at once. Each list keeps
   its size and its number of genes in every stratum, has no gene twice, and lists share as many genes as they did.
   If a gene's terms do not depend on which lists it is in, given its stratum, the lists as they are and those of any
   number of draws are exchangeable: whatever is counted over all lists, with whatever correction, falls among the
   draws' counts at a random rank, however much the lists depend on each other. Lists drawn one by one would vary too
   little for that wherever features share genes.
3. So a list's own genes may come again, as the identity is one of the permutations. Without them the draws would lie
   further from the lists than chance takes them, and every p-value would be too small. What that costs is told:
   `kept`, the share of own genes that a draw brings back on average. Smaller strata match better and keep more.
4. Within a stratum genes still differ a little. How much of that the lists follow is measured: the mean difference
   of each covariate between lists and their nulls, in standard deviations over all genes.

P. R. Rosenbaum, "Conditional permutation tests and the propensity score in observational studies", J. Am. Stat.
Assoc. 79, 1984; J. L. Bentley, "Multidimensional binary search trees used for associative searching", Commun. ACM
18, 1975, for the cuts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import special
from scipy.sparse import csr_array

from elute.base.errors import ConfigError, DataError
from elute.base.statistics.checks import Bools, Floats, Ints, at_least, generator, matrix, numbers
from elute.base.statistics.ranks import rank_columns

if TYPE_CHECKING:
    from typing import Any

LEAST = 25  # genes of a stratum
NAMES = ("expression", "detection", "annotations")
WEIGHTS = (1.0, 1.0, 3.0)  # of these three
FAR = 0.25  # standard deviations over all genes, and 3 times what is usual within a stratum
BLOCK = 1 << 22  # random numbers at a time


class Quality(NamedTuple):
    """How alike lists and their nulls are; differences are lists minus nulls, in standard deviations over all genes."""

    names: tuple[str, ...]
    difference: Floats
    """Of each covariate: the mean over all genes of all lists."""
    typical: Floats
    """Of each covariate: the median over lists of a list's own difference, without its sign."""
    kept: float
    """Share of their own genes that a draw gives back to the lists, on average."""
    strata: int
    genes: float
    """Genes of a stratum, the median."""

    def told(self) -> str:
        """Say it in one sentence."""
        each = ", ".join(f"{name} {value:+.3f}" for name, value in zip(self.names, self.difference, strict=True))
        return (
            f"matched in {self.strata:,} strata, of {self.genes:.0f} genes as a rule; lists minus nulls, in standard"
            f" deviations: {each}; {self.kept:.1%} of a list's own genes come again"
        )


class Matched:
    """Draws null lists for lists over the genes of `covariates` [genes, covariates], a row a gene."""

    def __init__(
        self,
        covariates: ArrayLike,
        *,
        seed: int,
        least: int = LEAST,
        weights: Sequence[float] | None = None,
        names: Sequence[str] | None = None,
    ) -> None:
        where = "Matched"
        self.covariates = matrix(covariates, f"{where}(covariates)")
        n_genes, width = self.covariates.shape
        if n_genes < 2:
            raise DataError("one gene only", where=f"{where}(covariates)", remedy="Give a row for each gene.")
        self.seed, self.least = at_least(seed, 0, f"{where}(seed)"), at_least(least, 2, f"{where}(least)")
        if width == len(NAMES):
            weights, names = WEIGHTS if weights is None else weights, NAMES if names is None else names
        self.weights = numbers([1.0] * width if weights is None else weights, f"{where}(weights)")
        self.names = tuple(f"covariate {i}" for i in range(width)) if names is None else tuple(names)
        for name, given in (("weights", len(self.weights)), ("names", len(self.names))):
            if given != width:
                raise ConfigError(f"{given} for {width} covariates", where=f"{where}({name})", remedy="Give one each.")
        if self.weights.min() <= 0:
            what = f"{self.weights.min():g} is not above 0"
            raise ConfigError(what, where=f"{where}(weights)", remedy="Leave the covariate out instead.")
        ranks = rank_columns(self.covariates)[0]
        scores = _scaled(special.ndtri((ranks - 0.5) / n_genes)) * self.weights
        self.strata = _strata(scores, _scaled(self.covariates), self.least)
        """The stratum of each gene, from 0."""
        self.sizes = np.bincount(self.strata)
        """Genes of each stratum."""

    @cached_property
    def _home(self) -> Ints:
        """The genes by stratum."""
        return np.argsort(self.strata, kind="stable")

    @cached_property
    def coarser(self) -> Matched:
        """The same with strata twice as large: what changes with it tells how far the matching can be trusted."""
        return Matched(
            self.covariates, seed=self.seed, least=2 * self.least, weights=self.weights.tolist(), names=self.names
        )

    def permutation(self, draw: int) -> Ints:
        """Return which gene stands in for each one in draw number `draw`, whatever was drawn before."""
        rng = generator(self.seed, f"matched lists, draw {at_least(draw, 0, 'Matched(draw)')}")
        to = np.empty(len(self.strata), dtype=np.int64)
        to[self._home] = np.lexsort((rng.random(len(self.strata)), self.strata))
        return to

    def draw(self, lists: csr_array[Any], draw: int) -> csr_array[Any]:
        """Return a null list for each of `lists` [lists, genes]: draw number `draw`, from 0."""
        given = self.checked(lists, "Matched.draw")
        indices = self.permutation(draw)[given.indices].astype(given.indices.dtype)
        drawn = csr_array((given.data.copy(), indices, given.indptr.copy()), shape=given.shape)
        drawn.sort_indices()
        return drawn

    def quality(self, lists: csr_array[Any]) -> Quality:
        """Measure how alike lists and their nulls are, over all draws that there could be."""
        given = self.checked(lists, "Matched.quality")
        if not len(given.indices):
            raise DataError("the lists are empty", where="Matched.quality")
        scaled = _scaled(self.covariates)
        means = np.stack([np.bincount(self.strata, weights=column) for column in scaled.T], axis=1)
        off = (scaled - (means / self.sizes[:, None])[self.strata])[given.indices]
        sizes = np.diff(given.indptr)
        owners = np.repeat(np.arange(len(sizes)), sizes)
        filled = sizes > 0
        own = np.stack([np.bincount(owners, weights=column, minlength=len(sizes)) for column in off.T], axis=1)
        own = np.abs(own[filled] / sizes[filled, None])
        strata = owners * len(self.sizes) + self.strata[given.indices]
        cells, held = np.unique(strata, return_counts=True)
        kept = float((held * held / self.sizes[cells % len(self.sizes)]).sum() / len(given.indices))
        return Quality(
            self.names, off.mean(axis=0), np.median(own, axis=0), kept, len(self.sizes), float(np.median(self.sizes))
        )

    def checked(self, lists: csr_array[Any], where: str) -> csr_array[Any]:
        """Return lists over the same genes, or say what is wrong with them."""
        n_genes = len(self.strata)
        if lists.ndim != 2 or lists.shape[1] != n_genes:
            what = f"has shape {lists.shape} over {n_genes:,} genes"
            raise DataError(what, where=f"{where}(lists)", remedy="Give lists over the genes of the covariates.")
        given = csr_array(lists)
        if not (given.has_canonical_format and bool(np.all(given.data == 1))):
            raise DataError(
                "holds other entries than 1, or one twice",
                where=f"{where}(lists)",
                remedy="A gene is in a list once, or not: see lists_of.",
            )
        return given


def _scaled(columns: Floats) -> Floats:
    """Return columns in standard deviations."""
    spread = columns.std(axis=0)
    scaled: Floats = columns / np.where(spread > 0, spread, 1.0)
    return scaled


def _strata(scores: Floats, plain: Floats, least: int) -> Ints:
    """Return the stratum of each row, numbered in the order of their first rows."""
    found = _parted([np.arange(len(scores))], lambda rows: _cut(scores[rows], least))
    spread = np.stack([plain[rows].std(axis=0) for rows in found])
    far = np.maximum(FAR, 3.0 * np.median(spread, axis=0))

    def further(rows: Ints) -> Bools | None:
        over = plain[rows].std(axis=0) / far
        return _cut(plain[rows][:, [int(over.argmax())]], max(2, least // 3)) if over.max() > 1.0 else None

    strata = np.empty(len(scores), dtype=np.int64)
    for n, rows in enumerate(sorted(_parted(found, further), key=lambda rows: int(rows[0]))):
        strata[rows] = n
    return strata


def _parted(waiting: list[Ints], cut: Callable[[Ints], Bools | None]) -> list[Ints]:
    """Part rows until nothing is left to cut."""
    done = []
    while waiting:
        rows = waiting.pop()
        lower = cut(rows)
        if lower is None:
            done.append(rows)
        else:
            waiting += [rows[~lower], rows[lower]]
    return done


def _cut(scores: Floats, least: int) -> Bools | None:
    """Return which rows lie below the best cut, or nothing if no cut leaves enough on both sides."""
    n = len(scores)
    if n < 2 * least:
        return None
    for axis in np.argsort(-scores.std(axis=0), kind="stable"):
        ordered = np.sort(scores[:, axis])
        below = np.flatnonzero(ordered[1:] > ordered[:-1]) + 1
        below = below[(below >= least) & (below <= n - least)]
        if len(below):
            at = below[np.argmin(np.abs(below - n / 2))]
            lower: Bools = scores[:, axis] < ordered[at]
            return lower
    return None


def uniform_lists(sizes: ArrayLike, *, n_genes: int, seed: int) -> csr_array[Any]:
    """Return lists of these sizes whose genes are drawn with equal chances."""
    return _drawn(sizes, np.ones(at_least(n_genes, 1, "uniform_lists(n_genes)")), seed=seed, where="uniform_lists")


def popularity_lists(sizes: ArrayLike, *, annotations: ArrayLike, seed: int) -> csr_array[Any]:
    """Return lists of these sizes whose genes are drawn, one after another, in proportion to their annotations."""
    where = "popularity_lists"
    weights = numbers(annotations, f"{where}(annotations)")
    if weights.ndim != 1 or weights.min() < 0:
        raise DataError("is no list of counts", where=f"{where}(annotations)", remedy="Give one number a gene.")
    return _drawn(sizes, weights, seed=seed, where=where)


def _drawn(sizes: ArrayLike, weights: Floats, *, seed: int, where: str) -> csr_array[Any]:
    wanted = np.atleast_1d(np.asarray(sizes))
    if wanted.ndim != 1 or wanted.dtype.kind not in "iu" or not wanted.size or wanted.min() < 0:
        raise DataError("is no list of sizes", where=f"{where}(sizes)", remedy="Give one whole number a list.")
    possible = np.flatnonzero(weights > 0)
    if wanted.max() > len(possible):
        what = f"a list of {wanted.max():,} genes cannot be drawn from {len(possible):,}"
        raise DataError(what, where=f"{where}(sizes)", remedy="Ask for shorter lists.")
    rng = generator(seed, where)
    step = max(1, BLOCK // max(1, int(wanted.max())))
    parts = [_block(wanted[i : i + step], weights[possible], rng) for i in range(0, len(wanted), step)]
    places = possible[np.concatenate(parts)]
    starts = np.concatenate([[0], np.cumsum(wanted)])
    rows = csr_array(
        (np.ones(len(places), np.int8), places.astype(np.int32), starts), shape=(len(wanted), len(weights))
    )
    rows.sort_indices()
    return rows


def _block(wanted: Ints, weights: Floats, rng: np.random.Generator) -> Ints:
    """Return items drawn without replacement, list behind list.

    Drawing with replacement and passing over what has come before is the same. What a list still lacks then is drawn
    from the items that it does not have: the first arrivals of processes with their weights as rates.
    """
    longest = int(wanted.max())
    sums = np.cumsum(weights)
    spots = rng.random((len(wanted), longest + longest // 2 + 8)) * sums[-1]
    come = np.minimum(np.searchsorted(sums, spots, side="right"), len(weights) - 1)
    order = np.argsort(come, axis=1, kind="stable")
    ordered = np.take_along_axis(come, order, axis=1)
    first = np.ones(come.shape, dtype=bool)
    np.put_along_axis(first, order[:, 1:], ordered[:, 1:] != ordered[:, :-1], axis=1)
    taken = first & (np.cumsum(first, axis=1) <= wanted[:, None])
    items: Ints = come[taken]
    if not (short := np.flatnonzero(taken.sum(axis=1) < wanted)).size:
        return items
    lists = np.split(items, np.cumsum(taken.sum(axis=1))[:-1])
    for i in short.tolist():
        arrivals = rng.exponential(size=len(weights)) / weights
        arrivals[lists[i]] = np.inf
        more = int(wanted[i]) - len(lists[i])
        lists[i] = np.append(lists[i], np.argpartition(arrivals, more - 1)[:more])
    return np.concatenate(lists)
