"""Names that would be something else if anyone read them as Markdown or HTML: they are set as text, on every page."""

from __future__ import annotations

import json
from pathlib import Path

import polars as pl
import pytest
from tests.app.conftest import Open, markdown, well, words
from tests.reports import made_up_run

NAMES = [
    "<img src=x onerror=document.title='owned'>",
    "[x](javascript:alert(1))",
    ":red[x] :smile: :material/home:",
    "$x^2$ and `code` and ``more``",
    "![x](https://example.invalid/x.png)",
    "שלום \u202eabc 🧬",
    "W" * 10_000,
]


def hostile(folder: Path, name: str) -> Path:
    """A run whose genes, types, columns, levels and trainings all have one name."""
    names = dict.fromkeys([*made_up_run.MARKERS, *made_up_run.COMMON, "CD79A", "CD3D", "NKG7", "LST1"], name)
    made_up_run.make_run(folder, features=12, names=names)
    cells = pl.read_parquet(folder / "cells.parquet")
    cells.with_columns(pl.lit(name).alias(f"obs:{name}")).write_parquet(folder / "cells.parquet")
    features = pl.read_parquet(folder / "features.parquet")
    features.with_columns(name=pl.lit(name), kind=pl.lit(name)).write_parquet(folder / "features.parquet")
    donors = pl.DataFrame({"feature": [1, 1], "column": [name] * 2, "level": [name] * 2, "donor": [name, "b"],
                           "mean_inside": [1.0, 2.0], "mean_outside": [0.5, 0.1]}, schema_overrides={"feature": pl.Int32})  # fmt: skip
    donors.write_parquet(folder / "feature_donors.parquet")
    (folder / "training_metrics.jsonl").write_text(
        "".join(json.dumps({"step": i, name: 0.5 * i}) + "\n" for i in range(3))
    )
    return folder


@pytest.mark.parametrize("name", NAMES, ids=["img", "link", "directive", "maths", "image", "direction", "long"])
def test_names_are_text(tmp_path: Path, show: Open, name: str) -> None:
    folder = hostile(tmp_path / "runs" / "mine", name)
    hostile(tmp_path / "runs" / "other", name).rename(tmp_path / "runs" / "[x](javascript:0)")
    page = show(folder, "explore")
    assert not [said for said in markdown(page) if name in said]
    well(page.selectbox(key="table").select("Cells").run())
    well(page.multiselect(key="by Cells").select(f"obs:{name}").run())
    assert f"obs:{name}" in words(page)
    assert page.multiselect(key=f"among Cells obs:{name}").options == [name]
    assert not [said for said in markdown(page) if name in said]
    one = show(folder, "explore", view="One feature", feature=1)
    assert name in words(one)
    assert name in one.dataframe[0].value["symbol"].tolist()
    assert not [said for said in markdown(one) if name in said]
    curves = show(folder, "monitor")
    assert name in words(curves)
    assert not [said for said in markdown(curves) if name in said]
    runs = show(folder, "compare")
    assert "[x](javascript:0)" in words(runs)
    assert not [said for said in markdown(runs) if "javascript" in said]


def test_an_error_shows_what_it_names_as_it_is(tmp_path: Path, show: Open) -> None:
    folder = tmp_path / "[a](javascript:0) :red[b] $c$"
    made_up_run.make_run(tmp_path / "run", features=12).rename(folder)
    (folder / "feature_genes.parquet").unlink()
    page = show(folder, "explore", view="One feature", feature=1)
    assert page.error[0].value.startswith(f"` {folder}: holds no feature_genes.parquet.")
    assert len(page.tabs) == 6
    assert len(page.dataframe) > 3  # what the other tables say is there
