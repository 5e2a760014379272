"""A short name for each feature, from its best-supported term, its cells or its genes; no language model is asked.

1. A feature that stands for a gene is named after it; one that is silent, rare or reads depth says so.
2. Else its best term: q up to the bound, two genes or more, folded under no other, less than a fifth of the background.
   Support is the log of its bet (below) × how much it says (small, with much of the list, beyond its parents) × both
   controls × what suits the kind, and a quarter more for each other witness whose terms rest on the same genes.
3. Else its cell type, if cells that did not choose it show it; else its first genes; else it is unnamed. A term that
   is more likely wrong than right gives way to a cell type that is not.

The confidence is 0 where nothing is known, and 1 where nothing is left to speak against the name. Of a term it is

    chance   E / (E + 20), E the mean over witnesses of what a bet on the agreeing terms pays: with l = −ln(p × terms of
             the database), (eˡ − 1 − l) / l², by the larger p (any genes, like genes). That is at most 1 on average
             where there is nothing, however databases depend, so that of features without meaning at most one in
             twenty is above 0.5. Least p-values of matched lists shrink l until the bet pays no more than 1 on them.
    control  × 1 / (1 + (p / 0.1)²), p that among like genes; 0.7 if it is not known
    again    × the same of q with genes that other cells chose (other donors, where there are any); half-way to 1 if
             the cells that show it are of that type

monotone in each; and never above 0.5 by a database of which no matched lists are known, since other cells find the same
popular genes again. Of a cell type it is 2 AUROC − 1 on showing cells × both its controls; of a gene, the share of
variance that lies between genes; of a list of genes, half its chance.

V. Vovk and R. Wang, "E-values: calibration, combination and applications", Ann. Stat. 49, 2021.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import polars as pl
from scipy import special

from elute.base.errors import DataError
from elute.base.statistics.checks import Floats
from elute.validation.wording import apart, say_the_same, short, tidy

EVEN = 20.0  # what a bet has to pay for even odds: nineteen names of twenty are taken for wrong beforehand
UNKNOWN = 0.7  # what a control that was not run counts
GENERAL = 0.2  # share of the background from which a term is too general to name anything
_TOLD = ("silent", "rare", "depth", "gene identity")
_RANKED = 20_000  # genes that the leading ones were picked from, at most
_CELLS = ("markers", "cellmarker", "panglaodb")
_DISEASES = ("clinvar", "disgenet", "gencc", "gwas-catalog", "hpo", "monarch", "omim", "open-targets", "orphanet")
_SUITS = {"cells": (1.0, 0.7), "process": (0.7, 1.0), "place": (0.5, 0.6), "disease": (0.4, 0.4)}  # a state, else
_NEEDED: dict[str, Any] = {
    **dict.fromkeys(("feature", "overlap", "list_size", "term_size", "background"), pl.Int64),
    **dict.fromkeys(("expected", "p", "q"), pl.Float64),
    **dict.fromkeys(("term", "label"), pl.String),
    "genes": pl.List(pl.String),
}
_MAYBE: dict[str, Any] = {
    "group": pl.String,
    "folded_under": pl.String,
    **dict.fromkeys(("null_p", "q_shown", "p_parent"), pl.Float64),
}


class Name(NamedTuple):
    """A feature's name, and how it came to it."""

    name: str
    name_confidence: float
    name_reason: str
    name_source: str | None  # the database; `kind`, `cells` or `genes`
    name_term: str | None = None


def name_features(
    features: pl.DataFrame,
    found: Mapping[str, pl.DataFrame],
    *,
    terms: Mapping[str, int],
    kin: Sequence[Sequence[str]] = (),
    genes: pl.DataFrame | None = None,
    null: Mapping[str, Sequence[float]] | None = None,
    fdr: float = 0.05,
) -> pl.DataFrame:
    """Name features (as in features.parquet) by the tests of each database that was asked, also if it has no rows.

    `terms` says how many terms of it each feature was tested with, `kin` which databases are one witness, `genes` (as
    in feature_genes.parquet) which gene a feature stands for, `null` the least p-value of each matched list.
    """
    rows = _candidates(features, found, terms=terms, null=null or {}, fdr=fdr)
    witnesses = _witnesses(found, kin)
    tokens = _tokens(genes)
    named: dict[int, Name] = {}
    leading: dict[int, list[str]] = {}
    for feature in features.iter_rows(named=True):
        number, mine = feature["feature"], rows.get(feature["feature"], [])
        leading[number] = feature.get("top_genes") or []
        cell = _of_cells(feature, fdr)
        one = _of_kind(feature, tokens.get(number))
        if one is None and mine:
            one = _of_term(mine, witnesses, cell)
            one = cell if cell is not None and one.name_confidence <= 0.5 < cell.name_confidence else one
        named[number] = one or cell or _of_genes(feature)
    told = apart({n: one.name for n, one in named.items() if one.name_source not in (None, "kind")}, leading)
    table = [(n, *one._replace(name=told.get(n, one.name))) for n, one in named.items()]
    schema = {"feature": pl.Int32, **dict.fromkeys(Name._fields, pl.String), "name_confidence": pl.Float64}
    return pl.DataFrame(table, schema=schema, orient="row")


def log_bet(p: Any, tests: float = 1.0, *, share: float = 1.0) -> Floats:
    """Return the log of what a bet against chance pays at a p-value that may be the best of so many tests."""
    least = -np.log(np.maximum(np.asarray(p, dtype=np.float64), 1e-300))
    x: Floats = share * np.maximum(least - np.log(max(tests, 1.0)), 0.0)
    some = np.maximum(x, 1e-3)
    log: Floats = some + np.log1p(-(1.0 + some) * np.exp(-some)) - 2.0 * np.log(some)
    return np.where(x < 1e-3, np.log(0.5 + x / 6.0), log)


def fair_share(least_p: Sequence[float], tests: float) -> float:
    """Return the share of −ln p with which a bet gains nothing on matched lists; 1 if it gains nothing as it is."""
    low, high = 0.0, 1.0
    for share in (1.0, *([None] * 40)):
        middle = (low + high) / 2.0 if share is None else share
        gains = len(least_p) > 0 and _log_mean(log_bet(least_p, tests, share=middle)) > 0.0
        if share is not None and not gains:
            return 1.0
        low, high = (low, middle) if gains else (middle, high)
    return low


def _log_mean(logs: Sequence[float] | Floats) -> float:
    return float(np.logaddexp.reduce(logs)) - float(np.log(len(logs)))


def held(p: Any) -> Floats:
    """Return what a control counts by its p- or q-value; NaN is one that was not run."""
    given = np.asarray(p, dtype=np.float64)
    return np.where(np.isnan(given), UNKNOWN, 1.0 / (1.0 + (np.nan_to_num(given) / 0.1) ** 2))


def confidence(log_e: float, *, null_p: float | None, q_shown: float | None, cells_agree: bool = False) -> float:
    """Return how sure a term's name is, by the log of the mean bet, its controls and its cells."""
    control, again = (float(held(np.nan if p is None else p)) for p in (null_p, q_shown))
    again = (1.0 + again) / 2.0 if cells_agree else again
    return float(special.expit(log_e - np.log(EVEN))) * control * again


def _candidates(
    features: pl.DataFrame, found: Mapping[str, pl.DataFrame], *, terms: Mapping[str, int], null: Any, fdr: float
) -> dict[int, list[dict[str, Any]]]:
    """Return the rows that may name each feature, those with most support first, three of a database."""
    kinds = features["kind"] if "kind" in features.columns else pl.Series([None] * len(features), dtype=pl.String)
    states = features["feature"].filter(kinds.eq_missing("cell state")).to_list()
    told = features["feature"].filter(kinds.is_in(_TOLD)).to_list()  # their kind names them
    parts = []
    for source, table in found.items():
        if lacking := [name for name in _NEEDED if name not in table.columns]:
            raise DataError(f"the table of tests has no column {lacking[0]!r}", where=source)
        if source not in terms:
            raise DataError("how many of its terms were tested is not said", where=source, remedy="Give it in `terms`.")
        absent = [pl.lit(None, kind).alias(name) for name, kind in _MAYBE.items() if name not in table.columns]
        types = {**_NEEDED, **_MAYBE}
        rows = table.with_columns(absent).select(pl.col(name).cast(kind) for name, kind in types.items())
        rows = rows.filter(
            (pl.col("q") <= fdr)
            & (pl.col("overlap") >= 2)
            & ~pl.col("feature").is_in(told)
            & pl.col("folded_under").is_null()
            & (pl.col("term_size") < GENERAL * pl.col("background"))
        )
        priced = len(null.get(source, ())) > 0
        p = rows.select(pl.max_horizontal("p", "null_p")).to_series()
        bet = log_bet(p, terms[source], share=fair_share(null[source], terms[source]) if priced else 1.0)
        size, whole = rows["term_size"].to_numpy(), rows["background"].to_numpy()
        says = np.log(whole / size) / np.log(whole) * np.sqrt((rows["overlap"] / rows["list_size"]).to_numpy())
        beyond = rows["p_parent"].fill_null(0.0)  # what is no ontology has no parents to go beyond
        controls = [held(p.fill_null(float("nan"))) for p in (rows["null_p"], rows["q_shown"], beyond)]
        support = pl.Series((1.0 + np.maximum(bet, 0.0)) * says * np.prod(controls, axis=0))
        state, other = (_what(source).replace_strict({k: v[i] for k, v in _SUITS.items()}) for i in (0, 1))
        suits = pl.when(pl.col("feature").is_in(states)).then(state).otherwise(other)
        paid = pl.Series(bet if priced else np.minimum(bet, np.log(EVEN)), dtype=pl.Float64)
        parts.append(rows.with_columns(source=pl.lit(source), bet=paid, support=support * suits))
    if not parts:
        return {}
    ordered = pl.concat(parts).sort(["support", "p", "source", "term"], descending=[True, False, False, False])
    best = ordered.group_by("feature", "source", maintain_order=True).head(3)
    found_of: dict[int, list[dict[str, Any]]] = {}
    for row in best.sort("support", descending=True, maintain_order=True).iter_rows(named=True):
        found_of.setdefault(row["feature"], []).append(row)
    return found_of


def _what(source: str) -> pl.Expr:
    """Say what a database's terms are; sets of one's own are taken for processes."""
    name = source.replace("_", "-")
    if name in _CELLS:
        return pl.when(pl.col("group") == "process").then(pl.lit("process")).otherwise(pl.lit("cells"))
    other = pl.lit("disease" if name in _DISEASES else "process")
    return pl.when(pl.col("group").is_in(["go_cc", "go_mf"])).then(pl.lit("place")).otherwise(other)


def _witnesses(found: Mapping[str, pl.DataFrame], kin: Sequence[Sequence[str]]) -> list[list[str]]:
    """Group the databases that were asked: those that take over one another's rows are one witness."""
    groups = [[source for source in group if source in found] for group in kin]
    told = {source for group in groups for source in group}
    return [group for group in groups if group] + [[source] for source in found if source not in told]


def _tokens(genes: pl.DataFrame | None) -> dict[int, list[str]]:
    """Return the genes on whose tokens each feature fires: the first, and those that come half as far."""
    if genes is None or "token_z" not in genes.columns:
        return {}
    rows = genes.filter(pl.col("token_z") > 0).sort("feature", "token_z", "symbol", descending=[False, True, False])
    rows = rows.filter(pl.col("token_z") >= 0.5 * pl.col("token_z").first().over("feature"))
    return {int(str(key[0])): part["symbol"].to_list() for key, part in rows.group_by("feature", maintain_order=True)}


def _of_kind(feature: Mapping[str, Any], tokens: list[str] | None) -> Name | None:
    """Name a feature whose kind says all that is known of it."""
    kind, rows = feature.get("kind"), feature.get("rows")
    if kind == "silent":
        return Name("silent", 0.0, "It fired in no row.", "kind")
    if kind == "rare":
        told = f"It fired in {rows:,} rows, too few to say what it means." if rows is not None else "It hardly fired."
        return Name("rare", 0.0, told, "kind")
    if kind == "depth":
        told = "It follows how deeply a cell was read (|ρ| of 0.5 or more), and that more closely than any cell type."
        return Name("depth", 0.5, told, "kind")
    raw = feature.get("top_genes_raw") or feature.get("top_genes") or []
    if kind != "gene identity" or not (tokens or raw):
        return None
    shown, share = tokens[:3] if tokens else raw[:1], float(feature.get("by_gene") or 0.0)
    told = f"Which gene a token is explains {share:.0%} of its variance, corrected for chance; "
    told += "it fires on the tokens named." if tokens else "the gene is the first by activation × expression."
    return Name(f"gene identity: {', '.join(shown)}", share * (1.0 if tokens else UNKNOWN), told, "genes")


def _of_term(rows: list[dict[str, Any]], witnesses: list[list[str]], cell: Name | None) -> Name:
    """Name a feature by the best supported of its rows."""
    sets = [frozenset(row["genes"] or ()) for row in rows]
    home = {source: i for i, group in enumerate(witnesses) for source in group}
    best, support = (rows[0], [rows[0]], False), -1.0
    seen: set[str] = set()
    for i, row in enumerate(rows):
        if row["source"] in seen:
            continue
        seen.add(row["source"])
        alike = [row] + [b for j, b in enumerate(rows) if j != i and 2 * len(sets[i] & sets[j]) >= len(sets[i]) > 0]
        others = len({home[b["source"]] for b in alike}) - 1
        same = cell is not None and say_the_same(row["label"], cell.name)
        mine = row["support"] * (1.0 + 0.25 * others) * (1.25 if same else 1.0)
        if mine > support:
            best, support = (row, alike, same), mine
    row, alike, same = best
    bets = {b["source"]: b["bet"] for b in sorted(alike, key=lambda b: float(b["bet"]))}
    log_e = _log_mean([_log_mean([bets.get(source, -np.inf) for source in group]) for group in witnesses])
    sure = confidence(log_e, null_p=row["null_p"], q_shown=row["q_shown"], cells_agree=same)
    agreeing = len({home[source] for source in bets}) - 1, len(witnesses) - 1
    return Name(tidy(row["label"]), sure, _reason(row, agreeing, cell if same else None), row["source"], row["term"])


def _reason(row: Mapping[str, Any], others: tuple[int, int], cell: Name | None) -> str:
    """Say in a sentence why, each number beside its control."""
    told = f"{row['overlap']} of its {row['list_size']} genes are among the {row['term_size']} of this term"
    told += f" ({row['expected']:.1f} expected, q {row['q']:.2g}); "
    null_p, q_shown = row["null_p"], row["q_shown"]
    told += "not tried among like genes" if null_p is None else f"among like genes p {null_p:.2g}"
    told += "; not tried on other cells" if q_shown is None else f"; on other cells q {q_shown:.2g}"
    told += f"; {others[0]} of {others[1]} other witnesses agree" if others[1] else ""
    return told + (f"; so do its cells ({cell.name})." if cell else ".")


def _of_cells(feature: Mapping[str, Any], fdr: float) -> Name | None:
    """Name a feature by its cell type, if cells that chose nothing show it."""
    level, donors = feature.get("cell_type"), feature.get("q_donors")
    given = [feature.get(name) for name in ("q", "q_shown", "auroc", "auroc_shown")]
    q, q_shown, auroc, shown = (np.nan if number is None else float(number) for number in given)
    if not level or not (q <= fdr and q_shown <= fdr and auroc > 0.5 and shown > 0.5):
        return None
    sure = (2.0 * shown - 1.0) * float(held(q_shown)) * float(held(np.nan if donors is None else donors))
    told = f"It is higher in {level} than in other cells: AUROC {auroc:.2f} where it was chosen, {shown:.2f} on cells"
    told += f" that chose nothing (q {q_shown:.2g}); "
    told += "not tested across donors." if donors is None else f"across donors q {donors:.2g}."
    return Name(short(" ".join(str(level).split())), sure, told, "cells")


def _of_genes(feature: Mapping[str, Any]) -> Name:
    """Name a feature by its first genes, or not at all."""
    genes, z = feature.get("top_genes") or [], feature.get("top_genes_z") or []
    if not genes:
        return Name("unnamed", 0.0, "No gene, cell type or term goes with it.", None)
    least = min(z[:3], default=0.0)
    sure = 0.5 * float(special.expit(log_bet(special.ndtr(-least), _RANKED) - np.log(EVEN)))
    told = "No term and no cell type holds; these are its first genes"
    told += f", with z of {least:.1f} or more against independence." if z else "."
    return Name(short(", ".join(genes[:3])), sure, told, "genes")
