"""ClinVar: which genes go with which condition, as laboratories and curators submitted it.

1. `gene_condition_source_id` says which conditions a gene goes with, and who says so. Groups tell genes that are said
   to cause the condition (`associated`) from those that lie in its variants (`related`).
2. `variant_summary.txt.gz` (4 GB unpacked, so streamed) has every variant. Those of GRCh38 that are pathogenic or
   likely pathogenic are counted for each gene and condition, the group is `variants` (see reading/variants.py). Benign,
   uncertain and conflicting ones are left out, and counted. The file does not say for which of a variant's conditions
   it is pathogenic, so it counts for each. It is not fetched, for its size: import it beside the first.

The service gives what the second file has (https://www.ncbi.nlm.nih.gov/clinvar/docs/maintenance_use/). It may be asked
three times a second, ten times with a key in NCBI_API_KEY.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base.errors import DataError, MissingError, ServiceError
from elute.validation.database import Database, File, Gene, Licence
from elute.validation.online.answers import Later, Unusable, field, items, maybe
from elute.validation.online.pages import Page, walk
from elute.validation.online.service import Service
from elute.validation.reading.associations import Read, finish
from elute.validation.reading.columns import Layout, lines, read_columns
from elute.validation.reading.variants import PATHOGENIC, Variant, condition, conditions, counted, one_gene

if TYPE_CHECKING:
    import polars as pl

    from elute.validation.online.client import Client

_CONDITIONS = Layout(
    need={"gene": ("GeneID",), "concept": ("ConceptID",), "label": ("DiseaseName",), "evidence": ("SourceName",)},
    may={
        "associated": ("AssociatedGenes", "GeneSymbol", "Symbol"),
        "related": ("RelatedGenes",),
        "mim": ("DiseaseMIM",),
        "date": ("LastUpdated", "LastModified"),
    },
    names=(
        *("GeneID", "AssociatedGenes", "RelatedGenes", "ConceptID", "DiseaseName", "SourceName", "SourceID"),
        *("DiseaseMIM", "LastUpdated"),
    ),
    remedy="Is it gene_condition_source_id of https://ftp.ncbi.nlm.nih.gov/pub/clinvar/?",
)
_VARIANTS = Layout(
    need={
        "id": ("VariationID",),
        "genes": ("GeneSymbol",),
        "significance": ("ClinicalSignificance",),
        "review": ("ReviewStatus",),
        "ids": ("PhenotypeIDS",),
        "names": ("PhenotypeList",),
        "assembly": ("Assembly",),
    },
    most=2**34,
    remedy="Is it variant_summary.txt.gz of https://ftp.ncbi.nlm.nih.gov/pub/clinvar/tab_delimited/?",
)
_KINDS = (("uncertain", "uncertain"), ("benign", "benign"), (PATHOGENIC, ""), ("conflicting", "conflicting"))
_OTHER = "of another kind"
SERVICE = Service(
    name="clinvar",
    base="https://eutils.ncbi.nlm.nih.gov/entrez/eutils/",
    pause=0.34,
    key="NCBI_API_KEY",
    key_in="query:api_key",
)
_PAUSE_WITH_KEY = 0.11
_US = {"db": "clinvar", "retmode": "json", "tool": "elute"}
_IDS_A_PAGE = 500
_IDS_A_REQUEST = 300  # 500 are allowed, but their commas, escaped, make too long an address


def read(files: Mapping[str, Path]) -> Read:
    """Read the file of conditions, that of variants, or both."""
    import polars as pl

    parts = []
    if "conditions" in files:
        parts.append(_read_conditions(files["conditions"]))
    if "variants" in files:
        parts.append(_read_variants(files["variants"]))
    if not parts:
        raise MissingError("ClinVar needs gene_condition_source_id or variant_summary.txt.gz")
    notes = tuple(note for part in parts for note in part.notes)
    return Read(pl.concat(part.table for part in parts), parts[0].version, notes)


def _read_conditions(path: Path) -> Read:
    import polars as pl

    headed = next(lines(path))[1].startswith("#")  # then no column is taken for another, whatever it is called
    sheet = read_columns(path, replace(_CONDITIONS, names=(), comment="") if headed else _CONDITIONS)
    related = pl.col("associated").is_null() & pl.col("related").is_not_null()
    table = sheet.table.with_columns(
        term=pl.coalesce(
            "UMLS:" + pl.col("concept").str.extract(r"^(C\d+)$"),
            "MEDGEN:" + pl.col("concept").str.extract(r"^(CN\d+|\d+)$"),
            "OMIM:" + pl.col("mim").str.extract(r"^(\d{6})$"),
        ),
        gene=pl.col("gene").str.extract(r"^([1-9]\d*)$"),
        called=pl.coalesce("associated", "related"),
        group=pl.when(related).then(pl.lit("related")).otherwise(pl.lit("associated")),
    )
    kept = table.drop_nulls(["gene", "term"]).with_columns(label=pl.coalesce("label", "term"))
    if not len(kept):
        raise DataError("names no gene with a concept of MedGen", where=path, remedy=_CONDITIONS.remedy)
    lost = len(table) - len(kept)
    notes = (f"{lost:,} of {len(table):,} rows left out: without a gene or a condition",) if lost else ()
    newest = table["date"].str.to_date("%d %b %Y", strict=False).max()
    return Read(finish(kept, where=path, gene_kind="entrez"), "" if newest is None else str(newest), notes)


def _read_variants(path: Path) -> Read:
    """Stream the file of variants and count those that are pathogenic."""
    import polars as pl

    left: Counter[str] = Counter()
    kind = pl.lit(_OTHER)
    for pattern, called in _KINDS:
        found = pl.col("significance").str.to_lowercase().str.contains(pattern)
        kind = pl.when(found).then(pl.lit(called)).otherwise(kind)

    def keep(part: pl.DataFrame) -> pl.DataFrame:
        part = part.filter(pl.col("assembly") == "GRCh38").with_columns(kind=kind)
        left.update(dict(part["kind"].value_counts().iter_rows()))
        return part.filter(pl.col("kind") == "").select(pl.col("id", "genes", "review", "ids", "names").fill_null(""))

    rows = read_columns(path, _VARIANTS, keep).table
    total = left.total()
    if not total:
        raise DataError("holds no variant of GRCh38", where=path, remedy=_VARIANTS.remedy)
    variants = (
        Variant(number, one_gene(genes.split(";")), review, tuple(conditions(ids, names)))
        for number, genes, review, ids, names in rows.iter_rows()
    )
    del left[""]
    table = counted(variants, left, where=path)
    return Read(
        table, "", tuple(f"{n:,} of {total:,} variants of GRCh38 left out: {why}" for why, n in sorted(left.items()))
    )


def ask(client: Client, genes: Sequence[Gene]) -> pl.DataFrame:
    """Ask for all pathogenic and likely pathogenic variants of genes, and count them."""
    import polars as pl

    service = replace(SERVICE, pause=_PAUSE_WITH_KEY) if os.environ.get(SERVICE.key) else SERVICE
    return pl.concat(_ask_one(client, service, gene.symbol) for gene in genes)


def _ask_one(client: Client, service: Service, symbol: str) -> pl.DataFrame:
    term = f"{symbol}[gene] AND (clinsig_pathogenic[Filter] OR clinsig_likely_path[Filter])"

    def search(number: int) -> Page:
        start = number * _IDS_A_PAGE
        params: dict[str, str | int] = {**_US, "term": term, "retmax": _IDS_A_PAGE, "retstart": start}
        return client.get(service, "esearch.fcgi", params=params, read=lambda answer: _ids(answer, start))

    ids = walk(search, identity=str)
    given = [ids[at : at + _IDS_A_REQUEST] for at in range(0, len(ids), _IDS_A_REQUEST)]
    records = [record for part in given for record in _summaries(client, service, part)]
    about = [record for record in records if symbol.casefold() in _symbols(record)]
    if records and not about:
        raise ServiceError(f"answers with variants of other genes than {symbol}", where=service.name)
    # Of another gene with this one as a synonym, or of several genes: as in the file.
    variants = [variant for record in about if (variant := _variant(record)).gene.casefold() == symbol.casefold()]
    return counted(variants, Counter(), where=service.name)


def _ids(answer: Any, start: int) -> Page:
    """Check one page of a search: a part of the question that was not understood is not passed over."""
    if (error := maybe(answer, "esearchresult.ERROR", str)) is not None:
        raise Unusable(f"says: {error[:80]}")
    count, ids = field(answer, "esearchresult.count", str), field(answer, "esearchresult.idlist", list)
    if not count.isdigit() or not all(isinstance(each, str) and each.isdigit() for each in ids):
        raise Unusable("has no numbers at esearchresult.count and .idlist")
    unknown = [*(maybe(answer, "esearchresult.errorlist.fieldsnotfound", list) or ())]
    unknown += maybe(answer, "esearchresult.warninglist.phrasesignored", list) or ()
    if int(count):
        unknown += maybe(answer, "esearchresult.errorlist.phrasesnotfound", list) or ()
    if unknown:
        raise Unusable(f"did not understand {str(unknown[0])[:40]!r}")
    if (given := maybe(answer, "esearchresult.retstart", str)) not in (None, str(start)):
        raise Unusable(f"begins at {given}, not at {start}")
    return Page(ids, int(count))


def _summaries(client: Client, service: Service, ids: Sequence[str]) -> list[dict[str, Any]]:
    """Ask for the records of some variants; in halves, where together they are too large for the service."""
    params = {**_US, "id": ",".join(ids)}
    found = client.get(service, "esummary.fcgi", params=params, read=lambda answer: _records(answer, ids))
    if found is not None:
        return found
    if len(ids) == 1:
        raise ServiceError(f"says that the variant {ids[0]} is too large to be given", where=service.name)
    half = len(ids) // 2
    return _summaries(client, service, ids[:half]) + _summaries(client, service, ids[half:])


def _records(answer: Any, ids: Sequence[str]) -> list[dict[str, Any]] | None:
    """Return the records of just these variants; None if the service says that they are too large."""
    error = answer.get("error") if isinstance(answer, dict) else None
    if isinstance(error, str):
        if "too large" in error.casefold() or "cannot be transformed" in error.casefold():
            return None
        raise Later(f"says: {error[:80]}") if "rate limit" in error.casefold() else Unusable(f"says: {error[:80]}")
    result = field(answer, "result", dict)
    if sorted(map(str, field(answer, "result.uids", list))) != sorted(ids):
        raise Unusable("has other variants at result.uids than those asked for")
    records = [field(result, number, dict) for number in ids]
    for record in records:
        if (error := maybe(record, "error", str)) is not None:
            raise Unusable(f"says of the variant {record.get('uid')}: {error[:80]}")
        _variant(record)  # so that a record of another form is seen here, and not kept
    return records


def _symbols(record: dict[str, Any]) -> set[str]:
    return {field(gene, "symbol", str).casefold() for gene in items(record, "genes")}


def _variant(record: dict[str, Any]) -> Variant:
    """Take from a record what is counted; a variant that is not pathogenic after all has no conditions."""
    meaning = field(record, "germline_classification.description", str).lower()
    pathogenic = "conflicting" not in meaning and re.search(PATHOGENIC, meaning)
    traits = items(record, "germline_classification.trait_set") if pathogenic else []
    found = []
    for trait in traits:
        xrefs = [(field(x, "db_source", str), field(x, "db_id", str)) for x in items(trait, "trait_xrefs")]
        found.append(condition(xrefs, field(trait, "trait_name", str)))
    gene = one_gene(field(each, "symbol", str) for each in items(record, "genes"))
    review = field(record, "germline_classification.review_status", str)
    return Variant(field(record, "uid", str), gene, review, tuple(each for each in found if each))


SOURCE = Database(
    name="clinvar",
    title="ClinVar",
    tier=3,
    licence=Licence(
        "public domain", "https://www.ncbi.nlm.nih.gov/clinvar/docs/maintenance_use/", redistributable=True
    ),
    about="a gene goes with a condition, by what was submitted of its variants",
    files=(
        File(
            "conditions",
            "https://ftp.ncbi.nlm.nih.gov/pub/clinvar/gene_condition_source_id",
            ("*gene_condition_source_id*", "conditions.txt"),
            needed=False,
        ),
        File("variants", called=("*variant_summary*",), needed=False),
    ),
    read=read,
    ask=ask,
    draws_on=("omim", "orphanet", "hpo", "gencc"),
)
