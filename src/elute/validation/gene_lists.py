"""A file of genes in, the same genes under all their names out, and what was lost.

A list has an identifier a line; a table (commas, semicolons or tabs) has a header; of an .h5ad file the table of genes
is read. Without a column's name the column of which HGNC knows most is taken.
"""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from elute.base.errors import ConfigError, DataError, MissingError, near
from elute.validation.mapping import gene_table

if TYPE_CHECKING:
    import polars as pl

    from elute.base.genes import GeneMapping, GeneTable, Kind

_HEADERS = (
    "gene",
    "genes",
    "symbol",
    "geneid",
    "genename",
    "genesymbol",
    "id",
    "name",
    "ensembl",
    "ensemblid",
    "entrez",
)
_MOST = 5_000_000  # lines: thousands of times what a list of genes has


class GeneList(NamedTuple):
    """Identifiers by the columns that they stand in; a plain list is one column without a name."""

    path: Path
    columns: dict[str, list[str]]


class Listed(NamedTuple):
    """What became of a list: a row an identifier, in the list's order."""

    table: pl.DataFrame
    column: str
    mapping: GeneMapping

    def counts(self) -> dict[str, int]:
        """How many of a list's identifiers went which way."""
        return dict(Counter(self.table["status"].to_list()))


def read_list(path: Path) -> GeneList:
    """Read a file of genes."""
    path = Path(path)
    if path.suffix.lower() == ".h5ad":
        from elute.models.cells.infile import open_file

        sheet = open_file(path)
        matrix = "X" if "X" in sheet.matrices else next(iter(sheet.matrices), "X")
        var = sheet.var(matrix)
        return GeneList(path, {name: [text or "" for text in var[name].to_list()] for name in var.columns})
    from elute.validation.reading.columns import lines

    rows: list[str] = []
    for number, line in lines(path):
        if number > _MOST:
            raise DataError(f"has more than {_MOST:,} lines, as no list of genes has", where=path)
        if line.strip() and not line.startswith("#"):
            rows.append(line)
    if not rows:
        raise DataError("lists no genes", where=path)
    separator = max("\t,;", key=rows[0].count)
    if separator not in rows[0]:
        head = "".join(c for c in rows[0].casefold() if c.isalnum())
        return GeneList(path, {"": [row.strip().strip('"') for row in rows[head in _HEADERS :]]})
    return GeneList(path, _columns(rows, separator, path))


def _columns(rows: list[str], separator: str, path: Path) -> dict[str, list[str]]:
    try:
        cells = list(csv.reader(rows, delimiter=separator, quotechar='"'))
    except csv.Error as error:
        raise DataError(f"is no table: {error}", where=path) from None
    names = [name.strip() or f"column {place}" for place, name in enumerate(cells[0], 1)]
    if len(set(names)) < len(names):
        twice = next(name for name in names if names.count(name) > 1)
        raise DataError(f"has the column {twice!r} twice", where=path)
    uneven = next((number for number, row in enumerate(cells[1:], 2) if len(row) != len(names)), None)
    if uneven:
        what = f"row {uneven} has {len(cells[uneven - 1])} fields, and the header {len(names)}"
        raise DataError(what, where=path, remedy="Is it separated by tabs, commas or semicolons throughout?")
    if len(cells) == 1:
        raise DataError("has a header and no rows", where=path)
    return {name: [row[place].strip() for row in cells[1:]] for place, name in enumerate(names)}


def map_list(genes: GeneList, *, column: str | None = None, kind: Kind | None = None) -> Listed:
    """Name the genes of a list in all ways that HGNC has, and say what was lost."""
    table = gene_table()
    if table is None:
        remedy = "Type: elute databases fetch hgnc"
        raise MissingError("genes are mapped through HGNC's table, which is not installed", remedy=remedy)
    if column is not None and column not in genes.columns:
        raise ConfigError(f"has no column {column!r}", where=genes.path, remedy=near(column, genes.columns))
    tried = {name: table.map(ids, "hgnc", kind=kind) for name, ids in genes.columns.items() if column in (None, name)}
    best = max(tried, key=lambda name: len(tried[name].mapped))
    if not tried[best].mapped:
        first = ", ".join(
            dict.fromkeys(text for text in genes.columns[best] if text).keys() if len(tried) == 1 else tried
        )
        what = "names no gene that HGNC knows"
        raise DataError(f"{what}: it has {first[:100]}", where=genes.path, remedy="Name the column: --column.")
    return Listed(_table(genes.columns[best], tried[best], table), best, tried[best])


def _table(given: list[str], mapping: GeneMapping, genes: GeneTable) -> pl.DataFrame:
    import polars as pl

    lacking, blank = set(mapping.lacking), {"", "nan", "NaN", "None", "<NA>"}

    def status(text: str, target: str | None) -> str:
        if target is not None:
            return "mapped"
        if text.strip() in blank:
            return "blank"
        return "ambiguous" if text in mapping.ambiguous else "lacking" if text in lacking else "unknown"

    table = pl.DataFrame(
        {
            "given": given,
            "hgnc": mapping.targets,
            "status": [status(text, target) for text, target in zip(given, mapping.targets, strict=True)],
            "candidates": [" ".join(mapping.ambiguous.get(text, ())) or None for text in given],
        },
        schema={"given": pl.String, "hgnc": pl.String, "status": pl.String, "candidates": pl.String},
    )
    named = genes.genes.select("hgnc", "symbol", "ensembl", "entrez", "uniprot")
    joined = table.join(named, on="hgnc", how="left", maintain_order="left")
    return joined.select("given", "status", "hgnc", "symbol", "ensembl", "entrez", "uniprot", "candidates")


def write(listed: Listed, path: Path) -> None:
    """Write the table with tabs between its columns, or as .csv or .parquet if the name ends so."""
    from elute.base.files import write_atomically

    kind = path.suffix.lower()
    if kind == ".parquet":
        write_atomically(path, listed.table.write_parquet)
    else:
        write_atomically(path, lambda handle: listed.table.write_csv(handle, separator="," if kind == ".csv" else "\t"))


def summary(listed: Listed) -> dict[str, Any]:
    """What a person or program wants to know of a mapping."""
    mapping = listed.mapping
    return {
        "column": listed.column,
        "kind": mapping.kind,
        "species": mapping.species,
        "identifiers": len(listed.table),
        "counts": listed.counts(),
        "unknown": list(mapping.unmapped),
        "ambiguous": {name: list(found) for name, found in mapping.ambiguous.items()},
        "shared": {name: list(found) for name, found in mapping.shared.items()},
        "told": mapping.summary(),
    }
