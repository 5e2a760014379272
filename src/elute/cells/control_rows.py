"""What features are held against where no dictionary is needed: neurons, principal directions, genes, fewer cells."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch
from scipy import sparse

from elute.base.accumulate import Covariance
from elute.base.errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from elute.cells.activations import Source

_STORED = 2**24  # numbers held at a time


def _raw(source: Source, site: str) -> Iterator[tuple[Any, pl.DataFrame]]:
    """What a dictionary reads, row by row."""
    if source.store is not None:
        for rows, frame in source.store.batches(8192, sites=[site], columns=["sample_id"]):
            yield rows[site].float().numpy(), frame
        return
    assert source.model is not None  # noqa: S101  # it is one or the other
    for batch, frame in source.model.batches(source.cells):
        yield source.model.capture(batch, [site])[site].float().numpy(), frame


def neurons_of(source: Source, site: str) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The mean of each number over each cell's tokens, and the principal directions of rows of choosing cells."""
    kind = pl.Enum(source.table["cell"])
    chooses = (source.table["split"] == "train").to_numpy()
    sums, spread = None, None
    rows = np.zeros(len(source.table))
    for x, frame in _raw(source, site):
        if sums is None or spread is None:
            sums, spread = np.zeros((len(source.table), x.shape[1])), Covariance(x.shape[1])
        cell = frame["sample_id"].cast(kind).to_physical().to_numpy().astype(np.int64)
        mine, place = np.unique(cell, return_inverse=True)
        hot = sparse.csr_array((np.ones(len(cell)), (place, np.arange(len(cell)))), shape=(len(mine), len(cell)))
        sums[mine] += hot @ x
        rows[mine] += np.bincount(place)
        spread.update(x[chooses[cell]])
    if sums is None or spread is None:
        raise DataError("there are no rows", where=site)
    return sums / np.maximum(rows, 1)[:, None], spread.result().eigen()[1]


def genes_of(source: Source) -> Iterator[Any]:
    """What each gene of the file is expressed in each cell, [cells, genes] by column, some genes at a time.

    All of the file counts, whether the model has read it or not: a gene needs no model.
    """
    cells = source.cells
    counts = source.table["total"].to_numpy()
    stored = np.zeros(len(cells.var), np.int64)
    for piece in cells.pieces():
        stored += np.bincount(piece.indices, minlength=len(stored))
    cuts = np.flatnonzero(np.diff(np.cumsum(stored) // _STORED)) + 1
    for first, stop in itertools.pairwise([0, *cuts.tolist(), len(stored)]):
        parts = []
        for piece in cells.pieces():
            inside = (piece.indices >= first) & (piece.indices < stop)
            row = np.repeat(np.arange(len(piece.indptr) - 1), np.diff(piece.indptr))[inside] + piece.first
            e = piece.data[inside].astype(np.float64)
            if cells.kind == "counts":
                e = np.log1p(e / np.maximum(counts[row], 1e-300) * 1e4)
            shape = (len(cells), stop - first)
            parts.append(sparse.csc_array((e, (row, piece.indices[inside] - first)), shape=shape))
        yield sum(parts[1:], parts[0])


def nearest_cosine(directions: torch.Tensor, others: torch.Tensor) -> NDArray[np.float64]:
    """The largest cosine of each direction with any of the others."""
    if not len(others):
        return np.zeros(len(directions))
    a, b = (torch.nn.functional.normalize(x.float(), dim=1) for x in (directions, others))
    return np.concatenate([(part @ b.T).amax(1).double().numpy() for part in torch.split(a, 1024)])


def thinned(cells: pl.DataFrame, share: float) -> NDArray[np.int64]:
    """Every fifth cell or so of each type, donor and split."""
    if share >= 1:
        return np.arange(len(cells))
    order = cells.with_row_index("place").sort("split", "donor", "label", "place", nulls_last=True)["place"].to_numpy()
    step = round(1 / share)
    return np.sort(order[step // 2 :: step]).astype(np.int64)
