"""A feature set on networks whose readout is known: the gene that its direction raises is found, and no other."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from scipy import stats
from torch import nn

from elute.analysis import changes as m
from elute.analysis.rerunning import Part, Round, Watched, forward
from elute.analysis.steering import FEATURES, RANDOM, Steering, Target, like_features, measure, push
from elute.base.errors import DataError, EluteError
from elute.base.statistics.corrections import benjamini_hochberg
from elute.dictionaries.dictionary import Dictionary
from elute.dictionaries.spec import DictionarySpec
from elute.models.module import TorchModel

WIDTH, GENES, CELLS = 16, 8, 12
RAISES = 3  # the gene that direction 0 raises


class Linear(nn.Module):
    """Each token's own vector goes through two layers; a gene's value is read along a vector of its own."""

    def __init__(self, readout: torch.Tensor) -> None:
        super().__init__()
        self.first, self.second = nn.Identity(), nn.Identity()
        self.readout = nn.Parameter(readout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.second(self.first(x))
        return (hidden * self.readout).sum(-1)


def dictionary(site: str = "first", width: int = WIDTH) -> Dictionary:
    """One feature an axis: its code is how far a row lies along it, where that is above 0."""
    spec = DictionarySpec(reads={site: width}, writes={site: width}, n_features=width, activation="relu", k=width)
    made = Dictionary(spec).requires_grad_(requires_grad=False)
    for bank in made:
        bank.W_enc.copy_(torch.eye(width))
        bank.W_dec.copy_(torch.eye(width))
    return made


def planted() -> torch.Tensor:
    """Gene 3 is read along axis 0, all others along the axes from 2 on; nothing is read along axis 1."""
    rng = np.random.default_rng(4)
    readout = np.zeros((GENES, WIDTH))
    readout[:, 2:] = rng.normal(size=(GENES, WIDTH - 2))
    readout[RAISES] = 0
    readout[RAISES, 0] = 4
    return torch.from_numpy(readout).float()


def model(readout: torch.Tensor | None = None) -> TorchModel:
    return TorchModel(Linear(planted() if readout is None else readout), {"first": "first", "second": "second"})


def head(output: torch.Tensor, _keep: Any) -> torch.Tensor:
    return output.reshape(-1)


def parts(seed: int = 1, cells: int = CELLS) -> list[Part]:
    """Two batches of cells with all genes."""
    rng = np.random.default_rng(seed)
    made = []
    for at in (np.arange(cells // 2), np.arange(cells // 2, cells)):
        x = torch.from_numpy(np.abs(rng.normal(size=(len(at), GENES, WIDTH))) + 0.1).float()
        cell, gene = np.repeat(at, GENES), np.tile(np.arange(GENES), len(at))
        frame = pl.DataFrame({"token": [f"g{i}" for i in gene], "read": rng.normal(size=len(cell))})
        valued = torch.ones(len(cell), dtype=torch.bool)
        made.append(Part([Round(x, valued, coded=True)], frame, cell, gene))
    return made


def steering(feature: int = 0, target: Target | None = None, **more: Any) -> Steering:
    net = more.pop("model", None) or model()
    given = {"like": [4, 5, 6, 7], "random": 19, "seed": 2, **more}
    return Steering(net, Watched(dictionary()), feature, target or Target(to=3.0), head=head, **given)


def run(asked: Steering, units: m.Units | None = None, pace: m.Pace | None = None) -> Any:
    units = units or m.Units.of([None] * CELLS)
    return measure(asked, parts(), units, n_genes=GENES, pace=pace or m.Pace(0))


def test_it_finds_the_gene_that_the_direction_raises_and_no_other() -> None:
    found = run(steering())
    units = m.Units.of([None] * CELLS)
    table = m.table(found.genes, units, resolution=1e-6)
    codes = torch.cat([part.rounds[0].batch[..., 0] for part in parts()])
    expected = 4 * (3 - codes[:, RAISES]).mean()
    assert table["change"][RAISES] == pytest.approx(float(expected), rel=1e-5)
    assert table.with_row_index().filter(pl.col("q") <= 0.05)["index"].to_list() == [RAISES]
    assert table["p_random"][RAISES] == pytest.approx(1 / 20)
    assert table["random_most"][RAISES] < abs(table["change"][RAISES])
    others = [i for i in range(GENES) if i != RAISES]
    assert table["p_random"].gather(others).to_list() == [1.0] * len(others)
    assert m.summary(table, found.genes)["beyond"] == 1
    assert found.identity == 0
    assert found.moved == CELLS * GENES


def test_a_random_direction_singles_out_no_gene() -> None:
    asked = steering()
    rng = np.random.default_rng(0)
    with torch.no_grad():
        for bank in asked.watched.dictionary:
            bank.W_dec[0] = torch.from_numpy(rng.normal(size=WIDTH)).float()
    found = run(asked)
    told = m.summary(m.table(found.genes, m.Units.of([None] * CELLS)), found.genes)
    assert told["changed"] == GENES  # a network without noise changes everywhere
    assert told["beyond"] <= 2  # but no more than the controls do
    assert told["beside random"]["p_size"] > 0.05


def test_what_the_readout_ignores_changes_nothing() -> None:
    found = run(steering(feature=1))
    table = m.table(found.genes, m.Units.of([None] * CELLS), resolution=1e-6)
    told = m.summary(table, found.genes)
    assert table["change"].abs().max() < 1e-6
    assert told["changed"] == told["beyond"] == 0
    assert told["beside random"]["leads"] == 0
    assert told["beside random"]["p_size"] == 1


def test_controls_add_as_much_in_other_directions() -> None:
    asked = steering(target=Target(to=3.0), random=5)
    lengths = [float(d.norm()) for d in asked.directions()]
    assert lengths == pytest.approx([1.0] * 10)
    assert torch.equal(asked.directions()[1], torch.eye(WIDTH)[4])
    found = run(asked)
    assert found.genes.controls[FEATURES].shape == (4, GENES)
    assert found.genes.controls[RANDOM].shape == (5, GENES)
    assert {k: v.tobytes() for k, v in run(asked).genes.controls.items()} == {
        k: v.tobytes() for k, v in found.genes.controls.items()
    }


def test_a_feature_set_to_its_own_value_leaves_every_bit() -> None:
    net, part = model(), parts()[0]
    batch = part.rounds[0].batch
    with torch.no_grad():
        plain = net(batch).reshape(-1)
    seen = forward(net, batch, {}, sites=["first", "second"], head=head)
    codes = Watched(dictionary()).encode(seen.rows, part.frame)
    own = torch.where(codes.indices == 0, codes.values, 0.0).sum(1)
    edit = push(Target(times=1.0).amounts(own), torch.ones(WIDTH))
    again = forward(net, batch, {"first": edit}, sites=["second"], head=head)
    assert torch.equal(again.values, plain)
    assert torch.equal(seen.values, plain)
    assert torch.equal(again.rows["second"], seen.rows["second"])


@pytest.mark.parametrize(
    ("target", "becomes"),
    [
        (Target(times=0.0), lambda c: 0 * c),
        (Target(times=2.0), lambda c: 2 * c),
        (Target(to=0.5), lambda c: 0 * c + 0.5),
    ],
)
def test_only_the_feature_changes_by_target_less_code(target: Target, becomes: Any) -> None:
    net, part = model(), parts()[0]
    batch = part.rounds[0].batch
    x = batch.reshape(-1, WIDTH)
    seen = forward(
        net, batch, {"first": push(target.amounts(x[:, 0]), torch.eye(WIDTH)[0])}, sites=["second"], head=head
    )
    assert torch.allclose(seen.rows["second"][:, 0], becomes(x[:, 0]), atol=1e-6)
    assert torch.equal(seen.rows["second"][:, 1:], x[:, 1:])


def test_doses_are_multiples_of_what_is_added() -> None:
    found = run(steering(doses=(0.5, 2.0, 4.0)))
    own = m.mean_over(found.genes.change)
    assert np.allclose(found.genes.doses, own * np.array([[0.5], [2.0], [4.0]]), atol=1e-4)
    doses = m.table(found.genes, m.Units.of([None] * CELLS))["doses"].to_list()
    assert doses[RAISES] == found.genes.doses[:, RAISES].tolist()


def test_later_features_are_read_over_a_cells_rows() -> None:
    found = run(steering(target=Target(times=3.0), later={"second": Watched(dictionary("second"))}))
    table = m.table(found.features["second"], m.Units.of([None] * CELLS), resolution=1e-6)
    codes = torch.cat([part.rounds[0].batch[..., 0] for part in parts()])
    assert table["change"][0] == pytest.approx(float(2 * codes.mean()), rel=1e-5)
    assert table["before"][0] == pytest.approx(float(codes.mean()), rel=1e-5)
    assert table["change"][1:].to_list() == [0.0] * (WIDTH - 1)
    assert table["p"][1:].to_list() == [1.0] * (WIDTH - 1)


def test_what_was_told_is_held_against_what_was_read() -> None:
    found = run(steering())
    read = np.concatenate([part.frame["read"].to_numpy() for part in parts()])
    with torch.no_grad():
        said = torch.cat([model()(part.rounds[0].batch).reshape(-1) for part in parts()]).numpy()
    assert found.told == pytest.approx(1 - ((read - said) ** 2).sum() / ((read - read.mean()) ** 2).sum(), rel=1e-5)


def test_cancel_ends_it_between_two_forwards() -> None:
    heard: list[tuple[int, int]] = []
    asked = iter([False, False, True])
    pace = m.Pace(99, told=lambda done, of: heard.append((done, of)), cancel=lambda: next(asked))
    with pytest.raises(m.CancelledError, match="nothing was written"):
        run(steering(), pace=pace)
    assert heard == [(6, 99), (12, 99)]


def test_a_feature_that_fires_nowhere_has_nothing_to_scale() -> None:
    asked = steering(target=Target(times=2.0))
    with torch.no_grad():
        for bank in asked.watched.dictionary:
            bank.W_enc[0] = -1
    with pytest.raises(DataError, match="fires in none of 96 rows"):
        run(asked)


def test_a_forward_that_is_not_repeatable_is_refused() -> None:
    class Noisy(Linear):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x) + torch.randn(1)

    with pytest.raises(EluteError, match="to its own value changed what the model gives"):
        run(steering(model=TorchModel(Noisy(planted()), {"first": "first", "second": "second"})))


def test_donors_are_the_unit_where_there_are_two() -> None:
    donors = [f"d{i % 3}" for i in range(CELLS)]
    units = m.Units.of(donors)
    assert (units.kind, len(units)) == ("donors", 3)
    assert m.Units.of(["one"] * 4).kind == m.Units.of(["a", None, "b"]).kind == "cells"
    rng = np.random.default_rng(5)
    change = rng.normal(size=(CELLS, 5)) + 1
    change[rng.random(change.shape) < 0.2] = np.nan
    table = m.table(m.Reading(change, np.zeros(5), {}, np.zeros((0, 5))), units)
    for i in range(5):
        means = [np.nanmean(change[np.array(donors) == d, i]) for d in sorted(set(donors))]
        plain = stats.ttest_1samp(means, 0)
        assert table["change"][i] == pytest.approx(np.mean(means))
        assert table["p"][i] == pytest.approx(plain.pvalue)
        assert table["sd"][i] == pytest.approx(np.std(means, ddof=1))
        assert (table["low"][i], table["high"][i]) == pytest.approx(plain.confidence_interval(0.95))
    assert table["q"].to_list() == pytest.approx(benjamini_hochberg(table["p"].to_numpy()).tolist())
    found = run(steering(), units)
    groups = np.array(donors)
    change = found.genes.change[:, RAISES]
    assert m.table(found.genes, units)["change"][RAISES] == pytest.approx(
        np.mean([change[groups == d].mean() for d in ("d0", "d1", "d2")])
    )


def test_things_of_too_few_cells_are_not_tested() -> None:
    change = np.full((4, 3), np.nan)
    change[:, 0], change[:2, 1] = [1.0, 2.0, 3.0, 4.0], 5.0
    table = m.table(
        m.Reading(change, np.zeros(3), {"random": np.ones((2, 3))}, np.zeros((0, 3))), m.Units.of([None] * 4)
    )
    assert table["cells"].to_list() == [4, 2, 0]
    assert table["p"].is_null().to_list() == [False, True, True]
    assert table["q"][0] == table["p"][0]
    assert table["change"].to_list() == [2.5, 5.0, None]
    assert table["p_random"].to_list() == [1 / 3, 1 / 3, None]


def test_the_size_among_like_directions_is_calibrated() -> None:
    """Of directions that are like their controls, one in ten is in the largest tenth, and all lead as many genes."""
    rng = np.random.default_rng(8)
    p, leads, expected = [], [], []
    for _ in range(400):
        drawn = rng.normal(size=(10, 40)) * rng.gamma(2.0, size=(10, 1))
        told = m.against(drawn[0], drawn[1:], np.ones(40, bool))
        p.append(told["p_size"])
        leads.append(told["leads"])
        expected.append(told["expected"])
    assert 0.06 <= np.mean(np.array(p) <= 0.1) <= 0.14
    assert np.mean(leads) == pytest.approx(np.mean(expected), rel=0.25)


def test_like_features_fire_about_as_often() -> None:
    frequency = np.array([0.0, 0.1, 0.11, 0.09, 0.5, 0.12, 0.08, 0.0001])
    assert like_features(frequency, 1, 10, seed=0) == [2, 3, 4, 5, 6, 7]
    many = np.geomspace(1e-5, 0.5, 200)
    drawn = like_features(many, 100, 5, seed=0)
    assert len(set(drawn)) == 5
    assert 100 not in drawn
    assert max(abs(i - 100) for i in drawn) <= 10
    assert like_features(many, 100, 5, seed=1) != drawn
