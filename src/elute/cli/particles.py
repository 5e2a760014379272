"""`elute particles`: embeddings of particles from several sources, fused, and judged without fooling oneself."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from elute.cli.commands import command
from elute.particles.demo_settings import DemoConfig
from elute.particles.feature_settings import ParticleFeaturesConfig
from elute.particles.fusing import FuseConfig
from elute.particles.generator_settings import MadeConfig
from elute.particles.settings import EvaluationConfig

if TYPE_CHECKING:
    from elute.base.recipe import Section
    from elute.base.run import Artifact

FOLDER = click.Path(path_type=Path, file_okay=False)
FILE = click.Path(path_type=Path)
PARTICLES: dict[str, type[Section]] = {
    "evaluation": EvaluationConfig,
    "fuse": FuseConfig,
    "features": ParticleFeaturesConfig,
    "made": MadeConfig,
    "demo": DemoConfig,
}


def _sources_file(made: click.Command) -> click.Command:
    """Let `--config` be the file that names the sources, as the original's is; settings come from options alone."""
    made.params = [param for param in made.params if param.name != "settings"]
    call: Callable[..., Any] | None = made.callback
    assert call is not None  # noqa: S101  # `command` gives one
    made.callback = partial(call, settings=())
    return made


@_sources_file
@command(
    "evaluate-classification",
    {"evaluation": EvaluationConfig},
    recipe=PARTICLES,
    show="elute.particles.classification:show",
)
@click.option("--config", "sources", required=True, type=FILE, help="YAML that names the sources.")
@click.option("--output-dir", "output", required=True, type=FOLDER, help="Folder of the results.")
@click.option("--save-fused-embeddings", "save", type=FILE, help="HDF5 for fused embeddings (attention alone).")
@click.option("--layout", type=click.Choice(["auto", "groups", "bulk", "both"]), default="auto", show_default=True,
              help="How these are laid out: a group a particle, or whole arrays above 100,000.")  # fmt: skip
@click.option("--anew", is_flag=True, help="Do everything again, and write over what lies there.")
def evaluate_classification(
    *, sources: Path, output: Path, save: Path | None, layout: Any, anew: bool, config: dict[str, Any]
) -> Artifact:
    """Tell particles apart by each source and by their fusion, in the same folds, beside controls.

    --config names the sources, as CryoLens' own command has it (cryolens_embeddings, tomotwin_embeddings,
    tomotwin_coords) or as a list of two or more. Particles are paired by id, or by run and coordinates. An evaluation
    that was interrupted goes on after its last finished fold.
    """
    from elute.particles.classification import evaluate_classification as evaluate

    asked = click.get_current_context().params
    given = asked["random_seed"] is not None or any("random_seed" in word for word in asked["overrides"])
    return evaluate(
        sources, output, config["evaluation"], seed_given=given, save=save, layout=layout, anew=anew
    )  # fmt: skip


def _show_fused(answer: dict[str, Any]) -> str:
    told = f"{answer['path']}: {answer['n_samples']:,} particles, {answer['embedding_dim']} numbers each"
    told += " (already there, unchanged)" if answer["reused"] else ""
    told += f"; {answer['in_sample']:,} of them the network had learnt from" if answer["in_sample"] else ""
    return f"{told}\n{answer['mark']}" if answer["mark"] else told


@command("fuse", {"fuse": FuseConfig}, recipe=PARTICLES, show=_show_fused)
@click.option("--model", required=True, type=FILE, help="fusion.pt, or the folder that it lies in.")
@click.option("--inputs", multiple=True, required=True, metavar="CONFIG.yaml|NAME=FILE",
              help="The file that names the sources, or a file for each of them.")  # fmt: skip
@click.option("--output", required=True, type=FILE, help="HDF5 for the fused embeddings.")
def fuse(*, model: Path, inputs: tuple[str, ...], output: Path, config: dict[str, Any]) -> Artifact:
    """Fuse new particles with a network that evaluate_classification --save-fused-embeddings has trained."""
    from elute.particles.fusing import fuse as run

    return run(model, inputs, output, config=config["fuse"])


@command("features", {"features": ParticleFeaturesConfig}, recipe=PARTICLES, show="elute.particles.features:show")
@click.option("--inputs", required=True, type=FILE, help="File of embeddings, or the YAML that names the sources.")
@click.option("--output", required=True, type=FOLDER, help="Folder of the run.")
def features(*, inputs: Path, output: Path, config: dict[str, Any]) -> Artifact:
    """Find sparse features of embeddings: the classes they follow, their prototypes, and what controls give.

    A file of fused embeddings is read out of fold, unless --vector mu is given. What is found is in the Explorer,
    dashboard.html.
    """
    from elute.particles.features import find_features

    return find_features(inputs, output, config["features"])


@command("demo", {"made": MadeConfig, "demo": DemoConfig}, recipe=PARTICLES, show="elute.particles.demo:show")
@click.option(
    "--output", default="results/particles-demo", show_default=True, type=FOLDER, help="Folder of the results."
)
@click.option("--anew", is_flag=True, help="Do everything again, whatever lies there.")
def demo(*, output: Path, anew: bool, config: dict[str, Any]) -> Artifact:
    """Make particles up, fuse and judge them, and hold what was measured against what could be.

    Some minutes on two cores.
    """
    from elute.particles.demo import run_demo

    return run_demo(output, config["made"], config["demo"], anew=anew)
