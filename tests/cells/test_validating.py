"""What databases say of a run: from its folder alone, again only where something changed, and names in its table."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from elute.analysis.findings import open_run
from elute.base.errors import DataError
from elute.cells import mock
from elute.cells.feature_settings import FeatureConfig, ValidationConfig
from elute.cells.pipeline import run_pipeline
from elute.cells.plan import Plan
from elute.cells.settings import ModelConfig, SitesConfig
from elute.cells.validating import validate
from elute.models.cells.cellfile import CellsConfig
from elute.validation import fetching
from elute.validation.settings import DatabaseConfig

CONFIG = DatabaseConfig(sources="my-sets,reactome", null="5", least_z=2.0)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run on made cells."""
    place = tmp_path_factory.mktemp("cells")
    mock.write_cells(place / "cells.h5ad")
    mock.write_model(place / "model")
    sections: dict[str, Any] = {
        "cells": CellsConfig(donor_key="donor"),
        "model": ModelConfig(model=place / "model", device="cpu"),
        "sites": SitesConfig(layers="last"),
        "training": FeatureConfig(steps=20, d_sae="32", k="4", train_batch_size=256, device="cpu"),
        "validation": ValidationConfig(controls="full"),
        "databases": DatabaseConfig(sources="markers", null="5"),
    }
    run_pipeline(Plan.of(place / "cells.h5ad", place / "run", sections))
    return place / "run"


@pytest.fixture
def results(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the run, and a library of gene sets over its genes."""
    monkeypatch.setenv("ELUTE_DATA", str(tmp_path / "data"))
    folder = tmp_path / "run"
    shutil.copytree(finished, folder)
    symbols = pl.read_parquet(folder / "genes.parquet")["symbol"].to_list()
    parts = [symbols[i : i + 8] for i in range(0, len(symbols) - 8, 6)]
    lines = (f"SET_{i}\tabout\t" + "\t".join(part) for i, part in enumerate(parts))
    (tmp_path / "sets.gmt").write_text("\n".join(lines) + "\n")
    fetching.import_named("my-sets", [str(tmp_path / "sets.gmt")], version="1")
    return folder


def test_it_asks_names_and_writes_what_the_formats_say(results: Path) -> None:
    before = json.loads((results / "validation" / "summary.json").read_text())
    told = validate(results, CONFIG).summary["sites"]
    site = next(iter(told.values()))
    record = site["databases"]["my-sets"]
    assert record["status"] == "run"
    assert set(record["controls"]) == {"permuted cells", "random weights", "embedding layer"}
    assert record["features"] == 32
    assert record["null"]["draws"] == 5
    assert record["again"] is not None
    assert "measured in three of the cells that choose" in record["background"]
    assert record["by_rank"] >= 0
    assert record["controls"]["permuted cells"]["ranked"] == 32
    assert not (results / "validation" / ".ranked").exists()
    assert site["databases"]["reactome"]["status"] == "not run"
    summary = json.loads((results / "validation" / "summary.json").read_text())
    controls = before.keys() - {"databases", "kin"}
    assert "follow" in controls
    assert {name: summary[name] for name in controls} == {name: before[name] for name in controls}
    assert summary["databases"].keys() == {"my-sets", "reactome"}
    table = pl.read_parquet(results / "validation" / "my-sets.parquet")
    for name in (
        "feature",
        "term",
        "overlap",
        "expected",
        "q",
        "q_by",
        "q_storey",
        "odds",
        "null_p",
        "q_shown",
        "auc",
        "p_rank",
        "q_rank",
        "genes",
    ):
        assert name in table.columns
    features = open_run(results).features.frame
    assert features["name"].null_count() == 0
    assert features["name_confidence"].is_between(0, 1).all()
    page = (results / "validation" / "report.html").read_text()
    assert "my-sets 1" in page


def test_it_is_done_again_only_where_something_changed(results: Path, capsys: pytest.CaptureFixture[str]) -> None:
    first = validate(results, CONFIG).summary
    kept = {
        path: path.read_bytes() for path in (results / "validation").iterdir() if path.suffix in (".parquet", ".json")
    }
    capsys.readouterr()
    assert validate(results, CONFIG).summary == first
    assert "asked already" in capsys.readouterr().err
    (results / "validation" / "report.html").unlink()
    validate(results, CONFIG)
    assert "my-sets 1:" not in capsys.readouterr().err  # the page alone was missing
    assert {path: path.read_bytes() for path in kept} == kept
    changed = validate(results, CONFIG.model_copy(update={"fdr": 0.2})).summary
    assert next(iter(changed["sites"].values()))["databases"]["my-sets"]["status"] == "run"


def test_folders_that_are_no_run_or_lack_what_is_needed(results: Path, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="there is no such folder"):
        validate(tmp_path / "absent", CONFIG)
    shutil.rmtree(results / "codes")
    with pytest.raises(DataError, match="keeps no codes"):
        validate(results, CONFIG)
