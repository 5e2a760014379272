"""What every reader of foreign files gives: arrays and columns that are read a piece at a time.

A reader looks at a file's head alone and gives a `Contents`. Its arrays and columns each hold a function
`read(start, rows)`, which opens what it needs, gives pieces of `rows` rows from row `start` to the end, the last one
shorter, and closes again.
"""

from __future__ import annotations

import lzma
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from elute.base.errors import DamagedError, DataError, EluteError

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    import torch

    Array: TypeAlias = np.ndarray[Any, Any] | torch.Tensor

T = TypeVar("T")
Read: TypeAlias = Callable[[int, int], Iterator[T]]

NUMBERS = (
    *("float16", "bfloat16", "float32", "float64"),
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in (8, 16, 32, 64)),
)
AGAIN = "Write it anew, or restore it from a copy."
_FAULTS = (
    *(OSError, EOFError, ValueError, KeyError, TypeError, IndexError, AttributeError, RuntimeError),
    *(MemoryError, OverflowError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
)


@dataclass(frozen=True, eq=False)
class Part:
    """An array in a file; with a `flaw` (what it is, and the remedy) it can be named, but not read."""

    shape: tuple[int, ...]
    dtype: str
    read: Read[Array]
    flaw: tuple[str, str] | None = None

    def __str__(self) -> str:
        return f"{self.dtype} [{', '.join(map(str, self.shape))}]"


@dataclass(frozen=True, eq=False)
class Column:
    """A column of metadata in a file, named by its type."""

    length: int
    dtype: str
    read: Read[pl.Series]
    flaw: tuple[str, str] | None = None


@dataclass(frozen=True, eq=False)
class Contents:
    """What a file holds: arrays by their key ("" where the file is one array), and columns by their name."""

    arrays: dict[str, Part]
    columns: dict[str, Column] = field(default_factory=dict)
    index: str | None = None  # the column that names the rows, where the format has one


@contextmanager
def reading(path: Path, what: str, key: str = "") -> Iterator[None]:
    """Turn what a library says about a damaged file into one line."""
    try:
        yield
    except EluteError:
        raise
    except _FAULTS as error:
        text = (str(error).strip() or type(error).__name__).splitlines()[0]
        place = f"{path}, {key}" if key else path
        raise DamagedError(f"cannot be read as {what} ({text})", where=place, remedy=AGAIN) from error


@contextmanager
def polars_reading(path: Path, what: str) -> Iterator[None]:
    """Turn what polars says about a damaged file into one line; its reader panics on some of them."""
    from polars.exceptions import PanicException, PolarsError

    with reading(path, what):
        try:
            yield
        except (PolarsError, PanicException) as error:
            raise ValueError(str(error)) from error


def recut(pieces: Iterable[T], rows: int, join: Callable[[list[T]], T]) -> Iterator[T]:
    """Cut a stream of arrays, series or frames anew: pieces of `rows` rows, the last one shorter."""
    held: list[T] = []
    count = 0
    for piece in pieces:
        size, at = len(piece), 0  # type: ignore[arg-type]
        while size - at >= rows - count:
            cut = at + rows - count
            held.append(piece[at:cut])  # type: ignore[index]
            yield held[0] if len(held) == 1 else join(held)
            held, count, at = [], 0, cut
        if at < size:
            held.append(piece[at:])  # type: ignore[index]
            count += size - at
    if held:
        yield held[0] if len(held) == 1 else join(held)


def join_arrays(arrays: list[Array]) -> Array:
    """Put arrays of one kind under one another."""
    import numpy as np
    import torch

    tensors = [a for a in arrays if isinstance(a, torch.Tensor)]
    return torch.cat(tensors) if tensors else np.concatenate([np.asarray(a) for a in arrays])


def native(array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Return rows that lie one after another in this machine's byte order; a view where they already do."""
    import numpy as np

    dtype = array.dtype if array.dtype.isnative else array.dtype.newbyteorder("=")
    return np.ascontiguousarray(np.asarray(array), dtype=dtype)


def in_memory(array: Array) -> Part:
    """Make a part of an array that is in memory, or mapped into it."""
    import torch

    tensor = isinstance(array, torch.Tensor)

    def read(start: int, rows: int) -> Iterator[Array]:
        for at in range(start, len(array), rows):
            piece = array[at : at + rows]
            yield piece.contiguous() if isinstance(piece, torch.Tensor) else native(piece)

    name = str(array.dtype).removeprefix("torch.") if tensor else array.dtype.name  # type: ignore[union-attr]
    return Part(tuple(array.shape), name, read)


def as_column(part: Part, where: object) -> Column:
    """Take an array of one number or text a row as a column of metadata."""

    def read(start: int, rows: int) -> Iterator[pl.Series]:
        for piece in part.read(start, rows):
            yield series(piece, where)

    return Column(part.shape[0], part.dtype, read, part.flaw)


def series(array: Array, where: object) -> pl.Series:
    """Make a polars series of one number or text a row."""
    import numpy as np
    import polars as pl

    # Asked so, because torch takes seconds to load, and a table of text needs none of it.
    x: Any = native(array) if isinstance(array, np.ndarray) else array.float().numpy()
    if x.dtype.kind in "SUTO":
        return pl.Series(_texts(x, where), dtype=pl.String)
    if x.dtype.kind in "fiubMm" and x.dtype.itemsize <= 8:
        return pl.Series(x.astype(np.float32) if x.dtype == np.float16 else x)
    raise DataError(f"a column of {x.dtype} cannot be metadata", where=where, remedy="Save it as text or numbers.")


def _texts(array: np.ndarray[Any, Any], where: object) -> list[str | None]:
    try:
        return [v.decode() if isinstance(v, bytes) else v if v is None else str(v) for v in array.tolist()]
    except UnicodeDecodeError as error:
        raise DamagedError(f"holds text that is not UTF-8 ({error})", where=where, remedy=AGAIN) from None
