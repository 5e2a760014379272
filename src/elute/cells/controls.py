"""The fourth stage of a run: what the same counts are where there should be less to find.

A feature follows a cell type if its mean over a cell's tokens tells cells of the type from others, on the cells that
chose and again on those that show. Beside the number of such features stand, on the same cells:

    permuted labels           the same features, the cell types handed out anew
    neurons                   the numbers that the dictionary reads, as they are
    principal components      of those numbers, as many as there are
    genes                     the expression of single genes, without any model
    another seed              a dictionary that began elsewhere: also how many features it finds again
    random weights            a dictionary of the same model before its training
    embedding layer           a dictionary of what enters the first block: genes and values before any cell is read

The last three are dear. With `standard` they take a fifth of the steps, and the last two a fifth of the cells, on which
the run's own features are counted once more.

    RUN/validation/summary.json     everything that is printed; with several sites a folder each
    RUN/controls/                   the dictionaries that are held against
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from elute.base import console, files, run
from elute.cells import control_counts as counts

if TYPE_CHECKING:
    from elute.cells.activations import Source
    from elute.cells.plan import Plan
    from elute.cells.units import Unit

SUMMARY = "validation/summary.json"


def hold_against(source: Source, plan: Plan) -> dict[str, Any]:
    """Count for each dictionary what follows a cell type, beside its controls."""
    if plan.validation.controls == "none":
        return {unit.name: {"controls": "not run"} for unit in source.units}
    return {unit.name: _unit(source, unit, plan) for unit in source.units}


def _unit(source: Source, unit: Unit, plan: Plan) -> dict[str, Any]:
    from elute.dictionaries.files import digest, load_dictionary

    path = unit.folder / SUMMARY
    inputs = {"dictionary": digest(load_dictionary(unit.dictionary)), "cells": source.digest}
    known = run.finished(unit.folder, "validate", plan.validation, inputs=inputs)
    if known is not None and path.exists():
        console.say(f"{path}: these controls were run already")
        return known
    console.say(f"{unit.name}: counting beside controls")
    summary = counts.count(source, unit, plan)
    files.make_folder(path.parent)
    files.write_json(path, summary)
    run.record(unit.folder, "validate", plan.validation, inputs=inputs, summary=summary)
    return summary


def lines(held: dict[str, Any]) -> list[str]:
    """Say the counts in lines, each beside its control."""
    told = []
    for site, answer in held.items():
        told += [f"{site}, beside its controls", *counts.lines(answer), ""]
    return told[:-1]
