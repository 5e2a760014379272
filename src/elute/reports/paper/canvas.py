"""Drawing in points, from the upper left, through matplotlib: the same marks on a page of PDF and in an SVG.

Text is text and nothing else: no `$` or `\\` in it is read as mathematics. Fonts are those that come with matplotlib,
so that every machine sets the same lines; a letter that they lack is written by its number.
"""

from __future__ import annotations

import functools
import re
import unicodedata
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from elute.base.doctor import how_to_install
from elute.base.errors import MissingError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.font_manager import FontProperties

INK, DIM, RULE = "#1c232b", "#56616d", "#c9d0d7"
# Okabe and Ito's colours, which people who see red and green alike can tell apart; shapes differ as well.
FOUND, CONTROL, OTHER = "#0072b2", "#9aa5b0", "#d55e00"
SIZE = 8.0
_SLACK = 0.6  # points: letters on both sides of a space may stand closer or farther
_SETTINGS: Any = {
    "text.parse_math": False, "text.usetex": False, "svg.fonttype": "none", "svg.hashsalt": "elute", "pdf.fonttype": 42,
    "pdf.compression": 9,
}  # fmt: skip
_FACES = {False: "DejaVuSans.ttf", True: "DejaVuSans-Bold.ttf"}
_UNSEEN = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufe00-\ufe0f]")


class Box(NamedTuple):
    """Where some text stands."""

    left: float
    top: float
    right: float
    bottom: float
    text: str


@contextmanager
def drawing() -> Iterator[None]:
    """Have matplotlib draw as it is set here, whatever a person's own settings are."""
    try:
        import matplotlib as mpl
    except ImportError:
        raise MissingError("drawing needs matplotlib", remedy=f"Type: {how_to_install('cells')}") from None
    with mpl.rc_context():
        mpl.rcdefaults()
        mpl.rcParams.update(_SETTINGS)
        yield


class Canvas:
    """A place to draw on: points to the right and down from its upper left corner."""

    def __init__(self, width: float, height: float) -> None:
        from matplotlib.figure import Figure

        self.width, self.height = width, height
        self.figure: Figure = Figure(figsize=(width / 72, height / 72))
        self._axes = self.figure.add_axes((0, 0, 1, 1))
        self._axes.set_axis_off()
        self._axes.set_xlim(0, width)
        self._axes.set_ylim(height, 0)
        self._left, self._top = 0.0, 0.0
        self.boxes: list[Box] = []

    def part(self, left: float, top: float) -> Canvas:
        """Return the same place, counted from another corner."""
        other = object.__new__(Canvas)
        other.__dict__ |= self.__dict__
        other._left, other._top = self._left + left, self._top + top
        return other

    def bar(self, x: float, y: float, *, width: float, height: float, colour: str) -> None:
        """Fill a rectangle."""
        from matplotlib.patches import Rectangle

        if width > 0:
            place = (self._left + x, self._top + y)
            self._axes.add_artist(Rectangle(place, width, height, facecolor=colour, linewidth=0, clip_on=False))

    def line(
        self, start: tuple[float, float], end: tuple[float, float], *, colour: str = RULE, wide: float = 0.7
    ) -> None:
        """Draw a straight line."""
        self._path([start, end], colour=colour, wide=wide, filled=False)

    def mark(self, shape: str, x: float, y: float, *, colour: str, filled: bool = True, size: float = 2.6) -> None:
        """Draw a dot, square, triangle, diamond or cross."""
        from matplotlib.patches import Circle

        if shape == "dot":
            face = colour if filled else "#ffffff"
            place = (self._left + x, self._top + y)
            self._axes.add_artist(Circle(place, size, facecolor=face, edgecolor=colour, linewidth=0.9, clip_on=False))
            return
        corners = {
            "square": [(-0.9, -0.9), (0.9, -0.9), (0.9, 0.9), (-0.9, 0.9)],
            "triangle": [(-1.1, 0.9), (0, -1.1), (1.1, 0.9)],
            "diamond": [(0, -1.3), (1.1, 0), (0, 1.3), (-1.1, 0)],
        }
        if shape == "cross":
            for a, b in (((-1, -1), (1, 1)), ((-1, 1), (1, -1))):
                ends = [(x + size * u, y + size * v) for u, v in (a, b)]
                self._path(ends, colour=colour, wide=1.2, filled=False)
            return
        at = [(x + size * u, y + size * v) for u, v in corners[shape]]
        self._path([*at, at[0]], colour=colour, wide=0.9, filled=filled, ground=shape == "diamond")

    def _path(
        self, points: list[tuple[float, float]], *, colour: str, wide: float, filled: bool, ground: bool = False
    ) -> None:
        from matplotlib.patches import PathPatch
        from matplotlib.path import Path as Outline

        outline = Outline([(self._left + x, self._top + y) for x, y in points])
        face = colour if filled else "#ffffff" if ground else "none"
        self._axes.add_artist(PathPatch(outline, facecolor=face, edgecolor=colour, linewidth=wide, clip_on=False))

    def words(
        self,
        x: float,
        y: float,
        text: str,
        *,
        size: float = SIZE,
        bold: bool = False,
        colour: str = INK,
        end: bool = False,
    ) -> float:
        """Write text on a line at y, from x or (`end`) up to it; return how wide it is."""
        shown = drawable(text)
        long = width(shown, size, bold=bold)
        left = self._left + x - (long if end else 0.0)
        anchor, side = (left + long, "right") if end else (left, "left")
        if not shown:
            return 0.0
        if any(unicodedata.bidirectional(letter) in ("R", "AL", "AN") for letter in shown):
            shown = f"\u200e{shown}"  # the line itself runs from left to right
        base = self._top + y
        given: Any = {"ha": side, "size": size, "color": colour, "clip_on": False}
        self._axes.text(anchor, base, shown, fontproperties=_face(bold), **given)
        self.boxes.append(Box(left, base - 0.76 * size, left + long, base + 0.24 * size, text))
        return long


@functools.cache
def _face(bold: bool) -> FontProperties:
    from matplotlib.font_manager import FontProperties

    return FontProperties(fname=str(_font_file(bold)), weight=700 if bold else 400)


def _font_file(bold: bool) -> Path:
    import matplotlib as mpl

    return Path(mpl.get_data_path()) / "fonts" / "ttf" / _FACES[bold]


@functools.cache
def _font(bold: bool) -> Any:
    from matplotlib.ft2font import FT2Font

    font = FT2Font(str(_font_file(bold)))
    font.set_size(10.0, 72)
    return font


@functools.cache
def _letters() -> frozenset[int]:
    """The letters that both faces have."""
    return frozenset(_font(bold=False).get_charmap()) & frozenset(_font(bold=True).get_charmap())


def drawable(text: str) -> str:
    """Text as a picture can show it: in one line, and every letter one that the font has."""
    known = _letters()
    line = " ".join(_UNSEEN.sub("", text.encode(errors="replace").decode()).split())
    return "".join(letter if ord(letter) in known else f"[U+{ord(letter):04X}]" for letter in line)


def width(text: str, size: float, *, bold: bool = False) -> float:
    """How wide a line of text is."""
    return _width(drawable(text), bold) * size / 10.0


@functools.lru_cache(maxsize=65536)
def _width(text: str, bold: bool) -> float:
    from matplotlib.ft2font import LoadFlags

    if not text:
        return 0.0
    font = _font(bold)
    font.set_text(text, 0.0, flags=LoadFlags.NO_HINTING)
    return float(font.get_width_height()[0]) / 64.0


def cut(text: str, room: float, size: float = SIZE, *, bold: bool = False) -> str:
    """Shorten text to a width."""
    shown = drawable(text)
    if width(shown, size, bold=bold) <= room:
        return shown
    low, high = 0, len(shown)
    while low < high:  # the most letters that fit with the dots
        middle = (low + high + 1) // 2
        fits = width(f"{shown[:middle].rstrip()}…", size, bold=bold) <= room
        low, high = (middle, high) if fits else (low, middle - 1)
    return f"{shown[:low].rstrip()}…"


def wrap(text: str, room: float, size: float = SIZE, *, bold: bool = False) -> list[str]:
    """Break text into lines of a width, between words where that can be."""
    space = width("a b", size, bold=bold) - width("ab", size, bold=bold)
    lines: list[str] = []
    line, long = "", 0.0
    for word in drawable(text).split():
        each = width(word, size, bold=bold)  # word by word: the same ones come again and again
        if each > room:  # no line holds it: it begins on this one
            *full, line = _broken(f"{line} {word}" if line else word, room, size, bold=bold)
            lines += full
            long = width(line, size, bold=bold)
        elif line and long + space + each > room - _SLACK:
            lines.append(line)
            line, long = word, each
        else:
            line, long = (f"{line} {word}", long + space + each) if line else (word, each)
    return [*lines, line]


def _broken(text: str, room: float, size: float, *, bold: bool) -> list[str]:
    """Break text anywhere into lines of a width."""
    lines = []
    while width(text, size, bold=bold) > room and len(text) > 1:
        low, high = 1, len(text) - 1
        while low < high:
            middle = (low + high + 1) // 2
            fits = width(text[:middle], size, bold=bold) <= room
            low, high = (middle, high) if fits else (low, middle - 1)
        lines.append(text[:low])
        text = text[low:]
    return [*lines, text]
