"""Tahoe-x1: a cell's genes and their values in; a vector a gene, one for the cell, and values out.

    net = TahoeX1(config)
    out = net(tokens, values)          # [cells, tokens] each, padded with the padding token
    out.gene_emb, out.cell_emb, out.expr_preds

A position is *generated* where its value is hidden and asked for. The first two published sizes were trained with a
mask under which a generated position is seen by nobody but itself (`generative_mask`); where nothing is generated, as
in reading activations, it makes no difference.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from elute.models.tahoe.config import TahoeConfig
from elute.models.tahoe.layers import (
    CellDecoder,
    ChemicalEncoder,
    ExpressionDecoder,
    ExpressionEncoder,
    GeneEncoder,
    Transformer,
)


class Output(NamedTuple):
    """What a forward gives."""

    gene_emb: Tensor  # [cells, tokens, width]: the last layer
    cell_emb: Tensor  # [cells, width]
    expr_preds: Tensor  # [cells, tokens]: each token's value, from its own vector
    mvc_output: Tensor | None  # [cells, tokens]: the same from the cell's vector


class TahoeX1(nn.Module):
    """The network."""

    def __init__(self, config: TahoeConfig, *, padding: int = 0) -> None:
        super().__init__()
        width = config.d_model
        self.config, self.padding = config, padding
        self.gene_encoder = GeneEncoder(config.vocab_size, width, padding=padding, norm=config.gene_encoder.use_norm)
        if config.use_generative_training:
            self.flag_encoder = nn.Embedding(2, width)
        self.expression_encoder = ExpressionEncoder(width, config.expression_encoder)
        if config.chemical_encoder is not None:
            self.chem_encoder = ChemicalEncoder(width, config.chemical_encoder)
        self.transformer_encoder = Transformer(config)
        self.expression_decoder = ExpressionDecoder(width, config.expression_decoder)
        self.mvc_decoder = None if config.mvc is None else CellDecoder(width, config.mvc)

    def forward(
        self,
        tokens: Tensor,
        values: Tensor,
        *,
        generated: Tensor | None = None,
        drugs: Tensor | None = None,
        padded: bool = True,
        generative_mask: bool = False,
    ) -> Output:
        """Run the network; `padded=False` promises that no token is padding, which is faster."""
        present = tokens != self.padding if padded else None
        genes = self.gene_encoder(tokens)
        x = self.embed(genes, values, generated, drugs=drugs)
        x = self.transformer_encoder(x, _seen(present, generated if generative_mask else None), present)
        cell = self.cell_embedding(x, present)
        mvc = None if self.mvc_decoder is None else self.mvc_decoder(cell, genes)
        return Output(x, cell, self.expression_decoder(x), mvc)

    def embed(
        self, genes: Tensor, values: Tensor, generated: Tensor | None = None, *, drugs: Tensor | None = None
    ) -> Tensor:
        """Return what the first block reads: genes, values and marks added up; the drug stands in place 1."""
        value = self.expression_encoder(values.to(genes.dtype))
        if generated is not None:
            flag = self.flag_encoder.weight[1]
            value = torch.where(generated[..., None], flag.to(value.dtype), value)
        x: Tensor = genes + value
        if drugs is not None:
            x = torch.cat([x[:, :1], self.chem_encoder(drugs)[:, None].to(x.dtype), x[:, 2:]], dim=1)
        return x

    def cell_embedding(self, x: Tensor, present: Tensor | None) -> Tensor:
        """Return the cell's vector in the style that the model was trained with."""
        return x[:, 0] if self.config.cell_emb_style == "cls" else mean_pooled(x, present)


def mean_pooled(x: Tensor, present: Tensor | None) -> Tensor:
    """Return the mean over a cell's tokens, the first (the cell's own) and padding left out."""
    if present is None:
        return x[:, 1:].mean(dim=1)
    weight = present[:, 1:, None].to(x.dtype)
    return (x[:, 1:] * weight).sum(dim=1) / weight.sum(dim=1).clamp(min=1)


def _seen(present: Tensor | None, generated: Tensor | None) -> Tensor | None:
    """Which token sees which, [cells, 1, 1 or tokens, tokens]; None where each sees all."""
    seen = None if present is None else present[:, None, None, :]
    if generated is None:
        return seen
    itself = torch.eye(generated.shape[1], dtype=torch.bool, device=generated.device)
    asked = (~generated[:, None, None, :]) | itself
    return asked if seen is None else asked & seen
