"""What databases said of features: the best terms of each feature in each database, and all significant ones.

A database's rows are read one file after the other, and cut to the best of each feature and to the significant ones
before the next is read, so that no more than a page holds is kept.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from elute.reports.explorer import pack
from elute.reports.explorer.feature_table import Shown
from elute.reports.explorer.reading import read
from elute.reports.explorer.tables import MOST, Coded, Table, placed
from elute.reports.explorer.words import Terms, Vocabulary, unlisted

if TYPE_CHECKING:
    import polars as pl

NETWORKS = ("network", "string", "string-db")  # as the table of interactions may be called: it has no terms
_NUMBERS = ("overlap", "list_size", "expected", "odds", "p", "null_p", "q", "q_plain", "q_shown")
_FOUND = 40  # significant terms of a feature, in the block that is searched


@dataclass(frozen=True)
class Databases:
    """What was found."""

    table: Table | None
    found: dict[str, pack.Column]
    """The block that is searched: significant terms, databases with one, the smallest q; a row a feature."""


def databases(
    folder: Path, names: Sequence[str], shown: Shown, *, words: tuple[Vocabulary, Terms], fdr: float
) -> Databases:
    """Read the tables of the databases named, in their order; one that has none is passed over."""
    import polars as pl

    genes, terms = words
    parts, best = [], []
    for at, name in enumerate(names):
        if name in NETWORKS or Path(name).name != name:
            continue
        frame = _read(folder / "validation" / f"{name}.parquet", shown)
        if frame is None:
            continue
        part, significant = _cut(frame, fdr)
        both = pl.concat([part.select(_TERM), significant.select(_TERM)])
        code = pl.Series("code", terms.add(name, both), dtype=pl.Int64)
        part = part.with_columns(code[: len(part)], pl.lit(at).alias("_source"))
        parts.append(part.drop("label", "group", "term_size", "term"))
        rest = significant.with_columns(code[len(part) :], pl.lit(at).alias("source"))
        best.append((rest.select("feature", "code", "q", "source"), frame.group_by("feature").agg(pl.col("q").min())))
    if not parts:
        return Databases(None, {})
    return Databases(_table(pl.concat(parts), shown, genes, fdr=fdr), _found(best, shown, fdr=fdr))


_TERM = ("term", "label", "group", "term_size")


def _read(path: Path, shown: Shown) -> pl.DataFrame | None:
    """A database's rows of shown features, the best of each feature first; those under another term come last."""
    import polars as pl

    columns = ("feature", *_TERM, *_NUMBERS, "genes", "folded_under")
    frame = read(path, columns, needs=("feature", "term", "p"))
    if frame is None:
        return None
    lists = "genes" in frame.columns and frame["genes"].dtype == pl.List
    genes = pl.col("genes").cast(pl.List(pl.String), strict=False) if lists else pl.lit(None, pl.List(pl.String))
    there = {name: pl.col(name) if name in frame.columns else pl.lit(None) for name in columns}
    texts = {name: there[name].cast(pl.String, strict=False) for name in ("term", "label", "group", "folded_under")}
    frame = frame.select(
        pl.col("feature").cast(pl.Int64, strict=False),
        *(texts[name].alias(name) for name in ("term", "group")),
        pl.coalesce(texts["label"], texts["term"]).alias("label"),
        texts["folded_under"].is_not_null().alias("folded"),
        *(there[name].cast(pl.Float64, strict=False).fill_nan(None).alias(name) for name in (*_NUMBERS, "term_size")),
        genes.alias("genes"),
    )
    frame = frame.filter(pl.col("term").is_not_null(), pl.Series(shown.places(frame["feature"])) >= 0)
    larger = pl.max_horizontal("p", "null_p")  # what q was made from
    return _readable(frame).sort("feature", "folded", larger, "term", nulls_last=True)


def _readable(frame: pl.DataFrame) -> pl.DataFrame:
    """Write labels that are names in capitals, as of MSigDB's sets, as people write them."""
    import polars as pl

    from elute.validation.wording import tidy

    labels = frame["label"].unique().drop_nulls().to_list()
    spoken = {label: tidy(label, longest=pack.LONGEST) for label in labels if "_" in label and label == label.upper()}
    return frame.with_columns(pl.col("label").replace(spoken)) if spoken else frame


def _cut(frame: pl.DataFrame, fdr: float) -> tuple[pl.DataFrame, pl.DataFrame]:
    """The best rows of each feature, significant ones first, and all significant ones up to a bound."""
    import polars as pl

    passing = (pl.col("q") <= fdr).fill_null(value=False)
    ordered = frame.sort("feature", ~passing, maintain_order=True)
    first = ordered.group_by("feature", maintain_order=True).head(MOST["terms"]).select(frame.columns)
    rest = frame.filter(passing).sort("feature", "q", maintain_order=True)
    return first, rest.group_by("feature", maintain_order=True).head(_FOUND).select(frame.columns)


def _table(rows: pl.DataFrame, shown: Shown, genes: Vocabulary, *, fdr: float) -> Table:
    """The rows of all databases, by feature and database."""
    import polars as pl

    rows = rows.rename({"code": "term"}).with_columns(
        ((pl.col("q") > fdr) | pl.col("q").is_null()).alias("_late"), pl.max_horizontal("p", "null_p").alias("_p")
    )
    deep = pl.int_range(pl.len()).over("_place", "_source")
    order = ("_source", "_late", "folded", "_p", "term")
    table = placed("terms", rows, shown, order=order, fdr=fdr, depth=deep)
    offsets, inner = unlisted(table.columns["genes"])
    needed = (table.columns["q"] <= fdr).fill_null(value=False).to_numpy()
    listed = Coded(genes, genes.codes(inner), offsets, needed)
    columns = {name: column for name, column in table.columns.items() if name != "genes"}
    kept = {name: column for name, column in columns.items() if column.null_count() < max(1, len(column))}
    return replace(table, columns=kept, coded={"genes": listed})


def _found(best: Sequence[tuple[pl.DataFrame, pl.DataFrame]], shown: Shown, *, fdr: float) -> dict[str, pack.Column]:
    """A row a feature: its significant terms, the smallest q first, the databases of these, the smallest q at all."""
    import polars as pl

    rows = pl.concat([part for part, _ in best]).sort("feature", "q", "source", "code")
    wide = pl.DataFrame({"feature": shown.numbers}, {"feature": pl.Int64})
    listed = rows.group_by("feature", maintain_order=True).agg(
        pl.col("code").head(_FOUND), pl.col("source").unique().sort()
    )
    least = pl.concat([part for _, part in best]).group_by("feature").agg(pl.col("q").min())
    wide = wide.join(listed, on="feature", how="left", maintain_order="left")
    wide = wide.join(least, on="feature", how="left", maintain_order="left")
    found: dict[str, pack.Column] = {}
    for name, column in (("terms", "code"), ("libs", "source")):
        offsets, inner = unlisted(wide[column].cast(pl.List(pl.Int64)))
        found[name] = pack.Lists(offsets, pack.whole(inner.to_numpy()))
    q: Any = wide["q"].fill_null(float("nan")).to_numpy()
    return found | {"best_q": pack.logs(np.asarray(q), keep=fdr)}


def names_run(told: Mapping[str, Any]) -> list[str]:
    """Return every database that a summary names, in its order: places among them are what a page counts by."""
    databases_ = told.get("databases")
    return [str(name) for name in databases_] if isinstance(databases_, dict) else []
