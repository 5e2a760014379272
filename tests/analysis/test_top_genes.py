"""Lists of genes: found where they were planted, empty where cells are dealt out anew."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import polars as pl
import pytest
import torch

from elute.analysis import specificity
from elute.analysis.tally import Tallied, Tally
from elute.analysis.top_genes import RANKED, RANKED_DEALT, dealt_out, top_genes
from elute.base.codes import Codes
from elute.base.tensors import load_npy

C, G, F, PLANTED = 240, 40, 6, 8


@pytest.fixture(scope="module")
def cells() -> pl.DataFrame:
    names = [f"c{i}" for i in range(C)]
    donors = [f"d{i % 4}" for i in range(C)]
    return pl.DataFrame({"cell": names, "split": ["train" if i % 4 < 2 else "test" for i in range(C)], "donor": donors})


@pytest.fixture(scope="module")
def tallied() -> Tallied:
    """Features 0 and 1 fire in one half of the cells, where genes 0 … 7 are high; the others fire anywhere."""
    rng = np.random.default_rng(0)
    high = rng.random(C) < 0.5
    tally = Tally(F, C, G)
    for cell in range(C):
        expression = rng.gamma(2.0, 0.5, G)
        expression[:PLANTED] += 3.0 * high[cell]
        a = np.abs(rng.normal(0.3, 0.2, (G, F))).astype(np.float32)
        a[:, :2] += 2.0 * high[cell]
        a[:, 5] = 0
        tally.update((_codes(a), np.full(G, cell), np.arange(G), expression))
    return tally.result()


def _codes(a: np.ndarray) -> Codes:
    order = np.tile(np.arange(a.shape[1], dtype=np.int32), (len(a), 1))
    return Codes(torch.from_numpy(order), torch.from_numpy(a), a.shape[1])


def test_planted_genes_are_listed_on_both_sides_and_by_chance_none(tallied: Tallied, cells: pl.DataFrame) -> None:
    found = top_genes(tallied, cells, k=20)
    assert len(found.chosen) == len(found.dealt) == F
    assert found.shown is not None
    for feature in (0, 1):
        assert set(found.chosen[feature]) == set(found.shown[feature]) == set(range(PLANTED))
    for feature in range(2, F):
        assert len(found.chosen[feature]) == 0
    assert sum(map(len, found.dealt)) == 0
    assert found.measured.all()
    assert np.allclose(found.detection, 1)
    assert (found.expression[:PLANTED] > 2 * found.expression[PLANTED:].max() - 1).all()


def test_lists_are_cut_and_in_order_whatever_the_memory(tallied: Tallied, cells: pl.DataFrame) -> None:
    whole = top_genes(tallied, cells, k=20, least_z=0.0)
    short = top_genes(tallied, cells, k=3, least_z=0.0, memory=1)
    for long, cut in zip(whole.chosen, short.chosen, strict=True):
        assert long[:3].tolist() == cut.tolist()
    assert len(whole.chosen[5]) == 0


def test_without_a_split_nothing_is_shown(tallied: Tallied, cells: pl.DataFrame) -> None:
    found = top_genes(tallied, cells.with_columns(split=pl.lit(None, pl.String)), k=20)
    assert found.shown is None
    assert set(found.chosen[0]) == set(range(PLANTED))


def test_cells_are_dealt_out_within_their_side_and_donor(tallied: Tallied, cells: pl.DataFrame) -> None:
    sides = specificity.sides(cells, tallied.cell_rows)
    deal = dealt_out(cells, sides, seed=3)
    assert sorted(deal) == list(range(C))
    assert (sides[deal] == sides).all()
    assert (cells["donor"].gather(pl.Series(deal)) == cells["donor"]).all()
    assert (deal != np.arange(C)).mean() > 0.9
    assert (dealt_out(cells, sides, seed=3) == deal).all()
    assert (dealt_out(cells.drop("donor"), sides, seed=3) != deal).any()


@pytest.mark.parametrize("memory", [1, 1 << 20])
def test_z_of_every_gene_is_written_as_correlations_say(
    tallied: Tallied, cells: pl.DataFrame, tmp_path: Path, memory: int
) -> None:
    plain = top_genes(tallied, cells, k=20)
    found = top_genes(tallied, cells, k=20, memory=memory, into=tmp_path)
    assert [each.tolist() for each in found.chosen] == [each.tolist() for each in plain.chosen]
    sides = specificity.sides(cells, tallied.cell_rows)
    every = (np.repeat(np.arange(G), F), np.tile(np.arange(F), G))
    for name, dealt in ((RANKED, None), (RANKED_DEALT, dealt_out(cells, sides, 0))):
        block = next(specificity.ranked(tallied, sides, k=1, least=3, limit=1 << 20, dealt=dealt))
        written = load_npy(tmp_path / name)
        assert (written.shape, written.dtype) == ((F, G), np.float32)
        np.testing.assert_allclose(written, block.chosen.z(*every).reshape(G, F).T, rtol=1e-6)
        assert np.isnan(written[5]).all()  # it never fires
    ranked = load_npy(tmp_path / RANKED)
    best = np.argsort(-ranked[0], kind="stable")[:PLANTED]
    assert best.tolist() == found.chosen[0].tolist()


def test_genes_that_were_hardly_measured_have_no_z(cells: pl.DataFrame, tmp_path: Path) -> None:
    rng, tally = np.random.default_rng(1), Tally(2, C, 3)
    for cell in range(C):
        genes = np.array([0, 1, 2] if cell < 2 else [0, 1])  # the third in two cells
        a = np.abs(rng.normal(1.0, 0.3, (len(genes), 2))).astype(np.float32)
        tally.update((_codes(a), np.full(len(genes), cell), genes, rng.gamma(2.0, 0.5, len(genes))))
    found = top_genes(tally.result(), cells, k=3, into=tmp_path)
    assert found.measured.tolist() == [True, True, False]
    assert np.isnan(load_npy(tmp_path / RANKED)).tolist() == [[False, False, True]] * 2
