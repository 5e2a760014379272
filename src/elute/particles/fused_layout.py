"""A file of fused embeddings (docs/formats/particles.md): where everything lies in it, and how ids become names.

    /embeddings/{id}/mu          float32[d]; attribute in_sample: whether its network had learnt from the particle
    /embeddings/{id}/mu_oof      float32[d], by the network of the fold that held the particle out; attribute fold
    /embeddings/{id}             attributes: structure_name, run_name, coordinates, …
    /metadata/{id}               the very same group once more: where CryoLens' reader looks for attributes
    /metadata                    attributes of the whole; /metadata/class_names

    /fused/mu, mu_oof [n, d]     the same as whole arrays, where there are very many; and a column each of what is known
    /fused/sample_id [n], by_id  ids, and the order in which they are sorted: how one is found without reading all

HDF5 splits names at `/` and takes `.` for the group itself, so an id that holds such a thing is written as in a web
address (`%2F`); the id itself is then the attribute `sample_id`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import numpy as np
from numpy.typing import NDArray

from elute.base.errors import DataError

if TYPE_CHECKING:
    import polars as pl

SCHEMA = 1
MOST_GROUPS = 100_000
"""Particles up to which each has a group of its own."""
NAMES = "class_names"
TEXTS = {"label": "structure_name", "run": "run_name", "object_name": "object_name"}
"""Columns of text, and the attributes that they are."""
NUMBERS = {"picks_index": np.int64, "point_index": np.int64, "voxel_spacing": np.float64}
PLACE = ("x", "y", "z")
OBJECT_TYPE = "object_type"  # what CryoLens' reader takes the class from
MISSING = np.iinfo(np.int64).min  # a whole number that is not known, in whole arrays
Layout = Literal["auto", "groups", "bulk", "both"]

_WRITTEN = {"%": "%25", "/": "%2F"}
_TAKEN = {".": "%2E", "..": "%2E.", NAMES: f"%{ord(NAMES[0]):02X}{NAMES[1:]}", "": "%"}
_LONGEST = 10_000  # bytes of a name


@dataclass(frozen=True, eq=False)
class FusedPart:
    """Some of a file's particles."""

    particles: pl.DataFrame  # the columns of particles/table.py
    mu: NDArray[np.float32]
    mu_oof: NDArray[np.float32] | None
    fold: NDArray[np.int64] | None
    in_sample: NDArray[np.bool_]  # whether the network of `mu` had learnt from the particle

    def __len__(self) -> int:
        return len(self.mu)


def link_name(sample: str) -> str:
    """Return the name of a particle's group: its id, as HDF5 can have it; two ids never have one name."""
    if sample in _TAKEN:
        return _TAKEN[sample]
    if "\0" in sample:
        raise DataError(f"id {sample!r} holds a NUL, which HDF5 ends texts with", remedy="Give it another id.")
    name = "".join(_WRITTEN.get(letter, letter) for letter in sample)
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise DataError(f"id {sample!r} holds half a character", remedy="Write the ids as UTF-8.") from None
    if size > _LONGEST:
        raise DataError(f"id {sample[:40]!r}… has {size:,} bytes", remedy=f"HDF5 takes names of {_LONGEST:,} at most.")
    return name


def chosen(layout: Layout, n: int) -> tuple[bool, bool]:
    """Whether groups, and whether whole arrays, are written."""
    if layout == "auto":
        return (True, False) if n <= MOST_GROUPS else (False, True)
    return layout in ("groups", "both"), layout in ("bulk", "both")
