"""What a change inside a policy does to its tours, beside the policy left alone.

1. The policy by itself: its greedy tours, and its probabilities at every step along them.
2. Under a patch, along those very tours: at each step with a choice the exact Kullback–Leibler divergence Σ p log(p/q)
   of the patched policy's q from the policy's own p, whether both would take the same node, and the margin of the node
   that was taken over the runner-up.
3. Under the patch the policy builds tours of its own: how much longer they are, length / length − 1.

One number an instance: instances are independent, the steps of one are not.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from elute.models.routing.decoding import decode, replay

if TYPE_CHECKING:
    from elute.base.contracts import Edit
    from elute.models.routing.instances import Instances
    from elute.models.routing_policy import RoutingModel

METRICS = ("drift", "kl", "agreement", "same_tour")


@dataclass(frozen=True, eq=False)
class Reference:
    """A policy left alone, on one batch of instances."""

    instances: Instances
    actions: Tensor  # int64 [instances, nodes]
    lengths: Tensor  # float64 [instances]
    log_probs: Tensor  # float64 [instances, step, node]
    choice: Tensor  # bool [instances, step]: more than one node is left
    runner_up: Tensor  # int64 [instances, step]: the likeliest node but the one that was taken


@dataclass(frozen=True, eq=False)
class Effect:
    """What a patch did, one number an instance."""

    lengths: Tensor  # float64
    drift: Tensor  # how much longer the tours are
    kl: Tensor  # mean over the steps with a choice
    agreement: Tensor  # share of the steps with a choice at which the same node is taken
    same_tour: Tensor  # 1 where the tour is the same
    margin: Tensor  # mean margin of the node taken over the runner-up, less that of the policy left alone
    kl_steps: Tensor  # [step] mean over the instances
    identical: bool  # to the last bit, tours too

    def columns(self) -> dict[str, Tensor]:
        """What is kept of each instance."""
        return {"length": self.lengths, **{name: getattr(self, name) for name in METRICS}, "margin": self.margin}


def reference(model: RoutingModel, instances: Instances) -> Reference:
    """Let a policy build tours, and note what it thought."""
    tours = decode(model, instances, batch_size=len(instances))
    logits = replay(model, instances, tours.actions, batch_size=len(instances))
    choice = torch.isfinite(logits).sum(-1) > 1
    other = runners_up(logits, tours.actions)
    return Reference(instances, tours.actions, tours.lengths, logits.double().log_softmax(-1), choice, other)


def runners_up(logits: Tensor, actions: Tensor) -> Tensor:
    """Return the likeliest node at each step but the one that was taken; where there is no other, that one."""
    others = logits.scatter(-1, actions[..., None], -torch.inf)
    best = others.argmax(-1)
    return torch.where(torch.isfinite(others.amax(-1)), best, actions)


def margins(logits: Tensor, actions: Tensor, *, runner_up: Tensor, choice: Tensor) -> Tensor:
    """Return each instance's mean margin, over its steps with a choice; differentiable."""
    taken = logits.gather(-1, actions[..., None])[..., 0]
    other = logits.gather(-1, runner_up[..., None])[..., 0]
    apart = torch.where(choice, taken - other, torch.zeros_like(taken))  # where there is no choice both are one number
    return apart.sum(-1) / choice.sum(-1).clamp(min=1)


def divergence(log_p: Tensor, log_q: Tensor) -> Tensor:
    """Return Σ p log(p / q) over the last axis; nodes that p cannot take add nothing."""
    there = torch.isfinite(log_p)
    apart = torch.where(there, log_p - torch.where(there, log_q, 0.0), 0.0)
    return (torch.where(there, log_p.exp(), 0.0) * apart).sum(-1).clamp(min=0)


def along(model: RoutingModel, ref: Reference, edits: Mapping[str, Edit]) -> Tensor:
    """Return logits along the reference tours under a patch."""
    with model.patch(edits):
        return replay(model, ref.instances, ref.actions, batch_size=len(ref.instances))


def effect(model: RoutingModel, ref: Reference, edits: Mapping[str, Edit], *, tours: bool = True) -> Effect:
    """Measure a patch; without `tours` none are built, and lengths are those of the policy left alone."""
    logits = along(model, ref, edits)
    log_q = logits.double().log_softmax(-1)
    steps = divergence(ref.log_probs, log_q)
    steps = torch.where(ref.choice, steps, 0.0)
    count = ref.choice.sum(-1).clamp(min=1)
    same = (logits.argmax(-1) == ref.log_probs.argmax(-1)) & ref.choice
    lengths, kept = ref.lengths, torch.ones_like(ref.lengths)
    if tours:
        with model.patch(edits):
            built = decode(model, ref.instances, batch_size=len(ref.instances))
        lengths, kept = built.lengths, (built.actions == ref.actions).all(-1).double()
    told = {"runner_up": ref.runner_up, "choice": ref.choice}
    before = margins(ref.log_probs, ref.actions, **told)  # a difference of logits is one of log-probabilities
    return Effect(
        lengths=lengths,
        drift=lengths / ref.lengths - 1,
        kl=steps.sum(-1) / count,
        agreement=same.sum(-1).double() / count,
        same_tour=kept,
        margin=margins(logits.double(), ref.actions, **told) - before,
        kl_steps=steps.mean(0),
        identical=torch.equal(log_q, ref.log_probs) and bool((kept == 1).all()),
    )
