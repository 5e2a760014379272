"""Write a graph for others: JSON as circuit-tracer and Neuronpedia read it, a table of strong edges, GraphML.

FOLDER/<slug>.json             the graph
FOLDER/graph-metadata.json     what graphs the folder holds
FOLDER/<slug>.edges.csv        edges, the strongest first
FOLDER/<slug>.graphml          for Gephi, Cytoscape, networkx
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from xml.sax.saxutils import escape, quoteattr

from elute.base import files
from elute.base.errors import ConfigError, DataError
from elute.graphs.schema import SCHEMA, TYPES, cantor, faults

if TYPE_CHECKING:
    from elute.graphs.graph import Graph
    from elute.graphs.prune import Pruned
    from elute.graphs.supernodes import Supernode

METADATA = "graph-metadata.json"
_SLUG = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_NOT_XML = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True)
class About:
    """What a graph file says besides its nodes and links."""

    slug: str
    scan: str = "elute"  # which set of dictionaries the features are of
    transcoders: tuple[str, ...] = ()
    prompt: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)  # of nodes, by id
    pinned: tuple[str, ...] = ()
    supernodes: tuple[Supernode, ...] = ()
    info: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Refuse a slug that is no file's name."""
        if not _SLUG.fullmatch(self.slug):
            remedy = "Use letters, digits, dots, dashes and underscores, 100 at most."
            raise ConfigError(f"slug {self.slug!r} cannot name a file", where="graph file", remedy=remedy)


def as_content(graph: Graph, about: About, pruned: Pruned | None = None) -> dict[str, Any]:
    """Return the content of a graph file; `pruned` says by which thresholds the graph was chosen."""
    graph.numbers([*about.labels, *about.pinned])
    metadata: dict[str, Any] = {
        "slug": about.slug,
        "scan": about.scan,
        "transcoder_list": list(about.transcoders),
        "prompt_tokens": list(graph.prompt),
        "prompt": about.prompt or " ".join(graph.prompt),
        "schema_version": SCHEMA,
    }
    if pruned is not None:
        metadata["node_threshold"] = pruned.node_threshold
        metadata["pruning_settings"] = {
            "node_threshold": pruned.node_threshold,
            "edge_threshold": pruned.edge_threshold,
        }
    facts = {"dictionaries": graph.kind, "not_linear": list(graph.not_linear), "left_out": graph.left_out.features}
    metadata["info"] = {"creator_name": "elute", **facts, **about.info}
    content = {
        "metadata": metadata,
        "qParams": {
            "pinnedIds": list(about.pinned),
            "supernodes": [[one.label, *one.nodes] for one in about.supernodes],
            "linkType": "both",
            "clickedId": "",
            "sg_pos": "",
        },
        "nodes": _nodes(graph, about.labels),
        "links": _links(graph),
    }
    for fault in faults(content):
        raise DataError(f"the graph cannot be written: {fault}", where=about.slug)
    return content


def write_graph(folder: Path, graph: Graph, about: About, *, pruned: Pruned | None = None) -> Path:
    """Write a graph's JSON and list it in the folder's metadata, in the place of an earlier one of its slug."""
    content = as_content(graph, about, pruned)
    path = files.make_folder(Path(folder)) / f"{about.slug}.json"
    if path.name == METADATA:
        raise ConfigError(
            f"slug {about.slug!r} is that of the folder's list", where="graph file", remedy="Choose another."
        )
    listed = _listed(path.parent / METADATA)
    files.write_json(path, content)
    kept = [one for one in listed if one.get("slug") != about.slug]
    graphs = sorted([*kept, content["metadata"]], key=lambda one: str(one.get("slug")))
    files.write_json(path.parent / METADATA, {"graphs": graphs})
    return path


def write_edges(path: Path, graph: Graph, *, labels: Mapping[str, str] | None = None, least: float = 0.0) -> Path:
    """Write edges as CSV, the strongest influence first; those of a share below `least` are left out."""
    import polars as pl

    known = {row["node_id"]: (labels or {}).get(row["node_id"]) or row["label"] or "" for row in graph.nodes.to_dicts()}
    kinds = dict(zip(graph.nodes["node_id"], graph.nodes["kind"], strict=True))
    table = graph.edges().filter(pl.col("share") >= least)
    for end in ("source", "target"):
        names = table[end].to_list()
        table = table.with_columns(
            pl.Series(f"{end}_kind", [kinds[n] for n in names], pl.String),
            pl.Series(f"{end}_label", [_plain(known[n]) for n in names], pl.String),
        )
    order = ("source", "source_kind", "source_label", "target", "target_kind", "target_label")
    text = table.select(*order, "weight", "share", "score").write_csv()
    files.make_folder(Path(path).parent)
    files.write_atomically(Path(path), lambda handle: handle.write(text.encode()))
    return Path(path)


def write_graphml(path: Path, graph: Graph, *, labels: Mapping[str, str] | None = None) -> Path:
    """Write a graph as GraphML."""
    keys = {"kind": "string", "layer": "int", "position": "int", "feature": "long", "label": "string"}
    keys |= {"activation": "double", "influence": "double"}
    lines = ['<?xml version="1.0" encoding="UTF-8"?>', '<graphml xmlns="http://graphml.graphdrawing.org/xmlns">']
    lines += [f'<key id="{n}" for="node" attr.name="{n}" attr.type="{kind}"/>' for n, kind in keys.items()]
    lines.append('<key id="weight" for="edge" attr.name="weight" attr.type="double"/>')
    lines.append('<key id="share" for="edge" attr.name="share" attr.type="double"/>')
    lines.append('<graph id="G" edgedefault="directed">')
    flow = graph.nodes["influence"] if "influence" in graph.nodes.columns else graph.influence.tolist()
    for row, cumulated in zip(graph.nodes.to_dicts(), flow, strict=True):
        row["influence"] = cumulated
        row["label"] = (labels or {}).get(row["node_id"]) or row["label"]
        data = [f'<data key="{n}">{_xml(row[n])}</data>' for n in keys if row[n] is not None]
        lines.append(f"<node id={quoteattr(row['node_id'])}>{''.join(data)}</node>")
    for edge in graph.edges().to_dicts():
        ends = f"source={quoteattr(edge['source'])} target={quoteattr(edge['target'])}"
        data = [f'<data key="{name}">{edge[name]!r}</data>' for name in ("weight", "share")]
        lines.append(f"<edge {ends}>{''.join(data)}</edge>")
    text = "\n".join([*lines, "</graph>", "</graphml>", ""])
    files.make_folder(Path(path).parent)
    files.write_atomically(Path(path), lambda handle: handle.write(text.encode()))
    return Path(path)


def _nodes(graph: Graph, labels: Mapping[str, str]) -> list[dict[str, Any]]:
    told = graph.nodes["influence"].to_list() if "influence" in graph.nodes.columns else None
    if told is None:
        told = [x if kind != "logit" else None for x, kind in zip(_cumulated(graph), graph.nodes["kind"], strict=True)]
    rows = graph.nodes.to_dicts()
    used = {f"{row['layer']}_{row['feature']}-0" for row in rows if row["kind"] == "feature"}
    target = max((row["weight"] for row in rows if row["kind"] == "logit"), default=None)
    found = []
    for row, influence in zip(rows, told, strict=True):
        node: dict[str, Any] = {
            "node_id": row["node_id"],
            "feature": cantor(row["layer"], row["feature"]) if row["kind"] == "feature" else row["feature"],
            "layer": "E" if row["kind"] == "token" else str(row["layer"]),
            "ctx_idx": row["position"],
            "feature_type": TYPES[row["kind"]],
            "token_prob": row["weight"] or 0.0,
            "is_target_logit": row["kind"] == "logit" and row["weight"] == target,
            "run_idx": 0,
            "reverse_ctx_idx": 0,
            "jsNodeId": _place(row, used),
            "clerp": _clerp(row, labels),
            "influence": influence,
            "activation": row["activation"],
        }
        if row["kind"] == "logit" and row["weight"] == target:
            target = None  # the first of several
        if row["kind"] == "token":
            node["feature"] = row["position"]
        found.append(node)
    return found


def _place(row: Mapping[str, Any], used: set[str]) -> str:
    """An error's place might be that of a feature whose number is the position: the last figure makes it another."""
    if row["kind"] == "token":
        return f"E_{row['feature']}-{row['position']}"
    if row["kind"] == "logit":
        return f"L_{row['feature']}-{row['position']}"
    if row["kind"] == "feature":
        return f"{row['layer']}_{row['feature']}-0"
    stem = f"{row['layer']}_{row['position']}"
    return f"{stem}-0" if f"{stem}-0" not in used else f"{stem}-1"


def _clerp(row: Mapping[str, Any], labels: Mapping[str, str]) -> str:
    label = labels.get(row["node_id"]) or row["label"] or ""
    if row["kind"] == "logit":
        return f'Output "{label}" (p={row["weight"]:.3f})'
    if row["kind"] == "error":
        return label or f"Error of layer {row['layer']} at {row['position']}"
    return str(label)


def _links(graph: Graph) -> list[dict[str, Any]]:
    found = graph.adjacency.tocoo()
    ids = graph.nodes["node_id"].to_list()
    ends = sorted(zip(found.col.tolist(), found.row.tolist(), found.data.tolist(), strict=True))
    return [{"source": ids[j], "target": ids[i], "weight": float(x)} for j, i, x in ends]


def _cumulated(graph: Graph) -> list[float]:
    from elute.graphs.prune import cumulative

    found: list[float] = cumulative(graph.influence).tolist()
    return found


def _listed(path: Path) -> list[dict[str, Any]]:
    if not path.exists():
        return []
    remedy = "Remove it, and write the graphs anew."
    held = files.read_json(path, what="a list of graphs", remedy=remedy)
    graphs = held.get("graphs") if isinstance(held, dict) else None
    if not isinstance(graphs, list) or not all(isinstance(one, dict) for one in graphs):
        raise DataError("is not a list of graphs", where=path, remedy=remedy)
    return graphs


def _xml(value: object) -> str:
    return escape(_NOT_XML.sub("\ufffd", str(value)))


def _plain(text: str) -> str:
    """A text that a spreadsheet does not take for a formula."""
    return f"'{text}" if text[:1] in ("=", "+", "-", "@", "\t", "\r") else text


def slugged(words: Sequence[str]) -> str:
    """Return a slug made of some words."""
    text = re.sub(r"[^A-Za-z0-9]+", "-", " ".join(words)).strip("-").lower()[:100].strip("-")
    return text or "graph"
