"""What targets and offsets must be, each fault in one line."""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike

from elute.base.errors import ConfigError, DataError
from elute.heads.links import Floats
from elute.heads.settings import Loss

_MOST = 2.0**31


def as_targets(y: ArrayLike, n: int, *, loss: Loss) -> Floats:
    """Return targets [n, G]: finite, and for counts whole numbers that are not negative."""
    try:
        targets = np.asarray(y, dtype=np.float64)
    except (TypeError, ValueError):
        raise DataError("the targets are no array of numbers", remedy="Give [samples, genes].") from None
    targets = targets[:, None] if targets.ndim == 1 else targets
    if targets.ndim != 2 or targets.shape[1] == 0:
        raise DataError(f"the targets have shape {[*targets.shape]}", remedy="Give [samples, genes].")
    if len(targets) != n:
        what = f"{len(targets)} rows of targets for {n} rows of codes"
        raise DataError(what, remedy="Align both by sample first.")
    if len(bad := np.argwhere(~np.isfinite(targets))):
        row, gene = bad[0].tolist()
        what = f"{len(bad)} targets are NaN or infinite, the first that of gene {gene} in row {row}"
        raise DataError(what, remedy="Leave out those samples or genes.")
    if loss != "mse":
        _check_counts(targets, loss)
    return targets


def _check_counts(counts: Floats, loss: Loss) -> None:
    for wrong, what in ((counts < 0, "negative"), (counts != np.rint(counts), "no whole numbers")):
        if wrong.any():
            row, gene = np.argwhere(wrong)[0].tolist()
            where = f"{counts[row, gene]:g} for gene {gene} in row {row}"
            raise DataError(
                f"{int(wrong.sum())} counts are {what}, the first {where}",
                remedy=f"{loss} is for raw counts; values that were normalised go with mse.",
            )
    if counts.max(initial=0) > _MOST:
        raise DataError(f"a count of {counts.max():g} is larger than 2³¹", remedy="Give raw counts.")


def as_offset(offset: ArrayLike | None, n: int, *, loss: Loss) -> Floats:
    """Return the offset [n], zeros where none is given."""
    if offset is None:
        return np.zeros(n)
    if loss == "mse":
        remedy = "Leave it out: for mse the library size is part of log1p of counts per million."
        raise ConfigError("an offset is for counts, not for mse", remedy=remedy)
    values = np.asarray(offset, dtype=np.float64)
    if values.shape != (n,):
        raise DataError(f"an offset of shape {[*values.shape]} for {n} samples", remedy="Give one number a sample.")
    if len(bad := np.flatnonzero(~np.isfinite(values))):
        row = int(bad[0])
        remedy = "It is the log of a library size, which must be above 0: leave out samples without counts."
        raise DataError(f"{len(bad)} offsets are not finite, the first {values[row]} in row {row}", remedy=remedy)
    if np.abs(values).max(initial=0) > 50:
        row = int(np.abs(values).argmax())
        raise DataError(
            f"an offset of {values[row]:g} in row {row} is no log of a library size", remedy="Give its logarithm."
        )
    return values
