"""Over-representation: do lists of genes hold more of a term than chance would put there, for all pairs at once?

1. What each list shares with each term is one sparse product, a list at a time; nothing of the size of lists × terms
   is held. Pairs that are the same 2×2 table are counted together (overlap_kernels.py).
2. Each different table is tested once: hypergeometric tails in log space, from base/statistics.
3. The family is every list with every term, also the pairs that share nothing: for "greater" their p is 1, and they
   are counted and not stored. No p-value is left out of the correction because its overlap was small.
4. Benjamini–Hochberg and –Yekutieli are exact for every row (families.py). Storey's π0 is estimated with p-values
   beyond the first two million as p = 1: never too small.

R. A. Fisher, "The logic of inductive inference", J. R. Stat. Soc. 98, 1935.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
from scipy.sparse import csr_array

from elute.base.errors import DataError
from elute.base.statistics.checks import ALTERNATIVES, Alternative, Floats, Ints, choice
from elute.base.statistics.exact import odds_ratio
from elute.base.statistics.hypergeometric import (
    Cells,
    in_chunks,
    log_lower_tail,
    log_probability,
    log_two_sided,
    log_upper_tail,
)
from elute.validation import overlap_kernels as kernels
from elute.validation.families import GIVEN, MOST_ROWS, Bounds, Enriched, Family, corrected, named_rows

if TYPE_CHECKING:
    from typing import Any

    from elute.validation.terms import Terms

PAIRS = 1 << 16  # whose genes are held at a time
_TAILS = {"two-sided": log_two_sided, "less": log_lower_tail}


class _Tables(NamedTuple):
    """The different tables of all pairs, and how many pairs each has; by list size, term size and overlap."""

    cells: Cells
    counts: Ints
    counters: Ints
    """Which counter each was counted in."""
    ends: Ints
    """Where those of each size of list end."""


def over_representation(
    lists: csr_array[Any],
    terms: Terms,
    *,
    alternative: Alternative = "greater",
    most_rows: int = MOST_ROWS,
    most_p: float = 1.0,
    most_q: float = 1.0,
) -> Enriched:
    """Test lists of genes [lists, genes], over the terms' own background, against every term.

    The table holds the pairs that share a gene (all pairs, if depletion is asked for) with p and q up to the bounds,
    those with the smallest p if they are more than `most_rows`.
    """
    choice(alternative, ALTERNATIVES, "over_representation(alternative)")
    bounds = Bounds(most_rows, most_p, most_q).checked()
    listed = binary(lists, len(terms.background), "over_representation(lists)")
    walk = _Walk(listed, terms, every=alternative != "greater")
    found = walk.count()
    log_p = _log_p(found.cells, alternative)
    order = np.argsort(log_p, kind="stable")
    tests = listed.shape[0] * len(terms)
    result = corrected(np.exp(log_p[order]), found.counts[order], tests=tests, most=max(GIVEN, bounds.rows))
    before = np.cumsum(found.counts[order])
    fits = (before <= bounds.rows) & (log_p[order] <= np.log(bounds.p)) & (result.q <= bounds.q)
    kept = order[fits]
    n = int(found.counts[kept].sum())
    place = np.full(len(found.counts), -1, dtype=np.int64)
    place[kept] = np.arange(len(kept))
    rows = walk.write(found, place, n)
    q = {name: getattr(result, name)[fits] for name in ("q", "q_by", "q_storey")}
    table = _table(rows, Cells(*(cell[kept] for cell in found.cells)), terms=terms, log_p=log_p[kept], q=q)
    total = int(found.counts.sum())
    family = Family(
        test="over-representation",
        alternative=alternative,
        lists=listed.shape[0],
        terms=len(terms),
        tests=tests,
        kept=n,
        left_out=total - n,
        without=tests - total,
        pi0=result.pi0,
        background=terms.background.stated,
        source=terms.source,
    )
    return Enriched(table, family)


def more_than_chance(lists: csr_array[Any], terms: Terms, *, listed: Ints, index: Ints) -> tuple[Ints, Floats]:
    """Return what pairs of a list and a term share, and its p-value ("greater"), without the rest of the family."""
    shared = np.empty(len(listed), dtype=np.int64)
    if not len(shared):
        return shared, np.empty(0)
    for first in range(0, len(listed), PAIRS):
        part = slice(first, first + PAIRS)
        both = lists[listed[part]].astype(np.int32).multiply(terms.members[index[part]])
        shared[part] = np.asarray(both.sum(axis=1)).ravel()
    listed_n, size = np.diff(lists.indptr)[listed].astype(np.int64), terms.sizes[index]
    outside = len(terms.background) - listed_n - size + shared
    return shared, np.exp(in_chunks(log_upper_tail, Cells(shared, listed_n - shared, size - shared, outside)))


def _log_p(cells: Cells, alternative: Alternative) -> Floats:
    """Return the log p-values of different tables, those of the same margins side by side and a ascending."""
    if not len(cells.a):
        return np.empty(0)
    if alternative != "greater":
        return in_chunks(_TAILS[alternative], cells)
    listed, size = cells.a + cells.b, cells.a + cells.c
    last = np.append((listed[1:] != listed[:-1]) | (size[1:] != size[:-1]), True)
    top = in_chunks(log_probability, Cells(*(cell[last] for cell in cells)))
    result = np.empty(len(cells.a))
    kernels.upper_tails(tuple(cells), (np.flatnonzero(last) + 1, top), result)
    return result


def binary(matrix: csr_array[Any], n_genes: int, where: str) -> csr_array[Any]:
    """Return rows of 0 and 1 over so many genes, without stored zeros, or say what is wrong with them."""
    shape = tuple(int(n) for n in matrix.shape)
    if len(shape) != 2 or shape[1] != n_genes or not shape[0]:
        what = f"has shape {shape} over a background of {n_genes:,} genes"
        raise DataError(what, where=where, remedy="Make the lists with the terms' own background: lists_of.")
    rows = csr_array(matrix)
    if not (rows.has_canonical_format and bool(np.all(rows.data))):
        rows = rows.copy()
        rows.sum_duplicates()
        rows.eliminate_zeros()
    if np.any(rows.data != 1):
        raise DataError("holds other numbers than 0 and 1", where=where, remedy="A gene is in a list once, or not.")
    return rows


class _Walk:
    """Goes through all pairs: once to count tables, and once more for the rows that are kept."""

    def __init__(self, lists: csr_array[Any], terms: Terms, *, every: bool) -> None:
        self.n_genes = len(terms.background)
        self.kinds, kind = np.unique(terms.sizes, return_inverse=True)
        # A term of so many genes shares between none and all of them with a list.
        self.firsts = np.concatenate([[0], np.cumsum(self.kinds + 1)]).astype(np.int64)
        by_gene = terms.members.tocsc()
        genes = (by_gene.indptr.astype(np.int64), by_gene.indices.astype(np.int32))
        self.terms = (*genes, kind.astype(np.int32), self.firsts, every)
        self.row = (np.zeros(len(terms), np.int32), np.empty(len(terms) + 1, np.int32))
        self.starts, self.genes = lists.indptr.astype(np.int64), lists.indices.astype(np.int32)
        sizes = np.diff(self.starts)
        order = np.argsort(sizes, kind="stable")
        self.sizes, first = np.unique(sizes[order], return_index=True)
        self.alike = np.split(order, first[1:])

    def _lists(self, which: Ints) -> tuple[Any, ...]:
        return which, self.starts, self.genes

    def count(self) -> _Tables:
        room = int(self.firsts[-1])
        counters, most = np.zeros(room, np.int64), np.full(len(self.kinds), -1, np.int64)
        out = (np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int64))
        parts: list[list[Ints]] = []
        for which in self.alike:
            n = kernels.count(self._lists(which), self.terms, (self.row, counters, most, *out))
            parts.append([each[:n].copy() for each in out])
        kind, shared, counts = (np.concatenate(each) for each in zip(*parts, strict=True))
        ends = np.cumsum([len(part[0]) for part in parts])
        listed = np.repeat(self.sizes, np.diff(ends, prepend=0))
        size = self.kinds[kind]
        cells = Cells(shared, listed - shared, size - shared, self.n_genes - listed - size + shared)
        return _Tables(cells, counts, self.firsts[kind] + shared, ends)

    def write(self, found: _Tables, place: Ints, n: int) -> tuple[Ints, Ints, Ints]:
        out = (np.empty(n, np.int64), np.empty(n, np.int64), np.empty(n, np.int64))
        chosen, m, start = np.empty(int(self.firsts[-1]), np.int64), 0, 0
        for which, end in zip(self.alike, found.ends.tolist(), strict=True):
            places = place[start:end]
            if np.any(places >= 0):
                chosen[found.counters[start:end]] = places
                rest = (each[m:] for each in out)
                m += kernels.write(self._lists(which), self.terms, (self.row, chosen, *rest))
            start = end
        return out


def _table(
    rows: tuple[Ints, Ints, Ints], cells: Cells, *, terms: Terms, log_p: Floats, q: dict[str, Floats]
) -> pl.DataFrame:
    """Return the rows: what belongs to a table is worked out once and handed to all its pairs."""
    a, b, c, d = cells
    population = len(terms.background)
    odds = odds_ratio(np.stack([a, b, c, d], axis=-1).reshape(-1, 2, 2)) if len(a) else None
    each: dict[str, Any] = {
        "overlap": a.astype(np.int32),
        "list_size": (a + b).astype(np.int32),
        "term_size": (a + c).astype(np.int32),
        "background": np.full(len(a), population, dtype=np.int32),
        "expected": (a + b) * (a + c).astype(np.float64) / population,
        "log_p": log_p,
        "p": np.exp(log_p),
        **q,
        "odds": odds.sample if odds else log_p,
        "odds_low": odds.low if odds else log_p,
        "odds_high": odds.high if odds else log_p,
    }
    listed, index, table = rows
    order = np.lexsort((index, log_p[table], listed))
    places = table[order]
    return named_rows(listed[order], index[order], {name: values[places] for name, values in each.items()}, terms=terms)
