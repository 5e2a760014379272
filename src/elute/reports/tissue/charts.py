"""Drawings of scores and coefficients: each number with its interval, and beside it what it is held against."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from elute.reports.html import Markup, join
from elute.reports.tissue.markup import bare, el, picture
from elute.reports.tissue.reading import SPARSE
from elute.reports.tissue.verdicts import Score
from elute.reports.validation_svg import Drawing, hint, line, mark, number, ticks, words

if TYPE_CHECKING:
    from numpy.typing import NDArray

_KIND = {SPARSE: "observed", "dense_pca_ridge": "doubt"}  # all others are controls
_WIDE, _CELLS = 190.0, 44
_DENSITY = (47, 127, 196)  # seen on light ground and on dark


def span(values: Iterable[float | None]) -> tuple[float, float]:
    """The ends of an axis of R² for these numbers: with 0, and not below −1, where a score says nothing more."""
    known = [value for value in values if value is not None]
    low, high = max(-1.0, min([0.0, *known])), max([0.05, *known])
    room = 0.04 * (high - low)
    return (low - room if low < 0 else -room), high + room


def axis(ends: tuple[float, float]) -> Markup:
    """What stands above a column of `interval`: its ticks."""
    marks = [el("text", "R² on held-out patients", x="0", y="11")]
    for tick in ticks(*ends, 5):
        x = _at(tick, ends)
        marks.append(el("path", d=f"M{x} 27V32", class_="tick-mark"))
        marks.append(el("text", number(tick, 2), x=x, y="24", text_anchor="middle"))
    return el("svg", *marks, viewBox=f"0 0 {_WIDE:g} 32", class_="axis", aria_hidden="true")


def interval(score: Score, ends: tuple[float, float]) -> Markup:
    """A model's R² with its interval, on the axis of its table."""
    marks = [el("path", d=f"M{_at(0, ends)} 0V26", class_="zero")]
    kind = _KIND.get(score.model, "null")
    if score.low is not None and score.high is not None:
        marks.append(el("path", d=f"M{_at(score.low, ends)} 13H{_at(score.high, ends)}", class_=f"reach {kind}-line"))
    if score.r2 is not None:
        marks.append(el("circle", cx=_at(score.r2, ends), cy="13", r="4.5", class_=kind))
    return el("svg", *marks, viewBox=f"0 0 {_WIDE:g} 26", class_="interval", aria_hidden="true")


def _at(value: float, ends: tuple[float, float]) -> str:
    low, high = ends
    return f"{6 + (_WIDE - 12) * (min(max(value, low), high) - low) / (high - low):.1f}"


def density(measured: NDArray[np.float64], predicted: NDArray[np.float64], unit: str) -> Markup | None:
    """How many samples have a measured value over a predicted one, as a picture; on the line both are equal."""
    import io

    from PIL import Image

    there = np.isfinite(measured) & np.isfinite(predicted)
    if there.sum() < 3:
        return None
    both = np.concatenate([measured[there], predicted[there]])
    low, high = float(both.min()), float(both.max())
    room = 0.03 * (high - low) or 0.5
    low, high = low - room, high + room
    counts, _, _ = np.histogram2d(measured[there], predicted[there], bins=_CELLS, range=[[low, high], [low, high]])
    share = np.where(counts > 0, 0.15 + 0.85 * np.sqrt(counts / counts.max()), 0.0)
    pixels = np.zeros((_CELLS, _CELLS, 4), np.uint8)
    pixels[..., :3] = _DENSITY
    pixels[..., 3] = np.round(255 * share)[::-1]
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", optimize=True)
    size, left, top, bottom = 330.0, 40.0, 26.0, 42.0
    across, up = size - left - 10, size - bottom - top
    marks: list[Markup] = []
    for tick in ticks(low, high, 5):
        x, y = left + across * (tick - low) / (high - low), size - bottom - up * (tick - low) / (high - low)
        marks += [line("rule", (x, top), (x, size - bottom)), line("rule", (left, y), (size - 10, y))]
        marks.append(words(x, size - bottom + 16, number(tick, 2), kind="dim", text_anchor="middle"))
        marks.append(words(left - 6, y + 4, number(tick, 2), kind="dim", text_anchor="end"))
    place = {"x": f"{left:g}", "y": f"{top:g}", "width": f"{across:g}", "height": f"{up:g}"}
    image = el("image", href=picture("png", out.getvalue()), preserveAspectRatio="none", class_="squares", **place)
    marks += [image, line("mark", (left, size - bottom), (size - 10, top))]
    marks.append(words(0, 13, "↑ measured", kind="dim"))
    marks.append(words(size - 10, size - 7, "predicted →", kind="dim", text_anchor="end"))
    title = f"Measured over predicted values of {number(int(there.sum()))} samples, {unit}"
    caption = el("figcaption", f"{unit[0].upper()}{unit[1:]}; a square is darker the more samples it holds.")
    return el("figure", Drawing("density", title, size, size, join(marks)).svg(), caption, class_="chart square")


def strip(scores: dict[str, Score], ends: tuple[float, float]) -> Markup:
    """All of a gene's R² in one line: dots of the models over the interval of the sparse head."""
    low, high = ends
    width = 116.0

    def at(value: float) -> str:
        return f"{4 + (width - 8) * (min(max(value, low), high) - low) / (high - low):.1f}"

    marks = [el("path", d=f"M{at(0)} 2V20", class_="zero")]
    mine = scores.get(SPARSE)
    if mine and mine.low is not None and mine.high is not None:
        marks.append(el("path", d=f"M{at(mine.low)} 11H{at(mine.high)}", class_="reach"))
    for name, score in scores.items():
        if score.r2 is None or name == SPARSE:
            continue
        x = at(score.r2)
        if name == "dense_pca_ridge":
            marks.append(el("circle", cx=x, cy="11", r="3.5", class_="dense"))
        else:
            marks.append(el("path", d=f"M{x} 6V16", class_="held"))
    if mine and mine.r2 is not None:
        marks.append(el("circle", cx=at(mine.r2), cy="11", r="3.5", class_="mine"))
    return el("svg", *marks, viewBox=f"0 0 {width:g} 22", class_="scores", aria_hidden="true")


def whisker(value: float, low: float | None, high: float | None, *, most: float) -> Markup:
    """A coefficient with its interval about zero, as wide as every other of its table."""

    def at(number_: float) -> str:
        return f"{60 + 56 * min(max(number_ / most, -1), 1):.1f}" if most else "60"

    marks = [el("path", d="M60 1V17", class_="zero")]
    if low is not None and high is not None and math.isfinite(low) and math.isfinite(high):
        marks.append(el("path", d=f"M{at(low)} 9H{at(high)}", class_="reach"))
    marks.append(el("circle", cx=at(value), cy="9", r="3.5", class_="mine" if value > 0 else "lower"))
    return el("svg", *marks, viewBox="0 0 120 18", class_="whisker", aria_hidden="true")


Point = tuple[str, str, float, float]  # the gene's name and page, and both numbers


def against(points: Sequence[Point], *, name: str, other: str, kind: str) -> Markup | None:
    """The sparse head's R² of every gene over another model's: above the line is better."""
    if not points:
        return None
    size, left, top, bottom = 330.0, 40.0, 26.0, 42.0
    low, high = span(value for _, _, x, y in points for value in (x, y))

    def across(value: float) -> float:
        return left + (size - left - 10) * (min(max(value, low), high) - low) / (high - low)

    def up(value: float) -> float:
        return size - bottom - (size - bottom - top) * (min(max(value, low), high) - low) / (high - low)

    marks: list[Markup] = []
    for tick in ticks(low, high, 5):
        marks += [line("rule", (across(tick), top), (across(tick), size - bottom))]
        marks += [line("rule", (left, up(tick)), (size - 10, up(tick)))]
        marks.append(words(across(tick), size - bottom + 16, number(tick, 2), kind="dim", text_anchor="middle"))
        marks.append(words(left - 6, up(tick) + 4, number(tick, 2), kind="dim", text_anchor="end"))
    marks.append(line("mark", (across(low), up(low)), (across(high), up(high))))
    for gene, page, x, y in points:
        told = hint(f"{bare(gene, 40)}: {number(y, 2)} over {number(x, 2)}")
        dot = mark("circle", kind, told, cx=across(x), cy=up(y), r=4, fill_opacity=0.75)
        marks.append(el("a", dot, href=page, aria_label=bare(gene, 40), tabindex="-1"))
    marks.append(words(size - 10, size - 7, f"R² of {other} →", kind="dim", text_anchor="end"))
    marks.append(words(0, 13, "↑ R² of sparse codes", kind="dim"))
    better = sum(y > x for _, _, x, y in points)
    title = f"R² of sparse codes over {other}, a dot a gene: {better} of {len(points)} lie above the line"
    caption = el("figcaption", f"{better} of {len(points)} genes above the line of equal scores.")
    return el("figure", Drawing(name, title, size, size, join(marks)).svg(), caption, class_="chart square")


def key() -> Markup:
    """What the marks of the strips are."""
    dot = {"cx": "15", "cy": "8", "r": "3.5"}
    drawn = {
        "sparse codes": [el("path", d="M2 8H28", class_="reach"), el("circle", **dot, class_="mine")],
        "dense embedding": [el("circle", **dot, class_="dense")],
        "other baselines": [el("path", d="M11 3V13M19 3V13", class_="held")],
        "zero": [el("path", d="M15 0V16", class_="zero")],
    }
    parts = [
        el("span", el("svg", *marks, viewBox="0 0 30 16", class_="key-mark", aria_hidden="true"), told)
        for told, marks in drawn.items()
    ]
    return el("p", *parts, class_="key-line")
