from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy import stats

from elute.analysis.numbers import NumberTests, feature_numbers, number_columns
from elute.analysis.pooled import in_blocks
from elute.base.errors import ConfigError, DataError
from elute.base.statistics.corrections import benjamini_hochberg
from elute.base.statistics.correlation import spearman

RNG = np.random.default_rng(41)
C, F = 220, 14
X = RNG.integers(0, 9, (C, F)) * (RNG.random((C, F)) < 0.4) * 1.0
X[:, 1] = 0
X[:, 2] = RNG.normal(size=C)
X[:, 3] = np.where(RNG.random(C) < 0.5, RNG.normal(size=C).round(1), 0)
X[:, 4] = 3.0
TOTAL = RNG.integers(500, 2000, C).astype(float)
X[:, 0] = TOTAL * (RNG.random(C) < 0.9)
SPLIT = np.where(np.arange(C) % 3, "train", "test")
AGE = [None if i % 11 == 0 else float(i % 17) for i in range(C)]


def frame(**columns):
    known = {"cell": [f"c{i}" for i in range(C)], "split": SPLIT, "label": ["T"] * C, "total": TOTAL}
    return pl.DataFrame(known | {"genes": RNG.integers(1, 99, C), "obs:age": AGE} | columns)


CELLS = frame()


def column(table, name, key):
    return table.filter(pl.col("column") == name).sort("feature")[key].to_numpy()


@pytest.mark.filterwarnings("ignore:An input array is constant")
def test_the_numbers_are_those_of_scipy():
    found = feature_numbers(in_blocks(X, width=4), CELLS).table
    assert found["column"].unique(maintain_order=True).to_list() == ["total", "genes", "age"]
    assert found.height == F * 3
    for name, numbers in (("total", TOTAL), ("genes", CELLS["genes"].to_numpy()), ("age", CELLS["obs:age"].to_numpy())):
        for split, rho in (("train", "rho"), ("test", "rho_shown")):
            taking = (split == SPLIT) & np.isfinite(numbers)
            wanted = [stats.spearmanr(X[taking, j], numbers[taking]) for j in range(F)]
            flat = [1, 4]
            ours = column(found, name, rho)
            np.testing.assert_allclose(np.delete(ours, flat), np.delete([w[0] for w in wanted], flat), atol=1e-12)
            assert ours[flat].tolist() == [0, 0]
            if split == "train":
                p = column(found, name, "p")
                np.testing.assert_allclose(np.delete(p, flat), np.delete([w[1] for w in wanted], flat), rtol=1e-8)
                assert p[flat].tolist() == [1, 1]
                np.testing.assert_allclose(p, spearman(X[taking], numbers[taking]).p, rtol=1e-9)
    np.testing.assert_allclose(found["q"], benjamini_hochberg(found["p"].to_numpy()))
    assert column(found, "total", "rho")[0] > 0.6


def test_perfect_order_and_few_cells():
    y = np.arange(6.0)
    x = np.stack([y, -y, y**2, [0, 0, 0, 0, 0, 1.0]], axis=1)
    few = feature_numbers(in_blocks(x), pl.DataFrame({"obs:y": y}), least=3)
    np.testing.assert_allclose(few.table["p"], spearman(x, y).p)
    np.testing.assert_allclose(few.table["rho"], spearman(x, y).rho)
    many = np.arange(30.0)
    found = feature_numbers(in_blocks(np.stack([many, -many], axis=1)), pl.DataFrame({"obs:y": many})).table
    np.testing.assert_allclose(found["rho"], [1, -1])
    assert (found["p"] > 0).all()


def test_blocks_of_any_width_give_the_same():
    assert feature_numbers(in_blocks(X, width=1), CELLS).table.equals(feature_numbers(in_blocks(X), CELLS).table)


def test_nothing_is_found_where_there_is_nothing():
    x = RNG.gamma(1.0, size=(300, 500)) * (RNG.random((300, 500)) < RNG.random(500))
    found = feature_numbers(in_blocks(x), pl.DataFrame({"obs:y": RNG.normal(size=300)})).table
    assert (found["q"] <= 0.05).sum() == 0
    assert 0.03 < (found["p"] <= 0.05).mean() < 0.07


def test_columns_that_say_nothing_are_told():
    cells = frame(**{"obs:same": [2.0] * C, "obs:few": [1.0, 2.0, 3.0] + [None] * (C - 3), "obs:late": [0.5] * C})
    late = np.where(SPLIT == "train", np.arange(C), 7.0)
    found = feature_numbers(in_blocks(X), cells.with_columns(pl.Series("obs:late", late)))
    assert found.notes == (
        "same: all cells to choose on have the number 2: no claim",
        "few: 2 cells with a number to choose on are too few: no claim",
        "same: all cells held out have the number 2: no claim",
        "few: 1 cells with a number held out are too few: no claim",
        "late: all cells held out have the number 7: no claim",
    )
    for name in ("same", "few"):
        assert np.isnan(column(found.table, name, "rho")).all()
    assert np.isnan(column(found.table, "late", "rho_shown")).all()
    assert np.isfinite(column(found.table, "late", "rho")).all()
    np.testing.assert_allclose(
        found.table["q"].drop_nulls(), benjamini_hochberg(found.table["p"].drop_nulls().to_numpy())
    )


def test_without_a_split_nothing_is_shown():
    found = feature_numbers(in_blocks(X), CELLS.drop("split")).table
    assert found["rho_shown"].null_count() == found.height
    assert found["rho"].null_count() == 0


def test_columns_are_numbers_of_the_cells():
    cells = frame(**{"obs:stage": ["a"] * C, "obs:n": np.arange(C)})
    assert number_columns(cells) == ["total", "genes", "age", "n"]
    found = feature_numbers(in_blocks(X), cells, ["n", "n", "age"])
    assert found.columns == ("n", "age")
    assert found.rho("age").shape == (F,)
    with pytest.raises(ConfigError, match="no feature was held against 'agee'. Did you mean 'age'"):
        found.rho("agee")
    with pytest.raises(DataError, match="column 'stage' of the cells: holds String and no numbers. Compare its levels"):
        NumberTests(cells, ["stage"])
    with pytest.raises(ConfigError, match="there is no column 'ages' of the cells. Did you mean 'age'"):
        NumberTests(cells, ["ages"])
    assert feature_numbers(in_blocks(X), pl.DataFrame({"cell": ["a"] * C})).table.height == 0


def test_blocks_must_come_in_order():
    with pytest.raises(DataError, match="features from 4 on where 0 comes next"):
        NumberTests(CELLS).take(list(in_blocks(X, width=4))[1])
