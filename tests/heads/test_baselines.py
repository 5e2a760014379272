"""Baselines against hand-worked cases and scikit-learn."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.decomposition import PCA
from sklearn.preprocessing import StandardScaler

from elute.base.errors import DataError
from elute.heads.baselines import mean_predictor, neighbours, neighbours_mean, pca, shuffled
from elute.heads.predicted import predictions
from elute.heads.scores import scores


@pytest.mark.parametrize("shape", [(60, 12), (20, 50)])
def test_components_are_those_of_the_training_rows(shape: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    dense = rng.normal(size=shape) @ rng.normal(size=(shape[1], shape[1])) + 5
    rows = np.arange(0, shape[0], 2)
    found = pca(dense, 4)(rows)
    scaler = StandardScaler().fit(dense[rows])
    expected = PCA(4).fit(scaler.transform(dense[rows])).transform(scaler.transform(dense))
    np.testing.assert_allclose(np.abs(found), np.abs(expected), atol=1e-8)
    other = dense.copy()
    other[1::2] *= 7
    np.testing.assert_allclose(pca(other, 4)(rows)[rows], found[rows], atol=1e-8)
    assert pca(dense, 256)(rows).shape[1] <= min(len(rows), shape[1])


def test_the_mean_predictor_explains_nothing() -> None:
    rng = np.random.default_rng(0)
    y = rng.normal(size=(60, 2))
    found = predictions("mse", y, np.arange(60) % 3, mean=y, null_mean=np.full_like(y, 0.2))
    row = scores(mean_predictor(found), ["a", "b"], groups=np.arange(60) % 6).row(0, named=True)
    assert (row["r2"], row["r2_low"], row["r2_high"], row["pearson"]) == (0, 0, 0, None)


def test_neighbours_are_the_nearest_others_of_a_section() -> None:
    x, y = [0, 1, 2.5, 0, 0.1, 9], [0, 0, 0, 0, 0, 0]
    rows, others = neighbours(x, y, ["a", "a", "a", "b", "b", "c"], nearest=1)
    assert dict(zip(rows.tolist(), others.tolist(), strict=True)) == {0: 1, 1: 0, 2: 1, 3: 4, 4: 3}
    rows, others = neighbours([0] * 4, [0] * 4, ["a"] * 4, nearest=2)  # all at one place
    assert (rows != others).all()
    assert np.bincount(rows).tolist() == [2, 2, 2, 2]
    with pytest.raises(DataError, match="coordinates are missing"):
        neighbours([np.nan, 1], [0, 0], ["a", "a"])


def test_neighbours_mean_pools_counts_by_depth() -> None:
    counts = np.array([[4.0], [6.0], [100.0], [7.0]])
    library = np.array([100.0, 200.0, 1000.0, 50.0])
    null = np.full((4, 1), 0.05) * library[:, None]
    found = predictions("poisson", counts, np.zeros(4, dtype=int), mean=null, null_mean=null, offset=np.log(library))
    made = neighbours_mean(found, x=[0, 1, 2, 0], y=[0, 0, 0, 0], sections=["a", "a", "a", "b"], nearest=2)
    np.testing.assert_allclose(made.mean[:3, 0], [106 / 1200 * 100, 104 / 1100 * 200, 10 / 300 * 1000])
    assert made.mean[3, 0] == null[3, 0]
    np.testing.assert_array_equal(made.reference, found.reference)


def test_shuffling_within_and_across() -> None:
    groups = np.repeat(["a", "b", "c"], 30)
    inside = shuffled(groups, within=True, seed=0)
    assert (groups[inside] == groups).all()
    assert sorted(inside.tolist()) == list(range(90))
    assert (inside != np.arange(90)).mean() > 0.8
    across = shuffled(groups, within=False, seed=0)
    assert sorted(across.tolist()) == list(range(90))
    assert 0.1 < (groups[across] == groups).mean() < 0.6
