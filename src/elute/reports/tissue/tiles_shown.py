"""Which codes and references pages show, and so how often each tile stands on a page."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import polars as pl

from elute.reports.tissue.pictures import Key
from elute.reports.tissue.reading import Findings
from elute.reports.tissue.settings import TissueReportConfig
from elute.reports.tissue.token_maps import Key as MapKey

GENES_OF_A_CODE = 3  # whose references stand on a code's page


@dataclass(frozen=True, eq=False)
class Strip:
    """A list of references of a code: what it is called, of which gene its maps are, and its rows."""

    title: str
    told: str
    gene: str
    refs: pl.DataFrame


def signed_codes(found: Findings, gene: str, sign: str, *, most: int) -> list[int]:
    """Codes of a gene that have references of a sign, by what they add to the prediction or take from it."""
    own = found.refs.filter(
        (pl.col("gene") == gene) & (pl.col("kind") == "relmax") & (pl.col("target") == "sum") & (pl.col("sign") == sign)
    )
    column = "positive" if sign == "+" else "negative"
    ranked = (
        found.relevance.filter(pl.col("gene") == gene)
        .join(own.select("code").unique(), on="code", how="semi")
        .sort(pl.col(column).abs().fill_null(0.0), "code", descending=[True, False])
    )
    return ranked["code"].head(most).to_list()


def strips(found: Findings, code: int) -> list[Strip]:
    """What a code's page shows: tiles by activation, the strongest patches, tiles by relevance where they differ."""
    mine = found.refs.filter(pl.col("code") == code)
    weight = (
        found.relevance.filter(pl.col("code") == code)
        .sort(pl.col("relevance").abs().fill_null(0.0), "gene", descending=[True, False])["gene"]
        .to_list()
    )
    known = set(mine["gene"])
    genes = [gene for gene in dict.fromkeys([*weight, *sorted(known)]) if gene in known]
    found_strips: list[Strip] = []
    seen: list[list[Key]] = []

    def add(title: str, told: str, gene: str, **by: str) -> bool:
        refs = mine.filter(pl.col("gene") == gene, *(pl.col(key) == value for key, value in by.items())).sort("rank")
        keys = list(refs.select("sample_id", pl.col("tile_id").fill_null("")).iter_rows())
        if not keys or keys in seen:
            return False
        seen.append(keys)
        found_strips.append(Strip(title, told, gene, refs))
        return True

    for gene in genes[:1]:
        add("Where it fires most", "by the sum of its activations over the tile", gene, kind="actmax", target="sum")
        add("Strongest patches", "by its largest activation in a patch", gene, kind="actmax", target="max")
    for gene in genes[:GENES_OF_A_CODE]:
        add("Raises", "by relevance, summed over the tile", gene, kind="relmax", target="sum", sign="+")
        add("Lowers", "by relevance, summed over the tile", gene, kind="relmax", target="sum", sign="-")
    return found_strips


def places(found: Findings, config: TissueReportConfig, per_code: int) -> Counter[Key]:
    """How often each tile stands on a page, at so many tiles a code."""
    counted: Counter[Key] = Counter()
    for refs in _all(found, config):
        first = refs.sort("rank").head(per_code)
        counted.update(first.select("sample_id", pl.col("tile_id").fill_null("")).iter_rows())
    return counted


def maps_placed(found: Findings, config: TissueReportConfig, per_code: int) -> Counter[MapKey]:
    """How often each tile stands on a page beside the maps of a gene and code, at so many tiles a code."""
    counted: Counter[MapKey] = Counter()
    for refs in _all(found, config):
        first = refs.sort("rank").head(per_code)
        counted.update(first.select("gene", "code", "sample_id", pl.col("tile_id").fill_null("")).iter_rows())
    return counted


def _all(found: Findings, config: TissueReportConfig) -> Iterator[pl.DataFrame]:
    for code in found.codes:
        yield from (strip.refs for strip in strips(found, code))
    by_sum = found.refs.filter((pl.col("kind") == "relmax") & (pl.col("target") == "sum"))
    parts = by_sum.partition_by("gene", "code", "sign", as_dict=True)
    for gene in found.refs["gene"].unique().sort():
        for sign in ("+", "-"):
            yield from (parts[gene, code, sign] for code in signed_codes(found, gene, sign, most=config.codes_per_gene))
