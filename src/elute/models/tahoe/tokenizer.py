"""From counts to tokens: a cell's genes, each with the number of the bin that its count falls into.

Bins are quantiles of the cell's own non-zero counts, taken over all of its genes before any are left out. A cell with
more genes than the model reads gives a random sample of them, drawn from the run's seed and the cell's name, so that
it is the same in whatever batch, order or process.

`upstream_exact` does what the published code does instead:
- the draw comes from one generator over all batches, so a sample depends on the cells before it, and is out of order;
- a batch is cut to its longest cell as measured before the drug's token went in, so that the longest loses a gene;
- stored zeros become tokens;
- the first `keep_first_n_tokens` positions stay as they are also where no drug was put among them: with 2 and no drug,
  the first gene keeps its raw count and is never left out, and a cell of one gene is an error.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from elute.base.errors import ConfigError, DataError
from elute.models.cells.batches import Cell, Tokens
from elute.models.tahoe.config import CollatorConfig

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLS, DRUG = "<cls>", "<drug>"


class TahoeTokenizer:
    """What turns cells into batches (see Tokenizer in models/cells/batches.py)."""

    def __init__(
        self,
        vocabulary: Mapping[str, int],
        config: CollatorConfig,
        *,
        max_length: int | None = None,
        seed: int = 0,
        upstream_exact: bool = False,
    ) -> None:
        self.vocabulary, self.config, self.seed = vocabulary, config, seed
        self.exact = self.zeros = self.ordered = upstream_exact
        self.front = [self._token(name) for name in ((CLS, DRUG) if config.use_chem_token else (CLS,))]
        self.special = len(self.front)
        self.max_length = max_length or config.max_length
        if self.max_length <= max(self.special, config.keep_first_n_tokens):
            raise ConfigError(f"a cell of {self.max_length} tokens holds no gene", remedy="Give a larger --max-length.")

    def settings(self) -> dict[str, Any]:
        """Return what tells rows made this way from others, for the model's fingerprint."""
        told = {"max_length": self.max_length, "seed": self.seed, "upstream_exact": self.exact}
        return {**self.config.model_dump(), **told}

    def start(self) -> torch.Generator:
        """Begin a pass over all cells: the generator that the published code draws from."""
        generator = torch.Generator().manual_seed(self.seed)
        torch.empty((), dtype=torch.int64).random_(generator=generator)  # its data loader draws once before
        return generator

    def collate(self, cells: Sequence[Cell], generator: torch.Generator) -> Tokens:
        """Make one padded batch."""
        numbers = [self._numbers(cell) for cell in cells]
        if self.exact:
            longest = max(len(cell.tokens) for cell in cells) + 1
            limit = min(self.max_length, longest)
            places = [self._drawn(len(values), limit, generator) for values in numbers]
        else:
            places = [self._chosen(cell.name, len(values)) for cell, values in zip(cells, numbers, strict=True)]
        width = max(map(len, places))
        tokens = torch.full((len(cells), width), self.config.pad_token_id)
        values = torch.full((len(cells), width), float(self.config.pad_value))
        for row, (cell, number, chosen) in enumerate(zip(cells, numbers, places, strict=True)):
            ids = np.concatenate([self.front, cell.tokens])
            tokens[row, : len(chosen)] = torch.from_numpy(ids[chosen])
            values[row, : len(chosen)] = torch.from_numpy(number[chosen])
        batch: dict[str, Any] = {"tokens": tokens, "values": values}
        if self.config.use_chem_token:
            batch["drugs"] = torch.zeros(len(cells), dtype=torch.long)  # cells of a table carry no drug
        return Tokens(batch, tokens != self.config.pad_token_id, [p[self.special :] - self.special for p in places])

    def _token(self, name: str) -> int:
        if name not in self.vocabulary:
            raise DataError(f"holds no token {name}", where="vocab.json", remedy="Fetch the model anew.")
        return self.vocabulary[name]

    def _numbers(self, cell: Cell) -> NDArray[np.float32]:
        """What the model reads beside each token: a bin, or in front of the genes the value that says nothing."""
        first = self.config.keep_first_n_tokens if self.exact else self.special
        numbers = np.concatenate([np.full(self.special, self.config.pad_value, np.float32), cell.values])
        if self.exact and not numbers[first:].any():
            what = f"cell {cell.name!r} has no gene to take quantiles of, at which the published code stops"
            raise DataError(what, remedy="Leave such cells out, or do without upstream_exact.")
        numbers[first:] = bin_values(numbers[first:], self.config.num_bins, right=self.config.right_binning)
        return numbers

    def _chosen(self, name: str, length: int) -> NDArray[np.int64]:
        """Which tokens of a cell go in: all, or those in front and a sample of its genes, in their order."""
        if length <= self.max_length:
            return np.arange(length)
        digest = hashlib.blake2b(f"{self.seed}\0{name}".encode(), digest_size=8).digest()
        generator = torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)
        drawn = torch.randperm(length - self.special, generator=generator)[: self.max_length - self.special]
        return np.concatenate([np.arange(self.special), np.sort(drawn.numpy()) + self.special])

    def _drawn(self, length: int, limit: int, generator: torch.Generator) -> NDArray[np.int64]:
        """The published draw."""
        if length <= limit:
            return np.arange(length)
        first = self.config.keep_first_n_tokens
        drawn = torch.randperm(length - first, generator=generator)[: limit - first]
        return np.concatenate([np.arange(first), drawn.numpy() + first])


def bin_values(values: NDArray[np.float32], bins: int, *, right: bool = False) -> NDArray[np.float32]:
    """Number the quantiles that a cell's values fall into, from 1; a stored zero is in the first.

    With `right` an edge belongs to the bin above it, and zeros stay 0.
    """
    x = torch.from_numpy(np.ascontiguousarray(values, np.float32))
    if not x.any():
        return np.full(len(x), 0 if right else 1, np.float32)
    edges = torch.quantile(x[x != 0], torch.linspace(0, 1, bins - 1))
    found = torch.bucketize(x, edges, right=right).float()
    return (found if right else found + 1).numpy()
