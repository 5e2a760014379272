"""Networks of interactions, and whether a list's genes interact more than their degrees give, by STRING's own test.

1. The network is the source's pairs between the background's genes, from one score on; degrees d and the number of
   interactions m are counted in it.
2. A pair is expected with p_ij = 1 − exp(−d_i d_j / 2m), a list with λ = Σ_{j ≤ i} p_ij, self pairs included.
   p = P(k ≤ X ≤ Kmax) / P(X ≤ Kmax) for k interactions seen, X Poisson(λ), Kmax = n (n − 1) / 2, over the n genes of
   the list that have an interaction.
3. All lists at once: p_ij depends on two degrees alone, so λ is half the quadratic form of how many genes of each
   degree a list has, and half its self pairs. The tail is a sum of positive terms, in logs.
4. Read with care: interactions come in modules, so their number varies more than Poisson's, and p_ij is too low between
   genes of many interactions. On random lists the test is cautious (2% have p < 0.05, in STRING 12 from 0.7 on); of
   lists drawn in proportion to d, 55% do. `network_modules.coherence` holds its level on both.

A. Franceschini et al., Nucleic Acids Res. 41, 2013; the formula as in the Bioconductor package STRINGdb.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl
from numpy.typing import ArrayLike
from scipy import sparse, special

from elute.base.compiled import compiled, over
from elute.base.errors import ConfigError, DataError
from elute.base.statistics.checks import Floats, Ints
from elute.base.statistics.corrections import correct

if TYPE_CHECKING:
    from elute.validation.background import Background

BLOCK = 4096  # lists whose expectations are held at a time


@dataclass(frozen=True, eq=False)
class Network:
    """Interactions between the genes of a background."""

    background: Background
    names: tuple[str, ...]  # one a gene: its symbol, where the source has one
    scores: Any  # csr_array [genes, genes], symmetric, nothing on the diagonal
    least_score: float
    source: str

    @cached_property
    def degrees(self) -> Ints:
        """How many interactions each gene has."""
        degrees: Ints = np.diff(self.scores.indptr).astype(np.int64)
        return degrees

    @cached_property
    def arcs(self) -> Any:
        """Each interaction once, in the row of the gene that has fewer: no row is long, and few are looked through."""
        links = self.scores.tocoo()
        fewer, more = self.degrees[links.row], self.degrees[links.col]
        once = (fewer < more) | ((fewer == more) & (links.row < links.col))
        at = (links.row[once], links.col[once])
        return sparse.csr_array((np.ones(len(at[0]), np.int8), at), shape=links.shape)

    @property
    def n_links(self) -> int:
        """How many interactions there are."""
        return int(self.scores.nnz) // 2

    @property
    def stated(self) -> str:
        """What it is, in one sentence."""
        linked = int((self.degrees > 0).sum())
        return (
            f"{self.n_links:,} interactions of score {self.least_score:g} or more ({self.source}) between {linked:,} of"
            f" {len(self.names):,} genes"
        )

    @cached_property
    def expectation(self) -> tuple[Ints, Floats]:
        """The class of each gene's degree, and p_ij between two classes."""
        kinds, classes = np.unique(self.degrees, return_inverse=True)
        d = kinds.astype(np.float64)
        return classes.reshape(-1).astype(np.int64), -np.expm1(-np.outer(d, d) / (2.0 * self.n_links))


def network_of(
    table: pl.DataFrame, background: Background, least_score: float = 0.7, *, source: str = "STRING"
) -> Network:
    """Build the network from a whole snapshot, as `mapping.identify` returns it: a row a gene and a partner (label).

    A gene's key is its `hgnc`, else its symbol. Answers of the service will not do: degrees need all pairs.
    """
    where = "network_of"
    if not 0.0 < least_score <= 1.0:
        raise ConfigError(f"{least_score:g} is no score from 0 to 1", where=f"{where}(least_score)", remedy="Give 0.7.")
    if lacking := {"gene", "label", "score"} - set(table.columns):
        raise DataError(f"has no column {min(lacking)!r}", where=f"{where}(table)")
    shown = pl.col("symbol") if "symbol" in table.columns else pl.col("gene")
    key = pl.coalesce("hgnc", shown) if "hgnc" in table.columns else shown
    place = pl.DataFrame({"key": background.genes, "place": np.arange(len(background.genes))})
    # Of a pair that is written from both sides, the other row says which gene a partner's name is.
    sides = (table.select(gene=name, key=key, name=shown) for name in ("gene", *{"symbol"}.intersection(table.columns)))
    named = pl.concat([*sides, table.select(gene="label", key="label", name="label")])
    named = named.unique("gene", keep="first", maintain_order=True)
    genes = named.join(place, on="key", maintain_order="left")
    pairs = table.lazy().filter(pl.col("score") >= least_score).select("gene", "label", "score")
    pairs = pairs.join(genes.lazy().select("gene", a="place"), on="gene")
    pairs = pairs.join(genes.lazy().select(label="gene", b="place"), on="label").filter(pl.col("a") != pl.col("b"))
    low, high = pl.min_horizontal("a", "b").alias("a"), pl.max_horizontal("a", "b").alias("b")
    links = pairs.select(low, high, "score").group_by("a", "b").agg(pl.col("score").max()).sort("a", "b").collect()
    if links.is_empty():
        raise DataError(
            f"no interaction of score {least_score:g} or more between the background's {len(background.genes):,} genes",
            where=f"{where}(table)",
            remedy="Map the table's genes first (mapping.identify), or lower the score.",
        )
    a, b, score = (links[name].to_numpy() for name in ("a", "b", "score"))
    n, both = len(background.genes), (np.concatenate([a, b]), np.concatenate([b, a]))
    scores = sparse.csr_array((np.tile(score, 2), both), shape=(n, n))
    scores.sort_indices()
    called = dict(genes.unique("key", keep="first", maintain_order=True).select("key", "name").iter_rows())
    return Network(background, tuple(called.get(gene, gene) for gene in background.genes), scores, least_score, source)


@dataclass(frozen=True, eq=False)
class Interactions:
    """STRING's test, one entry a list."""

    linked: Ints  # genes of the list that have any interaction
    observed: Ints
    expected: Floats  # λ
    log_p: Floats
    q: Floats

    @property
    def p(self) -> Floats:
        """The p-values; those below 1e-308 are 0."""
        return np.exp(self.log_p)


def interactions(
    lists: Any,
    network: Network,
    *,
    self_pairs: bool = True,
    correction: str = "benjamini-hochberg",
    n_tests: int | None = None,
) -> Interactions:
    """Test lists, a csr_array [lists, genes] over the network's background, by STRING's formula."""
    checked = checked_lists(lists, network, "interactions(lists)")
    linked, observed = checked @ (network.degrees > 0).astype(np.int64), observed_links(checked, network)
    expected = expected_links(checked, network, self_pairs=self_pairs)
    log_p = log_tail(observed, expected, linked * (linked - 1) // 2)
    return Interactions(linked, observed, expected, log_p, correct(np.exp(log_p), correction, n_tests=n_tests))


def expected_links(lists: Any, network: Network, *, self_pairs: bool = True) -> Floats:
    """Return λ of each list: all pairs of its genes, and each gene with itself unless told otherwise."""
    classes, pair = network.expectation
    n = len(classes)
    kinds = sparse.csr_array((np.ones(n), (np.arange(n), classes)), shape=(n, len(pair)))
    counts = (lists @ kinds).tocsr()
    starts = range(0, counts.shape[0], BLOCK)
    # Half of the quadratic form is every pair once, and half of every self pair.
    parts = [counts[at : at + BLOCK].multiply(counts[at : at + BLOCK] @ pair).sum(axis=1) for at in starts]
    own = 0.5 * (counts @ pair.diagonal())
    expected: Floats = 0.5 * np.concatenate(parts) + (own if self_pairs else -own)
    return np.maximum(expected, 0.0)


def log_tail(seen: Ints, rate: Floats, most: Ints) -> Floats:
    """Return log P(seen ≤ X ≤ most) / P(X ≤ most), X Poisson: elementwise."""
    result = np.zeros(len(seen))
    far = (seen > rate) & (seen > 0)
    near = ~far & (seen > 0)
    k, lam = seen[near].astype(np.float64), rate[near]
    result[near] = np.log1p(-special.gammaincc(k, lam) / special.gammaincc(most[near] + 1.0, lam))
    k, lam, room = seen[far].astype(np.float64), rate[far], (most - seen)[far]
    with np.errstate(divide="ignore"):  # where nothing is expected, what is seen is impossible
        tail = special.xlogy(k, lam) - lam - special.gammaln(k + 1.0) + np.log(_ratios(k, lam, room))
    result[far] = tail - np.log(special.gammaincc(k, lam) + np.exp(tail))
    return np.minimum(result, 0.0)


def _ratios(k: Floats, lam: Floats, room: Ints) -> Floats:
    """Return Σ of P(X = k + i) / P(X = k) for i from 0 to room, where k > λ."""
    total, term, i = np.ones(len(k)), np.ones(len(k)), 0
    while True:
        i += 1
        term = np.where(i <= room, term * lam / (k + i), 0.0)
        total = total + term
        # The ratios fall, so what is left is below a geometric series.
        if np.all(term * lam <= 1e-17 * total * (k + i - lam)):
            return total


@dataclass(frozen=True, eq=False)
class SubNetwork:
    """The interactions among a list's genes."""

    network: Network
    genes: Ints  # places in the background, ascending
    scores: Any  # csr_array [genes, genes]

    @cached_property
    def names(self) -> tuple[str, ...]:
        """What each gene is called."""
        return tuple(self.network.names[gene] for gene in self.genes.tolist())

    @cached_property
    def inside(self) -> Ints:
        """How many interactions each gene has among them."""
        inside: Ints = np.diff(self.scores.indptr).astype(np.int64)
        return inside


def sub_network(network: Network, places: ArrayLike) -> SubNetwork:
    """Return the network among genes, given by their places in the background."""
    genes = np.unique(np.asarray(places))
    if not genes.size or genes.dtype.kind not in "iu" or genes[0] < 0 or genes[-1] >= len(network.names):
        raise DataError(
            f"are not places from 0 to {len(network.names) - 1}",
            where="sub_network(places)",
            remedy="Look genes up in background.place.",
        )
    genes = genes.astype(np.int64)
    scores = network.scores[genes][:, genes].tocsr()
    scores.sort_indices()
    return SubNetwork(network, genes, scores)


def checked_lists(lists: Any, network: Network, where: str) -> Any:
    """Return lists as a csr_array of ones."""
    found = sparse.csr_array(lists, copy=True)
    if found.ndim != 2 or found.shape[1] != len(network.names) or not found.shape[0]:
        what = f"has shape {found.shape} for {len(network.names)} genes"
        raise DataError(what, where=where, remedy="Make the lists over the network's own background.")
    found.sum_duplicates()
    found.eliminate_zeros()
    if found.nnz and not np.all(found.data == 1):
        raise DataError("holds other numbers than 0 and 1", where=where)
    return sparse.csr_array((np.ones(found.nnz, np.int64), found.indices, found.indptr), shape=found.shape)


def observed_links(lists: Any, network: Network) -> Ints:
    """Return how many interactions there are within each list."""
    seen: Ints = count_links(lists, network, np.arange(len(network.names), dtype=np.int32)[None, :])[:, 0]
    return seen.astype(np.int64)


def count_links(lists: Any, network: Network, moved: Any) -> Any:
    """Count the interactions within each list [lists, worlds], gene g being moved[w, g] in world w."""
    into = np.empty((lists.shape[0], len(moved)), dtype=np.int32)
    links = network.arcs
    over(len(moved), _count, (links.indptr, links.indices), (lists.indptr, lists.indices), moved, into)
    return into


@compiled
def _count(graph: Any, lists: Any, moved: Any, into: Any, lo: int, hi: int) -> None:
    starts, others = graph
    first, genes = lists
    here = np.zeros(moved.shape[1], np.uint8)  # a byte a gene: it stays in the first cache
    places = np.empty(genes.shape[0], np.uint32)
    for w in range(lo, hi):
        place = moved[w]
        for i in range(first.shape[0] - 1):
            n = first[i + 1] - first[i]
            for p in range(n):
                places[p] = place[np.uint32(genes[first[i] + p])]
                here[places[p]] = 1
            k = 0
            for p in range(n):
                for q in range(starts[places[p]], starts[places[p] + 1]):
                    k += here[np.uint32(others[q])]
            for p in range(n):
                here[places[p]] = 0
            into[i, w] = k
