"""One row of codes for each sample, from the codes of its tokens, in one pass and in the memory of the result.

mean    over all tokens of the sample, those in which the code did not fire counting as 0
max     the largest value, 0 among them if the code was silent in any token
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from elute.base.errors import ConfigError, DataError, near

if TYPE_CHECKING:
    from elute.base.codes import Codes

How = Literal["mean", "max"]
_AT_ONCE = 1 << 22  # pairs of sample and code that wait before they are merged


@dataclass(frozen=True, eq=False)
class Pooled:
    """Codes [samples, n_features] and how many tokens each sample had; one without tokens is a row of zeros."""

    codes: sparse.csr_array
    tokens: NDArray[np.int64]


def pool_codes(batches: Iterable[tuple[Codes, Any]], *, samples: int, n_features: int, how: How) -> Pooled:
    """Pool batches of (codes of some tokens, the number of the sample each token is of), in any order.

    The tokens of a sample may lie in several batches.
    """
    if how not in get_args(How):
        raise ConfigError(f"pool {how!r} is not known here", remedy=near(str(how), get_args(How)))
    tokens = np.zeros(samples, dtype=np.int64)
    held, waiting = _Sums.none(), list[_Sums]()
    for codes, of in batches:
        sample = _samples(of, len(codes), samples)
        if codes.n_features != n_features:
            what = f"codes of {codes.n_features} features among those of {n_features}"
            raise DataError(what, remedy="Pool the codes of one dictionary.")
        tokens += np.bincount(sample, minlength=samples)
        waiting.append(_Sums.of(codes, sample, how))
        if sum(len(part.keys) for part in waiting) > max(_AT_ONCE, len(held.keys)):
            held, waiting = _merged([held, *waiting], how), []
    held = _merged([held, *waiting], how)
    row, column = held.keys // n_features, held.keys % n_features
    values = held.values / tokens[row] if how == "mean" else held.values
    if how == "max":
        values = np.where(held.counts < tokens[row], np.maximum(values, 0), values)
    kept = values != 0
    starts = np.zeros(samples + 1, dtype=np.int64)
    np.cumsum(np.bincount(row[kept], minlength=samples), out=starts[1:])
    parts = (values[kept].astype(np.float32), column[kept], starts)
    return Pooled(sparse.csr_array(parts, shape=(samples, n_features)), tokens)


def _samples(of: Any, n: int, samples: int) -> NDArray[np.int64]:
    sample = np.asarray(of, dtype=np.int64)
    if sample.shape != (n,):
        raise DataError(f"{len(sample)} sample numbers for {n} tokens", remedy="Give one a token.")
    if n and not 0 <= sample.min() <= sample.max() < samples:
        wrong = int(sample.min() if sample.min() < 0 else sample.max())
        raise DataError(f"a token is of sample {wrong}, of {samples}", remedy="Number samples from 0.")
    return sample


@dataclass(frozen=True, eq=False)
class _Sums:
    """Pairs of sample and code, ascending, each with its sum or largest value and in how many tokens it fired."""

    keys: NDArray[np.int64]
    values: NDArray[np.float64]
    counts: NDArray[np.int64]

    @staticmethod
    def none() -> _Sums:
        return _Sums(np.zeros(0, dtype=np.int64), np.zeros(0), np.zeros(0, dtype=np.int64))

    @staticmethod
    def of(codes: Codes, sample: NDArray[np.int64], how: How) -> _Sums:
        fired = codes.fired()
        values = fired.values.detach().cpu().double().numpy()
        if not np.isfinite(values).all():
            raise DataError("NaN or infinity in codes", remedy="Encode the rows anew.")
        features = fired.features.cpu().numpy().astype(np.int64)
        if len(features) and not 0 <= features.min() <= features.max() < codes.n_features:
            raise DataError(f"a code outside 0 … {codes.n_features - 1}", remedy="Encode the rows anew.")
        keys = sample[fired.rows.cpu().numpy()] * codes.n_features + features
        return _reduced(keys, values, np.ones(len(keys), dtype=np.int64), how)


def _reduced(keys: NDArray[np.int64], values: NDArray[np.float64], counts: NDArray[np.int64], how: How) -> _Sums:
    order = np.argsort(keys, kind="stable")
    keys = keys[order]
    first = np.flatnonzero(np.diff(keys, prepend=-1))
    if not len(first):
        return _Sums.none()
    reduce = np.add if how == "mean" else np.maximum
    return _Sums(keys[first], reduce.reduceat(values[order], first), np.add.reduceat(counts[order], first))


def _merged(parts: list[_Sums], how: How) -> _Sums:
    joined = [np.concatenate([getattr(part, name) for part in parts]) for name in ("keys", "values", "counts")]
    return _reduced(joined[0], joined[1], joined[2], how)
