"""A branch of an ontology with the genes of its terms: what every statistic that knows of ancestors works on.

1. An ontology that is broken is refused: a term below one that is not there or was given up, a cycle, a root that is
   not there or has nothing below it. A parent from another ontology (another prefix) is passed over.
2. A branch is a root and all terms below it, by is_a, and with `parts` by part_of, where it keeps to the root's name
   space: a function of GO is part of a process, and its genes count for the process, but it is no term of that branch.
3. The rule of the true path: a gene that has a term has all terms above it. The population is the genes that have at
   least one term of the branch and stand in the background, if one is given.
4. Terms come parents first: by level, the longest way from the root, then by id.
5. Information is −ln(|G_t| / N). A term that no gene has says as much as the most informative term above it that some
   gene has, so that it can stand in a profile.

The same for HPO, GO (each of its three roots, `parts=True`) and MONDO.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
from scipy import sparse

from elute.base.errors import DamagedError, DataError, near
from elute.base.statistics.checks import Floats, Ints

if TYPE_CHECKING:
    import polars as pl

    from elute.validation.reading.obo import Ontology

ROOTS = {
    "hpo": ("HP:0000118",),
    "go": ("GO:0008150", "GO:0005575", "GO:0003674"),
    "mondo": ("MONDO:0000001",),
}
"""Where the branches of three ontologies begin: abnormalities; processes, places and functions; diseases."""
_ANEW = "Download it anew, and report it to those who make it if it stays so."


@dataclass(frozen=True, eq=False)
class Branch:
    """The terms below a root, itself among them, and the genes of each with those of all terms below it."""

    ontology: Ontology
    root: str
    terms: tuple[str, ...]  # a parent always before its children
    genes: tuple[str, ...]  # the population, sorted
    members: sparse.csr_array  # [terms, genes], 1 where a gene has a term or one below
    above: sparse.csr_array  # [terms, terms], 1 at a term's ancestors and at itself
    parents: sparse.csr_array  # [terms, terms], 1 at a term's parents
    level: Ints
    lost: dict[str, int]  # pairs of a gene and a term that count nowhere here, by the reason

    @cached_property
    def place(self) -> dict[str, int]:
        """Where each term stands."""
        return {term: i for i, term in enumerate(self.terms)}

    @cached_property
    def gene_place(self) -> dict[str, int]:
        """Where each gene stands."""
        return {gene: i for i, gene in enumerate(self.genes)}

    @cached_property
    def sizes(self) -> Ints:
        """How many genes each term has."""
        return np.diff(self.members.indptr).astype(np.int64)

    @cached_property
    def information(self) -> Floats:
        """The information content of each term; it never falls on the way down."""
        held = self.sizes > 0
        content = np.where(held, np.log(len(self.genes)) - np.log(np.maximum(self.sizes, 1)), 0.0)
        for term in np.flatnonzero(~held).tolist():
            content[term] = content[row(self.parents, term)].max(initial=0.0)
        return np.maximum(content, 0.0)

    def find(self, terms: Iterable[str]) -> Ints:
        """Return where terms stand, by their ids of now or of old; one that is not of this branch is refused."""
        found = []
        for term in terms:
            at = self.place.get(self.ontology.current(term) or term)
            if at is None:
                raise DataError(f"{term} is no term below {self.root}", where="ontology", remedy="Leave it out.")
            found.append(at)
        return np.array(found, dtype=np.int64)

    def lists(self, names: Sequence[Iterable[str]]) -> sparse.csr_array:
        """Turn lists of genes into [lists, genes of the branch]; genes that are not in the population fall out."""
        rows = [sorted({self.gene_place[gene] for gene in each if gene in self.gene_place}) for each in names]
        return matrix(rows, len(self.genes))

    def cut(self, lists: sparse.csr_array, genes: Sequence[str]) -> sparse.csr_array:
        """Turn lists over other genes, such as a background's, into lists over those of the branch."""
        if lists.shape[1] != len(genes):
            raise DataError(
                f"has {lists.shape[1]} columns for {len(genes)} genes", where="lists", remedy="Give one a gene."
            )
        both = [(i, self.gene_place[gene]) for i, gene in enumerate(genes) if gene in self.gene_place]
        here, there = np.array(both, dtype=np.int64).reshape(-1, 2).T
        moved = sparse.csr_array(
            (np.ones(len(here), dtype=np.int32), (here, there)), shape=(len(genes), len(self.genes))
        )
        return sparse.csr_array(lists.astype(np.int32) @ moved)

    def names(self, at: Iterable[int]) -> list[str]:
        """Return what the terms at some places are called."""
        return [self.ontology.names[self.terms[i]] for i in at]


def row(matrix: sparse.csr_array, i: int) -> Ints:
    """Return which columns of a row are not empty."""
    found: Ints = matrix.indices[matrix.indptr[i] : matrix.indptr[i + 1]].astype(np.int64)
    return found


def check(ontology: Ontology, *, roots: Iterable[str] = (), parts: bool = False, where: object = "ontology") -> None:
    """Refuse an ontology that is broken, or that lacks a root asked for."""
    current = [term for term in ontology.names if term not in ontology.obsolete]
    if not current:
        raise DamagedError("holds no terms", where=where, remedy=_ANEW)
    graph = {term: _direct(ontology, term, parts=parts) for term in current}
    for term, parents in graph.items():
        for other in parents:
            if other not in ontology.names and _kind(other) == _kind(term):
                raise DamagedError(f"{term} lies below {other}, which is not there", where=where, remedy=_ANEW)
            if other in ontology.obsolete:
                raise DamagedError(f"{term} lies below {other}, which is obsolete", where=where, remedy=_ANEW)
    known = {term: tuple(p for p in parents if p in graph) for term, parents in graph.items()}
    if cycle := _cycle(known):
        shown = " → ".join([*cycle[:6], "…", cycle[0]] if len(cycle) > 6 else [*cycle, cycle[0]])
        raise DamagedError(f"a term lies below itself: {shown}", where=where, remedy=_ANEW)
    above = {parent for parents in known.values() for parent in parents}
    for root in roots:
        if root not in graph:
            remedy = near(root, [term for term in known if not known[term]]) or _ANEW
            raise DataError(f"has no term {root}, which was to be the root", where=where, remedy=remedy)
        if root not in above:
            raise DataError(f"nothing lies below {root}, which was to be the root", where=where, remedy=_ANEW)


def tops(ontology: Ontology, *, parts: bool = False) -> tuple[str, ...]:
    """Return the terms that lie below no other and have some below them, sorted."""
    alive = [term for term in ontology.names if term not in ontology.obsolete]
    known = {term: [p for p in _direct(ontology, term, parts=parts) if p in ontology.names] for term in alive}
    above = {parent for parents in known.values() for parent in parents}
    return tuple(sorted(term for term in alive if not known[term] and term in above))


def branch(
    ontology: Ontology,
    annotations: pl.DataFrame,
    *,
    root: str,
    background: Iterable[str] | None = None,
    parts: bool = False,
) -> Branch:
    """Gather what lies below a root, with the genes of annotations (columns gene and term, direct or passed on)."""
    root = ontology.current(root) or root
    check(ontology, roots=[root], parts=parts)
    known = _below(ontology, root, parts=parts)
    level: dict[str, int] = {}
    for term in _order(known):
        level[term] = 1 + max((level[parent] for parent in known[term]), default=-1)
    terms = tuple(sorted(level, key=lambda term: (level[term], term)))
    place = {term: i for i, term in enumerate(terms)}
    ups = [sorted(place[parent] for parent in known[term]) for term in terms]
    above = [sorted(_within(ontology, term, place, parts=parts)) for term in terms]
    genes, members, lost = _population(ontology, annotations, place, background=background, parts=parts)
    return Branch(
        ontology=ontology,
        root=root,
        terms=terms,
        genes=genes,
        members=members,
        above=matrix(above, len(terms)),
        parents=matrix(ups, len(terms)),
        level=np.array([level[term] for term in terms], dtype=np.int64),
        lost=lost,
    )


def _population(
    ontology: Ontology,
    annotations: pl.DataFrame,
    place: dict[str, int],
    *,
    background: Iterable[str] | None,
    parts: bool,
) -> tuple[tuple[str, ...], sparse.csr_array, dict[str, int]]:
    """Pass annotations on to the terms above; returns the population, the members, and what was lost."""
    import polars as pl

    pairs = annotations.select("gene", "term").drop_nulls().unique(maintain_order=True)
    lost = {"gene not in the background": 0, "term unknown": 0, "term elsewhere": 0}
    if background is not None:
        inside = pl.Series("gene", sorted(set(background)), dtype=pl.String)
        kept = pairs.filter(pl.col("gene").is_in(inside.implode()))
        lost["gene not in the background"] = len(pairs) - len(kept)
        pairs = kept
    rows: list[list[int]] = []
    at: dict[str, int] = {}
    for term, often in pairs.group_by("term", maintain_order=True).len().iter_rows():
        now = ontology.current(term)
        up = sorted(_within(ontology, now, place, parts=parts)) if now else []
        if up:
            at[term] = len(rows)
            rows.append(up)
        else:
            lost["term elsewhere" if now else "term unknown"] += often
    pairs = pairs.filter(pl.col("term").is_in(list(at)))
    genes = tuple(pairs["gene"].unique().sort().to_list())
    if not genes:
        raise DataError(
            "no gene has a term of the branch", where="annotations", remedy="Are genes and terms named alike in both?"
        )
    columns = {gene: i for i, gene in enumerate(genes)}
    index = (
        np.array([at[term] for term in pairs["term"].to_list()], dtype=np.int64),
        np.array([columns[gene] for gene in pairs["gene"].to_list()], dtype=np.int64),
    )
    direct = sparse.csr_array((np.ones(len(pairs), dtype=np.int32), index), shape=(len(rows), len(genes)))
    members = sparse.csr_array(matrix(rows, len(place)).T @ direct)
    members.data[:] = 1
    members.sort_indices()
    return genes, members, lost


def _direct(ontology: Ontology, term: str, *, parts: bool) -> tuple[str, ...]:
    above = ontology.parents.get(term, ())
    return (*above, *ontology.part_of.get(term, ())) if parts else above


def _kind(term: str) -> str:
    return term.partition(":")[0] if ":" in term else ""


def _within(ontology: Ontology, term: str, place: dict[str, int], *, parts: bool) -> set[int]:
    """Return where a term and those above it stand, of those that are in the branch."""
    return {place[each] for each in (term, *ontology.ancestors(term, parts=parts)) if each in place}


def _below(ontology: Ontology, root: str, *, parts: bool) -> dict[str, tuple[str, ...]]:
    """Return the terms of a root's branch, each with its parents there."""
    space = ontology.namespace.get(root)
    inside = {
        term
        for term in ontology.names
        if term not in ontology.obsolete
        and (term == root or root in ontology.ancestors(term, parts=parts))
        and (not parts or ontology.namespace.get(term) == space)
    }
    known = {term: tuple({p for p in _direct(ontology, term, parts=parts) if p in inside}) for term in inside}
    # A term that leads to the root through another name space alone stands right below it.
    return {term: () if term == root else known[term] or (root,) for term in inside}


def _order(known: dict[str, tuple[str, ...]]) -> list[str]:
    """Return terms so that each comes after all its parents; those on or below a cycle are left out."""
    waiting = {term: len(set(parents)) for term, parents in known.items()}
    children: dict[str, list[str]] = {}
    for term, parents in known.items():
        for parent in set(parents):
            children.setdefault(parent, []).append(term)
    ready = [term for term, left in waiting.items() if not left]
    for term in ready:  # it grows while it is walked
        for child in children.get(term, ()):
            waiting[child] -= 1
            if not waiting[child]:
                ready.append(child)
    return ready


def _cycle(known: dict[str, tuple[str, ...]]) -> list[str]:
    """Return the terms of one cycle, each below the next, from the least on; nothing if there is none."""
    left = set(known) - set(_order(known))
    if not left:
        return []
    # Whoever is left has a parent that is left, so the way up meets itself.
    trail: list[str] = []
    term = min(left)
    while term not in trail:
        trail.append(term)
        term = min(parent for parent in known[term] if parent in left)
    cycle = trail[trail.index(term) :]
    first = cycle.index(min(cycle))
    return cycle[first:] + cycle[:first]


def matrix(rows: Sequence[Sequence[int]], width: int) -> sparse.csr_array:
    """Return a matrix with 1 at the places that each row names, which ascend."""
    ends = np.cumsum([0, *map(len, rows)])
    at = np.fromiter((i for each in rows for i in each), dtype=np.int64, count=int(ends[-1]))
    return sparse.csr_array((np.ones(len(at), dtype=np.int32), at, ends), shape=(len(rows), width))
