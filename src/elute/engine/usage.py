"""How each feature has been used: how often, how strongly, when first and last.

One pass over the codes of each step, on one core: the work is that of reading them once. Strength is the magnitude.
The histogram has two bins an octave, [2ᵉ, 1.5·2ᵉ) and [1.5·2ᵉ, 2ᵉ⁺¹), from 2⁻¹⁰ to 2¹⁰; what lies outside is counted
in the outermost bins.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from elute.base.compiled import compiled

if TYPE_CHECKING:
    from collections.abc import Mapping

    import polars as pl

    from elute.dictionaries.bank import Ranks
    from elute.dictionaries.sparsity import Slots

BINS = 40
_LOWEST = (127 - 10) * 2  # half-octaves below 2⁻¹⁰ in a float32's bits


class Usage:
    """Counts of all features; `first` and `last` are steps, −1 for never."""

    def __init__(self, n_features: int) -> None:
        self.rows = 0
        self.counts = np.zeros(n_features, np.int64)
        self.sums = np.zeros(n_features, np.float64)
        self.largest = np.zeros(n_features, np.float32)
        self.first = np.full(n_features, -1, np.int64)
        self.last = np.full(n_features, -1, np.int64)
        self.bins = np.zeros((n_features, BINS), np.int64)

    def update(self, slots: list[Slots], step: int) -> None:
        """Count one batch; features are numbered through the banks."""
        per_bank = len(self.counts) // len(slots)
        self.rows += len(slots[0][0])
        for number, (idx, val) in enumerate(slots):
            flat = idx.cpu().numpy().reshape(-1), val.detach().float().cpu().numpy().reshape(-1)
            part = slice(number * per_bank, (number + 1) * per_bank)
            kept = (self.counts, self.sums, self.largest, self.first, self.last, self.bins)
            _count(*flat, flat[1].view(np.int32), step, *(array[part] for array in kept))

    def merge(self, ranks: Ranks) -> Usage:
        """Return what all ranks have counted; every rank must ask."""
        whole = Usage(len(self.counts))
        whole.rows = int(ranks.total(torch.tensor([self.rows]))[0])
        for name in ("counts", "sums", "bins"):
            setattr(whole, name, ranks.total(torch.from_numpy(getattr(self, name).copy())).numpy())
        whole.largest = ranks.most(torch.from_numpy(self.largest.copy())).numpy()
        whole.last = ranks.most(torch.from_numpy(self.last.copy())).numpy()
        far = np.iinfo(np.int64).max
        first = -ranks.most(torch.from_numpy(-np.where(self.first < 0, far, self.first))).numpy()
        whole.first = np.where(first == far, -1, first)
        return whole

    def state(self) -> dict[str, Any]:
        """Return everything, as tensors."""
        names = ("counts", "sums", "largest", "first", "last", "bins")
        return {"rows": self.rows, **{name: torch.from_numpy(getattr(self, name)) for name in names}}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.rows = int(state["rows"])
        for name in ("counts", "sums", "largest", "first", "last", "bins"):
            getattr(self, name)[...] = state[name].numpy()

    def table(self, *, steps: int, rows_per_step: int) -> pl.DataFrame:
        """One row a feature; `silent_rows` says for how many rows it had not fired when training ended."""
        import polars as pl

        silent = (steps - 1 - self.last) * rows_per_step
        return pl.DataFrame(
            {
                "feature": np.arange(len(self.counts), dtype=np.int32),
                "frequency": self.counts / max(1, self.rows),
                "mean_strength": self.sums / np.maximum(1, self.counts),
                "max_strength": self.largest,
                "first_step": self.first,
                "last_step": self.last,
                "silent_rows": silent,
                "histogram": self.bins,
            },
            schema_overrides={"histogram": pl.Array(pl.Int64, BINS)},
        )


@compiled
def _count(
    idx: Any, val: Any, bits: Any, step: int, counts: Any, sums: Any, largest: Any, first: Any, last: Any, bins: Any
) -> None:
    for p in range(idx.shape[0]):
        if val[p] != 0:
            f = idx[p]
            strength = abs(val[p])
            counts[f] += 1
            sums[f] += strength
            largest[f] = max(largest[f], strength)
            if first[f] < 0:
                first[f] = step
            last[f] = step
            place = ((bits[p] & 0x7FFFFFFF) >> 22) - _LOWEST
            bins[f, min(max(place, 0), BINS - 1)] += 1
