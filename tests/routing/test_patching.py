"""Layers are replaced by what stands for them, what is measured is what it says, and nothing is done twice."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from tests.routing.trained import (  # noqa: F401
    CLT,
    FIRST,
    LAYERS,
    MLP,
    NAMES,
    SMALL,
    STEPS,
    own_trained,
    subject_of,
    train_tiny,
    trained_model,
    trained_reference,
    trained_run,
)
from torch import Tensor

from elute.base.errors import ConfigError, DataError, GuardError
from elute.models.routing.decoding import decode, replay
from elute.models.routing_policy import RoutingModel, load
from elute.routing import linear_map, replacing
from elute.routing.cause_inputs import cut, find_dictionary, held_out, open_subject, pairs_of
from elute.routing.cause_settings import PatchConfig
from elute.routing.decoder_pairs import Beside
from elute.routing.intervals import differences, means, verdict
from elute.routing.measuring import METRICS, Reference, along, divergence, effect, margins
from elute.routing.pairs import open_pair
from elute.routing.patch_beside import beside
from elute.routing.patching import ARMS, EXACT, OURS, arms, captured, groups, patch_run, show

pytestmark = pytest.mark.usefixtures("one_thread")


def states(net: RoutingModel, coords: Tensor) -> list[dict[str, Tensor]]:
    """Layer by layer through the policy's modules, without hooks."""
    h = net.policy.init_embed(coords)
    found = []
    for layer in net.policy.encoder.layers:
        u = layer.norm1(h + layer.attention(h))
        told = {"input": h, "mlp.input": u, "mlp": layer.mlp(u)}
        h = layer.norm2(u + told["mlp"])
        found.append({**told, "output": h})
    return found


def logits_of(net: RoutingModel, h: Tensor, actions: Tensor) -> Tensor:
    return net.policy.along(net.policy.decoder.prepare(h), actions)


# --- the error term


finite = st.floats(-(2.0**100), 2.0**100, width=32, allow_subnormal=False)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.tuples(finite, finite), min_size=1, max_size=8))
def test_the_error_term_gives_back_every_bit(pairs: list[tuple[float, float]]) -> None:
    y_hat, y = torch.tensor(pairs, dtype=torch.float32).unbind(-1)
    assert torch.equal(replacing.with_error(y_hat, y), y)


def test_a_plain_difference_would_not_give_back_every_bit() -> None:
    y_hat, y = torch.tensor([1.0]), torch.tensor([1e-9])
    assert not torch.equal(y_hat + (y - y_hat), y)
    assert torch.equal(replacing.with_error(y_hat, y), y)


@pytest.mark.parametrize("name", NAMES)
def test_with_its_error_term_a_policy_is_what_it_was(
    trained: Path, model: RoutingModel, ref: Reference, name: str
) -> None:
    subject = subject_of(trained, model, name)
    exact = effect(model, ref, replacing.edits([replacing.reconstruction(subject, error=True)]))
    plain = effect(model, ref, replacing.edits([replacing.reconstruction(subject)]))
    assert exact.identical
    assert float(exact.kl.abs().max()) == 0
    assert not plain.identical
    assert float(plain.kl.min()) > 0


def test_all_layers_at_once_with_their_error_terms(trained: Path, model: RoutingModel, ref: Reference) -> None:
    subjects = [subject_of(trained, model, name) for name in (NAMES[0], MLP)]
    one = replacing.edits([replacing.reconstruction(s, error=True) for s in subjects])
    assert effect(model, ref, one).identical


# --- what stands in the place of a layer, by hand


def test_a_layer_is_what_the_dictionary_makes_of_an_earlier_one(
    trained: Path, model: RoutingModel, ref: Reference
) -> None:
    subject = subject_of(trained, model, LAYERS)
    h0 = states(model, ref.instances.coords)[0]["output"]
    h2 = subject.dictionary(h0.reshape(-1, 16)).view(h0.shape)
    by_hand = logits_of(model, h2, ref.actions)
    found = along(model, ref, replacing.edits([replacing.reconstruction(subject)]))
    assert torch.allclose(found, by_hand, atol=1e-4)


def test_two_replaced_layers_follow_each_other(trained: Path, model: RoutingModel, ref: Reference) -> None:
    one, two = (subject_of(trained, model, name) for name in (NAMES[0], MLP))
    h = model.policy.init_embed(ref.instances.coords)
    for i, layer in enumerate(model.policy.encoder.layers):
        u = layer.norm1(h + layer.attention(h))
        dictionary = {0: one, 1: two}.get(i)
        mlp = layer.mlp(u) if dictionary is None else dictionary.dictionary(u.reshape(-1, 16)).view(u.shape)
        h = layer.norm2(u + mlp)
    found = along(model, ref, replacing.edits([replacing.reconstruction(s) for s in (one, two)]))
    assert torch.allclose(found, logits_of(model, h, ref.actions), atol=1e-4)


def test_a_cross_layer_dictionary_writes_each_layer_from_what_was_read_by_then(
    trained: Path, model: RoutingModel, ref: Reference
) -> None:
    subject = subject_of(trained, model, CLT)
    h, read = model.policy.init_embed(ref.instances.coords), {}
    for i, layer in enumerate(model.policy.encoder.layers):
        u = layer.norm1(h + layer.attention(h))
        read[f"source_encoder_layer_{i}.mlp.input"] = u.reshape(-1, 16)
        y = torch.zeros(len(u.reshape(-1, 16)), 16) + subject.dictionary.b_dec[16 * i : 16 * (i + 1)]
        for j, bank in enumerate(subject.dictionary):
            if j <= i:
                pre = read[f"source_encoder_layer_{j}.mlp.input"] @ bank.W_enc.T + bank.b_enc
                codes = torch.where(pre > bank.log_threshold.exp(), pre, 0.0)
                y += codes @ bank.W_dec[:, 16 * (i - j) : 16 * (i - j + 1)]
        h = layer.norm2(u + y.view(u.shape))
    found = along(model, ref, replacing.edits([replacing.reconstruction(subject)]))
    assert torch.allclose(found, logits_of(model, h, ref.actions), atol=1e-3)


def test_the_simpler_arms_are_what_they_say(trained: Path, model: RoutingModel, ref: Reference) -> None:
    subject = subject_of(trained, model, LAYERS)
    (group,) = groups([subject], together=True)
    x, y, _ = open_pair(trained, LAYERS).read("train")
    W, *_ = np.linalg.lstsq(np.c_[x.double(), np.ones(len(x))], y.double().numpy(), rcond=None)
    seen = states(model, ref.instances.coords)
    h0, h2 = seen[0]["output"], seen[2]["output"]
    expected = {
        "linear map": (h0.double() @ torch.from_numpy(W[:-1]) + torch.from_numpy(W[-1])).float(),
        "passed through": h0,
        "mean": y.mean(0).expand_as(h2),
        "another instance's": h2.roll(1, 0),
    }
    clean = captured(model, ref, group.sites)
    found = arms(group, clean, ref.instances.nodes)
    assert tuple(found) == ARMS
    for name, h in expected.items():
        got = along(model, ref, replacing.edits(found[name]))
        assert torch.allclose(got, logits_of(model, h, ref.actions), atol=2e-3), name


def test_a_part_that_is_passed_through_adds_nothing(trained: Path, model: RoutingModel, ref: Reference) -> None:
    subject = subject_of(trained, model, MLP)
    h = model.policy.init_embed(ref.instances.coords)
    for i, layer in enumerate(model.policy.encoder.layers):
        u = layer.norm1(h + layer.attention(h))
        h = layer.norm2(u if i == 1 else u + layer.mlp(u))
    found = along(model, ref, replacing.edits([replacing.passed_through(subject)]))
    assert torch.allclose(found, logits_of(model, h, ref.actions), atol=1e-4)


def test_a_query_is_replaced_step_by_step_as_along_a_tour(trained: Path, model: RoutingModel, ref: Reference) -> None:
    """Decoding goes step by step, a replay takes all at once: along the tours that were decoded both are one."""
    subject = subject_of(trained, model, STEPS)
    edits = replacing.edits([replacing.reconstruction(subject)])
    with model.patch(edits):
        tours = decode(model, ref.instances, batch_size=len(ref.instances))
        logits = replay(model, ref.instances, tours.actions, batch_size=len(ref.instances))
    chosen = logits.argmax(-1)
    assert torch.equal(chosen[:, 1:], tours.actions[:, 1:])
    h = states(model, ref.instances.coords)[2]["output"]
    stand = ref.actions[:, :-1]
    by_hand = subject.dictionary(h.gather(1, stand[..., None].expand(-1, -1, 16)).reshape(-1, 16)).view(
        *stand.shape, 16
    )
    nodes = model.policy.decoder.prepare(h)
    place = ref.actions.argsort(-1)
    barred = torch.zeros(*ref.actions.shape, ref.actions.shape[1])
    barred.masked_fill_(place[:, None] < torch.arange(ref.actions.shape[1])[:, None], -torch.inf)
    expected = model.policy.decoder.pointer(by_hand, nodes, barred[:, 1:])
    assert torch.allclose(along(model, ref, edits)[:, 1:], expected, atol=1e-4)


def test_nodes_beside_steps(model: RoutingModel, ref: Reference) -> None:
    import polars as pl

    h = torch.arange(2 * 3 * 4, dtype=torch.float32).view(2, 3, 4)
    frame = pl.DataFrame(
        {"sample_id": ["a"] * 3 + ["b"] * 3, "position": [0, 1, 2] * 2, "current": [-1, 2, 0, -1, 1, 2]}
    )
    one, kept = Beside({"x": 4})({"x": h.view(6, 4)}, rows=6, metadata=frame)
    assert kept.tolist() == [False, True, True] * 2
    assert torch.equal(one["x"], torch.stack([h[0, 2], h[0, 0], h[1, 1], h[1, 2]]))
    both, _ = Beside({"x": 8})({"x": h.view(6, 4)}, rows=6, metadata=frame)
    assert torch.equal(both["x"][:, 4:], torch.stack([h[0, 2], h[0, 2], h[1, 1], h[1, 1]]))


def test_one_layer_is_not_replaced_twice(trained: Path, model: RoutingModel) -> None:
    subject = subject_of(trained, model, MLP)
    with pytest.raises(ConfigError, match="would be replaced twice"):
        replacing.edits([replacing.reconstruction(subject)] * 2)


def test_the_linear_map_is_least_squares_on_training_rows_alone(trained: Path) -> None:
    pair = open_pair(trained, LAYERS)
    from elute.dictionaries.files import load_dictionary

    spec = load_dictionary(find_dictionary(trained, LAYERS)).spec
    x, y, _ = pair.read("train")
    W, *_ = np.linalg.lstsq(np.c_[x.double(), np.ones(len(x))], y.double().numpy(), rcond=None)
    found = linear_map.fit(pair.store, spec)["target_encoder_layer_2"]
    assert np.allclose(found.weight, W[:-1], atol=1e-3)
    assert np.allclose(found.mean, y.mean(0), atol=1e-4)


def test_a_map_of_several_layers_reads_none_that_come_later(trained: Path) -> None:
    from elute.dictionaries.files import load_dictionary

    spec = load_dictionary(find_dictionary(trained, CLT)).spec
    maps = linear_map.fit(open_pair(trained, CLT).store, spec)
    assert [len(one.reads) for one in maps.values()] == [1, 2, 3]


# --- what is measured


def test_divergence_is_that_of_scipy() -> None:
    rng = np.random.default_rng(0)
    p, q = (rng.dirichlet(np.ones(5), 7) for _ in range(2))
    p[:, 2] = 0
    p /= p.sum(1, keepdims=True)
    q[:, 2] = 0
    q /= q.sum(1, keepdims=True)
    with np.errstate(divide="ignore"):
        found = divergence(torch.from_numpy(np.log(p)), torch.from_numpy(np.log(q)))
    assert np.allclose(found, [stats.entropy(a, b) for a, b in zip(p, q, strict=True)])


def test_margins_by_hand() -> None:
    inf = torch.inf
    logits = torch.tensor([[[3.0, -inf, -inf], [-inf, 2.0, 5.0], [-inf, -inf, 1.0]]])
    actions = torch.tensor([[0, 1, 2]])
    choice = torch.isfinite(logits).sum(-1) > 1
    runner = torch.tensor([[0, 2, 2]])
    assert margins(logits, actions, runner_up=runner, choice=choice).tolist() == [-3.0]


def test_an_effect_by_hand(model: RoutingModel, ref: Reference) -> None:
    """A logit table that is known: what the patched policy thinks is read off it."""
    edits = {"encoder_layer_1.mlp": lambda x, _: x * 0.5}
    found = effect(model, ref, edits)
    with model.patch(edits):
        logits = replay(model, ref.instances, ref.actions, batch_size=len(ref.instances)).double()
        tours = decode(model, ref.instances, batch_size=len(ref.instances))
    n = ref.instances.nodes
    for i in range(4):
        kls, same = [], []
        for step in range(1, n - 1):  # the first node is given, the last one left over
            left = [v for v in range(n) if v not in ref.actions[i, :step].tolist()]
            p = ref.log_probs[i, step, left].exp().numpy()
            q = torch.softmax(logits[i, step, left], -1).numpy()
            kls.append(stats.entropy(p, q))
            same.append(int(p.argmax()) == int(q.argmax()))
        assert float(found.kl[i]) == pytest.approx(np.mean(kls), rel=1e-6)
        assert float(found.agreement[i]) == pytest.approx(np.mean(same))
    assert torch.allclose(found.drift, tours.lengths / ref.lengths - 1)
    assert not found.identical


# --- intervals


def test_means_have_the_interval_of_a_plain_bootstrap() -> None:
    rng = np.random.default_rng(1)
    values = rng.exponential(size=(200, 2))
    (one, _) = means(values, resamples=2000, seed=0)
    drawn = np.random.default_rng(5).integers(0, 200, (4000, 200))
    low, high = np.quantile(values[:, 0][drawn].mean(1), [0.025, 0.975])
    assert one.mean == pytest.approx(values[:, 0].mean())
    assert (one.low, one.high) == (pytest.approx(low, abs=0.02), pytest.approx(high, abs=0.02))


def test_a_difference_is_paired() -> None:
    rng = np.random.default_rng(2)
    hard = rng.normal(0, 10, 100)
    columns = np.stack([hard + 0.1 + rng.normal(0, 0.05, 100), hard], 1)
    (apart,) = differences(columns, [(0, 1)], resamples=500, seed=0)
    (alone,) = means(columns[:, :1], resamples=500, seed=0)
    assert 0.08 < apart.low < apart.high < 0.12
    assert alone.high - alone.low > 1
    assert verdict(apart) == "worse"
    assert verdict(apart, less_is_better=False) == "better"


def test_without_a_difference_the_interval_holds_nothing_as_often_as_it_says() -> None:
    rng = np.random.default_rng(3)
    hits = 0
    for trial in range(150):
        shared = rng.exponential(size=60)
        columns = np.stack([shared + rng.normal(0, 1, 60), shared + rng.normal(0, 1, 60)], 1)
        (apart,) = differences(columns, [(0, 1)], resamples=200, seed=trial)
        hits += verdict(apart) == "not told apart"
    assert 0.88 <= hits / 150 <= 0.99


# --- the whole


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file() and p.name != ".lock"}


def test_a_run_is_patched_once_and_ends_with_the_same_bytes(own: Path) -> None:
    first = patch_run(own, [NAMES[0], MLP, STEPS], SMALL)
    told = first.summary["pairs"]
    assert set(told) == {NAMES[0], MLP, STEPS, "together_mlp"}
    for part in told.values():
        assert part["identical_with_error"]
        assert part["arms"][EXACT]["kl"] == {"mean": 0.0, "low": 0.0, "high": 0.0}
        assert set(part["arms"][OURS]) == set(METRICS)
    output = own / "clt" / "patch"
    before = contents(output)
    stamps = {p: p.stat().st_mtime_ns for p in output.glob("*/per_instance.parquet")}
    (output / MLP / "run.json").unlink()  # as if it had been killed before the end
    again = patch_run(own, [NAMES[0], MLP, STEPS], SMALL)
    assert contents(output) == before
    changed = {p.parent.name for p, stamp in stamps.items() if p.stat().st_mtime_ns != stamp}
    assert changed == {MLP}
    assert json.dumps(again.summary) == json.dumps(first.summary)
    text = show({**first.summary, "path": str(first.path)})
    assert "linear map" in text
    page = (output / "index.html").read_text()
    assert "<script" not in page
    assert MLP in page


def test_the_table_says_what_the_means_are_of(own: Path) -> None:
    import polars as pl

    told = patch_run(own, [MLP], SMALL, config=PatchConfig(together=False)).summary["pairs"]
    assert set(told) == {MLP}
    table = pl.read_parquet(own / "clt" / "patch" / MLP / "per_instance.parquet")
    assert table.height == SMALL.instances * len(ARMS)
    mine = table.filter(pl.col("arm") == OURS)["kl"].mean()
    assert told[MLP]["arms"][OURS]["kl"]["mean"] == pytest.approx(mine, rel=1e-5)
    apart = told[MLP]["differences"]["mean"]["kl"]["mean"]
    other = table.filter(pl.col("arm") == "mean")["kl"].mean()
    assert apart == pytest.approx(mine - other, rel=1e-4)


def test_dictionaries_of_the_same_layers_are_held_against_each_other(own: Path) -> None:
    import polars as pl

    told = patch_run(own, [NAMES[0], MLP, CLT, LAYERS], SMALL).summary
    assert told["same_layers"] == []  # two feed-forward parts of three are not all
    one, other = (pl.read_parquet(own / "clt" / "patch" / name / "per_instance.parquet") for name in (MLP, NAMES[0]))
    parts = [{"pair": name, "writes": ["x"]} for name in (MLP, NAMES[0])]
    (apart,) = beside(own / "clt" / "patch", parts, table="per_instance.parquet", arm=OURS, judged=SMALL)
    means_of = [frame.filter(pl.col("arm") == OURS)["kl"].mean() for frame in (one, other)]
    assert apart["kl"]["mean"] == pytest.approx(means_of[0] - means_of[1], rel=1e-4)


def test_of_two_pairs_that_write_one_layer_the_nearer_stands_with_the_others(
    trained: Path, model: RoutingModel
) -> None:
    subjects = [subject_of(trained, model, name) for name in (LAYERS, FIRST, NAMES[0], CLT, STEPS)]
    found = {group.name: [s.pair for s in group.subjects] for group in groups(subjects, together=True)}
    assert found["together_layers"] == [LAYERS, FIRST]
    assert "together_mlp" not in found  # one alone is there by itself


def test_parts_of_a_batch_are_never_of_one(trained: Path) -> None:
    instances = held_out(trained, SMALL.model_copy(update={"instances": 21}))
    sizes = [len(part) for part in cut(instances, 10)]
    assert sum(sizes) == 21
    assert min(sizes) > 1
    ids = list(itertools.chain.from_iterable(part.ids for part in cut(instances, 2)))
    assert ids == list(instances.ids)


# --- refusals


def test_instances_of_the_pair_are_refused(trained: Path) -> None:
    with pytest.raises(ConfigError, match="instances are among those of its rows.*--instance-seed"):
        held_out(trained, SMALL.model_copy(update={"instance_seed": 0}), pairs=[open_pair(trained, MLP)])


def test_a_dictionary_that_is_not_there(trained: Path, own: Path) -> None:
    with pytest.raises(DataError, match="there is no dictionary of 'clt_L1_mlp'.*Did you mean"):
        find_dictionary(trained, "clt_L1_mlp")
    with pytest.raises(DataError, match="there is no run 'yesterday'"):
        find_dictionary(trained, MLP, "yesterday")
    (own / "clt" / "clt_runs" / MLP / "latest").unlink()
    assert find_dictionary(own, MLP).name == "20260101_000000"
    (own / "clt" / "clt_runs" / MLP / "20260101_000000" / "sae_final.pt").unlink()
    with pytest.raises(DataError, match="no training has ended here"):
        find_dictionary(own, MLP)
    assert MLP not in pairs_of(own)


def test_a_dictionary_of_another_policy_is_refused(trained: Path) -> None:
    other = load(trained, checkpoint=0, device="cpu")
    with pytest.raises(GuardError, match="has other weights.*generalise"):
        open_subject(trained, MLP, model=other)
    assert open_subject(trained, MLP, model=other, other_policy=True).pair == MLP


def test_the_run_of_one_pair_is_not_that_of_two(trained: Path) -> None:
    with pytest.raises(ConfigError, match="is the run of one pair"):
        patch_run(trained, [MLP, LAYERS], SMALL, clt_run="20260101_000000")


def test_no_dictionary_at_all(tiny_run: Path) -> None:
    with pytest.raises(ConfigError, match="there is no dictionary of any pair"):
        patch_run(tiny_run, [], SMALL)


def test_another_dictionary_is_patched_anew(own: Path) -> None:
    first = patch_run(own, [MLP], SMALL).summary["pairs"][MLP]
    train_tiny(own, MLP, steps=40, seed=1, folder="20260102_000000")
    second = patch_run(own, [MLP], SMALL).summary["pairs"][MLP]
    assert first["arms"][OURS] != second["arms"][OURS]
    assert first["arms"]["mean"] == second["arms"]["mean"]
