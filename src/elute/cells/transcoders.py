"""Transcoders of all MLPs of a run's model, trained where they are not there yet.

    RESULTS/transcoders/layers/0, 1, …          one of each block: what its MLP reads to what it writes
    RESULTS/transcoders/clt                     one across all blocks
    RESULTS/transcoders/layers.json, clt.json   with which settings; there when all of a kind have been trained
    RESULTS/transcoders/rows                    while they are trained

A graph asks the model for a value that is hidden from it. So the rows are those of training cells of which a share of
the values is hidden, a mark in their place, and of the cell's own token as well: features of visible values alone would
not know the one row that matters the most. Rows that take too much of the disk are read from the model in the loop
(engine/live.py). What was interrupted goes on when the same command is given again; what is there is used as it is.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base import console, files
from elute.base.errors import ConfigError, DataError, GuardError
from elute.dictionaries.files import NAME, load_dictionary

if TYPE_CHECKING:
    import polars as pl

    from elute.base.contracts import Fingerprint, Rows
    from elute.cells.graph_settings import TranscodersConfig
    from elute.cells.reopening import Reopened
    from elute.dictionaries.dictionary import Dictionary
    from elute.engine.train import Training
    from elute.graphs.layers import Layers
    from elute.models.cells.model import CellModel

FRONT = "(cell)"  # what the tokens in front of a cell's genes are called
FOLDER, ROWS = "transcoders", "rows"
CLT = {"tanh": 4.0, "pull": 3e-6}  # numbers of the published recipe (E. Ameisen et al., "Circuit tracing", 2025)
_BUFFER = 1 << 30  # bytes of rows that wait, where they come from the model


class Hiding:
    """A model whose cells come with a share of their values hidden, drawn by the cell's name; all tokens are rows."""

    def __init__(self, model: CellModel, share: float, seed: int) -> None:
        self.model, self.share, self.seed = model, share, seed
        self.name, self.sites = model.name, model.sites

    def fingerprint(self) -> Fingerprint:
        """The model's."""
        return self.model.fingerprint()

    def batches(self, data: Any, **settings: Any) -> Iterator[tuple[Any, pl.DataFrame]]:
        """Yield batches with hidden values."""
        import polars as pl

        from elute.cells.hiding import rounds

        for batch, frame in self.model.batches(data, every=True, **settings):
            gene = frame["token"].is_not_null().to_numpy().astype(int) - 1
            made = rounds(self.model, batch, frame, gene=gene, hide=self.share, seed=self.seed, coded=False)
            yield made[0].batch, frame.with_columns(pl.col("token").fill_null(FRONT))  # a store names every row

    def capture(self, batch: Any, sites: Sequence[str] | None = None) -> Rows:
        """Return the rows of each site."""
        return self.model.capture(batch, sites)


@dataclass(frozen=True, eq=False)
class Job:
    """Which transcoders are wanted of which model."""

    opened: Reopened
    layers: Layers
    config: TranscodersConfig

    @property
    def place(self) -> Path:
        """Where they lie."""
        return self.opened.recorded.run.folder / FOLDER

    def homes(self, kind: str) -> list[Path]:
        """The folder of each of a kind."""
        return (
            [self.place / "clt"] if kind == "clt" else [self.place / "layers" / str(i) for i in range(len(self.layers))]
        )

    def record(self, kind: str) -> Path:
        """What says that all of a kind are there."""
        return self.place / ("clt.json" if kind == "clt" else "layers.json")


def transcoders(job: Job, kinds: Sequence[str]) -> list[Dictionary | list[Dictionary]]:
    """Return a run's transcoders of some kinds; those that are not there are trained first."""
    if "clt" in kinds and len(job.layers) < 2:
        remedy = "Ask for those of single layers: --dictionaries transcoder."
        raise ConfigError("a cross-layer transcoder needs two layers or more", where=job.place, remedy=remedy)
    missing = [kind for kind in kinds if job.config.retrain or not _there(job, kind)]
    if missing:
        with files.locked(files.make_folder(job.place), "training transcoders"):
            _train(job, missing)
    found: list[Dictionary | list[Dictionary]] = []
    for kind in kinds:
        made = [load_dictionary(home) for home in job.homes(kind)]
        _check(job, kind, made)
        found.append(made[0] if kind == "clt" else made)
    return found


def _there(job: Job, kind: str) -> bool:
    whole = job.record(kind).is_file() and all((home / NAME).is_file() for home in job.homes(kind))
    if whole:
        console.say(f"{job.record(kind)}: transcoders that are there are used as they are")
    return whole


def _train(job: Job, kinds: Sequence[str]) -> None:
    from elute.engine.train import train

    config, layers = job.config, job.layers
    sites = [*layers.reads, *layers.writes]
    rows = _rows(job, sites)
    for kind in kinds:
        job.record(kind).unlink(missing_ok=True)
        for number, home in enumerate(job.homes(kind)):
            which = slice(None) if kind == "clt" else slice(number, number + 1)
            reads, writes = layers.reads[which], layers.writes[which]
            what = "across all layers" if kind == "clt" else f"of {writes[0]}"
            console.say(f"transcoder {what}: {config.steps:,} steps of {config.batch_rows:,} rows")
            given = rows if isinstance(rows, Path) else _live(job, [*reads, *writes])
            train(given, home, training_of(job, reads, writes, kind=kind), anew=config.retrain)
        told = {"settings": config.identity().model_dump(mode="json"), "model": _weights(job), "sites": sites}
        files.write_json(job.record(kind), told)
    shutil.rmtree(job.place / ROWS, ignore_errors=True)


def training_of(job: Job, reads: Sequence[str], writes: Sequence[str], *, kind: str) -> Training:
    """Turn settings into those of the one trainer."""
    from elute.engine.fit import FitConfig
    from elute.engine.settings import DeadConfig, DictionaryConfig, LearnConfig
    from elute.engine.train import Training

    config, across = job.config, kind == "clt"
    width = job.opened.model.sites[reads[0]].width
    return Training(
        dictionary=DictionaryConfig(
            kind="clt" if across else "transcoder", reads=tuple(reads), writes=tuple(writes),
            n_features=config.expansion * width, k=config.k or max(1, width // 8),
            activation="jumprelu" if across else "topk", numbers=CLT if across else None,
        ),
        learn=LearnConfig(device=str(job.opened.model.device)),
        fit=FitConfig(steps=config.steps, batch_size=config.batch_rows, seed=config.seed),
        dead=DeadConfig(dead_after_rows=max(20_000, 10 * config.batch_rows)),
    )  # fmt: skip


def _rows(job: Job, sites: Sequence[str]) -> Path | None:
    """Store the rows of the training cells, where they are few enough."""
    from elute.engine.capture import CaptureConfig, capture_to_store

    _, training, rows, source = _training(job)
    size = 4 * rows * sum(job.opened.model.sites[name].width for name in sites)
    if size > job.config.store_mb << 20:
        console.say(f"rows would take {size >> 20:,} MB of the disk: the model gives them in the loop")
        return None
    cells = job.opened.cells.subset(training)
    hiding: Any = Hiding(job.opened.model, job.config.hidden, job.config.seed)
    place = job.place / ROWS
    capture_to_store(hiding, cells, place, sites=sites, config=CaptureConfig(), source=source, total_rows=rows)
    return place


def _live(job: Job, sites: Sequence[str]) -> Any:
    """Return the rows of the training cells as the model gives them."""
    from elute.engine.live import LiveRows

    cells, training, rows, source = _training(job)
    hiding: Any = Hiding(job.opened.model, job.config.hidden, job.config.seed)
    width = sum(job.opened.model.sites[name].width for name in sites)
    return LiveRows(
        hiding,
        lambda places: cells.subset([training[i] for i in places]),
        n_units=len(training),
        sites=sites,
        rows=rows,
        source=source,
        buffer_rows=max(job.config.batch_rows, min(1 << 18, _BUFFER // (4 * width))),
    )


def _training(job: Job) -> tuple[Any, list[int], int, dict[str, str]]:
    """Return the cells, which of them are to train on, about how many rows these have, and what tells them apart."""
    model, cells, folder = job.opened.model, job.opened.cells, job.opened.recorded.run.folder
    training = job.opened.recorded.run.cells["split"].eq("train").fill_null(value=False).arg_true().to_list()
    if not training:
        raise DataError("no cell is there to train transcoders on", where=folder, remedy="Check the run's split.")
    found = model.survey(cells)
    rows = round((found.rows / max(1, found.cells) + model.tokenizer.special) * len(training))
    source = {
        **model.provenance(cells),
        "training": cells.subset(training).source["cells"],
        "hidden": f"{job.config.hidden} by seed {job.config.seed}, all tokens",
    }
    return cells, training, max(1, rows), source


def _weights(job: Job) -> str:
    return job.opened.model.fingerprint().weights


def _check(job: Job, kind: str, made: Sequence[Dictionary]) -> None:
    """Refuse transcoders of another model, and such as lie in the place of another layer's."""
    remedy = "Give --retrain, or the model that they were trained on."
    for number, (home, one) in enumerate(zip(job.homes(kind), made, strict=True)):
        trained: Mapping[str, Any] = one.spec.source.get("model") or {}
        if trained and trained["weights"] != _weights(job):
            what = f"was trained on {trained['name']}, and {job.opened.model.name} has other weights"
            raise GuardError(what, where=home, remedy=remedy)
        which = slice(None) if kind == "clt" else slice(number, number + 1)
        wanted = job.layers.reads[which], job.layers.writes[which]
        if (tuple(one.spec.reads), tuple(one.spec.writes)) != tuple(map(tuple, wanted)):
            what = f"stands for {', '.join(one.spec.writes)}, and not for {', '.join(wanted[1])}"
            raise GuardError(what, where=home, remedy="Give --retrain.")
