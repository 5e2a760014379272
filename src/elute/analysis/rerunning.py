"""Running a network again with edits in force, and reading what it gives: predicted values, and codes by cell.

What a cell is given is a `Round`: a batch, at which rows predicted values are read, and whether codes are. A model that
learnt to predict what is hidden is asked with values hidden, and for codes with none.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

if TYPE_CHECKING:
    import polars as pl
    from torch import Tensor

    from elute.base.contracts import Edit, Rows
    from elute.base.mergeable import Floats, Integers
    from elute.dictionaries.dictionary import Dictionary
    from elute.engine.centring import Centre


@dataclass(frozen=True, eq=False)
class Watched:
    """A dictionary whose features are read, and what is subtracted of the rows that it is given."""

    dictionary: Dictionary
    centre: Centre | None = None

    @property
    def sites(self) -> tuple[str, ...]:
        """What it reads."""
        return tuple(self.dictionary.spec.reads)

    def encode(self, rows: Rows, frame: pl.DataFrame) -> Any:
        """Return the codes of a batch's rows."""
        held = {site: rows[site] for site in self.sites}
        if self.centre is not None:
            held = self.centre.subtract(held, self.centre.codes(frame[self.centre.by]))
        return self.dictionary.encode(held)

    def by_cell(self, rows: Rows, frame: pl.DataFrame, cell: Integers, *, n: int) -> Floats:
        """Mean code over the rows of each of n cells, [n, features]; rows of cell -1 are left out."""
        codes = self.encode(rows, frame)
        sums = torch.zeros(n + 1, codes.n_features, dtype=torch.float64)
        at = torch.from_numpy(np.where(cell < 0, n, cell))[:, None].expand(-1, codes.k)
        sums.index_put_((at, codes.indices.cpu().long()), codes.values.cpu().double(), accumulate=True)
        counts = np.bincount(cell[cell >= 0], minlength=n)
        return sums[:n].numpy() / np.maximum(counts, 1)[:, None]


class Round(NamedTuple):
    """One way in which a batch is read."""

    batch: Any
    valued: Tensor | None  # bool [rows]: where predicted values are read; None: nowhere
    coded: bool  # whether later features are read


class Part(NamedTuple):
    """A batch: its rounds, its metadata, and the place of each row's cell in the sample and of its gene, else -1."""

    rounds: Sequence[Round]
    frame: pl.DataFrame
    cell: Integers
    gene: Integers


class Seen(NamedTuple):
    """What one forward gave."""

    values: Tensor | None  # [rows]
    rows: Rows


Head = Callable[[Any, Any], "Tensor | None"]  # (what the network gave, a mask of its rows) -> predicted values [rows]


def predicted(output: Any, keep: Any) -> Tensor | None:
    """Return each row's predicted value, where the network has the head that pretraining taught."""
    values = getattr(output, "expr_preds", None)
    return None if values is None else (values.reshape(-1) if keep is None else values[keep.to(values.device)])


def forward(
    model: Any, batch: Any, edits: Mapping[str, Edit], *, sites: Iterable[str] = (), head: Head = predicted
) -> Seen:
    """Run a network with edits in force, and return its predicted values and the rows of some sites."""
    rows: Rows = {}

    def record(name: str) -> Edit:
        def edit(x: Tensor, metadata: pl.DataFrame | None) -> Tensor:
            new = edits[name](x, metadata) if name in edits else x
            rows[name] = new.detach().to("cpu", torch.float32, copy=True)
            return new  # the same tensor, where nothing is edited: the forward's own bits stay in place

        return edit

    wanted = {**edits, **{name: record(name) for name in sites}}
    with torch.no_grad(), model.patch(wanted):
        values = head(model(batch), model.keep(batch))
    return Seen(None if values is None else values.detach().to("cpu", torch.float32), rows)


class Guesses:
    """What a network told of values that it was asked for, without an edit."""

    def __init__(self) -> None:
        self._pairs: list[tuple[Any, Any]] = []

    def add(self, part: Part, at: Integers, values: Floats) -> None:
        """Take in the predicted values of some rows of a batch."""
        if "read" in part.frame.columns:
            self._pairs.append((part.frame["read"].to_numpy()[at], values[at]))

    def told(self) -> float | None:
        """Share of the variance of what was read that the predictions tell (R²)."""
        if not self._pairs:
            return None
        read, said = (np.concatenate(column).astype(np.float64) for column in zip(*self._pairs, strict=True))
        spread = float(((read - read.mean()) ** 2).sum())
        return 1.0 - float(((read - said) ** 2).sum()) / spread if spread else None


def valued_rows(valued: Tensor, part: Part) -> Integers:
    """Where predicted values are read of rows that are a gene's, of a cell of the sample."""
    at: Integers = np.flatnonzero(valued.cpu().numpy() & (part.gene >= 0) & (part.cell >= 0))
    return at
