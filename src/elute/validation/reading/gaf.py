"""Annotations of gene products in GAF 2: which product has which term, by what kind of evidence.

Rows with the qualifier NOT say that a product does not have the term; rows with the code ND, that nobody knows of one.
Neither is an annotation. What is no protein of the wanted species (complexes, RNAs, a second organism) is left out too.

Format: https://geneontology.org/docs/go-annotation-file-gaf-format-2.2/
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from elute.base.errors import DataError
from elute.validation.reading.columns import Layout, read_columns

if TYPE_CHECKING:
    import polars as pl

_NAMES = (
    "db object_id symbol qualifier term reference evidence with_from aspect name synonyms type taxon date "
    "assigned_by extension form"
)
COLUMNS = tuple(_NAMES.split())
_LAYOUT = Layout(
    need={name: (name,) for name in ("db", "object_id", "symbol", "term", "evidence", "taxon")},
    may={"qualifier": ("qualifier",)},
    comment="!",
    names=COLUMNS,
    ragged=True,
    most=2**33,
    remedy="Is it a GAF 2 file (.gaf), of 17 columns? GPAD and GAF 1 are other formats.",
)
_DATE = re.compile(r"^date-generated:\s*(\d{4}-\d\d-\d\d)|^generated:\s*(\d{4}-\d\d-\d\d)", re.IGNORECASE)
_FORMAT = re.compile(r"^gaf-version:\s*(\d+)(\.\d+)?", re.IGNORECASE)


class Annotations(NamedTuple):
    """What a file says: a row (gene, gene_kind, term, evidence) for each code, once."""

    table: pl.DataFrame
    version: str
    notes: tuple[str, ...]


def read_gaf(path: Path, *, taxon: str = "9606", databases: tuple[str, ...] = ("UniProtKB",)) -> Annotations:
    """Read the annotations of one species' proteins, by their genes' symbols, else by their accessions."""
    import polars as pl

    left = dict.fromkeys(("that say NOT", "without data (ND)", "of other species", "of complexes and RNAs"), 0)

    def keep(part: pl.DataFrame) -> pl.DataFrame:
        denied = pl.col("qualifier").str.split("|").list.contains("NOT").fill_null(value=False)
        rules = (denied, pl.col("evidence") == "ND")
        other = pl.col("taxon").str.split("|").list.first().str.strip_prefix("taxon:") != taxon
        for why, rule in zip(left, (*rules, other, ~pl.col("db").is_in(databases)), strict=True):
            before = len(part)
            part = part.remove(rule)
            left[why] += before - len(part)
        named = pl.coalesce("symbol", "object_id").alias("gene")
        kind = pl.when(pl.col("symbol").is_null()).then(pl.lit("uniprot")).otherwise(pl.lit("symbol"))
        return part.select(named, kind.alias("gene_kind"), "term", "evidence").unique(maintain_order=True)

    sheet = read_columns(path, _LAYOUT, keep)
    found = next((match for line in sheet.comments if (match := _FORMAT.match(line))), None)
    if found and found[1] != "2":
        raise DataError(f"is GAF {found[1]}{found[2] or ''}, not GAF 2", where=path, remedy=_LAYOUT.remedy)
    table = sheet.table.drop_nulls().unique(maintain_order=True)
    strange = table["term"].filter(~table["term"].str.contains(r"^[A-Za-z_]+:\S+$"))
    if len(strange) or not len(table):
        what = f"{strange[0]!r} is no id of a term" if len(strange) else f"holds no annotation of the species {taxon}"
        raise DataError(what, where=path, remedy=_LAYOUT.remedy)
    dated = next((m[1] or m[2] for line in sheet.comments if (m := _DATE.match(line))), "")
    notes = tuple(f"{n:,} of {sheet.rows:,} annotations left out: those {why}" for why, n in left.items() if n)
    return Annotations(table, dated, notes)
