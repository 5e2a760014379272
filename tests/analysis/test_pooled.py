from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import polars as pl
import pytest
from scipy import sparse

from elute.analysis import pooled as m
from elute.base.errors import DamagedError, DataError
from elute.base.statistics.ranks import rank_sum

RNG = np.random.default_rng(5)
C, F = 90, 17
TOKENS = RNG.integers(1, 9, C)


def stand_in(sums, highs, tokens=TOKENS):
    """An object like Tallied over dense [cells, features]."""

    def blocks(most_pairs):
        stored = (highs != 0).sum(0)
        first = 0
        while first < F:
            stop = first + 1
            while stop < F and stored[first : stop + 1].sum() <= most_pairs:
                stop += 1
            part = sparse.csc_array(highs[:, first:stop])
            cells, features = part.indices, np.repeat(np.arange(first, stop), np.diff(part.indptr))
            yield SimpleNamespace(
                first=first,
                stop=stop,
                indptr=part.indptr.astype(np.int64),
                others=cells.astype(np.int32),
                sums=sums[cells, features],
                highs=part.data.astype(np.float32),
            )
            first = stop

    return SimpleNamespace(cell_rows=tokens, cells=SimpleNamespace(blocks=blocks))


HIGHS = (RNG.integers(1, 6, (C, F)) * (RNG.random((C, F)) < RNG.random(F))).astype(np.float32)
HIGHS[:, 3] = 0
SUMS = HIGHS * RNG.integers(1, 4, (C, F)).astype(float)


def test_means_are_over_all_tokens_of_a_cell():
    whole = list(m.pooled(stand_in(SUMS, HIGHS)))
    assert [(block.first, block.stop) for block in whole] == [(0, F)]
    np.testing.assert_allclose(whole[0].mean.toarray(), SUMS / TOKENS[:, None])
    np.testing.assert_array_equal(whole[0].highs.toarray(), HIGHS)
    np.testing.assert_array_equal(whole[0].sums.toarray(), SUMS)


def test_blocks_are_bounded_and_together_are_the_same(monkeypatch):
    parts = list(m.pooled(stand_in(SUMS, HIGHS), most=100))
    assert len(parts) > 3
    assert all(p.mean.nnz <= 100 or p.stop == p.first + 1 for p in parts)
    assert [p.first for p in parts[1:]] == [p.stop for p in parts[:-1]]
    np.testing.assert_allclose(np.hstack([p.mean.toarray() for p in parts]), SUMS / TOKENS[:, None])
    monkeypatch.setattr(m, "FEATURES", 4)
    narrow = list(m.pooled(stand_in(SUMS, HIGHS)))
    assert [(p.first, p.stop) for p in narrow] == [(0, 4), (4, 8), (8, 12), (12, 16), (16, 17)]
    np.testing.assert_array_equal(np.hstack([p.highs.toarray() for p in narrow]), HIGHS)


def test_a_sum_that_cancels_is_no_activation():
    sums = SUMS.copy()
    cell, feature = np.argwhere(HIGHS)[0]
    sums[cell, feature] = 0
    block = next(m.pooled(stand_in(sums, HIGHS)))
    assert block.mean.nnz == block.highs.nnz - 1
    np.testing.assert_array_equal(block.highs.toarray(), HIGHS)


def test_a_cell_without_tokens_cannot_have_fired():
    with pytest.raises(DamagedError, match="in a cell that has no tokens"):
        list(m.pooled(stand_in(SUMS, HIGHS, np.zeros(C, int))))


def test_the_real_tally_gives_the_same():
    import torch

    from elute.analysis.tally import Tally
    from elute.base.codes import Codes

    cells = np.repeat(np.arange(C), TOKENS)
    dense = RNG.random((len(cells), F)).astype(np.float32) * (RNG.random((len(cells), F)) < 0.2)
    tally = Tally(F, C, 5)
    for at in np.array_split(np.arange(len(cells)), 3):
        codes = Codes.from_dense(torch.tensor(dense[at]), F)
        tally.update((codes, cells[at], RNG.integers(0, 5, len(at)), np.ones(len(at))))
    tallied = tally.result()
    block = next(m.pooled(tallied))
    member = np.arange(C)[:, None] == cells
    np.testing.assert_allclose(block.mean.toarray(), member @ dense / TOKENS[:, None], rtol=1e-6)
    highs = [[max(dense[member[c], f]) for f in range(F)] for c in range(C)]
    np.testing.assert_allclose(block.highs.toarray(), highs)


def test_top_cells_are_the_first_of_a_plain_sort():
    choosing = RNG.random(C) < 0.7
    for most in (1, 5, 200):
        top = m.top_cells(next(m.pooled(stand_in(SUMS, HIGHS))), choosing, most=most)
        wanted = [
            (f, c, HIGHS[c, f])
            for f in range(F)
            for c in sorted((c for c in range(C) if choosing[c] and HIGHS[c, f]), key=lambda c: (-HIGHS[c, f], c))[
                :most
            ]
        ]
        assert list(zip(top.features, top.cells, top.highs, strict=True)) == wanted


def test_features_of_a_block_keep_their_numbers_among_top_cells():
    blocks = list(m.in_blocks(HIGHS, width=5))
    features = np.concatenate([m.top_cells(b, np.ones(C, bool), most=3).features for b in blocks])
    assert set(features) == set(range(F)) - {3}


def test_a_cell_below_zero_is_no_top_cell():
    top = m.top_cells(next(m.in_blocks([[-1.0], [0.0], [2.0]])), np.ones(3, bool), most=3)
    assert top.cells.tolist() == [2]


def awkward():
    """Columns of every kind: tied, dense, negative, silent, constant, with one zero."""
    x = HIGHS.astype(float).copy()
    x[:, 0] = RNG.normal(size=C)
    x[:, 1] = np.where(RNG.random(C) < 0.5, RNG.normal(size=C).round(1), 0)
    x[:, 2] = 4.0
    x[:, 4] = RNG.integers(1, 3, C)
    x[0, 4] = 0
    x[:, 5] = -HIGHS[:, 5]
    return x


@pytest.mark.parametrize("levels", [2, 6])
def test_levels_are_tested_as_masks_are(levels):
    x, codes = awkward(), RNG.integers(0, levels, C)
    columns = m.csc(x, "x")
    ranked = m.rank_stored(columns)
    wanted = rank_sum(x, codes[:, None] == np.arange(levels))
    np.testing.assert_allclose(m.level_u(ranked, codes, levels), wanted.u, atol=1e-9)
    np.testing.assert_allclose(m.level_auroc(ranked, codes, levels), wanted.auroc, atol=1e-12)
    p = m.level_p(columns, ranked, codes, tested=np.ones(levels, bool))
    np.testing.assert_allclose(p, wanted.p, rtol=1e-9)
    some = np.arange(levels) > 0
    fewer = m.level_p(columns, ranked, codes, tested=some)
    np.testing.assert_allclose(fewer[1:], p[1:], rtol=1e-9)
    assert np.isnan(fewer[0]).all()


def test_the_far_tail_is_told_as_masks_tell_it():
    """Strong and weak separation both ways, where only one tail is computed."""
    codes = (np.arange(400) < 40).astype(int)
    shift = np.linspace(-3, 3, 25)
    x = np.maximum(RNG.normal(size=(400, 25)) + codes[:, None] * shift, 0)
    columns = m.csc(x, "x")
    p = m.level_p(columns, m.rank_stored(columns), codes, tested=np.ones(2, bool))
    wanted = rank_sum(x, codes[:, None] == np.arange(2))
    np.testing.assert_allclose(p, wanted.p, rtol=1e-9)
    assert p.min() < 1e-10
    assert p.max() > 0.3


def test_a_level_without_cells_has_no_auroc():
    ranked = m.rank_stored(m.csc(HIGHS, "x"))
    auroc = m.level_auroc(ranked, np.zeros(C, int), 2)
    assert np.isnan(auroc).all()


def test_who_chooses():
    choosing, shown = m.sides(pl.DataFrame({"split": ["train", "test", "val", None]}))
    assert choosing.tolist() == [True, False, False, False]
    assert shown.tolist() == [False, True, False, False]
    for frame in (
        pl.DataFrame({"cell": ["a", "b"]}),
        pl.DataFrame({"split": pl.Series([None, None], dtype=pl.String)}),
    ):
        choosing, shown = m.sides(frame)
        assert choosing.all()
        assert shown is None
    assert m.sides(pl.DataFrame({"split": ["train", "train"]}))[1] is None
    with pytest.raises(DataError, match="^cells: no cell is of split 'train', only of: test. Split the store"):
        m.sides(pl.DataFrame({"split": ["test", "test"]}))


def test_what_is_no_matrix_of_numbers_is_refused():
    with pytest.raises(DataError, match="has 1 dimensions"):
        next(m.in_blocks(np.zeros(3)))
    with pytest.raises(DataError, match="NaN or infinity"):
        next(m.in_blocks([[np.nan]]))
