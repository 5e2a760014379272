"""Reference lists: against sorting everything, in any order, in parts, without padding, ties by sample id."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elute.analysis.prototypes import KINDS, Candidates, References
from elute.analysis.prototypes_lists import candidates
from elute.analysis.relevance import crp_relmax, explanations
from elute.analysis.relevance_head import Explained
from elute.base.codes import Codes
from elute.base.errors import ConfigError, DataError

K = 12
KEY = ("relmax", "sum", "+")


def head(pool: str = "mean", seed: int = 0) -> Explained:
    rng = np.random.default_rng(seed)
    return Explained.of([(rng.normal(size=(2, K)), rng.normal(size=2))], genes=["A", "B"], pool=pool)


def dense(seed: int, samples: int = 11, tokens: int = 4) -> np.ndarray:
    """Codes with many equal values: ties are the rule."""
    rng = np.random.default_rng(seed)
    return rng.integers(-2, 4, (samples, tokens, K)) * (rng.random((samples, tokens, K)) < 0.4) * 1.0


def batches(z: np.ndarray, names: list[str]) -> list[tuple[Codes, pl.DataFrame]]:
    made = []
    for rows, name in zip(z, names, strict=True):
        frame = pl.DataFrame(
            {
                "sample_id": [name] * len(rows),
                "token_rc": pl.Series([[i, 2 * i] for i in range(len(rows))], dtype=pl.Array(pl.Int32, 2)),
            }
        )
        made.append((Codes.from_dense(torch.from_numpy(rows), K, by="magnitude"), frame))
    return made


def by_sorting(scores: dict[str, float], k: int) -> list[tuple[str, float]]:
    """The k best above 0; of equal scores the lowest sample id first."""
    return sorted(((n, s) for n, s in scores.items() if s > 0), key=lambda each: (-each[1], each[0]))[:k]


def tables(z: np.ndarray, w: np.ndarray) -> dict[tuple[str, str], np.ndarray]:
    """T of each sample and code by kind and target, for mean pooling: largest and smallest are asked of tokens."""
    relevance = z / z.shape[1] * w
    return {("relmax", "sum"): relevance.sum(1), ("actmax", "sum"): z.sum(1),
            ("relmax", "max+"): relevance.max(1), ("relmax", "max-"): relevance.min(1),
            ("actmax", "max+"): z.max(1), ("actmax", "max-"): z.min(1)}  # fmt: skip


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 10_000), st.integers(1, 14))
def test_lists_are_what_sorting_gives(seed: int, k: int) -> None:
    z = dense(seed)
    names = [f"sample {i}" for i in np.random.default_rng(seed).permutation(len(z))]
    found = crp_relmax(head(), batches(z, names), {"y": "B"}, k=k, kinds=KINDS, rule="epsilon")
    told = tables(z, head().layers[0].weight[1])
    lists = found.references
    for kind in KINDS:
        base = kind.removesuffix("_normed")
        for target in ("sum", "max"):
            for sign in ("+", "-"):
                table = told[base, target if target == "sum" else target + sign]
                if kind != base:
                    table = table / np.maximum(np.abs(table).sum(1, keepdims=True), 1e-300)
                for code in range(K):
                    height = table[:, code] * (1 if sign == "+" else -1)
                    expected = by_sorting(dict(zip(names, np.round(height, 9), strict=True)), k)
                    mine = lists.filter(
                        (pl.col("kind") == kind) & (pl.col("target") == target) & (pl.col("sign") == sign)
                        & (pl.col("code") == code)
                    )  # fmt: skip
                    assert mine["rank"].to_list() == list(range(1, len(expected) + 1))
                    assert mine["score"].to_list() == pytest.approx([s for _, s in expected], rel=1e-6)
                    if base == kind == "actmax":  # whole numbers: ties are exact
                        assert mine["sample_id"].to_list() == [n for n, _ in expected]


def test_a_list_says_where_the_strongest_patch_is() -> None:
    z = dense(3)
    names = [f"s{i:02d}" for i in range(len(z))]
    lists = crp_relmax(head(), batches(z, names), {"y": "A"}, k=5).references
    weight = head().layers[0].weight[0]
    assert len(lists)
    for row in lists.iter_rows(named=True):
        tokens = z[names.index(row["sample_id"]), :, row["code"]]
        relevance = tokens / 4 * weight[row["code"]]
        ranked = relevance if row["kind"] == "relmax" else tokens
        best = int(np.argmax(ranked) if row["sign"] == "+" else np.argmin(ranked))
        assert ranked[row["row"]] == ranked[best]
        assert row["col"] == 2 * row["row"]
        whole = row["target"] == "sum"
        assert row["relevance"] == pytest.approx(relevance.sum() if whole else relevance[row["row"]], rel=1e-6)
        assert row["activation"] == pytest.approx(tokens.sum() if whole else tokens[row["row"]])


@settings(max_examples=6, deadline=None)
@given(st.integers(0, 10_000), st.permutations(range(11)), st.integers(1, 10))
def test_lists_depend_on_no_order_and_no_cut(seed: int, order: list[int], cut: int) -> None:
    z = dense(seed)
    parts = batches(z, [f"s{i:02d}" for i in range(len(z))])

    def lists(chosen: list[Any], into: References | None = None) -> References:
        made = into or References(K, 4, kinds=KINDS)
        for part in chosen:
            for found in explanations(head(), [part], {"y": 0}):
                made.update(candidates(found, KINDS), found.tokens.places)
        return made

    whole = lists(parts)
    first, second = ([parts[i] for i in order[a:b]] for a, b in ((0, cut), (cut, None)))
    merged = lists(second)
    merged.merge(lists(first))
    resumed = lists(second, References.from_state(lists(first).state()))
    assert whole.result().equals(merged.result())
    assert whole.result().equals(resumed.result())
    assert whole.result().equals(lists([*parts, *first]).result())  # a sample that comes again stands there once


def test_places_that_no_list_names_are_forgotten() -> None:
    made = References([5], 2)
    for i in range(40):
        found = {
            KEY: Candidates(*(np.array([v]) for v in (5, i + 1.0, 0)), np.zeros((1, 2), np.int32), *np.zeros((2, 1)))
        }
        made.update(found, [f"s{i:03d}\0tile"])
    assert made.state()["names"] == ["s038\0tile", "s039\0tile"]
    assert made.of(5) == [("s039", 40.0), ("s038", 39.0)]
    assert made.result()["tile_id"].to_list() == ["tile", "tile"]
    back = References.from_state(json.loads(json.dumps(made.state(), default=lambda a: a.tolist())))
    assert back.result().equals(made.result())


def test_lists_of_some_codes_alone() -> None:
    z = dense(1)
    parts = batches(z, [f"s{i:02d}" for i in range(len(z))])
    whole = crp_relmax(head(), parts, {"y": 0}, kinds=KINDS).references
    some = crp_relmax(head(), parts, {"y": 0}, kinds=KINDS, codes=[7, 2]).references
    assert some.equals(whole.filter(pl.col("code").is_in([2, 7])))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"scores": np.array([-1.0])}, "is not above 0"),
        ({"scores": np.array([np.nan])}, "is not above 0"),
    ],
)
def test_scores_that_cannot_be_ranked_are_refused(change: dict[str, Any], told: str) -> None:
    one = Candidates(np.array([1]), np.array([1.0]), np.array([0]), np.zeros((1, 2), np.int32), np.ones(1), np.ones(1))
    with pytest.raises(DataError, match=told):
        References(K, 2).update({KEY: one._replace(**change)}, ["a"])


def test_lists_of_other_settings_are_not_merged() -> None:
    made = References(K, 2)
    for other in (References(K, 3), References(K, 2, kinds=["actmax"]), References(K - 1, 2)):
        with pytest.raises(DataError, match="cannot be merged"):
            made.merge(other)
    with pytest.raises(ConfigError, match="there is no list 'relmaxx' of references. Did you mean"):
        References(K, 2, kinds=["relmaxx"])
    with pytest.raises(DataError, match="this is the state of 'TopK'"):
        References.from_state({"statistic": "TopK"})
    state = made.state()
    with pytest.raises(DataError, match="scores in the state of References is"):
        References.from_state({**state, "scores": state["scores"][:1]})
    with pytest.raises(DataError, match="places in the state"):
        References.from_state({**state, "places": state["places"] + 5})
