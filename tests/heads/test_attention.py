"""Attention over tokens: its weights by hand, what it learns, and what it may not look at."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch

from elute.base.codes import Codes
from elute.base.errors import DataError
from elute.heads.attention import (
    AttentionPool,
    TokenCodes,
    attention_pooling,
    attention_weights,
    fit_attention,
    pool_by_attention,
)
from elute.heads.crossval import group_folds, nested
from elute.heads.settings import AttentionConfig, HeadConfig

CONFIG = HeadConfig(loss="mse", model="ridge", pool="attention", attention_heads=2, folds=3, penalties=(0.01,))
SHORT = AttentionConfig(width=8, epochs=60, batch_size=32, lr=0.03)


def bags(n: int = 120, tokens: int = 8, *, seed: int = 0) -> tuple[TokenCodes, np.ndarray, np.ndarray]:
    """Samples of tokens; code 0 marks the token whose codes 1 and 2 make the gene, in the others they are noise."""
    rng = np.random.default_rng(seed)
    dense = np.zeros((n * tokens, 6), dtype="f4")
    dense[:, 1:3] = rng.exponential(1, (n * tokens, 2))
    dense[:, 3:] = rng.exponential(1, (n * tokens, 3)) * (rng.random((n * tokens, 3)) < 0.5)
    marked = np.arange(n) * tokens + rng.integers(0, tokens, n)
    dense[marked, 0] = 2.0
    y = (dense[marked, 1] - dense[marked, 2])[:, None] + 0.1 * rng.normal(size=(n, 1))
    order = rng.permutation(n * tokens)  # tokens in any order
    codes = Codes.from_dense(torch.from_numpy(dense[order]), 6)
    return TokenCodes(codes, (np.arange(n * tokens) // tokens)[order], n), y, np.arange(n) % 6


def test_weights_by_hand() -> None:
    tokens, _, _ = bags(5, 3)
    pool = AttentionPool(6, heads=2, width=4, seed=1)
    pool.scale = torch.tensor([1.0, 2.0, 1.0, 0.5, 1.0, 1.0])
    found = attention_weights(pool, tokens)
    z = (tokens.codes.dense() / pool.scale).double().numpy()
    v, u = (p.detach().double().numpy().reshape(6, 2, 4) for p in (pool.V, pool.U))
    gate = np.tanh(np.einsum("tk,khw->thw", z, v)) / (1 + np.exp(-np.einsum("tk,khw->thw", z, u)))
    score = (gate * pool.u.detach().double().numpy()).sum(-1)
    for s in range(5):
        at = tokens.sample == s
        raised = np.exp(score[at])
        np.testing.assert_allclose(found[at], raised / raised.sum(0), atol=1e-6)
    pooled = pool_by_attention(pool, tokens).toarray()
    dense = tokens.codes.dense().double().numpy()
    by_hand = [(found[tokens.sample == s].mean(1)[:, None] * dense[tokens.sample == s]).sum(0) for s in range(5)]
    np.testing.assert_allclose(pooled, by_hand, atol=1e-6)


def test_it_finds_the_token_that_counts_and_predicts_from_it() -> None:
    tokens, y, groups = bags()
    folds = group_folds(groups, folds=3, seed=0)
    prepare = attention_pooling(tokens, y, config=CONFIG, settings=SHORT, groups=groups)
    found = nested(None, y, folds, groups=groups, config=CONFIG, prepare=prepare)
    even = np.zeros((120, 6))
    np.add.at(even, tokens.sample, tokens.codes.dense().numpy() / 8)
    plain = nested(even, y, folds, groups=groups, config=CONFIG)

    def r2(p: Any) -> float:
        return float(1 - ((p.measured - p.predicted) ** 2).sum() / ((p.measured - p.reference) ** 2).sum())

    assert r2(found.predictions) > 0.7
    assert r2(plain.predictions) < 0.3
    pool = fit_attention(tokens, y, np.arange(120), config=CONFIG, settings=SHORT, groups=groups)
    weight = attention_weights(pool, tokens).mean(1)
    marked = tokens.codes.dense()[:, 0].numpy() > 0
    assert weight[marked].mean() > 0.6


@pytest.mark.parametrize("loss", ["mse", "poisson"])
def test_only_the_rows_that_are_named_are_looked_at(loss: Any) -> None:
    tokens, y, groups = bags(40, 4)
    y = np.rint(np.exp(y)) if loss == "poisson" else y
    config = CONFIG.model_copy(update={"loss": loss})
    short = SHORT.model_copy(update={"epochs": 3})
    rows = np.arange(30)
    one = fit_attention(tokens, y, rows, config=config, settings=short, groups=groups)
    other = y.copy()
    other[30:] += 7
    moved = tokens.codes.values.clone()
    moved[torch.from_numpy(tokens.sample >= 30)] *= 3
    changed = TokenCodes(Codes(tokens.codes.indices, moved, 6), tokens.sample, 40)
    two = fit_attention(changed, other, rows, config=config, settings=short, groups=groups)
    for name, value in one.state_dict().items():
        assert torch.equal(value, two.state_dict()[name]), name


def test_many_genes_and_samples_without_tokens() -> None:
    tokens, y, groups = bags(40, 4)
    many = np.random.default_rng(0).normal(size=(40, 50)) + y
    short = SHORT.model_copy(update={"epochs": 2})
    pool = fit_attention(tokens, many, np.arange(40), config=CONFIG, settings=short, groups=groups)
    wider = TokenCodes(tokens.codes, tokens.sample, 42)
    assert not pool_by_attention(pool, wider).toarray()[40:].any()
    with pytest.raises(DataError, match="sample numbers lie outside"):
        TokenCodes(tokens.codes, tokens.sample, 3)
    with pytest.raises(DataError, match="sample numbers for 160 tokens"):
        TokenCodes(tokens.codes, tokens.sample[:3], 40)
