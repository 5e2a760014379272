"""Compiled kernels, plain PyTorch and a dense reference with autograd: three ways to the same numbers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import elute.dictionaries
from elute.dictionaries import kernels, ops, plain, sparsity

MODULES = pytest.mark.parametrize("module", [kernels, plain], ids=["kernels", "plain"])
SIGNED = pytest.mark.parametrize("signed", [False, True], ids=["rectified", "signed"])
INF, NAN = float("inf"), float("nan")

# rows, features, width read, width written, k, mean of the pre-activations
SHAPES = {
    "usual": (33, 300, 17, 6, 8, 0.0),
    "all features": (9, 40, 5, 8, 40, 0.0),
    "k above the positives": (20, 60, 7, 7, 20, -2.0),
    "nothing fires": (6, 20, 4, 3, 4, -1e3),
    "one row": (1, 70, 8, 8, 3, 0.0),
    "no rows": (0, 30, 6, 5, 4, 0.0),
    "width 1": (12, 25, 1, 1, 2, 0.0),
    "one feature": (12, 1, 3, 2, 1, 0.0),
    "narrow groups and a rest": (17, 16 * 8 + 5, 3, 3, 4, 0.0),
    "wide groups and a rest": (17, 64 * 16 + 63, 3, 2, 8, 0.0),
    "k = 1": (10, 64 * 2 + 1, 2, 9, 1, 0.0),
}


@pytest.fixture(params=SHAPES.values(), ids=SHAPES)
def problem(request: pytest.FixtureRequest) -> SimpleNamespace:
    """Rows, targets, weights and biases in float64 (rounded to float32, so that both see the same numbers)."""
    return problem_of(*request.param)


def problem_of(n: int, features: int, read: int, write: int, k: int, mean: float, seed: int = 0) -> SimpleNamespace:
    draw = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw).double()

    return SimpleNamespace(
        k=k,
        x=normal(n, read),
        y=normal(n, write),
        W_enc=normal(features, read),
        b_enc=normal(features) + mean,
        W_dec=normal(features, write),
        b_dec=normal(1, write),
    )


def cast(problem: SimpleNamespace, dtype: torch.dtype) -> SimpleNamespace:
    given = vars(problem).items()
    return SimpleNamespace(**{name: v.to(dtype) if isinstance(v, Tensor) else v for name, v in given})


def dense(p: SimpleNamespace, *, signed: bool, scale: float) -> tuple[Tensor, ...]:
    """Values of all features, residual, and gradients of scale/2 × the squared error, by autograd on dense tensors."""
    W_enc, b_enc, W_dec = (t.clone().requires_grad_() for t in (p.W_enc, p.b_enc, p.W_dec))
    pre = p.x @ W_enc.T + b_enc
    strength = pre.abs() if signed else pre.relu()
    chosen = torch.zeros_like(pre).scatter(1, strength.topk(p.k, dim=1).indices, 1.0)
    values = (pre if signed else strength) * chosen
    rest = p.b_dec + values @ W_dec - p.y
    (scale * rest.square().sum() / 2).backward()
    return tuple(t.detach() for t in (values, rest, W_dec.grad, W_enc.grad, b_enc.grad))


def sparse(module: Any, p: SimpleNamespace, *, signed: bool, scale: float) -> tuple[Tensor, ...]:
    """The same five by one module's functions."""
    idx, val = chosen_by(module, p, signed)
    rest, slope = module.residual(idx, val, p.W_dec, base=p.b_dec, y=p.y)
    into = torch.zeros_like(p.W_dec), torch.zeros_like(p.W_enc), torch.zeros_like(p.b_enc)
    module.gather(idx, val, slope, g=rest, x=p.x, scale=scale, into=into)
    return scattered(idx, val, len(p.W_enc)), rest, *into


def chosen_by(module: Any, p: SimpleNamespace, signed: bool) -> tuple[Tensor, Tensor]:
    return module.top(p.x @ p.W_enc.T + p.b_enc, p.k, signed=signed)


def scattered(idx: Tensor, val: Tensor, features: int) -> Tensor:
    """Slots as a dense matrix; slots of one feature must not repeat, but empty ones all name feature 0."""
    return val.new_zeros(len(idx), features).scatter_add(1, idx.long(), val)


def error(got: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest number."""
    if expected.numel() == 0:
        return 0.0
    return float((got.double() - expected).abs().max() / expected.abs().max().clamp(min=1e-300))


@MODULES
@SIGNED
def test_gradients_are_those_of_dense_autograd_in_float64(
    module: ModuleType, problem: SimpleNamespace, signed: bool
) -> None:
    expected = dense(problem, signed=signed, scale=0.37)
    for got, want in zip(sparse(module, problem, signed=signed, scale=0.37), expected, strict=True):
        assert got.shape == want.shape
        assert error(got, want) < 1e-12


@MODULES
@SIGNED
def test_float32_agrees_to_its_own_precision(module: ModuleType, problem: SimpleNamespace, signed: bool) -> None:
    expected = dense(problem, signed=signed, scale=0.37)
    for got, want in zip(
        sparse(module, cast(problem, torch.float32), signed=signed, scale=0.37), expected, strict=True
    ):
        assert got.dtype == torch.float32
        assert error(got, want) < 1e-5


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_goes_the_plain_way(dtype: torch.dtype) -> None:
    p = problem_of(*SHAPES["usual"])
    half = cast(p, dtype)
    assert ops.of(half.x) is plain
    idx, val = plain.top(half.x @ half.W_enc.T + half.b_enc, p.k)
    rest, slope = plain.residual(idx, val, half.W_dec, base=half.b_dec, y=half.y)
    wide = cast(half, torch.float64)
    expected = wide.b_dec + scattered(idx, val.double(), len(p.W_enc)) @ wide.W_dec - wide.y
    assert rest.dtype == slope.dtype == dtype
    assert error(rest, expected) < 8 * torch.finfo(dtype).eps


def test_the_module_follows_the_device_and_the_type() -> None:
    assert ops.of(torch.zeros(1)) is kernels
    assert ops.of(torch.zeros(1, dtype=torch.float64)) is kernels
    assert ops.of(torch.zeros(1, dtype=torch.bfloat16)) is plain
    assert ops.of(torch.zeros(1, device="meta")) is plain


def test_a_card_without_triton_goes_the_plain_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    monkeypatch.delitem(sys.modules, "elute.dictionaries.triton", raising=False)
    monkeypatch.delattr(elute.dictionaries, "triton", raising=False)
    assert ops._module.__wrapped__("cuda", exact=True) is plain


@MODULES
@SIGNED
def test_codes_come_in_order_of_index_and_empty_slots_are_zero(
    module: ModuleType, problem: SimpleNamespace, signed: bool
) -> None:
    idx, val = chosen_by(module, problem, signed)
    assert idx.shape == val.shape == (len(problem.x), problem.k)
    assert idx.dtype == torch.int32
    assert bool((idx[val == 0] == 0).all())
    for features in (row[fired] for row, fired in zip(idx, val != 0, strict=True)):
        assert features.tolist() == sorted(set(features.tolist()))


@SIGNED
def test_the_kernel_and_plain_choose_the_same_features(problem: SimpleNamespace, signed: bool) -> None:
    ours, theirs = chosen_by(kernels, problem, signed), chosen_by(plain, problem, signed)
    features = len(problem.W_enc)
    assert torch.equal(scattered(*ours, features), scattered(*theirs, features))


@MODULES
@SIGNED
@pytest.mark.parametrize("width", [5, 40, 300, 1100])
def test_of_equal_numbers_exactly_k_fire(module: ModuleType, signed: bool, width: int) -> None:
    pre = torch.full((3, width), 0.5)
    pre[1] = 0
    pre[2] = -0.5
    idx, val = module.top(pre, 4, signed=signed)
    assert val.tolist() == [[0.5] * 4, [0.0] * 4, [-0.5 if signed else 0.0] * 4]
    assert len(set(idx[0].tolist())) == 4
    if module is kernels:
        assert idx[0].tolist() == [0, 1, 2, 3]


def test_of_equal_numbers_the_kernel_keeps_the_first() -> None:
    pre = torch.tensor([[1.0, 3.0, 2.0, 2.0, 0.0, 2.0, 3.0, 2.0]]).repeat(1, 40)
    idx, _ = kernels.top(pre[:, :8].contiguous(), 4)
    assert idx.tolist() == [[1, 2, 3, 6]]
    idx, val = kernels.top(pre, 81)
    assert [i for i, v in zip(idx[0].tolist(), val[0].tolist(), strict=True) if v == 2] == [2]
    assert int((val == 3).sum()) == 80


NUMBERS = st.floats(width=32, allow_nan=False) | st.sampled_from([0.0, -0.0, 1.0, -1.0, 2.0, INF, -INF, 1e-45, -1e-45])


@settings(max_examples=100, deadline=None)
@given(data=st.data(), signed=st.booleans(), dtype=st.sampled_from([torch.float32, torch.float64]))
def test_top_is_that_of_pytorch(data: st.DataObject, signed: bool, dtype: torch.dtype) -> None:
    width = data.draw(st.integers(1, 40) | st.sampled_from([63, 64, 65, 127, 128, 129, 257]))
    k = data.draw(st.integers(1, min(width, 12)))
    row = data.draw(st.lists(NUMBERS, min_size=1, max_size=12))
    pre = torch.tensor(row, dtype=dtype).repeat(width // len(row) + 1)[:width]
    pre = torch.stack([pre[torch.randperm(width, generator=torch.Generator().manual_seed(i))] for i in range(3)])
    strength = pre.abs() if signed else pre.clamp(min=0)
    expected = strength.topk(k, dim=1).values.sort(dim=1).values
    for module in (kernels, plain):
        idx, val = module.top(pre, k, signed=signed)
        assert torch.equal(val.abs().sort(dim=1).values, expected)
        fired = val != 0
        assert torch.equal(pre.gather(1, idx.long())[fired], val[fired])
        assert not bool((val < 0).any()) or signed
        assert bool((idx.diff(dim=1)[fired[:, 1:] & fired[:, :-1]] > 0).all())


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("width", [10, 100, 1000, 1029])
@MODULES
@SIGNED
def test_nan_comes_out(module: ModuleType, signed: bool, width: int, dtype: torch.dtype) -> None:
    """Also a NaN whose sign bit is set: inf − inf has it on x86."""
    bits = torch.int32 if dtype == torch.float32 else torch.int64
    nan = torch.tensor(NAN, dtype=dtype)
    negative = (nan.view(bits) | torch.iinfo(bits).min).view(dtype)
    assert bool(negative.isnan())
    assert bool(negative.signbit())
    for bad in (nan, negative):
        for place in (0, 7, width - 1):
            pre = torch.randn(3, width, dtype=dtype)
            pre[1, place] = bad
            idx, val = module.top(pre, 3, signed=signed)
            assert val.isnan().sum(1).tolist() == [0, 1, 0]
            assert int(idx[1][val[1].isnan()]) == place
    pre = torch.full((1, width), -1.0, dtype=dtype)
    pre[0, 3] = -INF
    assert not bool(module.top(pre, 3, signed=False)[1].any())


@MODULES
def test_nan_passes_through_every_step(module: ModuleType) -> None:
    idx, val = torch.tensor([[0, 2]], dtype=torch.int32), torch.tensor([[1.0, NAN]])
    W, row = torch.ones(3, 4), torch.ones(1, 4)
    into = torch.zeros(1, 4)
    module.decode(idx, val, W, into=into)
    rest, slope = module.residual(idx, val, W, base=row, y=row)
    grads = torch.zeros(3, 4), torch.zeros(3, 4), torch.zeros(3)
    module.gather(idx, val, slope, g=rest, x=row, scale=1.0, into=grads)
    assert bool(into.isnan().all())
    assert bool(rest.isnan().all())
    for grad in grads:
        assert bool(grad[2].isnan().all())
        assert not bool(grad[1].any())


@MODULES
def test_empty_slots_neither_give_nor_take(module: ModuleType) -> None:
    """Whatever stands beside a value of 0, feature 0 included, does not count."""
    idx, val = torch.tensor([[2, 0, 1], [0, 0, 0]], dtype=torch.int32), torch.tensor([[2.0, 0.0, 0.0], [0.0, 0.0, 0.0]])
    slope = torch.tensor([[5.0, 7.0, 9.0], [1.0, 2.0, 3.0]])
    W, g, x = torch.randn(4, 3), torch.randn(2, 3), torch.randn(2, 5)
    assert module.slopes(idx, val, W, g=g).tolist() == [[pytest.approx(float(W[2] @ g[0])), 0, 0], [0, 0, 0]]
    dec, enc, bias = torch.ones(4, 3), torch.ones(4, 5), torch.ones(4)
    module.gather(idx, val, slope, g=g, x=x, scale=0.5, into=(dec, enc, bias))
    fired = torch.tensor([0.0, 0.0, 1.0, 0.0])
    assert error(dec, 1 + fired[:, None] * g[0]) < 1e-6
    assert error(enc, 1 + fired[:, None] * 2.5 * x[0]) < 1e-6
    assert error(bias, 1 + fired * 2.5) < 1e-6


@MODULES
def test_no_slots_at_all(module: ModuleType) -> None:
    """A batch of BatchTopK in which nothing fired has codes of no width."""
    idx, val = torch.zeros(3, 0, dtype=torch.int32), torch.zeros(3, 0)
    W, y = torch.randn(4, 2), torch.randn(3, 2)
    rest, slope = module.residual(idx, val, W, base=torch.zeros(1, 2), y=y)
    assert torch.equal(rest, -y)
    assert slope.shape == (3, 0)
    grads = torch.zeros(4, 2), torch.zeros(4, 2), torch.zeros(4)
    module.gather(idx, val, slope, g=rest, x=y, scale=1.0, into=grads)
    assert not any(bool(grad.any()) for grad in grads)


@MODULES
def test_decode_and_gather_add_to_what_is_there(module: ModuleType) -> None:
    p = problem_of(*SHAPES["usual"])
    idx, val = chosen_by(module, p, False)
    into = p.y.clone()
    module.decode(idx, val, p.W_dec, into=into)
    assert error(into, p.y + scattered(idx, val, len(p.W_dec)) @ p.W_dec) < 1e-14
    once = [torch.zeros_like(t) for t in (p.W_dec, p.W_enc, p.b_enc)]
    twice = [torch.zeros_like(t) for t in once]
    for grads, times in ((once, 1), (twice, 2)):
        for _ in range(times):
            module.gather(idx, val, val, g=p.y, x=p.x, scale=0.25, into=tuple(grads))
    assert all(error(b, 2 * a) < 1e-14 for a, b in zip(once, twice, strict=True))


@MODULES
def test_a_base_may_be_one_row_or_one_each_and_rows_may_be_columns_of_a_wider_batch(module: ModuleType) -> None:
    p = problem_of(*SHAPES["usual"])
    idx, val = chosen_by(module, p, False)
    rest, slope = module.residual(idx, val, p.W_dec, base=p.b_dec, y=p.y)
    wide = torch.cat([p.y, p.y], 1)
    for base in (p.b_dec.repeat(len(p.y), 1), p.b_dec.expand(len(p.y), -1)):
        again, same = module.residual(idx, val, p.W_dec, base=base, y=wide[:, : p.y.shape[1]])
        assert torch.equal(again, rest)
        assert torch.equal(same, slope)
    other, _ = module.residual(idx, val, p.W_dec, base=p.y.flip(0), y=p.y)
    assert error(other, rest - p.b_dec + p.y.flip(0)) < 1e-14


@pytest.fixture
def threads() -> Iterator[Callable[[int], None]]:
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@SIGNED
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_threads_change_no_bit(threads: Callable[[int], None], signed: bool, dtype: torch.dtype) -> None:
    p = cast(problem_of(101, 260, 9, 5, 6, -0.5), dtype)
    p.b_enc[:20] += 6  # few features take most of the rows
    pre = p.x @ p.W_enc.T + p.b_enc
    runs = []
    for n in (1, 2, 3):
        threads(n)
        idx, val = kernels.top(pre, p.k, signed=signed)
        rest, slope = kernels.residual(idx, val, p.W_dec, base=p.b_dec, y=p.y)
        y = p.y.clone()
        kernels.decode(idx, val, p.W_dec, into=y)
        into = torch.zeros_like(p.W_dec), torch.zeros_like(p.W_enc), torch.zeros_like(p.b_enc)
        kernels.gather(idx, val, slope, g=rest, x=p.x, scale=0.1, into=into)
        runs.append((idx, val, rest, slope, kernels.slopes(idx, val, p.W_dec, g=rest), y, *into))
    assert int((runs[0][6].abs().sum(1) == 0).sum()) > 10, "some features never fire"
    for other in runs[1:]:
        assert all(torch.equal(a, b) for a, b in zip(runs[0], other, strict=True))


@SIGNED
@pytest.mark.parametrize("rows", [0, 1, 4, 5, 23])
def test_the_strongest_are_found_piece_by_piece(monkeypatch: pytest.MonkeyPatch, rows: int, signed: bool) -> None:
    p = problem_of(rows, 50, 6, 6, 5, 0.0)
    whole = ops.strongest(p.x, p.W_enc, p.b_enc, k=p.k, signed=signed)
    expected = plain.top(p.x @ p.W_enc.T + p.b_enc, p.k, signed=signed)
    for rows_a_piece, numbers in ((4, 1 << 25), (256, 4 * 50 + 49), (256, 1)):
        monkeypatch.setattr(ops, "_ROWS", rows_a_piece)
        monkeypatch.setattr(ops, "_NUMBERS", numbers)
        pieces = [len(pre) for pre in ops.products(p.x, p.W_enc, p.b_enc)]
        assert sum(pieces) == rows
        assert max(pieces) <= (4 if numbers > 1 else 1)
        idx, val = ops.strongest(p.x, p.W_enc, p.b_enc, k=p.k, signed=signed)
        assert torch.equal(idx, whole[0])
        assert torch.equal(idx, expected[0])
        assert error(val, expected[1]) < 1e-13


def test_pieces_share_one_buffer_and_weights_may_want_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ops, "_ROWS", 4)
    p = problem_of(10, 12, 3, 3, 2, 0.0)
    W = torch.nn.Parameter(p.W_enc)
    places = {pre.data_ptr() for pre in ops.products(p.x, W, torch.nn.Parameter(p.b_enc))}
    assert len(places) == 1
    assert not ops.strongest(p.x, W, p.b_enc, k=2)[1].requires_grad


def test_plain_work_by_pieces_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    p = problem_of(*SHAPES["usual"])
    whole = sparse(plain, p, signed=True, scale=2.0)
    monkeypatch.setattr(plain, "_PIECE", 8 * 17 * 5)
    for a, b in zip(sparse(plain, p, signed=True, scale=2.0), whole, strict=True):
        assert error(a, b) < 1e-14


MATRICES = st.integers(0, 5).flatmap(
    lambda rows: st.lists(
        st.lists(st.sampled_from([0.0, 0.0, 1.5, -2.0, NAN]), min_size=4, max_size=4), min_size=rows, max_size=rows
    )
)


@settings(max_examples=40, deadline=None)
@given(MATRICES)
def test_pack_holds_every_value_once(matrix: list[list[float]]) -> None:
    values = torch.tensor(matrix).reshape(-1, 4)
    idx, val = sparsity.pack(values)
    assert val.shape[1] == max(((values != 0).sum(1)).tolist(), default=0)
    for i, row in enumerate(matrix):
        slots = [(j, v) for j, v in enumerate(row) if v != 0]
        slots += [(0, 0.0)] * (val.shape[1] - len(slots))
        assert repr(list(zip(idx[i].tolist(), val[i].tolist(), strict=True))) == repr(slots)
    assert idx.dtype == torch.int32


def test_stack_fills_up_with_empty_slots() -> None:
    parts = [sparsity.pack(torch.tensor(v)) for v in ([[0.0, 3.0, 4.0]], [[0.0, 0.0, 0.0]], [[5.0, 0.0, 0.0]])]
    idx, val = sparsity.stack(parts)
    assert idx.tolist() == [[1, 2], [0, 0], [0, 0]]
    assert val.tolist() == [[3.0, 4.0], [0.0, 0.0], [5.0, 0.0]]
    assert idx.dtype == torch.int32


@pytest.mark.parametrize("threshold", [-1.0, 0.0, 0.8, 1e9])
def test_above_keeps_what_exceeds_the_threshold_and_zero(monkeypatch: pytest.MonkeyPatch, threshold: float) -> None:
    monkeypatch.setattr(ops, "_ROWS", 4)
    p = problem_of(11, 30, 5, 5, 3, 0.0)
    pre = p.x @ p.W_enc.T + p.b_enc
    bank: Any = SimpleNamespace(W_enc=p.W_enc, b_enc=p.b_enc)
    idx, val = sparsity.above(bank, p.x, torch.tensor(threshold))
    expected = torch.where((pre > threshold) & (pre > 0), pre, 0)
    assert error(scattered(idx, val, 30), expected) < 1e-6
    assert idx.shape[1] == int((expected != 0).sum(1).max())
