from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
from scipy import sparse, stats

from elute.analysis.donors import Donors, donor_design, donor_effects, donors_of, too_few
from elute.analysis.groups import GroupConfig, feature_groups
from elute.analysis.pooled import csc, in_blocks
from elute.base.errors import DataError
from elute.base.statistics.corrections import benjamini_hochberg
from elute.base.statistics.effects import group_differences, paired_effects
from elute.base.statistics.nulls import permuted_labels

RNG = np.random.default_rng(31)
C, F = 400, 9
WHO = RNG.integers(0, 6, C)
LEVEL = RNG.integers(0, 3, C)
X = RNG.gamma(1.0, size=(C, F)) * (RNG.random((C, F)) < 0.5) + WHO[:, None]
X[LEVEL == 1, 0] += 2
X[:, 1] = 0


def donors(codes=WHO):
    return Donors(tuple(f"d{i}" for i in range(codes.max() + 1)), codes)


def test_effects_within_donors_are_those_of_scipy():
    design = donor_design(LEVEL, 3, donors())
    found = donor_effects(csc(X, "x"), design)
    assert design.how == "within"
    assert found.donors.tolist() == [6, 6, 6]
    for level in range(3):
        each = [X[(d == WHO) & (level == LEVEL)].mean(0) - X[(d == WHO) & (level != LEVEL)].mean(0) for d in range(6)]
        differences = np.delete(np.array(each), 1, axis=1)
        test = stats.ttest_1samp(differences, 0)
        fires = np.arange(F) != 1
        np.testing.assert_allclose(found.effect[level, fires], differences.mean(0), rtol=1e-9)
        np.testing.assert_allclose(found.p[level, fires], test.pvalue, rtol=1e-9)
        interval = test.confidence_interval()
        np.testing.assert_allclose(found.low[level, fires], interval.low, rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(found.high[level, fires], interval.high, rtol=1e-9, atol=1e-12)
    assert found.p[:, 1].tolist() == [1, 1, 1]
    assert found.effect[1, 0] == pytest.approx(2, abs=0.5)
    assert found.p[1, 0] < 1e-3


def test_all_levels_at_once_are_what_one_mask_at_a_time_gives():
    who = np.where(RNG.random(C) < 0.1, -1, WHO)
    level = np.where(RNG.random(C) < 0.1, -1, LEVEL)
    level[(who == 2) & (level == 0)] = 1  # a donor without cells of one level
    kept = (who >= 0) & (level >= 0)
    design = donor_design(level, 3, donors(who), least=12)
    found = donor_effects(csc(X, "x"), design)
    for i in range(3):
        wanted = group_differences(sparse.csc_array(X[kept]), level[kept] == i, who[kept], min_rows=12)
        test = paired_effects(wanted.values)
        assert found.donors[i] == len(wanted.groups) == design.counts[:, i].sum()
        for name, values in (("effect", test.mean), ("low", test.low), ("high", test.high), ("p", test.p)):
            np.testing.assert_allclose(getattr(found, name)[i], values, rtol=1e-8, atol=1e-12)
        rows = np.array(wanted.groups, dtype=int)
        np.testing.assert_allclose((found.inside - found.outside)[rows, i], wanted.values, atol=1e-9)
    assert not design.counts[2, 0]
    assert np.isnan(found.inside[2, 0]).all()


def test_donors_of_one_level_each_are_compared_by_welch():
    sick = np.array([0, 1, 0, 1, 1, 0])[WHO]
    x = RNG.normal(size=(C, F)) * 0.3 + RNG.normal(size=6)[WHO][:, None]
    design = donor_design(sick, 2, donors())
    found = donor_effects(csc(x, "x"), design)
    means = np.array([x[d == WHO].mean(0) for d in range(6)])
    test = stats.ttest_ind(means[[1, 3, 4]], means[[0, 2, 5]], equal_var=False)
    assert design.how == "between"
    assert found.donors.tolist() == [6, 6]
    np.testing.assert_allclose(found.p[1], test.pvalue, rtol=1e-9)
    np.testing.assert_allclose(found.p[0], test.pvalue, rtol=1e-9)
    interval = test.confidence_interval()
    np.testing.assert_allclose(found.low[1], interval.low, rtol=1e-9)
    np.testing.assert_allclose(found.high[1], interval.high, rtol=1e-9)
    np.testing.assert_allclose(found.effect[1], -found.effect[0])
    np.testing.assert_allclose(found.inside[1, 1], means[1])
    assert np.isnan(found.inside[0, 1]).all()


def test_a_level_of_one_donor_claims_nothing():
    stage = np.array([0, 0, 0, 1, 1, 2])[WHO]
    found = donor_effects(csc(X, "x"), donor_design(stage, 3, donors()))
    assert found.donors.tolist() == [6, 6, 0]
    assert np.isnan(found.p[2]).all()
    alone = donor_design(np.minimum(WHO, 1), 2, donors(np.minimum(WHO, 1)))
    assert alone.how is None
    assert alone.why_not == "each donor has one level, and no level has 2 donors of 3 cells on both sides"
    assert np.isnan(donor_effects(csc(X, "x"), alone).p).all()


def test_donors_with_few_cells_stay_out():
    who = WHO.copy()
    who[:] = np.where(np.arange(C) < 4, 6, WHO)  # a seventh donor of four cells
    level = LEVEL.copy()
    level[:4] = [0, 0, 0, 1]
    assert donor_design(level, 3, donors(who), least=3).counts[6].tolist() == [False, False, False]
    assert donor_design(level, 3, donors(who), least=1).counts[6].tolist() == [True, True, False]
    assert donor_design(np.zeros(C, int) + (who > 2), 2, donors(who), least=5).counts[6].tolist() == [False, False]


def test_cells_that_are_all_alike_are_one_observation_a_donor():
    """Without an effect across donors, many cells must not make one: a donor's own shift is no effect of the level."""
    rates, n = [], 5
    for seed in range(3):
        rng = np.random.default_rng(seed)
        who, level = np.repeat(np.arange(n), 60), np.tile(np.arange(2), n * 30)
        shift = rng.normal(size=(n, 200))
        x = rng.normal(size=(n * 60, 200)) * 0.1 + np.where(level[:, None] == 1, shift[who], 0)
        found = donor_effects(csc(x, "x"), donor_design(level, 2, donors(who)))
        rates.append((found.p[1] <= 0.05).mean())
        naive = stats.ttest_ind(x[level == 1], x[level == 0]).pvalue
        assert (naive <= 0.05).mean() > 0.5
    assert 0.03 < np.mean(rates) < 0.08


def test_who_is_a_donor():
    assert donors_of(pl.DataFrame({"cell": ["a"]})) is None
    assert donors_of(pl.DataFrame({"donor": pl.Series([None, None], dtype=pl.String)})) is None
    found = donors_of(pl.DataFrame({"donor": ["p2", None, "p1", "p2"]}))
    assert found.names == ("p1", "p2")
    assert found.codes.tolist() == [1, -1, 0, 1]


def test_words_for_levels_that_are_small():
    sizes = np.array([4, 3, 90])
    names = ("NK", "CD34+", "T")
    assert too_few(names, sizes, which=np.array([True, True, False]), doing="are held out") == [
        "only 4 NK and 3 CD34+ cells are held out: no claim about those"
    ]
    assert too_few(names, sizes, which=np.zeros(3, bool), doing="are held out") == []
    assert too_few(names, sizes, which=np.array([True] * 3), doing="are held out") == [
        "only 4 NK, 3 CD34+ and 7 not T cells are held out: no claim about those"
    ]


def test_cells_and_donors_must_be_as_many():
    with pytest.raises(DataError, match="has 399 entries for 400 rows"):
        donor_design(LEVEL[1:], 3, donors())
    with pytest.raises(DataError, match="has 200 cells, and the donors of more are known"):
        donor_effects(csc(X[:200], "x"), donor_design(LEVEL, 3, donors()))


@pytest.fixture(scope="module")
def patients() -> tuple[pl.DataFrame, np.ndarray]:
    """Log-normalised genes of five patients' cells, with and without a drug: the features of this test."""
    import os

    import anndata

    folder = os.environ.get("ELUTE_TEST_DATA")
    if not folder or not Path(folder).is_dir():
        pytest.skip("no real data here: set ELUTE_TEST_DATA to the folder that holds them")
    data = anndata.read_h5ad(Path(folder) / "cells" / "glioblastoma_panobinostat_5000x300.h5ad")
    counts = data.X.toarray().astype(float)
    x = np.log1p(1e4 * counts / np.maximum(counts.sum(1, keepdims=True), 1))
    return pl.DataFrame({"donor": data.obs["donor_id"].tolist(), "obs:condition": data.obs["condition"].tolist()}), x


CONFIG = GroupConfig(columns=("condition",))


@pytest.mark.real_data
def test_a_drug_changes_genes_in_all_five_patients(patients):
    cells, x = patients
    found = feature_groups(in_blocks(x), cells, CONFIG)
    treated = found.table.filter(pl.col("level") == "panobinostat").sort("feature")
    assert found.table["donors"].unique().to_list() == [5]
    drug, who = cells["obs:condition"].to_numpy() == "panobinostat", cells["donor"].to_numpy()
    each = [x[drug & (who == d)].mean(0) - x[~drug & (who == d)].mean(0) for d in np.unique(who)]
    test = stats.ttest_1samp(np.array(each), 0)
    np.testing.assert_allclose(treated["effect"], np.mean(each, axis=0), atol=1e-9)
    np.testing.assert_allclose(treated["p_donors"], test.pvalue, rtol=1e-6)
    np.testing.assert_allclose(
        found.table["q_donors"], benjamini_hochberg(np.tile(test.pvalue[:, None], (1, 2)).ravel()), rtol=1e-6
    )
    u = stats.mannwhitneyu(x[drug], x[~drug]).statistic
    np.testing.assert_allclose(treated["auroc"], u / (drug.sum() * (~drug).sum()), rtol=1e-9)
    # Of 300 genes more than 200 differ if cells are the unit. Five patients who respond differently bear out two of them, though
    # three times as many as chance gives go the same way in all five.
    assert (treated["q"] <= 0.05).sum() > 200
    assert (treated["q_donors"] <= 0.05).sum() == 2
    assert (np.abs(np.sign(each).sum(0)) == 5).sum() > 3 * 300 / 16
    row = treated.row(int(np.argmin(test.pvalue)), named=True)
    top = np.argsort(-x[:, row["feature"]], kind="stable")[:100]
    hits, n, inside = int(drug[top].sum()), len(drug), int(drug.sum())
    table = [[hits, 100 - hits], [inside - hits, n - inside - 100 + hits]]
    assert (row["top_in"], row["p_fisher"]) == (hits, pytest.approx(stats.fisher_exact(table, "greater").pvalue))


@pytest.mark.real_data
def test_a_drug_permuted_inside_patients_changes_none(patients):
    cells, x = patients
    who, columns = cells["donor"].to_list(), csc(x, "x")
    known = donors_of(cells)
    labels = (cells["obs:condition"].to_numpy() == "panobinostat").astype(np.int64)
    found = [  # genes that pass under each permutation
        int((benjamini_hochberg(donor_effects(columns, donor_design(codes, 2, known)).p) <= 0.05).any(axis=0).sum())
        for codes in permuted_labels(labels, who, n_permutations=20, seed=0)
    ]
    assert sum(n > 0 for n in found) <= 1, found
