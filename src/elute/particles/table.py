"""Particles as one form, whatever file they came from: what is known about each, and a vector of numbers.

`particles` is a table with a row a particle and always these columns, empty where nothing is known:

    id              String    as the file gives it; null in every row where it gives none
    label           String    the particle's class
    run             String    the tomogram that it was picked in
    x, y, z         Float64   where it lies, in ångström
    voxel_spacing   Float64   ångström a voxel
    object_name     String    as the file calls the class, before names are brought into one form
    picks_index     Int64     which set of picks, and which point of it
    point_index     Int64

`Joined` is what pairing two or more of them gives (joining.py): the same particle in the same row of every source.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from elute.base.errors import DataError

if TYPE_CHECKING:
    import polars as pl

Vectors = NDArray[np.float32]
Ints = NDArray[np.int64]
Pairing = Literal["id", "run and coordinates", "label"]

TEXT = ("id", "label", "run", "object_name")
COLUMNS = ("id", "label", "run", "x", "y", "z", "voxel_spacing", "object_name", "picks_index", "point_index")
PLACE = ("x", "y", "z")
NOT_EVIDENCE = "label-paired: not evidence"


@dataclass(frozen=True, eq=False)
class ParticleTable:
    """The particles of one source."""

    name: str
    particles: pl.DataFrame  # COLUMNS
    vectors: Vectors  # [n, width], perhaps mapped from the disk
    digest: str = ""  # of the files that it was read from
    notes: tuple[str, ...] = ()  # what a reader has to know: rows dropped, columns left out

    def __len__(self) -> int:
        return len(self.vectors)

    @property
    def width(self) -> int:
        """Numbers of one vector."""
        return int(self.vectors.shape[1])

    def has(self, *columns: str) -> bool:
        """Whether these are known for every particle."""
        return len(self) > 0 and all(self.particles[name].null_count() == 0 for name in columns)


@dataclass(frozen=True, eq=False)
class Joined:
    """Several sources whose rows are the same particles, in the same order."""

    names: tuple[str, ...]  # of the sources; the first is the one that a gain is measured against
    vectors: tuple[Vectors, ...]  # [n, width] each
    particles: pl.DataFrame  # COLUMNS; ids are always there: sample_0, sample_1, … where no source gives any
    pairing: Pairing
    counts: dict[str, Any] = field(default_factory=dict)  # what was matched, and what was not (joining.py)
    digests: dict[str, str] = field(default_factory=dict)  # of each source's files
    notes: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.particles)

    @property
    def evidence(self) -> bool:
        """Whether a gain of fusion says anything: not where rows of one class were paired at random."""
        return self.pairing != "label"

    @property
    def mark(self) -> str | None:
        """What every output has to say of itself, if anything."""
        return None if self.evidence else NOT_EVIDENCE

    @property
    def widths(self) -> tuple[int, ...]:
        """The width of each source's vectors."""
        return tuple(int(x.shape[1]) for x in self.vectors)

    @cached_property
    def classes(self) -> tuple[str, ...]:
        """The names of the classes, sorted."""
        return tuple(sorted(self.particles["label"].unique().to_list()))

    @cached_property
    def codes(self) -> Ints:
        """The number of each particle's class in `classes`."""
        place = {name: i for i, name in enumerate(self.classes)}
        return np.fromiter((place[label] for label in self.particles["label"]), dtype=np.int64, count=len(self))

    @property
    def runs(self) -> list[str] | None:
        """The run of each particle; nothing where some have none."""
        column = self.particles["run"]
        return None if column.null_count() else column.to_list()

    def only(self, rows: Ints) -> Joined:
        """Return some of the particles."""
        vectors = tuple(np.ascontiguousarray(x[rows]) for x in self.vectors)
        return replace(self, vectors=vectors, particles=self.particles[rows.tolist()])


def particle_frame(columns: Mapping[str, Any], n: int) -> pl.DataFrame:
    """Return the table of n particles from the columns that are known; the others are empty."""
    import polars as pl

    kinds: dict[str, Any] = dict.fromkeys(COLUMNS, pl.Float64()) | dict.fromkeys(TEXT, pl.String())
    kinds |= {"picks_index": pl.Int64(), "point_index": pl.Int64()}
    made = []
    for name, kind in kinds.items():
        given = columns.get(name)
        made.append(pl.Series(name, [None] * n, kind) if given is None else pl.Series(name, given).cast(kind))
    frame = pl.DataFrame(made)
    return frame.with_columns(pl.col(pl.Float64).fill_nan(None))


def source_table(
    name: str,
    vectors: NDArray[Any],
    columns: Mapping[str, Any],
    *,
    digest: str = "",
    notes: tuple[str, ...] = (),
    where: object = None,
) -> ParticleTable:
    """Return a source from arrays and columns, checked: finite numbers, no id given twice."""
    place = where if where is not None else name
    if vectors.ndim != 2 or not len(vectors) or not vectors.shape[1]:
        raise DataError(f"has the shape {[*vectors.shape]}, not [particles, width]", where=place,
                        remedy="Give one vector of numbers a particle.")  # fmt: skip
    _refuse_nan(vectors, place)
    frame = particle_frame(columns, len(vectors))
    if 0 < frame["id"].null_count() < len(frame):
        raise DataError("some particles have no id", where=place, remedy="Give every particle one, or none.")
    if not frame["id"].null_count() and frame["id"].n_unique() < len(frame):
        twice = frame["id"].filter(frame["id"].is_duplicated())[0]
        raise DataError(f"id {twice!r} is given twice", where=place, remedy="Give each particle an id of its own.")
    return ParticleTable(name, frame, np.asarray(vectors, dtype=np.float32), digest, notes)


_AT_ONCE = 1 << 16


def _refuse_nan(vectors: NDArray[Any], place: object) -> None:
    """Name the first row that holds no numbers, in pieces: the vectors may lie on the disk."""
    bad, first = 0, -1
    for start in range(0, len(vectors), _AT_ONCE):
        rows = ~np.isfinite(vectors[start : start + _AT_ONCE]).all(axis=1)
        if rows.any() and first < 0:
            first = start + int(rows.argmax())
        bad += int(rows.sum())
    if bad:
        raise DataError(f"{bad:,} of {len(vectors):,} vectors hold NaN or infinity, the first in row {first}",
                        where=place, remedy="Drop those particles, or compute their vectors anew.")  # fmt: skip
