"""`elute routing`: a policy that builds tours, from its training to what it has learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from elute.base.run import Artifact
from elute.cli import routing_sections
from elute.cli.commands import command
from elute.engine.tracking import TrackConfig
from elute.models.routing.settings import InstanceConfig, PolicyConfig
from elute.routing.policy_settings import PolicyTrainConfig

ROUTING = routing_sections.ROUTING
FOLDER = click.Path(path_type=Path, file_okay=False)
run_option = click.option("--run-dir", required=True, type=FOLDER, help="Folder of the run, as runs/NAME.")


@command(
    "train-policy",
    {"policy_training": PolicyTrainConfig, "policy": PolicyConfig, "track": TrackConfig},
    recipe=ROUTING,
    show="elute.routing.training:show",
)
@run_option
@click.option("--anew", is_flag=True, help="Start over, whatever lies there.")
def train_policy(*, run_dir: Path, anew: bool, config: dict[str, Any]) -> Artifact:
    """Train a policy that builds tours of the travelling salesman, and hold its tours against the shortest.

    A training that was interrupted goes on when the same command is given again. With the defaults, some eight minutes
    on two cores.
    """
    from elute.routing.training import train_policy as train

    return train(run_dir, config["policy_training"], config["policy"], track=config["track"], anew=anew)


def _show_score(answer: dict[str, Any]) -> str:
    from elute.routing.scoring import lines

    return "\n".join(lines(answer))


@command("score-policy", {"instances": InstanceConfig}, recipe=ROUTING, show=_show_score)
@run_option
@click.option("--checkpoint", default="last", show_default=True, help="An epoch's number, or a file.")
@click.option("--tsplib", type=FOLDER, help="Folder of TSPLIB's files, to solve those instead.")
@click.option("--device", default="auto", show_default=True, help="Device: auto, cuda, cuda:N, mps or cpu.")
def score_policy(
    *, run_dir: Path, checkpoint: str, tsplib: Path | None, device: str, config: dict[str, Any]
) -> Artifact:
    """Hold a policy's tours against the shortest ones: of instances that are drawn, or of TSPLIB's files."""
    from elute.routing.scoring import score_run

    return score_run(run_dir, config["instances"], checkpoint=checkpoint, tsplib_dir=tsplib, device=device)
