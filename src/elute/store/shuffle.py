"""Rows in a seeded random order, read from the disk in long runs, in bounded memory.

1. The store is cut into blocks of neighbouring rows; a block without a chosen row is left out.
2. Each epoch permutes the blocks and groups them into windows of about `buffer_rows` rows.
3. A window is read (several blocks at a time), permuted as a whole, and cut into batches that go on across windows.
   While one window is handed out, the next one is read.

The order is a function of the store, the chosen rows, the seed and the sizes alone: not of the number of workers, nor
of timing. A position in it is one number, the rows handed out so far, so a stream can go on anywhere.

Two rows of one block share a window; with a window of many blocks that is rare in a batch, and never systematic.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from pydantic import Field

from elute.base.errors import ConfigError, DataError
from elute.base.files import digest_json
from elute.base.recipe import Section
from elute.store.window import Batch, Window, join

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

    from elute.store.rows import Selection, StoredRows


class ShuffleConfig(Section):
    """How rows are shuffled."""

    batch_size: int = Field(4096, ge=1)
    """Rows of one batch."""
    epochs: int | None = Field(1, ge=1)
    """How often every row comes; null goes on for ever."""
    seed: int = Field(0, ge=0)
    """The order's seed."""
    buffer_mb: int = Field(256, ge=1)
    """Memory of one window in MB; two are held at a time."""
    block_kb: int = Field(2048, ge=4)
    """Length of one read in kB, over all sites."""
    workers: int = Field(4, ge=1, le=64)
    """Reading threads; the order does not depend on them."""
    drop_last: bool = False
    """Leave out the last batch of an epoch when it is not full."""


@dataclass
class StreamReport:
    """How long the consumer waited, measured by the stream itself."""

    rows: int = 0
    first_wait_s: float = 0.0
    stall_s: float = 0.0
    elapsed_s: float = 0.0

    @property
    def stall_share(self) -> float:
        """Share of the time after the first batch in which the consumer waited for data."""
        return self.stall_s / self.elapsed_s if self.elapsed_s else 0.0


class ShuffledStream:
    """Iterate to get batches; `state()` in the middle of an epoch is where `load_state` goes on."""

    def __init__(self, store: StoredRows, config: ShuffleConfig, *, where: Selection, sites: Sequence[str]) -> None:
        if where.rows == 0:
            raise DataError(f"there are no rows ({where.words})", where=store.folder)
        if config.drop_last and where.rows < config.batch_size:
            what = f"{where.rows} rows do not fill one batch of {config.batch_size}"
            raise ConfigError(what, where=store.folder, remedy="Make the batch smaller, or keep the last one.")
        self.store, self.config, self.where = store, config, where
        self.sites = {name: store.sites[name] for name in sites}
        self.report = StreamReport()
        self._position = 0
        self._blocks = _cut(store, config, where, sum(self.sites.values()))
        window = config.buffer_mb * 1_000_000 // (sum(self.sites.values()) * store.item_bytes)
        self._window_rows = max(int(self._blocks[:, 3].max()), window, 1)

    @property
    def rows_per_epoch(self) -> int:
        """Rows handed out in one epoch."""
        n = self.where.rows
        return n - n % self.config.batch_size if self.config.drop_last else n

    @property
    def epoch(self) -> int:
        """The epoch that the next batch is of."""
        return self._position // self.rows_per_epoch

    def state(self) -> dict[str, Any]:
        """Return the place after the last batch handed out, as JSON."""
        return {"position": self._position, "order": self._order_digest()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a place; a state of another store, selection, seed or size is refused."""
        if state["order"] != self._order_digest():
            what = "this stream's order differs from the one that was interrupted"
            remedy = "Resume with the same store, rows, seed, batch size, buffer and block; or start anew."
            raise ConfigError(what, where=self.store.folder, remedy=remedy)
        self._position = int(state["position"])

    def __iter__(self) -> Iterator[Batch]:
        """Hand out batches from the current place on; a producer thread keeps a few ready."""
        ready: queue.Queue[Batch | BaseException | None] = queue.Queue(maxsize=8)
        stop = threading.Event()
        thread = threading.Thread(target=self._produce, args=(ready, stop, self._position), daemon=True)
        thread.start()
        asked = time.perf_counter()
        first: float | None = None
        try:
            while True:
                item = ready.get()
                now = time.perf_counter()
                if isinstance(item, BaseException):
                    raise item
                if item is None:
                    return
                if first is None:
                    first = now
                    self.report.first_wait_s += now - asked
                else:
                    self.report.stall_s += now - asked
                    self.report.elapsed_s += now - asked
                self._position += len(item.places)
                self.report.rows += len(item.places)
                yield item
                asked = time.perf_counter()
                self.report.elapsed_s += asked - now
        finally:
            stop.set()
            with suppress(queue.Empty):  # a producer that waits for room sees at once that nobody reads on
                while True:
                    ready.get_nowait()
            thread.join()

    def _produce(self, ready: queue.Queue[Any], stop: threading.Event, position: int) -> None:
        """Fill the queue until the epochs or the consumer end; an error goes to the consumer."""

        def put(item: object) -> bool:
            while not stop.is_set():
                try:
                    ready.put(item, timeout=0.1)
                except queue.Full:
                    continue
                return True
            return False

        try:
            with ThreadPoolExecutor(self.config.workers) as pool:
                epoch, skip = divmod(position, self.rows_per_epoch)
                while self.config.epochs is None or epoch < self.config.epochs:
                    for batch in self._epoch(epoch, skip, pool):
                        if not put(batch):
                            return
                    epoch, skip = epoch + 1, 0
            put(None)
        except BaseException as error:  # noqa: BLE001  # raised again where the batches are read
            put(error)

    def _epoch(self, epoch: int, skip: int, pool: ThreadPoolExecutor) -> Iterator[Batch]:
        """Yield one epoch's batches, from row `skip` of its order on."""
        left = self.rows_per_epoch - skip
        held: list[Batch] = []
        want = min(self.config.batch_size, left)
        for order, window in self._windows(epoch, skip, pool):
            start = 0
            while start < len(order) and want:
                piece = order[start : start + want]
                held.append(window.take(piece))
                start += len(piece)
                want -= len(piece)
                if want == 0:
                    whole = join(held)
                    yield whole
                    held, left = [], left - len(whole.places)
                    want = min(self.config.batch_size, left)

    def _windows(self, epoch: int, skip: int, pool: ThreadPoolExecutor) -> Iterator[tuple[torch.Tensor, Window]]:
        """Yield windows with the order of their rows; the next one is being read meanwhile, into the other's memory."""
        import numpy as np
        import torch

        order = np.random.default_rng([self.config.seed, epoch]).permutation(len(self._blocks))
        counts = self._blocks[order, 3]
        ends = _window_ends(counts, self._window_rows)
        free = [self._window(), self._window()]
        loading: list[tuple[int, int, Window, list[Future[None]]]] = []
        begin = 0
        for number, end in enumerate([*ends, None, None]):
            if len(loading) == 2 or (end is None and loading):
                index, drop, window, futures = loading.pop(0)
                for future in futures:
                    future.result()
                rng = np.random.default_rng([self.config.seed, epoch, index])
                yield torch.from_numpy(rng.permutation(window.fill)[drop:]), window
                free.append(window)
            if end is not None:
                rows = int(counts[begin:end].sum())
                if skip < rows:
                    window = free.pop(0)
                    loading.append((number, skip, window, window.load(self._blocks[order[begin:end]], pool)))
                skip, begin = max(0, skip - rows), end

    def _window(self) -> Window:
        return Window(self.store, self.where, self.sites, min(self._window_rows, self.where.rows))

    def _order_digest(self) -> str:
        """Digest of everything that decides the order."""
        settings = self.config.model_dump(include={"batch_size", "seed", "buffer_mb", "block_kb", "drop_last"})
        return digest_json([self.store.manifest.store, settings, list(self.sites), self._blocks.tolist()])[:16]


def _cut(store: StoredRows, config: ShuffleConfig, where: Selection, width: int) -> NDArray[np.int64]:
    """Cut the chosen rows into blocks: shard, first row, row after the last, chosen rows in it."""
    import numpy as np

    length = max(1, config.block_kb * 1000 // (width * store.item_bytes))
    blocks = []
    for shard, entry in enumerate(store.manifest.shards):
        mask = where.mask(shard, entry.rows)
        for start in range(0, entry.rows, length):
            stop = min(start + length, entry.rows)
            if mask is None:
                blocks.append((shard, start, stop, stop - start))
            elif len(hit := np.flatnonzero(mask[start:stop])):
                blocks.append((shard, start + hit[0], start + hit[-1] + 1, len(hit)))
    return np.array(blocks, np.int64)


def _window_ends(counts: NDArray[np.int64], most: int) -> list[int]:
    """Group blocks in their order into windows of at most so many rows; return where each window ends."""
    ends, held = [], 0
    for i, count in enumerate(counts.tolist()):
        if held and held + count > most:
            ends.append(i)
            held = 0
        held += count
    return [*ends, len(counts)]
