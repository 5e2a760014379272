"""How many columns of a matrix follow a level: dictionary features, and what stands beside them as their control.

1. A column follows a level where the AUROC of the level's cells against all others reaches `at` on the cells that
   choose and again on those that show.
2. Only levels with `least` cells, and as many others, on both sides are asked for: the others are named.
3. Directions without a sign of their own (principal components, neurons) may follow from below, at 1 − `at`. That
   doubles their chances, and is recorded.
4. Control: the same count with labels permuted, inside the cells that choose and inside those that show, and inside
   donors where these are given, so that how many cells of a level stand where is kept.

Any matrix [cells, columns], dense or scipy sparse, may be given in blocks; a block is sorted once for all counts.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from elute.analysis.pooled import Ranked, csc, level_auroc, rank_stored
from elute.base.errors import ConfigError, DataError
from elute.base.statistics.checks import Bools, Floats, Ints, at_least, group_codes, same_length
from elute.base.statistics.nulls import permuted_labels

BEST = 5  # columns that are named of a level


@dataclass(frozen=True)
class Follower:
    """A column that follows a level."""

    column: int
    auroc: float
    auroc_shown: float | None


@dataclass(frozen=True)
class Followers:
    """How many columns follow, by level and in all, and how many do with permuted labels."""

    columns: int
    """Columns that were asked."""
    total: int
    """Columns that follow some level."""
    levels: dict[str, int]
    """Columns that follow each level: a column may follow two."""
    best: dict[str, tuple[Follower, ...]]
    """The columns of each level that are highest on the cells that choose."""
    small: tuple[str, ...]
    """Levels with too few cells on a side."""
    permuted: tuple[int, ...]
    """Columns that follow some level under each permutation of the labels."""
    at: float
    both_signs: bool
    held_out: bool
    """Whether there were cells that only showed."""
    note: str = ""
    """Why labels were not permuted, where that was asked for and could not be done."""

    def record(self) -> dict[str, Any]:
        """Return numbers and text alone, as a report keeps them."""
        from dataclasses import asdict

        return asdict(self)


@dataclass(frozen=True, eq=False)
class _Side:
    rows: Ints
    labels: list[Ints]  # the true ones, then the permuted ones


def followers(
    blocks: Iterable[Any],
    labels: Sequence[Any],
    choosing: Bools,
    *,
    shown: Bools | None = None,
    at: float = 0.9,
    least: int = 10,
    both_signs: bool = False,
    permutations: int = 0,
    within: Sequence[Any] | None = None,
    seed: int = 0,
) -> Followers:
    """Count the columns, given in blocks [cells, columns], that follow a label; cells labelled None stand aside.

    `within` names the donor of each cell, inside whom labels are permuted; cells without one are shuffled together.
    """
    if not 0.5 < at <= 1.0:
        raise ConfigError(f"{at:g} is not above 0.5 and at most 1", where="followers(at)", remedy="Give, say, 0.9.")
    at_least(least, 1, "followers(least)")
    at_least(permutations, 0, "followers(permutations)")
    names, codes = _codes(labels)
    masks = [choosing] if shown is None else [choosing, shown]
    for mask in masks:
        same_length(len(mask), len(codes), "followers(choosing, shown)")
    rows = [np.flatnonzero(mask & (codes >= 0)) for mask in masks]
    sizes = np.array([np.bincount(codes[mine], minlength=len(names)) for mine in rows])
    asked = (np.minimum(sizes, sizes.sum(axis=1, keepdims=True) - sizes) >= least).all(axis=0)
    shuffles, note = _permuted(codes, rows, within=within, times=permutations, seed=seed)
    sides = [_Side(mine, [found[mine] for found in (codes, *shuffles)]) for mine in rows]
    count = _Count(asked, at, both_signs)
    for block in blocks:
        columns = csc(block, "followers(blocks)")
        same_length(columns.shape[0], len(codes), "followers(blocks)")
        count.take([(rank_stored(columns[side.rows]), side.labels) for side in sides])
    if not count.columns:
        raise DataError("no column was given", where="followers(blocks)", remedy="Give at least one block.")
    kept = [(i, name) for i, name in enumerate(names) if asked[i]]
    return Followers(
        columns=count.columns,
        total=int(count.totals[0]),
        levels={name: len(count.found[i]) for i, name in kept},
        best={name: count.best(i) for i, name in kept},
        small=tuple(name for i, name in enumerate(names) if not asked[i]),
        permuted=tuple(count.totals[1:].tolist()),
        at=at,
        both_signs=both_signs,
        held_out=shown is not None,
        note=note,
    )


class _Count:
    """Counts block by block."""

    def __init__(self, asked: Bools, at: float, both_signs: bool) -> None:
        self.asked, self.at, self.both_signs = asked, at, both_signs
        self.columns, self.totals = 0, np.zeros(1, np.int64)
        self.found: list[list[Follower]] = [[] for _ in asked]

    def take(self, sides: list[tuple[Ranked, list[Ints]]]) -> None:
        """Count in a block: what each side ranked, with the true labels of its cells and the permuted ones."""
        totals: list[int] = []
        for labels in zip(*(labels for _, labels in sides), strict=True):
            pairs = zip(sides, labels, strict=True)
            auroc = np.stack([level_auroc(ranked, codes, len(self.asked)) for (ranked, _), codes in pairs])
            auroc[:, ~self.asked] = np.nan
            reached: Bools = np.all(auroc >= self.at, axis=0)
            if self.both_signs:
                reached |= np.all(auroc <= 1.0 - self.at, axis=0)
            if not totals:
                self._keep(auroc, reached)
            totals.append(int(reached.any(axis=0).sum()))
        self.columns += sides[0][0].width
        self.totals = self.totals + np.array(totals)

    def _keep(self, auroc: Floats, reached: Bools) -> None:
        for level, column in np.argwhere(reached).tolist():
            shown = float(auroc[1, level, column]) if len(auroc) > 1 else None
            self.found[level].append(Follower(self.columns + column, float(auroc[0, level, column]), shown))

    def best(self, level: int) -> tuple[Follower, ...]:
        """Return the columns of a level that are furthest from chance on the cells that choose."""
        ordered = sorted(self.found[level], key=lambda found: (-abs(found.auroc - 0.5), found.column))
        return tuple(ordered[:BEST])


def _codes(labels: Sequence[Any]) -> tuple[list[str], Ints]:
    """Return sorted names and the number of each label among them, −1 for one that is missing."""
    items = list(labels)
    known = [i for i, item in enumerate(items) if item is not None and item == item and item != ""]
    codes = np.full(len(items), -1, dtype=np.int64)
    if not known:
        raise DataError("no cell has a label", where="followers(labels)", remedy="Name another column.")
    names, codes[known] = group_codes([items[i] for i in known], "followers(labels)")
    if len(names) < 2:
        raise DataError(f"all labels are {names[0]!r}", where="followers(labels)", remedy="Name another column.")
    return [str(name) for name in names], codes


def _permuted(
    codes: Ints, rows: list[Ints], *, within: Sequence[Any] | None, times: int, seed: int
) -> tuple[list[Ints], str]:
    """Shuffle labels inside each side, and inside each donor of it; or say why that cannot be done."""
    if not times:
        return [], ""
    place = np.full(len(codes), -1, dtype=np.int64)
    for i, mine in enumerate(rows):
        place[mine] = i
    part = place
    if within is not None:
        same_length(len(within), len(codes), "followers(within)")
        who = group_codes(["" if name is None else str(name) for name in within], "followers(within)")[1]
        part = place * (int(who.max()) + 1) + who
    taking = np.flatnonzero(place >= 0)
    shuffles = []
    try:
        for shuffled in permuted_labels(codes[taking], part[taking], n_permutations=times, seed=seed):
            found = codes.copy()
            found[taking] = shuffled
            shuffles.append(found)
    except DataError as error:
        return [], f"labels cannot be permuted: {error.what}"
    return shuffles, ""
