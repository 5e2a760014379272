"""The same on networks of all kinds: our own layers, a vision transformer, BERT, and a routing policy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch
from tests.graphs.conftest import crosslayer, transcoders

from elute.base.contracts import Site
from elute.graphs.attribution import attribute
from elute.graphs.downstream import onto
from elute.graphs.graph import Graph
from elute.graphs.interventions import agreement, check_edges, total_effects, true_effects
from elute.graphs.layers import Layers
from elute.graphs.outputs import Outputs
from elute.graphs.replacement import Replacement
from elute.models import tahoe_x1
from elute.models.blocks import find_sites
from elute.models.module import TorchModel
from elute.models.routing.instances import draw
from elute.models.routing.policy import begin
from elute.models.routing.settings import InstanceConfig, PolicyConfig
from elute.models.routing_policy import RoutingModel
from elute.models.vision.small import SmallViT, SmallViTConfig

WIDTH = 16


class Case(NamedTuple):
    model: TorchModel
    batch: Any
    tokens: str
    outputs: Outputs
    layers: Layers
    bounded: tuple[str, ...] = ()  # what is not linear after the layers


def seeded(make: Callable[[], Any]) -> Any:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return make()


def tahoe() -> Case:
    model, cells = tahoe_x1.example()
    seeded(lambda: [p.data.normal_(std=0.3) for p in model.module.parameters()])
    model.module.double()
    batch, _ = next(model.batches(cells, batch_size=1))
    outputs = Outputs(lambda out: out.expr_preds[0], weights={3: 1.0}, centred=False, labels={3: "CD8A"}, position=3)
    decoder = ("expression_decoder: leakyrelu",)
    return Case(model, batch, "blocks.0.hook_resid_pre", outputs, Layers.of(model.sites), decoder)


def vit() -> Case:
    net = seeded(
        lambda: SmallViT(SmallViTConfig(image_size=16, patch=8, width=WIDTH, n_layers=3, n_heads=2, hidden=24))
    )
    net.double().requires_grad_(False)
    sites = {"embedded": Site("blocks.0", "input")}
    for i in range(3):
        sites |= {f"blocks.{i}.hook_mlp_in": Site(f"blocks.{i}.mlp", "input")}
        sites |= {f"blocks.{i}.hook_mlp_out": Site(f"blocks.{i}.mlp")}
    pixels = seeded(lambda: torch.randn(1, 3, 16, 16, dtype=torch.float64))
    outputs = Outputs(lambda out: out[0, 0], weights={0: 1.0, 5: 2.0}, centred=False, position=0)
    return Case(TorchModel(net, sites), pixels, "embedded", outputs, Layers.of(sites))


def bert(attention: str) -> Case:
    transformers = pytest.importorskip("transformers")
    config = transformers.BertConfig(
        vocab_size=30, hidden_size=WIDTH, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24
    )
    config._attn_implementation = attention
    net = seeded(lambda: transformers.BertForMaskedLM(config)).double().eval().requires_grad_(False)
    words = torch.tensor([[2, 7, 9, 4, 0, 0]])
    batch = {"input_ids": words, "attention_mask": (words > 0).long()}
    sites = find_sites(net, run=lambda: net(**batch))
    model = TorchModel(net, sites, keep="attention_mask")
    outputs = Outputs(lambda out: out.logits[0, 2], most=4, position=2)
    head = ("cls.predictions.transform.transform_act_fn: gelu",)
    return Case(model, batch, "blocks.0.hook_resid_pre", outputs, Layers.of(sites), head)


def routing() -> Case:
    config = PolicyConfig(embed_dim=WIDTH, num_encoder_layers=3, num_heads=2, feedforward_hidden=24)
    model = RoutingModel(begin(config, 0).double().requires_grad_(False).eval())
    one = draw(InstanceConfig(num_instances=1, num_loc=7))
    tour = torch.tensor([[0, 3, 5, 1, 2, 6, 4]])
    batch = {"coords": one.coords.double(), "actions": tour, "ids": one.ids}
    outputs = Outputs(lambda out: out["logits"][0, 2], labels=[f"node {i}" for i in range(7)], position=3)
    bound = ("decoder.pointer: bmm", "decoder.pointer: tanh")
    return Case(model, batch, "encoder_layer_0.input", outputs, Layers.of(model.sites), bound)


CASES: dict[str, Callable[[], Case]] = {
    "tahoe": tahoe,
    "vit": vit,
    "bert, eager": lambda: bert("eager"),
    "bert, sdpa": lambda: bert("sdpa"),
    "routing": routing,
}
KINDS: dict[str, Callable[[Layers], Any]] = {
    "transcoders": lambda layers: transcoders(layers, WIDTH),
    "transcoders, skip, jumprelu": lambda layers: transcoders(layers, WIDTH, activation="jumprelu", skip=True),
    "transcoders, gated": lambda layers: transcoders(layers, WIDTH, activation="gated"),
    "clt": lambda layers: crosslayer(layers, WIDTH),
}


def taken(case: Case, kind: str) -> Replacement:
    dictionaries = KINDS[kind](case.layers)
    return Replacement.of(case.model, case.batch, dictionaries, outputs=case.outputs, tokens=case.tokens)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", CASES)
def test_edges_between_layers_are_ablations(name: str, kind: str) -> None:
    case = CASES[name]()
    replacement = taken(case, kind)
    assert replacement.not_linear == case.bounded
    graph = attribute(replacement)
    assert int(graph.of("feature").sum()) > 20
    # What bounds the outputs is followed by its gradient alone: a small step then.
    small = bool(replacement.not_linear)
    checked = check_edges(replacement, graph, most=25, factor=1 + 1e-6 if small else 0.0)
    kinds = dict(zip(graph.nodes["node_id"], graph.nodes["kind"], strict=True))
    inner = checked.filter([kinds[target] == "feature" for target in checked["target"]])
    assert inner.height > 50
    if not small:
        assert checked["difference"].max() < 1e-4
    else:
        whole = check_edges(replacement, graph, most=25)
        inner = whole.filter([kinds[target] == "feature" for target in whole["target"]])
        outer = checked.filter([kinds[target] == "logit" for target in checked["target"]])
        assert outer.height > 0
        assert (outer["edge"] - outer["measured"]).abs().max() < 1e-4 * outer["edge"].abs().max()
    assert inner["difference"].max() < 1e-4
    found = graph.scores()
    assert 0 < found.replacement < 1
    assert 0 < found.completeness < 1


@pytest.mark.parametrize("name", ["vit"])
@pytest.mark.parametrize("kind", KINDS)
def test_paths_add_up_to_what_a_change_does_through_all_features(name: str, kind: str) -> None:
    replacement = taken(CASES[name](), kind)
    graph = attribute(replacement)
    able = graph.nodes.filter(graph.of("feature"))["node_id"].to_list()[:8]
    told = total_effects(replacement, graph, [*able, "E_1_1", "0_-1_2"])
    assert told["by_paths"].to_numpy() == pytest.approx(told["measured"].to_numpy(), abs=1e-9)
    assert told["measured"].abs().max() > 1e-3


def test_padding_has_no_place_in_a_graph() -> None:
    case = bert("sdpa")
    graph = attribute(taken(case, "transcoders"))
    assert graph.n_positions == 4
    alone = {name: x[:, :4] for name, x in case.batch.items()}
    other = attribute(taken(case._replace(batch=alone), "transcoders"))
    assert graph.nodes["node_id"].to_list() == other.nodes["node_id"].to_list()
    assert abs(graph.adjacency - other.adjacency).max() < 1e-10


def test_a_models_weights_may_be_in_training() -> None:
    case = vit()
    frozen = attribute(taken(case, "clt"))
    case.model.module.requires_grad_(True).train()
    training = attribute(taken(case, "clt"))
    assert all(p.requires_grad and p.grad is None for p in case.model.module.parameters())
    assert case.model.module.training
    assert abs(frozen.adjacency - training.adjacency).max() < 1e-12


def test_single_precision_is_close_to_double() -> None:
    case = vit()
    double = attribute(taken(case, "transcoders"))
    case.model.module.float()
    small = [one.float() for one in KINDS["transcoders"](case.layers)]
    replacement = Replacement.of(
        case.model, case.batch.float(), small, outputs=case.outputs, tokens=case.tokens, layers=case.layers
    )
    single = attribute(replacement)
    assert single.nodes["node_id"].to_list() == double.nodes["node_id"].to_list()
    assert abs(single.adjacency - double.adjacency).max() < 1e-4 * abs(double.adjacency).max()
    checked = check_edges(replacement, single, most=30)
    strong = checked.filter(checked["edge"].abs() > 1e-2 * checked["edge"].abs().max())
    assert strong["difference"].max() < 1e-3


def test_without_tokens_nothing_goes_back_to_the_input() -> None:
    case = vit()
    replacement = Replacement.of(case.model, case.batch, KINDS["clt"](case.layers), outputs=case.outputs)
    graph = attribute(replacement)
    assert not graph.of("token").any()
    whole = attribute(taken(case, "clt"))
    some = np.flatnonzero(~whole.of("token"))
    assert abs(whole.adjacency.tocsr()[some][:, some] - graph.adjacency).max() < 1e-12


def test_ablation_in_the_model_itself_with_mlps_held_and_following() -> None:
    case = routing()
    replacement = taken(case, "clt")
    graph = attribute(replacement, prompt=[f"node {i}" for i in range(7)])
    live, held = (true_effects(replacement, graph, most=12, held=held) for held in (False, True))
    assert live["change"].to_list() != held["change"].to_list()
    assert live["kl"].min() >= 0
    assert set(agreement(live)) >= {"features", "change", "kl", "control_change", "change_p"}
    again = true_effects(replacement, graph, most=12)
    assert again.equals(live)
    assert not true_effects(replacement, graph, most=12, seed=1).equals(live)


def test_a_later_layers_features_are_reached_by_heads_and_channels() -> None:
    case = vit()
    replacement = taken(case, "transcoders")
    graph = attribute(replacement)
    name = graph.nodes.filter(graph.of("feature"))["node_id"][0]
    channels = onto(replacement, graph, Site("blocks.2", "input"), sources=[name])
    heads = onto(replacement, graph, Site("blocks.1.attn.proj", "input"), heads=2, sources=[name])
    assert set(heads["target"]) == {"head 0", "head 1"}
    assert set(channels["target"]) <= {f"channel {i}" for i in range(WIDTH)}
    assert (heads["weight"] > 0).all()
    # The residual stream holds what the feature writes, and what attention moves of it.
    layer, feature, position = map(int, name.split("_"))
    wrote = replacement.coders.decoder(layer, layer)[feature] * graph.nodes["activation"][int(graph.numbers([name])[0])]
    assert layer == 0
    told = dict(zip(channels["target"], channels["weight"], strict=True))
    assert np.corrcoef([told[f"channel {i}"] for i in range(WIDTH)], wrote.numpy())[0, 1] > 0.5
    assert position < graph.n_positions


def test_a_graph_is_the_same_each_time() -> None:
    def once() -> Graph:
        return attribute(taken(vit(), "clt"))

    one, other = once(), once()
    assert one.nodes.equals(other.nodes)
    assert (one.adjacency != other.adjacency).nnz == 0
