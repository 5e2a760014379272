"""Particles that are made up: tomograms, classes, and two sources that each see a part of the truth.

1. A particle of class k has a hidden part that both sources see and one that each source alone sees. Each is the
   class's own place plus the particle's own deviation (standard normal). What both see has the *same* deviation in
   both: the second source adds nothing there, and whoever pairs two particles of a class averages it away.
2. The first source's own part tells classes of different k mod m apart, the second one's those of different k // m
   (m about √classes): alone, neither can tell all.
3. A source turns the hidden parts into its embedding by a fixed orthonormal map, and adds noise and a shift that all
   particles of the tomogram share. Each tomogram has its own mixture of classes, so that its shift gives classes away
   to whoever lets a tomogram into both sides of a split.
4. Both sources pick particles by themselves: some are lost, and coordinates differ a little.

Everything is Gaussian with one covariance, so the best that any classifier could do on a particle of a tomogram that it
has not seen is known (generator_truth.py). A tomogram's numbers depend on the settings and its own number alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elute.particles.generator_settings import MadeConfig

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SOURCES = ("cryolens", "tomotwin")
SPACING = 10.0  # Å of a voxel
HIDDEN = 3  # dimensions of each hidden part
_NAMES = (
    "apoferritin", "beta_amylase", "beta_galactosidase", "ribosome", "thyroglobulin", "virus_like_particle",
)  # fmt: skip
_APART = 300.0  # Å between places; a particle lies within a quarter of it from its own
_FLOORS = 5  # places on top of each other


@dataclass(frozen=True, eq=False)
class World:
    """What all tomograms share: where classes lie, and how each source sees them."""

    common: Floats  # [classes, HIDDEN]
    own: tuple[Floats, Floats]  # [classes, HIDDEN] a source
    maps: tuple[Floats, Floats]  # [2 HIDDEN, width] a source, rows of length 1 that are at right angles

    def centre(self, source: int) -> Floats:
        """Where the classes lie in a source's embedding, [classes, width]."""
        hidden = np.concatenate([self.common, self.own[source]], axis=1)
        return np.asarray(hidden @ self.maps[source])


@dataclass(frozen=True, eq=False)
class MadeParticles:
    """Particles in memory, a row each; `seen` says which of them a source has."""

    config: MadeConfig
    label: Ints
    run: Ints
    coordinates: tuple[Floats, Floats]  # Å, [n, 3] a source
    vectors: tuple[NDArray[np.float32], NDArray[np.float32]]  # [n, width] a source
    seen: tuple[NDArray[np.bool_], NDArray[np.bool_]]

    def __len__(self) -> int:
        return len(self.label)

    @cached_property
    def classes(self) -> list[str]:
        """What classes are called, by number."""
        return class_names(self.config.classes)

    @cached_property
    def labels(self) -> list[str]:
        """The class of each particle."""
        return [self.classes[k] for k in self.label.tolist()]

    @cached_property
    def runs(self) -> list[str]:
        """The tomogram of each particle."""
        return [run_name(r) for r in self.run.tolist()]

    @cached_property
    def ids(self) -> list[str]:
        """The id that the first source gives each particle: class, tomogram, and its number there."""
        number = np.arange(len(self)) % self.config.per_run
        return [f"{k}_{r}_{i}" for k, r, i in zip(self.labels, self.runs, number.tolist(), strict=True)]

    @cached_property
    def both(self) -> NDArray[np.bool_]:
        """Which particles both sources have."""
        return self.seen[0] & self.seen[1]


def class_names(classes: int) -> list[str]:
    """Names of the classes: particles that tomograms are known to hold, then numbers."""
    return [*_NAMES, *(f"complex_{i}" for i in range(len(_NAMES), classes))][:classes]


def run_name(number: int) -> str:
    """The name of a tomogram."""
    return f"TS{number:03d}"


def make_world(config: MadeConfig) -> World:
    """Draw what all tomograms share."""
    rng = np.random.default_rng([config.seed, 0])
    k = np.arange(config.classes)
    step = int(np.ceil(np.sqrt(config.classes)))
    common = config.common * rng.standard_normal((config.classes, HIDDEN))
    first, second = (config.own * rng.standard_normal((config.classes, HIDDEN)) for _ in range(2))
    maps = []
    for width in config.widths:
        turned = np.linalg.qr(rng.standard_normal((max(width, 2 * HIDDEN), 2 * HIDDEN)))[0].T
        maps.append(turned[:, :width])
    return World(common, (first[k % step], second[k // step]), (maps[0], maps[1]))


def make(config: MadeConfig | None = None) -> MadeParticles:
    """Make up particles."""
    config = config or MadeConfig()
    world = make_world(config)
    parts = [_tomogram(config, world, run) for run in range(config.runs)]
    label, run = (np.concatenate([part[i] for part in parts]) for i in range(2))
    pairs = [[np.concatenate([part[i][s] for part in parts]) for s in range(2)] for i in (2, 3, 4)]
    places, vectors, seen = ((a, b) for a, b in pairs)
    return MadeParticles(config, label, run, places, vectors, seen)


def _tomogram(config: MadeConfig, world: World, run: int) -> tuple[Ints, Ints, list[Any], list[Any], list[Any]]:
    """Make one tomogram's particles: class, tomogram, and by source coordinates, vectors and which it has."""
    rng = np.random.default_rng([config.seed, 1, run])
    n = config.per_run
    shares = rng.dirichlet(np.full(config.classes, config.mixing))
    label = rng.choice(config.classes, size=n, p=shares)
    places = _places(n, rng)
    shared = world.common[label] + rng.standard_normal((n, HIDDEN))
    coordinates, vectors, seen = [], [], []
    for source, width in enumerate(config.widths):
        alone = world.own[source][label] + rng.standard_normal((n, HIDDEN))
        x = np.concatenate([shared, alone], axis=1) @ world.maps[source]
        x += config.shift * rng.standard_normal(width) + config.noise * rng.standard_normal((n, width))
        away = rng.standard_normal((n, 3))
        away *= config.jitter * rng.random((n, 1)) / np.linalg.norm(away, axis=1, keepdims=True)
        coordinates.append(places + away if source else places)
        vectors.append(x.astype(np.float32))
        seen.append(rng.random(n) >= config.lost)
    return label, np.full(n, run, np.int64), coordinates, vectors, seen


def _places(n: int, rng: np.random.Generator) -> Floats:
    """Put particles into a slab so that no two are near each other, in Å."""
    side = int(np.ceil(np.sqrt(n / _FLOORS))) + 1
    chosen = rng.choice(side * side * _FLOORS, size=n, replace=False)
    cell = np.stack([chosen % side, chosen // side % side, chosen // (side * side)], axis=1)
    return np.asarray((cell + 0.5 + 0.25 * (2 * rng.random((n, 3)) - 1)) * _APART)
