"""Groups of features that do the same work: supernodes, found by a rule, or made by hand and kept.

1. Two features are alike by the mean of two cosines: of what they read and write (encoder and decoder directions, of
   one and the same feature 1, of different layers that of the decoders alone), and of whom they act on and what acts on
   them (their columns and rows of shares, joined). A feature stands for itself at every position.
2. Groups that are alike on average are joined, the most alike first, until no two are alike by `least`.
3. Features that somebody has put into a group stay there and out of all others.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from elute.base.errors import ConfigError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from elute.graphs.graph import Graph
    from elute.graphs.layers import Coders

    Floats = NDArray[np.float64]

LEAST = 0.6
MOST = 2000  # features of which all pairs are compared


@dataclass(frozen=True)
class Supernode:
    """Some nodes under one name."""

    label: str
    nodes: tuple[str, ...]


def group(
    graph: Graph,
    coders: Coders | None = None,
    *,
    given: Sequence[Supernode] = (),
    labels: Mapping[str, str] | None = None,
    least: float = LEAST,
) -> list[Supernode]:
    """Return the supernodes of a pruned graph: those given, then those found, of two features or more each.

    Without `coders`, as for a graph that was read from a file, features are compared by their edges alone. A group is
    called by the label (`labels`, by node id) of its strongest feature, or by that feature's id.
    """
    if not 0 < least <= 1:
        raise ConfigError(f"least={least}", where="supernodes", remedy="Give a number above 0, up to 1.")
    taken = {name for one in given for name in one.nodes}
    graph.numbers(sorted(taken))  # refuses what is no node
    if len(taken) != sum(len(one.nodes) for one in given):
        raise ConfigError("a node is in two groups", where="supernodes", remedy="Put each into one.")
    ids = graph.nodes["node_id"].to_list()
    free = np.array([i for i in np.flatnonzero(graph.of("feature")) if ids[i] not in taken], dtype=np.int64)
    if len(free) > MOST:
        what = f"{len(free)} features are too many to compare in pairs"
        raise ConfigError(what, where="supernodes", remedy="Prune the graph first.")
    if len(free) < 2:
        return list(given)
    alike = edge_likeness(graph, free)
    if coders is not None:
        alike = (alike + direction_likeness(graph, coders, free)) / 2
    found = []
    for members in _joined(alike, least):
        if len(members) < 2:
            continue
        order = sorted(free[members].tolist(), key=lambda i: (-float(graph.influence[i]), i))
        name = (labels or {}).get(ids[order[0]], ids[order[0]])
        found.append(Supernode(name, tuple(ids[i] for i in sorted(order))))
    found.sort(key=lambda one: ids.index(one.nodes[0]))
    return [*given, *found]


def edge_likeness(graph: Graph, numbers: NDArray[np.int64]) -> Floats:
    """Return the cosines of what acts on features and whom they act on, [features, features]."""
    shares = sparse.csr_array(graph.shares)
    both = sparse.hstack([shares[numbers], sparse.csr_array(shares.T)[numbers]]).tocsr()
    lengths = np.sqrt(np.asarray(both.multiply(both).sum(axis=1)).reshape(-1))
    product = (both @ both.T).toarray()
    scale = np.outer(lengths, lengths)
    found: Floats = np.divide(product, scale, out=np.zeros_like(product), where=scale > 0)
    return found


def direction_likeness(graph: Graph, coders: Coders, numbers: NDArray[np.int64]) -> Floats:
    """Return how alike the directions of features are, from -1 to 1, [features, features]."""
    import torch

    layer, feature = (graph.nodes[name].to_numpy()[numbers] for name in ("layer", "feature"))
    last = len(coders.layers) - 1
    reads, writes = [], []
    for at, number in zip(layer.tolist(), feature.tolist(), strict=True):
        one = torch.tensor([number])
        to = last if last in coders.written(at) else at
        reads.append(_unit(coders.encoders(at, one)[0][0].double().cpu().numpy()))
        writes.append(_unit(coders.decoder(at, to)[number].double().cpu().numpy()))
    found = np.zeros((len(numbers), len(numbers)))
    for i in range(len(numbers)):
        for j in range(i + 1):
            found[i, j] = found[j, i] = _alike(reads, writes, i, j, same=layer[i] == layer[j])
    return found


def _alike(reads: list[Floats], writes: list[Floats], i: int, j: int, *, same: bool) -> float:
    write = float(writes[i] @ writes[j]) if writes[i].shape == writes[j].shape else 0.0
    return (write + float(reads[i] @ reads[j])) / 2 if same else write


def _unit(x: Floats) -> Floats:
    length = float(np.linalg.norm(x))
    return x / length if length > 0 else x


def _joined(alike: Floats, least: float) -> list[NDArray[np.int64]]:
    from scipy.cluster.hierarchy import fcluster, linkage
    from scipy.spatial.distance import squareform

    distance = np.maximum(1.0 - (alike + alike.T) / 2, 0.0)
    np.fill_diagonal(distance, 0.0)
    groups = fcluster(linkage(squareform(distance, checks=False), "average"), 1.0 - least, criterion="distance")
    return [np.flatnonzero(groups == number) for number in np.unique(groups)]
