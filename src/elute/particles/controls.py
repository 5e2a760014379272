"""What fusion gives where there is nothing to fuse: one source's rows put in others' places.

    across    among all rows of the training part, and among all rows that are held out: the source says nothing about a
              particle any more, and fusing it must gain nothing
    within    the same within each class: what a row says of its class stays, and is spread over particles that are no
              such particle. That is pairing by label; what it gains shows how much such an evaluation would invent

Rows that are held out never change places with rows of the training part.
"""

from __future__ import annotations

from typing import Literal

import numpy as np
from numpy.typing import NDArray

from elute.base.statistics.checks import generator

Ints = NDArray[np.int64]
Shuffle = Literal["across", "within"]


def shuffled_rows(codes: Ints, held_out: NDArray[np.bool_], *, how: Shuffle, seed: int, fold: int) -> Ints:
    """Return whose row is put in each particle's place [n], for one fold."""
    rng = np.random.default_rng([*generator(seed, f"particles.{how}").integers(0, 1 << 32, 4).tolist(), fold])
    kinds = np.zeros(len(codes), dtype=np.int64) if how == "across" else codes
    out = np.arange(len(codes))
    for part in (np.flatnonzero(~held_out), np.flatnonzero(held_out)):
        for kind in np.unique(kinds[part]).tolist():
            here = part[kinds[part] == kind]
            out[here] = rng.permutation(here)
    return out
