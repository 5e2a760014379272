"""What the page of a graph knows of it: the file as it is, and for each node what the file does not say.

`flow` is the influence of a node on the outputs within the file (elute.graphs.scores), `cumulative` the file's own
`influence`, which is of the graph before it was pruned, or what the flow adds up to where the file has none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base.errors import DamagedError, DataError
from elute.graphs.schema import check_graph_file, faults, uncantor

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

MOST_LINKS = 500_000
_SAFE = 2**53  # from which on a browser's numbers skip some


@dataclass(frozen=True, eq=False)
class Opened:
    """A graph file's content, and what follows from it."""

    content: Mapping[str, Any]
    features: list[int | str]  # the number of each node within its layer
    flow: NDArray[np.float64]
    cumulative: list[float | None]
    scores: Mapping[str, float]  # of what the file holds

    @property
    def positions(self) -> int:
        """How many positions there are."""
        most = max((node["ctx_idx"] for node in self.content["nodes"]), default=-1) + 1
        return max(most, len(self.content["metadata"]["prompt_tokens"]))

    def told(self) -> dict[str, Any]:
        """Return what the page is given."""
        return {
            "content": self.content,
            "features": self.features,
            "flow": [float(f"{x:.7g}") for x in self.flow],
            "cumulative": self.cumulative,
            "scores": dict(self.scores),
        }


def opened(content: Mapping[str, Any] | Path) -> Opened:
    """Check a graph file, or the content of one, and work out influence."""
    where: object = content if isinstance(content, Path) else "the page of a graph"
    held = check_graph_file(content) if isinstance(content, Path) else content
    if not isinstance(content, Path):
        for fault in faults(held):
            raise DataError(f"is given no whole graph: {fault}", where=where, remedy="Write the graph anew.")
    if len(held["links"]) > MOST_LINKS:
        what = f"has {len(held['links']):,} links, and a page holds {MOST_LINKS:,}"
        raise DataError(what, where=where, remedy="Prune the graph.")
    try:
        flow, scores = _influence(held)
    except DataError:
        raise DamagedError("its links go in circles", where=where, remedy="Write it anew.") from None
    return Opened(held, [_number(node) for node in held["nodes"]], flow, _cumulative(held["nodes"], flow), scores)


def finite(value: Any) -> Any:
    """Return the same without numbers that JSON has no word for: they become nothing."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(name): finite(held) for name, held in value.items()}
    if isinstance(value, list | tuple):
        return [finite(held) for held in value]
    return value


def _influence(content: Mapping[str, Any]) -> tuple[NDArray[np.float64], dict[str, float]]:
    import numpy as np
    from scipy import sparse

    from elute.graphs.scores import influence, normalised, of_shares

    nodes, links = content["nodes"], content["links"]
    at = {node["node_id"]: i for i, node in enumerate(nodes)}
    ends = [np.array([at[link[end]] for link in links], dtype=np.int64) for end in ("target", "source")]
    weights = np.array([link["weight"] for link in links], dtype=np.float64)
    kinds = np.array([node["feature_type"] for node in nodes])
    counts = [node.get("token_prob", 0.0) if node["feature_type"] == "logit" else 0.0 for node in nodes]
    shares = normalised(sparse.csr_array((weights, (ends[0], ends[1])), shape=(len(nodes), len(nodes))))
    outputs = np.array(counts, dtype=np.float64)
    flow = influence(shares, outputs)
    masks = {"errors": kinds == "mlp reconstruction error", "tokens": kinds == "embedding"}
    found = of_shares(shares, outputs, flow, **masks)
    return flow, {"replacement": found.replacement, "completeness": found.completeness}


def _cumulative(nodes: list[Mapping[str, Any]], flow: NDArray[np.float64]) -> list[float | None]:
    told = [node.get("influence") for node in nodes]
    inner = [i for i, node in enumerate(nodes) if node["feature_type"] != "logit"]
    if all(told[i] is not None for i in inner):
        return [None if node["feature_type"] == "logit" else told[i] for i, node in enumerate(nodes)]
    found: list[float | None] = [None] * len(nodes)
    whole, reached = float(flow[inner].sum()), 0.0
    for i in sorted(inner, key=lambda i: -float(flow[i])):
        reached += float(flow[i])
        found[i] = min(1.0, reached / whole) if whole > 0 else 1.0
    return found


def _number(node: Mapping[str, Any]) -> int | str:
    feature: int = node["feature"]
    if node["feature_type"] == "cross layer transcoder" and feature >= 0:
        first, second = uncantor(feature)
        feature = second if str(first) == node["layer"] else feature  # others may number features otherwise
    if node["feature_type"] == "embedding":
        part = node["node_id"].split("_")[1:2]
        feature = int(part[0]) if part and part[0].isascii() and part[0].isdecimal() and len(part[0]) < 19 else feature
    return feature if abs(feature) < _SAFE else str(feature)
