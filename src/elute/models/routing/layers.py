"""Parts of a routing policy: attention whose pattern can be read and held, norms over nodes, the layers of the encoder.

Layer i, post-norm:  u = norm1(x + attention(x));  y = norm2(u + mlp(u))

Batch norm in use is affine. So with every pattern held (`held_patterns`) and every MLP's output told from outside, the
encoder is an affine map of its input: what a linear account of it needs. Instance norm is not affine.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from elute.base.errors import DataError

if TYPE_CHECKING:
    from elute.models.routing.settings import PolicyConfig


class Pattern(nn.Module):
    """Scores to shares, row by row; or shares that were held."""

    held: Tensor | None = None

    def forward(self, scores: Tensor) -> Tensor:
        """Return the pattern [..., rows, columns]."""
        if self.held is None:
            return scores.softmax(-1)
        if self.held.shape != scores.shape:
            what = f"the pattern held is {list(self.held.shape)}, and {list(scores.shape)} is asked for"
            raise DataError(what, where="attention", remedy="Hold the patterns of the same instances.")
        return self.held


class Attention(nn.Module):
    """Multi-head self-attention over the nodes of an instance."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.into = nn.Linear(width, 3 * width)
        self.pattern = Pattern()
        self.out = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Mix nodes, [instances, nodes, width]."""
        batch, n, width = x.shape
        query, key, value = self.into(x).view(batch, n, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        pattern = self.pattern(query @ key.transpose(-1, -2) * query.shape[-1] ** -0.5)
        mixed: Tensor = self.out((pattern @ value).transpose(1, 2).reshape(batch, n, width))
        return mixed


class BatchNorm(nn.BatchNorm1d):
    """Batch norm over all nodes of all instances."""

    def forward(self, x: Tensor) -> Tensor:
        """Scale each channel, [instances, nodes, width]."""
        return super().forward(x.reshape(-1, x.shape[-1])).view_as(x)


class InstanceNorm(nn.InstanceNorm1d):
    """Norm over the nodes of each instance."""

    def forward(self, x: Tensor) -> Tensor:
        """Scale each channel, [instances, nodes, width]."""
        return super().forward(x.transpose(1, 2)).transpose(1, 2)


class EncoderLayer(nn.Module):
    """Attention and a feed-forward part, each added to what it read and then normalised."""

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        width, hidden = config.embed_dim, config.feedforward_hidden
        self.attention = Attention(width, config.num_heads)
        self.norm1 = _norm(config)
        self.mlp = nn.Sequential(nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, width))
        self.norm2 = _norm(config)

    def forward(self, x: Tensor) -> Tensor:
        """Give the next state of the nodes, [instances, nodes, width]."""
        u = self.norm1(x + self.attention(x))
        y: Tensor = self.norm2(u + self.mlp(u))
        return y


class Encoder(nn.Module):
    """All layers, one after another."""

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.num_encoder_layers))

    def forward(self, x: Tensor) -> Tensor:
        """Encode nodes, [instances, nodes, width]."""
        for layer in self.layers:
            x = layer(x)
        return x


@contextmanager
def held_patterns(encoder: nn.Module, patterns: Sequence[Tensor]) -> Iterator[None]:
    """Hold the attention pattern of each layer, [instances, heads, nodes, nodes], in the block."""
    places = _patterns(encoder)
    if len(places) != len(patterns):
        what = f"{len(patterns)} patterns for {len(places)} layers"
        raise DataError(what, where="attention", remedy="Give one a layer, as read_patterns does.")
    before = [place.held for place in places]
    try:
        for place, pattern in zip(places, patterns, strict=True):
            place.held = pattern
        yield
    finally:
        for place, earlier in zip(places, before, strict=True):
            place.held = earlier


@torch.no_grad()
def read_patterns(encoder: nn.Module, x: Tensor) -> list[Tensor]:
    """Return the attention pattern of each layer, [instances, heads, nodes, nodes], for an input of the encoder."""
    found: list[Tensor] = []
    hooks = [place.register_forward_hook(lambda _, __, out: found.append(out.clone())) for place in _patterns(encoder)]
    try:
        encoder(x)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _patterns(encoder: nn.Module) -> list[Pattern]:
    return [part for part in encoder.modules() if isinstance(part, Pattern)]


def _norm(config: PolicyConfig) -> nn.Module:
    kind = BatchNorm if config.normalization == "batch" else InstanceNorm
    return kind(config.embed_dim, affine=True)
