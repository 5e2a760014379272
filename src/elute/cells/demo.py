"""A small model of cells, made here and now: trained, judged, and taken apart into features that are held to account.

Everything is real: the 700 blood cells that come with scanpy, a model of Tahoe-x1's architecture with 262,000
parameters, and what it has learnt beside what less would have given.

    FOLDER/model               the model, as `--model` reads it, and what it was held against
    FOLDER                     a run as `elute cells run-pipeline` makes one, on what the last block's feed-forward part
                               adds: activations, dictionary, codes, tables, controls, and dashboard.html

The published matrix is log-normalised. A token's value is the quantile, within its cell, that it falls into, which is
the same for counts and for their logarithms, but for ties.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field

from elute.base import console, run
from elute.base.device import few_threads
from elute.base.errors import MissingError
from elute.base.recipe import Section
from elute.base.run import Artifact
from elute.cells.feature_settings import FeatureConfig, ValidationConfig
from elute.cells.plan import Plan
from elute.cells.pretraining import PretrainConfig, pretrain, table_lines
from elute.cells.settings import ModelConfig, SitesConfig
from elute.engine.capture import CaptureConfig
from elute.models.cells.cellfile import CellsConfig

if TYPE_CHECKING:
    from elute.models.cells.cellfile import Cells

FEATURES, K, STEPS = 512, 16, 400
FILE = "10x_pbmc68k_reduced.h5ad"
MOST = 1024  # tokens of a cell that are read: all its genes, where training took a part of them
LINEAGES = {  # of the published labels, of which six are of T cells
    "CD14+ Monocyte": "monocyte",
    "CD19+ B": "B",
    "CD34+": "CD34+",
    "CD4+/CD25 T Reg": "T",
    "CD4+/CD45RA+/CD25- Naive T": "T",
    "CD4+/CD45RO+ Memory": "T",
    "CD56+ NK": "NK",
    "CD8+ Cytotoxic T": "T",
    "CD8+/CD45RA+ Naive Cytotoxic": "T",
    "Dendritic": "dendritic",
}
_LEAST = 800  # steps below which the model is still at the genes' means


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
    from elute.cells.activations import prepare
    from elute.cells.pipeline import alone, finish
    from elute.models.cells.cellfile import open_cells

    plan = demo_plan(Path(folder), config)
    cells = open_cells(plan.data, plan.cells)
    if config.steps < _LEAST:
        console.warn(f"in fewer than {_LEAST} steps the model does not get past the genes' means")
    with alone(plan.output), few_threads():
        settings = PretrainConfig(seed=config.seed, steps=config.steps)
        trained = pretrain(cells, plan.output / "model", settings, anew=config.anew)
        source = prepare(plan, opened=(cells, _with_split(cells, config.seed)))
        found = finish(source, plan)
    keys = ("parameters", "genes", "steps", "cells", "held_out", "verdict", "ridge")
    summary = {key: trained.summary[key] for key in keys} | {"features": found}
    run.record(plan.output, "demo", config.model_copy(update={"anew": False}), inputs=cells.source, summary=summary)
    return Artifact("demo", plan.output, {**summary, "named": named(plan.output)})


def demo_plan(folder: Path, config: DemoConfig) -> Plan:
    """The settings of the run."""
    sections: dict[str, Section] = {
        "cells": CellsConfig(matrix="raw", accept_normalised=True, cell_type_key="bulk_labels", seed=config.seed),
        "model": ModelConfig(model=folder / "model", device="cpu", precision="fp32", batch_size=32, max_length=MOST),
        "sites": SitesConfig(layers="last"),
        "capture": CaptureConfig(recapture=config.anew),
        "training": FeatureConfig(
            steps=STEPS, d_sae=str(FEATURES), k=str(K), train_batch_size=512, seed=config.seed, device="cpu"
        ),
        "validation": ValidationConfig(controls="full"),
    }
    return Plan.of(demo_file(), folder, sections)


def named(folder: Path) -> list[dict[str, Any]]:
    """Of each cell type the feature that follows it best, chosen on training cells, with what held-out cells say."""
    import polars as pl

    groups = pl.read_parquet(folder / "feature_groups.parquet").filter(pl.col("column") == "label")
    best = (
        groups.filter(pl.col("auroc_shown").is_not_null())
        .sort("auroc", descending=True)
        .unique("level", keep="first", maintain_order=True)
    )
    features = pl.read_parquet(folder / "features.parquet").select("feature", "kind", "top_genes")
    return best.join(features, on="feature").sort("level").to_dicts()


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


def show(answer: dict[str, Any]) -> str:
    """Say what was done, what came of it, and what did not."""
    from elute.cells.controls import lines as control_lines
    from elute.cells.validating import lines as database_lines

    folder, cells, found = answer["path"], answer["cells"], answer["features"]
    read = f"{answer['genes']} genes of {cells['train']} blood cells, and judged on {cells['test']} more"
    told = [
        "",
        f"A model of {answer['parameters']:,} parameters learnt, in {answer['steps']:,} steps, to tell a hidden value",
        f"from the cell's other genes: {read}.",
        "(The cells are log-normalised. Values are quantiles within a cell: those of counts, but for ties.)",
        "",
        *table_lines(answer["held_out"]),
        "",
        answer["verdict"],
        "",
        f"Its last feed-forward part, taken apart into {FEATURES} features of which {K} fire at a time:",
        "",
        *control_lines(found["controls"]),
        "",
        "What its features' genes have in common, by the databases that come with elute:",
        "",
        *database_lines(found["databases"], folder),
        "",
        "The best feature of each type, chosen on training cells; its genes by cell-level specificity",
    ]
    for row in answer["named"]:
        genes = " ".join(row["top_genes"][:6])
        held = f"AUROC {row['auroc']:.2f}, held out {row['auroc_shown']:.2f}"
        told.append(f"  {row['level']:<12}{row['feature']:>5}  {held}  {genes}")
    return "\n".join([*told, "", *_meaning(found["controls"]), "", *_places(folder)])


def _meaning(controls: dict[str, Any]) -> list[str]:
    """What the numbers bear, and what they do not."""
    follow = next(iter(controls.values()))["follow"]
    ours, untrained, plain, genes = (
        follow[name]["follow"] for name in ("features", "random weights", "neurons", "genes")
    )
    told = ["What holds: the model uses the other genes of a cell, as far as it beats the gene's mean."]
    if ours is None:
        return [*told, "No type has enough cells for more."]
    if ours > untrained:
        told.append("Training matters: random weights and permuted labels give fewer features that follow a type.")
    share = "A larger" if plain / follow["neurons"]["columns"] > ours / follow["features"]["columns"] else "A smaller"
    return [
        *told,
        f"What does not: that features are better than what they are made of. {share} share of the neurons follows",
        f"a type, and so do {genes:,} single genes. High explained variance is no evidence: a dictionary of random",
        "weights has it as well.",
        "Types with fewer than 10 cells on a side are not judged at all.",
    ]


def _places(folder: str) -> list[str]:
    return [
        "Where to look:",
        f"  {folder}/dashboard.html    in a browser",
        f"  elute arrays head {folder}/activations",
        f"  elute cells export --results {folder} --h5ad features.h5ad",
        "  elute cells run-pipeline --data FILE.h5ad --output results/mine    the same for your own cells",
        "  elute cells pretrain --data FILE.h5ad --donor-key DONOR --output FOLDER    and for a model of your own",
    ]


def _with_split(cells: Cells, seed: int) -> str:
    """Give the cells the split that the model was trained under, and their lineages; return the split's digest.

    The model saw training cells alone: those that pretraining kept to choose by, too, show what others chose.
    """
    import polars as pl

    from elute.base import files
    from elute.cells.corpus import SPLITS, split_cells

    drawn = split_cells(cells, seed=seed)
    training = SPLITS.index("train")
    names = pl.Series("split", ["train" if i == training else "test" for i in drawn.tolist()], dtype=pl.String)
    lineage = pl.col("label").replace_strict(LINEAGES, return_dtype=pl.String)
    cells.metadata = cells.metadata.with_columns(names, lineage, group=pl.col("sample_id"))
    return files.digest_bytes(drawn.tobytes())
