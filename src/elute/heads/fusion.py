"""One vector of several: what two or more embeddings of the same thing say, together.

    average     the mean of the standardised vectors, which must be of one width
    weighted    the same with weights
    concat      standardised vectors side by side
    attention   a network: below

1. Each source s is standardised with the mean and spread of the network's training rows, z_s.
2. A scalar gate says how much a source counts for this row: g_s = σ(a_s · z_s + c_s).
3. h = [g_1 z_1, g_2 z_2, …]; then twice: linear, batch normalisation, ReLU, dropout; then linear: the fused vector.
   What batch normalisation follows has no bias of its own: its gradient is nothing but rounding, which Adam would
   magnify to whole steps.
4. While it learns, a linear head on the fused vector tells the class; the head serves for nothing else.

`FusionNetworks` holds several such networks that learn side by side, each from its own rows, and are multiplied in one
operation: those of a fold's inner parts, and of its controls. All begin with the same weights and leave out the same
hidden units, so that they differ by what they were shown alone; what one learns does not depend on the others.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.functional import batch_norm

from elute.base.errors import ConfigError, DataError
from elute.base.tensors import as_tensor

if TYPE_CHECKING:
    from elute.heads.fusion_settings import FusionConfig

Array = NDArray[Any]
Ints = NDArray[np.int64]

_MOMENTUM, _EPS = 0.1, 1e-5
_AT_ONCE = 8192  # rows


@dataclass(frozen=True, eq=False)
class Standard:
    """Mean and spread of each column, measured on some rows."""

    mean: NDArray[np.float64]
    spread: NDArray[np.float64]  # 1 where a column never varies

    @staticmethod
    def of(x: Array, rows: Ints | None = None) -> Standard:
        """Measure them on these rows, or on all, a piece at a time."""
        n = len(x) if rows is None else len(rows)
        total, square = np.zeros(x.shape[1]), np.zeros(x.shape[1])
        for part in _pieces(x, rows):
            total += part.sum(axis=0)
        mean = total / n
        for part in _pieces(x, rows):
            square += np.square(part - mean).sum(axis=0)
        spread = np.sqrt(square / n)
        # What differs by rounding alone does not vary.
        still = spread <= 1e-7 * np.maximum(np.abs(mean), 1e-30)
        return Standard(mean, np.where(still, 1.0, spread))

    def apply(self, x: Array) -> NDArray[np.float64]:
        """Return columns less their mean, divided by their spread."""
        return np.asarray((np.asarray(x, dtype=np.float64) - self.mean) / self.spread)


def _pieces(x: Array, rows: Ints | None) -> Iterator[NDArray[np.float64]]:
    n = len(x) if rows is None else len(rows)
    for start in range(0, n, _AT_ONCE):
        part = x[start : start + _AT_ONCE] if rows is None else x[rows[start : start + _AT_ONCE]]
        yield np.asarray(part, dtype=np.float64)


def concat(parts: Sequence[Array]) -> Array:
    """Put standardised vectors side by side."""
    return np.concatenate(list(parts), axis=1)


def weighted(parts: Sequence[Array], weights: Sequence[float]) -> Array:
    """Return the weighted mean of standardised vectors of one width."""
    widths = {part.shape[1] for part in parts}
    if len(widths) > 1:
        told = " and ".join(str(width) for width in sorted(widths))
        raise ConfigError(f"vectors of widths {told} have no average", remedy="Fuse them by concat or attention.")
    if len(weights) != len(parts) or min(weights) < 0 or sum(weights) <= 0:
        raise ConfigError(f"{len(weights)} weights for {len(parts)} sources", remedy="Give one of 0 or above each.")
    share = np.asarray(weights, dtype=np.float64) / sum(weights)
    return np.asarray(sum(w * np.asarray(part, np.float64) for w, part in zip(share, parts, strict=True)))


def average(parts: Sequence[Array]) -> Array:
    """Return the mean of standardised vectors of one width."""
    return weighted(parts, [1.0] * len(parts))


def default_weights(n: int) -> tuple[float, ...]:
    """Return 0.7 for the first source, and 0.3 shared by the others."""
    return (0.7, *(0.3 / (n - 1) for _ in range(n - 1)))


class FusionNetworks(nn.Module):
    """Several fusion networks of one shape, side by side: every tensor's first dimension is the network."""

    head_weight: nn.Parameter
    head_bias: nn.Parameter

    def __init__(self, widths: Sequence[int], n_classes: int, *, config: FusionConfig, networks: int = 1) -> None:
        """Begin with weights as PyTorch's linear layers have them, the same for every network."""
        super().__init__()
        self.widths, self.n_classes, self.config, self.networks = tuple(widths), n_classes, config, networks
        drawn = torch.Generator().manual_seed(config.seed)
        total, layers = sum(self.widths), config.layers(self.widths)

        def linear(name: str, fan_in: int, fan_out: int, *, bias: bool = True) -> None:
            bound = 1 / math.sqrt(fan_in)
            for kind, shape in (("weight", (fan_in, fan_out)), ("bias", (1, fan_out)))[: 1 + bias]:
                value = (2 * torch.rand(shape, generator=drawn) - 1) * bound
                self.register_parameter(f"{name}_{kind}", nn.Parameter(value.expand(networks, *shape).clone()))

        for s, width in enumerate(self.widths):
            linear(f"gate{s}", width, 1)
            self.register_buffer(f"mean{s}", torch.zeros(networks, 1, width))
            self.register_buffer(f"spread{s}", torch.ones(networks, 1, width))
        self.register_buffer("present", torch.ones(networks, len(self.widths)))
        for i, (fan_in, fan_out) in enumerate(((total, layers[0]), layers), start=1):
            linear(f"layer{i}", fan_in, fan_out, bias=False)
            self.register_parameter(f"norm{i}_weight", nn.Parameter(torch.ones(networks, 1, fan_out)))
            self.register_parameter(f"norm{i}_bias", nn.Parameter(torch.zeros(networks, 1, fan_out)))
            self.register_buffer(f"norm{i}_mean", torch.zeros(networks, 1, fan_out))
            self.register_buffer(f"norm{i}_var", torch.ones(networks, 1, fan_out))
        linear("out", layers[1], config.width)
        linear("head", config.width, n_classes)

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return self.head_weight.device

    def one(self, which: int) -> FusionNetworks:
        """Return one of the networks by itself; it shares its weights with this one."""
        alone = copy.copy(self)
        alone._parameters = {
            name: nn.Parameter(p.data[which : which + 1], requires_grad=False)
            for name, p in self._parameters.items()
            if p is not None
        }
        alone._buffers = {n: None if b is None else b[which : which + 1] for n, b in self._buffers.items()}
        alone.networks = 1
        return alone.eval()

    def fuse(self, sources: Sequence[Tensor], *, keep: Sequence[Tensor] | None = None) -> tuple[Tensor, Tensor]:
        """Return fused vectors [networks, rows, width] and gates [networks, rows, sources].

        `sources` are [networks or 1, rows, width] each. While learning, `keep` says which hidden units stay.
        """
        gates, parts = [], []
        for s, x in enumerate(sources):
            z = (x - self.get_buffer(f"mean{s}")) / self.get_buffer(f"spread{s}")
            gate = torch.sigmoid(self._linear(z, f"gate{s}")) * self.get_buffer("present")[:, s, None, None]
            gates.append(gate)
            parts.append(gate * z)
        h = torch.cat(parts, dim=2)
        for i in (1, 2):
            h = torch.relu(self._norm(torch.matmul(h, self.get_parameter(f"layer{i}_weight")), i))
            if keep is not None:
                h = h * keep[i - 1]
        return self._linear(h, "out"), torch.cat(gates, dim=2)

    def logits(self, fused: Tensor) -> Tensor:
        """Return what the head makes of fused vectors."""
        return self._linear(fused, "head")

    def _linear(self, x: Tensor, name: str) -> Tensor:
        return torch.baddbmm(self.get_parameter(f"{name}_bias"), x, self.get_parameter(f"{name}_weight"))

    def _norm(self, h: Tensor, i: int) -> Tensor:
        """Batch normalisation: by the batch while learning, then by what was gathered.

        Units of all networks lie side by side for it: PyTorch's own kernel is several times faster than sums over the
        middle dimension.
        """
        mean, var = self.get_buffer(f"norm{i}_mean").view(-1), self.get_buffer(f"norm{i}_var").view(-1)
        weight, bias = self.get_parameter(f"norm{i}_weight").view(-1), self.get_parameter(f"norm{i}_bias").view(-1)
        flat = h.transpose(0, 1).reshape(h.shape[1], -1)
        made = batch_norm(flat, mean, var, weight, bias, training=self.training, momentum=_MOMENTUM, eps=_EPS)
        return made.view(h.shape[1], h.shape[0], -1).transpose(0, 1)


def fuse_rows(
    networks: FusionNetworks,
    vectors: Sequence[Array],
    rows: Ints | None = None,
    *,
    which: int = 0,
    partners: Sequence[Ints | None] | None = None,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return fused vectors [n, width] and gates [n, sources] of some rows, by one of the networks.

    `partners` say for each source whose vector stands in each row's place, for controls.
    """
    own = networks.one(which)
    chosen = np.arange(len(vectors[0])) if rows is None else np.asarray(rows, dtype=np.int64)
    fused = np.empty((len(chosen), own.config.width), dtype=np.float32)
    gates = np.empty((len(chosen), len(vectors)), dtype=np.float32)
    for start in range(0, len(chosen), _AT_ONCE):
        at = chosen[start : start + _AT_ONCE]
        places = [at if partners is None or p is None else p[at] for p in (partners or [None] * len(vectors))]
        parts = [np.ascontiguousarray(x[p], dtype=np.float32) for x, p in zip(vectors, places, strict=True)]
        with torch.no_grad():
            made, gate = own.fuse([as_tensor(part)[None].to(own.device) for part in parts])
        fused[start : start + len(at)] = made[0].cpu().numpy()
        gates[start : start + len(at)] = gate[0].cpu().numpy()
    return fused, gates


@dataclass(frozen=True, eq=False)
class Turn:
    """What brings vectors of one network into the space of another: shift, turn, stretch; nothing is bent."""

    before: NDArray[np.float64]
    turn: NDArray[np.float64]  # [width, width], orthogonal, times the stretch
    after: NDArray[np.float64]

    def apply(self, x: Array) -> NDArray[np.float32]:
        """Return the vectors as the other network would have placed them."""
        return np.asarray((np.asarray(x, np.float64) - self.before) @ self.turn + self.after, dtype=np.float32)


def align(x: Array, y: Array) -> Turn:
    """Find the turn that brings rows of x nearest to the same rows of y (Procrustes).

    Two networks that learn the same from different rows place things alike but for a rotation, which no label is
    needed to find.
    """
    if x.shape != y.shape or len(x) < 2:
        raise DataError(f"shapes {x.shape} and {y.shape} cannot be brought together",
                        remedy="Give the same rows, two or more.")  # fmt: skip
    a, b = np.asarray(x, np.float64), np.asarray(y, np.float64)
    before, after = a.mean(axis=0), b.mean(axis=0)
    a, b = a - before, b - after
    u, s, v = np.linalg.svd(a.T @ b)
    size = float(np.square(a).sum())
    return Turn(before, (u @ v) * (float(s.sum()) / size if size > 0 else 1.0), after)
