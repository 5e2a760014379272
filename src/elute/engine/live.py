"""Rows that come straight from a model while it is trained on, instead of from a store, through a bounded buffer.

1. Units (say cells) are cut into blocks of neighbours; each epoch permutes the blocks.
2. A round takes blocks from where the one before has stopped until their rows fill the buffer: each block's data are
   given to the model, and what it says at the sites is kept.
3. The buffer's rows are permuted and handed out in batches; what does not fill one comes first in the next round. At
   the end of an epoch it is left out, or is a smaller batch, as the shuffling's settings say.

The order is a function of the rows, the seed and the sizes alone. A place in it is a round and the batches handed out
of it: a training that goes on there has the model read that round again. What was left of the one before is in its
first batch, which has been handed out. All ends with the same bits if the model gives the same rows again, which on
one machine's CPU it does.

Two rows of one block share a round. Rows that hold NaN or infinity at some site are left out. With several processes
each runs the model on all units: what is spread over them is the dictionary's work.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from elute.base import console
from elute.base.errors import ConfigError, DataError, GuardError
from elute.base.files import digest_json
from elute.store.shuffle import StreamReport
from elute.store.window import Batch

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray
    from torch import Tensor

    from elute.base.contracts import Model, Rows
    from elute.store.shuffle import ShuffleConfig

    Keep = Callable[[pl.DataFrame], NDArray[np.bool_]]

_START = {"epoch": 0, "round": 0, "block": 0, "carried": 0, "emitted": 0, "filled": 0}


class LiveRows:
    """What a model gives for some units; `train` takes it in place of a store's folder."""

    def __init__(
        self,
        model: Model,
        parts: Callable[[Sequence[int]], Any],
        *,
        n_units: int,
        sites: Sequence[str],
        rows: int,
        source: Mapping[str, str],
        buffer_rows: int = 1 << 18,
        block_units: int = 16,
        keep: Keep | None = None,
    ) -> None:
        """Name a model and its data.

        `parts` gives the model's data of some of the units 0 … n_units - 1, which ascend: those to train on alone.
        `rows` is how many rows all of them have, about; `source` names them by digests. `keep` says from a batch's
        metadata which of its rows are meant; `source` must say what it does.
        """
        for name, value in {"n_units": n_units, "buffer_rows": buffer_rows, "block_units": block_units}.items():
            if value < 1:
                raise ConfigError(f"{name} = {value}", where=model.name, remedy="Choose a whole number above 0.")
        self.model, self.parts, self.n_units, self.rows = model, parts, n_units, rows
        self.buffer_rows, self.block_units, self.keep = buffer_rows, block_units, keep
        self.place = f"model {model.name}"
        self._names, self._given = list(sites), dict(source)
        self._fingerprint = model.fingerprint()
        self._warned = False

    @cached_property
    def sites(self) -> dict[str, int]:
        """Each site's width, as the model declares it, else from its first batch."""
        declared = {name: self.model.sites[name].width for name in self._names if name in self.model.sites}
        if len(declared) == len(self._names) and all(declared.values()):
            return declared
        first = next(iter(self.model.batches(self._part(0))), None)
        if first is None:
            raise self._nothing()
        return {name: int(x.shape[-1]) for name, x in self.model.capture(first[0], self._names).items()}

    @property
    def source(self) -> dict[str, Any]:
        """What a dictionary that is trained on them remembers of them."""
        return {"live": self.digest, "model": self._fingerprint.as_json(), "data": self._given}

    @property
    def digest(self) -> str:
        """Which rows they are, and in which portions they come."""
        sizes = [self.n_units, self.rows, self.buffer_rows, self.block_units]
        return digest_json([self._fingerprint.as_json(), self._given, sizes, self._names])

    @property
    def n_blocks(self) -> int:
        """How many blocks the units are cut into."""
        return -(-self.n_units // self.block_units)

    def confirm(self) -> None:
        """Refuse if the model is no longer what it was."""
        if self.model.fingerprint() != self._fingerprint:
            what = "the model's weights changed while a dictionary was trained on its rows"
            raise GuardError(what, where=self.place, remedy="Freeze the model, then train with --anew.")

    def sample(self, rows: int, *, sites: Sequence[str], seed: int) -> dict[str, Tensor]:
        """Return some rows: those of whole blocks drawn at random, until there are enough."""
        buffer, drawn = Buffer({name: self.sites[name] for name in sites}, min(rows, self.rows)), self.order(seed, 0)
        for block in drawn:
            for part in self.captured(int(block), sites):
                buffer.add(part)
            if buffer.fill >= rows:
                break
        if not buffer.fill:
            raise self._nothing()
        return buffer.take(torch.arange(min(rows, buffer.fill)))

    def shuffled(self, config: ShuffleConfig, *, sites: Sequence[str]) -> LiveStream:
        """Stream all rows in a seeded random order; batch, epochs, seed and last batch are the settings' own."""
        return LiveStream(self, config, sites)

    def order(self, seed: int, epoch: int) -> NDArray[np.int64]:
        """The order of the blocks in an epoch."""
        return np.random.default_rng([seed, epoch]).permutation(self.n_blocks)

    def captured(self, block: int, sites: Sequence[str]) -> Iterator[Rows]:
        """Run the model on one block; rows are float32 on the CPU, and finite."""
        for batch, frame in self.model.batches(self._part(block)):
            told = self.model.capture(batch, list(sites))
            rows = {name: x.detach().to("cpu", torch.float32) for name, x in told.items()}
            if wrong := [name for name, x in rows.items() if len(x) != len(frame)]:
                what = f"site {wrong[0]!r} gave {len(rows[wrong[0]])} rows for {len(frame)} rows of metadata"
                raise DataError(what, where=self.place, remedy="Give one metadata row for each kept position.")
            fine = torch.stack([torch.isfinite(x).all(1) for x in rows.values()]).all(0)
            if not self._warned and not bool(fine.all()):
                self._warned = True
                bad = f"{int((~fine).sum()):,} of the {len(fine):,} rows of a batch"
                console.warn(f"{self.place}: {bad} hold NaN or infinity; such rows are left out")
            if self.keep is not None:
                fine &= torch.from_numpy(np.asarray(self.keep(frame), bool))
            yield rows if bool(fine.all()) else {name: x[fine] for name, x in rows.items()}

    def _part(self, block: int) -> Any:
        return self.parts(range(block * self.block_units, min((block + 1) * self.block_units, self.n_units)))

    def _nothing(self) -> DataError:
        return DataError("gave no row", where=self.place, remedy="Check that its input has rows.")


class Buffer:
    """Rows in memory that was asked for once; it grows only where a block brings more than was thought."""

    def __init__(self, sites: Mapping[str, int], rows: int) -> None:
        self._rows = {name: torch.empty(rows, width) for name, width in sites.items()}
        self.fill = 0

    def add(self, rows: Rows) -> None:
        """Take in more rows."""
        n = self.fill + len(next(iter(rows.values())))
        for name, x in rows.items():
            held = self._rows[name]
            if x.shape[1] != held.shape[1]:
                raise DataError(f"site {name!r} gave {x.shape[1]} columns where there were {held.shape[1]}")
            if n > len(held):
                self._rows[name] = torch.empty(n + n // 8, held.shape[1])
                self._rows[name][: self.fill] = held[: self.fill]
            self._rows[name][self.fill : n] = x
        self.fill = n

    def take(self, places: Tensor) -> Rows:
        """Copy some rows out."""
        return {name: torch.index_select(x, 0, places) for name, x in self._rows.items()}


class LiveStream:
    """Iterate to get batches; `state()` in the middle of a round is where `load_state` goes on."""

    def __init__(self, live: LiveRows, config: ShuffleConfig, sites: Sequence[str]) -> None:
        self.live, self.config, self.names = live, config, list(sites)
        self.most = max(live.buffer_rows, config.batch_size)  # so that what is left of a round is less than it
        self.report = StreamReport()
        self.making = (0.0, 0)  # seconds in which rows were made, and how many
        self._place = dict(_START)

    def state(self) -> dict[str, Any]:
        """Return the place after the last batch handed out, as JSON."""
        return {**self._place, "order": self._order_digest()}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a place; a state of other rows, seed or sizes is refused."""
        if state["order"] != self._order_digest():
            what = "this stream's order differs from the one that was interrupted"
            remedy = "Resume with the same model, data, seed, batch size and buffer; or start anew."
            raise ConfigError(what, where=self.live.place, remedy=remedy)
        self._place = {name: int(state[name]) for name in _START}

    def __iter__(self) -> Iterator[Batch]:
        """Hand out batches from the current place on."""
        config, place = self.config, dict(self._place)
        block_rows = -(-self.live.rows * self.live.block_units // self.live.n_units)
        widths = {name: self.live.sites[name] for name in self.names}
        buffer = Buffer(widths, min(self.most, self.live.rows) + block_rows)
        held = buffer.take(torch.arange(0))
        while config.epochs is None or place["epoch"] < config.epochs:
            stop = self._fill(buffer, place["epoch"], place["block"])
            if place["emitted"] and place["filled"] != buffer.fill:
                what = f"the model gave {buffer.fill:,} rows where it had given {place['filled']:,}"
                raise DataError(what, where=self.live.place, remedy="Start anew.")
            place["filled"], last = buffer.fill, stop == self.live.n_blocks
            order = self._order(place["epoch"], place["round"], buffer)
            rest = yield from self._round(buffer, order, held, place=place, last=last)
            if last:
                place = {**_START, "epoch": place["epoch"] + 1}
            else:
                place |= {"round": place["round"] + 1, "block": stop, "carried": rest, "emitted": 0, "filled": 0}
            held = buffer.take(order[len(order) - place["carried"] :])

    def _round(
        self, buffer: Buffer, order: Tensor, held: Rows, *, place: dict[str, int], last: bool
    ) -> Generator[Batch, None, int]:
        """Hand out a round's batches, what was left of the one before first; return how many rows are left."""
        size, carried = self.config.batch_size, place["carried"]
        total = carried + buffer.fill
        number, rest = divmod(total, size)
        if last and place["round"] == 0 and (total == 0 or (number == 0 and self.config.drop_last)):
            what = f"{total:,} rows do not fill one batch of {size:,}"
            raise ConfigError(what, where=self.live.place, remedy="Make the batch smaller, or give more data.")
        asked = time.perf_counter()
        for i in range(place["emitted"], number + int(last and rest > 0 and not self.config.drop_last)):
            begin, end = max(0, i * size - carried), min(total, (i + 1) * size) - carried
            rows = buffer.take(order[begin:end])
            if i * size < carried:
                rows = {name: torch.cat([held[name], x]) for name, x in rows.items()}
            n = len(next(iter(rows.values())))
            self._place = {**place, "emitted": i + 1}
            self.report.rows += n
            yield Batch(rows, torch.full((n,), -1))  # they lie nowhere
        self.report.elapsed_s += time.perf_counter() - asked
        return rest

    def _fill(self, buffer: Buffer, epoch: int, block: int) -> int:
        """Fill the buffer with the rows of an epoch's blocks from one on; return the one that comes next."""
        asked, buffer.fill = time.perf_counter(), 0
        order = self.live.order(self.config.seed, epoch)
        while block < len(order) and buffer.fill < self.most:
            for rows in self.live.captured(int(order[block]), self.names):
                buffer.add(rows)
            block += 1
        seconds = time.perf_counter() - asked
        if self.making[1]:
            self.report.stall_s += seconds
            self.report.elapsed_s += seconds
        else:
            self.report.first_wait_s += seconds
        self.making = (self.making[0] + seconds, self.making[1] + buffer.fill)
        return block

    def _order(self, epoch: int, number: int, buffer: Buffer) -> Tensor:
        """The order of a round's rows."""
        rng = np.random.default_rng([self.config.seed, epoch, number])
        return torch.from_numpy(rng.permutation(buffer.fill))

    def _order_digest(self) -> str:
        """Digest of everything that decides the order."""
        settings = self.config.model_dump(include={"batch_size", "seed", "drop_last"})
        return digest_json([self.live.digest, settings, self.names])[:16]
