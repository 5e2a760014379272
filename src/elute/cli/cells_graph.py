"""`elute cells graph`: what leads to the predicted value of a gene in a cell."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from elute.cells.graph_settings import CellGraphConfig, TranscodersConfig
from elute.cli.cell_effects import data_option, model_option, results_option
from elute.cli.commands import command
from elute.cli.sections import CELLS
from elute.graphs.settings import GraphConfig

if TYPE_CHECKING:
    from elute.base.run import Artifact


@command(
    "graph",
    {"cell_graph": CellGraphConfig, "graph": GraphConfig, "transcoders": TranscodersConfig},
    recipe=CELLS,
    show="elute.cells.graphs:show",
)
@results_option
@click.option("--gene", required=True, help="Symbol or id of the gene whose predicted value is explained.")
@data_option
@model_option
@click.option("--device", default="auto", show_default=True, help="Device: auto, cuda, cuda:N, mps or cpu.")
def graph(
    *, results: Path, gene: str, data: Path | None, model: Path | None, device: str, config: dict[str, Any]
) -> Artifact:
    """Explain what a run's model predicts of a gene in a cell: from which genes, through which features.

    The gene's value is hidden from the model. Transcoders of all its MLPs are trained first where they are not there
    yet. Every edge is checked by an intervention, and influence is held against features ablated in the model itself.
    Writes files that circuit-tracer and Neuronpedia read, tables, and a page.
    """
    from elute.cells.graphs import graph as explain

    return explain(
        results, gene=gene, config=config["cell_graph"], graph=config["graph"], transcoders=config["transcoders"],
        data=data, model=model, device=device,
    )  # fmt: skip
