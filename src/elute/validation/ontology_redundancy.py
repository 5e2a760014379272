"""Terms that only repeat what a term below them says: taken out of the test (elim, weight), or folded (for a reader).

1. elim: terms from the deepest up, term for term. Where p < threshold, the term's genes leave all terms above it; the
   population and the list stay as they are.
2. weight: each gene weighs 1 in each term. From the deepest up, a term u is compared with its children c that share a
   gene with the list, by r = log p(c) / log p(u), or p(u) / p(c). Those with r > 1, and those that are level, say it
   better: the weights of their genes are divided by r (2 where level) in u and in all terms above it, and u is tested
   anew beside its other children. Once u is better than all that are left, their genes' weights are to be multiplied
   by r there; of several such factors a gene keeps the smallest, and they are put in at the end, so that the order
   within a level does not matter. The sums of weights are rounded down in the list and up in the term, and what the
   term loses leaves the population and the list.
3. fold: from the deepest up, a significant term is asked what it says beyond the kept terms below it. Their genes
   are taken out of the population, the list and the term. If the rest has p ≥ threshold, and one of those below is at
   least as significant as the term, it is folded under the one that holds most of its genes of the list (then the
   smaller p, then the deeper, then the first by id). A term that is better than all below it is kept.

elim's and weight's p-values are those of a procedure that looks at its own results on the way: they order terms, and
stand beside the term-for-term p, on which a headline rests.

A. Alexa, J. Rahnenführer, T. Lengauer, Bioinformatics 22, 2006, for elim and weight; that level terms count 2, and
that the smallest factor holds, are as in their program.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import sparse

from elute.base.statistics.checks import Bools, Floats, Ints, choice, proportion
from elute.validation.ontology import row
from elute.validation.ontology_enrichment import Enriched, checked, log_upper, term_for_term

if TYPE_CHECKING:
    import polars as pl

    from elute.validation.ontology import Branch

RATIOS = ("log", "p")
_ROUND = 1e-9  # sums of weights that are whole but for the last digits


@dataclass(frozen=True, eq=False)
class Folded:
    """Significant pairs of a list and a term, and under which other term of the same list each was folded."""

    pairs: Enriched
    under: Ints  # a term of the branch; −1 where the pair was kept
    explained: Floats  # share of the genes that list and term share which the kept terms below hold
    rest_log_p: Floats  # of what is left without those genes

    @property
    def kept(self) -> Enriched:
        """The pairs that were not folded."""
        return self.pairs.part(self.under < 0)

    def table(self, branch: Branch, names: list[str] | None = None) -> pl.DataFrame:
        """Return the pairs as a table that lists what was folded, under what (null where kept), and why."""
        import polars as pl

        above = [branch.terms[i] if i >= 0 else None for i in self.under.tolist()]
        return self.pairs.table(branch, names).with_columns(
            folded_under=pl.Series(above, dtype=pl.String),
            explained=pl.Series(self.explained),
            rest_p=pl.Series(np.exp(self.rest_log_p)),
        )


def elim(branch: Branch, lists: sparse.csr_array, *, threshold: float = 0.01) -> Enriched:
    """Test each list for each term without the genes of the terms below it that came out."""
    limit = np.log(proportion(threshold, "elim(threshold)"))
    first = term_for_term(branch, lists)
    listed = checked(branch, lists)
    overlap, size, log_p = first.overlap.copy(), first.term_size.copy(), first.log_p.copy()
    for which, inside in _by_list(listed, first):
        gone: dict[int, Bools] = {}  # what each term has lost to those below it
        for here in _levels(branch, first.terms, which):
            lost = [i for i in here.tolist() if int(first.terms[i]) in gone]
            if lost:
                masks = [gone[int(first.terms[i])] for i in lost]
                overlap[lost] -= [int((mask & inside).sum()) for mask in masks]
                size[lost] -= [int(mask.sum()) for mask in masks]
                log_p[lost] = log_upper(
                    overlap[lost], first.list_size[lost], size[lost], population=first.population[lost]
                )
            for i in here[log_p[here] < limit].tolist():
                term = int(first.terms[i])
                genes = row(branch.members, term)
                for up in row(branch.above, term).tolist():
                    if up != term:
                        if up not in gone:
                            gone[up] = np.zeros(len(branch.genes), dtype=np.bool_)
                        gone[up][genes] = True
    return replace(first, overlap=overlap, term_size=size, log_p=log_p)


def weight(branch: Branch, lists: sparse.csr_array, *, ratio: Literal["log", "p"] = "log") -> Enriched:
    """Test each list for each term with its genes weighted by how much better its children or its parents fit."""
    choice(ratio, RATIOS, "weight(ratio)")
    first = term_for_term(branch, lists)
    listed = checked(branch, lists)
    children = sparse.csr_array(branch.parents.T)
    parts = []
    for which, inside in _by_list(listed, first):
        tests = _Weighted(branch, first.part(which), inside)
        for here in _levels(branch, first.terms, which):
            tests.weigh(first.terms[here].tolist(), children=children, ratio=ratio)
        parts.append(tests.finish())
    if not parts:
        return first
    return Enriched(*(np.concatenate([getattr(part, each.name) for part in parts]) for each in fields(Enriched)))


class _Weighted:
    """The tests of one list, each with the weights of its term's genes."""

    def __init__(self, branch: Branch, first: Enriched, inside: Bools) -> None:
        self.branch, self.first, self.inside = branch, first, inside
        self.at = {term: i for i, term in enumerate(first.terms.tolist())}
        self.log_p = dict(zip(self.at, first.log_p.tolist(), strict=True))
        self.up: dict[int, Floats] = {}  # by term: its genes' weights, for what lies below says it better
        self.down: dict[int, float] = {}  # by term: its genes' factor, for what lies above says it better

    def weigh(self, terms: list[int], *, children: sparse.csr_array, ratio: str) -> None:
        """Compare the terms of one level with their children, and pass on what follows to those above and below."""
        members = self.branch.members
        self.test([term for term in terms if term in self.up])
        left = {term: [child for child in row(children, term).tolist() if child in self.at] for term in terms}
        passed: dict[int, Floats] = {}
        while left := {term: below for term, below in left.items() if below}:
            again = []
            for term, below in left.items():
                compared = {child: _ratio(self.log_p[child], self.log_p[term], ratio) for child in below}
                better = [child for child in below if compared[child] > 1.0]
                left[term] = [child for child in below if child not in better] if better else []
                if not better:
                    for child in below:
                        self.down[child] = min(self.down.get(child, 1.0), compared[child])
                    continue
                genes = row(members, term)
                factors = np.ones(len(genes))
                for child in better:
                    factors[np.searchsorted(genes, row(members, child))] /= compared[child]
                self.up[term] = self.up.get(term, np.ones(len(genes))) * factors
                passed[term] = passed.get(term, np.ones(len(genes))) * factors
                again.append(term)
            self.test(again)
        for term, factors in passed.items():
            genes = row(members, term)
            for other in row(self.branch.above, term).tolist():
                if other != term:
                    wide = row(members, other)
                    if other not in self.up:
                        self.up[other] = np.ones(len(wide))
                    self.up[other][np.searchsorted(wide, genes)] *= factors

    def test(self, terms: list[int]) -> None:
        """Test terms anew under the weights that they have from those below."""
        found = self.counted(dict.fromkeys(terms, 1.0))
        self.log_p |= dict(zip(terms, found.log_p.tolist(), strict=True))

    def finish(self) -> Enriched:
        """Put in the factors from above and return all tests."""
        return self.counted({term: self.down.get(term, 1.0) for term in self.at})

    def counted(self, terms: dict[int, float]) -> Enriched:
        """Test terms under their weights times a factor."""
        at = np.array([self.at[term] for term in terms], dtype=np.int64)
        first = self.first.part(at)
        held, size = first.overlap.copy(), first.term_size.copy()
        for i, (term, factor) in enumerate(terms.items()):
            if factor < 1.0 or term in self.up:
                genes = row(self.branch.members, term)
                weights = self.up.get(term, np.ones(len(genes))) * factor
                held[i] = np.floor(weights[self.inside[genes]].sum() + _ROUND)
                size[i] = np.ceil(weights.sum() - _ROUND)
        n, population = first.list_size - (first.overlap - held), first.population - (first.term_size - size)
        log_p = log_upper(held, n, size, population=population)
        return Enriched(first.lists, first.terms, held, n, size, population, log_p)


def _ratio(child: float, mine: float, kind: str) -> float:
    """Return how much better a child's log p is than a term's own; 2 where they are level."""
    if abs(child - mine) <= 1e-12 * max(1.0, abs(mine)):
        return 2.0
    if kind == "p":
        return float(np.exp(np.clip(mine - child, -700.0, 700.0)))
    return child / mine if mine < 0 else np.inf


def fold(branch: Branch, lists: sparse.csr_array, significant: Enriched, *, threshold: float = 0.01) -> Folded:
    """Fold each significant term under a significant one below it, unless it is enriched without it as well."""
    limit = np.log(proportion(threshold, "fold(threshold)"))
    listed = checked(branch, lists)
    now = term_for_term(branch, listed, pairs=significant.pairs)  # whichever test called them significant
    under = np.full(len(now.terms), -1, dtype=np.int64)
    explained, rest = np.zeros(len(under)), now.log_p.copy()
    kept: dict[int, list[int]] = {}  # of each list: the pairs that stay, deeper than those that are looked at
    ups = {term: set(row(branch.above, term).tolist()) for term in np.unique(now.terms).tolist()}
    lists_of, terms_of = now.lists.tolist(), now.terms.tolist()
    out = np.zeros(len(branch.genes), dtype=np.bool_)
    for here in _levels(branch, now.terms, np.arange(len(under))):
        below = {i: [j for j in kept.get(lists_of[i], ()) if terms_of[i] in ups[terms_of[j]]] for i in here.tolist()}
        asked = np.array([i for i, others in below.items() if others], dtype=np.int64)
        held, gone = np.zeros(len(asked), dtype=np.int64), np.zeros(len(asked), dtype=np.int64)
        for at, i in enumerate(asked.tolist()):
            out[:] = False
            for j in below[i]:
                out[row(branch.members, terms_of[j])] = True
            gone[at], held[at] = out.sum(), out[row(listed, lists_of[i])].sum()
        pairs = now.part(asked)
        explained[asked] = held / np.maximum(pairs.overlap, 1)
        rest[asked] = log_upper(
            pairs.overlap - held, pairs.list_size - held, pairs.term_size - gone, population=pairs.population - gone
        )
        for i in here.tolist():
            others = below[i]
            if others and rest[i] >= limit and now.log_p[others].min() <= now.log_p[i]:
                under[i] = terms_of[min(others, key=lambda j: _nearness(branch, now, j))]
            else:
                kept.setdefault(lists_of[i], []).append(i)
    return Folded(significant, under, explained, rest)


def _nearness(branch: Branch, pairs: Enriched, j: int) -> tuple[int, float, int, int]:
    term = int(pairs.terms[j])
    return -int(pairs.overlap[j]), float(pairs.log_p[j]), -int(branch.level[term]), term


def _by_list(lists: sparse.csr_array, pairs: Enriched) -> Iterator[tuple[Ints, Bools]]:
    """Yield the pairs of each list, and which genes it holds."""
    order = np.argsort(pairs.lists, kind="stable")
    found, starts = np.unique(pairs.lists[order], return_index=True)
    for which, here in zip(found.tolist(), np.split(order, starts[1:]) if len(order) else (), strict=True):
        inside = np.zeros(lists.shape[1], dtype=np.bool_)
        inside[row(lists, which)] = True
        yield here, inside


def _levels(branch: Branch, terms: Ints, which: Ints) -> Iterator[Ints]:
    """Yield some pairs level by level, the deepest first."""
    levels = branch.level[terms[which]]
    for level in np.unique(levels)[::-1].tolist():
        here = which[levels == level]
        yield here[np.argsort(terms[here], kind="stable")]
