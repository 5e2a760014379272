"""Patterns and scales are held: what is left between MLPs is linear, whatever network they stand in."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

from elute.base.errors import DataError
from elute.graphs.frozen import Frozen
from elute.graphs.linearity import not_linear

WIDTH, TOKENS = 12, 5


class Torch(nn.Module):
    """PyTorch's own attention between norms of all kinds that PyTorch has."""

    def __init__(self, weights: bool) -> None:
        super().__init__()
        self.attention, self.weights = nn.MultiheadAttention(WIDTH, 3, batch_first=True), weights
        self.norms = nn.ModuleList([nn.LayerNorm(WIDTH), nn.RMSNorm(WIDTH), nn.LayerNorm((TOKENS, WIDTH))])
        self.over = nn.ModuleList([nn.GroupNorm(3, WIDTH), nn.InstanceNorm1d(WIDTH, affine=True)])
        self.batch = nn.ModuleList([nn.BatchNorm1d(WIDTH), nn.BatchNorm1d(WIDTH, track_running_stats=False)])

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attention(x, x, x, need_weights=self.weights)[0]
        for norm in self.norms:
            x = x + norm(x)
        for norm in (*self.over, *self.batch):
            x = x + norm(x.transpose(1, 2)).transpose(1, 2)
        return x


class ByHand(nn.Module):
    """Norms that are written out, attention by products, and grouped queries under a causal mask."""

    def __init__(self) -> None:
        super().__init__()
        self.into, self.grouped = nn.Linear(WIDTH, 3 * WIDTH), nn.Linear(WIDTH, 2 * WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6)
        q, k, v = self.into(x).chunk(3, -1)
        x = x + torch.softmax(q @ k.transpose(-1, -2), -1) @ v
        x = (x - x.mean(-1, keepdim=True)) / (x.std(-1, keepdim=True) + 1e-6)
        x = x + 2 * functional.normalize(x, dim=-1)
        q, k, v = self.grouped(x).view(len(x), TOKENS, 8, 3).transpose(1, 2).split([4, 2, 2], 1)
        mixed = functional.scaled_dot_product_attention(q, k, v, is_causal=True, enable_gqa=True)
        return x + mixed.transpose(1, 2).reshape(x.shape)


class Masked(nn.Module):
    """A query that sees nothing, and a mask of numbers."""

    def forward(self, x: Tensor) -> Tensor:
        seen = torch.ones(TOKENS, TOKENS, dtype=torch.bool)
        seen[2] = False
        one = functional.scaled_dot_product_attention(x, x, x, attn_mask=seen, scale=0.3)
        return one + functional.scaled_dot_product_attention(x, x, x, attn_mask=seen.double() * 2)


NETS: dict[str, Callable[[], nn.Module]] = {
    "torch": lambda: Torch(weights=False),
    "torch, weights asked": lambda: Torch(weights=True),
    "by hand": ByHand,
    "masked": Masked,
}


@pytest.fixture
def draw() -> Callable[[], Tensor]:
    generator = torch.Generator().manual_seed(0)
    return lambda: torch.randn(2, TOKENS, WIDTH, generator=generator, dtype=torch.float64)


def made(name: str) -> nn.Module:
    torch.manual_seed(0)
    return NETS[name]().double().requires_grad_(False).eval()


@pytest.mark.parametrize("name", NETS)
def test_a_frozen_network_is_the_network_and_affine(name: str, draw: Callable[[], Tensor]) -> None:
    net, x, a, b = made(name), draw(), draw(), draw()
    frozen = Frozen()
    with frozen:
        first = net(x)
    torch.testing.assert_close(first, net(x), rtol=1e-11, atol=1e-11)
    assert frozen.held

    def run(given: Tensor) -> Tensor:
        with frozen:
            return net(given)

    assert torch.equal(run(x), first)
    torch.testing.assert_close(run(a + b) - run(b), run(a) - run(torch.zeros_like(a)), rtol=1e-10, atol=1e-10)
    assert not torch.allclose(net(a + b) - net(b), net(a) - net(torch.zeros_like(a)), rtol=1e-2)
    leaf = a.clone().requires_grad_()
    with frozen, frozen.trace(net):
        out = net(leaf)
    assert not_linear([out], frozen.made) == ()


@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_transformers(attention: str) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    settings = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 24}
    bert = transformers.BertModel(
        transformers.BertConfig(vocab_size=30, attn_implementation=attention, **settings), add_pooling_layer=False
    )
    vit = transformers.ViTModel(
        transformers.ViTConfig(image_size=16, patch_size=8, attn_implementation=attention, **settings),
        add_pooling_layer=False,
    )
    words = {"input_ids": torch.randint(0, 30, (1, 6)), "attention_mask": torch.tensor([[1, 1, 1, 1, 0, 0]])}
    pictures = {"pixel_values": torch.randn(1, 3, 16, 16, dtype=torch.float64)}
    for net, given in ((bert, words), (vit, pictures)):
        net.double().eval().requires_grad_(False)
        frozen = Frozen()
        with frozen:
            out = net(**given).last_hidden_state
        torch.testing.assert_close(out, net(**given).last_hidden_state, rtol=1e-10, atol=1e-10)
        kinds = [kind for kind, _ in frozen.held]
        assert kinds.count("layer_norm") == 5
        assert kinds.count("softmax" if attention == "eager" else "attention") == 2


def test_what_is_not_linear_is_named_by_its_module() -> None:
    class Gate(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x * torch.sigmoid(x)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.last, self.aside = Gate(), nn.Linear(WIDTH, 2), nn.Tanh()

        def forward(self, x: Tensor) -> Tensor:
            self.aside(x)  # its result goes nowhere
            return self.last(self.gate(x) / 3).tanh() * 10

    net = Net().double().requires_grad_(False)
    frozen = Frozen()
    x = torch.randn(3, WIDTH, dtype=torch.float64, requires_grad=True)
    with frozen, frozen.trace(net):
        out = net(x)
    assert not_linear([out], frozen.made) == ("gate: mul", "gate: sigmoid", "the network: tanh")


def test_another_shape_or_another_number_of_patterns_is_refused(draw: Callable[[], Tensor]) -> None:
    net, x = made("torch"), draw()
    frozen = Frozen()
    with frozen:
        net(x)
    with (
        pytest.raises(DataError, match=r"attention \[1, 3, 5, 5\] is asked for where attention \[2, 3, 5, 5\] is held"),
        frozen,
    ):
        net(x[:1])
    with pytest.raises(DataError, match=r"0 patterns and scales were asked for, and \d+ are held"), frozen:
        pass
    with pytest.raises(DataError, match="more patterns and scales are asked for"), frozen:
        net(x)
        net(x)
    with frozen:  # a failure leaves nothing behind
        net(x)


def test_a_first_forward_that_fails_is_recorded_anew(draw: Callable[[], Tensor]) -> None:
    net, x = made("torch"), draw()
    frozen = Frozen()
    with pytest.raises(ZeroDivisionError), frozen:
        net(x)
        raise ZeroDivisionError
    with frozen:
        out = net(x)
    with frozen:
        assert torch.equal(net(x), out)
