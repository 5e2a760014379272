"""Where there is nothing to fuse, fusion gains nothing: over many seeds, whatever the method is."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from tests.particles.views import joined, views

from elute.particles.controls import shuffled_rows
from elute.particles.fold_work import Fold, work
from elute.particles.folding import draw_folds
from elute.particles.methods import methods_of
from elute.particles.settings import EvaluationConfig
from elute.particles.table import Joined

pytestmark = pytest.mark.usefixtures("one_thread")


def test_rows_change_places_within_their_part_of_the_fold() -> None:
    codes = np.random.default_rng(0).integers(0, 3, 90)
    out = np.arange(90) < 30
    across = shuffled_rows(codes, out, how="across", seed=1, fold=0)
    within = shuffled_rows(codes, out, how="within", seed=1, fold=0)
    for rows in (across, within):
        assert sorted(rows[:30].tolist()) == list(range(30))
        assert sorted(rows[30:].tolist()) == list(range(30, 90))
        assert (rows == np.arange(90)).mean() < 0.15
    assert (codes[within] == codes).all()
    assert (codes[across] == codes).mean() < 0.6
    assert (across == shuffled_rows(codes, out, how="across", seed=1, fold=0)).all()
    assert not (across == shuffled_rows(codes, out, how="across", seed=1, fold=1)).all()
    assert not (across == shuffled_rows(codes, out, how="across", seed=2, fold=0)).all()


def config(method: str, seed: int, **more: Any) -> EvaluationConfig:
    known = {
        "n_folds": 3,
        "attention_epochs": 8,
        "embedding_dim": 6,
        "inner_folds": 2,
        "n_resamples": 100,
        "device": "cpu",
    }
    return EvaluationConfig.model_validate({**known, "fusion_method": method, "random_seed": seed, **more})


def interval(values: list[float]) -> tuple[float, float]:
    half = stats.t.ppf(0.975, len(values) - 1) * stats.sem(values)
    return float(np.mean(values) - half), float(np.mean(values) + half)


def judged(data: Joined, settings: EvaluationConfig, wanted: set[str]) -> dict[str, float]:
    """Accuracies of some methods on the first of two halves, learnt from the other, without intervals."""
    folds = draw_folds(data, settings)
    every = methods_of(data, settings)
    methods = replace(every, run=tuple(one for one in every.run if one.name in wanted))
    fold = Fold(data, folds, settings, 0)
    found = work(fold, methods).probabilities
    return {name: float((found[name].argmax(1) == data.codes[fold.test]).mean()) for name in wanted}


@pytest.mark.parametrize(("method", "reference", "also"), [("concat", "a", 20), ("attention", "network_a", 4)])
def test_a_permuted_source_gains_nothing_over_20_seeds(method: str, reference: str, also: int) -> None:
    """And the true one gains, as does one that is permuted within classes (`also`: seeds in which that is looked at)."""
    true, none, invented = [], [], []
    for seed in range(20):
        data = views(160, 2, apart=0.7, widths=(4, 4), seed=seed)
        more = {"fusion", "permuted_within"} if seed < also else set()
        found = judged(data, config(method, seed, attention_epochs=6), {reference, "permuted_across", *more})
        none.append(found["permuted_across"] - found[reference])
        if more:
            true.append(found["fusion"] - found[reference])
            invented.append(found["permuted_within"] - found[reference])
    low, high = interval(none)
    assert low <= 0.0
    assert high < 0.03
    assert np.mean(true) > 0.03
    assert np.mean(invented) > 0.03


@pytest.mark.parametrize("method", ["average", "concat", "attention"])
def test_a_table_gains_nothing_from_itself_and_much_from_its_copy_paired_by_label(method: str) -> None:
    """The first of the seven: fuse a table with a copy of itself that was shuffled within classes."""
    right, wrong = [], []
    for seed in range(3):
        data = views(300, 3, apart=0.6, widths=(6,), seed=seed)
        run = np.array([int(r[-2:]) for r in data.runs or []])
        rng = np.random.default_rng(seed)
        partner = np.arange(len(data))
        for c in range(3):
            here = np.flatnonzero(data.codes == c)
            partner[here] = rng.permutation(here)
        for out, rows in ((right, np.arange(len(data))), (wrong, partner)):
            both = joined([data.vectors[0], data.vectors[0][rows]], data.codes, run)
            found = judged(both, config(method, seed), {"fusion", "a"})
            out.append(found["fusion"] - found["a"])
    assert np.mean(right) < 0.02
    assert np.mean(wrong) > 0.06
