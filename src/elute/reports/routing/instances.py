"""An instance drawn: its nodes, the tour through them, and how strongly a feature fires at each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np

from elute.reports.html import Markup, join
from elute.reports.validation_svg import Drawing, cut, digits, hint, mark, number, words

if TYPE_CHECKING:
    from numpy.typing import NDArray

_SIDE, _EDGE = 200.0, 12.0


def drawing(name: str, told: Mapping[str, Any], *, most: float, what: str) -> Drawing:
    """Draw one instance; `told` holds coords, tour, values and id, and `most` is the value of the largest circle."""
    places = scaled(told["coords"])
    tour = told["tour"].tolist()
    ring = " ".join(f"{digits(float(x))},{digits(float(y))}" for x, y in places[[*tour, tour[0]]])
    marks: list[Markup] = [mark("polyline", "rule", points=ring, stroke_width=1.2)]
    for i, (x, y) in enumerate(places.tolist()):
        value = float(told["values"][i])
        marks.append(mark("circle", "control", cx=x, cy=y, r=2.2))
        if value > 0:
            share = min(1.0, value / most) if most > 0 else 0.0
            note = hint(f"node {i}: {number(value)}")
            marks.append(
                mark("circle", "observed", note, cx=x, cy=y, r=2.5 + 7 * share**0.5, fill_opacity=0.35 + 0.55 * share)
            )
    x, y = places[tour[0]].tolist()
    marks.append(
        mark(
            "rect", "mark", hint("the tour begins here"), x=x - 6, y=y - 6, width=12, height=12, stroke_dasharray="none"
        )
    )
    marks.append(words(2, _SIDE + 2 * _EDGE - 2, cut(told["id"], _SIDE + _EDGE, 11), kind="dim", font_size=11))
    title = f"{what} on {told['id']}: {int((told['values'] > 0).sum())} of {len(places)} nodes"
    return Drawing(name, title, _SIDE + 2 * _EDGE, _SIDE + 2 * _EDGE + 2, join(marks))


def scaled(coords: NDArray[np.float64]) -> NDArray[np.float64]:
    """Bring nodes into the picture, the unit square if they lie in it, y upwards."""
    low = np.minimum(coords.min(0), 0.0)
    size = max(float((np.maximum(coords.max(0), 1.0) - low).max()), 1e-9)
    share = (coords - low) / size
    places = np.stack([_EDGE + share[:, 0] * (_SIDE - 2), _EDGE + (1 - share[:, 1]) * (_SIDE - 14)], 1)
    rounded: NDArray[np.float64] = np.round(places, 2)
    return rounded
