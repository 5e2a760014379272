"""The headline: how many lists have a term, and how many of them the same procedure gives where there is nothing.

1. A test takes all lists and says which have a term, by any procedure over its full family. It is run once on the
   lists, and on null lists (null_lists.py), one draw after another; a draw is of all lists at once.
2. What is counted is one number a draw: null lists that pass by the cut-off of their own run or by that of the
   observed one, whichever lets more pass. null_counts.py says why, and what follows from the counts.
3. Draws go on from `first` to `most` until the mean is known to within a tenth of the excess; of the observed, while
   the interval of the excess holds 0; or to half a list. More draws can bring nothing else: what a null run spreads
   over is not about their number.
4. A draw is known by its number, and counts are kept after each: a run that was stopped makes no draw twice, and ends
   with the same numbers.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl

from elute.base import console
from elute.base.errors import ConfigError, DataError, GuardError
from elute.base.statistics.checks import Bools, Floats, at_least, proportion
from elute.validation.enrichment import over_representation
from elute.validation.families import MOST_ROWS
from elute.validation.null_counts import Counts, Excess, enough, number, result
from elute.validation.stratified import among_like

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from elute.validation.null_lists import Matched
    from elute.validation.stratified import Strata
    from elute.validation.terms import Terms

FIRST, MOST = 20, 200
COARSE = 10  # draws with larger strata
TOLD = 10.0  # seconds: what takes less is no message
FEW, LEAST_REACH = 400_000, 1e-3  # p-values that are looked at: so many if all were by chance, and up to this one


class Tested(NamedTuple):
    """What a test says of each list: the least q over the full family, and the least p."""

    q: Floats
    p: Floats


Test = Callable[["csr_array[Any]"], "Tested | Bools | Floats"]
"""Takes lists [lists, genes]; says of each whether it has a term, or gives its least q, or its least q and p."""
Passing = Callable[["csr_array[Any]"], Tested]


class _Settings(NamedTuple):
    fdr: float
    first: int
    most: int
    precision: float
    coarse: int


def excess(
    test: Test,
    lists: csr_array[Any],
    matched: Matched,
    *,
    fdr: float = 0.05,
    first: int = FIRST,
    most: int = MOST,
    precision: float = 0.1,
    coarse: int = COARSE,
    about: str = "null lists",
    counts: Counts | None = None,
    keep: Callable[[Counts], None] | None = None,
) -> Excess:
    """Count lists that have a term, and null lists that do; `keep` is called after each draw.

    With the counts of an earlier run those draws are not made again. `first` = `most` asks for so many draws.
    """
    where = "excess"
    settings = _Settings(
        proportion(fdr, f"{where}(fdr)"), first, most, precision, at_least(coarse, 0, f"{where}(coarse)")
    )
    if at_least(first, 2, f"{where}(first)") > at_least(most, 2, f"{where}(most)"):
        raise ConfigError(f"{first} draws are more than {most}", where=f"{where}(first, most)")
    proportion(precision, f"{where}(precision)")
    if not lists.shape[0]:
        raise DataError("there are no lists", where=f"{where}(lists)")
    lists = matched.checked(lists, where)
    of = _digest(lists, matched, settings, about)
    if counts is None:
        found, p = _tested(test, lists, fdr)
        cutoff = None if p is None or not found.any() else float(p[found].max())
        counts = Counts(of, lists.shape[0], int(found.sum()), cutoff)
    elif counts.of != of:
        what = "these draws were counted for other lists, covariates or settings"
        raise GuardError(what, where=about, remedy="Count anew.")
    run = _Run(test, lists, matched, settings=settings, counts=counts, keep=keep)
    return result(counts, stopped_because=run.draw(about))


class _Run:
    """Draws and counts until enough is known."""

    def __init__(
        self,
        test: Test,
        lists: csr_array[Any],
        matched: Matched,
        *,
        settings: _Settings,
        counts: Counts,
        keep: Callable[[Counts], None] | None,
    ) -> None:
        self.test, self.lists, self.matched = test, lists, matched
        self.settings, self.counts, self.keep = settings, counts, keep

    def draw(self, about: str) -> str:
        counts, settings = self.counts, self.settings
        # Larger strata are looked at once there is something to hold them against.
        coarse = min(settings.coarse, settings.first) if settings.coarse else 0
        done, began = len(counts.null) + len(counts.coarse), time.monotonic()
        with console.progress(about, settings.first + coarse, unit="draws", done=done) as bar:
            while True:
                if len(counts.null) < settings.first:
                    self._one(self.matched, counts.null)
                elif len(counts.coarse) < coarse:
                    self._one(self.matched.coarser, counts.coarse)
                elif because := self._enough():
                    return because
                else:
                    bar.total = settings.most + coarse
                    self._one(self.matched, counts.null)
                if bar.done == done:
                    self._tell(about, time.monotonic() - began, left=(settings.first, settings.most, coarse))
                bar.note = f"null {number(float(np.mean(counts.null)))} against {counts.observed:,}"
                bar.advance()
                if self.keep is not None:
                    self.keep(counts)

    def _enough(self) -> str:
        settings, n = self.settings, len(self.counts.null)
        if settings.first == settings.most:
            return f"{n} draws were asked for"
        told = enough(self.counts, precision=settings.precision)
        return told or (f"{n} draws were made, the most allowed" if n >= settings.most else "")

    def _one(self, matched: Matched, into: list[int]) -> None:
        drawn = matched.draw(self.lists, len(into))
        found, p = _tested(self.test, drawn, self.settings.fdr)
        alone, cutoff = int(found.sum()), self.counts.cutoff
        if cutoff is not None and p is None:
            raise DataError("gave p-values for the lists and none for a draw", where="excess(test)")
        # The same table may give another last digit among other tables.
        passed = 0 if cutoff is None or p is None else int((p <= cutoff * (1.0 + 1e-9)).sum())
        if into is self.counts.null:
            self.counts.alone.append(alone)
        into.append(max(alone, passed))

    def _tell(self, about: str, seconds: float, *, left: tuple[int, int, int]) -> None:
        first, most, coarse = left
        done = len(self.counts.null) + len(self.counts.coarse) - 1
        least, longest = (seconds * max(n + coarse - done, 0) for n in (first, most))
        if longest >= TOLD:
            text = f"{about}: {console.duration(least)} for {first + coarse} draws of all lists"
            more = f", up to {console.duration(longest)} if the headline is not settled by then" if most > first else ""
            console.say(text + more)


def _tested(test: Test, lists: csr_array[Any], fdr: float) -> tuple[Bools, Floats | None]:
    """Return which lists have a term, and the least p of each where the test tells it."""
    told = test(lists)
    values, p = (told.q, told.p) if isinstance(told, Tested) else (told, None)
    for each in (values, p):
        if each is not None and np.shape(each) != (lists.shape[0],):
            what = f"gave shape {np.shape(each)} for {lists.shape[0]:,} lists"
            raise DataError(what, where="excess(test)", remedy="Give one entry a list.")
    if values.dtype == np.bool_:
        return values.astype(np.bool_), p
    if np.isnan(values).any():
        raise DataError("gave a q that is NaN", where="excess(test)", remedy="A list without a term has q = 1.")
    return np.asarray(values <= fdr, dtype=np.bool_), p


def _digest(lists: csr_array[Any], matched: Matched, settings: _Settings, about: str) -> str:
    parts = (lists.indptr, lists.indices, matched.strata, matched.coarser.strata)
    told = f"{lists.shape} {matched.seed} {settings.fdr} {settings.coarse} {about}".encode()
    arrays = (np.ascontiguousarray(part, dtype=np.int64).tobytes() for part in parts)
    return hashlib.sha256(b"\0".join([told, *arrays])).hexdigest()


def reach(tests: int, fdr: float) -> float:
    """Return the p-value up to which pairs are looked at: up to the rate, of very many tests what can matter."""
    return min(fdr, max(LEAST_REACH, FEW / max(tests, 1)))


def by_over_representation(terms: Terms, *, fdr: float = 0.05, strata: Strata | None = None) -> Passing:
    """Return the test that a list has a term by over-representation, over all lists × all terms.

    With strata, by both p-values: against any genes, and among like genes.
    """

    def test(lists: csr_array[Any]) -> Tested:
        tests = lists.shape[0] * len(terms)
        found = over_representation(lists, terms, most_p=reach(tests, fdr), most_rows=MOST_ROWS)
        held = found if strata is None else among_like(found, lists, strata)
        p = pl.col("p") if strata is None else pl.max_horizontal("p", "null_p")
        best = held.table.group_by("list").agg(pl.col("q").min(), p=p.min())
        least_q, least_p = np.ones(lists.shape[0]), np.ones(lists.shape[0])
        at = best["list"].to_numpy()
        least_q[at], least_p[at] = best["q"].to_numpy(), best["p"].to_numpy()
        return Tested(least_q, least_p)

    return test
