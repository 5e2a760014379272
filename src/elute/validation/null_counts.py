"""What counts of null runs say: the excess of an observed count over them, and an interval that means something.

1. mean, low and high tell what a null run gives: "412 of 16,384, null 9 (4–15)". Features share genes, so their
   findings come together and no law of counts holds. But the count of a null run and those of the draws are
   exchangeable, so that it lies between their order statistics with known chances: from the 39th draw on, low and
   high are those that hold it with 95%. Fewer draws cannot say that much: then they are the least and the most of
   all draws, or mean ± t · s · √(1 + 1/n) where that is wider.
2. excess = observed − mean. Its interval is observed − high … observed − low: that of the next null run, not of the
   mean of many, because what is observed is one run, too. So under the global null it holds 0 with 95%.
3. Strata have a width, and lists may prefer some genes of a stratum. What that could do is measured: some draws are
   made with strata twice as large. Where their mean is lower, by `matching`, strata of no width would give about as
   much more, as the effect goes with the width; the interval of the excess is longer by it on that side.
4. Where much is found, Benjamini and Hochberg's cut-off is laxer than in a run that finds nothing, and lists that pass
   by chance come in with those that made it so. A null run with its own, stricter cut-off would not count them: of
   506 lists that passed, 306 by chance, it told 35. So where p-values are told, a null list counts that passes by the
   cut-off of its own run or by that of the observed one, whichever lets more pass. That is never fewer than by its own
   alone (told as `alone`), so that the excess is claimed by chance no more often.

V. Vovk, A. Gammerman, G. Shafer, "Algorithmic Learning in a Random World", 2005, for intervals by exchangeability;
L. F. Richardson, Phil. Trans. A 210, 1911, for step 3; V. G. Tusher, R. Tibshirani, G. Chu, PNAS 98, 2001, for step 4.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from math import ceil, floor, sqrt
from typing import Any

import numpy as np
from scipy import special

from elute.base import console
from elute.base.errors import DamagedError, DataError
from elute.base.statistics.checks import Floats

LEVEL = 0.95  # of the intervals


@dataclass(frozen=True)
class Excess:
    """How many lists have a term, and what null lists give."""

    observed: int
    lists: int
    null: tuple[int, ...]
    """How many null lists pass, by draw."""
    mean: float
    low: int
    high: int
    """Between `low` and `high` lies the count of a null run."""
    excess: float
    excess_low: float
    excess_high: float
    draws: int
    stopped_because: str
    p: float
    """Share of runs, the observed one among them, in which as many lists have a term."""
    matching: float
    """What smaller strata would add to the mean, as far as larger ones tell."""
    alone: float
    """Null lists that pass by the cut-off of their own run, on average."""

    @property
    def clear(self) -> bool:
        """Whether more lists have a term than a null run would give."""
        return self.excess_low > 0

    def told(self) -> str:
        """Say it as the headline does."""
        return f"{self.observed:,} of {self.lists:,}, null {number(self.mean)} ({self.low:,}–{self.high:,})"

    def summary(self) -> dict[str, Any]:
        """What summary.json holds of it."""
        null = {"kind": "matched lists", "draws": self.draws, "mean": self.mean, "low": self.low, "high": self.high}
        null |= {"p": self.p, "matching": self.matching, "alone": self.alone, "stopped": self.stopped_because}
        return {
            "significant": self.observed,
            "null": null,
            "excess": self.excess,
            "excess_low": self.excess_low,
            "excess_high": self.excess_high,
        }


@dataclass
class Counts:
    """What was counted so far: plain JSON by `state`, to be kept after each draw and taken up again."""

    of: str
    """What the lists, the strata and the settings were, as a digest."""
    lists: int
    observed: int
    cutoff: float | None
    """The largest p of a list that passed, where p-values are told."""
    null: list[int] = field(default_factory=list)
    coarse: list[int] = field(default_factory=list)
    alone: list[int] = field(default_factory=list)
    """What the draws of `null` gave by the cut-off of their own runs."""

    def state(self) -> dict[str, Any]:
        """Return it as what JSON can hold."""
        return asdict(self)

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Counts:
        """Return what `state` gave."""
        names = ("null", "coarse", "alone")
        whole = all(isinstance(state.get(n), list) and all(type(x) is int and x >= 0 for x in state[n]) for n in names)
        cutoff = state.get("cutoff")
        right = whole and set(state) == set(cls.__dataclass_fields__) and isinstance(state["of"], str)
        right = right and type(state["lists"]) is int and type(state["observed"]) is int
        right = right and (cutoff is None or isinstance(cutoff, float))
        if not right or len(state["alone"]) != len(state["null"]):
            raise DamagedError("is no count of null draws", where="Counts.from_state", remedy="Count anew.")
        lists: dict[str, list[int]] = {name: list(state[name]) for name in names}
        return cls(state["of"], state["lists"], state["observed"], cutoff, **lists)


def result(counts: Counts, *, stopped_because: str = "") -> Excess:
    """Return what counts say."""
    null = np.array(counts.null, dtype=np.float64)
    if len(null) < 2:
        raise DataError(f"{console.count(len(null), 'draw')}", where="excess", remedy="Make at least 2.")
    mean, (low, high) = float(null.mean()), _between(null, counts.lists)
    matching = float(null.mean() - np.mean(counts.coarse)) if counts.coarse else 0.0
    return Excess(
        observed=counts.observed,
        lists=counts.lists,
        null=tuple(counts.null),
        mean=mean,
        low=low,
        high=high,
        excess=counts.observed - mean,
        excess_low=counts.observed - min(high + max(matching, 0.0), float(counts.lists)),
        excess_high=counts.observed - max(low + min(matching, 0.0), 0.0),
        draws=len(null),
        stopped_because=stopped_because,
        p=float((1 + (null >= counts.observed).sum()) / (1 + len(null))),
        matching=matching,
        alone=float(np.mean(counts.alone)),
    )


def _between(null: Floats, n_lists: int) -> tuple[int, int]:
    """Return the counts between which that of one more null run lies with 95%."""
    n, ordered = len(null), np.sort(null)
    rank = int((1.0 - LEVEL) / 2.0 * (n + 1) + 1e-9)
    if rank:
        return int(ordered[rank - 1]), int(ordered[n - rank])
    half = _t(n) * float(null.std(ddof=1)) * sqrt(1.0 + 1.0 / n)
    low, high = min(float(ordered[0]), float(null.mean()) - half), max(float(ordered[-1]), float(null.mean()) + half)
    return max(floor(low), 0), min(ceil(high), n_lists)


def _t(n: int) -> float:
    return float(special.stdtrit(n - 1, 0.5 + LEVEL / 2.0))


def margin(null: list[int]) -> float:
    """Return how far the mean of so few draws may be from that of all draws there could be."""
    return _t(len(null)) * float(np.std(null, ddof=1)) / sqrt(len(null))


def enough(counts: Counts, *, precision: float) -> str:
    """Say why more draws would tell nothing more, or nothing."""
    so_far, half = result(counts), margin(counts.null)
    apart = so_far.excess_low > 0 or so_far.excess_high < 0
    size, of = (abs(so_far.excess), "the excess") if apart else (float(counts.observed), "the lists that have a term")
    if half <= precision * size:
        return f"the null's mean is known to {number(half)}, within {precision:.0%} of {of}"
    return f"the null's mean is known to {number(half)}, less than a list" if half <= 0.5 else ""


def number(value: float) -> str:
    """Write a mean count: 9, 9.1, 0.05, 1,234."""
    if value >= 100 or value == round(value):
        return f"{value:,.0f}"
    return f"{value:.2g}" if value < 10 else f"{value:.1f}"
