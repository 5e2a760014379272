"""Values of samples at their places in a section, packed for the page's program to draw, and told in a table beside it.

Places are 16-bit steps along a section's longer side, values 16-bit steps between the least and the largest: a sample
takes 8 bytes, whatever its numbers. The last step is "not known".
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from elute.reports.html import Markup, join
from elute.reports.tissue.markup import bare, data, el, note

if TYPE_CHECKING:
    from numpy.typing import NDArray

_STEPS, _NONE = 65_534, 65_535
_ID = 60  # characters of a sample's id


@dataclass(frozen=True)
class Panel:
    """One map of each section: what it is called, and the scale of its colours."""

    name: str
    column: str  # of values, or the first and the second of a difference
    scale: str
    minus: str = ""


@dataclass(frozen=True)
class Scale:
    """Colours from low to high: a ramp, or two colours about zero."""

    low: float
    high: float
    kind: str  # ramp, about zero
    unit: str


def scale_of(values: NDArray[np.float64], unit: str) -> Scale:
    """The 1st to the 99th percentile, so that a single value does not take the colours from all others."""
    known = values[np.isfinite(values)]
    low, high = (float(np.quantile(known, q)) for q in (0.01, 0.99)) if known.size else (0.0, 1.0)
    return Scale(low, high if high > low else low + 1.0, "ramp", unit)


def about_zero(values: NDArray[np.float64], unit: str) -> Scale:
    """As far below zero as above: 99 in 100 lie within."""
    known = np.abs(values[np.isfinite(values)])
    most = float(np.quantile(known, 0.99)) if known.size else 1.0
    return Scale(-(most or 1.0), most or 1.0, "about zero", unit)


@dataclass(frozen=True, eq=False)
class Sections:
    """The samples whose place in a section is known, in the order in which every page has them."""

    frame: pl.DataFrame  # by section and sample
    told: list[dict[str, Any]]  # of each section: what it is called, its extent, how large a mark may be
    starts: list[int]
    places: NDArray[np.uint16]  # [n, 2]
    ids: list[str]

    @staticmethod
    def of(samples: pl.DataFrame) -> Sections:
        """Lay the samples of all sections out."""
        known = pl.col("x").is_finite() & pl.col("y").is_finite() & pl.col("section").is_not_null()
        frame = samples.filter(known).sort("section", "sample_id")
        parts = [part for _, part in frame.group_by("section", maintain_order=True)]
        places = [_places(part) for part in parts]
        return Sections(
            frame,
            [_section(part) for part in parts],
            np.cumsum([0, *(len(part) for part in parts)]).tolist(),
            np.concatenate(places) if places else np.empty((0, 2), np.uint16),
            [bare(name, _ID) for name in frame["sample_id"]],
        )

    def __len__(self) -> int:
        return len(self.frame)

    def values(self, table: pl.DataFrame, *columns: str) -> dict[str, NDArray[np.float64]]:
        """Bring columns of a table with `sample_id` into this order; NaN where it has no row."""
        some = table.select("sample_id", *(pl.col(name).cast(pl.Float64) for name in columns))
        both = self.frame.select("sample_id").join(some, on="sample_id", how="left", maintain_order="left")
        return {name: both[name].fill_null(float("nan")).to_numpy() for name in columns}

    def bytes_of(self, panels: int, most: int) -> int:
        """About what the maps of these samples take on a page."""
        n = min(len(self), most)
        return int(n * (8 / 3 * (2 + panels) + 3)) + sum(len(name.encode()) for name in self.ids[:n])

    def draw(
        self,
        values: Mapping[str, NDArray[np.float64]],
        panels: Sequence[Panel],
        scales: Mapping[str, Scale],
        *,
        most: int,
    ) -> tuple[Markup, list[str]]:
        """Draw maps of values; return them, and the sections for which there was no room."""
        kept: list[int] = []
        left: list[str] = []
        total = 0
        for i, (start, end) in enumerate(pairwise(self.starts)):
            if not any(np.isfinite(column[start:end]).any() for column in values.values()):
                continue
            total += end - start
            if total <= most or not kept:
                kept.append(i)
            else:
                left.append(self.told[i]["name"])
        if not kept:
            return Markup(""), []
        rows = np.concatenate([np.arange(self.starts[i], self.starts[i + 1]) for i in kept])
        told = {
            "sections": [self.told[i] for i in kept],
            "places": _packed(self.places[rows]),
            "ids": [self.ids[i] for i in rows.tolist()],
            "values": {name: _values(column[rows]) for name, column in values.items()},
            "panels": [{"name": p.name, "column": p.column, "minus": p.minus, "scale": p.scale} for p in panels],
            "scales": {name: _written(scale) for name, scale in scales.items()},
        }
        legend = el("div", id="map-legend", class_="legend")
        figures = el("div", id="maps", class_="maps")
        said = "Maps are drawn with JavaScript, which is switched off here; the table has their numbers."
        return join([legend, figures, el("noscript", note(said)), data("map-data", told)]), left


def _written(scale: Scale) -> dict[str, Any]:
    return {"low": scale.low, "high": scale.high, "kind": scale.kind, "unit": scale.unit}


def _section(part: pl.DataFrame) -> dict[str, Any]:
    """What is told of a section: its extent in pixels, and how large a mark may be."""
    first = part.row(0, named=True)
    spacing, size, scale = _spacing(part), first["size_px"], first["microns_per_pixel"]
    x, y = (part[name].to_numpy() for name in ("x", "y"))
    # Tiles that touch are drawn as the squares that they are, spots with gaps between them as discs that nearly touch.
    touching = bool(size and spacing <= 1.15 * size)
    return {
        "name": bare(first["section"], 80),
        "group": bare(first["group"], 80) if first["group"] is not None else None,
        "n": len(part),
        "width": float(np.ptp(x)),
        "height": float(np.ptp(y)),
        "mark": float(size if touching else 0.92 * spacing),
        "square": touching,
        "microns": scale if scale is not None and 0 < scale < np.inf else None,
    }


def _spacing(part: pl.DataFrame) -> float:
    """How far the nearest sample is, in the middle."""
    from scipy.spatial import cKDTree

    points = part.select("x", "y").to_numpy()
    found: Any = cKDTree(points).query(points, k=2)[0]  # with infinity where there is no other
    apart = found[:, 1]
    apart = apart[np.isfinite(apart) & (apart > 0)]
    extent = float(max(np.ptp(points[:, 0]), np.ptp(points[:, 1]), 1.0))
    return float(np.median(apart)) if apart.size else extent


def _places(part: pl.DataFrame) -> NDArray[np.uint16]:
    points = part.select("x", "y").to_numpy()
    points = points - points.min(axis=0)
    return np.asarray(np.round(points / max(float(points.max()), 1e-9) * 65_535), np.uint16)


def _values(values: NDArray[np.float64]) -> dict[str, Any]:
    """Steps between the least and the largest value: what is drawn ends with its scale, what is told does not."""
    there = np.isfinite(values)
    low, high = (float(values[there].min()), float(values[there].max())) if there.any() else (0.0, 1.0)
    share = (np.where(there, values, low) - low) / ((high - low) or 1.0)
    steps = np.where(there, np.round(share * _STEPS), _NONE)
    return {"low": low, "high": high, "steps": _packed(steps)}


def _packed(values: NDArray[Any]) -> str:
    return base64.b64encode(np.ascontiguousarray(values).astype("<u2").tobytes()).decode()
