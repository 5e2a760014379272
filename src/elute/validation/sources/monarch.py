"""Monarch: diseases that a gene causes or goes with, and the phenotypes of those diseases.

It gathers what others have found: OMIM, Orphanet and ClinGen for diseases, HPO for phenotypes. A disease bears
MONDO's number. The file of looser associations covers all species, and a few of its rows begin with the disease.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base.console import count
from elute.base.errors import DamagedError, DataError
from elute.validation.database import Database, File, Gene, Licence
from elute.validation.reading.associations import Read, finish
from elute.validation.reading.columns import Layout, lines, read_columns

if TYPE_CHECKING:
    import polars as pl

    from elute.validation.online.client import Client
    from elute.validation.online.pages import Page
    from elute.validation.online.service import Service

_RELEASED = "https://data.monarchinitiative.org/monarch-kg/latest"
_FOLDER = f"{_RELEASED}/tsv/gene_associations"
_METADATA = "metadata"
_RELEASE = re.compile(r"version:\s*['\"]?([\w.-]+)")
_REMEDY = f"Download it from {_FOLDER}/"
_CATEGORIES = {
    "biolink:CausalGeneToDiseaseAssociation": "causal",
    "biolink:CorrelatedGeneToDiseaseAssociation": "noncausal",
    "biolink:GeneToPhenotypicFeatureAssociation": "phenotype",
}
_TERMS = {"causal": "MONDO:", "noncausal": "MONDO:", "phenotype": "HP:"}
_PREFIXES = {"HGNC": "hgnc", "NCBIGene": "entrez", "ENSEMBL": "ensembl", "UniProtKB": "uniprot"}
_HUMAN = "NCBITaxon:9606"
_A_PAGE = 500
_LAYOUT = Layout(
    need={name: (name,) for name in ("subject", "object", "negated", "predicate")},
    may={
        "called": ("subject_label",),
        "taxon": ("subject_taxon",),
        "label": ("object_label",),
        "source": ("primary_knowledge_source",),
    },
    comment="",
    remedy=_REMEDY,
)


def read(files: Mapping[str, Path]) -> Read:
    """Read those of Monarch's three files that are there."""
    import polars as pl

    parts, notes = [], []
    for role in _TERMS:
        if role in files:
            table, said = _part(Path(files[role]), role)
            parts.append(table)
            notes += said
        else:
            notes.append(f"The file of {role} associations is not there.")
    if not parts:
        raise DataError("none of Monarch's files is there", remedy=_REMEDY)
    where = ", ".join(str(files[role]) for role in _TERMS if role in files)
    return Read(finish(pl.concat(parts), where=where), _version(files.get(_METADATA)), tuple(notes))


def _version(path: Path | None) -> str:
    """Return the release that Monarch's metadata.yaml names; the tables themselves name none."""
    found = (_RELEASE.match(line) for _, line in lines(path, most=1 << 20)) if path else ()
    return next((each[1] for each in found if each), "")


def _part(path: Path, role: str) -> tuple[pl.DataFrame, list[str]]:
    import polars as pl

    rows = read_columns(path, _LAYOUT).table
    negated = pl.col("negated").str.to_lowercase()
    odd = rows.filter(~negated.is_in(["true", "false"]))
    if len(odd):
        raise DamagedError(f"has {odd['negated'][0]!r} in the column negated", where=path, remedy=_REMEDY)
    prefix = pl.col("subject").str.extract(r"^([A-Za-z]+):\S+$", 1)
    human = (pl.col("taxon") == _HUMAN).fill_null(prefix == "HGNC")
    term = pl.col("object").str.starts_with(_TERMS[role])
    rows = rows.with_columns(gene_kind=prefix.replace_strict(_PREFIXES, default=None, return_dtype=pl.String))
    right = {
        "with a negation": negated.ne_missing("true"),
        "with a subject that is no gene of a known kind": pl.col("gene_kind").is_not_null(),
        "of other species": human,
        f"with an object that is no {_TERMS[role]} term": term.fill_null(value=False),
    }
    notes = []
    for why, stays in right.items():
        kept = rows.filter(stays)
        if len(kept) < len(rows):
            notes.append(f"Left out of {role}: {count(len(rows) - len(kept), 'row')} {why}.")
        rows = kept
    if not len(rows):
        raise DataError(f"holds no {role} association of a human gene", where=path, remedy=_REMEDY)
    return _table(rows, role), notes


def _table(rows: pl.DataFrame, role: str) -> pl.DataFrame:
    """Evidence is what is said of the two, and by whom."""
    import polars as pl

    gene = pl.col("subject")
    said = pl.concat_str(
        pl.col("predicate").str.strip_prefix("biolink:"),
        pl.col("source").str.strip_prefix("infores:"),
        separator="; ",
        ignore_nulls=True,
    )
    return rows.select(
        "gene_kind",
        "called",
        gene=pl.when(pl.col("gene_kind") == "hgnc").then(gene).otherwise(gene.str.extract(r":(.+)$", 1)),
        term=pl.col("object"),
        label=pl.col("label").fill_null(pl.col("object")),
        evidence=said,
        group=pl.lit(role),
    )


def ask(client: Client, genes: Sequence[Gene]) -> pl.DataFrame:
    """Ask Monarch for the associations of genes by their HGNC ids."""
    import polars as pl

    from elute.validation.online.pages import walk

    names = ("subject", "called", "object", "label", "predicate", "source", "role", "negated")
    rows: list[dict[str, Any]] = []
    for gene in genes:

        def page(number: int, gene: Gene = gene) -> Page:
            params: dict[str, str | int | Sequence[str]] = {
                "subject": gene.hgnc,
                "category": list(_CATEGORIES),
                "limit": _A_PAGE,
                "offset": number * _A_PAGE,
            }
            return client.get(_service(), "association", params=params, read=partial(_page, gene=gene))

        rows += walk(page, identity=lambda row: row["id"])
    schema = {name: pl.Boolean if name == "negated" else pl.String for name in names}
    found = pl.DataFrame(rows, schema=schema).filter(~pl.col("negated")).with_columns(gene_kind=pl.lit("hgnc"))
    parts = [_table(found.filter(pl.col("role") == role), role) for role in _TERMS]
    return finish(pl.concat(parts), where="Monarch")


def _page(answer: Any, gene: Gene) -> Page:
    """Take the rows of one page, all of which have to be about the gene."""
    from elute.validation.online.answers import Unusable, field, items, maybe
    from elute.validation.online.pages import Page

    rows = []
    for item in items(answer, "items"):
        role = _CATEGORIES.get(field(item, "category", str))
        if field(item, "subject", str) != gene.hgnc or role is None:
            raise Unusable(f"has an association of {field(item, 'subject', str)}, not of {gene.hgnc}")
        if "negated" not in item:
            raise Unusable("does not say whether an association is negated")
        term = field(item, "object", str)
        if not term.startswith(_TERMS[role]):
            raise Unusable(f"has {term!r} as the object of {role} association")
        rows.append(
            {
                "id": field(item, "id", str),
                "subject": gene.hgnc,
                "called": maybe(item, "subject_label", str) or gene.symbol or None,
                "object": term,
                "label": maybe(item, "object_label", str),
                "predicate": field(item, "predicate", str),
                "source": maybe(item, "primary_knowledge_source", str),
                "role": role,
                "negated": bool(maybe(item, "negated", bool)),
            }
        )
    return Page(rows, field(answer, "total", int))


def _service() -> Service:
    from elute.validation.online.service import Service

    return Service(name="monarch", base="https://api-v3.monarchinitiative.org/v3/api/", pause=0.5)


SOURCE = Database(
    name="monarch",
    title="Monarch",
    tier=2,
    licence=Licence("each row under its source's terms; some are OMIM's", "https://monarchinitiative.org/terms", False),
    about="a gene causes a disease or goes with it, or one of its diseases has a phenotype",
    files=(
        File("causal", f"{_FOLDER}/gene_disease.9606.tsv.gz", ("*gene_disease.9606*",), needed=False),
        File("noncausal", f"{_FOLDER}/gene_disease.noncausal.tsv.gz", ("*gene_disease.noncausal*",), needed=False),
        File("phenotype", f"{_FOLDER}/gene_phenotype.9606.tsv.gz", ("*gene_phenotype.9606*",), needed=False),
        File(_METADATA, f"{_RELEASED}/metadata.yaml", ("metadata*.y*ml",), needed=False),
    ),
    read=read,
    ask=ask,
    ask_by="hgnc",
    draws_on=("hpo", "omim", "orphanet"),
)
