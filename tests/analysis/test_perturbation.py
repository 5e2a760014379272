"""A gene taken away in a network in which it is known what that does to the other genes of its cells."""

from __future__ import annotations

from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from torch import nn

from elute.analysis import changes
from elute.analysis.perturbation import GENES as LIKE
from elute.analysis.perturbation import Perturbing, alter, like_genes, readings
from elute.analysis.rerunning import Part, Round, Watched
from elute.dictionaries.dictionary import Dictionary
from elute.dictionaries.spec import DictionarySpec
from elute.models.module import TorchModel

WIDTH, GENES, CELLS = 6, 7, 10
SPEAKS = 2  # the gene that the others hear, along axis 0


class Hearing(nn.Module):
    """Every token gets the value of gene SPEAKS, where it is there, added along axis 0."""

    def __init__(self) -> None:
        super().__init__()
        self.mixed = nn.Identity()

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        there = batch["keep"] & (batch["tokens"] == SPEAKS)
        heard = torch.where(there, batch["values"], 0.0).sum(1)
        x = torch.full((*batch["tokens"].shape, WIDTH), 1.0)
        x[..., 1] = batch["tokens"].float()
        x[..., 0] = 1 + heard[:, None]
        return self.mixed(x)[..., 0] * 10


def model() -> TorchModel:
    return TorchModel(Hearing(), {"mixed": "mixed"}, keep="keep", forward=lambda net, batch: net(batch))


def watched() -> Watched:
    spec = DictionarySpec(reads={"mixed": WIDTH}, writes={"mixed": WIDTH}, n_features=WIDTH, activation="relu", k=WIDTH)
    made = Dictionary(spec).requires_grad_(requires_grad=False)
    for bank in made:
        bank.W_enc.copy_(torch.eye(WIDTH))
        bank.W_dec.copy_(torch.eye(WIDTH))
    return Watched(made)


def values() -> np.ndarray[Any, Any]:
    return np.random.default_rng(3).uniform(0.5, 2.0, (CELLS, GENES)).astype(np.float32)


def part() -> Part:
    tokens = torch.arange(GENES).expand(CELLS, GENES).clone()
    keep = torch.ones(CELLS, GENES, dtype=torch.bool)
    keep[4:, 5] = False  # gene 5 is in the first four cells alone
    batch = {"tokens": tokens, "values": torch.from_numpy(values()), "keep": keep}
    cell, gene = (x.numpy() for x in keep.nonzero(as_tuple=True))
    valued = torch.from_numpy(gene != SPEAKS)
    frame = pl.DataFrame({"read": values()[cell, gene]})
    return Part([Round(batch, valued, coded=True)], frame, cell, gene)


def at(batch: dict[str, torch.Tensor], rows: torch.Tensor) -> torch.Tensor:
    chosen = torch.zeros_like(batch["keep"])
    chosen[batch["keep"]] = rows
    return chosen


def absent(batch: dict[str, torch.Tensor], rows: torch.Tensor) -> dict[str, torch.Tensor]:
    return {**batch, "keep": batch["keep"] & ~at(batch, rows)}


def halved(batch: dict[str, torch.Tensor], rows: torch.Tensor) -> dict[str, torch.Tensor]:
    return {**batch, "values": torch.where(at(batch, rows), batch["values"] / 2, batch["values"])}


def head(output: torch.Tensor, keep: torch.Tensor) -> torch.Tensor:
    return output[keep]


def asked(how: Any, *, drops: bool) -> Perturbing:
    return Perturbing(model(), watched(), how, drops=drops, n_genes=GENES, head=head)


@pytest.mark.parametrize(("how", "drops", "share"), [(absent, True, 1.0), (halved, False, 0.5)])
def test_what_the_other_rows_lose_is_what_the_gene_told_them(how: Any, drops: bool, share: float) -> None:
    pace = changes.Pace(0)
    found = alter(asked(how, drops=drops), [part()], SPEAKS, cells=CELLS, pace=pace)
    lost = -share * values()[:, SPEAKS]
    change = found.features.means()
    assert change[:, 0] == pytest.approx(lost, rel=1e-5)
    assert np.abs(change[:, 1:]).max() < 1e-6  # also axis 1, which says which gene a row is
    assert found.genes is not None
    genes = found.genes.means()
    assert np.isnan(genes[:, SPEAKS]).all()  # what the gene's own row gives is left out
    assert np.isnan(genes[4:, 5]).all()
    assert genes[:, 0] == pytest.approx(10 * lost, rel=1e-4)
    assert pace.done == 2 * CELLS


def test_another_gene_changes_nothing_and_is_a_control() -> None:
    units = changes.Units.of([None] * CELLS)
    own = alter(asked(absent, drops=True), [part()], SPEAKS, cells=CELLS, pace=changes.Pace(0))
    others = [
        (alter(asked(absent, drops=True), [part()], i, cells=CELLS, pace=changes.Pace(0)), units) for i in (0, 1, 3, 4)
    ]
    features, genes = readings(own, others)
    table = changes.table(features, units, resolution=1e-6)
    assert table.with_row_index().filter(pl.col("q") <= 0.05)["index"].to_list() == [0]
    assert table["p_genes"][0] == pytest.approx(1 / 5)
    assert table["genes_most"][0] == pytest.approx(0, abs=1e-6)
    told = changes.summary(table, features)
    assert (told["changed"], told["beyond"]) == (1, 1)
    assert features.controls[LIKE].shape == (4, WIDTH)
    assert genes is not None
    assert changes.table(genes, units)["p"].is_null().to_list() == [i == SPEAKS for i in range(GENES)]


def test_a_network_without_a_head_has_features_alone() -> None:
    plain = Perturbing(model(), watched(), absent, drops=True, n_genes=GENES, head=lambda *_: None)
    found = alter(plain, [part()], SPEAKS, cells=CELLS, pace=changes.Pace(0))
    assert found.genes is None
    assert readings(found, [])[1] is None
    assert found.told is None


def test_it_can_be_cancelled() -> None:
    pace = changes.Pace(0, cancel=lambda: True)
    with pytest.raises(changes.CancelledError):
        alter(asked(absent, drops=True), [part()], SPEAKS, cells=CELLS, pace=pace)


def test_like_genes_are_near_in_both_ranks() -> None:
    rng = np.random.default_rng(0)
    covariates = np.stack([rng.permutation(100), rng.permutation(100)], axis=1).astype(float)
    covariates[:3] = [[50, 50], [51.5, 49.5], [50.5, 99.5]]
    among = np.ones(100, bool)
    found = like_genes(covariates, 0, 20, among=among)
    assert found[0] == 1
    assert 0 not in found
    assert 2 not in found  # as often seen, but far more expressed
    assert len(set(found.tolist())) == 20
    assert 1 not in like_genes(covariates, 0, 5, among=among & (np.arange(100) != 1))
