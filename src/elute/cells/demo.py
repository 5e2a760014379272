"""A small model of cells, made here and now: trained, judged, captured, and taken apart into features.

Everything is real: the 700 blood cells that come with scanpy, a model of Tahoe-x1's architecture with 262,000
parameters, and what it has learnt beside what less would have given.

    FOLDER/model               the model, as `--model` reads it, and what it was held against
    FOLDER/activations         what the last block's feed-forward part adds: a row a gene of a cell
    FOLDER/dictionary          512 features of those rows
    FOLDER/control_…           rows and features of the same model before it was trained

The published matrix is log-normalised. A token's value is the quantile, within its cell, that it falls into, which is
the same for counts and for their logarithms, but for ties.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from elute.base import console, run
from elute.base.errors import MissingError
from elute.base.recipe import Section
from elute.base.run import Artifact
from elute.cells.pretraining import PretrainConfig, pretrain, table_lines

if TYPE_CHECKING:
    from elute.cells.masked import Scale
    from elute.models.cells.cellfile import Cells
    from elute.models.cells.model import CellModel
    from elute.models.tahoe.model import TahoeX1

FEATURES, K, ROWS = 512, 16, 200_000
FILE = "10x_pbmc68k_reduced.h5ad"
_LEAST = 800  # steps below which the model is still at the genes' means
_THREADS = 2


class DemoConfig(Section):
    """What the demonstration does."""

    seed: int = Field(0, ge=0)
    """Seed of the model, the split, the masks and the dictionary."""
    steps: int = Field(900, ge=1)
    """Training steps of the model; it learns little from other genes in fewer than 800."""
    anew: bool = False
    """Do everything again, whatever lies there."""


def demonstrate(folder: Path, config: DemoConfig) -> Artifact:
    """Run the whole demonstration into a folder; what is already there and still right is reused."""
    from elute.cells.masked import Scale
    from elute.models.tahoe.load import read_folder

    folder = Path(folder)
    cells = demo_cells(config.seed)
    if config.steps < _LEAST:
        console.warn(f"in fewer than {_LEAST} steps the model does not get past the genes' means")
    with _few_threads():
        settings = PretrainConfig(seed=config.seed, steps=config.steps)
        trained = pretrain(cells, folder / "model", settings, anew=config.anew)
        split = _with_split(cells, config.seed)
        network = read_folder(folder / "model").network
        untrained = _untrained(network, Scale(**trained.summary["bins"]), config.seed)
        models = {
            "trained": (network, folder / "activations", folder / "dictionary"),
            "random weights": (untrained, folder / "control_activations", folder / "control_dictionary"),
        }
        features = {
            name: _features(
                _model(network, folder / "model", config.seed), cells, store, output, split=split, config=config
            )
            for name, (network, store, output) in models.items()
        }
    keys = ("parameters", "genes", "steps", "cells", "held_out", "verdict", "ridge")
    summary = {key: trained.summary[key] for key in keys} | {"dictionary": features}
    run.record(folder, "demo", config.model_copy(update={"anew": False}), inputs=cells.source, summary=summary)
    return Artifact("demo", folder, summary)


def demo_file() -> Path:
    """Find the cells that come with scanpy, without importing it."""
    from elute.base.doctor import how_to_install

    spec = find_spec("scanpy")
    remedy = f"Type: {how_to_install('cells')}; or train on cells of your own: elute cells pretrain --data FILE.h5ad"
    if spec is None or spec.origin is None:
        raise MissingError("the demonstration's cells come with scanpy, which is not installed", remedy=remedy)
    path = Path(spec.origin).parent / "datasets" / FILE
    if not path.is_file():
        raise MissingError(f"this version of scanpy brings no {FILE}", where=path.parent, remedy=remedy)
    return path


def demo_cells(seed: int) -> Cells:
    """Open those cells."""
    from elute.models.cells.cellfile import CellsConfig, open_cells

    config = CellsConfig(matrix="raw", accept_normalised=True, cell_type_key="bulk_labels", seed=seed)
    return open_cells(demo_file(), config)


def show(answer: dict[str, Any]) -> str:
    """Say what was done, what came of it, and what did not."""
    folder, cells, found = answer["path"], answer["cells"], answer["dictionary"]
    read = f"{answer['genes']} genes of {cells['train']} blood cells, and judged on {cells['test']} more"
    judge = f"  elute arrays eval --split test --store {folder}/"
    lines = [
        "",
        f"A model of {answer['parameters']:,} parameters learnt, in {answer['steps']:,} steps, to tell a hidden value",
        f"from the cell's other genes: {read}.",
        "(The cells are log-normalised. Values are quantiles within a cell: those of counts, but for ties.)",
        "",
        *table_lines(answer["held_out"]),
        "",
        answer["verdict"],
        "",
        f"{'a dictionary of its last feed-forward part':<46}{'trained':>9}{'random weights':>17}",
        f"{f'variance explained, {FEATURES} features, {K} at a time':<46}" + _shares(found, "explained_variance"),
        f"{f'the same by {K} principal directions':<46}" + _shares(found, "principal"),
        "",
        "What was learnt: see the table. The model uses the other genes of a cell, as far as it beats the gene's mean.",
        "What was not: where it ties with ridge, a network was not needed for it. The variance that a dictionary",
        "explains is no evidence of anything: it does as well on weights that never saw a cell. Whether a feature",
        "means something is not asked here; most features of such a model stand for single genes.",
        "",
        "Where to look:",
        f"  elute arrays head {folder}/activations",
        f"{judge}activations --dictionary {folder}/dictionary",
        f"{judge}control_activations --dictionary {folder}/control_dictionary",
        f"  elute cells capture --data FILE.h5ad --model {folder}/model --layers last --output STORE",
        "  elute cells pretrain --data FILE.h5ad --donor-key DONOR --output FOLDER    the same for your own cells",
    ]
    return "\n".join(lines)


def _shares(found: dict[str, Any], key: str) -> str:
    return f"{found['trained'][key]:>9.1%}{found['random weights'][key]:>17.1%}"


@contextmanager
def _few_threads() -> Iterator[None]:
    """So small a model is slower on many cores than on two, and rounds otherwise on each number of them."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(min(before, _THREADS))
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _with_split(cells: Cells, seed: int) -> str:
    """Give the cells the split that the model was trained under, as columns of their rows; return its digest."""
    import polars as pl

    from elute.base import files
    from elute.cells.corpus import SPLITS, split_cells

    drawn = split_cells(cells, seed=seed)
    names = pl.Series("split", [SPLITS[i] for i in drawn.tolist()], dtype=pl.String)
    cells.metadata = cells.metadata.with_columns(names, group=pl.col("sample_id"))
    return files.digest_bytes(drawn.tobytes())


def _untrained(network: TahoeX1, scale: Scale, seed: int) -> TahoeX1:
    """The same network before its training."""
    from elute.cells.masked import begin, fold

    c = network.config
    first = begin(d_model=c.d_model, layers=c.n_layers, heads=c.n_heads, vocabulary=c.vocab_size, seed=seed)
    return fold(first, scale)


def _model(network: TahoeX1, folder: Path, seed: int) -> CellModel:
    from elute.models.tahoe.load import read_folder
    from elute.models.tahoe.tokenizer import TahoeTokenizer
    from elute.models.tahoe_x1 import wrap

    found = read_folder(folder)
    tokenizer = TahoeTokenizer(found.vocabulary, found.collator, seed=seed)
    return wrap(network, tokenizer, device="cpu", dtype="fp32", batch_size=32)


def _features(
    model: CellModel, cells: Cells, store: Path, output: Path, *, split: str, config: DemoConfig
) -> dict[str, Any]:  # fmt: skip
    """Capture the last feed-forward part and train a dictionary on it; judge that on cells it never saw."""
    from elute.dictionaries.files import load_dictionary
    from elute.engine.capture import CaptureConfig, capture_to_store
    from elute.engine.evaluate import evaluate
    from elute.engine.fit import FitConfig
    from elute.engine.settings import DictionaryConfig, EvalConfig
    from elute.engine.train import Training, train
    from elute.store.reader import Store

    rows = model.survey(cells).rows
    source = {**cells.source, "split": split}
    sites, capture = model.choose_sites("last"), CaptureConfig(recapture=config.anew)
    capture_to_store(model, cells, store, sites=sites, config=capture, source=source, total_rows=rows)
    training = Training(
        dictionary=DictionaryConfig(n_features=FEATURES, k=K), fit=FitConfig(rows=ROWS, seed=config.seed)
    )
    train(store, output, training, anew=config.anew)
    judged = evaluate(load_dictionary(output), Store(store), EvalConfig(split="test"))
    return {
        "rows": rows,
        "explained_variance": judged["explained_variance"],
        "principal": judged["control"]["explained_variance_pca"],
        "dead": judged["dead_fraction"],
    }
