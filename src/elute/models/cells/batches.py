"""From cells to padded batches with one row of metadata a kept position, the same for every model of cells.

Beside the gene and its value stand the sum of all the cell's values (`total`) and, for a model that reads numbers, what
it read instead of the value (`read`, say its bin).

Cells are read in windows of fixed size; within one the shortest go first, so that a batch holds cells of about one
length and little of it is padding. The order of rows depends on neither the batch size nor the machine.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import polars as pl

from elute.base.errors import DataError

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray
    from torch import Tensor

    from elute.models.cells.cellfile import Cells
    from elute.models.cells.matching import Matched

WINDOW = 1024


@dataclass(frozen=True, eq=False)
class Cell:
    """One cell's genes in a model's vocabulary, in the order in which they are stored."""

    place: int  # among the chosen cells
    name: str
    tokens: NDArray[np.int32]
    values: NDArray[np.float32]
    columns: NDArray[np.int32]  # the genes' places in the table
    total: float  # of all that the file holds of the cell, whether the model knows the gene or not


@dataclass(frozen=True, eq=False)
class Tokens:
    """A padded batch: what the model reads, which positions are no padding, which entries became tokens."""

    batch: dict[str, Any]
    present: Tensor
    kept: Sequence[NDArray[np.int64]]  # a cell each: its entries in the order of its tokens, without those in front


class Tokenizer(Protocol):
    """What a model of cells brings."""

    @property
    def vocabulary(self) -> Mapping[str, int]:
        """Each gene's token."""

    @property
    def special(self) -> int:
        """How many tokens stand in front of a cell's genes."""

    @property
    def max_length(self) -> int:
        """How many tokens the model reads of a cell."""

    @property
    def ordered(self) -> bool:
        """Whether cells must be taken in the order of the file."""

    @property
    def zeros(self) -> bool:
        """Whether zeros that are stored become tokens."""

    def settings(self) -> dict[str, Any]:
        """Return what tells rows made this way from others."""

    def start(self) -> torch.Generator:
        """Begin a pass over all cells."""

    def collate(self, cells: Sequence[Cell], generator: torch.Generator) -> Tokens:
        """Make one batch."""


@dataclass(frozen=True)
class Survey:
    """What a pass over the cells will give."""

    cells: int
    rows: int  # tokens of genes
    cut: int  # cells of which only a sample of the genes is read
    without: int  # cells with no gene of the vocabulary
    median: int  # tokens of a cell


def survey(cells: Cells, matched: Matched, tokenizer: Tokenizer) -> Survey:
    """Count, in one pass without the model, what the model will read."""
    counted = [np.zeros(0, np.int64)]
    for piece in cells.pieces(WINDOW):
        mask = _mask(matched, piece.indices, piece.data, zeros=tokenizer.zeros)
        ends = np.concatenate([[0], np.cumsum(mask)])[piece.indptr]
        counted.append(np.diff(ends))
    genes = np.concatenate(counted)
    some = genes[genes > 0]
    if not len(some):
        raise DataError("no cell has a gene that the model knows", where=cells.where, remedy="Check --gene-id-key.")
    lengths = np.minimum(some + tokenizer.special, tokenizer.max_length)
    return Survey(
        cells=len(some),
        rows=int(lengths.sum()) - tokenizer.special * len(some),
        cut=int((some + tokenizer.special > tokenizer.max_length).sum()),
        without=len(genes) - len(some),
        median=int(np.median(lengths)),
    )


def token_batches(
    cells: Cells, matched: Matched, tokenizer: Tokenizer, *, batch_size: int, every: bool = False
) -> Iterator[tuple[dict[str, Any], pl.DataFrame]]:
    """Yield batches; `keep` in each is True where a position is a row: the genes, or with `every` all but padding."""
    names = pl.Series("token", [*matched.names, None], dtype=pl.String)
    generator = tokenizer.start()
    front = tokenizer.special if every else 0
    for window in _windows(cells, matched, tokenizer):
        order = window if tokenizer.ordered else sorted(window, key=lambda cell: len(cell.tokens))
        for at in range(0, len(order), batch_size):
            chosen = order[at : at + batch_size]
            made = tokenizer.collate(chosen, generator)
            keep = made.present.clone()
            keep[:, : tokenizer.special] &= every
            batch = {**made.batch, "keep": keep, "padded": not bool(made.present.all())}
            frame = _metadata(cells.metadata, names, chosen, kept=made.kept, front=front)
            if "values" in made.batch:
                frame = frame.with_columns(pl.Series("read", made.batch["values"][keep].float().numpy()))
            yield batch, frame


def _metadata(
    table: pl.DataFrame, names: pl.Series, chosen: Sequence[Cell], *, kept: Sequence[NDArray[np.int64]], front: int
) -> pl.DataFrame:
    """One row a kept position: what is known of the cell, which gene, its value as it stands in the file, their sum."""
    counts = np.array([len(places) + front for places in kept])
    columns = [_fronted(cell.columns[places], front, -1) for cell, places in zip(chosen, kept, strict=True)]
    values = [_fronted(cell.values[places], front, np.nan) for cell, places in zip(chosen, kept, strict=True)]
    of_cell = table[np.repeat([cell.place for cell in chosen], counts)]
    total = pl.Series("total", np.repeat([cell.total for cell in chosen], counts))
    genes = np.concatenate(columns)
    token = names.gather(np.where(genes < 0, len(names) - 1, genes))
    value = pl.Series("value", np.concatenate(values).astype(np.float32), nan_to_null=True)
    return of_cell.with_columns(token, value, total)


def _fronted(array: NDArray[Any], front: int, filler: float) -> NDArray[Any]:
    return np.concatenate([np.full(front, filler, array.dtype), array]) if front else array


def _windows(cells: Cells, matched: Matched, tokenizer: Tokenizer) -> Iterator[list[Cell]]:
    """Cells with at least one gene of the vocabulary, so many at a time, however the file was cut into pieces."""
    window: list[Cell] = []
    for piece in cells.pieces(WINDOW):
        mask = _mask(matched, piece.indices, piece.data, zeros=tokenizer.zeros)
        columns = piece.indices[mask].astype(np.int32)
        values = piece.data[mask]
        tokens = matched.tokens[columns].astype(np.int32)
        ends = np.concatenate([[0], np.cumsum(mask)])[piece.indptr]
        totals = np.diff(np.concatenate([[0.0], np.cumsum(piece.data, dtype=np.float64)])[piece.indptr])
        for i, (start, stop) in enumerate(pairwise(ends)):
            place = piece.first + i
            if stop > start:
                cut = slice(start, stop)
                arrays = tokens[cut], values[cut], columns[cut]
                window.append(Cell(place, cells.names[place], *arrays, total=float(totals[i])))
            if (place + 1) % WINDOW == 0 and window:
                yield window
                window = []
    if window:
        yield window


def _mask(matched: Matched, columns: NDArray[Any], values: NDArray[np.float32], *, zeros: bool) -> NDArray[np.bool_]:
    known: NDArray[np.bool_] = matched.tokens[columns] >= 0
    return known if zeros else known & (values != 0)
