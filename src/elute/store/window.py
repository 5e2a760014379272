"""One window of a shuffled stream: blocks of rows read into memory by several threads, then taken in any order."""

from __future__ import annotations

import os
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from elute.base.contracts import Rows
from elute.base.errors import DamagedError
from elute.store import layout

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from elute.store.rows import Selection, StoredRows


@dataclass(frozen=True)
class Batch:
    """Some rows in random order, and their places in the store."""

    rows: Rows
    places: torch.Tensor


class Window:
    """Some blocks in memory, and which rows of the store they are."""

    def __init__(self, store: StoredRows, where: Selection, sites: Mapping[str, int], capacity: int) -> None:
        import torch

        self._store, self._where = store, where
        dtype = layout.torch_dtype(store.manifest.dtype)
        self._rows = {name: torch.empty(capacity, width, dtype=dtype) for name, width in sites.items()}
        self._places = torch.empty(capacity, dtype=torch.int64)
        self.fill = 0

    def load(self, blocks: NDArray[np.int64], pool: ThreadPoolExecutor) -> list[Future[None]]:
        """Begin to read some blocks, each into its own place."""
        import numpy as np

        slots = np.concatenate([[0], np.cumsum(blocks[:, 3])])
        self.fill = int(slots[-1])
        jobs = np.column_stack([blocks[:, :3], slots[:-1]]).tolist()
        return [pool.submit(self._read, shard, start, stop, slot) for shard, start, stop, slot in jobs]

    def take(self, order: torch.Tensor) -> Batch:
        """Copy some rows out of the window."""
        import torch

        rows = {name: torch.index_select(x, 0, order) for name, x in self._rows.items()}
        return Batch(rows, torch.index_select(self._places, 0, order))

    def _read(self, shard: int, start: int, stop: int, slot: int) -> None:
        """Read rows of one shard with one call a site, and keep the chosen ones."""
        import numpy as np
        import torch

        store = self._store
        mask = self._where.mask(shard, store.manifest.shards[shard].rows)
        chosen = None if mask is None else np.flatnonzero(mask[start:stop])
        n = stop - start if chosen is None else len(chosen)
        whole = n == stop - start
        places = torch.arange(start, stop) if whole else torch.from_numpy(chosen) + start
        self._places[slot : slot + n] = places + store.starts[shard]
        path = layout.tensors_path(store.folder, shard)
        spans = store.spans(shard)
        handle = os.open(path, os.O_RDONLY)
        try:
            for name, x in self._rows.items():
                row_bytes = x.shape[1] * store.item_bytes
                into = x[slot : slot + n] if whole else torch.empty(stop - start, x.shape[1], dtype=x.dtype)
                view = memoryview(into.view(torch.uint8).numpy().reshape(-1))  # type: ignore[arg-type]
                if os.preadv(handle, [view], spans[name] + start * row_bytes) != len(view):
                    raise DamagedError("was cut short while it was read", where=path)
                if not whole:
                    x[slot : slot + n] = into[torch.from_numpy(chosen)]
        finally:
            os.close(handle)


def join(pieces: list[Batch]) -> Batch:
    """Put the pieces of one batch together."""
    import torch

    if len(pieces) == 1:
        return pieces[0]
    rows = {name: torch.cat([piece.rows[name] for piece in pieces]) for name in pieces[0].rows}
    return Batch(rows, torch.cat([piece.places for piece in pieces]))
