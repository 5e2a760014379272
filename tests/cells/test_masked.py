"""The masked objective: what is hidden, that a step is made again exactly, and that folding changes nothing."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

from elute.base.errors import ConfigError, DataError
from elute.cells.corpus import Corpus
from elute.cells.masked import MaskedObjective, MaskedStream, Scale, begin, draw, fold, predict


def corpus(n: int = 20, genes: int = 30) -> Corpus:
    rng = np.random.default_rng(0)
    lengths = rng.integers(2, genes, n)
    tokens = [3 + rng.permutation(genes)[:length] for length in lengths]
    starts = np.concatenate([[0], np.cumsum(lengths)])
    bins = rng.integers(1, 52, starts[-1]).astype(np.uint8)
    return Corpus(Path("none"), starts, np.concatenate(tokens), bins, np.zeros(n, np.uint8), "none")


def test_a_draw_is_a_part_of_a_cell_with_a_share_hidden() -> None:
    c = corpus()
    rows = draw(c, np.arange(20), np.random.default_rng(0), max_length=16, share=(0.3, 0.5))
    assert rows["tokens"].shape[1] <= 16
    for i in range(20):
        tokens, bins = c.cell(i)
        given = dict(zip(tokens.tolist(), bins.tolist(), strict=True))
        mine = rows["tokens"][i].tolist()
        n = min(len(tokens), 15)
        assert mine[0] == 1
        assert mine[n + 1 :] == [0] * (len(mine) - n - 1)
        assert len(set(mine[1 : n + 1])) == n
        assert rows["values"][i, 1 : n + 1].tolist() == [given[t] for t in mine[1 : n + 1]]
        assert not rows["generated"][i, n + 1 :].any()
        assert not rows["generated"][i, 0]
        hidden = int(rows["generated"][i].sum())
        assert 1 <= hidden < n
        assert hidden == 1 or 0.3 - 0.5 / n <= hidden / n <= 0.5 + 0.5 / n


def test_every_cell_comes_once_an_epoch_and_a_step_can_be_made_again() -> None:
    def stream(seed: int = 0) -> MaskedStream:
        return MaskedStream(corpus(), np.arange(20), max_length=16, batch_size=8, share=(0.3, 0.5), seed=seed)

    first = list(itertools.islice(stream(), 5))
    places = torch.cat([batch.places for batch in first]).tolist()
    assert sorted(places[:20]) == sorted(places[20:]) == list(range(20))
    assert places[:20] != places[20:]
    again = stream()
    again.load_state({"step": 3})
    batch = next(iter(again))
    assert again.state() == {"step": 4}
    assert all(torch.equal(batch.rows[name], first[3].rows[name]) for name in batch.rows)
    other = next(iter(stream(seed=1)))
    assert not torch.equal(other.places, first[0].places)
    with pytest.raises(DataError, match="two genes"):
        MaskedStream(corpus(), np.arange(0), max_length=16, batch_size=8, share=(0.3, 0.5), seed=0)


def test_the_scale_is_mean_and_spread_of_bins() -> None:
    bins = np.random.default_rng(0).integers(1, 52, 1000)
    scale = Scale.of(np.bincount(bins, minlength=52))
    assert scale.mean == pytest.approx(bins.mean())
    assert scale.sd == pytest.approx(bins.std())
    with pytest.raises(DataError, match="do not vary"):
        Scale.of(np.bincount([3, 3]))


def test_folded_weights_read_and_predict_bins() -> None:
    network, scale = begin(d_model=16, layers=2, heads=2, vocabulary=33, seed=3), Scale(17.3, 18.4)
    rows = draw(corpus(), np.arange(20), np.random.default_rng(0), max_length=16, share=(0.4, 0.4))
    assert (rows["tokens"] == 0).any()
    with torch.no_grad():
        _, _, inside = predict(network, rows, scale)
        _, values, folded = predict(fold(network, scale), rows, None)
    assert torch.equal(values, rows["values"])
    torch.testing.assert_close(folded.expr_preds, inside.expr_preds * scale.sd + scale.mean, rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(folded.gene_emb, inside.gene_emb, rtol=1e-5, atol=1e-5)


def test_the_gradient_is_that_of_the_mean_over_cells_and_parts_add_up() -> None:
    scale = Scale(17.3, 18.4)
    rows = draw(corpus(), np.arange(12), np.random.default_rng(0), max_length=16, share=(0.4, 0.4))
    network = begin(d_model=16, layers=1, heads=2, vocabulary=33, seed=0)
    hidden, scaled, output = predict(network, rows, scale)
    each = [((output.expr_preds[i] - scaled[i])[hidden[i]] ** 2).mean() for i in range(12)]
    loss = torch.stack(each).mean()
    wanted = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
    objective = MaskedObjective(begin(d_model=16, layers=1, heads=2, vocabulary=33, seed=0), scale)
    sums = [
        objective.gradient({name: x[part] for name, x in rows.items()}, step=0, total_rows=12)
        for part in (slice(0, 5), slice(5, 12))
    ]
    assert sum(s["loss"] for s in sums) == pytest.approx(float(loss.detach()), rel=1e-5)
    for p, grad in zip(objective.learnt, wanted, strict=True):
        torch.testing.assert_close(p.grad, torch.zeros_like(p.grad) if grad is None else grad, rtol=1e-4, atol=1e-6)
    figures = objective.figures({"steps": 1.0, **sums[0]})
    assert figures["explained_variance"] == pytest.approx(1 - sums[0]["squared"] / sums[0]["spread"])


def test_first_weights_come_from_the_seed_and_leave_the_generator_be() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    first, again = (begin(d_model=8, layers=1, heads=2, vocabulary=9, seed=1).state_dict() for _ in range(2))
    assert torch.equal(torch.get_rng_state(), before)
    assert all(torch.equal(first[name], again[name]) for name in first)
    with pytest.raises(ConfigError, match="no multiple of 3 heads"):
        begin(d_model=8, layers=1, heads=3, vocabulary=9, seed=1)
