"""Whether what was planted was found: the measures against hand-worked cases, and the null against its expectation."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch
from scipy import sparse

from elute.analysis.relevance import crp_relmax
from elute.analysis.relevance_head import Explained
from elute.base.codes import Codes
from elute.base.errors import DataError
from elute.heads.crossval import nested
from elute.heads.head import Head
from elute.heads.settings import HeadConfig
from elute.tissue import recovery as r
from elute.tissue.controls import Setting
from elute.tissue.painting_files import write_painted
from elute.tissue.painting_genes import PLANTED
from elute.tissue.painting_layout import STRUCTURES
from elute.tissue.painting_settings import PaintConfig


def test_a_tile_holds_what_covers_the_most_of_it() -> None:
    shares = np.array([[0.5, 0.3, 0.2], [0.2, 0.2, 0.1], [0, 0, 0], [0, 0.1, 0.9]])
    want = [[True, False, False], [True, False, False], [False, False, False], [False, False, True]]
    assert r.held(shares).tolist() == want


def test_references_are_the_largest_with_ties_by_place_and_no_padding() -> None:
    x = np.array([[0.0, 3.0, 0.0], [2.0, 3.0, 0.0], [5.0, 1.0, 0.0], [2.0, 0.0, 0.0]])
    want = [[2, 1, 3], [0, 1, 2], [-1, -1, -1]]
    assert r.reference_places(x, 3).tolist() == want
    assert r.reference_places(sparse.csr_array(x), 3).tolist() == want
    holds = np.array([[True, False], [False, True], [True, False], [False, True]])
    precisions = r.precisions(np.array(want), holds)
    assert precisions == pytest.approx(np.array([[1 / 3, 2 / 3], [2 / 3, 1 / 3], [0, 0]]))


def test_references_are_those_of_the_relevance_pass() -> None:
    rng = np.random.default_rng(0)
    tokens, n, codes = 4, 60, 6
    dense = np.where(rng.random((n * tokens, codes)) < 0.3, rng.random((n * tokens, codes)), 0).astype(np.float32)
    weights = rng.normal(size=(2, codes))
    names = [f"s{i:03d}" for i in range(n)]
    frame = pl.DataFrame({"sample_id": np.repeat(names, tokens), "tile_id": np.repeat(names, tokens)})
    held = Codes.from_dense(torch.from_numpy(dense), codes)
    head = Head(weights, np.zeros(2), "mse", "ridge", np.ones(2), 0.5, None, ("fitted",) * 2, np.zeros(2))
    explained = Explained.of(head, genes=["a", "b"], pool="mean")
    found = crp_relmax(explained, [(held, frame)], {"y": "a"}, k=10, kinds=("relmax",))
    pooled = dense.reshape(n, tokens, codes).mean(1)
    places = r.reference_places(pooled, 10)
    lists = found.references.filter(pl.col("target") == "sum", pl.col("sign") == "+")
    positive = np.flatnonzero(weights[0] > 0)
    assert len(positive) >= 2
    for code in positive.tolist():
        mine = lists.filter(pl.col("code") == code).sort("rank")["sample_id"].to_list()
        assert mine == [names[i] for i in places[code] if i >= 0]


def planted_codes(seed: int) -> tuple[Setting, np.ndarray, r.Truth]:
    """Five codes that follow the structures and fifteen that follow nothing, of tiles of eight patients."""
    rng = np.random.default_rng(seed)
    n, patients = 400, 8
    shares = rng.dirichlet(np.full(5, 0.3), n)
    x = np.concatenate([shares + 0.02 * rng.random((n, 5)), rng.random((n, 15))], 1)
    planted = np.repeat(np.arange(5), 2)
    y = 2 * shares[:, planted] + 0.5 * rng.normal(size=(n, 10))
    groups = np.array([f"p{i % patients}" for i in range(n)])
    samples = pl.DataFrame(
        {"sample_id": [f"s{i:03d}" for i in range(n)], "group": groups, "fold": np.arange(n) % patients % 4}
    )
    setting = Setting(samples, y, None, HeadConfig(folds=4, inner_folds=2))
    return setting, x, r.Truth(r.held(shares), tuple(PLANTED), planted)


def test_planted_genes_come_back_and_permuted_ones_do_not() -> None:
    setting, x, truth = planted_codes(0)
    by_code = r.precisions(r.reference_places(x), truth.holds)
    made = nested(x, setting.y, setting.folds, groups=setting.groups, config=setting.config)
    tops = r.top_codes(made.final, made.spread)
    assert tops.tolist() == truth.planted.tolist()
    assert (by_code[tops, truth.planted] >= r.HIT).all()
    runs = r.permuted(setting, x, truth, by_code=by_code, penalty=made.final.penalty, times=12)
    assert runs.height == 120
    # One code in twenty holds the structure of a gene; and tiles drawn at random hold it as often as all tiles do.
    assert runs["hit"].mean() == pytest.approx(1 / 20, abs=0.06)
    expected = np.mean(by_code[:, truth.planted])
    assert runs["precision"].mean() == pytest.approx(expected, abs=0.08)
    assert expected == pytest.approx(float(truth.chance.mean()), abs=0.08)
    assert runs["r2"].max() < 0.05
    # By chance 2.5%; of 120, not independent, above 10 would be no chance.
    assert (runs["r2_low"] > 0).sum() <= 10
    assert not (runs["together_low"] > 0.01).any()
    again = r.permuted(setting, x, truth, by_code=by_code, penalty=made.final.penalty, times=2)
    assert again.equals(runs.head(20))


def test_counts_of_hits_and_intervals() -> None:
    table = pl.DataFrame({
        "gene": ["a", "b"], "precision": [0.8, 0.75], "random_precision": [0.1, 0.9], "code_chance": [0.1, 0.2],
        "chance": [0.2, 0.3], "r2": [0.5, 0.4], "random_r2": [0.1, 0.2],
    })  # fmt: skip
    runs = pl.DataFrame({
        "permutation": [0, 0, 1, 1], "hit": [True, False, False, False], "precision": [0.9, 0.1, 0.2, 0.0],
        "r2": [0.0, 0.1, -0.1, 0.0], "r2_low": [-0.1, 0.05, -0.2, -0.1], "r2_high": [0.1, 0.2, -0.05, 0.1],
        "together_low": [-0.2, -0.01, -0.3, -0.2], "together_high": [0.2, 0.3, 0.1, 0.2],
    })  # fmt: skip
    found = r.summarise(table, runs)
    assert (found["hits"], found["random_hits"], found["permuted_hits"]) == (1, 1, 0.5)
    assert found["chance_hits"] == pytest.approx(0.3)
    assert (found["permuted_above_0"], found["permuted_below_0"], found["permuted_above_0_together"]) == (1, 1, 0)
    assert (found["permuted_precision"], found["chance_precision"]) == (0.3, 0.25)


def test_truth_is_read_by_sample_and_must_be_whole(tmp_path: Path) -> None:
    write_painted(tmp_path, PaintConfig(patients=2, side=2, seed=1))
    table = pl.read_csv(tmp_path / "tiles.csv")
    names = table["sample_id"].to_list()[::-1]
    truth = r.truth_of(tmp_path, names)
    labels = table["label"].to_list()[::-1]
    assert [STRUCTURES[i] for i in truth.holds.argmax(1)] == labels
    assert dict(zip(truth.genes, [STRUCTURES[i] for i in truth.planted], strict=True)) == PLANTED
    with pytest.raises(DataError, match="has no truth of some samples"):
        r.truth_of(tmp_path, [*names, "another"])
