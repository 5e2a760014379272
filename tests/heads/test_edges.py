"""What cannot be fitted as asked: a defined answer, or one line that says what is wrong."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from scipy import sparse
from tests.heads.made import made

from elute.base.errors import ConfigError, DataError, EluteError
from elute.heads.regression import fit_head

LOSSES = ("mse", "poisson", "nb")
MODELS = ("linear", "ridge", "elastic_net")


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("model", MODELS)
def test_one_sample_gives_its_own_value_and_no_weights(loss: Any, model: Any) -> None:
    head = fit_head([[1.0, 0.0, 3.0]], [[2.0, 5.0]], loss=loss, model=model)
    assert not head.weights.any()
    np.testing.assert_allclose(head.mean(np.array([[1.0, 0.0, 3.0]])), [[2.0, 5.0]], rtol=1e-12)


@pytest.mark.parametrize("loss", LOSSES)
@pytest.mark.parametrize("model", MODELS)
def test_silent_and_constant_codes_have_no_weight(loss: Any, model: Any) -> None:
    x = np.zeros((30, 4))
    x[:, 1] = 7.0
    y = np.arange(30.0)[:, None] % 4
    head = fit_head(sparse.csr_array(x), y, loss=loss, model=model)
    assert not head.weights.any()
    np.testing.assert_allclose(head.mean(x), 43 / 30, rtol=1e-9)


@pytest.mark.parametrize("loss", ["poisson", "nb"])
@pytest.mark.parametrize("model", MODELS)
def test_a_gene_without_counts_has_the_rate_of_half_a_count(loss: Any, model: Any) -> None:
    data = made()
    y = np.stack([np.zeros(200), data.nb[:, 0]], axis=1)
    head = fit_head(data.x, y, loss=loss, model=model, penalty=0 if model == "linear" else 0.1, offset=data.offset)
    assert head.states == ("constant", "fitted")
    assert not head.weights[0].any()
    assert head.mean(data.x, data.offset)[:, 0].sum() == pytest.approx(0.5)
    alone = fit_head(
        data.x, y[:, 1], loss=loss, model=model, penalty=0 if model == "linear" else 0.1, offset=data.offset
    )
    np.testing.assert_allclose(head.weights[1], alone.weights[0], atol=1e-5)


@pytest.mark.parametrize("loss", ["poisson", "nb"])
def test_codes_that_tell_empty_samples_apart_are_named_so(loss: Any) -> None:
    x = np.zeros((60, 2))
    x[30:, 0] = 1.0
    x[:, 1] = np.tile([0.0, 1.0, 2.0], 20)
    y = np.where(x[:, 0] > 0, 0.0, np.tile([3.0, 5.0, 4.0, 6.0, 2.0], 12))[:, None]
    head = fit_head(x, y, loss=loss, model="linear")
    assert head.states == ("separated",)
    assert np.isfinite(head.weights).all()
    assert head.mean(x)[30:].max() < 1e-3
    np.testing.assert_allclose(head.mean(x)[:30].sum(), y.sum(), rtol=1e-4)
    assert fit_head(x, y, loss=loss, model="ridge", penalty=0.01).states == ("fitted",)


def test_a_constant_log_gene_is_predicted_as_it_is() -> None:
    data = made()
    head = fit_head(data.x, np.full(200, 3.25), loss="mse", model="elastic_net", penalty=0.1)
    assert head.states == ("constant",)
    np.testing.assert_allclose(head.mean(data.x), 3.25)


def test_counts_of_millions_are_fitted() -> None:
    data = made()
    y = np.rint(data.poisson * 1e6)
    for loss in ("poisson", "nb"):
        head = fit_head(data.x, y, loss=loss, model="ridge", penalty=0.1, offset=data.offset)  # type: ignore[arg-type]
        assert np.isfinite(head.weights).all()
        assert set(head.states) == {"fitted"}


@pytest.mark.parametrize(
    ("x", "y", "kind", "says"),
    [
        ([[1.0], [np.nan]], [1.0, 2.0], {"loss": "mse"}, "1 of the codes are NaN or infinite"),
        (sparse.csr_array([[1.0], [np.inf]]), [1.0, 2.0], {"loss": "mse"}, "1 of the codes are NaN or infinite"),
        ([[1.0], [2.0]], [1.0, np.nan], {"loss": "mse"}, "1 targets are NaN or infinite, the first that of gene 0 in row 1"),
        ([[1.0], [2.0]], [1.0, -2.0], {"loss": "poisson"}, "1 counts are negative, the first -2 for gene 0 in row 1"),
        ([[1.0], [2.0]], [1.5, 2.0], {"loss": "nb"}, "1 counts are no whole numbers, the first 1.5"),
        ([[1.0], [2.0]], [1.0], {"loss": "mse"}, "1 rows of targets for 2 rows of codes"),
        ([[1.0], [2.0]], [1, 2], {"loss": "nb", "offset": [0.0, -np.inf]}, "1 offsets are not finite, the first -inf in row 1"),
        ([[1.0], [2.0]], [1, 2], {"loss": "nb", "offset": [1200.0, 3.0]}, "an offset of 1200 in row 0 is no log"),
        ([[1.0], [2.0]], [1, 2], {"loss": "nb", "offset": [1.0]}, "an offset of shape [1] for 2 samples"),
        ([[1.0], [2.0]], [1, 2], {"loss": "mse", "offset": [1.0, 1.0]}, "an offset is for counts, not for mse"),
        (np.zeros((0, 3)), [], {"loss": "mse"}, "the codes have shape [0, 3]"),
        ([["a"]], [1.0], {"loss": "mse"}, "the codes are no array of numbers"),
        ([[1.0], [2.0]], [[], []], {"loss": "mse"}, "the targets have shape [2, 0]"),
        ([[1.0], [2.0]], [1, 2], {"loss": "huber"}, "loss 'huber' is not known"),
        ([[1.0], [2.0]], [1, 2], {"loss": "mse", "model": "lasso"}, "model 'lasso' is not known"),
        ([[1.0], [2.0]], [1, 2], {"loss": "mse", "model": "linear", "penalty": 1.0}, "the linear model has no penalty"),
        ([[1.0], [2.0]], [1, 2], {"loss": "mse", "penalty": -1.0}, "a penalty is negative or NaN"),
        ([[1.0], [2.0]], [1, 2], {"loss": "mse", "penalty": [1.0, 2.0]}, "penalties of shape [2] for 1 genes"),
        ([[1.0], [2.0]], [1, 2], {"loss": "mse", "l1_ratio": 0.0}, "l1_ratio is 0"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_one_line(x: Any, y: Any, kind: Any, says: str) -> None:
    with pytest.raises(EluteError) as caught:
        fit_head(x, y, **{"model": "ridge", **kind})
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)
    assert isinstance(caught.value, DataError | ConfigError)


def test_a_head_refuses_codes_of_another_width() -> None:
    head = fit_head(made().x, made().log, loss="mse", model="ridge", penalty=0.1)
    with pytest.raises(DataError, match=r"codes of shape \[2, 3\] for a head of 10 codes"):
        head.mean(np.ones((2, 3)))
    assert head.genes([1]).weights.tolist() == head.weights[[1]].tolist()
