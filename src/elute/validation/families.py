"""A family of tests: every list with every term, how it is corrected, and which of its rows are kept.

1. The family is counted in full, whatever is stored. Tests that cannot give a row (a pair that shares no gene) count
   as p = 1.
2. Corrections are by base/statistics. Of a family that is too large to hand over whole the smallest p-values are, the
   others counting as p = 1: a q-value can then only be too large, and none is that is below the largest p handed over.
   Where the others' p-values are known, their least p · m / rank caps the q-values, which makes them exact.
3. Rows are chosen after the correction, and what is not kept is counted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
import polars as pl
from scipy import special

from elute.base.errors import ConfigError
from elute.base.statistics.checks import Bools, Floats, Ints, at_least
from elute.base.statistics.corrections import benjamini_hochberg, storey

if TYPE_CHECKING:
    from typing import Any

    from elute.validation.terms import Terms

MOST_ROWS = 1_000_000
GIVEN = 1 << 21  # p-values that are corrected one by one


@dataclass(frozen=True)
class Family:
    """What was tested: every list with every term, whether it is in the table or not."""

    test: str
    alternative: str
    lists: int
    terms: int
    tests: int
    kept: int
    """Rows of the table."""
    left_out: int
    """Tests that could have given a row and did not: beyond the bounds on rows, p or q."""
    without: int
    """Tests that have p = 1 by their nature, such as pairs that share no gene: counted, never stored."""
    pi0: float
    """Storey's estimate of the share of tests without an effect."""
    background: str
    source: str
    note: str = ""
    """What else has to be known to do it again: permutations and their seed."""

    @property
    def correction(self) -> str:
        """Say what was corrected for what."""
        return f"Benjamini–Hochberg over all {self.lists:,} lists × {self.terms:,} terms = {self.tests:,} tests"


@dataclass(frozen=True, eq=False)
class Enriched:
    """Rows of one family of tests, by list and within a list by p."""

    table: pl.DataFrame
    family: Family


class Corrected(NamedTuple):
    """The q-values of p-values in ascending order."""

    q: Floats
    q_by: Floats
    q_storey: Floats
    pi0: float


class Bounds(NamedTuple):
    """Which rows are kept."""

    rows: int = MOST_ROWS
    p: float = 1.0
    q: float = 1.0

    def checked(self) -> Bounds:
        """Refuse bounds that no row can keep."""
        at_least(self.rows, 1, "most_rows")
        for name, value in (("most_p", self.p), ("most_q", self.q)):
            if not 0.0 < value <= 1.0:
                raise ConfigError(f"{value:g} is not above 0 and at most 1", where=name, remedy="Give, say, 0.05.")
        return self


def corrected(p: Floats, times: Ints, *, tests: int, most: int = GIVEN) -> Corrected:
    """Correct ascending p-values, each there so many times, within a family of `tests`.

    Of more than `most`, the q-values of those beyond are NaN.
    """
    if not len(p):
        return Corrected(p, p, p, 1.0)
    rank = np.cumsum(times)
    whole = max(1, int(np.searchsorted(rank, most, side="right")))
    given = np.repeat(p[:whole], times[:whole])
    last = rank[:whole] - 1
    by_storey = storey(given, n_tests=tests)
    # Every p-value that is not handed over caps the q-values before it, as in Benjamini and Hochberg's own step.
    cap = (p[whole:] * (tests / rank[whole:])).min(initial=1.0)
    beyond = np.full(len(p) - whole, np.nan)
    q = np.concatenate([np.minimum(benjamini_hochberg(given, n_tests=tests)[last], cap), beyond])
    q_storey = np.concatenate([np.minimum(by_storey.q[last], by_storey.pi0 * cap), beyond])
    # 1 + 1/2 + … + 1/m without its m summands, which for 10⁹ tests would not fit in memory.
    harmonic = float(special.digamma(tests + 1.0) + np.euler_gamma)
    return Corrected(q, np.minimum(q * harmonic, 1.0), q_storey, by_storey.pi0)


def named_rows(listed: Ints, index: Ints, columns: dict[str, Any], *, terms: Terms) -> pl.DataFrame:
    """Return rows by list and term, with each term's place among the terms and its id."""
    return pl.DataFrame(
        {
            "list": listed.astype(np.int32),
            "index": index.astype(np.int32),
            "term": pl.Series(terms.ids, dtype=pl.String).gather(index),
            **columns,
        }
    )


class Smallest:
    """Keeps the rows with the smallest p-values of a family that comes in blocks, and corrects them in the end."""

    def __init__(self, bounds: Bounds, terms: Terms) -> None:
        self.bounds, self.terms = bounds, terms
        # No q is below its p, so what is above the bound on q needs not be held either.
        self.cut = float(np.log(min(bounds.p, bounds.q)))
        self.parts: list[dict[str, Any]] = []
        self.held = self.tested = 0

    def add(self, first: int, tested: Bools, **columns: Any) -> None:
        """Add a block [lists, terms]; a column may have one entry a list."""
        self.tested += int(tested.sum())
        listed, index = np.nonzero(tested & (columns["log_p"] <= self.cut))
        part = {name: (each[listed] if each.ndim == 1 else each[listed, index]) for name, each in columns.items()}
        self.parts.append({"list": listed + first, "index": index, **part})
        self.held += len(listed)
        if self.held > 2 * self.bounds.rows:
            self._shrink()

    def _shrink(self) -> dict[str, Any]:
        rows = {name: np.concatenate([part[name] for part in self.parts]) for name in self.parts[0]}
        order = np.argsort(rows["log_p"], kind="stable")[: self.bounds.rows]
        rows = {name: each[order] for name, each in rows.items()}
        if len(order) == self.bounds.rows:
            self.cut = min(self.cut, float(rows["log_p"][-1]))
        self.parts, self.held = [rows], len(order)
        return rows

    def result(self, test: str, alternative: str, *, lists: int, note: str = "") -> Enriched:
        """Return the rows, corrected within all tests."""
        rows, tests = self._shrink(), lists * len(self.terms)
        log_p = rows.pop("log_p")
        told = corrected(np.exp(log_p), np.ones(len(log_p), np.int64), tests=tests, most=len(log_p))
        order = np.lexsort((rows["index"], log_p, rows["list"]))
        order = order[told.q[order] <= self.bounds.q]
        whole: dict[str, Any] = {
            name: rows.pop(name).astype(np.int32) for name in ("size", "ranked", "leading") if name in rows
        }
        columns: dict[str, Any] = {**whole, **rows, "log_p": log_p, "p": np.exp(log_p), "q": told.q}
        columns |= {"q_by": told.q_by, "q_storey": told.q_storey}
        listed, index = columns.pop("list")[order], columns.pop("index")[order]
        table = named_rows(listed, index, {name: each[order] for name, each in columns.items()}, terms=self.terms)
        family = Family(
            test=test,
            alternative=alternative,
            lists=lists,
            terms=len(self.terms),
            tests=tests,
            kept=len(order),
            left_out=self.tested - len(order),
            without=tests - self.tested,
            pi0=told.pi0,
            background=self.terms.background.stated,
            source=self.terms.source,
            note=note,
        )
        return Enriched(table, family)
