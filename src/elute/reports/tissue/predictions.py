"""What was measured and what was predicted of each gene on held-out patients, from either form in which heads write it.

A long table (a row a sample and gene) while it is small; else two matrices in `heads/predictions.safetensors`, of which
one gene's column is read at a time.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import polars as pl

from elute.base.errors import DamagedError, DataError

if TYPE_CHECKING:
    from collections.abc import Mapping

_COLUMNS = ("sample_id", "fold", "measured", "predicted")
_AGAIN = "Type: elute tissue train_heads, with the run's --config."


@dataclass(frozen=True, eq=False)
class Predictions:
    """Held-out values by gene."""

    tables: Mapping[str, pl.DataFrame]
    rows: pl.DataFrame | None = None  # sample_id, fold: the rows of the matrices
    matrices: Path | None = None
    places: Mapping[str, int] | None = None

    def of(self, gene: str) -> pl.DataFrame:
        """Return sample_id, fold, measured, predicted of a gene; no rows where there are none."""
        if gene in self.tables:
            return self.tables[gene]
        if self.matrices is None or self.rows is None or gene not in (self.places or {}):
            return pl.DataFrame(schema=dict(zip(_COLUMNS, (pl.String, pl.Int64, pl.Float64, pl.Float64), strict=True)))
        from safetensors import safe_open

        place = (self.places or {})[gene]
        with safe_open(str(self.matrices), framework="numpy") as store:
            both = {name: store.get_slice(name)[:, place : place + 1].reshape(-1) for name in _COLUMNS[2:]}
        return self.rows.with_columns(**{name: pl.Series(values).cast(pl.Float64) for name, values in both.items()})

    @property
    def samples(self) -> int:
        """How many samples a gene has at most."""
        if self.rows is not None:
            return len(self.rows)
        return max((len(table) for table in self.tables.values()), default=0)


def open_predictions(folder: Path) -> Predictions:
    """Find the predictions of a run; none is no error."""
    path, matrices = folder / "heads" / "predictions.parquet", folder / "heads" / "predictions.safetensors"
    if not path.is_file():
        return Predictions({})
    try:
        frame = pl.read_parquet(path, glob=False)
    except (pl.exceptions.PolarsError, OSError) as error:
        first = (str(error).splitlines() or [""])[0]
        raise DamagedError(f"cannot be read: {first}", where=path, remedy=_AGAIN) from None
    lost = [name for name in ("sample_id", "fold") if name not in frame.columns]
    if lost:
        raise DamagedError(f"has no column {lost[0]!r}", where=path, remedy=_AGAIN)
    frame = frame.with_columns(pl.col("sample_id").cast(pl.String), pl.col("fold").cast(pl.Int64))
    if {"gene", "measured", "predicted"} <= set(frame.columns):
        kept = frame.select("gene", *_COLUMNS).with_columns(pl.col("measured", "predicted").cast(pl.Float64))
        parts = kept.partition_by("gene", as_dict=True, include_key=False, maintain_order=True)
        return Predictions({str(key): table for (key,), table in parts.items()})
    return _matrices(matrices, frame.select("sample_id", "fold"))


def _matrices(path: Path, rows: pl.DataFrame) -> Predictions:
    import json

    from elute.base.tensors import safetensors_header

    if not path.is_file():
        raise DataError("there is no such file, and the table beside it holds no values", where=path, remedy=_AGAIN)
    _, header = safetensors_header(path)
    shapes = [header.get(name, {}).get("shape") for name in _COLUMNS[2:]]
    try:
        genes = [str(gene) for gene in json.loads((header.get("__metadata__") or {})["genes"])]
    except (LookupError, TypeError, ValueError):
        raise DamagedError("does not name its genes", where=path, remedy=_AGAIN) from None
    if shapes != [[len(rows), len(genes)]] * 2:
        raise DamagedError(f"is not {len(rows):,} samples × {len(genes):,} genes", where=path, remedy=_AGAIN)
    return Predictions({}, rows, path, {gene: i for i, gene in enumerate(genes)})
