from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from elute.analysis import pairs as module
from elute.analysis.pair_runs import PAIR
from elute.analysis.pairs import Pairs
from elute.base.errors import ConfigError, DataError

F, G = 40, 23
COLUMNS = ("others", "counts", "sums", "weighted", "highs")


def run_of(table: dict[tuple[int, int], tuple[int, float, float, float]]) -> np.ndarray:
    """A run of {(other, feature): (count, Σ a, Σ a·e, largest a)}; the features of one other in no order."""
    run = np.empty(len(table), PAIR)
    order = sorted(table, key=lambda pair: (pair[0], -pair[1]))
    for i, (other, feature) in enumerate(order):
        count, total, weighted, high = table[other, feature]
        run[i] = (other << 32 | feature, total, weighted, count, high)
    return run


def drawn(random: np.random.Generator, n: int) -> dict[tuple[int, int], tuple[int, float, float, float]]:
    # Quarters add up without rounding, so that even sums must agree to the bit.
    pairs = {(int(random.integers(G)), int(random.integers(F))) for _ in range(n)}
    quarters = lambda: float(random.integers(-20, 20)) / 4  # noqa: E731
    return {pair: (int(random.integers(1, 9)), quarters(), quarters(), quarters()) for pair in pairs}


def dense(tables: list[dict[Any, Any]]) -> dict[tuple[int, int], list[Any]]:
    found: dict[tuple[int, int], list[Any]] = {}
    for table in tables:
        for (other, feature), (count, total, weighted, high) in table.items():
            have = found.setdefault((feature, other), [0, 0.0, 0.0, -np.inf])
            have[0] += count
            have[1] += total
            have[2] += weighted
            have[3] = max(have[3], high)
    return found


def listed(pairs: Pairs, **limit: int) -> dict[tuple[int, int], list[Any]]:
    found: dict[tuple[int, int], list[Any]] = {}
    stop = 0
    for block in pairs.blocks(**limit):
        assert block.first == stop
        stop = block.stop
        assert block.indptr[0] == 0
        assert block.indptr[-1] == len(block)
        features = block.features()
        for f in range(block.first, block.stop):
            assert (np.diff(block.others[block.indptr[f - block.first] : block.indptr[f - block.first + 1]]) > 0).all()
        for feature, other, *rest in zip(features, *(getattr(block, name) for name in COLUMNS), strict=True):
            found[int(feature), int(other)] = [x.item() for x in rest]
    assert stop == F
    return found


@pytest.mark.parametrize("most_pairs", [2**24, 600, 1])
def test_all_pairs_come_back_whatever_is_spilled(tmp_path: Path, most_pairs: int) -> None:
    random = np.random.default_rng(0)
    tables = [drawn(random, int(n)) for n in random.integers(0, 90, 40)]
    pairs = Pairs(F, G, most_pairs=most_pairs, folder=tmp_path)
    for table in tables:
        pairs.update(run_of(table))
    assert (len(pairs._spilled) > 0) == (most_pairs < 2**24)
    assert len(pairs._held) + len(pairs._spilled) < 40
    assert listed(pairs) == dense(tables)
    assert not list(tmp_path.iterdir())  # files have no names
    later = drawn(random, 50)
    pairs.update(run_of(later))
    assert listed(pairs) == dense([*tables, later])


def test_a_block_holds_no_more_than_asked_or_one_feature() -> None:
    random = np.random.default_rng(1)
    table = drawn(random, 700)
    pairs = Pairs(F, G)
    pairs.update(run_of(table))
    for most in (1, 30, 100, 10_000):
        blocks = list(pairs.blocks(most_pairs=most))
        assert all(len(block) <= most or block.stop == block.first + 1 for block in blocks)
        # Two neighbours would not have fitted together.
        both = [len(a) + len(b) for a, b in itertools.pairwise(blocks)]
        assert all(n > most for n in both)
        assert listed(pairs, most_pairs=most) == dense([table])


def test_ranges_of_features_are_sorted_one_after_another(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_RANGE", 20)
    table = drawn(np.random.default_rng(2), 700)
    for most_pairs in (2**24, 100):  # in memory, in a file
        pairs = Pairs(F, G, most_pairs=most_pairs)
        pairs.update(run_of(table))
        for most in (7, 60, 10_000):
            assert listed(pairs, most_pairs=most) == dense([table])


@pytest.mark.parametrize("most_pairs", [2**24, 300])
def test_parts_merge_to_the_whole(most_pairs: int) -> None:
    random = np.random.default_rng(3)
    tables = [drawn(random, 60) for _ in range(12)]
    parts = []
    for start in range(0, 12, 3):
        part = Pairs(F, G, most_pairs=most_pairs)
        for table in tables[start : start + 3]:
            part.update(run_of(table))
        parts.append(part)
    before = listed(parts[1])
    parts[2].merge(parts[3])
    parts[0].merge(parts[1])
    parts[0].merge(parts[2])
    assert listed(parts[0]) == dense(tables)
    assert listed(parts[1]) == before
    parts[0].merge(parts[0])
    assert listed(parts[0]) == dense(tables * 2)


def test_no_pairs_at_all() -> None:
    pairs = Pairs(F, G)
    assert listed(pairs) == {}
    pairs.merge(Pairs(F, G))
    pairs.update(np.empty(0, PAIR))
    assert listed(pairs) == {}
    assert listed(Pairs.from_state(pairs.state())) == {}


def test_a_snapshot_stays_what_it_was() -> None:
    random = np.random.default_rng(4)
    first, second = drawn(random, 50), drawn(random, 50)
    pairs = Pairs(F, G)
    pairs.update(run_of(first))
    seen = pairs.result()
    pairs.update(run_of(second))
    assert listed(seen) == dense([first])
    seen.update(run_of(second))
    assert listed(seen) == listed(pairs)


def through_json(state: dict[str, Any]) -> dict[str, Any]:
    plain = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in state.items()}
    return json.loads(json.dumps(plain))


@pytest.mark.parametrize("most_pairs", [2**24, 300])
@pytest.mark.parametrize("carry", [dict, through_json])
def test_a_state_goes_on_to_the_bit(most_pairs: int, carry: Any) -> None:
    random = np.random.default_rng(5)
    tables = [drawn(random, 60) for _ in range(20)]
    for table in tables:  # thirds round
        for pair, (count, total, weighted, high) in table.items():
            table[pair] = (count, total / 3, weighted / 3, high)
    whole = Pairs(F, G, most_pairs=most_pairs)
    for table in tables[:10]:
        whole.update(run_of(table))
    state = whole.state()
    before = listed(whole)
    with pytest.raises(ValueError, match="read-only"):
        state["sums"][0] = 7
    resumed = Pairs.from_state(carry(state), most_pairs=most_pairs)
    assert listed(resumed) == before
    for table in tables[10:]:
        whole.update(run_of(table))
        resumed.update(run_of(table))
    assert listed(resumed) == listed(whole)


def test_states_that_it_does_not_write_are_refused() -> None:
    pairs = Pairs(F, G)
    pairs.update(run_of({(1, 1): (1, 1.0, 1.0, 1.0), (2, 3): (1, 1.0, 1.0, 1.0)}))
    state = pairs.state()
    for change, says in (
        ({"statistic": "Mode"}, "this is the state of 'Mode', not of Pairs"),
        ({"sums": "many"}, "sums in the state of Pairs holds no numbers"),
        ({"sums": np.zeros((2, 2))}, "sums in the state of Pairs is (2, 2), not one row of numbers"),
        ({"sums": np.zeros(3)}, "the columns in the state of Pairs differ in length"),
        ({"key": [2 << 32, 1 << 32]}, "the pairs of a run do not ascend, or come twice, in the state of Pairs"),
        ({"key": [2 << 32, 2 << 32]}, "the pairs of a run do not ascend, or come twice, in the state of Pairs"),
        ({"key": [2, G << 32]}, "the pairs of a run name a feature or an other that is not there, in the state of Pairs"),
        ({"key": [2, F]}, "the pairs of a run name a feature or an other that is not there, in the state of Pairs"),
        ({"sums": [1, np.nan]}, "the pairs of a run are not finite, or never came, in the state of Pairs"),
        ({"highs": [1, np.inf]}, "the pairs of a run are not finite, or never came, in the state of Pairs"),
        ({"counts": [0, 1]}, "the pairs of a run are not finite, or never came, in the state of Pairs"),
    ):  # fmt: skip
        for most_pairs in (2**24, 1):
            with pytest.raises(DataError) as caught:
                Pairs.from_state({**state, **change}, most_pairs=most_pairs)
            assert str(caught.value) == says
    for key in set(state) - {"statistic"}:
        with pytest.raises(DataError, match=rf"^the state of Pairs lacks {key}$"):
            Pairs.from_state({k: v for k, v in state.items() if k != key})


def test_what_does_not_fit_is_refused_and_leaves_no_trace() -> None:
    pairs = Pairs(F, G)
    table = {(1, 1): (1, 1.0, 1.0, 1.0)}
    pairs.update(run_of(table))
    with pytest.raises(DataError, match=r"^a run of pairs must be one row of PAIR$"):
        pairs.update(np.zeros(3))
    with pytest.raises(DataError, match=r"never came$"):
        pairs.update(run_of({(1, 1): (0, 1.0, 1.0, 1.0)}))
    with pytest.raises(DataError, match=r"differ in n_others"):
        pairs.merge(Pairs(F, G + 1))
    assert listed(pairs) == dense([table])
    with pytest.raises(ConfigError, match=r"^n_others=2147483648\."):
        Pairs(F, 2**31)
    with pytest.raises(ConfigError, match=r"^most_pairs=0\."):
        pairs.blocks(most_pairs=0)
