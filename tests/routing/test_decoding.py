"""Tours of every way to decode, their probabilities, and what patches do to them."""

from __future__ import annotations

import itertools
from typing import Any

import polars as pl
import pytest
import torch

from elute.base.errors import ConfigError, DataError, SiteError
from elute.models.routing.decoding import How, decode, eightfold, replay
from elute.models.routing.instances import Instances, draw
from elute.models.routing.policy import begin
from elute.models.routing.settings import InstanceConfig, PolicyConfig
from elute.models.routing_policy import RoutingModel, example, load

pytestmark = pytest.mark.usefixtures("one_thread")
HOWS: tuple[How, ...] = ("greedy", "sampling", "multistart", "augment8")


@pytest.fixture(scope="module")
def model() -> RoutingModel:
    """Norms that have seen nodes, and logits spread over their range: a tour depends on every weight."""
    config = PolicyConfig(
        embed_dim=16, num_encoder_layers=2, num_heads=2, feedforward_hidden=24, use_graph_context=True
    )
    policy = begin(config, 3).train()
    with torch.no_grad():
        for i in range(20):
            policy.encode(draw(InstanceConfig(num_instances=20, num_loc=8, seed=9, first=20 * i)).coords)
        policy.decoder.project.weight.mul_(2.0)
    return load(policy=policy.requires_grad_(False).eval())


@pytest.fixture(scope="module")
def instances() -> Instances:
    return draw(InstanceConfig(num_instances=12, num_loc=8))


def chosen(logits: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    return logits.log_softmax(-1).gather(-1, actions[..., None])[..., 0]


@pytest.mark.parametrize("how", HOWS)
def test_tours_are_tours_and_their_lengths_are_theirs(model: RoutingModel, instances: Instances, how: How) -> None:
    tours = decode(model, instances, how, samples=5)
    assert bool((tours.actions.sort(-1).values == torch.arange(8)).all())
    torch.testing.assert_close(tours.lengths, instances.lengths(tours.actions).double(), rtol=1e-5, atol=1e-5)
    assert tours.tried.shape == (12, {"greedy": 1, "sampling": 5, "multistart": 8, "augment8": 64}[how])
    assert torch.equal(tours.lengths, tours.tried.amin(1))
    again = decode(model, instances, how, samples=5, batch_size=12)
    assert torch.equal(tours.actions, again.actions)


@pytest.mark.parametrize("how", ["greedy", "sampling", "multistart"])
def test_probabilities_are_the_product_over_the_steps_replayed(
    model: RoutingModel, instances: Instances, how: How
) -> None:
    tours = decode(model, instances, how, samples=3, logits=True)
    steps = chosen(replay(model, instances, tours.actions), tours.actions)
    torch.testing.assert_close(steps.sum(-1), tours.log_probs, rtol=1e-5, atol=1e-5)
    assert tours.logits is not None
    torch.testing.assert_close(chosen(tours.logits, tours.actions), steps, rtol=0, atol=1e-5)
    given = decode(model, instances, actions=tours.actions)
    torch.testing.assert_close(given.log_probs, tours.log_probs, rtol=1e-5, atol=1e-5)
    assert torch.equal(given.lengths, given.tried[:, 0])


def test_all_tours_together_have_probability_one(model: RoutingModel) -> None:
    for free, firsts in ((False, (0,)), (True, range(4))):
        other = load(policy=begin(PolicyConfig(embed_dim=16, num_heads=2, num_encoder_layers=1, free_start=free), 1))
        one = draw(InstanceConfig(num_instances=1, num_loc=4))
        every = torch.tensor([t for t in itertools.permutations(range(4)) if t[0] in firsts])[None]
        total = chosen(replay(other, one, every), every).sum(-1).exp().sum()
        assert float(total) == pytest.approx(1.0, abs=1e-5)


def test_greedy_takes_the_likeliest_and_multistart_begins_everywhere(model: RoutingModel, instances: Instances) -> None:
    greedy = decode(model, instances, logits=True)
    assert torch.equal(greedy.logits.argmax(-1), greedy.actions)
    assert bool((greedy.actions[:, 0] == 0).all())
    many = decode(model, instances, "multistart")
    torch.testing.assert_close(many.tried[:, 0], greedy.lengths)
    some = decode(model, instances, "multistart", starts=3)
    assert torch.equal(some.tried, many.tried[:, :3])
    turned = decode(model, instances, "augment8", starts=2)
    torch.testing.assert_close(turned.tried[:, :2], many.tried[:, :2])
    assert bool((turned.lengths <= decode(model, instances, "multistart", starts=2).lengths + 1e-5).all())
    assert len({tuple(t) for t in greedy.actions.tolist()}) > 6, "tours differ between instances"


def test_samples_follow_the_probabilities() -> None:
    model = load(policy=begin(PolicyConfig(embed_dim=16, num_heads=2, num_encoder_layers=1), 4).eval())
    one = draw(InstanceConfig(num_instances=1, num_loc=4))
    every = torch.tensor([(0, *t) for t in itertools.permutations((1, 2, 3))])[None]
    p = chosen(replay(model, one, every), every).sum(-1).exp()[0]
    lengths = one.lengths(every)[0].double()
    tried = decode(model, one, "sampling", samples=4000, seed=1).tried[0]
    for length in lengths.unique():
        share = float((tried - length).abs().lt(1e-6).double().mean())
        expected = float(p[(lengths - length).abs() < 1e-6].sum())
        assert share == pytest.approx(expected, abs=4 * (expected * (1 - expected) / 4000) ** 0.5 + 1e-3)
    again = decode(model, one, "sampling", samples=4000, seed=1).tried[0]
    assert torch.equal(tried, again)
    assert not torch.equal(tried, decode(model, one, "sampling", samples=4000, seed=2).tried[0])


def test_eight_views_of_one_square() -> None:
    x = torch.rand(2, 5, 2)
    views = eightfold(x)
    assert torch.equal(views[0], x)
    for view in views:
        torch.testing.assert_close(torch.cdist(view, view), torch.cdist(x, x), rtol=1e-4, atol=1e-5)
    assert len({bytes(v.numpy().tobytes()) for v in views}) == 8


@pytest.mark.parametrize("how", ["greedy", "multistart", "augment8"])
def test_every_site_changes_the_tour_and_only_within_the_patch(
    model: RoutingModel, instances: Instances, how: How
) -> None:
    plain = decode(model, instances, how)
    generator = torch.Generator().manual_seed(0)
    for name in model.sites:
        with model.patch({name: lambda x, _: 5 * torch.randn(x.shape, generator=generator)}):
            assert not torch.equal(decode(model, instances, how).actions, plain.actions), name
        with model.patch({name: lambda x, _: x}):
            assert torch.equal(decode(model, instances, how).actions, plain.actions), name
    assert torch.equal(decode(model, instances, how).actions, plain.actions)


def test_a_patch_of_the_decoder_is_made_at_each_step_as_in_a_replay(model: RoutingModel, instances: Instances) -> None:
    edits = {
        "encoder_layer_0.mlp": lambda x, _: 0.5 * x,
        "decoder_context": lambda x, _: x + 0.1,
        "decoder_query": lambda x, m: (
            x * torch.where(torch.tensor(m["current"].to_numpy() % 2 == 0), 2.0, 0.5)[:, None]
        ),
    }
    with model.patch(edits):
        tours = decode(model, instances, logits=True)
        torch.testing.assert_close(
            chosen(replay(model, instances, tours.actions), tours.actions).sum(-1),
            tours.log_probs,
            rtol=1e-5,
            atol=1e-5,
        )
        batch, _ = next(model.batches(instances, tours=tours.actions))
        torch.testing.assert_close(model(batch)["logits"], tours.logits, rtol=0, atol=1e-5)
    assert not torch.equal(replay(model, instances, tours.actions), tours.logits)


def test_edits_are_told_which_rows_they_get(model: RoutingModel, instances: Instances) -> None:
    seen: list[tuple[str, pl.DataFrame]] = []

    def noted(part: str) -> Any:
        def edit(x: torch.Tensor, metadata: pl.DataFrame | None) -> torch.Tensor:
            assert metadata is not None
            assert len(x) == len(metadata)
            seen.append((part, metadata))
            return x

        return edit

    with model.patch({"encoder_output": noted("encoder"), "decoder_query": noted("decoder")}):
        tours = decode(model, instances, "multistart", starts=2)
        replay(model, instances, tours.actions)
    (_, nodes), *steps = seen[:7]
    assert nodes["sample_id"].to_list() == [i for i in instances.ids for _ in range(8)]
    assert nodes["position"].to_list() == list(range(8)) * 12
    assert [m["position"].unique().to_list() for _, m in steps] == [[i] for i in range(1, 7)]
    assert steps[0][1]["sample_id"].to_list() == [i for i in instances.ids for _ in range(2)]
    assert steps[0][1]["current"].to_list() == [0, 1] * 12
    along = seen[-1][1]
    assert along.filter(pl.col("position") == 0)["current"].unique().to_list() == [-1]
    for step in range(1, 8):
        assert along.filter(pl.col("position") == step)["current"].to_list() == tours.actions[:, step - 1].tolist()
    with (
        model.patch({"encoder_output": lambda x, _: x}, metadata=along[:5]),
        pytest.raises(SiteError, match="96 rows but the metadata has 5"),
    ):
        decode(model, instances)


def test_rows_of_the_decoder_are_those_of_its_own_tours(model: RoutingModel, instances: Instances) -> None:
    ((batch, metadata),) = model.batches(instances)
    assert torch.equal(batch["actions"], decode(model, instances).actions)
    rows = model.capture(batch)
    assert {len(x) for x in rows.values()} == {96}
    assert torch.equal(rows["encoder_output"], rows["encoder_layer_1"])
    assert torch.equal(rows["encoder_layer_1.input"], rows["encoder_layer_0"])
    assert metadata.columns == ["sample_id", "position", "group", "current"]
    assert metadata["group"].to_list() == metadata["sample_id"].to_list()
    ((bare, told),) = model.batches(instances, tours=False)
    assert torch.equal(model.capture(bare, ["encoder_output"])["encoder_output"], rows["encoder_output"])
    assert "current" not in told.columns
    with pytest.raises(SiteError, match="never ran"):
        model.capture(bare, ["decoder_query"])


def test_batches_of_any_size_are_the_same_rows(model: RoutingModel, instances: Instances) -> None:
    whole = model.capture(next(model.batches(instances))[0])
    parts = [model.capture(batch) for batch, _ in model.batches(instances, batch_size=5)]
    for name, rows in whole.items():
        torch.testing.assert_close(torch.cat([p[name] for p in parts]), rows, rtol=1e-5, atol=1e-5)


def test_what_cannot_be_decoded_is_one_line(model: RoutingModel, instances: Instances) -> None:
    with pytest.raises(ConfigError, match="there is no decoding 'gredy'. Did you mean 'greedy'"):
        decode(model, instances, "gredy")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="Give 1 to 8"):
        decode(model, instances, "multistart", starts=9)
    with pytest.raises(DataError, match="no tours of 12 instances of 8 nodes"):
        replay(model, instances, torch.zeros(12, 8, dtype=torch.int64))
    with pytest.raises(DataError, match="Replay them, or give one"):
        decode(model, instances, actions=torch.arange(8).expand(12, 2, -1))
    with pytest.raises(DataError, match="not instances"):
        next(model.batches([1, 2]))
    with pytest.raises(ConfigError, match="unknown setting 'tour'. Did you mean 'tours'"):
        next(model.batches(instances, tour=False))
    with pytest.raises(SiteError, match="Did you mean 'decoder_query'"), model.patch({"decoder_qery": lambda x, _: x}):
        pass


def test_the_example_is_small() -> None:
    model, instances = example()
    assert len(instances) == 6
    assert sum(p.numel() for p in model.module.parameters()) < 10_000
