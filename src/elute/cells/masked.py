"""Learning to tell a gene's hidden value from the other genes of its cell.

1. Of each cell up to `max_length` tokens are drawn at random, the cell's own in front. Of its genes a share, drawn
   between two bounds, is hidden: the model reads a mark in place of the value.
2. The loss is the squared error of the values at hidden positions, a mean for each cell, then over cells.
3. While learning, values are bins less their mean, divided by their SD. `fold` puts both into the weights, so that the
   model that is written reads and predicts bins by itself.

Which cells a step reads, which of their genes and which of those are hidden follows from the seed and the step alone:
a run that was killed and resumed ends with the same bits as one left alone.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch

from elute.base.errors import ConfigError, DataError
from elute.engine.optimizers import Learnt
from elute.models.tahoe.config import CollatorConfig, GeneEncoderConfig, TahoeConfig
from elute.models.tahoe.model import Output, TahoeX1
from elute.models.tahoe.tokenizer import CLS
from elute.store.window import Batch

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from elute.cells.corpus import Corpus
    from elute.engine.optimizers import Adam

SPECIAL = ("<pad>", CLS, "<eoc>")  # the tokens that stand before the genes, by their numbers
FRONT = SPECIAL.index(CLS)


class Scale(NamedTuple):
    """Mean and SD of the bins of training cells."""

    mean: float
    sd: float

    @classmethod
    def of(cls, counts: NDArray[np.int64]) -> Scale:
        """Take them from how often each bin occurs."""
        n = int(counts.sum())
        bins = np.arange(len(counts))
        mean = float((counts * bins).sum() / max(1, n))
        sd = float(np.sqrt((counts * (bins - mean) ** 2).sum() / max(1, n)))
        if not sd > 0:
            raise DataError("the cells' values do not vary: there is nothing to learn", remedy="Check the matrix.")
        return cls(mean, sd)


def begin(*, d_model: int, layers: int, heads: int, vocabulary: int, seed: int) -> TahoeX1:
    """Return a network with random weights: norms before each part and on both encoders, no second decoder."""
    if d_model % heads:
        raise ConfigError(f"d_model {d_model} is no multiple of {heads} heads", remedy="Change one of them.")
    config = TahoeConfig(
        d_model=d_model,
        n_layers=layers,
        n_heads=heads,
        vocab_size=vocabulary,
        transformer_activation="relu",  # as in the published smaller two
        gene_encoder=GeneEncoderConfig(use_norm=True),
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return TahoeX1(config)


@torch.no_grad()
def fold(network: TahoeX1, scale: Scale) -> TahoeX1:
    """Return a copy that reads and predicts bins, of one that reads and predicts (bin - mean) / SD."""
    folded = copy.deepcopy(network).requires_grad_(False).eval()
    first, last = folded.expression_encoder.linear1, folded.expression_decoder.out_proj
    first.bias.sub_(first.weight[:, 0] * (scale.mean / scale.sd))
    first.weight.div_(scale.sd)
    last.weight.mul_(scale.sd)
    last.bias.mul_(scale.sd).add_(scale.mean)
    return folded


def draw(
    corpus: Corpus, cells: Sequence[int] | NDArray[np.int64], rng: np.random.Generator, *, max_length: int,
    share: tuple[float, float],
) -> dict[str, Tensor]:  # fmt: skip
    """Draw tokens of some cells and hide a share of them: tokens, values (bins) and generated, each [cells, tokens]."""
    drawn = []
    for cell in cells:
        tokens, bins = corpus.cell(int(cell))
        chosen = rng.permutation(len(tokens))[: max_length - 1]
        hidden = round(len(chosen) * rng.uniform(*share))
        drawn.append((tokens[chosen], bins[chosen], min(max(1, hidden), len(chosen) - 1)))
    width = 1 + max(len(tokens) for tokens, _, _ in drawn)
    filler = CollatorConfig()
    rows: dict[str, NDArray[Any]] = {
        "tokens": np.full((len(drawn), width), filler.pad_token_id, np.int64),
        "values": np.full((len(drawn), width), filler.pad_value, np.float32),
        "generated": np.zeros((len(drawn), width), bool),
    }
    rows["tokens"][:, 0] = FRONT
    for row, (tokens, bins, hidden) in enumerate(drawn):
        rows["tokens"][row, 1 : 1 + len(tokens)] = tokens
        rows["values"][row, 1 : 1 + len(tokens)] = bins
        rows["generated"][row, 1 : 1 + hidden] = True  # the order is random already
    return {name: torch.from_numpy(array) for name, array in rows.items()}


class MaskedStream:
    """Batches of the cells of one split, each cell once an epoch."""

    def __init__(
        self, corpus: Corpus, cells: NDArray[np.int64], *, max_length: int, batch_size: int,
        share: tuple[float, float], seed: int,
    ) -> None:  # fmt: skip
        if not len(cells):
            raise DataError("no training cell has two genes of the vocabulary", where=corpus.folder)
        self.corpus, self.cells, self.max_length, self.share = corpus, cells, max_length, share
        self.batch_size, self.seed, self.step = batch_size, seed, 0
        self._epoch: tuple[int, NDArray[np.int64]] = (-1, cells)

    def __iter__(self) -> Iterator[Batch]:
        """Hand out batches without end."""
        while True:
            step, self.step = self.step, self.step + 1
            places = np.arange(step * self.batch_size, (step + 1) * self.batch_size)
            cells = np.array([self._at(int(place)) for place in places])
            rng = np.random.default_rng([self.seed, 1, step])
            rows = draw(self.corpus, cells, rng, max_length=self.max_length, share=self.share)
            yield Batch(rows, torch.from_numpy(cells))

    def state(self) -> dict[str, Any]:
        """Return the place after the last batch."""
        return {"step": self.step}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a place."""
        self.step = int(state["step"])

    def _at(self, place: int) -> int:
        epoch, at = divmod(place, len(self.cells))
        if epoch != self._epoch[0]:
            self._epoch = epoch, np.random.default_rng([self.seed, 0, epoch]).permutation(self.cells)
        return int(self._epoch[1][at])


class MaskedObjective:
    """A network that learns hidden values (see engine/fit.py)."""

    project = False
    re_norm_interval = 0

    def __init__(self, network: TahoeX1, scale: Scale) -> None:
        self.network, self.scale = network.train(), scale
        self.learnt: list[Learnt] = []
        for name, p in network.named_parameters():
            p.grad = torch.zeros_like(p)  # autograd adds to what is there, in place
            self.learnt.append(Learnt(name, p.data, p.grad))

    def gradient(self, rows: Mapping[str, Tensor], *, step: int, total_rows: int) -> Mapping[str, float]:
        """Add a part's gradient to the parameters' buffers; return sums over its cells."""
        del step
        hidden, scaled, output = predict(self.network, rows, self.scale)
        off = torch.where(hidden, output.expr_preds - scaled, 0.0).square().sum(1)
        each = hidden.sum(1)
        loss = (off / each).sum() / total_rows
        loss.backward()  # type: ignore[no-untyped-call]
        spread = torch.where(hidden, scaled, 0.0).square().sum()
        return {"loss": float(loss.detach()), "squared": float(off.detach().sum()), "spread": float(spread)}

    def after(self, step: int, steps: int, optimizer: Adam) -> None:
        """Nothing follows an update."""

    def figures(self, sums: Mapping[str, float]) -> dict[str, float]:
        """Loss in units of the bins' variance, and the share of that variance that is told."""
        told = 1 - sums["squared"] / max(sums["spread"], 1e-300)
        return {"loss": sums["loss"] / sums["steps"], "explained_variance": told}

    def tie(self) -> None:
        """No two parameters are one."""

    def state(self) -> dict[str, Any]:
        """No later step depends on more than the parameters."""
        return {}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""


def predict(network: TahoeX1, rows: Mapping[str, Tensor], scale: Scale | None) -> tuple[Tensor, Tensor, Output]:
    """Run a network: which positions were hidden, all values, what it gives; values are scaled if there is a scale."""
    device = network.gene_encoder.embedding.weight.device
    tokens, values, hidden = (rows[name].to(device) for name in ("tokens", "values", "generated"))
    if scale is not None:
        values = (values - scale.mean) / scale.sd
    padded = bool((tokens == network.padding).any())
    return hidden, values, network(tokens, values, generated=hidden, padded=padded)
