"""From a store to a dictionary: check, normalise, begin, fit, fold, save.

RUN/sae_final.pt             the dictionary, on raw activations
RUN/usage.parquet            how each feature was used in training
RUN/training_metrics.json    and .jsonl: loss, explained variance, L0, dead
RUN/checkpoint.pt            while training; taken away when it has ended
RUN/run.json, config.yaml, train_config.json
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from elute.base import console, device, files, run
from elute.base.errors import ConfigError
from elute.base.recipe import Section
from elute.base.run import Artifact
from elute.dictionaries.dictionary import Dictionary
from elute.dictionaries.files import NAME, digest, load_dictionary, save_dictionary
from elute.dictionaries.folding import fold, normalised
from elute.engine import parallel, resume
from elute.engine.begin import begin, centre, describe, join_features, share_features
from elute.engine.controls import hold_still
from elute.engine.fit import Fit, FitConfig, Fitted
from elute.engine.normalise import normalisation, sample
from elute.engine.objective import DictionaryObjective
from elute.engine.settings import DeadConfig, DictionaryConfig, LearnConfig
from elute.engine.tracking import Metrics, TrackConfig
from elute.store.reader import Store
from elute.store.shuffle import ShuffleConfig

if TYPE_CHECKING:
    import polars as pl

    from elute.dictionaries.folding import Affine
    from elute.dictionaries.spec import DictionarySpec
    from elute.engine.parallel import Ranks
    from elute.engine.usage import Usage
    from elute.store.rows import Selection


@dataclass(frozen=True)
class Training:
    """All settings of a training."""

    dictionary: DictionaryConfig = field(default_factory=DictionaryConfig)
    learn: LearnConfig = field(default_factory=LearnConfig)
    fit: FitConfig = field(default_factory=FitConfig)
    dead: DeadConfig = field(default_factory=DeadConfig)
    track: TrackConfig = field(default_factory=TrackConfig)

    def identity(self) -> dict[str, Section]:
        """What the result depends on; not where it is computed, how often it is kept, or what is logged where."""
        learn = self.learn.model_copy(update={"device": "auto"})
        fit = self.fit.model_copy(update={"checkpoint_seconds": 60.0})
        return {"dictionary": self.dictionary, "learn": learn, "fit": fit, "dead": self.dead}


def train(
    folder: Path | str, output: Path | str, training: Training | None = None, *, must_resume: bool = False,
    anew: bool = False,
) -> Artifact:  # fmt: skip
    """Train a dictionary on a store; a training that was interrupted goes on, one that is finished is used as it is."""
    training, output, store = training or Training(), Path(output), Store(folder)
    where = store.select(split="train" if "split" in store.manifest.columns else None)
    spec = describe(store, where, training.dictionary, control=training.learn.control)
    inputs = {"store": store.manifest.store}
    if not anew and (done := _finished(output, training, inputs)) is not None:
        console.say(f"{output}: already trained with these settings, used as it is")
        return Artifact("dictionary", output / NAME, {**done, "reused": True})
    compute = device.choose(training.learn.device, "fp32")
    files.make_folder(output)
    with parallel.ranks(compute.device) as ranks, files.locked(output, "training") if ranks.leads else nullcontext():
        if ranks.leads:
            console.detail(compute.why)
            _begin(output, anew=anew, must_resume=must_resume)
        ranks.any(flag=False)  # nobody looks for a checkpoint before the first has cleared the folder
        job = Job(store, where, spec, training, output, ranks)
        dictionary, by, objective, fitted = _fit(job)
        usage = objective.usage if job.sharded else objective.usage.merge(ranks)
        summary = _save(job, fold(dictionary, spec, by), fitted, usage) if ranks.leads else {}
        if ranks.leads:
            run.record(output, "train", training.identity(), inputs=inputs, summary=summary)
            (output / resume.NAME).unlink(missing_ok=True)
    return Artifact("dictionary", output / NAME, {**summary, "reused": False})


@dataclass(frozen=True)
class Job:
    """One training in its place: what all steps of it share."""

    store: Store
    where: Selection
    spec: DictionarySpec
    training: Training
    output: Path
    ranks: Ranks

    @property
    def sharded(self) -> bool:
        """Whether features are spread over processes."""
        return self.training.learn.shard_features and self.ranks.world > 1


def _begin(output: Path, *, anew: bool, must_resume: bool) -> None:
    """Clear the folder, or see that there is something to go on with."""
    if anew:
        (output / resume.NAME).unlink(missing_ok=True)
    if must_resume and not (output / resume.NAME).exists():
        raise ConfigError("there is nothing to resume", where=output, remedy="Leave --resume out to start.")


def _fit(job: Job) -> tuple[Dictionary, dict[str, Affine], DictionaryObjective, Fitted]:
    """Normalise, begin, and train to the end."""
    training, ranks, spec = job.training, job.ranks, job.spec
    seed = training.fit.seed
    settings: dict[str, Any] = {n: s.model_dump(mode="json") for n, s in training.identity().items()}
    settings["store"] = job.store.manifest.store
    sites = list(dict.fromkeys([*spec.reads, *spec.writes]))
    rows = sample(job.store, job.where, sites, seed=seed + 1)
    by = normalisation(training.learn.normalise, job.store, rows, k=spec.k)
    dictionary = begin(normalised(spec, by), training.learn, seed=seed)
    if job.sharded:
        share_features(dictionary, ranks)
    spread = centre(dictionary, {name: by[name].apply(x) for name, x in rows.items()}, training.learn)
    on = torch.device(ranks.device)
    dictionary = dictionary.to(on).train()
    held = hold_still(dictionary, training.learn.control)
    steps = training.fit.total(job.where.rows)
    objective = DictionaryObjective(
        dictionary,
        learn=training.learn,
        dead=training.dead.model_copy(update={"dead": "none"}) if held else training.dead,
        by={name: affine.to(on) for name, affine in by.items()},
        spread=spread,
        ranks=ranks,
        seed=seed,
        steps=steps,
        rows_per_step=training.fit.batch_size * training.fit.accumulate,
        sharded=job.sharded,
    )
    size = training.fit.batch_size
    shuffle = ShuffleConfig(batch_size=size, epochs=None, seed=seed, drop_last=job.where.rows >= size)
    stream = job.store.shuffled(shuffle, where=job.where, sites=sites)
    fit = Fit(objective, stream, training.fit, folder=job.output, steps=steps)
    begun = fit.resume(settings, ranks)
    if begun is not None and ranks.leads:
        console.say(f"{job.output}: going on after step {begun:,} of {steps:,}")
    with Metrics(job.output, training.track, settings=settings, resume_at=begun, active=ranks.leads) as metrics:
        fitted = fit.run(settings, ranks=ranks, metrics=metrics, split=not job.sharded)
        dictionary = join_features(dictionary, normalised(spec, by), ranks) if job.sharded else dictionary.cpu()
        metrics.close(fitted.figures)
    if ranks.leads:
        stall = stream.report.stall_share
        console.detail(f"{fitted.rows_per_second:,.0f} rows/s; waiting for rows took {stall:.1%} of the time")
    return dictionary, by, objective, fitted


def _save(job: Job, dictionary: Dictionary, fitted: Fitted, usage: Usage) -> dict[str, Any]:
    """Write the dictionary, its usage and the settings; the run's record comes last."""
    save_dictionary(dictionary, job.output / NAME)
    fit = job.training.fit
    table: pl.DataFrame = usage.table(steps=fitted.steps, rows_per_step=fit.batch_size * fit.accumulate)
    files.write_atomically(job.output / "usage.parquet", table.write_parquet)
    settings = {n: s.model_dump(mode="json") for n, s in job.training.identity().items()}
    files.write_json(job.output / "train_config.json", settings)
    return {
        "dictionary": digest(dictionary),
        "kind": job.spec.kind,
        "features": job.spec.total_features,
        "steps": fitted.steps,
        "rows": fitted.steps * fit.batch_size * fit.accumulate,
        "never_fired": int((usage.counts == 0).sum()),
        **fitted.figures,
    }


def _finished(output: Path, training: Training, inputs: dict[str, str]) -> dict[str, Any] | None:
    """Return what a training with these very settings gave, if its dictionary is still what it wrote."""
    done = run.finished(output, "train", training.identity(), inputs=inputs)
    if done is None or not (output / NAME).exists():
        return None
    return done if digest(load_dictionary(output / NAME)) == done["dictionary"] else None
