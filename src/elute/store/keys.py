"""Finding a row that comes twice among any number of rows, in a fixed amount of memory.

A set of 64-bit hashes with open addressing in a memory-mapped file: 16 to 32 bytes of disk a row, which the kernel may
drop from memory. A hash that is met twice is only a suspicion; the caller compares the keys themselves.
"""

from __future__ import annotations

import tempfile
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    from numpy.typing import NDArray

_FIRST = 1 << 16


class SeenHashes:
    """The hashes met so far, in an anonymous temporary file."""

    def __init__(self, folder: str | None = None) -> None:
        self._folder = folder
        self._filled = 0
        self._slots = _FIRST
        self._table = self._empty()

    def __len__(self) -> int:
        return self._filled

    def add(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Add hashes; return the places in `hashes` of those that were met before, also within this call."""
        import numpy as np

        while (self._filled + len(hashes)) * 2 > self._slots:
            self._grow()
        before = self._place(hashes)
        self._filled += len(hashes) - len(before)
        return np.sort(before)

    def _place(self, hashes: NDArray[np.uint64]) -> NDArray[np.int64]:
        """Walk every hash to its slot, all at once; slot 0 means free, so 0 itself is stored as 1."""
        import numpy as np

        value = np.where(hashes == 0, np.uint64(1), hashes)
        mask = np.uint64(self._slots - 1)
        slot = (value ^ (value >> np.uint64(32))) & mask
        todo = np.arange(len(value))
        seen = []
        while len(todo):
            here, mine = slot[todo], value[todo]
            found = self._table[here]
            seen.append(todo[found == mine])
            free = found == 0
            self._table[here[free]] = mine[free]
            # Several may have taken one free slot: the last writer keeps it, an equal hash is a repeat, others walk on.
            kept = self._table[here] == mine
            _, first = np.unique(here[free & kept], return_index=True)
            repeats = np.ones(int((free & kept).sum()), bool)
            repeats[first] = False
            seen.append(todo[free & kept][repeats])
            todo = todo[~kept]
            slot[todo] = (slot[todo] + np.uint64(1)) & mask
        return np.concatenate(seen) if seen else np.empty(0, np.int64)

    def _grow(self) -> None:
        import numpy as np

        old = self._table
        self._slots *= 2
        self._table = self._empty()
        for start in range(0, len(old), 1 << 20):
            piece = np.asarray(old[start : start + (1 << 20)])
            self._place(piece[piece != 0])

    def _empty(self) -> NDArray[np.uint64]:
        import numpy as np

        with tempfile.TemporaryFile(dir=self._folder, prefix=".keys-") as handle:
            handle.truncate(self._slots * 8)
            return np.memmap(handle, np.uint64, "r+", shape=(self._slots,))


def hash_keys(frame: pl.DataFrame, key: tuple[str, ...]) -> NDArray[np.uint64]:
    """Hash the key columns of each row."""
    return frame.select(key).hash_rows(seed=0).to_numpy()
