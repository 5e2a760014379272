"""The genes that each feature goes with, as lists to be held against sets: chosen, chosen elsewhere, and by chance.

1. A feature's genes are those with the largest z over choosing cells (`specificity.py`), `k` at most, and only where z
   is at least `least_z`: a feature that follows no gene has no list.
2. The same on the cells that only show, so that what the first lists say can be tested on other donors.
3. The null: each cell's activations are dealt out to another cell of its side, and its donor where donors are known.
   Genes stay correlated with one another as they are, and nothing else is left.
4. Where a folder is given, z of every measured gene is written there, a row a feature (`RANKED`), and the same with the
   cells dealt out (`RANKED_DEALT`): single precision, features × genes × 4 bytes each, never in memory as a whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np

from elute.analysis import specificity
from elute.base import files

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

    from elute.analysis.tally import Tallied
    from elute.base.mergeable import Floats, Integers

LEAST_Z = 4.0
LEAST_CELLS = 3
MEMORY = 512 << 20
RANKED, RANKED_DEALT = "ranked.npy", "ranked-dealt.npy"
_TOGETHER = 64  # features whose z are laid out at a time

Listed = list["Integers"]  # of each feature the places of its genes, the best first


@dataclass(frozen=True, eq=False)
class TopGenes:
    """Lists of genes by their places in the table of genes, and what is known of each gene."""

    chosen: Listed
    shown: Listed | None
    """None where no cells were held out."""
    dealt: Listed
    """With the cells dealt out anew."""
    measured: NDArray[np.bool_]
    """[genes] that could be listed: rows in enough choosing cells."""
    detection: Floats
    """[genes] share of cells in which it is a row."""
    expression: Floats
    """[genes] mean over the cells."""


def top_genes(
    tallied: Tallied,
    cells: pl.DataFrame,
    *,
    k: int,
    least_z: float = LEAST_Z,
    seed: int = 0,
    memory: int = MEMORY,
    into: Path | None = None,
) -> TopGenes:
    """List the genes of every feature; z of all genes is written `into` a folder."""
    sides = specificity.sides(cells, tallied.cell_rows)
    shape = (tallied.cells.n_features, len(tallied.gene_rows))
    chosen: Listed = []
    shown: Listed = []
    measured = np.zeros(len(tallied.gene_rows), np.bool_)
    with _written(into, RANKED, shape) as whole:
        for block in specificity.ranked(tallied, sides, k=k, least=LEAST_CELLS, limit=memory):
            measured = block.chosen.genes.cells >= LEAST_CELLS
            chosen += _strong(block.chosen, block.specific.genes, least_z)
            if block.shown is not None:
                best = block.shown.best(block.shown.genes.cells >= LEAST_CELLS, k)
                shown += _strong(block.shown, best.genes, least_z)
            _write(whole, block.chosen, measured)
    dealt: Listed = []
    deal = dealt_out(cells, sides, seed)
    with _written(into, RANKED_DEALT, shape) as whole:
        for block in specificity.ranked(tallied, sides, k=k, least=LEAST_CELLS, limit=memory, dealt=deal):
            dealt += _strong(block.chosen, block.specific.genes, least_z)
            _write(whole, block.chosen, measured)
    n = max(int((tallied.cell_rows > 0).sum()), 1)
    return TopGenes(chosen, shown or None, dealt, measured, tallied.gene_rows / n, tallied.gene_weights / n)


@contextmanager
def _written(folder: Path | None, name: str, shape: tuple[int, int]) -> Iterator[BinaryIO | None]:
    """Open an array on disk whose rows follow; not mapped, so that a full disk is an error and no crash."""
    if folder is None:
        yield None
        return
    with files.disk_errors(folder / name), (folder / name).open("wb") as handle:
        header = {"descr": "<f4", "fortran_order": False, "shape": shape}
        np.lib.format.write_array_header_1_0(handle, header)
        yield handle


def _write(whole: BinaryIO | None, found: specificity.Correlations, measured: NDArray[np.bool_]) -> None:
    """Write the rows of a range of features."""
    if whole is None:
        return
    n_genes, n = found.products.shape
    for first in range(0, n, _TOGETHER):
        width = min(_TOGETHER, n - first)
        genes, features = np.repeat(np.arange(n_genes), width), np.tile(np.arange(first, first + width), n_genes)
        rows = found.z(genes, features).reshape(n_genes, width).T.astype("<f4")
        rows[:, ~measured] = np.nan
        whole.write(np.ascontiguousarray(rows).data)


def _strong(found: specificity.Correlations, best: Integers, least_z: float) -> Listed:
    """Return the genes of each feature whose z is large enough, in order."""
    features, places = np.nonzero(best >= 0)
    genes = best[features, places]
    strong = found.z(genes, features) >= least_z
    bounds = np.searchsorted(features[strong], np.arange(len(best) + 1))
    return [genes[strong][lo:hi] for lo, hi in pairwise(bounds)]


def dealt_out(cells: pl.DataFrame, sides: NDArray[np.int8], seed: int) -> Integers:
    """Return for each cell the one of its side, and donor, as which its activations count."""
    donors: Any = cells["donor"].fill_null("").rank("dense").to_numpy() if "donor" in cells.columns else 0
    strata = sides.astype(np.int64) * (1 << 32) + donors
    rng = np.random.default_rng(seed)
    order, mixed = np.argsort(strata, kind="stable"), np.lexsort((rng.random(len(strata)), strata))
    found = np.empty(len(strata), np.int64)
    found[order] = mixed
    return found
