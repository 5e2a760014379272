"""`elute report`: a run on a few pages, for people who do not run programs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from elute.base.run import Artifact
from elute.cli.commands import command


def _show(answer: dict[str, Any]) -> str:
    count = sum(len(features) for features in answer["features"].values())
    return f"{answer['path']}: {count:,} features on a few pages"


@command("report", show=_show)
@click.option("--results", required=True, type=click.Path(path_type=Path, file_okay=False), help="Folder of a run.")
@click.option("--format", "kind", type=click.Choice(["html", "pdf", "md"]), default="html", show_default=True,
              help="What to write; md has its pictures as SVG files beside it.")  # fmt: skip
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False),
              help="File to write; report/report.FORMAT in the run's folder if not given.")  # fmt: skip
@click.option("--top-n-features", type=click.IntRange(min=1),
              help="Features to show of each site; 20 if there is one, else fewer.")  # fmt: skip
def report(*, results: Path, kind: str, output: Path | None, top_n_features: int | None) -> Artifact:
    """Say in a few pages what was trained, how good it is beside its controls, and what could not be tested."""
    from elute.reports.paper.write import write_paper

    return write_paper(results, kind, output=output, top_n_features=top_n_features)
