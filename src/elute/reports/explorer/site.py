"""The blocks of one site: what of a run's tables goes into a page, and how much of it.

What the page must have comes first (features, cells, what colours them); what is left of its room is for details, of
which as many rows a feature are taken as fit, the same share of every table.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from elute.base import console
from elute.reports.explorer import cell_sample, cell_values, coordinates, feature_table, pack, pooled_codes
from elute.reports.explorer import provenance as facts
from elute.reports.explorer.reading import read
from elute.reports.explorer.tables import MOST, Plan, Table, cells_of, genes_of, neighbours, parts_of, together_of
from elute.reports.explorer.term_tables import databases, names_run
from elute.reports.explorer.words import GENES, LABELS, TERMS, Terms, Vocabulary, texts_of, unlisted

if TYPE_CHECKING:
    import polars as pl

GROUP = 256  # features of a block of details, and of codes
# Plans of details, the finest first: share of the rows, steps of a number, and whether all columns are there.
_PLANS = (
    *((share, 1000, True) for share in (1.0, 0.8, 0.65, 0.5, 0.42)),
    *((share, 250, True) for share in (0.5, 0.42, 0.36)),
    *((share, 250, False) for share in (0.42, 0.36, 0.3, 0.25, 0.2, 0.16, 0.12, 0.08, 0.04)),
)
_LEAST = {"genes": 15, "cells": 2, "groups": 4, "numbers": 3, "donors": 8, "terms": 2, "near": 3, "together": 3}
_BAR = 120  # steps of the height of a bar
_TRIED = 4  # blocks that are packed to see how large all would be


@dataclass(frozen=True)
class Asked:
    """What is asked of a page."""

    top: int | None = None
    cells: int = cell_sample.SAMPLE
    seed: int = 0
    data: Path | None = None
    room: int = 12_000_000
    """Characters that a site's blocks may have."""


@dataclass
class Site:
    """What was made of a site."""

    key: str
    info: dict[str, Any]
    blocks: dict[str, str] = field(default_factory=dict)

    def put(self, name: str, columns: Mapping[str, pack.Column], rows: int | None = None) -> None:
        """Add a block, if it has any column."""
        if columns:
            self.blocks[f"{self.key}-{name}"] = pack.pack(columns, rows=rows)

    @property
    def size(self) -> int:
        """Characters of all blocks."""
        return sum(map(len, self.blocks.values()))


@dataclass
class _Words:
    genes: Vocabulary
    labels: Vocabulary
    terms: Terms


def make_site(home: Path, place: Path, name: str, *, key: str, asked: Asked) -> Site:
    """Read a site's tables and pack them."""
    told = facts.summary(place)
    shown = feature_table.choose(place, asked.top)
    cells = cell_sample.choose_cells(home, most=asked.cells, seed=asked.seed)
    words = _Words(Vocabulary(f"{key}-{GENES}"), Vocabulary(f"{key}-{LABELS}"), Terms())
    info = {
        "name": pack.plain(name),
        "key": key,
        "features": shown.of,
        "shown": len(shown.frame),
        "alive": shown.alive,
        "group": GROUP,
        **facts.site_facts(place, told, cells),
    }
    site = Site(key, info)
    genes = genes_of(place, shown, words.genes, fdr=info["fdr"])
    tables, found = _tables(place, shown, cells, words=words, told=told, fdr=info["fdr"])
    columns, site.info["columns"] = feature_table.feature_columns(shown, words.genes, words.labels, fdr=info["fdr"])
    site.put("features", columns)
    site.put("found", found)
    _draw_features(site, place, shown, seed=asked.seed)
    if cells is not None:
        _draw_cells(site, home, place, shown=(shown, cells), words=words, asked=asked)
    _write_words(site, words, None if genes is None else genes[1])
    tables = [*([] if genes is None else [genes[0]]), *tables]
    _write_details(site, shown, tables, room=asked.room - site.size)
    return site


def _tables(
    place: Path,
    shown: feature_table.Shown,
    cells: cell_sample.ShownCells | None,
    *,
    words: _Words,
    told: dict[str, Any],
    fdr: float,
) -> tuple[list[Table], dict[str, pack.Column]]:
    """All tables but that of genes, and the block that is searched for terms."""
    at = {} if cells is None else cells.at
    held = [cells_of(place, shown, words.labels, at=at, fdr=fdr)]
    held += [parts_of(name, place, shown, labels=words.labels, fdr=fdr) for name in ("groups", "numbers", "donors")]
    said = databases(place, names_run(told), shown, words=(words.genes, words.terms), fdr=fdr)
    return [table for table in (*held, said.table, *neighbours(shown)) if table is not None], said.found


def _draw_features(site: Site, place: Path, shown: feature_table.Shown, *, seed: int) -> None:
    frame = shown.frame
    fires = np.ones(len(frame), bool)
    if "alive" in frame.columns:
        fires = frame["alive"].fill_null(value=False).to_numpy()
    found = coordinates.feature_map(place, shown.numbers, fires=fires, seed=seed)
    site.info["feature_map"] = None if found is None else found.how
    if found is not None:
        site.put("map", found.columns())


def _draw_cells(
    site: Site,
    home: Path,
    place: Path,
    *,
    shown: tuple[feature_table.Shown, cell_sample.ShownCells],
    words: _Words,
    asked: Asked,
) -> None:
    """The blocks of cells: where they lie, and what features and genes are in them."""
    features, cells = shown
    pooled = pooled_codes.pool(home, place, cells)
    found = coordinates.cell_map(place, cells, pooled=pooled, data=asked.data, seed=asked.seed)
    site.info["cells"]["map"] = None if found is None else found.how
    columns = {} if found is None else found.columns()
    site.put("cells", columns | cell_sample.cell_columns(cells, words.labels))
    numbers = features.numbers
    if pooled is not None and numbers.min() >= 0 and numbers.max() < len(pooled.fires):
        for first in range(0, len(numbers), GROUP):
            part = cell_values.code_block(pooled, numbers[first : first + GROUP])
            site.put(f"codes-{first // GROUP}", part)
    held = cell_values.expression(home, place, cells, genes=_often(home, features))
    if held is None:
        return
    site.info |= {"genes_shown": len(held.genes), "expression": held.words}
    for at, part in enumerate(cell_values.expression_blocks(held, words.genes)):
        site.put(f"expression-{at}", part)


def _often(home: Path, shown: feature_table.Shown) -> dict[str, str]:
    """The genes that are listed first most often: symbols by id."""
    import polars as pl

    frame = shown.frame
    if frame.schema.get("top_genes") != pl.List(pl.String):
        return {}
    known = read(home / "genes.parquet", ("gene", "symbol"), needs=("gene",))
    _, listed = unlisted(frame["top_genes"].list.head(10))
    counts = listed.drop_nulls().alias("symbol").value_counts().sort(["count", "symbol"], descending=[True, False])
    symbols = counts["symbol"].head(cell_values.MOST_GENES)
    if known is None or "symbol" not in known.columns:
        return {symbol: symbol for symbol in symbols}
    first = known.drop_nulls().unique("symbol", keep="first", maintain_order=True)
    both = pl.DataFrame({"symbol": symbols}).join(first, on="symbol", how="inner", maintain_order="left")
    return dict(zip(both["gene"].cast(pl.String).to_list(), both["symbol"].to_list(), strict=True))


def _write_words(site: Site, words: _Words, each: pl.DataFrame | None) -> None:
    """The words of all blocks, once nothing more can be named."""
    if len(words.terms):
        site.put(TERMS, words.terms.block_columns(words.labels))
    site.put(LABELS, words.labels.block_columns())
    columns = words.genes.block_columns()
    if each is not None:
        columns |= _known_genes(words.genes, each)
    site.put(GENES, columns)


def _known_genes(genes: Vocabulary, each: pl.DataFrame) -> dict[str, pack.Column]:
    import polars as pl

    wide = pl.DataFrame({"symbol": list(genes.places)}, {"symbol": pl.String})
    wide = wide.join(each, on="symbol", how="left", maintain_order="left")
    found: dict[str, pack.Column] = {}
    if "gene" in wide.columns:
        found["gene"] = texts_of(wide["gene"].cast(pl.String))
    if "expression" in wide.columns:
        found["expression"] = feature_table.number_column(wide["expression"])
    return found


def _write_details(site: Site, shown: feature_table.Shown, tables: list[Table], *, room: int) -> None:
    """Write the details of all features, so many rows of each table as there is room for."""
    alone = _alone(shown)
    n = len(shown.frame)
    firsts = range(0, n, GROUP)

    def made(first: int, plan: Plan) -> dict[str, pack.Column]:
        last = min(first + GROUP, n)
        own = {name: _slice(column, first, last) for name, column in alone.items()}
        return own | together_of(tables, first, last, plan=plan)

    tried = [firsts[i] for i in sorted({round(i * (len(firsts) - 1) / max(1, _TRIED - 1)) for i in range(_TRIED)})]
    for share, steps, whole in _PLANS:
        plan = Plan({k: max(math.ceil(full * share), _LEAST[k]) for k, full in MOST.items()}, steps, whole)
        size = sum(len(pack.pack(made(first, plan), rows=min(GROUP, n - first))) for first in tried)
        if size / len(tried) * len(firsts) <= room:
            break
    site.info["most"] = dict(plan.most)
    with console.progress(f"details of {site.info['name']}", n, unit="features") as bar:
        for first in firsts:
            site.put(f"detail-{first // GROUP}", made(first, plan), rows=min(GROUP, n - first))
            bar.advance(min(GROUP, n - first))


def _alone(shown: feature_table.Shown) -> dict[str, pl.Series]:
    """What a feature has one of, too long for the list."""
    import polars as pl

    found = feature_table.long_texts(shown)
    if isinstance(shown.frame.schema.get("histogram"), pl.List):
        found["histogram"] = shown.frame["histogram"]
    return found


def _slice(column: pl.Series, first: int, last: int) -> pack.Column:
    import polars as pl

    part = column[first:last]
    if part.dtype == pl.String:
        return texts_of(part)
    offsets, inner = unlisted(part)
    counts = inner.cast(pl.Float64).fill_null(float("nan")).to_numpy()
    exact = pack.whole(counts)  # as long as these are small: of large ones a bar shows no more than a share
    return pack.Lists(offsets, exact if exact.stored.dtype == np.uint8 else pack.logs(counts, steps=_BAR))
