"""An `activations.pt` of sae-genomics, the project before this one, brought into a store.

It holds `activations` [cells, tokens, width] and `gene_ids` [cells, tokens], the model's tokens, with 0 for padding and
1 in front of each cell; its cells are the first ones of the file, in the order of the file. Which layer it was read
from it does not say. Values and totals are looked up in the file.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from elute.base import console
from elute.base.errors import DamagedError, DataError
from elute.base.tensors import load_tensors
from elute.store.writer import StoreWriter

if TYPE_CHECKING:
    import polars as pl
    from torch import Tensor

    from elute.models.cells.cellfile import Cells
    from elute.models.cells.matching import Matched
    from elute.models.cells.model import CellModel

SITE = "activations"
_FRONT = 3  # tokens below it are no genes: padding, the cell's own, the end


def bring_older(path: Path, cells: Cells, model: CellModel, *, folder: Path, split: str) -> None:
    """Write the rows of the older file's genes into a store."""
    acts, tokens = _read(path)
    if len(acts) > len(cells) or (cells.chosen[: len(acts)] != np.arange(len(acts))).any():
        what = f"holds {len(acts):,} cells, the first ones of their file, and {len(cells):,} others are read here"
        raise DataError(what, where=path, remedy="Give the file that it was made from, and leave --max-cells out.")
    matched = model.match(cells)
    known = int((tokens >= _FRONT).sum())
    console.say(
        f"{path}: {len(acts):,} cells × {acts.shape[1]:,} tokens of width {acts.shape[2]:,}; which layer is not known"
    )
    writer = StoreWriter(
        folder, sites={SITE: acts.shape[2]}, source={**cells.source, "split": split, path.name: "older"}
    )
    with writer, console.progress("import", known, done=writer.offered) as bar:
        skip = writer.offered
        for cell, frame in _frames(cells, tokens, matched):
            if skip >= len(frame):
                skip -= len(frame)
                continue
            rows = acts[cell][tokens[cell] >= _FRONT].float()
            writer.append({SITE: rows[skip:]}, frame[skip:])
            bar.advance(len(frame) - skip)
            skip = 0


def _read(path: Path) -> tuple[Tensor, Tensor]:
    """Read and check the two tensors."""
    import torch

    held = load_tensors(path)
    remedy = "Leave --use-saved-activations out: the activations are computed anew."
    if not isinstance(held, dict) or not {"activations", "gene_ids"} <= held.keys():
        raise DamagedError("holds no activations and gene_ids", where=path, remedy=remedy)
    acts, tokens = held["activations"], held["gene_ids"]
    whole = isinstance(acts, torch.Tensor) and isinstance(tokens, torch.Tensor)
    if not whole or acts.dim() != 3 or tokens.shape != acts.shape[:2] or tokens.is_floating_point():
        shapes = [tuple(getattr(x, "shape", ())) for x in (acts, tokens)]
        what = f"its activations and gene_ids have shapes {shapes[0]} and {shapes[1]}"
        raise DamagedError(what + ", not [cells, tokens, width] and [cells, tokens]", where=path, remedy=remedy)
    if not acts.is_floating_point() or not len(acts):
        raise DamagedError("its activations are not floating point, or of no cell", where=path, remedy=remedy)
    return acts, tokens.long()


def _frames(cells: Cells, tokens: Tensor, matched: Matched) -> Iterator[tuple[int, pl.DataFrame]]:
    """Yield each cell with the metadata of its genes."""
    import polars as pl

    column_of = np.full(int(max(matched.tokens.max(), int(tokens.max()))) + 1, -1)
    there = np.flatnonzero(matched.tokens >= 0)
    column_of[matched.tokens[there]] = there
    names: list[Any] = [*matched.names]
    for piece in cells.pieces():
        for i in range(len(piece.indptr) - 1):
            cell = piece.first + i
            if cell >= len(tokens):
                return
            mine = tokens[cell][tokens[cell] >= _FRONT].numpy()
            columns = column_of[mine]
            if (columns < 0).any():
                what = f"cell {cell} has a gene (token {int(mine[columns < 0][0])}) that the file has not"
                raise DataError(what, where=cells.where, remedy="Give the file and the model that it was made with.")
            values = np.zeros(len(cells.var))
            part = slice(int(piece.indptr[i]), int(piece.indptr[i + 1]))
            values[piece.indices[part]] = piece.data[part]
            frame = pl.DataFrame(
                {
                    "token": [names[c] for c in columns],
                    "value": values[columns].astype(np.float32),
                    "total": np.full(len(columns), values.sum()),
                }
            )
            known = cells.metadata[cell].select(pl.all().repeat_by(len(frame)).explode())
            yield cell, pl.concat([known, frame], how="horizontal")
