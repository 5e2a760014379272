"""Pooling in one pass against pooling of the dense table."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elute.base.codes import Codes
from elute.base.errors import ConfigError, DataError
from elute.heads import pooling
from elute.heads.pooling import pool_codes


def drawn(seed: int, tokens: int = 60, features: int = 9, *, k: int = 4) -> tuple[Codes, np.ndarray]:
    rng = np.random.default_rng(seed)
    dense = torch.from_numpy(rng.normal(size=(tokens, features)).astype("f4"))
    dense[rng.random((tokens, features)) < 0.3] = 0
    sample = rng.integers(0, 5, tokens)
    sample[sample == 3] = 4  # sample 3 has no token
    return Codes.from_dense(dense, k, by="magnitude"), sample


def by_hand(codes: Codes, sample: np.ndarray, how: str) -> np.ndarray:
    dense = codes.dense().double().numpy()
    out = np.zeros((5, codes.n_features))
    for s in set(sample.tolist()):
        rows = dense[sample == s]
        out[s] = rows.mean(0) if how == "mean" else rows.max(0)
    return out


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 10_000), cuts=st.lists(st.integers(0, 60), max_size=4), k=st.integers(0, 9))
@pytest.mark.parametrize("how", ["mean", "max"])
def test_any_batches_give_what_the_table_gives(how: Any, seed: int, cuts: list[int], k: int) -> None:
    codes, sample = drawn(seed, k=k)
    edges = [0, *sorted(cuts), 60]
    batches = [(codes[a:b], sample[a:b]) for a, b in itertools.pairwise(edges)]
    found = pool_codes(batches, samples=5, n_features=9, how=how)
    np.testing.assert_allclose(found.codes.toarray(), by_hand(codes, sample, how), atol=1e-6)
    assert found.tokens.tolist() == np.bincount(sample, minlength=5).tolist()
    assert found.codes.has_sorted_indices


def test_merging_on_the_way_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    codes, sample = drawn(1)
    batches = [(codes[i : i + 3], torch.from_numpy(sample[i : i + 3])) for i in range(0, 60, 3)]
    monkeypatch.setattr(pooling, "_AT_ONCE", 5)
    found = pool_codes(batches, samples=5, n_features=9, how="max")
    np.testing.assert_allclose(found.codes.toarray(), by_hand(codes, sample, "max"), atol=1e-6)


def test_a_code_that_is_negative_in_every_token_stays_negative() -> None:
    codes = Codes(torch.tensor([[1], [1]], dtype=torch.int32), torch.tensor([[-2.0], [-1.0]]), 3)
    assert pool_codes([(codes, [0, 0])], samples=1, n_features=3, how="max").codes.toarray().tolist() == [[0, -1, 0]]
    assert pool_codes([(codes, [0, 1])], samples=2, n_features=3, how="max").codes.toarray()[:, 1].tolist() == [-2, -1]


def test_nothing_and_what_is_wrong() -> None:
    assert pool_codes([], samples=2, n_features=3, how="mean").codes.shape == (2, 3)
    codes, sample = drawn(0)
    for batch, samples, features, how, says, kind in (
        ((codes, sample), 4, 9, "mean", "a token is of sample 4, of 4", DataError),
        ((codes, sample[:5]), 5, 9, "mean", "5 sample numbers for 60 tokens", DataError),
        ((codes, sample), 5, 8, "mean", "codes of 9 features among those of 8", DataError),
        ((codes, sample), 5, 9, "median", "pool 'median' is not known here", ConfigError),
    ):
        with pytest.raises(kind, match=says):
            pool_codes([batch], samples=samples, n_features=features, how=how)  # type: ignore[arg-type]
    bad = Codes(codes.indices, codes.values * torch.nan, 9)
    with pytest.raises(DataError, match="NaN or infinity in codes"):
        pool_codes([(bad, sample)], samples=5, n_features=9, how="mean")
