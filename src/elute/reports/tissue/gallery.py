"""Strips of reference tiles: each with its map laid over, the strongest patch outlined, and a scale bar where known."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from elute.reports.html import Markup, join
from elute.reports.tissue import token_maps, wording
from elute.reports.tissue.markup import bare, el, named, picture
from elute.reports.tissue.pictures import Album, Key
from elute.reports.tissue.pixel_maps import Drawn, PixelMaps
from elute.reports.tissue.reading import Findings
from elute.reports.tissue.section_maps import Sections
from elute.reports.validation_svg import number

_LABEL = 28
Part = tuple[float, float, float, float]  # left, top, right, bottom in shares of a side


@dataclass(frozen=True, eq=False)
class Gallery:
    """What strips are made from."""

    found: Findings
    album: Album
    sections: Sections
    tiles: dict[Key, dict[str, Any]]
    shares: dict[str, float]  # of all tiles, by label
    pixels: PixelMaps

    @staticmethod
    def of(found: Findings, album: Album, sections: Sections, *, pixels: PixelMaps | None = None) -> Gallery:
        """Look up what is known of every tile that is referred to."""
        keys = found.refs.select("sample_id", pl.col("tile_id").fill_null("")).unique()
        tiles = found.tiles.with_columns(pl.col("tile_id").fill_null(""))
        rows = tiles.join(keys, on=["sample_id", "tile_id"], how="semi").iter_rows(named=True)
        labels = Counter(found.tiles["label"].drop_nulls().to_list())
        total = sum(labels.values())
        return Gallery(
            found,
            album,
            sections,
            {(row["sample_id"], row["tile_id"]): row for row in rows},
            {label: n / total for label, n in labels.most_common()},
            pixels or PixelMaps(),
        )

    def strip(self, refs: pl.DataFrame, *, gene: str, label: str) -> Markup:
        """The first tiles of a list of references, with the maps of a gene's relevance."""
        rows = list(refs.sort("rank").head(max(1, self.album.per_code)).iter_rows(named=True))
        maps = [self._map(gene, row) for row in rows]
        most = max((float(np.abs(one).max()) for one in maps if one is not None and one.size), default=0.0)
        figures: list[Markup] = []
        for row, one in zip(rows, maps, strict=True):
            figures.append(self._figure(row, one, most))
            key = (row["sample_id"], row["tile_id"] or "")
            address, drawn = self.album.address(key), self.pixels.of(gene, row["code"], key)
            if address and drawn is not None:
                figures.append(self._pixels(row, address, drawn))
        return el("div", *figures, class_="strip", role="group", aria_label=label)

    def _map(self, gene: str, row: dict[str, Any]) -> Any:
        return self.found.maps.map(gene, row["code"], (row["sample_id"], row["tile_id"] or ""))

    def _figure(self, row: dict[str, Any], values: Any, most: float) -> Markup:
        key = (row["sample_id"], row["tile_id"] or "")
        tile = self.tiles.get(key, {})
        address = self.album.address(key)
        told = f"Tile {bare(key[1] or key[0])} of {bare(key[0])}" + (
            f", {bare(tile['label'])}" if tile.get("label") else ""
        )
        layers: list[Markup] = []
        if address:
            layers.append(el("img", src=address, alt=told, class_="tile", loading="lazy"))
        else:
            layers.append(el("span", "no picture", class_="absent"))
        shape = values.shape if values is not None else self.found.grid
        seen = self.found.seen
        if values is not None and address:
            layers.append(_over(picture("png", token_maps.paint(values, most)), seen))
        layers.append(_marks(row, shape, seen, _side_um(tile)))
        frame = el("span", *layers, class_="frame")
        return el("figure", frame, self._caption(row, tile, values), class_="shot")

    def _pixels(self, row: dict[str, Any], address: str, drawn: Drawn) -> Markup:
        """The same tile once more, with relevance followed down to its pixels."""
        sample, tile = row["sample_id"], row["tile_id"] or ""
        told = f"Tile {bare(tile or sample)} of {bare(sample)}, relevance of its pixels"
        image = el("img", src=address, alt=told, class_="tile", loading="lazy")
        frame = el("span", image, _over(drawn.address, self.found.seen), class_="frame")
        short = el("span", "pixels ", el("span", f"{wording.share(drawn.pixels)} of it", class_="dim"), class_="short")
        facts: list[tuple[str, object]] = [
            ("sample", named(sample, 40)),
            ("tile", named(tile or "–", 40)),
            ("relevance", wording.amount(row["relevance"])),
            ("of it in the pixels", wording.share(drawn.pixels)),
            ("what does not add up", wording.share(drawn.gap)),
            ("followed down by", wording.METHODS.get(drawn.method, named(drawn.method, 40))),
        ]
        more = el("dl", *(el("div", el("dt", name), el("dd", value)) for name, value in facts), class_="more")
        return el("figure", frame, el("figcaption", short, more), class_="shot pixels")

    def _caption(self, row: dict[str, Any], tile: dict[str, Any], values: Any) -> Markup:
        short = el("span", el("b", wording.amount(row["relevance"])), " ", _label(tile), class_="short")
        facts: list[tuple[str, object]] = [
            ("sample", named(row["sample_id"], 40)),
            ("tile", named(row["tile_id"] or "–", 40)),
            ("patient or site", named(tile["group"], 40) if tile.get("group") else "not known"),
            ("section", named(tile["section"], 40) if tile.get("section") else "not known"),
            ("tissue", named(tile["label"], 40) if tile.get("label") else "not labelled"),
            ("relevance", wording.amount(row["relevance"])),
            ("activation", wording.amount(row["activation"])),
        ]
        if side := _side_um(tile):
            facts.append(("side of the tile", f"{number(side)} µm"))
        if values is not None and values.size:
            facts.append(("half of the strongest or more", _extent(values, _side_um(tile), self.found.seen)))
        more = el("dl", *(el("div", el("dt", name), el("dd", value)) for name, value in facts), class_="more")
        return el("figcaption", short, more)

    def tissue(self, refs: pl.DataFrame, *, most: int) -> Markup:
        """What the references are of, beside how often that is among all tiles; and of how many patients."""
        kept = refs.sort("rank").head(max(1, most))
        seen = [self.tiles.get((row["sample_id"], row["tile_id"] or ""), {}) for row in kept.iter_rows(named=True)]
        parts: list[object] = []
        labels = Counter(tile["label"] for tile in seen if tile.get("label"))
        for label, n in labels.most_common(3):
            by_chance = self.shares.get(label, 0.0)
            words = el("span", f"{n} of {len(seen)} ", el("span", f"({by_chance:.0%} of all tiles)", class_="dim"))
            parts.append(el("span", named(label, _LABEL), " ", words, class_="chip"))
        groups = {tile["group"] for tile in seen if tile.get("group")}
        everyone = self.found.samples["group"].n_unique()
        if groups:
            one = len(groups) == 1 and everyone > 1 and len(seen) > 1
            told = f"of {len(groups)} of {everyone} patients or sites"
            parts.append(el("span", told + (": one alone" if one else ""), class_="chip flag" if one else "chip"))
        return el("p", *(join([part]) for part in parts), class_="chips") if parts else Markup("")


def _label(tile: dict[str, Any]) -> Markup:
    return el("span", named(tile["label"], _LABEL), class_="dim") if tile.get("label") else Markup("")


def _side_um(tile: dict[str, Any]) -> float | None:
    size, scale = tile.get("size_px"), tile.get("microns_per_pixel")
    return size * scale if size and scale and size > 0 and scale > 0 else None


def _extent(values: Any, side: float | None, seen: Part) -> str:
    """How much of the tile the code is about: patches, and their area where sizes are known."""
    patches = token_maps.half_of_strongest(values)
    told = f"{patches} of {values.size} patches"
    if side is None:
        return told
    area = patches * side**2 * (seen[2] - seen[0]) * (seen[3] - seen[1]) / values.size
    return f"{told}, about {number(float(f'{area:.2g}'))} µm²"


def _over(painted: str, seen: Part) -> Markup:
    """A map over the part of the tile that the encoder saw."""
    left, top, right, bottom = (100 * x for x in seen)
    box = {"x": f"{left:g}", "y": f"{top:g}", "width": f"{right - left:g}", "height": f"{bottom - top:g}"}
    image = el("image", href=painted, preserveAspectRatio="none", **box)
    return el("svg", image, viewBox="0 0 100 100", class_="over", aria_hidden="true")


def _marks(row: dict[str, Any], shape: tuple[int, int] | None, seen: Part, side: float | None) -> Markup:
    """The strongest patch, and a scale bar, over a tile of 100 × 100."""
    marks: list[Markup] = []
    if shape is not None and row["row"] is not None and row["col"] is not None:
        rows, cols = shape
        if 0 <= row["row"] < rows and 0 <= row["col"] < cols:
            wide, tall = 100 * (seen[2] - seen[0]) / cols, 100 * (seen[3] - seen[1]) / rows
            place = {"x": f"{100 * seen[0] + wide * row['col']:.2f}", "y": f"{100 * seen[1] + tall * row['row']:.2f}"}
            marks.append(el("rect", **place, width=f"{wide:.2f}", height=f"{tall:.2f}", class_="peak"))
    if side is not None:
        length = scale_length(side)
        end = f"{4 + 100 * length / side:.2f}"
        marks.append(el("path", d=f"M4 95H{end}", class_="bar-under"))
        marks.append(el("path", d=f"M4 95H{end}", class_="bar-over"))
        marks.append(el("text", f"{number(length)} µm", x="4", y="91"))
    return el("svg", *marks, viewBox="0 0 100 100", class_="marks", aria_hidden="true") if marks else Markup("")


def scale_length(side: float) -> float:
    """A round length of at most two fifths of a side: 1, 2 or 5 and zeros."""
    power = 10.0 ** math.floor(math.log10(side))
    fitting = (share * power for share in (0.1, 0.2, 0.5, 1.0, 2.0) if share * power <= 0.4 * side)
    return max(fitting, default=0.1 * power)


def references(refs: pl.DataFrame, **by: object) -> pl.DataFrame:
    """The rows of references with these values."""
    keep: Sequence[pl.Expr] = [pl.col(key) == pl.lit(value) for key, value in by.items()]
    return refs.filter(*keep)
