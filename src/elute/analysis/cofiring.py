"""Features that fire in the same rows, and the modules that they form.

1. Rows are sampled evenly, at most 200,000. What is counted is whether a feature fired, not how strongly.
2. c_ij, in how many rows both fired, is counted a block of features at a time: block × features numbers are held.
3. A pair counts where c_ij is at least `least` and lies `z` standard deviations above what independent features with
   as many firings would give, and where Fisher's exact test says that none of all pairs of features would reach that
   by chance (Bonferroni's bound, `level`). Three standard deviations alone let 100,000 edges pass between 16,384
   independent features. The score of a pair is the cosine c_ij / √(c_i c_j).
4. The `most` highest of each feature are kept. Together they make a graph, weighted by score; its communities (Louvain)
   are the modules, the largest first. A feature without an edge is in none.
5. Controls. *Rewired*: the same degrees and weights between random ends; a graph of many communities by itself has a
   modularity, and only what exceeds this one is structure. *Shuffled*: each feature's firings moved to random rows; how
   many edges are left says how many the limits of step 3 let pass by chance.

V. D. Blondel et al., J. Stat. Mech. P10008, 2008.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from elute.base.compiled import compiled, over
from elute.base.errors import DataError
from elute.base.statistics.checks import Floats, Ints, at_least, generator, proportion
from elute.base.statistics.exact import fisher_exact, tables_from_overlap

if TYPE_CHECKING:
    from elute.base.codes import Codes

BLOCK = 256  # features whose joint firings are counted at a time


@dataclass(frozen=True, eq=False)
class Together:
    """For each feature those that fire with it, highest score first; −1 and NaN where there are no more."""

    features: NDArray[np.int32]  # [features, most]
    scores: NDArray[np.float32]

    def lists(self) -> tuple[list[list[int]], list[list[float]]]:
        """Return numbers and scores as lists of what there is."""
        kept = self.features >= 0
        names = [row[mask].tolist() for row, mask in zip(self.features, kept, strict=True)]
        return names, [row[mask].tolist() for row, mask in zip(self.scores, kept, strict=True)]

    def edges(self) -> tuple[Ints, Floats]:
        """Return pairs [edges, 2] of features, lower number first and in order, and their scores."""
        n = len(self.features)
        rows, slots = np.nonzero(self.features >= 0)
        others = self.features[rows, slots].astype(np.int64)
        keys, first = np.unique(np.minimum(rows, others) * n + np.maximum(rows, others), return_index=True)
        return np.stack(np.divmod(keys, n), axis=1), self.scores[rows, slots][first].astype(np.float64)


@dataclass(frozen=True, eq=False)
class Modules:
    """Communities of the graph of what fires together."""

    module: NDArray[np.int32]  # [features]; −1 where a feature has no edge
    sizes: tuple[int, ...]
    edges: int
    modularity: float | None  # None without an edge
    edges_shuffled: int | None  # None where no control was made
    modularity_rewired: float | None

    def record(self) -> dict[str, Any]:
        """Return numbers alone, as a report keeps them."""
        kept = ("edges", "modularity", "edges_shuffled", "modularity_rewired")
        return {"modules": len(self.sizes), "largest": list(self.sizes[:10])} | {k: getattr(self, k) for k in kept}


@dataclass(frozen=True, eq=False)
class Cofiring:
    """What fires together."""

    together: Together
    modules: Modules
    rows: int  # sampled


def cofiring(
    codes: Iterable[Codes],
    n_rows: int,
    *,
    rows: int = 200_000,
    most: int = 10,
    least: int = 10,
    z: float = 3.0,
    level: float = 0.05,
    seed: int = 0,
    control: bool = True,
) -> Cofiring:
    """Find what fires together in `n_rows` rows of codes, given in parts."""
    fired = sample(codes, n_rows, rows=rows)
    found = fire_together(fired, most=most, least=least, z=z, level=level)
    pairs, scores = found.edges()
    module, sizes, quality = _communities(pairs, scores, n=fired.shape[1], seed=seed)
    shuffled, rewired = None, None
    if control:
        rng = generator(seed, "cofiring")
        again = fire_together(_shuffled(fired, rng), most=most, least=least, z=z, level=level)
        shuffled = len(again.edges()[0])
        rewired = _communities(*_rewired(pairs, scores, rng), n=fired.shape[1], seed=seed)[2]
    return Cofiring(found, Modules(module, sizes, len(pairs), quality, shuffled, rewired), fired.shape[0])


def sample(codes: Iterable[Codes], n_rows: int, *, rows: int = 200_000) -> Any:
    """Return which features fired in evenly spaced rows, as a csr_array of ones [rows, features]."""
    at_least(rows, 1, "sample(rows)")
    m = min(rows, at_least(n_rows, 1, "sample(n_rows)"))
    wanted = np.arange(m) * n_rows // m
    seen, width = 0, None
    columns: list[NDArray[np.int32]] = []
    counts: list[Ints] = []
    for part in codes:
        if width is not None and part.n_features != width:
            raise DataError(f"parts of {width} and of {part.n_features} features", where="sample(codes)")
        width = part.n_features
        low, high = np.searchsorted(wanted, (seen, seen + len(part)))
        chosen = part[wanted[low:high] - seen]
        columns.append(chosen.fired().features.cpu().numpy())
        counts.append(chosen.l0().cpu().numpy())
        seen += len(part)
    if seen != n_rows or width is None:
        raise DataError(f"{seen:,} rows where {n_rows:,} were announced", where="sample(codes)")
    indptr = np.concatenate([[0], np.cumsum(np.concatenate(counts))])
    features = np.concatenate(columns)
    fired = sparse.csr_array((np.ones(len(features), np.int8), features, indptr), shape=(m, width))
    fired.sort_indices()
    return fired


def fire_together(fired: Any, *, most: int = 10, least: int = 10, z: float = 3.0, level: float = 0.05) -> Together:
    """Find the features that fire with each other in a csr_array of ones [rows, features]."""
    at_least(most, 1, "fire_together(most)")
    at_least(least, 1, "fire_together(least)")
    width = fired.shape[1]
    by_feature = fired.tocsc()
    totals = np.diff(by_feature.indptr).astype(np.int64)
    there = int((totals > 0).sum())
    log_p = np.log(proportion(level, "fire_together(level)")) - np.log(max(1, there * (there - 1) // 2))
    features = np.full((width, most), -1, dtype=np.int32)
    scores = np.full((width, most), np.nan, dtype=np.float32)
    joint = np.empty((min(BLOCK, width), width), dtype=np.int32)
    for first in range(0, width, BLOCK):
        size = min(BLOCK, width - first)
        into = joint[:size]
        over(size, _count_joint, by_feature.indptr, by_feature.indices, fired.indptr, fired.indices, first, into)
        into[np.arange(size), first + np.arange(size)] = 0
        mine, other = np.nonzero(into >= least)
        both = into[mine, other].astype(np.int64)
        a, b = totals[first + mine], totals[other]
        kept = np.flatnonzero(_apart(both, a, b, n=fired.shape[0]) >= z)
        if len(kept):
            tables = tables_from_overlap(both[kept], a[kept], b[kept], population=fired.shape[0])
            kept = kept[fisher_exact(tables, alternative="greater").log_p <= log_p]
        mine, other, score = mine[kept], other[kept], both[kept] / np.sqrt(a[kept] * b[kept].astype(np.float64))
        order = np.lexsort((other, -score, mine))
        mine, other, score = mine[order], other[order], score[order]
        place = np.arange(len(mine)) - np.searchsorted(mine, mine)
        top = place < most
        features[first + mine[top], place[top]] = other[top]
        scores[first + mine[top], place[top]] = score[top]
    return Together(features, scores)


def _apart(both: Ints, a: Ints, b: Ints, *, n: int) -> Floats:
    """Return how many standard deviations joint firings lie above what independence gives."""
    expected = a * (b / n)
    variance = expected * (1.0 - a / n) * (1.0 - b / n) * (n / max(n - 1, 1))
    # A feature that fires in every row fires with all others, which says nothing.
    apart: Floats = np.where(variance > 0, (both - expected) / np.sqrt(np.where(variance > 0, variance, 1.0)), 0.0)
    return apart


@compiled
def _count_joint(
    starts: Ints, rows: Ints, ends: Ints, columns: Ints, first: int, joint: NDArray[np.int32], lo: int, hi: int
) -> None:
    """Count in how many rows the features first + lo … fired together with every other."""
    for f in range(lo, hi):
        joint[f, :] = 0
        for i in range(starts[first + f], starts[first + f + 1]):
            for j in range(ends[rows[i]], ends[rows[i] + 1]):
                joint[f, columns[j]] += 1


def _communities(
    pairs: Ints, scores: Floats, *, n: int, seed: int
) -> tuple[NDArray[np.int32], tuple[int, ...], float | None]:
    """Return the module of each feature, the sizes of modules and their modularity."""
    import networkx as nx

    module = np.full(n, -1, dtype=np.int32)
    if not len(pairs):
        return module, (), None
    graph = nx.Graph()
    graph.add_weighted_edges_from(zip(*pairs.T.tolist(), scores.tolist(), strict=True))
    found = [sorted(c) for c in nx.community.louvain_communities(graph, weight="weight", seed=seed)]
    found.sort(key=lambda members: (-len(members), members[0]))
    for number, members in enumerate(found):
        module[members] = number
    quality = float(nx.community.modularity(graph, [set(members) for members in found], weight="weight"))
    return module, tuple(len(members) for members in found), quality


def _rewired(pairs: Ints, scores: Floats, rng: np.random.Generator) -> tuple[Ints, Floats]:
    """Give edges other ends, so that each feature keeps as many: ends are shuffled, and what no graph has, again.

    The few edges that are still loops or doubles after that are left out.
    """
    ends = pairs.copy()
    bad = np.ones(len(ends), dtype=bool)
    for _ in range(100 if len(ends) else 0):
        again = bad | (rng.random(len(ends)) < min(1.0, 2.0 * bad.mean()))
        mixed = ends[again].ravel()
        rng.shuffle(mixed)
        ends[again] = mixed.reshape(-1, 2)
        ends.sort(axis=1)
        _, first = np.unique(ends, axis=0, return_index=True)
        bad[:] = True
        bad[first] = False
        bad |= ends[:, 0] == ends[:, 1]
        if not bad.any():
            break
    return ends[~bad], scores[~bad]


def _shuffled(fired: Any, rng: np.random.Generator) -> Any:
    """Move each feature's firings to random rows."""
    n, width = fired.shape
    totals = np.bincount(fired.indices, minlength=width)
    rows = [rng.choice(n, size=int(total), replace=False, shuffle=False) for total in totals]
    indptr = np.concatenate([[0], np.cumsum(totals)])
    data = np.ones(len(fired.indices), np.int8)
    moved = sparse.csc_array((data, np.concatenate(rows), indptr), shape=(n, width)).tocsr()
    moved.sort_indices()
    return moved
