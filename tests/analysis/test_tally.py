from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from elute.analysis import tally as module
from elute.analysis.tally import BINS, EDGES, Tallied, Tally
from elute.base.codes import Codes
from elute.base.errors import ConfigError, DataError

F, C, G = 70, 9, 12


def rows(random: np.random.Generator, n: int, k: int = 6) -> tuple[Codes, np.ndarray, np.ndarray, np.ndarray]:
    """Signed codes with empty slots; quarters and whole weights add up without rounding."""
    idx = np.stack([random.permutation(F)[:k] for _ in range(n)]) if n else np.zeros((0, k))
    val = random.integers(-6, 12, (n, k)) / 4
    codes = Codes(torch.from_numpy(idx.astype(np.int32)), torch.from_numpy(val.astype(np.float32)), F)
    return codes, random.integers(0, C, n), random.integers(0, G, n), random.integers(-3, 9, n).astype(np.float64)


def tallied(*batches: Any, **settings: Any) -> Tallied:
    tally = Tally(F, C, G, **settings)
    for batch in batches:
        tally.update(batch)
    return tally.result()


def matrices(pairs: Any, others: int) -> dict[str, np.ndarray]:
    found = {name: np.zeros((F, others)) for name in ("counts", "sums", "weighted")}
    found["highs"] = np.full((F, others), -np.inf)
    for block in pairs.blocks(most_pairs=50):
        for name, matrix in found.items():
            matrix[block.features(), block.others] = getattr(block, name)
    return found


def numbers(seen: Tallied) -> dict[str, np.ndarray]:
    """All that was counted, dense."""
    plain = ("n_rows", "fired", "sums", "squares", "highs", "histogram", "gene_rows", "gene_weights", "gene_squares",
             "cell_rows")  # fmt: skip
    found = {name: np.asarray(getattr(seen, name)) for name in plain}
    found |= {f"genes.{k}": v for k, v in matrices(seen.genes, G).items()}
    found |= {f"cells.{k}": v for k, v in matrices(seen.cells, C).items()}
    pieces = list(seen.expression.pieces(5)) or [(np.zeros(0), np.zeros(0), np.zeros(0))]
    expression = np.array([np.concatenate(part) for part in zip(*pieces, strict=True)])
    return found | {"expression": expression[:, np.lexsort(expression)]}


def judged(*batches: Any) -> dict[str, np.ndarray]:
    """The same from a dense matrix."""
    a = np.concatenate([batch[0].dense().double().numpy() for batch in batches])
    cells, genes, e = (np.concatenate([batch[i] for batch in batches]) for i in (1, 2, 3))
    found: dict[str, np.ndarray] = {
        "n_rows": np.asarray(len(a)),
        "fired": (a != 0).sum(0),
        "sums": a.sum(0),
        "squares": (a * a).sum(0),
        "highs": np.array([column[column != 0].max() if column.any() else 0 for column in a.T]),
        "histogram": np.array([
            np.bincount(np.searchsorted(EDGES, np.abs(column[column != 0]), side="right"), minlength=BINS)
            for column in a.T
        ]),
        "gene_rows": np.bincount(genes, minlength=G),
        "gene_weights": np.bincount(genes, e, minlength=G),
        "gene_squares": np.bincount(genes, e * e, minlength=G),
        "cell_rows": np.bincount(cells, minlength=C),
    }  # fmt: skip
    for name, groups, n in (("genes", genes, G), ("cells", cells, C)):
        member = groups[:, None] == np.arange(n)
        found |= {
            f"{name}.counts": (a != 0).T.astype(float) @ member,
            f"{name}.sums": a.T @ member,
            f"{name}.weighted": (a * e[:, None]).T @ member,
            f"{name}.highs": np.array([
                [column[m & (column != 0)].max(initial=-np.inf) for m in member.T] for column in a.T
            ]),
        }  # fmt: skip
    expression = np.array([cells, genes, e])
    return found | {"expression": expression[:, np.lexsort(expression)]}


def same(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert set(one) == set(other)
    for name, value in one.items():
        np.testing.assert_array_equal(value, other[name], err_msg=name)


SETTINGS: list[dict[str, Any]] = [{}, {"waiting": 1}, {"waiting": 100, "most_pairs": 64}]


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_a_dense_matrix_says_the_same(settings: dict[str, Any], tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    batches = [rows(random, int(n), int(k)) for n, k in zip([30, 0, 1, 55, 7], [6, 6, 1, 3, 70], strict=True)]
    same(numbers(tallied(*batches, **settings, folder=tmp_path)), judged(*batches))
    assert not list(tmp_path.iterdir())


def test_sums_run_in_double_precision() -> None:
    codes, cells, genes, e = rows(np.random.default_rng(10), 400)
    e = np.float32(e / 7).astype(np.float64)
    batch = Codes(codes.indices, codes.values / 3, F), cells, genes, e
    have, want = numbers(tallied(batch)), judged(batch)
    for name in ("sums", "squares", "gene_weights", "gene_squares", "genes.sums", "genes.weighted", "cells.weighted"):
        np.testing.assert_allclose(have[name], want[name], rtol=1e-12, atol=1e-13, err_msg=name)


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_four_parts_in_any_shape_merge_to_one_pass(settings: dict[str, Any]) -> None:
    random = np.random.default_rng(1)
    batches = [rows(random, 40) for _ in range(8)]
    parts = []
    for start in range(0, 8, 2):
        part = Tally(F, C, G, **settings)
        for batch in batches[start : start + 2]:
            part.update(batch)
        parts.append(part)
    before = numbers(parts[3].result())
    parts[2].merge(parts[3])
    parts[1].merge(parts[2])
    parts[1].merge(parts[0])
    same(numbers(parts[1].result()), judged(*batches))
    same(numbers(parts[3].result()), before)
    parts[3].merge(parts[3])
    same(numbers(parts[3].result()), judged(*batches[6:] * 2))


def test_a_hand_worked_case() -> None:
    tally = Tally(3, 2, 2)
    codes = Codes(
        torch.tensor([[0, 1], [1, 0], [1, 2]], dtype=torch.int32), torch.tensor([[2.0, -3.0], [-1.0, 0], [-4, 0]]), 3
    )
    tally.update((codes, [0, 1, 1], [0, 1, 1], [5.0, 2.0, 0.5]))
    seen = tally.result()
    np.testing.assert_array_equal(seen.fired, [1, 3, 0])
    np.testing.assert_array_equal(seen.sums, [2, -8, 0])
    np.testing.assert_array_equal(seen.squares, [4, 26, 0])
    np.testing.assert_array_equal(seen.highs, [2, -1, 0])  # with its sign; 0 where it never fired
    np.testing.assert_array_equal(seen.gene_weights, [5, 2.5])
    np.testing.assert_array_equal(seen.gene_squares, [25, 4.25])
    (block,) = seen.genes.blocks()
    np.testing.assert_array_equal(block.indptr, [0, 1, 3, 3])
    np.testing.assert_array_equal(block.others, [0, 0, 1])
    np.testing.assert_array_equal(block.counts, [1, 1, 2])
    np.testing.assert_array_equal(block.weighted, [10, -15, -4])
    np.testing.assert_array_equal(block.highs, [2, -3, -1])
    # 2 = 2^1 begins a half-octave: 22 of them from 2^-10 on, one bin below.
    assert EDGES[22] == 2
    assert seen.histogram[0, 23] == 1


def test_the_histogram_has_two_bins_an_octave_and_its_ends() -> None:
    assert len(EDGES) == BINS - 1
    np.testing.assert_array_equal(EDGES[:3], [2**-10, 1.5 * 2**-10, 2**-9])
    assert EDGES[-1] == 2**10
    values = np.concatenate([EDGES, np.nextafter(np.float32(EDGES), np.float32(0)), [1e-40, 1e30]]).astype(np.float32)
    codes = Codes(torch.zeros(len(values), 1, dtype=torch.int32), torch.from_numpy(values)[:, None], F)
    zeros = np.zeros(len(values), int)
    seen = tallied((codes, zeros, zeros, zeros * 1.0))
    expected = np.bincount(np.searchsorted(EDGES, values, side="right"), minlength=BINS)
    np.testing.assert_array_equal(seen.histogram[0], expected)
    assert seen.histogram.shape == (F, BINS)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_codes_of_any_precision_and_torch_metadata(dtype: torch.dtype) -> None:
    codes, cells, genes, e = rows(np.random.default_rng(2), 30)
    wide = Codes(codes.indices, codes.values.to(dtype).requires_grad_(), F)
    same(numbers(tallied((wide, torch.from_numpy(cells), torch.from_numpy(genes), torch.from_numpy(e).float()))),
         judged((codes, cells, genes, e)))  # fmt: skip


def test_codes_need_not_be_contiguous() -> None:
    codes, cells, genes, e = rows(np.random.default_rng(3), 30)
    turned = Codes(codes.indices.T.contiguous().T, codes.values.T.contiguous().T, F)
    assert not turned.indices.is_contiguous()
    same(numbers(tallied((turned, cells, genes, e))), judged((codes, cells, genes, e)))


def test_few_of_very_many_cells() -> None:
    codes, _, _, e = rows(np.random.default_rng(4), 40)
    cells = np.where(np.arange(40) < 20, 3, 2_000_000_000 - 1)
    found = module.pair_sums(codes, cells.astype(np.int32), e.astype(np.float32))
    assert sorted(set((found["key"] >> 32).tolist())) == [3, 2_000_000_000 - 1]
    by_hand = codes.values.double().numpy()[20:].sum()
    assert found["sums"][found["key"] >> 32 > 3].sum() == by_hand


def through_json(state: dict[str, Any]) -> dict[str, Any]:
    plain = {k: v.tolist() if isinstance(v, np.ndarray) else v for k, v in state.items()}
    return json.loads(json.dumps(plain))


@pytest.mark.parametrize("n", [0, 60])
@pytest.mark.parametrize("carry", [dict, through_json])
def test_a_state_goes_on_to_the_bit(n: int, carry: Any) -> None:
    random = np.random.default_rng(5)
    first, second = rows(random, n), rows(random, 50)
    whole = Tally(F, C, G)
    whole.update(first)
    state = whole.state()
    resumed = Tally.from_state(carry(state))
    same(numbers(resumed.result()), judged(first))
    for tally in (whole, resumed):
        tally.update(second)
        tally.update(second)
    same(numbers(resumed.result()), numbers(whole.result()))
    same(numbers(resumed.result()), judged(first, second, second))
    same(numbers(Tally.from_state(state).result()), judged(first))


def test_marks_of_rows_begin_anew_before_they_repeat() -> None:
    n = 2**16 + 5  # a row's mark is a number of 16 bits: the feature of the first row meets that number again
    idx = torch.zeros(n, 1, dtype=torch.int32)
    idx[0] = idx[2**16 - 1] = 1
    zeros = np.zeros(n, np.int32)
    seen = tallied((Codes(idx, torch.ones(n, 1), F), zeros, zeros, zeros))
    np.testing.assert_array_equal(seen.fired[:2], [n - 2, 2])


def test_a_result_stays_what_it_was() -> None:
    random = np.random.default_rng(6)
    first, second = rows(random, 30), rows(random, 30)
    tally = Tally(F, C, G)
    tally.update(first)
    seen = tally.result()
    tally.update(second)
    tally.result()
    same(numbers(seen), judged(first))


def spoilt(what: str) -> tuple[Any, str]:
    codes, cells, genes, e = rows(np.random.default_rng(7), 20)
    idx, val = codes.indices.clone(), codes.values.clone()
    cases: dict[str, tuple[Any, str]] = {}
    for name, place, says in (
        ("nan", np.nan, "row 3 of codes holds NaN or infinity"),
        ("infinite", -np.inf, "row 3 of codes holds NaN or infinity"),
    ):
        bad = val.clone()
        bad[3, 2] = place
        cases[name] = ((Codes(idx, bad, F), cells, genes, e), says)
    for name, value in (("above", F), ("below", -1)):
        bad = idx.clone()
        bad[19, 5] = value
        cases[name] = ((Codes(bad, val, F), cells, genes, e), f"row 19 of codes names feature {value} of {F}")
    twice, strong = idx.clone(), val.clone()
    twice[7, 1], strong[7, :2] = twice[7, 0], 1
    feature = int(twice[7, 0])
    cases["twice"] = ((Codes(twice, strong, F), cells, genes, e), f"row 7 of codes names feature {feature} twice")
    wide = val.double()
    wide[11, 4] = 1e300
    cases["wide"] = ((Codes(idx, wide, F), cells, genes, e), "row 11 of codes holds a value that float32 does not")
    cases["features"] = ((Codes(idx, val, F + 1), cells, genes, e), f"codes of {F + 1} features where {F} are expected")
    cases["short"] = ((codes, cells[1:], genes, e), "cells of shape (19,) for 20 rows of codes")
    cases["square"] = ((codes, cells, genes, np.ones((20, 1))), "weights of shape (20, 1) for 20 rows of codes")
    cases["cell"] = ((codes, cells + C, genes, e), f"cell {(cells + C).max()} in a batch is outside 0 to {C - 1}")
    cases["gene"] = ((codes, cells, genes - G, e), f"gene {(genes - G).min()} in a batch is outside 0 to {G - 1}")
    cases["fraction"] = ((codes, cells * 1.0, genes, e), "the cells in a batch are float64, not whole numbers")
    cases["weight"] = ((codes, cells, genes, np.where(np.arange(20) == 4, np.nan, e)),
                       "1 of 20 values in a batch are NaN or infinite")  # fmt: skip
    cases["large"] = ((codes, cells, genes, e + 1e300), "weights in a batch are larger than float32 holds")
    cases["tuple"] = ((codes, cells, genes), "a batch must be (codes, cells, genes, weights)")
    cases["dense"] = ((val, cells, genes, e), "a batch must be (codes, cells, genes, weights)")
    return cases[what] if what else (list(cases), "")


@pytest.mark.parametrize("what", spoilt("")[0])
@pytest.mark.parametrize("waiting", [1, 2**20])
def test_what_does_not_fit_is_refused_in_one_line_and_leaves_no_trace(what: str, waiting: int) -> None:
    good = rows(np.random.default_rng(8), 20)
    tally = Tally(F, C, G, waiting=waiting)
    tally.update(good)
    batch, says = spoilt(what)
    with pytest.raises(DataError) as caught:
        tally.update(batch)
    assert str(caught.value) == says
    same(numbers(tally.result()), judged(good))
    tally.update(good)
    same(numbers(tally.result()), judged(good, good))


def test_an_empty_slot_may_repeat_a_feature() -> None:
    idx, val = torch.zeros(2, 3, dtype=torch.int32), torch.tensor([[1.0, 0, 0], [0, 0, 2.0]])
    np.testing.assert_array_equal(tallied((Codes(idx, val, F), [0, 0], [0, 1], [1.0, 1.0])).fired[:2], [2, 0])


def test_settings_and_states_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"^n_cells=0\. Choose a whole number above 0\.$"):
        Tally(F, 0, G)
    with pytest.raises(DataError, match=r"^two Tally that differ in n_genes cannot be merged: 12 and 13\."):
        Tally(F, C, G).merge(Tally(F, C, G + 1))
    tally = Tally(F, C, G)
    tally.update(rows(np.random.default_rng(9), 5))
    state = tally.state()
    for change, says in (
        ({"statistic": "Mode"}, "this is the state of 'Mode', not of Tally"),
        ({"fired": np.zeros(3)}, f"fired in the state of Tally is (3,), not ({F},)"),
        ({"genes.sums": [np.nan] * len(state["genes.sums"])},
         "the pairs of a run are not finite, or never came, in the state of Pairs"),
        ({"genes.n_others": 99}, "two Pairs that differ in n_others cannot be merged: 99 and 12. Make both with the same settings."),
        ({"expression.cell": np.zeros(4, int)}, "the rows in the state of Tally are not as many as it says"),
        ({"expression.cell": np.full(5, C)}, f"cell {C} in a batch is outside 0 to {C - 1}"),
        ({"expression.e": np.full(5, np.nan)}, "5 of 5 values in a batch are NaN or infinite"),
    ):  # fmt: skip
        with pytest.raises(DataError) as caught:
            Tally.from_state({**state, **change})
        assert str(caught.value) == says
    for key in ("fired", "genes.key", "cells.sums", "expression.gene"):
        with pytest.raises(DataError, match=f"lacks (expression.)?{key.rpartition('.')[2]}$"):
            Tally.from_state({k: v for k, v in state.items() if k != key})
