"""A small network that can be run by hand, and a count of the hooks on a module."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.nn.functional import linear


class Net(nn.Module):
    """Two layers whose activation writes over the first one's output."""

    def __init__(self):
        super().__init__()
        self.first = nn.Linear(3, 5)
        self.relu = nn.ReLU(inplace=True)
        self.last = nn.Linear(5, 2)

    def forward(self, x):
        return self.last(self.relu(self.first(x)))

    def hidden(self, x):
        """What the first layer gives, without running it."""
        return linear(x, self.first.weight, self.first.bias)

    def finish(self, h):
        """What follows from the first layer's output, without running the rest."""
        return linear(torch.relu(h), self.last.weight, self.last.bias)


def count_hooks(module):
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    more = ("_forward_hooks_with_kwargs", "_forward_pre_hooks_with_kwargs", "_forward_hooks_always_called")
    return sum(len(getattr(part, kind)) for part in module.modules() for kind in kinds + more)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


@pytest.fixture
def net():
    return Net()


@pytest.fixture
def x():
    return torch.randn(4, 3)


@pytest.fixture
def hooks():
    return count_hooks
