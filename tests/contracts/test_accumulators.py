"""Every statistic in one pass keeps the same promises, whatever it counts; numpy on all rows at once is the judge."""

from __future__ import annotations

import inspect
import json
from collections.abc import Callable
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from elute.base import accumulate
from elute.base.errors import DataError
from elute.base.mergeable import Statistic

WIDTH = 3
EDGES = [-1.0, 0.0, 0.5, 2.0]


@dataclass(frozen=True)
class Case:
    """One statistic: how to make it, how to make a batch of n rows, and what numpy says of all rows together."""

    make: Callable[[], Any]
    other: Callable[[], Any]  # of another width
    batch: Callable[[np.random.Generator, int], Any]
    truth: Callable[[Any], dict[str, Any]]
    exact: bool = False


def rows(random: np.random.Generator, n: int) -> np.ndarray:
    # Quarters hit the edges of the histogram and repeat; the columns lie far from one another.
    return random.integers(-8, 12, (n, WIDTH)) / 4 + np.array([0.0, 1.0, -30.0])


def triples(random: np.random.Generator, n: int) -> tuple[np.ndarray, ...]:
    keys = random.integers(0, 20, n)
    return random.integers(0, WIDTH, n), random.integers(-4, 9, n) / 4, keys


def moments(x: np.ndarray) -> dict[str, Any]:
    if not len(x):
        return {"count": 0, **dict.fromkeys(("mean", "variance", "min", "max"), [np.nan] * WIDTH)}
    return {"count": len(x), "mean": x.mean(0), "variance": x.var(0), "min": x.min(0), "max": x.max(0)}


def covariance(x: np.ndarray) -> dict[str, Any]:
    if not len(x):
        return {"count": 0, "mean": [np.nan] * WIDTH, "covariance": np.full((WIDTH, WIDTH), np.nan)}
    return {"count": len(x), "mean": x.mean(0), "covariance": np.cov(x.T, ddof=0)}


def histogram(x: np.ndarray) -> dict[str, Any]:
    inside = np.array([np.histogram(column, EDGES)[0] for column in x.T])
    ends = (x < EDGES[0]).sum(0)[:, None], (x > EDGES[-1]).sum(0)[:, None]
    return {"edges": EDGES, "counts": np.hstack([ends[0], inside, ends[1]])}


def top(batch: tuple[np.ndarray, ...]) -> dict[str, Any]:
    best = [
        sorted((-score, key) for c, score, key in zip(*batch, strict=True) if c == column)[:4]
        for column in range(WIDTH)
    ]
    filled = [each + [(np.inf, -1)] * (4 - len(each)) for each in best]
    return {
        "scores": [[-score for score, _ in each] for each in filled],
        "keys": [[key for _, key in each] for each in filled],
        "counts": [len(each) for each in best],
    }


def sums(batch: tuple[np.ndarray, ...]) -> dict[str, Any]:
    found: dict[tuple[int, int], list[float]] = {}
    for row, value, column in zip(*batch, strict=True):
        found.setdefault((int(row), int(column)), []).append(value)
    pairs = sorted(found)
    return {
        "shape": (WIDTH, 20),
        "rows": [row for row, _ in pairs],
        "columns": [column for _, column in pairs],
        "sums": [sum(found[pair]) for pair in pairs],
        "counts": [len(found[pair]) for pair in pairs],
    }


def swapped(batch: tuple[np.ndarray, ...]) -> tuple[np.ndarray, ...]:
    return batch[0], batch[2], batch[1]


CASES = {
    "Moments": Case(lambda: accumulate.Moments(WIDTH), lambda: accumulate.Moments(4), rows, moments),
    "Covariance": Case(lambda: accumulate.Covariance(WIDTH), lambda: accumulate.Covariance(4), rows, covariance),
    "Histogram": Case(
        lambda: accumulate.Histogram(EDGES, WIDTH), lambda: accumulate.Histogram(EDGES, 4), rows, histogram, exact=True
    ),
    "Counts": Case(
        lambda: accumulate.Counts(WIDTH),
        lambda: accumulate.Counts(4),
        lambda random, n: random.integers(0, WIDTH, n),
        lambda x: {"counts": [(x == i).sum() for i in range(WIDTH)], "total": len(x)},
        exact=True,
    ),
    "TopK": Case(
        lambda: accumulate.TopK(4, WIDTH), lambda: accumulate.TopK(4, 4), triples, top, exact=True
    ),
    # Quarters add up without rounding, so that even these sums must agree to the bit.
    "SparseSums": Case(
        lambda: accumulate.SparseSums((WIDTH, 20)),
        lambda: accumulate.SparseSums((4, 20)),
        lambda random, n: swapped(triples(random, n)),
        lambda batch: sums(swapped(batch)),
        exact=True,
    ),
}  # fmt: skip


def test_every_statistic_has_a_case() -> None:
    found = {
        name
        for name, value in inspect.getmembers(accumulate, inspect.isclass)
        if issubclass(value, Statistic) and value is not Statistic
    }
    assert found == set(CASES)


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Case:
    return CASES[request.param]


def joined(batches: list[Any]) -> Any:
    if isinstance(batches[0], tuple):
        return tuple(np.concatenate(parts) for parts in zip(*batches, strict=True))
    return np.concatenate(batches)


def seen(case: Case, batches: list[Any]) -> Any:
    statistic = case.make()
    for batch in batches:
        statistic.update(batch)
    return statistic


def agree(result: Any, truth: dict[str, Any], *, exact: bool) -> None:
    assert {field.name for field in fields(result)} == set(truth)
    for name, value in truth.items():
        if exact:
            np.testing.assert_array_equal(getattr(result, name), value, err_msg=name)
        else:
            np.testing.assert_allclose(getattr(result, name), value, rtol=1e-10, atol=1e-11, err_msg=name)


def as_dict(result: Any) -> dict[str, Any]:
    return {field.name: getattr(result, field.name) for field in fields(result)}


@pytest.mark.parametrize("name", CASES)
@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), sizes=st.lists(st.integers(0, 12), min_size=1, max_size=6), data=st.data())
def test_any_partition_in_any_order_is_one_pass(name: str, seed: int, sizes: list[int], data: st.DataObject) -> None:
    case, random = CASES[name], np.random.default_rng(seed)
    batches = [case.batch(random, n) for n in sizes]
    truth = case.truth(joined(batches))
    agree(seen(case, batches).result(), truth, exact=case.exact)

    shuffled = data.draw(st.permutations(batches))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sizes)), max_size=3)))
    parts = [seen(case, shuffled[a:b]) for a, b in zip([0, *cuts], [*cuts, len(sizes)], strict=True)]
    while len(parts) > 1:  # a tree of merges in any shape
        into, of = data.draw(st.permutations(range(len(parts))))[:2]
        parts[into].merge(parts[of])
        del parts[of]
    agree(parts[0].result(), truth, exact=case.exact)


def test_rows_in_any_order_give_the_same(case: Case) -> None:
    random = np.random.default_rng(5)
    batch = case.batch(random, 60)
    order = random.permutation(60)
    turned = tuple(part[order] for part in batch) if isinstance(batch, tuple) else batch[order]
    agree(seen(case, [turned]).result(), as_dict(seen(case, [batch]).result()), exact=case.exact)


def test_merging_empty_ones_changes_nothing(case: Case) -> None:
    batch = case.batch(np.random.default_rng(1), 30)
    before = as_dict(seen(case, [batch]).result())
    filled, empty = seen(case, [batch]), case.make()
    filled.merge(case.make())
    agree(filled.result(), before, exact=True)
    empty.merge(filled)
    agree(empty.result(), before, exact=True)
    nothing = case.make()
    nothing.merge(case.make())
    agree(nothing.result(), case.truth(case.batch(np.random.default_rng(1), 0)), exact=True)


def test_merging_leaves_the_other_as_it_was(case: Case) -> None:
    random = np.random.default_rng(2)
    batches = [case.batch(random, 20) for _ in range(3)]
    left, right = seen(case, batches[:1]), seen(case, batches[1:2])
    before = as_dict(right.result())
    left.merge(right)
    left.update(batches[2])
    agree(right.result(), before, exact=True)
    left.merge(left)
    agree(left.result(), case.truth(joined(batches * 2)), exact=case.exact)


def test_a_result_stays_what_it_was(case: Case) -> None:
    random = np.random.default_rng(3)
    statistic = seen(case, [case.batch(random, 20)])
    result = statistic.result()
    before = {name: np.copy(value) for name, value in as_dict(result).items()}
    statistic.update(case.batch(random, 20))
    agree(result, before, exact=True)
    assert is_dataclass(result)
    with pytest.raises(AttributeError):
        setattr(result, fields(result)[0].name, None)


def through_json(state: dict[str, Any]) -> dict[str, Any]:
    assert all(isinstance(value, np.ndarray | int | float | str | tuple) for value in state.values())
    plain = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in state.items()}
    return json.loads(json.dumps(plain))


@pytest.mark.parametrize("n", [0, 25])
@pytest.mark.parametrize("carry", [dict, through_json])
def test_a_state_goes_on_to_the_bit(case: Case, carry: Callable[[Any], Any], n: int) -> None:
    random = np.random.default_rng(4)
    first, second = case.batch(random, n), case.batch(random, 25)
    whole = seen(case, [first])
    state = whole.state()
    resumed = type(whole).from_state(carry(state))
    for statistic in (whole, resumed):
        statistic.update(second)
    agree(resumed.result(), as_dict(whole.result()), exact=True)
    # The state that was handed out is a copy: going on did not change it.
    agree(type(whole).from_state(state).result(), as_dict(seen(case, [first]).result()), exact=True)


def test_a_state_that_is_not_its_own_is_refused(case: Case) -> None:
    statistic = seen(case, [case.batch(np.random.default_rng(6), 9)])
    state, made = statistic.state(), type(statistic)
    with pytest.raises(DataError, match=rf"^this is the state of 'Mode', not of {made.__name__}$"):
        made.from_state({**state, "statistic": "Mode"})
    for key in set(state) - {"statistic"}:
        with pytest.raises(DataError, match=rf"^the state of {made.__name__} lacks {key}$"):
            made.from_state({k: v for k, v in state.items() if k != key})
    for key in made._kept:
        with pytest.raises(DataError, match=rf"^{key} in the state of {made.__name__} holds no numbers$"):
            made.from_state({**state, key: "many"})
        with pytest.raises(DataError, match=r"in the state of"):
            made.from_state({**state, key: np.zeros((2, 7))})


def test_widths_and_kinds_do_not_mix(case: Case) -> None:
    name = type(case.make()).__name__
    with pytest.raises(DataError) as caught:
        case.make().merge(case.other())
    line = str(caught.value)
    assert line.startswith(f"two {name} that differ in ")
    assert line.endswith("Make both with the same settings.")
    assert "\n" not in line
    stranger = next(each.make() for each in CASES.values() if type(each.make()) is not type(case.make()))
    with pytest.raises(DataError, match=rf"^{name} cannot be merged with {type(stranger).__name__}$"):
        case.make().merge(stranger)


def test_a_refused_batch_leaves_no_trace(case: Case) -> None:
    batch = case.batch(np.random.default_rng(7), 20)
    statistic = seen(case, [batch])
    before = as_dict(statistic.result())
    floats = [part for part in (batch if isinstance(batch, tuple) else [batch]) if part.dtype.kind == "f"]
    bad: list[Any] = [np.array(["text"]), np.ones(20) + 1j, [[1.0], [1.0, 2.0]], "rows", None, np.ones((2, 2, 2))]
    for value in (np.nan, np.inf, -np.inf) if floats else ():
        copies = [part.copy() for part in (batch if isinstance(batch, tuple) else [batch])]
        next(part for part in copies if part.dtype.kind == "f").flat[-1] = value
        bad.append(tuple(copies) if isinstance(batch, tuple) else copies[0])
    for each in bad:
        with pytest.raises(DataError) as caught:
            statistic.update(each)
        assert "\n" not in str(caught.value)
    agree(statistic.result(), before, exact=True)
