from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from elute.base import keyed, mergeable
from elute.base.accumulate import Counts, Covariance, Histogram, Moments, SparseSums, TopK
from elute.base.codes import Codes
from elute.base.errors import ConfigError, DataError


def filled(statistic: Any, *batches: Any) -> Any:
    for batch in batches:
        statistic.update(batch)
    return statistic.result()


@pytest.mark.parametrize("size", [1, 7, 5000])
def test_a_large_mean_does_not_drown_a_small_deviation(size: int) -> None:
    random = np.random.default_rng(0)
    x = 1e6 + 1e-3 * random.standard_normal((5000, 2))
    deviation = (x - 1e6).std(0)  # these differences are representable, so that nothing is lost
    batches = [x[i : i + size] for i in range(0, len(x), size)]
    np.testing.assert_allclose(filled(Moments(2), *batches).std, deviation, rtol=1e-6)
    result = filled(Covariance(2), *batches)
    np.testing.assert_allclose(result.covariance, np.cov((x - 1e6).T, ddof=0), rtol=1e-5, atol=1e-13)
    np.testing.assert_allclose(result.mean - 1e6, (x - 1e6).mean(0), atol=1e-8)


def test_a_mean_is_right_to_its_last_digits() -> None:
    x = 1e9 + 1e-3 * np.random.default_rng(8).standard_normal((50_000, 2))
    exact = 1e9 + (x - 1e9).mean(0)  # the differences are representable
    for statistic in (Moments(2), Covariance(2)):
        assert (np.abs(filled(statistic, x).mean - exact) <= np.spacing(exact)).all()


def test_an_outlier_in_front_spoils_nothing_behind_it() -> None:
    parts = np.array([[1e12]]), np.array([[1.0], [3.0]])
    merged = filled(Moments(1), *parts)
    assert merged.mean[0] == pytest.approx((1e12 + 4) / 3, rel=1e-15)
    x = np.random.default_rng(1).normal(5, 2, (4000, 1))
    first, rest = Moments(1), Moments(1)
    first.update(np.array([[1e6]]))
    rest.update(x)
    first.merge(rest)
    everything = np.concatenate([[[1e6]], x])
    np.testing.assert_allclose(first.result().variance, everything.var(0), rtol=1e-12)


def test_moments_of_a_known_column() -> None:
    result = filled(Moments(1), np.array([[2.0], [4.0]]), np.array([[4.0], [4.0], [5.0], [5.0], [7.0], [9.0]]))
    assert (result.count, result.mean[0], result.variance[0], result.std[0]) == (8, 5.0, 4.0, 2.0)
    assert (result.min[0], result.max[0]) == (2.0, 9.0)
    assert filled(Moments(1), [[3.0]]).variance[0] == 0


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, torch.float64, torch.int32])
def test_torch_of_any_type_reads_as_its_numbers(dtype: torch.dtype) -> None:
    x = torch.arange(12).reshape(4, 3).to(dtype)
    if dtype.is_floating_point:
        x.requires_grad_()
    want = np.arange(12.0).reshape(4, 3)
    np.testing.assert_array_equal(filled(Moments(3), x).mean, want.mean(0))
    np.testing.assert_array_equal(filled(Histogram([0, 6, 12], 3), x).counts, [[0, 2, 2, 0]] * 3)
    np.testing.assert_array_equal(filled(Covariance(3), x).covariance, np.full((3, 3), 11.25))


def test_float64_is_never_narrowed() -> None:
    x = 1 + np.array([[1e-12], [3e-12]])
    for batch in (x, torch.from_numpy(x)):
        assert filled(Moments(1), batch).std[0] == pytest.approx(1e-12, rel=1e-3)


def test_blocks_are_cut_without_a_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.random.default_rng(2).normal(size=(101, 3))
    whole = filled(Moments(3), x), filled(Covariance(3), x), filled(Histogram([-1, 0, 1], 3), x)
    monkeypatch.setattr(mergeable, "_BLOCK", 10)
    moments, covariance, histogram = (
        filled(Moments(3), x),
        filled(Covariance(3), x),
        filled(Histogram([-1, 0, 1], 3), x),
    )
    np.testing.assert_allclose(moments.variance, whole[0].variance, rtol=1e-13)
    np.testing.assert_array_equal(moments.min, whole[0].min)
    np.testing.assert_allclose(covariance.covariance, whole[1].covariance, rtol=1e-12, atol=1e-15)
    np.testing.assert_array_equal(histogram.counts, whole[2].counts)


def test_eigen_finds_the_directions_that_were_put_in() -> None:
    random = np.random.default_rng(3)
    turn, _ = np.linalg.qr(random.normal(size=(4, 4)))
    x = random.normal(size=(20_000, 4)) * [5, 3, 1, 0] @ turn.T + 100
    values, vectors = filled(Covariance(4), x).eigen()
    np.testing.assert_allclose(values, [25, 9, 1, 0], rtol=0.03, atol=1e-9)
    assert (values >= 0).all()
    np.testing.assert_allclose(np.abs((turn * vectors).sum(0)), 1, atol=1e-3)
    assert (vectors[np.abs(vectors).argmax(0), range(4)] > 0).all()
    with pytest.raises(DataError, match=r"^there are no rows to find principal directions of$"):
        Covariance(2).result().eigen()


def test_histogram_edges_belong_where_numpy_puts_them() -> None:
    x = np.array([[-1.0], [0.0], [0.5], [1.0], [2.0], [2.5]])
    assert filled(Histogram([0, 1, 2]), x).counts.tolist() == [[1, 2, 2, 1]]
    assert filled(Histogram([0, 1, 2]), x).counts[0, 1:-1].tolist() == np.histogram(x, [0, 1, 2])[0].tolist()


def test_histogram_of_sparse_values_needs_no_dense_rows() -> None:
    random = np.random.default_rng(4)
    x = random.random((50, 6)) * (random.random((50, 6)) < 0.3)
    fired = Codes.from_dense(torch.from_numpy(x), 6).fired()
    sparse = filled(Histogram([0, 0.5, 1], 6), (fired.features, fired.values))
    want = np.array([np.histogram(column[column > 0], [0, 0.5, 1])[0] for column in x.T])
    np.testing.assert_array_equal(sparse.counts[:, 1:-1], want)


def test_counts_take_any_shape() -> None:
    assert filled(Counts(4), torch.tensor([[0, 3], [3, 1]]), np.array([], dtype=int)).counts.tolist() == [1, 1, 0, 2]
    assert filled(Counts(2), []).total == 0


def test_topk_finds_the_strongest_rows_of_each_feature() -> None:
    x = torch.from_numpy(np.random.default_rng(5).normal(size=(400, 30)).round(1))  # many equal scores
    statistic = TopK(5, 30)
    for start in range(0, 400, 32):
        fired = Codes.from_dense(x[start : start + 32], 8).fired()
        statistic.update((fired.features, fired.values, fired.rows + start))
    dense = np.concatenate([Codes.from_dense(x[i : i + 32], 8).dense().numpy() for i in range(0, 400, 32)])
    for feature in range(30):
        order = np.lexsort((np.arange(400), -dense[:, feature]))[:5]
        scores, keys = statistic.result().of(feature)
        np.testing.assert_array_equal(keys, order)
        np.testing.assert_array_equal(scores, dense[order, feature])


def test_topk_of_few_says_how_many() -> None:
    result = filled(TopK(3, 2), (np.array([1, 1]), np.array([-2.0, -0.0]), np.array([9, 4])))
    assert result.counts.tolist() == [0, 2]
    assert [part.tolist() for part in result.of(1)] == [[0.0, -2.0], [4, 9]]
    assert not np.signbit(result.scores[1, 0])
    assert [part.tolist() for part in result.of(0)] == [[], []]


def test_sparse_sums_hold_the_pairs_that_came_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(keyed, "_PENDING", 100)
    random = np.random.default_rng(6)
    statistic = SparseSums((10**9, 10**9))
    rows, columns = random.integers(0, 10**9, 50), random.integers(0, 10**9, 50)
    for _ in range(200):
        pick = random.integers(0, 50, 40)
        statistic.update((rows[pick], columns[pick], np.ones(40)))
        assert sum(len(part[0]) for part in statistic._waiting) <= 140
    result = statistic.result()
    assert len(result.rows) == 50
    assert result.sums.sum() == result.counts.sum() == 8000
    assert result.shape == (10**9, 10**9)


def test_sparse_sums_as_a_matrix() -> None:
    result = filled(
        SparseSums((3, 4)),
        (np.array([2, 0, 2]), np.array([3, 1, 3]), np.array([1.5, 2.0, 1.0])),
        (torch.tensor([2]), torch.tensor([0]), torch.tensor([4.0], dtype=torch.bfloat16)),
    )
    assert result.matrix().toarray().tolist() == [[0, 2, 0, 0], [0, 0, 0, 0], [4, 0, 0, 2.5]]
    assert result.counts.tolist() == [1, 1, 2]
    assert SparseSums((3, 4)).result().matrix().nnz == 0


@pytest.mark.parametrize(
    ("statistic", "batch", "says"),
    [
        (Moments(3), np.ones((4, 2)), "a batch of shape (4, 2) where [rows, 3] is expected"),
        (Covariance(3), np.ones(3), "a batch of shape (3,) where [rows, 3] is expected"),
        (Moments(1), [[1.0], [np.nan]], "1 of 2 values in a batch are NaN or infinite"),
        (Moments(1), [[1.0], [1.0, 2.0]], "a batch is a list of unequal lists"),
        (Moments(1), np.array([["a"]]), "a batch of <U1 holds no numbers"),
        (Counts(3), [1, 3], "number 3 in a batch is outside 0 to 2"),
        (Counts(3), [-1, 3], "number -1 in a batch is outside 0 to 2"),
        (Counts(3), [1.0], "the numbers in a batch are float64, not whole numbers"),
        (TopK(2, 3), ([3], [1.0], [0]), "column 3 in a batch is outside 0 to 2"),
        (TopK(2, 3), ([0], [1.0], [-1]), "key -1 in a batch is outside 0 to 9223372036854775806"),
        (TopK(2, 3), ([0], [np.nan], [1]), "1 of 1 values in a batch are NaN or infinite"),
        (TopK(2, 3), ([0], [1.0]), "a batch must be (columns, scores, keys), arrays of one length, not (1,), (1,)"),
        (SparseSums((2, 2)), ([0], [1], [1, 2]),
         "a batch must be (rows, columns, values), arrays of one length, not (1,), (1,), (2,)"),
        (SparseSums((2, 2)), ([2], [1], [1.0]), "row 2 in a batch is outside 0 to 1"),
        (SparseSums((2, 2)), np.ones(3), "a batch must be (rows, columns, values), arrays of one length, not ndarray"),
        (Histogram([0, 1], 2), ([0], [1.0], [2]),
         "a batch must be (columns, values), arrays of one length, not (1,), (1,), (1,)"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)  # fmt: skip
def test_a_batch_that_does_not_fit_is_refused_in_one_line(statistic: Any, batch: Any, says: str) -> None:
    with pytest.raises(DataError) as caught:
        statistic.update(batch)
    assert str(caught.value) == says


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Moments(0), "width=0. Choose a whole number above 0."),
        (lambda: Covariance(2.5), "width=2.5. Choose a whole number above 0."),
        (lambda: Counts(True), "width=True. Choose a whole number above 0."),
        (lambda: TopK(-1, 3), "k=-1. Choose a whole number above 0."),
        (lambda: SparseSums((0, 3)), "shape=0. Choose a whole number above 0."),
        (lambda: SparseSums(5), "shape=5. Give two numbers: rows and columns."),
        (lambda: SparseSums((5,)), "shape=(5,). Give two numbers: rows and columns."),
        (lambda: SparseSums((2**32, 2**32)), "4294967296 × 4294967296 pairs are more than can be numbered"),
        *(
            (lambda bad=bad: Histogram(bad), "the edges of a histogram must be two or more finite numbers that rise")
            for bad in ([1.0], [2.0, 1.0], [0.0, 0.0], [0.0, np.inf], [[0.0, 1.0]])
        ),
    ],
)  # fmt: skip
def test_settings_out_of_range_are_refused(make: Any, says: str) -> None:
    with pytest.raises(ConfigError) as caught:
        make()
    assert str(caught.value) == says


def test_sparse_sums_refuse_a_state_out_of_order() -> None:
    statistic = SparseSums((2, 2))
    statistic.update(([1, 0], [1, 0], [1.0, 2.0]))
    state = statistic.state()
    for bad in ({"pairs": [3, 0]}, {"pairs": [0, 4]}, {"pairs": [-1, 0]}, {"counts": [1]}, {"pairs": [0, 0]}):
        with pytest.raises(DataError, match=r"^the pairs in the state of SparseSums are not what it writes$"):
            SparseSums.from_state({**state, **bad})
