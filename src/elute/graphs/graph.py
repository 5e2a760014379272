"""A graph of what causes what on one input: its nodes, and the direct effects between them.

Nodes stand in the order features (by layer, position and number), errors (layer by layer), tokens, outputs. `nodes` has
a row for each:

    node_id      as in graph files: `{layer}_{feature}_{position}`, -1 for an error's feature, `E_{id}_{position}`
    kind         feature, error, token or logit (an output that is explained, whatever it is)
    layer        from 0; -1 of tokens, the number of layers + 1 of outputs
    position     row of the sample
    feature      number within its layer; -1 of errors, the id of what stands there of tokens and outputs
    activation   of features
    value        of features the pre-activation, of outputs the value
    constant     what of the value comes from no source: biases, and what stands before the tokens
    weight       of outputs: how much each counts
    label        of outputs and tokens

`adjacency[i, j]` is the direct effect of node j on node i.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from elute.base.errors import DataError, near
from elute.graphs import prune as pruning
from elute.graphs.scores import Scores, influence, normalised, scores

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from numpy.typing import NDArray

    from elute.graphs.edges import Sources
    from elute.graphs.outputs import Chosen
    from elute.graphs.prune import Pruned

KINDS = ("feature", "error", "token", "logit")


@dataclass(frozen=True)
class LeftOut:
    """Features that fired and got no place in the graph."""

    features: int = 0
    share: float = 0.0  # of all influence that features have, as far as it was computed


@dataclass(frozen=True, eq=False)
class Graph:
    """What causes what on one input."""

    nodes: pl.DataFrame
    adjacency: Any  # csr_array [nodes, nodes], rows are targets
    n_layers: int
    n_positions: int
    prompt: tuple[str, ...]  # what stands at each position
    kind: str  # of the dictionaries: clt or transcoder
    left_out: LeftOut = field(default_factory=LeftOut)
    not_linear: tuple[str, ...] = ()

    def __len__(self) -> int:
        return self.nodes.height

    @cached_property
    def weights(self) -> NDArray[np.float64]:
        """How much each node counts as an output: 0 but for outputs."""
        return self.nodes["weight"].fill_null(0.0).to_numpy().copy()

    @cached_property
    def shares(self) -> Any:
        """|adjacency| with rows that add up to 1, or are empty."""
        return normalised(self.adjacency)

    @cached_property
    def influence(self) -> NDArray[np.float64]:
        """What comes from each node to the outputs by all paths."""
        return influence(self.shares, self.weights)

    def of(self, *kinds: str) -> NDArray[np.bool_]:
        """Return which nodes are of some kinds."""
        return self.nodes["kind"].is_in(list(kinds)).to_numpy()

    def numbers(self, ids: Iterable[str]) -> NDArray[np.int64]:
        """Return where nodes stand, by their ids."""
        known = {name: i for i, name in enumerate(self.nodes["node_id"])}
        found = []
        for name in ids:
            if name not in known:
                raise DataError(f"there is no node {name!r}", where="graph", remedy=near(name, known))
            found.append(known[name])
        return np.array(found, dtype=np.int64)

    def scores(self, pruned: Pruned | None = None) -> Scores:
        """Return how much goes through features; of a pruned graph, all that was dropped counts as an error."""
        masks = {"errors": self.of("error"), "tokens": self.of("token")}
        if pruned is not None:
            return pruning.scores_of_pruned(self.adjacency, self.weights, pruned.nodes, **masks)
        return scores(self.adjacency, self.weights, **masks)

    def prune(self, *, nodes: float = 0.8, edges: float = 0.98) -> Pruned:
        """Choose the nodes and edges that carry most of the influence."""
        kinds = {"features": self.of("feature"), "fixed": self.of("token", "logit")}
        return pruning.prune(self.adjacency, self.weights, nodes=nodes, edges=edges, **kinds)

    def kept(self, pruned: Pruned) -> Graph:
        """Return the graph of what was chosen; `influence` in it is that of the whole graph, cumulated."""
        where = np.flatnonzero(pruned.nodes)
        nodes = self.nodes.with_columns(influence=pl.Series(pruned.cumulative)).filter(pl.Series(pruned.nodes))
        nodes = nodes.with_columns(influence=pl.when(pl.col("kind") != "logit").then(pl.col("influence")))
        return replace(self, nodes=nodes, adjacency=self.adjacency.multiply(pruned.edges).tocsr()[where][:, where])

    def edges(self) -> pl.DataFrame:
        """Return a row an edge: source, target, weight and share, the strongest influence first."""
        found = self.adjacency.tocoo()
        rows, columns = found.row, found.col
        share = np.asarray(self.shares.tocsr()[rows, columns]).reshape(-1) if len(rows) else np.zeros(0)
        reach = (self.influence + self.weights)[rows] * share
        ids = self.nodes["node_id"]
        table = pl.DataFrame(
            {
                "source": ids.gather(columns),
                "target": ids.gather(rows),
                "weight": found.data.astype(np.float64),
                "share": share,
                "score": reach,
            }
        )
        return table.sort(["score", "source", "target"], descending=[True, False, False])


def table_of(
    sources: Sources, kept: NDArray[np.int64], chosen: Chosen, *, ids: Sequence[int], prompt: Sequence[str]
) -> pl.DataFrame:
    """Return the nodes of a graph: the kept features, all errors, tokens and outputs."""
    layers, n = sources.n_layers, sources.n_positions
    at = n - 1 if chosen.of.position is None else chosen.of.position
    error_layer, error_position = np.divmod(np.arange(layers * n), n)
    tokens = range(n) if sources.tokens else range(0)
    parts = [
        _rows("feature", sources.layer[kept], sources.position[kept], feature=sources.feature[kept]),
        _rows("error", error_layer, error_position, feature=np.full(layers * n, -1)),
        _rows(
            "token", np.full(len(tokens), -1), np.arange(len(tokens)), feature=np.array(ids, np.int64)[: len(tokens)]
        ),
        _rows(
            "logit", np.full(len(chosen.ids), layers + 1), np.full(len(chosen.ids), at), feature=np.array(chosen.ids)
        ),
    ]
    nodes = pl.concat(parts)
    blank = nodes.height - len(chosen.ids)
    labels = [None] * (blank - len(tokens)) + [prompt[i] for i in tokens] + list(chosen.labels)
    activation = list(sources.activation[kept]) + [None] * (nodes.height - len(kept))
    named = pl.when(pl.col("kind") == "token").then(pl.lit("E")).otherwise(pl.col("layer").cast(pl.String))
    return nodes.with_columns(
        node_id=pl.concat_str([named, pl.col("feature"), pl.col("position")], separator="_"),
        activation=pl.Series(activation, dtype=pl.Float64),
        weight=pl.Series([None] * blank + list(chosen.weights), dtype=pl.Float64),
        label=pl.Series(labels, dtype=pl.String),
    ).select("node_id", "kind", "layer", "position", "feature", "activation", "weight", "label")


def _rows(kind: str, layer: Any, position: Any, *, feature: Any) -> pl.DataFrame:
    columns = {"layer": layer, "position": position, "feature": feature}
    table = pl.DataFrame({name: pl.Series(np.asarray(x, dtype=np.int64)) for name, x in columns.items()})
    return table.select(pl.lit(kind).alias("kind"), "layer", "position", "feature")
