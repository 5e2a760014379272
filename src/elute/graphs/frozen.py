"""Hold what attention and normalisation did in one forward, so that what is left between the MLPs is linear.

    frozen = Frozen()
    with frozen:
        net(x)            # the first forward records
    with frozen:
        net(other)        # every later one replays: the same patterns and the same scales, whatever the input

Held are, in the order in which they are computed:

1. attention patterns: what `softmax` gives, and that inside `scaled_dot_product_attention`;
2. the scale of a norm over layers, groups or instances, of a root-mean-square norm, and of a batch norm that uses the
   batch's own statistics. The mean of a norm is linear and stays live;
3. whatever else `sqrt`, `rsqrt`, `norm` and `std` give: norms that are written out are made of these.

It works on PyTorch's own functions, wherever they are called from, so that no module has to be known. Every softmax is
held: read logits before one. A compiled or scripted network hides its functions, and is refused as it records nothing.
`trace` remembers which module computed what, by which `not_linear` names what is not linear in the end.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import FunctionType, TracebackType
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from elute.base.errors import DataError

_DEEP = 60  # frames above a call, within which its module is looked for
_REMEDY = "Run the same network on an input of the same shape, without anything random in it."


class Frozen(TorchFunctionMode):
    """The first forward within records patterns and scales, every later one replays them."""

    def __init__(self) -> None:
        super().__init__()
        self.held: list[tuple[str, Tensor]] = []
        self.whole = False
        self._at = self._depth = 0
        self._paths: dict[int, str] | None = None
        self.made: dict[Any, str] = {}  # node of autograd's graph -> path of the module that computed it

    def __enter__(self) -> Self:
        if self._depth == 0:
            self._at = 0
            if not self.whole:
                self.held.clear()
        self._depth += 1
        super().__enter__()  # type: ignore[no-untyped-call]
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        super().__exit__(kind, error, at)  # type: ignore[no-untyped-call]
        self._depth -= 1
        if self._depth or kind is not None:
            return
        if self.whole and self._at != len(self.held):
            what = f"{self._at} patterns and scales were asked for, and {len(self.held)} are held"
            raise DataError(what, where="frozen forward", remedy=_REMEDY)
        self.whole = True

    def __torch_function__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Hold what is to be held, and let everything else be."""
        rule = _RULES.get(func)
        result = func(*args, **kwargs or {}) if rule is None else rule(self, func, tuple(args), dict(kwargs or {}))
        if self._paths is not None:
            self._remember(result)
        return result

    def hold(self, kind: str, shape: Sequence[int], make: Callable[[], Tensor]) -> Tensor:
        """Return what was recorded in this place, or make and record it."""
        if not self.whole:
            self.held.append((kind, make().detach()))
            return self.held[-1][1]
        if self._at >= len(self.held):
            what = f"more patterns and scales are asked for than the {len(self.held)} that are held"
            raise DataError(what, where="frozen forward", remedy=_REMEDY)
        before, x = self.held[self._at]
        if before != kind or tuple(x.shape) != tuple(shape):
            what = f"{kind} {list(shape)} is asked for where {before} {list(x.shape)} is held"
            raise DataError(what, where="frozen forward", remedy=_REMEDY)
        self._at += 1
        return x

    @contextmanager
    def trace(self, module: nn.Module) -> Iterator[None]:
        """Remember in the block which part of a module computed what."""
        self._paths = {id(part): path for path, part in module.named_modules()}
        self.made = {}
        try:
            yield
        finally:
            self._paths = None

    def _remember(self, result: Any) -> None:
        for x in result if isinstance(result, (tuple, list)) else (result,):
            if isinstance(x, Tensor) and x.grad_fn is not None and x.grad_fn not in self.made:
                self.made[x.grad_fn] = self._module()

    def _module(self) -> str:
        frame = sys._getframe(2)
        for _ in range(_DEEP):
            path = (self._paths or {}).get(id(frame.f_locals.get("self")))
            if path is not None:
                return path
            if frame.f_back is None:
                break
            frame = frame.f_back
        return ""


Rule = Callable[[Frozen, Any, tuple[Any, ...], dict[str, Any]], Any]


def _softmax(frozen: Frozen, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    x = args[0] if args else kwargs["input"]
    return frozen.hold("softmax", x.shape, lambda: func(*args, **kwargs))


def _scale(frozen: Frozen, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    name = getattr(func, "__name__", "scale")
    made = func(*args, **kwargs)
    if not isinstance(made, Tensor) or not made.is_floating_point():
        return made
    return frozen.hold(name, made.shape, lambda: made)


def _attention(frozen: Frozen, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    return _attend(frozen, *args, **kwargs)


def _attend(
    frozen: Frozen,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    del dropout_p  # 0 in evaluation
    if enable_gqa:
        key = key.repeat_interleave(query.shape[-3] // key.shape[-3], -3)
        value = value.repeat_interleave(query.shape[-3] // value.shape[-3], -3)

    def pattern() -> Tensor:
        scores = (query @ key.transpose(-1, -2)) * (query.shape[-1] ** -0.5 if scale is None else scale)
        mask = attn_mask
        if is_causal:
            mask = torch.ones(scores.shape[-2:], dtype=torch.bool, device=scores.device).tril()
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf) if mask.dtype == torch.bool else scores + mask
        # A query that sees nothing has no pattern: PyTorch gives it zero, not NaN.
        return scores.softmax(-1).masked_fill(scores.isneginf().all(-1, keepdim=True), 0.0)

    batch = torch.broadcast_shapes(query.shape[:-2], key.shape[:-2])  # type: ignore[no-untyped-call]
    return frozen.hold("attention", (*batch, query.shape[-2], key.shape[-2]), pattern) @ value


def _normed(frozen: Frozen, kind: str, x: Tensor, *, axes: Sequence[int], eps: float, centre: bool = True) -> Tensor:
    """Divide by the held scale over some axes; the mean is taken off alive."""
    axes = list(axes)
    centred = x - x.mean(axes, keepdim=True) if centre else x
    shape = [1 if i in [a % x.ndim for a in axes] else n for i, n in enumerate(x.shape)]
    return centred * frozen.hold(kind, shape, (centred.square().mean(axes, keepdim=True) + eps).rsqrt)


def _layer_norm(frozen: Frozen, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    given = _named("input normalized_shape weight bias eps", args, kwargs)
    normed = _normed(frozen, "layer_norm", given["input"], axes=_last(given), eps=given.get("eps", 1e-5))
    return _affine(normed, given)


def _rms_norm(frozen: Frozen, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    given = _named("input normalized_shape weight eps", args, kwargs)
    x, eps = given["input"], given.get("eps")
    least = torch.finfo(x.dtype).eps if eps is None else eps
    return _affine(_normed(frozen, "rms_norm", x, axes=_last(given), eps=least, centre=False), given)


def _group_norm(frozen: Frozen, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Tensor:
    given = _named("input num_groups weight bias eps", args, kwargs)
    x = given["input"]
    grouped = x.reshape(len(x), given["num_groups"], -1)
    normed = _normed(frozen, "group_norm", grouped, axes=(-1,), eps=given.get("eps", 1e-5))
    return _affine(normed.reshape(x.shape), given, channels=True)


def _instance_norm(frozen: Frozen, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = _named("input running_mean running_var weight bias use_input_stats momentum eps", args, kwargs)
    x = given["input"]
    if not given.get("use_input_stats", True):
        return func(*args, **kwargs)
    normed = _normed(frozen, "instance_norm", x, axes=range(2, x.ndim), eps=given.get("eps", 1e-5))
    return _affine(normed, given, channels=True)


def _batch_norm(frozen: Frozen, func: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    given = _named("input running_mean running_var weight bias training momentum eps", args, kwargs)
    x = given["input"]
    if not given.get("training", False):
        return func(*args, **kwargs)  # affine
    axes = [i for i in range(x.ndim) if i != 1]
    return _affine(_normed(frozen, "batch_norm", x, axes=axes, eps=given.get("eps", 1e-5)), given, channels=True)


def _named(names: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> dict[str, Any]:
    return {**dict(zip(names.split(), args, strict=False)), **kwargs}


def _last(given: dict[str, Any]) -> range:
    """The axes over which a norm with `normalized_shape` goes."""
    shape = given["normalized_shape"]
    return range(-1 if isinstance(shape, int) else -len(shape), 0)


def _affine(x: Tensor, given: dict[str, Any], *, channels: bool = False) -> Tensor:
    for name in ("weight", "bias"):
        term = given.get(name)
        if term is not None:
            wide = term.reshape(-1, *[1] * (x.ndim - 2)) if channels else term
            x = x * wide if name == "weight" else x + wide
    return x


def _opened(func: Any) -> Rule:
    """Run a function of PyTorch that is made of others so that these are seen one by one."""
    unseen = dict.fromkeys(("has_torch_function", "has_torch_function_unary", "has_torch_function_variadic"), _never)
    twin = FunctionType(func.__code__, {**func.__globals__, **unseen}, func.__name__, func.__defaults__)
    twin.__kwdefaults__ = func.__kwdefaults__

    def _run(frozen: Frozen, _: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        with frozen:
            return twin(*args, **kwargs)

    return _run


def _never(*_: Any) -> bool:
    return False


_RULES: dict[Any, Rule] = {
    **dict.fromkeys((torch.softmax, Tensor.softmax, functional.softmax, torch.special.softmax), _softmax),
    functional.scaled_dot_product_attention: _attention,
    **dict.fromkeys((functional.layer_norm, torch.layer_norm), _layer_norm),
    **dict.fromkeys((functional.rms_norm, torch.rms_norm), _rms_norm),
    **dict.fromkeys((functional.group_norm, torch.group_norm), _group_norm),
    functional.instance_norm: _instance_norm,
    functional.batch_norm: _batch_norm,
    **dict.fromkeys((torch.sqrt, Tensor.sqrt, torch.rsqrt, Tensor.rsqrt, torch.std, Tensor.std), _scale),
    **dict.fromkeys((torch.norm, Tensor.norm, torch.linalg.norm, torch.linalg.vector_norm), _scale),
    functional.multi_head_attention_forward: _opened(functional.multi_head_attention_forward),
    functional.normalize: _opened(functional.normalize),
}
