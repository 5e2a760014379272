"""Loops compiled by numba, run over ranges by a pool of threads.

A kernel takes (…, lo, hi) and writes nowhere else than for that range, so that no number of threads changes a result.
Numba's own parallel backends are not used (docs/decisions/0004).
"""

from __future__ import annotations

import itertools
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numba import njit

if TYPE_CHECKING:
    from numpy.typing import NDArray

# Loops are vectorised only where sums may be reordered and a division is not tested for zero (it gives infinity).
compiled = njit(nogil=True, cache=True, error_model="numpy", fastmath={"nsz", "reassoc", "contract", "arcp"})


def over(work: int | NDArray[np.int64], kernel: Callable[..., None], *args: Any) -> None:
    """Run a kernel over a range, cut among as many threads as PyTorch uses; `work` may be its running sum of cost."""
    n = work if isinstance(work, int) else len(work) - 1
    threads = min(torch.get_num_threads(), max(1, n // 16))
    if threads == 1:
        kernel(*args, 0, n)
        return
    if isinstance(work, int):
        cuts = [n * i // threads for i in range(threads + 1)]
    else:
        shares = [work[-1] * i // threads for i in range(1, threads)]
        cuts = [0, *np.searchsorted(work, shares).tolist(), n]
    first, *others = itertools.pairwise(cuts)
    waiting = [_pool(threads - 1).submit(kernel, *args, a, b) for a, b in others]
    kernel(*args, *first)  # this thread works, too: one to be woken less
    for future in waiting:
        future.result()


@cache
def _pool(threads: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(threads, thread_name_prefix="elute")
