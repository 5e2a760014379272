"""Influence, scores and pruning: a worked case, and independent ways to the same numbers."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import sparse

from elute.base.errors import ConfigError, DataError
from elute.graphs.prune import cumulative, fewest, prune, scores_of_pruned
from elute.graphs.scores import influence, normalised, scores

# In the order f0 f1 e0 e1 t0 t1 l0.
A = np.zeros((7, 7))
A[0, 4], A[1, 0], A[1, 5], A[1, 2], A[6, 1], A[6, 3] = 2, 1, 1, 0.5, 3, 1
W = np.array([0, 0, 0, 0, 0, 0, 1.0])
FEATURES = np.array([1, 1, 0, 0, 0, 0, 0], bool)
ERRORS = np.array([0, 0, 1, 1, 0, 0, 0], bool)
TOKENS = np.array([0, 0, 0, 0, 1, 1, 0], bool)
FIXED = np.array([0, 0, 0, 0, 1, 1, 1], bool)


def test_the_worked_case() -> None:
    assert influence(normalised(A), W) == pytest.approx([0.3, 0.75, 0.15, 0.25, 0.3, 0.3, 0], abs=1e-15)
    found = scores(A, W, errors=ERRORS, tokens=TOKENS)
    assert found.replacement == pytest.approx(0.6, abs=1e-15)
    assert found.completeness == pytest.approx(0.868852, abs=5e-7)
    pruned = prune(A, W, features=FEATURES, fixed=FIXED)
    assert pruned.nodes.tolist() == [True, True, False, False, True, True, True]
    assert pruned.cumulative.round(4).tolist() == [0.5122, 0.3659, 1.0, 0.9268, 0.6585, 0.8049, 1.0]
    assert {(int(i), int(j)) for i, j in zip(*pruned.edges.nonzero(), strict=True)} == {(0, 4), (1, 0), (1, 5), (6, 1)}


def random_graph(seed: int, n: int = 12) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Features in the order of computation, then errors, tokens and two outputs."""
    rng = np.random.default_rng(seed)
    f, e, t = n - 8, 3, 3
    M = np.zeros((n, n))
    for i in range(f):
        M[i, :i] = rng.normal(size=i) * (rng.random(i) < 0.6)
        M[i, f : f + e + t] = rng.normal(size=e + t) * (rng.random(e + t) < 0.5)
    M[-2:, :-2] = rng.normal(size=(2, n - 2)) * (rng.random((2, n - 2)) < 0.7)
    kinds = np.array(["f"] * f + ["e"] * e + ["t"] * t + ["l"] * 2)
    w = np.where(kinds == "l", rng.random(n), 0.0)
    return M, w, kinds == "f", kinds == "e", kinds == "t"


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000))
def test_influence_is_the_inverse_and_the_scores_follow(seed: int) -> None:
    M, w, _, errors, tokens = random_graph(seed)
    shares = np.abs(M) / np.maximum(np.abs(M).sum(1, keepdims=True), 1e-10)
    flow = w @ np.linalg.inv(np.eye(len(M)) - shares) - w
    assert influence(normalised(M), w) == pytest.approx(flow, abs=1e-12)
    found = scores(M, w, errors=errors, tokens=tokens)
    if flow[errors | tokens].sum() > 0:
        assert found.replacement == pytest.approx(flow[tokens].sum() / flow[tokens | errors].sum())
    whole = sum((1 - shares[i][errors].sum()) * (flow[i] + w[i]) for i in range(len(M)))
    assert found.completeness == pytest.approx(whole / (flow + w).sum())


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 10_000), st.sampled_from([0.3, 0.8, 0.95, 1.0]), st.sampled_from([0.5, 0.98, 1.0]))
def test_pruning_as_written_out(seed: int, nodes: float, edges: float) -> None:
    """The published procedure in loops over dense matrices."""
    M, w, features, errors, _tokens = random_graph(seed)
    fixed = ~(features | errors)
    pruned = prune(M, w, features=features, fixed=fixed, nodes=nodes, edges=edges)
    flow = influence(normalised(M), w)
    kept = set(np.flatnonzero(fixed))
    total = 0.0
    for i in sorted(range(len(M)), key=lambda i: (-flow[i], i)):
        if total >= nodes * flow.sum() - 1e-9:
            break
        kept.add(i)
        total += flow[i]
    P = np.array([[M[i, j] if i in kept and j in kept else 0 for j in range(len(M))] for i in range(len(M))])
    S = np.abs(P) / np.maximum(np.abs(P).sum(1, keepdims=True), 1e-10)
    S = S * (influence(normalised(P), w) + w)[:, None]
    edge, total = set(), 0.0
    for value, i, j in sorted(((S[i, j], i, j) for i, j in zip(*S.nonzero(), strict=True)), key=lambda x: -x[0]):
        if total >= edges * S.sum() - 1e-9:
            break
        edge.add((int(i), int(j)))
        total += value
    while True:
        edge = {(i, j) for i, j in edge if i in kept and j in kept}
        drop = {k for k in kept if not fixed[k] and not any(j == k for _, j in edge)}
        drop |= {k for k in kept if features[k] and not any(i == k for i, _ in edge)}
        if not drop:
            break
        kept -= drop
    assert set(np.flatnonzero(pruned.nodes)) == kept
    assert {(int(i), int(j)) for i, j in zip(*pruned.edges.nonzero(), strict=True)} == edge


def test_what_is_dropped_counts_as_an_error() -> None:
    M, w, _, errors, tokens = random_graph(3)
    whole = np.ones(len(M), bool)
    same = scores_of_pruned(M, w, whole, errors=errors, tokens=tokens)
    assert (same.replacement, same.completeness) == pytest.approx(
        tuple(vars(scores(M, w, errors=errors, tokens=tokens)).values())
    )
    less = whole.copy()
    less[2] = False
    by_hand = M.copy()  # the dropped feature becomes a node that nothing causes: an error
    by_hand[2] = 0
    also = errors.copy()
    also[2] = True
    told = scores_of_pruned(M, w, less, errors=errors, tokens=tokens)
    assert (told.replacement, told.completeness) == pytest.approx(
        tuple(vars(_without_reach(by_hand, w, also, tokens)).values()), abs=1e-12
    )


def _without_reach(M: np.ndarray, w: np.ndarray, errors: np.ndarray, tokens: np.ndarray) -> object:
    return scores(M, w, errors=errors, tokens=tokens)


def test_fewest_and_cumulated() -> None:
    values = np.array([1.0, 3.0, 0.0, 3.0, 3.0])
    assert fewest(values, 0.5).tolist() == [False, True, False, True, False]
    assert fewest(values, 0.6).tolist() == [False, True, False, True, False]
    assert fewest(values, 0.61).tolist() == [False, True, False, True, True]
    assert cumulative(values) == pytest.approx([1.0, 0.3, 1.0, 0.6, 0.9])
    assert not fewest(np.zeros(3), 0.8).any()


def test_what_is_refused() -> None:
    circle = sparse.csr_array(np.array([[0.0, 1, 0], [1, 0, 0], [1, 0, 0]]))
    with pytest.raises(DataError, match="effects go in circles"):
        influence(normalised(circle), np.array([0, 0, 1.0]))
    with pytest.raises(ConfigError, match="nodes=1.5"):
        prune(A, W, features=FEATURES, fixed=FIXED, nodes=1.5)
