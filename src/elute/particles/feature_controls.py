"""What features of embeddings are held against: the same count where there should be less to find.

A feature follows a class if its activation tells particles of the class from others, on the particles that chose and
again on those that show. Beside the number of such features stand

    permuted labels         the same features, the classes dealt out anew within runs
    neurons                 the numbers of the embedding, as they are
    principal components    of those numbers, as many as there are
    random weights          the dictionary with the weights that it began with; biases alone learn
    another seed            a dictionary that began elsewhere: also how many features it finds again

Beside each count stands how well classes are told at best: of each class the column that is furthest from chance on the
particles that choose, its AUROC on those that show, and the mean of that over the classes; with permuted labels too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from elute.base import console
from elute.particles.feature_best import Best
from elute.particles.feature_settings import ParticleFeaturesConfig

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

    from elute.analysis.followers import Followers
    from elute.analysis.tally import Tallied

Blocks = Callable[[], "Iterable[Any]"]
SEED, UNTRAINED = "controls/another_seed", "controls/random_weights"
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
        found = counter(lambda: _means(tallied), permutations=config.permutations)
        follow["features"] = found
        follow["permuted labels"] = found.pop("permuted", {"not run": "no permutations were asked for"})
        x = np.concatenate([rows[site].numpy() for rows, _ in Store(store).batches(1 << 15, sites=[site])])
        x = x.astype(np.float64)
        follow["neurons"] = counter(lambda: [x], both_signs=True)
        chose = x[(table["split"] == "train").to_numpy()]
        turn = np.linalg.svd(chose - chose.mean(axis=0), full_matrices=False)[2].T
        follow["principal components"] = counter(lambda: [x @ turn], both_signs=True)
        random = _random(store, folder, site, cells=len(table), config=config)
        follow["random weights"] = counter(lambda: _means(random))
    else:
        answer["note"] = "no classes are known: nothing is counted by them"
    other, stability, again = _another_seed(store, folder, site, cells=len(table), config=config)
    follow["another seed"] = {**again, **(counter(lambda: _means(other)) if labelled else {"columns": len(stability)})}
    return {**answer, "follow": follow}, stability


class _Counter:
    """Counts what follows a class among columns that are given in blocks [particles, columns]."""

    def __init__(self, table: pl.DataFrame, config: ParticleFeaturesConfig) -> None:
        from elute.analysis.pooled import sides

        self.choosing, self.shown = sides(table)
        self.labels = table["label"].to_list()
        self.runs = None if table["donor"].null_count() else table["donor"].to_list()
        self.config = config

    def __call__(self, blocks: Blocks, *, both_signs: bool = False, permutations: int = 0) -> dict[str, Any]:
        """Tell how many columns follow a class; the same with permuted labels is under "permuted"."""
        from elute.analysis.followers import followers

        config = self.config
        found = followers(
            blocks(), self.labels, self.choosing, shown=self.shown, at=config.at, least=config.least,
            both_signs=both_signs, permutations=permutations, within=self.runs, seed=config.seed,
        )  # fmt: skip
        best = Best(self.labels, self.choosing, self.shown, levels=list(found.levels))
        scores = best.scores(blocks, both_signs=both_signs, permutations=permutations, runs=self.runs, seed=config.seed)
        told = _told(found, scores[0])
        return {**told, "permuted": _permuted(found, scores[1:])} if permutations else told


def _means(tallied: Tallied) -> Iterable[Any]:
    from elute.analysis.pooled import pooled

    return (block.mean for block in pooled(tallied))


def _permuted(found: Followers, scores: list[float | None]) -> dict[str, Any]:
    if found.note:
        return {"not run": found.note}
    permuted = found.permuted
    middle = float(np.median(permuted)) if permuted else None
    told = {"columns": found.columns, "follow": middle, "most": max(permuted, default=None)}
    known = [score for score in scores if score is not None]
    return {**told, "auroc": float(np.median(known)) if known else None}


def _told(found: Followers, score: float | None) -> dict[str, Any]:
    return {
        "columns": found.columns,
        "follow": found.total if found.levels else None,
        "by type": found.levels,
        "auroc": score,
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

    place = folder / SEED
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


def _random(store: Path, folder: Path, site: str, *, cells: int, config: ParticleFeaturesConfig) -> Tallied:
    """Tally the dictionary that has learnt nothing but its biases."""
    from elute.dictionaries.files import load_dictionary
    from elute.particles.feature_training import learn, tally

    place = folder / UNTRAINED
    console.say(f"{site}: control: random weights")
    with console.hushed():
        learn(store, place, site, config=config, control="random-decoder")
        return tally(store, place, load_dictionary(place), cells=cells, output=folder, config=config)


def _nearest(mine: Any, others: Any) -> NDArray[np.float64]:
    """The largest cosine of each direction with any of the others."""
    import torch

    if not len(others):
        return np.zeros(len(mine))
    a, b = (torch.nn.functional.normalize(x.float(), dim=1) for x in (mine, others))
    return np.asarray((a @ b.T).amax(1).double().numpy())
