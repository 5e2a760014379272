"""Folds hold whole runs, spread classes evenly, and refuse what cannot be judged."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.particles.views import joined, views

from elute.base.errors import DataError
from elute.particles.folding import draw_folds, inner_folds, stratified, write_folds
from elute.particles.settings import EvaluationConfig


def config(n: int = 4, **more: object) -> EvaluationConfig:
    return EvaluationConfig.model_validate({"n_folds": n, **more})


def test_a_run_lies_in_one_fold_and_classes_are_spread() -> None:
    data = views(400, 3, runs=12)
    folds = draw_folds(data, config())
    assert folds.grouped_by == "run"
    assert folds.n == 4
    assert folds.n_groups == 12
    for run in set(data.runs or []):
        assert len(set(folds.of[np.array(data.runs) == run].tolist())) == 1
    table = np.array([np.bincount(data.codes[folds.of == f], minlength=3) for f in range(4)])
    assert (np.abs(table - table.mean(0)) < 0.5 * table.mean(0)).all()
    assert folds.notes == ()


def test_folds_depend_on_seed_and_on_nothing_else() -> None:
    data = views(200, 3)
    assert (draw_folds(data, config()).of == draw_folds(data, config(attention_epochs=3)).of).all()
    assert not (draw_folds(data, config()).of == draw_folds(data, config(random_seed=1)).of).all()


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 1000), st.integers(2, 7), st.integers(2, 5))
def test_particles_dealt_one_by_one_differ_by_one_at_most(seed: int, n: int, k: int) -> None:
    rng = np.random.default_rng(seed)
    codes = rng.integers(0, k, 83)
    of = stratified(codes, np.arange(83), n, seed=seed, whole=False)
    sizes = np.bincount(of, minlength=n)
    assert np.ptp(sizes) <= 1
    for c in range(k):
        assert np.ptp(np.bincount(of[codes == c], minlength=n)) <= 1


def test_fewer_runs_than_folds_make_fewer_folds_and_say_so() -> None:
    folds = draw_folds(views(200, 3, runs=3), config(10))
    assert folds.n == 3
    assert folds.notes == ("3 folds instead of 10: there are 3 runs",)


def test_without_runs_particles_are_dealt_and_it_is_said() -> None:
    rng = np.random.default_rng(0)
    bare = joined([rng.normal(size=(60, 2)).astype("f4")] * 2, rng.integers(0, 2, 60))
    folds = draw_folds(bare, config())
    assert folds.grouped_by == "particle"
    assert "runs are not known" in folds.notes[0]
    assert draw_folds(bare, config(group_by="none")).notes == ()
    one = joined(bare.vectors, bare.codes, np.zeros(60, int))
    assert "one run only" in draw_folds(one, config()).notes[0]


def test_what_cannot_be_judged_is_refused() -> None:
    x = [np.ones((40, 2), "f4")] * 2
    run = np.arange(40) % 8
    with pytest.raises(DataError, match="there is one class only, 'class_0'"):
        draw_folds(joined(x, np.zeros(40, int), run), config())
    codes = np.zeros(40, int)
    codes[:3] = 1
    with pytest.raises(DataError, match="class 'class_1' has 3 particles for 4 folds.*--n-folds 3"):
        draw_folds(joined(x, codes, run), config())
    codes = (run == 5).astype(int)
    with pytest.raises(DataError, match="class 'class_1' lies in one run only.*--group-by none"):
        draw_folds(joined(x, codes, run), config())
    assert draw_folds(joined(x, codes, run), config(group_by="none")).n == 4


def test_inner_folds_keep_runs_together_where_there_are_enough() -> None:
    data = views(300, 3, runs=9)
    groups = draw_folds(data, config()).groups
    inner = inner_folds(data.codes, groups, n=3, seed=0)
    assert set(inner.tolist()) == {0, 1, 2}
    for g in range(9):
        assert len(set(inner[groups == g].tolist())) == 1
    assert set(inner_folds(data.codes, np.zeros(300, int), n=3, seed=0).tolist()) == {0, 1, 2}
    assert set(inner_folds(data.codes, np.arange(300) % 2, n=3, seed=0).tolist()) == {0, 1}
    alone = inner_folds(data.codes, np.arange(300), n=3, seed=0)
    assert np.ptp(np.bincount(alone)) <= 1


def test_folds_are_stored(tmp_path: Path) -> None:
    data = views(100, 3)
    folds = draw_folds(data, config())
    table = pl.read_parquet(write_folds(tmp_path, data, folds))
    assert table.columns == ["id", "label", "run", "fold"]
    assert table["fold"].to_list() == folds.of.tolist()
    assert table["id"].to_list() == data.particles["id"].to_list()
