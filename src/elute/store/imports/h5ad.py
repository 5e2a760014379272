"""AnnData files (`.h5ad`, and the same layout in Zarr), and plain HDF5 and Zarr files.

An AnnData file holds cells × genes in `X`, `layers/NAME` and `raw/X`, further rows of numbers a cell in `obsm/NAME`,
and a table of the cells in `obs`. The layout is that of https://anndata.readthedocs.io/en/stable/fileformat-prose.html,
read here without anndata, so that a file larger than memory is read a piece at a time.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from elute.base.errors import DataError
from elute.store.imports.parts import Contents, Part, as_column, reading
from elute.store.imports.sparse import sparse_form, sparse_part
from elute.store.imports.tables import table
from elute.store.imports.trees import Tree, array_part, attribute, hdf5, is_array, zarr_tree

_ROWS_OF_CELLS = ("layers", "obsm", "raw")
_TABLE = ("is a table, not an array", "Save its numbers: adata.obsm[name] = adata.obsm[name].to_numpy().")


def read_hdf5(path: Path) -> Contents:
    """List what an HDF5 file holds, in AnnData's layout or in any other."""
    return _contents(hdf5(path))


def read_h5ad(path: Path) -> Contents:
    """List what an AnnData file holds."""
    contents = _contents(hdf5(path))
    if contents.index is None:
        raise DataError(
            "has no table of cells (obs), so it is not an AnnData file", where=path, remedy="Rename it to .h5."
        )
    return contents


def read_zarr(path: Path) -> Contents:
    """List what a Zarr folder or zip holds, in AnnData's layout or in any other."""
    return _contents(zarr_tree(path))


def _contents(tree: Tree) -> Contents:
    with reading(tree.path, tree.what), tree.opened() as root:
        nodes = tree.walk(root)
        obs = nodes.get("obs")
        if obs is not None and is_array(obs):
            raise DataError(
                "has the cells' table in the form that anndata wrote before 0.7",
                where=tree.path,
                remedy="Write it anew: anndata.read_h5ad(path).write_h5ad(path).",
            )
        index = None if obs is None else attribute(obs, "_index")
        arrays = _arrays(tree, nodes, cells=index is not None)
        if index is None:
            alone = {key: part for key, part in arrays.items() if len(part.shape) == 1}
            return Contents(arrays, {key: as_column(p, f"{tree.path}, {key}") for key, p in alone.items()})
        name, columns = table(tree, root, "obs")
        return Contents(arrays, columns, name)


def _arrays(tree: Tree, nodes: dict[str, Any], *, cells: bool) -> dict[str, Part]:
    """List the arrays; in AnnData's layout those with a row a cell alone."""
    parts: dict[str, Part] = {}
    for key, node in nodes.items():
        folder, _, name = key.rpartition("/")
        of_cells = key == "X" or (folder in _ROWS_OF_CELLS and (folder != "raw" or name == "X"))
        if cells and not of_cells:
            continue
        if is_array(node):
            if f"{folder}/indptr" not in nodes:
                parts[key] = array_part(tree, key, node)
        elif (form := sparse_form(node)) is not None:
            parts[key] = sparse_part(tree, key, form)
        elif cells:
            parts[key] = Part((), "table", lambda _start, _rows: iter(()), _TABLE)
    return parts
