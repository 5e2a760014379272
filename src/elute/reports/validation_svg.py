"""Drawings as SVG that stand alone: every mark has its colours as attributes, for any program that reads SVG.

Each mark also names its kind as a class, by which a page may give it other colours: a style sheet wins over attributes.
So a drawing on a dark page is dark, and the same drawing in a file is dark ink on white.
"""

from __future__ import annotations

import math
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from elute.reports.html import Markup, join, tag

LONGEST = 300  # characters of one name, whatever the data is called
FONT = "system-ui, 'Helvetica Neue', Arial, sans-serif"
KINDS: dict[str, dict[str, str]] = {
    "ground": {"fill": "#ffffff"},
    "ink": {"fill": "#1c232b"},
    "dim": {"fill": "#56616d"},
    "rule": {"stroke": "#d3d9df", "fill": "none"},
    "observed": {"fill": "#1f6fb2"},
    "null": {"fill": "#8b96a2"},
    "control": {"fill": "#b4bdc7"},
    "doubt": {"fill": "#c07a24"},
    "plain": {"fill": "#8b96a2"},
    "whisker": {"stroke": "#3a444f", "stroke-width": "1.5", "fill": "none"},
    "mark": {"stroke": "#b3591d", "stroke-width": "1.5", "fill": "none", "stroke-dasharray": "6 4"},
    **{f"s{i}": {"fill": fill} for i, fill in enumerate(("#9cc3e4", "#5a9ad0", "#2768a8", "#0d3565"), 1)},
}
# What turns the direction of the text after it, or cannot stand in XML at all.
_UNSEEN = re.compile("[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufffe\uffff]")

_LINKS = re.compile(r"</?a\b[^>]*>")


@dataclass(frozen=True)
class Drawing:
    """One picture: what it is called as a file, what it shows in words, and its marks."""

    name: str
    title: str
    width: float
    height: float
    marks: Markup

    def svg(self, *, alone: bool = False) -> Markup:
        """Return the element; `alone` with what a file of its own needs."""
        size = {"width": digits(self.width), "height": digits(self.height)}
        box = {"viewBox": f"0 0 {size['width']} {size['height']}", "font-family": FONT, "font-size": "12"}
        ground = mark("rect", "ground", **size)
        told = {"role": "img", "aria-label": self.title, "xmlns": "http://www.w3.org/2000/svg"}
        given = {**told, **box, **(size if alone else {})}
        if alone:  # where nothing is linked to
            return tag("svg", tag("title", self.title), ground, Markup(_LINKS.sub("", self.marks)), **given)
        return tag("svg", ground, self.marks, **given)


def plain(text: object, longest: int = LONGEST) -> str:
    """Text from data as a picture or a page has room for it; marks that turn its direction are taken out."""
    whole = _UNSEEN.sub("", str(text).encode(errors="replace").decode())
    return whole if len(whole) <= longest else f"{whole[:longest]}… ({len(whole):,} characters)"


def mark(name: str, kind: str, *content: object, **attributes: object) -> Markup:
    """Draw one element of a kind; numbers are rounded, and `_` in an attribute's name is a dash."""
    given = {key.replace("_", "-"): digits(value) for key, value in attributes.items()}
    return tag(name, *content, **{"class": kind, **KINDS[kind], **given})


def words(x: float, y: float, text: object, *, kind: str = "ink", **attributes: object) -> Markup:
    """Write text at a place."""
    return mark("text", kind, text, x=x, y=y, **attributes)


def hint(text: object) -> Markup:
    """What is told where the pointer rests."""
    return tag("title", text)


def line(kind: str, start: tuple[float, float], end: tuple[float, float]) -> Markup:
    """Draw a straight line."""
    return mark("line", kind, x1=start[0], y1=start[1], x2=end[0], y2=end[1])


def cut(text: object, room: float, size: float = 12) -> str:
    """Shorten text to what fits into some width, as wide as letters commonly are."""
    whole, used = plain(text), 0.0
    for i, letter in enumerate(whole):
        used += size * _width(letter)
        if used > room:
            return whole[: max(i - 1, 1)].rstrip() + "…"
    return whole


def _width(letter: str) -> float:
    if unicodedata.east_asian_width(letter) in "WF":
        return 1.05
    if letter in "mwMW@%—":
        return 0.88
    return 0.68 if letter.isupper() or letter.isdigit() else 0.31 if letter in " .,:;'|!ijl()[]-" else 0.55


def digits(value: object) -> str:
    """A length or place with a tenth at most; text as it is."""
    return f"{round(float(value), 1) + 0.0:.7g}" if isinstance(value, int | float) else str(value)


def number(value: float | None, significant: int = 3) -> str:
    """A number as people write it; none is `not run`."""
    if value is None or math.isnan(value):
        return "not run"
    if math.isinf(value):
        return "∞" if value > 0 else "−∞"
    if float(value).is_integer() and abs(value) < 1e15:
        return f"{int(value):,}".replace("-", "−")
    size = abs(value)
    if size < 1e-3 or size >= 1e6:
        return f"{value:.1e}".replace("e-0", "e-").replace("e+0", "e").replace("e+", "e").replace("e", " e")
    places = max(0, significant - 1 - math.floor(math.log10(size)))
    text = f"{value:,.{places}f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text).replace("-", "−")


def chance(value: float | None) -> str:
    """A probability; what is smaller than a double tells is not zero."""
    return "< 1 e-300" if value == 0 else number(value, 2)


def ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers between two, at most so many."""
    if not high > low:
        return [low]
    raw = (high - low) / most
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(f * power for f in (1, 2, 5, 10) if f * power >= raw)
    first = math.ceil(low / step - 1e-9)
    return [round(i * step, 12) + 0.0 for i in range(first, math.floor(high / step + 1e-9) + 1)]


def keys(entries: Sequence[tuple[str, str, str]], x: float, y: float) -> Markup:
    """Explain marks: (shape, kind, words), each after the other."""
    parts: list[Markup] = []
    for shape, kind, text in entries:
        if shape == "line":
            parts.append(line(kind, (x, y - 4), (x + 18, y - 4)))
        else:
            parts.append(mark("circle", kind, cx=x + 9, cy=y - 4, r=4))
        parts.append(words(x + 23, y, text, kind="dim", font_size=12))
        x += 36 + 12 * sum(_width(letter) for letter in text)
    return join(parts)
