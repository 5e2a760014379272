"""Reading a store: memory-mapped, in order, by rows, split, group or sample; or shuffled (see shuffle.py).

store = Store("activations")
store.read(0, 1000)                          # {site: [1000, width] tensor}
for rows, metadata in store.batches(4096, where=store.select(split="train")): ...
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

from elute.base.contracts import Rows
from elute.base.errors import ConfigError, DataError, near
from elute.store import checks, layout, settle

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    import torch
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Selection:
    """Rows of a store: a packed bit a row and shard, or nothing for every row of it."""

    rows: int
    bits: tuple[NDArray[np.uint8] | None, ...]
    counts: tuple[int, ...]
    words: str

    def mask(self, shard: int, rows: int) -> NDArray[np.bool_] | None:
        """Return which rows of a shard are meant; nothing means all."""
        import numpy as np

        bits = self.bits[shard]
        return None if bits is None else np.unpackbits(bits, count=rows).astype(bool)


class StoredRows:
    """The rows of a store, in the order in which they were written."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.manifest = settle.for_reading(self.folder)
        self.starts = [0]
        for entry in self.manifest.shards:
            self.starts.append(self.starts[-1] + entry.rows)
        self._spans: dict[int, dict[str, int]] = {}
        self._mapped: tuple[int, dict[str, torch.Tensor]] | None = None
        self._check_groups()

    @property
    def sites(self) -> dict[str, int]:
        """Each site's width."""
        return dict(self.manifest.sites)

    @property
    def item_bytes(self) -> int:
        """Bytes of one number."""
        return layout.ITEM_BYTES[self.manifest.dtype]

    @property
    def complete(self) -> bool:
        """Whether the writer had come to its end."""
        return self.manifest.complete

    @cached_property
    def everything(self) -> Selection:
        """Every row."""
        counts = tuple(entry.rows for entry in self.manifest.shards)
        return Selection(len(self), (None,) * len(counts), counts, "all rows")

    def __len__(self) -> int:
        return self.starts[-1]

    def __repr__(self) -> str:
        sites = ", ".join(f"{name} × {width}" for name, width in self.sites.items())
        return f"{type(self).__name__}({str(self.folder)!r}: {len(self):,} rows of {sites}, {self.manifest.dtype})"

    def read(self, start: int = 0, stop: int | None = None, *, sites: Sequence[str] | None = None) -> Rows:
        """Read a range of rows; within one shard the tensors are mapped, not copied."""
        import torch

        names = self.known_sites(sites)
        start, stop, _ = slice(start, stop).indices(len(self))
        pieces = [
            {name: self._map(shard)[name][a:b] for name in names}
            for shard, a, b in self._pieces(start, max(start, stop))
        ]
        if len(pieces) == 1:
            return pieces[0]
        empty = {
            name: torch.empty(0, self.sites[name], dtype=layout.torch_dtype(self.manifest.dtype)) for name in names
        }
        return {name: torch.cat([empty[name], *(piece[name] for piece in pieces)]) for name in names}

    def metadata(
        self, start: int = 0, stop: int | None = None, *, columns: Sequence[str] | None = None
    ) -> pl.DataFrame:
        """Read the metadata of a range of rows."""
        import polars as pl

        names = self._columns(columns)
        start, stop, _ = slice(start, stop).indices(len(self))
        frames = [
            settle.read_metadata(self.folder, self.manifest, shard, columns=names)[a:b]
            for shard, a, b in self._pieces(start, max(start, stop))
        ]
        schema = {name: layout.polars_type(self.manifest.columns[name]) for name in names}
        return pl.concat([pl.DataFrame(schema=schema), *frames])

    def select(
        self,
        *,
        split: str | Sequence[str] | None = None,
        group: str | Sequence[str] | None = None,
        sample: str | Sequence[str] | None = None,
    ) -> Selection:
        """Choose rows by split, group and sample; a name that no row has is an error with the nearest ones."""
        import numpy as np

        asked = {"split": split, "group": group, "sample_id": sample}
        wanted = {c: [v] if isinstance(v, str) else list(v) for c, v in asked.items() if v is not None}
        if not wanted:
            return self.everything
        names = self._columns(list(wanted))
        met: dict[str, set[str]] = {c: set() for c in names}
        bits: list[NDArray[np.uint8] | None] = []
        counts = []
        for shard, entry in enumerate(self.manifest.shards):
            frame = settle.read_metadata(self.folder, self.manifest, shard, columns=names)
            mask = np.ones(entry.rows, bool)
            for column, values in wanted.items():
                hit = frame[column].is_in(values).fill_null(value=False)
                met[column].update(frame[column].filter(hit).unique())
                mask &= hit.to_numpy()
            counts.append(int(mask.sum()))
            bits.append(None if counts[-1] == entry.rows else np.packbits(mask))
        for column, values in wanted.items():
            if lost := [v for v in values if v not in met[column]]:
                known = self.metadata(columns=[column])[column].drop_nulls().unique().to_list()
                raise DataError(f"no row has {column} {lost[0]!r}", where=self.folder, remedy=near(lost[0], known))
        words = ", ".join(f"{column} {' or '.join(values[:3])}" for column, values in wanted.items())
        return Selection(sum(counts), tuple(bits), tuple(counts), words)

    def batches(
        self,
        size: int = 4096,
        *,
        where: Selection | None = None,
        sites: Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
    ) -> Iterator[tuple[Rows, pl.DataFrame]]:
        """Yield rows with their metadata in order, up to `size` at a time; no batch crosses a shard."""
        import numpy as np

        if size < 1:
            raise ConfigError(f"a batch has at least one row, not {size}")
        names, kept, chosen = self.known_sites(sites), self._columns(columns), where or self.everything
        for shard, entry in enumerate(self.manifest.shards):
            if not chosen.counts[shard]:
                continue
            frame = settle.read_metadata(self.folder, self.manifest, shard, columns=kept)
            mask = chosen.mask(shard, entry.rows)
            places = None if mask is None else np.flatnonzero(mask)
            for start in range(0, chosen.counts[shard], size):
                index = slice(start, start + size) if places is None else places[start : start + size]
                yield {name: self._map(shard)[name][index] for name in names}, frame[index]

    def spans(self, shard: int) -> dict[str, int]:
        """Where each site's numbers begin in a shard's file, checked once."""
        if shard not in self._spans:
            self._spans[shard] = settle.tensor_spans(self.folder, self.manifest, shard)
        return self._spans[shard]

    def _map(self, shard: int) -> dict[str, torch.Tensor]:
        if self._mapped is None or self._mapped[0] != shard:
            self._mapped = shard, settle.read_tensors(self.folder, self.manifest, shard)
        return self._mapped[1]

    def _pieces(self, start: int, stop: int) -> Iterator[tuple[int, int, int]]:
        """Cut a range of rows at the shards' borders."""
        for shard, first in enumerate(self.starts[:-1]):
            a, b = max(start, first), min(stop, self.starts[shard + 1])
            if a < b:
                yield shard, a - first, b - first

    def known_sites(self, asked: Sequence[str] | None) -> list[str]:
        """Return the sites asked for, or all; one that is not there is an error with the nearest names."""
        names = list(self.manifest.sites) if asked is None else list(asked)
        for name in names:
            if name not in self.manifest.sites:
                raise DataError(f"there is no site {name!r}", where=self.folder, remedy=near(name, self.manifest.sites))
        return names

    def _columns(self, asked: Sequence[str] | None) -> list[str]:
        names = list(self.manifest.columns) if asked is None else list(asked)
        for name in names:
            if name not in self.manifest.columns:
                known = self.manifest.columns
                raise DataError(f"the rows have no column {name!r}", where=self.folder, remedy=near(name, known))
        return names

    def _check_groups(self) -> None:
        """Refuse a store in which the rows of one group fall in two splits."""
        known: dict[str, str] = {}
        if "split" in self.manifest.columns:
            columns = [c for c in ("group", "split") if c in self.manifest.columns]
            for shard in range(len(self.manifest.shards)):
                frame = settle.read_metadata(self.folder, self.manifest, shard, columns=columns)
                checks.groups(frame, known, self.folder)
