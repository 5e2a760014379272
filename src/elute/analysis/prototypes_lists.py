"""Which samples may enter the lists of a code: from relevance and activation in a batch to candidates.

    relmax  sum  R of the code in the sample                  max  the largest (−: the smallest) R of a token
    actmax  sum  Σ z over the sample's tokens                 max  the largest (−: the smallest) z of a token

A normed T is divided by the sum over all codes of the sample's |T| (equation 17's ranking on relative relevance).
Row, column and tile are those of the strongest token: the one with the largest (−: smallest) relevance or activation.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from elute.analysis.prototypes import KINDS, Candidates
from elute.analysis.relevance_pooling import by_number
from elute.base.mergeable import Floats, Integers

if TYPE_CHECKING:
    from elute.analysis.relevance_explain import Explanation
    from elute.analysis.relevance_pooling import Pairs, Peaks
    from elute.analysis.relevance_stream import Tokens

Found = dict[tuple[str, str, str], Candidates]
Key = tuple[str, str]


def candidates(found: Explanation, kinds: Sequence[str] = KINDS[:2], *, codes: Integers | None = None) -> Found:
    """Return the candidates of a batch for each list; `codes` says whose lists are wanted."""
    pairs, tokens = found.pairs, found.tokens
    factor = found.factor
    wanted = None
    if codes is not None and len(codes) < pairs.shape[1]:
        wanted = np.zeros(pairs.shape[1], bool)
        wanted[codes] = True
    norms = {}
    if any(kind.endswith("normed") for kind in kinds):
        norms = _norms(pairs, factor, tokens)
    if wanted is not None:
        keep = wanted[pairs.code]
        pairs, factor = pairs.chosen(keep), factor[keep]
    if not len(pairs):
        return {}
    sums = {"relmax": pairs.pooled * factor, "actmax": pairs.sums(pairs.z)}
    peaks = {"relmax": scaled(pairs.peaks(pairs.v), factor), "actmax": pairs.peaks(pairs.z)}
    each = {"relmax": pairs.v * factor[pairs.of_entries()], "actmax": pairs.z}
    order = by_number(pairs.code, pairs.shape[1])  # a code's candidates come together: its lists stay in the cache
    lists: Found = {}
    for kind in kinds:
        base = kind.removesuffix("_normed")
        other = "actmax" if base == "relmax" else "relmax"
        for up, sign in ((True, "+"), (False, "-")):
            peak, at = (peaks[base].high, peaks[base].high_at) if up else (peaks[base].low, peaks[base].low_at)
            for target, scores, beside in (
                ("sum", sums[base], sums[other]),
                ("max", peak, each[other][at]),
            ):
                height = scores if up else -scores
                rows = order[height[order] > 0]
                score = height[rows]
                if kind != base:
                    score = score / norms[base, target if target == "sum" else f"max{sign}"][pairs.sample[rows]]
                strongest = pairs.row[at[rows]]
                told = {base: scores[rows], other: beside[rows]}
                lists[kind, target, sign] = Candidates(
                    pairs.code[rows], score, tokens.place[strongest], tokens.spots[strongest],
                    told["relmax"], told["actmax"],
                )  # fmt: skip
    return lists


def scaled(peaks: Peaks, factor: Floats) -> Peaks:
    """The extremes of entries after each pair's entries were multiplied by a factor."""
    up = factor >= 0
    return type(peaks)(
        np.where(up, peaks.high, peaks.low) * factor,
        np.where(up, peaks.high_at, peaks.low_at),
        np.where(up, peaks.low, peaks.high) * factor,
        np.where(up, peaks.low_at, peaks.high_at),
    )


def _norms(pairs: Pairs, factor: Floats, tokens: Tokens) -> dict[Key, Floats]:
    """The sum over codes of |T| of each sample, for each kind and target."""
    silent = np.diff(pairs.starts) < tokens.lengths[pairs.sample]  # some token has 0 of it

    def whole(values: Floats) -> Floats:
        return pairs.by_sample(np.abs(values))

    norms: dict[Key, Floats] = {}
    for kind, sums, peaks in (
        ("relmax", pairs.pooled * factor, scaled(pairs.peaks(pairs.v), factor)),
        ("actmax", pairs.sums(pairs.z), pairs.peaks(pairs.z)),
    ):
        norms[kind, "sum"] = whole(sums)
        norms[kind, "max+"] = whole(np.where(silent, np.maximum(peaks.high, 0), peaks.high))
        norms[kind, "max-"] = whole(np.where(silent, np.minimum(peaks.low, 0), peaks.low))
    return norms


def hidden_candidates(found: Explanation, path: str, kinds: Sequence[str] = KINDS[:2]) -> Found:
    """Return the candidates of a hidden layer's units, which have no tokens: sum and max are the same."""
    tables = {"relmax": found.hidden[path], "actmax": found.activations[path]}
    first = found.tokens.starts[:-1]
    lists: Found = {}
    for kind in kinds:
        base = kind.removesuffix("_normed")
        table = tables[base]
        whole: Any = np.abs(table).sum(1, keepdims=True) if kind != base else 1.0
        for sign, heights in (("+", table), ("-", -table)):
            rows, units = np.nonzero(heights > 0)
            spots = np.full((len(rows), 2), -1, np.int32)
            score = (heights / np.where(np.asarray(whole) == 0, 1, whole))[rows, units]
            told = (tables["relmax"][rows, units], tables["actmax"][rows, units])
            given = Candidates(units, score, found.tokens.place[first[rows]], spots, *told)
            lists[kind, "sum", sign] = lists[kind, "max", sign] = given
    return lists
