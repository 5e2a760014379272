"""The one table of every source: which gene goes with which term, how strongly, and in the source's own words.

Genes stand as their source writes them; what they are called elsewhere is settled later, in one place.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from elute.base.errors import DataError

if TYPE_CHECKING:
    import polars as pl

KINDS = ("symbol", "entrez", "ensembl", "hgnc", "uniprot", "string")
NEEDED = ("gene", "gene_kind", "term", "label")
COLUMNS = (*NEEDED, "score", "evidence", "group", "called")  # called: the symbol that stands beside an identifier


class Read(NamedTuple):
    """What a file held: its table, what it says of its own version or date, and what was left out and why."""

    table: pl.DataFrame
    version: str = ""
    notes: tuple[str, ...] = ()


def schema() -> dict[str, type[pl.DataType]]:
    """Return the columns of the table and their types."""
    import polars as pl

    return {name: pl.Float64 if name == "score" else pl.String for name in COLUMNS}


def empty() -> pl.DataFrame:
    """Return a table without rows."""
    import polars as pl

    return pl.DataFrame(schema=schema())


def finish(table: pl.DataFrame, *, where: object, **fixed: str | None) -> pl.DataFrame:
    """Bring a frame into the table's form: `fixed` columns filled in, absent ones null, in order, checked.

    Rows that say the same twice become one.
    """
    import polars as pl

    from_outside = {name: pl.lit(value, dtype=pl.String) for name, value in fixed.items()}
    table = table.with_columns(**from_outside)
    types = schema()
    absent = [pl.lit(None, dtype=types[name]).alias(name) for name in COLUMNS if name not in table.columns]
    table = table.with_columns(absent).select(pl.col(name).cast(types[name]) for name in COLUMNS)
    return check(table.unique(maintain_order=True), where=where)


def check(table: pl.DataFrame, *, where: object) -> pl.DataFrame:
    """Return the table if it has the form that every reader promises, else say in one line what is wrong with it."""
    import polars as pl

    if dict(table.schema) != schema():
        found = ", ".join(f"{name} {kind}" for name, kind in table.schema.items())
        raise DataError(f"is no table of associations: it has {found}", where=where)
    for name in NEEDED:
        blank = table[name].is_null() | (table[name].str.strip_chars() == "")
        if blank.any():
            raise DataError(f"row {(blank.arg_max() or 0) + 1} of the associations has no {name}", where=where)
    strange = table["gene_kind"].filter(~table["gene_kind"].is_in(KINDS))
    if len(strange):
        raise DataError(f"{strange[0]!r} is no kind of gene identifier ({', '.join(KINDS)})", where=where)
    bad = table.select((~pl.col("score").is_finite()).fill_null(value=False)).to_series()
    if bad.any():
        raise DataError(
            f"row {(bad.arg_max() or 0) + 1} of the associations has a score that is no number", where=where
        )
    return table


def prefixed(ids: pl.Expr) -> pl.Expr:
    """Write EFO_0000274 as EFO:0000274, and Orphanet_399 as ORPHA:399."""
    return ids.str.strip_chars().str.replace(r"^Orphanet_", "ORPHA:").str.replace(r"^([A-Za-z]+)_", "${1}:")
