"""`elute arrays train, encode, eval, export, import-dictionary`: dictionaries of any arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from elute.arrays.dictionaries import BringConfig, ExportConfig
from elute.base.run import Artifact
from elute.cli.commands import command
from elute.cli.sections import ARRAYS, TRAINING
from elute.engine.encode import EncodeConfig
from elute.engine.settings import EvalConfig

FOLDER = click.Path(path_type=Path, file_okay=False)
store_option = click.option("--store", required=True, type=FOLDER, help="Folder of the rows.")
dictionary_option = click.option(
    "--dictionary", required=True, metavar="RUN|FILE|hf://OWNER/NAME", help="The dictionary.  [required]"
)


def _show_train(answer: dict[str, Any]) -> str:
    words = f"{answer['path']}: {answer['features']:,} features, {answer['rows']:,} rows"
    lines = [words + (" (already there, unchanged)" if answer["reused"] else "")]
    lines.append(f"explained variance  {answer['explained_variance']:.4f}  (of the last rows trained on)")
    lines.append(f"features firing     {answer['l0']:.1f} a row, {answer['dead']:.1%} of all silent")
    return "\n".join(lines)


@command("train", TRAINING, recipe=ARRAYS, show=_show_train)
@store_option
@click.option("--output", required=True, type=FOLDER, help="Folder of the run.")
@click.option("--resume", is_flag=True, help="Refuse to start where there is no checkpoint to go on from.")
@click.option("--anew", is_flag=True, help="Start over, whatever lies there.")
def train(*, store: Path, output: Path, resume: bool, anew: bool, config: dict[str, Any]) -> Artifact:
    """Train a dictionary on the rows of a store.

    Rows of the split named train are used where there is one. A training that was interrupted goes on when the same
    command is given again. Several processes: torchrun --nproc-per-node N -m elute arrays train …
    """
    from elute.engine.train import Training
    from elute.engine.train import train as run

    return run(store, output, Training(**config), must_resume=resume, anew=anew)


def _show_encode(answer: dict[str, Any]) -> str:
    return f"{answer['path']}: {answer['rows']:,} rows, up to {answer['k']} of {answer['features']:,} features each"


@command("encode", EncodeConfig, recipe=ARRAYS, show=_show_encode)
@dictionary_option
@store_option
@click.option("--output", required=True, type=FOLDER, help="Folder of the codes.")
def encode(*, dictionary: str, store: Path, output: Path, config: EncodeConfig) -> Artifact:
    """Write the sparse codes of a store's rows."""
    from elute.arrays.dictionaries import locate
    from elute.engine.encode import encode_store

    return encode_store(locate(dictionary), store, output, config=config)


def _show_eval(answer: dict[str, Any]) -> str:
    control = answer["control"]
    rows = [
        ("explained variance", "explained_variance", "explained_variance_pca", "as many principal directions"),
        ("features firing", "l0", None, ""),
        ("dead", "dead_fraction", None, ""),
        ("cosine", "cosine", None, ""),
        ("redundancy", "redundancy", None, ""),
        ("recovered", "recovered_fraction", "recovered_fraction", "random directions"),
        ("mean max cosine", "mean_max_cosine", "mean_max_cosine", "random directions"),
    ]
    lines = [f"{answer['path']}: {answer['rows']:,} rows" + (f" of {answer['split']}" if answer["split"] else "")]
    for title, key, beside, what in rows:
        if key in answer:
            against = f"   {what}: {control[beside]:.4f}" if beside else ""
            lines.append(f"{title:<20}{answer[key]:>10.4f}{against}")
    return "\n".join(lines)


@command("eval", EvalConfig, recipe=ARRAYS, show=_show_eval)
@dictionary_option
@store_option
def evaluate(dictionary: str, store: Path, config: EvalConfig) -> Artifact:
    """Judge a dictionary on the rows of a store, each number beside its control."""
    from elute.arrays.dictionaries import judge

    return judge(dictionary, store, config)


@command("export", ExportConfig, recipe=ARRAYS)
@dictionary_option
@click.option("--output", type=click.Path(path_type=Path), help="Folder or file; beside the dictionary if not given.")
def export(dictionary: str, output: Path | None, config: ExportConfig) -> Artifact:
    """Write a dictionary for SAELens, as safetensors, or push it to the Hugging Face hub."""
    from elute.arrays.dictionaries import export as run

    return run(dictionary, output, config)


def _show_bring(answer: dict[str, Any]) -> str:
    sites = " + ".join(f"{name} × {width}" for name, width in answer["reads"].items())
    what = f"{answer['features']:,} features over {sites}, {answer['activation']}"
    return f"{answer['path']}: {answer['kind']} of {answer['library']}, {what}"


@command("import-dictionary", BringConfig, recipe=ARRAYS, show=_show_bring)
@click.argument("path")
@click.option("--output", required=True, type=FOLDER, help="Folder of the run.")
def import_dictionary(path: str, output: Path, config: BringConfig) -> Artifact:
    """Read a dictionary of SAELens, dictionary_learning or sparsify at PATH, and save it as one of ours.

    PATH is a folder or file, or hf://OWNER/NAME. Nothing in it is executed.
    """
    from elute.arrays.dictionaries import bring

    return bring(path, output, config)
