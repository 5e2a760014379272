"""What the page says of a graph's faithfulness, each number beside what it is held against; also `checks.json`.

    {name, scores, kept, nodes, links, edges, agreement, path_length, elsewhere: {inputs, mean}, others: [{name, …}, …]}

`scores` are those of the whole graph, `kept` those of what was kept when it was pruned (what was dropped counts as an
error), `edges` the check of edges by ablations in the replacement model, `agreement` the rank correlation of influence
with ablations in the model itself, and of their control. `others` are graphs of the same input by other dictionaries.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from elute.base.errors import ConfigError

if TYPE_CHECKING:
    import polars as pl

    from elute.graphs.scores import Scores

TOLERANCE = 1e-4  # of an edge, relative, from what its ablation gives
# Ameisen et al., "Circuit tracing", 2025: of a language model of 18 layers, so that they say what others reach, not
# what this model could.
PUBLISHED: tuple[dict[str, Any], ...] = (
    {
        "name": "published, cross-layer",
        "published": True,
        "scores": {"replacement": 0.61, "completeness": 0.80},
        "agreement": {"kl": 0.72},
        "path_length": 2.3,
    },
    {
        "name": "published, per layer",
        "published": True,
        "scores": {"replacement": 0.37, "completeness": 0.78},
        "path_length": 3.7,
    },
)
_COUNTS = ("nodes", "links", "features", "fired", "path_length")
_FURTHER = ("change", "control_change", "kl", "control_kl", "within", "control_within")
_SCORES = ("replacement", "completeness")
_EDGES = ("edges", "sources", "largest", "tolerance")
_AGREEMENT = ("features", "change", "control_change", "change_p", "control_change_p", "kl", "control_kl", "kl_p")
_AGREEMENT_ALL = (*_AGREEMENT, "control_kl_p", "within", "control_within")


def checks_of(
    name: str,
    *,
    scores: Scores | None = None,
    kept: Scores | None = None,
    edges: pl.DataFrame | None = None,
    agreement: Mapping[str, float] | None = None,
    others: Sequence[Mapping[str, Any]] = (),
    nodes: int | None = None,
    links: int | None = None,
    tolerance: float = TOLERANCE,
) -> dict[str, Any]:
    """Return the checks of a graph by the dictionaries of this name; `edges` is the table of `check_edges`."""
    found: dict[str, Any] = {"name": name, "nodes": nodes, "links": links, "others": [dict(one) for one in others]}
    for key, held in (("scores", scores), ("kept", kept)):
        if held is not None:
            found[key] = {part: _number(getattr(held, part)) for part in _SCORES}
    if edges is not None:
        found["edges"] = {
            "edges": edges.height,
            "sources": edges["source"].n_unique(),
            "largest": _number(edges["difference"].max()) if edges.height else None,
            "tolerance": tolerance,
        }
    if agreement is not None:
        found["agreement"] = {key: _number(value) for key, value in agreement.items()}
    return found


def told_checks(checks: Mapping[str, Any] | None) -> dict[str, Any] | None:
    """Return what of the checks the page shows, and what was published beside it; None where there are none."""
    if checks is None:
        return None
    if not isinstance(checks, Mapping):
        raise ConfigError("checks are no object", where="the page of a graph", remedy="Give what checks_of returns.")
    others = checks.get("others") or []
    if not isinstance(others, list | tuple):
        raise ConfigError("checks.others is no list", where="the page of a graph", remedy="Give a list of checks.")
    told = _one(checks, "this graph")
    told["others"] = [*(_one(other, "another") for other in others), *(dict(one) for one in PUBLISHED)]
    return told


def _one(checks: Mapping[str, Any], name: str) -> dict[str, Any]:
    if not isinstance(checks, Mapping):
        raise ConfigError(
            "checks.others holds no objects", where="the page of a graph", remedy="Give a list of checks."
        )
    found: dict[str, Any] = {"name": str(checks.get("name") or name)}
    found |= {key: _number(checks.get(key)) for key in _COUNTS}
    further = checks.get("elsewhere")
    if isinstance(further, Mapping) and isinstance(further.get("mean"), Mapping):
        inputs = further.get("inputs")
        found["further"] = {key: _number(further["mean"].get(key)) for key in _FURTHER}
        found["further"]["inputs"] = len(inputs) if isinstance(inputs, list) else None
    for part, keys in (("scores", _SCORES), ("kept", _SCORES), ("edges", _EDGES), ("agreement", _AGREEMENT_ALL)):
        held = checks.get(part)
        if isinstance(held, Mapping):
            found[part] = {key: _number(held.get(key)) for key in keys}
    return found


def _number(value: Any) -> float | int | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return value
