"""Numbers and names as a sentence has them."""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence

from elute.reports.validation_records import NOT_RUN
from elute.reports.validation_svg import chance as svg_chance
from elute.reports.validation_svg import number, plain

_POWER = re.compile(r"(?<![\w.])(\d+(?:\.\d+)?) ?e([-−+]?)0*(\d+)(?!\w)")
_RAISED = str.maketrans("0123456789-−", "⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁻", "+")


def called(text: object, longest: int = 120) -> str:
    """A name that came with data, in quotes; what is written from right to left does not turn what stands around it."""
    shown = " ".join(plain(text, longest).split()) or "(no name)"
    turned = any(unicodedata.bidirectional(letter) in ("R", "AL", "AN") for letter in shown)
    return f"“\u2068{shown}\u2069”" if turned else f"“{shown}”"


def listed(names: Sequence[str], most: int = 12) -> str:
    """Names one after the other; of very many the first."""
    shown = list(names[:most])
    if len(names) > most:
        return f"{', '.join(shown)} and {len(names) - most:,} more"
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} and {shown[-1]}" if shown else "none"


def share(value: float | None) -> str:
    """A proportion in hundredths."""
    if value is None:
        return NOT_RUN
    percent = 100.0 * value
    if percent and abs(percent) < 0.1:
        return "less than 0.1%"
    return f"{percent:.1f}%" if abs(percent) < 10 and percent % 1 else f"{percent:.0f}%"


def of(count: float | None, total: float | None) -> str:
    """So many of so many, and what share that is."""
    if count is None:
        return NOT_RUN
    return number(count) if not total else f"{number(count)} of {number(total)} ({share(count / total)})"


def sure(confidence: float) -> str:
    """A confidence, never rounded up to certainty."""
    return f"{math.floor(100 * confidence + 1e-9) / 100:.2f}"


def power(text: str) -> str:
    """Text of our own in which numbers as 4.6e-12 stand as 4.6×10⁻¹²."""
    return _POWER.sub(lambda found: f"{found[1]}×10{(found[2] + found[3]).translate(_RAISED)}", text)


def chance(value: float | None) -> str:
    """A probability."""
    return power(svg_chance(value))


def plural(n: float, one: str, many: str = "") -> str:
    """A count with what is counted."""
    return f"{number(n)} {one if n == 1 else many or one + 's'}"
