"""How many features differ between levels across donors, and how many do with the levels dealt out anew inside each.

A difference that is there with cells as the unit is often that of one donor. Here each donor gives one number a
feature, and the null gives each donor's cells the same levels in another order.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from elute.analysis.donors import donor_design, donor_effects, donors_of, read_levels
from elute.analysis.pooled import pooled
from elute.base.errors import EluteError
from elute.base.statistics.corrections import benjamini_hochberg
from elute.base.statistics.nulls import permuted_labels

if TYPE_CHECKING:
    import polars as pl

    from elute.analysis.donors import Design
    from elute.analysis.tally import Tallied

PERMUTATIONS = 20


def across_donors(
    tallied: Tallied, cells: pl.DataFrame, columns: list[str], *, fdr: float, most: int, seed: int
) -> dict[str, Any]:
    """Count for each column the features with q at most `fdr` across donors, on up to `most` cells."""
    rows = np.arange(len(cells))[:: 1 + (len(cells) - 1) // most]
    part = cells[rows]
    donors = donors_of(part)
    if donors is None:
        return {}
    told: dict[str, Any] = {}
    designs: dict[str, list[Design]] = {}
    for column in columns:
        try:
            levels = read_levels(part, column, one_cell="note")
        except EluteError as error:
            told[column] = {"not run": str(error)}
            continue
        design = donor_design(levels.codes, len(levels.names), donors)
        if design.how is None:
            told[column] = {"not run": design.why_not}
            continue
        designs[column] = [design]
        if design.how == "within":
            known = np.flatnonzero((levels.codes >= 0) & (donors.codes >= 0))
            shuffles = permuted_labels(levels.codes[known], donors.codes[known], n_permutations=PERMUTATIONS, seed=seed)
            for shuffled in shuffles:
                codes = np.full(len(levels.codes), -1, np.int64)
                codes[known] = shuffled
                designs[column].append(donor_design(codes, len(levels.names), donors))
    found: dict[str, list[list[Any]]] = {column: [[] for _ in each] for column, each in designs.items()}
    for block in pooled(tallied):
        values = block.mean[rows]
        for column, each in designs.items():
            for i, design in enumerate(each):
                found[column][i].append(donor_effects(values, design).p)
    for column, collected in found.items():
        counts = [_passed(np.concatenate(parts, axis=1), fdr) for parts in collected]
        design = designs[column][0]
        told[column] = {
            "how": design.how, "donors": int(design.counts.any(axis=1).sum()),
            "features": counts[0], "permuted": counts[1:],
        }  # fmt: skip
    return told


def _passed(p: Any, fdr: float) -> int:
    """Count features with a level that passes, among all features and levels."""
    if np.isnan(p).all():
        return 0
    return int((benjamini_hochberg(p, missing="carry") <= fdr).any(axis=0).sum())


def lines(told: dict[str, Any], *, fdr: float, label: str) -> list[str]:
    """Say it, each count beside its null."""
    made = []
    for column, part in told.items():
        name = label if column == "label" else column
        if "not run" in part:
            made.append(f"  {name} across donors: not run ({part['not run']})")
            continue
        null = part["permuted"]
        beside = "no null: each donor has one level alone"
        if null:
            beside = f"dealt out anew {np.mean(null):.1f} on average, {max(null):,} at most of {len(null)} times"
        made.append(f"  {name} across {part['donors']} donors: {part['features']:,} features, q ≤ {fdr:g}; {beside}")
    return made
