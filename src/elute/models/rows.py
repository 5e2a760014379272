"""What a site holds, as a tensor of rows, and back again: no hooks here, only values.

The declared rule, `Site.select`: an int takes an item of a tuple or list; a str takes a key of a mapping, as
`ModelOutput` is, or a field of a dataclass or named tuple; without it the value must be a tensor itself.
Of an input an int takes a positional argument and a str one given by keyword; without it the one
positional argument is meant.
"""

from __future__ import annotations

import copy
import dataclasses
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from elute.base.errors import SiteError


def take(held: Any, select: int | str | None, where: str) -> Tensor:
    """Return the one tensor of real numbers that `select` names in what a site holds."""
    x = held
    if select is not None:
        items = _items(held)
        if select not in items:
            raise SiteError(f"it holds no {select!r}: it is {describe(held)}", where=where, remedy=_declare(held))
        x = items[select]
    if not isinstance(x, Tensor):
        item = "it" if select is None else f"its {select!r}"
        raise SiteError(f"{item} is {describe(x)}, not a tensor", where=where, remedy=_declare(held))
    if x.layout != torch.strided or x.is_nested:
        remedy = "For nn.TransformerEncoder, torch.backends.mha.set_fastpath_enabled(False) keeps it dense."
        raise SiteError("it is a sparse or nested tensor, which is not rows of one width", where=where, remedy=remedy)
    if not x.is_floating_point():
        raise SiteError(f"it is {describe(x)}, not real numbers", where=where, remedy="Name a site with activations.")
    if x.dim() == 0:
        raise SiteError(f"it is {describe(x)}, a single number without a width", where=where)
    return x


def put(held: Any, select: int | str | None, new: Tensor) -> Any:
    """Return a copy of what a site holds with one tensor exchanged; the original may be in use elsewhere."""
    if select is None:
        return new
    named: Any = held if isinstance(held, tuple) and hasattr(held, "_fields") else None
    if named is not None:
        return named._replace(**{select if isinstance(select, str) else named._fields[select]: new})
    if isinstance(held, (tuple, list)):
        return type(held)(new if i == select else item for i, item in enumerate(held))
    other = copy.copy(held)
    if isinstance(held, Mapping):
        other[select] = new
    else:
        object.__setattr__(other, str(select), new)  # a frozen dataclass refuses plain assignment
    return other


def argument(
    args: tuple[Any, ...], kwargs: dict[str, Any], select: int | str | None, *, where: str
) -> tuple[Any, int | str]:
    """Return the positional or the keyword arguments, and which of them `select` means."""
    if select is not None:
        return (args, select) if isinstance(select, int) else (kwargs, select)
    if len(args) == 1:
        return args, 0
    if not args and len(kwargs) == 1:
        return kwargs, next(iter(kwargs))
    raise SiteError(
        f"it was called with {describe(args)} and {describe(kwargs)}",
        where=where,
        remedy="Declare which is meant: select=0 for a positional argument, select='name' for a keyword.",
    )


def flatten(x: Tensor, keep: Tensor | None, where: str) -> Tensor:
    """Return rows [n, width]: all, or those that the mask over the leading axes keeps."""
    if keep is None:
        return x.reshape(math.prod(x.shape[:-1]), x.shape[-1])
    if keep.dtype != torch.bool or keep.shape != x.shape[:-1]:
        wanted = f"bool {list(x.shape[:-1])}"
        raise SiteError(f"it gives {describe(x)}, so keep must be {wanted}, not {describe(keep)}", where=where)
    return x[keep.to(x.device)]


def unflatten(x: Tensor, keep: Tensor | None, rows: Tensor) -> Tensor:
    """Return x with its rows, or its kept rows, exchanged."""
    if keep is None:
        # In x's own memory layout: on another one a kernel may round differently.
        return torch.empty_like(x).copy_(rows.reshape(x.shape))
    whole = x.clone()
    whole[keep.to(x.device)] = rows
    return whole


def same_bits(x: Tensor, y: Tensor) -> bool:
    """Whether two tensors of one shape and dtype are the same to the bit; a NaN equals itself."""
    return torch.equal(_bytes(x), _bytes(y))


def describe(value: Any) -> str:
    """Say in a few words what a value is: a tensor's dtype and shape, a container's items."""
    if isinstance(value, Tensor):
        return f"{str(value.dtype).removeprefix('torch.')} {list(value.shape)}"
    if value is None:
        return "None"
    items = _items(value)
    if not items:
        empty = isinstance(value, (tuple, list, Mapping))
        return f"an empty {type(value).__name__}" if empty else _kind(value)
    inside = [_kind(item) if _items(item) else describe(item) for item in items.values()]
    return f"{_kind(value)} of " + ", ".join(f"{key!r}: {text}" for key, text in zip(items, inside, strict=True))


def _items(held: Any) -> dict[Any, Any]:
    if isinstance(held, Mapping):
        return dict(held)
    if dataclasses.is_dataclass(held) and not isinstance(held, type):
        return {field.name: getattr(held, field.name) for field in dataclasses.fields(held)}
    if isinstance(held, (tuple, list)):
        fields = held._asdict() if hasattr(held, "_asdict") else {}
        return {**dict(enumerate(held)), **fields}
    return {}


def _kind(value: Any) -> str:
    name = type(value).__name__
    return f"an {name}" if name[0].lower() in "aeiou" else f"a {name}"


def _declare(held: Any) -> str:
    tensors = [key for key, value in _items(held).items() if isinstance(value, Tensor)]
    return f"Declare which is meant, as select={tensors[0]!r}." if tensors else ""


def _bytes(x: Tensor) -> Tensor:
    return x.detach().contiguous().reshape(-1).view(torch.uint8)
