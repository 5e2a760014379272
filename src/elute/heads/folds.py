"""Folds by patient or site: a group lies in one fold alone."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from elute.base.errors import DataError, GuardError
from elute.base.statistics import splits
from elute.base.statistics.checks import group_codes
from elute.heads.design import Ints


def group_folds(groups: Iterable[Any], strata: Iterable[Any] | None = None, *, folds: int, seed: int) -> Ints:
    """Return the fold [n] of each row, from 0; all rows of a group share theirs, labels are spread evenly."""
    names = list(groups)
    held = splits.group_folds(names, strata, n_folds=folds, seed=seed)
    return np.fromiter((held[name] for name in names), dtype=np.int64, count=len(names))


def check_folds(folds: Ints, groups: Iterable[Any]) -> list[int]:
    """Return the folds' numbers: at least two, of which no two share a group."""
    if folds.ndim != 1 or folds.dtype.kind not in "iu":
        raise DataError("the folds are no whole number a row", remedy="Draw them with group_folds.")
    names, codes = group_codes(groups, "folds(groups)", n_rows=len(folds))
    parts = np.unique(folds)
    if len(parts) < 2:
        raise DataError("there is one fold only", remedy="Draw at least 2 with group_folds.")
    of = np.full(len(names), -1)
    for fold in parts:
        here = np.unique(codes[folds == fold])
        if len(twice := here[of[here] >= 0]):
            name, other = names[int(twice[0])], int(of[twice[0]])
            raise GuardError(
                f"group {name!r} lies in folds {other} and {int(fold)}: a patient would be fitted and predicted",
                remedy="Draw the folds by group, with group_folds.",
            )
        of[here] = fold
    return [int(fold) for fold in parts]
