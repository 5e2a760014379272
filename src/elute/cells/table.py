"""The cells and genes that a run is about, as tables: what all its findings refer to by number.

    cells.parquet    cell, row (of the file), split, label, donor, batch, genes, total, and obs:NAME of chosen columns
    genes.parquet    gene (the vocabulary's id), symbol

Whatever is chosen (the top genes of a feature, the type that it follows) is chosen on cells of the split `train` and
shown on those of `test`: other donors where there are donors, else other cells.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from elute.base import console, files
from elute.base.errors import DamagedError, DataError
from elute.base.statistics.splits import draw_splits
from elute.models.cells.cellfile import CellsConfig

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl

    from elute.models.cells.cellfile import Cells
    from elute.models.cells.matching import Matched
    from elute.store.reader import Store

CELLS, GENES = "cells.parquet", "genes.parquet"
_MOST_LEVELS, _MOST_COLUMNS = 50, 40
_ROWS = 1 << 20


def draw_halves(cells: Cells, *, hold_out: float | None, seed: int) -> str:
    """Give each cell a split, whole donors where they are known; returns the digest of who is where."""
    import polars as pl

    known = cells.metadata
    donors = "group" in known.columns
    share = hold_out or (0.5 if donors else 0.2)
    groups = (known["group"] if donors else known["sample_id"]).to_list()
    labels = None if donors or "label" not in known.columns else known["label"].fill_null("").to_list()
    try:
        drawn = draw_splits(groups, labels, fractions={"train": 1 - share, "test": share}, seed=seed)
    except DataError as error:
        remedy = "Leave --donor-key out: then cells are held out, and nothing is said of donors."
        raise DataError(error.what, where=cells.where, remedy=remedy if donors else error.remedy) from None
    split = [drawn[group] for group in groups]
    cells.metadata = known.with_columns(pl.Series("split", split, dtype=pl.String), group=pl.Series(groups))
    counts = {name: split.count(name) for name in ("train", "test")}
    who = f"{len(set(groups))} donors, " if donors else ""
    console.say(f"split: {who}{counts['train']:,} cells to choose on, {counts['test']:,} to show on")
    return split_digest(split)


def split_digest(split: list[str]) -> str:
    """Tell one split from another."""
    return files.digest_json(split)


def check_labels(cells: Cells) -> None:
    """Say before any long work what the cell types cannot show."""
    if "label" not in cells.metadata.columns:
        return
    labels, key = cells.metadata["label"], cells.config.cell_type_key
    counts = labels.drop_nulls().value_counts(sort=True)
    where = f"{cells.where}, obs column {key!r}"
    if missing := labels.null_count():
        console.warn(f"{where}: {missing:,} of {len(labels):,} cells have no value, and stand on no side")
    if len(counts) < 2:
        what = "has no value" if not len(counts) else f"has one type alone ({counts[labels.name][0]})"
        if cells.config.cell_type_key != CellsConfig.model_fields["cell_type_key"].default:
            raise DataError(what, where=where, remedy="Name another column with --cell-type-key.")
        console.warn(f"{where}: {what}, and is left out")
        cells.metadata = cells.metadata.drop("label")
        return
    if single := counts.filter(counts["count"] == 1)[labels.name].to_list():
        shown = ", ".join(map(str, single[:3])) + (", …" if len(single) > 3 else "")
        console.warn(f"{where}: {len(single):,} types have one cell ({shown}): nothing is claimed of them")


def cell_table(cells: Cells, columns: tuple[str, ...]) -> pl.DataFrame:
    """Return one row a cell, in the order of the file; the split must have been drawn."""
    import numpy as np
    import polars as pl

    genes, totals = np.zeros(len(cells), np.int64), np.zeros(len(cells))
    for piece in cells.pieces():
        there = np.concatenate([[0], np.cumsum(piece.data != 0)])[piece.indptr]
        sums = np.concatenate([[0.0], np.cumsum(piece.data, dtype=np.float64)])[piece.indptr]
        here = slice(piece.first, piece.first + len(piece.indptr) - 1)
        genes[here], totals[here] = np.diff(there), np.diff(sums)
    known, nothing = cells.metadata, pl.Series([None] * len(cells), dtype=pl.String)
    donors = known["group"] if cells.config.donor_key is not None else nothing
    frame = pl.DataFrame(
        {
            "cell": known["sample_id"],
            "row": cells.chosen,
            "split": known["split"],
            "label": known["label"] if "label" in known.columns else nothing,
            "donor": donors,
            "batch": known["batch"] if "batch" in known.columns else nothing,
            "genes": genes,
            "total": totals,
        }
    )
    return frame.with_columns(further_columns(cells, columns))


def further_columns(cells: Cells, names: tuple[str, ...]) -> list[pl.Series]:
    """Read further obs columns, as text or as numbers; with `all`, those that can be held against features."""
    if names != ("all",):
        return [_column(cells, name).alias(f"obs:{name}") for name in dict.fromkeys(names)]
    known = {cells.config.cell_type_key, cells.config.donor_key}
    found: list[pl.Series] = []
    for name in cells.obs_names:
        if name in known or len(found) == _MOST_COLUMNS:
            continue
        try:
            column = _column(cells, name)
        except DataError:
            continue  # of a kind that cannot be read
        levels = column.drop_nulls().n_unique()
        if levels >= 2 and (column.dtype.is_numeric() or levels <= _MOST_LEVELS):
            found.append(column.alias(f"obs:{name}"))
    return found


def _column(cells: Cells, name: str) -> pl.Series:
    import polars as pl

    from elute.store.imports.samples import as_text

    column = cells.obs(name)
    if column.dtype.is_numeric():
        column = column.cast(pl.Float64)
        return column.fill_nan(None)
    return as_text(column)


def gene_table(matched: Matched) -> pl.DataFrame:
    """Return the genes that the model knows of the file, in its order, and how people call them."""
    import polars as pl

    places = [i for i, name in enumerate(matched.names) if name is not None]
    ids: list[Any] = [matched.names[i] for i in places]
    symbols = [None] * len(ids) if matched.symbols is None else [matched.symbols[i] for i in places]
    frame = pl.DataFrame({"gene": ids, "symbol": symbols}, schema={"gene": pl.String, "symbol": pl.String})
    frame = frame.unique("gene", keep="first", maintain_order=True)
    return frame.with_columns(symbol=pl.coalesce("symbol", "gene"))


def genes_of(store: Store) -> pl.DataFrame:
    """Return the genes that a store's rows name, where nothing else is known of them."""
    import polars as pl

    seen: set[str] = set()
    for start in range(0, len(store), _ROWS):
        seen |= set(store.metadata(start, start + _ROWS, columns=["token"])["token"].drop_nulls().unique().to_list())
    return pl.DataFrame({"gene": sorted(seen), "symbol": sorted(seen)})


def write(path: Path, frame: pl.DataFrame) -> None:
    """Write a table."""
    files.write_atomically(path, frame.write_parquet)


def read(path: Path) -> pl.DataFrame:
    """Read a table."""
    import polars as pl

    try:
        return pl.read_parquet(path)
    except (pl.exceptions.PolarsError, OSError) as error:
        remedy = "Delete it, and give the command again."
        raise DamagedError(f"cannot be read as a table: {error}", where=path, remedy=remedy) from None
