"""The JSON of a graph file, as circuit-tracer and Neuronpedia read it, and what is wrong with one.

    {metadata, qParams, nodes: [...], links: [{source, target, weight}]}

Their readers accept links that lead nowhere and ids that stand twice, so `faults` looks at what they do not.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from elute.base import files
from elute.base.errors import DamagedError

SCHEMA = 1
TYPES = {
    "feature": "cross layer transcoder",
    "error": "mlp reconstruction error",
    "token": "embedding",
    "logit": "logit",
}
MOST_BYTES = 1 << 29
_WHAT = "a graph file"
_REMEDY = "Write it anew, or restore it from a copy."
_TEXT = 10_000
_METADATA = {"slug": str, "scan": str, "transcoder_list": list, "prompt_tokens": list, "prompt": str}
_PARAMS = {"pinnedIds": list, "supernodes": list, "linkType": str, "clickedId": str, "sg_pos": str}
_NODE = {"node_id": str, "feature": int, "layer": str, "ctx_idx": int, "feature_type": str, "jsNodeId": str}
_NUMBERS = ("influence", "activation")


def cantor(layer: int, feature: int) -> int:
    """Return one number for a layer and a feature, by Cantor's pairing."""
    return (layer + feature) * (layer + feature + 1) // 2 + feature


def uncantor(number: int) -> tuple[int, int]:
    """Return the layer and the feature that a number stands for."""
    diagonal = (math.isqrt(8 * number + 1) - 1) // 2
    feature = number - diagonal * (diagonal + 1) // 2
    return diagonal - feature, feature


def check_graph_file(path: Path) -> dict[str, Any]:
    """Read a graph file and refuse it if anything is wrong with it; return its content."""
    path = Path(path)
    try:
        size = path.stat().st_size
    except OSError:
        size = 0  # read_json says what is wrong
    if size > MOST_BYTES:
        raise DamagedError(f"is {size:,} bytes, more than a graph file has", where=path, remedy="Prune the graph.")
    content = files.read_json(path, what=_WHAT, remedy=_REMEDY)
    for fault in faults(content):
        raise DamagedError(f"is no whole graph file: {fault}", where=path, remedy=_REMEDY)
    return dict(content)


def faults(content: Any) -> Iterator[str]:
    """Yield what is wrong with the content of a graph file, the gravest first; what comes later may rest on it."""
    if not isinstance(content, Mapping):
        yield "it is no object"
        return
    parts: dict[str, type] = {"metadata": dict, "qParams": dict, "nodes": list, "links": list}
    broken = list(_typed(content, parts, ""))
    yield from broken
    if broken:
        return
    yield from _metadata(content["metadata"])
    ids: set[str] = set()
    places: set[str] = set()
    for i, node in enumerate(content["nodes"]):
        yield from _node(node, i, ids, places)
    yield from _links(content["links"], ids)
    yield from _params(content["qParams"], ids)
    if not any(isinstance(node, Mapping) and node.get("feature_type") == "logit" for node in content["nodes"]):
        yield "it has no output node"


def _metadata(metadata: Mapping[str, Any]) -> Iterator[str]:
    yield from _typed(metadata, _METADATA, "metadata.")
    for name in ("prompt_tokens", "transcoder_list"):
        if not all(isinstance(word, str) for word in _list(metadata.get(name))):
            yield f"metadata.{name} holds what is no text"
    version = metadata.get("schema_version", SCHEMA)
    if version is not None and (type(version) is not int or version > SCHEMA):
        yield f"its schema_version is {_short(version)}, and {SCHEMA} is known"
    threshold = metadata.get("node_threshold")
    if threshold is not None and not _number(threshold):
        yield "metadata.node_threshold is no number"


def _node(node: Any, i: int, ids: set[str], places: set[str]) -> Iterator[str]:
    if not isinstance(node, Mapping):
        yield f"node {i} is no object"
        return
    broken = list(_typed(node, _NODE, f"node {i}: "))
    yield from broken
    if broken:
        return
    name, kind = node["node_id"], node["feature_type"]
    where = f"node {_short(name)}"
    if name in ids:
        yield f"{where} stands there twice"
    ids.add(name)
    if kind not in TYPES.values():
        yield f"{where} is of unknown feature_type {_short(kind)}"
    if kind != "embedding" and not (node["layer"].isascii() and node["layer"].isdecimal() and len(node["layer"]) < 8):
        yield f"{where} has layer {_short(node['layer'])}"
    if kind == "embedding" and node["layer"] != "E":
        yield f"{where} has layer {_short(node['layer'])}"
    if not 0 <= node["ctx_idx"] < 2**31 or not -1 <= node["feature"] < 2**63:
        yield f"{where} has ctx_idx {_short(node['ctx_idx'])} and feature {_short(node['feature'])}"
    for number in _NUMBERS:
        if node.get(number) is not None and not _number(node[number]):
            yield f"{where}: {number} is no number"
    if not _number(node.get("token_prob", 0.0)):
        yield f"{where}: token_prob is no number"
    clerp = node.get("clerp", "")
    if not isinstance(clerp, str):
        yield f"{where}: clerp is no text"
    elif kind == "logit" and clerp and "(p=" not in clerp:
        yield f"{where}: the clerp of an output has no (p=…)"
    if kind != "cross layer transcoder":  # a feature is the same one at all positions
        if node["jsNodeId"] in places:
            yield f"jsNodeId {_short(node['jsNodeId'])} stands there twice"
        places.add(node["jsNodeId"])


def _links(links: list[Any], ids: set[str]) -> Iterator[str]:
    seen: set[tuple[str, str]] = set()
    for i, link in enumerate(links):
        if not isinstance(link, Mapping):
            yield f"link {i} is no object"
            continue
        ends = link.get("source"), link.get("target")
        if not all(isinstance(end, str) for end in ends):
            yield f"link {i} has no source or no target"
            continue
        for end in ends:
            if end not in ids:
                yield f"link {i} names {_short(end)}, which is no node"
        if not _number(link.get("weight")):
            yield f"link {i} has no weight"
        if ends in seen:
            yield f"link {i} stands there twice"
        seen.add(ends)  # type: ignore[arg-type]


def _params(params: Mapping[str, Any], ids: set[str]) -> Iterator[str]:
    yield from _typed(params, _PARAMS, "qParams.")
    for name in _list(params.get("pinnedIds")):
        if not isinstance(name, str) or name not in ids:
            yield f"{_short(name)} is pinned, and no node"
    for group in _list(params.get("supernodes")):
        if not isinstance(group, list) or not group or not all(isinstance(name, str) for name in group):
            yield "a supernode is no list of a label and node ids"
        elif lost := [name for name in group[1:] if name not in ids]:
            yield f"supernode {_short(group[0])} holds {_short(lost[0])}, which is no node"


def _typed(held: Mapping[str, Any], wanted: Mapping[str, type], where: str) -> Iterator[str]:
    for name, kind in wanted.items():
        if name not in held:
            yield f"{where}{name} is missing"
        elif not isinstance(held[name], kind) or isinstance(held[name], bool):
            yield f"{where}{name} is {_short(held[name])}"
        elif kind is str and len(held[name]) > _TEXT and name != "prompt":
            yield f"{where}{name} is a text of {len(held[name]):,} signs"


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: Any) -> bool:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return False
    return abs(value) < 1e300 if isinstance(value, int) else math.isfinite(value)


def _short(value: Any) -> str:
    text = repr(value) if not isinstance(value, (list, dict)) else f"a {type(value).__name__}"
    return text if len(text) <= 60 else text[:57] + "..."
