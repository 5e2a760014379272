"""An attention model that builds tours: it encodes the nodes once, then points at the next node, step by step.

W. Kool, H. van Hoof, M. Welling, "Attention, learn to solve routing problems!", 2019; Y.-D. Kwon et al., "POMO", 2020.

1. `init_embed` takes coordinates to the width; `encoder` lets nodes see each other.
2. At each step `decoder.context` joins the first node and the one where the tour stands (two vectors of its own before
   there is any), `decoder.query` adds the mean of all nodes where the policy uses it.
3. `decoder.pointer` glimpses at the nodes that are left and scores them; tanh bounds the scores.

The decoder has no memory but the tour so far, so that all steps of a given tour are computed at once (`forward` with
actions): every module runs once, and each step is a row of the decoder's sites.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from elute.models.routing.layers import Encoder, Pattern
from elute.models.routing.settings import PolicyConfig


class Nodes(NamedTuple):
    """What the decoder reads of the nodes, computed once; row `nodes` of first and current stands for no node yet."""

    first: Tensor  # [instances, nodes + 1, width]
    current: Tensor  # [instances, nodes + 1, width]
    mean: Tensor  # [instances, 1, width]
    key: Tensor  # [instances, heads, nodes, width / heads]
    value: Tensor  # [instances, heads, nodes, width / heads]
    target: Tensor  # [instances, nodes, width], with the pointer's last product in it


class Context(nn.Module):
    """The first node and the current one, in one vector."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first = nn.Linear(width, width, bias=False)
        self.current = nn.Linear(width, width, bias=False)
        self.nowhere = nn.Parameter(torch.empty(2, width).uniform_(-1, 1))

    def prepare(self, h: Tensor) -> tuple[Tensor, Tensor]:
        """Project every node, and the vectors that stand for no node."""
        batch = len(h)
        one, two = (self.nowhere[i].expand(batch, 1, -1) for i in range(2))
        return self.first(torch.cat([h, one], 1)), self.current(torch.cat([h, two], 1))

    def forward(self, nodes: Nodes, first: Tensor, current: Tensor) -> Tensor:
        """Return [instances, rows, width] for the first and current nodes [instances, rows]."""
        width = nodes.first.shape[-1]
        one = nodes.first.gather(1, first[..., None].expand(-1, -1, width))
        return one + nodes.current.gather(1, current[..., None].expand(-1, -1, width))


class Query(nn.Module):
    """The context, and the mean of all nodes where the policy uses it."""

    def forward(self, context: Tensor, mean: Tensor) -> Tensor:
        """Add both, [instances, rows, width]."""
        return context + mean


class Pointer(nn.Module):
    """Scores of the nodes: a glimpse at those that are left, then a product with each."""

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        self.heads, self.bound = config.num_heads, config.tanh_clipping
        self.pattern = Pattern()
        self.out = nn.Linear(config.embed_dim, config.embed_dim, bias=False)

    def forward(self, query: Tensor, nodes: Nodes, barred: Tensor) -> Tensor:
        """Return logits [instances, rows, nodes]; `barred` is -inf for nodes that may not follow, else 0."""
        batch, rows, width = query.shape
        heads = (query * (width // self.heads) ** -0.5).view(batch, rows, self.heads, -1).transpose(1, 2)
        pattern = self.pattern(heads @ nodes.key.transpose(-1, -2) + barred[:, None])
        glimpse = (pattern @ nodes.value).transpose(1, 2).reshape(batch, rows, width)
        return self.bound * torch.tanh(glimpse @ nodes.target.transpose(-1, -2)) + barred


class Decoder(nn.Module):
    """Logits of the next node."""

    def __init__(self, config: PolicyConfig) -> None:
        super().__init__()
        width = config.embed_dim
        self.heads, self.uses_mean = config.num_heads, config.use_graph_context
        self.project = nn.Linear(width, 3 * width, bias=False)
        self.mean = nn.Linear(width, width, bias=False) if self.uses_mean else None
        self.context = Context(width)
        self.query = Query()
        self.pointer = Pointer(config)

    def prepare(self, h: Tensor) -> Nodes:
        """Compute what every step reads, from the encoder's output."""
        batch, n, width = h.shape
        key, value, target = self.project(h).chunk(3, -1)
        key, value = (x.view(batch, n, self.heads, -1).transpose(1, 2) for x in (key, value))
        # Here the glimpse's last product and its scale are done once a node, and not once a step.
        target = target @ self.pointer.out.weight * width**-0.5
        mean = h.new_zeros(1, 1, width) if self.mean is None else self.mean(h.mean(1, keepdim=True))
        return Nodes(*self.context.prepare(h), mean, key, value, target)

    def forward(self, nodes: Nodes, first: Tensor, current: Tensor, *, barred: Tensor) -> Tensor:
        """Return logits [instances, rows, nodes] of rows that stand at `current`."""
        logits: Tensor = self.pointer(self.query(self.context(nodes, first, current), nodes.mean), nodes, barred)
        return logits


class AttentionPolicy(nn.Module):
    """Encoder and decoder."""

    def __init__(self, config: PolicyConfig | None = None) -> None:
        super().__init__()
        self.config = config or PolicyConfig()
        self.init_embed = nn.Linear(2, self.config.embed_dim)
        self.encoder = Encoder(self.config)
        self.decoder = Decoder(self.config)

    def encode(self, coords: Tensor) -> Tensor:
        """Encode nodes, [instances, nodes, 2] to [instances, nodes, width]."""
        h: Tensor = self.encoder(self.init_embed(coords))
        return h

    def forward(self, coords: Tensor, actions: Tensor | None = None) -> dict[str, Tensor]:
        """Return the encoded nodes, and with actions the logits of every step along those tours.

        Actions are tours [instances, nodes] or [instances, starts, nodes]; logits have one axis more.
        """
        h = self.encode(coords)
        if actions is None:
            return {"nodes": h}
        return {"nodes": h, "logits": self.along(self.decoder.prepare(h), actions)}

    def along(self, nodes: Nodes, actions: Tensor) -> Tensor:
        """Return the logits of every step along given tours, -inf where a node is no longer there.

        A first node that was given is the only one of its step, so that it costs nothing and cannot differ.
        """
        batch, n = len(actions), actions.shape[-1]
        tours = actions.reshape(batch, -1, n)
        starts = tours.shape[1]
        nowhere = tours.new_full((batch, starts, 1), n)
        current = torch.cat([nowhere, tours[..., :-1]], -1)
        first = torch.cat([nowhere, tours[..., :1].expand(-1, -1, n - 1)], -1)
        steps = torch.arange(n, device=tours.device)
        place = torch.empty_like(tours).scatter_(-1, tours, steps.expand_as(tours))
        gone = place[:, :, None] < steps[:, None]  # [instances, starts, step, node]
        if not self.config.free_start:
            gone[:, :, 0] = place > 0
        barred = nodes.target.new_zeros(gone.shape).masked_fill_(gone, -torch.inf)
        logits: Tensor = self.decoder(
            nodes, first.reshape(batch, -1), current.reshape(batch, -1), barred=barred.view(batch, -1, n)
        )
        return logits.view(*actions.shape, n)


def begin(config: PolicyConfig, seed: int) -> AttentionPolicy:
    """Return a policy with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return AttentionPolicy(config)
