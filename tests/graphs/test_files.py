"""Graph files: in the others' schema, whole, read back as they were; hostile ones are refused in one line."""

from __future__ import annotations

import copy
import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import networkx as nx
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.graphs.planted import Planted, plant

from elute.base.errors import ConfigError, DamagedError, DataError, EluteError
from elute.graphs.attribution import attribute
from elute.graphs.export import About, as_content, slugged, write_edges, write_graph, write_graphml
from elute.graphs.graph import Graph
from elute.graphs.outputs import Outputs
from elute.graphs.read import read_graph
from elute.graphs.replacement import Replacement
from elute.graphs.schema import cantor, check_graph_file, faults, uncantor
from elute.graphs.supernodes import Supernode, edge_likeness, group

NASTY = '</script>"&\x00\n=HYPERLINK("x") ☃'


@pytest.fixture(scope="module")
def replacement() -> Replacement:
    known: Planted = plant()
    outputs = Outputs(lambda out: out[0, -1], labels={0: "zero", 2: NASTY}, share=0.999999)
    tokens = torch.tensor([[0, 3, 5, 2]])
    return Replacement.of(known.model, tokens, known.transcoders, outputs=outputs, tokens="embedding")


@pytest.fixture(scope="module")
def whole(replacement: Replacement) -> Graph:
    return attribute(replacement, prompt=["a", "b", NASTY, "d"], ids=[7, 7, 30, 2])


@pytest.fixture(scope="module")
def small(whole: Graph) -> Graph:
    return whole.kept(whole.prune(nodes=0.98, edges=0.9999))


def about(graph: Graph, slug: str = "tour-1") -> About:
    names = graph.nodes.filter(graph.of("feature"))["node_id"].to_list()
    return About(
        slug,
        scan="tsp20",
        transcoders=("a", "b"),
        labels={names[0]: NASTY},
        pinned=(names[0],),
        supernodes=(Supernode("both", (names[0], names[1])),),
        info={"network": "planted"},
    )


def test_every_node_is_named_as_others_name_it(small: Graph, whole: Graph) -> None:
    content = as_content(small, about(small), whole.prune())
    by_kind = {kind: [n for n in content["nodes"] if n["feature_type"] == kind] for kind in KINDS}
    assert all(by_kind[kind] for kind in KINDS if kind != "mlp reconstruction error")
    for node in by_kind["cross layer transcoder"]:
        layer, feature, position = map(int, node["node_id"].split("_"))
        assert node["layer"] == str(layer)
        assert node["ctx_idx"] == position
        assert node["feature"] == (layer + feature) * (layer + feature + 1) // 2 + feature
        assert node["jsNodeId"] == f"{layer}_{feature}-0"
        assert node["activation"] > 0
        assert 0 < node["influence"] <= 1
    for position, node in enumerate(by_kind["embedding"]):
        vocabulary = [7, 7, 30, 2][position]
        assert node["node_id"] == f"E_{vocabulary}_{position}"
        assert node["jsNodeId"] == f"E_{vocabulary}-{position}"
        assert (node["feature"], node["layer"], node["ctx_idx"]) == (position, "E", position)
    for node in by_kind["logit"]:
        assert node["node_id"] == f"4_{node['feature']}_3"
        assert node["jsNodeId"] == f"L_{node['feature']}-3"
        assert (node["layer"], node["influence"], node["activation"]) == ("4", None, None)
        assert f"(p={node['token_prob']:.3f})" in node["clerp"]
        assert node["clerp"].startswith('Output "')
    assert sum(node["is_target_logit"] for node in by_kind["logit"]) == 1
    everything = as_content(whole, About("whole"))
    errors = [n for n in everything["nodes"] if n["feature_type"] == "mlp reconstruction error"]
    assert [n["node_id"] for n in errors] == [f"{layer}_-1_{p}" for layer in range(3) for p in range(4)]
    assert {n["feature"] for n in errors} == {-1}
    assert list(faults(everything)) == []
    metadata = content["metadata"]
    assert metadata["node_threshold"] == 0.8
    assert metadata["schema_version"] == 1
    assert metadata["prompt_tokens"] == ["a", "b", NASTY, "d"]


KINDS = ("cross layer transcoder", "mlp reconstruction error", "embedding", "logit")


def test_circuit_tracers_own_model_takes_our_file(small: Graph, whole: Graph, tmp_path: Path) -> None:
    models = pytest.importorskip("circuit_tracer.frontend.graph_models")
    path = write_graph(tmp_path, small, about(small), pruned=whole.prune())
    held = models.Model.model_validate_json(path.read_text())
    assert len(held.nodes) == len(small)
    assert len({node.node_id for node in held.nodes}) == len(small)
    for node in held.nodes:
        position = node.ctx_idx
        if node.feature_type == "cross layer transcoder":
            layer, feature, _ = map(int, node.node_id.split("_"))
            peer = models.Node.feature_node(layer, position, feature, node.influence, node.activation)
        elif node.feature_type == "embedding":
            peer = models.Node.token_node(position, int(node.node_id.split("_")[1]), node.influence)
        elif node.feature_type == "logit":
            peer = models.Node.logit_node(position, node.feature, "x", 3, node.is_target_logit, node.token_prob)
        else:
            peer = models.Node.error_node(int(node.layer), position, node.influence)
            assert (peer.feature, peer.layer) == (node.feature, node.layer)
            continue
        assert peer.model_dump(exclude={"clerp"}) == node.model_dump(exclude={"clerp"})


def test_what_is_written_is_read_back(small: Graph, whole: Graph, tmp_path: Path) -> None:
    path = write_graph(tmp_path, small, about(small), pruned=whole.prune())
    assert path.read_bytes() == write_graph(tmp_path, small, about(small), pruned=whole.prune()).read_bytes()
    held = read_graph(path)
    for name in ("node_id", "kind", "layer", "position", "feature", "activation", "weight"):
        assert held.graph.nodes[name].to_list() == small.nodes[name].to_list(), name
    assert abs(held.graph.adjacency - small.adjacency).max() == 0
    assert held.graph.influence == pytest.approx(small.influence)
    assert (held.graph.n_layers, held.graph.n_positions, held.graph.prompt) == (3, 4, small.prompt)
    assert held.graph.scores() == small.scores()
    assert held.pinned == about(small).pinned
    assert held.supernodes == about(small).supernodes
    assert held.labels[held.pinned[0]] == NASTY
    assert held.metadata["info"]["network"] == "planted"


def test_the_folders_list_holds_each_graph_once(small: Graph, tmp_path: Path) -> None:
    for slug in ("b", "a", "b"):
        write_graph(tmp_path, small, about(small, slug))
    listed = json.loads((tmp_path / "graph-metadata.json").read_text())["graphs"]
    assert [one["slug"] for one in listed] == ["a", "b"]
    assert set(listed[0]) >= {"slug", "scan", "transcoder_list", "prompt_tokens", "prompt"}
    (tmp_path / "graph-metadata.json").write_text("[]")
    with pytest.raises(DataError, match="is not a list of graphs"):
        write_graph(tmp_path, small, about(small))


@pytest.mark.parametrize("slug", ["../x", "", "a/b", "a" * 101, ".hidden", "graph-metadata"])
def test_a_slug_names_a_file(small: Graph, tmp_path: Path, slug: str) -> None:
    with pytest.raises(ConfigError, match="slug"):
        write_graph(tmp_path, small, About(slug))
    assert not list(tmp_path.iterdir())
    assert slugged(["Tour", f"3! {slug}"]).startswith("tour-3")


def test_csv_and_graphml(small: Graph, tmp_path: Path) -> None:
    path = write_edges(tmp_path / "edges.csv", small, labels=about(small).labels)
    with path.open(newline="") as handle:
        rows = list(csv.DictReader(handle))
    assert len(rows) == small.adjacency.nnz
    scores = [float(row["score"]) for row in rows]
    assert scores == sorted(scores, reverse=True)
    ids = small.nodes["node_id"].to_list()
    for row in rows[:10]:
        assert float(row["weight"]) == small.adjacency[ids.index(row["target"]), ids.index(row["source"])]
    assert not any(row[f"{end}_label"][:1] in ("=", "+", "-", "@") for row in rows for end in ("source", "target"))
    strong = write_edges(tmp_path / "strong.csv", small, least=0.3)
    with strong.open(newline="") as handle:
        few = list(csv.DictReader(handle))
    assert 0 < len(few) < len(rows)
    assert min(float(row["share"]) for row in few) >= 0.3
    graph = nx.read_graphml(write_graphml(tmp_path / "g.graphml", small, labels=about(small).labels))
    assert set(graph.nodes) == set(ids)
    assert graph.number_of_edges() == small.adjacency.nnz
    source, target, data = next(iter(graph.edges(data=True)))
    assert data["weight"] == small.adjacency[ids.index(target), ids.index(source)]
    assert graph.nodes[about(small).pinned[0]]["label"].startswith("</script>")


def changed(content: dict[str, Any], change: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
    other = copy.deepcopy(content)
    change(other)
    return other


BROKEN: list[tuple[Callable[[dict[str, Any]], object], str]] = [
    (lambda c: c.pop("links"), "links is missing"),
    (lambda c: c.update(nodes={}), "nodes is a dict"),
    (lambda c: c["nodes"].append(c["nodes"][0]), "stands there twice"),
    (lambda c: c["nodes"].append(7), r"node \d+ is no object"),
    (lambda c: c["nodes"][0].update(layer=0), "layer is 0"),
    (lambda c: c["nodes"][0].update(layer="-1"), "has layer '-1'"),
    (lambda c: c["nodes"][0].update(layer="9" * 400), "has layer '999"),
    (lambda c: c["nodes"][0].update(feature=None), "feature is None"),
    (lambda c: c["nodes"][0].update(feature=True), "feature is True"),
    (lambda c: c["nodes"][0].update(feature=10**30), "has ctx_idx"),
    (lambda c: c["nodes"][0].update(ctx_idx=-3), "has ctx_idx -3"),
    (lambda c: c["nodes"][0].update(feature_type="x"), "unknown feature_type 'x'"),
    (lambda c: c["nodes"][0].update(activation="1"), "activation is no number"),
    (lambda c: c["nodes"][0].update(node_id="a" * 20_000), "text of 20,000 signs"),
    (lambda c: c["nodes"][-1].update(clerp="five"), r"has no \(p=…\)"),
    (lambda c: c["nodes"][-1].update(token_prob=float("inf")), "token_prob is no number"),
    (lambda c: c["links"].append({"source": "nobody", "target": c["nodes"][0]["node_id"], "weight": 1}), "'nobody'"),
    (lambda c: c["links"].append({"target": c["nodes"][0]["node_id"], "weight": 1}), "no source or no target"),
    (lambda c: c["links"][0].update(weight=float("nan")), "has no weight"),
    (lambda c: c["links"][0].update(weight=10**400), "has no weight"),
    (lambda c: c["links"].append(c["links"][0]), r"link \d+ stands there twice"),
    (lambda c: c["links"].append([]), r"link \d+ is no object"),
    (lambda c: c["qParams"].update(pinnedIds=["x"]), "'x' is pinned, and no node"),
    (lambda c: c["qParams"].update(supernodes=[["one", "x"]]), "holds 'x', which is no node"),
    (lambda c: c["qParams"].update(supernodes=[7]), "a supernode is no list"),
    (lambda c: c["metadata"].update(slug=None), "metadata.slug is None"),
    (lambda c: c["metadata"].update(prompt_tokens=[1]), "prompt_tokens holds what is no text"),
    (lambda c: c["metadata"].update(schema_version=9), "schema_version is 9"),
    (lambda c: c.update(nodes=[], links=[]), "pinned, and no node"),
    (
        lambda c: c["links"].append(
            {"source": c["links"][0]["target"], "target": c["links"][0]["source"], "weight": 1.0}
        ),
        "links go in circles",
    ),
]


@pytest.mark.parametrize(("change", "line"), BROKEN, ids=[line for _, line in BROKEN])
def test_a_file_that_is_not_whole_is_refused(
    small: Graph, tmp_path: Path, change: Callable[[dict[str, Any]], object], line: str
) -> None:
    path = tmp_path / "g.json"
    path.write_text(json.dumps(changed(as_content(small, about(small)), change)))
    with pytest.raises(DamagedError, match=line) as told:
        read_graph(path)
    assert "\n" not in str(told.value)
    assert len(str(told.value)) < 500


def test_files_that_are_no_graph_at_all(tmp_path: Path, small: Graph) -> None:
    path = tmp_path / "g.json"
    with pytest.raises(DataError, match="there is no such file"):
        read_graph(path)
    with pytest.raises(DataError, match="is a folder"):
        read_graph(tmp_path)
    for data in (b"", b"[]", b"null", b"\xff\xfe", b"[" * 100_000, b'{"a": 1}'):
        path.write_bytes(data)
        with pytest.raises(DamagedError):
            read_graph(path)
    written = write_graph(tmp_path, small, about(small)).read_bytes()
    path.write_bytes(written[: len(written) // 2])
    with pytest.raises(DamagedError, match="is not a graph file"):
        check_graph_file(path)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_whatever_is_put_into_a_file_it_is_read_or_refused(data: st.DataObject) -> None:
    """One value anywhere is replaced by anything."""
    content: Any = json.loads(json.dumps(MINIMAL))
    at: Any = content
    while True:
        keys = list(at) if isinstance(at, dict) else list(range(len(at)))
        if not keys:
            return
        key = data.draw(st.sampled_from(keys))
        if isinstance(at[key], (dict, list)) and data.draw(st.booleans()):
            at = at[key]
            continue
        at[key] = data.draw(st.recursive(st.none() | st.booleans() | st.integers() | st.floats() | st.text(), st.lists))
        break
    for fault in faults(content):
        assert isinstance(fault, str)
        return
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "g.json"
        path.write_text(json.dumps(content))
        try:
            read_graph(path)
        except EluteError:
            return


MINIMAL = {
    "metadata": {"slug": "a", "scan": "b", "transcoder_list": [], "prompt_tokens": ["x"], "prompt": "x"},
    "qParams": {"pinnedIds": [], "supernodes": [], "linkType": "both", "clickedId": "", "sg_pos": ""},
    "nodes": [
        {"node_id": n, "feature": f, "layer": y, "ctx_idx": 0, "feature_type": t, "jsNodeId": n}
        for n, f, y, t in (("0_0_0", 0, "0", "cross layer transcoder"), ("E_1_0", 0, "E", "embedding"))
    ]
    + [
        {"node_id": "2_0_0", "feature": 0, "layer": "2", "ctx_idx": 0, "feature_type": "logit", "jsNodeId": "L_0-0"}
        | {"token_prob": 0.8, "clerp": 'Output "node 4" (p=0.800)', "influence": None}
    ],
    "links": [
        {"source": "E_1_0", "target": "0_0_0", "weight": 1.0},
        {"source": "0_0_0", "target": "2_0_0", "weight": -2},
    ],
}


def test_a_graph_of_others_is_read() -> None:
    assert list(faults(MINIMAL)) == []


@given(st.integers(0, 60), st.integers(0, 200_000))
def test_pairing_is_undone(layer: int, feature: int) -> None:
    assert uncantor(cantor(layer, feature)) == (layer, feature)


def test_errors_keep_clear_of_features_places(whole: Graph) -> None:
    nodes = as_content(whole, About("x"))["nodes"]
    features = {n["jsNodeId"] for n in nodes if n["feature_type"] == KINDS[0]}
    errors = [n["jsNodeId"] for n in nodes if n["feature_type"] == KINDS[1]]
    assert len(errors) == len(set(errors))
    assert not features & set(errors)
    assert any(name.endswith("-1") for name in errors)  # some would have been the same


def test_supernodes_put_the_same_feature_together_and_keep_what_was_given(
    replacement: Replacement, whole: Graph
) -> None:
    graph = whole.kept(whole.prune(nodes=0.95))
    found = group(graph, replacement.coders)
    known = set(graph.nodes["node_id"])
    assert all(len(one.nodes) > 1 and set(one.nodes) <= known for one in found)
    members = [name for one in found for name in one.nodes]
    assert len(members) == len(set(members))
    assert group(graph, replacement.coders) == found
    names = graph.nodes.filter(graph.of("feature"))["node_id"].to_list()
    mine = Supernode("mine", (names[0], names[-1]))
    after = group(graph, replacement.coders, given=[mine])
    assert after[0] == mine
    assert not {name for one in after[1:] for name in one.nodes} & set(mine.nodes)
    assert all(len(one.nodes) > 1 for one in group(graph))
    labels = dict.fromkeys(names, "tour end")
    assert {one.label for one in group(graph, replacement.coders, labels=labels)} <= {"tour end"}
    with pytest.raises(DataError, match="there is no node '9_9_9'"):
        group(graph, given=[Supernode("x", ("9_9_9",))])
    with pytest.raises(ConfigError, match="a node is in two groups"):
        group(graph, given=[mine, mine])


def test_features_of_the_same_work_are_alike() -> None:
    """Three features between the same token and output, one of them of other ends."""
    import polars as pl
    from scipy import sparse

    A = np.zeros((8, 8))
    for i in (0, 1, 2):
        A[i, 4] = A[6, i] = 1 + i
    A[3, 5] = A[7, 3] = 1.0
    nodes = pl.DataFrame(
        {
            "node_id": [f"0_{i}_0" for i in range(4)] + ["E_0_0", "E_1_1", "2_0_1", "2_1_1"],
            "kind": ["feature"] * 4 + ["token"] * 2 + ["logit"] * 2,
            "weight": [None] * 6 + [0.5, 0.5],
        }
    )
    graph = Graph(nodes, sparse.csr_array(A), 1, 2, ("a", "b"), "")
    assert [one.nodes for one in group(graph)] == [("0_0_0", "0_1_0", "0_2_0")]
    alike = edge_likeness(graph, np.arange(4))
    assert alike[0, 3] == 0
    assert alike[0, 1] > 0.8
