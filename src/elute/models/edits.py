"""Edits to patch a site with: replace, add to or scale what it gives, in all rows or in chosen ones.

Rows are chosen by a bool mask [n], by an index tensor, or by a function of the metadata that returns either:

    patch(net, {"blocks.3": scale(0.0, rows=lambda metadata: metadata["token"] == "CD8A")})
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from elute.base.contracts import Edit
from elute.base.errors import SiteError
from elute.models.rows import describe

if TYPE_CHECKING:
    import polars as pl

    Chosen = Tensor | Callable[[pl.DataFrame], Any] | None


def replace(value: Tensor | float, rows: Chosen = None) -> Edit:
    """Put a number, one row [width] or as many rows as are chosen in the place of what the site gives."""
    return _edit(lambda x: _fitted(value, x).expand_as(x), rows)


def add(vector: Tensor | float, rows: Chosen = None) -> Edit:
    """Add a number, one row [width] or as many rows as are chosen."""
    return _edit(lambda x: x + _fitted(vector, x), rows)


def scale(factor: Tensor | float, rows: Chosen = None) -> Edit:
    """Multiply by a number, one row [width] or as many rows as are chosen."""
    return _edit(lambda x: x * _fitted(factor, x), rows)


def _edit(change: Callable[[Tensor], Tensor], rows: Chosen) -> Edit:
    def edit(x: Tensor, metadata: pl.DataFrame | None) -> Tensor:
        if rows is None:
            return change(x)
        chosen = _chosen(rows, len(x), metadata).to(x.device)
        new = x.clone()
        new[chosen] = change(x[chosen])
        return new

    return edit


def _fitted(value: Tensor | float, x: Tensor) -> Tensor:
    fitted = torch.as_tensor(value).to(device=x.device, dtype=x.dtype)
    try:
        fitted.expand_as(x)
    except RuntimeError:
        raise SiteError(f"a value of {describe(fitted)} does not fit the chosen rows, {describe(x)}") from None
    return fitted


def _chosen(rows: Chosen, n: int, metadata: pl.DataFrame | None) -> Tensor:
    chosen: Any = rows
    if callable(rows) and not isinstance(rows, Tensor):
        if metadata is None:
            raise SiteError("rows are chosen by metadata, but none was given", remedy="Pass metadata=… to patch.")
        chosen = rows(metadata)
    if isinstance(chosen, Tensor):
        return _checked(chosen, n)
    listed = list(chosen)
    if None in listed:
        raise SiteError("the choice of rows has missing values", remedy="Say what they mean, as with fill_null.")
    return _checked(torch.tensor(listed, dtype=None if listed else torch.long), n)


def _checked(chosen: Tensor, n: int) -> Tensor:
    integers = not chosen.dtype.is_floating_point and not chosen.dtype.is_complex
    if chosen.dtype == torch.bool:
        good = chosen.shape == (n,)
    else:
        good = integers and chosen.dim() == 1 and bool(((chosen >= 0) & (chosen < n)).all())
    if not good:
        raise SiteError(
            f"the choice of rows is {describe(chosen)}",
            remedy=f"Choose by a bool mask [{n}] or by row numbers from 0 to {n - 1}.",
        )
    return chosen if chosen.dtype == torch.bool else chosen.long()
