"""What the databases on this machine say of a gene, and which of them have a term; and, when asked to, their services.

What is not there is named with what to type: a source that was not asked is never one that says nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from elute.base import console
from elute.base.data import data_folder
from elute.base.errors import ConfigError, EluteError, near
from elute.base.run import Artifact
from elute.validation import library, mapping, snapshots
from elute.validation.database import Database, Gene

if TYPE_CHECKING:
    import polars as pl

    from elute.base.genes import GeneTable
    from elute.validation.online.asking import Asked
    from elute.validation.online.client import Client

_KINDS = ("symbol", "hgnc", "entrez", "ensembl", "uniprot")


class Known(NamedTuple):
    """A gene as HGNC lists it, or as a person wrote it where there is no list."""

    gene: Gene
    former: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    note: str = ""


def resolve(text: str, genes: GeneTable | None) -> Known | None:
    """Say which gene is meant; None where HGNC knows none of that name."""
    text = text.strip()
    if not text:
        raise ConfigError("names no gene")
    if genes is None:
        return Known(Gene(text), note=mapping.NO_TABLE)
    found = genes.map([text], "hgnc")
    if found.ambiguous:
        symbols = [_row(genes, hgnc)["symbol"] for hgnc in found.ambiguous[text]]
        raise ConfigError(f"{text!r} names more than one gene: {', '.join(symbols)}", remedy="Name one of them.")
    if text not in found.mapped and found.kind != "symbol":  # H2AC11 has the form of an accession
        found = genes.map([text], "hgnc", kind="symbol")
    if text not in found.mapped:
        return None
    row = _row(genes, found.mapped[text])
    first = {kind: (row[kind] or "").split("|")[0] for kind in _KINDS}
    former, aliases = (tuple((row[kind] or "").split("|")) if row[kind] else () for kind in ("previous", "alias"))
    note = "" if text.upper() in (first["symbol"].upper(), first["hgnc"]) else f"{text} is {first['symbol']} at HGNC"
    return Known(Gene(**first), former, aliases, note)


def _row(genes: GeneTable, hgnc: str) -> dict[str, Any]:
    import polars as pl

    return genes.genes.filter(pl.col("hgnc") == hgnc).row(0, named=True)


class Said(NamedTuple):
    """What one database says of a gene."""

    source: Database
    version: str
    """The snapshot's version, or "online"; empty where nothing was asked."""
    rows: pl.DataFrame | None
    """None where it was not asked."""
    why: str = ""
    """Why it was not, and what to type."""


def about_gene(
    known: Known, genes: GeneTable | None, names: Sequence[str], *, client: Client | None = None
) -> list[Said]:
    """Ask databases on this machine for one gene; with a client, the services of those that are not here as well."""
    said = []
    for name in names:
        source = library.database(name)
        try:
            table, snapshot = library.table(name)
            said.append(Said(source, snapshot.version, _of_gene(table, known, genes)))
        except EluteError as error:
            said.append(_online(source, known.gene, client, error.what))
    return said


def _online(source: Database, gene: Gene, client: Client | None, why: str) -> Said:
    if client is None or source.ask is None:
        return Said(source, "", None, why)
    from elute.validation.online.asking import ask_all

    asked: Asked = ask_all(source, client, [gene])
    if asked.answered:
        return Said(source, "online", _ranked(asked.table))
    reason = next(iter(asked.failed.values()), f"the gene has no {source.ask_by} id, by which {source.title} is asked")
    return Said(source, "", None, reason)


def _of_gene(table: pl.DataFrame, known: Known, genes: GeneTable | None) -> pl.DataFrame:
    """Rows of one gene: those that may be, by any of its names, and of them those that are."""
    import polars as pl

    names = [*known.gene, *known.former, *known.aliases]
    text = [name.upper() for name in names if name]
    may = pl.any_horizontal(pl.col(column).str.to_uppercase().is_in(text) for column in ("gene", "called"))
    if known.gene.ensembl:
        may |= pl.col("gene").str.starts_with(known.gene.ensembl)
    found = mapping.identify(table.filter(may), genes).table
    right = pl.col("hgnc") == known.gene.hgnc if genes is not None else pl.col("symbol").str.to_uppercase().is_in(text)
    return _ranked(found.filter(right))


def _ranked(rows: pl.DataFrame) -> pl.DataFrame:
    import polars as pl

    return rows.sort(pl.col("score"), pl.col("label"), descending=[True, False], nulls_last=True)


class Hit(NamedTuple):
    """A term that a search found."""

    source: Database
    version: str
    term: str
    label: str
    genes: int
    examples: list[str]


def search_terms(text: str, names: Sequence[str], *, limit: int) -> tuple[list[Hit], dict[str, str]]:
    """Find terms by their id or by words of their label, in every database that is here; and say which are not."""
    import polars as pl

    words = [word for word in text.lower().split() if word]
    if not words:
        raise ConfigError("a search needs a word, a term's id, or a gene")
    hits, absent = [], {}
    for name in names:
        source = library.database(name)
        try:
            table, snapshot = library.table(name)
        except EluteError as error:
            absent[source.title] = error.what
            continue
        label = pl.col("label").str.to_lowercase()
        has = pl.all_horizontal(label.str.contains(word, literal=True) for word in words)
        found = table.filter(has | (pl.col("term").str.to_lowercase() == text.strip().lower()))
        shown = pl.coalesce("called", "gene")
        terms = (
            found.group_by("term", "label")
            .agg(genes=pl.col("gene").n_unique(), examples=shown.unique().sort().head(5))
            .sort(pl.col("label").str.len_chars(), "label", "term")
        )
        hits += [
            Hit(source, snapshot.version, row["term"], row["label"], row["genes"], row["examples"])
            for row in terms.head(limit).iter_rows(named=True)
        ]
        if len(terms) > limit:
            console.say(f"{source.title}: {len(terms) - limit:,} further terms; --limit shows more")
    return hits, absent


def inform(text: str, names: Sequence[str], *, limit: int, online: bool = False, mirror: str = "") -> Artifact:
    """Say what is known of a gene, as an answer for a person or a program."""
    genes = mapping.gene_table()
    known = resolve(text, genes)
    if known is None or (genes is None and not _somewhere(text, names)):
        what = f"no gene is called {text!r}" + (
            "" if genes is not None else f" by any database here ({mapping.NO_TABLE})"
        )
        raise ConfigError(what, remedy=near(text.upper(), genes.genes["symbol"].to_list()) if genes is not None else "")
    return _informed(known, genes, names, limit=limit, client=library.client(mirror) if online else None)


def find(text: str, names: Sequence[str], *, limit: int) -> Artifact:
    """Find a gene if the text names one, else terms."""
    genes = mapping.gene_table()
    wanted = [library.database(name).name for name in names] or library.names()
    if " " not in text.strip() and genes is not None and (known := resolve(text, genes)) is not None:
        return _informed(known, genes, wanted, limit=limit, client=None)
    hits, absent = search_terms(text, wanted, limit=limit)
    rows = [{**hit._asdict(), "source": hit.source.title, "examples": ", ".join(hit.examples)} for hit in hits]
    versions = [f"{library.database(name).title} {snapshot.version}" for name in wanted if (snapshot := _here(name))]
    return Artifact("terms", data_folder() / "databases", {"found": rows, "versions": versions, "absent": absent})


def _informed(
    known: Known, genes: GeneTable | None, names: Sequence[str], *, limit: int, client: Client | None
) -> Artifact:
    said = about_gene(known, genes, names or library.names(), client=client)
    told = {
        "gene": known.gene._asdict(),
        "former": list(known.former),
        "aliases": list(known.aliases),
        "note": known.note,
        "said": [
            {
                "source": each.source.name,
                "title": each.source.title,
                "version": each.version,
                "licence": each.source.licence.name,
                "why": each.why,
                "count": 0 if each.rows is None else len(each.rows),
                "rows": None if each.rows is None else each.rows.head(limit).to_dicts(),
            }
            for each in said
        ],
        "kin": library.kin(each.source.name for each in said if each.rows is not None and len(each.rows)),
    }
    return Artifact("gene", data_folder() / "databases", told)


def _here(name: str) -> snapshots.Snapshot | None:
    try:
        return snapshots.find(name)
    except EluteError:
        return None


def _somewhere(text: str, names: Sequence[str]) -> bool:
    """Whether any table here has a gene of that name, where HGNC's table does not say which names there are."""
    said = about_gene(Known(Gene(text)), None, names or library.names())
    return any(each.rows is not None and len(each.rows) for each in said)


def lost_genes(name: str) -> tuple[mapping.Mapped, snapshots.Snapshot]:
    """Map a database's genes, and say what was lost."""
    table, snapshot = library.table(name)
    return mapping.identify(table, mapping.gene_table()), snapshot
