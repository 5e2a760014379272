"""What a feature follows is found where it is, and nothing is found where there is nothing, however instances differ."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.spatial import ConvexHull

from elute.base.errors import ConfigError, DataError
from elute.routing import tour_features
from elute.routing.meaning import among, ranked, within

# --- quantities of nodes and instances


@settings(max_examples=40, deadline=None)
@given(st.integers(3, 30), st.integers(0, 2**31))
def test_the_hull_is_that_of_qhull(n: int, seed: int) -> None:
    points = np.random.default_rng(seed).random((n, 2))
    assert set(tour_features.hull(points)) == set(ConvexHull(points).vertices)


def test_a_point_between_two_corners_is_none() -> None:
    points = np.array([[0, 0], [0.5, 0], [1, 0], [1, 1], [0, 1], [0.5, 0.5]], float)
    assert sorted(tour_features.hull(points)) == [0, 2, 3, 4]


def test_quantities_of_a_square_with_a_middle() -> None:
    coords = np.array([[[0, 0], [1, 0], [1, 1], [0, 1], [0.5, 0.25]]], float)
    tours = np.array([[3, 0, 4, 1, 2]])
    found = dict(zip(tour_features.OF_NODES, tour_features.of_nodes(coords, tours)[0].T, strict=True))
    near = np.hypot(0.5, 0.25)
    assert found["x"].tolist() == [0, 1, 1, 0, 0.5]
    assert found["order"].tolist() == [1, 3, 4, 0, 2]
    assert found["nearest"] == pytest.approx([near, near, np.hypot(0.5, 0.75), np.hypot(0.5, 0.75), near])
    assert found["on_hull"].tolist() == [1, 1, 1, 1, 0]
    assert found["depth"] == pytest.approx([0, 0, 0, 0, 0.25])
    assert found["from_depot"] == pytest.approx([1, np.sqrt(2), 1, 0, np.hypot(0.5, 0.75)])
    assert found["from_last"] == pytest.approx([np.sqrt(2), 1, 0, 1, np.hypot(0.5, 0.75)])
    assert found["edges"] == pytest.approx([1 + near, 1 + near, 2, 2, 2 * near])
    assert found["turn"][2] == pytest.approx(np.pi / 2)
    assert found["turn"][4] == pytest.approx(np.pi - 2 * np.arctan2(0.5, 0.25))
    whole = dict(zip(tour_features.OF_INSTANCES, tour_features.of_instances(coords, tours)[0], strict=True))
    assert whole["length"] == pytest.approx(3 + 2 * near)
    assert whole["hull_share"] == 0.8
    assert whole["hull_area"] == pytest.approx(1.0)


def test_quantities_do_not_depend_on_the_names_of_nodes() -> None:
    rng = np.random.default_rng(0)
    coords, tours = rng.random((3, 9, 2)), rng.random((3, 9)).argsort(1)
    order = rng.permutation(9)
    place = np.argsort(order)
    one = tour_features.of_nodes(coords, tours)
    other = tour_features.of_nodes(coords[:, order], place[tours])
    assert np.allclose(one[:, order], other)
    assert np.allclose(
        tour_features.of_instances(coords, tours), tour_features.of_instances(coords[:, order], place[tours])
    )


# --- relations


def test_one_instance_is_spearman() -> None:
    rng = np.random.default_rng(1)
    a, q = np.maximum(rng.normal(size=(1, 40, 3)), 0), rng.normal(size=(1, 40, 2))
    found = within(a, q, permutations=19, seed=0)
    for i, j in itertools.product(range(3), range(2)):
        assert found.rho[i, j] == pytest.approx(stats.spearmanr(a[0, :, i], q[0, :, j]).statistic)
    assert found.p_units is None


def test_several_instances_are_pooled_by_hand() -> None:
    rng = np.random.default_rng(2)
    a, q = np.maximum(rng.normal(size=(5, 7, 2)), 0), rng.normal(size=(5, 7, 1))
    top = bottom_a = bottom_q = 0.0
    for i in range(5):
        ra, rq = stats.rankdata(a[i, :, 0]), stats.rankdata(q[i, :, 0])
        top += ((ra - ra.mean()) * (rq - rq.mean())).sum()
        bottom_a += ((ra - ra.mean()) ** 2).sum()
        bottom_q += ((rq - rq.mean()) ** 2).sum()
    found = within(a, q, permutations=19, seed=0)
    assert found.rho[0, 0] == pytest.approx(top / np.sqrt(bottom_a * bottom_q))


def test_p_is_near_that_of_all_permutations() -> None:
    """Two instances of four nodes have 24 · 24 exchanges: all of them, against drawn ones."""
    rng = np.random.default_rng(3)
    a, q = rng.normal(size=(2, 4, 1)), rng.normal(size=(2, 4, 1))
    ra, rq = ranked(a)[..., 0], ranked(q)[..., 0]
    seen = abs((ra * rq).sum())
    orders = list(itertools.permutations(range(4)))
    every = [
        abs((ra[0] * rq[0][list(one)]).sum() + (ra[1] * rq[1][list(two)]).sum()) >= seen - 1e-9
        for one, two in itertools.product(orders, orders)
    ]
    found = within(a, q, permutations=4999, seed=0)
    assert found.p[0, 0] == pytest.approx(np.mean(every), abs=0.03)


def test_what_instances_differ_in_is_not_taken_for_what_nodes_differ_in() -> None:
    """Feature and quantity are both larger in some instances, and have nothing to do with each other inside them."""
    rng = np.random.default_rng(4)
    level = rng.normal(0, 3, (60, 1, 1))
    a, q = level + rng.normal(size=(60, 12, 1)), level + rng.normal(size=(60, 12, 1))
    assert stats.spearmanr(a.ravel(), q.ravel()).pvalue < 1e-50  # all rows in one: a false find
    found = within(a, q, permutations=499, seed=0)
    assert found.p[0, 0] > 0.05
    assert found.p_units is not None
    assert found.p_units[0, 0] > 0.05
    assert among(a.mean(1), q.mean(1), permutations=499, seed=0).p[0, 0] == 1 / 500


def test_what_is_planted_inside_instances_is_found_there_alone() -> None:
    rng = np.random.default_rng(5)
    q = rng.normal(size=(50, 10, 3))
    a = np.stack([np.maximum(q[..., 1] + rng.normal(0, 0.5, (50, 10)), 0), rng.random((50, 10))], -1)
    a -= a.mean(1, keepdims=True)
    found = within(a, q, permutations=199, seed=0)
    assert found.p_family[0, 1] == 1 / 200
    assert found.p_family[[0, 0, 1, 1, 1], [0, 2, 0, 1, 2]].min() > 0.05
    assert found.rho[0, 1] > 0.6


def test_under_the_null_p_is_even_and_a_table_rarely_finds_anything() -> None:
    """Sparse activations, ties and all, quantities that hang together: 120 tables in which there is nothing."""
    rng = np.random.default_rng(6)
    ps, units, families = [], [], 0
    for trial in range(120):
        a = np.maximum(rng.normal(-1, 1, (20, 8, 4)), 0)
        q = rng.normal(size=(20, 8, 3))
        q[..., 1] += 2 * q[..., 0]
        found = within(a, q, permutations=99, seed=trial)
        ps.append(found.p[0, 0])
        assert found.p_units is not None
        units.append(found.p_units[0, 0])
        families += found.p_family.min() < 0.05
    assert stats.kstest(ps, "uniform").pvalue > 0.01
    assert stats.kstest(units, "uniform").pvalue > 0.01
    assert families / 120 < 0.12


def test_among_instances_under_the_null() -> None:
    rng = np.random.default_rng(7)
    ps = [
        among(rng.exponential(size=(25, 2)), rng.normal(size=(25, 1)), permutations=99, seed=i).p[0, 0]
        for i in range(120)
    ]
    assert stats.kstest(ps, "uniform").pvalue > 0.01


def test_what_never_varies_follows_nothing() -> None:
    a, q = np.ones((4, 5, 1)), np.random.default_rng(8).normal(size=(4, 5, 2))
    found = within(a, q, permutations=19, seed=0)
    assert (found.rho == 0).all()
    assert (found.p == 1).all()
    assert (found.p_family == 1).all()


def test_the_same_seed_gives_the_same_and_bad_input_one_line() -> None:
    rng = np.random.default_rng(9)
    a, q = rng.random((4, 5, 2)), rng.random((4, 5, 2))
    one, two = (within(a, q, permutations=49, seed=3) for _ in range(2))
    assert (one.p_family == two.p_family).all()
    with pytest.raises(DataError, match="are not of the same rows"):
        within(a, q[:3], permutations=19, seed=0)
    with pytest.raises(DataError, match="a group has one member"):
        within(a[:, :1], q[:, :1], permutations=19, seed=0)
    with pytest.raises(ConfigError, match="permutations"):
        within(a, q, permutations=0, seed=0)


def test_what_follows_from_the_place_is_not_found_beyond_it() -> None:
    """One feature is a smooth function of the place, another one is isolation: both seem to follow isolation's kin."""
    rng = np.random.default_rng(10)
    coords = rng.random((80, 12, 2))
    tours = np.tile(np.arange(12), (80, 1))
    q = tour_features.of_nodes(coords, tours)
    names = list(tour_features.OF_NODES)
    middle, alone = q[..., names.index("from_middle")], q[..., names.index("nearest")]
    a = np.stack([np.maximum(middle - 0.3, 0), alone + 0.5 * middle], -1)
    asked = q[..., [names.index("depth"), names.index("nearest")]]
    plain = within(a, asked, permutations=199, seed=0)
    left = within(a, asked, permutations=199, seed=0, given=coords)
    assert plain.p_family[0, 0] == 1 / 200  # a feature of the middle follows the depth within the hull
    assert abs(left.rho[0, 0]) < 0.6 * abs(plain.rho[0, 0])
    assert left.p_family[1, 1] == 1 / 200
    assert left.rho[1, 1] > 0.7
    assert abs(left.rho[0, 1]) < 0.15
    same = within(coords, coords, permutations=19, seed=0, given=coords)
    assert (same.rho == 0).all()  # nothing is left of what is given
    assert (same.p == 1).all()


def test_beyond_what_is_given_under_the_null() -> None:
    rng = np.random.default_rng(11)
    ps = []
    for trial in range(120):
        given = rng.normal(size=(15, 10, 2))
        a = np.maximum(given[..., :1] + rng.normal(size=(15, 10, 1)), 0)
        q = given[..., :1] - given[..., 1:] + rng.normal(size=(15, 10, 1))
        ps.append(within(a, q, permutations=99, seed=trial, given=given).p[0, 0])
    assert stats.kstest(ps, "uniform").pvalue > 0.01
