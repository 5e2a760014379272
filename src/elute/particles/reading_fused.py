"""Reading files of fused embeddings, a piece at a time: what was written comes back as it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from elute.base.errors import DamagedError, DataError, VersionError
from elute.particles.fused_groups import GroupReader
from elute.particles.fused_layout import MISSING, NAMES, NUMBERS, PLACE, SCHEMA, TEXTS, FusedPart, link_name
from elute.particles.table import particle_frame

if TYPE_CHECKING:
    import h5py

PIECE = 8192
_AGAIN = "Write it anew, or restore it from a copy."
_UNREADABLE = (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError, IndexError, UnicodeDecodeError)


class FusedFile:
    """A file of fused embeddings."""

    def __init__(self, path: Path | str) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise DataError("there is no such file", where=self.path, remedy="Check the path.")
        with self._open() as file:
            metadata = file.get("metadata")
            if metadata is None or "n_samples" not in metadata.attrs or NAMES not in metadata:
                raise DataError("is no file of fused embeddings", where=self.path,
                                remedy="evaluate_classification writes one with --save-fused-embeddings.")  # fmt: skip
            self.told: dict[str, Any] = {name: _plain(value) for name, value in metadata.attrs.items()}
            if self.told.get("schema", SCHEMA) > SCHEMA:
                raise VersionError("was written by a newer elute", where=self.path, remedy="Update elute.")
            self.classes = [name.decode() for name in metadata[NAMES][:].tolist()]
            self.bulk = "fused" in file
            self.n = int(self.told["n_samples"])
            self.width = int(self.told["embedding_dim"])

    def __len__(self) -> int:
        return self.n

    def parts(self, rows: int = PIECE) -> Iterator[FusedPart]:
        """Yield all particles in their order."""
        if self.bulk:
            for start in range(0, self.n, rows):
                with self._open() as file:
                    part = _bulk_rows(file["fused"], slice(start, min(start + rows, self.n)))
                yield part
            return
        with self._open() as file:
            if len(file["embeddings"]) != self.n:
                held = f"holds {len(file['embeddings']):,} particles where it names {self.n:,}"
                raise DamagedError(held, where=self.path, remedy=_AGAIN)
            reader, names = GroupReader(file, self.width), iter(file["embeddings"])
            while some := list(islice(names, rows)):
                yield reader.read(some)

    def read(self) -> FusedPart:
        """Read all particles at once."""
        import polars as pl

        parts = list(self.parts())
        oof = [part.mu_oof for part in parts if part.mu_oof is not None]
        fold = [part.fold for part in parts if part.fold is not None]
        return FusedPart(
            pl.concat([part.particles for part in parts]),
            np.concatenate([part.mu for part in parts]),
            np.concatenate(oof) if len(oof) == len(parts) else None,
            np.concatenate(fold) if len(fold) == len(parts) else None,
            np.concatenate([part.in_sample for part in parts]),
        )

    def find(self, ids: Sequence[str]) -> FusedPart:
        """Read some particles by their ids, in that order."""
        with self._open() as file:
            if not self.bulk:
                reader, names = GroupReader(file, self.width), [link_name(sample) for sample in ids]
                for sample, name in zip(ids, names, strict=True):
                    if name not in reader:
                        raise DataError(f"holds no particle {sample!r}", where=self.path)
                return reader.read(names)
            return _bulk_rows(file["fused"], [self._place(file["fused"], sample) for sample in ids])

    def _place(self, group: h5py.Group, sample: str) -> int:
        """Find a row by bisection: some twenty reads among a million."""
        wanted, low, high = sample.encode(), 0, self.n
        while low < high:
            middle = (low + high) // 2
            row = int(group["by_id"][middle])
            held = group["sample_id"][row]
            if held == wanted:
                return row
            low, high = (middle + 1, high) if held < wanted else (low, middle)
        raise DataError(f"holds no particle {sample!r}", where=self.path)

    @contextmanager
    def _open(self) -> Iterator[h5py.File]:
        import h5py

        try:
            with h5py.File(self.path) as file:
                yield file
        except _UNREADABLE as error:
            first = (str(error).splitlines() or [""])[0][:120]
            raise DamagedError(f"is not a whole HDF5 file of fused embeddings ({first})", where=self.path,
                               remedy=_AGAIN) from None  # fmt: skip


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode()
    return value.item() if isinstance(value, np.generic) else value


def _bulk_rows(group: h5py.Group, rows: slice | list[int]) -> FusedPart:
    """Read rows of whole arrays."""
    import polars as pl

    def taken(name: str) -> Any:
        if isinstance(rows, slice):
            return group[name][rows]
        order = np.unique(rows)  # HDF5 reads rows in rising order alone
        return group[name][order][np.searchsorted(order, rows)]

    columns: dict[str, Any] = {"id": [value.decode() for value in taken("sample_id")]}
    for column in TEXTS:
        if column in group:
            words = [None, *(word.decode() for word in group[f"{column}_words"][:])]
            columns[column] = [words[code + 1] for code in taken(column).tolist()]
    for column in NUMBERS:
        if column in group:
            held = pl.Series(taken(column))
            columns[column] = held.replace(MISSING, None) if held.dtype == pl.Int64 else held.fill_nan(None)
    if "coordinates" in group:
        columns |= dict(zip(PLACE, taken("coordinates").T, strict=True))
    n = len(columns["id"])
    return FusedPart(
        particle_frame(columns, n), taken("mu"), taken("mu_oof") if "mu_oof" in group else None,
        taken("fold").astype(np.int64) if "fold" in group else None,
        taken("in_sample") != 0 if "in_sample" in group else np.ones(n, bool),
    )  # fmt: skip
