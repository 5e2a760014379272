"""Reading the sparse codes of a store's rows: memory-mapped, in order, and never those of something else.

codes = StoredCodes("results/run/codes")
codes.expect(dictionary=digest, store=Store("activations"))
codes.read(0, 1000)                          # Codes of 1000 rows
for part in codes.batches(4096): ...         # Codes of up to 4096 rows
for rows, values in codes.rows_of(42): ...   # where feature 42 fired

A shard's header is compared with the manifest when the shard is opened, and its numbers are read through once before
the first of them is handed out. `verify` reads every byte.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base import console, files
from elute.base.codes import Codes
from elute.base.errors import ConfigError, DamagedError, DataError, GuardError
from elute.store import codes_layout, layout
from elute.store.codes_layout import CodesManifest, StoreRecord

if TYPE_CHECKING:
    import torch
    from torch import Tensor

    from elute.store.rows import StoredRows

_BATCH = 4096


class StoredCodes:
    """Sparse codes on disk, opened for reading: all rows of a store, or those that were chosen, in its order."""

    def __init__(self, folder: Path | str) -> None:
        self.folder = Path(folder)
        self.manifest: CodesManifest = codes_layout.read_manifest(self.folder)
        codes_layout.check_sizes(self.folder, self.manifest)
        self.starts = [0, *accumulate(shard.rows for shard in self.manifest.shards)]
        self._store_starts = [0, *accumulate(self.manifest.store.rows)]
        self._checked: set[int] = set()
        self._mapped: tuple[int, Codes, Tensor | None] | None = None

    @property
    def n_features(self) -> int:
        """The features that a row may name."""
        return self.manifest.n_features

    @property
    def k(self) -> int:
        """The most slots that a row has in any shard."""
        return self.manifest.k

    @property
    def sites(self) -> tuple[str, ...]:
        """The sites that were read to make the codes, in the dictionary's order."""
        return self.manifest.reads

    @property
    def dictionary(self) -> str:
        """The digest of the dictionary that made the codes."""
        return self.manifest.dictionary

    @property
    def selection(self) -> str | None:
        """Which rows of the store were encoded, in words; nothing for all of them."""
        return self.manifest.selection

    @property
    def dtype(self) -> torch.dtype:
        """The number type of the values."""
        return layout.torch_dtype(self.manifest.dtype)

    @property
    def complete(self) -> bool:
        """Whether every shard of the store has been encoded."""
        return self.manifest.complete

    def __len__(self) -> int:
        return self.starts[-1]

    def __repr__(self) -> str:
        told = f"{len(self):,} rows, k={self.k}, {self.n_features} features, {self.manifest.dtype}"
        return f"StoredCodes({str(self.folder)!r}: {told}{'' if self.complete else ', incomplete'})"

    def expect(
        self, *, dictionary: str | None = None, store: StoredRows | None = None, complete: bool = True
    ) -> StoredCodes:
        """Refuse codes of another dictionary or store, or (unless allowed) incomplete ones; returns the codes."""
        changes = []
        if dictionary is not None and dictionary != self.dictionary:
            changes.append(f"they are of dictionary {self.dictionary[:12]}, not {dictionary[:12]}")
        if store is not None:
            changes += self.manifest.store.changes(StoreRecord.of(store, chosen=self.selection is not None))
        if complete and not self.complete:
            changes.append(f"only {len(self.manifest.shards)} of {len(self.manifest.store.rows)} shards are written")
        if changes:
            what = "the codes here are not what was expected: " + "; ".join(changes)
            raise GuardError(what, where=self.folder, remedy="Encode the rows anew, or use what they were made with.")
        return self

    def shard(self, shard: int) -> Codes:
        """Return the codes of one shard, mapped, with as many slots as that shard has."""
        if not 0 <= shard < len(self.manifest.shards):
            raise DataError(f"there is no shard {shard} in {len(self.manifest.shards)}", where=self.folder)
        return self._map(shard)[0]

    def read(self, start: int = 0, stop: int | None = None) -> Codes:
        """Read a range of the encoded rows, with as many slots as its widest shard; one shard is mapped, not copied."""
        import torch

        pieces = [self.shard(shard)[a:b] for shard, a, b in self._pieces(start, stop)]
        if len(pieces) == 1:
            return pieces[0]
        if pieces:
            return Codes.concatenate(pieces)
        nothing = torch.empty(0, self.k)
        return Codes(nothing.to(torch.int32), nothing.to(self.dtype), self.n_features)

    def store_rows(self, start: int = 0, stop: int | None = None) -> Tensor:
        """Return which rows of the store a range of encoded rows are, int64: itself, if every row was encoded."""
        import torch

        parts = [torch.empty(0, dtype=torch.int64)]
        return torch.cat([*parts, *(self._numbers(*piece) for piece in self._pieces(start, stop))])

    def batches(self, size: int = _BATCH) -> Iterator[Codes]:
        """Yield all codes in order, mapped, up to `size` rows at a time; no batch crosses a shard.

        So they keep step with `StoredRows.batches` of the same size and selection.
        """
        if size < 1:
            raise ConfigError(f"a batch has at least one row, not {size}")
        return (codes for _, _, codes in self._batches(size))

    def counts(self) -> Tensor:
        """Return in how many rows each feature fired, int64[n_features], in one pass."""
        import torch

        total = torch.zeros(self.n_features + 1, dtype=torch.int64)
        for codes in self.batches():
            # Empty slots are counted as one feature more: twice as fast as picking out the others.
            named = torch.where(codes.values != 0, codes.indices, self.n_features)
            total += torch.bincount(named.reshape(-1), minlength=self.n_features + 1)
        return total[:-1]

    def frequency(self) -> Tensor:
        """Return the share of encoded rows in which each feature fired, float64[n_features]; 0 of no rows."""
        return self.counts().double() / max(1, len(self))

    def rows_of(self, feature: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield the rows of the store in which a feature fired, ascending, and its values there, piece by piece."""
        if not 0 <= feature < self.n_features:
            raise DataError(f"there is no feature {feature} in {self.n_features} features", where=self.folder)
        return self._rows_of(feature)

    def _rows_of(self, feature: int) -> Iterator[tuple[Tensor, Tensor]]:
        for shard, start, codes in self._batches(_BATCH):
            rows, values = codes.rows_of(feature)
            if len(rows):
                yield self._numbers(shard, start, start + len(codes))[rows], values

    def _batches(self, size: int) -> Iterator[tuple[int, int, Codes]]:
        for shard, entry in enumerate(self.manifest.shards):
            for start in range(0, entry.rows, size):
                yield shard, start, self._map(shard)[0][start : start + size]

    def _numbers(self, shard: int, start: int, stop: int) -> Tensor:
        """The store's numbers of some rows of a shard."""
        import torch

        first, rows = self._store_starts[shard], self._map(shard)[1]
        return torch.arange(first + start, first + stop) if rows is None else rows[start:stop] + first

    def _pieces(self, start: int, stop: int | None) -> Iterator[tuple[int, int, int]]:
        """Cut a range of rows at the shards' borders."""
        start, stop, _ = slice(start, stop).indices(len(self))
        for shard, first in enumerate(self.starts[:-1]):
            a, b = max(start, first), min(stop, self.starts[shard + 1])
            if a < b:
                yield shard, a - first, b - first

    def _map(self, shard: int) -> tuple[Codes, Tensor | None]:
        """Map a shard; its numbers are checked the first time."""
        if self._mapped is None or self._mapped[0] != shard:
            codes, rows = codes_layout.map_shard(self.folder, self.manifest, shard)
            if shard not in self._checked:
                of = self.manifest.store.rows[shard]
                fault = codes_layout.number_fault(codes.indices.numpy(), codes.values.numpy(), self.n_features)
                if not fault and rows is not None:
                    fault = codes_layout.row_fault(rows.numpy(), of)
                if fault:
                    path = codes_layout.shard_path(self.folder, shard)
                    raise DamagedError(fault, where=path, remedy=codes_layout.REMEDY)
                self._checked.add(shard)
            self._mapped = shard, codes, rows
        return self._mapped[1:]


def open_codes(folder: Path | str) -> StoredCodes:
    """Open codes for reading."""
    return StoredCodes(folder)


def verify(folder: Path | str) -> list[dict[str, Any]]:
    """Read every byte of some codes and say of each shard what is wrong with it; an empty list means all is well."""
    path = Path(folder)
    manifest = codes_layout.read_manifest(path)
    owners = {entry.sha256: f"{shard:05d}" for shard, entry in enumerate(manifest.shards)}
    bad: list[dict[str, Any]] = []
    with console.progress("verify", sum(entry.bytes for entry in manifest.shards), unit="bytes") as bar:
        for shard, entry in enumerate(manifest.shards):
            file = codes_layout.shard_path(path, shard)
            fault = codes_layout.size_fault(file, entry.bytes)
            if not fault and (digest := files.digest_file(file, bar.advance)) != entry.sha256:
                owner = owners.get(digest)
                fault = f"holds shard {owner} (swapped)" if owner else "was altered: its digest does not match"
            if fault:
                bad.append({"shard": shard, "file": file.name, "fault": fault})
    return bad
