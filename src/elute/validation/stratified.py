"""Among like genes: the exact law of what a list shares with a term over all its null lists (null_lists.py).

1. A draw puts the list's c genes of a stratum of S anywhere in it, and the term has m genes there; so the overlap is a
   sum of independent hypergeometric numbers, one a stratum. Their law is a convolution of a few short rows, all of
   whose terms are positive: no p-value is lost to rounding, however small.
2. P(overlap ≥ that seen) is what the share of draws that do as well or better comes to with ever more of them. Twenty
   draws cannot give a p below 1/21; pooled over features they could, but lists differ in how their genes lie among
   the strata, and pooled draws would be of other lists than this one. The law needs neither. Where a list fills its
   strata, every draw gives the list itself, and its p is 1 whatever it holds.
3. `among_like` makes it part of the family of over-representation: a pair counts with the larger of its two p-values.
   The plain test alone takes what lists have in common, a liking for well-known or highly expressed genes, for a
   finding; the strata alone are of some width. The price is that few genes in a small stratum cannot say much: a hit
   is worth a factor of S at most, and a list of a small background fills small strata.

N. Mantel, W. Haenszel, J. Natl. Cancer Inst. 22, 1959, and M. W. Birch, J. R. Stat. Soc. B 26, 1964, for the test
within strata.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike
from scipy.sparse import csr_array

from elute.base.compiled import compiled, over
from elute.base.errors import DataError
from elute.base.statistics.checks import Floats, Ints
from elute.validation.families import Enriched, corrected

if TYPE_CHECKING:
    from elute.validation.null_lists import Matched


@compiled
def _law(c: Any, m: Any, n: Any, found: int, k: int, logs: Any, work: Any) -> Any:
    """Return P(overlap ≥ k) of so many strata (c, m, n)."""
    law, then = work
    for j in range(k):
        law[j] = 0.0
    law[0] = 1.0
    tail, top = 0.0, 0
    for x in range(found):
        fixed = logs[c[x]] + logs[n[x] - c[x]] + logs[m[x]] + logs[n[x] - m[x]] - logs[n[x]]
        least, most = max(0, c[x] + m[x] - n[x]), min(c[x], m[x])
        for j in range(k):
            then[j] = 0.0
        for h in range(least, most + 1):
            log_p = fixed - logs[h] - logs[c[x] - h] - logs[m[x] - h] - logs[n[x] - c[x] - m[x] + h]
            chance = np.exp(log_p)
            for j in range(min(top, k - 1) + 1):
                if j + h >= k:
                    tail += law[j] * chance
                else:
                    then[j + h] += law[j] * chance
        top = min(top + most, k - 1)
        for j in range(k):
            law[j] = then[j]
    return min(tail, 1.0)


@compiled
def _tails(pairs: Any, lists: Any, terms: Any, among: Any, strata: Any, out: Any, lo: int, hi: int) -> None:
    """Write P(overlap ≥ k) for pairs lo … hi.

    `pairs`: list, term, k. `lists` and `terms`: the first of each, strata, genes; `among` the latter as rows [terms,
    strata]. `strata`: sizes, log factorials.
    """
    rows, places, seen = pairs
    starts, at, counts = lists
    firsts, where, held = terms
    sizes, logs = strata
    dense = np.zeros(sizes.shape[0], np.int64)
    c, m, n = np.zeros(sizes.shape[0], np.int64), np.zeros(sizes.shape[0], np.int64), np.zeros(sizes.shape[0], np.int64)
    longest, last = 1, -1
    for r in range(lo, hi):
        longest = max(longest, seen[r])
    work = (np.zeros(longest), np.zeros(longest))
    for r in range(lo, hi):
        i, t, k = rows[r], places[r], seen[r]
        if i != last:
            for x in range(starts[max(last, 0)], starts[max(last, 0) + 1]):
                dense[at[x]] = 0
            for x in range(starts[i], starts[i + 1]):
                dense[at[x]] = counts[x]
            last = i
        # The strata where both have genes, from whichever has fewer.
        found = 0
        short = starts[i + 1] - starts[i] <= firsts[t + 1] - firsts[t]
        for x in range(starts[i] if short else firsts[t], starts[i + 1] if short else firsts[t + 1]):
            s = at[x] if short else where[x]
            c[found], n[found] = dense[s], sizes[s]
            m[found] = among[t, s] if short else held[x]
            found += c[found] > 0 and m[found] > 0
        out[r] = _law(c, m, n, found, k, logs, work) if found and k >= 1 else 1.0


class Strata:
    """What terms [terms, genes] hold of each stratum of like genes."""

    def __init__(self, members: csr_array[Any], matched: Matched) -> None:
        n_genes = len(matched.strata)
        if members.ndim != 2 or members.shape[1] != n_genes:
            what = f"has shape {members.shape} over {n_genes:,} genes"
            raise DataError(what, where="terms", remedy="Cut terms to the genes of the covariates.")
        places = (np.arange(n_genes), matched.strata)
        self.of = csr_array((np.ones(n_genes, np.int32), places), shape=(n_genes, len(matched.sizes)))
        held = csr_array(members.astype(np.int32) @ self.of)
        kind = np.int16 if matched.sizes.max() <= np.iinfo(np.int16).max else np.int32
        self.terms, self.among = _parts(held), np.ascontiguousarray(held.toarray().astype(kind))
        logs = np.concatenate([[0.0], np.cumsum(np.log(np.arange(1, matched.sizes.max() + 1)))])
        self.strata = (matched.sizes.astype(np.int64), logs)

    def p(self, lists: csr_array[Any], *, listed: ArrayLike, index: ArrayLike, overlap: ArrayLike) -> Floats:
        """Return for pairs of a list and a term the chance of a null list to share as many genes.

        `listed`, `index` and `overlap` are the columns of a table of over-representation.
        """
        where = "Strata.p"
        pairs = [np.ascontiguousarray(each, dtype=np.int64) for each in (listed, index, overlap)]
        for name, column, most in zip(("listed", "index"), pairs, (lists.shape[0], len(self.among)), strict=False):
            if column.size and (column.min() < 0 or column.max() >= most):
                raise DataError(f"names a row outside 0 … {most - 1}", where=f"{where}({name})")
        if len({column.shape for column in pairs}) > 1:
            raise DataError("the columns differ in length", where=where, remedy="Give one entry a pair.")
        own = _parts(csr_array(lists.astype(np.int32) @ self.of))
        out = np.empty(len(pairs[0]))
        if len(out):
            over(len(out), _tails, tuple(pairs), own, self.terms, self.among, self.strata, out)
        return out


def among_like(found: Enriched, lists: csr_array[Any], strata: Strata) -> Enriched:
    """Add `null_p`, and correct the larger of both p-values in the same family; `q_plain` is what q was.

    Pairs that are not in the table count as p = 1. That makes no q smaller, and changes none up to the bound that the
    table's p-values were kept by.
    """
    table = found.table
    null_p = strata.p(lists, listed=table["list"], index=table["index"], overlap=table["overlap"])
    both = np.maximum(table["p"].to_numpy(), null_p)
    order = np.argsort(both, kind="stable")
    told = corrected(both[order], np.ones(len(both), np.int64), tests=found.family.tests, most=max(len(both), 1))
    back = np.argsort(order, kind="stable")
    columns = {name: pl.Series(getattr(told, name)[back]) for name in ("q", "q_by", "q_storey")}
    table = table.with_columns(null_p=pl.Series(null_p), q_plain=pl.col("q"), **columns)
    return Enriched(table, replace(found.family, pi0=told.pi0))


def _parts(rows: csr_array[Any]) -> tuple[Ints, Ints, Ints]:
    return rows.indptr.astype(np.int64), rows.indices.astype(np.int64), rows.data.astype(np.int64)
