"""`classification_results.json`: the keys that CryoLens' own command writes, with what they should have said, and more.

    overall       a method each: mean_map, std_map, map_per_fold and the same of accuracy; significance
    per_class     a method each: a class each: mean_map, std_map, map_per_fold; precision and recall likewise
    config, common_structures, n_samples, n_folds, random_seed, embedding_dim, fusion_method
    evidence      false where rows were paired by label; then `mark` says so
    evaluation    everything with intervals and comparisons: docs/formats/particles.md

Standard deviations are over folds, with ddof 0, as there. `significance` holds the fusion against the first source by
the corrected resampled t-test, since folds are not independent; its interval is by bootstrap over runs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

NAME = "classification_results.json"
FUSION = "fusion"
_CLASS = {"ap": "map", "precision": "precision", "recall": "recall"}
_ALPHA = 0.05


def results(
    plain: Mapping[str, Any], *, settings: Mapping[str, Any], config: Mapping[str, Any], inputs: Mapping[str, str]
) -> dict[str, Any]:
    """Return the content; `plain` is what an evaluation found, `config` the file that named the sources."""
    methods = plain["methods"]
    return {
        "overall": {**{name: _overall(one) for name, one in methods.items()}, "significance": _significance(plain)},
        "per_class": {name: _per_class(one) for name, one in methods.items()},
        "config": dict(config),
        "common_structures": plain["classes"],
        "n_samples": plain["n_samples"],
        "n_folds": plain["n_folds"],
        "random_seed": settings["random_seed"],
        "embedding_dim": settings["embedding_dim"],
        "fusion_method": settings["fusion_method"],
        "evidence": plain["evidence"],
        "mark": plain["mark"],
        "settings": dict(settings),
        "inputs": dict(inputs),
        "evaluation": dict(plain),
    }


def _overall(one: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for name in ("map", "accuracy"):
        out |= _over_folds(name, one["folds"][name])
    return out


def _per_class(one: Mapping[str, Any]) -> dict[str, Any]:
    out: dict[str, Any] = {}
    for label, folds in one["class_folds"].items():
        out[label] = {}
        for name, called in _CLASS.items():
            out[label] |= _over_folds(called, [value for value in folds[name] if value is not None])
    return out


def _over_folds(name: str, values: Sequence[float | None]) -> dict[str, Any]:
    known = [value for value in values if value is not None]
    return {
        f"{name}_per_fold": list(values),
        f"mean_{name}": float(np.mean(known)) if known else 0.0,
        f"std_{name}": float(np.std(known)) if known else 0.0,
    }


def _significance(plain: Mapping[str, Any]) -> dict[str, Any] | None:
    first = next(iter(plain["sources"]))
    found = comparison(plain, FUSION, first)
    if found is None:
        return None
    p = found["p_t"]
    return {
        "p_value": p,
        "t_statistic": found["t"],
        "mean_improvement": found["mean_per_fold"],
        "ci_lower": found["difference"]["low"],
        "ci_upper": found["difference"]["high"],
        "is_significant": p is not None and p < _ALPHA,
        "test": "corrected resampled t-test over folds",
        "interval": f"95%, by bootstrap over {'runs' if plain['grouped_by'] == 'run' else 'particles'}",
        "baseline": first,
        "p_permutation": found["p_permutation"],
        "mark": plain["mark"],
    }


def comparison(plain: Mapping[str, Any], first: str, second: str, *, metric: str = "map") -> dict[str, Any] | None:
    """Return the comparison of two methods, if it was made."""
    for one in plain["comparisons"]:
        if (one["first"], one["second"], one["metric"]) == (first, second, metric):
            return dict(one)
    return None
