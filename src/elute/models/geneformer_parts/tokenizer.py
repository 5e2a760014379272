"""From counts to ranks: a cell's genes in the order of how far each stands above its median over many cells.

1. Counts are divided by the cell's total, over all genes of the file, and multiplied by 10,000.
2. Each is divided by the gene's median over the cells that have it; a gene without a median is left out.
3. The genes of which the cell has something go in from the highest down, until the model's length is full.
4. Where the token dictionary has `<cls>` and `<eos>` (Geneformer V2), they stand around them and count towards it.

Genes of one height are in the order of their tokens; in the published code theirs is up to the sorting routine. Where
a file has several rows for one gene the first is taken (see match_genes); the published code of V2 adds them up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from elute.base.errors import ConfigError, DataError
from elute.base.files import digest_json
from elute.models.cells.batches import Cell, Tokens

if TYPE_CHECKING:
    from numpy.typing import NDArray

CLS, EOS = "<cls>", "<eos>"
TARGET = 10_000


class RankTokenizer:
    """What turns cells into batches (see Tokenizer in models/cells/batches.py).

    `<eos>` is never a row, so `max_length` counts without it.
    """

    ordered = zeros = False

    def __init__(self, tokens: Mapping[str, int], medians: Mapping[str, float], *, limit: int, pad: int = 0) -> None:
        """Name each entry's token, each gene's median, and how many tokens the network reads at most."""
        if (CLS in tokens) != (EOS in tokens):
            raise DataError(f"there is one of {CLS} and {EOS}", where="the token dictionary", remedy="Convert it anew.")
        genes = {name: token for name, token in tokens.items() if not name.startswith("<")}
        self.vocabulary = {name: token for name, token in genes.items() if 0 < medians.get(name, 0) < np.inf}
        self.without_median = len(genes) - len(self.vocabulary)
        if not self.vocabulary:
            remedy = "The tokens and the medians must name genes the same way, by Ensembl ids."
            raise DataError("no gene with a token has a median", remedy=remedy)
        self.front = [tokens[CLS]] if CLS in tokens else []
        self.back = [tokens[EOS]] if EOS in tokens else []
        self.special, self.max_length, self.pad = len(self.front), limit - len(self.back), pad
        if self.max_length <= self.special:
            raise ConfigError(f"a cell of {limit} tokens holds no gene", remedy="Give a larger max_length.")
        self._median = np.full(max(self.vocabulary.values()) + 1, np.nan)
        for name, token in self.vocabulary.items():
            self._median[token] = medians[name]

    def settings(self) -> dict[str, Any]:
        """Return what tells rows made this way from others, for the model's fingerprint."""
        known = {name: [token, float(self._median[token])] for name, token in self.vocabulary.items()}
        ends = [*self.front, *self.back]
        return {"max_length": self.max_length + len(self.back), "special": ends, "genes": digest_json(known)}

    def start(self) -> torch.Generator:
        """Begin a pass over all cells; nothing is drawn."""
        return torch.Generator()

    def collate(self, cells: Sequence[Cell], generator: torch.Generator) -> Tokens:  # noqa: ARG002
        """Make one padded batch; the network reads where `attention_mask` is True, `genes` says which are genes."""
        ranked = [self.ranked(cell)[: self.max_length - self.special] for cell in cells]
        width = max(map(len, ranked)) + self.special + len(self.back)
        tokens = torch.full((len(cells), width), self.pad)
        read, genes = (torch.zeros(len(cells), width, dtype=torch.bool) for _ in range(2))
        for row, (cell, order) in enumerate(zip(cells, ranked, strict=True)):
            ids = np.concatenate([self.front, cell.tokens[order], self.back]).astype(np.int64)
            tokens[row, : len(ids)] = torch.from_numpy(ids)
            read[row, : len(ids)] = True
            genes[row, self.special : self.special + len(order)] = True
        present = genes.clone()
        present[:, : self.special] = True
        return Tokens({"tokens": tokens, "attention_mask": read, "genes": genes}, present, ranked)

    def ranked(self, cell: Cell) -> NDArray[np.int64]:
        """Return the places of a cell's genes, the highest first."""
        # In this order and precision, as published: where heights are equal but for rounding, it decides.
        height = cell.values.astype(np.float64) / cell.total * TARGET / self._median[cell.tokens]
        return np.lexsort((cell.tokens, -height))
