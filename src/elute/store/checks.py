"""What a row must be to enter a store; each refusal is one line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base.contracts import Rows
from elute.base.errors import ConfigError, DataError, near
from elute.base.tensors import as_tensor
from elute.store import layout

if TYPE_CHECKING:
    import numpy as np
    import polars as pl
    import torch
    from numpy.typing import NDArray

KEY = tuple(name for name, (_, is_key) in layout.COLUMNS.items() if is_key)


def sites(widths: Mapping[str, int]) -> None:
    """Refuse a table of sites that no file could hold."""
    if not widths:
        raise ConfigError("a store needs at least one site", remedy="Give {name: width}.")
    for name, width in widths.items():
        if not name or name.startswith("__"):
            raise ConfigError(f"a site cannot be named {name!r}")
        if width < 1:
            raise ConfigError(f"site {name!r} has width {width}", remedy="A width is 1 or more.")


def tensors(rows: Rows | Mapping[str, Any], widths: Mapping[str, int], where: Path) -> dict[str, torch.Tensor]:
    """Take the rows of every site as `[n, width]` tensors of one length."""
    import numpy as np
    import torch

    taken: dict[str, torch.Tensor] = {}
    for name in [*widths, *(set(rows) - set(widths))]:
        if name not in rows:
            raise DataError(f"site {name!r} is missing from these rows", where=where, remedy=near(name, rows))
        if name not in widths:
            raise DataError(f"site {name!r} is not in this store", where=where, remedy=near(name, widths))
        x = rows[name]
        x = x.detach() if isinstance(x, torch.Tensor) else as_tensor(np.asarray(x))
        if x.ndim != 2:
            remedy = "Give [rows, width]: reshape(-1, 1) makes a column, flatten(0, -2) joins leading dimensions."
            raise DataError(f"site {name!r} came with shape {tuple(x.shape)}", where=where, remedy=remedy)
        if x.shape[1] != widths[name]:
            what = f"site {name!r} has width {widths[name]}, but these rows have {x.shape[1]}"
            raise DataError(what, where=where, remedy="Write them to another store, or check the site.")
        if x.is_complex() or x.dtype == torch.bool:
            raise DataError(f"site {name!r} holds {x.dtype}, not numbers that a store keeps", where=where)
        taken[name] = x
    if len({len(x) for x in taken.values()}) > 1:
        lengths = ", ".join(f"{name}: {len(x)}" for name, x in taken.items())
        raise DataError(f"the sites came with different numbers of rows ({lengths})", where=where)
    return taken


def metadata(given: pl.DataFrame | Mapping[str, Any], n: int, *, where: Path, known: Mapping[str, str]) -> pl.DataFrame:
    """Take `n` metadata rows in the store's column types; the first batch decides which columns there are."""
    import polars as pl

    frame = given if isinstance(given, pl.DataFrame) else pl.DataFrame(dict(given))
    if len(frame) != n:
        raise DataError(f"{n} rows came with {len(frame)} rows of metadata", where=where)
    if "sample_id" not in frame.columns:
        raise DataError("the metadata has no sample_id", where=where, remedy="Every row says which sample it is of.")
    if known and set(frame.columns) != set(known):
        lost = ", ".join(sorted(set(known) ^ set(frame.columns)))
        raise DataError(f"these rows differ from earlier ones in the columns {lost}", where=where)
    types = known or {c: layout.COLUMNS.get(c, (layout.type_name(t),))[0] for c, t in frame.schema.items()}
    try:
        frame = frame.select(pl.col(c).cast(layout.polars_type(t)) for c, t in types.items())
    except pl.exceptions.PolarsError as error:
        raise DataError(f"the metadata does not fit the columns: {error}", where=where) from None
    for column in (c for c in KEY if c in types):
        if frame[column].null_count():
            row = frame[column].is_null().arg_true()[0]
            raise DataError(f"{column} is missing in row {row} of this batch", where=where, remedy="It names the row.")
    return frame


def columns(frame: pl.DataFrame, where: Path) -> dict[str, Any]:
    """Return what the first batch decides: the columns with their types, and which of them are the key."""
    if "split" in frame.columns and "group" not in frame.columns:
        raise DataError(
            "rows with a split need a group", where=where, remedy="Splits are drawn by donor, patient or site."
        )
    return {
        "columns": {name: layout.type_name(dtype) for name, dtype in frame.schema.items()},
        "key": tuple(name for name in KEY if name in frame.columns),
    }


def cast(x: torch.Tensor, name: str, *, dtype: str, where: Path) -> torch.Tensor:
    """Convert to the store's number type; a finite number that does not fit it is an error, never an Inf."""
    import torch

    y = x.to("cpu", layout.torch_dtype(dtype))
    if dtype == "fp16" and x.dtype != torch.float16:
        lost = torch.isinf(y) & torch.isfinite(x.cpu())
        if lost.any():
            row = int(lost.any(1).nonzero()[0])
            value = float(x[row].abs().max())
            raise DataError(
                f"{int(lost.any(1).sum())} rows of site {name!r} do not fit fp16, the first with {value:.4g}",
                where=where, remedy="Store them as bf16 or fp32.",
            )  # fmt: skip
    return y


def bad_rows(by_site: Mapping[str, torch.Tensor]) -> torch.Tensor | None:
    """Mark rows with NaN or Inf; nothing if there are none, which one sum a site tells."""
    import torch

    if all(bool(torch.isfinite(x.sum(dtype=torch.float32))) for x in by_site.values()):
        return None
    finite = torch.stack([torch.isfinite(x).all(1) for x in by_site.values()]).all(0)
    return None if bool(finite.all()) else ~finite


def bad_error(bad: torch.Tensor, by_site: Mapping[str, torch.Tensor], *, first: int, where: Path) -> DataError:
    """Say how many rows are bad, and where the first one is."""
    import torch

    row = int(bad.nonzero()[0])
    name = next(n for n, x in by_site.items() if not bool(torch.isfinite(x[row]).all()))
    return DataError(
        f"{int(bad.sum())} of {len(bad)} rows hold NaN or Inf, the first is row {first + row} at site {name!r}",
        where=where, remedy="Mend the input, or choose bad rows: drop (counted) or keep.",
    )  # fmt: skip


def groups(frame: pl.DataFrame, known: dict[str, str], where: Path) -> None:
    """Refuse a group whose rows fall in two splits; `known` remembers the groups met so far."""
    if "split" not in frame.columns:
        return
    for group, split in frame.select("group", "split").unique(maintain_order=True).drop_nulls("split").iter_rows():
        if group is None:
            raise DataError(
                f"a row of the split {split!r} has no group", where=where, remedy="Splits are drawn by group."
            )
        if known.setdefault(group, split) != split:
            raise DataError(
                f"group {group!r} falls in two splits, {known[group]!r} and {split!r}",
                where=where, remedy="Draw the splits by group: `elute arrays split STORE`.",
            )  # fmt: skip


def repeated(
    frame: pl.DataFrame,
    suspects: NDArray[np.int64],
    earlier: Sequence[pl.DataFrame],
    *,
    key: tuple[str, ...],
    where: Path,
) -> None:
    """Compare the keys of suspected rows with all earlier ones; a real repetition is an error that shows the key."""
    import polars as pl

    mine = frame.select(key).with_row_index("row")
    wanted = mine.filter(pl.col("row").is_in(suspects.tolist()))
    twice = mine.join(wanted.select(key), on=key, how="semi").filter(pl.struct(key).is_duplicated())
    hits = [wanted.join(old.select(key), on=key, how="semi") for old in earlier] + [twice]
    met = pl.concat(hits).sort("row")
    if len(met):
        shown = ", ".join(f"{name}={met[name][-1 if len(twice) else 0]!r}" for name in key)
        raise DataError(
            f"a row comes twice: {shown} ({met['row'].n_unique()} such rows in this batch)",
            where=where, remedy="Remove it, or add a column that tells the rows apart (position, tile_id, epoch).",
        )  # fmt: skip
