"""A map of the fused space: particles as dots in the colours of their classes.

Places are found by UMAP of the out-of-fold fused vectors where umap-learn is installed and there are enough of them,
else by their first two principal directions. Of very many particles a sample is laid out, in which each class has its
share.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import numpy as np
from numpy.typing import NDArray

from elute.reports.html import Markup, join
from elute.reports.particles.document import COLOURS
from elute.reports.tissue.markup import el, named
from elute.reports.validation_svg import Drawing, cut, words

MOST = 6000  # particles of a map
_LEAST = 200  # from which on neighbours say more than two directions
_SIZE, _EDGE = 560.0, 70.0


@dataclass(frozen=True, eq=False)
class FusedMap:
    """Where the shown particles lie."""

    rows: NDArray[np.int64]  # of the evaluation
    places: NDArray[np.float64]  # [shown, 2]
    how: str


def lay_out(fused: NDArray[np.float32], codes: NDArray[np.int64], *, seed: int) -> FusedMap:
    """Lay out the fused vectors of a sample of particles."""
    rows = _sample(codes, seed=seed)
    x = np.asarray(fused[rows], dtype=np.float64)
    x -= x.mean(axis=0)
    if len(rows) >= _LEAST and find_spec("umap") is not None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of threads that a seed forbids, and of points that stand apart
            made = (
                import_module("umap")
                .UMAP(n_neighbors=15, random_state=seed, n_jobs=1)
                .fit_transform(x.astype(np.float32))
            )
        return FusedMap(rows, np.asarray(made, dtype=np.float64), "UMAP")
    _, _, turn = np.linalg.svd(x, full_matrices=False)
    turn = turn[:2] * np.where(np.abs(turn[:2]).max(axis=1) == turn[:2].max(axis=1), 1.0, -1.0)[:, None]
    places = np.zeros((len(rows), 2))
    places[:, : len(turn)] = x @ turn.T
    return FusedMap(rows, places, "the first two principal directions")


def _sample(codes: NDArray[np.int64], *, seed: int) -> NDArray[np.int64]:
    """Draw particles, each class its share and one at least."""
    n = len(codes)
    if n <= MOST:
        return np.arange(n)
    rng = np.random.default_rng([seed, n])
    kept = []
    for code in np.unique(codes).tolist():
        here = np.flatnonzero(codes == code)
        kept.append(rng.permutation(here)[: max(1, round(MOST * len(here) / n))])
    return np.sort(np.concatenate(kept))


def drawn(found: FusedMap, codes: NDArray[np.int64], classes: Sequence[str], *, of: int) -> Markup:
    """Draw the map, with a key and each class named where it lies."""
    low, high = np.quantile(found.places, [0.002, 0.998], axis=0)
    apart = np.maximum(high - low, 1e-12)
    wide, tall = _SIZE, float(np.clip(_SIZE * apart[1] / apart[0], 0.45 * _SIZE, 1.1 * _SIZE))
    scale = min((wide - _EDGE) / apart[0], (tall - _EDGE) / apart[1])
    at = (found.places - (low + high) / 2) * scale + np.array([wide, tall]) / 2
    at = np.clip(at, 4, [wide - 4, tall - 4])
    own = codes[found.rows]
    marks: list[Markup] = []
    for code in range(len(classes)):
        here = at[own == code]
        path = "".join(f"M{x:.0f} {tall - y:.0f}h0" for x, y in here.tolist())
        if path:
            colour = COLOURS[code % len(COLOURS)]
            square = {"stroke_linecap": "square"} if _square(code) else {"stroke_linecap": "round"}
            told = {"class_": f"dots d{code % len(COLOURS)}", "fill": "none", "stroke": colour, "stroke_width": "3.6"}
            marks.append(el("path", d=path, **told, **square))
    for code, label in enumerate(classes):
        here = at[own == code]
        if len(here):
            x, y = np.median(here, axis=0).tolist()
            marks.append(words(x, tall - y, cut(label, 150), text_anchor="middle", **{"class": "ink halo"}))
    title = f"Map of {len(found.rows):,} fused particles by {found.how}, coloured by class"
    shown = f"{len(found.rows):,} of {of:,} particles" if len(found.rows) < of else f"all {of:,} particles"
    caption = el(
        "figcaption",
        f"{found.how[0].upper()}{found.how[1:]} of out-of-fold fused vectors, {shown}. "
        "Distances between groups say little.",
    )
    figure = el("figure", Drawing("map", title, wide, tall, join(marks)).svg(), caption, class_="chart")
    return join([_key(classes), figure])


def _square(code: int) -> bool:
    return code // len(COLOURS) % 2 == 1


def _key(classes: Sequence[str]) -> Markup:
    entries: list[Any] = []
    for code, label in enumerate(classes):
        kind = f"c{code % len(COLOURS)}" + (" square" if _square(code) else "")
        entries.append(el("li", el("span", named(label, 40), class_=kind)))
    return el("ul", *entries, class_="key")
