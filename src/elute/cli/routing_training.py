"""`elute routing train-transcoder, train-clt, grid`: sparse features between the layers of a policy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from elute.base.recipe import Section, build
from elute.base.run import Artifact
from elute.cli.commands import command
from elute.cli.routing import run_option
from elute.cli.routing_sections import ROUTING
from elute.dictionaries.terms import TermsConfig
from elute.routing.clt_settings import (
    CltConfig,
    EpochsConfig,
    GridConfig,
    Settings,
    TranscoderConfig,
    WandbConfig,
    pair_named,
)

OWN: dict[str, type[Section]] = {
    "transcoder": TranscoderConfig, "epochs": EpochsConfig, "terms": TermsConfig, "wandb": WandbConfig,
}  # fmt: skip
anew_option = click.option("--anew", is_flag=True, help="Train anew, whatever was trained with these settings.")
resume_option = click.option(
    "--resume", metavar="TIME|latest", help="Go on with this very training; refused with other settings."
)


def _also(*names: str, kind: Any = float, flag: bool = False) -> Callable[[Any], Any]:
    """Let an option have other names, as other programs spell it."""
    if flag:
        return click.option(*(f"--{name}" for name in names), is_flag=True, default=None, hidden=True)
    return click.option(*(f"--{name}" for name in names), type=kind, hidden=True)


def _settings(config: dict[str, Any], l1_coef: float | None, tied_weights: bool | None) -> Settings:
    """Put sections together, with what was said under another name."""
    given = {"l1": l1_coef, "tied": tied_weights}
    terms = {**config["terms"].model_dump(), **{name: value for name, value in given.items() if value is not None}}
    parts = {name: config[name] for name in OWN if name in config and name != "terms"}
    return Settings(**parts, terms=build(TermsConfig, terms, "terms"))


@command("train-transcoder", OWN, recipe=ROUTING, show="elute.routing.learning:show")
@run_option
@click.option("--pair", help="A pair that was collected: its name, as clt_L0_to_L2, or SOURCE:TARGET.")
@click.option("--source-key", help="The source, as encoder_layer_0; with --target-key in place of --pair.")
@click.option("--target-key", help="The target, as encoder_layer_2.")
@resume_option
@anew_option
@_also("l1-coef")
@_also("tied-weights", flag=True)
def train_transcoder(
    *,
    run_dir: Path,
    pair: str | None,
    source_key: str | None,
    target_key: str | None,
    resume: str | None,
    anew: bool,
    l1_coef: float | None,
    tied_weights: bool | None,
    config: dict[str, Any],
) -> Artifact:
    """Train sparse features that tell a layer from an earlier one, and hold them against the linear map.

    Each training has a folder of its own under RUN/clt/clt_runs/PAIR; one that was interrupted goes on when the same
    command is given again. All instances of validation and test are kept out.
    """
    from elute.routing.learning import train_transcoder as train

    name = pair_named(pair, source_key, target_key)
    return train(run_dir, name, _settings(config, l1_coef, tied_weights), resume=resume, anew=anew)


@command(
    "train-clt",
    {"clt": CltConfig, "epochs": EpochsConfig, "terms": TermsConfig, "wandb": WandbConfig},
    recipe=ROUTING,
    show="elute.routing.clt_training:show",
)
@run_option
@resume_option
@anew_option
@_also("l1-coef")
def train_clt(
    *, run_dir: Path, resume: str | None, anew: bool, l1_coef: float | None, config: dict[str, Any]
) -> Artifact:
    """Train a cross-layer transcoder: features of each layer write into that layer and all later ones, all at once.

    A transcoder of each layer alone is trained beside it. Rows that were not collected yet are collected first.
    """
    from elute.routing.clt_training import train_clt as train

    return train(run_dir, config["clt"], _settings(config, l1_coef, None), resume=resume, anew=anew)


@command(
    "grid",
    {"grid": GridConfig, "epochs": EpochsConfig, "terms": TermsConfig, "wandb": WandbConfig},
    recipe=ROUTING,
    show="elute.routing.grid:show",
)
@run_option
@click.option("--activation", help="How few features fire; of all transcoders.")
@click.option("--skip/--no-skip", default=None, help="Learn a linear map beside the features.")
@click.option("--anew", is_flag=True, help="Train every one anew.")
@_also("l1-coef")
@_also("tied-weights", flag=True)
def grid(
    *,
    run_dir: Path,
    activation: str | None,
    skip: bool | None,
    anew: bool,
    l1_coef: float | None,
    tied_weights: bool | None,
    config: dict[str, Any],
) -> Artifact:
    """Train transcoders of several pairs, sizes and sparsities, and rank them by what they add to the linear map.

    What is there is used as it is, so that the same command goes on where it was interrupted. Settings of all its
    transcoders that are no option here come from the section `transcoder` of --config, or --set transcoder.KEY=VALUE.
    """
    from elute.base.recipe import resolve
    from elute.routing.grid import run_grid

    given = click.get_current_context().params
    read = resolve(ROUTING, given["settings"], given["overrides"], needed={"transcoder"})["transcoder"]
    said = {"activation": activation, "skip": skip}
    made = {**read.model_dump(), **{name: value for name, value in said.items() if value is not None}}
    settings = _settings({**config, "transcoder": build(TranscoderConfig, made, "transcoder")}, l1_coef, tied_weights)
    return run_grid(run_dir, config["grid"], settings, anew=anew)
