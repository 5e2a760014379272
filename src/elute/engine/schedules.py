"""How the learning rate and the number of features that fire change over a run."""

from __future__ import annotations


def rate(step: int, steps: int, *, warmup: float, decay: float) -> float:
    """Share of the full learning rate at a step: a linear rise, level, and a linear fall to nothing at the end."""
    rise = max(1.0, warmup * steps)
    fall = decay * steps
    up = min(1.0, (step + 1) / rise)
    return up if fall <= 0 else min(up, max(0.0, (steps - step) / fall))


def sparsity(step: int, steps: int, *, first: int, last: int, until: float) -> int:
    """Features that fire at a step: from `first` down to `last`, evenly, over the share `until` of the run."""
    if until <= 0 or step >= until * steps:
        return last
    return round(first + (last - first) * step / (until * steps))
