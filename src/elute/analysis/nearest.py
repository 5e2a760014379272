"""Features whose decoder directions are nearest to each other's: the cosine of every pair, a block at a time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch

from elute.base.errors import DataError
from elute.base.statistics.checks import at_least, same_length

if TYPE_CHECKING:
    from numpy.typing import ArrayLike, NDArray
    from torch import Tensor

PRODUCTS = 1 << 24  # cosines held at a time


@dataclass(frozen=True, eq=False)
class Nearest:
    """For each feature the nearest others, nearest first; −1 and NaN where there are no more."""

    features: NDArray[np.int32]  # [features, most]
    cosines: NDArray[np.float32]

    def lists(self) -> tuple[list[list[int]], list[list[float]]]:
        """Return numbers and cosines as lists of what there is."""
        kept = self.features >= 0
        names = [row[mask].tolist() for row, mask in zip(self.features, kept, strict=True)]
        return names, [row[mask].tolist() for row, mask in zip(self.cosines, kept, strict=True)]


def nearest(directions: Tensor, *, most: int = 10, alive: ArrayLike | None = None) -> Nearest:
    """Return the nearest features of each row of `directions` [features, width]; equals stand in order of number.

    A direction of length 0 has no neighbours and is none, and so it is with features that are not `alive` [features].
    """
    where = "nearest(directions)"
    if directions.ndim != 2 or not directions.dtype.is_floating_point:
        what = f"is {directions.dtype} of shape {tuple(directions.shape)}"
        raise DataError(what, where=where, remedy="Give floating point [features, width].")
    at_least(most, 1, "nearest(most)")
    rows = directions.detach().to(torch.promote_types(directions.dtype, torch.float32))
    if not bool(torch.isfinite(rows).all()):
        raise DataError("holds NaN or infinity", where=where, remedy="Load a dictionary whose training went well.")
    n = len(rows)
    lengths = torch.linalg.vector_norm(rows, dim=1)
    there = lengths > 0
    if alive is not None:
        known = np.asarray(alive, dtype=bool)
        same_length(len(known), n, "nearest(alive)")
        there &= torch.as_tensor(known, device=rows.device)
    numbers = there.nonzero()[:, 0]
    unit = rows[numbers] / lengths[numbers, None]
    features = np.full((n, most), -1, dtype=np.int32)
    cosines = np.full((n, most), np.nan, dtype=np.float32)
    k = min(most, len(numbers) - 1)
    step = max(1, PRODUCTS // max(1, len(numbers)))
    for start in range(0, len(numbers) if k > 0 else 0, step):
        close = unit[start : start + step] @ unit.T
        mine = torch.arange(len(close), device=close.device)
        close[mine, mine + start] = -torch.inf
        values, which = close.topk(k, dim=1)
        # What is equal may come in any order, which would be another one on another device.
        which, order = which.sort(dim=1)
        values = values.gather(1, order)
        values, order = values.sort(dim=1, descending=True, stable=True)
        at = numbers[start : start + step].cpu().numpy()
        features[at, :k] = numbers[which.gather(1, order)].cpu().numpy()
        cosines[at, :k] = values.clamp(-1, 1).cpu().numpy()
    return Nearest(features, cosines)
