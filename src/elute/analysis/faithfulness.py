"""Is the relevance true? What is explained, while the most relevant codes or patches are removed first.

1. In each sample its codes (or patches) are ranked by relevance: most first, least first, and in a random order.
2. Step by step more of them are set to zero, and the head's own forward says what it then gives. A code goes from all
   tokens of the sample; a patch goes with all its codes, while the weights of pooling stay.
3. A curve is the mean over samples. Relevance that is true makes the first curve fall below the random one, and the
   last one stay above it; the area between them has an interval over samples, and the random order is its control.

For a linear head removing code j lowers the output by R_j, exactly: `ablation` says by how much it does not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np

from elute.analysis.relevance_conditions import Conditions, read_conditions
from elute.analysis.relevance_explain import Explanation, explain
from elute.analysis.relevance_head import GENE, Explained
from elute.analysis.relevance_pooling import sums_at
from elute.analysis.relevance_rules import EXACT, Rule, Rules, rules_of
from elute.analysis.relevance_stream import whole_samples
from elute.base.errors import ConfigError, DataError, near
from elute.base.mergeable import Floats, Integers

if TYPE_CHECKING:
    import polars as pl

Unit = Literal["codes", "patches"]
ORDERS = ("most", "random", "least")


@dataclass(frozen=True, eq=False)
class Curves:
    """Mean output after a share of the units was removed, in each order, and the areas between the orders."""

    unit: Unit
    removed: Floats  # [steps + 1] shares, from 0 to 1
    outputs: dict[str, Floats]  # [steps + 1] by order
    samples: int
    gain: Floats  # [samples] area between random and most
    gain_random: Floats  # [samples] area between a random order and another one: the control
    spread: Floats  # [samples] area between least and most

    def table(self) -> pl.DataFrame:
        """Return unit, order, removed, output."""
        import polars as pl

        parts = [
            pl.DataFrame({"order": [order] * len(self.removed), "removed": self.removed, "output": self.outputs[order]})
            for order in ORDERS
        ]
        return pl.concat(parts).select(pl.lit(self.unit).alias("unit"), pl.all())

    def summary(self) -> dict[str, float | int | str]:
        """Return mean areas with 95% intervals over samples: of the order by relevance, and of its control."""
        told: dict[str, float | int | str] = {"unit": self.unit, "samples": self.samples}
        for name, values in (("gain", self.gain), ("control", self.gain_random), ("spread", self.spread)):
            mean = float(values.mean())
            reach = 1.96 * float(values.std(ddof=1)) / len(values) ** 0.5 if len(values) > 1 else np.nan
            told |= {name: mean, f"{name}_low": mean - reach, f"{name}_high": mean + reach}
        return told


def perturbation_curves(
    top_module: Any,
    inputs: Any,
    conditions: Conditions,
    *,
    unit: Unit = "codes",
    rule: str | Rule | Rules = "epsilon",
    steps: int = 20,
    draws: int = 4,
    seed: int = 0,
    most_samples: int | None = None,
) -> Curves:
    """Remove codes or patches by relevance and at random, and ask the head's forward each time.

    conditions: genes alone, since removing is not restricted to some codes. draws: random orders a sample.
    """
    if unit not in get_args(Unit):
        raise ConfigError(f"unit={unit!r}", remedy=near(str(unit), get_args(Unit)))
    if set(conditions) != {GENE}:
        raise ConfigError("perturbation is of genes alone", remedy='Give {"y": gene} as conditions.')
    if steps < 1 or draws < 2:
        raise ConfigError(f"steps={steps} and draws={draws}", remedy="Give at least 1 step and 2 draws.")
    explained = Explained.of(top_module)
    asked, rules = read_conditions(explained, conditions), rules_of(rule, linear=explained.linear)
    removed = np.linspace(0, 1, steps + 1)
    curves: list[Floats] = []
    names: list[str] = []
    for tokens in whole_samples(inputs, explained):
        if most_samples is not None and len(names) >= most_samples:
            break
        left = None if most_samples is None else most_samples - len(names)
        part = tokens if left is None or left >= len(tokens.samples) else tokens.only(range(left))
        found = explain(explained, part, asked, rules=rules).check()
        lines = (found.pairs.of_entries(), found.entries())
        for sample, name in enumerate(part.samples):
            rng = np.random.default_rng([seed, *name.encode("utf-8", "surrogatepass")])
            units = _Units(explained, found, sample, unit, lines)
            counts = np.round(removed * len(units.relevance)).astype(np.int64)
            pooled = np.concatenate([units.without(order, counts) for order in units.orders(rng, draws)])
            curves.append(explained.eta(pooled, asked.genes).sum(1).reshape(2 + draws, -1))
            names.append(name)
    if not curves:
        raise DataError("there are no samples to remove anything from", remedy="Check that the selection has rows.")
    order = np.argsort(np.array(names, dtype=np.str_), kind="stable")
    return _curves(np.stack(curves)[order], removed, unit)


def ablation(
    top_module: Any, inputs: Any, conditions: Conditions, *, codes: Sequence[int] | None = None
) -> pl.DataFrame:
    """Return of each code how far output lost is from relevance when it is set to zero: code, samples, worst.

    `worst` is the largest |loss − R_j| over samples, relative to the largest |R_j|: 0 to rounding for a linear head.
    """
    import polars as pl

    explained = Explained.of(top_module)
    asked = read_conditions(explained, conditions)
    apart, most = np.zeros(explained.n_codes), np.zeros(explained.n_codes)
    samples = np.zeros(explained.n_codes, np.int64)
    for tokens in whole_samples(inputs, explained):
        found = explain(explained, tokens, asked, rules=Rules(EXACT))
        relevance, pairs = found.relevance, found.pairs
        matrix = pairs.matrix().toarray()
        told = np.arange(explained.n_codes) if codes is None else np.asarray(codes)
        whole = explained.eta(matrix, asked.genes).sum(1)
        for code in told[np.isin(told, pairs.code)].tolist():
            mine = np.flatnonzero(pairs.code == code)
            rows = pairs.sample[mine]
            less = matrix[rows]
            less[:, code] = 0
            loss = whole[rows] - explained.eta(less, asked.genes).sum(1)
            apart[code] = max(apart[code], np.abs(loss - relevance[mine]).max())
            most[code] = max(most[code], np.abs(relevance[mine]).max())
            samples[code] += len(mine)
    at = np.flatnonzero(samples)
    scale = np.where(most[at] > 0, most[at], 1)
    return pl.DataFrame({"code": at.astype(np.int32), "samples": samples[at], "worst": apart[at] / scale})


class _Units:
    """The codes or the patches of one sample, their relevance, and what is pooled without some of them."""

    def __init__(
        self, explained: Explained, found: Explanation, sample: int, unit: Unit, lines: tuple[Integers, Floats]
    ) -> None:
        pairs, tokens = found.pairs, found.tokens
        of_pair, relevance = lines  # of all entries
        a, b = np.searchsorted(pairs.sample, (sample, sample + 1))
        self.unit, self.width, self.pool = unit, pairs.shape[1], explained.pool
        self.code, self.pooled = pairs.code[a:b], pairs.pooled[a:b]
        first, last = tokens.starts[sample : sample + 2]
        entries = slice(pairs.starts[a], pairs.starts[b])
        self.rows = last - first
        self.of_row = pairs.row[entries] - first
        self.of_pair = of_pair[entries] - a
        self.z, self.v = pairs.z[entries], pairs.v[entries]
        of_rows = sums_at(self.of_row, relevance[entries], self.rows)
        self.relevance = self.pooled * found.factor[a:b] if unit == "codes" else of_rows

    def orders(self, rng: np.random.Generator, draws: int) -> list[Integers]:
        """Most relevant first, least relevant first, and random orders."""
        n = len(self.relevance)
        most = np.lexsort((np.arange(n), -self.relevance))
        return [most, most[::-1], *(rng.permutation(n) for _ in range(draws))]

    def without(self, order: Integers, counts: Integers) -> Floats:
        """Pooled codes [steps, K] after the first of an order were removed, as many as `counts` say."""
        place = np.empty(len(order), np.int64)
        place[order] = np.arange(len(order))
        pooled = np.zeros((len(counts), self.width))
        for step, count in enumerate(counts.tolist()):
            if self.unit == "codes":
                stays = place >= count
                pooled[step, self.code[stays]] = self.pooled[stays]
            else:
                pooled[step, self.code] = self._of_patches(place[self.of_row] >= count)
        return pooled

    def _of_patches(self, stays: Any) -> Floats:
        if self.pool != "max":
            return sums_at(self.of_pair[stays], self.v[stays], len(self.code))
        most = np.full(len(self.code), -np.inf)
        np.maximum.at(most, self.of_pair[stays], self.z[stays])
        fired = np.bincount(self.of_pair[stays], minlength=len(self.code))
        return np.where(fired < self.rows, np.maximum(most, 0), most)


def _curves(outputs: Floats, removed: Floats, unit: Unit) -> Curves:
    """Curves from the outputs [samples, 2 + draws, steps + 1]."""
    areas = np.asarray(np.trapezoid(outputs, removed, axis=2))
    random = outputs[:, 2:].mean(1)
    means = {"most": outputs[:, 0].mean(0), "random": random.mean(0), "least": outputs[:, 1].mean(0)}
    others = areas[:, 3:].mean(1)
    return Curves(
        unit, removed, means, len(outputs),
        gain=others - areas[:, 0],
        gain_random=others - areas[:, 2],  # a random order in the place of the order by relevance
        spread=areas[:, 1] - areas[:, 0],
    )  # fmt: skip
