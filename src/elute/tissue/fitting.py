"""The fourth stage: genes predicted from pooled codes, patient by patient, each score beside its controls.

    targets/                      aligned targets                                     preparing.py
    folds.parquet                 which patient is held out when; drawn once          splitting.py
    heads/heads.pt                the head of all rows, and one a fold
    heads/metrics.parquet         scores of each gene on held-out patients
    heads/baselines.parquet       the same of each control                            controls.py
    heads/coefficients.parquet    each gene's strongest codes of either sign, with intervals and stability over folds
    heads/predictions.parquet     what was measured and predicted, sample by sample   laying.py

Genes that were chosen by how well they are predicted are judged on patients that did not choose.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from elute.base import console, files
from elute.base.errors import GuardError
from elute.base.run import Artifact
from elute.tissue import stages
from elute.tissue.choosing_genes import by_score
from elute.tissue.controls import hold_beside
from elute.tissue.fit_setting import Setting, sections_of
from elute.tissue.learning import opened, trained
from elute.tissue.preparing import SIDES, Targets, on_scale, prepare_targets
from elute.tissue.sampling_rows import sample_means
from elute.tissue.splitting import folds_of, samples_of, split_digest

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    from elute.heads.predicted import Predictions
    from elute.store.reader import Store
    from elute.tissue.plan import Plan
    from elute.tissue.tiles import Tiles

    Array = np.ndarray[Any, Any]

STAGE = "train_heads"


def train_heads(plan: Plan, *, tiles: Tiles | None = None) -> Artifact:
    """Predict genes on held-out patients, and fit the heads that are explained afterwards."""
    store = opened(plan)
    dictionary, known = trained(plan, store)
    samples = samples_of(store)
    drawn = folds_of(plan.output, samples, folds=plan.heads.folds, seed=plan.heads.seed,
                     strata=_strata(plan, samples))  # fmt: skip
    targets = prepare_targets(plan, samples, rows=store.manifest.store, score=_score(plan, store))
    sections = {"heads": plan.heads, "attention": plan.attention, "controls": plan.controls}
    inputs = {
        "dictionary": known, "store": store.manifest.store, "targets": targets.digest,
        "split": split_digest(samples), "folds": files.digest_file(plan.output / "folds.parquet")[:16],
    }  # fmt: skip
    done = stages.done(plan.output, STAGE, sections, inputs=inputs)
    if done is not None:
        return Artifact("heads", plan.output / "heads" / "heads.pt", {**done, "reused": True})
    setting = setting_of(plan, targets, drawn)
    summary, written = _fit(plan, store, (dictionary, known), targets=targets, setting=setting, tiles=tiles)
    stages.record(plan.output, STAGE, sections, inputs=inputs, summary=summary, written=written)
    return Artifact("heads", plan.output / "heads" / "heads.pt", {**summary, "reused": False})


def setting_of(plan: Plan, targets: Targets, drawn: pl.DataFrame) -> Setting:
    """Put samples, folds and targets side by side; refuse folds that are not of these samples."""
    import numpy as np

    both = targets.samples.join(drawn.select("sample_id", "fold"), on="sample_id", how="left", maintain_order="left")
    if both["fold"].null_count():
        name = both.filter(both["fold"].is_null())["sample_id"][0]
        raise GuardError(f"sample {name!r} lies in no fold", where=plan.output / "folds.parquet",
                         remedy="Delete folds.parquet to draw folds anew.")  # fmt: skip
    counts = targets.scale == "counts"
    y = np.asarray(targets.values, np.float64) if counts else on_scale(targets.values, targets.library, targets.scale)
    return Setting(both, y, np.log(targets.library) if counts else None, plan.heads)


def _fit(
    plan: Plan, store: Store, held: tuple[Any, str], *, targets: Targets, setting: Setting, tiles: Tiles | None
) -> tuple[dict[str, Any], list[Any]]:
    """Fit, judge, hold beside controls, and write."""
    from elute.tissue.laying import lay_down
    from elute.tissue.pooled_codes import features

    names = setting.samples["sample_id"].to_list()
    console.say(f"{plan.output}: {console.count(len(targets.names), 'gene')} from codes of "
                f"{console.count(len(names), 'sample')} ({plan.heads.model}, {plan.heads.loss})")  # fmt: skip
    pooled = features(plan, store, held[0], known=held[1], setting=setting)
    own = setting.fit(pooled.x, prepare=pooled.prepare, title="heads")
    x = pooled.final()
    beside = hold_beside(plan, setting, own, x=x, dense=lambda: sample_means(store, names), tiles=tiles)
    judged, note = _judged(plan, setting)
    table = _scored(own.predictions, setting.samples, targets.names, model="sparse", rows=judged)
    others = [
        _scored(found, of, targets.names, model=model, rows=_judged(plan, setting, of)[0])
        for model, (found, of) in beside.found.items()
    ]
    written = lay_down(plan, own, pooled=pooled, targets=targets, setting=setting, tables=(table, others))
    notes = [*note, *(f"{name}: not run ({why})" for name, why in beside.not_run.items())]
    return _summary(setting, targets, own, tables=[table, *others], notes=notes), written


def _scored(found: Predictions, samples: pl.DataFrame, genes: list[str], *, model: str, rows: Array) -> pl.DataFrame:
    import polars as pl

    from elute.heads.scores import scores

    part = found if len(rows) == len(samples) else only(found, rows)
    chosen = samples if len(rows) == len(samples) else samples[rows.tolist()]
    table = scores(part, genes, groups=chosen["group"].to_list(), sections=sections_of(chosen), model=model)
    # One value a fold: a line through the folds' means alone would say nothing of samples.
    alike = [pl.lit(None, pl.Float64).alias(name) for name in ("calibration_slope", "calibration_intercept")]
    return table.with_columns(alike) if model == "mean" else table


def only(found: Predictions, rows: Array) -> Predictions:
    """Return the predictions of some samples."""
    from dataclasses import fields, replace

    n = len(found.y)
    part = {f.name: getattr(found, f.name) for f in fields(found)}
    return replace(found, **{k: v[rows] for k, v in part.items() if getattr(v, "shape", (0,))[0] == n and k != "loss"})


def _judged(plan: Plan, setting: Setting, samples: pl.DataFrame | None = None) -> tuple[Array, list[str]]:
    """Return the samples on which scores are told: those that did not choose the genes."""
    import numpy as np

    of = setting.samples if samples is None else samples
    every = np.arange(len(of))
    if not by_score(plan.targets.genes):
        return every, []
    rest = np.flatnonzero((of["split"] != "train").to_numpy())
    if len(rest) < 2:
        return every, ["genes were chosen by the samples that they are judged on: the scores are too high"]
    n = of[rest.tolist()]["group"].n_unique()
    return rest, [f"judged on {len(rest):,} samples of {n} patients, which did not choose the genes"]


def _summary(
    setting: Setting, targets: Targets, own: Any, *, tables: list[pl.DataFrame], notes: list[str]
) -> dict[str, Any]:
    from elute.heads.scores import field_mean

    states: dict[str, int] = {}
    for state in own.final.states:
        states[state] = states.get(state, 0) + 1
    odd = [f"{n:,} genes are {state}" for state, n in sorted(states.items()) if state != "fitted"]
    return {
        "samples": len(setting.samples),
        "genes": len(targets.names),
        "groups": len(set(setting.groups)),
        "folds": setting.config.folds,
        "scale": targets.scale,
        "scores": {str(table["model"][0]): field_mean(table) for table in tables},
        **{key: targets.summary[key] for key in (f"without_{side}" for side in SIDES) if key in targets.summary},
        "notes": [*notes, *odd],
    }


def _strata(plan: Plan, samples: pl.DataFrame) -> list[str] | None:
    """The label of each sample by which folds are balanced, where the split was stratified by one."""
    import polars as pl

    column = plan.split.stratify
    path = plan.output / "tiles.parquet"
    if column is None or not path.exists():
        return None
    tiles = pl.read_parquet(path, glob=False)
    if column not in tiles.columns:
        return None
    by = tiles.group_by("sample_id", maintain_order=True).agg(pl.col(column).cast(pl.String).drop_nulls().first())
    return samples.join(by, on="sample_id", how="left", maintain_order="left")[column].fill_null("").to_list()


def _score(plan: Plan, store: Store) -> Any:
    """Say how well ridge on dense embeddings predicts each gene among the training patients, held out in turn."""

    def score(samples: pl.DataFrame, y: Array) -> Array:
        from elute.base.errors import DataError
        from elute.heads.baselines import pca
        from elute.heads.crossval import nested
        from elute.heads.folds import group_folds
        from elute.heads.scores import scores
        from elute.heads.settings import HeadConfig

        groups = samples["group"].to_list()
        n = min(plan.heads.folds, len(set(groups)))
        if n < 3:
            what = f"{n} training patients are too few to say which genes can be predicted"
            raise DataError(what, remedy="Choose genes by hvg:N, or name them.")
        config = HeadConfig(folds=n, inner_folds=2, seed=plan.heads.seed)
        dense = sample_means(store, samples["sample_id"])
        folds = group_folds(groups, folds=n, seed=plan.heads.seed)
        made = nested(None, y, folds, groups=groups, config=config, prepare=pca(dense, plan.controls.components))
        table = scores(made.predictions, [str(i) for i in range(y.shape[1])], groups=groups)
        return table["pearson"].fill_null(-1).to_numpy()

    return score
