"""`elute app`: the Lab, pages over a run in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from elute.base.run import Artifact
from elute.cli.commands import command


def _show(answer: dict[str, Any]) -> str:
    return f"The Lab at {answer['address']} has ended."


@command("app", show=_show)
@click.option(
    "--results",
    required=True,
    type=click.Path(path_type=Path, file_okay=False),
    help="Folder of a run, also a live one.",
)
@click.option("--port", type=click.IntRange(1, 65535), help="Port to answer at. [default: 8501, or the next free one]")
@click.option(
    "--host", default="127.0.0.1", show_default=True, help="Address to answer at; by default, this machine alone."
)
def app(*, results: Path, port: int | None, host: str) -> Artifact:
    """Open the Lab on a run, in a browser: its tables, its training, your genes, and other runs beside it.

    Only this machine can reach it unless --host says otherwise. It reads the run's folder and runs beside it, and to
    steer and perturb the run's own model and cells.
    """
    from elute.app.serve import serve

    return serve(results, host=host, port=port)
