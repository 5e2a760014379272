"""A feature's phenotypes against those of every disease: which disease do its genes, taken together, look like?

1. A profile is a list's terms that are significant and folded under none. A disease's is the phenotypes that the
   database gives for it, as they stand, without those above; of fewer than 5 it is no profile: random ones meet a
   disease of one rare phenotype so closely, now and then, that beside it nothing would stand out.
2. Likeness is Resnik's (or Lin's), best-match average; p and p_any are against random profiles of as many terms
   (ontology_similarity.py, profile_null.py). The best diseases of each list are kept.
3. q is Benjamini and Hochberg's over the lists that have a profile, with the least p_any of each: its many diseases are
   corrected for already. Another disease of a list gets the q that it would have as that list's best.

Random phenotypes are less alike than phenotypes that came up together, and a profile rests on genes whose diseases
gave them these very phenotypes. So q says no more than that a profile hangs together as that of a disease does; that it
was found at all is what the terms' own q says. Lists in which there is less to find are scored in the same way.

The same for any ontology: GO and MONDO have branches, too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import polars as pl

from elute.base import console
from elute.base.statistics.corrections import benjamini_hochberg
from elute.validation import ontology
from elute.validation.enrichment import over_representation
from elute.validation.ontology_similarity import Measure, match_in_parts, profiles
from elute.validation.stratified import among_like
from elute.validation.terms import lists_of

if TYPE_CHECKING:
    from elute.base.statistics.checks import Floats
    from elute.validation.asked import Asked
    from elute.validation.ontology import Branch
    from elute.validation.settings import DatabaseConfig
    from elute.validation.stratified import Strata

DRAWS = 999
BEST = 5
LEAST = 5
_PHENOTYPES = "HP:0000118"
_RUN = "the run"
_MOST_ROWS = 1_000_000
_COLUMNS = {
    "disease": pl.String,
    "label": pl.String,
    "phenotypes": pl.Int32,
    "score": pl.Float64,
    "p": pl.Float64,
    "q": pl.Float64,
}

Found = pl.DataFrame
"""Rows of lists and terms: list, term, p, significant, folded_under."""


class Likest(NamedTuple):
    """What is added to a database's tables and to its record; nothing where diseases were not asked."""

    further: dict[str, pl.DataFrame]
    """Rows of validation/<source>_diseases.parquet."""
    record: dict[str, Any]


def best_matches(
    branch: Branch,
    given: Mapping[str, Iterable[str]],
    diseases: Mapping[str, Iterable[str]],
    *,
    best: int = BEST,
    measure: Measure = "resnik",
    draws: int = DRAWS,
    seed: int = 0,
) -> pl.DataFrame:
    """Return the diseases that profiles are most like: profile, disease, terms, score, null_mean, p, p_any.

    Of an ontology of any kind; a profile without a term of the branch has no rows. The best come first.
    """
    ours, theirs = profiles(branch, given), profiles(branch, diseases)
    kinds = {"profile": pl.String, "disease": pl.String, "terms": pl.Int32, "score": pl.Float64}
    kinds |= dict.fromkeys(("null_mean", "p", "p_any") if draws else (), pl.Float64)
    if not (ours.names and theirs.names):
        return pl.DataFrame(schema=kinds)
    sizes = dict(zip(ours.names, np.diff(ours.terms.indptr).tolist(), strict=True))
    parts = match_in_parts(branch, ours, theirs, measure=measure, draws=draws, seed=seed)
    table = pl.concat([part.table(best) for _, part in parts])
    terms = pl.col("profile").replace_strict(sizes, return_dtype=pl.Int32)
    return table.with_columns(terms=terms).select(pl.col(name).cast(kind) for name, kind in kinds.items())


def diseases_of(rows: pl.DataFrame) -> tuple[dict[str, list[str]], dict[str, str]]:
    """Return the phenotypes of each disease, and its name, from HPO's table of genes: there a phenotype's evidence is
    the disease through which a gene has it."""
    named = rows.filter(pl.col("group") == "phenotype").with_columns(
        disease=pl.col("evidence").str.extract(r"^([A-Z]+:\w+)")
    )
    held = named.drop_nulls("disease").group_by("disease", maintain_order=True)
    terms = held.agg(pl.col("term").unique(maintain_order=True)).sort("disease")
    labels = rows.filter(pl.col("group") == "disease").select("term", "label").unique("term", maintain_order=True)
    return dict(terms.filter(pl.col("term").list.len() >= LEAST).iter_rows()), dict(labels.iter_rows())


def diseases(
    name: str,
    found: Found,
    at: Any,
    *,
    asked: Asked,
    strata: Strata,
    config: DatabaseConfig,
    specific: Callable[[Found, Any, str], Found],
) -> Likest:
    """Hold features' phenotypes against diseases, where the database is one of phenotypes.

    `at` is the database as prepared, `found` the features' tested pairs; those of the controls are tested and folded
    (by `specific`) in the same way.
    """
    if name != "hpo" or at.ontology is None:
        return Likest({}, {})
    groups = pl.Series(at.terms.groups, dtype=pl.String)
    tables = {_RUN: found}
    for what, lists in asked.controls.items():
        if not any(lists):
            tables[what] = found.clear()
            continue
        other = replace(at, members=lists_of(lists, at.background).members)
        plain = over_representation(other.members, other.terms, most_rows=_MOST_ROWS, most_p=config.fdr)
        pairs = among_like(plain, other.members, strata).table.filter(pl.col("q") <= config.fdr)
        pairs = pairs.with_columns(group=groups.gather(pairs["index"]), significant=pl.lit(value=True))
        tables[what] = specific(pairs, other, name)
    rows, told = likest(tables, at, fdr=config.fdr, seed=config.seed)
    feature = pl.Series("feature", asked.numbers, dtype=pl.Int32).gather(rows["list"])
    return Likest({"diseases": rows.select(feature, *_COLUMNS)}, {"diseases": told})


def likest(tables: Mapping[str, Found], at: Any, *, fdr: float, seed: int = 0) -> tuple[pl.DataFrame, dict[str, Any]]:
    """Return the best diseases of the first table's lists, and the counts of all tables."""
    known, labels = diseases_of(at.mapped.table)
    given = {f"{what} {i}": (what, i, terms) for what, found in tables.items() for i, terms in _profiles(found)}
    console.detail(f"{console.count(len(given), 'profile')} of phenotypes against {len(known):,} diseases")
    # What a term says rests on all genes that HPO knows, not on those that this model could have named.
    branch = ontology.branch(at.ontology, at.rows.select("gene", "term"), root=_PHENOTYPES)
    table = best_matches(branch, {name: terms for name, (_, _, terms) in given.items()}, known, seed=seed)
    places = [given[name][:2] for name in table["profile"]]
    label = pl.col("disease").replace_strict(labels, default=pl.col("disease"), return_dtype=pl.String)
    table = table.with_columns(
        label=label,
        phenotypes="terms",
        whose=pl.Series([what for what, _ in places], dtype=pl.String),
        list=pl.Series([i for _, i in places], dtype=pl.Int32),
    )
    parts = {what: _corrected(table.filter(pl.col("whose") == what)) for what in tables}
    counts = {what: _counts(part, fdr) for what, part in parts.items()}
    first, *others = tables
    told = {**counts[first], "of": len(known), "draws": DRAWS, "controls": {what: counts[what] for what in others}}
    rows = parts[first].sort("list", maintain_order=True)
    return rows.select("list", *(pl.col(name).cast(kind) for name, kind in _COLUMNS.items())), told


def _counts(part: pl.DataFrame, fdr: float) -> dict[str, int]:
    passed = part.filter(pl.col("q") <= fdr)
    return {"asked": int(part["list"].n_unique()), "significant": int(passed["list"].n_unique())}


def _profiles(found: Found) -> list[tuple[int, list[str]]]:
    """Return the terms of each list that are significant and folded under none."""
    kept = found.filter(pl.col("significant") & pl.col("folded_under").is_null()).sort("list", "p", "term")
    return list(kept.group_by("list", maintain_order=True).agg("term").iter_rows())


def _corrected(table: pl.DataFrame) -> pl.DataFrame:
    """Add q over the lists of a table, by the least p_any of each."""
    if not len(table):
        return table.with_columns(q=pl.lit(None, pl.Float64))
    least = np.sort(table.group_by("list").agg(pl.col("p_any").min())["p_any"].to_numpy())
    q, p = benjamini_hochberg(least), table["p_any"].to_numpy()
    after = np.searchsorted(least, p, side="right")  # lists that are as good or better, its own among them
    own = p * len(least) / np.maximum(after, 1)
    later: Floats = np.append(q, 1.0)[np.searchsorted(least, p, side="left")]
    return table.with_columns(q=pl.Series(np.minimum(np.minimum(own, later), 1.0)))
