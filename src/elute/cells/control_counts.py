"""The counts behind `controls.py`: what follows a cell type, of features and of what they are held against."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
import torch

from elute.base import console
from elute.base.errors import EluteError, GuardError
from elute.cells import associations, table
from elute.cells.control_donors import across_donors
from elute.cells.control_donors import lines as donor_lines
from elute.cells.control_rows import genes_of, nearest_cosine, neurons_of, thinned
from elute.cells.units import NAME, Unit

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from elute.analysis.followers import Followers
    from elute.analysis.tally import Tallied
    from elute.cells.activations import Source
    from elute.cells.plan import Plan

SHARE = 0.2
FOLDER = "controls"
PERMUTATIONS = 20
ALIKE = 0.7  # cosine at which a feature counts as found again
_NOT_RUN = "not run"
_ON_THOSE = "features, on those cells"


@dataclass(frozen=True, eq=False)
class _Asked:
    """The cells on which is counted."""

    rows: NDArray[np.int64]  # of the table
    labels: list[Any]
    choosing: NDArray[np.bool_]
    shown: NDArray[np.bool_] | None
    donors: list[Any] | None

    @classmethod
    def of(cls, cells: pl.DataFrame, most: int) -> _Asked:
        """Take the cells that have a type and a token, evenly thinned out if there are too many."""
        from elute.analysis.pooled import sides

        rows = np.flatnonzero(cells["label"].is_not_null().to_numpy())
        rows = rows[:: 1 + (len(rows) - 1) // most]
        part = cells[rows]
        choosing, shown = sides(part)
        donors = None if part["donor"].null_count() else part["donor"].to_list()
        return cls(rows, part["label"].to_list(), choosing, shown, donors)


class _Counter:
    """Counts what follows a type among columns that are given in blocks [cells, columns]."""

    def __init__(self, cells: pl.DataFrame, plan: Plan) -> None:
        self.asked = _Asked.of(cells, plan.validation.most_cells)
        self.at, self.least, self.seed = plan.validation.at, plan.extract.least_cells, plan.training.seed

    def __call__(self, blocks: Iterable[Any], *, both_signs: bool = False, permutations: int = 0) -> Followers:
        from elute.analysis.followers import followers

        of = self.asked
        return followers(
            (block[of.rows] for block in blocks), of.labels, of.choosing, shown=of.shown, at=self.at,
            least=self.least, both_signs=both_signs, permutations=permutations, within=of.donors, seed=self.seed,
        )  # fmt: skip


def count(source: Source, unit: Unit, plan: Plan) -> dict[str, Any]:
    """Count for one dictionary and all that it is held against."""
    from elute.dictionaries.files import load_dictionary

    dictionary = load_dictionary(unit.dictionary)
    tallied = associations.tally(source, unit, plan, dictionary=dictionary)
    answer: dict[str, Any] = {"reconstruction": _reconstruction(source, unit)}
    labelled = source.table["label"].drop_nulls().n_unique() > 1
    columns: dict[str, Any] = {}
    if labelled:
        counter = _Counter(source.table, plan)
        found = counter(_means(tallied), permutations=PERMUTATIONS)
        columns["features"] = _told(found)
        permuted = found.permuted
        middle = float(np.median(permuted)) if permuted else None
        columns["permuted labels"] = {"columns": found.columns, "follow": middle, "most": max(permuted, default=None)}
        if found.note:
            columns["permuted labels"] = {_NOT_RUN: found.note}
        neurons, components = neurons_of(source, unit.reads[0])
        columns["neurons"] = _told(counter([neurons], both_signs=True))
        columns["principal components"] = _told(counter([neurons @ components], both_signs=True))
        columns["genes"] = _told(counter(genes_of(source)))
    else:
        answer["note"] = "no cell types are known: nothing is counted by them"
    kinds = {"features": associations.kinds_of(tallied, source.table)}
    for name, make in (
        ("another seed", _another_seed), ("random weights", _random_weights), ("embedding layer", _embedding),
    ):  # fmt: skip
        try:
            theirs, control, more = make(source, unit, plan)
        except EluteError as error:
            columns[name] = {_NOT_RUN: str(error)}
            continue
        kinds[name] = associations.kinds_of(control, theirs.table)
        columns[name] = {**more, "cells": len(theirs.table)}
        if labelled:
            if len(theirs.table) < len(source.table) and _ON_THOSE not in columns:
                columns = {**columns, _ON_THOSE: _on_those(source, theirs, tallied, plan), name: columns.pop(name)}
            columns[name] |= _told(_Counter(theirs.table, plan)(_means(control)))
    named = [name.removeprefix("obs:") for name in source.table.columns if name.startswith("obs:")]
    levels = [name for name in named if not source.table[f"obs:{name}"].dtype.is_numeric()]
    answer["across donors"] = across_donors(
        tallied, source.table, [*(["label"] if labelled else []), *levels], fdr=plan.extract.fdr,
        most=plan.validation.most_cells, seed=plan.training.seed,
    )  # fmt: skip
    answer["fdr"], answer["label"] = plan.extract.fdr, source.cells.config.cell_type_key
    return {**answer, "at": plan.validation.at, "controls": plan.validation.controls, "follow": columns, "kinds": kinds}


def _told(found: Followers) -> dict[str, Any]:
    """A column of the table."""
    return {
        "columns": found.columns,
        "follow": found.total if found.levels else None,
        "by type": found.levels,
        "no claim": list(found.small),
        "both signs": found.both_signs,
        "best": {name: [part.column for part in best] for name, best in found.best.items()},
    }


def _means(tallied: Tallied) -> Iterator[Any]:
    from elute.analysis.pooled import pooled

    return (block.mean for block in pooled(tallied))


def _on_those(source: Source, theirs: Source, tallied: Tallied, plan: Plan) -> dict[str, Any]:
    """The run's own features, on the cells that a control was read on."""
    mine = source.table.with_row_index("place").join(theirs.table.select("cell"), on="cell", how="semi")
    places = mine["place"].to_numpy()
    counter = _Counter(theirs.table, plan)
    return {**_told(counter(block[places] for block in _means(tallied))), "cells": len(places)}


def _reconstruction(source: Source, unit: Unit) -> dict[str, Any] | str:
    """How well rows of cells that only show are given again, beside as many principal directions."""
    from elute.dictionaries.files import load_dictionary
    from elute.engine.evaluate import evaluate
    from elute.engine.settings import EvalConfig

    if source.store is None:
        return _NOT_RUN
    judged = evaluate(load_dictionary(unit.dictionary), source.store, EvalConfig(split="test"), beside=unit.dictionary)
    keys = ("rows", "explained_variance", "l0", "dead_fraction")
    return {**{key: judged[key] for key in keys}, "principal": judged["control"]["explained_variance_pca"]}


def _trained(source: Source, unit: Unit, plan: Plan, *, share: float, seed: int = 0) -> Tallied:
    """Train a control's dictionary, and tally it."""
    from elute.cells.learning import training_of
    from elute.dictionaries.files import load_dictionary
    from elute.engine.resume import OtherSettingsError
    from elute.engine.train import train

    assert source.store is not None  # noqa: S101  # a control is captured
    training = training_of(source, unit, plan, share=share, seed=seed)
    try:
        train(source.store.folder, unit.folder, training)
    except OtherSettingsError:  # of a control that can be made again
        train(source.store.folder, unit.folder, training, anew=True)
    associations.encode(source, unit, plan)
    return associations.tally(source, unit, plan, dictionary=load_dictionary(unit.folder / NAME))


def _share(plan: Plan) -> float:
    return 1.0 if plan.validation.controls == "full" else SHARE


def _another_seed(source: Source, unit: Unit, plan: Plan) -> tuple[Source, Tallied, dict[str, Any]]:
    from elute.dictionaries.files import load_dictionary

    if source.store is None:
        raise EluteError("no activations are stored (--stream)")
    other = replace(unit, folder=unit.folder / FOLDER / "another_seed", given=None)
    console.say("control: another seed")
    with console.hushed():
        tallied = _trained(source, other, plan, share=_share(plan), seed=1)
    mine, theirs = (associations.directions(load_dictionary(path)) for path in (unit.dictionary, other.folder / NAME))
    fired = torch.from_numpy(tallied.fired > 0)
    stability = nearest_cosine(mine, theirs[fired])
    drawn = torch.randn(theirs[fired].shape, generator=torch.Generator().manual_seed(1_000_003 + plan.training.seed))
    chance = nearest_cosine(mine, drawn)
    path = unit.folder / "features.parquet"
    frame = table.read(path).with_columns(stability=pl.Series(stability, dtype=pl.Float64))
    table.write(path, frame)
    alive = frame["alive"].to_numpy()
    told = {
        "found again": float((stability[alive] >= ALIKE).mean()) if alive.any() else 0.0,
        "found again by chance": float((chance[alive] >= ALIKE).mean()) if alive.any() else 0.0,
    }
    return source, tallied, told


def _random_weights(source: Source, unit: Unit, plan: Plan) -> tuple[Source, Tallied, dict[str, Any]]:
    model = plan.model.model_copy(update={"random_weights": True})
    return _other_rows(source, replace(unit, given=None), replace(plan, model=model), "random_weights")


def _embedding(source: Source, unit: Unit, plan: Plan) -> tuple[Source, Tallied, dict[str, Any]]:
    site = "blocks.0.hook_resid_pre"
    return _other_rows(source, Unit("embedding", unit.folder, "sae", (site,), (site,)), plan, "embedding_layer")


def _other_rows(source: Source, unit: Unit, plan: Plan, name: str) -> tuple[Source, Tallied, dict[str, Any]]:
    """Read other rows of a share of the cells, and train a dictionary on them."""
    from elute.cells.activations import prepare

    folder = unit.folder / FOLDER / name
    training = plan.training.model_copy(update={"stream": False, "center": plan.training.center})
    plan = replace(plan, output=folder, training=training)
    cells = source.cells.subset(thinned(source.table, _share(plan)))
    console.say(f"control: {name.replace('_', ' ')}, {len(cells):,} cells")
    split = cells.metadata["split"].to_list()
    with console.hushed():
        opened = cells, table.split_digest(split)
        try:
            theirs = prepare(plan, [replace(unit, folder=folder)], opened=opened)
        except GuardError:  # of other cells, or another model: they can be read again
            plan = replace(plan, capture=plan.capture.model_copy(update={"recapture": True}))
            theirs = prepare(plan, [replace(unit, folder=folder)], opened=opened)
        return theirs, _trained(theirs, theirs.units[0], plan, share=_share(plan)), {}


def lines(answer: dict[str, Any]) -> list[str]:
    """Say the counts of one dictionary in lines."""
    if "follow" not in answer:
        return ["  controls: not run"]
    told = []
    if isinstance(judged := answer["reconstruction"], dict):
        told.append(
            f"  variance explained on cells held out {judged['explained_variance']:.1%}; "
            f"by {judged['l0']:.0f} principal directions {judged['principal']:.1%}"
        )
    told.append(f"  {'':<26}{'columns':>9}{'follow a type':>15}{'gene identity':>15}{'found again':>13}")
    for name, part in answer["follow"].items():
        told.append(f"  {name:<26}{_cells_of(part, answer['kinds'].get(name, {}))}")
    told.append(f"  (AUROC of {answer['at']:g} or more on the cells that chose, and again on those that show;")
    told.append(f"   found again: cosine of {ALIKE:g} or more with a feature of another seed, by chance in brackets)")
    few = answer["follow"].get("features", {}).get("no claim", [])
    if few:
        told.append(f"  too few cells for a claim: {', '.join(few)}")
    told += donor_lines(answer["across donors"], fdr=answer["fdr"], label=answer["label"])
    return [*told, *([f"  {answer['note']}"] if "note" in answer else [])]


def _cells_of(part: dict[str, Any], kinds: dict[str, int]) -> str:
    """One line of the table."""
    if _NOT_RUN in part:
        return f"   not run: {part[_NOT_RUN]}"
    total = sum(n for kind, n in kinds.items() if kind not in ("silent", "rare"))
    follow = "–" if part.get("follow") is None else f"{part['follow']:,.0f}"
    columns = f"{part['columns']:,}" if "columns" in part else ""
    share = f"{kinds.get('gene identity', 0) / total:.0%}" if total else ""
    again = f"{part['found again']:.0%} ({part['found again by chance']:.0%})" if "found again" in part else ""
    return f"{columns:>9}{follow:>15}{share:>15}{again:>13}"
