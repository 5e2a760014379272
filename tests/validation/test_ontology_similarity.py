"""Likeness of terms and of profiles, as plain loops have it; the null is flat for profiles that are made like it."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from elute.base.errors import ConfigError, DataError
from elute.validation.ontology import branch
from elute.validation.ontology_similarity import (
    best_match_average,
    common_ancestor,
    match,
    match_in_parts,
    profiles,
    similarity,
)


def load(name: str) -> ModuleType:
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, Path(__file__).parent / f"{name}.py")
        assert spec is not None
        assert spec.loader is not None
        module = sys.modules[name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    return sys.modules[name]


made_up = load("made_up_ontology")
random_branch, Plain, ontology, pairs = made_up.random_branch, made_up.Plain, made_up.ontology, made_up.pairs


def plain_information(plain: Any) -> dict[str, float]:
    content: dict[str, float] = {}
    for term in reversed(plain.deepest_first()):
        n = len(plain.genes[term])
        content[term] = (
            -np.log(n / len(plain.population)) if n else max((content[up] for up in plain.parents[term]), default=0.0)
        )
    return content


def plain_likeness(plain: Any, content: dict[str, float], ends: tuple[str, str], measure: str) -> float:
    a, b = ends
    shared = max(content[term] for term in (plain.above(a) | {a}) & (plain.above(b) | {b}))
    if measure == "resnik":
        return shared
    both = content[a] + content[b]
    return 2 * shared / both if both > 0 else 0.0


def draw(found: Any, rng: np.random.Generator, n: int, most: int = 6) -> dict[str, list[str]]:
    return {f"p{i}": rng.choice(found.terms, rng.integers(1, most), replace=False).tolist() for i in range(n)}


@given(st.integers(0, 10_000), st.sampled_from(["resnik", "lin"]))
@settings(max_examples=15, deadline=None)
def test_likeness_is_that_of_plain_loops(seed: int, measure: Any) -> None:
    found = random_branch(seed, density=0.02)
    plain, terms = Plain(found), list(found.terms)
    content = plain_information(plain)
    known = {(a, b): plain_likeness(plain, content, (a, b), measure) for a in terms for b in terms}
    alike = similarity(found, terms, terms, measure=measure)
    expected = np.array([[known[a, b] for b in terms] for a in terms])
    np.testing.assert_allclose(alike, expected, rtol=1e-12, atol=1e-14)
    for a, b in zip(terms, terms[::-1], strict=True):
        top = common_ancestor(found, a, b)
        assert top in (plain.above(a) | {a}) & (plain.above(b) | {b})
        assert content[top] == pytest.approx(plain_likeness(plain, content, (a, b), "resnik"))
    # Profiles against all diseases at once.
    rng = np.random.default_rng(seed)
    ours, theirs = draw(found, rng, 40), draw(found, rng, 37, most=9)
    result = match(found, profiles(found, ours), profiles(found, theirs), measure=measure)
    for i, mine in enumerate(ours.values()):
        for j, other in enumerate(theirs.values()):
            forth = np.mean([max(known[a, b] for b in other) for a in mine])
            back = np.mean([max(known[a, b] for a in mine) for b in other])
            assert result.score[i, j] == pytest.approx((forth + back) / 2, rel=1e-5, abs=1e-6)
    one, other = next(iter(ours.values())), next(iter(theirs.values()))
    assert best_match_average(found, one, other, measure=measure) == pytest.approx(result.score[0, 0], rel=1e-5)


def kitchen() -> Any:
    #   R: 8 genes; A: 4 (a, b below it: 2 and 1); C: 4, c below it: 2; d below c: none
    parents = {
        "XX:R": [],
        "XX:A": ["XX:R"],
        "XX:C": ["XX:R"],
        "XX:a": ["XX:A"],
        "XX:b": ["XX:A"],
        "XX:c": ["XX:C"],
        "XX:d": ["XX:c"],
    }
    genes = {"XX:a": "12", "XX:b": "3", "XX:A": "4", "XX:c": "56", "XX:C": "78"}
    return branch(ontology(parents), pairs(genes), root="XX:R")


def test_likeness_by_hand() -> None:
    found, two = kitchen(), np.log(2)
    assert similarity(found, ["XX:a"], ["XX:b", "XX:A", "XX:c", "XX:a"]) == pytest.approx(
        np.array([[two, two, 0, 2 * two]])
    )
    assert similarity(found, ["XX:a"], ["XX:b"], measure="lin")[0, 0] == pytest.approx(2 * two / (2 * two + 3 * two))
    assert similarity(found, ["XX:R"], ["XX:R"], measure="lin")[0, 0] == 0  # nothing is said
    assert common_ancestor(found, "XX:a", "XX:b") == "XX:A"
    assert common_ancestor(found, "XX:a", "XX:c") == "XX:R"
    # d has no gene: it says what c says, and is wholly like it.
    assert similarity(found, ["XX:d"], ["XX:c"], measure="lin")[0, 0] == pytest.approx(1.0)
    assert common_ancestor(found, "XX:d", "XX:d") == "XX:d"
    # Forth: a to a, 2; c to nothing but the root, 0. Back: a to a, 2; b to a, 1.
    assert best_match_average(found, ["XX:a", "XX:c"], ["XX:a", "XX:b"]) == pytest.approx((1 + 1.5) / 2 * two)
    with pytest.raises(DataError, match="a profile has no terms"):
        best_match_average(found, [], ["XX:a"])


def test_what_falls_out_of_profiles_is_counted() -> None:
    old = ontology({"XX:R": [], "XX:A": ["XX:R"], "XX:Z": []}, obsolete=["XX:O"], replaced={"XX:O": "XX:A"})
    found = branch(old, pairs({"XX:A": "1"}), root="XX:R")
    made = profiles(found, {"x": ["XX:O", "XX:A", "XX:Z"], "y": ["XX:Q", "XX:Z"], "z": ["XX:R"], "none": []})
    assert made.names == ("x", "z")
    assert made.empty == ("y", "none")
    assert made.lost == {"term unknown": 1, "term elsewhere": 2}
    assert made.terms.toarray().tolist() == [[0, 1], [1, 0]]


def test_the_null_is_flat_for_profiles_made_like_it() -> None:
    found = random_branch(11, terms=120, genes=300, density=0.02)
    rng = np.random.default_rng(5)
    theirs = profiles(found, draw(found, rng, 12, most=12))
    pool = sorted({found.terms[i] for i in theirs.terms.indices})
    ours = {f"x{i}": rng.choice(pool, 3 + i % 3, replace=False).tolist() for i in range(600)}
    result = match(found, profiles(found, ours), theirs, draws=199, seed=1)
    assert result.p is not None
    assert result.null_mean is not None
    assert result.p.min() >= 1 / 200
    for level in (0.05, 0.2, 0.5):
        share = (result.p <= level).mean(axis=0)
        # One disease at a time; 199 draws and 600 profiles leave about two points open at 5%. Ties only lessen it.
        assert (share <= level + 4.0 * np.sqrt(level * (1 - level) * (1 / 600 + 3 / 199))).all()
    assert 0.03 <= (result.p <= 0.05).mean() <= 0.07
    np.testing.assert_allclose(result.score.mean(axis=0), result.null_mean.mean(axis=0), atol=0.06)


def test_one_disease_of_all_stands_out_by_chance_as_often_as_p_any_says() -> None:
    found = random_branch(12, terms=150, genes=300, density=0.02)
    rng = np.random.default_rng(6)
    named = {f"d{i}": rng.choice(found.terms, 6 + i % 9, replace=False).tolist() for i in range(60)}
    theirs = profiles(found, named)
    pool = sorted({found.terms[i] for i in theirs.terms.indices})
    ours = {f"x{i}": rng.choice(pool, 3 + i % 2, replace=False).tolist() for i in range(500)}
    result = match(found, profiles(found, ours | {"like d7": named["d7"]}), theirs, draws=199, seed=2)
    assert result.p is not None
    assert result.p_any is not None
    assert (result.p_any >= result.p - 1e-12).all()  # of the same draws: the best of all stands out as much or more
    least = result.p_any[:500].min(axis=1)
    for level in (0.05, 0.2, 0.5):
        share = (least <= level).mean()
        assert abs(share - level) <= 4.0 * np.sqrt(level * (1 - level) * (1 / 500 + 2 / 199))
    assert (result.p.min(axis=1) <= 0.05).mean() > 0.5  # one of sixty is good by chance: what p alone would count
    assert result.p_any[500].argmin() == 7
    assert result.p_any[500, 7] <= 0.01
    assert (result.p_any[500] > 0.05).sum() > 40


def test_parts_are_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    found = random_branch(13, terms=60)
    rng = np.random.default_rng(7)
    ours, theirs = profiles(found, draw(found, rng, 50)), profiles(found, draw(found, rng, 9, most=8))
    whole = match(found, ours, theirs, draws=30, seed=3)
    monkeypatch.setattr("elute.validation.ontology_similarity._TOGETHER", 4)
    seen = []
    for which, part in match_in_parts(found, ours, theirs, draws=30, seed=3):
        assert len(which) <= 4
        assert part.profiles == tuple(ours.names[i] for i in which)
        for name in ("score", "p", "p_any", "null_mean"):
            np.testing.assert_array_equal(getattr(part, name), getattr(whole, name)[which])
        seen += which.tolist()
    assert sorted(seen) == list(range(50))


def test_the_null_counts_what_reaches() -> None:
    found = random_branch(3, terms=40, genes=100)
    rng = np.random.default_rng(0)
    theirs = profiles(found, draw(found, rng, 5))
    ours = {"two": list(found.terms[5:7]), "like p0": [found.terms[i] for i in theirs.terms[[0]].indices]}
    draws = 300  # over one batch of the null
    given = profiles(found, ours)
    result = match(found, given, theirs, draws=draws, pool=found.terms, seed=4)
    assert result.p is not None
    again = match(found, given, theirs, draws=draws, pool=found.terms, seed=4)
    np.testing.assert_array_equal(result.p, again.p)
    # A profile's p rests on its size and on the seed alone, whatever stands beside it.
    alone = match(found, profiles(found, {"two": ours["two"]}), theirs, draws=draws, pool=found.terms, seed=4)
    assert alone.p is not None
    np.testing.assert_array_equal(result.p[0], alone.p[0])
    other = match(found, given, theirs, draws=draws, pool=found.terms, seed=5)
    assert (other.p != result.p).any()
    # Of a pool no larger than the profile every draw is the profile itself.
    pool = list(found.terms[20:26])
    whole = match(found, profiles(found, {"all": pool}), theirs, draws=20, pool=pool[::-1])
    assert whole.p is not None
    assert whole.p.tolist() == [[1.0] * 5]
    # All pairs of terms there are: what share of them reaches the score is what p estimates.
    both = [[a, b] for i, a in enumerate(found.terms) for b in found.terms[:i]]
    scores = match(found, profiles(found, {f"{a} {b}": [a, b] for a, b in both}), theirs).score
    exact = (scores >= result.score[0] * (1 - 1e-5)).mean(axis=0)
    assert (np.abs(result.p[0] - exact) <= 4.0 * np.sqrt(exact * (1 - exact) / draws) + 2 / draws).all()


def test_threads_change_nothing() -> None:
    found = random_branch(4, terms=200, genes=100)
    rng = np.random.default_rng(0)
    ours, theirs = profiles(found, draw(found, rng, 1100)), profiles(found, draw(found, rng, 30))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one = match(found, ours, theirs, draws=20)
        torch.set_num_threads(2)
        two = match(found, ours, theirs, draws=20)
    finally:
        torch.set_num_threads(before)
    np.testing.assert_array_equal(one.score, two.score)
    np.testing.assert_array_equal(one.p, two.p)


def test_the_best_are_told() -> None:
    found = kitchen()
    theirs = profiles(found, {"far": ["XX:c"], "near": ["XX:a", "XX:b"], "same": ["XX:a"], "equal": ["XX:a"]})
    ours = profiles(found, {"x": ["XX:a"], "y": ["XX:d"]})
    table = match(found, ours, theirs).table(best=3)
    assert table.columns == ["profile", "disease", "score"]
    assert table["profile"].to_list() == ["x"] * 3 + ["y"] * 3
    assert table["disease"].to_list() == ["same", "equal", "near", "far", "near", "same"]
    with_null = match(found, ours, theirs, draws=50).table(best=9)
    assert with_null.columns == ["profile", "disease", "score", "null_mean", "p", "p_any"]
    assert len(with_null) == 8


def test_what_cannot_be_compared_is_refused() -> None:
    found = kitchen()
    ours, none = profiles(found, {"x": ["XX:a", "XX:c"]}), profiles(found, {})
    with pytest.raises(DataError, match="match: there is nothing to compare"):
        match(found, ours, none)
    with pytest.raises(DataError, match=r"match\(pool\): has 1 terms, and a profile 2. Give more terms."):
        match(found, ours, ours, draws=3, pool=["XX:a"])
    with pytest.raises(ConfigError, match="Did you mean 'resnik'"):
        match(found, ours, ours, measure="resnick")  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="Did you mean 'lin'"):
        similarity(found, ["XX:a"], ["XX:a"], measure="linn")  # type: ignore[arg-type]
