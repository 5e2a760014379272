"""Keep the nodes and edges that carry most of the influence.

E. Ameisen et al., "Circuit tracing", 2025.

1. Nodes by influence, the strongest first: the fewest that reach `nodes` of its sum stay, the crossing one included.
   Tokens and outputs stay in any case.
2. Effects of what was dropped become 0, and rows are divided by their sums anew. An edge's score is its share times
   what comes from its target to the outputs, Â'_ij (I'_i + w_i); the fewest that reach `edges` of the sum stay.
3. Features and errors without an edge that leaves, and features without one that enters, go, until nothing changes.

Equal values are taken in the order of the nodes.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from scipy import sparse

from elute.base.errors import ConfigError
from elute.graphs.scores import Scores, influence, normalised, of_shares

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Mask = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Pruned:
    """What stays of a graph."""

    nodes: Mask
    edges: Any  # csr_array of bool [nodes, nodes]
    cumulative: Floats  # the share of all influence of a node and of all stronger ones
    node_threshold: float
    edge_threshold: float


def prune(
    adjacency: Any,
    weights: Floats,
    *,
    features: Mask,
    fixed: Mask,
    nodes: float = 0.8,
    edges: float = 0.98,
) -> Pruned:
    """Prune a graph; `fixed` nodes, tokens and outputs, stay, and all others are features or errors."""
    for name, value in (("nodes", nodes), ("edges", edges)):
        if not 0 < value <= 1:
            raise ConfigError(f"{name}={value}", where="prune", remedy="Give a share above 0, up to 1.")
    A = sparse.csr_array(adjacency, dtype=np.float64)
    flow = influence(normalised(A), weights)
    kept = fewest(flow, nodes) | fixed
    within = sparse.diags_array(kept.astype(np.float64))
    shares = normalised(within @ A @ within)
    reach = influence(shares, weights) + weights
    scored = sparse.coo_array(sparse.diags_array(reach) @ shares)
    scored.eliminate_zeros()
    strong = fewest(scored.data, edges)
    rows, columns = scored.row[strong], scored.col[strong]
    while True:
        leaves, enters = np.zeros(len(kept), bool), np.zeros(len(kept), bool)
        leaves[columns] = enters[rows] = True
        after = kept & (fixed | (leaves & (enters | ~features)))
        if bool((after == kept).all()):
            break
        kept = after
        stay = kept[rows] & kept[columns]
        rows, columns = rows[stay], columns[stay]
    mask = sparse.csr_array((np.ones(len(rows), bool), (rows, columns)), shape=A.shape)
    return Pruned(kept, mask, cumulative(flow), nodes, edges)


def fewest(values: Floats, share: float) -> Mask:
    """Return the fewest values, the largest first, that reach a share of the sum."""
    order = np.argsort(-values, kind="stable")
    total = float(values.sum())
    mask = np.zeros(len(values), bool)
    if total <= 0:
        return mask
    sums = np.cumsum(values[order]) / total
    count = int(np.searchsorted(sums, share - 1e-12)) + 1
    mask[order[:count]] = True
    return mask


def cumulative(values: Floats) -> Floats:
    """Return for each value the share of the sum that it and all larger ones have."""
    order = np.argsort(-values, kind="stable")
    total = float(values.sum())
    found = np.ones(len(values))
    if total > 0:
        found[order] = np.minimum(np.cumsum(values[order]) / total, 1.0)
    return found


def scores_of_pruned(adjacency: Any, weights: Floats, kept: Mask, *, errors: Mask, tokens: Mask) -> Scores:
    """Return the scores of a pruned graph: effects of all that was dropped count as errors."""
    A = abs(sparse.csr_array(adjacency, dtype=np.float64))
    keep, drop = np.flatnonzero(kept), np.flatnonzero(~kept)
    rest = sparse.csr_array(np.asarray(A[keep][:, drop].sum(axis=1)).reshape(-1, 1))
    n = len(keep) + 1
    top = sparse.hstack([A[keep][:, keep], rest])
    whole = sparse.vstack([top, sparse.csr_array((1, n))])
    shares = normalised(whole)
    reach = np.append(weights[keep], 0.0)
    flow = influence(shares, reach)
    wrong, begin = np.append(errors[keep], True), np.append(tokens[keep], False)
    return of_shares(shares, reach, flow, errors=wrong, tokens=begin)
