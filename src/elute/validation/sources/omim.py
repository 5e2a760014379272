"""OMIM: which Mendelian diseases and traits go with a gene.

A user's own genemap2.txt (or morbidmap.txt) is read whole; without it, the pairs that HPO's files carry. OMIM writes a
gene's diseases in one field:

    {Breast cancer, susceptibility to}, 114480 (3), Autosomal dominant; ?Deafness, autosomal recessive 6, 600971 (2)

`{}` a susceptibility, `[]` no disease but a trait, `?` provisional; then the disease's number, which is the gene's own
where it has none; then how it was mapped (1 to 4), and how it is inherited.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from elute.base.console import count
from elute.base.errors import DamagedError, DataError
from elute.validation.database import Database, File, Gene, Licence
from elute.validation.reading import hpo
from elute.validation.reading.associations import Read, finish
from elute.validation.reading.columns import Layout, Sheet, read_columns

if TYPE_CHECKING:
    import polars as pl

    from elute.validation.online.client import Client
    from elute.validation.online.pages import Page
    from elute.validation.online.service import Service

GENEMAP = "genemap2"
MORBIDMAP = "morbidmap"
_GET = "Ask for access at https://www.omim.org/downloads, then: elute databases import omim genemap2.txt"
_SEMICOLONS = 4  # at most in the name of a disease
_A_PAGE = 20  # entries of an answer that holds their gene maps
_MAPPED = {
    "1": "associated with the gene (1)",
    "2": "linked to the locus (2)",
    "3": "molecular basis known (3)",
    "4": "deletion or duplication of several genes (4)",
}
_NUMBERED = re.compile(r"(.+), ?(\d{6}) ?\(([1-4])\)(?: ?,(.*))?")
_BARE = re.compile(r"(.+?),? ?\(([1-4])\)(?: ?,(.*))?")
_DATE = re.compile(r"Generated:?\s*(\d{4}-\d\d-\d\d)", re.IGNORECASE)
_MIM = re.compile(r"\d{6}")
_SYMBOLS = ("Gene/Locus And Other Related Symbols", "Gene Symbols")
_LAYOUTS = {
    GENEMAP: Layout(
        need={
            "mim": ("MIM Number",),
            "symbols": _SYMBOLS,
            "called": ("Approved Gene Symbol", "Approved Symbol"),
            "entrez": ("Entrez Gene ID",),
            "phenotypes": ("Phenotypes",),
        },
        ragged=True,
        remedy=_GET,
    ),
    MORBIDMAP: Layout(
        need={"phenotypes": ("Phenotype",), "symbols": _SYMBOLS, "mim": ("MIM Number",)}, ragged=True, remedy=_GET
    ),
}


class Phenotype(NamedTuple):
    """One of the diseases or traits that a gene's field names."""

    name: str
    mim: str  # "" if it has no number of its own
    key: str  # how it was mapped, 1 to 4
    inheritance: str
    group: str  # disease, susceptibility or trait
    provisional: bool


def phenotypes_of(text: str) -> tuple[list[Phenotype], list[str]]:
    """Take a field apart; also return what in it is of no known form."""
    found: list[Phenotype] = []
    odd: list[str] = []
    begun: list[str] = []
    for piece in " ".join(text.split()).split(";"):
        begun.append(piece)
        name = ";".join(begun).strip()  # a semicolon may be a part of a name
        if one := _phenotype(name):
            found.append(one)
        elif len(begun) <= _SEMICOLONS:
            continue
        else:
            odd.append(name)
        begun = []
    rest = ";".join(begun).strip()
    return found, [*odd, rest] if rest else odd


def _phenotype(text: str) -> Phenotype | None:
    if numbered := _NUMBERED.fullmatch(text):
        return _marked(*numbered.groups(""))
    bare = _BARE.fullmatch(text)
    return _marked(bare[1], "", bare[2], bare[3] or "") if bare else None


def _marked(name: str, mim: str, key: str, inheritance: str) -> Phenotype:
    """Read the marks before a name, in any order, and take them off."""
    group, provisional, name = "disease", False, name.strip()
    while name[:1] in ("?", "{", "["):
        mark, name = name[0], name[1:].strip()
        if mark == "?":
            provisional = True
            continue
        group = "susceptibility" if mark == "{" else "trait"
        closes = name.rfind("}" if mark == "{" else "]")
        if closes >= 0:
            name = name[:closes] + name[closes + 1 :]
    return Phenotype(" ".join(name.split()), mim, key, " ".join(inheritance.split()), group, provisional)


def read(files: Mapping[str, Path]) -> Read:
    """Read the user's own file of OMIM, or without one the pairs that HPO's files carry."""
    role = next((each for each in _LAYOUTS if each in files), None)
    if role is None:
        if hpo.GENES not in files:
            raise DataError("no file of OMIM is there", remedy=_GET)
        return hpo.disease_pairs(files, "OMIM")
    path = Path(files[role])
    sheet = read_columns(path, _LAYOUTS[role])
    rows, notes = _rows(sheet, path)
    if not rows:
        raise DataError("names no phenotype of any gene", where=path, remedy=_GET)
    dates = (_DATE.search(line) for line in sheet.comments)
    return Read(finish(_table(rows), where=path), next((date[1] for date in dates if date), ""), tuple(notes))


def _rows(sheet: Sheet, path: Path) -> tuple[list[dict[str, str | None]], list[str]]:
    import polars as pl

    rows: list[dict[str, str | None]] = []
    odd: list[str] = []
    nameless = own = 0
    for line in sheet.table.filter(pl.col("phenotypes").is_not_null()).to_dicts():
        if not _MIM.fullmatch(line["mim"] or ""):
            raise DamagedError(f"has {line['mim']!r} as a MIM number", where=path, remedy=_GET)
        found, strange = phenotypes_of(line["phenotypes"])
        odd += strange
        gene = _gene(line)
        if gene is None:
            nameless += len(found)
            continue
        own += sum(not each.mim for each in found)
        rows += (gene | _said(each, line["mim"]) for each in found)
    return rows, _notes(nameless, own, odd)


def _notes(nameless: int, own: int, odd: Sequence[str]) -> list[str]:
    notes = []
    if nameless:
        notes.append(f"Left out: {count(nameless, 'phenotype')} of regions where no gene is known yet.")
    if own:
        notes.append(f"{count(own, 'phenotype')} without a number of its own under the gene's number.")
    if odd:
        notes.append(f"Left out: {count(len(odd), 'phenotype')} written in no known way, {odd[0][:60]!r} for one.")
    return notes


def _gene(line: Mapping[str, str | None]) -> dict[str, str | None] | None:
    """Name a row's gene; morbidmap has symbols alone, of which the first is the approved one."""
    called = line.get("called")
    if "entrez" not in line:
        called = (line["symbols"] or "").split(",")[0].strip() or None
    elif entrez := line["entrez"]:
        return {"gene": entrez, "gene_kind": "entrez", "called": called}
    return {"gene": called, "gene_kind": "symbol", "called": called} if called else None


def _said(phenotype: Phenotype, gene_mim: str) -> dict[str, str | None]:
    words = ("provisional" * phenotype.provisional, _MAPPED[phenotype.key], phenotype.inheritance)
    return {
        "term": f"OMIM:{phenotype.mim or gene_mim}",
        "label": phenotype.name,
        "evidence": "; ".join(word for word in words if word),
        "group": phenotype.group,
    }


def _table(rows: Iterable[Mapping[str, str | None]]) -> pl.DataFrame:
    import polars as pl

    names = ("gene", "gene_kind", "called", "term", "label", "evidence", "group")
    return pl.DataFrame(list(rows), schema=dict.fromkeys(names, pl.String))


def ask(client: Client, genes: Sequence[Gene]) -> pl.DataFrame:
    """Ask OMIM for the gene maps of genes by their approved symbols."""
    from elute.validation.online.pages import walk

    rows: list[dict[str, str | None]] = []
    for gene in genes:

        def page(number: int, gene: Gene = gene) -> Page:
            params: dict[str, str | int] = {
                "search": f"approved_gene_symbol:{gene.symbol if gene.symbol.isalnum() else json.dumps(gene.symbol)}",
                "include": "geneMap",
                "format": "json",
                "start": number * _A_PAGE,
                "limit": _A_PAGE,
            }
            return client.get(_service(), "entry/search", params=params, read=_page)

        name: dict[str, str | None] = {"gene": gene.symbol, "gene_kind": "symbol", "called": gene.symbol}
        entries = walk(page, identity=lambda entry: str(entry.get("mimNumber")))
        rows += (name | each for entry in entries for each in _mapped(entry, gene))
    return finish(_table(rows), where="OMIM")


def _page(answer: Any) -> Page:
    from elute.validation.online.answers import Unusable, field, items
    from elute.validation.online.pages import Page

    entries = [field(each, "entry", dict) for each in items(answer, "omim.searchResponse.entryList")]
    mapped = [_map_of(entry) is not None for entry in entries]
    if not any(mapped) and any(entry.get("prefix") in ("*", "+") for entry in entries):
        raise Unusable("has entries of genes, and none with a geneMap")
    return Page(entries, _number(answer, "omim.searchResponse.totalResults"))


def _number(answer: Any, path: str) -> int:
    """Return a number that may be written as text, as OMIM's are at times."""
    from elute.validation.online.answers import Unusable, field

    value = field(answer, path, object)
    if isinstance(value, bool) or not str(value).isdigit():
        raise Unusable(f"has no whole number at {path}")
    return int(str(value))


def _map_of(entry: dict[str, Any]) -> tuple[set[str], list[Phenotype], str] | None:
    """Return of a gene's entry its symbols, its phenotypes and its number; entries of diseases have no gene map."""
    from elute.validation.online.answers import Unusable, field, items, maybe

    there = maybe(entry, "geneMap", dict)
    if there is None:
        return None
    symbols = maybe(there, "approvedGeneSymbols", str) or field(there, "geneSymbols", str)
    found = []
    for item in items(there, "phenotypeMapList") if there.get("phenotypeMapList") is not None else ():
        each = field(item, "phenotypeMap", dict)
        key = str(each.get("phenotypeMappingKey", ""))
        mim = str(each.get("phenotypeMimNumber") or "")
        if key not in _MAPPED or (mim and not _MIM.fullmatch(mim)):
            raise Unusable("has a phenotype without phenotypeMappingKey, or with an odd phenotypeMimNumber")
        found.append(_marked(field(each, "phenotype", str), mim, key, maybe(each, "phenotypeInheritance", str) or ""))
    return {symbol.strip().upper() for symbol in symbols.split(",")}, found, str(_number(entry, "mimNumber"))


def _mapped(entry: dict[str, Any], gene: Gene) -> Iterator[dict[str, str | None]]:
    """Give the phenotypes of an entry that is this gene's; the search also finds others that speak of it."""
    found = _map_of(entry)
    if found is not None and gene.symbol.upper() in found[0]:
        yield from (_said(each, found[2]) for each in found[1])


def _service() -> Service:
    from elute.validation.online.service import Service

    return Service(
        name="omim",
        base="https://api.omim.org/api/",
        pause=0.5,
        key="OMIM_API_KEY",
        key_in="header:ApiKey",
        key_needed=True,
    )


SOURCE = Database(
    name="omim",
    title="OMIM",
    tier=3,
    licence=Licence(
        "OMIM use agreement", "https://www.omim.org/help/agreement", False, only="people who have registered with OMIM"
    ),
    about="a gene causes a Mendelian disease, makes prone to one, or determines a trait",
    files=(
        File(GENEMAP, called=("*genemap2*",), needed=False),
        File(MORBIDMAP, called=("*morbidmap*",), needed=False),
        *hpo.files(),
    ),
    read=read,
    by_hand=f"OMIM gives its files to registered people alone. {_GET}",
    packaged=partial(hpo.packaged, hpo.GENES, hpo.DISEASES),
    ask=ask,
    ask_by="symbol",
    key="OMIM_API_KEY",
)
