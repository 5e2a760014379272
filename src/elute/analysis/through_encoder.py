"""Relevance of codes followed down through an image encoder to the pixels of a tile: an option, and dear.

1. A code in a token is linear in the token's embedding: `relevance_explain.embedding_gradient` says by what each number
   of the embedding is multiplied. What is explained here is the sum over tokens of that gradient times the embedding.
2. `lrp` hands it back through the encoder by attention-aware layer-wise relevance propagation, as activation times
   modified gradient (through_encoder_rules.py): R. Achtibat et al., "AttnLRP" (2024). Attention weights are constants
   unless asked otherwise.
3. `integrated_gradients` takes the plain gradient along the line from a picture without content (each number 0, the
   mean colour of what the encoder was trained on), times the difference: Sundararajan et al. (2017).

Both are checked picture by picture, in float64: pixels + biases and positions + softmax = what is explained, to 1e-4 of
it (`lrp`); pixels = explained output minus that of the picture without content (`integrated_gradients`, within what its
steps can do; the gap is told).

The authors of one public implementation state that layer-wise relevance propagation is patented, and free for personal
and scientific use alone. Who may not use it has `integrated_gradients`, which is another method.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch

from elute.analysis.relevance_explain import TOLERANCE
from elute.analysis.through_encoder_rules import Passing
from elute.base.errors import ConfigError, DataError, GuardError, near
from elute.models.sites import capture, evaluating

if TYPE_CHECKING:
    from torch import Tensor, nn

    from elute.base.contracts import Site
    from elute.base.mergeable import Floats

Method = Literal["lrp", "integrated_gradients"]
Attention = Literal["constant", "softmax"]
_AT_ONCE = 8  # pictures along the line of integrated gradients


@dataclass(frozen=True, eq=False)
class PixelRelevance:
    """Relevance of pixels [pictures, rows, columns], summed over colours, and what of the output went elsewhere."""

    method: Method
    relevance: Floats
    output: Floats  # [pictures] what is explained
    bias: Floats  # lrp: biases, positions, class token; integrated gradients: the output without content
    attention: Floats  # lrp with softmax: what its rule does not hand on
    gap: Floats  # relative to the output

    def patches(self, rows: int, cols: int) -> Floats:
        """Return the sums over a grid of patches [pictures, rows, cols]."""
        n, height, width = self.relevance.shape
        if height % rows or width % cols:
            raise DataError(f"{height} × {width} pixels are no grid of {rows} × {cols} patches")
        summed: Floats = self.relevance.reshape(n, rows, height // rows, cols, width // cols).sum((2, 4))
        return summed


def through_encoder(
    network: nn.Module,
    pixels: Tensor,
    gradient: Any,
    *,
    site: Site,
    prefix: int = 0,
    row: Literal["patches", "class"] = "patches",
    method: Method = "lrp",
    attention: Attention = "constant",
    steps: int = 64,
    call: Callable[[nn.Module, Tensor], Any] | None = None,
) -> PixelRelevance:
    """Follow relevance from a site of a network to its pixels.

    pixels: [pictures, colours, rows, columns], as the network reads them.
    gradient: [pictures, tokens, width] for the site's tokens after `prefix`, or [pictures, 1, width] with row="class".
    call: how the network is run on pixels; network(pixels) if not given.
    """
    for name, value, known in (("method", method, Method), ("attention", attention, Attention)):
        if value not in get_args(known):
            raise ConfigError(f"{name}={value!r}", remedy=near(str(value), get_args(known)))
    wanted = torch.as_tensor(np.asarray(gradient), dtype=torch.float64)
    if pixels.dim() != 4 or wanted.dim() != 3 or len(wanted) != len(pixels):
        what = f"pixels {list(pixels.shape)} and gradients {list(wanted.shape)}"
        raise DataError(what, remedy="Give [pictures, colours, rows, columns] and [pictures, tokens, width].")
    if steps < 1:
        raise ConfigError(f"steps={steps}", remedy="Give at least 1.")
    module = copy.deepcopy(network).double().cpu().requires_grad_(requires_grad=False)
    one = _Run(module, site, prefix, row, call or (lambda net, x: net(x)))
    found = []
    with evaluating(module), torch.enable_grad():
        for picture, tokens in zip(pixels.detach().cpu().double(), wanted, strict=True):
            if method == "lrp":
                found.append(_lrp(one, picture[None], tokens, constant=attention == "constant"))
            else:
                found.append(_integrated(one, picture[None], tokens, steps))
    told = [np.array([each[i] for each in found]) for i in range(1, 5)]
    maps = np.stack([each[0] for each in found]) if found else np.zeros((0, *pixels.shape[2:]))
    return PixelRelevance(method, maps, *told)


@dataclass(frozen=True, eq=False)
class _Run:
    module: nn.Module
    site: Site
    prefix: int
    row: str
    call: Callable[[nn.Module, Tensor], Any]

    def output(self, x: Tensor, gradient: Tensor) -> Tensor:
        """Σ gradient · embedding of each of some pictures, with one gradient for all."""
        held = capture(self.module, {"site": self.site}, lambda: self.call(self.module, x), grad=True).tensors["site"]
        if held.dim() == 2:
            held = held[:, None]
        tokens = held[:, : len(gradient)] if self.row == "class" else held[:, self.prefix :]
        if tokens.shape[1:] != gradient.shape:
            what = f"the site gives {list(tokens.shape[1:])} where gradients are {list(gradient.shape)}"
            raise DataError(
                what, where=self.site.path, remedy="Check the site and how many tokens precede the patches."
            )
        return (tokens * gradient).sum((1, 2))


Found = tuple["Floats", float, float, float, float]


def _lrp(one: _Run, picture: Tensor, gradient: Tensor, *, constant: bool) -> Found:
    x = picture.clone().requires_grad_()
    mode = Passing(constant_attention=constant)
    with mode:
        output = one.output(x, gradient)
    (slope,) = torch.autograd.grad(output.sum(), x)
    pixels = (x * slope).detach()[0]
    explained = float(output.detach()[0])
    scale = max(abs(explained), 1e-6 * float(pixels.abs().sum()), float(np.finfo(np.float64).tiny))
    gap = abs(float(pixels.sum()) + mode.bias + mode.attention - explained) / scale
    if not gap <= TOLERANCE:
        what = f"relevance through the encoder is off by {gap:.1e} of what is explained"
        remedy = "The network calls a function that no rule is known for: use method='integrated_gradients'."
        raise GuardError(what, where=type(one.module).__name__, remedy=remedy)
    return pixels.sum(0).numpy(), explained, mode.bias, mode.attention, gap


def _integrated(one: _Run, picture: Tensor, gradient: Tensor, steps: int) -> Found:
    nodes, weights = np.polynomial.legendre.leggauss(steps)
    total = torch.zeros_like(picture)
    for first in range(0, steps, _AT_ONCE):
        at, weight = (
            torch.from_numpy(part[first : first + _AT_ONCE])[:, None, None, None]
            for part in ((nodes + 1) / 2, weights / 2)
        )
        x = (picture * at).requires_grad_()
        (slope,) = torch.autograd.grad(one.output(x, gradient).sum(), x)
        total += (weight * slope).sum(0, keepdim=True)
    pixels = (total * picture)[0].detach()
    ends = torch.cat([picture, torch.zeros_like(picture)]).requires_grad_()
    explained, without = one.output(ends, gradient).detach().tolist()
    gap = abs(float(pixels.sum()) + without - explained) / max(abs(explained), float(np.finfo(np.float64).tiny))
    return pixels.sum(0).numpy(), explained, without, 0.0, gap
