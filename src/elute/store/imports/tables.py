"""Tables in AnnData files (`obs`, `var`, `raw/var`): one column an array, in every form that anndata has written.

Up to 0.6 a table was one array of records, its categories in `uns`; up to 0.7 the categories stood in the table's
`__categories`; since then each column says itself what it is.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from elute.base.errors import DamagedError
from elute.store.imports.parts import AGAIN, Column, Part, as_column, reading, series
from elute.store.imports.trees import Tree, array_part, attribute, is_array, values

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    from elute.store.imports.parts import Array

_OF = {"obs": "cells", "var": "genes", "raw/var": "genes", "raw.var": "genes"}


def table(tree: Tree, root: Any, key: str) -> tuple[str, dict[str, Column]]:
    """Return a table's columns by name, and which of them is the index, which comes first."""
    with reading(tree.path, tree.what, key):
        node = tree.node(root, key)
        if is_array(node):
            return _records(tree, root, (key, node))
        index = str(attribute(node, "_index"))
        named = [str(name) for name in attribute(node, "column-order") or ()]
        old = list(node["__categories"]) if "__categories" in node else []
        found = {name: f"{key}/{name}" for name in (index, *named) if name in node}
    if index not in found:
        what = f"its table of {_OF.get(key, key)} lacks the index {index!r}"
        raise DamagedError(what, where=tree.path, remedy=AGAIN)
    return index, {
        name: _column(tree, root, (place, f"{key}/__categories/{name}" if name in old else None))
        for name, place in found.items()
    }


def _records(tree: Tree, root: Any, held: tuple[str, Any]) -> tuple[str, dict[str, Column]]:
    """List the columns of a table of anndata up to 0.6: one array of records."""
    key, node = held
    names = list(node.dtype.names or ())
    if not names:
        raise DamagedError(f"its table of {_OF.get(key, key)} has no columns", where=tree.path, remedy=AGAIN)
    index = "index" if "index" in names else names[0]
    columns = {}
    for name in (index, *(n for n in names if n != index)):
        part = _field(tree, key, (name, node))
        categories = f"uns/{name}_categories"
        coded = node.dtype[name].kind in "iu" and key == "obs" and tree.holds(root, categories)
        columns[name] = _categorical(tree, part, (key, categories)) if coded else as_column(part, f"{tree.path}, {key}")
    return index, columns


def _field(tree: Tree, key: str, held: tuple[str, Any]) -> Part:
    name, node = held
    dtype, length = node.dtype[name], int(node.shape[0])

    def read(start: int, rows: int) -> Iterator[Array]:
        with reading(tree.path, tree.what, key), tree.opened() as root:
            again = tree.node(root, key)
            for at in range(start, length, rows):
                yield again.fields(name)[at : at + rows]

    simple = dtype.kind in "biufSUO" and not dtype.shape
    flaw = None if simple else (f"holds {dtype}, not one number or text a row", "Save it as text or numbers.")
    return Part((length,), "string" if dtype.kind in "SUO" else dtype.name, read, flaw)


def _column(tree: Tree, root: Any, keys: tuple[str, str | None]) -> Column:
    """Make a column of the cells' table, of any of the forms that AnnData writes it in."""
    key, categories = keys
    with reading(tree.path, tree.what, key):
        node = tree.node(root, key)
        if is_array(node):
            if categories is None:
                return as_column(array_part(tree, key, node), f"{tree.path}, {key}")
            return _categorical(tree, array_part(tree, key, node), (key, categories))
        form = str(attribute(node, "encoding-type"))
        if form == "categorical":
            codes = array_part(tree, f"{key}/codes", tree.node(root, f"{key}/codes"))
            return _categorical(tree, codes, (f"{key}/codes", f"{key}/categories"))
        if form.startswith("nullable-") and node["values"].shape == node["mask"].shape:
            return _nullable(tree, key, array_part(tree, f"{key}/values", node["values"]))
    flaw = (f"has the encoding {form!r}, which elute does not read", "Save it as text, numbers or categories.")
    return Column(0, form, lambda _start, _rows: iter(()), flaw)


def _categorical(tree: Tree, codes: Part, keys: tuple[str, str]) -> Column:
    where = f"{tree.path}, {keys[0]}"

    def read(start: int, rows: int) -> Iterator[pl.Series]:
        with reading(tree.path, tree.what, keys[0]), tree.opened() as root:
            node = tree.node(root, keys[1])
            names = series(values(node, 0, node.shape[0]), where)
        for piece in codes.read(start, rows):
            yield _named(piece, names, where)

    return Column(codes.shape[0], "categorical", read)


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
