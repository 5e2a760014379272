"""`elute tissue demo` in small, as a newcomer types it: what it leaves, what stands beside it, and its pages.

So small an encoder on so few tiles has not learnt tissue: how much of what was planted comes back is not asked here.
"""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from pathlib import Path

import polars as pl
from playwright.sync_api import Browser, expect
from tests.journeys.looking import DESK, TELEPHONE, looked

from elute.tissue.painting_genes import GENES, PLANTED

Elute = Callable[..., subprocess.CompletedProcess[str]]
SMALL = ("--side", 4, "--patients", 6, "--steps", 20, "--width", 16, "--layers", 1, "--heads", 2)
FILES = ("cohort/tiles.csv", "cohort/truth.parquet", "cohort/targets.parquet", "encoder/config.json",
         "encoder/model.safetensors", "tiles.parquet", "embeddings/manifest.json", "embeddings/embed_stats.json", "sae.pt",
         "sae_usage.parquet", "codes/manifest.json", "folds.parquet", "targets/counts.safetensors", "heads/heads.pt",
         "relevance/conservation.parquet", "token_maps/index.parquet", "report/index.html", "run.json", "config.yaml")  # fmt: skip


def test_the_demonstration_leaves_a_run_with_its_controls(elute: Elute, tmp_path: Path, browser: Browser) -> None:
    told = elute("tissue", "demo", "--output", "demo", *SMALL, timeout=400)
    run = tmp_path / "demo"
    assert [name for name in FILES if not (run / name).is_file()] == []

    # Every planted gene beside random weights, permuted targets and chance; what is printed is what is written.
    table = pl.read_parquet(run / "recovery.parquet")
    assert table["gene"].to_list() == list(PLANTED)
    assert table["structure"].to_list() == list(PLANTED.values())
    controls = ["random_r2", "random_precision", "permuted_r2", "permuted_precision", "chance", "code_chance"]
    assert table.select(controls).null_count().sum_horizontal()[0] == 0
    assert table.select(*controls[1::2], "chance").min_horizontal().min() >= 0  # type: ignore[operator]
    permuted = pl.read_parquet(run / "recovery_permuted.parquet")
    assert permuted.height == 20 * len(PLANTED)
    rows = re.findall(r"^(\w+)\s+(\w+)\s+(-?[\d.]+) \((-?[\d.]+) to (-?[\d.]+)\)", told.stdout, re.MULTILINE)
    shown = [(gene, structure, *map(float, ends)) for gene, structure, *ends in rows]
    true = table.select("gene", "structure", "r2", "r2_low", "r2_high").rows()
    assert [row[:2] for row in shown] == [row[:2] for row in true]
    assert all(
        abs(a - b) <= 0.0051
        for one, other in zip(shown, true, strict=True)
        for a, b in zip(one[2:], other[2:], strict=True)
    )
    summary = json.loads((run / "run.json").read_text())["stages"]["demo"]["summary"]
    assert f"Hits: {summary['recovery']['hits']} of 10 genes; with random weights" in told.stdout
    assert "Targets permuted across tiles, 20 times:" in told.stdout

    # Patients are held out, and each score has its baselines.
    folds = pl.read_parquet(run / "folds.parquet")
    assert folds.select("group", "fold").unique().height == folds["group"].n_unique() == 6
    metrics = pl.read_parquet(run / "heads" / "metrics.parquet")
    assert set(metrics["gene"]) == set(GENES)
    beside = pl.read_parquet(run / "heads" / "baselines.parquet")
    assert set(beside["model"]) == {"mean", "dense_pca_ridge", "shuffled", "neighbours", "random_encoder"}
    assert (beside["gene"].value_counts()["count"] == 5).all()
    explained = json.loads((run / "relevance" / "index.json").read_text())["genes"]
    assert set(explained) == set(PLANTED)

    # The structures stand on the pages as the tissue of the tiles.
    structures = set(PLANTED.values())
    for size in (DESK, TELEPHONE):
        with looked(browser, run / "report" / "index.html", size) as page:
            expect(page.locator("#count")).to_contain_text(f"all {len(GENES)} genes")
        with looked(browser, run / "report" / "genes" / "EPCAM.html", size) as page:
            expect(page.locator(".shot .over").first).to_be_attached()
            chips = " ".join(page.locator(".chips").all_inner_texts())
            assert {name for name in structures if name in chips}
            assert "of all tiles" in chips
