"""`elute cells steer` and `perturb`: turn a feature up, or take a gene away, and see what changes beside controls."""

from __future__ import annotations

from pathlib import Path

import click

from elute.base.run import Artifact
from elute.cells.effect_settings import PerturbConfig, SteerConfig
from elute.cli.cells import FOLDER
from elute.cli.commands import command
from elute.cli.sections import CELLS

results_option = click.option("--results", required=True, type=FOLDER, help="Folder of a run.")
site_option = click.option("--site", help="Which site, where the run has several.")
data_option = click.option("--data", type=click.Path(path_type=Path), help="The run's cells, if they lie elsewhere.")
model_option = click.option("--model", type=FOLDER, help="The run's model, if it lies elsewhere.")


@command("steer", SteerConfig, recipe=CELLS, show="elute.cells.steering:show")
@results_option
@click.option("--feature", required=True, type=int, help="Number of the feature.")
@site_option
@data_option
@model_option
def steer(
    *, results: Path, feature: int, site: str | None, data: Path | None, model: Path | None, config: SteerConfig
) -> Artifact:
    """Set a feature on held-out cells: which genes' predicted values and which later features change.

    Beside it stand as large changes along other features' directions and along random ones. Twice as strong if neither
    --to, --times nor --off is given. The same question on the same run is answered from its folder.
    """
    from elute.cells.steering import steer as set_feature

    return set_feature(results, feature=feature, site=site, data=data, model=model, config=config)


@command("perturb", PerturbConfig, recipe=CELLS, show="elute.cells.perturbing:show")
@results_option
@click.option("--gene", required=True, help="Symbol or id of the gene.")
@site_option
@data_option
@model_option
def perturb(
    *, results: Path, gene: str, site: str | None, data: Path | None, model: Path | None, config: PerturbConfig
) -> Artifact:
    """Take a gene from held-out cells that have it, or change its value: which features and genes change elsewhere.

    Beside it stand genes like it in expression and detection. The same question on the same run is answered from its
    folder.
    """
    from elute.cells.perturbing import perturb as change_gene

    return change_gene(results, gene=gene, site=site, data=data, model=model, config=config)
