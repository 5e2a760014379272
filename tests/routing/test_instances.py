"""Instance i is the same however many are drawn, and lengths are what a loop adds up."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from elute.base.errors import DataError
from elute.models.routing.instances import Instances, coordinates, draw, of, tour_lengths
from elute.models.routing.settings import InstanceConfig


@pytest.mark.parametrize("distribution", ["uniform", "clustered", "mixed"])
def test_an_instance_is_the_same_however_many_are_drawn(distribution: str) -> None:
    config = InstanceConfig(num_instances=9, num_loc=11, distribution=distribution, seed=3)
    many = draw(config)
    few = draw(config.model_copy(update={"num_instances": 2, "first": 5}))
    assert torch.equal(many.coords[5:7], few.coords)
    assert many.ids[5:7] == few.ids
    assert torch.equal(torch.from_numpy(coordinates(config, [6, 5])), few.coords.flip(0))
    assert bool(((many.coords >= 0) & (many.coords <= 1)).all())
    assert len(set(many.ids)) == 9
    assert many.source != few.source


def test_what_is_trained_on_is_never_what_is_judged_by() -> None:
    config = InstanceConfig(num_loc=5)
    judged = coordinates(config, range(200)).reshape(200, -1)
    trained = coordinates(config, range(200), training=True).reshape(200, -1)
    assert not set(map(bytes, judged)) & set(map(bytes, trained))
    other = draw(config.model_copy(update={"seed": 1, "num_instances": 200})).coords.numpy().reshape(200, -1)
    assert not set(map(bytes, judged)) & set(map(bytes, other))


def test_clustered_nodes_lie_close_and_uniform_ones_do_not() -> None:
    def near(distribution: str) -> float:
        x = draw(InstanceConfig(num_instances=200, num_loc=30, distribution=distribution)).coords
        between = torch.cdist(x, x) + 9 * torch.eye(30)
        return float(between.amin(-1).mean())

    assert near("clustered") < near("mixed") < near("uniform")
    # n uniform points have their neighbour about 0.5 / √n away.
    assert near("uniform") == pytest.approx(0.5 / math.sqrt(30), rel=0.15)


def test_lengths_are_what_a_loop_adds_up() -> None:
    x = draw(InstanceConfig(num_instances=3, num_loc=6))
    tours = torch.stack([torch.stack([torch.randperm(6) for _ in range(2)]) for _ in range(3)])
    lengths = x.lengths(tours)
    assert lengths.shape == (3, 2)
    for i in range(3):
        for s in range(2):
            p = [x.coords[i, k].tolist() for k in tours[i, s].tolist()]
            assert float(lengths[i, s]) == pytest.approx(
                sum(math.dist(a, b) for a, b in zip(p, p[1:] + p[:1], strict=True)), rel=1e-5
            )
    square = torch.tensor([[[0.0, 0.0], [0.0, 1.0], [1.0, 1.0], [1.0, 0.0]]])
    assert float(tour_lengths(square, torch.arange(4)[None])) == 4.0


def test_a_part_keeps_order_and_says_that_it_is_one() -> None:
    x = draw(InstanceConfig(num_instances=4, num_loc=5))
    part = x.part(1, 3)
    assert part.ids == x.ids[1:3]
    assert torch.equal(part.coords, x.coords[1:3])
    assert part.source != x.source


def test_what_is_no_instance_is_refused() -> None:
    with pytest.raises(DataError, match=r"\[2, 5, 3\].*\[instances, nodes, 2\]"):
        of(np.zeros((2, 5, 3), np.float32))
    with pytest.raises(DataError, match="has 2 nodes"):
        of(np.zeros((2, 2, 2), np.float32))
    with pytest.raises(DataError, match="2 instances have 1 different ids"):
        of(np.zeros((2, 5, 2), np.float32), ["a", "a"])
    with pytest.raises(DataError, match="not a number"):
        of(np.full((2, 5, 2), np.nan, np.float32))
    assert isinstance(of(np.zeros((2, 5, 2))), Instances)
