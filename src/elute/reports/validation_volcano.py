"""The volcano of a database: every pair of its table by odds and p, the larger of both (any genes, like genes).

1. q is made from the larger p, so that one line parts the pairs that pass from those that do not.
2. A pair that only a plain test would have called (any genes alone) has a colour of its own, below that line.
3. The first pairs of both kinds are drawn one by one, and lead to their features; all others are counted in small
   cells, darker where there are more. So a million pairs are a picture of some ten kilobytes, and none is left out.
4. Odds without bound stand at the right edge; where p goes beyond 1e-40 the scale is that of roots.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from elute.base.statistics.checks import Bools, Floats
from elute.reports.html import Markup, join, tag
from elute.reports.validation_svg import Drawing, chance, cut, hint, keys, line, mark, number, plain, ticks, words
from elute.reports.validation_tables import Source, level

POINTS = 150  # pairs that are drawn one by one
_KINDS = ("plain", "observed", "doubt")  # of marks, by level
_CELLS = (106, 78)  # cells across and up
_SHADES = ((1, "0.4"), (3, "0.6"), (10, "0.8"), (50, "1"))  # from how many pairs on, how dense
_ROOTED = 40
SMALLEST = 1e-300  # what is smaller than a double tells is taken for this


def volcano(source: Source, fdr: float) -> Drawing | None:
    """All pairs of a table by odds and p; nothing where it has no odds."""
    if source.rows is None or source.rows["odds"].drop_nulls().is_empty():
        return None
    rows = source.rows.filter(source.rows["odds"].is_not_null()).sort("p_larger", "feature", "term")
    with np.errstate(divide="ignore"):
        x = np.log2(rows["odds"].to_numpy())
    y = -np.log10(rows["p_larger"].clip(SMALLEST).to_numpy())
    levels = rows.select(level(fdr)).to_series().to_numpy()
    plane = _Plane(x, y)
    first = np.flatnonzero(levels)[:POINTS]
    rest = np.ones(len(x), np.bool_)
    rest[first] = False
    marks = [plane.axes(len(rows))]
    marks += [plane.cells(kind, (levels == i) & rest) for i, kind in enumerate(_KINDS)]
    columns = ("feature", "label", "odds", "p", "null_p", "q")
    for i, row in zip(first.tolist(), rows[first].select(columns).iter_rows(), strict=True):
        marks.append(_point(plane.at(float(x[i]), float(y[i])), _KINDS[levels[i]], row))
    marks += _threshold(plane, rows["p_larger"].to_numpy()[levels == 1], fdr)
    names = {"observed": f"q ≤ {fdr:g}", "doubt": "only by a plain test", "plain": "others"}
    marks.append(keys([("dot", kind, name) for kind, name in names.items()], plane.left - 8, 376))
    passing = f"{(levels == 1).sum():,} at q ≤ {fdr:g}, {(levels == 2).sum():,} only by a plain test"
    title = f"{source.snapshot}: odds against p of {len(rows):,} pairs of a feature and a term, {passing}"
    return Drawing(f"volcano-{source.name}", title, 480, 406, join(marks))


def _point(at: tuple[float, float], kind: str, row: tuple[Any, ...]) -> Markup:
    feature, label, odds, p, null_p, q = row
    told = f"feature {feature}: odds {number(odds)}, p {chance(p)}, among like genes {chance(null_p)}, q {chance(q)}"
    circle = mark("circle", kind, hint(f"{told}: {plain(label)}"), cx=at[0], cy=at[1], r=3)
    return tag("a", circle, href=f"#feature-{feature}", tabindex="-1")


def _threshold(plane: _Plane, passing: Floats, fdr: float) -> list[Markup]:
    """Where q draws the line: pairs on it and above pass, and none below."""
    p = float(passing.max()) if len(passing) else None
    told = keys(
        [("line", "mark", f"q ≤ {fdr:g}: " + ("none" if p is None else f"p ≤ {chance(p)}"))], plane.left - 8, 396
    )
    if p is None:
        return [told]
    y = plane.up(-math.log10(max(p, SMALLEST)))
    return [line("mark", (plane.left, y), (plane.right, y)), told]


class _Plane:
    """The axes, and where on them a pair stands."""

    left, right, top, bottom = 44.0, 470.0, 10.0, 322.0

    def __init__(self, x: Floats, y: Floats) -> None:
        finite = x[np.isfinite(x)]
        low, high = min(float(finite.min(initial=0.0)), -1.0), max(float(finite.max(initial=0.0)), 1.0)
        self.infinite, wide = bool(np.isposinf(x).any()), high - low
        self.low, self.high = low - 0.03 * wide, high + 0.03 * wide
        self.far = high + (0.12 if self.infinite else 0.03) * wide  # the right edge
        self.without = high + 0.08 * wide  # where odds without bound stand
        self.most = max(float(y.max(initial=0.0)), 2.0) * 1.05
        self.root = self.most > _ROOTED  # few far ones must not press all others to the ground
        self._x = self.across(np.where(np.isposinf(x), self.without, np.clip(x, self.low, self.high)))
        self._y = self.up_all(y)

    def across(self, x: Any) -> Any:
        """Where odds stand, from their binary logarithm."""
        return self.left + (x - self.low) / (self.far - self.low) * (self.right - self.left)

    def up_all(self, y: Any) -> Any:
        """Where p-values stand, from their logarithm."""
        share = np.maximum(y, 0) / self.most
        return self.bottom - np.minimum(np.sqrt(share) if self.root else share, 1.0) * (self.bottom - self.top)

    def up(self, y: float) -> float:
        """Where one p-value stands."""
        return float(self.up_all(np.array(y)))

    def at(self, x: float, y: float) -> tuple[float, float]:
        """Where a pair stands."""
        return float(self.across(self.without if math.isinf(x) else x)), self.up(y)

    def axes(self, pairs: int) -> Markup:
        """Axes, their numbers and their names."""
        parts: list[Markup] = []
        step = max(1, math.ceil((self.high - self.low) / 8))
        for x in range(math.ceil(self.low / step) * step, math.floor(self.high) + 1, step):
            parts.append(line("rule", (self.across(x), self.top), (self.across(x), self.bottom)))
            parts.append(_label(self.across(x), self.bottom + 15, number(2.0**x, 2)))
        if self.infinite:
            parts.append(_label(self.at(math.inf, 0)[0], self.bottom + 15, "∞"))
        rooted = [t for t in (1, 3, 10, 30, 100, 200, 300) if t <= self.most]
        for y in rooted if self.root else ticks(0, self.most, 6):
            parts.append(line("rule", (self.left, self.up(y)), (self.right, self.up(y))))
            parts.append(words(self.left - 6, self.up(y) + 4, number(y), kind="dim", font_size=12, text_anchor="end"))
        middle = (self.left + self.right) / 2
        parts.append(_label(middle, self.bottom + 33, f"odds, doubling; {pairs:,} pairs with an overlap"))
        scale = "−log₁₀ of the larger p: any genes, like genes" + (" (scale of roots)" if self.root else "")
        y = (self.top + self.bottom) / 2
        parts.append(_label(11, y, scale, transform=f"rotate(-90 11 {y:g})"))
        return join(parts)

    def cells(self, kind: str, which: Bools) -> Markup:
        """Count pairs in small cells: a path a shade."""
        if not which.any():
            return Markup("")
        across, up = _CELLS
        width, height = (self.right - self.left) / across, (self.bottom - self.top) / up
        i = np.clip(((self._x[which] - self.left) / width).astype(np.int64), 0, across - 1)
        j = np.clip(((self._y[which] - self.top) / height).astype(np.int64), 0, up - 1)
        found, counts = np.unique(j * across + i, return_counts=True)
        paths = []
        bounds = [least for least, _ in _SHADES] + [np.iinfo(np.int64).max]
        for (least, dense), below in zip(_SHADES, bounds[1:], strict=True):
            here = found[(counts >= least) & (counts < below)].tolist()
            if here:
                moves = (f"M{self.left + c % across * width:.1f} {self.top + c // across * height:.1f}" for c in here)
                box = f"h{width:.1f}v{height:.1f}h-{width:.1f}z"
                paths.append(mark("path", kind, d="".join(f"{move}{box}" for move in moves), fill_opacity=dense))
        return join(paths)


def _label(x: float, y: float, text: str, **attributes: object) -> Markup:
    return words(x, y, cut(text, 400, 12), kind="dim", font_size=12, text_anchor="middle", **attributes)
