"""One feature set to a value while a network runs: what changes further on, beside directions of the same size.

1. A forward without an edit gives the rows that the dictionary reads, so the feature's code c at each row.
2. A second one adds (target − c) × the feature's decoder direction at each row, and nothing else: the other features
   and what the dictionary does not explain stay as they are. Where the target is c nothing is added, to the bit.
3. The difference of the two is read: of predicted values at rows that the caller names, and of the mean codes of later
   dictionaries over a cell's rows.
4. Controls add as much at each row (the same length, with the same sign) along the directions of other features that
   fire about as often, and along random ones, which are the same for all rows.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from elute.analysis.changes import Pace, Reading, Sums, Units
from elute.analysis.rerunning import Guesses, forward, predicted, valued_rows
from elute.base.errors import DataError, GuardError

if TYPE_CHECKING:
    import polars as pl
    from torch import Tensor

    from elute.analysis.rerunning import Head, Part, Round, Seen, Watched
    from elute.base.contracts import Edit
    from elute.base.mergeable import Floats, Integers

FEATURES, RANDOM = "features", "random"
_LIKE = 4  # as many features of like frequency are drawn from, for each that is taken


class Target(NamedTuple):
    """What a feature's code becomes: a value, or so many times what it is (0 is off)."""

    to: float | None = None
    times: float | None = None

    def amounts(self, codes: Tensor) -> Tensor:
        """What is added to each row's code."""
        return self.to - codes if self.to is not None else codes * (self.times or 0.0) - codes


def push(amounts: Tensor, direction: Tensor) -> Edit:
    """Add an amount of a direction to each row; rows whose amount is 0 keep their bits."""

    def edit(x: Tensor, _metadata: pl.DataFrame | None) -> Tensor:
        moved = (amounts != 0).to(x.device)
        if bool(moved.any()):
            step = amounts.to(x.device)[moved][:, None] * direction.to(x.device)
            x[moved] = (x[moved].float() + step).to(x.dtype)
        return x

    return edit


@dataclass(frozen=True, eq=False)
class Steering:
    """What is steered, and beside what."""

    model: Any
    watched: Watched
    feature: int
    target: Target
    like: Sequence[int] = ()
    """Features whose directions are controls."""
    random: int = 0
    doses: Sequence[float] = ()
    later: Mapping[str, Watched] = field(default_factory=dict)
    head: Head = predicted
    seed: int = 0

    @property
    def forwards(self) -> int:
        """How often each round of a batch is read."""
        return 2 + len(self.like) + self.random + len(self.doses)

    @property
    def writes(self) -> str:
        """Where the feature is set."""
        return next(iter(self.watched.dictionary.spec.writes))

    def directions(self) -> list[Tensor]:
        """The feature's own, those of the doses, those of like features and random ones; controls are as long."""
        every = self.watched.dictionary.directions().cpu().float()
        own = every[self.feature]
        rng = np.random.default_rng([self.seed, 7])
        drawn = torch.from_numpy(rng.standard_normal((self.random, len(own)))).float()
        others = torch.cat([every[list(self.like)], drawn]) if len(self.like) else drawn
        lengths = others.norm(dim=1, keepdim=True).clamp(min=1e-30)
        return [own, *(own * dose for dose in self.doses), *(others / lengths * own.norm())]


@dataclass(frozen=True, eq=False)
class Measured:
    """What came out."""

    genes: Reading | None
    """None where the network predicts no values."""
    features: dict[str, Reading]
    identity: float
    """The largest difference with the feature set to its own value: 0."""
    rows: int
    moved: int
    """Rows to which something was added."""
    length: float
    """Mean length of what was added there."""
    told: float | None
    """Share of the variance of what was read that the predictions tell (R²), without an edit."""


class _Tally:
    """Sums of one kind of thing: for the feature itself a cell each, for all others a stratum."""

    def __init__(self, things: int, units: Units, others: int) -> None:
        self.units, strata = units, int(units.strata.max(initial=0)) + 1
        self.own, self.before = Sums(len(units.codes), things), Sums(1, things)
        self.others = [Sums(strata, things) for _ in range(others)]

    def add(self, which: int, change: Floats, *, cell: Integers, thing: Integers | None = None) -> None:
        """Take in values, or without `thing` rows of all things."""
        sums = self.own if which == 0 else self.others[which - 1]
        group = cell if which == 0 else self.units.strata[cell]
        if thing is None:
            sums.add_rows(group, change)
        else:
            sums.add(group, thing, change)

    def reading(self, asked: Steering) -> Reading:
        """Put all together."""
        rows = np.array([sums.mean() for sums in self.others]).reshape(len(self.others), -1)
        a, b = len(asked.doses), len(asked.doses) + len(asked.like)
        kinds = {FEATURES: rows[a:b], RANDOM: rows[b:]}
        controls = {kind: found for kind, found in kinds.items() if len(found)}
        return Reading(self.own.means(), self.before.mean(), controls, rows[:a])


class _Watch:
    """Everything that is read, batch after batch."""

    def __init__(self, asked: Steering, units: Units, n_genes: int, pace: Pace) -> None:
        others = asked.forwards - 2
        self.asked, self.pace, self.directions = asked, pace, asked.directions()
        self.genes = _Tally(n_genes, units, others)
        self.features = {name: _Tally(w.dictionary.n_features, units, others) for name, w in asked.later.items()}
        self.identity, self.valued = 0.0, False
        self.rows = self.moved = 0
        self.length = 0.0
        self.guesses = Guesses()

    def take(self, part: Part, *, check: bool) -> None:
        """Read all rounds of a batch."""
        cells = np.unique(part.cell[part.cell >= 0])
        for round_ in part.rounds:
            self._round(part, round_, cells, check=check)

    def _round(self, part: Part, round_: Round, cells: Integers, *, check: bool) -> None:
        asked = self.asked
        sites = [site for w in asked.later.values() for site in w.sites] if round_.coded else []
        plain = self._run(round_, {}, [*asked.watched.sites, *sites], cells)
        codes = asked.watched.encode(plain.rows, part.frame)
        now = _codes_of(codes, asked.feature)
        amounts = asked.target.amounts(now)
        if check:
            still = {asked.writes: push(Target(times=1.0).amounts(now), self.directions[0])}
            self._compare(plain, forward(asked.model, round_.batch, still, sites=sites, head=asked.head))
        self._count(round_, part, amounts, plain)
        before = self._by_cell(plain, part, cells) if round_.coded else {}
        for name, values in before.items():
            self.features[name].before.add_rows(np.zeros(len(values), np.int64), values)
        for i, direction in enumerate(self.directions):
            edits = {asked.writes: push(amounts, direction)}
            after = self._run(round_, edits, sites, cells)
            if round_.valued is not None and plain.values is not None and after.values is not None:
                at = valued_rows(round_.valued, part)
                change = (after.values - plain.values).double().numpy()
                self.genes.add(i, change[at], cell=part.cell[at], thing=part.gene[at])
            for name, values in (self._by_cell(after, part, cells) if round_.coded else {}).items():
                self.features[name].add(i, values - before[name], cell=cells)

    def _run(self, round_: Round, edits: Mapping[str, Edit], sites: Sequence[str], cells: Integers) -> Seen:
        self.pace.check()
        seen = forward(self.asked.model, round_.batch, edits, sites=dict.fromkeys(sites), head=self.asked.head)
        self.pace.advance(len(cells))
        return seen

    def _by_cell(self, seen: Seen, part: Part, cells: Integers) -> dict[str, Floats]:
        at = np.where(part.cell < 0, -1, np.searchsorted(cells, part.cell))
        later = self.asked.later.items()
        return {name: w.by_cell(seen.rows, part.frame, at, n=len(cells)) for name, w in later}

    def _count(self, round_: Round, part: Part, amounts: Tensor, plain: Seen) -> None:
        moved = amounts[amounts != 0]
        self.rows, self.moved = self.rows + len(amounts), self.moved + len(moved)
        self.length += float(moved.abs().double().sum()) * float(self.directions[0].norm())
        if round_.valued is None or plain.values is None:
            return
        self.valued, at = True, valued_rows(round_.valued, part)
        values = plain.values.double().numpy()
        self.genes.before.add(np.zeros(len(at), np.int64), part.gene[at], values[at])
        self.guesses.add(part, at, values)

    def _compare(self, plain: Seen, still: Seen) -> None:
        pairs = [(plain.rows[name], x) for name, x in still.rows.items()]
        if plain.values is not None and still.values is not None:
            pairs.append((plain.values, still.values))
        self.identity = max([self.identity, *(float((a - b).abs().max()) for a, b in pairs if len(a))])


def measure(asked: Steering, parts: Iterable[Part], units: Units, *, n_genes: int, pace: Pace) -> Measured:
    """Read every batch without an edit, with it, and with each of its controls."""
    watch = _Watch(asked, units, n_genes, pace)
    for number, part in enumerate(parts):
        watch.take(part, check=number == 0)
    if watch.identity > 0:
        what = f"setting the feature to its own value changed what the model gives by {watch.identity:.3g}"
        raise GuardError(what, where=asked.model.name, remedy="Its forwards are not repeatable: give --device cpu.")
    if not watch.moved:
        what = f"feature {asked.feature} fires in none of {watch.rows:,} rows of these cells: there is nothing to scale"
        raise DataError(what, where=asked.model.name, remedy="Give a value with --to, or other cells.")
    genes = watch.genes.reading(asked) if watch.valued else None
    features = {name: tally.reading(asked) for name, tally in watch.features.items()}
    length = watch.length / watch.moved
    return Measured(genes, features, watch.identity, watch.rows, watch.moved, length, watch.guesses.told())


def like_features(frequency: Floats, feature: int, n: int, *, seed: int) -> list[int]:
    """Draw features that fire about as often as one: from the nearest four times as many, by logarithm."""
    with np.errstate(divide="ignore"):
        far = np.abs(np.log(frequency) - np.log(frequency[feature]))
    far[feature] = np.inf
    order = np.argsort(far, kind="stable")
    nearest = order[np.isfinite(far[order])][: _LIKE * n]
    drawn = np.random.default_rng([seed, 3]).permutation(len(nearest))[:n]
    return sorted(int(i) for i in nearest[drawn])


def _codes_of(codes: Any, feature: int) -> Tensor:
    """One feature's code in each row, 0 where it is silent."""
    found: Tensor = torch.where(codes.indices == feature, codes.values, 0.0).sum(1).float().cpu()
    return found
