"""The shortest tour against all tours; a local search that never makes one longer and stops where no change helps."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elute.base.errors import ConfigError
from elute.models.routing import exact, local_search
from elute.models.routing.instances import draw
from elute.models.routing.settings import InstanceConfig


def by_all_tours(d: np.ndarray) -> float:
    n = len(d)
    return min(
        sum(d[t[i], t[(i + 1) % n]] for i in range(n))
        for t in ((0, *rest) for rest in itertools.permutations(range(1, n)))
    )


@pytest.mark.parametrize("n", [3, 4, 5, 6, 7, 8])
def test_no_tour_is_shorter(n: int) -> None:
    instances = draw(InstanceConfig(num_instances=6 if n < 8 else 3, num_loc=n, distribution="mixed"))
    tours, lengths = exact.optimum(instances.coords)
    torch.testing.assert_close(instances.lengths(tours).double(), lengths, rtol=1e-5, atol=1e-6)
    for d, length, tour in zip(local_search.between(instances.coords), lengths, tours, strict=True):
        assert float(length) == pytest.approx(by_all_tours(d), abs=1e-12)
        assert tour[0] == 0
        assert tour[1] < tour[-1]
        assert sorted(tour.tolist()) == list(range(n))


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(4, 7), st.booleans())
def test_any_symmetric_distances(seed: int, n: int, flat: bool) -> None:
    """Also such as no plane has, and such with many ties."""
    rng = np.random.default_rng(seed)
    d = rng.integers(0, 4 if flat else 100, (n, n)).astype(float)
    d = np.triu(d, 1) + np.triu(d, 1).T
    lengths, tours = exact.shortest(d[None])
    assert lengths[0] == by_all_tours(d)
    assert sum(d[tours[0, i], tours[0, (i + 1) % n]] for i in range(n)) == lengths[0]


def held_karp(d: np.ndarray) -> float:
    """By the dynamic programme over subsets, which branches nowhere."""
    n = len(d)
    best = {(1 << i, i): d[0, i] for i in range(1, n)}
    for size in range(2, n):
        for subset in itertools.combinations(range(1, n), size):
            bits = sum(1 << i for i in subset)
            for last in subset:
                before = bits & ~(1 << last)
                best[bits, last] = min(best[before, i] + d[i, last] for i in subset if i != last)
    return min(best[(1 << n) - 2, i] + d[i, 0] for i in range(1, n))


def test_more_nodes_by_another_method() -> None:
    instances = draw(InstanceConfig(num_instances=2, num_loc=11, seed=7))
    lengths = exact.optimum(instances.coords)[1]
    for d, length in zip(local_search.between(instances.coords), lengths, strict=True):
        assert float(length) == pytest.approx(held_karp(d), abs=1e-12)


def test_twenty_nodes_are_as_long_as_they_are_known_to_be() -> None:
    """Uniform instances of 20 nodes have a mean of 3.84 (SE over 200: 0.02)."""
    lengths = exact.optimum(draw(InstanceConfig(num_instances=200)).coords)[1]
    assert float(lengths.mean()) == pytest.approx(3.838, abs=0.06)


def test_nodes_on_one_place() -> None:
    coords = torch.zeros(1, 9, 2)
    coords[:, 5:] = 0.5
    assert float(exact.optimum(coords)[1]) == pytest.approx(2 * 0.5**0.5, abs=1e-6)
    assert float(local_search.reference(coords)[1]) == pytest.approx(2 * 0.5**0.5, abs=1e-6)


def test_too_many_nodes_are_refused() -> None:
    with pytest.raises(ConfigError, match="Up to 40 nodes; compare with local_search"):
        exact.optimum(torch.rand(1, 41, 2))


def test_a_local_search_ends_where_no_change_helps() -> None:
    instances = draw(InstanceConfig(num_instances=5, num_loc=12, seed=2))
    begun = torch.stack([torch.randperm(12, generator=torch.Generator().manual_seed(i)) for i in range(5)])
    d = local_search.between(instances.coords)
    for move, neighbours in ((local_search.two_opt, turned), (local_search.or_opt, moved)):
        ended = move(instances.coords, begun)
        assert bool((instances.lengths(ended) < instances.lengths(begun)).all())
        for b, tour in enumerate(ended.tolist()):
            assert sorted(tour) == list(range(12))
            length = along(d[b], tour)
            assert min(along(d[b], other) for other in neighbours(tour)) >= length - 1e-9
    best = exact.optimum(instances.coords)[1]
    found = local_search.reference(instances.coords)[1]
    assert bool((found >= best - 1e-9).all())
    assert float((found / best).mean()) < 1.02


def along(d: np.ndarray, tour: list[int]) -> float:
    return sum(d[tour[i], tour[(i + 1) % len(tour)]] for i in range(len(tour)))


def turned(tour: list[int]) -> list[list[int]]:
    n = len(tour)
    return [tour[:i] + tour[i:j][::-1] + tour[j:] for i in range(n) for j in range(i + 2, n + 1)]


def moved(tour: list[int]) -> list[list[int]]:
    found = []
    for start in range(len(tour)):
        rolled = tour[start:] + tour[:start]
        for size in (1, 2, 3):
            chain, rest = rolled[:size], rolled[size:]
            found += [rest[:i] + c + rest[i:] for i in range(1, len(rest)) for c in (chain, chain[::-1])]
    return found
