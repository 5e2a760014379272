"""Features against the levels of a column of cells: is this feature the mark of a cell type, a condition, a batch?

For each feature and each level (say T cells), on the cells that choose and again on those that show:

1. AUROC: the chance that a cell of the level has a larger pooled activation than another cell, and its two-sided
   rank-sum p. Two-sided, because a feature that is silent in one type alone is a finding too.
2. fold: the mean over cells of the level over the mean over all cells; null where that is not above 0.
3. `top_in`: of the cells in which the feature is highest (choosing cells), how many are of the level, with Fisher's p
   (greater) against the level's share among the choosing cells.
4. Where donors are known, the effect by donor (donors.py), over all cells.
5. q: Benjamini and Hochberg over all features and levels of the column; features that never fired count with p 1.

A cell without a value stands on neither side. A level with few cells on a side gets nulls and a note: no claim. The
best level of a feature is the one of the highest AUROC among cells that choose, however large the level is.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from elute.base.errors import DataError
from elute.base.recipe import Section

if TYPE_CHECKING:
    import polars as pl

    from elute.analysis.donors import Levels
    from elute.analysis.pooled import Pooled, TopCells
    from elute.base.statistics.checks import Bools, Floats, Ints

NO_DONORS = "no donors are given: the cell is the unit, and nothing is claimed across donors"
_SCORES = ("auroc", "fold", "p")
_ACROSS = ("effect", "effect_low", "effect_high", "p_donors")
_TABLE = (
    *("inside", *_SCORES, "q", "top_in", "p_fisher", "q_fisher"),
    *("auroc_shown", "fold_shown", "p_shown", "q_shown", "donors", *_ACROSS, "q_donors"),
)
_BEST = ("auroc", "auroc_shown", "fold", "fold_shown", "q", "q_shown", "donors", "effect", "q_donors")
_DOTS = ("mean_inside", "mean_outside", "cells_inside", "cells_outside")
_WHOLE = ("inside", "top_in", "donors", "cells_inside", "cells_outside")


class GroupConfig(Section):
    """Which columns of cells features are held against, and when nothing is claimed."""

    columns: tuple[str, ...] = ()
    """Columns whose levels are compared; the cell type alone, where it is known, if none is given."""
    top_k_cells: int = Field(100, ge=1)
    """Cells of a feature whose levels are counted: those in which it is highest."""
    least: int = Field(10, ge=2)
    """Cells of a level, and cells of other levels, below which nothing is claimed."""
    donor_cells: int = Field(3, ge=1)
    """Cells that a donor needs on a side to take part in a test across donors."""
    most_levels: int = Field(50, ge=2)
    """Levels above which a column is refused: it may hold numbers or names of cells."""
    one_cell: Literal["refuse", "note"] = "refuse"
    """What is done about a level that has one cell: an error, or a note that nothing is claimed of it."""
    fdr: float = Field(0.05, gt=0, lt=1)
    """False-discovery rate at which features are counted."""


@dataclass(frozen=True, eq=False)
class Groups:
    """What was found; the tables are those that docs/formats describe."""

    table: pl.DataFrame  # a row for each feature, column and level
    best: pl.DataFrame  # a row for each feature and column: its best level
    dots: pl.DataFrame  # a row for each feature, column and donor: means inside and outside the best level
    notes: tuple[str, ...]
    counts: tuple[dict[str, Any], ...]  # for each column: levels, tests, and features that passed


class GroupTests:
    """Takes pooled activations block by block, in order, and gives the tables at the end."""

    def __init__(self, cells: pl.DataFrame, config: GroupConfig | None = None) -> None:
        from elute.analysis.donors import donors_of, read_levels
        from elute.analysis.pooled import sides

        self.config = of = config or GroupConfig()
        self.choosing, self.shown = sides(cells)
        self.donors = donors_of(cells)
        names = self.config.columns
        if not names and "label" in cells.columns and cells["label"].null_count() < cells.height:
            names = ("label",)
        read = [read_levels(cells, x, most=of.most_levels, one_cell=of.one_cell) for x in dict.fromkeys(names)]
        self._columns = [_Column(levels, self) for levels in read]
        self._next = 0

    def take(self, block: Pooled) -> None:
        """Take in the next block of features."""
        from elute.analysis.pooled import top_cells

        if block.first != self._next:
            raise DataError(f"features from {block.first} on where {self._next} comes next", where="GroupTests")
        self._next = block.stop
        top = top_cells(block, self.choosing, most=self.config.top_k_cells)
        for column in self._columns:
            column.take(block, top)

    def result(self) -> Groups:
        """Correct for the tests that were made, and return the tables."""
        import polars as pl

        told = [column.told() for column in self._columns]
        notes = [note for column in self._columns for note in column.notes()]
        if self.donors is None:
            notes.append(NO_DONORS)
        frames = [[part.table for part in told], [part.best for part in told], [part.dots for part in told]]
        if not told:
            frames = [[_frame("", [], [], {key: [] for key in keys})] for keys in (_TABLE, _BEST)]
            frames.append([_frame("", [], [], {key: [] for key in _DOTS}, donor=[])])
        table, best, dots = (pl.concat(parts) for parts in frames)
        return Groups(table, best, dots, tuple(notes), tuple(part.counts[0] for part in told))


def feature_groups(blocks: Iterable[Pooled], cells: pl.DataFrame, config: GroupConfig | None = None) -> Groups:
    """Hold all features, given in blocks, against the levels of columns of cells."""
    tests = GroupTests(cells, config)
    for block in blocks:
        tests.take(block)
    return tests.result()


class _Side:
    """The cells that choose, or those that show, as far as they have a level."""

    def __init__(self, levels: Levels, cells: Bools, least: int) -> None:
        import numpy as np

        self.rows = np.flatnonzero(cells & (levels.codes >= 0))
        self.codes = levels.codes[self.rows]
        self.sizes = np.bincount(self.codes, minlength=len(levels.names))
        self.tested = np.minimum(self.sizes, len(self.rows) - self.sizes) >= least

    def score(self, values: Any, tested: Bools) -> dict[str, Floats]:
        """Compare each level with the rest by values [cells, features] of a csc_array; NaN where it is not tested."""
        import numpy as np

        from elute.analysis import pooled

        mine = values[self.rows]
        n, shape = len(tested), (len(tested), values.shape[1])
        if not tested.any():
            return {name: np.full(shape, np.nan) for name in _SCORES}
        ranked = pooled.rank_stored(mine)
        inside = pooled.by_level(ranked.columns, self.codes[ranked.rows], weights=mine.data, shape=shape)
        mean = inside.sum(axis=0) / len(self.rows)
        fold = inside / np.maximum(self.sizes, 1)[:, None] / np.where(mean > 0, mean, np.nan)
        p = pooled.level_p(mine, ranked, self.codes, tested=tested)
        found = {"auroc": pooled.level_auroc(ranked, self.codes, n), "fold": fold, "p": p}
        for scores in found.values():
            scores[~tested] = np.nan
        return found


class _Column:
    """What becomes of one column: arrays [levels, features], a part for each block."""

    def __init__(self, levels: Levels, tests: GroupTests) -> None:
        import numpy as np

        from elute.analysis.donors import donor_design

        self.levels, self.config = levels, tests.config
        n, least = len(levels.names), tests.config.least
        self.choosing = _Side(levels, tests.choosing, least)
        self.shown = None if tests.shown is None else _Side(levels, tests.shown, least)
        self.tested = self.choosing.tested
        both = np.zeros(n, dtype=bool) if self.shown is None else self.tested & self.shown.tested
        self.tested_shown = both
        self.design = None
        if tests.donors is not None:
            self.design = donor_design(levels.codes, n, tests.donors, least=tests.config.donor_cells)
        self.parts: list[dict[str, Any]] = []

    def take(self, block: Pooled, top: TopCells) -> None:
        """Score one block of features."""
        import numpy as np

        shape = (len(self.tested), block.stop - block.first)
        blank = np.full(shape, np.nan)
        part: dict[str, Any] = self.choosing.score(block.mean, self.tested)
        again = {} if self.shown is None else self.shown.score(block.mean, self.tested_shown)
        part |= {f"{name}_shown": again.get(name, blank) for name in _SCORES}
        part |= self._count(top, block.first, shape)
        best = np.where(np.isnan(part["auroc"]), -1.0, part["auroc"])
        chosen = np.where(best.max(axis=0) > 0.5, best.argmax(axis=0), -1)
        self.parts.append(part | {"best": chosen} | self._across(block, chosen, blank))

    def _count(self, top: TopCells, first: int, shape: tuple[int, int]) -> dict[str, Floats]:
        """Count the levels of the top cells, and test whether there are more than the level's share."""
        import numpy as np

        from elute.analysis.pooled import by_level
        from elute.base.statistics.exact import fisher_exact, tables_from_overlap

        codes = self.levels.codes[top.cells]
        known = codes >= 0
        hits = by_level(top.features[known] - first, codes[known], weights=np.ones(int(known.sum())), shape=shape)
        found = {"top_in": hits, "p_fisher": np.full(shape, np.nan)}
        if self.tested.any():
            sizes, n = self.choosing.sizes[self.tested, None], len(self.choosing.rows)
            tables = tables_from_overlap(hits[self.tested], hits.sum(axis=0), sizes, population=n)
            found["p_fisher"][self.tested] = fisher_exact(tables, alternative="greater").p
        return found

    def _across(self, block: Pooled, best: Ints, blank: Floats) -> dict[str, Floats]:
        """Compare across donors, and keep the donors' means for the best level of each feature."""
        import numpy as np

        from elute.analysis.donors import donor_effects

        if self.design is None:
            return dict.fromkeys(_ACROSS, blank)
        found = donor_effects(block.mean, self.design)
        at = np.maximum(best, 0)[None, None]
        means = zip(_DOTS, (found.inside, found.outside), strict=False)
        dots = {name: np.take_along_axis(mean, at, axis=1)[:, 0] for name, mean in means}
        return dict(zip(_ACROSS, (found.effect, found.low, found.high, found.p), strict=True)) | dots

    def told(self) -> Groups:
        """Join the blocks, correct p-values, and lay out the three tables and the counts."""
        import numpy as np

        from elute.base.statistics.corrections import benjamini_hochberg

        if not self.parts:
            raise DataError("no feature was given", where="GroupTests")
        scores = {name: np.concatenate([part[name] for part in self.parts], axis=-1) for name in self.parts[0]}
        (n, width), self.parts = scores["p"].shape, []
        for name in ("p", "p_fisher", "p_shown", "p_donors"):
            scores[name.replace("p", "q", 1)] = benjamini_hochberg(scores[name], missing="carry")
        across = np.zeros(n) if self.design is None else self.design.counts.sum(axis=0)
        for name, counts in (("inside", self.choosing.sizes), ("donors", np.where(across > 0, across, np.nan))):
            scores[name] = np.broadcast_to(counts[:, None], (n, width))
        column, names = self.levels.column, np.array(self.levels.names, dtype=object)
        flat = {name: scores[name].T.ravel() for name in _TABLE}
        table = _frame(column, np.repeat(np.arange(width), n), np.tile(names, width), flat)
        kept = np.flatnonzero(scores["best"] >= 0)
        at = scores["best"][kept]
        best = _frame(column, kept, names[at], {name: scores[name][at, kept] for name in _BEST})
        return Groups(table, best, self._dots(scores, kept, at), (), (self._counts(scores),))

    def _dots(self, scores: dict[str, Any], kept: Ints, at: Ints) -> pl.DataFrame:
        import numpy as np

        who = () if self.design is None else self.design.names
        flat: dict[str, Any] = {name: [] for name in _DOTS}
        if self.design is not None:
            inside = self.design.cells[:, at]
            outside = self.design.cells.sum(axis=1, keepdims=True) - inside
            means = [scores[name][:, kept] for name in _DOTS[:2]]
            flat = {x: y.T.ravel() for x, y in zip(_DOTS, (*means, inside, outside), strict=True)}
        names = np.array(self.levels.names, dtype=object)[np.repeat(at, len(who))]
        features = np.repeat(kept, len(who))
        return _frame(self.levels.column, features, names, flat, donor=list(who) * len(kept))

    def _counts(self, scores: dict[str, Any]) -> dict[str, Any]:
        passed = (scores["q"] <= self.config.fdr) & (scores["auroc"] > 0.5)
        across = self.design is not None and self.design.how is not None
        again = passed & (scores["q_shown"] <= self.config.fdr) & (scores["auroc_shown"] > 0.5)
        return {
            "column": self.levels.column,
            "levels": len(self.tested),
            "missing": self.levels.missing,
            "tests": int(self.tested.sum()) * passed.shape[1],
            "features": int(passed.any(axis=0).sum()),
            "features_shown": int(again.any(axis=0).sum()) if self.tested_shown.any() else None,
            "features_donors": int((scores["q_donors"] <= self.config.fdr).any(axis=0).sum()) if across else None,
        }

    def notes(self) -> list[str]:
        """Say what is not claimed, and why."""
        from elute.analysis.donors import too_few

        levels, found = self.levels, []
        if levels.missing:
            found.append(f"{levels.missing:,} of {len(levels.codes):,} cells have no value and are left out")
        for side, wanted, doing in (
            (self.choosing, self.tested | True, "are there to choose on"),
            (self.shown, self.tested, "are held out"),
        ):
            if side is not None:
                found += too_few(levels.names, side.sizes, which=wanted & ~side.tested, doing=doing)
        if self.design is not None and self.design.how is None:
            found.append(f"{self.design.why_not}: nothing is claimed across donors")
        return [f"{levels.column}: {note}" for note in found]


def _frame(column: str, features: Any, levels: Any, numbers: dict[str, Any], **texts: list[str]) -> pl.DataFrame:
    from elute.analysis.donors import level_rows

    return level_rows(column, features, levels, numbers=numbers, whole=_WHOLE, texts=texts)
