"""How strongly some features fire in each cell type and donor: means over cells, from the codes of every row.

A cell's activation is the mean over its rows, those in which a feature is silent included, as everywhere. Cells that
chose types and genes stand apart from those that did not; cells of any other split are left out.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from elute.base import console
from elute.base.errors import EluteError
from elute.reports.validation_svg import plain

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from elute.reports.paper.facts import RunFacts

_ROWS = 1 << 16
_LEAST = 3  # cells of which a mean says anything
_NONE = "the run keeps no codes of its rows"


@dataclass(frozen=True)
class Group:
    """A feature's means in the cells of one type."""

    name: str
    cells: int  # that chose
    mean: float | None  # over cells that chose
    shown: float | None  # over those that did not
    donors: tuple[float, ...]  # means of each donor's cells that chose
    donors_shown: tuple[float, ...]


@dataclass(frozen=True)
class Activity:
    """A feature's means by cell type, the highest first."""

    groups: tuple[Group, ...]
    by_donor: bool


def read_activity(run: RunFacts, place: Path, features: Sequence[int]) -> tuple[dict[int, Activity], str]:
    """Return the means of some features, or why they cannot be told."""
    if not run.labelled or run.cells is None or not features:
        return {}, ""
    if not all((folder / "manifest.json").is_file() for folder in (place / "codes", run.home / "activations")):
        return {}, _NONE
    try:
        means = _means(run, place, features)
    except EluteError as error:
        return {}, str(error)
    return {feature: _grouped(run, means[:, i]) for i, feature in enumerate(features)}, ""


def _means(run: RunFacts, place: Path, features: Sequence[int]) -> NDArray[np.float64]:
    """The mean of each feature over the rows of each cell, [cells, features]; NaN for a cell without rows."""
    import polars as pl

    from elute.store.codes import StoredCodes
    from elute.store.reader import Store

    assert run.cells is not None  # noqa: S101  # as read_activity asks
    codes, store = StoredCodes(place / "codes"), Store(run.home / "activations")
    codes.expect(store=store, complete=False)
    if "sample_id" not in store.manifest.columns:
        raise EluteError("its rows do not say of which cell they are")
    cells = run.cells.select("cell").with_row_index("at").unique("cell", keep="first", maintain_order=True)
    slot = np.full(codes.n_features + 1, -1)
    known = [(i, f) for i, f in enumerate(features) if f < codes.n_features]
    slot[[f for _, f in known]] = [i for i, _ in known]
    width, height = len(features), len(run.cells)
    sums, rows = np.zeros(height * width), np.zeros(height)
    with console.progress("cells of the features", len(codes)) as bar:
        for shard, first in enumerate(codes.starts[:-1]):
            begin = store.starts[shard]
            names = store.metadata(begin, store.starts[shard + 1], columns=["sample_id"])
            mine = names[pl.Series(codes.store_rows(first, codes.starts[shard + 1]).numpy() - begin)]
            found = mine.join(cells, left_on="sample_id", right_on="cell", how="left", maintain_order="left")["at"]
            if found.null_count():
                raise EluteError("its codes are of other cells than cells.parquet")
            at, held = found.to_numpy().astype(np.int64), codes.shard(shard)
            rows += np.bincount(at, minlength=height)
            for a in range(0, len(held), _ROWS):
                piece = held[a : a + _ROWS]
                column = slot[piece.indices.numpy()]
                row, place_in = np.nonzero(column >= 0)
                values = piece.values.float().numpy()[row, place_in]
                flat = at[a : a + _ROWS][row] * width + column[row, place_in]
                sums += np.bincount(flat, weights=values, minlength=height * width)
                bar.advance(len(piece))
    with np.errstate(invalid="ignore"):
        return np.asarray(sums.reshape(height, width) / np.where(rows > 0, rows, np.nan)[:, None])


def _grouped(run: RunFacts, means: NDArray[np.float64]) -> Activity:
    import polars as pl

    from elute.analysis.pooled import sides

    assert run.cells is not None  # noqa: S101  # as read_activity asks
    choosing, shown = sides(run.cells)
    none = np.zeros(len(choosing), dtype=bool)
    donor = run.cells["donor"] if "donor" in run.cells.columns else pl.Series([None] * len(means), dtype=pl.String)
    frame = pl.DataFrame(
        {"level": run.cells["label"].cast(pl.String), "donor": donor.cast(pl.String), "mean": means,
         "chose": choosing, "shown": none if shown is None else shown}
    ).filter(pl.col("level").is_not_null(), pl.col("mean").is_not_nan())  # fmt: skip
    groups = [_group(str(key[0]), part) for key, part in frame.group_by("level", maintain_order=True)]
    groups.sort(key=lambda group: (-(group.mean if group.mean is not None else -np.inf), group.name))
    return Activity(tuple(groups), bool(donor.drop_nulls().n_unique() > 1))


def _group(name: str, part: Any) -> Group:
    chose, shown = part.filter(part["chose"]), part.filter(part["shown"])
    return Group(
        name=plain(name).strip() or "(no name)",
        cells=len(chose),
        mean=chose["mean"].mean() if len(chose) >= _LEAST else None,
        shown=shown["mean"].mean() if len(shown) >= _LEAST else None,
        donors=_by_donor(chose),
        donors_shown=_by_donor(shown),
    )


def _by_donor(part: Any) -> tuple[float, ...]:
    import polars as pl

    told = part.filter(pl.col("donor").is_not_null()).group_by("donor").agg(pl.col("mean").mean(), pl.len().alias("n"))
    return tuple(told.filter(pl.col("n") >= _LEAST).sort("donor")["mean"].to_list())
