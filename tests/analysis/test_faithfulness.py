"""Removing what relevance names first: curves that fall faster than at random, and exact loss for a linear head."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from elute.analysis.faithfulness import ORDERS, ablation, perturbation_curves
from elute.analysis.relevance_head import LATENT, Explained
from elute.base.errors import ConfigError, DataError, GuardError

K = 16


def codes(samples: int = 30, tokens: int = 5, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(samples, tokens, K)) * (rng.random((samples, tokens, K)) < 0.4)


def linear(pool: str = "mean") -> Explained:
    rng = np.random.default_rng(1)
    return Explained.of([(rng.normal(size=(2, K)), rng.normal(size=2))], genes=["A", "B"], pool=pool)


def perceptron(pool: str = "mean") -> Explained:
    torch.manual_seed(0)
    return Explained.of(nn.Sequential(nn.Linear(K, 8), nn.ReLU(), nn.Linear(8, 2)), genes=["A", "B"], pool=pool)


@pytest.mark.parametrize("unit", ["codes", "patches"])
@pytest.mark.parametrize("head", [linear(), linear("max"), perceptron(), perceptron("max")])
def test_true_relevance_lowers_the_output_faster_than_chance(unit: Any, head: Explained) -> None:
    found = perturbation_curves(head, codes(), {"y": "A"}, unit=unit, steps=8)
    told = found.summary()
    assert told["gain_low"] > 0
    assert told["spread"] > told["gain"]
    assert told["control_low"] < 0.1 * told["gain"]
    assert abs(told["control"]) < 0.5 * told["gain"]
    table = found.table()
    assert table.columns == ["unit", "order", "removed", "output"]
    assert set(table["order"]) == set(ORDERS)
    for order in ORDERS:
        assert found.outputs[order][[0, -1]] == pytest.approx(found.outputs["most"][[0, -1]])
    if head.linear:
        assert found.outputs["most"][-1] == pytest.approx(head.layers[0].bias[0])


@pytest.mark.parametrize("unit", ["codes", "patches"])
def test_a_linear_curve_is_what_adding_up_gives(unit: Any) -> None:
    """Of a linear head with mean pooling the curve is y less the relevance of what was removed."""
    z, head = codes(6), linear()
    weight, bias = head.layers[0].weight[1], head.layers[0].bias[1]
    relevance = z / 5 * weight
    found = perturbation_curves(head, z, {"y": "B"}, unit=unit, steps=4)
    curves = []
    for sample in relevance:
        fired = np.flatnonzero((sample != 0).any(0))
        parts = np.sort(sample.sum(0)[fired] if unit == "codes" else sample.sum(1))[::-1]
        gone = np.concatenate([[0], np.cumsum(parts)])
        curves.append([bias + parts.sum() - gone[int(np.round(share * len(parts)))] for share in found.removed])
    np.testing.assert_allclose(found.outputs["most"], np.mean(curves, axis=0), rtol=1e-9)


def test_relevance_of_another_head_is_found_out() -> None:
    """Curves ask the head's own forward, so relevance by other weights is refused before a curve is drawn."""
    head = linear()
    other = np.random.default_rng(8).permutation(head.layers[0].weight, axis=1)
    lying = Explained.of([(other, head.layers[0].bias)], pool="mean")
    lying = replace(lying, forward=lambda pooled, genes: head.run(pooled)[-1][:, genes])
    with pytest.raises(GuardError, match="is off by"):
        perturbation_curves(lying, codes(), {"y": 0})


def test_losing_a_code_lowers_a_linear_output_by_its_relevance() -> None:
    for pool in ("mean", "max"):
        table = ablation(linear(pool), codes(), {"y": "A"})
        assert len(table) == K
        assert table["worst"].max() < 1e-10
    few = ablation(linear(), codes(), {"y": "A"}, codes=[3, 5])
    assert few["code"].to_list() == [3, 5]
    assert few["samples"].to_list() == [int((codes() != 0).any(1)[:, c].sum()) for c in (3, 5)]
    assert ablation(perceptron(), codes(), {"y": "A"})["worst"].max() > 1e-3


def test_the_same_curves_whatever_the_order_of_samples() -> None:
    z = codes(9)
    names = [f"s{i}" for i in range(9)]

    def batches(order: list[int]) -> list[Any]:
        return [(z[i], [names[i]] * 5) for i in order]

    one = perturbation_curves(perceptron(), batches(list(range(9))), {"y": 0})
    two = perturbation_curves(perceptron(), batches([4, 2, 8, 0, 1, 7, 6, 5, 3]), {"y": 0})
    np.testing.assert_allclose(one.gain, two.gain, rtol=1e-9)
    np.testing.assert_allclose(one.outputs["random"], two.outputs["random"], rtol=1e-9)
    few = perturbation_curves(perceptron(), batches(list(range(9))), {"y": 0}, most_samples=4)
    np.testing.assert_allclose(few.gain, one.gain[:4], rtol=1e-9)


def test_what_cannot_be_removed_is_refused() -> None:
    with pytest.raises(ConfigError, match="unit='tokens'"):
        perturbation_curves(linear(), codes(), {"y": 0}, unit="tokens")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="genes alone"):
        perturbation_curves(linear(), codes(), {"y": 0, LATENT: [1]})
    with pytest.raises(ConfigError, match="at least 1 step and 2 draws"):
        perturbation_curves(linear(), codes(), {"y": 0}, draws=1)
    with pytest.raises(DataError, match="no samples"):
        perturbation_curves(linear(), [], {"y": 0})
