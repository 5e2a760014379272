"""How often a list of genes has a term where there is nothing to find: random lists against real and synthetic terms.

200 seeds a row, 100 lists of 50 genes a seed, under the global null:

- uniform: every gene is as likely as any other
- popularity: genes come in proportion to how many terms they are in
- shared: the lists are drawn from ten programs of 60 genes, so that many features find the same by chance
- permuted cells: what follows the shuffled values of features over real cells, z at least 4 (and without that bound)

For each: the share of lists with a term at q < 0.05 when every list is corrected by itself after terms with an overlap
below 2 were dropped (as public code does), and over the full family; the same where a pair counts with the larger of
this p-value and the one among like genes, as `elute cells validate` does; and the excess over matched null lists by
that test: how often its interval lies above 0 (a false claim, at most 8%), how often it holds 0, and its mean in lists.

    ELUTE_TEST_DATA=… python benchmarks/calibration.py --table lists [--seeds 200] [--only hallmark]

Rows that results/calibration_lists.json has already are not made again; delete it to begin anew. The tables of
docs/calibration.md are written from it after each row.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Callable, Iterator
from copy import copy
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
from scipy.sparse import csr_array, csr_matrix

from elute.base import console
from elute.base.statistics.corrections import benjamini_hochberg
from elute.validation.background import Part, of_parts
from elute.validation.enrichment import over_representation
from elute.validation.excess import Passing, by_over_representation, excess
from elute.validation.null_lists import Matched, popularity_lists, uniform_lists
from elute.validation.reading.gmt import sets_of
from elute.validation.stratified import Strata
from elute.validation.terms import Terms, term_sets

HERE = Path(__file__).parent
RESULT = HERE / "results" / "calibration_lists.json"
PAGE = HERE.parent / "docs" / "calibration.md"
LISTS, SIZE = 100, 50
LIBRARIES = {
    "hallmark": "human_hallmark_v2025.gmt",
    "Reactome": "human_reactome_v2025.gmt",
    "GO component": "human_go_cc_v2025.gmt",
    "GO function": "human_go_mf_v2025.gmt",
    "GO process": "enrichr.GO_Biological_Process_2021.gmt",
}
NAMES = ("synthetic", *LIBRARIES)
RANDOM = ("uniform", "popularity", "shared")
CELL_NULLS = {"permuted cells": 4.0, "permuted cells, any z": -np.inf}  # and the least z
PLANTED = {"planted, uniform": 0.0, "planted, mild popularity": 0.5, "planted, popularity": 1.0}  # power of annotations
CELLS = "pbmc1k_10xv2_996x33538.h5ad"
Lists = Callable[[int, int], csr_array]  # seed and number → lists


@dataclass(frozen=True)
class World:
    """Terms over a background, the strata of its genes, and where random lists come from."""

    name: str
    terms: Terms
    covariates: np.ndarray
    nulls: dict[str, Lists]

    @cached_property
    def among_like(self) -> Passing:
        """The test by both p-values."""
        return by_over_representation(self.terms, strata=Strata(self.terms.members, self._like))

    @cached_property
    def _like(self) -> Matched:
        return Matched(self.covariates, seed=0)

    def like(self, seed: int) -> Matched:
        """What draws null lists; the strata are the same for all seeds."""
        drawn = copy(self._like)
        drawn.seed = seed
        return drawn


@cache
def cells() -> tuple[list[str], csr_matrix]:
    """Symbols and counts [cells, genes] of blood cells, genes that were seen in any."""
    import h5py

    with h5py.File(Path(os.environ["ELUTE_TEST_DATA"]) / "cells" / CELLS) as file:
        stored, var = file["X"], file["var"]
        names = [name.decode() for name in var[var.attrs["_index"]][:]]
        parts = (stored["data"][:], stored["indices"][:], stored["indptr"][:])
        counts = csr_matrix(parts, shape=tuple(stored.attrs["shape"]))
    seen = np.flatnonzero(np.asarray((counts > 0).sum(axis=0)).ravel())
    seen = seen[np.unique([names[i] for i in seen], return_index=True)[1]]
    return [names[i] for i in seen], counts[:, seen]


def lists_of(chosen: np.ndarray, n_genes: int) -> csr_array:
    """Rows of gene numbers as lists; −1 is no gene."""
    kept = chosen >= 0
    starts = np.concatenate([[0], np.cumsum(kept.sum(axis=1))])
    places = chosen[kept].astype(np.int32)
    lists = csr_array((np.ones(len(places), np.int8), places, starts), shape=(len(chosen), n_genes))
    lists.sort_indices()
    return lists


def shared(seed: int, n: int, n_genes: int) -> csr_array:
    rng = np.random.default_rng([seed, 2])
    programs = [rng.choice(n_genes, 60, replace=False) for _ in range(10)]
    return lists_of(np.array([rng.choice(programs[i % 10], SIZE, replace=False) for i in range(n)]), n_genes)


def following(scaled: np.ndarray, least_z: float) -> Lists:
    """Lists of the genes that follow random values over cells."""

    def draw(seed: int, n: int) -> csr_array:
        values = np.random.default_rng([seed, 3]).normal(size=(n, len(scaled))).astype(np.float32)
        z = (values - values.mean(axis=1, keepdims=True)) @ scaled / np.sqrt(len(scaled))
        best = np.argpartition(-z, SIZE, axis=1)[:, :SIZE]
        return lists_of(np.where(np.take_along_axis(z, best, axis=1) >= least_z, best, -1), scaled.shape[1])

    return draw


def random_lists(annotations: np.ndarray) -> dict[str, Lists]:
    n_genes = len(annotations)
    ways: tuple[Lists, ...] = (
        lambda seed, n: uniform_lists(np.full(n, SIZE), n_genes=n_genes, seed=seed),
        lambda seed, n: popularity_lists(np.full(n, SIZE), annotations=annotations, seed=seed),
        lambda seed, n: shared(seed, n, n_genes),
    )
    return dict(zip(RANDOM, ways, strict=True))


def real(name: str) -> World:
    """A library, cut to the genes of real cells."""
    path = Path(os.environ["ELUTE_TEST_DATA"]) / "genesets" / LIBRARIES[name]
    named = [(each.term, gene) for each in sets_of(path) for gene in each.genes]
    symbols, counts = cells()
    annotated = Part({gene for _, gene in named}, f"annotated in {name}")
    background = of_parts([Part(symbols, f"measured in {counts.shape[0]} cells"), annotated])
    terms = terms_of(named, background, name)
    annotations = np.asarray(terms.members.sum(axis=0, dtype=np.int64)).ravel()
    at = [symbols.index(gene) for gene in background.genes]
    chosen = counts[:, at]
    mean = np.asarray(chosen.mean(axis=0)).ravel()
    detection = np.asarray((chosen > 0).mean(axis=0)).ravel()
    nulls = random_lists(annotations)
    log = np.log1p((chosen / counts.sum(axis=1) * 1e4).toarray()).astype(np.float32)
    scaled = (log - log.mean(axis=0)) / np.maximum(log.std(axis=0), 1e-6)
    nulls |= {name: following(scaled, least_z) for name, least_z in CELL_NULLS.items()}
    return World(name, terms, np.stack([np.log1p(mean), detection, annotations], axis=1), nulls)


def terms_of(named: list[tuple[str, str]], background: Any, source: str) -> Terms:
    table = pl.DataFrame(named, schema=["term", "gene"], orient="row").with_columns(
        label="term", group=pl.lit(None, pl.String), score=pl.lit(None, pl.Float64)
    )
    return term_sets(table, background, source=source)


def synthetic() -> World:
    """5,000 terms of sizes as in GO, whose genes are drawn by a popularity that spreads over two orders of size."""
    rng = np.random.default_rng(0)
    n_genes = 7000
    sizes = np.clip(np.exp(rng.normal(3.2, 1.1, 5000)), 5, 2000).astype(int)
    # Lists have the seeds from 0 on: one of the same seed would be drawn with the numbers that the terms were.
    members = popularity_lists(sizes, annotations=rng.lognormal(0.0, 1.2, n_genes), seed=10**6)
    genes = [f"g{i:04}" for i in range(n_genes)]
    rows = np.repeat(np.arange(5000), sizes)
    background = of_parts([Part(genes, "made up")])
    terms = terms_of(
        [(f"t{t:04}", genes[g]) for t, g in zip(rows, members.indices, strict=True)], background, "synthetic"
    )
    annotations = np.asarray(terms.members.sum(axis=0, dtype=np.int64)).ravel()
    expression = rng.normal(size=n_genes) + 0.3 * np.log1p(annotations)
    detection = expression + 0.3 * rng.normal(size=n_genes)
    return World("synthetic", terms, np.stack([expression, detection, annotations], axis=1), random_lists(annotations))


def by_itself(table: pl.DataFrame) -> int:
    """How many lists have a term when each is corrected by itself, after small overlaps were dropped."""
    kept = table.filter(pl.col("overlap") >= 2)
    return sum(benjamini_hochberg(part["p"].to_numpy()).min() < 0.05 for part in kept.partition_by("list"))


def one_seed(world: World, lists: csr_array, seed: int) -> dict[str, Any]:
    """What each way of testing says of one seed's lists."""
    table = over_representation(lists, world.terms, most_rows=10_000_000).table
    found = excess(world.among_like, lists, world.like(seed), first=5, most=5, coarse=0)
    # Where no list passes and a draw has none, too, the interval of any number of draws holds 0.
    if found.observed or min(found.null):
        found = excess(world.among_like, lists, world.like(seed))
    return {
        "own_filtered": by_itself(table) / lists.shape[0],
        "plain": table.filter(pl.col("q") <= 0.05)["list"].n_unique() / lists.shape[0],
        "like": found.observed / lists.shape[0],
        "excess": found.excess,
        "clear": found.clear,
        "holds": found.excess_low <= 0 <= found.excess_high,
        "draws": found.draws,
    }


def row(world: World, null: str, seeds: int) -> dict[str, Any]:
    """Run all seeds of one library and null."""
    start = time.perf_counter()
    found = [one_seed(world, world.nulls[null](seed, LISTS), seed) for seed in range(seeds)]
    return {
        "terms": world.name,
        "null": null,
        "genes": len(world.terms.background),
        "n_terms": len(world.terms),
        "seeds": seeds,
        **{name: float(np.mean([each[name] for each in found])) for name in found[0]},
        **{f"any_{name}": float(np.mean([each[name] > 0 for each in found])) for name in ("plain", "like")},
        "seconds": round(time.perf_counter() - start),
    }


def at_scale(world: World, null: str) -> dict[str, Any]:
    """One run of as many features as a dictionary has."""
    start = time.perf_counter()
    lists = world.nulls[null.split(",")[0]](0, 16_384)
    found = excess(world.among_like, lists, world.like(0), first=20, most=20)
    return {
        "terms": world.name,
        "null": null,
        "plain": int((by_over_representation(world.terms)(lists).q <= 0.05).sum()),
        "told": found.told(),
        "excess": found.excess,
        "low": found.excess_low,
        "high": found.excess_high,
        "quality": world.like(0).quality(lists).told(),
        "seconds": round(time.perf_counter() - start),
    }


def planted(world: World, null: str) -> dict[str, Any]:
    """4,096 lists of which 200 hold 15 genes of a term: what passes, what of it by chance, what the excess says."""
    start = time.perf_counter()
    terms, rng = world.terms, np.random.default_rng(0)
    annotations = world.covariates[:, 2] ** PLANTED[null]
    lists = popularity_lists(np.full(4096, SIZE), annotations=annotations, seed=1).toarray()
    some = np.flatnonzero((terms.sizes > 30) & (terms.sizes < 300))
    for i in range(200):
        term = rng.choice(some)
        inside = terms.members.indices[terms.members.indptr[term] : terms.members.indptr[term + 1]]
        chosen = rng.choice(inside, 15, replace=False)
        rest = np.setdiff1d(np.flatnonzero(lists[i]), chosen)
        lists[i] = 0
        lists[i, np.concatenate([chosen, rest])[:SIZE]] = 1
    given = csr_array(lists)
    found = excess(world.among_like, given, world.like(0), first=20, most=20)
    plain, like = (test(given).q <= 0.05 for test in (by_over_representation(terms), world.among_like))
    return {
        "terms": world.name,
        "null": null,
        "plain_true": int(plain[:200].sum()),
        "plain_chance": int(plain[200:].sum()),
        "true": int(like[:200].sum()),
        "chance": int(like[200:].sum()),
        "told": found.told(),
        "alone": found.alone,
        "excess": found.excess,
        "low": found.excess_low,
        "high": found.excess_high,
        "seconds": round(time.perf_counter() - start),
    }


def wanted() -> Iterator[tuple[str, Callable[[], World], str]]:
    """Rows in the order of the tables: the name of the terms, how they are made, and the null."""
    made = {name: cache(synthetic if name == "synthetic" else lambda name=name: real(name)) for name in NAMES}
    for name in NAMES:
        yield from ((name, made[name], null) for null in (*RANDOM, *(CELL_NULLS if name != "synthetic" else {})))
    for name in ("Reactome", "GO process"):
        yield from ((name, made[name], f"{null}, 16,384 lists") for null in ("uniform", "popularity"))
    yield from (("GO process", made["GO process"], null) for null in PLANTED)


def main(seeds: int = 200, only: str | None = None) -> None:
    """Make the rows that are not there yet, and write the page."""
    if "ELUTE_TEST_DATA" not in os.environ:
        sys.exit("set ELUTE_TEST_DATA to the folder that holds genesets/ and cells/")
    console.set_level(-1)  # a seed is a run of its own, and tells its time
    rows = json.loads(RESULT.read_text()) if RESULT.exists() else []
    there = {(each["terms"], each["null"]) for each in rows}
    for name, made, null in wanted():
        if (name, null) in there or only not in (None, name):
            continue
        if null in PLANTED:
            rows.append(planted(made(), null))
        else:
            rows.append(at_scale(made(), null) if "16,384" in null else row(made(), null, seeds))
        RESULT.write_text(json.dumps(rows, indent=1) + "\n")
        write_page(rows)
        console.warn(f"{name}, {null}: {console.duration(rows[-1]['seconds'])}")
    write_page(rows)


def write_page(rows: list[dict[str, Any]]) -> None:
    """Put the tables between the marks of docs/calibration.md."""
    text = PAGE.read_text()
    for mark, lines in (("rows", table(rows)), ("scale", scale(rows)), ("planted", of_planted(rows))):
        written = "".join(f"{line}\n" for line in lines)
        text = re.sub(rf"(?<=<!-- {mark} -->\n).*?(?=<!-- /{mark} -->)", lambda _, w=written: w, text, flags=re.DOTALL)
    PAGE.write_text(text)


def percent(share: float) -> str:
    return "0" if share == 0 else "< 0.1%" if share < 0.001 else f"{100 * share:.3g}%"


def interval(each: dict[str, Any]) -> str:
    return f"{each['excess']:,.0f} ({each['low']:,.0f} … {each['high']:,.0f})"


def lines_of(heads: tuple[str, ...], cells: list[tuple[str, ...]]) -> list[str]:
    return [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|", *(f"| {' | '.join(each)} |" for each in cells)]


def table(rows: list[dict[str, Any]]) -> list[str]:
    tests = ("by itself, filtered", "full family", "(any)", "among like genes", "(any)")
    heads = ("terms", "lists", *tests, "excess claimed", "holds 0", "mean excess")
    names = ("own_filtered", "plain", "any_plain", "like", "any_like", "clear", "holds")
    cells = [
        (each["terms"], each["null"], *(percent(each[name]) for name in names), f"{each['excess']:+.3f}")
        for each in rows
        if "holds" in each
    ]
    return lines_of(heads, cells)


def scale(rows: list[dict[str, Any]]) -> list[str]:
    heads = ("terms", "lists", "full family", "among like genes", "excess")
    cells = [
        (each["terms"], each["null"].split(",")[0], f"{each['plain']:,}", each["told"], interval(each))
        for each in rows
        if "16,384" in each["null"]
    ]
    return lines_of(heads, cells)


def of_planted(rows: list[dict[str, Any]]) -> list[str]:
    tests = ("full family: planted", "by chance", "among like genes: planted", "by chance")
    heads = ("lists", *tests, "told", "null by its own cut-off", "excess")
    names = ("plain_true", "plain_chance", "true", "chance")
    cells = [
        (
            each["null"].split(", ")[1],
            *(f"{each[name]:,}" for name in names),
            each["told"],
            f"{each['alone']:.1f}",
            interval(each),
        )
        for each in rows
        if each["null"] in PLANTED
    ]
    return lines_of(heads, cells)
