"""A sample has the size asked for, every stratum by its share, and the same cells for the same seed."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import polars as pl
from hypothesis import given, settings
from hypothesis import strategies as st

from elute.models.cells.sampling import draw, shares, strata


def test_shares_by_hand() -> None:
    ties = np.arange(3)
    assert shares(np.array([50, 30, 20]), 10, ties).tolist() == [5, 3, 2]
    assert shares(np.array([55, 26, 19]), 10, ties).tolist() == [5, 3, 2]  # 5.5, 2.6, 1.9: the largest remainders
    assert shares(np.array([98, 1, 1]), 10, ties).tolist() == [8, 1, 1]
    assert shares(np.array([98, 1, 1]), 2, ties).tolist() == [2, 0, 0]  # 1.96: no room for one of each
    assert shares(np.array([5, 5, 5]), 4, np.array([2, 0, 1])).tolist() == [1, 2, 1]
    assert shares(np.array([1, 1, 1]), 2, np.array([2, 0, 1])).tolist() == [0, 1, 1]


@settings(max_examples=80, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=12), st.integers(1, 200), st.integers(0, 3))
def test_any_sample(sizes: list[int], size: int, seed: int) -> None:
    stratum = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(sizes)) * 3, sizes))
    drawn = draw(stratum, size, seed)
    assert np.array_equal(drawn, draw(stratum, size, seed))
    assert len(drawn) == min(size, sum(sizes)) == len(set(drawn.tolist()))
    assert (np.diff(drawn) > 0).all()
    if size >= sum(sizes):
        return
    got = [int((stratum[drawn] == 3 * i).sum()) for i in range(len(sizes))]
    due = [Fraction(size * n, sum(sizes)) for n in sizes]
    if size >= len(sizes):
        assert min(got) >= 1
    if size >= len(sizes) and min(due) >= 1:
        assert all(abs(g - d) < 1 for g, d in zip(got, due, strict=True))
    for i, (g, d) in enumerate(zip(got, due, strict=True)):
        assert g <= max(1, -(-d.numerator // d.denominator)), (i, got, due)


def test_cells_of_a_stratum_are_drawn_evenly() -> None:
    times = np.zeros(40)
    for seed in range(400):
        times[draw(np.arange(40) % 2, 10, seed)] += 1
    assert times.sum() == 4000
    assert abs(times - 100).max() < 5 * np.sqrt(400 * 0.25 * 0.75)
    assert times.std() > 3


def test_strata_of_several_columns() -> None:
    columns = [pl.Series(["a", "a", None, None, "a", "b"]), pl.Series([1, 1, 2, 2, None, 1])]
    assert strata(columns).tolist() == [0, 0, 3, 3, 1, 2]
    assert strata([pl.Series(["x", "x"]), pl.Series(["x", "x"])]).tolist() == [0, 0]
