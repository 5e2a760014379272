from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from elute.analysis.genes import GeneConfig, expression_of, expression_word, gene_table, shares
from elute.analysis.tally import Tallied, Tally
from elute.base.codes import Codes
from elute.base.errors import ConfigError, DataError


def tallied(a: np.ndarray, cells: Any, genes: Any, e: Any, shape: tuple[int, int] | None = None) -> Tallied:
    """Tally dense activations [rows, features]."""
    cells, genes = np.asarray(cells), np.asarray(genes)
    n_cells, n_genes = shape or (int(cells.max()) + 1, int(genes.max()) + 1)
    tally = Tally(a.shape[1], n_cells, n_genes)
    idx = np.broadcast_to(np.arange(a.shape[1], dtype=np.int32), a.shape).copy()
    codes = Codes(torch.from_numpy(idx), torch.from_numpy(a.astype(np.float32)), a.shape[1])
    for start in range(0, len(a), 1000):
        part = slice(start, start + 1000)
        tally.update((codes[part], cells[part], genes[part], np.asarray(e)[part]))
    return tally.result()


def named(n: int) -> pl.DataFrame:
    return pl.DataFrame({"gene": [f"ENSG{i}" for i in range(n)], "symbol": [f"S{i}" for i in range(n)]})


def cells_of(n: int, split: Any = None) -> pl.DataFrame:
    frame = pl.DataFrame({"cell": [f"c{i}" for i in range(n)]})
    return frame if split is None else frame.with_columns(split=pl.Series(split, dtype=pl.String))


def planted(random: np.random.Generator, C: int = 60, G: int = 25, F: int = 8) -> dict[str, Any]:
    """Cells with some of the genes each, in order of the cells, and signed activations that are often 0."""
    there = random.random((C, G)) < 0.4
    cells, genes = np.nonzero(there)
    e = np.float32(random.gamma(2, 1, len(cells))).astype(float)
    a = np.float32(random.normal(0.3, 1, (len(cells), F)) * (random.random((len(cells), F)) < 0.3)).astype(float)
    return {"a": a, "cells": cells, "genes": genes, "e": e, "shape": (C, G)}


def z_of(data: dict[str, Any], chosen: np.ndarray) -> np.ndarray:
    """√(n − 1) · corr of pooled activation and expression over cells, [features, genes], from dense matrices."""
    C, G = data["shape"]
    A, E = np.zeros((C, data["a"].shape[1])), np.zeros((C, G))
    np.add.at(A, data["cells"], data["a"])
    A /= np.maximum(np.bincount(data["cells"], minlength=C), 1)[:, None]
    np.add.at(E, (data["cells"], data["genes"]), data["e"])
    A, E = A[chosen], E[chosen]
    with np.errstate(invalid="ignore", divide="ignore"):
        r = np.corrcoef(A.T, E.T)[: A.shape[1], A.shape[1] :]
    return np.sqrt(chosen.sum() - 1) * r


def dense_table(data: dict[str, Any], z: np.ndarray, z_shown: np.ndarray | None, config: GeneConfig, train: Any) -> Any:
    """The same table by loops over features and genes."""
    a, cells, genes, e = (data[name] for name in ("a", "cells", "genes", "e"))
    _, G = data["shape"]
    rows = []
    for f in range(a.shape[1]):
        found = []
        for g in range(G):
            own = genes == g
            score = (a[own, f] * e[own]).sum()
            weights = np.where(own, e, 0)
            sd = np.sqrt(a[:, f].var(ddof=1) * ((weights - weights.mean()) ** 2).sum())
            in_cells = len(set(cells[own & train[cells]]))
            found.append({
                "feature": f, "gene": f"ENSG{g}", "symbol": f"S{g}", "score": score,
                "mean": score / max(1, len(set(cells[a[:, f] != 0]))),
                "rate": (a[own, f] != 0).mean() if own.any() else 0.0, "expression": e[own].mean() if own.any() else 0.0,
                "z": z[f, g], "z_shown": np.nan if z_shown is None else z_shown[f, g],
                "token_z": (score - a[:, f].mean() * weights.sum()) / sd if sd else np.nan, "cells": in_cells,
            })  # fmt: skip
        ranked = sorted((r for r in found if r["z"] > 0 and r["cells"] >= config.least), key=lambda r: -r["z"])
        raw = sorted((r for r in found if r["score"] > 0), key=lambda r: -r["score"])
        for name, order in (("rank", ranked), ("rank_raw", raw)):
            for place, row in enumerate(order[: config.top_k_genes], 1):
                row[name] = place
        kept = [row for row in found if "rank" in row or "rank_raw" in row]
        rows += sorted(kept, key=lambda r: (r.get("rank", 10**9), r.get("rank_raw", 10**9)))
    return rows


NUMBERS = ("score", "mean", "rate", "expression", "z", "z_shown", "token_z")


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.parametrize("memory", [512, "little"])
def test_dense_loops_give_the_same_table(split: bool, memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    random = np.random.default_rng(0)
    data = planted(random)
    C, G = data["shape"]
    sides = random.permutation(np.repeat(["train", "test", None], [35, 20, 5])) if split else None
    train = np.ones(C, bool) if sides is None else sides == "train"
    config = GeneConfig(top_k_genes=6, least=12)
    z_shown = z_of(data, sides == "test") if split else None
    expected = dense_table(data, z_of(data, train), z_shown, config, train)
    if memory == "little":  # a few features at a time
        from elute.analysis import specificity

        whole = specificity.ranked
        monkeypatch.setattr(specificity, "ranked", lambda *args, **how: whole(*args, **{**how, "limit": 8 * C * 5}))
    table = gene_table(tallied(**data), cells_of(C, sides), named(G), config=config)
    assert len(table) == len(expected)
    assert {row["rank"] for row in table.iter_rows(named=True)} >= {None, 1, 6}
    assert table["feature"].dtype == table["rank"].dtype == table["rank_raw"].dtype == pl.Int32
    for have, want in zip(table.iter_rows(named=True), expected, strict=True):
        assert [have[k] for k in ("feature", "gene", "symbol")] == [want[k] for k in ("feature", "gene", "symbol")]
        assert (have["rank"], have["rank_raw"]) == (want.get("rank"), want.get("rank_raw"))
        for name in NUMBERS:
            if np.isnan(want[name]):
                assert have[name] is None
            else:
                assert have[name] == pytest.approx(want[name], rel=1e-9, abs=1e-10), name


def test_a_hand_worked_case() -> None:
    # Three cells of two rows; the feature follows gene 0, which is in cells 0 and 1; gene 1 is in all; gene 2 in cell 2.
    cells, genes, e = [0, 0, 1, 1, 2, 2], [0, 1, 0, 1, 1, 2], [2.0, 1.0, 4.0, 1.0, 1.0, 3.0]
    a = np.array([[1.0], [0], [2.0], [0], [0], [0]])
    table = gene_table(tallied(a, cells, genes, e), cells_of(3), named(3), config=GeneConfig(least=1, top_k_genes=1))
    # Pooled: ½, 1, 0; expression of gene 0: 2, 4, 0: a perfect correlation, so z = √2.
    assert len(table) == 1
    row = table.row(0, named=True)
    assert (row["gene"], row["rank"], row["rank_raw"], row["z_shown"]) == ("ENSG0", 1, 1, None)
    assert row["z"] == pytest.approx(np.sqrt(2), rel=1e-12)
    assert row["score"] == 2 + 8
    assert row["mean"] == 5  # it fired in two cells
    assert row["rate"] == 1
    assert row["expression"] == 3
    # Dealt out at random: mean ½ · 6; variance Σ(a − ½)² · Σ(e − 1)² / 5 = 3.5 · 14 / 5.
    assert row["token_z"] == pytest.approx((10 - 3) / np.sqrt(3.5 * 14 / 5), rel=1e-12)


def test_equal_genes_rank_in_order_and_best_come_first() -> None:
    C = 12
    e = np.zeros((C, 5))
    e[:4] = 1  # all genes alike, but for the last one
    e[4, 4] = 0.5
    cells, genes = np.nonzero(np.ones((C, 5)))
    a = np.where(cells < 4, 1.0, 0.0)[:, None]
    table = gene_table(tallied(a, cells, genes, e.ravel()), cells_of(C), named(5), config=GeneConfig(top_k_genes=3))
    assert table.filter(pl.col("rank").is_not_null())["gene"].to_list() == ["ENSG0", "ENSG1", "ENSG2"]
    assert table["z"].is_sorted(descending=True)


def test_genes_of_few_choosing_cells_are_not_ranked() -> None:
    random = np.random.default_rng(3)
    data = planted(random, C=50, G=10, F=1)
    only = (data["genes"] != 3) | np.isin(data["cells"], [1, 2])
    data |= {name: data[name][only] for name in ("a", "cells", "genes", "e")}
    data["a"] = np.where(data["genes"] == 3, 5.0, 0.0)[:, None]  # nothing goes with it as gene 3 does
    seen = tallied(**data)
    two = int(np.isin(data["genes"], 3).sum())
    assert 0 < two <= 2
    ranks = {}
    for least in (1, 3):
        table = gene_table(seen, cells_of(50), named(10), config=GeneConfig(least=least))
        row = table.filter(gene="ENSG3").row(0, named=True)
        ranks[least] = row["rank"], row["rank_raw"], row["z"]
    assert ranks[1][:2] == (1, 1)
    assert ranks[3] == (None, 1, ranks[1][2])


def test_a_gene_twice_in_a_cell_counts_with_its_sum() -> None:
    random = np.random.default_rng(4)
    data = planted(random)
    order = np.sort(np.concatenate([np.arange(len(data["e"])), random.choice(len(data["e"]), 40)]))
    data |= {name: data[name][order] for name in ("a", "cells", "genes", "e")}
    table = gene_table(tallied(**data), cells_of(60), named(25))
    z = z_of(data, np.ones(60, bool))
    for row in table.iter_rows(named=True):
        assert row["z"] == pytest.approx(z[row["feature"], int(row["gene"][4:])], rel=1e-9)


@pytest.mark.parametrize(
    ("split", "shown"),
    [
        (None, False),
        ([None] * 60, False),
        (["train"] * 60, False),
        (["train"] * 58 + ["test"] * 2, False),
        (["train"] * 57 + ["test"] * 3, True),
    ],
    ids=["none", "empty", "all train", "two to show", "three to show"],
)
def test_shown_is_null_where_nothing_can_be_shown(split: Any, shown: bool) -> None:
    data = planted(np.random.default_rng(5))
    table = gene_table(tallied(**data), cells_of(60, split), named(25))
    assert (table["z_shown"].null_count() < len(table)) == shown
    assert table["z"].null_count() == 0
    chosen = np.array([True] * 60 if split is None or None in split else [s == "train" for s in split])
    z = z_of(data, chosen)
    row = table.row(0, named=True)
    assert row["z"] == pytest.approx(z[0].max(), rel=1e-9)


def test_silent_features_and_constant_genes_have_no_rows_and_no_shares() -> None:
    data = planted(np.random.default_rng(6), F=3)
    data["a"][:, 1] = 0
    seen = tallied(**data)
    table = gene_table(seen, cells_of(60), named(25))
    assert set(table["feature"]) == {0, 2}
    told = shares(seen)
    for part in (told.by_gene, told.by_cell, told.neither):
        assert np.isnan(part[1])
        assert np.isfinite(part[[0, 2]]).all()
    everywhere = np.ones((20, 1))
    cells, genes = np.divmod(np.arange(20), 4)
    constant = shares(tallied(everywhere, cells, genes, np.ones(20)))
    assert np.isnan(constant.by_gene[0])  # it fires alike in all rows
    table = gene_table(tallied(everywhere, cells, genes, np.ones(20)), cells_of(5), named(4))
    assert table["z"].null_count() == table["token_z"].null_count() == len(table) == 4


def epsilon(a: np.ndarray, groups: np.ndarray) -> float:
    """1 − (within mean square) / (total mean square): Kelley's, the other way round."""
    within = sum(((a[groups == g] - a[groups == g].mean()) ** 2).sum() for g in set(groups))
    return 1 - (within / (len(a) - len(set(groups)))) / a.var(ddof=1)


def test_shares_are_those_of_a_variance_table() -> None:
    data = planted(np.random.default_rng(7))
    data["a"] += 0.5 * data["genes"][:, None] % 3 + 0.4 * (data["cells"][:, None] % 4)
    data["a"] = np.float32(data["a"]).astype(float)
    told = shares(tallied(**data))
    for f, a in enumerate(data["a"].T):
        by_gene, by_cell = epsilon(a, data["genes"]), epsilon(a, data["cells"])
        assert 0.05 < by_gene < 0.9
        assert told.by_gene[f] == pytest.approx(by_gene, rel=1e-9)
        assert told.by_cell[f] == pytest.approx(by_cell, rel=1e-9)
        assert told.neither[f] == pytest.approx(1 - by_gene - by_cell, rel=1e-9)


def test_shares_tell_a_gene_from_a_state_from_noise() -> None:
    random = np.random.default_rng(8)
    cells, genes = np.divmod(np.arange(200 * 40), 40)
    state = cells < 30
    a = np.zeros((len(cells), 203))
    a[:, 0] = (genes == 5) * random.normal(2, 0.05, len(cells))
    a[:, 1] = state * random.normal(2, 0.05, len(cells))
    a[:, 2] = (state & (genes < 20)) * 1.0
    a[:, 3:] = random.gamma(2, 1, (len(cells), 200)) * (random.random((len(cells), 200)) < 0.1)
    told = shares(tallied(a, cells, genes, np.ones(len(cells))))
    assert told.by_gene[0] > 0.99
    assert told.by_cell[0] < 0.01
    assert told.by_cell[1] > 0.99
    assert told.by_gene[1] < 0.01
    assert told.by_cell[2] > 0.3
    assert 0.2 < told.neither[2] < 0.6
    # By chance alone 40 genes and 200 cells would seem to explain 0.5% and 2.5%.
    noise = np.array([told.by_gene[3:], told.by_cell[3:]])
    assert (noise.mean(1) < 0.001).all()
    assert noise.max() < 0.02
    assert told.neither[3:].min() > 0.97


def test_under_independence_z_has_mean_0_and_sd_1() -> None:
    random = np.random.default_rng(9)
    there = random.random((150, 40)) < 0.5
    cells, genes = np.nonzero(there)
    e = random.gamma(2, 1, len(cells)) * np.arange(1, 41)[genes]  # genes differ
    F = 60
    a = random.gamma(1, 1, (len(cells), F)) * (random.random((len(cells), F)) < 0.2)
    config = GeneConfig(top_k_genes=40, least=1)
    split = ["train"] * 75 + ["test"] * 75
    table = gene_table(tallied(a, cells, genes, e), cells_of(150, split), named(40), config=config)
    assert table.filter(pl.col("rank_raw").is_not_null()).height == F * 40  # all pairs, whatever their z
    for name in ("z", "z_shown", "token_z"):
        z = table[name].to_numpy()
        assert len(z) == F * 40
        assert abs(z.mean()) < 0.1, name
        assert abs(z.std() - 1) < 0.06, name


def test_markers_of_a_cell_state_rank_first_by_z_and_a_housekeeping_gene_by_score() -> None:
    random = np.random.default_rng(10)
    C, G = 200, 30
    state = np.arange(C) % 4 == 0
    mean = np.full((C, G), 0.4)
    mean[:, 0] = 30.0  # housekeeping
    mean[state, 7] = mean[state, 8] = 2.5
    e = np.log1p(random.poisson(mean))
    cells, genes = np.nonzero(e)
    fires = state[cells] & (random.random(len(cells)) < 0.7)
    a = (fires * random.gamma(4, 0.25, len(cells)))[:, None]
    split = np.where(random.random(C) < 0.5, "train", "test")
    table = gene_table(tallied(a, cells, genes, e[cells, genes]), cells_of(C, split), named(G))
    specific = table.filter(pl.col("rank").is_not_null()).sort("rank")
    assert set(specific["gene"][:2]) == {"ENSG7", "ENSG8"}
    assert (specific["z_shown"][:2] > 3).all()
    raw = table.filter(pl.col("rank_raw").is_not_null()).sort("rank_raw")
    assert raw["gene"][0] == "ENSG0"
    housekeeping = table.filter(gene="ENSG0").row(0, named=True)
    assert housekeeping["rank"] is None or housekeeping["rank"] > 2
    assert (raw["score"][1:] < housekeeping["score"]).all()


def test_a_gene_that_never_fired_can_be_ranked_by_cells_and_scores_0() -> None:
    # The feature fires on gene 0 in the cells where gene 1 is high.
    cells, genes = np.divmod(np.arange(40), 2)
    e = np.where(genes == 1, (cells % 2) * 3.0, 1.0)
    a = np.where((genes == 0) & (cells % 2 == 1), 1.0, 0.0)[:, None]
    table = gene_table(tallied(a, cells, genes, e), cells_of(20), named(2))
    row = table.filter(gene="ENSG1").row(0, named=True)
    assert (row["rank"], row["rank_raw"], row["score"], row["rate"]) == (1, None, 0, 0)
    assert row["z"] == pytest.approx(np.sqrt(19), rel=1e-9)


def test_tables_that_do_not_fit_the_tally_are_refused() -> None:
    seen = tallied(np.ones((4, 1)), [0, 0, 1, 1], [0, 1, 0, 1], np.ones(4))
    says = "a table of 3 cells and one of 2 genes for a tally of 2 cells and 2 genes"
    with pytest.raises(DataError, match=f"^{says}$"):
        gene_table(seen, cells_of(3), named(2))
    without = named(2).with_columns(symbol=pl.Series(["A", None]))
    table = gene_table(seen, cells_of(2), without)
    assert dict(zip(table["gene"], table["symbol"], strict=True)) == {"ENSG0": "A", "ENSG1": "ENSG1"}


def frame(**columns: Any) -> pl.DataFrame:
    return pl.DataFrame({"value": [1.0, 0.0, 50.0], "total": [1e4, 0.0, 5e3], "read": [3.0, 1.0, 7.0], **columns})


def test_expression_of_counts_and_of_what_is_normalised() -> None:
    np.testing.assert_allclose(expression_of(frame(), "lognorm", "counts"), np.log1p([1, 0, 100]))
    np.testing.assert_array_equal(expression_of(frame(), "raw", "counts"), [1, 0, 50])
    for kind in ("log-normalised", "numbers"):
        np.testing.assert_array_equal(expression_of(frame().drop("total"), "lognorm", kind), [1, 0, 50])
        assert expression_word("lognorm", kind) == f"value as it stands in the file ({kind})"
    np.testing.assert_array_equal(expression_of(frame(), "bin", "numbers"), [3, 1, 7])
    assert expression_of(frame(value=[1, 0, 50]), "raw", "counts").dtype == np.float64
    assert expression_word("lognorm", "counts") == "log of 1 + counts per 10,000"


def test_expression_that_is_not_there_is_refused_in_one_line() -> None:
    with pytest.raises(ConfigError) as refused:
        expression_of(frame(), "raw", "log-normalised")
    assert str(refused.value) == (
        "--expression raw needs counts, and the matrix is log-normalised. "
        "Choose lognorm, which takes such values as they are, or bin."
    )
    for columns, how, says in (
        (frame(read=[None, 1.0, None]), "bin", "'read', of which the bin that the model read is made, is empty in 2 of 3 rows."),
        (frame().drop("read"), "bin", "there is no column 'read', of which the bin that the model read is made."),
        (frame(total=[1e4, None, 1.0]), "lognorm", "'total', of which the log of 1 + counts per 10,000 is made, is empty"),
        (frame(total=[0.0, 0.0, 1.0]), "lognorm", "row 0 has a value in a cell whose total is 0"),
        (frame(value=[np.nan, 0.0, 1.0]), "lognorm", "'value', of which the log of 1 + counts per 10,000 is made, holds NaN"),
    ):  # fmt: skip
        with pytest.raises(DataError) as caught:
            expression_of(columns, how, "counts")
        assert str(caught.value).startswith(says)
        assert "\n" not in str(caught.value)
