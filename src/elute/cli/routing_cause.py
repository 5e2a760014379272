"""`elute routing eval, patch, steer, paths, generalise, demo`: what the features of a policy's layers do."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from elute.cli.commands import command
from elute.cli.routing import FOLDER, run_option
from elute.cli.routing_sections import ROUTING
from elute.routing.cause_settings import (
    DoseConfig,
    GeneraliseConfig,
    JudgedConfig,
    PairEvalConfig,
    PatchConfig,
    PathsConfig,
    RoutingDemoConfig,
)

if TYPE_CHECKING:
    from elute.base.run import Artifact

pair_option = click.option("--pair", required=True, help="A pair that has a dictionary, as clt_L0_to_L2.")
clt_run_option = click.option(
    "--clt-run", default="latest", show_default=True, help="Which training of it: a folder's name, or a path."
)


@command("eval", {"judged": JudgedConfig, "eval": PairEvalConfig}, recipe=ROUTING, show="elute.routing.evaluating:show")
@run_option
@pair_option
@clt_run_option
def evaluate(*, run_dir: Path, pair: str, clt_run: str, config: dict[str, Any]) -> Artifact:
    """Look at a dictionary's features on held-out instances: when they fire, what they do, what they follow.

    Each number stands beside the linear map's, what features follow beside a permutation null, and attributions beside
    what taking features away really does. Writes tables, drawings and a page.
    """
    from elute.routing.evaluating import evaluate_run

    return evaluate_run(run_dir, pair, config["judged"], config=config["eval"], clt_run=clt_run)


@command("patch", {"judged": JudgedConfig, "patch": PatchConfig}, recipe=ROUTING, show="elute.routing.patching:show")
@run_option
@click.option(
    "--pair", "pairs", multiple=True, help="A pair; may be given several times; all with a dictionary if not."
)
@clt_run_option
def patch(*, run_dir: Path, pairs: tuple[str, ...], clt_run: str, config: dict[str, Any]) -> Artifact:
    """Replace layers by what a dictionary makes of earlier ones: do the tours stay?

    Beside it stand the linear map, the state passed through, the mean, and another instance's activations, on the same
    held-out instances, with paired intervals. With its error term nothing may change, to the last bit.
    """
    from elute.routing.patching import patch_run

    return patch_run(run_dir, pairs, config["judged"], config=config["patch"], clt_run=clt_run)


@command("steer", {"judged": JudgedConfig, "steer": DoseConfig}, recipe=ROUTING, show="elute.routing.ablating:show")
@run_option
@pair_option
@clt_run_option
def steer(*, run_dir: Path, pair: str, clt_run: str, config: dict[str, Any]) -> Artifact:
    """Take features away, turn them up, and bring them from other instances: dose and response.

    Beside each stand as large changes along random directions.
    """
    from elute.routing.ablating import steer_run

    return steer_run(run_dir, pair, config["judged"], config=config["steer"], clt_run=clt_run)


@command(
    "paths", {"judged": JudgedConfig, "paths": PathsConfig}, recipe=ROUTING, show="elute.routing.path_effects:show"
)
@run_option
@pair_option
@clt_run_option
def paths(*, run_dir: Path, pair: str, clt_run: str, config: dict[str, Any]) -> Artifact:
    """Follow features of an autoencoder through a dictionary to features of a later one, and to the next node.

    Paths are predicted by weights and measured by cutting them; how well the first predicts the second is the answer.
    """
    from elute.routing.path_effects import paths_run

    return paths_run(run_dir, pair, config["judged"], config=config["paths"], clt_run=clt_run)


@command(
    "generalise",
    {"judged": JudgedConfig, "generalise": GeneraliseConfig},
    recipe=ROUTING,
    show="elute.routing.generalising:show",
)
@run_option
@pair_option
@clt_run_option
def generalise(*, run_dir: Path, pair: str, clt_run: str, config: dict[str, Any]) -> Artifact:
    """Try a dictionary on other checkpoints, distributions, sizes and policies, beside linear maps.

    One thing is changed at a time; a policy of random weights is the control.
    """
    from elute.routing.generalising import generalise_run

    return generalise_run(run_dir, pair, config["judged"], config=config["generalise"], clt_run=clt_run)


@command("demo", {"demo": RoutingDemoConfig}, recipe=ROUTING, show="elute.routing.demo:show")
@click.option("--output", default="results/routing-demo", show_default=True, type=FOLDER, help="Folder of the run.")
@click.option("--anew", is_flag=True, help="Do everything again, whatever lies there.")
def demo(*, output: Path, anew: bool, config: dict[str, Any]) -> Artifact:
    """Train a small policy, take its layers apart, and see whether the parts keep its tours.

    Some minutes on two cores. Beside the transcoders stand linear maps, layers passed through and other instances.
    """
    from elute.routing.demo import demonstrate

    return demonstrate(output, config["demo"], anew=anew)
