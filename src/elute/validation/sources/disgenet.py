"""DisGeNET: how strongly a gene is associated with a disease, as curated databases and the literature have it.

Curated rows are used alone, of a person's own file as of the service: free academic keys see no others, and text
mining says which genes are written about, not which take part. The score is DisGeNET's own (0 to 1); evidence is the
file's list of databases, or the service's level. Its rows may never be passed on.

The service: https://api.disgenet.com, a key of a free academic account in DISGENET_API_KEY. It answers about up to ten
genes at a time, in pages; what it answers is held against the number of rows that it says there are.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base import console
from elute.base.errors import DataError
from elute.validation.database import Database, File, Gene, Licence
from elute.validation.online.answers import Absent, Unusable, field, items, maybe
from elute.validation.online.pages import Page, walk
from elute.validation.online.service import Service
from elute.validation.reading.associations import Read, finish
from elute.validation.reading.columns import Layout, read_columns

if TYPE_CHECKING:
    import polars as pl

    from elute.validation.online.client import Client

_LAYOUT = Layout(
    need={
        "gene": ("geneId", "geneNcbiID", "gene_ncbi_id"),
        "term": ("diseaseId", "diseaseUMLSCUI", "disease_umls_cui"),
        "label": ("diseaseName", "disease_name"),
        "score": ("score",),
    },
    may={
        "called": ("geneSymbol", "symbolOfGene", "gene_symbol"),
        "evidence": ("source",),
        "group": ("diseaseType", "disease_type"),
    },
    separators="\t,",
    remedy="Is it DisGeNET's curated_gene_disease_associations.tsv?",
)
_CONCEPT = r"^(?:UMLS[:_])?(C\d{7})$"
SERVICE = Service(
    name="disgenet",
    base="https://api.disgenet.com/api/v1/",
    pause=1.0,
    key="DISGENET_API_KEY",
    key_in="header:Authorization",
    key_needed=True,
    waits=("x-rate-limit-retry-after-seconds", "retry-after"),
)


def read(files: Mapping[str, Path]) -> Read:
    """Read the file of curated associations."""
    path = files["associations"]
    sheet = read_columns(path, _LAYOUT)
    rows, lost = _rows(sheet.table, path)
    notes = (f"{console.count(lost, 'row')} without a gene or a UMLS concept left out",) if lost else ()
    if not len(rows):
        raise DataError("names no disease by its UMLS concept", where=path, remedy=_LAYOUT.remedy)
    return Read(finish(rows, where=path, gene_kind="entrez"), "", notes)


def _rows(table: pl.DataFrame, where: object) -> tuple[pl.DataFrame, int]:
    """Bring rows of the file or the service into form; and how many have no gene or concept."""
    import polars as pl

    score = table["score"].cast(pl.Float64, strict=False)
    if (odd := table["score"].filter(score.is_null() & table["score"].is_not_null())).len():
        raise DataError(f"the score {odd[0]!r} is no number", where=where, remedy=_LAYOUT.remedy)
    gene = pl.col("gene").str.extract(r"^(\d+)(?:\.0)?$")
    term = "UMLS:" + pl.col("term").str.extract(_CONCEPT)
    label = pl.coalesce(pl.col("label"), term)
    rows = table.with_columns(score=score, gene=gene, term=term, label=label).drop_nulls(["gene", "term"])
    return rows, len(table) - len(rows)


def ask(client: Client, genes: Sequence[Gene]) -> pl.DataFrame:
    """Ask for all curated associations of up to ten genes."""
    import polars as pl

    wanted = {gene.entrez for gene in genes}
    params: dict[str, str | int | Sequence[str]] = {
        "gene_ncbi_id": ",".join(sorted(wanted, key=int)),
        "source": "CURATED",
    }

    def fetch(number: int) -> Page:
        given = {**params, "page_number": number}
        return client.get(SERVICE, "gda/summary", params=given, read=lambda answer: _page(answer, number, wanted))

    try:
        found = walk(fetch, identity=lambda row: (row["gene"], row["term"]))
    except Absent:  # of none of these genes there is anything
        found = []
    schema = dict.fromkeys(("gene", "called", "term", "label", "score", "evidence", "group"), pl.String)
    rows, _ = _rows(pl.DataFrame(found, schema=schema), SERVICE.name)
    return finish(rows, where=SERVICE.name, gene_kind="entrez")


def _page(answer: Any, number: int, wanted: set[str]) -> Page:
    """Check one page, and take from it what the table needs."""
    if (status := field(answer, "status", str)) != "OK":
        raise Unusable(f"says that its status is {status[:40]!r}")
    if (current := maybe(answer, "paging.currentPageNumber", int)) not in (None, number):
        raise Unusable(f"gives page {current} for page {number}")
    for warning in maybe(answer, "warnings", list) or ():
        console.detail(f"DisGeNET says: {str(warning)[:200]}")
    rows = [_association(item) for item in items(answer, "payload")]
    if strange := next((row["gene"] for row in rows if row["gene"] not in wanted), None):
        raise Unusable(f"is about the gene {strange}, which was not asked for")
    return Page(rows, field(answer, "paging.totalElements", int))


def _association(item: dict[str, Any]) -> dict[str, str | None]:
    gene = item.get("geneNcbiID")
    return {
        "gene": gene if isinstance(gene, str) else str(field(item, "geneNcbiID", int)),
        "called": maybe(item, "symbolOfGene", str),
        "term": field(item, "diseaseUMLSCUI", str),
        "label": field(item, "diseaseName", str),
        "score": repr(field(item, "score", float)),
        "evidence": maybe(item, "el", str),
        "group": maybe(item, "diseaseType", str),
    }


SOURCE = Database(
    name="disgenet",
    title="DisGeNET",
    tier=2,
    licence=Licence(
        "DisGeNET's own terms",
        "https://disgenet.com/Legal",
        redistributable=False,
        only="academic and other non-commercial use",
    ),
    about="a gene is associated with a disease, with a score",
    files=(File("associations", called=("*gene_disease_associations*", "*disgenet*")),),
    read=read,
    by_hand=(
        "its licence lets nobody but you fetch it: download the curated gene-disease associations (.tsv) from "
        "https://disgenet.com with an academic account"
    ),
    ask=ask,
    ask_by="entrez",
    batch=10,
    key="DISGENET_API_KEY",
    draws_on=("clinvar", "orphanet", "gencc"),
)
