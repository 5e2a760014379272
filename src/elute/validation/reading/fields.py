"""Lines of a delimited text as columns: every line has the header's fields, or the first that has not is named."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from elute.base.errors import DamagedError, DataError

if TYPE_CHECKING:
    import polars as pl


class Form(NamedTuple):
    """How lines are written."""

    separator: str
    quoted: bool
    comment: str  # begins a line that is no row
    width: int  # fields of the header
    ragged: bool  # lines may lack their last fields


def frame(text: str, first: int, path: Path, *, form: Form, columns: Mapping[str, int | None]) -> pl.DataFrame:
    """Return the columns at their places, without white space around a field; blank fields and no place are null.

    `first` is the number of the first line in the file.
    """
    import polars as pl

    there = {name: at for name, at in columns.items() if at is not None}
    if form.quoted:
        rows = _quoted(text, first, path, form)
        found = {name: [row[at] if at < len(row) else None for row in rows] for name, at in there.items()}
        table = pl.DataFrame(found, schema=dict.fromkeys(found, pl.String))
    else:
        parts = _plain(text, first, path, form).str.split(form.separator)
        table = pl.DataFrame([parts.list.get(at, null_on_oob=True).alias(name) for name, at in there.items()])
    stripped = [pl.col(name).str.strip_chars() for name in table.columns]
    table = table.with_columns(stripped).with_columns(
        pl.when(pl.col(name) != "").then(name).alias(name) for name in table.columns
    )
    absent = [pl.lit(None, pl.String).alias(name) for name, at in columns.items() if at is None]
    return table.with_columns(absent).select(list(columns))


def _plain(text: str, first: int, path: Path, form: Form) -> pl.Series:
    """Return the lines that are rows, once each has its fields."""
    import polars as pl

    lines = pl.DataFrame({"line": text.split("\n")}).with_row_index("number", offset=first)
    line = pl.col("line")
    is_row = line.str.strip_chars() != ""
    if form.comment:
        is_row &= ~line.str.starts_with(form.comment)
    rows = lines.filter(is_row)
    fields = rows["line"].str.count_matches(form.separator, literal=True) + 1
    wrong = (fields > form.width) if form.ragged else (fields != form.width)
    if wrong.any():
        at = wrong.arg_max() or 0
        _check(fields[at], rows["number"][at], path, form)
    return rows["line"]


def _quoted(text: str, first: int, path: Path, form: Form) -> list[list[str]]:
    """Read fields that may stand in quotes, and hold line ends."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=form.separator, strict=True)
    rows, begins = [], first
    try:
        for row in reader:
            if any(field.strip() for field in row) and not (form.comment and row[0].startswith(form.comment)):
                _check(len(row), begins, path, form)
                rows.append(row)
            begins = first + reader.line_num
    except csv.Error as error:
        raise DataError(f"line {begins:,} cannot be read: {error}", where=path) from None
    return rows


def _check(fields: int, number: int, path: Path, form: Form) -> None:
    if fields > form.width or (fields < form.width and not form.ragged):
        what = f"line {number:,} has {fields:,} fields, not the header's {form.width:,}"
        raise DamagedError(what, where=path, remedy="Download it anew.")
