"""How relevance passes the parts of a transformer, as gradients: relevance is activation × modified gradient.

Each function that a network calls is met on its way in, whatever module calls it (PyTorch's function mode):

    linear, conv2d     as they are; the bias's share is counted
    layer_norm, …      the deviation that is divided by is a constant; the norm's bias is counted
    gelu, silu, …      relevance passes unchanged: x · (f(x) / x), the quotient a constant
    a · b, a @ b       where both depend on the picture each gets half; of a gate (sigmoid) nothing goes back
    a + b              in proportion to what each adds: a residual stream splits relevance and does not double it;
                       what a constant adds (positions, class token) is counted
    softmax            attention weights are constants, or R_i = x_i (R_i − s_i Σ_j R_j) and the rest is counted

What is counted and what arrives at the pixels add up to what is explained. A function that is none of these and not
linear breaks the sum, and is found out by it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor
from torch.nn import functional
from torch.overrides import TorchFunctionMode

_T = torch.Tensor
_PASSING = {
    functional.gelu, functional.silu, functional.relu, functional.leaky_relu, functional.elu, functional.mish,
    functional.hardswish, functional.tanh, torch.relu, torch.tanh, _T.relu, _T.tanh,
}  # fmt: skip
_CONSTANT = {
    functional.sigmoid, torch.sigmoid, _T.sigmoid, torch.rsqrt, _T.rsqrt, torch.sqrt, _T.sqrt, torch.var, _T.var,
    torch.std, _T.std, torch.norm, _T.norm, torch.linalg.vector_norm, torch.reciprocal, _T.reciprocal,
}  # fmt: skip
_ADD = {torch.add, _T.add, _T.__add__, _T.__radd__, _T.add_, _T.__iadd__}
_SUB = {torch.sub, _T.sub, _T.__sub__}
_MUL = {torch.mul, _T.mul, _T.__mul__, _T.__rmul__}
_DIV = {torch.div, _T.div, _T.__truediv__}
_MATMUL = {torch.matmul, _T.matmul, _T.__matmul__, torch.bmm, _T.bmm}
_SOFTMAX = {functional.softmax, torch.softmax, _T.softmax}
_CAT = {torch.cat, torch.concat}
_WITH_BIAS = {functional.linear, functional.conv2d, torch.conv2d}


class _Half(torch.autograd.Function):
    """Passes a value on and half of its gradient back."""

    @staticmethod
    def forward(_ctx: Any, x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def backward(_ctx: Any, *grads: Tensor) -> Tensor:
        return 0.5 * grads[0]


class Passing(TorchFunctionMode):
    """Functions of tensors whose gradients hand relevance back; what constants and the softmax kept is counted."""

    def __init__(self, *, constant_attention: bool) -> None:
        super().__init__()
        self.constant_attention = constant_attention
        self.bias, self.attention = 0.0, 0.0

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Meet one function that the network calls."""
        given = kwargs or {}
        if not any(_tracked(x) for x in _flat((args, given))):
            return func(*args, **given)
        way = self._way(func)
        return func(*args, **given) if way is None else way(func, *args, **given)

    def _way(self, func: Any) -> Callable[..., Any] | None:
        for functions, way in (
            (_WITH_BIAS, self._affine),
            ({functional.layer_norm}, self._norm),
            ({functional.rms_norm}, self._root_norm),
            ({functional.batch_norm}, self._batch_norm),
            ({functional.scaled_dot_product_attention}, self._attend),
            (_SOFTMAX, self._softmax),
            (_PASSING, self._pass),
            (_CONSTANT, self._hold),
            (_ADD, self._add),
            (_SUB, self._subtract),
            (_MUL | _MATMUL, self._multiply),
            (_DIV, self._divide),
            (_CAT, self._join),
        ):
            if func in functions:
                return way
        return None

    def _keep(self, out: Tensor, constant: Tensor) -> Tensor:
        """Count what a constant adds to `out`, as soon as the gradient there is known."""
        held = constant.detach()

        def count(gradient: Tensor) -> None:
            self.bias += float((held.expand_as(gradient) * gradient).sum())

        if out.requires_grad:
            out.register_hook(count)  # type: ignore[no-untyped-call]
        return out

    def _affine(
        self, func: Any, x: Tensor, weight: Tensor, bias: Tensor | None = None, *rest: Any, **more: Any
    ) -> Tensor:
        out: Tensor = func(x, weight, None, *rest, **more)
        if bias is None:
            return out
        shaped = bias.reshape(-1, 1, 1) if func is not functional.linear else bias
        return self._keep(out + shaped, shaped)

    def _norm(
        self, _func: Any, x: Tensor, shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
    ) -> Tensor:
        axes = tuple(range(-len(tuple(shape)), 0))
        centred = x - x.mean(axes, keepdim=True)
        scale = (centred.detach().square().mean(axes, keepdim=True) + eps).rsqrt()
        out = centred * scale if weight is None else centred * scale * weight
        return out if bias is None else self._keep(out + bias, bias)

    def _root_norm(self, _func: Any, x: Tensor, shape: Any, weight: Any = None, eps: float | None = None) -> Tensor:
        axes = tuple(range(-len(tuple(shape)), 0))
        least = torch.finfo(x.dtype).eps if eps is None else eps
        out = x * (x.detach().square().mean(axes, keepdim=True) + least).rsqrt()
        return out if weight is None else out * weight

    def _batch_norm(self, func: Any, x: Tensor, *rest: Any, **more: Any) -> Tensor:
        return self._keep(func(x, *rest, **more), func(torch.zeros_like(x), *rest, **more))

    def _pass(self, func: Any, x: Tensor, *rest: Any, **more: Any) -> Tensor:
        more.pop("inplace", None)
        with torch.no_grad():
            given = func(x, *rest, **more)
            quotient = torch.where(x.abs() > 1e-12, given / torch.where(x == 0, 1, x), 0)
        return x * quotient

    def _hold(self, func: Any, *args: Any, **more: Any) -> Any:
        with torch.no_grad():
            return func(*args, **more)

    def _softmax(self, func: Any, x: Tensor, *rest: Any, **more: Any) -> Tensor:
        if self.constant_attention:
            return self._hold(func, x, *rest, **more)  # type: ignore[no-any-return]
        out: Tensor = func(x, *rest, **more)
        axis = more.get("dim", rest[0] if rest else -1)
        s, before = out.detach(), torch.nan_to_num(x.detach(), neginf=-1e30)

        def count(gradient: Tensor) -> None:
            total = (s * gradient).sum(axis, keepdim=True)
            self.attention += float((s * gradient).sum() - (before * s * (gradient - total)).sum())

        out.register_hook(count)  # type: ignore[no-untyped-call]
        return out

    def _attend(
        self,
        _func: Any,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        **_: Any,
    ) -> Tensor:
        del dropout_p
        if key.shape[-3] != query.shape[-3]:
            times = query.shape[-3] // key.shape[-3]
            key, value = key.repeat_interleave(times, -3), value.repeat_interleave(times, -3)
        scores = self._multiply(torch.matmul, query, key.transpose(-2, -1)) * (scale or query.shape[-1] ** -0.5)
        hidden = attn_mask
        if is_causal:
            hidden = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        if hidden is not None:
            added = (
                torch.zeros_like(hidden, dtype=scores.dtype).masked_fill(~hidden, -1e30)
                if hidden.dtype == torch.bool
                else hidden
            )
            scores = self._keep(scores + added, added)
        return cast("Tensor", self._multiply(torch.matmul, self._softmax(torch.softmax, scores, -1), value))

    def _add(self, func: Any, a: Any, b: Any, *rest: Any, **more: Any) -> Any:
        plain = torch.add if func in (_T.add_, _T.__iadd__) else func
        out = plain(a, b, *rest, **more)
        times = more.get("alpha", 1)
        for part, sign in ((a, 1), (b, times)):
            if not _tracked(part):
                self._keep(out, torch.as_tensor(part, dtype=out.dtype, device=out.device) * sign)
        return out

    def _subtract(self, func: Any, a: Any, b: Any, **more: Any) -> Any:
        out = func(a, b, **more)
        for part, sign in ((a, 1), (b, -more.get("alpha", 1))):
            if not _tracked(part):
                self._keep(out, torch.as_tensor(part, dtype=out.dtype, device=out.device) * sign)
        return out

    def _multiply(self, func: Any, a: Any, b: Any, **more: Any) -> Any:
        if _tracked(a) and _tracked(b):
            return func(_Half.apply(a), _Half.apply(b), **more)  # type: ignore[no-untyped-call]
        return func(a, b, **more)

    def _divide(self, func: Any, a: Any, b: Any, **more: Any) -> Any:
        return func(a, b.detach() if isinstance(b, Tensor) else b, **more)

    def _join(self, func: Any, parts: Any, *rest: Any, **more: Any) -> Any:
        out = func(parts, *rest, **more)
        if not all(_tracked(part) for part in parts):
            constant = [torch.zeros_like(part) if _tracked(part) else part for part in parts]
            self._keep(out, func(constant, *rest, **more))
        return out


def _tracked(x: Any) -> bool:
    return isinstance(x, Tensor) and x.requires_grad


def _flat(value: Any) -> Any:
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, tuple | list):
        for item in value:
            yield from _flat(item)
    else:
        yield value
