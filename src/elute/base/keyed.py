"""Statistics in one pass over what is named by whole numbers: the best of each column, sums of each pair.

Both are offered by `elute.base.accumulate`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from elute.base.errors import ConfigError, DataError
from elute.base.mergeable import Floats, Integers, Statistic, aligned, positive, real, whole

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from elute.base.mergeable import Batch

_PENDING = 2**20  # pairs that may wait before they are sorted in


@dataclass(frozen=True, eq=False)
class TopKResult:
    """Per column, best first; equal scores by key. Past `counts` of a row: score -inf, key -1."""

    scores: Floats  # [width, k]
    keys: Integers  # [width, k]
    counts: Integers  # [width]

    def of(self, column: int) -> tuple[Floats, Integers]:
        """Return the scores and keys of one column, without empty places."""
        n = self.counts[column]
        return self.scores[column, :n], self.keys[column, :n]


@dataclass(frozen=True, eq=False)
class SparseSumsResult:
    """Every pair that came, sorted by row and column."""

    shape: tuple[int, int]
    rows: Integers
    columns: Integers
    sums: Floats
    counts: Integers  # how many values went into each sum

    def matrix(self) -> csr_array[Any, tuple[int, int]]:
        """Return the sums as a sparse matrix."""
        from scipy.sparse import csr_array

        starts = np.searchsorted(self.rows, np.arange(self.shape[0] + 1))
        return csr_array((self.sums, self.columns, starts), shape=self.shape)


class TopK(Statistic):
    """The k largest scores of each column with their keys, say the rows in which each feature is strongest.

    Equal scores go by the lowest key, so the result depends on no order. A key that comes twice counts twice.
    """

    _settings = ("k", "width")
    _kept = ("scores", "keys")

    def __init__(self, k: int, width: int = 1) -> None:
        self.k, self.width = positive("k", k), positive("width", width)
        self.scores = np.full((width, k), -np.inf)
        self.keys = np.full((width, k), -1, dtype=np.int64)

    def update(self, batch: tuple[Batch, Batch, Batch], /) -> None:
        """Take in (columns, scores, keys), each [n]; keys are whole numbers from 0."""
        columns, scores, keys = aligned(batch, "columns", "scores", "keys")
        self._take(
            whole(columns, self.width, "column"),
            real(scores) + 0.0,  # -0.0 equals 0.0 but has other bits
            whole(keys, 2**63 - 1, "key"),
        )

    def merge(self, other: TopK, /) -> None:
        """Take in what another one has seen."""
        self.check_kin(other)
        columns, places = np.nonzero(other.keys >= 0)
        self._take(columns, other.scores[columns, places], other.keys[columns, places])

    def _take(self, columns: Integers, scores: Floats, keys: Integers) -> None:
        hopeful = scores >= self.scores[columns, -1]  # an equal score can still win by its key
        columns, scores, keys = columns[hopeful], scores[hopeful], keys[hopeful]
        touched = np.unique(columns)
        held, places = np.nonzero(self.keys[touched] >= 0)
        held = touched[held]
        columns = np.concatenate([held, columns])
        scores = np.concatenate([self.scores[held, places], scores])
        keys = np.concatenate([self.keys[held, places], keys])
        order = np.lexsort((keys, -scores, columns))
        columns = columns[order]
        ranks = np.arange(len(order)) - np.searchsorted(columns, columns)
        kept = ranks < self.k
        self.scores[columns[kept], ranks[kept]] = scores[order[kept]]
        self.keys[columns[kept], ranks[kept]] = keys[order[kept]]

    def result(self) -> TopKResult:
        """Return the best so far."""
        return TopKResult(self.scores.copy(), self.keys.copy(), (self.keys >= 0).sum(1))


class SparseSums(Statistic):
    """Sums over pairs of integers, say feature and gene: memory grows with the distinct pairs alone."""

    _settings = ("shape",)
    _kept = ("pairs", "sums", "counts")

    def __init__(self, shape: Sequence[int]) -> None:
        try:
            rows, columns = (positive("shape", size) for size in shape)
        except (TypeError, ValueError) as cause:
            raise ConfigError(f"shape={shape!r}", remedy="Give two numbers: rows and columns.") from cause
        if rows * columns >= 2**63:
            raise ConfigError(f"{rows} × {columns} pairs are more than can be numbered")
        self.shape = (rows, columns)
        self.pairs = np.zeros(0, dtype=np.int64)  # row * columns + column, ascending
        self.sums, self.counts = np.zeros(0), np.zeros(0, dtype=np.int64)
        self._waiting: list[tuple[Integers, Floats, Integers]] = []
        self._n_waiting = 0

    def update(self, batch: tuple[Batch, Batch, Batch], /) -> None:
        """Take in (rows, columns, values), each [n]."""
        rows, columns, values = aligned(batch, "rows", "columns", "values")
        pairs = whole(rows, self.shape[0], "row") * self.shape[1]
        pairs += whole(columns, self.shape[1], "column")
        self._take(pairs, real(values), np.ones(len(pairs), dtype=np.int64))

    def merge(self, other: SparseSums, /) -> None:
        """Take in what another one has seen."""
        self.check_kin(other)
        other._settle()
        self._take(other.pairs, other.sums, other.counts)

    def _take(self, *part: Any) -> None:
        self._waiting.append(_reduced(*part))
        self._n_waiting += len(self._waiting[-1][0])
        # Sorting in only when as much waits as is held costs each pair a few sorts, not one a batch.
        if self._n_waiting > max(_PENDING, len(self.pairs)):
            self._settle()

    def _settle(self) -> None:
        if self._waiting:
            parts = zip((self.pairs, self.sums, self.counts), *self._waiting, strict=True)
            self.pairs, self.sums, self.counts = _reduced(*(np.concatenate(part) for part in parts))
            self._waiting, self._n_waiting = [], 0

    def state(self) -> dict[str, Any]:
        """Return numpy arrays, numbers and strings from which the statistic can go on."""
        self._settle()
        return super().state()

    @classmethod
    def from_state(cls, state: Mapping[str, Any], /) -> Self:
        """Go on from a state; lists stand for arrays, so it may have passed through JSON."""
        made = super().from_state(state)
        sizes = {len(made.pairs), len(made.sums), len(made.counts)}
        if len(sizes) > 1 or (np.diff(made.pairs, prepend=-1, append=np.prod(made.shape)) <= 0).any():
            raise DataError("the pairs in the state of SparseSums are not what it writes")
        return made

    def result(self) -> SparseSumsResult:
        """Return every pair that came."""
        self._settle()
        rows, columns = np.divmod(self.pairs, self.shape[1])
        return SparseSumsResult(self.shape, rows, columns, self.sums.copy(), self.counts.copy())


def _reduced(pairs: Integers, sums: Floats, counts: Integers) -> tuple[Integers, Floats, Integers]:
    """Add up what stands for the same pair, sorted."""
    order = np.argsort(pairs, kind="stable")
    pairs = pairs[order]
    starts = np.flatnonzero(np.diff(pairs, prepend=-1))
    if not len(starts):
        return pairs, sums, counts
    return pairs[starts], np.add.reduceat(sums[order], starts), np.add.reduceat(counts[order], starts)
