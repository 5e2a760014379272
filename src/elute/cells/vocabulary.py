"""Which genes a small model knows, and by which of the file's identifiers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from elute.base.errors import ConfigError, DataError, near
from elute.cells.masked import SPECIAL
from elute.models.cells.gene_vocabulary import look_of, tidy

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from elute.cells.corpus import Seen
    from elute.models.cells.cellfile import Cells

_IDS = ("ensembl_id", "gene_ids", "feature_id", "index")


def identifiers(cells: Cells) -> str:
    """Return the column of genes that is taken: as asked, else the first with Ensembl ids, else the index."""
    if (key := cells.config.gene_id_key) is not None:
        return key
    there = [name for name in _IDS if name in cells.var.columns]
    return next((name for name in there if look_of(tidy(cells.var[name])).kind == "ensembl"), "index")


def choose_genes(cells: Cells, seen: Seen, *, column: str, most: int) -> tuple[dict[str, int], NDArray[np.int64]]:
    """Return the vocabulary and the places of its genes: those seen in training cells, the most variable if many."""
    if column not in cells.var.columns:
        raise ConfigError(
            f"there is no column {column!r} of genes", where=cells.where, remedy=near(column, cells.var.columns)
        )
    names = tidy(cells.var[column])
    usable = names.is_not_null() & ~names.str.contains(r"^<.*>$").fill_null(True) & names.is_first_distinct()
    kept = np.flatnonzero(usable.to_numpy() & (seen.training > 0))
    if len(kept) > most:
        kept = np.sort(kept[np.argsort(-seen.variance[kept], kind="stable")[:most]])
    if len(kept) < 2:
        raise DataError("has fewer than two genes that training cells have", where=cells.where)
    chosen = names.gather(pl.Series(kept)).to_list()
    return {name: i for i, name in enumerate([*SPECIAL, *chosen])}, kept
