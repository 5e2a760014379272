"""`elute cells run-pipeline` and its steps: from an .h5ad file to features with names."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from elute.base.recipe import Section
from elute.base.run import Artifact
from elute.cells.feature_settings import DashboardConfig, ExtractConfig, FeatureConfig, ValidationConfig
from elute.cells.settings import ModelConfig, SitesConfig
from elute.cli.cells import FOLDER, data_option
from elute.cli.commands import command
from elute.cli.sections import CELLS
from elute.engine.capture import CaptureConfig
from elute.engine.tracking import TrackConfig
from elute.models.cells.cellfile import CellsConfig
from elute.validation.settings import DatabaseConfig

SOURCE: dict[str, type[Section]] = {"cells": CellsConfig, "model": ModelConfig, "sites": SitesConfig}
TRAINING: dict[str, type[Section]] = {
    **SOURCE, "capture": CaptureConfig, "training": FeatureConfig, "track": TrackConfig,
}  # fmt: skip
WHOLE: dict[str, type[Section]] = {
    **TRAINING, "extract": ExtractConfig, "validation": ValidationConfig, "databases": DatabaseConfig,
    "dashboard": DashboardConfig,
}  # fmt: skip
run_option = click.option("--output", required=True, type=FOLDER, help="Folder of the run.")
saved_option = click.option(
    "--use-saved-activations", is_flag=True, help="Use the activations that lie in the folder; no model is read."
)


def _skip(stage: str, written: str) -> Callable[[Any], Any]:
    return click.option(f"--skip-{stage}", is_flag=True, help=f"Leave this stage out, and use {written}.")


@command("run-pipeline", WHOLE, recipe=CELLS, show="elute.cells.pipeline:show")
@data_option
@run_option
@saved_option
@_skip("training", "the dictionaries that lie in the folder")
@_skip("extraction", "the tables that lie in the folder")
@click.option("--skip-validation", is_flag=True, help="Hold features against no control and no database.")
@click.option("--skip-dashboard", is_flag=True, help="Write no page.")
def run_pipeline(
    *,
    data: Path,
    output: Path,
    use_saved_activations: bool,
    skip_training: bool,
    skip_extraction: bool,
    skip_validation: bool,
    skip_dashboard: bool,
    config: dict[str, Any],
) -> Artifact:
    """Find what a model knows about your cells: features, their genes and cells, controls, and a page to look at.

    Stages that are done are not done again when the same command is given; one that was interrupted goes on.
    """
    from elute.cells.pipeline import Stages
    from elute.cells.pipeline import run_pipeline as run
    from elute.cells.plan import Plan

    skip = Stages(use_saved_activations, skip_training, skip_extraction, skip_validation, skip_dashboard)
    return run(Plan.of(data, output, config), skip)


def _show_train(answer: dict[str, Any]) -> str:
    lines = [f"{answer['path']}: {answer['rows']:,} rows"]
    for site, told in zip(answer["sites"], answer["trained"], strict=True):
        figures = f"{told['features']:,} features, {told['never_fired']:,} never fired"
        figures += (
            f", explains {told['explained_variance']:.1%} of training rows" if "explained_variance" in told else ""
        )
        lines.append(f"{site['folder']}/sae_final.pt: {figures}{' (already there)' if told['reused'] else ''}")
    return "\n".join(lines)


@command("train", TRAINING, recipe=CELLS, show=_show_train)
@data_option
@run_option
@saved_option
def train(*, data: Path, output: Path, use_saved_activations: bool, config: dict[str, Any]) -> Artifact:
    """Train dictionaries on what a model computes on your cells; the first two stages of run-pipeline."""
    from elute.cells.pipeline import train_features
    from elute.cells.plan import Plan

    return train_features(Plan.of(data, output, config), saved_activations=use_saved_activations)


@command("extract", {**SOURCE, "capture": CaptureConfig, "training": FeatureConfig, "extract": ExtractConfig},
         recipe=CELLS, show="elute.cells.pipeline:show")  # fmt: skip
@click.option("--sae", required=True, type=click.Path(path_type=Path), help="A dictionary's file, or a run's folder.")
@data_option
@click.option("--output", type=FOLDER, help="Folder of the tables; that of the dictionary if not given.")
def extract(*, sae: Path, data: Path, output: Path | None, config: dict[str, Any]) -> Artifact:
    """Tell which genes and cells the features of a saved dictionary follow."""
    from elute.cells.pipeline import extract_features
    from elute.cells.plan import Plan

    home = sae if sae.is_dir() else sae.parent
    return extract_features(sae, Plan.of(data, output or home, config))


def _show_dashboard(answer: dict[str, Any]) -> str:
    return f"Open {answer['path']} in a browser."


@command("dashboard", DashboardConfig, recipe=CELLS, show=_show_dashboard)
@click.option("--results", required=True, type=FOLDER, help="Folder of a run.")
@click.option("--data", type=click.Path(path_type=Path), help="The cells' own file, for its map of cells.")
def dashboard(*, results: Path, data: Path | None, config: DashboardConfig) -> Artifact:
    """Write the page about a run's features anew: all of them, in one file that opens anywhere."""
    from elute.reports.explorer.write import write_explorer

    return write_explorer(results, top_n_features=config.top_n_features, all_cells=config.all_cells, data=data)


def _show_validated(answer: dict[str, Any]) -> str:
    from elute.cells.validating import lines

    return "\n".join(lines(answer["sites"], answer["path"]))


@command("validate", {"databases": DatabaseConfig}, recipe=CELLS, show=_show_validated)
@click.option("--results", required=True, type=FOLDER, help="Folder of a run.")
@click.option("--offline", is_flag=True, help="Ask no service: so it always is here, snapshots alone are read.")
def validate(*, results: Path, offline: bool, config: dict[str, Any]) -> Artifact:  # noqa: ARG001
    """Hold the features of a run against databases, each count beside its null, and name them.

    Neither cells nor model are opened: codes and tables of the run are enough. Databases that are not on this machine
    are reported as not run: elute databases list.
    """
    from elute.cells.validating import validate as hold

    return hold(results, config["databases"])


@command("export")
@click.option("--results", required=True, type=FOLDER, help="Folder of a run.")
@click.option("--h5ad", required=True, type=click.Path(path_type=Path), help="File to write.")
@click.option("--data", type=click.Path(path_type=Path), help="The cells' own file, to keep all that it holds.")
@click.option("--site", help="One site of several.")
@click.option("--overwrite", is_flag=True, help="Replace a file that is there already.")
@click.option("--pooling", type=click.Choice(["mean", "max", "sum"]), default="mean", show_default=True,
              help="How a cell's tokens become one number a feature.")  # fmt: skip
def export(
    *, results: Path, h5ad: Path, data: Path | None, site: str | None, overwrite: bool, pooling: Any
) -> Artifact:
    """Write the features of each cell into an .h5ad file, ready for scanpy."""
    from elute.cells.anndata_export import export_h5ad

    return export_h5ad(results, h5ad, data=data, site=site, pooling=pooling, overwrite=overwrite)


def _show_data(answer: dict[str, Any]) -> str:
    again = " (already there)" if answer["reused"] else ""
    return f"{answer['path']}: {answer['cells']:,} cells × {answer['genes']:,} genes{again}"


@command("download-test-data", show=_show_data)
@click.option("--output", default="data/pbmc3k.h5ad", show_default=True, type=click.Path(path_type=Path),
              help="File to write.")  # fmt: skip
@click.option("--file", "archive", type=click.Path(path_type=Path), help="The archive, downloaded by hand.")
@click.option("--force", is_flag=True, help="Fetch it again.")
def download_test_data(*, output: Path, archive: Path | None, force: bool) -> Artifact:
    """Fetch PBMC 3k (10x Genomics, CC BY 4.0) as an .h5ad of raw counts, checked by its digest."""
    from elute.cells.testdata import download_test_data as fetch

    return fetch(output, file=archive, force=force)


@command("test-pipeline-mock", show="elute.cells.pipeline:show")
@click.option("--output", type=FOLDER, help="Folder to leave the results in; a temporary one if not given.")
def test_pipeline_mock(output: Path | None) -> Artifact:
    """Run every stage on made-up cells and a model with random weights, in seconds: is all installed?"""
    from elute.cells.mock import test_pipeline

    return test_pipeline(output)
