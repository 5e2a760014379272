"""The page of tissue on a small run: what it shows is what the run's tables say, and other codes can be explained."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest
from streamlit.testing.v1 import AppTest
from tests.app.conftest import Open, markdown, wait, well, words
from tests.reports import tissue_made
from tests.reports.test_tissue_pixels import follow
from tests.tissue.test_pipeline import planned
from tests.tissue.tiles_made import GENES, tiles, write_files

from elute.app import session, tissue_runs
from elute.app.tissue_pictures import Patch, laid_over
from elute.base import run as records
from elute.base.errors import DataError, GuardError
from elute.reports.tissue.token_maps import LOWERS, RAISES
from elute.reports.tissue.verdicts import MODELS
from elute.tissue.pipeline import run_tissue
from elute.tissue.reopening import recorded_plan, reopened_tiles

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A whole run, two of whose four genes are explained."""
    config = write_files(tmp_path_factory.mktemp("tissue"))
    run_tissue(planned(config, config.parent / "runs" / "mine", crp={"gene": ("RED1", "BLUE1"), "curve_samples": 0}))
    return config.parent / "runs" / "mine"


@pytest.fixture
def own(finished: Path, tmp_path: Path) -> Path:
    """A copy to change."""
    shutil.copytree(finished, tmp_path / "runs" / "own")
    return tmp_path / "runs" / "own"


def gene(page: AppTest, run: Path, name: str) -> AppTest:
    box = page.selectbox(key=f"tissue gene {run.resolve()}")
    place = box.options.index(name)
    return well(box.select_index(place).run())


def charts(page: AppTest) -> list[Any]:
    return page.get("vega_lite_chart")


def test_scores_stand_beside_baselines(finished: Path, show: Open) -> None:
    page = gene(show(finished, "tissue"), finished, "RED1")
    table = page.dataframe[0].value.set_index("model")
    assert list(table.index) == list(MODELS.values())
    own = pl.read_parquet(finished / "heads" / "metrics.parquet").filter(gene="RED1").row(0, named=True)
    beside = pl.read_parquet(finished / "heads" / "baselines.parquet").filter(gene="RED1")
    rows = {"sparse": own, **{row["model"]: row for row in beside.iter_rows(named=True)}}
    for name, title in MODELS.items():
        told = f"{rows[name]['r2']:.2f}".replace("-", "−").replace("−0.00", "0.00")
        assert table.loc[title, "R² (interval)"].startswith(told)
    assert table.loc["Mean predictor", ["Pearson", "Spearman", "calibration slope"]].tolist() == ["–"] * 3
    assert table.loc["Sparse codes", "calibration slope"] == f"{own['calibration_slope']:.2f}"
    assert "– is not defined: where all samples of a fold are predicted alike, as by the mean predictor" in words(page)
    assert f"R² on held-out patients is {own['r2']:.2f}" in words(page)


def test_codes_have_coefficients_with_intervals(finished: Path, show: Open) -> None:
    page = gene(show(finished, "tissue"), finished, "BLUE1")
    well(page.number_input(key="tissue most").set_value(3).run())
    table = page.dataframe[1].value
    true = pl.read_parquet(finished / "heads" / "coefficients.parquet").filter(gene="BLUE1").filter(pl.col("rank") <= 3)
    true = true.sort("coefficient", descending=True)
    assert table["code"].tolist() == true["code"].to_list()
    for name in ("coefficient", "low", "high"):
        assert table[name].tolist() == pytest.approx(true[name].to_list())
    shares = pl.read_parquet(finished / "relevance" / "BLUE1.parquet")
    both = true.join(shares.select("code", "share"), on="code", how="left", maintain_order="left")["share"]
    assert table["share of relevance"].fillna(-1).tolist() == pytest.approx(both.fill_null(-1).to_list())


def test_tiles_are_the_references_with_their_maps(finished: Path, show: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[tuple[Any, Any]] = []
    monkeypatch.setattr(
        "elute.app.tissue_parts.laid_over", lambda tile, values, **_: drawn.append((tile, values)) or tile
    )
    page = gene(show(finished, "tissue"), finished, "RED1")
    code = page.selectbox(key="tissue code Raises the prediction RED1").value
    refs = pl.read_parquet(finished / "refs" / "RED1.parquet")
    refs = refs.filter(kind="relmax", target="sum", sign="+", code=code).sort("rank")
    index = pl.read_parquet(finished / "token_maps" / "index.parquet").filter(gene="RED1", code=code)
    pictures, frame, _ = tiles()
    place = {name: i for i, name in enumerate(frame["spot"])}
    last = drawn[-len(refs) :]
    for (tile, values), row in zip(last, refs.iter_rows(named=True), strict=True):
        np.testing.assert_array_equal(tile, pictures[place[row["sample_id"]]])
        at = index.filter(sample_id=row["sample_id"]).row(0, named=True)
        stack = np.load(finished / "token_maps" / at["file"])["maps"]  # noqa: TID251  # a test's own file
        np.testing.assert_array_equal(values, stack[at["at"]])
        assert f"{row['rank']}. {row['sample_id']} · relevance " in words(page)
    assert not page.error


def test_sections_are_measured_predicted_and_what_is_left(finished: Path, show: Open) -> None:
    page = gene(show(finished, "tissue"), finished, "RED1")
    assert page.selectbox(key="tissue section").options == [f"p{i}" for i in range(6)]
    assert {"measured", "predicted", "measured − predicted"} <= set(words(page).splitlines())
    frame = pl.read_parquet(finished / "heads" / "predictions.parquet").filter(gene="RED1")
    mine = frame.filter(pl.col("sample_id").is_in([f"s{i:03d}" for i in range(8)]))
    pearson = f"{np.corrcoef(mine['measured'], mine['predicted'])[0, 1]:.2f}".replace("-", "−")
    assert f"8 samples; Pearson {pearson}; log1p of counts per million, as predicted when held out" in words(page)
    assert len(charts(page)) == 5  # scores, codes, three maps


def test_a_gene_that_was_not_explained_is_explained_here(own: Path, show: Open) -> None:
    page = gene(show(own, "tissue"), own, "FLAT")
    assert not page.error
    assert "Its codes were not explained. Explain them below." in words(page)
    assert "Not explained yet." in words(page)
    page.text_input(key="tissue codes").input("1, 3")
    well(next(each for each in page.button if each.label == "Explain").click().run())
    wait(page, "relevance")
    assert not page.error, page.error[0].value
    summary = records.read(own)["stages"]["crp_relmax"]["summary"]
    assert summary["genes"] == ["BLUE1", "FLAT", "RED1"]
    assert summary["explained"]["FLAT"]["codes"] == [1, 3]
    assert "3 genes, " in words(page)
    assert set(pl.read_parquet(own / "refs" / "FLAT.parquet")["code"]) <= {1, 3}
    assert (own / "refs" / "RED1.parquet").exists()
    assert "Explained already; its references and maps are written anew." in words(page)


@pytest.mark.parametrize(
    ("asked", "message"),
    [("9999", "there is no code 9999 in 64 codes. Choose 0 to 63."), ("`:red[x]`", "codes = '`:red[x]`'")],
)
def test_codes_that_cannot_be_are_refused_in_one_line(own: Path, show: Open, asked: str, message: str) -> None:
    page = gene(show(own, "tissue"), own, "RED1")
    page.text_input(key="tissue codes").input(asked)
    well(next(each for each in page.button if each.label == "Explain").click().run())
    wait(page, "relevance")
    assert len(page.error) == 1
    assert message in page.error[0].value
    assert page.error[0].value.startswith("`")


def test_explaining_can_be_cancelled_and_done_again(own: Path, show: Open) -> None:
    page = gene(show(own, "tissue"), own, "RED2")
    well(next(each for each in page.button if each.label == "Explain").click().run())
    job = page.session_state["relevance"]
    well(next(each for each in page.button if each.label == "Cancel").click().run())
    assert job.wait(20)
    assert job.cancelled
    well(page.run())
    assert [each.value for each in page.info] == ["Cancelled."]
    well(next(each for each in page.button if each.label == "Explain").click().run())
    wait(page, "relevance")
    assert not page.error
    assert "RED2" in records.read(own)["stages"]["crp_relmax"]["summary"]["genes"]


def test_runs_beside_this_one_can_be_chosen(own: Path, show: Open, made: Path) -> None:
    shutil.copytree(own, own.parent / "second", ignore=shutil.ignore_patterns("controls", "embeddings"))
    page = show(own, "tissue")
    assert page.selectbox(key="tissue run").options == ["own", "second"]  # a run of cells is not among them
    well(page.selectbox(key="tissue run").select("second").run())
    assert page.dataframe
    cells = show(made, "tissue")
    assert cells.selectbox(key="tissue run").options == ["own", "second"]


def test_without_a_run_of_tissue_there_is_one_line(made: Path, show: Open) -> None:
    page = show(made, "tissue")
    assert "holds no genes predicted from tissue, and no run beside it does" in page.error[0].value


def test_the_lab_of_a_run_of_tissue_begins_with_it(own: Path, show: Open) -> None:
    from elute.app.script import lab

    session.begin(own)
    page = well(AppTest.from_file(lab.__file__ or "", default_timeout=120).run())
    assert page.header[0].value == "Tissue"
    assert not page.error


def test_tiles_that_are_not_there_leave_maps_and_a_line(own: Path, show: Open) -> None:
    record = records.read(own)
    record["stages"]["embed_export"]["config"]["tiles"]["images"] = str(own / "gone")
    from elute.base import files

    files.write_json(own / "run.json", record)
    page = gene(show(own, "tissue"), own, "RED1")
    assert [each.value for each in page.error] == [
        f"` {own / 'gone'}: the tiles of this run are not there. Put them back. `"
    ]
    with pytest.raises(DataError, match="Put them back"):
        reopened_tiles(recorded_plan(own))
    record["stages"]["embed_export"]["config"]["tiles"]["images"] = "gone"
    files.write_json(own / "run.json", record)
    with pytest.raises(DataError, match="the folder in which the run was made: start there"):
        reopened_tiles(recorded_plan(own))
    del record["stages"]["embed_export"]["config"]["tiles"]
    files.write_json(own / "run.json", record)
    with pytest.raises(DataError, match="does not say where its tiles lie"):
        reopened_tiles(recorded_plan(own))


def test_tiles_of_another_table_are_refused(own: Path, finished: Path, tmp_path: Path) -> None:
    plan = recorded_plan(own)
    assert reopened_tiles(plan).table.height == 48
    table = pl.read_csv(finished.parents[1] / "tiles.csv")
    table.with_columns(patient=pl.lit("p0")).write_csv(tmp_path / "other.csv")
    from dataclasses import replace

    other = replace(plan, tiles=plan.tiles.model_copy(update={"table": tmp_path / "other.csv"}))
    with pytest.raises(GuardError, match="the tiles are not those that the run was made of"):
        reopened_tiles(other)


def test_a_record_gives_back_the_settings(finished: Path) -> None:
    plan = recorded_plan(finished)
    assert plan.sae.dict_size == "4x"
    assert plan.heads.folds == 3
    assert plan.targets.sample_column == "spot"
    assert plan.crp.gene == ("RED1", "BLUE1")
    assert plan.tiles.roles["sample"] == "spot"
    assert set(plan.sections()) >= {"tiles", "encoder", "split"}


def test_links_that_lead_out_are_refused(own: Path, tmp_path: Path, show: Open) -> None:
    (tmp_path / "secret.npz").write_bytes(b"secret")
    (own / "token_maps" / "RED1" / "9.npz").symlink_to(tmp_path / "secret.npz")
    page = show(own, "tissue")
    assert "is a link that leads out of the run's folder" in page.error[0].value
    assert not page.dataframe


def test_names_are_text(tmp_path: Path, show: Open) -> None:
    hostile = tissue_made.make_run(tmp_path / "runs" / "[x](javascript:0)", side=4, hostile=True)
    page = show(hostile.folder, "tissue")
    for name in tissue_made.HOSTILE:
        gene(page, hostile.folder, name)
        assert not [said for said in markdown(page) if name in said]
        for said in [each.value for each in page.error]:
            assert said.startswith("`")
    assert "[x](javascript:0)" in page.selectbox(key="tissue run").options


def test_pixels_are_shown_where_they_were_followed(tmp_path: Path, show: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    drawn: list[Any] = []
    monkeypatch.setattr("elute.app.tissue_parts.laid_over", lambda tile, values, **_: drawn.append(values) or tile)
    made = tissue_made.make_run(tmp_path / "runs" / "breast", side=5)
    maps = follow(made.folder, "KRT19", (17,))
    page = gene(show(made.folder, "tissue"), made.folder, "KRT19")
    well(page.selectbox(key="tissue code Raises the prediction KRT19").select(17).run())
    assert {each.shape for each in drawn if each is not None} == {(tissue_made.GRID, tissue_made.GRID)}
    drawn.clear()
    page.session_state["tissue maps"] = "of pixels"
    well(page.run())
    shown = [each for each in drawn if each is not None]
    assert len(shown) == len(maps) == 2
    for each, true in zip(shown, maps.values(), strict=True):
        np.testing.assert_array_equal(each, true)
    assert "Relevance was followed down to the pixels of these tiles alone" in words(page)


def test_a_map_lies_over_the_part_that_the_encoder_saw() -> None:
    tile = np.full((160, 160, 3), 200, np.uint8)
    values = np.array([[1.0, 0.0], [0.0, -0.5]])
    shown = laid_over(tile, values, most=1.0, seen=(0.25, 0.25, 0.75, 0.75), opacity=1.0)
    assert (shown[:40] == 200).all()
    np.testing.assert_allclose(shown[50, 50], np.array(RAISES) / 255 * 200, atol=1)
    np.testing.assert_allclose(shown[100, 100], 100 + 0.5 * np.array(LOWERS) / 255 * 200, atol=1)
    assert (shown[50, 100] == 200).all()
    assert (laid_over(tile, values, most=1.0, seen=(0, 0, 1, 1), opacity=0) == tile).all()
    small = laid_over(tile[:40, :40], None, most=0.0, seen=(0, 0, 1, 1), opacity=1.0, strongest=Patch(1, 0, (2, 2)))
    assert small.shape == (160, 160, 3)
    assert (small[80, 0] == 0).all()
    assert (small[81, 5] == 255).all()
    assert (small[20, 100] == 200).all()


def test_what_is_read_is_read_once(finished: Path) -> None:
    one = session.begin(finished)
    assert tissue_runs.held(one) is tissue_runs.held(one)
    assert sorted(tissue_runs.held(one).findings.genes) == sorted(GENES)
    session._open.clear()
