"""Read a graph file back: ours, or one that circuit-tracer or Neuronpedia wrote.

    file = read_graph("graphs/tour-3.json")
    file.graph.scores(); file.supernodes; file.pinned

A file holds what was kept when the graph was pruned, so that scores are those of what is in it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy import sparse

from elute.base.errors import DamagedError, DataError
from elute.graphs.graph import Graph
from elute.graphs.schema import TYPES, check_graph_file, uncantor
from elute.graphs.supernodes import Supernode

_KINDS = {name: kind for kind, name in TYPES.items()}


@dataclass(frozen=True, eq=False)
class GraphFile:
    """A graph and what its file says about it."""

    graph: Graph
    metadata: Mapping[str, Any]
    labels: Mapping[str, str] = field(default_factory=dict)
    pinned: tuple[str, ...] = ()
    supernodes: tuple[Supernode, ...] = ()


def read_graph(path: Path | str) -> GraphFile:
    """Read a graph file; one that is damaged or not what it says is refused in one line."""
    path = Path(path)
    content = check_graph_file(path)
    nodes, links, params = content["nodes"], content["links"], content["qParams"]
    table = pl.DataFrame([_row(node) for node in nodes], schema=_SCHEMA, orient="row")
    at = {node["node_id"]: i for i, node in enumerate(nodes)}
    rows = np.array([at[link["target"]] for link in links], dtype=np.int64)
    columns = np.array([at[link["source"]] for link in links], dtype=np.int64)
    weights = np.array([link["weight"] for link in links], dtype=np.float64)
    metadata = content["metadata"]
    info = metadata.get("info") if isinstance(metadata.get("info"), dict) else {}
    told = info.get("dictionaries")
    within = table.filter(pl.col("kind").is_in(["feature", "error"]))["layer"]
    graph = Graph(
        nodes=table,
        adjacency=sparse.csr_array((weights, (rows, columns)), shape=(len(nodes), len(nodes))),
        n_layers=_layers(table, within),
        n_positions=len(metadata["prompt_tokens"]) or int(table["position"].cast(pl.Int64).max() or 0) + 1,  # type: ignore[arg-type]
        prompt=tuple(metadata["prompt_tokens"]),
        kind=told if told in ("clt", "transcoder") else "",
    )
    try:
        _ = graph.influence
    except DataError:
        raise DamagedError("its links go in circles", where=path, remedy="Write it anew.") from None
    return GraphFile(
        graph=graph,
        metadata=metadata,
        labels={node["node_id"]: node["clerp"] for node in nodes if node.get("clerp")},
        pinned=tuple(params["pinnedIds"]),
        supernodes=tuple(Supernode(one[0], tuple(one[1:])) for one in params["supernodes"]),
    )


_SCHEMA = {
    "node_id": pl.String,
    "kind": pl.String,
    "layer": pl.Int64,
    "position": pl.Int64,
    "feature": pl.Int64,
    "activation": pl.Float64,
    "weight": pl.Float64,
    "label": pl.String,
    "influence": pl.Float64,
}


def _row(node: Mapping[str, Any]) -> tuple[Any, ...]:
    kind = _KINDS[node["feature_type"]]
    layer = -1 if kind == "token" else int(node["layer"])
    feature = node["feature"]
    if kind == "feature" and feature >= 0:
        first, second = uncantor(feature)
        feature = second if first == layer else feature  # others may number features otherwise
    if kind == "token":
        part = node["node_id"].split("_")[1:2]
        feature = int(part[0]) if part and part[0].isascii() and part[0].isdecimal() and len(part[0]) < 19 else feature
    weight = float(node.get("token_prob", 0.0)) if kind == "logit" else None
    label = node.get("clerp") or None
    numbers = (node.get("activation"), weight, label, node.get("influence"))
    return (node["node_id"], kind, layer, node["ctx_idx"], feature, *numbers)


def _layers(table: pl.DataFrame, within: pl.Series) -> int:
    outputs = table.filter(pl.col("kind") == "logit")["layer"]
    top = int(outputs.max()) - 1 if len(outputs) else 0  # type: ignore[arg-type]
    return max(top, int(within.max()) + 1 if len(within) else 0)  # type: ignore[arg-type]
