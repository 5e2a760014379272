"""Coherence: lists and their modules against lists of the same degrees, which holds its level where STRING's does not.

1. Genes change places with others of nearly their degree. A stratum is one degree, or as many neighbouring ones as have
   50 genes together. Deciles of the degree will not do: the tenth holds degrees from 35 to 560, and of lists drawn in
   proportion to the degree 88% would have p < 0.05.
2. Were a list like any other, that would change nothing, so p = (1 + #{draws: k' ≥ k}) / (1 + draws) is exact within
   strata. A draw moves all genes and serves all lists: what lists share they share in the draws, and how many are
   found in each draw is a null for how many are found.
3. Genes of many annotations interact with one another more than degrees tell: of lists drawn in proportion to a gene's
   GO terms 14% have p < 0.05, to their square 72%. Strata of degree and annotations at once are too coarse in both. So
   there may be several strata (of degrees; of annotations, expression), each a null, and a list's p is its largest.
4. Lists that fewer than 10 draws reach go on to ten times as many, until the smallest possible q is below 0.01 or the
   limit is met. q is over all lists given, also those without an interaction, whose p is 1.
5. Modules of one list are the communities of its interactions (Louvain), weighted by score, the largest first. Found
   and tested on the same interactions they always look dense. So the search is repeated on draws of the same degrees,
   and a module's p is the share of draws whose best one is as good: it holds for all modules of the list together.

J. Besag, P. Clifford, "Sequential Monte Carlo p-values", Biometrika 78, 1991; V. D. Blondel et al., J. Stat. Mech.
P10008, 2008.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from scipy import sparse

from elute.base.compiled import compiled
from elute.base.errors import ConfigError, DataError
from elute.base.statistics.checks import Floats, Ints, at_least, generator, proportion
from elute.base.statistics.corrections import correct
from elute.base.statistics.matching import matched_controls
from elute.base.statistics.nulls import empirical_p
from elute.validation.network import (
    Network,
    SubNetwork,
    checked_lists,
    count_links,
    interactions,
    observed_links,
    sub_network,
)

BLOCK = 64  # draws held at a time
LEAST = 50  # genes of a stratum
REACHED = 10  # draws that have to reach a list before it may stop
RESOLVED = 0.01  # where the smallest possible q lies below it, no more is drawn


@dataclass(frozen=True, eq=False)
class Coherence:
    """Interactions within lists against those within lists of the same degrees, one entry a list."""

    observed: Ints
    mean: Floats  # of the draws that all lists had
    sd: Floats
    p: Floats
    q: Floats
    draws: Ints
    level: float
    found: int  # lists whose p is `level` or less among the draws that all had
    null_found: Ints  # the same, had each of those draws been what was seen

    @property
    def excess(self) -> tuple[float, float, float]:
        """How many more lists are found than in the draws: against their mean, and against what 95% of them give."""
        low, high = np.quantile(self.null_found, [0.025, 0.975])
        return self.found - float(self.null_found.mean()), self.found - float(high), self.found - float(low)

    def summary(self) -> str:
        """Say how many lists are found, beside how many are without cause."""
        low, high = np.quantile(self.null_found, [0.025, 0.975])
        return (
            f"{self.found:,} of {len(self.p):,} lists interact more than lists of the same degrees"
            f" (p ≤ {self.level:g}); null {self.null_found.mean():,.0f} ({low:,.0f} to {high:,.0f})"
        )


def coherence(
    lists: Any,
    network: Network,
    *,
    seed: int,
    n_draws: int = 999,
    most_draws: int = 99_999,
    strata: Ints | Sequence[Ints] | None = None,
    level: float = 0.01,
    correction: str = "benjamini-hochberg",
    n_tests: int | None = None,
) -> Coherence:
    """Test lists, a csr_array [lists, genes], against the same with genes moved inside strata (degrees by default)."""
    checked, nulls = checked_lists(lists, network, "coherence(lists)"), _codes(strata, network, "coherence(strata)")
    at_least(n_draws, math.ceil(1.0 / proportion(level, "coherence(level)")) - 1, "coherence(n_draws)")
    at_least(most_draws, n_draws, "coherence(most_draws)")
    rng, family = generator(seed, "coherence"), checked.shape[0] if n_tests is None else n_tests
    plan = (n_draws, most_draws, level, family)
    against = [_against(checked, network, codes, plan=plan, rng=rng) for codes in nulls]
    strictest = np.argmax([each.p for each in against], axis=0)
    p, mean, sd, draws = (np.choose(strictest, columns) for columns in list(zip(*against, strict=True))[:4])
    found = np.all([each.found[:, 0] for each in against], axis=0).sum()
    null_found = max((each.found[:, 1:].sum(axis=0) for each in against), key=lambda counts: float(counts.mean()))
    q = correct(p, correction, n_tests=n_tests)
    return Coherence(observed_links(checked, network), mean, sd, p, q, draws, level, int(found), null_found)


class _Against(NamedTuple):
    p: Floats
    mean: Floats
    sd: Floats
    draws: Ints
    found: Any  # [lists, worlds]: what was seen, then the draws that all lists had


def _against(
    lists: Any, network: Network, codes: Ints, *, plan: tuple[int, int, float, int], rng: np.random.Generator
) -> _Against:
    """Test lists against one null."""
    n_draws, most_draws, level, family = plan
    observed = observed_links(lists, network)
    worlds = np.concatenate([observed[:, None], *_drawn(lists, network, codes, n=n_draws, rng=rng)], 1, dtype=np.int32)
    above, draws = (worlds[:, 1:] >= observed[:, None]).sum(axis=1), np.full(len(observed), n_draws)
    while True:
        done, going = int(draws.max()), np.flatnonzero((above < REACHED) & (observed > 0))
        if done >= most_draws or family <= RESOLVED * len(going) * (done + 1) or not len(going):
            break
        more = min(9 * (done + 1), most_draws - done)
        for part in _drawn(lists[going], network, codes, n=more, rng=rng):
            above[going] += (part >= observed[going, None]).sum(axis=1)
        draws[going] += more
    p = np.where(observed > 0, (1.0 + above) / (1.0 + draws), 1.0)
    # A list is found where at most `rank` worlds reach it: where it lies above the one that comes after them.
    rank = int(level * (n_draws + 1) + 1e-9)
    limit = np.partition(worlds, n_draws - rank, axis=1)[:, n_draws - rank]
    return _Against(p, worlds[:, 1:].mean(axis=1), worlds[:, 1:].std(axis=1), draws, worlds > limit[:, None])


def degree_strata(network: Network, *, within: Ints | None = None, least: int = LEAST) -> Ints:
    """Return the stratum of each gene: neighbouring degrees, inside of groups of genes where `within` names them."""
    at_least(least, 1, "degree_strata(least)")
    degrees = network.degrees
    groups = np.zeros(len(degrees), dtype=np.int64) if within is None else np.asarray(within)
    if groups.shape != degrees.shape:
        raise DataError(f"has shape {groups.shape} for {len(degrees)} genes", where="degree_strata(within)")
    codes, after = np.zeros(len(degrees), dtype=np.int64), 0
    for group in np.unique(groups):
        members = np.flatnonzero(groups == group)
        ordered = np.sort(degrees[members])
        cuts = [0]
        for step in (np.flatnonzero(np.diff(ordered)) + 1).tolist():
            # Genes without an interaction are a stratum, however few: in no place of theirs can a list have one.
            if ordered[step - 1] == 0 or (step - cuts[-1] >= least and len(ordered) - step >= least):
                cuts.append(step)
        codes[members] = after + np.searchsorted(ordered[cuts], degrees[members], side="right") - 1
        after += len(cuts)
    return codes


class Hub(NamedTuple):
    """A gene with more interactions inside a list than its degree gives."""

    gene: str
    name: str
    inside: int
    expected: float
    degree: int


def hubs(sub: SubNetwork, *, most: int = 10) -> list[Hub]:
    """Return the genes whose interactions inside exceed most what their degree gives in any list: which carry it."""
    at_least(most, 1, "hubs(most)")
    classes, pair = sub.network.expectation
    kinds = classes[sub.genes]
    expected = pair[np.ix_(kinds, kinds)].sum(axis=1) - pair[kinds, kinds]
    keys, degrees = sub.network.background.genes, sub.network.degrees[sub.genes]
    order = sorted(range(len(kinds)), key=lambda i: (expected[i] - sub.inside[i], sub.names[i]))
    return [
        Hub(keys[sub.genes[i]], sub.names[i], int(sub.inside[i]), float(expected[i]), int(degrees[i]))
        for i in order[:most]
        if sub.inside[i] > expected[i]
    ]


@dataclass(frozen=True, eq=False)
class Modules:
    """Communities of a list's interactions."""

    module: Ints  # one a gene of the sub-network: 0 is the largest; −1 without an interaction inside
    sizes: tuple[int, ...]
    modularity: float | None  # None without an interaction
    resolution: float


@dataclass(frozen=True, eq=False)
class ModuleTests:
    """One entry a module."""

    observed: Ints
    log_p: Floats  # by STRING's formula, which knows of no search: a score, and no p-value
    p: Floats  # among the best modules of draws of the same degrees
    n_draws: int


def modules_of(sub: SubNetwork, *, resolution: float = 1.0, seed: int = 0) -> Modules:
    """Find the modules of a sub-network; a higher resolution gives smaller ones."""
    at_least(seed, 0, "modules_of(seed)")
    if not 0.0 < resolution < np.inf:
        raise ConfigError(f"{resolution:g} is not above 0", where="modules_of(resolution)", remedy="Give, say, 1.")
    import networkx as nx

    module = np.full(len(sub.genes), -1, dtype=np.int64)
    if not sub.scores.nnz:
        return Modules(module, (), None, resolution)
    graph = nx.Graph()
    upper = sparse.triu(sub.scores).tocoo()
    graph.add_weighted_edges_from(zip(upper.row.tolist(), upper.col.tolist(), upper.data.tolist(), strict=True))
    found = nx.community.louvain_communities(graph, weight="weight", resolution=resolution, seed=seed)
    found = sorted((sorted(part) for part in found), key=lambda part: (-len(part), part[0]))
    for number, members in enumerate(found):
        module[members] = number
    parts = [set(members) for members in found]
    quality = float(nx.community.modularity(graph, parts, weight="weight", resolution=resolution))
    return Modules(module, tuple(len(part) for part in found), quality, resolution)


def module_tests(
    sub: SubNetwork, modules: Modules, *, seed: int, n_draws: int = 199, strata: Ints | None = None
) -> ModuleTests:
    """Test each module against the best one that the same search finds in lists of the same degrees, or strata."""
    network, linked = sub.network, sub.genes[sub.network.degrees[sub.genes] > 0]
    codes = _codes(strata, network, "module_tests(strata)")[0]
    at_least(n_draws, 1, "module_tests(n_draws)")
    own = [sub.genes[modules.module == number] for number in range(len(modules.sizes))]
    if not own:
        return ModuleTests(np.empty(0, np.int64), np.empty(0), np.empty(0), n_draws)
    # A stratum has one rank, and no other stratum's rank lies as near: each is a bin of its own.
    drawn = matched_controls(
        linked, codes.astype(np.float64), seed=seed, n_draws=n_draws, n_bins=2 * len(codes), too_few="fill"
    )
    parts: list[Ints] = []
    of_draw: list[int] = []
    for i, places in enumerate(drawn.draws):
        other = sub_network(network, places)
        found = modules_of(other, resolution=modules.resolution, seed=seed)
        parts += [other.genes[found.module == number] for number in range(len(found.sizes))]
        of_draw += [i] * len(found.sizes)
    tested = interactions(_as_lists([*own, *parts], len(codes)), network)
    n, null = len(own), np.zeros(n_draws)
    np.maximum.at(null, of_draw, -tested.log_p[n:])
    p = empirical_p(-tested.log_p[:n], np.tile(null[:, None], (1, n)))
    return ModuleTests(tested.observed[:n], tested.log_p[:n], p, n_draws)


def _codes(strata: Ints | Sequence[Ints] | None, network: Network, where: str) -> Ints:
    """Return strata as [nulls, genes]."""
    codes = np.atleast_2d(degree_strata(network) if strata is None else np.asarray(strata))
    if codes.ndim != 2 or codes.shape[1] != len(network.names) or codes.dtype.kind not in "iu" or not len(codes):
        raise DataError("is not one whole number a gene", where=where, remedy="Make it with degree_strata.")
    return codes


def _as_lists(parts: list[Ints], n: int) -> Any:
    ends = np.concatenate([[0], np.cumsum([len(part) for part in parts])])
    return sparse.csr_array((np.ones(ends[-1], np.int64), np.concatenate(parts), ends), shape=(len(parts), n))


def _drawn(lists: Any, network: Network, codes: Ints, *, n: int, rng: np.random.Generator) -> Iterator[Any]:
    """Yield interactions [lists, draws]: what matched_controls would draw for each, but the same draws for all."""
    genes = np.unique(lists.indices)
    genes = genes[network.degrees[genes] > 0]  # the others have no interaction in any place of theirs
    genes = genes[np.argsort(codes[genes], kind="stable")]
    kinds, wanted = np.unique(codes[genes], return_counts=True)
    members = [np.flatnonzero(codes == kind) for kind in kinds]
    pool = np.concatenate([*members, np.empty(0, np.int64)]).astype(np.int32)
    ends = np.cumsum([len(stratum) for stratum in members])
    moved = np.tile(np.arange(len(codes), dtype=np.int32), (min(BLOCK, n), 1))
    for done in range(0, n, BLOCK):
        part = moved[: n - done]
        _move(rng.random((len(part), len(genes))), (genes, wanted), (pool, ends), part)
        yield count_links(lists, network, part)


@compiled
def _move(chance: Any, wanted: Any, strata: Any, moved: Any) -> None:
    """Give the wanted genes of each stratum places in it, by as many steps of Fisher and Yates' shuffle."""
    genes, numbers = wanted
    pool, ends = strata
    for w in range(chance.shape[0]):
        c, start = 0, 0
        for s in range(ends.shape[0]):
            for i in range(start, start + numbers[s]):
                j = min(i + int(chance[w, c] * (ends[s] - i)), ends[s] - 1)
                pool[i], pool[j] = pool[j], pool[i]
                moved[w, genes[c]] = pool[i]
                c += 1
            start = ends[s]
