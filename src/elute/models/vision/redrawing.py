"""The same network before its training, as a control: its own first weights, or as near to them as can be had."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch
from torch import nn


def redrawn(module: nn.Module, seed: int, *, fresh: Callable[[], nn.Module] | None = None) -> nn.Module:
    """Return a network of the same make with random weights; `fresh` makes one as its authors begin.

    Without `fresh`, layers of torch are begun as torch does; every other weight keeps its values in a random order, so
    that their scale stays what the network was made for.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if fresh is not None:
            return fresh().requires_grad_(requires_grad=False).eval()
        made = copy.deepcopy(module)
        done: set[nn.Parameter] = set()
        for part in made.modules():
            begin = getattr(part, "reset_parameters", None)
            if callable(begin):
                begin()
                done.update(part.parameters(recurse=False))
        for weight in made.parameters():
            if weight not in done:
                order = torch.randperm(weight.numel())
                weight.data = weight.data.reshape(-1)[order.to(weight.device)].reshape(weight.shape)
    return made.requires_grad_(requires_grad=False).eval()
