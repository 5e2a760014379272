"""Enrichment of lists of genes in the terms of a branch: each term for itself, and given its parents.

1. Term for term: of N genes of the branch K have the term; of a list's n genes k do. p = P(X ≥ k), hypergeometric.
2. Parent–child: the same among the genes of the term's parents alone, of any (union) or of all of them
   (intersection): is the list drawn to this term, or merely to what lies above it? The root's p is 1.
3. A list and a term that share no gene have p = 1 and are left out unless asked for; they stay in the family of tests.

A parent–child p says how specific a term is; it is no answer to whether the list has to do with the branch at all.

S. Grossmann, S. Bauer, P. N. Robinson, M. Vingron, Bioinformatics 23, 2007, for parent–child.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from scipy import sparse

from elute.base.errors import DataError
from elute.base.statistics.checks import Bools, Floats, Ints, choice
from elute.base.statistics.exact import fisher_exact, tables_from_overlap

if TYPE_CHECKING:
    import polars as pl

    from elute.validation.ontology import Branch

Pairs = tuple[Ints, Ints]
"""Which lists, and which terms of the branch; one entry a pair."""
PARENTS = ("union", "intersection")
_BLOCK = 1 << 24  # overlaps held at a time


@dataclass(frozen=True, eq=False)
class Enriched:
    """One entry a pair of a list and a term: the four counts of its test, and the natural logarithm of its p-value."""

    lists: Ints
    terms: Ints
    overlap: Ints
    list_size: Ints
    term_size: Ints
    population: Ints
    log_p: Floats

    @property
    def p(self) -> Floats:
        """The p-values."""
        return np.exp(self.log_p)

    @property
    def pairs(self) -> Pairs:
        """The lists and the terms."""
        return self.lists, self.terms

    def part(self, which: Bools | Ints | slice) -> Enriched:
        """Return some of the pairs."""
        return Enriched(
            self.lists[which],
            self.terms[which],
            self.overlap[which],
            self.list_size[which],
            self.term_size[which],
            self.population[which],
            self.log_p[which],
        )

    def table(self, branch: Branch, names: Sequence[str] | None = None) -> pl.DataFrame:
        """Return the pairs as a table, with the lists' names or numbers, and the terms' ids and labels."""
        import polars as pl

        lists = self.lists.tolist()
        return pl.DataFrame(
            {
                "list": lists if names is None else [names[i] for i in lists],
                "term": [branch.terms[i] for i in self.terms.tolist()],
                "label": branch.names(self.terms.tolist()),
                "overlap": self.overlap,
                "list_size": self.list_size,
                "term_size": self.term_size,
                "population": self.population,
                "p": self.p,
                "log_p": self.log_p,
            }
        )


def checked(branch: Branch, lists: sparse.csr_array) -> sparse.csr_array:
    """Return lists as whole numbers; those that are not 0 and 1 over the genes of the branch are refused."""
    if lists.shape[1] != len(branch.genes):
        raise DataError(
            f"has {lists.shape[1]} columns, and the branch {len(branch.genes)} genes",
            where="lists",
            remedy="Bring them over with the branch's own `cut` or `lists`.",
        )
    found = sparse.csr_array(lists).astype(np.int32)
    found.sum_duplicates()
    found.eliminate_zeros()
    if found.nnz and (found.data.min() != 1 or found.data.max() != 1):
        raise DataError("holds other numbers than 0 and 1", where="lists", remedy="Name each gene once a list.")
    return found


def log_upper(overlap: Ints, list_size: Ints, term_size: Ints, *, population: Ints) -> Floats:
    """Return log P(X ≥ overlap) of each pair; nothing of nothing."""
    if not len(overlap):
        return np.zeros(0)
    tables = tables_from_overlap(overlap, list_size, term_size, population=population)
    return fisher_exact(tables, alternative="greater").log_p


def term_for_term(branch: Branch, lists: sparse.csr_array, *, pairs: Pairs | None = None) -> Enriched:
    """Test each list [lists, genes] for each term that shares a gene with it, or the pairs asked for."""
    lists = checked(branch, lists)
    if pairs is None:
        overlaps = sparse.csr_array(lists @ branch.members.T)
        overlaps.sort_indices()
        rows = np.repeat(np.arange(lists.shape[0], dtype=np.int64), np.diff(overlaps.indptr))
        at, overlap = (rows, overlaps.indices.astype(np.int64)), overlaps.data.astype(np.int64)
    else:
        at = _asked(branch, lists, pairs)
        overlap = _overlaps(lists, branch.members, at)
    n = np.diff(lists.indptr).astype(np.int64)[at[0]]
    return _tested(at, overlap, list_size=n, term_size=branch.sizes[at[1]], population=_same(len(branch.genes), at))


def parent_child(
    branch: Branch,
    lists: sparse.csr_array,
    *,
    pairs: Pairs | None = None,
    of: Literal["union", "intersection"] = "union",
) -> Enriched:
    """Test each list for each term among the genes of the term's parents; `pairs` as of `term_for_term`."""
    choice(of, PARENTS, "parent_child(of)")
    lists = checked(branch, lists)
    at = term_for_term(branch, lists).pairs if pairs is None else _asked(branch, lists, pairs)
    terms, column = np.unique(at[1], return_inverse=True)
    ups = branch.parents[terms] if len(terms) else branch.parents[:0]
    held = sparse.csr_array(ups @ branch.members)  # how many of its parents have a gene
    many = np.diff(ups.indptr)
    if of == "intersection":
        held.data[held.data < np.repeat(many, np.diff(held.indptr))] = 0
        held.eliminate_zeros()
    held.data[:] = 1
    population = np.diff(held.indptr).astype(np.int64)[column]
    among = _overlaps(lists, held, (at[0], column.astype(np.int64)))
    sizes = np.diff(lists.indptr).astype(np.int64)
    top = (many == 0)[column]
    return _tested(
        at,
        _overlaps(lists, branch.members, at),
        list_size=np.where(top, sizes[at[0]], among),
        term_size=branch.sizes[at[1]],
        population=np.where(top, len(branch.genes), population),
    )


def _tested(at: Pairs, overlap: Ints, *, list_size: Ints, term_size: Ints, population: Ints) -> Enriched:
    log_p = log_upper(overlap, list_size, term_size, population=population)
    return Enriched(at[0], at[1], overlap, list_size, term_size, population, log_p)


def _same(number: int, at: Pairs) -> Ints:
    return np.full(len(at[0]), number, dtype=np.int64)


def _asked(branch: Branch, lists: sparse.csr_array, pairs: Pairs) -> Pairs:
    found = tuple(np.asarray(each, dtype=np.int64).ravel() for each in pairs)
    if len(found) != 2 or len(found[0]) != len(found[1]):
        raise DataError("is not one list and one term a pair", where="pairs", remedy="Give two arrays of one length.")
    for each, n in zip(found, (lists.shape[0], len(branch.terms)), strict=True):
        if len(each) and (each.min() < 0 or each.max() >= n):
            raise DataError(f"names {each.max()} where there are {n}", where="pairs", remedy="Places count from 0.")
    return found[0], found[1]


def _overlaps(lists: sparse.csr_array, sets: sparse.csr_array, at: Pairs) -> Ints:
    """Return how many genes the list and the set of each pair share, some sets at a time."""
    result = np.zeros(len(at[0]), dtype=np.int64)
    order = np.argsort(at[1], kind="stable")
    wanted = np.unique(at[1])
    step = max(1, _BLOCK // max(lists.shape[0], 1))
    columns = sparse.csr_array(lists.T)  # [genes, lists]
    for start in range(0, len(wanted), step):
        block = wanted[start : start + step]
        low, high = np.searchsorted(at[1][order], [block[0], block[-1] + 1])
        here = order[low:high]
        shared = (sets[block] @ columns).toarray()
        result[here] = shared[np.searchsorted(block, at[1][here]), at[0][here]]
    return result
