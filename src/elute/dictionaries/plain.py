"""The sparse work in plain PyTorch: the reference, and the way on devices without kernels of their own.

The same functions as in kernels.py. Gathered rows are [rows, k, width], so work goes by pieces of rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from torch import Tensor

_PIECE = 1 << 24  # numbers of one gathered piece


def top(pre: Tensor, k: int, *, signed: bool = False) -> tuple[Tensor, Tensor]:
    """Return index and value of the k largest of each row: above zero, or by magnitude."""
    strength = pre.abs() if signed else pre.clamp(min=0)
    chosen = strength.topk(k, dim=1).indices.sort(dim=1).values
    val = (pre if signed else strength).gather(1, chosen)
    return torch.where(val != 0, chosen, 0).to(torch.int32), val


def decode(idx: Tensor, val: Tensor, W: Tensor, *, into: Tensor) -> None:
    """Add the weighted rows of W to each row of `into`."""
    for a, b in _pieces(idx, W):
        into[a:b] += torch.bmm(val[a:b, None, :], W[idx[a:b].long()])[:, 0]


def slopes(idx: Tensor, val: Tensor, W: Tensor, *, g: Tensor) -> Tensor:
    """Return the product of g's row with each row of W that fired: the gradient of the values."""
    out = torch.zeros_like(val)
    for a, b in _pieces(idx, W):
        out[a:b] = torch.bmm(W[idx[a:b].long()], g[a:b, :, None])[..., 0]
    return torch.where(val != 0, out, 0)


def residual(idx: Tensor, val: Tensor, W: Tensor, *, base: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return base + decoded − y, and its slopes."""
    r = base - y
    decode(idx, val, W, into=r)
    return r, slopes(idx, val, W, g=r)


def gather(
    idx: Tensor, val: Tensor, slope: Tensor, *, g: Tensor, x: Tensor, scale: float, into: tuple[Tensor, Tensor, Tensor]
) -> None:
    """Add to (dW_dec, dW_enc, db_enc) what each feature's rows give: value × g, slope × x, slope; all × scale."""
    dec, enc, bias = into
    width = max(dec.shape[1], enc.shape[1])
    for a, b in _pieces(idx, dec[:, :1].expand(-1, width)):
        features = idx[a:b].long().reshape(-1)
        fired = val[a:b] != 0
        v, s = (val[a:b] * scale)[..., None], torch.where(fired, slope[a:b] * scale, 0)[..., None]
        dec.index_add_(0, features, (v * g[a:b, None]).flatten(0, 1))
        enc.index_add_(0, features, (s * x[a:b, None]).flatten(0, 1))
        bias.index_add_(0, features, s.reshape(-1))


def _pieces(idx: Tensor, W: Tensor) -> Iterator[tuple[int, int]]:
    rows = max(1, _PIECE // max(1, idx.shape[1] * W.shape[1]))
    return ((a, min(a + rows, len(idx))) for a in range(0, len(idx), rows))
