"""The best that can be told of made-up particles: exact posteriors, by which any method can be judged.

A particle of a tomogram that was not seen is Gaussian given its class, and all classes have one covariance Σ, in which
the tomogram's shift counts as noise. So log p(k | x) = xᵀΣ⁻¹μ_k − ½ μ_kᵀΣ⁻¹μ_k up to a constant, with classes equally
likely, and no classifier is better. Accuracy and average precision of these posteriors are estimated on a great many
particles drawn for it (standard error about 0.002 with 50,000).

    alone       what each source tells
    both        what both tell of the same particle
    label       what both tell when each particle is paired with another one of its class: deviations that both sources
                share are then counted twice as if they were two, so it is above `both`, and no such pair exists
"""

from __future__ import annotations

from typing import Any

import numpy as np

from elute.particles.generator import HIDDEN, SOURCES, Floats, Ints, World, make_world
from elute.particles.generator_settings import MadeConfig

DRAWN = 50_000


def known_truth(config: MadeConfig, *, drawn: int = DRAWN) -> dict[str, Any]:
    """What each source, both, and pairs by label can tell at best; and what fusion can gain over the better source."""
    world = make_world(config)
    rng = np.random.default_rng([config.seed, 2])
    label = rng.integers(config.classes, size=drawn)
    x = _draw(config, world, label, rng)
    other = _draw(config, world, label, rng)
    alone = [_scores(x[s], label, world.centre(s), _within(config, world, s)) for s in range(2)]
    centre = np.concatenate([world.centre(0), world.centre(1)], axis=1)
    both = _scores(np.concatenate(x, axis=1), label, centre, covariance(config, world))
    apart = _scores(np.concatenate([x[0], other[1]], axis=1), label, centre, covariance(config, world, apart=True))
    names = ("accuracy", "macro_ap")
    best = {name: max(told[name] for told in alone) for name in names}
    return {
        "drawn": drawn,
        "alone": dict(zip(SOURCES, alone, strict=True)),
        "both": both,
        "label": apart,
        "gain": {name: both[name] - best[name] for name in names},
        "invented": {name: apart[name] - both[name] for name in names},
    }


def covariance(config: MadeConfig, world: World, *, apart: bool = False) -> Floats:
    """Covariance of both embeddings side by side, of a class's particles; `apart` for two particles of the class."""
    within = [_within(config, world, s) for s in range(2)]
    shared = np.zeros((2 * HIDDEN, 2 * HIDDEN))
    if not apart:
        shared[:HIDDEN, :HIDDEN] = np.eye(HIDDEN)
    between = world.maps[0].T @ shared @ world.maps[1]
    return np.block([[within[0], between], [between.T, within[1]]])


def _within(config: MadeConfig, world: World, source: int) -> Floats:
    width = config.widths[source]
    seen = world.maps[source]
    return np.asarray(seen.T @ seen + (config.shift**2 + config.noise**2) * np.eye(width))


def _draw(config: MadeConfig, world: World, label: Ints, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Particles of as many tomograms."""
    n = len(label)
    shared = world.common[label] + rng.standard_normal((n, HIDDEN))
    around = float(np.hypot(config.shift, config.noise))
    made = []
    for s, width in enumerate(config.widths):
        alone = world.own[s][label] + rng.standard_normal((n, HIDDEN))
        hidden = np.concatenate([shared, alone], axis=1)
        made.append(hidden @ world.maps[s] + around * rng.standard_normal((n, width)))
    return made[0], made[1]


def _scores(x: Floats, label: Ints, centre: Floats, spread: Floats) -> dict[str, float]:
    """Accuracy and macro average precision of the exact posteriors."""
    turned = np.linalg.solve(spread, centre.T)
    logit = x @ turned - 0.5 * (centre.T * turned).sum(axis=0)
    logit -= logit.max(axis=1, keepdims=True)
    posterior = np.exp(logit)
    posterior /= posterior.sum(axis=1, keepdims=True)
    precision = [average_precision(posterior[:, k], label == k) for k in range(len(centre))]
    return {"accuracy": float((logit.argmax(axis=1) == label).mean()), "macro_ap": float(np.mean(precision))}


def average_precision(score: Floats, right: np.ndarray[Any, np.dtype[np.bool_]]) -> float:
    """Mean over the right ones of the share of right ones down to them, in falling order of the score."""
    hit = right[np.argsort(-score, kind="stable")]
    at = np.flatnonzero(hit) + 1
    return float((np.arange(1, len(at) + 1) / at).mean()) if len(at) else 0.0
