"""Whole rankings against one database's terms, beside the lists that are their tops: no cut, and no list's length.

1. Of each feature with a list, the genes of the background are ranked by z; for each term the rank sum of its genes is
   tested ("greater": do they stand higher than the rest?). Ties share their rank (ranked.py).
2. The family is all lists × all terms; a list without genes is not ranked, and counts with p = 1. Every test is looked
   at and none is held: log p is counted in steps of 1/1024, so that each q is at most 0.1% too large, never too small.
3. The table gets auc, p_rank and q_rank of its rows; features with a term at q_rank ≤ fdr are counted, whether that
   pair is in the table or not. The same is counted for rankings in which there is nothing to find, for all features.

The test takes genes as independent. They are not: a feature that follows a kind of cell by chance alone lifts all of
that kind's genes together, so that with the cells dealt out most features may pass. These columns describe; they are no
part of q, of the headline, or of a name.

H. B. Mann, D. R. Whitney, Ann. Math. Stat. 18, 1947; D. Wu, G. K. Smyth, Nucleic Acids Res. 40, 2012, for what
correlation among genes does to such tests.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl

from elute.base import console
from elute.validation.ranked import rank_tests

if TYPE_CHECKING:
    from elute.base.statistics.checks import Bools, Floats, Ints
    from elute.validation.asked import Asked, Ranking
    from elute.validation.terms import Terms

_STEPS = 1024.0  # of log p, by which q may be too large
_LOWEST = 1 << 20  # steps: smaller p are all as the last
_LISTS = 128  # read from the disk at a time
_COLUMNS = ("auc", "p_rank", "q_rank")


class ByRank(NamedTuple):
    """What whole rankings add to a database's table and to its record."""

    table: pl.DataFrame
    found: int | None
    """Features with a term at q_rank ≤ fdr; None where nothing was ranked."""
    controls: dict[str, dict[str, int]]
    """The same where there is nothing to find: by_rank, and how many were ranked."""


def add(table: pl.DataFrame, terms: Terms, asked: Asked, *, fdr: float) -> ByRank:
    """Add auc, p_rank and q_rank to rows that have a list and the index of a term."""
    if asked.ranking is None:
        return ByRank(table.with_columns(pl.lit(None, pl.Float64).alias(name) for name in _COLUMNS), None, {})
    listed = np.flatnonzero([len(each) > 0 for each in asked.lists])
    pairs = tuple(table[name].to_numpy().astype(np.int64) for name in ("list", "index"))
    console.detail(f"{terms.source}: ranking all genes of {console.count(len(listed), 'feature')}")
    told = _tested(asked.ranking, terms, listed, pairs=pairs)
    columns = dict(zip(_COLUMNS, (told.auc, np.exp(told.log_p), told.counted.q(told.log_p)), strict=True))
    filled = table.with_columns(pl.Series(name, each, nan_to_null=True) for name, each in columns.items())
    controls = {}
    for what, ranking in asked.controls_ranked.items():
        every, none = np.arange(len(ranking.scores)), np.empty(0, np.int64)
        there = _tested(ranking, terms, every, pairs=(none, none))
        controls[what] = {"by_rank": there.passed(fdr), "ranked": len(every)}
    return ByRank(filled, told.passed(fdr), controls)


class Counted:
    """The p-values of a family, counted in steps: Benjamini and Hochberg's q of any of them, without holding all."""

    def __init__(self, tests: int) -> None:
        self.tests, self.counts = tests, np.zeros(_LOWEST, np.int64)

    def add(self, log_p: Floats) -> None:
        """Count p-values; tests that are never added count with p = 1."""
        self.counts += np.bincount(_steps(log_p), minlength=_LOWEST)

    def q(self, log_p: Floats) -> Floats:
        """Return q-values: m p' / #{p ≤ p'} for the best end p' of a step at or above p; NaN stays NaN."""
        ends = np.exp(np.arange(_LOWEST) / -_STEPS)
        ranks = np.cumsum(self.counts[::-1])[::-1].astype(np.float64)  # of p at or below the upper end of each step
        ranks[0] = self.tests
        steps = np.divide(self.tests * ends, ranks, out=np.ones(_LOWEST), where=ranks > 0)
        q, known = np.full(log_p.shape, np.nan), ~np.isnan(log_p)
        q[known] = np.minimum.accumulate(np.minimum(steps, 1.0))[_steps(log_p[known])]
        return q


class _Tests(NamedTuple):
    log_p: Floats  # of the pairs asked for, NaN where there is no test
    auc: Floats
    least: Floats  # log p of each list that was ranked
    counted: Counted

    def passed(self, fdr: float) -> int:
        return int((self.counted.q(self.least) <= fdr).sum())


def _tested(ranking: Ranking, terms: Terms, listed: Ints, *, pairs: tuple[Any, ...]) -> _Tests:
    """Test some lists of a ranking with all terms, and keep what the pairs of a list and a term got."""
    owners, index = pairs
    counted = Counted(len(ranking.scores) * len(terms))
    log_p, auc = np.full(len(owners), np.nan), np.full(len(owners), np.nan)
    least = np.zeros(len(listed))
    order = np.argsort(owners, kind="stable")
    for first, tested, columns in _blocks(ranking, terms, listed):
        n = len(tested)
        counted.add(columns["log_p"][tested])
        least[first : first + n] = np.where(tested, columns["log_p"], 0.0).min(axis=1, initial=0.0)
        which = listed[first : first + n]
        at = order[slice(*np.searchsorted(owners[order], [which[0], which[-1] + 1]))]
        rows = np.searchsorted(which, owners[at])
        right = which[np.minimum(rows, n - 1)] == owners[at]
        at, rows = at[right], rows[right]
        there = tested[rows, index[at]]
        log_p[at] = np.where(there, columns["log_p"][rows, index[at]], np.nan)
        auc[at] = np.where(there, columns["auc"][rows, index[at]], np.nan)
    return _Tests(log_p, auc, least, counted)


def _blocks(ranking: Ranking, terms: Terms, listed: Ints) -> Iterator[tuple[int, Bools, dict[str, Floats]]]:
    """Yield the tests of lists in blocks, each with its place among the lists asked for."""
    place: dict[str, int] = {}
    for i, key in enumerate(ranking.keys):
        if key is not None:
            place.setdefault(key, i)
    columns = np.array([place.get(gene, -1) for gene in terms.background.genes], dtype=np.int64)
    for start in range(0, len(listed), _LISTS):
        scores = np.asarray(ranking.scores[listed[start : start + _LISTS]])[:, columns]
        scores[:, columns < 0] = np.nan
        for first, tested, told in rank_tests(scores, terms, alternative="greater"):
            yield start + first, tested, told


def _steps(log_p: Floats) -> Ints:
    return np.clip(np.floor(log_p * -_STEPS), 0, _LOWEST - 1).astype(np.int64)
