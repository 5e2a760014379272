"""From codes of tokens to codes of samples, as pairs (sample, code) that keep which tokens made them.

A pair's pooled value is p = Σ_t v_t over the tokens in which its code fired, where the share v_t of a token is

    none        z_t, for samples of one token
    sum         z_t
    mean        z_t / n, for n tokens of the sample: also those in which the code is silent
    attention   a_t · z_t, the weights a_t held constant
    max         z_t in the token that wins (the first of equals) and 0 in others; a silent token counts as 0

Relevance R = p · c of a pair comes to its tokens as v_t · c, which is a_t z_t / p · R without the division.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from elute.base.compiled import compiled
from elute.base.errors import DataError
from elute.base.mergeable import Floats, Integers, as_numpy

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from elute.analysis.relevance_stream import Tokens


@dataclass(frozen=True, eq=False)
class Peaks:
    """Per pair the largest and the smallest value of a token, and in which entry it is; the first of equals."""

    high: Floats
    high_at: Integers
    low: Floats
    low_at: Integers


@dataclass(frozen=True, eq=False)
class Pairs:
    """Pooled codes of samples, by sample and code; entries are tokens, pair by pair."""

    shape: tuple[int, int]
    sample: Integers  # [P]
    code: Integers  # [P]
    pooled: Floats  # [P]
    starts: Integers  # [P + 1]
    row: Integers  # [E]
    z: Floats  # [E]
    v: Floats  # [E]

    def __len__(self) -> int:
        return len(self.code)

    def matrix(self) -> csr_array[Any, tuple[int, int]]:
        """Return pooled codes [samples, codes]."""
        from scipy.sparse import csr_array

        starts = np.searchsorted(self.sample, np.arange(self.shape[0] + 1))
        return csr_array((self.pooled, self.code, starts), shape=self.shape)

    def of_entries(self) -> Integers:
        """Return the pair of each entry."""
        return np.repeat(np.arange(len(self)), np.diff(self.starts))

    def peaks(self, values: Floats) -> Peaks:
        """Return the extremes of entries' values, pair by pair."""
        n = len(self)
        found = Peaks(np.empty(n), np.empty(n, np.int64), np.empty(n), np.empty(n, np.int64))
        _peaks(values, self.starts, found.high, found.high_at, found.low, found.low_at)
        return found

    def sums(self, values: Floats) -> Floats:
        """Return the sums of entries' values, pair by pair."""
        return np.add.reduceat(values, self.starts[:-1]) if len(self) else np.zeros(0)

    def by_sample(self, values: Floats) -> Floats:
        """Return the sums of pairs' values, sample by sample."""
        return sums_at(self.sample, values, self.shape[0])

    def chosen(self, keep: Any) -> Pairs:
        """Return some of the pairs, by a mask."""
        entries = np.repeat(keep, np.diff(self.starts))
        lengths = np.diff(self.starts)[keep]
        return Pairs(
            self.shape, self.sample[keep], self.code[keep], self.pooled[keep],
            np.concatenate([[0], np.cumsum(lengths)]), self.row[entries], self.z[entries], self.v[entries],
        )  # fmt: skip


def pool(tokens: Tokens, how: str) -> Pairs:
    """Pool the codes of whole samples."""
    values = as_numpy(tokens.codes.values).astype(np.float64, copy=False)
    indices = as_numpy(tokens.codes.indices)
    row, slot = np.nonzero(values)
    if not np.isfinite(values).all():
        raise DataError("codes hold NaN or infinity")
    n, width = len(tokens.samples), tokens.codes.n_features
    features = indices[row, slot].astype(np.int64)
    if len(features) and not 0 <= features.min() <= features.max() < width:
        raise DataError(f"codes name features outside 0 to {width - 1}")
    z = values[row, slot]
    v = z * _weights(tokens, how)[row]
    order = by_number(features, width)  # rows are by sample already: two passes put codes in order within each
    order = order[by_number(tokens.sample[row[order]], n)]
    row, z, v = row[order], z[order], v[order]
    key = tokens.sample[row] * width + features[order]
    begins = np.flatnonzero(np.diff(key, prepend=-1))
    starts = np.append(begins, len(key))
    sample, code = np.divmod(key[begins], width)
    pairs = Pairs((n, width), sample, code, np.empty(0), starts, row, z, v)
    if how == "max":
        v = _winners(pairs, tokens.lengths)
    pooled = np.add.reduceat(v, begins) if len(begins) else np.zeros(0)
    return Pairs((n, width), sample, code, pooled, starts, row, z, v)


def sums_at(places: Integers, values: Any, n: int) -> Floats:
    """Add up values by place, 0 to n - 1."""
    return np.asarray(np.bincount(places, weights=values, minlength=n), dtype=np.float64)


def by_number(numbers: Integers, below: int) -> Integers:
    """Return the stable order of whole numbers below a bound; small ones are sorted by their digits."""
    return np.argsort(numbers.astype(np.uint16) if below <= 2**16 else numbers, kind="stable")


def _weights(tokens: Tokens, how: str) -> Floats:
    lengths = tokens.lengths
    if how == "none":
        if (lengths > 1).any():
            at = int(np.argmax(lengths > 1))
            what = f"sample {tokens.samples[at]!r} has {lengths[at]} rows, but nothing pools them"
            raise DataError(what, remedy="Choose the pooling that the head was trained with.")
        return np.ones(len(tokens))
    if how == "mean":
        return np.repeat(1 / lengths, lengths)
    if how == "attention":
        if tokens.weights is None:
            remedy = "Give the head's own weights as the column 'attention' of the metadata."
            raise DataError("attention pooling, but the rows have no attention weights", remedy=remedy)
        return tokens.weights
    return np.ones(len(tokens))


def _winners(pairs: Pairs, lengths: Integers) -> Floats:
    """The entries' values where they are their pair's largest, and 0 in all others."""
    peaks = pairs.peaks(pairs.z)
    everywhere = np.diff(pairs.starts) == lengths[pairs.sample]
    wins = (peaks.high > 0) | everywhere  # below 0, a silent token's 0 wins
    v = np.zeros(len(pairs.z))
    v[peaks.high_at[wins]] = peaks.high[wins]
    return v


@compiled
def _peaks(values: Any, starts: Any, high: Any, high_at: Any, low: Any, low_at: Any) -> None:
    for pair in range(starts.shape[0] - 1):
        a = starts[pair]
        most, least, at_most, at_least = values[a], values[a], a, a
        for i in range(a + 1, starts[pair + 1]):
            if values[i] > most:
                most, at_most = values[i], i
            elif values[i] < least:
                least, at_least = values[i], i
        high[pair], high_at[pair], low[pair], low_at[pair] = most, at_most, least, at_least
