"""The background: the genes that could have come up, against which a list is tested, and the sentence that says so.

A gene that the model does not know, that was not measured, or of which a database says nothing can be in no list and
in no term. Left in, such genes make every list look enriched: of published analyses 95% have no proper background.

Parts are intersected in order. Each says what its genes are, and how many were lost with it is kept.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from elute.base.console import count
from elute.base.errors import DataError
from elute.base.genes import Guess, kind_of

LOOKED_AT = 5_000  # genes from which their kind and species are guessed


class Part(NamedTuple):
    """Genes by their keys (HGNC ids where known, else symbols), and what they are: "measured in 10,000 cells"."""

    genes: Iterable[str]
    told: str


class Loss(NamedTuple):
    """What became of the genes with one part."""

    told: str
    given: int
    """Genes of the part itself."""
    lost: int
    """Genes of the parts before it that it does not have."""
    left: int


@dataclass(frozen=True)
class Background:
    """Genes that could have come up, sorted, each once; and one sentence that says which they are."""

    genes: tuple[str, ...]
    stated: str
    losses: tuple[Loss, ...] = ()

    @cached_property
    def place(self) -> dict[str, int]:
        """At which column each gene stands."""
        return {gene: i for i, gene in enumerate(self.genes)}

    def __len__(self) -> int:
        return len(self.genes)


def of_parts(parts: Sequence[Part]) -> Background:
    """Return the genes that are in all parts, such as vocabulary, measured and annotated."""
    if not parts:
        raise DataError("a background needs at least one list of genes")
    left: set[str] = set()
    losses: list[Loss] = []
    for i, part in enumerate(parts):
        genes = _keys(part)
        both = left & genes if i else genes
        if not both:
            raise DataError(_nothing_shared(left, genes, parts[i - 1].told, part.told), where="the background")
        losses.append(Loss(part.told, len(genes), len(left) - len(both) if i else 0, len(both)))
        left = both
    told = ", ".join(f"{loss.told} ({_number(loss, first=not i)})" for i, loss in enumerate(losses))
    return Background(tuple(sorted(left)), f"{count(len(left), 'gene')}: {told}", tuple(losses))


def from_file(path: Path, *, annotated: Part | None = None) -> Background:
    """Return the genes that a person's own file lists, cut to those that are annotated.

    With HGNC's table the file may hold identifiers of any kind; without it, its first column is taken as it stands.
    """
    from elute.validation.gene_lists import map_list, read_list
    from elute.validation.mapping import gene_table

    path = Path(path)
    listed = read_list(path)
    told = f"listed in {path.name}"
    if gene_table() is None:
        part = Part(next(iter(listed.columns.values())), told)
    else:
        mapped = map_list(listed)
        counts = mapped.counts()
        known, given = counts.pop("mapped", 0), sum(counts.values()) - counts.pop("blank", 0)
        told += f", {known:,} of {known + given:,} identifiers known to HGNC" if given else ""
        part = Part([gene for gene in mapped.table["hgnc"].to_list() if gene is not None], told)
    return of_parts([part] if annotated is None else [part, annotated])


def mismatch(names: Iterable[str], others: Iterable[str]) -> str:
    """Say why genes may not be found among others: another species, or another kind of identifier."""
    one, other = _guess(names), _guess(others)
    if one.species != other.species and one.species in ("mouse", "other"):
        return f"They look like genes of {'mouse' if one.species == 'mouse' else 'another species'}."
    if one.kind != other.kind and "unknown" not in (one.kind, other.kind):
        return f"They look like {_NAMED[one.kind]}, the others like {_NAMED[other.kind]}."
    return "Are they of another species, or named in another way?"


_NAMED = {
    "hgnc": "HGNC ids",
    "symbol": "symbols",
    "ensembl": "Ensembl ids",
    "entrez": "Entrez ids",
    "uniprot": "UniProt accessions",
}


def _guess(names: Iterable[str]) -> Guess:
    names = sorted(names)
    return kind_of(names[:: max(1, len(names) // LOOKED_AT)])


def _keys(part: Part) -> set[str]:
    if isinstance(part.genes, str | bytes):
        raise DataError("is one text, not a list of genes", where=f"genes {part.told}")
    genes = {gene.strip() for gene in part.genes if gene} - {""}
    if not genes:
        raise DataError(f"there are no genes {part.told}", where="the background")
    return genes


def _number(loss: Loss, *, first: bool) -> str:
    return f"{loss.given:,}" if first else f"{loss.left:,} of these"


def _nothing_shared(left: set[str], genes: set[str], before: str, told: str) -> str:
    what = f"none of {count(len(genes), 'gene')} {told} is among the {len(left):,} {before}"
    return f"{what}. {mismatch(genes, left)}"
