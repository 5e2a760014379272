from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from scipy import stats

from elute.analysis.donors import read_levels
from elute.analysis.groups import NO_DONORS, GroupConfig, GroupTests, feature_groups
from elute.analysis.pooled import Pooled, csc, in_blocks
from elute.base.errors import ConfigError, DataError
from elute.base.statistics.corrections import benjamini_hochberg
from elute.base.statistics.ranks import rank_sum

RNG = np.random.default_rng(11)
C, F = 240, 12
TYPES = np.array(["B", "T", "NK"])[RNG.choice(3, C, p=(0.3, 0.5, 0.2))]
SPLIT = np.where(RNG.random(C) < 0.6, "train", "test")
X = RNG.gamma(1.0, size=(C, F)) * (RNG.random((C, F)) < 0.4)
X[TYPES == "B", 0] += 2.0
X[:, 1] *= TYPES != "T"
X[:, 2] = 0
HIGHS = X * RNG.integers(1, 4, (C, F))


def frame(**columns):
    known = {"cell": [f"c{i}" for i in range(C)], "split": SPLIT, "label": TYPES} | columns
    return pl.DataFrame(known)


def blocks(x=X, highs=HIGHS, width=5):
    for first in range(0, x.shape[1], width):
        part = slice(first, min(first + width, x.shape[1]))
        yield Pooled(part.start, part.stop, csc(x[:, part], "x"), csc(highs[:, part], "x"), csc(x[:, part], "x"))


def scores(table, name, level, column="label"):
    return table.filter((pl.col("level") == level) & (pl.col("column") == column)).sort("feature")[name].to_numpy()


def test_the_numbers_are_those_of_scipy():
    found = feature_groups(blocks(), frame(), GroupConfig(top_k_cells=20)).table
    assert found.height == F * 3
    train = SPLIT == "train"
    for level in ("B", "T", "NK"):
        for side, end in ((train, ""), (~train, "_shown")):
            a, b = X[side & (level == TYPES)], X[side & (level != TYPES)]
            pairs = (a[:, None] > b[None]) + 0.5 * (a[:, None] == b[None])
            np.testing.assert_allclose(scores(found, "auroc" + end, level), pairs.mean((0, 1)))
            with np.errstate(invalid="ignore"):
                fold = a.mean(0) / X[side].mean(0)
            np.testing.assert_allclose(scores(found, "fold" + end, level), fold)
            ours = scores(found, "p" + end, level)
            np.testing.assert_allclose(ours, rank_sum(X[side], TYPES[side] == level).p, rtol=1e-9)
            fires = np.arange(F) != 2
            theirs = stats.mannwhitneyu(a[:, fires], b[:, fires], method="asymptotic").pvalue
            assert ours[2] == 1
            assert np.abs(np.log(ours[fires] / theirs))[theirs > 1e-3].max() < 0.3  # he takes no account of the zeros
        assert set(scores(found, "inside", level)) == {(train & (level == TYPES)).sum()}
    assert scores(found, "fold", "B")[0] > 2
    assert set(found["donors"]) == {None}


def test_top_cells_are_held_against_the_share_of_choosing_cells():
    found = feature_groups(blocks(), frame(), GroupConfig(top_k_cells=20)).table
    train = np.flatnonzero(SPLIT == "train")
    for level in ("B", "T", "NK"):
        mine = level == TYPES
        for f in range(F):
            top = [c for c in sorted(train, key=lambda c: (-HIGHS[c, f], c)) if HIGHS[c, f] > 0][:20]
            hits, size = int(mine[top].sum()), int(mine[train].sum())
            row = found.filter((pl.col("feature") == f) & (pl.col("level") == level)).row(0, named=True)
            assert row["top_in"] == hits
            table = [[hits, len(top) - hits], [size - hits, len(train) - size - len(top) + hits]]
            assert row["p_fisher"] == pytest.approx(stats.fisher_exact(table, alternative="greater").pvalue)


def test_all_features_and_levels_are_one_family():
    found = feature_groups(blocks(), frame()).table
    for p, q in (("p", "q"), ("p_fisher", "q_fisher"), ("p_shown", "q_shown")):
        np.testing.assert_allclose(found[q], benjamini_hochberg(found[p].to_numpy()))
        assert found.filter(pl.col("feature") == 2)[p].to_list() == [1, 1, 1]


def test_blocks_of_any_width_give_the_same():
    one, many = (feature_groups(blocks(width=w), frame(donor=donors())) for w in (F, 1))
    for name in ("table", "best", "dots"):
        a, b = getattr(one, name), getattr(many, name)
        assert a.columns == b.columns
        for column in a.columns:
            if a[column].dtype == pl.Float64:
                np.testing.assert_allclose(a[column], b[column], rtol=1e-12)
            else:
                assert a[column].equals(b[column])
    assert one.notes == many.notes


def donors():
    return np.array(["d1", "d2", "d3", "d4"])[np.arange(C) % 4]


def test_the_best_level_is_that_of_the_highest_auroc_on_choosing_cells():
    found = feature_groups(blocks(), frame())
    table = found.table.sort("auroc", descending=True).unique("feature", keep="first", maintain_order=True)
    wanted = table.filter(pl.col("auroc") > 0.5).sort("feature")
    assert found.best["level"].to_list() == wanted["level"].to_list()
    assert found.best["feature"].to_list() == [f for f in range(F) if f != 2]
    for name in ("auroc", "auroc_shown", "fold", "q", "q_shown"):
        assert found.best[name].to_list() == wanted[name].to_list()
    assert found.best["level"][0] == "B"
    assert found.counts[0]["features"] >= found.counts[0]["features_shown"] >= 1


def test_cells_without_a_value_stand_on_no_side():
    types = TYPES.astype(object).copy()
    types[:40] = None
    types[40:50] = ""
    found = feature_groups(blocks(), frame(label=[None if t is None else str(t) for t in types]))
    kept = np.arange(C) >= 50
    lone = feature_groups(blocks(X[kept], HIGHS[kept]), frame().filter(kept))
    assert found.table.drop("top_in", "p_fisher", "q_fisher").equals(lone.table.drop("top_in", "p_fisher", "q_fisher"))
    assert "label: 50 of 240 cells have no value and are left out" in found.notes


def test_without_a_split_nothing_is_shown():
    found = feature_groups(blocks(), frame().drop("split"))
    assert found.table["auroc_shown"].null_count() == found.table.height == found.table["q_shown"].null_count()
    assert found.table["auroc"].null_count() == 0
    assert found.counts[0]["features_shown"] is None
    assert found.table["inside"].to_list()[:3] == [(x == TYPES).sum() for x in ("B", "NK", "T")]
    assert found.notes == (NO_DONORS,)


def rare():
    types, split = np.full(C, "T", dtype=object), np.where(np.arange(C) % 2, "train", "test")
    types[:30] = "B"
    types[30:46] = "NK"
    types[46:60] = "pDC"
    split[30:40], split[46:58] = "train", "test"
    return frame(label=types, split=split)


def test_small_levels_are_named_and_not_claimed():
    cells = rare()
    found = feature_groups(blocks(), cells)
    sizes = {
        s: {x: cells.filter((pl.col("label") == x) & (pl.col("split") == s)).height for x in ("NK", "pDC")}
        for s in ("train", "test")
    }
    assert found.notes[:2] == (
        f"label: only {sizes['train']['pDC']} pDC cells are there to choose on: no claim about that",
        f"label: only {sizes['test']['NK']} NK cells are held out: no claim about that",
    )
    by = {name: found.table.filter(pl.col("level") == name) for name in ("NK", "pDC", "B")}
    for name in ("auroc", "fold", "p", "q", "p_fisher", "q_fisher", "auroc_shown", "p_shown", "q_shown"):
        shown = name.endswith("_shown")
        assert by["pDC"][name].null_count() == F
        silent = int("fold" in name)
        assert by["NK"][name].null_count() == (F if shown else silent)
        assert by["B"][name].null_count() == silent
    assert "pDC" not in found.best["level"]
    np.testing.assert_allclose(  # levels without a test are no part of the family
        found.table["q"].drop_nulls(), benjamini_hochberg(found.table["p"].drop_nulls().to_numpy())
    )


def test_levels_that_leave_few_others_are_named_too():
    types = np.where(np.arange(C) < C - 12, "T", np.where(np.arange(C) % 2, "B", "NK"))
    found = feature_groups(blocks(), frame(label=types).drop("split"))
    assert found.notes[0] == "label: only 6 B and 6 NK cells are there to choose on: no claim about those"
    types = np.where(np.arange(C) < C - 4, "T", "B")
    notes = feature_groups(blocks(), frame(label=types).drop("split")).notes
    assert notes[0] == "label: only 4 B and 4 not T cells are there to choose on: no claim about those"


def test_nothing_is_found_where_there_is_nothing():
    x = RNG.gamma(1.0, size=(400, 300)) * (RNG.random((400, 300)) < RNG.random(300))
    cells = pl.DataFrame(
        {"label": np.array(["a", "b", "c"])[RNG.integers(0, 3, 400)], "split": ["train", "test"] * 200}
    )
    found = feature_groups(in_blocks(x), cells)
    assert (found.table["q"] <= 0.05).sum() <= 1
    assert (found.table["q_fisher"] <= 0.05).sum() <= 1
    assert 0.03 < (found.table["p"] <= 0.05).mean() < 0.07
    assert found.counts[0]["features_shown"] == 0


def test_a_planted_type_is_found_on_cells_that_did_not_choose():
    found = feature_groups(blocks(), frame())
    best = found.best.row(0, named=True)
    assert best["level"] == "B"
    assert best["auroc_shown"] > 0.9
    assert best["q_shown"] < 1e-6
    silent = found.table.filter((pl.col("feature") == 1) & (pl.col("level") == "T")).row(0, named=True)
    assert silent["auroc"] < 0.5
    assert silent["q"] < 1e-6
    assert silent["fold"] == 0


def test_several_columns_are_families_of_their_own():
    cells = frame(**{"obs:stage": np.where(np.arange(C) % 3, "late", "early"), "batch": np.arange(C) % 2})
    config = GroupConfig(columns=("label", "stage", "batch", "stage"))
    found = feature_groups(blocks(), cells, config)
    assert found.table["column"].unique(maintain_order=True).to_list() == ["label", "stage", "batch"]
    alone = feature_groups(blocks(), cells, GroupConfig(columns=("stage",)))
    assert found.table.filter(pl.col("column") == "stage").equals(alone.table)
    assert (
        scores(found.table, "inside", "0", "batch").tolist()
        == [((np.arange(C) % 2 == 0) & (SPLIT == "train")).sum()] * F
    )


def test_donors_stand_beside_and_their_dots_are_of_the_best_level():
    found = feature_groups(blocks(), frame(donor=donors()))
    row = found.table.filter((pl.col("feature") == 0) & (pl.col("level") == "B")).row(0, named=True)
    who = [donors() == d for d in ("d1", "d2", "d3", "d4")]
    inside, outside = ([X[w & ((TYPES == "B") == side), 0].mean() for w in who] for side in (True, False))
    test = stats.ttest_1samp(np.subtract(inside, outside), 0)
    assert row["donors"] == 4
    assert row["effect"] == pytest.approx(np.subtract(inside, outside).mean())
    assert row["p_donors"] == pytest.approx(test.pvalue)
    assert (row["effect_low"], row["effect_high"]) == pytest.approx(tuple(test.confidence_interval()))
    np.testing.assert_allclose(found.table["q_donors"], benjamini_hochberg(found.table["p_donors"].to_numpy()))
    dots = found.dots.filter(pl.col("feature") == 0)
    assert dots["level"].to_list() == ["B"] * 4
    assert dots["donor"].to_list() == ["d1", "d2", "d3", "d4"]
    np.testing.assert_allclose(dots["mean_inside"], inside)
    np.testing.assert_allclose(dots["mean_outside"], outside)
    assert dots["cells_inside"].to_list() == [int((w & (TYPES == "B")).sum()) for w in who]
    assert dots["cells_outside"].to_list() == [int((w & (TYPES != "B")).sum()) for w in who]
    assert found.dots.height == found.best.height * 4
    assert found.notes == ()
    best = found.best.row(0, named=True)
    assert (best["donors"], best["q_donors"]) == (4, row["q_donors"])


def test_one_donor_claims_nothing():
    found = feature_groups(blocks(), frame(donor=["d"] * C))
    assert found.table["q_donors"].null_count() == found.table.height
    assert found.notes == (
        "label: fewer than 2 donors have 3 cells on both sides of any level: nothing is claimed across donors",
    )


def test_no_column_at_all_is_no_error():
    for cells in (frame().drop("label"), frame(label=pl.Series([None] * C, dtype=pl.String))):
        found = feature_groups(blocks(), cells)
        assert found.table.height == found.best.height == found.dots.height == 0
        assert found.table.schema == feature_groups(blocks(), frame()).table.schema
        assert found.best.schema == feature_groups(blocks(), frame()).best.schema
        assert found.dots.schema == feature_groups(blocks(), frame()).dots.schema
        assert found.counts == ()


BAD = {
    "there is no column 'cell_typ' of the cells. Did you mean 'cell_type'": ("cell_typ", {"obs:cell_type": TYPES}),
    "column 'label' of the cells: has one level only, 'T', so there is nothing to": ("label", {"label": ["T"] * C}),
    "column 'label' of the cells: has one cell of level 'B'. Merge": ("label", {"label": ["B"] + ["T"] * (C - 1)}),
    "column 'label' of the cells: has one cell of level 'A' and of 1 more. Merge": (
        "label",
        {"label": ["A", "B"] + ["T"] * (C - 2)},
    ),
    "column 'x' of the cells: has a value for no cell": ("x", {"obs:x": pl.Series([None] * C, dtype=pl.String)}),
    "column 'y' of the cells: has a value for no cell": ("y", {"obs:y": [float("nan")] * C}),
    "column 'id' of the cells: has 240 levels. Numbers or names": ("id", {"obs:id": np.arange(C)}),
    "column 'age' of the cells: holds numbers and no levels. Correlate": ("age", {"obs:age": np.arange(C) / 7}),
}


@pytest.mark.parametrize("message", BAD)
def test_what_cannot_be_compared_is_told_in_one_line(message):
    column, columns = BAD[message]
    with pytest.raises((ConfigError, DataError)) as caught:
        GroupTests(frame(**columns), GroupConfig(columns=(column,)))
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_level_of_one_cell_can_be_let_be():
    cells = frame(label=["B"] + ["T"] * 100 + ["NK"] * (C - 101))
    found = feature_groups(blocks(), cells.drop("split"), GroupConfig(one_cell="note"))
    assert found.notes[0] == "label: only 1 B cells are there to choose on: no claim about that"


def test_numbers_that_are_whole_are_levels_in_their_order():
    levels = read_levels(pl.DataFrame({"obs:cluster": [10.0, 2.0, None, 2.0, 10.0, float("nan")]}), "cluster")
    assert levels.names == ("2", "10")
    assert levels.codes.tolist() == [1, 0, -1, 0, 1, -1]
    assert levels.missing == 2


def test_truths_and_categories_are_levels():
    assert read_levels(pl.DataFrame({"obs:x": [True, False, None, True, False]}), "x").names == ("false", "true")
    kinds = pl.Series(["b", "a", "b", "a"], dtype=pl.Categorical)
    assert read_levels(pl.DataFrame({"obs:x": kinds}), "x").codes.tolist() == [1, 0, 1, 0]


def test_blocks_must_come_in_order():
    tests = GroupTests(frame())
    first, second = list(blocks(width=6))
    with pytest.raises(DataError, match="features from 6 on where 0 comes next"):
        tests.take(second)
    tests.take(first)
    tests.take(second)
    assert tests.result().table.height == 3 * F
    with pytest.raises(DataError, match="no feature was given"):
        GroupTests(frame()).result()
