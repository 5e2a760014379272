"""From rows to a dictionary: check, normalise, begin, fit, fold, save.

RUN/sae_final.pt             the dictionary, on raw activations
RUN/centre.safetensors       what is subtracted from them first, where they are centred by a column
RUN/usage.parquet            how each feature was used in training
RUN/training_metrics.json    and .jsonl: loss, explained variance, L0, dead
RUN/checkpoint.pt            while training; taken away when it has ended
RUN/run.json, config.yaml, train_config.json
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from elute.base import console, files, run
from elute.base.errors import ConfigError
from elute.base.recipe import Section, plain
from elute.base.run import Artifact
from elute.dictionaries.dictionary import Dictionary
from elute.dictionaries.files import NAME, digest, load_dictionary, save_dictionary
from elute.dictionaries.folding import fold, normalised
from elute.dictionaries.terms import TermsConfig
from elute.engine import centring, parallel, resume
from elute.engine.begin import begin, centre, describe, join_features, share_features
from elute.engine.controls import hold_still
from elute.engine.first_weights import prepare
from elute.engine.fit import Fit, FitConfig, Fitted
from elute.engine.given import given as open_given
from elute.engine.settings import DeadConfig, DictionaryConfig, LearnConfig
from elute.engine.tracking import Metrics, TrackConfig
from elute.engine.watched import WatchedObjective
from elute.store.shuffle import ShuffleConfig

if TYPE_CHECKING:
    import polars as pl

    from elute.dictionaries.folding import Affine
    from elute.dictionaries.spec import DictionarySpec
    from elute.engine.given import Given, Stored, Supply
    from elute.engine.parallel import Ranks
    from elute.engine.usage import Usage
    from elute.engine.watched import Watcher


@dataclass(frozen=True)
class Training:
    """All settings of a training."""

    dictionary: DictionaryConfig = field(default_factory=DictionaryConfig)
    learn: LearnConfig = field(default_factory=LearnConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    dead: DeadConfig = field(default_factory=DeadConfig)
    track: TrackConfig = field(default_factory=TrackConfig)
    terms: TermsConfig | None = None

    def resolved(self, spec: DictionarySpec) -> Training:
        """Fill in what depends on the rows: a step turns a row of length 1 by the same angle, whatever its width."""
        rate = self.fit.lr or round(0.032 / max(bank.widths[1] for bank in spec.spans) ** 0.5, 6)
        dictionary = self.dictionary.model_copy(update={"n_features": spec.n_features})
        return replace(self, fit=self.fit.model_copy(update={"lr": rate}), dictionary=dictionary)

    def identity(self) -> dict[str, Section]:
        """What the result depends on; not where it is computed, how often it is kept, or what is logged where."""
        learn = self.learn.model_copy(update={"device": "auto"})
        fit = self.fit.model_copy(update={"checkpoint_seconds": 60.0})
        terms = {} if self.terms is None else {"terms": self.terms}
        return {"dictionary": self.dictionary, "learn": learn, "fit": fit, "dead": self.dead, **terms}


def train(
    rows: Path | str | Supply | Stored, output: Path | str, training: Training | None = None, *,
    must_resume: bool = False, anew: bool = False, watcher: Watcher | None = None,
) -> Artifact:  # fmt: skip
    """Train a dictionary on the rows of a store's folder, or on live ones (live.py).

    A training that was interrupted goes on, one that is finished is used as it is. A watcher looks at it on the way.
    """
    training, output = training or Training(), Path(output)
    with parallel.ranks(training.learn.device) as ranks:
        given = open_given(rows, method=training.learn.normalise, by=training.dictionary.center_by)
        spec = describe(given, training.dictionary, control=training.learn.control)
        training = training.resolved(spec)
        most = max(spec.k, training.learn.k_start or 0)
        if most > spec.n_features:
            remedy = "Begin with fewer, or take more features."
            raise ConfigError(f"k_start = {most} is more than the {spec.n_features} features", remedy=remedy)
        steps = training.fit.total(given.rows)
        known = None
        if ranks.leads:
            given.measure(_sites(spec), output)
            known = None if anew else _finished(output, training, given.inputs())
        if (done := ranks.tell(known)) is not None:
            if ranks.leads:
                given.keep(output)
            console.say(f"{output}: already trained with these settings, used as it is")
            return Artifact("dictionary", output / NAME, {**done, "reused": True})
        with _alone(output, must_resume=must_resume) if ranks.leads else nullcontext():
            if ranks.leads:
                if anew:
                    (output / resume.NAME).unlink(missing_ok=True)
                given.keep(output)
            ranks.any(flag=False)  # nobody looks for a checkpoint or a scaling before the first has seen to them
            if not ranks.leads:
                given.join(output)
            spec = spec.model_copy(update={"source": {**spec.source, **given.source}})
            summary = _run(Job(given, spec, training, output, ranks, given.inputs(), steps, watcher))
        return Artifact("dictionary", output / NAME, {**ranks.tell(summary), "reused": False})


@contextmanager
def _alone(output: Path, *, must_resume: bool) -> Iterator[None]:
    """Hold the run's folder."""
    if must_resume and not (output / resume.NAME).exists():
        raise ConfigError("there is nothing to resume", where=output, remedy="Leave --resume out to start.")
    files.make_folder(output)
    with files.locked(output, "training"):
        yield


@dataclass(frozen=True)
class Job:
    """One training in its place: what all steps of it share."""

    given: Given
    spec: DictionarySpec
    training: Training
    output: Path
    ranks: Ranks
    inputs: dict[str, str]
    steps: int
    watcher: Watcher | None = None

    @property
    def sharded(self) -> bool:
        """Whether features are spread over processes."""
        return self.training.learn.shard_features and self.ranks.world > 1


def _run(job: Job) -> dict[str, Any]:
    """Train, and write what came of it; the first process knows the summary."""
    dictionary, by, objective, fitted = _fit(job)
    usage = objective.used()
    job.given.confirm()
    if not job.ranks.leads:
        return {}
    summary = _save(job, fold(dictionary, job.spec, by), fitted, usage)
    run.record(job.output, "train", job.training.identity(), inputs=job.inputs, summary=summary)
    (job.output / resume.NAME).unlink(missing_ok=True)
    return summary


def _sites(spec: DictionarySpec) -> list[str]:
    return list(dict.fromkeys([*spec.reads, *spec.writes]))


def _fit(job: Job) -> tuple[Dictionary, dict[str, Affine], WatchedObjective, Fitted]:
    """Normalise, begin, and train to the end."""
    training, ranks, spec = job.training, job.ranks, job.spec
    seed = training.fit.seed
    settings = _settings(training, job.inputs)
    sites = _sites(spec)
    rows = job.given.sample(sites, seed=seed + 1)
    by = job.given.normalisation(rows, k=spec.k)
    dictionary = begin(normalised(spec, by), training.learn, seed=seed)
    if job.sharded:
        share_features(dictionary, ranks, most=max(spec.k, training.learn.k_start or 0))
    rows = {name: by[name].apply(x) for name, x in rows.items()}
    if training.terms is not None:
        prepare(dictionary, training.terms, training.learn, rows=rows)
    mean, spread = centre(dictionary, rows, training.learn)
    for name, p in dictionary.named_parameters():
        if not (job.sharded and name.startswith("banks.")):
            ranks.begin(p.data)
    on = torch.device(ranks.device)
    dictionary = dictionary.to(on).train()
    held = hold_still(dictionary, training.learn.control)
    size = min(training.fit.batch_size, job.given.rows)
    if size < ranks.world and not job.sharded:
        remedy = "Start fewer processes, or make --batch-size larger."
        raise ConfigError(f"a batch of {size} rows cannot be spread over {ranks.world} processes", remedy=remedy)
    fitting = training.fit.model_copy(update={"batch_size": size})
    objective = WatchedObjective(
        dictionary,
        learn=training.learn,
        dead=training.dead.model_copy(update={"dead": "none"}) if held else training.dead,
        by={name: affine.to(on) for name, affine in by.items()},
        mean=mean.to(on),
        spread=spread,
        ranks=ranks,
        seed=seed,
        steps=job.steps,
        rows_per_step=size * fitting.accumulate,
        sharded=job.sharded,
    )
    objective.also(training.terms, job.watcher, saved=lambda: fold(copy.deepcopy(dictionary).cpu(), spec, by))
    shuffle = ShuffleConfig(batch_size=size, epochs=None, seed=seed, drop_last=True)
    stream = job.given.shuffled(shuffle, sites=sites)
    fit = Fit(objective, stream, fitting, folder=job.output, steps=job.steps)
    begun = fit.resume(settings, ranks)
    _agree(job, [settings, begun])
    if begun is not None and ranks.leads:
        console.say(f"{job.output}: going on after step {begun + 1:,} of {job.steps:,}")
    with Metrics(job.output, training.track, settings=settings, resume_at=begun, active=ranks.leads) as metrics:
        metrics.histograms = objective.histograms
        fitted = fit.run(settings, ranks=ranks, metrics=metrics, split=not job.sharded)
        dictionary = join_features(dictionary, normalised(spec, by), ranks) if job.sharded else dictionary.cpu()
        metrics.close(fitted.figures)
    if ranks.leads:
        stall = stream.report.stall_share
        console.detail(f"{fitted.rows_per_second:,.0f} rows/s; waiting for rows took {stall:.1%} of the time")
    return dictionary, by, objective, fitted


def _agree(job: Job, told: object) -> None:
    """See that all processes do the same: settings, rows and place; over several machines that is easily missed."""
    told = [told, job.given.rows, job.steps, run.versions()]
    number = torch.tensor(int(files.digest_json(told)[:15], 16))
    if not torch.equal(job.ranks.most(number.clone()), -job.ranks.most(-number)):
        remedy = "Start all with the same command; all must see the same store and the same --output."
        raise ConfigError("the processes of this training differ in settings, rows or checkpoint", remedy=remedy)


def _save(job: Job, dictionary: Dictionary, fitted: Fitted, usage: Usage) -> dict[str, Any]:
    """Write the dictionary, its usage and the settings; the run's record comes last."""
    save_dictionary(dictionary, job.output / NAME)
    if "centre" not in job.spec.source:  # of a dictionary that lay here before
        (job.output / centring.NAME).unlink(missing_ok=True)
    table: pl.DataFrame = usage.table(steps=fitted.steps, rows_per_step=fitted.rows_per_step)
    files.write_atomically(job.output / "usage.parquet", table.write_parquet)
    files.write_json(job.output / "train_config.json", _settings(job.training, {}))
    return {
        "dictionary": digest(dictionary),
        "kind": job.spec.kind,
        "features": job.spec.total_features,
        "steps": fitted.steps,
        "rows": fitted.steps * fitted.rows_per_step,
        "never_fired": int((usage.counts == 0).sum()),
        **({"centred_by": by} if (by := job.spec.source.get("centre_by")) else {}),
        **fitted.figures,
    }


def _finished(output: Path, training: Training, inputs: dict[str, str]) -> dict[str, Any] | None:
    """Return what a training with these very settings gave, if its dictionary is still what it wrote.

    What other settings gave is not written over unless that is asked for.
    """
    known = run.read(output)["stages"].get("train")
    if known is None or not (output / NAME).exists():
        return None
    before, settings = {**known["config"], **known["inputs"]}, _settings(training, inputs)
    if before != settings and (output / resume.NAME).exists():
        return None  # a training was begun anew here: whether it is this one is seen when it is gone on with
    resume.same_settings(output, before, settings)
    if digest(load_dictionary(output / NAME)) != known["summary"]["dictionary"]:
        return None
    if resume.belongs(output, settings):  # killed between its record and its end
        (output / resume.NAME).unlink(missing_ok=True)
    summary: dict[str, Any] = known["summary"]
    return summary


def _settings(training: Training, inputs: dict[str, str]) -> dict[str, Any]:
    """What a checkpoint was written under, and must be gone on with."""
    return {**plain(training.identity()), **inputs}
