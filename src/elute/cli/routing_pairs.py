"""`elute routing`: pairs of layers, collected and looked at."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from elute.cli.commands import command
from elute.cli.routing import FOLDER, ROUTING, run_option
from elute.routing.pair_settings import InspectConfig, PairsConfig

if TYPE_CHECKING:
    from elute.base.run import Artifact


def _show_pairs(answer: dict[str, Any]) -> str:
    from elute.routing.collecting import lines

    return "\n".join(lines(answer))


@command("collect-pairs", {"pairs": PairsConfig}, recipe=ROUTING, show=_show_pairs)
@run_option
@click.option("--checkpoint", default="last", show_default=True, help="An epoch's number, or a file.")
@click.option(
    "--pairs-file",
    type=click.Path(path_type=Path, dir_okay=False),
    help="Pairs, with sparsity and sampling for each, in JSON or YAML; RUN/clt/configs/RUN.json if it is there.",
)
@click.option(
    "--storage-root",
    type=FOLDER,
    help="Folder on another disk, which must be there: rows go to DIR/RUN/clt/activations. [env: ACTIVATIONS_ROOT]",
)
@click.option("--device", default="auto", show_default=True, help="Device: auto, cuda, cuda:N, mps or cpu.")
def collect_pairs(
    *,
    run_dir: Path,
    checkpoint: str,
    pairs_file: Path | None,
    storage_root: Path | None,
    device: str,
    config: dict[str, Any],
) -> Artifact:
    """Store what a layer and a later one make of the same nodes: what a transcoder learns from.

    All rows of an instance lie in one split. What was interrupted goes on when the same command is given again, and
    what is there is used as it is. A pair whose target is what its source gives is refused.
    """
    from elute.routing.collecting import collect_pairs as collect

    return collect(
        run_dir,
        config["pairs"],
        checkpoint=checkpoint,
        pairs_file=pairs_file,
        storage_root=storage_root,
        device=device,
    )


def _show_inspection(answer: dict[str, Any]) -> str:
    from elute.routing.inspecting import lines

    return "\n".join(lines(answer))


@command("inspect-pairs", {"inspect": InspectConfig}, recipe=ROUTING, show=_show_inspection)
@run_option
@click.option("--pair", "pairs", multiple=True, help="A pair, as clt_L0_to_L2; may be given several times; all if not.")
@click.option("--anew", is_flag=True, help="Measure again what was measured.")
def inspect_pairs(*, run_dir: Path, pairs: tuple[str, ...], anew: bool, config: dict[str, Any]) -> Artifact:
    """Say what a pair's rows are like, and how much of the target a linear map of the source explains.

    That is the bar that a transcoder has to beat. It is measured on held-out instances, beside the source itself
    passed through, and rows of other instances.
    """
    from elute.routing.inspecting import inspect_pairs as inspect

    return inspect(run_dir, config["inspect"], pairs=pairs, anew=anew)
