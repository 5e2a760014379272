"""`elute cells narrate`: what a language model makes of features, and what that is worth."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from elute.base.run import Artifact
from elute.cli.cells import FOLDER
from elute.cli.commands import command
from elute.cli.sections import CELLS
from elute.validation.settings import NarratorConfig


@command("narrate", {"narrator": NarratorConfig}, recipe=CELLS, show="elute.cells.narrating:show")
@click.option("--results", required=True, type=FOLDER, help="Folder of a run that was validated.")
@click.option("--preview", is_flag=True, help="Print what would be sent for the first feature, and send nothing.")
def narrate(*, results: Path, preview: bool, config: dict[str, Any]) -> Artifact:
    """Have a language model say what features stand for, and score what it says on cells that chose nothing.

    Any endpoint that speaks as OpenAI's does, also one on this machine: ELUTE_LLM_URL, ELUTE_LLM_MODEL, ELUTE_LLM_KEY.
    Sent are genes, terms and cell types of a feature, and genes of held-out cells; no cell's name, donor or value.
    """
    from elute.cells.narrating import narrate as explain

    return explain(results, config["narrator"], preview=preview)
