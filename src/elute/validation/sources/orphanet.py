"""Orphanet: which rare diseases go with a gene, and how.

Read from en_product6.xml, in today's form and in that before 2020 (OrphaNumber for OrphaCode, ISO-8859-1); without it,
from the pairs that HPO's files carry. The XML is streamed; one that declares a document type or entities is refused at
the declaration, before any entity could grow.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote
from xml.parsers import expat

from elute.base.console import count
from elute.base.errors import DamagedError, DataError
from elute.validation.database import Database, File, Gene, Licence
from elute.validation.reading import hpo
from elute.validation.reading.associations import Read, finish
from elute.validation.reading.columns import opened

if TYPE_CHECKING:
    import polars as pl

    from elute.validation.online.client import Client
    from elute.validation.online.service import Service

PRODUCT = "product6"
_MOST = 2**29  # bytes: twenty-five times today's file
_LONGEST = 2**16  # characters of one text in it
_LARGEST = 2**22  # bytes of one tag or comment in it
_DEEPEST = 32
_ENCODINGS = ("utf-8", "iso-8859-1", "us-ascii", "windows-1252")
_CODE = re.compile(r"\d+")
_ANEW = "Download en_product6.xml anew from https://www.orphadata.com/genes/."
_GROUPS = {  # how an association's type begins, and what we call its kind
    "disease-causing": "causal",
    "major susceptibility": "susceptibility",
    "modifying": "modifier",
    "candidate gene": "candidate",
    "role in the phenotype": "role in the phenotype",
    "part of a fusion": "fusion gene",
    "biomarker": "biomarker",
}
_KNOWN = "KIF7"  # the example of Orphadata's own documentation
_DISORDER = "JDBOR/DisorderList/Disorder"
_LINK = f"{_DISORDER}/DisorderGeneAssociationList/DisorderGeneAssociation"
_TEXTS = {  # where the texts that are wanted stand
    f"{_DISORDER}/OrphaCode": "code",
    f"{_DISORDER}/OrphaNumber": "code",
    f"{_DISORDER}/Name": "name",
    f"{_LINK}/Gene/Symbol": "symbol",
    f"{_LINK}/Gene/ExternalReferenceList/ExternalReference/Source": "source",
    f"{_LINK}/Gene/ExternalReferenceList/ExternalReference/Reference": "reference",
    f"{_LINK}/DisorderGeneAssociationType/Name": "kind",
    f"{_LINK}/DisorderGeneAssociationStatus/Name": "status",
}


def read(files: Mapping[str, Path]) -> Read:
    """Read Orphanet's own file, or without it the pairs that HPO's files carry."""
    if PRODUCT not in files:
        if hpo.GENES not in files:
            raise DataError("en_product6.xml of Orphanet is not there", remedy=_ANEW)
        return hpo.disease_pairs(files, "ORPHA")
    path = Path(files[PRODUCT])
    found = _Product(path)
    found.parse()
    if not found.rows:
        raise DataError("holds no disorder with a gene: is it en_product6.xml?", where=path, remedy=_ANEW)
    notes = []
    if found.genes_without_name:
        notes.append(f"Left out: {count(found.genes_without_name, 'association')} of genes without symbol and number.")
    status = Counter(row["status"] for row in found.rows)
    if unsure := sum(n for name, n in status.items() if name.lower() != "assessed"):
        notes.append(f"{count(unsure, 'association')} of {len(found.rows):,} not assessed by Orphanet's experts yet.")
    return Read(finish(_table(found.rows), where=path), found.date, tuple(notes))


@dataclass
class _Product:
    """A run of the parser over the file, and what was found so far."""

    path: Path
    date: str = ""
    rows: list[dict[str, str]] = field(default_factory=list)
    genes_without_name: int = 0
    _steps: list[str] = field(default_factory=list)
    _text: list[str] = field(default_factory=list)
    _length: int = 0
    _disorder: dict[str, str] = field(default_factory=dict)
    _link: dict[str, str] = field(default_factory=dict)

    def parse(self) -> None:
        """Feed the file to the parser in pieces."""
        parser = expat.ParserCreate()
        parser.buffer_text = True
        parser.XmlDeclHandler = self._declared
        parser.StartDoctypeDeclHandler = self._refuse
        parser.EntityDeclHandler = self._refuse
        parser.StartElementHandler = self._begin
        parser.EndElementHandler = self._end
        parser.CharacterDataHandler = self._characters
        with opened(self.path, most=_MOST) as stream:
            try:
                given = 0
                while piece := stream.read(1 << 20):
                    parser.Parse(piece, False)
                    given += len(piece)
                    if given - parser.CurrentByteIndex > _LARGEST:  # the parser begins anew with every piece of it
                        raise DamagedError("has a tag or comment of many megabytes", where=self.path, remedy=_ANEW)
                parser.Parse(b"", True)
            except expat.ExpatError as cause:
                what = expat.ErrorString(cause.code)
                raise DamagedError(
                    f"is cut short or no XML: {what} at line {cause.lineno:,}", where=self.path, remedy=_ANEW
                ) from cause

    def _declared(self, _version: str, encoding: str | None, _alone: int) -> None:
        if (encoding or "utf-8").lower() not in _ENCODINGS:
            raise DataError(f"is in the encoding {encoding[:40]!r}" if encoding else "", where=self.path, remedy=_ANEW)

    def _refuse(self, *_: object) -> None:
        raise DataError(
            "declares a document type or entities, as no file of Orphanet does; it is not read",
            where=self.path,
            remedy=_ANEW,
        )

    def _begin(self, name: str, about: dict[str, str]) -> None:
        if not self._steps and name != "JDBOR":
            raise DataError(f"is XML of something else: it begins <{name[:40]}>", where=self.path, remedy=_ANEW)
        self._steps.append(name)
        if len(self._steps) > _DEEPEST:
            raise DamagedError("is nested deeper than any file of Orphanet", where=self.path, remedy=_ANEW)
        if len(self._steps) == 1:
            self.date = about.get("date", "").split(" ")[0]
        elif name == "Disorder":
            self._disorder = {}
        elif name == "DisorderGeneAssociation":
            self._link = {}
        self._text, self._length = [], 0

    def _characters(self, text: str) -> None:
        self._length += len(text)
        if self._length > _LONGEST:
            raise DamagedError(f"has a text of more than {_LONGEST:,} characters", where=self.path, remedy=_ANEW)
        self._text.append(text)

    def _end(self, name: str) -> None:
        here, text = "/".join(self._steps), " ".join("".join(self._text).split())
        self._steps.pop()
        self._text, self._length = [], 0
        if wanted := _TEXTS.get(here):
            inside = self._disorder if wanted in ("code", "name") else self._link
            inside.setdefault(wanted, text) if wanted not in ("source", "reference") else inside.update({wanted: text})
        elif name == "ExternalReference" and self._link.get("source") == "HGNC":
            self._link["hgnc"] = self._link.get("reference", "").removeprefix("HGNC:")
        elif here == _LINK:
            self._keep()

    def _keep(self) -> None:
        code, link = self._disorder.get("code", ""), self._link
        if not _CODE.fullmatch(code):
            raise DamagedError(f"has a disorder whose number is {code[:40]!r}", where=self.path, remedy=_ANEW)
        if not (link.get("hgnc") or link.get("symbol")):
            self.genes_without_name += 1
            return
        names = {name: link.get(name, "") for name in ("symbol", "hgnc", "kind", "status")}
        self.rows.append({"code": code, "name": self._disorder.get("name") or f"ORPHA:{code}"} | names)


def _table(rows: Sequence[Mapping[str, str]]) -> pl.DataFrame:
    """Bring rows of code, name, symbol, hgnc, kind and status into the form of the one table."""
    import polars as pl

    found = [
        {
            "gene": f"HGNC:{row['hgnc']}" if row["hgnc"].isdigit() else row["symbol"],
            "gene_kind": "hgnc" if row["hgnc"].isdigit() else "symbol",
            "called": row["symbol"] or None,
            "term": f"ORPHA:{row['code']}",
            "label": row["name"],
            "evidence": "; ".join(_words(row)) or None,
            "group": _group(row["kind"]),
        }
        for row in rows
    ]
    names = ("gene", "gene_kind", "called", "term", "label", "evidence", "group")
    return pl.DataFrame(found, schema=dict.fromkeys(names, pl.String))


def _words(row: Mapping[str, str]) -> Iterator[str]:
    if row["kind"]:
        yield row["kind"]
    if row["status"] and row["status"].lower() != "assessed":
        yield row["status"]


def _group(kind: str) -> str:
    return next((group for begins, group in _GROUPS.items() if kind.lower().startswith(begins)), "other")


def ask(client: Client, genes: Sequence[Gene]) -> pl.DataFrame:
    """Ask Orphadata's service for the disorders of genes by their symbols; it knows them in small letters alone."""
    from elute.validation.online.answers import Absent

    rows: list[dict[str, str]] = []
    for gene in genes:
        try:
            rows += _asked(client, gene)
        except Absent:
            _still_there(client)
    return finish(_table(rows), where="Orphanet")


def _asked(client: Client, gene: Gene) -> list[dict[str, str]]:
    path = f"rd-associated-genes/genes/symbols/{quote(gene.symbol.lower(), safe='')}"
    return client.get(_service(), path, read=partial(_associations, gene=gene))


def _still_there(client: Client) -> None:
    """Make sure that a gene that is certainly known still is; else one that is not known means nothing."""
    from elute.validation.online.answers import Absent, Unusable

    try:
        _asked(client, Gene(_KNOWN))
    except Absent:
        raise Unusable(f"does not even know {_KNOWN}: it may answer at another address now", where="orphanet") from None


def _associations(answer: Any, gene: Gene) -> list[dict[str, str]]:
    """Take from an answer the associations of one gene; a disorder that has none of it is an answer of no use."""
    from elute.validation.online.answers import Unusable, items, maybe

    data = answer.get("data") if isinstance(answer, dict) else None
    results = data.get("results") if isinstance(data, dict) else None
    disorders = items([results] if isinstance(results, dict) else results)
    total = maybe(data, "__count", int)
    if total is not None and total > len(disorders):
        raise Unusable(f"holds {len(disorders):,} of {total:,} disorders")
    rows = []
    for disorder in disorders:
        found = [_association(disorder, link) for link in items(disorder, "DisorderGeneAssociation")]
        mine = [row for row in found if row["symbol"].upper() == gene.symbol.upper()]
        if not mine:
            raise Unusable(f"has a disorder without {gene.symbol}")
        rows += mine
    return rows


def _association(disorder: dict[str, Any], link: dict[str, Any]) -> dict[str, str]:
    from elute.validation.online.answers import Unusable, field, items, maybe

    code = str(disorder.get("ORPHAcode", ""))
    if not _CODE.fullmatch(code):
        raise Unusable("has no number at ORPHAcode")
    references = items(link, "Gene.ExternalReference") if maybe(link, "Gene.ExternalReference", list) else []
    hgnc = (str(each.get("Reference", "")) for each in references if each.get("Source") == "HGNC")
    return {
        "code": code,
        "name": field(disorder, "Preferred term", str),
        "symbol": field(link, "Gene.Symbol", str),
        "hgnc": next(hgnc, "").removeprefix("HGNC:"),
        "kind": field(link, "DisorderGeneAssociationType", str),
        "status": maybe(link, "DisorderGeneAssociationStatus", str) or "",
    }


def _service() -> Service:
    from elute.validation.online.service import Service

    return Service(name="orphanet", base="https://api.orphadata.com/", pause=0.25)


SOURCE = Database(
    name="orphanet",
    title="Orphanet",
    tier=3,
    licence=Licence("CC BY 4.0", "https://www.orphadata.com/legal-notice/", True),
    about="a gene causes, modifies, or makes prone to a rare disease",
    files=(
        File(PRODUCT, "https://www.orphadata.com/data/xml/en_product6.xml", ("*product6*",), needed=False),
        *hpo.files(),
    ),
    read=read,
    packaged=partial(hpo.packaged, hpo.GENES, hpo.DISEASES),
    ask=ask,
    ask_by="symbol",
)
