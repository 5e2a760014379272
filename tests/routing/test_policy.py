"""The policy's parts: what is affine is affine, all steps at once are the steps one by one, what is left counts alone."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from elute.base.errors import ConfigError, DataError
from elute.base.recipe import build
from elute.models import sites as hooks
from elute.models.routing.decoding import greedily, roll
from elute.models.routing.layers import held_patterns, read_patterns
from elute.models.routing.policy import AttentionPolicy, begin
from elute.models.routing.settings import PolicyConfig
from elute.models.routing_policy import load

SMALL = PolicyConfig(embed_dim=16, num_encoder_layers=3, num_heads=2, feedforward_hidden=24)


pytestmark = pytest.mark.usefixtures("one_thread")


def made(config: PolicyConfig = SMALL, seed: int = 0) -> AttentionPolicy:
    """A policy in float64 whose norms have seen something."""
    policy = begin(config, seed).double().train()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for _ in range(3):
            policy.encode(3 * torch.rand(8, 9, 2, generator=generator, dtype=torch.float64))
    return policy.eval().requires_grad_(False)


def mixed(policy: AttentionPolicy, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """The encoder of a mixture, and the mixture of the encoder."""
    return policy.encoder(0.3 * x + 0.7 * y), 0.3 * policy.encoder(x) + 0.7 * policy.encoder(y)


def test_with_patterns_held_and_mlps_replaced_the_encoder_is_affine() -> None:
    policy = made()
    x, y = (policy.init_embed(torch.rand(4, 9, 2, dtype=torch.float64)) for _ in range(2))
    patterns = read_patterns(policy.encoder, x)
    with pytest.raises(AssertionError):
        torch.testing.assert_close(*mixed(policy, x, y))
    with held_patterns(policy.encoder, patterns), pytest.raises(AssertionError):
        torch.testing.assert_close(*mixed(policy, x, y))
    for layer in policy.encoder.layers:
        layer.mlp = nn.Linear(16, 16, dtype=torch.float64).requires_grad_(False)
    with held_patterns(policy.encoder, patterns):
        torch.testing.assert_close(*mixed(policy, x, y), rtol=0, atol=1e-12)
        policy.encoder.train()
        with pytest.raises(AssertionError):
            torch.testing.assert_close(*mixed(policy, x, y))


def test_so_it_is_when_a_patch_tells_what_each_mlp_gives() -> None:
    """As a local account does it: features and an error that are held, whatever else changes."""
    policy = made()
    model = load(policy=policy)
    x, y = (policy.init_embed(torch.rand(4, 9, 2, dtype=torch.float64)) for _ in range(2))
    constants = [torch.randn(36, 16, dtype=torch.float64) for _ in range(3)]
    edits = {f"encoder_layer_{i}.mlp": (lambda _x, _m, i=i: constants[i]) for i in range(3)}
    # The encoder is run by itself here, and not through the model, so that its input need not come from coordinates.
    with (
        held_patterns(policy.encoder, read_patterns(policy.encoder, x)),
        hooks.patch(policy, edits, sites=model.sites, marked=True) as active,
    ):
        whole, one, two = (marked(active, policy, z) for z in (0.3 * x + 0.7 * y, x, y))
        torch.testing.assert_close(whole, 0.3 * one + 0.7 * two, rtol=0, atol=1e-12)


def marked(active: hooks.Patch, policy: AttentionPolicy, x: Tensor) -> Tensor:
    with active.forward():
        return policy.encoder(x)


def test_instance_norm_is_not_affine() -> None:
    policy = made(SMALL.model_copy(update={"normalization": "instance"}))
    x, y = (policy.init_embed(torch.rand(4, 9, 2, dtype=torch.float64)) for _ in range(2))
    for layer in policy.encoder.layers:
        layer.mlp = nn.Identity()
    with held_patterns(policy.encoder, read_patterns(policy.encoder, x)), pytest.raises(AssertionError):
        torch.testing.assert_close(*mixed(policy, x, y), rtol=0, atol=1e-6)


def test_patterns_held_are_those_that_were_read() -> None:
    policy = made()
    x = policy.init_embed(torch.rand(4, 9, 2, dtype=torch.float64))
    plain = policy.encoder(x)
    patterns = read_patterns(policy.encoder, x)
    assert [p.shape for p in patterns] == [(4, 2, 9, 9)] * 3
    for p in patterns:
        torch.testing.assert_close(p.sum(-1), torch.ones(4, 2, 9, dtype=torch.float64))
    with held_patterns(policy.encoder, patterns):
        assert torch.equal(policy.encoder(x), plain)
        with pytest.raises(DataError, match="Hold the patterns of the same instances"):
            policy.encoder(x[:2])
    assert torch.equal(policy.encoder(x), plain)
    with pytest.raises(DataError, match="2 patterns for 3 layers"), held_patterns(policy.encoder, patterns[:2]):
        pass


@pytest.mark.parametrize("free", [False, True])
@pytest.mark.parametrize("mean", [False, True])
def test_all_steps_at_once_are_the_steps_one_by_one(free: bool, mean: bool) -> None:
    policy = made(SMALL.model_copy(update={"free_start": free, "use_graph_context": mean}))
    coords = torch.rand(4, 7, 2, dtype=torch.float64)
    nodes = policy.decoder.prepare(policy.encode(coords))
    first = None if free else torch.tensor([[0, 3]]).expand(4, -1)
    actions, log_probs = roll(policy.decoder, nodes, first, pick=greedily, starts=2)
    assert actions.shape == (4, 2, 7)
    assert bool((actions.sort(-1).values == torch.arange(7)).all())
    logits = policy.along(nodes, actions)
    along = logits.log_softmax(-1).gather(-1, actions[..., None])[..., 0]
    torch.testing.assert_close(along.sum(-1).float(), log_probs, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(policy(coords, actions[:, 1])["logits"], logits[:, 1], rtol=0, atol=1e-12)
    assert bool((logits.argmax(-1) == actions).all()), "greedy tours take the likeliest node at each step"
    for step in range(7):
        left = ~torch.isinf(logits[:, :, step])
        assert int(left.sum(-1).unique()) == (1 if step == 0 and not free else 7 - step)
        assert not bool(left.gather(-1, actions[..., :step]).any()), "a node that was visited"
    assert float(logits[~torch.isinf(logits)].abs().max()) <= 10.0


def test_the_first_node_means_nothing_to_the_encoder_and_all_to_the_decoder() -> None:
    policy = made()
    coords = torch.rand(2, 6, 2, dtype=torch.float64)
    order = torch.randperm(6)
    torch.testing.assert_close(policy.encode(coords)[:, order], policy.encode(coords[:, order]), rtol=0, atol=1e-12)
    one, two = (
        policy(coords, torch.tensor([[0, 1, 2, 3, 4, 5], t]))["logits"]
        for t in ([0, 1, 2, 3, 4, 5], [5, 1, 2, 3, 4, 0])
    )
    assert torch.equal(one[0], two[0])
    assert not torch.allclose(one[1, 2, 3:5], two[1, 2, 3:5])


def test_random_weights_follow_from_the_seed_and_leave_torchs_own_draws_be() -> None:
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    one, two = begin(SMALL, 1), begin(SMALL, 1)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert not torch.equal(one.init_embed.weight, begin(SMALL, 2).init_embed.weight)


def test_heads_that_do_not_divide_the_width_are_refused() -> None:
    with pytest.raises(ConfigError, match="embed_dim 10 is no multiple of 4 heads"):
        build(PolicyConfig, {"embed_dim": 10, "num_heads": 4}, where="policy")
