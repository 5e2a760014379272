"""JumpReLU: a feature fires above a threshold of its own, which is learnt through a straight-through estimate.

S. Rajamanoharan et al., "Jumping ahead", 2024. With H the step function, θ the threshold and ε the bandwidth:

    value = pre · H(pre − θ);   d value / dθ ≈ −θ/ε,  dH/dθ ≈ −1/ε  where |pre − θ| < ε/2, else 0

The penalty is the number that fires (L0), or with `tanh` > 0 the sum of tanh(tanh · value · ‖W_dec‖), the recipe of
Anthropic's cross-layer transcoders ("Circuit tracing", 2025), which also gives features that never fire a pull towards
firing: `pull` · ReLU(θ − pre) · ‖W_dec‖. Thresholds are kept as logarithms, so they stay above zero.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import torch

from elute.dictionaries.sparsity import Dense, Slots, Sparsity, above

if TYPE_CHECKING:
    from torch import Tensor

    from elute.dictionaries.bank import Bank

START = 0.3  # of codes near 1, as normalised rows give


class _Jump(torch.autograd.Function):
    """value = pre · H(pre − θ)."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        pre: Tensor = given[0]
        theta: Tensor = given[1]
        ctx.save_for_backward(pre, theta)
        ctx.width = given[2]
        return torch.where(pre > theta, pre, 0)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, Tensor, None]:
        pre, theta = ctx.saved_tensors
        near = (pre - theta).abs() < ctx.width / 2
        return grads[0] * (pre > theta), -torch.where(near, theta / ctx.width * grads[0], 0).sum(0), None


class _Step(torch.autograd.Function):
    """H(pre − θ)."""

    @staticmethod
    def forward(ctx: Any, *given: Any) -> Tensor:
        pre: Tensor = given[0]
        theta: Tensor = given[1]
        ctx.save_for_backward(pre, theta)
        ctx.width = given[2]
        return (pre > theta).to(pre.dtype)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, Tensor, None]:
        pre, theta = ctx.saved_tensors
        near = (pre - theta).abs() < ctx.width / 2
        return None, -torch.where(near, grads[0] / ctx.width, 0).sum(0), None


def _dense(bank: Bank, x: Tensor, _k: int) -> Dense:
    width, steep, pull = (bank.settings[name] for name in ("bandwidth", "tanh", "pull"))
    # Not rectified first: θ is above zero, and ReLU would put all that is negative at 0, which may be near θ.
    pre = x @ bank.W_enc.T + bank.b_enc
    theta = bank.log_threshold.exp()
    values: Tensor = _Jump.apply(pre, theta, width)  # type: ignore[no-untyped-call]
    norms = bank.W_dec.norm(dim=1)
    firing: Tensor = _Step.apply(pre, theta, width)  # type: ignore[no-untyped-call]
    penalty = ((steep * values * norms).tanh() if steep > 0 else firing).sum(1)
    if pull > 0:
        penalty = penalty + pull * ((theta - pre).relu() @ norms)
    return values, penalty


def _fire(bank: Bank, x: Tensor, _k: int) -> Slots:
    return above(bank, x, bank.log_threshold.exp())


DICTIONARY = Sparsity(
    "whatever is above a threshold that each feature learns",
    dense=_dense,
    fire=_fire,
    tensors=lambda n: {"log_threshold": torch.full((n,), math.log(START))},
    settings={"bandwidth": 0.1, "tanh": 0.0, "pull": 0.0},
)
