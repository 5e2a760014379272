"""A network whose circuits are known, with transcoders that are exact.

Every unit of an MLP reads some directions of the residual stream and writes one of its own; all directions are
orthonormal, so that a unit is caused by its parents and by nothing else. Attention carries one direction of each layer
from the position before. Units are the features of the transcoders.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from elute.base.contracts import Site
from elute.dictionaries.dictionary import Dictionary
from elute.dictionaries.spec import DictionarySpec
from elute.models.module import TorchModel

WIDTH, TOKENS, UNITS, DEPTH, OUTPUTS = 768, 8, 10, 3, 4


class Attention(nn.Module):
    """Every position looks at the one before, by what softmax makes of large scores, and fetches some directions."""

    def __init__(self, carried: Tensor, into: Tensor) -> None:
        super().__init__()
        self.carry = nn.Parameter(into.T @ carried)  # [width, width]

    def forward(self, x: Tensor) -> Tensor:
        n = x.shape[-2]
        before = (torch.arange(n) - 1).clamp(min=0)
        scores = torch.full((n, n), -4.0, dtype=x.dtype)
        scores[torch.arange(n), before] = 4.0
        scores = scores + 1e-3 * (x @ x.transpose(-1, -2))
        return scores.softmax(-1) @ x @ self.carry.T


class Block(nn.Module):
    def __init__(self, width: int, units: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.mlp = nn.Sequential(nn.Linear(width, units), nn.ReLU(), nn.Linear(units, width))
        self.attention: nn.Module = nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x)
        return x + self.mlp(self.norm(x))


class Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.embed = nn.Embedding(TOKENS, WIDTH)
        self.blocks = nn.ModuleList(Block(WIDTH, UNITS) for _ in range(DEPTH))
        self.head = nn.Linear(WIDTH, OUTPUTS, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


@dataclass(frozen=True)
class Planted:
    model: TorchModel
    transcoders: list[Dictionary]
    parents: dict[tuple[int, int], set[tuple[int, int]]]  # unit (layer, number) -> units in earlier layers
    direct: dict[tuple[int, int], set[tuple[int, int]]]  # those that it reads at its own position
    heads: dict[int, set[tuple[int, int]]]  # output -> units


def orthonormal(n: int, generator: torch.Generator) -> Tensor:
    return torch.linalg.qr(torch.randn(WIDTH, WIDTH, generator=generator, dtype=torch.float64))[0][:n]


def plant(seed: int = 0, noise: float = 0.002) -> Planted:
    """Draw a network: each unit of the first layer reads two tokens, each later one two or three earlier units."""
    generator = torch.Generator().manual_seed(seed)
    basis = orthonormal(TOKENS + DEPTH * UNITS + DEPTH, generator)
    basis = torch.linalg.qr((basis - basis.mean(1, keepdim=True)).T)[0].T  # no mean, so that LayerNorm only scales
    token, rest = basis[:TOKENS], basis[TOKENS : TOKENS + DEPTH * UNITS].view(DEPTH, UNITS, WIDTH)
    moved = basis[TOKENS + DEPTH * UNITS :]
    net = Network().double().requires_grad_(False).eval()
    net.embed.weight.copy_(3 * token)
    parents: dict[tuple[int, int], set[tuple[int, int]]] = {}
    direct: dict[tuple[int, int], set[tuple[int, int]]] = {}
    for layer, block in enumerate(net.blocks):
        read = torch.zeros(UNITS, WIDTH, dtype=torch.float64)
        known = [(m, i) for m in range(layer) for i in range(UNITS)]
        for unit in range(UNITS):
            if layer == 0:
                for t in torch.randperm(TOKENS, generator=generator)[:2].tolist():
                    read[unit] += token[t]
                continue
            count = 2 + unit % 2
            chosen = [known[i] for i in torch.randperm(len(known), generator=generator)[:count].tolist()]
            parents[layer, unit] = set(chosen)
            for m, i in chosen:
                read[unit] += rest[m, i]
        direct |= {key: set(causes) for key, causes in parents.items() if key[0] == layer}
        if layer:  # the first unit of the layer before comes from the position before, too
            fetched = rest[layer - 1, 0][None]
            block.attention = Attention(fetched, moved[layer][None])
            read[1] += moved[layer]
            parents[layer, 1].add((layer - 1, 0))
        first, _, last = block.mlp
        first.weight.copy_(2 * read + noise * torch.randn(read.shape, generator=generator, dtype=torch.float64))
        first.bias.fill_(-0.02)
        last.weight.copy_(rest[layer].T * 2)
        last.bias.zero_()
    head, heads = torch.zeros(OUTPUTS, WIDTH, dtype=torch.float64), {}
    for i in range(OUTPUTS):
        chosen = [(DEPTH - 1, int(u)) for u in torch.randperm(UNITS, generator=generator)[:3]]
        heads[i] = set(chosen)
        head[i] = 0.03 * sum(rest[m, u] for m, u in chosen)
    net.head.weight.copy_(head)
    net.requires_grad_(False)
    sites = {}
    for i in range(DEPTH):
        sites[f"blocks.{i}.hook_mlp_in"] = Site(f"blocks.{i}.mlp", "input")
        sites[f"blocks.{i}.hook_mlp_out"] = Site(f"blocks.{i}.mlp")
    model = TorchModel(net, {"embedding": "embed", **sites})
    return Planted(model, [exact(net.blocks[i], i) for i in range(DEPTH)], parents, direct, heads)


def exact(block: nn.Module, layer: int) -> Dictionary:
    """The MLP itself as a transcoder."""
    first, _, last = block.mlp
    spec = DictionarySpec(
        kind="transcoder",
        reads={f"blocks.{layer}.hook_mlp_in": WIDTH},
        writes={f"blocks.{layer}.hook_mlp_out": WIDTH},
        n_features=UNITS,
        activation="relu",
        k=1,
    )
    made = Dictionary(spec).double()
    (bank,) = made
    bank.W_enc.data.copy_(first.weight)
    bank.b_enc.data.copy_(first.bias)
    bank.W_dec.data.copy_(last.weight.T)
    made.b_dec.data.copy_(last.bias)
    return made.requires_grad_(False).eval()
