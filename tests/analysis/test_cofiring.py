from __future__ import annotations

import json
from itertools import combinations

import networkx as nx
import numpy as np
import pytest
import torch
from scipy import sparse, stats

from elute.analysis import cofiring as m
from elute.base.codes import Codes
from elute.base.errors import ConfigError, DataError

RNG = np.random.default_rng(61)
N, F = 600, 30


def planted(rng=RNG, n=N):
    """Three groups of features that fire together (0–4, 5–11, 12–15), others by themselves; 29 never."""
    fires = rng.random((n, F)) < 0.05
    for members, often in (((0, 5), 0.1), ((5, 12), 0.15), ((12, 16), 0.2)):
        on = rng.random(n) < often
        fires[:, slice(*members)] = on[:, None] & (rng.random((n, members[1] - members[0])) < 0.8)
    fires[:, 29] = False
    return fires


FIRES = planted()


def codes(fires=FIRES, sizes=(100, 1, 249, 250)):
    dense = torch.tensor(fires * np.where(np.arange(fires.shape[1]) % 2, -1.0, 2.0), dtype=torch.float32)
    return (Codes.from_dense(part, fires.shape[1], by="magnitude") for part in dense.split(sizes))


def matrix(fires):
    return sparse.csr_array(fires.astype(np.int8))


def plain(fires, *, most=10, least=10, level=0.05, z=3.0):
    """Every pair by itself, by scipy's hypergeometric law."""
    n, totals = len(fires), fires.sum(0)
    alive = int((totals > 0).sum())
    found = {f: [] for f in range(fires.shape[1])}
    for i, j in combinations(range(fires.shape[1]), 2):
        both = int((fires[:, i] & fires[:, j]).sum())
        law = stats.hypergeom(n, totals[i], totals[j])
        if both < least or law.std() == 0 or (both - law.mean()) / law.std() < z:
            continue
        if law.sf(both - 1) <= level / (alive * (alive - 1) / 2):
            score = both / np.sqrt(totals[i] * totals[j])
            found[i].append((j, score))
            found[j].append((i, score))
    return [sorted(row, key=lambda x: (-x[1], x[0]))[:most] for row in found.values()]


@pytest.mark.parametrize("block", [1, 7, 256])
@pytest.mark.parametrize(("most", "least"), [(10, 10), (2, 40)])
def test_pairs_are_those_of_every_pair_by_itself(monkeypatch, block, most, least):
    monkeypatch.setattr(m, "BLOCK", block)
    names, scores = m.fire_together(matrix(FIRES), most=most, least=least).lists()
    wanted = plain(FIRES, most=most, least=least)
    assert names == [[j for j, _ in row] for row in wanted]
    assert any(len(row) == most for row in names) == (most == 2)
    for ours, row in zip(scores, wanted, strict=True):
        np.testing.assert_allclose(ours, [s for _, s in row], rtol=1e-6)


def test_limits_are_asked_for():
    # Three standard deviations alone, with a bound that asks for nothing.
    loose = m.fire_together(matrix(FIRES), level=0.999, least=1, z=3.0).edges()[0]
    strict = m.fire_together(matrix(FIRES), level=1e-50, least=1, z=3.0).edges()[0]
    assert len(loose) > len(strict) > 0
    assert len(m.fire_together(matrix(FIRES), z=1000.0).edges()[0]) == 0


def test_a_feature_that_always_fires_says_nothing():
    fires = FIRES.copy()
    fires[:, 20] = True
    assert (m.fire_together(matrix(fires)).features != 20).all()


def test_edges_name_each_pair_once():
    together = m.fire_together(matrix(FIRES))
    pairs, scores = together.edges()
    names, values = together.lists()
    every = {
        (min(i, j), max(i, j)): s
        for i, (row, ss) in enumerate(zip(names, values, strict=True))
        for j, s in zip(row, ss, strict=True)
    }
    assert [tuple(pair) for pair in pairs.tolist()] == sorted(every)
    np.testing.assert_allclose(scores, [every[key] for key in sorted(every)], rtol=1e-6)


def test_rows_are_sampled_evenly_wherever_parts_end():
    whole = m.sample(codes(), N, rows=10**6)
    np.testing.assert_array_equal(whole.toarray(), FIRES)
    few = m.sample(codes(), N, rows=70)
    np.testing.assert_array_equal(few.toarray(), FIRES[[i * N // 70 for i in range(70)]])


def test_planted_groups_are_the_modules():
    found = m.cofiring(codes(), N)
    assert found.rows == N
    assert found.modules.sizes == (7, 5, 4)
    wanted = np.full(F, -1)
    wanted[5:12], wanted[0:5], wanted[12:16] = 0, 1, 2
    assert found.modules.module.tolist() == wanted.tolist()
    assert found.modules.edges == 21 + 10 + 6
    assert found.modules.edges_shuffled == 0
    assert found.modules.modularity > found.modules.modularity_rewired + 0.1
    json.dumps(found.modules.record())


def test_modularity_is_that_of_its_formula():
    found = m.cofiring(codes(), N, control=False)
    pairs, weights = found.together.edges()
    module, total, quality = found.modules.module, weights.sum(), 0.0
    for c in range(len(found.modules.sizes)):
        inside = (module[pairs] == c).all(axis=1)
        degree = weights @ (module[pairs] == c).sum(axis=1)
        quality += weights[inside].sum() / total - (degree / (2 * total)) ** 2
    assert found.modules.modularity == pytest.approx(quality)
    assert found.modules.edges_shuffled is None
    assert found.modules.modularity_rewired is None


def test_independent_features_have_no_modules():
    found = m.cofiring(codes(RNG.random((N, F)) < RNG.random(F) * 0.4), N)
    assert found.modules.edges <= 1
    assert found.modules.edges_shuffled <= 1


def test_nothing_fires():
    found = m.cofiring(codes(np.zeros((N, F), bool)), N)
    assert found.modules.sizes == ()
    assert found.modules.modularity is None
    assert (found.modules.module == -1).all()
    assert found.together.lists() == ([[]] * F, [[]] * F)


def test_the_same_seed_gives_the_same():
    a, b = (m.cofiring(codes(sizes=sizes), N, seed=3) for sizes in ((600,), (1, 599)))
    assert a.modules.record() == b.modules.record()
    assert a.modules.module.tolist() == b.modules.module.tolist()
    assert a.together.lists() == b.together.lists()


def test_rewired_edges_keep_degrees():
    graph = nx.barabasi_albert_graph(200, 4, seed=1)
    pairs = np.sort(np.array(graph.edges()), axis=1)
    weights = RNG.random(len(pairs))
    ends, kept = m._rewired(pairs, weights, np.random.default_rng(0))
    assert len(ends) == len(pairs)
    np.testing.assert_array_equal(np.bincount(ends.ravel(), minlength=200), np.bincount(pairs.ravel(), minlength=200))
    assert (ends[:, 0] < ends[:, 1]).all()
    assert len(np.unique(ends, axis=0)) == len(ends)
    np.testing.assert_array_equal(kept, weights)
    same = {tuple(p) for p in ends.tolist()} & {tuple(p) for p in pairs.tolist()}
    assert len(same) < len(pairs) / 3


def test_what_no_graph_has_is_left_out():
    """Three features that all meet can be wired in one way alone."""
    ends, kept = m._rewired(np.array([[0, 1], [0, 2], [1, 2]]), np.ones(3), np.random.default_rng(0))
    assert len(ends) == len(kept) <= 3
    assert (ends[:, 0] < ends[:, 1]).all()


def test_shuffled_firings_keep_how_often():
    moved = m._shuffled(matrix(FIRES), np.random.default_rng(0)).toarray()
    np.testing.assert_array_equal(moved.sum(0), FIRES.sum(0))
    assert moved.max() == 1
    assert (moved[:, 5] & moved[:, 6]).sum() < (FIRES[:, 5] & FIRES[:, 6]).sum() / 2


def test_bad_input_is_refused():
    with pytest.raises(DataError, match="600 rows where 601 were announced"):
        m.cofiring(codes(), 601)
    with pytest.raises(DataError, match="600 rows where 599 were announced"):
        m.cofiring(codes(), 599)
    with pytest.raises(DataError, match="0 rows where 5 were announced"):
        m.cofiring([], 5)
    with pytest.raises(DataError, match="parts of 30 and of 4 features"):
        m.sample([*codes(), *codes(FIRES[:, :4])], 1200)
    with pytest.raises(ConfigError, match="0 is not a whole number of at least 1"):
        m.fire_together(matrix(FIRES), most=0)
    with pytest.raises(ConfigError, match="not between 0 and 1"):
        m.fire_together(matrix(FIRES), level=0)
