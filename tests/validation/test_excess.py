"""The headline: its interval holds 0 where there is nothing, with features that share genes, too."""

from __future__ import annotations

import itertools
import json
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from scipy import stats
from scipy.sparse import csr_array

from elute.base import console
from elute.base.errors import ConfigError, DamagedError, DataError, GuardError
from elute.base.statistics.corrections import benjamini_hochberg
from elute.validation.background import Background
from elute.validation.excess import Tested as Told
from elute.validation.excess import by_over_representation, excess, reach
from elute.validation.null_counts import Counts, Excess, enough, margin, number, result
from elute.validation.null_lists import Matched, uniform_lists
from elute.validation.stratified import Strata
from elute.validation.terms import Terms

GENES, TERMS, LISTS, SIZE = 300, 40, 60, 12
Rng = np.random.Generator


def small_terms() -> np.ndarray[Any, Any]:
    rng = np.random.default_rng(0)
    chances = rng.dirichlet(np.full(GENES, 0.5))
    members = np.zeros((TERMS, GENES))
    for row in members:
        row[rng.choice(GENES, rng.integers(6, 25), replace=False, p=0.5 * chances + 0.5 / GENES)] = 1
    return members


MEMBERS = small_terms()
COVARIATES = np.stack([np.random.default_rng(1).random(GENES), MEMBERS.sum(axis=0)], axis=1)
K = np.arange(SIZE + 1)[None, :]
TABLE = stats.hypergeom.sf(K - 1, GENES, MEMBERS.sum(axis=1, dtype=int)[:, None], SIZE)


def p_values(lists: csr_array[Any]) -> np.ndarray[Any, Any]:
    shared = (lists.toarray().astype(float) @ MEMBERS.T).astype(int)
    return TABLE[np.arange(TERMS), shared]


def below(lists: csr_array[Any]) -> np.ndarray[Any, Any]:
    """A test that finds something in about one list in ten by chance, so that there is something to count."""
    found: np.ndarray[Any, Any] = p_values(lists).min(axis=1) <= 0.005
    return found


def often(lists: csr_array[Any]) -> np.ndarray[Any, Any]:
    found: np.ndarray[Any, Any] = p_values(lists).min(axis=1) <= 0.01
    return found


def by_q(lists: csr_array[Any]) -> np.ndarray[Any, Any]:
    return benjamini_hochberg(p_values(lists)).min(axis=1)


def by_both(lists: csr_array[Any]) -> Told:
    p = p_values(lists)
    return Told(benjamini_hochberg(p).min(axis=1), p.min(axis=1))


def rows_of(chosen: np.ndarray[Any, Any]) -> csr_array[Any]:
    n, size = chosen.shape
    lists = csr_array(
        (np.ones(n * size, np.int8), chosen.ravel().astype(np.int32), np.arange(0, n * size + 1, size)), (n, GENES)
    )
    lists.sort_indices()
    return lists


def alone(rng: Rng) -> csr_array[Any]:
    return rows_of(np.argsort(rng.random((LISTS, GENES)), axis=1)[:, :SIZE])


def together(rng: Rng) -> csr_array[Any]:
    """Features of three programs, those of one sharing most of their genes: what one finds by chance, all find."""
    programs = [rng.choice(GENES, SIZE + 1, replace=False) for _ in range(3)]
    return rows_of(np.array([rng.choice(programs[i % 3], SIZE, replace=False) for i in range(LISTS)]))


class OneByOne(Matched):
    """The null that does not know that features share genes: each list is drawn by itself."""

    def draw(self, lists: csr_array[Any], draw: int) -> csr_array[Any]:
        keys = np.argsort(self.strata + np.random.default_rng([self.seed, draw]).random(lists.shape), axis=1)
        wanted = np.add.reduceat(lists.toarray()[:, self._home], np.cumsum(self.sizes) - self.sizes, axis=1)
        place = np.arange(GENES) - np.repeat(np.cumsum(self.sizes) - self.sizes, self.sizes)
        out = np.zeros(lists.shape, np.int8)
        np.put_along_axis(out, keys, (place < np.repeat(wanted, self.sizes, axis=1)).astype(np.int8), axis=1)
        return csr_array(out)


def runs(
    draw_lists: Any, n: int, kind: type[Matched] = Matched, *, test: Any = below, fdr: float = 0.05
) -> list[Excess]:
    found = []
    for seed in range(n):
        lists = draw_lists(np.random.default_rng([7, seed]))
        matched = kind(COVARIATES, seed=seed)
        found.append(excess(test, lists, matched, fdr=fdr, most=30, about=str(seed)))
    return found


def holds_0(found: list[Excess]) -> float:
    return float(np.mean([each.excess_low <= 0 <= each.excess_high for each in found]))


def right(found: list[Excess]) -> bool:
    """Whether so many intervals hold 0, and so few claim something, as those of 95% do."""
    n = len(found)
    claimed = sum(each.clear for each in found)
    return bool(holds_0(found) * n >= stats.binom.ppf(0.01, n, 0.95) and claimed <= stats.binom.ppf(0.99, n, 0.05))


def test_the_interval_holds_0_where_there_is_nothing() -> None:
    found = runs(alone, 30)
    assert right(found)
    assert 3 < np.mean([each.observed for each in found]) < 15  # there was something to count
    assert abs(np.mean([each.excess for each in found])) < 0.6
    assert np.mean([each.p <= 0.1 for each in found]) <= 0.16


def test_it_does_where_features_share_genes() -> None:
    found = runs(together, 40)
    assert right(found)
    # Counts come together, so they spread far wider than single ones would: by a binomial law sd² < mean.
    spread = np.array([np.var(each.null, ddof=1) / max(each.mean, 1.0) for each in found])
    assert np.median(spread) > 3


def test_lists_drawn_one_by_one_would_not_hold_it() -> None:
    assert not right(runs(together, 15, OneByOne, test=often))
    assert right(runs(together, 15, test=often))


def test_with_the_family_corrected_nothing_is_found() -> None:
    assert right(runs(together, 25, test=by_both, fdr=0.6))


def test_what_is_there_is_found() -> None:
    rng = np.random.default_rng(3)
    lists = alone(rng).toarray()
    for i in range(20):  # of 60 lists 20 hold half of a term's genes
        inside = np.flatnonzero(MEMBERS[i])[: SIZE // 2 + 1]
        others = np.setdiff1d(np.flatnonzero(lists[i]), inside)
        lists[i] = 0
        lists[i, np.concatenate([inside, others])[:SIZE]] = 1
    found = excess(by_q, csr_array(lists), Matched(COVARIATES, seed=0))
    assert found.clear
    assert found.p == 1 / (1 + found.draws)
    assert 15 <= found.observed <= 30
    assert found.excess_low <= found.excess <= found.excess_high
    assert found.excess == found.observed - np.mean(found.null)
    assert "within 10% of the excess" in found.stopped_because


def counts(observed: int, null: list[int], **more: Any) -> Counts:
    return Counts("x", 1000, observed, None, null, alone=list(null), **more)


def test_the_headline_in_words_and_numbers() -> None:
    null = [9, 4, 15, 8, 10] * 8  # 40 draws: their order statistics hold 95%
    found = result(counts(412, null, coarse=[9] * 10), stopped_because="enough")
    assert found.told() == "412 of 1,000, null 9.2 (4–15)"
    assert (found.excess_low, found.excess_high) == (pytest.approx(397 - 0.2), 408)
    assert found.matching == pytest.approx(0.2)
    told = json.loads(json.dumps(found.summary()))
    assert told["null"] == {
        "kind": "matched lists", "draws": 40, "mean": 9.2, "low": 4, "high": 15,
        "p": 1 / 41, "matching": pytest.approx(0.2), "alone": 9.2, "stopped": "enough",
    }  # fmt: skip
    assert told["significant"] == 412
    assert [number(x) for x in (0, 0.05, 9.125, 12.34, 1234.5)] == ["0", "0.05", "9.1", "12.3", "1,234"]


@pytest.mark.parametrize("n", [2, 5, 20, 38, 39, 79, 200])
def test_low_and_high_hold_the_next_count(n: int) -> None:
    """Of counts that are each other's like, in whatever law, the next one lies between low and high."""
    laws: dict[str, Any] = {
        "few": lambda rng, size: rng.poisson(0.3, size),
        "normal": lambda rng, size: np.rint(rng.normal(300, 20, size)).astype(int),
        "together": lambda rng, size: 40 * rng.poisson(0.5, size),
        "heavy": lambda rng, size: rng.geometric(1.0 / (1 + rng.gamma(0.5, 20, size))),
    }
    for name, law in laws.items():
        rng = np.random.default_rng([n, *name.encode()])
        hits = []
        for row in law(rng, (400, n + 1)).tolist():
            found = result(counts(row[0], row[1:]))
            hits.append(found.low <= row[0] <= found.high)
        least = 0.95 if n >= 39 or name == "normal" or (name == "few" and n >= 20) else (n - 1) / (n + 1)
        assert np.mean(hits) >= min(least, 0.95) - 3 * np.sqrt(0.05 * 0.95 / 400), name


def test_strata_twice_as_large_lengthen_the_interval() -> None:
    narrower = result(counts(100, [100, 98, 102] * 20, coarse=[90] * 10))
    assert narrower.matching == 10
    assert (narrower.excess_low, narrower.excess_high) == (100 - 102 - 10, 100 - 98)
    other = result(counts(100, [100, 98, 102] * 20, coarse=[110] * 10))
    assert (other.excess_low, other.excess_high) == (100 - 102, 100 - 98 + 10)
    assert result(counts(5, [1000, 1000], coarse=[0])).excess_low == 5 - 1000  # no more lists than there are


def test_when_draws_end() -> None:
    clear = counts(412, [9, 4, 15, 8, 10] * 4)
    assert "of the excess" in enough(clear, precision=0.1)
    near = counts(14, [9, 4, 15, 8, 10] * 4)
    assert margin(near.null) > 1.4
    assert enough(near, precision=0.1) == ""
    assert "of the lists that have a term" in enough(counts(14, [9, 4, 15, 8, 10] * 16), precision=0.1)
    assert "less than a list" in enough(counts(0, [0, 1, 0, 0, 0] * 4), precision=0.1)
    half = stats.t.ppf(0.975, 19) * np.std(near.null, ddof=1) / np.sqrt(20)
    assert margin(near.null) == pytest.approx(half)
    lists, matched = alone(np.random.default_rng(0)), Matched(COVARIATES, seed=0)
    assert excess(below, lists, matched, first=5, most=5, coarse=0).stopped_because == "5 draws were asked for"
    most = excess(below, lists, matched, first=5, most=7, precision=0.001, coarse=0)
    assert (most.draws, most.stopped_because) == (7, "7 draws were made, the most allowed")


class Counting:
    """A test that tells q and p, and how often it was asked."""

    def __init__(self, stop_at: int = 10**9) -> None:
        self.asked, self.stop_at = 0, stop_at

    def __call__(self, lists: csr_array[Any]) -> Told:
        self.asked += 1
        if self.asked > self.stop_at:
            raise KeyboardInterrupt
        p = p_values(lists)
        return Told(np.where(p.min(axis=1) <= 0.005, 0.01, 1.0), p.min(axis=1))


def test_a_run_that_was_stopped_makes_no_draw_twice() -> None:
    lists, matched = alone(np.random.default_rng(5)), Matched(COVARIATES, seed=0)
    whole_test, kept = Counting(), []
    whole = excess(whole_test, lists, matched, keep=lambda c: kept.append(json.dumps(c.state())))
    assert whole_test.asked == 1 + whole.draws + 10
    assert len(kept) == whole.draws + 10
    for stop_at in (1, 2, 15, 25, 31, whole_test.asked - 1):
        last: list[str] = []
        with pytest.raises(KeyboardInterrupt):
            excess(Counting(stop_at), lists, matched, keep=lambda c, last=last: last.append(json.dumps(c.state())))
        counted = Counts.from_state(json.loads(last[-1])) if last else None
        rest = Counting()
        again = Matched(COVARIATES, seed=0)
        assert (
            excess(rest, lists, again, counts=counted, keep=lambda c, last=last: last.append(json.dumps(c.state())))
            == whole
        )
        assert last == kept
        assert rest.asked + max(stop_at, 1) == whole_test.asked + (counted is None)
    done = Counting()
    assert excess(done, lists, matched, counts=Counts.from_state(json.loads(kept[-1]))) == whole
    assert done.asked == 0


def test_null_lists_pass_by_the_laxer_cut_off() -> None:
    lists, matched = alone(np.random.default_rng(5)), Matched(COVARIATES, seed=0)

    def test(given: csr_array[Any]) -> Told:
        p = p_values(given).min(axis=1)
        cutoff = 0.005 if (given != lists).nnz == 0 else 0.0005  # as where much is found among the lists alone
        return Told(np.where(p <= cutoff, 0.01, 1.0), p)

    found = excess(test, lists, matched, first=6, most=6)
    least = [p_values(matched.draw(lists, i)).min(axis=1) for i in range(6)]
    cutoff = max(p for p in p_values(lists).min(axis=1) if p <= 0.005)
    assert found.null == tuple(int((p <= cutoff).sum()) for p in least)
    assert found.alone == np.mean([(p <= 0.0005).sum() for p in least]) < 0.5 * found.mean
    # Without p-values, and where the observed run lets fewer pass, it is the cut-off of the draw's own run.
    assert excess(below, lists, matched, first=6, most=6).alone == excess(below, lists, matched, first=6, most=6).mean
    stricter = excess(lambda given: Told(np.where(test(given).p <= 0.0005, 0.01, 1.0), test(given).p), lists, matched)
    assert stricter.alone <= stricter.mean


def test_what_chance_adds_to_what_is_there_is_counted() -> None:
    """Of 60 lists 30 hold a term; so many let others pass, which a null run by itself would not show."""
    true, chance, mean, by_itself = [], [], [], []
    for seed in range(4):
        rng = np.random.default_rng([9, seed])
        lists = alone(rng).toarray()
        for i in range(30):
            inside = rng.choice(np.flatnonzero(MEMBERS[i]), 6, replace=False)
            others = np.setdiff1d(np.flatnonzero(lists[i]), inside)
            lists[i] = 0
            lists[i, np.concatenate([inside, others])[:SIZE]] = 1

        found = excess(by_both, csr_array(lists), Matched(COVARIATES, seed=seed), fdr=0.5, first=10, most=10)
        passed = by_both(csr_array(lists)).q <= 0.5
        true.append(passed[:30].sum())
        chance.append(passed[30:].sum())
        mean.append(found.mean)
        by_itself.append(found.alone)
    assert np.mean(true) == 30
    assert np.mean(chance) > 3
    assert np.mean(by_itself) < 0.6 * np.mean(chance)
    assert np.mean(mean) >= np.mean(chance)  # more, as what stands in for the 30 may pass, too


def test_other_lists_or_settings_are_no_resumption() -> None:
    lists, matched = alone(np.random.default_rng(5)), Matched(COVARIATES, seed=0)
    last: list[Counts] = []
    excess(below, lists, matched, first=2, most=2, keep=last.append)
    for other in (
        lambda: excess(below, alone(np.random.default_rng(6)), matched, first=2, most=2, counts=last[0]),
        lambda: excess(below, lists, Matched(COVARIATES, seed=1), first=2, most=2, counts=last[0]),
        lambda: excess(below, lists, Matched(COVARIATES, seed=0, least=20), first=2, most=2, counts=last[0]),
        lambda: excess(below, lists, matched, fdr=0.1, first=2, most=2, counts=last[0]),
        lambda: excess(below, lists, matched, about="other terms", first=2, most=2, counts=last[0]),
    ):
        with pytest.raises(GuardError, match="counted for other lists"):
            other()
    more = excess(below, lists, matched, first=4, most=4, counts=last[0])  # more draws are asked for: that is one
    assert more.draws == 4


@pytest.mark.parametrize(
    "change",
    [
        {"null": [1.5]},
        {"null": [-1]},
        {"null": None},
        {"observed": "3"},
        {"cutoff": "x"},
        {"alone": [1]},
        {"extra": 1},
    ],
)
def test_a_damaged_state_is_refused(change: dict[str, Any]) -> None:
    state = counts(3, [1, 2]).state()
    assert Counts.from_state(state) == counts(3, [1, 2])
    with pytest.raises(DamagedError, match="no count of null draws"):
        Counts.from_state({**state, **change})


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"first": 1}, ConfigError, "at least 2"),
        ({"first": 30, "most": 20}, ConfigError, "30 draws are more than 20"),
        ({"fdr": 1.0}, ConfigError, "not between 0 and 1"),
        ({"precision": 0.0}, ConfigError, "not between 0 and 1"),
        ({"test": lambda _: np.ones(3)}, DataError, "for 60 lists"),
        ({"test": lambda _: np.full(60, np.nan)}, DataError, "NaN"),
        ({"lists": uniform_lists([3], n_genes=9, seed=0)}, DataError, "over 300 genes"),
    ],
)
def test_what_is_refused(settings: dict[str, Any], error: type[Exception], says: str) -> None:
    given = {"test": below, "lists": alone(np.random.default_rng(5)), **settings}
    with pytest.raises(error, match=says):
        excess(given.pop("test"), given.pop("lists"), Matched(COVARIATES, seed=0), **given)


def test_the_time_is_told_after_the_first_draw(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    clock = itertools.count(0.0, 3.0)
    monkeypatch.setattr("elute.validation.excess.time", SimpleNamespace(monotonic=lambda: next(clock)))
    monkeypatch.setattr(console, "_level", 0)
    excess(below, alone(np.random.default_rng(5)), Matched(COVARIATES, seed=0), about="Reactome")
    first = capsys.readouterr().err.splitlines()[0]
    assert (
        first
        == "Reactome: 1 min 30 s for 30 draws of all lists, up to 10 min 30 s if the headline is not settled by then"
    )


def test_how_far_p_values_are_looked_at() -> None:
    assert [reach(n, 0.05) for n in (1, 8_000_000)] == [0.05, 0.05]  # no q is below its p
    assert reach(80_000_000, 0.05) == pytest.approx(0.005)  # 400,000 pairs by chance
    assert reach(10**9, 0.05) == 1e-3
    assert reach(10**9, 1e-4) == 1e-4


@pytest.mark.parametrize("most_rows", [1_000_000, 50])
@pytest.mark.parametrize("kind", ["plain", "among like genes"])
def test_over_representation_as_a_test(kind: str, most_rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("elute.validation.excess.MOST_ROWS", most_rows)
    names = tuple(f"t{t:02}" for t in range(TERMS))
    background = Background(tuple(f"g{i:03}" for i in range(GENES)), "all")
    members = csr_array(MEMBERS.astype(np.int8))
    terms = Terms(names, names, (None,) * TERMS, members, background, "small", {}, np.full(TERMS, -1))
    lists = together(np.random.default_rng(2)).toarray()
    for i in range(10):  # some that have a term, one that has no gene
        lists[i] = 0
        lists[i, np.flatnonzero(MEMBERS[i])[:i]] = 1
    sizes = lists.sum(axis=1)
    shared = (lists.astype(float) @ MEMBERS.T).astype(int)
    p = stats.hypergeom.sf(shared - 1, GENES, MEMBERS.sum(axis=1, dtype=int)[None, :], sizes[:, None])
    given, strata = csr_array(lists.astype(np.int8)), Strata(members, Matched(COVARIATES, seed=0, least=25))
    if kind != "plain":
        listed, index = (each.ravel() for each in np.indices(p.shape))
        like = strata.p(given, listed=listed, index=index, overlap=shared.ravel()).reshape(p.shape)
        assert ((like > p) & (p < 0.01)).sum() > 5  # some that the plain test would find
        p = np.maximum(p, like)
    q = stats.false_discovery_control(p.ravel()).reshape(p.shape).min(axis=1)
    passed, least = q <= 0.05, p.min(axis=1)
    assert 3 < passed.sum() < 40
    found = by_over_representation(terms, strata=None if kind == "plain" else strata)(given)
    np.testing.assert_array_equal(found.q <= 0.05, passed)
    np.testing.assert_allclose(found.q[passed], q[passed], rtol=1e-9)
    np.testing.assert_allclose(found.p[passed], least[passed], rtol=1e-9)
    # A null list is looked up at that cut-off, so that p below it have to be told whatever their q.
    cutoff = least[passed].max() * (1 + 1e-9)
    np.testing.assert_array_equal(found.p <= cutoff, least <= cutoff)
