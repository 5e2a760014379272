"""GWAS Catalog: which traits the variants in and beside a gene go with, one row a gene, trait and study.

1. A line of the table is one association; it may name several genes (a variant in two genes, several variants, a
   variant between two genes, which is marked as intergenic) and several traits. Each gene goes with each trait.
2. The score is -log10 of the p-value as the catalogue writes it: thousands of p-values are too small for a number.
   Of several associations of a gene and trait in one study, the strongest counts; the evidence is the study.
3. Names of traits hold commas, as their list does: a name is learnt from the lines that have one trait alone.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base.console import count
from elute.base.errors import DataError, ServiceError
from elute.validation.database import Database, File, Gene, Licence
from elute.validation.online.answers import Unusable, field, items, maybe
from elute.validation.online.pages import Page, walk
from elute.validation.online.service import Service
from elute.validation.reading.associations import Read, finish, prefixed
from elute.validation.reading.columns import Layout, batches

if TYPE_CHECKING:
    import polars as pl

    from elute.validation.online.client import Client

SERVICE = Service(name="gwas-catalog", base="https://www.ebi.ac.uk/gwas/rest/api/v2/", pause=0.5)
_BY_GENE = ("mapped_gene", "mappedGene")  # spellings of the parameter; one that it does not know is passed over
_SIZE = 200  # associations of a page
_MANY = 100_000  # associations: more than of any gene, far fewer than the catalogue has
_ASKED = {**dict.fromkeys(("gene", "term", "label", "evidence"), str), "score": float}
_TABLE = Layout(
    need={
        "genes": ("MAPPED_GENE",),
        "traits": ("MAPPED_TRAIT",),
        "uris": ("MAPPED_TRAIT_URI",),
        "score": ("PVALUE_MLOG",),
        "evidence": ("STUDY ACCESSION",),
    },
    may={"p": ("P-VALUE",), "added": ("DATE ADDED TO CATALOG",)},
    quoted=False,
    member=".tsv",
    most=2**34,  # bytes, unpacked: ten times today's table
    remedy="Take the associations that are annotated with ontology terms, with all 38 columns.",
)
_NO_GENE = ("NR", "NA", "NONE", "INTERGENIC", "UNMAPPED", "NO MAPPED GENES", "MAPPING NOT AVAILABLE")
_TERM = r"^[A-Za-z][A-Za-z0-9.]*:\S+$"
_BETWEEN = "intergenic"


def _read(files: Mapping[str, Path]) -> Read:
    import polars as pl

    path = Path(files["associations"])
    parts, names, newest = [], [], ""
    lost = dict.fromkeys(("all", "genes", "traits", "scores"), 0)
    for text in batches(path, _TABLE):
        part = _scored(text)
        lost["all"] += len(part)
        lost["scores"] += part["score"].null_count()
        lost["traits"] += part["uris"].null_count()
        names.append(_names(part))
        newest = max([newest, *text["added"].str.extract(r"^(\d{4}-\d\d-\d\d)").drop_nulls().top_k(1)])
        genes = _genes(part.drop_nulls("uris"))
        lost["genes"] += part["uris"].count() - genes["line"].n_unique()
        parts.append(_best(_traits(genes)))
    if not lost["all"]:
        raise DataError("has a header and no rows", where=path, remedy=_TABLE.remedy)
    if lost["scores"] == lost["all"]:
        raise DataError("has no number in the column PVALUE_MLOG", where=path, remedy=_TABLE.remedy)
    table = _best(pl.concat(parts))
    known = table["term"].str.contains(_TERM)
    odd = int((~known).sum())
    table = _named(table.filter(known), pl.concat(names))
    between = int((table["group"] == _BETWEEN).sum())
    notes = [
        f"{count(lost['traits'], 'association')} left out: no ontology term." if lost["traits"] else "",
        f"{count(lost['genes'], 'association')} left out: no gene." if lost["genes"] else "",
        f"{count(odd, 'row')} left out: the trait's address names no term." if odd else "",
        f"{count(lost['scores'], 'association')} without a p-value." if lost["scores"] else "",
        f"{count(lost['all'], 'association')} in all; of one gene, trait and study the strongest is a row.",
        f"{count(between, 'row')} of a variant between two genes, of the group {_BETWEEN}." if between else "",
    ]
    return Read(finish(table, where=path, gene_kind="symbol"), newest, tuple(note for note in notes if note))


def _scored(part: pl.DataFrame) -> pl.DataFrame:
    """Make the score a number; where it is blank, from the p-value as it is written: 4E-8."""
    import polars as pl

    number = pl.col("score").cast(pl.Float64, strict=False)
    p = pl.col("p").str.to_uppercase().str.extract_groups(r"^([0-9.]+)E([+-]?\d+)$")
    mantissa, exponent = (p.struct.field(each).cast(pl.Float64, strict=False) for each in ("1", "2"))
    written = pl.when(mantissa > 0).then(-(mantissa.log10() + exponent))
    return part.with_columns(score=pl.when(number.is_finite()).then(number).otherwise(written)).with_row_index("line")


def _genes(part: pl.DataFrame) -> pl.DataFrame:
    """Give each gene of a line a row: `; ` between variants, ` x ` between those that interact, `, ` between genes."""
    import polars as pl

    each = part.with_columns(pl.col("genes").str.replace_all(r" x |, |;\s*", "\t").str.split("\t")).explode("genes")
    between = pl.when(pl.col("genes").str.contains(" - ", literal=True)).then(pl.lit(_BETWEEN))
    each = each.with_columns(between.alias("group"), pl.col("genes").str.split(" - ").alias("gene")).explode("gene")
    each = each.with_columns(pl.col("gene").str.strip_chars())
    return each.filter((pl.col("gene") != "") & ~pl.col("gene").str.to_uppercase().is_in(_NO_GENE))


def _traits(part: pl.DataFrame) -> pl.DataFrame:
    import polars as pl

    each = part.with_columns(term=pl.col("uris").str.split(",")).explode("term")
    return each.with_columns(_term(pl.col("term"))).filter(pl.col("term") != "")


def _term(uri: pl.Expr) -> pl.Expr:
    """Take the term from the end of its address: EFO_0000270 as EFO:0000270, Orphanet_399 as ORPHA:399."""
    last = uri.str.strip_chars(" /").str.extract(r"([^/#]*)$")
    return prefixed(last)


def _best(table: pl.DataFrame) -> pl.DataFrame:
    import polars as pl

    keys = ("gene", "term", "evidence", "group")
    return table.group_by(keys, maintain_order=True).agg(pl.col("score").max())


def _names(part: pl.DataFrame) -> pl.DataFrame:
    """Name the terms of a part: surely where a line has one trait, else where its two lists are of one length."""
    import polars as pl

    lists = part.select(
        term=pl.col("uris").str.split(","), label=pl.col("traits"), pieces=pl.col("traits").str.split(", ")
    ).drop_nulls()
    alone = lists.filter(pl.col("term").list.len() == 1).select(pl.col("term").list.first(), "label", sure=pl.lit(1))
    several = lists.filter((pl.col("term").list.len() > 1) & (pl.col("term").list.len() == pl.col("pieces").list.len()))
    paired = several.select("term", label="pieces").explode("term", "label").with_columns(sure=pl.lit(0))
    return pl.concat([alone, paired]).with_columns(_term(pl.col("term"))).unique(maintain_order=True)


def _named(table: pl.DataFrame, names: pl.DataFrame) -> pl.DataFrame:
    import polars as pl

    names = names.with_columns(pl.col("label").str.strip_chars()).filter(pl.col("label") != "")
    best = names.sort("sure", descending=True, maintain_order=True).unique("term", keep="first", maintain_order=True)
    table = table.join(best.select("term", "label"), on="term", how="left", maintain_order="left")
    return table.with_columns(pl.coalesce("label", "term").alias("label"))


class _IgnoredError(Exception):
    """The service passed over what was asked, and gives the whole catalogue."""


def _ask(client: Client, genes: Sequence[Gene]) -> pl.DataFrame:
    import polars as pl

    rows = [row for gene in genes for row in _of_gene(client, gene.symbol)]
    table = pl.DataFrame(rows, schema=_ASKED, orient="row").with_columns(_term(pl.col("term")))
    table = table.filter(pl.col("term").str.contains(_TERM))
    keys = [name for name in table.columns if name != "score"]
    return finish(
        table.group_by(keys, maintain_order=True).agg(pl.col("score").max()), where=SERVICE.name, gene_kind="symbol"
    )


def _of_gene(client: Client, symbol: str) -> list[tuple[Any, ...]]:
    """Return a row for each trait of all associations of a gene."""
    for spelling in _BY_GENE:
        try:
            found = walk(partial(_page, client, symbol, by=spelling), identity=lambda one: one["association_id"])
        except _IgnoredError:
            continue
        return [
            (symbol, trait["efo_id"], trait["efo_trait"], one["accession_id"], _strength(one))
            for one in found
            for trait in one["efo_traits"]
        ]
    raise ServiceError(f"answers about other genes than {symbol}", where=SERVICE.name)


def _page(client: Client, symbol: str, number: int, *, by: str) -> Page:
    told: dict[str, str | int] = {by: symbol, "size": _SIZE, "page": number}
    page = client.get(SERVICE, "associations", params=told, read=partial(_answer, number=number))
    if (page.total or 0) > _MANY or _others(page.items, symbol):
        raise _IgnoredError
    return page


def _others(associations: Sequence[dict[str, Any]], symbol: str) -> bool:
    """Whether an association is of other genes."""
    apart = re.compile(r"[,;]| - | x ")
    genes = (
        {each.strip().upper() for text in one["mapped_genes"] for each in apart.split(text)} for one in associations
    )
    return any(symbol.upper() not in names for names in genes)


def _answer(answer: Any, *, number: int) -> Page:
    """Check the form of one page; the list is absent where there is nothing."""
    total, pages = field(answer, "page.totalElements", int), field(answer, "page.totalPages", int)
    if field(answer, "page.number", int) != number:
        raise Unusable(f"is page {answer['page']['number']}, not {number}")
    found = items(answer, "_embedded.associations") if total or "_embedded" in answer else []
    for one in found:
        field(one, "association_id", int)
        field(one, "accession_id", str)
        if not all(isinstance(gene, str) for gene in field(one, "mapped_genes", list)):
            raise Unusable("has a gene that is no text")
        for trait in items(one, "efo_traits"):
            if not field(trait, "efo_id", str).strip() or not field(trait, "efo_trait", str).strip():
                raise Unusable("has a trait without a name")
        _strength(one)
    if found and not any(re.match(r"[A-Za-z]+_.", trait["efo_id"]) for one in found for trait in one["efo_traits"]):
        raise Unusable("names no trait by an ontology's term")
    return Page(found, total, pages)


def _strength(association: dict[str, Any]) -> float:
    """Return -log10 p: from its two parts, for a p-value that is too small for a number is 0."""
    mantissa = maybe(association, "pvalue_mantissa", float)
    exponent = maybe(association, "pvalue_exponent", float)
    p = field(association, "p_value", float)
    if mantissa and mantissa > 0 and exponent is not None:
        return -(math.log10(mantissa) + exponent)
    if not 0 < p <= 1:
        raise Unusable(f"has a p-value of {p:g} and not its two parts")
    return -math.log10(p)


SOURCE = Database(
    name="gwas-catalog",
    title="GWAS Catalog",
    tier=1,
    licence=Licence("CC0 1.0", "https://creativecommons.org/publicdomain/zero/1.0/", redistributable=True),
    about="a gene and a trait that a variant in it, or nearest to it, goes with in a study, with -log10 p",
    files=(
        File(
            "associations",
            "https://ftp.ebi.ac.uk/pub/databases/gwas/releases/latest/"
            "gwas-catalog-associations_ontology-annotated-full.zip",
            ("gwas*catalog*associations*",),
        ),
    ),
    read=_read,
    ask=_ask,
    batch=5,
)
