"""What a model is held against, beside scikit-learn and sums by hand."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge as Sklearn

from elute.cells import baselines as b
from elute.cells.corpus import Corpus
from elute.cells.masked import Scale, begin, fold, predict

VOCABULARY = 15


def corpus(n: int = 60) -> Corpus:
    """Twelve genes, of which each cell has nine; a third of the cells each are to train, choose and test."""
    rng = np.random.default_rng(0)
    level = rng.normal(size=n)
    tokens = np.stack([3 + rng.permutation(12)[:9] for _ in range(n)])
    noise = rng.normal(size=tokens.shape)
    bins = np.clip(np.rint(25 + 2 * tokens + 6 * level[:, None] * np.where(tokens % 2, 1, -1) + noise), 1, 51)
    splits = np.repeat(np.arange(3, dtype=np.uint8), n // 3)
    return Corpus(Path("none"), 9 * np.arange(n + 1), tokens.ravel(), bins.ravel().astype(np.uint8), splits, "none")


def drawn(c: Corpus, split: str, most: int = 15) -> b.Examples:
    return b.examples(c, split, most=most, times=2, max_length=8, seed=0)


def table(e: b.Examples, means: np.ndarray, *, absent: str) -> np.ndarray:  # type: ignore[type-arg]
    """Bins of the genes that were drawn, hidden ones at their mean, one by one."""
    x = np.tile(means, (len(e.cells), 1)) if absent == "mean" else np.zeros((len(e.cells), VOCABULARY))
    for i in range(len(x)):
        for j in range(1, e.rows["tokens"].shape[1]):
            token = int(e.rows["tokens"][i, j])
            x[i, token] = means[token] if e.rows["generated"][i, j] else e.rows["values"][i, j]
    return x


def test_examples_are_cells_of_a_split_and_the_same_each_time() -> None:
    c = corpus()
    first, again = drawn(c, "test"), drawn(c, "test")
    assert len(first.cells) == 30
    assert set(first.cells) < set(c.of("test"))
    assert all(torch.equal(first.rows[name], again.rows[name]) for name in first.rows)
    assert first.rows["generated"].sum(1).tolist() == [3] * 30  # 40% of 7
    place, tokens = first.hidden
    given = [dict(zip(*(x.tolist() for x in c.cell(int(cell))), strict=True)) for cell in first.cells]
    assert first.truth.tolist() == [given[p][t] for p, t in zip(place, tokens, strict=True)]


def test_means_of_genes_and_what_a_cell_is_off_by() -> None:
    c = corpus()
    means = b.gene_means(c.counts("train", VOCABULARY, 51))
    every = np.concatenate([c.cell(i)[1] for i in range(20)])
    assert means[0] == pytest.approx(every.mean())
    of = [bin_ for i in range(20) for token, bin_ in zip(*c.cell(i), strict=True) if token == 7]
    assert means[7] == pytest.approx(np.mean(of))
    e = drawn(c, "test")
    moved = b.moved_by_cell(e, means)
    for k, (p, token) in enumerate(zip(*e.hidden, strict=True)):
        shown = ~e.rows["generated"][p].numpy()
        shown[0] = False
        off = e.rows["values"][p].numpy()[shown] - means[e.rows["tokens"][p].numpy()[shown]]
        assert moved[k] == pytest.approx(means[token] + off.mean())


@pytest.mark.parametrize("penalty", [5.0, 100.0])
@pytest.mark.parametrize("absent", ["zero", "mean"])
def test_the_ridge_is_scikit_learns(penalty: float, absent: Literal["zero", "mean"]) -> None:
    c = corpus(300)
    means = b.gene_means(c.counts("train", VOCABULARY, 51))
    fit, asked = drawn(c, "train", 90), drawn(c, "test", 90)
    ridge = b.Ridge(c, means, fit, absent=absent)
    guess = ridge(asked, [penalty])[0]
    x, x_asked = (table(e, means, absent=absent) / ridge.unit for e in (fit, asked))
    held = [dict(zip(*(part.tolist() for part in c.cell(int(cell))), strict=True)) for cell in fit.cells]
    for gene in range(3, VOCABULARY):
        rows = [i for i, cell in enumerate(held) if gene in cell]
        others = [j for j in range(VOCABULARY) if j != gene]
        model = Sklearn(alpha=penalty).fit(x[np.ix_(rows, others)], [held[i][gene] for i in rows])
        at = np.flatnonzero(asked.hidden[1] == gene)
        off = x_asked[asked.hidden[0][at]][:, others] - x[np.ix_(rows, others)].mean(0)
        np.testing.assert_allclose(guess[at], means[gene] + off @ model.coef_, rtol=1e-4)


def test_the_better_ridge_is_taken_by_the_cells_to_choose_by() -> None:
    c = corpus(300)
    means = b.gene_means(c.counts("train", VOCABULARY, 51))
    fit, choose, asked = (drawn(c, split, 90) for split in ("train", "validation", "test"))
    errors = {
        (absent, penalty): ((b.Ridge(c, means, fit, absent=absent)(choose, [penalty])[0] - choose.truth) ** 2).mean()
        for absent in ("zero", "mean")
        for penalty in b.PENALTIES
    }
    ridge, penalty = b.best_ridge(c, means, fit, choose=choose)
    best = min(errors, key=lambda key: errors[key])
    assert best == ("mean" if ridge.about.any() else "zero", penalty)
    guess = ridge(asked, [penalty])[0]
    assert ((guess - asked.truth) ** 2).mean() < 0.5 * ((means[asked.hidden[1]] - asked.truth) ** 2).mean()


def test_a_readout_is_scikit_learns(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(b, "PENALTIES", (3.0,))
    c, scale = corpus(), Scale(35.0, 9.0)
    network = fold(begin(d_model=8, layers=1, heads=2, vocabulary=VOCABULARY, seed=0), scale)
    fit, choose, asked = (drawn(c, split) for split in ("train", "validation", "test"))

    def vectors(e: b.Examples) -> np.ndarray:  # type: ignore[type-arg]
        with torch.no_grad():
            hidden, _, output = predict(network, e.rows, None)
        return output.gene_emb[hidden].double().numpy()

    x = vectors(fit)
    middle, spread = x.mean(0), x.std(0)
    model = Sklearn(alpha=3.0, fit_intercept=False).fit((x - middle) / spread, fit.truth - scale.mean)
    wanted = model.predict((vectors(asked) - middle) / spread) + scale.mean
    np.testing.assert_allclose(b.readout(network, scale, fit, choose=choose, asked=asked), wanted, rtol=1e-5)
    with torch.no_grad():
        hidden, _, output = predict(network, asked.rows, None)
    np.testing.assert_allclose(b.by_network(network, asked), output.expr_preds[hidden].numpy(), rtol=1e-4)


def test_a_model_beats_ties_or_is_beaten() -> None:
    e = drawn(corpus(), "test")
    noise = np.random.default_rng(0).normal(size=(3, len(e.truth)))
    guesses = {
        b.MEAN: np.full(len(e.truth), e.truth.mean()),
        "worse": e.truth + 3 * noise[0],
        "alike": e.truth + noise[1],
        "better": e.truth,
        b.MODEL: e.truth + noise[2],
    }
    found = {row["name"]: row for row in b.compare(e, guesses, seed=0)}
    assert {name: row.get("verdict") for name, row in found.items()} == {
        b.MEAN: "beaten", "worse": "beaten", "alike": "tie", "better": "beats it", b.MODEL: None
    }  # fmt: skip
    assert found[b.MODEL]["mse"] == pytest.approx((noise[2] ** 2).mean())
    assert found["worse"]["difference"] == pytest.approx((noise[2] ** 2).mean() - 9 * (noise[0] ** 2).mean())
    assert found["worse"]["low"] < found["worse"]["difference"] < found["worse"]["high"] < 0
    assert found[b.MODEL]["r2"] == pytest.approx(1 - (noise[2] ** 2).mean() / e.truth.var())
    words = b.verdict(list(found.values()))
    assert words == f"The model beats: {b.MEAN}; worse. It ties with: alike. It is beaten by: better."
