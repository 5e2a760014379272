"""The second stage: a sparse autoencoder of the embeddings, trained on the rows of training patients alone.

    sae.pt                the dictionary, on raw embeddings
    sae_scaler.json       what its training read instead of them, now folded into its weights, and under which split
    sae_usage.parquet     how often and how strongly each code fired in training, since when and until when
    sae/                  the training itself (docs/formats/training_run.md): metrics, settings, checkpoints

Rows are scaled by `embed_stats.json`, which was measured on the training rows. A dictionary that was trained with
these very settings on these very rows is used as it is; what others gave is put aside, into `sae/earlier-1/`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from elute.base import console, files
from elute.base.errors import ConfigError, DataError, GuardError
from elute.base.run import Artifact
from elute.tissue import stages
from elute.tissue.splitting import samples_of, split_digest

if TYPE_CHECKING:
    from pathlib import Path

    from elute.dictionaries.dictionary import Dictionary
    from elute.engine.train import Training
    from elute.store.reader import Store
    from elute.tissue.plan import Plan

SITE = "embedding"
_MADE = ("sae_final.pt", "usage.parquet", "training_metrics.json", "training_metrics.jsonl", "train_config.json",
         "checkpoint.pt", "run.json", "config.yaml")  # fmt: skip


def train_sae(plan: Plan) -> Artifact:
    """Train the dictionary on the rows of training patients, and lay it where the next stages look for it."""
    from elute.dictionaries.files import load_dictionary, save_dictionary
    from elute.engine.resume import OtherSettingsError
    from elute.engine.train import train

    store = opened(plan)
    samples = samples_of(store)
    training, home = training_of(plan, store), plan.output / "sae"
    asked = training.dictionary
    console.say(f"{plan.output}: {asked.n_features:,} codes ({asked.activation}), {plan.sae.steps:,} steps of "
                f"{plan.sae.train_batch_size:,} rows")  # fmt: skip
    try:
        made = train(store.folder, home, training)
    except OtherSettingsError as other:
        _put_aside(home, other.what)
        made = train(store.folder, home, training, anew=True)
    inputs = {"store": store.manifest.store, "split": split_digest(samples), "dictionary": made.summary["dictionary"]}
    sections = {"sae": plan.sae}
    known = stages.done(plan.output, "train_sae", sections, inputs=inputs)
    if known is not None:
        return Artifact("dictionary", plan.dictionary, {**known, "reused": True})
    dictionary = load_dictionary(home)
    save_dictionary(dictionary, plan.dictionary)
    usage = _usage(home / "usage.parquet")
    files.write_atomically(plan.output / "sae_usage.parquet", usage.write_parquet)
    files.write_json(plan.output / "sae_scaler.json", _scaler(store, inputs))
    train_rows = store.select(split="train").rows
    summary = {**made.summary, "rows_to_train_on": train_rows, "site": SITE, "activation": asked.activation}
    summary.pop("reused")
    written = [plan.dictionary, plan.output / "sae_usage.parquet", plan.output / "sae_scaler.json"]
    stages.record(plan.output, "train_sae", sections, inputs=inputs, summary=summary, written=written)
    return Artifact("dictionary", plan.dictionary, {**summary, "reused": False})


def opened(plan: Plan) -> Store:
    """Open the run's embeddings."""
    from elute.store.reader import Store

    if not (plan.embeddings / "manifest.json").exists():
        remedy = "Type: elute tissue embed_export, with the same --config."
        raise DataError("there are no embeddings yet", where=plan.embeddings, remedy=remedy)
    store = Store(plan.embeddings)
    if not store.complete:
        remedy = "Type the same elute tissue embed_export again: it goes on."
        raise DataError("the embeddings are not complete", where=plan.embeddings, remedy=remedy)
    return store


def training_of(plan: Plan, store: Store) -> Training:
    """Turn the settings of the dictionary into those of a training."""
    from elute.engine.fit import FitConfig
    from elute.engine.settings import DeadConfig, DictionaryConfig, LearnConfig
    from elute.engine.train import Training

    asked, batch = plan.sae, plan.sae.train_batch_size
    if asked.l1 is not None and asked.signed_codes:
        what = "l1 lets codes above zero fire, and signed codes are chosen by magnitude"
        raise ConfigError(what, where="sae", remedy="Leave --l1 out, or --signed-codes.")
    n = asked.features(store.sites[SITE])
    if asked.top_k > n:
        what = f"top_k = {asked.top_k} is more than the {n} codes"
        raise ConfigError(what, where="sae", remedy="Give a smaller --top-k or a larger --dict-size.")
    kind = "relu" if asked.l1 is not None else "signed-topk" if asked.signed_codes else "topk"
    return Training(
        dictionary=DictionaryConfig(reads=(SITE,), n_features=n, k=asked.top_k, activation=kind),
        learn=LearnConfig(normalise=plan.embedding.normalise, penalty=asked.l1, device=asked.device,
                          re_norm_interval=asked.re_norm_interval),
        fit=FitConfig(steps=asked.steps, batch_size=batch, lr=asked.lr, seed=asked.seed),
        dead=DeadConfig(dead_after_rows=max(20_000, 10 * batch)),
    )  # fmt: skip


def trained(plan: Plan, store: Store) -> tuple[Dictionary, str]:
    """Open the run's dictionary and its digest; refuse one of another encoder, other rows or another split."""
    from elute.dictionaries.files import digest, load_dictionary
    from elute.engine.encode import match

    path = plan.dictionary
    if not path.exists():
        remedy = "Type: elute tissue train_sae, with the same --config."
        raise DataError("there is no dictionary yet", where=path, remedy=remedy)
    dictionary = load_dictionary(path)
    match(dictionary, store)
    known = stages.told(plan.output, "train_sae", needs="train_sae, with the same --config")
    found = digest(dictionary)
    if known["inputs"].get("dictionary") != found:
        remedy = "Train it anew, or put the one back that was trained here."
        raise GuardError("is not the dictionary that was trained in this run", where=path, remedy=remedy)
    samples = samples_of(store)
    if known["inputs"].get("split") != split_digest(samples):
        what = "was trained under another split: rows that it learnt from may be tested on now"
        raise GuardError(what, where=path, remedy="Type: elute tissue train_sae, with the same --config.")
    return dictionary, found


def _scaler(store: Store, inputs: dict[str, str]) -> dict[str, Any]:
    """What maps raw rows to what the training read."""
    from elute.store.scaling import Scaling

    scaling = Scaling.of(store.folder)
    return {
        "schema_version": 1,
        "site": SITE,
        "method": scaling.record["method"],
        "embed_stats": scaling.digest,
        "measured_on": scaling.record["split"],
        "folded": True,
        "split": inputs["split"],
        "dictionary": inputs["dictionary"],
        "scaling": scaling.record["sites"][SITE],
    }


def _usage(path: Path) -> Any:
    import polars as pl

    lifetime = pl.when(pl.col("first_step") < 0).then(0).otherwise(pl.col("last_step") - pl.col("first_step") + 1)
    frame = pl.read_parquet(path).rename({"feature": "code"})
    return frame.with_columns(lifetime=lifetime, alive=pl.col("frequency") > 0)


def _put_aside(home: Path, why: str) -> None:
    """Move what other settings gave out of the way."""
    number = 1
    while (aside := home / f"earlier-{number}").exists():
        number += 1
    aside.mkdir()
    for name in _MADE:
        if (home / name).exists():
            (home / name).rename(aside / name)
    console.say(f"{home}: {why}; what was there is kept in {aside.name}/")
