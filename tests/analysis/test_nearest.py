from __future__ import annotations

import numpy as np
import pytest
import torch

from elute.analysis import nearest as m
from elute.base.errors import DataError

RNG = np.random.default_rng(51)
W = RNG.normal(size=(60, 7))


def plain(rows, most, alive):
    """Every pair by itself."""
    found = []
    for i, a in enumerate(rows):
        others = [j for j in range(len(rows)) if j != i and alive[i] and alive[j]]
        close = {j: a @ rows[j] / np.linalg.norm(a) / np.linalg.norm(rows[j]) for j in others}
        found.append(sorted(close.items(), key=lambda x: -x[1])[:most])
    return found


@pytest.mark.parametrize("products", [1, 500, 1 << 24])
@pytest.mark.parametrize("silent", [0, 20])
def test_every_pair_by_itself_gives_the_same(monkeypatch, products, silent):
    monkeypatch.setattr(m, "PRODUCTS", products)
    alive = np.arange(60) >= silent
    found = m.nearest(torch.tensor(W), alive=alive)
    wanted = plain(W, 10, alive)
    names, cosines = found.lists()
    assert names == [[j for j, _ in row] for row in wanted]
    for ours, row in zip(cosines, wanted, strict=True):
        np.testing.assert_allclose(ours, [c for _, c in row], atol=1e-6)
    assert (found.features[:silent] == -1).all()
    assert np.isnan(found.cosines[:silent]).all()


def test_lengths_do_not_matter_and_nothing_has_no_direction():
    rows = torch.tensor([[1.0, 0.0], [50.0, 50.0], [0.0, 0.0], [-3.0, 0.0]])
    names, cosines = m.nearest(rows).lists()
    assert names == [[1, 3], [0, 3], [], [1, 0]]
    np.testing.assert_allclose(cosines[0], [2**-0.5, -1], atol=1e-6)
    assert m.nearest(rows).features.shape == (4, 10)


def test_of_equals_the_earlier_feature_comes_first():
    names, cosines = m.nearest(torch.ones(8, 3), most=7).lists()
    assert names == [[j for j in range(8) if j != i] for i in range(8)]
    assert max(max(row) for row in cosines) <= 1


def test_few_features_have_few_neighbours():
    assert m.nearest(torch.ones(1, 3)).lists() == ([[]], [[]])
    assert m.nearest(torch.ones(0, 3)).lists() == ([], [])
    assert m.nearest(torch.ones(3, 3), alive=[True, False, False]).lists()[0] == [[], [], []]


def test_half_precision_is_widened():
    half = m.nearest(torch.tensor(W).half())
    assert (half.features[:, 0] == m.nearest(torch.tensor(W)).features[:, 0]).all()


def test_bad_input_is_refused():
    with pytest.raises(DataError, match=r"is torch.float32 of shape \(3,\)"):
        m.nearest(torch.zeros(3))
    with pytest.raises(DataError, match="is torch.int64"):
        m.nearest(torch.zeros(3, 2, dtype=torch.int64))
    with pytest.raises(DataError, match="NaN or infinity"):
        m.nearest(torch.tensor([[float("nan"), 1.0]]))
    with pytest.raises(DataError, match="has 2 entries for 3 rows"):
        m.nearest(torch.ones(3, 2), alive=[True, False])
