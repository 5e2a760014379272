"""Runs of pairs: 32 bytes a pair, ascending by the other (a gene, a cell), in memory or in a file.

Runs are merged a piece at a time, and turned round to be read by feature. A file has no name, and is gone when the
process is.
"""

from __future__ import annotations

import itertools
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, cast

import numpy as np
import numpy.typing as npt

from elute.analysis import tally_kernels as kernels
from elute.base.files import disk_errors
from elute.base.mergeable import Floats, Integers

Run = npt.NDArray[np.void]  # of PAIR
PAIR = np.dtype([("key", np.int64), ("sums", "f8"), ("weighted", "f8"), ("counts", np.uint32), ("highs", "f4")])
"""What a run is made of; the key is other · 2³² + feature."""


@dataclass(frozen=True, eq=False)
class Block:
    """Pairs of the features first … stop − 1; those of feature f stand at indptr[f − first] : indptr[f − first + 1]."""

    first: int
    stop: int
    indptr: Integers
    others: npt.NDArray[np.int32]  # ascending in each feature
    counts: Integers  # rows in which the feature fired
    sums: Floats  # Σ a
    weighted: Floats  # Σ a·e
    highs: npt.NDArray[np.float32]  # the largest a, which is negative where all are

    def __len__(self) -> int:
        return len(self.others)

    def part(self, first: int, stop: int) -> Block:
        """Return the pairs of fewer features: views, nothing is copied."""
        begin, end = (int(self.indptr[f - self.first]) for f in (first, stop))
        columns = (getattr(self, name)[begin:end] for name in ("others", "counts", "sums", "weighted", "highs"))
        return Block(first, stop, self.indptr[first - self.first : stop - self.first + 1] - begin, *columns)

    def features(self) -> npt.NDArray[np.int32]:
        """Return the feature of each pair."""
        return np.repeat(np.arange(self.first, self.stop, dtype=np.int32), np.diff(self.indptr))


def assembled(columns: Mapping[str, npt.NDArray[Any]]) -> Run:
    """Make a run of its columns."""
    run = np.empty(len(columns["key"]), PAIR)
    for name, column in columns.items():
        run[name] = column
    return cast("Run", run)


def words(run: Run) -> Integers:
    """See each pair as four whole numbers."""
    return run.view(np.int64).reshape(-1, 4)


def seen(run: Run) -> tuple[npt.NDArray[Any], ...]:
    """See pairs as whole numbers and as reals, and their second halves as counts and highs."""
    kinds = ((np.int64, 4), (np.float64, 4), (np.uint32, 8), (np.float32, 8))
    return tuple(run.view(kind).reshape(-1, width) for kind, width in kinds)


def cuts_of(indptr: Integers, most_pairs: int) -> list[int]:
    """Cut features into ranges of at most so many pairs, or of one feature."""
    cuts, n = [0], len(indptr) - 1
    while cuts[-1] < n:
        reach = int(np.searchsorted(indptr, indptr[cuts[-1]] + most_pairs, side="right")) - 1
        cuts.append(max(cuts[-1] + 1, reach))
    return cuts


def sorted_blocks(indptr: Integers, cuts: list[int], run: Run, *, most_pairs: int) -> Iterator[Block]:
    """Sort ranges of features when their turn comes, as many together as a block may hold."""
    starts, i = indptr[cuts], 0
    while i < len(cuts) - 1:
        j = max(i + 1, int(np.searchsorted(starts, starts[i] + most_pairs, side="right")) - 1)
        own = indptr[cuts[i] : cuts[j] + 1] - starts[i]
        n = int(own[-1])
        columns = np.empty(n, np.int32), np.empty(n, np.int64), np.empty(n), np.empty(n), np.empty(n, np.float32)
        for first, stop in itertools.pairwise(cuts[i : j + 1]):
            place = own[first - cuts[i] : stop - cuts[i]].copy()
            kernels.turn(seen(run[indptr[first] : indptr[stop]]), (first, place), columns)
        block = Block(cuts[i], cuts[j], own, *columns)
        for a, b in itertools.pairwise(cuts_of(own, most_pairs)):
            yield block.part(cuts[i] + a, cuts[i] + b)
        i = j


def pieces(runs: list[Run], n_features: int, most_pairs: int) -> Iterator[Run]:
    """Merge runs, from the lowest other on, in pieces of about so many pairs; each is there until the next one."""
    at = [0] * len(runs)
    window = max(most_pairs // len(runs), n_features + 1)  # more pairs than any other has
    room = np.empty(min(window * len(runs), sum(map(len, runs))), PAIR)
    while True:
        left = [(i, run[at[i] : at[i] + window]) for i, run in enumerate(runs) if at[i] < len(run)]
        if not left:
            return
        # The last other of a window may go on behind it.
        ends = [part["key"][-1] >> 32 << 32 for i, part in left if at[i] + window < len(runs[i])]
        parts = [part[: np.searchsorted(part["key"], min(ends))] if ends else part for _, part in left]
        for (i, _), part in zip(left, parts, strict=True):
            at[i] += len(part)
        yield _joined(_fewer(parts, n_features), n_features, room)


def merged(runs: list[Run], n_features: int) -> Run:
    """Merge runs in memory; the cost is that of their pairs, and features that go together stand together."""
    if len(runs) == 1:
        return runs[0]
    runs = _fewer(runs, n_features)
    room = np.empty(sum(map(len, runs)), PAIR)
    return shortened(room, len(_joined(runs, n_features, room)))


def _fewer(runs: list[Run], n_features: int) -> list[Run]:
    """Merge neighbours until there are as few as can be merged at once."""
    while len(runs) > kernels.FAN:
        runs = [merged(runs[i : i + kernels.FAN], n_features) for i in range(0, len(runs), kernels.FAN)]
    return runs


def _joined(runs: list[Run], n_features: int, room: Run) -> Run:
    """Merge eight runs at most, into the room that is given where there are several."""
    if len(runs) == 1:
        return runs[0]
    filled = runs + [np.empty(0, PAIR)] * (kernels.FAN - len(runs))
    return room[: kernels.merge(tuple(map(seen, filled)), np.full(n_features, -1, np.int64), seen(room))]


def shortened(run: Run, n: int) -> Run:
    """Give back the memory of what was not needed, without a copy."""
    run.resize(n, refcheck=False)
    return run


def to_file(runs: Iterable[Run], folder: Path | None) -> Run:
    """Write runs one after another into a file without a name, and map it."""
    n = 0
    with unnamed(folder) as handle:
        for run in runs:
            write_whole(handle.fileno(), n * PAIR.itemsize, run)
            n += len(run)
        return _mapped(handle, n)


def room(n: int, folder: Path | None) -> Run:
    """Map a file without a name that has room for so many pairs."""
    with unnamed(folder) as handle:
        nothing = np.zeros(2**16, PAIR)  # written, not only reserved: a full disk is then an error, not the end
        for start in range(0, n, len(nothing)):
            write_whole(handle.fileno(), start * PAIR.itemsize, nothing[: n - start])
        return _mapped(handle, n)


def _mapped(handle: IO[bytes], n: int) -> Run:
    if not n:
        return np.empty(0, PAIR)
    # Writable, since the compiled loops are then the same as for what lies in memory.
    return cast("Run", np.memmap(handle, PAIR, "r+", shape=(n,)).view(np.ndarray))


@contextmanager
def unnamed(folder: Path | None) -> Iterator[IO[bytes]]:
    """Open a file that has no name; what is mapped from it stays."""
    place = Path(tempfile.gettempdir()) if folder is None else folder
    with disk_errors(place), tempfile.TemporaryFile(dir=place, prefix=".pairs-") as handle:
        yield handle


def write_whole(number: int, at: int, array: npt.NDArray[Any]) -> None:
    """Write an array at a place in an open file; a system call takes 2 GB at most."""
    left = memoryview(cast("Any", np.ascontiguousarray(array).view(np.uint8)))
    while left:
        n = os.pwrite(number, left, at)
        left, at = left[n:], at + n
