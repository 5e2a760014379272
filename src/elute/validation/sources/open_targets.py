"""Open Targets: how strongly the evidence of some twenty sources, taken together, ties a gene to a disease.

1. A release publishes its tables as folders of Parquet parts. Up to 24.09 they are `associationByOverallDirect` and
   `diseases`, from 25.03 on `association_overall_direct` and `disease`; the column `score` is `associationScore` from
   26.03 on. The direct table is read: the indirect one says each row again at all ancestors of its disease.
2. The service is asked in GraphQL and rejects a query whose cost is above 4,000: a page's size times its fields, times
   its genes. So one query asks for the counts, genes with few rows share further ones, the others are paged.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base.console import count
from elute.base.errors import DamagedError, DataError, ServiceError
from elute.store.imports.parts import polars_reading
from elute.validation.database import Database, File, Gene, Licence, Releases
from elute.validation.online.answers import Unusable, field, items
from elute.validation.online.pages import Page, walk
from elute.validation.online.service import Service
from elute.validation.reading.associations import Read, finish, prefixed
from elute.validation.reading.columns import opened

if TYPE_CHECKING:
    import polars as pl

    from elute.validation.online.client import Client

_PLACE = "https://ftp.ebi.ac.uk/pub/databases/opentargets/platform/"
_MOST_ROWS = 10**8  # twenty times the rows of today's table: what holds more is something else
_NEEDED = {"gene": ("targetId",), "term": ("diseaseId",), "score": ("score", "associationScore")}
_AGAIN = "Download the folder anew."

SERVICE = Service(name="open-targets", base="https://api.platform.opentargets.org/api/v4/", pause=0.2)
_BUDGETS = (4000, 1000, 100)  # what a query may cost: the limit today, and what is tried should it be lowered
_ASKED = {**dict.fromkeys(("gene", "called", "term", "label"), str), "score": float, "evidence": str}
_ROW_COST = 10  # the fields of one row on a page, and that of the count
_COUNTS = """query Counts($ids: [String!]!) {
  targets(ensemblIds: $ids) { id associatedDiseases(page: {index: 0, size: 1}, enableIndirect: false) { count } }
}"""
_ROWS = """query Rows($ids: [String!]!, $index: Int!, $size: Int!) {
  targets(ensemblIds: $ids) {
    id
    approvedSymbol
    associatedDiseases(page: {index: $index, size: $size}, orderByScore: "score desc", enableIndirect: false) {
      count
      rows { score disease { id name } datatypeScores { id score } }
    }
  }
}"""


def _read(files: Mapping[str, Path]) -> Read:
    import polars as pl

    path = Path(files["associations"])
    if "indirect" in path.name.lower():
        what = "is the indirect table, which says each row again at all ancestors of its disease"
        raise DataError(what, where=path, remedy="Give the direct one: association_overall_direct.")
    table = _joined(path, _NEEDED, {"evidence": ("evidenceCount",)})
    rows, notes = len(table), []
    table = table.filter(pl.col("gene").str.starts_with("ENSG"))
    if len(table) < rows:
        notes.append(f"{count(rows - len(table), 'row')} left out: the target is no human Ensembl gene.")
    pairs = table.select(pl.struct("gene", "term").n_unique()).item()
    if pairs < len(table):
        what = f"has {count(len(table) - pairs, 'pair')} of gene and disease more than once: parts of two releases"
        raise DataError(what, where=path, remedy=_AGAIN)
    if "diseases" not in files:
        table = table.with_columns(label="term")
        notes.append("Diseases are named by their ids: the table of diseases was not given.")
    else:
        table = table.join(
            _names(Path(files["diseases"]), "term", "name"), on="term", how="left", maintain_order="left"
        )
        if bare := int(table.filter(pl.col("name").is_null())["term"].n_unique()):
            notes.append(f"{count(bare, 'disease')} without a name in its table: the id stands there.")
        table = table.with_columns(pl.coalesce("name", "term").alias("label"))
    if "targets" in files:
        symbols = _names(Path(files["targets"]), "gene", "approvedSymbol")
        table = table.join(symbols, on="gene", how="left", maintain_order="left").rename({"approvedSymbol": "called"})
    one = pl.col("evidence") == "1"
    table = table.with_columns(
        evidence=pl.format("{} piece{} of evidence", "evidence", pl.when(one).then(pl.lit("")).otherwise(pl.lit("s")))
    )
    return Read(finish(table, where=path, gene_kind="ensembl"), "", tuple(notes))


def _names(path: Path, key: str, name: str) -> pl.DataFrame:
    """Read what the ids of a table are called."""
    import polars as pl

    table = _joined(path, {key: ("id",), name: (name,)}, {})
    return table.filter(pl.col(name).str.strip_chars() != "").unique(key, keep="first", maintain_order=True)


def _joined(path: Path, need: Mapping[str, Sequence[str]], may: Mapping[str, Sequence[str]]) -> pl.DataFrame:
    """Read columns of one part or of a folder of them, under our names; all parts must be of one release."""
    import polars as pl

    frames, first = [], None
    for part in _parts(path):
        with polars_reading(part, "Parquet"):
            scan = pl.scan_parquet(part, glob=False, hive_partitioning=False)
            columns = _columns(scan.collect_schema(), part, (need, may))
            rows = int(scan.select(pl.len()).collect().item())
        first = first or (part, columns)
        if columns != first[1]:
            raise DataError(f"has other columns than {first[0].name}: parts of two releases", where=part, remedy=_AGAIN)
        if rows > _MOST_ROWS:
            raise DataError(f"holds {rows:,} rows, more than a part of this table can", where=part)
        with polars_reading(part, "Parquet"):
            frames.append(scan.select(_tidy(name, there) for name, there in columns.items()).collect())
    table = pl.concat(frames)
    if not len(table):
        raise DataError("holds no rows", where=path, remedy=_AGAIN)
    return table


def _parts(path: Path) -> list[Path]:
    if path.is_dir():
        parts = sorted(part for part in path.iterdir() if part.name.endswith(".parquet") and part.name[0] not in "._")
        if not parts:
            raise DataError("holds no .parquet files", where=path, remedy="Give the folder with the table's parts.")
    else:
        parts = [path]
    for part in parts:
        with opened(part) as stream:  # refuses what is empty, a web page, or no file
            whole = stream.read(4) == b"PAR1"
        if not whole:
            raise DamagedError("is no Parquet file", where=part, remedy=_AGAIN)
    return parts


def _columns(
    schema: pl.Schema, part: Path, wanted: tuple[Mapping[str, Sequence[str]], ...]
) -> dict[str, tuple[str, pl.DataType] | None]:
    """Find our columns under the names that releases have used, each of the right type."""
    import polars as pl

    need, may = wanted
    found: dict[str, tuple[str, pl.DataType] | None] = {}
    for name, spellings in (*need.items(), *may.items()):
        there = next((each for each in spellings if each in schema), None)
        if there is None and name in need:
            shown = ", ".join(schema.names()[:20])
            raise DataError(f"lacks the column {' or '.join(spellings)}; there are {shown}", where=part)
        found[name] = None if there is None else (there, schema[there])
        number = name in ("score", "evidence")
        if there and not (schema[there].is_numeric() if number else schema[there] == pl.String):
            raise DataError(f"has {schema[there]} in the column {there}, which cannot be", where=part)
    return found


def _tidy(name: str, there: tuple[str, pl.DataType] | None) -> pl.Expr:
    import polars as pl

    if there is None:
        return pl.lit(None, dtype=pl.String).alias(name)
    column = pl.col(there[0])
    if name == "term":
        column = prefixed(column)
    return (column.cast(pl.Float64) if name == "score" else column.cast(pl.String)).alias(name)


class _DearError(Exception):
    """The service rejects a query for what it costs."""


def _ask(client: Client, genes: Sequence[Gene]) -> pl.DataFrame:
    import polars as pl

    ids = list(dict.fromkeys(gene.ensembl for gene in genes))
    what = ""
    for budget in _BUDGETS:
        try:
            table = pl.DataFrame(list(_rows(client, ids, budget)), schema=_ASKED, orient="row")
        except _DearError as dear:
            what = str(dear)
            continue
        return finish(table.with_columns(prefixed(pl.col("term"))), where=SERVICE.name, gene_kind="ensembl")
    raise ServiceError(f"{what}, even for few rows", where=SERVICE.name)


def _rows(client: Client, ids: Sequence[str], budget: int) -> Iterator[tuple[Any, ...]]:
    """Give all rows of genes: those with few share queries, as many as a query's cost allows."""
    counts = {target["id"]: _count(target) for target in _targets(client, _COUNTS, ids)}
    most = max(1, (budget - 2) // _ROW_COST)
    left = sorted((gene for gene in counts if counts[gene]), key=lambda gene: (counts[gene], gene))
    while left:
        fits = 1 + sum((n + 1) * (2 + _ROW_COST * counts[gene]) <= budget for n, gene in enumerate(left[1:], 1))
        share, left = left[:fits], left[fits:]
        found = {target["id"]: target for target in _targets(client, _ROWS, share, size=min(most, counts[share[-1]]))}
        for gene in share:
            rows = _diseases(found[gene])
            if _count(found[gene]) > len(rows):
                rows = walk(partial(_page, client, gene, size=most), identity=lambda row: row["disease"]["id"])
            for row in rows:
                kinds = sorted(row["datatypeScores"], key=lambda kind: -kind["score"])
                evidence = "; ".join(kind["id"] for kind in kinds) or None
                disease = row["disease"]
                yield gene, found[gene]["approvedSymbol"], disease["id"], disease["name"], row["score"], evidence


def _page(client: Client, gene: str, index: int, *, size: int) -> Page:
    target = _targets(client, _ROWS, [gene], index=index, size=size)[0]
    return Page(_diseases(target), _count(target))


def _targets(client: Client, query: str, ids: Sequence[str], **page: int) -> list[dict[str, Any]]:
    """Send a query for genes; return what is found, checked."""
    told = {"query": query, "variables": {"ids": list(ids), **page}}
    try:
        found = client.post(SERVICE, "graphql", json=told, read=partial(_answer, ids=ids, paged=bool(page)))
    except ServiceError as error:
        if re.search(r"\b400\b|too expensive", error.what):
            raise _DearError(error.what) from None
        raise
    if found is None:
        raise _DearError("says that a query is too expensive")
    return found


def _answer(answer: Any, *, ids: Sequence[str], paged: bool) -> list[dict[str, Any]] | None:
    """Check an answer; None if the query is too expensive for the service."""
    if isinstance(answer, dict) and answer.get("errors"):
        said = "; ".join(str(error.get("message")) for error in items(answer, "errors"))
        if "too expensive" in said:
            return None
        raise Unusable(f"tells of an error: {said[:200]}")
    targets = items(answer, "data.targets")
    for target in targets:
        if paged:
            field(target, "approvedSymbol", str)
            rows = len({row["disease"]["id"] for row in _diseases(target)})
            if rows < len(_diseases(target)) or rows > _count(target):
                raise Unusable(f"gives a disease twice, or more than the {_count(target)} that it counts")
    found = {field(target, "id", str) for target in targets if _count(target) >= 0}
    if len(found) < len(targets) or not found <= set(ids):
        raise Unusable("tells of a gene twice, or of one that was not asked for")
    if paged and len(found) < len(ids):  # whether it knows a gene at all was asked before
        raise Unusable(f"leaves out {min(set(ids) - found)}")
    return targets


def _count(target: dict[str, Any]) -> int:
    return field(target, "associatedDiseases.count", int)


def _diseases(target: dict[str, Any]) -> list[dict[str, Any]]:
    rows = items(target, "associatedDiseases.rows")
    for row in rows:
        named = field(row, "disease.id", str) and field(row, "disease.name", str)
        if not named or not 0 <= field(row, "score", float) <= 1:
            raise Unusable("has a disease without a name, or a score that is not from 0 to 1")
        for kind in items(row, "datatypeScores"):
            field(kind, "id", str)
            field(kind, "score", float)
    return rows


SOURCE = Database(
    name="open-targets",
    title="Open Targets",
    tier=1,
    licence=Licence("CC0 1.0", "https://platform-docs.opentargets.org/licence", redistributable=True),
    about="a gene and a disease that some of twenty sources of evidence tie together, with one score from 0 to 1",
    files=(
        File(
            role="associations",
            url=_PLACE + "{version}/output/association_overall_direct/",
            called=("association_overall_direct*", "associationbyoveralldirect*"),
        ),
        File(
            role="diseases",
            url=_PLACE + "{version}/output/disease/",
            called=("disease", "diseases", "disease.parquet", "diseases.parquet"),
            needed=False,
        ),
        # A hundred times the symbols that it is read for: not fetched, but read where somebody has it.
        File("targets", "", ("target", "targets", "target.parquet", "targets.parquet"), needed=False),
    ),
    read=_read,
    ask=_ask,
    ask_by="ensembl",
    batch=25,
    releases=Releases(_PLACE, r"\b(\d\d\.\d\d)/"),
    draws_on=("clinvar", "gwas-catalog", "orphanet", "reactome"),
)
