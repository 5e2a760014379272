"""A stratified random sample of cells, without replacement.

1. Every stratum is due its share of the sample, `size · cells of it / all cells`, and gets the whole part of it.
2. One that would get none gets one cell, if the sample has room for one of each.
3. What is left goes to the largest remainders; what was given too much is taken from those furthest above their share.
   Ties are broken by the seed.
4. Within a stratum the cells are those that come first in one random order of all cells.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    Integers: TypeAlias = np.ndarray[Any, np.dtype[np.int64]]


def strata(columns: list[pl.Series]) -> Integers:
    """Number the strata that several columns make together; a missing value is a value of its own."""
    import numpy as np
    import polars as pl

    frame = pl.DataFrame([column.cast(pl.String).alias(str(i)) for i, column in enumerate(columns)])
    kinds = frame.unique().sort(frame.columns, nulls_last=True).with_row_index("stratum")
    found = frame.join(kinds, on=frame.columns, how="left", nulls_equal=True, maintain_order="left")
    return found["stratum"].to_numpy().astype(np.int64)


def draw(stratum: Integers, size: int, seed: int) -> Integers:
    """Return which cells are drawn, ascending, given each cell's stratum; all of them if `size` is no fewer."""
    import numpy as np

    if size >= len(stratum):
        return np.arange(len(stratum))
    rng = np.random.default_rng(seed)
    order = rng.permutation(len(stratum))
    _, numbered, sizes = np.unique(stratum, return_inverse=True, return_counts=True)
    take = shares(sizes, size, rng.permutation(len(sizes)))
    order = order[np.argsort(numbered[order], kind="stable")]
    within = np.arange(len(order)) - np.repeat(np.cumsum(sizes) - sizes, sizes)
    return np.sort(order[within < np.repeat(take, sizes)])


def shares(sizes: Integers, size: int, ties: Integers) -> Integers:
    """Share a sample among strata; of equals, the one whose number in `ties` is lower comes first."""
    import numpy as np

    due: np.ndarray[Any, np.dtype[np.float64]] = size * (sizes / sizes.sum())
    take: Integers = np.minimum(np.floor(due).astype(np.int64), sizes)
    if size >= len(sizes):
        take = np.maximum(take, 1)
    if (left := size - int(take.sum())) > 0:
        # Only remainders below one cell are left over, so no stratum is given more than one of them.
        best = np.lexsort((ties, -np.where(take < sizes, due - take, -np.inf)))
        take[best[:left]] += 1
    above = [(due[i] - take[i], int(ties[i]), int(i)) for i in np.flatnonzero(take > 1)] if left < 0 else []
    heapq.heapify(above)
    for _ in range(-left):
        low, tie, i = heapq.heappop(above)
        take[i] -= 1
        if take[i] > 1:
            heapq.heappush(above, (low + 1, tie, i))
    return take
