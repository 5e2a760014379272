"""From an .h5ad file to features with names, in one command: each stage reads what the one before it wrote.

    activations/            what the model computes on the cells           activations.py
    sae_final.pt            the dictionary                                 learning.py
    codes/, *.parquet       which features fire where, and what they follow  associations.py
    validation/             the same counts for what should give nothing   controls.py
                            what databases say of features' genes          validating.py
    dashboard.html          a page to open in a browser                    reports/explorer/

A stage whose settings and inputs are the same as before is not done again. A stage that was killed goes on, or is done
anew as a whole; what it had not finished is never taken for a result.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base import console, files, run
from elute.base.run import Artifact
from elute.cells.units import Unit

if TYPE_CHECKING:
    from elute.cells.activations import Source
    from elute.cells.plan import Plan


@dataclass(frozen=True)
class Stages:
    """Which stages are left out, because what they would write is there."""

    saved_activations: bool = False
    training: bool = False
    extraction: bool = False
    validation: bool = False
    dashboard: bool = False


def run_pipeline(plan: Plan, skip: Stages | None = None) -> Artifact:
    """Do every stage that is asked for and not done yet."""
    skip = skip or Stages()
    with alone(plan.output):
        return Artifact("features", plan.output, finish(_source(plan, skip), plan, skip))


def finish(source: Source, plan: Plan, skip: Stages | None = None) -> dict[str, Any]:
    """Do the stages after the first, and say what came of them."""
    from elute.cells.associations import associate
    from elute.cells.controls import hold_against
    from elute.cells.learning import learn
    from elute.cells.validating import hold_sites

    skip = skip or Stages()
    trained = learn(source, plan, skip=skip.training)
    told = associate(source, plan, skip=skip.extraction)
    held = None if skip.validation else hold_against(source, plan)
    kept = all((unit.folder / "codes").exists() for unit in source.units)  # of a streamed run none are
    asked = hold_sites(plan.output, plan.databases) if kept and not skip.validation else None
    _record(source, plan)
    page = None if skip.dashboard else _dashboard(plan)
    return {
        "cells": len(source.table),
        "rows": source.rows,
        "sites": [{**part, "folder": str(unit.folder)} for unit, part in zip(source.units, told, strict=True)],
        "trained": trained,
        "controls": "not run" if held is None else held,
        "databases": "not run" if asked is None else asked,
        "dashboard": "not run" if page is None else str(page),
    }


def _record(source: Source, plan: Plan) -> None:
    """Say in the run's own folder what it is; each dictionary's folder says what was done there."""
    model = None if source.model is None else source.model.fingerprint()
    summary = {"cells": len(source.table), "genes": len(source.genes), "rows": source.rows,
               "sites": [unit.name for unit in source.units]}  # fmt: skip
    run.record(plan.output, "run-pipeline", plan.sections(), inputs=source.cells.source, summary=summary, model=model)


def train_features(plan: Plan, *, saved_activations: bool = False) -> Artifact:
    """Do the first two stages: activations and dictionaries."""
    with alone(plan.output):
        source = _source(plan, Stages(saved_activations=saved_activations))
        from elute.cells.learning import learn

        trained = learn(source, plan)
    sites = [{"site": unit.name, "folder": str(unit.folder)} for unit in source.units]
    return Artifact("dictionary", plan.output, {"rows": source.rows, "sites": sites, "trained": trained})


def extract_features(sae: Path, plan: Plan) -> Artifact:
    """Tell what a saved dictionary's features follow, on the activations of its run or on those of other cells."""
    from elute.cells.activations import MODEL, prepare, saved
    from elute.cells.associations import associate
    from elute.dictionaries.files import load_dictionary

    spec = load_dictionary(sae).spec
    home = sae if sae.is_dir() else sae.parent
    name = next(iter(spec.writes)) if len(spec.writes) == 1 else spec.kind
    unit = Unit(name, plan.output, spec.kind, tuple(spec.reads), tuple(spec.writes), given=sae)
    for folder in (home, home.parent):
        if (folder / MODEL).exists() and plan.model.model is None:
            plan = _same_model(plan, folder / MODEL)
            break
    with alone(plan.output):
        own = plan.output.resolve() == home.resolve()
        if own and not (plan.activations / "manifest.json").exists() and (home.parent / "activations").exists():
            source = saved(replace(plan, output=home.parent), [unit])  # one site of several: the rows lie above
        else:
            source = prepare(plan, [unit])
        told = associate(source, plan)
    sites = [{"site": unit.name, "folder": str(unit.folder), **told[0]}]
    summary = {"cells": len(source.table), "rows": source.rows, "sites": sites}
    return Artifact("features", plan.output, {**summary, "controls": "not run", "dashboard": "not run"})


def _same_model(plan: Plan, path: Path) -> Plan:
    """Read with the model of the dictionary's own run, where none is named."""
    known = files.read_json(path, what="a run's model", remedy="Name the model with --model.")
    model = known.get("model") if isinstance(known, dict) else None
    if not model:
        return plan
    return replace(plan, model=plan.model.model_copy(update={"model": Path(model)}))


def alone(folder: Path) -> AbstractContextManager[None]:
    """Hold a run's folder: two runs into one would write over each other."""
    files.make_folder(folder)
    return files.locked(folder, "run-pipeline", name=".run.lock")  # stages hold their own


def _source(plan: Plan, skip: Stages) -> Source:
    from elute.cells.activations import prepare, saved

    console.say(f"{plan.data} → {plan.output}")
    return saved(plan) if skip.saved_activations else prepare(plan)


def _dashboard(plan: Plan) -> Path:
    from elute.reports.explorer.write import write_explorer

    settings = plan.dashboard
    top, every = settings.top_n_features, settings.all_cells
    return write_explorer(plan.output, top_n_features=top, all_cells=every, data=plan.data).path


def show(answer: dict[str, Any]) -> str:
    """Say what came of a run."""
    lines = [""]
    for unit in answer["sites"]:
        lines += _site_lines(unit)
    if isinstance(answer["controls"], dict):
        from elute.cells.controls import lines as control_lines

        lines += ["", *control_lines(answer["controls"])]
    else:
        lines += ["", "controls: not run (--skip-validation): without them the counts above say little"]
    if isinstance(answer.get("databases"), dict):
        from elute.cells.validating import lines as database_lines

        lines += ["", *database_lines(answer["databases"], answer["path"])]
    lines.append("")
    if answer["dashboard"] == "not run":
        lines.append(f"tables: {answer['path']}; the page was not written (--skip-dashboard)")
    else:
        lines.append(f"Open {answer['dashboard']} in a browser.")
    return "\n".join(lines)


def _site_lines(unit: dict[str, Any]) -> list[str]:
    kinds = ", ".join(f"{n:,} {name}" for name, n in unit["kinds"].items() if n)
    lines = [f"{unit['site']}: {unit['alive']:,} of {unit['features']:,} features fire ({kinds})"]
    for part in unit["groups"]:
        name = unit.get("label", "cell type") if part["column"] == "label" else part["column"]
        shown = part["features_shown"]
        again = "none were held out" if shown is None else f"{shown:,} of them again on those held out"
        told = f"{part['features']:,} follow it with the cell as the unit, {again}"
        if part.get("features_donors") is not None:
            told = f"{part['features_donors']:,} differ across donors; {told}"
        lines.append(f"  {name}: {told}")
    lines += [f"  {note}" for note in unit["notes"]]
    return lines
