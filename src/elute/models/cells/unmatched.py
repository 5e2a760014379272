"""Why none of a file's genes is in a model's vocabulary, and what to do: a guess from what they look like."""

from __future__ import annotations

from typing import TYPE_CHECKING

from elute.base.data import HGNC, data_folder
from elute.base.genes import Guess
from elute.models.cells.gene_vocabulary import WORDS

if TYPE_CHECKING:
    import polars as pl

_GENE_INSIDE = r"(?i)ENS(?:[A-Z]{3,4})?G\d{11}"
_NO_GENE = r"(?i)^ENS(?:[A-Z]{3,4})?(?:T|P|E)\d{11}"


def remedy(ids: pl.Series, theirs: Guess, ours: Guess, *, through: str | None) -> str:
    """Say what the identifiers look like, and how to give those of the model; `through` is the table that was used."""
    words, wanted = WORDS[theirs.kind], WORDS[ours.kind]
    if theirs.kind != "ensembl" and _most(ids, _GENE_INSIDE):
        return "Ensembl ids stand inside longer text: make a column of the ids alone, and give --gene-id-key COLUMN."
    if theirs.species != ours.species and theirs.species in ("mouse", "other"):
        whose = "mouse genes" if theirs.species == "mouse" else "genes of another species"
        knows = f"{ours.species} genes" if ours.species in ("human", "mouse") else "others"
        return f"They look like {whose}, and this model knows {knows}: give --gene-map FILE with the orthologues."
    if _most(ids, _NO_GENE):
        return "They are transcripts or proteins of Ensembl: add them up by gene first."
    ways = "give --gene-id-key COLUMN or --gene-map FILE (two columns)"
    if through is not None:
        return f"None of them leads to a gene of the model in {through} either: {ways}."
    if theirs.kind == "entrez":
        return f"They look like Entrez numbers, or numbers of rows, and the model knows {wanted}: {ways}."
    if theirs.kind != ours.kind and theirs.kind != "unknown":
        place = f", or put {HGNC} into {data_folder()}" if "unknown" not in (theirs.kind, ours.kind) else ""
        return f"They look like {words}, and the model knows {wanted}: {ways}{place}."
    return f"Check that file and model are of one species and one kind of identifier, or {ways}."


def _most(ids: pl.Series, pattern: str) -> bool:
    """Whether more than half of the identifiers fit."""
    there = ids.drop_nulls()
    return len(there) > 0 and int(there.str.contains(pattern).sum()) * 2 > len(there)
