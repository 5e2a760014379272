"""CellMarker 2: which genes mark which type of cell, gathered from papers.

1. A row is a gene, a type of cell, a tissue and a paper. Tissues are joined: a set is a type of cell. The score is the
   number of papers, the evidence how they found it (experiment, sequencing, review, company).
2. Cells of tumours are other cells: their sets are called `… (cancer)`, and groups say `normal` or `cancer`.
3. Several names share one id of the Cell Ontology, and their markers differ. So a set's term is the id where it and
   the name belong to each other alone, else the name.
4. Markers without a symbol, and symbols that a spreadsheet made into dates (SEPT2 into 2-Sep), are left out.
"""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from elute.base import console
from elute.base.errors import DataError
from elute.validation.database import Database, File, Licence
from elute.validation.reading.associations import Read, finish
from elute.validation.reading.columns import Layout, read_columns
from elute.validation.reading.xlsx import read_sheet

if TYPE_CHECKING:
    import polars as pl

_LAYOUT = Layout(
    need={
        "species": ("species",),
        "state": ("cell_type",),
        "cell": ("cell_name",),
        "gene": ("Symbol",),
        "evidence": ("marker_source",),
        "paper": ("PMID",),
    },
    may={"id": ("cellontology_id",)},
    separators="\t,",
    quoted=True,
    remedy="Is it Cell_marker_Human.xlsx of CellMarker 2.0? The tables of 2018 have other columns.",
)
_MISSING = ("NA", "nan", "NaN", "None", "none")
_MONTHS = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
_DATE = rf"(?i)^(\d{{1,2}}-({_MONTHS})(-\d+)?|({_MONTHS})-\d+|\d{{4}}-\d\d-\d\d( .*)?|\d+)$"


def read(files: Mapping[str, Path]) -> Read:
    """Read the table of markers, as a workbook or as text."""
    import polars as pl

    path = files["markers"]
    workbook = zipfile.is_zipfile(path) and not path.name.lower().endswith(".zip")
    workbook = workbook or path.name.lower().endswith((".xlsx", ".xls"))
    table = read_sheet(path, _LAYOUT)[0] if workbook else read_columns(path, _LAYOUT).table
    table = table.with_columns(pl.all().replace(dict.fromkeys(_MISSING)))
    kept, notes = _kept(table)
    if not len(kept):
        raise DataError("holds no marker of human cells", where=path, remedy=_LAYOUT.remedy)
    return Read(finish(_sets(kept), where=path, gene_kind="symbol"), "", tuple(notes))


def _kept(table: pl.DataFrame) -> tuple[pl.DataFrame, list[str]]:
    import polars as pl

    rules = (
        ("of other species", pl.col("species").str.to_lowercase().ne_missing("human")),
        ("without a symbol", pl.col("gene").is_null()),
        ("without a type of cell", pl.col("cell").is_null()),
        ("whose symbol a spreadsheet made into a date or a number", pl.col("gene").str.contains(_DATE)),
    )
    notes = []
    for why, rule in rules:
        before = len(table)
        table = table.remove(rule)
        if lost := before - len(table):
            notes.append(f"{console.count(lost, 'row')} left out: {why}")
    return table, notes


def _sets(table: pl.DataFrame) -> pl.DataFrame:
    """Join the papers of each gene and cell, and call the cell by its id where that is its alone."""
    import polars as pl

    cancer = pl.col("state").str.to_lowercase().str.contains("cancer", literal=True).fill_null(value=False)
    known = pl.when(pl.col("id").str.contains(r"^CL[_:]\d{7}$")).then(pl.col("id").str.replace("_", ":"))
    table = table.with_columns(
        label=pl.when(cancer).then(pl.col("cell") + " (cancer)").otherwise("cell"),
        group=pl.when(cancer).then(pl.lit("cancer")).otherwise(pl.lit("normal")),
        id=pl.when(~cancer).then(known),
    )
    pairs = table.select("id", "label").drop_nulls().unique(maintain_order=True)
    alone = pairs.filter(pl.col("id").is_unique() & pl.col("label").is_unique())
    table = table.drop("id").join(alone, on="label", how="left", maintain_order="left")
    found = pl.col("evidence").drop_nulls().unique().sort().str.join(", ")
    return (
        table.with_columns(term=pl.coalesce("id", "label"))
        .group_by("gene", "term", "label", "group", maintain_order=True)
        .agg(score=pl.col("paper").drop_nulls().n_unique(), evidence=found)
        .with_columns(
            score=pl.when(pl.col("score") > 0).then("score"),
            evidence=pl.when(pl.col("evidence") != "").then("evidence"),
        )
    )


SOURCE = Database(
    name="cellmarker",
    title="CellMarker 2",
    tier=4,
    licence=Licence("none that is stated", "http://bio-bigdata.hrbmu.edu.cn/CellMarker/", redistributable=False),
    about="a gene marks a type of cell",
    files=(File("markers", called=("cell_marker*.xlsx", "cell_marker*.csv*", "cell_marker*.tsv*", "cellmarker*")),),
    read=read,
    by_hand=(
        "it states no licence: download Cell_marker_Human.xlsx from "
        "http://bio-bigdata.hrbmu.edu.cn/CellMarker/CellMarker_download.html"
    ),
)
