"""Ways to the same head: rough or fine, one penalty after another or at once, by Gram matrix or by columns."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse
from tests.heads.made import made

from elute.heads import elastic
from elute.heads.design import as_matrix, design
from elute.heads.fitting import Fitter
from elute.heads.head import COARSE
from elute.heads.regression import fit_head

LOSSES = ("mse", "poisson", "nb")


@pytest.mark.parametrize("kind", [np.asarray, sparse.csr_array])
@pytest.mark.parametrize("standardise", [True, False])
@pytest.mark.parametrize("shape", [(50, 20), (20, 50)])
def test_the_design_is_what_it_says(kind: Any, standardise: bool, shape: tuple[int, int]) -> None:
    x = made(*shape).x + 100 * (np.arange(shape[1]) == 2)
    for rough in (False, True):
        d = design(as_matrix(kind(x)), standardise=standardise, rough=rough)
        z = (x - x.mean(0))[:, d.kept] / (x.std(0)[d.kept] if standardise else 1)
        assert d.kept.tolist() == [j for j in range(shape[1]) if j not in (3, 5)]
        near = 1e-3 if rough else 1e-8
        np.testing.assert_allclose(d.gram(), z.T @ z, atol=near)
        np.testing.assert_allclose(d.kernel(), z @ z.T, atol=near)
        w = np.ones((d.width, 2))
        np.testing.assert_allclose(d.times(w), z @ w, atol=near)
        np.testing.assert_allclose(d.back(np.ones((d.n, 2))), 0, atol=near)
        weights, shift = d.unfold(w)
        np.testing.assert_allclose(x @ weights.T + shift, z @ w, atol=1e-8)
        np.testing.assert_allclose(d.fold(weights), w)
        assert d.top == pytest.approx(np.linalg.eigvalsh(z.T @ z / d.n)[-1], rel=0.1)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("model", ["ridge", "elastic_net"])
def test_a_path_ends_where_a_fit_at_once_does(loss: Any, model: Any) -> None:
    data = made(effect=0.2)
    fitter = Fitter(data.x, data.y(loss), loss=loss, model=model, offset=data.off(loss))
    for lam in (1.0, 0.3, 0.1, 0.03):
        head = fitter.fit(lam)
    at_once = fit_head(data.x, data.y(loss), loss=loss, model=model, penalty=0.03, offset=data.off(loss))
    np.testing.assert_allclose(head.weights, at_once.weights, atol=1e-5)
    one = fitter.fit([0.3], np.array([1]))
    alone = fit_head(data.x, data.y(loss)[:, 1], loss=loss, model=model, penalty=0.3, offset=data.off(loss))
    np.testing.assert_allclose(one.weights, alone.weights, atol=1e-5)
    assert one.n_genes == 1


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("model", ["ridge", "elastic_net"])
def test_a_rough_fit_is_near_enough_to_judge_a_penalty(loss: Any, model: Any) -> None:
    data = made(effect=0.2)
    x = as_matrix(sparse.csr_array(data.x))
    fitter = Fitter(x, data.y(loss), loss=loss, model=model, offset=data.off(loss), tolerance=COARSE)
    rough = fitter.fit(0.03)
    fine = fit_head(x, data.y(loss), loss=loss, model=model, penalty=0.03, offset=data.off(loss))
    np.testing.assert_allclose(rough.weights, fine.weights, atol=0.02)


@pytest.mark.parametrize("shape", [(200, 30), (60, 120)])
def test_by_columns_as_by_gram_matrix(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    data = made(*shape)
    x = sparse.csr_array(data.x)
    one = fit_head(x, data.log, loss="mse", model="elastic_net", penalty=0.02)
    monkeypatch.setattr(elastic, "MOST_BY_GRAM", 3)
    two = fit_head(x, data.log, loss="mse", model="elastic_net", penalty=0.02)
    np.testing.assert_allclose(one.weights, two.weights, atol=1e-4)
    np.testing.assert_allclose(one.bias, two.bias, atol=1e-4)


def test_nearly_constant_codes_on_a_high_level_are_scaled_right() -> None:
    rng = np.random.default_rng(0)
    small = rng.normal(size=(100, 4))
    x = 1000 + 1e-3 * small
    y = small @ rng.normal(size=(4, 2))
    head = fit_head(x, y, loss="mse", model="ridge", penalty=0.1)
    same = fit_head(small, y, loss="mse", model="ridge", penalty=0.1)
    np.testing.assert_allclose(head.mean(x), same.mean(small), atol=1e-6)
