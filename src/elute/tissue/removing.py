"""Is the relevance true? What the head gives while the most relevant codes or patches are removed, beside chance.

    faithfulness/<gene>.parquet       unit (codes, patches), order (most, random, least), removed, output

The area between the random order and the one by relevance is told with its interval, beside the same area of another
random order in its place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from elute.base import files

if TYPE_CHECKING:
    from pathlib import Path

    from elute.tissue.opening_case import Case, Found
    from elute.tissue.plan import Plan

_PATCHES = 5_000  # of a sample: of whole slides, codes alone are removed
_TOLD = ("gain", "gain_low", "gain_high", "control", "control_low", "control_high", "samples")


def removal_curves(plan: Plan, case: Case, found: Found) -> list[Path]:
    """Draw the curves of each gene, on as many samples as the settings say; what they tell goes beside the gene."""
    import polars as pl

    from elute.analysis.faithfulness import Unit, perturbation_curves
    from elute.analysis.token_maps import safe_name

    folder = files.make_folder(plan.output / "faithfulness")
    stream = list(first_samples(case, plan.crp.curve_samples))
    units: list[Unit] = ["codes"]
    patches = pl.concat([frame.select("sample_id") for _, frame in stream])["sample_id"].value_counts()["count"]
    if "token_rc" in case.stream.store.manifest.columns and patches.max() <= _PATCHES:
        units.append("patches")
    written = []
    for gene, (relevance, _, told) in found.items():
        curves = [
            perturbation_curves(case.explained, stream, {"y": gene}, unit=unit, rule=relevance.rules) for unit in units
        ]
        told["faithful"] = {curve.unit: _summary(curve.summary()) for curve in curves}
        table = pl.concat([curve.table() for curve in curves])
        path = folder / f"{safe_name(gene)}.parquet"
        whole = table.select(pl.lit(gene, pl.String).alias("gene"), pl.all())
        files.write_atomically(path, whole.write_parquet)
        written.append(path)
    return written


def _summary(told: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a curve; an interval of one sample is not a number, and is left out."""
    return {name: told[name] for name in _TOLD if told[name] == told[name]}


def first_samples(case: Case, most: int) -> Any:
    """Yield the codes of some samples, spread evenly over all: whole, and each once."""
    from dataclasses import replace

    names = case.stream.names
    step = max(1, len(names) // most)
    chosen = names[::step][:most]
    if case.stream.weights is None:
        yield from replace(case.stream, names=chosen)
        return
    kept = set(chosen)
    for codes, frame in case.stream:
        mask = frame["sample_id"].is_in(list(kept))
        if mask.any():
            yield codes[mask.to_torch()], frame.filter(mask)
