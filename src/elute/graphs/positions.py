"""Which rows of a site are the positions of a graph."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch

from elute.base.errors import DataError, SiteError

if TYPE_CHECKING:
    from torch import Tensor

    from elute.models.module import TorchModel


def check_rows(given: Mapping[str, Tensor]) -> None:
    """Refuse sites of which one has other rows than another."""
    counts = {name: len(x) for name, x in given.items()}
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name!r} {n}" for name, n in counts.items())
        remedy = "Name sites with one row for each position."
        raise SiteError(f"sites give different numbers of rows: {told}", where="attribution", remedy=remedy)


def kept_rows(model: TorchModel, batch: Any, n: int) -> Tensor:
    """Return which of a site's rows are positions of the sample: all that is no padding."""
    mask = model.keep(batch)
    rows = torch.arange(n) if mask is None else mask.reshape(-1).nonzero()[:, 0]
    if mask is not None and mask.numel() != n:
        what = f"the mask has {mask.numel()} positions and the sites give {n} rows"
        raise SiteError(what, where="attribution", remedy="Name sites with one row for each position.")
    if not len(rows):
        raise DataError("the sample has no position", where="attribution", remedy="Give one that is not empty.")
    return rows.to(model.device)
