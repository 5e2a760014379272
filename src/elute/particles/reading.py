"""Reading a source, whatever its file is; and all sources of a configuration, joined."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from elute.base import console, files
from elute.base.errors import ConfigError, DataError

if TYPE_CHECKING:
    from elute.particles.settings import EvaluationConfig, InputsConfig, SourceConfig
    from elute.particles.table import Joined, ParticleTable

_HDF5 = (".h5", ".hdf5")


def read_source(source: SourceConfig) -> ParticleTable:
    """Read one source."""
    from elute.particles.cryolens_files import read_cryolens
    from elute.particles.tomotwin_files import read_tomotwin
    from elute.particles.vector_tables import read_table

    for path in (source.path, source.coords):
        if path is not None and not path.exists():
            raise DataError("there is no such file", where=path, remedy="Check the paths in the configuration.")
    digest = _digest(source)
    kind = source.kind if source.kind != "auto" else _kind(source)
    if kind == "tomotwin":
        table = read_tomotwin(source, digest=digest)
    elif kind == "cryolens":
        table = read_cryolens(
            source.path, name=source.name, key=source.key, unit=source.unit, voxel_spacing=source.voxel_spacing,
            digest=digest,
        )  # fmt: skip
    else:
        table = read_table(source, digest=digest)
    return _first(table, source)


def read_joined(inputs: InputsConfig, config: EvaluationConfig, *, where: object = None) -> Joined:
    """Read all sources of a configuration, pair their rows, and balance classes if that is asked for."""
    from elute.particles.joining import balanced, join
    from elute.particles.settings import sources_of

    tables = []
    for source in sources_of(inputs, embedding_dim=config.embedding_dim, where=where):
        table = read_source(source)
        console.say(f"{table.name}: {len(table):,} particles, {table.width} numbers each")
        for note in table.notes:
            console.say(note)
        tables.append(table)
    joined = join(tables, config)
    return balanced(joined, seed=config.random_seed) if config.balance_classes else joined


def _kind(source: SourceConfig) -> str:
    """Tell the layout from what a file holds."""
    if source.coords is not None:
        return "tomotwin"
    if source.path.suffix.lower() not in _HDF5:
        return "table"
    from elute.particles.cryolens_files import opened

    with opened(source.path) as file:
        groups = [name for name in file if not hasattr(file[name], "shape")]
        whole = "fused" in file or ("embeddings" in file and "embeddings" in groups)
        return "cryolens" if whole or any("embeddings" in file[name] for name in groups) else "table"


def _digest(source: SourceConfig) -> str:
    paths = [path for path in (source.path, source.coords) if path is not None]
    if len(paths) == 1 and paths[0].is_file():
        return files.digest_file(paths[0])
    return files.digest_json([files.digest_file(Path(path)) for path in paths if path.is_file()])


def _first(table: ParticleTable, source: SourceConfig) -> ParticleTable:
    """Keep the first numbers of each vector, where that is asked for."""
    if source.first is None or source.first == table.width:
        return table
    if source.first > table.width:
        raise ConfigError(
            f"has vectors of {table.width} numbers, and the first {source.first} are asked for", where=source.path,
            remedy=f"Give --embedding-dim {table.width} at most, or first: {table.width}.",
        )  # fmt: skip
    note = f"{table.name}: the first {source.first} of {table.width} numbers are kept"
    vectors = np.ascontiguousarray(table.vectors[:, : source.first])
    return replace(table, vectors=vectors, notes=(*table.notes, note))
