"""What an edit changed, beside what like edits changed: means over donors or cells, and how sure they are.

1. A change is a number a cell and thing (a gene's predicted value, a feature's mean code), NaN where the cell has none.
2. The unit is the donor where there are two or more: a donor's cells are averaged first. Else it is the cell.
3. Each thing's mean over units has a t interval and p (base/statistics/effects.py), and q over all that were tested:
   those of three cells or more, and two units. A mean that rounding alone could give has p 1.
4. That says whether a change is there, which of a deterministic network is soon the case. Whether it is this edit's own
   is said by controls, edits of the same size that are otherwise like it: `p_` is (1 + those that change the thing as
   much) / (1 + controls). A thing is led by the edit if none changes it as much; of one that is like its controls, a
   share 1 / (1 + controls) of the things is expected.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from elute.base.errors import EluteError
from elute.base.statistics.corrections import benjamini_hochberg
from elute.base.statistics.effects import paired_effects

if TYPE_CHECKING:
    import polars as pl

    from elute.base.mergeable import Floats, Integers

LEAST_CELLS = 3

Told = Callable[[int, int], object]  # (cells done, of how many)
Cancel = Callable[[], bool]


class CancelledError(EluteError):
    """Whoever asked for long work asked for its end; nothing was written."""

    def __init__(self) -> None:
        super().__init__("was cancelled, and nothing was written")


class Pace:
    """Tells how far work has come, and ends it where that is asked for; the unit is one cell, read once."""

    def __init__(self, total: int, *, told: Told | None = None, cancel: Cancel | None = None) -> None:
        self.done, self.total, self._told, self._cancel = 0, total, told, cancel

    def check(self) -> None:
        """Stop if that was asked for."""
        if self._cancel is not None and self._cancel():
            raise CancelledError

    def advance(self, cells: int) -> None:
        """Count some more as read."""
        self.done += cells
        if self._told is not None:
            self._told(self.done, self.total)


@dataclass(frozen=True, eq=False)
class Units:
    """What counts as one observation, and which each cell belongs to."""

    kind: Literal["donors", "cells"]
    codes: Integers

    @classmethod
    def of(cls, donors: Sequence[str | None]) -> Units:
        """Take donors if two or more are known and all cells have one, else cells."""
        if None not in donors and len(set(donors)) >= 2:
            names = {name: i for i, name in enumerate(sorted({str(name) for name in donors}))}
            return cls("donors", np.array([names[str(name)] for name in donors], np.int64))
        return cls("cells", np.arange(len(donors)))

    def __len__(self) -> int:
        return int(self.codes.max(initial=-1)) + 1

    @property
    def strata(self) -> Integers:
        """Groups of which the mean of means is the mean over units: donors, or all cells together."""
        return self.codes if self.kind == "donors" else np.zeros_like(self.codes)


class Sums:
    """Sums and numbers of what was seen, [groups, things]."""

    def __init__(self, groups: int, things: int) -> None:
        self.sums, self.counts = np.zeros((groups, things)), np.zeros((groups, things), np.int64)

    def add(self, group: Integers, thing: Integers, values: Floats) -> None:
        """Take in single values."""
        np.add.at(self.sums, (group, thing), values)
        np.add.at(self.counts, (group, thing), 1)

    def add_rows(self, group: Integers, values: Floats) -> None:
        """Take in rows [n, things]."""
        np.add.at(self.sums, group, values)
        np.add.at(self.counts, group, 1)

    def means(self) -> Floats:
        """[groups, things], NaN where nothing was seen."""
        with np.errstate(invalid="ignore"):
            found: Floats = self.sums / self.counts
        return found

    def mean(self) -> Floats:
        """[things]: the mean over the groups that have it, NaN where none has."""
        return mean_over(self.means())


@dataclass(frozen=True, eq=False)
class Reading:
    """What was read of some things under an edit and its controls."""

    change: Floats  # [cells, things]
    before: Floats  # [things]: the mean without an edit
    controls: Mapping[str, Floats]  # a kind of control -> mean changes [controls, things]
    doses: Floats  # [doses, things]: mean changes


def mean_over(values: Floats) -> Floats:
    """Mean down each column of what is there, NaN where nothing is."""
    there = ~np.isnan(values)
    n = there.sum(axis=0)
    return np.where(n > 0, np.where(there, values, 0.0).sum(axis=0) / np.maximum(n, 1), np.nan)


def by_unit(change: Floats, units: Units) -> Floats:
    """[units, things]: the mean of each unit's cells."""
    if units.kind == "cells":
        return change
    seen = Sums(len(units), change.shape[1])
    cell, thing = np.nonzero(~np.isnan(change))
    seen.add(units.codes[cell], thing, change[cell, thing])
    return seen.means()


def table(reading: Reading, units: Units, *, resolution: float = 0.0) -> pl.DataFrame:
    """Return one row a thing, in order; a mean change of at most `resolution` is what rounding can give."""
    import polars as pl

    values = by_unit(reading.change, units)
    cells = (~np.isnan(reading.change)).sum(axis=0)
    tested = (cells >= LEAST_CELLS) & ((~np.isnan(values)).sum(axis=0) >= 2)
    found = _tested(values, tested)
    change = mean_over(values)
    found["p"] = np.where(tested & (np.abs(change) <= resolution), 1.0, found["p"])
    q = benjamini_hochberg(found["p"], missing="carry") if tested.any() else found["p"]
    columns: dict[str, Any] = {
        "cells": cells.astype(np.int32), "units": (~np.isnan(values)).sum(axis=0).astype(np.int32),
        "before": reading.before, "change": change, **found, "q": q,
    }  # fmt: skip
    for kind, controls in reading.controls.items():
        columns |= _beside(change, controls, kind)
    frame = pl.DataFrame(columns).with_columns(pl.col(pl.Float64).fill_nan(None))
    if len(reading.doses):
        frame = frame.with_columns(pl.Series("doses", reading.doses.T.tolist(), dtype=pl.List(pl.Float64)))
    return frame


def size(changes: Floats, things: Any) -> float | None:
    """Root mean square of mean changes over some things; nothing where there are none."""
    there = changes[things]
    there = there[~np.isnan(there)]
    return float(np.sqrt(np.mean(there**2))) if len(there) else None


def against(change: Floats, controls: Floats, tested: Any) -> dict[str, Any]:
    """Say how large an edit's changes are as a whole beside those of its controls, and how many things it leads."""
    own = size(change, tested)
    others = [x for row in controls if (x := size(row, tested)) is not None]
    told: dict[str, Any] = {"controls": len(controls), "size": own, "sizes": sorted(others)}
    if own is None or not others:
        return {**told, "p_size": None, "leads": None}
    told["p_size"] = (1 + sum(x >= own for x in others)) / (1 + len(others))
    every = np.nan_to_num(np.abs(np.concatenate([change[None], controls])[:, tested]), nan=0.0)
    best = every.max(axis=0)
    # Ties, such as things that nothing changes, are led by none.
    alone = (every == best) & ((every == best).sum(axis=0) == 1)
    leads = alone.sum(axis=1)
    told |= {
        "leads": int(leads[0]), "expected": float(leads.mean()), "leads_of_controls": leads[1:].tolist(),
        "p_leads": (1 + int((leads[1:] >= leads[0]).sum())) / len(every),
    }  # fmt: skip
    return told


def summary(frame: pl.DataFrame, reading: Reading, *, fdr: float = 0.05) -> dict[str, Any]:
    """Say what a table holds in a few numbers, ready for JSON."""
    change, tested = frame["change"].to_numpy(), frame["p"].is_not_null().to_numpy()
    passed = frame["q"].fill_null(1.0).to_numpy() <= fdr
    told: dict[str, Any] = {"tested": int(tested.sum()), "changed": int(passed.sum()), "fdr": fdr}
    change = np.where(np.isnan(change.astype(np.float64)), np.nan, change)
    beyond = passed.copy()
    for kind, controls in reading.controls.items():
        told[f"beside {kind}"] = against(change, controls, tested)
        most = frame[f"{kind}_most"].fill_null(np.inf).to_numpy()
        beyond &= np.abs(change) > most
    every = 1 + sum(map(len, reading.controls.values()))
    told["beyond"] = int(beyond.sum()) if reading.controls else None
    told["beyond_expected"] = told["tested"] / every if reading.controls else None
    return told


def _tested(values: Floats, tested: Any) -> dict[str, Floats]:
    """Test the chosen columns, those that lack the same units together."""
    names = ("low", "high", "sd", "p")
    found = {name: np.full(values.shape[1], np.nan) for name in names}
    chosen = np.flatnonzero(tested)
    if not len(chosen):
        return found
    there = ~np.isnan(values[:, chosen])
    patterns, which = np.unique(np.packbits(there, axis=0).T, axis=0, return_inverse=True)
    order = np.argsort(which.reshape(-1), kind="stable")
    ends = np.cumsum(np.bincount(which.reshape(-1), minlength=len(patterns)))
    for part in np.split(order, ends[:-1]):
        held = values[np.ix_(there[:, part[0]], chosen[part])]
        effects = paired_effects(held)
        for name in ("low", "high", "p"):
            found[name][chosen[part]] = getattr(effects, name)
        found["sd"][chosen[part]] = held.std(axis=0, ddof=1)
    return found


def _beside(change: Floats, controls: Floats, kind: str) -> dict[str, Floats]:
    """The typical and the largest change under controls, and how often it is as large."""
    there = ~np.isnan(controls)
    n = there.sum(axis=0)
    sizes = np.where(there, np.abs(controls), 0.0)
    none = (n == 0) | np.isnan(change)
    as_large = (there & (sizes >= np.abs(np.nan_to_num(change)))).sum(axis=0)
    return {
        f"{kind}_sd": np.where(none, np.nan, np.sqrt((sizes**2).sum(axis=0) / np.maximum(n, 1))),
        f"{kind}_most": np.where(none, np.nan, sizes.max(axis=0, initial=0.0)),
        f"p_{kind}": np.where(none, np.nan, (1.0 + as_large) / (1.0 + n)),
    }
