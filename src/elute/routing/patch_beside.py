"""Dictionaries that stand for the same layers, beside each other: a cross-layer one and one a layer, on the same
instances.

A cross-layer dictionary is one group by itself, dictionaries of single layers that were put in at once are another;
where both wrote the same sites on the same instances, their arms differ by the dictionaries alone.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from elute.routing.cause_settings import JudgedConfig

METRICS = {"drift": True, "kl": True, "agreement": False}  # whether less is better


def beside(
    output: Path, parts: Sequence[Mapping[str, Any]], *, table: str, arm: str, judged: JudgedConfig
) -> list[dict[str, Any]]:
    """Return paired differences of an arm between all parts that wrote the same sites, the first less the second."""
    import numpy as np
    import polars as pl

    from elute.routing.intervals import differences, verdict

    found = []
    for one, other in itertools.combinations(parts, 2):
        if set(one["writes"]) != set(other["writes"]):
            continue
        frames = [
            pl.read_parquet(output / part["pair"] / table).filter(pl.col("arm") == arm).sort("sample_id")
            for part in (one, other)
        ]
        if not frames[0]["sample_id"].equals(frames[1]["sample_id"]):
            continue
        columns = np.concatenate([frame.select(list(METRICS)).to_numpy() for frame in frames], 1)
        places = [(i, i + len(METRICS)) for i in range(len(METRICS))]
        apart = differences(columns, places, resamples=judged.resamples, seed=judged.seed)
        told = {
            metric: each.as_json() | {"first": verdict(each, less_is_better=less)}
            for (metric, less), each in zip(METRICS.items(), apart, strict=True)
        }
        found.append({"first": one["pair"], "second": other["pair"], "writes": sorted(one["writes"]), **told})
    return found
