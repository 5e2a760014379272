"""Enrichment over rankings: against SciPy, against sums worked out gene by gene, against all subsets, and under chance."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.sparse import csr_array

from elute.base.errors import ConfigError, DataError
from elute.base.statistics.corrections import benjamini_hochberg
from elute.base.statistics.ranks import rank_sum
from elute.validation import ranked
from elute.validation.background import Background
from elute.validation.ranked import rank_sums, running_sums
from elute.validation.terms import Terms

Rng = np.random.Generator
NO_MORE: dict[str, Any] = {"permutations": 50, "most_permutations": 50}


def terms_of(rows: list[list[int]], n_genes: int) -> Terms:
    members = np.zeros((len(rows), n_genes), np.int8)
    for row, genes in zip(members, rows, strict=True):
        row[genes] = 1
    names = tuple(f"T{i}" for i in range(len(rows)))
    background = Background(tuple(f"g{i}" for i in range(n_genes)), f"{n_genes} genes")
    return Terms(
        names, names, (None,) * len(rows), csr_array(members), background, "made up", {}, np.full(len(rows), -1)
    )


def some(rng: Rng, sizes: Any, n_genes: int) -> Terms:
    return terms_of([rng.choice(n_genes, size, replace=False).tolist() for size in sizes], n_genes)


def scores_of(rng: Rng, n_genes: int) -> np.ndarray[Any, Any]:
    """Lists without ties, with some, with many, with genes that have no score, mostly zeros, and with one value."""
    plain = rng.normal(size=(4, n_genes))
    tied = np.round(rng.normal(size=(2, n_genes)), 1)
    gaps = np.where(rng.random((2, n_genes)) < 0.3, np.nan, rng.normal(size=(2, n_genes)))
    coarse = rng.integers(-1, 2, (1, n_genes)).astype(float)
    return np.concatenate([plain, tied, gaps, coarse])


@pytest.mark.parametrize("alternative", ["two-sided", "greater", "less"])
def test_rank_sums_are_scipys(alternative: Any) -> None:
    rng = np.random.default_rng(1)
    terms, scores = some(rng, [5, 9, 20, 60], 150), scores_of(rng, 150)
    table = rank_sums(scores, terms, alternative=alternative).table
    assert len(table) == 4 * len(scores)
    for row in table.iter_rows(named=True):
        inside = terms.members[[row["index"]]].toarray()[0] == 1
        values = scores[row["list"]]
        ranked_ = ~np.isnan(values)
        x, y = values[inside & ranked_], values[~inside & ranked_]
        told = stats.mannwhitneyu(x, y, alternative=alternative, method="asymptotic")
        assert row["p"] == pytest.approx(told.pvalue, rel=1e-9)
        assert row["auc"] == pytest.approx(told.statistic / (len(x) * len(y)))
        assert (row["size"], row["ranked"]) == (len(x), len(x) + len(y))
        assert np.sign(row["z"]) == np.sign(round(row["auc"] - 0.5, 12))


def test_lists_that_are_mostly_zeros_are_those_of_base_statistics() -> None:
    rng = np.random.default_rng(2)
    terms = some(rng, [10, 25, 60], 400)
    scores = np.where(rng.random((30, 400)) < 0.05, rng.gamma(2, size=(30, 400)), 0.0)
    scores[:10, terms.members[[0]].indices[:4]] += 3.0
    table = rank_sums(scores, terms).table
    wanted = rank_sum(scores.T, terms.members.toarray().T == 1).log_p
    suspect = table["p"].to_numpy() < 0.03
    assert suspect.sum() >= 8
    ours = table["log_p"].to_numpy()[suspect]
    at = table["index"].to_numpy()[suspect], table["list"].to_numpy()[suspect]
    np.testing.assert_allclose(ours, wanted[at], rtol=1e-9)
    normal = rank_sum(scores.T, terms.members.toarray().T == 1, method="normal").log_p[at]
    assert np.abs(ours - normal).max() > 1.0


def test_a_list_of_one_value_says_nothing() -> None:
    terms = terms_of([[0, 1, 2], [3, 4]], 6)
    scores = np.full((2, 6), 2.5)
    scores[1, 5] = np.nan
    table = rank_sums(scores, terms).table
    assert table["p"].to_list() == [1.0] * 4
    assert table["auc"].to_list() == [0.5] * 4
    assert table["z"].to_list() == [0.0] * 4
    table = running_sums(scores, terms, seed=1, **NO_MORE).table
    assert table["p"].to_list() == [1.0] * 4
    assert table["es"].to_list() == pytest.approx([0.0] * 4, abs=1e-12)
    assert table["nes"].to_list() == pytest.approx([0.0] * 4)


def test_terms_that_cannot_be_compared_are_counted_and_not_shown() -> None:
    """None of a term's genes is ranked, or all that are ranked are of the term, or nothing is ranked at all."""
    terms = terms_of([[0, 1], [2, 3, 4], [0, 2]], 5)
    scores = np.array([[np.nan, np.nan, 3.0, 2.0, 1.0], [np.nan] * 5])
    for found in (rank_sums(scores, terms), running_sums(scores, terms, seed=0, **NO_MORE)):
        assert found.table.select("list", "index", "size", "ranked").rows() == [(0, 2, 1, 3)]
        assert (found.family.tests, found.family.kept, found.family.without) == (6, 1, 5)
        assert found.table["q"].to_list() == pytest.approx([min(1.0, found.table["p"][0] * 6)])


def worked_out(scores: np.ndarray[Any, Any], inside: np.ndarray[Any, Any], weight: float) -> tuple[float, int]:
    """The running sum gene by gene from the top, looked at where the score changes; and the genes that lead to it."""
    known = ~np.isnan(scores)
    scores, inside = scores[known], inside[known]
    order = np.argsort(-scores, kind="stable")
    scores, inside = scores[order], inside[order]
    steps = np.where(inside, np.abs(scores) ** weight, 0.0)
    total = steps.sum()
    steps = steps / total if total > 0 else inside / inside.sum()
    steps = steps - np.where(inside, 0.0, 1.0 / (~inside).sum())
    ends = np.flatnonzero(np.append(scores[1:] != scores[:-1], True))
    sums = np.concatenate([[0.0], np.cumsum(steps)[ends]])
    hits = np.concatenate([[0], np.cumsum(inside)[ends]])
    if sums.max() >= -sums.min() - 1e-12:
        return sums.max(), int(hits[(sums > sums.max() - 1e-12).argmax()])
    return sums.min(), int(inside.sum() - hits[(sums < sums.min() + 1e-12).argmax()])


@pytest.mark.parametrize("weight", [0.0, 1.0, 1.7])
def test_running_sums_are_those_worked_out_gene_by_gene(weight: float) -> None:
    rng = np.random.default_rng(3)
    terms = some(rng, [1, 3, 8, 8, 30, 79], 80)
    scores = scores_of(rng, 80)
    table = running_sums(scores, terms, seed=4, weight=weight, **NO_MORE).table
    assert len(table) >= 6 * len(scores) - 2
    for row in table.iter_rows(named=True):
        inside = terms.members[[row["index"]]].toarray()[0] == 1
        es, leading = worked_out(scores[row["list"]], inside, weight)
        assert row["es"] == pytest.approx(es, abs=1e-11)
        assert row["leading"] == leading


def test_drawn_p_values_and_means_are_those_of_all_subsets() -> None:
    """Ten genes, all 120 sets of three: what is drawn estimates what can be counted."""
    rng = np.random.default_rng(5)
    scores = np.round(rng.normal(size=(3, 10)), 1)
    terms = terms_of([[0, 1, 2], [4, 6, 9], [3, 5, 8]], 10)
    n = 20_000
    table = running_sums(scores, terms, seed=6, permutations=n, most_permutations=n).table
    for row in table.iter_rows(named=True):
        null = []
        for subset in combinations(range(10), 3):
            inside = np.zeros(10, bool)
            inside[list(subset)] = True
            null.append(worked_out(scores[row["list"]], inside, 1.0)[0])
        drawn = np.array(null)
        sign = drawn >= 0 if row["es"] >= 0 else drawn < 0
        p = (np.abs(drawn[sign]) >= abs(row["es"]) - 1e-9).mean()
        spread = np.sqrt(p * (1 - p) / (n * sign.mean())) + 1 / n
        assert abs(row["p"] - p) < 4.5 * spread
        assert row["nes"] == pytest.approx(row["es"] / np.abs(drawn[sign]).mean(), rel=0.02)


def test_draws_depend_on_the_seed_the_size_and_the_genes_ranked_alone() -> None:
    rng = np.random.default_rng(7)
    terms, scores = some(rng, [4, 7, 12, 12], 60), rng.normal(size=(5, 60))
    whole = running_sums(scores, terms, seed=1, **NO_MORE).table
    assert running_sums(scores, terms, seed=1, **NO_MORE).table.equals(whole)
    assert not running_sums(scores, terms, seed=2, **NO_MORE).table["p"].equals(whole["p"])
    columns = ["es", "nes", "p", "leading"]
    alone = running_sums(scores[[3]], terms_of([terms.members[[2]].indices.tolist()], 60), seed=1, **NO_MORE).table
    assert alone.select(columns).equals(whole.filter((whole["list"] == 3) & (whole["index"] == 2)).select(columns))


def test_blocks_and_threads_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    rng = np.random.default_rng(8)
    terms, scores = some(rng, [4, 7, 12], 60), rng.normal(size=(40, 60))
    scores[5, :30] = np.nan
    one = rank_sums(scores, terms).table, running_sums(scores, terms, seed=1, **NO_MORE).table
    monkeypatch.setattr(ranked, "BLOCK", 300)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        other = rank_sums(scores, terms).table, running_sums(scores, terms, seed=1, **NO_MORE).table
    finally:
        torch.set_num_threads(threads)
    assert other[0].equals(one[0])
    assert other[1].equals(one[1])


def test_more_is_drawn_where_few_draws_are_as_extreme() -> None:
    rng = np.random.default_rng(9)
    scores = rng.normal(size=(1, 300))
    scores[0, :12] += 3.0
    terms = terms_of([list(range(12)), rng.choice(np.arange(12, 300), 12, replace=False).tolist()], 300)
    few = running_sums(scores, terms, seed=1, permutations=100, most_permutations=100).table
    many = running_sums(scores, terms, seed=1, permutations=100, most_permutations=10_000)
    assert 1 / 101 <= few["p"][0] < 0.05
    assert 1 / 10_001 <= many.table["p"][0] < 4e-4
    assert many.table["p"][1] == few["p"][1] > 0.1
    assert many.family.note == "100 to 10,000 permutations of genes, weight 1, seed 1"
    assert many.table["nes"][0] > 2


def test_the_smallest_p_values_are_kept_and_their_q_values_are_right(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(10)
    terms, scores = some(rng, [10] * 30, 200), rng.normal(size=(40, 200))
    scores[:, terms.members[[3]].indices] += 1.5
    full = rank_sums(scores, terms)
    assert (full.family.kept, full.family.left_out) == (1200, 0)
    np.testing.assert_allclose(full.table["q"].to_numpy(), benjamini_hochberg(full.table["p"].to_numpy()))
    monkeypatch.setattr(ranked, "BLOCK", 1000)
    few = rank_sums(scores, terms, most_rows=150)
    assert (few.family.kept, few.family.left_out) == (150, 1050)
    kept = full.table.sort("log_p").head(150).sort("list", "log_p", "index")
    assert few.table["p"].equals(kept["p"])
    exact = kept["q"].to_numpy() <= kept["p"].max()
    assert exact.sum() > 30
    np.testing.assert_allclose(few.table["q"].to_numpy()[exact], kept["q"].to_numpy()[exact])
    assert np.all(few.table["q"].to_numpy() >= kept["q"].to_numpy() * (1 - 1e-12))
    found = rank_sums(scores, terms, most_q=0.05)
    wanted = full.table.filter(full.table["q"] <= 0.05)
    assert found.table["p"].equals(wanted["p"])
    np.testing.assert_allclose(found.table["q"].to_numpy(), wanted["q"].to_numpy())


def null_scores(rng: Rng, kind: str) -> np.ndarray[Any, Any]:
    scores = rng.normal(size=(4, 300))
    if kind == "mostly zeros":
        return np.where(rng.random((4, 300)) < 0.06, np.abs(scores), 0.0)
    return np.where(rng.random((4, 300)) < 0.2, np.nan, np.round(scores, 1)) if kind == "ties and gaps" else scores


@pytest.mark.parametrize("kind", ["plain", "ties and gaps", "mostly zeros"])
@pytest.mark.parametrize("test", ["rank sums", "running sums"])
def test_rankings_of_nothing_are_found_no_more_often_than_promised(test: str, kind: str) -> None:
    rng = np.random.default_rng(11)
    terms = some(rng, [5, 5, 5, 15, 15, 40, 40], 300)
    hits, below, n, runs = 0, 0, 0, 200
    for seed in range(runs):
        scores = null_scores(rng, kind)
        if test == "rank sums":
            found = rank_sums(scores, terms).table
        else:
            found = running_sums(scores, terms, seed=seed, permutations=100, most_permutations=2000).table
        hits += bool((found["q"] < 0.05).any())
        below += int((found["p"] <= 0.05).sum())
        n += len(found)
    assert hits <= stats.binom.ppf(0.999, runs, 0.05)
    # Terms that overlap and draws that are shared make p-values alike: the bound allows for a fourth as many.
    assert below <= stats.binom.ppf(0.9999, n // 4, 0.05) * 4
    assert below > 0.01 * n


@pytest.mark.parametrize(
    ("scores", "words"),
    [
        (np.zeros((1, 5)), "has shape (1, 5) over a background of 6 genes"),
        (np.zeros(6), "has shape (6,)"),
        (np.zeros((0, 6)), "has shape (0, 6)"),
        (np.array([["a"] * 6]), "not numbers"),
        (np.array([[0, 1, 2, 3, 4, np.inf]]), "list 0: holds an infinite score"),
    ],
)
def test_what_is_no_ranking_is_refused_in_one_line(scores: Any, words: str) -> None:
    terms = terms_of([[0, 1, 2]], 6)
    for run in (lambda: rank_sums(scores, terms), lambda: running_sums(scores, terms, seed=1)):
        with pytest.raises(DataError) as caught:
            run()
        assert words in caught.value.line()


@pytest.mark.parametrize(
    "asked",
    [
        {"seed": -1},
        {"seed": 1, "weight": -1.0},
        {"seed": 1, "weight": float("nan")},
        {"seed": 1, "permutations": 0},
        {"seed": 1, "permutations": 100, "most_permutations": 50},
        {"seed": 1, "most_p": 0.0},
    ],
)
def test_settings_that_make_no_sense_are_refused(asked: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        running_sums(np.zeros((1, 6)), terms_of([[0, 1, 2]], 6), **asked)
