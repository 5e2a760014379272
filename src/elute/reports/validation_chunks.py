"""The data of a report's page: an index that is read at once, and the features in chunks that are read when opened.

    index      names, genes and best terms of all features; names of genes and terms, each once; what the sources are
    networks   pictures of the surest features' interactions, as SVG, of which a page makes images
    c0, c1, …  256 features each: by source their rows, column by column; interactions; trees of phenotypes

A gene of an overlap is its place in the feature's own list, or −1 − its place among all genes where the list does not
hold it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from elute.reports import validation_encoding as encoding
from elute.reports.validation_svg import KINDS, plain
from elute.reports.validation_tables import NUMBERS, Site, level
from elute.reports.validation_tree import Trees, caption

if TYPE_CHECKING:
    import polars as pl


CHUNK = 256  # features
MOST_ROWS = 400_000  # rows of all sources that a page holds: some ten megabytes
MOST_TERMS = 8  # of a feature and a source
_WHOLE = ("overlap", "list_size", "term_size", "background")
_NETWORK = ":network"  # no source has such a name
_REAL = tuple(name for name in NUMBERS if name not in (*_WHOLE, "q_plain"))  # of that the level is told


@dataclass(frozen=True, eq=False)
class Shown:
    """A source's rows that a page shows, and how many of each feature there are in its table."""

    rows: pl.DataFrame
    texts: dict[str, pl.Series]  # its columns as JSON, a text a row
    stored: pl.DataFrame  # feature, how many rows its table has, and how many of them are shown
    terms: list[str]
    labels: list[str]
    groups: list[str | None]


def pack(site: Site, trees: dict[str, Trees], networks: Mapping[int, str]) -> dict[str, str]:
    """Return the index, the pictures of networks and the chunks by name, each as text."""
    import polars as pl

    each, most = _cut(site)
    symbols = _symbols(site, each)
    place = {symbol: i for i, symbol in enumerate(symbols)}
    listed = site.genes.with_columns(
        pl.col("genes").list.eval(pl.element().replace_strict(place, default=None, return_dtype=pl.Int64).drop_nulls())
    )
    shown = {name: _indexed(part, site, trees.get(name), place) for name, part in each.items()}
    numbers = _numbers_of(site, shown)
    frame = pl.DataFrame({"feature": numbers}, {"feature": pl.Int64})
    told = _index(site, shown, frame.join(site.features, on="feature", how="left", maintain_order="left"), most=most)
    lists = frame.join(listed, on="feature", how="left", maintain_order="left")["genes"]
    told |= {
        "symbols": [plain(symbol) for symbol in symbols],
        "lists": encoding.lists(lists),
        "chunk": CHUNK,
        "others": site.others,
    }
    told["drawn"] = sorted(networks)
    found = {"index": encoding.text(told), "networks": encoding.text(dict(networks))}
    counts = _by_feature(site, shown, frame)
    for at in range(0, len(numbers), CHUNK):
        here = slice(at, at + CHUNK)
        mine = {name: {key: column[here] for key, column in columns.items()} for name, columns in counts.items()}
        found[f"c{at // CHUNK}"] = encoding.text(_chunk(site, shown, numbers[here], counts=mine, trees=trees))
    return found


def _cut(site: Site) -> tuple[dict[str, pl.DataFrame], int]:
    """The first rows of each feature and source: fewer where a page would grow too large."""
    import polars as pl

    all_rows = {source.name: source.rows for source in site.sources if source.rows is not None}
    lengths = [rows.group_by("feature").len()["len"].to_numpy() for rows in all_rows.values()]
    most = MOST_TERMS
    while most > 1 and sum(int(np.minimum(length, most).sum()) for length in lengths) > MOST_ROWS:
        most -= 1
    stored = pl.len().over("feature").alias("stored")
    counted = {name: rows.with_columns(stored) for name, rows in all_rows.items()}
    return {name: rows.group_by("feature", maintain_order=True).head(most) for name, rows in counted.items()}, most


def _symbols(site: Site, each: dict[str, pl.DataFrame]) -> list[str]:
    """Every gene that is named, once."""
    import polars as pl

    columns = [site.genes["genes"], *(rows["genes"] for rows in each.values())]
    if site.network is not None:
        columns.append(site.network["hubs"])
    found = pl.concat([column.explode().drop_nulls().cast(pl.String).unique() for column in columns])
    return found.unique().sort().to_list()


def _indexed(rows: pl.DataFrame, site: Site, trees: Trees | None, place: dict[str, int]) -> Shown:
    """Replace names by places: terms by their place among the source's, genes by their place in the feature's list."""
    import polars as pl

    both = (pl.col("label").first(), pl.col("group").first())
    named = rows.group_by("term", maintain_order=True).agg(*both).sort("term")
    terms, labels, groups = (named[name].to_list() for name in ("term", "label", "group"))
    known = set(terms)  # terms above have names, too, though no row is of them
    above = {} if trees is None else {term: label for term, label in trees.labels.items() if term not in known}
    terms, labels, groups = [*terms, *above], [*labels, *above.values()], [*groups, *[None] * len(above)]
    at = {term: i for i, term in enumerate(terms)}
    own = site.genes.explode("genes", empty_as_null=False, keep_nulls=False).rename({"genes": "gene"})
    own = own.with_columns(own=pl.int_range(pl.len()).over("feature")).unique(["feature", "gene"], keep="first")
    rows = rows.with_row_index("row")
    genes = rows.select("row", "feature", gene="genes").explode("gene", empty_as_null=False, keep_nulls=False)
    elsewhere = -1 - pl.col("gene").replace_strict(place, default=0, return_dtype=pl.Int64)
    genes = genes.join(own, on=["feature", "gene"], how="left", maintain_order="left")
    genes = genes.group_by("row", maintain_order=True).agg(genes=pl.coalesce("own", elsewhere))
    rows = rows.drop("genes").join(genes, on="row", how="left", maintain_order="left")
    rows = rows.with_columns(
        pl.col("genes").fill_null([]),
        pl.col("term").replace_strict(at, return_dtype=pl.Int64),
        pl.col("folded_under").replace_strict(at, default=None, return_dtype=pl.Int64),
    )
    stored = rows.group_by("feature", maintain_order=True).agg(pl.col("stored").first(), shown=pl.len())
    rows = rows.with_columns(level(site.fdr))  # from the numbers themselves: rounded ones could stand on the other side
    texts = {name: encoding.ints(rows[name]) for name in ("term", "folded_under", "level", *_WHOLE)}
    texts |= {name: encoding.real(rows[name]) for name in _REAL} | {"genes": encoding.lists(rows["genes"])}
    named_by = ([plain(t) for t in terms], [plain(t) for t in labels], [g and plain(g) for g in groups])
    return Shown(rows, texts, stored, *named_by)


def _numbers_of(site: Site, shown: dict[str, Shown]) -> list[int]:
    """The features of the page: those that fire, and any that has a row."""
    alive = set(site.features.filter(site.features["alive"])["feature"].to_list())
    return sorted(alive.union(*(part.stored["feature"].to_list() for part in shown.values())))


def _index(site: Site, shown: dict[str, Shown], frame: pl.DataFrame, *, most: int) -> dict[str, Any]:
    """What the list needs of each feature, and what is the same for all."""
    import polars as pl

    sources = []
    best = []
    for i, source in enumerate(site.sources):
        part = shown.get(source.name)
        kind = "network" if source.is_network else "terms" if part else "none"
        told = {"name": source.name, "title": source.snapshot, "run": source.run, "why": source.why, "kind": kind}
        if part is not None:
            told |= {"terms": part.terms, "labels": part.labels, "groups": part.groups}
            columns = ("feature", "term", "p_larger", "q", "null_p", "q_shown")
            best.append(part.rows.select(*columns, source=pl.lit(i, pl.Int64)))
        sources.append(told)
    texts = ("cell_type", "kind", "name_reason", "name_source", "name_term")
    told = {
        "feature": encoding.ints(frame["feature"]),
        "name": [name and plain(name) for name in frame["name"].to_list()],
        "frequency": encoding.real(frame["frequency"]),
        "confidence": encoding.real(frame["name_confidence"]),
        "auroc": encoding.real(frame["auroc_shown"].fill_null(frame["auroc"])),
        "held": frame["auroc_shown"].is_not_null().any(),
        **{name: [text and plain(text) for text in frame[name].to_list()] for name in texts},
        "sources": sources,
        "fdr": site.fdr,
        "named": site.named,
        "kinds": KINDS,
        "most": most,
        "of": len(site.features),
    }
    return told | _best(best, frame.select("feature"), site.fdr)


def _best(parts: list[pl.DataFrame], frame: pl.DataFrame, fdr: float) -> dict[str, Any]:
    """Each feature's best row, its significant terms of all sources, and what of them holds on other donors."""
    import polars as pl

    kinds: dict[str, Any] = {"feature": pl.Int64, "term": pl.Int64, "source": pl.Int64}
    kinds |= dict.fromkeys(("p_larger", "q", "null_p", "q_shown"), pl.Float64)
    rows = pl.concat([part.select(*kinds) for part in parts]) if parts else pl.DataFrame(schema=kinds)
    passing = rows.filter(pl.col("q") <= fdr).sort("feature", "q", "p_larger", "source", "term")
    again = pl.col("q_shown").is_not_null().any().cast(pl.Int8) + (pl.col("q_shown") <= fdr).any().cast(pl.Int8)
    grouped = passing.group_by("feature", maintain_order=True).agg(
        pl.col("source").alias("sources_"), pl.col("term").alias("terms_"), again.alias("again")
    )
    ordered = rows.sort("feature", "q", "p_larger", "source", "term", nulls_last=True)
    first = ordered.unique("feature", keep="first", maintain_order=True)
    wide = frame.join(first, on="feature", how="left", maintain_order="left")
    wide = wide.join(grouped, on="feature", how="left", maintain_order="left")
    return {
        **{name: encoding.real(wide[name]) for name in ("q", "null_p", "q_shown")},
        "best_source": encoding.ints(wide["source"]),
        "best_term": encoding.ints(wide["term"]),
        "sources_": encoding.lists(wide["sources_"]),
        "terms_": encoding.lists(wide["terms_"]),
        "again": encoding.ints(wide["again"].fill_null(0)),
    }


def _by_feature(site: Site, shown: dict[str, Shown], frame: pl.DataFrame) -> dict[str, dict[str, pl.Series]]:
    """Columns that have a text a feature: how many rows it has in each source, and its interactions."""
    import polars as pl

    found: dict[str, dict[str, pl.Series]] = {}
    for name, part in shown.items():
        counts = frame.join(part.stored, on="feature", how="left", maintain_order="left").fill_null(0)
        found[name] = {"n": encoding.ints(counts["shown"]), "stored": encoding.ints(counts["stored"])}
    if site.network is not None:
        rows = frame.join(site.network, on="feature", how="left", maintain_order="left")
        columns = {name: encoding.real(rows[name]) for name in rows.columns if name not in ("feature", "hubs")}
        hubs = [json.dumps([plain(hub) for hub in hubs or ()]) for hubs in rows["hubs"].to_list()]
        found[_NETWORK] = {**columns, "hubs": pl.Series(hubs, dtype=pl.String)}
    return found


def _chunk(
    site: Site, shown: dict[str, Shown], features: list[int], *, counts: dict[str, Any], trees: dict[str, Trees]
) -> dict[str, Any]:
    """All rows of some features, by source and column by column."""
    found: dict[str, Any] = {"sources": {}, "trees": {}}
    for name, part in shown.items():
        first, last = np.searchsorted(part.rows["feature"].to_numpy(), (features[0], features[-1] + 1)).tolist()
        rows = {column: texts[first:last] for column, texts in part.texts.items()}
        found["sources"][name] = {**counts[name], **rows}
    if _NETWORK in counts:
        found["network"] = counts[_NETWORK]
    titles = {source.name: source.snapshot for source in site.sources}
    for name, grown in trees.items():
        at = {term: i for i, term in enumerate(shown[name].terms)}
        drawn = [grown.nodes.get(feature, []) for feature in features]
        told = zip(features, drawn, strict=True)
        found["trees"][name] = {
            "nodes": [[[at[n.term], n.depth, n.skipped, n.q, n.folded] for n in each] for each in drawn],
            "captions": [caption(f, grown, titles[name], fdr=site.fdr) if each else "" for f, each in told],
        }
    return found
