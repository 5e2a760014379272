"""Whose gene it is: a source's identifiers become HGNC ids here, and nowhere else; what is lost is counted and listed.

An identifier that HGNC's table does not know is tried once more by the symbol that stands beside it. Without the table
symbols stand as the source writes them, and that is said.
"""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple

from elute.base.data import hgnc_table

if TYPE_CHECKING:
    import polars as pl

    from elute.base.genes import GeneTable, Kind

NO_TABLE = "HGNC's table is not installed, so symbols stand as their source writes them: elute databases fetch hgnc"


class Mapped(NamedTuple):
    """A source's table with `hgnc` and `symbol`, and what became of its genes."""

    table: pl.DataFrame
    lost: pl.DataFrame
    """A row a gene that was lost: gene, called, why, candidates, rows."""
    counts: dict[str, Any]
    """genes, mapped, by_symbol (of those mapped), ambiguous, unknown, lost_rows."""

    def summary(self) -> str:
        """Say in one line what was kept and what was lost."""
        told = self.counts
        text = f"{told['mapped']:,} of {told['genes']:,} genes are HGNC's"
        text += f" ({told['by_symbol']:,} by the symbol beside an unknown id)" if told["by_symbol"] else ""
        for what in ("ambiguous", "unknown"):
            text += f"; {told[what]:,} {what}" if told[what] else ""
        return text + (f": {told['lost_rows']:,} rows lost" if told["lost_rows"] else "")


@lru_cache(maxsize=1)
def _read(path: Any, _changed: int) -> GeneTable:
    from elute.base.genes import GeneTable

    return GeneTable.read(path)


def gene_table() -> GeneTable | None:
    """Return HGNC's table from the data folder, read once; None where it is not installed."""
    path = hgnc_table()
    return None if path is None else _read(path, path.stat().st_mtime_ns)


def identify(table: pl.DataFrame, genes: GeneTable | None) -> Mapped:
    """Add `hgnc` and `symbol` to a source's table; rows whose gene is lost are left out, and listed."""
    import polars as pl

    each = table.group_by("gene_kind", "gene", "called", maintain_order=True).len("rows")
    if genes is None or not len(each):
        symbol = pl.coalesce("called", pl.when(pl.col("gene_kind") == "symbol").then("gene"))
        each = each.with_columns(
            hgnc=pl.lit(None, pl.String), symbol=symbol, why=pl.lit("unknown"), candidates=pl.lit(None, pl.String)
        )
        return _told(table, each, by_symbol=0)
    found = pl.concat([_by_id(part, genes) for part in each.partition_by("gene_kind", maintain_order=True)])
    again = found["hgnc"].is_null() & (found["why"] == "unknown") & found["called"].is_not_null()
    if again.any():
        tried = _mapped(found.filter(again)["called"], genes, "symbol")
        second = found.filter(again).drop("hgnc", "why", "candidates").with_columns(tried.get_columns())
        found = pl.concat([found.filter(~again), second.select(found.columns)])
        by_symbol = int(tried["hgnc"].is_not_null().sum())
    else:
        by_symbol = 0
    named = genes.genes.select("hgnc", "symbol")
    return _told(table, found.join(named, on="hgnc", how="left"), by_symbol=by_symbol)


def _by_id(part: pl.DataFrame, genes: GeneTable) -> pl.DataFrame:
    import polars as pl

    kind = part["gene_kind"][0]
    if kind == "string":  # a protein's name of STRING's own: HGNC does not list it
        lost = {"hgnc": None, "why": "unknown", "candidates": None}
        return part.with_columns(pl.lit(value, pl.String).alias(name) for name, value in lost.items())
    return part.with_columns(_mapped(part["gene"], genes, kind).get_columns())


def _mapped(ids: pl.Series, genes: GeneTable, kind: Kind) -> pl.DataFrame:
    import polars as pl

    mapping = genes.map(ids.to_list(), "hgnc", kind=kind)
    why = dict.fromkeys(mapping.ambiguous, "ambiguous")
    return pl.DataFrame(
        {
            "hgnc": mapping.targets,
            "why": [why.get(name, "unknown") for name in ids],
            "candidates": [" ".join(mapping.ambiguous.get(name, ())) or None for name in ids],
        },
        schema={"hgnc": pl.String, "why": pl.String, "candidates": pl.String},
    )


def _told(table: pl.DataFrame, each: pl.DataFrame, *, by_symbol: int) -> Mapped:
    import polars as pl

    right = each.filter(pl.col("symbol").is_not_null())
    lost = each.filter(pl.col("symbol").is_null()).select("gene", "called", "why", "candidates", "rows")
    key = ["gene_kind", "gene", "called"]
    joined = table.join(
        right.select(*key, "hgnc", "symbol"), on=key, how="inner", nulls_equal=True, maintain_order="left"
    )
    counts = {
        "genes": len(each),
        "mapped": len(right),
        "by_symbol": by_symbol,
        "ambiguous": int((lost["why"] == "ambiguous").sum()),
        "unknown": int((lost["why"] == "unknown").sum()),
        "lost_rows": int(lost["rows"].sum()),
    }
    return Mapped(joined, lost.sort("rows", "gene", descending=[True, False]), counts)
