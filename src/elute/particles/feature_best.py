"""How well columns tell classes at best: chosen on some particles, scored on others.

1. Of each class the column is taken whose AUROC is highest on the particles that choose; of directions without a sign,
   that is furthest from 0.5 on either side.
2. Its AUROC on the particles that show, turned where it was chosen from below, is the class's score; without particles
   that show, that on those that chose.
3. The mean over the classes is told; then the same with labels permuted within runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from elute.analysis.pooled import csc, level_auroc, rank_stored
from elute.base.errors import DataError
from elute.base.statistics.checks import Bools, Floats, Ints, group_codes
from elute.base.statistics.nulls import permuted_labels


class Best:
    """The classes that are asked for, and who chooses and shows."""

    def __init__(
        self, labels: Sequence[str | None], choosing: Bools, shown: Bools | None, *, levels: Sequence[str]
    ) -> None:
        places = {level: i for i, level in enumerate(levels)}
        self.codes = np.array([-1 if label is None else places.get(label, len(places)) for label in labels], np.int64)
        self.n = len(levels)
        masks = [choosing] if shown is None else [choosing, shown]
        self.rows: list[Ints] = [np.flatnonzero(mask & (self.codes >= 0)) for mask in masks]

    def scores(
        self, blocks: Callable[[], Iterable[Any]], *, both_signs: bool, permutations: int, runs: Sequence[Any] | None,
        seed: int,
    ) -> list[float | None]:  # fmt: skip
        """Return the mean over classes with the true labels, then with each permutation of them."""
        if not self.n:
            return [None]
        labels = [self.codes, *self._permuted(permutations, runs, seed=seed)]
        far = np.full((len(labels), self.n), -np.inf)
        held = np.full((len(labels), self.n), np.nan)
        for block in blocks():
            columns = csc(block, "feature_best")
            ranked = [rank_stored(columns[rows]) for rows in self.rows]
            for i, codes in enumerate(labels):
                auroc = [level_auroc(r, codes[rows], self.n + 1) for r, rows in zip(ranked, self.rows, strict=True)]
                self._take(auroc[0][: self.n], auroc[-1][: self.n], far[i], held[i], both_signs=both_signs)
        return [float(row.mean()) if np.isfinite(row).all() else None for row in held]

    @staticmethod
    def _take(chosen: Floats, shown: Floats, far: Floats, held: Floats, *, both_signs: bool) -> None:
        """Keep what a block has that is further from chance than all before it."""
        distance = np.nan_to_num(np.abs(chosen - 0.5) if both_signs else chosen - 0.5, nan=-np.inf)
        for level, row in enumerate(distance):
            column = int(row.argmax())
            if row[column] > far[level]:
                far[level] = row[column]
                below = both_signs and chosen[level, column] < 0.5
                held[level] = 1 - shown[level, column] if below else shown[level, column]

    def _permuted(self, times: int, runs: Sequence[Any] | None, *, seed: int) -> list[Ints]:
        """Permute labels inside each side, and inside each run of it; none where nothing can be permuted."""
        if not times:
            return []
        side = np.full(len(self.codes), -1, np.int64)
        for i, rows in enumerate(self.rows):
            side[rows] = i
        who = np.zeros(len(side), np.int64) if runs is None else group_codes([str(run) for run in runs], "runs")[1]
        taking = np.flatnonzero(side >= 0)
        part = side[taking] * (int(who.max()) + 1) + who[taking]
        out = []
        try:
            for shuffled in permuted_labels(self.codes[taking], part, n_permutations=times, seed=seed):
                codes = self.codes.copy()
                codes[taking] = shuffled
                out.append(codes)
        except DataError:
            return []
        return out
