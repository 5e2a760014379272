"""How near several maps come to what a layer gives, on rows that none of them has seen.

One pass over the rows of a split; every map is asked for the same rows. Explained variance is 1 − Σ‖y − ŷ‖² / Σ‖y − ȳ‖²
with ȳ the mean of the training rows; R² of a dimension is about its mean in these very rows. Differences between two
maps are over instances, whose nodes belong together: a mean of one number an instance, with Student's interval.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from elute.base.errors import DataError
from elute.engine.metrics import Firing, Reconstruction

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from elute.base.codes import Codes
    from elute.dictionaries.dictionary import Dictionary
    from elute.routing.pair_rows import PairRows

    Map = Callable[[Mapping[str, Tensor]], Mapping[str, Tensor]]

DIGITS = 6


def through(dictionary: Dictionary, seen: Callable[[Codes], None] | None = None) -> Map:
    """Return a dictionary as a map of its sites; `seen` is told its codes."""

    def of(given: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        codes = dictionary.encode(given)
        if seen is not None:
            seen(codes.to("cpu"))
        y = dictionary.decode(codes, given)
        found: dict[str, Tensor] = y if isinstance(y, dict) else {next(iter(dictionary.spec.writes)): y}
        return {name: part.cpu() for name, part in found.items()}

    return of


def judge(rows: PairRows, split: str, maps: Mapping[str, Map], *, reads: Mapping[str, int],
          writes: Mapping[str, int]) -> dict[str, Judged]:  # fmt: skip
    """Ask each map for every row of a split."""
    found = {name: Judged(rows, writes) for name in maps}
    numbers: dict[str, int] = {}
    sites = list(dict.fromkeys([*reads, *writes]))
    for given, frame in rows.batches(split, sites=sites):
        instance = np.array([numbers.setdefault(name, len(numbers)) for name in frame["sample_id"]], np.int64)
        for name, of in maps.items():
            found[name].update(given, of(given), instance)
    return found


def judge_dictionary(
    rows: PairRows, split: str, dictionary: Dictionary, *, others: Mapping[str, Map] | None = None
) -> tuple[dict[str, Judged], Firing]:
    """Judge a dictionary, beside other maps of the same rows."""
    firing = Firing(dictionary.n_features)
    spec = dictionary.spec
    maps = {"transcoder": through(dictionary, firing.update), **(others or {})}
    return judge(rows, split, maps, reads=spec.reads, writes=spec.writes), firing


class Judged:
    """What one map came to."""

    def __init__(self, rows: PairRows, writes: Mapping[str, int]) -> None:
        self.sites = {name: Reconstruction(width, rows.mean(name)) for name, width in writes.items()}
        self.means = {name: rows.mean(name) for name in writes}
        self.errors, self.spreads = np.zeros(0), np.zeros(0)  # of each instance, over all sites

    def update(self, y: Mapping[str, Tensor], y_hat: Mapping[str, Tensor], instance: NDArray[np.int64]) -> None:
        """Take in rows, what the map made of them, and of which instance each is."""
        most = max(len(self.errors), int(instance.max()) + 1)
        for name, site in self.sites.items():
            site.update((y[name], y_hat[name]))
            errors = (y[name] - y_hat[name]).double().square().sum(1).numpy()
            spreads = (y[name] - self.means[name]).double().square().sum(1).numpy()
            self.errors = _added(self.errors, errors, instance, most)
            self.spreads = _added(self.spreads, spreads, instance, most)

    @property
    def explained(self) -> float:
        """Share of the spread of all sites that is explained."""
        if not self.spreads.sum() > 0:
            raise DataError("the rows to judge by do not vary", remedy="Collect more instances.")
        return float(1 - self.errors.sum() / self.spreads.sum())

    def told(self, *, whole: bool = False) -> dict[str, Any]:
        """Return the figures; `whole` with R² of each dimension."""
        figures: dict[str, Any] = {"explained_variance": round(self.explained, DIGITS)}
        results = {name: site.result() for name, site in self.sites.items()}
        r2 = np.concatenate([result.r2 for result in results.values()])
        figures["cosine"] = round(float(np.mean([result.cosine for result in results.values()])), DIGITS)
        figures |= {"r2_mean": round(float(r2.mean()), DIGITS), "r2_median": round(float(np.median(r2)), DIGITS),
                    "r2_min": round(float(r2.min()), DIGITS)}  # fmt: skip
        figures["norm_ratio"] = round(float(np.mean([result.norm_ratio for result in results.values()])), DIGITS)
        if len(results) > 1:
            figures["sites"] = {
                name: {
                    "explained_variance": round(1 - float(r.fvu_given_mean or 0.0), DIGITS),
                    "r2_median": round(float(np.median(r.r2)), DIGITS),
                }
                for name, r in results.items()
            }
        if whole:
            figures["r2"] = {name: [round(float(x), DIGITS) for x in r.r2] for name, r in results.items()}
        return figures

    def less(self, other: Judged) -> dict[str, float]:
        """Return how much more of the spread this map explains than another, with its 95% interval over instances."""
        from scipy import stats

        each = (other.errors - self.errors) / self.spreads.mean()
        n, mean = len(each), float(each.mean())
        half = float(stats.t.ppf(0.975, n - 1) * each.std(ddof=1) / n**0.5) if n > 1 else float("inf")
        if not np.isfinite(half):
            raise DataError(f"{n} instance is too few for an interval", remedy="Collect more instances.")
        told = {"difference": mean, "low": mean - half, "high": mean + half}
        return {**{name: round(value, DIGITS) for name, value in told.items()}, "instances": n}


def _added(
    sums: NDArray[np.float64], values: NDArray[np.float64], instance: NDArray[np.int64], most: int
) -> NDArray[np.float64]:
    found = np.bincount(instance, weights=values, minlength=most).astype(np.float64)
    found[: len(sums)] += sums
    return found
