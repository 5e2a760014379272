"""Planted truth: circuits that are known are found, those of a control are not, and edges are what ablations give."""

from __future__ import annotations

import copy
from functools import cache

import numpy as np
import pytest
import torch
from scipy import sparse
from tests.graphs.planted import DEPTH, UNITS, WIDTH, Planted, exact, plant

from elute.dictionaries.dictionary import Dictionary
from elute.dictionaries.spec import DictionarySpec
from elute.graphs.attribution import attribute
from elute.graphs.graph import Graph
from elute.graphs.interventions import (
    agreement,
    check_edges,
    measured_adjacency,
    total_effects,
    true_effects,
)
from elute.graphs.layers import Layers
from elute.graphs.outputs import Outputs
from elute.graphs.replacement import Replacement
from elute.graphs.scores import scores

TOKENS = torch.tensor([[0, 3, 5, 2, 7, 1]])
STRONG = 0.2  # of a target's input
EARNEST = 5.0  # a target that fires: activations are about 20


def taken(known: Planted, coders: object = None, tokens: torch.Tensor = TOKENS) -> Replacement:
    outputs = Outputs(lambda out: out[0, -1], share=1.0)
    return Replacement.of(known.model, tokens, coders or known.transcoders, outputs=outputs, tokens="embedding")


def found(graph: Graph, *, least: float = STRONG) -> set[tuple[tuple[int, int, int], tuple[int, int, int]]]:
    """Strong edges between features, of targets that fire in earnest."""
    kind, layer, position, feature, value = (
        graph.nodes[name].to_list() for name in ("kind", "layer", "position", "feature", "value")
    )
    whole = graph.shares.tocoo()
    at = list(zip(layer, feature, position, strict=True))
    return {
        (at[j], at[i])
        for i, j, x in zip(whole.row, whole.col, whole.data, strict=True)
        if kind[i] == kind[j] == "feature" and x >= least and value[i] > EARNEST
    }


def truth(known: Planted, graph: Graph) -> set[tuple[tuple[int, int, int], tuple[int, int, int]]]:
    """Planted edges between units that fired: those at the same position, and the carried one from the one before."""
    fired = {
        (layer, feature, position): value
        for kind, layer, feature, position, value in zip(
            *(graph.nodes[name].to_list() for name in ("kind", "layer", "feature", "position", "value")), strict=True
        )
        if kind == "feature"
    }
    edges = set()
    for (layer, unit), causes in known.parents.items():
        for position in range(graph.n_positions):
            if fired.get((layer, unit, position), 0.0) <= EARNEST:
                continue
            for m, i in causes:
                carried = unit == 1 and (m, i) == (layer - 1, 0) and (m, i) not in known.direct[layer, unit]
                source = (m, i, max(0, position - 1) if carried else position)
                if fired.get(source, 0.0) > 0.5:
                    edges.add((source, (layer, unit, position)))
    return edges


@cache
def many() -> list[tuple[Planted, Graph]]:
    cases = []
    for seed in range(4):
        known = plant(seed)
        tokens = torch.randint(0, 8, (1, 6), generator=torch.Generator().manual_seed(seed))
        cases.append((known, attribute(taken(known, tokens=tokens))))
    return cases


def test_planted_edges_are_found_with_precision_and_recall() -> None:
    hits = asked = given = 0
    for known, graph in many():
        there, planted = found(graph), truth(known, graph)
        hits, asked, given = hits + len(there & planted), asked + len(planted), given + len(there)
    assert asked > 100
    assert hits / given >= 0.9
    assert hits / asked >= 0.9


def test_with_decoders_of_other_features_no_planted_edge_is_found() -> None:
    """Each feature writes what another of its layer wrote; what it now reaches is what that one reached."""
    total = wrong = 0
    for known, graph in many():
        shuffled = [copy.deepcopy(one) for one in known.transcoders]
        for one in shuffled:
            (bank,) = one
            bank.W_dec.data = bank.W_dec.data.roll(3, 0)
        tokens = known_tokens(graph)
        control = attribute(taken(known, shuffled, tokens))
        planted = {pair for pair in truth(known, graph) if not shared(known, pair)}
        wrong += len(found(control) & planted)
        total += len(planted)
        assert control.scores().replacement < 0.75 < graph.scores().replacement
    assert total > 50
    assert wrong == 0


def test_with_channels_shuffled_no_edge_between_features_is_strong() -> None:
    for known, graph in many():
        mixed = torch.randperm(WIDTH, generator=torch.Generator().manual_seed(1))
        shuffled = [copy.deepcopy(one) for one in known.transcoders]
        for one in shuffled:
            (bank,) = one
            bank.W_dec.data = bank.W_dec.data[:, mixed]
        assert not found(attribute(taken(known, shuffled, known_tokens(graph))))


def known_tokens(graph: Graph) -> torch.Tensor:
    seed = next(i for i, (_, g) in enumerate(many()) if g is graph)
    return torch.randint(0, 8, (1, 6), generator=torch.Generator().manual_seed(seed))


def shared(known: Planted, pair: tuple[tuple[int, int, int], tuple[int, int, int]]) -> bool:
    """Whether the feature whose decoder a source got acts on the same target."""
    (m, i, _), (layer, unit, _) = pair
    return (m, (i - 3) % UNITS) in known.parents[layer, unit]


def test_edges_are_ablations_and_the_scores_follow_from_them(known: Planted) -> None:
    replacement = taken(known, [rough(one) for one in known.transcoders])
    graph = attribute(replacement)
    assert max(float(e.abs().max()) for e in replacement.errors) > 0.1  # errors play a part
    checked = check_edges(replacement, graph, most=len(graph))
    assert set(checked["source"]) == set(graph.nodes.filter(~graph.of("logit"))["node_id"]) - silent(graph)
    assert checked.height == graph.adjacency.nnz
    assert checked["difference"].max() < 1e-6
    half = check_edges(replacement, graph, factor=0.5, most=20)
    assert half["difference"].max() < 1e-6
    measured = measured_adjacency(replacement, graph)
    assert abs(measured - graph.adjacency).max() < 1e-10
    ours = graph.scores()
    theirs = scores(measured, graph.weights, errors=graph.of("error"), tokens=graph.of("token"))
    assert (ours.replacement, ours.completeness) == pytest.approx((theirs.replacement, theirs.completeness), abs=1e-9)
    assert 0.3 < ours.replacement < 0.99


def silent(graph: Graph) -> set[str]:
    empty = np.flatnonzero(np.diff(graph.adjacency.tocsc().indptr) == 0)
    return set(graph.nodes["node_id"].gather(empty))


def rough(one: Dictionary) -> Dictionary:
    """A transcoder that says a part of it alone."""
    other = copy.deepcopy(one)
    (bank,) = other
    bank.W_dec.data[::3] *= 0.5
    return other


def test_an_edge_that_is_wrong_is_seen(known: Planted) -> None:
    replacement = taken(known)
    graph = attribute(replacement)
    broken = graph.adjacency.copy()
    broken.data[np.abs(broken.data).argmax()] *= 1.01
    wrong = Graph(graph.nodes, broken, graph.n_layers, graph.n_positions, graph.prompt, graph.kind)
    assert check_edges(replacement, wrong, most=len(graph))["difference"].max() > 5e-3


def test_values_are_what_causes_them_and_a_constant(known: Planted) -> None:
    replacement = taken(known)
    graph = attribute(replacement)
    added = np.asarray(graph.adjacency.sum(axis=1)).reshape(-1)
    rows = graph.of("feature", "logit")
    value, constant = (graph.nodes[name].to_numpy() for name in ("value", "constant"))
    assert value[rows] == pytest.approx((added + constant)[rows])
    nothing = {i: -replacement.y[i][replacement.rows] for i in range(DEPTH)}
    empty = replacement.live(add=nothing, start=-replacement.start[replacement.rows])
    assert empty.values.numpy() == pytest.approx(constant[graph.of("logit")], abs=1e-9)


def test_total_effects_are_the_sum_over_paths(known: Planted) -> None:
    replacement = taken(known)
    graph = attribute(replacement)
    able = graph.nodes.filter(graph.of("feature", "token"))["node_id"].to_list()
    told = total_effects(replacement, graph, able)
    assert told.height == len(able) * int(graph.of("logit").sum())
    assert told["measured"].to_numpy() == pytest.approx(told["by_paths"].to_numpy(), abs=1e-9)
    assert told["measured"].abs().max() > 1


def test_influence_tells_what_matters_to_the_network_itself(known: Planted) -> None:
    replacement = taken(known)
    graph = attribute(replacement)
    table = true_effects(replacement, graph, most=60)
    told = agreement(table)
    assert told["features"] == min(60, int(((graph.influence > 0) & graph.of("feature")).sum()))
    assert told["change"] > 0.6
    assert told["change"] > told["control_change"]
    assert told["within"] > 0.6
    assert told["within"] > told["control_within"] + 0.1
    # By hand: a feature's direct write taken off in a forward of the network.
    name = table["node_id"][0]
    layer, unit, position = map(int, name.split("_"))
    net = known.model.module
    row = graph.numbers([name])[0]
    write = net.blocks[layer].mlp[2].weight[:, unit] * graph.nodes["activation"][int(row)]

    def without(_: object, __: object, out: torch.Tensor) -> torch.Tensor:
        out = out.clone()
        out[0, position] -= write
        return out

    handle = net.blocks[layer].mlp.register_forward_hook(without)
    after = net(TOKENS)[0, -1]
    handle.remove()
    moved = (after - net(TOKENS)[0, -1]).double()
    ids = list(replacement.chosen.ids)
    moved = (moved - moved.mean())[ids].abs()
    weights = torch.tensor(replacement.chosen.weights, dtype=torch.float64)
    assert table["change"][0] == pytest.approx(float((weights * moved).sum() / weights.sum()))


def test_the_most_influential_features_come_first(known: Planted) -> None:
    replacement = taken(known)
    whole = attribute(replacement)
    small = attribute(replacement, max_features=40)
    n = int(whole.of("feature").sum())
    assert small.left_out.features == n - 40
    kept = set(small.nodes.filter(small.of("feature"))["node_id"])
    numbers = whole.numbers(sorted(kept))
    lost = whole.of("feature")
    lost[numbers] = False
    share = whole.influence[lost].sum() / whole.influence[whole.of("feature")].sum()
    assert share < 0.05
    assert small.left_out.share == pytest.approx(share, abs=0.03)
    at = np.concatenate([numbers, np.flatnonzero(~whole.of("feature"))])
    order = small.numbers(whole.nodes["node_id"].gather(at))
    same = small.adjacency.tocsr()[order][:, order] - whole.adjacency.tocsr()[at][:, at]
    assert abs(same).max() < 1e-12
    assert check_edges(replacement, small, most=200)["difference"].max() < 1e-6


def test_batches_of_gradients_make_no_difference(known: Planted) -> None:
    replacement = taken(known)
    one, other = attribute(replacement, batch=1), attribute(replacement, batch=1000)
    assert abs(one.adjacency - other.adjacency).max() < 1e-12


def test_a_cross_layer_transcoder_of_exact_ones_is_the_same_graph(known: Planted) -> None:
    clt = joined(known)
    own, other = attribute(taken(known)), attribute(taken(known, clt))
    assert other.kind == "clt"
    assert own.nodes["node_id"].to_list() == other.nodes["node_id"].to_list()
    assert abs(own.adjacency - other.adjacency).max() < 1e-10


def joined(known: Planted) -> Dictionary:
    """All transcoders as one dictionary; what a layer writes into later ones is zero."""
    layers = Layers.of(known.model.sites)
    spec = DictionarySpec(
        kind="clt",
        reads=dict.fromkeys(layers.reads, WIDTH),
        writes=dict.fromkeys(layers.writes, WIDTH),
        n_features=UNITS,
        activation="relu",
        k=1,
    )
    clt = Dictionary(spec).double()
    for bank, one in zip(clt, known.transcoders, strict=True):
        (own,) = one
        for name in ("W_enc", "b_enc"):
            getattr(bank, name).data.copy_(getattr(own, name))
        bank.W_dec.data[:, :WIDTH] = own.W_dec
    clt.b_dec.data = torch.cat([one.b_dec for one in known.transcoders])
    return clt.requires_grad_(False).eval()


def test_a_feature_that_writes_in_two_layers_takes_one_step(known: Planted) -> None:
    """A unit of layer 1 that does what one of layer 0 does is one feature of a cross-layer transcoder."""
    fresh = plant(0, noise=0.0)
    net = fresh.model.module
    first = net.blocks[0].mlp[0]
    again, _, then = net.blocks[1].mlp
    again.weight[0], again.bias[0] = first.weight[0], first.bias[0]
    net.blocks[0].norm, net.blocks[1].norm = torch.nn.Identity(), torch.nn.Identity()
    per_layer = [exact(net.blocks[i], i) for i in range(DEPTH)]
    clt = joined(Planted(fresh.model, per_layer, {}, {}, {}))
    clt.banks[0].W_dec.data[0, WIDTH : 2 * WIDTH] = then.weight[:, 0]
    clt.banks[1].W_dec.data[0] = 0.0
    tokens = TOKENS
    replacement = taken(fresh, clt, tokens)
    assert max(float(e.abs().max()) for e in replacement.errors) < 1e-9
    graph = attribute(replacement)
    assert check_edges(replacement, graph, most=len(graph))["difference"].max() < 1e-6


def test_the_matrix_is_sparse_and_the_order_is_that_of_files(known: Planted) -> None:
    graph = attribute(taken(known))
    assert sparse.issparse(graph.adjacency)
    kinds = graph.nodes["kind"].to_list()
    assert kinds == sorted(kinds, key=["feature", "error", "token", "logit"].index)
    errors = graph.nodes.filter(graph.of("error"))
    n = graph.n_positions
    assert [(a * n + b) for a, b in zip(errors["layer"], errors["position"], strict=True)] == list(range(DEPTH * n))
    assert graph.nodes["node_id"].is_unique().all()
