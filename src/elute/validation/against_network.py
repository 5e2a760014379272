"""Lists of genes against STRING: do the genes of a list interact with one another more than like genes do?

STRING's own test stands beside the one that the headline is by, which holds its level (network_modules.py): a list's p
is the largest of those against lists of the same degrees, against lists of genes that are known as well (in as many
terms of the libraries that are here), and against lists of genes that are expressed as much.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from elute.validation import evidence, library, mapping, snapshots
from elute.validation.against_terms import Tested
from elute.validation.asked import KEY
from elute.validation.background import Background, Part, of_parts
from elute.validation.network import Network, interactions, network_of, sub_network
from elute.validation.network_modules import Coherence, coherence, degree_strata, hubs
from elute.validation.null_lists import Matched
from elute.validation.terms import lists_of

if TYPE_CHECKING:
    from elute.base.statistics.checks import Floats, Ints
    from elute.validation.asked import Asked
    from elute.validation.settings import DatabaseConfig

NAME = "string-db"
SETS = 4  # the tier of libraries of gene sets
LIKE = 50  # genes of a stratum
LEAST = {"all": 0.4, "standard": 0.7, "strict": 0.9}


def _strata(network: Network, asked: Asked, *, seed: int) -> tuple[list[Ints], str]:
    """Return what genes of a null list are alike in, a null each, and what that is in words."""
    genes = pl.DataFrame({"key": network.background.genes}, schema={"key": pl.String})
    nulls, told = [degree_strata(network)], ["degrees"]
    known = _annotations(genes)
    if known.max() > known.min():
        nulls.append(_like(known[:, None], seed=seed))
        told.append("numbers of terms")
    if {"expression", "detection"} <= set(asked.genes.columns):
        mine = genes.join(asked.genes, on="key", how="left", maintain_order="left")
        expression = mine.select("expression", "detection").fill_null(0.0).to_numpy()
        nulls.append(_like(expression, seed=seed))
        told.append("expression")
    return nulls, f"lists of the same {' or '.join(told)}, whichever interact most"


def _like(covariates: Floats, *, seed: int) -> Ints:
    return Matched(covariates, seed=seed, least=LIKE).strata.astype(np.int64)


def _annotations(genes: pl.DataFrame) -> Floats:
    """In how many terms of the libraries of gene sets, and of HPO, each gene is."""
    counts = np.zeros(len(genes))
    for name in library.names():
        source = library.database(name)
        if (source.tier != SETS and name != "hpo") or snapshots.find(source.name) is None:
            continue
        rows = mapping.identify(library.table(name)[0], mapping.gene_table()).table
        each = rows.group_by(key=KEY).agg(n=pl.col("term").n_unique())
        counts += genes.join(each, on="key", how="left", maintain_order="left")["n"].fill_null(0).to_numpy()
    return counts


def _null(found: Coherence, kind: str) -> dict[str, Any]:
    """What lists of the same degrees give, counted at the p that the test's own headline counts at."""
    low, high = np.quantile(found.null_found, [0.025, 0.975])
    told = {"kind": kind, "draws": len(found.null_found), "mean": float(found.null_found.mean())}
    return {**told, "low": float(low), "high": float(high), "at_p": found.level, "observed": found.found}


def _hubs(network: Network, places: Any) -> list[str]:
    return [hub.name for hub in hubs(sub_network(network, places), most=5)] if len(places) > 1 else []


def _count(lists: list[list[str]], network: Network, config: DatabaseConfig, *, strata: list[Ints]) -> int:
    """How many lists interact more than null lists."""
    found = coherence(lists_of(lists, network.background).members, network, seed=config.seed, strata=strata)
    return int((found.q <= config.fdr).sum())


def _background(rows: pl.DataFrame, asked: Asked, title: str, least: float) -> Background:
    annotated = rows.filter(pl.col("score") >= least).select(key=KEY)["key"].unique()
    return of_parts([*asked.parts, Part(annotated.to_list(), f"with an interaction in {title}")])


def test(asked: Asked, config: DatabaseConfig) -> Tested:
    """Hold all lists against the network."""
    table, snapshot = library.table(NAME)
    title = f"{library.database(NAME).title} {snapshot.version}"
    kept = evidence.filter_evidence(table, NAME, level="all")
    mapped = mapping.identify(kept.table, mapping.gene_table())
    background = _background(mapped.table, asked, title, LEAST[config.evidence])
    network = network_of(mapped.table, background, LEAST[config.evidence], source=title)
    members = lists_of(asked.lists, background).members
    theirs = interactions(members, network)
    strata, kind = _strata(network, asked, seed=config.seed)
    like = coherence(members, network, seed=config.seed, strata=strata)
    again = None
    if asked.shown is not None and any(asked.shown):
        other = coherence(lists_of(asked.shown, background).members, network, seed=config.seed + 1, strata=strata)
        again = int(((other.q <= config.fdr) & (like.q <= config.fdr)).sum())
    controls = {
        what: {"significant": _count(lists, network, config, strata=strata) if any(lists) else 0, "of": len(lists)}
        for what, lists in asked.controls.items()
    }
    record = {
        "title": library.database(NAME).title,
        "snapshot": title,
        "taken": snapshot.taken,
        "licence": library.database(NAME).licence.name,
        "status": "run",
        "why": "",
        "background": background.stated,
        "genes": len(background),
        "terms": 1,
        "tests": len(asked.lists),
        "correction": f"Benjamini–Hochberg over {len(asked.lists):,} lists",
        "features": len(asked.lists),
        "with_genes": int((np.diff(members.indptr) > 0).sum()),
        "significant": int((like.q <= config.fdr).sum()),
        "plain": int((theirs.q <= config.fdr).sum()),
        "null": _null(like, kind),
        "excess": like.excess[0],
        "excess_low": like.excess[1],
        "excess_high": like.excess[2],
        "again": again,
        "controls": controls,
        "evidence": {"keeps": f"a combined score of {LEAST[config.evidence]:g} or more"},
        "mapping": mapped.counts,
        "notes": list(snapshot.record["notes"]),
    }
    leading = [_hubs(network, places) for places in np.split(members.indices, members.indptr[1:-1])]
    columns = {
        "feature": pl.Series(asked.numbers, dtype=pl.Int32),
        "genes": theirs.linked.astype(np.int32),
        "edges": theirs.observed.astype(np.int32),
        "expected": theirs.expected,
        "p": np.exp(theirs.log_p),
        "q": theirs.q,
        "null_p": like.p,
        "q_null": like.q,
        "hubs": pl.Series(leading, dtype=pl.List(pl.String)),
    }
    return Tested(pl.DataFrame(columns), record)
