"""What databases say of a run's features: read from the run's folder alone, neither cells nor model are opened.

SITE/validation/<source>.parquet    a row a feature and term
SITE/validation/string-db.parquet   interactions among each feature's genes, where STRING is installed
SITE/validation/summary.json        "databases": the counts, each beside its null
SITE/validation/report.html         the page
SITE/features.parquet               gets a name for each feature, how sure it is, and why
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from elute.base import console, files, run
from elute.base.errors import DataError

if TYPE_CHECKING:
    import polars as pl

    from elute.analysis.findings import SiteRun
    from elute.analysis.top_genes import Listed, TopGenes
    from elute.base.mergeable import Floats
    from elute.base.run import Artifact
    from elute.validation.asked import Asked, Ranking
    from elute.validation.settings import DatabaseConfig

SUMMARY = "summary.json"
DEALT = "permuted cells"
CONTROLS = ("random_weights", "embedding_layer")


def validate(results: Path, config: DatabaseConfig) -> Artifact:
    """Hold the features of every site of a run against databases."""
    from elute.base.run import Artifact as Made

    return Made("validation", Path(results), {"sites": hold_sites(Path(results), config)})


def hold_sites(results: Path, config: DatabaseConfig) -> dict[str, Any]:
    """Return what was found, by site; several sites get a page that leads to theirs."""
    from elute.analysis.findings import open_run
    from elute.reports.validation import write_report

    found = open_run(results)
    told = {name: _site(found.site(name), config) for name in found.sites}
    if len(told) > 1:
        write_report(results)
    return told


def lines(sites: dict[str, Any], folder: str) -> list[str]:
    """Say the counts in lines, each beside its null and its controls, and what did not run."""
    from elute.validation.suite import line

    said = []
    for site, told in sites.items():
        named, records = told["named"], told["databases"].values()
        head = f"{site}: {named['sure']:,} of {named['features']:,} features have a name more likely right than not"
        said.append(f"{head}; {named['named']:,} are named by a term")
        said += [f"  {line(record)}" for record in records if record["status"] == "run"]
        silent = [record for record in records if record["status"] != "run"]
        absent = [record["title"] for record in silent if record["why"].startswith("not installed")]
        said += [f"  not run: {each['title']}: {each['why']}" for each in silent if each["title"] not in absent]
        if absent:
            said.append(f"  not installed (elute databases list says how): {', '.join(absent)}")
        said.append(f"Open {folder}/{told['report']} in a browser.")
    return said


def _site(site: SiteRun, config: DatabaseConfig) -> dict[str, Any]:
    from elute.analysis.run_tables import read_table
    from elute.reports.validation import write_report
    from elute.validation.suite import ask_databases, name_features, snapshots_of

    folder = files.make_folder(site.folder / "validation")
    used = snapshots_of(config)
    inputs = {"extracted": files.digest_file(site.folder / "feature_genes.parquet"), **used}
    known = run.finished(site.folder, "databases", config, inputs=inputs)
    written = (folder / "report.html").exists() and "databases" in _summary(folder)
    if known is not None and written and "name" in site.features.frame.columns:
        console.say(f"{folder}: these databases were asked already, with these settings")
        return known
    console.say(f"{site.name}: asking databases what its features' genes have in common")
    with _room(folder / ".ranked") as room:
        answer = ask_databases(_asked(site, config, room), config, folder)
    files.write_json(folder / SUMMARY, {**_summary(folder), **answer})
    genes = read_table(site.folder, "feature_genes.parquet")
    features = name_features(site.features.frame, folder, answer, genes=genes)
    files.write_atomically(site.folder / "features.parquet", features.write_parquet)
    write_report(site.folder)
    told = {
        "databases": answer["databases"],
        "named": _named(features),
        "report": str((folder / "report.html").relative_to(site.home)),
    }
    run.record(site.folder, "databases", config, inputs=inputs, summary=told)
    return told


def _summary(folder: Path) -> dict[str, Any]:
    """What the controls, and an earlier run of this stage, wrote."""
    path = folder / SUMMARY
    return files.read_json(path, what="a summary") if path.exists() else {}


@contextmanager
def _room(folder: Path) -> Iterator[Path]:
    """A folder for what is read while this runs; what a run that was stopped left there goes first."""
    shutil.rmtree(folder, ignore_errors=True)
    try:
        yield files.make_folder(folder)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _named(features: pl.DataFrame) -> dict[str, int]:
    """How many features have a name, and how many one that is more likely right than wrong."""
    import polars as pl

    sure = features.filter(pl.col("name_confidence") > 0.5)
    return {"features": len(features), "named": int(features["name_term"].is_not_null().sum()), "sure": len(sure)}


def _asked(site: SiteRun, config: DatabaseConfig, room: Path) -> Asked:
    """List each feature's genes, the genes that could have been listed, and lists in which there is less to find."""
    import polars as pl

    from elute.analysis.top_genes import RANKED, RANKED_DEALT
    from elute.validation.asked import Asked

    summary = files.read_json(site.folder / "extraction_summary.json", what="what extraction told")
    weigh = _weigher(summary)
    found, keys = _lists(site.folder, site.home, config, weigh=weigh, room=room)
    controls = {DEALT: _as_keys(found.dealt, keys)}
    notes = []
    for name in CONTROLS:
        folder = site.folder / "controls" / name
        if not all((folder / part).exists() for part in ("codes", "activations", "cells.parquet", "genes.parquet")):
            notes.append(f"{name.replace('_', ' ')}: not run")
            continue
        theirs, their_keys = _lists(folder, folder, config, weigh=weigh)
        controls[name.replace("_", " ")] = _as_keys(theirs.chosen, their_keys)
    table = keys.with_columns(
        measured=pl.Series(found.measured), expression=pl.Series(found.expression), detection=pl.Series(found.detection)
    )
    lost = int(keys["key"].is_null().sum())
    if lost:
        notes.append(f"{console.count(lost, 'gene')} of the model that HGNC does not know: left out")
    return Asked(
        _as_keys(found.chosen, keys),
        table.filter(pl.col("key").is_not_null()).unique("key", maintain_order=True),
        told=("in the model's vocabulary", "measured in three of the cells that choose, or more"),
        numbers=list(range(len(found.chosen))),
        shown=None if found.shown is None else _as_keys(found.shown, keys),
        controls=controls,
        notes=tuple(notes),
        ranking=_ranking(room / RANKED, keys),
        controls_ranked={DEALT: _ranking(room / RANKED_DEALT, keys)},
    )


def _ranking(path: Path, keys: pl.DataFrame) -> Ranking:
    from elute.base.tensors import load_npy
    from elute.validation.asked import Ranking

    return Ranking(load_npy(path), keys["key"].to_list(), files.digest_file(path))


def _as_keys(lists: Listed, keys: pl.DataFrame) -> list[list[str]]:
    named = keys["key"].to_list()
    return [list(dict.fromkeys(named[i] for i in each.tolist() if named[i] is not None)) for each in lists]


def _weigher(summary: dict[str, Any]) -> Callable[[pl.DataFrame], Floats]:
    from elute.analysis.genes import expression_of

    how, kind = summary.get("how", "lognorm"), summary["values"]
    return lambda rows: expression_of(rows, how, kind)


def _lists(
    folder: Path,
    home: Path,
    config: DatabaseConfig,
    *,
    weigh: Callable[[pl.DataFrame], Floats],
    room: Path | None = None,
) -> tuple[TopGenes, pl.DataFrame]:
    """Rank the genes of the features whose codes lie in a folder; `home` holds the cells, genes and rows.

    All z are written to the folder `room`.
    """
    import polars as pl

    from elute.analysis.tallying import stored, tally_rows
    from elute.analysis.top_genes import top_genes
    from elute.cells import table as tables
    from elute.store.codes import StoredCodes
    from elute.store.reader import Store
    from elute.validation.asked import keys_of

    if not (folder / "codes").exists():
        what = "keeps no codes (it was made with --stream), from which genes are ranked"
        raise DataError(what, where=folder, remedy="Run the pipeline without --stream.")
    codes, store = StoredCodes(folder / "codes"), Store(home / "activations")
    cells, genes = tables.read(home / tables.CELLS), tables.read(home / tables.GENES)
    with console.progress("genes of features", len(store)) as bar:
        tallied = tally_rows(
            stored(codes, store),
            n_features=codes.n_features,
            cells=cells,
            genes=genes,
            weigh=weigh,
            folder=folder,
            told=bar.advance,
        )
        found = top_genes(tallied, cells, k=config.top_n_genes, least_z=config.least_z, seed=config.seed, into=room)
    return found, keys_of(genes["gene"].cast(pl.String), genes["symbol"].cast(pl.String))
