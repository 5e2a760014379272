from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from elute.base.codes import Codes
from elute.base.errors import ConfigError, DataError

SMALL = st.tuples(st.integers(0, 8), st.integers(1, 9))
NUMBERS = st.floats(-4, 4, width=32).map(lambda x: 0.0 if abs(x) < 0.5 else x)


def example() -> Codes:
    """Four rows of three slots over six features; row 2 is empty and row 1 holds an empty slot between."""
    indices = torch.tensor([[4, 1, 5], [1, 0, 3], [0, 0, 0], [5, 4, 1]], dtype=torch.int32)
    values = torch.tensor([[2.0, 1.0, 0.5], [3.0, 0.0, -1.0], [0.0, 0.0, 0.0], [4.0, 5.0, 6.0]])
    return Codes(indices, values, 6)


DENSE = [[0, 1, 0, 0, 2, 0.5], [0, 3, 0, -1, 0, 0], [0] * 6, [0, 6, 0, 0, 5, 4]]


def test_an_example_reads_as_what_it_stands_for() -> None:
    codes = example()
    assert codes.dense().tolist() == DENSE
    assert (codes.shape, len(codes), codes.k) == ((4, 6), 4, 3)
    assert codes.l0().tolist() == [3, 2, 0, 3]
    assert codes.counts().tolist() == [0, 3, 0, 1, 2, 2]
    assert codes.frequency().tolist() == [0, 0.75, 0, 0.25, 0.5, 0.5]
    assert [part.tolist() for part in codes.rows_of(1)] == [[0, 1, 3], [1.0, 3.0, 6.0]]
    assert [part.tolist() for part in codes.rows_of(0)] == [[], []]
    assert [part.tolist() for part in codes.fired()] == [
        [0, 0, 0, 1, 1, 3, 3, 3],
        [4, 1, 5, 1, 3, 5, 4, 1],
        [2, 1, 0.5, 3, -1, 4, 5, 6],
    ]
    assert repr(codes) == "Codes(4 rows, k=3, 6 features, float32 on cpu)"
    assert codes.check() is codes


def test_csc_lists_features_then_rows() -> None:
    turned = example().csc()
    assert turned.indptr.tolist() == [0, 0, 3, 3, 4, 6, 8]
    assert turned.rows.tolist() == [0, 1, 3, 1, 0, 3, 0, 3]
    assert turned.values.tolist() == [1, 3, 6, -1, 2, 5, 0.5, 4]
    assert turned.counts().tolist() == [0, 3, 0, 1, 2, 2]
    assert [part.tolist() for part in turned.of(4)] == [[0, 3], [2, 5]]
    assert turned.indptr.dtype == turned.rows.dtype == np.int64


@settings(max_examples=40, deadline=None)
@given(data=st.data(), shape=SMALL)
def test_views_agree_with_the_dense_array(data: st.DataObject, shape: tuple[int, int]) -> None:
    x = data.draw(hnp.arrays(np.float32, shape, elements=NUMBERS))
    codes = Codes.from_dense(torch.from_numpy(x), shape[1], by="magnitude").check()
    np.testing.assert_array_equal(codes.dense().numpy(), x)
    np.testing.assert_array_equal(codes.l0().numpy(), (x != 0).sum(1))
    np.testing.assert_array_equal(codes.counts().numpy(), (x != 0).sum(0))
    turned = codes.csc()
    for feature in range(shape[1]):
        rows = np.flatnonzero(x[:, feature])
        for found, values in (turned.of(feature), codes.rows_of(feature)):
            np.testing.assert_array_equal(found, rows)
            np.testing.assert_array_equal(values, x[rows, feature])


@settings(max_examples=40, deadline=None)
@given(data=st.data(), shape=SMALL, by=st.sampled_from(["positive", "magnitude"]))
def test_from_dense_keeps_the_largest(data: st.DataObject, shape: tuple[int, int], by: str) -> None:
    x = data.draw(hnp.arrays(np.float32, shape, elements=NUMBERS))
    k = data.draw(st.integers(0, shape[1]))
    codes = Codes.from_dense(torch.from_numpy(x), k, by=by).check()
    worth = np.abs(x) if by == "magnitude" else np.maximum(x, 0)
    kept = codes.dense().numpy()
    best = -np.sort(-worth, axis=1)[:, :k]
    np.testing.assert_array_equal(np.abs(codes.values.numpy()), best)
    assert ((kept == x) | (kept == 0)).all()
    assert codes.indices.dtype == torch.int32
    assert (codes.indices[codes.values == 0] == 0).all()


def test_from_dense_lets_gradients_through_to_what_was_kept() -> None:
    x = torch.tensor([[1.0, -3.0, 2.0]], requires_grad=True)
    (Codes.from_dense(x, 2, by="magnitude").dense() * torch.tensor([5.0, 7.0, 9.0])).sum().backward()
    assert x.grad is not None
    assert x.grad.tolist() == [[0, 7, 9]]


CHOICES = [
    *(slice(1, 3), slice(None, None, -1), slice(-1, None), slice(9, 2)),
    *([3, 0, 0], [], [-1], [True, False, True, False]),
    *(np.array([2, 1]), np.array([True, False, False, True])),
    *(torch.tensor([0, 3]), torch.tensor([1, 2], dtype=torch.uint8)),
]


@pytest.mark.parametrize("rows", CHOICES, ids=str)
def test_rows_are_chosen_as_in_numpy(rows: object) -> None:
    np.testing.assert_array_equal(example()[rows].dense(), np.array(DENSE)[rows])


def test_one_number_gives_one_row() -> None:
    assert example()[1].dense().tolist() == [DENSE[1]]
    assert example()[-1].dense().tolist() == [DENSE[3]]
    assert [row.dense().tolist() for row in example()] == [[row] for row in DENSE]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (4, "there is no row 4 in 4 rows of codes"),
        ([0, -5], "there is no row -5 in 4 rows of codes"),
        (np.array([True]), "a mask of shape (1,) over 4 rows of codes"),
        ([0.5], "rows of codes cannot be chosen by torch.float32[1]"),
        ([[0, 1]], "rows of codes cannot be chosen by torch.int64[1, 2]"),
        ("first", "rows of codes cannot be chosen by str"),
    ],
)
def test_rows_that_are_not_there_are_refused(rows: object, says: str) -> None:
    with pytest.raises(DataError) as caught:
        example()[rows]
    assert str(caught.value) == says


def test_concatenate_fills_up_to_the_widest() -> None:
    codes = example()
    narrow = Codes.from_dense(torch.tensor([[0.0, 0, 0, 0, 0, 9]]), 1)
    joined = Codes.concatenate([narrow, codes[:2], codes[2:]]).check()
    assert joined.k == 3
    assert joined.dense().tolist() == [[0, 0, 0, 0, 0, 9], *DENSE]


def test_concatenate_refuses_what_does_not_belong_together() -> None:
    with pytest.raises(DataError, match=r"^codes to concatenate differ in n_features: 6, 7$"):
        Codes.concatenate([example(), Codes(example().indices, example().values, 7)])
    with pytest.raises(DataError, match=r"^no codes to concatenate\. Pass at least one part\.$"):
        Codes.concatenate([])


def test_to_changes_the_values_alone() -> None:
    half = example().to("cpu", dtype=torch.bfloat16)
    assert (half.values.dtype, half.indices.dtype) == (torch.bfloat16, torch.int32)
    assert half.dense().tolist() == DENSE
    assert half.csc().values.dtype == np.float32
    assert half.csc().values.tolist() == [1, 3, 6, -1, 2, 5, 0.5, 4]


def test_no_rows_and_no_slots() -> None:
    for n, k in ((0, 3), (3, 0), (0, 0)):
        codes = Codes(torch.zeros(n, k, dtype=torch.int32), torch.zeros(n, k), 5).check()
        assert codes.frequency().tolist() == [0.0] * 5
        assert codes.dense().tolist() == [[0.0] * 5] * n
        assert codes.csc().indptr.tolist() == [0] * 6
        assert codes.l0().tolist() == [0] * n


def test_memory_does_not_grow_with_rows_times_features() -> None:
    features = 2**31 - 1  # a dense row alone would take 8 GB
    codes = Codes(torch.tensor([[features - 1, 7]] * 1000, dtype=torch.int32), torch.ones(1000, 2), features)
    assert len(codes.rows_of(features - 1)[0]) == 1000
    assert codes.check()[5:7].l0().tolist() == [2, 2]
    wide = Codes(torch.full((200_000, 1), 99_999, dtype=torch.int32), torch.ones(200_000, 1), 100_000)
    assert wide.counts()[-1] == wide.csc().counts()[-1] == 200_000  # dense: 80 GB


INT, FLOAT = torch.zeros(2, 3, dtype=torch.int32), torch.ones(2, 3)


@pytest.mark.parametrize(
    ("indices", "values", "n_features", "says"),
    [
        (INT.numpy(), FLOAT, 4, "the indices of codes are a ndarray. Pass a torch tensor."),
        (INT, [[1.0]], 4, "the values of codes are a list. Pass a torch tensor."),
        (INT, FLOAT[:1], 4, "indices (2, 3) and values (1, 3) of codes must have one shape [rows, k]"),
        (INT[0], FLOAT[0], 4, "indices (3,) and values (3,) of codes must have one shape [rows, k]"),
        (INT.long(), FLOAT, 4, "the indices of codes are torch.int64. Pass torch.int32."),
        (INT, INT, 4, "the values of codes are torch.int32. Pass floating point."),
        (INT, FLOAT.to("meta"), 4, "the indices and values of codes lie on cpu and meta. Move one of them."),
        (INT, FLOAT, 2, "codes of 3 slots a row cannot have 2 features"),
        (INT, FLOAT, 2**31, "codes of 3 slots a row cannot have 2147483648 features"),
    ],
)
def test_what_is_no_code_is_refused(indices: object, values: object, n_features: int, says: str) -> None:
    with pytest.raises(DataError) as caught:
        Codes(indices, values, n_features)
    assert str(caught.value) == says


@pytest.mark.parametrize(
    ("row", "values", "says"),
    [
        ([4, 1, 4], [1.0, 1.0, 2.0], "row 1 of codes names feature 4 twice"),
        ([0, 6, 1], [1.0, 1.0, 1.0], "row 1 of codes names feature 6 of 6"),
        ([0, -1, 1], [1.0, 0.0, 1.0], "row 1 of codes names feature -1 of 6"),
        ([0, 1, 2], [1.0, float("nan"), 1.0], "row 1 of codes holds NaN or infinity"),
        ([0, 1, 2], [1.0, float("-inf"), 1.0], "row 1 of codes holds NaN or infinity"),
    ],
)
def test_check_names_the_row(row: list[int], values: list[float], says: str) -> None:
    good = ([0, 1, 2], [1.0, 1.0, 1.0])
    indices = torch.tensor([good[0], row], dtype=torch.int32)
    codes = Codes(indices, torch.tensor([good[1], values]), 6)
    with pytest.raises(DataError) as caught:
        codes.check()
    assert str(caught.value) == says


def test_an_index_out_of_range_never_reaches_compiled_code() -> None:
    codes = Codes(torch.tensor([[900]], dtype=torch.int32), torch.ones(1, 1), 5)
    for method in (codes.dense, codes.csc, codes.counts, codes.frequency):
        with pytest.raises(DataError, match=r"^row 0 of codes names feature 900 of 5$"):
            method()


def test_an_empty_slot_may_repeat_an_index() -> None:
    codes = Codes(torch.tensor([[2, 2, 2]], dtype=torch.int32), torch.tensor([[0.0, 5.0, 0.0]]), 6)
    assert codes.check().dense().tolist() == [[0, 0, 5, 0, 0, 0]]


@pytest.mark.parametrize("feature", [-1, 6])
def test_a_feature_that_is_not_there_is_refused(feature: int) -> None:
    says = rf"^there is no feature {feature} in 6 features$"
    with pytest.raises(DataError, match=says):
        example().rows_of(feature)
    with pytest.raises(DataError, match=says):
        example().csc().of(feature)


def test_from_dense_refuses_what_it_cannot_rank() -> None:
    x = torch.tensor([[1.0, 2.0, 3.0]])
    with pytest.raises(DataError, match=r"^k=4 of 3 features\. Choose 0 to 3\.$"):
        Codes.from_dense(x, 4)
    with pytest.raises(ConfigError, match=r"^by='size'\. Choose 'positive' or 'magnitude'\.$"):
        Codes.from_dense(x, 1, by="size")
    with pytest.raises(DataError, match=r"^codes are made from floating point \[rows, features\], not torch\.int64"):
        Codes.from_dense(x.long(), 1)
    for bad in (float("nan"), float("inf")):
        with pytest.raises(DataError, match=r"^NaN or infinity in what codes are made from$"):
            Codes.from_dense(torch.tensor([[1.0, bad, 3.0]]), 1)
    with pytest.raises(DataError, match=r"^NaN or infinity"):
        Codes.from_dense(torch.tensor([[1.0, float("-inf")]]), 1, by="magnitude")
    assert Codes.from_dense(torch.tensor([[1.0, float("-inf")]]), 2).dense().tolist() == [[1, 0]]


@pytest.mark.parametrize("module", ["codes", "accumulate", "genes"])
def test_importing_loads_nothing_heavy(module: str) -> None:
    script = (
        f"import sys, elute.base.{module};print(*sorted({{'torch', 'polars', 'scipy'}} & set(sys.modules)), 'done')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["done"]
