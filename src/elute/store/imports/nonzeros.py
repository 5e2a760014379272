"""The stored numbers of chosen rows, as compressed rows, from any matrix: sparse or dense, in a file or in memory.

    sparse by rows       the stored entries in their stored order, explicit zeros too
    dense                what is not zero, in the order of the columns
    sparse by columns    turned in memory first (`Nonzeros.by_rows`), if a quarter of the free memory holds it

Rows that lie near each other in a file are read in one go, and what lies between them is thrown away; a chunk of a
packed file is unpacked once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

from elute.base.errors import DamagedError, DataError
from elute.store.imports.parts import reading
from elute.store.imports.sparse import check_columns, pointers, sparse_form, sparse_shape
from elute.store.imports.transpose import Entries, turned
from elute.store.imports.trees import Tree, hdf5, is_array, values

if TYPE_CHECKING:
    import numpy as np

    Integers: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]

_SPAN = 1 << 20  # numbers that are read in one go, and not all kept
_NEAR = 1 << 14  # numbers that are read and thrown away sooner than asking the file again
_MOST_CACHE = 256 << 20  # a file may be packed as one chunk; beyond this, chunks are unpacked anew for each span


class Csr(NamedTuple):
    """Rows one after another: row i has the entries from indptr[i] to indptr[i + 1]."""

    indptr: Integers
    indices: np.ndarray[Any, Any]  # int32, or int64 where there are more columns than it can name
    data: np.ndarray[Any, np.dtype[np.float32]]


Read: TypeAlias = "Callable[[Integers], Csr]"


@dataclass(frozen=True, eq=False)
class Nonzeros:
    """A matrix whose rows are read by their numbers, which must ascend; with `opened()` a file stays open."""

    shape: tuple[int, int]
    dtype: str
    lengths: Integers | None  # stored entries of each row; a dense matrix tells them only when it is read
    opened: Callable[[], AbstractContextManager[Read]]
    in_memory: bool = False
    turn: Callable[[Integers], Nonzeros] | None = None

    def by_rows(self, rows: Integers) -> tuple[Nonzeros, Integers]:
        """Return what reads these rows, and their numbers in it: a matrix by columns is turned into one of them."""
        import numpy as np

        return (self, rows) if self.turn is None else (self.turn(rows), np.arange(len(rows)))


def in_file(path: Path, key: str) -> Nonzeros:
    """Look at a matrix in an HDF5 file."""
    tree, where = hdf5(path), f"{path}, {key}"
    with reading(path, "HDF5", key), tree.opened() as root:
        node = tree.node(root, key)
        if is_array(node):
            return _dense_file(path, key, node)
        form = sparse_form(node)
        if form is None:
            raise DataError("is neither a dense nor a sparse matrix", where=where, remedy="Save it as CSR.")
        shape, parts = sparse_shape(tree, root, key)
        _check_kind(parts[2].dtype, where)
        lines = shape[form == "csc"]
        indptr = pointers(parts[0], (0, lines), (int(parts[2].shape[0]), where))
        chunk = max((part.chunks or (1,))[0] for part in parts[1:])
        sized = hdf5(path, _cache(chunk * max(part.dtype.itemsize for part in parts[1:])))

    @contextmanager
    def opened() -> Iterator[Entries]:
        with _nodes(sized, [f"{key}/indices", f"{key}/data"]) as (indices, data):

            def entries(start: int, stop: int) -> tuple[Any, Any]:
                with reading(path, "HDF5", key):
                    return values(indices, start, stop), values(data, start, stop)

            yield entries

    return _sparse((shape, parts[2].dtype.name, form), indptr, (opened, max(chunk, _NEAR), where))


def in_scipy(matrix: Any, where: str) -> Nonzeros:
    """Look at a sparse matrix of scipy, by rows or by columns."""
    import numpy as np

    _check_kind(matrix.dtype, where)
    indptr = pointers(np.asarray(matrix.indptr), (0, len(matrix.indptr) - 1), (len(matrix.data), where))

    def entries(start: int, stop: int) -> tuple[Any, Any]:
        return matrix.indices[start:stop], matrix.data[start:stop]

    kind = (tuple(matrix.shape), matrix.dtype.name, matrix.format)
    return _sparse(kind, indptr, (lambda: nullcontext(entries), 0, where))


def in_csr(csr: Csr, width: int) -> Nonzeros:
    """Hold rows that were read before; runs of them are given without a copy."""

    def entries(start: int, stop: int) -> tuple[Any, Any]:
        return csr.indices[start:stop], csr.data[start:stop]

    kind = ((len(csr.indptr) - 1, width), csr.data.dtype.name, "csr")
    return _sparse(kind, csr.indptr, (lambda: nullcontext(entries), 0, "memory"))


def in_numpy(array: Any, where: str) -> Nonzeros:
    """Look at a dense matrix in memory."""
    _check_kind(array.dtype, where)
    per_span = max(1, _SPAN // max(1, array.shape[1]))

    def read(rows: Integers) -> Csr:
        return _packed((array[rows[at : at + per_span]] for at in range(0, len(rows), per_span)), array.shape[1])

    return Nonzeros(tuple(array.shape), array.dtype.name, None, lambda: nullcontext(read))


def _check_kind(dtype: Any, where: str) -> None:
    if dtype.kind not in "fiub":
        raise DataError(f"holds {dtype}, not numbers", where=where, remedy="Save it as float32.")


def _cache(chunk_bytes: int) -> int:
    """Reading goes forwards, so it is enough to keep the chunk that two spans share."""
    return min(max(2 * chunk_bytes, 1 << 20), _MOST_CACHE)


def _sparse(kind: tuple[tuple[int, int], str, str], indptr: Integers, held: tuple[Any, int, str]) -> Nonzeros:
    """Make a sparse matrix; `near` is 0 for one in memory, where nothing is gained by reading more than asked for."""
    import numpy as np

    (shape, dtype, form), (opened, near, where) = kind, held
    if form == "csc":
        # Only an opened file can count the rows' entries, so the pass is made once, when rows are asked for.
        def turn(rows: Integers) -> Nonzeros:
            with opened() as entries:
                parts = turned(indptr, entries, (rows, shape, where))
            return in_csr(Csr(*parts), shape[1])

        return Nonzeros(shape, dtype, None, _never, turn=turn)
    lengths = np.diff(indptr)
    if len(lengths) and int(lengths.max()) > shape[1]:
        row = int(lengths.argmax())
        what = f"row {row} has {int(lengths[row]):,} numbers in {shape[1]:,} columns"
        raise DamagedError(what, where=where, remedy="Add up what stands twice: adata.X.sum_duplicates().")

    @contextmanager
    def reader() -> Iterator[Read]:
        with opened() as entries:
            yield lambda rows: _read(entries, (indptr, rows), (shape[1], near, where))

    return Nonzeros(shape, dtype, lengths, reader, in_memory=not near)


def _never() -> AbstractContextManager[Read]:
    raise TypeError("a matrix by columns is turned before it is read")


def _read(entries: Entries, cut: tuple[Integers, Integers], kind: tuple[int, int, str]) -> Csr:
    """Read some rows: all of a near run in one go, cut into spans."""
    import numpy as np

    (pointer, rows), (width, near, where) = cut, kind
    starts, ends = pointer[rows], pointer[rows + 1]
    indptr = np.concatenate([[0], np.cumsum(ends - starts)])
    if not near and len(rows) and int(indptr[-1]) == int(ends[-1] - starts[0]):
        indices, data = entries(int(starts[0]), int(ends[-1]))
        check_columns(indices, indptr, (rows, width, where))
        return Csr(indptr, indices.astype(_index(width), copy=False), as_single(data))
    out = Csr(indptr, np.empty(indptr[-1], _index(width)), np.empty(indptr[-1], np.float32))
    for first, last in _spans(starts, ends, near or _NEAR):
        begin, edge = int(starts[first]), indptr[first : last + 1]
        indices, data = entries(begin, int(ends[last - 1]))
        if len(indices) != edge[-1] - edge[0]:
            lengths = np.diff(edge)
            take = np.repeat(starts[first:last] - begin - (edge[:-1] - edge[0]), lengths) + np.arange(lengths.sum())
            indices, data = indices[take], data[take]
        check_columns(indices, edge - edge[0], (rows[first:last], width, where))
        out.indices[edge[0] : edge[-1]] = indices
        out.data[edge[0] : edge[-1]] = as_single(data)
    return out


def _spans(starts: Integers, ends: Integers, near: int, most: int = _SPAN) -> Iterator[tuple[int, int]]:
    """Cut rows into spans: gaps of more than `near` numbers end one, and so do `most` numbers, but for a longer row."""
    import numpy as np

    cuts = [0, *(np.flatnonzero(starts[1:] - ends[:-1] > near) + 1).tolist(), len(starts)]
    for begin, stop in pairwise(cuts):
        at = begin
        while at < stop:
            fits = int(np.searchsorted(ends[at:stop], starts[at] + most, side="right"))
            yield at, (at := at + max(1, fits))


def _dense_file(path: Path, key: str, node: Any) -> Nonzeros:
    where, shape, width = f"{path}, {key}", tuple(node.shape), int(node.shape[-1] if node.shape else 0)
    if len(shape) != 2:
        raise DataError(f"has the shape {[*shape]}, not [cells, genes]", where=where, remedy="Check what wrote it.")
    _check_kind(node.dtype, where)
    tall = node.chunks[0] if node.chunks else 1
    sized = hdf5(path, _cache(tall * width * node.dtype.itemsize // 2))
    per_span = tall * max(1, _SPAN // max(1, width * tall))

    @contextmanager
    def opened() -> Iterator[Read]:
        with _nodes(sized, [key]) as (again,):

            def read(rows: Integers) -> Csr:
                near = max(tall, _NEAR // max(1, width))
                return _packed((wanted(rows[i:j]) for i, j in _spans(rows, rows + 1, near, per_span)), width)

            def wanted(rows: Integers) -> Any:
                with reading(path, "HDF5", key):
                    return values(again, int(rows[0]), int(rows[-1]) + 1)[rows - rows[0]]

            yield read

    return Nonzeros((int(shape[0]), width), node.dtype.name, None, opened)


@contextmanager
def _nodes(tree: Tree, keys: list[str]) -> Iterator[list[Any]]:
    """Keep a file open. What the caller does meanwhile is no fault of the file's, so only the opening is watched."""
    with ExitStack() as stack:
        with reading(tree.path, tree.what, keys[0]):
            root = stack.enter_context(tree.opened())
            nodes = [tree.node(root, key) for key in keys]
        yield nodes


def _packed(blocks: Iterable[Any], width: int) -> Csr:
    """Take what is not zero from dense rows."""
    import numpy as np

    parts = []
    for block in blocks:
        row, column = np.nonzero(block)
        indptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=len(block)))])
        parts.append(Csr(indptr, column.astype(_index(width)), as_single(block[row, column])))
    return joined(parts, width)


def joined(parts: list[Csr], width: int) -> Csr:
    """Put rows that were read one after another into one."""
    import numpy as np

    if len(parts) == 1:
        return parts[0]
    lengths = [np.diff(part.indptr) for part in parts]
    return Csr(
        np.concatenate([np.zeros(1, np.int64), np.cumsum(np.concatenate([np.empty(0, np.int64), *lengths]))]),
        np.concatenate([np.empty(0, _index(width)), *(part.indices for part in parts)]),
        np.concatenate([np.empty(0, np.float32), *(part.data for part in parts)]),
    )


def _index(width: int) -> Any:
    import numpy as np

    return np.int32 if width <= np.iinfo(np.int32).max else np.int64


def as_single(data: Any) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Bring numbers to single precision; what it cannot hold becomes infinite, which is refused later on."""
    import numpy as np

    with np.errstate(over="ignore"):
        return np.asarray(data, dtype=np.float32)
