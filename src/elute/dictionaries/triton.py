"""The sparse work on NVIDIA and AMD cards, in Triton; importing it fails where Triton is not installed.

The same functions as in kernels.py, for any width and for float32, float64, float16 and bfloat16; sums are kept in
float32 (float64 for float64). One program works on one row, or one feature, and one block of columns, and writes
nowhere else: there are no atomic additions, and two runs give the same bits.

Gradients by feature: the slots are sorted by feature on the card (those that are empty last), a binary search finds
where each feature begins, and one program a feature adds up its rows. The host waits for nothing.

Offsets are 64 bits wide: weights and batches may hold more than 2^31 numbers.
"""

# Triton has types in some releases and in others not. Kernels have none: Triton looks up every name in their source,
# and an annotation such as Any is an error there.
# mypy: disable-error-code="import-not-found,import-untyped,untyped-decorator,no-untyped-def,no-untyped-call"

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
import triton
import triton.language as tl

from elute.dictionaries import plain

if TYPE_CHECKING:
    from torch import Tensor

_COLUMNS = 512  # of one block at most
_SLOTS = 8  # gathered at a time

top = plain.top


def decode(idx: Tensor, val: Tensor, W: Tensor, *, into: Tensor) -> None:
    """Add the weighted rows of W to each row of `into`."""
    out = into.contiguous()
    _reconstruct(idx, val, W, out=out)
    if out is not into:
        into.copy_(out)


def slopes(idx: Tensor, val: Tensor, W: Tensor, *, g: Tensor) -> Tensor:
    """Return the product of g's row with each row of W that fired: the gradient of the values."""
    out = torch.zeros_like(val, memory_format=torch.contiguous_format)
    n, k = idx.shape
    tensors = (idx.contiguous(), val.contiguous(), W.contiguous(), g.contiguous(), out)
    _launch(_slopes, (n, triton.cdiv(k, _SLOTS)), *tensors, k, W.shape[1], **_blocks(W.shape[1], val))
    return out


def residual(idx: Tensor, val: Tensor, W: Tensor, *, base: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """Return base + decoded − y, and its slopes."""
    r = torch.empty_like(y, memory_format=torch.contiguous_format)
    _reconstruct(idx, val, W, out=r, base=base.contiguous(), y=y.contiguous())
    return r, slopes(idx, val, W, g=r)


def gather(
    idx: Tensor, val: Tensor, slope: Tensor, *, g: Tensor, x: Tensor, scale: float, into: tuple[Tensor, Tensor, Tensor]
) -> None:
    """Add to (dW_dec, dW_enc, db_enc) what each feature's rows give: value × g, slope × x, slope; all × scale."""
    features, k = len(into[0]), idx.shape[1]
    numbers = torch.arange(features + 1, dtype=torch.int32, device=idx.device)
    by_feature, order = torch.where(val != 0, idx, features).reshape(-1).sort(stable=True)
    starts = torch.searchsorted(by_feature, numbers)
    v, s = ((t.reshape(-1)[order].to(_wide(val)) * scale) for t in (val, slope))
    rows = order.div(max(1, k), rounding_mode="floor")
    dec, enc, bias = (t.contiguous() for t in into)
    widths = dec.shape[1], enc.shape[1]
    blocks = _blocks(max(widths), val)
    grid = features, triton.cdiv(max(widths), blocks["COLUMNS"])
    _launch(_gather, grid, starts, rows, v, s, g.contiguous(), x.contiguous(), dec, enc, bias, *widths, **blocks)
    for given, out in zip(into, (dec, enc, bias), strict=True):
        if out is not given:
            given.copy_(out)


def _reconstruct(
    idx: Tensor, val: Tensor, W: Tensor, *, out: Tensor, base: Tensor | None = None, y: Tensor | None = None
) -> None:
    n, width = out.shape
    blocks = _blocks(width, val)
    step = width if base is not None and len(base) > 1 else 0  # one row for all, or one each
    first = (out, out) if base is None or y is None else (base, y)
    tensors = (idx.contiguous(), val.contiguous(), W.contiguous(), *first, out)
    grid = n, triton.cdiv(width, blocks["COLUMNS"])
    _launch(_rows, grid, *tensors, step, idx.shape[1], width, RESIDUAL=base is not None, **blocks)


def _wide(val: Tensor) -> torch.dtype:
    return torch.float64 if val.dtype == torch.float64 else torch.float32


def _blocks(width: int, val: Tensor) -> dict[str, Any]:
    sums = tl.float64 if val.dtype == torch.float64 else tl.float32
    return {"COLUMNS": min(_COLUMNS, triton.next_power_of_2(width)), "SLOTS": _SLOTS, "SUMS": sums}


def _launch(kernel: Any, grid: tuple[int, int], *args: Any, **blocks: Any) -> None:
    """Start a kernel on the card of its tensors, which need not be the current one; none for nothing."""
    if min(grid) > 0:
        with torch.cuda.device_of(args[0]):
            kernel[grid](*args, enable_fp_fusion=True, **blocks)


@triton.jit
def _rows(
    idx_ptr,
    val_ptr,
    W_ptr,
    base_ptr,
    y_ptr,
    out_ptr,
    base_step,
    k,
    width,
    RESIDUAL: tl.constexpr,
    COLUMNS: tl.constexpr,
    SLOTS: tl.constexpr,
    SUMS: tl.constexpr,
) -> None:
    """Out, or base − y, plus the weighted rows of W."""
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * COLUMNS + tl.arange(0, COLUMNS)
    inside = column < width
    if RESIDUAL:
        total = tl.load(base_ptr + row * base_step + column, mask=inside, other=0).to(SUMS)
        total -= tl.load(y_ptr + row * width + column, mask=inside, other=0).to(SUMS)
    else:
        total = tl.load(out_ptr + row * width + column, mask=inside, other=0).to(SUMS)
    for first in range(0, k, SLOTS):
        slot = first + tl.arange(0, SLOTS)
        v = tl.load(val_ptr + row * k + slot, mask=slot < k, other=0).to(SUMS)
        feature = tl.load(idx_ptr + row * k + slot, mask=slot < k, other=0).to(tl.int64)
        there = (v != 0)[:, None] & inside[None, :]
        w = tl.load(W_ptr + feature[:, None] * width + column[None, :], mask=there, other=0).to(SUMS)
        total += tl.sum(v[:, None] * w, 0)
    tl.store(out_ptr + row * width + column, total.to(out_ptr.dtype.element_ty), mask=inside)


@triton.jit
def _slopes(
    idx_ptr,
    val_ptr,
    W_ptr,
    g_ptr,
    out_ptr,
    k,
    width,
    COLUMNS: tl.constexpr,
    SLOTS: tl.constexpr,
    SUMS: tl.constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    slot = tl.program_id(1) * SLOTS + tl.arange(0, SLOTS)
    fired = tl.load(val_ptr + row * k + slot, mask=slot < k, other=0) != 0
    feature = tl.load(idx_ptr + row * k + slot, mask=slot < k, other=0).to(tl.int64)
    total = tl.zeros([SLOTS], SUMS)
    for first in range(0, width, COLUMNS):
        column = first + tl.arange(0, COLUMNS)
        inside = column < width
        there = fired[:, None] & inside[None, :]
        w = tl.load(W_ptr + feature[:, None] * width + column[None, :], mask=there, other=0).to(SUMS)
        g = tl.load(g_ptr + row * width + column, mask=inside, other=0).to(SUMS)
        total += tl.sum(w * g[None, :], 1)
    tl.store(out_ptr + row * k + slot, total.to(out_ptr.dtype.element_ty), mask=fired)


@triton.jit
def _gather(
    starts_ptr,
    rows_ptr,
    v_ptr,
    s_ptr,
    g_ptr,
    x_ptr,
    dec_ptr,
    enc_ptr,
    bias_ptr,
    write,
    read,
    COLUMNS: tl.constexpr,
    SLOTS: tl.constexpr,
    SUMS: tl.constexpr,
) -> None:
    feature = tl.program_id(0).to(tl.int64)
    block = tl.program_id(1)
    column = block * COLUMNS + tl.arange(0, COLUMNS)
    begin = tl.load(starts_ptr + feature)
    end = tl.load(starts_ptr + feature + 1)
    if begin < end:
        dec = tl.zeros([COLUMNS], SUMS)
        enc = tl.zeros([COLUMNS], SUMS)
        bias = tl.zeros([SLOTS], SUMS)
        for first in range(begin, end, SLOTS):
            at = first + tl.arange(0, SLOTS)
            mine = at < end
            row = tl.load(rows_ptr + at, mask=mine, other=0)[:, None]
            v = tl.load(v_ptr + at, mask=mine, other=0)[:, None]
            s = tl.load(s_ptr + at, mask=mine, other=0)
            written = mine[:, None] & (column < write)[None, :]
            g = tl.load(g_ptr + row * write + column[None, :], mask=written, other=0).to(SUMS)
            dec += tl.sum(v * g, 0)
            were_read = mine[:, None] & (column < read)[None, :]
            x = tl.load(x_ptr + row * read + column[None, :], mask=were_read, other=0).to(SUMS)
            enc += tl.sum(s[:, None] * x, 0)
            bias += s
        to = dec_ptr + feature * write + column
        dec += tl.load(to, mask=column < write, other=0).to(SUMS)
        tl.store(to, dec.to(dec_ptr.dtype.element_ty), mask=column < write)
        to = enc_ptr + feature * read + column
        enc += tl.load(to, mask=column < read, other=0).to(SUMS)
        tl.store(to, enc.to(enc_ptr.dtype.element_ty), mask=column < read)
        if block == 0:
            total = tl.load(bias_ptr + feature).to(SUMS) + tl.sum(bias, 0)
            tl.store(bias_ptr + feature, total.to(bias_ptr.dtype.element_ty))
