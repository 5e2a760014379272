"""`elute cells`: single cells, from an .h5ad file to what a model makes of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from elute.base.run import Artifact
from elute.cells.demo import DemoConfig
from elute.cells.pretraining import PretrainConfig
from elute.cells.settings import EmbedConfig, ModelConfig, SitesConfig
from elute.cli.commands import command
from elute.cli.sections import CELLS
from elute.engine.capture import CaptureConfig
from elute.models.cells.cellfile import CellsConfig

FOLDER = click.Path(path_type=Path, file_okay=False)
data_option = click.option("--data", required=True, type=click.Path(path_type=Path), help="The cells, as .h5ad.")


def _show_capture(answer: dict[str, Any]) -> str:
    sites = ", ".join(f"{name} × {width:,}" for name, width in answer["sites"].items())
    text = f"{answer['path']}: {answer['rows']:,} rows of {sites}"
    text += f", {answer['bad_rows']:,} with NaN or Inf" if answer["bad_rows"] else ""
    return text + (" (already there, unchanged)" if answer["reused"] else "")


@command(
    "capture",
    {"cells": CellsConfig, "model": ModelConfig, "sites": SitesConfig, "capture": CaptureConfig},
    recipe=CELLS,
    show=_show_capture,
)
@data_option
@click.option("--output", required=True, type=FOLDER, help="Folder of the store.")
def capture(data: Path, output: Path, config: dict[str, Any]) -> Artifact:
    """Store what a model computes on cells: one row a gene of a cell.

    Published weights are fetched once and kept; --model reads a folder instead. A run that was interrupted goes on
    when the same command is given again. `elute arrays train` makes a dictionary of the rows.
    """
    from elute.cells.capturing import capture_cells

    return capture_cells(data, output, **config)


def _show_embed(answer: dict[str, Any]) -> str:
    text = f"{answer['path']}: {answer['cells']:,} cells × {answer['width']:,} in .obsm[{answer['key']!r}]"
    left = answer["of"] - answer["cells"]
    return text + (f"; {left:,} cells of the file were not read and are left out" if left else "")


@command("embed", {"cells": CellsConfig, "model": ModelConfig, "embed": EmbedConfig}, recipe=CELLS, show=_show_embed)
@data_option
@click.option("--output", required=True, type=click.Path(path_type=Path), help="The .h5ad file to write.")
def embed(data: Path, output: Path, config: dict[str, Any]) -> Artifact:
    """Write a copy of the cells with one vector each in .obsm, ready for scanpy."""
    from elute.cells.embedding import embed_cells

    return embed_cells(data, output, **config)


@command(
    "pretrain", {"cells": CellsConfig, "pretrain": PretrainConfig}, recipe=CELLS, show="elute.cells.pretraining:show"
)
@data_option
@click.option("--output", required=True, type=FOLDER, help="Folder of the model.")
@click.option("--anew", is_flag=True, help="Start over, whatever lies there.")
def pretrain(*, data: Path, output: Path, anew: bool, config: dict[str, Any]) -> Artifact:
    """Train a small model on your own cells to tell hidden values, and judge it on cells it never saw.

    The folder is one that --model reads. Donors are held out whole where --donor-key names them. A training that was
    interrupted goes on when the same command is given again.
    """
    from elute.cells.pretraining import pretrain as run
    from elute.models.cells.cellfile import open_cells

    return run(open_cells(data, config["cells"]), output, config["pretrain"], anew=anew)


@command("demo", DemoConfig, recipe=CELLS, show="elute.cells.demo:show")
@click.option("--output", default="results/demo", show_default=True, type=FOLDER, help="Folder of the results.")
def demo(output: Path, config: DemoConfig) -> Artifact:
    """Train a small model on 700 real blood cells, judge it, and take it apart into features: some minutes."""
    from elute.cells.demo import demonstrate

    return demonstrate(output, config)
