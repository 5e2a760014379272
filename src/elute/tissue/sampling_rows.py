"""From rows of tokens to rows of samples: which sample each row is of, and the mean embedding of each sample."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any

from elute.tissue.coding import coded_rows, first_epoch
from elute.tissue.learning import SITE

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    from elute.base.codes import Codes
    from elute.dictionaries.dictionary import Dictionary
    from elute.store.reader import Store
    from elute.tissue.plan import Plan

    Array = np.ndarray[Any, Any]

_ROWS = 8192


def numbered(frame: pl.DataFrame, names: pl.Enum) -> Array:
    """Return the place of each row's sample among the named ones; −1 for a sample that is not among them."""
    import polars as pl

    codes = frame["sample_id"].cast(names, strict=False).to_physical().cast(pl.Int64).fill_null(-1)
    return codes.to_numpy()


def sample_codes(
    plan: Plan, store: Store, dictionary: Dictionary, *, known: str, names: Iterable[str]
) -> Iterator[tuple[Codes, Array, pl.DataFrame]]:
    """Yield the codes of rows of the named samples, with the places of their samples and their metadata."""
    import numpy as np
    import polars as pl
    import torch

    among = pl.Enum(list(names))
    for codes, frame in coded_rows(plan, store, dictionary, known=known):
        place = numbered(frame, among)
        kept = np.flatnonzero(place >= 0)
        if len(kept) == len(place):
            yield codes, place, frame
        elif len(kept):
            yield codes[torch.from_numpy(kept)], place[kept], frame[kept.tolist()]


def sample_means(store: Store, names: Iterable[str]) -> Array:
    """Return the mean embedding of each sample's rows, float64 [samples, width], in one pass."""
    import numpy as np
    import polars as pl
    import torch

    listed = list(names)
    among, first = pl.Enum(listed), first_epoch(store)
    columns = ["sample_id"] + ([] if first is None else ["epoch"])
    sums = torch.zeros(len(listed) + 1, store.sites[SITE], dtype=torch.float64)  # the last is of other samples
    rows = np.zeros(len(listed) + 1)
    for held, frame in store.batches(_ROWS, sites=[SITE], columns=columns):
        place = numbered(frame, among)
        if first is not None:
            place = np.where((frame["epoch"] == first).to_numpy(), place, -1)
        place = np.where(place < 0, len(listed), place)
        sums.index_add_(0, torch.from_numpy(place), held[SITE].double())
        rows += np.bincount(place, minlength=len(listed) + 1)
    means: Array = sums.numpy()[:-1] / np.maximum(rows[:-1], 1)[:, None]
    return means
