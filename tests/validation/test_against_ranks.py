"""Whole rankings: auc, p and q are SciPy's over the full family, nothing is found by chance, and genes that go together
are told apart from chance by the control alone."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy import stats
from scipy.sparse import csr_array

from elute.base.statistics.corrections import benjamini_hochberg
from elute.validation.against_ranks import Counted, add
from elute.validation.asked import Asked, Ranking
from elute.validation.background import Background
from elute.validation.terms import Terms

Rng = np.random.Generator
G = 60


def terms_of(rng: Rng, sizes: list[int], n_genes: int = G) -> Terms:
    members = np.zeros((len(sizes), n_genes), np.int8)
    for row, size in zip(members, sizes, strict=True):
        row[rng.choice(n_genes, size, replace=False)] = 1
    names = tuple(f"T{i}" for i in range(len(sizes)))
    background = Background(tuple(f"g{i:03d}" for i in range(n_genes)), f"{n_genes} genes")
    nowhere = np.full(len(sizes), -1)
    return Terms(names, names, (None,) * len(sizes), csr_array(members), background, "made up", {}, nowhere)


def asked(scores: Any, keys: list[str | None], lists: list[list[str]] | None = None, **controls: Any) -> Asked:
    given = lists if lists is not None else [["g000"]] * len(scores)
    table = pl.DataFrame({"key": [], "symbol": [], "measured": []})
    ranked = {what: Ranking(each.astype(np.float32), keys, what) for what, each in controls.items()}
    whole = Ranking(scores.astype(np.float32), keys, "1")
    return Asked(given, table, ("", ""), list(range(len(scores))), ranking=whole, controls_ranked=ranked)


def every_pair(lists: int, terms: Terms) -> pl.DataFrame:
    pairs = [(i, t) for i in range(lists) for t in range(len(terms))]
    return pl.DataFrame(pairs, schema={"list": pl.Int32, "index": pl.Int32}, orient="row")


def test_rows_have_what_scipy_says_and_q_is_that_of_the_whole_family() -> None:
    rng = np.random.default_rng(0)
    terms = terms_of(rng, [5, 8, 13, 30])
    # The columns stand in another order than the background, with genes that it lacks, and one gene twice.
    keys: list[str | None] = [None, "elsewhere", *reversed(terms.background.genes[1:]), "g005"]
    scores = np.round(rng.normal(size=(300, len(keys))), 1).astype(np.float32)  # ties
    scores[:, 4::9] = np.nan
    columns = [keys.index(gene) if gene in keys else None for gene in terms.background.genes]
    over = np.array([[np.nan if c is None else row[c] for c in columns] for row in scores])
    scores[0, [c for c in columns if c is not None]] += 5.0 * terms.members.toarray()[1, 1:]
    over[0] += 5.0 * terms.members.toarray()[1]
    lists = [[] if i in (7, 200) else ["g000"] for i in range(300)]
    p = np.ones((300, 4))
    auc = np.full((300, 4), np.nan)
    for i in range(300):
        for t, inside in enumerate(terms.members.toarray() == 1):
            x, y = (over[i, at][~np.isnan(over[i, at])] for at in (inside, ~inside))
            if lists[i]:
                told = stats.mannwhitneyu(x, y, alternative="greater", method="asymptotic")
                p[i, t], auc[i, t] = told.pvalue, told.statistic / (len(x) * len(y))
    q = benjamini_hochberg(p.ravel()).reshape(p.shape)
    table = every_pair(300, terms).sample(fraction=0.4, shuffle=True, seed=1)
    table = pl.concat([table, pl.DataFrame({"list": [0], "index": [1]}, schema=table.schema)])
    found = add(table, terms, asked(scores, keys, lists), fdr=0.05)
    assert found.table.select("list", "index").equals(table)
    for row in found.table.iter_rows(named=True):
        at = row["list"], row["index"]
        if not lists[at[0]]:
            assert (row["auc"], row["p_rank"], row["q_rank"]) == (None, None, None)
            continue
        assert row["auc"] == pytest.approx(auc[at])
        assert row["p_rank"] == pytest.approx(p[at], rel=1e-9)
        assert q[at] * (1 - 1e-9) <= row["q_rank"] <= min(q[at] * 1.001, 1.0)
    assert found.found == (q.min(axis=1) <= 0.05).sum() >= 1


def test_all_tests_count_whatever_rows_there_are() -> None:
    rng = np.random.default_rng(1)
    terms = terms_of(rng, [6] * 20)
    scores = rng.normal(size=(50, G))
    scores[3] += 4.0 * terms.members.toarray()[11]
    given = asked(scores, list(terms.background.genes))
    none = every_pair(50, terms).clear()
    assert add(none, terms, given, fdr=0.05).found == 1  # by a pair that is not in the table
    one = add(pl.DataFrame({"list": [3], "index": [11]}), terms, given, fdr=0.05).table.row(0, named=True)
    assert one["q_rank"] == pytest.approx(one["p_rank"] * 1000, rel=1.1e-3)
    whole = add(every_pair(50, terms), terms, given, fdr=0.05).table
    assert whole.filter((pl.col("list") == 3) & (pl.col("index") == 11)).row(0, named=True) == one


def test_without_a_ranking_there_are_empty_columns() -> None:
    rng = np.random.default_rng(2)
    terms = terms_of(rng, [6])
    bare = Asked([["g000"]], pl.DataFrame({"key": []}), ("", ""), [0])
    found = add(every_pair(1, terms), terms, bare, fdr=0.05)
    assert found.found is None
    assert found.controls == {}
    assert found.table.row(0) == (0, 0, None, None, None)
    assert found.table.schema["auc"] == pl.Float64
    empty = add(every_pair(1, terms), terms, asked(np.zeros((1, G)), list(terms.background.genes), [[]]), fdr=0.05)
    assert empty.found == 0


def test_by_chance_nothing_is_found_and_what_goes_together_is_seen_in_the_control() -> None:
    rng = np.random.default_rng(3)
    terms = terms_of(rng, [int(n) for n in rng.integers(5, 20, 30)], 300)
    keys = list(terms.background.genes)
    runs, held = 25, every_pair(40, terms)
    by_chance = np.array(
        [add(held, terms, asked(rng.normal(size=(40, 300)), keys), fdr=0.05).found for _ in range(runs)]
    )
    assert (by_chance > 0).mean() <= 0.05 + 3.0 * np.sqrt(0.05 * 0.95 / runs)
    p = add(held, terms, asked(rng.normal(size=(40, 300)), keys), fdr=0.05).table["p_rank"].to_numpy()
    assert abs((p <= 0.05).mean() - 0.05) <= 0.03
    # The genes of a term share half of what they do: far too many pass, and as many where there is nothing to find.
    shared = terms.members.toarray().T.astype(float)
    run, control = (rng.normal(size=(40, 300)) + rng.normal(size=(40, 30)) @ shared.T for _ in range(2))
    found = add(held, terms, asked(run, keys, dealt=control), fdr=0.05)
    assert found.found is not None
    assert found.found >= 30
    assert found.controls["dealt"]["by_rank"] >= 30
    assert found.controls["dealt"]["ranked"] == 40


def test_counted_p_values_give_q_that_is_never_too_small() -> None:
    rng = np.random.default_rng(4)
    for power in (1.0, 3.0, 40.0):
        p = rng.random(5000) ** power
        p[:10] = 1.0
        counted = Counted(8000)
        for part in np.array_split(np.log(p), 7):
            counted.add(part)
        exact, ours = benjamini_hochberg(p, n_tests=8000), counted.q(np.log(p))
        assert (ours >= exact * (1 - 1e-9)).all()
        assert (ours <= np.minimum(exact * 1.001, 1.0)).all()
    tiny = Counted(10)
    tiny.add(np.array([-5000.0, -1.0]))
    assert tiny.q(np.array([-5000.0, np.nan]))[0] < 1e-300
    assert np.isnan(tiny.q(np.array([np.nan]))[0])
