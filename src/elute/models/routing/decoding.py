"""Tours that a policy builds, and what it thinks of tours that are given; all of it under the patches in force.

    decode(model, instances)                                the likeliest node at each step, from node 0
    decode(model, instances, how="sampling", samples=16)    nodes drawn by their probability; the shortest tour is kept
    decode(model, instances, how="multistart")              greedy from every node (or `starts` of them); the shortest
    decode(model, instances, how="augment8")                the same for the square turned and mirrored in 8 ways
    decode(model, instances, actions=tours)                 lengths and log-probabilities of tours that are given
    replay(model, instances, tours)                         logits of every step along given tours

A first node that is given, as it is to all but a policy with `free_start` that decodes greedily or samples, has
probability 1. The encoder runs once a batch, the decoder once a step, and once for all steps of a replay.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any, Literal, Protocol, get_args

import torch
from torch import Tensor

from elute.base.errors import ConfigError, DataError, near
from elute.models.routing.instances import Instances, tour_lengths
from elute.models.routing.policy import AttentionPolicy, Decoder, Nodes

How = Literal["greedy", "sampling", "multistart", "augment8"]
Part = Literal["encoder", "decoder"]
Pick = Callable[[Tensor], Tensor]  # log-probabilities [instances, starts, nodes] to nodes [instances, starts]
_ROWS = 1 << 17  # numbers of one logit table, about: what a batch is cut to


class Patched(Protocol):
    """A policy, and its patches."""

    @property
    def module(self) -> Any:
        """The network."""

    def held(self) -> AbstractContextManager[None]:
        """Hold the network in evaluation mode for several forwards."""

    def forward_of(
        self,
        part: Part,
        *,
        instances: Instances,
        times: int = 1,
        actions: Tensor | None = None,
        at: tuple[int, Tensor] | None = None,
    ) -> AbstractContextManager[None]:
        """Mark one forward of a part, in which its patches apply; the rest says what its rows are."""


@dataclass(frozen=True, eq=False)
class Tours:
    """One tour an instance, and what others were tried."""

    actions: Tensor  # int64 [instances, nodes]
    lengths: Tensor  # float64 [instances]
    log_probs: Tensor  # float32 [instances], of all nodes but a first one that was given; in the view that gave it
    tried: Tensor  # float64 [instances, tours]: the lengths of all
    logits: Tensor | None = None  # float32 [instances, step, node], where asked for


def decode(
    model: Patched,
    instances: Instances,
    how: How = "greedy",
    *,
    actions: Tensor | None = None,
    starts: int | None = None,
    samples: int = 1,
    seed: int = 0,
    logits: bool = False,
    batch_size: int | None = None,
) -> Tours:
    """Build a tour for each instance, or score `actions`; with `logits`, those of every step along it come, too."""
    if how not in get_args(How):
        raise ConfigError(f"there is no decoding {how!r}", where="decode", remedy=near(how, get_args(How)))
    n = instances.nodes
    if starts is not None and not 1 <= starts <= n:
        raise ConfigError(f"starts={starts} of {n} nodes", where="decode", remedy=f"Give 1 to {n}.")
    if samples < 1:
        raise ConfigError(f"samples={samples}", where="decode", remedy="Give 1 or more.")
    given = None if actions is None else _checked(instances, actions)
    tried = 1 if given is not None else {"greedy": 1, "sampling": samples}.get(how, starts or n)
    size = batch_size or max(1, _ROWS // (tried * n * (8 if how == "augment8" else 1)))
    found: list[Tours] = []
    with torch.no_grad(), model.held():
        for at, low in enumerate(range(0, len(instances), size)):
            part = instances.part(low, low + size)
            if given is not None:
                tours = _scored(model, part, given[low : low + size])
            else:
                tours = _built(model, part, how, tried=tried, seed=(seed, at))
            if logits:
                along = _along(model, part, tours.actions)
                tours = Tours(tours.actions, tours.lengths, tours.log_probs, tours.tried, along)
            found.append(tours)
    fields = zip(*((t.actions, t.lengths, t.log_probs, t.tried) for t in found), strict=True)
    every = torch.cat([t.logits for t in found if t.logits is not None]) if logits else None
    actions, lengths, log_probs, tried_lengths = (torch.cat(field) for field in fields)
    return Tours(actions, lengths, log_probs, tried_lengths, every)


def replay(model: Patched, instances: Instances, actions: Tensor, *, batch_size: int | None = None) -> Tensor:
    """Return the logits of each step along tours [instances, nodes] or [instances, starts, nodes], one axis more."""
    given = _checked(instances, actions)
    size = batch_size or max(1, _ROWS // (given[0].numel() * instances.nodes))
    with torch.no_grad(), model.held():
        parts = [
            _along(model, instances.part(low, low + size), given[low : low + size])
            for low in range(0, len(instances), size)
        ]
    return torch.cat(parts)


def roll(
    decoder: Decoder,
    nodes: Nodes,
    first: Tensor | None,
    *,
    pick: Pick,
    mark: Callable[[int, Tensor], AbstractContextManager[None]] = lambda *_: nullcontext(),
    starts: int = 1,
) -> tuple[Tensor, Tensor]:
    """Build tours step by step: actions [instances, starts, nodes] and their log-probabilities.

    `first` are the first nodes [instances, starts], or nothing where the policy chooses `starts` of them itself.
    """
    batch, n = nodes.target.shape[:2]
    shape = (batch, starts) if first is None else tuple(first.shape)
    device = nodes.target.device
    barred = torch.zeros(*shape, n, device=device)
    current = torch.full(shape, n, device=device)
    begun = current if first is None else first
    actions = torch.empty(*shape, n, dtype=torch.int64, device=device)
    total = torch.zeros(shape, device=device)
    for step in range(n):
        if step == 0 and first is not None:
            chosen = first
        elif step == n - 1:
            chosen = barred.argmax(-1)
        else:
            with mark(step, current):
                logits = decoder(nodes, begun, current, barred=barred)
            log_probs = logits.log_softmax(-1)
            chosen = pick(log_probs)
            total += log_probs.gather(-1, chosen[..., None])[..., 0]
        begun = chosen if step == 0 else begun
        actions[..., step] = current = chosen
        barred.scatter_(-1, chosen[..., None], -torch.inf)
    return actions, total


def greedily(log_probs: Tensor) -> Tensor:
    """Pick the likeliest node; of equal ones the first."""
    return log_probs.argmax(-1)


def sampler(generator: torch.Generator) -> Pick:
    """Pick nodes by their probability."""

    def pick(log_probs: Tensor) -> Tensor:
        sums = log_probs.exp().cumsum(-1)
        drawn = torch.rand(sums.shape[:-1], generator=generator, device=sums.device)[..., None]
        # The first whose sum is beyond, which is never one of probability 0; the factor keeps rounding off the end.
        return (sums > drawn * sums[..., -1:] * (1 - 2**-22)).to(torch.uint8).argmax(-1)

    return pick


def eightfold(coords: Tensor) -> Tensor:
    """Return the square turned and mirrored in 8 ways, [8, instances, nodes, 2]; the first is the square itself."""
    x, y = coords.unbind(-1)
    pairs = [(a, b) for a in (x, 1 - x) for b in (y, 1 - y)]
    return torch.stack([torch.stack(p, -1) for a, b in pairs for p in ((a, b), (b, a))])


def _built(model: Patched, part: Instances, how: How, *, tried: int, seed: tuple[int, int]) -> Tours:
    """Build tours for one batch, and keep the shortest of each instance."""
    policy: AttentionPolicy = model.module
    device = next(policy.parameters()).device
    whole = eightfold(part.coords).flatten(0, 1) if how == "augment8" else part.coords
    times = len(whole) // len(part)
    with model.forward_of("encoder", instances=part, times=times):
        h = policy.encode(whole.to(device))
    nodes = policy.decoder.prepare(h)
    first = None
    if not policy.config.free_start or how in ("multistart", "augment8"):
        spread = how in ("multistart", "augment8")
        first = (torch.arange(tried, device=device) * int(spread)).expand(len(whole), -1)
    pick: Pick = greedily
    if how == "sampling":
        generator = torch.Generator(device)
        generator.manual_seed(seed[0] * 1_000_003 + seed[1])
        pick = sampler(generator)
    actions, log_probs = roll(
        policy.decoder,
        nodes,
        first,
        pick=pick,
        starts=tried,
        mark=lambda *at: model.forward_of("decoder", instances=part, times=times, at=at),
    )
    actions, log_probs = _beside(actions.cpu(), times), _beside(log_probs.cpu(), times)
    lengths = tour_lengths(part.coords.double(), actions)
    best, rows = lengths.argmin(1), torch.arange(len(part))
    return Tours(actions[rows, best], lengths[rows, best], log_probs[rows, best], lengths)


def _beside(x: Tensor, times: int) -> Tensor:
    """Bring several views of the same instances side by side: [times · b, s, …] to [b, times · s, …]."""
    return x.view(times, -1, *x.shape[1:]).transpose(0, 1).flatten(1, 2)


def _scored(model: Patched, part: Instances, actions: Tensor) -> Tours:
    if actions.ndim != 2:
        raise DataError("several tours an instance", where="decode", remedy="Replay them, or give one.")
    log_probs = _along(model, part, actions).log_softmax(-1).gather(-1, actions[..., None])[..., 0].sum(-1)
    lengths = tour_lengths(part.coords.double(), actions)
    return Tours(actions, lengths, log_probs, lengths[:, None])


def _along(model: Patched, part: Instances, actions: Tensor) -> Tensor:
    policy: AttentionPolicy = model.module
    device = next(policy.parameters()).device
    with model.forward_of("encoder", instances=part, times=1):
        h = policy.encode(part.coords.to(device))
    nodes = policy.decoder.prepare(h)
    with model.forward_of("decoder", instances=part, times=1, actions=actions):
        logits = policy.along(nodes, actions.to(device))
    return logits.cpu()


def _checked(instances: Instances, actions: Tensor) -> Tensor:
    n = instances.nodes
    shaped = actions.ndim in (2, 3) and len(actions) == len(instances) and actions.shape[-1] == n
    tours = actions.detach().cpu().to(torch.int64)
    if not shaped or not bool((tours.sort(-1).values == torch.arange(n)).all()):
        what = f"actions {list(actions.shape)} are no tours of {len(instances)} instances of {n} nodes"
        raise DataError(what, where="decode", remedy="Give each node once, counted from 0.")
    return tours
