"""Interventions: is an edge what an ablation gives, and does influence tell what matters to the model itself?

    check_edges(replacement, graph)         every edge of some sources beside what their ablation gives
    measured_adjacency(replacement, graph)  all effects by ablations alone, no gradients
    true_effects(replacement, graph)        features ablated in the model itself, beside their influence
    agreement(table)                        rank correlations of both, and of the control

In the replacement model a source is taken away (or scaled) with all other sources as they were, so that what a target
loses is the edge. In the model itself nothing is held: attention, norms and MLPs follow. There the control of a feature
is another feature of its layer, drawn at random and scaled to write as much in each layer. A feature of a cross-layer
transcoder writes into later layers whose MLPs follow as well, so that a part may count twice; `held` lets MLPs write
what they wrote.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch
from scipy import sparse
from torch import Tensor

from elute.base.errors import ConfigError, GuardError
from elute.base.statistics.correlation import spearman

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from elute.graphs.graph import Graph
    from elute.graphs.replacement import Pass, Replacement

_FLOOR = 1e-6  # of the strongest edge into a target: smaller ones are compared with this


def check_edges(
    replacement: Replacement,
    graph: Graph,
    *,
    factor: float = 0.0,
    most: int = 100,
    sources: Sequence[str] | None = None,
) -> pl.DataFrame:
    """Return each edge beside what is measured when its source is scaled by `factor`.

    `sources` are node ids; else the `most` of the greatest influence. `difference` is relative to the edge.
    """
    _fits(replacement, graph)
    if factor == 1:
        raise ConfigError(
            "factor=1 changes nothing", where="check_edges", remedy="Give 0 to ablate, or another number."
        )
    numbers = graph.numbers(sources) if sources is not None else _strongest(graph, most)
    turned = graph.adjacency.tocsc()
    largest = abs(graph.adjacency).max(axis=1).toarray().reshape(-1)
    before = _targets(replacement, graph, replacement.live())
    ids, parts = graph.nodes["node_id"], []
    for source in numbers:
        change = (_after(replacement, graph, int(source), factor) - before) / (factor - 1.0)
        targets = turned.indices[turned.indptr[source] : turned.indptr[source + 1]]
        edge = turned.data[turned.indptr[source] : turned.indptr[source + 1]]
        scale = np.maximum(np.abs(edge), _FLOOR * largest[targets])
        parts.append(
            pl.DataFrame(
                {
                    "source": [ids[int(source)]] * len(targets),
                    "target": ids.gather(targets),
                    "edge": edge.astype(np.float64),
                    "measured": change[targets],
                    "difference": np.abs(change[targets] - edge) / scale,
                }
            )
        )
    empty = pl.DataFrame(schema={"source": pl.String, "target": pl.String, **dict.fromkeys(_MEASURED, pl.Float64)})
    return pl.concat([empty, *parts])


_MEASURED = ("edge", "measured", "difference")


def measured_adjacency(replacement: Replacement, graph: Graph, *, factor: float = 0.0) -> Any:
    """Return all effects as ablations give them, one forward a source: csr_array [nodes, nodes]."""
    _fits(replacement, graph)
    before = _targets(replacement, graph, replacement.live())
    found = np.zeros((len(graph), len(graph)))
    for source in np.flatnonzero(graph.of("feature", "error", "token")):
        found[:, source] = (_after(replacement, graph, int(source), factor) - before) / (factor - 1.0)
    # What rounding leaves of nothing is no effect.
    found[np.abs(found) < 1e-12 * np.abs(found).max(axis=1, keepdims=True)] = 0.0
    return sparse.csr_array(found)


def total_effects(
    replacement: Replacement, graph: Graph, sources: Sequence[str], *, factor: float = 0.0
) -> pl.DataFrame:
    """Return what scaling a source does to each output in the replacement model, through all other features.

    `by_paths` is what the graph says: the sum over all paths. Both agree where no feature was left out of the graph.
    """
    _fits(replacement, graph)
    outputs = np.flatnonzero(graph.of("logit"))
    before = replacement.live(cascade=True).values.double().cpu().numpy()
    ids, rows = graph.nodes["node_id"].to_list(), []
    for source in graph.numbers(sources):
        add, start = change_of(replacement, graph, int(source), factor=factor)
        after = replacement.live(add=add, start=start, cascade=True).values.double().cpu().numpy()
        step = np.zeros(len(graph))
        step[source] = factor - 1.0
        paths = np.zeros(len(graph))
        while step.any():
            step = graph.adjacency @ step
            paths += step
            # An effect on an activation changes what it writes in proportion, of which its column is the whole.
            step = _per_activation(graph, step)
        rows += [(ids[source], ids[o], float(after[i] - before[i]), float(paths[o])) for i, o in enumerate(outputs)]
    return pl.DataFrame(rows, schema=["source", "output", "measured", "by_paths"], orient="row")


def true_effects(
    replacement: Replacement, graph: Graph, *, most: int = 100, held: bool = False, seed: int = 0
) -> pl.DataFrame:
    """Ablate features in the model itself and return what that does to its outputs, beside their influence.

    Of more features than `most` those are taken that lie evenly among all by influence. `change` is the weighted mean
    of what the explained outputs change by; `kl` that of the choice, where it is one. Both also of the control.
    """
    _fits(replacement, graph)
    rng = np.random.default_rng(seed)
    numbers = _spread(graph, most)
    clean = replacement.true(held=held)
    rows = []
    for source in numbers:
        add, _ = change_of(replacement, graph, int(source))
        other = _control(replacement, graph, int(source), add, rng)
        told = [_told(replacement, clean, replacement.true(add=x, held=held)) for x in (add, other)]
        rows.append((graph.nodes["node_id"][int(source)], float(graph.influence[source]), *told[0], *told[1]))
    names = ("influence", "change", "kl", "control_change", "control_kl")
    return pl.DataFrame(rows, schema={"node_id": pl.String, **dict.fromkeys(names, pl.Float64)}, orient="row")


def agreement(effects: pl.DataFrame) -> dict[str, float]:
    """Return Spearman's correlation of influence with each measured effect, and the features that it is of.

    In which layer, where and how strongly a feature fires decides much by itself, and the control has the same: what
    influence knows beyond is how far it correlates better with the feature than with the control. `within` is the
    correlation of `change` among features of one layer and position, their ranks taken together.
    """
    told: dict[str, float] = {"features": float(effects.height)}
    for name in ("change", "kl", "control_change", "control_kl"):
        known = effects.filter(pl.col(name).is_not_null())
        if known.height < 3:
            continue
        found = spearman(known["influence"].to_numpy(), known[name].to_numpy())
        told[name], told[f"{name}_p"] = float(found.rho[0]), float(found.p[0])
    for name, measured in (("within", "change"), ("control_within", "control_change")):
        told[name] = _within(effects, measured)
    return told


def _within(effects: pl.DataFrame, measured: str) -> float:
    """Return the correlation of ranks within layer and position; NaN where no two features share both."""
    place = pl.col("node_id").str.replace(r"_\d+_", "_")
    ranks = [(pl.col(name).rank() - pl.col(name).rank().mean()).over(place) for name in ("influence", measured)]
    x, y = (effects.select(rank).to_series().to_numpy() for rank in ranks)
    scale = float(np.sqrt((x @ x) * (y @ y)))
    return float(x @ y) / scale if scale > 0 else float("nan")


def change_of(
    replacement: Replacement, graph: Graph, number: int, *, factor: float = 0.0
) -> tuple[dict[int, Tensor], Tensor | None]:
    """Return what is added to what layers write, and to the tokens, when a node is scaled by `factor`."""
    node = graph.nodes.row(number, named=True)
    layer, at, step = node["layer"], node["position"], factor - 1.0
    blank = {to: torch.zeros_like(replacement.errors[to]) for to in range(replacement.n_layers)}
    if node["kind"] == "feature":
        add = {}
        for to in replacement.coders.written(layer):
            add[to] = blank[to]
            W = replacement.coders.decoder(layer, to)[node["feature"]]
            add[to][at] = step * node["activation"] * W.to(replacement.dtype)
        return add, None
    if node["kind"] == "error":
        blank[layer][at] = step * replacement.errors[layer][at]
        return {layer: blank[layer]}, None
    if node["kind"] == "token" and replacement.start is not None:
        kept = replacement.start[replacement.rows]
        start = torch.zeros_like(kept)
        start[at] = step * kept[at]
        return {}, start
    what = f"node {node['node_id']!r} is an output, which causes nothing"
    raise ConfigError(what, where="intervention", remedy="Choose a feature, an error or a token.")


def _after(replacement: Replacement, graph: Graph, source: int, factor: float) -> NDArray[np.float64]:
    add, start = change_of(replacement, graph, source, factor=factor)
    return _targets(replacement, graph, replacement.live(add=add, start=start))


def _targets(replacement: Replacement, graph: Graph, run: Pass) -> NDArray[np.float64]:
    """Return pre-activations of the graph's features and its outputs, in the order of nodes; 0 elsewhere."""
    found = np.zeros(len(graph))
    for where, layer, position, feature in _features(graph):
        x = run.x[layer][replacement.rows][torch.from_numpy(position).to(replacement.rows.device)]
        W, b = replacement.coders.encoders(layer, torch.from_numpy(feature).to(x.device))
        found[where] = ((x * W.to(x.dtype)).sum(-1) + b).double().cpu().numpy()
    found[graph.of("logit")] = run.values.double().cpu().numpy()
    return found


def _features(graph: Graph) -> Iterator[tuple[Any, int, Any, Any]]:
    kind, layer, position, feature = (graph.nodes[n].to_numpy() for n in ("kind", "layer", "position", "feature"))
    for number in range(graph.n_layers):
        where = np.flatnonzero((kind == "feature") & (layer == number))
        if len(where):
            yield where, number, position[where].copy(), feature[where].copy()


def _per_activation(graph: Graph, step: NDArray[np.float64]) -> NDArray[np.float64]:
    activation = graph.nodes["activation"].fill_null(0.0).to_numpy()
    found: NDArray[np.float64] = np.divide(step, activation, out=np.zeros_like(step), where=activation != 0)
    return found


def _strongest(graph: Graph, most: int) -> NDArray[np.int64]:
    able = np.flatnonzero(graph.of("feature", "error", "token"))
    return able[np.argsort(-graph.influence[able], kind="stable")][:most]


def _spread(graph: Graph, most: int) -> NDArray[np.int64]:
    able = np.flatnonzero(graph.of("feature") & (graph.influence > 0))
    order = able[np.argsort(-graph.influence[able], kind="stable")]
    if len(order) <= most:
        return order
    return order[np.linspace(0, len(order) - 1, most).round().astype(np.int64)]


def _control(
    replacement: Replacement, graph: Graph, source: int, add: Mapping[int, Tensor], rng: np.random.Generator
) -> dict[int, Tensor]:
    """Return what another feature of the layer would write, as strong in each layer as the one that is ablated."""
    node = graph.nodes.row(source, named=True)
    layer, at = node["layer"], node["position"]
    others = np.delete(np.arange(replacement.coders.n_features[layer]), node["feature"])
    able = [f for f in others if bool(replacement.coders.decoder(layer, layer)[int(f)].any())]
    if not able:
        return dict(add)
    other = int(rng.choice(able))
    found = {}
    for to, change in add.items():
        W = replacement.coders.decoder(layer, to)[other].to(change.dtype)
        norm = float(W.norm())
        found[to] = torch.zeros_like(change)
        found[to][at] = W * (-change[at].norm() / norm) if norm > 0 else 0.0
    return found


def _told(replacement: Replacement, clean: Any, after: Any) -> tuple[float, float | None]:
    chosen = replacement.chosen
    weights = torch.tensor(chosen.weights, dtype=torch.float64)
    moved = (chosen.values(after) - chosen.values(clean)).abs().double().cpu()
    change = float((weights * moved).sum() / weights.sum())
    if chosen.of.weights is not None:
        return change, None
    p, q = (chosen.every(out).double().log_softmax(0) for out in (clean, after))
    return change, max(0.0, float((p.exp() * (p - q)).sum()))


def _fits(replacement: Replacement, graph: Graph) -> None:
    if (graph.n_layers, graph.n_positions) != (replacement.n_layers, replacement.n_positions):
        what = f"the graph is of {graph.n_layers} layers and {graph.n_positions} positions"
        raise GuardError(what, where="intervention", remedy="Give the graph of this replacement model.")
