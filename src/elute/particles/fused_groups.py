"""A group a particle, made and read by HDF5's own calls: through h5py's objects both take some four times as long."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from elute.particles.fused_layout import NUMBERS, OBJECT_TYPE, PLACE, TEXTS, FusedPart, link_name
from elute.particles.table import particle_frame

if TYPE_CHECKING:
    import h5py
    import polars as pl

_WHOLE: np.dtype[Any] = np.dtype(np.int64)
_REAL: np.dtype[Any] = np.dtype(np.float64)
_SINGLE: np.dtype[Any] = np.dtype(np.float32)
_SMALL = 1 << 14  # bytes


class GroupWriter:
    """Writes particles into /embeddings, and links them into /metadata."""

    def __init__(self, file: h5py.File) -> None:
        import h5py
        from h5py import h5d, h5p, h5s, h5t

        self.embeddings, self.metadata = file["embeddings"].id, file["metadata"].id
        self.string = h5py.string_dtype()
        self.text = h5t.py_create(self.string, logical=True)
        self.kinds: dict[np.dtype[Any], Any] = {kind: h5t.py_create(kind) for kind in (_WHOLE, _REAL, _SINGLE)}
        self.one, self.three = h5s.create(h5s.SCALAR), h5s.create_simple((3,))
        self.named = h5p.create(h5p.LINK_CREATE)
        self.named.set_char_encoding(h5t.CSET_UTF8)
        self.group = h5p.create(h5p.GROUP_CREATE)
        self.group.set_obj_track_times(False)
        self.small, self.large = (h5p.create(h5p.DATASET_CREATE) for _ in range(2))
        for kind in (self.small, self.large):
            kind.set_obj_track_times(False)
        self.small.set_layout(h5d.COMPACT)  # within the object itself, where a vector is small

    def put(
        self,
        particles: pl.DataFrame,
        mu: NDArray[np.float32],
        oof: NDArray[np.float32] | None,
        *,
        fold: NDArray[np.int64] | None,
        in_sample: NDArray[np.bool_],
    ) -> None:
        """Write some particles."""
        from h5py import h5g

        for i, row in enumerate(particles.iter_rows(named=True)):
            name = link_name(row["id"])
            link = name.encode()
            group = h5g.create(self.embeddings, link, self.named, self.group)
            self._vector(group, b"mu", mu[i], in_sample=int(in_sample[i]))
            if oof is not None:
                made = self._vector(group, b"mu_oof", oof[i], in_sample=0)
                if fold is not None:
                    self._attribute(made, "fold", int(fold[i]))
            self._told(group, row, renamed=name != row["id"])
            self.metadata.links.create_hard(link, self.embeddings, link, self.named)

    def _vector(self, group: Any, name: bytes, x: NDArray[np.float32], *, in_sample: int) -> Any:
        from h5py import h5d, h5s

        how = self.small if x.nbytes <= _SMALL else self.large
        made = h5d.create(group, name, self.kinds[_SINGLE], h5s.create_simple(x.shape), how)
        made.write(h5s.ALL, h5s.ALL, np.ascontiguousarray(x))
        self._attribute(made, "in_sample", in_sample)
        return made

    def _told(self, group: Any, row: dict[str, Any], *, renamed: bool) -> None:
        """Write what is known of a particle."""
        if renamed:
            self._attribute(group, "sample_id", row["id"])
        for column, name in TEXTS.items():
            self._attribute(group, name, row[column])
        self._attribute(group, OBJECT_TYPE, row["label"])
        for column in NUMBERS:
            self._attribute(group, column, row[column])
        place = [row[axis] for axis in PLACE]
        if any(value is not None for value in place):
            from h5py import h5a

            held = np.array([np.nan if value is None else value for value in place])
            h5a.create(group, b"coordinates", self.kinds[_REAL], self.three).write(held)

    def _attribute(self, at: Any, name: str, value: Any) -> None:
        """Write one attribute; what is not known is left out."""
        from h5py import h5a

        if value is None:
            return
        if isinstance(value, str):
            h5a.create(at, name.encode(), self.text, self.one).write(np.array(value, dtype=self.string))
            return
        held = np.array(value, dtype=_REAL if isinstance(value, float) else _WHOLE)
        h5a.create(at, name.encode(), self.kinds[held.dtype], self.one).write(held)


class GroupReader:
    """Reads particles from /embeddings; what is of another kind or shape than it should be raises a ValueError."""

    def __init__(self, file: h5py.File, width: int) -> None:
        import h5py
        from h5py import h5t

        self.embeddings, self.width = file["embeddings"].id, width
        self.string = h5py.string_dtype()
        self.text = h5t.py_create(self.string)

    def __contains__(self, name: str) -> bool:
        return bool(self.embeddings.links.exists(name.encode()))

    def read(self, names: Sequence[str]) -> FusedPart:
        """Read the particles of these groups."""
        from h5py import h5g

        columns: dict[str, list[Any]] = {name: [] for name in ("id", *TEXTS, *NUMBERS, *PLACE)}
        mu = np.empty((len(names), self.width), np.float32)
        oof, fold = np.empty_like(mu), np.full(len(names), -1)
        in_sample = np.ones(len(names), bool)
        held_out = 0
        for i, name in enumerate(names):
            group = h5g.open(self.embeddings, name.encode())
            own = self._vector(group, b"mu", mu[i])
            in_sample[i] = self._number(own, "in_sample", np.int64, 1) != 0
            if group.links.exists(b"mu_oof"):
                fold[i] = self._number(self._vector(group, b"mu_oof", oof[i]), "fold", np.int64, -1)
                held_out += 1
            told = self._word(group, "sample_id")
            columns["id"].append(name if told is None else told)
            for column, attribute in TEXTS.items():
                columns[column].append(self._word(group, attribute))
            for column, kind in NUMBERS.items():
                columns[column].append(self._number(group, column, kind))
            for axis, value in zip(PLACE, self._place(group), strict=True):
                columns[axis].append(value)
        some = held_out == len(names) and held_out > 0
        frame = particle_frame(columns, len(names))
        return FusedPart(frame, mu, oof if some else None, fold if some else None, in_sample)

    def _vector(self, group: Any, name: bytes, into: NDArray[np.float32]) -> Any:
        from h5py import h5d, h5s

        found = h5d.open(group, name)
        if found.shape != (self.width,):  # HDF5 itself would write on behind the end
            raise ValueError(f"a vector of shape {list(found.shape)} where {self.width} numbers are expected")
        found.read(h5s.ALL, h5s.ALL, into)
        return found

    def _word(self, at: Any, name: str) -> str | None:
        from h5py import h5a

        if not h5a.exists(at, name.encode()):
            return None
        held = np.empty((), dtype=self.string)
        h5a.open(at, name.encode()).read(held, self.text)
        value = held.item()
        return value.decode() if isinstance(value, bytes) else str(value)

    def _number(self, at: Any, name: str, kind: Any, missing: Any = None) -> Any:
        from h5py import h5a

        if not h5a.exists(at, name.encode()):
            return missing
        held = np.empty((), dtype=kind)
        h5a.open(at, name.encode()).read(held)
        return held.item()

    def _place(self, at: Any) -> list[float | None]:
        from h5py import h5a

        if not h5a.exists(at, b"coordinates"):
            return [None, None, None]
        held = np.empty(3)
        h5a.open(at, b"coordinates").read(held)
        return [None if np.isnan(value) else float(value) for value in held]
