"""Reading a run's tables for the Explorer: the columns that are asked for and are there, and no more rows than shown.

A table that is not there is None; one that is damaged is told in one line.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base import files
from elute.base.errors import DamagedError
from elute.reports.explorer.pack import plain

if TYPE_CHECKING:
    import polars as pl

_REMEDY = "Delete it, and give the command that wrote it again."
_DEEP = 12  # levels of a record that are looked at


def read(
    path: Path, columns: Sequence[str], *, needs: Sequence[str] = ("feature",), keep: pl.Expr | None = None
) -> pl.DataFrame | None:
    """Return the columns of a table that are there, and the rows to keep; None where it was not made."""
    import polars as pl

    if not path.is_file():
        return None
    try:
        lazy = pl.scan_parquet(path, glob=False)
        names = lazy.collect_schema().names()
        if lost := [name for name in needs if name not in names]:
            raise DamagedError(f"has no column {lost[0]!r}", where=path, remedy=_REMEDY)
        lazy = lazy if keep is None else lazy.filter(keep)
        return lazy.select([name for name in columns if name in names]).collect()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _unreadable(path, error) from None


def levels(path: Path, column: str, *, needs: Sequence[str]) -> list[str] | None:
    """Return the different texts of a column, in order; None where the table was not made."""
    import polars as pl

    if read(path, (), needs=needs, keep=pl.lit(value=False)) is None:
        return None
    try:
        found = pl.scan_parquet(path, glob=False).select(pl.col(column).cast(pl.String).unique())
        return found.collect(engine="streaming").to_series().drop_nulls().sort().to_list()
    except (pl.exceptions.PolarsError, OSError) as error:
        raise _unreadable(path, error) from None


def _unreadable(path: Path, error: Exception) -> DamagedError:
    first = (str(error).splitlines() or [""])[0]
    return DamagedError(f"cannot be read: {first}", where=path, remedy=_REMEDY)


def record(path: Path) -> dict[str, Any]:
    """Return a file of JSON as a page can hold it; empty where it is not there."""
    value = files.read_json(path, what="a record", remedy=_REMEDY) if path.is_file() else {}
    return plain_tree(value) if isinstance(value, dict) else {}


def plain_tree(value: Any, deep: int = _DEEP) -> Any:
    """Make any value one that JSON and a page have room for: texts cut, numbers finite, levels few."""
    if isinstance(value, bool) or value is None or isinstance(value, int):
        return value
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    if deep == 0:
        return plain(json.dumps(value, default=str))
    if isinstance(value, dict):
        return {plain(key): plain_tree(item, deep - 1) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain_tree(item, deep - 1) for item in value]
    return plain(value)


def part(value: Any, *names: str) -> Any:
    """Return what lies under names one below the other; None where one of them is missing."""
    for name in names:
        value = value.get(name) if isinstance(value, dict) else None
    return value
