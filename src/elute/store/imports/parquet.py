"""Reader of Parquet files: float columns side by side are one array, a column of lists is another."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base.errors import DataError
from elute.store.imports.parts import NUMBERS, Column, Contents, Part, polars_reading, recut

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    from elute.store.imports.parts import Array


def read_parquet(path: Path, metadata: frozenset[str] = frozenset()) -> Contents:
    """List what a Parquet file holds; float columns that are wanted as `metadata` are left out of the array."""
    import polars as pl

    with polars_reading(path, "Parquet"):
        scan = pl.scan_parquet(path, glob=False, hive_partitioning=False)
        schema = scan.collect_schema()
        rows = int(scan.select(pl.len()).collect().item())
    arrays = {name: _list_part(path, (name, dtype), rows) for name, dtype in schema.items() if _listed(dtype)}
    floats = [name for name, dtype in schema.items() if dtype.is_float() and name not in metadata]
    if floats and not arrays:
        arrays[""] = _wide_part(path, floats, (rows, schema))
    columns = {name: _column(path, name, (rows, dtype)) for name, dtype in schema.items() if not dtype.is_nested()}
    return Contents(arrays, columns)


def _frames(path: Path, columns: list[str], cut: tuple[int, int]) -> Iterator[pl.DataFrame]:
    """Stream some columns in pieces: polars reads a few row groups ahead and waits for us to take them."""
    import polars as pl

    start, rows = cut
    with polars_reading(path, "Parquet"):
        scan = pl.scan_parquet(path, glob=False, hive_partitioning=False).select(columns).slice(start)
        yield from recut(scan.collect_batches(chunk_size=rows, maintain_order=True), rows, pl.concat)


def _column(path: Path, name: str, kind: tuple[int, pl.DataType]) -> Column:
    def read(start: int, rows: int) -> Iterator[pl.Series]:
        for frame in _frames(path, [name], (start, rows)):
            yield frame.to_series()

    return Column(kind[0], str(kind[1]), read)


def _wide_part(path: Path, names: list[str], kind: tuple[int, pl.Schema]) -> Part:
    import numpy as np

    widest = np.result_type(*(str(kind[1][name]).lower() for name in names))

    def read(start: int, rows: int) -> Iterator[Array]:
        for frame in _frames(path, names, (start, rows)):
            yield np.ascontiguousarray(frame.to_numpy(), dtype=widest)

    return Part((kind[0], len(names)), widest.name, read)


def _listed(dtype: pl.DataType) -> bool:
    import polars as pl

    return isinstance(dtype, (pl.List, pl.Array))


def _list_part(path: Path, field: tuple[str, pl.DataType], rows_in_all: int) -> Part:
    """A list a row: the first row says how long each of them must be."""
    import numpy as np
    import polars as pl

    name, leaf = field[0], _leaf(field[1])
    where = f"{path}, {name}"
    with polars_reading(path, "Parquet"):
        first = pl.scan_parquet(path, glob=False, hive_partitioning=False).select(name).head(1).collect().to_series()
    if not rows_in_all or leaf not in (*NUMBERS, "bool"):
        return Part((rows_in_all, *(0,) * (not rows_in_all)), leaf, lambda _start, _rows: iter(()))
    shape, dtype = _shape_of(first, where), np.dtype(leaf)

    def read(start: int, rows: int) -> Iterator[Array]:
        for i, frame in enumerate(_frames(path, [name], (start, rows))):
            yield _rectangle(frame.to_series(), (shape, dtype), (where, start + i * rows))

    return Part((rows_in_all, *shape), dtype.name, read)


def _leaf(dtype: pl.DataType) -> str:
    """What the innermost lists hold, by numpy's name."""
    inner: Any = dtype
    while hasattr(inner, "inner"):
        inner = inner.inner
    return {"boolean": "bool"}.get(str(inner).lower(), str(inner).lower())


def _as_lists(column: pl.Series) -> pl.Series:
    import polars as pl

    return column.arr.to_list() if isinstance(column.dtype, pl.Array) else column


def _shape_of(first: pl.Series, where: str) -> tuple[int, ...]:
    """The shape of the first row, as deep as its lists go."""
    shape: list[int] = []
    while _listed(first.dtype):
        lists = _as_lists(first)
        width = lists.list.len()[0] if len(lists) else None
        if not width:
            raise DataError("has no numbers in row 0", where=where, remedy="Fill it in, or leave the row out.")
        shape.append(int(width))
        first = lists.explode()
    return tuple(shape)


def _rectangle(
    column: pl.Series, kind: tuple[tuple[int, ...], np.dtype[Any]], place: tuple[str, int]
) -> np.ndarray[Any, Any]:
    """Make an array of lists that must all have one length, at every level."""
    (shape, dtype), (where, start), rows, per_row = kind, place, len(column), 1
    for width in shape:
        column = _as_lists(column)
        lengths = column.list.len()
        wrong = (lengths != width).fill_null(value=True).arg_true()
        if len(wrong):
            row, found = start + int(wrong[0]) // per_row, lengths[int(wrong[0])]
            raise DataError(
                f"row {row} holds " + ("no list" if found is None else f"{found} numbers where row 0 holds {width}"),
                where=where,
                remedy="Every row must hold as many: fill it up, or leave the row out.",
            )
        column, per_row = column.explode(), per_row * width
    if column.null_count() and dtype.kind != "f":
        row = start + int(column.is_null().arg_true()[0]) // per_row
        raise DataError(f"a number is missing in row {row}", where=where, remedy="Fill it in, or save it as floats.")
    return column.to_numpy().astype(dtype, copy=False).reshape(rows, *shape)
