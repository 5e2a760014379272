"""CryoLens' HDF5 files, in both layouts.

    /embeddings/{id}/mu, or /embeddings/{id} itself        a vector a particle, of any shape, read flat
    attributes of /embeddings/{id}, or of /metadata/{id}   object_name, run_name, coordinates, picks_index, …
    /{run}/embeddings, structure_labels, coordinates_angstrom, voxel_spacings     whole arrays, a group a tomogram

Where nothing tells a particle's class or run, its id does: `class_run_…`. A file of fused embeddings, as elute writes
it, is of the first layout, or holds whole arrays (reading_fused.py); of its two vectors that one is read whose network
had not seen the particle.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from elute.base import console
from elute.base.errors import DamagedError, DataError, EluteError
from elute.particles.labels import one_form
from elute.particles.table import COLUMNS, PLACE, ParticleTable, particle_frame, source_table

if TYPE_CHECKING:
    import h5py
    import polars as pl

_AGAIN = "Write it anew, or restore it from a copy."
_FAULTS = (OSError, KeyError, ValueError, TypeError, RuntimeError, AttributeError, IndexError)
_PIECE = 8192
_WORDS = ("mu_oof", "mu")
_FUSED = "vectors of the network that had not seen the particle (mu_oof) were read"
_IN_SAMPLE = "in-sample vectors were read (mu): their network had been fitted to these very labels"


def read_cryolens(
    path: Path, *, name: str, key: str | None = None, unit: str = "auto", voxel_spacing: float | None = None,
    digest: str = "",
) -> ParticleTable:  # fmt: skip
    """Read a file of either layout; `key` names the vector in each group, mu unless given."""
    with opened(path) as file:
        if "fused" in file and "embeddings" not in file:
            return _bulk(path, name=name, key=key, digest=digest)
        if "embeddings" in file and not _is_array(file["embeddings"]):
            vectors, frame, notes = _by_particle(file, path, key=key)
        else:
            vectors, frame = _by_run(file, path, key=key)
            notes = []
    frame = _to_angstrom(frame, unit, voxel_spacing, path=path)
    columns = {column: frame[column] for column in frame.columns}
    return source_table(name, vectors, columns, digest=digest, notes=tuple(notes), where=path)


@contextmanager
def opened(path: Path) -> Iterator[h5py.File]:
    """Open an HDF5 file; what is wrong with it becomes one line."""
    import h5py

    if not path.is_file():
        raise DataError("there is no such file", where=path, remedy="Check the path.")
    try:
        with h5py.File(path, "r") as file:
            yield file
    except EluteError:
        raise
    except _FAULTS as error:
        first = (str(error).splitlines() or [""])[0][:120]
        raise DamagedError(f"is not a whole HDF5 file ({first})", where=path, remedy=_AGAIN) from None


def _is_array(node: Any) -> bool:
    return hasattr(node, "shape")


def _by_particle(file: h5py.File, path: Path, *, key: str | None) -> tuple[NDArray[Any], pl.DataFrame, list[str]]:
    """Read a group, or a data set, a particle; what is known is packed away a piece at a time."""
    import polars as pl

    embeddings, metadata = file["embeddings"], file.get("metadata", {})
    n = len(embeddings)
    if not n:
        raise DataError("holds no particle under /embeddings", where=path, remedy="Check what wrote it.")
    word, notes = _word(embeddings, key, path)
    width = _vector(embeddings[next(iter(embeddings))], word, str(path)).size
    vectors = np.empty((n, width), np.float32)
    frames: list[pl.DataFrame] = []
    columns: dict[str, list[Any]] = {c: [] for c in COLUMNS}
    with console.progress(f"read {path.name}", n, unit="particles") as bar:
        for i, sample in enumerate(embeddings):
            node = embeddings[sample]
            x = _vector(node, word, f"{path}, {sample}")
            if x.size != width:
                raise DataError(f"the vector of {sample!r} has {x.size} numbers, those before it {width}", where=path,
                                remedy="Give vectors of one width.")  # fmt: skip
            vectors[i] = x
            told = {} if _is_array(node) else dict(node.attrs)
            if "structure_name" not in told and sample in metadata:
                told |= dict(metadata[sample].attrs)
            _append(columns, sample, told)
            if len(columns["id"]) == _PIECE or i + 1 == n:
                frames.append(particle_frame(columns, len(columns["id"])))
                columns = {c: [] for c in COLUMNS}
            bar.advance()
    return vectors, pl.concat(frames), notes


def _word(embeddings: Any, key: str | None, path: Path) -> tuple[str, list[str]]:
    """Say which data set of a group is the vector."""
    first = embeddings[next(iter(embeddings))]
    if _is_array(first):
        if key is not None:
            raise DataError(f"has no {key!r} in /embeddings: each is a vector itself", where=path,
                            remedy="Leave key out.")  # fmt: skip
        return "", []
    known = list(first)
    found = [word for word in (_WORDS if key is None else (key,)) if word in first]
    if not found:
        raise DataError(f"holds {', '.join(known) or 'nothing'} for a particle, not {key or 'mu'}", where=path,
                        remedy="Name the vector with key.")  # fmt: skip
    if found[0] == "mu_oof":
        return "mu_oof", [f"{path.name}: {_FUSED}"]
    in_sample = bool(getattr(first[found[0]], "attrs", {}).get("in_sample", False))
    return found[0], [f"{path.name}: {_IN_SAMPLE}"] if in_sample else []


def _vector(node: Any, word: str, where: str) -> NDArray[Any]:
    if word and (_is_array(node) or word not in node):
        raise DataError(f"has no {word!r}", where=where, remedy="Every particle needs its vector.")
    if not word and not _is_array(node):
        raise DataError("is a group, where particles before it are vectors", where=where, remedy=_AGAIN)
    data = node[word] if word else node
    if data.dtype.kind not in "fiu":
        raise DataError(f"holds {data.dtype}, not numbers", where=where, remedy="Check what wrote it.")
    return np.asarray(data[()], dtype=np.float32).reshape(-1)


def _append(columns: dict[str, list[Any]], sample: str, told: dict[str, Any]) -> None:
    """Take what is known of one particle; its class and run from its id where nothing else tells them."""
    parts = sample.split("_")
    plain = {name: _plain(value) for name, value in told.items()}
    called = plain.get("object_name", plain.get("object_type"))
    label = plain.get("structure_name")
    columns["id"].append(str(plain.get("sample_id", sample)))
    columns["label"].append(str(label) if label is not None else one_form(str(called or parts[0])))
    run = plain.get("run_name", parts[1] if len(parts) > 1 else None)
    columns["run"].append(None if run is None else str(run))
    named = plain.get("object_name")
    columns["object_name"].append(None if named is None else str(named))
    for name, kind in (("voxel_spacing", float), ("picks_index", int), ("point_index", int)):
        value = plain.get(name)
        columns[name].append(None if value is None else kind(value))
    place = told.get("coordinates")
    held = [None] * 3 if place is None else np.asarray(place, dtype=np.float64).reshape(-1).tolist()
    if len(held) != 3:
        raise DataError(f"coordinates of {sample!r} are {len(held)} numbers", remedy="Give x, y and z.")
    for axis, value in zip(PLACE, held, strict=True):
        columns[axis].append(value)


def _plain(value: Any) -> Any:
    if isinstance(value, bytes):
        return value.decode(errors="replace")
    return value.item() if isinstance(value, np.generic) else value


def _by_run(file: h5py.File, path: Path, *, key: str | None) -> tuple[NDArray[Any], pl.DataFrame]:
    """Read whole arrays, a group a tomogram."""
    import polars as pl

    word = key or "embeddings"
    runs = [name for name in file if not _is_array(file[name]) and word in file[name]]
    if not runs:
        raise DataError(f"holds neither /embeddings nor /RUN/{word}", where=path,
                        remedy="Give a file of CryoLens' embeddings, or kind: table.")  # fmt: skip
    vectors: list[NDArray[np.float32]] = []
    frames = []
    for run in runs:
        x = np.asarray(file[run][word][()], dtype=np.float32)
        x = x.reshape(len(x), -1)
        if vectors and x.shape[1] != vectors[0].shape[1]:
            raise DataError(f"vectors of {run!r} have {x.shape[1]} numbers, those before them {vectors[0].shape[1]}",
                            where=path, remedy="Give vectors of one width.")  # fmt: skip
        vectors.append(x)
        frames.append(_run_frame(file[run], run, len(x), path=path))
    return np.concatenate(vectors), pl.concat(frames)


def _run_frame(group: h5py.Group, run: str, n: int, *, path: Path) -> pl.DataFrame:
    """What is known of a tomogram's particles; places within a run are no ids that another program would know."""
    names = [str(_plain(s)) for s in group["structure_labels"]] if "structure_labels" in group else [None] * n
    place = next((group[w] for w in ("coordinates_angstrom", "coordinates") if w in group), None)
    held = np.full((n, 3), np.nan) if place is None else np.asarray(place[()], np.float64)
    spacing = np.asarray(group["voxel_spacings"][()], np.float64) if "voxel_spacings" in group else np.full(n, np.nan)
    if len(names) != n or held.shape != (n, 3) or spacing.shape != (n,):
        raise DamagedError("its arrays do not have a row a particle", where=f"{path}, {run}", remedy=_AGAIN)
    columns = {
        "label": [None if s is None else one_form(s) for s in names], "object_name": names, "run": [run] * n,
        "voxel_spacing": spacing, **dict(zip(PLACE, held.T, strict=True)),
    }  # fmt: skip
    return particle_frame(columns, n)


def _to_angstrom(frame: pl.DataFrame, unit: str, spacing: float | None, *, path: Path) -> pl.DataFrame:
    """Turn voxels into ångström where the settings say that coordinates are in voxels."""
    import polars as pl

    if spacing is not None:
        frame = frame.with_columns(pl.lit(spacing).alias("voxel_spacing"))
    if unit != "voxel":
        return frame
    if frame["voxel_spacing"].null_count():
        raise DataError("coordinates are in voxels, and no voxel spacing is known", where=path,
                        remedy="Give voxel_spacing beside unit: voxel.")  # fmt: skip
    return frame.with_columns(pl.col(axis) * pl.col("voxel_spacing") for axis in PLACE)


def _bulk(path: Path, *, name: str, key: str | None, digest: str) -> ParticleTable:
    """Read a file of fused embeddings in whole arrays."""
    from elute.particles.reading_fused import FusedFile

    part = FusedFile(path).read()
    if key not in (None, "mu", "mu_oof") or (key == "mu_oof" and part.mu_oof is None):
        raise DataError(f"has no {key!r}", where=path, remedy="There are: mu, mu_oof.")
    own = part.mu if key == "mu" or part.mu_oof is None else part.mu_oof
    note = _IN_SAMPLE if own is part.mu else _FUSED
    columns = {c: part.particles[c] for c in part.particles.columns}
    return source_table(name, own, columns, digest=digest, notes=(f"{path.name}: {note}",), where=path)
