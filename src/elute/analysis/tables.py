"""All that is told of a dictionary's features, put together: the tables of docs/formats/features.md.

What is large comes block by block; what is kept is a row a feature, and the chosen genes, cells and levels of each.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

import numpy as np
import polars as pl

from elute.analysis.cofiring import cofiring
from elute.analysis.genes import GeneConfig, gene_table, shares
from elute.analysis.groups import GroupConfig, GroupTests
from elute.analysis.kinds import kinds
from elute.analysis.nearest import nearest
from elute.analysis.numbers import ALWAYS, NumberTests, number_columns
from elute.analysis.pooled import pooled, sides, top_cells
from elute.base import files

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from elute.analysis.kinds import Kinds
    from elute.analysis.pooled import Pooled
    from elute.analysis.tally import Tallied
    from elute.base.codes import Codes
    from elute.base.statistics.checks import Floats

ALIVE_GENES = 20  # symbols that stand in a feature's row


@dataclass(frozen=True)
class Asked:
    """What is asked of features."""

    genes: GeneConfig
    groups: GroupConfig
    seed: int = 0


@dataclass(frozen=True, eq=False)
class Told:
    """What was found."""

    features: pl.DataFrame
    genes: pl.DataFrame
    cells: pl.DataFrame
    groups: pl.DataFrame
    numbers: pl.DataFrame
    dots: pl.DataFrame
    summary: dict[str, Any]

    def write(self, folder: Path) -> None:
        """Write every table, and the two files that older programs read."""
        for name in ("genes", "cells", "groups", "numbers"):
            files.write_atomically(folder / f"feature_{name}.parquet", getattr(self, name).write_parquet)
        files.write_atomically(folder / "feature_donors.parquet", self.dots.write_parquet)
        write_lines(folder / "feature_gene_associations.json", self._gene_associations())
        write_lines(folder / "feature_cell_associations.json", self._cell_associations())
        files.write_atomically(folder / "features.parquet", self.features.write_parquet)

    def _gene_associations(self) -> Iterator[tuple[str, Any]]:
        cells = dict(self.features.select("feature", "cells").iter_rows())
        for (feature,), part in self.genes.group_by("feature", maintain_order=True):
            best = part.filter(pl.col("rank").is_not_null()).sort("rank").select("symbol", "z")
            scores = part.sort("score", descending=True).select("symbol", "score").iter_rows()
            yield (
                str(feature),
                {
                    "top_genes": [list(row) for row in best.iter_rows()],
                    "gene_scores": dict(scores),
                    "n_activations": cells[feature],
                },
            )

    def _cell_associations(self) -> Iterator[tuple[str, Any]]:
        for (feature,), part in self.cells.group_by("feature", maintain_order=True):
            types = part["label"].drop_nulls().value_counts(sort=True)
            top = [list(row) for row in part.select("row", "max").iter_rows()]
            yield str(feature), {"top_cells": top, "cell_types": dict(types.iter_rows())}


def describe(
    tallied: Tallied,
    *,
    cells: pl.DataFrame,
    genes: pl.DataFrame,
    directions: Tensor,
    codes: Callable[[], Iterable[Codes]],
    asked: Asked,
) -> Told:
    """Tell what the features follow; `codes` gives all codes once more, for what fires together."""
    groups, numbers = GroupTests(cells, asked.groups), NumberTests(cells, number_columns(cells))
    choosing, _ = sides(cells)
    tops, fired_cells = [], []
    for block in pooled(tallied):
        groups.take(block)
        numbers.take(block)
        tops.append(_top(block, choosing, cells, asked.groups.top_k_cells))
        fired_cells.append(np.diff(block.highs.indptr))
    by_group, by_number = groups.result(), numbers.result()
    chosen = gene_table(tallied, cells, genes, config=asked.genes)
    together = cofiring(codes(), tallied.n_rows, seed=asked.seed)
    near = nearest(directions, alive=tallied.fired > 0)
    told = _kinds(tallied, by_number, by_group.best)
    frame = _frame(tallied, np.concatenate(fired_cells))
    explained = shares(tallied)
    frame = frame.with_columns(
        by_gene=_nullable(explained.by_gene),
        by_cell=_nullable(explained.by_cell),
        neither=_nullable(explained.neither),
        kind=pl.Series(told.words),
        module=pl.Series(together.modules.module).replace(-1, None),
    )
    frame = _with_lists(frame, near=near.lists(), together=together.together.lists())
    frame = frame.join(_symbols(chosen), on="feature", how="left", maintain_order="left")
    frame = frame.join(_best(by_group.best), on="feature", how="left", maintain_order="left")
    summary = {
        "features": len(frame),
        "alive": int(frame["alive"].sum()),
        "rows": tallied.n_rows,
        "cells": len(cells),
        "kinds": told.counts,
        "groups": list(by_group.counts),
        "notes": [*by_group.notes, *by_number.notes],
        "cofiring": together.modules.record(),
    }
    return Told(frame, chosen, pl.concat(tops), by_group.table, by_number.table, by_group.dots, summary)


def kinds_of(tallied: Tallied, cells: pl.DataFrame) -> dict[str, int]:
    """Count the kinds of features alone."""
    numbers = NumberTests(cells, [name for name in ALWAYS if name in cells.columns])
    for block in pooled(tallied):
        numbers.take(block)
    return _kinds(tallied, numbers.result(), None).counts


def _kinds(tallied: Tallied, numbers: Any, best: pl.DataFrame | None) -> Kinds:
    """Type the features by their shares, their depth and the type that they follow."""
    width = len(tallied.fired)
    explained = shares(tallied)
    depth = np.stack([numbers.rho(name) for name in ALWAYS if name in numbers.columns] or [np.full(width, np.nan)], 1)
    auroc = np.full(width, np.nan)
    if best is not None:
        types = best.filter(pl.col("column") == "label")
        auroc[types["feature"].to_numpy()] = types["auroc"].cast(pl.Float64).fill_null(float("nan")).to_numpy()
    return kinds(tallied.fired, explained.by_gene, explained.by_cell, depth=depth, auroc=auroc)


def _frame(tallied: Tallied, fired_cells: Any) -> pl.DataFrame:
    """A row a feature: how often and how strongly it fired."""
    fired, some = tallied.fired, np.maximum(tallied.fired, 1)
    return pl.DataFrame(
        {
            "feature": np.arange(len(fired), dtype=np.int32),
            "alive": fired > 0,
            "rows": fired,
            "frequency": fired / max(1, tallied.n_rows),
            "cells": fired_cells.astype(np.int64),
            "cell_frequency": fired_cells / max(1, int((tallied.cell_rows > 0).sum())),
            "mean": tallied.sums / some,
            "max": tallied.highs,
            "histogram": pl.Series(tallied.histogram.tolist(), dtype=pl.List(pl.Int64)),
        }
    )


def _nullable(values: Floats) -> pl.Series:
    return pl.Series(values, dtype=pl.Float64).fill_nan(None)


def _with_lists(frame: pl.DataFrame, **pairs: tuple[list[list[int]], list[list[float]]]) -> pl.DataFrame:
    """Add neighbours with their scores."""
    called = {"near": ("near", "near_cosine"), "together": ("together", "together_score")}
    columns = []
    for name, (numbers, scores) in pairs.items():
        first, second = called[name]
        columns.append(pl.Series(first, numbers, dtype=pl.List(pl.Int32)))
        columns.append(pl.Series(second, scores, dtype=pl.List(pl.Float32)))
    return frame.with_columns(columns)


def _symbols(chosen: pl.DataFrame) -> pl.DataFrame:
    """The first genes of each ranking, as lists."""
    by_z = chosen.filter(pl.col("rank").is_not_null()).sort("feature", "rank")
    raw = chosen.filter(pl.col("rank_raw").is_not_null()).sort("feature", "rank_raw")
    first = by_z.group_by("feature", maintain_order=True).agg(
        pl.col("symbol").head(ALIVE_GENES).alias("top_genes"), pl.col("z").head(ALIVE_GENES).alias("top_genes_z")
    )
    second = raw.group_by("feature", maintain_order=True).agg(pl.col("symbol").head(ALIVE_GENES).alias("top_genes_raw"))
    return first.join(second, on="feature", how="full", coalesce=True).sort("feature")


def _best(best: pl.DataFrame) -> pl.DataFrame:
    """The cell type that each feature follows best."""
    return best.filter(pl.col("column") == "label").select(
        "feature",
        pl.col("level").alias("cell_type"),
        "auroc", "auroc_shown", "fold", "fold_shown", "q", "q_shown",
        pl.col("donors").alias("cell_type_donors"),
        "q_donors",
    )  # fmt: skip


def _top(block: Pooled, choosing: Any, cells: pl.DataFrame, most: int) -> pl.DataFrame:
    """The choosing cells in which each feature is highest."""
    top = top_cells(block, choosing, most=most)
    place = (top.cells, top.features - block.first)
    rank = np.arange(len(top.features)) - np.searchsorted(top.features, top.features) + 1
    known = cells[top.cells].select("cell", "row", "label", "donor", "split")
    return known.select(
        pl.Series("feature", top.features, dtype=pl.Int32),
        pl.Series("rank", rank, dtype=pl.Int32),
        "cell",
        "row",
        pl.Series("max", top.highs),
        pl.Series("mean", _at(block.mean, *place)),
        pl.Series("sum", _at(block.sums, *place)),
        "label",
        "donor",
        "split",
    )


def _at(matrix: Any, rows: Any, columns: Any) -> Floats:
    """Pick single numbers out of a csc_array."""
    if not len(rows):
        return np.zeros(0)
    return np.asarray(matrix[rows, columns], dtype=np.float64).reshape(-1)


def write_lines(path: Path, parts: Iterable[tuple[str, Any]]) -> None:
    """Write one JSON object, a line a key, without holding it whole."""

    def fill(handle: BinaryIO) -> None:
        handle.write(b"{")
        for i, (name, value) in enumerate(parts):
            text = f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False, allow_nan=False)}"
            handle.write((",\n" if i else "\n").encode() + text.encode())
        handle.write(b"\n}\n")

    files.write_atomically(path, fill)
