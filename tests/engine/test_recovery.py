"""What was found of planted features, against dense computations by brute force and against chance."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch

from elute.base.codes import Codes
from elute.base.errors import ConfigError, DataError
from elute.engine import recovery as module
from elute.engine.recovery import assign, matched_f1, recovery


def directions(n: int, width: int = 64, seed: int = 0) -> torch.Tensor:
    return torch.randn(n, width, generator=torch.Generator().manual_seed(seed))


def cosines(found: torch.Tensor, truth: torch.Tensor) -> np.ndarray:
    a, b = (x.double() / x.double().norm(dim=1, keepdim=True) for x in (truth, found))
    return (a @ b.T).numpy()


def test_what_was_planted_is_found_and_copies_are_not_unique() -> None:
    truth = directions(40)
    # Scale says nothing; of 40 planted features 30 are there, two of them as one feature halfway between.
    found = torch.cat([3 * truth[:28], (truth[28] + truth[29])[None], directions(50, seed=1)])
    result = recovery(found, truth)
    table = cosines(found, truth)
    np.testing.assert_allclose(result.max_cosine, table.max(1), atol=1e-6)
    assert result.nearest.tolist() == table.argmax(1).tolist()
    assert result.recovered_fraction == 28 / 40
    assert result.mean_max_cosine == pytest.approx(table.max(1).mean(), abs=1e-6)
    assert result.uniqueness == len(set(table.argmax(1))) / 40
    assert recovery(truth, truth).uniqueness == 1.0
    assert recovery(truth[:1], truth).uniqueness == 1 / 40


@pytest.mark.parametrize("absolute", [False, True])
def test_blocks_and_signs(monkeypatch: pytest.MonkeyPatch, absolute: bool) -> None:
    found, truth = directions(90), torch.cat([-directions(10), directions(23, seed=1)])
    monkeypatch.setattr(module, "_BLOCK", 90 * 4)
    table = cosines(found, truth)
    table = np.abs(table) if absolute else table
    result = recovery(found, truth, absolute=absolute)
    np.testing.assert_allclose(result.max_cosine, table.max(1), atol=1e-6)
    assert result.recovered_fraction == pytest.approx(10 / 33 if absolute else 0.0)


def test_chance_recovers_nothing() -> None:
    result = recovery(directions(512), directions(256, seed=1))
    assert result.recovered_fraction == 0.0
    # The largest of 512 cosines in 64 dimensions, whose standard deviation is 1/8, is about 3/8.
    assert 0.34 < result.mean_max_cosine < 0.41
    assert assign(directions(512), directions(256, seed=1)).mean_cosine < result.mean_max_cosine


def test_rare_features_are_left_out() -> None:
    truth = directions(6)
    counts = np.array([100, 99, 500, 0, 100, 7])
    result = recovery(truth[[0, 2]], truth, counts)
    assert result.planted.tolist() == [0, 2, 4]
    assert result.recovered_fraction == pytest.approx(2 / 3)
    assert assign(truth, truth, torch.from_numpy(counts)).pairs.tolist() == [[0, 0], [2, 2], [4, 4]]
    assert recovery(truth, truth, counts, least=500).planted.tolist() == [2]
    with pytest.raises(DataError, match=r"^no planted feature fired 501 times. Take more rows, or a smaller least=.$"):
        recovery(truth, truth, counts, least=501)


@pytest.mark.parametrize(("n_found", "n_truth"), [(5, 4), (3, 5), (4, 4)])
def test_the_assignment_is_the_best_of_all(n_found: int, n_truth: int) -> None:
    found, truth = directions(n_found, 3), directions(n_truth, 3, seed=1)
    table = cosines(found, truth)
    small = min(n_found, n_truth)
    best = max(
        sum(table[t, f] for t, f in zip(rows, columns, strict=True))
        for rows in itertools.combinations(range(n_truth), small)
        for columns in itertools.permutations(range(n_found), small)
    )
    result = assign(found, truth)
    assert len(result.pairs) == small
    assert len(set(result.pairs[:, 0])) == len(set(result.pairs[:, 1])) == small
    assert result.cosine.sum() == pytest.approx(best, abs=1e-6)
    np.testing.assert_allclose([table[t, f] for f, t in result.pairs], result.cosine, atol=1e-6)
    assert result.mean_cosine == pytest.approx(best / small, abs=1e-6)


def sparse(random: np.random.Generator, n: int, n_features: int, k: int) -> Codes:
    dense = torch.from_numpy(random.standard_normal((n, n_features)) * (random.random((n, n_features)) < 0.3))
    return Codes.from_dense(dense, k, by="magnitude")


@pytest.mark.parametrize("rows_at_a_time", [7, 1000])
def test_f1_is_that_of_dense_codes(monkeypatch: pytest.MonkeyPatch, rows_at_a_time: int) -> None:
    monkeypatch.setattr(module, "_ROWS", rows_at_a_time)
    random = np.random.default_rng(0)
    found, truth = sparse(random, 150, 12, 5), sparse(random, 150, 9, 3)
    pairs = np.stack([random.permutation(12)[:8], random.permutation(9)[:8]], 1)
    result = matched_f1(found, truth, pairs)
    a, b = found.dense().numpy()[:, pairs[:, 0]] != 0, truth.dense().numpy()[:, pairs[:, 1]] != 0
    both = (a & b).sum(0)
    np.testing.assert_allclose(result.precision, both / a.sum(0))
    np.testing.assert_allclose(result.recall, both / b.sum(0))
    np.testing.assert_allclose(result.f1, 2 * both / (a.sum(0) + b.sum(0)))
    assert result.counted.all()
    assert result.mean == pytest.approx(result.f1.mean())
    assert matched_f1(truth, truth, np.stack([np.arange(9)] * 2, 1)).mean == 1.0


def rows(*fired: list[int], n_features: int = 4) -> Codes:
    indices = torch.tensor([[*each, *[0] * (2 - len(each))] for each in fired], dtype=torch.int32)
    values = torch.tensor([[1.0] * len(each) + [0.0] * (2 - len(each)) for each in fired])
    return Codes(indices, values, n_features)


def test_f1_by_hand_and_what_never_fired() -> None:
    truth = rows([0, 1], [0], [0], [])
    found = rows([3], [3], [2], [3])
    # Feature 3 fires with planted 0 in 2 rows, alone in 1, and misses 1. Planted 2 never fired: it is not counted.
    result = matched_f1(found, truth, np.array([[3, 0], [2, 2], [0, 1]]))
    np.testing.assert_allclose(result.precision, [2 / 3, 0, 0])
    np.testing.assert_allclose(result.recall, [2 / 3, 0, 0])
    np.testing.assert_allclose(result.f1, [2 / 3, 0, 0])
    assert result.counted.tolist() == [True, False, True]
    assert result.mean == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("act", "line"),
    [
        (lambda: recovery(directions(3), directions(3, 8)), "directions of shapes (3, 64) and (3, 8)"),
        (lambda: recovery(directions(3), directions(0)), "there are no planted features"),
        (lambda: recovery(directions(3) * torch.inf, directions(3)), "NaN or infinity in directions"),
        (lambda: recovery(directions(3), directions(3), [1, 2]), "counts of shape (2,) where [3] is expected"),
        (lambda: matched_f1(rows([0]), rows([0], [1]), np.zeros((1, 2), int)), "codes of 1 rows cannot be compared"),
        (lambda: matched_f1(rows([0]), rows([0]), np.array([[0, 0], [0, 1]])), "a feature stands in two pairs"),
        (lambda: matched_f1(rows([0]), rows([0]), np.array([[0, 9]])), "feature 9 in a batch is outside 0 to 3"),
        (lambda: matched_f1(rows([0]), rows([0]), np.zeros((0, 2), int)), "pairs of shape (0, 2)"),
        (lambda: matched_f1(rows([0]), rows([0]), np.array([[0, 1]])), "none of the planted features in these pairs"),
    ],
)
def test_what_cannot_be_compared_is_said(act: Any, line: str) -> None:
    with pytest.raises(DataError) as caught:
        act()
    assert str(caught.value).startswith(line)
    with pytest.raises(ConfigError, match=r"^at=0"):
        recovery(directions(3), directions(3), at=0)
