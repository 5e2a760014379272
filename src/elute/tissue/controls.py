"""What stands beside each score, on the same samples, folds and splits.

    mean                what is predicted without codes
    dense_pca_ridge     the mean embedding of a sample, its principal components, ridge
    shuffled            the same codes and head, each sample's codes those of another sample of any patient
    neighbours          the mean of the nearest samples of its section, which sees targets that no head sees
    random_encoder      all stages with the encoder as it was before its training

The last is dear: `standard` takes a fifth of the samples, 2,000 at least. It is a run of its own, in
`controls/random_encoder/`, and goes on where it was interrupted. What was not run is named with its reason.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from elute.base import console
from elute.base.errors import GuardError
from elute.tissue.fit_setting import Setting as Setting
from elute.tissue.fit_setting import sections_of as sections_of

if TYPE_CHECKING:
    import numpy as np
    import polars as pl

    from elute.heads.crossval import Nested
    from elute.heads.predicted import Predictions
    from elute.tissue.plan import Plan
    from elute.tissue.pooled_codes import Features
    from elute.tissue.tiles import Tiles

    Array = np.ndarray[Any, Any]

LEAST = 2000  # samples below which the dear control takes all
SHARE = 0.2


@dataclass(frozen=True, eq=False)
class Beside:
    """Predictions of the controls by name, each with the samples that it is of; and why others were not run."""

    found: dict[str, tuple[Predictions, pl.DataFrame]]
    not_run: dict[str, str]


def hold_beside(
    plan: Plan, setting: Setting, own: Nested, *, x: Any, dense: Callable[[], Array], tiles: Tiles | None
) -> Beside:
    """Run the controls that are asked for."""
    from elute.heads.baselines import mean_predictor, shuffled

    names = ("mean", "dense_pca_ridge", "shuffled", "neighbours", "random_encoder")
    if plan.controls.controls == "none":
        return Beside({}, dict.fromkeys(names, "controls: none"))
    beside = Beside({"mean": (mean_predictor(own.predictions), setting.samples)}, {})
    _dense(plan, setting, beside, dense)
    order = shuffled(setting.groups, within=False, seed=setting.config.seed)
    beside.found["shuffled"] = setting.fit(x[order], title="shuffled patients").predictions, setting.samples
    _neighbours(plan, setting, own, beside)
    _random(plan, setting, beside, tiles)
    return beside


def _dense(plan: Plan, setting: Setting, beside: Beside, dense: Callable[[], Array]) -> None:
    """Ridge on components of the embeddings, its penalty chosen anew.

    Where a fold has one patient to learn from none can be chosen: ridge takes the one that the head was given.
    """
    from elute.heads.baselines import pca

    config, folds, groups = setting.config, setting.folds, setting.samples["group"].to_numpy()
    if min(len(set(groups[folds != fold])) for fold in set(folds.tolist())) > 1:
        config = config.model_copy(update={"model": "ridge", "penalties": None})
    elif config.model != "ridge":
        beside.not_run["dense_pca_ridge"] = "a fold has one patient to learn from, so that no penalty can be chosen"
        return
    made = setting.fit(None, prepare=pca(dense(), plan.controls.components), title="dense embeddings", config=config)
    beside.found["dense_pca_ridge"] = made.predictions, setting.samples


def _neighbours(plan: Plan, setting: Setting, own: Nested, beside: Beside) -> None:
    from elute.heads.baselines import neighbours_mean

    place = setting.samples.select("x", "y", "section")
    if place["x"].null_count() or place["y"].null_count():
        beside.not_run["neighbours"] = "some samples have no place"
        return
    found = neighbours_mean(
        own.predictions, x=place["x"].to_numpy(), y=place["y"].to_numpy(), sections=sections_of(setting.samples),
        nearest=plan.controls.neighbours,
    )  # fmt: skip
    beside.found["neighbours"] = found, setting.samples


def _random(plan: Plan, setting: Setting, beside: Beside, tiles: Tiles | None) -> None:
    """Do all stages with random weights, and predict the same samples, or a part of them."""
    if plan.encoder.random_weights:
        beside.not_run["random_encoder"] = "the encoder has random weights already"
        return
    if plan.encoder.encoder is None or (tiles is None and not _named(plan)):
        beside.not_run["random_encoder"] = "no encoder or no tiles are named"
        return
    rows = chosen_samples(setting.samples, every=plan.controls.controls == "full", seed=plan.heads.seed)
    part = setting if len(rows) == len(setting.samples) else setting.part(rows)
    made = random_features(plan, part, tiles)
    found = part.fit(made.x, prepare=made.prepare, title="random weights")
    beside.found["random_encoder"] = found.predictions, part.samples


def _named(plan: Plan) -> bool:
    return any(part is not None for part in (plan.tiles.images, plan.tiles.table, plan.tiles.slides))


def chosen_samples(samples: pl.DataFrame, *, every: bool, seed: int) -> Array:
    """Return the places of all samples, or of a fifth of each patient's, which ascend."""
    import numpy as np

    n = len(samples)
    share = max(SHARE, LEAST / n)
    if every or share >= 1:
        return np.arange(n)
    groups, rng = samples["group"].to_numpy(), np.random.default_rng([seed, 11])
    parts = []
    for group in np.unique(groups):
        here = np.flatnonzero(groups == group)
        parts.append(rng.permutation(here)[: max(1, round(share * len(here)))])
    return np.sort(np.concatenate(parts))


def random_plan(plan: Plan) -> Plan:
    """Return the same run with the encoder as it was before its training, in a folder of its own."""
    from elute.tissue.settings import CodesConfig

    once = {"embed_norm_path": None, "pooled": False, "epochs": (0,), "augment": "none", "recapture": False}
    embedding = plan.embedding.model_copy(update=once if plan.embedding.per_token else {**once, "pooled": True})
    return replace(
        plan,
        output=plan.output / "controls" / "random_encoder",
        encoder=plan.encoder.model_copy(update={"random_weights": True}),
        embedding=embedding,
        codes=CodesConfig(cache=False),
    )


def random_features(plan: Plan, setting: Setting, tiles: Tiles | None) -> Features:
    """Return what an encoder with random weights gives for the samples, by the same stages.

    Patients lie in the splits in which the run has them: drawn anew over a part of the tiles, the dictionary of the
    control would learn from others.
    """
    import numpy as np

    from elute.tissue.exporting import embed_export
    from elute.tissue.learning import opened, train_sae, trained
    from elute.tissue.pooled_codes import features
    from elute.tissue.tiles import open_tiles

    every, names = tiles or open_tiles(plan.tiles), setting.samples["sample_id"]
    wanted = np.flatnonzero(every.table["sample_id"].is_in(names.implode()).to_numpy())
    mine = random_plan(plan)
    console.say("control: an encoder with random weights, in controls/random_encoder/")
    part = every if len(wanted) == len(every) else every.subset(wanted.tolist())
    splits = dict(setting.samples.select("group", "split").unique().iter_rows())
    given: dict[str, Any] = {"encoder": mine.encoder, "split": mine.split, "splits": splits}
    with console.hushed():
        try:
            embed_export(part, mine.output, embedding=mine.embedding, **given)
        except GuardError:  # of other tiles or an older encoder: a control is not kept from being made anew
            again = mine.embedding.model_copy(update={"recapture": True})
            embed_export(part, mine.output, embedding=again, **given)
        train_sae(mine)
    store = opened(mine)
    dictionary, known = trained(mine, store)
    return features(mine, store, dictionary, known=known, setting=setting)
