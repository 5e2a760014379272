"""Rows for dead features are drawn as Plackett and Luce say: without replacement, by squared error."""

from __future__ import annotations

from collections import Counter

import torch
from scipy.stats import chisquare

from elute.engine.dead import draw_rows


def test_pairs_come_as_often_as_plackett_and_luce_say() -> None:
    squared = torch.tensor([1.0, 2.0, 3.0, 0.5], dtype=torch.float64)
    weights = (squared / squared.sum()).tolist()
    found = Counter(tuple(draw_rows(squared, 2, seed=(7, i)).tolist()) for i in range(4000))
    pairs = [(a, b) for a in range(4) for b in range(4) if a != b]
    wanted = [4000 * weights[a] * weights[b] / (1 - weights[a]) for a, b in pairs]
    assert set(found) == set(pairs)
    assert chisquare([found[pair] for pair in pairs], wanted).pvalue > 0.01


def test_no_row_comes_twice_and_none_without_error() -> None:
    squared = torch.rand(500, generator=torch.Generator().manual_seed(0))
    squared[::2] = 0
    drawn = draw_rows(squared, 250, seed=(1,)).tolist()
    assert sorted(drawn) == list(range(1, 500, 2)), "rows without an error come after all others"
    assert len(draw_rows(squared, 9000, seed=(1,))) == 500
    assert draw_rows(squared, 0, seed=(1,)).tolist() == []


def test_the_seed_decides() -> None:
    squared = torch.ones(100)
    first = draw_rows(squared, 10, seed=(1, 2)).tolist()
    assert first == draw_rows(squared, 10, seed=(1, 2)).tolist()
    assert first != draw_rows(squared, 10, seed=(1, 3)).tolist()
