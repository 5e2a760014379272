"""Relevance through transformers to pixels: conserved to the last digits, split and not doubled, as derived by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from elute.analysis.relevance import explanations
from elute.analysis.relevance_explain import embedding_gradient, embedding_relevance
from elute.analysis.relevance_head import LATENT, Encoder, Explained
from elute.analysis.relevance_rules import Rules
from elute.analysis.through_encoder import through_encoder
from elute.base.contracts import Site
from elute.base.errors import ConfigError, DataError, GuardError
from elute.models.sites import capture
from elute.models.vision.small import SmallViT, SmallViTConfig

SIDE, PATCH, WIDTH = 16, 4, 12
PATCHES = (SIDE // PATCH) ** 2


def vit(seed: int = 0, layers: int = 2) -> SmallViT:
    torch.manual_seed(seed)
    config = SmallViTConfig(image_size=SIDE, patch=PATCH, width=WIDTH, n_layers=layers, n_heads=2, hidden=20)
    network = SmallViT(config)
    with torch.no_grad():
        for part in network.parameters():
            part.add_(0.2 * torch.randn_like(part))
    return network


def pictures(n: int = 2, seed: int = 1) -> torch.Tensor:
    return torch.randn(n, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))


def slopes(n: int = 2, tokens: int = PATCHES, seed: int = 2) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(n, tokens, WIDTH))


def readout(network: nn.Module, x: torch.Tensor, gradient: np.ndarray, site: str) -> np.ndarray:
    held = capture(network, {"site": Site(site)}, lambda: network(x)).tensors["site"][:, 1:]
    return (held.double().numpy() * gradient).sum((1, 2))


@pytest.mark.parametrize("site", ["blocks.1", "norm"])
@pytest.mark.parametrize("attention", ["constant", "softmax"])
def test_pixels_and_constants_add_up_to_what_is_explained(site: str, attention: Any) -> None:
    network = vit()
    found = through_encoder(network, pictures(), slopes(), site=Site(site), prefix=1, attention=attention)
    np.testing.assert_allclose(found.output, readout(network, pictures(), slopes(), site), rtol=1e-4, atol=1e-4)
    total = found.relevance.sum((1, 2)) + found.bias + found.attention
    np.testing.assert_allclose(total, found.output, rtol=1e-9)
    assert (found.gap < 1e-9).all()
    assert (np.abs(found.bias) > 1e-3).all()
    assert (found.attention == 0).all() == (attention == "constant")
    assert not np.allclose(found.relevance[0], found.relevance[1])
    alone = through_encoder(network, pictures()[1:], slopes()[1:], site=Site(site), prefix=1, attention=attention)
    np.testing.assert_allclose(alone.relevance[0], found.relevance[1], rtol=1e-9)


def test_one_block_is_as_derived_by_hand() -> None:
    """Attention and norms as constants: every step is a matrix, multiplied out in numpy; GELU hands relevance on."""
    network = vit(layers=1).double()
    x, gradient = pictures(1).double(), slopes(1)
    w = {name: part.detach().numpy() for name, part in network.named_parameters()}
    cut = x[0].numpy().reshape(3, 4, PATCH, 4, PATCH).transpose(1, 3, 0, 2, 4).reshape(PATCHES, -1)
    embed = w["embed.weight"].reshape(WIDTH, -1)
    first = w["cls"][0] + w["positions"][0, :1]
    tokens = np.concatenate([first, cut @ embed.T + w["embed.bias"] + w["positions"][0, 1:]])

    def norm(t: np.ndarray, name: str) -> tuple[np.ndarray, np.ndarray]:
        """What a norm gives, and the matrix of each token that it is with its deviation held still."""
        scale = 1 / np.sqrt(t.var(1) + 1e-5)
        centre = np.eye(WIDTH) - 1 / WIDTH
        matrix = w[f"{name}.weight"][None, :, None] * centre[None] * scale[:, None, None]
        return np.einsum("tij,tj->ti", matrix, t) + w[f"{name}.bias"], matrix

    read, norm1 = norm(tokens, "blocks.0.norm1")
    q, k, v = np.split(read @ w["blocks.0.attn.qkv.weight"].T + w["blocks.0.attn.qkv.bias"], 3, axis=1)
    heads = [slice(0, 6), slice(6, 12)]
    scores = [q[:, h] @ k[:, h].T / np.sqrt(6) for h in heads]
    weights = [np.exp(s) / np.exp(s).sum(1, keepdims=True) for s in scores]
    mixed = np.concatenate([a @ v[:, h] for a, h in zip(weights, heads, strict=True)], 1)
    after = tokens + mixed @ w["blocks.0.attn.proj.weight"].T + w["blocks.0.attn.proj.bias"]
    read2, norm2 = norm(after, "blocks.0.norm2")
    hidden = read2 @ w["blocks.0.mlp.fc1.weight"].T + w["blocks.0.mlp.fc1.bias"]
    passed = nn.functional.gelu(torch.from_numpy(hidden)).numpy() / hidden

    g = np.concatenate([np.zeros((1, WIDTH)), gradient[0]])
    back = (g @ w["blocks.0.mlp.fc2.weight"]) * passed @ w["blocks.0.mlp.fc1.weight"]
    g = g + np.einsum("tij,ti->tj", norm2, back)
    to_values = g @ w["blocks.0.attn.proj.weight"]
    values = np.concatenate([a.T @ to_values[:, h] for a, h in zip(weights, heads, strict=True)], 1)
    g = g + np.einsum("tij,ti->tj", norm1, values @ w["blocks.0.attn.qkv.weight"][2 * WIDTH :])
    pixels = (cut * (g[1:] @ embed)).reshape(4, 4, 3, PATCH, PATCH).transpose(2, 0, 3, 1, 4).reshape(3, SIDE, SIDE)

    found = through_encoder(network, x, gradient, site=Site("blocks.0"), prefix=1)
    np.testing.assert_allclose(found.relevance[0], pixels.sum(0), rtol=1e-8, atol=1e-10)
    grid = found.patches(4, 4)[0]
    np.testing.assert_allclose(grid, pixels.sum(0).reshape(4, 4, 4, 4).sum((1, 3)), rtol=1e-8)


def test_the_softmax_rule_is_the_facts_formula() -> None:
    """R_i = x_i (R_i − s_i Σ_j R_j) for one softmax that a linear readout follows, with the rest counted."""

    class One(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(torch.softmax(x.flatten(1), -1)[:, None])

    x, gradient = torch.randn(1, 1, 2, 3).double(), np.random.default_rng(0).normal(size=(1, 1, 6))
    s = torch.softmax(x.flatten(), 0).numpy()
    relevance = s * gradient[0, 0]
    expected = x.flatten().numpy() * (relevance - s * relevance.sum())
    found = through_encoder(One(), x, gradient, site=Site("out"), attention="softmax")
    np.testing.assert_allclose(found.relevance.reshape(-1), expected, rtol=1e-10)
    np.testing.assert_allclose(found.attention, relevance.sum() - expected.sum(), rtol=1e-10)


@pytest.mark.parametrize("attention", ["constant", "softmax"])
@pytest.mark.parametrize("how", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["ViT", "Dinov2", "CLIPVision"])
def test_networks_of_transformers(kind: str, how: str, attention: Any) -> None:
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(0)
    more = {"use_swiglu_ffn": True} if kind == "Dinov2" and how == "eager" else {}
    config = getattr(transformers, f"{kind}Config")(
        hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2, intermediate_size=20, image_size=SIDE,
        patch_size=PATCH, attn_implementation=how, **more,
    )  # fmt: skip
    network = getattr(transformers, f"{kind}Model")(config).eval()
    last = next(name for name, _ in network.named_modules() if name.endswith(("layer.1", "layers.1")))
    found = through_encoder(network, pictures(1), slopes(1), site=Site(last), prefix=1, attention=attention)
    assert found.gap.max() < 1e-5
    assert np.abs(found.relevance).max() > 0
    assert (found.attention == 0).all() == (attention == "constant")


def test_integrated_gradients_add_up_to_the_difference() -> None:
    network = vit()
    found = through_encoder(
        network, pictures(), slopes(), site=Site("blocks.1"), prefix=1, method="integrated_gradients", steps=128
    )
    nothing = readout(network, torch.zeros(2, 3, SIDE, SIDE), slopes(), "blocks.1")
    np.testing.assert_allclose(found.bias, nothing, rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(found.relevance.sum((1, 2)) + found.bias, found.output, rtol=1e-3, atol=1e-3)
    assert (found.gap < 1e-3).all()


def test_a_code_is_followed_from_a_gene_to_pixels() -> None:
    """From a gene through one code: what arrives at pixels and what was kept add up to the code's relevance."""
    network, rng = vit().double(), np.random.default_rng(5)
    encoder = Encoder.topk(rng.normal(size=(30, WIDTH)), rng.normal(size=30), k=6, signed=True)
    head = Explained.of([(rng.normal(size=(2, 30)), rng.normal(size=2))], pool="mean", encoder=encoder)
    x = pictures(1).double()
    embedding = capture(network, {"site": Site("blocks.1")}, lambda: network(x)).tensors["site"][:, 1:]
    (whole,) = explanations(head, embedding.numpy(), {"y": 1})
    code = int(whole.pairs.code[np.argmax(np.abs(whole.relevance))])
    (found,) = explanations(head, embedding.numpy(), {"y": 1, LATENT: [code]})
    gradient = embedding_gradient(head, found, Rules())
    relevance = embedding_relevance(head, found, Rules())
    pixels = through_encoder(network, x, gradient[None], site=Site("blocks.1"), prefix=1)
    assert pixels.output[0] == pytest.approx(relevance.sum())
    total = pixels.relevance.sum() + pixels.bias.sum()
    assert total == pytest.approx(relevance.sum())
    kept = (gradient @ encoder.centre).sum() + whole.relevance[whole.pairs.code == code].sum() - relevance.sum()
    slope = found.factor[found.pairs.code == code][0] / PATCHES
    fired = (found.tokens.codes.dense().numpy()[:, code] != 0).sum()
    assert kept == pytest.approx(slope * fired * encoder.bias[code], rel=1e-6)


def test_pixels_that_relevance_names_matter_more_than_others() -> None:
    """Blanking the most relevant patches of a picture lowers what is explained more than blanking others does."""
    network, x, gradient = vit(3), pictures(6, seed=9), slopes(6, seed=10)
    network = network.double()
    found = through_encoder(network, x, gradient, site=Site("blocks.1"), prefix=1)
    patches = found.patches(4, 4).reshape(6, -1)
    rng = np.random.default_rng(0)

    def after(chosen: np.ndarray) -> float:
        mask = np.ones((6, PATCHES))
        np.put_along_axis(mask, chosen, 0, 1)
        shown = torch.from_numpy(mask.reshape(6, 4, 4).repeat(PATCH, 1).repeat(PATCH, 2))[:, None]
        return float(readout(network, x.double() * shown, gradient, "blocks.1").mean())

    most, least = np.argsort(-patches, 1)[:, :4], np.argsort(patches, 1)[:, :4]
    random = np.mean([after(np.stack([rng.permutation(PATCHES)[:4] for _ in range(6)])) for _ in range(8)])
    assert after(most) < random < after(least)


def test_an_unknown_function_is_found_out() -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.out = nn.Identity()

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(torch.exp(x.flatten(1))[:, None])

    with pytest.raises(GuardError, match="no rule is known for: use method='integrated_gradients'"):
        through_encoder(Odd(), torch.rand(1, 1, 2, 2), np.ones((1, 1, 4)), site=Site("out"))


def test_the_network_is_left_as_it_was() -> None:
    network = vit().train()
    before = {name: part.clone() for name, part in network.state_dict().items()}
    with pytest.raises(DataError, match="the site gives"):
        through_encoder(network, pictures(), slopes(tokens=3), site=Site("blocks.1"), prefix=1)
    through_encoder(network, pictures(), slopes(), site=Site("blocks.1"), prefix=1)
    assert network.training
    assert all(part.requires_grad and part.dtype == torch.float32 for part in network.parameters())
    assert not any(part._forward_hooks for part in network.modules())
    assert all(torch.equal(before[name], part) for name, part in network.state_dict().items())


def test_what_cannot_be_followed_is_refused() -> None:
    with pytest.raises(ConfigError, match="method='lpr'. Did you mean 'lrp'"):
        through_encoder(vit(), pictures(), slopes(), site=Site("norm"), method="lpr")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="attention='constants'"):
        through_encoder(vit(), pictures(), slopes(), site=Site("norm"), attention="constants")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="steps=0"):
        through_encoder(vit(), pictures(), slopes(), site=Site("norm"), steps=0)
    with pytest.raises(DataError, match="pixels .* and gradients"):
        through_encoder(vit(), pictures(), slopes(1), site=Site("norm"))
