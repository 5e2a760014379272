"""Which genes a feature goes with, and what of it a gene or a cell explains.

1. Each row has an activation a and its gene's expression e. **score** is Σ a·e over the rows of a gene: it lists what
   is expressed everywhere, and gives `rank_raw`.
2. **token_z** holds the score against activations dealt out to rows at random, which know neither gene nor expression.
3. **z** looks at cells: the mean activation over a cell's rows against the gene's expression in the cell (0 where it is
   no row), √(n − 1) times their correlation over the n choosing cells. It brings markers back, and gives `rank`.
   `z_shown` is the same over the other cells.
4. Shares of a feature's variance over rows: between genes, between cells, and what neither explains. Shares of variance
   grow with the number of groups, so what chance would give is taken off (T. L. Kelley, "An unbiased correlation ratio
   measure", PNAS 21, 1935).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from elute.base.errors import ConfigError, DataError, near
from elute.base.recipe import Section

if TYPE_CHECKING:
    import polars as pl
    from numpy.typing import NDArray

    from elute.analysis.pair_runs import Block
    from elute.analysis.specificity import Ranked
    from elute.analysis.tally import Tallied
    from elute.base.mergeable import Floats, Integers

Expression = Literal["lognorm", "raw", "bin"]

_SCALE = 1e4  # counts of a cell in lognorm


class GeneConfig(Section):
    """Which genes are told of a feature."""

    top_k_genes: int = Field(100, ge=1)
    """Genes of each ranking that are kept of a feature."""
    least: int = Field(3, ge=1)
    """Choosing cells that a gene must be a row in to be ranked by z: a single cell gives a large one by chance."""
    expression: Expression = "lognorm"
    """What activations are multiplied by: log of counts per 10,000, the count, or the model's bin."""
    memory_mb: int = Field(512, ge=1)
    """Memory for the tables of cells and of genes by features, of which as many features are made at a time as fit."""


@dataclass(frozen=True, eq=False)
class Shares:
    """Shares of the variance of each feature over rows, 0 to 1; NaN where it never fired or cannot be told."""

    by_gene: Floats
    by_cell: Floats
    neither: Floats


def expression_of(frame: pl.DataFrame, how: Expression, kind: str) -> Floats:
    """Return e of each row from its metadata; `kind` is that of the matrix (counts, log-normalised, numbers)."""
    import numpy as np

    told = expression_word(how, kind)
    if how == "bin":
        return _column(frame, "read", told)
    value = _column(frame, "value", told)
    if how == "raw" or kind != "counts":
        return value
    total = _column(frame, "total", told)
    if (bad := (total <= 0) & (value != 0)).any():
        raise DataError(f"row {int(bad.argmax())} has a value in a cell whose total is {total[bad.argmax()]:g}")
    return np.log1p(value / np.where(total > 0, total, 1.0) * _SCALE)


def expression_word(how: Expression, kind: str) -> str:
    """Say in words what e is, to be written beside the tables."""
    if how == "bin":
        return "bin that the model read"
    if how == "raw":
        if kind != "counts":
            raise ConfigError(
                f"--expression raw needs counts, and the matrix is {kind}",
                remedy="Choose lognorm, which takes such values as they are, or bin.",
            )
        return "count"
    return "log of 1 + counts per 10,000" if kind == "counts" else f"value as it stands in the file ({kind})"


def _column(frame: pl.DataFrame, name: str, told: str) -> Floats:
    import numpy as np
    import polars as pl

    if name not in frame.columns:
        raise DataError(f"there is no column {name!r}, of which the {told} is made", remedy=near(name, frame.columns))
    column = frame[name].cast(pl.Float64)
    if column.null_count():
        raise DataError(
            f"{name!r}, of which the {told} is made, is empty in {column.null_count()} of {len(column)} rows",
            remedy="Choose another --expression, or capture the rows again.",
        )
    values = column.to_numpy()
    if not np.isfinite(values).all():
        raise DataError(f"{name!r}, of which the {told} is made, holds NaN or infinity")
    return values


def gene_table(
    tallied: Tallied, cells: pl.DataFrame, genes: pl.DataFrame, *, config: GeneConfig | None = None
) -> pl.DataFrame:
    """Return feature_genes.parquet's table; `cells` has a row a cell (split), `genes` a row a gene (gene, symbol)."""
    import numpy as np
    import polars as pl

    from elute.analysis import specificity

    config = config or GeneConfig()
    if len(cells) != len(tallied.cell_rows) or len(genes) != len(tallied.gene_rows):
        have = f"{len(tallied.cell_rows)} cells and {len(tallied.gene_rows)} genes"
        raise DataError(f"a table of {len(cells)} cells and one of {len(genes)} genes for a tally of {have}")
    sides = specificity.sides(cells, tallied.cell_rows)
    limit = config.memory_mb * 2**20
    parts = [
        _rows(tallied, ranked)
        for ranked in specificity.ranked(tallied, sides, k=config.top_k_genes, least=config.least, limit=limit)
    ]
    found = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    names = genes.select(pl.col("gene").cast(pl.String), pl.col("symbol").fill_null(pl.col("gene")).cast(pl.String))
    whole = {"feature": pl.Int32, "rank": pl.Int32, "rank_raw": pl.Int32}
    table = pl.DataFrame(found).with_columns(pl.col(name).cast(kind) for name, kind in whole.items())
    table = table.with_columns(pl.col("rank", "rank_raw").replace(0, None), pl.col(pl.Float64).fill_nan(None))
    table = table.with_columns(names[table["number"]])
    table = table.sort("feature", "rank", "rank_raw", nulls_last=True)
    return table.select("feature", "gene", "symbol", "rank", "rank_raw", *_NUMBERS)


_NUMBERS = ("score", "mean", "rate", "expression", "z", "z_shown", "token_z")


def _rows(tallied: Tallied, ranked: Ranked) -> dict[str, NDArray[Any]]:
    """Put both rankings of a range of features together; rank 0 is none, and NaN no number."""
    import numpy as np

    first, G = ranked.first, len(tallied.gene_rows)
    specific, raw = ranked.specific.keys(G), ranked.raw.keys(G)
    keys = np.sort(np.concatenate([specific, raw]))
    keys = keys[np.diff(keys, prepend=-1) > 0]
    f, g = np.divmod(keys, G)
    rank, rank_raw = np.zeros(len(keys), np.int32), np.zeros(len(keys), np.int32)
    rank[np.searchsorted(keys, specific)] = ranked.specific.ranks()
    rank_raw[np.searchsorted(keys, raw)] = ranked.raw.ranks()
    counts, score = _looked_up(ranked.genes, keys, G)
    rows, weights = tallied.gene_rows[g], tallied.gene_weights[g]
    return {
        "feature": f + first,
        "number": g,
        "rank": rank,
        "rank_raw": rank_raw,
        "score": score,
        "mean": score / np.maximum(ranked.cells_fired[f], 1),
        "rate": counts / np.maximum(rows, 1),
        "expression": weights / np.maximum(rows, 1),
        "z": ranked.chosen.z(g, f),
        "z_shown": np.full(len(keys), np.nan) if ranked.shown is None else ranked.shown.z(g, f),
        "token_z": _token_z(tallied, f + first, g, score),
    }


def _looked_up(block: Block, keys: Integers, G: int) -> tuple[Integers, Floats]:
    """Return how often, and with which score, each pair fired: 0 where it never did."""
    import numpy as np

    known = (block.features().astype(np.int64) - block.first) * G + block.others
    at = np.minimum(np.searchsorted(known, keys), max(0, len(known) - 1))
    there = known[at] == keys if len(known) else np.zeros(len(keys), bool)
    counts, score = np.zeros(len(keys), np.int64), np.zeros(len(keys))
    counts[there], score[there] = block.counts[at[there]], block.weighted[at[there]]
    return counts, score


def _token_z(tallied: Tallied, f: Integers, g: Integers, score: Floats) -> Floats:
    """Compare scores with those of activations in random order over all rows: exact mean and variance."""
    import numpy as np

    n = tallied.n_rows
    mean = tallied.sums[f] / n
    spread = _about_mean(tallied.squares[f], tallied.sums[f], n)
    weights = _about_mean(tallied.gene_squares[g], tallied.gene_weights[g], n)
    variance = spread * weights / max(n - 1, 1)
    away = score - mean * tallied.gene_weights[g]
    return np.where(variance > 0, away / np.sqrt(np.where(variance > 0, variance, 1.0)), np.nan)


def _about_mean(squares: Floats, sums: Floats, n: int) -> Floats:
    """Return Σ (x − mean)², 0 where it is no more than rounding."""
    import numpy as np

    around = squares - sums * sums / max(n, 1)
    return np.where(around > 1e-12 * squares, around, 0.0)


def shares(tallied: Tallied) -> Shares:
    """Return how much of each feature's variance which gene, and which cell, explain; chance is taken off."""
    import numpy as np

    n = tallied.n_rows
    total = _about_mean(tallied.squares, tallied.sums, n)
    explained = []
    for pairs, rows in ((tallied.genes, tallied.gene_rows), (tallied.cells, tallied.cell_rows)):
        between, groups = np.zeros(len(total)), int((rows > 0).sum())
        for block in pairs.blocks():
            parts = block.sums * block.sums / rows[block.others]
            between[block.first : block.stop] = np.bincount(
                block.features() - block.first, parts, minlength=block.stop - block.first
            )
        between -= tallied.sums * tallied.sums / max(n, 1)
        known = (total > 0) & (n > groups)
        eta = between / np.where(known, total, 1.0)
        epsilon = 1 - (1 - eta) * ((n - 1) / max(n - groups, 1))
        explained.append(np.where(known, np.clip(epsilon, 0, 1), np.nan))
    by_gene, by_cell = explained
    return Shares(by_gene, by_cell, np.maximum(1 - by_gene - by_cell, 0))
