"""Small ontologies with annotations, and what their statistics are when they are counted one gene at a time."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping

import numpy as np
import polars as pl

from elute.validation.ontology import Branch, branch
from elute.validation.reading.obo import Ontology

ROOT = "XX:0"


def ontology(
    parents: Mapping[str, Iterable[str]],
    *,
    part_of: Mapping[str, Iterable[str]] | None = None,
    namespace: Mapping[str, str] | None = None,
    obsolete: Iterable[str] = (),
    replaced: Mapping[str, str] | None = None,
) -> Ontology:
    """An ontology that nobody read from a file, so that it may be as broken as one likes."""
    names = [*parents, *(term for term in obsolete if term not in parents)]
    return Ontology(
        version="2031-01-01",
        names={term: f"term {term}" for term in names},
        parents={term: tuple(parents.get(term, ())) for term in names},
        part_of={term: tuple(wholes) for term, wholes in (part_of or {}).items()},
        namespace={term: (namespace or {}).get(term, "kitchen") for term in names},
        replaced=dict(replaced or {}),
        alternative={},
        obsolete=frozenset(obsolete),
        definitions={},
        synonyms={},
    )


def pairs(genes: Mapping[str, Iterable[str]]) -> pl.DataFrame:
    """Annotations from the genes of each term."""
    rows = [(gene, term) for term, held in genes.items() for gene in held]
    return pl.DataFrame(rows, schema={"gene": pl.String, "term": pl.String}, orient="row")


def random_branch(seed: int, *, terms: int = 25, genes: int = 60, density: float = 0.04) -> Branch:
    """A branch in which every term has one to three parents among the terms before it."""
    rng = np.random.default_rng(seed)
    parents: dict[str, list[str]] = {ROOT: []}
    for i in range(1, terms):
        many = int(rng.integers(1, min(3, i) + 1))
        parents[f"XX:{i}"] = [f"XX:{j}" for j in rng.choice(i, many, replace=False)]
    held = {f"g{g:03d}": {f"XX:{t}" for t in np.flatnonzero(rng.random(terms) < density)} for g in range(genes)}
    for some in held.values():
        some.add(f"XX:{rng.integers(0, terms)}")
    annotations = pl.DataFrame(
        [(gene, term) for gene, some in held.items() for term in sorted(some)], schema=["gene", "term"], orient="row"
    )
    return branch(ontology(parents), annotations, root=ROOT)


class Plain:
    """A branch as dictionaries of sets, worked out from the ontology and the annotations that each gene has."""

    def __init__(self, given: Branch) -> None:
        self.parents = {
            term: {p for p in given.ontology.parents[term] if p in set(given.terms)} for term in given.terms
        }
        self.parents[given.root] = set()
        self.children = {term: {c for c in self.parents if term in self.parents[c]} for term in self.parents}
        dense = given.members.toarray()
        self.genes = {term: {given.genes[i] for i in np.flatnonzero(dense[t])} for t, term in enumerate(given.terms)}
        self.population = set(given.genes)

        self._above: dict[str, set[str]] = {}

    def above(self, term: str) -> set[str]:
        """All terms above one."""
        if term not in self._above:
            parents = self.parents[term]
            self._above[term] = parents.union(*(self.above(parent) for parent in parents))
        return self._above[term]

    def deepest_first(self) -> list[str]:
        """Terms, each after all those below it."""
        done: list[str] = []
        while len(done) < len(self.parents):
            done += sorted(t for t in self.parents if t not in done and self.children[t] <= set(done))
        return done


def upper(k: int, n: int, K: int, N: int) -> float:
    """The chance that of n genes drawn from N at least k are among K, counted in whole numbers."""
    ways = sum(math.comb(K, i) * math.comb(N - K, n - i) for i in range(k, min(n, K) + 1))
    return ways / math.comb(N, n)
