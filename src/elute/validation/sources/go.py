"""Gene Ontology: which gene has which function, takes part in which process, and works where in the cell.

1. Annotations are read from GOA's file: NOT and ND are left out, as are complexes, RNAs and second organisms.
2. A term that was merged or replaced becomes the one of now; one that was given up is counted and left out.
3. A gene that has a term has all terms above it, by is_a and part_of, as GO's own rule of the true path says; that
   also leads from a function to the process that it is a part of. Enrichment needs these rows, so the table has them:
   their evidence is `inherited`. A row that somebody annotated has the codes, in order: `IDA,IEA`.

About 300,000 pairs of a gene and a term that were annotated become about 2.5 million with those inherited.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from elute.base import console
from elute.base.errors import DataError
from elute.validation.database import Database, File, Licence
from elute.validation.reading.associations import Read, finish
from elute.validation.reading.gaf import read_gaf
from elute.validation.reading.obo import read_obo

if TYPE_CHECKING:
    import polars as pl

    from elute.validation.reading.obo import Ontology

PARTS = True
"""Whether a gene also has what its terms are a part of, not only what they are kinds of."""
INHERITED = "inherited"
GROUPS = {"biological_process": "go_bp", "cellular_component": "go_cc", "molecular_function": "go_mf"}


def read(files: Mapping[str, Path]) -> Read:
    """Read the annotations and pass each on to the terms above it."""
    import polars as pl

    path = files["annotations"]
    ontology, annotated = read_obo(files["ontology"]), read_gaf(path)
    if not GROUPS.keys() & set(ontology.namespace.values()):
        raise DataError("is not the Gene Ontology", where=files["ontology"], remedy="Its file is go-basic.obo.")
    direct, lost = _of_now(annotated.table, ontology)
    if not len(direct):
        raise DataError("has no annotation with a term of the ontology", where=path, remedy="Fetch both files anew.")
    pairs = direct.drop("evidence")
    table = ontology.propagate(pairs, parts=PARTS).join(direct, on=pairs.columns, how="left", maintain_order="left")
    terms = table["term"].unique()
    labels = pl.DataFrame({"term": terms, "label": [ontology.names[term] for term in terms]})
    spaces = [GROUPS.get(ontology.namespace[term]) for term in terms]
    labels = labels.with_columns(pl.Series("group", spaces, dtype=pl.String))
    table = table.join(labels, on="term", how="left", maintain_order="left")
    table = table.with_columns(pl.col("evidence").fill_null(INHERITED))
    notes = [*annotated.notes]
    if lost:
        notes.append(f"{console.count(lost, 'pair')} of a gene and a term left out: the term was given up")
    above = "is_a and part_of" if PARTS else "is_a"
    notes.append(f"{len(direct):,} annotated pairs of a gene and a term became {len(table):,} by {above}")
    return Read(finish(table, where=path), _version(ontology.version, annotated.version), tuple(notes))


def _of_now(table: pl.DataFrame, ontology: Ontology) -> tuple[pl.DataFrame, int]:
    """Give each pair once, under the term's id of now and with all its codes; and how many have no such term."""
    import polars as pl

    now = {term: ontology.current(term) for term in table["term"].unique()}
    renewed = table.with_columns(pl.col("term").replace_strict(now, return_dtype=pl.String))
    keys = ["gene", "gene_kind", "term"]
    codes = pl.col("evidence").unique().sort().str.join(",")
    pairs = renewed.drop_nulls("term").group_by(keys, maintain_order=True).agg(codes)
    lost = table.filter(renewed["term"].is_null()).select(keys).n_unique()
    return pairs, lost


def _version(ontology: str, annotations: str) -> str:
    return f"{ontology}+goa-{annotations}" if ontology and annotations else ontology or annotations


_AT = "https://current.geneontology.org/"

SOURCE = Database(
    name="go",
    title="Gene Ontology",
    tier=4,
    licence=Licence("CC BY 4.0", "https://geneontology.org/docs/go-citation-policy/", redistributable=True),
    about="a gene has a function, takes part in a process or works at a place of the cell",
    files=(
        File("annotations", _AT + "annotations/goa_human.gaf.gz", ("*.gaf", "*.gaf.gz")),
        File("ontology", _AT + "ontology/go-basic.obo", ("go*.obo", "go*.obo.gz"), keep=True),
    ),
    read=read,
)
