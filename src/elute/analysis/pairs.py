"""Sums over pairs of a feature and something else, a gene or a cell, in bounded memory.

1. A run holds pairs that ascend by the other: how often the feature fired there, Σ a, Σ a·e, the largest a.
2. Eight runs of about one size become one of the next, as a log-structured merge tree does (P. O'Neil et al., Acta
   Informatica 33, 1996): a pair is copied as often as the logarithm of what came.
3. Before runs and the room for merging them pass the limit they are merged, a piece at a time, into a file, and files
   become one in the same way.
4. To be read by feature, all runs become one, whose pairs are shared out among ranges of features, in a file if there
   are many; a range is sorted by feature when its turn comes.

Runs never change, so that copies, parts and results share them. However rows are cut into batches and parts, counts and
largest values are the same to the bit, and sums to rounding.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from elute.analysis import tally_kernels as kernels
from elute.analysis.pair_runs import (
    PAIR,
    Block,
    Run,
    assembled,
    cuts_of,
    merged,
    pieces,
    room,
    seen,
    sorted_blocks,
    to_file,
    words,
)
from elute.base.errors import ConfigError, DataError
from elute.base.mergeable import Integers, Statistic, positive

__all__ = ["IN_MEMORY", "PAIR", "Block", "Pairs"]

IN_MEMORY = 2**23  # pairs, 256 MB
_RANGE = 2**18  # pairs that fit the cache
_FAULTS = (
    "",
    "do not ascend, or come twice",
    "name a feature or an other that is not there",
    "are not finite, or never came",
)


class Pairs(Statistic):
    """What each feature did on each gene, or in each cell; at most `most_pairs` are held in memory."""

    _settings = ("n_features", "n_others")

    def __init__(
        self, n_features: int, n_others: int, *, most_pairs: int = IN_MEMORY, folder: Path | None = None
    ) -> None:
        self.n_features, self.n_others = positive("n_features", n_features), positive("n_others", n_others)
        if self.n_others >= 2**31:
            raise ConfigError(f"n_others={n_others}", remedy="Choose a number below 2,147,483,648.")
        self.most_pairs, self.folder = positive("most_pairs", most_pairs), folder
        self._held: list[Run] = []  # each at least twice as long as the next
        self._spilled: list[Run] = []
        self._shared: tuple[Integers, list[int], Run] | None = None  # what `blocks` reads, until more comes

    def update(self, run: Run, /) -> None:
        """Take in pairs (of PAIR) that ascend by their other, each once; they must not change afterwards."""
        if run.ndim != 1 or run.dtype != PAIR:
            raise DataError("a run of pairs must be one row of PAIR")
        for _ in self._checked([run]):
            self.take(run)

    def merge(self, other: Pairs, /) -> None:
        """Take in what another one has seen."""
        self.check_kin(other)
        held, spilled = list(other._held), list(other._spilled)
        for run in held:
            self.take(run)
        for run in spilled:
            self._keep(run)

    def _checked(self, runs: Iterable[Run]) -> Iterator[Run]:
        """Check runs that follow one another."""
        group, last = -1, np.full(self.n_features, -1, np.int64)
        for run in runs:
            if fault := kernels.fault(seen(run), (group, last), self.n_others):
                raise DataError(f"the pairs of a run {_FAULTS[fault]}")
            group = int(run["key"][-1] >> 32) if len(run) else group
            yield run

    def take(self, run: Run) -> None:
        """Take in a run that needs no check."""
        if not len(run):
            return
        self._shared = None
        if sum(map(len, self._held)) + len(run) > self.most_pairs // 2:  # the other half is for merging
            self._keep(self._written([*self._held, run]))
            self._held = []
        else:
            self._held = _compacted([*self._held, run], lambda runs: merged(runs, self.n_features))

    def _keep(self, run: Run) -> None:
        self._shared = None
        self._spilled = _compacted([*self._spilled, run], self._written)

    def _written(self, runs: list[Run]) -> Run:
        """Merge runs into a file, a piece at a time."""
        return to_file(pieces(runs, self.n_features, self._piece()), self.folder)

    def _piece(self) -> int:
        return max(1, min(_RANGE, self.most_pairs // 8))

    def blocks(self, *, most_pairs: int = 2**22) -> Iterator[Block]:
        """Yield all features in order, in blocks of at most so many pairs, or of one feature that has more."""
        positive("most_pairs", most_pairs)
        if self._shared is None:
            self._shared = self._share_out(self._one())
        return sorted_blocks(*self._shared, most_pairs=most_pairs)

    def _one(self) -> Run:
        """Make one run of all. Where it lies follows from its size, so that what is merged later does, too."""
        runs = [*self._spilled, *self._held]
        n = sum(map(len, runs))
        if len(runs) > 1:
            runs = [merged(runs, self.n_features)] if n <= self.most_pairs // 2 else [self._written(runs)]
        small = not runs or len(runs[0]) <= self.most_pairs // 2
        self._held, self._spilled = (runs, []) if small else ([], runs)
        return runs[0] if runs else np.empty(0, PAIR)

    def _share_out(self, run: Run) -> tuple[Integers, list[int], Run]:
        """Sort pairs by ranges of features that fit the cache, or of one feature."""
        piece, indptr = self._piece(), np.zeros(self.n_features + 1, np.int64)
        for start in range(0, len(run), piece):
            kernels.count(words(run[start : start + piece]), indptr)
        np.cumsum(indptr, out=indptr)
        cuts = cuts_of(indptr, piece)
        if len(cuts) <= 2:
            return indptr, cuts, run
        bucket = np.repeat(np.arange(len(cuts) - 1), np.diff(cuts))
        place = indptr[cuts[:-1]]
        small = len(run) <= self.most_pairs // 2
        out = np.empty(len(run), PAIR) if small else room(len(run), self.folder)
        for start in range(0, len(run), piece):
            kernels.share_out(words(run[start : start + piece]), (bucket, place), words(out))
        return indptr, cuts, out

    def snapshot(self) -> Pairs:
        """Return what was seen so far, which does not change when this one goes on; nothing is copied."""
        same = type(self)(self.n_features, self.n_others, most_pairs=self.most_pairs, folder=self.folder)
        same._held, same._spilled, same._shared = list(self._held), list(self._spilled), self._shared
        return same

    def result(self) -> Pairs:
        """Return what was seen so far, to be read with `blocks`."""
        return self.snapshot()

    def state(self) -> dict[str, Any]:
        """Return arrays from which the sums can go on, to be read only; they are mapped from a file if large."""
        run = self._one().view()
        run.flags.writeable = False
        columns = {name: run[name] for name in PAIR.names or ()}
        return {"statistic": type(self).__name__, "n_features": self.n_features, "n_others": self.n_others, **columns}

    @classmethod
    def from_state(
        cls, state: Mapping[str, Any], /, *, most_pairs: int = IN_MEMORY, folder: Path | None = None
    ) -> Self:
        """Go on from a state; lists stand for arrays, so it may have passed through JSON."""
        name = cls.__name__
        if state.get("statistic") != name:
            raise DataError(f"this is the state of {state.get('statistic')!r}, not of {name}")
        columns = PAIR.names or ()
        if lacks := [key for key in (*cls._settings, *columns) if key not in state]:
            raise DataError(f"the state of {name} lacks {', '.join(lacks)}")
        made = cls(state["n_features"], state["n_others"], most_pairs=most_pairs, folder=folder)
        held = {key: _column(state, key, PAIR[key], name) for key in columns}
        if len({len(column) for column in held.values()}) > 1:
            raise DataError(f"the columns in the state of {name} differ in length")
        n, piece = len(held["key"]), made._piece()
        runs = (assembled({key: held[key][a : a + piece] for key in columns}) for a in range(0, n, piece))
        try:
            if n <= made.most_pairs // 2:
                made.update(assembled(held))
            else:
                made._spilled = [to_file(made._checked(runs), folder)]
        except DataError as fault:
            raise DataError(f"{fault.what}, in the state of {name}") from None
        return made


def _compacted(runs: list[Run], join: Callable[[list[Run]], Run]) -> list[Run]:
    """Make one run of those of one size while there are eight of them, or the last of them has become another size."""
    while True:
        alike = [run for run in runs if _size(run) == _size(runs[-1])]
        if len(alike) < kernels.FAN:
            return runs
        runs = [*(run for run in runs if _size(run) != _size(runs[-1])), join(alike)]


def _size(run: Run) -> int:
    return (len(run).bit_length() + 2) // 3  # by factors of eight


def _column(state: Mapping[str, Any], key: str, kind: npt.DTypeLike, name: str) -> npt.NDArray[Any]:
    """Read one row of numbers from a state."""
    try:
        column = np.asarray(state[key])
        if column.dtype != kind:
            column = np.array(state[key], dtype=kind)
    except (TypeError, ValueError, OverflowError) as cause:
        raise DataError(f"{key} in the state of {name} holds no numbers") from cause
    if column.ndim != 1:
        raise DataError(f"{key} in the state of {name} is {column.shape}, not one row of numbers")
    return column
