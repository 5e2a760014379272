from __future__ import annotations

from fractions import Fraction
from math import comb, exp, log

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from elute.base.errors import ConfigError, DataError
from elute.base.statistics.exact import fisher_exact, odds_ratio, tables_from_overlap
from elute.base.statistics.hypergeometric import Cells, log_probability

SIDES = ("two-sided", "greater", "less")


def random_tables():
    rng = np.random.default_rng(0)
    genes = np.stack(
        [
            rng.integers(0, 40, 500),
            rng.integers(0, 200, 500),
            rng.integers(0, 500, 500),
            rng.integers(1000, 20000, 500),
        ],
        -1,
    )
    margins = rng.integers(1, 200, 500)
    first, second = rng.integers(0, margins + 1), rng.integers(0, margins + 1)
    tied = np.stack([first, margins - first, second, margins - second], -1)  # equal rows: each table has a twin
    return np.concatenate([rng.integers(0, 30, (800, 4)), rng.integers(0, 400, (200, 4)), genes, tied]).reshape(
        -1, 2, 2
    )


def test_equals_scipy_on_random_tables():
    for side, step in (("two-sided", 1), ("greater", 4), ("less", 4)):
        tables = random_tables()[::step]
        ours = fisher_exact(tables, alternative=side)
        theirs = np.array([stats.fisher_exact(table, alternative=side).pvalue for table in tables])
        np.testing.assert_allclose(ours.p, theirs, rtol=1e-10)
        np.testing.assert_allclose(ours.log_p, np.log(theirs), rtol=1e-10, atol=1e-10)


def by_fractions(table, side):
    """Add up whole-number probabilities, where a tie is a tie."""
    (a, b), (c, d) = table
    rows, column, total = a + b, a + c, a + b + c + d
    weights = {
        x: comb(rows, x) * comb(total - rows, column - x) for x in range(max(0, column - c - d), min(rows, column) + 1)
    }
    chosen = {
        "two-sided": [w for w in weights.values() if w <= weights[a]],
        "greater": [w for x, w in weights.items() if x >= a],
        "less": [w for x, w in weights.items() if x <= a],
    }[side]
    return Fraction(sum(chosen), comb(total, column))


counts = st.integers(0, 40)


@settings(max_examples=30, deadline=None)
@given(st.tuples(st.tuples(counts, counts), st.tuples(counts, counts)), st.sampled_from(SIDES))
def test_equals_whole_number_sums(table, side):
    expected = by_fractions(table, side)
    assert fisher_exact(table, alternative=side).p == pytest.approx(float(expected), rel=1e-12)


@settings(max_examples=20, deadline=None)
@given(st.lists(counts, min_size=4, max_size=4))
def test_turning_the_table_round_changes_nothing(cells):
    table = np.array(cells).reshape(2, 2)
    p = fisher_exact(table).p
    for other in (table.T, table[::-1], table[:, ::-1]):
        assert fisher_exact(other).p == pytest.approx(p, rel=1e-11)
    greater, less = (fisher_exact(t, alternative="greater").p for t in (table, table[::-1]))
    assert less == pytest.approx(fisher_exact(table, alternative="less").p, rel=1e-11)
    # Both tails hold the table itself.
    point = np.exp(log_probability(Cells(*np.array(cells)[:, None])))[0]
    assert greater + less == pytest.approx(1.0 + point, rel=1e-10)


def test_the_tea_of_the_lady():
    assert fisher_exact([[3, 1], [1, 3]], alternative="greater").p == pytest.approx(17 / 70, rel=1e-14)
    assert fisher_exact([[4, 0], [0, 4]]).p == pytest.approx(2 / 70, rel=1e-14)


def test_log_p_keeps_the_order_where_p_is_zero():
    found = fisher_exact([[[900, 100], [100, 900]], [[950, 50], [50, 950]], [[1000, 0], [0, 1000]]])
    assert found.p[1] == found.p[2] == 0.0
    assert found.log_p[0] > found.log_p[1] > found.log_p[2] > -np.inf
    assert found.log_p[2] == pytest.approx(log(2) - log(comb(2000, 1000)), rel=1e-13)


def test_a_shape_is_kept_and_large_tables_are_exact():
    tables = np.array([[3, 1], [1, 3]]) * np.ones((2, 3, 1, 1), dtype=int)
    assert fisher_exact(tables).p.shape == (2, 3)
    large = [[50_000, 950_000], [48_500, 951_500]]
    assert fisher_exact(large).p == pytest.approx(stats.fisher_exact(large).pvalue, rel=1e-8)


def test_empty_margins_say_nothing():
    for table in ([[0, 0], [3, 4]], [[0, 3], [0, 4]], [[0, 0], [0, 0]]):
        for side in SIDES:
            assert fisher_exact(table, alternative=side).p == 1.0
        assert np.isnan(odds_ratio(table).sample)


def test_tables_from_overlaps_broadcast():
    tables = tables_from_overlap([[2], [3]], 10, [4, 5], population=100)
    assert tables.shape == (2, 2, 2, 2)
    assert tables[1, 0].tolist() == [[3, 7], [1, 89]]
    enriched = fisher_exact(tables, alternative="greater").p
    np.testing.assert_allclose(enriched[1, 0], stats.hypergeom.sf(2, 100, 4, 10), rtol=1e-12)


def test_odds_ratio_by_hand():
    found = odds_ratio([[10, 20], [30, 40]])
    assert found.sample == pytest.approx(400 / 600)
    centre = log(10.5 * 40.5 / (20.5 * 30.5))
    spread = 1.959963984540054 * (1 / 10.5 + 1 / 20.5 + 1 / 30.5 + 1 / 40.5) ** 0.5
    assert found.adjusted == pytest.approx(exp(centre))
    assert found.low == pytest.approx(exp(centre - spread))
    assert found.high == pytest.approx(exp(centre + spread))
    empty = odds_ratio([[5, 0], [2, 7]])
    assert empty.sample == np.inf
    assert 1.0 < empty.low < empty.adjusted < empty.high < np.inf


def test_the_interval_covers_and_would_not_if_narrowed():
    rng = np.random.default_rng(5)
    odds = 3.0
    share = odds * 0.25 / (1 + odds * 0.25)
    first, second = rng.binomial(30, share, 4000), rng.binomial(40, 0.2, 4000)
    tables = np.stack([first, 30 - first, second, 40 - second], -1).reshape(-1, 2, 2)

    def coverage(level):
        found = odds_ratio(tables, level=level)
        return np.mean((found.low <= odds) & (odds <= found.high))

    assert 0.94 <= coverage(0.95) <= 0.99
    assert coverage(0.5) < 0.6


def test_an_enriched_list_is_found():
    rng = np.random.default_rng(0)
    shared = rng.binomial(50, 0.3, 100)
    tables = tables_from_overlap(shared, 200, 50, population=5000)  # 2 would be chance
    assert np.all(fisher_exact(tables, alternative="greater").p < 0.01)
    assert np.all(fisher_exact(tables, alternative="less").p > 0.9)


@pytest.mark.parametrize(
    ("kind", "call", "line"),
    [
        (DataError, lambda: fisher_exact([]), "fisher_exact(tables): is empty. Give at least one value."),
        (DataError, lambda: fisher_exact([[1, 2]]), "fisher_exact(tables): has shape (1, 2). Give [..., 2, 2]."),
        (
            DataError,
            lambda: fisher_exact([[1, -2], [3, 4]]),
            "fisher_exact(tables): holds the negative count -2. Counts start at 0.",
        ),
        (
            DataError,
            lambda: fisher_exact([[1, 2.5], [3, 4]]),
            "fisher_exact(tables): holds a count that is not whole. Give counts, not shares.",
        ),
        (
            DataError,
            lambda: fisher_exact([[1, np.nan], [3, 4]]),
            "fisher_exact(tables): 1 of 4 values are NaN or infinite, the first at [0, 1]. Drop or fill those first.",
        ),
        (
            DataError,
            lambda: odds_ratio([[1, 1e10], [3, 4]]),
            "odds_ratio(tables): holds the count 1e+10. Counts go up to 2147483647.",
        ),
        (
            DataError,
            lambda: odds_ratio([[2**30, 2**30], [3, 4]]),
            "odds_ratio(tables): holds a table of 2147483655 items. Totals go up to 2147483647.",
        ),
        (
            ConfigError,
            lambda: fisher_exact([[1, 2], [3, 4]], alternative="two_sided"),
            "fisher_exact(alternative): 'two_sided' is not a choice. Did you mean 'two-sided'?",
        ),
        (
            ConfigError,
            lambda: odds_ratio([[1, 2], [3, 4]], level=95),
            "odds_ratio(level): 95 is not between 0 and 1. Give, say, 0.95.",
        ),
        (
            DataError,
            lambda: tables_from_overlap([1, 6], 5, 8, population=20),
            "tables_from_overlap: 6 shared by a list of 5 and a set of 8 out of 20 do not add up (1 such). Count all three within the same population.",
        ),
        (
            DataError,
            lambda: tables_from_overlap(0, 15, 8, population=20),
            "tables_from_overlap: 0 shared by a list of 15 and a set of 8 out of 20 do not add up (1 such). Count all three within the same population.",
        ),
        (
            DataError,
            lambda: tables_from_overlap([1, 2], [3, 4, 5], 8, population=20),
            "tables_from_overlap: the four shapes do not broadcast. Give one shape.",
        ),
        (
            DataError,
            lambda: tables_from_overlap(1, [], 8, population=20),
            "tables_from_overlap(list_size): is empty. Give at least one value.",
        ),
    ],
)
def test_refusals(kind, call, line):
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value) == line
