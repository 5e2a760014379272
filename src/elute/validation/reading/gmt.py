"""Sets of genes in GMT, a line a set: a name, a description and genes, with tabs between them.

1. An id in the name (`chemotaxis (GO:0006935)`, `Cell Cycle R-HSA-1640170`), else in the description, is the set's
   term; else its name is. A name that is an id alone has its label from the description.
2. A weight behind a gene (`TP53,1.0`, as Enrichr writes) is its score.
3. Of two sets with one term and the same genes one is kept; with other genes the second one gets a number, because
   they are two sets: joined they would be a third one that nobody wrote.

Format: https://docs.gsea-msigdb.org/#GSEA/Data_Formats/
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from elute.base import console
from elute.base.errors import DataError
from elute.base.genes import Guess, kind_of
from elute.validation.database import Database, File, Licence
from elute.validation.reading.associations import Read, finish
from elute.validation.reading.columns import lines

if TYPE_CHECKING:
    import polars as pl

PATTERNS = ("*.gmt", "*.gmt.gz", "*.gmt.zip")
_IDS = r"GO:\d{7}|R-HSA-\d+(?:\.\d+)?|HP:\d{7}|MONDO:\d{7}|CL:\d{7}|DOID:\d+|WP\d+(?:_r\d+)?|(?:hsa|map)\d{5}"
_ID = re.compile(rf"(?:KEGG:|path:)?({_IDS})")
_AT_THE_END = re.compile(rf"^(.*\S)\s*(?:\(({_IDS})\)|\s({_IDS}))$")
_WEIGHTED = re.compile(r"(.+),\s*([+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)")
_LEAST = 0.5  # of a file's genes have to look like identifiers of one kind
_LOOKED_AT = 20_000
_REMEDY = "A set is one line: its name, a description (it may be empty) and its genes, with tabs between them."


class GeneSet(NamedTuple):
    """One line of a file."""

    term: str
    label: str
    description: str
    genes: dict[str, float | None]
    """In the file's order, with their weights."""


@dataclass
class _Counts:
    empty: int = 0
    repeated: int = 0
    again: list[str] = field(default_factory=list)


def read(path: Path, *, group: str | None = None) -> Read:
    """Read a file of gene sets; its genes are of the kind that most of them look like."""
    counts = _Counts()
    sets = list(_distinct(sets_of(path), counts))
    if not sets:
        raise DataError("holds no set of genes", where=path, remedy=_REMEDY)
    guess = _guess(path, sets)
    notes = _notes(counts)
    if guess.species in ("mouse", "other"):
        whose = "mouse" if guess.species == "mouse" else "another species"
        notes = (*notes, f"its genes look like those of {whose}: few of them will be found among human ones")
    return Read(_table(path, sets, guess.kind, group), "", notes)


def sets_of(path: Path) -> Iterator[GeneSet]:
    """Give a file's sets, a line each; a set may be without genes."""
    for number, line in lines(path):
        if not line.strip():
            continue
        name, *rest = (cell.strip() for cell in line.split("\t"))
        if not rest and name.startswith("#"):
            continue
        if not name or not rest:
            what = "has no name" if not name else "has no tab, so it is no set of genes"
            raise DataError(f"line {number:,} {what}: {line.strip()[:60]!r}", where=path, remedy=_REMEDY)
        yield GeneSet(*_named(name, rest[0]), rest[0], dict(_weighted(cell) for cell in rest[1:] if cell))


def _named(name: str, description: str) -> tuple[str, str]:
    """Return a set's term and label."""
    if found := _ID.fullmatch(name):
        worded = description and not description.startswith(("http://", "https://")) and not _ID.fullmatch(description)
        return found[1], description if worded else found[1]
    if found := _AT_THE_END.match(name):
        return found[2] or found[3], found[1]
    if found := _ID.fullmatch(description):
        return found[1], name
    return name, name


def _weighted(cell: str) -> tuple[str, float | None]:
    found = _WEIGHTED.fullmatch(cell)
    weight = float(found[2]) if found else None
    return (found[1].strip(), weight) if found and abs(weight or 0.0) < float("inf") else (cell, None)


def _distinct(sets: Iterator[GeneSet], counts: _Counts) -> Iterator[GeneSet]:
    seen: dict[str, list[frozenset[str]]] = {}
    for each in sets:
        if not each.genes:
            counts.empty += 1
            continue
        before = seen.setdefault(each.term, [])
        genes = frozenset(each.genes)
        if genes in before:
            counts.repeated += 1
            continue
        before.append(genes)
        if len(before) > 1:
            counts.again.append(each.term)
            mark = f" [{len(before)}]"
            yield each._replace(term=each.term + mark, label=each.label + mark)
        else:
            yield each


def _guess(path: Path, sets: list[GeneSet]) -> Guess:
    """Say what kind of identifiers a file's genes are; a file that holds something else is refused."""
    genes = list(dict.fromkeys(gene for each in sets for gene in each.genes))
    guess = kind_of(genes[:: max(1, len(genes) // _LOOKED_AT)])
    if guess.share < _LEAST:
        shown = ", ".join(repr(gene[:30]) for gene in genes[:3])
        raise DataError(f"what should be genes looks like none: {shown}", where=path, remedy=_REMEDY)
    return guess


def _table(path: Path, sets: list[GeneSet], kind: str, group: str | None) -> pl.DataFrame:
    import polars as pl

    sizes = [len(each.genes) for each in sets]
    head = pl.DataFrame({"term": [s.term for s in sets], "label": [s.label for s in sets], "genes": sizes})
    rows = head.select(pl.exclude("genes").repeat_by("genes").explode())
    genes = pl.DataFrame(
        {
            "gene": [gene for each in sets for gene in each.genes],
            "score": [weight for each in sets for weight in each.genes.values()],
        },
        schema={"gene": pl.String, "score": pl.Float64},
    )
    return finish(pl.concat([rows, genes], how="horizontal"), where=path, gene_kind=kind, group=group)


def _notes(counts: _Counts) -> tuple[str, ...]:
    notes = []
    if counts.empty:
        notes.append(f"{console.count(counts.empty, 'set')} without genes left out")
    if counts.repeated:
        notes.append(f"{console.count(counts.repeated, 'set')} given twice with the same genes, kept once")
    if counts.again:
        named = ", ".join(dict.fromkeys(counts.again[:3])) + (", …" if len(counts.again) > 3 else "")
        times = console.count(len(counts.again), "set")
        notes.append(f"{times} with the name of an earlier one and other genes kept beside it under a number ({named})")
    return tuple(notes)


def user_sets(name: str) -> Database:
    """Return the database of a person's own gene sets, for `databases import NAME FILE.gmt`."""

    def read_files(files: Mapping[str, Path]) -> Read:
        return read(files["sets"])

    return Database(
        name=name,
        title=name,
        tier=4,
        licence=Licence("the file's own", "", redistributable=False),
        about="a gene belongs to a set of the file",
        files=(File("sets", called=PATTERNS),),
        read=read_files,
        by_hand="these are your own gene sets: name a .gmt file of yours",
    )
