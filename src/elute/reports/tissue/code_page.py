"""A code's page: the tiles in which it fires and matters, the tissue that they are of, the genes that it predicts."""

from __future__ import annotations

import numpy as np
import polars as pl

from elute.reports.html import Markup, join
from elute.reports.tissue import wording
from elute.reports.tissue.gallery import Gallery
from elute.reports.tissue.markup import address, el, named, note, table
from elute.reports.tissue.reading import Findings
from elute.reports.tissue.section_maps import Panel, about_zero, scale_of
from elute.reports.tissue.settings import TissueReportConfig
from elute.reports.tissue.tiles_shown import strips
from elute.reports.tissue.verdicts import Verdict

_GENES = 30


def code_page(
    found: Findings,
    gallery: Gallery,
    code: int,
    *,
    verdicts: dict[str, Verdict],
    names: dict[str, str],
    config: TissueReportConfig,
) -> Markup:
    """Everything below the head of the page."""
    parts = [
        _head(found, code),
        _tiles(found, gallery, code, names),
        _genes(found, code, verdicts, names),
        _where(found, gallery, code, config),
        wording.how_to_read_code(),
    ]
    return join(parts)


def _head(found: Findings, code: int) -> Markup:
    rows = found.usage.filter(pl.col("code") == code)
    facts: list[Markup] = []
    for row in rows.iter_rows(named=True):
        told = row.get("frequency")
        if isinstance(told, float):
            facts.append(
                el(
                    "p",
                    f"It fired in {wording.share(told)} of the rows that the dictionary was trained on.",
                    class_="lead",
                )
            )
    return el("section", el("h1", f"Code {code}"), *facts, class_="intro")


def _tiles(found: Findings, gallery: Gallery, code: int, names: dict[str, str]) -> Markup:
    seen = any(key[1] == code for key in gallery.pixels.drawn)
    parts: list[object] = [el("h2", "What it looks like"), wording.tile_tools(pixels=seen)]
    if seen:
        parts.append(note(wording.PIXELS))
    if gallery.album.told:
        parts.append(note(gallery.album.told))
    for strip in strips(found, code):
        gene = el("a", named(strip.gene, 40), href=f"../{address('genes', names[strip.gene])}")
        of_gene = strip.title in ("Raises", "Lowers")
        title = el("h3", strip.title, " ", gene) if of_gene else el("h3", strip.title)
        maps = [] if of_gene else ["; maps, where one was drawn, are of its relevance to ", gene]
        label = f"Tiles: {strip.title.lower()}"
        parts += [
            el("div", title, note(f"Tiles {strip.told}", *maps, "."), class_="strip-head"),
            gallery.tissue(strip.refs, most=gallery.album.per_code),
            gallery.strip(strip.refs, gene=strip.gene, label=label),
        ]
    return el("section", *parts, class_="codes")


def _genes(found: Findings, code: int, verdicts: dict[str, Verdict], names: dict[str, str]) -> Markup:
    """The genes that it is explained for, each with how well that gene is predicted at all."""
    mine = found.relevance.filter(pl.col("code") == code).sort(
        pl.col("share").fill_nan(None), "gene", descending=[True, False], nulls_last=True
    )
    weights = {row["gene"]: row for row in found.coefficients.filter(pl.col("code") == code).iter_rows(named=True)}
    rows = []
    for row in mine.head(_GENES).iter_rows(named=True):
        gene, weight = row["gene"], weights.get(row["gene"])
        verdict = verdicts[gene]
        word = el("span", f"{verdict.mark} {verdict.word}", class_=f"verdict {wording.css(verdict.word)}")
        link = el("a", named(gene, 40), href=f"../{address('genes', names[gene])}")
        ends = weight and weight["low"] is not None and weight["high"] is not None
        told = f"{wording.amount(weight['low'])} to {wording.amount(weight['high'])}" if weight and ends else "–"
        rows.append(
            [
                *(link, word, wording.amount(weight["coefficient"]) if weight else "–", told),
                wording.share(weight["stability"]) if weight else "–",
                *(wording.relevance_share(row), wording.amount(row["relevance"])),
            ]
        )
    heads = [("gene", False), ("how well it is predicted", False), ("coefficient", True), ("interval", True)]
    heads += [("folds of its sign", True), ("relevance (a code as active)", True), ("relevance, summed", True)]
    more = note(f"The {_GENES} of {len(mine)} genes in which it matters most.") if len(mine) > _GENES else None
    return el("section", el("h2", "Genes that it predicts"), table(heads, rows, label="Genes of this code"), more)


def _where(found: Findings, gallery: Gallery, code: int, config: TissueReportConfig) -> Markup:
    """Where in the sections it matters to the gene that it matters to most."""
    title = el("h2", "Where in the sections")
    rows = found.sample_relevance.filter(pl.col("code") == code)
    if rows.is_empty():
        return el("section", title, note("It is among the strongest codes of no sample."))
    totals = (
        rows.group_by("gene").agg(pl.col("relevance").abs().sum()).sort("relevance", "gene", descending=[True, False])
    )
    gene = totals["gene"][0]
    mine = rows.filter(pl.col("gene") == gene).select("sample_id", "relevance")
    sections = gallery.sections
    held = sections.values(mine, "relevance")
    values = held["relevance"]
    if not np.isfinite(values).any():
        return el("section", title, note("No maps: the places of the samples in a section are not known."))
    scale = about_zero(values, "relevance") if (values < 0).any() else scale_of(values, "relevance")
    panel = Panel("relevance", "relevance", "value")
    drawn, left = sections.draw(held, [panel], {"value": scale}, most=config.spots_per_page)
    told = note(
        "Its relevance to ", named(gene, 40), ", sample by sample; grey where it is not among the strongest codes."
    )
    more = note(f"Not drawn, to keep the page small: {len(left)} more sections.") if left else None
    return el("section", title, told, drawn, more)
