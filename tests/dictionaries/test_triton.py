"""The Triton kernels against plain PyTorch in float64.

Three ways, each as far as this machine can: on a card; in Triton's interpreter, which runs the kernels' source on the
CPU, in a process of its own since Triton reads TRITON_INTERPRET when it is first imported; and compiled for cards that
are not here, since the interpreter accepts what the compiler refuses.
"""

from __future__ import annotations

import os
import subprocess
import sys
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from elute.dictionaries import ops, plain

pytest.importorskip("triton", reason="Triton is not installed here: its kernels are not tested")

from elute.dictionaries import triton as kernels

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"
RUNS = pytest.mark.skipif(
    not INTERPRETED and not torch.cuda.is_available(), reason="no card here: see test_in_the_interpreter"
)
COMPILES = pytest.mark.skipif(INTERPRETED, reason="in the interpreter nothing is compiled")

TOLERANCE = {torch.float64: 1e-13, torch.float32: 2e-6, torch.float16: 2e-3, torch.bfloat16: 1.6e-2}

# rows, features, width read, width written, k; blocks are 16 columns and 4 slots here
SHAPES = {
    "several blocks": (5, 7, 19, 6, 6),
    "reads less than it writes": (2, 5, 3, 17, 2),
    "width 1": (2, 4, 1, 1, 2),
    "all features": (3, 5, 16, 16, 5),
    "one row": (1, 4, 5, 7, 1),
    "no rows": (0, 8, 5, 4, 3),
}
USUAL = SHAPES["several blocks"]
CASES = [(shape, torch.float32) for shape in SHAPES] + [
    ("several blocks", dtype) for dtype in (torch.float64, torch.float16, torch.bfloat16)
]


@pytest.fixture(autouse=True)
def _small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "_COLUMNS", 16)
    monkeypatch.setattr(kernels, "_SLOTS", 4)


def problem_of(n: int, features: int, read: int, write: int, k: int) -> SimpleNamespace:
    """Codes with empty slots, a feature that fires in every row and one that never does."""
    draw = torch.Generator().manual_seed(1)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw).bfloat16().double()  # the same numbers in every type

    pre = normal(n, features)
    pre[:, 1] = 5
    pre[:, 2] = -5
    idx, val = plain.top(pre, k)
    return SimpleNamespace(
        idx=idx,
        val=val,
        slope=normal(n, k),
        x=normal(n, read),
        y=normal(n, write),
        W=normal(features, write),
        base=normal(1, write),
        into=(normal(features, write), normal(features, read), normal(features)),
    )


def results(module: Any, p: SimpleNamespace, dtype: torch.dtype, device: str = DEVICE) -> list[Tensor]:
    """What all functions but `top` give, in order."""

    def there(t: Tensor) -> Tensor:
        return t.to(device=device, dtype=dtype)

    idx, val, slope, x, y, W, base = (there(t) for t in (p.idx, p.val, p.slope, p.x, p.y, p.W, p.base))
    idx = p.idx.to(device)
    decoded = y.clone()
    module.decode(idx, val, W, into=decoded)
    rest, slopes = module.residual(idx, val, W, base=base, y=y)
    each, _ = module.residual(idx, val, W, base=y.flip(0), y=y)
    into = tuple(there(t).clone() for t in p.into)
    module.gather(idx, val, slope, g=y, x=x, scale=0.3, into=into)
    return [decoded, module.slopes(idx, val, W, g=y), rest, slopes, each, *into]


def error(got: Tensor, expected: Tensor) -> float:
    """The largest difference, relative to the largest number."""
    got = got.cpu().double()
    assert got.shape == expected.shape
    if expected.numel() == 0:
        return 0.0
    return float((got - expected).abs().max() / expected.abs().max().clamp(min=1e-300))


@RUNS
@pytest.mark.parametrize(("shape", "dtype"), CASES, ids=str)
def test_every_function_is_that_of_plain(shape: str, dtype: torch.dtype) -> None:
    p = problem_of(*SHAPES[shape])
    got = results(kernels, p, dtype)
    for a, b in zip(got, results(plain, p, torch.float64, "cpu"), strict=True):
        assert a.dtype == dtype
        assert error(a, b) < TOLERANCE[dtype]
    if DEVICE == "cuda":
        again = results(kernels, p, dtype)
        assert all(torch.equal(a, b) for a, b in zip(got, again, strict=True)), "the same gives the same bits"


@RUNS
def test_any_layout_is_read_and_written() -> None:
    p = problem_of(*USUAL)
    expected = results(plain, p, torch.float64, "cpu")

    def turned(t: Tensor) -> Tensor:
        return torch.stack([t, t], -1).to(DEVICE)[..., 0]

    idx, val, slope, x, y, W, base, *into = map(turned, (p.idx, p.val, p.slope, p.x, p.y, p.W, p.base, *p.into))
    decoded = turned(p.y)
    kernels.decode(idx, val, W, into=decoded)
    rest, slopes = kernels.residual(idx, val, W, base=base.expand(len(y), -1), y=y)
    kernels.gather(idx, val, slope, g=y, x=x, scale=0.3, into=tuple(into))
    for a, b in zip([decoded, rest, slopes, *into], [expected[i] for i in (0, 2, 3, 5, 6, 7)], strict=True):
        assert error(a, b) < 1e-13


@RUNS
def test_no_slots_at_all() -> None:
    idx = torch.zeros(3, 0, dtype=torch.int32, device=DEVICE)
    val, W, y = (torch.ones(*shape, device=DEVICE) for shape in ((3, 0), (4, 2), (3, 2)))
    rest, slope = kernels.residual(idx, val, W, base=torch.zeros(1, 2, device=DEVICE), y=y)
    assert torch.equal(rest, -y)
    assert slope.shape == (3, 0)
    grads = tuple(torch.zeros(*shape, device=DEVICE) for shape in ((4, 2), (4, 2), (4,)))
    kernels.gather(idx, val, slope, g=rest, x=y, scale=1.0, into=grads)
    assert not any(bool(grad.any()) for grad in grads)


@RUNS
def test_empty_slots_are_not_looked_at_and_nan_comes_out() -> None:
    """Feature 0 stands in every empty slot; what it holds must not spread."""
    idx = torch.tensor([[2, 0, 1], [0, 0, 0]], dtype=torch.int32, device=DEVICE)
    val = torch.tensor([[2.0, 0.0, float("nan")], [0.0, 0.0, 0.0]], device=DEVICE)
    W = torch.ones(3, 5, device=DEVICE)
    W[0] = float("inf")
    y = torch.ones(2, 5, device=DEVICE)
    rest, slope = kernels.residual(idx, val, W, base=torch.zeros(1, 5, device=DEVICE), y=y)
    assert rest.isnan().all(1).tolist() == [True, False]
    assert rest[1].tolist() == [-1.0] * 5
    assert slope[1].tolist() == [0.0] * 3
    assert slope[0].isnan().tolist() == [True, False, True]
    grads = tuple(torch.zeros(*shape, device=DEVICE) for shape in ((3, 5), (3, 5), (3,)))
    kernels.gather(idx, val, torch.full_like(val, 7.0), g=y, x=y, scale=0.5, into=grads)
    assert grads[0][2].tolist() == [1.0] * 5
    assert grads[2].tolist() == [0.0, 3.5, 3.5]
    assert bool(grads[0][1].isnan().all())


@RUNS
def test_offsets_are_64_bits_wide() -> None:
    """A row of weights beyond the first 2^31 numbers; memory of the others is never touched, so that it is not used."""
    width = 1 << 16
    W = torch.empty((1 << 31) // width + 2, width, dtype=torch.bfloat16, device=DEVICE)
    W[-1] = 0
    W[-1, -3:] = torch.tensor([1.0, 2.0, 3.0])
    idx = torch.tensor([[len(W) - 1]], dtype=torch.int32, device=DEVICE)
    val = torch.full((1, 1), 2.0, dtype=torch.bfloat16, device=DEVICE)
    out = torch.zeros(1, width, dtype=torch.bfloat16, device=DEVICE)
    kernels._COLUMNS = width  # one block: the interpreter is slow
    kernels.decode(idx, val, W, into=out)
    assert out[0, -4:].tolist() == [0.0, 2.0, 4.0, 6.0]
    assert kernels.slopes(idx, val, W, g=out).tolist() == [[28.0]]


@RUNS
@pytest.mark.parametrize("signed", [False, True])
def test_top_is_that_of_plain(signed: bool) -> None:
    pre = torch.randn(9, 70, generator=torch.Generator().manual_seed(2))
    for got, want in zip(kernels.top(pre.to(DEVICE), 6, signed=signed), plain.top(pre, 6, signed=signed), strict=True):
        assert torch.equal(got.cpu(), want)


@COMPILES
def test_a_card_is_served_by_triton() -> None:
    assert ops._module.__wrapped__("cuda", exact=True) is kernels


@COMPILES
def test_in_the_interpreter() -> None:
    environment = os.environ | {"TRITON_INTERPRET": "1", "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "", __file__]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert " passed" in done.stdout


@COMPILES
@pytest.mark.parametrize(("number", "sums"), [("fp32", "fp32"), ("bf16", "fp32"), ("fp64", "fp64")])
@pytest.mark.parametrize("name", ["_rows", "_slopes", "_gather"])
def test_kernels_compile_for_cards(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Any, name: str, number: str, sums: str
) -> None:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    kernel = getattr(kernels, name)
    fixed = {"COLUMNS": 512, "SLOTS": 8, "SUMS": getattr(triton.language, f"float{sums[2:]}"), "RESIDUAL": True}
    pointers = {"idx_ptr": "*i32", "starts_ptr": "*i64", "rows_ptr": "*i64", "v_ptr": f"*{sums}", "s_ptr": f"*{sums}"}
    signature = {
        arg: "constexpr" if arg in fixed else pointers.get(arg, f"*{number}") if arg.endswith("_ptr") else "i32"
        for arg in kernel.arg_names
    }
    constants = {(i,): fixed[arg] for i, arg in enumerate(kernel.arg_names) if arg in fixed}
    target = GPUTarget("cuda", 80, 32)
    made = triton.compile(ASTSource(kernel, signature, constants), target=target, options={"enable_fp_fusion": True})
    assert len(made.asm["cubin"]) > 1000
