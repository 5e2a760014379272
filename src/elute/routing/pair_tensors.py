"""A pair as two PyTorch files, sources.pt and targets.pt, for who reads nothing else: one float32 tensor each.

They hold the rows of the pair's store in its order. Neither writing nor reading brings a whole file into memory.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from elute.base import files
from elute.base.errors import DamagedError, GuardError
from elute.base.tensors import load_tensors

if TYPE_CHECKING:
    from torch import Tensor

    from elute.routing.pairs import Pair

TENSORS = ("sources.pt", "targets.pt")
_AGAIN = "Collect the pair again with --format pt."
_HELD = 16  # rows that are compared, spread over the file


def write_tensors(pair: Pair) -> tuple[Path, Path]:
    """Write a pair's rows as two files, unless they are there."""
    paths = pair.folder / TENSORS[0], pair.folder / TENSORS[1]
    if all(path.is_file() for path in paths):
        read_tensors(pair)
        return paths
    with _scratch(pair, 0) as xs, _scratch(pair, 1) as ys:
        low = 0
        for x, y, frame in pair.batches(columns=["sample_id"]):
            xs[low : low + len(frame)], ys[low : low + len(frame)] = x.numpy(), y.numpy()
            low += len(frame)
        for path, rows in zip(paths, (xs, ys), strict=True):
            tensor = torch.from_numpy(rows)
            files.write_atomically(path, lambda handle, tensor=tensor: torch.save(tensor, handle))  # type: ignore[misc]
    return paths


def read_tensors(pair: Pair) -> tuple[Tensor, Tensor]:
    """Map a pair's two files; rows of another number, width or order than the store's are refused."""
    found = []
    for name, width in zip(TENSORS, pair.widths, strict=True):
        path = pair.folder / name
        tensor = load_tensors(path)
        if not isinstance(tensor, torch.Tensor) or tensor.shape != (len(pair.store), width):
            have = list(tensor.shape) if isinstance(tensor, torch.Tensor) else type(tensor).__name__
            raise DamagedError(f"is {have}, not [{len(pair.store)}, {width}]", where=path, remedy=_AGAIN)
        found.append(tensor)
    for row in np.unique(np.linspace(0, len(pair.store) - 1, _HELD).astype(int)).tolist():
        rows = pair.store.read(row, row + 1)
        for name, tensor, sites in zip(TENSORS, found, (pair.spec.source_sites, pair.spec.target_sites), strict=True):
            if not torch.equal(tensor[row], torch.cat([rows[site][0].float() for site in sites])):
                what = f"the order of its rows differs: row {row} is not that of the pair's store"
                raise GuardError(what, where=pair.folder / name, remedy=_AGAIN)
    return found[0], found[1]


@contextmanager
def _scratch(pair: Pair, side: int) -> Iterator[np.ndarray[tuple[int, int], np.dtype[np.float32]]]:
    """Map rows that lie on the disk until they are whole; the room is taken first, so that none is missing later."""
    path = pair.folder / f".{TENSORS[side]}.rows.tmp"
    shape = len(pair.store), pair.widths[side]
    try:
        with files.disk_errors(path), path.open("wb") as handle:
            os.posix_fallocate(handle.fileno(), 0, 4 * shape[0] * shape[1])
        yield np.memmap(path, np.float32, "r+", shape=shape)
    finally:
        path.unlink(missing_ok=True)
