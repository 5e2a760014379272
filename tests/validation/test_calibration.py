"""The whole path where there is nothing to find: what plain correction would call significant, and what ours does.

The table is printed with -s. The full one, 200 seeds a row, is docs/calibration.md.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from scipy.sparse import csr_array, csr_matrix

from elute.base.statistics.corrections import benjamini_hochberg
from elute.validation.background import Part, of_parts
from elute.validation.enrichment import over_representation
from elute.validation.excess import by_over_representation, excess
from elute.validation.null_lists import Matched, popularity_lists, uniform_lists
from elute.validation.reading.gmt import sets_of
from elute.validation.stratified import Strata, among_like
from elute.validation.terms import Terms, term_sets

LISTS, SIZE = 40, 40
LIBRARIES = {
    "hallmark": "human_hallmark_v2025.gmt",
    "Reactome": "human_reactome_v2025.gmt",
    "GO component": "human_go_cc_v2025.gmt",
    "GO function": "human_go_mf_v2025.gmt",
    "GO process": "enrichr.GO_Biological_Process_2021.gmt",
}
CELLS = "pbmc1k_10xv2_996x33538.h5ad"
TESTS = ("by itself, filtered", "full family", "among like genes")


class World:
    """Terms, strata of like genes, and lists of genes in which there is nothing to find."""

    def __init__(self, terms: Terms, expression: Any, detection: Any, cells: Any = None) -> None:
        self.terms, self.cells = terms, cells
        self.annotations = np.asarray(terms.members.sum(axis=0, dtype=np.int64)).ravel()
        self.covariates = np.stack([expression, detection, self.annotations], axis=1)
        self.like = Matched(self.covariates, seed=0)
        self.strata = Strata(terms.members, self.like)
        self.test = by_over_representation(terms, strata=self.strata)

    def lists(self, null: str, seed: int) -> csr_array[Any]:
        n_genes, sizes = len(self.annotations), np.full(LISTS, SIZE)
        if null == "uniform":
            return uniform_lists(sizes, n_genes=n_genes, seed=seed)
        if null == "popularity":
            return popularity_lists(sizes, annotations=self.annotations, seed=seed)
        rng = np.random.default_rng(seed)
        if null == "permuted cells":
            return following(self.cells, rng)
        programs = [rng.choice(n_genes, SIZE + 10, replace=False) for _ in range(5)]
        return rows_of([rng.choice(programs[i % 5], SIZE, replace=False) for i in range(LISTS)], n_genes)

    def found(self, lists: csr_array[Any]) -> tuple[list[float], pl.DataFrame]:
        """The share of lists that each test calls annotated, and the table of ours."""
        plain = over_representation(lists, self.terms, most_p=0.05)
        table = among_like(plain, lists, self.strata).table
        # As public code does: small overlaps dropped, and each list corrected by itself.
        tests = ((lists.astype(np.int32) @ self.terms.members.astype(np.int32).T) >= 2).sum(axis=1)
        kept = table.filter(pl.col("overlap") >= 2).select("list", "p").iter_rows()
        p: dict[int, list[float]] = {}
        for i, each in kept:
            p.setdefault(i, []).append(each)
        by_itself = sum(benjamini_hochberg(each, n_tests=tests[i]).min() < 0.05 for i, each in p.items())
        counts = [by_itself, *(table.filter(pl.col(q) < 0.05)["list"].n_unique() for q in ("q_plain", "q"))]
        return [count / LISTS for count in counts], table


def rows_of(chosen: list[Any], n_genes: int) -> csr_array[Any]:
    sizes = [len(each) for each in chosen]
    places = np.concatenate(chosen).astype(np.int32)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    lists = csr_array((np.ones(len(places), np.int8), places, starts), (len(chosen), n_genes))
    lists.sort_indices()
    return lists


def following(cells: Any, rng: np.random.Generator) -> csr_array[Any]:
    """The genes that follow shuffled values over cells [cells, genes], if any follows them closely."""
    values = rng.normal(size=(LISTS, len(cells))).astype(np.float32)
    z = (values - values.mean(axis=1, keepdims=True)) @ cells / np.sqrt(len(cells))
    best = np.argpartition(-z, SIZE, axis=1)[:, :SIZE]
    return rows_of([row[each[row] >= 4.0] for row, each in zip(best, z, strict=True)], cells.shape[1])


def terms_of(named: list[tuple[str, str]], *measured: Part) -> Terms:
    table = pl.DataFrame(named, schema=["term", "gene"], orient="row").with_columns(
        label="term", group=pl.lit(None, pl.String), score=pl.lit(None, pl.Float64)
    )
    background = of_parts([*measured, Part({gene for _, gene in named}, "annotated")])
    return term_sets(table, background, source="a library")


@pytest.fixture(scope="module")
def synthetic() -> World:
    """Terms of sizes as in GO, whose genes are drawn by a skewed popularity; expression follows annotations a little."""
    rng = np.random.default_rng(0)
    sizes = np.clip(np.exp(rng.normal(2.8, 1.0, 600)), 5, 400).astype(int)
    # No list is drawn with this seed: it would be made of the same random numbers as the terms.
    members = popularity_lists(sizes, annotations=rng.lognormal(0.0, 1.2, 2000), seed=10**6)
    rows = np.repeat(np.arange(600), sizes)
    terms = terms_of([(f"t{t:03}", f"g{g:04}") for t, g in zip(rows, members.indices, strict=True)])
    expression = rng.normal(size=len(terms.background)) + 0.3 * np.log1p(np.asarray(terms.members.sum(axis=0)).ravel())
    return World(terms, expression, expression + 0.3 * rng.normal(size=len(expression)))


@cache
def blood(folder: Path) -> tuple[list[str], csr_matrix[Any]]:
    import h5py

    with h5py.File(folder / "cells" / CELLS) as file:
        stored, var = file["X"], file["var"]
        names = [name.decode() for name in var[var.attrs["_index"]][:]]
        parts = (stored["data"][:], stored["indices"][:], stored["indptr"][:])
        counts = csr_matrix(parts, shape=tuple(stored.attrs["shape"]))
    seen = np.flatnonzero(np.asarray((counts > 0).sum(axis=0)).ravel())
    seen = seen[np.unique([names[i] for i in seen], return_index=True)[1]]
    return [names[i] for i in seen], counts[:, seen]


def real(folder: Path, name: str) -> World:
    """A library, cut to the genes of real cells."""
    symbols, counts = blood(folder)
    named = [(each.term, gene) for each in sets_of(folder / "genesets" / LIBRARIES[name]) for gene in each.genes]
    terms = terms_of(named, Part(symbols, "measured"))
    place = {symbol: i for i, symbol in enumerate(symbols)}
    chosen = counts[:, [place[gene] for gene in terms.background.genes]].toarray().astype(np.float32)
    log = np.log1p(chosen / np.asarray(counts.sum(axis=1)) * 1e4)
    cells = (log - log.mean(axis=0)) / np.maximum(log.std(axis=0), 1e-6)
    return World(terms, np.log1p(chosen.mean(axis=0)), (chosen > 0).mean(axis=0), cells)


@pytest.fixture(scope="module")
def told() -> Iterator[Callable[..., None]]:
    """Take the rows of the table, and print it in the end."""
    rows: list[str] = []

    def tell(terms: str, null: str, shares: Any) -> None:
        each = (f"{share:>22.1%}{any_:>6.0%}" for share, any_ in zip(shares.mean(0), (shares > 0).mean(0), strict=True))
        rows.append(f"{terms:<14}{null:<16}{''.join(each)}{len(shares):>7}")

    yield tell
    heads = "".join(f"{test:>22}{'any':>6}" for test in TESTS)
    print(
        f"\nshare of lists with a term at q < 0.05, and of seeds with any\n{'terms':<14}{'lists':<16}{heads}{'seeds':>7}"
    )
    print("\n".join(rows))


@pytest.mark.parametrize("null", ["uniform", "popularity", "shared"])
def test_nothing_is_found_where_there_is_nothing(synthetic: World, null: str, told: Callable[..., None]) -> None:
    shares = np.array([synthetic.found(synthetic.lists(null, seed))[0] for seed in range(50)])
    told("synthetic", null, shares)
    by_itself, plain, ours = shares.mean(axis=0)
    assert (shares[:, 2] > 0).mean() <= 0.08  # any list, by the test that counts
    assert ours <= 0.005
    if null == "popularity":  # the family counted in full does not help a plain test
        assert by_itself > 0.9
        assert plain > 0.8
    else:
        assert by_itself > 0.05
        assert (shares[:, 1] > 0).mean() <= 0.12


@pytest.mark.parametrize("null", ["uniform", "popularity", "shared"])
def test_the_excess_claims_nothing_either(synthetic: World, null: str) -> None:
    for seed in range(3):
        like = Matched(synthetic.covariates, seed=seed)
        found = excess(synthetic.test, synthetic.lists(null, seed), like, most=20, coarse=2)
        assert not found.clear
        assert found.excess_low <= 0 <= found.excess_high


def test_of_plain_counts_the_excess_is_none_either(synthetic: World) -> None:
    """What the plain test finds in popular genes, it finds in genes like them."""
    plain = by_over_representation(synthetic.terms)
    found = excess(plain, synthetic.lists("popularity", 0), synthetic.like, first=10, most=10, coarse=4)
    assert found.observed > 0.7 * LISTS
    assert not found.clear
    assert found.excess_low <= 0 <= found.excess_high


def planted(world: World, *, n: int, genes: int, sizes: tuple[int, int]) -> tuple[csr_array[Any], list[int]]:
    """Popular lists, of which the first n hold so many genes of a term."""
    lists, rng = world.lists("popularity", 1).toarray(), np.random.default_rng(1)
    members, at = world.terms.members, world.terms.sizes
    chosen = rng.choice(np.flatnonzero((at >= sizes[0]) & (at <= sizes[1])), n, replace=False).tolist()
    for i, term in enumerate(chosen):
        inside = rng.choice(members.indices[members.indptr[term] : members.indptr[term + 1]], genes, replace=False)
        rest = rng.permutation(np.setdiff1d(np.flatnonzero(lists[i]), inside))
        lists[i] = 0
        lists[i, np.concatenate([inside, rest])[:SIZE]] = 1
    return csr_array(lists), chosen


def best(table: pl.DataFrame) -> dict[int, int]:
    passed = table.filter(pl.col("q") < 0.05).sort(pl.max_horizontal("p", "null_p"))
    return dict(passed.group_by("list", maintain_order=True).first().select("list", "index").iter_rows())


def test_a_program_that_is_there_is_found(synthetic: World) -> None:
    """Ten of 40 popular lists hold half of a term: they are what is found and what the excess counts."""
    lists, terms = planted(synthetic, n=10, genes=20, sizes=(40, 60))
    (_, plain, _), table = synthetic.found(lists)
    assert best(table) == dict(enumerate(terms))
    assert plain > 0.8  # the plain test says as much of all the others
    found = excess(synthetic.test, lists, synthetic.like, first=20, most=20)
    assert found.told() == "10 of 40, null 0 (0–0)"
    assert (found.excess_low, found.excess_high) == (10, 10)


@pytest.mark.real_data
@pytest.mark.parametrize("name", LIBRARIES)
def test_every_library(real_data: Path, name: str, told: Callable[..., None]) -> None:
    """What plain correction would have called significant, and what ours does; and that ours finds what is there."""
    world = real(real_data, name)
    shares = {
        null: np.array([world.found(world.lists(null, seed))[0] for seed in range(4)])
        for null in ("uniform", "popularity", "shared", "permuted cells")
    }
    for null, rows in shares.items():
        told(name, null, rows)
    assert (np.concatenate(list(shares.values()))[:, 2] > 0).mean() <= 0.08
    by_itself, plain, _ = shares["popularity"].T
    assert by_itself.mean() > 0.25
    if name != "GO function":  # of small terms
        assert (plain > 0).mean() > 0.5
    lists = world.lists("popularity", 0)
    found = excess(world.test, lists, world.like, first=10, most=10, coarse=0)
    assert not found.clear
    assert found.excess_low <= 0 <= found.excess_high
    assert np.abs(world.like.quality(lists).difference).max() < 0.15
    lists, terms = planted(world, n=10, genes=20, sizes=(40, 200))
    there = best(world.found(lists)[1])
    assert set(range(10)) <= set(there)
    assert len(there) <= 11  # where much is found, of twenty one may pass by chance
    assert sum(there[i] == term for i, term in enumerate(terms)) >= 9  # or one that shares most of its genes
