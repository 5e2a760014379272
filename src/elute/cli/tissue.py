"""`elute tissue`: from tiles of tissue to genes, and to what in a tile each gene's prediction rests on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from elute.cli.commands import command
from elute.tissue.painting_settings import PaintConfig
from elute.tissue.plan import SECTIONS
from elute.tissue.pretrain_settings import PretrainConfig
from elute.tissue.settings import RunConfig

if TYPE_CHECKING:
    from elute.base.recipe import Section
    from elute.base.run import Artifact

TISSUE: dict[str, type[Section]] = {"run": RunConfig, **SECTIONS}
DEMO: dict[str, type[Section]] = {"paint": PaintConfig, "pretrain": PretrainConfig}
_FOLDER = click.Path(path_type=Path, file_okay=False)
# Whose settings are options of a command, besides the keys of the file. Those of the attention are in the file alone:
# `--epochs` and `--batch-size` mean other things elsewhere.
_OWN = {
    "embed-export": ("run", "tiles", "encoder", "embedding", "split"),
    "train-sae": ("run", "sae"),
    "extract-codes": ("run", "codes"),
    "train-heads": ("run", "targets", "heads", "controls"),
    "crp-relmax": ("run", "crp"),
    "make-reports": ("run", "reports"),
    "run": tuple(name for name in TISSUE if name != "attention"),
}


def _stage(name: str, line: str, *, more: str = "", show: Callable[[dict[str, Any]], str]) -> click.Command:
    """Make the command of a stage: its own settings are options, those of other stages come from the file alone."""

    def call(*, config: dict[str, Any]) -> Artifact:
        from elute.base.recipe import resolve
        from elute.tissue.pipeline import run_stage, run_tissue
        from elute.tissue.plan import Plan

        given = click.get_current_context().params
        plan = Plan.of(config["run"].output, {**resolve(TISSUE, given["settings"], given["overrides"]), **config})
        return run_tissue(plan) if name == "run" else run_stage(plan, name.replace("-", "_"))

    others = "" if name == "run" else "Settings of the other stages come from the same --config."
    call.__doc__ = "\n\n".join(part for part in (line, more, others) if part)
    return command(name, {part: TISSUE[part] for part in _OWN[name]}, recipe=TISSUE, show=show)(call)


def _lines(stage: str) -> Callable[[dict[str, Any]], str]:
    def show(answer: dict[str, Any]) -> str:
        from elute.tissue.telling import lines

        return "\n".join(lines(stage, answer))

    return show


embed_export = _stage(
    "embed-export",
    "Store what a frozen encoder makes of your tiles: a row a patch, or a row a tile.",
    more="Patients or sites are drawn to train, validation and test once, here. An encoder whose weights have changed "
    "is refused: --recapture reads the tiles anew. An export that was interrupted goes on.",
    show=_lines("embed_export"),
)
train_sae = _stage(
    "train-sae",
    "Train a sparse autoencoder on the embeddings of training patients.",
    more="One that was trained with these settings is used as it is; what others gave is kept in sae/earlier-1/.",
    show=_lines("train_sae"),
)
extract_codes = _stage("extract-codes", "Write the sparse codes of every row.", show=_lines("extract_codes"))
train_heads = _stage(
    "train-heads",
    "Predict genes from pooled codes, on patients held out in turn, each score beside its controls.",
    more="Targets are aligned by sample id, and what either side lacks is counted and listed.",
    show=_lines("train_heads"),
)
crp_relmax = _stage(
    "crp-relmax",
    "Say which codes each gene's prediction rests on, and show the tiles and patches where they count most.",
    more="Relevance, bias and what the rule leaves over add up to each prediction; how nearly is told.",
    show=_lines("crp_relmax"),
)
make_reports = _stage(
    "make-reports", "Write pages about a run: an index, a page a gene and a page a code.", show=_lines("make_reports")
)
run = _stage(
    "run",
    "Do all stages: from tiles to pages about each gene and code.",
    more="Stages that are done are not done again when the same command is given; one that was interrupted goes on.",
    show=_lines("run"),
)


@command("demo", DEMO, show="elute.tissue.demo:show")
@click.option("--output", default="results/tissue-demo", show_default=True, type=_FOLDER, help="Folder of the results.")
@click.option("--anew", is_flag=True, help="Do everything again, whatever lies there.")
def demo(*, output: Path, anew: bool, config: dict[str, Any]) -> Artifact:
    """Paint tissue, train a small encoder, run all stages, and hold what was found against what was planted.

    Some minutes on two cores. Beside what came back stand an encoder with random weights and permuted targets.
    """
    from elute.tissue.demo import run_demo

    paint, pretrain = config["paint"], config["pretrain"]
    return run_demo(output, seed=paint.seed, anew=anew, paint=paint, pretrain=pretrain)
