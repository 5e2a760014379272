"""What features of embeddings are held against: the same count where there should be less to find.

A feature follows a class if its activation tells particles of the class from others, on the particles that chose and
again on those that show. Beside the number of such features stand

    permuted labels         the same features, the classes dealt out anew within runs
    neurons                 the numbers of the embedding, as they are
    principal components    of those numbers, as many as there are
    another seed            a dictionary that began elsewhere: also how many features it finds again
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from elute.base import console
from elute.particles.feature_settings import ParticleFeaturesConfig

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

    from elute.analysis.followers import Followers
    from elute.analysis.tally import Tallied

FOLDER = "controls/another_seed"
ALIKE = 0.7  # cosine at which a feature counts as found again


def hold_against(
    store: Path, folder: Path, site: str, *, table: pl.DataFrame, tallied: Tallied, config: ParticleFeaturesConfig
) -> tuple[dict[str, Any], NDArray[np.float64]]:
    """Count beside controls; also returns how near each feature has one in a dictionary of another seed."""
    from elute.dictionaries.files import load_dictionary
    from elute.engine.evaluate import evaluate
    from elute.engine.settings import EvalConfig
    from elute.store.reader import Store

    judged = evaluate(load_dictionary(folder), Store(store), EvalConfig(split="test"), beside=folder)
    answer: dict[str, Any] = {
        "reconstruction": {
            **{key: judged[key] for key in ("rows", "explained_variance", "l0", "dead_fraction")},
            "principal": judged["control"]["explained_variance_pca"],
        },
        "at": config.at, "controls": "standard", "label": "class", "fdr": 0.05, "kinds": {}, "across donors": {},
    }  # fmt: skip
    follow: dict[str, Any] = {}
    counter = _Counter(table, config)
    labelled = table["label"].drop_nulls().n_unique() > 1
    if labelled:
        found = counter(_means(tallied), permutations=config.permutations)
        follow["features"] = _told(found)
        follow["permuted labels"] = _permuted(found)
        x = np.concatenate([rows[site].numpy() for rows, _ in Store(store).batches(1 << 15, sites=[site])])
        x = x.astype(np.float64)
        follow["neurons"] = _told(counter([x], both_signs=True))
        chose = x[(table["split"] == "train").to_numpy()]
        turn = np.linalg.svd(chose - chose.mean(axis=0), full_matrices=False)[2].T
        follow["principal components"] = _told(counter([x @ turn], both_signs=True))
    else:
        answer["note"] = "no classes are known: nothing is counted by them"
    other, stability, again = _another_seed(store, folder, site, cells=len(table), config=config)
    follow["another seed"] = {**again, **(_told(counter(_means(other))) if labelled else {"columns": len(stability)})}
    return {**answer, "follow": follow}, stability


class _Counter:
    """Counts what follows a class among columns that are given in blocks [particles, columns]."""

    def __init__(self, table: pl.DataFrame, config: ParticleFeaturesConfig) -> None:
        from elute.analysis.pooled import sides

        self.choosing, self.shown = sides(table)
        self.labels = table["label"].to_list()
        self.runs = None if table["donor"].null_count() else table["donor"].to_list()
        self.config = config

    def __call__(self, blocks: Iterable[Any], *, both_signs: bool = False, permutations: int = 0) -> Followers:
        from elute.analysis.followers import followers

        return followers(
            blocks, self.labels, self.choosing, shown=self.shown, at=self.config.at, least=self.config.least,
            both_signs=both_signs, permutations=permutations, within=self.runs, seed=self.config.seed,
        )  # fmt: skip


def _means(tallied: Tallied) -> Iterable[Any]:
    from elute.analysis.pooled import pooled

    return (block.mean for block in pooled(tallied))


def _permuted(found: Followers) -> dict[str, Any]:
    if found.note:
        return {"not run": found.note}
    permuted = found.permuted
    middle = float(np.median(permuted)) if permuted else None
    return {"columns": found.columns, "follow": middle, "most": max(permuted, default=None)}


def _told(found: Followers) -> dict[str, Any]:
    return {
        "columns": found.columns,
        "follow": found.total if found.levels else None,
        "by type": found.levels,
        "no claim": list(found.small),
        "both signs": found.both_signs,
        "best": {name: [part.column for part in best] for name, best in found.best.items()},
    }


def _another_seed(
    store: Path, folder: Path, site: str, *, cells: int, config: ParticleFeaturesConfig
) -> tuple[Tallied, NDArray[np.float64], dict[str, Any]]:
    """Train a dictionary that begins elsewhere, and see which features it has too."""
    import torch

    from elute.dictionaries.files import load_dictionary
    from elute.particles.feature_training import learn, tally

    place = folder / FOLDER
    console.say(f"{site}: control: another seed")
    with console.hushed():
        learn(store, place, site, config=config, seed=1)
        theirs = load_dictionary(place)
        tallied = tally(store, place, theirs, cells=cells, output=folder, config=config)
    mine = load_dictionary(folder).directions(site)
    fired = theirs.directions(site)[torch.from_numpy(tallied.fired > 0)]
    drawn = torch.randn(fired.shape, generator=torch.Generator().manual_seed(1_000_003 + config.seed))
    stability, chance = _nearest(mine, fired), _nearest(mine, drawn)
    again = {
        "found again": float((stability >= ALIKE).mean()),
        "found again by chance": float((chance >= ALIKE).mean()),
    }
    return tallied, stability, again


def _nearest(mine: Any, others: Any) -> NDArray[np.float64]:
    """The largest cosine of each direction with any of the others."""
    import torch

    if not len(others):
        return np.zeros(len(mine))
    a, b = (torch.nn.functional.normalize(x.float(), dim=1) for x in (mine, others))
    return np.asarray((a @ b.T).amax(1).double().numpy())
