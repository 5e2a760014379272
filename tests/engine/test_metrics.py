"""Metrics of reconstruction, firing and loss: hand-worked cases, numpy on all rows at once, and the edges."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from elute.base.codes import Codes
from elute.base.errors import DataError
from elute.engine.metrics import (
    Firing,
    Reconstruction,
    decoder_redundancy,
    loss_recovered,
    measure_loss_recovered,
)
from elute.models.edits import replace
from elute.models.module import TorchModel


def judged(y: Any, y_hat: Any, **settings: Any) -> Any:
    statistic = Reconstruction(np.shape(y)[1], **settings)
    statistic.update((np.asarray(y, dtype=float), np.asarray(y_hat, dtype=float)))
    return statistic.result()


def test_reconstruction_by_hand() -> None:
    # Means 2 and 1; squares about them 8 and 4; errors 1 + 1 and 4: EV = 1 - 6/12, R² = 1 - 2/8 and 1 - 4/4.
    y = [[0, 0], [4, 0], [2, 2], [2, 2]]
    y_hat = [[1, 0], [3, 0], [2, 0], [2, 2]]
    found = judged(y, y_hat)
    assert found.rows == 4
    assert found.explained_variance == pytest.approx(0.5)
    assert found.fvu == pytest.approx(0.5)
    assert found.fvu_given_mean is None
    assert found.mse == pytest.approx(6 / 8)
    np.testing.assert_allclose(found.r2, [0.75, 0.0])
    # Cosines: 0 (y is zero, ŷ is not), 1, 1/√2, 1. Norms of y: 4 + 2 · √8; of ŷ: 1 + 3 + 2 + √8.
    assert found.cosine == pytest.approx((0 + 1 + 0.5**0.5 + 1) / 4)
    assert found.norm_ratio == pytest.approx((6 + 8**0.5) / (4 + 2 * 8**0.5))
    # About the mean (0, 0): SS is 0 + 16 + 8 + 8 = 32.
    assert judged(y, y_hat, mean=np.zeros(2)).fvu_given_mean == pytest.approx(6 / 32)


@pytest.mark.parametrize("far", [0.0, 1e3, 1e6])
def test_the_mean_explains_nothing_however_far_from_zero(far: float) -> None:
    y = far + 1e-2 * np.random.default_rng(0).standard_normal((1000, 5))
    statistic = Reconstruction(5)
    mean = np.broadcast_to(y.mean(0), y.shape)
    for part in np.array_split(np.arange(1000), 7):  # each of them with a mean of its own
        statistic.update((y[part], mean[part]))
    assert abs(statistic.result().explained_variance) < 1e-9
    assert np.abs(statistic.result().r2).max() < 1e-9


def test_the_mean_is_that_of_all_rows_not_of_each_batch() -> None:
    statistic = Reconstruction(1)
    for level in (0.0, 10.0):
        statistic.update((np.full((5, 1), level), np.full((5, 1), level + 1)))
    assert statistic.result().explained_variance == pytest.approx(1 - 10 / 250)


def test_what_does_not_vary_is_explained_by_exactness_alone() -> None:
    y = np.full((6, 3), 0.1)
    y[:, 0] = np.arange(6)
    y_hat = y.copy()
    y_hat[:, 1] += 0.5
    found = judged(y, y_hat)
    assert found.r2.tolist() == [1.0, 0.0, 1.0]
    assert np.isfinite(found.explained_variance)
    one = judged([[1.0, 2.0]], [[1.0, 2.5]])
    assert (one.rows, one.explained_variance, one.fvu, one.r2.tolist()) == (1, 0.0, 1.0, [1.0, 0.0])
    assert judged([[1.0, 2.0]], [[1.0, 2.0]]).explained_variance == 1.0
    zeros = judged(np.zeros((2, 2)), np.zeros((2, 2)))
    assert (zeros.cosine, zeros.norm_ratio, zeros.explained_variance) == (1.0, 1.0, 1.0)
    assert judged(np.zeros((2, 2)), np.ones((2, 2))).norm_ratio == np.inf


def test_no_rows_and_wrong_rows_are_refused() -> None:
    statistic = Reconstruction(3)
    statistic.update((np.zeros((0, 3)), np.zeros((0, 3))))
    with pytest.raises(DataError, match="^there are no rows whose reconstruction could be judged$"):
        statistic.result()
    with pytest.raises(DataError, match="^2 rows came with 1 reconstructions$"):
        statistic.update((np.zeros((2, 3)), np.zeros((1, 3))))
    with pytest.raises(DataError, match="NaN or infinite"):
        statistic.update((np.zeros((2, 3)), np.full((2, 3), np.nan)))
    with pytest.raises(DataError, match=r"^a batch must be \(y, ŷ\), not ndarray$"):
        statistic.update(np.zeros((2, 2, 3)))  # type: ignore[arg-type]
    with pytest.raises(DataError, match=r"^a mean of shape \(2,\) where \[3\] is expected$"):
        Reconstruction(3, np.zeros(2))
    with pytest.raises(DataError, match="differ in given"):
        statistic.merge(Reconstruction(3, np.ones(3)))
    assert statistic.rows == 0


def reconstructions(random: np.random.Generator, n: int) -> Any:
    y = random.standard_normal((n, 3)) + np.array([0.0, 5.0, -300.0])
    return y, y + 0.3 * random.standard_normal((n, 3))


def codes(random: np.random.Generator, n: int) -> Codes:
    dense = torch.from_numpy(random.standard_normal((n, 6)))
    dense[:, 4] = 0
    return Codes.from_dense(dense, 2, by="magnitude")


def sklearn_like(y: np.ndarray, y_hat: np.ndarray) -> dict[str, Any]:
    error, spread = ((y - y_hat) ** 2).sum(0), ((y - y.mean(0)) ** 2).sum(0)
    norm, norm_hat = np.linalg.norm(y, axis=1), np.linalg.norm(y_hat, axis=1)
    return {
        "rows": len(y),
        "explained_variance": 1 - error.sum() / spread.sum(),
        "fvu": error.sum() / spread.sum(),
        "fvu_given_mean": error.sum() / ((y - 1) ** 2).sum(),
        "mse": ((y - y_hat) ** 2).mean(),
        "cosine": ((y * y_hat).sum(1) / norm / norm_hat).mean(),
        "r2": 1 - error / spread,
        "norm_ratio": norm_hat.sum() / norm.sum(),
    }


def dense_firing(batch: Codes) -> dict[str, Any]:
    dense = batch.dense().abs().numpy()
    counts = (dense > 0).sum(0)
    return {
        "rows": len(dense),
        "l0": (dense > 0).sum(1).mean(),
        "dead_fraction": (counts == 0).mean(),
        "counts": counts,
        "frequency": counts / len(dense),
        "mean_strength": dense.sum(0) / np.maximum(counts, 1),
        "max_strength": dense.max(0),
    }


CASES: dict[str, tuple[Callable[[], Any], Callable[..., Any], Callable[..., Any], Callable[..., dict[str, Any]]]] = {
    "Reconstruction": (
        lambda: Reconstruction(3, np.ones(3)),
        reconstructions,
        lambda parts: tuple(np.concatenate(part) for part in zip(*parts, strict=True)),
        lambda batch: sklearn_like(*batch),
    ),
    "Firing": (lambda: Firing(6), codes, Codes.concatenate, dense_firing),
}


def agree(result: Any, truth: dict[str, Any]) -> None:
    assert {field.name for field in fields(result)} == set(truth)
    for name, value in truth.items():
        np.testing.assert_allclose(getattr(result, name), value, rtol=1e-9, atol=1e-12, err_msg=name)


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), sizes=st.lists(st.integers(0, 9), min_size=1, max_size=6), data=st.data())
def test_any_partition_in_any_order_is_one_pass(name: str, seed: int, sizes: list[int], data: st.DataObject) -> None:
    make, draw, join, judge = CASES[name]
    random = np.random.default_rng(seed)
    batches = [draw(random, n) for n in [*sizes, 3]]
    parts = []
    for batch in data.draw(st.permutations(batches)):
        statistic = make()
        statistic.update(batch)
        parts.append(statistic)
    while len(parts) > 1:  # a tree of merges in any shape
        into, of = data.draw(st.permutations(range(len(parts))))[:2]
        parts[into].merge(parts[of])
        del parts[of]
    agree(parts[0].result(), judge(join(batches)))


@pytest.mark.parametrize("name", CASES)
def test_a_state_goes_on_to_the_bit(name: str) -> None:
    make, draw, _, _ = CASES[name]
    random = np.random.default_rng(4)
    first, second = draw(random, 20), draw(random, 9)
    statistic = make()
    statistic.update(first)
    state = statistic.state()
    plain = json.loads(json.dumps({k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in state.items()}))
    resumed = [type(statistic).from_state(each) for each in (state, plain)]
    for each in (statistic, *resumed):
        each.update(second)
    for each in resumed:
        for field in fields(each.result()):
            np.testing.assert_array_equal(
                getattr(each.result(), field.name), getattr(statistic.result(), field.name), err_msg=field.name
            )


def test_a_mean_that_was_not_given_stays_so_in_a_state() -> None:
    statistic = Reconstruction.from_state(Reconstruction(2).state())
    statistic.update((torch.ones(2, 2), torch.ones(2, 2)))
    assert statistic.result().fvu_given_mean is None


def test_firing_by_hand() -> None:
    # Rows {0: 1, 2: 3}, {0: -2}, {}: feature 1 never fires; an empty slot names feature 0 and says nothing.
    batch = Codes(
        torch.tensor([[0, 2], [0, 0], [0, 0]], dtype=torch.int32), torch.tensor([[1.0, 3.0], [-2.0, 0.0], [0, 0]]), 3
    )
    statistic = Firing(3)
    with pytest.raises(DataError, match="^there are no rows in which features could have fired$"):
        statistic.result()
    statistic.update(batch)
    found = statistic.result()
    assert (found.rows, found.l0, found.dead_fraction) == (3, 1.0, pytest.approx(1 / 3))
    assert found.counts.tolist() == [2, 0, 1]
    np.testing.assert_allclose(found.frequency, [2 / 3, 0, 1 / 3])
    assert found.mean_strength.tolist() == [1.5, 0.0, 3.0]
    assert found.max_strength.tolist() == [2.0, 0.0, 3.0]
    with pytest.raises(DataError, match="^codes of 3 features where 4 are expected$"):
        Firing(4).update(batch)
    beyond = Codes(torch.tensor([[7]], dtype=torch.int32), torch.ones(1, 1), 3)
    with pytest.raises(DataError, match="^feature 7 in a batch is outside 0 to 2$"):
        statistic.update(beyond)
    assert statistic.rows == 3


def test_redundancy_by_hand_and_block_by_block(monkeypatch: pytest.MonkeyPatch) -> None:
    W = torch.tensor([[1.0, 0.0], [3.0, 0.0], [0.0, 2.0], [0.0, 0.0], [-1.0, -1.0]])
    found = decoder_redundancy(W)
    np.testing.assert_allclose(found.nearest, [1, 1, 0, 0, 0], atol=1e-7)
    assert found.mean == pytest.approx(0.4)
    W = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    dense = nn.functional.cosine_similarity(W[:, None], W[None], dim=2)
    dense.fill_diagonal_(-2)
    monkeypatch.setattr("elute.engine.metrics._BLOCK", 300 * 7)
    np.testing.assert_allclose(decoder_redundancy(W).nearest, dense.amax(1), atol=1e-6)
    with pytest.raises(DataError, match="2 or more features"):
        decoder_redundancy(W[:1])


def test_loss_recovered() -> None:
    assert loss_recovered(1.0, 1.5, 3.0) == pytest.approx(0.75)
    assert loss_recovered(1.0, 1.0, 3.0) == 1.0
    assert loss_recovered(1.0, 4.0, 3.0) == pytest.approx(-0.5)
    with pytest.raises(DataError, match="^ablating leaves the loss at 2: there is nothing to recover"):
        loss_recovered(2.0, 2.0, 2.0)
    with pytest.raises(DataError, match="a loss is not finite"):
        loss_recovered(1.0, float("nan"), 2.0)


def tiny() -> tuple[TorchModel, list[tuple[torch.Tensor, pl.DataFrame]]]:
    generator = torch.Generator().manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 3))
    for weight in net.parameters():
        weight.data.normal_(generator=generator)
    model = TorchModel(net, {"hidden": "1"})
    data = [torch.randn(n, 4, generator=generator) for n in (5, 2, 9)]  # batches of unequal sizes
    return model, list(model.batches(data))


def per_row(output: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
    return output.sum(1) + batch[:, 0]  # linear in what the site gives


def test_the_loss_of_a_model_is_measured_over_all_batches() -> None:
    model, batches = tiny()
    hidden = torch.cat([model.capture(batch)["hidden"] for batch, _ in batches])
    mean = hidden.mean(0) + 1  # not the mean itself, which a linear loss would not notice
    ablations = {"hidden": replace(mean)}

    def halfway(x: torch.Tensor, metadata: pl.DataFrame | None) -> torch.Tensor:
        assert metadata is not None
        assert len(metadata) == len(x)
        return (x + mean) / 2

    found = measure_loss_recovered(model, batches, edits={"hidden": halfway}, ablations=ablations, loss=per_row)
    rows = torch.cat([batch for batch, _ in batches])
    head = model.module[2]
    with torch.no_grad():
        assert found.clean == pytest.approx(float((head(hidden).sum(1) + rows[:, 0]).mean()), rel=1e-5)
        assert found.ablated == pytest.approx(float((head(mean).sum() + rows[:, 0]).mean()), rel=1e-5)
    assert found.items == 16
    assert found.recovered == pytest.approx(0.5, abs=1e-5)

    def mean_loss(output: torch.Tensor, batch: torch.Tensor) -> torch.Tensor:
        return per_row(output, batch).mean()

    again = measure_loss_recovered(model, batches, edits={"hidden": halfway}, ablations=ablations, loss=mean_loss)
    assert again.patched == pytest.approx(found.patched, rel=1e-6)  # a number a batch is weighted by its rows
    exact = measure_loss_recovered(model, batches, edits={"hidden": lambda x, _: x}, ablations=ablations, loss=per_row)
    assert exact.recovered == pytest.approx(1.0, abs=1e-7)
    nothing = measure_loss_recovered(model, batches, edits=ablations, ablations=ablations, loss=per_row)
    assert nothing.recovered == pytest.approx(0.0, abs=1e-7)


def test_a_site_that_the_loss_ignores_and_no_batches_are_named() -> None:
    model, batches = tiny()
    edits = {"hidden": replace(0.0)}
    same = measure_loss_recovered(
        model, batches, edits=edits, ablations=edits, loss=lambda output, _: 0 * output.sum(1)
    )
    assert (same.clean, same.patched, same.ablated) == (0.0, 0.0, 0.0)
    with pytest.raises(DataError, match="there is nothing to recover"):
        _ = same.recovered
    with pytest.raises(DataError, match="no mean loss can be taken over 0, 0, 0 items"):
        measure_loss_recovered(model, [], edits=edits, ablations=edits, loss=per_row)
