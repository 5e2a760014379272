"""What a language model makes of a run's features, and what that is worth: an option, by hand, after `validate`.

SITE/validation/narration.parquet   a row a feature that was asked: the explanation, its score, another's on its cells
SITE/validation/summary.json        "narrator": means over features, beside another's explanation and chance
SITE/features.parquet               explanation, explanation_score, explanation_shuffled; null where none was asked

1. The features with the surest names are explained, one of each name; or those that are given.
2. Sent is the evidence that the run's files hold of a feature. Genes and terms in it were chosen by the choosing cells.
3. An explanation is scored on the showing cells: how strongly the feature fires there (the mean over a cell's rows, as
   everywhere), and by which genes each exceeds the mean of them all. Of very many cells some are drawn.
4. Answers are kept (`validation/narrator.py`): what was interrupted goes on, and what was asked is not asked again.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from elute.base import console, files, run
from elute.base.errors import DataError, ServiceError
from elute.base.run import Artifact

if TYPE_CHECKING:
    import polars as pl

    from elute.analysis.findings import SiteRun
    from elute.base.mergeable import Floats, Integers
    from elute.validation.detection import HeldOut, Narrated
    from elute.validation.narrator import Endpoint
    from elute.validation.settings import NarratorConfig

NARRATION, SUMMARY = "narration.parquet", "summary.json"
COLUMNS = ("explanation", "explanation_score", "explanation_shuffled")
MOST_CELLS = 10_000
"""Cells that are read to score explanations."""
NETWORK = "string-db"
UNKNOWN = "(the explanation that the model gives)"
_VALIDATE = "Type: elute cells validate --results {}"


def narrate(
    results: Path, config: NarratorConfig, *, preview: bool = False, endpoint: Endpoint | None = None
) -> Artifact:
    """Explain features of every site of a run; with `preview`, tell what would be sent of the first, and send nothing.

    An `endpoint` that is given is used in place of the one that the settings name, and left open.
    """
    from elute.analysis.findings import open_run
    from elute.validation.narrator import Endpoint as Asked

    if endpoint is None:
        with Asked(config) as opened:  # before anything is read: a setting that lacks is told at once
            return narrate(results, config, preview=preview, endpoint=opened)
    found = open_run(results)
    if preview:
        name = found.sites[0]
        return Artifact("narration", Path(results), {"site": name, **_preview(found.site(name), config, endpoint)})
    told = {name: _site(found.site(name), config, endpoint) for name in found.sites}
    return Artifact("narration", Path(results), {"sites": told})


def _site(site: SiteRun, config: NarratorConfig, endpoint: Endpoint) -> dict[str, Any]:
    import polars as pl

    from elute.validation.detection import narrate as explain

    evidence = _evidence(site, config)
    held, seen = _held_out(site, list(evidence), config)
    with console.progress(f"{site.name}: {endpoint.model}", 2 * len(evidence), unit="steps") as bar:
        said = explain(endpoint, evidence, held, seed=config.seed, told=bar.advance)
    if not said.summary["explained"]:
        raise ServiceError(f"no feature was explained; the first: {said.table['why'][0]}", where=site.folder)
    summary = {**said.summary, "chosen": "given" if config.features else "surest names", "held_out": seen}
    folder = site.folder / "validation"
    files.write_atomically(folder / NARRATION, said.table.write_parquet)
    before = files.read_json(folder / SUMMARY, what="a summary")
    files.write_json(folder / SUMMARY, {**before, "narrator": summary})
    features = _explained(site.features.frame, said)
    files.write_atomically(site.folder / "features.parquet", features.write_parquet)
    # A run's folder is passed on: who was asked matters there, and where that one can be reached does not.
    told = config.model_copy(update={"url": None, "model": endpoint.model})
    inputs = {"extracted": files.digest_file(site.folder / "feature_genes.parquet")}
    run.record(site.folder, "narrator", told, inputs=inputs, summary=summary)
    failed = said.table.filter(pl.col("why").is_not_null()).select("feature", "why").rows()
    return {**summary, "failed": {str(feature): why for feature, why in failed}}


def _preview(site: SiteRun, config: NarratorConfig, endpoint: Endpoint) -> dict[str, Any]:
    """Return the requests of the first feature; the second one holds what the model answers to the first."""
    from elute.validation.detection import detect_messages
    from elute.validation.narrator import explain_messages

    evidence = _evidence(site, config)
    first = next(iter(evidence))
    held, _ = _held_out(site, [first], config)
    asked = [explain_messages(evidence[first])]
    asked += [detect_messages(UNKNOWN, held[first])] if first in held else []
    return {"feature": first, "requests": [endpoint.preview(messages) for messages in asked]}


def _explained(features: pl.DataFrame, said: Narrated) -> pl.DataFrame:
    """Put the words and their scores into the table of features, in place of earlier ones."""
    scores = dict(zip(("explanation", "accuracy", "shuffled"), COLUMNS, strict=True))
    words = said.table.select("feature", *scores).rename(scores)
    kept = features.drop(COLUMNS, strict=False)
    return kept.join(words, on="feature", how="left", maintain_order="left")


def _evidence(site: SiteRun, config: NarratorConfig) -> dict[int, dict[str, Any]]:
    """Return what is sent of each feature that is asked, in the order in which they are asked."""
    from elute.cells import table as tables
    from elute.validation.narrator import evidence_of

    summary = site.folder / "validation" / SUMMARY
    told = files.read_json(summary, what="a summary") if summary.exists() else {}
    if "databases" not in told or "name_confidence" not in site.features.frame.columns:
        what = "its features were not held against databases, by which they are named"
        raise DataError(what, where=site.folder, remedy=_VALIDATE.format(site.home))
    ran = [name for name, record in told["databases"].items() if record["status"] == "run" and name != NETWORK]
    paths = {name: summary.with_name(f"{name}.parquet") for name in ran}
    for path in paths.values():
        if not path.exists():
            raise DataError("there is no such table", where=path, remedy=_VALIDATE.format(site.home))
    found = {name: tables.read(path) for name, path in paths.items()}
    return {row["feature"]: evidence_of(row, found, config=config, fdr=told["fdr"]) for row in _chosen(site, config)}


def _chosen(site: SiteRun, config: NarratorConfig) -> list[dict[str, Any]]:
    """Return the rows of the features that are given, or of those with the surest names, one of each name."""
    if config.features:
        return [site.feature(number).row for number in dict.fromkeys(map(int, config.features.split(",")))]
    frame = site.features.frame
    frame = frame.filter(frame["name_source"].is_not_null() & (frame["name_source"] != "kind"))
    frame = frame.filter(frame["name_confidence"] > 0)
    named: dict[tuple[Any, ...], dict[str, Any]] = {}
    for row in frame.sort("name_confidence", "feature", descending=[True, False]).iter_rows(named=True):
        # Equal names were told apart by a mark: what they name is what they are from.
        of = row["name_term"] or (row.get("cell_type") if row["name_source"] == "cells" else None) or row["name"]
        named.setdefault((row["name_source"], of), row)
    if not named:
        remedy = "Name features with --features, or hold them against more databases: elute databases list"
        raise DataError("no feature has a name that could be explained", where=site.folder, remedy=remedy)
    return list(named.values())[: config.top]


class _Shown(NamedTuple):
    """Cells that chose nothing."""

    strength: Floats  # [cells, features]
    genes: list[tuple[str, ...]]
    """Of each cell, those by which it exceeds the mean."""


def _held_out(
    site: SiteRun, features: list[int], config: NarratorConfig
) -> tuple[dict[int, HeldOut], dict[str, int]]:  # fmt: skip
    """Choose the cells by which each explanation is scored, and say from how many of how many."""
    import numpy as np

    from elute.analysis import specificity
    from elute.base.statistics.checks import generator
    from elute.validation.detection import held_out

    everywhere = np.ones(len(site.cells), np.int64)
    showing = np.flatnonzero(specificity.sides(site.cells, everywhere) == specificity.SHOW)
    if not len(showing):
        console.warn(f"{site.folder}: all cells chose, and none were held out: explanations are not scored")
        return {}, {"cells": 0, "of": 0}
    drawn = showing
    if len(showing) > MOST_CELLS:
        drawn = np.sort(generator(config.seed, "shown cells").choice(showing, MOST_CELLS, replace=False))
    shown = _read(site, drawn, features)
    held = {
        feature: held_out(shown.genes, shown.strength[:, i], feature=feature, most=config.cells, seed=config.seed)
        for i, feature in enumerate(features)
    }
    return {f: found for f, found in held.items() if found is not None}, {"cells": len(drawn), "of": len(showing)}


def _read(site: SiteRun, drawn: Integers, features: list[int]) -> _Shown:
    """Read how strongly features fire in some cells, and what those cells express, in one pass."""
    import numpy as np
    import polars as pl
    from scipy import sparse

    from elute.analysis.genes import expression_of
    from elute.analysis.tallying import placed, stored
    from elute.cells import table as tables
    from elute.validation.detection import describe

    if not (site.folder / "codes").exists():
        what = "keeps no codes (it was made with --stream), by which explanations are scored"
        raise DataError(what, where=site.folder, remedy="Run the pipeline without --stream.")
    told = files.read_json(site.folder / "extraction_summary.json", what="what extraction told")
    genes = tables.read(site.home / tables.GENES)
    n, width = len(drawn), len(features)
    place, column = np.full(len(site.cells), -1), np.full(site.codes.n_features, -1)
    place[drawn], column[features] = np.arange(n), np.arange(width)
    rows, sums = np.zeros(n, np.int64), np.zeros(n * width)
    expressed = []
    with console.progress("cells that chose nothing", len(site.store)) as bar:
        parts = stored(site.codes, site.store)
        for codes, frame, cell, gene in placed(parts, cells=site.cells, genes=genes, told=bar.advance):
            mine = np.flatnonzero(place[cell] >= 0)
            at = place[cell[mine]]
            e = expression_of(frame[mine], told.get("how", "lognorm"), told["values"]) if len(mine) else np.zeros(0)
            expressed.append((at.astype(np.int32), gene[mine].astype(np.int32), e.astype(np.float32)))
            rows += np.bincount(at, minlength=n)
            kept = codes[mine]
            asked, values = column[kept.indices.numpy()], kept.values.float().numpy()
            row, slot = np.nonzero((asked >= 0) & (values != 0))
            into = at[row] * width + asked[row, slot]
            sums += np.bincount(into, values[row, slot].astype(np.float64), minlength=n * width)
    at, gene, e = (np.concatenate(part) for part in zip(*expressed, strict=True))
    read = rows > 0
    matrix = sparse.csr_array((e, (at, gene)), shape=(n, len(genes)))[read]
    strength = sums.reshape(n, width)[read] / rows[read, None]
    return _Shown(strength, describe(matrix, genes["symbol"].cast(pl.String).to_list()))


def show(answer: dict[str, Any]) -> str:
    """Say what came of it, each accuracy beside another explanation's and chance; or what would be sent."""
    if "requests" in answer:
        return "\n".join(json.dumps(request, indent=1, ensure_ascii=False) for request in answer["requests"])
    lines = []
    for site, told in answer["sites"].items():
        lines.append(f"{site}: {told['explained']:,} of {told['asked']:,} features explained by {told['model']}")
        lines.append(f"  {_line(told)}")
        lines += [f"  feature {feature}: {why}" for feature, why in told["failed"].items()]
    return "\n".join(lines)


def _line(told: dict[str, Any]) -> str:
    if told["accuracy"] is None:
        return "none scored: too few cells that chose nothing"
    said = (
        f"which cells fire is told rightly of {_mean(told['accuracy'])} over {console.count(told['scored'], 'feature')}"
    )
    if told["shuffled"] is None:
        return f"{said}; another feature's explanation: none to try; chance {told['chance']:.2f}"
    said += f"; by another feature's explanation {_mean(told['shuffled'])}; chance {told['chance']:.2f}"
    p = told["difference"].get("p")
    return f"{said}; difference {_mean(told['difference'])}" + ("" if p is None else f", p {p:.2g}")


def _mean(found: dict[str, float | None]) -> str:
    low, high = found["low"], found["high"]
    return f"{found['mean']:.2f}" + ("" if low is None or high is None else f" ({low:.2f}–{high:.2f})")
