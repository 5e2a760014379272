"""Drawings of scores with intervals, of how well probabilities are calibrated, and of what is taken for what."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from elute.reports.html import Markup, join
from elute.reports.particles.wording import three
from elute.reports.tissue.markup import el
from elute.reports.validation_svg import Drawing, cut, hint, line, mark, number, plain, ticks, words

Row = tuple[str, str, Mapping[str, Any]]  # what it is called, its kind of mark, estimate with low and high


@dataclass(frozen=True)
class _Shape:
    """Room of a drawing: on a desk names stand beside their marks, on a telephone above them."""

    kind: str
    wide: float
    left: float
    right: float
    row: float
    above: bool


_SHAPES = (_Shape("desk", 700, 270, 54, 23, above=False), _Shape("telephone", 360, 8, 44, 37, above=True))


def whiskers(name: str, title: str, rows: Sequence[Row], *, unit: str, ends: tuple[float, float]) -> Markup:
    """Numbers with their intervals, one below the other, on one axis; drawn once for a desk, once for a telephone."""
    return join(
        el(
            "figure",
            Drawing(f"{name}-{shape.kind}", title, shape.wide, 40 + shape.row * len(rows), marks).svg(),
            class_=f"chart {shape.kind}",
        )
        for shape in _SHAPES
        for marks in [_whiskers(shape, rows, unit=unit, ends=ends)]
    )


def _whiskers(shape: _Shape, rows: Sequence[Row], *, unit: str, ends: tuple[float, float]) -> Markup:
    low, high = ends
    height = 40 + shape.row * len(rows)

    def across(value: float) -> float:
        room = shape.wide - shape.left - shape.right
        return shape.left + room * (min(max(value, low), high) - low) / (high - low)

    marks: list[Markup] = []
    for tick in ticks(low, high, 4 if shape.above else 6):
        kind = "mark" if tick == 0 and low < 0 else "rule"
        marks.append(line(kind, (across(tick), 4), (across(tick), height - 34)))
        marks.append(words(across(tick), height - 20, number(tick), kind="dim", text_anchor="middle"))
    marks.append(words(shape.wide - shape.right, height - 4, unit, kind="dim", text_anchor="end"))
    for i, row in enumerate(rows):
        marks += _row(shape, row, middle=4 + shape.row * (i + 0.5), across=across, least=low)
    return join(marks)


def _row(shape: _Shape, row: Row, *, middle: float, across: Callable[[float], float], least: float) -> list[Markup]:
    """A name, its interval, its number."""
    label, kind, told = row
    y = middle + 9 if shape.above else middle
    if shape.above:
        marks = [words(shape.left, middle - 5, cut(label, 0.85 * shape.wide), **{"class": "ink halo light"})]
    else:
        marks = [words(shape.left - 10, y + 4, cut(label, 0.82 * shape.left), text_anchor="end")]
    if told["estimate"] is None:
        return [*marks, words(across(least) + 4, y + 4, "not told", kind="dim")]
    if told["low"] is not None:
        marks.append(line("whisker", (across(told["low"]), y), (across(told["high"]), y)))
    shown = hint(plain(f"{label}: {three(told['estimate'])}"))
    marks.append(mark("circle", kind, shown, cx=across(told["estimate"]), cy=y, r=5))
    marks.append(words(shape.wide - 2, y + 4, three(told["estimate"]), kind="dim", text_anchor="end"))
    return marks


def span(rows: Sequence[Row], *, zero: bool = False) -> tuple[float, float]:
    """The ends of an axis for these numbers: from 0 or below it, with a little room."""
    known = [told[key] for _, _, told in rows for key in ("estimate", "low", "high") if told[key] is not None]
    if not known:
        return 0.0, 1.0
    low, high = min(known), max(known)
    if zero:
        low, high = min(low, 0.0), max(high, 0.0)
    room = 0.06 * (high - low) or 0.05
    return (low - room if zero else max(0.0, low - room)), (high + room if zero else min(1.0, high + room))


def calibration(parts: Sequence[Mapping[str, Any]], title: str) -> Markup:
    """How often the most probable class was right, over how probable it was: on the line both are equal."""
    size, left, top, bottom = 340.0, 44.0, 26.0, 44.0
    across, up = size - left - 12, size - bottom - top

    def at(x: float, y: float) -> tuple[float, float]:
        return left + across * x, size - bottom - up * y

    marks: list[Markup] = []
    for tick in ticks(0, 1, 5):
        marks += [line("rule", at(tick, 0), at(tick, 1)), line("rule", at(0, tick), at(1, tick))]
        marks.append(words(at(tick, 0)[0], size - bottom + 16, number(tick), kind="dim", text_anchor="middle"))
        marks.append(words(left - 6, at(0, tick)[1] + 4, number(tick), kind="dim", text_anchor="end"))
    marks.append(line("mark", at(0, 0), at(1, 1)))
    most = max((part["n"] for part in parts), default=1)
    shown = [part for part in parts if part["n"]]
    points = " ".join(f"{x:.1f},{y:.1f}" for x, y in (at(p["confidence"], p["accuracy"]) for p in shown))
    marks.append(el("polyline", points=points, class_="curve", fill="none", stroke="#1f6fb2"))
    for part in shown:
        x, y = at(part["confidence"], part["accuracy"])
        told = hint(
            f"{part['n']:,} particles: probability {three(part['confidence'])}, right {three(part['accuracy'])}"
        )
        marks.append(mark("circle", "observed", told, cx=x, cy=y, r=3 + 5 * (part["n"] / most) ** 0.5))
    marks.append(words(0, 13, "↑ share that is right", kind="dim"))
    marks.append(words(size - 12, size - 6, "probability of the most probable class →", kind="dim", text_anchor="end"))
    caption = el("figcaption", "A dot is larger the more particles it holds; above the line the fusion is too timid.")
    return el(
        "figure", Drawing("calibration", title, size, size, join(marks)).svg(), caption, class_="chart square-chart"
    )


def confusion(counts: Sequence[Sequence[int]], classes: Sequence[str]) -> Markup:
    """Which class is taken for which: a row a true class, shaded by its share."""
    n = len(classes)
    cell = max(26.0, min(58.0, 420.0 / n))
    left, top = 180.0, 30.0
    wide, high = left + cell * n + 8, top + cell * n + 120
    marks: list[Markup] = [words(left, 14, "taken for →", kind="dim"), words(0, 14, "true class ↓", kind="dim")]
    for i, row in enumerate(counts):
        total = sum(row)
        y = top + cell * i
        marks.append(words(left - 8, y + cell / 2 + 4, cut(classes[i], left - 12), text_anchor="end"))
        for j, value in enumerate(row):
            x, share = left + cell * j, value / total if total else 0.0
            told = hint(plain(f"{classes[i]} taken for {classes[j]}: {value:,} of {total:,}"))
            marks.append(
                el("rect", told, class_="cell", x=f"{x:.1f}", y=f"{y:.1f}", width=f"{cell - 2:.1f}",
                   height=f"{cell - 2:.1f}", fill="#1f6fb2", fill_opacity=f"{0.04 + 0.8 * share:.2f}")
            )  # fmt: skip
            if cell >= 34:
                text = f"{100 * share:.0f}" if value else ""
                marks.append(
                    words(x + (cell - 2) / 2, y + cell / 2 + 4, text, text_anchor="middle", **{"class": "ink halo"})
                )
    for j, label in enumerate(classes):
        x, y = left + cell * (j + 0.5), top + cell * n + 8
        text = words(x, y, cut(label, 130), text_anchor="end", transform=f"rotate(-45 {x:.1f} {y:.1f})")
        marks.append(text)
    title = "Which class is taken for which; shares of each true class in percent"
    return el("figure", Drawing("confusion", title, wide, high, join(marks)).svg(), class_="chart")
