"""Lists of genes against one database's terms: what each list has too much of, beside what chance and like genes give.

1. Rows that are good enough (evidence.py) under HGNC's names; phenotypes of HPO pass on to those above them.
2. Background: genes of the model that were measured and that the database annotates. Terms are cut to it.
3. Over-representation of every list in every term, against any genes (`p`) and among like genes (`null_p`, see
   stratified.py). A pair counts with the larger of both, corrected over all lists and terms: `q`.
4. The same with lists of other cells, for terms that passed: `p_shown`, `q_shown`.
5. The same with lists in which there is nothing to find, and with null lists (excess.py): how many lists pass there.
6. Where the database is an ontology: p given the parents, and terms that a term below them explains are folded.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from elute.base import console
from elute.base.errors import DataError
from elute.base.statistics.corrections import benjamini_hochberg
from elute.validation import against_profiles, against_ranks, evidence, library, mapping, ontology
from elute.validation.asked import KEY
from elute.validation.background import Background, Part, from_file, of_parts
from elute.validation.enrichment import more_than_chance, over_representation
from elute.validation.excess import FIRST, MOST, by_over_representation, excess, reach
from elute.validation.kept_draws import Draws
from elute.validation.null_lists import LEAST, Matched
from elute.validation.reading.obo import read_obo
from elute.validation.stratified import Strata, among_like
from elute.validation.terms import Terms, lists_of, term_sets

if TYPE_CHECKING:
    from scipy.sparse import csr_array

    from elute.base.statistics.checks import Floats
    from elute.validation.asked import Asked
    from elute.validation.excess import Passing as Test
    from elute.validation.excess import Tested as Tests
    from elute.validation.reading.obo import Ontology
    from elute.validation.settings import DatabaseConfig
    from elute.validation.snapshots import Snapshot

ROOTS = {
    "hpo": {"phenotype": "HP:0000118"},
    "go": {"go_bp": "GO:0008150", "go_cc": "GO:0005575", "go_mf": "GO:0003674"},
}
SHOWN_P = 0.05
_SAMPLE = 2_000
_STRATA = 40
_MOST_ROWS = 1_000_000


@dataclass(frozen=True, eq=False)
class Tested:
    """What one database says of all lists."""

    table: pl.DataFrame
    """Rows of validation/<source>.parquet."""
    record: dict[str, Any]
    """Its entry in summary.json."""
    further: dict[str, pl.DataFrame] = field(default_factory=dict)
    """Rows of validation/<source>_<what>.parquet."""


@dataclass(frozen=True, eq=False)
class Prepared:
    """A database's terms over the background, and the lists over the same."""

    snapshot: Snapshot
    rows: pl.DataFrame
    ontology: Ontology | None
    background: Background
    terms: Terms
    members: csr_array[Any]
    kept: dict[str, Any]
    """What the evidence filter kept."""
    mapped: mapping.Mapped


def prepare(name: str, asked: Asked, config: DatabaseConfig) -> Prepared:
    """Read a database, and bring its terms and the lists over one background."""
    table, snapshot = library.table(name)
    held = _ontology(snapshot)
    kept = evidence.filter_evidence(table, name, level=config.evidence, ontology=held if name == "go" else None)
    if kept.record["why"]:
        raise DataError(kept.record["why"], where=library.database(name).title, remedy="Ask for less: --evidence all.")
    mapped = mapping.identify(kept.table, mapping.gene_table())
    rows = mapped.table.with_columns(gene=KEY)
    if name == "hpo":
        rows = _phenotypes(rows, held)
    title = f"{library.database(name).title} {snapshot.version}"
    annotated = Part(rows["gene"].unique().to_list(), f"annotated in {title}")
    if config.background == "auto":
        background = of_parts([*asked.parts, annotated])
    else:
        from pathlib import Path

        background = from_file(Path(config.background), annotated=annotated)
    terms = term_sets(rows, background, source=title, smallest=config.smallest, largest=config.largest)
    members = lists_of(asked.lists, background).members
    return Prepared(snapshot, rows, held, background, terms, members, kept=kept.record, mapped=mapped)


def _ontology(snapshot: Snapshot) -> Ontology | None:
    kept = {told["role"] for told in snapshot.record["kept"]}
    return read_obo(snapshot.file("ontology")) if "ontology" in kept else None


def _phenotypes(rows: pl.DataFrame, held: Ontology | None) -> pl.DataFrame:
    """Keep phenotypes, each with all above it; diseases are those of OMIM and Orphanet, which are asked themselves."""
    direct = rows.filter(pl.col("group") == "phenotype")
    if held is None:
        return direct
    spread = held.propagate(direct.select("gene", "term", "symbol", "group"))
    label = pl.col("term").replace_strict(held.names, default=pl.col("term"), return_dtype=pl.String)
    root = ROOTS["hpo"]["phenotype"]
    below = [term for term in spread["term"].unique().to_list() if root in held.ancestors(term)]
    return spread.filter(pl.col("term").is_in(below)).with_columns(label=label, score=pl.lit(None, pl.Float64))


def test(name: str, asked: Asked, config: DatabaseConfig, *, draws: Draws) -> Tested:
    """Hold all lists against one database; `draws` are what an earlier run drew for it."""
    at = prepare(name, asked, config)
    console.detail(at.terms.told())
    like = matched(at, asked, seed=config.seed)
    strata = Strata(at.terms.members, like)
    passing = by_over_representation(at.terms, fdr=config.fdr, strata=strata)
    bound = reach(len(asked.lists) * len(at.terms), max(config.fdr, SHOWN_P))
    plain = over_representation(at.members, at.terms, most_rows=_MOST_ROWS, most_p=bound)
    found = among_like(plain, at.members, strata)
    labels, groups = (pl.Series(each, dtype=pl.String) for each in (at.terms.labels, at.terms.groups))
    place = found.table["index"]
    table = found.table.with_columns(
        label=labels.gather(place), group=groups.gather(place), significant=pl.col("q") <= config.fdr
    )
    table = _again(table, at, asked, strata=strata)
    table = _specific(table, at, name)
    table, by_rank, ranked = against_ranks.add(table, at.terms, asked, fdr=config.fdr)
    table = _told(table, at, asked)
    passed = table.filter("significant")
    again = None if asked.shown is None else int(passed.filter(pl.col("q_shown") <= config.fdr)["feature"].n_unique())
    controls = {
        what: _control(lists, at, passing, config.fdr) | ranked.get(what, {}) for what, lists in asked.controls.items()
    }
    record = {
        "title": library.database(name).title,
        "snapshot": f"{library.database(name).title} {at.snapshot.version}",
        "taken": at.snapshot.taken,
        "licence": library.database(name).licence.name,
        "status": "run",
        "why": "",
        "background": at.background.stated,
        "genes": len(at.background),
        "terms": len(at.terms),
        "tests": found.family.tests,
        "correction": found.family.correction,
        "features": len(asked.lists),
        "with_genes": int((np.diff(at.members.indptr) > 0).sum()),
        "significant": int(passed["feature"].n_unique()),
        "plain": int(table.filter(pl.col("q_plain") <= config.fdr)["feature"].n_unique()),
        **_null(at, like, config, passing=passing, draws=draws),
        "by_rank": by_rank,
        "again": again,
        "controls": controls,
        "evidence": at.kept,
        "mapping": at.mapped.counts,
        "dropped": at.terms.dropped,
        "notes": _notes(name, at),
    }
    given: dict[str, Any] = {"asked": asked, "strata": strata, "config": config, "specific": _specific}
    diseases = against_profiles.diseases(name, table, at, **given)
    return Tested(table.drop("significant", "list", "index", "log_p"), record | diseases.record, diseases.further)


def matched(at: Prepared, asked: Asked, *, seed: int) -> Matched:
    """Return strata of like genes."""
    covariates = _covariates(at, asked)
    # By annotations alone a small stratum is one complex: its genes would stand in for one another.
    smallest = LEAST if covariates.shape[1] > 1 else max(LEAST, len(at.background) // _STRATA)
    return Matched(covariates, seed=seed, least=smallest)


def _control(lists: list[list[str]], at: Prepared, passing: Test, fdr: float) -> dict[str, Any]:
    """Count lists in which there is less to find, by the same test."""
    found = 0 if not any(lists) else int((passing(lists_of(lists, at.background).members).q <= fdr).sum())
    return {"significant": found, "of": len(lists)}


def _null(at: Prepared, like: Matched, config: DatabaseConfig, *, passing: Test, draws: Draws) -> dict[str, Any]:
    """Count null lists that pass, and keep the least p of each."""
    if config.null == "none" or not at.members.nnz:
        return {"null": None, "excess": None, "excess_low": None, "excess_high": None}
    first, most = (FIRST, MOST) if config.null == "auto" else (max(int(config.null), 2),) * 2
    observed = draws.counts is None

    def test(lists: csr_array[Any]) -> Tests:
        nonlocal observed
        told = passing(lists)
        if not observed:
            draws.add(told.p)
        observed = False
        return told

    found = excess(
        test, at.members, like, fdr=config.fdr, first=first, most=most, about=f"{at.terms.source}: matched lists",
        counts=draws.counts, keep=draws.keep,
    )  # fmt: skip
    told = found.summary()
    told.pop("significant")
    told["null"] |= {"matched": like.quality(at.members).told(), "least_p": _sample(draws.least)}
    return told


def _covariates(at: Prepared, asked: Asked) -> Floats:
    """What null genes have to be alike in: expression and detection where they are known, and number of terms."""
    annotations = np.asarray(at.terms.members.sum(axis=0), dtype=np.float64)
    if not {"expression", "detection"} <= set(asked.genes.columns):
        return annotations[:, None]
    known = pl.DataFrame({"key": at.background.genes}).join(asked.genes, on="key", how="left", maintain_order="left")
    columns = [known[name].fill_null(0.0).to_numpy() for name in ("expression", "detection")]
    return np.column_stack([*columns, annotations])


def _sample(least: list[Floats]) -> list[float]:
    """Return some of the least p-values, evenly from the smallest to the largest."""
    every = np.sort(np.concatenate(least))
    return [float(x) for x in every[np.linspace(0, len(every) - 1, min(_SAMPLE, len(every))).astype(np.int64)]]


def _notes(name: str, at: Prepared) -> list[str]:
    notes = list(at.snapshot.record["notes"])
    if name in ROOTS and at.ontology is None:
        notes.append("Its ontology is not kept in the snapshot: genes stand with the terms that were annotated alone.")
    return notes


def _again(table: pl.DataFrame, at: Prepared, asked: Asked, *, strata: Strata) -> pl.DataFrame:
    """Test what passed once more, with the genes that other cells chose; corrected over those tests alone."""
    passed = table.filter("significant").select("list", "term", "index")
    if asked.shown is None or not any(asked.shown) or not len(passed):
        none = pl.lit(None, pl.Float64)
        return table.with_columns(p_shown=none, q_shown=none)
    members = lists_of(asked.shown, at.background).members
    pairs = {name: passed[column].to_numpy().astype(np.int64) for name, column in (("listed", "list"), ("index",) * 2)}
    shared, p = more_than_chance(members, at.terms, **pairs)
    both = np.maximum(p, strata.p(members, **pairs, overlap=shared))
    told = passed.select("list", "term").with_columns(
        p_shown=pl.Series(both), q_shown=pl.Series(benjamini_hochberg(both))
    )
    return table.join(told, on=["list", "term"], how="left", maintain_order="left")


def _specific(table: pl.DataFrame, at: Prepared, name: str) -> pl.DataFrame:
    """Add the p-value given a term's parents, and under which other term it is folded, for what passed."""
    from elute.validation.ontology_enrichment import parent_child, term_for_term
    from elute.validation.ontology_redundancy import fold

    none = table.with_columns(p_parent=pl.lit(None, pl.Float64), folded_under=pl.lit(None, pl.String))
    passed = table.filter("significant")
    if at.ontology is None or name not in ROOTS or not len(passed):
        return none
    parts: list[pl.DataFrame] = []
    for group, root in ROOTS[name].items():
        mine = passed.filter(pl.col("group") == group)
        if not len(mine):
            continue
        annotations = at.rows.filter(pl.col("group") == group).select("gene", "term")
        branch = ontology.branch(
            at.ontology, annotations, root=root, background=at.background.genes, parts=name == "go"
        )
        mine = mine.filter(pl.col("term").is_in(branch.terms))
        lists = branch.cut(at.members, at.background.genes)
        pairs = mine["list"].to_numpy().astype(np.int64), branch.find(mine["term"])
        given = parent_child(branch, lists, pairs=pairs)
        folded = fold(branch, lists, term_for_term(branch, lists, pairs=pairs)).table(branch)
        told = mine.select("list", "term").with_columns(p_parent=pl.Series(given.p))
        parts.append(told.join(folded.select("list", "term", "folded_under"), on=["list", "term"], how="left"))
    return table.join(pl.concat(parts), on=["list", "term"], how="left", maintain_order="left") if parts else none


def _told(table: pl.DataFrame, at: Prepared, asked: Asked) -> pl.DataFrame:
    """Name features and genes: the symbols that a list and a term share, in the list's order."""
    symbol = dict(asked.genes.select("key", "symbol").iter_rows())
    place, members = at.background.place, at.terms.members
    inside: dict[int, set[int]] = {}
    genes: list[list[str]] = []
    for number, row in table.select("list", "index").iter_rows():
        if row not in inside:
            inside[row] = set(members.indices[members.indptr[row] : members.indptr[row + 1]].tolist())
        shared = (key for key in asked.lists[number] if place.get(key) in inside[row])
        genes.append([symbol.get(key) or key for key in shared])
    numbers = pl.Series("feature", asked.numbers, dtype=pl.Int32)
    return table.with_columns(feature=numbers.gather(table["list"]), genes=pl.Series(genes, dtype=pl.List(pl.String)))
