"""All stages on real sections: 1,202 tiles of two patients, with counts of the same spots; and the report in a browser."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import polars as pl
import pytest
import torch
import yaml
from playwright.sync_api import Browser, expect
from tests.journeys.looking import DESK, TELEPHONE, looked

from elute.models.vision.small import SmallViT, SmallViTConfig, write_folder

Elute = Callable[..., subprocess.CompletedProcess[str]]
pytestmark = pytest.mark.real_data

COUNTS = "her2st_6sections_2000genes.h5ad"
EMPTY = ["B4_11x17", "C2_18x20"]  # spots in which none of these genes was counted
BASELINES = {"mean", "dense_pca_ridge", "shuffled", "neighbours", "random_encoder"}


def settings(tissue: Path) -> dict[str, object]:
    """As a person writes them: of two patients each is held out once, so that no penalty can be chosen among others."""
    tiles = tissue / "her2st_tiles"
    columns = {"sample": "section+spot", "group": "patient", "section": "section", "label": "coarse_label"}
    return {
        "run": {"output": "run"},
        "tiles": {"images": str(tiles / "tiles_jpeg112.bin"), "table": str(tiles / "tiles.csv"),
                  "columns": {**columns, "x": "pixel_x", "y": "pixel_y"}},
        "encoder": {"encoder": "encoder", "device": "cpu"},
        "split": {"fractions": {"train": 0.5, "test": 0.5}},
        "sae": {"dict_size": "4x", "top_k": 8, "steps": 200, "train_batch_size": 512, "device": "cpu"},
        "targets": {"counts": str(tissue / COUNTS), "genes": "hvg:6"},
        "heads": {"folds": 2, "penalties": [1.0]},
        "controls": {"components": 16},
        "crp": {"codes": "top5", "k": 4, "most_genes": 2, "curve_samples": 10},
        "reports": {"tiles_per_code": 4},
    }  # fmt: skip


def test_from_tiles_of_real_sections_to_pages(elute: Elute, real_data: Path, tmp_path: Path, browser: Browser) -> None:
    """The encoder has random weights: what is shown is that real files go through, and what stands beside a score."""
    tissue = real_data / "tissue"
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        shape = SmallViTConfig(image_size=112, patch=16, width=32, n_layers=2, n_heads=2, hidden=64)
        write_folder(tmp_path / "encoder", SmallViT(shape))
    (tmp_path / "cfg.yaml").write_text(yaml.safe_dump(settings(tissue)))
    told = elute("tissue", "run", "--config", "cfg.yaml")
    run = tmp_path / "run"

    assert "1,193 samples have tiles and targets; 9 have tiles alone, 0 targets alone" in told.stderr
    assert "nothing was counted in 2 samples ('B4_11x17', 'C2_18x20'), left out" in told.stderr
    assert "6 genes on 1,191 samples of 2 patients, 2 folds" in told.stdout
    missing = pl.read_parquet(run / "targets" / "missing.parquet")
    assert missing["side"].value_counts(sort=True).rows() == [("targets", 9), ("counts", 2)]
    assert missing.filter(side="counts")["sample_id"].to_list() == EMPTY
    counted = anndata.read_h5ad(tissue / COUNTS)
    totals = np.asarray(counted.X.sum(1)).ravel()
    assert sorted(counted.obs_names[totals == 0]) == EMPTY
    samples = pl.read_parquet(run / "targets" / "samples.parquet")
    assert set(samples["sample_id"]) == set(counted.obs_names[totals > 0])

    folds = pl.read_parquet(run / "folds.parquet")
    assert folds.select("group", "fold").unique().height == folds["fold"].n_unique() == 2
    own = pl.read_parquet(run / "heads" / "metrics.parquet")
    beside = pl.read_parquet(run / "heads" / "baselines.parquet")
    assert set(beside["model"]) == BASELINES
    assert set(beside.group_by("gene").len()["len"]) == {5}
    assert own["n"].unique().to_list() == [1191]
    assert own["interval"].unique().to_list() == ["samples"]
    assert pl.read_parquet(run / "relevance" / "conservation.parquet")["worst_relative"].max() < 1e-4  # type: ignore[operator]
    see(browser, run, own)
    again = elute("tissue", "run", "--config", "cfg.yaml").stderr
    for stage in ("train_sae", "extract_codes", "align_targets", "train_heads", "crp_relmax", "make_reports"):
        assert f"{stage} was done already" in again


def see(browser: Browser, run: Path, own: pl.DataFrame) -> None:
    gene = min(path.stem for path in (run / "refs").glob("*.parquet"))
    code = int(pl.read_parquet(run / "refs" / f"{gene}.parquet")["code"][0])
    for size in (DESK, TELEPHONE):
        with looked(browser, run / "report" / "index.html", size) as page:
            expect(page.locator("#count")).to_contain_text("all 6 genes")
            # Two patients, and an encoder that learnt nothing: whatever the numbers are, nothing is claimed.
            assert "0 of 6 genes are predicted better than by every control" in page.inner_text("main")
            assert "2 have a row of targets in which nothing was counted" in page.inner_text("main")
            assert set(page.locator("#genes tbody th a").all_inner_texts()) == set(own["gene"])
        with looked(browser, run / "report" / "genes" / f"{gene}.html", size) as page:
            expect(page.locator("h1")).to_have_text(gene)
            for words in ("interval over samples: too few patients", "Random-weight encoder", "Codes that raise"):
                assert words in page.inner_text("main")
            page.locator(".section-maps").first.scroll_into_view_if_needed()
            expect(page.locator(".section-maps")).to_have_count(6)  # sections
            assert page.locator(".shot .tile").first.evaluate("(tile) => tile.naturalWidth") == 112
        with looked(browser, run / "report" / "codes" / f"{code}.html", size) as page:
            expect(page.locator("h1")).to_have_text(f"Code {code}")
            assert "of all tiles" in page.inner_text("main")  # labels of the spots, beside how frequent they are
