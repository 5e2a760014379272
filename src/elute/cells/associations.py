"""The third stage of a run: codes, and what its features follow.

codes/                              the sparse codes of every row
features.parquet                    a row a feature (docs/formats/features.md has all tables)
feature_genes.parquet, feature_cells.parquet, feature_groups.parquet, feature_numbers.parquet
feature_gene_associations.json, feature_cell_associations.json, extraction_summary.json
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from elute.base import console, files, run
from elute.base.errors import ConfigError, DataError, EluteError

if TYPE_CHECKING:
    import polars as pl
    from torch import Tensor

    from elute.analysis.tables import Asked
    from elute.analysis.tally import Tallied
    from elute.base.codes import Codes
    from elute.cells.activations import Source
    from elute.cells.plan import Plan
    from elute.cells.units import Unit
    from elute.dictionaries.dictionary import Dictionary

SUMMARY = "extraction_summary.json"
TABLES = (
    "features.parquet", "feature_genes.parquet", "feature_cells.parquet", "feature_groups.parquet",
    "feature_numbers.parquet", "feature_gene_associations.json", "feature_cell_associations.json", SUMMARY,
)  # fmt: skip


def associate(source: Source, plan: Plan, *, skip: bool = False) -> list[dict[str, Any]]:
    """Tell what each dictionary's features follow; what was told of these very codes and cells is used as it is."""
    return [_unit(source, unit, plan, skip=skip) for unit in source.units]


def _unit(source: Source, unit: Unit, plan: Plan, *, skip: bool) -> dict[str, Any]:
    from elute.analysis.tables import describe

    if skip:
        for name in TABLES:
            if not (unit.folder / name).exists():
                remedy = "Leave --skip-extraction out, or check --output and --layers."
                raise DataError("is missing: there are no tables to go on with", where=unit.folder / name,
                                remedy=remedy)  # fmt: skip
        return _read(unit)
    from elute.analysis.genes import expression_word
    from elute.dictionaries.files import digest, load_dictionary

    dictionary = load_dictionary(unit.dictionary)
    inputs = {"dictionary": digest(dictionary), "cells": source.digest, "rows": _rows_digest(source)}
    known = run.finished(unit.folder, "extract", plan.extract, inputs=inputs)
    if known is not None and all((unit.folder / name).exists() for name in TABLES):
        console.say(f"{unit.folder}: its features are told already, with these settings")
        return _read(unit)
    console.say(f"{unit.name}: telling what its features follow")
    if source.store is not None:
        encode(source, unit, plan)
    tallied = tally(source, unit, plan, dictionary=dictionary)
    told = describe(
        tallied,
        cells=source.table,
        genes=source.genes,
        directions=directions(dictionary),
        codes=lambda: (codes for codes, _ in coded(source, unit, plan, dictionary=dictionary)),
        asked=_asked(plan, source),
    )
    files.make_folder(unit.folder)
    told.write(unit.folder)
    word = expression_word(plan.extract.expression, source.cells.kind)
    summary = {
        "site": unit.name,
        "label": source.cells.config.cell_type_key,
        "expression": word,
        "how": plan.extract.expression,
        "matrix": source.cells.matrix,
        "values": source.cells.kind,
        **told.summary,
    }
    files.write_json(unit.folder / SUMMARY, summary)
    run.record(unit.folder, "extract", plan.extract, inputs=inputs, summary=summary)
    return summary


def _asked(plan: Plan, source: Source) -> Asked:
    from elute.analysis.genes import GeneConfig
    from elute.analysis.groups import GroupConfig
    from elute.analysis.tables import Asked

    asked = plan.extract
    further = [name for name in source.table.columns if name.startswith("obs:")]
    levels = tuple(n.removeprefix("obs:") for n in further if not source.table[n].dtype.is_numeric())
    label = ("label",) if source.table["label"].null_count() < len(source.table) else ()
    groups = GroupConfig(
        columns=label + levels, top_k_cells=asked.top_k_cells, least=asked.least_cells, fdr=asked.fdr, one_cell="note"
    )
    return Asked(
        GeneConfig(top_k_genes=asked.top_k_genes, expression=asked.expression), groups, seed=plan.training.seed
    )


def kinds_of(tallied: Tallied, cells: pl.DataFrame) -> dict[str, int]:
    """Count the kinds of a dictionary's features."""
    from elute.analysis.tables import kinds_of as counted

    return counted(tallied, cells)


def directions(dictionary: Dictionary) -> Tensor:
    """Return what each feature writes, into all sites that are written one beside the other."""
    import torch

    return torch.cat([dictionary.directions(site) for site in dictionary.spec.writes], dim=1)


def encode(source: Source, unit: Unit, plan: Plan) -> None:
    """Write the codes of every row."""
    from elute.engine.encode import EncodeConfig, encode_store

    assert source.store is not None  # noqa: S101  # those who call have looked
    config = EncodeConfig(device=plan.training.device, anew=_stale(source, unit))
    encode_store(unit.dictionary, source.store.folder, unit.folder / "codes", config=config)


def _stale(source: Source, unit: Unit) -> bool:
    """Whether the codes that lie there are of another dictionary or store: they can be made again at any time."""
    from elute.dictionaries.files import digest, load_dictionary
    from elute.store.codes import StoredCodes

    folder = unit.folder / "codes"
    if not (folder / "manifest.json").exists():
        return False
    try:
        StoredCodes(folder).expect(
            dictionary=digest(load_dictionary(unit.dictionary)), store=source.store, complete=False
        )
    except EluteError:
        return True
    return False


def coded(
    source: Source, unit: Unit, plan: Plan, *, dictionary: Dictionary
) -> Iterator[tuple[Codes, pl.DataFrame]]:  # fmt: skip
    """Yield codes with their rows' metadata: as they are stored, or as the model gives them."""
    if source.store is not None:
        from elute.analysis.tallying import stored
        from elute.store.codes import StoredCodes

        yield from stored(StoredCodes(unit.folder / "codes"), source.store)
        return
    from elute.base import device

    if dictionary.spec.source.get("centre"):
        what = "its rows were centred, and rows that come straight from a model are not"
        raise ConfigError(what, where=unit.dictionary, remedy="Leave --stream out.")
    assert source.model is not None  # noqa: S101  # it is one or the other
    dictionary = dictionary.to(device.choose(plan.training.device, "fp32").device)
    for batch, metadata in source.model.batches(source.cells):
        rows = source.model.capture(batch, list(unit.reads))
        yield dictionary.encode({name: x.float() for name, x in rows.items()}).to("cpu"), metadata


def tally(source: Source, unit: Unit, plan: Plan, *, dictionary: Dictionary) -> Tallied:
    """Add up the codes by gene and by cell, in one pass."""
    from elute.analysis.genes import expression_of
    from elute.analysis.tallying import tally_rows

    with console.progress("tally", source.rows) as bar:
        return tally_rows(
            coded(source, unit, plan, dictionary=dictionary),
            n_features=dictionary.n_features,
            cells=source.table,
            genes=source.genes,
            weigh=lambda rows: expression_of(rows, plan.extract.expression, source.cells.kind),
            folder=plan.output,
            told=bar.advance,
        )


def _rows_digest(source: Source) -> str:
    """Which rows are told about."""
    if source.store is not None:
        return source.store.manifest.store
    assert source.model is not None  # noqa: S101  # it is one or the other
    return files.digest_json(source.model.provenance(source.cells))


def _read(unit: Unit) -> dict[str, Any]:
    told: dict[str, Any] = files.read_json(unit.folder / SUMMARY, what="a summary", remedy="Extract anew.")
    return told
