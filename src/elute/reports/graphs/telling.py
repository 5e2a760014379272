"""What commands write and say of a graph's checks, the same for any model.

one = told("cross-layer transcoder", checked, nodes=80, links=900)      # what checks.json holds of one graph
beside({"a": one, "b": other}, "a")                                     # the other and all controls beside it
lines(brief(one))                                                       # for people
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any

from elute.reports.graphs.checks import PUBLISHED, checks_of

if TYPE_CHECKING:
    from elute.graphs.result import Checked
    from elute.graphs.scores import Scores

SHARED = ("change", "kl", "control_change", "control_kl", "within", "control_within")
_KEPT = ("name", "scores", "kept", "nodes", "links", "features", "fired", "path_length", "edges", "agreement")


def told(name: str, checked: Checked, *, nodes: int | None = None, links: int | None = None) -> dict[str, Any]:
    """Return what is written of a graph's checks, and what the page shows of them."""
    found = checks_of(
        name,
        scores=checked.scores,
        kept=checked.kept,
        edges=checked.edges if checked.edges.height else None,
        agreement=checked.agreement,
        nodes=nodes,
        links=links,
    )
    return {**found, **checked.facts}


def elsewhere(about: Mapping[str, Any], agreement: Mapping[str, float], scores: Scores) -> dict[str, Any]:
    """Return what is written of influence and measured effects on one further input."""
    known = {name: _number(agreement[name]) for name in SHARED if name in agreement}
    whole = {"replacement": _number(scores.replacement), "completeness": _number(scores.completeness)}
    return {**about, **known, **whole}


def means(rows: Iterable[Mapping[str, Any]]) -> dict[str, float]:
    """Return the mean of each number over further inputs, of those where there is one."""
    rows, found = list(rows), {}
    for name in (*SHARED, "replacement", "completeness"):
        values = [row[name] for row in rows if row.get(name) is not None]
        if values:
            found[name] = round(sum(values) / len(values), 6)
    return found


def beside(every: Mapping[str, Mapping[str, Any]], name: str) -> dict[str, Any]:
    """Put the other graphs of the same input, and all controls, beside one."""
    rest = [one for other, one in every.items() if other != name]
    controls = [wrong for one in (every[name], *rest) for wrong in one["others"]]
    return {**every[name], "others": [*({**one, "others": []} for one in rest), *controls]}


def brief(one: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a summary says of a graph; its only other is the control with shuffled decoders."""
    wrong = [{"scores": other["scores"], "agreement": other["agreement"]} for other in one["others"]]
    mean = one.get("elsewhere", {}).get("mean", {})
    return {**{name: one[name] for name in _KEPT}, "shuffled": wrong[0] if wrong else None, "elsewhere": mean}


def lines(one: Mapping[str, Any]) -> list[str]:
    """Say what came of a graph, each number beside its control."""
    whole, kept, wrong, edges = one["scores"], one["kept"], one["shuffled"], one["edges"]
    control = "" if wrong is None else f" (decoders shuffled: {_pair(wrong['scores'])})"
    sizes = f"{one['nodes']} nodes, {one['links']:,} edges, {one['features']} of {one['fired']:,} features that fired"
    return [
        f"through the {one['name']}",
        f"  replacement and completeness {_pair(whole)}{control}",
        f"  kept: {sizes}; {_pair(kept)} where all that was dropped is an error",
        f"  {edges['edges']:,} edges checked by interventions: off by {edges['largest']:.1e} of the edge at most",
        *_effects(one["agreement"], wrong, one["elsewhere"]),
    ]


def _effects(held: Mapping[str, Any], wrong: Mapping[str, Any] | None, mean: Mapping[str, Any]) -> list[str]:
    if held.get("change") is None:
        return []
    shuffled = "" if wrong is None else f"; decoders shuffled {_both(wrong['agreement'])}"
    published = f"published, of a language model, by divergence: {PUBLISHED[0]['agreement']['kl']}"
    found = [
        f"  influence against what ablations do to outputs, Spearman: {_both(held)}; {published}",
        f"    beside: another feature's write as strong {_both(held, 'control_')}{shuffled}",
        f"    among features of one layer and place {_within(held)}",
    ]
    if mean.get("change") is not None:
        found.append(
            f"    mean of further inputs {_both(mean)}, another feature's write {_both(mean, 'control_')};"
            f" within {_within(mean)}"
        )
    return found


def _both(held: Mapping[str, Any], of: str = "") -> str:
    by = f" (by divergence {_digits(held[f'{of}kl'])})" if held.get(f"{of}kl") is not None else ""
    return f"{_digits(held.get(f'{of}change'))}{by}"


def _within(held: Mapping[str, Any]) -> str:
    return f"{_digits(held.get('within'))}, beside {_digits(held.get('control_within'))}"


def _pair(scores: Mapping[str, Any]) -> str:
    return f"{_digits(scores['replacement'])}, {_digits(scores['completeness'])}"


def _digits(value: float | None) -> str:
    return "–" if value is None else f"{value:.2f}"


def _number(value: float) -> float | None:
    return None if math.isnan(value) else round(float(value), 6)
