"""What a dictionary found of planted features: directions that came back, and features that fire where planted ones do.

1. `recovery`: for each planted feature its nearest found one, by cosine; several may share one.
2. `assign`: the one-to-one pairing with the largest sum of cosines (Hungarian algorithm: Kuhn, "The Hungarian method
   for the assignment problem", Naval Research Logistics Quarterly 2 (1955), as scipy implements it).
3. `matched_f1`: of such pairs, how well "the found one fires" tells "the planted one fires", from sparse codes.

Planted features that fired too rarely to be learnt are left out where `counts` are given.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from elute.base.errors import ConfigError, DataError
from elute.base.mergeable import Floats, Integers, as_numpy, real, whole

if TYPE_CHECKING:
    from torch import Tensor

    from elute.base.codes import Codes
    from elute.base.mergeable import Batch

_BLOCK = 2**24  # cosines that are held at a time
_ROWS = 2**16  # rows whose codes are compared at a time


@dataclass(frozen=True, eq=False)
class Recovery:
    """How much of what was planted was found; the arrays hold one entry a planted feature considered."""

    mean_max_cosine: float  # mean of max_cosine
    recovered_fraction: float  # share of max_cosine that are at or above the mark
    uniqueness: float  # different features among nearest / planted features considered
    planted: Integers  # which planted features were considered
    nearest: Integers  # the found feature with the largest cosine with each of them
    max_cosine: Floats


@dataclass(frozen=True, eq=False)
class Assignment:
    """Found and planted features, one to one."""

    pairs: Integers  # [m, 2]: found, planted; ascending by planted
    cosine: Floats  # [m]

    @property
    def mean_cosine(self) -> float:
        """Mean over the pairs: the "MCC" of other benchmarks when cosines are absolute."""
        return float(self.cosine.mean())


@dataclass(frozen=True, eq=False)
class MatchedF1:
    """How well found features tell when planted ones fire; NaN-free: a pair in which neither fired has 0 everywhere."""

    mean: float  # of f1, over the pairs whose planted feature fired in these rows
    precision: Floats  # [m], both fire / the found one fires
    recall: Floats  # [m], both fire / the planted one fires
    f1: Floats  # [m], 2 · both / (found + planted)
    counted: np.ndarray[Any, np.dtype[np.bool_]]  # [m], whether the planted feature fired at all


def recovery(
    found: Tensor,
    truth: Tensor,
    counts: Batch | None = None,
    *,
    at: float = 0.9,
    least: int = 100,
    absolute: bool = False,
) -> Recovery:
    """Compare found directions [F, width] with planted ones [T, width], each with its nearest by cosine.

    Considered are the planted features that fired in `least` rows by `counts` [T], or all without counts. With
    `absolute` the opposite direction counts as the same one, for dictionaries of signed codes. A row of zeros has
    cosine 0 with everything.
    """
    if not 0 < at <= 1:
        raise ConfigError(f"at={at}", remedy="Choose a cosine above 0 and up to 1.")
    planted = _considered(found, truth, counts=counts, least=least)
    unit, wanted = _units(found), _units(truth)[torch.from_numpy(planted).to(truth.device)]
    size = max(1, _BLOCK // len(unit))
    best = [_cosines(wanted[i : i + size], unit, absolute=absolute).max(1) for i in range(0, len(wanted), size)]
    cosine = real(as_numpy(torch.cat([each.values for each in best])))
    nearest = as_numpy(torch.cat([each.indices for each in best])).astype(np.int64)
    return Recovery(
        mean_max_cosine=float(cosine.mean()),
        recovered_fraction=float((cosine >= at).mean()),
        uniqueness=len(set(nearest.tolist())) / len(planted),
        planted=planted,
        nearest=nearest,
        max_cosine=cosine,
    )


def assign(
    found: Tensor, truth: Tensor, counts: Batch | None = None, *, least: int = 100, absolute: bool = False
) -> Assignment:
    """Pair found and planted features one to one so that the sum of their cosines is largest.

    The smaller side is used up. The matrix of all cosines is held: 0.5 GB for 8,192 × 16,384, and twice that while
    they are assigned.
    """
    from scipy.optimize import linear_sum_assignment

    planted = _considered(found, truth, counts=counts, least=least)
    unit, wanted = _units(found), _units(truth)[torch.from_numpy(planted).to(truth.device)]
    cosines = as_numpy(_cosines(wanted, unit, absolute=absolute))
    rows, columns = linear_sum_assignment(cosines, maximize=True)
    return Assignment(np.stack([columns, planted[rows]], 1).astype(np.int64), real(cosines[rows, columns]))


def matched_f1(found_codes: Codes, truth_codes: Codes, pairs: Integers) -> MatchedF1:
    """Compare where the two features of each pair fire: codes of the same rows, pairs [m, 2] as `assign` gives them.

    A feature fires where its code is not 0, whatever its sign. Only what fired is looked at, some rows at a time.
    """
    if len(found_codes) != len(truth_codes):
        raise DataError(f"codes of {len(found_codes)} rows cannot be compared with planted ones of {len(truth_codes)}")
    pairs = np.asarray(pairs)
    if pairs.ndim != 2 or pairs.shape[1] != 2 or not len(pairs):
        raise DataError(f"pairs of shape {pairs.shape} where [1 or more, 2] is expected")
    numbers = [_numbers(pairs[:, i], codes.n_features) for i, codes in enumerate((found_codes, truth_codes))]
    m = len(pairs)
    both, fired_found, fired_truth = (np.zeros(m, dtype=np.int64) for _ in range(3))
    for start in range(0, len(found_codes), _ROWS):
        rows = slice(start, start + _ROWS)
        a = _keys(found_codes[rows], numbers[0], m)
        b = _keys(truth_codes[rows], numbers[1], m)
        fired_found += np.bincount(a % m, minlength=m)
        fired_truth += np.bincount(b % m, minlength=m)
        both += np.bincount(np.intersect1d(a, b, assume_unique=True) % m, minlength=m)
    f1 = 2 * both / np.maximum(fired_found + fired_truth, 1)
    counted = fired_truth > 0
    if not counted.any():
        raise DataError("none of the planted features in these pairs fired in these rows", remedy="Take more rows.")
    return MatchedF1(
        mean=float(f1[counted].mean()),
        precision=both / np.maximum(fired_found, 1),
        recall=both / np.maximum(fired_truth, 1),
        f1=f1,
        counted=counted,
    )


def _considered(found: Tensor, truth: Tensor, *, counts: Batch | None, least: int) -> Integers:
    """Check the directions and return which planted features are to be looked for."""
    if found.ndim != 2 or truth.ndim != 2 or found.shape[1] != truth.shape[1] or not len(found):
        shapes = f"{tuple(found.shape)} and {tuple(truth.shape)}"
        raise DataError(f"directions of shapes {shapes} where [F, width] and [T, width] are expected")
    kept = np.arange(len(truth), dtype=np.int64)
    if counts is not None:
        fired = as_numpy(counts)
        if fired.shape != (len(truth),):
            raise DataError(f"counts of shape {fired.shape} where [{len(truth)}] is expected")
        kept = np.flatnonzero(fired >= least).astype(np.int64)
    if not len(kept):
        what = "there are no planted features" if counts is None else f"no planted feature fired {least} times"
        raise DataError(what, remedy="" if counts is None else "Take more rows, or a smaller least=.")
    return kept


def _units(x: Tensor) -> Tensor:
    unit = torch.nn.functional.normalize(x.detach().float(), dim=1)
    if not bool(torch.isfinite(unit).all()):
        raise DataError("NaN or infinity in directions")
    return unit


def _cosines(a: Tensor, b: Tensor, *, absolute: bool) -> Tensor:
    cosines = a @ b.to(a.device).T
    return (cosines.abs_() if absolute else cosines).clamp_(-1, 1)


def _numbers(features: Integers, n_features: int) -> Integers:
    """Return for each feature the number of its pair, or -1."""
    chosen = whole(features, n_features, "feature")
    if len(np.unique(chosen)) < len(chosen):
        raise DataError("a feature stands in two pairs", remedy="Pair one to one, as assign does.")
    numbers = np.full(n_features, -1, dtype=np.int64)
    numbers[chosen] = np.arange(len(chosen))
    return numbers


def _keys(codes: Codes, numbers: Integers, m: int) -> Integers:
    """Return row · m + pair of all that fired and is paired; each stands once."""
    rows, features, _ = codes.fired()
    pair = numbers[whole(as_numpy(features), codes.n_features, "feature")]
    kept = pair >= 0
    return np.asarray(as_numpy(rows)[kept] * m + pair[kept], dtype=np.int64)
