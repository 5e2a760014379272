"""Direct effects in the replacement model: how much of a target is there because of each source.

Targets are pre-activations of features and the outputs that are explained; sources are features (activation × what they
write, in all layers that they write into), errors and the tokens' vectors.

    effect = gradient of the target by what is written, at layer and position, · what the source writes there

1. One forward with what MLPs write as leaves. Gradients stop there, so that no effect goes through another feature.
2. For targets of one layer, `batch` gradients at a time go back from what that layer reads, or from the outputs.
3. Each is multiplied with what sources write, a piece of positions at a time, so that memory is bounded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from elute.graphs.replacement import Replacement

_NUMBERS = 1 << 23  # of one piece of decoders


@dataclass(frozen=True, eq=False)
class Sources:
    """All that causes something, in the order of columns: features, errors (layer by layer), tokens."""

    layer: NDArray[np.int64]  # of features
    position: NDArray[np.int64]
    feature: NDArray[np.int64]  # within its layer
    activation: NDArray[np.float64]
    n_layers: int
    n_positions: int
    tokens: bool

    @classmethod
    def of(cls, replacement: Replacement) -> Sources:
        """List what there is in a replacement model."""
        parts: list[tuple[Tensor, ...]] = []
        for layer, coded in enumerate(replacement.codes):
            rows, slots = coded.fired.nonzero(as_tuple=True)
            parts.append((torch.full_like(rows, layer), rows, coded.idx[rows, slots], coded.val[rows, slots].double()))
        told = [torch.cat(x).cpu().numpy() for x in zip(*parts, strict=True)]
        return cls(
            *(told[0], told[1], told[2], told[3]),
            n_layers=replacement.n_layers,
            n_positions=replacement.n_positions,
            tokens=replacement.start is not None,
        )

    @property
    def n_features(self) -> int:
        """Features that fired, each at its position."""
        return len(self.layer)

    @property
    def n_errors(self) -> int:
        """Errors: one a layer and position."""
        return self.n_layers * self.n_positions

    @property
    def n(self) -> int:
        """All of them."""
        return self.n_features + self.n_errors + (self.n_positions if self.tokens else 0)


class Effects:
    """Rows of direct effects, computed as they are asked for."""

    def __init__(self, replacement: Replacement, *, batch: int = 64) -> None:
        self.replacement, self.batch = replacement, max(1, batch)
        self.sources = Sources.of(replacement)
        self.run = replacement.live(grad=True)
        self.leaves = [*self.run.y, *([self.run.start] if self.run.start is not None else [])]
        self._batched = True

    def of_outputs(self) -> NDArray[np.float64]:
        """Return the effects on what is explained, [outputs, sources]."""
        seeds = torch.eye(len(self.run.values), dtype=self.run.values.dtype, device=self.run.values.device)
        parts = [self._effects(self.run.values, part) for part in torch.split(seeds, self.batch)]
        return np.concatenate(parts)

    def of_features(self, numbers: Sequence[int] | NDArray[np.int64]) -> NDArray[np.float64]:
        """Return the effects on the pre-activations of features, numbered as sources are, [features, sources]."""
        asked = np.asarray(numbers, dtype=np.int64)
        found = np.zeros((len(asked), self.sources.n))
        for where, seeds, layer in self._seeds(asked):
            found[where] = self._effects(self.run.x[layer], seeds)
        return found

    def _seeds(self, asked: NDArray[np.int64]) -> Iterator[tuple[NDArray[np.int64], Tensor, int]]:
        """Yield gradients of pre-activations by what their layer reads, one layer at a time."""
        for layer in range(self.replacement.n_layers):
            mine = np.flatnonzero(self.sources.layer[asked] == layer)
            x = self.run.x[layer]
            for low in range(0, len(mine), self.batch):
                where = mine[low : low + self.batch]
                which = torch.from_numpy(self.sources.feature[asked[where]]).to(x.device)
                rows = self.replacement.rows[torch.from_numpy(self.sources.position[asked[where]]).to(x.device)]
                seeds = x.new_zeros(len(where), *x.shape)
                seeds[torch.arange(len(where)), rows] = self.replacement.coders.encoders(layer, which)[0].to(x.dtype)
                yield where, seeds, layer

    def _effects(self, target: Tensor, seeds: Tensor) -> NDArray[np.float64]:
        """Return the effects of all sources on targets, each told by its gradient at `target`."""
        grads = self._gradients(target, seeds)
        found = torch.zeros(len(seeds), self.sources.n, dtype=torch.float64)
        first, kept = 0, self.replacement.rows
        for source, coded in enumerate(self.replacement.codes):
            fired = coded.fired
            count = int(fired.sum())
            for to in self.replacement.coders.written(source):
                if (grad := grads[to]) is not None:
                    found[:, first : first + count] += self._through(grad[:, kept], source, to)[:, fired].double().cpu()
            first += count
        for to, error in enumerate(self.replacement.errors):
            if (grad := grads[to]) is not None:
                found[:, first : first + len(kept)] = (grad[:, kept] * error).sum(-1).double().cpu()
            first += len(kept)
        start, grad = self.run.start, grads[-1]
        if start is not None and grad is not None:
            found[:, first:] = (grad[:, kept] * start.detach()[kept]).sum(-1).double().cpu()
        return found.numpy()

    def _through(self, grad: Tensor, source: int, to: int) -> Tensor:
        """Return gradients times what each slot of a layer's codes writes, [targets, positions, slots]."""
        coded = self.replacement.codes[source]
        W = self.replacement.coders.decoder(source, to)
        n, slots = coded.idx.shape
        piece = max(1, _NUMBERS // max(1, slots * W.shape[1]))
        parts = []
        for low in range(0, n, piece):
            at = slice(low, low + piece)
            written = (W[coded.idx[at]] * coded.val[at][..., None]).to(grad.dtype)  # [positions, slots, width]
            parts.append(torch.bmm(grad[:, at].transpose(0, 1), written.transpose(1, 2)).transpose(0, 1))
        return torch.cat(parts, dim=1)

    def _gradients(self, target: Tensor, seeds: Tensor) -> list[Tensor | None]:
        if not target.requires_grad:
            return [None] * len(self.leaves)
        if self._batched:
            try:
                return self._pulled(target, seeds, batched=True)
            except RuntimeError:  # an operation of the model has no rule for several gradients at once
                self._batched = False
        each = [self._pulled(target, seed, batched=False) for seed in seeds]
        return [
            None if parts[0] is None else torch.stack([x for x in parts if x is not None])
            for parts in zip(*each, strict=True)
        ]

    def _pulled(self, target: Tensor, seeds: Tensor, *, batched: bool) -> list[Tensor | None]:
        return list(
            torch.autograd.grad(
                target, self.leaves, seeds, retain_graph=True, allow_unused=True, is_grads_batched=batched
            )
        )
