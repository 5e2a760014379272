"""Attribute what a model gives on one input to features, errors and tokens.

    replacement = Replacement.of(model, batch, dictionaries, outputs=Outputs(read), tokens="blocks.0.hook_resid_pre")
    graph = attribute(replacement)
    small = graph.kept(graph.prune())

1. Rows of direct effects on the outputs come first (edges.py).
2. Where more features fired than `max_features`, those of the most influence on the outputs, as far as it is known, get
   their rows next, a piece at a time; influence is told anew after each piece. The others get no place in the graph.
3. Nodes and effects make the graph. What of a target comes from no source is its constant.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import polars as pl
from scipy import sparse

from elute.base.errors import ConfigError
from elute.graphs.edges import Effects
from elute.graphs.graph import Graph, LeftOut, table_of
from elute.graphs.scores import influence, normalised

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from elute.graphs.replacement import Replacement

    Floats = NDArray[np.float64]
    Ints = NDArray[np.int64]

MOST = 4096
_NUMBERS = 1 << 28  # of all effects that are held at once
_PIECES = 8  # in which features are chosen


def attribute(
    replacement: Replacement,
    *,
    max_features: int = MOST,
    batch: int = 64,
    prompt: Sequence[str] = (),
    ids: Sequence[int] = (),
) -> Graph:
    """Return the graph of a replacement model.

    `prompt` says what stands at each position and `ids` its number in some vocabulary; both default to the position.
    `batch` gradients are taken at once.
    """
    n = replacement.n_positions
    for name, given in (("prompt", prompt), ("ids", ids)):
        if given and len(given) != n:
            what = f"{name} has {len(given)} entries for {n} positions"
            raise ConfigError(what, where="attribute", remedy="Give one for each row that is no padding.")
    if max_features < 1:
        raise ConfigError(f"max_features={max_features}", where="attribute", remedy="Give 1 or more.")
    effects = Effects(replacement, batch=batch)
    sources = effects.sources
    asked = min(max_features, sources.n_features) + len(replacement.values)
    if asked * sources.n > _NUMBERS:
        what = f"{asked:,} targets of {sources.n:,} sources are more effects than can be held"
        raise ConfigError(what, where="attribute", remedy=f"Give max_features={_NUMBERS // sources.n // 2}, or less.")
    outputs = effects.of_outputs()
    weights = np.array(replacement.chosen.weights)
    done, rows, left = _rows(effects, outputs, weights, most=max_features)
    keep = np.concatenate([done, np.arange(sources.n_features, sources.n)])
    words = list(prompt) or [str(i) for i in range(n)]
    nodes = table_of(sources, done, replacement.chosen, ids=list(ids) or list(range(n)), prompt=words)
    return Graph(
        nodes=nodes.with_columns(**_values(replacement, effects, done, np.vstack([rows, outputs]))),
        adjacency=_square(rows[:, keep], outputs[:, keep]),
        n_layers=replacement.n_layers,
        n_positions=n,
        prompt=tuple(words),
        kind=replacement.coders.kind,
        left_out=left,
        not_linear=replacement.not_linear,
    )


def _rows(effects: Effects, outputs: Floats, weights: Floats, *, most: int) -> tuple[Ints, Floats, LeftOut]:
    """Return which features are in the graph, ascending, and the effects on them."""
    n = effects.sources.n_features
    if n <= most:
        every = np.arange(n)
        return every, effects.of_features(every), LeftOut()
    step = max(1, most // _PIECES)
    order: list[int] = []
    rows = np.zeros((most, effects.sources.n))
    flow = _influence(order, rows[:0], outputs, weights)
    while len(order) < most:
        waiting = flow[:n].copy()
        waiting[order] = -1.0
        new = np.argsort(-waiting, kind="stable")[: min(step, most - len(order))]
        rows[len(order) : len(order) + len(new)] = effects.of_features(new)
        order += new.tolist()
        flow = _influence(order, rows[: len(order)], outputs, weights)
    sort = np.argsort(order)
    rest = np.ones(n, bool)
    rest[order] = False
    whole = float(flow[:n].sum())
    share = float(flow[:n][rest].sum()) / whole if whole > 0 else 0.0
    return np.array(order)[sort], rows[sort], LeftOut(int(rest.sum()), share)


def _influence(order: Sequence[int], rows: Floats, outputs: Floats, weights: Floats) -> Floats:
    """Return the influence of all sources by the rows that are known."""
    n = outputs.shape[1]
    at = np.concatenate([np.asarray(order, dtype=np.int64), n + np.arange(len(outputs))])
    known = sparse.csr_array(np.vstack([rows, outputs]))
    placed = sparse.csr_array((np.ones(len(at)), (at, np.arange(len(at)))), shape=(n + len(outputs), len(at))) @ known
    square = sparse.hstack([placed, sparse.csr_array((n + len(outputs), len(outputs)))])
    return influence(normalised(square), np.concatenate([np.zeros(n), weights]))


def _square(features: Floats, outputs: Floats) -> sparse.csr_array:
    n_features, width = features.shape
    blank = sparse.csr_array((width - n_features, width))
    top = sparse.vstack([sparse.csr_array(features), blank, sparse.csr_array(outputs)])
    whole = sparse.csr_array(sparse.hstack([top, sparse.csr_array((top.shape[0], len(outputs)))]))
    whole.eliminate_zeros()
    return whole


def _values(replacement: Replacement, effects: Effects, done: Ints, rows: Floats) -> dict[str, pl.Series]:
    """Values of the targets, and what of them comes from no source."""
    activation = effects.sources.activation[done]
    outputs = replacement.values.double().cpu().numpy()
    blank = np.full(effects.sources.n - effects.sources.n_features, np.nan)
    told = np.concatenate([activation, outputs]) - rows.sum(axis=1)
    value = np.concatenate([activation, blank, outputs])
    constant = np.concatenate([told[: len(done)], blank, told[len(done) :]])
    return {name: pl.Series(name, x, nan_to_null=True) for name, x in (("value", value), ("constant", constant))}
