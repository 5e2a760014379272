"""From codes and what is known of their rows to a tally: stored ones, or as a model gives them."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import polars as pl

    from elute.analysis.tally import Tallied
    from elute.base.codes import Codes
    from elute.base.mergeable import Floats, Integers
    from elute.store.codes import StoredCodes
    from elute.store.reader import Store

COLUMNS = ("sample_id", "token", "value", "total", "read")
_ROWS = 1 << 15


def stored(codes: StoredCodes, store: Store) -> Iterator[tuple[Codes, pl.DataFrame]]:
    """Yield the codes of a store's rows with the rows' metadata."""
    codes = codes.expect(store=store)
    columns = [name for name in COLUMNS if name in store.manifest.columns]
    for start in range(0, len(codes), _ROWS):
        stop = min(start + _ROWS, len(codes))
        yield codes.read(start, stop), store.metadata(start, stop, columns=columns)


def tally_rows(
    parts: Iterable[tuple[Codes, pl.DataFrame]],
    *,
    n_features: int,
    cells: pl.DataFrame,
    genes: pl.DataFrame,
    weigh: Callable[[pl.DataFrame], Floats],
    folder: Path | None = None,
    told: Callable[[int], object] = lambda _: None,
) -> Tallied:
    """Add up codes by gene and by cell, in one pass; `weigh` says what each row's gene was expressed."""
    from elute.analysis.tally import Tally

    counted = Tally(n_features, len(cells), len(genes), folder=folder)
    for codes, rows, cell, gene in placed(parts, cells=cells, genes=genes, told=told):
        counted.update((codes, cell, gene, weigh(rows)))
    return counted.result()


def placed(
    parts: Iterable[tuple[Codes, pl.DataFrame]],
    *,
    cells: pl.DataFrame,
    genes: pl.DataFrame,
    told: Callable[[int], object] = lambda _: None,
) -> Iterator[tuple[Codes, pl.DataFrame, Integers, Integers]]:
    """Yield the rows that are a gene's, each with the places of its cell and its gene in their tables."""
    import numpy as np
    import polars as pl

    by_cell, by_gene = pl.Enum(cells["cell"]), pl.Enum(genes["gene"])
    for every, rows in parts:
        named = np.flatnonzero(rows["token"].is_not_null().to_numpy())
        codes, frame = (every[named], rows[named]) if len(named) < len(rows) else (every, rows)  # none in front
        yield codes, frame, _numbers(frame["sample_id"], by_cell), _numbers(frame["token"], by_gene)
        told(len(rows))


def _numbers(names: pl.Series, among: pl.Enum) -> Any:
    """The place of each name."""
    return names.cast(among).to_physical().to_numpy()
