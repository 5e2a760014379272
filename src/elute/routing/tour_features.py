"""What a node is for a tour, and an instance as a whole: the words in which a feature may be understood.

Of a node: where it lies, how far from the middle, how isolated it is, whether it lies on the convex hull and how deep
inside, when the tour comes to it, how far it is from the first node of the tour (the depot) and from the last one, how
long the tour's edges at it are and how sharply it turns there. Of an instance: how long its tour is, and how its nodes
lie.

An encoder that treats all nodes alike does not know which node the tour begins at. What it knows of that distance it
knows by the way, as far as nodes in the middle are near to all others.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Floats = NDArray[np.float64]
    Bools = NDArray[np.bool_]

OF_NODES = {
    "x": "place from left to right",
    "y": "place from bottom to top",
    "from_middle": "distance to the middle of the square",
    "from_centroid": "distance to the mean of the instance's nodes",
    "nearest": "isolation: distance to the nearest node",
    "nearest_three": "isolation: mean distance to the three nearest nodes",
    "on_hull": "on the convex hull",
    "depth": "distance to the edge of the hull",
    "order": "when the tour comes to it",
    "from_depot": "distance to the first node of the tour",
    "from_last": "distance to the last node of the tour",
    "edges": "length of the tour's two edges at it",
    "turn": "how sharply the tour turns at it",
}
PLACE = ("x", "y", "from_middle")  # what a node has by itself: the first of OF_NODES
OF_INSTANCES = {
    "length": "length of the policy's tour",
    "hull_share": "share of the nodes on the hull",
    "hull_area": "area of the hull",
    "isolation": "mean distance to the nearest node",
    "spread": "mean distance of the nodes to their mean",
}


def of_nodes(coords: Floats, tours: NDArray[np.int64]) -> Floats:
    """Return the quantities of OF_NODES, in that order: [instances, nodes, quantities]."""
    x = np.asarray(coords, np.float64)
    apart = np.sqrt(np.square(x[:, :, None] - x[:, None]).sum(-1))
    near = np.sort(apart, -1)[..., 1:]  # without the node itself
    on_hull, depth = _hulls(x)
    rows = np.arange(len(x))
    order = np.empty(tours.shape)
    np.put_along_axis(order, tours, np.broadcast_to(np.arange(tours.shape[1], dtype=np.float64), tours.shape), 1)
    before, after = _neighbours(tours)
    into, out = x - _at(x, before), _at(x, after) - x
    edges = np.sqrt(np.square(into).sum(-1)) + np.sqrt(np.square(out).sum(-1))
    cross = into[..., 0] * out[..., 1] - into[..., 1] * out[..., 0]
    turn = np.abs(np.arctan2(cross, (into * out).sum(-1)))
    columns = {
        "x": x[..., 0],
        "y": x[..., 1],
        "from_middle": np.sqrt(np.square(x - 0.5).sum(-1)),
        "from_centroid": np.sqrt(np.square(x - x.mean(1, keepdims=True)).sum(-1)),
        "nearest": near[..., 0],
        "nearest_three": near[..., :3].mean(-1),
        "on_hull": on_hull.astype(np.float64),
        "depth": depth,
        "order": order,
        "from_depot": apart[rows, tours[:, 0]],
        "from_last": apart[rows, tours[:, -1]],
        "edges": edges,
        "turn": turn,
    }
    return np.stack([columns[name] for name in OF_NODES], -1)


def of_instances(coords: Floats, tours: NDArray[np.int64]) -> Floats:
    """Return the quantities of OF_INSTANCES, in that order: [instances, quantities]."""
    x = np.asarray(coords, np.float64)
    apart = np.sqrt(np.square(x[:, :, None] - x[:, None]).sum(-1))
    places = _at(x, tours)
    length = np.sqrt(np.square(places - np.roll(places, -1, 1)).sum(-1)).sum(-1)
    on_hull, _ = _hulls(x)
    columns = {
        "length": length,
        "hull_share": on_hull.mean(-1),
        "hull_area": np.array([_area(points[hull(points)]) for points in x]),
        "isolation": np.sort(apart, -1)[..., 1].mean(-1),
        "spread": np.sqrt(np.square(x - x.mean(1, keepdims=True)).sum(-1)).mean(-1),
    }
    return np.stack([columns[name] for name in OF_INSTANCES], -1)


def hull(points: Floats) -> NDArray[np.int64]:
    """Return the corners of the convex hull, against the clock; points between two corners are none.

    A. Andrew, "Another efficient algorithm for convex hulls in two dimensions", 1979.
    """
    order = np.lexsort((points[:, 1], points[:, 0])).tolist()
    corners: list[int] = []
    for way in (order, order[::-1]):
        chain: list[int] = []
        for i in way:
            while len(chain) > 1 and _left(points[chain[-2]], points[chain[-1]], points[i]) <= 0:
                chain.pop()
            chain.append(i)
        corners += chain[:-1]
    return np.array(list(dict.fromkeys(corners)), np.int64)


def _left(a: Floats, b: Floats, c: Floats) -> float:
    return float((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))


def _area(corners: Floats) -> float:
    after = np.roll(corners, -1, 0)
    return float(abs((corners[:, 0] * after[:, 1] - corners[:, 1] * after[:, 0]).sum()) / 2)


def _hulls(x: Floats) -> tuple[Bools, Floats]:
    """Return which nodes are corners of the hull, and how far each is from the hull's edge."""
    inside = np.zeros(x.shape[:2], bool)
    depth = np.zeros(x.shape[:2])
    for i, points in enumerate(x):
        corners = hull(points)
        inside[i, corners] = True
        a = points[corners]
        along = np.roll(a, -1, 0) - a
        length = np.maximum(np.square(along).sum(-1), 1e-300)
        share = np.clip(((points[:, None] - a) * along).sum(-1) / length, 0, 1)
        feet = a + share[..., None] * along
        depth[i] = np.sqrt(np.square(points[:, None] - feet).sum(-1)).min(-1)
        depth[i, corners] = 0.0
    return inside, depth


def _neighbours(tours: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return each node's neighbour before and after it in the tour."""
    before, after = np.empty_like(tours), np.empty_like(tours)
    np.put_along_axis(before, tours, np.roll(tours, 1, 1), 1)
    np.put_along_axis(after, tours, np.roll(tours, -1, 1), 1)
    return before, after


def _at(x: Floats, nodes: NDArray[np.int64]) -> Floats:
    found: Floats = np.take_along_axis(x, nodes[..., None], 1)
    return found
