"""Two views of the same particles, each seeing part of what tells their classes, in runs with a shift of their own."""

from __future__ import annotations

from typing import Any

import numpy as np

from elute.particles.table import Joined, particle_frame


def views(
    n: int = 240, k: int = 3, *, runs: int = 8, apart: float = 1.5, shift: float = 0.3, widths: tuple[int, ...] = (6, 6),
    seed: int = 0, told: tuple[bool, ...] | None = None,
) -> Joined:  # fmt: skip
    """Make n particles of k classes; each source tells of its classes in directions of its own, if it is told."""
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, k, n)
    codes[: 2 * k] = np.tile(np.arange(k), 2)
    run = rng.integers(0, runs, n)
    run[: 2 * k] = np.arange(2 * k) % runs
    vectors = []
    for s, width in enumerate(widths):
        centre = rng.normal(0, apart, (k, width)) * (told is None or told[s])
        x = centre[codes] + rng.normal(0, shift, (runs, width))[run] + rng.normal(0, 1, (n, width))
        vectors.append(x.astype(np.float32))
    return joined(vectors, codes, run)


def joined(vectors: list[Any], codes: Any, run: Any | None = None, **more: Any) -> Joined:
    """Put arrays side by side as particles that were joined by id."""
    columns = {
        "id": [f"p{i}" for i in range(len(codes))],
        "label": [f"class_{c}" for c in codes],
        "run": None if run is None else [f"run_{r:02d}" for r in run],
    }
    names = tuple("abcde"[: len(vectors)])
    return Joined(names, tuple(vectors), particle_frame(columns, len(codes)), more.pop("pairing", "id"), **more)
