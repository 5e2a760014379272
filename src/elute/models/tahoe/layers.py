"""The parts of Tahoe-x1 in plain PyTorch, named so that published weights load by their own names.

Attention is full and in both directions, without positions: a cell is a set of genes. What is padded neither is seen
nor sees: its context is 0 before `out_proj`, as in the published computation.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

if TYPE_CHECKING:
    from elute.models.tahoe.config import (
        ChemicalEncoderConfig,
        ExpressionDecoderConfig,
        ExpressionEncoderConfig,
        MvcConfig,
        TahoeConfig,
    )

ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "relu": functional.relu,
    "gelu": functional.gelu,  # exact: the tanh form differs in the fourth digit
    "leaky_relu": functional.leaky_relu,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}
ENCODER_EPS = 1e-5  # the encoders' norms do not read the configuration


class GeneEncoder(nn.Module):
    """A vector a gene."""

    def __init__(self, vocabulary: int, width: int, *, padding: int, norm: bool) -> None:
        super().__init__()
        self.embedding = nn.Embedding(vocabulary, width, padding_idx=padding)
        self.enc_norm = nn.LayerNorm(width, eps=ENCODER_EPS) if norm else nn.Identity()

    def forward(self, tokens: Tensor) -> Tensor:
        """[…] to […, width]."""
        embedded: Tensor = self.enc_norm(self.embedding(tokens))
        return embedded


class ExpressionEncoder(nn.Module):
    """A vector a value: two linear layers, then a norm."""

    def __init__(self, width: int, config: ExpressionEncoderConfig) -> None:
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(1, width), nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=ENCODER_EPS) if config.use_norm else nn.Identity()
        self.act, self.most = ACTIVATIONS[config.activation], config.max_value

    def forward(self, values: Tensor) -> Tensor:
        """[…] to […, width]."""
        hidden = self.act(self.linear1(values.clamp(max=self.most)[..., None]))
        embedded: Tensor = self.norm(self.linear2(hidden))
        return embedded


class ChemicalEncoder(nn.Module):
    """A vector a drug, from its fingerprint."""

    def __init__(self, width: int, config: ChemicalEncoderConfig) -> None:
        super().__init__()
        self.embedding = nn.Embedding(config.num_drugs, config.fp_dim, padding_idx=config.padding_idx)
        self.fc, self.proj = nn.Linear(config.fp_dim, width), nn.Linear(width, width)
        self.norm = nn.LayerNorm(width, eps=ENCODER_EPS)
        self.act = ACTIVATIONS[config.activation]

    def forward(self, drugs: Tensor) -> Tensor:
        """[…] to […, width]."""
        embedded: Tensor = self.norm(self.proj(self.act(self.fc(self.embedding(drugs)))))
        return embedded


class Attention(nn.Module):
    """Every token looks at every other that it may see."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.Wqkv, self.out_proj = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.heads = heads

    def forward(self, x: Tensor, seen: Tensor | None, present: Tensor | None) -> Tensor:
        """`seen` [batch, 1, 1 or tokens, tokens] and `present` [batch, tokens] are None where nothing is hidden."""
        batch, tokens, width = x.shape
        q, k, v = self.Wqkv(x).view(batch, tokens, 3, self.heads, width // self.heads).permute(2, 0, 3, 1, 4)
        context = functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
        context = context.transpose(1, 2).reshape(batch, tokens, width)
        if present is not None:
            context = context.masked_fill(~present[..., None], 0.0)
        out: Tensor = self.out_proj(context)
        return out


class Block(nn.Module):
    """Attention and a feed-forward part, each added to the stream."""

    def __init__(self, config: TahoeConfig) -> None:
        super().__init__()
        width, inner = config.d_model, config.d_model * config.expansion_ratio
        self.self_attn = Attention(width, config.n_heads)
        self.up_proj, self.down_proj = nn.Linear(width, inner), nn.Linear(inner, width)
        if config.use_glu:
            self.gate_proj = nn.Linear(width, inner)
        self.norm1 = nn.LayerNorm(width, eps=config.norm_config.eps)
        self.norm2 = nn.LayerNorm(width, eps=config.norm_config.eps)
        self.act, self.gated, self.pre = ACTIVATIONS[config.transformer_activation], config.use_glu, _is_pre(config)

    def forward(self, x: Tensor, seen: Tensor | None, present: Tensor | None) -> Tensor:
        """[batch, tokens, width] to the same."""
        if self.pre:
            x = x + self.self_attn(self.norm1(x), seen, present)
            return x + self._feed(self.norm2(x))
        x = self.norm1(x + self.self_attn(x, seen, present))
        out: Tensor = self.norm2(x + self._feed(x))
        return out

    def _feed(self, x: Tensor) -> Tensor:
        hidden = self.act(self.gate_proj(x)) * self.up_proj(x) if self.gated else self.act(self.up_proj(x))
        out: Tensor = self.down_proj(hidden)
        return out


class Transformer(nn.Module):
    """The blocks, and a last norm where the blocks begin with one."""

    def __init__(self, config: TahoeConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Block(config) for _ in range(config.n_layers))
        self.norm = nn.LayerNorm(config.d_model, eps=config.norm_config.eps) if _is_pre(config) else nn.Identity()

    def forward(self, x: Tensor, seen: Tensor | None, present: Tensor | None) -> Tensor:
        """[batch, tokens, width] to the same."""
        for block in self.layers:
            x = block(x, seen, present)
        out: Tensor = self.norm(x)
        return out


class ExpressionDecoder(nn.Module):
    """A token's value, from its own last vector."""

    def __init__(self, width: int, config: ExpressionDecoderConfig) -> None:
        super().__init__()
        self.linear_layers = nn.ModuleList(nn.Linear(width, width) for _ in range(config.n_layers))
        self.out_proj = nn.Linear(width, config.n_outputs)
        self.act = ACTIVATIONS[config.activation]

    def forward(self, x: Tensor) -> Tensor:
        """[…, width] to […], or to […, outputs] where there are several."""
        for linear in self.linear_layers:
            x = self.act(linear(x))
        out: Tensor = self.out_proj(x)
        return out.squeeze(-1)


class CellDecoder(nn.Module):
    """A gene's value from the cell's vector: their inner product, by way of a query."""

    def __init__(self, width: int, config: MvcConfig) -> None:
        super().__init__()
        self.gene2query, self.W = nn.Linear(width, width), nn.Linear(width, width, bias=False)
        self.act = ACTIVATIONS[config.query_activation]
        self.scale = width**-0.5 if config.scaled_dot_product else 1.0

    def forward(self, cell: Tensor, genes: Tensor) -> Tensor:
        """[batch, width] and [batch, tokens, width] to [batch, tokens]."""
        query = self.W(self.act(self.gene2query(genes)))
        product: Tensor = (query @ cell[..., None]).squeeze(-1)
        return product * self.scale


def _is_pre(config: TahoeConfig) -> bool:
    return config.norm_scheme == "pre"
