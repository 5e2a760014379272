"""A graph made, checked and written: what is the same for any model.

FOLDER/<slug>.json, <slug>.edges.csv, <slug>.graphml   the kept graph (export.py)

    made = explain(replacement, GraphConfig(), prompt=words)
    checked = check(made, GraphConfig())              # scores, edges beside ablations, influence beside effects
    beside = control(made, checked, GraphConfig())    # the same with shuffled decoders
    write(folder, made, About("tour-3"))

Each edge of the kept graph is held against what taking its source away gives in the replacement model. Edges into what
is not linear, as a bounded output, are gradients: they are held against a small step as well. The control has the
decoders of other features of the same layer: what fires, where and how strongly is the same, and what it writes is not.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from elute.graphs.attribution import attribute
from elute.graphs.export import About, write_edges, write_graph, write_graphml
from elute.graphs.interventions import agreement, check_edges, true_effects
from elute.graphs.replacement import Replacement
from elute.graphs.supernodes import MOST, Supernode, group

if TYPE_CHECKING:
    from pathlib import Path

    import polars as pl

    from elute.dictionaries.dictionary import Dictionary
    from elute.graphs.graph import Graph
    from elute.graphs.prune import Pruned
    from elute.graphs.scores import Scores
    from elute.graphs.settings import GraphConfig

    Given = Dictionary | Sequence[Dictionary]

_STEP = {torch.float64: 1 + 1e-6}


@dataclass(frozen=True, eq=False)
class Explained:
    """A graph, and what of it is kept."""

    replacement: Replacement
    graph: Graph
    pruned: Pruned
    kept: Graph
    supernodes: tuple[Supernode, ...]


def explain(
    replacement: Replacement, config: GraphConfig, *, prompt: Sequence[str] = (), ids: Sequence[int] = ()
) -> Explained:
    """Make the graph of a replacement model, prune it, and group what does the same work."""
    graph = attribute(replacement, max_features=config.max_features, prompt=prompt, ids=ids)
    pruned = graph.prune(nodes=config.node_threshold, edges=config.edge_threshold)
    kept = graph.kept(pruned)
    few = int(kept.of("feature").sum()) <= MOST
    return Explained(replacement, graph, pruned, kept, tuple(group(kept, replacement.coders)) if few else ())


@dataclass(frozen=True, eq=False)
class Checked:
    """What a graph is held against."""

    scores: Scores
    kept: Scores  # of what is kept: what was dropped counts as an error
    edges: pl.DataFrame  # every edge that is kept beside what was measured (interventions.check_edges)
    agreement: dict[str, float]  # of influence and measured effects
    effects: pl.DataFrame  # a feature a row, of the model itself
    facts: dict[str, Any]  # all else, ready for JSON


def check(made: Explained, config: GraphConfig) -> Checked:
    """Hold a graph's edges against ablations, and its influence against effects in the model itself."""
    graph, kept = made.graph, made.kept
    effects = true_effects(made.replacement, graph, most=config.ablated, seed=config.graph_seed)
    edges, bounded = edges_checked(made, config)
    facts: dict[str, Any] = {
        "dictionaries": graph.kind,
        "fired": int(graph.of("feature").sum()) + graph.left_out.features,
        "left_out": {"features": graph.left_out.features, "share_of_influence": graph.left_out.share},
        "features": int(kept.of("feature").sum()),
        "path_length": path_length(graph),
        "layers": explained(made.replacement),
        "outputs": graph.nodes.filter(graph.of("logit")).select("node_id", "label", "value", "weight").to_dicts(),
        "not_linear": list(made.replacement.not_linear),
        "into_outputs": bounded,
    }
    return Checked(graph.scores(), graph.scores(made.pruned), edges, agreement(effects), effects, facts)


def edges_checked(made: Explained, config: GraphConfig) -> tuple[pl.DataFrame, dict[str, Any] | None]:
    """Hold the edges of the kept graph against ablations.

    Where outputs are not linear in what is traced, edges into them are gradients: those are held against a small step
    in float64, and how far they are from whole ablations is returned as well.
    """
    import polars as pl

    kept = made.kept
    table = check_edges(made.replacement, kept, most=config.checked)
    kinds = dict(zip(kept.nodes["node_id"], kept.nodes["kind"], strict=True))

    def into(found: pl.DataFrame, *, outputs: bool) -> pl.DataFrame:
        return found.filter(
            pl.Series([(kinds[name] == "logit") == outputs for name in found["target"]], dtype=pl.Boolean)
        )

    step = _STEP.get(made.replacement.dtype)
    if not made.replacement.not_linear or step is None:
        return table, None
    small = check_edges(made.replacement, kept, most=config.checked, factor=step)
    return pl.concat([into(table, outputs=False), into(small, outputs=True)]), _apart(into(table, outputs=True))


def write(folder: Path, made: Explained, about: About, *, edges: pl.DataFrame | None = None) -> Path:
    """Write a graph's files; returns that of the graph. `edges` are further ones, to heads or channels."""
    called = [replace(one, label=about.labels.get(one.label) or one.label) for one in made.supernodes]
    about = replace(about, supernodes=about.supernodes or tuple(called))
    path = write_graph(folder, made.kept, about, pruned=made.pruned)
    write_edges(folder / f"{about.slug}.edges.csv", made.kept, labels=about.labels)
    write_graphml(folder / f"{about.slug}.graphml", made.kept, labels=about.labels)
    if edges is not None:
        from elute.base import files

        text = edges.write_csv()
        files.write_atomically(folder / f"{about.slug}.heads.csv", lambda handle: handle.write(text.encode()))
    return path


def shuffled(given: Given, seed: int) -> Given:
    """Return dictionaries in which each feature writes what another one of its layer wrote."""
    rng = np.random.default_rng(seed)

    def mixed(dictionary: Dictionary) -> Dictionary:
        other = copy.deepcopy(dictionary)
        for bank in other:
            bank.W_dec.data = bank.W_dec.data[torch.from_numpy(rng.permutation(len(bank.W_dec))).to(other.device)]
        return other

    return [mixed(one) for one in given] if isinstance(given, Sequence) else mixed(given)


def explained(replacement: Replacement) -> list[dict[str, Any]]:
    """Return of each layer how much of what its MLP wrote on this input features write, and how many fire."""
    found = []
    for layer, name in enumerate(replacement.layers.writes):
        y, error = replacement.y[layer][replacement.rows].double(), replacement.errors[layer].double()
        spread = float((y - y.mean(0)).square().sum())
        share = 1 - float(error.square().sum()) / spread if spread > 0 else math.nan
        fired = float(replacement.codes[layer].fired.sum()) / replacement.n_positions
        found.append({"site": name, "explained_variance": _number(share), "l0": round(fired, 6)})
    return found


def path_length(graph: Graph) -> float | None:
    """Return the mean number of features that influence goes through on its way from a token or an error to an output.

    Each start counts by its influence; the mean is over all paths, each by its share.
    """
    turned = graph.shares.T.tocsr()
    step, begin = graph.weights.copy(), graph.of("token", "error")
    begun, through = 0.0, 0.0
    for length in range(len(graph) + 1):
        step = turned @ step
        if not step.any():
            break
        begun += float(step[begin].sum())
        through += length * float(step[begin].sum())
    return _number(through / begun) if begun > 0 else None


def control(made: Explained, checked: Checked, config: GraphConfig) -> Checked:
    """Make the graph with shuffled decoders, and hold its influence against the same measured effects."""
    import polars as pl

    replacement = made.replacement
    coders = replacement.coders
    mixed = shuffled(coders.whole if coders.whole is not None else coders.parts, config.graph_seed + 1)
    other = Replacement.of(
        replacement.model, replacement.batch, mixed, outputs=replacement.chosen.of, tokens=replacement.tokens,
        layers=replacement.layers,
    )  # fmt: skip
    found = explain(other, config)
    flow = pl.DataFrame({"node_id": found.graph.nodes["node_id"], "influence": found.graph.influence})
    effects = checked.effects.drop("influence").join(flow, on="node_id", how="inner", maintain_order="left")
    told = {name: value for name, value in agreement(effects).items() if not name.startswith("control")}
    facts = {"path_length": path_length(found.graph), "layers": explained(other)}
    blank = checked.edges.clear()
    return Checked(found.graph.scores(), found.graph.scores(found.pruned), blank, told, effects, facts)


def _apart(table: pl.DataFrame) -> dict[str, Any]:
    """Say how far gradients are from whole ablations."""
    if not table.height:
        return {"edges": 0}
    edge, measured = table["edge"].to_numpy(), table["measured"].to_numpy()
    varied = len(edge) > 2 and edge.std() > 0 and measured.std() > 0
    return {
        "edges": table.height,
        "correlation": _number(float(np.corrcoef(edge, measured)[0, 1])) if varied else None,
        "median_relative": _number(float(table["difference"].median())),  # type: ignore[arg-type]
    }


def _number(value: float) -> float | None:
    """JSON has no NaN."""
    return None if math.isnan(value) else round(float(value), 6)
