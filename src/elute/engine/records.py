"""How records of a training lie in its files, and histograms, which are for trackers alone."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base import console

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True)
class Counted:
    """A histogram: counts between edges."""

    edges: tuple[float, ...]  # one more than counts
    counts: tuple[int, ...]

    def arrays(self) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        """Return counts and edges as Weights & Biases takes them."""
        import numpy as np

        return np.array(self.counts, np.int64), np.array(self.edges, np.float64)

    def raw(self) -> dict[str, Any]:
        """Return what TensorBoard takes; of the values within a bin its middle stands for all."""
        counts, edges = self.arrays()
        middle = (edges[1:] + edges[:-1]) / 2
        return {
            "min": float(edges[0]), "max": float(edges[-1]), "num": int(counts.sum()),
            "sum": float(counts @ middle), "sum_squares": float(counts @ middle**2),
            "bucket_limits": edges[1:].tolist(), "bucket_counts": counts.tolist(),
        }  # fmt: skip


def read(path: Path) -> list[tuple[bytes, dict[str, Any]]]:
    """Whole lines with growing steps. Half a line at the end is what a kill leaves; damage elsewhere is told."""
    found: list[tuple[bytes, dict[str, Any]]] = []
    damaged, last = 0, -1
    for line in path.read_bytes().split(b"\n")[:-1] if path.exists() else []:
        try:
            record = json.loads(line)
            step = record["step"]
        except (ValueError, RecursionError, TypeError, KeyError):
            step = None
        if type(step) is int and step > last:
            found.append((line + b"\n", record))
            last = step
        else:
            damaged += 1
    if damaged:
        console.warn(f"{path}: {console.count(damaged, 'line')} could not be read and will be left out")
    return found


def plain(value: Any) -> float | int | None:
    """A number as JSON has it: NaN and the infinities, which it lacks, become null."""
    if isinstance(value, int):
        return int(value)
    number = float(value)
    return number if math.isfinite(number) else None


def tree(value: Any) -> Any:
    """Settings or a summary as JSON has them; a kind that JSON has not is a fault of the caller."""
    if value is None or isinstance(value, str | bool):
        return value
    if isinstance(value, Mapping):
        return {str(key): tree(inner) for key, inner in value.items()}
    return [tree(inner) for inner in value] if isinstance(value, list | tuple) else plain(value)
