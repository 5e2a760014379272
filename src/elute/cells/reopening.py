"""A finished run's model, cells and dictionaries, opened again: for what is asked of it after it has ended.

A run's folder names its cells by their file's name and digest, and its model by where it lay and its fingerprint. Both
are looked for where they were and beside the run, and held against what was recorded: another model, or other cells,
are an error.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base import console, files
from elute.base.errors import ConfigError, DataError, EluteError, GuardError, MissingError, near
from elute.base.recipe import build
from elute.cells.activations import MODEL
from elute.cells.settings import ModelConfig, SitesConfig
from elute.models.cells.cellfile import CellsConfig

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    from elute.analysis.findings import Run, SiteRun
    from elute.analysis.rerunning import Watched
    from elute.models.cells.cellfile import Cells
    from elute.models.cells.model import CellModel

STAGE = "run-pipeline"
_DTYPES = ("fp32", "bf16", "fp16")


@dataclass(frozen=True, eq=False)
class Recorded:
    """What a run's folder says of where its features come from; nothing is opened."""

    run: Run
    site: SiteRun
    model: dict[str, Any]
    sections: dict[str, Any]
    source: dict[str, str]

    @property
    def inputs(self) -> dict[str, str]:
        """What a result depends on, by digest."""
        from elute.dictionaries.files import digest

        return {
            "dictionary": digest(self.site.dictionary),
            "model": files.digest_json(self.model["fingerprint"]),
            "source": files.digest_json(self.source),
            "cells": files.digest_file(self.run.folder / "cells.parquet"),
        }


@dataclass(frozen=True, eq=False)
class Reopened:
    """A run whose model and cells are at hand."""

    recorded: Recorded
    model: CellModel
    cells: Cells
    genes: pl.DataFrame
    watched: Watched


def look_up(results: Path | str, site: str | None = None) -> Recorded:
    """Read what a run says of itself, and choose one of its sites."""
    from elute.analysis.findings import open_run

    run = open_run(Path(results))
    if site is None and len(run.sites) > 1:
        what = f"there are several sites: {', '.join(run.sites)}"
        raise DataError(what, where=run.folder, remedy=f"Say which: --site {run.sites[0]}")
    chosen = run.site(site)
    stage = run.record["stages"].get(STAGE)
    if stage is None:
        what = "does not say which cells it read, and how: no run-pipeline has ended here"
        raise DataError(what, where=run.folder, remedy="Finish `elute cells run-pipeline`; what is done is kept.")
    path = run.folder / MODEL
    known = files.read_json(path, what="a run's model") if path.exists() else None
    if not isinstance(known, dict) or not isinstance(known.get("fingerprint"), dict):
        what = "was made from saved activations, and does not say which model gave them"
        raise DataError(what, where=run.folder, remedy="Give the run-pipeline once without --use-saved-activations.")
    return Recorded(run, chosen, known, dict(stage["config"]), dict(stage["inputs"]))


def reopen(
    results: Path | str | Recorded,
    *,
    site: str | None = None,
    data: Path | str | None = None,
    model: Path | str | None = None,
    device: str = "auto",
) -> Reopened:
    """Open a run's model and cells; `data` and `model` say where they lie now, if that is not where they were."""
    recorded = results if isinstance(results, Recorded) else look_up(results, site)
    watched = watch(recorded.site)
    settings = build(CellsConfig, recorded.sections["cells"], where="run.json")
    cells = _cells(recorded, settings, None if data is None else Path(data))
    loaded = _model(recorded, cells, None if model is None else Path(model), device=device)
    from elute.cells import table

    genes = table.read(recorded.run.folder / table.GENES)
    return Reopened(recorded, loaded, cells, genes, watched)


def watch(site: SiteRun) -> Watched:
    """Return a site's dictionary, with what is subtracted of the rows that it reads."""
    from elute.analysis.rerunning import Watched
    from elute.engine import centring

    dictionary = site.dictionary
    wanted = dictionary.spec.source.get("centre")
    centre = None if wanted is None else centring.load(site.folder)
    if centre is not None and centre.digest != wanted:
        what = "the dictionary was trained on rows centred with other means"
        raise GuardError(what, where=site.folder, remedy=centring.REMEDY)
    return Watched(dictionary, centre)


def showing(recorded: Recorded, *, most: int, seed: int, cell_type: str | None = None) -> np.ndarray[Any, Any]:
    """Draw places of cells that chose nothing, ascending: a sample stratified by cell type and donor."""
    import numpy as np
    import polars as pl

    from elute.models.cells.sampling import draw, strata

    table, folder = recorded.run.cells, recorded.run.folder
    if cell_type is not None:
        types = table["label"].drop_nulls().unique().sort().to_list()
        if cell_type not in types:
            remedy = near(cell_type, types) if types else "Leave --cell-type out."
            raise ConfigError(f"there is no cell type {cell_type!r}", where=folder, remedy=remedy)
    chosen = pl.col("split") == "test"
    chosen = chosen if cell_type is None else chosen & (pl.col("label") == cell_type)
    places = table.select(chosen.fill_null(value=False).arg_true()).to_series().to_numpy().astype(np.int64)
    if not len(places):
        of = "" if cell_type is None else f" of type {cell_type!r}"
        what = f"no cell{of} was held out to show on"
        raise DataError(what, where=folder, remedy="Name another --cell-type." if of else "Run it with --hold-out 0.2.")
    part = table[places]
    return places[draw(strata([part["label"], part["donor"]]), most, seed)]


def located(
    opened: Reopened, places: np.ndarray[Any, Any]
) -> Iterator[tuple[Any, pl.DataFrame, np.ndarray[Any, Any], np.ndarray[Any, Any]]]:
    """Yield batches of some cells, with each row's place: of its cell in `places`, of its gene in the table, or -1."""
    import polars as pl

    names = opened.cells.subset(places).names
    cell_of = pl.DataFrame({"name": names, "at": range(len(names))}, schema={"name": pl.String, "at": pl.Int64})
    genes = opened.genes["gene"]
    gene_of = pl.DataFrame({"name": genes, "at": range(len(genes))}, schema={"name": pl.String, "at": pl.Int64})

    def numbers(column: pl.Series, among: pl.DataFrame) -> np.ndarray[Any, Any]:
        asked = pl.DataFrame({"name": column.cast(pl.String)})
        found: np.ndarray[Any, Any] = (
            asked.join(among, on="name", how="left", maintain_order="left")["at"].fill_null(-1).to_numpy()
        )
        return found

    for batch, frame in opened.model.batches(opened.cells.subset(places)):
        yield batch, frame, numbers(frame["sample_id"], cell_of), numbers(frame["token"], gene_of)


def _cells(recorded: Recorded, config: CellsConfig, data: Path | None) -> Cells:
    from elute.models.cells.cellfile import open_cells

    path = data or _find_data(recorded)
    if data is None:
        console.say(f"cells: {path}")
    with console.hushed():
        cells = open_cells(path, config)
    table = recorded.run.cells
    same = [*cells.source.values()] == [*recorded.source.values()]  # the file may have got another name
    if not same or cells.names != table["cell"].to_list():
        what = f"is not what the run read, which was {next(iter(recorded.source))}"
        raise GuardError(what, where=path, remedy="Give the same file, unchanged, with --data.")
    return cells


def _find_data(recorded: Recorded) -> Path:
    """Where a run's cells may lie: beside it, where one works, or in scanpy for the demonstration."""
    name, folder = next(iter(recorded.source)), recorded.run.folder
    if "demo" in recorded.run.record["stages"]:
        from elute.cells.demo import demo_file

        return demo_file()
    for place in (folder, folder.parent, Path(), Path("data")):
        if (place / name).is_file():
            return place / name
    what = f"the run's cells, {name}, are neither in its folder, nor beside it, nor here"
    raise DataError(what, where=folder, remedy="Say where they lie: --data FILE.")


def _model(recorded: Recorded, cells: Cells, given: Path | None, *, device: str) -> CellModel:
    from elute.cells.opening import open_model

    asked = build(ModelConfig, recorded.sections["model"], where="run.json")
    sites = build(SitesConfig, recorded.sections["sites"], where="run.json")
    kept = recorded.model.get("model")
    if given is not None or kept is not None:
        asked = asked.model_copy(update={"model": given or _find_model(recorded, Path(str(kept)))})
    elif recorded.model.get("model_size"):
        asked = asked.model_copy(update={"model": None, "model_size": recorded.model["model_size"]})
        _check_fetched(recorded, asked)
    asked = asked.model_copy(update={"device": device})
    with console.hushed():
        model = open_model(asked, cells, rows=sites.rows)
    _check_model(model, recorded, asked)
    return model


def _find_model(recorded: Recorded, kept: Path) -> Path:
    folder = recorded.run.folder
    for place in (folder / kept.name, kept, folder.parent / kept.name):
        if place.is_dir():
            return place
    what = f"the run's model lay in {kept}, and is not there any more"
    raise MissingError(what, where=folder, remedy="Say where it lies now: --model FOLDER.")


def _check_fetched(recorded: Recorded, asked: ModelConfig) -> None:
    """A published model is not fetched for this: that takes long, and whoever asked did not ask for it."""
    from elute.base.hub.address import Address
    from elute.base.hub.pull import in_cache
    from elute.models.tahoe.hub import FOLDERS, KIND, REPO

    places = [replace(Address(REPO, None), path=path) for path in FOLDERS[asked.model_size]]
    if not any(in_cache(place, KIND) for place in places):
        what = f"the run's model, Tahoe-x1 {asked.model_size}, is not on this machine"
        raise MissingError(what, where=recorded.run.folder, remedy="Give its folder: --model FOLDER.")


def _check_model(model: CellModel, recorded: Recorded, asked: ModelConfig) -> None:
    """Refuse a model that is not what the run read; another number type is told."""
    wanted, found = recorded.model["fingerprint"], model.fingerprint().as_json()
    words = {"weights": "its weights (fine-tuned?)", "sites": "its sites", "config": "its configuration or tokens"}
    changed = [key for key in words if found[key] != wanted.get(key)]
    if changed == ["config"] and isinstance(model.config, dict):
        own = model.config
        for dtype in _DTYPES:
            model.config = {**own, "dtype": dtype}
            if model.fingerprint().config == wanted["config"]:
                console.say(f"model: computes in {model.compute.dtype}, and the run was in {dtype}")
                changed = []
        model.config = own
    if changed:
        what = f"the model is no longer what the run read: other are {', '.join(words[key] for key in changed)}"
        raise GuardError(what, where=asked.model or model.name, remedy="Give the model of the run: --model FOLDER.")


def check_steerable(watched: Watched, where: Path) -> None:
    """Refuse a dictionary of which no one place says what a feature is, and no one where it is set."""
    spec = watched.dictionary.spec
    if len(spec.reads) != 1 or len(spec.writes) != 1:
        what = f"a {spec.kind} reads and writes several sites, and its features cannot be set at one"
        raise EluteError(what, where=where, remedy="Sparse autoencoders and transcoders can be steered.")
