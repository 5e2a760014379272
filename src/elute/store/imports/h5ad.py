"""AnnData files (`.h5ad`, and the same layout in Zarr), and plain HDF5 and Zarr files.

An AnnData file holds cells × genes in `X`, `layers/NAME` and `raw/X`, further rows of numbers a cell in `obsm/NAME`,
and a table of the cells in `obs`. The layout is that of https://anndata.readthedocs.io/en/stable/fileformat-prose.html,
read here without anndata, so that a file larger than memory is read a piece at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base.errors import DamagedError, DataError
from elute.store.imports.parts import AGAIN, Column, Contents, Part, as_column, reading, series
from elute.store.imports.trees import Tree, array_part, attribute, hdf5, is_array, values, zarr_tree

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    from elute.store.imports.parts import Array

_ROWS_OF_CELLS = ("layers", "obsm", "raw")
_BY_COLUMN = ("is sparse by columns (CSC), so a row is spread over the whole file", "Save it as CSR: adata.X.tocsr().")
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
        return Contents(arrays, _obs(tree, root, str(index)), str(index))


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
        elif (form := _sparse_form(node)) is not None:
            parts[key] = _sparse_part(tree, key, (node, form))
        elif cells:
            parts[key] = Part((), "table", lambda _start, _rows: iter(()), _TABLE)
    return parts


def _sparse_form(node: Any) -> str | None:
    form = str(attribute(node, "encoding-type") or attribute(node, "h5sparse_format") or "")
    return form[:3] if form[:3] in ("csr", "csc") else None


def _sparse_part(tree: Tree, key: str, kind: tuple[Any, str]) -> Part:
    node, form = kind
    with reading(tree.path, tree.what, key):
        stored = attribute(node, "shape") or attribute(node, "h5sparse_shape")
        shape, data = (int(stored[0]), int(stored[1])), node["data"]
        stored_numbers, chunk = int(data.shape[0]), max(1, (getattr(data, "chunks", None) or (1,))[0])
        whole = node["indptr"].shape == (shape[form == "csc"] + 1,) and node["indices"].shape == data.shape
    if not whole or min(shape) < 0:
        raise DamagedError("is sparse, and its parts do not fit together", where=f"{tree.path}, {key}", remedy=AGAIN)
    if form == "csc":
        return Part(shape, data.dtype.name, lambda _start, _rows: iter(()), _BY_COLUMN)

    def read(start: int, rows: int) -> Iterator[Array]:
        per_piece = max(1, rows * stored_numbers // max(1, shape[0]))
        block = rows * min(-(-chunk // per_piece), -(-shape[0] // rows) or 1)
        with reading(tree.path, tree.what, key), tree.opened() as root:
            indptr, indices, data = (tree.node(root, f"{key}/{name}") for name in ("indptr", "indices", "data"))
            for at in range(start, shape[0], block):
                yield from _dense(
                    (indptr, indices, data), (at, min(at + block, shape[0]), rows), (shape[1], f"{tree.path}, {key}")
                )

    return Part(shape, data.dtype.name, read)


def _dense(parts: tuple[Any, Any, Any], cut: tuple[int, int, int], kind: tuple[int, str]) -> Iterator[Array]:
    """Unpack some rows of a sparse array, checked first: scipy writes wherever the indices point."""
    import numpy as np
    from scipy.sparse import csr_array

    (start, stop, rows), (width, where) = cut, kind
    indptr = values(parts[0], start, stop + 1).astype(np.int64)
    first, last = int(indptr[0]), int(indptr[-1])
    if first < 0 or last > parts[2].shape[0] or (np.diff(indptr) < 0).any():
        raise DamagedError(f"the row pointers of rows {start} to {stop - 1} are damaged", where=where, remedy=AGAIN)
    indices, data = values(parts[1], first, last), values(parts[2], first, last)
    if len(indices) and not 0 <= int(indices.min()) <= int(indices.max()) < width:
        wrong = int(np.flatnonzero((indices < 0) | (indices >= width))[0])
        row = start + int(np.searchsorted(indptr - first, wrong, side="right")) - 1
        raise DamagedError(
            f"row {row} has a number in column {int(indices[wrong])}, of {width} columns", where=where, remedy=AGAIN
        )
    # scipy has no half precision: unpacked in single precision it comes back exactly.
    wide = data.astype(np.float32) if data.dtype == np.float16 else data
    for at in range(start, stop, rows):
        edge = indptr[at - start : min(at + rows, stop) - start + 1] - first
        piece = slice(int(edge[0]), int(edge[-1]))
        sparse = csr_array((wide[piece], indices[piece], edge - edge[0]), shape=(len(edge) - 1, width))
        yield sparse.toarray().astype(data.dtype, copy=False)


def _obs(tree: Tree, root: Any, index: str) -> dict[str, Column]:
    obs = tree.node(root, "obs")
    named = [str(name) for name in attribute(obs, "column-order") or ()]
    old = list(obs["__categories"]) if "__categories" in obs else []
    if index not in obs:
        raise DamagedError(f"its table of cells lacks the index {index!r}", where=tree.path, remedy=AGAIN)
    found = {name: f"obs/{name}" for name in (index, *named) if name in obs}
    return {
        name: _obs_column(tree, root, (key, f"obs/__categories/{name}" if name in old else None))
        for name, key in found.items()
    }


def _obs_column(tree: Tree, root: Any, keys: tuple[str, str | None]) -> Column:
    """Make a column of the cells' table, of any of the forms that AnnData writes it in."""
    key, categories = keys
    with reading(tree.path, tree.what, key):
        node = tree.node(root, key)
        if is_array(node):
            if categories is None:
                return as_column(array_part(tree, key, node), f"{tree.path}, {key}")
            return _categorical(tree, (key, categories), int(node.shape[0]))
        form = str(attribute(node, "encoding-type"))
        if form == "categorical":
            return _categorical(tree, (f"{key}/codes", f"{key}/categories"), int(node["codes"].shape[0]))
        if form.startswith("nullable-") and node["values"].shape == node["mask"].shape:
            return _nullable(tree, key, array_part(tree, f"{key}/values", node["values"]))
    flaw = (f"has the encoding {form!r}, which elute does not read", "Save it as text, numbers or categories.")
    return Column(0, form, lambda _start, _rows: iter(()), flaw)


def _categorical(tree: Tree, keys: tuple[str, str], length: int) -> Column:
    where = f"{tree.path}, {keys[0]}"

    def read(start: int, rows: int) -> Iterator[pl.Series]:
        with reading(tree.path, tree.what, keys[0]), tree.opened() as root:
            codes = array_part(tree, keys[0], tree.node(root, keys[0]))
            node = tree.node(root, keys[1])
            names = series(values(node, 0, node.shape[0]), where)
        for piece in codes.read(start, rows):
            yield _named(piece, names, where)

    return Column(length, "categorical", read)


def _named(codes: Any, names: pl.Series, where: str) -> pl.Series:
    import polars as pl

    known = pl.Series(codes).cast(pl.Int64)
    if len(known) and not -1 <= known.min() <= known.max() < len(names):  # type: ignore[operator]
        raise DamagedError("a category's number is out of range", where=where, remedy=AGAIN)
    return names.gather(known.replace(-1, None))


def _nullable(tree: Tree, key: str, held: Part) -> Column:
    def read(start: int, rows: int) -> Iterator[pl.Series]:
        import polars as pl

        with reading(tree.path, tree.what, key), tree.opened() as root:
            mask = array_part(tree, f"{key}/mask", tree.node(root, f"{key}/mask"))
        for piece, missing in zip(held.read(start, rows), mask.read(start, rows), strict=True):
            frame = pl.DataFrame({"x": series(piece, tree.path), "missing": _flags(missing)})
            yield frame.select(pl.when(~pl.col("missing")).then("x").alias("x")).to_series()

    return Column(held.shape[0], held.dtype, read)


def _flags(mask: Any) -> np.ndarray[Any, Any]:
    import numpy as np

    return np.asarray(mask, dtype=bool)
