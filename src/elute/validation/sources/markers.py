"""Markers of human cell types and cell processes that come with elute, written for it (docs/markers.md).

A row of `markers.tsv` is a set: an id of the Cell Ontology, GO or Reactome and what it is called there, our label, the
genes, the public set that they are checked against, and a reference. The evidence of an association is the address of
its set's reference; there is no score, since within a set no gene counts more than another.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from elute.base.errors import DataError
from elute.validation.database import Database, File, Licence
from elute.validation.reading.associations import Read, finish
from elute.validation.reading.columns import Layout, Sheet, read_columns

PATH = Path(__file__).parents[1] / "markers.tsv"
"""The file that comes with elute."""

_NEED = ("term", "label", "group", "genes")
_MAY = ("term_name", "collection", "public_set", "reference", "address")
_LAYOUT = Layout(
    need={name: (name,) for name in _NEED},
    may={name: (name,) for name in _MAY},
    most=2**24,
    remedy="Write the columns of elute's own markers.tsv, a set in a row, its genes with spaces between them.",
)
_TERM = re.compile(r"CL:\d{7}|GO:\d{7}|R-HSA-\d+")
_VERSION = re.compile(r"\bversion (\d[\w.-]*\w|\d)", re.IGNORECASE)


@dataclass(frozen=True)
class MarkerSet:
    """One cell type or process: what it is called, its genes, and what speaks for them."""

    term: str
    """CL:…, GO:… or R-HSA-…"""
    label: str
    group: str
    """blood, tissue or process."""
    genes: tuple[str, ...]
    """Approved symbols; their order means nothing."""
    term_name: str = ""
    """What the term is called where it is from."""
    collection: str = ""
    public_set: str = ""
    """A set of the collection that the genes overlap by far more than by chance."""
    reference: str = ""
    address: str = ""
    """Where the reference is found."""


def marker_sets(path: Path = PATH) -> tuple[MarkerSet, ...]:
    """Read the sets of a file, checked."""
    return tuple(_sets(read_columns(path, _LAYOUT), path))


def _sets(sheet: Sheet, path: Path) -> Iterator[MarkerSet]:
    seen: set[str] = set()
    for row in sheet.table.iter_rows(named=True):
        term = row["term"] or ""
        if not _TERM.fullmatch(term):
            what = f"the term {term!r} is no id of the Cell Ontology, GO or Reactome" if term else "a row has no term"
            raise DataError(what, where=path, remedy="Write CL:0000236, GO:0006260 or R-HSA-69278.")
        for name in _NEED:
            if row[name] is None:
                raise DataError(f"{term} has no {name}", where=path, remedy=_LAYOUT.remedy)
        if term in seen:
            raise DataError(f"{term} stands in two rows", where=path, remedy="Join them to one set.")
        seen.add(term)
        genes = tuple(row["genes"].split())
        if twice := sorted({gene for gene in genes if genes.count(gene) > 1}):
            raise DataError(f"{term} names {twice[0]} twice", where=path, remedy="Name each gene once.")
        texts = {name: row[name] or "" for name in (*_NEED, *_MAY) if name != "genes"}
        yield MarkerSet(genes=genes, **texts)


def read(files: Mapping[str, Path]) -> Read:
    """Read sets of markers, a row for a gene of a set."""
    import polars as pl

    path = files["sets"]
    sheet = read_columns(path, _LAYOUT)
    rows = [
        (gene, each.term, each.label, each.address or None, each.group)
        for each in _sets(sheet, path)
        for gene in each.genes
    ]
    table = pl.DataFrame(rows, schema=["gene", "term", "label", "evidence", "group"], orient="row")
    stated = (_VERSION.search(comment) for comment in sheet.comments)
    version = next((found[1] for found in stated if found), "")
    return Read(finish(table, where=path, gene_kind="symbol"), version)


def packaged() -> tuple[dict[str, Path], str] | None:
    """Give the file that comes with elute."""
    from importlib.metadata import PackageNotFoundError, version

    if not PATH.is_file():
        return None
    try:
        return {"sets": PATH}, f"elute {version('elute')}"
    except PackageNotFoundError:  # run from a folder of sources
        return {"sets": PATH}, "elute"


SOURCE = Database(
    name="markers",
    title="elute's own markers",
    tier=4,
    licence=Licence("MIT", "https://opensource.org/license/mit", redistributable=True),
    about="a gene marks a type of cell, or takes part in a process",
    files=(File("sets", called=("markers*.tsv*",)),),
    read=read,
    by_hand="nothing is fetched: it comes with elute",
    packaged=packaged,
)
