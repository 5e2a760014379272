"""Variants as ClinVar tells of them, in its files as by its service: counted for each gene and condition.

1. A variant lies in one gene if all others that it touches are LOC records: regions that regulate the one.
2. A condition has its concept in MedGen as its term (UMLS:, or MEDGEN: for one of MedGen's own), else its id in MONDO
   or OMIM, else its name. `not provided` and its like are no conditions.
3. The score of a gene and a condition is the number of their variants, the evidence the best review status of these.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from elute.validation.reading.associations import empty, finish

if TYPE_CHECKING:
    import polars as pl

PATHOGENIC = r"(?:^|[/;|] ?)(?:likely )?pathogenic(?:$|[/;|,])"  # of a text in small letters that says no conflict
_REGION = re.compile(r"LOC\d+")
_NOWHERE = frozenset(("", "-", "na", "not provided", "not specified", "see cases"))
_REVIEWS = (  # the stars that ClinVar gives
    (4, "practice guideline"),
    (3, "reviewed by expert panel"),
    (2, "multiple submitters, no conflicts"),
    (1, "single submitter"),
    (1, "conflicting"),
)


class Condition(NamedTuple):
    """A condition's id and name."""

    term: str
    label: str


class Variant(NamedTuple):
    """One variant that is pathogenic or likely so."""

    id: str
    gene: str
    """Its gene's symbol; empty if it lies in several, or none."""
    review: str
    conditions: tuple[Condition, ...]


@dataclass
class _Sum:
    label: str
    review: str
    variants: set[str] = field(default_factory=set)


def one_gene(symbols: Iterable[str]) -> str:
    """Return the one gene among symbols; nothing if there are several, or none."""
    named = [each for symbol in symbols if (each := symbol.strip()) and not _REGION.fullmatch(each)]
    return named[0] if len(named) == 1 and named[0] != "-" and not re.search(r"\s", named[0]) else ""


def conditions(ids: str, names: str) -> Iterator[Condition]:
    """Give the conditions of a variant of the file: `|` parts those of submissions, `;` those that one names."""
    for some, called in zip(ids.split("|"), names.split("|"), strict=False):
        each, labels = some.split(";"), called.split(";")
        if len(each) != len(labels):
            each, labels = [some], [called]
        for xrefs, label in zip(each, labels, strict=True):
            if found := condition([ref.strip().partition(":")[::2] for ref in re.split("[,;]", xrefs)], label):
                yield found


def condition(xrefs: Sequence[tuple[str, str]], label: str) -> Condition | None:
    """Return a condition by its ids (database and id); None if it is none."""
    label = label.strip()
    if label.casefold() in _NOWHERE:
        return None
    known = {database.casefold(): number.rpartition(":")[2] for database, number in reversed(xrefs)}
    if concept := known.get("medgen"):
        return Condition(f"UMLS:{concept}" if re.fullmatch(r"C\d+", concept) else f"MEDGEN:{concept}", label)
    return Condition(
        next((f"{name.upper()}:{known[name]}" for name in ("mondo", "omim") if name in known), label), label
    )


def counted(variants: Iterable[Variant], left: Counter[str], *, where: object) -> pl.DataFrame:
    """Count variants for each gene and condition; `left` counts those of which that cannot be said."""
    import polars as pl

    sums: dict[tuple[str, str], _Sum] = {}
    labels: dict[str, str] = {}
    for variant in variants:
        if not variant.gene or not variant.conditions:
            left["over several genes or none" if not variant.gene else "with no named condition"] += 1
            continue
        for term, label in variant.conditions:
            there = sums.setdefault((variant.gene, term), _Sum(labels.setdefault(term, label), variant.review))
            there.variants.add(variant.id)
            there.review = max(there.review, variant.review, key=_stars)
    if not sums:
        return empty()
    rows = [(*pair, each.label, float(len(each.variants)), each.review or None) for pair, each in sums.items()]
    table = pl.DataFrame(rows, schema=["gene", "term", "label", "score", "evidence"], orient="row")
    return finish(table, where=where, gene_kind="symbol", group="variants")


def _stars(review: str) -> int:
    return next((stars for stars, words in _REVIEWS if words in review), 0)
