"""A run's feature turned up, set or put out on held-out cells: which genes' predicted values and later features change.

    effects/steer_F_KEY.parquet, .json     docs/formats/effects.md

What is measured, and beside what: analysis/steering.py. The same settings on the same run are read, not computed.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base import console
from elute.base.errors import DataError
from elute.base.recipe import build
from elute.base.run import Artifact
from elute.cells import effect_files as kept
from elute.cells.effect_settings import SteerConfig
from elute.cells.effect_tables import of_features, of_genes, progress, resolution_of, section

if TYPE_CHECKING:
    from collections.abc import Iterator

    import polars as pl

    from elute.analysis.changes import Cancel, Told, Units
    from elute.analysis.rerunning import Part
    from elute.analysis.steering import Measured, Steering
    from elute.base.mergeable import Integers
    from elute.cells.reopening import Recorded, Reopened

KIND = "steer"


def steer(
    results: Path | str | Recorded,
    *,
    feature: int,
    site: str | None = None,
    config: SteerConfig | None = None,
    opened: Reopened | None = None,
    data: Path | str | None = None,
    model: Path | str | None = None,
    told: Told | None = None,
    cancel: Cancel | None = None,
    **asked: Any,
) -> Artifact:
    """Set a feature on held-out cells, and write what changes beside controls; or read what was written before.

    Settings come as a `config`, or one by one (`times=2.0`, `cells=200`, …). `opened` is what `reopen` gave, for those
    who ask often. `told(done, total)` hears how far it has come; `cancel()` ends it where it returns True.
    """
    from elute.cells.reopening import look_up

    config = config or build(SteerConfig, asked, where=KIND)
    recorded = opened.recorded if opened is not None else results
    recorded = recorded if not isinstance(recorded, Path | str) else look_up(recorded, site)
    row = recorded.site.feature(feature).row
    if not row.get("alive"):
        what = f"feature {feature} never fired in this run: its direction means nothing"
        raise DataError(what, where=recorded.site.folder, remedy="Choose one that is alive.")
    settings = {"feature": feature, "site": recorded.site.name, **config.model_dump(mode="json")}
    key = kept.key_of(KIND, settings, recorded.inputs)
    path = kept.place_of(recorded.site.folder, f"{KIND}_{feature}", key)
    before = kept.known(path, key)
    if before is not None:
        console.say(f"{path}: this was computed already")
        return Artifact(KIND, path, {**before, "reused": True})
    frame, summary = _compute(recorded, feature, config, opened=opened, data=data, model=model, told=told,
                              cancel=cancel)  # fmt: skip
    whole = {"kind": KIND, "key": key, "settings": settings, "inputs": recorded.inputs, "summary": summary}
    return Artifact(KIND, path, {**kept.keep(path, frame, whole), "reused": False})


def _compute(
    recorded: Recorded, feature: int, config: SteerConfig, *, opened: Reopened | None, data: Any, model: Any,
    told: Told | None, cancel: Cancel | None,
) -> tuple[pl.DataFrame, dict[str, Any]]:  # fmt: skip
    from elute.analysis.changes import Pace, Units
    from elute.analysis.steering import measure
    from elute.cells import reopening

    # What is wrong with the question is told before anything large is opened.
    reopening.check_steerable(opened.watched if opened else reopening.watch(recorded.site), recorded.site.folder)
    places = reopening.showing(recorded, most=config.cells, seed=config.seed, cell_type=config.cell_type)
    opened = opened or reopening.reopen(recorded, data=data, model=model)
    units = Units.of(recorded.run.cells[places]["donor"].to_list())
    asked = _steering(opened, feature, config)
    total = asked.forwards * len(places) * (2 if asked.later and config.hide else 1)
    with progress(f"feature {feature}", total, told) as tell:
        pace = Pace(total, told=tell, cancel=cancel)
        found = measure(asked, _parts(opened, places, asked, config), units, n_genes=len(opened.genes), pace=pace)
    return _tables(opened, asked, found, units=units)


def _steering(opened: Reopened, feature: int, config: SteerConfig) -> Steering:
    from elute.analysis.steering import Steering, Target, like_features
    from elute.cells.reopening import watch

    run, site, watched = opened.recorded.run, opened.recorded.site, opened.watched
    order = list(opened.model.sites)
    writes = order.index(next(iter(watched.dictionary.spec.writes)))
    others = {name: watch(run.site(name)) for name in run.sites if name != site.name}
    later = {name: w for name, w in others.items() if all(order.index(read) > writes for read in w.sites)}
    scaled = 0.0 if config.off else (2.0 if config.times is None else config.times)
    return Steering(
        model=opened.model,
        watched=watched,
        feature=feature,
        target=Target(to=config.to) if config.to is not None else Target(times=scaled),
        like=like_features(site.features.frame["frequency"].to_numpy(), feature, config.controls, seed=config.seed),
        random=config.controls,
        doses=config.doses,
        later=later,
        seed=config.seed,
    )


def _parts(opened: Reopened, places: Integers, asked: Steering, config: SteerConfig) -> Iterator[Part]:
    from elute.analysis.rerunning import Part
    from elute.cells.hiding import rounds
    from elute.cells.reopening import located

    for batch, frame, cell, gene in located(opened, places):
        made = rounds(
            opened.model, batch, frame, gene=gene, hide=config.hide, seed=config.seed, coded=bool(asked.later)
        )
        if not made:
            what = "predicts no values, and the run has no dictionary further on: there is nothing to read"
            raise DataError(what, where=opened.model.name, remedy="Choose an earlier --site of a run of several.")
        yield Part(made, frame, cell, gene)


def _tables(opened: Reopened, asked: Steering, found: Measured, *, units: Units) -> tuple[pl.DataFrame, dict[str, Any]]:
    """One table of genes and later features, and what it says."""
    import polars as pl

    resolution = resolution_of(opened)
    parts, told = [], {}
    if found.genes is not None:
        frame, told["genes"] = of_genes(opened, found.genes, units, resolution=resolution)
        parts.append(frame)
    told["features"] = {}
    for name, reading in found.features.items():
        frame, told["features"][name] = of_features(reading, units, site=name, resolution=resolution)
        parts.append(frame)
    own = asked.watched.dictionary.directions()
    likeness = _cosines(own, asked.feature, asked.like)
    summary = {
        **told, "units": units.kind, "n_units": len(units), "n_cells": len(units.codes), "rows": found.rows,
        "moved": found.moved, "length": found.length, "identity": found.identity, "told": found.told,
        "like": list(asked.like), "like_cosines": likeness,
    }  # fmt: skip
    if found.genes is not None and (found.told is None or found.told <= 0):
        said = "nothing is known" if found.told is None else f"R² {found.told:.2f}"
        console.warn(f"{opened.model.name}: how well it tells values here: {said}; changes in them may mean little")
    return pl.concat(parts, how="diagonal"), summary


def _cosines(directions: Any, feature: int, like: Any) -> list[float]:
    unit = directions.cpu().float()
    unit = unit / unit.norm(dim=1, keepdim=True).clamp(min=1e-30)
    return [round(float(unit[feature] @ unit[i]), 4) for i in like]


def show(answer: dict[str, Any]) -> str:
    """Say what came out, beside its controls."""
    return "\n".join(lines(answer))


def lines(answer: dict[str, Any]) -> list[str]:
    """The lines of it."""
    import polars as pl

    settings, found = answer["settings"], answer["summary"]
    frame = pl.read_parquet(answer["path"])
    how = f"set to {settings['to']:g}" if settings["to"] is not None else None
    how = how or ("put out" if settings["off"] else f"times {settings['times'] or 2:g}")
    unit = f"{found['n_units']:,} {found['units']}"
    unit += f", {found['n_cells']:,} cells" if found["units"] == "donors" else ""
    moved = f"{found['moved']:,} of {found['rows']:,} rows moved"
    told = [f"feature {settings['feature']} of {settings['site']}, {how}: {moved}, in {unit}"]
    if "genes" in found:
        said = "" if found["told"] is None else f" (R² of the predictions, without an edit: {found['told']:.2f})"
        told.append(f"genes' predicted values{said}")
        told += section(frame.filter(pl.col("kind") == "gene"), found["genes"], "symbol")
    for site, part in found["features"].items():
        told.append(f"features of {site}")
        told += section(frame.filter((pl.col("kind") == "feature") & (pl.col("site") == site)), part, "feature")
    return [*told, f"table: {answer['path']}" + (" (computed before)" if answer["reused"] else "")]
