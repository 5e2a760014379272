"""GenCC: how sure expert groups are that a gene causes a disease.

1. Every submission is a row, with its classification and submitter as evidence. Of several versions of one submission
   the newest counts.
2. The score is the classification's rank: Definitive 5, Strong 4, Moderate 3, Supportive 2, Limited 1. Supportive,
   which stands for any of the three above it where a submitter does not tell them apart, stays below them.
3. Refuted Evidence, Disputed Evidence, No Known Disease Relationship and Animal Model Only do not say that the gene
   causes the disease in people. Such submissions are no rows: whatever counts a term's genes would count them. But they
   are not hidden: where others do say so, each row's evidence ends `; against: Disputed Evidence, Ambry Genetics`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from elute.base import console
from elute.base.errors import DataError
from elute.validation.database import Database, File, Licence
from elute.validation.reading.associations import Read, finish
from elute.validation.reading.columns import Layout, read_columns

if TYPE_CHECKING:
    import polars as pl

RANKS = {"definitive": 5.0, "strong": 4.0, "moderate": 3.0, "supportive": 2.0, "limited": 1.0}
AGAINST = ("disputed evidence", "refuted evidence", "no known disease relationship", "animal model only")
_LAYOUT = Layout(
    need={
        "gene": ("gene_curie",),
        "term": ("disease_curie",),
        "class": ("classification_title",),
        "submitter": ("submitter_title",),
    },
    may={
        "called": ("gene_symbol",),
        "label": ("disease_title",),
        "submission": ("sgc_id",),
        "number": ("version_number",),
        "date": ("submitted_run_date",),
    },
    separators="\t,",
    quoted=True,
    comment="",
    remedy="Is it GenCC's export of submissions, as text? The facts are at https://thegencc.org/download.",
)
_PAIR = ("gene", "term")


def read(files: Mapping[str, Path]) -> Read:
    """Read the export of all submissions, of today's columns or of those until September 2026."""
    import polars as pl

    path = files["submissions"]
    sheet = read_columns(path, _LAYOUT)
    table = _newest(sheet.table)
    notes = [f"{console.count(sheet.rows - len(table), 'submission')} superseded by newer versions of themselves"]
    whole = table.drop_nulls([*_PAIR, "class"])
    notes.append(
        f"{console.count(len(table) - len(whole), 'submission')} without a gene, a disease or a classification"
    )
    whole = whole.with_columns(known=pl.col("class").str.to_lowercase())
    positive = whole.filter(pl.col("known").is_in(RANKS.keys()))
    negative = whole.filter(pl.col("known").is_in(AGAINST))
    for title in sorted(negative["class"].unique()):
        n = len(negative.filter(pl.col("class") == title))
        notes.append(f"{console.count(n, 'submission')} left out: {title}")
    strange = whole.remove(pl.col("known").is_in([*RANKS, *AGAINST]))["class"].unique().sort()
    if len(strange):
        n = len(whole) - len(positive) - len(negative)
        notes.append(f"{console.count(n, 'submission')} left out for a classification that is new ({strange[0]!r})")
    if not len(positive):
        raise DataError("holds no submission that a gene causes a disease", where=path, remedy=_LAYOUT.remedy)
    rows, contradicted = _with_dissent(positive, negative)
    notes.append(f"{console.count(contradicted, 'pair')} of a gene and a disease with submissions for and against it")
    version = str(table["date"].drop_nulls().max() or "")[:10]
    said = tuple(note for note in notes if not note.startswith("0 "))
    return Read(finish(rows, where=path, gene_kind="hgnc"), version, said)


def _newest(table: pl.DataFrame) -> pl.DataFrame:
    """Keep the newest version of each submission that has a number."""
    import polars as pl

    number = pl.col("number").cast(pl.Int64, strict=False).fill_null(0)
    newest = number == number.max().over("submission")
    return table.filter(pl.col("submission").is_null() | newest)


def _with_dissent(positive: pl.DataFrame, negative: pl.DataFrame) -> tuple[pl.DataFrame, int]:
    """Give each submission its score and evidence, with what others say against it; and how many pairs have that."""
    import polars as pl

    said = pl.concat_str("class", pl.col("submitter").fill_null("unnamed"), separator=", ")
    against = negative.group_by(_PAIR).agg(against=said.unique().sort().str.join("; "))
    rows = positive.join(against, on=_PAIR, how="left", maintain_order="left")
    dissent = pl.when(pl.col("against").is_not_null()).then("; against: " + pl.col("against")).otherwise(pl.lit(""))
    rows = rows.with_columns(
        label=pl.coalesce("label", "term"),
        score=pl.col("known").replace_strict(RANKS, return_dtype=pl.Float64),
        evidence=said + dissent,
    )
    return rows, rows.drop_nulls("against").select(_PAIR).n_unique()


SOURCE = Database(
    name="gencc",
    title="GenCC",
    tier=3,
    licence=Licence("CC0 1.0", "https://thegencc.org/terms", redistributable=True),
    about="experts say how surely a gene causes a disease",
    files=(
        File(
            "submissions",
            "https://search.thegencc.org/download/action/submissions-export-tsv?format=new",
            ("*gencc*", "submissions*"),
        ),
    ),
    read=read,
    draws_on=("omim", "orphanet"),
)
