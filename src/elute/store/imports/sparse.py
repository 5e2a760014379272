"""Sparse arrays in a file: three arrays (indptr, indices, data) that say where each row's stored numbers stand.

Whatever is read is checked before it is used: row pointers that climb and stay inside the file, columns that exist.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from elute.base.errors import DamagedError
from elute.store.imports.parts import AGAIN, Part, reading
from elute.store.imports.trees import Tree, attribute, values

if TYPE_CHECKING:
    import numpy as np

    from elute.store.imports.parts import Array

_BY_COLUMN = ("is sparse by columns (CSC), so a row is spread over the whole file", "Save it as CSR: adata.X.tocsr().")


def sparse_form(node: Any) -> str | None:
    """Tell a sparse array by rows (csr) or by columns (csc) from any other folder."""
    form = str(attribute(node, "encoding-type") or attribute(node, "h5sparse_format") or "")
    return form[:3] if form[:3] in ("csr", "csc") else None


def sparse_shape(tree: Tree, root: Any, key: str) -> tuple[tuple[int, int], tuple[Any, Any, Any]]:
    """Return the shape of a sparse array and its indptr, indices and data, which must fit together."""
    with reading(tree.path, tree.what, key):
        node = tree.node(root, key)
        stored = attribute(node, "shape") or attribute(node, "h5sparse_shape")
        shape = (int(stored[0]), int(stored[1]))
        indptr, indices, data = (tree.node(root, f"{key}/{name}") for name in ("indptr", "indices", "data"))
        lines = shape[sparse_form(node) == "csc"]
        whole = indptr.shape == (lines + 1,) and indices.shape == data.shape and len(data.shape) == 1
    if not whole or min(shape) < 0 or {indptr.dtype.kind, indices.dtype.kind} - {"i", "u"}:
        raise DamagedError("is sparse, and its parts do not fit together", where=f"{tree.path}, {key}", remedy=AGAIN)
    return shape, (indptr, indices, data)


def pointers(indptr: Any, rows: tuple[int, int], kind: tuple[int, str]) -> np.ndarray[Any, np.dtype[np.int64]]:
    """Read where some rows begin and end, as int64; `kind` is how many numbers are stored, and the place for errors."""
    import numpy as np

    (start, stop), (stored, where) = rows, kind
    found: np.ndarray[Any, np.dtype[np.int64]] = values(indptr, start, stop + 1).astype(np.int64)
    if int(found[0]) < 0 or int(found[-1]) > stored or (np.diff(found) < 0).any():
        raise DamagedError(f"the row pointers of rows {start} to {stop - 1} are damaged", where=where, remedy=AGAIN)
    return found


def check_columns(indices: Any, starts: Any, place: tuple[Any, int, str]) -> None:
    """Refuse columns that do not exist; row `rows[i]` has the indices from `starts[i]` on."""
    import numpy as np

    rows, width, where = place
    if not len(indices) or 0 <= int(indices.min()) <= int(indices.max()) < width:
        return
    wrong = int(np.flatnonzero((indices < 0) | (indices >= width))[0])
    row = int(rows[int(np.searchsorted(starts, wrong, side="right")) - 1])
    raise DamagedError(
        f"row {row} has a number in column {int(indices[wrong])}, of {width} columns", where=where, remedy=AGAIN
    )


def sparse_part(tree: Tree, key: str, form: str) -> Part:
    """Make a part of a sparse array, whose rows are unpacked as they are read; one by columns can only be named."""
    with tree.opened() as root:
        shape, (_, _, data) = sparse_shape(tree, root, key)
        dtype, stored = data.dtype.name, int(data.shape[0])
        chunk = max(1, (getattr(data, "chunks", None) or (1,))[0])
    if form == "csc":
        return Part(shape, dtype, lambda _start, _rows: iter(()), _BY_COLUMN)

    def read(start: int, rows: int) -> Iterator[Array]:
        per_piece = max(1, rows * stored // max(1, shape[0]))
        block = rows * min(-(-chunk // per_piece), -(-shape[0] // rows) or 1)
        with reading(tree.path, tree.what, key), tree.opened() as root:
            parts = sparse_shape(tree, root, key)[1]
            for at in range(start, shape[0], block):
                yield from _dense(parts, (at, min(at + block, shape[0]), rows), (shape[1], f"{tree.path}, {key}"))

    return Part(shape, dtype, read)


def _dense(parts: tuple[Any, Any, Any], cut: tuple[int, int, int], kind: tuple[int, str]) -> Iterator[Array]:
    """Unpack some rows of a sparse array, checked first: scipy writes wherever the indices point."""
    import numpy as np
    from scipy.sparse import csr_array

    (start, stop, rows), (width, where) = cut, kind
    indptr = pointers(parts[0], (start, stop), (int(parts[2].shape[0]), where))
    first, last = int(indptr[0]), int(indptr[-1])
    indices, data = values(parts[1], first, last), values(parts[2], first, last)
    check_columns(indices, indptr - first, (np.arange(start, stop + 1), width, where))
    # scipy has no half precision: unpacked in single precision it comes back exactly.
    wide = data.astype(np.float32) if data.dtype == np.float16 else data
    for at in range(start, stop, rows):
        edge = indptr[at - start : min(at + rows, stop) - start + 1] - first
        piece = slice(int(edge[0]), int(edge[-1]))
        sparse = csr_array((wide[piece], indices[piece], edge - edge[0]), shape=(len(edge) - 1, width))
        yield sparse.toarray().astype(data.dtype, copy=False)
