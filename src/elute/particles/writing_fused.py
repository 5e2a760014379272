"""Writing fused embeddings to HDF5, as docs/formats/particles.md says, in bounded memory.

Vectors come in pieces and are not kept. Groups are made with HDF5's own calls and not through h5py's objects, which
would take four times as long; no object bears a time, so that the same content is the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from elute.base import console, files
from elute.base.errors import ConfigError, DataError
from elute.base.run import Artifact
from elute.particles.fused_groups import GroupWriter
from elute.particles.fused_layout import MISSING, NAMES, NUMBERS, PLACE, SCHEMA, TEXTS, Layout, chosen

if TYPE_CHECKING:
    import h5py
    import polars as pl

Piece = tuple[NDArray[np.float32], NDArray[np.float32] | None]
"""Vectors of some particles, one after another: in-sample, and out-of-fold where there are any."""
PIECE = 8192
_CHUNK = 1024  # rows of a chunk on the disk
_IN_SAMPLE = (
    "in-sample where its in_sample is 1: the network had been fitted to that particle's class; judge nothing by it"
)
_OOF = "out-of-fold: each by a network that had not seen the particle; what later evaluation should use"


def write_fused(
    path: Path | str,
    particles: pl.DataFrame,
    vectors: Iterable[Piece],
    *,
    told: Mapping[str, Any],
    classes: Iterable[str],
    width: int,
    fold: NDArray[np.int64] | None = None,
    in_sample: NDArray[np.bool_] | None = None,
    layout: Layout = "auto",
) -> Artifact:
    """Write fused vectors; a file that is there and was made of the very same is used as it is.

    `particles` has the columns of particles/table.py, with ids; `told` are attributes of the whole. What a file was
    made of is `told["made_of"]`; any other file of that name is refused. `in_sample` says of which particles the
    network has learnt: all, if it is not given.
    """
    path, n = Path(path), len(particles)
    _check(particles, fold, path)
    if not free(path, str(told.get("made_of", ""))):
        return Artifact("fused", path, {"n_samples": n, "embedding_dim": width, "reused": True})
    groups, bulk = chosen(layout, n)
    seen = np.ones(n, bool) if in_sample is None else np.asarray(in_sample, bool)
    files.make_folder(path.parent)

    def fill(handle: Any) -> None:
        with _file(handle.name) as file:
            _describe(file, told, classes, n=n, width=width, oof=fold is not None, groups=groups)
            whole = _Whole(file, particles, width=width, fold=fold, in_sample=seen) if bulk else None
            each = GroupWriter(file) if groups else None
            with console.progress(f"write {path.name}", n, unit="particles") as bar:
                for start, part, oof in _pieces(vectors, n, width, path):
                    if whole is not None:
                        whole.put(start, part, oof)
                    if each is not None:
                        at = slice(start, start + len(part))
                        here = None if fold is None else fold[at]
                        each.put(particles[at], part, oof, fold=here, in_sample=seen[at])
                    bar.advance(len(part))

    files.write_atomically(path, fill)
    kind = "both" if groups and bulk else "groups" if groups else "bulk"
    return Artifact("fused", path, {"n_samples": n, "embedding_dim": width, "layout": kind, "reused": False})


def free(path: Path, made_of: str) -> bool:
    """Whether a file is still to be written: not if it is there already; any other file of its name is refused."""
    if not path.exists():
        return True
    if made_of and already(path) == made_of:
        console.say(f"{path}: made of these particles and settings already, used as it is")
        return False
    raise ConfigError("there is a file already", where=path, remedy="Give another name, or delete that file.")


def already(path: Path) -> str | None:
    """Return what a file of fused embeddings was made of; nothing of any other file."""
    import h5py

    try:
        with h5py.File(path) as file:
            value = file["metadata"].attrs.get("made_of")
    except (OSError, KeyError, AttributeError, RuntimeError):
        return None
    return None if value is None else str(value)


@contextmanager
def _file(name: str) -> Iterator[h5py.File]:
    import h5py

    # Groups as HDF5 1.8 has them take half the room of older ones, and every reader of today knows them.
    with h5py.File(name, "w", libver=("v108", "v110")) as file:
        yield file


def _check(particles: pl.DataFrame, fold: NDArray[np.int64] | None, path: Path) -> None:
    ids = particles["id"]
    if ids.null_count() or ids.n_unique() < len(ids):
        raise DataError("ids are missing or given twice", where=path, remedy="Give each particle an id of its own.")
    for column in ("id", *TEXTS):
        if particles[column].str.contains("\0", literal=True).any():
            raise DataError(f"{column} holds a NUL, which HDF5 ends texts with", where=path, remedy="Take it out.")
    if fold is not None and len(fold) != len(ids):
        raise DataError(f"{len(fold)} folds for {len(ids)} particles", where=path, remedy="Give one a particle.")


def _describe(
    file: h5py.File, told: Mapping[str, Any], classes: Iterable[str], *, n: int, width: int, oof: bool, groups: bool
) -> None:
    """Write what holds for the whole file."""
    import h5py

    metadata = file.create_group("metadata")
    known = {**told, "schema": SCHEMA, "n_samples": n, "embedding_dim": width, "mu": _IN_SAMPLE}
    known |= {"mu_oof": _OOF} if oof else {}
    for name in sorted(known):
        if known[name] is not None:
            metadata.attrs[name] = known[name]
    names = [name.encode() for name in classes]
    longest = max([1, *map(len, names)])
    kind = h5py.string_dtype("utf-8", longest)
    metadata.create_dataset(NAMES, data=np.array(names, dtype=kind))
    if groups:
        file.create_group("embeddings", track_order=True)  # in the order of the particles, not of their names


def _pieces(
    vectors: Iterable[Piece], n: int, width: int, path: Path
) -> Iterator[tuple[int, NDArray[np.float32], NDArray[np.float32] | None]]:
    """Hand vectors on, checked against what was announced."""
    start = 0
    for mu, oof in vectors:
        if mu.ndim != 2 or mu.shape[1] != width or (oof is not None and oof.shape != mu.shape):
            raise DataError(f"vectors of shape {[*mu.shape]} where {width} numbers are expected", where=path)
        if start + len(mu) > n:
            raise DataError(f"more vectors than the {n} particles", where=path)
        yield start, np.asarray(mu, np.float32), None if oof is None else np.asarray(oof, np.float32)
        start += len(mu)
    if start < n:
        raise DataError(f"{start} vectors for {n} particles", where=path)


class _Whole:
    """Whole arrays, and an index of the ids."""

    def __init__(
        self,
        file: h5py.File,
        particles: pl.DataFrame,
        *,
        width: int,
        fold: NDArray[np.int64] | None,
        in_sample: NDArray[np.bool_],
    ) -> None:
        import h5py

        n = len(particles)
        self.group = group = file.create_group("fused")
        rows = {"shape": (n, width), "dtype": "f4", "chunks": (min(n, _CHUNK), width)}
        self.mu = group.create_dataset("mu", **rows)
        group.create_dataset("in_sample", data=in_sample.astype(np.uint8))
        self.oof = None
        if fold is not None:
            self.oof = group.create_dataset("mu_oof", **rows)
            group.create_dataset("fold", data=fold.astype(np.int32))
        text = h5py.string_dtype()
        ids = group.create_dataset("sample_id", shape=(n,), dtype=text)
        for start in range(0, n, PIECE):
            ids[start : start + PIECE] = particles["id"][start : start + PIECE].to_list()
        order = particles["id"].arg_sort().to_numpy()  # polars sorts text by its bytes
        group.create_dataset("by_id", data=order.astype(np.int64))
        for column in TEXTS:
            _texts(group, column, particles[column], text)
        for column, dtype in NUMBERS.items():
            known = particles[column].fill_null(MISSING if dtype is np.int64 else float("nan"))
            if particles[column].null_count() < n:
                group.create_dataset(column, data=known.to_numpy().astype(dtype))
        if any(particles[axis].null_count() < n for axis in PLACE):
            place = particles.select(PLACE).fill_null(float("nan")).to_numpy()
            group.create_dataset("coordinates", data=place.astype(np.float64))

    def put(self, start: int, mu: NDArray[np.float32], oof: NDArray[np.float32] | None) -> None:
        """Write some rows."""
        self.mu[start : start + len(mu)] = mu
        if self.oof is not None and oof is not None:
            self.oof[start : start + len(oof)] = oof


def _texts(group: h5py.Group, column: str, values: pl.Series, text: Any) -> None:
    """Write a column of few different texts as numbers, -1 where there is none, and their words."""
    import polars as pl

    words = values.drop_nulls().unique().sort()
    if not len(words):
        return
    codes = values.replace_strict(words, pl.Series(range(len(words)), dtype=pl.Int32), default=None)
    group.create_dataset(column, data=codes.fill_null(-1).to_numpy().astype(np.int32))
    group.create_dataset(f"{column}_words", data=words.to_list(), dtype=text)
