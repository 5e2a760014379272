"""The demonstration in small: every stage runs, is not done twice, and is told in words."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import polars as pl
import pytest

from elute.base.recipe import Section
from elute.heads.settings import HeadConfig
from elute.reports.tissue.settings import TissueReportConfig
from elute.tissue.demo import COHORT, demo_plan, run_demo, show
from elute.tissue.painting_genes import GENES, PLANTED
from elute.tissue.painting_settings import PaintConfig
from elute.tissue.pretrain_settings import PretrainConfig
from elute.tissue.settings import CrpConfig, SaeConfig

PAINT = PaintConfig(seed=1, patients=6, side=4)
LEARN = PretrainConfig(width=16, layers=1, heads=2, steps=4, batch_size=4, seed=1)
SECTIONS: dict[str, Section] = {
    "sae": SaeConfig(dict_size="8", top_k=2, steps=30, train_batch_size=256, device="cpu"),
    "heads": HeadConfig(folds=2, inner_folds=2),
    "crp": CrpConfig(gene=tuple(PLANTED), codes="top8", k=20, curve_samples=0),
    "reports": TissueReportConfig(tiles_per_code=2),
}


def content(folder: Path) -> dict[str, str]:
    paths = (path for path in folder.rglob("*") if path.is_file() and not path.name.endswith(".lock"))
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in paths}


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("demo")
    run_demo(folder, seed=1, paint=PAINT, pretrain=LEARN, sections=SECTIONS, permutations=2)
    return folder


def test_it_leaves_a_run_and_what_was_recovered(done: Path) -> None:
    summary = json.loads((done / "run.json").read_text())["stages"]["demo"]["summary"]
    table = pl.read_parquet(done / "recovery.parquet")
    assert table["gene"].to_list() == list(PLANTED)
    assert table["structure"].to_list() == list(PLANTED.values())
    assert pl.read_parquet(done / "recovery_permuted.parquet").height == 20
    assert summary["tiles"] == 96
    assert sum(summary["labels"].values()) == 96
    found = summary["recovery"]
    assert found["hits"] == int((table["precision"] >= 0.8).sum())
    metrics = pl.read_parquet(done / "heads" / "metrics.parquet")
    assert set(metrics["gene"]) == set(GENES)
    assert (done / "report" / "index.html").is_file()


def test_precision_is_that_of_the_run_s_own_references(done: Path) -> None:
    labels = dict(pl.read_parquet(done / "tiles.parquet").select("sample_id", "label").iter_rows())
    for row in pl.read_parquet(done / "recovery.parquet").iter_rows(named=True):
        refs = pl.read_parquet(done / "refs" / f"{row['gene']}.parquet").filter(
            pl.col("code") == row["code"], pl.col("kind") == "relmax", pl.col("target") == "sum", pl.col("sign") == "+"
        )
        right = [labels[name] == row["structure"] for name in refs.sort("rank")["sample_id"].head(20)]
        assert len(right) == row["references"] > 0
        assert row["precision"] == pytest.approx(sum(right) / len(right))


def test_a_second_run_changes_nothing(done: Path) -> None:
    before = content(done)
    again = run_demo(done, seed=1, paint=PAINT, pretrain=LEARN, sections=SECTIONS, permutations=2)
    assert content(done) == before
    text = show({**again.summary, "path": str(again.path)})
    assert "96 painted tiles of 6 patients" in text
    assert all(f"{gene:<8}{structure}" in text for gene, structure in PLANTED.items())
    assert max(len(line) for line in text.splitlines() if str(done) not in line) <= 120


def test_the_usual_settings_keep_the_encoder_s_patients_apart(tmp_path: Path) -> None:
    plan = demo_plan(tmp_path, seed=3)
    assert plan.tiles.images == tmp_path / COHORT / "tiles"
    assert plan.targets.library == "library"
    assert plan.crp.gene == tuple(PLANTED)
    assert plan.crp.k == 20
