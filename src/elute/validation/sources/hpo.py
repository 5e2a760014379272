"""HPO: which phenotypes and rare diseases go with a gene.

A gene's phenotypes are those of the diseases that it causes, so rows rest on OMIM and Orphanet. They are direct ones:
what lies above a term is added where it is needed (`reading.obo.Ontology.propagate`).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base.console import count
from elute.validation.database import Database, File, Gene, Licence
from elute.validation.reading import hpo
from elute.validation.reading.associations import Read, finish

if TYPE_CHECKING:
    import polars as pl

    from elute.validation.online.client import Client
    from elute.validation.online.service import Service
    from elute.validation.reading.obo import Ontology

_FILES = "https://purl.obolibrary.org/obo/hp/hpoa"
_PHENOTYPES = "HP:0000118"
_FREQUENCIES = {
    "HP:0040280": "obligate",
    "HP:0040281": "very frequent",
    "HP:0040282": "frequent",
    "HP:0040283": "occasional",
    "HP:0040284": "very rare",
}
_GENE = "network/annotation/NCBIGene"
_KNOWN = "672"  # BRCA1
_EXCLUDED = "HP:0040285"


def read(files: Mapping[str, Path]) -> Read:
    """Read HPO's files: phenotypes of genes, and their diseases."""
    import polars as pl

    path = files[hpo.GENES]
    ontology = _ontology(files)
    rows = hpo.read_genes(path)
    phenotypes, notes = _phenotypes(rows.table, ontology)
    names = hpo.disease_names(files.get(hpo.DISEASES))
    if hpo.PAIRS in files:
        pairs = hpo.read_pairs(files[hpo.PAIRS])
        links = pairs.table.with_columns(evidence=pl.col("kind")).select("entrez", "symbol", "disease", "evidence")
        notes += list(pairs.notes)
    else:
        links = rows.table.select("entrez", "symbol", "disease", evidence=pl.lit(None, dtype=pl.String))
    diseases = hpo.named_diseases(links, names).with_columns(group=pl.lit("disease"))
    if not names:
        notes.append("Without phenotype.hpoa the diseases have their numbers for names.")
    table = pl.concat([phenotypes, diseases], how="diagonal")
    version = hpo.version_of(files[hpo.DISEASES]) if hpo.DISEASES in files else ""
    version = version or (ontology.version if ontology else "")
    return Read(finish(table, where=path, gene_kind="entrez"), version, (*rows.notes, *notes))


def _ontology(files: Mapping[str, Path]) -> Ontology | None:
    from elute.validation.reading.obo import read_obo

    return read_obo(files[hpo.ONTOLOGY]) if hpo.ONTOLOGY in files else None


def _phenotypes(rows: pl.DataFrame, ontology: Ontology | None) -> tuple[pl.DataFrame, list[str]]:
    """Turn rows of genes_to_phenotype into ours; evidence is the disease through which, and how often it is seen."""
    import polars as pl

    notes: list[str] = []
    kept = rows.filter(pl.col("frequency").ne_missing(_EXCLUDED))
    notes += hpo.left_out(len(rows) - len(kept), "of phenotypes that are marked as excluded")
    never = len(kept.filter(pl.col("frequency").str.contains(r"^0/\d+$")))
    if never:
        notes.append(
            f"{count(never, 'row')} of phenotypes seen in none of the patients (0/n) stay, as in HPO's own tables."
        )
    often = pl.col("frequency").replace(_FREQUENCIES).replace("-", None)
    table = kept.select(
        "term",
        "label",
        gene="entrez",
        called="symbol",
        evidence=pl.concat_str(pl.col("disease"), often, separator=" ", ignore_nulls=True),
    )
    if ontology is None:
        notes.append("Without hp.obo modes of inheritance and courses are not told from phenotypes.")
        return table.with_columns(group=pl.lit("phenotype")), notes
    return _grouped(table, ontology, notes), notes


def _grouped(table: pl.DataFrame, ontology: Ontology, notes: list[str]) -> pl.DataFrame:
    """Name each term as the ontology of now does, and say on which of its branches it stands."""
    import polars as pl

    terms = table["term"].unique(maintain_order=True).to_list()
    now = {term: ontology.current(term) or term for term in terms}
    branch = {term: _branch(ontology, now[term]) for term in terms}
    label = {term: ontology.names[new] for term, new in now.items() if new in ontology.names}
    moved = sum(old != new for old, new in now.items())
    unknown = ontology.unknown(terms)
    if moved:
        notes.append(f"{count(moved, 'term')} of old stand as the terms that replaced them.")
    if unknown:
        notes.append(f"{count(len(unknown), 'term')} that hp.obo does not know, {unknown[0]} for one.")
    return table.with_columns(
        term=pl.col("term").replace(now),
        label=pl.col("term").replace_strict(label, default=pl.col("label"), return_dtype=pl.String),
        group=pl.col("term").replace_strict(branch, return_dtype=pl.String),
    )


def _branch(ontology: Ontology, term: str) -> str:
    above = ontology.ancestors(term) | {term}
    if _PHENOTYPES in above or term not in ontology.names:
        return "phenotype"
    tops = sorted(each for each in above if len(ontology.ancestors(each)) == 1)
    return ontology.names[tops[0]].lower() if tops else "other"


def ask(client: Client, genes: Sequence[Gene]) -> pl.DataFrame:
    """Ask HPO's service what it says of genes by their Entrez ids; it gives neither frequencies nor branches."""
    import polars as pl

    from elute.validation.online.answers import Absent

    rows: list[dict[str, str]] = []
    for gene in genes:
        try:
            found = client.get(_service(), f"{_GENE}:{gene.entrez}", read=_terms)
        except Absent:
            found = _none(client)
        rows += [{"gene": gene.entrez, "called": gene.symbol, **each} for each in found]
    names = ("gene", "called", "term", "label", "group")
    return finish(pl.DataFrame(rows, schema=dict.fromkeys(names, pl.String)), where="HPO", gene_kind="entrez")


def _none(client: Client) -> list[dict[str, str]]:
    """Return nothing for a gene that is not known, if one that certainly is known still is."""
    from elute.validation.online.answers import Absent, Unusable

    try:
        client.get(_service(), f"{_GENE}:{_KNOWN}", read=_terms)
    except Absent:
        raise Unusable("does not even know BRCA1: it may answer at another address now", where="hpo") from None
    return []


def _terms(answer: Any) -> list[dict[str, str]]:
    from elute.validation.online.answers import Unusable, field, items

    found = []
    for name, group, form in (("phenotypes", "phenotype", "HP:"), ("diseases", "disease", "")):
        for item in items(answer, name):
            term = field(item, "id", str)
            if not term.startswith(form) or ":" not in term:
                raise Unusable(f"has {term!r} as an id in {name}")
            found.append({"term": term, "label": field(item, "name", str), "group": group})
    return found


def _service() -> Service:
    from elute.validation.online.service import Service

    return Service(name="hpo", base="https://ontology.jax.org/api/", pause=0.25)


SOURCE = Database(
    name="hpo",
    title="HPO",
    tier=1,
    licence=Licence("HPO licence: free if cited, versioned and unaltered", "https://hpo.jax.org/license", True),
    about="a gene causes a disease in which a phenotype is seen, or causes a disease",
    files=(
        File(hpo.GENES, f"{_FILES}/genes_to_phenotype.txt", hpo.CALLED[hpo.GENES]),
        File(hpo.DISEASES, f"{_FILES}/phenotype.hpoa", hpo.CALLED[hpo.DISEASES], needed=False),
        File(hpo.PAIRS, f"{_FILES}/genes_to_disease.txt", hpo.CALLED[hpo.PAIRS], needed=False),
        File(hpo.ONTOLOGY, "https://purl.obolibrary.org/obo/hp.obo", hpo.CALLED[hpo.ONTOLOGY], needed=False, keep=True),
    ),
    read=read,
    packaged=partial(hpo.packaged, hpo.GENES, hpo.DISEASES, hpo.PAIRS, hpo.ONTOLOGY),
    ask=ask,
    ask_by="entrez",
    draws_on=("omim", "orphanet"),
)
