"""A table of tiles, spots or slides, read into the columns that tiles have: every value checked, none guessed.

A table of text is read as text, so that a name such as `007` stays what it is; what must be numbers is read as such.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import polars as pl

from elute.base import files
from elute.base.errors import DamagedError, DataError, near
from elute.tissue.tile_settings import USUAL

TEXTS = ("sample", "tile", "group", "section", "label", "path")
NUMBERS = {"x": pl.Float64, "y": pl.Float64, "offset": pl.Int64, "nbytes": pl.Int64}
SCHEMA = {
    "sample_id": pl.String,
    "tile_id": pl.String,
    "group": pl.String,
    "section": pl.String,
    "x": pl.Float64,
    "y": pl.Float64,
    "size_px": pl.Float64,
    "microns_per_pixel": pl.Float64,
    "label": pl.String,
}
_SEPARATORS = {".csv": ",", ".tsv": "\t", ".txt": "\t"}


def names_digest(table: pl.DataFrame) -> str:
    """Name which tiles of which samples and groups a table has, in their order."""
    return files.digest_json(table.select("sample_id", "tile_id", "group").rows())


def read_table(path: Path, roles: Mapping[str, str]) -> pl.DataFrame:
    """Read a table into one column a role that it has; a column that was named and is not there is an error."""
    raw = _read(path)
    if not raw.height:
        raise DataError("has no rows", where=path, remedy="Give a table with one row a tile, spot or slide.")
    found: dict[str, pl.Series] = {}
    for role, usual in USUAL.items():
        if role in roles:
            found[role] = _joined(raw, roles[role], role, path)
        elif usual in raw.columns:
            found[role] = _joined(raw, usual, role, path)
    for role in found:
        found[role] = _numbers(found[role], role, path) if role in NUMBERS else _texts(found[role])
    return pl.DataFrame([series.alias(role) for role, series in found.items()])


def identified(table: pl.DataFrame, where: object) -> pl.DataFrame:
    """Bring a table into the columns of tiles, `SCHEMA`; two tiles of one name are an error."""
    missing = [name for name in SCHEMA if name not in table.columns]
    table = table.with_columns(pl.lit(None).alias(name) for name in missing)
    table = table.select(pl.col(name).cast(kind) for name, kind in SCHEMA.items())
    for name in ("sample_id", "tile_id"):
        if table[name].null_count():
            row = table[name].is_null().arg_true()[0]
            raise DataError(f"tile {row + 1} has no {name}", where=where, remedy="Every tile has a name.")
    key = ["sample_id", "tile_id"]
    if table.select(key).is_duplicated().any():
        twice = table.with_row_index("row").filter(pl.struct(key).is_duplicated())
        first = twice.filter(
            (pl.col("sample_id") == twice["sample_id"][0]) & (pl.col("tile_id") == twice["tile_id"][0])
        )
        what = f"tiles {first['row'][0] + 1} and {first['row'][1] + 1} are both"
        raise DataError(
            f"{what} sample {first['sample_id'][0]!r}, tile {first['tile_id'][0]!r}",
            where=where,
            remedy="Leave one out, or name a column that tells them apart: columns tile=COLUMN.",
        )
    return table


def _read(path: Path) -> pl.DataFrame:
    if not path.is_file():
        state = "is a folder, not a table" if path.is_dir() else "there is no such table"
        raise DataError(state, where=path, remedy="Check --table.")
    try:
        if path.suffix.lower() == ".parquet":
            return pl.read_parquet(path)
        if path.suffix.lower() in _SEPARATORS:
            return pl.read_csv(path, separator=_SEPARATORS[path.suffix.lower()], infer_schema=False)
    except (pl.exceptions.PolarsError, OSError, UnicodeDecodeError) as error:
        what = f"cannot be read as a table: {str(error).splitlines()[0][:160]}"
        raise DamagedError(what, where=path, remedy="Save it anew, one row a tile under one line of names.") from None
    raise DataError("is no table that is known here", where=path, remedy="Give a .csv, .tsv or .parquet file.")


def _joined(raw: pl.DataFrame, text: str, role: str, path: Path) -> pl.Series:
    """The column of that name, or several joined by `_` where the text is `a+b`."""
    names = [text] if text in raw.columns else [part.strip() for part in text.split("+")]
    for name in names:
        if name not in raw.columns:
            what = f"has no column {name!r}, which was named for {role}"
            raise DataError(what, where=path, remedy=near(name, raw.columns))
    try:
        parts = raw.select(pl.col(name).cast(pl.String) for name in names)
    except pl.exceptions.PolarsError:
        remedy = "Name a column of texts or numbers."
        raise DataError(f"the column {text!r}, for {role}, holds no plain values", where=path, remedy=remedy) from None
    return parts.select(pl.concat_str(names, separator="_")).to_series()


def _texts(text: pl.Series) -> pl.Series:
    """Take an empty text for a value that is not there."""
    return text.to_frame("x").select(pl.when(pl.col("x") == "").then(None).otherwise(pl.col("x"))).to_series()


def _numbers(text: pl.Series, role: str, path: Path) -> pl.Series:
    text = text.str.strip_chars()
    numbers = text.cast(pl.Float64, strict=False)
    wrong = (numbers.is_null() & text.is_not_null() & (text != "")) | ~numbers.is_finite().fill_null(value=True)
    if NUMBERS[role] == pl.Int64:  # 12.0 is what a table of numbers with gaps makes of 12
        wrong = wrong | (numbers != numbers.floor()).fill_null(value=False)
    if wrong.any():
        row = wrong.arg_true()[0]
        what = f"row {row + 1} has {role} {text[row]!r}, which is no number"
        raise DataError(what, where=path, remedy="Mend the table, or name another column.")
    return numbers.cast(NUMBERS[role])
