"""One bank of features, and what it asks of the processes that share its work."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Protocol

import torch
from torch import nn

if TYPE_CHECKING:
    from torch import Tensor

    from elute.dictionaries.spec import Span


class Ranks(Protocol):
    """What is asked of the other processes, which hold parts of the batch or of the features."""

    rank: int

    def any(self, flag: bool) -> bool:
        """Whether any of them says so."""

    def gather(self, values: Tensor) -> Tensor:
        """The values of all, one after another."""

    def beside(self, values: Tensor) -> Tensor:
        """The columns of all, side by side."""

    def total(self, values: Tensor) -> Tensor:
        """The sum over all, in place."""

    def most(self, values: Tensor) -> Tensor:
        """The largest over all, in place."""


class Bank(nn.Module):
    """Features that read one span of columns and write one: rows of W_enc and W_dec are features."""

    W_enc: nn.Parameter
    W_dec: nn.Parameter
    b_enc: nn.Parameter
    threshold: Tensor
    log_threshold: Tensor
    r_mag: Tensor
    b_mag: Tensor

    def __init__(
        self,
        features: int,
        span: Span,
        *,
        tensors: Callable[[int], Mapping[str, Tensor]],
        settings: Mapping[str, float],
    ) -> None:
        super().__init__()
        read, write = span.widths
        self.span, self.settings = span, dict(settings)
        self.W_enc = nn.Parameter(torch.zeros(features, read))
        self.W_dec = nn.Parameter(torch.zeros(features, write))
        self.b_enc = nn.Parameter(torch.zeros(features))
        own, more = tensors(features), tensors(features + 1)
        self.extra = list(own)
        for name, tensor in own.items():
            if tensor.shape == more[name].shape:  # a number of the whole bank follows the data, no gradient
                self.register_buffer(name, tensor)
            else:
                self.register_parameter(name, nn.Parameter(tensor))
        self.ranks: Ranks | None = None

    def agree(self, flag: bool) -> bool:
        """Whether any rank says so."""
        return flag if self.ranks is None else self.ranks.any(flag)

    def gathered(self, values: Tensor) -> Tensor:
        """Values of all ranks."""
        return values if self.ranks is None else self.ranks.gather(values)
