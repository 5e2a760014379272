"""Relevance of codes over all samples, in one pass: sums by code, the best codes of each sample, what was conserved.

Mergeable: parts of a stream give the same as the whole, sums to rounding and the rest to the bit.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from elute.analysis.relevance_pooling import sums_at
from elute.base.codes import Codes
from elute.base.errors import DataError
from elute.base.mergeable import Floats, Integers, Statistic, positive

if TYPE_CHECKING:
    import polars as pl

    from elute.analysis.relevance_explain import Explanation

_LIKE = 4  # neighbours in activity, on each side, of which a control is drawn


class CodeTotals(Statistic):
    """Sums over samples of each code's relevance and activity, and how well relevance was conserved."""

    _settings = ("n_codes",)
    _kept = ("n", "positive", "negative", "samples", "active", "pooled", "strength", "worst", "parts")

    def __init__(self, n_codes: int) -> None:
        self.n_codes, self.n, self.worst = positive("n_codes", n_codes), 0, 0.0
        self.positive, self.negative = np.zeros(n_codes), np.zeros(n_codes)  # Σ R where above, below 0
        self.samples, self.active = (
            np.zeros(n_codes, np.int64),
            np.zeros(n_codes, np.int64),
        )  # with relevance; that fired
        self.pooled, self.strength = np.zeros(n_codes), np.zeros(n_codes)  # Σ p and Σ |p|
        self.parts = np.zeros(5)  # Σ of |output|, |bias|, |ε|, |masked|, and of the output

    def update(self, found: Explanation, /) -> None:
        """Take in a batch."""
        pairs, relevance = found.pairs, found.relevance
        self.n += len(found.output)

        def by_code(values: Any) -> Floats:
            return sums_at(pairs.code, values, self.n_codes)

        self.positive += by_code(np.maximum(relevance, 0))
        self.negative += by_code(np.minimum(relevance, 0))
        self.samples += np.bincount(pairs.code[relevance != 0], minlength=self.n_codes)
        self.active += np.bincount(pairs.code, minlength=self.n_codes)
        self.pooled += by_code(pairs.pooled)
        self.strength += by_code(np.abs(pairs.pooled))
        self.worst = max(self.worst, float(found.gap().max(initial=0)))
        each = (found.output, found.bias, found.epsilon, found.masked)
        self.parts += [*(float(np.abs(part).sum()) for part in each), float(found.output.sum())]

    def merge(self, other: CodeTotals, /) -> None:
        """Take in what another one has seen."""
        self.check_kin(other)
        self.worst = max(self.worst, other.worst)
        for name in self._kept:
            if name != "worst":
                setattr(self, name, getattr(self, name) + getattr(other, name))

    def result(self, *, seed: int = 0) -> pl.DataFrame:
        """Return a row a code: see `code_table`."""
        return code_table(
            positive=self.positive, negative=self.negative, samples=self.samples, active=self.active,
            pooled=self.pooled, strength=self.strength, n=self.n, seed=seed,
        )  # fmt: skip

    def conservation(self) -> dict[str, float]:
        """Return the worst relative gap of a sample, and what share of all that was explained did not reach codes."""
        whole = self.parts[0] or 1.0
        names = ("bias_share", "epsilon_share", "masked_share")
        shares = {name: float(part / whole) for name, part in zip(names, self.parts[1:4], strict=True)}
        return {"worst_relative": self.worst, **shares, "n": self.n}


def code_table(
    *,
    positive: Floats,
    negative: Floats,
    samples: Integers,
    active: Integers,
    pooled: Floats,
    strength: Floats,
    n: int,
    seed: int,
) -> pl.DataFrame:
    """Return code, relevance (Σ over samples), positive, negative, share, samples, mean_activation and more.

    `share` is of the sum over codes of Σ|R|; `mean_absolute` is Σ|R| / n. `control` is another code that is about as
    active (Σ|pooled code|), drawn at random, and `control_relevance` its relevance: what activity alone would give.
    """
    import polars as pl

    absolute = positive - negative
    control = like_codes(strength, seed=seed)
    relevance = positive + negative
    drawn = np.where(control >= 0, relevance[control], np.nan)
    drawn_absolute = np.where(control >= 0, absolute[control], np.nan)
    frame = pl.DataFrame(
        {
            "code": np.arange(len(positive), dtype=np.int32),
            "relevance": relevance,
            "positive": positive,
            "negative": negative,
            "share": absolute / (absolute.sum() or 1.0),
            "samples": samples,
            "mean_activation": pooled / max(1, n),
            "mean_absolute": absolute / max(1, n),
            "active": active,
            "control": control,
            "control_relevance": drawn,
            "control_mean_absolute": drawn_absolute / max(1, n),
        }
    )
    unknown = pl.col("control") < 0
    names = ("control", "control_relevance", "control_mean_absolute")
    return frame.with_columns(pl.when(unknown).then(None).otherwise(pl.col(name)).alias(name) for name in names)


def like_codes(strength: Floats, *, seed: int) -> Integers:
    """Draw for each code another one of like activity: one of the nearest few in rank; -1 where there is none."""
    live = np.flatnonzero(strength > 0)
    drawn = np.full(len(strength), -1, np.int64)
    n = len(live)
    if n < 2:
        return drawn
    order = live[np.lexsort((live, strength[live]))]
    rng = np.random.default_rng([seed, 9])
    window = min(2 * _LIKE, n - 1)  # others in reach, the code itself left out
    rank = np.arange(n)
    first = np.clip(rank - _LIKE, 0, n - 1 - window)
    pick = first + rng.integers(0, window, n)
    pick += pick >= rank
    drawn[order] = order[pick]
    return drawn


def _strongest(sample: Integers, strength: Floats, most: int) -> Integers:
    """Places of the strongest of each sample, samples ascending: `most`, or more where some are equal."""
    cuts = np.append(np.flatnonzero(np.diff(sample, prepend=-1)), len(sample))
    kept = []
    for a, b in zip(cuts[:-1].tolist(), cuts[1:].tolist(), strict=True):
        part = strength[a:b]
        if b - a > most:
            kept.append(a + np.flatnonzero(part >= np.partition(part, b - a - most)[b - a - most]))
        else:
            kept.append(np.arange(a, b))
    return np.concatenate(kept) if kept else np.zeros(0, np.int64)


@dataclass(frozen=True, eq=False)
class SampleRelevance:
    """Relevance by sample: the codes that matter most in each, and what was explained of it."""

    sample_ids: tuple[str, ...]
    codes: Codes  # values are relevances, strongest by magnitude first
    output: Floats
    bias: Floats
    epsilon: Floats
    masked: Floats

    def table(self) -> pl.DataFrame:
        """Return sample_id, code, relevance: a row for each code that is kept of a sample."""
        import polars as pl

        rows, codes, values = (part.numpy() for part in self.codes.fired())
        return pl.DataFrame(
            {"sample_id": pl.Series(self.sample_ids, dtype=pl.String)[rows], "code": codes, "relevance": values}
        )


class SampleTotals:
    """The most relevant codes of every sample; grows with the samples, by `most` codes each (None: all codes)."""

    def __init__(self, n_codes: int, most: int | None = 20) -> None:
        self.n_codes, self.most = n_codes, most if most is None else positive("most", most)
        self._names: list[str] = []
        self._parts: list[tuple[Integers, Floats, Floats]] = []

    def update(self, found: Explanation, /) -> None:
        """Take in a batch."""
        relevance, pairs = found.relevance, found.pairs
        told = np.flatnonzero(relevance)
        if self.most is not None:
            told = told[_strongest(pairs.sample[told], np.abs(relevance[told]), self.most)]
        sample, code, values = pairs.sample[told], pairs.code[told], relevance[told]
        order = np.lexsort((code, -np.abs(values), sample))
        sample, code, values = sample[order], code[order], values[order]
        rank = np.arange(len(sample)) - np.searchsorted(sample, sample)
        kept = rank >= 0 if self.most is None else rank < self.most
        width = int(rank[kept].max(initial=-1)) + 1
        n = len(found.output)
        idx, val = np.zeros((n, width), np.int32), np.zeros((n, width))
        idx[sample[kept], rank[kept]], val[sample[kept], rank[kept]] = code[kept], values[kept]
        self._names += found.tokens.samples
        self._parts.append(
            (idx.astype(np.int64), val, np.stack([found.output, found.bias, found.epsilon, found.masked], 1))
        )

    def merge(self, other: SampleTotals, /) -> None:
        """Take in what another one has seen."""
        if (other.n_codes, other.most) != (self.n_codes, self.most):
            raise DataError("samples of other settings cannot be merged", remedy="Make both with the same settings.")
        self._names += other._names
        self._parts += other._parts

    def _joined(self) -> tuple[Integers, Floats, Floats]:
        width = max((idx.shape[1] for idx, _, _ in self._parts), default=0)

        def under(i: int) -> Any:
            parts: list[Any] = [part[i] for part in self._parts]
            if i < 2:
                parts = [np.pad(part, ((0, 0), (0, width - part.shape[1]))) for part in parts]
            empty = np.zeros((0, width if i < 2 else 4), np.int64 if i == 0 else np.float64)
            return np.concatenate([empty, *parts])

        return under(0), under(1), under(2)

    def state(self) -> dict[str, Any]:
        """Return numpy arrays, numbers and strings from which it can go on."""
        idx, val, told = self._joined()
        most = -1 if self.most is None else self.most
        return {"statistic": "SampleTotals", "n_codes": self.n_codes, "most": most, "names": list(self._names),
                "indices": idx, "values": val, "told": told}  # fmt: skip

    @classmethod
    def from_state(cls, state: Mapping[str, Any], /) -> Self:
        """Go on from a state; lists stand for arrays."""
        if state.get("statistic") != "SampleTotals":
            raise DataError(f"this is the state of {state.get('statistic')!r}, not of SampleTotals")
        most = int(state["most"])
        made = cls(int(state["n_codes"]), None if most < 0 else most)
        made._names = [str(name) for name in state["names"]]
        n = len(made._names)
        idx, val = np.array(state["indices"], np.int64), np.array(state["values"], np.float64)
        told = np.array(state["told"], np.float64)
        if n and not (idx.ndim == 2 and idx.shape == val.shape and len(idx) == n and told.shape == (n, 4)):
            raise DataError("the arrays in the state of SampleTotals are not what it writes")
        made._parts = [(idx, val, told)] if n else []
        return made

    def result(self) -> SampleRelevance:
        """Return what is known of each sample, in the order of their ids."""
        import torch

        idx, val, told = self._joined()
        order = np.argsort(np.array(self._names, dtype=np.str_), kind="stable")
        codes = Codes(torch.from_numpy(idx[order].astype(np.int32)), torch.from_numpy(val[order]), self.n_codes)
        names = tuple(self._names[i] for i in order.tolist())
        return SampleRelevance(names, codes, *(told[order, i] for i in range(4)))
