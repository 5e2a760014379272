"""The dashboard's file: one, closed, harmless, and what the tables say. What it does in a browser: journeys."""

from __future__ import annotations

import base64
import hashlib
import importlib.util
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import polars as pl
import pytest

from elute.base.errors import ConfigError, DamagedError, DataError
from elute.reports.dashboard import write_dashboard

_SPEC = importlib.util.spec_from_file_location("made_up_run", Path(__file__).with_name("made_up_run.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
made_up = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(made_up)


class Parts(HTMLParser):
    """The text of each element that is a whole of its own, and every tag."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.inside: dict[str, str] = {}
        self.attributes: dict[str, dict[str, str | None]] = {}
        self._in = ""
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        given = dict(attrs)
        self._in = given.get("id") or given.get("http-equiv") or tag
        self.attributes[self._in] = given

    def handle_endtag(self, tag: str) -> None:
        self._in = ""

    def handle_data(self, data: str) -> None:
        self.inside[self._in] = self.inside.get(self._in, "") + data


def read(path: Path) -> tuple[Parts, dict[str, Any]]:
    parts = Parts(path.read_text())
    return parts, json.loads(parts.inside["data"])


def test_a_page_holds_the_most_frequent_features_as_their_tables_have_them(tmp_path: Path) -> None:
    folder = made_up.make_run(tmp_path / "pbmc", features=40)
    artifact = write_dashboard(folder, top_n_features=10)
    assert artifact.path == folder / "dashboard.html"
    assert artifact.summary == {"features": {"pbmc": 10}, "bytes": artifact.path.stat().st_size}
    _, data = read(artifact.path)
    (site,) = data["sites"]
    frame = pl.read_parquet(folder / "features.parquet").sort("frequency", descending=True)
    assert site["features"]["feature"] == frame["feature"].head(10).to_list()
    assert site["features"]["frequency"] == pytest.approx(frame["frequency"].head(10).to_list(), rel=1e-5)
    assert set(site["features"]) == set(frame.columns), "columns as in features.parquet"
    assert (site["of"], site["alive"]) == (40, 35)
    assert len(site["edges"]) == len(site["features"]["histogram"][0]) - 1
    assert site["about"] == {"explained": 0.8123, "explained_pca": 0.6331, "explained_on": "test"}
    assert data["about"] == {"cells": 400, "donors": 8, "splits": [["train", 250], ["test", 150]]}
    held = {row["name"]: row for row in site["controls"]["rows"]}
    assert (held["features"]["follow"], held["genes"]["follow"], held["permuted labels"]["follow"]) == (41, 63, 0.5)
    assert (held["features"]["identity"], held["random weights"]["identity"]) == (0.5, 1.0)
    assert held["embedding layer"]["not_run"] == "the model has no such site"
    first = site["features"]["feature"][0]
    genes = pl.read_parquet(folder / "feature_genes.parquet").filter(pl.col("feature") == first)
    mine = [
        symbol
        for symbol, f in zip(site["feature_genes"]["symbol"], site["feature_genes"]["feature"], strict=True)
        if f == first
    ]
    assert set(mine) == set(genes["symbol"])
    assert set(site["feature_genes"]["feature"]) == set(site["features"]["feature"])
    again = artifact.path.read_bytes()
    assert write_dashboard(folder, top_n_features=10).path.read_bytes() == again


def test_long_tables_are_cut_to_both_rankings(tmp_path: Path) -> None:
    folder = made_up.make_run(tmp_path / "run", features=8)
    rows = [
        {
            "feature": 0,
            "gene": f"g{i}",
            "symbol": f"G{i}",
            "rank": i + 1,
            "rank_raw": 200 - i,
            "z": 3.0,
            "z_shown": None,
        }
        for i in range(200)
    ]
    pl.DataFrame(rows).with_columns(pl.col("feature").cast(pl.Int32)).write_parquet(folder / "feature_genes.parquet")
    _, data = read(write_dashboard(folder).path)
    shown = data["sites"][0]["feature_genes"]["symbol"]
    assert len(shown) == 40
    assert {f"G{i}" for i in range(20)} | {f"G{199 - i}" for i in range(20)} == set(shown)


def test_several_sites_stand_in_the_order_of_their_blocks(tmp_path: Path) -> None:
    for site in ("blocks.10.hook_mlp_out", "blocks.2.hook_mlp_out"):
        made_up.make_run(tmp_path / "run" / site, features=8)
    (tmp_path / "run" / "activations").mkdir()
    artifact = write_dashboard(tmp_path / "run")
    assert list(artifact.summary["features"]) == ["blocks.2.hook_mlp_out", "blocks.10.hook_mlp_out"]
    assert artifact.path == tmp_path / "run" / "dashboard.html"


def test_hostile_names_end_no_element_and_long_ones_are_cut(tmp_path: Path) -> None:
    names = {
        "CD79A": "</script><img src=x onerror=alert(1)>",
        "MS4A1": "y" * 10_000,
        "LYZ": "a\u2028b",
        "CD3D": "{{script}}\\",
    }
    folder = made_up.make_run(tmp_path / "<b>run", features=20, names=names)
    path = write_dashboard(folder).path
    parts, data = read(path)
    assert "img" not in parts.tags
    assert "b" not in parts.tags
    assert parts.tags.count("script") == 2
    symbols = set(data["sites"][0]["feature_genes"]["symbol"])
    assert {names["CD79A"], names["LYZ"], names["CD3D"]} <= symbols
    assert f"{'y' * 300}… (10,000 characters)" in symbols
    assert "\u2028" not in path.read_text()
    assert data["run"] == "<b>run"


def test_the_policy_allows_this_program_alone(tmp_path: Path) -> None:
    text = write_dashboard(made_up.make_run(tmp_path / "run", features=8)).path.read_text()
    parts = Parts(text)
    policy = parts.attributes["Content-Security-Policy"]["content"] or ""
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    script = re.search(r'<script type="module">(.*?)</script>', text, re.DOTALL)
    style = re.search(r"<style>(.*?)</style>", text, re.DOTALL)
    assert script is not None
    assert style is not None
    for kind, found in (("script", script), ("style", style)):
        digest = base64.b64encode(hashlib.sha256(found[1].encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in policy
    assert not re.search(r"^(import|export) ", script[1], re.MULTILINE)
    assert not re.search(r"innerHTML|outerHTML|insertAdjacent|document\.write|eval\(|https?://(?!www\.w3\.org)", text)


def test_numbers_that_are_none_are_null(tmp_path: Path) -> None:
    folder = made_up.make_run(tmp_path / "run", features=8)
    frame = pl.read_parquet(folder / "features.parquet").with_columns(pl.lit(float("nan")).alias("auroc"))
    frame.with_columns(pl.lit(float("inf")).alias("max")).write_parquet(folder / "features.parquet")
    for table in ("feature_genes", "feature_cells", "feature_groups", "feature_numbers"):
        (folder / f"{table}.parquet").unlink()
    _, data = read(write_dashboard(folder).path)
    (site,) = data["sites"]
    assert set(site["features"]["auroc"]) == set(site["features"]["max"]) == {None}
    assert site["feature_genes"] is site["feature_groups"] is None
    summary = {"reconstruction": {"explained_variance": 0.5, "principal": 0.4}}
    (folder / "validation" / "summary.json").write_text(json.dumps(summary))
    _, data = read(write_dashboard(folder).path)
    assert data["sites"][0]["about"] == {"explained": 0.5, "explained_pca": 0.4, "explained_on": "test"}
    assert data["sites"][0]["controls"] is None
    (folder / "validation" / "summary.json").write_text("{")
    with pytest.raises(DamagedError, match="summary.json: is not a summary of controls"):
        write_dashboard(folder)


def test_a_run_without_associations_is_told_what_to_type(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    (folder / "codes").mkdir(parents=True)
    (folder / "sae_final.pt").write_bytes(b"")
    line = rf"{folder}: holds no features.parquet. Type: elute cells extract --sae {folder} --data FILE.h5ad"
    with pytest.raises(DataError) as caught:
        write_dashboard(folder)
    assert caught.value.line() == line
    with pytest.raises(DataError, match="holds no features.parquet"):
        write_dashboard(tmp_path)
    with pytest.raises(DataError, match="there is no such folder"):
        write_dashboard(tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="Give --top-n-features 1 or more"):
        write_dashboard(folder, top_n_features=0)
    assert not (folder / "dashboard.html").exists()


def test_tables_that_are_none_are_refused(tmp_path: Path) -> None:
    folder = made_up.make_run(tmp_path / "run", features=8)
    whole = (folder / "features.parquet").read_bytes()
    (folder / "features.parquet").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(DamagedError, match=r"features.parquet: cannot be read: .* Type: elute cells extract"):
        write_dashboard(folder)
    pl.DataFrame({"feature": [1, 2]}).write_parquet(folder / "features.parquet")
    with pytest.raises(DamagedError, match="has no column 'frequency'"):
        write_dashboard(folder)
    pl.DataFrame({"feature": [1, 2], "frequency": [0.0, 0.0]}).write_parquet(folder / "features.parquet")
    with pytest.raises(DataError, match="no feature fires"):
        write_dashboard(folder)
