"""What a cell's graph is made of: the run's model, the cell and the gene that it is asked for, and transcoders.

The gene's value is hidden, and the model tells it from the cell's other genes: what it says of a value that it sees is
the value itself. All tokens are positions, also the cell's own in front of its genes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from elute.base.errors import ConfigError, DataError, near
from elute.cells import reopening, table
from elute.cells.perturbing import find_gene
from elute.cells.transcoders import FRONT
from elute.graphs.layers import Layers
from elute.graphs.outputs import Outputs
from elute.graphs.replacement import Replacement

if TYPE_CHECKING:
    from elute.cells.graph_settings import CellGraphConfig
    from elute.cells.reopening import Reopened
    from elute.dictionaries.dictionary import Dictionary
    from elute.models.cells.model import CellModel

TOKENS = "blocks.0.hook_resid_pre"
_LOOKED = 2000  # held-out cells of a type that are looked through for the gene
_LARGE = 200_000_000  # parameters from which on float64 takes too much


@dataclass(frozen=True, eq=False)
class Question:
    """A cell whose value of a gene is asked for."""

    cell: str
    label: str | None  # the cell's type
    split: str | None
    gene: str  # symbol
    batch: dict[str, Any]
    position: int  # of the gene among the tokens
    symbols: tuple[str, ...]  # of each token
    tokens: tuple[int, ...]  # numbers of the vocabulary
    values: tuple[float | None, ...]  # as they stand in the file
    read: float  # what the model would have read

    @property
    def words(self) -> list[str]:
        """What each position is called."""
        return [f"{name} (hidden)" if i == self.position else name for i, name in enumerate(self.symbols)]

    def outputs(self) -> Outputs:
        """The predicted value."""
        at = self.position
        return Outputs(
            lambda out: out.expr_preds[0], weights={at: 1.0}, centred=False, labels={at: self.gene}, position=at
        )

    def replacement(self, model: CellModel, given: Dictionary | Sequence[Dictionary], layers: Layers) -> Replacement:
        """Put transcoders in the place of the MLPs, on this question."""
        return Replacement.of(model, self.batch, given, outputs=self.outputs(), tokens=TOKENS, layers=layers)


def open_cells_run(results: Path, *, data: Path | None, model: Path | None, device: str) -> tuple[Reopened, Layers]:
    """Open a run's model and cells, and find the MLPs; a model that tells no values is refused."""
    from elute.analysis.findings import open_run

    run = open_run(results)
    recorded = reopening.look_up(results, run.sites[0])
    opened = reopening.reopen(recorded, data=data, model=model, device=device)
    layers = Layers.of(opened.model.sites)
    first = next(iter(opened.model.batches(opened.cells.subset([0]), every=True)), None)
    if first is not None and "values" not in first[0]:
        what = "predicts no values, so that there is nothing to explain"
        remedy = "Take a run of a model that tells values, as Tahoe-x1 or one of `elute cells pretrain`."
        raise ConfigError(what, where=opened.model.name, remedy=remedy)
    return opened, layers


def questions(opened: Reopened, gene: str, config: CellGraphConfig) -> list[Question]:
    """Return the question of the cell that is named, or of a typical one of its type, then those of further cells."""
    run = opened.recorded.run
    number, symbol = find_gene(table.read(run.folder / table.GENES), gene, run.folder)
    name = opened.genes["gene"][number]
    cells = run.cells
    label = config.cell_type
    place: int | None = None
    if config.cell is not None:
        known = cells["cell"].to_list()
        if config.cell not in known:
            raise ConfigError(f"there is no cell {config.cell!r}", where=run.folder, remedy=near(config.cell, known))
        place = known.index(config.cell)
        label = cells["label"][place] if "label" in cells.columns else None
    order = _typical(opened, name, symbol, label=label, needed=place is None)
    place = order[0] if place is None else place
    rest = [other for other in order if other != place][: config.others]
    return [_question(opened, other, name, symbol) for other in (place, *rest)]


def precise(model: CellModel) -> None:
    """Let a model compute in float64, where that is there and the model is not too large."""
    model.compute = replace(model.compute, dtype="fp32")  # without a cast to fewer digits
    size = sum(p.numel() for p in model.module.parameters())
    if model.device.type != "mps" and size <= _LARGE:
        model.module.double()


def _typical(opened: Reopened, name: str, symbol: str, *, label: str | None, needed: bool) -> list[int]:
    """Places of held-out cells of a type that have a gene, those with the median value first."""
    if label is None:
        return []
    places = reopening.showing(opened.recorded, most=_LOOKED, seed=0, cell_type=label)
    found: list[tuple[str, float]] = []
    for _, frame in opened.model.batches(opened.cells.subset(places)):
        rows = frame.filter(pl.col("token") == name)
        found += zip(rows["sample_id"].cast(pl.String), rows["value"].to_list(), strict=True)
    if not found:
        if not needed:
            return []
        what = f"of {len(places):,} held-out cells of type {label!r} none has {symbol}"
        raise DataError(what, where=opened.recorded.run.folder, remedy="Choose another type, or another gene.")
    at = {cell: i for i, cell in enumerate(opened.recorded.run.cells["cell"].to_list())}
    middle = float(np.median([value for _, value in found]))
    order = sorted(found, key=lambda one: (abs(one[1] - middle), at[one[0]]))
    return [at[cell] for cell, _ in order]


def _question(opened: Reopened, place: int, name: str, symbol: str) -> Question:
    """Read one cell, and hide the gene's value."""
    import torch

    from elute.cells.hiding import hidden

    row = opened.recorded.run.cells.row(place, named=True)
    found = next(iter(opened.model.batches(opened.cells.subset([place]), every=True)), None)
    asked = None if found is None else found[1]["token"].eq(name).fill_null(value=False)
    if found is None or asked is None or not asked.any():
        what = f"cell {row['cell']!r} has no {symbol} among the genes that the model reads"
        remedy = "Choose a cell that has it: --cell-type finds one."
        raise DataError(what, where=opened.recorded.run.folder, remedy=remedy)
    batch, frame = found
    at = int(asked.arg_true()[0])
    symbols = dict(zip(opened.genes["gene"], opened.genes["symbol"], strict=True))
    batch = hidden(opened.model, batch, torch.from_numpy(asked.to_numpy().copy()))
    return Question(
        cell=row["cell"],
        label=row.get("label"),
        split=row.get("split"),
        gene=symbol,
        batch=batch,
        position=at,
        symbols=tuple(FRONT if token is None else symbols.get(token) or token for token in frame["token"]),
        tokens=tuple(batch["tokens"][batch["keep"]].tolist()),
        values=tuple(frame["value"].to_list()),
        read=float(frame["read"][at]),
    )
