"""Drawings of means with intervals, curves over doses, sorted numbers, and pictures of weights."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

import numpy as np

from elute.reports.html import Markup, join
from elute.reports.tissue.markup import el, picture
from elute.reports.validation_svg import Drawing, cut, digits, hint, line, mark, number, ticks, words

if TYPE_CHECKING:
    from numpy.typing import NDArray

Line = tuple[str, str, float, float, float]  # what it is, its kind of mark, mean, low, high
_WIDE, _LEFT, _RIGHT, _ROW = 640.0, 190.0, 20.0, 24.0


def whiskers(name: str, title: str, rows: Sequence[Line], *, unit: str, zero: float = 0.0) -> Markup:
    """Means with their intervals, one below the other, on one axis."""
    low = min([zero, *(row[3] for row in rows)])
    high = max([zero, *(row[4] for row in rows)])
    room = 0.05 * (high - low) or 1.0
    low, high = (low - room if low < zero else low), high + room
    height = 44 + _ROW * len(rows)

    def across(value: float) -> float:
        return _LEFT + (_WIDE - _LEFT - _RIGHT) * (value - low) / (high - low)

    marks: list[Markup] = []
    for tick in ticks(low, high, 6):
        marks.append(line("rule", (across(tick), 6), (across(tick), height - 34)))
        marks.append(words(across(tick), height - 20, number(tick), kind="dim", text_anchor="middle"))
    marks.append(words(_WIDE - _RIGHT, height - 4, unit, kind="dim", text_anchor="end"))
    marks.append(line("mark", (across(zero), 6), (across(zero), height - 34)))
    for i, (label, kind, mean, left, right) in enumerate(rows):
        y = 6 + _ROW * (i + 0.5)
        told = hint(f"{label}: {number(mean)} ({number(left)} to {number(right)})")
        marks.append(words(_LEFT - 10, y + 4, cut(label, _LEFT - 14), text_anchor="end"))
        marks.append(line("whisker", (across(left), y), (across(right), y)))
        marks.append(mark("circle", kind, told, cx=across(mean), cy=y, r=5))
    return el("figure", Drawing(name, title, _WIDE, height, join(marks)).svg(), class_="chart")


def curves(
    name: str, title: str, lines: Mapping[str, tuple[str, Sequence[float], Sequence[float]]], *, across: str, up: str
) -> Markup:
    """Curves over one axis: by label, the kind of mark, places and values."""
    xs = [x for _, places, _ in lines.values() for x in places]
    ys = [y for _, _, values in lines.values() for y in values]
    box = (min(xs), max(xs) if max(xs) > min(xs) else min(xs) + 1, min(0.0, *ys), max(1e-9, *ys))
    left, right, top, bottom = 56.0, 150.0, 22.0, 40.0
    wide, high = 620.0, 260.0

    def at(x: float, y: float) -> tuple[float, float]:
        return (
            left + (wide - left - right) * (x - box[0]) / (box[1] - box[0]),
            high - bottom - (high - bottom - top) * (y - box[2]) / (box[3] - box[2]),
        )

    marks: list[Markup] = []
    for tick in ticks(box[2], box[3], 5):
        marks.append(line("rule", at(box[0], tick), at(box[1], tick)))
        marks.append(words(left - 6, at(0, tick)[1] + 4, number(tick), kind="dim", text_anchor="end"))
    marks += [
        words(at(tick, 0)[0], high - bottom + 16, number(tick), kind="dim", text_anchor="middle")
        for tick in ticks(box[0], box[1], 6)
    ]
    ends: list[float] = []
    for label, (kind, places, values) in lines.items():
        points = [at(x, y) for x, y in zip(places, values, strict=True)]
        path = " ".join(f"{digits(x)},{digits(y)}" for x, y in points)
        marks.append(mark("polyline", "whisker", points=path))
        marks += [
            mark("circle", kind, hint(f"{label}: {number(y)} at {number(x)}"), cx=px, cy=py, r=3.5)
            for (px, py), x, y in zip(points, places, values, strict=True)
        ]
        place = points[-1][1] + 4
        while any(abs(place - other) < 13 for other in ends):
            place -= 13
        ends.append(place)
        marks.append(words(points[-1][0] + 8, place, cut(label, right - 10), kind="dim"))
    marks += [words(0, 12, up, kind="dim"), words(wide - right, high - 6, across, kind="dim", text_anchor="end")]
    return el("figure", Drawing(name, title, wide, high, join(marks)).svg(), class_="chart")


def sorted_bars(name: str, title: str, values: Mapping[str, NDArray[np.float64]], *, up: str) -> Markup:
    """Numbers of each dimension as dots, in the order of the first kind; by kind of mark: observed, doubt, null."""
    order = np.argsort(-next(iter(values.values())), kind="stable")
    wide, high, left, bottom, top = 620.0, 220.0, 48.0, 26.0, 22.0
    least = min(float(v.min()) for v in values.values())
    low = max(-1.0, 1.0 - 1.15 * max(1.0 - least, 0.01))  # below -1 a score says nothing more

    def place(i: int, y: float) -> tuple[float, float]:
        x = left + (wide - left - 8) * (i + 0.5) / len(order)
        return x, high - bottom - (high - bottom - top) * (min(max(y, low), 1.0) - low) / (1.0 - low)

    marks: list[Markup] = []
    for tick in ticks(low, 1.0, 5):
        marks.append(line("rule", (left, place(0, tick)[1]), (wide - 8, place(0, tick)[1])))
        marks.append(words(left - 6, place(0, tick)[1] + 4, number(tick), kind="dim", text_anchor="end"))
    for kind, given in values.items():
        for i, dimension in enumerate(order.tolist()):
            x, y = place(i, float(given[dimension]))
            marks.append(
                mark(
                    "circle", kind, hint(f"dimension {dimension}: {number(float(given[dimension]))}"), cx=x, cy=y, r=2.6
                )
            )
    marks += [
        words(0, 12, up, kind="dim"),
        words(wide - 8, high - 6, "dimensions of the target", kind="dim", text_anchor="end"),
    ]
    return el("figure", Drawing(name, title, wide, high, join(marks)).svg(), class_="chart")


def heat(name: str, title: str, values: NDArray[np.float64], *, down: Sequence[str], across: str) -> Markup:
    """A picture of a matrix about zero, a row a label: orange above, blue below, as strong as the largest."""
    from PIL import Image

    most = float(np.abs(values).max()) or 1.0
    share = np.clip(values / most, -1, 1)
    pixels = np.zeros((*values.shape, 4), np.uint8)
    pixels[..., :3] = np.where(share[..., None] > 0, (224, 121, 34), (47, 127, 196))
    pixels[..., 3] = np.round(255 * np.sqrt(np.abs(share)))
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, "PNG", optimize=True)
    row, left, top = 11.0, 62.0, 22.0
    wide, high = 640.0, top + row * len(down) + 22
    box = {"x": digits(left), "y": digits(top), "width": digits(wide - left), "height": digits(row * len(down))}
    marks = [
        el("image", href=picture("png", out.getvalue()), preserveAspectRatio="none", class_="squares", **box),
        words(0, 12, f"largest {number(most)}: orange above zero, blue below", kind="dim"),
        words(wide, high - 6, across, kind="dim", text_anchor="end"),
    ]  # fmt: skip
    marks += [
        words(left - 6, top + row * (i + 0.85), cut(label, left - 8, 10), kind="dim", text_anchor="end", font_size=10)
        for i, label in enumerate(down)
    ]
    return el("figure", Drawing(name, title, wide, high, join(marks)).svg(), class_="chart")
