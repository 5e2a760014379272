"""What is known about the samples: a table beside the array, and what every row must have."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from elute.base.errors import DataError
from elute.store.imports.kinds import check_file
from elute.store.imports.parts import polars_reading
from elute.store.keys import SeenHashes, hash_keys
from elute.store.layout import COLUMNS

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    from elute.store.imports.parts import Read

CHECKED = ("group", *(name for name, (_, is_key) in COLUMNS.items() if is_key))
_KINDS = {
    ".parquet": "Parquet",
    **dict.fromkeys((".csv", ".tsv"), "a table in text"),
    **dict.fromkeys((".jsonl", ".ndjson"), "JSON lines"),
}
_MISSING = ["", "NA", "NaN", "nan"]
_PIECE = 1 << 16
_MOST_SUSPECTS = 1 << 16


def read_metadata(path: Path | str) -> pl.DataFrame:
    """Read a table of samples: Parquet, CSV, TSV, or JSON lines."""
    import polars as pl

    path = Path(path)
    check_file(path, _KINDS)
    kind = path.suffix.lower()
    with polars_reading(path, _KINDS[kind]):
        if kind == ".parquet":
            frame = pl.read_parquet(path, glob=False, hive_partitioning=False)
        elif kind in (".csv", ".tsv"):
            separator = "\t" if kind == ".tsv" else ","
            frame = _typed(pl.read_csv(path, separator=separator, infer_schema=False, null_values=_MISSING, glob=False))
        else:
            frame = pl.read_ndjson(path.read_bytes(), infer_schema_length=None)
    twice = [name.removesuffix("_duplicated_0") for name in frame.columns if name.endswith("_duplicated_0")]
    if twice:
        raise DataError(f"has two columns {twice[0]!r}", where=path, remedy="Rename one of them.")
    nested = [name for name, dtype in frame.schema.items() if dtype.is_nested()]
    if nested:
        raise DataError(f"column {nested[0]!r} holds lists or records", where=path, remedy="Leave it out.")
    if not len(frame):
        raise DataError("has no rows", where=path, remedy="It needs one row a sample, below a line of names.")
    return frame


def _typed(frame: pl.DataFrame) -> pl.DataFrame:
    """Turn columns of text into numbers where nothing is lost: an id 007 or 1E5 stays the text that it is."""
    import polars as pl

    def typed(text: pl.Series) -> pl.Series:
        known = text.drop_nulls()
        whole = known.cast(pl.Int64, strict=False)
        if not len(known) or text.name == "sample_id":
            return text
        if not whole.null_count() and (whole.cast(pl.String) == known).all():
            return text.cast(pl.Int64)
        if known.str.to_lowercase().is_in(["true", "false"]).all():
            return text.str.to_lowercase() == "true"
        decimal = not known.cast(pl.Float64, strict=False).null_count() and known.str.contains(".", literal=True).any()
        return text.cast(pl.Float64) if decimal and not known.str.contains(r"^[+-]?0\d").any() else text

    return frame.with_columns(typed(column) for column in frame.get_columns())


def aligned(frame: pl.DataFrame, samples: int, *, ids: pl.Series | None, where: Path) -> pl.DataFrame:
    """Bring a table into the order of the file: by the file's ids where both have them, else as it stands."""
    import polars as pl

    if ids is None or "sample_id" not in frame.columns:
        if len(frame) != samples:
            raise DataError(
                f"has {samples} samples, and the metadata {len(frame)} rows",
                where=where,
                remedy="Give one row a sample in the same order, or a column sample_id in both.",
            )
        return frame
    table = frame.with_columns(pl.col("sample_id").cast(pl.String))
    known = table["sample_id"].drop_nulls()
    twice = known.filter(known.is_in(ids.implode()) & known.is_duplicated()).unique(maintain_order=True)
    if len(twice):
        what = f"{len(twice)} sample ids stand twice in the metadata ({_shown(twice)})"
        raise DataError(what, where=where, remedy="Keep one row of each.")
    missing = ids.filter(~ids.is_in(known.implode()))
    if len(missing):
        what = f"{len(missing)} of {samples} samples are not in the metadata ({_shown(missing)})"
        raise DataError(what, where=where, remedy="Add their rows, or check that both write the ids alike.")
    return pl.DataFrame({"sample_id": ids}).join(table, on="sample_id", how="left", maintain_order="left")


def _shown(values: pl.Series) -> str:
    return ", ".join(repr(v) for v in values.head(3)) + (", …" if len(values) > 3 else "")


def check_rows(frames: Read[pl.DataFrame], names: dict[str, str], where: Path) -> None:
    """Refuse rows without an id or a group, and two rows alike; `names` says which columns were asked for."""
    missing: dict[str, list[int]] = {}
    lost: dict[str, int] = {}
    suspects: list[int] = []
    repeated, start = 0, 0
    seen = SeenHashes() if "sample_id" in names else None
    for frame in frames(0, _PIECE):
        for name in names:
            rows = frame[name].is_null().arg_true()
            lost[name] = lost.get(name, 0) + len(rows)
            missing[name] = (missing.get(name, []) + [start + int(r) for r in rows.head(2)])[:2]
        if seen is not None:
            hashes = hash_keys(frame, _key(frame))
            met = seen.add(hashes)
            repeated += len(met)
            suspects += hashes[met[: _MOST_SUSPECTS - len(suspects)]].tolist()
        start += len(frame)
    for name, count in lost.items():
        if count:
            shown = " and ".join(map(str, missing[name]))
            raise DataError(
                f"{names[name]} has no value in {count} row{'s' * (count > 1)}, say {shown}: each needs a {name}",
                where=where,
                remedy="Fill it in, or choose another column.",
            )
    if suspects:
        _refuse_twins(frames, suspects, (names["sample_id"], repeated, where))


def _key(frame: pl.DataFrame) -> tuple[str, ...]:
    return tuple(name for name in frame.columns if name in COLUMNS and COLUMNS[name][1])


def _refuse_twins(frames: Read[pl.DataFrame], suspects: list[int], told: tuple[str, int, Path]) -> None:
    """Look again at the rows whose hashes met, since two different keys may share one."""
    import numpy as np
    import polars as pl

    wanted: np.ndarray[tuple[int], np.dtype[np.uint64]] = np.unique(np.array(suspects, dtype=np.uint64))
    alike, start = [], 0
    for frame in frames(0, _PIECE):
        rows = frame.with_row_index("row", offset=start)
        alike.append(rows.filter(pl.Series(np.isin(hash_keys(frame, _key(frame)), wanted))))
        start += len(frame)
    found = pl.concat(alike)
    key = _key(found)
    twins = found.filter(pl.struct(key).is_duplicated())
    if not len(twins):
        return
    name, repeated, where = told
    first = twins.join(twins.head(1).select(key), on=key, how="semi", nulls_equal=True, maintain_order="left")
    shown = ", ".join(repr(first[column][0]) for column in key)
    more = f", and {repeated - 1} more such rows" if repeated > 1 else ""
    raise DataError(
        f"{name} is no id: {shown} stands in rows {first['row'][0]} and {first['row'][1]}{more}",
        where=where,
        remedy="Choose a unique column (--sample-id), or add one that tells the rows apart (position, tile_id).",
    )


def storable(column: pl.Series, where: Path) -> pl.Series:
    """Bring a column to a type that a store keeps: categories, dates and decimals as text."""
    import polars as pl

    dtype = column.dtype
    if dtype.is_nested() or dtype in (pl.Binary, pl.Object):
        raise DataError(f"column {column.name!r} holds {dtype}", where=where, remedy="Leave it out.")
    if dtype == pl.Float16:
        return column.cast(pl.Float32)
    kept = dtype in (pl.String, pl.Boolean, pl.Float32, pl.Float64) or (dtype.is_integer() and "128" not in str(dtype))
    return column if kept else column.cast(pl.String)


def as_text(column: pl.Series) -> pl.Series:
    """Name samples and groups by text; a number that is NaN is no name."""
    import polars as pl

    known = column.fill_nan(None) if column.dtype.is_float() else column
    return known.cast(pl.String)
