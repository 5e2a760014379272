"""Which code does the sparse work on a device, and the one product that is fused with its choice.

`strongest` never holds pre-activations of more than a piece of rows: each piece's product goes into one buffer, and the
k largest are taken out of it before the next one.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import cache
from types import ModuleType
from typing import TYPE_CHECKING, Any

import torch

from elute.dictionaries import plain

if TYPE_CHECKING:
    from torch import Tensor

_ROWS = 256  # of one piece
_NUMBERS = 1 << 25  # of one buffer at most


def of(x: Tensor) -> Any:
    """Return the module that works on this tensor's device and type."""
    return _module(x.device.type, x.dtype in (torch.float32, torch.float64))


@cache
def _module(device: str, exact: bool) -> ModuleType:
    if device == "cpu" and exact:
        from elute.dictionaries import kernels

        return kernels
    if device == "cuda":
        try:
            from elute.dictionaries import triton
        except ImportError:
            return plain
        return triton
    return plain


def strongest(x: Tensor, W: Tensor, b: Tensor, *, k: int, signed: bool = False) -> tuple[Tensor, Tensor]:
    """Return index and value of the k strongest of x W^T + b in each row, exactly, piece by piece."""
    parts = [of(x).top(pre, k, signed=signed) for pre in products(x, W, b)]
    return torch.cat([idx for idx, _ in parts]), torch.cat([val for _, val in parts])


def products(x: Tensor, W: Tensor, b: Tensor) -> Iterator[Tensor]:
    """Yield x W^T + b a piece of rows at a time, each in the same memory."""
    x, W, b = x.detach(), W.detach(), b.detach()
    rows = max(1, min(_ROWS if x.device.type == "cpu" else len(x), _NUMBERS // len(W), len(x)))
    buffer = x.new_empty(rows, len(W))
    for start in range(0, max(1, len(x)), rows):
        piece = x[start : start + rows]
        yield torch.addmm(b, piece, W.T, out=buffer[: len(piece)])
