"""KEGG: which genes lie on which pathway.

KEGG's own lists name a human gene `hsa:` and its NCBI Gene number, so nothing has to be looked up to know which gene
is meant; its list of genes only says what each is called. They are for academic users alone, and never to be passed
on. A .gmt of KEGG's pathways that a person has is read in their place.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from elute.base import console
from elute.base.errors import DamagedError, MissingError
from elute.validation.database import Database, File, Licence
from elute.validation.reading import gmt
from elute.validation.reading.associations import Read, finish
from elute.validation.reading.columns import lines

_REST = "https://rest.kegg.jp/"
_SPECIES = " - Homo sapiens (human)"
_ANEW = "Download it anew; KEGG answers about three requests a second and refuses more."


def read(files: Mapping[str, Path]) -> Read:
    """Read KEGG's list of links with its list of names, or a file of sets."""
    import polars as pl

    if "links" not in files:
        if "sets" in files:
            return gmt.read(files["sets"])
        raise MissingError("KEGG needs its file links, or a .gmt of its pathways")
    path = files["links"]
    linked = _pairs(path, "path:hsa00010, a tab, hsa:10327")
    pairs = [(pathway.removeprefix("path:"), gene.removeprefix("hsa:")) for pathway, gene in linked]
    for pathway, gene in pairs:
        if not (pathway.startswith("hsa") and gene.isdigit()):
            what = f"links {pathway!r} with {gene!r}, not a human pathway with a gene"
            raise DamagedError(what, where=path, remedy=_ANEW)
    names = _names(files["names"]) if "names" in files else {}
    table = pl.DataFrame(pairs, schema={"term": pl.String, "gene": pl.String}, orient="row")
    symbols = _symbols(files["genes"]) if "genes" in files else {}
    called = pl.col("gene").replace_strict(symbols, default=None, return_dtype=pl.String)
    table = table.with_columns(label=pl.col("term").replace(names), called=called)
    unnamed = len({pathway for pathway, _ in pairs} - names.keys())
    notes = (f"{console.count(unnamed, 'pathway')} without a name, called by their numbers",) if unnamed else ()
    return Read(finish(table, where=path, gene_kind="entrez"), "", notes)


def _names(path: Path) -> dict[str, str]:
    pairs = _pairs(path, "hsa00010, a tab, a pathway's name")
    return {pathway.removeprefix("path:"): name.removesuffix(_SPECIES) for pathway, name in pairs}


def _symbols(path: Path) -> dict[str, str]:
    """Return genes' symbols by their numbers; the last field of a line is `SYMBOL, others; a name`, or a name alone."""
    found = {}
    for number, line in lines(path):
        cells = line.split("\t")
        if line.strip() and (len(cells) < 2 or not cells[0].startswith("hsa:")):
            raise DamagedError(f"line {number:,} is not of the form: hsa:10327, a tab, names", where=path, remedy=_ANEW)
        symbols, semicolon, _ = cells[-1].partition(";")
        if semicolon:
            found[cells[0].removeprefix("hsa:").strip()] = symbols.partition(",")[0].strip()
    return found


def _pairs(path: Path, form: str) -> list[tuple[str, str]]:
    found = []
    for number, line in lines(path):
        if not line.strip():
            continue
        cells = [cell.strip() for cell in line.split("\t")]
        if len(cells) != 2 or not all(cells):
            raise DamagedError(f"line {number:,} is not of the form: {form}", where=path, remedy=_ANEW)
        found.append((cells[0], cells[1]))
    return found


SOURCE = Database(
    name="kegg",
    title="KEGG",
    tier=4,
    licence=Licence(
        "KEGG's own terms", "https://www.kegg.jp/kegg/legal.html", redistributable=False, only="academic use alone"
    ),
    about="a gene lies on a pathway",
    files=(
        # None alone is needed: a person's .gmt stands for both lists.
        File("links", _REST + "link/hsa/pathway", ("links.txt", "*link*hsa*"), needed=False),
        File("names", _REST + "list/pathway/hsa", ("names.txt", "*list*pathway*"), needed=False),
        File("genes", _REST + "list/hsa", ("genes.txt", "*list*hsa*"), needed=False),
        File("sets", called=gmt.PATTERNS, needed=False),
    ),
    read=read,
)
