"""The graph of a predicted gene in a cell of a run: transcoders are trained, edges checked, and what cannot be asked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
import torch

from elute.base.errors import ConfigError, DataError, EluteError, GuardError
from elute.cells import reopening
from elute.cells.feature_settings import FeatureConfig
from elute.cells.graph_inputs import open_cells_run, questions
from elute.cells.graph_settings import CellGraphConfig, TranscodersConfig
from elute.cells.graphs import graph, show
from elute.cells.pipeline import Stages, run_pipeline
from elute.cells.plan import Plan
from elute.cells.settings import ModelConfig, SitesConfig
from elute.cells.transcoders import FRONT, Hiding, Job, transcoders
from elute.cli.main import main
from elute.dictionaries.files import NAME, load_dictionary
from elute.graphs.read import read_graph
from elute.graphs.schema import check_graph_file
from elute.graphs.settings import GraphConfig
from elute.models.cells.cellfile import CellsConfig

pytestmark = pytest.mark.usefixtures("one_thread")
TINY = TranscodersConfig(expansion=2, k=4, steps=30, batch_rows=256)
FEW = GraphConfig(max_features=80, ablated=6, checked=40)


@pytest.fixture(scope="module")
def run(cells_file: Path, model_folder: Path) -> Path:
    sections: dict[str, Any] = {
        "cells": CellsConfig(donor_key="donor"),
        "model": ModelConfig(model=model_folder, device="cpu"),
        "sites": SitesConfig(layers="last"),
        "training": FeatureConfig(steps=5, d_sae="32", k="4", train_batch_size=256, device="cpu"),
    }
    folder = cells_file.parent / "run"
    run_pipeline(Plan.of(cells_file, folder, sections), Stages(validation=True, dashboard=True))
    return folder


@pytest.fixture(scope="module")
def opened(run: Path) -> reopening.Reopened:
    return open_cells_run(run, data=None, model=None, device="cpu")[0]


def a_type(opened: reopening.Reopened) -> str:
    cells = opened.recorded.run.cells
    return str(cells.filter(pl.col("split") == "test")["label"].drop_nulls()[0])


def common(opened: reopening.Reopened) -> str:
    """A gene that every cell has."""
    return str(opened.genes["symbol"][0])


def test_transcoders_are_trained_and_the_graph_is_written_checked_and_used_again(
    run: Path, opened: reopening.Reopened
) -> None:
    kind, gene = a_type(opened), common(opened)
    config = CellGraphConfig(cell_type=kind, others=1, looked=20)
    made = graph(run, gene=gene.lower(), config=config, graph=FEW, transcoders=TINY, device="cpu")
    folder, summary = made.path, made.summary
    assert folder.parent == run / "graphs"
    assert (summary["gene"], summary["type"], summary["split"]) == (gene, kind, "test")
    assert list(summary["graphs"]) == ["transcoders of single layers", "cross-layer transcoder"]
    for name in (folder.name, f"{folder.name}-clt"):
        content = check_graph_file(folder / f"{name}.json")
        words = content["metadata"]["prompt_tokens"]
        assert words[0] == FRONT
        assert [word for word in words if word.endswith("(hidden)")] == [f"{gene} (hidden)"]
        assert read_graph(folder / f"{name}.json").graph.nodes.filter(pl.col("kind") == "logit").height == 1
    for page in ("graph.html", "graph-clt.html"):
        assert "Content-Security-Policy" in (folder / page).read_text()
    checks = json.loads((folder / "checks.json").read_text())
    for one in (checks, checks["others"][0]):
        assert 0 < one["edges"]["edges"] <= one["links"]
        assert one["edges"]["largest"] < 1e-4
        assert len(one["elsewhere"]["inputs"]) == 1
        assert one["agreement"]["features"] == 6
    assert checks["left_out"]["features"] == checks["fired"] - 80
    assert [one["name"].endswith("shuffled") for one in checks["others"]] == [False, True, True]
    assert "checked by interventions" in show({"path": str(folder), **summary})
    assert not (run / "transcoders" / "rows").exists()
    assert {path.name for path in (run / "transcoders" / "layers").iterdir()} == {str(i) for i in range(2)}
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    again = graph(run, gene=gene, config=config, graph=FEW, device="cpu")  # other settings of what is there already
    assert again.summary == {**summary, "reused": True}
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before


def test_the_typical_cell_of_a_type_is_asked_and_its_value_hidden(opened: reopening.Reopened) -> None:
    kind, gene = a_type(opened), common(opened)
    asked = questions(opened, gene, CellGraphConfig(cell_type=kind, others=3))
    assert len(asked) == 4
    name = opened.genes["gene"][opened.genes["symbol"].to_list().index(gene)]
    cells = opened.recorded.run.cells
    values = {}
    for batch, frame in opened.model.batches(opened.cells, every=True):
        rows = frame.filter(pl.col("token") == name)
        values |= dict(zip(rows["sample_id"].cast(pl.String), rows["value"], strict=True))
        del batch
    held = cells.filter((pl.col("split") == "test") & (pl.col("label") == kind))["cell"].to_list()
    middle = float(np.median([values[cell] for cell in held if cell in values]))
    apart = [abs(values[one.cell] - middle) for one in asked]
    assert apart == sorted(apart)
    assert apart[0] == min(abs(values[cell] - middle) for cell in held if cell in values)
    one = asked[0]
    assert one.values[one.position] == values[one.cell]
    assert one.batch["generated"].sum() == 1
    # What is hidden changes nothing: another value gives the same prediction.
    other = {**one.batch, "values": one.batch["values"].clone()}
    other["values"][0, one.position] += 7
    assert torch.equal(opened.model(one.batch).expr_preds, opened.model(other).expr_preds)
    assert one.symbols[one.position] == gene


def test_a_cell_by_name_and_what_was_seen_in_training(run: Path, opened: reopening.Reopened) -> None:
    cells = opened.recorded.run.cells
    cell = cells.filter(pl.col("split") == "train")["cell"][0]
    config = CellGraphConfig(cell=cell, others=0, looked=10, dictionaries="transcoder")
    made = graph(run, gene=common(opened), config=config, graph=FEW, transcoders=TINY, device="cpu")
    assert (made.summary["cell"], made.summary["split"]) == (cell, "train")
    assert made.path.name.endswith("-transcoder")
    assert "saw this cell" in show({"path": str(made.path), **made.summary})


def test_rows_hold_hidden_values_and_the_cells_own_token(opened: reopening.Reopened) -> None:
    hiding = Hiding(opened.model, 0.3, 0)
    cells = opened.cells.subset([0, 1, 2])
    for batch, frame in hiding.batches(cells):
        assert batch["generated"].sum() > 0
        shares = batch["generated"].sum(1) / (batch["keep"].sum(1) - 1)
        assert (shares - 0.3).abs().max() < 0.05
        assert not batch["generated"][:, 0].any()
        assert frame["token"].eq(FRONT).sum() == 3
        assert len(hiding.capture(batch, ["blocks.0.hook_mlp_in"])["blocks.0.hook_mlp_in"]) == len(frame)


def test_live_rows_give_the_same_kinds_of_transcoders(run: Path, tmp_path: Path) -> None:
    opened, layers = open_cells_run(run, data=None, model=None, device="cpu")
    job = Job(opened, layers, TINY.model_copy(update={"store_mb": 0, "steps": 3, "retrain": True}))
    job.record("clt").unlink(missing_ok=True)
    (one,) = transcoders(job, ["clt"])
    assert one.spec.kind == "clt"  # type: ignore[union-attr]
    assert "live" in one.spec.source  # type: ignore[union-attr]
    assert not (run / "transcoders" / "rows").exists()
    assert load_dictionary(run / "transcoders" / "clt").spec.source == one.spec.source  # type: ignore[union-attr]


def test_transcoders_of_another_model_are_refused(run: Path) -> None:
    opened, layers = open_cells_run(run, data=None, model=None, device="cpu")
    job = Job(opened, layers, TINY)
    transcoders(job, ["transcoder"])
    with torch.no_grad():
        next(opened.model.module.parameters()).add_(1.0)
    with pytest.raises(GuardError, match="has other weights"):
        transcoders(job, ["transcoder"])


def test_damaged_and_misplaced_transcoders_are_refused_in_one_line(
    run: Path, cells_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    mine = Path(shutil.copytree(run, tmp_path / "run"))
    opened, layers = open_cells_run(mine, data=cells_file, model=None, device="cpu")
    job = Job(opened, layers, TINY)
    transcoders(job, ["transcoder"])
    first, second = (home / NAME for home in job.homes("transcoder"))
    words = ["cells", "graph", "--results", str(mine), "--data", str(cells_file), "--gene", common(opened)]
    words += ["--cell-type", a_type(opened), "--dictionaries", "transcoder"]

    def refused() -> str:
        assert main(words) != 0
        return capsys.readouterr().err.strip().splitlines()[-1]

    shutil.copyfile(first, second)
    assert f"{second.parent}: stands for {layers.writes[0]}, and not for {layers.writes[1]}" in refused()
    second.write_bytes(second.read_bytes()[:2000])
    assert f"error: {second}: " in refused()


def test_a_run_whose_model_is_gone(
    run: Path, cells_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["cells", "graph", "--results", str(run), "--data", str(cells_file), "--model", str(tmp_path / "none")]
    assert main([*words, "--gene", "X", "--cell-type", "Y"]) != 0
    assert str(tmp_path / "none") in capsys.readouterr().err.strip().splitlines()[-1]


@pytest.mark.parametrize(
    ("gene", "config", "error", "text"),
    [
        ("NOSUCHGENE", {"cell_type": "*"}, ConfigError, "the model knows no gene 'NOSUCHGENE'"),
        ("*", {"cell": "nobody"}, ConfigError, "there is no cell 'nobody'"),
        ("*", {"cell_type": "neither"}, ConfigError, "there is no cell type 'neither'"),
    ],
)
def test_what_cannot_be_asked(
    run: Path, opened: reopening.Reopened, gene: str, config: dict[str, Any], error: type[EluteError], text: str
) -> None:
    gene = common(opened) if gene == "*" else gene
    config = {name: a_type(opened) if value == "*" else value for name, value in config.items()}
    with pytest.raises(error, match=text):
        graph(run, gene=gene, config=CellGraphConfig(**config), graph=FEW, transcoders=TINY, device="cpu")


def test_a_gene_that_the_cell_does_not_have(run: Path, opened: reopening.Reopened) -> None:
    cells = opened.recorded.run.cells
    batch, frame = next(iter(opened.model.batches(opened.cells.subset([0]), every=True)))
    del batch
    there = set(frame["token"].drop_nulls())
    missing = next(s for g, s in zip(opened.genes["gene"], opened.genes["symbol"], strict=True) if g not in there)
    with pytest.raises(DataError, match=f"has no {missing} among the genes"):
        graph(run, gene=missing, config=CellGraphConfig(cell=cells["cell"][0]), graph=FEW, device="cpu")


def test_the_command_says_what_is_missing_in_one_line(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["cells", "graph", "--results", str(run), "--gene", "X"]) != 0
    told = capsys.readouterr().err.strip().splitlines()
    assert "give --cell or --cell-type" in told[-1]
    assert main(["cells", "graph", "--results", str(run.parent), "--gene", "X", "--cell", "c"]) != 0
    assert "is not the folder of a run" in capsys.readouterr().err
