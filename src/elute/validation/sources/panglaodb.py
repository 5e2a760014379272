"""PanglaoDB: which genes mark which type of cell, as its curators and users wrote it down until March 2020.

The score is the share of cells of the type in which the gene was seen (`sensitivity_human`), absent where no human
data were there; the group is the organ. Whether a marker is a canonical one is its evidence. Markers of mouse alone
are left out: their symbols are of genes of the mouse.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from elute.base import console
from elute.base.errors import DataError
from elute.validation.database import Database, File, Licence
from elute.validation.reading.associations import Read, finish
from elute.validation.reading.columns import Layout, read_columns

if TYPE_CHECKING:
    import polars as pl

_LAYOUT = Layout(
    need={
        "species": ("species",),
        "gene": ("official gene symbol",),
        "term": ("cell type",),
        "canonical": ("canonical marker",),
    },
    may={"score": ("sensitivity_human",), "group": ("organ",)},
    separators="\t,",
    remedy="Is it PanglaoDB_markers_27_Mar_2020.tsv.gz, of 14 columns?",
)
_MISSING = ("NA", "nan", "NaN")


def read(files: Mapping[str, Path]) -> Read:
    """Read the table of markers."""
    import polars as pl

    path = files["markers"]
    sheet = read_columns(path, _LAYOUT)
    table = sheet.table.with_columns(pl.all().replace(dict.fromkeys(_MISSING)))
    human = table.filter(pl.col("species").str.split(" ").list.contains("Hs"))
    named = human.drop_nulls(["gene", "term"])
    if not len(named):
        raise DataError("holds no marker of human cells (species Hs)", where=path, remedy=_LAYOUT.remedy)
    notes = []
    if mouse := len(table) - len(human):
        notes.append(f"{console.count(mouse, 'marker')} that are not for human cells left out")
    if lost := len(human) - len(named):
        notes.append(f"{console.count(lost, 'row')} without a gene or a type of cell left out")
    canonical = pl.when(pl.col("canonical").is_in(["1", "1.0"])).then(pl.lit("canonical marker"))
    rows = named.with_columns(label="term", evidence=canonical.otherwise(pl.lit("marker")), score=_number(named, path))
    return Read(finish(rows, where=path, gene_kind="symbol"), _dated(path), tuple(notes))


def _number(table: pl.DataFrame, path: Path) -> pl.Series:
    import polars as pl

    score = table["score"].cast(pl.Float64, strict=False)
    if (odd := table["score"].filter(score.is_null() & table["score"].is_not_null())).len():
        raise DataError(f"sensitivity_human is {odd[0]!r}, which is no number", where=path, remedy=_LAYOUT.remedy)
    return score


def _dated(path: Path) -> str:
    """Return the day in the file's name, which is all that it says of its version."""
    if found := re.search(r"(\d{1,2})_([A-Z][a-z]{2})_(\d{4})", path.name):
        try:
            return datetime.strptime("-".join(found.groups()), "%d-%b-%Y").date().isoformat()
        except ValueError:
            return ""
    return ""


SOURCE = Database(
    name="panglaodb",
    title="PanglaoDB",
    tier=4,
    licence=Licence("none that is stated", "https://panglaodb.se/", redistributable=False),
    about="a gene marks a type of cell",
    files=(File("markers", called=("panglaodb*.tsv*", "panglaodb*.csv*")),),
    read=read,
    by_hand="it states no licence: download PanglaoDB_markers_27_Mar_2020.tsv.gz from https://panglaodb.se/markers.html",
)
