"""The README, word by word, in an empty folder; and the demonstration's page in a browser."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import anndata
import numpy as np
import pandas as pd
import polars as pl
from playwright.sync_api import Browser
from scipy.sparse import csr_matrix

Elute = Callable[..., subprocess.CompletedProcess[str]]

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def blocks(kind: str, text: str = README) -> list[str]:
    return re.findall(rf"^```{kind}\n(.*?)^```", text, re.MULTILINE | re.DOTALL)


def python(code: str, folder: Path, *options: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, *options, "-c", code]
    return subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=300)


def test_the_readme_from_top_to_bottom_and_the_python_of_the_guide(elute: Elute, tmp_path: Path) -> None:
    np.save(tmp_path / "embedding.npy", np.random.default_rng(0).standard_normal((600, 8)).astype(np.float32))
    table = {"cell": [f"cell{i}" for i in range(600)], "donor": [f"donor{i // 50}" for i in range(600)]}
    pl.DataFrame(table).write_csv(tmp_path / "samples.csv")
    counts = np.random.default_rng(1).poisson(0.7, (300, 90)).astype(np.float32)
    genes = pd.DataFrame(index=[f"ENSG{i:011d}" for i in range(90)])
    obs = pd.DataFrame({"donor_id": [f"donor{i % 10}" for i in range(300)]}, index=[f"cell{i}" for i in range(300)])
    anndata.AnnData(csr_matrix(counts), obs, genes).write_h5ad(tmp_path / "cells.h5ad")
    steps = re.findall(r"^```(sh|python)\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    assert [kind for kind, _ in steps] == ["sh", "sh", "sh", "sh", "python", "sh", "python", "python"]
    printed = []
    for kind, text in steps:
        if kind == "python":
            done = python(text, tmp_path)
            assert done.returncode == 0, done.stderr
            printed.append(done.stdout)
            continue
        for line in text.splitlines():
            words = shlex.split(line)
            assert words[0] == "elute"
            elute(*words[1:])
    assert (tmp_path / "results" / "mine" / "report.html").exists()
    assert (tmp_path / "results" / "features" / "report" / "report.pdf").read_bytes().startswith(b"%PDF")
    told = json.loads((tmp_path / "results" / "sae" / "evaluation.json").read_text())
    assert told["recovered_fraction"] > 0.8 > told["control"]["recovered_fraction"]
    assert "Codes(1000 rows, k=6, 512 features" in printed[1]
    assert "torch.Size([1000, 16])" in printed[2]
    again = python(steps[-1][1], tmp_path, "-W", "error")
    assert "the model's weights" in again.stderr, "another random network is refused"
    for page in sorted((ROOT / "docs" / "guide").glob("*.md")):
        for code in blocks("python", page.read_text()):
            done = python(code, tmp_path)
            assert done.returncode == 0, f"{page.name}: {done.stderr}"


def test_links_in_the_readme_and_docs_lead_somewhere() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    for page in pages:
        for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text()):
            assert (page.parent / link).exists(), f"{page.name} → {link}"


def test_the_demonstration_says_what_the_readme_says(elute: Elute, tmp_path: Path) -> None:
    printed = elute("demo", timeout=900).stdout
    shown = blocks("")[0]
    for line in re.sub(r"(held out [\d.]+) .*", r"\1", shown).splitlines():  # which genes lead may differ, too
        # Digits may differ between processors; words and places may not.
        pattern = r"\s+".join(
            re.sub(r"[\d.,]+", r"[\\d.,]+", re.escape(w).replace(r"\,", ",").replace(r"\.", ".")) for w in line.split()
        )
        assert re.search(pattern, printed), f"{line!r} is not in\n{printed}"
    again = json.loads(elute("demo", "--json").stdout)
    table = {row["name"]: row for row in again["held_out"]}
    for less in ("the gene's mean", "random weights, linear readout", "the mean of all values"):
        assert table[less]["verdict"] == "beaten", less
        assert table[less]["high"] < 0
    follow = next(iter(again["features"]["controls"].values()))["follow"]
    assert follow["features"]["follow"] > follow["random weights"]["follow"] + follow["permuted labels"]["follow"]
    genes = {row["level"]: row["top_genes"][:8] for row in again["named"]}
    assert {"LST1", "AIF1", "TYROBP"} & set(genes["monocyte"])
    assert {"CD3D", "CD3E"} & set(genes["T"])
    assert {"CD79A", "MS4A1", "MZB1", "IGJ"} & set(genes["B"])
    places = [line.strip() for line in printed[printed.index("Where to look:") :].splitlines()[1:]]
    assert Path(tmp_path, places[0].split()[0]).is_file(), places
    commands = [shlex.split(line)[1:] for line in places if line.startswith("elute") and "FILE" not in line]
    assert commands, places
    for words in commands:
        elute(*words)


def test_the_demonstration_of_arrays_and_its_page(elute: Elute, tmp_path: Path, browser: Browser) -> None:
    found = json.loads(elute("arrays", "demo", "--json").stdout)
    assert found["rows"] == 12_000
    assert found["accuracy"]["trained"] > 0.7 > 0.4 > found["accuracy"]["random weights"]
    look(browser, tmp_path / found["report"], "12,000", tmp_path)


def test_the_page_of_hostile_names(elute: Elute, tmp_path: Path, browser: Browser) -> None:
    hostile = "<img src=x onerror=document.title='owned'>"
    np.savez(tmp_path / "x.npz", a=np.ones((40, 3), np.float32))
    table = {
        "sample_id": [f"{hostile}{i}" for i in range(40)],
        "donor": [f"🧬 {hostile} {i // 4}" for i in range(40)],
        "kind": ["\u202eabc", "x" * 3000] * 20,
    }
    pl.DataFrame(table).write_parquet(tmp_path / "meta.parquet")
    elute(
        "arrays",
        "import",
        "x.npz",
        "--output",
        "s",
        "--metadata",
        "meta.parquet",
        "--group",
        "donor",
        "--label",
        "kind",
    )
    elute("arrays", "split", "s")
    elute("arrays", "report", "s")
    look(browser, tmp_path / "s" / "report.html", "40 in 1 shard,", tmp_path)


def look(browser: Browser, path: Path, words: str, pictures: Path) -> None:
    """Open a page as a person does, on a desk and on a telephone: whole, silent, and alone."""
    faults: list[str] = []
    for width, height in ((1280, 800), (390, 844)):
        page = browser.new_page(viewport={"width": width, "height": height})
        page.on("console", lambda m: faults.append(m.text))
        page.on("pageerror", lambda e: faults.append(str(e)))
        page.on("request", lambda r: faults.append(r.url) if not r.url.startswith("file:") else None)
        page.goto(path.as_uri())
        assert words in page.inner_text("main")
        assert "owned" not in page.title()
        assert page.evaluate("document.documentElement.scrollWidth") <= width, "no text runs off the side"
        folder = Path(os.environ.get("ELUTE_PICTURES", pictures))
        page.screenshot(path=folder / f"{path.parent.name}-{width}.png", full_page=True)
        page.close()
    assert faults == []
