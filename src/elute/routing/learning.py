"""`elute routing train-transcoder`: sparse features between two layers, beside the linear map.

    z = topk(ReLU(W_enc x + b_enc))        ŷ = W_dec z + b_dec

    config.json, normalization_stats.json   what it was trained with, and on
    metrics.jsonl, checkpoints/             epoch by epoch (watching.py)
    sae_final.pt, usage.parquet, …          the dictionary, and what the one trainer leaves (engine/train.py)
    summary.json                            figures of held-out instances, R² of every dimension, and of the linear map

The trainer, its losses and its checkpoints are those of every dictionary; here are the pair, the epochs and the bar.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

from elute.base import files, run
from elute.base.errors import ConfigError
from elute.base.run import Artifact
from elute.routing import clt_runs
from elute.routing.clt_settings import Settings

if TYPE_CHECKING:
    from elute.dictionaries.dictionary import Dictionary
    from elute.engine.train import Training
    from elute.routing.pair_rows import PairRows
    from elute.routing.pairs import Pair

KIND: Final = "transcoder"
STAGES = {KIND: "train-transcoder", "clt": "train-clt"}


def train_transcoder(
    run_dir: Path | str, pair: str, settings: Settings | None = None, *, resume: str | None = None, anew: bool = False
) -> Artifact:
    """Train a transcoder of a pair of a run; `resume` names a training to go on with, or says latest."""
    from elute.routing.pairs import open_pair

    folder, settings = Path(run_dir), settings or Settings()
    opened = open_pair(folder, pair)
    home = clt_runs.home(folder, opened.name)
    told = describe(opened, settings)
    place = clt_runs.place(home, told, which=resume, anew=anew)
    with clt_runs.tidied(place):
        summary = learn(place, opened, settings, must_resume=resume is not None)
    clt_runs.point(home, place)
    return Artifact(KIND, place, summary)


def describe(pair: Pair, settings: Settings) -> dict[str, Any]:
    """Return all that is needed to train it again: config.json without the id at W&B."""
    n, k = settings.transcoder.sized(pair.store.sites[pair.source_site], pair.sparsity)
    return {
        "kind": KIND, "pair": pair.name, "source_key": pair.source, "target_key": pair.target,
        "n_features": n, "k": k, "expansion_factor": n / pair.store.sites[pair.source_site], "k_ratio": k / n,
        "num_epochs": settings.epochs.num_epochs, "settings": settings.plain(),
        "inputs": {"store": pair.store.manifest.store, "order": pair.order},
    }  # fmt: skip


def learn(folder: Path, pair: Pair, settings: Settings, *, must_resume: bool = False) -> dict[str, Any]:
    """Train in a folder, or go on there, and judge what came of it; what is done is used as it is."""
    from elute.routing.pair_rows import PairRows

    told = describe(pair, settings)
    methods = {pair.source_site: settings.transcoder.normalize_source,
               pair.target_site: settings.transcoder.normalize_target}  # fmt: skip
    rows = PairRows(pair.folder, methods=methods, epochs=settings.epochs)
    sites = Sites((pair.source_site,), (pair.target_site,), told["n_features"], told["k"])
    return fit_into(folder, rows, told, sites=sites, settings=settings, must_resume=must_resume)


@dataclass(frozen=True)
class Sites:
    """What a dictionary reads and writes, and of how many features."""

    reads: tuple[str, ...]
    writes: tuple[str, ...]
    n_features: int
    k: int
    kind: Literal["transcoder", "clt"] = KIND


def fit_into(
    folder: Path, rows: PairRows, told: Mapping[str, Any], *, sites: Sites, settings: Settings,
    must_resume: bool = False,
) -> dict[str, Any]:  # fmt: skip
    """Train a dictionary in a folder, looked at after every epoch, and judge it; `told` becomes config.json."""
    from elute.engine.resume import NAME as CHECKPOINT
    from elute.engine.train import train
    from elute.routing.watching import EpochWatcher

    if os.environ.get("WORLD_SIZE", "1") != "1":
        raise ConfigError("a transcoder is trained by one process", remedy="Start it without torchrun.")
    if (folder / clt_runs.CONFIG).exists():
        clt_runs.check_same(folder, told)
    training = training_of(settings, rows, sites)
    files.make_folder(folder)
    clt_runs.write_config(folder, told)
    epochs = settings.epochs
    each = (training.fit.steps or 1) // epochs.num_epochs
    watcher = EpochWatcher(folder, rows, epoch_steps=each, save_freq=epochs.save_freq)
    unfinished = (folder / CHECKPOINT).exists()
    made = train(rows, folder, training, watcher=watcher, must_resume=must_resume and unfinished)
    known = folder / clt_runs.SUMMARY
    if made.summary["reused"] and known.exists():
        return {**files.read_json(known, what="a transcoder's summary"), "reused": True}
    clt_runs.write_config(folder, told)  # with the id that W&B's run has by now
    summary = {"pair": told["pair"], **judged(folder, rows, trained=made.summary)}
    run.record(folder, STAGES[sites.kind], settings.identity(), inputs=told["inputs"], summary=brief(summary))
    files.write_json(known, summary)
    return {**summary, "reused": False}


def training_of(settings: Settings, rows: PairRows, sites: Sites) -> Training:
    """Turn settings into those of the one trainer."""
    from elute.engine.fit import FitConfig
    from elute.engine.settings import DeadConfig, DictionaryConfig, LearnConfig
    from elute.engine.train import Training

    made, epochs, terms = settings.transcoder, settings.epochs, settings.terms
    batch = min(epochs.batch_size, rows.rows)
    each = rows.rows // batch
    return Training(
        dictionary=DictionaryConfig(
            kind=sites.kind, reads=sites.reads, writes=sites.writes, n_features=sites.n_features, k=sites.k,
            activation=made.activation, skip=made.skip, numbers=made.numbers,
        ),
        learn=LearnConfig(
            normalise="none",  # PairRows says what is done to each site
            penalty=made.penalty,
            # One matrix for both sides cannot have rows of length 1: codes would have no scale.
            re_norm_interval=0 if terms.tied else 1,
            project=not terms.tied,
            control=made.control,
            device=epochs.device,
        ),
        fit=FitConfig(
            steps=each * epochs.num_epochs, batch_size=batch, lr=epochs.lr, clip=epochs.clip_grad_norm,
            seed=epochs.seed, checkpoint_seconds=epochs.checkpoint_seconds,
        ),
        dead=DeadConfig(
            dead="resample" if epochs.reinit_dead else "none",
            dead_after_rows=min(20_000, max(2 * each * batch, 4 * batch)),
            resample_every=each * epochs.reinit_freq,
        ),
        track=settings.wandb.track(),
        terms=terms,
    )  # fmt: skip


def judged(folder: Path, rows: PairRows, *, trained: Mapping[str, Any]) -> dict[str, Any]:
    """Hold a dictionary against the linear map and the rows passed through, on held-out instances."""
    from elute.dictionaries.files import load_dictionary
    from elute.routing.judged import judge_dictionary, through
    from elute.routing.watching import BEST, CHECKPOINTS

    dictionary = load_dictionary(folder)
    others = bars(rows, dictionary)
    if (folder / CHECKPOINTS / BEST).exists():
        others["best_checkpoint"] = through(load_dictionary(folder / CHECKPOINTS / BEST))
    found, firing = judge_dictionary(rows, rows.held_out, dictionary, others=others)
    chosen_by, _ = judge_dictionary(rows, "validation", dictionary, others=others)
    fired = firing.result()
    return {
        "features": dictionary.n_features, "k": dictionary.spec.k, "activation": dictionary.spec.activation,
        "steps": trained["steps"], "training_rows": rows.rows, "dictionary": trained["dictionary"],
        "held_out": {"split": rows.held_out, "rows": rows.parts[rows.held_out].rows},
        "l0": round(fired.l0, 6), "dead": int((fired.counts == 0).sum()),
        **{name: one.told(whole=name in ("transcoder", "linear_map")) for name, one in found.items()},
        "less_linear_map": found["transcoder"].less(found["linear_map"]),
        "validation": {name: round(one.explained, 6) for name, one in chosen_by.items()},
    }  # fmt: skip


def bars(rows: PairRows, dictionary: Dictionary) -> dict[str, Any]:
    """Return what a dictionary has to beat: the linear map of the training rows, and its rows passed through."""
    from elute.routing.linear_map import fit_rows

    spec = dictionary.spec
    sites = list(dict.fromkeys([*spec.reads, *spec.writes]))
    batches = ({name: x.numpy() for name, x in given.items()} for given, _ in rows.batches("train", sites=sites))
    maps = fit_rows(batches, spec)
    found: dict[str, Any] = {"linear_map": lambda given: {name: of(given) for name, of in maps.items()}}
    if list(spec.reads.values()) == list(spec.writes.values()):
        pairs = list(zip(spec.reads, spec.writes, strict=True))
        found["passed_through"] = lambda given: {write: given[read] for read, write in pairs}
    return found


def brief(summary: Mapping[str, Any]) -> dict[str, Any]:
    """Return a summary without what has a number a dimension."""
    return {
        name: {key: part for key, part in value.items() if key != "r2"} if isinstance(value, dict) else value
        for name, value in summary.items()
    }


def show(answer: Mapping[str, Any]) -> str:
    """Say what came of it, for people."""
    again = " (already there, used as it is)" if answer.get("reused") else ""
    head = f"{answer['path']}: {answer['features']:,} features, {answer['l0']:.1f} fire a row, {answer['dead']} dead"
    names = {"transcoder": "transcoder", "best_checkpoint": "its best epoch", "linear_map": "linear map",
             "passed_through": "passed through"}  # fmt: skip
    held = answer["held_out"]
    lines = [head + again, f"on {held['rows']:,} rows of instances held out ({held['split']}):"]
    lines.append(f"  {'':15} explained   cosine   R² of a dimension: median, least")
    for name, title in names.items():
        if name in answer:
            told = answer[name]
            lines.append(f"  {title:15} {told['explained_variance']:9.4f}   {told['cosine']:6.4f}"
                         f"   {told['r2_median']:.4f}, {told['r2_min']:.4f}")  # fmt: skip
    less = answer["less_linear_map"]
    lines.append(f"  transcoder less linear map: {less['difference']:+.4f} ({less['low']:+.4f} to {less['high']:+.4f}, "
                 f"95%, {less['instances']} instances)")  # fmt: skip
    return "\n".join(lines)
