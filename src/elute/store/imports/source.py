"""Rows of numbers that people already have, as a source that a store is written from a piece at a time.

    .npy .npz .pt .pth .safetensors    arrays [rows, width], or [samples, tokens, width]
    .parquet                           float columns side by side, or a column of lists
    .h5ad                              cells × genes (X, layers, raw) and obsm, dense or sparse, with the table obs
    .h5 .hdf5 .zarr                    any array in them, or AnnData's layout

1. The file's head is read, and the arrays named by `keys` are found; nothing is unpickled.
2. Ids and groups are read through once: a row without one, or two rows that are alike, are found before any is stored.
3. `pieces` reads arrays and metadata side by side, from any row on, in memory bounded by the piece and by the
   blocks that the file itself is packed in.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from elute.base.errors import ConfigError, DataError, near
from elute.store.imports import samples
from elute.store.imports.kinds import read_contents
from elute.store.imports.parts import NUMBERS, Column, Contents, Part, Read, T, join_arrays, recut

if TYPE_CHECKING:
    import polars as pl

    from elute.store.imports.parts import Array

DEFAULT_SITE = "activations"
_BYTES = {"bfloat16": 2}
_INSTEAD = {
    "bool": "Save it as numbers: array.astype('uint8').",
    "complex": "Save real and imaginary parts side by side, or the magnitude.",
}


@dataclass(frozen=True, eq=False)
class ArraySource:
    """Rows of numbers in a foreign file, with what is known about each."""

    path: Path
    sites: dict[str, int]  # name and width
    n_rows: int
    columns: dict[str, str]  # every column of metadata that could be asked for, and its type
    row_bytes: int  # of all sites, as they are read
    arrays: dict[str, Read[Array]]
    frames: Read[pl.DataFrame]

    def pieces(self, rows: int, start: int = 0) -> Iterator[tuple[dict[str, Array], pl.DataFrame]]:
        """Read from row `start` to the end in pieces of `rows` rows, the last one shorter."""
        if rows < 1:
            raise ConfigError(f"a piece needs at least 1 row, not {rows}")
        if not 0 <= start <= self.n_rows:
            raise ConfigError(f"has {self.n_rows} rows, so reading cannot start at row {start}", where=self.path)
        streams = [read(start, rows) for read in self.arrays.values()]
        for frame, *arrays in zip(self.frames(start, rows), *streams, strict=True):
            yield dict(zip(self.arrays, arrays, strict=True)), frame


def open_source(
    path: Path | str,
    *,
    keys: Sequence[str] = (),
    site: str | None = None,
    sample_id: str | None = None,
    group: str | None = None,
    columns: Sequence[str] = (),
    metadata: pl.DataFrame | None = None,
    first: int = 0,
) -> ArraySource:
    """Look into a file and say how its rows will be read.

    `sample_id`, `group` and `columns` name columns of the file or of `metadata`, a table from `read_metadata` whose
    columns are all taken. Without `sample_id` AnnData's index names the rows, else the metadata's sample_id, else their
    running number from `first` on.
    """
    path = Path(path)
    contents = read_contents(path, {*columns, *(name for name in (sample_id, group) if name is not None)})
    chosen = _chosen(contents, keys, path)
    n_samples, tokens = _size(chosen, path)
    known = {name: c for name, c in contents.columns.items() if name not in chosen}
    if metadata is not None:
        own = sample_id if sample_id is not None and sample_id in known else contents.index if not sample_id else None
        ids = None if own is None else _whole(_column(known, own, (n_samples, path)))
        table = samples.aligned(metadata, n_samples, ids=ids, where=path)
        known |= {name: _in_frame(table, name) for name in table.columns}
        given = {"sample_id", sample_id, *(["group"] if group is not None else [])}
        columns = list(dict.fromkeys((*columns, *(name for name in table.columns if name not in given))))
        contents = Contents(contents.arrays, known, contents.index or ("sample_id" if "sample_id" in known else None))
    plan = _plan(known, (sample_id or contents.index, group, columns), (n_samples, path))
    if tokens and "position" in plan:
        raise ConfigError(
            "a column 'position' would stand beside the tokens' own", where=path, remedy="Leave it out, or rename it."
        )
    _check(plan, (sample_id or contents.index, group), path)
    names = _names(list(chosen), site)
    frames = _frames(plan, (n_samples, first, path))
    return ArraySource(
        path=path,
        sites={names[key]: part.shape[-1] for key, part in chosen.items()},
        n_rows=n_samples * (tokens or 1),
        columns={name: column.dtype for name, column in known.items()},
        row_bytes=sum(part.shape[-1] * _item_bytes(part.dtype) for part in chosen.values()),
        arrays={
            names[key]: _by_token(part.read, tokens, spread=_flat, join=join_arrays) for key, part in chosen.items()
        },
        frames=_by_token(frames, tokens, spread=lambda frame: _repeated(frame, tokens), join=_stack),
    )


def _chosen(contents: Contents, keys: Sequence[str], path: Path) -> dict[str, Part]:
    """Find the arrays that were asked for, or the only one there is."""
    known = contents.arrays
    fit = [key for key, part in known.items() if _fault(part) is None]
    if not keys:
        if len(fit) > 1:
            listed = ", ".join(f"{key} {known[key]}" for key in fit[:12]) + (", …" if len(fit) > 12 else "")
            raise ConfigError(
                f"holds {len(fit)} arrays ({listed})",
                where=path,
                remedy=f"Choose: --key {fit[0]} (repeat it for more).",
            )
        if not fit and len(known) != 1:
            listed = ", ".join(f"{key} {part}" for key, part in list(known.items())[:12]) or "none at all"
            remedy = "Save one with a row a sample: array.reshape(len(array), -1)."
            raise DataError(f"holds no array of numbers [rows, width] ({listed})", where=path, remedy=remedy)
    asked = [key.strip("/") for key in keys] or fit or list(known)
    for key in asked:
        if key not in known:
            remedy = "It is one array: leave --key out." if list(known) == [""] else near(key, known)
            raise ConfigError(f"has no array {key!r}", where=path, remedy=remedy)
        if (fault := _fault(known[key])) is not None:
            raise DataError(fault[0], where=f"{path}, {key}" if key else path, remedy=fault[1])
    return {key: known[key] for key in asked}


def _fault(part: Part) -> tuple[str, str] | None:
    """Say why an array cannot be read as rows, and the remedy."""
    if part.flaw is not None:
        return part.flaw
    if part.dtype not in NUMBERS:
        kind = next((k for k in _INSTEAD if part.dtype.startswith(k)), "")
        return f"holds {part.dtype}, not numbers that a store keeps", _INSTEAD.get(kind, "Save it as float32.")
    if len(part.shape) < 2:
        return f"has the shape {[*part.shape]}, not [rows, width]", "Give it a width: array.reshape(-1, 1)."
    if len(part.shape) > 3:
        return f"has {len(part.shape)} dimensions {[*part.shape]}", "Make it [rows, width] or [samples, tokens, width]."
    if not part.shape[0]:
        return f"has no rows {[*part.shape]}", "Check what wrote it."
    return None if all(part.shape) else (f"has no numbers in its rows {[*part.shape]}", "Check what wrote it.")


def _size(chosen: dict[str, Part], path: Path) -> tuple[int, int]:
    """Return the number of samples, and of tokens in each (0 where a sample is one row)."""
    sizes = {key: part.shape[:-1] for key, part in chosen.items()}
    found = set(sizes.values())
    if len(found) > 1:
        shown = ", ".join(f"{key} {chosen[key]}" for key in sizes)
        raise DataError(
            f"the arrays have different numbers of rows ({shown})", where=path, remedy="Import them to separate stores."
        )
    size = found.pop()
    return size[0], size[1] if len(size) == 2 else 0


def _names(keys: list[str], site: str | None) -> dict[str, str]:
    """Name the sites: by the last part of each key, or by the whole of it where two would be called alike."""
    if site is not None:
        if len(keys) > 1:
            raise ConfigError(f"one site name {site!r} for {len(keys)} arrays", remedy="Leave --site out.")
        return {keys[0]: site}
    last = [key.rpartition("/")[2] for key in keys]
    return {
        key: (name if last.count(name) == 1 else key.replace("/", ".")) or DEFAULT_SITE
        for key, name in zip(keys, last, strict=True)
    }


def _column(known: dict[str, Column], name: str, place: tuple[int, Path]) -> Column:
    n_samples, path = place
    if name not in known:
        raise ConfigError(f"has no column {name!r}", where=path, remedy=near(name, known))
    column = known[name]
    if column.flaw is not None:
        raise DataError(f"column {name!r} {column.flaw[0]}", where=path, remedy=column.flaw[1])
    if column.length != n_samples:
        what = f"column {name!r} has {column.length} rows, and the array {n_samples}"
        raise DataError(what, where=path, remedy="Choose a column with a row a sample.")
    return column


def _plan(
    known: dict[str, Column], asked: tuple[str | None, str | None, Sequence[str]], place: tuple[int, Path]
) -> dict[str, Column]:
    """Say which column each column of the result is read from."""
    sample_id, group, columns = asked
    plan = {
        out: _column(known, name, place)
        for out, name in (("sample_id", sample_id), ("group", group))
        if name is not None
    }
    for name in columns:
        column = _column(known, name, place)
        if plan.get(name, column) is not column or (name == "sample_id" and name not in plan):
            flag = f"--{name.replace('_', '-')}"
            raise ConfigError(
                f"a column {name!r} would stand beside the one that {flag} gives",
                where=place[1],
                remedy=f"Give {flag} {name}, or leave it out of the columns.",
            )
        plan[name] = column
    return plan


def _check(plan: dict[str, Column], told: tuple[str | None, str | None], path: Path) -> None:
    """Read ids and groups through once, before anything is stored."""
    checked = {name: column for name, column in plan.items() if name in samples.CHECKED}
    names = {name: f"column {asked or name!r}" for name, asked in zip(("sample_id", "group"), told, strict=True)}
    if named := {name: text for name, text in names.items() if name in checked}:
        length = next(iter(checked.values())).length
        samples.check_rows(_frames(checked, (length, 0, path)), named, path)


def _frames(plan: dict[str, Column], size: tuple[int, int, Path]) -> Read[pl.DataFrame]:
    """Read the planned columns side by side; without ids, rows are named by their running number."""
    n_samples, first, path = size

    def read(start: int, rows: int) -> Iterator[pl.DataFrame]:
        import polars as pl

        streams = {name: column.read(start, rows) for name, column in plan.items()}
        for at in range(start, n_samples, rows):
            numbers = pl.int_range(first + at, first + min(at + rows, n_samples), eager=True)
            given = {name: samples.storable(next(stream).alias(name), path) for name, stream in streams.items()}
            texts = {name: samples.as_text(given[name]) for name in ("sample_id", "group") if name in given}
            yield pl.DataFrame({"sample_id": samples.as_text(numbers)} | given | texts)

    return read


def _in_frame(frame: pl.DataFrame, name: str) -> Column:
    column = frame[name]

    def read(start: int, rows: int) -> Iterator[pl.Series]:
        return (column[at : at + rows] for at in range(start, len(column), rows))

    return Column(len(column), str(column.dtype), read)


def _whole(column: Column) -> pl.Series:
    import polars as pl

    return samples.as_text(pl.concat(list(column.read(0, max(1, column.length)))))


def _by_token(read: Read[T], tokens: int, *, spread: Callable[[T], T], join: Callable[[list[T]], T]) -> Read[T]:
    """Read rows of samples as rows of tokens."""
    if not tokens:
        return read

    def by_token(start: int, rows: int) -> Iterator[T]:
        skip = start % tokens

        def pieces() -> Iterator[T]:
            for i, piece in enumerate(read(start // tokens, -(-rows // tokens))):
                yield spread(piece)[skip * (i == 0) :]  # type: ignore[index]

        yield from recut(pieces(), rows, join)

    return by_token


def _flat(array: Array) -> Array:
    return array.reshape(-1, array.shape[-1])


def _stack(frames: list[pl.DataFrame]) -> pl.DataFrame:
    import polars as pl

    return pl.concat(frames)


def _repeated(frame: pl.DataFrame, tokens: int) -> pl.DataFrame:
    """Repeat the row of each sample for each of its tokens, and number them."""
    import numpy as np
    import polars as pl

    position = pl.Series("position", np.tile(np.arange(tokens, dtype=np.int32), len(frame)))
    return frame[np.repeat(np.arange(len(frame)), tokens)].with_columns(position)


def _item_bytes(dtype: str) -> int:
    import numpy as np

    return _BYTES.get(dtype) or np.dtype(dtype).itemsize
