"""An AnnData file (.h5ad) as a sheet of cells, read by h5py alone, in every layout that anndata has written."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base import console
from elute.base.errors import DamagedError, DataError, near
from elute.base.files import digest_file
from elute.models.cells.sheet import Sheet, whole
from elute.store.imports.kinds import check_file
from elute.store.imports.nonzeros import Nonzeros, in_file
from elute.store.imports.parts import AGAIN, reading
from elute.store.imports.sparse import sparse_form
from elute.store.imports.tables import table
from elute.store.imports.trees import Tree, attribute, hdf5, is_array

if TYPE_CHECKING:
    from elute.store.imports.parts import Column

_KNOWN = {".h5ad": "HDF5"}
_LARGE = 256 << 20  # bytes that take long enough to be counted before someone's eyes


def open_file(path: Path) -> Sheet:
    """Look into a file; nothing but its tables' names is read."""
    _check(path)
    tree = hdf5(path)
    with reading(path, tree.what), tree.opened() as root:
        if not tree.holds(root, "obs"):
            raise _other(path, root)
        if not tree.holds(root, "var"):
            raise DamagedError("has no table of genes (var)", where=path, remedy=AGAIN)
        index, obs = table(tree, root, "obs")
        matrices: dict[str, Callable[[], Nonzeros]] = {
            name: partial(in_file, path, key) for name, key in _matrices(tree, root).items()
        }
    names = whole(obs[index], None, f"{path}, obs")
    return Sheet(str(path), names, obs, matrices, partial(_genes, tree), partial(_digest, path))


def _check(path: Path) -> None:
    if path.is_dir() and path.suffix.lower() == ".zarr":
        remedy = 'Write it as one file: anndata.read_zarr(folder).write_h5ad("cells.h5ad").'
        raise DataError("is a Zarr folder; cells are read from .h5ad", where=path, remedy=remedy)
    if not path.exists():
        folder = path.parent
        if not folder.is_dir():
            raise DataError(f"there is no such folder: {folder}", where=path, remedy="Check the path.")
        others = [other.name for other in folder.glob("*.h5ad")]
        remedy = near(path.name, others) if others else f"There is no .h5ad file in {folder}."
        raise DataError("there is no such file", where=path, remedy=remedy)
    # The suffix is of no account as long as the file is an HDF5 file: what stands in it says what it is.
    check_file(path, {**_KNOWN, path.suffix.lower(): "HDF5"})


def _other(path: Path, root: Any) -> DataError:
    """Say what an HDF5 file is that holds no AnnData."""
    groups = [root, *(node for node in root.values() if not is_array(node))]
    if any("barcodes" in group and "indptr" in group for group in groups):
        remedy = f'Convert it: scanpy.read_10x_h5("{path.name}").write_h5ad("{path.stem}.h5ad").'
        return DataError("is a 10x matrix, not an AnnData file", where=path, remedy=remedy)
    if "col_attrs" in root and "row_attrs" in root:
        remedy = f'Convert it: anndata.io.read_loom("{path.name}").write_h5ad("{path.stem}.h5ad").'
        return DataError("is a loom file, not an AnnData file", where=path, remedy=remedy)
    if "mod" in root:
        remedy = 'Take one part: mudata.read(path).mod["rna"].write_h5ad("rna.h5ad").'
        return DataError("holds several AnnData (MuData), not one", where=path, remedy=remedy)
    return DataError(
        "has no table of cells (obs), so it is not an AnnData file",
        where=path,
        remedy="Write it with anndata: adata.write_h5ad(path).",
    )


def _matrices(tree: Tree, root: Any) -> dict[str, str]:
    """Name the matrices with a row a cell, and their place in the file."""
    keys = {"X": "X"}
    if tree.holds(root, "layers"):
        keys |= {f"layers/{name}": f"layers/{name}" for name in tree.node(root, "layers")}
    keys["raw"] = "raw.X" if tree.holds(root, "raw.X") else "raw/X"
    return {name: key for name, key in keys.items() if tree.holds(root, key) and _is_matrix(tree.node(root, key))}


def _is_matrix(node: Any) -> bool:
    if is_array(node):
        return attribute(node, "encoding-type") != "null" and node.shape is not None
    return sparse_form(node) is not None


def _genes(tree: Tree, matrix: str) -> tuple[str, dict[str, Column]]:
    with reading(tree.path, tree.what), tree.opened() as root:
        old = "raw.var" if tree.holds(root, "raw.var") else "raw/var"
        return table(tree, root, old if matrix == "raw" else "var")


def _digest(path: Path) -> str:
    total = path.stat().st_size
    if total < _LARGE:
        return digest_file(path)
    with console.progress("reading the file for its digest", total >> 20, unit="MB") as bar:
        return digest_file(path, lambda size: bar.advance(size >> 20))
