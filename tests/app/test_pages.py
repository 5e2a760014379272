"""Every page on a whole run of made cells, beside what the same functions say without a page."""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import polars as pl
import pytest
from tests.app.conftest import Open, wait, well, words

from elute.analysis.findings import open_run
from elute.app import jobs
from elute.app.comparing import ALIKE
from elute.cells import mock
from elute.cells.feature_settings import FeatureConfig, ValidationConfig
from elute.cells.pipeline import run_pipeline
from elute.cells.plan import Plan
from elute.cells.settings import ModelConfig, SitesConfig
from elute.models.cells.cellfile import CellsConfig
from elute.validation.settings import DatabaseConfig


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run on made cells, and a copy beside it."""
    place = tmp_path_factory.mktemp("cells")
    mock.write_cells(place / "cells.h5ad")
    mock.write_model(place / "model")
    sections: dict[str, Any] = {
        "cells": CellsConfig(donor_key="donor"),
        "model": ModelConfig(model=place / "model", device="cpu"),
        "sites": SitesConfig(layers="last"),
        "training": FeatureConfig(steps=20, d_sae="32", k="4", train_batch_size=256, device="cpu"),
        "validation": ValidationConfig(controls="none"),
        "databases": DatabaseConfig(sources="markers", null="5", least_z=0.5, top_n_genes=60),
    }
    run_pipeline(Plan.of(place / "cells.h5ad", place / "run", sections))
    shutil.copytree(place / "run", place / "other")
    return place / "run"


@pytest.fixture
def results(finished: Path) -> Path:
    return finished


@pytest.fixture
def own(finished: Path, tmp_path: Path) -> Path:
    """A copy to take things away from."""
    shutil.copytree(finished, tmp_path / "runs" / "own")
    return tmp_path / "runs" / "own"


def test_the_whole_lab_and_its_sites(results: Path, show: Open) -> None:
    from streamlit.testing.v1 import AppTest

    from elute.app import session
    from elute.app.script import lab

    session.begin(results)
    page = well(AppTest.from_file(lab.__file__ or "", default_timeout=120).run())
    assert page.header[0].value == "Explore"
    assert page.sidebar.selectbox[0].options == open_run(results).sites
    assert page.sidebar.text[0].value == "run"


def test_explore_asks_the_table(results: Path, show: Open) -> None:
    frame = open_run(results).features.frame
    page = show(results, "explore")
    assert f"{len(frame)} rows; 1 to 32 are shown" in words(page)
    assert page.dataframe[0].value["feature"].tolist() == frame["feature"].to_list()
    assert page.dataframe[0].value.columns[:3].tolist() == ["feature", "name", "kind"]
    well(page.multiselect(key="by Features").select("frequency").run())
    well(page.number_input(key="low Features frequency").set_value(0.1).run())
    well(page.selectbox(key="sort Features").select("frequency").run())
    kept = frame.filter(pl.col("frequency") >= 0.1).sort("frequency", descending=True)
    assert page.dataframe[0].value["feature"].tolist() == kept["feature"].to_list()
    assert set(page.selectbox(key="table").options) >= {"Features", "Cells", "Donors", "Validation: markers"}


def test_a_feature_is_what_the_findings_say(results: Path, show: Open) -> None:
    run = open_run(results)
    number = int(run.features.top(1)["feature"][0])
    feature = run.feature(number)
    page = show(results, "explore", view="One feature", feature=number)
    shown = [each.value for each in page.dataframe]
    assert shown[0]["symbol"].tolist() == feature.genes["symbol"].to_list()
    assert shown[1]["cell"].tolist() == feature.cells["cell"].to_list()
    assert sorted(shown[2]["auroc"].dropna()) == sorted(feature.tests["auroc"].drop_nulls())
    assert {each.label: each.value for each in page.metric}["Cells"] == f"{feature.row['cells']:,}"
    summary = json.loads((results / "validation" / "summary.json").read_text())
    null = summary["databases"]["markers"]["null"]
    assert f"matched lists {null['mean']:.1f} ({null['low']:.0f}–{null['high']:.0f})" in words(page)
    table = pl.read_parquet(results / "validation" / "markers.parquet").filter(pl.col("feature") == number)
    terms = [each for each in shown if "null_p" in each.columns]
    assert (not terms and table.is_empty()) or terms[0]["term"].tolist() == table.sort("p")["term"].to_list()
    well(page.number_input(key="feature").set_value(99_999).run())
    assert [each.value for each in page.error] == [f"` {results.resolve()}: there is no feature 99999 in 32 features `"]


def test_terms_stand_beside_their_nulls(own: Path, show: Open) -> None:
    path = own / "validation" / "markers.parquet"
    frame = pl.read_parquet(path)
    row = dict.fromkeys(frame.columns) | {
        "feature": 3,
        "term": "T",
        "label": "a set",
        "overlap": 4,
        "p": 0.01,
        "null_p": 0.3,
        "q": 0.4,
        "q_plain": 0.02,
    }
    pl.concat([frame.filter(pl.col("feature") != 3), pl.DataFrame([row], schema=frame.schema)]).write_parquet(path)
    page = show(own, "explore", view="One feature", feature=3)
    shown = next(each.value for each in page.dataframe if "null_p" in each.value.columns)
    assert shown[["term", "p", "null_p", "q", "q_plain"]].to_numpy().tolist() == [["T", 0.01, 0.3, 0.4, 0.02]]


@pytest.mark.parametrize("name", ["features", "feature_groups"])
def test_a_missing_table_is_one_line(own: Path, show: Open, name: str) -> None:
    (own / f"{name}.parquet").unlink()
    page = show(own, "explore", view="One feature", feature=1)
    assert len(page.error) == 1
    assert page.error[0].value.startswith(f"` {own}: holds no {name}.parquet. Type: elute cells extract")
    rest = show(own, "explore")
    assert not rest.error
    assert ("Features" in rest.selectbox(key="table").options) is (name != "features")


def test_the_explorer_is_caged(results: Path, own: Path, show: Open, tmp_path: Path) -> None:
    page = show(results, "explore", view="Explorer")
    code = page.get("iframe")[0].proto.srcdoc
    assert re.findall('<iframe [^>]*sandbox="([^"]*)"', code) == ["allow-scripts allow-downloads"]
    assert "<script" not in code
    assert "&lt;script" in code
    (own / "dashboard.html").unlink()
    assert "Explorer" not in show(own, "explore").get("button_group")[0].options
    (tmp_path / "secret.html").write_text("secret")
    (own / "dashboard.html").symlink_to(tmp_path / "secret.html")
    sly = show(own, "explore", view="Explorer")
    assert "is a link that leads out of the run's folder" in sly.error[0].value
    assert not sly.get("iframe")


def test_enrich_says_what_the_command_says(results: Path, show: Open) -> None:
    from elute.validation.enrich import enrich

    genes = ["CD3D", "CD3E", "TRAC", "CD2"]
    page = show(results, "enrich")
    page.text_area[0].input(", ".join(genes))
    page.multiselect(key="sources").set_value(["markers"])
    wait(well(page.button[0].click().run()), "enrichment")
    direct = enrich(genes, DatabaseConfig(sources="markers")).summary["databases"]["markers"]
    table = page.dataframe[0].value
    assert table["term"].tolist() == [row["term"] for row in direct["rows"]]
    for name in ("p", "null_p", "q", "q_plain"):
        assert table[name].tolist() == [row[name] for row in direct["rows"]]
    assert direct["background"] in words(page)


def test_enrich_can_be_cancelled(results: Path, show: Open) -> None:
    page = show(results, "enrich")
    page.text_area[0].input("CD3D CD3E TRAC")
    well(page.button[0].click().run())
    job = page.session_state["enrichment"]
    assert page.get("progress")
    well(next(each for each in page.button if each.label == "Cancel").click().run())
    assert job.wait(20)
    assert job.cancelled
    assert job._process.poll() is not None
    well(page.run())
    assert [each.value for each in page.info] == ["Cancelled."]
    assert not page.dataframe
    page.text_area[0].input("CD3D")
    well(page.button[0].click().run())
    assert "Name 2 genes or more." in [each.value for each in page.info]


def test_a_run_found_again_in_itself(results: Path, show: Open) -> None:
    page = show(results, "compare")
    assert page.selectbox(key="other run").options == ["other"]
    counts = page.dataframe[0].value
    assert counts["a"].tolist() == counts["b"].tolist()
    assert "with a term of elute's own markers: matched lists" in counts["what"].tolist()
    wait(well(page.button[0].click().run()), "comparison")
    table = page.dataframe[1].value
    assert table["feature"].tolist() == table["other"].tolist()
    assert table["cosine"].min() > 0.999
    alive = open_run(results).features.frame["alive"].sum()
    told = {each.label: each.value for each in page.metric}
    assert told["Found again: in the other run"] == str(alive)
    assert told["Found again: random directions"] == str(int((table["random"] >= ALIKE).sum()))
    assert table["random"].max() < 0.95


def test_other_sites_are_not_compared(results: Path, own: Path, show: Open) -> None:
    from elute.dictionaries.dictionary import Dictionary
    from elute.dictionaries.files import save_dictionary
    from elute.dictionaries.spec import DictionarySpec

    shutil.copytree(own, own.parent / "wide")
    spec = DictionarySpec(reads={"a": 7}, writes={"a": 7}, n_features=32, k=4)
    save_dictionary(Dictionary(spec), own.parent / "wide" / "sae_final.pt")
    page = show(own, "compare")
    wait(well(page.button[0].click().run()), "comparison")
    assert "writes a of width 7, and this run" in page.error[0].value


def test_the_monitor_follows_what_is_written(tmp_path: Path, show: Open) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps({"schema": 1, "stages": {}}))
    assert "nothing was trained here yet" in show(folder, "monitor").error[0].value
    lines = folder / "training_metrics.jsonl"
    lines.write_text('{"step": 0, "loss": 1.0, "l0": 3}\n{"step": 50, "loss": 0.5, "l0": 4}\n{"step": 100, "lo')
    page = show(folder, "monitor")
    assert "2 records, up to step 50; looked at every 2 s" in words(page)
    assert len(page.get("vega_lite_chart")) == 2
    with lines.open("a") as handle:
        handle.write('ss": 0.25, "l0": null}\nnonsense\n[1]\n')
    well(page.run())
    assert "3 records, up to step 100" in words(page)
    (folder / "training_metrics.json").write_text("{}")
    well(page.run())
    assert "3 records, up to step 100; training has ended" in words(page)


def test_steering_says_what_the_command_says(results: Path, show: Open) -> None:
    from elute.cells.steering import show as said
    from elute.cells.steering import steer

    number = int(open_run(results).features.top(1)["feature"][0])
    page = show(results, "steer")
    page.number_input(key="steered").set_value(number)
    page.number_input(key="steer cells").set_value(12)
    well(page.number_input(key="steer controls").set_value(2).run())
    wait(well(page.button[0].click().run()), "steer")
    assert not page.error, page.error[0].value
    direct = steer(results, feature=number, times=2.0, cells=12, controls=2)
    assert direct.summary["reused"]  # the page asked the very same
    text = said({"path": str(direct.path), **direct.summary})
    assert words(page).splitlines()[1:-1] == text.splitlines()[:-1]
    table = pl.read_parquet(direct.path).sort("q", nulls_last=True, maintain_order=True)
    kind = page.selectbox(key="steer kind").value
    assert page.dataframe[0].value["change"].tolist() == table.filter(pl.col("kind") == kind)["change"].to_list()[:100]
    well(page.number_input(key="steered").set_value(99_999).run())
    wait(well(page.button[0].click().run()), "steer")
    assert "there is no feature 99999" in page.error[0].value


def test_perturbing_and_its_errors(results: Path, show: Open) -> None:
    gene = pl.read_parquet(results / "genes.parquet")["symbol"][119]  # no cell is without it
    page = show(results, "perturb")
    well(page.button[0].click().run())
    assert [each.value for each in page.info] == ["Name a gene."]
    page.number_input(key="perturb cells").set_value(12)
    page.number_input(key="perturb controls").set_value(2)
    well(page.text_input(key="gene").input(":red[x]").run())
    wait(well(page.button[0].click().run()), "perturb")
    assert page.error[0].value.startswith("` ")
    assert "knows no gene ':red[x]'" in page.error[0].value
    well(page.text_input(key="gene").input(gene).run())
    wait(well(page.button[0].click().run()), "perturb")
    assert not page.error, page.error[0].value
    assert f"{gene} taken away in " in words(page)
    assert page.dataframe[0].value["change"].notna().any()


def test_two_pieces_of_work_of_one_page_are_one(results: Path, show: Open) -> None:
    page = show(results, "enrich")
    page.text_area[0].input("CD3D CD3E TRAC")
    well(page.button[0].click().run())
    first = page.session_state["enrichment"]
    page.text_area[0].input("CD3D CD3E TRAC")
    well(page.button[0].click().run())
    assert page.session_state["enrichment"] is not first
    assert first.cancelled
    jobs.stop_all()
