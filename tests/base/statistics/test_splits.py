from __future__ import annotations

from collections import Counter

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elute.base.errors import ConfigError, DataError
from elute.base.statistics.splits import check_splits, draw_splits, group_folds

DONORS = [f"donor{i}" for i in np.random.default_rng(0).integers(0, 40, 4000)]


def row_shares(groups, held):
    counts = Counter(held[group] for group in groups)
    return {split: n / len(groups) for split, n in counts.items()}


@settings(max_examples=30, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 12), st.sampled_from("abc")), min_size=1, max_size=60),
    st.dictionaries(st.sampled_from(["train", "validation", "test"]), st.integers(0, 8), min_size=1),
    st.integers(0, 5),
    st.randoms(use_true_random=False),
)
def test_every_group_has_one_split_and_every_split_a_group(rows, weights, seed, random):
    groups, labels = [row[0] for row in rows], [row[1] for row in rows]
    total = sum(weights.values())
    if total == 0:
        return
    fractions = {name: weight / total for name, weight in weights.items()}
    wanted = {name for name, share in fractions.items() if share > 0}
    if len(set(groups)) < len(wanted):
        with pytest.raises(DataError, match="cannot fill"):
            draw_splits(groups, labels, fractions=fractions, seed=seed)
        return
    held = draw_splits(groups, labels, fractions=fractions, seed=seed)
    assert set(held) == set(groups)
    assert set(held.values()) == wanted
    random.shuffle(rows)
    again = draw_splits([row[0] for row in rows], [row[1] for row in rows], fractions=fractions, seed=seed)
    assert again == held
    assert check_splits((group, held[group]) for group in groups) == held


def test_rows_follow_the_fractions():
    for seed in range(5):
        shares = row_shares(DONORS, draw_splits(DONORS, seed=seed))
        assert shares["train"] == pytest.approx(0.8, abs=0.02)
        assert shares["validation"] == pytest.approx(0.1, abs=0.02)
        assert shares["test"] == pytest.approx(0.1, abs=0.02)


def test_groups_of_very_different_sizes_are_balanced_by_rows():
    groups = np.repeat(np.arange(30), np.random.default_rng(1).integers(1, 400, 30))
    shares = row_shares(groups.tolist(), draw_splits(groups, fractions={"train": 0.5, "test": 0.5}, seed=0))
    assert shares["train"] == pytest.approx(0.5, abs=0.02)


def test_labels_are_spread_over_the_splits():
    rng = np.random.default_rng(2)
    groups = np.repeat(np.arange(60), 20)
    sick = np.arange(60) < 12  # a fifth of the donors
    labels = np.where(sick[groups], "sick", "well")
    order = rng.permutation(60)
    blind, aware = [], []
    for seed in range(6):
        for found, given_labels in ((blind, None), (aware, labels)):
            held = draw_splits(order[groups], None if given_labels is None else given_labels, seed=seed)
            of_test = [g for g in range(60) if held[int(order[g])] == "test"]
            found.append(float(np.mean(sick[of_test])))
    assert min(aware) > 0.1
    assert max(aware) < 0.4
    assert np.std(aware) < 0.5 * np.std(blind)


def test_rows_may_be_given_with_their_number():
    counts = {"a": 700, "b": 60, "c": 90, "d": 200, "e": 30, "f": 120}
    rows = [name for name, n in counts.items() for _ in range(n)]
    kinds = [name in "ad" for name in rows]
    as_many = draw_splits(list(counts), [name in "ad" for name in counts], sizes=counts.values(), seed=3)
    assert as_many == draw_splits(rows, kinds, seed=3)
    assert as_many["a"] == "train"
    ungrouped = draw_splits(["x", "x", "y"], sizes=[5, 5, 10], fractions={"train": 0.5, "test": 0.5}, seed=0)
    assert ungrouped["x"] != ungrouped["y"]


def test_seeds_differ_and_containers_do_not():
    drawn = [draw_splits(DONORS, seed=seed) for seed in range(4)]
    assert len({tuple(sorted(held.items())) for held in drawn}) == 4
    # No donor is tied to a split by its name or size.
    assert len({draw_splits(range(20), seed=seed)[0] for seed in range(40)}) == 3
    for groups in (np.array(DONORS), np.array(DONORS, dtype=object), pl.Series(DONORS)):
        assert draw_splits(groups, seed=0) == drawn[0]
    named_otherwise = {"test": 0.1, "train": 0.8, "validation": 0.1}
    assert draw_splits(DONORS, fractions=named_otherwise, seed=0) == drawn[0]


def test_a_split_is_frozen():
    # A changed draw would put held-out donors of existing runs into training.
    held = {"a": "train", "b": "validation", "c": "test", "d": "train", "e": "train", "f": "train"}
    assert draw_splits(list("aabbccddeeff"), seed=0) == held


def test_three_groups_fill_three_splits_whatever_their_sizes():
    groups = ["a"] * 1000 + ["b", "c"]
    held = draw_splits(groups, seed=0)
    assert held["a"] == "train"
    assert sorted(held.values()) == ["test", "train", "validation"]


def test_a_fraction_of_zero_gets_nothing():
    held = draw_splits(["a", "b"], fractions={"train": 0.5, "validation": 0.0, "test": 0.5}, seed=0)
    assert sorted(held.values()) == ["test", "train"]


def test_many_groups_take_seconds_and_follow_the_fractions_closely():
    shares = row_shares(range(5000), draw_splits(range(5000), seed=0))
    assert shares["train"] == pytest.approx(0.8, abs=0.001)


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from("abcdefgh"), min_size=2, max_size=60), st.integers(2, 6), st.integers(0, 3))
def test_folds_part_the_groups(groups, n_folds, seed):
    names = set(groups)
    if len(names) < 2:
        return
    if len(names) < n_folds:
        with pytest.raises(DataError, match="cannot fill"):
            group_folds(groups, n_folds=n_folds, seed=seed)
        return
    held = group_folds(groups, n_folds=n_folds, seed=seed)
    assert set(held) == names
    assert set(held.values()) == set(range(n_folds))
    assert held == group_folds(groups[::-1], n_folds=n_folds, seed=seed)


def test_folds_are_even_in_rows_and_labels():
    groups = np.repeat(np.arange(50), 10)
    labels = np.where(groups < 10, "rare", "common")
    held = group_folds(groups, labels, n_folds=5, seed=0)
    assert sorted(Counter(held.values()).values()) == [10] * 5
    assert sorted(Counter(fold for group, fold in held.items() if group < 10).values()) == [2] * 5


def test_leaving_out_one_group_at_a_time():
    assert group_folds(["b", "a", "c", "a"], n_folds="leave-one-out", seed=0) == {"a": 0, "b": 1, "c": 2}


def test_a_group_in_two_splits_is_named():
    with pytest.raises(DataError) as caught:
        check_splits([("d1", "train"), ("d2", "test"), ("d1", "test")])
    assert str(caught.value) == (
        "check_splits: group 'd1' lies in both 'train' and 'test'. Draw the splits by group, with draw_splits."
    )
    assert check_splits([("d1", "train"), ("d1", "train"), ("d2", "test")]) == {"d1": "train", "d2": "test"}


@pytest.mark.parametrize(
    ("kind", "call", "line"),
    [
        (
            DataError,
            lambda: draw_splits(["a", "b"], seed=0),
            "draw_splits(groups): 2 groups cannot fill 3 splits. Give at least 3 groups, or set a fraction to 0.",
        ),
        (DataError, lambda: draw_splits([], seed=0), "draw_splits(groups): is empty. Give one name a row."),
        (
            DataError,
            lambda: draw_splits(["a", None, "b"], seed=0),
            "draw_splits(groups): row 1 has no name. Name it or drop the row.",
        ),
        (
            DataError,
            lambda: draw_splits(["a", "b"], ["x"], seed=0),
            "draw_splits(labels): has 1 entries for 2 rows. Give one entry a row.",
        ),
        (
            DataError,
            lambda: draw_splits(["a", "b"], ["x", None], seed=0),
            "draw_splits(labels): row 1 has no name. Name it or drop the row.",
        ),
        (
            ConfigError,
            lambda: draw_splits(["a"], fractions={}, seed=0),
            "draw_splits(fractions): is empty. Give, say, {'train': 0.8, 'test': 0.2}.",
        ),
        (
            ConfigError,
            lambda: draw_splits(["a"], fractions={"train": 0.5}, seed=0),
            "draw_splits(fractions): they add up to 0.5. Make them add up to 1.",
        ),
        (
            ConfigError,
            lambda: draw_splits(["a"], fractions={"train": 1.2, "test": -0.2}, seed=0),
            "draw_splits(fractions): 'train' is 1.2. A fraction lies between 0 and 1.",
        ),
        (
            ConfigError,
            lambda: draw_splits(["a"], fractions={"train": float("nan")}, seed=0),
            "draw_splits(fractions): 'train' is nan. A fraction lies between 0 and 1.",
        ),
        (
            ConfigError,
            lambda: draw_splits(["a"], seed=1.5),
            "draw_splits(seed): 1.5 is not a whole number of at least 0. Give 0 or more.",
        ),
        (
            DataError,
            lambda: group_folds(["a", "a"], n_folds=2, seed=0),
            "group_folds(groups): one group only. Give at least 2 groups.",
        ),
        (
            DataError,
            lambda: group_folds(["a", "b"], n_folds=3, seed=0),
            "group_folds(groups): 2 groups cannot fill 3 folds. Give at least 3 groups, or fewer folds.",
        ),
        (
            ConfigError,
            lambda: group_folds(["a", "b"], n_folds=1, seed=0),
            "group_folds(n_folds): 1 is not a whole number of at least 2. Give 2 or more.",
        ),
        (
            ConfigError,
            lambda: group_folds(["a", "b"], n_folds="all", seed=0),
            "group_folds(n_folds): 'all' is not a choice. Give a number, or 'leave-one-out'.",
        ),
        (
            DataError,
            lambda: draw_splits(["a", "b"], sizes=[3, 0], seed=0),
            "draw_splits(sizes): is not one number of 1 or more a row. Leave out rows that stand for none.",
        ),
        (
            DataError,
            lambda: draw_splits(["a", "b"], sizes=[3], seed=0),
            "draw_splits(sizes): is not one number of 1 or more a row. Leave out rows that stand for none.",
        ),
        (DataError, lambda: check_splits([]), "check_splits: there are no rows. Give one (group, split) a row."),
    ],
)
def test_refusals(kind, call, line):
    with pytest.raises(kind) as caught:
        call()
    assert str(caught.value) == line
