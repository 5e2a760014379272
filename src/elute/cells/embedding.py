"""One vector a cell, put into the file's `.obsm`, as people use such models today.

The vectors are stored row by row first, so that an interrupted run goes on; the file is written at the end, whole.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from elute.base import console, files
from elute.base.errors import ConfigError, GuardError, MissingError, SpaceError
from elute.base.run import Artifact
from elute.cells.capturing import CELL_SITE, store_embeddings
from elute.cells.opening import open_model
from elute.engine.capture import CaptureConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from elute.cells.settings import EmbedConfig, ModelConfig
    from elute.models.cells.cellfile import CellsConfig


def embed_cells(data: Path, output: Path, *, cells: CellsConfig, model: ModelConfig, embed: EmbedConfig) -> Artifact:
    """Write a copy of a file of cells with their embeddings; cells that were not read are left out of it."""
    from elute.models.cells.cellfile import open_cells

    data, output = Path(data), Path(output)
    _check(data, output, embed)
    opened = open_cells(data, cells)
    loaded = open_model(model, opened)
    folder = output.with_name(f"{output.stem}_embeddings")
    stored = store_embeddings(loaded, opened, folder, pooling=embed.pooling, config=CaptureConfig())
    names, vectors = _read(folder)
    place = {name: i for i, name in enumerate(names)}
    read = [i for i, name in enumerate(opened.names) if name in place]
    vectors = vectors[[place[opened.names[i]] for i in read]]
    if embed.normalise:
        vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
    kept = opened.chosen[read]
    whole = len(kept) == opened.total
    (_copy if whole else _part)(data, output, embed.key, vectors=vectors, kept=kept)
    console.say(f"{output}: .obsm[{embed.key!r}], {vectors.shape[0]:,} cells × {vectors.shape[1]:,}")
    told = {"cells": len(kept), "of": opened.total, "width": vectors.shape[1], "key": embed.key}
    return Artifact("embeddings", output, {**told, "store": str(folder), "reused": stored.summary["reused"]})


def _check(data: Path, output: Path, config: EmbedConfig) -> None:
    if output.suffix != ".h5ad":
        raise ConfigError("the output is an .h5ad file", where=output, remedy="Name it so.")
    if output.exists() and output.resolve() == data.resolve():
        raise ConfigError("the output is the input", where=output, remedy="Write another file.")
    if output.exists() and not config.overwrite:
        raise GuardError("is there already", where=output, remedy="Choose another name, or give --overwrite.")
    if not config.key or "/" in config.key:
        raise ConfigError(f"{config.key!r} is no name in .obsm", remedy="Give --key a name without a slash.")


def _read(folder: Path) -> tuple[list[str], NDArray[np.float32]]:
    from elute.store.reader import Store

    store = Store(folder)
    names: list[str] = []
    parts = []
    for rows, metadata in store.batches(8192):
        names += metadata["sample_id"].to_list()
        parts.append(rows[CELL_SITE].float().numpy())
    return names, np.concatenate(parts)


def _copy(data: Path, output: Path, key: str, *, vectors: NDArray[np.float32], kept: NDArray[np.int64]) -> None:
    """Copy the file as it is, and put the vectors into the copy."""
    import h5py

    del kept  # all
    needed = data.stat().st_size + vectors.nbytes
    if needed > (free := files.free_bytes(output)):
        what = f"the copy takes {console.size(needed)}, and there is room for {console.size(free)}"
        raise SpaceError(what, where=output, remedy="Make room, or choose another disk.")
    files.make_folder(output.parent)
    scratch = output.with_name(f".{output.name}.part")
    try:
        with files.disk_errors(output):
            shutil.copyfile(data, scratch)
            with h5py.File(scratch, "r+") as file:
                obsm = file.require_group("obsm")
                obsm.attrs.setdefault("encoding-type", "dict")
                obsm.attrs.setdefault("encoding-version", "0.1.0")
                if key in obsm:
                    del obsm[key]
                written = obsm.create_dataset(key, data=vectors)
                written.attrs["encoding-type"], written.attrs["encoding-version"] = "array", "0.2.0"
            scratch.replace(output)
    finally:
        scratch.unlink(missing_ok=True)


def _part(data: Path, output: Path, key: str, *, vectors: NDArray[np.float32], kept: NDArray[np.int64]) -> None:
    """Write the cells that were read, with their vectors."""
    try:
        import anndata
    except ImportError:
        from elute.base.doctor import how_to_install

        what = f"{len(kept):,} of the file's cells were read, and to write a part of a file needs the package anndata"
        raise MissingError(what, where=output, remedy=how_to_install("cells")) from None
    held: Any = anndata.read_h5ad(data, backed="r")
    part = held[kept].to_memory()
    held.file.close()
    part.obsm[key] = vectors
    files.make_folder(output.parent)
    scratch = output.with_name(f".{output.stem}.part.h5ad")
    try:
        with files.disk_errors(output):
            part.write_h5ad(scratch)
            scratch.replace(output)
    finally:
        scratch.unlink(missing_ok=True)
