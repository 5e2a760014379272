"""Corrections for many tests: q-values and adjusted p-values of one family.

1. A family is every test that was made, shown or not: `n_tests` may exceed the p-values given, and those not given
   count as p = 1.
2. Benjamini–Hochberg: q of the i-th smallest is min over j ≥ i of p_j m / j. Benjamini–Yekutieli multiplies by
   1 + 1/2 + … + 1/m and holds under any dependence.
3. Storey: BH times π0, the share of true nulls, estimated above λ by (#{p > λ} + 1) / (m (1 − λ)). λ is the one
   with the least mean squared error, which for the bootstrap over p-values has a closed form. Below 100 p-values
   π0 is 1: too few to estimate it from.
4. Holm steps down through p_i (m − i + 1); Bonferroni is p m.
5. A NaN is refused, or with missing="carry" stays NaN and leaves the family.

Y. Benjamini, Y. Hochberg, J. R. Stat. Soc. B 57, 1995; Y. Benjamini, D. Yekutieli, Ann. Stat. 29, 2001;
J. D. Storey, J. E. Taylor, D. Siegmund, J. R. Stat. Soc. B 66, 2004; S. Holm, Scand. J. Stat. 6, 1979.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike

from elute.base.errors import ConfigError, DataError
from elute.base.statistics.checks import Bools, Floats, at_least, choice

Missing = Literal["refuse", "carry"]
ENOUGH_FOR_PI0 = 100


@dataclass(frozen=True)
class Storey:
    """The q-values in the order given, and the share of true nulls they were made with."""

    q: Floats
    pi0: float
    lam: float  # NaN where π0 was not estimated


@dataclass(frozen=True)
class _Family:
    given: Floats  # finite p-values, flat
    n_tests: int
    shape: tuple[int, ...]
    present: Bools

    def spread(self, adjusted: Floats) -> Floats:
        result = np.full(self.present.shape, np.nan)
        result[self.present] = np.minimum(adjusted, 1.0)
        return result.reshape(self.shape)


def _family(p: ArrayLike, name: str, *, n_tests: int | None, missing: Missing) -> _Family:
    where = f"{name}(p)"
    choice(missing, ("refuse", "carry"), f"{name}(missing)")
    try:
        array = np.asarray(p, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise DataError("is not an array of numbers", where=where, remedy="Give p-values.") from error
    if array.size == 0:
        raise DataError("is empty", where=where, remedy="Give at least one p-value.")
    flat = array.ravel()
    present = ~np.isnan(flat)
    if missing == "refuse" and not present.all():
        raise DataError(
            f"{int((~present).sum())} of {flat.size} p-values are NaN",
            where=where,
            remedy="Drop them, or pass missing='carry' to leave them out of the family.",
        )
    given = flat[present]
    if given.size and (given.min() < 0 or given.max() > 1):
        worst = given.min() if given.min() < 0 else given.max()
        raise DataError(f"holds {worst:g}", where=where, remedy="A p-value lies between 0 and 1.")
    size = max(given.size, 1) if n_tests is None else at_least(n_tests, 1, f"{name}(n_tests)")
    if size < given.size:
        raise ConfigError(
            f"{size} tests are fewer than the {given.size} p-values",
            where=f"{name}(n_tests)",
            remedy="Count every test made.",
        )
    return _Family(given, size, array.shape, present)


def _step_up(family: _Family, factor: float) -> Floats:
    p = family.given
    order = np.argsort(p, kind="stable")
    scaled = p[order] * (family.n_tests * factor) / np.arange(1, p.size + 1)
    if p.size < family.n_tests:
        # Behind the given ones stand the p = 1 of the tests not shown; the last of them has rank m.
        scaled = np.append(scaled, factor)
    lowest = np.minimum.accumulate(scaled[::-1])[::-1][: p.size]
    q = np.empty(p.size)
    q[order] = lowest
    return q


def benjamini_hochberg(p: ArrayLike, *, n_tests: int | None = None, missing: Missing = "refuse") -> Floats:
    """Return q-values that bound the false discovery rate under independence or positive dependence."""
    family = _family(p, "benjamini_hochberg", n_tests=n_tests, missing=missing)
    return family.spread(_step_up(family, 1.0))


def benjamini_yekutieli(p: ArrayLike, *, n_tests: int | None = None, missing: Missing = "refuse") -> Floats:
    """Return q-values that bound the false discovery rate under any dependence."""
    family = _family(p, "benjamini_yekutieli", n_tests=n_tests, missing=missing)
    return family.spread(_step_up(family, float((1.0 / np.arange(1, family.n_tests + 1)).sum())))


def storey(p: ArrayLike, *, n_tests: int | None = None, missing: Missing = "refuse") -> Storey:
    """Return q-values scaled by the estimated share of true nulls."""
    family = _family(p, "storey", n_tests=n_tests, missing=missing)
    m = family.n_tests
    if family.given.size < ENOUGH_FOR_PI0:
        return Storey(family.spread(_step_up(family, 1.0)), 1.0, float("nan"))
    lam = np.arange(0.05, 0.96, 0.05)
    ordered = np.sort(family.given)
    above = m - np.searchsorted(ordered, lam, side="right")
    estimates = (above + 1.0) / (m * (1.0 - lam))
    variance = above / (m * (1.0 - lam)) ** 2 * (1.0 - above / m)
    best = int(np.argmin(variance + (estimates - np.quantile(estimates, 0.1)) ** 2))
    pi0 = float(min(estimates[best], 1.0))
    return Storey(family.spread(_step_up(family, pi0)), pi0, float(lam[best]))


def holm(p: ArrayLike, *, n_tests: int | None = None, missing: Missing = "refuse") -> Floats:
    """Return p-values that bound the chance of any false discovery, never above Bonferroni's."""
    family = _family(p, "holm", n_tests=n_tests, missing=missing)
    order = np.argsort(family.given, kind="stable")
    scaled = family.given[order] * (family.n_tests - np.arange(family.given.size))
    adjusted = np.empty(family.given.size)
    adjusted[order] = np.maximum.accumulate(scaled)
    return family.spread(adjusted)


def bonferroni(p: ArrayLike, *, n_tests: int | None = None, missing: Missing = "refuse") -> Floats:
    """Return p-values times the number of tests, which bounds the chance of any false discovery."""
    family = _family(p, "bonferroni", n_tests=n_tests, missing=missing)
    return family.spread(family.given * family.n_tests)


def _storey_q(p: ArrayLike, *, n_tests: int | None = None, missing: Missing = "refuse") -> Floats:
    return storey(p, n_tests=n_tests, missing=missing).q


CORRECTIONS: dict[str, Callable[..., Floats]] = {
    "benjamini-hochberg": benjamini_hochberg,
    "benjamini-yekutieli": benjamini_yekutieli,
    "storey": _storey_q,
    "holm": holm,
    "bonferroni": bonferroni,
}


def correct(
    p: ArrayLike, method: str = "benjamini-hochberg", *, n_tests: int | None = None, missing: Missing = "refuse"
) -> Floats:
    """Apply the correction of a name, as a configuration gives it."""
    choice(method, list(CORRECTIONS), "correct(method)")
    return CORRECTIONS[method](p, n_tests=n_tests, missing=missing)
