"""The second stage of a run: its dictionaries.

    sae_final.pt, usage.parquet, training_metrics.json, train_config.json     (docs/formats/training_run.md)
    centre.safetensors        what was subtracted of each gene, with --center gene
    saelens/                  the same dictionary for SAELens, where it has a class for it

A dictionary that was trained with these very settings is used as it is. What other settings gave is put aside, into
`earlier-1/` and following, and not lost.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from elute.base import console
from elute.base.errors import ConfigError, DataError
from elute.cells.units import NAME, auto_sizes

if TYPE_CHECKING:
    from pathlib import Path

    from elute.base.run import Artifact
    from elute.cells.activations import Source
    from elute.cells.plan import Plan
    from elute.cells.units import Unit
    from elute.engine.train import Training

_MADE = (
    NAME, "usage.parquet", "training_metrics.json", "training_metrics.jsonl", "train_config.json", "checkpoint.pt",
    "centre.safetensors", "saelens", "codes", "features.parquet", "feature_genes.parquet", "feature_cells.parquet",
    "feature_groups.parquet", "feature_numbers.parquet", "feature_gene_associations.json",
    "feature_cell_associations.json", "extraction_summary.json", "validation",
)  # fmt: skip


def learn(source: Source, plan: Plan, *, skip: bool = False) -> list[dict[str, Any]]:
    """Train each of a run's dictionaries; with `skip`, see that they are there."""
    if skip:
        for unit in source.units:
            if not (unit.folder / NAME).exists():
                remedy = "Leave --skip-training out, or check --output and --layers."
                raise DataError("is missing: there is no dictionary to go on with", where=unit.folder / NAME,
                                remedy=remedy)  # fmt: skip
            console.say(f"{unit.folder / NAME}: used as it is")
        return [{} for _ in source.units]
    return [_train(source, unit, plan).summary for unit in source.units]


def _train(source: Source, unit: Unit, plan: Plan) -> Artifact:
    from elute.dictionaries import saelens
    from elute.dictionaries.files import load_dictionary
    from elute.engine.resume import OtherSettingsError
    from elute.engine.train import train

    rows: Any = live_rows(source, unit) if source.store is None else source.store.folder
    training = training_of(source, unit, plan)
    told = f"{training.dictionary.n_features:,} features, {training.dictionary.k} at a time"
    console.say(f"{unit.name}: {told}, {plan.training.steps:,} steps of {plan.training.train_batch_size:,} rows")
    try:
        made = train(rows, unit.folder, training)
    except OtherSettingsError as other:
        _put_aside(unit.folder, other.what)
        made = train(rows, unit.folder, training, anew=True)
    if not made.summary["reused"] or not (unit.folder / "saelens").exists():
        with suppress(ConfigError):  # a kind that SAELens has no class for goes without
            saelens.write(load_dictionary(unit.folder / NAME), unit.folder / "saelens")
    return made


def training_of(source: Source, unit: Unit, plan: Plan, *, share: float = 1.0, seed: int = 0) -> Training:
    """Turn a run's settings into those of one training; a control takes a share of the steps, and another seed."""
    from elute.engine.fit import FitConfig
    from elute.engine.settings import DeadConfig, DictionaryConfig, LearnConfig
    from elute.engine.train import Training

    asked, batch = plan.training, plan.training.train_batch_size
    n, k = auto_sizes(asked, _width(source, unit))
    writes = () if unit.kind == "sae" else unit.writes
    return Training(
        dictionary=DictionaryConfig(
            kind=unit.kind,
            reads=unit.reads,
            writes=writes,
            n_features=n,
            k=k,
            activation=asked.activation,
            center_by="token" if asked.center == "gene" else None,
        ),
        learn=LearnConfig(device=asked.device),
        fit=FitConfig(steps=max(1, round(asked.steps * share)), batch_size=batch, lr=asked.lr, seed=asked.seed + seed),
        dead=DeadConfig(dead_after_rows=max(20_000, 10 * batch)),
        track=plan.track,
    )


def live_rows(source: Source, unit: Unit) -> Any:
    """Rows of the training cells as the model gives them."""
    import polars as pl

    from elute.engine.live import LiveRows

    if source.model is None:
        raise ConfigError("there is no model to read in the loop", remedy="Leave --stream out, or give --model.")
    training = source.table.select((pl.col("split") == "train").arg_true()).to_series().to_list()
    cells = source.cells
    return LiveRows(
        source.model,
        lambda places: cells.subset([training[i] for i in places]),
        n_units=len(training),
        sites=list(unit.sites),
        rows=source.rows * len(training) // max(1, len(cells)),
        source={**source.model.provenance(cells), "training": cells.subset(training).source["cells"]},
    )


def _width(source: Source, unit: Unit) -> int:
    site = unit.reads[0]
    if source.store is not None:
        return source.store.sites[site]
    width = source.model.sites[site].width if source.model is not None else None
    if width is None:
        raise ConfigError(f"the width of {site!r} is not known", remedy="Give --d-sae and --k, or leave --stream out.")
    return width


def _put_aside(folder: Path, why: str) -> None:
    """Move what other settings gave out of the way."""
    number = 1
    while (aside := folder / f"earlier-{number}").exists():
        number += 1
    aside.mkdir()
    for name in _MADE:
        if (folder / name).exists():
            (folder / name).rename(aside / name)
    console.say(f"{folder}: {why}; what was there is kept in {aside.name}/")
