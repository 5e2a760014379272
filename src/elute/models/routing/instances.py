"""Instances of the travelling-salesman problem: nodes in the unit square, and the length of a tour through them.

Each instance has a random stream of its own, told by seed, distribution, size and number alone, so that instance i is
the same however many are drawn, in whatever order. Streams of instances to train on lie apart from those to judge by.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, get_args

import numpy as np
import torch
from torch import Tensor

from elute.base.errors import DataError
from elute.base.files import digest_bytes, digest_json
from elute.models.routing.settings import Distribution, InstanceConfig

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

_KINDS: tuple[str, ...] = get_args(Distribution)


@dataclass(frozen=True, eq=False)
class Instances:
    """Several instances of one size."""

    coords: Tensor  # float32 [instances, nodes, 2]
    ids: tuple[str, ...]
    source: str  # digest of what they are

    def __post_init__(self) -> None:
        x = self.coords
        if x.ndim != 3 or x.shape[-1] != 2 or x.dtype != torch.float32:
            what = f"coordinates are {str(x.dtype).removeprefix('torch.')} {list(x.shape)}"
            raise DataError(what, where="instances", remedy="Give float32 [instances, nodes, 2].")
        if x.shape[1] < 3:
            raise DataError(f"an instance has {x.shape[1]} nodes", where="instances", remedy="A tour has 3 at least.")
        if len(self.ids) != len(x) or len(set(self.ids)) != len(self.ids):
            what = f"{len(x)} instances have {len(set(self.ids))} different ids"
            raise DataError(what, where="instances", remedy="Give each an id of its own.")
        if not bool(torch.isfinite(x).all()):
            raise DataError("a coordinate is not a number", where="instances", remedy="Check where they come from.")

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def nodes(self) -> int:
        """Nodes of each instance."""
        return int(self.coords.shape[1])

    def part(self, start: int, stop: int) -> Instances:
        """Return some of them, in their order."""
        ids = self.ids[start:stop]
        return Instances(self.coords[start:stop], ids, digest_json([self.source, list(ids)]))

    def lengths(self, tours: Tensor) -> Tensor:
        """Return the length of each tour, [instances, …, nodes] to [instances, …]."""
        return tour_lengths(self.coords, tours)


def of(coords: Tensor | NDArray[np.floating], ids: Sequence[str] | None = None, *, source: str = "") -> Instances:
    """Take coordinates that somebody has, [instances, nodes, 2]; they should lie in the unit square."""
    x = torch.as_tensor(coords, dtype=torch.float32).contiguous()
    names = tuple(ids) if ids is not None else tuple(f"instance-{i}" for i in range(len(x)))
    return Instances(x, names, source or digest_bytes(x.numpy().tobytes()))


def draw(config: InstanceConfig) -> Instances:
    """Draw instances."""
    numbers = range(config.first, config.first + config.num_instances)
    stem = f"{config.distribution}-{config.num_loc}-s{config.seed}"
    return Instances(
        torch.from_numpy(coordinates(config, numbers)),
        tuple(f"{stem}-{i}" for i in numbers),
        digest_json(config.model_dump(mode="json")),
    )


def coordinates(config: InstanceConfig, numbers: Sequence[int], *, training: bool = False) -> NDArray[np.float32]:
    """Draw the instances of some numbers, [instances, nodes, 2]; those to train on are others."""
    kind = _KINDS.index(config.distribution)
    found = np.empty((len(numbers), config.num_loc, 2), np.float32)
    for row, number in enumerate(numbers):
        rng = np.random.default_rng([int(training), config.seed, kind, config.num_loc, int(number)])
        found[row] = _one(config, rng)
    return found


def tour_lengths(coords: Tensor, tours: Tensor) -> Tensor:
    """Return the Euclidean length of closed tours, [instances, …, nodes] to [instances, …]."""
    flat = tours.reshape(len(coords), -1)
    places = coords.gather(1, flat[..., None].expand(-1, -1, 2)).view(*tours.shape, 2)
    return (places - places.roll(-1, -2)).square().sum(-1).sqrt().sum(-1)


def _one(config: InstanceConfig, rng: np.random.Generator) -> NDArray[np.float64]:
    n = config.num_loc
    free = {"uniform": n, "clustered": 0, "mixed": n // 2}[config.distribution]
    if free == n:
        return rng.random((n, 2))
    centres = rng.uniform(0.2, 0.8, (config.clusters, 2))
    around = centres[rng.integers(config.clusters, size=n - free)] + config.spread * rng.standard_normal((n - free, 2))
    # Mirrored at the edges, where clipping would put nodes on top of each other.
    around = np.abs(around) % 2.0
    around = np.where(around > 1.0, 2.0 - around, around)
    return rng.permutation(np.concatenate([rng.random((free, 2)), around]))
