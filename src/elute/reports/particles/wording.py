"""What an evaluation comes to, in words: each number with its interval, and no more than the interval allows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from elute.reports.particles.original import FUSION, comparison
from elute.reports.validation_svg import chance, number

GAINS, APART, LOSES = "gains", "not told apart", "loses"
ACROSS, WITHIN = "permuted_across", "permuted_within"
METRICS = {
    "map": "macro average precision", "accuracy": "accuracy", "balanced_accuracy": "balanced accuracy",
    "log_loss": "log-loss", "brier": "Brier score", "ece": "calibration error",
}  # fmt: skip
SMALLER = ("log_loss", "brier", "ece")  # better the smaller they are


def three(value: float | None) -> str:
    """A number with three places; none is a dash."""
    return "–" if value is None else f"{value:.3f}".replace("-", "−")


def signed(value: float | None) -> str:
    """A difference with its sign."""
    return "–" if value is None else f"{value:+.3f}".replace("-", "−")


def ranged(told: Mapping[str, Any]) -> str:
    """The interval in words; nothing where there is none."""
    if told["low"] is None:
        return ""
    return f"{three(told['low'])} to {three(told['high'])}"


def with_interval(told: Mapping[str, Any], *, sign: bool = False) -> str:
    """A number and its interval."""
    value = signed(told["estimate"]) if sign else three(told["estimate"])
    if told["low"] is None:
        return value
    low, high = (signed(told[k]) if sign else three(told[k]) for k in ("low", "high"))
    return f"{value} ({low} to {high})"


def verdict(one: Mapping[str, Any]) -> str:
    """Whether the first of two methods is better: its interval, and both tests corrected for all questions, say so."""
    told = one["difference"]
    sure = all(p is not None and p < 0.05 for p in (one["p_t_holm"], one["p_permutation_holm"]))
    if told["low"] is None or not sure or told["low"] <= 0 <= told["high"]:
        return APART
    return GAINS if told["low"] > 0 else LOSES


def best_source(plain: Mapping[str, Any]) -> str:
    """The source that does best alone."""
    alone = {name: plain["methods"][name]["overall"]["map"]["estimate"] or 0.0 for name in plain["sources"]}
    return str(max(alone, key=lambda name: alone[name]))


def lead(plain: Mapping[str, Any]) -> list[str]:
    """What is said first: the fusion, what it gains over the better source, and what the controls gain."""
    fusion = plain["methods"][FUSION]
    told = [f"{fusion['title']}: {METRICS['map']} {with_interval(fusion['overall']['map'])}."]
    source = best_source(plain)
    if (one := comparison(plain, FUSION, source)) is not None:
        word = _word(one) if plain["evidence"] else "no evidence, since rows were paired by label"
        told.append(f"Over {source} alone {with_interval(one['difference'], sign=True)}: {word}.")
    return [*told, *controls(plain)]


def _word(one: Mapping[str, Any]) -> str:
    found, told = verdict(one), one["difference"]
    if found != APART:
        return "a gain" if found == GAINS else "a loss"
    if told["low"] is None or told["low"] <= 0 <= told["high"]:
        return "not told apart from nothing"
    over_folds, exchanged = (p_value(one[name]) for name in ("p_t_holm", "p_permutation_holm"))
    return (
        f"not sure, though the interval leaves 0 out: p {over_folds} over {len(one['per_fold'])} folds and {exchanged} "
        "by permutation, corrected for all questions"
    )


def controls(plain: Mapping[str, Any]) -> list[str]:
    """What the two controls come to."""
    methods, last = plain["methods"], list(plain["sources"])[-1]
    told = []
    if (across := control(plain)) is not None:
        shown = with_interval(across["difference"], sign=True)
        told.append(f"With {last} permuted across all classes the gain is {shown}: {permuted(across)}.")
    if WITHIN in methods and plain["evidence"]:
        above = (methods[WITHIN]["overall"]["map"]["estimate"] or 0) - (
            methods[FUSION]["overall"]["map"]["estimate"] or 0
        )
        more = f"{signed(above)} more than there is" if above > 0 else f"no more than there is ({signed(above)})"
        told.append(f"Rows paired by label would have shown {more}.")
    return told


def permuted(one: Mapping[str, Any]) -> str:
    """Say what a source that tells nothing has gained: nothing, or less, or a leak."""
    low, high = (one["difference"][name] for name in ("low", "high"))
    if low is not None and low > 0:
        return "SOMETHING, which it must not: look for a leak"
    if high is not None and high < 0:
        return "none, as it must be, and numbers that tell nothing cost a little"
    return "nothing, as it must be"


def control(plain: Mapping[str, Any]) -> dict[str, Any] | None:
    """The comparison of the permuted fusion with the same fusion without the permuted source."""
    found = [one for one in plain["comparisons"] if one["first"] == ACROSS and one["metric"] == "map"]
    return found[0] if found else None


def leaks(plain: Mapping[str, Any]) -> bool:
    """Whether the control that must gain nothing gains something."""
    one = control(plain)
    return one is not None and one["difference"]["low"] is not None and one["difference"]["low"] > 0


def p_value(value: float | None) -> str:
    """A probability."""
    return "–" if value is None else chance(value)


def share(value: float) -> str:
    """A share in percent."""
    return f"{number(100 * value, 2)}%"
