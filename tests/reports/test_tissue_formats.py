"""docs/formats/tissue.md against those who write the files, and those who read them."""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import pytest

from elute.analysis.prototypes import References
from elute.analysis.relevance_totals import CodeTotals
from elute.analysis.token_maps import safe_name
from elute.heads.predicted import predictions
from elute.heads.scores import scores
from elute.reports.tissue import reading
from elute.tissue.tile_table import SCHEMA

_SPEC = importlib.util.spec_from_file_location("tissue_made", Path(__file__).with_name("tissue_made.py"))
assert _SPEC is not None
assert _SPEC.loader is not None
made_up = importlib.util.module_from_spec(_SPEC)
sys.modules[_SPEC.name] = made_up
_SPEC.loader.exec_module(made_up)

TEXT = (Path(__file__).parents[2] / "docs/formats/tissue.md").read_text()


def documented(first: str) -> dict[str, str]:
    """The columns with their types of the first table after some words."""
    table = TEXT[TEXT.index(first) :].split("| column | type | is |\n|---|---|---|\n", 1)[1].split("\n\n")[0]
    found = {}
    for line in table.splitlines():
        names, kind = line.strip("| ").split(" | ")[:2]
        found.update(dict.fromkeys(re.findall(r"`(\w+)`", names), kind))
    return found


PLACES = {
    "## tiles.parquet": "tiles.parquet",
    "`metrics.parquet`": "heads/metrics.parquet",
    "`coefficients.parquet`": "heads/coefficients.parquet",
    "`predictions.parquet`": "heads/predictions.parquet",
    "`<gene>.parquet`, codes": "relevance/KRT19.parquet",
    "`<gene>.samples.parquet`": "relevance/KRT19.samples.parquet",
    "`conservation.parquet`": "relevance/conservation.parquet",
    "`<gene>.parquet`, the k best": "refs/KRT19.parquet",
    "`index.parquet`": "token_maps/index.parquet",
    "`<gene>.parquet`, means": "faithfulness/KRT19.parquet",
}


def test_tiles_scores_lists_and_relevance_are_written_as_the_page_says() -> None:
    kinds = {"String": "string", "Float64": "float64", "Int64": "int64", "Int32": "int32"}

    def told(schema: Any) -> dict[str, str]:
        return {name: kinds[str(kind)] for name, kind in schema.items()}

    assert told({name: kind() for name, kind in SCHEMA.items()}) == documented("## tiles.parquet")
    y = np.array([[0.0], [1.0], [2.0], [4.0]])
    folds = np.array([0, 0, 1, 1])
    held = predictions("mse", y, folds, mean=y + 0.1, null_mean=np.full_like(y, 1.0))
    assert told(scores(held, ["A"], groups=["a", "a", "b", "b"]).schema) == documented("`metrics.parquet`")
    of_gene = {"gene": pl.String()}
    assert told({**of_gene, **References(2, 2).result().schema}) == documented("`<gene>.parquet`, the k best")
    assert told({**of_gene, **CodeTotals(3).result().schema}) == documented("`<gene>.parquet`, codes")


@pytest.mark.parametrize(("words", "path"), PLACES.items(), ids=PLACES.values())
def test_the_made_up_run_has_no_columns_but_those_of_the_page(words: str, path: str, tmp_path: Path) -> None:
    made = made_up.make_run(tmp_path / "run", side=2, sections=2, pixels=14)
    table = pl.read_parquet(made.folder / path)
    assert set(table.columns) <= set(documented(words)), path


@pytest.mark.parametrize(
    ("words", "columns"),
    [
        ("## tiles.parquet", reading._TILES),
        ("`metrics.parquet`", reading._SCORED),
        ("`coefficients.parquet`", reading._COEFFICIENTS),
        ("`<gene>.parquet`, codes", reading._RELEVANCE),
        ("`<gene>.samples.parquet`", reading._OF_SAMPLES),
        ("`<gene>.parquet`, the k best", reading._REFS),
        ("`conservation.parquet`", reading._CONSERVED),
        ("`<gene>.parquet`, means", reading._REMOVAL),
    ],
)
def test_the_report_reads_columns_of_the_page(words: str, columns: dict[str, Any]) -> None:
    assert set(columns) <= set(documented(words))


def test_names_of_files_are_as_the_page_says() -> None:
    assert safe_name("HLA-DRA.1_x") == "HLA-DRA.1_x"
    assert safe_name("a/b é") == "a%2Fb%20%C3%A9"
    assert safe_name(".hidden").startswith("%2E")
    assert safe_name("index") == "%69ndex"
    assert safe_name("A.samples") == "A%2Esamples"
    long = safe_name("G" * 10_000)
    assert re.fullmatch(r"G{142}%%[0-9a-f]{16}", long)
